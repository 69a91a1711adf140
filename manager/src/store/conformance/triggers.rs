//! Events of triggers.

use super::{Backend, open};
use crate::store::{KEPT_EVENTS, MAX_OPEN_EVENTS, StoreError, TriggerEvent};
use serde_json::json;

fn event(id: &str, pipeline: &str, trigger: &str) -> TriggerEvent {
    TriggerEvent {
        id: id.to_owned(),
        pipeline: pipeline.to_owned(),
        trigger: trigger.to_owned(),
        at: 7,
        done: false,
        doc: json!({ "payload": { "of": id } }),
    }
}

fn ids(events: &[TriggerEvent]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

pub(super) async fn life_of_an_event(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    let (first, second, third) = (event("a", "p", "t"), event("b", "p", "u"), event("c", "q", "t"));
    for one in [&first, &second, &third] {
        assert!(s.add_trigger_event(one.clone()).await.unwrap());
    }
    // The same event again: nothing is added, and what is known stays as it is.
    let again = TriggerEvent { doc: json!({}), ..first.clone() };
    assert!(!s.add_trigger_event(again).await.unwrap());
    assert_eq!(s.trigger_event("a").await.unwrap(), Some(first.clone()));
    assert_eq!(s.trigger_event("z").await.unwrap(), None);
    assert_eq!(ids(&s.open_trigger_events(10).await.unwrap()), ["a", "b", "c"], "oldest first");
    assert_eq!(ids(&s.open_trigger_events(2).await.unwrap()), ["a", "b"]);
    assert_eq!(ids(&s.trigger_events(("", ""), 10).await.unwrap()), ["c", "b", "a"], "newest first");
    assert_eq!(ids(&s.trigger_events(("p", ""), 10).await.unwrap()), ["b", "a"]);
    assert_eq!(ids(&s.trigger_events(("", "t"), 1).await.unwrap()), ["c"]);
    assert_eq!(ids(&s.trigger_events(("p", "t"), 10).await.unwrap()), ["a"]);
    let done = TriggerEvent { doc: json!({ "results": [1] }), ..second.clone() };
    s.finish_trigger_event(done.clone()).await.unwrap();
    let done = TriggerEvent { done: true, ..done };
    assert_eq!(s.trigger_event("b").await.unwrap(), Some(done.clone()));
    assert_eq!(ids(&s.open_trigger_events(10).await.unwrap()), ["a", "c"]);
    assert!(!s.add_trigger_event(second).await.unwrap(), "an id stays known when it is done");
    drop(o);
    let o = open(backend).await;
    assert_eq!(o.store.trigger_event("b").await.unwrap(), Some(done));
    assert_eq!(ids(&o.store.open_trigger_events(10).await.unwrap()), ["a", "c"]);
}

/// Neither what waits nor what is done grows without end, and what waits is never thrown away.
pub(super) async fn bounds(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    let done = |id: &str| TriggerEvent { done: true, ..event(id, "p", "t") };
    assert!(s.add_trigger_event(done("oldest")).await.unwrap());
    let adding = (0..KEPT_EVENTS).map(|n| s.add_trigger_event(done(&format!("d{n}"))));
    for added in futures::future::join_all(adding).await {
        assert!(added.unwrap());
    }
    assert!(s.add_trigger_event(done("newest")).await.unwrap());
    s.add_trigger_event(event("other", "p", "u")).await.unwrap();
    let kept = s.trigger_events(("p", "t"), u32::MAX).await.unwrap();
    assert_eq!(kept.len(), usize::try_from(KEPT_EVENTS).unwrap());
    assert_eq!(ids(&kept).first(), Some(&"newest"));
    assert!(s.trigger_event("oldest").await.unwrap().is_none());
    assert!(s.trigger_event("other").await.unwrap().is_some(), "each trigger has its own number");
    let waiting = (1..MAX_OPEN_EVENTS).map(|n| s.add_trigger_event(event(&format!("w{n}"), "p", "w")));
    for added in futures::future::join_all(waiting).await {
        assert!(added.unwrap());
    }
    let full = s.add_trigger_event(event("one-too-many", "p", "w")).await;
    assert!(matches!(full, Err(StoreError::Conflict { .. })), "{full:?}");
    assert!(s.trigger_event("one-too-many").await.unwrap().is_none());
    let noted = TriggerEvent { done: true, ..event("noted", "p", "x") };
    assert!(s.add_trigger_event(noted).await.unwrap(), "what need not wait is still written down");
    s.finish_trigger_event(event("w1", "p", "w")).await.unwrap();
    assert!(s.add_trigger_event(event("one-more", "p", "w")).await.unwrap());
}
