//! The typed document of ECS steps.

use super::build::{Builder, bad_field, bug};
use super::earlier_ecs::{Undone, must_be_known, undo_data};
use super::ecs_documents::{context, definitions, document, resolved_map, task_definition};
use crate::connection;
use crate::model::connector::ConnectorSpec;
use crate::model::ecs::{
    EcsAction, EcsStep, NativeDeploy, OwnPlace, Routes, RunTaskShape, Shift, Until, gate_minutes,
    unrecognised,
};
use crate::model::step::Spec;
use crate::model::step_k8s::InstanceSelection;
use crate::model::{Field, Variable};
use crate::plan::NodeKind;
use proto::failure::{Failure, FailureKind};
use proto::task::{
    AwsAccount, BlueGreenRoutes, ContinueUntil, EcsDefinitions, EcsDocument, EcsSpec, ResizeStrategy,
    TaskCount, TrafficShift,
};
use proto::text::Text;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Where a step works, and what it says itself.
struct Place {
    account: AwsAccount,
    cluster: String,
    namespace: Option<String>,
}

/// Resolves an ECS step.
pub(super) fn build(builder: &mut Builder<'_>, step: &EcsStep) -> Result<EcsSpec, Box<Failure>> {
    let undone = match &step.action {
        EcsAction::EcsUndo { of, .. } => Undone::find(builder, of),
        _ => None,
    };
    let place = match &undone {
        Some(undone) => builder.in_place_of(undone, |builder| {
            let own = undone.own_place(builder)?;
            place(builder, &own)
        })?,
        None => place(builder, &step.place)?,
    };
    let Place { account, cluster, namespace } = place;
    let definitions = definitions(builder, &step.action)?;
    let variables = load_balancer_variables(builder)?;
    let action = action(builder, &step.action, &definitions)?;
    let is_file = |document: &EcsDocument| matches!(document, EcsDocument::File { .. });
    let mut documents: Vec<&EcsDocument> =
        definitions.task.iter().filter_map(|t| t.document.as_ref()).collect();
    documents.extend(definitions.service.iter().chain(&definitions.scalable_targets));
    documents.extend(&definitions.scaling_policies);
    if let proto::task::EcsAction::EcsRunTask { shape } = &action
        && let proto::task::RunTaskShape::Run { task, request, .. } = &**shape
    {
        documents.extend(task.iter().filter_map(|task| task.document.as_ref()).chain([request]));
    }
    let context = match documents.into_iter().any(is_file) {
        true => context(builder)?,
        false => Json::Null,
    };
    Ok(EcsSpec {
        account,
        cluster,
        definitions,
        current_task_definition: super::earlier_ecs::current_task_definition(builder),
        earlier: super::earlier_ecs::earlier(builder),
        variables,
        namespace,
        strict: builder.plan.run.mode == crate::fault::Mode::Strict,
        context,
        action,
    })
}

pub(super) fn incomplete(text: &str) -> Box<Failure> {
    Box::new(Failure::new(FailureKind::BadSpec, "PIPE-050", text))
}

// --- where ---

fn place(builder: &mut Builder<'_>, own: &OwnPlace) -> Result<Place, Box<Failure>> {
    let infrastructure = builder.target().map(|target| &target.infrastructure);
    let infrastructure = infrastructure.filter(|infrastructure| infrastructure.kind == "ECS");
    let of_stage = |field: fn(&crate::plan::InfrastructurePlan) -> &Option<Field>| {
        infrastructure.and_then(|infrastructure| field(infrastructure).as_ref())
    };
    let connector = own.connector.as_ref().or(of_stage(|i| &i.connector_field));
    let region = own.region.as_ref().or(of_stage(|i| &i.region));
    let cluster = own.cluster.as_ref().or(of_stage(|i| &i.cluster));
    let (Some(connector), Some(region), Some(cluster)) = (connector, region, cluster) else {
        let text = "the stage has no infrastructure of type ECS, and the step does not name `connectorRef`, `region` and `cluster` itself";
        return Err(incomplete(text));
    };
    let region = named(builder, region, "region")?;
    let account = builder.aws(connector, Some(&region))?;
    let cluster = named(builder, cluster, "cluster")?;
    let namespace = match infrastructure.and_then(|infrastructure| infrastructure.namespace.as_ref()) {
        Some(field) => Some(builder.strict(field)?).filter(|text| !text.trim().is_empty()),
        None => None,
    };
    Ok(Place { account, cluster, namespace })
}

/// A name that nothing works without.
fn named(builder: &Builder<'_>, field: &Field, what: &str) -> Result<String, Box<Failure>> {
    let text = builder.strict(field)?;
    let text = text.trim();
    match text.is_empty() || text.chars().any(char::is_whitespace) {
        true => Err(bad_field(field, format!("`{text}` is no {what}"))),
        false => Ok(text.to_owned()),
    }
}

