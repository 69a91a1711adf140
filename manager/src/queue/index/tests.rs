use super::*;
use crate::queue::explain::{Explanation, explain};
use serde_json::json;
use std::collections::BTreeSet as Set;

fn agent(id: &str, tags: &[&str], at: Millis) -> Agent {
    Agent {
        id: id.to_owned(),
        instance_id: format!("i-{id}"),
        name: id.to_owned(),
        host_name: format!("{id}-host"),
        ip: String::new(),
        version: String::new(),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        task_types: Set::from(["T".to_owned()]),
        extended: true,
        public_key: "K".to_owned(),
        capacity: 2,
        busy: 0,
        last_heartbeat: at,
        gone: false,
    }
}

fn task(id: &str, selectors: &[&str], affinity: &str) -> Arc<NewTask> {
    Arc::new(NewTask {
        id: id.to_owned(),
        execution_id: "e".to_owned(),
        node: "n".to_owned(),
        attempt: 1,
        task_type: "T".to_owned(),
        selectors: json!([{ "origin": "step", "selectors": selectors }]),
        secrets: vec![],
        timeout_ms: 1,
        affinity: affinity.to_owned(),
        data: String::new(),
        abstractions: vec![],
        created_at: 0,
    })
}

fn ids(listed: &[Listed]) -> Vec<&str> {
    listed
        .iter()
        .map(|listed| match listed {
            Listed::Task { id, .. } | Listed::Abort { id, .. } => id.as_str(),
        })
        .collect()
}

#[test]
fn an_agent_is_offered_what_it_has_room_for() {
    let mut index = Index::default();
    index.put_agent(agent("a", &["x"], 0), 0);
    for n in 1..=5 {
        index.queued(n, task(&format!("t{n}"), &["x"], ""), 0);
    }
    assert_eq!(ids(&index.list("a", false, 0).0), ["t1", "t2"], "capacity is 2");
    index.assigned("t1", "a", 1, 0);
    assert_eq!(ids(&index.list("a", false, 0).0), ["t2"]);
    index.assigned("t2", "a", 1, 0);
    assert!(index.list("a", false, 0).0.is_empty());
    let entry = index.entry("t3").unwrap();
    assert_eq!(explain(&index, "T", false, &entry.sets), Explanation::Busy { agents: 1 });
    index.ended("t1");
    assert_eq!(ids(&index.list("a", false, 0).0), ["t3"]);
}

#[test]
fn a_long_poll_is_not_told_the_same_thing_in_a_tight_loop() {
    let mut index = Index::default();
    index.put_agent(agent("a", &[], 0), 0);
    index.queued(1, task("t1", &[], ""), 0);
    assert_eq!(ids(&index.list("a", true, 0).0), ["t1"]);
    let (again, next) = index.list("a", true, 10);
    assert!(again.is_empty());
    assert_eq!(next, Some(1000), "it may ask again after a second");
    assert_eq!(ids(&index.list("a", true, 1000).0), ["t1"]);
    assert_eq!(ids(&index.list("a", false, 1001).0), ["t1"], "a plain poll sees everything");
}

#[test]
fn affinity_keeps_a_task_for_a_moment_only() {
    let mut index = Index::default();
    index.put_agent(agent("a", &[], 0), 0);
    index.put_agent(agent("b", &[], 0), 0);
    index.queued(1, task("t1", &[], "e/h"), 0);
    index.assigned("t1", "a", 1, 0);
    index.ended("t1");
    index.queued(2, task("t2", &[], "e/h"), 100);
    let (listed, next) = index.list("b", true, 100);
    assert!(listed.is_empty());
    assert_eq!(next, Some(600));
    assert_eq!(ids(&index.list("a", true, 100).0), ["t2"]);
    assert_eq!(ids(&index.list("b", true, 600).0), ["t2"], "the other replica takes it then");
    // A busy or silent agent is not waited for.
    index.assigned("t2", "a", 1, 600);
    index.queued(3, task("t3", &[], "other"), 600);
    index.assigned("t3", "a", 1, 600);
    index.queued(4, task("t4", &[], "e/h"), 600);
    assert_eq!(ids(&index.list("b", true, 600).0), ["t4"]);
}

