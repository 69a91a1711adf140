//! The task queue.

use super::{Backend, open, task};
use crate::store::changes::Change;
use crate::store::{Acquire, Answered, Effect, StoreError, TaskStatus};
use serde_json::json;
use std::collections::BTreeSet;

pub(super) async fn life_of_a_task(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    s.enqueue(task("t1", "", "n1")).await.unwrap();
    s.enqueue(task("t2", "", "n2")).await.unwrap();
    assert!(matches!(s.enqueue(task("t1", "", "n1")).await, Err(StoreError::Conflict { .. })));
    let queued = s.queued_tasks(10).await.unwrap();
    assert_eq!(queued.iter().map(|row| row.task.id.as_str()).collect::<Vec<_>>(), ["t1", "t2"]);
    assert_eq!(queued[0].task, task("t1", "", "n1"), "a task comes back as it went in");
    assert_eq!(s.queued_tasks(1).await.unwrap().len(), 1);
    let Acquire::Assigned(row) = s.acquire("t1", "a", "i", 50).await.unwrap() else { panic!("not assigned") };
    assert_eq!((row.status, row.fence, row.assigned_at), (TaskStatus::Assigned, 1, Some(50)));
    assert_eq!(row.task, task("t1", "", "n1"));
    let Acquire::Assigned(again) = s.acquire("t1", "a", "i", 60).await.unwrap() else {
        panic!("not delivered again")
    };
    assert_eq!((again.fence, again.assigned_at), (1, Some(50)), "a second delivery changes nothing");
    assert_eq!(s.acquire("t1", "a", "j", 60).await.unwrap(), Acquire::NotYours);
    assert_eq!(s.acquire("t1", "b", "i", 60).await.unwrap(), Acquire::NotYours);
    assert_eq!(s.acquire("t9", "a", "i", 60).await.unwrap(), Acquire::NotYours);
    assert_eq!(s.tasks_of_agent("a").await.unwrap().len(), 1);
    assert_eq!(s.tasks_of_agent("b").await.unwrap(), []);
    assert_eq!(s.tasks_of_execution("").await.unwrap().len(), 2);
    let open_tasks = s.open_tasks().await.unwrap();
    assert!(open_tasks[0].0 < open_tasks[1].0 && open_tasks.iter().all(|(_, row)| row.task.data.is_empty()));
    assert!(
        !s.end_queued("t1", json!({"no": 1}), 70).await.unwrap(),
        "an assigned task is not ended this way"
    );
    assert!(s.end_queued("t2", json!({"no": 2}), 70).await.unwrap());
    assert!(!s.end_queued("t2", json!({"no": 3}), 71).await.unwrap());
    let ended = s.task("t2").await.unwrap().unwrap();
    assert_eq!(
        (ended.status, ended.result, ended.ended_at),
        (TaskStatus::Ended, Some(json!({"no": 2})), Some(70))
    );
    assert_eq!(s.task("t9").await.unwrap(), None);
    let mut ends = s.task_ends(vec!["t2".to_owned(), "t9".to_owned(), "t1".to_owned()]).await.unwrap();
    ends.sort_by(|one, other| one.task.id.cmp(&other.task.id));
    let told: Vec<_> =
        ends.iter().map(|row| (row.task.id.as_str(), row.agent_id.as_deref(), &row.result)).collect();
    assert_eq!(told, [("t1", Some("a"), &None), ("t2", None, &Some(json!({"no": 2})))]);
    assert!(ends.iter().all(|row| row.task.data.is_empty()));
}

pub(super) async fn one_winner(backend: &dyn Backend) {
    let o = open(backend).await;
    for n in 0..20 {
        o.store.enqueue(task(&format!("t{n}"), "", "n")).await.unwrap();
    }
    let mut tries = Vec::new();
    for agent in 0..8 {
        for n in 0..20 {
            let store = o.store.clone();
            tries.push(tokio::spawn(async move {
                let (id, agent) = (format!("t{n}"), format!("a{agent}"));
                let won =
                    matches!(store.acquire(&id, &agent, &agent, 1).await.unwrap(), Acquire::Assigned(_));
                won.then_some(id)
            }));
        }
    }
    let mut won = Vec::new();
    for tried in tries {
        won.extend(tried.await.unwrap());
    }
    assert_eq!(won.len(), 20, "each task has one winner");
    assert_eq!(won.iter().collect::<BTreeSet<_>>().len(), 20);
}

pub(super) async fn answers(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    s.enqueue(task("t1", "", "n")).await.unwrap();
    assert_eq!(s.answer("t1", "a", 0, json!(1), 1).await.unwrap(), Answered::Late, "not assigned yet");
    s.acquire("t1", "a", "i", 2).await.unwrap();
    assert_eq!(s.answer("t1", "b", 1, json!(2), 3).await.unwrap(), Answered::Late, "not the holder");
    assert_eq!(s.answer("t1", "a", 7, json!(3), 4).await.unwrap(), Answered::Late, "another fence");
    assert!(s.task("t1").await.unwrap().unwrap().result.is_none());
    let Answered::First(row) = s.answer("t1", "a", 1, json!({"x": "first"}), 5).await.unwrap() else {
        panic!("the holder's answer counts")
    };
    assert_eq!((row.status, row.ended_at), (TaskStatus::Ended, Some(5)));
    for n in 0..20 {
        assert_eq!(s.answer("t1", "a", 1, json!(n), 6).await.unwrap(), Answered::Late);
    }
    assert_eq!(s.answer("t9", "a", 1, json!(1), 6).await.unwrap(), Answered::Unknown);
    assert_eq!(s.task("t1").await.unwrap().unwrap().result, Some(json!({"x": "first"})));
    assert_eq!(s.acquire("t1", "a", "i", 7).await.unwrap(), Acquire::NotYours);
    // A client that knows no fences.
    s.enqueue(task("t2", "", "n")).await.unwrap();
    s.acquire("t2", "a", "i", 2).await.unwrap();
    assert!(matches!(s.answer("t2", "a", 0, json!(1), 5).await.unwrap(), Answered::First(_)));
}

