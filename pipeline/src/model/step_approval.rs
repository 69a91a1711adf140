//! The HarnessApproval step (pipeline.md 4.1).

use super::read::{Field, Reader, one_of, whole_match};
use crate::fault::{Fault, Findings};
use crate::yaml::Node;
use serde::{Deserialize, Serialize};

/// What a HarnessApproval step asks for, as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// What approvers read.
    pub message: Field,
    /// Whether approvers are shown what ran before.
    pub history: bool,
    /// References to user groups: a list, or an expression that gives one.
    pub groups: Field,
    /// How many must approve. `None`: one.
    pub minimum: Option<Field>,
    /// Whoever started the execution may not act.
    pub disallow_executor: Option<Field>,
    /// Emails of people who may not act: a list, or an expression that gives one.
    pub disallowed_emails: Option<Field>,
    /// Values that an approval must bring.
    pub inputs: Vec<ApproverInput>,
    /// Kept for whoever asks for it.
    pub callback_id: Option<Field>,
    /// Being approved rejects what older executions still ask at the same step.
    pub auto_reject: Option<Field>,
    /// Approves by itself at a time.
    pub auto: Option<AutoApproval>,
}

/// A value that an approval must bring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApproverInput {
    /// Name.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Offered to approvers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Field>,
    /// Whether an empty value is refused.
    #[serde(default)]
    pub required: bool,
    /// Must match as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Must be one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<String>>,
    /// Several of them may be given, separated by commas.
    #[serde(default)]
    pub several: bool,
}

/// An approval that comes by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoApproval {
    /// `2026-05-06 10:30 PM`, also with 24 hours.
    pub time: Field,
    /// Name of the IANA database.
    pub time_zone: Field,
    /// Kept with the approval.
    pub comments: Option<Field>,
}

