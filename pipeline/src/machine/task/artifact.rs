//! The primary artifact: looked up when the stage starts, pinned for every later step; and what a stage deployed when it
//! last succeeded, which rollback steps take (settled facts §2.6).

use super::super::state::{ROOT_RUN, State, Status};
use super::super::{Machine, node_of};
use super::build::{Builder, bug};
use crate::model::VariableKind;
use crate::model::ecs::Document;
use crate::model::service::{Artifact as Source, ArtifactSource as SourceKind, GitFetch, Store, ecr_host};
use crate::plan::{NodeKind, Plan, RecordedValue, StageRecord};
use proto::failure::Failure;
use proto::result::Output;
use proto::task::{
    Artifact, ArtifactSource, ConfigFile, CopySource, DownloadSource, FileStore, GitReference, GitSource,
    ResolveArtifactSpec, StepSpec, UnitKind,
};
use proto::text::{Text, placeholder, placeholders};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The task that looks up the artifact of a stage.
pub(super) fn lookup(builder: &mut Builder<'_>) -> Result<StepSpec, Box<Failure>> {
    let Some(source) = builder.target().and_then(|target| target.service.definition.artifact.as_ref()) else {
        return Err(bug("the stage has no artifact"));
    };
    let artifact = resolve(builder, source)?;
    Ok(StepSpec::ResolveArtifact(ResolveArtifactSpec { artifact }))
}

fn resolve(builder: &mut Builder<'_>, source: &Source) -> Result<Artifact, Box<Failure>> {
    Ok(match &source.source {
        SourceKind::DockerRegistry { image_path, tag } => Artifact {
            source: ArtifactSource::DockerRegistry {
                connector: builder.docker(&source.connector)?,
                image_path: builder.strict(image_path)?,
            },
            tag: builder.strict(tag)?,
            digest: None,
        },
        SourceKind::Ecr { image_path, tag, region, registry_id } => {
            let image_path = builder.strict(image_path)?.trim().to_owned();
            let of_host =
                ecr_host(&image_path).map(|(account, region)| (account.to_owned(), region.to_owned()));
            let (account, host_region) = of_host.unzip();
            let region = match builder.optional(region.as_ref())?.or(host_region) {
                Some(region) => Some(region),
                None => builder.stage_region()?,
            };
            Artifact {
                source: ArtifactSource::Ecr {
                    account: builder.aws(&source.connector, region.as_deref())?,
                    image_path,
                    registry_id: builder.optional(registry_id.as_ref())?.or(account),
                    platform: platform(builder),
                },
                tag: builder.strict(tag)?,
                digest: None,
            }
        }
        SourceKind::ArtifactoryRegistry { repository, directory, path } => {
            let file = builder.strict(path)?;
            let full = match directory {
                Some(directory) => {
                    let directory = builder.strict(directory)?;
                    let directory = directory.trim_matches('/');
                    if directory.is_empty() || directory == "." {
                        file.clone()
                    } else {
                        format!("{directory}/{file}")
                    }
                }
                None => file.clone(),
            };
            let connector = builder.artifactory(&source.connector)?;
            let repository = builder.strict(repository)?;
            let source = DownloadSource { connector, repository, path: full, sha256: None };
            Artifact { source: ArtifactSource::ArtifactoryRegistry(source), tag: file, digest: None }
        }
    })
}

/// The platform that the service's inline task definition runs on, as far as it says so.
fn platform(builder: &Builder<'_>) -> Option<String> {
    let ecs = builder.target()?.service.definition.ecs.as_ref()?;
    let Some(Document::Value(field)) = &ecs.task.as_ref()?.document else { return None };
    let written = field.value.get("runtimePlatform")?;
    let text = |key: &str| written.get(key).and_then(Json::as_str).filter(|text| !text.contains("<+"));
    let architecture = match text("cpuArchitecture")? {
        "X86_64" => "amd64",
        "ARM64" => "arm64",
        _ => return None,
    };
    let windows = text("operatingSystemFamily").is_some_and(|family| family.starts_with("WINDOWS"));
    Some(format!("{}/{architecture}", if windows { "windows" } else { "linux" }))
}

