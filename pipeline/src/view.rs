//! The document that `pipeline run --output json` and `execution show` print, derived from a state.

mod approval;

pub use approval::ApprovalView;

use crate::fault::Notice;
use crate::machine::approval::without_secrets;
use crate::machine::input::Asked;
use crate::machine::state::{Phase, ROOT_RUN, Run, State, Status};
use crate::machine::{Builder, Intervention, interventions};
use crate::model::ecs::EcsAction;
use crate::model::pipeline::StageKind;
use crate::model::step::Spec;
use crate::plan::{NodeKind, Plan, PlanNode};
use proto::failure::Failure;
use proto::result::UnitProgress;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// An execution for people and scripts.
///
/// **Source**: issue 3, "Command line"; ADR 0003.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionView {
    /// Id.
    pub execution_id: String,
    /// Harness status name.
    pub status: Status,
    /// Rollback steps ran, and every stage that rolled back did so to a positive end.
    pub rolled_back: bool,
    /// Rehearsal factor, or null.
    pub rehearsal: Option<u32>,
    /// Identifier of the pipeline.
    pub pipeline: String,
    /// Its name.
    pub name: String,
    /// Per-pipeline counter.
    pub sequence_id: u64,
    /// Who started it.
    pub started_by: String,
    /// Epoch milliseconds.
    pub started_at: Option<u64>,
    /// Epoch milliseconds.
    pub ended_at: Option<u64>,
    /// Up to `now` while it runs.
    pub duration_ms: Option<u64>,
    /// Who aborted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted_by: Option<String>,
    /// Why, if the pipeline itself failed.
    pub failure: Option<Failure>,
    /// Stages in order.
    pub stages: Vec<StageView>,
    /// Applied tolerance rules.
    pub notices: Vec<Notice>,
}

/// A stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageView {
    /// Identifier.
    pub identifier: String,
    /// Name, with its expressions resolved once the stage has begun.
    pub name: String,
    /// `Deployment`, `Custom`, `Approval`.
    #[serde(rename = "type")]
    pub kind: StageKind,
    /// Status of the forward part.
    pub status: Status,
    /// Epoch milliseconds.
    pub started_at: Option<u64>,
    /// Up to `now` while it runs.
    pub duration_ms: Option<u64>,
    /// Why, if the stage itself failed.
    pub failure: Option<Failure>,
    /// Node id.
    #[serde(default)]
    pub node: String,
    /// What it asks or asked for when it was reached, and who gave what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Asked>,
    /// The infrastructure that it holds or waits for: stages with the same key wait for each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure_key: Option<String>,
    /// What it waits for; the manager knows who has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// What to do about the way in which it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Forward steps.
    pub steps: Vec<StepView>,
    /// Rollback steps.
    pub rollback_steps: Vec<StepView>,
}

/// A step, a group or an iteration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// Identifier, with loop postfix.
    pub identifier: String,
    /// Name, with its expressions resolved once the step has begun.
    pub name: String,
    /// Step type, or `StepGroup`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Status.
    pub status: Status,
    /// Whether it is a rollback step.
    pub rollback: bool,
    /// Whether the planner made it (rule R25): no document has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub generated: bool,
    /// Epoch milliseconds.
    pub started_at: Option<u64>,
    /// Up to `now` while it runs.
    pub duration_ms: Option<u64>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Name of the agent.
    pub agent: Option<String>,
    /// Outputs; secret ones are hidden.
    pub outputs: Json,
    /// Results by host, for a step that runs on every host of its stage.
    pub hosts: Vec<HostView>,
    /// Node id: logs and tasks go by it.
    pub node: String,
    /// Latest attempt.
    pub attempt: u32,
    /// What people are or were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
    /// What it asks or asked for when it was reached, and who gave what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Asked>,
    /// What a person should read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// Command units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitProgress>,
    /// What it waits for; the manager knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// What somebody may decide about it, if it waits for that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interventions: Vec<Intervention>,
    /// Until when, epoch milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decide_until: Option<u64>,
    /// Members of a group, or iterations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepView>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostView {
    /// As written in the infrastructure.
    pub host: String,
    /// `Success`, `Failed`, `NotStarted`, `Aborted`, `Running`.
    pub status: Status,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Node id of its task.
    pub node: String,
}

