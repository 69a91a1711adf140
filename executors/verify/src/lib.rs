//! Metric providers and the analysis behind the Verify step (DESIGN D18): queried and judged on the agent, near the
//! source.
//!
//! ```text
//! spec ─decide─► Analysis ─► [checkpoint: start of the window] ─► every step: query start..now ─► judge ─► verdict
//! ```
//! An analysis changes nothing on any target; the one thing it records is when its window began, so that a restarted
//! agent goes on with the same window. The command unit is `Verify`.
//! **Source**: settled facts §3.2, ecs-ssh-steps facts C3.

mod canary;
mod config;
mod error;
pub mod judge;
pub mod mannwhitney;
mod prometheus;
mod recover;
mod spec;

pub use config::{Config, ConfigError};
pub use error::Error;

use executor_api::{Executor, Level, Plan, Recovery, SpecFault, StepContext, StepError, StepOutput, UnitLog};
use judge::{Control, Formula, Point, Verdict, judge};
use prometheus::{Connector, Server};
use proto::logs::rfc3339;
use proto::result::{TestStage, UnitStatus};
use proto::task::{HttpConnector, MetricProvider, VerifySpec};
use serde_json::{Value, json};
use spec::Analysis;
use std::time::Duration;

/// Name of the command unit.
pub const UNIT: &str = "Verify";

/// Pause after a failed query at least, also in a fast rehearsal: a server that is starting needs a moment.
const MIN_RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Runs Verify steps. One per agent; it holds connections, and nothing of any task.
pub struct VerifyExecutor {
    connector: Connector,
    config: Config,
}

/// One analysis under way.
struct Run<'a> {
    analysis: &'a Analysis,
    spec: &'a VerifySpec,
    server: Server,
    config: &'a Config,
    cx: &'a StepContext,
    log: &'a dyn UnitLog,
    start_ms: i64,
    /// An earlier life of the agent began the window, and has shown its samples.
    resumed: bool,
}

impl VerifyExecutor {
    /// An executor with `config`.
    ///
    /// **Errors**: the certificate authorities cannot be read.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(VerifyExecutor { connector: Connector::new(config.clone())?, config })
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
        let Some(MetricProvider::Prometheus { connector }) = &spec.provider else {
            let notice = "no health source is configured; the verification is skipped".to_owned();
            log.line(Level::Warn, &notice).await?;
            return Ok(StepOutput { skipped: true, notices: vec![notice], ..StepOutput::default() });
        };
        spec::check(spec).map_err(Error::Spec)?;
        let analysis =
            spec::decide(spec, cx.task.rehearsal.unwrap_or(1)).ok_or_else(|| Error::Spec(vec![]))?;
        let (server, alias) = self.connector.open(connector, cx).await?;
        if let Some(line) = alias {
            log.line(Level::Info, &line).await?;
        }
        let (start_ms, resumed) = self.start(cx, log).await?;
        let run = Run { analysis: &analysis, spec, server, config: &self.config, cx, log, start_ms, resumed };
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

impl Run<'_> {
    fn end_ms(&self) -> i64 {
        self.start_ms.saturating_add(millis(self.analysis.span))
    }

    async fn announce(&self) -> Result<(), Error> {
        let Analysis { rule, because, span, step, query, notices, .. } = self.analysis;
        let seconds = |span: &Duration| judge::number(span.as_secs_f64());
        for line in [
            format!("metric `{}` of {}", self.spec.metric_name, self.server.target()),
            format!("query: {query}"),
            format!("direction: {} ({because})", rule.direction),
            format!("formula: {rule}"),
            format!(
                "window: {} s from {}, a sample every {} s",
                seconds(span),
                rfc3339(self.start_ms),
                seconds(step)
            ),
        ] {
            self.log.line(Level::Info, &line).await?;
        }
        for notice in notices {
            self.log.line(Level::Warn, notice).await?;
        }
        let left = self.end_ms().saturating_sub(now_ms(self.cx));
        if u128::try_from(left).is_ok_and(|left| left > self.cx.time_left().as_millis()) {
            self.log.line(Level::Warn, "the step's timeout ends before the window does").await?;
        }
        Ok(())
    }

    /// Queries the growing window until there is a verdict.
    async fn observe(&self) -> Result<StepOutput, Error> {
        let control = match self.analysis.rule.formula {
            Formula::Value { .. } => None,
            Formula::Deviation { .. } => Some(self.control().await?),
        };
        let mut shown_up_to = i64::MIN;
        loop {
            let upto = now_ms(self.cx).clamp(self.start_ms, self.end_ms());
            let found = self.fetch(self.start_ms, upto).await?;
            let finished = upto >= self.end_ms();
            let points = match self.analysis.absent_is_zero {
                true => judge::with_zeroes(&found, self.start_ms, upto, millis(self.analysis.step)),
                false => found,
            };
            if self.resumed && shown_up_to == i64::MIN && !points.is_empty() {
                // Those before the restart stand in the log already.
                self.log
                    .line(Level::Info, &format!("{} samples since the window began", points.len()))
                    .await?;
                shown_up_to = upto;
            }
            for point in points.iter().filter(|point| point.at_ms > shown_up_to) {
                self.show(control.as_ref(), point).await?;
            }
            shown_up_to = points.last().map_or(shown_up_to, |last| last.at_ms.max(shown_up_to));
            match judge(&self.analysis.rule, control.as_ref(), &points, finished) {
                Verdict::Continue => {}
                verdict => return self.conclude(verdict, control.as_ref(), &points).await,
            }
            self.cx.clock.sleep(self.until_next(upto)).await;
        }
    }

