//! One Rego module: is it one, and what does it deny?

use super::{Limits, builtins};
use regorus::utils::limits::{ExecutionTimerConfig, LimitError, PolicyLengthConfig};
use regorus::{Engine, Value};
use serde_json::Value as Json;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

/// Work units between two looks at the clock: rare enough to cost nothing, often enough that a rule ends in time.
const CHECK_EVERY: NonZeroU32 = NonZeroU32::new(64).unwrap();
/// Characters of one line. The interpreter's own limit is shorter than what generated tables need.
const MAX_COLUMN: NonZeroU32 = NonZeroU32::new(4096).unwrap();
/// How the module is called inside the interpreter; messages name the policy instead.
const FILE: &str = "policy";

/// Which syntax a policy is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Before OPA 1.0: `deny[msg] { … }`.
    V0,
    /// `deny contains msg if { … }`; also what `import rego.v1` asks for.
    V1,
}

/// Why a text is no policy. Lines and columns count from 1, inside the Rego text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SyntaxFault {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

/// Why a policy gave no answer. It counts as violated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvaluationError {
    /// The stored text is no policy.
    #[error("the policy cannot be read: {0}")]
    Syntax(SyntaxFault),
    /// It ran for too long.
    #[error("the evaluation was ended after {} s; does a rule loop over too much?", limit.as_secs_f32())]
    Time {
        /// What it was given.
        limit: Duration,
    },
    /// A rule failed: a conflict, a wrong type, too much memory.
    #[error("{0}")]
    Rule(String),
}

/// Reads a text in the dialect that it is written in.
///
/// **Shape**: v1 is tried first, as OPA 1.x would; a text without the word `if` that v1 refuses is v0, and so is one
/// that imports `future.keywords`. A v0 text that holds `if` by accident is told what v1 lacks.
///
/// **Errors**: the first syntax error, a rule `deny` that is missing, or a limit.
pub fn check(rego: &str, limits: &Limits) -> Result<Dialect, SyntaxFault> {
    Evaluator::new(rego, limits).map(|evaluator| evaluator.dialect)
}

/// A policy that was read and may be asked.
pub struct Evaluator {
    engine: Engine,
    dialect: Dialect,
    /// Path of the rule `deny`.
    deny: String,
    limits: Limits,
}

impl Evaluator {
    /// See [`check`].
    pub fn new(rego: &str, limits: &Limits) -> Result<Evaluator, SyntaxFault> {
        let start = |message: String| SyntaxFault { line: 1, column: 1, message };
        if rego.len() > limits.rego_bytes {
            return Err(start(format!(
                "the policy has {} bytes; at most {} are taken",
                rego.len(),
                limits.rego_bytes
            )));
        }
        super::nesting::check(rego)?;
        let (mut engine, dialect) = read(rego, limits)?;
        let rules = engine.get_modules().first().map_or(0, |module| module.policy.len());
        if rules > limits.rules {
            return Err(start(format!("the policy has {rules} rules; at most {} are taken", limits.rules)));
        }
        let packages =
            engine.get_policy_package_components().map_err(|error| fault_of(&error.to_string()))?;
        let path = packages.into_iter().next().map(|package| rule_path(&package.components));
        let deny = format!("{}.deny", path.unwrap_or_else(|| "data".to_owned()));
        // Without the rule there is nothing to ask: it would pass everything, and its author would not notice.
        if !engine.has_declared_rule_rooted_at(FILE, "deny").unwrap_or(false) {
            let known = "expected a set of messages such as `deny contains msg if { … }` (v1) or `deny[msg] { … }` (v0)";
            return Err(start(format!("the policy has no rule `deny`; {known}")));
        }
        Ok(Evaluator { engine, dialect, deny, limits: *limits })
    }

    /// The syntax that it is written in.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The messages of the rule `deny`; none: not violated.
    ///
    /// **Shape**: `now_ns` is what `time.now_ns()` gives, nanoseconds since 1970. Messages are in the order of the set,
    /// at most [`Limits::messages`]; what is no text is shown as JSON. **Blocks** until `deadline` at the latest, give or
    /// take one call of a function.
    pub fn deny(&self, input: &Json, now_ns: i64, deadline: Instant) -> Result<Vec<String>, EvaluationError> {
        let mut engine = self.engine.clone();
        builtins::replace(&mut engine, now_ns, self.limits.made_bytes)
            .map_err(|error| EvaluationError::Rule(error.to_string()))?;
        let left = deadline.saturating_duration_since(Instant::now());
        engine.set_execution_timer_config(ExecutionTimerConfig { limit: left, check_interval: CHECK_EVERY });
        engine.set_input(Value::from(input.clone()));
        match engine.eval_rule(self.deny.clone()) {
            Ok(value) => self.messages(&value),
            Err(error) => Err(match error.downcast_ref::<LimitError>() {
                Some(LimitError::TimeLimitExceeded { .. }) => {
                    EvaluationError::Time { limit: self.limits.time }
                }
                Some(other) => EvaluationError::Rule(other.to_string()),
                None => EvaluationError::Rule(fault_of(&error.to_string()).to_string()),
            }),
        }
    }

