//! A tree becomes the request that it stands for: every value in the type of its member, nothing lost.

use super::members::{self, Member, Type};
use super::tree::{Content, Node, Style, is_null, resolve};
use serde_json::{Map, Number, Value};

/// Something that is not as AWS takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) path: String,
    pub(super) problem: String,
    /// The member is not in the table. AWS may have learnt it since, so it is sent as it stands.
    pub(super) unknown: bool,
}

/// How a request is converted.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// Members of AWS' own begin with a capital letter; the small one of Harness' manifests is taken too.
    pub(super) capitals: bool,
    /// Objects below the first level must hold what AWS requires of them.
    pub(super) required: bool,
}

/// The request of the object `object`, with everything that is wrong with it. Members without a value are left out, so
/// that they stay distinct from empty lists.
pub(super) fn convert(object: &'static str, node: Node, rules: Rules) -> (Value, Vec<Fault>) {
    let mut reader = Reader { rules, faults: Vec::new() };
    let value = reader.object(object, node, String::new());
    (value.unwrap_or_else(|| Value::Object(Map::new())), reader.faults)
}

struct Reader {
    rules: Rules,
    faults: Vec<Fault>,
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What a node is, for messages. Values that hold a placeholder of a secret are not shown.
fn shown(content: &Content) -> String {
    let text = match content {
        Content::List(_) => return "a list".to_owned(),
        Content::Map(_) => return "a map".to_owned(),
        Content::Scalar { text, .. } => text.clone(),
        Content::Value(Value::String(text)) => text.clone(),
        Content::Value(value) => value.to_string(),
    };
    if text.contains(expr::PLACEHOLDER_HEAD) {
        return "a secret".to_owned();
    }
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { format!("`{short}…`") } else { format!("`{short}`") }
}

fn nothing(content: &Content) -> bool {
    match content {
        Content::Scalar { text, style: Style::Plain } => is_null(text),
        Content::Value(value) => value.is_null(),
        _ => false,
    }
}

impl Reader {
    fn fault(&mut self, line: usize, path: String, problem: String) {
        self.faults.push(Fault { line, path, problem, unknown: false });
    }

    fn object(&mut self, object: &'static str, node: Node, path: String) -> Option<Value> {
        let line = node.line;
        let Content::Map(entries) = node.content else {
            let problem = format!("is {}; expected a map", shown(&node.content));
            self.fault(line, path, problem);
            return None;
        };
        let known = members::of(object);
        let mut out = Map::new();
        for (key, node) in entries {
            let line = if node.line == 0 { line } else { node.line };
            let Some(member) = self.member(known, &key) else {
                self.unknown(known, &key, &path, line);
                if !nothing(&node.content) {
                    out.insert(key, untyped(node));
                }
                continue;
            };
            let at = join(&path, member.name);
            if nothing(&node.content) {
                continue;
            }
            if out.contains_key(member.name) {
                self.fault(line, at, "is written twice".to_owned());
                continue;
            }
            if let Some(value) = self.value(&member.kind, node, at) {
                out.insert(member.name.to_owned(), value);
            }
        }
        if self.rules.required && !path.is_empty() {
            for member in known.iter().filter(|member| member.required && !out.contains_key(member.name)) {
                let missing = self.faults.iter().any(|fault| fault.path == join(&path, member.name));
                if !missing {
                    self.fault(line, join(&path, member.name), "is missing; AWS requires it".to_owned());
                }
            }
        }
        Some(Value::Object(out))
    }

