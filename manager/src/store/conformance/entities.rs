//! Entities, secrets, facts, credentials, host keys.

use super::{Backend, open};
use crate::store::{Applied, Credential, Entity, StoreError};

fn entity(kind: &str, scope: &str, id: &str, yaml: &str) -> Entity {
    Entity {
        kind: kind.to_owned(),
        scope: scope.to_owned(),
        id: id.to_owned(),
        name: format!("Name of {id}"),
        yaml: yaml.to_owned(),
        updated_at: 1,
    }
}

pub(super) async fn entities(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    let one = entity("service", "", "my service/ü", "a: 1\n");
    assert_eq!(s.apply_entity(one.clone()).await.unwrap(), Applied::Created);
    assert_eq!(s.apply_entity(one.clone()).await.unwrap(), Applied::Unchanged);
    let changed = Entity { yaml: "a: 2\n".to_owned(), updated_at: 2, ..one.clone() };
    assert_eq!(s.apply_entity(changed.clone()).await.unwrap(), Applied::Changed);
    assert_eq!(s.entity("service", "", "my service/ü").await.unwrap(), Some(changed.clone()));
    let scoped = entity("service", "org/p", "my service/ü", "a: 3\n");
    assert_eq!(s.apply_entity(scoped.clone()).await.unwrap(), Applied::Created);
    let pipe = entity("pipeline", "", "p", "");
    s.apply_entity(pipe.clone()).await.unwrap();
    assert_eq!(s.entities("").await.unwrap(), [pipe.clone(), changed.clone(), scoped.clone()]);
    assert_eq!(s.entities("pipeline").await.unwrap(), [pipe]);
    assert_eq!(s.entities("connector").await.unwrap(), []);
    s.delete_entity("service", "", "my service/ü").await.unwrap();
    assert!(matches!(s.delete_entity("service", "", "my service/ü").await, Err(StoreError::NotFound { .. })));
    assert_eq!(s.entities("service").await.unwrap(), [scoped]);
}

pub(super) async fn secrets_and_facts(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    assert_eq!(s.secret("a").await.unwrap(), None);
    assert_eq!(s.put_secret("b", vec![1], 1).await.unwrap(), Applied::Created);
    assert_eq!(s.put_secret("a", vec![2, 0, 255], 2).await.unwrap(), Applied::Created);
    assert_eq!(s.put_secret("b", vec![3], 3).await.unwrap(), Applied::Changed);
    assert_eq!(s.secret("a").await.unwrap(), Some(vec![2, 0, 255]));
    assert_eq!(s.secrets().await.unwrap(), [("a".to_owned(), 2), ("b".to_owned(), 3)]);
    s.delete_secret("a").await.unwrap();
    assert!(matches!(s.delete_secret("a").await, Err(StoreError::NotFound { .. })));
    assert_eq!(s.get_fact("x").await.unwrap(), None);
    s.put_fact("x", "1").await.unwrap();
    s.put_fact("x", "2").await.unwrap();
    assert_eq!(s.get_fact("x").await.unwrap().as_deref(), Some("2"));
    // A prefix is text: none of its characters stands for others.
    for (name, value) in [("o_e/b", "4"), ("o_e/a", "3"), ("ole/c", "5"), ("o_e", "6")] {
        s.put_fact(name, value).await.unwrap();
    }
    let row = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(s.facts("o_e/").await.unwrap(), [row("o_e/a", "3"), row("o_e/b", "4")]);
    assert_eq!(s.facts("none/").await.unwrap(), []);
    s.drop_fact("o_e/a").await.unwrap();
    s.drop_fact("o_e/a").await.unwrap();
    assert_eq!(s.facts("o_e/").await.unwrap(), [row("o_e/b", "4")]);
}

fn credential(kind: &str, name: &str, hash: &str) -> Credential {
    Credential {
        kind: kind.to_owned(),
        name: name.to_owned(),
        hash: hash.to_owned(),
        sealed: vec![9, 9],
        owner: "me".to_owned(),
        created_at: 4,
        revoked_at: None,
        role: "viewer".to_owned(),
        user: "u@example.com".to_owned(),
    }
}

pub(super) async fn credentials(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    let first = credential("token", "ci", "h1");
    s.add_credential(first.clone()).await.unwrap();
    assert!(matches!(
        s.add_credential(credential("token", "ci", "h2")).await,
        Err(StoreError::Conflict { .. })
    ));
    s.add_credential(credential("apikey", "ci", "h3")).await.unwrap();
    assert_eq!(s.credential_by_hash("token", "h1").await.unwrap(), Some(first.clone()));
    assert_eq!(s.credential_by_hash("apikey", "h1").await.unwrap(), None);
    s.revoke_credential("token", "ci", 7).await.unwrap();
    assert!(matches!(s.revoke_credential("token", "ci", 8).await, Err(StoreError::NotFound { .. })));
    // Revoked rows stay, and the name is free again.
    let revoked = Credential { revoked_at: Some(7), ..first };
    assert_eq!(s.credential_by_hash("token", "h1").await.unwrap(), Some(revoked.clone()));
    let second = credential("token", "ci", "h4");
    s.add_credential(second.clone()).await.unwrap();
    assert_eq!(s.credentials("token").await.unwrap(), [revoked, second]);
}

pub(super) async fn host_keys(backend: &dyn Backend) {
    let o = open(backend).await;
    let s = &o.store;
    assert_eq!(s.learn_host_key("h:22", "ssh-ed25519 A", 1).await.unwrap(), Applied::Created);
    assert_eq!(s.learn_host_key("h:22", "ssh-ed25519 A", 2).await.unwrap(), Applied::Unchanged);
    assert!(matches!(s.learn_host_key("h:22", "ssh-ed25519 B", 3).await, Err(StoreError::Conflict { .. })));
    s.learn_host_key("g:22", "ssh-ed25519 C", 4).await.unwrap();
    let row = |host: &str, key: &str, at| (host.to_owned(), key.to_owned(), at);
    assert_eq!(s.host_keys(Some("h:22")).await.unwrap(), [row("h:22", "ssh-ed25519 A", 1)]);
    s.accept_host_key("h:22", "ssh-ed25519 B", 5).await.unwrap();
    assert_eq!(
        s.host_keys(None).await.unwrap(),
        [row("g:22", "ssh-ed25519 C", 4), row("h:22", "ssh-ed25519 B", 5)]
    );
    s.forget_host_key("h:22").await.unwrap();
    assert!(matches!(s.forget_host_key("h:22").await, Err(StoreError::NotFound { .. })));
}
