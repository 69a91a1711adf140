//! From a response to the step's outcome: assertion and outputs. Pure but for the log lines that the caller writes.

use crate::error::Error;
use crate::request::Response;
use crate::spec;
use executor_api::{SecretSource, SpecFault, StepOutput};
use expr::{Context, ExprError, Kind, MapScope, Mode, Value};
use proto::result::Output;
use proto::task::HttpSpec;
use serde_json::json;
use std::time::Duration;

/// Statuses from here on fail a step without assertion (settled facts §3.3).
const FIRST_ERROR_STATUS: u16 = 400;

/// What an evaluation needs beside the response.
pub(crate) struct Outside<'a> {
    pub(crate) now_ms: i64,
    pub(crate) secret_token: i64,
    pub(crate) secrets: &'a dyn SecretSource,
}

/// Judges `response`. The texts are lines for the log; they come also when the verdict is bad.
pub(crate) fn judge(
    spec: &HttpSpec,
    response: &Response,
    outside: &Outside<'_>,
) -> (Vec<String>, Result<StepOutput, Error>) {
    let mut lines = Vec::new();
    let result = verdict(spec, response, outside, &mut lines);
    (lines, result)
}

fn verdict(
    spec: &HttpSpec,
    response: &Response,
    outside: &Outside<'_>,
    lines: &mut Vec<String>,
) -> Result<StepOutput, Error> {
    let target = spec::shown_spec(spec);
    let mut notices = Vec::new();
    if response.cut {
        let needs_all = |text: &str| text.contains("httpResponseBody");
        if spec.assertion.as_deref().is_some_and(needs_all)
            || spec.output_variables.iter().any(|output| needs_all(&output.value))
        {
            return Err(Error::BodyTooLong { target, limit: response.body.len() });
        }
        notices.push(format!("only the first {} bytes of the response are kept", response.body.len()));
    }
    let scope = scope(spec, response);
    let context = Context { scope: &scope, now_ms: outside.now_ms, secret_token: outside.secret_token };
    match spec.assertion.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
        Some(assertion) => {
            let truth = expr::evaluate_bool(assertion, &context).map_err(|error| Error::NotBoolean {
                target: target.clone(),
                assertion: assertion.to_owned(),
                problem: error.message,
            })?;
            lines.push(format!("assertion `{assertion}` is {truth}"));
            if !truth {
                let (assertion, status) = (assertion.to_owned(), response.status);
                return Err(Error::Assertion { target, assertion, status });
            }
        }
        None if spec.any_status => {}
        None if response.status >= FIRST_ERROR_STATUS => {
            let retry_after = response.retry_after_s.map(Duration::from_secs);
            return Err(Error::Status { target, status: response.status, retry_after });
        }
        None => {}
    }
    let mut output = StepOutput { notices, ..StepOutput::default() };
    let method = spec::method(&spec.method).map(|m| m.to_string()).unwrap_or_default();
    for (name, value) in [
        ("httpUrl", json!(spec.url.as_str())),
        ("httpMethod", json!(method)),
        ("httpResponseCode", json!(response.status)),
        ("httpResponseBody", json!(response.body)),
        ("status", json!("SUCCESS")),
        ("errorMsg", json!("")),
    ] {
        output.outputs.insert(name.to_owned(), value.into());
    }
    for variable in &spec.output_variables {
        let value = expr::render_value(&variable.value, &context, Mode::Throw).map_err(|error| {
            Error::Output { target: target.clone(), name: variable.name.clone(), problem: error.message }
        })?;
        if variable.secret {
            // Whatever its type, its text is what could show up in a log.
            outside.secrets.mask(&value.to_string().into());
        }
        let path = format!("outputVariables.{}", variable.name);
        output.outputs.insert(path, Output { value: value.to_json(), secret: variable.secret });
    }
    Ok(output)
}

/// Faults of the expressions that no response can heal: they are found before anything is sent.
pub(crate) fn check(spec: &HttpSpec) -> Vec<SpecFault> {
    let none = Response { status: 200, body: String::new(), cut: false, retry_after_s: None };
    let scope = scope(spec, &none);
    let context = Context { scope: &scope, now_ms: 0, secret_token: 0 };
    let mut faults = Vec::new();
    let mut look = |field: String, text: &str, result: Result<Value, ExprError>| match result {
        Err(error)
            if matches!(error.kind, Kind::Syntax | Kind::NotAllowed | Kind::ForgedSecret | Kind::TooDeep) =>
        {
            faults.push(SpecFault {
                field,
                problem: format!("`{text}` is not a valid expression: {}", error.message),
            });
        }
        _ => {}
    };
    if let Some(text) = spec.assertion.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
        look("assertion".into(), text, expr::evaluate(text, &context));
    }
    for (index, output) in spec.output_variables.iter().enumerate() {
        let value = expr::render_value(&output.value, &context, Mode::Null);
        look(format!("outputVariables[{index}].value"), &output.value, value);
    }
    faults
}

