use super::*;
use executor_api::testing::World;
use proto::task::{
    Artifact, ArtifactSource, AwsAccount, AwsCredential, EcsAction, EcsDefinitions, EcsEarlier,
    Infrastructure, NoopSpec, Service, Step, StepSpec, StepTask,
};
use proto::text::{SecretRef, placeholder};
use serde_json::json;
use std::collections::BTreeMap;

const TOKEN: i64 = 7;

fn spec(strict: bool) -> EcsSpec {
    EcsSpec {
        account: AwsAccount {
            connector: "aws".into(),
            region: "us-east-1".into(),
            credential: AwsCredential::InheritFromDelegate,
            assume_role: None,
            endpoints: BTreeMap::new(),
        },
        cluster: "prod".into(),
        definitions: EcsDefinitions::default(),
        current_task_definition: None,
        earlier: EcsEarlier::default(),
        variables: BTreeMap::new(),
        namespace: Some("blue".into()),
        strict,
        context: serde_json::Value::Null,
        action: EcsAction::EcsCanaryDelete {},
    }
}

fn world() -> World {
    let step = Step {
        identifier: "s".into(),
        name: "s".into(),
        spec: StepSpec::Noop(NoopSpec { line: String::new() }),
    };
    let mut task = StepTask { secret_token: TOKEN, ..StepTask::of(step) };
    let account = spec(false).account;
    let source = ArtifactSource::Ecr {
        account,
        image_path: "123456789012.dkr.ecr.us-east-1.amazonaws.com/myapp".into(),
        registry_id: None,
        platform: None,
    };
    task.artifact = Some(Artifact { source, tag: "12".into(), digest: Some("sha256:1".into()) });
    let mut service = Service { identifier: "myapp".into(), name: "My app".into(), ..Service::default() };
    service.variables.insert("count".into(), "3".into());
    service.variables.insert("outside".into(), "<+secrets.getValue(\"pw\")>".into());
    service.variables.insert("forged".into(), "\u{E000}0\u{E001}".into());
    service.variables.insert("db".into(), placeholder(&SecretRef("pw".into()), TOKEN).into());
    task.service = Some(service);
    task.infrastructure = Some(Infrastructure {
        identifier: "infra1".into(),
        environment: "production".into(),
        ..Infrastructure::default()
    });
    task.execution.sequence_id = 12;
    World::new("t", task, [("pw".to_owned(), "s3cret".to_owned())])
}

/// Reads as a file from Git would be read.
fn file(kind: Kind, text: &str, strict: bool) -> Result<Vec<Loaded>, StepError> {
    parse(kind, text, strict, true)
}

fn parse(kind: Kind, text: &str, strict: bool, evaluated: bool) -> Result<Vec<Loaded>, StepError> {
    let world = world();
    let (_handle, cx) = world.context();
    let spec = spec(strict);
    let log = cx.logs.unit("Fetch Manifests");
    let executor =
        EcsExecutor::new(aws::Client::new(aws::Settings::default()).unwrap(), crate::Settings::default());
    let reader = Reader { executor: &executor, spec: &spec, cx: &cx, log: log.as_ref() };
    reader.parse(kind, "ecs/task.yaml", text, evaluated)
}

async fn load(kind: Kind, document: EcsDocument) -> (Result<Loaded, StepError>, String) {
    let world = world();
    let (_handle, cx) = world.context();
    let spec = spec(false);
    let log = cx.logs.unit("Fetch Manifests");
    let executor =
        EcsExecutor::new(aws::Client::new(aws::Settings::default()).unwrap(), crate::Settings::default());
    let reader = Reader { executor: &executor, spec: &spec, cx: &cx, log: log.as_ref() };
    let result = reader.load(kind, &document).await;
    (result, world.logs.everything())
}

