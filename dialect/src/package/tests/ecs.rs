//! ECS commands: each becomes its step, and what a rollback gets is ours or refused.

use super::*;
use crate::EcsCommand;
use crate::answer::packed;

fn ecs(changes: &[(&str, Value)]) -> (Decoded, EcsSpec) {
    let decoded = decoded(&with("t-ecs", changes));
    let StepSpec::Ecs(spec) = &decoded.task.step.spec else { panic!() };
    let spec = (**spec).clone();
    (decoded, spec)
}

fn content(document: Option<&EcsDocument>) -> String {
    let Some(EcsDocument::File { store: FileStore::Inline { content, .. }, .. }) = document else {
        panic!("{document:?}")
    };
    content.as_str().to_owned()
}

#[test]
fn an_ecs_package_becomes_its_step() {
    let (all, spec) = ecs(&[
        ("/data/forceNewDeployment", json!(true)),
        ("/data/ecsScalableTargetManifestContentList", json!(["minCapacity: 1", ""])),
    ]);
    assert_eq!((spec.cluster.as_str(), spec.account.region.as_str()), ("c1", "eu-west-1"));
    let AwsCredential::ManualConfig { access_key, secret_key, session_token } = &spec.account.credential
    else {
        panic!()
    };
    assert_eq!(
        (access_key.as_str(), revealed(&all, secret_key).as_str(), session_token),
        ("AKIAEXAMPLE", SECRET, &None)
    );
    assert!(content(spec.definitions.task.as_ref().unwrap().document.as_ref()).starts_with("family: shop"));
    assert!(content(spec.definitions.service.as_ref()).contains("desiredCount: 2"));
    assert_eq!(spec.definitions.scalable_targets.len(), 1);
    assert!(matches!(
        spec.action,
        EcsAction::EcsRollingDeploy {
            force_new_deployment: true,
            same_as_already_running_instances: false,
            ..
        }
    ));
    let kind = Kind::Ecs {
        command: Some(crate::EcsCommand::RollingDeploy),
        region: "eu-west-1".into(),
        infrastructure_key: "9f3c".into(),
    };
    assert_eq!((&all.request.kind, all.request.units.as_slice()), (&kind, &["Deploy".to_owned()][..]));
    let command = |name: &str| ("/data/ecsCommandType", json!(name));
    let (_, spec) = ecs(&[
        command("ECS_CANARY_DEPLOY"),
        ("/data/ecsServiceNameSuffix", json!("Canary")),
        ("/data/desiredCountOverride", json!(1)),
    ]);
    assert_eq!(
        spec.action,
        EcsAction::EcsCanaryDeploy { instances: Some(TaskCount::Count(1)), replace_existing: true }
    );
    let (_, spec) = ecs(&[command("ECS_CANARY_DELETE"), ("/data/ecsServiceNameSuffix", json!("Canary"))]);
    assert_eq!(spec.action, EcsAction::EcsCanaryDelete {});
    assert_eq!(spec.earlier.undo[0].kind, "EcsCanaryDeploy");
    assert_eq!(
        spec.earlier.undo[0].data,
        json!({"v": 1, "undo": {"kind": "canary", "service": "shopCanary"}})
    );
    for manifest in ["desiredCount: 2", "a: [", "7"] {
        let changes =
            [command("ECS_CANARY_DELETE"), ("/data/ecsServiceDefinitionManifestContent", json!(manifest))];
        assert_eq!(refused(&with("t-ecs", &changes)).code, "HRN-003", "{manifest}");
    }
    let (_, spec) = ecs(&[
        command("ECS_TASK_ARN_ROLLING_DEPLOY"),
        ("/data/ecsTaskDefinitionArn", json!("arn:aws:ecs:x:1:task-definition/a:1")),
        ("/data/ecsTaskDefinitionManifestContent", json!(null)),
    ]);
    assert_eq!(spec.definitions.task.unwrap().arn.unwrap(), "arn:aws:ecs:x:1:task-definition/a:1");
    let (_, spec) = ecs(&[
        command("ECS_RUN_TASK"),
        ("/data/ecsRunTaskRequestDefinitionManifestContent", json!("count: 1")),
    ]);
    let EcsAction::EcsRunTask { shape } = spec.action else { panic!() };
    assert!(matches!(*shape, RunTaskShape::Run { task: Some(_), wait_until_stopped: true, .. }));
    assert_eq!(refused(&with("t-ecs", &[command("ECS_RUN_TASK")])).code, "HRN-003");
    let failure = refused(&with("t-ecs", &[command("ECS_NEWEST")]));
    assert!(failure.code == "HRN-004" && failure.message.contains("ECS_NEWEST"), "{}", failure.message);
}

