//! Our SSH executor alone, without manager, agent and journal: the child process of the fan-out section.

use anyhow::Result;
use executor_api::Executor;
use executor_api::testing::World;
use proto::task::{
    CommandSpec, CommandUnit, ExecutionRef, HostKeyMode, HostKeys, Shell, SshCredential, SshTarget, Step,
    StepSpec, StepTask, UnitKind,
};
use proto::text::SecretRef;
use std::sync::Arc;

/// Runs the commands as units of one step on every host at once, each host key checked against `known`.
///
/// # Errors
/// When a step fails on any host.
pub(crate) fn fan_out(
    key: String,
    known: &str,
    user: &str,
    port: u16,
    hosts: &[String],
    commands: &[String],
) -> Result<()> {
    // One thread is enough: the work is the targets'.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = sources::Client::new(sources::ClientOptions::default())?;
        let executor = Arc::new(executor_ssh::SshExecutor::new(executor_ssh::Settings::default(), client)?);
        let mut running = tokio::task::JoinSet::new();
        for host in hosts {
            let (executor, spec) = (Arc::clone(&executor), spec(known, user, port, host, commands));
            let world =
                World::new(format!("fan-{host}"), task(spec.clone()), [("key".to_owned(), key.clone())]);
            running.spawn(async move {
                let (_cancel, context) = world.context();
                executor.run(&spec, &context).await.map(drop)
            });
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok(())
    })
}

fn spec(known: &str, user: &str, port: u16, host: &str, commands: &[String]) -> CommandSpec {
    let line = known.lines().find_map(|l| l.strip_prefix(&format!("[{host}]:{port} ")));
    let unit = |(n, command): (usize, &String)| CommandUnit {
        identifier: format!("c{n}"),
        name: format!("c{n}"),
        kind: UnitKind::Script { shell: Shell::Sh, script: command.as_str().into(), working_directory: None },
    };
    CommandSpec {
        target: Some(SshTarget {
            host: host.to_owned(),
            port,
            user: user.to_owned(),
            credential: SshCredential::Key { key: SecretRef("key".into()), passphrase: None },
            host_keys: HostKeys {
                mode: HostKeyMode::Strict,
                known: line.map(str::to_owned).into_iter().collect(),
            },
        }),
        units: commands.iter().enumerate().map(unit).collect(),
        output_variables: Vec::new(),
    }
}

fn task(spec: CommandSpec) -> StepTask {
    StepTask {
        execution: ExecutionRef {
            execution_id: "bench".into(),
            node: "fan".into(),
            attempt: 1,
            ..ExecutionRef::default()
        },
        secret_token: 1,
        ..StepTask::of(Step { identifier: "fan".into(), name: "fan".into(), spec: StepSpec::Command(spec) })
    }
}
