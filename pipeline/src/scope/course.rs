//! How a run goes on the whole, for the names that conditions ask by.

use super::NodeScope;

impl NodeScope<'_> {
    /// `NORMAL`, or which kind of rollback runs.
    pub(super) fn execution_mode(&self) -> &'static str {
        use crate::machine::state::{Phase, ROOT_RUN};
        let rolls_back = self
            .state
            .and_then(|state| state.runs.get(ROOT_RUN))
            .is_some_and(|root| root.phase == Phase::Rollback);
        match (&self.plan.run.rolls_back, rolls_back) {
            (Some(_), _) => "POST_EXECUTION_ROLLBACK",
            (None, true) => "PIPELINE_ROLLBACK",
            (None, false) => "NORMAL",
        }
    }

    pub(super) fn broke(&self, what: &str) -> bool {
        let Some(state) = self.state else { return false };
        match what {
            "stage" => self.stage_run().is_some_and(|(run, _)| run.broke),
            _ => state.runs.get(crate::machine::state::ROOT_RUN).is_some_and(|run| run.broke),
        }
    }
}
