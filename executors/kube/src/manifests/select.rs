//! Which files are manifests, and which of them a step means.

use super::fetch::{File, Files, below, clean};
use super::{Document, error, yaml};
use executor_api::StepError;

/// A comment in the first line of a file: Rolling, Canary and BlueGreen leave it out.
const SKIP: &str = "harness.io/skip-file-for-deploy";

/// Whether a file's first line takes it out of deployments.
pub(super) fn skipped(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.trim_start().starts_with('#') && line.contains(SKIP))
}

fn is_manifest(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let known = [".yaml", ".yml", ".json"].iter().any(|end| name.to_ascii_lowercase().ends_with(end));
    known && !matches!(name, "values.yaml" | "values.yml")
}

/// The manifests among the fetched files, or those of them that `files` names: relative to the root of the store first,
/// then to the folder of each path of the manifest.
pub(super) fn manifests(primary: &Files, files: &[String]) -> Result<Files, StepError> {
    // Values files that lie beside the manifest were fetched with it, and are no part of it.
    let own = |file: &&File| primary.roots.iter().any(|root| below(&file.path, root));
    let all: Vec<File> =
        primary.all.iter().filter(own).filter(|file| is_manifest(&file.path)).cloned().collect();
    let mut found = Files { all, ..primary.clone() };
    if found.all.is_empty() {
        let held = primary.paths().join(", ");
        return Err(error::nothing(&format!("the manifest holds no YAML file; its files are {held}")));
    }
    if !files.is_empty() {
        found.all = named(&found, files)?;
    }
    Ok(found)
}

fn named(from: &Files, files: &[String]) -> Result<Vec<File>, StepError> {
    let mut chosen: Vec<File> = Vec::new();
    let mut missing = Vec::new();
    for wanted in files {
        let path = clean(wanted);
        let mut places = vec![path.clone()];
        for root in &from.roots {
            let folder = if from.get(root).is_some() {
                root.rsplit_once('/').map_or("", |(folder, _)| folder)
            } else {
                root
            };
            places.push(clean(&format!("{folder}/{path}")));
        }
        let hits = places.iter().find_map(|place| {
            let hits: Vec<&File> = from.all.iter().filter(|file| below(&file.path, place)).collect();
            (!hits.is_empty()).then_some(hits)
        });
        match hits {
            Some(hits) => {
                for file in hits {
                    if chosen.iter().all(|other| other.path != file.path) {
                        chosen.push(file.clone());
                    }
                }
            }
            None => missing.push(wanted.clone()),
        }
    }
    if missing.is_empty() { Ok(chosen) } else { Err(error::not_there("filePaths", &missing, &from.paths())) }
}

/// The documents of files as they stand.
pub(super) fn verbatim(files: &Files) -> Result<Vec<Document>, StepError> {
    let mut documents = Vec::new();
    let mut size = yaml::Size::default();
    for file in &files.all {
        let skip_for_deploy = skipped(&file.text);
        for text in yaml::documents(&file.path, &file.text, &mut size)? {
            documents.push(Document { source: file.path.clone(), text, skip_for_deploy });
        }
    }
    Ok(documents)
}
