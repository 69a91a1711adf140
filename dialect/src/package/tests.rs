//! Packages as a manager would hand them out (`tests/peers/kryo/requests*.json`), what they become, and what is refused.

mod ecs;

use super::*;
use crate::answer::{Agent, answer};
use crate::request::K8sTask;
use proto::result::StepResult;
use proto::task::*;
use secrecy::ExposeSecret;
use serde_json::json;
use std::path::PathBuf;

/// What every encrypted value of the sample packages says.
const SECRET: &str = "s3cr3t-value";

fn samples() -> Vec<Value> {
    let of = |file: &str| -> Vec<Value> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/kryo").join(file);
        let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        all["packages"].as_array().unwrap().clone()
    };
    [of("requests.json"), of("requests-ecs.json")].concat()
}

fn sample(id: &str) -> Value {
    samples().into_iter().find(|package| package["id"] == id).unwrap()
}

fn package(value: &Value) -> TaskPackage {
    TaskPackage::decode(value.to_string().as_bytes()).unwrap()
}

fn decoded(value: &Value) -> Decoded {
    decode(&package(value)).unwrap_or_else(|refused| panic!("{refused:?}"))
}

fn refused(value: &Value) -> Failure {
    let refused = decode(&package(value)).map(|decoded| decoded.task).unwrap_err();
    assert!(!refused.failure.message.contains(SECRET) && refused.failure.hint.is_some());
    refused.failure
}

/// The sample with some places changed, by JSON pointer.
fn with(id: &str, changes: &[(&str, Value)]) -> Value {
    let mut value = sample(id);
    for (pointer, new) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match value.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}")) {
            Value::Object(object) => {
                object.insert(key.to_owned(), new.clone());
            }
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = new.clone(),
            other => panic!("{other}"),
        }
    }
    value
}

/// A record with the same value under another name.
fn record(field: &str) -> Value {
    let mut record = sample("t-cmd")["data"]["sshInfraDelegateConfig"]["encryptionDataDetails"][0].clone();
    record["fieldName"] = field.into();
    record["encryptedData"]["name"] = field.into();
    record
}

fn open<'a>(decoded: &'a Decoded, name: &str) -> &'a str {
    decoded.secrets[&SecretRef(name.to_owned())].expose_secret()
}

/// The text with its placeholders replaced, as the agent does it.
fn revealed(decoded: &Decoded, text: &proto::text::Text) -> String {
    let mut out = text.as_str().to_owned();
    for found in proto::text::placeholders(text.as_str()).into_iter().rev() {
        assert_eq!(found.token, decoded.task.secret_token);
        out.replace_range(found.range, decoded.secrets[&found.secret].expose_secret());
    }
    out
}

#[test]
fn an_http_package_becomes_a_step_that_takes_every_status() {
    let changes = [
        ("/data/body", json!("key=s3cr3t-value")),
        ("/data/@class", json!("io.example.Whatever")),
        ("/data/newerKey", json!({"a": []})),
    ];
    let decoded = decoded(&with("t-http", &changes));
    let StepSpec::Http(spec) = &decoded.task.step.spec else { panic!() };
    assert_eq!((spec.url.as_str(), spec.method.as_str()), ("https://svc.example/health", "GET"));
    assert_eq!((spec.timeout_ms, spec.any_status, &spec.assertion), (Some(30_000), true, &None));
    assert_eq!(spec.headers, [("X-Env".to_owned(), "prod".into())]);
    // A value that came in clear stands in the step as a placeholder.
    let body = spec.body.as_ref().unwrap();
    assert!(!body.as_str().contains(SECRET));
    assert_eq!(revealed(&decoded, body), "key=s3cr3t-value");
    assert_eq!(
        decoded.request.kind,
        Kind::Http { method: "GET".into(), url: "https://svc.example/health".into(), bytes: false }
    );
    let certificate = json!({"certificate": "x", "certificateKey": "y", "keyStoreType": "PEM"});
    assert!(
        refused(&with("t-http", &[("/data/certificateNG", certificate)]))
            .message
            .contains("client certificate")
    );
}

