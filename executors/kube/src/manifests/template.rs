//! Go templates of plain manifests, rendered by `helm template` as the templates of a chart that exists only for that.
//!
//! The dot holds `.Values` as Harness has it. Two things differ from its own engine and are written down in the docs: a
//! missing value renders as nothing (not `<no value>`), and a template defined in one file is seen by the others.

use super::fetch::{File, Files};
use super::{Document, error, program, select, yaml};
use executor_api::{StepContext, StepError};
use proto::task::KubernetesSpec;
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the throw-away chart.
const CHART: &str = "manifests";

/// Renders every file with all values, later ones outweighing earlier ones.
pub(super) async fn render(
    spec: &KubernetesSpec,
    files: &Files,
    values: &[File],
    work: &Path,
    cx: &StepContext,
) -> Result<Vec<Document>, StepError> {
    let chart = work.join(CHART);
    program::put(&chart, "Chart.yaml", &format!("apiVersion: v2\nname: {CHART}\nversion: 0.0.0\n")).await?;
    // Helm takes files whose names begin with `_`, and NOTES.txt, for no output: every file gets a name by its number.
    let mut known: BTreeMap<String, &File> = BTreeMap::new();
    for (index, file) in files.all.iter().enumerate() {
        let name = format!("templates/{index:05}.yaml");
        program::put(&chart, &name, &file.text).await?;
        known.insert(format!("{CHART}/{name}"), file);
    }
    let mut helm = program::helm(work)
        .arg("template")
        .arg(release_name(&spec.release_name))
        .arg(chart.display().to_string())
        .arg("--namespace")
        .arg(&spec.namespace);
    for path in value_files(values, work).await? {
        helm = helm.arg("--values").arg(path);
    }
    let wanted = "rendering Go templates with values";
    let rendered = program::output(&helm, "helm template", wanted, program::NO_HELM, cx).await.map_err(
        |mut failed| {
            for (name, file) in &known {
                failed.what = failed.what.replace(name.as_str(), &file.path);
            }
            failed
        },
    )?;
    let mut documents = split(&rendered, |template| known.get(template).copied())?;
    // Helm sorts by kind; files are applied in their own order.
    let place = |source: &str| files.all.iter().position(|file| file.path == source).unwrap_or(usize::MAX);
    documents.sort_by_key(|document| place(&document.source));
    Ok(documents)
}

/// Helm allows 53 characters; the name matters only to charts that print it.
pub(super) fn release_name(name: &str) -> String {
    name.chars().take(53).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// Writes values as files of their own: the names of the originals may be equal.
pub(super) async fn value_files(values: &[File], work: &Path) -> Result<Vec<String>, StepError> {
    let mut paths = Vec::with_capacity(values.len());
    for (index, file) in values.iter().enumerate() {
        let path = program::put(work, &format!("values-{index}.yaml"), &file.text).await?;
        paths.push(path.display().to_string());
    }
    Ok(paths)
}

/// Documents of `helm template`: each names its template in a comment.
pub(super) fn split<'a>(
    rendered: &str,
    file: impl Fn(&str) -> Option<&'a File>,
) -> Result<Vec<Document>, StepError> {
    let mut documents = Vec::new();
    let mut size = yaml::Size::default();
    for text in yaml::documents("the output of helm", rendered, &mut size)? {
        let template =
            text.lines().find_map(|line| line.strip_prefix("# Source: ")).unwrap_or_default().trim();
        let original = file(template);
        let source = original.map_or_else(|| template.to_owned(), |file| file.path.clone());
        let skip_for_deploy = original.is_some_and(|file| select::skipped(&file.text));
        documents.push(Document { source, text, skip_for_deploy });
    }
    if documents.is_empty() {
        return Err(error::nothing("the templates render to no object at all with these values"));
    }
    Ok(documents)
}
