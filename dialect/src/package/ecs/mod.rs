//! ECS_COMMAND_TASK_NG and its variants, told apart by `ecsCommandType`.
//!
//! Harness cuts a deployment into more tasks than ours has steps: what a rollback needs is found by a task of its own before
//! the deployment, and travels through the manager as text (`earlier`). Of what the tasks between did, a package says names
//! and counts alone.

mod earlier;

use super::aws;
use super::fault::Fault;
use super::secrets::Details;
use super::view::View;
use super::{Cx, step};
use crate::request::{EcsCommand, Kind};
use proto::task::{
    BlueGreenRoutes, EcsAction, EcsDefinitions, EcsDocument, EcsSpec, EcsStrategy, FileStore, Infrastructure,
    NativeDeploy, ResizeStrategy, RunTaskShape, StepSpec, StepTask, TaskCount, TaskDefinition,
};
use proto::text::Text;

/// What the name of a canary ends with; the manager says it, and means always this.
const CANARY: &str = "Canary";

/// What a service definition of ours writes where the target group of the stage goes.
const TARGET_GROUP: &str = "<+targetGroupArn>";

/// Words for which service changes its size first.
const RESIZE: [(&str, ResizeStrategy); 4] = [
    ("ResizeNewFirst", ResizeStrategy::ResizeNewFirst),
    ("RESIZE_NEW_FIRST", ResizeStrategy::ResizeNewFirst),
    ("DownsizeOldFirst", ResizeStrategy::DownsizeOldFirst),
    ("DOWNSIZE_OLD_FIRST", ResizeStrategy::DownsizeOldFirst),
];

pub(super) fn read(cx: &mut Cx<'_>, data: &View<'_>) -> Result<StepTask, Fault> {
    // Files of Git and S3 are fetched by tasks of their own, with responses of their own.
    if cx.request.task_type.contains("_FETCH_") {
        let what = format!("fetching definitions of ECS from Git or S3 ({})", cx.request.task_type);
        return Err(Fault::unsupported(what).hint(
            "keep the definitions of the service in Harness' file store or inline; or leave this step to a Harness delegate",
        ));
    }
    let key = if data.maybe_str("ecsCommandType")?.is_some() { "ecsCommandType" } else { "commandType" };
    let name = data.str(key)?;
    let command = EcsCommand::by_name(name);
    // Phased commands call it by another name.
    let infra = match data.maybe("ecsInfraConfig")? {
        Some(infra) => Some(infra),
        None => data.maybe("infraConfig")?,
    };
    let told = |key: &str| match &infra {
        Some(infra) => Ok::<_, Fault>(infra.maybe_str(key)?.unwrap_or_default().to_owned()),
        None => Ok(String::new()),
    };
    let infrastructure_key = told("infraStructureKey")?;
    cx.request.kind =
        Kind::Ecs { command, region: told("region")?, infrastructure_key: infrastructure_key.clone() };
    cx.request.units =
        command.map_or(&[][..], EcsCommand::units).iter().map(|unit| (*unit).to_owned()).collect();
    let command = command
        .ok_or_else(|| Fault::unsupported(format!("the ECS command `{}`", super::fault::short(name))))?;
    let infra =
        infra.ok_or_else(|| Fault::shape(&data.at("ecsInfraConfig"), "is missing; expected an object"))?;
    let action = action(cx, command, data)?;
    let details = Details::of(&infra, "encryptionDataDetails")?;
    let account = aws::account(cx, &infra.object("awsConnectorDTO")?, &details, infra.maybe_str("region")?)?;
    let spec = EcsSpec {
        account,
        cluster: cx.plain(&infra, "cluster")?,
        definitions: definitions(cx, data)?,
        current_task_definition: None,
        earlier: earlier::of(cx, command, data)?,
        variables: Default::default(),
        namespace: None,
        strict: false,
        context: serde_json::Value::Null,
        action,
    };
    let infrastructure =
        Infrastructure { kind: "ECS".to_owned(), key: infrastructure_key, ..Infrastructure::default() };
    let infrastructure = Some(infrastructure);
    Ok(StepTask { infrastructure, ..step(cx, StepSpec::Ecs(Box::new(spec))) })
}

