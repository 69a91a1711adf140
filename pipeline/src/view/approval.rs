//! Approvals as people see them.

use crate::machine::approval::Approval;
use crate::machine::state::{Phase, Run, Status};
use proto::failure::FailureKind;
use serde::{Deserialize, Serialize};

/// An approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalView {
    /// What `approval approve` names it by; the manager knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Harness' status of an approval: `WAITING`, `APPROVED`, `REJECTED`, `EXPIRED`, `ABORTED`, `FAILED`.
    pub status: String,
    /// What was asked, with its expressions resolved, and who did what.
    #[serde(flatten)]
    pub asked: Approval,
}

impl ApprovalView {
    /// Of a run that asks or asked people.
    pub fn of(run: &Run) -> Option<ApprovalView> {
        let asked = run.approval.as_deref()?.clone();
        let rejected = asked.activities.iter().any(|activity| !activity.approved);
        let by_itself =
            asked.activities.iter().any(|activity| activity.approved && activity.email.is_empty());
        let status = if run.phase == Phase::Approval {
            "WAITING"
        } else if rejected {
            "REJECTED"
        } else if by_itself || asked.approvals() >= asked.minimum {
            "APPROVED"
        } else if run.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Timeout) {
            "EXPIRED"
        } else if run.status == Status::Aborted {
            "ABORTED"
        } else {
            "FAILED"
        };
        Some(ApprovalView { id: None, status: status.to_owned(), asked })
    }
}