#[test]
fn a_file_is_evaluated_over_what_the_task_knows() {
    let text = "\
family: <+service.identifier>
cpu: 256
containerDefinitions:
- name: web
  image: <+artifact.image>
  environment:
  - {name: TAG, value: <+artifact.tag>}
  - {name: ENV, value: <+env.identifier>}
  - {name: WHERE, value: \"<+infra.region>/<+infra.cluster>/<+infra.namespace>/<+infra.infraIdentifier>\"}
  - {name: RUN, value: <+pipeline.sequenceId>}
  - {name: COUNT, value: <+serviceVariables.count>}
  - {name: DB, value: <+service.variables.db>}
  - {name: FORGED, value: <+service.variables.forged>}
  - {name: MIXED, value: \"<+service.variables.db>/<+service.variables.outside>\"}
  - {name: OUTSIDE, value: <+service.variables.outside>}
  - {name: PW, value: <+secrets.getValue(\"pw\")>}
";
    let loaded = file(Kind::TaskDefinition, text, false).unwrap().remove(0);
    let secret = placeholder(&SecretRef("pw".into()), TOKEN);
    let environment = &loaded.value["containerDefinitions"][0]["environment"];
    let value = |name: &str| {
        let all = environment.as_array().unwrap();
        all.iter().find(|pair| pair["name"] == name).unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(loaded.value["cpu"], "256");
    assert_eq!(
        loaded.value["containerDefinitions"][0]["image"],
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/myapp:12"
    );
    assert_eq!((value("TAG"), value("ENV"), value("RUN")), ("12".into(), "production".into(), "12".into()));
    assert_eq!(value("WHERE"), "us-east-1/prod/blue/infra1");
    // A placeholder stays one, and text from outside is never evaluated again.
    assert_eq!((value("DB"), value("PW"), value("FORGED")), (secret.clone(), secret.clone(), "0".into()));
    assert_eq!(value("MIXED"), format!("{secret}/<+secrets.getValue(\"pw\")>"));
    assert_eq!(value("OUTSIDE"), "<+secrets.getValue(\"pw\")>");
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn what_the_manager_resolved_outweighs_what_the_task_alone_tells() {
    let world = world();
    let (_handle, cx) = world.context();
    let pw = placeholder(&SecretRef("pw".into()), TOKEN);
    let context = json!({
        "env": {"name": "Production", "variables": {"tier": 2}},
        "serviceVariables": {"db": pw, "outside": "<+secrets.getValue(\"pw\")>"},
    });
    let spec = EcsSpec { context, ..spec(false) };
    let log = cx.logs.unit("Fetch Manifests");
    let executor =
        EcsExecutor::new(aws::Client::new(aws::Settings::default()).unwrap(), crate::Settings::default());
    let reader = Reader { executor: &executor, spec: &spec, cx: &cx, log: log.as_ref() };
    let text = "family: <+env.name>-<+env.variables.tier>\ncontainerDefinitions: [{name: <+serviceVariables.outside>, image: \"<+artifact.tag>:<+serviceVariables.db>\"}]\n";
    let loaded = reader.parse(Kind::TaskDefinition, "t.yaml", text, true).unwrap();
    let value = &loaded[0].value;
    assert_eq!(value["family"], "Production-2");
    // What came from outside is not evaluated again, and a secret stays a placeholder.
    assert_eq!(value["containerDefinitions"][0]["name"], "<+secrets.getValue(\"pw\")>");
    assert_eq!(value["containerDefinitions"][0]["image"], format!("12:{pw}"));
}

#[test]
fn secrets_are_opened_when_the_document_is_sent() {
    let world = world();
    let (_handle, cx) = world.context();
    let genuine = placeholder(&SecretRef("pw".into()), TOKEN);
    let document = json!({"environment": [{"name": "A", "value": format!("x{genuine}y")}], "n": 3});
    let clear = reveal(&document, cx.secrets.as_ref()).unwrap();
    assert_eq!(clear, json!({"environment": [{"name": "A", "value": "xs3crety"}], "n": 3}));
    for (wrong, secret) in
        [(placeholder(&SecretRef("pw".into()), 8), "pw"), (placeholder(&SecretRef("no".into()), TOKEN), "no")]
    {
        let error = reveal(&json!({"environment": [{"value": wrong}]}), cx.secrets.as_ref()).unwrap_err();
        assert_eq!(error.code, "ECS-003");
        assert!(error.what.contains("environment[0].value") && error.what.contains(secret), "{}", error.what);
    }
}

#[test]
fn faults_name_file_line_path_and_what_was_expected() {
    for (code, kind, text, wanted) in [
        ("ECS-010", Kind::Service, "serviceName: a\n  b: c\n", "ecs/task.yaml:2: is not valid YAML"),
        ("ECS-010", Kind::Service, "a: 1\na: 2\n", "ecs/task.yaml:2: the key `a` is written twice"),
        ("ECS-011", Kind::Service, "- a\n", "ecs/task.yaml:1:  is a list; expected a map"),
        (
            "ECS-011",
            Kind::Service,
            "serviceName: a\ndesiredCount: many\n",
            "ecs/task.yaml:2: desiredCount is `many`; expected a whole number",
        ),
        (
            "ECS-013",
            Kind::Service,
            "serviceName: a\nplatformVersion: <+artifact.version>\n",
            "ecs/task.yaml:2: `<+artifact.version>`: ",
        ),
        ("ECS-013", Kind::Service, "serviceName: <+nobody.knows>\n", "nobody.knows"),
        ("ECS-013", Kind::Service, "serviceName: ${ngSecretManager.obtain(\"pw\", 7)}\n", "ecs/task.yaml:1"),
        (
            "ECS-011",
            Kind::TaskDefinition,
            "family: a\ncontainerDefinitions:\n- name: w\n  cpu: <+secrets.getValue(\"pw\")>\n",
            "ecs/task.yaml:4: containerDefinitions[0].cpu is a secret; expected a whole number",
        ),
    ] {
        let error = file(kind, text, false).unwrap_err();
        assert_eq!(error.code, code, "{}", error.what);
        assert!(error.what.contains(wanted), "{wanted} in {}", error.what);
    }
}

#[test]
fn an_unknown_member_is_a_warning_and_in_strict_mode_a_fault() {
    let text = "serviceName: a\ndesierdCount: 3\ncluster: other\ntaskDefinition: old\ntags: []\n";
    let loaded = file(Kind::Service, text, false).unwrap().remove(0);
    assert_eq!(loaded.value, json!({"serviceName": "a", "desierdCount": 3}));
    assert_eq!(
        loaded.warnings,
        [
            "ecs/task.yaml:2: desierdCount is no member that this version knows; did you mean `desiredCount`?; it is sent to AWS as it stands",
            "ecs/task.yaml: cluster is not taken from the document; the step sets it",
            "ecs/task.yaml: taskDefinition is not taken from the document; the step sets it",
        ]
    );
    let error = file(Kind::Service, text, true).unwrap_err();
    assert_eq!(error.code, "ECS-012");
    assert!(error.what.contains("desierdCount"), "{}", error.what);
}

#[test]
fn a_rendered_text_is_not_evaluated_again() {
    let loaded = parse(Kind::Service, "serviceName: '<+artifact.image>'\n", false, false).unwrap().remove(0);
    assert_eq!(loaded.value, json!({"serviceName": "<+artifact.image>"}));
}

#[tokio::test]
async fn documents_come_from_entities_and_inline_content() {
    // As the seed writes it: whole numbers where the API has text at the level of the task.
    let value = json!({"family": "myapp-task", "cpu": 256, "memory": 512, "containerDefinitions": [
        {"name": "myapp-container", "image": "a:1", "memory": 512, "cpu": 256, "portMappings": [{"containerPort": 8080}]}]});
    let document = EcsDocument::Value { place: "service myapp, taskDefinitionSpec".into(), value };
    let loaded = load(Kind::TaskDefinition, document).await.0.unwrap();
    assert_eq!(
        (&loaded.value["cpu"], &loaded.value["containerDefinitions"][0]["cpu"]),
        (&json!("256"), &json!(256))
    );
    assert_eq!(loaded.place, "service myapp, taskDefinitionSpec");

    let inline = |content: &str| EcsDocument::File {
        identifier: "svc".into(),
        store: FileStore::Inline { path: "svc.json".into(), content: content.into() },
    };
    let secret = placeholder(&SecretRef("pw".into()), TOKEN);
    let text =
        format!("{{\"serviceName\": \"web\", \"role\": \"{}\", \"zzz\": 1}}", secret.replace('"', "\\\""));
    let (loaded, log) = load(Kind::Service, inline(&text)).await;
    assert_eq!(loaded.unwrap().value["role"], secret);
    assert!(log.contains("svc.json:1: zzz is no member") && !log.contains("s3cret"), "{log}");

    for (content, wanted) in [("# nothing\n", "holds nothing"), ("a: 1\n---\nb: 1\n", "holds 2 documents")] {
        let error = load(Kind::Service, inline(content)).await.0.unwrap_err();
        assert!(error.code == "ECS-010" && error.what.contains(wanted), "{}", error.what);
    }
    let wrong = EcsDocument::Value { place: "service myapp".into(), value: json!({"desiredCount": "x"}) };
    let error = load(Kind::Service, wrong).await.0.unwrap_err();
    assert_eq!(error.what, "service myapp: desiredCount is `x`; expected a whole number");
}
