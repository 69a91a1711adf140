//! What results become, and that nothing a result may hold keeps an answer from being read. `read` is a small reader for
//! messages of this crate alone; that the real Kryo reads them is shown in `kryo::real_kryo_tests`.

use super::*;
use crate::kryo::Class;
use crate::request::{EcsCommand, K8sTask};
use proto::result::{Output, UnitProgress, UnitStatus};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;

fn agent() -> Agent {
    Agent { account_id: "acct1".into(), delegate_id: "d1".into(), host_name: "zone-a".into() }
}

fn of(kind: Kind) -> Request {
    Request { kind, ..Request::of_type("t1", "TASK") }
}

fn kubernetes(task: K8sTask) -> Request {
    let units = task.units().iter().map(|unit| (*unit).to_owned()).collect();
    Request { units, ..of(Kind::Kubernetes { task: Some(task), release: "release-1".into() }) }
}

fn outputs(value: Value) -> BTreeMap<String, Output> {
    value.as_object().unwrap().iter().map(|(key, value)| (key.clone(), value.clone().into())).collect()
}

fn ended(status: StepStatus, value: Value) -> StepResult {
    StepResult { outputs: outputs(value), ..StepResult::bare(status, None) }
}

fn failed(kind: FailureKind, message: &str) -> StepResult {
    StepResult::failed(Failure::new(kind, "KUBE-001", message).hint("look at it"))
}

/// Reads what this crate writes: joins the chunks of each field and goes by the table.
struct Reader<'a> {
    bytes: &'a [u8],
    known: Vec<u32>,
}

impl<'a> Reader<'a> {
    fn byte(bytes: &mut &[u8]) -> u8 {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        *first
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = Self::byte(bytes);
            if shift == 56 {
                return value | u64::from(byte) << 56;
            }
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }

    fn signed(bytes: &mut &[u8]) -> i64 {
        let value = Self::varint(bytes);
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }

    fn text(bytes: &mut &[u8]) -> Value {
        let first = bytes[0];
        if first & 0x80 == 0 {
            let mut text = String::new();
            loop {
                let byte = Self::byte(bytes);
                text.push(char::from(byte & 0x7f));
                if byte & 0x80 != 0 {
                    return text.into();
                }
            }
        }
        Self::byte(bytes);
        let (mut count, mut shift, mut more) = (usize::from(first & 0x3f), 6, first & 0x40 != 0);
        while more {
            let byte = Self::byte(bytes);
            count |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            more = byte & 0x80 != 0;
        }
        if count == 0 {
            return Value::Null;
        }
        let units: Vec<u16> = (1..count)
            .map(|_| {
                let mut next = || u16::from(Self::byte(bytes));
                match next() {
                    one @ 0..0x80 => one,
                    one @ 0x80..0xe0 => (one & 0x1f) << 6 | next() & 0x3f,
                    one => (one & 0xf) << 12 | (next() & 0x3f) << 6 | next() & 0x3f,
                }
            })
            .collect();
        String::from_utf16(&units).unwrap().into()
    }

    fn any(&mut self, bytes: &mut &[u8]) -> Value {
        let id = Self::varint(bytes);
        if id == 0 {
            return Value::Null;
        }
        match id - 2 {
            1 => Self::text(bytes),
            25 => {
                let _enum = Self::varint(bytes);
                (0..Self::varint(bytes)).map(|_| Self::text(bytes)).collect()
            }
            35 | 49 => (0..Self::varint(bytes)).map(|_| self.any(bytes)).collect(),
            36 => {
                let count = Self::varint(bytes);
                let pair = |_| (self.any(bytes).as_str().unwrap().to_owned(), self.any(bytes));
                Value::Object((0..count).map(pair).collect())
            }
            9701 => {
                let count = usize::try_from(Self::varint(bytes)).unwrap() - 1;
                let (message, rest) = bytes.split_at(count);
                *bytes = rest;
                hex::encode(message).into()
            }
            id => {
                let class =
                    classes().find(|class| u64::from(class.id) == id).unwrap_or_else(|| panic!("{id}"));
                self.object(class, bytes)
            }
        }
    }

