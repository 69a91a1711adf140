//! `delegate policy eval`: a policy without a manager.

use crate::exit::{CliError, Exit};
use crate::output::{self, Format};
use jiff::Timestamp;
use manager::policy::{Asked, AskedPolicy, Judges, Limits, Status, SyntaxFault, Verdict, check, select};
use pipeline::entities::{CatalogEntity, Snapshot, parse_entities};
use pipeline::fault::{Fault, Place};
use pipeline::model::policy::Severity;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Ask a policy, or a policy set of a file, about an input; exits 1 when it is denied
    Eval(EvalArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// A Rego text (.rego), or a YAML file with `policy` and `policySet` documents
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Policy set of the YAML file
    #[arg(long, value_name = "ID")]
    set: Option<String>,
    /// The input: JSON, or @FILE
    #[arg(long, value_name = "JSON")]
    input: String,
    /// What `time.now_ns()` gives, such as 2026-11-20T12:00:00Z; now when it is left out
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// Runs it.
pub(crate) async fn run(action: Action) -> Result<Exit, CliError> {
    let Action::Eval(args) = action;
    let asked = asked(&args.file, args.set.as_deref())?;
    let text = match args.input.strip_prefix('@') {
        Some(path) => read(Path::new(path))?,
        None => args.input.clone(),
    };
    let input: Value = serde_json::from_str(&text).map_err(|error| {
        CliError::usage(format!("--input: no JSON: {error} (write @FILE to read it from a file)"))
    })?;
    #[expect(clippy::disallowed_methods, reason = "The command line is where the time of day enters.")]
    let at = match args.at {
        Some(at) => at,
        None => Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH),
    };
    let now_ms = u64::try_from(at.as_millisecond()).unwrap_or(0);
    let verdict = Judges::default()
        .judge(asked, input, now_ms)
        .await
        .map_err(|error| CliError::failed(error.to_string()))?;
    show(&verdict, args.output);
    Ok(if verdict.status == Status::Error { Exit::Failed } else { Exit::Success })
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::file("read", path, &error))
}

fn asked(file: &Path, set: Option<&str>) -> Result<Vec<Asked>, CliError> {
    let text = read(file)?;
    let source = file.display().to_string();
    if file.extension().is_some_and(|extension| extension == "rego") {
        let policy = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        readable(&text).map_err(|fault| {
            CliError::documents(vec![Fault::at(&place(&source, &fault), "", fault.message)])
        })?;
        let policies = vec![AskedPolicy { policy: policy.clone(), severity: Severity::Error, rego: text }];
        return Ok(vec![Asked { set: policy, policies }]);
    }
    let entities = parse_entities(&source, &text).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        CliError::usage(lines.join("\n"))
    })?;
    let entities: Vec<CatalogEntity> = entities.into_iter().map(CatalogEntity::from).collect();
    let sets: Vec<String> = match set {
        Some(set) => vec![set.to_owned()],
        None => {
            let sets = entities.iter().filter(|entity| entity.kind.name() == "policySet");
            sets.map(|entity| entity.id.clone()).collect()
        }
    };
    if sets.is_empty() {
        return Err(CliError::usage(format!("{source} holds no `policySet`")));
    }
    let catalog = Snapshot { entities, secrets: Vec::new() };
    let asked = select(&catalog, "", &sets).map_err(|error| CliError::usage(error.to_string()))?;
    for policy in asked.iter().flat_map(|set| &set.policies) {
        readable(&policy.rego).map_err(|fault| {
            CliError::usage(format!("{source}: the policy `{}` cannot be read: {fault}", policy.policy))
        })?;
    }
    Ok(asked)
}

/// A text that is no policy is a wrong document, and denies nothing.
fn readable(rego: &str) -> Result<(), SyntaxFault> {
    check(rego, &Limits::default()).map(drop)
}

fn place(source: &str, fault: &SyntaxFault) -> Place {
    Place { line: fault.line, column: fault.column, ..Place::start(source) }
}

fn show(verdict: &Verdict, format: Format) {
    match format {
        Format::Json => {
            output::json(&json!({ "status": verdict.status.name(), "policySetDetails": verdict.details() }));
        }
        Format::Table => {
            output::say(verdict.status.name());
            for status in [Status::Error, Status::Warning] {
                for line in verdict.lines(status) {
                    output::say(format!("{}: {line}", status.name()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_policy_is_bad_usage_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let rego = dir.path().join("bad.rego");
        std::fs::write(&rego, "package p\ndeny[x] {\n").unwrap();
        let error = asked(&rego, None).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.to_string().starts_with(&format!("{}:2:", rego.display())), "{error}");
        std::fs::write(&rego, "package p\nimport rego.v1\ndeny contains \"x\" if input.x\n").unwrap();
        assert_eq!(asked(&rego, None).unwrap().len(), 1);

        let yaml = dir.path().join("set.yaml");
        let text = "policySet: {identifier: s, name: s, policies: [{identifier: p, severity: error}]}\n---\npolicy: {identifier: p, name: p, rego: 'package p deny['}\n";
        std::fs::write(&yaml, text).unwrap();
        let error = asked(&yaml, None).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.to_string().contains("the policy `p` cannot be read"), "{error}");
    }
}
