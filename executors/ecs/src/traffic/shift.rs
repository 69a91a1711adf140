//! Sending requests elsewhere, but never where too few would answer them.

use super::actions::Actions;
use super::change::{Expect, Rules, SavedRule, change};
use super::fault::Fault;
use super::health::{healthy, wait_healthy};
use super::look;
use super::rule::Rule;
use super::weights::{Weights, short};
use crate::session::Session;
use executor_api::{Level, StepError, UnitLog};

/// How many healthy targets a group needs before its share of the requests grows, by ARN; one for a group that is not named.
pub(crate) type Least = [(String, u32)];

fn least(needs: &Least, group: &str) -> u32 {
    needs.iter().find(|(name, _)| name == group).map_or(1, |(_, least)| (*least).max(1))
}

/// Changes where a rule sends requests to. A group whose share grows must have its healthy targets first; one that no rule
/// names, and that is therefore checked by nobody, joins the rule with weight 0 first. Returns what the rule did before and what
/// it does now.
///
/// **Errors**: `ECS-056`: too few healthy targets, nothing was shifted; those of [`change`]. **Cancel**: between the
/// changes. **Repeat**: safe.
pub(crate) async fn shift<M: Rules>(
    session: &Session,
    memory: &mut M,
    rule: &Rule,
    expect: Expect<'_>,
    wanted: &(dyn Fn(&Actions) -> Result<Actions, Fault> + Send + Sync),
    needs: &Least,
    log: &dyn UnitLog,
) -> Result<(Actions, Actions), StepError> {
    let now = look::actions(session, rule).await?;
    let weights = |actions: &Actions| actions.weights().map_err(Fault::into_step);
    // A group that joined, perhaps in an earlier life, is no part of what the step found.
    let own = memory.rules().iter().find(|saved| saved.rule == *rule && saved.is_ours(&now));
    let found = own.map_or_else(|| now.clone(), |own| own.saved.clone());
    let next = wanted(&found).map_err(Fault::into_step)?;
    let wanted = |_: &Actions| Ok(next.clone());
    let before = weights(&now)?;
    let after = weights(&next)?;
    let raised: Vec<String> = after.raised(&before).into_iter().map(str::to_owned).collect();
    for group in &raised {
        let state = format!("nothing was shifted: {rule} sends {}", now.shown());
        if healthy(session, group).await?.is_unchecked() && !before.names(group) {
            let join = |now: &Actions| joined(now, group);
            Box::pin(change(session, memory, rule, expect, &join, log)).await?;
        }
        let group = look::group(session, group).await?;
        Box::pin(wait_healthy(session, &group, least(needs, &group.arn), &state, log)).await?;
    }
    let changed = Box::pin(change(session, memory, rule, expect, &wanted, log)).await?;
    for group in &raised {
        let health = healthy(session, group).await?;
        if health.healthy < least(needs, group) {
            let text = format!("{} gets more requests now and has only {}", short(group), health.shown());
            session.say(log, Level::Warn, &text).await?;
        }
    }
    Ok(changed)
}

/// Brings a rule back to what stood there before a step changed it, as soon as the groups that get more requests by that can
/// answer them.
///
/// **Errors**: `ECS-054`: somebody else changed it since; nothing is overwritten. `ECS-056`; those of [`change`].
/// **Repeat**: safe.
pub(crate) async fn restore<M: Rules>(
    session: &Session,
    memory: &mut M,
    saved: &SavedRule,
    needs: &Least,
    log: &dyn UnitLog,
) -> Result<(Actions, Actions), StepError> {
    let back = |now: &Actions| saved.restored(now);
    let (before, after) =
        Box::pin(shift(session, memory, &saved.rule, Expect::Anything, &back, needs, log)).await?;
    if !after.same(&saved.saved) {
        let text = format!("{}: somebody else changed its other actions; they are kept", saved.rule);
        session.say(log, Level::Warn, &text).await?;
    }
    Ok((before, after))
}

/// The same with one more group, which gets nothing.
pub(crate) fn joined(now: &Actions, group: &str) -> Result<Actions, Fault> {
    let weights = now.weights()?;
    if weights.names(group) {
        return Ok(now.clone());
    }
    let all = weights.iter().map(|(name, weight)| (name.to_owned(), weight));
    now.with_weights(&Weights::new(all.chain([(group.to_owned(), 0)]))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_group_joins_without_requests() {
        let now = Actions::new(vec![json!({"Type": "forward", "TargetGroupArn": "blue"})]);
        let after = joined(&now, "green").unwrap();
        assert_eq!(after.weights().unwrap().shown(), "blue 1, green 0");
        assert_eq!(joined(&after, "green").unwrap(), after);
        assert_eq!(least(&[("green".to_owned(), 3)], "green"), 3);
        assert_eq!(least(&[("green".to_owned(), 0)], "green"), 1);
        assert_eq!(least(&[], "green"), 1);
    }
}
