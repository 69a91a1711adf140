use super::*;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let base = [
        ("ACCOUNT_ID", "acct"),
        ("MANAGER_HOST_AND_PORT", "https://m.example:8840/"),
        ("DELEGATE_NAME", "zone"),
        ("DELEGATE_TOKEN", "00112233445566778899aabbccddeeff"),
    ];
    base.iter().chain(pairs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> Option<ConfigFile<'_>> {
    Some(ConfigFile { path: "agent.toml", text })
}

#[test]
fn harness_names_and_defaults() {
    let config = Config::load(
        &env(&[("DELEGATE_TAGS", " a ,, b,"), ("POLL_FOR_TASKS", "false")]),
        None,
        &Flags::new(),
    )
    .unwrap();
    assert_eq!(config.manager_url, "https://m.example:8840");
    assert_eq!(config.log_service_url, "https://m.example:8840/log-service");
    assert_eq!(config.tags, ["a", "b"]);
    assert_eq!(config.capacity.get(), 256);
    assert_eq!(config.health_listen.to_string(), "0.0.0.0:3460");
    assert_eq!(config.notices.len(), 1);
    assert_eq!(config.cache_limit, 2 << 30);
    assert_eq!(config.foreign_task_types, ForeignTasks::None);
}

#[test]
fn foreign_tasks_are_named_or_refused_by_name() {
    let load = |text: &str| Config::load(&env(&[("DELEGATE_FOREIGN_TASK_TYPES", text)]), None, &Flags::new());
    let types = |text: &str| load(text).unwrap().foreign_task_types;
    assert_eq!(types("none"), ForeignTasks::None);
    assert_eq!(types("harness-cd"), ForeignTasks::HarnessCd);
    assert_eq!(
        types("HTTP_TASK_NG, DELEGATE_NOOP_TASK"),
        ForeignTasks::Own(vec!["HTTP_TASK_NG".into(), "DELEGATE_NOOP_TASK".into()])
    );
    for (wrong, said) in [
        ("harness", "holds `harness`; expected none, harness-cd, or types out of COMMAND_TASK_NG"),
        ("harness-cd,HTTP_TASK_NG", "harness-cd and none stand alone"),
    ] {
        let faults = load(wrong).unwrap_err();
        let text = faults[0].to_string();
        assert!(text.contains("DELEGATE_FOREIGN_TASK_TYPES") && text.contains(said), "{text}");
    }
}

#[test]
fn local_scripts_can_be_blocked() {
    let types = |pairs: &[(&str, &str)]| {
        crate::dialect::own_task_types(&Config::load(&env(pairs), None, &Flags::new()).unwrap())
    };
    let (all, rest) = (types(&[]), types(&[("BLOCK_SHELL_TASK", "true")]));
    assert!(all.iter().any(|kind| kind == "SHELL_SCRIPT_TASK_NG"));
    assert!(rest.iter().all(|kind| kind != "SHELL_SCRIPT_TASK_NG"));
    assert_eq!(rest.len() + 1, all.len());
}

#[test]
fn a_configured_log_service_is_used_as_written() {
    let config =
        Config::load(&env(&[("LOG_STREAMING_SERVICE_URL", "http://127.0.0.1:8079/")]), None, &Flags::new())
            .unwrap();
    assert_eq!(config.log_service_url, "http://127.0.0.1:8079");
}

#[test]
fn flags_go_before_environment_before_file() {
    let text = "tags = ['file']\ntask_capacity = 3\ndrain_limit = '10s'\n[host_aliases]\n'web:80' = '127.0.0.1:8080'\n";
    let flags = Flags::from([("task_capacity".to_owned(), "5".to_owned())]);
    let config =
        Config::load(&env(&[("DELEGATE_TASK_CAPACITY", "4"), ("DELEGATE_TAGS", "env")]), file(text), &flags)
            .unwrap();
    assert_eq!((config.capacity.get(), config.drain_limit), (5, Duration::from_secs(10)));
    assert_eq!(config.tags, ["env"]);
    assert_eq!(config.host_aliases.lookup("web", 80), Some(("127.0.0.1".to_owned(), 8080)));
}

#[test]
fn every_fault_is_told_at_once_and_names_what_was_written() {
    let text = "drain_limt = '10s'\nspool_limit = '5'\nhost_aliases = 3\n";
    let pairs = [
        ("DELEGATE_TASK_CAPACITY", "0"),
        ("DELEGATE_HEALTH_LISTEN", "x"),
        ("DELEGATE_CACHE_LIMIT", "2 GB"),
        ("DELEGATE_CLIENT_CERTIFICATE_PATH", "/c"),
    ];
    let mut env = env(&pairs);
    env.remove("ACCOUNT_ID");
    env.insert("DELEGATE_TOKEN".into(), "my-secret-value".into());
    env.insert("MANAGER_HOST_AND_PORT".into(), "m.example".into());
    let flags = Flags::from([("delegate_token".to_owned(), "x".to_owned())]);
    let faults = Config::load(&env, file(text), &flags).unwrap_err();
    let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let all = text.join("\n");
    for part in [
        "configuration: `ACCOUNT_ID` is required",
        "environment: `MANAGER_HOST_AND_PORT` is `m.example`; expected http",
        "environment: `DELEGATE_TOKEN` has 15 characters",
        "flag: `delegate_token` cannot be set by a flag",
        "environment: `DELEGATE_TASK_CAPACITY` is `0`",
        "agent.toml: `drain_limt` is no setting; did you mean `drain_limit`?",
        "agent.toml: `spool_limit` is `5`",
        "environment: `DELEGATE_CACHE_LIMIT` is `2 GB`; expected a size",
        "agent.toml: `host_aliases` holds `3`",
        "`DELEGATE_CLIENT_CERTIFICATE_PATH` is set, but its key is not",
    ] {
        assert!(all.contains(part), "{part} is missing in:\n{all}");
    }
    assert!(!all.contains("my-secret-value"));
}

#[test]
fn debug_shows_no_secret() {
    let pairs = [("PROXY_HOST", "p"), ("PROXY_USER", "u"), ("PROXY_PASSWORD", "proxy-password")];
    let shown = format!("{:?}", Config::load(&env(&pairs), None, &Flags::new()).unwrap());
    assert!(!shown.contains("00112233") && !shown.contains("proxy-password"), "{shown}");
}

#[test]
fn the_reference_names_every_setting_once() {
    let text = reference_text();
    for setting in SETTINGS {
        assert_eq!(text.matches(&format!("| `{}` |", setting.key)).count(), 1, "{}", setting.key);
    }
    let mut keys: Vec<_> = SETTINGS.iter().map(|one| one.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), SETTINGS.len());
}

proptest::proptest! {
    #[test]
    fn any_input_is_answered(key in ".{0,20}", value in ".{0,40}", text in ".{0,80}") {
        let mut env = env(&[]);
        for setting in SETTINGS {
            for name in setting.env {
                if name.len() % 3 == key.len() % 3 { env.insert((*name).to_owned(), value.clone()); }
            }
        }
        env.remove("DELEGATE_TOKEN_FILE");
        let _unused = Config::load(&env, file(&text), &Flags::from([(key, value)]));
    }
}
