//! Rules about ECS: R2 (infrastructure), R9, R23, R25. R19 is read with the canary step; what R9 tells apart stands in
//! [`crate::model::ecs`].

use crate::fault::{Findings, Place};
use crate::model::read::Field;

/// R2: an infrastructure without a type is of the kind that its service is deployed to.
pub fn r2_ecs_infrastructure(place: &Place, path: &str, findings: &mut Findings) {
    let assumed = "the infrastructure has no `type`; its service is deployed to ECS, so it is ECS";
    findings.notice("R2.infrastructure-type", place, path, assumed);
}

/// `namespace` of an ECS infrastructure means nothing to AWS (settled facts §3.4).
pub fn ecs_namespace(field: &Field, findings: &mut Findings) {
    let text = format!("ECS knows no namespaces: `{}` is kept as a tag", field.text());
    findings.remark("ecs.namespace", &field.at, &field.path, text);
}

/// Another spelling of a key of a step.
pub fn ecs_alias(written: &str, meant: &str, place: &Place, path: &str, findings: &mut Findings) {
    findings.notice("ecs.alias", place, path, format!("`{written}` is read as `{meant}`"));
}

/// R9: what an EcsRunTask step without a request does.
pub fn r9_shape(place: &Place, path: &str, what: &str, findings: &mut Findings) {
    findings.notice("R9.ecs-run-task", place, path, format!("the step {what}"));
}

/// R19: a canary of more than one task.
pub fn r19_canary_count(place: &Place, path: &str, findings: &mut Findings) {
    let assumed =
        "the canary runs as many tasks as `instanceSelection` says; a later step rescales the same canary";
    findings.notice("R19.canary-count", place, path, assumed);
}

/// R23: one half of an access key that is no reference.
pub fn r23_key(key: &str, reference: &str, field: &Field, findings: &mut Findings) {
    let assumed = format!("`{key}` with an expression stands for `{reference}`");
    findings.notice("R23.aws-credential", &field.at, &field.path, assumed);
}

/// R23: the region inside of the credential's spec.
pub fn r23_region(field: &Field, findings: &mut Findings) {
    let assumed = "`credential.spec.region` stands for `credential.region`";
    findings.notice("R23.aws-credential", &field.at, &field.path, assumed);
}

/// R25: a stage of ECS that writes no rollback steps undoes what its own steps did.
pub fn r25_implicit_undo(place: &Place, path: &str, findings: &mut Findings) {
    let assumed = "the stage has no `rollbackSteps`; when it is rolled back, what its ECS steps did is undone in reverse order";
    findings.notice("R25.implicit-undo", place, path, assumed);
}
