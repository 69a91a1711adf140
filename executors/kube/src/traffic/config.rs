//! `trafficRouting` as pipelines write it.

use super::fault;
use crate::variant::Fault;
use serde_json::Value;

/// Who routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    /// Gateway API: HTTPRoute.
    Gateway,
    /// Istio: VirtualService.
    Istio,
    /// Service Mesh Interface: TrafficSplit.
    Smi,
}

/// What a step is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Routing {
    /// A route of its own.
    New(Config),
    /// Other weights on the route that an earlier step of the release made.
    Inherit(Vec<Route>),
}

/// A route to make.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) provider: Provider,
    /// Name of the object.
    pub(crate) name: Option<String>,
    /// Hosts that are routed.
    pub(crate) hosts: Vec<String>,
    /// Gateways that they come in by.
    pub(crate) gateways: Vec<String>,
    /// Service whose traffic is split (SMI, and Gateway API inside a mesh).
    pub(crate) root_service: Option<String>,
    pub(crate) routes: Vec<Route>,
}

/// One rule with its destinations.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Route {
    pub(crate) name: Option<String>,
    /// A request that fits any of them takes this route; all requests when there is none.
    pub(crate) rules: Vec<Rule>,
    pub(crate) destinations: Vec<Destination>,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    /// A Service, or `stable`, `stage`, `canary`.
    pub(crate) host: String,
    /// As written; `None` counts as 0.
    pub(crate) weight: u32,
    pub(crate) port: Option<u16>,
}

/// How a text is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matching {
    Exact,
    Prefix,
    Regex,
}

/// One condition on requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rule {
    /// `uri`, `scheme`, `authority` with a text.
    Text { field: &'static str, matching: Matching, value: String },
    /// An HTTP method.
    Method(String),
    /// A port.
    Port(u16),
    /// Headers that must all fit.
    Headers(Vec<(String, Matching, String)>),
}

/// Reads a configuration: the whole of `K8sTrafficRouting` (`{type, trafficRouting}`), or what stands under
/// `trafficRouting` of a canary or blue-green step.
///
/// **Errors**: the field and what is wrong with it.
pub(crate) fn parse(value: &Value) -> Result<Routing, Fault> {
    let (inherit, at, body) = match value.get("type").and_then(Value::as_str) {
        Some("inherit") => (true, "trafficRouting", value.get("trafficRouting")),
        Some("config") => (false, "trafficRouting", value.get("trafficRouting")),
        Some(other) => return Err(fault("type", format!("`{other}`; expected config or inherit"))),
        None => (false, "trafficRouting", Some(value.get("trafficRouting").unwrap_or(value))),
    };
    let body = body.filter(|b| b.is_object()).ok_or_else(|| fault(at, "missing"))?;
    let spec = body.get("spec").filter(|s| s.is_object());
    if inherit {
        return Ok(Routing::Inherit(routes(spec.unwrap_or(body), "trafficRouting")?));
    }
    let provider = match body
        .get("provider")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "istio" => Provider::Istio,
        "smi" => Provider::Smi,
        "gateway" | "gatewayapi" | "gateway-api" => Provider::Gateway,
        "" => return Err(fault("trafficRouting.provider", "missing; expected istio, smi or gatewayApi")),
        other => {
            return Err(fault(
                "trafficRouting.provider",
                format!("`{other}`; expected istio, smi or gatewayApi"),
            ));
        }
    };
    let spec = spec.ok_or_else(|| fault("trafficRouting.spec", "missing"))?;
    Ok(Routing::New(Config {
        provider,
        name: text(spec, "name"),
        hosts: texts(spec, "hosts"),
        gateways: texts(spec, "gateways"),
        root_service: text(spec, "rootService").or_else(|| text(spec, "delegateService")),
        routes: routes(spec, "trafficRouting.spec")?,
    }))
}

fn text(parent: &Value, key: &str) -> Option<String> {
    parent.get(key).and_then(Value::as_str).map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned)
}

