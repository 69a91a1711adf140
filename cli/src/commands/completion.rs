//! `delegate completion SHELL`.

use crate::args::Cli;
use crate::exit::{CliError, Exit};
use crate::output;
use clap::CommandFactory;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Prints the script.
pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "delegate", &mut script);
    output::write(&script)?;
    Ok(Exit::Success)
}
