//! What a step would change, as one canonical text: the answer of `plan`, and what K8sDiff shows.

use crate::apply::{Definitions, Options, would_be};
use crate::error::Fault;
use crate::objects::{Change, Object, diff, sort};
use crate::release::Item;
use crate::session::Session;
use executor_api::{Plan, StepError};
use futures::StreamExt as _;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The changes of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// One block for each object that changes, in the order of the apply.
    pub(crate) text: String,
    pub(crate) created: usize,
    pub(crate) changed: usize,
    pub(crate) deleted: usize,
    pub(crate) same: usize,
}

impl Changes {
    /// One line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} to create, {} to change, {} to delete, {} unchanged",
            self.created, self.changed, self.deleted, self.same
        )
    }

    /// As the answer of `plan`.
    pub(crate) fn plan(self) -> Plan {
        let text = format!("{}{}\n", self.text, self.summary());
        let hash = hex::encode(Sha256::digest(text.as_bytes()));
        Plan::Diff { text, hash }
    }

    fn add(&mut self, change: Change, text: &str) {
        match change {
            Change::Create => self.created += 1,
            Change::Update => self.changed += 1,
            Change::Delete => self.deleted += 1,
            Change::None => self.same += 1,
        }
        self.text.push_str(text);
    }

    /// Adds the changes of another set that the same step applies.
    pub(crate) fn absorb(&mut self, more: Changes) {
        self.text.push_str(&more.text);
        self.created += more.created;
        self.changed += more.changed;
        self.deleted += more.deleted;
        self.same += more.same;
    }

    /// Adds objects that would be deleted.
    pub(crate) async fn deletions(&mut self, session: &Session, items: &[Item]) -> Result<(), StepError> {
        for item in items {
            let Some(path) = session.path_of(&item.reference) else { continue };
            let found: Option<Value> = session
                .api
                .find(&path)
                .await
                .map_err(|f| f.step(&format!("read {}", item.reference), &session.api.target))?;
            let Some(found) = found else { continue };
            let uid = found.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
            let protected = Object::new(found.clone(), "cluster")
                .is_ok_and(|object| object.says(crate::objects::Annotation::SkipPruning));
            if !protected && (item.uid.is_empty() || item.uid == uid) {
                let (change, text) = diff(Some(&found), None, &session.mask);
                self.add(change, &text);
            }
        }
        Ok(())
    }
}

/// What applying `objects` would change. Two requests for each object; nothing is stored.
///
/// **Errors**: an object that the server would refuse, except for conflicts: those are for the apply to report.
pub(crate) async fn of(
    session: &Session,
    mut objects: Vec<Object>,
    options: Options,
) -> Result<Changes, StepError> {
    let definitions = Definitions::of(&objects);
    session.place(&mut objects, &|object| definitions.namespaced(object));
    sort(&mut objects);
    if let Some(error) = objects.iter().find_map(|object| definitions.check(session, object)) {
        return Err(session.masked(error));
    }
    let all = &objects;
    let results: Vec<Result<(Change, String), StepError>> = futures::stream::iter(0..all.len())
        .map(|at| async move {
            match all.get(at) {
                Some(object) => one(session, object, options).await,
                None => Ok((Change::None, String::new())),
            }
        })
        .buffered(session.settings.apply_concurrency.max(1))
        .collect()
        .await;
    let mut changes = Changes::default();
    for result in results {
        let (change, text) = result?;
        changes.add(change, &text);
    }
    Ok(changes)
}

async fn one(session: &Session, object: &Object, options: Options) -> Result<(Change, String), StepError> {
    let failed = |fault: Fault| {
        let what = format!("{} ({})", object.reference(), object.source);
        session.masked(fault.step(&what, &session.api.target))
    };
    let before: Option<Value> = match session.discovery.of(object) {
        Some(resource) => {
            let path = resource.path(object.namespace(), object.name());
            session.api.find(&path).await.map_err(failed)?
        }
        None => None,
    };
    let after = would_be(session, object, options).await.map_err(failed)?;
    Ok(diff(before.as_ref(), Some(&after), &session.mask))
}
