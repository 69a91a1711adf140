//! How a wait ends that does not end well: the error, with what stands behind it.

use super::Ended;
use super::evidence::{self, cancelled};
use super::waiter::Waiter;
use executor_api::{CancelReason, Class, Level, StepError};

impl Waiter<'_> {
    /// Makes the error, after the evidence was told.
    pub(super) async fn explain(&mut self, ended: Ended) -> StepError {
        match ended {
            Ended::LogClosed => cancelled(CancelReason::Drain, String::new()),
            Ended::Refused { what, code, message } => {
                let class = match code {
                    401 => Class::Authentication,
                    403 => Class::Authorization,
                    404 => Class::BadSpec,
                    _ => Class::Connectivity,
                };
                let text = format!("{what} cannot be watched: {message}");
                let hint = match code {
                    401 => {
                        "the token or certificate has expired or was revoked while the step waited; renew it, and let it live longer than a rollout takes"
                    }
                    _ => {
                        "allow the account the verbs list and watch on it; check that the cluster knows the kind"
                    }
                };
                StepError::new(class, "KUBE-053", text).target(what).hint(hint)
            }
            Ended::Cancelled(reason) => {
                let lines = self.unfinished();
                let state = lines.join("; ");
                if reason.ends_the_target() {
                    for index in 0..self.picture.watched.len() {
                        if !self.is_ready(index) {
                            let screen =
                                evidence::screen(self, index, "not ready when the wait ended", false).await;
                            let _the_error_says_it_too = self.log.line(Level::Error, &screen).await;
                        }
                    }
                }
                cancelled(reason, state)
            }
            Ended::Failed { index, cause, text, exit } => {
                let name = self.picture.watched.get(index).map(|w| w.target.to_string()).unwrap_or_default();
                let screen = evidence::screen(self, index, &text, true).await;
                let _the_error_says_it_too = self.log.line(Level::Error, &screen).await;
                let what = format!("{name} cannot become ready: {text}");
                StepError::new(cause.class(exit), cause.code(), what).target(name).hint(cause.hint())
            }
        }
    }

    fn is_ready(&self, index: usize) -> bool {
        self.current.get(index).is_some_and(|text| text.starts_with("ready: "))
    }

    fn unfinished(&self) -> Vec<String> {
        let states = self.picture.watched.iter().zip(&self.current);
        states
            .filter(|(_, text)| !text.starts_with("ready: "))
            .map(|(w, text)| format!("{}: {text}", w.target))
            .collect()
    }
}