/// Derives the view. `now` gives running nodes a duration.
pub fn execution_view(state: &State, now: Option<u64>) -> ExecutionView {
    let plan = &*state.plan;
    let viewer = Viewer { plan, state, now };
    let root = state.runs.get(ROOT_RUN);
    let facts = &plan.run;
    let children = plan.nodes.first().map(|node| node.children.as_slice()).unwrap_or_default();
    ExecutionView {
        execution_id: facts.execution_id.clone(),
        status: root.map_or(Status::NotStarted, |root| viewer.shown(ROOT_RUN, root)),
        rolled_back: viewer.rolled_back(),
        rehearsal: facts.rehearsal,
        pipeline: facts.pipeline.clone(),
        name: facts.name.clone(),
        sequence_id: facts.sequence_id,
        started_by: facts.started_by.clone(),
        started_at: root.and_then(|run| run.started_at),
        ended_at: root.and_then(|run| run.ended_at),
        duration_ms: root.and_then(|run| viewer.duration(run)),
        aborted_by: state.aborted_by.clone(),
        failure: root.and_then(|run| run.failure.clone()),
        stages: viewer.stages(children),
        notices: plan.notices.clone(),
    }
}

struct Viewer<'a> {
    plan: &'a Plan,
    state: &'a State,
    now: Option<u64>,
}

