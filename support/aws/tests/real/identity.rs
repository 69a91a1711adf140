//! Every source of credentials. Moto is STS; the instance's metadata service and the container's endpoint are small servers of
//! the test's own, because nothing that could be installed plays them.

use crate::peers::{Moto, Reply, Seen, Tap, shared, shared_url};
use crate::{KEY, REGION, SECRET, account, client, environment, inheriting, world};
use aws::{Client, Fault, Service, Session, Settings};
use executor_api::testing::{ManualClock, World};
use executor_api::{Class, StepError};
use proto::task::{AssumeRole, AwsAccount, AwsCredential};
use proto::text::SecretRef;
use secrecy::ExposeSecret as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ROLE: &str = "arn:aws:iam::123456789012:role/deployer";

fn with(pairs: &[(&str, &str)]) -> Client {
    client(Settings { environment: environment(pairs), patience: Duration::ZERO, ..Settings::default() })
}

async fn open(world: &World, client: &Client, account: &AwsAccount) -> Session {
    client.session(account, &world.context().1).await.unwrap()
}

async fn key(session: &Session) -> String {
    let all: BTreeMap<String, _> = session.environment().await.unwrap().into_iter().collect();
    all["AWS_ACCESS_KEY_ID"].expose_secret().to_owned()
}

fn keys(id: &str, expiration: &str) -> String {
    json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": id, "SecretAccessKey": "secret-of-a-source", "Token": "token-of-a-source",
        "Expiration": expiration})
    .to_string()
}

fn json_answer(text: String) -> Reply {
    Reply::Answer(200, "application/json", text)
}

fn refused(error: &StepError) -> (&'static str, Class) {
    (error.code, error.class)
}

#[tokio::test]
async fn an_instance_role_comes_by_the_second_version_of_the_metadata_service() {
    let metadata = Tap::start(|one: &Seen, _| {
        let asked = one.header("x-aws-ec2-metadata-token") == Some("session-token");
        match one.line() {
            line if line.starts_with("PUT /latest/api/token ") => {
                assert!(one.header("x-aws-ec2-metadata-token-ttl-seconds").is_some());
                Reply::Answer(200, "text/plain", "session-token".into())
            }
            _ if !asked => Reply::Answer(401, "text/plain", String::new()),
            line if line.ends_with("/security-credentials/ HTTP/1.1") => {
                Reply::Answer(200, "text/plain", "the-role".into())
            }
            line if line.contains("/the-role ") => json_answer(keys("ASIAINSTANCE", "2100-01-01T00:00:00Z")),
            _ => Reply::Answer(404, "text/plain", String::new()),
        }
    })
    .await;
    let client = with(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url())]);
    let world = world();
    let session = open(&world, &client, &inheriting("http://127.0.0.1:1")).await;
    assert_eq!(key(&session).await, "ASIAINSTANCE");
    let asked = metadata.seen().len();
    assert_eq!(key(&open(&world, &client, &inheriting("http://127.0.0.1:1")).await).await, "ASIAINSTANCE");
    assert_eq!(metadata.seen().len(), asked, "another step of the agent uses what is there");
}

#[tokio::test]
async fn pod_identity_sends_the_token_of_its_file_and_is_renewed_before_it_expires() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "first-token").unwrap();
    let away = Arc::new(AtomicBool::new(false));
    let gone = away.clone();
    // The clock of the test begins at 2026-01-01T00:00:00Z; each set lives for an hour.
    let endpoint = Tap::start(move |one: &Seen, before| {
        if gone.load(Ordering::SeqCst) {
            return Reply::Cut;
        }
        match one.header("authorization") {
            Some("first-token") => json_answer(keys(&format!("ASIAPOD{before}"), "2026-01-01T01:00:00Z")),
            Some("second-token") => json_answer(keys(&format!("ASIAPOD{before}"), "2026-01-01T02:00:00Z")),
            _ => Reply::Answer(403, "text/plain", String::new()),
        }
    })
    .await;
    let clock = ManualClock::new();
    let agent = environment(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/v1/credentials", endpoint.url())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap()),
    ]);
    let client = client(Settings {
        environment: agent,
        patience: Duration::ZERO,
        clock: Arc::new(clock.clone()),
        ..Settings::default()
    });
    let world = world();
    // IRSA is asked for, but the cluster has Pod Identity.
    let account = AwsAccount { credential: AwsCredential::Irsa, ..account("http://127.0.0.1:1") };
    let session = open(&world, &client, &account).await;
    assert_eq!(key(&session).await, "ASIAPOD0");
    clock.advance(Duration::from_secs(54 * 60));
    assert_eq!((key(&session).await, endpoint.seen().len()), ("ASIAPOD0".into(), 1));
    std::fs::write(&token, "second-token").unwrap();
    clock.advance(Duration::from_secs(60));
    assert_eq!(key(&session).await, "ASIAPOD1", "renewed five minutes before the end, in the same session");
    assert!(world.secrets.masked().contains(&"token-of-a-source".to_owned()));
    // A source that is away does not matter as long as they are good.
    away.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(58 * 60));
    assert_eq!(key(&session).await, "ASIAPOD1");
    clock.advance(Duration::from_secs(10 * 60));
    let fault = session.environment().await.unwrap_err();
    assert_eq!(refused(&fault.step("get", &session)), ("AWS-007", Class::Connectivity));
}

