//! JSONPath in Jayway's dialect: `$`, `.name`, `['name']`, `[0]`, `[-1]`, `[1:3]`, `[0,2]`, `*`, `..name`, and filters
//! `[?(@.a == 'x' && @.n > 3)]`. The leading `$.` may be left out. A definite path gives the value or null; any other
//! gives the list of what it finds.

mod parse;

use crate::error::Kind;
use crate::ops::{self, Fault};
use crate::regexes;
use crate::value::{Segment, Value, count};
use std::cmp::Ordering;

/// Values that one path may visit; wildcards below `..` would multiply without it.
const MAX_VISITED: usize = 1_000_000;

enum Step {
    Child(Segment),
    Children(Vec<Segment>),
    Slice(Option<i64>, Option<i64>),
    All,
    Descend,
    Filter(Filter),
}

enum Filter {
    Or(Vec<Filter>),
    And(Vec<Filter>),
    Not(Box<Filter>),
    Exists(Operand),
    Compare(Operand, &'static str, Operand),
}

enum Operand {
    /// `@…` (true) or `$…` (false).
    Path(bool, Vec<Step>),
    Literal(Value),
}

/// What `path` finds in `root`.
pub(crate) fn select(path: &str, root: &Value) -> Result<Value, Fault> {
    let steps = parse::steps(path)?;
    let mut budget = MAX_VISITED;
    let found = walk(&steps, vec![root.clone()], root, &mut budget)?;
    if is_definite(&steps) {
        return Ok(found.into_iter().next().unwrap_or_default());
    }
    Ok(Value::list(found))
}

fn is_definite(steps: &[Step]) -> bool {
    steps.iter().all(|step| matches!(step, Step::Child(_)))
}

fn walk(steps: &[Step], start: Vec<Value>, root: &Value, budget: &mut usize) -> Result<Vec<Value>, Fault> {
    let mut current = start;
    for step in steps {
        let mut next = Vec::new();
        for value in &current {
            apply(step, value, root, &mut next, budget)?;
        }
        current = next;
    }
    Ok(current)
}

fn visit(budget: &mut usize) -> Result<(), Fault> {
    *budget = budget
        .checked_sub(1)
        .ok_or_else(|| (Kind::TooLarge, format!("the path visits more than {MAX_VISITED} values")))?;
    Ok(())
}

fn apply(
    step: &Step,
    value: &Value,
    root: &Value,
    next: &mut Vec<Value>,
    budget: &mut usize,
) -> Result<(), Fault> {
    visit(budget)?;
    match step {
        Step::Child(segment) => next.extend(child(value, segment)),
        Step::Children(segments) => next.extend(segments.iter().filter_map(|segment| child(value, segment))),
        Step::Slice(from, to) => {
            if let Value::List(items) = value {
                let length = count(items.len());
                let bound = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at.min(length) };
                let from = usize::try_from(bound(from.unwrap_or(0))).unwrap_or(0);
                let to = usize::try_from(bound(to.unwrap_or(length))).unwrap_or(0);
                next.extend(items.get(from..to.max(from)).unwrap_or(&[]).iter().cloned());
            }
        }
        Step::All => each(value, |item| {
            visit(budget)?;
            next.push(item.clone());
            Ok(())
        })?,
        Step::Descend => descend(value, next, budget)?,
        Step::Filter(filter) => match value {
            // Jayway applies a filter to a map as a whole and to a list's elements.
            Value::Map(_) => {
                if test(filter, value, root, budget)? {
                    next.push(value.clone());
                }
            }
            other => each(other, |item| {
                visit(budget)?;
                if test(filter, item, root, budget)? {
                    next.push(item.clone());
                }
                Ok(())
            })?,
        },
    }
    Ok(())
}

fn each(value: &Value, mut act: impl FnMut(&Value) -> Result<(), Fault>) -> Result<(), Fault> {
    match value {
        Value::List(items) => items.iter().try_for_each(&mut act),
        Value::Map(entries) => entries.values().try_for_each(&mut act),
        _ => Ok(()),
    }
}

/// The value and everything below it, parents first.
fn descend(value: &Value, out: &mut Vec<Value>, budget: &mut usize) -> Result<(), Fault> {
    let mut stack = vec![value.clone()];
    while let Some(value) = stack.pop() {
        visit(budget)?;
        match &value {
            Value::List(items) => stack.extend(items.iter().rev().cloned()),
            Value::Map(entries) => stack.extend(entries.values().rev().cloned()),
            _ => continue,
        }
        out.push(value);
    }
    Ok(())
}

fn child(value: &Value, segment: &Segment) -> Option<Value> {
    match (value, segment) {
        (Value::List(items), Segment::Index(index)) => {
            let at = if *index < 0 { index.checked_add(count(items.len()))? } else { *index };
            items.get(usize::try_from(at).ok()?).cloned()
        }
        (Value::Map(entries), segment) => entries.get(segment.to_string().as_str()).cloned(),
        _ => None,
    }
}

