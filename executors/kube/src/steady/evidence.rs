//! Everything that explains a failed wait, on one screen.

use super::faults::Fault;
use super::picture::Assessment;
use super::view::{ClusterEvent, Pod};
use super::waiter::Waiter;
use executor_api::{CancelReason, Class, StepError};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Longer lines are cut: a screen is not wider.
const WIDTH: usize = 160;
/// Different faults, events and log lines that fit on one screen.
const FAULTS: usize = 5;
const EVENTS: usize = 5;
const LOG_LINES: usize = 10;
/// As much of a container's output is read.
const LOG_BYTES: usize = 32 << 10;
/// The evidence is worth this much time, not more.
const LOG_LIMIT: Duration = Duration::from_secs(3);

/// The screen for one target. With `logs` the last lines of the container that failed first are read.
pub(crate) async fn screen(waiter: &mut Waiter<'_>, index: usize, why: &str, logs: bool) -> String {
    let now = waiter.cx.clock.mono().saturating_duration_since(waiter.start);
    let assessed = waiter.picture.assess(now).into_iter().nth(index);
    let faults = assessed.map(|Assessment { faults, .. }| faults).unwrap_or_default();
    let picture = &waiter.picture;
    let name = picture.watched.get(index).map(|w| w.target.to_string()).unwrap_or_default();
    let (pods, others) = picture.pods_of(index);
    let mut screen = format!("✗ {name}: {why}\n");
    if !pods.is_empty() || others > 0 {
        let ready = pods.iter().filter(|pod| pod.is_ready()).count();
        line(
            &mut screen,
            &format!("  pods: {} of this revision, {ready} ready; {others} of others", pods.len()),
        );
    }
    for (text, names) in grouped(&faults).into_iter().take(FAULTS) {
        line(&mut screen, &format!("  {}: {text}", some(&names)));
    }
    if faults.is_empty() {
        for (text, names) in states(&pods).into_iter().take(FAULTS) {
            line(&mut screen, &format!("  {}: {text}", some(&names)));
        }
    }
    let events = told(&picture.warnings(index));
    if !events.is_empty() {
        line(&mut screen, "  warnings of the cluster:");
        for (text, times) in events.iter().rev().take(EVENTS) {
            line(&mut screen, &format!("    {times}× {text}"));
        }
    }
    let ended = faults.iter().find(|f| f.exit.is_some()).cloned().or_else(|| ended_pod(&pods));
    if logs && let Some(fault) = ended {
        let namespace = picture.watched.get(index).map(|w| w.target.namespace.clone()).unwrap_or_default();
        let lines = last_lines(waiter, &namespace, &fault).await;
        if !lines.is_empty() {
            line(
                &mut screen,
                &format!("  last lines of container {} in pod {}:", fault.container, fault.pod),
            );
            for text in lines {
                line(&mut screen, &format!("    | {text}"));
            }
        }
    }
    screen.truncate(screen.trim_end().len());
    screen
}

fn line(screen: &mut String, text: &str) {
    let mut text = text.replace(['\n', '\r'], " ");
    if text.chars().count() > WIDTH {
        text = text.chars().take(WIDTH - 1).chain(['…']).collect();
    }
    let _text_takes_everything = writeln!(screen, "{text}");
}

/// Equal faults of many pods become one line.
fn grouped(faults: &[Fault]) -> Vec<(String, Vec<&str>)> {
    let mut order: Vec<(String, Vec<&str>)> = Vec::new();
    for fault in faults {
        let text = general(&fault.text, &fault.pod, &fault.uid);
        match order.iter_mut().find(|(known, _)| *known == text) {
            Some((_, names)) => names.push(&fault.pod),
            None => order.push((text, vec![&fault.pod])),
        }
    }
    order
}

/// A text without the name and uid of the object it is about, so that texts about several can be equal.
pub(crate) fn general(text: &str, name: &str, uid: &str) -> String {
    let mut text = text.to_owned();
    for own in [name, uid] {
        if !own.is_empty() {
            text = text.replace(own, "…");
        }
    }
    text
}

/// `web-1`, or `3 pods (web-1 …)`.
fn some(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("pod {one}"),
        [first, ..] => format!("{} pods ({first} …)", names.len()),
    }
}

