//! Expressions of a file: cut out of the text, evaluated over what the task knows, put back as values.

use super::tree::{Content, Node, Problem, Style};
use executor_api::StepContext;
use expr::scan::{self, Part};
use expr::{Context, MapScope, Mode, Value};
use proto::task::{Artifact, ArtifactSource, EcsAction, EcsSpec};
use proto::text::placeholders;
use std::collections::BTreeMap;

/// What stands in the text for a block: a pair of characters of the private use area around its number.
const BEGIN: char = '\u{E000}';
const END: char = '\u{E001}';

/// The blocks of one text, in their order, as they were written.
#[derive(Debug, Default)]
pub(super) struct Blocks(Vec<String>);

impl Blocks {
    /// The text with a mark for each block.
    ///
    /// **Errors**: the line, and what is wrong there.
    pub(super) fn cut(text: &str) -> Result<(String, Blocks), (usize, String)> {
        let line = |at: usize| text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        if let Some(at) = text.find([BEGIN, END, '\0']) {
            return Err((line(at), "holds a character that no text has (NUL, U+E000 or U+E001)".to_owned()));
        }
        if !scan::has_blocks(text) {
            return Ok((text.to_owned(), Blocks::default()));
        }
        let parts = scan::scan(text).map_err(|error| (line(error.span.start), error.message))?;
        let (mut marked, mut blocks) = (String::with_capacity(text.len()), Vec::new());
        for part in parts {
            match part {
                Part::Text(range) => marked.push_str(text.get(range).unwrap_or_default()),
                Part::Block(block) => {
                    marked.push_str(&format!("{BEGIN}{}{END}", blocks.len()));
                    blocks.push(text.get(block.span).unwrap_or_default().to_owned());
                }
            }
        }
        Ok((marked, Blocks(blocks)))
    }

    /// `text` with its blocks as they were written. In double quotes, `\"` and `\\` of a block mean `"` and `\`.
    fn restore(&self, text: &str, style: Style) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(BEGIN) {
            out.push_str(before);
            let Some((number, after)) = after.split_once(END) else { break };
            let block = number.parse::<usize>().ok().and_then(|number| self.0.get(number));
            let block = block.map_or("", String::as_str);
            match style {
                Style::Double => out.push_str(&block.replace("\\\"", "\"").replace("\\\\", "\\")),
                _ => out.push_str(block),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// Puts the value of every expression into `node`. Keys may hold expressions too.
    ///
    /// **Errors**: the first that has no value, with its line; also text that imitates a secret.
    pub(super) fn fill(&self, node: Node, names: &Names<'_>) -> Result<Node, Problem> {
        let line = node.line;
        let content = match node.content {
            Content::Scalar { text, style } => self.value(text, style, line, names)?,
            Content::Value(serde_json::Value::String(text)) => {
                self.value(text, Style::Double, line, names)?
            }
            Content::List(items) => {
                let items = items.into_iter().map(|item| self.fill(item, names));
                Content::List(items.collect::<Result<_, _>>()?)
            }
            Content::Map(entries) => {
                let mut filled: Vec<(String, Node)> = Vec::with_capacity(entries.len());
                for (key, node) in entries {
                    let at = if node.line == 0 { line } else { node.line };
                    let key = match self.value(key, Style::Other, at, names)? {
                        Content::Scalar { text, .. } => text,
                        Content::Value(serde_json::Value::String(text)) => text,
                        Content::Value(other) => other.to_string(),
                        _ => return Err(Problem { line: at, text: "a key is a list or a map".to_owned() }),
                    };
                    if filled.iter().any(|(other, _)| *other == key) {
                        let text = format!("the key `{key}` is written twice");
                        return Err(Problem { line: at, text });
                    }
                    filled.push((key, self.fill(node, names)?));
                }
                Content::Map(filled)
            }
            other @ Content::Value(_) => other,
        };
        Ok(Node { line, content })
    }

    fn value(&self, text: String, style: Style, line: usize, names: &Names<'_>) -> Result<Content, Problem> {
        if !text.contains(BEGIN) && !text.contains(expr::PLACEHOLDER_HEAD) {
            return Ok(Content::Scalar { text, style });
        }
        let written = self.restore(&text, style);
        match expr::render_value(&written, &names.context(), Mode::Throw) {
            // A single expression without quotes keeps its type; everything else is text.
            Ok(value) if style == Style::Plain && !matches!(value, Value::Str(_)) => {
                Ok(Node::from(names.opened(value.to_json())).content)
            }
            Ok(value) => {
                let text = serde_json::Value::String(value.to_string());
                Ok(Content::Value(names.opened(text)))
            }
            Err(error) => {
                let mut text = format!("`{}`: {error}", shorten(&written));
                if error.is_unresolved() {
                    text.push_str("; expressions of a file know artifact, service, serviceVariables, env, infra, pipeline and stage");
                }
                Err(Problem { line, text })
            }
        }
    }
}

fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    let first: String = text.lines().next().unwrap_or_default().chars().take(MOST).collect();
    if first.len() < text.len() { format!("{first}…") } else { first }
}

/// What expressions of a file may name, and what they are evaluated with.
///
/// Values are final: what came from outside is never evaluated again. Text of service variables may hold placeholders of
/// secrets; the evaluator gets a mark in place of each genuine one, since it takes every placeholder in a final text for an
/// imitation.
pub(super) struct Names<'a> {
    scope: MapScope,
    placeholders: Vec<String>,
    cx: &'a StepContext,
}

