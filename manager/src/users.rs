//! Users: who people are to the manager, and which groups they are in.
//!
//! A user has an email, or only a name, which then stands in its place. API keys belong to users ([`crate::auth`]);
//! approvals ask for users and their groups. A group is made of the `userGroup` entity of that id and of every user
//! that was created with it.

use crate::store::{Applied, Entity, Millis, Store, StoreError};
use pipeline::entities::EntityKind;
use pipeline::fault::Findings;
use pipeline::groups::{Group, Groups};
use pipeline::model::user_group::read_user_group;
use pipeline::yaml::parse_documents;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Kind of the stored documents. Users are no entities that `apply` takes: who may approve is not decided by a file.
pub(crate) const KIND: &str = "user";

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// Name, for people.
    pub(crate) name: String,
    /// Identity, compared exactly.
    pub(crate) email: String,
    /// Own groups: exact identifiers at account level.
    #[serde(default)]
    pub(crate) groups: BTreeSet<String>,
}

/// Every user, ordered by email.
///
/// **Errors**: the store's; a document that cannot be read is left out and logged, so that one broken row shuts nobody
/// else out.
pub(crate) async fn all(store: &dyn Store) -> Result<Vec<User>, StoreError> {
    Ok(store.entities(KIND).await?.iter().filter_map(read).collect())
}

/// The user of an email.
pub(crate) async fn one(store: &dyn Store, email: &str) -> Result<Option<User>, StoreError> {
    Ok(store.entity(KIND, "", email).await?.as_ref().and_then(read))
}

fn read(entity: &Entity) -> Option<User> {
    serde_json::from_str(&entity.yaml)
        .map_err(|error| tracing::error!(user = %entity.id, %error, "the user cannot be read"))
        .ok()
}

/// Stores a user. **Repeat**: with equal content it changes nothing. **Errors**: `Conflict` when the email is another
/// user's.
pub(crate) async fn create(store: &dyn Store, user: &User, now: Millis) -> Result<Applied, StoreError> {
    if let Some(known) = one(store, &user.email).await?
        && known != *user
    {
        return Err(StoreError::Conflict { what: format!("the user `{}`", user.email) });
    }
    let yaml = serde_json::to_string(user).map_err(|error| StoreError::Backend(error.to_string()))?;
    let (id, name) = (user.email.clone(), user.name.clone());
    let entity = Entity { kind: KIND.to_owned(), id, scope: String::new(), name, yaml, updated_at: now };
    store.apply_entity(entity).await
}

/// Groups as a pipeline of `scope` sees them now.
pub(crate) async fn groups(store: &dyn Store, scope: &str) -> Result<Groups, StoreError> {
    let mut groups = Vec::new();
    for entity in store.entities(EntityKind::UserGroup.name()).await? {
        groups.extend(group_of(&entity));
    }
    for user in all(store).await? {
        let User { email, groups: own, .. } = user;
        groups.extend(own.into_iter().map(|id| Group {
            id,
            scope: String::new(),
            users: BTreeSet::from([email.clone()]),
        }));
    }
    Ok(Groups::seen_from(scope, groups))
}

fn group_of(entity: &Entity) -> Option<Group> {
    let documents = parse_documents(&entity.id, &entity.yaml).ok()?;
    let root = documents.first()?.get("userGroup")?;
    let read = read_user_group(root, &mut Findings::default())?;
    Some(Group { id: read.identifier, scope: entity.scope.clone(), users: read.users.into_iter().collect() })
}
