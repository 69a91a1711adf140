//! A connected account with its cluster, for the length of one step.

use crate::EcsExecutor;
use crate::config::Settings;
use crate::error::{bad_spec, cancelled, log_closed, not_recorded};
use crate::memory::{self, Memory};
use crate::native::Looks;
use crate::steady::Pollers;
use aws::{Fault, Operation, Repeat, Service};
use executor_api::{CancelStage, Level, StepContext, StepError, TransportProbe, UnitLog};
use proto::task::EcsSpec;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Most services that one DescribeServices takes.
pub(crate) const SERVICES: usize = 10;

/// An operation of ECS.
pub(crate) const fn ecs(name: &'static str) -> Operation {
    Operation { service: Service::Ecs, name }
}

/// An operation of Elastic Load Balancing v2.
pub(crate) const fn elb(name: &'static str) -> Operation {
    Operation { service: Service::LoadBalancing, name }
}

/// An operation of Application Auto Scaling.
pub(crate) const fn autoscaling(name: &'static str) -> Operation {
    Operation { service: Service::AutoScaling, name }
}

/// What every step has: the account, the cluster, whom to tell.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) aws: aws::Session,
    pub(crate) cx: StepContext,
    pub(crate) settings: Settings,
    /// As AWS calls it in ARNs.
    pub(crate) cluster: String,
    pub(crate) cluster_arn: String,
    /// How many tasks ran in it when the step began.
    pub(crate) tasks: usize,
    probe: Arc<dyn TransportProbe>,
    /// Kind of the step; what it may ask for is known (`rights`).
    pub(crate) kind: &'static str,
    told: Arc<Mutex<Vec<String>>>,
    /// Who looks at services, for all steps together.
    pub(crate) pollers: Pollers,
    /// Who looks at service deployments, for all steps together.
    pub(crate) looks: Looks,
}

impl Session {
    /// Connects and looks whether the cluster takes work.
    ///
    /// **Errors**: those of the account (`AWS-…`); `ECS-005`: there is no such cluster; `ECS-006`: it is not active.
    /// **Cancel**: safe. **Repeat**: safe.
    pub(crate) async fn open(
        executor: &EcsExecutor,
        spec: &EcsSpec,
        cx: &StepContext,
        log: &dyn UnitLog,
    ) -> Result<Session, StepError> {
        // A step that has begun is opened all the same: what an earlier life of the agent suspended is to be resumed. No
        // call of it but those that leave things in order is sent any more.
        let begun = !cx.checkpoints.history().is_empty();
        if let Some((reason, _)) =
            cx.cancel.requested().filter(|(_, stage)| !begun || *stage == CancelStage::Kill)
        {
            return Err(cancelled(reason, "this attempt changed nothing"));
        }
        Session::connect(executor, spec, cx, log).await
    }

    /// The same for a step that was asked to end and still has to put in order what an earlier life of the agent left.
    pub(crate) async fn open_to_finish(
        executor: &EcsExecutor,
        spec: &EcsSpec,
        cx: &StepContext,
        log: &dyn UnitLog,
    ) -> Result<Session, StepError> {
        Ok(Session::connect(executor, spec, cx, log).await?.finishing())
    }

    async fn connect(
        executor: &EcsExecutor,
        spec: &EcsSpec,
        cx: &StepContext,
        log: &dyn UnitLog,
    ) -> Result<Session, StepError> {
        let aws = executor.aws.session(&spec.account, cx).await?;
        // What it has to tell later stands in front of the next line of a unit (`cover`).
        executor.accounts.lock().unwrap_or_else(PoisonError::into_inner).push(aws.clone());
        for note in aws.notes() {
            log.line(Level::Info, &note).await.map_err(log_closed)?;
        }
        let session = Session {
            aws,
            cx: cx.clone(),
            settings: executor.settings.clone(),
            cluster: spec.cluster.clone(),
            cluster_arn: String::new(),
            tasks: 0,
            probe: executor.probe.clone(),
            kind: spec.action.kind(),
            told: executor.told.clone(),
            pollers: executor.pollers.clone(),
            looks: executor.looks.clone(),
        };
        // The one question that is asked also when the step was asked to end.
        let mut asking = if cx.cancel.requested().is_some() { session.finishing() } else { session.clone() };
        asking.find_cluster(&spec.cluster).await?;
        asking.aws = session.aws;
        Ok(asking)
    }

