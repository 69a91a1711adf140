//! Documents of a service: where they come from, and how they become requests.
//!
//! ```text
//! store ─fetch─► text ─blocks─► YAML or JSON ─tree─► values of expressions ─typed─► request, warnings
//! ```
//! What is loaded still holds the placeholders of secrets; [`reveal`] opens them when the request is sent or compared.

pub(crate) mod arn;
mod blocks;
mod fetch;
mod members;
mod tree;
mod typed;

pub(crate) use members::names;

use crate::EcsExecutor;
use crate::error::{bad_spec, log_closed, no_secret};
use executor_api::{Level, SecretSource, StepContext, StepError, UnitLog};
use proto::task::{EcsDocument, EcsSpec, FileStore};
use proto::text::Text;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tree::Node;
use typed::{Fault, Rules};

/// Which request a document stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Input of RegisterTaskDefinition.
    TaskDefinition,
    /// A part of one, to be laid over another.
    TaskDefinitionPart,
    /// Input of CreateService.
    Service,
    /// Input of RegisterScalableTarget.
    ScalableTarget,
    /// Input of PutScalingPolicy.
    ScalingPolicy,
    /// Input of RunTask.
    RunTask,
}

impl Kind {
    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::TaskDefinition | Kind::TaskDefinitionPart => "task definition",
            Kind::Service => "service definition",
            Kind::ScalableTarget => "scalable target",
            Kind::ScalingPolicy => "scaling policy",
            Kind::RunTask => "run-task request",
        }
    }

    fn object(self) -> &'static str {
        match self {
            Kind::TaskDefinition | Kind::TaskDefinitionPart => "TaskDefinition",
            Kind::Service => "Service",
            Kind::ScalableTarget => "Scaling.Target",
            Kind::ScalingPolicy => "Scaling.Policy",
            Kind::RunTask => "RunTask",
        }
    }

    fn rules(self) -> Rules {
        Rules {
            capitals: matches!(self, Kind::ScalableTarget | Kind::ScalingPolicy),
            required: self != Kind::TaskDefinitionPart,
        }
    }

    /// Members that the step itself writes, whatever the document says.
    fn ours(self) -> &'static [&'static str] {
        match self {
            Kind::TaskDefinition | Kind::TaskDefinitionPart => &[],
            Kind::Service => &["cluster", "taskDefinition", "clientToken"],
            Kind::ScalableTarget | Kind::ScalingPolicy => {
                &["ServiceNamespace", "ResourceId", "ScalableDimension"]
            }
            Kind::RunTask => &["cluster", "taskDefinition", "clientToken", "startedBy"],
        }
    }
}

/// One document as a request. Strings may hold placeholders of secrets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Loaded {
    /// The request.
    pub(crate) value: Value,
    /// Where it stands, for messages.
    pub(crate) place: String,
    /// What a person should look at.
    pub(crate) warnings: Vec<String>,
}

/// Loads the documents of one step.
pub(crate) struct Reader<'a> {
    pub(crate) executor: &'a EcsExecutor,
    pub(crate) spec: &'a EcsSpec,
    pub(crate) cx: &'a StepContext,
    pub(crate) log: &'a dyn UnitLog,
}