/// Names of an assertion. Everything here came from outside or was resolved by the manager, so none of it is ever
/// evaluated again (DESIGN D12).
fn scope(spec: &HttpSpec, response: &Response) -> MapScope {
    let context = match &spec.context {
        object @ serde_json::Value::Object(_) => Value::from_json(object, true),
        _ => Value::map([]),
    };
    MapScope::of(context)
        .with("httpResponseCode", Value::Int(i64::from(response.status)))
        .with("httpResponseBody", Value::tainted(response.body.as_str()))
        .with("httpMethod", Value::tainted(spec.method.trim().to_ascii_uppercase()))
        .with("httpUrl", Value::tainted(spec.url.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_api::testing::FixedSecrets;
    use proto::task::OutputVariable;

    fn run(change: impl FnOnce(&mut HttpSpec, &mut Response)) -> Result<StepOutput, Error> {
        let mut spec: HttpSpec =
            serde_json::from_value(json!({"url": "https://h/x?y", "method": "get"})).unwrap();
        let mut response = Response {
            status: 200,
            body: r#"{"status":"UP","n":3}"#.into(),
            cut: false,
            retry_after_s: None,
        };
        change(&mut spec, &mut response);
        let secrets = FixedSecrets::new(1, []);
        judge(&spec, &response, &Outside { now_ms: 0, secret_token: 1, secrets: &secrets }).1
    }

    #[test]
    fn the_seed_assertion_holds() {
        let output = run(|spec, _| {
            spec.assertion = Some("<+json.select(\"status\", <+httpResponseBody>)> == \"UP\"\n".into());
        })
        .unwrap();
        assert_eq!(output.outputs["httpResponseCode"].value, 200);
        assert_eq!(output.outputs["httpMethod"].value, "GET");
        assert_eq!(output.outputs["status"].value, "SUCCESS");
    }

    #[test]
    fn an_assertion_looks_at_every_status() {
        let output = run(|spec, response| {
            spec.assertion = Some("<+httpResponseCode> == 503 && <+want> == \"x\"".into());
            spec.context = json!({"want": "x"});
            response.status = 503;
        });
        assert!(output.is_ok(), "{output:?}");
        let error = run(|spec, _| spec.assertion = Some("<+httpResponseCode> == 201".into())).unwrap_err();
        assert!(error.to_string().starts_with("assertion failed"), "{error}");
    }

    #[test]
    fn what_is_not_boolean_is_not_a_valid_expression() {
        for text in ["<+httpResponseCode>", "\"true\"", "<+nope> ==", "<+httpResponseBody>.foo("] {
            let error = run(|spec, _| spec.assertion = Some(text.into())).unwrap_err();
            assert!(error.to_string().contains("not a valid expression"), "{text}: {error}");
        }
    }

    #[test]
    fn without_assertion_the_status_decides() {
        for (status, wanted) in [(200, true), (302, true), (399, true), (400, false), (503, false)] {
            assert_eq!(run(|_, response| response.status = status).is_ok(), wanted, "{status}");
            let blank = run(|spec, response| {
                response.status = status;
                spec.assertion = Some(" ".into());
            });
            assert_eq!(blank.is_ok(), wanted, "{status}");
            let any = run(|spec, response| {
                response.status = status;
                spec.any_status = true;
            });
            assert!(any.is_ok());
        }
    }

    #[test]
    fn outputs_keep_their_types_and_a_missing_one_is_an_error() {
        let variable = |name: &str, value: &str| OutputVariable {
            name: name.into(),
            value: value.into(),
            secret: false,
        };
        let output = run(|spec, _| {
            spec.output_variables = vec![
                variable("n", "<+json.select(\"n\", <+httpResponseBody>)>"),
                variable("text", "n=<+json.select(\"n\", <+httpResponseBody>)>"),
                variable("literal", "plain"),
            ];
        })
        .unwrap();
        assert_eq!(output.outputs["outputVariables.n"].value, 3);
        assert_eq!(output.outputs["outputVariables.text"].value, "n=3");
        assert_eq!(output.outputs["outputVariables.literal"].value, "plain");
        let error = run(|spec, _| spec.output_variables = vec![variable("gone", "<+no.such>")]).unwrap_err();
        assert!(error.to_string().contains("`gone`"), "{error}");
    }

    #[test]
    fn broken_expressions_are_found_before_anything_is_sent() {
        let mut spec: HttpSpec =
            serde_json::from_value(json!({"url": "http://h", "method": "POST"})).unwrap();
        let variable = |value: &str| OutputVariable { name: "n".into(), value: value.into(), secret: false };
        spec.assertion = Some("<+httpResponseCode> ==".into());
        spec.output_variables = vec![
            variable("<+json.select(\"a\", <+httpResponseBody>)>"),
            variable("${ngSecretManager.obtain(\"x\", 1)}"),
        ];
        let fields: Vec<_> = check(&spec).into_iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["assertion", "outputVariables[1].value"]);
        for good in [
            "<+json.select(\"status\", <+httpResponseBody>)> == \"UP\"",
            "<+json.object(<+httpResponseBody>).n> > 2",
            " ",
        ] {
            spec.assertion = Some(good.into());
            spec.output_variables = vec![];
            assert_eq!(check(&spec), [], "{good}");
        }
    }

    #[test]
    fn a_response_is_never_evaluated() {
        let output = run(|spec, response| {
            response.body = "<+secrets.getValue(\"k\")>".into();
            spec.assertion = Some("<+httpResponseBody>.contains(\"secrets\")".into());
            spec.output_variables =
                vec![OutputVariable { name: "b".into(), value: "<+httpResponseBody>".into(), secret: true }];
        })
        .unwrap();
        assert_eq!(output.outputs["outputVariables.b"].value, "<+secrets.getValue(\"k\")>");
        assert!(output.outputs["outputVariables.b"].secret);
    }

    #[test]
    fn a_cut_body_is_an_error_only_where_it_is_needed() {
        assert!(!run(|_, response| response.cut = true).unwrap().notices.is_empty());
        let error = run(|spec, response| {
            response.cut = true;
            spec.assertion = Some("<+httpResponseBody> != \"\"".into());
        });
        assert!(matches!(error, Err(Error::BodyTooLong { .. })));
    }
}
