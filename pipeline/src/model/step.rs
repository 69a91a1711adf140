//! Steps, groups and parallel blocks.

use super::failure::{Strategies, StrategyScope, read_strategies};
use super::read::{Field, Reader, one_of};
use crate::fault::{Fault, Findings, Place, did_you_mean};
use crate::rules;
use crate::yaml::Node;
use proto::task::{CopySource, OutputVariable, Shell};
use serde::{Deserialize, Serialize};

/// Step types that a pipeline may use.
pub const STEP_TYPES: [&str; 6] = ["Command", "ArtifactoryDownload", "Http", "Verify", "Wait", "Noop"];

/// Step types of Harness that come in later versions: refused by name, and told apart from slips of the pen.
const LATER: [&str; 24] = [
    "ShellScript",
    "HarnessApproval",
    "Policy",
    "Barrier",
    "K8sApply",
    "K8sRollingDeploy",
    "K8sRollingRollback",
    "K8sCanaryDeploy",
    "K8sCanaryDelete",
    "K8sBlueGreenDeploy",
    "K8sBGSwapServices",
    "K8sScale",
    "K8sDelete",
    "EcsRunTask",
    "EcsRollingDeploy",
    "EcsRollingRollback",
    "EcsCanaryDeploy",
    "EcsCanaryDelete",
    "EcsBlueGreenCreateService",
    "EcsBlueGreenSwapTargetGroups",
    "EcsBlueGreenRollback",
    "JiraApproval",
    "ServiceNowApproval",
    "CustomApproval",
];

/// A member of a `steps` list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StepNode {
    /// One step.
    Step(Box<Step>),
    /// A group.
    Group(Box<Group>),
    /// Members that start together.
    Parallel(Vec<StepNode>),
}

/// What steps, groups and stages have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frame {
    /// Identifier.
    pub identifier: String,
    /// Name; may hold expressions.
    pub name: Field,
    /// Path in the document.
    pub path: String,
    /// Place in the document.
    pub at: Place,
    /// Condition.
    pub when: Option<When>,
    /// Own level of failure strategies. `None`: none written.
    pub strategies: Option<Strategies>,
    /// Loop.
    pub looping: Option<Looping>,
    /// `delegateSelectors` of this level.
    pub selectors: Option<Field>,
    /// Timeout.
    pub timeout: Option<Field>,
}

/// A group of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Common part.
    pub frame: Frame,
    /// Members.
    pub steps: Vec<StepNode>,
    /// Run by StepGroupRollback.
    pub rollback: Vec<StepNode>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Common part.
    pub frame: Frame,
    /// Type as written.
    pub kind: String,
    /// What to do.
    pub spec: Spec,
}

/// What a step does, with its expressions as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Spec {
    /// Command units.
    Command {
        /// On the agent instead of a host.
        on_delegate: bool,
        /// Explicit host.
        host: Option<Field>,
        /// Units.
        units: Vec<Unit>,
        /// Exported before scripts.
        env: Vec<(String, Field)>,
        /// Read back after scripts.
        outputs: Vec<OutputVariable>,
    },
    /// One request.
    Http {
        /// URL.
        url: Field,
        /// Method.
        method: Field,
        /// Headers.
        headers: Vec<(Field, Field)>,
        /// Body.
        body: Option<Field>,
        /// Condition over the answer.
        assertion: Option<Field>,
        /// Expressions over the answer.
        outputs: Vec<OutputVariable>,
        /// Limit of the request.
        request_timeout: Option<Field>,
    },
    /// Analysis of a metric.
    Verify(Box<Verify>),
    /// Waits in the manager.
    Wait {
        /// How long.
        duration: Field,
    },
    /// Answers at once: it proves that dispatch works.
    Noop {
        /// Log line.
        line: Field,
    },
}

/// The inline Verify form (rule R10).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// `Prometheus`, or `None`: nothing to ask, the step is skipped with a notice.
    pub provider: Option<String>,
    /// Where to ask.
    pub connector: Option<Field>,
    /// Label and direction.
    pub metric_name: Option<Field>,
    /// What to ask.
    pub query: Option<Field>,
    /// `Absolute` or `Percentage`, and the limit.
    pub threshold: Option<(ThresholdKind, Field)>,
    /// Explicit direction.
    pub comparison: Option<Field>,
    /// Length of the window.
    pub duration: Option<Field>,
    /// No data fails.
    pub fail_on_no_analysis: bool,
    /// `baseline`, `canary`, `deploymentTag`.
    pub labels: Vec<(String, Field)>,
}

/// Kinds of thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "The names are the seed's own.")]
pub enum ThresholdKind {
    Absolute,
    Percentage,
}

/// One command unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// What it does.
    pub kind: UnitKind,
}