#[tokio::test]
async fn a_web_identity_gets_a_role_from_the_regional_sts() {
    let dir = tempfile::tempdir().unwrap();
    let to = shared();
    let sts = Tap::start(move |_, _| Reply::Forward(to)).await;
    let token = dir.path().join("token");
    std::fs::write(&token, "a.web.token").unwrap();
    let client = with(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_ENDPOINT_URL_STS", &sts.url()),
        // Must not be taken for a connector of type Irsa.
        ("AWS_ACCESS_KEY_ID", "AKIAWRONG"),
        ("AWS_SECRET_ACCESS_KEY", "wrong"),
    ]);
    let world = world();
    let account = AwsAccount { credential: AwsCredential::Irsa, endpoints: BTreeMap::new(), ..account("") };
    let session = open(&world, &client, &account).await;
    assert!(key(&session).await.starts_with("ASIA"));
    let asked = sts.seen();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].body.contains("Action=AssumeRoleWithWebIdentity") && asked[0].body.contains("a.web.token")
    );
    assert!(session.caller().await.unwrap().arn.contains("deployer"));
}

#[tokio::test]
async fn profiles_are_read_below_the_agents_home_and_may_name_a_role() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(".aws");
    std::fs::create_dir(&folder).unwrap();
    let config = format!(
        "[profile prod]\nrole_arn = {ROLE}\nsource_profile = base\n[profile base]\nregion = us-east-1\n"
    );
    std::fs::write(folder.join("config"), config).unwrap();
    std::fs::write(
        folder.join("credentials"),
        "[base]\naws_access_key_id = AKIABASE\naws_secret_access_key = s\n",
    )
    .unwrap();
    let home = dir.path().to_str().unwrap();
    let world = world();
    let client = with(&[("HOME", home), ("AWS_PROFILE", "base")]);
    assert_eq!(key(&open(&world, &client, &inheriting("http://127.0.0.1:1")).await).await, "AKIABASE");
    let client = with(&[("HOME", home), ("AWS_PROFILE", "prod"), ("AWS_ENDPOINT_URL_STS", &shared_url())]);
    let account = AwsAccount { endpoints: BTreeMap::new(), ..inheriting("") };
    assert!(key(&open(&world, &client, &account).await).await.starts_with("ASIA"));
}

/// Tools that log people in write profiles anew; the agent need not be started again for that.
#[tokio::test]
async fn a_profile_whose_token_has_expired_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".aws")).unwrap();
    let file = dir.path().join(".aws/credentials");
    let profile = |token: &str| {
        let keys = format!(
            "[default]\naws_access_key_id = ASIA1\naws_secret_access_key = s\naws_session_token = {token}\n"
        );
        std::fs::write(&file, keys).unwrap();
    };
    profile("old");
    let service = Tap::start(|one: &Seen, _| match one.header("x-amz-security-token") {
        Some("new") => Reply::Answer(200, "application/x-amz-json-1.1", "{}".into()),
        _ => {
            Reply::Answer(400, "application/x-amz-json-1.1", "{\"__type\":\"ExpiredTokenException\"}".into())
        }
    })
    .await;
    let (world, client) = (world(), with(&[("HOME", dir.path().to_str().unwrap())]));
    let session = open(&world, &client, &inheriting(&service.url())).await;
    let fault = session.read(Service::Ecs.op("ListClusters"), json!({})).await.unwrap_err();
    assert_eq!(refused(&fault.step("list", &session)), ("AWS-004", Class::Authentication));
    profile("new");
    session.read(Service::Ecs.op("ListClusters"), json!({})).await.unwrap();
    assert!(world.secrets.masked().contains(&"new".to_owned()));
}

