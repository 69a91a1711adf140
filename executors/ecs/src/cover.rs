//! What every line, error and plan of a step passes through.
//!
//! Secrets that the step was handed are hidden, wherever in this crate a text is written: AWS quotes what it was sent. And
//! what the step's accounts have to tell (calls that are tried again, turns that are waited for) is written in front of the
//! next line of a unit, or of its end.

use bytes::Bytes;
use executor_api::{
    Level, LogClosed, LogSink, Plan, SecretError, SecretSource, SecretText, StepContext, StepError, Stream,
    UnitLog,
};
use futures::future::BoxFuture;
use proto::result::UnitStatus;
use proto::text::{SecretRef, Text, placeholders};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex, PoisonError};

/// What stands in place of a secret.
const HIDDEN: &str = "********";
/// Shorter values are not searched for: they would hide half of a text and protect nothing.
const SHORTEST: usize = 4;

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values that are shown nowhere, the longest first: a part of one must not leave the rest in the open.
#[derive(Default)]
struct Hidden(Vec<SecretText>);

impl Hidden {
    /// Adds a value, its lines, and both as they stand in JSON, which is how AWS quotes them.
    fn add(&mut self, value: &str) {
        let lines = value.lines().chain([value]).map(str::trim);
        let forms = lines.flat_map(|line| {
            let quoted = serde_json::Value::from(line).to_string();
            [line.to_owned(), quoted.trim_matches('"').to_owned()]
        });
        for form in forms {
            if form.len() >= SHORTEST && !self.0.iter().any(|known| known.expose_secret() == form) {
                self.0.push(SecretText::from(form));
            }
        }
        self.0.sort_by_key(|value| std::cmp::Reverse(value.expose_secret().len()));
    }

    fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, value| match text.contains(value.expose_secret()) {
            true => text.replace(value.expose_secret(), HIDDEN),
            false => text,
        })
    }
}

/// Accounts that a step works with, in the order in which they were opened.
pub(crate) type Accounts = Arc<Mutex<Vec<aws::Session>>>;

/// What the parts of a cover share.
struct Shared {
    secrets: Arc<dyn SecretSource>,
    hidden: Mutex<Hidden>,
    accounts: Accounts,
}

impl Shared {
    fn note(&self, value: &SecretText) {
        locked(&self.hidden).add(value.expose_secret());
    }

    fn hide(&self, text: &str) -> String {
        locked(&self.hidden).hide(text)
    }

    /// What the accounts have to tell since the last call.
    fn notes(&self) -> Vec<String> {
        locked(&self.accounts).iter().flat_map(aws::Session::notes).collect()
    }
}

impl SecretSource for Shared {
    fn get(&self, secret: &SecretRef) -> Result<SecretText, SecretError> {
        let value = self.secrets.get(secret)?;
        self.note(&value);
        Ok(value)
    }

    fn reveal(&self, text: &Text) -> Result<SecretText, SecretError> {
        let clear = self.secrets.reveal(text)?;
        // Each secret of a text that could be opened can be had.
        for value in
            placeholders(text.as_str()).into_iter().filter_map(|found| self.secrets.get(&found.secret).ok())
        {
            self.note(&value);
        }
        Ok(clear)
    }

    fn mask(&self, value: &SecretText) {
        self.note(value);
        self.secrets.mask(value);
    }
}

/// A step's context whose secrets are remembered, and hidden in what is written.
pub(crate) struct Cover {
    /// The context for the step.
    pub(crate) cx: StepContext,
    shared: Arc<Shared>,
}

impl Cover {
    /// For a step that puts the accounts it opens into `accounts`.
    pub(crate) fn new(cx: &StepContext, accounts: Accounts) -> Cover {
        let shared = Arc::new(Shared { secrets: cx.secrets.clone(), hidden: Mutex::default(), accounts });
        let logs = Arc::new(Logs { inner: cx.logs.clone(), shared: shared.clone() });
        Cover { cx: StepContext { secrets: shared.clone(), logs, ..cx.clone() }, shared }
    }

    /// `error` without secrets.
    pub(crate) fn error(&self, mut error: StepError) -> StepError {
        error.what = self.shared.hide(&error.what);
        error.hint = error.hint.map(|hint| self.shared.hide(&hint));
        error
    }

