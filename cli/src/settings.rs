//! Where client settings come from: flags, environment, the context file. The environment is read once, in `main`.

use crate::client::ClientArgs;
use crate::exit::CliError;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The environment of the process. Names and values that are no UTF-8 are left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Env(pub(crate) BTreeMap<String, String>);

impl Env {
    /// A variable; an empty one counts as not set.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `$XDG_CONFIG_HOME/delegate/context.toml`, else below `$HOME/.config`.
    pub(crate) fn context_file(&self) -> Option<PathBuf> {
        let base = match self.get("XDG_CONFIG_HOME") {
            Some(base) => PathBuf::from(base),
            None => PathBuf::from(self.get("HOME")?).join(".config"),
        };
        Some(base.join("delegate").join("context.toml"))
    }
}

/// The context file: which manager to talk to when nothing else says so.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContextFile {
    /// URL of the manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manager_url: Option<String>,
    /// API key. The file has mode 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) api_key: Option<String>,
    /// Certificates to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Who wrote it; quickstart replaces and removes only its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) written_by: Option<String>,
}

/// What a client needs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// URL of the manager, if any.
    pub(crate) manager: Option<String>,
    /// API key; empty when none was given.
    pub(crate) api_key: SecretString,
    /// Certificates to trust.
    pub(crate) ca_file: Option<PathBuf>,
}

impl Settings {
    /// Flag, else environment, else context file. The key of the context file belongs to its manager: it is not sent to
    /// another one that a flag or the environment names.
    pub(crate) fn resolve(args: &ClientArgs, env: &Env) -> Result<Settings, CliError> {
        let named = args.manager.clone().or_else(|| env.get("DELEGATE_MANAGER_URL").map(str::to_owned));
        let context = match (&named, env.context_file()) {
            (None, Some(path)) => read_context(&path)?,
            _ => ContextFile::default(),
        };
        let key = args.api_key.clone().or_else(|| env.get("DELEGATE_API_KEY").map(str::to_owned));
        let ca_file = args.ca_file.clone().or_else(|| env.get("DELEGATE_CA_FILE").map(PathBuf::from));
        Ok(Settings {
            manager: named.or(context.manager_url),
            api_key: SecretString::from(key.or(context.api_key).unwrap_or_default()),
            ca_file: ca_file.or(context.ca_file),
        })
    }
}

/// The context file; a missing one is empty.
pub(crate) fn read_context(path: &std::path::Path) -> Result<ContextFile, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| {
            CliError::usage(format!("{} is no context file: {}", path.display(), error.message()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(ContextFile::default()),
        Err(error) => Err(CliError::file("read", path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn flags_win_over_environment_over_context_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("delegate/context.toml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "manager_url = \"http://c:1\"\napi_key = \"ck\"\n").unwrap();
        let home = dir.path().to_str().unwrap().to_owned();
        let mut env = Env([("XDG_CONFIG_HOME".to_owned(), home)].into());
        let context = Settings::resolve(&ClientArgs::default(), &env).unwrap();
        assert_eq!(context.manager.as_deref(), Some("http://c:1"));
        assert_eq!(context.api_key.expose_secret(), "ck");
        env.0.insert("DELEGATE_MANAGER_URL".into(), "http://e:1".into());
        let from_env = Settings::resolve(&ClientArgs::default(), &env).unwrap();
        assert_eq!(from_env.manager.as_deref(), Some("http://e:1"));
        assert_eq!(
            from_env.api_key.expose_secret(),
            "",
            "the context's key goes to the context's manager only"
        );
        let args =
            ClientArgs { manager: Some("http://f:1".into()), api_key: Some("fk".into()), ca_file: None };
        let from_flags = Settings::resolve(&args, &env).unwrap();
        assert_eq!(from_flags.manager.as_deref(), Some("http://f:1"));
        assert_eq!(from_flags.api_key.expose_secret(), "fk");
        std::fs::write(&file, "manager = 1").unwrap();
        env.0.remove("DELEGATE_MANAGER_URL");
        assert!(Settings::resolve(&ClientArgs::default(), &env).is_err());
    }
}