    fn object(&mut self, class: &Class, bytes: &mut &[u8]) -> Value {
        if !self.known.contains(&class.id) {
            self.known.push(class.id);
            let names: Vec<Value> = (0..Self::varint(bytes)).map(|_| Self::text(bytes)).collect();
            assert_eq!(names, class.fields.iter().map(|field| Value::from(field.name)).collect::<Vec<_>>());
        }
        let mut object = serde_json::Map::from_iter([("@".to_owned(), class.name.into())]);
        for field in class.fields {
            let mut whole = Vec::new();
            loop {
                let size = usize::try_from(Self::varint(bytes)).unwrap();
                let (chunk, rest) = bytes.split_at(size);
                *bytes = rest;
                if size == 0 {
                    break;
                }
                whole.extend_from_slice(chunk);
            }
            let mut inner = whole.as_slice();
            use crate::kryo::Declared::{Enum, Final, Open, Plain};
            let value = match field.declared {
                Plain("String") => Self::text(&mut inner),
                Plain("boolean") => (Self::byte(&mut inner) == 1).into(),
                Plain("int" | "long") => Self::signed(&mut inner).into(),
                Plain("byte[]") => match Self::varint(&mut inner) {
                    0 => Value::Null,
                    _ => {
                        let all = hex::encode(inner);
                        inner = &[];
                        all.into()
                    }
                },
                Open(_) => self.any(&mut inner),
                _ if Self::byte(&mut inner) == 0 => Value::Null,
                Plain("Boolean") => (Self::byte(&mut inner) == 1).into(),
                Plain(_) => Self::signed(&mut inner).into(),
                Enum(_) => Self::text(&mut inner),
                Final(name) => self.object(classes().find(|class| class.name == name).unwrap(), &mut inner),
            };
            assert!(inner.is_empty(), "{}", field.name);
            object.insert(field.name.split_once('.').unwrap().1.to_owned(), value);
        }
        Value::Object(object)
    }
}

fn read(bytes: &[u8]) -> Value {
    let mut reader = Reader { bytes, known: Vec::new() };
    let mut rest = reader.bytes;
    let value = reader.any(&mut rest);
    assert!(rest.is_empty());
    value
}

fn told_by(request: &Request, result: &StepResult) -> Value {
    let envelope = read(&answer(&agent(), request, result));
    assert_eq!(envelope["accountId"], "acct1");
    assert_eq!(envelope["serializationFormat"], "KRYO");
    assert_eq!(envelope["taskTypeName"], request.task_type);
    let code = if envelope["response"]["@"] == "ErrorNotifyResponseData" { "FAILED" } else { "OK" };
    assert_eq!(envelope["responseCode"], code);
    envelope["response"].clone()
}

#[test]
fn a_script_s_variables_and_units_are_told() {
    let mut result = ended(
        StepStatus::Success,
        json!({"outputVariables.VERSION": "1.4.2", "outputVariables.n": 7, "other": 1}),
    );
    result.outputs.insert("outputVariables.KEY".into(), Output { value: "s3cr3t".into(), secret: true });
    let unit = UnitProgress {
        unit: "Execute".into(),
        status: UnitStatus::Success,
        started_at: Some(1),
        ended_at: Some(300),
    };
    result.units.push(unit);
    let told = told_by(&of(Kind::Shell), &result);
    assert_eq!(told["status"], "SUCCESS");
    assert_eq!(told["delegateMetaInfo"], json!({"@": "DelegateMetaInfo", "hostName": "zone-a", "id": "d1"}));
    let variables = &told["executeCommandResponse"]["commandExecutionData"]["sweepingOutputEnvVariables"];
    assert_eq!(*variables, json!({"VERSION": "1.4.2", "n": "7", "KEY": "s3cr3t"}));
    assert_eq!(
        told["unitProgressData"]["unitProgresses"],
        json!(["0a074578656375746510011801 20ac02".replace(' ', "")])
    );
    // Without outputs the part is there all the same: the manager uses it without asking.
    let told =
        told_by(&of(Kind::Command { host: Some("h1".into()) }), &ended(StepStatus::Success, json!({})));
    assert_eq!(told["executeCommandResponse"]["commandExecutionData"]["@"], "ShellExecutionData");
    assert_eq!((&told["host"], &told["errorMessage"]), (&json!("h1"), &Value::Null));
}

