//! Planning: pipeline text, catalogue and inputs become a frozen [`Plan`], or every fault at once.

mod asks;
mod barriers;
mod check;
mod connectors;
mod copies;
mod cycles;
mod ecs;
mod hosts;
mod inputs;
mod kubernetes;
mod logins;
mod monitored;
mod order;
mod overrides;
mod preflight;
mod target;
mod tree;

pub use crate::machine::{Need, SshNeed};
pub use check::known_paths;
pub use preflight::preflight;

use crate::entities::Catalog;
use crate::fault::{Fault, Findings, Mode, Notice};
use crate::model::pipeline::read_pipeline;
use crate::plan::{Nodes, PLAN_VERSION, Plan, ROOT, RunFacts, StageRecord};
use crate::trigger::TriggerFacts;
use crate::yaml::{Node, parse_documents};
use proto::task::HostKeyMode;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a run is asked for.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Account.
    pub account: String,
    /// Id of the execution.
    pub execution_id: String,
    /// Per-pipeline counter from 1.
    pub sequence_id: u64,
    /// Who starts it.
    pub started_by: String,
    /// Epoch milliseconds.
    pub started_at: u64,
    /// Rehearsal factor (D16).
    pub rehearsal: Option<u32>,
    /// Tolerance.
    pub mode: Mode,
    /// Random, drawn by the caller once per execution.
    pub secret_token: i64,
    /// Host-key policy.
    pub host_key_mode: HostKeyMode,
    /// Known host keys by `host:port`.
    pub host_keys: BTreeMap<String, Vec<String>>,
    /// References to user groups that lead somewhere, as the pipeline sees them ([`crate::groups`]).
    pub groups: BTreeSet<String>,
    /// `--input k=v`: pipeline variables.
    pub inputs: BTreeMap<String, String>,
    /// `--input-set ID…`: name and text of each, in order; laid under `inputs_file`.
    pub input_sets: Vec<(String, String)>,
    /// `--inputs FILE`, or `inputYaml` of the trigger: its name and text.
    pub inputs_file: Option<(String, String)>,
    /// The event that starts the run, if it is not a person.
    pub trigger: Option<TriggerFacts>,
    /// [`crate::machine::stage_records`] of earlier runs.
    pub last_successful: BTreeMap<String, StageRecord>,
}

/// Plans a run.
///
/// **Errors**: every fault of the document, its references and its inputs, ordered by place.
pub fn plan(
    source: &str,
    yaml: &str,
    catalog: &dyn Catalog,
    options: &PlanOptions,
) -> Result<Plan, Vec<Fault>> {
    let mut findings = Findings::new(options.mode);
    let made =
        document(source, yaml).map(|document| make(&document, Some(catalog), options, true, &mut findings));
    let plan = match made {
        Ok(plan) => plan,
        Err(mut faults) => {
            findings.faults.append(&mut faults);
            None
        }
    };
    match plan {
        Some(mut plan) if findings.faults.is_empty() => {
            plan.notices = findings.notices;
            Ok(plan)
        }
        _ => Err(findings.sorted_faults()),
    }
}

/// What [`validate`] found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// What refuses the document.
    pub faults: Vec<Fault>,
    /// What is assumed.
    pub notices: Vec<Notice>,
    /// Identifier of the pipeline, when it could be read.
    pub pipeline: Option<String>,
}

/// Checks a document without running it. Without a catalogue, references to entities are not looked up. Inputs that a
/// run must bring are no faults.
pub fn validate(source: &str, yaml: &str, catalog: Option<&dyn Catalog>, mode: Mode) -> Validation {
    let mut findings = Findings::new(mode);
    let options = PlanOptions { mode, sequence_id: 1, ..PlanOptions::default() };
    let mut pipeline = None;
    match document(source, yaml) {
        Ok(document) => {
            let made = make(&document, catalog, &options, false, &mut findings);
            pipeline = made.map(|plan| plan.run.pipeline);
        }
        Err(faults) => findings.faults.extend(faults),
    }
    let notices = std::mem::take(&mut findings.notices);
    Validation { faults: findings.sorted_faults(), notices, pipeline }
}

/// The one document of a pipeline file.
fn document(source: &str, yaml: &str) -> Result<Node, Vec<Fault>> {
    let mut documents = parse_documents(source, yaml)?.into_iter();
    let Some(first) = documents.next() else {
        let place = crate::fault::Place::start(source);
        return Err(vec![Fault::at(&place, "", "the file holds no document; expected a `pipeline`")]);
    };
    match documents.next() {
        None => Ok(first),
        Some(second) => {
            let message = "a pipeline file holds one document; store entities with `delegate apply`";
            Err(vec![Fault::at(&second.at, "", message)])
        }
    }
}

