//! What is wrong with listeners, rules and target groups.

use super::rule::Rule;
use crate::error::bad_spec;
use executor_api::{Class, StepError};

/// Why requests are not routed as wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// Weights that AWS would not take.
    #[error("weights: {0}")]
    Weights(String),
    /// What is named does not exist, or belongs to something else.
    #[error("{0}")]
    Missing(String),
    /// The rule does not forward in a way that this step can change.
    #[error("{0}")]
    Forward(String),
    /// More or less than one candidate.
    #[error("{what}: {found}")]
    NotUnique {
        /// What was looked for.
        what: String,
        /// What was found instead.
        found: String,
        /// What to set.
        set: String,
    },
    /// Somebody else changed the rule.
    #[error("{rule} was changed by somebody else: it sends {now}; this stage left {left}")]
    Changed {
        /// Which.
        rule: Rule,
        /// What it does now.
        now: String,
        /// What was expected.
        left: String,
    },
    /// The rule does not say what was written.
    #[error("{rule}: {wanted} was written and accepted, but is read back as {found}")]
    NotTaken {
        /// Which.
        rule: Rule,
        /// What was written.
        wanted: String,
        /// What stands there.
        found: String,
    },
    /// Too few targets that could answer.
    #[error("{group} has {found}; requests go there only with {wanted} healthy targets")]
    NotHealthy {
        /// Target group.
        group: String,
        /// Its health.
        found: String,
        /// How many are needed.
        wanted: u32,
    },
    /// A service that gets requests must not be replaced, emptied or deleted.
    #[error("{0}")]
    Live(String),
    /// A service or target group cannot play its part.
    #[error("{0}")]
    Unfit(String),
    /// A step lacks what an earlier one records.
    #[error("{0}")]
    NotRecorded(String),
}

impl Fault {
    /// The error of a step.
    pub(crate) fn into_step(self) -> StepError {
        let what = self.to_string();
        match self {
            Fault::Weights(_) => bad_spec("ECS-050", what).hint("give whole numbers of which at least one is over 0"),
            Fault::Missing(_) => bad_spec("ECS-051", what)
                .hint("correct the name or ARN; `aws elbv2 describe-listeners` and `describe-rules` name what there is"),
            Fault::Forward(_) => bad_spec("ECS-052", what).hint(
                "let the rule forward to one target group, or to two of which one has the weight 0, and run the step again",
            ),
            Fault::NotUnique { set, .. } => bad_spec("ECS-053", what).hint(format!("set {set}")),
            Fault::Changed { .. } => StepError::new(Class::RemoteFailed { code: 409 }, "ECS-054", what).hint(
                "nothing was overwritten; put the rule back or accept what it does, and keep infrastructure tools from \
                 managing weights while a deployment runs (Terraform: `ignore_changes`)",
            ),
            Fault::NotTaken { .. } => StepError::new(Class::RemoteFailed { code: 1 }, "ECS-055", what)
                .hint("look at the rule in the console; another tool may have changed it in the same moment"),
            Fault::NotHealthy { .. } => StepError::new(Class::RemoteFailed { code: 1 }, "ECS-056", what)
                .hint("look at the reasons above: the health check's path, port and codes, security groups, and the tasks' logs"),
            Fault::Live(_) => bad_spec("ECS-057", what)
                .hint("shift its requests away first; `aws elbv2 describe-rules` shows the weights"),
            Fault::Unfit(_) => bad_spec("ECS-058", what)
                .hint("correct the service or the target group that is named; nothing was changed"),
            Fault::NotRecorded(_) => bad_spec("ECS-060", what)
                .hint("put the step that deploys green before this one, in the same stage"),
        }
    }
}
