//! Answers in XML as documents. Leaves stay text, as they are on the wire; [`crate::document`] reads them either way.

use super::Refusal;
use super::query::is_map;
use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};
use serde_json::{Map, Value};

/// Deeper than any answer of a service that is called here.
const MAX_DEPTH: usize = 64;

/// Members that are lists. An empty element does not tell a list from text, so these are known by name (the models of
/// Elastic Load Balancing v2 and of CloudWatch's metrics and alarms; STS has none); a list with entries is known by its
/// `member` elements.
const LISTS: [&str; 50] = [
    "Actions",
    "AdditionalClaims",
    "AdditionalStatistics",
    "AlarmActions",
    "AlarmNames",
    "AlpnPolicy",
    "Attributes",
    "AvailabilityZones",
    "CapacityReservationState",
    "Certificates",
    "Ciphers",
    "CompositeAlarms",
    "Conditions",
    "Datapoints",
    "DefaultActions",
    "Dimensions",
    "InsufficientDataActions",
    "KeyLabels",
    "Limits",
    "Listeners",
    "LoadBalancerAddresses",
    "LoadBalancerArns",
    "LoadBalancers",
    "LogAlarms",
    "Messages",
    "MetricAlarms",
    "MetricDataQueries",
    "MetricDataResults",
    "Metrics",
    "OKActions",
    "OwningAccounts",
    "RegexValues",
    "Rewrites",
    "Rules",
    "SecurityGroupIds",
    "SecurityGroups",
    "SourceNatIpv6Prefixes",
    "SslPolicies",
    "SslProtocols",
    "SupportedLoadBalancerTypes",
    "TagDescriptions",
    "Tags",
    "TargetGroups",
    "TargetHealthDescriptions",
    "Timestamps",
    "Transforms",
    "TrustStoreAssociations",
    "TrustStoreRevocations",
    "TrustStores",
    "Values",
];

/// One element.
struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

/// The document inside an answer to `action`: the content of `ActionResult`, without the metadata around it.
pub(super) fn answer(action: &str, body: &[u8]) -> Result<Value, String> {
    let root = parse(body).map_err(|problem| format!("the answer to {action} is no XML: {problem}"))?;
    if root.name != format!("{action}Response") {
        return Err(format!("the answer to {action} is an element `{}`", root.name));
    }
    let wanted = format!("{action}Result");
    let result = root.children.into_iter().find(|child| child.name == wanted);
    Ok(match result.map(value) {
        Some(Value::Object(members)) => Value::Object(members),
        _ => Value::Object(Map::new()),
    })
}

/// Code and message of the first `Error` in a refusal.
pub(super) fn refusal(body: &[u8]) -> Refusal {
    let Ok(root) = parse(body) else { return Refusal::default() };
    let Some(error) = find(&root, "Error") else { return Refusal::default() };
    let text =
        |name: &str| error.children.iter().find(|child| child.name == name).map(|child| child.text.clone());
    Refusal { code: text("Code").unwrap_or_default(), message: text("Message").unwrap_or_default() }
}

fn find<'a>(element: &'a Element, name: &str) -> Option<&'a Element> {
    if element.name == name {
        return Some(element);
    }
    element.children.iter().find_map(|child| find(child, name))
}

fn value(element: Element) -> Value {
    let Element { name, text, children } = element;
    if children.is_empty() {
        let empty = text.trim().is_empty();
        return match name.as_str() {
            name if empty && LISTS.contains(&name) => Value::Array(Vec::new()),
            name if empty && is_map(name) => Value::Object(Map::new()),
            _ => Value::String(text),
        };
    }
    if children.iter().all(|child| child.name == "member") {
        return Value::Array(children.into_iter().map(value).collect());
    }
    if children.iter().all(|child| child.name == "entry") {
        return Value::Object(children.into_iter().filter_map(entry).collect());
    }
    let mut members = Map::new();
    for child in children {
        let name = child.name.clone();
        let one = value(child);
        match members.get_mut(&name) {
            None => {
                members.insert(name, one);
            }
            // A list without an element around it.
            Some(Value::Array(entries)) => entries.push(one),
            Some(first) => *first = Value::Array(vec![first.take(), one]),
        }
    }
    Value::Object(members)
}

fn entry(element: Element) -> Option<(String, Value)> {
    let (mut key, mut held) = (None, Value::String(String::new()));
    for child in element.children {
        match child.name.as_str() {
            "key" => key = Some(child.text),
            "value" => held = value(child),
            _ => {}
        }
    }
    Some((key?, held))
}

fn parse(body: &[u8]) -> Result<Element, String> {
    let text = std::str::from_utf8(body).map_err(|_| "not UTF-8".to_owned())?;
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(tag) => {
                if open.len() >= MAX_DEPTH {
                    return Err(format!("more than {MAX_DEPTH} elements inside each other"));
                }
                open.push(Element::new(tag.local_name().as_ref()));
            }
            Event::Empty(tag) => {
                let element = Element::new(tag.local_name().as_ref());
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => return Ok(element),
                }
            }
            Event::End(_) => {
                let Some(element) = open.pop() else {
                    return Err("an element ends that never began".to_owned());
                };
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => return Ok(element),
                }
            }
            Event::Text(text) => push(&mut open, &text.xml10_content().map_err(|error| error.to_string())?),
            Event::CData(text) => push(&mut open, &text.xml10_content().map_err(|error| error.to_string())?),
            Event::GeneralRef(reference) => push(&mut open, &resolve(&reference)?),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            Event::Eof => return Err("it ends too early".to_owned()),
        }
    }
}

impl Element {
    fn new(name: &[u8]) -> Element {
        Element {
            name: String::from_utf8_lossy(name).into_owned(),
            text: String::new(),
            children: Vec::new(),
        }
    }
}

fn push(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

/// Only what XML itself defines: entities of a document type are never expanded.
fn resolve(reference: &BytesRef<'_>) -> Result<String, String> {
    if let Some(char) = reference.resolve_char_ref().map_err(|error| error.to_string())? {
        return Ok(char.to_string());
    }
    let name = reference.decode().map_err(|error| error.to_string())?;
    let known = match name.as_ref() {
        "amp" => "&",
        "lt" => "<",
        "gt" => ">",
        "quot" => "\"",
        "apos" => "'",
        other => return Err(format!("the entity `{other}` is not defined")),
    };
    Ok(known.to_owned())
}
