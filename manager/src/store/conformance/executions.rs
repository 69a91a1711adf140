//! Executions: transitions, effects, timers.

use super::{Backend, open, task};
use crate::store::{DueTimer, Effect, NextState, Part, StoreError, TaskStatus};
use serde_json::json;

pub(super) async fn life_of_an_execution(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    for (n, pipeline) in ["p", "p", "q"].into_iter().enumerate() {
        let id = format!("e{n}");
        let build = Box::new(|sequence: u64| Ok(json!({ "sequence": sequence })));
        let row = s.create_execution(&id, pipeline, (n == 1).then_some(60), "me", 10, build).await.unwrap();
        assert_eq!((row.id.as_str(), row.status.as_str(), row.ended), (id.as_str(), "Running", false));
    }
    let second = s.snapshot("e1").await.unwrap().unwrap();
    assert_eq!((second.version, second.state), (0, json!({"sequence": 2})));
    assert_eq!(
        s.snapshot("e2").await.unwrap().unwrap().state,
        json!({"sequence": 1}),
        "each pipeline counts alone"
    );
    let again = s.create_execution("e1", "p", None, "me", 10, Box::new(|_| Ok(json!(1)))).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })));
    let failed = s.create_execution("e9", "p", None, "me", 10, Box::new(|_| Err("no".to_owned()))).await;
    assert!(matches!(failed, Err(StoreError::Backend(text)) if text.contains("no")));
    assert_eq!(s.execution("e9").await.unwrap(), None);
    let next = s.create_execution("e3", "p", None, "me", 11, Box::new(|_| Ok(json!({})))).await.unwrap();
    assert_eq!(next.sequence_id, 3, "a failed creation uses no number");
    let events = json!([{"ev": 0}, {"ev": 1}]);
    s.transition("e0", 0, events, json!({"st": 1}).into(), vec![], 20).await.unwrap();
    let finish = Effect::Finish { status: "Success".to_owned() };
    s.transition("e0", 1, json!({"ev": 2}), json!({"st": 2}).into(), vec![finish], 30).await.unwrap();
    let row = s.execution("e0").await.unwrap().unwrap();
    assert_eq!((row.status.as_str(), row.ended, row.ended_at), ("Success", true, Some(30)));
    assert_eq!(s.execution("e1").await.unwrap().unwrap().rehearsal, Some(60));
    assert_eq!(s.events("e0").await.unwrap(), [json!({"ev": 0}), json!({"ev": 1}), json!({"ev": 2})]);
    assert_eq!(s.open_executions().await.unwrap(), ["e1", "e2", "e3"]);
    let ids = |rows: Vec<crate::store::ExecutionRow>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(s.executions(None, 2).await.unwrap()), ["e3", "e2"]);
    assert_eq!(ids(s.executions(Some("p"), 9).await.unwrap()), ["e3", "e1", "e0"]);
}

pub(super) async fn parts_of_a_state(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    let first = json!({ "runs": { "a": { "n": 1 }, "b": null }, "small": 1 });
    let build = first.clone();
    s.create_execution("e", "p", None, "me", 1, Box::new(|_| Ok(build))).await.unwrap();
    let parts = vec![
        Part::set(&["runs", "a.b/c"], json!({ "null": null })),
        Part::set(&["runs", "a", "n"], json!(2)),
        Part::remove(&["runs", "b"]),
        Part::push(&["runs", "a", "list"], vec![json!(1)]),
        Part::push(&["runs", "a", "list"], vec![json!(2), json!([3])]),
    ];
    s.transition("e", 0, json!(1), NextState::Parts(parts), vec![], 2).await.unwrap();
    let small = vec![Part::set(&["small"], json!(null)), Part::remove(&["absent"])];
    s.transition("e", 1, json!(2), NextState::Parts(small.clone()), vec![], 3).await.unwrap();
    let stale = s.transition("e", 1, json!(2), NextState::Parts(small), vec![], 3).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })));
    let snapshot = s.snapshot("e").await.unwrap().unwrap();
    let expected =
        json!({ "runs": { "a": { "n": 2, "list": [1, 2, [3]] }, "a.b/c": { "null": null } }, "small": null });
    assert_eq!((snapshot.version, snapshot.state), (2, expected));
    s.transition("e", 2, json!(3), first.clone().into(), vec![], 4).await.unwrap();
    let snapshot = s.snapshot("e").await.unwrap().unwrap();
    assert_eq!((snapshot.version, snapshot.state), (3, first), "earlier parts are gone");
    let lost = vec![Part::set(&["nothing", "below"], json!(1))];
    s.transition("e", 3, json!(4), NextState::Parts(lost), vec![], 5).await.unwrap();
    assert!(matches!(s.snapshot("e").await, Err(StoreError::Backend(_))), "damage is told, not guessed over");
}

