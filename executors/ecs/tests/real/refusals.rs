//! What AWS refuses: every call of a step in turn, texts that quote secrets, roles that may not be passed, limits of rates.

use crate::peer::aws::{Fault, Place};
use crate::peer::{
    create, definitions, document, fail, image, listeners, place, rolling, run, secrets, spec, succeed, task,
};
use executor_api::testing::World;
use executor_api::{Class, StepError};
use executor_ecs::rights;
use proto::task::{EcsAction, EcsDefinitions, EcsDocument, EcsSpec, TaskCount, TrafficShift};
use proto::text::{SecretRef, placeholder};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What the peer calls a service, and what IAM does.
const PREFIXES: [(&str, &str); 2] =
    [("elbv2", "elasticloadbalancing"), ("application-autoscaling", "application-autoscaling")];

fn iam(service: &str) -> &str {
    PREFIXES.iter().find(|(name, _)| *name == service).map_or(service, |(_, prefix)| prefix)
}

/// `service:Operation` of every call since `after`, each once.
fn called(at: &Place<'_>, after: u64) -> BTreeSet<String> {
    at.calls(after).into_iter().collect()
}

fn last(at: &Place<'_>) -> u64 {
    at.ecs.calls(0).last().map_or(0, |call| call.number)
}

/// Runs `step` once undisturbed, and then once for each action that this called, refused. `step` gets the number of the run.
/// A refusal must end the step with the action's name, its least statement and the caller, or be one that the step can do
/// without; `look` sees what is left. Returns the actions without which the step went on.
///
/// `undoes`: each run is one of an execution that undoes this one.
pub(crate) async fn each_denied(
    at: &Place<'_>,
    undoes: Option<&str>,
    step: impl Fn(usize) -> EcsSpec,
    look: impl Fn(&str, Option<&StepError>),
) -> Vec<String> {
    let before = last(at);
    let world = |spec: &EcsSpec, execution: &str| {
        let mut task = task(spec, execution, "step");
        task.execution.rolls_back = undoes.map(str::to_owned);
        World::new(execution, task, secrets())
    };
    let undisturbed = step(0);
    let free = world(&undisturbed, "undisturbed");
    if let Err(error) = run(&free, &undisturbed).await {
        panic!("{}: {error}\n{}", error.code, free.logs.everything());
    }
    let calls = called(at, before);
    look("", None);
    let kind = undisturbed.action.kind();
    let granted = rights::policy(kind).to_string();
    let mut without = Vec::new();
    assert!(calls.len() > 4, "{calls:?}");
    for (number, call) in calls.iter().enumerate() {
        let (service, operation) = call.split_once(':').unwrap();
        let action = format!("{}:{operation}", iam(service));
        assert!(granted.contains(&format!("\"{action}\"")), "{action} is not in the policy of {kind}");
        let spec = step(number + 1);
        let fault = at.ecs.fault(Fault::denied(&action).on(service, operation).by(&at.key));
        let world = world(&spec, &format!("denied{number}"));
        let result = run(&world, &spec).await;
        drop(fault);
        let log = world.logs.everything();
        assert_eq!(world.marks.unannounced(), Vec::<String>::new(), "{action}");
        match &result {
            Ok(_) => without.push(action.clone()),
            Err(error) => {
                assert_eq!(
                    (error.code, error.class),
                    ("AWS-006", Class::Authorization),
                    "{action}: {error}\n{log}"
                );
                assert!(error.what.contains(&action), "{action}: {error}");
                let hint = error.hint.as_deref().unwrap_or_default();
                assert!(hint.contains("\"Effect\":\"Allow\"") && hint.contains(&action), "{action}: {hint}");
                let caller = if operation == "GetCallerIdentity" { "the caller" } else { "arn:aws:" };
                assert!(error.what.contains(caller), "{action}: {error}");
            }
        }
        look(&action, result.as_ref().err());
    }
    without
}

/// What a step can do without is what it would like to know beforehand.
pub(crate) fn only_looks(without: &[String]) {
    let may = ["sts:GetCallerIdentity", "application-autoscaling:ListTagsForResource"];
    let others =
        without.iter().filter(|action| !action.starts_with("ecr:") && !may.contains(&action.as_str()));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
}

