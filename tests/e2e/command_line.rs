//! The command line as scripts rely on it: help, exit codes and JSON of the real binary against a real manager.

use e2e::world::Manager;
use serde_json::Value;
use std::path::Path;
use std::process::Output;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The subcommands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let section = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.trim().is_empty());
    // A description that goes on in the next line is indented further.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// Every command with every way to it.
fn commands(manager: &Manager) -> Vec<Vec<String>> {
    let (mut open, mut all) = (vec![Vec::<String>::new()], Vec::new());
    while let Some(path) = open.pop() {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--help");
        let output = manager.run(&args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        let help = text(&output.stdout);
        assert!(help.contains("Usage:"), "{args:?}: {help}");
        for name in listed(&help) {
            open.push([path.as_slice(), &[name]].concat());
        }
        all.push(path);
    }
    all
}

#[test]
fn every_command_answers_help_and_refuses_what_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(dir.path());
    let all = commands(&manager);
    let joined: Vec<String> = all.iter().map(|path| path.join(" ")).collect();
    for documented in [
        "manager",
        "agent",
        "apply",
        "get",
        "delete",
        "secret set",
        "secret list",
        "secret rm",
        "pipeline run",
        "pipeline validate",
        "pipeline render",
        "execution list",
        "execution show",
        "execution logs",
        "execution abort",
        "execution rerun",
        "execution rollback",
        "agents",
        "token create",
        "token list",
        "token revoke",
        "apikey create",
        "apikey list",
        "apikey revoke",
        "hostkey list",
        "hostkey accept",
        "hostkey forget",
        "approval list",
        "approval show",
        "approval approve",
        "approval reject",
        "user create",
        "expression eval",
        "connector test",
        "quickstart",
        "init vm",
    ] {
        assert!(joined.iter().any(|path| path == documented), "`{documented}` is not in {joined:?}");
    }
    for path in &all {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--no-such-flag");
        let output = manager.run(&args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("--no-such-flag"), "{args:?}: {}", text(&output.stderr));
    }
    for args in [&["nope"][..], &["pipeline", "nope"], &["get", "nope"], &["secret", "set"], &[]] {
        assert_eq!(manager.run(args).status.code(), Some(64), "{args:?}");
    }
}

fn code_of(output: &Output, code: i32, parts: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}\n{}", text(&output.stdout));
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn a_manager_that_is_away_a_refused_key_and_a_secret_on_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(dir.path());
    let nobody = format!("http://127.0.0.1:{}", e2e::wait::free_port());
    for args in [&["agents"][..], &["execution", "list"], &["get", "pipeline"], &["hostkey", "list"]] {
        let with = |more: &[&str]| manager.run(&[args, more].concat());
        code_of(&with(&["--manager", &nobody]), 69, &[&nobody, "cannot be reached"]);
        code_of(&with(&["--api-key", "wrong"]), 77, &["API key"]);
    }
    let refused = manager.run(&["secret", "set", "name", "a-secret-value"]);
    code_of(&refused, 64, &["command line", "--stdin"]);
    assert!(!text(&refused.stderr).contains("a-secret-value"), "it is not repeated");
    assert_eq!(manager.json(&["secret", "list", "--output", "json"]), Value::Array(vec![]));
}

#[test]
fn credentials_and_entities_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(dir.path());
    let token = manager.json(&["token", "create", "zone", "--output", "json"]);
    assert!(token["value"].as_str().is_some_and(|value| value.len() == 32), "{token}");
    assert!(!manager.ok(&["token", "list"]).contains(token["value"].as_str().unwrap()), "it is shown once");
    code_of(&manager.run(&["token", "create", "zone"]), 1, &["zone"]);
    manager.ok(&["token", "revoke", "zone"]);
    manager.ok(&["user", "create", "ann", "--email", "ann@x.org", "--groups", "qa,ops"]);
    let key =
        manager.json(&["apikey", "create", "--user", "ann@x.org", "--role", "viewer", "--output", "json"]);
    let key = key["apiKey"].as_str().unwrap();
    assert_eq!(manager.run(&["agents", "--api-key", key]).status.code(), Some(0));
    code_of(&manager.run(&["token", "create", "x", "--api-key", key]), 77, &["viewer"]);

    // One of each kind that `apply` takes can be listed, shown and deleted.
    let file = dir.path().join("all.yaml");
    std::fs::write(&file, ALL_KINDS).unwrap();
    manager.ok(&["apply", file.to_str().unwrap()]);
    let again = manager.ok(&["apply", file.to_str().unwrap()]);
    assert_eq!(again.lines().filter(|line| line.ends_with("unchanged")).count(), ALL.len(), "{again}");
    for (kind, id) in ALL {
        let list = manager.json(&["get", kind, "--output", "json"]);
        let ids: Vec<&str> = list.as_array().unwrap().iter().filter_map(|one| one["id"].as_str()).collect();
        assert!(ids.contains(&id), "get {kind}: {list}");
        assert!(manager.ok(&["get", kind, id]).contains(id), "get {kind} {id}");
        code_of(&manager.run(&["get", kind, "no_such_one"]), 1, &["no_such_one"]);
    }
    for (kind, id) in ALL.into_iter().rev() {
        manager.ok(&["delete", kind, id]);
        code_of(&manager.run(&["delete", kind, id]), 1, &[id]);
    }
    // The same id in two scopes is told apart.
    let scoped = |project: &str| {
        format!(
            "userGroup: {{identifier: team, name: Team, orgIdentifier: o, projectIdentifier: {project}, users: []}}\n"
        )
    };
    std::fs::write(&file, format!("{}---\n{}", scoped("one"), scoped("two"))).unwrap();
    manager.ok(&["apply", file.to_str().unwrap()]);
    code_of(&manager.run(&["get", "userGroup", "team"]), 1, &["o/one", "o/two", "--scope"]);
    assert!(manager.ok(&["get", "userGroup", "team", "--scope", "o/two"]).contains("projectIdentifier: two"));
    manager.ok(&["delete", "userGroup", "team", "--scope", "o/one"]);
    let left = manager.json(&["get", "userGroups", "--output", "json"]);
    assert_eq!((left.as_array().unwrap().len(), &left[0]["scope"]), (1, &"o/two".into()), "{left}");
}

