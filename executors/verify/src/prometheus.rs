//! Prometheus' HTTP API; the only file that knows it. **Source**: facts C3.5.

use crate::config::{Config, ConfigError};
use crate::error::Error;
use crate::judge::Point;
use executor_api::{SpecFault, StepContext};
use proto::task::{HttpAuth, HttpConnector};
use reqwest::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, ClientBuilder, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::time::Duration;
use url::{Host, Url};

/// A window holds a few hundred samples; an answer beyond this size is not one.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Series that are named in an error.
const SHOWN_SERIES: usize = 5;

/// Makes clients with the settings of the agent.
pub(crate) struct Connector {
    certificates: Vec<Certificate>,
    config: Config,
    plain: Client,
}

impl Connector {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let certificates = match config.ca_pem.as_slice() {
            [] => Vec::new(),
            pem => Certificate::from_pem_bundle(pem).map_err(ConfigError::Ca)?,
        };
        let plain = build(&config, &certificates, |builder| builder).map_err(ConfigError::Client)?;
        Ok(Connector { certificates, config, plain })
    }

    /// A server, ready to be asked. Its credentials are opened here and live as long as the value. The second part is
    /// a line for the log when a host alias applies.
    pub(crate) async fn open(
        &self,
        connector: &HttpConnector,
        cx: &StepContext,
    ) -> Result<(Server, Option<String>), Error> {
        let fault = |problem: String| Error::Spec(vec![SpecFault { field: "connectorRef".into(), problem }]);
        let base = connector.url.trim().trim_end_matches('/');
        let mut url = Url::parse(&format!("{base}/api/v1/query_range"))
            .map_err(|e| fault(format!("the URL `{}` is not a URL: {e}", connector.url)))?;
        let mut headers = headers_of(connector, cx)?;
        let target = shown(&url);
        let (name, port) = match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) => (host.trim_matches(['[', ']']).to_owned(), port),
            _ => return Err(fault(format!("the URL `{}` names no host", connector.url))),
        };
        let Some((to, to_port)) = cx.aliases.lookup(&name, port) else {
            let server = Server {
                client: self.plain.clone(),
                url,
                headers,
                target,
                connector: connector.identifier.clone(),
            };
            return Ok((server, None));
        };
        let notice = format!("host alias: {name}:{port} is reached at {to}:{to_port}");
        let unusable = || fault(format!("the alias of {name}:{port} to {to}:{to_port} cannot be used"));
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((to.as_str(), to_port)).await.map_err(|_| unusable())?.collect();
        let authority = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|_| unusable())?);
        // Host header, SNI and certificate stay those of the name; a port in the URL would win over the resolver's.
        url.set_port(Some(to_port)).map_err(|()| unusable())?;
        if !matches!(url.host(), Some(Host::Domain(_))) {
            let first = addresses.first().filter(|_| url.scheme() == "http").ok_or_else(unusable)?;
            url.set_ip_host(first.ip()).map_err(|()| unusable())?;
        }
        let client = build(&self.config, &self.certificates, |builder| {
            builder.resolve_to_addrs(&name, &addresses).http1_only()
        })
        .map_err(|_| unusable())?;
        Ok((Server { client, url, headers, target, connector: connector.identifier.clone() }, Some(notice)))
    }
}

