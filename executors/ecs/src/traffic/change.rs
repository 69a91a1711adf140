//! Changing one rule: announced with what stood there, only if it is still as it was seen, and read back afterwards.

use super::actions::Actions;
use super::fault::Fault;
use super::look;
use super::rule::Rule;
use crate::memory::Memory;
use crate::session::{Session, elb};
use aws::Repeat;
use executor_api::{Level, StepError, UnitLog};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// How long a rule may take to be read back as it was written.
const READ_BACK: Duration = Duration::from_secs(15);

/// A rule that a step changed, with everything that brings it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedRule {
    /// Which.
    pub(crate) rule: Rule,
    /// Its actions before the first change of the step, whole.
    pub(crate) saved: Actions,
    /// Its actions before the newest change, until that was read back; then what was read.
    pub(crate) before: Actions,
    /// What the newest change makes of them.
    pub(crate) left: Actions,
    /// When that was announced, epoch milliseconds.
    pub(crate) at: u64,
}

impl SavedRule {
    /// Whether a rule that does `now` was changed by nobody else since. It is not known whether an announced change was
    /// carried out, so both sides of it are ours.
    pub(super) fn is_ours(&self, now: &Actions) -> bool {
        now.same(&self.left) || now.same(&self.before)
    }

    /// What the rule has to become to be as it was, if nobody else changed it: the saved actions, whole. Where somebody changed
    /// what does not concern the target groups, only those are put back and the rest is kept.
    ///
    /// **Errors**: somebody else changed where requests go.
    pub(crate) fn restored(&self, now: &Actions) -> Result<Actions, Fault> {
        if now.same(&self.saved) || self.is_ours(now) {
            return Ok(self.saved.clone());
        }
        if now.same_weights(&self.left) || now.same_weights(&self.before) {
            return now.forwarding(&self.saved.weights()?);
        }
        if now.same_weights(&self.saved) {
            return Ok(now.clone());
        }
        Err(Fault::Changed { rule: self.rule.clone(), now: now.shown(), left: self.left.shown() })
    }
}

/// The memory of a step that changes rules.
pub(crate) trait Rules: Memory {
    /// Rules changed so far.
    fn rules(&mut self) -> &mut Vec<SavedRule>;
}

/// What is expected of a rule before it is changed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect<'a> {
    /// Nothing: whatever it does is where the step begins.
    Anything,
    /// Requests go where an earlier step of the stage sent them.
    AsLeft(&'a SavedRule),
}

/// Changes a rule by `wanted`, a function of what it does now, and reads it back. Nothing is sent when the rule is as wanted
/// already. Returns what it did before and what it does now.
///
/// **Errors**: `ECS-054`: somebody else changed it; `ECS-055`: it reads back otherwise; `ECS-002`; those of the calls. The
/// text says whether the rule was changed. **Cancel**: only before the change is announced. **Repeat**: safe; after a crash it
/// goes on by what `memory` holds.
pub(crate) async fn change<M: Rules>(
    session: &Session,
    memory: &mut M,
    rule: &Rule,
    expect: Expect<'_>,
    wanted: &(dyn Fn(&Actions) -> Result<Actions, Fault> + Send + Sync),
    log: &dyn UnitLog,
) -> Result<(Actions, Actions), StepError> {
    let now = look::actions(session, rule).await?;
    let known = memory.rules().iter().find(|saved| saved.rule == *rule).cloned();
    let changed = |left: &Actions| {
        Fault::Changed { rule: rule.clone(), now: now.shown(), left: left.shown() }.into_step()
    };
    match (&known, expect) {
        (Some(own), _) if !own.is_ours(&now) => return Err(changed(&own.left)),
        (None, Expect::AsLeft(earlier))
            if !now.same_weights(&earlier.left) && !now.same_weights(&earlier.before) =>
        {
            return Err(changed(&earlier.left));
        }
        _ => {}
    }
    let next = wanted(&now).map_err(Fault::into_step).map_err(|error| about(error, rule))?;
    if next.same(&now) {
        session.say(log, Level::Info, &format!("{rule} sends {} already", now.shown())).await?;
        return Ok((now.clone(), now));
    }
    session.go_on(&format!("{rule} sends {}", now.shown()))?;
    let entry = SavedRule {
        rule: rule.clone(),
        saved: known.map_or_else(|| now.clone(), |known| known.saved),
        before: now.clone(),
        left: next.clone(),
        at: session.cx.clock.wall(),
    };
    match memory.rules().iter_mut().find(|saved| saved.rule == *rule) {
        Some(saved) => *saved = entry,
        None => memory.rules().push(entry),
    }
    let call = format!("change {rule} to {}", next.shown());
    session.announce(format!("{rule}: {} becomes {}", now.shown(), next.shown()), &[&call], memory).await?;
    // Making the intent durable takes a while; what happened meanwhile is somebody else's word.
    let again = look::actions(session, rule).await?;
    if !again.same(&now) {
        let fault = Fault::Changed { rule: rule.clone(), now: again.shown(), left: now.shown() };
        return Err(fault.into_step());
    }
    let sent = send(session, &call, rule, &next).await;
    let result = match sent {
        Ok(()) => read_back(session, rule, &now, &next).await,
        // It is not always known what became of it; the rule knows.
        Err(error) => match look::actions(session, rule).await {
            Ok(found) if found.same(&next) => Ok(()),
            Ok(found) if found.same(&now) => {
                Err(StepError { what: format!("{}; {rule} is as it was", error.what), ..error })
            }
            Ok(found) => {
                Err(StepError { what: format!("{}; {rule} sends {}", error.what, found.shown()), ..error })
            }
            Err(_) => {
                Err(StepError { what: format!("{}; what {rule} does now is not known", error.what), ..error })
            }
        },
    };
    result?;
    // From here on only what was read back is ours.
    if let Some(saved) = memory.rules().iter_mut().find(|saved| saved.rule == *rule) {
        saved.before.clone_from(&next);
    }
    session.say(log, Level::Info, &format!("{rule}: {} → {} (read back)", now.shown(), next.shown())).await?;
    Ok((now, next))
}

