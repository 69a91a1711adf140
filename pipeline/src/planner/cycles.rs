//! Variables that refer to each other in a circle: no value can ever come of them.

use crate::fault::{Fault, Findings};
use crate::model::{Field, Variable, VariableKind};
use crate::plan::{NodeKind, Plan};
use expr::{Segment, Target};
use std::collections::{BTreeMap, BTreeSet};

/// Name of a variable as expressions write it, and where it stands.
type Known<'a> = BTreeMap<String, &'a Field>;

/// Refuses every circle, once, and shows it.
pub(super) fn check(plan: &Plan, findings: &mut Findings) {
    let mut told = BTreeSet::new();
    let mut known = Known::new();
    add(&mut known, "pipeline.variables", &plan.variables);
    circles(&known, "", &mut told, findings);
    for node in &plan.nodes {
        if !node.variables.is_empty() {
            let mut known = known.clone();
            add(&mut known, "stepGroup.variables", &node.variables);
            circles(&known, "", &mut told, findings);
        }
        let NodeKind::Stage(stage) = &node.kind else { continue };
        let mut known = known.clone();
        add(&mut known, "stage.variables", &stage.variables);
        if let Some(target) = &stage.target {
            add(&mut known, "serviceVariables", &target.service.definition.variables);
            add(&mut known, "env.variables", &target.environment.variables);
        }
        circles(&known, &node.identifier, &mut told, findings);
    }
}

fn add<'a>(known: &mut Known<'a>, root: &str, variables: &'a [Variable]) {
    // The value of a secret variable is the name of a secret, nothing that is evaluated here.
    for variable in variables.iter().filter(|variable| variable.kind != VariableKind::Secret) {
        let field = match (&variable.default, variable.value.value.is_null()) {
            (Some(default), true) => default,
            _ => &variable.value,
        };
        known.insert(format!("{root}.{}", variable.name), field);
    }
}

/// The variable that a path leads to, as [`add`] writes it.
fn named(path: &[Segment], stage: &str) -> Option<String> {
    let names: Vec<&str> = path.iter().map_while(Segment::name).collect();
    let (root, name) = match names.as_slice() {
        ["pipeline", "variables", name, ..] => ("pipeline.variables", name),
        ["stage", "variables", name, ..] => ("stage.variables", name),
        ["pipeline", "stages", other, "variables", name, ..] if *other == stage => ("stage.variables", name),
        ["serviceVariables", name, ..] | ["service", "variables", name, ..] => ("serviceVariables", name),
        ["stepGroup", "variables", name, ..] => ("stepGroup.variables", name),
        ["env", "variables", name, ..] => ("env.variables", name),
        _ => return None,
    };
    Some(format!("{root}.{name}"))
}

fn circles(known: &Known<'_>, stage: &str, told: &mut BTreeSet<String>, findings: &mut Findings) {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, field) in known {
        let references = expr::references(&field.text()).unwrap_or_default();
        let targets = references.iter().filter_map(|reference| match &reference.target {
            Target::Path(path) => named(path, stage),
            Target::Secret(_) | Target::Functor(..) => None,
        });
        let targets = targets.filter_map(|name| known.get_key_value(&name).map(|(name, _)| name.as_str()));
        next.insert(name, targets.collect());
    }
    // Every variable is walked from once; what was left behind leads into no circle that is not known.
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in next.keys() {
        let mut trail: Vec<(&str, usize)> = vec![(*start, 0)];
        while let Some((at, index)) = trail.last().copied() {
            if let Some((_, index)) = trail.last_mut() {
                *index += 1;
            }
            let target = next.get(at).and_then(|targets| targets.get(index)).copied();
            match target {
                _ if done.contains(at) => drop(trail.pop()),
                None => {
                    done.insert(at);
                    trail.pop();
                }
                Some(target) => match trail.iter().position(|(name, _)| *name == target) {
                    Some(first) => {
                        let circle: Vec<&str> = trail.iter().skip(first).map(|(name, _)| *name).collect();
                        tell(&circle, known, told, findings);
                    }
                    None => trail.push((target, 0)),
                },
            }
        }
    }
}

fn tell(circle: &[&str], known: &Known<'_>, told: &mut BTreeSet<String>, findings: &mut Findings) {
    // A circle has no beginning: it is shown from its first name in the order of the alphabet.
    let first = circle.iter().enumerate().min_by_key(|(_, name)| **name).map_or(0, |(index, _)| index);
    let mut shown: Vec<&str> = circle.iter().cycle().skip(first).take(circle.len()).copied().collect();
    shown.extend(circle.get(first).copied());
    let Some(field) = shown.first().and_then(|name| known.get(*name)) else { return };
    if !told.insert(format!("{}:{}:{}", field.at.source, field.at.line, shown.join(" "))) {
        return;
    }
    let message = match shown.as_slice() {
        [one, _] => format!("the variable `{one}` refers to itself"),
        _ => format!("the variables refer to each other in a circle: `{}`", shown.join("` → `")),
    };
    findings.push(Fault::at(&field.at, &field.path, message));
}
