//! Where samples come from: one face for every provider.

use crate::VerifyExecutor;
use crate::cloudwatch::{Logs, Metrics, Periods, Samples, periods};
use crate::error::Error;
use crate::judge::Point;
use crate::prometheus::Server;
use crate::spec::Analysis;
use executor_api::{SpecFault, StepContext};
use proto::task::MetricProvider;
use std::time::Duration;

/// An opened provider.
pub(crate) enum Source {
    Prometheus(Box<Server>),
    CloudWatch(Box<Metrics>),
    Logs(Box<Logs>),
}

/// The times of a window's samples, epoch milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: i64,
    pub(crate) until: i64,
    /// Whether a sample may be of the very end. Otherwise a sample stands for the period that it begins.
    pub(crate) inclusive: bool,
    /// The first sample covers this much before the window, milliseconds.
    pub(crate) early: i64,
    /// Samples that it holds at most.
    pub(crate) count: usize,
}

impl Source {
    /// Opens the provider of an analysis. The lines are for the log.
    pub(crate) async fn open(
        executor: &VerifyExecutor,
        provider: &MetricProvider,
        analysis: &Analysis,
        cx: &StepContext,
    ) -> Result<(Source, Vec<String>), Error> {
        match (provider, &analysis.wanted) {
            (MetricProvider::CloudWatch { account, scope }, Some(wanted)) => {
                let place = (account, scope.as_ref());
                let metrics = Metrics::open(&executor.aws, place, wanted, analysis.step, cx).await?;
                let lines = metrics.notes().into_iter().chain(metrics.shown()).collect();
                Ok((Source::CloudWatch(Box::new(metrics)), lines))
            }
            (MetricProvider::Prometheus { connector }, _) => {
                let (server, alias) = executor.connector.open(connector, cx).await?;
                Ok((Source::Prometheus(Box::new(server)), alias.into_iter().collect()))
            }
            (MetricProvider::CloudWatchLogs { account, scope }, _) => {
                let place = (account, scope.as_ref());
                let logs = Logs::open(&executor.aws, place, &analysis.query, analysis.step, cx).await?;
                let lines = logs.notes().into_iter().chain(logs.shown()).collect();
                Ok((Source::Logs(Box::new(logs)), lines))
            }
            (MetricProvider::CloudWatch { .. }, None) => {
                let problem = "asks for nothing that CloudWatch knows".to_owned();
                Err(Error::Spec(vec![SpecFault { field: "query".into(), problem }]))
            }
        }
    }

    /// For messages.
    pub(crate) fn target(&self) -> &str {
        match self {
            Source::Prometheus(server) => server.target(),
            Source::CloudWatch(metrics) => metrics.target(),
            Source::Logs(logs) => logs.target(),
        }
    }

    /// Lines that came up since the last call.
    pub(crate) fn notes(&self) -> Vec<String> {
        match self {
            Source::Prometheus(_) => Vec::new(),
            Source::CloudWatch(metrics) => metrics.notes(),
            Source::Logs(logs) => logs.notes(),
        }
    }

    /// Whether samples come with those of a control at the same times.
    pub(crate) fn has_control(&self) -> bool {
        match self {
            Source::Prometheus(_) | Source::Logs(_) => false,
            Source::CloudWatch(metrics) => metrics.has_control(),
        }
    }

    /// How long after the end of a window its last samples may come.
    pub(crate) fn lag(&self, configured: Duration) -> Duration {
        match self {
            Source::Prometheus(_) => Duration::ZERO,
            Source::CloudWatch(_) | Source::Logs(_) => configured,
        }
    }

    /// The samples of a window that begins at `start` and lasts `span`.
    pub(crate) fn window(&self, start: i64, span: i64, step: i64) -> Window {
        match self {
            Source::Prometheus(_) => {
                let count = usize::try_from(span / step.max(1) + 1).unwrap_or(usize::MAX);
                Window { from: start, until: start.saturating_add(span), inclusive: true, early: 0, count }
            }
            Source::CloudWatch(_) | Source::Logs(_) => window_of(periods(start, span, step), step),
        }
    }

    /// The equal window that was over at `end`.
    pub(crate) fn before(&self, window: &Window, end: i64, step: i64) -> Window {
        match self {
            Source::Prometheus(_) => {
                let span = window.until.saturating_sub(window.from);
                Window { from: end.saturating_sub(span), until: end, ..*window }
            }
            Source::CloudWatch(_) | Source::Logs(_) => {
                let periods = Periods { from: window.from, until: window.until, early: 0 };
                window_of(periods.before(end, step), step)
            }
        }
    }

    /// Samples of the window up to `upto`, with those of a control beside it.
    pub(crate) async fn samples(
        &self,
        analysis: &Analysis,
        window: &Window,
        upto: i64,
    ) -> Result<Samples, Error> {
        match self {
            Source::Prometheus(server) => {
                let judged = server.range(&analysis.query, window.from, upto, analysis.step).await?;
                Ok(Samples { judged, control: None })
            }
            Source::CloudWatch(metrics) => metrics.samples(window.from, closed(window, upto, analysis)).await,
            Source::Logs(logs) => logs.samples(window.from, closed(window, upto, analysis), upto).await,
        }
    }

    /// Samples of a window that is over, without the control.
    pub(crate) async fn past(&self, analysis: &Analysis, window: &Window) -> Result<Vec<Point>, Error> {
        match self {
            Source::Prometheus(server) => {
                server.range(&analysis.query, window.from, window.until, analysis.step).await
            }
            Source::CloudWatch(metrics) => metrics.judged(window.from, window.until).await,
            Source::Logs(logs) => Ok(logs.samples(window.from, window.until, window.until).await?.judged),
        }
    }

    /// How many requests there were in the window, for counts of answers to them.
    pub(crate) async fn requests(&self, window: &Window) -> Result<Option<f64>, Error> {
        match self {
            Source::Prometheus(_) | Source::Logs(_) => Ok(None),
            Source::CloudWatch(metrics) => metrics.requests(window.from, window.until).await,
        }
    }
}

fn window_of(periods: Periods, step: i64) -> Window {
    let Periods { from, until, early } = periods;
    Window { from, until, inclusive: false, early, count: periods.count(step) }
}

/// The end of the last period of the window that is over at `upto`.
fn closed(window: &Window, upto: i64, analysis: &Analysis) -> i64 {
    let step = i64::try_from(analysis.step.as_millis()).unwrap_or(i64::MAX).max(1);
    let upto = upto.clamp(window.from, window.until);
    window.from.saturating_add(upto.saturating_sub(window.from) / step * step)
}
