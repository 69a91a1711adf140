//! What is found out before the first change: permissions, quotas, images, room. And what is wrong with the definitions
//! themselves. Each ends the step with nothing changed.

use crate::peer::aws::{Fault, Place};
use crate::peer::{definitions, document, fail, image, place, rolling, spec, succeed};
use proto::task::{EcsAction, EcsDefinitions, EcsDocument, EcsSpec, TaskCount};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A server that answers some actions of AWS; `None` is `UnknownOperation`. The peer has no identities with policies and no
/// quotas.
struct Answers {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Answers {
    /// `answer` gets the action and the request's body, and gives status, content type and body.
    fn start(answer: impl Fn(&str, &str) -> Option<String> + Send + 'static) -> Answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (action, body) = request(&stream);
                list.lock().unwrap().push(action.clone());
                let (status, body) = match answer(&action, &body) {
                    Some(body) => ("200 OK", body),
                    None => ("400 Bad Request", json!({"__type": "UnknownOperationException"}).to_string()),
                };
                let kind = if body.starts_with('<') { "text/xml" } else { "application/x-amz-json-1.1" };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                (&stream).write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        Answers { port, asked }
    }

    /// The step asks this server about these services.
    fn answers(&self, spec: &mut EcsSpec, services: &[&str]) {
        for service in services {
            let url = format!("http://127.0.0.1:{}", self.port);
            spec.account.endpoints.insert((*service).to_owned(), url);
        }
    }

    fn asked(&self, action: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == action).count()
    }
}

/// Action and body of one request.
fn request(mut stream: &TcpStream) -> (String, String) {
    let mut said = Vec::new();
    let mut part = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&said).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let field = |name: &str| {
                let mut lines = head.lines().filter_map(|line| line.split_once(':'));
                lines
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.trim().to_owned())
            };
            let length = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                let target =
                    field("x-amz-target").and_then(|text| text.rsplit('.').next().map(str::to_owned));
                let form = body.split('&').find_map(|pair| pair.strip_prefix("Action=")).map(str::to_owned);
                return (target.or(form).unwrap_or_default(), body.to_owned());
            }
        }
        match stream.read(&mut part).unwrap() {
            0 => return (String::new(), String::new()),
            read => said.extend_from_slice(&part[..read]),
        }
    }
}

/// Calls that change something.
fn changes(at: &Place<'_>) -> Vec<String> {
    let verbs = [":Create", ":Update", ":Delete", ":Register", ":Put", ":Modify", ":Tag", ":Run"];
    at.calls(0).into_iter().filter(|call| verbs.iter().any(|verb| call.contains(verb))).collect()
}

fn caller() -> String {
    "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:sts::123456789012:assumed-role/deployer/agent</Arn>\
     <UserId>A:agent</UserId><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
        .to_owned()
}

