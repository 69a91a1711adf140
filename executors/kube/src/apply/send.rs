//! Applying a validated set, wave by wave.

use super::owners::{self, Head};
use super::validate::{explain, query, refused, try_all};
use super::{Applied, Definitions, Outcome, Prepared, Set, Verdict, gathered};
use crate::discovery::Discovery;
use crate::error::{bad_spec, cancelled};
use crate::objects::Wave;
use crate::rest::{APPLY, Ask, JSON_PATCH};
use crate::session::Session;
use bytes::Bytes;
use executor_api::{Class, Level, StepError, UnitLog};
use futures::StreamExt as _;
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a takeover is tried again when the object changes at the same time.
const TAKEOVER_TRIES: usize = 5;

impl Set {
    /// Applies the set. Each wave is announced by one checkpoint that lists its calls.
    ///
    /// **Errors**: the objects of the wave that were refused; later waves are not begun, and the text says what was
    /// applied and what was not. **Cancel**: no further object is begun, those under way are seen to their end.
    /// **Repeat**: safe; an object that is as wanted stays as it is.
    pub(crate) async fn apply(
        &mut self,
        session: &mut Session,
        state: &Value,
        undo: Option<&Value>,
        log: &dyn UnitLog,
    ) -> Result<Vec<Applied>, StepError> {
        let definitions = Definitions::of(self.items.iter().map(|item| &item.object));
        for wave in Wave::ALL {
            let fits = |at: &usize| self.items.get(*at).is_some_and(|item| item.object.wave() == wave);
            let which: Vec<usize> = (0..self.items.len()).filter(fits).collect();
            if which.is_empty() {
                continue;
            }
            if let Some((reason, _)) = session.cx.cancel.requested() {
                return Err(cancelled(reason, &self.so_far()));
            }
            self.announce(session, wave, &which, state, undo).await?;
            let outcome = self.wave(session, &which).await;
            let lines: Vec<String> = outcome.applied.iter().map(Applied::line).collect();
            self.done.extend(outcome.applied);
            if !lines.is_empty() {
                session.say(log, Level::Info, &format!("{}:\n{}", wave.name(), lines.join("\n"))).await?;
            }
            if let Some(mut error) = outcome.error {
                error.what = format!("{}\n{}", error.what, self.so_far());
                return Err(session.masked(error));
            }
            if wave == Wave::Foundations {
                self.founded(session, &definitions, log).await?;
            }
        }
        let text =
            format!("{} objects, {} requests to the API server so far", self.len(), session.api.sent());
        session.say(log, Level::Info, &text).await?;
        Ok(self.done.clone())
    }

    async fn announce(
        &self,
        session: &Session,
        wave: Wave,
        which: &[usize],
        state: &Value,
        undo: Option<&Value>,
    ) -> Result<(), StepError> {
        let mut calls = Vec::with_capacity(which.len());
        for item in which.iter().filter_map(|at| self.items.get(*at)) {
            if adopts(item) {
                calls.push(format!("take over {}", item.object.reference()));
            }
            calls.push(format!("apply {}", item.object.reference()));
        }
        let intent = format!("apply {} objects: {}", which.len(), wave.name());
        session.api.announce(intent, calls, state.clone(), undo.cloned()).await
    }

    async fn wave(&self, session: &Session, which: &[usize]) -> WaveOutcome {
        let results: BTreeMap<usize, Result<Applied, StepError>> =
            futures::stream::iter(which.iter().copied())
                .map(|at| async move {
                    let result = match self.items.get(at) {
                        Some(item) => one(session, item, self).await,
                        None => Err(bad_spec("KUBE-010", "an object is gone")),
                    };
                    (at, result)
                })
                .buffer_unordered(session.settings.apply_concurrency.max(1))
                .collect()
                .await;
        let (mut applied, mut errors) = (Vec::new(), Vec::new());
        for result in results.into_values() {
            match result {
                Ok(one) => applied.push(one),
                Err(error) => errors.push(error),
            }
        }
        let stopped = errors.iter().position(|error| matches!(error.class, Class::Cancelled { .. }));
        let error = match stopped {
            Some(at) => Some(errors.swap_remove(at)),
            None if errors.is_empty() => None,
            None => Some(gathered("apply", self.items.len(), errors)),
        };
        WaveOutcome { applied, error }
    }

    /// What is in the cluster when the apply ends early.
    fn so_far(&self) -> String {
        let done = &self.done;
        let left: Vec<String> = self
            .items
            .iter()
            .map(|item| item.object.reference())
            .filter(|reference| !done.iter().any(|applied| applied.reference == *reference))
            .map(|reference| reference.to_string())
            .collect();
        let mut shown = left.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
        if left.len() > 20 {
            shown.push_str(&format!(" and {} more", left.len() - 20));
        }
        format!("{} of {} objects were applied; not applied: {shown}", done.len(), self.items.len())
    }