    async fn find_cluster(&mut self, named: &str) -> Result<(), StepError> {
        let answer = self.read(ecs("DescribeClusters"), json!({"clusters": [named]})).await;
        let answer = match answer {
            Err(fault) if fault.is("ClusterNotFoundException") => json!({}),
            other => other.map_err(|fault| self.fault(fault, "look at the cluster"))?,
        };
        let text = |name: &str| answer.pointer(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let status = text("/clusters/0/status");
        if status.is_empty() {
            let what = format!("cluster `{named}` does not exist in {}", self.target());
            return Err(bad_spec("ECS-005", what)
                .target(self.target().to_owned())
                .hint("correct `cluster` or `region` of the infrastructure; `aws ecs list-clusters` names what there is"));
        }
        if status != "ACTIVE" {
            let what = format!("cluster `{named}` is {status}; expected ACTIVE");
            return Err(bad_spec("ECS-006", what)
                .target(self.target().to_owned())
                .hint("create the cluster again, or deploy to another one"));
        }
        self.cluster = text("/clusters/0/clusterName");
        self.cluster_arn = text("/clusters/0/clusterArn");
        let tasks = answer.pointer("/clusters/0/runningTasksCount").and_then(Value::as_u64);
        self.tasks = tasks.and_then(|tasks| usize::try_from(tasks).ok()).unwrap_or(usize::MAX);
        Ok(())
    }

    /// What errors say they happened to.
    pub(crate) fn target(&self) -> &str {
        self.aws.target()
    }

    /// Asks; changes nothing. Tried again as long as that may help.
    ///
    /// What is awaited here and in the other calls lies on the heap: steps await many of them, and each would be a part
    /// of the step's own future, which then would not fit on a worker's stack.
    pub(crate) async fn read(&self, operation: Operation, input: Value) -> Result<Value, Fault> {
        self.entitled(operation);
        Box::pin(self.aws.read(operation, input)).await
    }

    /// Every item of a list, page by page.
    pub(crate) async fn pages(
        &self,
        operation: Operation,
        input: Value,
        list: &str,
    ) -> Result<Vec<Value>, Fault> {
        self.entitled(operation);
        Box::pin(self.aws.pages(operation, input, list)).await
    }

    /// Makes an intent durable; the changes that it lists may be sent afterwards.
    ///
    /// **Errors**: `ECS-002`. **Repeat**: appends another one.
    pub(crate) async fn announce<M: Memory>(
        &self,
        intent: impl Into<String>,
        calls: &[&str],
        memory: &M,
    ) -> Result<(), StepError> {
        let calls = calls.iter().map(|&call| call.to_owned()).collect();
        let checkpoint = memory::checkpoint(intent.into(), calls, memory)?;
        self.cx.checkpoints.record(checkpoint).await.map_err(not_recorded)
    }

    /// Sends a change that the last [`Session::announce`] listed as `call`.
    pub(crate) async fn change(
        &self,
        call: &str,
        operation: Operation,
        input: Value,
        repeat: Repeat,
    ) -> Result<Value, Fault> {
        self.entitled(operation);
        Box::pin(self.aws.change(self.probe.as_ref(), call, operation, input, repeat)).await
    }

    /// Every test is also a test of the policies in `deploy/aws`: what they do not grant is not asked for.
    fn entitled(&self, operation: Operation) {
        debug_assert!(
            crate::rights::allows(self.kind, operation),
            "{} calls {}, which `rights` does not list",
            self.kind,
            operation.name
        );
    }

    /// The error of a step that wanted `what` (`update service web`).
    pub(crate) fn fault(&self, fault: Fault, what: &str) -> StepError {
        fault.step(what, &self.aws)
    }

    /// Services by name, in no order; those that ECS does not know are left out, those that were deleted a while ago are
    /// there with status INACTIVE.
    pub(crate) async fn services(&self, names: &[&str]) -> Result<Vec<Value>, Fault> {
        let mut found = Vec::new();
        for names in names.chunks(SERVICES) {
            let input = json!({"cluster": self.cluster, "services": names, "include": ["TAGS"]});
            let mut answer = self.read(ecs("DescribeServices"), input).await?;
            if let Some(Value::Array(services)) = answer.get_mut("services").map(Value::take) {
                found.extend(services);
            }
        }
        Ok(found)
    }

    /// One service; `None` when ECS does not know it.
    pub(crate) async fn service(&self, name: &str) -> Result<Option<Value>, StepError> {
        match self.services(&[name]).await {
            Ok(found) => Ok(found.into_iter().next()),
            Err(fault) => Err(self.fault(fault, &format!("look at service {name}"))),
        }
    }

    /// Writes a line.
    pub(crate) async fn say(&self, log: &dyn UnitLog, level: Level, text: &str) -> Result<(), StepError> {
        log.line(level, text).await.map_err(log_closed)
    }

    /// Something that a person should read beside the log.
    pub(crate) fn tell(&self, notice: String) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    }

    /// Ends the step when somebody asked for that; `state` says in what state things are left.
    pub(crate) fn go_on(&self, state: &str) -> Result<(), StepError> {
        match self.cx.cancel.requested() {
            Some((reason, _)) => Err(cancelled(reason, state)),
            None => Ok(()),
        }
    }

    /// This session for leaving things in order after the step was asked to end: its calls go on for a while.
    pub(crate) fn finishing(&self) -> Session {
        Session { aws: self.aws.for_undo(self.settings.finish), ..self.clone() }
    }

    /// Waits for `span`.
    ///
    /// **Errors**: the step is ended meanwhile; `state` says in what state things are left. **Cancel**: ends at once.
    pub(crate) async fn pause(&self, span: Duration, state: &str) -> Result<(), StepError> {
        tokio::select! {
            biased;
            (reason, _) = self.cx.cancel.wait() => Err(cancelled(reason, state)),
            () = self.cx.clock.sleep(span) => Ok(()),
        }
    }

    /// Text of at most `length` hexadecimal digits that is the same for every attempt and every life of the agent: names
    /// what this node of this execution makes of `what`.
    pub(crate) fn token(&self, what: &str, length: usize) -> String {
        use sha2::{Digest as _, Sha256};
        let execution = &self.cx.task.execution;
        let mut hash = Sha256::new();
        for part in [&execution.execution_id, &execution.node, what] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let mut text = hex::encode(hash.finalize());
        text.truncate(length);
        text
    }
}
