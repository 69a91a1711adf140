//! Name resolution (pipeline.md §3.4): what an expression at a node of a plan may name.

mod course;
mod iterations;
mod values;

use crate::machine::approval::Approval;
use crate::machine::input::given_variables;
use crate::machine::state::{Run, State};
use crate::model::as_text;
use crate::plan::{Iteration, NodeKind, Plan, PlanNode, StageRecord, TargetPlan};
use crate::rules::canonical;
use expr::{Lookup, Scope, Segment, Value};
use serde_json::Value as Json;
use values::{found, hosts, named, outputs, own, text, variable};

/// The scope of one node.
#[derive(Clone, Copy)]
pub(crate) struct NodeScope<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The run, when it has begun.
    pub state: Option<&'a State>,
    /// Node whose field is resolved.
    pub node: usize,
    /// Its run.
    pub run: Option<&'a str>,
    /// In a rollback step: what the stage deployed before.
    pub record: Option<&'a StageRecord>,
    /// An iteration that has no run yet.
    pub iteration: Option<&'a Iteration>,
}

impl Scope for NodeScope<'_> {
    fn lookup(&self, path: &[Segment]) -> Lookup {
        if let Some(rewritten) = expr::alias(path)
            && let Lookup::Found { value, used } = self.find(&rewritten)
        {
            // The evaluator counts in segments of the path as written, so the rewritten one is walked to its end here.
            return match walk(value, rewritten.get(used..).unwrap_or_default()) {
                Some(value) => Lookup::Found { value, used: path.len() },
                None => Lookup::Missing,
            };
        }
        self.find(path)
    }

    fn call(&self, functor: &str, method: &str, _: &[Value]) -> Option<Result<Value, String>> {
        match functor {
            "configFile" | "fileStore" => Some(Err(format!(
                "`{functor}.{method}` is not supported: files are fetched on the agent; use a Copy unit of type Config"
            ))),
            _ => None,
        }
    }
}

/// What only the agent knows while it deploys: a mark that it replaces, as Harness' own agent does.
fn kubernetes(path: &[Segment]) -> Lookup {
    let names = (path.get(1).and_then(Segment::name), path.get(2).and_then(Segment::name));
    match names {
        (Some("release"), Some("revision")) => found(text("$__HARNESS_INTERNAL_RELEASE_REVISION__"), 3),
        (Some("release"), Some("stageColor")) => found(text("$__HARNESS_INTERNAL_RELEASE_COLOR__"), 3),
        _ => Lookup::Missing,
    }
}

fn walk(mut value: Value, rest: &[Segment]) -> Option<Value> {
    for segment in rest {
        value = value.child(segment).ok().flatten()?;
    }
    Some(value)
}

impl<'a> NodeScope<'a> {
    /// A scope for the time before a run.
    pub(crate) fn planning(plan: &'a Plan, node: usize) -> Self {
        NodeScope { plan, state: None, node, run: None, record: None, iteration: None }
    }

    fn find(&self, path: &[Segment]) -> Lookup {
        let Some(first) = path.first().and_then(Segment::name) else { return Lookup::Undefined };
        let second = path.get(1).and_then(Segment::name);
        let facts = &self.plan.run;
        match first {
            "input" => Lookup::Refused("a runtime input is missing".to_owned()),
            "pipeline" => self.pipeline(path),
            "trigger" => facts.trigger.as_ref().map_or(Lookup::Missing, |trigger| trigger.lookup(path)),
            "account" => named(second, &[("identifier", &facts.account), ("name", &facts.account)]),
            "org" => named(second, &[("identifier", &facts.org), ("name", &facts.org)]),
            "project" => named(second, &[("identifier", &facts.project), ("name", &facts.project)]),
            "service" => self.service(path),
            "serviceVariables" => self.service_variable(second),
            "serviceConfig" => self.service_config(path),
            "env" => self.environment(path),
            "infra" | "infrastructure" => self.infrastructure(path),
            "INFRA_KEY" => self.target().map_or(Lookup::Missing, |t| found(text(&t.infrastructure.key), 1)),
            "INFRA_KEY_SHORT_ID" => self.target().map_or(Lookup::Missing, |t| {
                found(text(t.infrastructure.key.get(..6).unwrap_or_default()), 1)
            }),
            "artifacts" => self.artifact(path),
            "kubernetes" => kubernetes(path),
            // A mark in service definitions that the agent replaces, as Harness' own agent does.
            "targetGroupArn" => found(Value::tainted("<+targetGroupArn>"), 1),
            "repeat" | "strategy" | "matrix" => self.iteration(first, path, None),
            "instance" => self.instance(path),
            "Always" => found(Value::Bool(true), 1),
            "OnStageSuccess" => found(Value::Bool(!self.broke("stage")), 1),
            "OnStageFailure" => found(Value::Bool(self.broke("stage")), 1),
            "OnPipelineSuccess" => found(Value::Bool(!self.broke("pipeline")), 1),
            "OnPipelineFailure" => found(Value::Bool(self.broke("pipeline")), 1),
            "OnRollbackModeExecution" => found(Value::Bool(self.execution_mode() != "NORMAL"), 1),
            "stage" => self.ancestor(path, |node| matches!(node.kind, NodeKind::Stage(_))),
            "stepGroup" => self.ancestor(path, |node| matches!(node.kind, NodeKind::Group)),
            "step" => self.ancestor(path, |node| matches!(node.kind, NodeKind::Step { .. })),
            "execution" | "steps" => self.steps(path),
            "approval" => match self.latest_approval() {
                Some(asked) => found(values::approval(asked), 1),
                // Something that encloses this node may have the name.
                None => self.named_ancestor(path, first),
            },
            _ => self.named_ancestor(path, first),
        }
    }

