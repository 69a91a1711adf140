//! Harness' own tasks on one core: how many answers are encoded in a second, and how long a large package takes.

use anyhow::{Result, anyhow};
use dialect::answer::{Agent, answer};
use dialect::{K8sTask, Kind, Request};
use proto::package::TaskPackage;
use proto::result::{StepResult, StepStatus, UnitProgress, UnitStatus};
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 20_000;

fn units() -> Vec<UnitProgress> {
    let names = ["Fetch Files", "Initialize", "Prepare", "Apply", "Wait for Steady State", "Wrap Up"];
    let unit = |name: &&str| UnitProgress {
        unit: (*name).to_owned(),
        status: UnitStatus::Success,
        started_at: Some(1_733_740_000_000),
        ended_at: Some(1_733_740_009_000),
    };
    names.iter().map(unit).collect()
}

fn result(outputs: Value) -> StepResult {
    let outputs =
        outputs.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone().into()));
    StepResult { outputs: outputs.collect(), units: units(), ..StepResult::bare(StepStatus::Success, None) }
}

fn cases() -> Vec<(&'static str, Request, StepResult)> {
    let of = |task_type: &str, kind| Request { kind, ..Request::of_type("t1", task_type) };
    let pod = |n: u32| {
        json!({"name": format!("shop-6d4-{n}"), "namespace": "prod", "uid": format!("u-{n}"), "podIP": "10.1.0.4", "newPod": true,
            "labels": {"app": "shop", "harness.io/release-name": "release-1"},
            "containerList": [{"name": "shop", "image": "shop:1.4", "containerId": "containerd://1"}]})
    };
    let rolling =
        json!({"releaseNumber": 7, "loadBalancer": "http://lb.example", "k8sPodList": [pod(1), pod(2)]});
    vec![
        (
            "Shell, an output",
            of("SHELL_SCRIPT_TASK_NG", Kind::Shell),
            result(json!({"outputVariables.VERSION": "1.4.2"})),
        ),
        (
            "Kubernetes rolling, 2 pods",
            of(
                "K8S_COMMAND_TASK_NG",
                Kind::Kubernetes { task: Some(K8sTask::Rolling), release: "release-1".into() },
            ),
            result(rolling),
        ),
    ]
}

/// A Kubernetes package of a megabyte: its manifest comes with it.
fn large() -> Result<Vec<u8>> {
    let all: Value = serde_json::from_str(include_str!("../peers/kryo/requests.json"))?;
    let samples = all["packages"].as_array().ok_or_else(|| anyhow!("the samples are no list"))?;
    let mut package = samples
        .iter()
        .find(|package| package["id"] == "t-k8s")
        .cloned()
        .ok_or_else(|| anyhow!("no sample"))?;
    let line =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"a\"}\ndata: {password: s3cr3t-value}\n---\n";
    let file = |n: usize| json!({"fileName": format!("f{n}.yaml"), "filePath": format!("k8s/f{n}.yaml"), "fileContent": line.repeat(1150)});
    let files: Vec<Value> = (0..10).map(file).collect();
    package["data"]["manifestDelegateConfig"]["storeDelegateConfig"] =
        json!({"type": "HARNESS", "manifestIdentifier": "m", "manifestFiles": files});
    Ok(serde_json::to_vec(&package)?)
}

pub(crate) fn measure() -> Result<()> {
    let agent = Agent {
        account_id: "acct1".into(),
        delegate_id: "q3nD1mZrQ4yJb0Jm2mS1xA".into(),
        host_name: "zone-a".into(),
    };
    println!("bar: >= 100,000 encoded answers/s on one core");
    for (name, request, result) in cases() {
        let mut rates = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            for _ in 0..ROUNDS {
                black_box(answer(&agent, black_box(&request), black_box(&result)));
            }
            rates.push(ROUNDS as f64 / started.elapsed().as_secs_f64());
        }
        rates.sort_by(f64::total_cmp);
        println!(
            "  {:>9.0} answers/s of {} bytes  {name}",
            rates[2],
            answer(&agent, &request, &result).len()
        );
    }
    let package = large()?;
    println!("bar: a package of 1 MB decoded within 10 ms");
    let mut times = Vec::new();
    for _ in 0..21 {
        let started = Instant::now();
        let package = TaskPackage::decode(black_box(&package))?;
        let decoded = dialect::decode(&package).map_err(|refused| anyhow!("{}", refused.failure.message))?;
        black_box(decoded);
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("  {:.2} ms for {} bytes (median of {})", times[10], package.len(), times.len());
    Ok(())
}
