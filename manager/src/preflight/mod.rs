//! What can be told before a run starts (issue 3, "`pipeline run` looks ahead").
//!
//! A missing input, secret or entity refuses the run and leaves no execution. A selector that nobody satisfies and an
//! unknown host key under `strict` are warned of, each with the command that mends it.

mod gates;
mod governance;
mod last_run;
mod launch;

pub(crate) use last_run::remember;
pub(crate) use launch::{Launched, create, launch};

use crate::app::App;
use crate::engine::RunRequest;
use crate::queue::{Explanation, Nearest};
use crate::store::{Entity, StoreError};
use pipeline::entities::{Catalog, CatalogEntity, EntityKind, Snapshot};
use pipeline::fault::{Fault, Mode, Notice, did_you_mean};
use pipeline::plan::Plan;
use pipeline::planner::{self, Need, PlanOptions};
use pipeline::trigger::TriggerFacts;
use proto::task::HostKeyMode;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A run as it is asked for.
pub(crate) struct Request {
    /// Identifier of a stored pipeline.
    pub(crate) pipeline: String,
    /// What it is to run with.
    pub(crate) with: RunRequest,
    /// The event that starts it, if it is not a person.
    pub(crate) trigger: Option<TriggerFacts>,
    /// Id of the execution.
    pub(crate) execution_id: String,
    /// Who starts it.
    pub(crate) started_by: String,
    /// When, epoch milliseconds.
    pub(crate) started_at: u64,
}

/// The run cannot start. Nothing was created.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// No such pipeline.
    NoPipeline {
        /// As asked for.
        id: String,
        /// The nearest name.
        near: Option<String>,
    },
    /// Several scopes have one.
    Ambiguous {
        /// As asked for.
        id: String,
        /// Which scopes.
        scopes: Vec<String>,
    },
    /// The document, an input, an entity or a secret.
    Invalid(Vec<Fault>),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Refusal::Store(error)
    }
}

/// Something a person should know before the run gets there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Warning {
    code: &'static str,
    message: String,
    hint: String,
}

impl Warning {
    /// What a policy says with severity `warning`.
    fn of_policy(line: String) -> Self {
        let hint = "the run goes on; the policy says what to change".to_owned();
        Warning { code: "POL-001", message: format!("policy warning: {line}"), hint }
    }
}

/// A run that may start.
pub(crate) struct Prepared {
    /// What to tell the person who starts it.
    pub(crate) warnings: Vec<Warning>,
    /// The plan under the sequence id that it will probably get.
    pub(crate) plan: Plan,
    source: String,
    entity: Entity,
    catalog: Snapshot,
    options: PlanOptions,
}

impl Prepared {
    /// The plan under the sequence id that the store allotted.
    pub(crate) fn into_plan(self, sequence_id: u64) -> Result<Plan, Vec<Fault>> {
        if self.plan.run.sequence_id == sequence_id {
            return Ok(self.plan);
        }
        let options = PlanOptions { sequence_id, ..self.options };
        planner::plan(&self.source, &self.entity.yaml, &self.catalog, &options)
    }
}

/// Plans a run without starting it.
pub(crate) async fn prepare(app: &App, request: Request) -> Result<Prepared, Refusal> {
    let entity = pipeline_entity(app, &request.pipeline).await?;
    let catalog = crate::entities::catalog(app).await?;
    let inputs = request
        .with
        .inputs
        .into_iter()
        .map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    let of = CatalogEntity {
        kind: EntityKind::Pipeline,
        id: entity.id.clone(),
        name: entity.name.clone(),
        scope: entity.scope.clone(),
        yaml: String::new(),
    };
    let input_sets =
        pipeline::input_sets::resolve(&catalog, &of, &request.with.input_sets).map_err(Refusal::Invalid)?;
    let inputs_name = if request.trigger.is_some() { "inputYaml" } else { "inputs" };
    let mut host_keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (host, key, _) in app.store.host_keys(None).await? {
        host_keys.entry(host).or_default().push(key);
    }
    let options = PlanOptions {
        account: app.account.clone(),
        execution_id: request.execution_id,
        sequence_id: next_sequence(app, &entity.id).await?,
        started_by: request.started_by,
        started_at: request.started_at,
        rehearsal: request.with.rehearsal,
        mode: Mode::Lenient,
        secret_token: i64::from(rand::random::<u32>()) << 16 | i64::from(rand::random::<u16>()),
        host_key_mode: app.config.host_keys,
        host_keys,
        groups: crate::users::groups(app.store.as_ref(), &entity.scope).await?.references(),
        inputs,
        input_sets,
        inputs_file: request.with.inputs_yaml.map(|text| (inputs_name.to_owned(), text)),
        trigger: request.trigger,
        last_successful: last_run::all(app.store.as_ref(), &entity.id).await?,
    };
    let source = request.with.source.unwrap_or_else(|| entity.id.clone());
    let plan = planner::plan(&source, &entity.yaml, &catalog, &options).map_err(Refusal::Invalid)?;
    let mut warnings = warnings(app, &plan, &planner::preflight(&plan));
    warnings.extend(gates::missing(&plan, &catalog, &entity.scope));
    Ok(Prepared { warnings, plan, source, entity, catalog, options })
}