    fn named_ancestor(&self, path: &[Segment], first: &str) -> Lookup {
        self.ancestor(path, |node| node.identifier == first || canonical(&node.identifier) == first)
    }

    /// What people were asked last in this run.
    fn latest_approval(&self) -> Option<&'a Approval> {
        let runs = self.state.into_iter().flat_map(|state| state.runs.values());
        runs.filter_map(|run| run.approval.as_deref()).max_by_key(|asked| asked.asked_at)
    }

    pub(super) fn target(&self) -> Option<&'a TargetPlan> {
        self.plan.target_of(self.node)
    }

    fn pipeline(&self, path: &[Segment]) -> Lookup {
        let facts = &self.plan.run;
        let Some(second) = path.get(1).and_then(Segment::name) else { return Lookup::Missing };
        match second {
            "name" => found(text(&facts.name), 2),
            "identifier" => found(text(&facts.pipeline), 2),
            "sequenceId" => found(Value::Int(i64::try_from(facts.sequence_id).unwrap_or(i64::MAX)), 2),
            "executionId" | "resumedExecutionId" => found(text(&facts.execution_id), 2),
            "executionMode" => found(text(self.execution_mode()), 2),
            "startTs" => found(Value::Int(i64::try_from(facts.started_at).unwrap_or(i64::MAX)), 2),
            "triggerType" => {
                found(text(facts.trigger.as_ref().map_or("MANUAL", |trigger| &trigger.run_type)), 2)
            }
            "triggeredBy" => match (path.get(2).and_then(Segment::name), &facts.trigger) {
                (Some("name" | "triggerIdentifier"), Some(trigger)) => found(text(&trigger.identifier), 3),
                // Whoever owns the key is the executor, but the event has no sender.
                (_, Some(_)) => Lookup::Missing,
                (Some("name"), None) => found(Value::tainted(facts.started_by.as_str()), 3),
                (Some("email"), None) if facts.started_by.contains('@') => {
                    found(Value::tainted(facts.started_by.as_str()), 3)
                }
                _ => Lookup::Missing,
            },
            "storeType" => found(text("INLINE"), 2),
            "tags" => found(own(&self.plan.tags), 2),
            "variables" => variable(&self.plan.variables, path, 2),
            "delegateSelectors" => match &self.plan.nodes.first().and_then(|node| node.selectors.as_ref()) {
                Some(field) => found(own(&field.value), 2),
                None => Lookup::Missing,
            },
            "stages" => self.absolute("pipeline", path, 1),
            _ => self.properties(crate::plan::ROOT, Some(crate::machine::state::ROOT_RUN), path, 1),
        }
    }

    fn service(&self, path: &[Segment]) -> Lookup {
        let Some(service) = self.target().map(|target| &target.service) else { return Lookup::Missing };
        match path.get(1).and_then(Segment::name) {
            Some("identifier") => found(text(&service.identifier), 2),
            Some("name") => found(text(&service.name), 2),
            Some("description") => found(text(&service.description), 2),
            Some("type") => found(text(&service.definition.kind), 2),
            Some("tags") => found(own(&service.tags), 2),
            Some("gitOpsEnabled") => found(Value::Bool(false), 2),
            Some("variables") => match path.get(2).and_then(Segment::name) {
                Some(name) => match self.service_variable(Some(name)) {
                    Lookup::Found { value, .. } => found(value, 3),
                    other => other,
                },
                None => Lookup::Missing,
            },
            _ => Lookup::Missing,
        }
    }

    fn service_variable(&self, name: Option<&str>) -> Lookup {
        let Some(name) = name else { return Lookup::Missing };
        if let Some(value) = self.record.and_then(|record| record.variables.get(name)) {
            return found(Value::text_marked(value.text.as_str(), !value.expression), 2);
        }
        let Some(target) = self.target() else { return Lookup::Missing };
        let path = ["serviceVariables".into(), Segment::from(name)];
        variable(&target.service.definition.variables, &path, 1)
    }

    /// R15: `serviceConfig.X` falls back to the definition.
    fn service_config(&self, path: &[Segment]) -> Lookup {
        let Some(service) = self.target().map(|target| &target.service) else { return Lookup::Missing };
        match path.get(1).and_then(Segment::name) {
            Some("serviceRef") => found(text(&service.identifier), 2),
            Some("serviceDefinition") => found(own(&service.document), 2),
            Some(_) => {
                let spec = service.document.get("spec").unwrap_or(&Json::Null);
                match own(spec).child(path.get(1).unwrap_or(&Segment::Index(0))) {
                    Ok(Some(value)) => found(value, 2),
                    _ => Lookup::Missing,
                }
            }
            None => Lookup::Missing,
        }
    }

    fn environment(&self, path: &[Segment]) -> Lookup {
        let Some(environment) = self.target().map(|target| &target.environment) else {
            return Lookup::Missing;
        };
        match path.get(1).and_then(Segment::name) {
            Some("identifier") => found(text(&environment.identifier), 2),
            Some("name") => found(text(&environment.name), 2),
            Some("description") => found(text(&environment.description), 2),
            Some("type") => found(text(&environment.kind), 2),
            Some("tags") => found(own(&environment.tags), 2),
            Some("variables") => variable(&environment.variables, path, 2),
            _ => Lookup::Missing,
        }
    }

    fn infrastructure(&self, path: &[Segment]) -> Lookup {
        let Some(infra) = self.target().map(|target| &target.infrastructure) else { return Lookup::Missing };
        match path.get(1).and_then(Segment::name) {
            Some("name") => found(text(&infra.name), 2),
            Some("infraIdentifier" | "identifier") => found(text(&infra.identifier), 2),
            Some("type") => found(text(&infra.kind), 2),
            Some("connectorRef") => infra.connector.as_ref().map_or(Lookup::Missing, |c| found(text(c), 2)),
            Some("hosts") => found(hosts(&infra.hosts), 2),
            Some("namespace") => {
                infra.namespace.as_ref().map_or(Lookup::Missing, |f| found(own(&f.value), 2))
            }
            Some("releaseName") => {
                infra.release_name.as_ref().map_or(Lookup::Missing, |f| found(own(&f.value), 2))
            }
            Some("region") => infra.region.as_ref().map_or(Lookup::Missing, |f| found(own(&f.value), 2)),
            Some("cluster") => infra.cluster.as_ref().map_or(Lookup::Missing, |f| found(own(&f.value), 2)),
            Some("tags") => found(own(&infra.tags), 2),
            Some("infrastructureKey") => found(text(&infra.key), 2),
            _ => Lookup::Missing,
        }
    }

    /// `artifacts.primary.X`: the pinned artifact, or before that what the definition says.
    fn artifact(&self, path: &[Segment]) -> Lookup {
        if path.get(1).and_then(Segment::name) != Some("primary") {
            return Lookup::Missing;
        }
        let Some(field) = path.get(2).and_then(Segment::name) else { return Lookup::Missing };
        if let Some(record) = self.record {
            if let Some(value) = record.artifact_outputs.get(field) {
                return found(Value::from_json(value, true), 3);
            }
        } else if let Some((run, _)) = self.stage_run()
            && let Some(output) = run.outputs.get(&format!("artifact.{field}"))
        {
            return found(Value::from_json(&output.value, true), 3);
        }
        let Some(artifact) = self.target().and_then(|target| target.service.definition.artifact.as_ref())
        else {
            return Lookup::Missing;
        };
        use crate::model::service::ArtifactSource;
        match (field, &artifact.source) {
            ("identifier", _) => found(text(&artifact.identifier), 3),
            ("connectorRef", _) => found(own(&artifact.connector.value), 3),
            ("type", ArtifactSource::DockerRegistry { .. }) => found(text("DockerRegistry"), 3),
            ("type", ArtifactSource::ArtifactoryRegistry { .. }) => found(text("ArtifactoryRegistry"), 3),
            ("type", ArtifactSource::Ecr { .. }) => found(text("Ecr"), 3),
            (
                "imagePath",
                ArtifactSource::DockerRegistry { image_path, .. } | ArtifactSource::Ecr { image_path, .. },
            ) => found(own(&image_path.value), 3),
            ("tag", ArtifactSource::DockerRegistry { tag, .. } | ArtifactSource::Ecr { tag, .. }) => {
                found(own(&as_text(&tag.value)), 3)
            }
            ("region", ArtifactSource::Ecr { region: Some(region), .. }) => found(own(&region.value), 3),
            ("path" | "artifactPath" | "tag", ArtifactSource::ArtifactoryRegistry { path, .. }) => {
                found(own(&path.value), 3)
            }
            ("repository", ArtifactSource::ArtifactoryRegistry { repository, .. }) => {
                found(own(&repository.value), 3)
            }
            _ => Lookup::Missing,
        }
    }

    pub(super) fn runs_upwards(&self) -> impl Iterator<Item = (&'a str, &'a Run)> {
        let state = self.state;
        let start = self.run.and_then(|id| state.and_then(|state| state.runs.get_key_value(id)));
        std::iter::successors(start, move |(_, run)| {
            let parent = run.parent.as_deref()?;
            state.and_then(|state| state.runs.get_key_value(parent))
        })
        .map(|(id, run)| (id.as_str(), run))
    }

    fn stage_run(&self) -> Option<(&'a Run, &'a str)> {
        self.runs_upwards()
            .find(|(_, run)| {
                self.plan.node(run.node).is_some_and(|node| matches!(node.kind, NodeKind::Stage(_)))
                    && run.phase != crate::machine::state::Phase::Loop
            })
            .map(|(id, run)| (run, id))
    }

    /// The nearest enclosing node that fits, then a node below it or its properties.
    fn ancestor(&self, path: &[Segment], fits: impl Fn(&PlanNode) -> bool) -> Lookup {
        let Some((at, run)) = self.enclosing(fits) else { return Lookup::Undefined };
        let base = run.or_else(|| self.plan.node(at).map(|node| node.path.as_str())).unwrap_or_default();
        match self.below(base, path, 1) {
            Some((node, used, run)) => self.properties(node, run, path, used),
            None => self.properties(at, run, path, 1),
        }
    }

    fn enclosing(&self, fits: impl Fn(&PlanNode) -> bool) -> Option<(usize, Option<&'a str>)> {
        let mut index = Some(self.node);
        while let Some((at, node)) = index.and_then(|at| Some((at, self.plan.node(at)?))) {
            if fits(node) {
                return Some((at, self.runs_upwards().find(|(_, run)| run.node == at).map(|(id, _)| id)));
            }
            index = node.parent;
        }
        None
    }

    /// The node that a path names, and how many of its segments do so.
    pub(crate) fn named_node(&self, path: &[Segment]) -> Option<(usize, usize)> {
        let first = path.first().and_then(Segment::name)?;
        let below = |fits: &dyn Fn(&PlanNode) -> bool| {
            let (at, _) = self.enclosing(fits)?;
            self.below(&self.plan.node(at)?.path, path, 1)
        };
        let hit = match first {
            "pipeline" => self.below("pipeline", path, 1),
            "execution" | "steps" => self.step_node(path),
            "stage" => below(&|node| matches!(node.kind, NodeKind::Stage(_))),
            "stepGroup" => below(&|node| matches!(node.kind, NodeKind::Group)),
            _ => below(&|node| node.identifier == first || canonical(&node.identifier) == first),
        };
        hit.map(|(node, used, _)| (node, used))
    }

    /// `execution.steps.X` and `steps.X`: nearest group first, then the stage.
    fn steps(&self, path: &[Segment]) -> Lookup {
        match self.step_node(path) {
            Some((node, used, run)) => self.properties(node, run, path, used),
            None => Lookup::Undefined,
        }
    }

    fn step_node(&self, path: &[Segment]) -> Option<(usize, usize, Option<&'a str>)> {
        let rest = match path.first().and_then(Segment::name) {
            Some("execution") => 1,
            _ => 0,
        };
        let mut index = Some(self.node);
        while let Some(at) = index {
            let Some(node) = self.plan.node(at) else { break };
            let prefix = match node.kind {
                NodeKind::Stage(_) => Some("spec.execution"),
                NodeKind::Group if rest == 0 => Some(""),
                _ => None,
            };
            if let Some(prefix) = prefix {
                let run = self.runs_upwards().find(|(_, run)| run.node == at).map(|(id, _)| id);
                let base = run.unwrap_or(&node.path);
                let base = if prefix.is_empty() { base.to_owned() } else { format!("{base}.{prefix}") };
                if let Some(hit) = self.below(&base, path, rest) {
                    return Some(hit);
                }
            }
            index = node.parent;
        }
        None
    }

    /// Follows identifiers from the id `base` as far as they name nodes, then takes a property.
    fn absolute(&self, base: &str, path: &[Segment], from: usize) -> Lookup {
        match self.below(base, path, from) {
            Some((node, used, run)) => self.properties(node, run, path, used),
            None => Lookup::Undefined,
        }
    }

    /// Follows identifiers from the id `base` as far as they name nodes: the node, how many segments, its run.
    fn below(&self, base: &str, path: &[Segment], from: usize) -> Option<(usize, usize, Option<&'a str>)> {
        let mut id = base.to_owned();
        let mut best: Option<(usize, usize, Option<&'a str>)> = None;
        for (offset, segment) in path.iter().enumerate().skip(from) {
            let Some(name) = segment.name() else { break };
            id.push('.');
            id.push_str(name);
            let run = self.state.and_then(|state| state.runs.get_key_value(id.as_str()));
            let node = run.map(|(_, run)| run.node).or_else(|| {
                self.plan
                    .nodes
                    .iter()
                    .position(|node| node.path == id || canonical(&node.path) == canonical(&id))
            });
            if let Some(node) = node {
                best = Some((node, offset + 1, run.map(|(id, _)| id.as_str())));
                if run.is_none() {
                    // Written with the canonical identifier: go on from the real id.
                    if let Some(node) = self.plan.node(node) {
                        id.clone_from(&node.path);
                        let run = self.state.and_then(|state| state.runs.get_key_value(id.as_str()));
                        best = best.map(|(n, used, _)| (n, used, run.map(|(id, _)| id.as_str())));
                    }
                }
            }
        }
        best
    }

    fn properties(&self, index: usize, run: Option<&'a str>, path: &[Segment], used: usize) -> Lookup {
        let Some(node) = self.plan.node(index) else { return Lookup::Undefined };
        let run = run.and_then(|id| self.state.and_then(|state| state.runs.get(id).map(|run| (id, run))));
        let Some(property) = path.get(used).and_then(Segment::name) else { return Lookup::Missing };
        let time = |at: Option<u64>| match at {
            Some(at) => found(Value::Int(i64::try_from(at).unwrap_or(i64::MAX)), used + 1),
            None => Lookup::Missing,
        };
        match property {
            "identifier" => found(text(&node.identifier), used + 1),
            "name" => found(own(&as_text(&node.name.value)), used + 1),
            "status" | "currentStatus" | "liveStatus" => match run {
                Some((_, run)) => found(text(run.status.engine_name()), used + 1),
                None => Lookup::Missing,
            },
            "startTs" => time(run.and_then(|(_, run)| run.started_at)),
            "endTs" => time(run.and_then(|(_, run)| run.ended_at)),
            "retryCount" => match run {
                Some((_, run)) => found(Value::Int(i64::from(run.attempt.saturating_sub(1))), used + 1),
                None => Lookup::Missing,
            },
            "variables" => match &node.kind {
                NodeKind::Stage(stage) => {
                    let given = run.and_then(|(_, run)| given_variables(run, node, &stage.variables));
                    variable(given.as_ref().unwrap_or(&stage.variables), path, used + 1)
                }
                NodeKind::Group => variable(&node.variables, path, used + 1),
                _ => Lookup::Missing,
            },
            "tags" => match &node.kind {
                NodeKind::Stage(stage) => found(own(&stage.tags), used + 1),
                _ => Lookup::Missing,
            },
            "output" => match &node.kind {
                NodeKind::Stage(stage) if path.get(used + 1).and_then(Segment::name) == Some("hosts") => {
                    match &stage.target {
                        Some(target) => found(hosts(&target.infrastructure.hosts), used + 2),
                        None => Lookup::Missing,
                    }
                }
                _ => match run {
                    Some((id, run)) => found(outputs(id, run), used + 1),
                    None => Lookup::Missing,
                },
            },
            "spec" if path.get(used + 1).and_then(Segment::name) == Some("serviceConfig") => {
                match self.service_config(path.get(used + 1..).unwrap_or_default()) {
                    Lookup::Found { value, used: more } => found(value, used + 1 + more),
                    other => other,
                }
            }
            "repeat" | "strategy" | "matrix" => {
                let from = Some((index, run.map(|(id, _)| id)));
                match self.iteration(property, path.get(used..).unwrap_or_default(), from) {
                    Lookup::Found { value, used: more } => found(value, used + more),
                    other => other,
                }
            }
            _ => Lookup::Missing,
        }
    }
}
