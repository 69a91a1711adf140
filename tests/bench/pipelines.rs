//! Many pipelines at once, and one very long one, on a real manager with four real agents whose steps do nothing.
//!
//! A step makes two transitions: an agent takes it, and it ends. What the machine does beside (a step that begins because
//! another one ended) is part of the same commit and not counted again.

use crate::figures::{fsync_ms, judged, percentile, plain};
use crate::proc::{cpu_seconds, status_mib};
use anyhow::{Context, Result};
use e2e::world::{AgentProcess, Manager, Process};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Executions at once.
const EXECUTIONS: usize = 1000;
/// Steps of each.
const STEPS: usize = 50;
const AGENTS: usize = 4;
/// Requests of the bench at the same time.
const REQUESTS: usize = 8;
/// How long the half load is kept up.
const HALF_LOAD: Duration = Duration::from_secs(20);
/// Nothing here takes longer, even on a slow machine.
const LIMIT: Duration = Duration::from_secs(900);
/// The half load is that of this bar, in transitions a second.
const BAR: f64 = 1500.0;

struct World {
    manager: Manager,
    agents: Vec<AgentProcess>,
    http: reqwest::Client,
}

impl World {
    fn start(dir: &Path) -> World {
        let manager = Manager::start(dir);
        let agents =
            (0..AGENTS).map(|n| AgentProcess::start(&manager, dir, &format!("noop-{n}"), &[])).collect();
        World { manager, agents, http: reqwest::Client::new() }
    }

    fn manager_pid(&self) -> Result<u32> {
        self.manager.process.as_ref().map(Process::pid).context("the manager runs")
    }

    fn agents_cpu(&self) -> Result<f64> {
        self.agents.iter().filter_map(|agent| agent.process.as_ref()).map(|p| cpu_seconds(p.pid())).sum()
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let call = self.http.get(format!("{}{path}", self.manager.url));
        let reply = call.header("x-api-key", &self.manager.api_key).send().await?;
        Ok(reply.error_for_status()?.json().await?)
    }

    async fn run(&self, pipeline: &str) -> Result<String> {
        let call = self.http.post(format!("{}/api/v1/executions", self.manager.url));
        let call = call.header("x-api-key", &self.manager.api_key).json(&json!({ "pipeline": pipeline }));
        let reply: Value = call.send().await?.error_for_status()?.json().await?;
        reply["executionId"].as_str().map(str::to_owned).context("executionId")
    }

    async fn run_many(&self, pipeline: &str, count: usize) -> Result<Vec<String>> {
        let runs = stream::iter(0..count).map(|_| self.run(pipeline));
        runs.buffer_unordered(REQUESTS).try_collect().await
    }

    /// Waits until so many executions of the pipeline have ended; gives their rows.
    async fn ended(&self, pipeline: &str, count: usize, peak: &mut f64) -> Result<Vec<Value>> {
        let begin = Instant::now();
        // The list of a thousand executions is dear: asked for more often it would be a part of what is measured.
        let mut samples = tokio::time::interval(Duration::from_millis(500));
        loop {
            samples.tick().await;
            *peak = peak.max(status_mib(self.manager_pid()?, "VmRSS:")?);
            let rows = self.get(&format!("/api/v1/executions?pipeline={pipeline}&limit=1000")).await?;
            let rows: Vec<Value> = rows.as_array().cloned().unwrap_or_default();
            let ended = rows.iter().filter(|row| !row["endedAt"].is_null()).count();
            if ended >= count {
                return Ok(rows);
            }
            anyhow::ensure!(begin.elapsed() < LIMIT, "{ended} of {count} executions ended within {LIMIT:?}");
        }
    }

    fn apply(&self, dir: &Path, pipeline: &str, steps: &str) -> Result<()> {
        let text = format!(
            "pipeline:\n  name: {pipeline}\n  identifier: {pipeline}\n  stages:\n    - stage:\n        name: s\n        \
             identifier: s\n        type: Custom\n        spec:\n          execution:\n            steps:\n{steps}"
        );
        let file = dir.join(format!("{pipeline}.yaml"));
        std::fs::write(&file, text)?;
        self.manager.ok(&["apply", file.to_str().context("path")?]);
        Ok(())
    }

    /// Steps of an execution that have ended well, counted in its view.
    async fn steps_done(&self, execution: &str) -> Result<usize> {
        let view = self.get(&format!("/api/v1/executions/{execution}")).await?;
        let view = view.get("execution").unwrap_or(&view);
        let mut done = 0;
        let mut open: Vec<&Value> = view["stages"].as_array().into_iter().flatten().collect();
        while let Some(at) = open.pop() {
            let members = at["steps"].as_array();
            let is_leaf = members.is_none_or(Vec::is_empty);
            if is_leaf && at["status"] == "Success" {
                done += 1;
            }
            open.extend(members.into_iter().flatten());
        }
        Ok(done)
    }

    /// How long events waited for their commit, by upper bound in milliseconds, since the manager started.
    async fn waits(&self) -> Result<Vec<(f64, f64)>> {
        let facts = self.get("/api/v1/engine").await?;
        let buckets = facts["committedWithinMs"].as_array().context("committedWithinMs")?.clone();
        let pair = |bucket: &Value| {
            Some((bucket["ms"].as_f64().unwrap_or(f64::INFINITY), bucket["events"].as_f64()?))
        };
        buckets.iter().map(|bucket| pair(bucket).context("a bucket")).collect()
    }
}

fn step(identifier: &str, more: &str) -> String {
    let pad = " ".repeat(14);
    format!(
        "{pad}- step:\n{pad}    type: Noop\n{pad}    name: {identifier}\n{pad}    identifier: {identifier}\n{pad}    spec: {{line: done}}\n{more}"
    )
}

