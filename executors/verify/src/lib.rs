//! Metric providers and the analysis behind the Verify step (DESIGN D18): queried and judged on the agent, near the
//! source.
//!
//! ```text
//! spec ─decide─► Analysis ─► [checkpoint: start of the window] ─► every step: query start..now ─► judge ─► verdict
//!                                        source: prometheus | cloudwatch
//! ```
//! An analysis changes nothing on any target; the one thing it records is when its window began, so that a restarted
//! agent goes on with the same window. The command unit is `Verify`.
//! **Source**: settled facts §3.2, ecs-ssh-steps facts C3.

mod canary;
mod cloudwatch;
mod config;
mod error;
pub mod judge;
pub mod mannwhitney;
mod prometheus;
mod recover;
mod run;
mod source;
mod spec;

pub use config::{Config, ConfigError};
pub use error::Error;

use executor_api::{Executor, Level, Plan, Recovery, SpecFault, StepContext, StepError, StepOutput, UnitLog};
use prometheus::Connector;
use proto::logs::rfc3339;
use proto::result::{TestStage, UnitStatus};
use proto::task::{HttpConnector, VerifySpec};
use run::Run;
use source::Source;
use std::time::Duration;

/// Name of the command unit.
pub const UNIT: &str = "Verify";

/// Pause after a failed query at least, also in a fast rehearsal: a server that is starting needs a moment.
const MIN_RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Runs Verify steps. One per agent; it holds connections, and nothing of any task.
pub struct VerifyExecutor {
    connector: Connector,
    aws: aws::Client,
    config: Config,
}

impl VerifyExecutor {
    /// An executor with `config`; `aws` is the agent's client for CloudWatch.
    ///
    /// **Errors**: the certificate authorities cannot be read.
    pub fn new(config: Config, aws: aws::Client) -> Result<Self, ConfigError> {
        Ok(VerifyExecutor { connector: Connector::new(config.clone())?, aws, config })
    }

    /// Tests a Prometheus connector (`delegate connector test`): its credentials, its aliases and one trivial query.
    /// Stages come in order; the first failed one is the last.
    ///
    /// **Cancel**: safe to drop. **Repeat**: safe.
    pub async fn test(&self, connector: &HttpConnector, cx: &StepContext) -> Vec<TestStage> {
        let began = cx.clock.mono();
        let (server, alias) = match self.connector.open(connector, cx).await {
            Ok(opened) => opened,
            Err(error) => return vec![stage("connector", cx, began, Err(error))],
        };
        let message = alias.unwrap_or_else(|| format!("asks {}", server.target()));
        let opened = stage("connector", cx, began, Ok(message));
        let began = cx.clock.mono();
        let now = now_ms(cx);
        let answer = server.range("vector(1)", now, now, Duration::from_secs(1)).await;
        vec![opened, stage("query", cx, began, answer.map(|_| "answers queries".to_owned()))]
    }

    async fn work(
        &self,
        spec: &VerifySpec,
        cx: &StepContext,
        log: &dyn UnitLog,
    ) -> Result<StepOutput, Error> {
        if let Some(analysis) = &spec.canary {
            return self.canary(spec, analysis, cx, log).await;
        }
        let Some(provider) = &spec.provider else {
            let notice = "no health source is configured; the verification is skipped".to_owned();
            log.line(Level::Warn, &notice).await?;
            return Ok(StepOutput { skipped: true, notices: vec![notice], ..StepOutput::default() });
        };
        let factor = cx.task.rehearsal.unwrap_or(1);
        spec::check(spec, factor).map_err(Error::Spec)?;
        let analysis = spec::decide(spec, factor).ok_or_else(|| Error::Spec(vec![]))?;
        let (source, lines) = Source::open(self, provider, &analysis, cx).await?;
        for line in lines {
            log.line(Level::Info, &line).await?;
        }
        let (start_ms, resumed) = self.start(cx, log).await?;
        let window = source.window(start_ms, millis(analysis.span), millis(analysis.step));
        let run = Run { analysis: &analysis, spec, source, config: &self.config, cx, log, window, resumed };
        run.announce().await?;
        run.observe().await
    }

    /// When the window begins: now, or when an earlier life of the agent began it.
    async fn start(&self, cx: &StepContext, log: &dyn UnitLog) -> Result<(i64, bool), Error> {
        if let Some(start_ms) = recover::start_of(&cx.checkpoints.history()) {
            log.line(Level::Info, &format!("goes on with the window that began at {}", rfc3339(start_ms)))
                .await?;
            return Ok((start_ms, true));
        }
        let start_ms = now_ms(cx);
        if let Err(error) = cx.checkpoints.record(recover::started(start_ms)).await {
            // Nothing is changed by going on; only a restart would begin a new window.
            log.line(Level::Warn, &format!("the start of the window could not be recorded: {error}")).await?;
        }
        Ok((start_ms, false))
    }
}

fn stage(
    name: &str,
    cx: &StepContext,
    began: tokio::time::Instant,
    result: Result<String, Error>,
) -> TestStage {
    let took = cx.clock.mono().saturating_duration_since(began);
    let (ok, message, hint) = match result {
        Ok(message) => (true, message, None),
        Err(error) => {
            let error = StepError::from(error);
            (false, format!("{}: {}", error.code, error.what), error.hint)
        }
    };
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    TestStage { stage: name.to_owned(), duration_ms, ok, message, hint }
}

fn now_ms(cx: &StepContext) -> i64 {
    i64::try_from(cx.clock.wall()).unwrap_or(i64::MAX)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Executor for VerifyExecutor {
    type Spec = VerifySpec;

    fn check(&self, spec: &VerifySpec, cx: &StepContext) -> Result<(), Vec<SpecFault>> {
        spec::check(spec, cx.task.rehearsal.unwrap_or(1))
    }

    async fn plan(&self, _spec: &VerifySpec, _cx: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan::Unsupported { reason: "a verification changes nothing".into() })
    }

    async fn run(&self, spec: &VerifySpec, cx: &StepContext) -> Result<StepOutput, StepError> {
        if let Some((reason, _)) = cx.cancel.requested() {
            return Err(Error::Cancelled { reason }.into());
        }
        let log = cx.logs.unit(UNIT);
        // A closed log ends the step as a drain does; work notices it at its first line.
        let _closed = log.status(UnitStatus::Running).await;
        let result = tokio::select! {
            biased;
            (reason, _) = cx.cancel.wait() => Err(Error::Cancelled { reason }),
            result = self.work(spec, cx, log.as_ref()) => result,
        };
        match result {
            Ok(output) => {
                let status = if output.skipped { UnitStatus::Skipped } else { UnitStatus::Success };
                let _closed = log.status(status).await;
                Ok(output)
            }
            Err(error) => {
                let _closed = log.line(Level::Error, &error.to_string()).await;
                let _closed = log.status(UnitStatus::Failure).await;
                Err(error.into())
            }
        }
    }

    async fn recover(&self, _spec: &VerifySpec, cx: &StepContext) -> Result<Recovery, StepError> {
        Ok(match recover::start_of(&cx.checkpoints.history()) {
            Some(_) => Recovery::Running,
            None => Recovery::NeverStarted,
        })
    }
}