#[test]
fn a_script_package_becomes_a_script_with_its_secrets_as_placeholders() {
    let decoded = decoded(&with("t-shell", &[("/data/secretOutputVars", json!(["KEY"]))]));
    let StepSpec::ShellScript(spec) = &decoded.task.step.spec else { panic!() };
    assert_eq!(revealed(&decoded, &spec.script), "export VERSION=1.4.2\necho s3cr3t-value\n");
    assert!(spec.script.as_str().contains("${ngSecretManager.obtain(\"sec1\", "));
    assert_eq!(open(&decoded, "sec1"), SECRET);
    let variable = |name: &str, secret| OutputVariable { name: name.into(), value: name.into(), secret };
    assert_eq!(spec.output_variables, [variable("VERSION", false), variable("KEY", true)]);
    assert_eq!(decoded.task.env["STAGE"].as_str(), "prod");
    let execution = &decoded.task.execution;
    assert_eq!(
        (execution.execution_id.as_str(), execution.stage.as_str()),
        ("acct1/default/shop/deploy/7", "prod")
    );
    assert_eq!((execution.sequence_id, decoded.task.step.identifier.as_str()), (7, "step1"));
}

#[test]
fn a_script_on_a_host_becomes_a_command_with_one_unit() {
    let infra = sample("t-cmd")["data"]["sshInfraDelegateConfig"].clone();
    let changes = [
        ("/data/executeOnDelegate", json!(false)),
        ("/data/host", json!("10.0.0.21:2222")),
        ("/data/sshKeySpecDTO", infra["sshKeySpecDto"].clone()),
        ("/data/encryptionDetails", infra["encryptionDataDetails"].clone()),
    ];
    let all = decoded(&with("t-shell", &changes));
    let StepSpec::Command(spec) = &all.task.step.spec else { panic!() };
    let target = spec.target.as_ref().unwrap();
    assert_eq!((target.host.as_str(), target.port, target.user.as_str()), ("10.0.0.21", 2222, "deploy"));
    assert_eq!((spec.units.len(), spec.units[0].name.as_str()), (1, "Execute"));
    let failure = refused(&with("t-shell", &changes[..1]));
    assert_eq!(failure.code, "HRN-007");
}

#[test]
fn a_command_package_becomes_units_on_its_host() {
    let changes = [("/data/commandUnits/1/tailFilePatterns", json!([]))];
    let all = decoded(&with("t-cmd", &changes));
    let StepSpec::Command(spec) = &all.task.step.spec else { panic!() };
    let target = spec.target.as_ref().unwrap();
    assert_eq!((target.host.as_str(), target.port, target.user.as_str()), ("10.0.0.21", 22, "deploy"));
    let SshCredential::Key { key, passphrase } = &target.credential;
    assert_eq!((open(&all, &key.0), passphrase), (SECRET, &None));
    let UnitKind::Script { shell, script, working_directory } = &spec.units[0].kind else { panic!() };
    assert_eq!((*shell, script.as_str()), (Shell::Bash, "export BUILD=77\n./deploy.sh"));
    assert_eq!(working_directory.as_ref().unwrap().as_str(), "/opt/shop");
    assert_eq!((spec.units.len(), spec.output_variables[0].name.as_str()), (1, "BUILD"));
    // Our executor's own units go by the names that the manager shows.
    assert_eq!(all.request.unit_name("Init"), "Initialize");
    assert_eq!(all.request.units, ["Initialize", "deploy", "Cleanup"]);
    assert_eq!(all.request.kind, Kind::Command { host: Some("10.0.0.21".into()) });
    let failure = refused(&with("t-cmd", &[("/data/executeOnDelegate", json!(true))]));
    assert_eq!(failure.code, "HRN-004");
    let failure = refused(&with("t-cmd", &[("/data/host", Value::Null)]));
    assert!(failure.hint.unwrap().contains("repeat"), "{}", failure.message);
}

#[test]
fn a_script_whose_files_are_watched_ends_when_they_say_so() {
    let dir = std::env::temp_dir().join(format!("dialect-tail-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (log, other) = (dir.join("it's.log"), dir.join("not there yet.log"));
    std::fs::write(&log, "started before\n").unwrap();
    let pairs = [
        (log.display().to_string(), "started|ready".to_owned()),
        (other.display().to_string(), "^up$".to_owned()),
    ];
    let script = format!(
        "(sleep 0.3; echo now ready >>'{}'; echo up >'{}') & true",
        dir.join("it").display().to_string() + "'\\''s.log",
        other.display()
    );
    let text = super::tail::wrapped(&script, &pairs);
    for shell in ["bash", "dash"] {
        let _gone = std::fs::remove_file(&other);
        std::fs::write(&log, "started before\n").unwrap();
        let ended = std::process::Command::new(shell).args(["-c", &text]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&ended.stdout),
            "now ready\nup\n",
            "{shell}: {}\n{text}",
            String::from_utf8_lossy(&ended.stderr)
        );
        assert!(ended.status.success());
    }
    // A script that fails fails, and what never comes ends the unit.
    let text = super::tail::wrapped("exit 3", &pairs);
    assert_eq!(std::process::Command::new("bash").args(["-c", &text]).status().unwrap().code(), Some(3));
    let text = super::tail::wrapped("true", &pairs).replace("+ 1200", "+ 1");
    let ended = std::process::Command::new("bash").args(["-c", &text]).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("no line of"), "{ended:?}");
    std::fs::remove_dir_all(&dir).unwrap();
}

