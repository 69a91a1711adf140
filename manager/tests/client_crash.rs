//! A manager that dies at any transition, before or after its commit, goes on after a restart and ends the same
//! (DESIGN D13): same statuses, each task made once, each answered task counted once.

#![expect(clippy::unwrap_used, reason = "A test ends at the first fault.")]

mod client_faults;
mod client_support;
mod support;

use client_faults::{Death, MortalStore};
use client_support::{ENTITIES, deployment, script};
use manager::clock::{Clock, SystemClock};
use manager::engine::{Engine, NotConfigured, Record};
use manager::queue::Queue;
use manager::secrets::ManagerKey;
use manager::store::changes::Changes;
use manager::store::sqlite::SqliteStore;
use manager::store::{Acquire, Store, TaskStatus};
use pipeline::entities::{CatalogEntity, Snapshot, parse_entities};
use pipeline::machine::State;
use pipeline::planner::{PlanOptions, plan};
use pipeline::view::execution_view;
use proto::failure::{Failure, FailureKind};
use proto::result::{StepResult, StepStatus};
use proto::task::StepTask;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const EXECUTION: &str = "execution-that-crashes";

/// What the agent did: node and attempt by task.
type Done = BTreeMap<String, String>;

fn first_state() -> Value {
    let catalog = Snapshot {
        entities: parse_entities("entities.yaml", ENTITIES)
            .unwrap()
            .into_iter()
            .map(CatalogEntity::from)
            .collect(),
        secrets: vec!["pem".to_owned()],
    };
    let steps = ["stop", "deploy", "start", "check"].map(|step| script(step, "true")).concat();
    let yaml = deployment("d", &steps, &script("undo", "back"));
    let options = PlanOptions {
        account: "default".into(),
        execution_id: EXECUTION.into(),
        sequence_id: 1,
        secret_token: 7,
        ..PlanOptions::default()
    };
    let plan = plan("d.yaml", &yaml, &catalog, &options).unwrap();
    serde_json::to_value(Record::new(State::new(plan))).unwrap()
}

fn open(dir: &Path, changes: &Arc<Changes>) -> Arc<dyn Store> {
    let key = Arc::new(ManagerKey::from_bytes(&[7; 32]).unwrap());
    Arc::new(SqliteStore::open(&dir.join("manager.db"), key, changes.clone()).unwrap())
}

/// The agent: takes what is queued, does it once, and answers; the answer is repeated until it is taken.
async fn agent(store: &dyn Store, done: &mut Done) -> Option<()> {
    let mut mine = store.tasks_of_agent("agent").await.ok()?;
    for row in store.queued_tasks(100).await.ok()? {
        if let Acquire::Assigned(row) =
            store.acquire(&row.task.id, "agent", "agent", SystemClock.wall()).await.ok()?
        {
            mine.push(*row);
        }
    }
    for row in mine {
        let task: StepTask = serde_json::from_str(&row.task.data).unwrap();
        // A real agent keeps its results until they are taken: a task it knows is answered again, not done again.
        done.entry(row.task.id.clone())
            .or_insert_with(|| format!("{}#{}", task.execution.node, task.execution.attempt));
        let bad = task.step.identifier.starts_with("check") && row.task.data.contains("\"h2\"");
        let failure = bad.then(|| Failure::new(FailureKind::RemoteFailed, "SSH-001", "exit code 7"));
        let result = StepResult {
            status: if bad { StepStatus::Failed } else { StepStatus::Success },
            failure,
            outputs: BTreeMap::new(),
            undo: Some(json!({ "of": task.execution.node })),
            units: vec![],
            learned_host_keys: vec![],
            agent: "agent".into(),
            fence: row.fence,
            notices: vec![],
        };
        let result = serde_json::to_value(result).unwrap();
        store.answer(&row.task.id, "agent", row.fence, result, SystemClock.wall()).await.ok()?;
    }
    Some(())
}

/// Runs until the execution has ended or the store has died; says whether it has ended.
async fn live(store: Arc<dyn Store>, changes: &Changes, is_dead: impl Fn() -> bool, done: &mut Done) -> bool {
    // A store that dies while the queue is read dies as it does later.
    let Ok(queue) = Queue::load(store.as_ref(), Arc::new(SystemClock)).await else {
        assert!(is_dead(), "the queue cannot be read");
        return false;
    };
    let (engine, running) = Engine::start(
        store.clone(),
        changes,
        Arc::new(queue),
        Arc::new(SystemClock),
        Arc::new(NotConfigured),
    );
    let _resumed_or_dead = engine.resume_all().await;
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    let ended = loop {
        if is_dead() {
            break false;
        }
        if store.execution(EXECUTION).await.is_ok_and(|row| row.unwrap().ended) {
            break true;
        }
        assert!(tokio::time::Instant::now() < limit, "neither ended nor died: {done:?}");
        let mut versions = engine.subscribe(EXECUTION);
        agent(store.as_ref(), done).await;
        // Whatever the engine does next is told by a new version; a dead one says nothing more.
        let _said_or_silent = tokio::time::timeout(Duration::from_millis(20), versions.changed()).await;
    };
    running.stop().await;
    ended
}

/// The end of a run, without what differs from run to run.
async fn end_of(store: &dyn Store) -> Value {
    let snapshot = store.snapshot(EXECUTION).await.unwrap().unwrap();
    let record: Record = serde_json::from_value(snapshot.state).unwrap();
    assert!(record.open.is_empty(), "{:?}", record.open);
    let mut view = serde_json::to_value(execution_view(&record.machine, None)).unwrap();
    without_times(&mut view);
    view
}

fn without_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in ["startedAt", "endedAt", "durationMs"] {
                map.remove(key);
            }
            map.values_mut().for_each(without_times);
        }
        Value::Array(list) => list.iter_mut().for_each(without_times),
        _ => {}
    }
}

/// One run with a death in the `n`-th transition; `None` when it ended before.
async fn run(n: u32, death: Death) -> (bool, Value, Done) {
    let dir = tempfile::tempdir().unwrap();
    let mut done = Done::new();
    let died = {
        let changes = Arc::new(Changes::default());
        let inner = open(dir.path(), &changes);
        let build = Box::new(|_| Ok(first_state()));
        inner.create_execution(EXECUTION, "d", None, "me", SystemClock.wall(), build).await.unwrap();
        let mortal = Arc::new(MortalStore::new(inner, n, death));
        let ended = live(mortal.clone(), &changes, || mortal.is_dead(), &mut done).await;
        changes.close();
        !ended
    };
    let changes = Arc::new(Changes::default());
    let store = open(dir.path(), &changes);
    assert!(live(store.clone(), &changes, || false, &mut done).await);
    for task in done.keys() {
        assert_eq!(store.task(task).await.unwrap().unwrap().status, TaskStatus::Ended);
    }
    let end = end_of(store.as_ref()).await;
    changes.close();
    (died, end, done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_at_any_transition_changes_nothing_about_the_end() {
    let (died, expected, work) = run(u32::MAX, Death::Before).await;
    assert!(!died);
    assert_eq!(expected["status"], "Failed");
    assert_eq!(expected["rolledBack"], true, "{expected:#}");
    assert_eq!(work.len(), 10, "four steps and undo on two hosts: {work:?}");
    let mut deaths = 0;
    for death in [Death::Before, Death::After] {
        for n in 1.. {
            let (died, end, done) = run(n, death).await;
            assert_eq!(end, expected, "death {n} {death:?}");
            assert_eq!(done, work, "each task once, under the same id: death {n} {death:?}");
            if !died {
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths > 20, "{deaths}");
}