pub(super) async fn checkpoints_and_progress(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    s.enqueue(task("t1", "", "n")).await.unwrap();
    assert!(matches!(s.checkpoint("t1", "a", 1, json!(1)).await, Err(StoreError::Conflict { .. })));
    s.acquire("t1", "a", "i", 1).await.unwrap();
    for doc in [json!({"k": 1}), json!({"k": 1}), json!({"k": 2}), json!({"k": 1})] {
        s.checkpoint("t1", "a", 1, doc).await.unwrap();
    }
    assert!(matches!(s.checkpoint("t1", "a", 2, json!(9)).await, Err(StoreError::Conflict { .. })));
    assert!(matches!(s.checkpoint("t1", "b", 1, json!(9)).await, Err(StoreError::Conflict { .. })));
    assert_eq!(s.checkpoints("t1").await.unwrap(), [json!({"k": 1}), json!({"k": 2}), json!({"k": 1})]);
    s.progress("t1", "b", json!(["wrong"])).await.unwrap();
    s.progress("t1", "a", json!(["one"])).await.unwrap();
    s.progress("t1", "a", json!(["two"])).await.unwrap();
    assert_eq!(s.task("t1").await.unwrap().unwrap().progress, Some(json!(["two"])));
    s.answer("t1", "a", 1, json!(1), 2).await.unwrap();
    s.progress("t1", "a", json!(["late"])).await.unwrap();
    assert_eq!(s.task("t1").await.unwrap().unwrap().progress, Some(json!(["two"])));
    assert!(matches!(s.checkpoint("t1", "a", 1, json!(9)).await, Err(StoreError::Conflict { .. })));
}

pub(super) async fn news(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    s.create_execution("e1", "p", None, "me", 1, Box::new(|_| Ok(json!({})))).await.unwrap();
    for id in ["t1", "t2", "t3"] {
        s.enqueue(task(id, "e1", id)).await.unwrap();
    }
    s.enqueue(task("alone", "", "n")).await.unwrap();
    s.acquire("alone", "a", "i", 1).await.unwrap();
    assert_eq!(s.news(10).await.unwrap(), [], "queued tasks, and those of no execution, are no news");
    s.acquire("t1", "a", "i", 1).await.unwrap();
    s.acquire("t2", "a", "i", 1).await.unwrap();
    s.answer("t2", "a", 1, json!({"done": true}), 2).await.unwrap();
    let ids = |rows: Vec<crate::store::TaskRow>| rows.into_iter().map(|row| row.task.id).collect::<Vec<_>>();
    assert_eq!(ids(s.news(10).await.unwrap()), ["t1", "t2"]);
    assert_eq!(ids(s.news(1).await.unwrap()), ["t1"]);
    let seen = |task: &str, status| Effect::Seen { task: task.to_owned(), status };
    let effects = vec![seen("t1", TaskStatus::Assigned), seen("t2", TaskStatus::Assigned)];
    s.transition("e1", 0, json!(1), json!({}).into(), effects, 3).await.unwrap();
    let rows = s.news(10).await.unwrap();
    assert_eq!(ids(rows.clone()), ["t2"], "its end is still to be told");
    assert_eq!(rows[0].result, Some(json!({"done": true})));
    s.transition("e1", 1, json!(2), json!({}).into(), vec![seen("t2", TaskStatus::Ended)], 4).await.unwrap();
    s.answer("t1", "a", 1, json!(1), 5).await.unwrap();
    assert_eq!(ids(s.news(10).await.unwrap()), ["t1"]);
    drop(o);
    let o = open(backend).await;
    assert_eq!(ids(o.store.news(10).await.unwrap()), ["t1"], "what was not taken note of is told again");
}

pub(super) async fn changes(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    let mut feed = o.changes.subscribe();
    s.create_execution("e1", "p", None, "me", 1, Box::new(|_| Ok(json!({})))).await.unwrap();
    s.transition("e1", 0, json!(1), json!({}).into(), vec![Effect::Enqueue(task("t1", "e1", "n"))], 2)
        .await
        .unwrap();
    s.acquire("t1", "a", "i", 3).await.unwrap();
    s.acquire("t1", "a", "i", 3).await.unwrap();
    s.answer("t1", "a", 1, json!(1), 4).await.unwrap();
    s.answer("t1", "a", 1, json!(1), 4).await.unwrap();
    let failed = s
        .transition("e1", 9, json!(1), json!({}).into(), vec![Effect::Enqueue(task("t2", "e1", "n"))], 2)
        .await;
    assert!(failed.is_err());
    let mut told = Vec::new();
    while let Ok(change) = feed.try_recv() {
        told.push(match change {
            Change::Queued { task, .. } => {
                assert!(task.data.is_empty());
                format!("queued {}", task.id)
            }
            Change::Assigned { task, agent, fence, .. } => format!("assigned {task} {agent} {fence}"),
            Change::Ended { task, execution } => format!("ended {task} {execution}"),
            Change::Execution { id, version, ended } => format!("execution {id} {version} {ended}"),
            other => format!("{other:?}"),
        });
    }
    let expected =
        ["execution e1 0 false", "queued t1", "execution e1 1 false", "assigned t1 a 1", "ended t1 e1"];
    assert_eq!(told, expected, "once each, in the order of commits, and nothing of what failed");
}
