//! Failure strategies: what to do when a node fails, per kind of failure.

use super::duration::parse_duration;
use super::read::{Field, Reader};
use crate::fault::{Fault, Findings, did_you_mean};
use crate::yaml::Node;
use proto::failure::FailureType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Every Harness failure type.
pub const FAILURE_TYPES: [(&str, FailureType); 12] = [
    ("Authentication", FailureType::Authentication),
    ("Authorization", FailureType::Authorization),
    ("Connectivity", FailureType::Connectivity),
    ("Timeout", FailureType::Timeout),
    ("DelegateProvisioning", FailureType::DelegateProvisioning),
    ("DelegateRestart", FailureType::DelegateRestart),
    ("Verification", FailureType::Verification),
    ("PolicyEvaluationFailure", FailureType::PolicyEvaluationFailure),
    ("ApprovalRejection", FailureType::ApprovalRejection),
    ("InputTimeoutError", FailureType::InputTimeoutError),
    ("UserMarkedFailure", FailureType::UserMarkedFailure),
    ("Unknown", FailureType::Unknown),
];

/// Names of newer Harness schemas: accepted, and never raised by this manager.
const NEVER_RAISED: [&str; 5] = [
    "InfrastructureFailure",
    "PluginImageFailure",
    "ResourceLimitsFailure",
    "ConfigurationFailure",
    "RetryableTransientFailure",
];

const ACTIONS: [&str; 11] = [
    "Ignore",
    "MarkAsSuccess",
    "MarkAsFailure",
    "Abort",
    "StageRollback",
    "StepGroupRollback",
    "PipelineRollback",
    "Retry",
    "RetryStepGroup",
    "ManualIntervention",
    "ProceedWithDefaultValues",
];

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum FailureAction {
    /// IgnoreFailed, go on.
    Ignore,
    /// Success, go on.
    MarkAsSuccess,
    /// Failed, go on to the next node, whose `when` decides.
    MarkAsFailure,
    /// The execution ends as Aborted without rollback.
    Abort,
    /// Failed; the stage runs its rollback steps.
    StageRollback,
    /// Failed; the enclosing group runs its rollback steps.
    StepGroupRollback,
    /// Failed; when the stage has ended, every stage that ran is rolled back, the latest first.
    PipelineRollback,
    /// Somebody decides; after the time, the other action.
    ManualIntervention {
        /// How long, milliseconds.
        timeout_ms: u64,
        /// What follows when nobody decided.
        on_timeout: Box<FailureAction>,
    },
    /// Inputs that nobody gave in time take their defaults.
    ProceedWithDefaultValues,
    /// Run the enclosing step group again from its beginning, then the other action.
    RetryStepGroup {
        /// Further rounds.
        count: u32,
        /// Pauses before them, milliseconds; the last one repeats.
        intervals_ms: Vec<u64>,
        /// What follows the last round.
        then: Box<FailureAction>,
    },
    /// Try again, then the other action.
    Retry {
        /// Further attempts.
        count: u32,
        /// Pauses before them, milliseconds; the last one repeats.
        intervals_ms: Vec<u64>,
        /// Only while this expression is true; it is evaluated after each failure.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        condition: Option<String>,
        /// What follows the last attempt.
        then: Box<FailureAction>,
    },
}

/// Actions by failure type: one level, or several merged.
pub type Strategies = BTreeMap<FailureType, FailureAction>;

/// Where a list of strategies stands decides what is allowed in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrategyScope {
    /// The stage has rollback, and this is no rollback step.
    pub stage_rollback: bool,
    /// Inside a step group.
    pub in_group: bool,
    /// Inside rollback steps.
    pub in_rollback: bool,
}

/// Where an action stands decides which it may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// `onFailure.action`.
    First,
    /// `onRetryFailure.action`.
    AfterRetry,
    /// `onTimeout.action`.
    AfterIntervention,
}

impl Position {
    fn key(self) -> &'static str {
        match self {
            Position::First => "onFailure",
            Position::AfterRetry => "onRetryFailure",
            Position::AfterIntervention => "onTimeout",
        }
    }
}

