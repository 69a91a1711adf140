//! What a manager wants proven before it gives a task away: execution capabilities, and the report about them.
//! **Source**: protocol facts §4.4, §4.5.
//!
//! Each capability has a text that stands for it, the *criteria*: the manager caches the verdict under it, so the report must
//! repeat it letter by letter.

use proto::package::TaskPackage;
use serde_json::{Value, json};

/// One capability of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What stands for it.
    pub criteria: String,
    /// How it is proven.
    pub check: Check,
}

/// How a capability is proven. The agent does it; none of these changes anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The URL answers, without following redirects. **Source**: any status but 400 counts (facts `ecs-ssh-steps.md` C1).
    Url {
        /// The URL.
        url: String,
        /// 400 counts too.
        any_status: bool,
    },
    /// A TCP connection opens.
    Address {
        /// Host.
        host: String,
        /// Port.
        port: u16,
    },
    /// A program of the agent's machine ends well.
    Program {
        /// Program and arguments.
        arguments: Vec<String>,
    },
    /// Nothing is to be looked at: selectors were matched by the manager, and some capabilities always hold.
    Holds,
    /// This agent cannot tell: a kind that it does not know, named here.
    Unknown(String),
}

/// The capabilities of a package, one for each entry, in their order: the manager counts them.
pub fn capabilities(package: &TaskPackage) -> Vec<Capability> {
    package.capabilities.iter().map(read).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default().trim()
}

/// A number that may be written as a text.
fn port(value: &Value, key: &str) -> Option<u16> {
    match value.get(key)? {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_u64().and_then(|port| u16::try_from(port).ok()),
    }
    .filter(|port| *port > 0)
}

fn read(value: &Value) -> Capability {
    let kind = text(value, "capabilityType");
    let known = match kind {
        "HTTP" => http(value),
        "SOCKET" => socket(value),
        "NG_SSH_HOST_CONNECTION" => host(value),
        "PROCESS_EXECUTOR" => program(value),
        "SELECTORS" | "ALWAYS_TRUE" => {
            Some(Capability { criteria: text(value, "selectorOrigin").to_owned(), check: Check::Holds })
        }
        _ => None,
    };
    known.unwrap_or_else(|| {
        let mut name: String = kind.chars().filter(|c| !c.is_control()).take(80).collect();
        if name.is_empty() {
            name = "a capability without a type".to_owned();
        }
        Capability { criteria: text(value, "criteria").to_owned(), check: Check::Unknown(name) }
    })
}

fn http(value: &Value) -> Option<Capability> {
    let any_status = value.get("ignoreResponseCode").and_then(Value::as_bool).unwrap_or(false);
    let url = match text(value, "url") {
        "" => {
            let host = Some(text(value, "host")).filter(|host| !host.is_empty())?;
            let mut url = match text(value, "scheme") {
                "" => host.to_owned(),
                scheme => format!("{scheme}://{host}"),
            };
            if let Some(port) = port(value, "port") {
                url.push_str(&format!(":{port}"));
            }
            for (mark, key) in [('/', "path"), ('?', "query")] {
                if !text(value, key).is_empty() {
                    url.push(mark);
                    url.push_str(text(value, key));
                }
            }
            url
        }
        url => url.to_owned(),
    };
    Some(Capability { criteria: url.clone(), check: Check::Url { url, any_status } })
}

fn socket(value: &Value) -> Option<Capability> {
    let (scheme, host, url) = (text(value, "scheme"), text(value, "hostName"), text(value, "url"));
    let written = text(value, "port");
    let criteria = match (scheme, host) {
        ("", _) | (_, "") => url.to_owned(),
        _ if written.is_empty() => format!("{scheme}://{host}"),
        _ => format!("{scheme}://{host}:{written}"),
    };
    // The place is what the criteria name, when no host is written.
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = rest.split('/').next().unwrap_or_default();
    let (of_url, port_of_url) = match place.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (place, None),
    };
    let host = if host.is_empty() { of_url } else { host };
    let scheme = if scheme.is_empty() { url.split("://").next().unwrap_or_default() } else { scheme };
    let of_scheme = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        "ssh" => Some(22),
        _ => None,
    };
    let port = port(value, "port").or(port_of_url).or(of_scheme)?;
    (!host.is_empty()).then(|| Capability { criteria, check: Check::Address { host: host.to_owned(), port } })
}

fn host(value: &Value) -> Option<Capability> {
    let key = value.get("sshInfraDelegateConfig")?.get("sshKeySpecDto")?;
    let written = Some(text(value, "host")).filter(|host| !host.is_empty())?;
    let port = port(key, "port").unwrap_or(22);
    // The criteria name the host without a port of its own, and the key's port always.
    let (host, own) = match written.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, port.parse().ok()),
        _ => (written, None),
    };
    let mut criteria = format!("{host}:{port}");
    if key.pointer("/auth/type").and_then(Value::as_str) == Some("Kerberos") {
        criteria.push_str(":kerberos");
    }
    Some(Capability { criteria, check: Check::Address { host: host.to_owned(), port: own.unwrap_or(port) } })
}

