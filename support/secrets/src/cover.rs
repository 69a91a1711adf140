//! What every line, error and plan of a step passes through: whatever wrote a text, the secrets that the step was handed
//! are hidden in it. Servers, templates and programs quote what they were given.

use crate::Masker;
use bytes::Bytes;
use executor_api::{
    Level, LogClosed, LogSink, Plan, SecretError, SecretSource, SecretText, StepContext, StepError, Stream,
    UnitLog,
};
use futures::future::BoxFuture;
use proto::result::UnitStatus;
use proto::text::{SecretRef, Text, placeholders};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex, PoisonError};

/// Hands secrets out, and remembers each that it handed out.
pub struct Recorder {
    inner: Arc<dyn SecretSource>,
    seen: Mutex<Vec<SecretText>>,
    masker: Masker,
}

impl Recorder {
    /// In front of `inner`.
    pub fn new(inner: Arc<dyn SecretSource>) -> Arc<Recorder> {
        Arc::new(Recorder { inner, seen: Mutex::default(), masker: Masker::new() })
    }

    /// What was handed out so far, in the order of it; a secret that was asked for twice stands here twice.
    pub fn seen(&self) -> Vec<SecretText> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, value: &SecretText) {
        self.masker.add(value);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(value.clone());
    }

    fn hide(&self, text: &str) -> String {
        self.masker.mask_str(text).into_owned()
    }
}

impl SecretSource for Recorder {
    fn get(&self, secret: &SecretRef) -> Result<SecretText, SecretError> {
        let value = self.inner.get(secret)?;
        self.note(&value);
        Ok(value)
    }

    fn reveal(&self, text: &Text) -> Result<SecretText, SecretError> {
        let clear = self.inner.reveal(text)?;
        for found in placeholders(text.as_str()) {
            // The text as a whole was opened, so each of its secrets can be had.
            if let Ok(value) = self.inner.get(&found.secret) {
                self.note(&value);
            }
        }
        Ok(clear)
    }

    fn mask(&self, value: &SecretText) {
        self.note(value);
        self.inner.mask(value);
    }
}

/// Gives what there is to tell since the last call, one line each.
pub type Notes = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// A step's context whose secrets are remembered, and hidden in what is written.
pub struct Cover {
    /// The context for the step.
    pub cx: StepContext,
    recorder: Arc<Recorder>,
}

impl Cover {
    /// Around the context of a step.
    pub fn new(cx: &StepContext) -> Cover {
        Cover::with_notes(cx, Arc::new(Vec::new))
    }

    /// Around the context of a step beside which something else has to be told: `notes` are written in front of the next
    /// line of a unit, or of its end.
    pub fn with_notes(cx: &StepContext, notes: Notes) -> Cover {
        let recorder = Recorder::new(cx.secrets.clone());
        let logs = Arc::new(Logs { inner: cx.logs.clone(), recorder: recorder.clone(), notes });
        Cover { cx: StepContext { secrets: recorder.clone(), logs, ..cx.clone() }, recorder }
    }

    /// `error` without secrets.
    pub fn error(&self, mut error: StepError) -> StepError {
        error.what = self.text(&error.what);
        error.hint = error.hint.map(|hint| self.text(&hint));
        error
    }

    /// `plan` without secrets. Its hash is that of what is shown.
    pub fn plan(&self, plan: Plan) -> Plan {
        match plan {
            Plan::Diff { text, .. } => {
                let text = self.text(&text);
                let hash = hex::encode(Sha256::digest(text.as_bytes()));
                Plan::Diff { text, hash }
            }
            other @ Plan::Unsupported { .. } => other,
        }
    }

    /// `text` without secrets.
    pub fn text(&self, text: &str) -> String {
        self.recorder.hide(text)
    }
}

struct Logs {
    inner: Arc<dyn LogSink>,
    recorder: Arc<Recorder>,
    notes: Notes,
}

impl LogSink for Logs {
    fn unit(&self, name: &str) -> Arc<dyn UnitLog> {
        let (recorder, notes) = (self.recorder.clone(), self.notes.clone());
        Arc::new(Log { inner: self.inner.unit(name), recorder, notes })
    }
}

struct Log {
    inner: Arc<dyn UnitLog>,
    recorder: Arc<Recorder>,
    notes: Notes,
}

impl Log {
    async fn told(&self) -> Result<(), LogClosed> {
        for note in (self.notes)() {
            self.inner.line(Level::Info, &self.recorder.hide(&note)).await?;
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
        let text = self.recorder.hide(text);
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
    use crate::MASK;
    use executor_api::testing::World;
    use proto::task::{Step, StepSpec, StepTask};
    use proto::text::placeholder;
    use secrecy::ExposeSecret as _;

    #[tokio::test]
    async fn what_a_step_was_handed_stands_in_no_line_note_error_or_plan() {
        let value = "pl4nted \"quoted\"\nsecond pl4nted line";
        let spec = StepSpec::Unknown { kind: "any".into(), spec: serde_json::Value::Null };
        let step = Step { identifier: "s".into(), name: "s".into(), spec };
        let task = StepTask { secret_token: 7, ..StepTask::of(step) };
        let world = World::new("t", task, [("pw".to_owned(), value.to_owned())]);
        let (_handle, cx) = world.context();
        let cover = Cover::with_notes(&cx, Arc::new(|| vec!["told with second pl4nted line".to_owned()]));
        let before = cover.error(StepError::new(executor_api::Class::Bug, "ECS-004", "pl4nted \"quoted\""));
        assert_eq!(before.what, "pl4nted \"quoted\"", "nobody has asked for it yet");
        let text = Text(format!("x={}", placeholder(&SecretRef("pw".into()), 7)));
        assert!(cover.cx.secrets.reveal(&text).unwrap().expose_secret().starts_with("x=pl4nted"));
        let said = format!("bad value {}, or its line second pl4nted line", serde_json::Value::from(value));
        let error = StepError::new(executor_api::Class::BadSpec, "ECS-011", said.clone()).hint(value);
        let error = cover.error(error);
        for shown in [&error.what, error.hint.as_ref().unwrap()] {
            assert!(!shown.contains("pl4nted") && shown.contains(MASK), "{shown}");
        }
        let Plan::Diff { text, .. } = cover.plan(Plan::Diff { text: said.clone(), hash: String::new() })
        else {
            panic!("no plan")
        };
        assert!(!text.contains("pl4nted"), "{text}");
        cover.cx.logs.unit("u").line(Level::Info, &said).await.unwrap();
        let log = world.logs.everything();
        assert!(!log.contains("pl4nted") && log.contains(&format!("told with {MASK}")), "{log}");
    }
}
