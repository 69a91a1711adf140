//! EcsRunTask as a one-off task (rule R9, shape 1; facts A11).
//!
//! ```text
//! documents ─► revision, request ─► [checkpoint ─► RunTask]* ─► look, log lines ─► verdict
//!                                        ▲ no room: again later         └─ failed, aborted: StopTask
//! ```
//! Every call of RunTask has a client token of its own, made of execution, node, attempt and number of the call. It stands in
//! the checkpoint before the call, so that a call that is repeated after a crash starts nothing twice.

mod judge;
mod request;
mod stop;
mod watch;

use super::planned::{outputs, planned};
use crate::EcsExecutor;
use crate::changes;
use crate::documents::arn::short;
use crate::documents::{Kind, Reader, place_of};
use crate::error::{bad_spec, cancelled};
use crate::memory::{Memory, Undo, recall};
use crate::preflight;
use crate::service;
use crate::session::Session;
use crate::task_definition::{self, Source, Wanted};
use aws::document::{list, text};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsDocument, EcsSpec, RunTaskShape, TaskDefinition};
use request::{Asked, Parts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Units of the step.
const FETCH: &str = "Fetch Manifests";
const RUN: &str = "Run Task";
/// Most letters of `startedBy`.
const STARTED_BY: usize = 128;

/// What the step asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    task: Option<&'a TaskDefinition>,
    request: &'a EcsDocument,
    until_stopped: bool,
    skip_wait: bool,
    stop_on_abort: bool,
    overrides: Option<&'a Value>,
    network_from_service: Option<&'a str>,
}

impl<'a> Wish<'a> {
    /// What the shape says.
    ///
    /// **Errors**: `ECS-008` for a shape that runs no task.
    pub(crate) fn of(shape: &'a RunTaskShape) -> Result<Wish<'a>, StepError> {
        let RunTaskShape::Run {
            task,
            request,
            wait_until_stopped,
            skip_steady_state_check,
            overrides,
            network_from_service,
            stop_on_abort,
        } = shape
        else {
            return Err(bad_spec("ECS-008", "the step runs no task"));
        };
        let service = network_from_service.as_deref().map(str::trim).filter(|name| !name.is_empty());
        Ok(Wish {
            task: task.as_ref(),
            request,
            until_stopped: *wait_until_stopped,
            skip_wait: *skip_steady_state_check,
            stop_on_abort: *stop_on_abort,
            overrides: overrides.as_ref(),
            network_from_service: service,
        })
    }
}

/// One call of RunTask.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Batch {
    token: String,
    count: u32,
    /// What it started.
    arns: Vec<String>,
    /// The answer was heard.
    answered: bool,
}

/// What the step remembers. Texts hold placeholders of secrets, no clear ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OneOff {
    source: Source,
    request: Value,
    place: String,
    /// Input of RunTask without revision, count and token; null until it is put together.
    input: Value,
    /// The task definition that runs.
    definition: Value,
    /// ARN of the revision, once it is settled.
    revision: String,
    registered: bool,
    count: u32,
    batches: Vec<Batch>,
    /// How far the log of each stream was shown.
    logs: BTreeMap<String, String>,
}

impl Memory for OneOff {
    fn undo(&self) -> Option<Undo> {
        None
    }
}

impl OneOff {
    fn arns(&self) -> impl Iterator<Item = &String> {
        self.batches.iter().flat_map(|batch| &batch.arns)
    }

    /// How many tasks are still to be started.
    fn missing(&self) -> u32 {
        let started = u32::try_from(self.arns().count()).unwrap_or(u32::MAX);
        self.count.saturating_sub(started)
    }

    /// For messages.
    fn name(&self) -> &str {
        short(&self.revision)
    }
}

/// `startedBy` of the tasks of an execution: what `aws ecs list-tasks --started-by` takes.
fn started_by(session: &Session) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/') { c } else { '-' };
    session.cx.task.execution.execution_id.chars().take(STARTED_BY).map(fits).collect()
}

async fn fetch(reader: &Reader<'_>, wish: &Wish<'_>) -> Result<OneOff, StepError> {
    let spec = reader.spec;
    let source = match wish.task {
        Some(own) => Source::load(reader, None, Some(own), None).await?,
        None => {
            let current = spec.current_task_definition.as_deref();
            Source::load(reader, current, spec.definitions.task.as_ref(), None).await?
        }
    };
    let loaded = reader.load(Kind::RunTask, wish.request).await?;
    Ok(OneOff { source, request: loaded.value, place: place_of(wish.request), ..OneOff::default() })
}

/// Decides what is run. Changes nothing.
async fn prepare(
    reader: &Reader<'_>,
    session: &Session,
    wish: &Wish<'_>,
    memory: &OneOff,
) -> Result<(Wanted, Asked), StepError> {
    let artifact = session.cx.task.artifact.as_ref();
    let wanted = task_definition::wanted(session, &memory.source, &[], artifact).await?;
    let fargate = text(&memory.request, &["launchType"]) == Some("FARGATE");
    wanted.fits_fargate(fargate, &memory.source.place)?;
    let overrides = match wish.overrides {
        Some(written) => {
            let long = request::long(written, &wanted.document)?;
            let document =
                EcsDocument::Value { place: "the step".to_owned(), value: json!({"overrides": long}) };
            reader.load(Kind::RunTask, &document).await?.value.get("overrides").cloned()
        }
        None => None,
    };
    let network = match wish.network_from_service {
        Some(service) => Some((service, network_of(session, service).await?)),
        None => None,
    };
    let tags = service::own_tags(session, reader.spec);
    let asked = request::put_together(
        &memory.request,
        &Parts {
            place: &memory.place,
            definition: &wanted.document,
            overrides: overrides.as_ref(),
            network: network.as_ref().map(|(service, network)| (*service, network)),
            tags: &tags,
        },
    )?;
    Ok((wanted, asked))
}

