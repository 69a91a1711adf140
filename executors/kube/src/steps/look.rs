//! `K8sDryRun` and `K8sDiff`: what would be applied, and what that would change. Neither changes anything.

use super::changes;
use super::flags;
use super::render;
use super::rolling;
use crate::KubeExecutor;
use crate::apply::{Definitions, validate};
use crate::objects::to_yaml;
use crate::release::History;
use crate::session::Session;
use executor_api::Unit;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput};
use proto::result::Output;
use proto::task::KubernetesSpec;
use std::collections::BTreeMap;

/// Longer texts are not kept as an output.
const MAX_OUTPUT: usize = 5 * 1024 * 1024;

fn output(key: &str, text: String, notices: &mut Vec<String>) -> BTreeMap<String, Output> {
    let mut outputs = BTreeMap::new();
    if text.len() > MAX_OUTPUT {
        notices.push(format!("{key} has {} bytes and is left out; it stands in the log", text.len()));
    } else {
        outputs.insert(key.to_owned(), serde_json::Value::from(text).into());
    }
    outputs
}

/// Runs K8sDryRun.
pub(crate) async fn dry_run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let mut fetched = render::in_unit(executor, spec, &[], cx).await?;
    let unit = Unit::begin(cx, "K8s Dry Run").await?;
    let work = async {
        let flags = flags::read(&spec.command_flags, "Apply", false)?;
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        let history = History::load(&session).await?;
        let (mut objects, mask) = fetched.objects(history.next(), None, true)?;
        session.mask = mask;
        let definitions = Definitions::of(&objects);
        session.place(&mut objects, &|object| definitions.namespaced(object));
        let set = validate(&session, objects, flags.options, unit.log()).await?;
        let mut text = String::new();
        for object in set.objects() {
            text.push_str("---\n");
            text.push_str(&to_yaml(&session.mask.shown(&object.value)));
        }
        session.say(unit.log(), Level::Info, &text).await?;
        Ok(text)
    };
    let result = work.await;
    let text = unit.end(result).await?;
    let mut notices = Vec::new();
    let outputs = output("manifestDryRun", text, &mut notices);
    Ok(StepOutput { outputs, notices, ..StepOutput::default() })
}

async fn differences(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
    fetched: &mut render::Fetched,
    log: &dyn executor_api::UnitLog,
) -> Result<changes::Changes, StepError> {
    let flags = flags::read(&spec.command_flags, "Apply", false)?;
    let mut session = Session::open(executor, spec, cx, log).await?;
    let objects = rolling::objects(&mut session, spec, fetched, log).await?;
    changes::of(&session, objects, flags.options).await
}

/// Runs K8sDiff.
pub(crate) async fn diff(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let mut fetched = render::in_unit(executor, spec, &[], cx).await?;
    let unit = Unit::begin(cx, "K8s Diff").await?;
    let work = async {
        let changes = differences(executor, spec, cx, &mut fetched, unit.log()).await?;
        // Already without secrets.
        unit.say(Level::Info, &format!("{}{}", changes.text, changes.summary())).await?;
        Ok(changes)
    };
    let result = work.await;
    let changes = unit.end(result).await?;
    let mut notices = Vec::new();
    let summary = changes.summary();
    let mut outputs = output("manifestDiff", changes.text, &mut notices);
    outputs.insert("summary".to_owned(), serde_json::Value::from(summary).into());
    Ok(StepOutput { outputs, notices, ..StepOutput::default() })
}

/// Neither changes anything.
pub(crate) fn plan() -> Plan {
    changes::Changes::default().plan()
}
