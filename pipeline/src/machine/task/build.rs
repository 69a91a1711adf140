//! What every task has: resolved fields, environment, selectors, secrets, log keys.

use super::super::state::{Run, State};
use super::super::{SelectorSet, TaskRequest};
use super::ahead::SshNeed;
use super::artifact;
use crate::model::connector::Connector;
use crate::model::duration::parse_duration;
use crate::model::{Field, Variable, as_text};
use crate::plan::{NodeKind, Plan, PlanNode, TargetPlan};
use crate::scope::NodeScope;
use expr::{Context, Mode};
use proto::failure::{Failure, FailureKind};
use proto::task::{ExecutionRef, Infrastructure, Service, Step, StepSpec, StepTask, TASK_VERSION};
use proto::text::{SecretRef, Text, placeholders};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// Builds one task.
pub(crate) struct Builder<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) state: &'a State,
    pub(crate) id: &'a str,
    pub(crate) scope: NodeScope<'a>,
    pub(crate) now_ms: i64,
    /// Connectors that the task uses: their selectors count when no level above has any.
    pub(crate) connectors: Vec<&'a Connector>,
    pub(crate) secrets: BTreeSet<SecretRef>,
    pub(crate) notices: Vec<String>,
    /// Host that the task runs on.
    pub(crate) host: Option<String>,
    /// Every host that the task logs in to, repositories behind sshd among them.
    pub(crate) logins: Vec<SshNeed>,
    /// Exported by the step itself.
    pub(crate) step_env: BTreeMap<String, Text>,
    /// The step that this one undoes, node and run: its selectors are those of the task.
    pub(crate) acts_for: Option<(usize, Option<&'a str>)>,
}

/// A failure of ours.
pub(super) fn bug(message: &str) -> Box<Failure> {
    Box::new(Failure::new(FailureKind::Bug, "PIPE-005", message))
}

/// A field that cannot be resolved or holds a wrong value.
pub(super) fn bad_field(field: &Field, message: impl std::fmt::Display) -> Box<Failure> {
    let place = format!("{}:{}:{}", field.at.source, field.at.line, field.at.column);
    let message = format!("`{}`: {message} ({place})", field.path);
    Box::new(Failure::new(FailureKind::BadSpec, "PIPE-001", message))
}

/// Resolves a text field.
pub(crate) fn render(field: &Field, context: &Context<'_>, mode: Mode) -> Result<String, expr::ExprError> {
    match as_text(&field.value) {
        Json::String(text) => expr::render(&text, context, mode),
        Json::Null => Ok(String::new()),
        other => expr::render(&other.to_string(), context, mode),
    }
}

/// Resolves a field of another type: a single block keeps the type of its value, lists and maps are resolved inside.
pub(crate) fn field_value(field: &Field, context: &Context<'_>) -> Result<Json, expr::ExprError> {
    resolve(&field.value, context)
}

fn resolve(json: &Json, context: &Context<'_>) -> Result<Json, expr::ExprError> {
    Ok(match json {
        Json::String(text) => expr::render_value(text, context, Mode::Throw)?.to_json(),
        Json::Array(list) => {
            Json::Array(list.iter().map(|item| resolve(item, context)).collect::<Result<_, _>>()?)
        }
        Json::Object(map) => Json::Object(
            map.iter()
                .map(|(key, value)| Ok((key.clone(), resolve(value, context)?)))
                .collect::<Result<_, _>>()?,
        ),
        other => other.clone(),
    })
}

impl<'a> Builder<'a> {
    pub(crate) fn new(plan: &'a Plan, state: &'a State, id: &'a str, at: u64) -> Self {
        let node = state.runs.get(id).map_or(0, |run| run.node);
        let in_rollback = plan.node(node).is_some_and(|node| node.in_rollback);
        let record = if in_rollback { artifact::record(plan, node) } else { None };
        Builder {
            plan,
            state,
            id,
            scope: NodeScope { plan, state: Some(state), node, run: Some(id), record, iteration: None },
            now_ms: i64::try_from(at).unwrap_or(i64::MAX),
            connectors: Vec::new(),
            secrets: BTreeSet::new(),
            notices: Vec::new(),
            host: None,
            logins: Vec::new(),
            step_env: BTreeMap::new(),
            acts_for: None,
        }
    }

