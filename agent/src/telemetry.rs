//! Metric names and their values. Harness' names (protocol.md §10.3) for dashboards that exist, and names of our own
//! for what those cannot say.

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    delegate_name: String,
    task_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgentLabels {
    delegate_name: String,
}

type Seconds = Gauge<f64, AtomicU64>;

/// Every metric of the agent.
pub(crate) struct Telemetry {
    name: String,
    registry: Registry,
    execution_time: Family<TaskLabels, Seconds>,
    executing: Family<AgentLabels, Gauge>,
    timeouts: Family<TaskLabels, Counter>,
    completed: Family<TaskLabels, Counter>,
    failed: Family<TaskLabels, Counter>,
    rejected: Family<AgentLabels, Counter>,
    connected: Family<AgentLabels, Gauge>,
    reconnected: Family<AgentLabels, Counter>,
    above_threshold: Family<AgentLabels, Gauge>,
    duration: Family<TaskLabels, Histogram>,
    lines: Counter,
    cut_bytes: Counter,
    spool_bytes: Gauge,
    permits_free: Gauge,
    journal_batch: Histogram,
}

fn duration_buckets() -> Histogram {
    Histogram::new([0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0])
}

impl Telemetry {
    pub(crate) fn new(name: &str) -> Telemetry {
        let mut registry = Registry::default();
        let one = Telemetry {
            name: name.to_owned(),
            execution_time: Family::default(),
            executing: Family::default(),
            timeouts: Family::default(),
            completed: Family::default(),
            failed: Family::default(),
            rejected: Family::default(),
            connected: Family::default(),
            reconnected: Family::default(),
            above_threshold: Family::default(),
            duration: Family::new_with_constructor(duration_buckets),
            lines: Counter::default(),
            cut_bytes: Counter::default(),
            spool_bytes: Gauge::default(),
            permits_free: Gauge::default(),
            journal_batch: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0]),
            registry: Registry::default(),
        };
        // The encoder appends `_total` to counters.
        let harness = registry.sub_registry_with_prefix("io_harness_custom_metric");
        harness.register("task_execution_time", "Seconds the last task took", one.execution_time.clone());
        harness.register("tasks_currently_executing", "Tasks held", one.executing.clone());
        harness.register("task_timeout", "Tasks that ran out of time", one.timeouts.clone());
        harness.register("task_completed", "Responses delivered, failures included", one.completed.clone());
        harness.register("task_failed", "Tasks that failed", one.failed.clone());
        harness.register("task_rejected", "Tasks not taken because the agent was full", one.rejected.clone());
        harness.register("delegate_connected", "1 while heartbeats are acknowledged", one.connected.clone());
        harness.register("delegate_reconnected", "Returns after a lost connection", one.reconnected.clone());
        harness.register(
            "resource_consumption_above_threshold",
            "1 while the agent is full",
            one.above_threshold.clone(),
        );
        let own = registry.sub_registry_with_prefix("delegate");
        own.register("task_duration_seconds", "Time from start to end of a task", one.duration.clone());
        own.register("log_lines", "Log lines stored", one.lines.clone());
        own.register("log_cut_bytes", "Bytes of logs that had to be cut", one.cut_bytes.clone());
        own.register("spool_bytes", "Bytes of unsent logs on disk", one.spool_bytes.clone());
        own.register("permits_free", "Tasks that could be taken", one.permits_free.clone());
        own.register(
            "journal_batch_entries",
            "Entries made durable by one commit",
            one.journal_batch.clone(),
        );
        let agent = AgentLabels { delegate_name: name.to_owned() };
        // A gauge or counter that is 0 is shown as 0 and not left out.
        one.executing.get_or_create(&agent).set(0);
        one.connected.get_or_create(&agent).set(0);
        one.above_threshold.get_or_create(&agent).set(0);
        drop(one.rejected.get_or_create(&agent));
        drop(one.reconnected.get_or_create(&agent));
        Telemetry { registry, ..one }
    }

    fn agent(&self) -> AgentLabels {
        AgentLabels { delegate_name: self.name.clone() }
    }

    fn task(&self, task_type: &str) -> TaskLabels {
        TaskLabels { delegate_name: self.name.clone(), task_type: task_type.to_owned() }
    }

    pub(crate) fn task_ended(&self, task_type: &str, took: Duration, failed: bool, timed_out: bool) {
        let labels = self.task(task_type);
        self.execution_time.get_or_create(&labels).set(took.as_secs_f64());
        self.duration.get_or_create(&labels).observe(took.as_secs_f64());
        if failed {
            self.failed.get_or_create(&labels).inc();
        }
        if timed_out {
            self.timeouts.get_or_create(&labels).inc();
        }
    }

    pub(crate) fn task_completed(&self, task_type: &str) {
        self.completed.get_or_create(&self.task(task_type)).inc();
    }

    pub(crate) fn rejected(&self) {
        self.rejected.get_or_create(&self.agent()).inc();
    }

    pub(crate) fn load(&self, held: usize, free: usize) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.executing.get_or_create(&self.agent()).set(count(held));
        self.permits_free.set(count(free));
        self.above_threshold.get_or_create(&self.agent()).set(i64::from(free == 0));
    }

    pub(crate) fn connected(&self, is_connected: bool) {
        let before = self.connected.get_or_create(&self.agent()).set(i64::from(is_connected));
        if is_connected && before == 0 {
            self.reconnected.get_or_create(&self.agent()).inc();
        }
    }

    pub(crate) fn log_lines(&self, lines: u64) {
        self.lines.inc_by(lines);
    }

    pub(crate) fn log_cut(&self, bytes: u64) {
        self.cut_bytes.inc_by(bytes);
    }

    pub(crate) fn journal_batch(&self, entries: usize) {
        self.journal_batch.observe(u32::try_from(entries).map_or(f64::MAX, f64::from));
    }

    /// OpenMetrics text.
    pub(crate) fn text(&self, spooled: u64) -> String {
        self.spool_bytes.set(i64::try_from(spooled).unwrap_or(i64::MAX));
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }
}