impl Viewer<'_> {
    /// The status of a run; what runs and has a member that waits for somebody is shown as waiting too
    /// (pipeline.md 2.10, last line).
    fn shown(&self, id: &str, run: &Run) -> Status {
        const ORDER: [Status; 4] = [
            Status::InterventionWaiting,
            Status::ApprovalWaiting,
            Status::InputWaiting,
            Status::ResourceWaiting,
        ];
        if run.status != Status::Running {
            return run.status;
        }
        let members = self.state.members(id);
        let members: Vec<Status> =
            members.iter().filter_map(|id| self.state.runs.get(id).map(|run| self.shown(id, run))).collect();
        ORDER.into_iter().find(|status| members.contains(status)).unwrap_or(Status::Running)
    }

    fn duration(&self, run: &Run) -> Option<u64> {
        let end = run.ended_at.or(self.now)?;
        Some(end.saturating_sub(run.started_at?))
    }

    fn rolled_back(&self) -> bool {
        let mut any = false;
        for run in self.state.runs.values().filter(|run| run.rolled_back) {
            let Some(node) = self.plan.node(run.node) else { continue };
            if !matches!(node.kind, NodeKind::Stage(_)) {
                continue;
            }
            let rollback: Vec<&Run> = run
                .children
                .iter()
                .filter_map(|id| self.state.runs.get(id))
                .filter(|run| self.plan.node(run.node).is_some_and(|node| node.in_rollback))
                .collect();
            if !run.status.is_final()
                || rollback.is_empty()
                || rollback.iter().any(|run| !run.status.is_positive())
            {
                return false;
            }
            any = true;
        }
        any
    }

    fn stages(&self, nodes: &[usize]) -> Vec<StageView> {
        let mut stages = Vec::new();
        for index in nodes {
            let Some(node) = self.plan.node(*index) else { continue };
            match &node.kind {
                NodeKind::Stage(_) => match self.state.runs.get(&node.path) {
                    Some(_) if node.looping.is_some() && self.state.is_loop(&node.path) => {
                        for id in self.state.members(&node.path) {
                            stages.extend(self.stage(node, &id));
                        }
                    }
                    _ => stages.extend(self.stage(node, &node.path)),
                },
                _ => stages.extend(self.stages(&node.children)),
            }
        }
        stages
    }

    fn stage(&self, node: &PlanNode, id: &str) -> Option<StageView> {
        let NodeKind::Stage(stage) = &node.kind else { return None };
        let run = self.state.runs.get(id);
        let mut steps = Vec::new();
        // The lookup of the artifact is only of interest when it did not succeed.
        if let Some(lookup) = stage.artifact.and_then(|index| self.plan.node(index)) {
            let id = format!("{id}.{}", lookup.part);
            let shown = |run: &&Run| run.status.is_final() && !run.status.is_positive();
            if self.state.runs.get(&id).filter(shown).is_some() {
                steps.push(self.step(lookup, &id));
            }
        }
        steps.extend(self.steps(&node.children, id));
        Some(StageView {
            identifier: postfixed(node, run),
            name: self.name(node, id),
            kind: stage.kind,
            status: run.map_or(Status::NotStarted, |run| {
                run.forward.filter(|_| !run.status.is_final()).unwrap_or_else(|| self.shown(id, run))
            }),
            started_at: run.and_then(|run| run.started_at),
            duration_ms: run.and_then(|run| self.duration(run)),
            failure: run.and_then(|run| run.failure.clone()),
            node: id.to_owned(),
            inputs: run.and_then(|run| run.inputs.as_deref().cloned()),
            infrastructure_key: run.and_then(|run| run.claim.clone()),
            waiting_for: run.and_then(|run| match run.status {
                Status::ResourceWaiting => {
                    let target = stage.target.as_ref();
                    let name = target.map_or("", |target| &target.infrastructure.identifier);
                    Some(format!("its turn on the infrastructure `{name}`"))
                }
                _ => waiting_for(node, run),
            }),
            hint: run.and_then(|run| self.after_abort(node, run, id)),
            steps,
            rollback_steps: self.steps(&node.rollback, id),
        })
    }

    /// An aborted stage of ECS is left as it is, with its weights and services (settled facts §3.7); what it changed can be
    /// brought back.
    fn after_abort(&self, node: &PlanNode, run: &Run, id: &str) -> Option<String> {
        let target = self.plan.target_of(run.node)?;
        let left = run.status == Status::Aborted && !run.rolled_back && !node.rollback.is_empty();
        if !left || target.infrastructure.kind != "ECS" {
            return None;
        }
        let inside = format!("{id}.");
        let changed = self.state.runs.iter().any(|(id, run)| run.undo.is_some() && id.starts_with(&inside));
        let execution = &self.plan.run.execution_id;
        changed.then(|| {
            format!("services and weights stay as they are; `delegate execution rollback {execution}` brings back what was there before")
        })
    }

    /// The name with its expressions as they were when the run began; as written before that.
    fn name(&self, node: &PlanNode, id: &str) -> String {
        let written = node.name.text();
        let Some(run) = self.state.runs.get(id).filter(|_| written.contains("<+")) else { return written };
        let builder = Builder::new(self.plan, self.state, id, run.started_at.unwrap_or(0));
        builder.keep(&node.name).map_or(written, |text| without_secrets(text.0))
    }

    fn steps(&self, nodes: &[usize], base: &str) -> Vec<StepView> {
        let mut views = Vec::new();
        for index in nodes {
            let Some(node) = self.plan.node(*index) else { continue };
            match node.kind {
                NodeKind::Parallel => views.extend(self.steps(&node.children, base)),
                _ => views.push(self.step(node, &format!("{base}.{}", node.part))),
            }
        }
        views
    }

    fn step(&self, node: &PlanNode, id: &str) -> StepView {
        let run = self.state.runs.get(id);
        let per_host = matches!(node.kind, NodeKind::Step { per_host: true, .. });
        let members = match run {
            Some(_) if self.state.is_loop(id) && !per_host => {
                self.state.members(id).iter().map(|child| self.step(node, child)).collect()
            }
            _ => {
                let mut members = self.steps(&node.children, id);
                members.extend(self.steps(&node.rollback, id));
                members
            }
        };
        StepView {
            identifier: postfixed(node, run),
            name: self.name(node, id),
            kind: match &node.kind {
                NodeKind::Step { kind, .. } => kind.clone(),
                NodeKind::Artifact => "ResolveArtifact".to_owned(),
                _ => "StepGroup".to_owned(),
            },
            status: run.map_or(Status::NotStarted, |run| self.shown(id, run)),
            rollback: node.in_rollback,
            generated: is_generated(node),
            started_at: run.and_then(|run| run.started_at),
            duration_ms: run.and_then(|run| self.duration(run)),
            failure: run.and_then(|run| run.failure.clone()),
            agent: run.and_then(|run| run.agent.clone()),
            outputs: run.map_or_else(|| Json::Object(serde_json::Map::new()), outputs),
            hosts: if per_host { self.hosts(id, run) } else { Vec::new() },
            node: id.to_owned(),
            attempt: run.map_or(0, |run| run.attempt),
            notices: run.map(|run| run.notices.clone()).unwrap_or_default(),
            units: run.map(|run| run.units.clone()).unwrap_or_default(),
            approval: run.and_then(ApprovalView::of),
            inputs: run.and_then(|run| run.inputs.as_deref().cloned()),
            waiting_for: run.and_then(|run| waiting_for(node, run)),
            interventions: interventions(self.state, id),
            decide_until: run.and_then(|run| run.halt.as_ref()).map(|halt| halt.until).or_else(|| {
                let asking = run.filter(|run| run.phase == Phase::Input)?;
                asking.inputs.as_ref().map(|asked| asked.until)
            }),
            steps: members,
        }
    }

    fn hosts(&self, id: &str, run: Option<&Run>) -> Vec<HostView> {
        let Some(index) =
            run.map(|run| run.node).or_else(|| self.plan.nodes.iter().position(|n| n.path == id))
        else {
            return Vec::new();
        };
        let hosts = self.plan.target_of(index).map(|target| target.infrastructure.hosts.as_slice());
        let mut views = Vec::new();
        for (at, host) in hosts.unwrap_or_default().iter().enumerate() {
            let node = format!("{id}_{at}");
            let run = self.state.runs.get(&node);
            let status = match run.map_or(Status::NotStarted, |run| run.status) {
                Status::Skipped => Status::Success,
                Status::Expired | Status::IgnoreFailed => Status::Failed,
                other => other,
            };
            let failure = run.and_then(|run| run.failure.clone());
            views.push(HostView { host: host.written.clone(), status, failure, node });
        }
        views
    }
}

