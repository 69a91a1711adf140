//! The documents of an ECS step: definitions of the service and of the step itself, and what files may name.

use super::artifact::file_store;
use super::build::{Builder, bad_field, field_value};
use crate::model::ecs::{Document, EcsAction, RunTaskShape, TaskDefinition};
use crate::model::service::Store;
use crate::model::{Field, Variable};
use proto::failure::Failure;
use proto::task::{EcsDefinitions, EcsDocument, FileStore};
use proto::text::Text;
use serde_json::{Map, Value as Json, json};

/// Which definitions of the service an action works with: task, service, scaling.
fn needs(action: &EcsAction) -> (bool, bool, bool) {
    match action {
        EcsAction::EcsRollingDeploy { .. }
        | EcsAction::EcsCanaryDeploy { .. }
        | EcsAction::EcsBlueGreenCreateService { .. }
        | EcsAction::EcsServiceSetup { .. } => (true, true, true),
        EcsAction::EcsBlueGreenSwapTargetGroups { .. }
        | EcsAction::EcsUpgradeContainer { .. }
        | EcsAction::EcsContinueDeployment { .. } => (false, true, true),
        EcsAction::EcsCanaryDelete {} | EcsAction::EcsBlueGreenTrafficShift { .. } => (false, true, false),
        EcsAction::EcsRunTask { shape } => match shape {
            RunTaskShape::Run { task, .. } => (task.is_none(), false, false),
            RunTaskShape::Register { .. } => (true, false, false),
            RunTaskShape::Green { .. } => (true, true, false),
            RunTaskShape::Shift { .. }
            | RunTaskShape::Terminate { .. }
            | RunTaskShape::TerminateNamed { .. } => (false, true, false),
            RunTaskShape::Describe { .. } | RunTaskShape::Command { .. } => (false, false, false),
        },
        // Undo data says everything that is needed, and what cannot be resolved any more must not keep anybody from
        // rolling back.
        EcsAction::EcsRollingRollback { .. }
        | EcsAction::EcsBlueGreenRollback {}
        | EcsAction::StandAloneTrafficShiftRollback {}
        | EcsAction::EcsBasicRollback {}
        | EcsAction::EcsScale { .. }
        | EcsAction::EcsUndo { .. } => (false, false, false),
    }
}

pub(super) fn definitions(
    builder: &mut Builder<'_>,
    action: &EcsAction,
) -> Result<EcsDefinitions, Box<Failure>> {
    let mut made = EcsDefinitions::default();
    let Some(target) = builder.target() else { return Ok(made) };
    let Some(ecs) = &target.service.definition.ecs else { return Ok(made) };
    let (task, service, scaling) = needs(action);
    let of = format!("service {}", target.service.identifier);
    if task && let Some(task) = &ecs.task {
        made.task = Some(task_definition(builder, task, &of)?);
    }
    if service && let Some(document) = &ecs.service {
        made.service = Some(self::document(builder, document, &of)?);
    }
    if scaling {
        for document in &ecs.scalable_targets {
            made.scalable_targets.push(self::document(builder, document, &of)?);
        }
        for document in &ecs.scaling_policies {
            made.scaling_policies.push(self::document(builder, document, &of)?);
        }
    }
    Ok(made)
}

pub(super) fn task_definition(
    builder: &mut Builder<'_>,
    task: &TaskDefinition,
    of: &str,
) -> Result<proto::task::TaskDefinition, Box<Failure>> {
    let arn = builder.optional(task.arn.as_ref())?.map(|arn| arn.trim().to_owned());
    let document = match &task.document {
        Some(document) => Some(self::document(builder, document, of)?),
        None => None,
    };
    Ok(proto::task::TaskDefinition { arn: arn.filter(|arn| !arn.is_empty()), document })
}

/// A document with its expressions resolved, or where its file lies. `of` says whose it is.
pub(super) fn document(
    builder: &mut Builder<'_>,
    document: &Document,
    of: &str,
) -> Result<EcsDocument, Box<Failure>> {
    Ok(match document {
        Document::Value(field) => {
            let key = field.path.rsplit('.').next().unwrap_or_default();
            EcsDocument::Value { place: format!("{of}, {key}"), value: resolved_map(builder, field)? }
        }
        Document::File { identifier, store } => {
            let store = match store {
                // What is deployed must be known: an expression that leads nowhere fails the step.
                Store::Inline { path, content } => {
                    FileStore::Inline { path: builder.strict(path)?, content: Text(builder.strict(content)?) }
                }
                Store::Git { .. } => file_store(builder, store)?,
            };
            EcsDocument::File { identifier: identifier.clone(), store }
        }
    })
}

