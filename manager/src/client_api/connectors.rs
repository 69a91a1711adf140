//! `POST /connectors/{id}/test`: an agent tries the connector and says how far it came (settled facts §1.13).

use super::body::JsonBody;
use super::tasks::{Internal, internal_task};
use super::{Answer, Api, error::ApiError};
use crate::engine::host_keys;
use crate::store::{TaskRow, TaskStatus};
use axum::Json;
use axum::extract::{Path, State};
use expr::{MapScope, Target};
use pipeline::connection::{self, Resolve};
use pipeline::entities::{Catalog, EntityKind, Snapshot, find};
use pipeline::fault::Findings;
use pipeline::model::Field;
use pipeline::model::connector::{Connector, ConnectorSpec, read_connector};
use pipeline::model::secret::{Secret, SecretSpec, read_secret};
use pipeline::yaml::parse_documents;
use proto::result::StepResult;
use proto::task::{ConnectorTestSpec, HostKeys, SshCredential, SshTarget, SshUrl, Step, StepSpec};
use proto::text::{SecretRef, Text, placeholder, placeholders};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// A test that takes longer than this tells nothing any more; it covers waiting for an agent.
const TEST_LIMIT: Duration = Duration::from_mins(2);
/// Where an AWS account is tried that says no region.
const AWS_TEST_REGION: &str = "us-east-1";
/// SSH's own port.
const SSH_PORT: u16 = 22;

#[derive(Deserialize)]
pub(super) struct Test {
    #[serde(default)]
    host: Option<String>,
    /// `ORG/PROJECT`, `ORG`, or nothing for the account; default: the scope that has one of this id.
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    selectors: Vec<String>,
}

pub(super) async fn test(
    State(api): State<Api>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Test>,
) -> Answer<Json<Value>> {
    let catalog = crate::entities::catalog(&api.app).await?;
    let scope = body.scope.clone().unwrap_or_else(|| only_scope(&catalog, &id));
    let token = i64::from(rand::random::<u32>());
    let now_ms = api.app.clock.wall();
    let mut wanted = Wanted { catalog: &catalog, scope, token, now_ms, secrets: Vec::new() };
    let (spec, own_selectors) = wanted.spec(&id, body.host.as_deref())?;
    let secrets = wanted.secrets.clone();
    let missing = api.secrets.missing(&secrets).await?;
    if let Some(first) = missing.first() {
        return Err(ApiError::missing(format!("the secret `{}` has no value", first.0))
            .hint(format!("set it with `delegate secret set {} --stdin`", first.0)));
    }
    let selectors = if body.selectors.is_empty() { own_selectors } else { body.selectors };
    let step = Step {
        identifier: "connectorTest".to_owned(),
        name: format!("Test of {id}"),
        spec: StepSpec::ConnectorTest(spec),
    };
    let mut internal = Internal::new(step, &format!("connector:{id}"), &selectors, TEST_LIMIT);
    internal.secrets = secrets;
    internal.secret_token = wanted.token;
    for login in internal.task_mut().logins_mut() {
        login.host_keys.mode = api.app.config.host_keys;
    }
    host_keys::fill_known(api.app.store.as_ref(), internal.task_mut()).await?;
    let task = internal_task(&api.app.account, internal, api.app.clock.wall())?;
    let row = run(&api, task).await?;
    Ok(Json(report(&row)))
}

/// Queues the task and waits for its end; a test that nobody answers in time is told why.
async fn run(api: &Api, task: crate::store::NewTask) -> Answer<TaskRow> {
    let mut changes = api.app.changes.subscribe();
    let id = task.id.clone();
    api.app.store.enqueue(task).await?;
    let until = api.app.clock.mono() + TEST_LIMIT;
    loop {
        if let Some(row) = api.app.store.task(&id).await?
            && row.status == TaskStatus::Ended
        {
            return Ok(row);
        }
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = api.app.clock.sleep_until(until) => {
                    let why = api.app.queue.explain(&id)
                        .map_or_else(|| "the agent has not answered".to_owned(), |explanation| explanation.sentence());
                    // Nobody waits for the answer any more.
                    let given_up = json!({ "status": "Aborted" });
                    let ended = api.app.store.end_queued(&id, given_up, api.app.clock.wall()).await?;
                    tracing::info!(task = %id, taken_back = ended, "connector test given up");
                    return Err(ApiError::request(format!("no result within {} s: {why}", TEST_LIMIT.as_secs())));
                }
                () = api.app.stop.cancelled() => return Err(ApiError::request("the manager is stopping")),
            };
            match change {
                Ok(crate::store::changes::Change::Ended { task, .. }) if task == id => break,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Err(ApiError::request("the manager is stopping")),
            }
        }
    }
}

