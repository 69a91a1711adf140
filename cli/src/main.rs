//! The `delegate` binary: agent, manager, client and quickstart.
//!
//! This file reads the environment, parses the command line, starts the runtime and turns the result into an exit code.
//! What a command does stands in `commands/`.

mod args;
mod client;
mod commands;
mod exit;
mod logging;
mod output;
mod progress;
mod quickstart;
mod settings;
mod shutdown;
#[cfg(test)]
mod tests;

use args::{Cli, Command};
use clap::Parser;
use exit::{CliError, Exit};
use settings::Env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let env = Env(std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect());
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    match run(cli.command, &env) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::tell(error.to_string());
            error.exit.into()
        }
    }
}

/// Help and version are answers (0); everything else that clap objects to is bad usage (64).
fn refused(error: &clap::Error) -> ExitCode {
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
    if error.print().is_err() {
        // Nobody reads; the exit code still tells.
        tracing::debug!("the output is closed");
    }
    exit.into()
}

fn run(command: Command, env: &Env) -> Result<Exit, CliError> {
    logging::start(&command, env);
    // One TLS provider for the whole process. A second installation cannot happen: this is the only one.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return Err(CliError::failed("the TLS provider cannot be installed"));
    }
    // Agent and manager serve many at once; a client waits for one answer at a time.
    let mut runtime = match command {
        Command::Agent(_) | Command::Manager(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime
        .enable_all()
        // File and name look-ups are short; more threads than this would only cost memory after a burst.
        .max_blocking_threads(32)
        .build()
        .map_err(|error| CliError::failed(format!("the runtime cannot be started: {error}")))?;
    runtime.block_on(dispatch(command, env))
}

async fn dispatch(command: Command, env: &Env) -> Result<Exit, CliError> {
    match command {
        Command::Agent(args) => commands::agent::run(args, env).await,
        Command::Manager(args) => commands::manager::run(args, env).await,
        Command::Apply(args) => commands::apply::run(&args, env).await,
        Command::Get(args) => commands::entities::get(&args, env).await,
        Command::Delete(args) => commands::entities::delete(&args, env).await,
        Command::Secret(action) => commands::secret::run(action, env).await,
        Command::Pipeline(action) => commands::pipeline::run(action, env).await,
        Command::Execution(action) => commands::execution::run(action, env).await,
        Command::Trigger(action) => commands::trigger::run(action, env).await,
        Command::Agents(args) => commands::agents::run(&args, env).await,
        Command::Token(action) => commands::credential::tokens(action, env).await,
        Command::Apikey(action) => commands::credential::keys(action, env).await,
        Command::Approval(action) => commands::approval::run(action, env).await,
        Command::User(action) => commands::user::run(action, env).await,
        Command::Hostkey(action) => commands::hostkey::run(action, env).await,
        Command::Connector(action) => commands::connector::run(action, env).await,
        Command::Policy(action) => commands::policy::run(action).await,
        Command::Expression(action) => commands::expression::run(action),
        Command::Harness(action) => commands::harness::run(action),
        Command::Probe(args) => commands::probe::run(&args, env).await,
        Command::Quickstart(args) => quickstart::run(&args, env).await,
        Command::Init(action) => commands::init::run(&action),
        Command::Completion(args) => commands::completion::run(&args),
        Command::QuickstartApp(args) => quickstart::app::run(&args).await,
        Command::QuickstartArtifacts(args) => quickstart::artifacts::run(&args).await,
        #[cfg(feature = "ssh")]
        Command::QuickstartTarget(args) => quickstart::embedded::run(&args, env).await,
    }
}