#[test]
fn aws_accounts_are_signed_for_as_the_connector_says() {
    let credential = "/data/ecsInfraConfig/awsConnectorDTO/credential";
    for (kind, expected) in
        [("InheritFromDelegate", AwsCredential::InheritFromDelegate), ("Irsa", AwsCredential::Irsa)]
    {
        let access = json!({"crossAccountRoleArn": "arn:aws:iam::1:role/r", "externalId": "x"});
        let (_, spec) = ecs(&[(
            credential,
            json!({"type": kind, "crossAccountAccess": access, "region": null, "spec": null}),
        )]);
        assert_eq!(spec.account.credential, expected);
        let role = spec.account.assume_role.unwrap();
        assert_eq!(
            (role.role_arn.as_str(), role.external_id.unwrap().as_str()),
            ("arn:aws:iam::1:role/r", "x")
        );
    }
    let failure = refused(&with("t-ecs", &[(credential, json!({"type": "OidcAuthentication", "spec": {}}))]));
    assert!(
        failure.code == "HRN-004" && failure.message.contains("OidcAuthentication"),
        "{}",
        failure.message
    );
}

fn spec_of(id: &str, changes: &[(&str, Value)]) -> (Decoded, EcsSpec) {
    let decoded = decoded(&with(id, changes));
    let StepSpec::Ecs(spec) = &decoded.task.step.spec else { panic!("{id}") };
    let spec = (**spec).clone();
    (decoded, spec)
}

fn routes() -> BlueGreenRoutes {
    let listener = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener";
    BlueGreenRoutes {
        load_balancer: "shop-lb".into(),
        prod_listener: format!("{listener}/app/shop-lb/50dc6c495c0c9188/f2f7dc8efc522ab2"),
        prod_listener_rule_arn: None,
        stage_listener: Some(format!("{listener}/app/shop-lb/50dc6c495c0c9188/0467ef3c8400ae65")),
        stage_listener_rule_arn: Some(format!(
            "{listener}-rule/app/shop-lb/50dc6c495c0c9188/0467ef3c8400ae65/9683b2d02a6cabee"
        )),
        stage_target_group_arn: None,
    }
}