fn test(filter: &Filter, item: &Value, root: &Value, budget: &mut usize) -> Result<bool, Fault> {
    visit(budget)?;
    match filter {
        Filter::Or(terms) => {
            for term in terms {
                if test(term, item, root, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Filter::And(terms) => {
            for term in terms {
                if !test(term, item, root, budget)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Filter::Not(inner) => Ok(!test(inner, item, root, budget)?),
        Filter::Exists(operand) => Ok(value_of(operand, item, root, budget)?.is_some()),
        Filter::Compare(left, sign, right) => {
            let left = value_of(left, item, root, budget)?;
            let right = value_of(right, item, root, budget)?;
            compare(left.as_ref(), sign, right.as_ref())
        }
    }
}

fn compare(left: Option<&Value>, sign: &str, right: Option<&Value>) -> Result<bool, Fault> {
    let (Some(left), Some(right)) = (left, right) else {
        return Ok((sign == "==" && left.is_none() == right.is_none())
            || (sign == "!=" && left.is_none() != right.is_none()));
    };
    let order = || match (left, right) {
        (Value::Str(l), Value::Str(r)) => Some(l.text.cmp(&r.text)),
        (Value::Int(l), Value::Int(r)) => Some(l.cmp(r)),
        _ => number(left)?.partial_cmp(&number(right)?),
    };
    Ok(match sign {
        "==" => ops::same(left, right),
        "!=" => !ops::same(left, right),
        "<" => order().is_some_and(Ordering::is_lt),
        "<=" => order().is_some_and(Ordering::is_le),
        ">" => order().is_some_and(Ordering::is_gt),
        ">=" => order().is_some_and(Ordering::is_ge),
        "=~" => regexes::whole(&right.to_string())?.is_match(&left.to_string()),
        "in" => matches!(right, Value::List(items) if items.iter().any(|item| ops::same(item, left))),
        _ => matches!(right, Value::List(items) if !items.iter().any(|item| ops::same(item, left))),
    })
}

#[expect(clippy::cast_precision_loss, reason = "A comparison between a whole number and a fraction.")]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(i) => Some(*i as f64),
        Value::Float(x) => Some(*x),
        _ => None,
    }
}

fn value_of(
    operand: &Operand,
    item: &Value,
    root: &Value,
    budget: &mut usize,
) -> Result<Option<Value>, Fault> {
    match operand {
        Operand::Literal(value) => Ok(Some(value.clone())),
        Operand::Path(at_item, steps) => {
            let start = if *at_item { item } else { root };
            let found = walk(steps, vec![start.clone()], root, budget)?;
            if is_definite(steps) {
                return Ok(found.into_iter().next());
            }
            Ok(if found.is_empty() { None } else { Some(Value::list(found)) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str) -> String {
        let json = serde_json::json!({
            "status": "UP", "n": {"a": {"b": "c"}}, "x-y": 1,
            "items": [{"id": "i1", "n": 1, "tags": ["a"]}, {"id": "i2", "n": 2}, {"id": "i3", "n": 3.5}],
        });
        match select(path, &Value::from(json)) {
            Ok(value) => value.to_json().to_string(),
            Err((_, message)) => message,
        }
    }

    #[test]
    fn paths_of_the_dialect() {
        for (path, found) in [
            ("status", r#""UP""#),
            ("$.n.a.b", r#""c""#),
            ("$['n']['a'].b", r#""c""#),
            ("x-y", "1"),
            ("$.items[0].id", r#""i1""#),
            ("items[-1].id", r#""i3""#),
            ("items[*].id", r#"["i1","i2","i3"]"#),
            ("items[0,2].n", "[1,3.5]"),
            ("items[1:].n", "[2,3.5]"),
            ("items[:-1].n", "[1,2]"),
            ("$..id", r#"["i1","i2","i3"]"#),
            ("items[?(@.id == 'i2')].n", "[2]"),
            ("items[?(@.n > 1 && @.n < 3)].id", r#"["i2"]"#),
            ("items[?(@.n >= 2 || @.tags)].id", r#"["i1","i2","i3"]"#),
            ("items[?(!(@.tags))].id", r#"["i2","i3"]"#),
            ("items[?(@.id =~ /I[12]/i)].id", r#"["i1","i2"]"#),
            ("items[?(@.id in ['i1','i9'])].n", "[1]"),
            ("items[?(@.id nin ['i1'])].n", "[2,3.5]"),
            ("nope", "null"),
            ("nope.deeper[3]", "null"),
            ("$..nope", "[]"),
            ("$", &find("$")),
        ] {
            assert_eq!(find(path), found, "{path}");
        }
    }

    #[test]
    fn broken_paths_say_where() {
        for path in
            ["items[", "items[?(@.a ==)]", "a..", "a.", "['x", "a b", "items[?(@.a == 'x')", "[?(/x)]"]
        {
            assert!(find(path).contains("at character"), "{path}: {}", find(path));
        }
    }

    #[test]
    fn deep_and_wide_paths_are_bounded() {
        let deep = "(".repeat(10_000);
        assert!(find(&format!("items[?({deep}")).contains("nested deeper"));
        let bangs = "!".repeat(10_000);
        assert!(find(&format!("items[?({bangs}@.a)]")).contains("nested deeper"));
        let wide = Value::list(vec![Value::list(vec![Value::Int(1); 1000]); 1000]);
        assert!(select("$..*..*", &wide).is_err());
        let filters = format!("items{}", "[?(@".repeat(10_000));
        assert!(find(&filters).contains("nested deeper"));
    }
}