fn number(service: &Value) -> u64 {
    service["taskDefinition"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

pub(crate) fn suspended(at: &Place<'_>) -> bool {
    let which = json!({"ServiceNamespace": "ecs", "ResourceIds": [format!("service/{}/web", at.name)]});
    let said = at.ecs.aws("application-autoscaling", "DescribeScalableTargets", which);
    said["ScalableTargets"][0]["SuspendedState"]["DynamicScalingInSuspended"] == true
}

/// A task definition that differs for each number.
pub(crate) fn numbered(at: &Place<'_>, image: &str, number: usize) -> EcsDefinitions {
    let mut all = definitions(at, "web", image, 1, None);
    let mut value = at.definition(&format!("{}-web", at.name), image);
    value["containerDefinitions"][0]["environment"] = json!([{"name": "N", "value": number.to_string()}]);
    all.task.as_mut().unwrap().document = Some(document("taskDefinition", value));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deployment_that_may_not_do_one_thing_changes_nothing_before_it_or_says_so() {
    let at = place("denieda").await;
    let image = image(&at, "1", "web");
    succeed(&spec(&at, numbered(&at, &image, 1000), rolling()), "first", "step").await;
    let target = json!({"ServiceNamespace": "ecs", "ResourceId": format!("service/{}/web", at.name),
        "ScalableDimension": "ecs:service:DesiredCount", "MinCapacity": 1, "MaxCapacity": 4});
    at.ecs.aws("application-autoscaling", "RegisterScalableTarget", target);
    let runs = std::cell::Cell::new(number(&at.describe("web")));
    let step = |number: usize| spec(&at, numbered(&at, &image, number), rolling());
    let without = each_denied(&at, None, step, |action, error| {
        let now = at.describe("web");
        assert!(!suspended(&at), "{action} leaves autoscaling suspended");
        // Nothing that only looks beforehand may have let a change through.
        let late = ["ecs:ListTasks", "ecs:DescribeTasks", "application-autoscaling:RegisterScalableTarget"];
        if error.is_some() && !late.contains(&action) && !action.ends_with("TagResource") {
            assert_eq!(number(&now), runs.get(), "{action} was refused after the update: {error:?}");
        }
        runs.set(number(&now));
    })
    .await;
    only_looks(&without);
    for needed in
        ["ecs:RegisterTaskDefinition", "ecs:UpdateService", "ecs:DescribeServices", "ecs:DescribeClusters"]
    {
        assert!(!without.contains(&needed.to_owned()), "{needed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_may_not_do_one_thing_leaves_at_most_itself() {
    let at = place("deniedb").await;
    let image = image(&at, "1", "web");
    let step = |number: usize| {
        // Each run has a service of its own; what fails early has made none.
        let mut all = definitions(&at, &format!("web{number}"), &image, 1, None);
        all.scalable_targets = Vec::new();
        let action =
            EcsAction::EcsCanaryDeploy { instances: Some(TaskCount::Count(1)), replace_existing: false };
        spec(&at, all, action)
    };
    let without = each_denied(&at, None, step, |action, error| {
        if action == "ecs:CreateService" || action == "ecs:RegisterTaskDefinition" {
            assert!(error.is_some(), "{action}");
        }
    })
    .await;
    only_looks(&without);
    let all = at.ecs.aws("ecs", "ListServices", json!({"cluster": at.name, "maxResults": 100}));
    let made = all["serviceArns"].as_array().unwrap().len();
    let sent = at.calls(0).iter().filter(|call| *call == "ecs:CreateService").count();
    assert!(made < sent, "{made} services of {sent} calls, of which one was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shift_that_may_not_do_one_thing_leaves_the_rule() {
    let at = place("deniedc").await;
    let balancer = at.balancer("lb");
    let (one, two) = (balancer.group("one"), balancer.group("two"));
    let listener = balancer.listener(80, &[(&one, 1), (&two, 0)]);
    let definition = at.register("deniedc-web", &image(&at, "1", "web"));
    at.run("one", &definition, 1, Some(&one));
    at.run("two", &definition, 1, Some(&two));
    let weight = || {
        let said = at.ecs.aws("elbv2", "DescribeListeners", json!({"ListenerArns": [listener]}));
        said["Listeners"][0]["DefaultActions"][0]["ForwardConfig"]["TargetGroups"][1]["Weight"].clone()
    };
    let step = |number: usize| {
        let forward = vec![(one.clone(), 100), (two.clone(), u32::try_from(number).unwrap() + 1)];
        let shift = TrafficShift::Standalone {
            load_balancer: balancer.name.clone(),
            listener: listener.clone(),
            listener_rule_arn: None,
            forward,
        };
        spec(&at, EcsDefinitions::default(), EcsAction::EcsBlueGreenTrafficShift { shift })
    };
    let before = std::cell::RefCell::new(json!(1));
    let without = each_denied(&at, None, step, |action, error| {
        if error.is_some() {
            assert_eq!(weight(), *before.borrow(), "{action}");
        }
        *before.borrow_mut() = weight();
    })
    .await;
    only_looks(&without);
    assert!(!without.contains(&"elasticloadbalancing:ModifyListener".to_owned()));
    assert!(!without.contains(&"elasticloadbalancing:DescribeTargetHealth".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_of_the_stage_that_may_not_do_one_thing_leaves_production_alone() {
    let at = place("deniedf").await;
    let balancer = at.balancer("lb");
    let (one, two) = (balancer.group("one"), balancer.group("two"));
    let production = balancer.listener(80, &[(&one, 1)]);
    let stage = balancer.listener(9001, &[(&two, 1)]);
    let definition = at.register("deniedf-live", &image(&at, "0", "web"));
    at.run("web__1", &definition, 1, Some(&one));
    let tag = image(&at, "1", "web");
    let step = |number: usize| {
        let mut all = definitions(&at, "web", &tag, 1, Some("<+targetGroupArn>"));
        all.task = numbered(&at, &tag, number).task;
        let action = create(listeners(&balancer.name, &production, &stage));
        spec(&at, all, action)
    };
    let without = each_denied(&at, None, step, |action, error| {
        let made = at.describe("web__2");
        // What fails before the service is made has made none.
        let late = ["ecs:ListTasks", "ecs:DescribeTasks", "elasticloadbalancing:DescribeTargetHealth"];
        if error.is_some() && !late.contains(&action) && !action.ends_with("TagResource") {
            assert_ne!(made["status"], "ACTIVE", "{action}: {error:?}");
        }
        if made["status"] == "ACTIVE" {
            at.ecs.aws(
                "ecs",
                "DeleteService",
                json!({"cluster": at.name, "service": "web__2", "force": true}),
            );
            at.until("web__2", "gone", |now| now["status"] == "INACTIVE");
        }
        let live = at.describe("web__1");
        assert_eq!((&live["desiredCount"], &live["status"]), (&json!(1), &json!("ACTIVE")), "{action}");
        // Each run finds a blue that does not know its colour.
        let untag = json!({"resourceArn": live["serviceArn"], "tagKeys": ["BG_VERSION"]});
        at.ecs.aws("ecs", "UntagResource", untag);
    })
    .await;
    only_looks(&without);
    assert!(!at.calls(0).iter().any(|call| call.contains(":Modify")), "no rule was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aws_quotes_of_a_secret_is_not_shown_and_a_role_that_may_not_be_passed_is_named() {
    let at = place("deniedd").await;
    let image = image(&at, "1", "web");
    succeed(&spec(&at, numbered(&at, &image, 0), rolling()), "first", "step").await;
    let mut step = spec(&at, numbered(&at, &image, 1), rolling());
    let document = step.definitions.task.as_mut().and_then(|task| task.document.as_mut());
    let Some(EcsDocument::Value { value, .. }) = document else { panic!() };
    let secret = placeholder(&SecretRef("pw".into()), 77);
    value["containerDefinitions"][0]["environment"] = json!([{"name": "PW", "value": secret}]);
    let refused = async |fault: Fault, execution: &str| {
        let on = fault.on("ecs", "RegisterTaskDefinition").by(&at.key).containing("pl4nted-db-pw");
        let fault = at.ecs.fault(on);
        let mut known = secrets();
        known.push(("pw".into(), "pl4nted-db-pw".into()));
        let world = World::new(execution, task(&step, execution, "step"), known);
        let error = run(&world, &step).await.unwrap_err();
        drop(fault);
        let shown = format!("{error:?}\n{}", world.logs.everything());
        assert!(!shown.contains("pl4nted-db-pw"), "{shown}");
        assert_eq!(number(&at.describe("web")), 1);
        error
    };
    let quoting = Fault::error(400, "InvalidParameterException", "value pl4nted-db-pw of PW is too long");
    let error = refused(quoting, "quoting").await;
    assert!(error.what.contains(&format!("value {} of PW", secrets::MASK)), "{error}");
    let role = "arn:aws:iam::123456789012:role/ecsTaskExecutionRole";
    let passing = format!(
        "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: iam:PassRole on resource: {role} because no \
         identity-based policy allows the iam:PassRole action"
    );
    let error = refused(Fault::error(403, "AccessDeniedException", &passing), "passing").await;
    assert_eq!((error.code, error.class), ("AWS-006", Class::Authorization), "{error}");
    assert!(error.what.contains("may not iam:PassRole on") && error.what.contains(role), "{error}");
    let hint = error.hint.unwrap();
    assert!(hint.contains("\"iam:PassRole\"") && hint.contains(role), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tried_again_stands_in_the_log_of_the_step_also_at_its_end() {
    let at = place("deniede").await;
    let step = spec(&at, numbered(&at, &image(&at, "1", "web"), 0), rolling());
    let throttled = |operation: &str, times: u64| {
        at.ecs.fault(Fault::throttled().on("ecs", operation).by(&at.key).times(times))
    };
    // The last call of the step is the one that lists its tasks: nothing is written after it.
    let faults = (throttled("RegisterTaskDefinition", 2), throttled("DescribeTasks", 2));
    let (_, world) = succeed(&step, "e1", "deploy").await;
    drop(faults);
    let log = world.logs.everything();
    for operation in ["RegisterTaskDefinition", "DescribeTasks"] {
        let told =
            log.lines().any(|line| line.contains(&format!("{operation}: ")) && line.contains("trying again"));
        assert!(told, "{operation} in\n{log}");
    }
    // One that has no end fails as what it is.
    let fault = at.ecs.fault(Fault::throttled().on("ecs", "DescribeClusters").by(&at.key));
    let (error, _) = fail(&step, "e2", "deploy").await;
    drop(fault);
    assert!(matches!(error.class, Class::Throttled { .. }), "{} {error}", error.code);
}
