//! Operators and coercions (pipeline.md §3.3, values measured against JEXL).

use crate::ast::Binary;
use crate::error::Kind;
use crate::regexes;
use crate::value::{Value, count};
use std::cmp::Ordering;

/// A fault without a place; the evaluator adds it.
pub(crate) type Fault = (Kind, String);

fn type_fault(message: impl Into<String>) -> Fault {
    (Kind::Type, message.into())
}

/// A number after coercion.
#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    #[expect(clippy::cast_precision_loss, reason = "Java converts a long to a double in the same way.")]
    fn as_f64(self) -> f64 {
        match self {
            Number::Int(i) => i as f64,
            Number::Float(x) => x,
        }
    }
}

/// Applies `operator`; `&&` and `||` are the evaluator's, because they may skip their right side.
pub(crate) fn binary(operator: Binary, left: &Value, right: &Value) -> Result<Value, Fault> {
    let truth = match operator {
        Binary::Eq => equal(left, right)?,
        Binary::Ne => !equal(left, right)?,
        Binary::Match => matches(left, right)?,
        Binary::NoMatch => !matches(left, right)?,
        Binary::Starts => affix(left, right, |l, r| l.starts_with(r)),
        Binary::NotStarts => !affix(left, right, |l, r| l.starts_with(r)),
        Binary::Ends => affix(left, right, |l, r| l.ends_with(r)),
        Binary::NotEnds => !affix(left, right, |l, r| l.ends_with(r)),
        Binary::Lt => order(left, right)?.is_some_and(Ordering::is_lt),
        Binary::Le => order(left, right)?.is_some_and(Ordering::is_le),
        Binary::Gt => order(left, right)?.is_some_and(Ordering::is_gt),
        Binary::Ge => order(left, right)?.is_some_and(Ordering::is_ge),
        Binary::And => truth(left)? && truth(right)?,
        Binary::Or => truth(left)? || truth(right)?,
        Binary::Add if is_text(left) || is_text(right) => return concat(left, right),
        Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Mod => {
            return arithmetic(operator, left, right);
        }
    };
    Ok(Value::Bool(truth))
}

fn is_text(value: &Value) -> bool {
    matches!(value, Value::Str(_) | Value::Moment(_))
}

fn concat(left: &Value, right: &Value) -> Result<Value, Fault> {
    if left.is_null() || right.is_null() {
        return Err(type_fault("`+` needs two values, but one has none (null)"));
    }
    let (left_text, right_text) = (left.to_string(), right.to_string());
    if left_text.len() + right_text.len() > crate::MAX_TEXT {
        return Err(too_large());
    }
    Ok(Value::text_marked(left_text + &right_text, left.is_tainted() || right.is_tainted()))
}

pub(crate) fn too_large() -> Fault {
    (Kind::TooLarge, format!("the text would be longer than {} MiB", crate::MAX_TEXT >> 20))
}

fn arithmetic(operator: Binary, left: &Value, right: &Value) -> Result<Value, Fault> {
    let operand = |value: &Value| match value {
        Value::Null => {
            Err(type_fault(format!("`{}` needs two values, but one has none (null)", operator.sign())))
        }
        Value::Str(s) => parse_number(s.text.trim()).ok_or_else(|| {
            type_fault(format!("`{}` needs numbers, but \"{}\" is none", operator.sign(), shorten(&s.text)))
        }),
        Value::Int(i) => Ok(Number::Int(*i)),
        Value::Float(x) => Ok(Number::Float(*x)),
        other => Err(type_fault(format!(
            "`{}` needs numbers, but one side is a {}",
            operator.sign(),
            other.type_name()
        ))),
    };
    let (left, right) = (operand(left)?, operand(right)?);
    if let (Number::Int(l), Number::Int(r)) = (left, right) {
        if r == 0 && matches!(operator, Binary::Div | Binary::Mod) {
            return Err(type_fault("division by zero"));
        }
        let exact = match operator {
            Binary::Add => l.checked_add(r),
            Binary::Sub => l.checked_sub(r),
            Binary::Mul => l.checked_mul(r),
            Binary::Div => l.checked_div(r),
            _ => l.checked_rem(r),
        };
        if let Some(exact) = exact {
            return Ok(Value::Int(exact));
        }
    }
    let (l, r) = (left.as_f64(), right.as_f64());
    if r == 0.0 && matches!(operator, Binary::Div | Binary::Mod) {
        return Err(type_fault("division by zero"));
    }
    Ok(Value::Float(match operator {
        Binary::Add => l + r,
        Binary::Sub => l - r,
        Binary::Mul => l * r,
        Binary::Div => l / r,
        _ => l % r,
    }))
}

/// `-x`.
pub(crate) fn negate(value: &Value) -> Result<Value, Fault> {
    arithmetic(Binary::Sub, &Value::Int(0), value)
}

/// `+x`.
pub(crate) fn plus(value: &Value) -> Result<Value, Fault> {
    arithmetic(Binary::Sub, value, &Value::Int(0))
}

fn parse_number(text: &str) -> Option<Number> {
    match text.parse() {
        Ok(i) => Some(Number::Int(i)),
        Err(_) => parse_float(text).map(Number::Float),
    }
}

/// A plain decimal number. Rust's parser also takes `inf` and `nan`, which are names here.
fn parse_float(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    if plain { text.parse().ok() } else { None }
}