#[test]
fn an_http_response_is_told_as_it_came() {
    let request = of(Kind::Http { method: "GET".into(), url: "https://svc.example".into(), bytes: true });
    let result = ended(
        StepStatus::Success,
        json!({"httpResponseCode": 503, "httpResponseBody": "grün", "httpMethod": "GET"}),
    );
    let told = told_by(&request, &result);
    assert_eq!((&told["httpResponseCode"], &told["httpResponseBody"]), (&json!(503), &json!("grün")));
    assert_eq!(told["httpResponseBodyInBytes"], hex::encode("grün"));
    assert_eq!(
        (&told["httpUrl"], &told["commandExecutionStatus"]),
        (&json!("https://svc.example"), &json!("SUCCESS"))
    );
}

#[test]
fn what_a_kubernetes_step_left_is_told() {
    let pod = json!({"name": "p", "namespace": "prod", "uid": "u", "podIP": "10.1.0.4", "newPod": true, "labels": {"app": "shop"},
        "containerList": [{"name": "shop", "image": "shop:1", "containerId": "containerd://1"}]});
    let id = json!({"kind": "ConfigMap", "name": "old", "namespace": "prod", "versioned": true});
    let result = ended(
        StepStatus::Success,
        json!({"releaseNumber": 7, "k8sPodList": [pod], "loadBalancer": "http://lb", "prunedResourceIds": [id],
        "recreatedResourceIds": [id, id], "manifest": {"helmChartInfo": {"name": "shop", "version": "1.2.3", "repoUrl": "https://c"}}}),
    );
    let rolling = told_by(&kubernetes(K8sTask::Rolling), &result);
    let told = &rolling["k8sNGTaskResponse"];
    assert_eq!((&told["releaseNumber"], &told["loadBalancer"]), (&json!(7), &json!("http://lb")));
    assert_eq!(told["k8sPodList"][0]["releaseName"], "release-1");
    assert_eq!(told["k8sPodList"][0]["containerList"][0]["image"], "shop:1");
    assert_eq!(
        (&told["k8sPodList"][0]["labels"], &told["k8sPodList"][0]["newPod"]),
        (&json!({"app": "shop"}), &json!(true))
    );
    assert_eq!(
        (&told["prunedResourceIds"][0]["name"], &told["helmChartInfo"]["version"]),
        (&json!("old"), &json!("1.2.3"))
    );
    // A step without word of its units shows all of them as done.
    assert_eq!(rolling["commandUnitsProgress"]["unitProgresses"].as_array().unwrap().len(), 6);
    let told = told_by(&kubernetes(K8sTask::RollingRollback), &result);
    assert_eq!(told["k8sNGTaskResponse"]["recreatedResourceIds"].as_array().unwrap().len(), 1);
    let told = told_by(&kubernetes(K8sTask::Apply), &result);
    assert_eq!(
        (&told["k8sNGTaskResponse"], &told["commandExecutionStatus"]),
        (&Value::Null, &json!("SUCCESS"))
    );
    let scaled = ended(StepStatus::Success, json!({"pods": [pod]}));
    assert_eq!(
        told_by(&kubernetes(K8sTask::Scale), &scaled)["k8sNGTaskResponse"]["k8sPodList"][0]["uid"],
        "u"
    );
}

