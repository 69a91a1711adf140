//! What functions of a policy may not do as they would: read this machine's clock, throw dice, or make values without
//! end.
//!
//! The interpreter ends a policy that runs for too long between two of its steps, but one call of a function is one
//! step: `numbers.range(1, 1000000000000)` would take the manager down before anybody looks. So every function that
//! makes something large from something small is first asked how large, and all calls together have a budget.

use regorus::{Engine, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that an element of a list or set costs at least.
const ELEMENT: u64 = 32;
/// The widest number in a format: more pads nothing that a person reads.
const MAX_WIDTH: u64 = 1024;

/// How large the result of a function can become.
#[derive(Clone, Copy)]
enum Growth {
    /// No larger than its arguments, some factor aside.
    Linear,
    /// The arguments written out in full: values that share parts are counted as often as they are named.
    Written,
    /// A format and its arguments.
    Format,
    /// As many elements as lie between two numbers.
    Range,
    /// Parts with a separator between them.
    Join,
    /// Every byte of one text may become one of another: the indexes of the text, and of what comes instead.
    Replace(usize, usize),
}

/// Functions with their number of arguments. What is missing here gives numbers, truth values or parts of its arguments.
const GROWING: &[(&str, u8, Growth)] = &[
    ("array.concat", 2, Growth::Linear),
    ("array.reverse", 1, Growth::Linear),
    ("array.slice", 3, Growth::Linear),
    ("base64.decode", 1, Growth::Linear),
    ("base64.encode", 1, Growth::Linear),
    ("base64url.decode", 1, Growth::Linear),
    ("base64url.encode", 1, Growth::Linear),
    ("base64url.encode_no_pad", 1, Growth::Linear),
    ("concat", 2, Growth::Join),
    ("hex.decode", 1, Growth::Linear),
    ("hex.encode", 1, Growth::Linear),
    ("json.marshal", 1, Growth::Written),
    ("json.unmarshal", 1, Growth::Linear),
    ("lower", 1, Growth::Linear),
    ("numbers.range", 2, Growth::Range),
    ("numbers.range_step", 3, Growth::Range),
    ("object.union", 2, Growth::Linear),
    ("object.union_n", 1, Growth::Linear),
    ("regex.find_all_string_submatch_n", 3, Growth::Linear),
    ("regex.find_n", 3, Growth::Linear),
    ("regex.replace", 3, Growth::Replace(0, 2)),
    ("regex.split", 2, Growth::Linear),
    ("replace", 3, Growth::Replace(0, 2)),
    ("split", 2, Growth::Linear),
    ("sprintf", 2, Growth::Format),
    ("strings.replace_n", 2, Growth::Replace(1, 0)),
    ("strings.reverse", 1, Growth::Linear),
    ("substring", 3, Growth::Linear),
    ("trim", 2, Growth::Linear),
    ("trim_left", 2, Growth::Linear),
    ("trim_prefix", 2, Growth::Linear),
    ("trim_right", 2, Growth::Linear),
    ("trim_space", 1, Growth::Linear),
    ("trim_suffix", 2, Growth::Linear),
    ("upper", 1, Growth::Linear),
    ("urlquery.decode", 1, Growth::Linear),
    ("urlquery.encode", 1, Growth::Linear),
];

/// Puts our functions in the place of the interpreter's own. **Errors**: one of them stands already.
pub(super) fn replace(engine: &mut Engine, now_ns: i64, made_bytes: u64) -> anyhow::Result<()> {
    engine.add_extension(
        "time.now_ns".to_owned(),
        0,
        Box::new(move |_: Vec<Value>| Ok(Value::from(now_ns))),
    )?;
    // A gate that answers by chance is none.
    engine.add_extension(
        "rand.intn".to_owned(),
        2,
        Box::new(|_: Vec<Value>| anyhow::bail!("rand.intn is not allowed in a policy")),
    )?;
    let budget = Arc::new(AtomicU64::new(made_bytes));
    for (name, arity, growth) in GROWING {
        let budget = budget.clone();
        let call = move |arguments: Vec<Value>| {
            let size = size_of(*growth, &arguments, made_bytes);
            let left =
                budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(size));
            if left.is_err() {
                anyhow::bail!(
                    "{name} would make too much: all values of a policy may take {made_bytes} bytes"
                );
            }
            original(name, arguments)
        };
        engine.add_extension((*name).to_owned(), *arity, Box::new(call))?;
    }
    Ok(())
}

