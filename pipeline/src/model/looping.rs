//! Loops as written (`strategy: matrix | repeat | parallelism`) and the list of iterations that they stand for
//! (pipeline.md 2.3). Pure: whoever expands a loop brings the resolver of its expressions.

use super::as_text;
use super::read::{Field, Reader, one_of};
use crate::fault::{Fault, Findings};
use crate::yaml::Value;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeSet;

/// Most iterations of a loop. More is a mistake in the expression that gives the items.
pub(crate) const MAX_ITERATIONS: usize = 10_000;

/// Most combinations that `exclude` may choose from: the product of some long axes has no bound of its own.
const MAX_COMBINATIONS: usize = 100_000;

/// A loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Looping {
    /// `matrix`: every combination of the values of its axes.
    Matrix {
        /// Axes in their written order; each is a list or an expression that gives one.
        axes: Vec<(String, Field)>,
        /// Maps of axis values: a combination that agrees with all of one of them is left out.
        exclude: Option<Field>,
        /// At most so many at once; `None`: all.
        max_concurrency: Option<Field>,
        /// Text that stands in the identifiers instead of the axis indexes.
        node_name: Option<Field>,
    },
    /// `repeat`.
    Repeat {
        /// Items.
        items: Option<Field>,
        /// Number of iterations.
        times: Option<Field>,
        /// At most so many at once; `None`: all.
        max_concurrency: Option<Field>,
        /// Which part of the items, in what chunks, and what a failure stops.
        #[serde(default)]
        more: Box<RepeatMore>,
    },
    /// `parallelism: n`.
    Parallelism {
        /// Number of copies.
        count: Field,
        /// At most so many at once; `None`: all.
        max_concurrency: Option<Field>,
    },
}

/// What a `repeat` may say beside its items.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RepeatMore {
    /// First item, from 0.
    pub start: Option<Field>,
    /// The item behind the last one.
    pub end: Option<Field>,
    /// Items of one iteration.
    pub partition_size: Option<Field>,
    /// `start`, `end` and `partitionSize` are percentages of the items.
    pub percentage: bool,
    /// Text that stands in the identifiers instead of the index.
    pub node_name: Option<Field>,
    /// `onFailure: SkipQueued`: iterations that have not begun when one fails do not begin any more.
    pub skip_queued: bool,
}

/// What the item of an iteration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoopKind {
    /// `<+repeat.item>`.
    #[default]
    Repeat,
    /// `<+repeat.partition>`.
    Partition,
    /// `<+matrix.AXIS>`.
    Matrix,
    /// Only counted.
    Count,
}

/// The iterations of a loop that has begun. They never change, so they stand apart from the run that counts them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Items {
    /// One a iteration.
    pub items: Vec<Json>,
    /// What each iteration's identifier ends with. Empty: `_0`, `_1` …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub postfixes: Vec<String>,
    /// What the items are.
    pub kind: LoopKind,
    /// Made by rule R7: the items are hosts of the stage.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_host: bool,
    /// Iterations at once, at least 1.
    pub limit: usize,
    /// See [`RepeatMore::skip_queued`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_queued: bool,
}

impl Items {
    /// What the identifier of an iteration ends with.
    pub fn postfix(&self, index: usize) -> String {
        self.postfixes.get(index).cloned().unwrap_or_else(|| format!("_{index}"))
    }
}

/// Why a loop has no iterations: the key that is wrong, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct LoopError {
    pub(crate) key: &'static str,
    pub(crate) why: String,
    /// It only names what is not known yet.
    pub(crate) unresolved: bool,
}

fn bad(key: &'static str, why: impl Into<String>) -> LoopError {
    LoopError { key, why: why.into(), unresolved: false }
}

/// Resolves a field to its value.
pub(crate) type Resolve<'a> = dyn Fn(&Field) -> Result<Json, expr::ExprError> + 'a;

