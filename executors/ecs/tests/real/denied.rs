//! What AWS refuses of the steps that exchange, take back and move by phases: every call in turn, each time from the same scene.

use crate::peer::aws::Place;
use crate::peer::{create, definitions, image, listeners, place, rolling};
use crate::refusals::{each_denied, numbered, only_looks, suspended};
use crate::stage::Stage;
use proto::task::{EcsAction, ResizeStrategy, TaskCount};
use serde_json::{Map, Value, json};

/// What a service is made of again.
const OF_SERVICE: [&str; 8] = [
    "serviceName",
    "taskDefinition",
    "desiredCount",
    "launchType",
    "networkConfiguration",
    "loadBalancers",
    "deploymentConfiguration",
    "tags",
];

/// Services and listeners as a step finds them, so that each run of it finds the same.
struct Scene<'a> {
    at: &'a Place<'static>,
    services: Vec<Map<String, Value>>,
    listeners: Vec<(String, Value)>,
}

impl<'a> Scene<'a> {
    fn now(at: &'a Place<'static>, listeners: &[&str]) -> Scene<'a> {
        let actions = |listener: &&str| ((*listener).to_owned(), actions(at, listener));
        let services = names(at).into_iter().map(|name| {
            let live = at.describe(&name);
            let kept = OF_SERVICE.iter().map(|key| ((*key).to_owned(), live[*key].clone()));
            kept.filter(|(_, value)| !value.is_null() && *value != json!([])).collect()
        });
        Scene { at, services: services.collect(), listeners: listeners.iter().map(actions).collect() }
    }

    /// Makes it so again.
    fn again(&self) {
        let call = |operation: &str, mut input: Value| {
            input["cluster"] = self.at.name.as_str().into();
            self.at.ecs.aws("ecs", operation, input);
        };
        for name in names(self.at) {
            if !self.services.iter().any(|service| service["serviceName"] == name.as_str()) {
                call("DeleteService", json!({"service": name, "force": true}));
                self.at.until(&name, "gone", |now| now["status"] == "INACTIVE");
            }
        }
        for (listener, wanted) in &self.listeners {
            if actions(self.at, listener) != *wanted {
                let input = json!({"ListenerArn": listener, "DefaultActions": wanted});
                self.at.ecs.aws("elbv2", "ModifyListener", input);
            }
        }
        for service in &self.services {
            let name = service["serviceName"].as_str().unwrap();
            let live = self.at.until(name, "there or gone", |now| now["status"] != "DRAINING");
            if live["status"] != "ACTIVE" {
                call("CreateService", Value::Object(service.clone()));
            } else {
                let is = |key: &str| live[key] == service[key];
                if !is("taskDefinition") || !is("desiredCount") {
                    let (definition, count) = (&service["taskDefinition"], &service["desiredCount"]);
                    call(
                        "UpdateService",
                        json!({"service": name, "taskDefinition": definition, "desiredCount": count}),
                    );
                }
                let tags = service.get("tags").cloned().unwrap_or_else(|| json!([]));
                if live["tags"] != tags {
                    let arn = &live["serviceArn"];
                    let keys: Vec<&Value> =
                        live["tags"].as_array().unwrap().iter().map(|tag| &tag["key"]).collect();
                    self.at.ecs.aws("ecs", "UntagResource", json!({"resourceArn": arn, "tagKeys": keys}));
                    self.at.ecs.aws("ecs", "TagResource", json!({"resourceArn": arn, "tags": tags}));
                }
            }
        }
        for service in &self.services {
            self.at.until_steady(service["serviceName"].as_str().unwrap());
        }
    }

    /// What is as it was: the services' revisions and counts, and the listeners.
    fn stands(&self) -> bool {
        let service = |wanted: &Map<String, Value>| {
            let live = self.at.describe(wanted["serviceName"].as_str().unwrap());
            live["status"] == "ACTIVE"
                && ["taskDefinition", "desiredCount"].iter().all(|key| live[*key] == wanted[*key])
        };
        let listener = |(listener, wanted): &(String, Value)| actions(self.at, listener) == *wanted;
        self.services.iter().all(service) && self.listeners.iter().all(listener)
    }
}

/// Services that are there.
fn names(at: &Place<'_>) -> Vec<String> {
    let all = at.ecs.aws("ecs", "ListServices", json!({"cluster": at.name, "maxResults": 100}));
    let arns = all["serviceArns"].as_array().unwrap().iter();
    let names = arns.map(|arn| arn.as_str().unwrap().rsplit('/').next().unwrap().to_owned());
    names.filter(|name| at.describe(name)["status"] == "ACTIVE").collect()
}

fn actions(at: &Place<'_>, listener: &str) -> Value {
    let said = at.ecs.aws("elbv2", "DescribeListeners", json!({"ListenerArns": [listener]}));
    let mut groups = said["Listeners"][0]["DefaultActions"][0]["ForwardConfig"]["TargetGroups"].clone();
    groups.as_array_mut().unwrap().sort_by_key(|group| group["TargetGroupArn"].to_string());
    json!([{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}])
}

