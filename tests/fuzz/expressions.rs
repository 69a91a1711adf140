//! Expressions: whatever is written, the answer is a value or an error that stands inside the text.

use crate::{cook, fuzz};
use expr::{Context, ExprError, MapScope, Mode, Value};
use serde_json::json;

const SAMPLES: [&str; 40] = [
    "<+",
    ">",
    "<+pipeline.variables.tag>",
    "<+pipeline.variables.loop>",
    "<+<+pipeline.variables.name>.x>",
    "<+pipeline.variables.<+pipeline.variables.which>>",
    "<+trigger.payload.evil>",
    "<+steps.a.output.list[0]>",
    "<+secrets.getValue(\"k\")>",
    "<+json.select(\"$.a[?(@.b==1)].c\", <+body>)>",
    "<+json.list(\"$..*\", <+body>)>",
    "<+xml.select(\"/a/b\", <+xmlText>)>",
    "<+regex.extract(\"(a+)+b\", <+body>)>",
    "<+regex.replace(\"x\",\"y\",\"z\")>",
    "<+a.b.contains(\"c\") ? 1 : 'two'>",
    "<+1 + 2 * 3 / 0 % 4 - 5>",
    " && ",
    " || ",
    " == ",
    " =~ ",
    " != ",
    " < ",
    "!",
    "(",
    ")",
    "[",
    "]",
    "{'a': 1}",
    "\"",
    "'",
    "\\",
    ".",
    ",",
    "?:",
    "${ngSecretManager.obtain(\"k\", 1)}",
    "<+datetime.currentTime().plusDays(1)>",
    "<+name.toUpperCase().substring(1,3).split(\",\")>",
    "é\u{10348}\0",
    "9223372036854775807",
    "1e308",
];

fn tree() -> MapScope {
    let body = r#"{"a":[{"b":1,"c":"x"},{"b":2}],"n":null}"#;
    MapScope::new(&json!({
        "pipeline": {"variables": {
            "tag": "v1", "which": "tag", "name": "pipeline.variables", "loop": "<+pipeline.variables.loop>",
        }},
        "steps": {"a": {"output": {"list": [1, "two", {"three": 3}]}}},
        "xmlText": "<a><b>1</b></a>", "name": "a,b,c", "a": {"b": ["c"]},
    }))
    .with("body", Value::tainted(body))
    .with("trigger", Value::from_json(&json!({"payload": {"evil": "<+secrets.getValue(\"k\")>"}}), true))
}

/// An error names a place in the text, on borders of characters, and can be shown with its caret.
fn holds(text: &str, result: Result<Value, ExprError>) {
    match result {
        Ok(value) => {
            let shown = value.to_string();
            assert!(shown.len() <= expr::MAX_TEXT, "a value of {} bytes", shown.len());
        }
        Err(error) => {
            let span = error.span.clone();
            assert!(span.start <= span.end, "{span:?}");
            assert!(text.get(span.clone()).is_some(), "{span:?} is no part of {text:?}: {error}");
        }
    }
}

#[test]
fn every_text_has_an_answer() {
    fuzz(|recipe| {
        let bytes = cook(recipe, &SAMPLES);
        let text = String::from_utf8_lossy(&bytes);
        let scope = tree();
        let context = Context { scope: &scope, now_ms: 1_715_004_000_000, secret_token: 7 };
        for mode in [Mode::Null, Mode::Keep, Mode::Throw] {
            holds(&text, expr::render_value(&text, &context, mode));
        }
        holds(&text, expr::evaluate(&text, &context));
        // Text without blocks is never changed.
        if !expr::scan::has_blocks(&text)
            && let Ok(rendered) = expr::render(&text, &context, Mode::Keep)
        {
            assert_eq!(rendered, text);
        }
        if let Ok(parts) = expr::scan::scan(&text) {
            let mut at = 0;
            for part in &parts {
                let span = match part {
                    expr::scan::Part::Text(range) => range.clone(),
                    expr::scan::Part::Block(block) => block.span.clone(),
                };
                assert_eq!(span.start, at, "the parts cover the text without a gap: {parts:?}");
                at = span.end;
            }
            assert_eq!(at, text.len(), "the parts reach the end: {parts:?}");
        }
    });
}

#[test]
fn a_payload_never_gets_a_secret() {
    fuzz(|recipe| {
        let bytes = cook(
            recipe,
            &["<+trigger.payload.evil>", "<+", ">", "trigger.payload.evil", " + ", "''", "<+name>", "(", ")"],
        );
        let text = String::from_utf8_lossy(&bytes);
        let scope = tree();
        let context = Context { scope: &scope, now_ms: 0, secret_token: 7 };
        if let Ok(rendered) = expr::render(&text, &context, Mode::Keep) {
            assert!(!rendered.contains(expr::PLACEHOLDER_HEAD), "{text:?} became {rendered:?}");
        }
    });
}
