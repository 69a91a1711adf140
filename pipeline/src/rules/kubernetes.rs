//! Rules about Kubernetes: R2 (gaps of an infrastructure), R5, R12, R24. R13 is applied on the agent, where manifests are.

use crate::fault::{Findings, Place};
use crate::model::read::Field;

/// R2: an infrastructure without a type is of the kind that its service is deployed to.
pub fn r2_kubernetes_infrastructure(place: &Place, path: &str, findings: &mut Findings) {
    let assumed =
        "the infrastructure has no `type`; its service is deployed to Kubernetes, so it is KubernetesDirect";
    findings.notice("R2.infrastructure-type", place, path, assumed);
}

/// R2: what a Kubernetes infrastructure leaves out.
pub fn r2_kubernetes_gap(key: &str, assumed: &str, place: &Place, path: &str, findings: &mut Findings) {
    findings.notice(
        &format!("R2.{key}"),
        place,
        path,
        format!("the infrastructure has no `{key}`; it is `{assumed}`"),
    );
}

/// R5: a list of bare flags is one entry of the Apply command.
pub fn r5_command_flags(flags: &[Field], findings: &mut Findings) -> Option<Field> {
    let first = flags.first()?;
    let joined = flags.iter().map(Field::text).collect::<Vec<_>>().join(" ");
    let assumed = format!("`{joined}` are flags of the Apply command");
    findings.notice("R5.command-flags", &first.at, &first.path, assumed);
    Some(Field::made(joined, first.path.clone(), &first.at))
}

/// R12: a blue-green step that nothing swaps, behind a deployment of the same stage, only looks.
pub fn r12_blue_green_as_health(name: &Field, findings: &mut Findings) {
    let assumed = "nothing swaps its Services and the stage has deployed before it: the step waits for the steady state \
                   of what is there and changes nothing";
    findings.notice("R12.blue-green-as-health", &name.at, step_path(name), assumed);
}

/// A canary behind a rolling deployment checks a version that everybody has already.
pub fn canary_after_rolling(name: &Field, findings: &mut Findings) {
    let text = "the canary comes after a K8sRollingDeploy of the same stage: it checks a version that takes all traffic \
                already; it is run as written";
    findings.remark("canary-after-rolling", &name.at, step_path(name), text);
}

fn step_path(name: &Field) -> &str {
    name.path.strip_suffix(".name").unwrap_or(&name.path)
}

/// R24: a manifest without identifier.
pub fn r24_manifest_identifier(index: usize, place: &Place, path: &str, findings: &mut Findings) -> String {
    let made = format!("manifest_{}", index + 1);
    findings.notice("R24.manifest-id", place, path, format!("the manifest is called `{made}`"));
    made
}

/// R24: a manifest without type.
pub fn r24_manifest_type(place: &Place, path: &str, findings: &mut Findings) -> &'static str {
    findings.notice("R24.manifest-type", place, path, "the manifest is a K8sManifest");
    "K8sManifest"
}

/// R24: a Git store that does not say what it fetches.
pub fn r24_fetch_type(place: &Place, path: &str, findings: &mut Findings) -> String {
    findings.notice("R24.fetch-type", place, path, "`gitFetchType` is Branch");
    "Branch".to_owned()
}
