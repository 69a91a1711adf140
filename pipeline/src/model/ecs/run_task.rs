//! EcsRunTask (rule R9, pipeline.md 1.6): which of its shapes a step has, told by what it writes and, where it writes
//! nothing, by its name.

use super::read::{flag, whole_number};
use super::service::read_document;
use super::{Document, RunTaskShape, TaskDefinition};
use crate::fault::Findings;
use crate::model::read::{Field, Reader, one_of};
use crate::model::step::Frame;
use crate::rules;
use crate::yaml::{Node, Value};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// What an EcsRunTask step may be.
const SHAPES: &str = "expected one of: `runTaskRequestDefinition` (runs a task); `taskDefinition: ARN` (describes it); `taskDefinition: ARN` with \
     `command` (runs the command on the agent); `taskDefinition: {containerDefinitions: …}` (registers it), with \
     `serviceName` (and runs it as a service: green); nothing and a name such as `Route 10% Traffic` (shifts traffic to \
     green); nothing and a name such as `Terminate Blue` (ends a service)";

/// The text of the fault.
pub(crate) fn unrecognised(why: &str) -> String {
    format!("EcsRunTask: unrecognised shape: {why}; {SHAPES}")
}

/// Keys of a shift; a spec that holds nothing else is as good as empty.
const SHIFT_KEYS: [&str; 5] =
    ["listenerRuleArn", "listenerArn", "blueTargetGroupArn", "greenTargetGroupArn", "weight"];

/// What stands in every shape.
const PLACE_KEYS: [&str; 4] = ["connectorRef", "region", "cluster", "delegateSelectors"];

static PERCENT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?i)(\d+)\s*(?:%|_?percent)").ok());

/// Name and identifier of a step that writes nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunTaskWords {
    name: String,
    identifier: String,
}

impl RunTaskWords {
    fn texts(&self) -> [&str; 2] {
        [&self.name, &self.identifier]
    }

    fn says(&self, words: &[&str]) -> bool {
        self.texts().iter().any(|text| {
            let text = text.to_ascii_lowercase();
            words.iter().any(|word| text.contains(word))
        })
    }

    /// Every percentage that is named, once.
    fn percentages(&self) -> Vec<u32> {
        let mut all: Vec<u32> = Vec::new();
        let Some(pattern) = PERCENT.as_ref() else { return all };
        for text in self.texts() {
            let found = pattern.captures_iter(text).filter_map(|hit| hit.get(1)?.as_str().parse().ok());
            all.extend(found.collect::<Vec<u32>>());
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Colours that stand as words of their own: `bluebird` is none.
    fn colours(&self) -> Vec<&'static str> {
        let words: Vec<String> = self.texts().into_iter().flat_map(words).collect();
        ["blue", "green"].into_iter().filter(|colour| words.iter().any(|word| word == colour)).collect()
    }

    /// The longest of these names that the step is called by.
    pub(crate) fn named<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
        let texts = self.texts().map(|text| rules::canonical(text).to_ascii_lowercase());
        let fits = |name: &&str| {
            let name = rules::canonical(name).to_ascii_lowercase();
            !name.is_empty() && texts.iter().any(|text| text.contains(&name))
        };
        names.into_iter().filter(fits).max_by_key(|name| name.len())
    }
}

/// `Terminate_BlueService` → terminate, blue, service.
fn words(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut lower = false;
    for c in text.chars() {
        let begins = !c.is_alphanumeric() || lower && c.is_uppercase();
        if begins && !word.is_empty() {
            all.push(std::mem::take(&mut word));
        }
        lower = c.is_lowercase();
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
    }
    if !word.is_empty() {
        all.push(word);
    }
    all
}

/// The first shape that fits.
pub(super) fn read_run_task(
    spec: &mut Reader<'_>,
    frame: &Frame,
    findings: &mut Findings,
) -> Option<RunTaskShape> {
    let (at, path) = (spec.at().clone(), spec.path().to_owned());
    if spec.node("runTaskRequestDefinition").is_some() {
        return read_run(spec, findings);
    }
    let definition = spec.node("taskDefinition");
    let command = spec.field("command", findings);
    let shape = match (definition, command) {
        (Some(node), command) if node.as_str().is_some() => {
            let task_definition = Field::new(node, spec.sub("taskDefinition"));
            match command {
                Some(command) => {
                    rules::r9_shape(&at, &path, "runs its `command` in Bash on the agent", findings);
                    RunTaskShape::Command { task_definition, command }
                }
                None => {
                    rules::r9_shape(&at, &path, "looks at a task definition and runs nothing", findings);
                    RunTaskShape::Describe { task_definition }
                }
            }
        }
        (Some(_), Some(command)) => {
            let why = "`command` needs `taskDefinition` as an ARN or `family:revision`";
            findings.fault(&command.at, &command.path, unrecognised(why));
            return None;
        }
        (Some(node), None) if node.get("containerDefinitions").is_some() => read_parts(spec, node, findings)?,
        (Some(node), None) => {
            let why = match node.get("type") {
                Some(_) => "a `taskDefinition` from a store needs `runTaskRequestDefinition` beside it",
                None => "`taskDefinition` holds no `containerDefinitions`",
            };
            findings.fault(&node.at, &spec.sub("taskDefinition"), unrecognised(why));
            return None;
        }
        (None, Some(command)) => {
            findings.fault(&command.at, &command.path, unrecognised("`command` needs `taskDefinition`"));
            return None;
        }
        (None, None) => by_name(spec, frame, findings)?,
    };
    Some(shape)
}

