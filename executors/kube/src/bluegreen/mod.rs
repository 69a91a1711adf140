//! Blue and green: two copies of a workload and the Services that choose between them (facts `k8s-steps.md` §10.6,
//! §10.7).
//!
//! Pure. The live primary Service alone decides which colour is which; no history and no earlier outcome is asked.

mod services;
#[cfg(test)]
mod tests;

pub(crate) use services::{Change, Role, Selects, changes, selects};

use crate::objects::to_yaml;
use crate::variant::{self, Fault, RELEASE_LABEL, Variant, annotated, direct, kind, name, reference};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Label and selector key of a colour.
pub(crate) const COLOR: &str = "harness.io/color";
/// Marks the Service of the production traffic.
const PRIMARY: &str = "harness.io/primary-service";
/// Marks the Service of the colour that is being prepared.
const STAGE: &str = "harness.io/stage-service";
/// Annotations that a clone of a Service must not carry: two Services would claim the same name outside, or the text is
/// of another object.
const NOT_CLONED: [&str; 4] = [
    PRIMARY,
    "kubectl.kubernetes.io/last-applied-configuration",
    "external-dns.alpha.kubernetes.io/hostname",
    "external-dns.alpha.kubernetes.io/internal-hostname",
];

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Color {
    Blue,
    Green,
}

impl Color {
    /// As labels spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Color::Blue => "blue",
            Color::Green => "green",
        }
    }

    /// The other one.
    pub(crate) fn other(self) -> Color {
        match self {
            Color::Blue => Color::Green,
            Color::Green => Color::Blue,
        }
    }

    /// From a label.
    pub(crate) fn parse(text: &str) -> Option<Color> {
        [Color::Blue, Color::Green].into_iter().find(|color| color.as_str() == text)
    }
}

/// The colour that takes production traffic: what the live primary Service selects. Without one nothing takes any, and
/// the first copy is to be blue.
///
/// **Errors**: it selects no colour, or one that is none.
pub(crate) fn primary_color(live: Option<&Value>, default_namespace: &str) -> Result<Color, Fault> {
    let Some(live) = live else { return Ok(Color::Green) };
    match selects(live, default_namespace)? {
        Selects { color: Some(color), .. } => Ok(color),
        Selects { color: None, service, selector } => Err(Fault::Colourless { service, selector }),
    }
}

/// Places of the two Services in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Services {
    /// Production traffic.
    pub(crate) primary: usize,
    /// `None`: it is to be cloned from the primary.
    pub(crate) stage: Option<usize>,
}

/// Finds the Services of a manifest: the annotated ones; without annotations the only one is the primary.
///
/// **Errors**: none, or several that could be it.
pub(crate) fn services(documents: &[Value], default_namespace: &str) -> Result<Services, Fault> {
    let all: Vec<usize> = documents
        .iter()
        .enumerate()
        .filter(|(_, d)| kind(d) == "Service" && variant::group(d).is_empty() && !direct(d))
        .map(|(place, _)| place)
        .collect();
    let marked = |key: &str| -> Vec<usize> {
        all.iter().copied().filter(|p| documents.get(*p).is_some_and(|d| annotated(d, key))).collect()
    };
    let several = |role, places: &[usize]| {
        let services =
            places.iter().filter_map(|p| documents.get(*p)).map(|d| reference(d, default_namespace));
        Fault::SeveralServices { role, services: services.collect() }
    };
    let stage = match marked(STAGE).as_slice() {
        [] => None,
        [one] => Some(*one),
        places => return Err(several("stage", places)),
    };
    let primary = match marked(PRIMARY).as_slice() {
        [one] => *one,
        [] => {
            let rest: Vec<usize> = all.iter().copied().filter(|p| Some(*p) != stage).collect();
            match rest.as_slice() {
                [one] => *one,
                [] => return Err(Fault::NoService),
                places => return Err(several("production", places)),
            }
        }
        places => return Err(several("production", places)),
    };
    if Some(primary) == stage {
        return Err(several("production and the stage", &[primary]));
    }
    Ok(Services { primary, stage })
}

/// A manifest made ready for one colour.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// Everything to apply.
    pub(crate) documents: Vec<Value>,
    /// Place of the workload of the stage colour.
    pub(crate) workload: usize,
    /// Place of the primary Service.
    pub(crate) primary: usize,
    /// Place of the stage Service.
    pub(crate) stage: usize,
    /// The colour that is deployed.
    pub(crate) color: Color,
    /// Things a person should read.
    pub(crate) notices: Vec<String>,
}

/// Makes `documents` ready for the colour that does not take production traffic. The primary Service goes on selecting
/// `primary_color`.
///
/// **Errors**: not exactly one workload, or no clear Services.
pub(crate) fn prepare(
    mut documents: Vec<Value>,
    release: &str,
    namespace: &str,
    skip_versioning: bool,
    primary_color: Color,
) -> Result<Prepared, Fault> {
    let place = variant::candidate(&documents, namespace)?;
    let Services { primary, stage } = services(&documents, namespace)?;
    let color = primary_color.other();
    let stage = match stage {
        Some(stage) => stage,
        None => {
            let clone = documents.get(primary).map(clone_for_stage).ok_or(Fault::NoService)?;
            documents.push(clone);
            documents.len() - 1
        }
    };
    for (place, color) in [(primary, primary_color), (stage, color)] {
        if let Some(service) = documents.get_mut(place) {
            variant::set(service, &["spec", "selector", COLOR], color.as_str().into());
            // Later steps find the Services by it.
            variant::set(service, &["metadata", "labels", RELEASE_LABEL], release.into());
        }
    }
    if let Some(service) = documents.get_mut(primary) {
        variant::set(service, &["metadata", "annotations", PRIMARY], "true".into());
    }
    let suffix = color.as_str();
    let variant = Variant { suffix, label: COLOR, value: suffix, release, namespace, skip_versioning };
    let reshaped = variant::reshape(&mut documents, place, &variant);
    Ok(Prepared { documents, workload: place, primary, stage, color, notices: reshaped.notices })
}

/// The stage Service as a clone of the primary.
fn clone_for_stage(primary: &Value) -> Value {
    let mut stage = clone_of(primary, &format!("{}-stage", name(primary)));
    variant::set(&mut stage, &["metadata", "annotations", STAGE], "true".into());
    stage
}

/// A Service like `primary` under another name, without what only one Service in a cluster can have.
pub(crate) fn clone_of(primary: &Value, new_name: &str) -> Value {
    let mut clone = primary.clone();
    variant::set(&mut clone, &["metadata", "name"], new_name.into());
    if let Some(annotations) = clone.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !NOT_CLONED.contains(&key.as_str()));
    }
    if let Some(spec) = clone.get_mut("spec").and_then(Value::as_object_mut) {
        let headless = spec.get("clusterIP") == Some(&json!("None"));
        for key in ["clusterIP", "clusterIPs", "healthCheckNodePort", "loadBalancerIP", "externalIPs"] {
            if !(headless && key.starts_with("clusterIP")) {
                spec.shift_remove(key);
            }
        }
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
            port.shift_remove("nodePort");
        }
    }
    clone
}

/// A fingerprint of a rendered manifest, short enough for a label. Neither the order of documents nor that of keys
/// matters.
pub(crate) fn fingerprint(documents: &[Value]) -> String {
    let mut texts: Vec<String> = documents.iter().map(to_yaml).collect();
    texts.sort_unstable();
    let mut digest = Sha256::new();
    for text in texts {
        digest.update(text.as_bytes());
        digest.update([0]);
    }
    let mut hex = hex::encode(digest.finalize());
    hex.truncate(40);
    hex
}