impl Machine<'_> {
    /// Keeps what the lookup found.
    pub(in crate::machine) fn pin_artifact(&mut self, stage: &str, outputs: BTreeMap<String, Output>) {
        let plan = self.plan.clone();
        let pinned = {
            let mut builder = Builder::new(&plan, self.state, stage, self.at);
            let source = builder.target().and_then(|target| target.service.definition.artifact.as_ref());
            source.and_then(|source| resolve(&mut builder, source).ok())
        };
        let Some(mut artifact) = pinned else { return };
        let text = |name: &str| outputs.get(name).and_then(|output| output.value.as_str().map(str::to_owned));
        if let Some(tag) = text("tag") {
            artifact.tag = tag;
        }
        artifact.digest = text("digest");
        if let ArtifactSource::ArtifactoryRegistry(source) = &mut artifact.source {
            source.sha256 = text("sha256")
                .or_else(|| text("digest").and_then(|d| d.strip_prefix("sha256:").map(str::to_owned)));
        }
        self.update(stage, |run| {
            run.artifact = Some(artifact);
            run.outputs
                .extend(outputs.into_iter().map(|(name, output)| (format!("artifact.{name}"), output)));
        });
    }
}

/// Artifact and config files that a step's units use.
pub(super) fn of_step(
    builder: &mut Builder<'_>,
    spec: &StepSpec,
) -> Result<(Option<Artifact>, Vec<ConfigFile>), Box<Failure>> {
    let StepSpec::Command(command) = spec else { return Ok((pinned(builder), Vec::new())) };
    let needs_config = command
        .units
        .iter()
        .any(|unit| matches!(unit.kind, UnitKind::Copy { source_type: CopySource::Config, .. }));
    let in_rollback = builder.node().is_some_and(|node| node.in_rollback);
    if let Some(record) = builder.scope.record {
        let files = if needs_config { record.config_files.clone() } else { Vec::new() };
        note_secrets(builder, &record.artifact, &files);
        return Ok((record.artifact.clone(), files));
    }
    if in_rollback {
        builder.notices.push(
            "no earlier successful deployment of this stage on this infrastructure is known: artifact, config files \
             and variables are those of this run"
                .to_owned(),
        );
    }
    let files = if needs_config { config_files(builder)? } else { Vec::new() };
    let artifact = pinned(builder);
    note_secrets(builder, &artifact, &files);
    Ok((artifact, files))
}

fn pinned(builder: &Builder<'_>) -> Option<Artifact> {
    let mut at = Some(builder.id);
    while let Some(run) = at.and_then(|id| builder.state.runs.get(id)) {
        if run.artifact.is_some() {
            return run.artifact.clone();
        }
        at = run.parent.as_deref();
    }
    None
}

/// Credentials of a pinned source are named in the task that carries it.
fn note_secrets(builder: &mut Builder<'_>, artifact: &Option<Artifact>, files: &[ConfigFile]) {
    use proto::task::{HttpAuth, HttpConnector};
    let mut connectors: Vec<&HttpConnector> = Vec::new();
    match artifact.as_ref().map(|artifact| &artifact.source) {
        Some(ArtifactSource::DockerRegistry { connector, .. }) => connectors.push(connector),
        Some(ArtifactSource::ArtifactoryRegistry(source)) => connectors.push(&source.connector),
        // Nothing but the lookup itself reads from ECR: whatever else of the account is a secret stands as a placeholder.
        Some(ArtifactSource::Ecr { .. }) | None => {}
    }
    for file in files {
        if let FileStore::Git(source) = &file.store {
            connectors.push(&source.connector);
        }
    }
    for connector in connectors {
        match &connector.auth {
            HttpAuth::Anonymous => {}
            HttpAuth::UsernamePassword { password, .. } => {
                builder.secrets.insert(password.clone());
            }
            HttpAuth::Bearer { token } => {
                builder.secrets.insert(token.clone());
            }
            // Whoever makes the login notes its secrets.
            HttpAuth::Ssh(_) => {}
        }
    }
}

fn config_files(builder: &mut Builder<'_>) -> Result<Vec<ConfigFile>, Box<Failure>> {
    let Some(target) = builder.target() else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for file in &target.service.definition.config_files {
        let store = file_store(builder, &file.store)?;
        files.push(ConfigFile { identifier: file.identifier.clone(), store });
    }
    Ok(files)
}

/// A store as the agent fetches it.
pub(super) fn file_store(builder: &mut Builder<'_>, store: &Store) -> Result<FileStore, Box<Failure>> {
    Ok(match store {
        Store::Git { connector, repo_name, reference, paths } => {
            let value = builder.strict(&reference.1)?;
            FileStore::Git(GitSource {
                connector: builder.git(connector, repo_name.as_ref())?,
                reference: match reference.0 {
                    GitFetch::Branch => GitReference::Branch(value),
                    GitFetch::Tag => GitReference::Tag(value),
                    GitFetch::Commit => GitReference::Commit(value),
                },
                paths: paths.iter().map(|path| builder.strict(path)).collect::<Result<_, _>>()?,
            })
        }
        Store::Inline { path, content } => {
            FileStore::Inline { path: builder.strict(path)?, content: builder.lenient(content)? }
        }
    })
}

