//! Keeps every secret that a step was handed out of its log, its errors and its plan, wherever in this crate they are
//! written: API servers, templates and programs quote what they were given.

use crate::objects::Mask;
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

/// Hands secrets out and remembers them.
pub(crate) struct Recorder {
    inner: Arc<dyn SecretSource>,
    seen: Mutex<Vec<SecretText>>,
    mask: Mutex<Mask>,
}

impl Recorder {
    pub(crate) fn new(inner: Arc<dyn SecretSource>) -> Arc<Recorder> {
        Arc::new(Recorder { inner, seen: Mutex::default(), mask: Mutex::default() })
    }

    fn note(&self, value: &SecretText) {
        self.mask.lock().unwrap_or_else(PoisonError::into_inner).add(value.expose_secret());
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(value.clone());
    }

    /// What was handed out so far.
    pub(crate) fn seen(&self) -> Vec<SecretText> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hide(&self, text: &str) -> String {
        self.mask.lock().unwrap_or_else(PoisonError::into_inner).hide(text)
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

/// A step's context whose secrets are remembered and hidden in its log.
pub(crate) struct Cover {
    pub(crate) cx: StepContext,
    recorder: Arc<Recorder>,
}

impl Cover {
    pub(crate) fn new(cx: &StepContext) -> Cover {
        let recorder = Recorder::new(cx.secrets.clone());
        let logs = Arc::new(Logs { inner: cx.logs.clone(), recorder: recorder.clone() });
        let cx = StepContext { secrets: recorder.clone(), logs, ..cx.clone() };
        Cover { cx, recorder }
    }

    /// `error` without secrets.
    pub(crate) fn error(&self, mut error: StepError) -> StepError {
        error.what = self.recorder.hide(&error.what);
        error
    }

    /// `plan` without secrets.
    pub(crate) fn plan(&self, plan: Plan) -> Plan {
        match plan {
            Plan::Diff { text, .. } => {
                let text = self.recorder.hide(&text);
                let hash = hex::encode(Sha256::digest(text.as_bytes()));
                Plan::Diff { text, hash }
            }
            other @ Plan::Unsupported { .. } => other,
        }
    }
}

struct Logs {
    inner: Arc<dyn LogSink>,
    recorder: Arc<Recorder>,
}

impl LogSink for Logs {
    fn unit(&self, name: &str) -> Arc<dyn UnitLog> {
        Arc::new(Log { inner: self.inner.unit(name), recorder: self.recorder.clone() })
    }
}

struct Log {
    inner: Arc<dyn UnitLog>,
    recorder: Arc<Recorder>,
}

impl UnitLog for Log {
    // Raw output of programs: a value may lie across two chunks, which the masker of the log pipeline knows how to find.
    fn write(&self, stream: Stream, bytes: Bytes) -> BoxFuture<'_, Result<(), LogClosed>> {
        self.inner.write(stream, bytes)
    }

    fn line(&self, level: Level, text: &str) -> BoxFuture<'_, Result<(), LogClosed>> {
        let text = self.recorder.hide(text);
        Box::pin(async move { self.inner.line(level, &text).await })
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
        self.inner.status(status)
    }
}