impl<'a> Names<'a> {
    pub(super) fn new(spec: &EcsSpec, cx: &'a StepContext) -> Names<'a> {
        let mut names = Names { scope: MapScope::default(), placeholders: Vec::new(), cx };
        let root = names.root(spec);
        names.scope = MapScope::of(root);
        names
    }

    fn context(&self) -> Context<'_> {
        Context {
            scope: &self.scope,
            now_ms: i64::try_from(self.cx.clock.wall()).unwrap_or(i64::MAX),
            secret_token: self.cx.task.secret_token,
        }
    }

    /// A final text with a mark for each placeholder of this execution.
    fn closed(&mut self, text: &str) -> Value {
        let text = &text.replace([BEGIN, END], "");
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for found in placeholders(text).into_iter().filter(|found| found.token == self.cx.task.secret_token) {
            out.push_str(text.get(from..found.range.start).unwrap_or_default());
            out.push_str(&format!("{BEGIN}{}{END}", self.placeholders.len()));
            self.placeholders.push(text.get(found.range.clone()).unwrap_or_default().to_owned());
            from = found.range.end;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        Value::tainted(out)
    }

    /// A result with the placeholders that its marks stand for.
    fn opened(&self, value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::String(mut text) if text.contains(BEGIN) => {
                for (number, placeholder) in self.placeholders.iter().enumerate() {
                    text = text.replace(&format!("{BEGIN}{number}{END}"), placeholder);
                }
                serde_json::Value::String(text)
            }
            serde_json::Value::Array(items) => items.into_iter().map(|item| self.opened(item)).collect(),
            serde_json::Value::Object(members) => serde_json::Value::Object(
                members.into_iter().map(|(name, value)| (name, self.opened(value))).collect(),
            ),
            scalar => scalar,
        }
    }

