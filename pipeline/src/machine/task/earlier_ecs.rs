//! What ECS steps of the same stage did before: their outcomes and undo data, and when a later step has nothing to do.

use super::super::state::{Run, Status};
use super::build::Builder;
use super::earlier::{began, in_rollback, output};
use crate::model::ecs::{EcsAction, EcsStep, OwnPlace, RunTaskShape, Shift};
use crate::model::step::Spec;
use crate::plan::NodeKind;
use crate::scope::NodeScope;
use proto::failure::{Failure, FailureKind};
use proto::task::{CloudWatchScope, EcsEarlier, EcsUndo};
use serde_json::Value as Json;

/// A forward run of an ECS step.
#[derive(Clone, Copy)]
struct Done<'a> {
    id: &'a str,
    run: &'a Run,
    step: &'a EcsStep,
    kind: &'a str,
}

impl Done<'_> {
    /// Identifier of the step, with the postfix of its iteration.
    fn identifier(&self, builder: &Builder<'_>) -> String {
        let identifier = builder.plan.node(self.run.node).map(|node| node.identifier.as_str());
        let ending = self.run.iteration.as_ref().map(|iteration| iteration.ending()).unwrap_or_default();
        format!("{}{ending}", identifier.unwrap_or_default())
    }

    fn succeeded(&self) -> bool {
        self.run.status == Status::Success
    }
}

/// The run of the stage that a run belongs to: a stage that loops has several.
fn stage_run<'a>(builder: &Builder<'a>, id: &'a str) -> Option<&'a str> {
    let mut at = Some(id);
    while let Some((id, run)) = at.and_then(|id| builder.state.runs.get_key_value(id)) {
        let node = builder.plan.node(run.node)?;
        if matches!(node.kind, NodeKind::Stage(_)) && !builder.state.is_loop(id) {
            return Some(id);
        }
        at = run.parent.as_deref();
    }
    None
}

/// Forward runs of ECS steps in this stage, in the order in which they began.
fn forward<'a>(builder: &Builder<'a>) -> Vec<Done<'a>> {
    let (plan, state) = (builder.plan, builder.state);
    let Some(stage) = stage_run(builder, builder.id) else { return Vec::new() };
    let mut all = Vec::new();
    for (id, run) in state.runs.iter() {
        let Some(node) = plan.node(run.node).filter(|node| !node.in_rollback) else { continue };
        let NodeKind::Step { kind, spec, .. } = &node.kind else { continue };
        let Spec::Ecs(step) = &**spec else { continue };
        if !state.is_loop(id) && stage_run(builder, id) == Some(stage) {
            all.push(Done { id, run, step, kind });
        }
    }
    all.sort_by_key(|done| {
        (done.run.started_at, done.run.node, done.run.iteration.as_ref().map(|iteration| iteration.index))
    });
    all
}

/// Undo data of every step of this stage; what the step itself recorded in an earlier attempt stands last.
pub(super) fn earlier(builder: &Builder<'_>) -> EcsEarlier {
    let undo = |done: &Done<'_>| {
        Some(EcsUndo {
            step: done.identifier(builder),
            kind: done.kind.to_owned(),
            succeeded: done.succeeded(),
            data: done.run.undo.clone()?,
        })
    };
    let (own, others): (Vec<_>, Vec<_>) =
        forward(builder).into_iter().partition(|done| done.id == builder.id);
    EcsEarlier { undo: others.iter().chain(&own).filter_map(undo).collect() }
}

/// ARN of the task definition that an earlier step of this stage registered.
pub(super) fn current_task_definition(builder: &Builder<'_>) -> Option<String> {
    if in_rollback(builder) {
        return None;
    }
    let registers = |step: &EcsStep| {
        matches!(
            step.action,
            EcsAction::EcsRunTask { shape: RunTaskShape::Register { .. } | RunTaskShape::Green { .. } }
        )
    };
    let done = forward(builder).into_iter().rev().filter(|done| done.succeeded() && registers(done.step));
    done.filter_map(|done| output(done.run, "taskDefinitionArn")).next()
}

/// Names of services that green steps of this stage made.
pub(super) fn service_names(builder: &Builder<'_>) -> Vec<String> {
    forward(builder).into_iter().filter_map(|done| output(done.run, "serviceName")).collect()
}