#[test]
fn a_failure_of_the_target_comes_in_the_family_s_own_response_and_others_with_their_type() {
    let mut result = failed(FailureKind::RemoteFailed, "progress deadline exceeded");
    let unit = |unit: &str, status, ended_at| UnitProgress {
        unit: unit.into(),
        status,
        started_at: Some(1),
        ended_at,
    };
    result.units = vec![
        unit("Apply", UnitStatus::Success, Some(9)),
        unit("Wait for Steady State", UnitStatus::Running, None),
    ];
    let told = told_by(&kubernetes(K8sTask::Rolling), &result);
    assert_eq!(
        (&told["commandExecutionStatus"], &told["k8sNGTaskResponse"]),
        (&json!("FAILURE"), &Value::Null)
    );
    assert_eq!(told["errorMessage"], "progress deadline exceeded\nWhat to do: look at it [KUBE-001]");
    // Running, 2 = failed, at the last time that is known.
    let units = told["commandUnitsProgress"]["unitProgresses"].as_array().unwrap();
    assert!(units[1].as_str().unwrap().ends_with("100218012009"), "{}", units[1]);
    for (kind, name) in [
        (FailureKind::Connectivity, "CONNECTIVITY"),
        (FailureKind::Throttled, "CONNECTIVITY"),
        (FailureKind::Authentication, "AUTHENTICATION"),
        (FailureKind::Authorization, "AUTHORIZATION_ERROR"),
        (FailureKind::Timeout, "TIMEOUT_ERROR"),
        (FailureKind::DelegateRestart, "DELEGATE_RESTART"),
    ] {
        let told = told_by(&kubernetes(K8sTask::Rolling), &failed(kind, "m"));
        assert_eq!((&told["@"], &told["failureTypes"]), (&json!("ErrorNotifyResponseData"), &json!([name])));
        assert_eq!(told["errorMessage"], "m\nWhat to do: look at it [KUBE-001]");
    }
    assert_eq!(
        told_by(&of(Kind::Other), &failed(FailureKind::Bug, "m"))["failureTypes"],
        json!(["APPLICATION_ERROR"])
    );
    assert_eq!(told_by(&of(Kind::Shell), &StepResult::bare(StepStatus::Aborted, None))["status"], "FAILURE");
}

#[test]
fn a_canary_that_failed_is_told_so_that_it_is_deleted() {
    let undo = json!({"v": 1, "releaseNumber": 4, "canaryWorkload": "prod/Deployment/shop-canary", "canaryWorkloadDeployed": true});
    for kind in [FailureKind::RemoteFailed, FailureKind::Timeout] {
        let result = StepResult { undo: Some(undo.clone()), ..failed(kind, "m") };
        let told = told_by(&kubernetes(K8sTask::CanaryDeploy), &result);
        assert_eq!(told["commandExecutionStatus"], "FAILURE");
        let told = &told["k8sNGTaskResponse"];
        assert_eq!(
            (&told["canaryWorkload"], &told["canaryWorkloadDeployed"]),
            (&json!("prod/Deployment/shop-canary"), &json!(true))
        );
    }
}

#[test]
fn ecs_answers_carry_what_the_rollback_needs() {
    let of = |command| {
        of(Kind::Ecs {
            command: Some(command),
            region: "eu-west-1".into(),
            infrastructure_key: "9f3c".into(),
        })
    };
    let mut result = ended(
        StepStatus::Success,
        json!({"serviceName": "shop", "isFirstDeployment": false,
        "instances": [{"taskArn": "arn:t", "startedAt": 5.25, "containers": [{"name": "web"}]}]}),
    );
    result.undo = Some(json!({"v": 1, "service": "shop"}));
    let told = told_by(&of(EcsCommand::PrepareRollbackData), &result);
    let text = told["ecsPrepareRollbackDataResult"]["createServiceRequestBuilderString"].as_str().unwrap();
    assert_eq!(text, "delegate-undo/1 eyJ2IjoxLCJzZXJ2aWNlIjoic2hvcCJ9");
    assert_eq!(unpacked(text), Some(Ok(json!({"v": 1, "service": "shop"}))));
    let told = told_by(&of(EcsCommand::RollingDeploy), &result);
    let told = &told["ecsRollingDeployResult"];
    assert_eq!((&told["region"], &told["ecsTasks"][0]["startedAt"]), (&json!("eu-west-1"), &json!(5_250)));
    for command in EcsCommand::ALL {
        let told = told_by(&of(*command), &failed(FailureKind::BadSpec, "no"));
        assert_eq!(
            (&told["commandExecutionStatus"], &told["errorMessage"]),
            (&json!("FAILURE"), &json!("no\nWhat to do: look at it [KUBE-001]"))
        );
    }
    let told = told_by(&Request::of_type("t", "ECS_COMMAND_TASK_NG"), &failed(FailureKind::BadSpec, "no"));
    assert_eq!(told["@"], "ErrorNotifyResponseData");
}