    /// Time until the next sample is due, or the window ends.
    fn until_next(&self, now: i64) -> Duration {
        let step = millis(self.analysis.step).max(1);
        let next =
            self.start_ms.saturating_add((now.saturating_sub(self.start_ms) / step + 1).saturating_mul(step));
        let wait = next.min(self.end_ms()).saturating_sub(now);
        Duration::from_millis(u64::try_from(wait).unwrap_or(0).max(1))
    }

    /// The equal window before the stage.
    async fn control(&self) -> Result<Control, Error> {
        let end = match i64::try_from(self.spec.stage_started_at) {
            Ok(0) | Err(_) => self.start_ms,
            Ok(started) => started.min(self.start_ms),
        };
        let points = self.fetch(end.saturating_sub(millis(self.analysis.span)), end).await?;
        let control = Control::of(&points);
        let text = format!(
            "control: {} samples in the equal window before {}, mean {}",
            control.points,
            rfc3339(end),
            judge::number(control.mean)
        );
        self.log.line(Level::Info, &text).await?;
        Ok(control)
    }

    /// One query, repeated while the provider's errors stay within the budget.
    async fn fetch(&self, from: i64, upto: i64) -> Result<Vec<Point>, Error> {
        let pause = self.cx.rehearsed(self.config.retry_pause).max(MIN_RETRY_PAUSE);
        let mut errors = 0;
        loop {
            match self.server.range(&self.analysis.query, from, upto, self.analysis.step).await {
                Ok(points) => return Ok(points),
                Err(error) if error.may_pass() && errors < self.config.error_budget => {
                    errors += 1;
                    let budget = self.config.error_budget;
                    self.log
                        .line(Level::Warn, &format!("{error}; failed query {errors} of {budget} tolerated"))
                        .await?;
                    self.cx.clock.sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn show(&self, control: Option<&Control>, point: &Point) -> Result<(), Error> {
        let rule = &self.analysis.rule;
        let (level, text) = match rule.measure(control, point.value) {
            Some(measure) if rule.violated(measure) => {
                (Level::Warn, format!("{} violates the limit", rule.shown(point.value, measure)))
            }
            Some(measure) => (Level::Info, rule.shown(point.value, measure)),
            None => {
                (Level::Warn, format!("{}, not comparable with a control of 0", judge::number(point.value)))
            }
        };
        Ok(self.log.line(level, &format!("{}  {text}", rfc3339(point.at_ms))).await?)
    }

    async fn conclude(
        &self,
        verdict: Verdict,
        control: Option<&Control>,
        points: &[Point],
    ) -> Result<StepOutput, Error> {
        let (target, metric) = (self.server.target().to_owned(), self.spec.metric_name.clone());
        let mut notices = self.analysis.notices.clone();
        if self.analysis.absent_is_zero && points.iter().all(|point| point.value == 0.0) {
            notices.push(format!("no sample of `{metric}` was found; absence counts as 0 for this metric"));
        }
        let word = match verdict {
            Verdict::Pass { mean } => {
                let text = format!("passed: the mean of {} samples is {}", points.len(), judge::number(mean));
                self.log.line(Level::Info, &text).await?;
                "Pass"
            }
            Verdict::Inconclusive { reason } if self.spec.fail_on_no_analysis => {
                return Err(Error::Inconclusive { target, metric, reason });
            }
            Verdict::Inconclusive { reason } => {
                let text = format!("inconclusive, and `failOnNoAnalysis: false` lets it pass: {reason}");
                self.log.line(Level::Warn, &text).await?;
                notices.push(text);
                "Inconclusive"
            }
            Verdict::Fail { reason } => {
                let (rule, direction) =
                    (self.analysis.rule.to_string(), self.analysis.rule.direction.to_string());
                return Err(Error::Violated { target, metric, reason, rule, direction });
            }
            // The caller goes on observing; nothing is concluded yet.
            Verdict::Continue => "Continue",
        };
        let outputs = self.outputs(word, control, points);
        let outputs = outputs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        Ok(StepOutput { outputs, notices, ..StepOutput::default() })
    }

    /// Everything needed to judge again: direction, formula, and the series judged (DESIGN D18).
    fn outputs(
        &self,
        verdict: &str,
        control: Option<&Control>,
        points: &[Point],
    ) -> Vec<(&'static str, Value)> {
        // JSON has no infinities; a sample that is one is written as text.
        let number = |value: f64| if value.is_finite() { json!(value) } else { json!(value.to_string()) };
        let series: Vec<Value> =
            points.iter().map(|point| json!([point.at_ms, number(point.value)])).collect();
        vec![
            ("verdict", json!(verdict)),
            ("metricName", json!(self.spec.metric_name)),
            ("query", json!(self.analysis.query)),
            ("direction", json!(self.analysis.rule.direction.to_string())),
            ("formula", json!(self.analysis.rule.to_string())),
            ("mean", number(Control::of(points).mean)),
            ("control", control.map_or(Value::Null, |c| json!({"mean": number(c.mean), "points": c.points}))),
            ("windowStart", json!(self.start_ms)),
            ("windowEnd", json!(self.end_ms())),
            ("stepMs", json!(millis(self.analysis.step))),
            ("series", json!(series)),
        ]
    }
}

impl Executor for VerifyExecutor {
    type Spec = VerifySpec;

    fn check(&self, spec: &VerifySpec, _cx: &StepContext) -> Result<(), Vec<SpecFault>> {
        spec::check(spec)
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
