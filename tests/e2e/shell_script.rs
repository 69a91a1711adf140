//! ShellScript steps through the product's own processes: outputs from step to step, a masked secret output, exit codes, an
//! abort that reaches every grandchild, and an agent that is killed in the middle.

use e2e::wait::until;
use e2e::world::{AgentProcess, Manager, step};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A pipeline of one Custom stage.
pub(crate) fn pipeline(name: &str, steps: &[String]) -> String {
    format!(
        "pipeline:\n  name: {name}\n  identifier: {name}\n  stages:\n    - stage:\n        name: shell\n        identifier: shell\n        type: Custom\n        spec:\n          execution:\n            steps:\n{}",
        steps.concat()
    )
}

/// A step with further lines of its spec: where it runs, and what it takes and gives.
pub(crate) fn shell_step(id: &str, shell: &str, script: &str, more: &str) -> String {
    let mut text = format!(
        "              - step:\n                  type: ShellScript\n                  name: {id}\n                  identifier: {id}\n                  timeout: 5m\n                  spec:\n                    shell: {shell}\n"
    );
    for line in more.lines() {
        text.push_str(&format!("                    {line}\n"));
    }
    text.push_str("                    source:\n                      type: Inline\n                      spec:\n                        script: |\n");
    for line in script.lines() {
        text.push_str(&format!("                          {line}\n"));
    }
    text
}

/// A step on the agent.
fn local(id: &str, shell: &str, script: &str, more: &str) -> String {
    shell_step(id, shell, script, &format!("onDelegate: true\n{more}"))
}

