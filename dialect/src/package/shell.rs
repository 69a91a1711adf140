//! SHELL_SCRIPT_TASK_NG: a script on the agent, or on a host.

use super::fault::Fault;
use super::secrets::Details;
use super::view::View;
use super::{Cx, ssh, step};
use proto::task::{
    CommandSpec, CommandUnit, OutputVariable, Shell, ShellScriptSpec, StepSpec, StepTask, UnitKind,
};

/// The one unit that the manager shows.
const UNIT: &str = "Execute";

/// Interpreters.
pub(super) const SHELLS: [(&str, Shell); 2] = [("BASH", Shell::Bash), ("POWERSHELL", Shell::PowerShell)];

/// Variables that a script sets, and those of them that are secret. The manager knows each by the name that the script
/// uses.
pub(super) fn outputs(
    cx: &Cx<'_>,
    data: &View<'_>,
    plain: &str,
    secret: &str,
) -> Result<Vec<OutputVariable>, Fault> {
    let secrets = cx.plains(data, secret)?;
    let mut all: Vec<OutputVariable> = Vec::new();
    for name in cx.plains(data, plain)?.into_iter().chain(secrets.iter().cloned()) {
        if all.iter().all(|known| known.name != name) {
            all.push(OutputVariable { secret: secrets.contains(&name), value: name.clone(), name });
        }
    }
    Ok(all)
}

pub(super) fn read(cx: &mut Cx<'_>, data: &View<'_>) -> Result<StepTask, Fault> {
    let shell = data.word("scriptType", &SHELLS)?;
    let source = data.str("script")?;
    if source.contains("HARNESS_KUBE_CONFIG_PATH") && data.has("k8sInfraDelegateConfig") {
        return Err(Fault::unsupported("a kubeconfig for a script (HARNESS_KUBE_CONFIG_PATH)"));
    }
    let script = cx.secrets.text(&data.at("script"), source)?;
    let working_directory = cx.maybe_text(data, "workingDirectory")?;
    let output_variables = outputs(cx, data, "outputVars", "secretOutputVars")?;
    let env = cx.env(data, "environmentVariables")?;
    let spec = if data.flag("executeOnDelegate")? {
        StepSpec::ShellScript(ShellScriptSpec { shell, script, working_directory, output_variables })
    } else {
        let host = data.maybe_str("host")?.ok_or_else(|| {
            Fault::spec(
                "the script is to run on a host, and the step names none",
                "name the host in the step's execution target, or run the script on the delegate",
            )
        })?;
        let key = data.object("sshKeySpecDTO")?;
        let target = ssh::login(cx, &key, &Details::of(data, "encryptionDetails")?, host)?;
        let kind = UnitKind::Script { shell, script, working_directory };
        let unit = CommandUnit { identifier: UNIT.to_owned(), name: UNIT.to_owned(), kind };
        StepSpec::Command(CommandSpec { target: Some(target), units: vec![unit], output_variables })
    };
    Ok(StepTask { env, ..step(cx, spec) })
}