impl Builder<'_> {
    pub(super) fn stage_started_at(&self) -> u64 {
        let mut at = Some(self.id);
        while let Some(run) = at.and_then(|id| self.state.runs.get(id)) {
            if node_of(self.plan, run).is_some_and(|node| matches!(node.kind, NodeKind::Stage(_))) {
                return run.started_at.unwrap_or_default();
            }
            at = run.parent.as_deref();
        }
        0
    }
}

/// Under which key a stage's record is kept: its identifier and the key of its infrastructure.
pub(crate) fn stage_key(plan: &Plan, stage: usize) -> Option<String> {
    let target = plan.target_of(stage)?;
    let (index, _) = plan.stage_of(stage)?;
    Some(format!("{}@{}", plan.node(index)?.identifier, target.infrastructure.key))
}

/// What the stage of a rollback step deployed before, if that is known.
pub(super) fn record(plan: &Plan, node: usize) -> Option<&StageRecord> {
    stage_key(plan, node).and_then(|key| plan.last_successful.get(&key))
}

/// What each successful deployment stage of a finished run deployed, by the key under which the manager keeps it for
/// later runs ([`crate::planner::PlanOptions::last_successful`]).
pub fn stage_records(state: &State) -> Vec<(String, StageRecord)> {
    let plan = &state.plan;
    let at = state.runs.get(ROOT_RUN).and_then(|run| run.ended_at).unwrap_or_default();
    let mut records = Vec::new();
    for (id, run) in state.runs.iter() {
        let Some(node) = node_of(plan, run) else { continue };
        // What was rolled back is not what stands there now.
        if !matches!(node.kind, NodeKind::Stage(_)) || run.status != Status::Success || run.rolled_back {
            continue;
        }
        let (Some(key), Some(target)) = (stage_key(plan, run.node), plan.target_of(run.node)) else {
            continue;
        };
        let mut builder = Builder::new(plan, state, id, at);
        let mut variables = BTreeMap::new();
        for variable in &target.service.definition.variables {
            let Ok(Text(text)) = builder.variable("serviceVariables", variable) else { continue };
            // A placeholder is worth nothing in another run; the expression behind it is.
            let value = match text.contains(expr::PLACEHOLDER_HEAD) {
                true if variable.kind == VariableKind::Secret => {
                    let text = format!("<+secrets.getValue(\"{}\")>", variable.value.text());
                    RecordedValue { text, expression: true }
                }
                true => RecordedValue { text: variable.value.text(), expression: true },
                false => RecordedValue { text, expression: false },
            };
            variables.insert(variable.name.clone(), value);
        }
        let artifact_outputs: BTreeMap<String, Json> = run
            .outputs
            .iter()
            .filter_map(|(name, output)| {
                Some((name.strip_prefix("artifact.")?.to_owned(), output.value.clone()))
            })
            .collect();
        let record = StageRecord {
            execution_id: plan.run.execution_id.clone(),
            artifact: run.artifact.clone(),
            artifact_outputs,
            config_files: config_files(&mut builder).unwrap_or_default(),
            variables,
            secret_token: plan.run.secret_token,
        };
        records.push((key, record));
    }
    records
}

/// Gives a record the placeholders of another run.
pub(crate) fn retoken(record: &StageRecord, token: i64) -> StageRecord {
    fn walk(json: &mut Json, old: i64, new: i64) {
        match json {
            Json::String(text) => {
                let mut found = placeholders(text);
                found.retain(|found| found.token == old);
                for found in found.into_iter().rev() {
                    text.replace_range(found.range, &placeholder(&found.secret, new));
                }
            }
            Json::Array(list) => list.iter_mut().for_each(|item| walk(item, old, new)),
            Json::Object(map) => map.values_mut().for_each(|value| walk(value, old, new)),
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }
    let same = || StageRecord { secret_token: token, ..record.clone() };
    let Ok(mut json) = serde_json::to_value((&record.artifact, &record.config_files)) else { return same() };
    walk(&mut json, record.secret_token, token);
    match serde_json::from_value(json) {
        Ok((artifact, config_files)) => StageRecord { artifact, config_files, ..same() },
        Err(_) => same(),
    }
}
