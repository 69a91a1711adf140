//! Reading and checking.

use super::{Config, ConfigFault, ConfigFile, Flags, ForeignTasks, Proxy, SETTINGS, Setting, SpoolLimits};
use executor_api::HostAliases;

use proto::task::HostKeyMode;
use proto::token::DelegateToken;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// How many tasks an agent holds at once unless told otherwise (settled facts §1.6).
const DEFAULT_CAPACITY: usize = 256;
/// Kubernetes kills 600 s after SIGTERM (the chart's grace period); the rest is for cancelled steps, logs and results.
const DEFAULT_DRAIN: Duration = Duration::from_secs(540);
/// Harness' delegate types (protocol.md §2).
const DELEGATE_TYPES: [&str; 6] =
    ["KUBERNETES", "HELM_DELEGATE", "DOCKER", "SHELL_SCRIPT", "CE_KUBERNETES", "ECS"];
const MIB: u64 = 1024 * 1024;
/// Below this a single batch would fill the spool, and a cache would hold nothing.
const MIN_SIZE: u64 = MIB;

struct Value {
    text: String,
    /// The name as the user wrote it.
    name: String,
    origin: String,
}

struct Reader {
    values: BTreeMap<&'static str, Value>,
    faults: Vec<ConfigFault>,
    notices: Vec<String>,
}

pub(super) fn load(
    env: &BTreeMap<String, String>,
    file: Option<ConfigFile<'_>>,
    flags: &Flags,
) -> Result<Config, Vec<ConfigFault>> {
    let mut reader = Reader { values: BTreeMap::new(), faults: Vec::new(), notices: Vec::new() };
    if let Some(file) = file {
        reader.take_file(file);
    }
    reader.take_env(env);
    reader.take_flags(flags);
    let config = reader.build();
    match config {
        Some(config) if reader.faults.is_empty() => Ok(config),
        _ => {
            let position = |fault: &ConfigFault| {
                SETTINGS.iter().position(|one| {
                    one.key == fault.name
                        || one.env.contains(&fault.name.as_str())
                        || one.flag == fault.name.strip_prefix("--")
                })
            };
            reader.faults.sort_by_key(position);
            Err(reader.faults)
        }
    }
}

impl Reader {
    fn put(&mut self, key: &'static str, text: String, name: &str, origin: &str) {
        self.values.insert(key, Value { text, name: name.to_owned(), origin: origin.to_owned() });
    }

    fn fault_at(&mut self, name: &str, origin: &str, problem: String) {
        self.faults.push(ConfigFault { name: name.to_owned(), origin: origin.to_owned(), problem });
    }

    /// A fault of the setting `key`, named as its value was written.
    fn fault(&mut self, key: &'static str, problem: String) {
        let (name, origin) = match self.values.get(key) {
            Some(value) => (value.name.clone(), value.origin.clone()),
            None => {
                let env = SETTINGS.iter().find(|one| one.key == key).and_then(|one| one.env.first());
                ((*env.unwrap_or(&key)).to_owned(), "configuration".to_owned())
            }
        };
        self.fault_at(&name, &origin, problem);
    }

    fn take_file(&mut self, file: ConfigFile<'_>) {
        let table: toml::Table = match file.text.parse() {
            Ok(table) => table,
            Err(error) => {
                let problem = format!("is not TOML: {}", error.to_string().trim_end());
                return self.fault_at("file", file.path, problem);
            }
        };
        for (key, value) in table {
            let Some(setting) = SETTINGS.iter().find(|one| one.key == key) else {
                let near = nearest(&key);
                let problem = match near {
                    Some(near) => format!("is no setting; did you mean `{near}`?"),
                    None => "is no setting".to_owned(),
                };
                self.fault_at(&key, file.path, problem);
                continue;
            };
            match flatten(setting, value) {
                Ok(text) => self.put(setting.key, text, &key, file.path),
                Err(problem) => self.fault_at(&key, file.path, problem),
            }
        }
    }

