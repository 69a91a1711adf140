//! EcsPrepareRollback, and rollbacks that know nothing but its record: what deployments and upgrades did after it is told to
//! nobody, as with a manager of Harness.

use crate::peer::aws::Place;
use crate::peer::{definitions, document, image, place, rolling, spec, succeed};
use executor_api::Checkpoints as _;
use proto::task::{
    EcsAction, EcsDefinitions, EcsEarlier, EcsSpec, EcsStrategy, EcsUndo, ResizeStrategy, TaskCount,
};
use serde_json::{Value, json};

fn defined(at: &Place<'_>, tag: &str) -> EcsDefinitions {
    definitions(at, "web", &image(at, tag, "web"), 2, None)
}

/// A step that knows this and nothing else.
fn knowing(step: EcsSpec, kind: &str, data: Value) -> EcsSpec {
    let undo = EcsUndo { step: "earlier".into(), kind: kind.into(), succeeded: true, data };
    EcsSpec { earlier: EcsEarlier { undo: vec![undo] }, ..step }
}

/// What is recorded, and the outputs.
async fn prepared(at: &Place<'_>, strategy: EcsStrategy, execution: &str) -> (Value, Value) {
    let step = spec(at, defined(at, "1"), EcsAction::EcsPrepareRollback { strategy });
    let (output, world) = succeed(&step, execution, "deploy").await;
    assert!(world.marks.history().is_empty(), "nothing is changed, so nothing is announced");
    let outputs = output.outputs.iter().map(|(name, output)| (name.clone(), output.value.clone()));
    (output.undo.clone().unwrap(), outputs.collect())
}

fn targets(at: &Place<'_>, service: &str) -> usize {
    let which = json!({"ServiceNamespace": "ecs", "ResourceIds": [format!("service/{}/{service}", at.name)]});
    let said = at.ecs.aws("application-autoscaling", "DescribeScalableTargets", which);
    said["ScalableTargets"].as_array().map_or(0, Vec::len)
}

