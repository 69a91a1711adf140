//! Execution inputs: what a step asks for when it is reached (`<+input>.executionInput()`, pipeline.md 2.8).
//!
//! The rules of an input are resolved when the step begins to ask, so that whoever answers is judged by what they were
//! shown. What was given stays with the run: a later attempt does not ask again.

use super::state::{Phase, Run, State, Status};
use super::timers::{DEFAULT_STEP_MS, name};
use super::user::{Actor, Refusal};
use super::{Action, Machine, Millis, node_of};
use crate::fault::did_you_mean;
use crate::model::Variable;
use crate::model::duration::show_duration;
use crate::model::input_rules::{self, Rules, permitted};
use crate::model::read::is_input;
use crate::model::step::Spec;
use crate::plan::{NodeKind, PlanNode};
use crate::scope::NodeScope;
use proto::failure::{Failure, FailureKind};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Longest value, characters: it is kept with the execution.
const MAX_CHARS: usize = 65_536;

/// Inputs that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Asked {
    /// What is asked for, in the order of the document.
    pub inputs: Vec<AskedInput>,
    /// When it began to wait.
    pub asked_at: Millis,
    /// Until when somebody may answer.
    pub until: Millis,
    /// What was given, by name; `None`: nobody has answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<Given>,
}

/// One input that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AskedInput {
    /// What people call it.
    pub name: String,
    /// Used when it is left out; maybe an expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// It must be one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<String>>,
    /// Several of them may be given, separated by commas.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub several: bool,
    /// It must match as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
}

/// What was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Given {
    /// Who; empty: nobody did in time, and the defaults count.
    pub by: String,
    /// When.
    pub at: Millis,
    /// A value for each input.
    pub values: BTreeMap<String, Json>,
}

/// What was given to a step; the runs on its hosts share what was given to the step itself.
fn given<'s>(state: &'s State, id: &str) -> Option<&'s Given> {
    let run = state.runs.get(id)?;
    let own = |run: &'s Run| run.inputs.as_ref()?.given.as_ref();
    own(run).or_else(|| {
        let parent = state.runs.get(run.parent.as_deref()?)?;
        own(parent).filter(|_| parent.node == run.node)
    })
}

/// Variables of a stage with what was given in their places; `None`: nothing was asked for.
pub(crate) fn given_variables(run: &Run, node: &PlanNode, variables: &[Variable]) -> Option<Vec<Variable>> {
    let given = run.inputs.as_ref()?.given.as_ref()?;
    let mut variables = variables.to_vec();
    for variable in &mut variables {
        let ask = node.asks.iter().find(|ask| ask.path == variable.value.path);
        if let Some(value) = ask.and_then(|ask| given.values.get(&ask.name)) {
            variable.value.value = value.clone();
        }
    }
    Some(variables)
}

/// The spec of a step with what was given in its places.
pub(super) fn filled(
    state: &State,
    id: &str,
    node: &PlanNode,
    spec: &Spec,
) -> Result<Box<Spec>, Box<Failure>> {
    let bug = || {
        let message = format!("what was given to `{}` cannot be put into it", node.identifier);
        Box::new(Failure::new(FailureKind::Bug, "PIPE-005", message))
    };
    let given = given(state, id).ok_or_else(bug)?;
    let value = |path: &str| {
        let ask = node.asks.iter().find(|ask| ask.path == path)?;
        given.values.get(&ask.name).cloned()
    };
    input_rules::filled(spec, &value).map(Box::new).map_err(|_| bug())
}

