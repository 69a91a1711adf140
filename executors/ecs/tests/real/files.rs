//! Definitions in Git: fetched, evaluated on the agent, told of with their line.

use crate::peer::{fail, image, place, rolling, secrets, spec, task};
use crate::peers::web::GitServer;
use executor_api::Executor as _;
use executor_api::testing::World;
use proto::task::{
    EcsDefinitions, EcsDocument, FileStore, GitReference, GitSource, HttpAuth, HttpConnector, Infrastructure,
    Service, TaskDefinition,
};
use proto::text::{SecretRef, placeholder};

const TASK: &str = "\
# <+nobody.evaluates.a.comment>
family: <+serviceVariables.family>
networkMode: awsvpc
requiresCompatibilities: [FARGATE]
cpu: 256
memory: 512
executionRoleArn: arn:aws:iam::123456789012:role/execution
containerDefinitions:
- name: app
  image: <+serviceVariables.image>
  versionConsistency: disabled
  essential: true
  portMappings: [{containerPort: 8080}]
  environment:
  - {name: WHERE, value: \"<+env.identifier> in <+infra.region>\"}
  - {name: PASSWORD, value: <+secrets.getValue(\"db_pw\")>}
";

const SERVICE: &str = "{
\t\"serviceName\": \"web\",
\t\"desiredCount\": <+serviceVariables.count>,
\t\"launchType\": \"FARGATE\",
\t\"networkConfiguration\": <+serviceVariables.network>
}
";

fn file(url: &str, path: &str) -> EcsDocument {
    let auth = HttpAuth::UsernamePassword { username: "git".into(), password: SecretRef("git_pw".into()) };
    let connector = HttpConnector { identifier: "repo".into(), url: url.into(), auth, headers: Vec::new() };
    let source =
        GitSource { connector, reference: GitReference::Branch("main".into()), paths: vec![path.to_owned()] };
    EcsDocument::File { identifier: path.into(), store: FileStore::Git(source) }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_in_git_are_evaluated_on_the_agent() {
    let at = place("filesa").await;
    let dir = tempfile::tempdir().unwrap();
    let git = GitServer::start(dir.path(), "git", "g1t-pass").await;
    // A service of the peer needs its own subnets, so the network stands in the file as it is.
    let network = at.service("web", "x", 1, None)["networkConfiguration"].to_string();
    let service = SERVICE.replace("<+serviceVariables.network>", &network);
    git.repository(
        "defs.git",
        &[
            ("ecs/task.yaml", TASK),
            ("ecs/service.json", &service),
            ("ecs/wrong.yaml", "family: a\ncpu: <+serviceVariables.nothing>\n"),
        ],
    );
    let url = format!("http://127.0.0.1:{}/defs.git", git.port);
    let definitions = |task: &str| EcsDefinitions {
        task: Some(TaskDefinition { arn: None, document: Some(file(&url, task)) }),
        service: Some(file(&url, "ecs/service.json")),
        ..EcsDefinitions::default()
    };
    let step = spec(&at, definitions("ecs/task.yaml"), rolling());
    let mut document = task(&step, "e1", "deploy");
    let mut service = Service { identifier: "web".into(), name: "web".into(), ..Service::default() };
    for (name, value) in [("family", "filesa-web"), ("count", "2"), ("image", &image(&at, "1", "web"))] {
        service.variables.insert(name.into(), value.into());
    }
    document.service = Some(service);
    document.infrastructure =
        Some(Infrastructure { environment: "production".into(), ..Infrastructure::default() });
    let mut known = secrets();
    known.push(("git_pw".into(), "g1t-pass".into()));
    known.push(("db_pw".into(), "pl4nted-db-pw".into()));
    let world = World::new("t", document, known);
    let executor = crate::peer::executor();
    let result = executor.run(&step, &world.context().1).await;
    let log = world.logs.everything();
    result.unwrap_or_else(|error| panic!("{} {error}\n{log}", error.code));
    assert!(log.contains("Fetching ecs/task.yaml from repo") && log.contains("Commit "), "{log}");
    assert!(!log.contains("pl4nted-db-pw") && !log.contains("g1t-pass"), "{log}");
    assert_eq!(at.describe("web")["desiredCount"], 2);
    let said =
        at.ecs.aws("ecs", "DescribeTaskDefinition", serde_json::json!({"taskDefinition": "filesa-web"}));
    let environment = said["taskDefinition"]["containerDefinitions"][0]["environment"].to_string();
    assert!(environment.contains("production in us-east-1"), "{environment}");
    assert!(environment.contains("pl4nted-db-pw"), "{environment}");
    // What stands in the journal holds the placeholder, not the secret.
    use executor_api::Checkpoints as _;
    let kept = serde_json::to_string(&world.marks.history()).unwrap();
    let written = serde_json::to_string(&placeholder(&SecretRef("db_pw".into()), 77)).unwrap();
    assert!(!kept.contains("pl4nted-db-pw") && kept.contains(written.trim_matches('"')), "{kept}");

    let wrong = spec(&at, definitions("ecs/wrong.yaml"), rolling());
    let mut document = task(&wrong, "e2", "deploy");
    document.service =
        Some(Service { variables: [("count".to_owned(), "1".into())].into(), ..Service::default() });
    let mut known = secrets();
    known.push(("git_pw".into(), "g1t-pass".into()));
    let world = World::new("t2", document, known);
    let error = executor.run(&wrong, &world.context().1).await.unwrap_err();
    assert_eq!(error.code, "ECS-013", "{error}");
    assert!(error.what.starts_with("ecs/wrong.yaml:2: `<+serviceVariables.nothing>`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_definition_is_told_before_anybody_is_asked() {
    let at = place("filesb").await;
    let (error, _) = fail(&spec(&at, EcsDefinitions::default(), rolling()), "e1", "deploy").await;
    assert_eq!(error.code, "ECS-015", "{error}");
    assert!(at.calls(0).is_empty());
}