    /// A set or list of messages, or whatever else was bound to `deny`: only what is clearly empty denies nothing.
    fn messages(&self, value: &Value) -> Result<Vec<String>, EvaluationError> {
        let one = |value: &Value| {
            let text = match value {
                Value::String(text) => text.to_string(),
                other => serde_json::to_string(other).unwrap_or_else(|error| error.to_string()),
            };
            cut(text, self.limits.message_bytes)
        };
        let (all, mut messages): (usize, Vec<String>) = match value {
            Value::Undefined | Value::Bool(false) => (0, Vec::new()),
            Value::Bool(true) => (1, vec!["denied".to_owned()]),
            Value::Set(set) => (set.len(), set.iter().take(self.limits.messages).map(one).collect()),
            Value::Array(list) => (list.len(), list.iter().take(self.limits.messages).map(one).collect()),
            Value::Object(map) => (map.len(), map.keys().take(self.limits.messages).map(one).collect()),
            other => (1, vec![one(other)]),
        };
        if all > messages.len() {
            messages.push(format!("… and {} more", all - messages.len()));
        }
        Ok(messages)
    }
}

/// Reads the text, in v1 or v0.
fn read(rego: &str, limits: &Limits) -> Result<(Engine, Dialect), SyntaxFault> {
    let parse = |dialect: Dialect| {
        let mut engine = Engine::new();
        engine.set_rego_v0(dialect == Dialect::V0);
        let max_file_bytes = NonZeroUsize::new(limits.rego_bytes).unwrap_or(NonZeroUsize::MAX);
        let lines =
            PolicyLengthConfig { max_col: MAX_COLUMN, max_file_bytes, ..PolicyLengthConfig::default() };
        engine.set_policy_length_config(lines);
        match engine.add_policy(FILE.to_owned(), rego.to_owned()) {
            Ok(_) => Ok((engine, dialect)),
            Err(error) => Err(fault_of(&error.to_string())),
        }
    };
    match parse(Dialect::V1) {
        Ok(read) => Ok(read),
        // The fault of the dialect that was meant is the useful one.
        Err(_) if may_be_v0(rego) => parse(Dialect::V0),
        Err(fault) => Err(fault),
    }
}

fn may_be_v0(rego: &str) -> bool {
    let code: Vec<&str> = rego.lines().map(|line| line.split('#').next().unwrap_or_default()).collect();
    let word = |line: &&str, word: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
    };
    let imports = |what: &str| code.iter().any(|line| line.trim_start().starts_with(what));
    !imports("import rego.v1")
        && (imports("import future.keywords") || !code.iter().any(|line| word(line, "if")))
}

/// `data.a["b.c"]`.
fn rule_path(components: &[String]) -> String {
    let mut path = "data".to_owned();
    for component in components {
        let plain = component.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !component.starts_with(|c: char| c.is_ascii_digit());
        if plain {
            path.push('.');
            path.push_str(component);
        } else {
            path.push_str(&format!("[{}]", Json::String(component.clone())));
        }
    }
    path
}

/// The place and the message in a text such as `--> policy:2:11 … error: MESSAGE`.
fn fault_of(text: &str) -> SyntaxFault {
    let place = text.lines().find_map(|line| line.trim().strip_prefix("--> policy:"));
    let mut numbers =
        place.into_iter().flat_map(|place| place.split(':')).map(|number| number.trim().parse());
    let mut number = || numbers.next().and_then(Result::ok).unwrap_or(1);
    let (line, column) = (number(), number());
    let message = text.split_once("error: ").map_or(text, |(_, message)| message).trim();
    let message = message.replace("--> policy:", "line ").replace("policy:", "line ");
    SyntaxFault { line, column, message: cut(message, 1000) }
}

/// At most so many bytes, whole characters.
fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
