//! Reading triggers from documents of their own and from pipelines (rules R14, R20, R21).

use super::condition::{About, read_conditions};
use super::cron::{Dialect, Schedule};
use super::{Source, Trigger, texts};
use crate::fault::{Fault, Findings, Mode, Place};
use crate::model::read::{Field, Reader, one_of};
use crate::model::{identity, scope_of};
use crate::rules;
use crate::yaml::{Node, Value, parse_documents};

/// The pipeline that a trigger stands in.
struct Home<'a> {
    pipeline: &'a str,
    scope: &'a str,
}

/// Reads a document with the root `trigger`.
pub fn read_trigger(root: &Node, findings: &mut Findings) -> Option<Trigger> {
    read(root, "trigger", None, findings)
}

/// The trigger of a stored document.
///
/// **Errors**: every fault of it.
pub fn parse(source: &str, yaml: &str) -> Result<Trigger, Vec<Fault>> {
    let documents = parse_documents(source, yaml)?;
    let mut findings = Findings::new(Mode::Lenient);
    let root = documents.iter().find_map(|document| document.get("trigger"));
    let trigger = root.and_then(|root| read_trigger(root, &mut findings));
    match trigger {
        Some(trigger) if findings.faults.is_empty() => Ok(trigger),
        _ if findings.faults.is_empty() => {
            Err(vec![Fault::at(&Place::start(source), "trigger", "the document holds no trigger")])
        }
        _ => Err(findings.sorted_faults()),
    }
}

/// The triggers that stand in a pipeline (rule R14). `root` is the value of `pipeline`.
pub fn inline(root: &Node, findings: &mut Findings) -> Vec<Trigger> {
    let scope = scope_of(root);
    let pipeline = ["identifier", "name"].iter().find_map(|key| root.get(key).and_then(Node::as_str));
    let home = Home { pipeline: pipeline.unwrap_or_default(), scope: &scope };
    let Some(list) = root.get("triggers").filter(|node| !node.is_null()) else { return Vec::new() };
    let Some(items) = list.as_list() else {
        findings.fault(&list.at, "pipeline.triggers", format!("expected a list, found {}", list.kind()));
        return Vec::new();
    };
    let mut triggers: Vec<Trigger> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("pipeline.triggers[{index}]");
        let Some(node) = item.get("trigger") else {
            findings.fault(&item.at, &path, "expected `trigger`");
            continue;
        };
        let Some(trigger) = read(node, &format!("{path}.trigger"), Some(&home), findings) else { continue };
        if let Some(first) = triggers.iter().find(|other| other.identifier == trigger.identifier) {
            let message = format!(
                "the trigger identifier `{}` was used before, in line {}",
                trigger.identifier, first.at.line
            );
            findings.fault(&node.at, &path, message);
            continue;
        }
        rules::r14_inline_trigger(&trigger.identifier, &node.at, &path, findings);
        triggers.push(trigger);
    }
    triggers
}

