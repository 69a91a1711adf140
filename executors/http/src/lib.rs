//! The Http step: one request with an assertion, sent from the agent's zone.
//!
//! ```text
//! spec ─check─► Request ─► [checkpoint, when it changes something] ─► exchange (redirects, retries) ─► Response ─judge─► outputs
//! ```
//! A request that changes something is marked before it leaves and after it was answered. After a crash in between,
//! `recover` says `Vanished`: such a request is never sent twice. The command unit is `Execute`.
//! **Source**: ecs-ssh-steps facts C1, pipeline facts 4.6.

mod config;
mod connect;
mod error;
mod judge;
mod recover;
mod request;
mod spec;

pub use config::{Config, ConfigError};
pub use error::Error;

use connect::Connector;
use executor_api::{
    Executor, Level, NoProbe, Plan, Recovery, SpecFault, StepContext, StepError, StepOutput, TransportProbe,
    UnitLog,
};
use proto::result::UnitStatus;
use proto::task::HttpSpec;
use recover::Standing;
use request::{Exchange, Response, limit_of};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Name of the command unit.
pub const UNIT: &str = "Execute";

/// How much of a body stands in the log when a step fails.
const EVIDENCE_CHARS: usize = 2000;

/// Runs Http steps. One per agent; it holds connections, and nothing of any task.
pub struct HttpExecutor {
    connector: Connector,
    config: Config,
    probe: Arc<dyn TransportProbe>,
}

impl HttpExecutor {
    /// An executor with `config`.
    ///
    /// **Errors**: the certificate authorities cannot be read.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Self::with_probe(config, Arc::new(NoProbe))
    }

    /// The same; every mutating request is reported to `probe`.
    pub fn with_probe(config: Config, probe: Arc<dyn TransportProbe>) -> Result<Self, ConfigError> {
        Ok(HttpExecutor { connector: Connector::new(config.clone())?, config, probe })
    }

    async fn work(&self, spec: &HttpSpec, cx: &StepContext, log: &dyn UnitLog) -> Result<StepOutput, Error> {
        let response = match recover::standing(&cx.checkpoints.history()) {
            Standing::Answered(response) => {
                log.line(Level::Info, "the request was answered before the agent stopped").await?;
                *response
            }
            Standing::Unknown { call } => return Err(Error::Vanished(recover::evidence(&call))),
            Standing::Fresh => self.send(spec, cx, log).await?,
        };
        let outside = judge::Outside {
            now_ms: i64::try_from(cx.clock.wall()).unwrap_or(i64::MAX),
            secret_token: cx.task.secret_token,
            secrets: cx.secrets.as_ref(),
        };
        let (lines, result) = judge::judge(spec, &response, &outside);
        for line in lines {
            log.line(Level::Info, &line).await?;
        }
        if result.is_err() && !response.body.is_empty() {
            let start: String = response.body.chars().take(EVIDENCE_CHARS).collect();
            log.line(Level::Error, &format!("the response begins:\n{start}")).await?;
        }
        result
    }

    async fn send(&self, spec: &HttpSpec, cx: &StepContext, log: &dyn UnitLog) -> Result<Response, Error> {
        let request = spec::request(spec, cx.secrets.as_ref())?;
        let call = spec::call(&request.method, spec);
        log.line(Level::Info, &call).await?;
        for (name, value) in &spec.headers {
            // Values as written: secrets are still placeholders here.
            log.line(Level::Info, &format!("{}: {}", name.trim(), value.as_str())).await?;
        }
        if spec.body.is_some() && request.body.is_none() {
            log.line(Level::Warn, &format!("{} takes no body; requestBody is not sent", request.method))
                .await?;
        }
        let target = spec::shown_spec(spec);
        let limit = limit_of(spec.timeout_ms, cx.time_left());
        let started = cx.clock.mono();
        let under_way = AtomicBool::new(false);
        let exchange = Exchange {
            connector: &self.connector,
            config: &self.config,
            probe: self.probe.as_ref(),
            cx,
            log,
            under_way: &under_way,
        };
        let response = tokio::select! {
            biased;
            (reason, _) = cx.cancel.wait() => {
                return Err(Error::Cancelled { reason, maybe_done: under_way.load(Ordering::Acquire) });
            }
            result = exchange.run(request, &call) => result?,
            () = cx.clock.sleep(limit) => {
                return Err(Error::Timeout { target, limit, maybe_done: under_way.load(Ordering::Acquire) });
            }
        };
        let took = cx.clock.mono().saturating_duration_since(started).as_millis();
        let more = if response.cut { " and more" } else { "" };
        let text = format!("HTTP {} after {took} ms, {} bytes{more}", response.status, response.body.len());
        log.line(Level::Info, &text).await?;
        Ok(response)
    }
}

impl Executor for HttpExecutor {
    type Spec = HttpSpec;

    fn check(&self, spec: &HttpSpec, _cx: &StepContext) -> Result<(), Vec<SpecFault>> {
        spec::check(spec)
    }

    async fn plan(&self, _spec: &HttpSpec, _cx: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan::Unsupported { reason: "what a request changes is known to its server only".into() })
    }

    async fn run(&self, spec: &HttpSpec, cx: &StepContext) -> Result<StepOutput, StepError> {
        if let Some((reason, _)) = cx.cancel.requested() {
            return Err(Error::Cancelled { reason, maybe_done: false }.into());
        }
        let log = cx.logs.unit(UNIT);
        // A closed log ends the step as a drain does; work notices it at its first line.
        let _closed = log.status(UnitStatus::Running).await;
        match self.work(spec, cx, log.as_ref()).await {
            Ok(output) => {
                let _closed = log.status(UnitStatus::Success).await;
                Ok(output)
            }
            Err(error) => {
                let _closed = log.line(Level::Error, &error.to_string()).await;
                let _closed = log.status(UnitStatus::Failure).await;
                Err(error.into())
            }
        }
    }

    async fn recover(&self, _spec: &HttpSpec, cx: &StepContext) -> Result<Recovery, StepError> {
        Ok(match recover::standing(&cx.checkpoints.history()) {
            Standing::Fresh => Recovery::NeverStarted,
            Standing::Unknown { call } => Recovery::Vanished { evidence: recover::evidence(&call) },
            Standing::Answered(response) => Recovery::Ended(i32::from(response.status)),
        })
    }
}
