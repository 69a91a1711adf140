//! EcsRunTask in the shapes that run no task: looking at a task definition, and registering one (rule R9, shapes 2 and 4).

use super::planned::{outputs, planned};
use crate::EcsExecutor;
use crate::documents::Reader;
use crate::documents::arn::short;
use crate::memory::{Memory, Undo, recall};
use crate::session::Session;
use crate::task_definition::{self, Settled, Source, Wanted, images};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsDocument, EcsSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Units of the step.
const FETCH: &str = "Fetch Manifests";
const RUN: &str = "Run Task";

/// What registering remembers: what it began with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Registering {
    source: Option<Source>,
}

impl Memory for Registering {
    fn undo(&self) -> Option<Undo> {
        None
    }
}

/// Number of a revision, from its ARN.
fn revision(arn: &str) -> Value {
    arn.rsplit(':').next().and_then(|number| number.parse::<u64>().ok()).into()
}

/// The image of the only container, else of each by name.
fn image(found: &[(String, String)]) -> Value {
    match found {
        [(_, only)] => only.clone().into(),
        several => several.iter().map(|(name, image)| (name.clone(), Value::from(image.clone()))).collect(),
    }
}

/// Looks at a task definition. Outputs: `taskDefinition`, `taskDefinitionArn`, `revision`, `image`.
pub(super) async fn describe(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    name: &str,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, RUN).await?;
    let work = async {
        let session = Session::open(executor, spec, cx, unit.log()).await?;
        let found = task_definition::described(&session, name).await?;
        let status = if found.active { "ACTIVE" } else { "INACTIVE" };
        let text = format!("task definition {} is {status}; no task is run", short(&found.arn));
        session.say(unit.log(), Level::Info, &text).await?;
        let images = images::of(&found.document);
        for (container, image) in &images {
            session.say(unit.log(), Level::Info, &format!("container {container}: {image}")).await?;
        }
        let outputs = outputs([
            ("taskDefinition", found.document),
            ("revision", revision(&found.arn)),
            ("image", image(&images)),
            ("taskDefinitionArn", found.arn.into()),
        ]);
        Ok(StepOutput { outputs, ..StepOutput::default() })
    };
    let result = work.await;
    unit.end(result).await
}

async fn load(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    document: &EcsDocument,
    log: &dyn UnitLog,
) -> Result<Source, StepError> {
    let reader = Reader { executor, spec, cx, log };
    let current = spec.current_task_definition.as_deref();
    Source::load(&reader, current, spec.definitions.task.as_ref(), Some(document)).await
}

async fn compared(session: &Session, source: &Source, cx: &StepContext) -> Result<Wanted, StepError> {
    let wanted = task_definition::wanted(session, source, &[], cx.task.artifact.as_ref()).await?;
    wanted.fits_fargate(false, &source.place)?;
    Ok(wanted)
}

/// Registers a revision, unless the newest one is alike. Outputs: `taskDefinitionArn`, `revision`, `image`, `registered`.
pub(super) async fn register(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    document: &EcsDocument,
) -> Result<StepOutput, StepError> {
    let mut memory: Registering = recall(cx)?.unwrap_or_default();
    let unit = Unit::begin(cx, FETCH).await?;
    let source = match memory.source.take() {
        Some(source) => Ok(source),
        None => load(executor, spec, cx, document, unit.log()).await,
    };
    let source = unit.end(source).await?;
    memory.source = Some(source.clone());
    let unit = Unit::begin(cx, RUN).await?;
    let work = async {
        let session = Session::open(executor, spec, cx, unit.log()).await?;
        let text =
            "the step names no run-task request: the task definition is registered, and no task is run";
        session.say(unit.log(), Level::Info, text).await?;
        let wanted = compared(&session, &source, cx).await?;
        for line in wanted.lines() {
            session.say(unit.log(), Level::Info, &line).await?;
        }
        for warning in &wanted.warnings {
            session.say(unit.log(), Level::Warn, warning).await?;
        }
        session.go_on("nothing was registered")?;
        let settled = task_definition::settle(&session, &wanted, &memory, unit.log()).await?;
        let Settled { arn, registered, images, .. } = settled;
        let undo = registered.then(|| Undo::Registered { arn: arn.clone() }.to_value());
        let outputs = outputs([
            ("revision", revision(&arn)),
            ("image", image(&images)),
            ("registered", registered.into()),
            ("taskDefinitionArn", arn.into()),
        ]);
        Ok(StepOutput { outputs, undo, notices: wanted.warnings, ..StepOutput::default() })
    };
    let result = work.await;
    unit.end(result).await
}

/// What registering would change.
pub(super) async fn plan_register(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    document: &EcsDocument,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(FETCH);
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let source = load(executor, spec, cx, document, log.as_ref()).await?;
    let wanted = compared(&session, &source, cx).await?;
    Ok(planned(&if wanted.existing.is_some() { Vec::new() } else { wanted.lines() }))
}