/// Reads the spec of a HarnessApproval step.
pub(super) fn read_approval(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<Approval> {
    let message = spec
        .field("approvalMessage", findings)
        .unwrap_or_else(|| Field::made("", spec.sub("approvalMessage"), spec.at()));
    let history = spec.flag("includePipelineExecutionHistory", findings).unwrap_or(true);
    let callback_id = spec.field("callbackId", findings);
    let auto_reject = spec.field("isAutoRejectEnabled", findings);
    let inputs = read_inputs(spec, findings);
    let auto = spec.map("autoApproval", findings).map(|auto| read_auto(auto, findings));
    let Some(mut approvers) = spec.map("approvers", findings) else {
        findings.fault(spec.at(), &spec.sub("approvers"), "`approvers` is missing: nobody could approve");
        return None;
    };
    let groups = approvers.any("userGroups");
    let minimum = approvers.field("minimumCount", findings);
    let disallow_executor = approvers.field("disallowPipelineExecutor", findings);
    let disallowed_emails = approvers.any("disallowedUserEmails");
    if let Some(node) = approvers.node("serviceAccounts") {
        let path = approvers.sub("serviceAccounts");
        findings.remark(
            "not-supported-yet",
            &node.at,
            &path,
            "service accounts cannot approve; `userGroups` can",
        );
    }
    if let Some(field) = &minimum
        && !field.text().contains("<+")
        && !field.text().trim().parse::<u32>().is_ok_and(|count| count > 0)
    {
        let message = format!("expected a whole number from 1, found `{}`", field.text());
        findings.fault(&field.at, &field.path, message);
    }
    for field in [&auto_reject, &disallow_executor].into_iter().flatten() {
        if !matches!(field.text().trim(), "true" | "false") && !field.text().contains("<+") {
            findings.fault(&field.at, &field.path, "expected `true` or `false`");
        }
    }
    let missing = match &groups {
        None => true,
        Some(field) => field.value.as_array().is_some_and(Vec::is_empty),
    };
    if missing {
        let path = approvers.sub("userGroups");
        findings.fault(approvers.at(), &path, "`userGroups` lists nothing: nobody could approve");
    }
    approvers.finish(findings);
    Some(Approval {
        message,
        history,
        groups: groups?,
        minimum,
        disallow_executor,
        disallowed_emails,
        inputs,
        callback_id,
        auto_reject,
        auto: auto.flatten(),
    })
    .filter(|_| !missing)
}

fn read_inputs(spec: &mut Reader<'_>, findings: &mut Findings) -> Vec<ApproverInput> {
    let path = spec.sub("approverInputs");
    let mut inputs: Vec<ApproverInput> = Vec::new();
    for (index, node) in spec.list("approverInputs", findings).iter().enumerate() {
        let at = format!("{path}[{index}]");
        let Some(input) = read_input(node, &at, findings) else { continue };
        if inputs.iter().any(|other| other.name == input.name) {
            findings.fault(&node.at, &at, format!("the approver input `{}` is declared twice", input.name));
            continue;
        }
        inputs.push(input);
    }
    inputs
}

fn read_input(node: &Node, path: &str, findings: &mut Findings) -> Option<ApproverInput> {
    let mut reader = Reader::new(node, path, findings);
    reader.known(&["type", "description"]);
    let name = reader.required("name", findings);
    let label = reader.text("label", findings);
    let default = reader.field("defaultValue", findings);
    let required = reader.flag("required", findings).unwrap_or(false);
    let regex = reader.field("regex", findings);
    if let Some(field) = &regex
        && whole_match(&field.text()).build().is_err()
    {
        let message = format!("`{}` is not a regular expression that can be used", field.text());
        findings.fault(&field.at, &field.path, message);
    }
    let mut allowed: Option<Vec<String>> = None;
    let mut several = false;
    for key in ["allowedValues", "selectOneFrom", "selectManyFrom"] {
        let Some(field) = reader.any(key) else { continue };
        if allowed.is_some() || regex.is_some() {
            let message =
                "only one of `regex`, `allowedValues`, `selectOneFrom`, `selectManyFrom` may be given";
            findings.fault(&field.at, &field.path, message);
        }
        several = key == "selectManyFrom";
        allowed = Some(values(&field));
    }
    reader.finish(findings);
    Some(ApproverInput {
        name: name?.text(),
        label,
        default,
        required,
        regex: regex.map(|field| field.text()),
        allowed,
        several,
    })
}

/// A list, or its values separated by commas.
fn values(field: &Field) -> Vec<String> {
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    match &field.value {
        serde_json::Value::Array(list) => list.iter().map(text).collect(),
        _ => field.text().split(',').map(|value| value.trim().to_owned()).collect(),
    }
}

fn read_auto(mut auto: Reader<'_>, findings: &mut Findings) -> Option<AutoApproval> {
    if let Some(action) = auto.field("action", findings) {
        one_of(&action, "action of an automatic approval", &[("APPROVE", ())], findings);
    }
    let comments = auto.field("comments", findings);
    let Some(mut deadline) = auto.map("scheduledDeadline", findings) else {
        findings.push(Fault::at(auto.at(), auto.sub("scheduledDeadline"), "`scheduledDeadline` is missing"));
        return None;
    };
    let time = deadline.required("time", findings);
    let time_zone = deadline.required("timeZone", findings);
    deadline.finish(findings);
    auto.finish(findings);
    let (time, time_zone) = (time?, time_zone?);
    if !time.text().contains("<+")
        && !time_zone.text().contains("<+")
        && let Err(message) = instant(&time.text(), &time_zone.text())
    {
        findings.fault(&time.at, &time.path, message);
    }
    Some(AutoApproval { time, time_zone, comments })
}

/// The instant of a local time, epoch milliseconds. In the hour that a change of the clock skips or doubles it is the
/// later one, so that nothing is approved too early. The time zone database is part of the program.
pub(crate) fn instant(time: &str, zone: &str) -> Result<u64, String> {
    let zone = zone.trim();
    let known = jiff::tz::TimeZoneDatabase::bundled()
        .get(zone)
        .map_err(|_| format!("`{zone}` is not a time zone such as `Europe/Berlin`"))?;
    let local = ["%Y-%m-%d %I:%M %p", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S"]
        .iter()
        .find_map(|format| jiff::civil::DateTime::strptime(format, time.trim()).ok())
        .ok_or_else(|| format!("`{time}` is not a time such as `2026-05-06 10:30 PM`"))?;
    let instant = known
        .to_ambiguous_zoned(local)
        .later()
        .map_err(|error| format!("`{time}` in `{zone}` is not a time: {error}"))?;
    u64::try_from(instant.timestamp().as_millisecond()).map_err(|_| format!("`{time}` lies before 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_times_have_one_instant_also_when_the_clock_changes() {
        let at = |time, zone| instant(time, zone).unwrap();
        assert_eq!(at("2026-05-06 10:30 PM", "UTC"), 1_778_106_600_000);
        assert_eq!(at("2026-05-06 22:30", "UTC"), 1_778_106_600_000);
        assert_eq!(at("2026-05-06 10:30 PM", "Asia/Kolkata"), 1_778_106_600_000 - 19_800_000);
        // 02:30 does not exist on this day, and exists twice on the other.
        assert_eq!(at("2026-03-29 02:30", "Europe/Berlin"), at("2026-03-29 01:30", "UTC"));
        assert_eq!(at("2026-10-25 02:30", "Europe/Berlin"), at("2026-10-25 01:30", "UTC"));
        assert!(instant("tomorrow", "UTC").unwrap_err().contains("tomorrow"));
        assert!(instant("2026-05-06 10:30 PM", "Mars/Olympus").unwrap_err().contains("Mars/Olympus"));
    }
}
