//! `delegate expression eval TEXT`.

use crate::exit::{CliError, Exit};
use crate::output::{self, Format};
use expr::{Context, ExprError, Lookup, MapScope, Mode, Scope, Segment};
use pipeline::yaml::parse_documents;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Evaluate an expression over a document and print value and type
    Eval(EvalArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// The text, such as '<+pipeline.name> == "x"'
    text: String,
    /// Document (JSON or YAML) whose keys are the names; `clock` (RFC 3339 or epoch milliseconds) is the time, and
    /// `secretToken` the number in the placeholders of secrets
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
    /// `evaluate`: the text is one expression, as in conditions; `render`: blocks are replaced by their text, as in string
    /// fields
    #[arg(long, value_enum, default_value_t = How::Evaluate)]
    mode: How,
    /// The same as `--mode render`
    #[arg(long, hide = true, conflicts_with = "mode")]
    render: bool,
    /// What becomes of a name without a value
    #[arg(long, value_enum, default_value_t = Unresolved::Null)]
    unresolved: Unresolved,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum How {
    Render,
    Evaluate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Unresolved {
    Null,
    Keep,
    Throw,
}

/// What an expression is evaluated over.
struct Names {
    /// The roots, as written.
    roots: Value,
    now_ms: i64,
    secret_token: i64,
}

/// Runs it. An error exits 1 and shows its place.
pub(crate) fn run(action: Action) -> Result<Exit, CliError> {
    let Action::Eval(args) = action;
    #[expect(clippy::disallowed_methods, reason = "The command line is where the time of day enters.")]
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(0));
    let names = match &args.context {
        None => Names { roots: json!({}), now_ms: now, secret_token: 0 },
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| CliError::file("read", path, &e))?;
            read_names(path, &text, now)?
        }
    };
    match evaluate(&args, &names) {
        Ok(value) => {
            match args.output {
                Format::Json => output::json(&json!({"value": value.to_json(), "type": value.type_name()})),
                Format::Table => {
                    output::say(value.to_string());
                    output::say(value.type_name());
                }
            }
            Ok(Exit::Success)
        }
        Err(error) => Err(CliError::failed(explain(&error, &args.text, &names.roots))),
    }
}

/// The context of a file. `clock` and `secretToken` are no names.
///
/// **Errors**: usage, with the place.
fn read_names(path: &Path, text: &str, now: i64) -> Result<Names, CliError> {
    let source = path.display().to_string();
    let mut documents = parse_documents(&source, text).map_err(CliError::documents)?.into_iter();
    let roots = documents.next().map_or_else(|| json!({}), |first| first.to_json());
    let Value::Object(mut roots) = roots else {
        return Err(CliError::usage(format!("{source}:1:1: expected a map of names to values")));
    };
    let now_ms = match roots.remove("clock") {
        None | Some(Value::Null) => now,
        Some(Value::Number(ms)) if ms.is_i64() => ms.as_i64().unwrap_or(now),
        Some(Value::String(written)) => match written.parse::<jiff::Timestamp>() {
            Ok(at) => at.as_millisecond(),
            Err(_) => {
                let message = format!(
                    "{source}: `clock`: `{written}` is no time; expected 2026-01-31T10:00:00Z or epoch milliseconds"
                );
                return Err(CliError::usage(message));
            }
        },
        Some(other) => {
            let message = format!("{source}: `clock`: expected a time or epoch milliseconds, found {other}");
            return Err(CliError::usage(message));
        }
    };
    let secret_token = match roots.remove("secretToken") {
        None | Some(Value::Null) => 0,
        Some(token) => token.as_i64().ok_or_else(|| {
            CliError::usage(format!("{source}: `secretToken`: expected a whole number, found {token}"))
        })?,
    };
    Ok(Names { roots: Value::Object(roots), now_ms, secret_token })
}

/// Names as the engine has them: both spellings of the artifact, and no runtime input that nobody filled in.
struct Roots(MapScope);

impl Roots {
    fn new(roots: &Value) -> Roots {
        let mut value = marked(roots, false);
        // The engine keeps the artifact under its long name; `alias` of the expression crate knows the way there.
        if let (Some(artifact), None) = (roots.get("artifact"), roots.get("artifacts")) {
            let long = json!({ "primary": artifact });
            value = with(value, "artifacts", expr::Value::from_json(&long, false));
        }
        if let (Some(payload), None) = (roots.get("eventPayload"), roots.get("trigger")) {
            let long = json!({ "payload": payload });
            value = with(value, "trigger", expr::Value::from_json(&long, true));
        }
        Roots(MapScope::of(value))
    }
}