/// Truth by JEXL's coercion: "" and "false" are false, other text true; 0 is false; null is an error.
pub(crate) fn truth(value: &Value) -> Result<bool, Fault> {
    Ok(match value {
        Value::Null => return Err(type_fault("a condition has no value (null)")),
        Value::Bool(b) => *b,
        Value::Int(i) => *i != 0,
        Value::Float(x) => *x != 0.0 && !x.is_nan(),
        Value::Str(s) => !s.text.is_empty() && s.text.as_ref() != "false",
        Value::List(_) | Value::Map(_) | Value::Moment(_) => true,
    })
}

fn equal(left: &Value, right: &Value) -> Result<bool, Fault> {
    Ok(match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Int(_) | Value::Float(_), _) | (_, Value::Int(_) | Value::Float(_)) => {
            numbers(left, right)?.is_some_and(Ordering::is_eq)
        }
        (Value::Bool(_), _) | (_, Value::Bool(_)) => truth(left)? == truth(right)?,
        _ => same(left, right),
    })
}

/// Equality without coercion between types; never an error. Membership and `contains` use it.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Str(l), Value::Str(r)) => l.text == r.text,
        (Value::Moment(_), Value::Str(_) | Value::Moment(_)) | (Value::Str(_), Value::Moment(_)) => {
            left.to_string() == right.to_string()
        }
        (Value::List(l), Value::List(r)) => {
            l.len() == r.len() && l.iter().zip(r.iter()).all(|(l, r)| same(l, r))
        }
        (Value::Map(l), Value::Map(r)) => {
            l.len() == r.len() && l.iter().all(|(k, v)| r.get(k).is_some_and(|other| same(v, other)))
        }
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            matches!(numbers(left, right), Ok(Some(Ordering::Equal)))
        }
        _ => left == right,
    }
}

/// Compares where at least one side is a number. The other side is coerced to the same kind: a whole number does not
/// take "1.0", a fraction does (measured).
fn numbers(left: &Value, right: &Value) -> Result<Option<Ordering>, Fault> {
    let whole = |value: &Value| matches!(value, Value::Int(_));
    let fraction = matches!(left, Value::Float(_)) || matches!(right, Value::Float(_));
    let coerce = |value: &Value, other: &Value| -> Result<Number, Fault> {
        match value {
            Value::Int(i) => Ok(Number::Int(*i)),
            Value::Float(x) => Ok(Number::Float(*x)),
            Value::Bool(b) => Ok(Number::Int(i64::from(*b))),
            Value::Str(s) if s.text.is_empty() => Ok(Number::Int(0)),
            Value::Str(s) => {
                let parsed = if whole(other) {
                    s.text.trim().parse().ok().map(Number::Int)
                } else {
                    parse_number(s.text.trim())
                };
                parsed.ok_or_else(|| {
                    type_fault(format!("\"{}\" is compared with a number but is none", shorten(&s.text)))
                })
            }
            other => Err(type_fault(format!("a {} is compared with a number", other.type_name()))),
        }
    };
    let (l, r) = (coerce(left, right)?, coerce(right, left)?);
    Ok(match (l, r) {
        (Number::Int(l), Number::Int(r)) if !fraction => Some(l.cmp(&r)),
        _ => l.as_f64().partial_cmp(&r.as_f64()),
    })
}

fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, Fault> {
    match (left, right) {
        (Value::Null, _) | (_, Value::Null) => Ok(None),
        (Value::Int(_) | Value::Float(_), _) | (_, Value::Int(_) | Value::Float(_)) => numbers(left, right),
        (l, r) if is_text(l) && is_text(r) => Ok(Some(l.to_string().cmp(&r.to_string()))),
        (l, r) => Err(type_fault(format!("a {} and a {} have no order", l.type_name(), r.type_name()))),
    }
}

fn matches(left: &Value, right: &Value) -> Result<bool, Fault> {
    match right {
        Value::List(items) => Ok(items.iter().any(|item| same(item, left))),
        Value::Map(entries) => Ok(left.as_str().is_some_and(|key| entries.contains_key(key))),
        Value::Null => Ok(left.is_null()),
        _ if left.is_null() => Ok(false),
        pattern => Ok(regexes::whole(&pattern.to_string())?.is_match(&left.to_string())),
    }
}

fn affix(left: &Value, right: &Value, test: impl Fn(&str, &str) -> bool) -> bool {
    !left.is_null() && !right.is_null() && test(&left.to_string(), &right.to_string())
}

/// `size x`: characters, elements or entries; null has none.
pub(crate) fn size(value: &Value) -> Result<Value, Fault> {
    Ok(Value::Int(match value {
        Value::Null => 0,
        Value::Str(s) => count(s.text.chars().count()),
        Value::List(items) => count(items.len()),
        Value::Map(entries) => count(entries.len()),
        other => return Err(type_fault(format!("a {} has no size", other.type_name()))),
    }))
}

/// `empty x`.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Str(s) => s.text.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Moment(_) => false,
    }
}

/// The first characters of a value, for messages.
pub(crate) fn shorten(text: &str) -> String {
    const LIMIT: usize = 40;
    if text.chars().count() <= LIMIT {
        return text.to_owned();
    }
    text.chars().take(LIMIT).chain(['…']).collect()
}
