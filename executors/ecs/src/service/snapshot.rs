//! Everything that is needed to make a service anew, or to bring it back (facts A3).

#[cfg(test)]
use super::compare::equal;
use crate::documents::names;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A service as it was found. Holds no secret: a service has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Snapshot {
    /// Version of this form.
    pub(crate) v: u32,
    pub(crate) name: String,
    pub(crate) arn: String,
    /// Input of CreateService that makes it, without cluster and token. Lists that are empty stand in it, so that what was
    /// added since is removed again.
    pub(crate) document: Value,
    /// ARN of the revision that its tasks ran.
    pub(crate) task_definition: String,
    pub(crate) desired: u32,
    /// The deployment that was PRIMARY.
    pub(crate) deployment: Option<String>,
    /// Service revision and service deployment, where ECS told them.
    pub(crate) revision: Option<String>,
    pub(crate) service_deployment: Option<String>,
    /// Container, image and digest of what ran, where ECS told them.
    pub(crate) images: Vec<(String, String, Option<String>)>,
    /// Members that a service revision has and that could not be read: they are not brought back.
    pub(crate) unread: Vec<String>,
    /// When it was taken, epoch milliseconds.
    pub(crate) taken_at: u64,
}

/// Members of a service that DescribeServices does not answer: they stand in the service's revision.
pub(crate) const OF_REVISION: [&str; 5] = [
    "serviceConnectConfiguration",
    "volumeConfigurations",
    "vpcLatticeConfigurations",
    "gatewayConnectors",
    "monitoring",
];

/// Lists that UpdateService empties when it is told so.
pub(crate) const LISTS: [&str; 7] = [
    "loadBalancers",
    "serviceRegistries",
    "placementConstraints",
    "placementStrategy",
    "capacityProviderStrategy",
    "volumeConfigurations",
    "vpcLatticeConfigurations",
];

fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    aws::document::text(value, path).unwrap_or_default()
}

/// The deployment that ECS works towards.
pub(crate) fn primary(live: &Value) -> Option<&Value> {
    aws::document::list(live, &["deployments"])
        .iter()
        .find(|deployment| text(deployment, &["status"]) == "PRIMARY")
}

/// Whether a service exists and takes changes.
pub(crate) fn is_active(live: &Value) -> bool {
    text(live, &["status"]) == "ACTIVE"
}

/// The service as CreateService would take it: `live` is what DescribeServices answers (with its tags), `revision` what
/// DescribeServiceRevisions does.
pub(crate) fn described(live: &Value, revision: Option<&Value>) -> Value {
    let mut document = Map::new();
    let primary = primary(live);
    for name in names("Service") {
        let found = match OF_REVISION.contains(&name) {
            true => revision.and_then(|revision| revision.get(name)).or_else(|| primary?.get(name)),
            false => live.get(name),
        };
        if let Some(value) = found.filter(|value| !value.is_null()) {
            document.insert(name.to_owned(), value.clone());
        }
    }
    document.shift_remove("cluster");
    let role = text(live, &["roleArn"]);
    // The role that ECS itself made for services cannot be given to it.
    if !role.is_empty() && !role.contains("/aws-service-role/") {
        document.insert("role".to_owned(), Value::from(role));
    }
    let own = |tag: &&Value| !text(tag, &["key"]).starts_with("aws:");
    let tags: Vec<Value> = aws::document::list(live, &["tags"]).iter().filter(own).cloned().collect();
    document.shift_remove("tags");
    if !tags.is_empty() {
        document.insert("tags".to_owned(), Value::Array(tags));
    }
    let empty = |value: Option<&Value>| value.and_then(Value::as_array).is_none_or(Vec::is_empty);
    if !empty(document.get("capacityProviderStrategy")) {
        document.shift_remove("launchType");
    }
    if text(live, &["schedulingStrategy"]) == "DAEMON" {
        document.shift_remove("desiredCount");
    }
    for name in ["platformVersion", "launchType", "propagateTags"] {
        if document.get(name).is_some_and(|value| value == "") {
            document.shift_remove(name);
        }
    }
    for name in LISTS {
        // What nobody could read is not taken for empty.
        let told = !OF_REVISION.contains(&name)
            || revision.is_some()
            || primary.is_some_and(|p| p.get(name).is_some());
        if told {
            document.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        }
    }
    Value::Object(document)
}

