//! Approvals: what a waiting HarnessApproval step remembers, who may act on it, and what follows (pipeline.md 4.1).
//!
//! The plan holds references to groups and never their members: [`Actor::groups`] says who somebody is at the moment in
//! which they act, so that a person who left a group does not approve any more.

use super::state::{Phase, Run, State, Status};
use super::task::Builder;
use super::timers::name;
use super::user::{Actor, Refusal, UserAction};
use super::{Action, Machine, Millis};
use crate::model::Field;
use crate::model::read::whole_match;
use crate::model::step_approval::{self, ApproverInput};
use proto::failure::{Failure, FailureKind};
use proto::result::Output;
use proto::text::placeholders;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Longest comment and value, characters: they are kept with the execution.
const MAX_CHARS: usize = 4096;

/// An approval that was asked for: everything resolved when the step began to wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Approval {
    /// What approvers read.
    pub message: String,
    /// Whether approvers are shown what ran before.
    pub history: bool,
    /// References to user groups; a member of one of them may act.
    pub groups: Vec<String>,
    /// How many must approve.
    pub minimum: u32,
    /// Whoever started the execution may not act.
    pub disallow_executor: bool,
    /// People who may not act.
    pub disallowed_emails: Vec<String>,
    /// Values that an approval must bring.
    pub inputs: Vec<Ask>,
    /// Kept for whoever asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback_id: Option<String>,
    /// Being approved rejects what older executions still ask at the same step.
    pub auto_reject: bool,
    /// When it approves itself, and the comment for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto: Option<(Millis, String)>,
    /// When it began to wait.
    pub asked_at: Millis,
    /// When the step times out.
    pub deadline: Millis,
    /// Who did what, in order.
    pub activities: Vec<Activity>,
}

/// A value that an approval must bring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// Its rules.
    #[serde(flatten)]
    pub rule: ApproverInput,
    /// The default, resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_value: Option<String>,
}

/// What somebody did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// Name.
    pub name: String,
    /// Email; empty for what the manager did by itself.
    pub email: String,
    /// The same person has the same one.
    pub principal: String,
    /// Approved or rejected.
    pub approved: bool,
    /// Values of the approver inputs.
    pub inputs: BTreeMap<String, String>,
    /// Free text.
    pub comments: String,
    /// When.
    pub at: Millis,
}

impl Activity {
    /// The shape in outcomes, in the API and in the view.
    pub fn shown(&self) -> Json {
        let inputs: Vec<Json> =
            self.inputs.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        json!({
            "user": { "name": self.name, "email": self.email },
            "action": if self.approved { "APPROVE" } else { "REJECT" },
            "approverInputs": inputs,
            "comments": self.comments,
            "approvedAt": self.at,
        })
    }
}

impl Approval {
    /// How many have approved.
    pub fn approvals(&self) -> u32 {
        u32::try_from(self.activities.iter().filter(|activity| activity.approved).count()).unwrap_or(u32::MAX)
    }
}

