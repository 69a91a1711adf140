//! Calls in both wire formats against moto.

use crate::peers::{Moto, ask, shared_url};
use crate::{KEY, SECRET, account, client, environment, inheriting, world};
use aws::{Fault, Repeat, Service, Session, Settings};
use executor_api::{NoProbe, StepContext};
use serde_json::{Value, json};

const CREATE_CLUSTER: aws::Operation = Service::Ecs.op("CreateCluster");
const LB: Service = Service::LoadBalancing;

async fn change(session: &Session, operation: aws::Operation, input: Value) -> Value {
    session.change(&NoProbe, "call", operation, input, Repeat::Safe).await.unwrap()
}

async fn opened(cx: &StepContext) -> Session {
    client(Settings::default()).session(&account(&shared_url()), cx).await.unwrap()
}

#[tokio::test]
async fn documents_go_to_json_and_to_query_services_and_come_back() {
    let world = world();
    let (_cancel, cx) = world.context();
    let session = opened(&cx).await;
    assert_eq!(session.caller().await.unwrap().account, "123456789012");
    let made = change(&session, CREATE_CLUSTER, json!({"clusterName": "c1"})).await;
    assert_eq!(made["cluster"]["status"], "ACTIVE");
    let alarms = session.read(Service::CloudWatch.op("DescribeAlarms"), json!({})).await.unwrap();
    assert_eq!(alarms["MetricAlarms"], json!([]));
    let input = json!({"ServiceNamespace": "ecs"});
    let targets = session.read(Service::AutoScaling.op("DescribeScalableTargets"), input).await.unwrap();
    assert_eq!(targets["ScalableTargets"], json!([]));
    for (operation, input) in [
        (Service::Logs.op("DescribeLogGroups"), json!({})),
        (Service::Ecr.op("DescribeRepositories"), json!({})),
        (Service::SecretsManager.op("ListSecrets"), json!({})),
        (Service::CloudWatch.op("DescribeAlarms"), json!({"AlarmNames": ["a"]})),
    ] {
        let answer = session.read(operation, input).await;
        assert!(matches!(&answer, Ok(Value::Object(_))), "{operation:?}: {answer:?}");
    }
    let fault =
        session.read(LB.op("DescribeListeners"), json!({"ListenerArns": ["arn:x"]})).await.unwrap_err();
    assert!(fault.is("ListenerNotFound"), "{fault:?}");
    let fault = session.read(Service::Ecs.op("ListTasks"), json!({"cluster": "none"})).await.unwrap_err();
    assert!(fault.is("ClusterNotFound") && fault.is("ClusterNotFoundException"), "{fault:?}");
    let notes = session.notes();
    assert_eq!(notes, [format!("endpoint of every AWS service: {}/", shared_url())]);
    assert_eq!(session.notes(), Vec::<String>::new());
}

#[tokio::test]
async fn pages_are_followed_in_both_ways_of_naming_them() {
    let world = world();
    let (_cancel, cx) = world.context();
    let session = opened(&cx).await;
    for n in 0..5 {
        let input = json!({"family": format!("f{n}"), "containerDefinitions": [{"name": "c", "image": "i", "memory": 64}]});
        change(&session, Service::Ecs.op("RegisterTaskDefinition"), input).await;
        let input = json!({"Name": format!("tg{n}"), "TargetType": "lambda"});
        change(&session, LB.op("CreateTargetGroup"), input).await;
    }
    let input = json!({"maxResults": 2});
    let found =
        session.pages(Service::Ecs.op("ListTaskDefinitions"), input, "taskDefinitionArns").await.unwrap();
    assert!(found.len() >= 5, "{found:?}");
    let found =
        session.pages(LB.op("DescribeTargetGroups"), json!({"PageSize": 2}), "TargetGroups").await.unwrap();
    assert!(found.len() >= 5, "{found:?}");
}

