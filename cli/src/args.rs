//! The command line: every command and flag. Scripts rely on them (issue, "Command line").

use crate::commands::{
    agent, agents, apply, approval, completion, connector, credential, entities, execution, expression,
    harness, hostkey, init, manager, pipeline, policy, probe, secret, trigger, user,
};
use crate::quickstart;
use clap::Parser;

/// Runs deployment steps where they belong: as agent in each network zone, as manager, and as their client.
#[derive(Debug, Parser)]
#[command(name = "delegate", version, disable_help_subcommand = true, subcommand_required = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Every command.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run an agent
    Agent(agent::Args),
    /// Run a manager
    Manager(manager::Args),
    /// Create or change entities and pipelines from files or folders
    Apply(apply::Args),
    /// List entities of a kind, or show one
    Get(entities::GetArgs),
    /// Delete an entity
    Delete(entities::DeleteArgs),
    /// Set, list and remove secrets
    #[command(subcommand)]
    Secret(secret::Action),
    /// Run and check pipelines
    #[command(subcommand)]
    Pipeline(pipeline::Action),
    /// Look at executions and end them
    #[command(subcommand)]
    Execution(execution::Action),
    /// Triggers and what came in for them
    #[command(subcommand)]
    Trigger(trigger::Action),
    /// List agents
    Agents(agents::Args),
    /// Delegate tokens: what agents register with
    #[command(subcommand)]
    Token(credential::Action),
    /// API keys: what people and scripts call with
    #[command(subcommand)]
    Apikey(credential::KeyAction),
    /// What waits for people: look at it, approve, reject
    #[command(subcommand)]
    Approval(approval::Action),
    /// Users: who people are, and which groups they are in
    #[command(subcommand)]
    User(user::Action),
    /// Keys of SSH hosts
    #[command(subcommand)]
    Hostkey(hostkey::Action),
    /// Test connectors
    #[command(subcommand)]
    Connector(connector::Action),
    /// Try out policies
    #[command(subcommand)]
    Policy(policy::Action),
    /// Try out expressions
    #[command(subcommand)]
    Expression(expression::Action),
    /// Tasks of a Harness manager
    #[command(subcommand)]
    Harness(harness::Action),
    /// Send no-op tasks through the queue and time them
    Probe(probe::Args),
    /// Start manager, agent and a sample host, and deploy to it
    Quickstart(quickstart::Args),
    /// Write a first project
    #[command(subcommand)]
    Init(init::Action),
    /// Print the completion script of a shell
    Completion(completion::Args),
    /// The sample application of quickstart
    #[command(hide = true)]
    QuickstartApp(quickstart::app::Args),
    /// The artifact server of quickstart
    #[command(hide = true)]
    QuickstartArtifacts(quickstart::artifacts::Args),
    /// The embedded SSH server of quickstart
    #[cfg(feature = "ssh")]
    #[command(hide = true)]
    QuickstartTarget(quickstart::embedded::Args),
}