fn units(units: Value) -> Vec<(&'static str, Value)> {
    vec![("/data/commandUnits", units)]
}

#[test]
fn artifacts_and_config_files_are_read_when_a_unit_wants_them() {
    let artifact = json!({"artifactType": "ARTIFACTORY", "repositoryName": "libs", "artifactPath": "shop/1.4/shop.war", "artifactDirectory": "shop",
        "repositoryFormat": "generic", "identifier": "primary", "encryptedDataDetails": [record("passwordRef")],
        "connectorDTO": {"name": "arti", "identifier": "arti", "type": "Artifactory", "spec": {"artifactoryServerUrl": "https://arti.example/artifactory",
            "auth": {"type": "UsernamePassword", "spec": {"username": "bot", "usernameRef": null, "passwordRef": "account.pw"}}}}});
    let files = json!({"stores": [{"type": "HARNESS", "configFiles": [
        {"fileName": "app.conf", "fileContent": "password=s3cr3t-value", "fileSize": 9, "encrypted": false},
        {"fileName": "key.pem", "fileContent": null, "encrypted": true, "encryptionDataDetails": [record("encryptedConfigFile")],
            "secretConfigFile": {"encryptedConfigFile": "account.key_file"}}]}]});
    let copies = json!([{"name": "war", "commandUnitType": "Copy", "sourceType": "ARTIFACT", "destinationPath": "/opt/"},
        {"name": "conf", "commandUnitType": "Copy", "sourceType": "CONFIG", "destinationPath": "/etc/shop/"},
        {"name": "get", "commandUnitType": "Download Artifact", "destinationPath": "/tmp/"}]);
    let mut changes = units(copies);
    changes.extend([("/data/artifactDelegateConfig", artifact.clone()), ("/data/fileDelegateConfig", files)]);
    let all = decoded(&with("t-cmd", &changes));
    let Artifact { source: ArtifactSource::ArtifactoryRegistry(source), tag, .. } =
        all.task.artifact.as_ref().unwrap()
    else {
        panic!()
    };
    assert_eq!(
        (source.repository.as_str(), source.path.as_str(), tag.as_str()),
        ("libs", "shop/1.4/shop.war", "shop.war")
    );
    let HttpAuth::UsernamePassword { username, password } = &source.connector.auth else { panic!() };
    assert_eq!((username.as_str(), open(&all, &password.0)), ("bot", SECRET));
    let contents: Vec<String> = all
        .task
        .config_files
        .iter()
        .map(|file| {
            let FileStore::Inline { content, .. } = &file.store else { panic!() };
            assert!(!content.as_str().contains(SECRET));
            revealed(&all, content)
        })
        .collect();
    assert_eq!(contents, ["password=s3cr3t-value", SECRET]);
    // Another kind of artifact matters only to who wants it.
    let mut other = artifact;
    other["artifactType"] = "JENKINS".into();
    changes[1].1 = other.clone();
    assert!(refused(&with("t-cmd", &changes)).message.contains("JENKINS"));
    decoded(&with("t-cmd", &[("/data/artifactDelegateConfig", other)]));
}

#[test]
fn logins_that_are_no_keys_are_refused_by_name() {
    let auth = "/data/sshInfraDelegateConfig/sshKeySpecDto/auth";
    for (pointer, value, named) in [
        (format!("{auth}/type"), json!("Kerberos"), "Kerberos"),
        (format!("{auth}/spec/credentialType"), json!("Password"), "Password"),
        (format!("{auth}/spec/credentialType"), json!("KeyPath"), "KeyPath"),
        ("/data/winRmInfraDelegateConfig".to_owned(), json!({}), "WinRM"),
        ("/data/commandUnits/0/commandUnitType".to_owned(), json!("Newest"), "Newest"),
        ("/data/commandUnits/1/scriptType".to_owned(), json!("PYTHON"), "PYTHON"),
    ] {
        let failure = refused(&with("t-cmd", &[(&pointer, value)]));
        assert!(failure.code == "HRN-004" && failure.message.contains(named), "{}", failure.message);
    }
}

fn kubernetes(changes: &[(&str, Value)]) -> (Decoded, KubernetesSpec) {
    let decoded = decoded(&with("t-k8s", changes));
    let StepSpec::Kubernetes(spec) = &decoded.task.step.spec else { panic!() };
    let spec = (**spec).clone();
    (decoded, spec)
}