/// Calls the interpreter's own function of the name.
fn original(name: &str, arguments: Vec<Value>) -> anyhow::Result<Value> {
    let mut engine = Engine::new();
    let names: Vec<String> = (0..arguments.len()).map(|index| format!("input[{index}]")).collect();
    engine.set_input(Value::from(arguments));
    let results = engine.eval_query(format!("result := {name}({})", names.join(", ")), false)?;
    // No result: the function is undefined for these arguments.
    let Some(result) = results.result.first() else { return Ok(Value::Undefined) };
    match &result.bindings {
        Value::Object(bindings) => {
            Ok(bindings.get(&Value::from("result")).cloned().unwrap_or(Value::Undefined))
        }
        _ => Ok(Value::Undefined),
    }
}

fn size_of(growth: Growth, arguments: &[Value], limit: u64) -> u64 {
    let flat = |index: usize| arguments.get(index).map_or(0, flat);
    let all = || arguments.iter().fold(0u64, |sum, value| sum.saturating_add(self::flat(value)));
    match growth {
        Growth::Linear => all().saturating_mul(2),
        Growth::Written => {
            arguments.iter().fold(0, |sum: u64, value| sum.saturating_add(written(value, limit)))
        }
        Growth::Range => {
            // What no number of the machine holds is too far away to count to.
            let number = |index: usize| {
                let value = arguments.get(index).filter(|value| matches!(value, Value::Number(_)))?;
                let whole = value.as_i128().map(|number| number as f64);
                Some(whole.or_else(|_| value.as_f64()).unwrap_or(f64::MAX))
            };
            let span = number(0).zip(number(1)).map_or(0.0, |(from, to)| (to - from).abs());
            let step = number(2).map_or(1.0, f64::abs).max(1.0);
            // A float that is too large for the type becomes its largest value, which is refused.
            ((span / step) as u64).saturating_add(1).saturating_mul(ELEMENT)
        }
        Growth::Join => {
            let parts = match arguments.get(1) {
                Some(Value::Array(list)) => list.len(),
                Some(Value::Set(set)) => set.len(),
                _ => 0,
            };
            all().saturating_add(flat(0).saturating_mul(parts as u64))
        }
        Growth::Replace(text, with) => {
            // The worst case: every character is found. Texts of a policy are short, so it is affordable.
            flat(text).saturating_add(1).saturating_mul(flat(with).saturating_add(1))
        }
        Growth::Format => {
            let format = match arguments.first() {
                Some(Value::String(format)) => format.as_ref(),
                _ => "",
            };
            let widest = format
                .split(|c: char| !c.is_numeric())
                .filter(|digits| !digits.is_empty())
                .map(|digits| digits.parse::<u64>().unwrap_or(u64::MAX))
                .max()
                .unwrap_or(0);
            if widest > MAX_WIDTH {
                return u64::MAX;
            }
            let verbs = format.matches('%').count() as u64;
            let values = arguments.get(1).map_or(0, |value| written(value, limit));
            (format.len() as u64).saturating_add(verbs.saturating_mul(widest)).saturating_add(values)
        }
    }
}

/// Bytes of a value without the parts of its parts.
fn flat(value: &Value) -> u64 {
    let one = |value: &Value| match value {
        Value::String(text) => text.len() as u64 + ELEMENT,
        _ => ELEMENT,
    };
    match value {
        Value::Array(list) => list.iter().map(one).sum(),
        Value::Set(set) => set.iter().map(one).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| one(key) + one(value)).sum(),
        other => one(other),
    }
}

/// Bytes of a value written out. Counting ends where the limit is passed: a value that names its parts twice at every
/// level is small in memory and has no end on paper.
fn written(value: &Value, limit: u64) -> u64 {
    let mut size = 0u64;
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        size = size.saturating_add(match value {
            Value::String(text) => text.len() as u64 + 2,
            _ => 24,
        });
        if size > limit {
            return u64::MAX;
        }
        match value {
            Value::Array(list) => waiting.extend(list.iter()),
            Value::Set(set) => waiting.extend(set.iter()),
            Value::Object(map) => waiting.extend(map.iter().flat_map(|(key, value)| [key, value])),
            _ => {}
        }
    }
    size
}