    fn take_env(&mut self, env: &BTreeMap<String, String>) {
        for setting in SETTINGS {
            // An empty variable counts as not set: that is how charts and unit files leave one out.
            let found = setting.env.iter().find_map(|name| {
                env.get(*name)
                    .map(|value| value.trim())
                    .filter(|value| !value.is_empty())
                    .map(|value| (*name, value))
            });
            if let Some((name, value)) = found {
                self.put(setting.key, value.to_owned(), name, "environment");
            }
        }
        if env.get("TRUST_ALL_CERTIFICATES").is_some_and(|value| value == "true") {
            self.notices.push(
                "TRUST_ALL_CERTIFICATES is ignored: certificates are always checked; name your CA in DELEGATE_CA_FILE"
                    .to_owned(),
            );
        }
        if env.get("INIT_SCRIPT").is_some_and(|value| !value.trim().is_empty()) {
            self.notices.push("INIT_SCRIPT is not run by this agent".to_owned());
        }
    }

    fn take_flags(&mut self, flags: &Flags) {
        for (key, value) in flags {
            match SETTINGS.iter().find(|one| one.key == key && one.flag.is_some()) {
                Some(setting) => {
                    let name = format!("--{}", setting.flag.unwrap_or(setting.key));
                    self.put(setting.key, value.clone(), &name, "flag");
                }
                None => self.fault_at(key, "flag", "cannot be set by a flag".to_owned()),
            }
        }
    }

    fn text(&self, key: &'static str) -> Option<String> {
        self.values.get(key).map(|value| value.text.clone())
    }

    fn required(&mut self, key: &'static str) -> Option<String> {
        let text = self.text(key);
        if text.is_none() {
            self.fault(key, "is required".to_owned());
        }
        text
    }