fn assuming(url: &str, external_id: Option<&str>) -> AwsAccount {
    let external_id = external_id.map(Into::into);
    AwsAccount { assume_role: Some(AssumeRole { role_arn: ROLE.into(), external_id }), ..account(url) }
}

/// moto evaluates the trust policy of the role, its condition on the external id among it.
#[tokio::test]
async fn a_role_is_assumed_with_its_external_id_and_a_refusal_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let moto = Moto::start(dir.path()).await;
    let any =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
    let (id, secret) = moto.user(&any).await;
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"AWS": "arn:aws:iam::123456789012:user/deployer"}, "Condition": {"StringEquals": {"sts:ExternalId": "right"}}}]});
    let create = [("Action", "CreateRole"), ("Version", "2010-05-08"), ("RoleName", "deployer")];
    let trust = trust.to_string();
    moto.ask("iam", &[&create[..], &[("AssumeRolePolicyDocument", &trust)]].concat()).await;
    let attach = [
        ("Action", "PutRolePolicy"),
        ("Version", "2010-05-08"),
        ("RoleName", "deployer"),
        ("PolicyName", "p"),
    ];
    let any = any.to_string();
    moto.ask("iam", &[&attach[..], &[("PolicyDocument", &any)]].concat()).await;
    moto.guard().await;
    let agent = [("AWS_ACCESS_KEY_ID", id.as_str()), ("AWS_SECRET_ACCESS_KEY", secret.as_str())];
    let world = world();
    let client = with(&agent);
    let by_agent = |external_id| AwsAccount {
        credential: AwsCredential::InheritFromDelegate,
        ..assuming(&moto.url(), external_id)
    };
    let session = open(&world, &client, &by_agent(Some("right"))).await;
    session.read(Service::Ecs.op("ListClusters"), json!({})).await.unwrap();
    let caller = session.caller().await.unwrap();
    assert!(caller.arn.ends_with("assumed-role/deployer/delegate"), "{caller:?}");
    let session = open(&world, &client, &by_agent(Some("wrong"))).await;
    let fault = session.read(Service::Ecs.op("ListClusters"), json!({})).await.unwrap_err();
    assert!(matches!(fault, Fault::Credentials(_)), "{fault:?}");
    assert_eq!(refused(&fault.step("list", &session)), ("AWS-005", Class::Authorization));
    let stages = client.test_connection(&by_agent(Some("wrong")), &world.context().1).await;
    assert_eq!((stages.len(), stages[0].ok), (1, false), "{stages:?}");
}

#[tokio::test]
async fn accounts_are_told_apart_and_equal_ones_share() {
    let (world, client) = (world(), with(&[]));
    let base = account("http://127.0.0.1:1");
    let named = |change: &dyn Fn(&mut AwsAccount)| {
        let mut account = base.clone();
        change(&mut account);
        account
    };
    let key_of = async |account: AwsAccount| open(&world, &client, &account).await.key().to_owned();
    let first = key_of(base.clone()).await;
    assert_eq!(key_of(named(&|one| one.connector = "other".into())).await, first);
    for changed in [
        named(&|one| one.region = "eu-west-1".into()),
        named(&|one| one.endpoints = BTreeMap::new()),
        named(&|one| one.assume_role = Some(AssumeRole { role_arn: ROLE.into(), external_id: None })),
        named(&|one| {
            one.assume_role = Some(AssumeRole { role_arn: ROLE.into(), external_id: Some("x".into()) })
        }),
        named(&|one| one.credential = AwsCredential::InheritFromDelegate),
    ] {
        let shown = format!("{changed:?}");
        assert_ne!(key_of(changed).await, first, "{shown}");
    }
    assert!(!first.contains(SECRET) && !first.contains(KEY));
}