/// Reads `failureStrategies`. `AllErrors` is expanded to every type that its level does not list otherwise.
pub fn read_strategies(
    list: &[Node],
    path: &str,
    scope: StrategyScope,
    findings: &mut Findings,
) -> Strategies {
    let mut listed = Strategies::new();
    let mut all: Option<FailureAction> = None;
    for (index, node) in list.iter().enumerate() {
        let mut outer = Reader::new(node, format!("{path}[{index}]"), findings);
        let Some(mut reader) = outer.map("onFailure", findings) else {
            findings.fault(outer.at(), outer.path(), "`onFailure` is missing");
            continue;
        };
        let errors = reader.list("errors", findings);
        let errors_path = reader.sub("errors");
        let action = read_wrapped(reader, scope, Position::First, findings);
        outer.finish(findings);
        if errors.is_empty() {
            findings.fault(&node.at, &errors_path, "`errors` lists nothing");
        }
        let Some(action) = action else { continue };
        if action == FailureAction::ProceedWithDefaultValues
            && !matches!(errors, [only] if only.as_str() == Some("InputTimeoutError"))
        {
            let message = "`ProceedWithDefaultValues` is only for the error `InputTimeoutError`";
            findings.fault(&node.at, &errors_path, message);
        }
        for error in errors {
            let name = error.as_str().unwrap_or_default();
            if name == "AllErrors" {
                if errors.len() > 1 {
                    findings.fault(&error.at, &errors_path, "`AllErrors` must stand alone in its list");
                } else if all.is_some() {
                    findings.fault(&error.at, &errors_path, "`AllErrors` is handled twice at this level");
                }
                all = Some(action.clone());
            } else if let Some((_, kind)) = FAILURE_TYPES.iter().find(|(known, _)| *known == name) {
                let older = listed.insert(*kind, action.clone());
                if older.is_some_and(|older| older != action) {
                    let message = format!("`{name}` has two different actions at this level");
                    findings.fault(&error.at, &errors_path, message);
                }
            } else if NEVER_RAISED.contains(&name) {
                let text = format!("`{name}` is never raised by this manager");
                findings.remark("failure-type-unused", &error.at, &errors_path, text);
            } else {
                let names = || FAILURE_TYPES.iter().map(|(name, _)| *name).chain(["AllErrors"]);
                let message = format!(
                    "`{name}` is not a failure type; known are {}",
                    names().collect::<Vec<_>>().join(", ")
                );
                let fault = Fault::at(&error.at, &errors_path, message);
                findings.push(fault.suggest(did_you_mean(name, names())));
            }
        }
    }
    if let Some(all) = all {
        for (_, kind) in FAILURE_TYPES {
            listed.entry(kind).or_insert_with(|| all.clone());
        }
    }
    listed
}

fn read_action(
    mut reader: Reader<'_>,
    scope: StrategyScope,
    position: Position,
    findings: &mut Findings,
) -> Option<FailureAction> {
    let kind = reader.required("type", findings)?;
    let spec = reader.map("spec", findings);
    reader.finish(findings);
    let text = kind.text();
    match text.as_str() {
        "Ignore" => Some(FailureAction::Ignore),
        "MarkAsSuccess" => Some(FailureAction::MarkAsSuccess),
        "MarkAsFailure" => Some(FailureAction::MarkAsFailure),
        "Abort" => Some(FailureAction::Abort),
        "StageRollback" if scope.stage_rollback => Some(FailureAction::StageRollback),
        "StageRollback" => {
            let message = "`StageRollback` is not allowed here: rollback steps cannot be rolled back";
            findings.fault(&kind.at, &kind.path, message);
            None
        }
        "StepGroupRollback" if scope.in_group => Some(FailureAction::StepGroupRollback),
        "StepGroupRollback" => {
            findings.fault(&kind.at, &kind.path, "`StepGroupRollback` is only allowed inside a step group");
            None
        }
        "PipelineRollback" if !scope.in_rollback => Some(FailureAction::PipelineRollback),
        "PipelineRollback" => {
            let message = "`PipelineRollback` is not allowed here: rollback steps cannot be rolled back";
            findings.fault(&kind.at, &kind.path, message);
            None
        }
        "Retry" | "RetryStepGroup" | "ProceedWithDefaultValues" if position != Position::First => {
            findings.fault(&kind.at, &kind.path, format!("`{}` cannot be `{text}`", position.key()));
            None
        }
        "ManualIntervention" if position == Position::AfterIntervention => {
            findings.fault(&kind.at, &kind.path, "`onTimeout` cannot be `ManualIntervention`");
            None
        }
        "ProceedWithDefaultValues" => Some(FailureAction::ProceedWithDefaultValues),
        "ManualIntervention" => read_intervention(spec, &kind, scope, findings),
        "Retry" => read_retry(spec, &kind, scope, findings),
        "RetryStepGroup" if scope.in_group && !scope.in_rollback => {
            match read_retry(spec, &kind, scope, findings)? {
                FailureAction::Retry { count, intervals_ms, condition: None, then } => {
                    Some(FailureAction::RetryStepGroup { count, intervals_ms, then })
                }
                _ => {
                    findings.fault(&kind.at, &kind.path, "`RetryStepGroup` knows no `condition`");
                    None
                }
            }
        }
        "RetryStepGroup" => {
            let message = "`RetryStepGroup` is only allowed inside a step group, and not in rollback steps";
            findings.fault(&kind.at, &kind.path, message);
            None
        }
        other => {
            let message = format!("`{other}` is not an action; supported are {}", ACTIONS.join(", "));
            let fault = Fault::at(&kind.at, &kind.path, message);
            findings.push(fault.suggest(did_you_mean(other, ACTIONS)));
            None
        }
    }
}