impl Looping {
    /// Every field that may hold an expression, `nodeName` aside: it is resolved in each iteration.
    pub fn fields(&self) -> Vec<&Field> {
        match self {
            Looping::Matrix { axes, exclude, max_concurrency, .. } => {
                axes.iter().map(|(_, field)| field).chain(exclude).chain(max_concurrency).collect()
            }
            Looping::Repeat { items, times, max_concurrency, more } => items
                .iter()
                .chain(times)
                .chain(max_concurrency)
                .chain(&more.start)
                .chain(&more.end)
                .chain(&more.partition_size)
                .collect(),
            Looping::Parallelism { count, max_concurrency } => {
                std::iter::once(count).chain(max_concurrency).collect()
            }
        }
    }

    /// `nodeName`.
    pub fn node_name(&self) -> Option<&Field> {
        match self {
            Looping::Matrix { node_name, .. } => node_name.as_ref(),
            Looping::Repeat { more, .. } => more.node_name.as_ref(),
            Looping::Parallelism { .. } => None,
        }
    }

    /// The iterations, without `nodeName`. A `repeat` over nothing gives none; a matrix without a combination is an
    /// error.
    pub(crate) fn expand(&self, resolve: &Resolve<'_>) -> Result<Items, LoopError> {
        let mut all = match self {
            Looping::Matrix { axes, exclude, .. } => matrix(axes, exclude.as_ref(), resolve)?,
            Looping::Repeat { items: Some(items), more, .. } => repeat(items, more, resolve)?,
            Looping::Repeat { times: Some(count), more, .. } => {
                Items { skip_queued: more.skip_queued, ..counted("times", count, resolve)? }
            }
            Looping::Repeat { .. } => Items::default(),
            Looping::Parallelism { count, .. } => counted("parallelism", count, resolve)?,
        };
        let (Looping::Matrix { max_concurrency, .. }
        | Looping::Repeat { max_concurrency, .. }
        | Looping::Parallelism { max_concurrency, .. }) = self;
        let limit = match max_concurrency {
            Some(field) => number("maxConcurrency", field, resolve)?,
            None => 0,
        };
        all.limit = if limit == 0 { all.items.len().max(1) } else { limit };
        Ok(all)
    }
}

fn value(key: &'static str, field: &Field, resolve: &Resolve<'_>) -> Result<Json, LoopError> {
    resolve(field).map_err(|error| LoopError {
        key,
        unresolved: error.is_unresolved() || error.kind == expr::Kind::Refused,
        why: error.to_string(),
    })
}

fn number(key: &'static str, field: &Field, resolve: &Resolve<'_>) -> Result<usize, LoopError> {
    let value = value(key, field, resolve)?;
    let number = match &value {
        Json::Number(number) => number.as_u64(),
        Json::String(text) => text.trim().trim_end_matches('%').parse().ok(),
        _ => None,
    };
    number
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| bad(key, format!("expected a whole number, found {value}")))
}

fn list(key: &'static str, field: &Field, resolve: &Resolve<'_>) -> Result<Vec<Json>, LoopError> {
    match value(key, field, resolve)? {
        Json::Array(list) => Ok(list),
        Json::String(text) => match serde_json::from_str(&text) {
            // An output variable is a text even when it holds a list.
            Ok(Json::Array(list)) => Ok(list),
            _ => {
                let why = format!(
                    "expected a list, found `{text}`; a text with commas becomes one by `.split(\",\")`"
                );
                Err(bad(key, why))
            }
        },
        other => Err(bad(key, format!("expected a list, found {other}"))),
    }
}

fn within(key: &'static str, count: usize) -> Result<(), LoopError> {
    if count > MAX_ITERATIONS {
        return Err(bad(key, format!("{count} iterations; the limit is {MAX_ITERATIONS}")));
    }
    Ok(())
}

fn counted(key: &'static str, count: &Field, resolve: &Resolve<'_>) -> Result<Items, LoopError> {
    let count = number(key, count, resolve)?;
    within(key, count)?;
    Ok(Items { items: (0..count).map(Json::from).collect(), kind: LoopKind::Count, ..Items::default() })
}