fn action(cx: &mut Cx<'_>, command: EcsCommand, data: &View<'_>) -> Result<EcsAction, Fault> {
    if let Some(suffix) = data.maybe_str("ecsServiceNameSuffix")?
        && suffix != CANARY
    {
        return Err(Fault::unsupported(format!("a canary named …{}", super::fault::short(suffix))));
    }
    Ok(match command {
        EcsCommand::RollingDeploy | EcsCommand::TaskArnRollingDeploy => EcsAction::EcsRollingDeploy {
            same_as_already_running_instances: data.flag("sameAsAlreadyRunningInstances")?,
            force_new_deployment: data.flag("forceNewDeployment")?,
            skip_steady_state_check: false,
            native: NativeDeploy::default(),
        },
        EcsCommand::RollingRollback => EcsAction::EcsRollingRollback { skip_steady_state_check: false },
        EcsCommand::CanaryDeploy | EcsCommand::TaskArnCanaryDeploy => EcsAction::EcsCanaryDeploy {
            instances: data.maybe_count("desiredCountOverride")?.map(TaskCount::Count),
            // The manager has deleted the canaries of earlier runs, or expects it to be done now.
            replace_existing: true,
        },
        EcsCommand::CanaryDelete => EcsAction::EcsCanaryDelete {},
        EcsCommand::RunTask | EcsCommand::RunTaskArn => {
            let request =
                document(cx, data, "ecsRunTaskRequestDefinitionManifestContent", "run task request")?;
            let missing = || {
                Fault::shape(
                    &data.at("ecsRunTaskRequestDefinitionManifestContent"),
                    "is missing; expected the request of RunTask",
                )
            };
            let shape = RunTaskShape::Run {
                task: task_definition(cx, data)?,
                request: request.ok_or_else(missing)?,
                wait_until_stopped: true,
                skip_steady_state_check: data.flag("skipSteadyStateCheck")?,
                overrides: None,
                network_from_service: None,
                stop_on_abort: true,
            };
            EcsAction::EcsRunTask { shape: Box::new(shape) }
        }
        EcsCommand::PrepareRollbackData => prepare(EcsStrategy::Rolling),
        EcsCommand::BlueGreenPrepareRollbackData => {
            prepare(EcsStrategy::BlueGreen { routes: routes(cx, data)? })
        }
        EcsCommand::BasicPrepareRollback => prepare(EcsStrategy::Phased),
        EcsCommand::BlueGreenCreateService | EcsCommand::TaskArnBlueGreenCreateService => {
            EcsAction::EcsBlueGreenCreateService {
                routes: routes(cx, data)?,
                same_as_already_running_instances: data.flag("sameAsAlreadyRunningInstances")?,
                enable_auto_scaling_in_swap_step: data.flag("enableAutoScalingInSwapStep")?,
                update_green_service: data.flag("updateGreenService")?,
                traffic_shift: false,
            }
        }
        EcsCommand::BlueGreenSwapTargetGroups => EcsAction::EcsBlueGreenSwapTargetGroups {
            do_not_downsize_old_service: data.flag("doNotDownsizeOldService")?,
            downsize_old_service_delay_ms: u64::from(
                data.maybe_count("downsizeOldServiceDelayInSecs")?.unwrap_or(0),
            ) * 1000,
        },
        EcsCommand::BlueGreenRollback => EcsAction::EcsBlueGreenRollback {},
        EcsCommand::ServiceSetup => EcsAction::EcsServiceSetup {
            resize_strategy: resize(data)?,
            same_as_already_running_instances: data.flag("sameAsAlreadyRunningInstances")?,
        },
        EcsCommand::UpgradeContainer => {
            let (new, old) = (data.object("newServiceData")?, data.maybe("oldServiceData")?);
            let new_instances = count(&new)?.ok_or_else(|| {
                Fault::shape(&new.at("instanceCount"), "is missing; expected the size of the new service")
            })?;
            // Without a unit of its own the old service keeps what the new one leaves.
            let told = old.filter(|old| old.has("instanceUnitType"));
            EcsAction::EcsUpgradeContainer {
                new_instances,
                downsize_old: told.map(|old| count(&old)).transpose()?.flatten(),
            }
        }
        EcsCommand::BasicRollback => EcsAction::EcsBasicRollback {},
    })
}

fn prepare(strategy: EcsStrategy) -> EcsAction {
    EcsAction::EcsPrepareRollback { strategy }
}

fn resize(data: &View<'_>) -> Result<ResizeStrategy, Fault> {
    match data.maybe_str("resizeStrategy")? {
        Some(_) => data.word("resizeStrategy", &RESIZE),
        None => Ok(ResizeStrategy::default()),
    }
}

