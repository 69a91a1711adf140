//! The tolerance rules of pipeline.md §1.1: what a document may leave out or write otherwise, and what is then assumed.
//!
//! One function per rule; each emits its notice, and in strict mode the notice is a fault. R13 is applied on the agent.

mod ecs;
mod kubernetes;
mod trigger;
mod verify;

pub use ecs::{
    ecs_alias, ecs_namespace, r2_ecs_infrastructure, r9_shape, r19_canary_count, r23_key, r23_region,
    r25_implicit_undo,
};
pub use kubernetes::{
    canary_after_rolling, r2_kubernetes_gap, r2_kubernetes_infrastructure, r5_command_flags,
    r12_blue_green_as_health, r24_fetch_type, r24_manifest_identifier, r24_manifest_type,
};
pub use trigger::{r14_inline_trigger, r20_operator, r21_payload_key, r22_variables_map};
pub use verify::{r10_r11_verify, r18_verify_timeout};

use crate::fault::{Findings, Place};
use crate::model::failure::{FailureAction, Strategies, for_all_errors};
use crate::model::read::{Field, Reader};
use crate::model::step::{DownloadFrom, Frame, Spec, Unit, UnitKind};
use crate::yaml::Node;

/// Whether Harness itself would take this identifier.
fn is_plain_identifier(id: &str) -> bool {
    let mut chars = id.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && id.len() <= 128
}

/// The canonical form of an identifier: `-`, `.` and blanks become `_`.
pub fn canonical(id: &str) -> String {
    id.chars().map(|c| if matches!(c, '-' | '.') || c.is_whitespace() { '_' } else { c }).collect()
}

/// R1: identifiers may hold any printable text.
pub fn r1_identifier(id: &str, field: &Field, findings: &mut Findings) {
    if id.trim().is_empty() || id.chars().any(char::is_control) || id.len() > 128 {
        let message = "an identifier has 1 to 128 printable characters";
        findings.fault(&field.at, &field.path, message);
    } else if !is_plain_identifier(id) {
        let assumed = format!(
            "the identifier `{id}` is used as it stands; expressions may also write `{}`",
            canonical(id)
        );
        findings.notice("R1.identifier", &field.at, &field.path, assumed);
    }
}

/// R1: what has no identifier takes its name.
pub fn r1_identifier_from_name(id: &str, name: &Field, what: &str, findings: &mut Findings) {
    if id.trim().is_empty() || id.chars().any(char::is_control) || id.len() > 128 {
        findings.fault(&name.at, &name.path, "a name has 1 to 128 printable characters");
        return;
    }
    let assumed = format!("the {what} has no identifier; its name `{id}` is used");
    findings.notice("R1.identifier-from-name", &name.at, &name.path, assumed);
}

/// R1: a reference met its entity by canonical id or name, not by its exact id.
pub fn r1_reference(reference: &str, id: &str, place: &Place, path: &str, findings: &mut Findings) {
    let assumed = format!("`{reference}` means the entity `{id}`");
    findings.notice("R1.reference", place, path, assumed);
}

/// R2: another spelling of a type.
pub fn r2_type_alias(written: &str, meant: &str, place: &Place, path: &str, findings: &mut Findings) {
    if written != meant {
        findings.notice("R2.type-alias", place, path, format!("`{written}` is read as `{meant}`"));
    }
}

/// R3: an inline definition is laid over its entity, or stands in for a missing one.
pub fn r3_overlay(what: &str, id: &str, found: bool, place: &Place, path: &str, findings: &mut Findings) {
    let assumed = if found {
        format!("the inline definition is laid over the {what} `{id}`")
    } else {
        format!("no {what} `{id}` is stored; the inline definition is used for this run")
    };
    findings.notice("R3.overlay", place, path, assumed);
}

/// R4: selectors of an infrastructure are a level of their own.
pub fn r4_infrastructure_selectors(field: &Field, findings: &mut Findings) {
    let assumed =
        "delegateSelectors of the infrastructure apply unless the pipeline, stage, group or step has its own";
    findings.notice("R4.infrastructure-selectors", &field.at, &field.path, assumed);
}

/// R6: `- commandUnit: {…}` is unwrapped.
pub fn r6_unwrap_unit(node: &Node, path: String) -> (&Node, String) {
    match node.get("commandUnit") {
        Some(inner) => (inner, format!("{path}.commandUnit")),
        None => (node, path),
    }
}

/// R6: a unit without a name is named by its identifier, and the other way round.
pub fn r6_unit_name(reader: &mut Reader<'_>, findings: &mut Findings) -> Option<(String, String)> {
    let identifier = reader.text("identifier", findings);
    let name = reader.text("name", findings);
    let (at, path) = (reader.at().clone(), reader.path().to_owned());
    match (identifier, name) {
        (Some(identifier), Some(name)) => Some((identifier, name)),
        (Some(identifier), None) => {
            findings.notice("R6.unit-name", &at, &path, format!("the command unit is named `{identifier}`"));
            Some((identifier.clone(), identifier))
        }
        (None, Some(name)) => Some((canonical(&name), name)),
        (None, None) => {
            findings.fault(&at, &path, "the command unit has neither `identifier` nor `name`");
            None
        }
    }
}

