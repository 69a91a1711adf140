//! What a step that changed where requests go remembers, and what it leaves for whoever undoes it.

use super::actions::Actions;
use super::change::{Rules, SavedRule};
use super::pair::Pair;
use super::rule::Rule;
use crate::memory::{Memory, Undo};
use crate::scaling::Scaling;
use crate::service::Snapshot;
use executor_api::{Class, StepContext, StepError};
use proto::task::EcsSpec;
use serde::{Deserialize, Serialize};

/// Rules that a step changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Shifted {
    /// The two services, when the step knows them; a standalone shift does not.
    pub(crate) pair: Option<Pair>,
    /// Each with everything that brings it back.
    pub(crate) rules: Vec<SavedRule>,
    /// What the rules are to become, decided once.
    pub(crate) planned: Vec<(Rule, Actions)>,
    /// Whether the tags of the colours may have been exchanged.
    pub(crate) tagged: bool,
    /// The service that was live, when it may have been emptied.
    pub(crate) emptied: Option<Ended>,
}

impl Memory for Shifted {
    fn undo(&self) -> Option<Undo> {
        let nothing = self.rules.is_empty() && !self.tagged && self.emptied.is_none();
        (!nothing).then(|| Undo::Traffic(Box::new(self.clone())))
    }
}

impl Rules for Shifted {
    fn rules(&mut self) -> &mut Vec<SavedRule> {
        &mut self.rules
    }
}

/// A service that was deployed beside the live one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Green {
    /// The two services, and what sends requests to them.
    pub(crate) pair: Pair,
    /// The green service as it was, when there was one.
    #[serde(default)]
    pub(crate) before: Option<Snapshot>,
    /// Its autoscaling then.
    #[serde(default)]
    pub(crate) scaling: Option<Scaling>,
    /// The live service when green was deployed, and its autoscaling.
    #[serde(default)]
    pub(crate) blue: Option<Ended>,
    /// Rules that were changed for green.
    #[serde(default)]
    pub(crate) rules: Vec<SavedRule>,
    /// Names of the scaling policies that green was given.
    #[serde(default)]
    pub(crate) policies: Vec<String>,
    /// Autoscaling of green begins with the swap.
    #[serde(default)]
    pub(crate) scaling_later: bool,
}

/// A service as it was before it was emptied or deleted: everything that makes it anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ended {
    /// The service.
    pub(crate) snapshot: Snapshot,
    /// ARN of the target group by which it got its requests; none when it had none.
    #[serde(default)]
    pub(crate) group: Option<String>,
    /// Its autoscaling.
    #[serde(default)]
    pub(crate) scaling: Scaling,
    /// The service that took its autoscaling over, and what that one had before.
    #[serde(default)]
    pub(crate) handed: Option<(String, Scaling)>,
}

/// The memory of a step that brings things back: it leaves no undo data itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Restoring {
    /// Rules changed so far, to know them again after a crash.
    pub(crate) rules: Vec<SavedRule>,
}

impl Memory for Restoring {
    fn undo(&self) -> Option<Undo> {
        None
    }
}

impl Rules for Restoring {
    fn rules(&mut self) -> &mut Vec<SavedRule> {
        &mut self.rules
    }
}

/// Undo data of earlier steps of the stage, oldest first, with the type of the step.
///
/// **Errors**: `ECS-004`.
pub(crate) fn earlier(spec: &EcsSpec) -> Result<Vec<(&str, Undo)>, StepError> {
    let all = spec.earlier.undo.iter().filter(|undo| !undo.data.is_null());
    all.map(|undo| Ok((undo.kind.as_str(), Undo::read(&undo.data)?))).collect()
}

/// What an earlier attempt of this same step recorded: it is gone on with, so that its changes are not taken for what stood
/// there before.
///
/// **Errors**: `ECS-004`.
pub(crate) fn own(spec: &EcsSpec, cx: &StepContext) -> Result<Option<Undo>, StepError> {
    match spec.earlier.undo.last() {
        Some(undo)
            if undo.step == cx.task.step.identifier
                && undo.kind == spec.action.kind()
                && !undo.data.is_null() =>
        {
            Undo::read(&undo.data).map(Some)
        }
        _ => Ok(None),
    }
}

