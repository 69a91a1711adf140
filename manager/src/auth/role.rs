//! Roles: what an API key may do (pipeline.md 4.7, as far as three roles need it).

use axum::http::Method;

/// What an API key may do. A greater role may do everything that a lesser one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads everything but secret values, which nobody reads.
    Viewer,
    /// Starts and ends executions, acts on what waits for people.
    Executor,
    /// Everything: documents, secrets, keys, users.
    Admin,
}

/// Every role with its name.
const ROLES: [(&str, Role); 3] =
    [("viewer", Role::Viewer), ("executor", Role::Executor), ("admin", Role::Admin)];

impl Role {
    /// The name on the wire and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Executor => "executor",
            Role::Admin => "admin",
        }
    }

    /// By [`Role::name`], exactly.
    pub fn from_name(name: &str) -> Option<Role> {
        ROLES.iter().find(|(known, _)| *known == name).map(|(_, role)| *role)
    }

    /// Names of all roles, for messages.
    pub fn names() -> String {
        ROLES.map(|(name, _)| name).join(", ")
    }
}

/// What a request to `path` (below `/api/v1`) needs. A path that nobody thought of needs most.
///
/// `POST /apply` lets executors in, because `pipeline run FILE` applies first; the handler lets them change nothing.
pub fn needed(method: &Method, path: &str) -> Role {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Role::Viewer;
    }
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match (method, first) {
        (&Method::POST, "pipelines") if path.ends_with("/validate") => Role::Viewer,
        (&Method::POST, "executions" | "approvals" | "apply") => Role::Executor,
        // Harness' own paths, without what stands before them.
        (&Method::POST, "pipeline") if path.starts_with("/pipeline/execute/") => Role::Executor,
        (&Method::PUT, "pipeline")
            if path.starts_with("/pipeline/execute/interrupt/")
                || path.starts_with("/pipeline/execute/manualIntervention/interrupt/") =>
        {
            Role::Executor
        }
        (&Method::POST, "v1") if path.ends_with("/execute") || path.contains("/approvals/execution/") => {
            Role::Executor
        }
        _ => Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_needs_least_and_the_unknown_needs_most() {
        for (method, path, role) in [
            (Method::GET, "/entities/pipeline/p", Role::Viewer),
            (Method::POST, "/pipelines/validate", Role::Viewer),
            (Method::POST, "/executions", Role::Executor),
            (Method::POST, "/executions/x/abort", Role::Executor),
            (Method::POST, "/approvals/x/approve", Role::Executor),
            (Method::POST, "/apply", Role::Executor),
            (Method::POST, "/pipeline/execute/p/v2", Role::Executor),
            (Method::PUT, "/pipeline/execute/interrupt/e", Role::Executor),
            (Method::PUT, "/pipeline/execute/manualIntervention/interrupt/e/n", Role::Executor),
            (Method::PUT, "/pipeline/execute/p", Role::Admin),
            (Method::POST, "/v1/orgs/o/projects/p/pipelines/x/execute", Role::Executor),
            (Method::POST, "/v1/orgs/o/projects/p/approvals/execution/x", Role::Executor),
            (Method::POST, "/v1/orgs/o/projects/p/pipelines", Role::Admin),
            (Method::POST, "/apikeys", Role::Admin),
            (Method::POST, "/users", Role::Admin),
            (Method::PUT, "/secrets/s", Role::Admin),
            (Method::DELETE, "/executions/x", Role::Admin),
            (Method::POST, "/something/new", Role::Admin),
        ] {
            assert_eq!(needed(&method, path), role, "{method} {path}");
        }
        for (name, role) in ROLES {
            assert_eq!((Role::from_name(name), role.name()), (Some(role), name));
        }
        assert_eq!(Role::from_name("Admin"), None);
        assert!(Role::Viewer < Role::Executor && Role::Executor < Role::Admin);
    }
}
