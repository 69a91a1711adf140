//! One analysis under way: looks at the growing window until there is a verdict.

use crate::cloudwatch::Samples;
use crate::config::Config;
use crate::error::Error;
use crate::judge::{self, Aggregate, Control, Formula, Point, Verdict, judge, total};
use crate::source::{Source, Window};
use crate::spec::Analysis;
use crate::{MIN_RETRY_PAUSE, millis, now_ms};
use executor_api::{Level, StepContext, StepOutput, UnitLog};
use proto::logs::rfc3339;
use proto::task::VerifySpec;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

/// What is left of the step's timer for the verdict when late samples are waited for.
const MARGIN: Duration = Duration::from_secs(5);
/// Longest pause between two looks for late samples.
const LATE_PAUSE: Duration = Duration::from_secs(15);

/// One analysis.
pub(crate) struct Run<'a> {
    pub(crate) analysis: &'a Analysis,
    pub(crate) spec: &'a VerifySpec,
    pub(crate) source: Source,
    pub(crate) config: &'a Config,
    pub(crate) cx: &'a StepContext,
    pub(crate) log: &'a dyn UnitLog,
    pub(crate) window: Window,
    /// An earlier life of the agent began the window, and has shown its samples.
    pub(crate) resumed: bool,
}

/// What was found at one look.
struct Look {
    points: Vec<Point>,
    control: Option<Control>,
    /// No further samples come.
    finished: bool,
}