/// The values that a step goes on with when these are given: by whole names, with defaults for what is left out.
///
/// **Errors**: what is missing, unknown or not allowed.
pub(super) fn complete(
    state: &State,
    id: &str,
    values: &BTreeMap<String, Json>,
) -> Result<BTreeMap<String, Json>, Refusal> {
    let bad = |field: &str, why: String| Refusal::BadValue { field: field.to_owned(), why };
    let asked = state.runs.get(id).and_then(|run| run.inputs.as_deref());
    let Some(asked) = asked else { return Err(bad("inputs", "the step asks for none".to_owned())) };
    let mut named: BTreeMap<&str, &Json> = BTreeMap::new();
    for (name, value) in values.iter().filter(|(_, value)| !value.is_null()) {
        let input = asked.named(name)?;
        if named.insert(&input.name, value).is_some() {
            return Err(bad(name, format!("`{}` is given twice", input.name)));
        }
    }
    let mut all = BTreeMap::new();
    for input in &asked.inputs {
        let value = match (named.get(input.name.as_str()), &input.default) {
            (Some(value), _) => (*value).clone(),
            (None, Some(default)) => Json::String(default.clone()),
            (None, None) => return Err(bad(&input.name, "a value is required".to_owned())),
        };
        check(state, id, asked, input, &value).map_err(|why| bad(&input.name, why))?;
        all.insert(input.name.clone(), value);
    }
    Ok(all)
}

impl Asked {
    /// The input of this name; the end of a name is enough if it fits one only.
    fn named(&self, name: &str) -> Result<&AskedInput, Refusal> {
        if let Some(exact) = self.inputs.iter().find(|input| input.name == name) {
            return Ok(exact);
        }
        let end = format!(".{name}");
        let fitting: Vec<&AskedInput> = self.inputs.iter().filter(|i| i.name.ends_with(&end)).collect();
        let names: Vec<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
        let why = match fitting.as_slice() {
            [one] => return Ok(one),
            [] => {
                let near = did_you_mean(name, names.iter().copied());
                let near = near.map(|near| format!("; {near}")).unwrap_or_default();
                format!("the step asks for no such input; it asks for {}{near}", names.join(", "))
            }
            several => {
                let names: Vec<&str> = several.iter().map(|input| input.name.as_str()).collect();
                format!("it may mean {}; write the whole name", names.join(" or "))
            }
        };
        Err(Refusal::BadValue { field: name.to_owned(), why })
    }
}

/// Whether a value is allowed; a value with expressions is judged by what they give.
fn check(state: &State, id: &str, asked: &Asked, input: &AskedInput, value: &Json) -> Result<(), String> {
    let node = state.runs.get(id).map_or(crate::plan::ROOT, |run| run.node);
    let scope = NodeScope {
        plan: &state.plan,
        state: Some(state),
        node,
        run: Some(id),
        record: None,
        iteration: None,
    };
    let context = expr::Context {
        scope: &scope,
        now_ms: i64::try_from(asked.asked_at).unwrap_or(i64::MAX),
        secret_token: state.plan.run.secret_token,
    };
    let one = |value: &Json| -> Result<(), String> {
        let text = match value {
            Json::String(text) => text.clone(),
            Json::Number(_) | Json::Bool(_) => value.to_string(),
            Json::Null | Json::Array(_) | Json::Object(_) => {
                return Err("expected a text, a number, a truth value, or a list of them".to_owned());
            }
        };
        if text.chars().count() > MAX_CHARS {
            return Err(format!("the value has more than {MAX_CHARS} characters"));
        }
        if is_input(&text) {
            return Err("a value cannot itself be a runtime input".to_owned());
        }
        if text.contains(expr::PLACEHOLDER_HEAD) {
            return Err("the value imitates the placeholder of a secret".to_owned());
        }
        // Without a rule to judge it by, what an expression gives is known only when the step is made of it.
        let ruled = input.allowed.is_some() || input.regex.is_some();
        let rendered = match (text.contains("<+"), ruled) {
            (true, true) => expr::render(&text, &context, expr::Mode::Throw).map_err(|e| e.to_string())?,
            (true, false) => return expr::references(&text).map(drop).map_err(|error| error.to_string()),
            (false, _) => text,
        };
        permitted(&rendered, input.allowed.as_deref(), input.several, input.regex.as_deref())
    };
    match value {
        Json::Array(list) => list.iter().try_for_each(one),
        single => one(single),
    }
}