#[test]
fn every_ecs_answer_says_what_the_later_tasks_are_built_from() {
    let of = |command: EcsCommand| {
        let key = "9f3c".to_owned();
        of(Kind::Ecs { command: Some(command), region: "eu-west-1".into(), infrastructure_key: key })
    };
    let task = |name: &str| json!({"taskArn": format!("arn:{name}"), "serviceName": name});
    let routes = json!({"loadBalancer": "lb", "prodListenerArn": "pl", "prodListenerRuleArn": null, "prodTargetGroupArn": "pg",
        "stageListenerArn": "sl", "stageListenerRuleArn": "sr", "stageTargetGroupArn": "sg"});
    let with = |more: Value| {
        let mut all = routes.as_object().unwrap().clone();
        all.extend(more.as_object().unwrap().clone());
        let undo = Some(json!({"v": 1, "undo": {}}));
        StepResult { undo, ..ended(StepStatus::Success, Value::Object(all)) }
    };
    let result =
        with(json!({"isFirstDeployment": false, "serviceName": "shop__1", "greenServiceName": "shop__2",
        "greenServiceExist": true, "trafficShifted": false}));
    let told = told_by(&of(EcsCommand::BlueGreenPrepareRollbackData), &result);
    let told = &told["ecsBlueGreenPrepareRollbackDataResult"];
    assert_eq!((&told["serviceName"], &told["isFirstDeployment"]), (&json!("shop__1"), &json!(false)));
    assert_eq!((&told["greenServiceName"], &told["greenServiceExist"]), (&json!("shop__2"), &json!(true)));
    for (name, value) in routes.as_object().unwrap() {
        assert_eq!(told["ecsLoadBalancerConfig"][name], *value, "{name}");
    }
    assert_eq!(
        unpacked(told["createServiceRequestBuilderString"].as_str().unwrap()),
        Some(Ok(json!({"v": 1, "undo": {}})))
    );
    let result = with(
        json!({"isNewServiceCreated": true, "serviceName": "shop__2", "listenerArn": "sl", "listenerRuleArn": "sr",
        "targetGroupArn": "sg", "serverInstances": [task("shop__2")]}),
    );
    let told = &told_by(&of(EcsCommand::BlueGreenCreateService), &result)["ecsBlueGreenCreateServiceResult"];
    assert_eq!((&told["isNewServiceCreated"], &told["serviceName"]), (&json!(true), &json!("shop__2")));
    assert_eq!((&told["targetGroupArn"], &told["listenerArn"]), (&json!("sg"), &json!("sl")));
    assert_eq!(told["ecsTasks"][0]["taskArn"], "arn:shop__2");
    let result =
        with(json!({"trafficShifted": true, "isFirstDeployment": false, "instances": [task("shop__2")]}));
    let told =
        &told_by(&of(EcsCommand::BlueGreenSwapTargetGroups), &result)["ecsBlueGreenSwapTargetGroupsResult"];
    assert_eq!((&told["trafficShifted"], &told["prodTargetGroupArn"]), (&json!(true), &json!("pg")));
    assert_eq!(
        (&told["infrastructureKey"], &told["ecsTasks"][0]["serviceName"]),
        (&json!("9f3c"), &json!("shop__2"))
    );
    let told = &told_by(&of(EcsCommand::BlueGreenRollback), &result)["ecsBlueGreenRollbackResult"];
    assert_eq!((&told["isFirstDeployment"], &told["stageListenerRuleArn"]), (&json!(false), &json!("sr")));

    let told = told_by(&of(EcsCommand::RunTask), &with(json!({"taskArns": ["arn:1", "arn:2"]})));
    let told = &told["ecsRunTaskResult"]["ecsTasks"];
    assert_eq!((&told[1]["taskArn"], &told[1]["startedAt"]), (&json!("arn:2"), &json!(0)));

    let result = with(json!({"servicePrefix": "shop__", "nextRevision": 4, "currentServiceName": "shop__3",
        "currentServiceInstanceCount": 3, "newServiceThresholdInstanceCount": 2, "isFirstDeployment": false}));
    let told = &told_by(&of(EcsCommand::BasicPrepareRollback), &result)["prepareRollbackData"];
    assert_eq!((&told["servicePrefix"], &told["nextRevision"]), (&json!("shop__"), &json!(4)));
    assert_eq!(
        (&told["currentServiceName"], &told["currentServiceInstanceCount"]),
        (&json!("shop__3"), &json!(3))
    );
    assert_eq!(told["newServiceThresholdInstanceCount"], 2);
    assert!(told["createServiceRequestYaml"].as_str().unwrap().starts_with("delegate-undo/1 "));
    let result = with(json!({"newService": {"serviceName": "shop__4"}, "instances": [task("shop__4")],
        "oldService": {"serviceName": "shop__3", "instances": [task("shop__3"), task("shop__3")]}}));
    for (command, key) in [
        (EcsCommand::ServiceSetup, "deployData"),
        (EcsCommand::UpgradeContainer, "deployData"),
        (EcsCommand::BasicRollback, "rollbackData"),
    ] {
        let told = &told_by(&of(command), &result)[key];
        let (new, old) = (&told["newServiceData"], &told["oldServiceData"]);
        assert_eq!((&new["serviceName"], &old["serviceName"]), (&json!("shop__4"), &json!("shop__3")));
        assert_eq!(
            (&new["tasks"][0]["taskArn"], &new["region"]),
            (&json!("arn:shop__4"), &json!("eu-west-1"))
        );
        assert_eq!(old["tasks"].as_array().unwrap().len(), 2);
        // The manager asks the old service for its name also when there was none.
        let told = told_by(
            &of(command),
            &with(json!({"newService": {"serviceName": "shop__1"}, "oldService": null})),
        );
        assert_eq!(told[key]["oldServiceData"]["@"], "EcsServiceData");
        assert_eq!(told[key]["oldServiceData"]["serviceName"], Value::Null);
    }
}

