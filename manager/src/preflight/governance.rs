//! Policy sets of type Pipeline with the action `onrun`: a run that they deny never begins.

use super::{Prepared, Refusal};
use crate::app::App;
use crate::policy::{Status, select_for, step};
use pipeline::fault::{Fault, Place};
use pipeline::model::policy::SetAction;
use pipeline::yaml::parse_documents;
use proto::failure::Failure;
use serde_json::{Value as Json, json};

/// Asks the sets that judge the run. What they warn of is given back.
///
/// **Errors**: [`Refusal::Invalid`] with the messages, also when a set cannot be asked: a gate does not open by mistake.
pub(super) async fn judge(app: &App, prepared: &Prepared) -> Result<Vec<String>, Refusal> {
    let refused = |failure: Failure| {
        let message = format!("{}: the run is refused: {}", failure.code, failure.message);
        let fault = Fault::at(&Place::start(&prepared.source), "pipeline", message);
        Refusal::Invalid(vec![fault.suggest(failure.hint)])
    };
    let asked = select_for(&prepared.catalog, &prepared.entity.scope, SetAction::OnRun)
        .map_err(|error| refused(step::not_selected(&error)))?;
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let input = input(prepared).map_err(Refusal::Invalid)?;
    let verdict = app
        .judges
        .judge(asked, input, prepared.options.started_at)
        .await
        .map_err(|error| refused(step::not_judged(&error)))?;
    match step::refusal(&verdict) {
        Some(failure) => Err(refused(failure)),
        None => Ok(verdict.lines(Status::Warning)),
    }
}

/// The pipeline as it runs, with the inputs in the place of `<+input>`, and who runs it.
fn input(prepared: &Prepared) -> Result<Json, Vec<Fault>> {
    let documents = parse_documents(&prepared.source, &prepared.entity.yaml)?;
    let mut document = documents.first().map_or(Json::Null, |document| document.to_json());
    if let Some(Json::Array(variables)) = document.pointer_mut("/pipeline/variables") {
        for variable in variables {
            let planned =
                prepared.plan.variables.iter().find(|planned| variable["name"] == planned.name.as_str());
            if let (Some(planned), Some(variable)) = (planned, variable.as_object_mut()) {
                variable.insert("value".to_owned(), planned.value.value.clone());
            }
        }
    }
    let metadata = json!({
        "user": { "identifier": prepared.options.started_by },
        "timestamp": prepared.options.started_at,
    });
    Ok(json!({ "pipeline": document.get("pipeline"), "metadata": metadata }))
}