/// Every fault and notice of a document that need not be stored.
pub(crate) fn validate(
    source: &str,
    yaml: &str,
    catalog: &dyn Catalog,
    mode: Mode,
) -> (Vec<Fault>, Vec<Notice>) {
    let validation = planner::validate(source, yaml, Some(catalog), mode);
    (validation.faults, validation.notices)
}

/// What the counter will probably be. If another number is allotted, the plan is made again under that one.
async fn next_sequence(app: &App, pipeline: &str) -> Result<u64, StoreError> {
    let last = app.store.executions(Some(pipeline), 1).await?;
    Ok(last.first().map_or(1, |row| row.sequence_id + 1))
}

async fn pipeline_entity(app: &App, id: &str) -> Result<Entity, Refusal> {
    let all = app.store.entities("pipeline").await?;
    let (scope, bare) = id.rsplit_once('/').map_or((None, id), |(scope, bare)| (Some(scope), bare));
    let exact: Vec<&Entity> = all.iter().filter(|entity| entity.id == id).collect();
    let scoped: Vec<&Entity> =
        all.iter().filter(|entity| entity.id == bare && Some(entity.scope.as_str()) == scope).collect();
    match (exact.as_slice(), scoped.as_slice()) {
        ([one], _) | ([], [one]) => Ok((*one).clone()),
        ([], _) => Err(Refusal::NoPipeline {
            id: id.to_owned(),
            near: did_you_mean(id, all.iter().map(|entity| entity.id.as_str())),
        }),
        (several, _) => Err(Refusal::Ambiguous {
            id: id.to_owned(),
            scopes: several.iter().map(|entity| entity.scope.clone()).collect(),
        }),
    }
}

fn warnings(app: &App, plan: &Plan, needs: &[Need]) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = Vec::new();
    let mut add = |warning: Warning| {
        // Steps often share their selectors and hosts: one word about each is enough.
        if !warnings.iter().any(|known| known.message == warning.message) {
            warnings.push(warning);
        }
    };
    for need in needs {
        let explanation =
            app.queue.explain_selectors(&need.task_type, !need.secrets.is_empty(), &need.selectors);
        if let Explanation::NoAgent { message, nearest } = explanation {
            add(Warning { code: "selectors.no-agent", message, hint: mend(nearest.first(), need) });
        }
        if plan.host_key_mode == HostKeyMode::Strict {
            for host in need.hosts.iter().filter(|host| !host.known) {
                add(Warning {
                    code: "hostkey.unknown",
                    message: format!(
                        "no host key of {} is known, and only known ones are accepted",
                        host.host
                    ),
                    hint: format!(
                        "compare the fingerprint on the host, then `delegate hostkey accept {} SHA256:…`",
                        host.host
                    ),
                });
            }
        }
    }
    warnings
}

/// The command that makes an agent fit.
fn mend(nearest: Option<&Nearest>, need: &Need) -> String {
    let wanted: BTreeSet<&str> =
        need.selectors.iter().flat_map(|set| set.selectors.iter().map(|selector| selector.trim())).collect();
    let wanted = wanted.into_iter().collect::<Vec<_>>().join(",");
    let start = if wanted.is_empty() {
        "start one with `delegate agent`".to_owned()
    } else {
        format!("start one with `DELEGATE_TAGS={wanted} delegate agent`")
    };
    match nearest {
        None => start,
        Some(near) if near.lacks_type => format!("`{}` cannot run this step; {start}", near.agent),
        Some(near) if near.missing.is_empty() && !near.connected => {
            format!("`{}` fits but is not connected: start it again", near.agent)
        }
        Some(near) if near.missing.is_empty() => {
            format!("`{}` announced no key for secrets: start a newer `delegate agent` there", near.agent)
        }
        Some(near) => format!(
            "the nearest agent is `{}`: add {} to its DELEGATE_TAGS and restart it, or {start}",
            near.agent,
            near.missing.join(",")
        ),
    }
}
