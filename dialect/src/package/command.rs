//! COMMAND_TASK_NG: command units on a host or on the agent.

use super::fault::Fault;
use super::secrets::Details;
use super::view::View;
use super::{Cx, shell, ssh, step, store};
use crate::request::Kind;
use proto::task::{
    Artifact, CommandSpec, CommandUnit, ConfigFile, CopySource, SshTarget, StepSpec, StepTask, UnitKind,
};

/// Units that our executor adds to every command by itself, under names of its own.
const INIT: &str = "Init";
const CLEANUP: &str = "Cleanup";

#[derive(Clone, Copy)]
enum Unit {
    Init,
    Script,
    Copy,
    Download,
    Cleanup,
}

const UNITS: [(&str, Unit); 5] = [
    ("Init", Unit::Init),
    ("Script", Unit::Script),
    ("Copy", Unit::Copy),
    ("Download Artifact", Unit::Download),
    ("Cleanup", Unit::Cleanup),
];

pub(super) fn read(cx: &mut Cx<'_>, data: &View<'_>) -> Result<StepTask, Fault> {
    let listed = data.list("commandUnits")?;
    let names = listed.iter().map(|unit| Ok(unit.maybe_str("name")?.unwrap_or_default().to_owned()));
    cx.request.units = names.collect::<Result<_, Fault>>()?;
    if data.flag("executeOnDelegate")? {
        return Err(Fault::unsupported("a Command step that runs on the delegate itself")
            .hint("use a ShellScript step for that, or name the hosts of the step"));
    }
    let target = Some(target(cx, data)?);
    let mut units: Vec<CommandUnit> = Vec::new();
    for (index, unit) in listed.iter().enumerate() {
        let name = cx.plain(unit, "name")?;
        let kind = match unit.word("commandUnitType", &UNITS)? {
            Unit::Init => {
                cx.request.renamed.push((INIT, name));
                continue;
            }
            Unit::Cleanup => {
                cx.request.renamed.push((CLEANUP, name));
                continue;
            }
            Unit::Script => script(cx, unit)?,
            Unit::Copy => copy(cx, unit)?,
            Unit::Download => download(cx, unit)?,
        };
        units.push(CommandUnit { identifier: format!("unit{index}"), name, kind });
    }
    let asks = |wanted: fn(&UnitKind) -> bool| units.iter().any(|unit| wanted(&unit.kind));
    let takes_artifact = asks(|kind| {
        matches!(
            kind,
            UnitKind::DownloadArtifact { .. } | UnitKind::Copy { source_type: CopySource::Artifact, .. }
        )
    });
    let takes_files = asks(|kind| matches!(kind, UnitKind::Copy { source_type: CopySource::Config, .. }));
    // What no unit uses may be of a kind that this agent does not know.
    let artifact = if takes_artifact { Some(artifact(cx, data)?) } else { None };
    let config_files = if takes_files { config_files(cx, data)? } else { Vec::new() };
    let output_variables = shell::outputs(cx, data, "outputVariables", "secretOutputVariables")?;
    let env = cx.env(data, "environmentVariables")?;
    let spec = StepSpec::Command(CommandSpec { target, units, output_variables });
    Ok(StepTask { env, artifact, config_files, ..step(cx, spec) })
}

/// The host and the login to it.
fn target(cx: &mut Cx<'_>, data: &View<'_>) -> Result<SshTarget, Fault> {
    if data.has("winRmInfraDelegateConfig") {
        return Err(Fault::unsupported("WinRM"));
    }
    let host = data.maybe_str("host")?.map(str::to_owned);
    cx.request.kind = Kind::Command { host: host.clone() };
    let host = host.ok_or_else(|| {
        Fault::spec(
            "the command is to run on hosts, and this task names none",
            "give the step a repeat strategy over <+stage.output.hosts>, or run it on the delegate",
        )
    })?;
    let infra = data.object("sshInfraDelegateConfig")?;
    let details = Details::of(&infra, "encryptionDataDetails")?;
    let key = infra.object("sshKeySpecDto")?;
    ssh::login(cx, &key, &details, &host)
}

fn script(cx: &mut Cx<'_>, unit: &View<'_>) -> Result<UnitKind, Fault> {
    let shell = unit.word("scriptType", &shell::SHELLS)?;
    // `command` is the script with its helpers around it, when there are any; both stand there for older delegates.
    let key = if unit.maybe_str("command")?.is_some() { "command" } else { "script" };
    let mut text = unit.str(key)?.to_owned();
    let patterns = unit.list("tailFilePatterns")?;
    if !patterns.is_empty() {
        if shell != proto::task::Shell::Bash {
            return Err(Fault::unsupported("tailing files beside a PowerShell script"));
        }
        let mut pairs = Vec::new();
        for pattern in &patterns {
            pairs.push((cx.plain(pattern, "filePath")?, cx.plain(pattern, "pattern")?));
        }
        text = super::tail::wrapped(&text, &pairs);
    }
    let script = cx.secrets.text(&unit.at(key), &text)?;
    Ok(UnitKind::Script { shell, script, working_directory: cx.maybe_text(unit, "workingDirectory")? })
}

fn copy(cx: &mut Cx<'_>, unit: &View<'_>) -> Result<UnitKind, Fault> {
    let source_type =
        unit.word("sourceType", &[("ARTIFACT", CopySource::Artifact), ("CONFIG", CopySource::Config)])?;
    Ok(UnitKind::Copy { source_type, destination_path: destination(cx, unit)? })
}

fn download(cx: &mut Cx<'_>, unit: &View<'_>) -> Result<UnitKind, Fault> {
    Ok(UnitKind::DownloadArtifact { destination_path: destination(cx, unit)?, source: None })
}

fn destination(cx: &mut Cx<'_>, unit: &View<'_>) -> Result<proto::text::Text, Fault> {
    cx.secrets.text(&unit.at("destinationPath"), unit.str("destinationPath")?)
}

fn artifact(cx: &mut Cx<'_>, data: &View<'_>) -> Result<Artifact, Fault> {
    match data.maybe("artifactDelegateConfig")? {
        Some(artifact) => store::artifact(cx, &artifact),
        None => Err(Fault::spec(
            "a unit copies or downloads the artifact, and the service has none",
            "give the service a primary artifact, or take the unit out",
        )),
    }
}

fn config_files(cx: &mut Cx<'_>, data: &View<'_>) -> Result<Vec<ConfigFile>, Fault> {
    let mut files = Vec::new();
    if let Some(config) = data.maybe("fileDelegateConfig")? {
        for store in config.list("stores")? {
            files.extend(store::config_files(cx, &store)?);
        }
    }
    if files.is_empty() {
        return Err(Fault::spec(
            "a unit copies the config files, and the service has none",
            "give the service config files, or take the unit out",
        ));
    }
    Ok(files)
}