fn repeat(items: &Field, more: &RepeatMore, resolve: &Resolve<'_>) -> Result<Items, LoopError> {
    let mut items = list("items", items, resolve)?;
    let size = items.len();
    let bound = |key: &'static str, field: &Option<Field>| match field {
        Some(field) => number(key, field, resolve).map(Some),
        None => Ok(None),
    };
    let scaled = |of: usize, number: usize| if more.percentage { percent(of, number) } else { number };
    let start = bound("start", &more.start)?.map_or(0, |start| scaled(size, start)).min(size);
    let end = bound("end", &more.end)?.map_or(size, |end| match more.percentage {
        // A percentage that rounds to nothing still means the first item.
        true => percent(size, end).max(1),
        false => end,
    });
    items.truncate(end.min(size));
    items.drain(..start.min(items.len()));
    let mut kind = LoopKind::Repeat;
    if let Some(chunk) = bound("partitionSize", &more.partition_size)? {
        if chunk == 0 {
            return Err(bad("partitionSize", "expected at least 1"));
        }
        let chunk = scaled(items.len(), chunk).clamp(1, items.len().max(1));
        items = items.chunks(chunk).map(|chunk| Json::Array(chunk.to_vec())).collect();
        kind = LoopKind::Partition;
    }
    within("items", items.len())?;
    Ok(Items { items, kind, skip_queued: more.skip_queued, ..Items::default() })
}

/// `number` percent of `of`, rounded to the nearest whole; more than all is all.
fn percent(of: usize, number: usize) -> usize {
    (of.saturating_mul(number.min(100)) + 50) / 100
}

fn matrix(
    axes: &[(String, Field)],
    exclude: Option<&Field>,
    resolve: &Resolve<'_>,
) -> Result<Items, LoopError> {
    let mut values: Vec<(&str, Vec<Json>)> = Vec::new();
    let mut product = 1usize;
    for (name, field) in axes {
        let list = list("matrix", field, resolve)
            .map_err(|error| LoopError { why: format!("axis `{name}`: {}", error.why), ..error })?;
        product = product.saturating_mul(list.len());
        values.push((name, list));
    }
    if product > MAX_COMBINATIONS {
        return Err(bad("matrix", format!("{product} combinations; the limit is {MAX_ITERATIONS}")));
    }
    let excluded = match exclude {
        Some(field) => list("exclude", field, resolve)?,
        None => Vec::new(),
    };
    let names: BTreeSet<&str> = values.iter().map(|(name, _)| *name).collect();
    for entry in &excluded {
        let Json::Object(map) = entry else {
            return Err(bad("exclude", format!("expected a map of axes, found {entry}")));
        };
        if let Some(name) = map.keys().find(|name| !names.contains(name.as_str())) {
            return Err(bad("exclude", format!("the matrix has no axis `{name}`")));
        }
    }
    let mut all = Items { kind: LoopKind::Matrix, ..Items::default() };
    for combination in 0..product {
        // The first axis is the slowest: it is the highest digit.
        let mut rest = combination;
        let mut item = serde_json::Map::new();
        let mut digits = Vec::new();
        for (name, list) in values.iter().rev() {
            let digit = rest % list.len().max(1);
            rest /= list.len().max(1);
            item.insert((*name).to_owned(), list.get(digit).cloned().unwrap_or_default());
            digits.push(digit);
        }
        let agrees = |entry: &Json| {
            entry.as_object().is_some_and(|map| {
                !map.is_empty()
                    && map.iter().all(|(name, value)| item.get(name).map(as_text) == Some(as_text(value)))
            })
        };
        if excluded.iter().any(agrees) {
            continue;
        }
        all.postfixes.push(digits.iter().rev().map(|digit| format!("_{digit}")).collect());
        all.items.push(Json::Object(item));
    }
    if all.items.is_empty() {
        return Err(bad("matrix", "no combination is left: an axis is empty, or `exclude` names them all"));
    }
    within("matrix", all.items.len())?;
    Ok(all)
}

/// The postfix that a rendered `nodeName` gives: what an identifier cannot hold becomes `_`.
pub(crate) fn name_postfix(rendered: &str) -> String {
    let plain: String = rendered
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
        .take(64)
        .collect();
    format!("_{plain}")
}