impl Builder<'_> {
    /// The account of an `Aws` connector; its region when no other is given.
    pub(crate) fn aws(&mut self, field: &Field, region: Option<&str>) -> Result<AwsAccount, Box<Failure>> {
        let connector = self.use_connector(field)?;
        let ConnectorSpec::Aws { account } = &connector.spec else {
            let text = format!("the connector `{}` is of another type; expected Aws", connector.identifier);
            return Err(bad_field(field, text));
        };
        let region = match (region, &account.region) {
            (Some(region), _) => region.to_owned(),
            (None, Some(own)) => self.strict(own)?,
            (None, None) => {
                let text = format!(
                    "nothing says the region: write `region` beside `connectorRef`, or in the connector `{}`",
                    connector.identifier
                );
                return Err(bad_field(field, text));
            }
        };
        connection::aws(self, &connector.identifier, account, &region)
    }

    /// The region of the stage's infrastructure.
    pub(super) fn stage_region(&self) -> Result<Option<String>, Box<Failure>> {
        let field = self.target().and_then(|target| target.infrastructure.region.as_ref());
        self.optional(field)
    }
}

/// `ecs_bg_listener_rule_arn` and the like: service variables that name parts of a load balancer (rule R9).
fn load_balancer_variables(builder: &Builder<'_>) -> Result<BTreeMap<String, String>, Box<Failure>> {
    let mut all = BTreeMap::new();
    let Some(target) = builder.target() else { return Ok(all) };
    let wanted = |variable: &&Variable| variable.name.starts_with("ecs_bg_");
    for variable in target.service.definition.variables.iter().filter(wanted) {
        let Text(text) = builder.variable("serviceVariables", variable)?;
        if !text.trim().is_empty() {
            all.insert(variable.name.clone(), text.trim().to_owned());
        }
    }
    Ok(all)
}

// --- the action ---

fn number(builder: &Builder<'_>, field: &Field, least: u32, most: u32) -> Result<u32, Box<Failure>> {
    let text = builder.strict(field)?;
    let number = text.trim().parse::<u32>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        let range = if most == u32::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
        bad_field(field, format!("expected a whole number, {range}; found `{text}`"))
    })
}

fn count(
    builder: &Builder<'_>,
    selection: &InstanceSelection,
    least: u32,
) -> Result<TaskCount, Box<Failure>> {
    Ok(match selection {
        InstanceSelection::Count(field) => TaskCount::Count(number(builder, field, least, u32::MAX)?),
        InstanceSelection::Percentage(field) => TaskCount::Percentage(number(builder, field, least, 100)?),
    })
}

/// An optional text; an empty one counts as none.
fn text(builder: &Builder<'_>, field: &Option<Field>) -> Result<Option<String>, Box<Failure>> {
    let text = builder.optional(field.as_ref())?.map(|text| text.trim().to_owned());
    Ok(text.filter(|text| !text.is_empty()))
}

fn routes(builder: &Builder<'_>, routes: &Routes) -> Result<BlueGreenRoutes, Box<Failure>> {
    Ok(BlueGreenRoutes {
        load_balancer: builder.strict(&routes.load_balancer)?,
        prod_listener: builder.strict(&routes.prod_listener)?,
        prod_listener_rule_arn: text(builder, &routes.prod_listener_rule_arn)?,
        stage_listener: text(builder, &routes.stage_listener)?,
        stage_listener_rule_arn: text(builder, &routes.stage_listener_rule_arn)?,
        stage_target_group_arn: text(builder, &routes.stage_target_group_arn)?,
    })
}

fn shift(builder: &Builder<'_>, shift: &Shift) -> Result<TrafficShift, Box<Failure>> {
    Ok(match shift {
        Shift::Inherit { weight } => {
            TrafficShift::Inherit { weight_percentage: number(builder, weight, 0, 100)? }
        }
        Shift::Standalone { load_balancer, listener, listener_rule_arn, forward } => {
            let mut tuples = Vec::new();
            for (group, weight) in forward {
                tuples.push((builder.strict(group)?, number(builder, weight, 0, 999)?));
            }
            TrafficShift::Standalone {
                load_balancer: builder.strict(load_balancer)?,
                listener: builder.strict(listener)?,
                listener_rule_arn: text(builder, listener_rule_arn)?,
                forward: tuples,
            }
        }
    })
}

