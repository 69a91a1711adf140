//! The Command step.

use super::read::{Field, Reader, one_of};
use super::step::{Spec, Unit, UnitKind};
use super::step_http::read_outputs;
use crate::fault::Findings;
use crate::rules;
use crate::yaml::Node;
use proto::task::{CopySource, Shell};

pub(super) const SHELLS: [(&str, Shell); 4] =
    [("Bash", Shell::Bash), ("Sh", Shell::Sh), ("PowerShell", Shell::PowerShell), ("Python", Shell::Python)];

/// Reads the spec of a Command step.
pub(super) fn read_command(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<Spec> {
    let on_delegate = spec.flag("onDelegate", findings).unwrap_or(false);
    if on_delegate {
        let path = spec.sub("onDelegate");
        let message =
            "commands on the agent itself are not supported yet; use `onDelegate: false` with a host";
        findings.fault(spec.at(), &path, message);
    }
    let host = spec.field("host", findings).filter(|host| !host.text().trim().is_empty());
    let env = read_env(spec, findings);
    let outputs = read_outputs(spec, findings);
    let path = spec.sub("commandUnits");
    let list = spec.list("commandUnits", findings);
    if list.is_empty() {
        findings.fault(spec.at(), &path, "`commandUnits` lists nothing");
    }
    let mut units: Vec<Unit> = Vec::new();
    for (index, node) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let (node, path) = rules::r6_unwrap_unit(node, path);
        let Some(unit) = read_unit(node, &path, findings) else { continue };
        if units.iter().any(|other| other.identifier == unit.identifier || other.name == unit.name) {
            let message = format!("the command unit `{}` stands twice in its step", unit.identifier);
            findings.fault(&node.at, &path, message);
        }
        units.push(unit);
    }
    Some(Spec::Command { on_delegate, host, units, env, outputs })
}

/// Reads `environmentVariables`.
pub(super) fn read_env(spec: &mut Reader<'_>, findings: &mut Findings) -> Vec<(String, Field)> {
    let mut env = Vec::new();
    let env_path = spec.sub("environmentVariables");
    for (index, node) in spec.list("environmentVariables", findings).iter().enumerate() {
        let mut reader = Reader::new(node, format!("{env_path}[{index}]"), findings);
        reader.known(&["type"]);
        let name = reader.required("name", findings);
        let value = reader.required("value", findings);
        reader.finish(findings);
        env.extend(name.zip(value).map(|(name, value)| (name.text(), value)));
    }
    env
}

fn read_unit(node: &Node, path: &str, findings: &mut Findings) -> Option<Unit> {
    let mut reader = Reader::new(node, path, findings);
    let (identifier, name) = rules::r6_unit_name(&mut reader, findings)?;
    let kind = reader.required("type", findings)?;
    let spec = reader.map("spec", findings);
    reader.finish(findings);
    let Some(mut spec) = spec else {
        findings.fault(&node.at, path, "`spec` is missing");
        return None;
    };
    let kind = match one_of(
        &kind,
        "command unit",
        &[("Script", 0), ("Copy", 1), ("DownloadArtifact", 2)],
        findings,
    )? {
        0 => read_script(&mut spec, findings),
        1 => {
            let source = spec.required("sourceType", findings);
            let destination = spec.required("destinationPath", findings);
            let source = source.and_then(|source| {
                let known = [("Artifact", CopySource::Artifact), ("Config", CopySource::Config)];
                one_of(&source, "source type", &known, findings)
            });
            source
                .zip(destination)
                .map(|(source_type, destination)| UnitKind::Copy { source_type, destination })
        }
        _ => spec
            .required("destinationPath", findings)
            .map(|destination| UnitKind::Download { destination, source: None }),
    };
    spec.finish(findings);
    Some(Unit { identifier, name, kind: kind? })
}

fn read_script(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<UnitKind> {
    let shell = match spec.field("shell", findings) {
        Some(field) => one_of(&field, "shell", &SHELLS, findings),
        None => Some(Shell::Bash),
    };
    let working_directory = spec.field("workingDirectory", findings);
    if let Some(node) = spec.node("tailFiles")
        && node.as_list().is_none_or(|list| !list.is_empty())
    {
        findings.fault(&node.at, &spec.sub("tailFiles"), "`tailFiles` is not supported yet");
    }
    let script = read_source(spec, findings);
    Some(UnitKind::Script { shell: shell?, script: script?, working_directory })
}

/// Reads `source`: the text of an inline script.
pub(super) fn read_source(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<Field> {
    let mut source = spec.required_map("source", findings)?;
    let kind = source.field("type", findings);
    if let Some(kind) = &kind
        && !kind.text().eq_ignore_ascii_case("Inline")
    {
        let message = format!("source type `{}` is not supported; supported is Inline", kind.text());
        findings.fault(&kind.at, &kind.path, message);
        return None;
    }
    let script = source.required_map("spec", findings).and_then(|mut inner| {
        let script = inner.required("script", findings);
        inner.finish(findings);
        script
    });
    source.finish(findings);
    script
}
