//! `K8sTrafficRouting`: a route, or other weights on the route that an earlier step made.

use super::routes;
use crate::KubeExecutor;
use crate::error::bad_spec;
use crate::session::Session;
use executor_api::Unit;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput};
use proto::task::{KubernetesAction, KubernetesSpec};
use serde_json::Value;

fn config(spec: &KubernetesSpec) -> Result<&Value, StepError> {
    match &spec.action {
        KubernetesAction::K8sTrafficRouting { config } => Ok(config),
        other => Err(bad_spec("KUBE-001", format!("{} routes nothing", other.kind()))),
    }
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let config = config(spec)?;
    let unit = Unit::begin(cx, "Traffic Routing").await?;
    let work = async {
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        session.learn_places(unit.log()).await?;
        let plan = routes::alone(&session, config, unit.log()).await?;
        unit.say(Level::Info, &plan.shown()).await?;
        let made = routes::manifests(&session, &plan)?;
        if !made.is_empty() {
            unit.say(Level::Info, &made).await?;
        }
        routes::try_out(&session, &plan, unit.log()).await?;
        Ok((session, plan))
    };
    let result = work.await;
    let (mut session, plan) = unit.end(result).await?;
    let unit = Unit::begin(cx, "Apply").await?;
    let work = async {
        let percent = routes::capacity(&session, unit.log()).await?;
        routes::apply(&mut session, &plan, percent, unit.log()).await
    };
    let result = work.await;
    unit.end(result).await?;
    Ok(StepOutput::default())
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit("Traffic Routing");
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    session.learn_places(log.as_ref()).await?;
    let plan = routes::alone(&session, config(spec)?, log.as_ref()).await?;
    let percent = routes::capacity(&session, log.as_ref()).await?;
    Ok(routes::difference(&session, &plan, percent).await?.plan())
}
