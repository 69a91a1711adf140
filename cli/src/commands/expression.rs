//! `delegate expression eval TEXT`.

use crate::exit::{CliError, Exit};
use crate::output::{self, Format};
use expr::{Context, ExprError, MapScope, Mode};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Evaluate an expression over a JSON document and print value and type
    Eval(EvalArgs),
}

#[derive(Debug, clap::Args)]
struct EvalArgs {
    /// The text, such as '<+pipeline.name> == "x"'
    text: String,
    /// JSON document whose keys are the names
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
    /// Replace blocks by their text, as in string fields, instead of evaluating the whole
    #[arg(long)]
    render: bool,
    /// What becomes of a name without a value
    #[arg(long, value_enum, default_value_t = Unresolved::Null)]
    unresolved: Unresolved,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Unresolved {
    Null,
    Keep,
    Throw,
}

/// Runs it. An error exits 1 and shows its place.
pub(crate) fn run(args: Args) -> Result<Exit, CliError> {
    let Action::Eval(args) = args.action;
    let names = match &args.context {
        None => json!({}),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| CliError::file("read", path, &e))?;
            serde_json::from_str(&text).map_err(|e| {
                CliError::usage(format!("{}:{}:{}: no JSON: {e}", path.display(), e.line(), e.column()))
            })?
        }
    };
    #[expect(clippy::disallowed_methods, reason = "The command line is where the time of day enters.")]
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(0));
    match evaluate(&args, &names, now) {
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
        Err(error) => Err(CliError::failed(explain(&error, &args.text, &names))),
    }
}

fn evaluate(args: &EvalArgs, names: &Value, now_ms: i64) -> Result<expr::Value, ExprError> {
    let mode = match args.unresolved {
        Unresolved::Null => Mode::Null,
        Unresolved::Keep => Mode::Keep,
        Unresolved::Throw => Mode::Throw,
    };
    let scope = MapScope::new(names);
    let context = Context { scope: &scope, now_ms, secret_token: 0 };
    if args.render {
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

    fn eval(text: &str, unresolved: Unresolved) -> Result<expr::Value, String> {
        let names = json!({"pipeline": {"name": "p", "variables": {"tag": "v1"}}});
        let args =
            EvalArgs { text: text.into(), context: None, render: false, unresolved, output: Format::Table };
        evaluate(&args, &names, 0).map_err(|error| explain(&error, text, &names))
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
}
