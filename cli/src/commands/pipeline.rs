//! `delegate pipeline run FILE|ID` and `delegate pipeline validate FILE…`.

use crate::client::{CallArgs, Client};
use crate::commands::apply::{self, read};
use crate::commands::watch::{self, Watched};
use crate::exit::{CliError, Exit};
use crate::output::{self, Format, cell, field, list};
use crate::progress::{self, Progress};
use crate::settings::Env;
use pipeline::entities::{EntityKind, parse_entities};
use pipeline::fault::Fault;
use pipeline::yaml::{Node, parse_documents};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Run a pipeline and wait for its end; a FILE is applied first
    Run(RunArgs),
    /// Check documents: every fault and every applied rule at once; needs no manager
    Validate(ValidateArgs),
    /// Fill the placeholders of a template, such as `{{SERVICE_NAME}}`; the result goes to standard output
    Render(RenderArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RenderArgs {
    /// Template
    #[arg(value_name = "TEMPLATE")]
    template: PathBuf,
    /// Value of a placeholder
    #[arg(long, value_name = "NAME=VALUE", value_parser = input)]
    set: Vec<(String, String)>,
}

/// Arguments of `pipeline run`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct RunArgs {
    /// File with one pipeline, or the identifier of one
    #[arg(value_name = "FILE|ID")]
    pub(crate) pipeline: String,
    /// Set a pipeline variable
    #[arg(long, value_name = "NAME=VALUE", value_parser = input)]
    pub(crate) input: Vec<(String, String)>,
    /// Harness input set, or a flat map of variables (YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) inputs: Option<PathBuf>,
    /// Stored input set; given several times, later ones win over earlier ones, and --inputs and --input over all
    #[arg(long = "input-set", value_name = "ID", value_delimiter = ',')]
    pub(crate) input_set: Vec<String>,
    /// Show log lines as they come
    #[arg(long)]
    pub(crate) follow: bool,
    /// Return as soon as it runs
    #[arg(long, conflicts_with = "follow")]
    pub(crate) detach: bool,
    /// Divide waits and analysis windows by N: `60` or `60x`
    #[arg(long, value_name = "N", value_parser = factor)]
    pub(crate) rehearse: Option<u32>,
    #[command(flatten)]
    pub(crate) call: CallArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArgs {
    /// YAML files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Refuse what a tolerance rule would accept
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    call: CallArgs,
}

/// `NAME=VALUE`; the value may be empty and hold more `=`.
pub(crate) fn input(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// The values of `--input` as the manager takes them.
pub(crate) fn inputs(pairs: &[(String, String)]) -> Map<String, Value> {
    pairs.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
}

fn factor(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix(['x', 'X']).unwrap_or(text);
    number
        .parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| "expected a whole number from 1, such as 60 or 60x".to_owned())
}

/// Runs it.
pub(crate) async fn run(action: Action, env: &Env) -> Result<Exit, CliError> {
    match action {
        Action::Run(args) => {
            let client = args.call.client(env)?;
            start(&client, &args, env).await
        }
        Action::Validate(args) => validate(&args, env).await,
        Action::Render(args) => render(&args),
    }
}

/// Applies when a file is given, runs, waits. Also used by quickstart.
pub(crate) async fn start(client: &Client, args: &RunArgs, env: &Env) -> Result<Exit, CliError> {
    let identifier = match file_of(&args.pipeline) {
        None => args.pipeline.clone(),
        Some(path) => apply_pipeline(client, &path).await?,
    };
    let (mut inputs, inputs_yaml) = match args.inputs.as_deref() {
        None => (Map::new(), None),
        Some(path) => {
            let text = read(path)?;
            match flat_inputs(&path.display().to_string(), &text)? {
                Some(variables) => (variables, None),
                None => (Map::new(), Some(text)),
            }
        }
    };
    inputs.extend(self::inputs(&args.input));
    // Faults that only a run can find then name the file, as those of `apply` do.
    let source = file_of(&args.pipeline).map(|path| path.display().to_string());
    let mut body = json!({
        "pipeline": identifier,
        "inputs": inputs,
        "inputsYaml": inputs_yaml,
        "inputSets": (!args.input_set.is_empty()).then_some(&args.input_set),
        "rehearse": args.rehearse,
        "source": source,
    });
    if let Some(entries) = body.as_object_mut() {
        entries.retain(|_, value| !value.is_null());
    }
    let reply = client.post(&["executions"], &body).await.map_err(|mut error| {
        // The manager knows the file of inputs by no name.
        if let Some(path) = &args.inputs {
            for fault in error.faults.iter_mut().filter(|fault| fault.source == "inputs") {
                fault.source = path.display().to_string();
            }
        }
        error
    })?;
    let note = format!("of {identifier}");
    let waiting = Waiting { follow: args.follow, detach: args.detach, output: args.call.output };
    started(client, &reply, &note, waiting, env).await
}

/// How to wait for an execution.
pub(crate) struct Waiting {
    pub(crate) follow: bool,
    pub(crate) detach: bool,
    pub(crate) output: Format,
}

/// An execution has been started: waits for its end unless told otherwise.
pub(crate) async fn started(
    client: &Client,
    reply: &Value,
    note: &str,
    waiting: Waiting,
    env: &Env,
) -> Result<Exit, CliError> {
    let json = waiting.output == Format::Json;
    warnings(reply);
    let id = field(reply, "executionId");
    if id.is_empty() {
        return Err(CliError::failed("the manager named no execution"));
    }
    if waiting.detach {
        if json {
            output::json(reply);
        } else {
            output::say(&id);
            output::tell(format!("follow it: {}", watch::follow_command(&id)));
        }
        return Ok(Exit::Success);
    }
    let mut progress = Progress::new(env, json);
    progress.note(format!("execution {id} {note}"));
    let view = match watch::watch(client, &id, waiting.follow, &mut progress).await? {
        Watched::Ended(view) => view,
        Watched::Interrupted => return Ok(watch::tell_interrupted(&id)),
    };
    if json {
        output::json(&view);
    } else {
        output::say(progress::summary(&view));
    }
    Ok(Exit::of_status(view.get("status").and_then(Value::as_str).unwrap_or("")))
}

/// The variables of a flat map; `None`: the file holds input sets.
///
/// **Errors**: what is no YAML, or no single value.
fn flat_inputs(source: &str, text: &str) -> Result<Option<Map<String, Value>>, CliError> {
    let documents = parse_documents(source, text).map_err(CliError::documents)?;
    let is_set = |node: &Node| ["pipeline", "inputSet"].iter().any(|key| node.get(key).is_some());
    let [one] = documents.as_slice() else { return Ok(None) };
    let Some(map) = one.as_map().filter(|_| !is_set(one)) else { return Ok(None) };
    let mut variables = Map::new();
    for entry in &map.entries {
        let Some(value) = entry.value.as_str() else {
            let message = "expected one value for the variable; an input set has the root key `pipeline`";
            return Err(CliError::documents(vec![Fault::at(&entry.value.at, &entry.key, message)]));
        };
        variables.insert(entry.key.clone(), json!(value));
    }
    Ok(Some(variables))
}

/// A path if the argument means a file: it exists, or it is written like one.
fn file_of(argument: &str) -> Option<PathBuf> {
    let path = Path::new(argument);
    let looks_like = argument.contains('/') || argument.ends_with(".yaml") || argument.ends_with(".yml");
    (looks_like || path.is_file()).then(|| path.to_owned())
}

/// Applies the one pipeline of a file; entities beside it are refused. Returns its identifier.
async fn apply_pipeline(client: &Client, path: &Path) -> Result<String, CliError> {
    let (source, text) = (path.display().to_string(), read(path)?);
    let entities = parse_entities(&source, &text).map_err(CliError::documents)?;
    if let Some(other) = entities.iter().find(|entity| entity.kind != EntityKind::Pipeline) {
        let message = format!(
            "a file to run holds one pipeline, but here stands the {} `{}`",
            other.kind.name(),
            other.id
        );
        let fault = Fault::at(&other.at, other.kind.name(), message);
        return Err(CliError::documents(vec![
            fault.suggest(Some(format!("apply entities first: delegate apply {source}"))),
        ]));
    }
    let pipeline = match entities.as_slice() {
        [one] => one.id.clone(),
        [_, second, ..] => {
            let fault = Fault::at(
                &second.at,
                "pipeline",
                "a file to run holds one pipeline, but here stands a second one",
            );
            return Err(CliError::documents(vec![fault]));
        }
        [] => return Err(CliError::usage(format!("{source}:1:1: the file holds no pipeline"))),
    };
    let reply = apply::apply(client, &[path.to_owned()]).await?;
    for result in list(&reply, "results") {
        output::tell(apply::result_line(result));
    }
    let notices = list(&reply, "notices").len();
    if notices > 0 {
        let made = output::count(notices, "assumption");
        output::tell(format!("made on the way: {made}; `delegate pipeline validate {source}` lists them"));
    }
    Ok(pipeline)
}

/// Tells what the look-ahead found.
fn warnings(reply: &Value) {
    for warning in list(reply, "warnings") {
        let field = |name: &str| field(warning, name);
        output::tell(format!("warning: {}: {}", field("code"), field("message")));
        if !field("hint").is_empty() {
            output::tell(format!(" hint: {}", field("hint")));
        }
    }
}

async fn validate(args: &ValidateArgs, env: &Env) -> Result<Exit, CliError> {
    let client = args.call.client_if_named(env)?;
    let mut faults: Vec<Value> = Vec::new();
    let mut notices: Vec<Value> = Vec::new();
    for path in &args.files {
        let (source, text) = (path.display().to_string(), read(path)?);
        let (mut more_faults, mut more_notices) = match &client {
            Some(client) => {
                let mode = if args.strict { "strict" } else { "lenient" };
                let body = json!({"source": source, "yaml": text, "mode": mode});
                let reply = client.post(&["pipelines", "validate"], &body).await?;
                (list(&reply, "faults").to_vec(), list(&reply, "notices").to_vec())
            }
            None => validate_offline(&source, &text, args.strict),
        };
        faults.append(&mut more_faults);
        notices.append(&mut more_notices);
    }
    let exit = if faults.is_empty() { Exit::Success } else { Exit::Usage };
    match args.call.output {
        Format::Json => output::json(&json!({"faults": faults, "notices": notices})),
        Format::Table => {
            for notice in &notices {
                output::say(format!("notice {}", apply::notice_line(notice)));
            }
            for fault in &faults {
                match serde_json::from_value::<Fault>(fault.clone()) {
                    Ok(fault) => output::say(format!("fault  {fault}")),
                    Err(_) => output::say(format!("fault  {}", cell(fault))),
                }
            }
            let checked =
                if client.is_some() { "" } else { "; references were not checked, for no manager is named" };
            let found = output::count(faults.len(), "fault");
            output::tell(format!("{found}, {}{checked}", output::count(notices.len(), "assumption")));
        }
    }
    Ok(exit)
}

/// Prints the rendered text, unless a placeholder has no value.
fn render(args: &RenderArgs) -> Result<Exit, CliError> {
    let mut values = BTreeMap::new();
    for (name, value) in &args.set {
        if values.insert(name.clone(), value.clone()).is_some() {
            return Err(CliError::usage(format!("--set {name} is given twice")));
        }
    }
    let source = args.template.display().to_string();
    let text =
        pipeline::template::render(&source, &read(&args.template)?, &values).map_err(CliError::documents)?;
    output::write(text.as_bytes())?;
    Ok(Exit::Success)
}

/// What the documents themselves tell, without entities to refer to.
fn validate_offline(source: &str, text: &str, strict: bool) -> (Vec<Value>, Vec<Value>) {
    let (faults, notices) = match parse_entities(source, text) {
        Ok(entities) => (Vec::new(), entities.into_iter().flat_map(|entity| entity.notices).collect()),
        Err(faults) => (faults, Vec::new()),
    };
    let refused = notices.iter().filter(|_| strict).map(|notice| {
        let pipeline::fault::Notice { code, yaml_path, assumed, source, line, column } = notice.clone();
        let message = format!("{code}: strict mode does not assume: {assumed}");
        Fault { source, line, column, path: yaml_path, message, suggestion: None }
    });
    let faults: Vec<Fault> = faults.into_iter().chain(refused).collect();
    let notices = if strict { Vec::new() } else { notices };
    let to_json = |value: serde_json::Result<Value>| value.unwrap_or(Value::Null);
    (
        faults.iter().map(|fault| to_json(serde_json::to_value(fault))).collect(),
        notices.iter().map(|notice| to_json(serde_json::to_value(notice))).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_and_inputs_are_read() {
        assert_eq!([factor("60"), factor("60x"), factor("1X")], [Ok(60), Ok(60), Ok(1)]);
        assert!(factor("0").is_err() && factor("x").is_err() && factor("-1").is_err());
        assert_eq!(input("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(input("a="), Ok(("a".into(), String::new())));
        assert!(input("=b").is_err() && input("a").is_err());
    }

    #[test]
    fn a_template_needs_every_value_once() {
        let dir = tempfile::tempdir().unwrap();
        let template = dir.path().join("t.yaml");
        std::fs::write(&template, "name: {{TEAM}}\n").unwrap();
        let set = |list: &[(&str, &str)]| RenderArgs {
            template: template.clone(),
            set: list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        };
        assert_eq!(render(&set(&[])).unwrap_err().exit, Exit::Usage);
        assert_eq!(render(&set(&[("TEAM", "a"), ("TEAM", "b")])).unwrap_err().exit, Exit::Usage);
        assert_eq!(render(&set(&[("TEAM", "a")])).unwrap(), Exit::Success);
    }

    #[test]
    fn a_file_of_inputs_is_an_input_set_or_a_flat_map() {
        let flat = flat_inputs("in.yaml", "tag: v5\nport: 8080\non: true\nempty: \"\"\n").unwrap().unwrap();
        let expected = json!({"tag": "v5", "port": "8080", "on": "true", "empty": ""});
        assert_eq!(Value::Object(flat), expected);
        for set in ["pipeline: {identifier: p}", "inputSet: {identifier: i, pipeline: {}}", ""] {
            assert_eq!(flat_inputs("in.yaml", set).unwrap(), None, "{set}");
        }
        let error = flat_inputs("in.yaml", "tag: v5\nlist: [a]\n").unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.to_string().starts_with("in.yaml:2:"), "{error}");
    }

    #[test]
    fn files_are_told_from_identifiers() {
        assert!(file_of("p.yaml").is_some() && file_of("./p").is_some());
        assert!(file_of("my_pipeline").is_none());
    }

    #[test]
    fn validation_without_a_manager_finds_places() {
        let (faults, _) = validate_offline("p.yaml", "pipelin:\n  name: x\n", false);
        assert_eq!(faults[0]["line"], 1);
        assert_eq!(faults[0]["source"], "p.yaml");
        let (faults, _) = validate_offline("p.yaml", "a: [", false);
        assert!(!faults.is_empty());
    }
}