fn scaled(at: &Place<'_>, tag: &str) -> EcsDefinitions {
    let target = document("target", json!({"minCapacity": 1, "maxCapacity": 4}));
    let policy = json!({"policyName": "cpu", "policyType": "TargetTrackingScaling",
        "targetTrackingScalingPolicyConfiguration": {"targetValue": 60.0,
            "predefinedMetricSpecification": {"predefinedMetricType": "ECSServiceAverageCPUUtilization"}}});
    let scaling_policies = vec![document("policy", policy)];
    EcsDefinitions { scalable_targets: vec![target], scaling_policies, ..defined(at, tag) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deployment_is_undone_by_what_was_recorded_before_it() {
    let at = place("prepa").await;
    let back = |undo| {
        let action = EcsAction::EcsRollingRollback { skip_steady_state_check: false };
        knowing(spec(&at, EcsDefinitions::default(), action), "EcsRollingDeploy", undo)
    };
    // The first deployment: its rollback deletes the service, and does nothing when there is none.
    let (undo, outputs) = prepared(&at, EcsStrategy::Rolling, "e1").await;
    assert_eq!(outputs, json!({"serviceName": "web", "isFirstDeployment": true}));
    let (output, _) = succeed(&back(undo.clone()), "e1", "early").await;
    assert_eq!(output.outputs["firstDeployment"].value, true);
    succeed(&spec(&at, defined(&at, "1"), rolling()), "e1", "deploy").await;
    succeed(&back(undo), "e1", "rollback").await;
    assert_eq!(at.describe("web")["status"], "INACTIVE");

    succeed(&spec(&at, defined(&at, "1"), rolling()), "e2", "deploy").await;
    let revision = at.describe("web")["taskDefinition"].clone();
    let (undo, outputs) = prepared(&at, EcsStrategy::Rolling, "e3").await;
    assert_eq!(outputs["isFirstDeployment"], false);
    succeed(&spec(&at, scaled(&at, "2"), rolling()), "e3", "deploy").await;
    assert_ne!(at.describe("web")["taskDefinition"], revision);
    assert_eq!(targets(&at, "web"), 1);
    let (output, _) = succeed(&back(undo.clone()), "e3", "rollback").await;
    assert_eq!(output.outputs["firstDeployment"].value, false);
    assert_eq!(output.outputs["instances"].value.as_array().unwrap().len(), 2);
    assert_eq!((at.describe("web")["taskDefinition"].clone(), targets(&at, "web")), (revision.clone(), 0));
    // Again, and when nothing was deployed at all.
    let before = at.ecs.calls(0).last().map_or(0, |call| call.number);
    succeed(&back(undo), "e3", "again").await;
    let changed: Vec<String> = at
        .calls(before)
        .into_iter()
        .filter(|call| call.contains("Update") || call.contains("Create"))
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    assert_eq!(at.describe("web")["taskDefinition"], revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_deployment_by_somebody_else_is_not_deleted() {
    let at = place("prepb").await;
    let (undo, _) = prepared(&at, EcsStrategy::Rolling, "e1").await;
    succeed(&spec(&at, defined(&at, "1"), rolling()), "other", "deploy").await;
    let action = EcsAction::EcsRollingRollback { skip_steady_state_check: false };
    let back = knowing(spec(&at, EcsDefinitions::default(), action), "EcsRollingDeploy", undo);
    let (error, _) = crate::peer::fail(&back, "e1", "rollback").await;
    assert_eq!(error.code, "ECS-024", "{error}");
    assert_eq!(at.describe("web")["status"], "ACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn phases_are_undone_by_what_was_recorded_before_them() {
    let at = place("prepc").await;
    let setup = EcsAction::EcsServiceSetup {
        resize_strategy: ResizeStrategy::ResizeNewFirst,
        same_as_already_running_instances: false,
    };
    let upgrade = |definitions, old: Value, new: &str| {
        let action =
            EcsAction::EcsUpgradeContainer { new_instances: TaskCount::Percentage(100), downsize_old: None };
        // What the request of a manager says of the two services.
        let phased = json!({"v": 1, "undo": {"kind": "phased",
            "phased": {"new": new, "newCount": 2, "old": old, "resize": "ResizeNewFirst"}}});
        knowing(spec(&at, definitions, action), "EcsServiceSetup", phased)
    };
    let (first, outputs) = prepared(&at, EcsStrategy::Phased, "e1").await;
    let told = |name: &str| outputs[name].clone();
    assert_eq!((told("servicePrefix"), told("nextRevision")), (json!("web__"), json!(1)));
    assert_eq!((told("isFirstDeployment"), told("currentServiceName")), (json!(true), Value::Null));
    succeed(&spec(&at, defined(&at, "1"), setup.clone()), "e1", "setup").await;
    succeed(&upgrade(EcsDefinitions::default(), Value::Null, "web__1"), "e1", "upgrade").await;

    let (second, outputs) = prepared(&at, EcsStrategy::Phased, "e2").await;
    assert_eq!(
        (&outputs["currentServiceName"], &outputs["currentServiceInstanceCount"], &outputs["nextRevision"]),
        (&json!("web__1"), &json!(2), &json!(2))
    );
    let (output, _) = succeed(&spec(&at, defined(&at, "2"), setup), "e2", "setup").await;
    assert_eq!(output.outputs["oldService"].value["instances"].as_array().unwrap().len(), 2);
    let only = EcsDefinitions { task: None, service: None, ..scaled(&at, "2") };
    let old = json!({"name": "web__1", "count": 2});
    let (output, _) = succeed(&upgrade(only, old, "web__2"), "e2", "upgrade").await;
    assert_eq!(output.outputs["instances"].value.as_array().unwrap().len(), 2);
    let counts = || ["web__1", "web__2"].map(|name| at.describe(name)["desiredCount"].clone());
    assert_eq!((counts(), targets(&at, "web__2")), ([json!(0), json!(2)], 1));
    let back = |undo| {
        let step = spec(&at, EcsDefinitions::default(), EcsAction::EcsBasicRollback {});
        knowing(step, "EcsServiceSetup", undo)
    };
    let (output, _) = succeed(&back(second), "e2", "rollback").await;
    assert_eq!(output.outputs["isFirstTimeDeployment"].value, false);
    assert_eq!((counts(), targets(&at, "web__2")), ([json!(2), json!(0)], 0));
    succeed(&back(first), "e1", "rollback").await;
    assert_eq!(at.describe("web__1")["status"], "INACTIVE");
}
