//! What a package would do, without doing it.

use crate::capability::{Check, capabilities};
use crate::{PROVEN, decode};
use proto::package::TaskPackage;
use proto::task::{StepSpec, StepTask};
use serde_json::{Value, json};

/// What the agent would do with a package: the step with its target, the units, what has to be proven first, secrets by
/// name; or why it is refused. No value of a secret stands in it.
///
/// **Shape**: `{taskId, type, offered, runs, step: {type, identifier, target}, units[], capabilities[{criteria, check}],
/// secrets[], notices[], failure: {code, message, hint}}`.
pub fn explain(package: &TaskPackage) -> Value {
    let offered = PROVEN.contains(&package.task_type.as_str());
    let wanted: Vec<Value> = capabilities(package)
        .into_iter()
        .map(|one| json!({"criteria": one.criteria, "check": check(&one.check), "known": !matches!(one.check, Check::Unknown(_))}))
        .collect();
    let (runs, mut told) = match decode(package) {
        Ok(decoded) => {
            let step = &decoded.task.step;
            let told = json!({
                "step": {"type": step.spec.kind(), "identifier": step.identifier, "target": target(&decoded.task)},
                "units": units(&decoded.request.units, &decoded.task),
                "secrets": decoded.secrets.keys().map(|name| &name.0).collect::<Vec<_>>(),
                "notices": decoded.notices,
            });
            (true, told)
        }
        Err(refused) => {
            let failure = &refused.failure;
            let failure = json!({"code": failure.code, "message": failure.message, "hint": failure.hint});
            (false, json!({"units": refused.request.units, "failure": failure}))
        }
    };
    let common = json!({
        "taskId": package.id, "type": package.task_type, "offered": offered, "runs": runs,
        "timeoutMs": package.timeout, "capabilities": wanted,
    });
    if let (Some(told), Value::Object(common)) = (told.as_object_mut(), common) {
        told.extend(common);
    }
    told
}

fn check(check: &Check) -> String {
    match check {
        Check::Url { url, .. } => format!("{url} answers"),
        Check::Address { host, port } => format!("{host}:{port} takes connections"),
        Check::Program { arguments } => format!("the program `{}` ends well", arguments.join(" ")),
        Check::Holds => "holds always".to_owned(),
        Check::Unknown(kind) => {
            format!("{kind}: this agent cannot prove it, so it would not be given the task")
        }
    }
}

fn units(listed: &[String], task: &StepTask) -> Vec<String> {
    match &task.step.spec {
        StepSpec::Command(spec) if listed.is_empty() => {
            spec.units.iter().map(|unit| unit.name.clone()).collect()
        }
        _ => listed.to_vec(),
    }
}

/// Where it would run, in a few words.
fn target(task: &StepTask) -> String {
    let host = |target: &Option<proto::task::SshTarget>| match target {
        Some(host) => format!("{}@{}:{}", host.user, host.host, host.port),
        None => "the agent".to_owned(),
    };
    match &task.step.spec {
        StepSpec::Command(spec) => host(&spec.target),
        StepSpec::ShellScript(_) => "the agent".to_owned(),
        StepSpec::Http(spec) => format!("{} {}", spec.method, spec.url.0),
        StepSpec::Kubernetes(spec) => {
            let place = cluster(&spec.cluster);
            format!("namespace {}, release {}, of {place}", spec.namespace, spec.release_name)
        }
        StepSpec::Ecs(spec) => format!("cluster {} in {}", spec.cluster, spec.account.region),
        _ => "what its connector names".to_owned(),
    }
}

fn cluster(cluster: &proto::task::Cluster) -> String {
    use proto::task::ClusterCredential::{ClientKeyCert, InheritFromDelegate, OpenIdConnect, ServiceAccount};
    match &cluster.credential {
        InheritFromDelegate { .. } => "the agent's own cluster".to_owned(),
        ServiceAccount { master_url, .. }
        | ClientKeyCert { master_url, .. }
        | OpenIdConnect { master_url, .. } => master_url.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_told_by_its_target_units_and_names_of_secrets() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/kryo/requests.json");
        let all: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let packages = all["packages"].as_array().unwrap();
        let told = |id: &str| {
            let one = packages.iter().find(|one| one["id"] == id).unwrap();
            explain(&TaskPackage::decode(one.to_string().as_bytes()).unwrap())
        };
        let shell = told("t-shell");
        assert_eq!((&shell["runs"], &shell["offered"]), (&json!(true), &json!(true)), "{shell:#}");
        assert_eq!(shell["step"]["type"], "ShellScript");
        assert_eq!(shell["step"]["target"], "the agent");
        assert_eq!(shell["secrets"], json!(["sec1"]));
        assert!(!shell.to_string().contains("s3cr3t-value"));
        let strange = TaskPackage::new("t", "HELM_COMMAND_TASK_NG", &json!({})).unwrap();
        let strange = explain(&strange);
        assert_eq!((&strange["runs"], &strange["offered"]), (&json!(false), &json!(false)));
        assert_eq!(strange["failure"]["code"], "HRN-004");
    }
}
