//! Whether an event starts a pipeline, and if not, why.

use super::facts::{EventScope, TriggerFacts};
use super::{Source, Trigger};
use serde::{Deserialize, Serialize};

/// What became of an event at a trigger: the states of Harness' event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "The names are those of the event log.")]
pub enum Verdict {
    TargetExecutionRequested,
    NoMatchingTriggerForPayloadConditions,
    NoMatchingTriggerForHeaderConditions,
    NoMatchingTriggerForJexlConditions,
    NoEnabledCustomTriggerFound,
    InvalidRuntimeInputYaml,
    TriggerAuthenticationFailed,
    ExceptionWhileProcessing,
    /// Ours: the manager was away when the clock said so, and it is too late to catch up.
    ScheduledTimeMissed,
}

impl Verdict {
    /// As the event log writes it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::TargetExecutionRequested => "TARGET_EXECUTION_REQUESTED",
            Verdict::NoMatchingTriggerForPayloadConditions => "NO_MATCHING_TRIGGER_FOR_PAYLOAD_CONDITIONS",
            Verdict::NoMatchingTriggerForHeaderConditions => "NO_MATCHING_TRIGGER_FOR_HEADER_CONDITIONS",
            Verdict::NoMatchingTriggerForJexlConditions => "NO_MATCHING_TRIGGER_FOR_JEXL_CONDITIONS",
            Verdict::NoEnabledCustomTriggerFound => "NO_ENABLED_CUSTOM_TRIGGER_FOUND",
            Verdict::InvalidRuntimeInputYaml => "INVALID_RUNTIME_INPUT_YAML",
            Verdict::TriggerAuthenticationFailed => "TRIGGER_AUTHENTICATION_FAILED",
            Verdict::ExceptionWhileProcessing => "EXCEPTION_WHILE_PROCESSING",
            Verdict::ScheduledTimeMissed => "SCHEDULED_TIME_MISSED",
        }
    }
}

/// Judges an event. `Ok` starts the pipeline; the error says which condition does not hold and what was found.
///
/// Conditions are looked at in the order payload, headers, JEXL; the first list that refuses is named, with all of its
/// conditions that do not hold.
pub fn judge(trigger: &Trigger, facts: &TriggerFacts, now_ms: i64) -> Result<(), (Verdict, String)> {
    if !trigger.enabled {
        let message = format!("the trigger `{}` is disabled", trigger.identifier);
        return Err((Verdict::NoEnabledCustomTriggerFound, message));
    }
    let Source::Custom { payload, headers, jexl } = &trigger.source else { return Ok(()) };
    for (list, verdict) in [
        (payload, Verdict::NoMatchingTriggerForPayloadConditions),
        (headers, Verdict::NoMatchingTriggerForHeaderConditions),
    ] {
        let refusals: Vec<String> =
            list.iter().filter_map(|condition| condition.refuses(facts, now_ms)).collect();
        if !refusals.is_empty() {
            return Err((verdict, refusals.join("; ")));
        }
    }
    if let Some(text) = jexl {
        let scope = EventScope(facts);
        let verdict = Verdict::NoMatchingTriggerForJexlConditions;
        match expr::evaluate_bool(text, &facts.context(&scope, now_ms)) {
            Ok(true) => {}
            Ok(false) => return Err((verdict, format!("`{text}` is false"))),
            Err(error) => return Err((verdict, format!("`{text}`: {error}"))),
        }
    }
    Ok(())
}