/// A list of texts, or one text with commas.
fn texts(parent: &Value, key: &str) -> Vec<String> {
    let all: Vec<&str> = match parent.get(key) {
        Some(Value::String(text)) => text.split(',').collect(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    all.into_iter().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

/// A number, or a text that is one; nothing and null are `None`.
fn number(parent: &Value, key: &str, at: &str) -> Result<Option<u64>, Fault> {
    let bad = |found: &Value| {
        fault(format!("{at}.{key}"), format!("{found}; expected a whole number, not negative"))
    };
    match parent.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(found @ Value::String(text)) => text.trim().parse().map(Some).map_err(|_| bad(found)),
        Some(found) => found.as_u64().map(Some).ok_or_else(|| bad(found)),
    }
}

fn port(parent: &Value, key: &str, at: &str) -> Result<Option<u16>, Fault> {
    match number(parent, key, at)? {
        None => Ok(None),
        Some(number) => match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err(fault(format!("{at}.{key}"), format!("{number} is no port"))),
        },
    }
}

/// The items of a list; each may stand under a key of its own (`- route: {…}`).
fn items<'a>(parent: &'a Value, key: &str, wrapper: &str) -> Vec<&'a Value> {
    let list = parent.get(key).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|item| item.get(wrapper).filter(|w| w.is_object()).unwrap_or(item))
        .collect()
}

fn routes(spec: &Value, at: &str) -> Result<Vec<Route>, Fault> {
    let shared = destinations(spec, at)?;
    let mut routes = Vec::new();
    for (index, route) in items(spec, "routes", "route").into_iter().enumerate() {
        let at = format!("{at}.routes[{index}]");
        if let Some(other) = text(route, "type").filter(|t| !t.eq_ignore_ascii_case("http")) {
            return Err(fault(format!("{at}.type"), format!("`{other}`; only http can be routed")));
        }
        let mut own = destinations(route, &at)?;
        if own.is_empty() {
            own.clone_from(&shared);
        }
        if own.is_empty() {
            return Err(fault(format!("{at}.destinations"), "at least one is needed"));
        }
        let mut rules = Vec::new();
        for (index, item) in items(route, "rules", "rule").into_iter().enumerate() {
            rules.push(rule(item, &format!("{at}.rules[{index}]"))?);
        }
        routes.push(Route { name: text(route, "name"), rules, destinations: own });
    }
    if routes.is_empty() {
        return Err(fault(format!("{at}.routes"), "at least one is needed"));
    }
    Ok(routes)
}

fn destinations(parent: &Value, at: &str) -> Result<Vec<Destination>, Fault> {
    let mut all = Vec::new();
    for (index, item) in items(parent, "destinations", "destination").into_iter().enumerate() {
        let at = format!("{at}.destinations[{index}]");
        let host = text(item, "host").ok_or_else(|| fault(format!("{at}.host"), "missing"))?;
        let weight = number(item, "weight", &at)?.unwrap_or(0);
        let weight = u32::try_from(weight)
            .map_err(|_| fault(format!("{at}.weight"), format!("{weight} is too large")))?;
        all.push(Destination { host, weight, port: port(item, "port", &at)? });
    }
    Ok(all)
}

fn rule(item: &Value, at: &str) -> Result<Rule, Fault> {
    let spec = item.get("spec").unwrap_or(item);
    let value = || text(spec, "value").ok_or_else(|| fault(format!("{at}.spec.value"), "missing"));
    let field = match text(item, "type").unwrap_or_default().to_ascii_lowercase().as_str() {
        "uri" => "uri",
        "scheme" => "scheme",
        "authority" => "authority",
        "method" => return Ok(Rule::Method(value()?.to_ascii_uppercase())),
        "port" => {
            let found = port(spec, "value", &format!("{at}.spec"))?;
            return found.map(Rule::Port).ok_or_else(|| fault(format!("{at}.spec.value"), "missing"));
        }
        "headers" | "header" => return headers(spec, at),
        other => {
            let text = format!("`{other}`; expected uri, method, headers, port, scheme or authority");
            return Err(fault(format!("{at}.type"), text));
        }
    };
    Ok(Rule::Text { field, matching: matching(spec, at)?, value: value()? })
}

fn headers(spec: &Value, at: &str) -> Result<Rule, Fault> {
    let mut all = Vec::new();
    for (index, item) in items(spec, "values", "value").into_iter().enumerate() {
        let at = format!("{at}.spec.values[{index}]");
        let part = |key: &str| text(item, key).ok_or_else(|| fault(format!("{at}.{key}"), "missing"));
        all.push((part("key")?, matching(item, &at)?, part("value")?));
    }
    if all.is_empty() {
        return Err(fault(format!("{at}.spec.values"), "at least one header is needed"));
    }
    Ok(Rule::Headers(all))
}

fn matching(spec: &Value, at: &str) -> Result<Matching, Fault> {
    match text(spec, "matchType").unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "exact" => Ok(Matching::Exact),
        "prefix" => Ok(Matching::Prefix),
        "regex" => Ok(Matching::Regex),
        other => Err(fault(format!("{at}.matchType"), format!("`{other}`; expected exact, prefix or regex"))),
    }
}
