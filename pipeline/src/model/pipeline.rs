//! Pipelines and their stages.

use super::failure::Strategies;
use super::read::{Field, Reader, one_of};
use super::step::{Frame, StepNode};
use super::step_list::{Context, read_frame, read_steps};
use super::targets::read_target;
use super::{Variable, identity, read_variables};
use crate::fault::{Fault, Findings};
use crate::yaml::Node;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A pipeline as read from its document.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: Field,
    /// Organisation.
    pub org: String,
    /// Project.
    pub project: String,
    /// Tags.
    pub tags: Json,
    /// Variables.
    pub variables: Vec<Variable>,
    /// `delegateSelectors`.
    pub selectors: Option<Field>,
    /// Timeout.
    pub timeout: Option<Field>,
    /// Identifiers of `flowControl.barriers`.
    pub barriers: Vec<Field>,
    /// Stages.
    pub stages: Vec<StageNode>,
}

/// A member of `stages`.
#[derive(Clone, Debug)]
pub enum StageNode {
    /// One stage.
    Stage(Box<Stage>),
    /// Stages that start together.
    Parallel(Vec<StageNode>),
}

/// Kinds of stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StageKind {
    /// Service, environment, infrastructure and steps.
    Deployment,
    /// Only steps.
    Custom,
    /// Only steps; usually an approval.
    Approval,
}

/// A stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Common part.
    pub frame: Frame,
    /// Kind.
    pub kind: StageKind,
    /// Variables.
    pub variables: Vec<Variable>,
    /// Tags.
    pub tags: Json,
    /// Steps.
    pub steps: Vec<StepNode>,
    /// Rollback steps.
    pub rollback: Vec<StepNode>,
    /// Service, environment and infrastructure; only in a deployment stage.
    pub target: Option<Target>,
    /// Own strategies or rule R16's.
    pub strategies: Strategies,
}

/// A service of several: its reference, and its inputs with their path.
pub type ServiceChoice = (Option<Field>, Option<(Node, String)>);

/// What a deployment stage deploys, and where, before entities are looked up.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// `deploymentType`.
    pub deployment_type: Option<Field>,
    /// `serviceRef`.
    pub service_ref: Option<Field>,
    /// Inline `serviceDefinition`.
    pub service_inline: Option<(Node, String)>,
    /// `environmentRef`.
    pub environment_ref: Option<Field>,
    /// Identifier of the infrastructure.
    pub infrastructure_ref: Option<Field>,
    /// Inline infrastructure, or `inputs` laid over the entity.
    pub infrastructure_inline: Option<(Node, String)>,
    /// `services.values`: reference and inputs of each.
    pub services: Option<Several<ServiceChoice>>,
    /// Several environments or infrastructures.
    pub places: Option<Several<Place>>,
    /// It stands for every infrastructure of its environment, which only a catalogue can name.
    pub all: bool,
    /// `infrastructure.allowSimultaneousDeployments` of the older form.
    pub simultaneous: Option<bool>,
    /// `environment.environmentInputs`: variables that the environment leaves open.
    pub environment_inputs: Option<Node>,
    /// `environment.serviceOverrideInputs`, laid over the service last.
    pub override_inputs: Option<Node>,
    /// `environmentGroup`, before it is looked up.
    pub group: Option<GroupChoice>,
    /// `service.useFromStage`: the stage whose service it is.
    pub service_from: Option<Field>,
    /// `environment.useFromStage`: the stage whose environment and infrastructure it is.
    pub environment_from: Option<Field>,
}

/// The environments of a group that a stage goes to.
#[derive(Clone, Debug)]
pub struct GroupChoice {
    /// `envGroupRef`.
    pub reference: Field,
    /// `deployToAll`: every environment of the group with all its infrastructures.
    pub all: bool,
    /// Those that are named, with their infrastructures.
    pub places: Vec<Place>,
    /// `metadata.parallel`.
    pub parallel: bool,
}

/// What a stage names several of.
#[derive(Clone, Debug)]
pub struct Several<T> {
    /// In their order.
    pub values: Vec<T>,
    /// `metadata.parallel`: all at once instead of one after the other.
    pub parallel: bool,
}

/// One environment with one infrastructure of it.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// `environmentRef`.
    pub environment_ref: Option<Field>,
    /// Identifier of the infrastructure.
    pub infrastructure_ref: Option<Field>,
    /// `inputs` laid over the entity.
    pub infrastructure_inline: Option<(Node, String)>,
    /// `environmentInputs` of this environment.
    pub environment_inputs: Option<Node>,
    /// `serviceOverrideInputs` of this environment.
    pub override_inputs: Option<Node>,
    /// `deployToAll`: stands for every infrastructure of the environment.
    pub all: bool,
}

