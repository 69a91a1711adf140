//! `harness.io/steadyStateCondition`: an expression over the object, `${json.select("$.status.phase", response) == "Up"}`.

use expr::{Context, MapScope, Scope, Value};
use serde_json::Value as Json;

/// The annotation that holds it.
pub(crate) const ANNOTATION: &str = "harness.io/steadyStateCondition";

/// The object under its name in the expression, and a `select` that yields the element of a one-element list: a path
/// with `..` always finds a list.
struct OfObject {
    names: MapScope,
}

impl OfObject {
    fn new(object: &Json) -> OfObject {
        let text = Value::tainted(object.to_string());
        OfObject { names: MapScope::default().with("response", text) }
    }
}

impl Scope for OfObject {
    fn lookup(&self, path: &[expr::Segment]) -> expr::Lookup {
        match self.names.lookup(path) {
            // A misspelt name would be null, and the object never steady.
            expr::Lookup::Undefined => {
                let name = expr::path_text(path);
                expr::Lookup::Refused(format!("`{name}` is not known here, only `response`"))
            }
            found => found,
        }
    }

    fn call(&self, functor: &str, method: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        let ("steady", "select", [path, document]) = (functor, method, arguments) else { return None };
        let names = MapScope::default().with("path", path.clone()).with("document", document.clone());
        let context = Context { scope: &names, now_ms: 0, secret_token: 0 };
        let found = expr::evaluate("<+json.select(path, document)>", &context).map_err(|e| e.to_string());
        Some(found.map(|found| match &found {
            Value::List(items) if items.len() == 1 => items.first().cloned().unwrap_or_default(),
            _ => found,
        }))
    }
}

/// The expression of an object, if it carries one.
pub(crate) fn of(object: &Json) -> Option<&str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(ANNOTATION)?
        .as_str()
        .filter(|text| !text.trim().is_empty())
}

/// Whether the object is steady by `expression`; `${…}` and `<+…>` around it are optional.
///
/// **Errors**: what is wrong with the expression, or that its value is no truth value.
pub(crate) fn holds(expression: &str, object: &Json) -> Result<bool, String> {
    let inner = expression.trim();
    let unwrapped = inner
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .or_else(|| inner.strip_prefix("<+").and_then(|rest| rest.strip_suffix('>')));
    let inner = unwrapped.unwrap_or(inner).replace("json.select(", "steady.select(");
    let scope = OfObject::new(object);
    let context = Context { scope: &scope, now_ms: 0, secret_token: 0 };
    // Not as a block: there a fault of the syntax would be a null.
    match expr::evaluate(&inner, &context) {
        Ok(Value::Bool(value)) => Ok(value),
        Ok(Value::Null) => Ok(false),
        Ok(other) if other.as_str() == Some("true") => Ok(true),
        Ok(other) if other.as_str() == Some("false") => Ok(false),
        Ok(other) => Err(format!("`{expression}` gives {}, not true or false", other.type_name())),
        Err(error) => Err(format!("`{expression}`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_expression_is_true_when_the_object_says_so() {
        let object = json!({"spec": {"replicas": 3}, "status": {"phase": "Running", "ready": 3, "parts": [{"phase": "Up"}]}});
        for (text, wanted) in [
            (r#"${json.select("$.status.phase", response) == "Running"}"#, true),
            (r#"${json.select("$.status.phase", response) == "Failed"}"#, false),
            (r#"${json.select("$..status.phase", response) == "Running"}"#, true),
            (
                r#"${json.select("$.status.ready", response) == 3 && json.select("status.phase", response) != "Failed"}"#,
                true,
            ),
            (
                r#"${json.select("$.status.ready", response) < json.select("$.spec.replicas", response)}"#,
                false,
            ),
            (r#"${json.select("$.status.absent", response) == "Running"}"#, false),
            (r#"json.select("$.status.phase", response) == "Running""#, true),
            (r#"<+json.select("$.status.phase", response) == "Running">"#, true),
        ] {
            assert_eq!(holds(text, &object), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn an_expression_that_is_none_is_an_error_that_shows_it() {
        let object = json!({"status": {"phase": "Running <+ 1>"}});
        for text in ["${json.select(", "${json.select(\"$.status.phase\", response)}", "${nobody.knows}"] {
            let error = holds(text, &object).expect_err(text);
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn text_of_the_object_is_never_an_expression() {
        let object = json!({"status": {"phase": "<+response>"}});
        assert_eq!(holds(r#"${json.select("$.status.phase", response) == "x"}"#, &object), Ok(false));
    }
}