impl Snapshot {
    /// The snapshot of an active service.
    pub(crate) fn of(live: &Value, revision: Option<&Value>, taken_at: u64) -> Snapshot {
        let primary = primary(live);
        let own = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        let images = aws::document::list(revision.unwrap_or(&Value::Null), &["containerImages"]).iter();
        let images = images.map(|image| {
            let part = |name: &str| text(image, &[name]).to_owned();
            (part("containerName"), part("image"), own(text(image, &["imageDigest"])))
        });
        let unread = match revision {
            Some(_) => Vec::new(),
            None => {
                let missing = |name: &&&str| primary.is_none_or(|primary| primary.get(**name).is_none());
                OF_REVISION.iter().filter(missing).map(|name| (*name).to_owned()).collect()
            }
        };
        Snapshot {
            v: 1,
            name: text(live, &["serviceName"]).to_owned(),
            arn: text(live, &["serviceArn"]).to_owned(),
            document: described(live, revision),
            task_definition: text(live, &["taskDefinition"]).to_owned(),
            desired: desired(live),
            deployment: primary.and_then(|primary| own(text(primary, &["id"]))),
            revision: revision_arn(live),
            service_deployment: own(text(live, &["currentServiceDeployment"])),
            images: images.collect(),
            unread,
            taken_at,
        }
    }

    /// Whether the service is as it was when the snapshot was taken, but for its count and its tags.
    #[cfg(test)]
    pub(crate) fn is_like(&self, live: &Value, revision: Option<&Value>) -> bool {
        let now = described(live, revision);
        names("Service")
            .filter(|name| !matches!(*name, "desiredCount" | "tags" | "cluster" | "clientToken"))
            .all(|name| {
                self.unread.iter().any(|unread| unread == name)
                    || equal(name, self.document.get(name), now.get(name))
            })
    }
}

/// The count that a service is to have; `None` in a definition that names none.
pub(crate) fn written_count(service: &Value) -> Option<u32> {
    count(service, "desiredCount")
}

/// The count that a service is to have.
pub(crate) fn desired(live: &Value) -> u32 {
    written_count(live).unwrap_or(0)
}

/// How many tasks of a service run.
pub(crate) fn running(live: &Value) -> u32 {
    count(live, "runningCount").unwrap_or(0)
}

fn count(service: &Value, name: &str) -> Option<u32> {
    aws::document::whole(service, &[name]).and_then(|count| u32::try_from(count).ok())
}