/// What a metric of this stage is of: what the steps before it said, else what the service says.
pub(super) fn cloud_watch_scope(builder: &Builder<'_>, scope: &mut CloudWatchScope) {
    for done in forward(builder) {
        // Whatever is deployed last is what is verified; what was deleted is no longer.
        let service = match &done.step.action {
            EcsAction::EcsCanaryDeploy { .. } => output(done.run, "canaryServiceName"),
            EcsAction::EcsCanaryDelete {} if done.succeeded() => {
                let name =
                    builder.target().and_then(|t| t.service.definition.ecs.as_ref()?.written("serviceName"));
                name.and_then(Json::as_str).filter(|name| !name.contains("<+")).map(str::to_owned)
            }
            EcsAction::EcsRollingDeploy { .. }
            | EcsAction::EcsContinueDeployment { .. }
            | EcsAction::EcsBlueGreenCreateService { .. }
            | EcsAction::EcsRunTask { shape: RunTaskShape::Green { .. } } => output(done.run, "serviceName"),
            _ => None,
        };
        scope.service = service.or(scope.service.take());
        let routes = matches!(
            done.step.action,
            EcsAction::EcsBlueGreenCreateService { .. }
                | EcsAction::EcsBlueGreenTrafficShift { .. }
                | EcsAction::EcsRunTask { shape: RunTaskShape::Green { .. } | RunTaskShape::Shift { .. } }
        );
        if !routes {
            continue;
        }
        let take = |slot: &mut Option<String>, name: &str| {
            *slot = output(done.run, name).or(slot.take());
        };
        // What the service definition names is blue's, once somebody says which group is green's.
        take(&mut scope.target_group_arn, "targetGroupArn");
        take(&mut scope.baseline_target_group_arn, "baselineTargetGroupArn");
        take(&mut scope.load_balancer_arn, "loadBalancerArn");
    }
}

/// Why a step has nothing to do, if so: rollback steps of what never began, a deletion of what was not deployed.
pub(super) fn nothing_to_do(builder: &Builder<'_>, step: &EcsStep) -> Option<String> {
    let done = forward(builder);
    let ran = |fits: &dyn Fn(&EcsAction) -> bool| {
        done.iter().any(|done| fits(&done.step.action) && began(done.run))
    };
    let back = in_rollback(builder);
    let (any, what) = match &step.action {
        EcsAction::EcsRollingRollback { .. } => (
            ran(&|action| matches!(action, EcsAction::EcsRollingDeploy { .. })),
            "no rolling deployment of this stage began: there is nothing to roll back",
        ),
        EcsAction::EcsBlueGreenRollback {} => (
            ran(&|action| match action {
                EcsAction::EcsBlueGreenCreateService { .. }
                | EcsAction::EcsBlueGreenSwapTargetGroups { .. }
                | EcsAction::EcsBlueGreenTrafficShift { shift: Shift::Inherit { .. } } => true,
                EcsAction::EcsRunTask { shape } => matches!(
                    shape,
                    RunTaskShape::Green { .. } | RunTaskShape::Shift { .. } | RunTaskShape::Terminate { .. }
                ),
                _ => false,
            }),
            "no blue-green step of this stage began: there is nothing to roll back",
        ),
        EcsAction::StandAloneTrafficShiftRollback {} => (
            ran(
                &|action| matches!(action, EcsAction::EcsBlueGreenTrafficShift { shift } if shift.is_standalone()),
            ),
            "no standalone traffic shift of this stage began: there is nothing to roll back",
        ),
        EcsAction::EcsBasicRollback {} => (
            ran(&|action| {
                matches!(action, EcsAction::EcsServiceSetup { .. } | EcsAction::EcsUpgradeContainer { .. })
            }),
            "no service of this stage was set up: there is nothing to roll back",
        ),
        EcsAction::EcsCanaryDelete {} => {
            let deleted = done
                .iter()
                .any(|done| matches!(done.step.action, EcsAction::EcsCanaryDelete {}) && done.succeeded());
            if back && deleted {
                return Some("the canary of this stage was deleted already".to_owned());
            }
            let canary = ran(&|action| matches!(action, EcsAction::EcsCanaryDeploy { .. }));
            (canary, "no canary of this stage was deployed")
        }
        EcsAction::EcsUndo { of, .. } => return nothing_to_undo(builder, of),
        _ => return None,
    };
    (!any).then(|| what.to_owned())
}

// --- rule R25 ---

/// A step that is undone by a step that the planner made.
pub(super) struct Undone<'a> {
    /// Its node.
    node: usize,
    /// Its run, once there is one.
    run: Option<&'a str>,
    /// Its identifier, with the postfix of its iteration.
    pub(super) identifier: String,
}

