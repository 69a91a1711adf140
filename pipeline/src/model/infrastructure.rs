//! Infrastructures: hosts and how to log in to them, a Kubernetes cluster and a namespace in it, or an ECS cluster.

use super::read::{Field, Reader};
use crate::fault::{Fault, Findings, did_you_mean};
use crate::rules;
use crate::yaml::Node;
use serde_json::Value as Json;

/// An effective infrastructure, before its references are looked up.
#[derive(Clone, Debug)]
pub struct Infrastructure {
    /// Canonical type: `Pdc`, `KubernetesDirect` or `ECS`.
    pub kind: String,
    /// Hosts, or an expression that gives them.
    pub hosts: Option<Field>,
    /// `Ssh` or `Pdc` connector.
    pub connector: Option<Field>,
    /// SSHKey secret.
    pub credentials: Option<Field>,
    /// Which of a `Pdc` connector's hosts.
    pub filter: Option<HostFilter>,
    /// `delegateSelectors`.
    pub selectors: Option<Field>,
    /// Tags.
    pub tags: Json,
    /// `allowSimultaneousDeployments`.
    pub simultaneous: bool,
    /// Of a cluster: what stands for hosts.
    pub cluster: Option<ClusterPlace>,
    /// Of a cluster of ECS: what stands for hosts.
    pub ecs: Option<EcsPlace>,
}

/// A cluster of ECS.
#[derive(Clone, Debug)]
pub struct EcsPlace {
    /// `Aws` connector.
    pub connector: Field,
    /// Region.
    pub region: Field,
    /// Name or ARN of the cluster.
    pub cluster: Field,
    /// A tag of ours.
    pub namespace: Option<Field>,
}

/// A cluster and the place in it.
#[derive(Clone, Debug)]
pub struct ClusterPlace {
    /// `K8sCluster` connector.
    pub connector: Field,
    /// Namespace.
    pub namespace: Field,
    /// Name of the release.
    pub release_name: Field,
}

/// Which hosts of a connector.
#[derive(Clone, Debug)]
pub enum HostFilter {
    /// By name.
    Names(Field),
    /// By attributes, all of which must be equal.
    Attributes(Field),
}

/// Types that mean hosts over SSH; the canonical one first.
const KINDS: [&str; 4] = ["Pdc", "SshWinRmAzureInfrastructure", "SshWinRmAzure", "SshWinRmAws"];

/// Infrastructures that are clusters.
const CLUSTER: &str = "KubernetesDirect";

/// Those of ECS; the canonical spelling first.
const ECS: [&str; 3] = ["ECS", "EcsInfrastructure", "Ecs"];

/// Reads an effective infrastructure definition: `{type, spec}` with whatever else its entity holds. `deployment` is the
/// type of the service that is deployed to it, if that is known.
pub fn read_infrastructure(
    node: &Node,
    path: &str,
    deployment: Option<&str>,
    findings: &mut Findings,
) -> Option<Infrastructure> {
    let mut reader = Reader::new(node, path, findings);
    reader.known(&[
        "name",
        "identifier",
        "environmentRef",
        "orgIdentifier",
        "projectIdentifier",
        "description",
        "scopedServices",
    ]);
    let outer_tags = reader.any("tags");
    let simultaneous = reader.flag("allowSimultaneousDeployments", findings).unwrap_or(false);
    let written = reader.field("deploymentType", findings).map(|field| field.text());
    let of = |kind: &str| deployment.or(written.as_deref()).is_some_and(|own| own.eq_ignore_ascii_case(kind));
    let kind = match reader.has("type") {
        false if of("Kubernetes") => {
            rules::r2_kubernetes_infrastructure(&node.at, path, findings);
            Field::made(CLUSTER, reader.sub("type"), &node.at)
        }
        false if of("ECS") => {
            rules::r2_ecs_infrastructure(&node.at, path, findings);
            Field::made(ECS[0], reader.sub("type"), &node.at)
        }
        _ => reader.required("type", findings)?,
    };
    let mut spec = reader.required_map("spec", findings)?;
    reader.finish(findings);
    let text = kind.text();
    if text.trim().eq_ignore_ascii_case(CLUSTER) {
        return read_cluster(spec, outer_tags, simultaneous, findings);
    }
    if ECS.iter().any(|known| known.eq_ignore_ascii_case(text.trim())) {
        rules::r2_type_alias(&text, ECS[0], &kind.at, &kind.path, findings);
        return read_ecs(spec, outer_tags, simultaneous, findings);
    }
    let azure = spec.has("subscriptionId");
    let meant = match KINDS.iter().find(|known| known.eq_ignore_ascii_case(&text)) {
        Some(&"Pdc") => "Pdc",
        Some(&("SshWinRmAzureInfrastructure" | "SshWinRmAzure")) if !azure => "Pdc",
        _ => {
            let message = format!(
                "infrastructure type `{text}` is not supported by this version; supported are Pdc, {CLUSTER}, {}",
                ECS[0]
            );
            let known = ["Pdc", CLUSTER].into_iter().chain(ECS);
            findings.push(Fault::at(&kind.at, &kind.path, message).suggest(did_you_mean(&text, known)));
            return None;
        }
    };
    rules::r2_type_alias(&text, meant, &kind.at, &kind.path, findings);
    let hostname = spec.any("hostname");
    let hosts = spec.any("hosts").or(hostname);
    let connector = spec.field("connectorRef", findings);
    let credentials = spec.field("credentialsRef", findings);
    let selectors = spec.any("delegateSelectors");
    if let Some(selectors) = &selectors {
        rules::r4_infrastructure_selectors(selectors, findings);
    }
    if let Some(os) = spec.field("osType", findings)
        && !os.text().eq_ignore_ascii_case("Linux")
    {
        let message = format!("osType `{}` is not supported by this version (WinRM comes later)", os.text());
        findings.fault(&os.at, &os.path, message);
    }
    let tags = spec.any("tags").or(outer_tags).map_or(Json::Null, |tags| tags.value);
    for key in ["hostArrayPath", "hostAttributes", "provisioner"] {
        if let Some(node) = spec.node(key) {
            findings.fault(&node.at, &spec.sub(key), "hosts from a provisioner are not supported yet");
        }
    }
    // The older form writes the filters without their type.
    let names = spec.any("hostFilters").map(HostFilter::Names);
    let attributes = spec.any("attributeFilters").map(HostFilter::Attributes);
    let filter = read_filter(&mut spec, findings).or(names).or(attributes);
    spec.known(&["releaseName"]);
    spec.finish(findings);
    let kind = meant.to_owned();
    Some(Infrastructure {
        kind,
        hosts,
        connector,
        credentials,
        filter,
        selectors,
        tags,
        simultaneous,
        cluster: None,
        ecs: None,
    })
}