/// The network configuration of a service.
async fn network_of(session: &Session, name: &str) -> Result<Value, StepError> {
    let problem = |problem: &str| {
        bad_spec("ECS-073", format!("networkFromService: service {name} {problem}"))
            .target(session.target().to_owned())
            .hint("name an active service of the cluster whose tasks have network mode awsvpc, or write networkConfiguration")
    };
    let live = session.service(name).await?.filter(service::is_active);
    let Some(live) = live else { return Err(problem("is not active in the cluster")) };
    let primary = list(&live, &["deployments"]).iter().find(|d| text(d, &["status"]) == Some("PRIMARY"));
    let of = |value: &Value| value.get("networkConfiguration").filter(|network| !network.is_null()).cloned();
    of(&live).or_else(|| primary.and_then(of)).ok_or_else(|| problem("has no networkConfiguration"))
}

/// Runs the step. Outputs: `taskArns`, `exitCodes`, `stoppedReason`, `tasks`, `taskDefinitionArn`.
pub(super) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    wish: Result<Wish<'_>, StepError>,
) -> Result<StepOutput, StepError> {
    let wish = wish?;
    let remembered: Option<OneOff> = recall(cx)?;
    let unit = Unit::begin(cx, FETCH).await?;
    let fetched = match remembered {
        Some(memory) => Ok(memory),
        None => Box::pin(fetch(&Reader { executor, spec, cx, log: unit.log() }, &wish)).await,
    };
    let mut memory = unit.end(fetched).await?;
    let unit = Unit::begin(cx, RUN).await?;
    let result = Box::pin(work(executor, spec, cx, &wish, &mut memory, unit.log())).await;
    unit.end(result).await
}

async fn work(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    wish: &Wish<'_>,
    memory: &mut OneOff,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    if let Some((reason, _)) = cx.cancel.requested()
        && !memory.batches.is_empty()
        && reason.ends_the_target()
    {
        // An earlier life of the agent started tasks, and nobody wants them any more.
        let session = Session::open_to_finish(executor, spec, cx, log).await?;
        let error = cancelled(reason, &format!("tasks of {} were started before", memory.name()));
        return Err(watch::Watch::new(&session, wish, memory, log).stop(error).await);
    }
    let session = Session::open(executor, spec, cx, log).await?;
    let mut notices = Vec::new();
    if memory.revision.is_empty() {
        let reader = Reader { executor, spec, cx, log };
        let (wanted, asked) = Box::pin(prepare(&reader, &session, wish, memory)).await?;
        for line in wanted.lines() {
            session.say(log, Level::Info, &line).await?;
        }
        for warning in wanted.warnings.iter().chain(&asked.warnings) {
            session.say(log, Level::Warn, warning).await?;
        }
        preflight::rights(&session, log).await?;
        session.go_on("nothing was started")?;
        memory.input = asked.input;
        memory.count = asked.count;
        memory.definition = wanted.document.clone();
        let settled = task_definition::settle(&session, &wanted, memory, log).await?;
        memory.revision = settled.arn;
        memory.registered = settled.registered;
        notices = wanted.warnings;
        notices.extend(asked.warnings);
    }
    let tasks = watch::Watch::new(&session, wish, memory, log).run().await?;
    let reason = tasks.iter().map(|task| task.stopped_reason.as_str()).find(|reason| !reason.is_empty());
    let outputs = outputs([
        ("taskArns", tasks.iter().map(|task| task.arn.clone()).collect()),
        ("exitCodes", json!(judge::exit_codes(&tasks))),
        ("stoppedReason", reason.unwrap_or_default().into()),
        ("tasks", judge::shown(&tasks)),
        ("taskDefinitionArn", memory.revision.clone().into()),
        ("registered", memory.registered.into()),
    ]);
    Ok(StepOutput { outputs, notices, ..StepOutput::default() })
}

/// What the step would start.
pub(super) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    wish: Result<Wish<'_>, StepError>,
) -> Result<Plan, StepError> {
    let wish = wish?;
    let log = cx.logs.unit(FETCH);
    let reader = Reader { executor, spec, cx, log: log.as_ref() };
    let memory = Box::pin(fetch(&reader, &wish)).await?;
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let (wanted, asked) = Box::pin(prepare(&reader, &session, &wish, &memory)).await?;
    let mut lines = if wanted.existing.is_some() { Vec::new() } else { wanted.lines() };
    let revision = match &wanted.existing {
        Some(arn) => short(arn).to_owned(),
        None => format!("{} (the new revision)", wanted.family()),
    };
    let tasks = if asked.count == 1 { "1 task".to_owned() } else { format!("{} tasks", asked.count) };
    lines.push(format!("run {tasks} of {revision} in cluster {}", session.cluster));
    // The tags are of this execution: the plan would not be the same twice.
    let mut input = asked.input;
    if let Value::Object(members) = &mut input {
        members.shift_remove("tags");
    }
    let all = changes::between(&json!({}), &input, &|_| None);
    lines.extend(all.iter().map(|change| format!("  {change}")));
    Ok(planned(&lines))
}
