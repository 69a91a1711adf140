//! The step's spec, looked at without I/O.

use executor_api::{SpecFault, StepContext, is_variable_name};
use proto::task::{CommandSpec, CopySource, Shell, SshTarget, UnitKind};

/// Names that the executor's own log units have.
pub(crate) const INIT: &str = "Init";
pub(crate) const CLEANUP: &str = "Cleanup";

/// A script is held in memory and in one SSH message queue; nobody writes a longer one by hand.
const MAX_SCRIPT: usize = 4 << 20;

/// Every fault of the spec.
pub(crate) fn check(spec: &CommandSpec, cx: &StepContext) -> Result<(), Vec<SpecFault>> {
    let mut faults = Vec::new();
    let mut fault = |field: String, problem: String| faults.push(SpecFault { field, problem });
    match &spec.target {
        None => fault(
            "onDelegate".into(),
            "Command steps on the agent itself are not supported; name a host".into(),
        ),
        Some(target) => check_target(target, &mut fault),
    }
    if spec.units.is_empty() {
        fault("commandUnits".into(), "is empty; expected at least one unit".into());
    }
    let mut seen = std::collections::BTreeSet::new();
    for (n, unit) in spec.units.iter().enumerate() {
        let at = |field: &str| format!("commandUnits[{n}].{field}");
        if !seen.insert(unit.identifier.as_str()) {
            fault(at("identifier"), format!("`{}` is used twice", unit.identifier));
        }
        if unit.name == INIT || unit.name == CLEANUP {
            fault(at("name"), format!("`{}` is the name of an implicit unit", unit.name));
        }
        match &unit.kind {
            UnitKind::Script { shell, script, .. } => {
                if script.as_str().contains('\0') {
                    fault(at("spec.script"), "holds a NUL byte; expected text".into());
                }
                if script.as_str().len() > MAX_SCRIPT {
                    fault(
                        at("spec.script"),
                        format!("is {} bytes long; at most 4 MiB", script.as_str().len()),
                    );
                }
                if *shell == Shell::PowerShell && !spec.output_variables.is_empty() {
                    fault(
                        at("spec.shell"),
                        "output variables are not supported with PowerShell; expected Bash, Sh or Python"
                            .into(),
                    );
                }
            }
            UnitKind::Copy { source_type, destination_path } => {
                check_path(destination_path.as_str(), at("spec.destinationPath"), &mut fault);
                match source_type {
                    CopySource::Artifact if cx.task.artifact.is_none() => {
                        fault(at("spec.sourceType"), "is Artifact, but the stage has no artifact".into());
                    }
                    CopySource::Config if cx.task.config_files.is_empty() => {
                        fault(at("spec.sourceType"), "is Config, but the service has no config files".into());
                    }
                    _ => {}
                }
            }
            UnitKind::DownloadArtifact { destination_path, source } => {
                check_path(destination_path.as_str(), at("spec.destinationPath"), &mut fault);
                if source.is_none() && cx.task.artifact.is_none() {
                    fault(at("spec"), "names no artifact, and the stage has none".into());
                }
            }
        }
    }
    for (n, variable) in spec.output_variables.iter().enumerate() {
        if !is_variable_name(&variable.value) {
            fault(
                format!("outputVariables[{n}].value"),
                format!("`{}` is no shell variable; expected letters, digits and _", variable.value),
            );
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn check_target(target: &SshTarget, fault: &mut impl FnMut(String, String)) {
    if target.host.is_empty() || target.host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        fault("host".into(), format!("`{}` is no host name", target.host));
    }
    if target.user.is_empty() {
        fault("credentialsRef".into(), "the SSH credential names no user".into());
    }
}

fn check_path(path: &str, field: String, fault: &mut impl FnMut(String, String)) {
    if path.trim().is_empty() {
        fault(field, "is empty; expected a path on the host".into());
    } else if path.contains(['\0', '\n']) {
        fault(field, "holds a line break or NUL byte".into());
    }
}