/// What the package of each command becomes, with its units.
#[test]
fn every_command_becomes_its_step() {
    let prepare = |strategy| EcsAction::EcsPrepareRollback { strategy };
    let canary = EcsAction::EcsCanaryDeploy { instances: Some(TaskCount::Count(1)), replace_existing: true };
    let create = |same| EcsAction::EcsBlueGreenCreateService {
        routes: routes(),
        same_as_already_running_instances: same,
        enable_auto_scaling_in_swap_step: false,
        update_green_service: false,
        traffic_shift: false,
    };
    let rolling = EcsAction::EcsRollingDeploy {
        same_as_already_running_instances: true,
        force_new_deployment: true,
        skip_steady_state_check: false,
        native: Default::default(),
    };
    let table = [
        (EcsCommand::PrepareRollbackData, prepare(EcsStrategy::Rolling), "Prepare Rollback Data"),
        (EcsCommand::TaskArnRollingDeploy, rolling, "Deploy"),
        (
            EcsCommand::RollingRollback,
            EcsAction::EcsRollingRollback { skip_steady_state_check: false },
            "Rollback",
        ),
        (EcsCommand::CanaryDeploy, canary.clone(), "Deploy"),
        (EcsCommand::TaskArnCanaryDeploy, canary, "Deploy"),
        (EcsCommand::CanaryDelete, EcsAction::EcsCanaryDelete {}, "Delete Service"),
        (
            EcsCommand::BlueGreenPrepareRollbackData,
            prepare(EcsStrategy::BlueGreen { routes: routes() }),
            "Prepare Rollback Data",
        ),
        (EcsCommand::BlueGreenCreateService, create(false), "Deploy"),
        (EcsCommand::TaskArnBlueGreenCreateService, create(true), "Deploy"),
        (
            EcsCommand::BlueGreenSwapTargetGroups,
            EcsAction::EcsBlueGreenSwapTargetGroups {
                do_not_downsize_old_service: false,
                downsize_old_service_delay_ms: 30_000,
            },
            "Swap Target Group",
        ),
        (EcsCommand::BlueGreenRollback, EcsAction::EcsBlueGreenRollback {}, "Rollback"),
        (EcsCommand::BasicPrepareRollback, prepare(EcsStrategy::Phased), "Prepare Rollback Data"),
        (
            EcsCommand::ServiceSetup,
            EcsAction::EcsServiceSetup {
                resize_strategy: ResizeStrategy::DownsizeOldFirst,
                same_as_already_running_instances: false,
            },
            "Service Setup",
        ),
        (
            EcsCommand::UpgradeContainer,
            EcsAction::EcsUpgradeContainer { new_instances: TaskCount::Percentage(50), downsize_old: None },
            "Upgrade Container",
        ),
        (EcsCommand::BasicRollback, EcsAction::EcsBasicRollback {}, "Rollback"),
    ];
    for (command, action, unit) in &table {
        let (all, spec) = spec_of(&format!("t-{}", command.name()), &[]);
        assert_eq!(spec.action, *action, "{}", command.name());
        assert_eq!(all.request.units, [*unit], "{}", command.name());
        let kind = Kind::Ecs {
            command: Some(*command),
            region: "eu-west-1".into(),
            infrastructure_key: "9f3c".into(),
        };
        assert_eq!(all.request.kind, kind);
        assert_eq!((spec.cluster.as_str(), spec.account.region.as_str()), ("c1", "eu-west-1"));
    }
    for command in [EcsCommand::RunTask, EcsCommand::RunTaskArn] {
        let (_, spec) = spec_of(&format!("t-{}", command.name()), &[]);
        let EcsAction::EcsRunTask { shape } = spec.action else { panic!() };
        let RunTaskShape::Run { task: Some(task), skip_steady_state_check, .. } = *shape else { panic!() };
        assert_eq!(
            (task.arn.is_some(), skip_steady_state_check),
            (command == EcsCommand::RunTaskArn, command == EcsCommand::RunTaskArn)
        );
    }
    // And the one of the other file is the last.
    let told = table.len() + 2 + 1;
    assert_eq!(told, EcsCommand::ALL.len());
}

#[test]
fn definitions_are_found_under_either_name_and_the_target_group_has_our_placeholder() {
    for id in ["t-ECS_BLUE_GREEN_CREATE_SERVICE", "t-ECS_TASK_ARN_BLUE_GREEN_CREATE_SERVICE"] {
        let (_, spec) = spec_of(id, &[]);
        let service = content(spec.definitions.service.as_ref());
        assert!(service.contains("targetGroupArn: <+targetGroupArn>\n"), "{service}");
        let task = spec.definitions.task.unwrap();
        assert_eq!(task.arn.is_some(), id.contains("ARN"), "{task:?}");
        assert_eq!(spec.definitions.scalable_targets.len(), 1);
    }
    let (_, spec) = spec_of("t-ECS_SERVICE_SETUP", &[]);
    assert!(content(spec.definitions.service.as_ref()).contains("serviceName: shop"));
    assert!(content(spec.definitions.task.unwrap().document.as_ref()).starts_with("family: shop"));
    let (_, spec) = spec_of("t-ECS_UPGRADE_CONTAINER", &[]);
    assert!(spec.definitions.service.is_none() && spec.definitions.scalable_targets.len() == 1);
    let role = spec.account.assume_role.unwrap();
    assert_eq!((spec.account.credential, role.external_id.unwrap().as_str()), (AwsCredential::Irsa, "x-1"));
    let arn = json!("arn:aws:ecs:x:1:task-definition/a:1");
    let (_, spec) = spec_of(
        "t-ECS_SERVICE_SETUP",
        &[("/data/taskDefinitionArn", arn), ("/data/taskDefinitionManifestContent", json!(null))],
    );
    assert_eq!(spec.definitions.task.unwrap().arn.unwrap(), "arn:aws:ecs:x:1:task-definition/a:1");
}

