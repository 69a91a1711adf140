//! Every login over SSH that a task may make.

use super::{
    ConnectorTestSpec, EcsAction, EcsDocument, EcsSpec, FileStore, HttpAuth, HttpConnector, KubernetesAction,
    KubernetesSpec, RunTaskShape, SshTarget, StepSpec, StepTask,
};

impl StepTask {
    /// The host of the step and the Git repositories behind sshd that it reads. Whoever has a say about host keys has it
    /// about all of them.
    pub fn logins_mut(&mut self) -> Vec<&mut SshTarget> {
        let mut all: Vec<&mut SshTarget> =
            self.config_files.iter_mut().filter_map(|file| of_store(&mut file.store)).collect();
        match &mut self.step.spec {
            StepSpec::Command(command) => all.extend(&mut command.target),
            StepSpec::Kubernetes(kubernetes) => all.extend(of_kubernetes(kubernetes)),
            StepSpec::Ecs(ecs) => all.extend(of_ecs(ecs)),
            StepSpec::ConnectorTest(ConnectorTestSpec::Ssh(target)) => all.push(target),
            StepSpec::ConnectorTest(ConnectorTestSpec::Git(connector)) => all.extend(of_connector(connector)),
            StepSpec::ConnectorTest(_)
            | StepSpec::Http(_)
            | StepSpec::Verify(_)
            | StepSpec::ShellScript(_)
            | StepSpec::ResolveArtifact(_)
            | StepSpec::Noop(_)
            | StepSpec::Unknown { .. } => {}
        }
        all
    }
}

fn of_kubernetes(spec: &mut KubernetesSpec) -> impl Iterator<Item = &mut SshTarget> {
    let manifest = spec.manifest.as_mut().and_then(|manifest| manifest.store.as_mut());
    let patch = match &mut spec.action {
        KubernetesAction::K8sPatch { source, .. } => Some(source),
        _ => None,
    };
    manifest.into_iter().chain(&mut spec.overrides).chain(patch).filter_map(of_store)
}

fn of_ecs(spec: &mut EcsSpec) -> impl Iterator<Item = &mut SshTarget> {
    let definitions = &mut spec.definitions;
    let task = definitions.task.as_mut().and_then(|task| task.document.as_mut());
    let own = match &mut spec.action {
        EcsAction::EcsRunTask { shape } => match &mut **shape {
            RunTaskShape::Run { task, request, .. } => {
                vec![task.as_mut().and_then(|task| task.document.as_mut()), Some(request)]
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    let documents = task.into_iter().chain(&mut definitions.service).chain(&mut definitions.scalable_targets);
    let documents = documents.chain(&mut definitions.scaling_policies).chain(own.into_iter().flatten());
    documents.filter_map(|document| match document {
        EcsDocument::File { store, .. } => of_store(store),
        EcsDocument::Value { .. } => None,
    })
}

fn of_store(store: &mut FileStore) -> Option<&mut SshTarget> {
    match store {
        FileStore::Git(source) => of_connector(&mut source.connector),
        FileStore::Inline { .. } => None,
    }
}

fn of_connector(connector: &mut HttpConnector) -> Option<&mut SshTarget> {
    match &mut connector.auth {
        HttpAuth::Ssh(target) => Some(target),
        HttpAuth::Anonymous | HttpAuth::UsernamePassword { .. } | HttpAuth::Bearer { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{HostKeyMode, Step};
    use serde_json::{Value, json};

    fn host(name: &str) -> Value {
        json!({"host": name, "port": 22, "user": "git", "credential": {"type": "Key", "key": "k"}})
    }

    fn store(name: &str) -> Value {
        let connector = json!({"identifier": name, "url": format!("ssh://{name}/x"), "auth": {"type": "Ssh", "host": name,
            "port": 22, "user": "git", "credential": {"type": "Key", "key": "k"}}});
        json!({"type": "Git", "spec": {"connector": connector, "reference": {"type": "Branch", "value": "main"}, "paths": ["a"]}})
    }

    fn found(kind: &str, spec: Value, files: Value) -> Vec<String> {
        let step: Step =
            serde_json::from_value(json!({"type": kind, "identifier": "s", "name": "s", "spec": spec}))
                .unwrap();
        assert!(!matches!(step.spec, StepSpec::Unknown { .. }), "{:?}", step.spec);
        let mut task =
            StepTask { config_files: serde_json::from_value(files).unwrap(), ..StepTask::of(step) };
        task.logins_mut().into_iter().for_each(|login| login.host_keys.mode = HostKeyMode::Strict);
        let mut again = task.clone();
        assert!(again.logins_mut().iter().all(|login| login.host_keys.mode == HostKeyMode::Strict));
        again.logins_mut().iter().map(|login| login.host.clone()).collect()
    }

    #[test]
    fn hosts_and_repositories_are_found_wherever_they_stand() {
        let files = json!([{"identifier": "f", "store": store("files")}, {"identifier": "g", "store": {"type": "Inline",
            "spec": {"path": "p", "content": "c"}}}]);
        let command = json!({"target": host("h1"), "units": [], "outputVariables": []});
        assert_eq!(found("Command", command, files), ["files", "h1"]);
        let cluster =
            json!({"connector": "c", "credential": {"type": "InheritFromDelegate", "context": null}});
        let manifest = json!({"identifier": "m", "store": store("manifest"),
            "kind": {"type": "K8sManifest", "valuesPaths": []}, "skipVersioning": false});
        let patch = json!({"do": "K8sPatch", "workload": "Deployment/web", "mergeStrategy": "Merge", "source": store("patch"),
            "skipSteadyStateCheck": false, "recordChangeCause": false});
        let spec = json!({"cluster": cluster, "namespace": "n", "releaseName": "r", "manifest": manifest,
            "overrides": [store("override")], "commandFlags": [], "action": patch});
        assert_eq!(found("K8sPatch", spec, json!([])), ["manifest", "override", "patch"]);
        let test =
            |kind: &str, spec: Value| found("ConnectorTest", json!({"type": kind, "spec": spec}), json!([]));
        assert_eq!(test("Ssh", host("h2")), ["h2"]);
        assert_eq!(test("Git", store("repository")["spec"]["connector"].clone()), ["repository"]);
    }
}
