//! What can be said of a step without asking anybody.

use executor_api::SpecFault;
use proto::task::{ClusterCredential, KubernetesAction, KubernetesSpec, Selection};

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
    if rendered && spec.manifest.is_none() {
        fault("manifest", "the service has no primary manifest, and this step renders one".to_owned());
    }
    faults
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
    }
}