/// `{ok, agent, stages}`; a test that failed as a whole is one stage with its failure.
fn report(row: &TaskRow) -> Value {
    let result = row.result.clone().and_then(|result| serde_json::from_value::<StepResult>(result).ok());
    let Some(result) = result else {
        return json!({ "ok": false, "agent": Value::Null, "stages": [failed("answer", "the answer cannot be read", None)] });
    };
    let output = |name: &str| result.outputs.get(name).map(|output| output.value.clone());
    let ok = output("ok").and_then(|ok| ok.as_bool()).unwrap_or(false);
    let mut stages = output("stages").and_then(|stages| stages.as_array().cloned()).unwrap_or_default();
    if stages.is_empty()
        && let Some(failure) = &result.failure
    {
        stages.push(failed("connect", &failure.message, failure.hint.as_deref()));
    }
    json!({ "ok": ok, "agent": result.agent, "stages": stages })
}

fn failed(stage: &str, message: &str, hint: Option<&str>) -> Value {
    json!({ "stage": stage, "durationMs": 0, "ok": false, "message": message, "hint": hint })
}

/// The scope of the one connector or secret of this id; that of the account when there is none, or there are several.
fn only_scope(catalog: &Snapshot, id: &str) -> String {
    let kinds = [EntityKind::Connector, EntityKind::Secret];
    let mut of_id =
        kinds.into_iter().flat_map(|kind| catalog.entities(kind)).filter(|entity| entity.id == id);
    match (of_id.next(), of_id.next()) {
        (Some(one), None) => one.scope.clone(),
        _ => String::new(),
    }
}

/// What a test needs, read from the stored entities.
struct Wanted<'a> {
    catalog: &'a Snapshot,
    /// From where names are looked up.
    scope: String,
    token: i64,
    now_ms: u64,
    secrets: Vec<SecretRef>,
}

impl Resolve for Wanted<'_> {
    type Error = ApiError;

    fn text(&self, field: &Field) -> Answer<String> {
        plain(field)
    }

    /// A name that stands for an entity is replaced by the entity's id.
    fn secret(&mut self, reference: &str) -> SecretRef {
        let has_value = self.catalog.has_secret_value(reference);
        let entity =
            find(self.catalog, EntityKind::Secret, reference, &self.scope).ok().filter(|_| !has_value);
        let secret = SecretRef(entity.map_or(reference, |entity| &entity.id).to_owned());
        if !self.secrets.contains(&secret) {
            self.secrets.push(secret.clone());
        }
        secret
    }

    fn secret_text(&mut self, field: &Field) -> Answer<Text> {
        let written = field.text();
        let only_secrets = expr::references(&written).is_ok_and(|references| {
            references.iter().all(|one| matches!(one.target, Target::Secret(_)) && !one.dynamic)
        });
        if !only_secrets {
            return Err(ApiError::request(format!(
                "`{}` holds an expression, which only a run can resolve",
                field.path
            )));
        }
        let scope = MapScope::default();
        let now_ms = i64::try_from(self.now_ms).unwrap_or(i64::MAX);
        let context = expr::Context { scope: &scope, now_ms, secret_token: self.token };
        let mut text = expr::render(written.trim(), &context, expr::Mode::Throw)
            .map_err(|error| ApiError::request(format!("`{}`: {error}", field.path)))?;
        for found in placeholders(&text).into_iter().rev() {
            let secret = self.secret(&found.secret.0);
            text.replace_range(found.range, &placeholder(&secret, self.token));
        }
        Ok(Text(text))
    }

    fn token(&self) -> i64 {
        self.token
    }

    fn login(&mut self, key_ref: &Field, place: SshUrl) -> Answer<SshTarget> {
        let reference = plain(key_ref)?;
        let secret = self
            .secret_entity(&reference)
            .ok_or_else(|| ApiError::request(format!("the secret `{reference}` is no SSHKey")))?;
        let target = self.ssh(&place.host, place.port, &secret)?;
        Ok(SshTarget { user: place.user.unwrap_or(target.user), ..target })
    }

    fn fault(&self, field: &Field, message: String) -> ApiError {
        ApiError::request(format!("`{}`: {message}", field.path))
    }
}