/// What a step of the manager's own waits for.
fn waiting_for(node: &PlanNode, run: &Run) -> Option<String> {
    match run.phase {
        Phase::Barrier => {
            let NodeKind::Step { spec, .. } = &node.kind else { return None };
            let Spec::Barrier { barrier } = &**spec else { return None };
            Some(format!("the other steps of the barrier `{}`", barrier.text()))
        }
        Phase::Input => {
            let asked = run.inputs.as_ref()?;
            let names: Vec<&str> = asked.inputs.iter().map(|input| input.name.as_str()).collect();
            Some(format!("somebody's inputs: {}", names.join(", ")))
        }
        Phase::Intervention => Some("somebody's decision about its failure".to_owned()),
        _ => None,
    }
}

/// Whether a step stands in no document.
fn is_generated(node: &PlanNode) -> bool {
    let NodeKind::Step { spec, .. } = &node.kind else { return false };
    matches!(&**spec, Spec::Ecs(step) if matches!(step.action, EcsAction::EcsUndo { .. }))
}

fn postfixed(node: &PlanNode, run: Option<&Run>) -> String {
    match run.and_then(|run| run.iteration.as_ref()) {
        Some(iteration) => format!("{}{}", node.identifier, iteration.ending()),
        None => node.identifier.clone(),
    }
}

/// Outputs as a tree: `outputVariables.version` becomes `{"outputVariables": {"version": …}}`.
fn outputs(run: &Run) -> Json {
    let mut root = serde_json::Map::new();
    for (path, output) in &run.outputs {
        let value = if output.secret { Json::String("********".to_owned()) } else { output.value.clone() };
        match path.strip_prefix("outputVariables.") {
            Some(name) => {
                let variables =
                    root.entry("outputVariables").or_insert_with(|| Json::Object(serde_json::Map::new()));
                if let Json::Object(variables) = variables {
                    variables.insert(name.to_owned(), value);
                }
            }
            None => {
                root.insert(path.clone(), value);
            }
        }
    }
    Json::Object(root)
}