fn read(node: &Node, path: &str, home: Option<&Home<'_>>, findings: &mut Findings) -> Option<Trigger> {
    let mut reader = Reader::new(node, path, findings);
    reader.known(&["description", "tags", "orgIdentifier", "projectIdentifier", "pipelineBranchName"]);
    let identity = identity(&mut reader, "trigger", findings);
    let enabled = reader.flag("enabled", findings).unwrap_or(true);
    let named = reader.field("pipelineIdentifier", findings);
    let pipeline = match (home, named) {
        (None, Some(named)) => Some(named.text()),
        (None, None) => {
            let message = "`pipelineIdentifier` is missing: a trigger names the pipeline that it starts";
            findings.fault(&node.at, &reader.sub("pipelineIdentifier"), message);
            None
        }
        (Some(home), Some(named)) if named.text() != home.pipeline => {
            let message = format!(
                "the trigger stands in the pipeline `{}` and names another one, `{}`",
                home.pipeline,
                named.text()
            );
            findings.fault(&named.at, &named.path, message);
            None
        }
        (Some(home), _) => Some(home.pipeline.to_owned()),
    };
    if let Some(stages) = reader.node("stagesToExecute")
        && texts(stages).is_none_or(|stages| !stages.is_empty())
    {
        let message = "running some stages only is not supported yet; the trigger would run all of them";
        findings.fault(&stages.at, &reader.sub("stagesToExecute"), message);
    }
    if let Some(secret) = reader.field("encryptedWebhookSecretIdentifier", findings)
        && !secret.text().is_empty()
    {
        let message = "webhook secrets belong to Git triggers, which are not supported yet; a custom webhook is \
                       called with an API key";
        findings.fault(&secret.at, &secret.path, message);
    }
    let input_sets = match reader.node("inputSetRefs") {
        None => Vec::new(),
        Some(list) => texts(list).unwrap_or_else(|| {
            let message = "expected a list of identifiers of input sets";
            findings.fault(&list.at, &reader.sub("inputSetRefs"), message);
            Vec::new()
        }),
    };
    let input_yaml = read_input_yaml(&mut reader, pipeline.as_deref(), findings);
    let source = reader.required_map("source", findings).and_then(|source| read_source(source, findings));
    reader.finish(findings);
    let ((identifier, name), pipeline, source) = (identity?, pipeline?, source?);
    Some(Trigger {
        identifier,
        name: name.text(),
        scope: home.map_or_else(|| scope_of(node), |home| home.scope.to_owned()),
        pipeline,
        enabled,
        source,
        input_sets,
        input_yaml,
        at: node.at.clone(),
        document: node.to_json(),
    })
}

/// Checked for form here; what it fills in is checked with the event.
fn read_input_yaml(
    reader: &mut Reader<'_>,
    pipeline: Option<&str>,
    findings: &mut Findings,
) -> Option<String> {
    let field = reader.field("inputYaml", findings)?;
    let text = field.text();
    if text.trim().is_empty() {
        return None;
    }
    let documents = match parse_documents("inputYaml", &text) {
        Ok(documents) => documents,
        Err(faults) => {
            for fault in faults {
                let message = format!("line {} of the text: {}", fault.line, fault.message);
                findings.fault(&field.at, &field.path, message);
            }
            return None;
        }
    };
    for document in &documents {
        let document = document.get("inputSet").unwrap_or(document);
        let Some(root) = document.get("pipeline") else {
            findings.fault(&field.at, &field.path, "expected a text with the root key `pipeline`");
            continue;
        };
        if let (Some(named), Some(own)) = (root.get("identifier").and_then(Node::as_str), pipeline)
            && rules::canonical(named) != rules::canonical(own)
        {
            let message = format!("the text is about the pipeline `{named}`, the trigger starts `{own}`");
            findings.fault(&field.at, &field.path, message);
        }
        expressions(root, &field, findings);
    }
    Some(text)
}