/// How many tasks one of the services is to have (`instanceCount` of `instanceUnitType`).
fn count(service: &View<'_>) -> Result<Option<TaskCount>, Fault> {
    let Some(number) = service.maybe_count("instanceCount")? else { return Ok(None) };
    let percent = match service.maybe_str("instanceUnitType")? {
        Some(_) => service.word("instanceUnitType", &[("Percentage", true), ("Count", false)])?,
        None => false,
    };
    Ok(Some(if percent { TaskCount::Percentage(number) } else { TaskCount::Count(number) }))
}

/// Listeners and rules of both colours (`ecsLoadBalancerConfig`).
fn routes(cx: &Cx<'_>, data: &View<'_>) -> Result<BlueGreenRoutes, Fault> {
    let config = data.object("ecsLoadBalancerConfig")?;
    let stage = cx.maybe_plain(&config, "stageListenerArn")?.ok_or_else(|| {
        Fault::unsupported(
            "a blue-green deployment without a stage listener, whose traffic is shifted by weights",
        )
    })?;
    Ok(BlueGreenRoutes {
        load_balancer: cx.plain(&config, "loadBalancer")?,
        prod_listener: cx.plain(&config, "prodListenerArn")?,
        prod_listener_rule_arn: cx.maybe_plain(&config, "prodListenerRuleArn")?,
        stage_listener: Some(stage),
        stage_listener_rule_arn: cx.maybe_plain(&config, "stageListenerRuleArn")?,
        stage_target_group_arn: None,
    })
}

/// A document that came as text; secrets may stand in it.
fn document(
    cx: &mut Cx<'_>,
    data: &View<'_>,
    key: &str,
    identifier: &str,
) -> Result<Option<EcsDocument>, Fault> {
    let content = cx.maybe_text(data, key)?;
    Ok(content.map(|content| of_text(identifier, content)))
}

fn of_text(identifier: &str, content: Text) -> EcsDocument {
    let path = format!("{}.yaml", identifier.replace(' ', "-"));
    EcsDocument::File { identifier: identifier.to_owned(), store: FileStore::Inline { path, content } }
}

fn documents(
    cx: &mut Cx<'_>,
    data: &View<'_>,
    key: &str,
    identifier: &str,
) -> Result<Vec<EcsDocument>, Fault> {
    let mut all = Vec::new();
    for (path, text) in data.strs(key)? {
        if !text.trim().is_empty() {
            all.push(of_text(identifier, cx.secrets.text(&path, text)?));
        }
    }
    Ok(all)
}

/// Which of the names of a key the package has. Phased commands leave the prefix out.
fn key<'k>(data: &View<'_>, names: &[&'k str]) -> &'k str {
    names.iter().find(|name| data.has(name)).or(names.first()).copied().unwrap_or_default()
}

/// The service definition of a package.
const SERVICE: [&str; 2] = ["ecsServiceDefinitionManifestContent", "serviceDefinitionManifestContent"];

fn task_definition(cx: &mut Cx<'_>, data: &View<'_>) -> Result<Option<TaskDefinition>, Fault> {
    let names = ["ecsTaskDefinitionArn", "ecsTaskDefinition", "taskDefinitionArn"];
    let arn = cx.maybe_plain(data, key(data, &names))?;
    let names = ["ecsTaskDefinitionManifestContent", "taskDefinitionManifestContent"];
    let document = document(cx, data, key(data, &names), "task definition")?;
    Ok((arn.is_some() || document.is_some()).then_some(TaskDefinition { arn, document }))
}

/// The service definition. The manager has put a word of its own where the target group of the stage goes, and says which.
fn service(cx: &mut Cx<'_>, data: &View<'_>) -> Result<Option<EcsDocument>, Fault> {
    let Some(Text(mut content)) = cx.maybe_text(data, key(data, &SERVICE))? else { return Ok(None) };
    if let Some(word) = data.maybe_str("targetGroupArnKey")? {
        content = content.replace(word, TARGET_GROUP);
    }
    Ok(Some(of_text("service definition", Text(content))))
}

fn definitions(cx: &mut Cx<'_>, data: &View<'_>) -> Result<EcsDefinitions, Fault> {
    let targets = ["ecsScalableTargetManifestContentList", "scalableTargetManifestContentList"];
    let policies = ["ecsScalingPolicyManifestContentList", "scalingPolicyManifestContentList"];
    Ok(EcsDefinitions {
        task: task_definition(cx, data)?,
        service: service(cx, data)?,
        scalable_targets: documents(cx, data, key(data, &targets), "scalable target")?,
        scaling_policies: documents(cx, data, key(data, &policies), "scaling policy")?,
    })
}