fn native(builder: &Builder<'_>, own: &NativeDeploy) -> Result<proto::task::NativeDeploy, Box<Failure>> {
    let mut gates = Vec::new();
    for gate in &own.gates {
        gates.push(builder.strict(gate)?.trim().to_ascii_uppercase());
    }
    let gate_timeout_minutes = match &own.gate_timeout {
        Some(field) => {
            let text = builder.strict(field)?;
            let wrong = || bad_field(field, format!("expected a duration from 1m to 14d; found `{text}`"));
            Some(gate_minutes(&text).ok_or_else(wrong)?)
        }
        None => None,
    };
    Ok(proto::task::NativeDeploy { required: own.required, gates, gate_timeout_minutes })
}

fn action(
    builder: &mut Builder<'_>,
    action: &EcsAction,
    definitions: &EcsDefinitions,
) -> Result<proto::task::EcsAction, Box<Failure>> {
    use proto::task::EcsAction as Made;
    Ok(match action {
        EcsAction::EcsRollingDeploy {
            same_as_already_running_instances,
            force_new_deployment,
            skip_steady_state_check,
            native: own,
        } => Made::EcsRollingDeploy {
            same_as_already_running_instances: *same_as_already_running_instances,
            force_new_deployment: *force_new_deployment,
            skip_steady_state_check: *skip_steady_state_check,
            native: native(builder, own)?,
        },
        EcsAction::EcsContinueDeployment { until } => Made::EcsContinueDeployment {
            until: match until {
                Until::NextPause => ContinueUntil::NextPause,
                Until::Weight(weight) => ContinueUntil::Weight { percent: number(builder, weight, 1, 100)? },
                Until::End => ContinueUntil::End,
            },
        },
        EcsAction::EcsRollingRollback { skip_steady_state_check } => {
            Made::EcsRollingRollback { skip_steady_state_check: *skip_steady_state_check }
        }
        EcsAction::EcsCanaryDeploy { instances, replace_existing } => Made::EcsCanaryDeploy {
            instances: instances.as_ref().map(|own| count(builder, own, 1)).transpose()?,
            replace_existing: *replace_existing,
        },
        EcsAction::EcsCanaryDelete {} => Made::EcsCanaryDelete {},
        EcsAction::EcsBlueGreenCreateService {
            routes: own,
            same_as_already_running_instances,
            enable_auto_scaling_in_swap_step,
            update_green_service,
            traffic_shift,
        } => Made::EcsBlueGreenCreateService {
            routes: routes(builder, own)?,
            same_as_already_running_instances: *same_as_already_running_instances,
            enable_auto_scaling_in_swap_step: *enable_auto_scaling_in_swap_step,
            update_green_service: *update_green_service,
            traffic_shift: *traffic_shift,
        },
        EcsAction::EcsBlueGreenSwapTargetGroups {
            do_not_downsize_old_service,
            downsize_old_service_delay_in_secs,
        } => {
            let delay = downsize_old_service_delay_in_secs.as_ref();
            let seconds = delay.map(|field| number(builder, field, 0, 86_400)).transpose()?.unwrap_or(0);
            Made::EcsBlueGreenSwapTargetGroups {
                do_not_downsize_old_service: *do_not_downsize_old_service,
                downsize_old_service_delay_ms: u64::from(seconds) * 1_000,
            }
        }
        EcsAction::EcsBlueGreenTrafficShift { shift: own } => {
            Made::EcsBlueGreenTrafficShift { shift: shift(builder, own)? }
        }
        EcsAction::EcsBlueGreenRollback {} => Made::EcsBlueGreenRollback {},
        EcsAction::StandAloneTrafficShiftRollback {} => Made::StandAloneTrafficShiftRollback {},
        EcsAction::EcsServiceSetup { downsize_old_first, same_as_already_running_instances } => {
            Made::EcsServiceSetup {
                resize_strategy: match downsize_old_first {
                    true => ResizeStrategy::DownsizeOldFirst,
                    false => ResizeStrategy::ResizeNewFirst,
                },
                same_as_already_running_instances: *same_as_already_running_instances,
            }
        }
        EcsAction::EcsUpgradeContainer { new_instances, downsize_old } => Made::EcsUpgradeContainer {
            new_instances: count(builder, new_instances, 0)?,
            downsize_old: downsize_old.as_ref().map(|own| count(builder, own, 0)).transpose()?,
        },
        EcsAction::EcsBasicRollback {} => Made::EcsBasicRollback {},
        EcsAction::EcsScale { service, instances, skip_steady_state_check } => Made::EcsScale {
            service: named(builder, service, "name of a service")?,
            instances: count(builder, instances, 0)?,
            skip_steady_state_check: *skip_steady_state_check,
        },
        EcsAction::EcsRunTask { shape } => {
            Made::EcsRunTask { shape: Box::new(self::shape(builder, shape, definitions)?) }
        }
        EcsAction::EcsUndo { step, kind, of } => {
            must_be_known(builder, of)?;
            // The postfix of its iteration belongs to the identifier of what is undone.
            let step = Undone::find(builder, of).map_or_else(|| step.clone(), |undone| undone.identifier);
            Made::EcsUndo { step, kind: kind.clone() }
        }
    })
}

