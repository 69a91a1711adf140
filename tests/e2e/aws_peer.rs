//! The AWS region that other scenarios deploy to behaves: what is claimed about deployments elsewhere is only worth
//! something if a good one loses no request here and a bad one is noticed here.

use e2e::peers::aws::{self, Balancer, Clients, Ecs, Fault, Moto, Place, forward, has_share, within_chance};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A place with a load balancer that forwards port 80 to the first of two groups.
struct Site {
    place: Place<'static>,
    balancer: Balancer<'static>,
    groups: [String; 2],
    listener: String,
    door: SocketAddr,
}

fn site(name: &str) -> Site {
    let ecs = Ecs::shared();
    let place = Place::new(ecs, name);
    let balancer = place.balancer("lb");
    let groups = [balancer.group("blue"), balancer.group("green")];
    let listener = balancer.listener(80, &[(&groups[0], 100), (&groups[1], 0)]);
    let door = ecs.door(&listener);
    Site { place, balancer, groups, listener, door }
}

fn only(body: &str, seen: &std::collections::BTreeMap<String, usize>) -> bool {
    seen.len() == 1 && seen.contains_key(body)
}

#[test]
fn a_service_answers_and_a_new_revision_replaces_it_without_a_lost_request() {
    let site = site("rolls");
    let (place, ecs) = (&site.place, site.place.ecs);
    let (first, digest) = ecs.image("rolls", "1", "web");
    let (second, _) = ecs.image("rolls", "2", "slow 1");
    let definition = place.register("rolls", &first);
    let mut service = place.service("web", &definition, 2, Some(&site.groups[0]));
    // A twentieth of it, as everything of a load balancer is quicker here.
    service["healthCheckGracePeriodSeconds"] = 60.into();
    let made = ecs.aws("ecs", "CreateService", service);
    assert_eq!(made["service"]["deployments"][0]["rolloutState"], "IN_PROGRESS", "{made}");
    let steady = place.until_steady("web");
    assert_eq!(steady["runningCount"], 2);
    assert_eq!(site.balancer.health(&site.groups[0]), ["healthy", "healthy"]);
    assert!(only("1", &aws::traffic(site.door, "/", 20)));
    assert_eq!(aws::get(site.door, "/health"), r#"{"status":"UP"}"#);
    let tasks = place.tasks(Some("web"), "RUNNING");
    assert_eq!(tasks[0]["startedBy"], steady["deployments"][0]["id"]);
    assert_eq!(tasks[0]["containers"][0]["imageDigest"], digest.as_str());

    let clients = Clients::start(site.door);
    let update =
        json!({"cluster": place.name, "service": "web", "taskDefinition": place.register("rolls", &second)});
    ecs.aws("ecs", "UpdateService", update);
    // The new tasks run and are not yet healthy: the old ones still answer.
    place.until("web", "rolling", |now| now["runningCount"] == 4);
    let steady = place.until_steady("web");
    assert!(has_share(site.door, "2", 1.0, 20).is_ok());
    let seen = clients.stop();
    assert!(seen.keys().all(|answer| ["1", "2"].contains(&answer.as_str())), "{seen:?}");
    assert_eq!(seen.len(), 2, "{seen:?}");
    let events = steady["events"].to_string();
    assert!(events.contains("has reached a steady state."), "{events}");
    assert_eq!(place.tasks(Some("web"), "STOPPED").len(), 2);

    ecs.aws("ecs", "DeleteService", json!({"cluster": place.name, "service": "web", "force": true}));
    let again = ecs.ask("ecs", "CreateService", place.service("web", &definition, 1, None)).unwrap_err();
    assert!(again.message.contains("Draining"), "{again:?}");
    place.until("web", "gone", |now| now["status"] == "INACTIVE");
    assert_eq!(site.balancer.health(&site.groups[0]), Vec::<String>::new());
}

#[test]
fn a_revision_that_crashes_or_is_never_healthy_is_rolled_back_and_nobody_notices() {
    let site = site("breaks");
    let (place, ecs) = (&site.place, site.place.ecs);
    let good = place.register("breaks", &ecs.image("breaks", "good", "web").0);
    place.run("web", &good, 2, Some(&site.groups[0]));
    let clients = Clients::start(site.door);
    for (behaviour, reason) in
        [("crash", "Essential container in task exited"), ("sick", "Task failed ELB health checks")]
    {
        let bad = place.register("breaks", &ecs.image("breaks", behaviour, behaviour).0);
        let update = json!({"cluster": place.name, "service": "web", "taskDefinition": bad});
        ecs.aws("ecs", "UpdateService", update);
        let failed = place.until("web", "failed", |now| {
            let all = now["deployments"].as_array().map_or(&[][..], Vec::as_slice);
            all.iter().any(|d| d["taskDefinition"] == bad.as_str() && d["rolloutState"] == "FAILED")
        });
        assert!(failed["events"].to_string().contains("circuit breaker"), "{failed}");
        let steady = place.until_steady("web");
        assert_eq!(steady["taskDefinition"], good.as_str());
        let stopped = place.tasks(Some("web"), "STOPPED");
        let ended = |task: &&Value| task["stoppedReason"].as_str().is_some_and(|r| r.starts_with(reason));
        assert!(stopped.iter().filter(ended).count() >= 3, "{stopped:?}");
    }
    let seen = clients.stop();
    assert!(only("good", &seen), "{seen:?}");
}

#[test]
fn traffic_follows_weights_and_rules() {
    let site = site("weighs");
    let (place, ecs) = (&site.place, site.place.ecs);
    for (colour, group) in ["blue", "green"].iter().zip(&site.groups) {
        let definition = place.register(colour, &ecs.image("weighs", colour, "web").0);
        place.run(colour, &definition, 1, Some(group));
    }
    let [blue, green] = &site.groups;
    for (weight, share) in [(0, 0.0), (10, 0.1), (50, 0.5), (100, 1.0)] {
        let actions = forward(&[(blue, 100 - weight), (green, weight)]);
        let listener = json!({"ListenerArn": site.listener, "DefaultActions": actions});
        ecs.aws("elbv2", "ModifyListener", listener);
        has_share(site.door, "green", share, 500).unwrap();
    }
    let rules = ecs.aws("elbv2", "DescribeRules", json!({"ListenerArn": site.listener}));
    assert_eq!(rules["Rules"][0]["IsDefault"], true, "{rules}");
    assert_eq!(rules["Rules"][0]["Actions"][0]["ForwardConfig"]["TargetGroups"][1]["Weight"], 100);
    let rule = rules["Rules"][0]["RuleArn"].clone();
    let refused = ecs.ask("elbv2", "ModifyRule", json!({"RuleArn": rule, "Actions": forward(&[(blue, 1)])}));
    assert_eq!(refused.unwrap_err().code, "OperationNotPermitted");
    site.balancer.rule(&site.listener, 10, "/health", &[(blue, 1)]);
    let other = site.balancer.listener(8443, &[(blue, 1)]);
    assert!(only("blue", &aws::traffic(ecs.door(&other), "/", 20)));
    assert!(only("green", &aws::traffic(site.door, "/", 20)));
    let name = format!("{}:8443", site.balancer.dns);
    assert!(ecs.aliases().contains(&(name, ecs.door(&other))));
    // What the load balancer saw is what CloudWatch knows.
    let metric = json!({"Namespace": "AWS/ApplicationELB", "MetricName": "RequestCount", "Period": 60, "Statistics": ["Sum"],
        "StartTime": "2020-01-01T00:00:00Z", "EndTime": "2100-01-01T00:00:00Z",
        "Dimensions": [{"Name": "LoadBalancer", "Value": site.balancer.arn.split("loadbalancer/").nth(1)}]});
    aws::until("RequestCount", || {
        let said = ecs.aws("cloudwatch", "GetMetricStatistics", metric.clone());
        let sums = said["Datapoints"].as_array().map_or(&[][..], Vec::as_slice);
        let sum: f64 = sums.iter().filter_map(|point| point["Sum"].as_f64()).sum();
        if sum >= 2000.0 { Ok(()) } else { Err(said.to_string()) }
    });
    assert_eq!(
        ecs.ask("ecs", "CreateService", place.service("x", "green", 1, Some("arn:x"))).unwrap_err().code,
        "InvalidParameterException"
    );
}

#[test]
fn a_task_ends_with_its_exit_code_and_its_words_and_without_its_image_not_at_all() {
    let ecs = Ecs::shared();
    let place = Place::new(ecs, "jobs");
    let definition = place.register("jobs", &ecs.image("jobs", "3", "job 3 migrated 7 tables").0);
    let ended = |definition: &str| {
        let task = json!({"cluster": place.name, "taskDefinition": definition, "launchType": "FARGATE", "networkConfiguration": place.network()});
        let arn = ecs.aws("ecs", "RunTask", task)["tasks"][0]["taskArn"].take();
        aws::until("the task ends", || {
            let said = ecs.aws("ecs", "DescribeTasks", json!({"cluster": place.name, "tasks": [arn]}));
            let task = &said["tasks"][0];
            if task["lastStatus"] == "STOPPED" { Ok(task.clone()) } else { Err(task.to_string()) }
        })
    };
    let task = ended(&definition);
    assert_eq!(task["stopCode"], "EssentialContainerExited");
    assert_eq!(task["containers"][0]["exitCode"], 3);
    let id = task["taskArn"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let stream =
        json!({"logGroupName": "/ecs/jobs", "logStreamName": format!("ecs/app/{id}"), "startFromHead": true});
    aws::until("its log", || {
        let said =
            ecs.ask("logs", "GetLogEvents", stream.clone()).map_err(|refusal| format!("{refusal:?}"))?;
        let words: Vec<_> =
            said["events"].as_array().into_iter().flatten().filter_map(|e| e["message"].as_str()).collect();
        if words.ends_with(&["migrated", "7", "tables"]) { Ok(()) } else { Err(said.to_string()) }
    });
    let task = ended(&place.register("jobs", &format!("{}/jobs:none", aws::ECR)));
    assert_eq!(task["stopCode"], "TaskFailedToStart");
    assert!(task["stoppedReason"].as_str().unwrap().starts_with("CannotPullContainerError"), "{task}");
}

/// A signed call as a program makes it.
async fn call(
    ecs: &Ecs,
    key: &str,
    operation: &str,
    parameters: Value,
) -> Result<(u16, Value), reqwest::Error> {
    let signed = format!(
        "AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/ecs/aws4_request, SignedHeaders=host, Signature=0"
    );
    let request = reqwest::Client::new().post(ecs.endpoint()).header("authorization", signed);
    let request = request.header("x-amz-target", format!("AmazonEC2ContainerServiceV20141113.{operation}"));
    let request = request.header("content-type", "application/x-amz-json-1.1").body(parameters.to_string());
    let reply = request.timeout(std::time::Duration::from_secs(2)).send().await?;
    Ok((reply.status().as_u16(), serde_json::from_slice(&reply.bytes().await?).unwrap()))
}

#[tokio::test]
async fn calls_are_listed_and_go_wrong_on_request() {
    let ecs = Ecs::shared();
    let place = Place::new(ecs, "faults");
    let key = place.key.clone();
    let name = json!({"clusters": [place.name]});
    let ask =
        async |operation: &str, parameters: &Value| call(ecs, &key, operation, parameters.clone()).await;
    assert_eq!(ask("DescribeClusters", &name).await.unwrap().0, 200);
    {
        let _throttled =
            ecs.fault(Fault::throttled().on("ecs", "DescribeClusters").by(&key).after(1).times(1));
        assert_eq!(ask("ListClusters", &json!({})).await.unwrap().0, 200);
        assert_eq!(ask("DescribeClusters", &name).await.unwrap().0, 200);
        let (status, said) = ask("DescribeClusters", &name).await.unwrap();
        assert_eq!((status, said["__type"].as_str()), (400, Some("ThrottlingException")));
        assert_eq!(ask("DescribeClusters", &name).await.unwrap().0, 200);
    }
    let before = ecs.calls(0).last().unwrap().number;
    {
        let _lost = ecs.fault(Fault::lost().on("ecs", "CreateCluster").by(&key));
        assert!(ask("CreateCluster", &json!({"clusterName": "faultslost"})).await.is_err());
        let there = ecs.aws("ecs", "DescribeClusters", json!({"clusters": ["faultslost"]}));
        assert_eq!(there["clusters"][0]["status"], "ACTIVE", "it was done");
    }
    {
        let _cut = ecs.fault(Fault::cut().containing("faultscut").by(&key));
        assert!(ask("CreateCluster", &json!({"clusterName": "faultscut"})).await.is_err());
        let there = ecs.aws("ecs", "DescribeClusters", json!({"clusters": ["faultscut"]}));
        assert_eq!(there["failures"][0]["reason"], "MISSING", "it was not done");
        let _silent = ecs.fault(Fault::silence().by(&key).times(1));
        assert!(ask("ListClusters", &json!({})).await.unwrap_err().is_timeout());
    }
    {
        let missing = json!({"clusters": ["faultslate"]});
        assert_eq!(ask("DescribeClusters", &missing).await.unwrap().1["failures"][0]["reason"], "MISSING");
        let _stale = ecs.fault(Fault::stale().on("ecs", "DescribeClusters").by(&key).times(1));
        ask("CreateCluster", &json!({"clusterName": "faultslate"})).await.unwrap();
        assert_eq!(ask("DescribeClusters", &missing).await.unwrap().1["failures"][0]["reason"], "MISSING");
        assert_eq!(ask("DescribeClusters", &missing).await.unwrap().1["clusters"][0]["status"], "ACTIVE");
    }
    {
        let _denied = ecs.fault(Fault::denied("ecs:ListClusters").on("ecs", "ListClusters").by(&key));
        assert_eq!(ask("ListClusters", &json!({})).await.unwrap().1["__type"], "AccessDeniedException");
        let _patched = ecs.fault(
            Fault::patched(json!({"clusters": {"status": "FAILED"}})).on("ecs", "DescribeClusters").by(&key),
        );
        assert_eq!(ask("DescribeClusters", &name).await.unwrap().1["clusters"][0]["status"], "FAILED");
    }
    let expected = [
        "CreateCluster",
        "CreateCluster",
        "ListClusters",
        "DescribeClusters",
        "CreateCluster",
        "DescribeClusters",
        "DescribeClusters",
        "ListClusters",
        "DescribeClusters",
    ];
    let expected: Vec<_> = expected.iter().map(|operation| format!("ecs:{operation}")).collect();
    assert_eq!(place.calls(before), expected);
    assert_eq!(ecs.calls(before)[0].parameters["clusterName"], "faultslost");
}

#[test]
fn what_the_cloud_refuses_is_refused_and_a_token_is_good_once() {
    let ecs = Ecs::shared();
    let place = Place::new(ecs, "strict");
    let (image, _) = ecs.image("strict", "1", "job 0");
    let refused = |change: Value| {
        let mut definition = place.definition("strict", &image);
        for (name, value) in change.as_object().unwrap() {
            definition[name] = value.clone();
        }
        let refusal = ecs.ask("ecs", "RegisterTaskDefinition", definition).unwrap_err();
        format!("{}: {}", refusal.code, refusal.message)
    };
    assert!(refused(json!({"cpu": 256})).starts_with("SerializationException"));
    assert!(refused(json!({"family": null})).starts_with("InvalidParameterException"));
    assert!(refused(json!({"tags": []})).contains("Tags can not be empty"));
    assert!(refused(json!({"memory": "300"})).contains("No Fargate configuration exists"));
    assert!(refused(json!({"executionRoleArn": ""})).contains("execution role ARN to support ECR images"));
    let names: Vec<_> = (0..11).map(|n| n.to_string()).collect();
    let many = ecs.ask("ecs", "DescribeServices", json!({"cluster": place.name, "services": names}));
    assert_eq!(many.unwrap_err().code, "InvalidParameterException");
    let unknown = ecs.ask("ecs", "RunTask", json!({"cluster": "none", "taskDefinition": "strict"}));
    assert_eq!(unknown.unwrap_err().code, "ClusterNotFoundException");

    let definition = place.register("strict", &image);
    let mut task = json!({"cluster": place.name, "taskDefinition": definition, "launchType": "FARGATE",
        "networkConfiguration": place.network(), "clientToken": "once"});
    let first = ecs.aws("ecs", "RunTask", task.clone());
    let second = ecs.aws("ecs", "RunTask", task.clone());
    assert_eq!(first["tasks"][0]["taskArn"], second["tasks"][0]["taskArn"]);
    task["count"] = 2.into();
    assert_eq!(ecs.ask("ecs", "RunTask", task).unwrap_err().code, "ConflictException");
    let mut service = place.service("web", &definition, 0, None);
    service["clientToken"] = "once".into();
    let first = ecs.aws("ecs", "CreateService", service.clone());
    let second = ecs.aws("ecs", "CreateService", service.clone());
    assert_eq!(first["service"]["deployments"][0]["id"], second["service"]["deployments"][0]["id"]);
    service["clientToken"] = "twice".into();
    assert!(ecs.ask("ecs", "CreateService", service).is_err());
}

#[test]
fn two_regions_do_not_meet_and_one_that_ends_leaves_nothing() {
    let shared = Place::new(Ecs::shared(), "alone");
    let definition = shared.register("alone", &shared.ecs.image("alone", "1", "web").0);
    shared.run("web", &definition, 1, None);
    let (dir, namespace) = {
        let other = Ecs::start();
        let place = Place::new(&other, "alone");
        let balancer = place.balancer("lb");
        let group = balancer.group("all");
        let listener = balancer.listener(80, &[(&group, 1)]);
        place.run("web", &place.register("alone", &other.image("alone", "other", "web").0), 1, Some(&group));
        assert!(only("other", &aws::traffic(other.door(&listener), "/", 5)));
        let namespaces =
            std::fs::read_dir("/run/netns").unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let prefix = format!("delegate-aws-{}-", other.keeper_id());
        let mine: Vec<_> = namespaces.filter(|name| name.starts_with(&prefix)).collect();
        assert_eq!(mine.len(), 2, "{mine:?}");
        (other.dir().to_owned(), mine[0].clone())
    };
    assert!(!dir.exists(), "its directory is still there");
    assert!(!std::path::Path::new("/run/netns").join(&namespace).exists(), "its network is still there");
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "something is still mounted");
    let dir = dir.to_str().unwrap().as_bytes();
    for process in std::fs::read_dir("/proc").unwrap() {
        let line = std::fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        assert!(
            !line.windows(dir.len()).any(|part| part == dir),
            "still runs: {}",
            String::from_utf8_lossy(&line)
        );
    }
    assert_eq!(shared.until_steady("web")["runningCount"], 1);
}

#[tokio::test]
async fn moto_answers_in_pages() {
    let moto = tokio::task::spawn_blocking(Moto::start).await.unwrap();
    let client = reqwest::Client::new();
    let ask = async |operation: &str, parameters: Value| -> Value {
        let request = client
            .post(moto.endpoint())
            .header("x-amz-target", format!("AmazonEC2ContainerServiceV20141113.{operation}"));
        let request = request.header("authorization", "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/ecs/aws4_request, SignedHeaders=host, Signature=0");
        let reply = request
            .header("content-type", "application/x-amz-json-1.1")
            .body(parameters.to_string())
            .send()
            .await
            .unwrap();
        serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap()
    };
    assert_eq!(ask("CreateCluster", json!({"clusterName": "c"})).await["cluster"]["status"], "ACTIVE");
    assert_eq!(ask("ListClusters", json!({})).await["clusterArns"].as_array().unwrap().len(), 1);
}

#[test]
fn chance_is_what_it_is() {
    assert!(within_chance(100, 1000, 0.1));
    assert!(within_chance(130, 1000, 0.1));
    assert!(!within_chance(140, 1000, 0.1));
    assert!(!within_chance(66, 1000, 0.1));
    assert!(within_chance(0, 1000, 0.0) && !within_chance(1, 1000, 0.0));
    assert!(within_chance(1000, 1000, 1.0) && !within_chance(999, 1000, 1.0));
}
