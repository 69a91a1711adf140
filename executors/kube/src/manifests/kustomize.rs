//! Overlays, built by the `kustomize` program, or by `kubectl kustomize` where only that is there.

use super::fetch::{Fetch, Files, clean};
use super::{Document, Loaded, error, program, yaml};
use executor_api::{StepContext, StepError};
use process::Program;
use proto::task::{CommandFlag, KubernetesSpec, Manifest, ManifestKind};
use serde_json::{Value, json};
use std::path::Path;

/// Names under which kustomize looks for its file.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// Flags that change what is built and nothing else.
const FLAGS: [&str; 3] = ["--enable-helm", "--load-restrictor", "--reorder"];

pub(super) async fn load(
    fetch: &Fetch<'_>,
    spec: &KubernetesSpec,
    manifest: &Manifest,
    files: &[String],
    work: &Path,
) -> Result<Loaded, StepError> {
    let ManifestKind::Kustomize { folder, patches_paths } = &manifest.kind else {
        return Ok(Loaded::default());
    };
    let primary = fetch.primary(manifest, patches_paths).await?;
    let overlay = overlay(&primary, folder.as_deref(), files)?;
    let patches = fetch.values(&primary, patches_paths, false, &spec.overrides).await?;
    let tree = work.join("tree");
    for file in &primary.all {
        program::put(&tree, &file.path, &file.text).await?;
    }
    if !patches.is_empty() {
        add_patches(&primary, &overlay, &patches, &tree).await?;
    }
    let folder = tree.join(&overlay);
    let rendered = build(&folder, &spec.command_flags, work, fetch.cx).await?;
    let mut size = yaml::Size::default();
    let documents = yaml::documents("the output of kustomize", &rendered, &mut size)?;
    let source = if overlay.is_empty() { "kustomization".to_owned() } else { overlay };
    let documents = documents
        .into_iter()
        .map(|text| Document { source: source.clone(), text, skip_for_deploy: false })
        .collect();
    Ok(Loaded { documents, commit: primary.commit, ..Loaded::default() })
}

/// The folder to build: chosen by the step, else by the manifest, else the only one that the store names.
fn overlay(primary: &Files, folder: Option<&str>, files: &[String]) -> Result<String, StepError> {
    let chosen = match files {
        [] => folder.map(str::to_owned),
        [one] => Some(one.clone()),
        many => {
            let text =
                format!("a step applies one folder of a Kustomize manifest, filePaths names {}", many.len());
            return Err(error::spec(text));
        }
    };
    let roots: &[String] = &primary.roots;
    let candidates: Vec<String> = match (&chosen, roots) {
        (Some(chosen), roots) => {
            let below = roots.iter().map(|root| clean(&format!("{root}/{chosen}")));
            std::iter::once(clean(chosen)).chain(below).collect()
        }
        (None, roots) => roots.to_vec(),
    };
    let has = |folder: &String| NAMES.iter().any(|name| primary.get(&format!("{folder}/{name}")).is_some());
    match candidates.iter().find(|folder| has(folder)) {
        Some(folder) => Ok(folder.clone()),
        None => {
            let missing = chosen.unwrap_or_else(|| candidates.join("`, `"));
            let known: Vec<String> = primary
                .all
                .iter()
                .filter_map(|file| {
                    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
                    NAMES.contains(&name).then(|| folder.to_owned())
                })
                .collect();
            if known.is_empty() {
                return Err(error::nothing(&format!(
                    "no folder of the manifest holds a {}",
                    NAMES.join(" or ")
                )));
            }
            Err(error::not_there("kustomizeYamlFolderPath", &[missing], &known))
        }
    }
}

/// Patches become files beside the overlay's own, named at the end of its `patches`, so that they come last and still
/// meet the names that the base gives.
async fn add_patches(
    primary: &Files,
    overlay: &str,
    patches: &[super::fetch::File],
    tree: &Path,
) -> Result<(), StepError> {
    let Some(file) = NAMES.iter().find_map(|name| primary.get(&format!("{overlay}/{name}"))) else {
        return Ok(());
    };
    let mut kustomization: Value = serde_saphyr::from_str(&file.text)
        .map_err(|failed| error::unreadable(&file.path, 1, &format!("is not valid YAML: {failed}")))?;
    let Some(map) = kustomization.as_object_mut() else {
        return Err(error::unreadable(&file.path, 1, "is no mapping"));
    };
    let list = map.entry("patches").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else {
        return Err(error::unreadable(&file.path, 1, "`patches` is no list"));
    };
    for (index, patch) in patches.iter().enumerate() {
        let name = format!("delegate-patch-{index}.yaml");
        program::put(tree, &format!("{overlay}/{name}"), &patch.text).await?;
        list.push(json!({ "path": name }));
    }
    // JSON is YAML too.
    program::put(tree, &file.path, &kustomization.to_string()).await?;
    Ok(())
}

async fn build(
    folder: &Path,
    flags: &[CommandFlag],
    work: &Path,
    cx: &StepContext,
) -> Result<String, StepError> {
    let mut extra: Vec<String> = Vec::new();
    for flag in flags.iter().filter(|flag| flag.command.eq_ignore_ascii_case("Build")) {
        for word in flag.flag.split_whitespace() {
            let name = word.split('=').next().unwrap_or(word);
            if !FLAGS.contains(&name) {
                let text = format!(
                    "the flag `{word}` of kustomize is not supported; known are {}",
                    FLAGS.join(", ")
                );
                return Err(error::spec(text));
            }
            extra.push(word.to_owned());
        }
    }
    let program = |name: &str, verb: &str| {
        let made = Program::new(name).directory(work).env("HOME", work.display().to_string()).arg(verb);
        extra.iter().fold(made.arg(folder.display().to_string()), Program::arg)
    };
    let wanted = "building a Kustomize overlay";
    let hint = "install kustomize 5 or kubectl on the agent (in its PATH), or choose an agent that has one by `delegateSelectors`";
    match program::output(&program("kustomize", "build"), "kustomize build", wanted, hint, cx).await {
        Err(missing) if missing.code == "KUBE-060" => {
            match program::output(&program("kubectl", "kustomize"), "kubectl kustomize", wanted, hint, cx)
                .await
            {
                // Both are missing: the message names the one that is wanted.
                Err(again) if again.code == "KUBE-060" => Err(missing),
                done => done,
            }
        }
        done => done,
    }
}