#[test]
fn a_rolling_package_becomes_a_rolling_step() {
    let (all, spec) = kubernetes(&[
        ("/data/pruningEnabled", json!(true)),
        ("/data/k8sCommandFlags", json!({"Apply": "--force-conflicts", "DELETE": "--wait"})),
    ]);
    assert_eq!((spec.namespace.as_str(), spec.release_name.as_str()), ("prod", "release-1"));
    let ClusterCredential::ServiceAccount { master_url, token, ca } = &spec.cluster.credential else {
        panic!()
    };
    assert_eq!((master_url.as_str(), open(&all, &token.0), ca), ("https://10.0.0.9:6443", SECRET, &None));
    let manifest = spec.manifest.as_ref().unwrap();
    let Some(FileStore::Git(git)) = &manifest.store else { panic!() };
    assert_eq!(
        (git.connector.url.as_str(), &git.paths),
        ("https://git.example/shop.git", &vec!["k8s/".to_owned()])
    );
    assert_eq!(git.reference, GitReference::Branch("main".into()));
    let HttpAuth::UsernamePassword { username, password } = &git.connector.auth else { panic!() };
    assert_eq!((username.as_str(), open(&all, &password.0)), ("bot", SECRET));
    let FileStore::Inline { content, .. } = &spec.overrides[0] else { panic!() };
    assert_eq!(content.as_str(), "replicas: 2\nimage: shop:1.4\n");
    assert_eq!(
        spec.action,
        KubernetesAction::K8sRollingDeploy {
            skip_dry_run: false,
            pruning_enabled: true,
            in_canary_workflow: false
        }
    );
    let flags: Vec<(&str, &str)> =
        spec.command_flags.iter().map(|f| (f.command.as_str(), f.flag.as_str())).collect();
    assert_eq!(flags, [("Apply", "--force-conflicts"), ("Delete", "--wait")]);
    assert_eq!(all.request.units.last().unwrap(), "Prune");
    assert_eq!(
        all.request.kind,
        Kind::Kubernetes { task: Some(K8sTask::Rolling), release: "release-1".into() }
    );
    let infra = all.task.infrastructure.as_ref().unwrap();
    assert_eq!((infra.identifier.as_str(), infra.key.as_str()), ("cl1", "9f3c"));
}