impl Wanted<'_> {
    /// The test of a connector, or of an SSHKey secret on a host; and the connector's own selectors.
    fn spec(&mut self, id: &str, host: Option<&str>) -> Answer<(ConnectorTestSpec, Vec<String>)> {
        match find(self.catalog, EntityKind::Connector, id, &self.scope) {
            Ok(entity) => {
                let connector = self.connector(&entity.yaml, id)?;
                let selectors = connector.selectors.as_ref().map(texts).unwrap_or_default();
                Ok((self.of_connector(&connector, host)?, selectors))
            }
            Err(error) => {
                if let Some(secret) = self.secret_entity(id) {
                    let host = host.ok_or_else(|| {
                        ApiError::request(format!("`{id}` is an SSHKey secret: say on which host to try it"))
                            .hint(format!("delegate connector test {id} --host HOST"))
                    })?;
                    return Ok((ConnectorTestSpec::Ssh(self.ssh(host, None, &secret)?), Vec::new()));
                }
                let (message, near) = error.describe(EntityKind::Connector, id);
                let error = ApiError::not_found(message);
                Err(match near {
                    Some(near) => error.hint(near),
                    None => error,
                })
            }
        }
    }

    fn connector(&self, yaml: &str, id: &str) -> Answer<Connector> {
        let documents = parse_documents(id, yaml).map_err(ApiError::documents)?;
        let mut findings = Findings::default();
        let read =
            documents.iter().find_map(|document| read_connector(document.get("connector")?, &mut findings));
        read.ok_or_else(|| ApiError::documents(findings.faults))
    }

    fn secret_entity(&self, reference: &str) -> Option<Secret> {
        let entity = find(self.catalog, EntityKind::Secret, reference, &self.scope).ok()?;
        let documents = parse_documents(reference, &entity.yaml).ok()?;
        let mut findings = Findings::default();
        documents.iter().find_map(|document| read_secret(document.get("secret")?, &mut findings))
    }

    fn of_connector(&mut self, connector: &Connector, host: Option<&str>) -> Answer<ConnectorTestSpec> {
        Ok(match &connector.spec {
            ConnectorSpec::Ssh { host: own, port, key_ref, user } => {
                let own = own.as_ref().map(plain).transpose()?;
                let host = host.map(str::to_owned).or(own).ok_or_else(|| no_host(&connector.identifier))?;
                let reference = key_ref.as_ref().map(plain).transpose()?.ok_or_else(|| {
                    ApiError::request(format!("the connector `{}` names no key", connector.identifier))
                })?;
                let port = port.as_ref().map(port_of).transpose()?;
                ConnectorTestSpec::Ssh(match self.secret_entity(&reference) {
                    Some(secret) if matches!(secret.spec, SecretSpec::SshKey { .. }) => {
                        self.ssh(&host, port, &secret)?
                    }
                    _ => {
                        let user = user.as_ref().map(plain).transpose()?.ok_or_else(|| {
                            ApiError::request(format!(
                                "the connector `{}` names no user",
                                connector.identifier
                            ))
                        })?;
                        let key = self.secret(&reference);
                        target(&host, port.unwrap_or(SSH_PORT), user, key, None)
                    }
                })
            }
            ConnectorSpec::Pdc { .. } => {
                return Err(ApiError::request(format!(
                    "the connector `{}` lists hosts and holds no login",
                    connector.identifier
                ))
                .hint("test the SSHKey secret instead: `delegate connector test SECRET --host HOST`"));
            }
            ConnectorSpec::DockerRegistry { url, auth } => {
                ConnectorTestSpec::DockerRegistry(connection::http(self, &connector.identifier, url, auth)?)
            }
            ConnectorSpec::Artifactory { url, auth } => {
                ConnectorTestSpec::Artifactory(connection::http(self, &connector.identifier, url, auth)?)
            }
            ConnectorSpec::Git { url, auth, .. } => {
                ConnectorTestSpec::Git(connection::http(self, &connector.identifier, url, auth)?)
            }
            ConnectorSpec::Prometheus { url, auth, headers } => {
                let mut http = connection::http(self, &connector.identifier, url, auth)?;
                http.headers = connection::headers(self, headers)?;
                ConnectorTestSpec::Prometheus(http)
            }
            ConnectorSpec::K8sCluster { credential } => {
                ConnectorTestSpec::Kubernetes(connection::cluster(self, &connector.identifier, credential)?)
            }
            ConnectorSpec::Aws { account } => {
                // Every account answers there; whoever it is does not depend on the region.
                let region = account.region.as_ref().map(plain).transpose()?;
                let region = region.unwrap_or_else(|| AWS_TEST_REGION.to_owned());
                ConnectorTestSpec::Aws(connection::aws(self, &connector.identifier, account, &region)?)
            }
            ConnectorSpec::HelmRepository { .. } => {
                return Err(ApiError::request(format!(
                    "the connector `{}` leads to a repository of charts, which helm itself reads",
                    connector.identifier
                ))
                .hint("run a step that uses it, or `helm pull CHART --repo URL` on the agent"));
            }
            ConnectorSpec::Unsupported { kind } => {
                return Err(ApiError::request(format!(
                    "connectors of type `{kind}` cannot be tested by this version"
                )));
            }
        })
    }

    /// The login on a host by an SSHKey secret.
    fn ssh(&mut self, host: &str, port: Option<u16>, secret: &Secret) -> Answer<SshTarget> {
        let SecretSpec::SshKey { port: own, user, key, passphrase } = &secret.spec else {
            return Err(ApiError::request(format!("the secret `{}` is no SSHKey", secret.identifier)));
        };
        let own = own.as_ref().map(port_of).transpose()?;
        let (host, written) = match host.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') => {
                let number = port.parse::<u16>().ok().filter(|number| *number > 0).ok_or_else(|| {
                    ApiError::request(format!(
                        "`{port}` in the host `{host}` is no port; expected 1 to 65535"
                    ))
                })?;
                (name, Some(number))
            }
            _ => (host, None),
        };
        let key = plain(key)?;
        let passphrase = passphrase.as_ref().map(plain).transpose()?;
        let key = self.secret(&key);
        let passphrase = passphrase.map(|passphrase| self.secret(&passphrase));
        Ok(target(host, written.or(port).or(own).unwrap_or(SSH_PORT), plain(user)?, key, passphrase))
    }
}

fn target(host: &str, port: u16, user: String, key: SecretRef, passphrase: Option<SecretRef>) -> SshTarget {
    SshTarget {
        host: host.to_owned(),
        port,
        user,
        credential: SshCredential::Key { key, passphrase },
        host_keys: HostKeys::default(),
    }
}

fn no_host(connector: &str) -> ApiError {
    ApiError::request(format!("the connector `{connector}` names no host"))
        .hint(format!("delegate connector test {connector} --host HOST"))
}

/// The text of a field. A test has no pipeline, so expressions have nothing to stand for.
fn plain(field: &Field) -> Answer<String> {
    let text = field.text();
    if text.contains("<+") {
        return Err(ApiError::request(format!(
            "`{}` holds an expression, which only a run can resolve",
            field.path
        )));
    }
    Ok(text)
}

fn port_of(field: &Field) -> Answer<u16> {
    let text = plain(field)?;
    let wrong =
        || ApiError::request(format!("`{}`: expected a port from 1 to 65535, found `{text}`", field.path));
    text.trim().parse().ok().filter(|port: &u16| *port > 0).ok_or_else(wrong)
}

fn texts(field: &Field) -> Vec<String> {
    match &field.value {
        Value::Array(list) => list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => vec![field.text()],
    }
}