fn build(
    config: &Config,
    certificates: &[Certificate],
    more: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, reqwest::Error> {
    let base = || {
        more(Client::builder())
            .user_agent(concat!("delegate/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(config.connect_timeout)
            .timeout(config.query_timeout)
            .no_proxy()
    };
    // A small image may hold no CA at all. Plain HTTP works there, and HTTPS fails as not trusted when it is used.
    base()
        .tls_certs_merge(certificates.to_vec())
        .build()
        .or_else(|_| base().tls_certs_only(certificates.to_vec()).build())
}

fn headers_of(connector: &HttpConnector, cx: &StepContext) -> Result<HeaderMap, Error> {
    let secret = |source| Error::Secret { connector: connector.identifier.clone(), source };
    let unfit = |what: &str| {
        let problem = format!("connector `{}`: {what} cannot stand in a header", connector.identifier);
        Error::Spec(vec![SpecFault { field: "connectorRef".into(), problem }])
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &connector.headers {
        let header: HeaderName =
            name.trim().parse().map_err(|_| unfit(&format!("the header name `{name}`")))?;
        let value = cx.secrets.reveal(value).map_err(secret)?;
        headers.append(
            header,
            sensitive(value.expose_secret()).ok_or_else(|| unfit(&format!("the value of `{name}`")))?,
        );
    }
    let authorization: Option<SecretString> = match &connector.auth {
        HttpAuth::Anonymous => None,
        HttpAuth::Ssh(_) => return Err(unfit("its login by SSH")),
        HttpAuth::UsernamePassword { username, password } => {
            let user = cx.secrets.reveal(username).map_err(secret)?;
            let password = cx.secrets.get(password).map_err(secret)?;
            Some(basic(user.expose_secret(), password.expose_secret()))
        }
        HttpAuth::Bearer { token } => {
            let token = cx.secrets.get(token).map_err(secret)?;
            Some(format!("Bearer {}", token.expose_secret().trim()).into())
        }
    };
    if let Some(value) = authorization {
        let value = sensitive(value.expose_secret()).ok_or_else(|| unfit("its token"))?;
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn basic(user: &str, password: &str) -> SecretString {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))).into()
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A URL for messages: without user, password and query.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path = url.path().trim_end_matches("/api/v1/query_range");
    format!("{}://{}{port}{path}", url.scheme(), url.host_str().unwrap_or_default())
}

/// A Prometheus server with the credentials of one connector. No `Debug`: its headers are secret.
pub(crate) struct Server {
    client: Client,
    url: Url,
    headers: HeaderMap,
    target: String,
    connector: String,
}

impl Server {
    /// For messages.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// The samples of `query` from `start_ms` to `end_ms`, in the order of time. NaN samples are left out.
    ///
    /// **Cancel**: safe; a query changes nothing.
    pub(crate) async fn range(
        &self,
        query: &str,
        start_ms: i64,
        end_ms: i64,
        step: Duration,
    ) -> Result<Vec<Point>, Error> {
        let series = self.matrix(query, start_ms, end_ms, step).await?;
        match series.as_slice() {
            [] => Ok(vec![]),
            [one] => Ok(points(&one.values)),
            several => Err(Error::Series {
                target: self.target.clone(),
                count: several.len(),
                labels: several.iter().take(SHOWN_SERIES).map(Series::labels).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// The same by the value of `label`. Series without it are left out; several of one value are joined, the mean of
    /// those of one time counts.
    pub(crate) async fn by_label(
        &self,
        query: &str,
        label: &str,
        start_ms: i64,
        end_ms: i64,
        step: Duration,
    ) -> Result<BTreeMap<String, Vec<Point>>, Error> {
        let mut nodes: BTreeMap<String, Vec<Vec<Point>>> = BTreeMap::new();
        for series in self.matrix(query, start_ms, end_ms, step).await? {
            if let Some(node) = series.metric.get(label).filter(|node| !node.is_empty()) {
                nodes.entry(node.clone()).or_default().push(points(&series.values));
            }
        }
        Ok(nodes.into_iter().map(|(node, series)| (node, joined(series))).collect())
    }

    async fn matrix(
        &self,
        query: &str,
        start_ms: i64,
        end_ms: i64,
        step: Duration,
    ) -> Result<Vec<Series>, Error> {
        let form = [
            ("query", query.to_owned()),
            ("start", seconds(start_ms)),
            ("end", seconds(end_ms)),
            ("step", format!("{:.3}", step.as_secs_f64())),
        ];
        let mut answer = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .form(&form)
            .send()
            .await
            .map_err(|e| self.foreign(&e))?;
        let status = answer.status().as_u16();
        let retry_after =
            answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.foreign(&e))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.answer(
                    status,
                    format!("its answer is longer than {MAX_ANSWER_BYTES} bytes"),
                    None,
                ));
            }
            body.extend_from_slice(&chunk);
        }
        let reply = decode(&body);
        match status {
            200..=299 => {}
            401 | 403 => {
                let (target, connector) = (self.target.clone(), self.connector.clone());
                return Err(Error::Refused { target, status, connector });
            }
            400 | 422 => {
                let problem =
                    reply.and_then(|reply| reply.error).unwrap_or_else(|| "it gives no reason".into());
                return Err(Error::Query { target: self.target.clone(), problem });
            }
            _ => {
                let problem = reply
                    .and_then(|reply| reply.error)
                    .unwrap_or_else(|| "this is not Prometheus' API".into());
                return Err(self.answer(status, problem, retry_after.map(Duration::from_secs)));
            }
        }
        let data = reply.and_then(|reply| reply.data);
        let Some(data) = data.filter(|data| data.result_type == "matrix") else {
            return Err(self.answer(status, "this is not a range of samples".into(), None));
        };
        serde_json::from_str(data.result.get())
            .map_err(|_| self.answer(status, "its samples cannot be read".into(), None))
    }

    fn answer(&self, status: u16, problem: String, retry_after: Option<Duration>) -> Error {
        Error::Answer { target: self.target.clone(), status, problem, retry_after }
    }

    fn foreign(&self, error: &reqwest::Error) -> Error {
        let target = self.target.clone();
        let mut last: &(dyn StdError + 'static) = error;
        loop {
            if let Some(tls) = last.downcast_ref::<rustls::Error>() {
                return Error::Tls { target, problem: tls.to_string() };
            }
            // I/O errors hide what they wrap from `source`.
            let inner = last.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            match inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| last.source()) {
                Some(next) => last = next,
                None => break,
            }
        }
        let cause = if error.is_timeout() {
            "no answer in time".to_owned()
        } else if last.is::<reqwest::Error>() {
            "no further cause is known".to_owned()
        } else {
            last.to_string()
        };
        Error::Unreachable { target, cause }
    }
}

/// `{"status","data":{"resultType","result"},"errorType","error"}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Box<RawValue>,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

impl Series {
    fn labels(&self) -> String {
        let name = self.metric.get("__name__").map(String::as_str).unwrap_or_default();
        let labels: Vec<_> = self
            .metric
            .iter()
            .filter(|(key, _)| *key != "__name__")
            .map(|(key, value)| format!("{key}={value:?}"))
            .collect();
        format!("{name}{{{}}}", labels.join(","))
    }
}

fn decode(body: &[u8]) -> Option<Reply> {
    serde_json::from_slice(body).ok()
}

fn points(values: &[(f64, String)]) -> Vec<Point> {
    let mut points: Vec<Point> = values
        .iter()
        .filter_map(|(at, value)| {
            let value: f64 = value.parse().ok()?;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "A cast saturates; no sample lies that far away."
            )]
            let at_ms = (at * 1000.0).round() as i64;
            (!value.is_nan() && at.is_finite()).then_some(Point { at_ms, value })
        })
        .collect();
    points.sort_by_key(|point| point.at_ms);
    points.dedup_by_key(|point| point.at_ms);
    points
}

/// Several series of one node as one.
fn joined(mut series: Vec<Vec<Point>>) -> Vec<Point> {
    if series.len() == 1 {
        return series.pop().unwrap_or_default();
    }
    let mut by_time: BTreeMap<i64, (f64, u32)> = BTreeMap::new();
    for point in series.into_iter().flatten() {
        let (sum, count) = by_time.entry(point.at_ms).or_insert((0.0, 0));
        *sum += point.value;
        *count += 1;
    }
    by_time
        .into_iter()
        .map(|(at_ms, (sum, count))| Point { at_ms, value: sum / f64::from(count.max(1)) })
        .collect()
}

/// Milliseconds as the API takes them: seconds with a fraction.
fn seconds(ms: i64) -> String {
    let ms = ms.max(0);
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn samples_are_read_as_prometheus_writes_them() {
        let body = br#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"x","b":"1"},
            "values":[[2.5,"+Inf"],[1.001,"3"],[1.5,"NaN"],[2.5,"4"]]}]}}"#;
        let data = decode(body).unwrap().data.unwrap();
        let series: Vec<Series> = serde_json::from_str(data.result.get()).unwrap();
        let found = points(&series[0].values);
        assert_eq!(found[0], Point { at_ms: 1001, value: 3.0 });
        assert_eq!((found.len(), found[1].at_ms, found[1].value), (2, 2500, f64::INFINITY));
        assert_eq!(series[0].labels(), "x{b=\"1\"}");
    }

    #[test]
    fn times_are_written_exactly() {
        assert_eq!(seconds(1_700_000_000_007), "1700000000.007");
        assert_eq!(seconds(-1), "0.000");
        let url = Url::parse("https://u:p@h:1/prom/api/v1/query_range?a").unwrap();
        assert_eq!(shown(&url), "https://h:1/prom");
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(body: Vec<u8>, values: Vec<(f64, String)>) {
            let _unused = decode(&body);
            let found = points(&values);
            prop_assert!(found.is_sorted_by_key(|point| point.at_ms));
            prop_assert!(found.iter().all(|point| !point.value.is_nan()));
        }
    }
}
