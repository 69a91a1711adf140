//! ShellScript steps on a host over a real sshd: where they run, what they get and give, how they fail, and an agent that
//! is killed in the middle.

use crate::shell_script::{pipeline, shell_step};
use e2e::peers::sshd::Sshd;
use e2e::wait::until;
use e2e::world::{AgentProcess, Manager, ssh_key, step};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

struct World {
    manager: Manager,
    sshd: Sshd,
    dir: tempfile::TempDir,
}

impl World {
    async fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let ssh = dir.path().join("ssh");
        let sshd = Sshd::start(&ssh, 2).await;
        let manager = Manager::start(dir.path());
        manager.set_secret("login_key", &std::fs::read(&sshd.client_key).unwrap());
        manager.set_secret("api_token", b"planted-token-value");
        let login = ssh_key("login", &sshd, "login_key");
        let world = World { manager, sshd, dir };
        world.manager.apply("login", &login);
        world
    }

    /// A folder that the hosts' login may write to.
    fn open_folder(&self, name: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        for path in [self.dir.path(), &path] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        path.display().to_string()
    }

    /// A step on a host, or on the agent without one; `more` are further lines of the spec.
    fn step(&self, id: &str, host: Option<&str>, script: &str, more: &str) -> String {
        let place = match host {
            Some(host) => format!(
                "onDelegate: false\nexecutionTarget:\n  host: {host}\n  connectorRef: login\n  workingDirectory: {}\n",
                self.open_folder("work")
            ),
            None => "onDelegate: true\n".to_owned(),
        };
        shell_step(id, "Bash", script, &(place + more))
    }

    fn pipeline(&self, name: &str, steps: &[String]) {
        self.manager.apply(name, &pipeline(name, steps));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_on_its_host_and_gives_its_outputs_to_later_steps() {
    let world = World::start().await;
    let agent =
        AgentProcess::start(&world.manager, world.dir.path(), "zone-a", &[("PLANTED", "in the agent")]);
    let hosts = world.sshd.hosts();
    let first = "set -- $SSH_CONNECTION\necho \"on $3 $4 as $(id -un) in $(pwd)\"\necho \"agent: ${PLANTED:-nothing}\"\necho \"token $API_TOKEN\"\n[ \"$API_TOKEN\" = planted-token-value ]\nBUILD=\"$LEVEL-7\"\nSEAL=\"sealed-$((40 + 2))-by-host\"";
    let variables = "environmentVariables:\n  - {name: LEVEL, type: String, value: <+pipeline.name>}\n  - {name: API_TOKEN, type: Secret, value: '<+secrets.getValue(\"api_token\")>'}\noutputVariables:\n  - {name: build, type: String, value: BUILD}\n  - {name: seal, type: Secret, value: SEAL}";
    let second = "echo \"there: $(cat proof 2>/dev/null || echo none)\"\necho \"build <+execution.steps.first.output.outputVariables.build>\"\necho \"length ${#SEAL}\"";
    let seal = "environmentVariables:\n  - {name: SEAL, type: String, value: <+execution.steps.first.output.outputVariables.seal>}";
    world.pipeline(
        "chain",
        &[
            world.step("first", Some(&format!("{}:{}", hosts[0], world.sshd.port)), first, variables),
            // The port comes from the login.
            world.step("second", Some(&hosts[1]), second, seal),
            world.step(
                "local",
                None,
                "echo \"agent has <+execution.steps.first.output.outputVariables.build>\"",
                "",
            ),
            world.step(
                "fails",
                Some(&hosts[1]),
                "echo first >&2\necho \"broken by $API_TOKEN\" >&2\necho\nexit 7",
                "environmentVariables:\n  - {name: API_TOKEN, type: Secret, value: '<+secrets.getValue(\"api_token\")>'}",
            ),
        ],
    );
    let id = world.manager.start_pipeline(&["chain"]);
    let view = world.manager.finished(&id, LIMIT).await;
    let logs = world.manager.ok(&["execution", "logs", &id]);
    for ok in ["first", "second", "local"] {
        assert_eq!(step(&view, ok)["status"], "Success", "{view:#}\n{logs}");
    }
    let work = world.open_folder("work");
    for line in [
        format!("on {} {} as {} in {work}", hosts[0], world.sshd.port, world.sshd.user),
        "agent: nothing".to_owned(),
        "build chain-7".to_owned(),
        "length 17".to_owned(),
        "agent has chain-7".to_owned(),
    ] {
        assert!(logs.contains(&line), "`{line}` is not in:\n{logs}");
    }
    assert!(!logs.contains("planted-token-value") && !logs.contains("sealed-42-by-host"), "{logs}");
    assert!(!view.to_string().contains("sealed-42-by-host"), "{view:#}");
    let failed = step(&view, "fails");
    assert_eq!((&failed["status"], &view["status"]), (&"Failed".into(), &"Failed".into()), "{failed:#}");
    assert_eq!(failed["failure"]["exit_code"], 7, "{failed:#}");
    let message = failed["failure"]["message"].as_str().unwrap();
    assert!(message.contains(hosts[1].as_str()), "{failed:#}");
    // What it said last is the evidence; secrets in it are masked.
    assert!(message.contains("last line on stderr: broken by ***"), "{failed:#}");
    assert!(!view.to_string().contains("planted-token-value"), "{view:#}");
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_neither_ends_it_nor_runs_it_twice_and_an_abort_ends_all_of_it() {
    let world = World::start().await;
    let mut agent = AgentProcess::start(&world.manager, world.dir.path(), "zone-a", &[]);
    let host = world.sshd.hosts()[0].clone();
    let place = world.open_folder("place");
    let script = format!(
        "echo x >> {place}/ran\nfor n in $(seq 1 300); do echo \"number $n\"; done\ntouch {place}/half\nwhile [ ! -e {place}/go ]; do sleep 0.05; done\nfor n in $(seq 301 600); do echo \"number $n\"; done\nRESULT=whole"
    );
    let outputs = "outputVariables: [{name: result, type: String, value: RESULT}]";
    world.pipeline("kill", &[world.step("work", Some(&host), &script, outputs)]);
    let id = world.manager.start_pipeline(&["kill"]);
    let there = |name: &'static str| {
        let file = Path::new(&place).join(name);
        move || std::future::ready(file.exists().then_some(()))
    };
    until("it is half way", LIMIT, there("half")).await;
    agent.kill9();
    std::fs::write(Path::new(&place).join("go"), "").unwrap();
    agent.launch();
    let view = world.manager.finished(&id, LIMIT).await;
    let logs = world.manager.ok(&["execution", "logs", &id]);
    assert_eq!(view["status"], "Success", "{view:#}\n{logs}");
    assert_eq!(step(&view, "work")["outputs"]["outputVariables"]["result"], "whole");
    assert_eq!(std::fs::read_to_string(Path::new(&place).join("ran")).unwrap(), "x\n");
    let number = |line: &str| line.rsplit_once("number ")?.1.trim().parse().ok();
    let numbers: Vec<u32> = logs.lines().filter_map(number).collect();
    assert_eq!(numbers, (1..=600).collect::<Vec<u32>>());

    let script = format!("setsid sh -c 'echo $$ > {place}/child; sleep 600' &\necho $$ > {place}/main\nwait");
    world.pipeline("long", &[world.step("wait", Some(&host), &script, "")]);
    let id = world.manager.start_pipeline(&["long"]);
    let mut pids = Vec::new();
    for name in ["main", "child"] {
        let file = Path::new(&place).join(name);
        let pid = until("it runs", LIMIT, || {
            std::future::ready(
                std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<i32>().ok()),
            )
        });
        pids.push(pid.await);
    }
    world.manager.ok(&["execution", "abort", &id]);
    assert_eq!(world.manager.finished(&id, LIMIT).await["status"], "Aborted");
    until("every process is gone", LIMIT, || {
        let runs = |pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
        };
        std::future::ready((!pids.iter().any(runs)).then_some(()))
    })
    .await;
}