/// Reads a document with the root `pipeline`.
pub fn read_pipeline(document: &Node, findings: &mut Findings) -> Option<Pipeline> {
    let Some(root) = document.get("pipeline") else {
        let keys =
            document.as_map().map(|map| map.entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>());
        let found = keys.unwrap_or_default();
        let near = found.iter().find_map(|key| crate::fault::nearest(key, ["pipeline"]));
        let message =
            format!("expected a document with the root key `pipeline`, found `{}`", found.join("`, `"));
        findings
            .push(Fault::at(&document.at, "", message).suggest(near.map(|n| format!("did you mean `{n}`?"))));
        return None;
    };
    let mut reader = Reader::new(root, "pipeline", findings);
    reader.known(&["description", "allowStageExecutions"]);
    reader.refused("template", TEMPLATES, findings);
    reader.without_effect("notificationRules", "nobody is notified", findings);
    let identity = identity(&mut reader, "pipeline", findings);
    let org = reader.text("orgIdentifier", findings).unwrap_or_default();
    let project = reader.text("projectIdentifier", findings).unwrap_or_default();
    let tags = reader.any("tags").map_or(Json::Null, |tags| tags.value);
    let variables = read_variables(&mut reader, findings);
    let selectors = reader.any("delegateSelectors");
    let timeout = reader.field("timeout", findings);
    let barriers = read_barriers(&mut reader, findings);
    crate::trigger::inline(root, findings);
    reader.known(&["triggers"]);
    reader.without_effect("properties", "they are for builds", findings);
    let path = reader.sub("stages");
    let list = reader.list("stages", findings);
    if list.is_empty() {
        findings.fault(reader.at(), &path, "`stages` lists nothing");
    }
    let mut stages = read_stages(list, &path, findings);
    super::use_from::propagate(&mut stages, findings);
    reader.finish(findings);
    let (identifier, name) = identity?;
    let pipeline =
        Pipeline { identifier, name, org, project, tags, variables, selectors, timeout, barriers, stages };
    unique_identifiers(&pipeline, findings);
    Some(pipeline)
}

/// `flowControl.barriers: [{identifier, name}]`.
fn read_barriers(reader: &mut Reader<'_>, findings: &mut Findings) -> Vec<Field> {
    let Some(mut control) = reader.map("flowControl", findings) else { return Vec::new() };
    let path = control.sub("barriers");
    let mut barriers: Vec<Field> = Vec::new();
    for (index, node) in control.list("barriers", findings).iter().enumerate() {
        let mut barrier = Reader::new(node, format!("{path}[{index}]"), findings);
        barrier.known(&["name"]);
        if let Some(identifier) = barrier.required("identifier", findings) {
            if barriers.iter().any(|other| other.text() == identifier.text()) {
                let message = format!("the barrier `{}` is declared twice", identifier.text());
                findings.fault(&identifier.at, &identifier.path, message);
            }
            barriers.push(identifier);
        }
        barrier.finish(findings);
    }
    control.finish(findings);
    barriers
}

fn read_stages(list: &[Node], path: &str, findings: &mut Findings) -> Vec<StageNode> {
    let mut stages = Vec::new();
    for (index, node) in list.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let mut reader = Reader::new(node, &at, findings);
        if let Some(inner) = reader.node("stage") {
            let path = reader.sub("stage");
            stages.extend(read_stage(inner, &path, findings).map(|stage| StageNode::Stage(Box::new(stage))));
        } else if reader.node("parallel").is_some() {
            let path = reader.sub("parallel");
            let members = reader.list("parallel", findings);
            stages.push(StageNode::Parallel(read_stages(members, &path, findings)));
        } else {
            findings.fault(&node.at, &at, "expected `stage` or `parallel`");
        }
        reader.finish(findings);
    }
    stages
}

/// Why nothing can be made of a `template` key.
pub(super) const TEMPLATES: &str =
    "templates are resolved before a pipeline is stored; write out what it stands for";

/// Stage types of Harness that no version runs.
const OTHER_STAGES: [&str; 7] =
    ["CI", "Pipeline", "SecurityTests", "FeatureFlag", "IACM", "IDP", "Containerized"];

const STAGE_KINDS: [(&str, StageKind); 3] =
    [("Deployment", StageKind::Deployment), ("Custom", StageKind::Custom), ("Approval", StageKind::Approval)];

