//! What a deployment stage deploys, and where, as written.

use super::pipeline::{GroupChoice, Place, Several, Target};
use super::read::{Field, Reader, is_input};
use crate::fault::Findings;
use crate::yaml::Node;

/// Reads both the current form (`service`, `environment`) and the older one (`serviceConfig`, `infrastructure`).
pub(super) fn read_target(spec: &mut Reader<'_>, findings: &mut Findings) -> Target {
    let mut target = Target { deployment_type: spec.field("deploymentType", findings), ..Target::default() };
    target.group = read_group(spec, findings);
    if spec.flag("gitOpsEnabled", findings) == Some(true) {
        let message = "GitOps stages are not supported: write a stage that deploys by its steps";
        findings.fault(spec.at(), &spec.sub("gitOpsEnabled"), message);
    }
    for key in ["service", "serviceConfig"] {
        let Some(mut service) = spec.map(key, findings) else { continue };
        service.known(&["service"]);
        target.service_from = read_use_from(&mut service, findings).or(target.service_from);
        if let Some(node) = service.node("stageOverrides") {
            let message = "`stageOverrides` is not supported; write what differs under `serviceDefinition`";
            findings.fault(&node.at, &service.sub("stageOverrides"), message);
        }
        let (reference, inline) = read_service_choice(&mut service, findings);
        target.service_ref = reference.or(target.service_ref);
        target.service_inline = inline.or(target.service_inline);
        service.finish(findings);
    }
    if let Some(mut services) = spec.map("services", findings) {
        let parallel = read_metadata(&mut services, findings);
        let path = services.sub("values");
        let mut values = Vec::new();
        for (index, node) in services.list("values", findings).iter().enumerate() {
            let mut service = Reader::new(node, format!("{path}[{index}]"), findings);
            if let Some(from) = read_use_from(&mut service, findings) {
                let message = "`useFromStage` stands under `service`, not in a list of services";
                findings.fault(&from.at, &from.path, message);
            }
            let choice = read_service_choice(&mut service, findings);
            if choice.0.is_none() {
                findings.fault(service.at(), &service.sub("serviceRef"), "`serviceRef` is missing");
            }
            values.push(choice);
            service.finish(findings);
        }
        if values.is_empty() {
            findings.fault(services.at(), &path, "`values` lists nothing");
        }
        services.finish(findings);
        target.services = Some(Several { values, parallel });
    }
    if let Some(mut environment) = spec.map("environment", findings) {
        target.environment_from = read_use_from(&mut environment, findings);
        target.environment_inputs = environment.node("environmentInputs").cloned();
        target.override_inputs = environment.node("serviceOverrideInputs").cloned();
        let mut places = read_places(&mut environment, findings);
        environment.finish(findings);
        match (places.pop(), places.is_empty()) {
            (Some(one), true) if !one.all => {
                target.environment_ref = one.environment_ref;
                target.infrastructure_ref = one.infrastructure_ref;
                target.infrastructure_inline = one.infrastructure_inline;
            }
            (last, _) => {
                places.extend(last);
                target.places = Some(Several { values: places, parallel: false });
            }
        }
    }
    if let Some(mut environments) = spec.map("environments", findings) {
        refuse_filters(&mut environments, findings);
        let parallel = read_metadata(&mut environments, findings);
        let path = environments.sub("values");
        let mut values = Vec::new();
        for (index, node) in environments.list("values", findings).iter().enumerate() {
            let mut environment = Reader::new(node, format!("{path}[{index}]"), findings);
            values.extend(read_places_with_inputs(&mut environment, findings));
            environment.finish(findings);
        }
        if values.is_empty() {
            findings.fault(environments.at(), &path, "`values` lists nothing");
        }
        environments.finish(findings);
        target.places = Some(Several { values, parallel });
    }
    if let Some(mut infrastructure) = spec.map("infrastructure", findings) {
        infrastructure.known(&["environment", "infrastructureKey"]);
        target.environment_from = read_use_from(&mut infrastructure, findings).or(target.environment_from);
        target.simultaneous = infrastructure.flag("allowSimultaneousDeployments", findings);
        target.environment_ref = infrastructure.field("environmentRef", findings).or(target.environment_ref);
        target.infrastructure_ref =
            infrastructure.field("infrastructureRef", findings).or(target.infrastructure_ref);
        let path = infrastructure.sub("infrastructureDefinition");
        if let Some(node) = infrastructure.node("infrastructureDefinition") {
            target.infrastructure_inline = Some((node.clone(), path));
        }
        infrastructure.finish(findings);
    }
    target
}