/// `{connectorRef, region, cluster}`, and what the seed adds.
fn read_ecs(
    mut spec: Reader<'_>,
    outer_tags: Option<Field>,
    simultaneous: bool,
    findings: &mut Findings,
) -> Option<Infrastructure> {
    let connector = spec.required("connectorRef", findings);
    let mut place = |key: &'static str| {
        let field = spec.required(key, findings)?;
        if field.text().trim().is_empty() {
            findings.fault(&field.at, &field.path, format!("`{key}` is empty"));
            return None;
        }
        Some(field)
    };
    let (region, cluster) = (place("region"), place("cluster"));
    let selectors = spec.any("delegateSelectors");
    if let Some(selectors) = &selectors {
        rules::r4_infrastructure_selectors(selectors, findings);
    }
    let namespace = spec.field("namespace", findings).filter(|field| !field.text().trim().is_empty());
    if let Some(field) = &namespace {
        rules::ecs_namespace(field, findings);
    }
    let tags = spec.any("tags").or(outer_tags).map_or(Json::Null, |tags| tags.value);
    spec.refused("provisioner", "this version provisions nothing", findings);
    spec.finish(findings);
    Some(Infrastructure {
        kind: ECS[0].to_owned(),
        hosts: None,
        connector: connector.clone(),
        credentials: None,
        filter: None,
        selectors,
        tags,
        simultaneous,
        cluster: None,
        ecs: Some(EcsPlace { connector: connector?, region: region?, cluster: cluster?, namespace }),
    })
}

fn read_cluster(
    mut spec: Reader<'_>,
    outer_tags: Option<Field>,
    simultaneous: bool,
    findings: &mut Findings,
) -> Option<Infrastructure> {
    let connector = spec.required("connectorRef", findings);
    let selectors = spec.any("delegateSelectors");
    if let Some(selectors) = &selectors {
        rules::r4_infrastructure_selectors(selectors, findings);
    }
    let tags = spec.any("tags").or(outer_tags).map_or(Json::Null, |tags| tags.value);
    for key in ["provisioner", "cluster"] {
        if let Some(node) = spec.node(key) {
            findings.fault(
                &node.at,
                &spec.sub(key),
                "clusters from a provisioner or cloud are not supported yet",
            );
        }
    }
    let (at, path) = (spec.at().clone(), spec.path().to_owned());
    let mut gap = |key: &'static str, assumed: &str| {
        let field = spec.field(key, findings).filter(|field| !field.text().trim().is_empty());
        field.unwrap_or_else(|| {
            rules::r2_kubernetes_gap(key, assumed, &at, &path, findings);
            Field::made(assumed, format!("{path}.{key}"), &at)
        })
    };
    let namespace = gap("namespace", "<+service.name>-<+env.name>");
    let release_name = gap("releaseName", "<+service.name>");
    spec.finish(findings);
    Some(Infrastructure {
        kind: CLUSTER.to_owned(),
        hosts: None,
        connector: connector.clone(),
        credentials: None,
        filter: None,
        selectors,
        tags,
        simultaneous,
        cluster: Some(ClusterPlace { connector: connector?, namespace, release_name }),
        ecs: None,
    })
}

fn read_filter(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<HostFilter> {
    let mut filter = spec.map("hostFilter", findings)?;
    let kind = filter.required("type", findings)?;
    let inner = filter.map("spec", findings);
    filter.finish(findings);
    let value = |findings: &mut Findings| {
        let mut inner = inner?;
        let value = inner.any("value");
        if value.is_none() {
            findings.fault(inner.at(), &inner.sub("value"), "`value` is missing");
        }
        inner.finish(findings);
        value
    };
    match kind.text().to_ascii_lowercase().as_str() {
        "all" => None,
        "hostnames" => value(findings).map(HostFilter::Names),
        "hostattributes" => value(findings).map(HostFilter::Attributes),
        _ => {
            let message =
                format!("host filter `{}` is unknown; known are All, HostNames, HostAttributes", kind.text());
            findings.fault(&kind.at, &kind.path, message);
            None
        }
    }
}