/// What a unit does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum UnitKind {
    /// Runs a script.
    Script {
        /// Interpreter.
        shell: Shell,
        /// Text.
        script: Field,
        /// Start directory.
        working_directory: Option<Field>,
    },
    /// Copies the artifact or the config files.
    Copy {
        /// Which.
        source_type: CopySource,
        /// Where to.
        destination: Field,
    },
    /// Downloads a file to the host.
    Download {
        /// Where to.
        destination: Field,
        /// From where; `None`: the primary artifact.
        source: Option<DownloadFrom>,
    },
}

/// An explicit download source (rule R8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownloadFrom {
    /// Artifactory connector.
    pub connector: Field,
    /// Repository.
    pub repository: Field,
    /// Path in it.
    pub path: Field,
}

/// When a node runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct When {
    /// Which status of the enclosing scope is needed.
    pub status: WhenStatus,
    /// Further condition.
    pub condition: Option<Field>,
}

/// Status part of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "The names are Harness' own.")]
pub enum WhenStatus {
    Success,
    Failure,
    All,
}

/// A loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Looping {
    /// `repeat`.
    Repeat {
        /// Items.
        items: Option<Field>,
        /// Number of iterations.
        times: Option<Field>,
        /// At most so many at once; `None`: all.
        max_concurrency: Option<Field>,
    },
    /// `parallelism: n`.
    Parallelism {
        /// Number of copies.
        count: Field,
        /// At most so many at once; `None`: all.
        max_concurrency: Option<Field>,
    },
}

/// Where a `steps` list stands.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Inside rollback steps.
    pub rollback: bool,
    /// The stage can roll back.
    pub stage_rollback: bool,
    /// Inside a group.
    pub in_group: bool,
}

impl Context {
    fn scope(self) -> StrategyScope {
        StrategyScope { stage_rollback: self.stage_rollback && !self.rollback, in_group: self.in_group }
    }
}

/// Reads a `steps` or `rollbackSteps` list.
pub fn read_steps(list: &[Node], path: &str, context: Context, findings: &mut Findings) -> Vec<StepNode> {
    let mut earlier = Vec::new();
    read_list(list, path, context, &mut earlier, findings)
}

fn read_list(
    list: &[Node],
    path: &str,
    context: Context,
    earlier: &mut Vec<Verify>,
    findings: &mut Findings,
) -> Vec<StepNode> {
    let mut nodes = Vec::new();
    for (index, node) in list.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let mut reader = Reader::new(node, &at, findings);
        if let Some(inner) = reader.node("step") {
            let path = reader.sub("step");
            nodes.extend(
                read_step(inner, &path, context, earlier, findings).map(|s| StepNode::Step(Box::new(s))),
            );
        } else if let Some(inner) = reader.node("stepGroup") {
            let path = reader.sub("stepGroup");
            nodes.extend(
                read_group(inner, &path, context, earlier, findings).map(|g| StepNode::Group(Box::new(g))),
            );
        } else if reader.node("parallel").is_some() {
            let path = reader.sub("parallel");
            let members = reader.list("parallel", findings);
            nodes.push(StepNode::Parallel(read_list(members, &path, context, earlier, findings)));
        } else {
            reader.known(&["template", "insert"]);
            findings.fault(&node.at, &at, "expected `step`, `stepGroup` or `parallel`");
        }
        reader.finish(findings);
    }
    nodes
}

fn read_group(
    node: &Node,
    path: &str,
    context: Context,
    earlier: &mut Vec<Verify>,
    findings: &mut Findings,
) -> Option<Group> {
    let mut reader = Reader::new(node, path, findings);
    let inner = Context { in_group: true, ..context };
    let frame = read_frame(&mut reader, "step group", "stageStatus", inner, findings);
    reader.known(&["description", "variables", "tags"]);
    for key in ["stepGroupInfra", "sharedPaths"] {
        if node.get(key).is_some() {
            findings.fault(&node.at, &reader.sub(key), "container step groups are not supported");
        }
    }
    reader.known(&["stepGroupInfra", "sharedPaths"]);
    let steps_path = reader.sub("steps");
    let steps = read_list(reader.list("steps", findings), &steps_path, inner, earlier, findings);
    let rollback_path = reader.sub("rollbackSteps");
    let rollback_context = Context { rollback: true, ..inner };
    let rollback = read_list(
        reader.list("rollbackSteps", findings),
        &rollback_path,
        rollback_context,
        earlier,
        findings,
    );
    reader.finish(findings);
    Some(Group { frame: frame?, steps, rollback })
}

/// Reads what stages, groups and steps share.
pub fn read_frame(
    reader: &mut Reader<'_>,
    what: &str,
    status_key: &'static str,
    context: Context,
    findings: &mut Findings,
) -> Option<Frame> {
    let identity = super::identity(reader, what, findings);
    let when = read_when(reader, status_key, findings);
    let strategies_path = reader.sub("failureStrategies");
    // `<+input>` stands for "none": strategies hold literal values only.
    let strategies = match reader.node("failureStrategies") {
        Some(node) if node.as_str().is_some() => None,
        Some(_) => {
            let list = reader.list("failureStrategies", findings);
            Some(read_strategies(list, &strategies_path, context.scope(), findings))
        }
        None => None,
    };
    let looping = read_looping(reader, findings);
    let selectors = reader.any("delegateSelectors");
    let timeout = reader.field("timeout", findings);
    let (identifier, name) = identity?;
    Some(Frame {
        identifier,
        name,
        path: reader.path().to_owned(),
        at: reader.at().clone(),
        when,
        strategies,
        looping,
        selectors,
        timeout,
    })
}