fn read_stage(node: &Node, path: &str, findings: &mut Findings) -> Option<Stage> {
    let mut reader = Reader::new(node, path, findings);
    reader.known(&["description"]);
    if reader.refused("template", TEMPLATES, findings) {
        return None;
    }
    let kind = reader.required("type", findings).and_then(|kind| {
        if OTHER_STAGES.contains(&kind.text().as_str()) {
            let message = format!(
                "stages of the type `{}` are not supported; supported are Deployment, Custom, Approval",
                kind.text()
            );
            findings.fault(&kind.at, &kind.path, message);
            return None;
        }
        one_of(&kind, "stage type", &STAGE_KINDS, findings)
    });
    let tags = reader.any("tags").map_or(Json::Null, |tags| tags.value);
    let variables = read_variables(&mut reader, findings);
    // An approval changes nothing that could be rolled back.
    let context =
        Context { rollback: false, stage_rollback: kind != Some(StageKind::Approval), in_group: false };
    let frame = read_frame(&mut reader, "stage", "pipelineStatus", context, findings);
    let mut spec = reader.required_map("spec", findings)?;
    let target = (kind == Some(StageKind::Deployment)).then(|| read_target(&mut spec, findings));
    spec.known(&["tags"]);
    spec.without_effect("skipInstances", "every host is deployed to", findings);
    let (mut steps, mut rollback) = (Vec::new(), Vec::new());
    match spec.map("execution", findings) {
        Some(mut execution) => {
            execution.refused("provisioner", "this version provisions nothing", findings);
            let path = execution.sub("steps");
            let list = execution.list("steps", findings);
            if list.is_empty() {
                findings.fault(execution.at(), &path, "`steps` lists nothing");
            }
            steps = read_steps(list, &path, context, findings);
            let path = execution.sub("rollbackSteps");
            let list = execution.list("rollbackSteps", findings);
            rollback = read_steps(list, &path, Context { rollback: true, ..context }, findings);
            execution.finish(findings);
        }
        None => findings.fault(spec.at(), &spec.sub("execution"), "`execution` is missing"),
    }
    spec.finish(findings);
    reader.finish(findings);
    let (frame, kind) = (frame?, kind?);
    let written = node.at_path(&["spec", "execution", "rollbackSteps"]).and_then(Node::as_list);
    let has_rollback = written.is_some_and(|list| !list.is_empty());
    if target.is_some() && !has_rollback {
        rollback = super::ecs::implicit_undo(&frame, &steps, findings);
    }
    let has_rollback = has_rollback || !rollback.is_empty();
    let strategies = match (&frame.strategies, kind) {
        (Some(own), _) => own.clone(),
        (None, StageKind::Deployment) => crate::rules::r16_default_strategy(&frame, has_rollback, findings),
        (None, _) => Strategies::new(),
    };
    Some(Stage { frame, kind, variables, tags, steps, rollback, target, strategies })
}

/// Identifiers must be unique: stages in the pipeline, steps and groups in their list (parallel members included).
fn unique_identifiers(pipeline: &Pipeline, findings: &mut Findings) {
    fn stages<'a>(nodes: &'a [StageNode], all: &mut Vec<&'a Stage>) {
        for node in nodes {
            match node {
                StageNode::Stage(stage) => all.push(stage),
                StageNode::Parallel(members) => stages(members, all),
            }
        }
    }
    fn frames<'a>(nodes: &'a [StepNode], all: &mut Vec<&'a Frame>) {
        for node in nodes {
            match node {
                StepNode::Step(step) => all.push(&step.frame),
                StepNode::Group(group) => all.push(&group.frame),
                StepNode::Parallel(members) => frames(members, all),
            }
        }
    }
    fn groups(nodes: &[StepNode], findings: &mut Findings) {
        for node in nodes {
            match node {
                StepNode::Step(_) => {}
                StepNode::Group(group) => {
                    lists(&group.steps, findings);
                    lists(&group.rollback, findings);
                }
                StepNode::Parallel(members) => groups(members, findings),
            }
        }
    }
    fn lists(nodes: &[StepNode], findings: &mut Findings) {
        let mut all = Vec::new();
        frames(nodes, &mut all);
        unique("step", &all, findings);
        groups(nodes, findings);
    }
    let mut all = Vec::new();
    stages(&pipeline.stages, &mut all);
    unique("stage", &all.iter().map(|stage| &stage.frame).collect::<Vec<_>>(), findings);
    for stage in all {
        lists(&stage.steps, findings);
        lists(&stage.rollback, findings);
    }
}

fn unique(what: &str, frames: &[&Frame], findings: &mut Findings) {
    let mut seen: std::collections::BTreeMap<&str, &Frame> = std::collections::BTreeMap::new();
    for frame in frames {
        match seen.get(frame.identifier.as_str()) {
            Some(first) => {
                let message = format!(
                    "the {what} identifier `{}` was used before, in line {}",
                    frame.identifier, first.at.line
                );
                findings.fault(&frame.at, &frame.path, message);
            }
            None => {
                seen.insert(&frame.identifier, frame);
            }
        }
    }
}