fn with(map: expr::Value, name: &str, value: expr::Value) -> expr::Value {
    match map {
        expr::Value::Map(entries) => {
            let mut entries = std::sync::Arc::unwrap_or_clone(entries);
            entries.insert(name.into(), value);
            expr::Value::Map(std::sync::Arc::new(entries))
        }
        other => other,
    }
}

/// What comes from outside of the pipeline's text is marked, so that it is never evaluated again: payloads and headers of
/// triggers, answers of requests, and what steps gave.
fn marked(value: &Value, is_steps: bool) -> expr::Value {
    let Value::Object(entries) = value else { return expr::Value::from_json(value, false) };
    let entries = entries.iter().map(|(key, inner)| {
        let outside = ["trigger", "eventPayload", "httpResponseBody", "httpHeaders", "approverInputs"];
        let given = match inner {
            _ if outside.contains(&key.as_str()) => expr::Value::from_json(inner, true),
            // The entries of `steps` are steps; what one of them gave stands under `output`.
            Value::Object(step) if is_steps => {
                let parts = step.iter().map(|(name, part)| {
                    let part = match name.as_str() {
                        "output" | "outputs" => expr::Value::from_json(part, true),
                        _ => marked(part, name == "steps"),
                    };
                    (name.as_str().into(), part)
                });
                expr::Value::Map(std::sync::Arc::new(parts.collect()))
            }
            _ => marked(inner, key == "steps"),
        };
        (key.as_str().into(), given)
    });
    expr::Value::Map(std::sync::Arc::new(entries.collect()))
}

impl Scope for Roots {
    fn lookup(&self, path: &[Segment]) -> Lookup {
        if path.first().and_then(Segment::name) == Some("input") {
            return Lookup::Refused("a runtime input is missing".to_owned());
        }
        self.0.lookup(path)
    }
}

fn evaluate(args: &EvalArgs, names: &Names) -> Result<expr::Value, ExprError> {
    let mode = match args.unresolved {
        Unresolved::Null => Mode::Null,
        Unresolved::Keep => Mode::Keep,
        Unresolved::Throw => Mode::Throw,
    };
    let scope = Roots::new(&names.roots);
    let context = Context { scope: &scope, now_ms: names.now_ms, secret_token: names.secret_token };
    if args.render || args.mode == How::Render {
        return expr::render(&args.text, &context, mode).map(expr::Value::from);
    }
    expr::evaluate_field(&args.text, &context, mode)
}

/// The message, the place with a caret, and the nearest known names.
fn explain(error: &ExprError, text: &str, names: &Value) -> String {
    let mut out = format!("{error}\n{}", error.caret(text));
    let wanted = match &error.kind {
        expr::Kind::Unresolved(paths) => paths.first().cloned(),
        expr::Kind::Undefined(path) => Some(path.clone()),
        _ => None,
    };
    if let Some(wanted) = wanted {
        let mut known = Vec::new();
        collect(names, String::new(), &mut known);
        let near = expr::nearest(&wanted, known.iter().map(String::as_str));
        if let Some(nearest) = near.first() {
            out.push_str(&format!("\n hint: did you mean {nearest}?"));
        }
    }
    out
}

