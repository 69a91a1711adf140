//! `delegate apply PATH…`.

use crate::client::{CallArgs, Client};
use crate::exit::{CliError, Exit};
use crate::output::{self, Format, field, list};
use crate::settings::Env;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Documents beyond this are refused before they are sent.
const MAX_DOCUMENT_BYTES: u64 = 10 << 20;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// YAML files, or folders with such files
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) call: CallArgs,
}

/// Applies; all or nothing.
pub(crate) async fn run(args: &Args, env: &Env) -> Result<Exit, CliError> {
    let files = files(&args.paths)?;
    let reply = apply(&args.call.client(env)?, &files).await?;
    match args.call.output {
        Format::Json => output::json(&reply),
        Format::Table => {
            for result in list(&reply, "results") {
                output::say(result_line(result));
            }
            notices(&reply);
        }
    }
    Ok(Exit::Success)
}

/// Sends files; returns the reply of the manager.
pub(crate) async fn apply(client: &Client, files: &[PathBuf]) -> Result<Value, CliError> {
    let mut documents = Vec::new();
    for file in files {
        documents.push(json!({"source": file.display().to_string(), "yaml": read(file)?}));
    }
    client.post(&["apply"], &json!({"documents": documents})).await
}

/// `connector docker created`.
pub(crate) fn result_line(result: &Value) -> String {
    let field = |name: &str| field(result, name);
    format!("{} {} {}", field("kind"), field("id"), field("result"))
}

/// Tells every applied tolerance rule on standard error.
pub(crate) fn notices(reply: &Value) {
    for notice in list(reply, "notices") {
        output::tell(notice_line(notice));
    }
}

/// `p.yaml:3:5: R1.identity: assumed …`.
pub(crate) fn notice_line(notice: &Value) -> String {
    let field = |name: &str| field(notice, name);
    format!(
        "{}:{}:{}: {}: {}",
        field("source"),
        field("line"),
        field("column"),
        field("code"),
        field("assumed")
    )
}

/// The text of a document.
pub(crate) fn read(path: &Path) -> Result<String, CliError> {
    let size = std::fs::metadata(path).map_err(|e| CliError::file("read", path, &e))?.len();
    if size > MAX_DOCUMENT_BYTES {
        let message = format!(
            "{}:1:1: the document has {size} bytes; at most {MAX_DOCUMENT_BYTES} are accepted",
            path.display()
        );
        return Err(CliError::usage(message));
    }
    let bytes = std::fs::read(path).map_err(|e| CliError::file("read", path, &e))?;
    String::from_utf8(bytes).map_err(|e| {
        let line =
            e.as_bytes().iter().take(e.utf8_error().valid_up_to()).filter(|b| **b == b'\n').count() + 1;
        CliError::usage(format!("{}:{line}:1: the document is no UTF-8 text", path.display()))
    })
}

/// The YAML files that `paths` name, folders searched in the order of names, hidden files left out.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = found.len();
            folder(path, &mut found, 0)?;
            if found.len() == before {
                return Err(CliError::usage(format!("{} holds no .yaml or .yml file", path.display())));
            }
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn folder(path: &Path, found: &mut Vec<PathBuf>, depth: usize) -> Result<(), CliError> {
    const MAX_DEPTH: usize = 20;
    if depth > MAX_DEPTH {
        return Err(CliError::usage(format!("{} is nested deeper than {MAX_DEPTH} folders", path.display())));
    }
    let error = |e: std::io::Error| CliError::file("read", path, &e);
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(error)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .map_err(error)?;
    entries.sort();
    for entry in entries {
        let name = entry.file_name().and_then(|n| n.to_str()).unwrap_or(".");
        if name.starts_with('.') {
            continue;
        }
        if entry.is_dir() {
            folder(&entry, found, depth + 1)?;
        } else if matches!(entry.extension().and_then(|e| e.to_str()), Some("yaml" | "yml")) {
            found.push(entry);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_searched_in_order_and_hidden_files_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", ".hidden.yaml", "notes.txt", "sub/c.yaml", ".git/d.yaml"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let names: Vec<String> = files(&[dir.path().to_owned()])
            .unwrap()
            .iter()
            .map(|p| p.strip_prefix(dir.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["a.yml", "b.yaml", "sub/c.yaml"]);
        assert_eq!(
            files(&[dir.path().join(".git/none")]).unwrap().len(),
            1,
            "a missing file is told when it is read"
        );
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        assert_eq!(files(&[dir.path().join("empty")]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn documents_must_be_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.yaml");
        std::fs::write(&path, b"a: 1\nb: \xff").unwrap();
        assert!(read(&path).unwrap_err().message.contains("x.yaml:2:1"));
    }
}