    fn parsed<T>(&mut self, key: &'static str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> T {
        match self.text(key).map(|text| parse(&text)) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(problem)) => {
                self.fault(key, problem);
                default
            }
        }
    }

    fn list(&self, key: &'static str) -> Vec<String> {
        let text = self.text(key).unwrap_or_default();
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
    }

    fn url(&mut self, key: &'static str, written: Option<String>) -> Option<String> {
        let written = written?;
        match url::Url::parse(&written) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                if !url.username().is_empty() || url.password().is_some() {
                    self.fault(key, "holds a login; expected a plain URL".to_owned());
                }
                Some(written.trim_end_matches('/').to_owned())
            }
            _ => {
                self.fault(
                    key,
                    format!("is `{written}`; expected http://HOST[:PORT] or https://HOST[:PORT]"),
                );
                None
            }
        }
    }

    fn token(&mut self) -> Option<DelegateToken> {
        let written = match (self.text("delegate_token"), self.text("delegate_token_file")) {
            (Some(token), _) => token,
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(token) => token,
                Err(error) => {
                    self.fault("delegate_token_file", format!("is `{path}`, which cannot be read: {error}"));
                    return None;
                }
            },
            (None, None) => {
                self.fault("delegate_token", "is required".to_owned());
                return None;
            }
        };
        match DelegateToken::normalise(&written) {
            Ok(token) => Some(token),
            Err(_) => {
                // The value itself is a secret, also when it is wrong.
                let shape = format!(
                    "has {} characters; expected 32 hex characters, or the base64 of them",
                    written.trim().len()
                );
                self.fault("delegate_token", shape);
                None
            }
        }
    }

    fn proxy(&mut self) -> Option<Proxy> {
        let host = self.text("proxy_host")?;
        let scheme = self.parsed("proxy_scheme", "http".to_owned(), |text| {
            let text = text.to_ascii_lowercase();
            if text == "http" || text == "https" {
                Ok(text)
            } else {
                Err(format!("is `{text}`; expected http or https"))
            }
        });
        let port = self.parsed("proxy_port", None, |text| {
            text.parse::<u16>().map(Some).map_err(|_| format!("is `{text}`; expected a port number"))
        });
        let url = match port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        if url::Url::parse(&url).is_err() {
            self.fault("proxy_host", format!("is `{host}`; expected a host name"));
        }
        let login = self
            .text("proxy_user")
            .map(|user| (user, SecretString::from(self.text("proxy_password").unwrap_or_default())));
        let for_manager = self.parsed("proxy_manager", true, boolean);
        Some(Proxy { url, login, no_proxy: self.text("no_proxy").unwrap_or_default(), for_manager })
    }

    fn build(&mut self) -> Option<Config> {
        let account_id = self.required("account_id");
        let written = self.required("manager_url");
        let manager_url = self.url("manager_url", written);
        let name = self.required("delegate_name");
        let token = self.token();
        let written = self.text("log_service_url");
        let log_service_url = self
            .url("log_service_url", written)
            .or_else(|| manager_url.as_ref().map(|base| format!("{base}/log-service")));
        let capacity = self.parsed("task_capacity", NonZeroUsize::new(DEFAULT_CAPACITY), |text| {
            text.parse().map(Some).map_err(|_| format!("is `{text}`; expected a whole number from 1"))
        });
        if !self.parsed("poll_for_tasks", true, boolean) {
            self.notices.push("POLL_FOR_TASKS=false: this agent has no web socket; it polls".to_owned());
        }
        let delegate_type = self.parsed("delegate_type", "DOCKER".to_owned(), |text| {
            if DELEGATE_TYPES.contains(&text) {
                Ok(text.to_owned())
            } else {
                Err(format!("is `{text}`; expected one of {}", DELEGATE_TYPES.join(", ")))
            }
        });
        let pair = (self.text("client_certificate"), self.text("client_certificate_key"));
        let client_certificate = match pair {
            (Some(certificate), Some(key)) => Some((PathBuf::from(certificate), PathBuf::from(key))),
            (None, None) => None,
            (Some(_), None) => {
                self.fault("client_certificate", "is set, but its key is not".to_owned());
                None
            }
            (None, Some(_)) => {
                self.fault("client_certificate_key", "is set, but its certificate is not".to_owned());
                None
            }
        };
        let health_listen = self.parsed("health_listen", ([0, 0, 0, 0], 3460).into(), |text| {
            text.parse().map_err(|_| format!("is `{text}`; expected ADDRESS:PORT such as 127.0.0.1:3460"))
        });
        let host_aliases = self.parsed("host_aliases", HostAliases::default(), aliases);
        let drain_limit = self.parsed("drain_limit", DEFAULT_DRAIN, duration);
        let spool = SpoolLimits {
            agent_bytes: self.parsed("spool_limit", 1024 * MIB, bytes),
            unit_bytes: self.parsed("spool_unit_limit", 256 * MIB, bytes),
        };
        let cache_limit = self.parsed("cache_limit", 2048 * MIB, bytes);
        let known_hosts_mode =
            self.parsed("known_hosts_mode", None, |text| text.parse::<HostKeyMode>().map(Some));
        let proxy = self.proxy();
        Some(Config {
            account_id: account_id?,
            manager_url: manager_url?,
            token: token?,
            name: name?,
            host_name: self.text("host_name"),
            delegate_type,
            tags: self.list("tags"),
            description: self.text("description").unwrap_or_default(),
            org: self.text("org_identifier"),
            project: self.text("project_identifier"),
            capacity: capacity?,
            log_service_url: log_service_url?,
            proxy,
            ca_file: self.text("ca_file").map(PathBuf::from),
            client_certificate,
            data_dir: PathBuf::from(self.text("data_dir").unwrap_or_else(|| "/var/lib/delegate".to_owned())),
            health_listen,
            host_aliases,
            foreign_task_types: self.parsed("foreign_task_types", ForeignTasks::None, foreign_tasks),
            record: self.text("record").map(PathBuf::from),
            block_shell_task: self.parsed("block_shell_task", false, boolean),
            drain_limit,
            spool,
            cache_limit,
            known_hosts_mode,
            notices: std::mem::take(&mut self.notices),
        })
    }
}