#[test]
fn every_kubernetes_request_becomes_its_step() {
    let of = |task: &str, changes: Value| {
        let mut all = vec![("/data/taskType".to_owned(), Value::from(task))];
        all.extend(
            changes.as_object().unwrap().iter().map(|(key, value)| (format!("/data/{key}"), value.clone())),
        );
        let all: Vec<(&str, Value)> =
            all.iter().map(|(pointer, value)| (pointer.as_str(), value.clone())).collect();
        let (decoded, spec) = kubernetes(&all);
        (decoded, spec.action)
    };
    let (all, action) = of("APPLY", json!({"filePaths": ["a.yaml"], "skipSteadyStateCheck": true}));
    assert_eq!(
        action,
        KubernetesAction::K8sApply {
            file_paths: vec!["a.yaml".into()],
            skip_dry_run: false,
            skip_steady_state_check: true,
            skip_rendering: false
        }
    );
    assert!(!all.request.units.contains(&"Wait for Steady State".to_owned()));
    let (all, action) = of("DEPLOYMENT_ROLLING_ROLLBACK", json!({"releaseNumber": 7}));
    assert_eq!(action, KubernetesAction::K8sRollingRollback { pruning_enabled: false });
    assert_eq!(all.task.undo.unwrap(), json!({"v": 1, "step": "K8sRollingDeploy", "releaseNumber": 7}));
    let (all, _) = of("DEPLOYMENT_ROLLING_ROLLBACK", json!({"releaseNumber": null, "pruningEnabled": true}));
    assert_eq!((all.task.undo, all.request.units[1].as_str()), (None, "Recreate Pruned Resources"));
    for (unit, count, whole, expected) in [
        ("COUNT", 2, json!(null), Instances::Count(2)),
        ("PERCENTAGE", 25, json!(null), Instances::Percentage(25)),
        ("PERCENTAGE", 25, json!(10), Instances::Count(3)),
        ("PERCENTAGE", 1, json!(10), Instances::Count(1)),
        ("PERCENTAGE", 25, json!({"present": true}), Instances::Percentage(25)),
    ] {
        let (_, action) =
            of("CANARY_DEPLOY", json!({"instanceUnitType": unit, "instances": count, "maxInstances": whole}));
        assert_eq!(
            action,
            KubernetesAction::K8sCanaryDeploy {
                instances: expected,
                skip_dry_run: false,
                traffic_routing: None
            }
        );
    }
    let (_, action) =
        of("CANARY_DELETE", json!({"canaryWorkloads": "prod/Deployment/a-canary, prod/Secret/b-canary"}));
    assert_eq!(
        action,
        KubernetesAction::K8sCanaryDelete {
            workloads: vec!["prod/Deployment/a-canary".into(), "prod/Secret/b-canary".into()]
        }
    );
    let (_, action) = of("BLUE_GREEN_DEPLOY", json!({"skipUnchangedManifest": true}));
    assert!(matches!(
        action,
        KubernetesAction::K8sBlueGreenDeploy { skip_unchanged: true, check_only: false, .. }
    ));
    let (_, action) = of("SWAP_SERVICE_SELECTORS", json!({"service1": "shop", "service2": "shop-stage"}));
    assert_eq!(
        action,
        KubernetesAction::K8sBGSwapServices {
            primary_service: "shop".into(),
            stage_service: "shop-stage".into(),
            target_color: None
        }
    );
    let (_, action) = of("BLUE_GREEN_STAGE_SCALE_DOWN", json!({}));
    assert_eq!(action, KubernetesAction::K8sBlueGreenStageScaleDown { delete_resources: false });
    let (_, action) =
        of("SCALE", json!({"workload": "Deployment/shop", "instanceUnitType": "COUNT", "instances": 0}));
    assert_eq!(
        action,
        KubernetesAction::K8sScale {
            workload: "Deployment/shop".into(),
            instances: Instances::Count(0),
            skip_steady_state_check: false
        }
    );
    for (changes, expected) in [
        (json!({"deleteResourcesType": "ReleaseName", "resources": "*"}), Selection::Release),
        (
            json!({"deleteResourcesType": "ResourceName", "resources": "Deployment/a, Service/b"}),
            Selection::Names(vec!["Deployment/a".into(), "Service/b".into()]),
        ),
        (
            json!({"deleteResourcesType": "ManifestPath", "filePaths": "a.yaml,b.yaml"}),
            Selection::Manifests(vec!["a.yaml".into(), "b.yaml".into()]),
        ),
        (json!({"filePaths": "*"}), Selection::Manifests(vec![])),
    ] {
        let (_, action) = of("DELETE", changes);
        assert_eq!(action, KubernetesAction::K8sDelete { resources: expected, delete_namespaces: false });
    }
    assert_eq!(of("DRY_RUN_MANIFEST", json!({})).1, KubernetesAction::K8sDryRun {});
    for (task, named) in
        [("TRAFFIC_ROUTING", "TRAFFIC_ROUTING"), ("INSTANCE_SYNC", "INSTANCE_SYNC"), ("NEWEST", "NEWEST")]
    {
        let failure = refused(&with("t-k8s", &[("/data/taskType", json!(task))]));
        assert!(failure.code == "HRN-004" && failure.message.contains(named), "{}", failure.message);
    }
}

