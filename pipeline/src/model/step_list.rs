//! Reading lists of steps, groups and parallel blocks.

use super::failure::{StrategyScope, read_strategies};
use super::looping::read_looping;
use super::pipeline::TEMPLATES;
use super::read::{Field, Reader, one_of};
use super::step::{Frame, Group, STEP_TYPES, Spec, Step, StepNode, Verify, When, WhenStatus};
use crate::fault::{Fault, Findings, did_you_mean};
use crate::rules;
use crate::yaml::Node;

/// Step types of Harness that come in later versions: refused by name, and told apart from slips of the pen.
const LATER: [&str; 3] = ["JiraApproval", "ServiceNowApproval", "CustomApproval"];

/// Where a `steps` list stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// Inside rollback steps.
    pub rollback: bool,
    /// The stage can roll back.
    pub stage_rollback: bool,
    /// Inside a group.
    pub in_group: bool,
}

impl Context {
    fn scope(self) -> StrategyScope {
        StrategyScope {
            stage_rollback: self.stage_rollback && !self.rollback,
            in_group: self.in_group,
            in_rollback: self.rollback,
        }
    }
}

/// Reads a `steps` or `rollbackSteps` list.
pub(super) fn read_steps(
    list: &[Node],
    path: &str,
    context: Context,
    findings: &mut Findings,
) -> Vec<StepNode> {
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
            let template = reader.refused("template", TEMPLATES, findings);
            if !template && !reader.refused("insert", TEMPLATES, findings) {
                findings.fault(&node.at, &at, "expected `step`, `stepGroup` or `parallel`");
            }
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
    if reader.refused("template", TEMPLATES, findings) {
        return None;
    }
    let inner = Context { in_group: true, ..context };
    let frame = read_frame(&mut reader, "step group", "stageStatus", inner, findings);
    reader.known(&["description", "tags"]);
    let variables = super::read_variables(&mut reader, findings);
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
    Some(Group { frame: frame?, variables, steps, rollback })
}

/// Reads what stages, groups and steps share.
pub(super) fn read_frame(
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

fn read_step(
    node: &Node,
    path: &str,
    context: Context,
    earlier: &mut Vec<Verify>,
    findings: &mut Findings,
) -> Option<Step> {
    let mut reader = Reader::new(node, path, findings);
    reader.known(&["description", "tags"]);
    if reader.refused("template", TEMPLATES, findings) {
        return None;
    }
    let frame = read_frame(&mut reader, "step", "stageStatus", context, findings);
    if let Some(node) = reader.node("enforce") {
        // A gate must not fall out of a pipeline unnoticed.
        let message = "policy sets on single steps are not supported; put a Policy step before this one";
        findings.fault(&node.at, &reader.sub("enforce"), message);
    }
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
    let types = || STEP_TYPES.into_iter().chain(super::step_k8s::TYPES).chain(super::ecs::TYPES);
    let known_name = types().find(|name| name.eq_ignore_ascii_case(&kind.text()));
    let Some(name) = known_name else {
        reader.finish(findings);
        let text = kind.text();
        let supported = types().collect::<Vec<_>>().join(", ");
        let message = if LATER.contains(&text.as_str()) {
            format!(
                "step type `{text}` is not supported by this version; supported step types are {supported}"
            )
        } else {
            format!("`{text}` is not a known step type; supported step types are {supported}")
        };
        // Whoever wrote a known name meant it.
        let is_known = LATER.contains(&text.as_str());
        let near = did_you_mean(&text, types().chain(LATER)).filter(|_| !is_known);
        findings.push(Fault::at(&kind.at, &kind.path, message).suggest(near));
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
        "ShellScript" => super::step_shell::read_shell_script(&mut spec, findings),
        "Http" => super::step_http::read_http(&mut spec, &mut frame, findings),
        "Verify" => rules::r10_r11_verify(&mut spec, &mut reader, earlier, findings),
        "Policy" => super::step_policy::read_policy(&mut spec, findings),
        "HarnessApproval" => super::step_approval::read_approval(&mut spec, findings)
            .map(|approval| Spec::Approval(Box::new(approval))),
        k8s if super::step_k8s::TYPES.contains(&k8s) => super::step_k8s::read_k8s(k8s, &mut spec, findings),
        ecs if super::ecs::TYPES.contains(&ecs) => super::ecs::read_ecs(ecs, &mut spec, &frame, findings),
        "Wait" => spec.required("duration", findings).map(|duration| Spec::Wait { duration }),
        "Barrier" => spec.required("barrierRef", findings).map(|barrier| Spec::Barrier { barrier }),
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