/// A TOML value as the text an environment variable would hold.
fn flatten(setting: &Setting, value: toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        toml::Value::Array(list) if matches!(setting.key, "tags" | "foreign_task_types") => {
            let mut parts = Vec::new();
            for one in list {
                match one {
                    toml::Value::String(text) if !text.contains(',') => parts.push(text),
                    other => return Err(format!("holds {other}; expected strings without a comma")),
                }
            }
            Ok(parts.join(","))
        }
        toml::Value::Table(table) if setting.key == "host_aliases" => {
            let mut parts = Vec::new();
            for (from, to) in table {
                match to {
                    toml::Value::String(to) => parts.push(format!("{from}={to}")),
                    other => return Err(format!("maps `{from}` to {other}; expected \"address:port\"")),
                }
            }
            Ok(parts.join(","))
        }
        other => Err(format!("is a {}; expected a single value", other.type_str())),
    }
}

/// `harness-cd`, or types of our own form.
fn foreign_tasks(text: &str) -> Result<ForeignTasks, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
    match parts.as_slice() {
        [] | ["none"] => return Ok(ForeignTasks::None),
        ["harness-cd"] => return Ok(ForeignTasks::HarnessCd),
        _ => {}
    }
    let known = &crate::dialect::TASK_TYPES;
    match parts.iter().find(|part| !known.contains(part)) {
        None => Ok(ForeignTasks::Own(parts.into_iter().map(str::to_owned).collect())),
        Some(&("harness-cd" | "none")) => Err(format!("is `{text}`; harness-cd and none stand alone")),
        Some(other) => {
            Err(format!("holds `{other}`; expected none, harness-cd, or types out of {}", known.join(", ")))
        }
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("is `{text}`; expected true or false")),
    }
}

/// `30s`, `5m`, `1h`; a bare number is refused, because nobody can tell its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("is `{text}`; expected a duration such as 30s, 5m or 1h");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(problem)?);
    let number: u64 = number.parse().map_err(|_| problem())?;
    let seconds = match unit {
        "s" => number,
        "m" => number.saturating_mul(60),
        "h" => number.saturating_mul(3600),
        _ => return Err(problem()),
    };
    Ok(Duration::from_secs(seconds))
}

fn bytes(text: &str) -> Result<u64, String> {
    let problem = || format!("is `{text}`; expected a size of at least 1MiB, such as 256MiB or 1GiB");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(problem)?);
    let number: u64 = number.parse().map_err(|_| problem())?;
    let unit = match unit {
        "KiB" => 1024,
        "MiB" => MIB,
        "GiB" => 1024 * MIB,
        _ => return Err(problem()),
    };
    number.checked_mul(unit).filter(|size| *size >= MIN_SIZE).ok_or_else(problem)
}

fn aliases(text: &str) -> Result<HostAliases, String> {
    let mut pairs = Vec::new();
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        match one.split_once('=') {
            Some((from, to)) if !from.trim().is_empty() && !to.trim().is_empty() => {
                pairs.push((from.trim().to_owned(), to.trim().to_owned()));
            }
            _ => return Err(format!("holds `{one}`; expected name[:port]=address[:port]")),
        }
    }
    Ok(HostAliases::new(pairs))
}

/// The setting whose key differs by the fewest letters, if it is near enough to be meant.
fn nearest(key: &str) -> Option<&'static str> {
    SETTINGS
        .iter()
        .map(|one| (distance(key, one.key), one.key))
        .min()
        .filter(|(far, _)| *far <= 3)
        .map(|(_, key)| key)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, up) in b.iter().zip(row.iter().skip(1)) {
            let cost = (diagonal + usize::from(from != *to)).min(left + 1).min(*up + 1);
            diagonal = *up;
            left = cost;
            next.push(cost);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