impl<'a> Undone<'a> {
    /// The step whose name stands at the path `of`, in this stage; in a loop that of the iteration at hand.
    pub(super) fn find(builder: &Builder<'a>, of: &str) -> Option<Undone<'a>> {
        if let Some(done) = undone_runs(builder, of).into_iter().next() {
            let identifier = done.identifier(builder);
            return Some(Undone { node: done.run.node, run: Some(done.id), identifier });
        }
        let plan = builder.plan;
        let (stage, _) = plan.stage_of(builder.scope.node)?;
        let fits = |(index, node): &(usize, &crate::plan::PlanNode)| {
            let inside = plan.stage_of(*index).is_some_and(|(own, _)| own == stage);
            inside && !node.in_rollback && node.name.path == of && matches!(node.kind, NodeKind::Step { .. })
        };
        let (index, node) = plan.nodes.iter().enumerate().find(fits)?;
        Some(Undone { node: index, run: None, identifier: node.identifier.clone() })
    }

    /// Where the step says that it works.
    pub(super) fn own_place(&self, builder: &Builder<'a>) -> Result<OwnPlace, Box<Failure>> {
        if let Some(run) = self.run {
            return Ok(super::ecs::step_of(builder, run)?.map(|step| step.place).unwrap_or_default());
        }
        Ok(match builder.plan.node(self.node).map(|node| &node.kind) {
            Some(NodeKind::Step { spec, .. }) => match &**spec {
                Spec::Ecs(step) => step.place.clone(),
                _ => OwnPlace::default(),
            },
            _ => OwnPlace::default(),
        })
    }
}

impl<'a> Builder<'a> {
    /// Resolves something as the step that is undone would; the selectors of the task are that step's too.
    pub(super) fn in_place_of<T>(&mut self, undone: &Undone<'a>, make: impl FnOnce(&mut Self) -> T) -> T {
        self.acts_for = Some((undone.node, undone.run));
        let other = NodeScope { node: undone.node, run: undone.run, record: None, ..self.scope };
        let own = std::mem::replace(&mut self.scope, other);
        let made = make(self);
        self.scope = own;
        made
    }
}

/// Runs of the step whose name stands at the path `of` that began, the last one first; in an iteration of the undo
/// exactly the one that it stands for.
fn undone_runs<'a>(builder: &Builder<'a>, of: &str) -> Vec<Done<'a>> {
    let item = builder.state.runs.get(builder.id).and_then(|run| run.iteration.as_ref());
    let item = item.and_then(|iteration| iteration.item.as_str());
    let mut runs: Vec<Done<'_>> = forward(builder)
        .into_iter()
        .filter(|done| builder.plan.node(done.run.node).is_some_and(|node| node.name.path == of))
        .filter(|done| began(done.run) && item.is_none_or(|item| item == done.id))
        .collect();
    runs.reverse();
    runs
}

/// The runs that a step undoes where the undone step stood in a loop, the last one first.
pub(in crate::machine) fn undo_items(builder: &Builder<'_>, of: &str) -> Vec<Json> {
    undone_runs(builder, of).into_iter().map(|done| Json::String(done.id.to_owned())).collect()
}

/// What the step that is undone recorded.
pub(super) fn undo_data(builder: &Builder<'_>, of: &str) -> Option<Json> {
    undone_runs(builder, of).first().and_then(|done| done.run.undo.clone())
}

fn nothing_to_undo(builder: &Builder<'_>, of: &str) -> Option<String> {
    match undone_runs(builder, of).first() {
        None => Some("the step did not run: there is nothing to undo".to_owned()),
        Some(done) if done.run.undo.is_none() && !done.run.unanswered => {
            Some("the step changed nothing that could be undone".to_owned())
        }
        Some(_) => None,
    }
}

/// Fails an undo whose step left nothing because nobody answered for it.
pub(super) fn must_be_known(builder: &Builder<'_>, of: &str) -> Result<(), Box<Failure>> {
    match undone_runs(builder, of).first() {
        Some(done) if done.run.undo.is_none() && done.run.unanswered => {
            let text = format!(
                "what the step `{}` changed is not known: its agent did not answer for it",
                done.identifier(builder)
            );
            let failure = Failure::new(FailureKind::DelegateRestart, "PIPE-051", text)
                .hint("look at services, weights and scaling yourself; the steps before it are not undone");
            Err(Box::new(failure))
        }
        _ => Ok(()),
    }
}