    fn root(&mut self, spec: &EcsSpec) -> Value {
        let task = self.cx.task.clone();
        let mut root: BTreeMap<String, Value> = BTreeMap::new();
        if matches!(spec.action, EcsAction::EcsBlueGreenCreateService { .. }) {
            // It stands for itself until the step knows which group gets no production requests.
            root.insert("targetGroupArn".to_owned(), Value::tainted("<+targetGroupArn>"));
        }
        let map = |entries: Vec<(&str, Value)>| {
            Value::map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)))
        };
        if let Some(artifact) = &task.artifact {
            let fields = image_fields(artifact);
            let artifact = map(fields.iter().map(|(key, value)| (*key, plain(value.as_str()))).collect());
            root.insert("artifacts".to_owned(), map(vec![("primary", artifact.clone())]));
            root.insert("artifact".to_owned(), artifact);
        }
        if let Some(service) = &task.service {
            let mut variables = Vec::new();
            for (name, value) in &service.variables {
                variables.push((name.clone(), self.closed(value.as_str())));
            }
            let variables = Value::map(variables);
            root.insert("serviceVariables".to_owned(), variables.clone());
            let service = vec![
                ("identifier", plain(service.identifier.as_str())),
                ("name", plain(service.name.as_str())),
                ("variables", variables),
            ];
            root.insert("service".to_owned(), map(service));
        }
        let mut infra = vec![
            ("region", plain(spec.account.region.as_str())),
            ("connectorRef", plain(spec.account.connector.as_str())),
            ("cluster", plain(spec.cluster.as_str())),
        ];
        infra.extend(spec.namespace.as_deref().map(|namespace| ("namespace", plain(namespace))));
        if let Some(known) = &task.infrastructure {
            let identifier = plain(known.identifier.as_str());
            infra.extend([
                ("identifier", identifier.clone()),
                ("infraIdentifier", identifier.clone()),
                ("name", identifier),
                ("type", plain(known.kind.as_str())),
                ("infrastructureKey", plain(known.key.as_str())),
            ]);
            let environment = plain(known.environment.as_str());
            root.insert(
                "env".to_owned(),
                map(vec![("identifier", environment.clone()), ("name", environment)]),
            );
        }
        root.insert("infra".to_owned(), map(infra));
        let run = &task.execution;
        let pipeline = vec![
            ("identifier", plain(run.pipeline.as_str())),
            ("executionId", plain(run.execution_id.as_str())),
            ("sequenceId", Value::from(i64::try_from(run.sequence_id).unwrap_or(i64::MAX))),
        ];
        root.insert("pipeline".to_owned(), map(pipeline));
        root.insert("stage".to_owned(), map(vec![("identifier", plain(run.stage.as_str()))]));
        // The manager knows more, names of environments and their variables among it.
        for (first, told) in spec.context.as_object().into_iter().flatten() {
            match (root.get_mut(first), self.told(told)) {
                (Some(Value::Map(own)), Value::Map(told)) => {
                    let told = told.iter().map(|(name, value)| (name.clone(), value.clone()));
                    std::sync::Arc::make_mut(own).extend(told);
                }
                (_, told) => drop(root.insert(first.clone(), told)),
            }
        }
        Value::map(root)
    }

    /// What the manager resolved, as final values.
    fn told(&mut self, value: &serde_json::Value) -> Value {
        match value {
            serde_json::Value::String(text) => self.closed(text),
            serde_json::Value::Array(items) => {
                Value::list(items.iter().map(|item| self.told(item)).collect())
            }
            serde_json::Value::Object(members) => Value::map(
                members.iter().map(|(name, value)| (name.clone(), self.told(value))).collect::<Vec<_>>(),
            ),
            scalar => Value::from_json(scalar, true),
        }
    }
}

/// A final text. Nobody outside may write a mark.
fn plain(text: &str) -> Value {
    Value::tainted(text.replace([BEGIN, END], ""))
}

