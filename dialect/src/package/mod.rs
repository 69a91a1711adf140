//! From a package to a typed step.
//!
//! Decoding is complete or refused: whatever the package asks for and this agent does not do is named, and nothing is started.
//! Unknown keys are ignored. **Source** of the shapes: facts `kryo-dialect.md` §5, §6.

mod aws;
mod checks;
mod cluster;
mod command;
mod ecs;
mod fault;
mod http;
mod kubernetes;
pub(crate) mod local;
mod manifest;
mod secrets;
mod shell;
mod ssh;
mod store;
mod tail;
mod view;

#[cfg(test)]
mod tests;

use crate::request::{Kind, Request};
use fault::Fault;
use proto::failure::Failure;
use proto::package::TaskPackage;
use proto::task::{ExecutionRef, StepTask};
use proto::text::SecretRef;
use secrecy::SecretString;
use secrets::Secrets;
use serde_json::Value;
use std::collections::BTreeMap;
use view::View;

/// A package that can be run.
pub struct Decoded {
    /// What its answer has to know of it.
    pub request: Request,
    /// The step. No clear secret stands in it.
    pub task: StepTask,
    /// The secrets that the step refers to, opened.
    pub secrets: BTreeMap<SecretRef, SecretString>,
    /// What a person should know: what of the package has no effect here.
    pub notices: Vec<String>,
}

impl std::fmt::Debug for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoded")
            .field("request", &self.request)
            .field("task", &self.task)
            .field("secrets", &self.secrets.keys().collect::<Vec<_>>())
            .field("notices", &self.notices)
            .finish()
    }
}

/// A package that is answered with a failure. Nothing was started.
#[derive(Debug)]
pub struct Refused {
    /// As far as it could be read: which family's response it gets.
    pub request: Request,
    /// Why.
    pub failure: Failure,
}

/// What the decoders share.
struct Cx<'p> {
    package: &'p TaskPackage,
    request: Request,
    secrets: Secrets<'p>,
    notices: Vec<String>,
}

impl Cx<'_> {
    /// A text in which secrets may stand, if it is there.
    fn maybe_text(&mut self, view: &View<'_>, key: &str) -> Result<Option<proto::text::Text>, Fault> {
        view.maybe_str(key)?.map(|text| self.secrets.text(&view.at(key), text)).transpose()
    }

    /// A text in which no secret may stand, if it is there.
    fn maybe_plain(&self, view: &View<'_>, key: &str) -> Result<Option<String>, Fault> {
        view.maybe_str(key)?.map(|text| self.secrets.plain(&view.at(key), text)).transpose()
    }

    fn plain(&self, view: &View<'_>, key: &str) -> Result<String, Fault> {
        self.secrets.plain(&view.at(key), view.str(key)?)
    }

    fn plains(&self, view: &View<'_>, key: &str) -> Result<Vec<String>, Fault> {
        view.strs(key)?.into_iter().map(|(path, text)| self.secrets.plain(&path, text)).collect()
    }

    /// Variables of a script.
    fn env(&mut self, view: &View<'_>, key: &str) -> Result<BTreeMap<String, proto::text::Text>, Fault> {
        let place = view.at(key);
        let all = view.map(key)?.into_iter();
        all.map(|(name, text)| Ok((name.to_owned(), self.secrets.text(&format!("{place}.{name}"), &text)?)))
            .collect()
    }
}

/// Reads a package into the step that it asks for.
///
/// **Errors**: a package that cannot be read, or asks for what this agent does not do; always with the request that its answer
/// is made of.
pub fn decode(package: &TaskPackage) -> Result<Decoded, Box<Refused>> {
    let request = Request::of_type(&package.id, &package.task_type);
    let mut cx = Cx { package, request, secrets: Secrets::new(package), notices: Vec::new() };
    match read(&mut cx) {
        Ok(mut task) => {
            task.execution = execution(package);
            task.secret_token = cx.secrets.token();
            Ok(Decoded { request: cx.request, task, secrets: cx.secrets.into_values(), notices: cx.notices })
        }
        Err(fault) => Err(Box::new(Refused { request: cx.request, failure: fault.into_failure() })),
    }
}

fn read(cx: &mut Cx<'_>) -> Result<StepTask, Fault> {
    let data: Value = serde_json::from_str(cx.package.data.get()).map_err(|error| {
        Fault::shape("data", format!("is no JSON (line {}, column {})", error.line(), error.column()))
    })?;
    let data = View::root("data", &data)?;
    match cx.request.kind {
        Kind::Http { .. } => http::read(cx, &data),
        Kind::Shell => shell::read(cx, &data),
        Kind::Command { .. } => command::read(cx, &data),
        Kind::Kubernetes { .. } => kubernetes::read(cx, &data),
        Kind::Ecs { .. } => ecs::read(cx, &data),
        Kind::KubernetesCheck => checks::cluster(cx, &data),
        Kind::AwsCheck => checks::aws(cx, &data),
        Kind::GitCheck => checks::git(cx, &data),
        Kind::Other => Err(Fault::unsupported(format!("the task type {}", cx.request.task_type))),
    }
}

/// Which run a task belongs to, by what its log key is made of: the same for all tasks of a run.
fn execution(package: &TaskPackage) -> ExecutionRef {
    let pairs = &package.logging.abstractions.0;
    let of = |key: &str| pairs.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value.as_str());
    let levels: Vec<&str> =
        pairs.iter().filter(|(key, _)| key.starts_with("level")).map(|(_, value)| value.as_str()).collect();
    // pipeline/stages/STAGE/spec/…, with a level more when the stage stands in a parallel group.
    let stage =
        levels.iter().position(|level| *level == "spec").and_then(|spec| levels.get(spec.checked_sub(1)?));
    let run = ["accountId", "orgId", "projectId", "pipelineId", "runSequence", "planExecutionId"];
    let run: Vec<&str> = run.iter().map(|key| of(key)).filter(|value| !value.is_empty()).collect();
    ExecutionRef {
        execution_id: run.join("/"),
        pipeline: of("pipelineId").to_owned(),
        sequence_id: of("runSequence").parse().unwrap_or_default(),
        stage: stage.or(levels.get(2)).copied().unwrap_or_default().to_owned(),
        node: levels.join("/"),
        attempt: 1,
        rolls_back: None,
    }
}

/// A step of this name and spec.
fn step(cx: &Cx<'_>, spec: proto::task::StepSpec) -> StepTask {
    let pairs = &cx.package.logging.abstractions.0;
    let last = pairs.iter().rev().find(|(key, _)| key.starts_with("level")).map(|(_, value)| value.clone());
    let identifier = last.unwrap_or_else(|| cx.package.id.clone());
    StepTask::of(proto::task::Step { name: identifier.clone(), identifier, spec })
}
