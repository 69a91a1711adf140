//! `useFromStage`: a stage that deploys the service, or goes to the environment, of an earlier one.

use super::pipeline::{Stage, StageNode, Target};
use super::read::Field;
use crate::fault::{Fault, Findings, did_you_mean};

/// Stages that ended before, with what they deploy; `None`: they deploy nothing.
type Earlier = Vec<(String, Option<Target>)>;

/// Fills in what stages take from earlier ones.
pub(super) fn propagate(stages: &mut [StageNode], findings: &mut Findings) {
    walk(stages, &mut Earlier::new(), findings);
}

fn walk(nodes: &mut [StageNode], earlier: &mut Earlier, findings: &mut Findings) {
    for node in nodes {
        match node {
            StageNode::Stage(stage) => {
                fill(stage, earlier, findings);
                earlier.push((stage.frame.identifier.clone(), stage.target.clone()));
            }
            StageNode::Parallel(members) => {
                // What starts together knows nothing of each other.
                let mut after = earlier.clone();
                for member in members.iter_mut() {
                    let before = earlier.len();
                    let mut own = earlier.clone();
                    walk(std::slice::from_mut(member), &mut own, findings);
                    after.extend(own.into_iter().skip(before));
                }
                *earlier = after;
            }
        }
    }
}

fn fill(stage: &mut Stage, earlier: &Earlier, findings: &mut Findings) {
    let Some(target) = &mut stage.target else { return };
    if let Some(from) = target.service_from.take()
        && let Some(other) = find(&from, earlier, findings)
    {
        target.service_ref = target.service_ref.take().or_else(|| other.service_ref.clone());
        target.service_inline = target.service_inline.take().or_else(|| other.service_inline.clone());
        target.services = target.services.take().or_else(|| other.services.clone());
    }
    if let Some(from) = target.environment_from.take()
        && let Some(other) = find(&from, earlier, findings)
    {
        target.environment_ref = target.environment_ref.take().or_else(|| other.environment_ref.clone());
        let own_places = target
            .places
            .as_mut()
            .filter(|places| places.values.iter().any(|p| p.infrastructure_ref.is_some()));
        if let Some(places) = own_places {
            for place in &mut places.values {
                place.environment_ref =
                    place.environment_ref.take().or_else(|| other.environment_ref.clone());
            }
            return;
        }
        if target.infrastructure_ref.is_none() && target.infrastructure_inline.is_none() {
            target.infrastructure_ref.clone_from(&other.infrastructure_ref);
            target.infrastructure_inline.clone_from(&other.infrastructure_inline);
            target.places.clone_from(&other.places);
            target.group.clone_from(&other.group);
            target.simultaneous = target.simultaneous.or(other.simultaneous);
        }
        target.environment_inputs =
            target.environment_inputs.take().or_else(|| other.environment_inputs.clone());
        target.override_inputs = target.override_inputs.take().or_else(|| other.override_inputs.clone());
    }
}

fn find<'a>(from: &Field, earlier: &'a Earlier, findings: &mut Findings) -> Option<&'a Target> {
    let wanted = from.text();
    match earlier.iter().find(|(id, _)| *id == wanted) {
        Some((_, Some(target))) => Some(target),
        Some((_, None)) => {
            let message = format!("the stage `{wanted}` deploys nothing that could be used from it");
            findings.fault(&from.at, &from.path, message);
            None
        }
        None => {
            let deploying = earlier.iter().filter(|(_, target)| target.is_some()).map(|(id, _)| id.as_str());
            let near = did_you_mean(&wanted, deploying);
            let message = format!("no stage `{wanted}` ends before this one begins");
            findings.push(Fault::at(&from.at, &from.path, message).suggest(near));
            None
        }
    }
}