/// Reference and inline definition of a service.
fn read_service_choice(
    service: &mut Reader<'_>,
    findings: &mut Findings,
) -> (Option<Field>, Option<(Node, String)>) {
    let reference = service.field("serviceRef", findings);
    let mut inline = None;
    for key in ["serviceDefinition", "serviceInputs"] {
        let path = service.sub(key);
        let Some(node) = service.node(key) else { continue };
        // Inputs wrap the definition once more.
        inline = Some(match node.get("serviceDefinition") {
            Some(inner) => (inner.clone(), format!("{path}.serviceDefinition")),
            None => (node.clone(), path),
        });
    }
    (reference, inline)
}

/// `useFromStage.stage`.
fn read_use_from(reader: &mut Reader<'_>, findings: &mut Findings) -> Option<Field> {
    let mut from = reader.map("useFromStage", findings)?;
    let stage = from.required("stage", findings);
    from.finish(findings);
    stage
}

/// A filter that nobody heeds would deploy to more than was meant.
fn refuse_filters(reader: &mut Reader<'_>, findings: &mut Findings) {
    reader.refused("filters", "name the environments and infrastructures that are meant", findings);
    reader.refused("gitOpsClusters", "this version deploys to no GitOps cluster", findings);
    reader.refused("provisioner", "this version provisions nothing", findings);
}

/// One of several environments, with its own inputs for itself and for its overrides of the service.
fn read_places_with_inputs(environment: &mut Reader<'_>, findings: &mut Findings) -> Vec<Place> {
    if let Some(from) = read_use_from(environment, findings) {
        let message = "`useFromStage` stands under `environment`, not in a list of environments";
        findings.fault(&from.at, &from.path, message);
    }
    let environment_inputs = environment.node("environmentInputs").cloned();
    let override_inputs = environment.node("serviceOverrideInputs").cloned();
    let mut places = read_places(environment, findings);
    for place in &mut places {
        place.environment_inputs.clone_from(&environment_inputs);
        place.override_inputs.clone_from(&override_inputs);
    }
    places
}

/// `environmentGroup`.
fn read_group(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<GroupChoice> {
    let mut group = spec.map("environmentGroup", findings)?;
    let reference = group.required("envGroupRef", findings);
    let parallel = read_metadata(&mut group, findings);
    let all = group.text("deployToAll", findings).is_some_and(|text| text.eq_ignore_ascii_case("true"));
    refuse_filters(&mut group, findings);
    let path = group.sub("environments");
    let mut places = Vec::new();
    for (index, node) in group.list("environments", findings).iter().enumerate() {
        let mut environment = Reader::new(node, format!("{path}[{index}]"), findings);
        places.extend(read_places_with_inputs(&mut environment, findings));
        environment.finish(findings);
    }
    if !all && places.is_empty() {
        let message =
            "the stage names no environment of the group: write `deployToAll: true` or `environments`";
        findings.fault(group.at(), &path, message);
    }
    group.finish(findings);
    Some(GroupChoice { reference: reference?, all, places, parallel })
}

/// `metadata.parallel`.
fn read_metadata(reader: &mut Reader<'_>, findings: &mut Findings) -> bool {
    let Some(mut metadata) = reader.map("metadata", findings) else { return false };
    let parallel = metadata.flag("parallel", findings).unwrap_or(false);
    metadata.finish(findings);
    parallel
}

/// An environment once for each of its infrastructures; one without any stands for itself.
fn read_places(environment: &mut Reader<'_>, findings: &mut Findings) -> Vec<Place> {
    refuse_filters(environment, findings);
    let environment_ref = environment.field("environmentRef", findings);
    let all = environment.text("deployToAll", findings).is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let path = environment.sub("infrastructureDefinitions");
    let mut written: Vec<(&Node, String)> = Vec::new();
    match environment.node("infrastructureDefinitions") {
        // `<+input>` that nobody filled is told where inputs are asked for.
        Some(node) if node.as_str().is_some_and(is_input) => {}
        _ => {
            let list = environment.list("infrastructureDefinitions", findings);
            written.extend(list.iter().enumerate().map(|(index, node)| (node, format!("{path}[{index}]"))));
        }
    }
    if written.is_empty() {
        let path = environment.sub("infrastructureDefinition");
        written.extend(environment.node("infrastructureDefinition").map(|node| (node, path)));
    }
    environment.known(&["infrastructureDefinition"]);
    let mut places = Vec::new();
    for (node, path) in written {
        let mut reader = Reader::new(node, path, findings);
        let infrastructure_ref = reader.required("identifier", findings);
        let path = reader.sub("inputs");
        let infrastructure_inline = reader.node("inputs").map(|inputs| (inputs.clone(), path));
        reader.finish(findings);
        places.push(Place {
            environment_ref: environment_ref.clone(),
            infrastructure_ref,
            infrastructure_inline,
            environment_inputs: None,
            override_inputs: None,
            all: false,
        });
    }
    if places.is_empty() {
        places.push(Place { environment_ref, all, ..Place::default() });
    }
    places
}
