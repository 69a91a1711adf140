//! Calls about one task. With a manager that takes them together (ADR 0008) those that are under way at once share a
//! request.

use super::batch::{Outcome, Together, body_of};
use super::{Fault, ManagerClient, REPORT_LIMIT, segment};
use ::dialect::capability::{Verdict, report};
use bytes::Bytes;
use executor_api::Checkpoint;
use proto::calls::{TaskCall, TaskReply, TaskVerb};
use proto::limits::{self, MAX_TASK_CALLS};
use proto::package::TaskPackage;
use proto::result::UnitProgress;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Serialize;

/// What came of asking for a task.
pub(crate) enum Acquired {
    /// It is ours.
    Ours(TaskPackage, Bytes),
    /// The manager wants capabilities proven before it gives the task away.
    Asked(TaskPackage),
    /// Somebody else's, or gone.
    NotOurs,
}

/// Replaces the content type: `header` would send both.
fn typed(call: reqwest::RequestBuilder, content_type: &'static str) -> reqwest::RequestBuilder {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    call.headers(headers)
}

impl ManagerClient {
    /// Takes a task.
    ///
    /// **Repeat**: safe; the same instance gets the same package.
    pub(crate) async fn acquire(&self, task: &str, instance: &str) -> Result<Acquired, Fault> {
        let together = self.together(TaskVerb::Acquire, task, Some(instance), None, None).await;
        let asked = match together {
            // Too large for a reply with others.
            None | Some(Err(Fault::Status { status: 413, .. })) => self.acquire_alone(task, instance).await,
            Some(reply) => reply,
        };
        let body = match asked {
            Ok(None) => return Ok(Acquired::NotOurs),
            Ok(Some(body)) => body,
            // The real manager answers a task that is gone with 500 (protocol.md §4.4).
            Err(Fault::Status { status: 404 | 409 | 410 | 500, .. }) => return Ok(Acquired::NotOurs),
            Err(fault) => return Err(fault),
        };
        let package = TaskPackage::decode(&body).map_err(|e| Fault::Unreadable(e.to_string()))?;
        if package.is_assigned_to(instance) {
            return Ok(Acquired::Ours(package, body));
        }
        let asks = package.delegate.instance_id.is_none() && !package.capabilities.is_empty();
        Ok(if asks { Acquired::Asked(package) } else { Acquired::NotOurs })
    }

    /// Tells what was found about the capabilities of a task. The reply may hold the package in a form that this agent does
    /// not read, so it is left unread; the next acquire gives it (protocol.md §4.5).
    pub(crate) async fn capabilities(
        &self,
        task: &str,
        instance: &str,
        verdicts: &[Verdict],
    ) -> Result<(), Fault> {
        let id = self.delegate_id();
        let path = format!("/api/agent/delegates/{id}/tasks/{}/report/v2", segment(task));
        let body = written(&report(&self.account, &id, verdicts))?;
        let call = self.call(Method::POST, &path)?.query(&[("delegateInstanceId", instance)]).body(body);
        self.send_gated(call, limits::MAX_PACKAGE_BODY_BYTES).await.map(|_| ())
    }

    /// Tells a Harness manager how far the units of a task are.
    pub(crate) async fn harness_progress(&self, body: Bytes) -> Result<(), Fault> {
        let call = self.call(Method::PUT, "/api/agent/delegates/task-progress/progress-update/v2")?;
        let call = typed(call, ::dialect::answer::PROGRESS_CONTENT_TYPE).body(body);
        self.send_gated(call, limits::MAX_REGISTER_BODY_BYTES).await.map(|_| ())
    }

    async fn acquire_alone(&self, task: &str, instance: &str) -> Result<Option<Bytes>, Fault> {
        let path = format!("/api/agent/v2/delegates/{}/tasks/{}/acquire", self.delegate_id(), segment(task));
        let call = self.call(Method::PUT, &path)?.query(&[("delegateInstanceId", instance)]).body("");
        Ok(match self.send_gated(call, limits::MAX_PACKAGE_BODY_BYTES).await? {
            (StatusCode::NO_CONTENT, _) => None,
            (_, body) => Some(body),
        })
    }