fn pid_in(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Whether a process runs; a zombie does not.
fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_reach_later_steps_and_secret_ones_are_masked_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(dir.path());
    let agent = AgentProcess::start(&manager, dir.path(), "zone-a", &[("PLANTED_IN_AGENT", "visible")]);
    let build = "echo building\nVERSION=1.4.2\nTOKEN=\"t0ken-made-$((40 + 2))-on-the-way\"\nenv | cut -d= -f1 | tr '\\n' ' '\nexit 0";
    let outputs = "outputVariables:\n  - {name: version, type: String, value: VERSION}\n  - {name: token, type: Secret, value: TOKEN}";
    let python = "import hashlib, os\nprint('python has', os.environ['VERSION'])\nprint('token is', os.environ['TOKEN'])\n\
                  print('sha', hashlib.sha256(os.environ['TOKEN'].encode()).hexdigest())\nNEXT = os.environ['VERSION'] + '.1'";
    let variables = "environmentVariables:\n  - {name: VERSION, type: String, value: <+execution.steps.build.output.outputVariables.version>}\n  - {name: TOKEN, type: String, value: <+execution.steps.build.output.outputVariables.token>}\noutputVariables:\n  - {name: next, type: String, value: NEXT}";
    let last =
        "echo \"next is <+execution.steps.check.output.outputVariables.next>\"\necho failing >&2\nexit 7";
    let text = pipeline(
        "chain",
        &[
            local("build", "Bash", build, outputs),
            local("check", "Python", python, variables),
            local("fail", "Sh", last, ""),
        ],
    );
    manager.apply("chain", &text);
    let id = manager.start_pipeline(&["chain"]);
    let view = manager.finished(&id, LIMIT).await;
    let logs = manager.ok(&["execution", "logs", &id]);
    assert_eq!(view["status"], "Failed", "{view:#}\n{logs}");
    assert_eq!(step(&view, "build")["status"], "Success", "{view:#}\n{logs}");
    assert_eq!(step(&view, "check")["status"], "Success", "{view:#}\n{logs}");
    let failed = step(&view, "fail");
    assert_eq!(
        (&failed["failure"]["code"], &failed["failure"]["exit_code"]),
        (&"SHELL-001".into(), &7.into()),
        "{failed:#}"
    );
    assert_eq!(failed["failure"]["class"], "Unknown", "{failed:#}");
    assert!(logs.contains("python has 1.4.2") && logs.contains("next is 1.4.2.1"), "{logs}");
    // sha256 of `t0ken-made-42-on-the-way`: the later step had the real value.
    let digest = {
        use std::io::Write;
        let mut child = std::process::Command::new("sha256sum")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"t0ken-made-42-on-the-way").unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        text.split_whitespace().next().unwrap().to_owned()
    };
    assert!(logs.contains(&format!("sha {digest}")), "{logs}");
    assert!(!logs.contains("PLANTED_IN_AGENT") && !logs.contains("DELEGATE_TOKEN"), "{logs}");
    // The private folders go when the tasks are reported.
    let scratch = agent.dir.join("scratch");
    until("the scratch folders go", LIMIT, || {
        let left = std::fs::read_dir(&scratch).map(|entries| entries.count()).unwrap_or(0);
        async move { (left == 0).then_some(()) }
    })
    .await;
    drop(agent);
    let mut places =
        vec![("logs".to_owned(), logs.into_bytes()), ("show".to_owned(), view.to_string().into_bytes())];
    let mut folders = vec![dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                places.push((path.display().to_string(), std::fs::read(&path).unwrap_or_default()));
            }
        }
    }
    let needle = b"t0ken-made-42-on-the-way";
    for (place, bytes) in places {
        assert!(!bytes.windows(needle.len()).any(|part| part == needle), "the token stands in {place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_ends_every_grandchild() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(dir.path());
    let _agent = AgentProcess::start(&manager, dir.path(), "zone-a", &[]);
    let place = dir.path().display();
    let script = format!(
        "setsid bash -c 'trap \"\" TERM; echo $$ > {place}/stubborn; while :; do sleep 1; done' &\nsetsid sh -c 'echo $$ > {place}/polite; sleep 600' &\necho $$ > {place}/main\nwait"
    );
    manager.apply("long", &pipeline("long", &[local("wait", "Bash", &script, "")]));
    let id = manager.start_pipeline(&["long"]);
    let names = ["main", "stubborn", "polite"];
    let mut pids = Vec::new();
    for name in names {
        let file = dir.path().join(name);
        pids.push(until("it runs", LIMIT, || std::future::ready(pid_in(&file))).await);
    }
    assert!(pids.iter().all(|pid| runs(*pid)));
    manager.ok(&["execution", "abort", &id]);
    let view = manager.finished(&id, LIMIT).await;
    assert_eq!(view["status"], "Aborted", "{view:#}");
    until("every process is gone", LIMIT, || {
        let gone = pids.iter().all(|pid| !runs(*pid));
        async move { gone.then_some(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_loses_neither_the_script_nor_a_line_and_runs_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(dir.path());
    let mut agent = AgentProcess::start(&manager, dir.path(), "zone-a", &[]);
    let place = dir.path().display();
    let script = format!(
        "echo x >> {place}/ran\nfor n in $(seq 1 500); do echo line $n; done\necho $$ > {place}/half\nwhile [ ! -e {place}/go ]; do sleep 0.05; done\nfor n in $(seq 501 1000); do echo line $n; done\nRESULT=whole"
    );
    let outputs = "outputVariables: [{name: result, type: String, value: RESULT}]";
    let steps = [
        local("work", "Bash", &script, outputs),
        local("after", "Bash", "echo \"result <+execution.steps.work.output.outputVariables.result>\"", ""),
    ];
    manager.apply("kill", &pipeline("kill", &steps));
    let id = manager.start_pipeline(&["kill"]);
    let half = dir.path().join("half");
    let pid = until("it is half way", LIMIT, || std::future::ready(pid_in(&half))).await;
    agent.kill9();
    assert!(runs(pid), "the script went with its agent");
    // It goes on, and may end, while no agent is there.
    std::fs::write(dir.path().join("go"), "").unwrap();
    until("the script ends", LIMIT, || std::future::ready((!runs(pid)).then_some(()))).await;
    agent.launch();
    let view = manager.finished(&id, LIMIT).await;
    let logs = manager.ok(&["execution", "logs", &id]);
    assert_eq!(view["status"], "Success", "{view:#}\n{logs}");
    assert_eq!(std::fs::read_to_string(dir.path().join("ran")).unwrap(), "x\n");
    let numbers: Vec<u32> =
        logs.lines().filter_map(|line| line.rsplit_once("line ")?.1.trim().parse().ok()).collect();
    assert_eq!(numbers, (1..=1000).collect::<Vec<u32>>());
    assert!(logs.contains("result whole"), "{logs}");
}
