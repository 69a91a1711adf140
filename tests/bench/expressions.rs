//! How many typical expressions one core evaluates in a second.

use anyhow::{Result, anyhow};
use expr::{Context, MapScope, Mode, Value};
use serde_json::json;
use std::hint::black_box;
use std::time::Instant;

/// What pipelines are full of: names, texts with names, conditions, a ternary, a JSON path, a secret.
const TYPICAL: [&str; 8] = [
    "<+pipeline.variables.imageTag>",
    "generated/<+service.name>/<+env.name>/<+pipeline.variables.region>/manifests.yaml",
    "<+pipeline.variables.targetEnvironment> == \"prod\" && <+pipeline.variables.count> > 3",
    "<+stage.spec.execution.steps.build.output.outputVariables.url>",
    "<+env.name == 'prod' ? 'three' : 'one'>",
    "<+json.select(\"status\", <+httpResponseBody>)> == \"UP\"",
    "<+pipeline.variables.csv.split(',')[1]>",
    "<+secrets.getValue(\"token\")>",
];

const ROUNDS: usize = 20_000;

pub(crate) fn measure() -> Result<()> {
    println!("bar: >= 100,000 typical evaluations/s on one core");
    let steps = json!({"build": {"output": {"outputVariables": {"url": "http://h:8080"}}}});
    let scope = MapScope::new(&json!({
        "pipeline": {"variables": {
            "imageTag": "v2.3.1", "region": "euw1", "targetEnvironment": "prod", "count": 5, "csv": "a,b,c",
        }},
        "service": {"name": "payment-service"}, "env": {"name": "prod"},
        "stage": {"spec": {"execution": {"steps": steps}}},
    }))
    .with("httpResponseBody", Value::tainted(r#"{"status":"UP","count":3}"#));
    let context = Context { scope: &scope, now_ms: 1_715_004_000_000, secret_token: 7 };
    let run = |text: &str| -> Result<Value> {
        // A condition is evaluated, everything else is rendered, as the engine does.
        let value = match text.contains("==") && !text.contains('?') {
            true => expr::evaluate(text, &context),
            false => expr::render_value(text, &context, Mode::Throw),
        };
        value.map_err(|error| anyhow!("{text}: {error}"))
    };
    for text in TYPICAL {
        black_box(run(text)?);
    }
    let mut rates = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        for _ in 0..ROUNDS {
            for text in TYPICAL {
                black_box(run(black_box(text))?);
            }
        }
        rates.push((ROUNDS * TYPICAL.len()) as f64 / started.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    println!("{:.0} evaluations/s (median of 5 rounds of {})", rates[2], ROUNDS * TYPICAL.len());
    for text in TYPICAL {
        let started = Instant::now();
        for _ in 0..ROUNDS {
            black_box(run(black_box(text))?);
        }
        println!("  {:>8.2} µs  {text}", started.elapsed().as_secs_f64() * 1e6 / ROUNDS as f64);
    }
    Ok(())
}