/// The group that gets all requests of a listener.
fn group(at: &Place<'_>, listener: &str) -> String {
    let actions = actions(at, listener);
    let groups = actions[0]["ForwardConfig"]["TargetGroups"].as_array().unwrap().clone();
    let live: Vec<&Value> = groups.iter().filter(|group| group["Weight"] != 0).collect();
    assert_eq!(live.len(), 1, "{actions}");
    live[0]["TargetGroupArn"].as_str().unwrap().to_owned()
}

/// Whether a step asks this only after its first change: who runs now, tags, and the autoscaling of what it then turns to. A
/// way back is not given up for want of those.
fn late(action: &str) -> bool {
    let all = ["ecs:ListTasks", "ecs:DescribeTasks", "ecs:TagResource", "ecs:UntagResource"];
    all.contains(&action) || action.starts_with("application-autoscaling:")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_rollback_that_may_not_do_one_thing_leaves_one_revision_whole() {
    let at = place("deniedg").await;
    let deploy = async |tag: &str| {
        let tag = image(&at, tag, "web");
        let mut stage = Stage::new(&at, definitions(&at, "web", &tag, 1, None), &format!("run{tag}"));
        stage.step("deploy", rolling()).await;
        stage
    };
    deploy("1").await;
    let target = json!({"ServiceNamespace": "ecs", "ResourceId": format!("service/{}/web", at.name),
        "ScalableDimension": "ecs:service:DesiredCount", "MinCapacity": 1, "MaxCapacity": 4});
    at.ecs.aws("application-autoscaling", "RegisterScalableTarget", target);
    let before = at.describe("web")["taskDefinition"].clone();
    let stage = deploy("2").await;
    let scene = Scene::now(&at, &[]);
    let step = |_| {
        scene.again();
        stage.spec(EcsAction::EcsRollingRollback { skip_steady_state_check: false })
    };
    let without = each_denied(&at, Some(&stage.execution), step, |action, error| {
        let now = at.describe("web");
        assert!(!suspended(&at), "{action} leaves autoscaling suspended");
        assert!(now["runningCount"].as_u64().unwrap() >= 1, "{action}: {now:#}");
        match error {
            None => assert_eq!(now["taskDefinition"], before, "{action}"),
            Some(error) if !late(action) => {
                assert!(scene.stands(), "{action} was refused after the update: {error}");
            }
            Some(_) => {}
        }
    })
    .await;
    only_looks(&without);
    for needed in ["ecs:UpdateService", "ecs:DescribeServices"] {
        assert!(!without.contains(&needed.to_owned()), "{needed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_may_not_be_deleted_stays_and_its_service_too() {
    let at = place("deniedh").await;
    let tag = image(&at, "1", "web");
    at.run("web", &at.register("deniedh-web", &tag), 1, None);
    let mut stage = Stage::new(&at, definitions(&at, "web", &tag, 1, None), "canary");
    let canary = EcsAction::EcsCanaryDeploy { instances: Some(TaskCount::Count(1)), replace_existing: false };
    stage.step("canary", canary).await;
    let scene = Scene::now(&at, &[]);
    assert_eq!(scene.services.len(), 2);
    let step = |_| {
        scene.again();
        stage.spec(EcsAction::EcsCanaryDelete {})
    };
    let without = each_denied(&at, Some(&stage.execution), step, |action, error| {
        let (web, canary) = (at.describe("web"), at.describe("webCanary"));
        assert_eq!((&web["status"], &web["runningCount"]), (&json!("ACTIVE"), &json!(1)), "{action}");
        match error {
            None => assert_eq!(canary["status"], "INACTIVE", "{action}"),
            // It is empty by then, and the error says that it is not deleted.
            Some(_) if late(action) || action == "ecs:DeleteService" => {
                assert_eq!(canary["status"], "ACTIVE", "{action}");
            }
            Some(error) => assert!(scene.stands(), "{action}: {error}"),
        }
    })
    .await;
    only_looks(&without);
    assert!(!without.contains(&"ecs:DeleteService".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_and_its_rollback_that_may_not_do_one_thing_leave_production_served() {
    let at = place("deniedi").await;
    let balancer = at.balancer("lb");
    let (one, two) = (balancer.group("one"), balancer.group("two"));
    let production = balancer.listener(80, &[(&one, 1)]);
    let test = balancer.listener(9001, &[(&two, 1)]);
    at.run("web__1", &at.register("deniedi-live", &image(&at, "0", "web")), 1, Some(&one));
    let all = definitions(&at, "web", &image(&at, "1", "web"), 1, Some("<+targetGroupArn>"));
    let mut stage = Stage::new(&at, all, "pair");
    stage.step("create", create(listeners(&balancer.name, &production, &test))).await;
    let swap = || EcsAction::EcsBlueGreenSwapTargetGroups {
        do_not_downsize_old_service: false,
        downsize_old_service_delay_ms: 10,
    };
    // Whatever is refused, all of production's requests go to one group, whose service runs.
    let served = |action: &str, now: &str| {
        let service = if now == one { "web__1" } else { "web__2" };
        let live = at.describe(service);
        assert_eq!((&live["status"], &live["runningCount"]), (&json!("ACTIVE"), &json!(1)), "{action}");
        assert_ne!(now, group(&at, &test), "{action}: both listeners send to one group");
    };
    let scene = Scene::now(&at, &[&production, &test]);
    let late = |action: &str| late(action) || action == "ecs:UpdateService";
    let step = |_| {
        scene.again();
        stage.spec(swap())
    };
    let without = each_denied(&at, Some(&stage.execution), step, |action, error| {
        let now = group(&at, &production);
        served(action, &now);
        match error {
            None => assert_eq!((now, at.describe("web__1")["desiredCount"].clone()), (two.clone(), json!(0))),
            Some(error) if !late(action) => assert!(scene.stands(), "{action}: {error}"),
            Some(error) => {
                let told = error.what.contains("sends deniedi-lb-two already");
                assert_eq!(told, now == two, "{action}: {error}");
            }
        }
    })
    .await;
    only_looks(&without);
    for needed in ["elasticloadbalancing:ModifyListener", "elasticloadbalancing:DescribeTargetHealth"] {
        assert!(!without.contains(&needed.to_owned()), "{needed}");
    }

    scene.again();
    stage.step("swap", swap()).await;
    let scene = Scene::now(&at, &[&production, &test]);
    let step = |_| {
        scene.again();
        stage.spec(EcsAction::EcsBlueGreenRollback {})
    };
    // Capacity comes before requests, and requests before anything is ended.
    let late = |action: &str| {
        late(action) && action != "ecs:UpdateService"
            || ["ecs:DeleteService", "elasticloadbalancing:ModifyListener"].contains(&action)
            || action.starts_with("elasticloadbalancing:")
    };
    let without = each_denied(&at, Some(&stage.execution), step, |action, error| {
        let now = group(&at, &production);
        served(action, &now);
        match error {
            None => {
                assert_eq!((now, at.describe("web__2")["status"].clone()), (one.clone(), json!("INACTIVE")));
            }
            Some(error) if !late(action) => assert!(scene.stands(), "{action}: {error}"),
            Some(_) => assert_eq!(at.describe("web__2")["status"], "ACTIVE", "{action}"),
        }
    })
    .await;
    only_looks(&without);
    for needed in ["elasticloadbalancing:ModifyListener", "ecs:UpdateService", "ecs:DeleteService"] {
        assert!(!without.contains(&needed.to_owned()), "{needed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn phases_that_may_not_do_one_thing_leave_a_service_that_serves() {
    let at = place("deniedj").await;
    let tag = image(&at, "1", "web");
    let setup = || EcsAction::EcsServiceSetup {
        resize_strategy: ResizeStrategy::ResizeNewFirst,
        same_as_already_running_instances: false,
    };
    let upgrade =
        || EcsAction::EcsUpgradeContainer { new_instances: TaskCount::Percentage(100), downsize_old: None };
    let mut first = Stage::new(&at, numbered(&at, &tag, 1000), "first");
    first.step("setup", setup()).await;
    first.step("upgrade", upgrade()).await;
    let running = |action: &str| {
        let all = ["web__1", "web__2"].map(|name| at.describe(name)["runningCount"].as_u64().unwrap_or(0));
        assert!(all.iter().sum::<u64>() >= 1, "{action}: {all:?}");
    };

    let scene = Scene::now(&at, &[]);
    let step = |number| {
        scene.again();
        Stage::new(&at, numbered(&at, &tag, number), &format!("setup{number}")).spec(setup())
    };
    let without = each_denied(&at, None, step, |action, error| {
        assert!(scene.stands(), "{action}: what serves is not touched: {error:?}");
        if ["ecs:CreateService", "ecs:RegisterTaskDefinition"].contains(&action) {
            assert!(error.is_some() && at.describe("web__2")["status"] != "ACTIVE", "{action}");
        }
    })
    .await;
    only_looks(&without);

    scene.again();
    let mut second = Stage::new(&at, numbered(&at, &tag, 2000), "second");
    second.step("setup", setup()).await;
    let scene = Scene::now(&at, &[]);
    let step = |_| {
        scene.again();
        second.spec(upgrade())
    };
    let without = each_denied(&at, Some(&second.execution), step, |action, error| {
        running(action);
        if let Some(error) = error.filter(|_| !late(action)) {
            assert!(scene.stands(), "{action}: {error}");
        }
    })
    .await;
    only_looks(&without);
    assert!(!without.contains(&"ecs:UpdateService".to_owned()));

    scene.again();
    second.step("upgrade", upgrade()).await;
    let scene = Scene::now(&at, &[]);
    let step = |_| {
        scene.again();
        second.spec(EcsAction::EcsBasicRollback {})
    };
    let without = each_denied(&at, Some(&second.execution), step, |action, error| {
        running(action);
        match error {
            None => assert_eq!(at.describe("web__1")["runningCount"], 1, "{action}"),
            Some(error) if !late(action) => assert!(scene.stands(), "{action}: {error}"),
            Some(_) => {}
        }
    })
    .await;
    only_looks(&without);
    assert!(!without.contains(&"ecs:UpdateService".to_owned()));
}