fn resolved(builder: &Builder<'_>, field: &Field) -> Result<Json, Box<Failure>> {
    field_value(field, &builder.context()).map_err(|error| bad_field(field, error))
}

pub(super) fn resolved_map(builder: &Builder<'_>, field: &Field) -> Result<Json, Box<Failure>> {
    let value = resolved(builder, field)?;
    match value.is_object() {
        true => Ok(value),
        false => Err(bad_field(field, format!("expected a map, found {value}"))),
    }
}

/// What expressions in files may name. Everything in it is resolved; what cannot be is left out, and whoever names it is
/// told so on the agent.
pub(super) fn context(builder: &mut Builder<'_>) -> Result<Json, Box<Failure>> {
    let mut root = Map::new();
    let put = |builder: &Builder<'_>, first: &str, names: &[&str]| {
        let mut values = Map::new();
        for name in names {
            let value = expr::evaluate(&format!("<+{first}.{name}>"), &builder.context());
            if let Some(value) = value.ok().map(|value| value.to_json()).filter(|value| !value.is_null()) {
                values.insert((*name).to_owned(), value);
            }
        }
        values
    };
    let artifact = put(
        builder,
        "artifact",
        &["image", "imagePath", "tag", "digest", "connectorRef", "type", "identifier", "metadata"],
    );
    let mut service = put(builder, "service", &["identifier", "name", "description", "type", "tags"]);
    let mut env = put(builder, "env", &["identifier", "name", "description", "type", "tags"]);
    let infra = put(
        builder,
        "infra",
        &[
            "name",
            "infraIdentifier",
            "identifier",
            "type",
            "connectorRef",
            "region",
            "cluster",
            "namespace",
            "tags",
            "infrastructureKey",
        ],
    );
    let mut stage = put(builder, "stage", &["identifier", "name", "tags"]);
    let mut pipeline = put(
        builder,
        "pipeline",
        &[
            "name",
            "identifier",
            "sequenceId",
            "executionId",
            "executionUrl",
            "triggerType",
            "startTs",
            "tags",
        ],
    );
    for first in ["account", "org", "project"] {
        root.insert(first.to_owned(), Json::Object(put(builder, first, &["identifier", "name"])));
    }
    let variables =
        |builder: &Builder<'_>, first: &str, variables: &[Variable]| -> Result<Json, Box<Failure>> {
            let mut values = Map::new();
            for variable in variables {
                values.insert(variable.name.clone(), json!(builder.variable(first, variable)?.0));
            }
            Ok(Json::Object(values))
        };
    if let Some(target) = builder.target() {
        let own = variables(builder, "serviceVariables", &target.service.definition.variables)?;
        service.insert("variables".to_owned(), own.clone());
        root.insert("serviceVariables".to_owned(), own);
        let own = variables(builder, "env.variables", &target.environment.variables)?;
        env.insert("variables".to_owned(), own);
    }
    if let Some((_, plan)) = builder.plan.stage_of(builder.scope.node) {
        stage.insert("variables".to_owned(), variables(builder, "stage.variables", &plan.variables)?);
    }
    let own = variables(builder, "pipeline.variables", &builder.plan.variables)?;
    pipeline.insert("variables".to_owned(), own);
    // Without an artifact there is nothing to say about it.
    if builder.target().is_some_and(|target| target.service.definition.artifact.is_some()) {
        let artifact = Json::Object(artifact);
        root.insert("artifacts".to_owned(), json!({ "primary": artifact }));
        root.insert("artifact".to_owned(), artifact);
    }
    for (first, values) in
        [("service", service), ("env", env), ("infra", infra), ("stage", stage), ("pipeline", pipeline)]
    {
        root.insert(first.to_owned(), Json::Object(values));
    }
    Ok(Json::Object(root))
}