impl Reader<'_> {
    /// The one document that `document` holds; its warnings are written to the log.
    ///
    /// **Errors**: those of the store; `ECS-010` no YAML or JSON, or not one document; `ECS-011` a value of another type;
    /// `ECS-012` an unknown member of a strict step; `ECS-013` an expression without a value. **Cancel**, **Repeat**: safe.
    pub(crate) async fn load(&self, kind: Kind, document: &EcsDocument) -> Result<Loaded, StepError> {
        let mut found = self.load_all(kind, document).await?;
        let place = place_of(document);
        match (found.pop(), found.len()) {
            (Some(one), 0) => Ok(one),
            (None, _) => {
                let what = format!("{place} holds nothing; expected a {}", kind.title());
                Err(bad_spec("ECS-010", what))
            }
            (Some(_), more) => {
                let count = more + 1;
                let what = format!("{place} holds {count} documents; expected one {}", kind.title());
                Err(bad_spec("ECS-010", what).hint("name one file with one document"))
            }
        }
    }

    /// Every document of a store: scaling policies may lie in one file or in several.
    ///
    /// **Errors**: as [`Reader::load`]; none for a store that holds nothing.
    pub(crate) async fn load_all(
        &self,
        kind: Kind,
        document: &EcsDocument,
    ) -> Result<Vec<Loaded>, StepError> {
        let mut loaded = Vec::new();
        match document {
            EcsDocument::Value { place, value } => {
                loaded.push(self.convert(kind, place.clone(), Node::from(value.clone()))?);
            }
            EcsDocument::File { store, .. } => {
                let evaluated = matches!(store, FileStore::Git(_));
                for file in fetch::files(self, store).await? {
                    loaded.extend(self.parse(kind, &file.path, &file.text, evaluated)?);
                }
            }
        }
        for warning in loaded.iter().flat_map(|loaded| &loaded.warnings) {
            self.log.line(Level::Warn, warning).await.map_err(log_closed)?;
        }
        Ok(loaded)
    }

    /// `evaluated`: the text is an author's, with expressions. Inline content was rendered by the manager: what it holds
    /// now may have come from outside, and is never evaluated again.
    fn parse(&self, kind: Kind, path: &str, text: &str, evaluated: bool) -> Result<Vec<Loaded>, StepError> {
        let wrong = |code: &'static str, problem: tree::Problem| {
            bad_spec(code, format!("{path}:{}: {}", problem.line, problem.text))
        };
        let parsed = if evaluated { tree::parse(text) } else { tree::parse_rendered(text) };
        let (documents, blocks) = parsed.map_err(|problem| wrong("ECS-010", problem))?;
        let names = blocks::Names::new(self.spec, self.cx);
        documents
            .into_iter()
            .map(|node| {
                let node = match evaluated {
                    true => blocks.fill(node, &names).map_err(|problem| {
                        wrong("ECS-013", problem).hint("correct the name, or give it a value")
                    })?,
                    false => node,
                };
                self.convert(kind, path.to_owned(), node)
            })
            .collect()
    }

    fn convert(&self, kind: Kind, place: String, node: Node) -> Result<Loaded, StepError> {
        let (mut value, faults) = typed::convert(kind.object(), node, kind.rules());
        let text = |fault: &Fault| match fault.line {
            0 => format!("{place}: {} {}", fault.path, fault.problem),
            line => format!("{place}:{line}: {} {}", fault.path, fault.problem),
        };
        let (unknown, wrong): (Vec<_>, Vec<_>) = faults.iter().partition(|fault| fault.unknown);
        if !wrong.is_empty() {
            let lines: Vec<String> = wrong.into_iter().map(text).collect();
            return Err(bad_spec("ECS-011", lines.join("; "))
                .hint(format!("members and types are those of the AWS request of a {}", kind.title())));
        }
        if self.spec.strict && !unknown.is_empty() {
            let lines: Vec<String> = unknown.into_iter().map(text).collect();
            return Err(bad_spec("ECS-012", lines.join("; "))
                .hint("correct the name, or leave strict mode: then it is sent to AWS as it stands"));
        }
        let mut warnings: Vec<String> = unknown
            .into_iter()
            .map(|fault| format!("{}; it is sent to AWS as it stands", text(fault)))
            .collect();
        if let Value::Object(members) = &mut value {
            for &name in kind.ours() {
                if members.shift_remove(name).is_some() {
                    warnings
                        .push(format!("{place}: {name} is not taken from the document; the step sets it"));
                }
            }
            // AWS takes an empty list of tags for a mistake.
            if members.get("tags").is_some_and(|tags| tags.as_array().is_some_and(Vec::is_empty)) {
                members.shift_remove("tags");
            }
        }
        Ok(Loaded { value, place, warnings })
    }
}

/// Where a document stands, for messages.
pub(crate) fn place_of(document: &EcsDocument) -> String {
    match document {
        EcsDocument::Value { place, .. } => place.clone(),
        EcsDocument::File { identifier, store: FileStore::Git(source) } => {
            format!("manifest {identifier} ({})", source.paths.join(", "))
        }
        EcsDocument::File { identifier, store: FileStore::Inline { .. } } => format!("manifest {identifier}"),
    }
}

/// Whether a text holds a placeholder of a secret.
pub(crate) fn is_secret(text: &str) -> bool {
    text.contains(expr::PLACEHOLDER_HEAD)
}

/// `value` with every secret in clear: only to be sent, or compared with what AWS has.
///
/// **Errors**: `ECS-003` names the member.
pub(crate) fn reveal(value: &Value, secrets: &dyn SecretSource) -> Result<Value, StepError> {
    fn walk(value: &mut Value, path: &str, secrets: &dyn SecretSource) -> Result<(), StepError> {
        match value {
            Value::String(text) if is_secret(text) => {
                let clear = secrets.reveal(&Text(text.clone())).map_err(|error| no_secret(path, error))?;
                clear.expose_secret().clone_into(text);
                Ok(())
            }
            Value::Array(items) => items
                .iter_mut()
                .enumerate()
                .try_for_each(|(index, item)| walk(item, &format!("{path}[{index}]"), secrets)),
            Value::Object(members) => members.iter_mut().try_for_each(|(name, item)| {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(item, &path, secrets)
            }),
            _ => Ok(()),
        }
    }
    let mut value = value.clone();
    walk(&mut value, "", secrets)?;
    Ok(value)
}

#[cfg(test)]
#[path = "documents_tests.rs"]
mod tests;