#[tokio::test]
async fn actions_of_a_listener_come_back_as_they_were_written() {
    let world = world();
    let (_cancel, cx) = world.context();
    let session = opened(&cx).await;
    let ec2 = |action| [("Action", action), ("Version", "2016-11-15")];
    let vpc =
        ask(&shared_url(), "ec2", &[&ec2("CreateVpc")[..], &[("CidrBlock", "10.0.0.0/16")]].concat()).await;
    let tag = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    let vpc = tag(&vpc, "vpcId");
    let mut subnets = Vec::new();
    for (zone, block) in [("us-east-1a", "10.0.1.0/24"), ("us-east-1b", "10.0.2.0/24")] {
        let more = [("VpcId", vpc.as_str()), ("CidrBlock", block), ("AvailabilityZone", zone)];
        subnets.push(tag(
            &ask(&shared_url(), "ec2", &[&ec2("CreateSubnet")[..], &more].concat()).await,
            "subnetId",
        ));
    }
    let balancer =
        change(&session, LB.op("CreateLoadBalancer"), json!({"Name": "lb", "Subnets": subnets})).await;
    let balancer = balancer["LoadBalancers"][0]["LoadBalancerArn"].as_str().unwrap().to_owned();
    let mut groups = Vec::new();
    for name in ["blue", "green"] {
        let input = json!({"Name": name, "Protocol": "HTTP", "Port": 80, "VpcId": vpc, "TargetType": "ip"});
        let made = change(&session, LB.op("CreateTargetGroup"), input).await;
        groups.push(made["TargetGroups"][0]["TargetGroupArn"].as_str().unwrap().to_owned());
    }
    let oidc = json!({"Type": "authenticate-oidc", "Order": 1, "AuthenticateOidcConfig": {
        "Issuer": "https://idp.example.com", "AuthorizationEndpoint": "https://idp.example.com/a?b=c&d=e",
        "TokenEndpoint": "https://idp.example.com/t", "UserInfoEndpoint": "https://idp.example.com/u",
        "ClientId": "id", "ClientSecret": "s", "AuthenticationRequestExtraParams": {"prompt": "login", "display": "page"}}});
    let forward = json!({"Type": "forward", "Order": 2, "ForwardConfig": {
        "TargetGroups": [{"TargetGroupArn": groups[0], "Weight": 90}, {"TargetGroupArn": groups[1], "Weight": 10}],
        "TargetGroupStickinessConfig": {"Enabled": true, "DurationSeconds": 900}}});
    let input = json!({"LoadBalancerArn": balancer, "Protocol": "HTTP", "Port": 80, "DefaultActions": [oidc, forward]});
    let made = change(&session, LB.op("CreateListener"), input).await;
    let listener = made["Listeners"][0]["ListenerArn"].clone();
    let read = async || {
        let found =
            session.read(LB.op("DescribeListeners"), json!({"ListenerArns": [listener]})).await.unwrap();
        found["Listeners"][0]["DefaultActions"].clone()
    };
    let actions = read().await;
    assert_eq!(
        actions[0]["AuthenticateOidcConfig"]["AuthenticationRequestExtraParams"],
        json!({"prompt": "login", "display": "page"})
    );
    assert_eq!(
        actions[0]["AuthenticateOidcConfig"]["AuthorizationEndpoint"],
        "https://idp.example.com/a?b=c&d=e"
    );
    assert_eq!(actions[1]["ForwardConfig"]["TargetGroups"][0]["Weight"], "90");
    assert_eq!(actions[1]["ForwardConfig"]["TargetGroupStickinessConfig"]["Enabled"], "true");
    // Read, modify, write: everything but the weights stays.
    let mut wanted = actions.clone();
    wanted[1]["ForwardConfig"]["TargetGroups"][0]["Weight"] = json!(50);
    wanted[1]["ForwardConfig"]["TargetGroups"][1]["Weight"] = json!(50);
    change(&session, LB.op("ModifyListener"), json!({"ListenerArn": listener, "DefaultActions": wanted}))
        .await;
    let mut expected = actions;
    expected[1]["ForwardConfig"]["TargetGroups"][0]["Weight"] = json!("50");
    expected[1]["ForwardConfig"]["TargetGroups"][1]["Weight"] = json!("50");
    assert_eq!(read().await, expected);
}