/// What pods without a known fault do: mostly they run and are not ready.
fn states<'a>(pods: &[&'a Pod]) -> Vec<(String, Vec<&'a str>)> {
    let mut order: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.is_ready()) {
        let mut text = pod.status.phase.to_lowercase();
        for status in pod.statuses() {
            let state = match (&status.state.waiting, &status.state.terminated) {
                (Some(waiting), _) => format!("waits: {} {}", waiting.reason, waiting.message),
                (_, Some(ended)) => format!("ended with exit code {} ({})", ended.exit_code, ended.reason),
                _ if !status.ready => "runs and is not ready".to_owned(),
                _ => continue,
            };
            let _text_takes_everything = write!(text, "; container {} {}", status.name, state.trim_end());
            if status.restart_count > 0 {
                let _text_takes_everything = write!(text, ", {} restarts", status.restart_count);
            }
        }
        order
            .entry(general(&text, &pod.metadata.name, &pod.metadata.uid))
            .or_default()
            .push(&pod.metadata.name);
    }
    order.into_iter().collect()
}

/// Warnings with how often they came; equal ones about several objects are one.
fn told(events: &[&ClusterEvent]) -> Vec<(String, u64)> {
    let mut order: Vec<(String, u64)> = Vec::new();
    for event in events {
        let text = format!("{} {}: {}", event.reason, event.involved_object.kind, event.message.trim());
        let text = general(&text, &event.involved_object.name, &event.involved_object.uid);
        match order.iter().position(|(known, _)| *known == text) {
            // What came again is as new as its last time.
            Some(at) => {
                let (text, times) = order.remove(at);
                order.push((text, times + event.times()));
            }
            None => order.push((text, event.times())),
        }
    }
    order
}

/// A pod that ended badly for good: those of Jobs.
fn ended_pod(pods: &[&Pod]) -> Option<Fault> {
    let failed = pods.iter().filter(|pod| pod.status.phase == "Failed");
    let pod = failed.max_by_key(|pod| &pod.metadata.creation_timestamp)?;
    let bad =
        |s: &&super::view::ContainerStatus| s.state.terminated.as_ref().is_some_and(|t| t.exit_code != 0);
    let status = pod.statuses().find(bad)?;
    Some(Fault {
        cause: super::Cause::Job,
        pod: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        container: status.name.clone(),
        text: String::new(),
        needs: Duration::ZERO,
        exit: status.state.terminated.as_ref().map(|t| t.exit_code),
        previous_log: false,
    })
}

/// The last lines of a container's output; none when they cannot be read in time.
async fn last_lines(waiter: &Waiter<'_>, namespace: &str, fault: &Fault) -> Vec<String> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{}/log", fault.pod);
    let query = |previous: bool| {
        format!(
            "container={}&tailLines={LOG_LINES}&limitBytes={LOG_BYTES}&previous={previous}",
            fault.container
        )
    };
    for previous in [fault.previous_log, !fault.previous_log] {
        let query = query(previous);
        let read = waiter.wire.text(&path, &query, LOG_BYTES);
        if let Ok(Ok(text)) = tokio::time::timeout(LOG_LIMIT, read).await
            && !text.trim().is_empty()
        {
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES);
            return lines.into_iter().skip(from).map(str::to_owned).collect();
        }
    }
    Vec::new()
}

/// The error of a wait that was ended on request.
pub(super) fn cancelled(reason: CancelReason, state: String) -> StepError {
    let why = match reason {
        CancelReason::Deadline => "the step's timeout is over",
        CancelReason::User => "the step was aborted",
        CancelReason::Drain => "the agent shuts down",
        CancelReason::LeaseLost => "another agent may own the step",
    };
    let text = match state.as_str() {
        "" => format!("stopped waiting: {why}; the cluster was left as it is"),
        state => format!("stopped waiting: {why}; the cluster was left as it is: {state}"),
    };
    let error = StepError::new(Class::Cancelled { reason }, "KUBE-054", text);
    match reason {
        CancelReason::Deadline => error.hint("if it only needs longer, raise the step's timeout"),
        _ => error,
    }
}