fn about(mut error: StepError, rule: &Rule) -> StepError {
    error.what = format!("{rule}: {}", error.what);
    error
}

async fn send(session: &Session, call: &str, rule: &Rule, actions: &Actions) -> Result<(), StepError> {
    let (operation, input) = match &rule.arn {
        Some(arn) => ("ModifyRule", json!({"RuleArn": arn, "Actions": actions.to_input()})),
        None => {
            ("ModifyListener", json!({"ListenerArn": rule.listener, "DefaultActions": actions.to_input()}))
        }
    };
    match session.change(call, elb(operation), input, Repeat::Safe).await {
        Ok(_) => Ok(()),
        Err(fault) => Err(session.fault(fault, call)),
    }
}

/// Answers may be older than the change for a moment; another answer is somebody else's.
async fn read_back(
    session: &Session,
    rule: &Rule,
    before: &Actions,
    wanted: &Actions,
) -> Result<(), StepError> {
    let limit = session.cx.clock.mono() + READ_BACK;
    loop {
        let found = look::actions(session, rule).await?;
        if found.same(wanted) {
            return Ok(());
        }
        if !found.same(before) || session.cx.clock.mono() >= limit {
            let fault = Fault::NotTaken { rule: rule.clone(), wanted: wanted.shown(), found: found.shown() };
            return Err(fault.into_step());
        }
        let state = format!("{rule} was changed to {} and is not read back so yet", wanted.shown());
        session.pause(session.settings.poll.min(Duration::from_secs(1)), &state).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn actions(blue: u32, green: u32, scope: &str) -> Actions {
        Actions::new(vec![
            json!({"Type": "authenticate-oidc", "Order": "1", "AuthenticateOidcConfig": {"Scope": scope}}),
            json!({"Type": "forward", "Order": "2", "ForwardConfig": {"TargetGroups": [
                {"TargetGroupArn": "blue", "Weight": blue}, {"TargetGroupArn": "green", "Weight": green}]}}),
        ])
    }

    fn saved() -> SavedRule {
        SavedRule {
            rule: Rule::default_of("listener"),
            saved: Actions::new(vec![
                json!({"Type": "authenticate-oidc", "Order": "1", "AuthenticateOidcConfig": {"Scope": "openid"}}),
                json!({"Type": "forward", "Order": "2", "TargetGroupArn": "blue"}),
            ]),
            before: actions(90, 10, "openid"),
            left: actions(50, 50, "openid"),
            at: 0,
        }
    }

    #[test]
    fn what_is_still_ours_comes_back_whole() {
        let saved = saved();
        for now in [saved.left.clone(), saved.before.clone(), saved.saved.clone()] {
            assert_eq!(saved.restored(&now).unwrap(), saved.saved);
        }
    }

    #[test]
    fn another_one_s_edit_is_kept_and_never_overwritten() {
        let saved = saved();
        // They changed the login, we the weights: both stay.
        let back = saved.restored(&actions(50, 50, "openid email")).unwrap();
        assert_eq!(back.only_group().unwrap(), "blue");
        assert_eq!(back.to_input()[0]["AuthenticateOidcConfig"]["Scope"], "openid email");
        // They changed the weights: theirs stay, and it is said.
        let fault = saved.restored(&actions(30, 70, "openid")).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "the default rule of listener listener was changed by somebody else: it sends blue 30, green 70; \
             this stage left blue 50, green 50"
        );
        assert_eq!(fault.into_step().code, "ECS-054");
        // They put the weights back themselves, with something else.
        assert!(saved.restored(&saved.saved).unwrap().same(&saved.saved));
    }

    #[test]
    fn a_saved_rule_keeps_every_member() {
        let saved = saved();
        let value: Value = serde_json::to_value(&saved).unwrap();
        assert_eq!(serde_json::from_value::<SavedRule>(value).unwrap(), saved);
    }
}
