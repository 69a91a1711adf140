//! The table of settings and the text generated from it.

use std::fmt::Write;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Key in the TOML file and in [`super::Flags`].
    pub key: &'static str,
    /// Environment variables, the first one that is set wins.
    pub env: &'static [&'static str],
    /// Long flag without dashes; `None` for secrets, which never stand on a command line, and for rarely used ones.
    pub flag: Option<&'static str>,
    /// For people; empty when there is none.
    pub default: &'static str,
    /// What it is.
    pub help: &'static str,
}

const fn setting(
    key: &'static str,
    env: &'static [&'static str],
    flag: Option<&'static str>,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, env, flag, default, help }
}

/// Every setting, required ones first.
pub const SETTINGS: &[Setting] = &[
    setting("account_id", &["ACCOUNT_ID"], Some("account-id"), "required", "Account the agent belongs to."),
    setting(
        "manager_url",
        &["MANAGER_HOST_AND_PORT"],
        Some("manager-url"),
        "required",
        "Base URL of the manager: http or https, host and port.",
    ),
    setting("delegate_name", &["DELEGATE_NAME"], Some("name"), "required", "Name; replicas share it."),
    setting(
        "delegate_token",
        &["DELEGATE_TOKEN", "ACCOUNT_SECRET"],
        None,
        "required",
        "Delegate token: 32 hex characters, or the base64 of them.",
    ),
    setting(
        "delegate_token_file",
        &["DELEGATE_TOKEN_FILE"],
        Some("token-file"),
        "",
        "File that holds the token, instead of the token itself.",
    ),
    setting(
        "tags",
        &["DELEGATE_TAGS"],
        Some("tags"),
        "",
        "Tags that selectors are matched with, comma-separated.",
    ),
    setting("description", &["DELEGATE_DESCRIPTION"], None, "", "For people."),
    setting(
        "delegate_type",
        &["DELEGATE_TYPE"],
        None,
        "DOCKER",
        "KUBERNETES, HELM_DELEGATE, DOCKER, SHELL_SCRIPT, CE_KUBERNETES or ECS; only shown.",
    ),
    setting("org_identifier", &["DELEGATE_ORG_IDENTIFIER"], None, "", "Organisation of the token."),
    setting("project_identifier", &["DELEGATE_PROJECT_IDENTIFIER"], None, "", "Project of the token."),
    setting(
        "host_name",
        &["DELEGATE_HOST_NAME", "HOSTNAME"],
        Some("host-name"),
        "the machine's own",
        "Host name to register with; it is a selector of this one agent.",
    ),
    setting(
        "task_capacity",
        &["DELEGATE_TASK_CAPACITY"],
        Some("capacity"),
        "256",
        "Tasks held at once; a full agent takes no more and says so.",
    ),
    setting(
        "poll_for_tasks",
        &["POLL_FOR_TASKS"],
        None,
        "true",
        "Tasks are always polled for; `false` (web socket) is noted and ignored.",
    ),
    setting(
        "log_service_url",
        &["LOG_STREAMING_SERVICE_URL"],
        Some("log-service-url"),
        "MANAGER/log-service",
        "Base URL of the log service, used as written.",
    ),
    setting("proxy_host", &["PROXY_HOST"], None, "", "Proxy host."),
    setting("proxy_port", &["PROXY_PORT"], None, "", "Proxy port."),
    setting("proxy_scheme", &["PROXY_SCHEME"], None, "http", "http or https."),
    setting("proxy_user", &["PROXY_USER"], None, "", "User at the proxy."),
    setting("proxy_password", &["PROXY_PASSWORD"], None, "", "Password at the proxy."),
    setting("no_proxy", &["NO_PROXY"], None, "", "Suffixes of host names reached directly, comma-separated."),
    setting(
        "proxy_manager",
        &["PROXY_MANAGER"],
        None,
        "true",
        "Whether the manager is reached through the proxy.",
    ),
    setting(
        "ca_file",
        &["DELEGATE_CA_FILE"],
        Some("ca-file"),
        "",
        "PEM bundle trusted beside the system's certificates.",
    ),
    setting(
        "client_certificate",
        &["DELEGATE_CLIENT_CERTIFICATE_PATH"],
        Some("client-certificate"),
        "",
        "PEM file of the client certificate (mTLS).",
    ),
    setting(
        "client_certificate_key",
        &["DELEGATE_CLIENT_CERTIFICATE_KEY_PATH"],
        Some("client-certificate-key"),
        "",
        "PEM file of its key.",
    ),
    setting(
        "data_dir",
        &["DELEGATE_DATA_DIR"],
        Some("data-dir"),
        "/var/lib/delegate",
        "Where key, journal, spool and caches lie. One agent per directory.",
    ),
    setting(
        "health_listen",
        &["DELEGATE_HEALTH_LISTEN"],
        Some("health-listen"),
        "0.0.0.0:3460",
        "Address of /api/health and /api/metrics; port 0 picks a free one.",
    ),
    setting(
        "host_aliases",
        &["DELEGATE_HOST_ALIASES"],
        Some("host-aliases"),
        "",
        "name[:port]=address[:port], comma-separated; in the file a table. Where to connect instead; keys and certificates are still checked against the name.",
    ),
    setting(
        "foreign_task_types",
        &["DELEGATE_FOREIGN_TASK_TYPES"],
        None,
        "none",
        "What a manager without our extensions is offered: none, harness-cd (Harness' own CD tasks, docs/harness.md), or types in our own form, comma-separated.",
    ),
    setting(
        "record",
        &["DELEGATE_RECORD_DIR"],
        Some("record"),
        "",
        "Folder in which tasks of a Harness manager and their answers are kept without their secrets, the newest 500 files.",
    ),
    setting(
        "block_shell_task",
        &["BLOCK_SHELL_TASK"],
        None,
        "false",
        "Take no ShellScript steps that run on the agent itself.",
    ),
    setting(
        "drain_limit",
        &["DELEGATE_DRAIN_LIMIT"],
        Some("drain-limit"),
        "9m",
        "How long a drain waits for running steps (10s, 5m, 1h).",
    ),
    setting("spool_limit", &["DELEGATE_SPOOL_LIMIT"], None, "1GiB", "Disk for unsent logs of all units."),
    setting(
        "spool_unit_limit",
        &["DELEGATE_SPOOL_UNIT_LIMIT"],
        None,
        "256MiB",
        "Disk for unsent logs of one unit.",
    ),
    setting(
        "cache_limit",
        &["DELEGATE_CACHE_LIMIT"],
        None,
        "2GiB",
        "Disk for downloaded artifacts. The longest unused go first; what was used within a minute stays.",
    ),
    setting(
        "known_hosts_mode",
        &["DELEGATE_KNOWN_HOSTS_MODE"],
        None,
        "as the task says",
        "strict, accept-new or off: overrides the host-key policy of every task on this agent.",
    ),
];

/// The reference as Markdown.
pub fn reference_text() -> String {
    let mut text = String::from(
        "# Settings of the agent\n\nOrder: flag, environment, file, default. Every fault is reported at once (exit 64).\n\n\
         | file key | environment | flag | default | meaning |\n|---|---|---|---|---|\n",
    );
    for one in SETTINGS {
        let env = one.env.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let flag = one.flag.map_or_else(String::new, |flag| format!("`--{flag}`"));
        // Writing to a String cannot fail.
        let _unused = writeln!(text, "| `{}` | {env} | {flag} | {} | {} |", one.key, one.default, one.help);
    }
    text
}