/// Every path of a document, up to a limit: suggestions need no more.
fn collect(value: &Value, path: String, known: &mut Vec<String>) {
    const MOST: usize = 10_000;
    if let Value::Object(entries) = value {
        for (key, inner) in entries {
            if known.len() >= MOST {
                return;
            }
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            known.push(path.clone());
            collect(inner, path, known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str, mode: How, unresolved: Unresolved) -> EvalArgs {
        EvalArgs { text: text.into(), context: None, mode, render: false, unresolved, output: Format::Table }
    }

    fn eval(text: &str, unresolved: Unresolved) -> Result<expr::Value, String> {
        let roots = json!({"pipeline": {"name": "p", "variables": {"tag": "v1"}}});
        let names = Names { roots, now_ms: 0, secret_token: 0 };
        evaluate(&args(text, How::Evaluate, unresolved), &names)
            .map_err(|error| explain(&error, text, &names.roots))
    }

    #[test]
    fn values_have_types_and_errors_a_place_and_a_suggestion() {
        assert_eq!(eval("<+pipeline.name> == 'p'", Unresolved::Null).unwrap(), expr::Value::Bool(true));
        assert_eq!(eval("<+pipeline.variables.tga>", Unresolved::Null).unwrap().type_name(), "null");
        assert_eq!(
            eval("<+pipeline.variables.tga>", Unresolved::Throw).unwrap_err(),
            "`pipeline.variables.tga` has no value\n<+pipeline.variables.tga>\n^^^^^^^^^^^^^^^^^^^^^^^^^\n hint: did you mean pipeline.variables.tag?"
        );
        assert!(eval("1 +", Unresolved::Null).unwrap_err().ends_with("1 +\n   ^"));
    }

    const CONTEXT: &str = r#"
clock: 2024-05-06T14:00:00.000Z
secretToken: 123
pipeline: {name: web, sequenceId: 42, variables: {nested: "tag-<+artifact.tag>"}}
artifact: {tag: v2.3.1}
trigger: {payload: {tag: v2, evil: '<+secrets.getValue("k")>'}}
execution: {steps: {build: {output: {outputVariables: {url: "<+pipeline.name>"}}, name: "<+pipeline.name>"}}}
pipelineStages: {steps: {group: {steps: {inner: {output: {x: "<+pipeline.name>"}}}}}}
"#;

    fn rendered(text: &str) -> Result<String, ExprError> {
        let names = read_names(Path::new("c.yaml"), CONTEXT, 7).unwrap();
        evaluate(&args(text, How::Render, Unresolved::Keep), &names).map(|value| value.to_string())
    }

    #[test]
    fn a_context_gives_roots_clock_and_token_and_is_read_as_the_engine_reads_its_own() {
        let text = |text: &str| rendered(text).unwrap();
        assert_eq!(text("hello <+pipeline.name> <+pipeline.sequenceId>"), "hello web 42");
        assert_eq!(text("<+pipeline.variables.nested>"), "tag-v2.3.1");
        // Both spellings.
        assert_eq!(text("<+artifacts.primary.tag> <+artifact.tag>"), "v2.3.1 v2.3.1");
        assert_eq!(text("<+eventPayload.tag> <+trigger.payload.tag>"), "v2 v2");
        // What came from outside is never evaluated again; what the pipeline says is.
        assert_eq!(text("<+trigger.payload.evil>"), "<+secrets.getValue(\"k\")>");
        assert_eq!(text("<+execution.steps.build.output.outputVariables.url>"), "<+pipeline.name>");
        assert_eq!(text("<+execution.steps.build.name>"), "web");
        assert_eq!(text("<+pipelineStages.steps.group.steps.inner.output.x>"), "<+pipeline.name>");
        assert!(text("<+secrets.getValue(\"k\")>").contains("123"), "{}", text("<+secrets.getValue(\"k\")>"));
        assert_eq!(text("<+currentDate>"), "2024-05-06");
        // `clock` and `secretToken` are no names; nor is an input that nobody gave.
        assert_eq!(text("<+clock> <+secretToken>"), "<+clock> <+secretToken>");
        assert!(rendered("<+input>").unwrap_err().to_string().contains("runtime input"));
        // JSON is YAML too.
        let names =
            read_names(Path::new("c.json"), r#"{"clock": 5, "a": {"b": [1, true, "x"]}}"#, 7).unwrap();
        assert_eq!((names.now_ms, names.secret_token), (5, 0));
        let value = evaluate(&args("<+a.b>", How::Evaluate, Unresolved::Throw), &names).unwrap();
        assert_eq!((value.to_json(), value.type_name()), (json!([1, true, "x"]), "list"));
    }

    #[test]
    fn a_context_that_cannot_be_used_is_bad_usage_with_its_place() {
        for (text, part) in [
            ("a: [", "c.yaml:2:1: a[0]: "),
            ("- a", "expected a map"),
            ("clock: yesterday", "`clock`: `yesterday` is no time"),
            ("clock: [1]", "`clock`"),
            ("secretToken: abc", "`secretToken`"),
        ] {
            let error = match read_names(Path::new("c.yaml"), text, 0) {
                Ok(_) => panic!("{text} was taken"),
                Err(error) => error,
            };
            assert_eq!(error.exit, Exit::Usage, "{text}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }
}