/// R7: a step that runs on hosts, with no host of its own and no loop around it, runs on every host of the stage.
pub fn r7_implicit_hosts(frame: &Frame, findings: &mut Findings) {
    let assumed = "the step runs once on every host of the stage (`repeat: {items: <+stage.output.hosts>}`)";
    findings.notice("R7.implicit-hosts", &frame.at, &frame.path, assumed);
}

/// R8: `ArtifactoryDownload` is a Command step with one DownloadArtifact unit.
pub fn r8_artifactory_download(
    spec: &mut Reader<'_>,
    frame: &Frame,
    findings: &mut Findings,
) -> Option<Spec> {
    let on_delegate = spec.flag("onDelegate", findings).unwrap_or(false);
    if on_delegate {
        findings.fault(
            spec.at(),
            &spec.sub("onDelegate"),
            "a download on the agent itself is not supported yet",
        );
    }
    let host = spec.field("host", findings);
    let connector = spec.required("connectorRef", findings);
    let repository = spec.required("repository", findings);
    let path = spec.required("artifactPath", findings);
    let destination = spec.required("targetPath", findings);
    let assumed = "ArtifactoryDownload is a Command step with one DownloadArtifact unit";
    findings.notice("R8.artifactory-download", &frame.at, &frame.path, assumed);
    let source = DownloadFrom { connector: connector?, repository: repository?, path: path? };
    let unit = Unit {
        identifier: "Download".to_owned(),
        name: "Download".to_owned(),
        kind: UnitKind::Download { destination: destination?, source: Some(source) },
    };
    Some(Spec::Command { on_delegate, host, units: vec![unit], env: Vec::new(), outputs: Vec::new() })
}

/// R15: spellings that Harness keeps for old pipelines, or does not have at all.
pub fn r15_expression(path: &[&str], written: &str, field: &Field, findings: &mut Findings) {
    let assumed = match path {
        ["serviceConfig", "artifacts", ..] => "it is read as `artifacts…`, the artifact of the stage",
        ["serviceConfig", second, ..] if !matches!(*second, "serviceRef" | "serviceDefinition") => {
            "it is read as `serviceConfig.serviceDefinition.spec…`"
        }
        ["currentTime", ..] => "it is the time in UTC as RFC 3339",
        ["currentDate", ..] => "it is the date in UTC",
        _ => return,
    };
    findings.notice("R15.expression", &field.at, &field.path, format!("`<+{written}>`: {assumed}"));
}

/// R16: what a deployment stage without failure strategies does when a step fails.
pub fn r16_default_strategy(frame: &Frame, has_rollback: bool, findings: &mut Findings) -> Strategies {
    let (action, name) = if has_rollback {
        (FailureAction::StageRollback, "StageRollback")
    } else {
        (FailureAction::MarkAsFailure, "MarkAsFailure")
    };
    let assumed = format!("the stage has no failureStrategies; AllErrors → {name}");
    findings.notice("R16.default-strategy", &frame.at, &frame.path, assumed);
    for_all_errors(&action)
}

/// Step types whose `spec` has nothing that must be written.
const SPEC_OPTIONAL: [&str; 21] = [
    "Noop",
    "Verify",
    "K8sRollingDeploy",
    "K8sRollingRollback",
    "K8sCanaryDelete",
    "K8sBlueGreenDeploy",
    "K8sBGSwapServices",
    "K8sBlueGreenStageScaleDown",
    "K8sDryRun",
    "K8sDiff",
    "EcsRollingDeploy",
    "EcsContinueDeployment",
    "EcsRollingRollback",
    "EcsCanaryDeploy",
    "EcsCanaryDelete",
    "EcsBlueGreenSwapTargetGroups",
    "EcsBlueGreenRollback",
    "StandAloneTrafficShiftRollback",
    "EcsServiceSetup",
    "EcsBasicRollback",
    "EcsRunTask",
];

/// R17: a missing or null `spec` reads as an empty one.
pub fn r17_null_spec(place: &Place, path: &str, kind: Option<&Field>, findings: &mut Findings) {
    // Where the spec must hold something the missing keys are the faults, and a notice would only be noise.
    if kind.is_some_and(|kind| SPEC_OPTIONAL.contains(&kind.text().as_str())) {
        findings.notice("R17.null-spec", place, path, "a missing `spec` is empty");
    }
}

/// R18: `Http.spec.timeout` is also the step's timeout when it has none.
pub fn r18_http_timeout(frame: &mut Frame, request: Option<&Field>, findings: &mut Findings) {
    if let (None, Some(request)) = (&frame.timeout, request) {
        let assumed = format!("`spec.timeout` ({}) is the timeout of the step too", request.text());
        findings.notice("R18.http-timeout", &request.at, &request.path, assumed);
        frame.timeout = Some(request.clone());
    }
}