#[test]
fn ten_thousand_tasks_are_told_and_no_more() {
    let task = |n: usize| {
        json!({"taskArn": format!("arn:aws:ecs:eu-west-1:1:task/c/{n:032}"), "serviceName": "shop", "startedAt": 1.5,
            "containers": [{"name": "web", "image": "shop:1", "containerArn": format!("arn:{n}"), "runtimeId": "r"}]})
    };
    let tasks: Vec<Value> = (0..10_500).map(task).collect();
    let result = ended(StepStatus::Success, json!({"instances": tasks, "serviceName": "shop"}));
    let told = told_by(
        &of(Kind::Ecs {
            command: Some(EcsCommand::RollingDeploy),
            region: "r".into(),
            infrastructure_key: "k".into(),
        }),
        &result,
    );
    assert_eq!(told["ecsRollingDeployResult"]["ecsTasks"].as_array().unwrap().len(), 10_000);
}

#[test]
fn a_check_that_failed_is_an_answer_and_no_error() {
    let stages = json!([{"stage": "connect", "ok": true, "message": "there"}, {"stage": "login", "ok": false, "message": "401", "hint": "the token"}]);
    let result = ended(StepStatus::Success, json!({"ok": false, "stages": stages}));
    for (kind, class) in [
        (Kind::KubernetesCheck, "KubernetesConnectionTaskResponse"),
        (Kind::AwsCheck, "AwsValidateTaskResponse"),
        (Kind::GitCheck, "GitCommandExecutionResponse"),
    ] {
        let told = told_by(&of(kind.clone()), &result);
        assert_eq!(told["@"], class);
        let found = &told["connectorValidationResult"];
        assert_eq!((&found["status"], &found["errorSummary"]), (&json!("FAILURE"), &json!("login: 401")));
        assert_eq!((&found["errors"][0]["reason"], &found["taskId"]), (&json!("the token"), &json!("t1")));
        let told = told_by(&of(kind.clone()), &failed(FailureKind::Connectivity, "no way"));
        assert_eq!(told["connectorValidationResult"]["status"], "FAILURE");
        let told = told_by(&of(kind), &ended(StepStatus::Success, json!({"ok": true, "stages": []})));
        assert_eq!(
            (&told["connectorValidationResult"]["status"], &told["connectorValidationResult"]["errors"]),
            (&json!("SUCCESS"), &json!([]))
        );
    }
}

