//! `delegate agent`. Its flags come from the agent's table of settings, so that they cannot drift from it.

use crate::exit::{CliError, Exit, chain};
use crate::output;
use crate::settings::Env;
use crate::shutdown::until_stopped;
use agent::config::SETTINGS;
use agent::{AgentError, Config, ConfigFile, Flags, ShutdownHandle};
use clap::{Arg, ArgMatches, Command};
use std::path::PathBuf;

/// Arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args {
    config: Option<PathBuf>,
    flags: Flags,
}

impl clap::FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Args::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        for setting in SETTINGS.iter().filter(|setting| setting.flag.is_some()) {
            if let Some(value) = matches.get_one::<String>(setting.key) {
                self.flags.insert(setting.key.to_owned(), value.clone());
            }
        }
        Ok(())
    }
}

impl clap::Args for Args {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Settings file (TOML)");
        let flags = SETTINGS.iter().filter_map(|setting| {
            let env = setting.env.first().map(|name| format!(" [env: {name}]")).unwrap_or_default();
            let default = if setting.default.is_empty() {
                String::new()
            } else {
                format!(" [default: {}]", setting.default)
            };
            let help = format!("{}{env}{default}", setting.help.trim_end_matches('.'));
            Some(Arg::new(setting.key).long(setting.flag?).value_name("VALUE").help(help))
        });
        command.arg(file).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Runs an agent until it is told to stop. Prints `agent ready NAME ID` after the first registration.
pub(crate) async fn run(args: Args, env: &Env) -> Result<Exit, CliError> {
    let config = load(&args, env)?;
    let shutdown = ShutdownHandle::new();
    let handle = shutdown.clone();
    let work = agent::run(config, shutdown, |name, id| output::say(format!("agent ready {name} {id}")));
    match until_stopped(|_| handle.request(), work).await? {
        Some(Err(error)) => {
            let exit = match error {
                AgentError::TokenRefused | AgentError::Deleted => Exit::Refused,
                _ => Exit::Failed,
            };
            Err(CliError::new(exit, chain(&error)))
        }
        Some(Ok(())) | None => Ok(Exit::Success),
    }
}

/// The checked configuration; every fault at once.
fn load(args: &Args, env: &Env) -> Result<Config, CliError> {
    let text = match &args.config {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| CliError::file("read", path, &e))?;
            Some((path.display().to_string(), text))
        }
    };
    let file = text.as_ref().map(|(path, text)| ConfigFile { path, text });
    Config::load(&env.0, file, &args.flags).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        CliError::usage(format!("the configuration has {} faults:\n  {}", lines.len(), lines.join("\n  ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches};

    #[test]
    fn flags_reach_the_table_and_faults_come_together() {
        let command = Args::augment_args(Command::new("agent"));
        let matches =
            command.try_get_matches_from(["agent", "--data-dir", "d", "--health-listen", "x"]).unwrap();
        let args = Args::from_arg_matches(&matches).unwrap();
        assert_eq!(args.flags["data_dir"], "d");
        let error = load(&args, &Env::default()).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        for part in ["ACCOUNT_ID", "DELEGATE_TOKEN", "health-listen"] {
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
    }
}