impl Run<'_> {
    fn step_ms(&self) -> i64 {
        millis(self.analysis.step).max(1)
    }

    /// How long after the window late samples are waited for.
    fn lag_ms(&self) -> i64 {
        millis(self.cx.rehearsed(self.source.lag(self.config.cloudwatch_lag)))
    }

    /// Says what is looked at and how it is judged.
    pub(crate) async fn announce(&self) -> Result<(), Error> {
        let Analysis { rule, because, step, query, notices, .. } = self.analysis;
        let seconds = |ms: i64| judge::number(Duration::from_millis(ms.unsigned_abs()).as_secs_f64());
        for line in [
            format!("metric `{}` of {}", self.spec.metric_name, self.source.target()),
            format!("query: {query}"),
            format!("direction: {} ({because})", rule.direction),
            format!("formula: {rule}"),
            format!(
                "window: {} s from {}, a sample every {} s",
                seconds(self.window.until.saturating_sub(self.window.from)),
                rfc3339(self.window.from),
                judge::number(step.as_secs_f64())
            ),
        ] {
            self.log.line(Level::Info, &line).await?;
        }
        if self.window.early > 0 {
            let text = format!(
                "the first sample covers {} s before the window as well: fewer would be too few",
                seconds(self.window.early)
            );
            self.log.line(Level::Info, &text).await?;
        }
        for notice in notices {
            self.log.line(Level::Warn, notice).await?;
        }
        let left = self.window.until.saturating_sub(now_ms(self.cx));
        if u128::try_from(left).is_ok_and(|left| left > self.cx.time_left().as_millis()) {
            self.log.line(Level::Warn, "the step's timeout ends before the window does").await?;
        }
        Ok(())
    }

    /// Looks at the growing window until there is a verdict.
    pub(crate) async fn observe(&self) -> Result<StepOutput, Error> {
        let before = match self.analysis.rule.formula {
            Formula::Deviation { .. } if !self.source.has_control() => Some(self.control().await?),
            _ => None,
        };
        let mut shown = BTreeSet::new();
        let mut last = None;
        loop {
            let now = now_ms(self.cx);
            let look = self.look(before.as_ref(), now, &mut last).await?;
            self.show(&look, &mut shown).await?;
            match judge(&self.analysis.rule, look.control.as_ref(), &look.points, look.finished) {
                Verdict::Continue => {}
                verdict => return self.conclude(verdict, &look).await,
            }
            self.cx.clock.sleep(self.until_next(now)).await;
        }
    }

    /// One look. `last`: how many samples there were at the one before, when the window was over already.
    async fn look(
        &self,
        before: Option<&Control>,
        now: i64,
        last: &mut Option<Vec<Point>>,
    ) -> Result<Look, Error> {
        let upto = now.clamp(self.window.from, self.window.until);
        let found = self.patiently(|| self.source.samples(self.analysis, &self.window, upto)).await?;
        let finished = self.is_finished(now, &found, last);
        let points = self.filled(found.judged, now, finished);
        let control = match found.control {
            Some(control) => Some(Control::beside(&self.filled(control, now, finished), &points)),
            None => before.cloned(),
        };
        Ok(Look { points, control, finished })
    }

    /// Whether all samples are there and stay as they are, or no more are waited for.
    fn is_finished(&self, now: i64, found: &Samples, last: &mut Option<Vec<Point>>) -> bool {
        if now < self.window.until {
            return false;
        }
        let late = self.window.until.saturating_add(self.lag_ms());
        if now >= late || (self.lag_ms() > 0 && self.cx.time_left() <= MARGIN) {
            return true;
        }
        let all: Vec<Point> = found.judged.iter().chain(found.control.iter().flatten()).copied().collect();
        let wanted = self.window.count.saturating_mul(1 + usize::from(found.control.is_some()));
        // A period may be counted from several places, which do not all report at once.
        let settled = all.len() >= wanted && last.as_ref() == Some(&all);
        *last = Some(all);
        settled
    }

    /// With zeroes where absence means zero. What may still come is not taken for absent.
    fn filled(&self, found: Vec<Point>, now: i64, finished: bool) -> Vec<Point> {
        if !self.analysis.absent_is_zero {
            return found;
        }
        let Window { from, until, inclusive, .. } = self.window;
        let step = self.step_ms();
        let upto = match (inclusive, finished) {
            (true, _) => now.clamp(from, until),
            (false, true) => until.saturating_sub(1),
            (false, false) => {
                now.saturating_sub(self.lag_ms()).saturating_sub(step).min(until.saturating_sub(1))
            }
        };
        judge::with_zeroes(&found, from, upto, step)
    }

    /// Time until the next look.
    fn until_next(&self, now: i64) -> Duration {
        let (step, until) = (self.step_ms(), self.window.until);
        let wait = if now >= until {
            let late = until.saturating_add(self.lag_ms()).saturating_sub(now);
            (step / 4).min(millis(LATE_PAUSE)).max(millis(MIN_RETRY_PAUSE)).min(late)
        } else {
            let behind = now.saturating_sub(self.window.from);
            let next = self.window.from.saturating_add((behind.div_euclid(step) + 1).saturating_mul(step));
            next.min(until).saturating_sub(now)
        };
        Duration::from_millis(u64::try_from(wait).unwrap_or(0).max(1))
    }

    /// The equal window before the stage.
    async fn control(&self) -> Result<Control, Error> {
        let begun = i64::try_from(self.spec.stage_started_at).unwrap_or(0);
        let end = if begun == 0 { self.window.from } else { begun.min(self.window.from) };
        let window = self.source.before(&self.window, end, self.step_ms());
        let found = self.patiently(|| self.source.past(self.analysis, &window)).await?;
        let points = match (self.analysis.absent_is_zero, window.inclusive) {
            (true, false) => judge::with_zeroes(&found, window.from, window.until - 1, self.step_ms()),
            (true, true) | (false, _) => found,
        };
        let control = Control::of(&points);
        let text = format!(
            "control: {} samples in the equal window before {}, mean {}",
            control.points,
            rfc3339(window.until),
            judge::number(control.mean)
        );
        self.log.line(Level::Info, &text).await?;
        Ok(control)
    }

    /// One question, repeated while the provider's errors stay within the budget.
    async fn patiently<T, F: Future<Output = Result<T, Error>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, Error> {
        let pause = self.cx.rehearsed(self.config.retry_pause).max(MIN_RETRY_PAUSE);
        let mut errors = 0;
        loop {
            let answer = ask().await;
            for line in self.source.notes() {
                self.log.line(Level::Info, &line).await?;
            }
            match answer {
                Ok(found) => return Ok(found),
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

    /// Writes the samples that are new. After a restart those before it stand in the log already.
    async fn show(&self, look: &Look, shown: &mut BTreeSet<i64>) -> Result<(), Error> {
        if self.resumed && shown.is_empty() && !look.points.is_empty() {
            let text = format!("{} samples since the window began", look.points.len());
            self.log.line(Level::Info, &text).await?;
            shown.extend(look.points.iter().map(|point| point.at_ms));
        }
        for (at, point) in look.points.iter().enumerate() {
            if shown.insert(point.at_ms) {
                let upto = look.points.get(..=at).unwrap_or_default();
                let (level, text) = self.told(look.control.as_ref(), point, total(upto));
                self.log.line(level, &format!("{}  {text}", rfc3339(point.at_ms))).await?;
            }
        }
        Ok(())
    }

    /// A sample in words.
    fn told(&self, control: Option<&Control>, point: &Point, total: f64) -> (Level, String) {
        let rule = &self.analysis.rule;
        let value = judge::number(point.value);
        if rule.aggregate == Aggregate::Total {
            return (Level::Info, format!("{value}, {} so far", judge::number(total)));
        }
        let reference = control.map(|control| control.at(point.at_ms));
        if reference == Some(None) {
            return (Level::Info, format!("{value}, the control has no sample of this time yet"));
        }
        match rule.measure(reference.flatten(), point.value) {
            Some(measure) if rule.violated(measure) => {
                (Level::Warn, format!("{} violates the limit", rule.shown(point.value, measure)))
            }
            Some(measure) => (Level::Info, rule.shown(point.value, measure)),
            None => (Level::Warn, format!("{value}, not comparable with a control of 0")),
        }
    }

    async fn conclude(&self, verdict: Verdict, look: &Look) -> Result<StepOutput, Error> {
        let (target, metric) = (self.source.target().to_owned(), self.spec.metric_name.clone());
        let points = &look.points;
        let mut notices = self.analysis.notices.clone();
        if self.analysis.absent_is_zero && points.iter().all(|point| point.value == 0.0) {
            notices.push(format!("no sample of `{metric}` was found; absence counts as 0 for this metric"));
            match self.source.requests(&self.window).await {
                Ok(Some(0.0)) => notices.push(
                    "RequestCount has no sample in this window either: there were no requests that could have failed"
                        .to_owned(),
                ),
                Ok(_) => {}
                Err(error) => notices.push(format!("RequestCount could not be asked for: {error}")),
            }
        }
        let word = match verdict {
            Verdict::Pass { value } => {
                let what = match self.analysis.rule.aggregate {
                    Aggregate::Mean => "mean",
                    Aggregate::Total => "total",
                };
                let (count, value) = (points.len(), judge::number(value));
                let text = format!("passed: the {what} of {count} samples is {value}");
                self.log.line(Level::Info, &text).await?;
                "Pass"
            }
            Verdict::Inconclusive { reason } if self.spec.fail_on_no_analysis => {
                let reason = self.with_resolution(reason);
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
        let outputs = self.outputs(word, look);
        let outputs = outputs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        Ok(StepOutput { outputs, notices, ..StepOutput::default() })
    }

    /// AWS writes its own metrics once a minute, which is too seldom for a window of a rehearsal.
    fn with_resolution(&self, reason: String) -> String {
        let of_aws = self.analysis.wanted.as_ref().is_some_and(|wanted| wanted.is_of_aws());
        let (step, minute) = (self.analysis.step, Duration::from_secs(60));
        if !of_aws || step >= minute {
            return reason;
        }
        let step = judge::number(step.as_secs_f64());
        format!("{reason}; the rehearsal asks for samples {step} s apart, AWS itself writes one a minute")
    }

    /// Everything needed to judge again: direction, formula, and the series judged (DESIGN D18).
    fn outputs(&self, verdict: &str, look: &Look) -> Vec<(&'static str, Value)> {
        // JSON has no infinities; a sample that is one is written as text.
        let number = |value: f64| if value.is_finite() { json!(value) } else { json!(value.to_string()) };
        let (points, control) = (&look.points, look.control.as_ref());
        let series: Vec<Value> =
            points.iter().map(|point| json!([point.at_ms, number(point.value)])).collect();
        let mut outputs = vec![
            ("verdict", json!(verdict)),
            ("metricName", json!(self.spec.metric_name)),
            ("query", json!(self.analysis.query)),
            ("direction", json!(self.analysis.rule.direction.to_string())),
            ("formula", json!(self.analysis.rule.to_string())),
            ("mean", number(Control::of(points).mean)),
            ("control", control.map_or(Value::Null, |c| json!({"mean": number(c.mean), "points": c.points}))),
            ("windowStart", json!(self.window.from)),
            ("windowEnd", json!(self.window.until)),
            ("stepMs", json!(self.step_ms())),
            ("series", json!(series)),
        ];
        if self.analysis.rule.aggregate == Aggregate::Total {
            outputs.push(("total", number(total(points))));
        }
        outputs
    }
}