    fn member(&self, known: &'static [Member], key: &str) -> Option<&'static Member> {
        let exact = known.iter().find(|member| member.name == key);
        exact.or_else(|| {
            let mut letters = key.chars();
            let first = letters.next().filter(|_| self.rules.capitals)?;
            let capital: String = first.to_uppercase().chain(letters).collect();
            known.iter().find(|member| member.name == capital)
        })
    }

    fn unknown(&mut self, known: &'static [Member], key: &str, path: &str, line: usize) {
        let near = sources::nearest(key, known.iter().map(|member| member.name), 1);
        let hint = match near.first() {
            Some(name) => format!("; did you mean `{name}`?"),
            None => String::new(),
        };
        let problem = format!("is no member that this version knows{hint}");
        self.faults.push(Fault { line, path: join(path, key), problem, unknown: true });
    }

    fn value(&mut self, kind: &Type, node: Node, path: String) -> Option<Value> {
        let line = node.line;
        match kind {
            Type::Object(object) => self.object(object, node, path),
            Type::Any => Some(untyped(node)),
            Type::List(item) => {
                let Content::List(items) = node.content else {
                    let problem = format!("is {}; expected a list", shown(&node.content));
                    self.fault(line, path, problem);
                    return None;
                };
                let mut out = Vec::with_capacity(items.len());
                for (index, node) in items.into_iter().enumerate() {
                    let at = format!("{path}[{index}]");
                    if nothing(&node.content) {
                        self.fault(node.line, at, "is empty; expected a value".to_owned());
                    } else {
                        out.extend(self.value(item, node, at));
                    }
                }
                Some(Value::Array(out))
            }
            Type::Table(item) => {
                let Content::Map(entries) = node.content else {
                    let problem = format!("is {}; expected a map", shown(&node.content));
                    self.fault(line, path, problem);
                    return None;
                };
                let mut out = Map::new();
                for (key, node) in entries {
                    if nothing(&node.content) {
                        continue;
                    }
                    let at = format!("{path}[{key}]");
                    if let Some(value) = self.value(item, node, at) {
                        out.insert(key, value);
                    }
                }
                Some(Value::Object(out))
            }
            Type::Text | Type::Whole | Type::Number | Type::Flag => match scalar(kind, &node.content) {
                Some(value) => Some(value),
                None => {
                    let wanted = match kind {
                        Type::Text => "a text",
                        Type::Whole => "a whole number",
                        Type::Number => "a number",
                        _ => "true or false",
                    };
                    let problem = format!("is {}; expected {wanted}", shown(&node.content));
                    self.fault(line, path, problem);
                    None
                }
            },
        }
    }
}

/// A scalar as its member takes it. A text keeps the digits as they were written: `1.10` is a version, not 1.1.
fn scalar(kind: &Type, content: &Content) -> Option<Value> {
    let text = match content {
        Content::Scalar { text, .. } | Content::Value(Value::String(text)) => text.as_str(),
        Content::Value(value @ (Value::Number(_) | Value::Bool(_))) => {
            return match (kind, value) {
                (Type::Text, value) => Some(Value::from(value.to_string())),
                (Type::Flag, Value::Bool(_)) | (Type::Number, Value::Number(_)) => Some(value.clone()),
                (Type::Whole, Value::Number(number)) => whole(&number.to_string()),
                _ => None,
            };
        }
        _ => return None,
    };
    match kind {
        Type::Text => Some(Value::from(text)),
        Type::Whole => whole(text.trim()),
        Type::Number => {
            let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite())?;
            whole(text.trim()).or_else(|| Number::from_f64(number).map(Value::Number))
        }
        Type::Flag => match text.trim().to_ascii_lowercase().as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        _ => None,
    }
}

/// `3`, `+3`, and `3.0`, which is what a number with a fraction looks like that came through an expression.
fn whole(text: &str) -> Option<Value> {
    let digits = text.strip_suffix(".0").unwrap_or(text);
    digits.parse::<i64>().ok().map(Value::from)
}

/// A value of a member that is not in the table.
fn untyped(node: Node) -> Value {
    match node.content {
        Content::Scalar { text, style: Style::Plain } => resolve(&text),
        Content::Scalar { text, .. } => Value::from(text),
        Content::Value(value) => value,
        Content::List(items) => items.into_iter().map(untyped).collect(),
        Content::Map(entries) => {
            Value::Object(entries.into_iter().map(|(key, node)| (key, untyped(node))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const PLAIN: Rules = Rules { capitals: false, required: true };

    fn read(object: &'static str, text: &str) -> (Value, Vec<String>) {
        let (documents, _) = super::super::tree::parse(text).unwrap();
        let rules = Rules { capitals: object.starts_with("Scaling."), ..PLAIN };
        let (value, faults) = convert(object, documents.into_iter().next().unwrap(), rules);
        let faults =
            faults.into_iter().map(|fault| format!("{} {} {}", fault.line, fault.path, fault.problem));
        (value, faults.collect())
    }

    #[test]
    fn values_come_into_the_type_of_their_member() {
        let text = "family: 7\ncpu: 256\nmemory: '512'\nvolumes:\ntags: []\nenableFaultInjection: \"true\"\ncontainerDefinitions:\n- name: web\n  cpu: '128'\n  essential: True\n  environment:\n  - {name: VERSION, value: 1.10}\n  - {name: ON, value: yes}\n  - {name: EMPTY, value: ''}\n  dockerLabels: {a: 1, b: true}\n";
        let (value, faults) = read("TaskDefinition", text);
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(
            value,
            json!({"family": "7", "cpu": "256", "memory": "512", "tags": [], "enableFaultInjection": true,
                "containerDefinitions": [{"name": "web", "cpu": 128, "essential": true,
                    "environment": [{"name": "VERSION", "value": "1.10"}, {"name": "ON", "value": "yes"},
                        {"name": "EMPTY", "value": ""}],
                    "dockerLabels": {"a": "1", "b": "true"}}]})
        );
    }

    #[test]
    fn faults_name_path_value_and_expectation() {
        let text = "desiredCount: three\nloadBalancers: {}\nenableExecuteCommand: yes\ndeploymentConfiguration:\n  maximumPercent: 200.5\n  deploymentCircuitBreaker: {enable: true}\n";
        let (value, faults) = read("Service", text);
        assert_eq!(
            faults,
            [
                "1 desiredCount is `three`; expected a whole number",
                "2 loadBalancers is a map; expected a list",
                "3 enableExecuteCommand is `yes`; expected true or false",
                "5 deploymentConfiguration.maximumPercent is `200.5`; expected a whole number",
                "6 deploymentConfiguration.deploymentCircuitBreaker.rollback is missing; AWS requires it",
            ]
        );
        assert_eq!(value["deploymentConfiguration"]["deploymentCircuitBreaker"], json!({"enable": true}));
    }

    #[test]
    fn unknown_members_are_kept_and_the_nearest_is_named() {
        let text = "serviceName: a\ndesierdCount: 3\nfuture: {x: [1, 'y', null]}\nnetworkConfiguration:\n  awsVpcConfiguration: {}\n";
        let (value, faults) = read("Service", text);
        assert_eq!(
            faults,
            [
                "2 desierdCount is no member that this version knows; did you mean `desiredCount`?",
                "3 future is no member that this version knows",
                "5 networkConfiguration.awsVpcConfiguration is no member that this version knows; did you mean `awsvpcConfiguration`?",
            ]
        );
        assert_eq!(value["future"], json!({"x": [1, "y", null]}));
    }

    #[test]
    fn scaling_documents_take_both_spellings() {
        let text = "policyName: cpu\nPolicyType: TargetTrackingScaling\ntargetTrackingScalingPolicyConfiguration:\n  targetValue: 60\n  predefinedMetricSpecification: {predefinedMetricType: ECSServiceAverageCPUUtilization}\n";
        let (value, faults) = read("Scaling.Policy", text);
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(
            value,
            json!({"PolicyName": "cpu", "PolicyType": "TargetTrackingScaling",
                "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 60,
                    "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilization"}}})
        );
        assert_eq!(read("Scaling.Target", "roleARN: a\nRoleARN: b\n").1, ["2 RoleARN is written twice"]);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z]{1,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    proptest! {
        /// What the table does not know goes through as it stands, in JSON and in a document.
        #[test]
        fn unknown_members_lose_nothing(value in json_value()) {
            let document = json!({"zzzzzzzzzzzzzzzzzzz": value});
            let (converted, _) = convert("Service", Node::from(document.clone()), PLAIN);
            prop_assert_eq!(&converted, &document);
            let (converted, _) = read("Service", &document.to_string());
            prop_assert_eq!(&converted, &document);
        }
    }
}