    /// Answers a task at `path`.
    ///
    /// **Repeat**: safe; the first answer counts.
    pub(crate) async fn respond(
        &self,
        task: &str,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<(), Fault> {
        if content_type == "application/json"
            && let Some(done) = self.together(TaskVerb::Respond, task, None, None, Some(&body)).await
        {
            return done.map(drop);
        }
        let call = self.call(Method::POST, path)?.timeout(REPORT_LIMIT);
        let call = typed(call, content_type).body(body);
        self.send_gated(call, limits::MAX_REGISTER_BODY_BYTES).await.map(|_| ())
    }

    /// Stores one checkpoint with the manager.
    pub(crate) async fn checkpoint(
        &self,
        task: &str,
        fence: u64,
        checkpoint: &Checkpoint,
    ) -> Result<(), Fault> {
        let body = written(checkpoint)?;
        if let Some(done) = self.together(TaskVerb::Checkpoint, task, None, Some(fence), Some(&body)).await {
            return done.map(drop);
        }
        let call = self
            .call(Method::PUT, &format!("/api/agent/ext/tasks/{}/checkpoint", segment(task)))?
            .query(&[("delegateId", self.delegate_id().as_ref()), ("fence", fence.to_string().as_str())])
            .body(body);
        self.send_gated(call, limits::MAX_REGISTER_BODY_BYTES).await.map(|_| ())
    }

    /// Tells how far the units of a task are.
    pub(crate) async fn progress(&self, task: &str, units: &[UnitProgress]) -> Result<(), Fault> {
        let body = written(units)?;
        if let Some(done) = self.together(TaskVerb::Progress, task, None, None, Some(&body)).await {
            return done.map(drop);
        }
        let call = self
            .call(Method::PUT, &format!("/api/agent/ext/tasks/{}/progress", segment(task)))?
            .query(&[("delegateId", self.delegate_id().as_ref())])
            .body(body);
        self.send_gated(call, limits::MAX_REGISTER_BODY_BYTES).await.map(|_| ())
    }

    /// The call in a request with others; `Ok(Some)` is a body. `None`: it has to go by itself.
    async fn together(
        &self,
        verb: TaskVerb,
        task: &str,
        instance: Option<&str>,
        fence: Option<u64>,
        body: Option<&Bytes>,
    ) -> Option<Result<Option<Bytes>, Fault>> {
        if !self.batch.is_on() {
            return None;
        }
        let body = match body {
            Some(body) => Some(body_of(body)?),
            None => None,
        };
        let instance_id = instance.map(str::to_owned);
        let call = TaskCall { verb, task_id: task.to_owned(), instance_id, fence, body };
        Some(self.batch.call(self, call).await)
    }
}

fn written<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, Fault> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| Fault::Unreadable(error.to_string()))
}

impl Together for ManagerClient {
    type Call = TaskCall;
    type Answer = Option<Bytes>;
    type Fault = Fault;
    const MOST: (usize, usize) = (MAX_TASK_CALLS, 256 * 1024);

    fn weight(call: &TaskCall) -> usize {
        call.body.as_ref().map_or(0, |body| body.get().len())
    }

    fn unanswered() -> Fault {
        Fault::Unreadable("many calls in one were not answered one by one".to_owned())
    }

    async fn send(self, calls: Vec<TaskCall>) -> Result<Vec<Outcome<Self>>, Fault> {
        let body = written(&calls)?;
        let call = self.call(Method::POST, "/api/agent/ext/calls")?;
        let call = call.query(&[("delegateId", self.delegate_id().as_ref())]).body(body);
        let body = match ManagerClient::send(&self, call, limits::MAX_PACKAGE_BODY_BYTES).await {
            Ok((_, body)) => body,
            Err(Fault::Status { status: status @ (400 | 404 | 405), .. }) => {
                // The manager was replaced by one that does not know it: from here on each goes by itself.
                self.batch.switch(false);
                return Err(Fault::Away(format!("many calls in one: status {status}")));
            }
            Err(fault) => return Err(fault),
        };
        let replies: Vec<TaskReply> =
            serde_json::from_slice(&body).map_err(|error| Fault::Unreadable(error.to_string()))?;
        Ok(replies.into_iter().map(judged).collect())
    }
}

fn judged(reply: TaskReply) -> Outcome<ManagerClient> {
    match reply.status {
        200..=299 => Ok(reply.body.map(|body| Bytes::from(String::from(Box::<str>::from(body))))),
        status => Err(Fault::Status { status, retry_after: None }),
    }
}
