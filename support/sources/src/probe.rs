//! Connector tests: what works between this agent and a server, stage by stage.

use crate::http::{Access, Call};
use crate::{docker, error, git};
use executor_api::StepError;
use proto::result::TestStage;
use proto::task::{HttpAuth, HttpConnector};
use reqwest::StatusCode;
use serde::Deserialize;
use std::future::Future;
use url::Url;

/// Answers are read up to here; more than a greeting is not wanted.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// A Docker registry: address, connection, login.
pub async fn probe_docker(access: &Access, connector: &HttpConnector) -> Vec<TestStage> {
    probe(access, connector, async {
        docker::ping(access, connector).await?;
        Ok("the registry answers with API version 2".to_owned())
    })
    .await
}

/// An Artifactory, or a plain HTTP server in its place.
pub async fn probe_artifactory(access: &Access, connector: &HttpConnector) -> Vec<TestStage> {
    probe(access, connector, async {
        let base = base(connector)?;
        let (status, _) = get(access, connector, join(&base, "api/system/ping")).await?;
        if status.is_success() {
            return Ok("Artifactory answers".to_owned());
        }
        // Not an Artifactory: any file server will do, also one that lists no folders.
        let call = Call::get(base.clone(), &connector.identifier).credentials(access.credentials(connector)?);
        let answer = access.once(&call).await?;
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(error::unauthorized(&base, &connector.identifier)),
            status => Ok(format!("an HTTP server answers (HTTP {} at its root)", status.as_u16())),
        }
    })
    .await
}

/// A Git repository.
pub async fn probe_git(access: &Access, connector: &HttpConnector) -> Vec<TestStage> {
    if matches!(connector.auth, HttpAuth::Ssh(_)) {
        // Address, host key and login are one to the SSH library; its messages say which it was.
        let mut stages = Vec::new();
        let login = async { git::ping(access, connector).await.map(|message| (message, ())) };
        stage(access, &mut stages, "Login", login).await;
        return stages;
    }
    probe(access, connector, git::ping(access, connector)).await
}

/// A Prometheus server, or one that answers its queries.
pub async fn probe_prometheus(access: &Access, connector: &HttpConnector) -> Vec<TestStage> {
    probe(access, connector, async {
        #[derive(Deserialize)]
        struct Reply {
            status: String,
        }
        let mut url = join(&base(connector)?, "api/v1/query");
        url.set_query(Some("query=vector(1)"));
        let (status, body) = get(access, connector, url.clone()).await?;
        match serde_json::from_slice::<Reply>(&body) {
            Ok(reply) if status.is_success() && reply.status == "success" => {
                Ok("queries are answered".to_owned())
            }
            _ => Err(error::unexpected(
                &url,
                format!("HTTP {} to a query", status.as_u16()),
                "a Prometheus server",
            )),
        }
    })
    .await
}

async fn probe(
    access: &Access,
    connector: &HttpConnector,
    login: impl Future<Output = Result<String, StepError>>,
) -> Vec<TestStage> {
    let mut stages = Vec::new();
    let url = base(connector);
    let address = async {
        let url = url?;
        let addresses = access.addresses(&url).await?;
        Ok((format!("{} is {}", error::server(&url), list(&addresses)), (url, addresses)))
    };
    let Some((url, addresses)) = stage(access, &mut stages, "Address", address).await else { return stages };
    let connect = async {
        let mut last = None;
        for address in &addresses {
            let attempt =
                tokio::time::timeout(access.connect_timeout(), tokio::net::TcpStream::connect(address));
            match access.bounded("connecting", attempt).await? {
                Ok(Ok(_)) => return Ok((format!("{address} accepts connections"), ())),
                Ok(Err(refused)) => last = Some(format!("{address}: {refused}")),
                Err(_) => last = Some(format!("{address}: no answer")),
            }
        }
        Err(error::no_connection(&url, &last.unwrap_or_default()))
    };
    if stage(access, &mut stages, "Connect", connect).await.is_none() {
        return stages;
    }
    stage(access, &mut stages, "Login", async { login.await.map(|message| (message, ())) }).await;
    stages
}

async fn stage<T>(
    access: &Access,
    stages: &mut Vec<TestStage>,
    name: &str,
    work: impl Future<Output = Result<(String, T), StepError>>,
) -> Option<T> {
    let begin = access.clock.mono();
    let result = work.await;
    let spent = access.clock.mono().saturating_duration_since(begin);
    let duration_ms = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
    let stage = name.to_owned();
    match result {
        Ok((message, value)) => {
            stages.push(TestStage { stage, duration_ms, ok: true, message, hint: None });
            Some(value)
        }
        Err(error) => {
            let message = format!("{error} [{}]", error.code);
            stages.push(TestStage { stage, duration_ms, ok: false, message, hint: error.hint });
            None
        }
    }
}

async fn get(
    access: &Access,
    connector: &HttpConnector,
    url: Url,
) -> Result<(StatusCode, bytes::Bytes), StepError> {
    let call = Call::get(url, &connector.identifier).credentials(access.credentials(connector)?);
    let (answer, body) = access.fetch(&call, MAX_ANSWER_BYTES).await?;
    Ok((answer.status, body))
}

fn base(connector: &HttpConnector) -> Result<Url, StepError> {
    let text = connector.url.trim();
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    Url::parse(&with_scheme)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| {
            let field = format!("connector `{}`, url", connector.identifier);
            error::bad_url(&field, text, "an http or https URL")
        })
}

fn join(base: &Url, tail: &str) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.set_path(&format!("{}/{tail}", base.path().trim_end_matches('/')));
    url
}

fn list(addresses: &[std::net::SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