#[tokio::test]
async fn an_agent_without_any_credentials_says_where_it_looked() {
    let client = with(&[("AWS_EC2_METADATA_DISABLED", "true")]);
    let world = world();
    let session = open(&world, &client, &inheriting("http://127.0.0.1:1")).await;
    let error = session.caller().await.unwrap_err().step("ask who we are", &session);
    assert_eq!(refused(&error), ("AWS-001", Class::Authentication));
    assert!(
        error.what.contains("AWS_WEB_IDENTITY_TOKEN_FILE") && error.what.contains("instance role"),
        "{}",
        error.what
    );
    let irsa = AwsAccount { credential: AwsCredential::Irsa, ..account("http://127.0.0.1:1") };
    let session = open(&world, &client, &irsa).await;
    let error = session.caller().await.unwrap_err().step("ask who we are", &session);
    assert!(error.what.contains("neither AWS_WEB_IDENTITY_TOKEN_FILE"), "{}", error.what);
}

#[tokio::test]
async fn what_is_written_wrongly_is_told_before_anything_is_sent() {
    let (world, client) = (world(), with(&[]));
    let (_cancel, cx) = world.context();
    let fault = async |change: &dyn Fn(&mut AwsAccount)| {
        let mut account = account("http://127.0.0.1:1");
        change(&mut account);
        let error = client.session(&account, &cx).await.unwrap_err();
        assert!(error.what.contains("connector `prod`"), "{}", error.what);
        (error.code, error.what)
    };
    let (code, what) = fault(&|one| one.region = "US East".into()).await;
    assert!(code == "AWS-002" && what.contains("region: `US East`"), "{what}");
    let (code, what) =
        fault(&|one| one.assume_role = Some(AssumeRole { role_arn: "deployer".into(), external_id: None }))
            .await;
    assert!(code == "AWS-002" && what.contains("`deployer`; expected arn:"), "{what}");
    let manual = |secret_key: &str, access_key: &str| {
        let (access_key, secret_key) = (access_key.into(), secret_key.into());
        AwsCredential::ManualConfig { access_key, secret_key, session_token: None }
    };
    let missing = proto::text::placeholder(&SecretRef("missing".into()), 0);
    let (code, what) = fault(&|one| one.credential = manual(&missing, KEY)).await;
    assert!(code == "AWS-001" && what.contains("secretKeyRef") && what.contains("`missing`"), "{what}");
    let (code, what) = fault(&|one| one.credential = manual("two\nlines-of-it", KEY)).await;
    assert!(code == "AWS-001" && what.contains("line break") && !what.contains("lines-of-it"), "{what}");
    let (code, what) = fault(&|one| one.credential = manual("x", " ")).await;
    assert!(code == "AWS-001" && what.contains("accessKey is empty"), "{what}");
    // An endpoint that only one service has is told when that service is called.
    let mut account = account("http://127.0.0.1:1");
    account.endpoints.insert("ecs".into(), "ecs.local".into());
    let session = client.session(&account, &cx).await.unwrap();
    let error =
        session.read(Service::Ecs.op("ListClusters"), json!({})).await.unwrap_err().step("list", &session);
    assert!(
        error.code == "AWS-002" && error.what.contains("AWS_ENDPOINT_URL_ECS: `ecs.local`"),
        "{}",
        error.what
    );
    assert_eq!(client.sent(), 0);
}

/// The awscli itself takes what the session gives to a child process, and nothing else.
#[tokio::test]
async fn a_child_process_calls_aws_as_the_session_does() {
    let dir = tempfile::tempdir().unwrap();
    let moto = Moto::start(dir.path()).await;
    let any =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
    let (id, secret) = moto.user(&any).await;
    moto.guard().await;
    let world = world();
    let client =
        with(&[("AWS_ACCESS_KEY_ID", &id), ("AWS_SECRET_ACCESS_KEY", &secret), ("AWS_REGION", "eu-west-3")]);
    let session = open(&world, &client, &inheriting(&moto.url())).await;
    let mut command = tokio::process::Command::new(crate::peers::program("aws"));
    command.args([
        "ecs",
        "create-cluster",
        "--cluster-name",
        "made-by-the-child",
        "--query",
        "cluster.clusterArn",
    ]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", dir.path());
    for (name, value) in session.environment().await.unwrap() {
        command.env(name, value.expose_secret());
    }
    let ended = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let arn = format!("\"arn:aws:ecs:{REGION}:123456789012:cluster/made-by-the-child\"");
    assert_eq!(said.trim(), arn, "{ended:?}");
    let seen = session.pages(Service::Ecs.op("ListClusters"), json!({}), "clusterArns").await.unwrap();
    assert_eq!(seen, [json!(arn.trim_matches('"'))]);
}
