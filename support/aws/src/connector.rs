//! The way to the network of AWS' own crates: our transport behind their traits.

use crate::fault::Fault;
use crate::transport::{Request, Transport};
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use executor_api::{Clock, HostAliases};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What providers of credentials send with.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) transport: Arc<Transport>,
    pub(crate) aliases: Arc<HostAliases>,
}

#[derive(Debug)]
struct Bounded {
    connector: Connector,
    limit: Option<Duration>,
}

impl HttpClient for Connector {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        // The instance's metadata service asks for short ones: on any other machine nobody answers there.
        let limit = match (settings.connect_timeout(), settings.read_timeout()) {
            (Some(connect), Some(read)) => Some(connect + read),
            // A connect timeout alone says nothing about how long an answer may take.
            (_, read) => read,
        };
        SharedHttpConnector::new(Bounded { connector: self.clone(), limit })
    }
}

impl HttpConnector for Bounded {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Connector { transport, aliases } = self.connector.clone();
        let limit = self.limit;
        HttpConnectorFuture::new(async move {
            let request = convert(request)?;
            let quiet = |_: String| {};
            let exchange = transport.exchange(request, &aliases, &quiet);
            let answer = match limit {
                None => exchange.await,
                Some(limit) => match tokio::time::timeout(limit, exchange).await {
                    Ok(answer) => answer,
                    Err(elapsed) => return Err(ConnectorError::timeout(elapsed.into())),
                },
            };
            let answer = answer.map_err(|fault| match fault {
                fault @ (Fault::Connection { .. } | Fault::Tls(_)) => ConnectorError::io(fault.into()),
                other => ConnectorError::other(other.into(), None),
            })?;
            let mut response = http::Response::new(SdkBody::from(answer.body));
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

fn convert(request: HttpRequest) -> Result<Request, ConnectorError> {
    let user = |error: Box<dyn std::error::Error + Send + Sync>| ConnectorError::user(error);
    let request = request.try_into_http1x().map_err(|error| user(error.into()))?;
    let (parts, body) = request.into_parts();
    let url = parts.uri.to_string().parse().map_err(|error: url::ParseError| user(error.into()))?;
    let body = body.bytes().ok_or_else(|| user("a streamed body".into()))?;
    Ok(Request { method: parts.method, url, headers: parts.headers, body: Bytes::copy_from_slice(body) })
}

/// The agent's clock for AWS' crates.
pub(crate) struct Time(pub(crate) Arc<dyn Clock>);

impl TimeSource for Time {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.wall())
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}