pub(super) async fn effects_are_atomic(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    s.create_execution("e", "p", None, "me", 1, Box::new(|_| Ok(json!({"v": 0})))).await.unwrap();
    s.enqueue(task("taken", "e", "x")).await.unwrap();
    // The second task's id exists already: nothing of the transition may stay.
    let effects = vec![
        Effect::SetTimer { timer: "a".to_owned(), at: 9 },
        Effect::Enqueue(task("fresh", "e", "n")),
        Effect::Enqueue(task("taken", "e", "n")),
    ];
    assert!(s.transition("e", 0, json!(1), json!({"v": 1}).into(), effects, 2).await.is_err());
    let snapshot = s.snapshot("e").await.unwrap().unwrap();
    assert_eq!((snapshot.version, snapshot.state), (0, json!({"v": 0})));
    assert_eq!(s.task("fresh").await.unwrap(), None);
    assert_eq!(s.next_timer().await.unwrap(), None);
    assert_eq!(s.events("e").await.unwrap().len(), 0);
    // Neighbours of a failing operation are not touched by it.
    let (bad, good) = tokio::join!(
        s.transition("e", 7, json!(1), json!({"v": 7}).into(), vec![], 2),
        s.transition(
            "e",
            0,
            json!(1),
            json!({"v": 1}).into(),
            vec![Effect::Enqueue(task("fresh", "e", "n"))],
            2
        ),
    );
    assert!(matches!(bad, Err(StoreError::Conflict { .. })));
    good.unwrap();
    assert!(s.task("fresh").await.unwrap().is_some());
    let unknown = s.transition("nobody", 0, json!(1), json!(1).into(), vec![], 2).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}