/// Resolves a step that is about to wait. **Errors**: what is written wrongly, or that no group exists.
pub(super) fn ask(
    builder: &Builder<'_>,
    spec: &step_approval::Approval,
    at: Millis,
    deadline: Millis,
) -> Result<(Approval, Vec<String>), Box<Failure>> {
    let groups = builder.texts(&spec.groups)?;
    let known = &builder.plan.run.groups;
    let (there, away): (Vec<String>, Vec<String>) =
        groups.iter().cloned().partition(|group| known.contains(group));
    if there.is_empty() {
        let message = format!("none of the user groups {} exists; nobody could approve", groups.join(", "));
        let hint = "apply a `userGroup` with exactly this identifier; nothing similar is taken for it";
        return Err(Box::new(Failure::new(FailureKind::BadSpec, "PIPE-030", message).hint(hint)));
    }
    let notices = away
        .iter()
        .map(|group| format!("the user group `{group}` did not exist when the execution started"))
        .collect();
    let minimum = match &spec.minimum {
        None => 1,
        Some(field) => {
            let text = builder.strict(field)?;
            let count = text.trim().parse::<u32>().ok().filter(|count| *count > 0);
            count.ok_or_else(|| {
                builder.bad(field, format!("expected a whole number from 1, found `{text}`"))
            })?
        }
    };
    let flag = |field: &Option<Field>| -> Result<bool, Box<Failure>> {
        let Some(field) = field else { return Ok(false) };
        match builder.strict(field)?.trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(builder.bad(field, format!("expected `true` or `false`, found `{other}`"))),
        }
    };
    let auto = match &spec.auto {
        None => None,
        Some(auto) => {
            let (time, zone) = (builder.strict(&auto.time)?, builder.strict(&auto.time_zone)?);
            let when =
                step_approval::instant(&time, &zone).map_err(|message| builder.bad(&auto.time, message))?;
            // An approval that nobody had the time to look at is worse than a failed step.
            if when <= at {
                let message = format!("the automatic approval at `{time}` ({zone}) lies in the past");
                return Err(builder.bad(&auto.time, message));
            }
            let comments = auto.comments.as_ref().map(|field| builder.lenient(field)).transpose()?;
            Some((when, comments.map(|text| text.0).unwrap_or_default()))
        }
    };
    let mut inputs = Vec::new();
    for rule in &spec.inputs {
        let default = rule.default.as_ref().map(|field| builder.lenient(field)).transpose()?;
        let default_value = default.map(|text| without_secrets(text.0));
        // What is shown is the resolved default.
        let rule = ApproverInput { default: None, ..rule.clone() };
        inputs.push(Ask { rule, default_value });
    }
    let approval = Approval {
        message: without_secrets(builder.lenient(&spec.message)?.0),
        history: spec.history,
        groups,
        minimum,
        disallow_executor: flag(&spec.disallow_executor)?,
        disallowed_emails: spec
            .disallowed_emails
            .as_ref()
            .map_or(Ok(Vec::new()), |list| builder.texts(list))?,
        inputs,
        callback_id: spec.callback_id.as_ref().map(|field| builder.lenient(field)).transpose()?.map(|t| t.0),
        auto_reject: flag(&spec.auto_reject)?,
        auto,
        asked_at: at,
        deadline,
        activities: Vec::new(),
    };
    Ok((approval, notices))
}

/// The manager has no secret to show: what stands for one in a text for people becomes stars.
pub(crate) fn without_secrets(mut text: String) -> String {
    for placeholder in placeholders(&text).into_iter().rev() {
        text.replace_range(placeholder.range, "********");
    }
    text
}

/// Whether somebody may do this to a step that waits for an approval.
pub(super) fn fits(state: &State, run: &Run, by: &Actor, action: &UserAction) -> Result<(), Refusal> {
    let Some(approval) = &run.approval else { return Err(refused(by, "the step asks for nothing")) };
    let comments = match action {
        UserAction::Approve { comments, .. } | UserAction::Reject { comments, .. } => comments,
        // Decided by the manager itself, for nobody in particular.
        _ => return Ok(()),
    };
    if approval.disallow_executor && !by.principal.is_empty() && by.principal == state.plan.run.started_by {
        return Err(refused(
            by,
            "they started this execution, and the step lets nobody decide about their own",
        ));
    }
    if approval.disallowed_emails.contains(&by.email) {
        return Err(refused(by, "`disallowedUserEmails` names them"));
    }
    if !approval.groups.iter().any(|group| by.groups.contains(group)) {
        let why = format!("they are in none of the user groups {}", approval.groups.join(", "));
        return Err(refused(by, why));
    }
    if approval.activities.iter().any(|activity| activity.principal == by.principal) {
        return Err(refused(by, "they have acted on this approval already"));
    }
    check_length("comments", comments)?;
    match action {
        UserAction::Approve { inputs, .. } => check_inputs(&approval.inputs, inputs),
        UserAction::Reject { inputs, .. } => inputs.iter().try_for_each(|(name, value)| {
            declared(&approval.inputs, name)?;
            check_length(name, value)
        }),
        _ => Ok(()),
    }
}

fn refused(by: &Actor, why: impl Into<String>) -> Refusal {
    let who = if by.email.is_empty() { &by.name } else { &by.email };
    Refusal::NotAllowed { who: who.clone(), why: why.into() }
}

fn bad(field: &str, why: impl Into<String>) -> Refusal {
    Refusal::BadValue { field: field.to_owned(), why: why.into() }
}

fn check_length(field: &str, text: &str) -> Result<(), Refusal> {
    let count = text.chars().count();
    if count <= MAX_CHARS {
        Ok(())
    } else {
        Err(bad(field, format!("{count} characters; the limit is {MAX_CHARS}")))
    }
}

fn declared<'a>(asks: &'a [Ask], name: &str) -> Result<&'a Ask, Refusal> {
    asks.iter().find(|ask| ask.rule.name == name).ok_or_else(|| {
        let names: Vec<&str> = asks.iter().map(|ask| ask.rule.name.as_str()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        bad(name, format!("the step declares no such approver input; it declares {known}"))
    })
}