#[test]
fn what_is_swapped_is_what_the_answers_before_said() {
    let id = "t-ECS_BLUE_GREEN_SWAP_TARGET_GROUPS";
    let (_, spec) = spec_of(id, &[]);
    assert_eq!(spec.earlier.undo[0].kind, "EcsBlueGreenCreateService");
    let base = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:";
    let found = &spec.earlier.undo[0].data["undo"];
    assert_eq!((&found["kind"], &found["scalingLater"]), (&json!("green"), &json!(false)));
    assert_eq!(
        found["pair"],
        json!({
            "blue": "shop__1", "green": "shop__2",
            "blueGroup": format!("{base}targetgroup/shop-a/73e2d6bc24d8a067"),
            "greenGroup": format!("{base}targetgroup/shop-b/73e2d6bc24d8a068"),
            "production": {"listener": routes().prod_listener, "arn": null},
            "stage": {"listener": routes().stage_listener, "arn": routes().stage_listener_rule_arn},
            "balancer": {"arn": format!("{base}loadbalancer/app/shop-lb/50dc6c495c0c9188"), "name": "shop-lb"},
        })
    );
    let (_, spec) =
        spec_of(id, &[("/data/firstDeployment", json!(true)), ("/data/oldServiceName", json!(null))]);
    assert_eq!(spec.earlier.undo[0].data["undo"]["pair"]["blue"], Value::Null);
    let (_, spec) = spec_of(id, &[("/data/ecsScalableTargetManifestContentList", json!(["MinCapacity: 1"]))]);
    assert_eq!(spec.earlier.undo[0].data["undo"]["scalingLater"], true);
    for (place, value, code) in [
        ("/data/oldServiceName", json!(null), "HRN-003"),
        ("/data/newServiceName", json!(null), "HRN-003"),
        ("/data/ecsLoadBalancerConfig", json!(null), "HRN-003"),
        ("/data/ecsLoadBalancerConfig/prodListenerArn", json!("listener"), "HRN-003"),
        ("/data/ecsLoadBalancerConfig/stageTargetGroupArn", json!(null), "HRN-003"),
        ("/data/downsizeOldServiceDelayInSecs", json!(-1), "HRN-003"),
    ] {
        assert_eq!(refused(&with(id, &[(place, value)])).code, code, "{place}");
    }
    for id in ["t-ECS_BLUE_GREEN_PREPARE_ROLLBACK_DATA", "t-ECS_BLUE_GREEN_CREATE_SERVICE"] {
        let failure = refused(&with(id, &[("/data/ecsLoadBalancerConfig/stageListenerArn", json!(null))]));
        assert!(failure.code == "HRN-004" && failure.message.contains("weights"), "{}", failure.message);
    }
}

#[test]
fn tasks_move_between_the_services_that_the_package_names() {
    let id = "t-ECS_UPGRADE_CONTAINER";
    let (_, spec) = spec_of(id, &[]);
    assert_eq!(
        spec.earlier.undo[0].data,
        json!({"v": 1, "undo": {"kind": "phased", "phased": {"new": "shop__4", "newCount": 4,
            "old": {"name": "shop__3", "count": 3}, "resize": "ResizeNewFirst"}}})
    );
    for (unit, count, expected) in [
        ("Percentage", 25, TaskCount::Percentage(25)),
        ("PERCENTAGE", 25, TaskCount::Percentage(25)),
        ("Count", 2, TaskCount::Count(2)),
    ] {
        let (_, spec) = spec_of(
            id,
            &[
                ("/data/oldServiceData/instanceUnitType", json!(unit)),
                ("/data/oldServiceData/instanceCount", json!(count)),
                ("/data/resizeStrategy", json!("DOWNSIZE_OLD_FIRST")),
            ],
        );
        let EcsAction::EcsUpgradeContainer { downsize_old, .. } = spec.action else { panic!() };
        assert_eq!(downsize_old, Some(expected));
        assert_eq!(spec.earlier.undo[0].data["undo"]["phased"]["resize"], "DownsizeOldFirst");
    }
    let (_, spec) = spec_of(id, &[("/data/firstTimeDeployment", json!(true))]);
    assert_eq!(spec.earlier.undo[0].data["undo"]["phased"]["old"], Value::Null);
    for (place, value) in [
        ("/data/newServiceData", json!(null)),
        ("/data/newServiceData/instanceCount", json!(null)),
        ("/data/newServiceData/serviceName", json!(null)),
    ] {
        assert_eq!(refused(&with(id, &[(place, value)])).code, "HRN-003", "{place}");
    }
    for (place, word) in
        [("/data/newServiceData/instanceUnitType", "Share"), ("/data/resizeStrategy", "Together")]
    {
        let failure = refused(&with(id, &[(place, json!(word))]));
        assert!(failure.code == "HRN-004" && failure.message.contains(word), "{}", failure.message);
    }
}