/// Shape 1: Harness' own.
fn read_run(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<RunTaskShape> {
    let request = read_document(spec, "runTaskRequestDefinition", findings);
    let arn = spec.field("taskDefinitionArn", findings).filter(|arn| !arn.text().trim().is_empty());
    let written = match spec.node("taskDefinition") {
        // An ARN may stand where Harness has only a store.
        Some(node) if node.as_str().is_some() => {
            Some(TaskDefinition { arn: Some(Field::new(node, spec.sub("taskDefinition"))), document: None })
        }
        Some(_) => read_document(spec, "taskDefinition", findings)
            .map(|document| TaskDefinition { arn: None, document: Some(document) }),
        None => None,
    };
    if let (Some(arn), Some(_)) = (&arn, &written) {
        let message = "`taskDefinition` says it already; write one of them";
        findings.fault(&arn.at, &arn.path, message);
    }
    let task = written.or(arn.map(|arn| TaskDefinition { arn: Some(arn), document: None }));
    let overrides = spec.any("overrides");
    must_be_map(overrides.as_ref(), findings);
    let network_from_service = spec.field("networkFromService", findings);
    let wait_until_stopped = match spec.field("waitFor", findings) {
        Some(field) => {
            one_of(&field, "state to wait for", &[("Stopped", true), ("Running", false)], findings)?
        }
        None => true,
    };
    let skip_steady_state_check = flag(spec, "skipSteadyStateCheck", findings);
    let stop_on_abort = spec.flag("stopOnAbort", findings).unwrap_or(true);
    Some(RunTaskShape::Run {
        task,
        request: request?,
        wait_until_stopped,
        skip_steady_state_check,
        overrides,
        network_from_service,
        stop_on_abort,
    })
}

fn must_be_map(field: Option<&Field>, findings: &mut Findings) {
    if let Some(field) = field.filter(|field| !field.value.is_object() && !field.text().starts_with("<+")) {
        findings.fault(&field.at, &field.path, "expected a map");
    }
}

/// Shape 4: a task definition by parts.
fn read_parts(spec: &mut Reader<'_>, node: &Node, findings: &mut Findings) -> Option<RunTaskShape> {
    let document = Field::new(node, spec.sub("taskDefinition"));
    super::service::check_task_definition(&document, findings);
    let (at, path) = (spec.at().clone(), spec.path().to_owned());
    let Some(service) = spec.field("serviceName", findings) else {
        rules::r9_shape(&at, &path, "registers a task definition and runs nothing", findings);
        return Some(RunTaskShape::Register { document });
    };
    if service.text().trim().is_empty() {
        findings.fault(&service.at, &service.path, "`serviceName` is empty");
        return None;
    }
    rules::r9_shape(&at, &path, "registers a task definition and runs it as a service of its own", findings);
    let launch_type = spec.field("launchType", findings);
    if let Some(field) = launch_type.as_ref().filter(|field| !field.text().contains("<+")) {
        let known = ["FARGATE", "EC2", "EXTERNAL"].map(|name| (name, ()));
        one_of(field, "launch type", &known, findings);
    }
    let network_configuration = spec.any("networkConfiguration");
    must_be_map(network_configuration.as_ref(), findings);
    let desired_count = spec.field("desiredCount", findings);
    whole_number(desired_count.as_ref(), 0, u32::MAX, findings);
    let target_group_arn = spec.field("targetGroupArn", findings);
    let target_group_arn = spec.field("greenTargetGroupArn", findings).or(target_group_arn);
    Some(RunTaskShape::Green {
        document,
        service,
        launch_type,
        network_configuration,
        desired_count,
        target_group_arn,
    })
}

/// Shapes 5 and 6: the spec says nothing, or only where the traffic goes.
fn by_name(spec: &mut Reader<'_>, frame: &Frame, findings: &mut Findings) -> Option<RunTaskShape> {
    let (at, path) = (spec.at().clone(), spec.path().to_owned());
    let words = RunTaskWords { name: frame.name.text(), identifier: frame.identifier.clone() };
    if let Some(key) = foreign_key(spec) {
        let why = format!("`{key}` alone says nothing");
        findings.fault(&at, &path, unrecognised(&why));
        spec.known(&["taskDefinitionArn"]);
        return None;
    }
    let weight = spec.field("weight", findings);
    let mut arn = |key| spec.field(key, findings).filter(|field| !field.text().trim().is_empty());
    let (listener_rule_arn, listener_arn) = (arn("listenerRuleArn"), arn("listenerArn"));
    let (blue_target_group_arn, green_target_group_arn) =
        (arn("blueTargetGroupArn"), arn("greenTargetGroupArn"));
    let routes = [&listener_rule_arn, &listener_arn, &blue_target_group_arn, &green_target_group_arn];
    let has_routes = routes.iter().any(|field| field.is_some());
    let shifts = words.says(&["route", "traffic", "shift"]);
    let percentages = words.percentages();
    let ends = words.says(&["terminate", "delete", "drain"]);
    if weight.is_none() && ends && shifts && !percentages.is_empty() {
        let why =
            "its name says both to shift traffic and to end a service; write `weight`, or call it otherwise";
        findings.fault(&at, &path, unrecognised(why));
        return None;
    }
    if weight.is_some() || shifts && !percentages.is_empty() {
        let percent = match (weight, percentages.as_slice()) {
            (Some(weight), _) => weight,
            (None, [one]) => Field { value: (*one).into(), path: path.clone(), at: at.clone() },
            (None, several) => {
                let texts: Vec<String> = several.iter().map(|n| format!("{n} %")).collect();
                let message = format!("name and identifier say {}; write `weight`", texts.join(" and "));
                findings.fault(&at, &path, message);
                return None;
            }
        };
        whole_number(Some(&percent), 0, 100, findings);
        let what = format!("sends {} % of the traffic to green", percent.text());
        rules::r9_shape(&at, &path, &what, findings);
        return Some(RunTaskShape::Shift {
            percent,
            listener_rule_arn,
            listener_arn,
            blue_target_group_arn,
            green_target_group_arn,
        });
    }
    if !has_routes && ends {
        return match words.colours().as_slice() {
            [] => Some(RunTaskShape::TerminateNamed { words }),
            [which] => {
                let what = format!("drains and deletes the service that is {which}");
                rules::r9_shape(&at, &path, &what, findings);
                Some(RunTaskShape::Terminate { which: (*which).to_owned() })
            }
            _ => {
                findings.fault(&at, &path, unrecognised("its name says both blue and green"));
                None
            }
        };
    }
    let why = match has_routes || shifts {
        true => "neither `weight` nor the name says how much of the traffic",
        false => "the spec is empty, and the name says neither how much traffic to shift nor what to end",
    };
    findings.fault(&at, &path, unrecognised(why));
    None
}

/// A key that is written and belongs to no shape with an empty spec.
fn foreign_key(spec: &Reader<'_>) -> Option<String> {
    let keys = spec.keys();
    keys.into_iter().find(|key| !SHIFT_KEYS.contains(key) && !PLACE_KEYS.contains(key)).map(str::to_owned)
}

/// Whether a node is a store: `{type, spec}`.
pub(super) fn is_store(node: &Node) -> bool {
    let kind = node.get("type").and_then(Node::as_str);
    kind.is_some() && matches!(node.get("spec").map(|spec| &spec.value), Some(Value::Map(_)))
}

impl Document {
    /// Written in place.
    pub(super) fn of(node: &Node, path: String) -> Document {
        Document::Value(Field::new(node, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, identifier: &str) -> RunTaskWords {
        RunTaskWords { name: name.to_owned(), identifier: identifier.to_owned() }
    }

    #[test]
    fn percentages_are_read_from_names_as_people_write_them() {
        for (name, identifier, all) in [
            ("Route 10% Traffic", "Route_10_Percent", vec![10]),
            ("Shift 50 %", "s", vec![50]),
            ("x", "traffic_5percent", vec![5]),
            ("x", "traffic_100_PERCENT", vec![100]),
            ("Route 10%", "Route_20_Percent", vec![10, 20]),
            ("Route half", "route", vec![]),
        ] {
            assert_eq!(of(name, identifier).percentages(), all, "{name}");
        }
    }

    #[test]
    fn colours_are_words_and_names_are_the_longest() {
        assert_eq!(of("Terminate Blue", "Terminate_Blue").colours(), ["blue"]);
        assert_eq!(of("x", "terminateBlueService").colours(), ["blue"]);
        assert_eq!(of("Delete bluebird", "delete_bluebird").colours(), [""; 0]);
        assert_eq!(of("Drain blue, keep green", "d").colours(), ["blue", "green"]);
        let words = of("Delete my-app", "delete_my_app_old");
        assert_eq!(words.named(["my-app", "my-app-old", "other"]), Some("my-app-old"));
        assert_eq!(words.named(["other", ""]), None);
    }
}