#[test]
fn clusters_are_logged_in_to_as_the_connector_says() {
    let credential = "/data/k8sInfraDelegateConfig/kubernetesClusterConfigDTO/credential";
    let details = "/data/k8sInfraDelegateConfig/encryptionDataDetails";
    let (_, spec) = kubernetes(&[(credential, json!({"type": "InheritFromDelegate", "spec": null}))]);
    assert_eq!(spec.cluster.credential, ClusterCredential::InheritFromDelegate { context: None });
    let auth = format!("{credential}/spec/auth");
    let certificate = json!({"type": "ClientKeyCert", "spec": {"caCertRef": "account.ca", "clientCertRef": "account.cert", "clientKeyRef": "account.key",
        "clientKeyPassphraseRef": null, "clientKeyAlgo": "RSA"}});
    let records = json!([record("caCertRef"), record("clientCertRef"), record("clientKeyRef")]);
    let (all, spec) = kubernetes(&[(&auth, certificate.clone()), (details, records)]);
    let ClusterCredential::ClientKeyCert { client_key, ca: Some(ca), passphrase: None, .. } =
        &spec.cluster.credential
    else {
        panic!()
    };
    assert_eq!((open(&all, &client_key.0), ca.0.as_str()), (SECRET, "account.ca"));
    // The reference stands there, and no record beside it.
    let failure = refused(&with("t-k8s", &[(&auth, certificate)]));
    assert!(failure.code == "HRN-006" && failure.message.contains("account.c"), "{}", failure.message);
    let openid = json!({"type": "OpenIdConnect", "spec": {"oidcIssuerUrl": "https://id.example", "oidcClientIdRef": "c", "oidcUsername": "u", "oidcPasswordRef": "p",
        "oidcSecretRef": null, "oidcScopes": "email"}});
    let (all, spec) = kubernetes(&[
        (&auth, openid),
        (details, json!([record("oidcClientIdRef"), record("oidcPasswordRef")])),
    ]);
    let ClusterCredential::OpenIdConnect { client_id, username, scopes, .. } = &spec.cluster.credential
    else {
        panic!()
    };
    assert_eq!(
        (revealed(&all, client_id).as_str(), username.as_str(), scopes.as_str()),
        (SECRET, "u", "email")
    );
    for (pointer, value, named) in [
        (format!("{auth}/type"), json!("UsernamePassword"), "UsernamePassword"),
        ("/data/serviceHooks".to_owned(), json!([{"identifier": "h"}]), "service hooks"),
        ("/data/trafficRoutingConfig".to_owned(), json!({}), "traffic routing"),
        ("/data/openshiftParamList".to_owned(), json!(["a"]), "OpenShift"),
        (
            "/data/manifestDelegateConfig/manifestType".to_owned(),
            json!("OPENSHIFT_TEMPLATE"),
            "OPENSHIFT_TEMPLATE",
        ),
        ("/data/manifestDelegateConfig/storeDelegateConfig/type".to_owned(), json!("S3_HELM"), "S3_HELM"),
    ] {
        let failure = refused(&with("t-k8s", &[(&pointer, value)]));
        assert!(failure.code == "HRN-004" && failure.message.contains(named), "{}", failure.message);
    }
    for (key, named) in [
        ("gcpConnectorDTO", "GKE"),
        ("awsConnectorDTO", "EKS"),
        ("azureConnectorDTO", "AKS"),
        ("rancherConnectorDTO", "Rancher"),
    ] {
        let infra = json!({"namespace": "prod", key: {}});
        assert!(refused(&with("t-k8s", &[("/data/k8sInfraDelegateConfig", infra)])).message.contains(named));
    }
}

#[test]
fn manifests_come_from_repositories_or_with_the_package() {
    let store = "/data/manifestDelegateConfig/storeDelegateConfig";
    let (all, spec) = kubernetes(&[(
        store,
        json!({"type": "INLINE", "identifier": "m", "files": [{"name": "a.yaml", "content": "k: s3cr3t-value"}]}),
    )]);
    let manifest = spec.manifest.as_ref().unwrap();
    assert_eq!((manifest.identifier.as_str(), &manifest.store), ("m", &None));
    assert_eq!(revealed(&all, &manifest.files[0].content), "k: s3cr3t-value");
    let harness = json!({"type": "HARNESS", "manifestIdentifier": "m", "folder": "/k8s", "manifestFiles": [
        {"fileName": "Chart.yaml", "filePath": "/charts/shop/Chart.yaml", "fileContent": "name: shop"},
        {"fileName": "d.yaml", "filePath": "/charts/shop/templates/d.yaml", "fileContent": "kind: Deployment"}]});
    let (_, spec) = kubernetes(&[(store, harness.clone())]);
    assert_eq!(spec.manifest.unwrap().files[1].path, "charts/shop/templates/d.yaml");
    let (_, spec) = kubernetes(&[
        (store, harness.clone()),
        ("/data/manifestDelegateConfig/manifestType", json!("HELM_CHART")),
        ("/data/manifestDelegateConfig/helmCommandFlag", json!({"valueMap": {"TEMPLATE": "--include-crds"}})),
    ]);
    let ManifestKind::HelmChart { chart_name, .. } = spec.manifest.unwrap().kind else { panic!() };
    assert_eq!((chart_name.as_str(), spec.command_flags[0].command.as_str()), ("charts/shop", "Template"));
    let (_, spec) = kubernetes(&[
        ("/data/manifestDelegateConfig/manifestType", json!("KUSTOMIZE")),
        ("/data/manifestDelegateConfig/kustomizeDirPath", json!("overlays/prod")),
        ("/data/kustomizePatchesList", json!(["spec: {}"])),
    ]);
    assert_eq!(
        spec.manifest.unwrap().kind,
        ManifestKind::Kustomize { folder: Some("overlays/prod".into()), patches_paths: vec![] }
    );
    assert_eq!(spec.overrides.len(), 1);
    let commit =
        [(&*format!("{store}/fetchType"), json!("COMMIT")), (&*format!("{store}/commitId"), json!("abc"))];
    let Some(FileStore::Git(git)) = kubernetes(&commit).1.manifest.unwrap().store else { panic!() };
    assert_eq!(git.reference, GitReference::Commit("abc".into()));
    let key = sample("t-cmd")["data"]["sshInfraDelegateConfig"]["sshKeySpecDto"].clone();
    let ssh = [
        (&*format!("{store}/gitConfigDTO/type"), json!("Ssh")),
        (&*format!("{store}/gitConfigDTO/url"), json!("git@git.example:team/shop.git")),
        (&*format!("{store}/sshKeySpecDTO"), key),
        (&*format!("{store}/encryptedDataDetails"), json!([record("key")])),
    ];
    let Some(FileStore::Git(git)) = kubernetes(&ssh).1.manifest.unwrap().store else { panic!() };
    let HttpAuth::Ssh(login) = git.connector.auth else { panic!() };
    assert_eq!((login.host.as_str(), login.user.as_str(), login.port), ("git.example", "git", 22));
    // Nothing leads out of the folder in which charts are laid out.
    let mut out = harness;
    out["manifestFiles"][1]["filePath"] = "charts/../../x".into();
    assert!(refused(&with("t-k8s", &[(store, out)])).message.contains("leads out"));
}