fn read_when(reader: &mut Reader<'_>, status_key: &'static str, findings: &mut Findings) -> Option<When> {
    let mut when = reader.map("when", findings)?;
    let status = match when.required(status_key, findings) {
        Some(field) => one_of(
            &field,
            status_key,
            &[("Success", WhenStatus::Success), ("Failure", WhenStatus::Failure), ("All", WhenStatus::All)],
            findings,
        ),
        None => None,
    };
    let condition = when.field("condition", findings);
    when.finish(findings);
    Some(When { status: status?, condition })
}

fn read_looping(reader: &mut Reader<'_>, findings: &mut Findings) -> Option<Looping> {
    let mut strategy = reader.map("strategy", findings)?;
    if let Some(matrix) = strategy.node("matrix") {
        let path = strategy.sub("matrix");
        findings.fault(
            &matrix.at,
            &path,
            "`matrix` is not supported yet; supported are `repeat` and `parallelism`",
        );
        return None;
    }
    let shared_limit = strategy.any("maxConcurrency");
    let looping = if let Some(mut repeat) = strategy.map("repeat", findings) {
        let items = repeat.any("items");
        let times = repeat.any("times");
        let max_concurrency = repeat.any("maxConcurrency").or(shared_limit);
        for key in ["partitionSize", "start", "end", "unit", "onFailure", "nodeName"] {
            if let Some(node) = repeat.node(key) {
                let message = format!("`{key}` is not supported yet");
                findings.fault(&node.at, &repeat.sub(key), message);
            }
        }
        if items.is_some() == times.is_some() {
            findings.fault(repeat.at(), repeat.path(), "`repeat` needs either `items` or `times`");
        }
        repeat.finish(findings);
        Some(Looping::Repeat { items, times, max_concurrency })
    } else if let Some(count) = strategy.any("parallelism") {
        Some(Looping::Parallelism { count, max_concurrency: shared_limit })
    } else {
        findings.fault(strategy.at(), strategy.path(), "expected `repeat` or `parallelism`");
        None
    };
    strategy.finish(findings);
    looping
}

fn read_step(
    node: &Node,
    path: &str,
    context: Context,
    earlier: &mut Vec<Verify>,
    findings: &mut Findings,
) -> Option<Step> {
    let mut reader = Reader::new(node, path, findings);
    reader.known(&["description", "tags"]);
    let frame = read_frame(&mut reader, "step", "stageStatus", context, findings);
    let kind = reader.required("type", findings);
    let empty = Node::empty_map(reader.at());
    let spec_path = reader.sub("spec");
    let spec_node = match reader.node("spec") {
        Some(node) => node,
        None => {
            rules::r17_null_spec(reader.at(), &spec_path, kind.as_ref(), findings);
            &empty
        }
    };
    let (mut frame, kind) = (frame?, kind?);
    let known_name = STEP_TYPES.iter().find(|name| name.eq_ignore_ascii_case(&kind.text())).copied();
    let Some(name) = known_name else {
        reader.finish(findings);
        let text = kind.text();
        let supported = STEP_TYPES.join(", ");
        let message = if LATER.contains(&text.as_str()) {
            format!(
                "step type `{text}` is not supported by this version; supported step types are {supported}"
            )
        } else {
            format!("`{text}` is not a known step type; supported step types are {supported}")
        };
        let fault = Fault::at(&kind.at, &kind.path, message);
        findings.push(fault.suggest(did_you_mean(&text, STEP_TYPES.into_iter().chain(LATER))));
        return None;
    };
    let mut spec = Reader::new(spec_node, spec_path, findings);
    if frame.selectors.is_none() {
        frame.selectors = spec.any("delegateSelectors");
    } else {
        spec.known(&["delegateSelectors"]);
    }
    let read = match name {
        "Command" => super::step_command::read_command(&mut spec, findings),
        "ArtifactoryDownload" => rules::r8_artifactory_download(&mut spec, &frame, findings),
        "Http" => super::step_http::read_http(&mut spec, &mut frame, findings),
        "Verify" => rules::r10_r11_verify(&mut spec, &mut reader, earlier, findings),
        "Wait" => spec.required("duration", findings).map(|duration| Spec::Wait { duration }),
        _ => {
            let line =
                spec.field("line", findings).unwrap_or_else(|| Field::made("", spec.sub("line"), spec.at()));
            Some(Spec::Noop { line })
        }
    };
    spec.finish(findings);
    reader.finish(findings);
    Some(Step { frame, kind: name.to_owned(), spec: read? })
}
