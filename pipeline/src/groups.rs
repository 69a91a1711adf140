//! User groups as one pipeline sees them: which references name which group, and who is in it.
//!
//! A reference is `g` (the pipeline's own scope, else the account), `org.g` or `account.g`. It names a group by its
//! exact identifier or not at all: nothing here looks for a similar one, for a wrong hit would let somebody approve.

use std::collections::{BTreeMap, BTreeSet};

/// One group and where it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Identifier.
    pub id: String,
    /// `org/project`, `org`, or empty for the account.
    pub scope: String,
    /// Emails of its members.
    pub users: BTreeSet<String>,
}

/// Groups by every reference that leads to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    by_reference: BTreeMap<String, BTreeSet<String>>,
}

impl Groups {
    /// What a pipeline of `scope` (`org/project`, `org`, or empty) sees. Groups that are given twice are united. A
    /// group of a nearer scope hides one of the same id of a wider scope.
    pub fn seen_from(scope: &str, groups: impl IntoIterator<Item = Group>) -> Groups {
        let org = scope.split('/').next().unwrap_or_default();
        let mut seen = Groups::default();
        // Reference → how near the scope is that it leads to.
        let mut nearest: BTreeMap<String, usize> = BTreeMap::new();
        for group in groups {
            let Group { id, scope: of, users } = group;
            let mut references: Vec<(String, usize)> = Vec::new();
            if of.is_empty() {
                references.extend([(format!("account.{id}"), 0), (format!("org.{id}"), 0), (id.clone(), 0)]);
            }
            if !of.is_empty() && of == org {
                references.push((format!("org.{id}"), 1));
            }
            if !of.is_empty() && of == scope {
                references.push((id.clone(), 2));
            }
            for (reference, near) in references {
                let known = nearest.entry(reference.clone()).or_insert(near);
                if near < *known {
                    continue;
                }
                let members = seen.by_reference.entry(reference).or_default();
                if near > *known {
                    *known = near;
                    members.clear();
                }
                members.extend(users.iter().cloned());
            }
        }
        seen
    }

    /// Every reference that leads to a group, with or without members.
    pub fn references(&self) -> BTreeSet<String> {
        self.by_reference.keys().cloned().collect()
    }

    /// Every reference to a group that `email` is in.
    pub fn of(&self, email: &str) -> BTreeSet<String> {
        let is_in = |(_, users): &(&String, &BTreeSet<String>)| users.contains(email);
        self.by_reference.iter().filter(is_in).map(|(reference, _)| reference.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str, scope: &str, users: &[&str]) -> Group {
        let users = users.iter().map(|user| (*user).to_owned()).collect();
        Group { id: id.to_owned(), scope: scope.to_owned(), users }
    }

    fn of(groups: &Groups, email: &str) -> Vec<String> {
        groups.of(email).into_iter().collect()
    }

    #[test]
    fn a_reference_is_exact_and_the_nearer_scope_hides_the_wider() {
        let all = [
            group("g", "", &["acc"]),
            group("g", "o", &["org"]),
            group("g", "o/p", &["pro"]),
            group("g", "o/other", &["foreign"]),
            group("h", "", &["acc"]),
            group("h", "", &["own"]),
        ];
        let seen = Groups::seen_from("o/p", all.clone());
        assert_eq!(of(&seen, "pro"), ["g"]);
        assert_eq!(of(&seen, "org"), ["org.g"]);
        assert_eq!(of(&seen, "acc"), ["account.g", "account.h", "h", "org.h"]);
        assert_eq!(of(&seen, "own"), ["account.h", "h", "org.h"], "united with the entity of that id");
        assert_eq!(of(&seen, "foreign"), Vec::<String>::new());
        let reversed = Groups::seen_from("o/p", all.iter().rev().cloned());
        assert_eq!(reversed, seen, "the order changes nothing");
        let account = Groups::seen_from("", all);
        assert_eq!(of(&account, "acc"), ["account.g", "account.h", "g", "h", "org.g", "org.h"]);
        assert!(of(&account, "pro").is_empty() && of(&account, "org").is_empty());
        assert!(!seen.references().contains("G"), "{seen:?}");
    }
}