#[test]
fn the_wait_for_an_agent_runs_only_while_none_fits() {
    let five_minutes = 300_000;
    let mut index = Index::default();
    index.queued(1, task("t1", &["x"], ""), 1000);
    assert_eq!(index.next_change(100), Some(1100));
    assert!(index.given_up(1099, 100).is_empty());
    assert_eq!(index.given_up(1100, 100).len(), 1);
    // An agent that fits appears, is silent, unregisters.
    index.put_agent(agent("a", &["X"], 1050), 1050);
    assert!(index.given_up(9999, 100).is_empty());
    assert_eq!(index.next_change(100), Some(1050 + five_minutes));
    index.sweep(1050 + five_minutes);
    assert_eq!(index.next_change(100), Some(1150 + five_minutes), "the wait starts anew");
    index.seen("a", 1060 + five_minutes);
    assert!(index.given_up(u64::MAX, 100).is_empty());
    let gone = Agent { gone: true, ..agent("a", &["X"], 2000) };
    index.put_agent(gone, 400_000);
    assert_eq!(index.given_up(400_100, 100).len(), 1);
    assert!(!index.may_acquire("a", "t1"));
}

#[test]
fn an_open_poll_counts_as_connected_however_long_ago_the_heartbeat_was() {
    let mut index = Index::default();
    index.put_agent(agent("a", &[], 0), 0);
    index.poll_opened("a", 10);
    index.sweep(10_000_000);
    assert!(index.agents["a"].connected);
    index.poll_closed("a", 10_000_000);
    index.sweep(10_000_001);
    assert!(index.agents["a"].connected, "the end of a poll is a sign of life");
    index.sweep(10_300_001);
    assert!(!index.agents["a"].connected);
}

#[test]
fn changed_tags_change_what_fits() {
    let mut index = Index::default();
    index.put_agent(agent("a", &["x"], 0), 0);
    index.queued(1, task("t1", &["x"], ""), 0);
    index.queued(2, task("t2", &["y"], ""), 0);
    assert_eq!(ids(&index.list("a", false, 0).0), ["t1"]);
    index.put_agent(agent("a", &["y"], 0), 0);
    assert_eq!(ids(&index.list("a", false, 0).0), ["t2"]);
    index.put_agent(agent("a", &[], 0), 0);
    assert!(index.list("a", false, 0).0.is_empty());
    // The name, the host and nothing else are selectors too.
    index.queued(3, task("t3", &["A-Host"], ""), 0);
    assert_eq!(ids(&index.list("a", false, 0).0), ["t3"]);
}

#[test]
fn selectors_that_cannot_be_read_let_nobody_in() {
    let mut index = Index::default();
    index.put_agent(agent("a", &["x"], 0), 0);
    let mut bad = (*task("t1", &[], "")).clone();
    bad.selectors = json!({ "no": "list" });
    index.queued(1, Arc::new(bad), 0);
    assert!(index.list("a", false, 0).0.is_empty());
    assert!(!index.may_acquire("a", "t1"));
}

#[test]
fn aborts_repeat_with_heartbeats_for_ours_and_come_once_for_others() {
    let mut index = Index::default();
    index.put_agent(agent("a", &[], 0), 0);
    let foreign = Agent { extended: false, ..agent("f", &[], 0) };
    index.put_agent(foreign, 0);
    for (n, id, holder) in [(1, "t1", "a"), (2, "t2", "f")] {
        index.queued(n, task(id, &[], ""), 0);
        index.assigned(id, holder, 1, 0);
        index.abort_asked(id, holder, "User");
    }
    let abort = |id: &str| vec![Listed::Abort { id: id.to_owned(), reason: "User".to_owned() }];
    assert_eq!(index.list("a", true, 0).0, abort("t1"));
    assert!(index.list("a", true, 1).0.is_empty());
    index.heartbeat("a", 10, Some(&["t1".to_owned()]));
    assert_eq!(index.list("a", true, 10).0, abort("t1"));
    assert_eq!(index.list("f", false, 0).0, abort("t2"));
    index.heartbeat("f", 10, None);
    assert!(index.list("f", false, 10).0.is_empty(), "each abort is handed out once");
}

#[test]
fn the_nearest_agents_are_named_first() {
    let mut index = Index::default();
    index.put_agent(agent("far", &[], 0), 0);
    index.put_agent(agent("near", &["x", "y"], 0), 0);
    let sets = vec![SelectorSet {
        origin: "stage".to_owned(),
        selectors: vec!["x".to_owned(), "y".to_owned(), "z".to_owned()],
    }];
    let Explanation::NoAgent { message, nearest } = explain(&index, "T", false, &sets) else {
        panic!("somebody fits")
    };
    assert_eq!(nearest[0].agent, "near");
    assert_eq!(nearest[0].missing, ["z"]);
    assert_eq!(nearest[1].missing, ["x", "y", "z"]);
    assert!(message.contains("near lacks z; far lacks x, y, z"), "{message}");
    let Explanation::NoAgent { message, .. } = explain(&index, "U", false, &[]) else {
        panic!("somebody fits")
    };
    assert!(message.contains("near does not run U"), "{message}");
    let nobody = explain(&Index::default(), "T", false, &[]);
    assert!(nobody.sentence().contains("no agent has registered"));
}
