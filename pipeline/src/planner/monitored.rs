//! Health sources of Verify steps are taken from their monitored service before the run.

use super::target::{Lookups, known, root, stored};
use crate::entities::EntityKind;
use crate::fault::Findings;
use crate::model::monitored_service::read_monitored_service;
use crate::model::step::{Spec, Verify};
use crate::plan::{NodeKind, Plan};

/// Gives every canary verification the metrics of its monitored service: the one that it names, else that of the
/// service and the environment of its stage, by the identifier `SERVICE_ENVIRONMENT`.
pub(super) fn freeze(plan: &mut Plan, lookups: &Lookups<'_>, findings: &mut Findings) {
    for index in 0..plan.nodes.len() {
        let Some(mut verify) = canary(plan, index) else { continue };
        let Some(analysis) = &mut verify.canary else { continue };
        let scope = plan.run.scope();
        let (at, path) =
            (plan.nodes.get(index).map(|n| n.name.at.clone()), plan.nodes.get(index).map(|n| n.path.clone()));
        let (Some(at), Some(path)) = (at, path) else { continue };
        let entity = match &analysis.monitored_service {
            Some(field) => {
                let Some(reference) = known(plan, index, field, findings) else { continue };
                if lookups.catalog.is_none() {
                    continue;
                }
                let Some(entity) =
                    lookups.find(EntityKind::MonitoredService, &reference, field, &scope, findings)
                else {
                    continue;
                };
                Some(entity)
            }
            None => by_custom(plan, index)
                .and_then(|reference| lookups.find_quietly(EntityKind::MonitoredService, &reference, &scope)),
        };
        if let Some(entity) = entity
            && let Some(root) = root(entity, &["monitoredService"], findings)
            && let Some(service) = stored(findings, |own| read_monitored_service(&root, own))
        {
            let wanted = &analysis.health_sources;
            let fits = |source: &String| wanted.is_empty() || wanted.contains(source);
            analysis.metrics = service.metrics.into_iter().filter(|metric| fits(&metric.source)).collect();
        }
        if analysis.metrics.is_empty() {
            let assumed = "no health source is configured: the step is skipped";
            findings.notice("verify.no-health-source", &at, &path, assumed);
        } else {
            verify.provider = Some("Canary".to_owned());
        }
        if let Some(node) = plan.nodes.get_mut(index)
            && let NodeKind::Step { spec, .. } = &mut node.kind
        {
            **spec = Spec::Verify(Box::new(verify));
        }
    }
}

fn canary(plan: &Plan, index: usize) -> Option<Verify> {
    match &plan.nodes.get(index)?.kind {
        NodeKind::Step { spec, .. } => match &**spec {
            Spec::Verify(verify) if verify.canary.is_some() => Some((**verify).clone()),
            _ => None,
        },
        _ => None,
    }
}

fn by_custom(plan: &Plan, index: usize) -> Option<String> {
    let (_, stage) = plan.stage_of(index)?;
    let target = stage.target.as_ref()?;
    Some(format!("{}_{}", target.service.identifier, target.environment.identifier))
}
