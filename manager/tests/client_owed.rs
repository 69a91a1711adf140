//! `isAutoRejectEnabled` across a death of the manager: whatever transition it dies at, before or after the commit, older
//! approvals are rejected exactly when the newer one was approved, and once.

#![expect(clippy::unwrap_used, reason = "A test ends at the first fault.")]

mod client_faults;
mod client_support;
mod support;

use client_faults::{Death, MortalStore};
use client_support::custom;
use manager::clock::{Clock, SystemClock};
use manager::engine::{Engine, NotConfigured, Record, Running};
use manager::queue::Queue;
use manager::secrets::ManagerKey;
use manager::store::Store;
use manager::store::changes::Changes;
use manager::store::sqlite::SqliteStore;
use pipeline::entities::Snapshot;
use pipeline::machine::state::{Phase, Run, Status};
use pipeline::machine::{Actor, State, UserAction};
use pipeline::planner::{PlanOptions, plan};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const GATE: &str = "- step:
    identifier: gate
    name: gate
    type: HarnessApproval
    timeout: 1d
    spec:
      approvalMessage: go?
      isAutoRejectEnabled: true
      approvers: {userGroups: [ops], minimumCount: 1}
";
const NODE_END: &str = ".gate";

fn open(dir: &Path, changes: &Arc<Changes>) -> Arc<dyn Store> {
    let key = Arc::new(ManagerKey::from_bytes(&[7; 32]).unwrap());
    Arc::new(SqliteStore::open(&dir.join("manager.db"), key, changes.clone()).unwrap())
}

async fn create(store: &dyn Store, id: &str) {
    let execution = id.to_owned();
    let build = Box::new(move |sequence_id| {
        let options = PlanOptions {
            account: "default".into(),
            execution_id: execution,
            sequence_id,
            groups: ["ops".to_owned()].into_iter().collect(),
            ..PlanOptions::default()
        };
        let catalog = Snapshot { entities: vec![], secrets: vec![] };
        let plan = plan("p.yaml", &custom("p", "", GATE), &catalog, &options).unwrap();
        Ok(serde_json::to_value(Record::new(State::new(plan))).unwrap())
    });
    store.create_execution(id, "p", None, "me", SystemClock.wall(), build).await.unwrap();
}

async fn engine(store: &Arc<dyn Store>, changes: &Changes) -> (Engine, Running) {
    let clock = Arc::new(SystemClock);
    let queue = Arc::new(Queue::load(store.as_ref(), clock.clone()).await.unwrap());
    Engine::start(store.clone(), changes, queue, clock, Arc::new(NotConfigured))
}

async fn gate(store: &dyn Store, id: &str) -> Option<(String, Run)> {
    let snapshot = store.snapshot(id).await.unwrap().unwrap();
    let record: Record = serde_json::from_value(snapshot.state).unwrap();
    let mut runs = record.machine.runs.iter();
    runs.find(|(node, _)| node.ends_with(NODE_END)).map(|(node, run)| (node.clone(), run.clone()))
}

/// Waits for `condition` with a limit.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    executor_api::testing::until(what, Duration::from_secs(10), async || condition().await.then_some(()))
        .await;
}

fn actor() -> Actor {
    let email = "ann@example.com".to_owned();
    Actor { name: "ann".to_owned(), principal: email.clone(), email, groups: vec!["ops".to_owned()] }
}

/// Approves the third of four runs with a death in the `n`-th transition; says whether it died and how the gates end.
async fn run(n: u32, death: Death) -> (bool, Vec<(Status, usize)>) {
    const IDS: [&str; 4] = ["first", "second", "third", "fourth"];
    let dir = tempfile::tempdir().unwrap();
    let died;
    {
        let changes = Arc::new(Changes::default());
        let inner = open(dir.path(), &changes);
        for id in IDS {
            create(inner.as_ref(), id).await;
        }
        // Everybody waits before the store becomes mortal.
        let (healthy, running) = engine(&inner, &changes).await;
        healthy.resume_all().await.unwrap();
        running.stop().await;
        let mut node = String::new();
        for id in IDS {
            let (at, run) = gate(inner.as_ref(), id).await.unwrap();
            assert_eq!(run.phase, Phase::Approval);
            node = at;
        }
        let mortal = Arc::new(MortalStore::new(inner.clone(), n, death));
        let store: Arc<dyn Store> = mortal.clone();
        let (shaky, running) = engine(&store, &changes).await;
        let action = UserAction::Approve { inputs: BTreeMap::new(), comments: String::new() };
        let _taken_or_dead = shaky.act("third", &node, actor(), action).await;
        let inner = &inner;
        until("it died, or every older one is rejected", || async {
            let open = inner.open_executions().await.unwrap();
            mortal.is_dead() || open == ["fourth"]
        })
        .await;
        died = mortal.is_dead();
        running.stop().await;
        changes.close();
    }
    let changes = Arc::new(Changes::default());
    let store = open(dir.path(), &changes);
    let (again, running) = engine(&store, &changes).await;
    again.resume_all().await.unwrap();
    let approved = store.execution("third").await.unwrap().unwrap().ended;
    if approved {
        until("every older one is rejected", || async {
            store.open_executions().await.unwrap() == ["fourth"]
        })
        .await;
        until("nothing is owed any more", || async {
            store.facts("approval.reject-older/").await.unwrap().is_empty()
        })
        .await;
    }
    running.stop().await;
    let mut gates = Vec::new();
    for id in IDS {
        let (_, run) = gate(store.as_ref(), id).await.unwrap();
        gates.push((run.status, run.approval.map_or(0, |asked| asked.activities.len())));
    }
    changes.close();
    (died, gates)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_approvals_are_rejected_once_whenever_the_manager_dies() {
    use Status::{ApprovalRejected as Rejected, ApprovalWaiting as Waits, Success};
    let done = vec![(Rejected, 1), (Rejected, 1), (Success, 1), (Waits, 0)];
    let untouched = vec![(Waits, 0), (Waits, 0), (Waits, 0), (Waits, 0)];
    let mut deaths = 0;
    for death in [Death::Before, Death::After] {
        for n in 1.. {
            let (died, gates) = run(n, death).await;
            let expected = if n == 1 && matches!(death, Death::Before) { &untouched } else { &done };
            assert_eq!(&gates, expected, "death {n} {death:?}");
            if !died {
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths >= 6, "{deaths}");
}