/// `{action: …}`, with keys that were read before.
fn read_wrapped(
    mut outer: Reader<'_>,
    scope: StrategyScope,
    position: Position,
    findings: &mut Findings,
) -> Option<FailureAction> {
    let action = outer.map("action", findings);
    if action.is_none() {
        findings.fault(outer.at(), outer.path(), "`action` is missing");
    }
    let action = action.and_then(|action| read_action(action, scope, position, findings));
    outer.finish(findings);
    action
}

fn read_retry(
    spec: Option<Reader<'_>>,
    kind: &Field,
    scope: StrategyScope,
    findings: &mut Findings,
) -> Option<FailureAction> {
    let Some(mut spec) = spec else {
        findings.fault(
            &kind.at,
            &kind.path,
            format!("`{}` needs `spec: {{retryCount, retryIntervals, onRetryFailure}}`", kind.text()),
        );
        return None;
    };
    let count = spec.required("retryCount", findings).and_then(|field| match field.text().parse::<u32>() {
        Ok(count) if (1..=MAX_RETRIES).contains(&count) => Some(count),
        _ => {
            let message = format!("expected a number from 1 to {MAX_RETRIES}, found `{}`", field.text());
            findings.fault(&field.at, &field.path, message);
            None
        }
    });
    let path = spec.sub("retryIntervals");
    let list = spec.list("retryIntervals", findings);
    let mut intervals_ms = Vec::new();
    for item in list {
        match item.as_str().and_then(|text| if text == "0s" { Some(0) } else { parse_duration(text) }) {
            Some(ms) => intervals_ms.push(ms),
            None => findings.fault(&item.at, &path, "expected a duration such as `30s`"),
        }
    }
    if list.is_empty() {
        findings.fault(spec.at(), &path, "`retryIntervals` lists nothing");
    }
    let then = match spec.map("onRetryFailure", findings) {
        Some(outer) => read_wrapped(outer, scope, Position::AfterRetry, findings),
        None => Some(FailureAction::MarkAsFailure),
    };
    let condition = spec.field("condition", findings).map(|field| field.text());
    spec.finish(findings);
    Some(FailureAction::Retry { count: count?, intervals_ms, condition, then: Box::new(then?) })
}

fn read_intervention(
    spec: Option<Reader<'_>>,
    kind: &Field,
    scope: StrategyScope,
    findings: &mut Findings,
) -> Option<FailureAction> {
    let Some(mut spec) = spec else {
        let message = "`ManualIntervention` needs `spec: {timeout, onTimeout: {action}}`";
        findings.fault(&kind.at, &kind.path, message);
        return None;
    };
    let timeout = spec.required("timeout", findings).and_then(|field| {
        let ms = parse_duration(&field.text());
        if ms.is_none() {
            let message = format!("expected a duration such as `1h`, found `{}`", field.text());
            findings.fault(&field.at, &field.path, message);
        }
        ms
    });
    let outer = spec.required_map("onTimeout", findings);
    let action = outer.and_then(|outer| read_wrapped(outer, scope, Position::AfterIntervention, findings));
    spec.finish(findings);
    Some(FailureAction::ManualIntervention { timeout_ms: timeout?, on_timeout: Box::new(action?) })
}

/// More attempts than this are a loop and no retry.
pub const MAX_RETRIES: u32 = 100;

/// The same action for every failure type.
pub fn for_all_errors(action: &FailureAction) -> Strategies {
    FAILURE_TYPES.iter().map(|(_, kind)| (*kind, action.clone())).collect()
}

/// `inner` over `outer`, per failure type.
#[must_use]
pub fn over(outer: &Strategies, inner: &Strategies) -> Strategies {
    let mut merged = outer.clone();
    merged.extend(inner.iter().map(|(kind, action)| (*kind, action.clone())));
    merged
}
