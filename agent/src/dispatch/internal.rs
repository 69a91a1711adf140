//! The steps that the agent answers itself: Noop, ResolveArtifact, ConnectorTest.

use super::UNIT;
use bytes::Bytes;
use executor_api::{Class, Level, LogClosed, StepContext, StepError, StepOutput, Stream};
use proto::result::{Output, TestStage, UnitStatus};
use proto::task::{ArtifactSource, NoopSpec, ResolveArtifactSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

fn closed(_: LogClosed) -> StepError {
    StepError::new(Class::Bug, "AGT-011", "the log of the step is closed")
}

/// Answers at once, with one log line. The line is written as a stream that can be sought, so that a restart in between
/// does not write it twice.
pub(super) async fn noop(spec: &NoopSpec, cx: &StepContext) -> Result<StepOutput, StepError> {
    let unit = cx.logs.unit(UNIT);
    unit.status(UnitStatus::Running).await.map_err(closed)?;
    let text = Bytes::from(format!("{}\n", spec.line));
    let from = usize::try_from(unit.resume_at(Stream::Stdout)).unwrap_or(usize::MAX).min(text.len());
    unit.write(Stream::Stdout, text.slice(from..)).await.map_err(closed)?;
    unit.status(UnitStatus::Success).await.map_err(closed)?;
    Ok(StepOutput::default())
}

/// Notices of a source, kept until they can be written to the log.
pub(super) type Notices = Arc<Mutex<Vec<String>>>;

/// What a source call needs, and the lines it has to say.
pub(super) fn access(client: &sources::Client, cx: &StepContext) -> (sources::Access, Notices) {
    let notices = Notices::default();
    let sink = notices.clone();
    let note: sources::Notice =
        Arc::new(move |line: &str| sink.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned()));
    (sources::Access::new(client.clone(), cx, note), notices)
}

/// Looks an artifact up and pins it. Outputs: `tag`, `digest`, `image` for an image; `tag`, `digest`, `sha256` for a file.
///
/// A file whose server sends its checksum is not transferred. Any other is brought into this agent's cache, because only
/// its content says what it is; steps of the stage on this agent find it there.
pub(super) async fn resolve(
    client: &sources::Client,
    spec: &ResolveArtifactSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = cx.logs.unit(UNIT);
    unit.status(UnitStatus::Running).await.map_err(closed)?;
    let (access, notices) = access(client, cx);
    let found = async {
        let mut outputs: BTreeMap<String, Output> = BTreeMap::new();
        let mut put = |name: &str, value: &str| {
            outputs.insert(name.to_owned(), Value::from(value).into());
        };
        let line = match &spec.artifact.source {
            ArtifactSource::DockerRegistry { connector, image_path } => {
                let image = sources::resolve_tag(&access, connector, image_path, &spec.artifact.tag).await?;
                put("tag", &image.tag);
                put("digest", &image.digest);
                put("image", &image.image);
                format!("{}:{} is {}", image.image, image.tag, image.digest)
            }
            ArtifactSource::Ecr { image_path, .. } => {
                let text = format!("this agent cannot look up images in ECR ({image_path})");
                return Err(StepError::new(Class::BadSpec, "AGT-008", text));
            }
            ArtifactSource::ArtifactoryRegistry(source) => {
                let promised = sources::locate(&access, source).await?.sha256;
                // A server that contradicts the author's checksum is asked for the file: the download tells what is wrong.
                let agrees = |sha256: &String| {
                    source.sha256.as_ref().is_none_or(|wanted| wanted.trim().eq_ignore_ascii_case(sha256))
                };
                let sha256 = match promised.filter(agrees) {
                    Some(sha256) => sha256,
                    None => sources::download(&access, source, &cx.cache).await?.sha256,
                };
                put("tag", &spec.artifact.tag);
                put("digest", &format!("sha256:{sha256}"));
                put("sha256", &sha256);
                format!("{} is there, sha256 {sha256}", source.path)
            }
        };
        Ok::<_, StepError>((line, outputs))
    };
    let found = tokio::select! {
        found = found => found,
        (reason, _) = cx.cancel.wait() => {
            Err(StepError::new(Class::Cancelled { reason }, "AGT-013", "the artifact was not looked up: the step was cancelled"))
        }
    };
    let told = std::mem::take(&mut *notices.lock().unwrap_or_else(PoisonError::into_inner));
    for line in told {
        unit.line(Level::Info, &line).await.map_err(closed)?;
    }
    let status = if found.is_ok() { UnitStatus::Success } else { UnitStatus::Failure };
    if let Ok((line, _)) = &found {
        unit.line(Level::Info, line).await.map_err(closed)?;
    }
    unit.status(status).await.map_err(closed)?;
    let (_, outputs) = found?;
    Ok(StepOutput { outputs, ..StepOutput::default() })
}

/// The result of a connector test: the test itself succeeds also when the connector does not; `ok` says which.
pub(super) async fn report(stages: Vec<TestStage>, cx: &StepContext) -> Result<StepOutput, StepError> {
    let unit = cx.logs.unit(UNIT);
    for one in &stages {
        let level = if one.ok { Level::Info } else { Level::Error };
        unit.line(level, &format!("{}: {}", one.stage, one.message)).await.map_err(closed)?;
    }
    let ok = !stages.is_empty() && stages.iter().all(|one| one.ok);
    unit.status(if ok { UnitStatus::Success } else { UnitStatus::Failure }).await.map_err(closed)?;
    let outputs = [("ok".to_owned(), Value::from(ok).into()), ("stages".to_owned(), json!(stages).into())];
    Ok(StepOutput { outputs: outputs.into(), ..StepOutput::default() })
}