/// What IAM says of each action that was asked about.
fn simulated(body: &str, denied: &[&str]) -> String {
    let asked = body.split('&').filter_map(|pair| pair.split_once('='));
    let actions = asked.filter(|(name, _)| name.starts_with("ActionNames.")).map(|(_, action)| {
        let action = action.replace("%3A", ":");
        let decision = if denied.contains(&action.as_str()) { "implicitDeny" } else { "allowed" };
        format!("<member><EvalActionName>{action}</EvalActionName><EvalDecision>{decision}</EvalDecision></member>")
    });
    let all: String = actions.collect();
    format!(
        "<SimulatePrincipalPolicyResponse><SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated>\
         <EvaluationResults>{all}</EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_missing_permission_and_a_count_over_the_quota_are_told_together_before_anything_is_changed() {
    let at = place("beforea").await;
    let denied = ["ecs:CreateService", "application-autoscaling:PutScalingPolicy"];
    let server = Answers::start(move |action, body| match action {
        "GetCallerIdentity" => Some(caller()),
        "SimulatePrincipalPolicy" => {
            // The role is asked about, not its session.
            assert!(body.contains("arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fdeployer"), "{body}");
            Some(simulated(body, &denied))
        }
        "GetServiceQuota" => Some(json!({"Quota": {"QuotaCode": "L-46458851", "Value": 5000.0}}).to_string()),
        _ => None,
    });
    let mut step = spec(&at, definitions(&at, "web", &image(&at, "1", "web"), 5001, None), rolling());
    server.answers(&mut step, &["sts", "iam", "service_quotas"]);
    let (error, _) = fail(&step, "e1", "deploy").await;
    assert_eq!((error.code, error.class), ("ECS-090", executor_api::Class::Authorization), "{error}");
    for wanted in [
        "assumed-role/deployer/agent may not",
        "ecs:CreateService",
        "application-autoscaling:PutScalingPolicy",
        "ECS-091: service web: 5001 tasks are wanted, and the account's quota is 5000",
    ] {
        assert!(error.what.contains(wanted), "{wanted}: {error}");
    }
    assert!(error.hint.unwrap().contains("deploy/aws/EcsRollingDeploy.json"));
    assert_eq!(changes(&at), Vec::<String>::new());
    assert_eq!(server.asked("GetServiceQuota"), 1);
    // Within the quota and with every permission, it goes on; small counts are not asked about.
    let allowed = Answers::start(|action, body| match action {
        "GetCallerIdentity" => Some(caller()),
        "SimulatePrincipalPolicy" => Some(simulated(body, &[])),
        _ => None,
    });
    let mut step = spec(&at, definitions(&at, "web", &image(&at, "1", "web"), 1, None), rolling());
    allowed.answers(&mut step, &["sts", "iam", "service_quotas"]);
    succeed(&step, "e2", "deploy").await;
    assert_eq!((allowed.asked("SimulatePrincipalPolicy") > 0, allowed.asked("GetServiceQuota")), (true, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_looked_at_beforehand_is_said_and_stops_nothing() {
    let at = place("beforeb").await;
    let server = Answers::start(|action, _| (action == "GetCallerIdentity").then(caller));
    let mut step = spec(&at, definitions(&at, "web", &image(&at, "1", "web"), 1, None), rolling());
    server.answers(&mut step, &["sts", "iam", "service_quotas"]);
    let images = at.ecs.fault(Fault::denied("ecr:DescribeImages").on("ecr", "DescribeImages").by(&at.key));
    let (_, world) = succeed(&step, "e1", "deploy").await;
    drop(images);
    let log = world.logs.everything();
    for wanted in
        ["permissions cannot be looked at beforehand", "cannot be looked at beforehand: AccessDenied"]
    {
        assert!(log.contains(wanted), "{wanted} in\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_has_no_room_on_the_instances_does_not_begin() {
    let at = place("beforec").await;
    let tag = image(&at, "1", "web");
    let instances = |cpu: u64| {
        let list = at.ecs.fault(
            Fault::instead(json!({"containerInstanceArns": ["arn:aws:ecs:us-east-1:123456789012:container-instance/beforec/i"]}))
                .on("ecs", "ListContainerInstances")
                .by(&at.key),
        );
        let resources = json!([{"name": "CPU", "type": "INTEGER", "integerValue": cpu},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": 4096},
            {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22"]}]);
        let described = json!({"containerInstances": [{"ec2InstanceId": "i-0beforec", "agentConnected": true, "status": "ACTIVE",
            "remainingResources": resources}], "failures": []});
        (list, at.ecs.fault(Fault::instead(described).on("ecs", "DescribeContainerInstances").by(&at.key)))
    };
    let mut all = definitions(&at, "web", &tag, 1, None);
    let mut task = at.definition("beforec-web", &tag);
    task["requiresCompatibilities"] = json!(["EC2"]);
    all.task.as_mut().unwrap().document = Some(document("taskDefinition", task));
    if let Some(EcsDocument::Value { value, .. }) = &mut all.service {
        value["launchType"] = json!("EC2");
    }
    let step = spec(&at, all, rolling());
    let small = instances(100);
    let (error, _) = fail(&step, "e1", "deploy").await;
    drop(small);
    assert_eq!(error.code, "ECS-092", "{error}");
    assert!(error.what.contains("i-0beforec has 100 CPU units and 4096 MiB left"), "{error}");
    assert_eq!(changes(&at), Vec::<String>::new());
    let large = instances(1024);
    succeed(&step, "e2", "deploy").await;
    drop(large);
}

/// A rolling deployment of `web` whose definitions were changed so.
fn wrong(at: &Place<'_>, tag: &str, change: impl FnOnce(&mut Value, &mut Value)) -> EcsSpec {
    let mut task = at.definition(&format!("{}-web", at.name), tag);
    let mut all = definitions(at, "web", tag, 1, None);
    let Some(EcsDocument::Value { value: service, .. }) = &mut all.service else { panic!() };
    change(&mut task, service);
    all.task.as_mut().unwrap().document = Some(document("taskDefinition", task));
    spec(at, all, rolling())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_cannot_work_is_told_with_what_was_expected_and_nothing_is_changed() {
    let at = place("befored").await;
    let tag = image(&at, "1", "web");
    let gone = tag.replace(":1", ":none");
    let nowhere = tag.replace("app-befored", "nobody/has");
    let group = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/x/1";
    type Change<'a> = Box<dyn FnOnce(&mut Value, &mut Value) + 'a>;
    let cases: Vec<(&str, &str, Change<'_>, &[&str])> = vec![
        (
            "no container",
            "ECS-015",
            Box::new(|task, _| task["containerDefinitions"] = json!([])),
            &["containerDefinitions is empty"],
        ),
        (
            "a container that the load balancer names is missing",
            "ECS-021",
            Box::new(|_, service| {
                service["loadBalancers"] =
                    json!([{"targetGroupArn": group, "containerName": "front", "containerPort": 8080}]);
            }),
            &["loadBalancers[0] names container `front`; the task definition has app"],
        ),
        (
            "a port that it does not map",
            "ECS-021",
            Box::new(|_, service| {
                service["loadBalancers"] =
                    json!([{"targetGroupArn": group, "containerName": "app", "containerPort": 9}]);
            }),
            &["names port 9 of container app"],
        ),
        (
            "no execution role",
            "ECS-017",
            Box::new(|task, _| task["executionRoleArn"] = Value::Null),
            &["executionRoleArn is not written", "image of app in ECR", "awslogs of app"],
        ),
        (
            "no such tag",
            "ECS-093",
            Box::new(|task, _| task["containerDefinitions"][0]["image"] = gone.as_str().into()),
            &["container app", ":none does not exist"],
        ),
        (
            "no such repository",
            "ECS-093",
            Box::new(|task, _| task["containerDefinitions"][0]["image"] = nowhere.as_str().into()),
            &["nobody/has:1 does not exist (ECR has no such repository)"],
        ),
        (
            "another platform",
            "ECS-093",
            Box::new(|task, _| {
                task["runtimePlatform"] =
                    json!({"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"});
            }),
            &["is not for linux/arm64, on which the tasks run; it is for linux/amd64"],
        ),
        (
            "no subnets",
            "ECS-021",
            Box::new(|_, service| service["networkConfiguration"] = Value::Null),
            &["networkConfiguration is not written"],
        ),
        ("no name", "ECS-015", Box::new(|_, service| service["serviceName"] = json!("we b")), &["`we b`"]),
    ];
    // The peer's registry gives nobody the configuration of an image, so the list of manifests says its platform here.
    let index = json!({"manifests": [{"platform": {"os": "linux", "architecture": "amd64"}}]}).to_string();
    let index = Fault::instead(json!({"images": [{"imageManifest": index}], "failures": []}));
    let _index = at.ecs.fault(index.on("ecr", "BatchGetImage").by(&at.key));
    for (title, code, change, words) in cases {
        println!("{title}");
        let (error, _) = fail(&wrong(&at, &tag, change), title, "deploy").await;
        assert_eq!(error.code, code, "{title}: {error}");
        for word in words {
            assert!(error.what.contains(word), "{title}: {word}: {error}");
        }
        assert_eq!(changes(&at), Vec::<String>::new(), "{title}");
    }
    // A repository that is filled by whoever pulls first is not missing.
    let rules = json!({"pullThroughCacheRules": [{"ecrRepositoryPrefix": "nobody", "upstreamRegistryUrl": "public.ecr.aws"}]});
    let rules = at.ecs.fault(Fault::instead(rules).on("ecr", "DescribePullThroughCacheRules").by(&at.key));
    let cached =
        wrong(&at, &tag, |task, _| task["containerDefinitions"][0]["image"] = nowhere.as_str().into());
    let (error, _) = fail(&cached, "cached", "deploy").await;
    drop(rules);
    assert!(error.code.starts_with("ECS-03"), "it was tried, and the pull failed: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_takes_no_work_is_told_by_every_step() {
    let at = place("beforee").await;
    let inactive = json!({"clusters": {"status": "INACTIVE"}});
    let fault = at.ecs.fault(Fault::patched(inactive).on("ecs", "DescribeClusters").by(&at.key));
    let tag = image(&at, "1", "web");
    let all = || definitions(&at, "web", &tag, 1, None);
    let steps = [
        spec(&at, all(), rolling()),
        spec(&at, all(), EcsAction::EcsCanaryDeploy { instances: None, replace_existing: false }),
        spec(
            &at,
            EcsDefinitions::default(),
            EcsAction::EcsScale {
                service: "web".into(),
                instances: TaskCount::Count(1),
                skip_steady_state_check: false,
            },
        ),
    ];
    for step in &steps {
        let (error, _) = fail(step, "e1", "step").await;
        assert_eq!(error.code, "ECS-006", "{error}");
        assert!(error.what.contains("cluster `beforee` is INACTIVE; expected ACTIVE"), "{error}");
    }
    drop(fault);
    assert_eq!(changes(&at), Vec::<String>::new());
}