pub(super) async fn one_transition_wins(backend: &dyn Backend) {
    let o = open(backend).await;
    o.store.create_execution("e", "p", None, "me", 1, Box::new(|_| Ok(json!({})))).await.unwrap();
    let tries: Vec<_> = (0..16)
        .map(|n| {
            let store = o.store.clone();
            tokio::spawn(async move {
                store.transition("e", 0, json!(n), json!({ "by": n }).into(), vec![], 2).await
            })
        })
        .collect();
    let mut won = 0;
    for tried in tries {
        match tried.await.unwrap() {
            Ok(()) => won += 1,
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(won, 1);
    let snapshot = o.store.snapshot("e").await.unwrap().unwrap();
    assert_eq!(snapshot.version, 1);
    assert_eq!(o.store.events("e").await.unwrap(), [snapshot.state["by"].clone()]);
}

pub(super) async fn timers(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    for id in ["e1", "e2"] {
        s.create_execution(id, "p", None, "me", 1, Box::new(|_| Ok(json!({})))).await.unwrap();
    }
    let set = |timer: &str, at| Effect::SetTimer { timer: timer.to_owned(), at };
    s.transition("e1", 0, json!(1), json!({}).into(), vec![set("a", 10), set("b", 20)], 2).await.unwrap();
    s.transition("e2", 0, json!(1), json!({}).into(), vec![set("a", 5)], 2).await.unwrap();
    assert_eq!(s.next_timer().await.unwrap(), Some(5));
    let due = |execution: &str, timer: &str, at| DueTimer {
        execution_id: execution.to_owned(),
        timer: timer.to_owned(),
        at,
    };
    assert_eq!(s.due_timers(10).await.unwrap(), [due("e2", "a", 5), due("e1", "a", 10)]);
    let clear = Effect::ClearTimer { timer: "a".to_owned() };
    s.transition("e1", 1, json!(2), json!({}).into(), vec![clear, set("b", 15)], 3).await.unwrap();
    assert_eq!(
        s.due_timers(99).await.unwrap(),
        [due("e2", "a", 5), due("e1", "b", 15)],
        "an equal id replaces"
    );
    let finish = Effect::Finish { status: "Aborted".to_owned() };
    s.transition("e2", 1, json!(2), json!({}).into(), vec![finish], 3).await.unwrap();
    assert_eq!(s.due_timers(99).await.unwrap(), [due("e1", "b", 15)], "an ended execution has none");
}

pub(super) async fn cancels(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    s.create_execution("e", "p", None, "me", 1, Box::new(|_| Ok(json!({})))).await.unwrap();
    s.enqueue(task("queued", "e", "n1")).await.unwrap();
    s.enqueue(task("held", "e", "n2")).await.unwrap();
    s.acquire("held", "a", "i", 2).await.unwrap();
    let cancel = |node: &str, reason: &str| Effect::CancelTask {
        node: node.to_owned(),
        attempt: 1,
        reason: reason.to_owned(),
    };
    let effects = vec![cancel("n1", "User"), cancel("n2", "User"), cancel("n3", "User")];
    s.transition("e", 0, json!(1), json!({}).into(), effects, 3).await.unwrap();
    let queued = s.task("queued").await.unwrap().unwrap();
    assert_eq!(
        (queued.status, queued.result, queued.abort.as_deref()),
        (TaskStatus::Ended, None, Some("User"))
    );
    let held = s.task("held").await.unwrap().unwrap();
    assert_eq!((held.status, held.abort.as_deref()), (TaskStatus::Assigned, Some("User")));
    assert_eq!(s.tasks_of_agent("a").await.unwrap()[0].abort.as_deref(), Some("User"), "the agent is told");
    assert!(matches!(s.acquire("held", "a", "i", 4).await.unwrap(), crate::store::Acquire::NotYours));
    // A second reason does not replace the first.
    s.transition("e", 1, json!(2), json!({}).into(), vec![cancel("n2", "Deadline")], 5).await.unwrap();
    assert_eq!(s.task("held").await.unwrap().unwrap().abort.as_deref(), Some("User"));
    assert!(matches!(
        s.answer("held", "a", 1, json!({"status": "Aborted"}), 6).await.unwrap(),
        crate::store::Answered::First(_)
    ));
    let news: Vec<String> = s.news(9).await.unwrap().into_iter().map(|row| row.task.id).collect();
    assert_eq!(news, ["queued", "held"]);
}

pub(super) async fn durable(backend: &dyn Backend) {
    let o = open(backend).await;
    o.store.create_execution("e", "p", None, "me", 1, Box::new(|_| Ok(json!({"s": "ü"})))).await.unwrap();
    let writes: Vec<_> = (0..50)
        .map(|n| {
            let store = o.store.clone();
            tokio::spawn(async move { store.enqueue(task(&format!("t{n}"), "e", "n")).await })
        })
        .collect();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    let effects = vec![Effect::SetTimer { timer: "a".to_owned(), at: 9 }];
    o.store.transition("e", 0, json!(1), json!({"s": 2}).into(), effects, 2).await.unwrap();
    o.store.acquire("t7", "a", "i", 3).await.unwrap();
    o.store.checkpoint("t7", "a", 1, json!({"c": 1})).await.unwrap();
    drop(o);
    let o = open(backend).await;
    let s = &o.store;
    assert_eq!(s.queued_tasks(99).await.unwrap().len(), 49);
    assert_eq!(s.snapshot("e").await.unwrap().unwrap().state, json!({"s": 2}));
    assert_eq!(s.next_timer().await.unwrap(), Some(9));
    assert_eq!(s.checkpoints("t7").await.unwrap(), [json!({"c": 1})]);
    assert_eq!(s.tasks_of_agent("a").await.unwrap()[0].task.id, "t7");
    let again = s.create_execution("e2", "p", None, "me", 4, Box::new(|_| Ok(json!({})))).await.unwrap();
    assert_eq!(again.sequence_id, 2, "numbers go on");
}

/// What a transition owes to others is written with it or not at all, and outlives its execution.
pub(super) async fn owed(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    s.create_execution("e", "p", None, "me", 1, Box::new(|_| Ok(json!({})))).await.unwrap();
    let owe = |value: &str| Effect::PutFact { name: "owed/e".to_owned(), value: value.to_owned() };
    let stale = s.transition("e", 7, json!(1), json!({}).into(), vec![owe("1")], 2).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })));
    assert_eq!(s.facts("owed/").await.unwrap(), []);
    let finish = Effect::Finish { status: "Success".to_owned() };
    s.transition("e", 0, json!(1), json!({}).into(), vec![owe("2"), finish], 2).await.unwrap();
    drop(o);
    let o = open(backend).await;
    assert_eq!(o.store.facts("owed/").await.unwrap(), [("owed/e".to_owned(), "2".to_owned())]);
}