fn shape(
    builder: &mut Builder<'_>,
    shape: &RunTaskShape,
    definitions: &EcsDefinitions,
) -> Result<proto::task::RunTaskShape, Box<Failure>> {
    use proto::task::RunTaskShape as Made;
    let of = match builder.node() {
        Some(node) => format!("step {}", node.identifier),
        None => return Err(bug("the step has no node")),
    };
    let parts = |builder: &mut Builder<'_>, field: &Field| -> Result<EcsDocument, Box<Failure>> {
        Ok(EcsDocument::Value {
            place: format!("{of}, taskDefinition"),
            value: resolved_map(builder, field)?,
        })
    };
    Ok(match shape {
        RunTaskShape::Run {
            task,
            request,
            wait_until_stopped,
            skip_steady_state_check,
            overrides,
            network_from_service,
            stop_on_abort,
        } => Made::Run {
            task: task.as_ref().map(|task| task_definition(builder, task, &of)).transpose()?,
            request: document(builder, request, &of)?,
            wait_until_stopped: *wait_until_stopped,
            skip_steady_state_check: *skip_steady_state_check,
            overrides: overrides.as_ref().map(|field| resolved_map(builder, field)).transpose()?,
            network_from_service: text(builder, network_from_service)?,
            stop_on_abort: *stop_on_abort,
        },
        RunTaskShape::Describe { task_definition } => {
            Made::Describe { task_definition: named(builder, task_definition, "task definition")? }
        }
        RunTaskShape::Command { task_definition, command } => Made::Command {
            task_definition: named(builder, task_definition, "task definition")?,
            command: builder.lenient(command)?,
        },
        RunTaskShape::Register { document } => Made::Register { document: parts(builder, document)? },
        RunTaskShape::Green {
            document,
            service,
            launch_type,
            network_configuration,
            desired_count,
            target_group_arn,
        } => Made::Green {
            document: parts(builder, document)?,
            service: named(builder, service, "name of a service")?,
            launch_type: text(builder, launch_type)?,
            network_configuration: network_configuration
                .as_ref()
                .map(|field| resolved_map(builder, field))
                .transpose()?,
            desired_count: desired_count
                .as_ref()
                .map(|field| number(builder, field, 0, u32::MAX))
                .transpose()?,
            target_group_arn: text(builder, target_group_arn)?,
        },
        RunTaskShape::Shift {
            percent,
            listener_rule_arn,
            listener_arn,
            blue_target_group_arn,
            green_target_group_arn,
        } => Made::Shift {
            percent: number(builder, percent, 0, 100)?,
            listener_rule_arn: text(builder, listener_rule_arn)?,
            listener_arn: text(builder, listener_arn)?,
            blue_target_group_arn: text(builder, blue_target_group_arn)?,
            green_target_group_arn: text(builder, green_target_group_arn)?,
        },
        RunTaskShape::Terminate { which } => Made::Terminate { which: which.clone() },
        RunTaskShape::TerminateNamed { words } => {
            let mut names = super::earlier_ecs::service_names(builder);
            if let Some(EcsDocument::Value { value, .. }) = &definitions.service {
                names.extend(value.get("serviceName").and_then(Json::as_str).map(str::to_owned));
            }
            let Some(which) = words.named(names.iter().map(String::as_str)) else {
                let why = format!("its name says neither blue nor green nor {}", names.join(" nor "));
                return Err(incomplete(&unrecognised(&why)));
            };
            Made::Terminate { which: which.to_owned() }
        }
    })
}

/// Undo data for the task of a step that undoes another, beside what [`EcsSpec::earlier`] tells.
pub(super) fn undo(builder: &Builder<'_>, spec: &Spec) -> Option<Json> {
    let Spec::Ecs(step) = spec else { return None };
    let EcsAction::EcsUndo { of, .. } = &step.action else { return None };
    undo_data(builder, of)
}

/// The step of a run, with what was asked for filled in.
pub(super) fn step_of(builder: &Builder<'_>, id: &str) -> Result<Option<EcsStep>, Box<Failure>> {
    let Some(node) = builder.state.runs.get(id).and_then(|run| builder.plan.node(run.node)) else {
        return Ok(None);
    };
    let NodeKind::Step { spec, .. } = &node.kind else { return Ok(None) };
    let filled = match node.asks.is_empty() {
        true => None,
        false => Some(crate::machine::input::filled(builder.state, id, node, spec)?),
    };
    match filled.as_deref().unwrap_or(spec) {
        Spec::Ecs(step) => Ok(Some((**step).clone())),
        _ => Ok(None),
    }
}