/// Where each rollback finds what was recorded, of which kind that is, and which place names the service that it is of.
const ROLLBACKS: [(&str, &str, &str, &str, &str); 3] = [
    (
        "t-ECS_ROLLING_ROLLBACK",
        "/data/ecsRollingRollbackConfig/createServiceRequestBuilderString",
        "EcsRollingDeploy",
        "service",
        "/data/ecsRollingRollbackConfig/serviceName",
    ),
    (
        "t-ECS_BLUE_GREEN_ROLLBACK",
        "/data/oldServiceCreateRequestBuilderString",
        "EcsBlueGreenCreateService",
        "green",
        "/data/newServiceName",
    ),
    (
        "t-ECS_BASIC_ROLLBACK",
        "/data/createServiceRequestYaml",
        "EcsServiceSetup",
        "phased",
        "/data/newServiceName",
    ),
];

#[test]
fn a_rollback_takes_only_undo_data_of_ours() {
    for (id, place, step, kind, name) in ROLLBACKS {
        let (_, spec) = spec_of(id, &[]);
        let undo = &spec.earlier.undo[0];
        assert_eq!((undo.kind.as_str(), &undo.data["undo"]["kind"]), (step, &json!(kind)));
        let again = packed(&undo.data);
        assert_eq!(spec_of(id, &[(place, json!(format!(" {again}\n")))]).1, spec);
        // What a Java delegate writes, nothing, and what a newer agent of ours writes.
        for foreign in [
            json!("serviceName: shop\n"),
            json!("{\"serviceName\":\"shop\"}"),
            json!(null),
            json!("delegate-undo/2 e30="),
        ] {
            let failure = refused(&with(id, &[(place, foreign.clone())]));
            assert!(
                failure.code == "HRN-007" && failure.message.contains("nothing was changed"),
                "{}",
                failure.message
            );
            assert_eq!(failure.message.contains("newer version"), foreign == json!("delegate-undo/2 e30="));
        }
        for damaged in
            ["delegate-undo/1 eyJ2Ijox", "delegate-undo/1 {}", "delegate-undo/1 e30=", "delegate-undo/1 "]
        {
            assert_eq!(refused(&with(id, &[(place, json!(damaged))])).code, "HRN-003", "{id} {damaged}");
        }
        let other = json!({"v": 1, "undo": {"kind": "canary", "service": "shop"}});
        let failure = refused(&with(id, &[(place, json!(packed(&other)))]));
        assert!(failure.code == "HRN-003" && failure.message.contains("`canary`"), "{}", failure.message);
        let failure = refused(&with(id, &[(name, json!("another"))]));
        assert!(failure.code == "HRN-007" && failure.message.contains("`another`"), "{}", failure.message);
    }
}

/// A refusal is answered by the response class of the command, before anything was changed.
#[test]
fn a_refused_rollback_is_answered_in_the_command_s_own_response() {
    let agent = Agent { account_id: "acct1".into(), delegate_id: "d1".into(), host_name: "h".into() };
    for ((id, place, ..), class) in ROLLBACKS.into_iter().zip([
        "EcsRollingRollbackResponse",
        "EcsBlueGreenRollbackResponse",
        "EcsBasicRollbackResponse",
    ]) {
        let refused = decode(&package(&with(id, &[(place, json!("serviceName: shop"))]))).unwrap_err();
        let bytes = answer(&agent, &refused.request, &StepResult::failed(refused.failure.clone()));
        let names = String::from_utf8_lossy(&bytes).into_owned();
        assert!(names.contains(&format!("{class}.errorMessag")) && names.contains("FAILUR"), "{id}: {names}");
        assert!(names.contains("another kind of delegate"), "{id}: {names}");
    }
}

#[test]
fn definitions_in_git_are_refused_by_name() {
    for kind in ["ECS_GIT_FETCH_TASK_NG", "ECS_S3_FETCH_TASK_NG", "ECS_GIT_FETCH_RUN_TASK_NG"] {
        let mut value = sample("t-ecs");
        value["type"] = kind.into();
        let failure = refused(&value);
        assert!(failure.code == "HRN-004" && failure.message.contains(kind), "{}", failure.message);
        assert!(failure.hint.unwrap().contains("file store"));
    }
}