fn program(value: &Value) -> Option<Capability> {
    let arguments = value.get("processExecutorArguments")?.as_array()?;
    let arguments: Vec<String> = arguments.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect();
    let criteria = text(value, "category").to_owned();
    (!arguments.is_empty()).then_some(Capability { criteria, check: Check::Program { arguments } })
}

/// What was found about one capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// As in [`Capability::criteria`].
    pub criteria: String,
    /// Whether it holds.
    pub holds: bool,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
}

/// The body of the report: one element for each capability, in their order.
pub fn report(account_id: &str, delegate_id: &str, verdicts: &[Verdict]) -> Value {
    let one = |verdict: &Verdict| {
        json!({"accountId": account_id, "delegateId": delegate_id, "criteria": verdict.criteria,
            "validated": verdict.holds, "duration": verdict.duration_ms})
    };
    verdicts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: Value) -> Capability {
        let mut package = TaskPackage::new("t", "X", &Value::Null).unwrap();
        package.capabilities = vec![value];
        capabilities(&package).pop().unwrap()
    }

    #[test]
    fn criteria_are_what_the_manager_makes_of_a_capability() {
        let url = |url: &str, any_status| Capability {
            criteria: url.into(),
            check: Check::Url { url: url.into(), any_status },
        };
        assert_eq!(
            of(json!({"capabilityType": "HTTP", "url": "https://git.example"})),
            url("https://git.example", false)
        );
        let parts = json!({"capabilityType": "HTTP", "url": null, "host": "h", "scheme": "https", "port": 8443, "path": "a/b", "query": "x=1", "ignoreResponseCode": true});
        assert_eq!(of(parts), url("https://h:8443/a/b?x=1", true));
        assert_eq!(
            of(json!({"capabilityType": "HTTP", "host": "h", "scheme": "http", "port": -1})),
            url("http://h", false)
        );
        let at = |criteria: &str, host: &str, port| Capability {
            criteria: criteria.into(),
            check: Check::Address { host: host.into(), port },
        };
        assert_eq!(
            of(json!({"capabilityType": "SOCKET", "hostName": "h", "scheme": "https", "port": "6443"})),
            at("https://h:6443", "h", 6443)
        );
        assert_eq!(
            of(json!({"capabilityType": "SOCKET", "url": "https://h.example/x"})),
            at("https://h.example/x", "h.example", 443)
        );
        let key = |auth: &str| json!({"sshKeySpecDto": {"port": 22, "auth": {"type": auth}}});
        let ssh = |host: &str, auth| {
            of(
                json!({"capabilityType": "NG_SSH_HOST_CONNECTION", "host": host, "sshInfraDelegateConfig": key(auth)}),
            )
        };
        assert_eq!(ssh("10.0.0.21", "SSH"), at("10.0.0.21:22", "10.0.0.21", 22));
        assert_eq!(ssh("h:2222", "SSH"), at("h:22", "h", 2222));
        assert_eq!(ssh("h", "Kerberos").criteria, "h:22:kerberos");
        let program = of(
            json!({"capabilityType": "PROCESS_EXECUTOR", "category": "TERRAFORM:terraform", "processExecutorArguments": ["/bin/sh", "-c", "terraform --version"]}),
        );
        assert_eq!(program.criteria, "TERRAFORM:terraform");
        assert!(matches!(program.check, Check::Program { arguments } if arguments.len() == 3));
        assert_eq!(
            of(json!({"capabilityType": "SELECTORS", "selectors": ["a"], "selectorOrigin": "step"})).check,
            Check::Holds
        );
    }

    #[test]
    fn what_is_not_known_is_named_and_still_counted() {
        for (value, name) in [
            (json!({"capabilityType": "PCF_CONNECTIVITY", "criteria": "c"}), "PCF_CONNECTIVITY"),
            (json!(7), "a capability without a type"),
            (json!({"capabilityType": "HTTP"}), "HTTP"),
            (json!({"capabilityType": "SOCKET", "hostName": ""}), "SOCKET"),
            (
                json!({"capabilityType": "PROCESS_EXECUTOR", "processExecutorArguments": "x"}),
                "PROCESS_EXECUTOR",
            ),
        ] {
            assert_eq!(of(value).check, Check::Unknown(name.into()));
        }
        let verdict = Verdict { criteria: "https://git.example".into(), holds: true, duration_ms: 42 };
        let body = json!([{"accountId": "acct1", "delegateId": "d1", "criteria": "https://git.example", "validated": true, "duration": 42}]);
        assert_eq!(report("acct1", "d1", &[verdict]), body);
    }
}