/// moto computes every signature again with botocore, and evaluates the user's policy.
#[tokio::test]
async fn signatures_are_right_and_a_denial_names_caller_and_statement() {
    let dir = tempfile::tempdir().unwrap();
    let moto = Moto::start(dir.path()).await;
    let denied = ["ecs:CreateCluster", "ecs:DescribeClusters"];
    let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": denied, "Resource": "*"}]});
    let (key, secret) = moto.user(&policy).await;
    moto.guard().await;
    let world = world();
    let (_cancel, cx) = world.context();
    let agent = environment(&[("AWS_ACCESS_KEY_ID", &key), ("AWS_SECRET_ACCESS_KEY", &secret)]);
    let client = client(Settings { environment: agent, ..Settings::default() });
    let session = client.session(&inheriting(&moto.url()), &cx).await.unwrap();
    session.read(Service::Ecs.op("ListClusters"), json!({})).await.unwrap();
    session.read(LB.op("DescribeTargetGroups"), json!({"Names": ["a b", "ü&=+"]})).await.unwrap_err();
    session.read(Service::CloudWatch.op("DescribeAlarms"), json!({})).await.unwrap();
    let fault = session
        .change(&NoProbe, "create", CREATE_CLUSTER, json!({"clusterName": "c"}), Repeat::Safe)
        .await
        .unwrap_err();
    assert!(fault.is_denied() && !fault.may_pass(), "{fault:?}");
    let error = fault.step("create cluster c", &session);
    assert_eq!(error.code, "AWS-006");
    assert!(
        error.what.contains("arn:aws:iam::123456789012:user/deployer may not ecs:CreateCluster"),
        "{}",
        error.what
    );
    assert!(error.hint.unwrap().contains("\"Action\":\"ecs:CreateCluster\""));
    // Everything that the agent's own keys are good for is masked, and nothing of them is shown.
    assert!(world.secrets.masked().contains(&secret));
    let shown = format!("{client:?} {session:?} {:?}", session.notes());
    assert!(!shown.contains(&secret) && !shown.contains(&key), "{shown}");
    let called: Vec<String> = client.called().into_iter().map(aws::Operation::iam_action).collect();
    assert!(called.contains(&"ecs:CreateCluster".to_owned()), "{called:?}");
    let stages = client.test_connection(&inheriting(&moto.url()), &cx).await;
    assert!(stages.iter().all(|stage| stage.ok), "{stages:?}");
    // It says how things are now, whatever sessions remember.
    let sent = client.sent();
    client.test_connection(&inheriting(&moto.url()), &cx).await;
    assert_eq!(client.sent() - sent, 3);
    assert!(stages[2].hint.as_ref().unwrap().contains("ecs:DescribeClusters"), "{stages:?}");
}

#[tokio::test]
async fn keys_that_nobody_knows_are_no_matter_of_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let moto = Moto::start(dir.path()).await;
    moto.guard().await;
    let world = world();
    let (_cancel, cx) = world.context();
    let client = client(Settings::default());
    let session = client.session(&account(&moto.url()), &cx).await.unwrap();
    let fault = session.read(Service::Ecs.op("ListClusters"), json!({})).await.unwrap_err();
    assert!(matches!(&fault, Fault::Refused { code, .. } if code == "InvalidClientTokenId"), "{fault:?}");
    let error = fault.step("list clusters", &session);
    assert_eq!(error.code, "AWS-003");
    assert_eq!(client.sent(), 1);
    let stages = client.test_connection(&account(&moto.url()), &cx).await;
    assert_eq!((stages.len(), stages[1].ok), (2, false), "{stages:?}");
    let all = format!("{error:?} {stages:?}");
    assert!(!all.contains(SECRET) && !all.contains(KEY), "{all}");
}