/// ARN of the service revision that runs, when it is one.
pub(crate) fn revision_arn(live: &Value) -> Option<String> {
    match aws::document::list(live, &["currentServiceRevisions"]) {
        [one] => Some(text(one, &["arn"]).to_owned()).filter(|arn| !arn.is_empty()),
        // While a deployment runs there are two; the one that it comes from is not told apart here.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn live() -> Value {
        json!({"serviceArn": "arn:aws:ecs:r:1:service/c/web", "serviceName": "web", "clusterArn": "arn:c", "status": "ACTIVE",
            "desiredCount": 3, "runningCount": 3, "launchType": "FARGATE", "platformVersion": "LATEST", "platformFamily": "Linux",
            "taskDefinition": "arn:td:4", "loadBalancers": [{"targetGroupArn": "t", "containerName": "web", "containerPort": 80}],
            "serviceRegistries": [], "roleArn": "arn:aws:iam::1:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS",
            "deployments": [{"id": "ecs-svc/1", "status": "PRIMARY", "taskDefinition": "arn:td:4",
                "serviceConnectConfiguration": {"enabled": true, "namespace": "n"}}],
            "currentServiceRevisions": [{"arn": "rev:1"}], "currentServiceDeployment": "dep:1", "events": [{"id": "1"}],
            "deploymentConfiguration": {"maximumPercent": 200}, "schedulingStrategy": "REPLICA",
            "tags": [{"key": "team", "value": "a"}, {"key": "aws:x", "value": "b"}], "enableExecuteCommand": true})
    }

    #[test]
    fn a_snapshot_takes_what_the_service_itself_does_not_tell_from_its_revision() {
        let revision = json!({"serviceRevisionArn": "rev:1", "vpcLatticeConfigurations": [{"roleArn": "r", "targetGroupArn": "t", "portName": "p"}],
            "serviceConnectConfiguration": {"enabled": true, "namespace": "n", "services": []},
            "containerImages": [{"containerName": "web", "image": "a:1", "imageDigest": "sha256:1"}]});
        let snapshot = Snapshot::of(&live(), Some(&revision), 5);
        assert_eq!(snapshot.document["serviceConnectConfiguration"]["services"], json!([]));
        assert_eq!(snapshot.document["vpcLatticeConfigurations"].as_array().unwrap().len(), 1);
        assert_eq!(snapshot.document["volumeConfigurations"], json!([]));
        assert_eq!(snapshot.document["serviceRegistries"], json!([]));
        assert_eq!(snapshot.document["tags"], json!([{"key": "team", "value": "a"}]));
        assert_eq!(snapshot.document.get("role"), None);
        assert_eq!(snapshot.images, [("web".into(), "a:1".into(), Some("sha256:1".into()))]);
        assert_eq!(
            (snapshot.deployment.as_deref(), snapshot.revision.as_deref()),
            (Some("ecs-svc/1"), Some("rev:1"))
        );
        assert!(snapshot.unread.is_empty() && snapshot.is_like(&live(), Some(&revision)));

        let without = Snapshot::of(&live(), None, 5);
        assert_eq!(without.document["serviceConnectConfiguration"]["namespace"], "n");
        assert_eq!(without.document.get("volumeConfigurations"), None);
        assert_eq!(
            without.unread,
            ["volumeConfigurations", "vpcLatticeConfigurations", "gatewayConnectors", "monitoring"]
        );
        let again: Snapshot = serde_json::from_value(serde_json::to_value(&snapshot).unwrap()).unwrap();
        assert_eq!(again, snapshot);
    }

    #[test]
    fn capacity_providers_and_daemons_are_made_as_they_were() {
        let mut service = live();
        service["capacityProviderStrategy"] = json!([{"capacityProvider": "FARGATE_SPOT", "weight": 1}]);
        service["schedulingStrategy"] = json!("DAEMON");
        service["roleArn"] = json!("arn:aws:iam::1:role/own");
        let document = described(&service, None);
        assert_eq!(document.get("launchType"), None);
        assert_eq!(document.get("desiredCount"), None);
        assert_eq!(document["role"], "arn:aws:iam::1:role/own");
    }

    /// Members of CreateService with values that ECS gives back as it got them.
    fn document() -> impl Strategy<Value = Value> {
        let member = prop::sample::select(vec![
            ("desiredCount", json!(3)),
            ("healthCheckGracePeriodSeconds", json!(7)),
            ("placementStrategy", json!([{"type": "spread", "field": "attribute:ecs.availability-zone"}])),
            ("placementConstraints", json!([{"type": "distinctInstance"}])),
            ("loadBalancers", json!([{"targetGroupArn": "t", "containerName": "web", "containerPort": 1}])),
            ("serviceRegistries", json!([{"registryArn": "r"}])),
            ("capacityProviderStrategy", json!([{"capacityProvider": "a", "base": 1, "weight": 2}])),
            (
                "networkConfiguration",
                json!({"awsvpcConfiguration": {"subnets": ["a"], "assignPublicIp": "ENABLED"}}),
            ),
            (
                "deploymentConfiguration",
                json!({"maximumPercent": 150, "deploymentCircuitBreaker": {"enable": true, "rollback": true}}),
            ),
            ("enableExecuteCommand", json!(true)),
            ("enableECSManagedTags", json!(true)),
            ("propagateTags", json!("SERVICE")),
            ("availabilityZoneRebalancing", json!("ENABLED")),
            ("tags", json!([{"key": "a", "value": "b"}])),
            ("platformVersion", json!("1.4.0")),
            (
                "serviceConnectConfiguration",
                json!({"enabled": true, "namespace": "n", "services": [{"portName": "p"}]}),
            ),
            (
                "volumeConfigurations",
                json!([{"name": "v", "managedEBSVolume": {"roleArn": "r", "sizeInGiB": 3}}]),
            ),
            ("vpcLatticeConfigurations", json!([{"roleArn": "r", "targetGroupArn": "t", "portName": "p"}])),
            ("gatewayConnectors", json!([{"portName": "p"}])),
            (
                "monitoring",
                json!({"metricConfigurations": [{"metricNames": ["x"], "resolutionSeconds": 20}]}),
            ),
        ]);
        prop::collection::vec(member, 0..20).prop_map(|members| {
            Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        })
    }

    proptest! {
        /// Manifest → create → describe → snapshot → create: nothing is lost.
        #[test]
        fn what_was_made_can_be_made_again(document in document()) {
            let mut live = document.clone();
            let mut revision = json!({});
            for name in OF_REVISION {
                if let Some(value) = live.as_object_mut().unwrap().shift_remove(name) { revision[name] = value; }
            }
            live["status"] = json!("ACTIVE");
            let snapshot = Snapshot::of(&live, Some(&revision), 0);
            for (name, value) in document.as_object().unwrap() {
                prop_assert_eq!(snapshot.document.get(name), Some(value), "{}", name);
            }
            prop_assert!(snapshot.is_like(&live, Some(&revision)));
        }
    }
}
