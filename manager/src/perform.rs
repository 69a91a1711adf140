//! The steps that the manager itself performs.

use crate::app::App;
use crate::engine::{Job, Performer};
use crate::policy;
use async_trait::async_trait;
use pipeline::machine::ManagerWork;
use proto::result::StepResult;

/// Performs them with what the manager has.
pub(crate) struct ManagerSteps {
    app: App,
}

impl ManagerSteps {
    pub(crate) fn new(app: App) -> Self {
        ManagerSteps { app }
    }
}

#[async_trait]
impl Performer for ManagerSteps {
    async fn perform(&self, job: Job) -> StepResult {
        match &job.work {
            ManagerWork::Policy { sets, payload, at, .. } => {
                policy::step::perform(&self.app, &job, sets, payload, *at).await
            }
        }
    }
}