/// `artifact.*`. Without a host in the image's path, the registry of the account is named only when its number is known.
fn image_fields(artifact: &Artifact) -> Vec<(&'static str, String)> {
    let mut fields = vec![("tag", artifact.tag.clone())];
    if let Some(digest) = &artifact.digest {
        fields.push(("digest", digest.clone()));
    }
    match &artifact.source {
        ArtifactSource::ArtifactoryRegistry(source) => {
            fields.extend([("repository", source.repository.clone()), ("path", source.path.clone())]);
            fields
                .extend([("artifactPath", source.path.clone()), ("type", "ArtifactoryRegistry".to_owned())]);
        }
        ArtifactSource::DockerRegistry { image_path, .. } => {
            fields.extend([("imagePath", image_path.clone()), ("type", "DockerRegistry".to_owned())]);
        }
        ArtifactSource::Ecr { image_path, account, .. } => {
            fields.extend([("imagePath", image_path.clone()), ("type", "Ecr".to_owned())]);
            fields.push(("region", account.region.clone()));
        }
    }
    if let Some(repository) = crate::task_definition::repository(artifact) {
        fields.push(("image", format!("{repository}:{}", artifact.tag)));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_api::testing::World;
    use proto::task::{NoopSpec, Step, StepSpec, StepTask};
    use proto::text::{SecretRef, placeholder};
    use serde_json::json;

    fn world() -> World {
        let spec = StepSpec::Noop(NoopSpec { line: String::new() });
        let step = Step { identifier: "s".into(), name: "s".into(), spec };
        World::new("t", StepTask { secret_token: 7, ..StepTask::of(step) }, [])
    }

    fn fill(text: &str) -> Result<Vec<Node>, Problem> {
        let variables = json!({"count": "3", "subnets": ["a", "b"], "evil": "x\nprivileged: true <+secrets.getValue(\"pw\")>"});
        let mut root = expr::Value::from_json(&json!({"artifact": {"image": "r/a:1"}, "n": 4}), true);
        if let Value::Map(entries) = &mut root {
            let entries = std::sync::Arc::make_mut(entries);
            entries.insert("serviceVariables".into(), Value::from_json(&variables, true));
        }
        let world = world();
        let (_handle, cx) = world.context();
        let names = Names { scope: MapScope::of(root), placeholders: Vec::new(), cx: &cx };
        let (documents, blocks) = super::super::tree::parse(text)?;
        documents.into_iter().map(|node| blocks.fill(node, &names)).collect()
    }

    fn shown(text: &str) -> serde_json::Value {
        fn value(node: Node) -> serde_json::Value {
            match node.content {
                Content::Scalar { text, .. } => text.into(),
                Content::Value(value) => value,
                Content::List(items) => items.into_iter().map(value).collect(),
                Content::Map(entries) => {
                    serde_json::Value::Object(entries.into_iter().map(|(k, v)| (k, value(v))).collect())
                }
            }
        }
        value(fill(text).unwrap().remove(0))
    }

    #[test]
    fn values_take_their_place_and_cannot_change_the_structure() {
        let text = "image: <+artifact.image>\nname: web-<+n>\nport: <+n>\nquoted: \"<+n>\"\nwhen: <+n \\> 3 ? \"a: b\" : \"c\">\n# <+nothing.at.all>\nnets: <+serviceVariables.subnets>\nevil: <+serviceVariables.evil>\n";
        assert_eq!(
            shown(text),
            json!({"image": "r/a:1", "name": "web-4", "port": 4, "quoted": "4", "when": "a: b", "nets": ["a", "b"],
                "evil": "x\nprivileged: true <+secrets.getValue(\"pw\")>"})
        );
        let json = "{\"desiredCount\": <+serviceVariables.count>, \"v\": \"<+json.select(\\\"a\\\", \"{}\") == null>\"}";
        assert!(fill(json).is_err() || shown(json)["desiredCount"] == "3");
    }

    #[test]
    fn secrets_become_placeholders_and_handwritten_ones_are_refused() {
        let wanted = placeholder(&SecretRef("pw".into()), 7);
        assert_eq!(shown("a: <+secrets.getValue(\"pw\")>"), json!({"a": wanted}));
        let problem = fill(&format!("b: 1\na: '{wanted}'")).unwrap_err();
        assert_eq!(problem.line, 2);
        assert!(problem.text.contains("secrets.getValue"), "{}", problem.text);
    }

    #[test]
    fn an_unknown_reference_is_named_with_its_line() {
        let problem = fill("a: 1\nb:\n  c: <+serviceVariables.cuont>\n").unwrap_err();
        assert_eq!(problem.line, 3);
        assert!(problem.text.contains("serviceVariables.cuont"), "{}", problem.text);
        let problem = fill("a: <+trigger.payload.x>\n").unwrap_err();
        assert!(problem.text.contains("trigger.payload.x"), "{}", problem.text);
    }
}
