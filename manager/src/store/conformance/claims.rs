//! Queues for infrastructures.

use super::{Backend, open};
use crate::store::changes::Change;
use crate::store::{Claim, Effect};
use serde_json::json;

fn claim(node: &str, key: &str) -> Effect {
    Effect::Claim { node: node.to_owned(), key: key.to_owned() }
}

fn release(node: &str) -> Effect {
    Effect::Release { node: node.to_owned() }
}

pub(super) async fn queues(backend: &dyn Backend) {
    let o = open(backend).await;
    for id in ["e1", "e2"] {
        o.store.create_execution(id, "p", None, "me", 1, Box::new(|_| Ok(json!({})))).await.unwrap();
    }
    let mut feed = o.changes.subscribe();
    let mut held = || {
        let mut held = Vec::new();
        while let Ok(change) = feed.try_recv() {
            if let Change::Held { execution } = change {
                held.push(execution);
            }
        }
        held
    };
    let claims = async |store: &std::sync::Arc<dyn crate::store::Store>, key: &str| {
        let queue: Vec<Claim> = store.claims(key).await.unwrap();
        queue.into_iter().map(|c| format!("{}/{}@{}", c.execution_id, c.node, c.at)).collect::<Vec<_>>()
    };
    let s = &o.store;
    s.transition("e1", 0, json!(1), json!({}).into(), vec![claim("a", "k"), claim("x", "other")], 5)
        .await
        .unwrap();
    assert_eq!(held(), ["e1", "e1"]);
    s.transition("e2", 0, json!(1), json!({}).into(), vec![claim("a", "k")], 6).await.unwrap();
    assert_eq!(held(), ["e1"], "the first one holds it");
    // The same again keeps its place; another stage of the holder stands behind, and the holder holds it all the same.
    let again = vec![claim("a", "k"), claim("b", "k")];
    s.transition("e1", 1, json!(1), json!({}).into(), again, 7).await.unwrap();
    assert_eq!(claims(s, "k").await, ["e1/a@5", "e2/a@6", "e1/b@7"]);
    held();
    s.transition("e1", 2, json!(1), json!({}).into(), vec![release("a")], 8).await.unwrap();
    assert_eq!(held(), ["e2"], "the next in the order of arrival");
    s.transition("e1", 3, json!(1), json!({}).into(), vec![release("a"), release("never")], 9).await.unwrap();
    assert!(held().is_empty(), "what is not there is given back without a word");
    // A transition that is refused claims nothing.
    assert!(s.transition("e1", 0, json!(1), json!({}).into(), vec![claim("c", "k")], 9).await.is_err());
    assert_eq!(claims(s, "k").await, ["e2/a@6", "e1/b@7"]);
    drop(o);
    let o = open(backend).await;
    let s = &o.store;
    assert_eq!(claims(s, "k").await, ["e2/a@6", "e1/b@7"], "it outlives the process");
    let finish = Effect::Finish { status: "Aborted".to_owned() };
    s.transition("e2", 1, json!(1), json!({}).into(), vec![finish], 10).await.unwrap();
    assert_eq!(claims(s, "k").await, ["e1/b@7"], "an execution that ended holds nothing");
}
