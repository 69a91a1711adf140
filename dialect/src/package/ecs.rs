//! ECS_COMMAND_TASK_NG and its variants, told apart by `ecsCommandType`.
//!
//! Harness cuts a deployment into more tasks than ours has steps: what a rollback needs is found by a task of its own before
//! the deployment, and travels through the manager as text. Commands whose work would have no way back through that text are
//! refused before anything is changed.

use super::aws;
use super::fault::Fault;
use super::secrets::Details;
use super::view::View;
use super::{Cx, step};
use crate::answer::UNDO;
use crate::request::{EcsCommand, Kind};
use proto::task::{
    EcsAction, EcsDefinitions, EcsDocument, EcsEarlier, EcsSpec, EcsUndo, FileStore, Infrastructure,
    RunTaskShape, StepSpec, StepTask, TaskCount, TaskDefinition,
};
use serde_json::{Value, json};

/// What the name of a canary ends with; the manager says it, and means always this.
const CANARY: &str = "Canary";

pub(super) fn read(cx: &mut Cx<'_>, data: &View<'_>) -> Result<StepTask, Fault> {
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
        earlier: earlier(command, data)?,
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
        EcsCommand::PrepareRollbackData
        | EcsCommand::BlueGreenPrepareRollbackData
        | EcsCommand::BlueGreenCreateService
        | EcsCommand::TaskArnBlueGreenCreateService
        | EcsCommand::BlueGreenSwapTargetGroups
        | EcsCommand::BlueGreenRollback
        | EcsCommand::BasicPrepareRollback
        | EcsCommand::ServiceSetup
        | EcsCommand::UpgradeContainer
        | EcsCommand::BasicRollback => {
            return Err(Fault::unsupported(format!("the ECS command {}", command.name())));
        }
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

fn of_text(identifier: &str, content: proto::text::Text) -> EcsDocument {
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

fn task_definition(cx: &mut Cx<'_>, data: &View<'_>) -> Result<Option<TaskDefinition>, Fault> {
    let arn = match cx.maybe_plain(data, "ecsTaskDefinitionArn")? {
        Some(arn) => Some(arn),
        None => cx.maybe_plain(data, "ecsTaskDefinition")?,
    };
    let document = document(cx, data, "ecsTaskDefinitionManifestContent", "task definition")?;
    Ok((arn.is_some() || document.is_some()).then_some(TaskDefinition { arn, document }))
}

fn definitions(cx: &mut Cx<'_>, data: &View<'_>) -> Result<EcsDefinitions, Fault> {
    Ok(EcsDefinitions {
        task: task_definition(cx, data)?,
        service: document(cx, data, "ecsServiceDefinitionManifestContent", "service definition")?,
        scalable_targets: documents(cx, data, "ecsScalableTargetManifestContentList", "scalable target")?,
        scaling_policies: documents(cx, data, "ecsScalingPolicyManifestContentList", "scaling policy")?,
    })
}

/// What earlier tasks left behind, as far as the package says it.
fn earlier(command: EcsCommand, data: &View<'_>) -> Result<EcsEarlier, Fault> {
    let (kind, undo) = match command {
        EcsCommand::RollingRollback => ("EcsRollingDeploy", of_answer(data)?),
        EcsCommand::CanaryDelete => ("EcsCanaryDeploy", canary(data)?),
        _ => return Ok(EcsEarlier::default()),
    };
    let undo = EcsUndo { step: "earlier".to_owned(), kind: kind.to_owned(), succeeded: true, data: undo };
    Ok(EcsEarlier { undo: vec![undo] })
}

/// Undo data of ours, as it comes back. What a Java delegate wrote is told apart before anything is changed.
fn of_answer(data: &View<'_>) -> Result<Value, Fault> {
    let config = data.object("ecsRollingRollbackConfig")?;
    let written = config.maybe_str("createServiceRequestBuilderString")?.unwrap_or_default();
    let foreign = || {
        Fault::spec(
            "the deployment of this stage was prepared by another kind of delegate, whose undo data this agent does not read; nothing was changed",
            "let the delegate that deployed roll back as well: give the rollback step the same delegate selector",
        )
    };
    let packed = written.strip_prefix(UNDO).ok_or_else(foreign)?;
    let place = config.at("createServiceRequestBuilderString");
    serde_json::from_str(packed).map_err(|_| Fault::shape(&place, "holds undo data that is cut off"))
}

/// The canary that a deletion means, in the form of the undo data of its deployment: the package names the service that it
/// stands beside.
fn canary(data: &View<'_>) -> Result<Value, Fault> {
    let key = "ecsServiceDefinitionManifestContent";
    let place = data.at(key);
    let document: Value = serde_saphyr::from_str(data.str(key)?)
        .map_err(|_| Fault::shape(&place, "is no YAML; expected the definition of a service"))?;
    let service = document.get("serviceName").and_then(Value::as_str).map(str::trim).unwrap_or_default();
    if service.is_empty() {
        return Err(Fault::shape(&place, "names no service (serviceName)"));
    }
    Ok(json!({"v": 1, "undo": {"kind": "canary", "service": format!("{service}{CANARY}")}}))
}