    /// After namespaces and definitions: definitions are served, and what waited for them is tried.
    async fn founded(
        &mut self,
        session: &mut Session,
        definitions: &Definitions,
        log: &dyn UnitLog,
    ) -> Result<(), StepError> {
        if !definitions.is_empty() {
            session.discovery = served(session, definitions).await?;
            session.say(log, Level::Info, "the definitions are established and served").await?;
        }
        let deferred: Vec<usize> = (0..self.items.len())
            .filter(|at| self.items.get(*at).is_some_and(|item| item.verdict == Verdict::Deferred))
            .collect();
        if deferred.is_empty() {
            return Ok(());
        }
        // Nothing of the set exists yet besides its foundations, so nothing else is waiting to exist.
        try_all(session, self, &deferred, &Definitions::default()).await
    }
}

impl Applied {
    fn line(&self) -> String {
        let verb = match self.outcome {
            Outcome::Created => "created",
            Outcome::Changed => "changed",
            Outcome::Unchanged => "unchanged",
        };
        format!("{verb} {}", self.reference)
    }
}

struct WaveOutcome {
    applied: Vec<Applied>,
    error: Option<StepError>,
}

/// Whether fields may have to be taken over first. Without a dry run that shows only when the object is looked at.
fn adopts(item: &Prepared) -> bool {
    matches!(item.verdict, Verdict::Accepted { adopt: true, .. } | Verdict::Unasked)
}

async fn one(session: &Session, item: &Prepared, set: &Set) -> Result<Applied, StepError> {
    if let Some((reason, _)) = session.cx.cancel.requested() {
        return Err(cancelled(reason, "the objects under way were seen to their end"));
    }
    let object = &item.object;
    let reference = object.reference();
    let path = session.path(object)?;
    if adopts(item) {
        take_over(session, item, &path).await?;
    }
    let ask = Ask::with(
        Method::PATCH,
        format!("{path}?{}", query(set.options, false, false)),
        APPLY,
        item.body.clone(),
    );
    let answer = match session.api.mutate(&format!("apply {reference}"), ask.repeatable()).await {
        Ok(answer) => answer,
        Err(fault) => return explain(session, object, fault).await,
    };
    let head: Head = answer.read().map_err(|fault| refused(session, object, fault))?;
    let before = match &item.verdict {
        Verdict::Accepted { version, .. } => version.as_deref(),
        _ => None,
    };
    let outcome = if answer.status == 201 {
        Outcome::Created
    } else if before == Some(head.metadata.resource_version.as_str()) {
        Outcome::Unchanged
    } else {
        Outcome::Changed
    };
    Ok(Applied { reference, uid: head.metadata.uid, outcome })
}

/// Moves the fields of a client-side apply into our own set.
async fn take_over(session: &Session, item: &Prepared, path: &str) -> Result<(), StepError> {
    let object = &item.object;
    let call = format!("take over {}", object.reference());
    for _ in 0..TAKEOVER_TRIES {
        let live: Option<Value> = session.api.find(path).await.map_err(|f| refused(session, object, f))?;
        let Some(patch) = live.as_ref().and_then(owners::takeover) else { return Ok(()) };
        let body = Bytes::from(serde_json::to_vec(&patch).unwrap_or_default());
        let ask = Ask::with(Method::PATCH, path, JSON_PATCH, body).repeatable();
        match session.api.mutate(&call, ask).await {
            Ok(_) => return Ok(()),
            // The object was changed in between: the test of the patch fails as invalid, or it is a conflict.
            Err(fault) if matches!(fault.code(), Some(409 | 422)) => {
                session.api.announce(call.clone(), vec![call.clone()], json!({"v": 1}), None).await?;
            }
            Err(fault) => return Err(refused(session, object, fault)),
        }
    }
    let text = format!("{}: it changes too often to take over its client-side fields", object.reference());
    Err(StepError::new(Class::RemoteFailed { code: 409 }, "KUBE-027", text)
        .hint("stop whatever else writes this object, and run the step again"))
}

/// Waits until every definition of the set is served, and returns what is served then.
async fn served(session: &Session, definitions: &Definitions) -> Result<Discovery, StepError> {
    let deadline = session.cx.clock.mono() + session.settings.definition_timeout.min(session.cx.time_left());
    let mut pause = Duration::from_millis(20);
    loop {
        let found = Discovery::load(&session.api)
            .await
            .map_err(|f| f.step("ask what is served", &session.api.target))?;
        let missing = definitions.missing(&found);
        if missing.is_empty() {
            return Ok(found);
        }
        if let Some(problem) = definitions.rejected(session).await {
            return Err(problem);
        }
        if session.cx.clock.mono() >= deadline {
            let text = format!(
                "these definitions are not served after {} s: {}",
                session.settings.definition_timeout.as_secs(),
                missing.join(", ")
            );
            return Err(StepError::new(Class::Timeout, "KUBE-033", text)
                .target(session.api.target.clone())
                .hint("look at the conditions of the definition: `kubectl describe crd NAME`"));
        }
        tokio::select! {
            biased;
            (reason, _) = session.cx.cancel.wait() => {
                return Err(cancelled(reason, "namespaces and definitions were applied, nothing else"));
            }
            () = session.cx.clock.sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