#[test]
fn connector_checks_become_connector_tests() {
    let infra = sample("t-k8s")["data"]["k8sInfraDelegateConfig"].clone();
    let mut value = sample("t-k8s");
    value["type"] = "VALIDATE_KUBERNETES_CONFIG".into();
    value["data"] = json!({"kubernetesClusterConfig": infra["kubernetesClusterConfigDTO"], "encryptionDetails": infra["encryptionDataDetails"]});
    assert!(matches!(
        decoded(&value).task.step.spec,
        StepSpec::ConnectorTest(ConnectorTestSpec::Kubernetes(_))
    ));
    let store = sample("t-k8s")["data"]["manifestDelegateConfig"]["storeDelegateConfig"].clone();
    value["type"] = "NG_GIT_COMMAND".into();
    value["data"] = json!({"gitConfig": store["gitConfigDTO"], "gitCommandType": "VALIDATE", "encryptionDetails": store["encryptedDataDetails"]});
    assert!(matches!(decoded(&value).task.step.spec, StepSpec::ConnectorTest(ConnectorTestSpec::Git(_))));
    value["data"]["gitCommandType"] = "COMMIT_AND_PUSH".into();
    assert!(refused(&value).message.contains("COMMIT_AND_PUSH"));
    let infra = sample("t-ecs")["data"]["ecsInfraConfig"].clone();
    value["type"] = "NG_AWS_TASK".into();
    value["data"] = json!({"awsConnector": infra["awsConnectorDTO"], "awsTaskType": "VALIDATE", "encryptionDetails": infra["encryptionDataDetails"], "region": null});
    let all = decoded(&value);
    let StepSpec::ConnectorTest(ConnectorTestSpec::Aws(account)) = &all.task.step.spec else { panic!() };
    let AwsCredential::ManualConfig { access_key, secret_key, .. } = &account.credential else { panic!() };
    assert_eq!(
        (access_key.as_str(), revealed(&all, secret_key).as_str(), account.region.as_str()),
        ("AKIAEXAMPLE", SECRET, "eu-west-1")
    );
}

#[test]
fn secrets_of_other_managers_and_broken_ones_are_refused_by_name() {
    let at = "/secret_details/sec1/encryptedRecord";
    for kind in ["VAULT", "AWS_SECRETS_MANAGER", "GCP_KMS", "CUSTOM_NG"] {
        let failure = refused(&with("t-shell", &[(&format!("{at}/encryptionType"), json!(kind))]));
        assert!(
            failure.code == "HRN-005"
                && failure.message.contains(kind)
                && failure.message.contains("k8s_token"),
            "{failure:?}"
        );
        assert!(failure.hint.unwrap().contains("built-in"));
    }
    for (pointer, value) in [
        (format!("{at}/encryptionKey"), json!("another")),
        (format!("{at}/encryptionKey"), Value::Null),
        (format!("{at}/encryptedValue"), json!("short")),
        (format!("{at}/encryptedValue"), Value::Null),
        ("/secret_details".to_owned(), json!({})),
    ] {
        let failure = refused(&with("t-shell", &[(&pointer, value)]));
        assert_eq!(failure.code, "HRN-006", "{}", failure.message);
    }
}

