//! Input sets and their overlays: stored inputs of a pipeline (pipeline.md §2.8).
//!
//! They are laid over the pipeline in the order in which they are named, later ones win, and what is given with the run
//! wins over all of them.

use crate::entities::{Catalog, CatalogEntity, EntityKind, LookupError};
use crate::fault::{Fault, Findings, Mode, Place, did_you_mean};
use crate::model::identity;
use crate::model::read::Reader;
use crate::rules::canonical;
use crate::trigger::Trigger;
use crate::yaml::{Node, parse_documents};

/// How deep overlays may name overlays.
const MAX_DEPTH: usize = 8;

/// The pipeline that an input set or overlay is about.
pub(crate) fn pipeline_of(root: &Node) -> Option<&str> {
    ["pipeline.identifier", "pipelineIdentifier"]
        .iter()
        .find_map(|path| root.at_path(&path.split('.').collect::<Vec<_>>()).and_then(Node::as_str))
}

/// Reads a document with the root `inputSet` or `overlayInputSet`; gives identifier and name.
pub(crate) fn read_input_set(
    document: &Node,
    root: &Node,
    findings: &mut Findings,
) -> Option<(String, String)> {
    let overlay = document.get("overlayInputSet").is_some();
    let path = if overlay { "overlayInputSet" } else { "inputSet" };
    let mut reader = Reader::new(root, path, findings);
    reader.known(&["description", "tags", "orgIdentifier", "projectIdentifier", "pipelineIdentifier"]);
    let identity = identity(&mut reader, "input set", findings);
    if pipeline_of(root).is_none() {
        let key = if overlay { "pipelineIdentifier" } else { "pipeline.identifier" };
        let message = format!("`{key}` is missing: an input set names the pipeline that it is for");
        findings.fault(&root.at, &reader.sub(key), message);
    }
    if overlay {
        let at = reader.sub("inputSetReferences");
        let list = reader.list("inputSetReferences", findings);
        if list.is_empty() {
            findings.fault(&root.at, &at, "`inputSetReferences` lists nothing");
        }
        for (index, node) in list.iter().enumerate() {
            if node.as_str().is_none() {
                let message = format!("expected the identifier of an input set, found {}", node.kind());
                findings.fault(&node.at, &format!("{at}[{index}]"), message);
            }
        }
    } else if let Some(pipeline) = reader.map("pipeline", findings) {
        // What it fills is looked at with the pipeline, when a run starts.
        drop(pipeline);
    } else {
        findings.fault(&root.at, &reader.sub("pipeline"), "`pipeline` is missing");
    }
    reader.finish(findings);
    let (identifier, name) = identity?;
    Some((identifier, name.text()))
}

/// The texts of the named input sets of a pipeline, in the order in which they are laid over it; overlays are replaced
/// by what they name.
///
/// **Errors**: every name that leads nowhere, with the nearest one; overlays that name each other in a circle.
pub fn resolve(
    catalog: &dyn Catalog,
    pipeline: &CatalogEntity,
    names: &[String],
) -> Result<Vec<(String, String)>, Vec<Fault>> {
    let scope = Trigger::stored_scope(&pipeline.scope, &pipeline.id);
    let all: Vec<&CatalogEntity> = catalog
        .entities(EntityKind::InputSet)
        .into_iter()
        // One without scope is for the pipeline of this name, wherever that is.
        .filter(|entity| canonical(&entity.scope) == canonical(&scope) || entity.scope == pipeline.id)
        .collect();
    let mut found = Vec::new();
    let mut faults = Vec::new();
    let place = Place::start(&pipeline.id);
    for name in names {
        expand(&all, name, &place, &mut Vec::new(), &mut found, &mut faults);
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

fn expand(
    all: &[&CatalogEntity],
    name: &str,
    place: &Place,
    path: &mut Vec<String>,
    found: &mut Vec<(String, String)>,
    faults: &mut Vec<Fault>,
) {
    let hit = all
        .iter()
        .find(|entity| entity.id == name)
        .or_else(|| all.iter().find(|entity| canonical(&entity.id) == canonical(name)));
    let Some(entity) = hit else {
        let near = did_you_mean(name, all.iter().map(|entity| entity.id.as_str()));
        let (message, _) = LookupError::NotFound { near: Vec::new() }.describe(EntityKind::InputSet, name);
        faults.push(Fault::at(place, "inputSet", message).suggest(near));
        return;
    };
    if path.contains(&entity.id) || path.len() >= MAX_DEPTH {
        let message = format!("the input sets {} → {} name each other", path.join(" → "), entity.id);
        faults.push(Fault::at(place, "inputSet", message));
        return;
    }
    let source = format!("input set {}", entity.id);
    let documents = match parse_documents(&source, &entity.yaml) {
        Ok(documents) => documents,
        Err(mut more) => {
            faults.append(&mut more);
            return;
        }
    };
    path.push(entity.id.clone());
    let overlay = documents.iter().find_map(|document| document.get("overlayInputSet"));
    match overlay {
        None => found.push((source, entity.yaml.clone())),
        Some(overlay) => {
            let mut findings = Findings::new(Mode::Lenient);
            let mut reader = Reader::new(overlay, "overlayInputSet", &mut findings);
            for node in reader.list("inputSetReferences", &mut findings) {
                if let Some(name) = node.as_str() {
                    expand(all, name, &node.at, path, found, faults);
                }
            }
        }
    }
    path.pop();
}
