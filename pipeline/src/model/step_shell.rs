//! The ShellScript step.

use super::read::{Reader, one_of};
use super::step::Spec;
use super::step_command::{SHELLS, read_env, read_source};
use super::step_http::read_outputs;
use crate::fault::Findings;
use proto::task::Shell;

/// Reads the spec of a ShellScript step. Without an execution target it runs on the agent, whatever `onDelegate` says,
/// as Harness has it.
pub(super) fn read_shell_script(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<Spec> {
    spec.known(&["metadata", "includeInfraSelectors"]);
    let on_agent = spec.flag("onDelegate", findings);
    let shell = match spec.field("shell", findings) {
        Some(field) => one_of(&field, "shell", &SHELLS, findings),
        None => Some(Shell::Bash),
    };
    if let Some(node) = spec.node("outputAlias").filter(|node| !node.is_null()) {
        findings.fault(&node.at, &spec.sub("outputAlias"), "`outputAlias` is not supported yet");
    }
    let (mut host, mut credential, mut working_directory) = (None, None, None);
    if let Some(mut target) = spec.map("executionTarget", findings) {
        host = target.field("host", findings).filter(|host| !host.text().trim().is_empty());
        credential = target.field("connectorRef", findings).filter(|field| !field.text().trim().is_empty());
        working_directory =
            target.field("workingDirectory", findings).filter(|field| !field.text().trim().is_empty());
        target.finish(findings);
    }
    let on_agent = match (on_agent, &host) {
        (Some(false), None) => {
            let assumed = "the execution target names no host, so the script runs on the agent";
            findings.notice("shell-script.no-host", spec.at(), &spec.sub("executionTarget"), assumed);
            true
        }
        (on_agent, host) => on_agent.unwrap_or(host.is_none()),
    };
    if on_agent {
        // Harness ignores them: the form of its editor keeps what was once typed in.
        (host, credential) = (None, None);
    }
    let env = read_env(spec, findings);
    let outputs = read_outputs(spec, findings);
    let script = read_source(spec, findings);
    Some(Spec::ShellScript {
        host,
        credential,
        shell: shell?,
        script: script?,
        working_directory,
        env,
        outputs,
    })
}
