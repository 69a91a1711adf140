//! The canary: a smaller copy of the workload beside the stable one (facts `k8s-steps.md` §10.4, §10.5).
//!
//! Pure: what is to be applied, what waits for the rolling step, how many pods, which share of the traffic.

#[cfg(test)]
mod tests;

use crate::variant::{self, Fault, Variant, annotated, direct, group, kind, reference};
use proto::task::Instances;
use serde_json::Value;

/// What names of the canary end with.
pub(crate) const SUFFIX: &str = "canary";
/// Label that tells canary and stable pods apart.
pub(crate) const TRACK: &str = "harness.io/track";
/// Value of [`TRACK`] on stable pods.
pub(crate) const STABLE: &str = "stable";
/// Istio objects with this annotation may be edited.
pub(crate) const MANAGED: &str = "harness.io/managed";

/// How many pods the canary gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// That many.
    pub(crate) replicas: u32,
    /// The share came to none and was raised to one.
    pub(crate) raised: bool,
}

/// `instances` of a stable workload of `stable` replicas: rounded half up, at least one.
pub(crate) fn target(instances: Instances, stable: u32) -> Target {
    let asked = match instances {
        Instances::Count(count) => count,
        Instances::Percentage(percent) => {
            let wide = (u64::from(percent) * u64::from(stable) + 50) / 100;
            u32::try_from(wide).unwrap_or(u32::MAX)
        }
    };
    Target { replicas: asked.max(1), raised: asked == 0 }
}

/// Share of the traffic, in percent rounded down, that `canary` ready pods carry beside `stable` ready ones when each
/// pod carries the same. Nothing when there is no ready canary pod.
pub(crate) fn capacity_share(canary: u32, stable: u32) -> u32 {
    let all = u64::from(canary) + u64::from(stable);
    u32::try_from(u64::from(canary) * 100 / all.max(1)).unwrap_or(100)
}

/// When an object of the manifest that is not the canary's own is applied by a canary step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Now: the canary may need it, and it moves no traffic and no other pods.
    Now,
    /// Now when the cluster has none of that name; the one it has stays as it is until the rolling step.
    IfAbsent,
    /// With the rolling step.
    Later,
}

/// Whose turn it is. A canary step must change nothing for the stable pods and their traffic, because its removal does
/// not bring anything back.
pub(crate) fn turn(document: &Value) -> Turn {
    if direct(document) || annotated(document, MANAGED) {
        return Turn::Now;
    }
    match (group(document), kind(document)) {
        ("apps" | "extensions", _)
        | ("batch", "Job" | "CronJob")
        | ("", "Pod" | "ReplicationController")
        | ("apps.openshift.io", "DeploymentConfig")
        | ("autoscaling", "HorizontalPodAutoscaler")
        | ("policy", "PodDisruptionBudget") => Turn::Later,
        ("", "Service" | "PersistentVolumeClaim")
        | ("networking.k8s.io", _)
        | ("route.openshift.io", _)
        | (
            "gateway.networking.k8s.io" | "networking.istio.io" | "split.smi-spec.io" | "specs.smi-spec.io",
            _,
        ) => Turn::IfAbsent,
        _ => Turn::Now,
    }
}

/// A manifest made ready for a canary step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// The canary workload, without replicas.
    pub(crate) workload: Value,
    /// Its ConfigMaps and Secrets.
    pub(crate) configuration: Vec<Value>,
    /// Objects of the manifest that are applied as they stand.
    pub(crate) shared: Vec<Value>,
    /// Objects of the manifest that are applied only where the cluster has none.
    pub(crate) if_absent: Vec<Value>,
    /// References of those that wait for the rolling step.
    pub(crate) later: Vec<String>,
    /// Kind of the workload.
    pub(crate) kind: String,
    /// Name of the stable workload.
    pub(crate) stable_name: String,
    /// Replicas that the manifest names.
    pub(crate) manifest_replicas: Option<u32>,
    /// Things a person should read.
    pub(crate) notices: Vec<String>,
}

/// Makes `documents` ready.
///
/// **Errors**: not exactly one workload to copy.
pub(crate) fn prepare(
    mut documents: Vec<Value>,
    release: &str,
    namespace: &str,
    skip_versioning: bool,
) -> Result<Prepared, Fault> {
    let place = variant::candidate(&documents, namespace)?;
    let variant =
        Variant { suffix: SUFFIX, label: TRACK, value: SUFFIX, release, namespace, skip_versioning };
    let manifest_replicas = documents.get(place).and_then(replicas);
    let reshaped = variant::reshape(&mut documents, place, &variant);
    let mut prepared = Prepared {
        workload: Value::Null,
        configuration: Vec::new(),
        shared: Vec::new(),
        if_absent: Vec::new(),
        later: Vec::new(),
        kind: String::new(),
        stable_name: reshaped.base_name,
        manifest_replicas,
        notices: reshaped.notices,
    };
    for (index, document) in documents.into_iter().enumerate() {
        let own = reshaped.own.contains(&index);
        if index == place {
            prepared.kind = kind(&document).to_owned();
            if document.pointer("/spec/volumeClaimTemplates/0").is_some() {
                prepared
                    .notices
                    .push("the canary gets volumes of its own; they stay when it is deleted".to_owned());
            }
            prepared.workload = document;
        } else if own && matches!(kind(&document), "ConfigMap" | "Secret") {
            prepared.configuration.push(document);
        } else if own {
            // An autoscaler would change the number of pods that the step was told, and a budget of the whole workload
            // cannot hold for a part of it.
            prepared
                .notices
                .push(format!("{} is left out: a canary has none", reference(&document, namespace)));
        } else {
            match turn(&document) {
                Turn::Now => prepared.shared.push(document),
                Turn::IfAbsent => prepared.if_absent.push(document),
                Turn::Later => prepared.later.push(reference(&document, namespace)),
            }
        }
    }
    Ok(prepared)
}

/// `spec.replicas`, when it is there and a number.
pub(crate) fn replicas(workload: &Value) -> Option<u32> {
    workload.pointer("/spec/replicas").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok())
}

impl Prepared {
    /// Gives the canary its number of pods.
    pub(crate) fn scale(&mut self, replicas: u32) {
        variant::set(&mut self.workload, &["spec", "replicas"], replicas.into());
    }

    /// What belongs to the canary alone, in the order in which it is applied, as outcome `canaryWorkload` names it.
    pub(crate) fn own(&self, namespace: &str) -> Vec<String> {
        let all = self.configuration.iter().chain([&self.workload]);
        all.map(|document| reference(document, namespace)).collect()
    }
}

/// Whether a name in the outcome or in a release is one of a canary.
pub(crate) fn is_canary_name(name: &str) -> bool {
    name.strip_suffix(SUFFIX).is_some_and(|rest| rest.ends_with('-') && rest.len() > 1)
}