impl Machine<'_> {
    /// Whether a step still has to ask for something.
    pub(super) fn asks(&self, id: &str, node: &PlanNode) -> bool {
        !node.asks.is_empty() && given(self.state, id).is_none()
    }

    /// A step begins to wait for inputs. They have its timeout; what it does then has it anew.
    pub(super) fn wait_for_inputs(&mut self, id: &str, attempt: u32, timeout_ms: Option<u64>) {
        let plan = self.plan.clone();
        let Some(node) = self.run(id).and_then(|run| node_of(&plan, run)) else { return };
        let until = self.at.saturating_add(timeout_ms.unwrap_or(DEFAULT_STEP_MS));
        let asked = {
            let scope = self.scope(id);
            let context = self.context(&scope);
            let resolve = |ask: &crate::plan::InputAsk| -> Result<AskedInput, String> {
                let rules = Rules::of(&ask.text);
                let allowed = rules.allowed_in(&context)?;
                let Rules { default, many, regex, .. } = rules;
                Ok(AskedInput { name: ask.name.clone(), default, allowed, several: many, regex })
            };
            node.asks.iter().map(resolve).collect::<Result<Vec<_>, _>>()
        };
        let inputs = match asked {
            Ok(inputs) => inputs,
            Err(message) => {
                let failure = Failure::new(FailureKind::BadSpec, "PIPE-001", message);
                return self.fail(id, failure, Status::Failed);
            }
        };
        let asked = Asked { inputs, asked_at: self.at, until, given: None };
        self.update(id, |run| {
            run.phase = Phase::Input;
            run.status = Status::InputWaiting;
            run.inputs = Some(Box::new(asked));
        });
        self.actions.push(Action::SetTimer { timer: name("timeout", attempt, id), at: until });
    }

    /// Somebody gave what the step asks for.
    pub(super) fn take_inputs(&mut self, id: &str, by: &Actor, values: &BTreeMap<String, Json>) {
        let Ok(values) = complete(self.state, id, values) else { return };
        self.go_on_with(id, &by.name, values);
    }

    /// Nobody gave it in time.
    pub(super) fn input_expired(&mut self, id: &str) {
        let Some(run) = self.run(id) else { return };
        let Some(asked) = &run.inputs else { return };
        let names: Vec<&str> = asked.inputs.iter().map(|input| input.name.as_str()).collect();
        let waited = show_duration(self.at.saturating_sub(asked.asked_at));
        let message = format!("nobody gave {} within {waited}", names.join(", "));
        let failure = Failure::new(FailureKind::InputTimeoutError, "PIPE-010", message)
            .hint("answer with `delegate execution input`, or give the inputs defaults and the step the failure strategy `ProceedWithDefaultValues`");
        self.fail(id, failure, Status::Expired);
    }

    /// The strategy for inputs that nobody gave.
    pub(super) fn proceed_with_defaults(&mut self, id: &str, status: Status) {
        if self.run(id).is_none_or(|run| run.phase != Phase::Input) {
            return self.end(id, status);
        }
        match complete(self.state, id, &BTreeMap::new()) {
            Ok(values) => {
                self.update(id, |run| {
                    run.failure = None;
                    run.notices.push("nobody gave the inputs in time; their defaults count".to_owned());
                });
                self.go_on_with(id, "", values);
            }
            Err(refusal) => {
                let note = format!("the step cannot go on with default values: {refusal}");
                self.update(id, |run| run.notices.push(note));
                self.end(id, status);
            }
        }
    }

    /// Everything is known: the step does what it is for.
    fn go_on_with(&mut self, id: &str, by: &str, values: BTreeMap<String, Json>) {
        let plan = self.plan.clone();
        let at = self.at;
        self.clear_timeout(id);
        self.update(id, |run| {
            run.status = Status::Running;
            run.phase = Phase::Idle;
            if let Some(asked) = &mut run.inputs {
                asked.given = Some(Given { by: by.to_owned(), at, values });
            }
        });
        let Some(run) = self.run(id) else { return };
        let Some(node) = node_of(&plan, run) else { return };
        if run.attempt > 0 {
            return self.launch(id);
        }
        if matches!(node.kind, NodeKind::Stage(_)) {
            return self.enter_stage(id, node);
        }
        // It asked on behalf of its hosts.
        match self.loop_items(id, node) {
            Ok(items) => self.begin_loop(id, items),
            Err(failure) => self.fail(id, *failure, Status::Failed),
        }
    }
}
