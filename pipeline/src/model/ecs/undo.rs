//! Rule R25: the rollback of a stage of ECS that writes none.

use super::{EcsAction, EcsStep, OwnPlace};
use crate::fault::Findings;
use crate::model::looping::RepeatMore;
use crate::model::read::Field;
use crate::model::step::{Frame, Looping, Spec, Step, StepNode};
use crate::rules;
use serde_json::Value as Json;
use std::collections::BTreeSet;

/// One rollback step for each ECS step that leaves something to undo, the last one first. Empty in strict mode and where
/// there is no such step.
pub(in crate::model) fn implicit_undo(
    stage: &Frame,
    steps: &[StepNode],
    findings: &mut Findings,
) -> Vec<StepNode> {
    let mut undo = Vec::new();
    if !findings.strict {
        collect(steps, &Inside::default(), &mut BTreeSet::new(), &mut undo);
    }
    if !undo.is_empty() {
        rules::r25_implicit_undo(&stage.at, &stage.path, findings);
    }
    undo.reverse();
    undo
}

/// What encloses a list of steps.
#[derive(Clone, Default)]
struct Inside {
    /// Identifiers of the groups, each with `_` behind it.
    groups: String,
    /// One of them is a loop.
    looped: bool,
}

fn collect(steps: &[StepNode], inside: &Inside, taken: &mut BTreeSet<String>, undo: &mut Vec<StepNode>) {
    for node in steps {
        match node {
            StepNode::Step(step) => undo.extend(of_step(step, inside, taken)),
            StepNode::Group(group) => {
                let groups = format!("{}{}_", inside.groups, group.frame.identifier);
                let inside = Inside { groups, looped: inside.looped || group.frame.looping.is_some() };
                collect(&group.steps, &inside, taken, undo);
            }
            StepNode::Parallel(members) => collect(members, inside, taken, undo),
        }
    }
}

/// Where it works and on which agents is taken from the run of the step when it is undone.
fn of_step(step: &Step, inside: &Inside, taken: &mut BTreeSet<String>) -> Option<StepNode> {
    let Spec::Ecs(ecs) = &step.spec else { return None };
    if !ecs.leaves_undo() {
        return None;
    }
    let (frame, name) = (&step.frame, &step.frame.name);
    // Identifiers of steps are unique in their group only.
    let mut identifier = format!("undo_{}", frame.identifier);
    if !taken.insert(identifier.clone()) {
        identifier = format!("undo_{}{}", inside.groups, frame.identifier);
        taken.insert(identifier.clone());
    }
    // What a name says of its iteration means nothing outside of the loop.
    let called = Some(name.text()).filter(|text| !text.contains("<+"));
    let called = called.unwrap_or_else(|| frame.identifier.clone());
    let action =
        EcsAction::EcsUndo { step: frame.identifier.clone(), kind: step.kind.clone(), of: name.path.clone() };
    // The runs that are undone, the last one first, are its items; who they are is known when it begins.
    let field = |value: Json| Field { value, path: name.path.clone(), at: name.at.clone() };
    let looped = inside.looped || frame.looping.is_some();
    let looping = looped.then(|| Looping::Repeat {
        items: Some(field(Json::Array(Vec::new()))),
        times: None,
        max_concurrency: Some(field(1.into())),
        more: Box::new(RepeatMore { skip_queued: true, ..RepeatMore::default() }),
    });
    let frame = Frame {
        identifier,
        name: Field::made(format!("Undo {called}"), name.path.clone(), &name.at),
        path: frame.path.clone(),
        at: frame.at.clone(),
        when: None,
        strategies: None,
        looping,
        selectors: None,
        timeout: frame.timeout.clone(),
    };
    let spec = Spec::Ecs(Box::new(EcsStep { action, place: OwnPlace::default() }));
    Some(StepNode::Step(Box::new(Step { frame, kind: "EcsUndo".to_owned(), spec })))
}
