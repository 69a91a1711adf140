//! Signals of a terminal and of a service manager: Ctrl-C while a client waits, SIGTERM while an agent works.

use e2e::peers::sshd::Sshd;
use e2e::wait::until;
use e2e::world::{AgentProcess, Layout, Manager, load_ssh, ssh_entities};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// One host and a step that says so when it runs and ends when it is let go.
struct World {
    manager: Manager,
    _sshd: Sshd,
    dir: TempDir,
}

impl World {
    async fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("place");
        std::fs::create_dir_all(&place).unwrap();
        for path in [dir.path(), &place] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let ssh = dir.path().join("ssh");
        let sshd = Sshd::start(&ssh, 1).await;
        let manager = Manager::start(dir.path());
        let script = format!(
            "cd {}\necho once >> ran.<+pipeline.sequenceId>\necho number 1\nwhile [ ! -e go.<+pipeline.sequenceId> ]; do sleep 0.05; done\necho number 2",
            place.display()
        );
        let files = ssh_entities(dir.path(), &sshd, "held", &[("hold", &script)], Layout::Steps).unwrap();
        load_ssh(&manager, &files, &sshd);
        World { manager, _sshd: sshd, dir }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join("place").join(name)
    }

    /// Waits until the script of the `run`th execution has begun.
    async fn begun(&self, run: u32) {
        let file = self.place(&format!("ran.{run}"));
        until("the script runs", LIMIT, || std::future::ready(file.exists().then_some(()))).await;
    }

    fn let_go(&self, run: u32) {
        std::fs::write(self.place(&format!("go.{run}")), "").unwrap();
    }

    /// The script ran once, its lines are complete, and the execution ended well.
    async fn ended_once(&self, id: &str, run: u32) {
        let view = self.manager.finished(id, LIMIT).await;
        assert_eq!(view["status"], "Success", "{view:#}");
        assert_eq!(std::fs::read_to_string(self.place(&format!("ran.{run}"))).unwrap(), "once\n");
        let logs = self.manager.ok(&["execution", "logs", id]);
        let lines: Vec<&str> = logs.lines().filter(|line| line.contains("number ")).collect();
        assert!(
            lines.len() == 2 && lines[0].ends_with("number 1") && lines[1].ends_with("number 2"),
            "{logs}"
        );
    }
}

/// A client that waits, with its output in files, as a terminal's job.
struct Client {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Client {
    fn start(world: &World, name: &str, args: &[&str]) -> Client {
        let file = |end: &str| world.dir.path().join(format!("{name}.{end}"));
        let (out, err) = (file("out"), file("err"));
        let mut command: Command = world.manager.cli(args);
        command.stdout(Stdio::from(std::fs::File::create(&out).unwrap()));
        command.stderr(Stdio::from(std::fs::File::create(&err).unwrap()));
        Client { child: command.spawn().unwrap(), out, err }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Exit code, standard output, standard error.
    async fn ended(&mut self) -> (Option<i32>, String, String) {
        let status =
            until("the client ends", LIMIT, || std::future::ready(self.child.try_wait().unwrap())).await;
        let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
        (status.code(), text(&self.out), text(&self.err))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_the_execution_running_and_says_how_to_go_on() {
    let world = World::start().await;
    let _agent = AgentProcess::start(&world.manager, world.dir.path(), "zone-a", &[]);
    let ways: [&[&str]; 3] = [
        &["pipeline", "run", "held"],
        &["pipeline", "run", "held", "--follow"],
        &["pipeline", "run", "held", "--output", "json"],
    ];
    for (run, args) in (1..).zip(ways) {
        let mut client = Client::start(&world, &format!("run{run}"), args);
        world.begun(run).await;
        // It watches from here on: the signal is taken before the first view is asked for.
        until("the client shows the step", LIMIT, || {
            let text = std::fs::read_to_string(&client.err).unwrap()
                + &std::fs::read_to_string(&client.out).unwrap();
            std::future::ready(text.contains("hold").then_some(()))
        })
        .await;
        client.signal("INT");
        let (code, out, err) = client.ended().await;
        assert_eq!(code, Some(130), "{args:?}: {out}\n{err}");
        let listed = world.manager.json(&["execution", "list", "--output", "json"]);
        let running: Vec<&Value> =
            listed.as_array().unwrap().iter().filter(|e| e["status"] == "Running").collect();
        assert_eq!(running.len(), 1, "{listed:#}");
        let id = running[0]["executionId"].as_str().unwrap();
        for text in [
            format!("execution {id} goes on"),
            format!("delegate execution logs {id} --follow"),
            format!("delegate execution abort {id}"),
        ] {
            assert!(err.contains(&text), "`{text}` is not in:\n{err}");
        }
        // Standard output of the JSON form holds one document or nothing, never half of one.
        assert!(!args.contains(&"json") || out.is_empty(), "{out}");
        world.let_go(run);
        // What it printed to paste works.
        let followed = world.manager.ok(&["execution", "logs", id, "--follow"]);
        assert!(followed.contains("number 2"), "{followed}");
        world.ended_once(id, run).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_agent_ends_its_step_takes_no_other_and_leaves() {
    let world = World::start().await;
    let mut agent = AgentProcess::start(&world.manager, world.dir.path(), "zone-a", &[]);
    let first = world.manager.start_pipeline(&["held"]);
    world.begun(1).await;
    let mut process = agent.process.take().unwrap();
    process.signal("TERM");
    until("it drains", LIMIT, || std::future::ready(process.log_text().contains("draining").then_some(())))
        .await;
    // Queued while it drains: it is another agent's.
    let second = world.manager.start_pipeline(&["held"]);
    world.let_go(1);
    world.ended_once(&first, 1).await;
    assert_eq!(process.ended(LIMIT).await, Some(0), "{}", process.log_text());
    assert!(!world.place("ran.2").exists(), "a drained agent took a step: {}", process.log_text());
    let agents = world.manager.json(&["agents", "--output", "json"]);
    assert!(
        agents.as_array().unwrap().iter().all(|agent| agent["connected"] == false),
        "it took leave: {agents:#}"
    );
    let next = world.dir.path().join("next");
    std::fs::create_dir_all(&next).unwrap();
    let _next = AgentProcess::start(&world.manager, &next, "zone-b", &[]);
    world.let_go(2);
    world.ended_once(&second, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_drain_limit_the_script_goes_on_and_the_next_agent_process_takes_it_up() {
    let world = World::start().await;
    let mut agent =
        AgentProcess::start(&world.manager, world.dir.path(), "zone-a", &[("DELEGATE_DRAIN_LIMIT", "1s")]);
    let id = world.manager.start_pipeline(&["held"]);
    world.begun(1).await;
    let mut process = agent.process.take().unwrap();
    process.signal("TERM");
    assert_eq!(process.ended(LIMIT).await, Some(0), "{}", process.log_text());
    assert!(process.log_text().contains("the drain limit is over"), "{}", process.log_text());
    assert_eq!(world.manager.show(&id)["status"], "Running", "nothing was reported for it");
    // With no agent there, its holder lets it end by itself.
    world.let_go(1);
    agent.launch();
    world.ended_once(&id, 1).await;
    assert_eq!(world.manager.show(&id)["stages"][0]["steps"][0]["agent"], "zone-a");
}