const ALL: [(&str, &str); 13] = [
    ("connector", "conn"),
    ("secret", "login"),
    ("service", "svc"),
    ("environment", "envi"),
    ("environmentGroup", "envs"),
    ("infrastructure", "infra1"),
    ("pipeline", "pipe"),
    ("inputSet", "inputs1"),
    ("trigger", "trig"),
    ("userGroup", "people"),
    ("policy", "rule"),
    ("policySet", "rules"),
    ("monitoredService", "watched"),
];

const ALL_KINDS: &str = r#"
connector: {identifier: conn, name: conn, type: Artifactory, spec: {artifactoryServerUrl: "http://127.0.0.1:1/", auth: {type: Anonymous}}}
---
secret: {identifier: login, name: login, type: SSHKey, spec: {port: 22, auth: {type: SSH, spec: {credentialType: KeyReference, spec: {userName: u, key: k}}}}}
---
service: {identifier: svc, name: svc, serviceDefinition: {type: Ssh, spec: {}}}
---
environment: {identifier: envi, name: envi, type: PreProduction}
---
environmentGroup: {identifier: envs, name: envs, envIdentifiers: [envi]}
---
infrastructureDefinition: {identifier: infra1, name: infra1, environmentRef: envi, deploymentType: Ssh, type: Pdc, spec: {credentialsRef: login, hosts: [h1]}}
---
pipeline: {identifier: pipe, name: pipe, variables: [{name: tag, type: String, value: v1}], stages: [{stage: {identifier: s, name: s, type: Custom, spec: {execution: {steps: [{step: {identifier: w, name: w, type: Wait, spec: {duration: 1s}}}]}}}}]}
---
inputSet: {identifier: inputs1, name: inputs1, pipeline: {identifier: pipe, variables: [{name: tag, type: String, value: v2}]}}
---
trigger: {identifier: trig, name: trig, enabled: true, pipelineIdentifier: pipe, source: {type: Webhook, spec: {type: Custom, spec: {}}}}
---
userGroup: {identifier: people, name: people, users: [ann@x.org]}
---
policy:
  identifier: rule
  name: rule
  rego: |
    package p
    import rego.v1
    deny contains "never" if input.never
---
policySet: {identifier: rules, name: rules, policies: [{identifier: rule, severity: error}]}
---
monitoredService: {identifier: watched, name: watched, type: Application, serviceRef: svc, environmentRef: envi}
"#;

#[test]
fn a_first_project_is_written_once_and_can_be_applied() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(dir.path());
    let init = |args: &[&str]| {
        manager.cli(&[&["init", "vm"], args].concat()).current_dir(dir.path()).output().unwrap()
    };
    code_of(&init(&[]), 64, &["--host"]);
    code_of(&init(&["--host", "nobody"]), 64, &["USER@HOST"]);
    let made = init(&["--host", "deploy@192.0.2.7:2222"]);
    code_of(&made, 0, &[]);
    let next = text(&made.stdout);
    let folder = Path::new("delegate-192.0.2.7");
    for part in
        ["delegate secret set vm_ssh_key", "delegate apply delegate-192.0.2.7", "pipeline.yaml --follow"]
    {
        assert!(next.contains(part), "{next}");
    }
    code_of(&init(&["--host", "deploy@192.0.2.7"]), 64, &["holds files already"]);
    let folder = dir.path().join(folder);
    assert_eq!(manager.ok(&["apply", folder.to_str().unwrap()]).lines().count(), 6);
    let pipeline = folder.join("pipeline.yaml");
    // The secret that it names has no value yet: the run is refused, with the command that sets it.
    code_of(
        &manager.run(&["pipeline", "run", pipeline.to_str().unwrap()]),
        64,
        &["delegate secret set vm_ssh_key"],
    );
    assert_eq!(manager.json(&["execution", "list", "--output", "json"]), Value::Array(vec![]));
    manager.set_secret("vm_ssh_key", b"a key");
    manager.ok(&["pipeline", "validate", pipeline.to_str().unwrap()]);
}
