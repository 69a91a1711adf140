//! What can be said of a step without asking anybody.

use crate::bluegreen::Color;
use crate::traffic::parse;
use executor_api::SpecFault;
use proto::task::{ClusterCredential, Instances, KubernetesAction, KubernetesSpec, Selection};

/// Every fault of a spec.
pub(crate) fn faults(spec: &KubernetesSpec) -> Vec<SpecFault> {
    let mut faults = Vec::new();
    let mut fault =
        |field: &str, problem: String| faults.push(SpecFault { field: field.to_owned(), problem });
    if !is_label(&spec.namespace) {
        let text =
            format!("`{}` is no name of a namespace; expected at most 63 of a-z, 0-9 and -", spec.namespace);
        fault("namespace", text);
    }
    // It becomes a label of every pod, so it may be no longer than a label's value.
    if spec.release_name.len() > 63 || !spec.release_name.split('.').all(is_label) {
        let text = format!(
            "`{}` is no name of a release; expected at most 63 of a-z, 0-9, - and ., beginning and ending with a letter or digit",
            spec.release_name
        );
        fault("releaseName", text);
    }
    let url = match &spec.cluster.credential {
        ClusterCredential::InheritFromDelegate { .. } => None,
        ClusterCredential::ServiceAccount { master_url, .. }
        | ClusterCredential::ClientKeyCert { master_url, .. }
        | ClusterCredential::OpenIdConnect { master_url, .. } => Some(master_url),
    };
    if let Some(url) = url
        && !(url.trim().starts_with("https://") || url.trim().starts_with("http://"))
    {
        fault("cluster.credential.masterUrl", format!("`{url}` is no URL; expected https://HOST:PORT"));
    }
    let rendered = match &spec.action {
        KubernetesAction::K8sApply { file_paths, .. } => {
            if spec.manifest.is_some() && file_paths.iter().any(|path| path.trim().is_empty()) {
                fault("filePaths", "an empty path; expected files or folders of the manifest".to_owned());
            }
            true
        }
        KubernetesAction::K8sRollingDeploy { .. }
        | KubernetesAction::K8sCanaryDeploy { .. }
        | KubernetesAction::K8sBlueGreenDeploy { .. }
        | KubernetesAction::K8sDryRun {}
        | KubernetesAction::K8sDiff {} => true,
        KubernetesAction::K8sDelete { resources, .. } | KubernetesAction::K8sRollout { resources, .. } => {
            if matches!(resources, Selection::Names(names) if names.is_empty()) {
                fault("resources", "no object is named; expected [namespace/]Kind/name".to_owned());
            }
            matches!(resources, Selection::Manifests(_))
        }
        _ => false,
    };
    if let Some((field, problem)) = copies(&spec.action) {
        fault(field, problem);
    }
    if rendered && spec.manifest.is_none() {
        fault("manifest", "the service has no primary manifest, and this step renders one".to_owned());
    }
    faults
}

/// Canary, colours and routes.
fn copies(action: &KubernetesAction) -> Option<(&'static str, String)> {
    let routing = |field: &'static str, routing: &serde_json::Value| {
        let problem = parse(routing).err()?;
        Some((field, problem.to_string()))
    };
    match action {
        KubernetesAction::K8sCanaryDeploy {
            instances: Instances::Count(0) | Instances::Percentage(0),
            ..
        } => Some(("instances", "0; a canary has at least one pod".to_owned())),
        KubernetesAction::K8sCanaryDeploy { instances: Instances::Percentage(share), .. } if *share > 100 => {
            Some(("instances", format!("{share} %; expected 1 to 100")))
        }
        KubernetesAction::K8sCanaryDeploy { traffic_routing: Some(config), .. }
        | KubernetesAction::K8sBlueGreenDeploy { traffic_routing: Some(config), .. }
            if !config.is_null() =>
        {
            routing("trafficRouting", config)
        }
        KubernetesAction::K8sTrafficRouting { config } => routing("config", config),
        KubernetesAction::K8sBGSwapServices { primary_service, stage_service, target_color } => {
            let wrong = target_color.as_deref().filter(|color| Color::parse(color).is_none());
            if let Some(color) = wrong {
                return Some(("targetColor", format!("`{color}`; expected blue or green")));
            }
            if primary_service.is_empty() || stage_service.is_empty() || primary_service == stage_service {
                let text =
                    format!("`{primary_service}` and `{stage_service}`; expected the names of two Services");
                return Some(("primaryService", text));
            }
            None
        }
        _ => None,
    }
}

/// A DNS label.
fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(|c| plain(c) || c == '-')
        && text.starts_with(plain)
        && text.ends_with(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::task::Cluster;

    #[test]
    fn every_fault_is_named_at_once() {
        let credential = ClusterCredential::InheritFromDelegate { context: None };
        let spec = KubernetesSpec {
            cluster: Cluster { connector: "c".into(), credential },
            namespace: "Shop".into(),
            release_name: "r".repeat(64),
            manifest: None,
            overrides: vec![],
            command_flags: vec![],
            action: KubernetesAction::K8sDryRun {},
        };
        let fields: Vec<String> = faults(&spec).into_iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["namespace", "releaseName", "manifest"]);
        let right = KubernetesSpec {
            namespace: "shop".into(),
            release_name: "release-1.2".into(),
            action: KubernetesAction::K8sCanaryDelete { workloads: vec![] },
            ..spec
        };
        assert!(faults(&right).is_empty());
        let of = |action| faults(&KubernetesSpec { action, ..right.clone() }).into_iter().next();
        let swap = |primary: &str, color: Option<&str>| KubernetesAction::K8sBGSwapServices {
            primary_service: primary.into(),
            stage_service: "web-stage".into(),
            target_color: color.map(str::to_owned),
        };
        assert_eq!(of(swap("web", Some("green"))), None);
        assert_eq!(of(swap("web", Some("red"))).unwrap().field, "targetColor");
        assert_eq!(of(swap("web-stage", None)).unwrap().field, "primaryService");
        let config = serde_json::json!({"type": "config", "trafficRouting": {"provider": "nginx"}});
        let fault = of(KubernetesAction::K8sTrafficRouting { config }).unwrap();
        assert!(fault.field == "config" && fault.problem.contains("nginx"), "{fault:?}");
    }
}