    /// `plan` without secrets.
    pub(crate) fn plan(&self, plan: Plan) -> Plan {
        match plan {
            Plan::Diff { text, .. } => {
                let text = self.shared.hide(&text);
                let hash = hex::encode(Sha256::digest(text.as_bytes()));
                Plan::Diff { text, hash }
            }
            other @ Plan::Unsupported { .. } => other,
        }
    }

    /// `text` without secrets.
    pub(crate) fn hidden(&self, text: &str) -> String {
        self.shared.hide(text)
    }
}

struct Logs {
    inner: Arc<dyn LogSink>,
    shared: Arc<Shared>,
}

impl LogSink for Logs {
    fn unit(&self, name: &str) -> Arc<dyn UnitLog> {
        Arc::new(Log { inner: self.inner.unit(name), shared: self.shared.clone() })
    }
}

struct Log {
    inner: Arc<dyn UnitLog>,
    shared: Arc<Shared>,
}

impl Log {
    async fn told(&self) -> Result<(), LogClosed> {
        for note in self.shared.notes() {
            self.inner.line(Level::Info, &self.shared.hide(&note)).await?;
        }
        Ok(())
    }
}

impl UnitLog for Log {
    // Raw output of programs: a value may lie across two chunks, which the masker of the log pipeline knows how to find.
    fn write(&self, stream: Stream, bytes: Bytes) -> BoxFuture<'_, Result<(), LogClosed>> {
        self.inner.write(stream, bytes)
    }

    fn line(&self, level: Level, text: &str) -> BoxFuture<'_, Result<(), LogClosed>> {
        let text = self.shared.hide(text);
        Box::pin(async move {
            self.told().await?;
            self.inner.line(level, &text).await
        })
    }

    fn resume_at(&self, stream: Stream) -> u64 {
        self.inner.resume_at(stream)
    }

    fn durable(&self, stream: Stream) -> BoxFuture<'_, Result<u64, LogClosed>> {
        self.inner.durable(stream)
    }

    fn end_of_stream(&self, stream: Stream) -> BoxFuture<'_, Result<(), LogClosed>> {
        self.inner.end_of_stream(stream)
    }

    fn status(&self, status: UnitStatus) -> BoxFuture<'_, Result<(), LogClosed>> {
        Box::pin(async move {
            self.told().await?;
            self.inner.status(status).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_api::testing::World;
    use proto::task::{Step, StepSpec, StepTask};
    use proto::text::placeholder;

    #[tokio::test]
    async fn what_a_step_was_handed_stands_in_no_line_error_or_plan() {
        let value = "pl4nted \"quoted\"\nsecond pl4nted line";
        let spec = StepSpec::Unknown { kind: "any".into(), spec: serde_json::Value::Null };
        let step = Step { identifier: "s".into(), name: "s".into(), spec };
        let task = StepTask { secret_token: 7, ..StepTask::of(step) };
        let world = World::new("t", task, [("pw".to_owned(), value.to_owned())]);
        let (_handle, cx) = world.context();
        let cover = Cover::new(&cx, Accounts::default());
        let before = cover.error(StepError::new(executor_api::Class::Bug, "ECS-004", "pl4nted \"quoted\""));
        assert_eq!(before.what, "pl4nted \"quoted\"", "nobody has asked for it yet");
        let text = Text(format!("x={}", placeholder(&SecretRef("pw".into()), 7)));
        assert!(cover.cx.secrets.reveal(&text).unwrap().expose_secret().starts_with("x=pl4nted"));
        let said = format!("bad value {}, or its line second pl4nted line", serde_json::Value::from(value));
        let error = StepError::new(executor_api::Class::BadSpec, "ECS-011", said.clone()).hint(value);
        let error = cover.error(error);
        for shown in [&error.what, error.hint.as_ref().unwrap()] {
            assert!(!shown.contains("pl4nted") && shown.contains(HIDDEN), "{shown}");
        }
        let Plan::Diff { text, .. } = cover.plan(Plan::Diff { text: said.clone(), hash: String::new() })
        else {
            panic!("no plan")
        };
        assert!(!text.contains("pl4nted"), "{text}");
        cover.cx.logs.unit("u").line(Level::Info, &said).await.unwrap();
        let log = world.logs.everything();
        assert!(!log.contains("pl4nted") && log.contains(HIDDEN), "{log}");
    }
}
