//! Agents and their identity.

use super::{Backend, open};
use crate::store::Agent;
use std::collections::BTreeSet;

fn agent(id: &str, instance: &str, host: &str, ip: &str) -> Agent {
    Agent {
        id: id.to_owned(),
        instance_id: instance.to_owned(),
        name: "zone".to_owned(),
        host_name: host.to_owned(),
        ip: ip.to_owned(),
        version: "1".to_owned(),
        tags: vec!["b".to_owned(), "a".to_owned()],
        task_types: BTreeSet::from(["T".to_owned()]),
        extended: !instance.is_empty(),
        public_key: String::new(),
        capacity: 4,
        busy: 1,
        last_heartbeat: 77,
        gone: false,
    }
}

pub(super) async fn agents(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    let foreign = agent("1", "", "h", "10.0.0.1");
    let ours = agent("2", "i-2", "h", "10.0.0.1");
    s.put_agent(foreign.clone()).await.unwrap();
    s.put_agent(ours.clone()).await.unwrap();
    assert_eq!(s.agent("1").await.unwrap(), Some(foreign.clone()));
    // An instance id is the whole identity; host and address are that of clients without one.
    assert_eq!(s.find_agent("i-2", "other", "other").await.unwrap(), Some(ours.clone()));
    assert_eq!(s.find_agent("", "h", "10.0.0.1").await.unwrap(), Some(foreign.clone()));
    assert_eq!(s.find_agent("", "h", "10.0.0.2").await.unwrap(), None);
    assert_eq!(s.find_agent("i-3", "h", "10.0.0.1").await.unwrap(), None);
    let gone = Agent { gone: true, ..foreign };
    s.put_agent(gone.clone()).await.unwrap();
    assert_eq!(s.agents().await.unwrap(), [gone.clone(), ours.clone()]);
    drop(o);
    let o = open(backend).await;
    assert_eq!(o.store.agents().await.unwrap(), [gone, ours]);
}