/// Every expression must be one that can be read.
fn expressions(node: &Node, field: &Field, findings: &mut Findings) {
    match &node.value {
        Value::Null => {}
        Value::Scalar { text, .. } => {
            if let Err(error) = expr::references(text) {
                findings.fault(&field.at, &field.path, format!("line {} of the text: {error}", node.at.line));
            }
        }
        Value::List(list) => list.iter().for_each(|item| expressions(item, field, findings)),
        Value::Map(map) => map.entries.iter().for_each(|entry| expressions(&entry.value, field, findings)),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Webhook,
    Scheduled,
    Unsupported,
}

/// Types of Harness, by whether they are known here.
const KINDS: [(&str, Kind); 7] = [
    ("Webhook", Kind::Webhook),
    ("Scheduled", Kind::Scheduled),
    ("Artifact", Kind::Unsupported),
    ("MultiRegionArtifact", Kind::Unsupported),
    ("Manifest", Kind::Unsupported),
    ("EventRelay", Kind::Unsupported),
    ("SystemEvent", Kind::Unsupported),
];
const WEBHOOKS: [(&str, bool); 7] = [
    ("Custom", true),
    ("Github", false),
    ("Gitlab", false),
    ("Bitbucket", false),
    ("AzureRepo", false),
    ("AwsCodeCommit", false),
    ("Harness", false),
];

fn read_source(mut source: Reader<'_>, findings: &mut Findings) -> Option<Source> {
    source.known(&["pollInterval", "webhookId"]);
    let kind = source.required("type", findings);
    let spec = source.required_map("spec", findings);
    source.finish(findings);
    let kind = kind?;
    let hit = one_of(&kind, "trigger type", &KINDS, findings);
    match (hit?, spec?) {
        (Kind::Webhook, spec) => read_webhook(spec, findings),
        (Kind::Scheduled, spec) => read_cron(spec, findings).map(Source::Cron),
        (Kind::Unsupported, _) => {
            let message = format!(
                "triggers of the type `{}` are not supported yet; supported are Webhook (Custom) and Scheduled (Cron)",
                kind.text()
            );
            findings.fault(&kind.at, &kind.path, message);
            None
        }
    }
}

fn read_webhook(mut spec: Reader<'_>, findings: &mut Findings) -> Option<Source> {
    let kind = spec.required("type", findings)?;
    if !one_of(&kind, "webhook type", &WEBHOOKS, findings)? {
        let message = format!("webhooks of `{}` are not supported yet; supported is Custom", kind.text());
        findings.fault(&kind.at, &kind.path, message);
        return None;
    }
    let inner = spec.node("spec");
    let path = spec.sub("spec");
    spec.finish(findings);
    // A webhook without conditions may be written without a spec (rule R17).
    let empty = Node::empty_map(&kind.at);
    let mut inner = Reader::new(inner.unwrap_or(&empty), path, findings);
    let at = inner.sub("payloadConditions");
    let payload = read_conditions(inner.list("payloadConditions", findings), &at, About::Payload, findings);
    let at = inner.sub("headerConditions");
    let headers = read_conditions(inner.list("headerConditions", findings), &at, About::Header, findings);
    let jexl = inner.field("jexlCondition", findings).filter(|field| !field.text().trim().is_empty());
    if let Some(field) = &jexl
        && let Err(error) = expr::references(&field.text())
    {
        findings.fault(&field.at, &field.path, error.to_string());
    }
    inner.finish(findings);
    Some(Source::Custom { payload, headers, jexl: jexl.map(|field| field.text()) })
}

fn read_cron(mut spec: Reader<'_>, findings: &mut Findings) -> Option<Schedule> {
    let kind = spec.required("type", findings)?;
    one_of(&kind, "schedule type", &[("Cron", ())], findings)?;
    let inner = spec.map("spec", findings);
    spec.finish(findings);
    let Some(mut inner) = inner else {
        findings.fault(&kind.at, &kind.path, "`spec` with `expression` is missing");
        return None;
    };
    let expression = inner.required("expression", findings);
    let dialect = match inner.field("type", findings) {
        Some(field) => {
            one_of(&field, "cron type", &[("UNIX", Dialect::Unix), ("QUARTZ", Dialect::Quartz)], findings)
        }
        None => Some(Dialect::Unix),
    };
    let zone = inner.field("timezone", findings).or(inner.field("timeZone", findings));
    inner.finish(findings);
    let (expression, dialect) = (expression?, dialect?);
    let zone_text = zone.as_ref().map_or_else(|| "UTC".to_owned(), Field::text);
    match Schedule::new(&expression.text(), dialect, &zone_text) {
        Ok(schedule) => Some(schedule),
        Err(error) => {
            let place = match (&error.zone, &zone) {
                (true, Some(zone)) => zone,
                _ => &expression,
            };
            findings.push(Fault::at(&place.at, &place.path, error.message).suggest(error.suggestion));
            None
        }
    }
}