    pub(crate) fn node(&self) -> Option<&'a PlanNode> {
        self.plan.node(self.scope.node)
    }

    pub(crate) fn target(&self) -> Option<&'a TargetPlan> {
        self.plan.target_of(self.scope.node)
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context { scope: &self.scope, now_ms: self.now_ms, secret_token: self.plan.run.secret_token }
    }

    fn rendered(&self, field: &Field, mode: Mode) -> Result<String, Box<Failure>> {
        render(field, &self.context(), mode).map_err(|error| {
            let near = self.suggestion(&error);
            let failure = bad_field(field, &error);
            Box::new(match near {
                Some(near) => failure.hint(near),
                None => *failure,
            })
        })
    }

    fn suggestion(&self, error: &expr::ExprError) -> Option<String> {
        let path = match &error.kind {
            expr::Kind::Unresolved(paths) => paths.first()?.clone(),
            expr::Kind::Undefined(name) => name.clone(),
            _ => return None,
        };
        let known = crate::planner::known_paths(self.plan, self.scope.node);
        let near = expr::nearest(&path, known.iter().map(String::as_str));
        (!near.is_empty()).then(|| format!("did you mean `{}`?", near.join("` or `")))
    }

    /// A list of texts: a written list whose elements may be expressions, or an expression that gives a list. A single
    /// text is a list of one.
    pub(crate) fn texts(&self, field: &Field) -> Result<Vec<String>, Box<Failure>> {
        let value = field_value(field, &self.context()).map_err(|error| bad_field(field, &error))?;
        let text = |item: &Json| match as_text(item) {
            Json::String(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            other => Err(bad_field(field, format!("expected a list of texts, found {other} in it"))),
        };
        match &value {
            Json::Array(list) => list.iter().map(text).collect(),
            single => Ok(vec![text(single)?]),
        }
    }

    /// A field that holds a wrong value.
    pub(crate) fn bad(&self, field: &Field, message: impl std::fmt::Display) -> Box<Failure> {
        bad_field(field, message)
    }

    /// A deploy-critical text: an unresolved expression fails the step.
    pub(crate) fn strict(&self, field: &Field) -> Result<String, Box<Failure>> {
        self.rendered(field, Mode::Throw)
    }

    /// The same of a field that may be left out.
    pub(crate) fn optional(&self, field: Option<&Field>) -> Result<Option<String>, Box<Failure>> {
        field.map(|field| self.strict(field)).transpose()
    }

    /// A text in which an unresolved expression reads `null`, as Harness has it.
    pub(crate) fn lenient(&self, field: &Field) -> Result<Text, Box<Failure>> {
        self.rendered(field, Mode::Null).map(Text)
    }

    /// A text in which an unresolved expression stays as written.
    pub(crate) fn keep(&self, field: &Field) -> Result<Text, Box<Failure>> {
        self.rendered(field, Mode::Keep).map(Text)
    }

    pub(crate) fn duration(&self, field: &Field) -> Result<u64, Box<Failure>> {
        let text = self.strict(field)?;
        parse_duration(&text)
            .ok_or_else(|| bad_field(field, format!("`{text}` is not a duration such as `10m`")))
    }

    /// Variables exported to scripts: stage < pipeline < service < step. Names that no shell can hold are left out.
    fn env(&self) -> Result<BTreeMap<String, Text>, Box<Failure>> {
        let mut env = BTreeMap::new();
        let stage = self.plan.stage_of(self.scope.node).map(|(_, stage)| stage.variables.as_slice());
        let levels = [
            ("stage.variables", stage.unwrap_or_default()),
            ("pipeline.variables", self.plan.variables.as_slice()),
            (
                "serviceVariables",
                self.target().map_or(&[][..], |t| t.service.definition.variables.as_slice()),
            ),
        ];
        for (root, variables) in levels {
            for variable in variables {
                if is_shell_name(&variable.name) {
                    env.insert(variable.name.clone(), self.variable(root, variable)?);
                }
            }
        }
        env.extend(self.step_env.clone());
        Ok(env)
    }

    /// Goes through the scope, so that secrets become placeholders and a rollback sees the earlier values.
    pub(super) fn variable(&self, root: &str, variable: &Variable) -> Result<Text, Box<Failure>> {
        let path = format!("<+{root}.{}>", variable.name);
        expr::render(&path, &self.context(), Mode::Null)
            .map(|text| {
                Text(if text == "null" && variable.value.value.is_null() { String::new() } else { text })
            })
            .map_err(|error| bad_field(&variable.value, error))
    }

    pub(crate) fn use_connector(&mut self, field: &Field) -> Result<&'a Connector, Box<Failure>> {
        let reference = self.strict(field)?;
        match self.plan.connectors.get(&reference) {
            Some(connector) => {
                self.connectors.push(connector);
                Ok(connector)
            }
            None => {
                let message =
                    format!("the connector `{reference}` was not known when the execution was planned");
                Err(bad_field(field, message))
            }
        }
    }

    // --- the request ---

    /// Finishes the task; what a person should read stands beside it.
    pub(crate) fn request(
        mut self,
        spec: StepSpec,
        attempt: u32,
        timeout_ms: u64,
    ) -> Result<(TaskRequest, Vec<String>), Box<Failure>> {
        let Some(node) = self.node() else { return Err(bug("the step has no node")) };
        let identifier = self.identifier(node);
        let name = self.rendered(&node.name, Mode::Null)?;
        let facts = &self.plan.run;
        let stage = self.plan.stage_of(self.scope.node).and_then(|(index, _)| self.plan.node(index));
        let (artifact, config_files) = artifact::of_step(&mut self, &spec)?;
        let target = self.target();
        let task_type = spec.task_type().to_owned();
        let task = StepTask {
            version: TASK_VERSION,
            step: Step { identifier, name, spec },
            execution: ExecutionRef {
                execution_id: facts.execution_id.clone(),
                pipeline: facts.pipeline.clone(),
                sequence_id: facts.sequence_id,
                stage: stage.map(|stage| stage.identifier.clone()).unwrap_or_default(),
                node: self.id.to_owned(),
                attempt,
                rolls_back: facts.rolls_back.clone(),
            },
            infrastructure: target.map(|target| Infrastructure {
                identifier: target.infrastructure.identifier.clone(),
                environment: target.environment.identifier.clone(),
                kind: target.infrastructure.kind.clone(),
                key: target.infrastructure.key.clone(),
            }),
            service: target.map(|target| self.service(target)).transpose()?,
            artifact,
            manifests: Vec::new(),
            config_files,
            undo: self.undo(node),
            env: self.env()?,
            secret_token: facts.secret_token,
            rehearsal: facts.rehearsal,
        };
        self.collect_placeholders(&task);
        let affinity =
            self.host.as_ref().map(|host| format!("{}/{host}", facts.execution_id)).unwrap_or_default();
        let request = TaskRequest {
            node: self.id.to_owned(),
            attempt,
            task_type,
            timeout_ms,
            selectors: self.selectors()?,
            secrets: self.secrets.iter().cloned().collect(),
            affinity,
            task: Box::new(task),
            abstractions: self.abstractions(attempt),
        };
        Ok((request, self.notices))
    }

    fn identifier(&self, node: &PlanNode) -> String {
        match self.state.runs.get(self.id).and_then(|run| run.iteration.as_ref()) {
            Some(iteration) => format!("{}{}", node.identifier, iteration.ending()),
            None => node.identifier.clone(),
        }
    }

    fn service(&self, target: &TargetPlan) -> Result<Service, Box<Failure>> {
        let mut variables = BTreeMap::new();
        for variable in &target.service.definition.variables {
            variables.insert(variable.name.clone(), self.variable("serviceVariables", variable)?);
        }
        let (identifier, name) = (target.service.identifier.clone(), target.service.name.clone());
        Ok(Service { identifier, name, variables })
    }

    /// Every genuine placeholder in the document names a secret that the agent needs.
    fn collect_placeholders(&mut self, task: &StepTask) {
        fn walk(json: &Json, token: i64, found: &mut BTreeSet<SecretRef>) {
            match json {
                Json::String(text) => found
                    .extend(placeholders(text).into_iter().filter(|p| p.token == token).map(|p| p.secret)),
                Json::Array(list) => list.iter().for_each(|item| walk(item, token, found)),
                Json::Object(map) => map.values().for_each(|value| walk(value, token, found)),
                Json::Null | Json::Bool(_) | Json::Number(_) => {}
            }
        }
        if let Ok(json) = serde_json::to_value(task) {
            walk(&json, task.secret_token, &mut self.secrets);
        }
    }

    /// The first level that has selectors wins entirely (pipeline.md 2.9).
    pub(crate) fn selectors(&self) -> Result<Vec<SelectorSet>, Box<Failure>> {
        let scope = match self.acts_for {
            Some((node, run)) => NodeScope { node, run, record: None, ..self.scope },
            None => self.scope,
        };
        let context = Context { scope: &scope, ..self.context() };
        let mut at = Some(scope.node);
        while let Some(node) = at.and_then(|index| self.plan.node(index)) {
            if let Some(field) = &node.selectors {
                let selectors = selector_list(field, &context)?;
                if !selectors.is_empty() {
                    let origin = match node.kind {
                        NodeKind::Pipeline => "pipeline",
                        NodeKind::Stage(_) => "stage",
                        NodeKind::Group => "stepGroup",
                        NodeKind::Step { .. } | NodeKind::Artifact | NodeKind::Parallel => "step",
                    };
                    return Ok(vec![SelectorSet { origin: origin.to_owned(), selectors }]);
                }
            }
            at = node.parent;
        }
        if let Some(field) = self.target().and_then(|target| target.infrastructure.selectors.as_ref()) {
            let selectors = selector_list(field, &context)?;
            if !selectors.is_empty() {
                return Ok(vec![SelectorSet { origin: "infrastructure".to_owned(), selectors }]);
            }
        }
        let mut sets: Vec<SelectorSet> = Vec::new();
        for connector in &self.connectors {
            let Some(field) = &connector.selectors else { continue };
            let origin = format!("connector:{}", connector.identifier);
            let selectors = selector_list(field, &context)?;
            if !selectors.is_empty() && sets.iter().all(|set| set.origin != origin) {
                sets.push(SelectorSet { origin, selectors });
            }
        }
        Ok(sets)
    }

    /// protocol.md §9.3.
    fn abstractions(&self, attempt: u32) -> Vec<(String, String)> {
        let facts = &self.plan.run;
        let mut pairs: Vec<(String, String)> = [
            ("accountId", facts.account.clone()),
            ("orgId", facts.org.clone()),
            ("projectId", facts.project.clone()),
            ("pipelineId", facts.pipeline.clone()),
            ("runSequence", facts.sequence_id.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec();
        let mut chain: Vec<&Run> = Vec::new();
        let mut at = Some(self.id);
        while let Some(run) = at.and_then(|id| self.state.runs.get(id)) {
            chain.push(run);
            at = run.parent.as_deref();
        }
        chain.reverse();
        let mut levels: Vec<String> = Vec::new();
        for run in chain {
            let Some(node) = self.plan.node(run.node) else { continue };
            // A loop stands as its iterations; a parallel block has no name.
            if run.phase == super::super::state::Phase::Loop || matches!(node.kind, NodeKind::Parallel) {
                continue;
            }
            let words = node.part.strip_suffix(node.identifier.as_str()).unwrap_or_default();
            levels.extend(words.split('.').filter(|word| !word.is_empty()).map(str::to_owned));
            levels.push(match &run.iteration {
                Some(iteration) => format!("{}{}", node.identifier, iteration.ending()),
                None => node.identifier.clone(),
            });
        }
        if let (Some(last), true) = (levels.last_mut(), attempt > 1) {
            last.push_str(&format!("_{}", attempt - 1));
        }
        // Level 0 is the word `pipeline`; the root's identifier stands in `pipelineId` already.
        if let Some(first) = levels.first_mut() {
            "pipeline".clone_into(first);
        }
        pairs.extend(levels.into_iter().enumerate().map(|(index, level)| (format!("level{index}"), level)));
        pairs
    }

    /// Undo data of the forward steps that this rollback step undoes.
    fn undo(&self, node: &PlanNode) -> Option<Json> {
        let NodeKind::Step { kind, spec, .. } = &node.kind else { return None };
        // A Kubernetes step that deletes a canary or swaps back knows its work by outcomes, ECS steps by what all of them
        // recorded.
        match kind.as_str() {
            "K8sRollingRollback" => super::earlier::undo(self),
            "EcsUndo" => super::ecs::undo(self, spec),
            _ => None,
        }
    }
}

fn selector_list(field: &Field, context: &Context<'_>) -> Result<Vec<String>, Box<Failure>> {
    let value = field_value(field, context).map_err(|error| bad_field(field, error))?;
    let Json::Array(list) = value else {
        return Err(bad_field(field, format!("delegateSelectors must be a list, found {value}")));
    };
    list.iter()
        .map(|item| match as_text(item) {
            Json::String(text) if !text.trim().is_empty() => Ok(text.trim().to_lowercase()),
            other => Err(bad_field(field, format!("a selector must be a text, found {other}"))),
        })
        .collect()
}

fn is_shell_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