#[test]
fn ten_megabytes_of_message_are_cut_and_say_so() {
    let told = told_by(
        &kubernetes(K8sTask::Rolling),
        &failed(FailureKind::RemoteFailed, &"é\0🙂".repeat(1_500_000)),
    );
    let text = told["errorMessage"].as_str().unwrap();
    assert!(
        text.len() < 66 << 10 && text.starts_with("é\0🙂") && text.contains("more bytes)"),
        "{}",
        text.len()
    );
    assert!(text.ends_with("[KUBE-001]"));
}

#[test]
fn ten_thousand_pods_are_told_and_no_more() {
    let pod = |n: usize| {
        json!({"name": format!("shop-{n}"), "uid": format!("{n:032}"), "podIP": "10.1.2.3", "labels": {"app": "shop"},
            "containerList": [{"name": "c", "image": "registry.example/team/shop:1.2.3", "containerId": format!("containerd://{n:064}")}]})
    };
    let result = ended(StepStatus::Success, json!({"k8sPodList": (0..10_500).map(pod).collect::<Vec<_>>()}));
    let told = told_by(&kubernetes(K8sTask::Rolling), &result);
    let pods = told["k8sNGTaskResponse"]["k8sPodList"].as_array().unwrap();
    assert_eq!((pods.len(), &pods[9_999]["name"]), (10_000, &json!("shop-9999")));
}

#[test]
fn an_answer_that_would_be_too_large_keeps_its_status() {
    let pod = json!({"name": "n".repeat(4000), "uid": "u"});
    let result = ended(StepStatus::Success, json!({"releaseNumber": 7, "k8sPodList": vec![pod; 9_000]}));
    let told = told_by(&kubernetes(K8sTask::Rolling), &result);
    assert_eq!(
        (&told["k8sNGTaskResponse"]["releaseNumber"], &told["k8sNGTaskResponse"]["k8sPodList"]),
        (&json!(7), &json!([]))
    );
    let result = ended(StepStatus::Success, json!({"outputVariables.huge": "x".repeat(MAX_ANSWER)}));
    let told = told_by(&of(Kind::Shell), &result);
    assert_eq!(told["@"], "ErrorNotifyResponseData");
    assert!(told["errorMessage"].as_str().unwrap().contains("Success"), "{told}");
}

#[test]
fn outputs_of_another_shape_are_left_out() {
    let odd = json!({"releaseNumber": u64::MAX, "k8sPodList": [7, null, {"labels": [], "containerList": 3, "name": 5}], "manifest": 1,
        "prunedResourceIds": {}, "canaryWorkloadDeployed": "yes", "stages": "x", "ok": 1, "httpResponseCode": -1e300, "httpResponseBody": [],
        "instances": [7, {"startedAt": 1e300}], "newService": [], "outputVariables.a": null});
    let result = ended(StepStatus::Success, odd);
    let told = told_by(&kubernetes(K8sTask::Rolling), &result);
    assert_eq!(told["k8sNGTaskResponse"]["releaseNumber"], i32::MAX);
    assert_eq!(told["k8sNGTaskResponse"]["k8sPodList"][2]["name"], "5");
    for task in K8sTask::ALL {
        told_by(&kubernetes(*task), &result);
    }
    for command in EcsCommand::ALL {
        told_by(
            &of(Kind::Ecs {
                command: Some(*command),
                region: String::new(),
                infrastructure_key: String::new(),
            }),
            &result,
        );
    }
    for kind in [Kind::Shell, Kind::GitCheck, Kind::Other, Kind::Command { host: None }] {
        told_by(&of(kind), &result);
    }
}

#[test]
fn a_progress_update_is_zlib_around_the_units() {
    let request =
        Request { renamed: vec![("Init", "Initialize".into())], ..of(Kind::Command { host: None }) };
    let unit = UnitProgress {
        unit: "Init".into(),
        status: UnitStatus::Running,
        started_at: Some(1_733_740_000_000),
        ended_at: None,
    };
    let mut clear = Vec::new();
    flate2::read::ZlibDecoder::new(progress(&request, &[unit]).as_slice()).read_to_end(&mut clear).unwrap();
    let told = read(&clear);
    assert_eq!(told["@"], "UnitProgressData");
    assert_eq!(told["unitProgresses"], json!(["0a0a496e697469616c697a6510031880e6d3d7ba32"]));
}