/// Reads `strategy`.
pub(super) fn read_looping(reader: &mut Reader<'_>, findings: &mut Findings) -> Option<Looping> {
    let strategy_node = reader.node("strategy")?;
    let mut strategy = reader.map("strategy", findings)?;
    let forms = ["matrix", "repeat", "parallelism"];
    let written: Vec<&str> = forms.into_iter().filter(|form| strategy_node.get(form).is_some()).collect();
    if written.len() > 1 {
        let message =
            format!("expected exactly one of {}, found {}", forms.join(", "), written.join(" and "));
        findings.fault(strategy.at(), strategy.path(), message);
    }
    let shared_limit = strategy.any("maxConcurrency");
    let looping = if let Some(matrix) = strategy.map("matrix", findings) {
        read_matrix(matrix, strategy_node.get("matrix")?, shared_limit, findings)
    } else if let Some(repeat) = strategy.map("repeat", findings) {
        read_repeat(repeat, shared_limit, findings)
    } else if let Some(count) = strategy.any("parallelism") {
        Some(Looping::Parallelism { count, max_concurrency: shared_limit })
    } else {
        findings.fault(strategy.at(), strategy.path(), "expected `matrix`, `repeat` or `parallelism`");
        None
    };
    strategy.finish(findings);
    looping
}

fn read_matrix(
    mut matrix: Reader<'_>,
    node: &crate::yaml::Node,
    shared_limit: Option<Field>,
    findings: &mut Findings,
) -> Option<Looping> {
    let exclude = matrix.any("exclude");
    let max_concurrency = matrix.any("maxConcurrency").or(shared_limit);
    let node_name = matrix.field("nodeName", findings);
    let mut axes = Vec::new();
    let Value::Map(map) = &node.value else { return None };
    // Every other key is an axis, so there is no unknown one.
    for entry in
        map.entries.iter().filter(|e| !["exclude", "maxConcurrency", "nodeName"].contains(&e.key.as_str()))
    {
        let path = matrix.sub(&entry.key);
        match &entry.value.value {
            Value::List(_) | Value::Scalar { .. } => {
                axes.push((entry.key.clone(), Field::new(&entry.value, path)))
            }
            Value::Null | Value::Map(_) => {
                let message =
                    format!("the axis `{}` must be a list, found {}", entry.key, entry.value.kind());
                let near = crate::fault::did_you_mean(&entry.key, ["exclude", "maxConcurrency", "nodeName"]);
                findings.push(Fault::at(&entry.value.at, path, message).suggest(near));
            }
        }
    }
    if axes.is_empty() {
        findings.fault(matrix.at(), matrix.path(), "the matrix has no axis");
        return None;
    }
    Some(Looping::Matrix { axes, exclude, max_concurrency, node_name })
}

fn read_repeat(
    mut repeat: Reader<'_>,
    shared_limit: Option<Field>,
    findings: &mut Findings,
) -> Option<Looping> {
    let items = repeat.any("items");
    let times = repeat.any("times");
    let max_concurrency = repeat.any("maxConcurrency").or(shared_limit);
    let unit = repeat.field("unit", findings);
    let percentage = unit.is_some_and(|unit| {
        one_of(&unit, "unit", &[("Count", false), ("Percentage", true)], findings).unwrap_or(false)
    });
    let on_failure = repeat.field("onFailure", findings);
    let skip_queued = on_failure.is_some_and(|field| {
        one_of(&field, "value of `onFailure`", &[("RunAll", false), ("SkipQueued", true)], findings)
            .unwrap_or(false)
    });
    let more = RepeatMore {
        start: repeat.any("start"),
        end: repeat.any("end"),
        partition_size: repeat.any("partitionSize"),
        percentage,
        node_name: repeat.field("nodeName", findings),
        skip_queued,
    };
    if items.is_some() == times.is_some() {
        findings.fault(repeat.at(), repeat.path(), "`repeat` needs either `items` or `times`");
    }
    if items.is_none() {
        for (key, field) in
            [("start", &more.start), ("end", &more.end), ("partitionSize", &more.partition_size)]
        {
            if let Some(field) = field {
                findings.fault(&field.at, &field.path, format!("`{key}` needs `items`"));
            }
        }
    }
    repeat.finish(findings);
    Some(Looping::Repeat { items, times, max_concurrency, more: Box::new(more) })
}
