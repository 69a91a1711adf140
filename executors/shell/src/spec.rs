//! The step's spec, looked at without I/O.

use executor_api::{SpecFault, StepContext, is_variable_name};
use proto::task::{Shell, ShellScriptSpec};

/// A script is held in memory; nobody writes a longer one by hand.
const MAX_SCRIPT: usize = 4 << 20;

/// Variables that are the executor's own.
const OWN: &str = "DELEGATE_HOLD";

/// Every fault of the spec.
pub(crate) fn check(spec: &ShellScriptSpec, cx: &StepContext) -> Result<(), Vec<SpecFault>> {
    let mut faults = Vec::new();
    let mut fault = |field: String, problem: String| faults.push(SpecFault { field, problem });
    let script = spec.script.as_str();
    if script.contains('\0') {
        fault("source.spec.script".into(), "holds a NUL byte; expected text".into());
    }
    if script.len() > MAX_SCRIPT {
        fault("source.spec.script".into(), format!("is {} bytes long; at most 4 MiB", script.len()));
    }
    if spec.shell == Shell::PowerShell && !spec.output_variables.is_empty() {
        let problem = "output variables are not supported with PowerShell; expected Bash, Sh or Python";
        fault("shell".into(), problem.into());
    }
    for (n, variable) in spec.output_variables.iter().enumerate() {
        if !is_variable_name(&variable.value) {
            let problem =
                format!("`{}` is no shell variable; expected letters, digits and _", variable.value);
            fault(format!("outputVariables[{n}].value"), problem);
        }
    }
    for name in cx.task.env.keys().filter(|name| name.starts_with(OWN) || *name == "DELEGATE_PROCESS") {
        fault(
            "environmentVariables".into(),
            format!("`{name}` is a name of the agent's own; choose another"),
        );
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}