/// The pair that an earlier step of the stage decided on.
///
/// **Errors**: `ECS-004`.
pub(crate) fn pair(spec: &EcsSpec) -> Result<Option<Pair>, StepError> {
    let found = earlier(spec)?.into_iter().rev().find_map(|(_, undo)| match undo {
        Undo::Green(green) => Some(green.pair.clone()),
        _ => None,
    });
    Ok(found)
}

/// Rules of one piece of undo data.
pub(crate) fn rules_of(undo: &Undo) -> &[SavedRule] {
    match undo {
        Undo::Traffic(shifted) => &shifted.rules,
        Undo::Green(green) => &green.rules,
        _ => &[],
    }
}

/// What the stage's steps did last with a rule.
///
/// **Errors**: `ECS-004`.
pub(crate) fn left(spec: &EcsSpec, rule: &Rule) -> Result<Option<SavedRule>, StepError> {
    let all = earlier(spec)?;
    let found =
        all.iter().rev().find_map(|(_, undo)| rules_of(undo).iter().find(|saved| saved.rule == *rule));
    Ok(found.cloned())
}

/// One entry a rule for everything that several steps did with it: from what the first one found to what the last one left.
pub(crate) fn combined(all: impl IntoIterator<Item = SavedRule>) -> Vec<SavedRule> {
    let mut combined: Vec<SavedRule> = Vec::new();
    for next in all {
        match combined.iter_mut().find(|saved| saved.rule == next.rule) {
            Some(saved) => *saved = SavedRule { saved: saved.saved.clone(), ..next },
            None => combined.push(next),
        }
    }
    combined
}

/// An error that ended the step on request says in what state requests and services are left, and how to bring back what
/// was there before (settled facts §3.7).
pub(crate) fn as_left(cx: &StepContext, mut error: StepError, state: &str) -> StepError {
    if matches!(error.class, Class::Cancelled { .. }) && !error.what.contains(ROLLBACK) {
        let id = &cx.task.execution.execution_id;
        error.what.push_str(&format!("; {state}; `{ROLLBACK} {id}` brings back what was there before"));
    }
    error
}

/// The command that undoes an execution.
const ROLLBACK: &str = "delegate execution rollback";

/// For people: what the rules do, as far as the step knows.
pub(crate) fn rules_shown(rules: &[SavedRule]) -> String {
    if rules.is_empty() {
        return "requests go where they went before this step".to_owned();
    }
    let one = |saved: &SavedRule| {
        if saved.before.same(&saved.left) {
            format!("{} sends {}", saved.rule, saved.left.shown())
        } else {
            format!("{} sends {} or still {}", saved.rule, saved.left.shown(), saved.before.shown())
        }
    };
    rules.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Actions;
    use serde_json::json;

    fn to(group: &str) -> Actions {
        Actions::new(vec![json!({"Type": "forward", "TargetGroupArn": group})])
    }

    fn saved(rule: &str, from: &str, after: &str) -> SavedRule {
        let (saved, left) = (to(from), to(after));
        SavedRule { rule: Rule::default_of(rule), before: saved.clone(), saved, left, at: 7 }
    }

    #[test]
    fn what_several_steps_did_with_a_rule_is_one_way() {
        let all = combined([saved("a", "1", "2"), saved("b", "1", "2"), saved("a", "2", "3")]);
        assert_eq!(all.len(), 2);
        assert_eq!((&all[0].saved, &all[0].before, &all[0].left), (&to("1"), &to("2"), &to("3")));
    }

    #[test]
    fn undo_data_keeps_the_whole_rule() {
        let shifted = Shifted { rules: vec![saved("a", "1", "2")], ..Shifted::default() };
        let undo = shifted.undo().unwrap();
        let again = Undo::read(&undo.to_value()).unwrap();
        assert_eq!(again, undo);
        assert_eq!(rules_of(&again), shifted.rules);
        assert_eq!(Shifted::default().undo(), None);
        assert!(rules_shown(&shifted.rules).contains("sends 2 or still 1"));
    }
}
