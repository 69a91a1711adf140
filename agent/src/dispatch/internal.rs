//! The steps that the agent answers itself: Noop, ResolveArtifact, ConnectorTest.

use super::{Executors, UNIT};
use bytes::Bytes;
use executor_api::{Class, Level, LogClosed, StepContext, StepError, StepOutput, Stream};
use proto::result::{Output, TestStage, UnitStatus};
use proto::task::{Artifact, ArtifactSource, NoopSpec, ResolveArtifactSpec};
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

/// What a source call needs; its lines go to `notices`.
pub(super) fn noting(client: &sources::Client, cx: &StepContext, notices: &Notices) -> sources::Access {
    let sink = notices.clone();
    let note: sources::Notice =
        Arc::new(move |line: &str| sink.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned()));
    sources::Access::new(client.clone(), cx, note)
}

/// What a source call needs whose lines nobody reads.
pub(super) fn access(client: &sources::Client, cx: &StepContext) -> sources::Access {
    noting(client, cx, &Notices::default())
}

/// What an artifact turned out to be: a line for the log, and the outputs.
type Found = (String, BTreeMap<String, Output>);

/// Looks an artifact up and pins it. Outputs: `tag`, `digest`, `image` for an image; `tag`, `digest`, `sha256` for a file; for
/// an image in ECR what `of_ecr` says.
///
/// A file whose server sends its checksum is not transferred. Any other is brought into this agent's cache, because only
/// its content says what it is; steps of the stage on this agent find it there.
pub(super) async fn resolve(
    executors: &Executors,
    spec: &ResolveArtifactSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = cx.logs.unit(UNIT);
    unit.status(UnitStatus::Running).await.map_err(closed)?;
    let notices = Notices::default();
    let found = tokio::select! {
        found = look_up(executors, &spec.artifact, cx, &notices) => found,
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

async fn look_up(
    executors: &Executors,
    artifact: &Artifact,
    cx: &StepContext,
    notices: &Notices,
) -> Result<Found, StepError> {
    let mut outputs: BTreeMap<String, Output> = BTreeMap::new();
    let mut put = |name: &str, value: &str| {
        outputs.insert(name.to_owned(), Value::from(value).into());
    };
    let line = match &artifact.source {
        ArtifactSource::DockerRegistry { connector, image_path } => {
            let access = noting(executors.client().await?, cx, notices);
            let image = sources::resolve_tag(&access, connector, image_path, &artifact.tag).await?;
            put("tag", &image.tag);
            put("digest", &image.digest);
            put("image", &image.image);
            format!("{}:{} is {}", image.image, image.tag, image.digest)
        }
        ArtifactSource::Ecr { account, image_path, registry_id, platform } => {
            let wanted = aws::ecr::Wanted {
                image_path,
                registry_id: registry_id.as_deref(),
                tag: &artifact.tag,
                platform: platform.as_deref(),
            };
            let (image, lines) = aws::ecr::resolve(executors.aws().await?, account, &wanted, cx).await?;
            notices.lock().unwrap_or_else(PoisonError::into_inner).extend(lines);
            return Ok(of_ecr(&image));
        }
        ArtifactSource::ArtifactoryRegistry(source) => {
            let access = noting(executors.client().await?, cx, notices);
            let promised = sources::locate(&access, source).await?.sha256;
            // A server that contradicts the author's checksum is asked for the file: the download tells what is wrong.
            let agrees = |sha256: &String| {
                source.sha256.as_ref().is_none_or(|wanted| wanted.trim().eq_ignore_ascii_case(sha256))
            };
            let sha256 = match promised.filter(agrees) {
                Some(sha256) => sha256,
                None => sources::download(&access, source, &cx.cache).await?.sha256,
            };
            put("tag", &artifact.tag);
            put("digest", &format!("sha256:{sha256}"));
            put("sha256", &sha256);
            format!("{} is there, sha256 {sha256}", source.path)
        }
    };
    Ok((line, outputs))
}

/// Outputs of an image in ECR: `tag`, `digest`, `image` (by its digest), `repository`, `registryId`, `pushedAt` (epoch
/// milliseconds), and for policies `scanStatus` and `scanFindings` (a number for each severity, once it was scanned).
fn of_ecr(image: &aws::ecr::Image) -> Found {
    let mut outputs: BTreeMap<String, Output> = BTreeMap::new();
    let mut put = |name: &str, value: Value| {
        outputs.insert(name.to_owned(), value.into());
    };
    put("tag", image.tag.clone().into());
    put("digest", image.digest.clone().into());
    put("image", image.pinned().into());
    put("repository", image.repository.clone().into());
    put("registryId", image.registry_id.clone().into());
    put("pushedAt", json!(image.pushed_at));
    put("scanStatus", image.scan.status.clone().into());
    put("scanFindings", json!(image.scan.findings));
    put("scannedAt", json!(image.scan.completed_at));
    if let Some(platforms) = &image.platforms {
        put("platforms", platforms.iter().map(ToString::to_string).collect());
    }
    let mut line = format!("{}/{}:{} is {}", image.host, image.repository, image.tag, image.digest);
    let found: Vec<String> = image
        .scan
        .findings
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(severity, count)| format!("{count} {severity}"))
        .collect();
    let findings = if found.is_empty() { String::new() } else { format!(": {}", found.join(", ")) };
    line.push_str(&format!("; scan: {}{findings}", image.scan.status));
    (line, outputs)
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
