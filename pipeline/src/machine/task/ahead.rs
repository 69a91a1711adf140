//! The look-ahead over one step: what is known of its needs before the run.

use super::super::SelectorSet;
use super::super::state::State;
use super::build::{Builder, field_value};
use crate::model::step::{Looping, Spec, UnitKind};
use crate::plan::{NodeKind, Plan};
use crate::scope::NodeScope;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// What one step needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// Node of the plan.
    pub node: String,
    /// Identifier of the step.
    pub step: String,
    /// Harness task family.
    pub task_type: String,
    /// Selectors with their origins; empty: any agent.
    pub selectors: Vec<SelectorSet>,
    /// Hosts that it logs in to, repositories behind sshd among them.
    pub hosts: Vec<SshNeed>,
    /// Secrets.
    pub secrets: Vec<String>,
}

/// A host that a step logs in to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshNeed {
    /// `host:port`, as host keys are stored.
    pub host: String,
    /// Whether a key of it is known.
    pub known: bool,
}

impl<'a> Builder<'a> {
    /// What a step will need. `None` for steps that no agent runs.
    pub(crate) fn look_ahead(plan: &'a Plan, state: &'a State, index: usize) -> Option<Need> {
        let node = plan.node(index)?;
        let mut builder = Builder::new(plan, state, &node.path, plan.run.started_at);
        builder.scope =
            NodeScope { plan, state: Some(state), node: index, run: None, record: None, iteration: None };
        // What cannot be resolved yet depends on earlier steps, and is judged when the step starts.
        let task_type = match &node.kind {
            NodeKind::Artifact => {
                let artifact =
                    builder.target().and_then(|target| target.service.definition.artifact.as_ref())?;
                drop(builder.use_connector(&artifact.connector));
                "DELEGATE_ARTIFACT_TASK"
            }
            NodeKind::Step { spec, per_host, .. } => match &**spec {
                Spec::Command { host, units, .. } => {
                    let written = match host {
                        Some(host) => builder.strict(host).into_iter().collect(),
                        None => builder.planned_hosts(*per_host),
                    };
                    for host in written {
                        drop(builder.login_to(&host));
                    }
                    for unit in units {
                        if let UnitKind::Download { source: Some(source), .. } = &unit.kind {
                            drop(builder.artifactory(&source.connector));
                        }
                    }
                    "COMMAND_TASK_NG"
                }
                Spec::ShellScript { host: None, .. } => "SHELL_SCRIPT_TASK_NG",
                Spec::ShellScript { host: Some(host), credential, .. } => {
                    drop(builder.explicit_target(host, credential.as_ref()));
                    "COMMAND_TASK_NG"
                }
                Spec::Kubernetes(step) => {
                    // What it names is noted on the way, as far as it is known.
                    drop(super::kubernetes::build(&mut builder, step));
                    "K8S_COMMAND_TASK_NG"
                }
                Spec::Ecs(step) => {
                    drop(super::ecs::build(&mut builder, step));
                    "ECS_COMMAND_TASK_NG"
                }
                Spec::Http { .. } => "HTTP_TASK_NG",
                Spec::Verify(verify) => {
                    let connector = verify.connector.as_ref()?;
                    match verify.provider.as_deref() {
                        Some("CloudWatch" | "CloudWatchLogs") => drop(builder.aws(connector, Some(""))),
                        _ => drop(builder.prometheus(connector)),
                    }
                    "DELEGATE_VERIFY_TASK"
                }
                Spec::Noop { .. } => "DELEGATE_NOOP_TASK",
                Spec::Wait { .. } | Spec::Barrier { .. } | Spec::Approval(_) | Spec::Policy { .. } => {
                    return None;
                }
            },
            _ => return None,
        };
        let selectors = builder.selectors().unwrap_or_default();
        Some(Need {
            node: node.path.clone(),
            step: node.identifier.clone(),
            task_type: task_type.to_owned(),
            selectors,
            hosts: builder.logins,
            secrets: builder.secrets.into_iter().map(|secret| secret.0).collect(),
        })
    }

    /// Hosts of the implicit repeat, or of the nearest written one as far as its items are known.
    fn planned_hosts(&self, per_host: bool) -> Vec<String> {
        if per_host {
            let hosts =
                self.target().map(|target| target.infrastructure.hosts.as_slice()).unwrap_or_default();
            return hosts.iter().map(|host| host.written.clone()).collect();
        }
        let mut at = Some(self.scope.node);
        while let Some(node) = at.and_then(|index| self.plan.node(index)) {
            if let Some(Looping::Repeat { items: Some(items), .. }) = &node.looping {
                let Ok(Json::Array(list)) = field_value(items, &self.context()) else { return Vec::new() };
                return list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect();
            }
            at = node.parent;
        }
        Vec::new()
    }
}