/// An approval brings exactly the declared names, each with a value that its rules allow.
fn check_inputs(asks: &[Ask], given: &BTreeMap<String, String>) -> Result<(), Refusal> {
    for name in given.keys() {
        declared(asks, name)?;
    }
    for ask in asks {
        let rule = &ask.rule;
        let Some(value) = given.get(&rule.name) else {
            return Err(bad(&rule.name, "the approval must bring this approver input"));
        };
        check_length(&rule.name, value)?;
        if value.is_empty() {
            if rule.required {
                return Err(bad(&rule.name, "a value is required"));
            }
            continue;
        }
        if let Some(pattern) = &rule.regex
            && !whole_match(pattern).build().is_ok_and(|regex| regex.is_match(value))
        {
            return Err(bad(&rule.name, format!("`{value}` does not match `{pattern}`")));
        }
        if let Some(allowed) = &rule.allowed {
            let parts: Vec<&str> = if rule.several { value.split(',').collect() } else { vec![value] };
            let wrong = parts.into_iter().map(str::trim).find(|part| !allowed.iter().any(|one| one == part));
            if let Some(wrong) = wrong {
                return Err(bad(
                    &rule.name,
                    format!("`{wrong}` is not allowed; allowed are {}", allowed.join(", ")),
                ));
            }
        }
    }
    Ok(())
}

impl Machine<'_> {
    /// A step begins to wait for people.
    pub(super) fn wait_for_approval(&mut self, id: &str, attempt: u32, approval: Approval) {
        if let Some((at, _)) = &approval.auto {
            self.actions.push(Action::SetTimer { timer: name("approve", attempt, id), at: *at });
        }
        self.update(id, |run| {
            run.phase = Phase::Approval;
            run.status = Status::ApprovalWaiting;
            run.approval = Some(Box::new(approval));
        });
    }

    /// Somebody who may do it approves or rejects.
    pub(super) fn act_on_approval(&mut self, id: &str, by: &Actor, action: &UserAction) {
        let (approved, inputs, comments) = match action {
            UserAction::Approve { inputs, comments } => (true, inputs.clone(), comments.clone()),
            UserAction::Reject { inputs, comments } => (false, inputs.clone(), comments.clone()),
            UserAction::Supersede { execution } => {
                (false, BTreeMap::new(), format!("execution {execution} was approved at this step"))
            }
            _ => return,
        };
        self.note_activity(id, by, approved, inputs, comments);
        let enough = self
            .run(id)
            .and_then(|run| run.approval.as_deref())
            .is_some_and(|approval| approval.approvals() >= approval.minimum);
        if !approved {
            let message = match action {
                UserAction::Supersede { execution } => {
                    format!(
                        "rejected by itself, since the later execution {execution} was approved at this step"
                    )
                }
                _ => format!("{} rejected", by.name),
            };
            let failure = Failure::new(FailureKind::ApprovalRejection, "PIPE-031", message);
            self.fail(id, failure, Status::ApprovalRejected);
        } else if enough {
            self.approved(id);
        }
    }

    fn approved(&mut self, id: &str) {
        if self.run(id).and_then(|run| run.approval.as_deref()).is_some_and(|asked| asked.auto_reject) {
            self.actions.push(Action::RejectOlder { node: id.to_owned() });
        }
        self.end(id, Status::Success);
    }

    /// The time of an automatic approval has come. It counts for everybody whose approval is still missing.
    pub(super) fn approve_by_itself(&mut self, id: &str) {
        let auto = self.run(id).and_then(|run| run.approval.as_deref()).and_then(|asked| asked.auto.clone());
        let Some((_, comments)) = auto else { return };
        let by = Actor { name: "autoApproval".to_owned(), ..Actor::default() };
        self.note_activity(id, &by, true, BTreeMap::new(), comments);
        self.approved(id);
    }

    fn note_activity(
        &mut self,
        id: &str,
        by: &Actor,
        approved: bool,
        inputs: BTreeMap<String, String>,
        comments: String,
    ) {
        let at = self.at;
        self.update(id, |run| {
            let Some(approval) = &mut run.approval else { return };
            approval.activities.push(Activity {
                name: by.name.clone(),
                email: by.email.clone(),
                principal: by.principal.clone(),
                approved,
                inputs: inputs.clone(),
                comments,
                at,
            });
            let shown: Vec<Json> = approval.activities.iter().map(Activity::shown).collect();
            // What a person wrote came from outside: the scope never evaluates outputs again.
            run.outputs.insert("approvalActivities".to_owned(), Output::from(Json::from(shown)));
            run.outputs.insert("approverInputs".to_owned(), Output::from(json!(inputs)));
        });
    }
}