fn make(
    document: &Node,
    catalog: Option<&dyn Catalog>,
    options: &PlanOptions,
    running: bool,
    findings: &mut Findings,
) -> Option<Plan> {
    let document = inputs::merge_file(document, options, findings);
    let mut pipeline = read_pipeline(&document, findings)?;
    let faults_of_the_text = findings.faults.len();
    inputs::fill(&mut pipeline, options, running, findings);
    inputs::refuse_left_over(&document, running, findings);
    let run = RunFacts {
        account: options.account.clone(),
        org: pipeline.org.clone(),
        project: pipeline.project.clone(),
        pipeline: pipeline.identifier.clone(),
        name: pipeline.name.text(),
        execution_id: options.execution_id.clone(),
        sequence_id: options.sequence_id,
        started_by: options.started_by.clone(),
        started_at: options.started_at,
        rehearsal: options.rehearsal,
        secret_token: options.secret_token,
        mode: options.mode,
        groups: options.groups.clone(),
        trigger: options.trigger.clone(),
        rolls_back: None,
    };
    let mut plan = Plan {
        version: PLAN_VERSION,
        run,
        tags: pipeline.tags.clone(),
        variables: std::mem::take(&mut pipeline.variables),
        nodes: Nodes::default(),
        connectors: BTreeMap::new(),
        host_keys: options.host_keys.clone(),
        logins: BTreeMap::new(),
        host_key_mode: options.host_key_mode,
        last_successful: BTreeMap::new(),
        notices: Vec::new(),
        barriers: Vec::new(),
    };
    let barriers = std::mem::take(&mut pipeline.barriers);
    let lookups = target::Lookups { catalog, running, unread: BTreeSet::new() };
    let targets = tree::grow(&mut plan, pipeline, &lookups, findings);
    plan.run.name = rendered_name(&plan);
    asks::find(&mut plan, &document, findings);
    barriers::check(&mut plan, &barriers, findings);
    target::resolve(&mut plan, targets, &lookups, findings);
    cycles::check(&plan, findings);
    if faults_of_the_text == 0 {
        look_closer(&mut plan, &lookups, running, findings);
    } else {
        // Every fault is told at once, but what could not be read is not told again through what refers to it.
        let mut more = Findings { strict: findings.strict, ..Findings::default() };
        let lookups = target::Lookups { unread: names_of(&document), ..lookups };
        look_closer(&mut plan, &lookups, running, &mut more);
        let told = findings.faults.clone();
        for fault in more.faults {
            let known = told.iter().any(|known| {
                let same_place = (known.line, known.column) == (fault.line, fault.column);
                same_place || known.path.starts_with(&fault.path)
            });
            if !known {
                findings.push(fault);
            }
        }
        findings.notices.extend(more.notices);
    }
    let keys: Vec<String> =
        (0..plan.nodes.len()).filter_map(|node| crate::machine::stage_key(&plan, node)).collect();
    plan.last_successful = options
        .last_successful
        .iter()
        .filter(|(key, _)| keys.contains(key))
        .map(|(key, record)| (key.clone(), crate::machine::retoken(record, options.secret_token)))
        .collect();
    Some(plan)
}

/// What can be judged only when the whole plan is there.
fn look_closer(plan: &mut Plan, lookups: &target::Lookups<'_>, running: bool, findings: &mut Findings) {
    tree::timeouts(plan, findings);
    monitored::freeze(plan, lookups, findings);
    ecs::settle(plan, lookups.catalog.is_some(), findings);
    connectors::freeze(plan, lookups, findings);
    logins::freeze(plan, lookups, findings);
    order::loops(plan, findings);
    order::identifiers(plan, findings);
    kubernetes::check(plan, findings);
    ecs::check(plan, lookups.catalog.is_some(), findings);
    check::references(plan, lookups, running, findings);
}

/// Everything that a document calls something: identifiers, and names of variables and outputs.
fn names_of(document: &Node) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut open = vec![document];
    while let Some(node) = open.pop() {
        if let Some(map) = node.as_map() {
            for entry in &map.entries {
                if ["identifier", "name"].contains(&entry.key.as_str()) {
                    names.extend(entry.value.as_str().map(str::to_owned));
                }
                open.push(&entry.value);
            }
        }
        open.extend(node.as_list().unwrap_or_default());
    }
    names
}

fn rendered_name(plan: &Plan) -> String {
    let scope = crate::scope::NodeScope::planning(plan, ROOT);
    let context = context(plan, &scope);
    let name = plan.nodes.first().map(|node| node.name.text()).unwrap_or_default();
    expr::render(&name, &context, expr::Mode::Keep).unwrap_or(name)
}

/// An evaluation before the run: the clock stands at its start.
pub(crate) fn context<'a>(plan: &Plan, scope: &'a crate::scope::NodeScope<'a>) -> expr::Context<'a> {
    expr::Context {
        scope,
        now_ms: i64::try_from(plan.run.started_at).unwrap_or(i64::MAX),
        secret_token: plan.run.secret_token,
    }
}