#[test]
fn placeholders_are_taken_only_as_the_manager_writes_them() {
    let of = |script: &str| with("t-shell", &[("/data/script", json!(script))]);
    let all =
        decoded(&of("a ${secretDelegate.obtainBase64(\"sec1\", 5)} ${secretDelegate.obtain(\"sec1\",5)}"));
    let StepSpec::ShellScript(spec) = &all.task.step.spec else { panic!() };
    assert_eq!(revealed(&all, &spec.script), "a czNjcjN0LXZhbHVl s3cr3t-value");
    // Numbers that differ were not written by one manager; nobody outside it knows ours.
    for wrong in [
        "${secretDelegate.obtain(\"sec1\", 5)} ${secretDelegate.obtain(\"sec1\", 6)}",
        "${secretDelegate.obtain(\"sec1\", x)}",
        "${secretDelegate.obtain(\"sec1\"",
        "${secretDelegate.obtain(sec1, 5)}",
    ] {
        assert_eq!(refused(&of(wrong)).code, "HRN-003", "{wrong}");
    }
    let all = decoded(&of("${ngSecretManager.obtain(\"sec1\", 5)} ${secretDelegate.obtain(\"sec1\", 5)}"));
    assert_ne!(all.task.secret_token, 5);
    let again = decoded(&of("x"));
    assert_eq!(all.task.secret_token, again.task.secret_token, "a restart finds the same placeholders");
    let other = with("t-shell", &[("/delegate/token", json!("cb-2"))]);
    assert_ne!(decoded(&other).task.secret_token, again.task.secret_token);
    // Where no secret can be put in, none is taken.
    let branch = "/data/manifestDelegateConfig/storeDelegateConfig/branch";
    let failure = refused(&with("t-k8s", &[(branch, json!("${secretDelegate.obtain(\"sec1\", 5)}"))]));
    assert!(failure.message.contains("storeDelegateConfig.branch"), "{}", failure.message);
}

#[test]
fn no_clear_secret_stands_in_a_step() {
    for value in samples() {
        let Ok(decoded) = decode(&package(&value)) else { continue };
        let shown = format!("{decoded:?} {}", serde_json::to_string(&decoded.task).unwrap());
        assert!(!shown.contains(SECRET), "{}", value["id"]);
        assert_eq!(
            serde_json::from_str::<StepTask>(&serde_json::to_string(&decoded.task).unwrap()).unwrap(),
            decoded.task
        );
    }
}

#[test]
fn a_refusal_is_answered_with_the_response_of_its_family() {
    let agent = Agent { account_id: "acct1".into(), delegate_id: "d1".into(), host_name: "h".into() };
    for (id, class) in [
        ("t-http", "HttpStepResponse"),
        ("t-shell", "ShellScriptTaskResponseNG"),
        ("t-cmd", "CommandTaskResponse"),
        ("t-k8s", "K8sDeployResponse"),
    ] {
        for data in [json!(null), json!(7), json!([]), json!({}), json!("x\0🙂")] {
            let refused = decode(&package(&with(id, &[("/data", data)]))).unwrap_err();
            let bytes = answer(&agent, &refused.request, &StepResult::failed(refused.failure.clone()));
            let names = String::from_utf8_lossy(&bytes).into_owned();
            assert!(names.contains(&format!("{class}.errorMessag")), "{id}: {names}");
            assert!(names.contains("FAILUR"), "{id}: {names}");
        }
    }
}

/// Every place of a document.
fn places(value: &Value, path: String, out: &mut Vec<String>) {
    match value {
        Value::Object(object) => object
            .iter()
            .for_each(|(key, value)| places(value, format!("{path}/{}", key.replace('/', "~1")), out)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| places(value, format!("{path}/{index}"), out))
        }
        _ => {}
    }
    out.push(path);
}

#[test]
fn whatever_a_place_holds_there_is_a_step_or_an_answer() {
    let agent = Agent { account_id: "acct1".into(), delegate_id: "d1".into(), host_name: "h".into() };
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("x\0世🙂${secretDelegate.obtain(\""),
        json!([]),
        json!([null, 7, {}]),
        json!({}),
        json!({"type": "x"}),
    ];
    let (mut steps, mut refusals) = (0, 0);
    for value in samples() {
        let mut all = Vec::new();
        places(&value["data"], "/data".to_owned(), &mut all);
        for place in &all {
            for new in &odd {
                let mut changed = value.clone();
                *changed.pointer_mut(place).unwrap() = new.clone();
                let package = package(&changed);
                let (request, result) = match decode(&package) {
                    Ok(decoded) => {
                        steps += 1;
                        (decoded.request, StepResult::bare(proto::result::StepStatus::Success, None))
                    }
                    Err(refused) => {
                        refusals += 1;
                        assert!(!refused.failure.message.is_empty() && refused.failure.message.len() < 1000);
                        (refused.request, StepResult::failed(refused.failure))
                    }
                };
                assert!(!answer(&agent, &request, &result).is_empty());
            }
        }
    }
    assert!(steps > 1_000 && refusals > 500, "{steps} {refusals}");
}