/// The bound below which `share` of the events between two readings were committed.
fn within(before: &[(f64, f64)], after: &[(f64, f64)], share: f64) -> f64 {
    let counts: Vec<(f64, f64)> =
        after.iter().zip(before).map(|((bound, now), (_, then))| (*bound, now - then)).collect();
    let all: f64 = counts.iter().map(|(_, count)| count).sum();
    let mut seen = 0.0;
    for (bound, count) in counts {
        seen += count;
        if seen >= all * share {
            return bound;
        }
    }
    f64::NAN
}

/// First start and last end, in seconds.
fn span(rows: &[Value]) -> f64 {
    let times = |field: &str| rows.iter().filter_map(|row| row[field].as_f64()).collect::<Vec<_>>();
    (percentile(&times("endedAt"), 100.0) - percentile(&times("createdAt"), 0.0)) / 1e3
}

/// 1,000 executions of 50 steps at once.
pub(crate) async fn measure() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::start(dir.path());
    plain("fsync of 4 KiB on this disk: p50", percentile(&fsync_ms(dir.path(), 200)?, 50.0), "ms");
    let steps: String = (0..STEPS).map(|n| step(&format!("s{n}"), "")).collect();
    for pipeline in ["warm", "burst", "half"] {
        world.apply(dir.path(), pipeline, &steps)?;
    }
    let mut peak = 0.0;
    world.run_many("warm", 4).await?;
    world.ended("warm", 4, &mut peak).await?;

    let (pid, agents) = (world.manager_pid()?, world.agents_cpu()?);
    let cpu = cpu_seconds(pid)?;
    let ids = world.run_many("burst", EXECUTIONS).await?;
    let rows = world.ended("burst", EXECUTIONS, &mut peak).await?;
    let seconds = span(&rows);
    let total = (EXECUTIONS * STEPS) as f64;
    let done = stream::iter(&ids).map(|id| world.steps_done(id)).buffer_unordered(REQUESTS);
    let done: Vec<usize> = done.try_collect().await?;
    let done: usize = done.into_iter().sum();
    let well = rows.iter().filter(|row| row["status"] == "Success").count();
    plain("1,000 executions of 50 steps: first start -> last end", seconds, "s");
    plain("  CPU of the manager per step", (cpu_seconds(pid)? - cpu) / total * 1e6, "us");
    plain("  CPU of the four agents per step", (world.agents_cpu()? - agents) / total * 1e6, "us");
    judged("  executions that succeeded", well as f64, "", EXECUTIONS as f64, true);
    judged("  steps lost", total - done as f64, "", 0.0, false);
    judged("  step transitions (taken, ended), durable", 2.0 * total / seconds, "/s", BAR, true);
    judged("  RSS of the manager, highest seen", peak, "MiB", 256.0, false);

    // Half load: executions begin evenly, so that the steps of those under way come to half of the bar.
    let before = world.waits().await?;
    let pause = Duration::from_secs_f64(2.0 * STEPS as f64 / (BAR / 2.0));
    let begin = Instant::now();
    let mut count = 0_u32;
    while begin.elapsed() < HALF_LOAD {
        tokio::time::sleep_until((begin + pause * count).into()).await;
        world.run("half").await?;
        count += 1;
    }
    let rows = world.ended("half", count as usize, &mut peak).await?;
    let after = world.waits().await?;
    plain(
        "half load: step transitions offered and done",
        2.0 * f64::from(count) * STEPS as f64 / span(&rows),
        "/s",
    );
    plain("  event received -> committed, p50 at most", within(&before, &after, 0.50), "ms");
    judged("  event received -> committed, p99 at most", within(&before, &after, 0.99), "ms", 50.0, false);
    Ok(())
}

/// Time of a step in a loop of 100 and of 10,000.
pub(crate) async fn growth() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World::start(dir.path());
    let pad = " ".repeat(18);
    for count in [100, 10_000] {
        let strategy = format!("{pad}strategy:\n{pad}  parallelism: {count}\n{pad}  maxConcurrency: 50\n");
        world.apply(dir.path(), &format!("loop_{count}"), &step("s", &strategy))?;
    }
    let mut peak = 0.0;
    let mut per_step = Vec::new();
    // The short one is over within a second, so it runs several times; the first is a warm-up.
    for (count, rounds) in [(100_usize, 6), (10_000, 1)] {
        let pipeline = format!("loop_{count}");
        let mut seconds = Vec::new();
        let mut cpus = Vec::new();
        for round in 0..rounds {
            let cpu = cpu_seconds(world.manager_pid()?)?;
            let id = world.run(&pipeline).await?;
            let rows = world.ended(&pipeline, round + 1, &mut peak).await?;
            let row = rows.iter().find(|row| row["executionId"] == id).context("its row")?.clone();
            anyhow::ensure!(row["status"] == "Success", "{pipeline} ended {}", row["status"]);
            if round > 0 || rounds == 1 {
                seconds.push(span(&[row]) / count as f64 * 1e3);
                cpus.push((cpu_seconds(world.manager_pid()?)? - cpu) / count as f64 * 1e3);
            }
            let done = world.steps_done(&id).await?;
            anyhow::ensure!(done == count, "{done} of {count} steps succeeded");
        }
        let (time, cpu) = (percentile(&seconds, 50.0), percentile(&cpus, 50.0));
        plain(&format!("loop of {count}: time per step"), time, "ms");
        plain(&format!("loop of {count}: CPU of the manager per step"), cpu, "ms");
        per_step.push(time);
    }
    judged("time per step, 10,000 against 100", per_step[1] / per_step[0], "", 1.25, false);
    plain("RSS of the manager, highest seen", peak, "MiB");
    Ok(())
}
