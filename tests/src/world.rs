//! The product's own processes as a user runs them: the `delegate` binary as manager, as agent and as client.

use crate::wait::{free_port, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The binary under test: `DELEGATE_BIN`, else the one that cargo built beside this test.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("DELEGATE_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().expect("path of this test");
    let path = exe.parent().and_then(Path::parent).expect("target folder").join("delegate");
    assert!(path.exists(), "{} is missing: run `cargo build -p delegate-cli` first", path.display());
    path
}

/// A process of ours with its output in a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where its standard error goes.
    pub log: PathBuf,
}

impl Process {
    /// Starts `command` and waits for the first line on standard output that begins with `ready`. Returns the line.
    fn start(mut command: Command, log: PathBuf, ready: &str) -> (Process, String) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().expect("the binary starts");
        let (sender, receiver) = mpsc::channel();
        let stdout = child.stdout.take().expect("its output");
        let ready_prefix = ready.to_owned();
        // The reader lives as long as the process: it keeps the pipe from filling.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with(&ready_prefix) {
                    let _ignored_when_nobody_waits = sender.send(line);
                }
            }
        });
        let line = receiver.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| {
            panic!(
                "no `{ready}` within 60 s; its log:\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            )
        });
        (Process { child, log }, line)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill -{name} {}", self.pid());
    }

    /// `kill -9`, and waits for the end.
    pub fn kill9(&mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("its end");
    }

    /// Waits for the end by itself and returns the exit code.
    pub async fn ended(&mut self, limit: Duration) -> Option<i32> {
        until("the process ends", limit, || {
            let status = self.child.try_wait().expect("its status");
            async move { status }
        })
        .await
        .code()
    }

    /// What it wrote to standard error so far.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _gone_already = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

/// A manager with its data directory.
#[derive(Debug)]
pub struct Manager {
    /// The running process; `None` between a kill and the next start.
    pub process: Option<Process>,
    /// Data directory.
    pub dir: PathBuf,
    /// Base URL, the same over restarts.
    pub url: String,
    /// From `bootstrap.json`.
    pub account: String,
    /// From `bootstrap.json`.
    pub token: String,
    /// From `bootstrap.json`.
    pub api_key: String,
    port: u16,
    args: Vec<String>,
}

impl Manager {
    /// Starts a fresh manager under `dir`.
    pub fn start(dir: &Path) -> Manager {
        Manager::start_with(dir, &[])
    }

    /// Starts a fresh manager under `dir` with further arguments.
    pub fn start_with(dir: &Path, args: &[&str]) -> Manager {
        let mut manager = Manager {
            process: None,
            dir: dir.join("manager"),
            url: String::new(),
            account: String::new(),
            token: String::new(),
            api_key: String::new(),
            port: free_port(),
            args: args.iter().map(|&a| a.to_owned()).collect(),
        };
        std::fs::create_dir_all(&manager.dir).expect("data directory");
        manager.launch();
        let text = std::fs::read_to_string(manager.dir.join("bootstrap.json")).expect("bootstrap.json");
        let bootstrap: Value = serde_json::from_str(&text).expect("bootstrap.json is JSON");
        let field = |name: &str| bootstrap[name].as_str().unwrap_or_default().to_owned();
        manager.account = field("accountId");
        manager.token = field("delegateToken");
        manager.api_key = field("apiKey");
        manager
    }

    /// Starts the process again on the same port and data.
    pub fn launch(&mut self) {
        let mut command = Command::new(binary());
        command
            .args(["manager", "--data-dir"])
            .arg(&self.dir)
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port));
        command.args(&self.args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let (process, line) = Process::start(command, self.dir.with_extension("log"), "manager ready ");
        self.url = line.trim_start_matches("manager ready ").trim().to_owned();
        self.process = Some(process);
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    /// A client command of the binary.
    pub fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("DELEGATE_MANAGER_URL", &self.url).env("DELEGATE_API_KEY", &self.api_key);
        command.env("HOME", &self.dir).stdin(Stdio::null());
        if self.url.starts_with("https:") {
            // Where `certificates` puts the authority of this scenario.
            command.env("DELEGATE_CA_FILE", self.dir.with_file_name("ca.pem"));
        }
        command
    }

    /// Runs a client command to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.cli(args).output().expect("the client runs")
    }

    /// Runs a client command that must succeed; returns its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "delegate {args:?} ended with {:?}\n{}\n{}",
            output.status.code(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a client command that must succeed and prints JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(args);
        serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("delegate {args:?} printed no JSON ({e}):\n{text}"))
    }

    /// Sets a secret through standard input, as a user does.
    pub fn set_secret(&self, name: &str, value: &[u8]) {
        use std::io::Write;
        let mut child = self
            .cli(&["secret", "set", name, "--stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client runs");
        child.stdin.take().expect("its input").write_all(value).expect("the value is taken");
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success(), "secret set {name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Applies a text from a file of this name beside the data directory.
    pub fn apply(&self, name: &str, text: &str) {
        let file = self.dir.with_file_name(format!("{name}.yaml"));
        std::fs::write(&file, text).expect("the file is written");
        self.ok(&["apply", file.to_str().expect("UTF-8 path")]);
    }

    /// Makes a user in `groups` (`a,b`, or none); returns a key of theirs with the role `executor`.
    pub fn add_user(&self, email: &str, groups: &str) -> String {
        let name = email.split('@').next().unwrap_or_default();
        let mut command = vec!["user", "create", name, "--email", email];
        if !groups.is_empty() {
            command.extend(["--groups", groups]);
        }
        self.ok(&command);
        let made = ["apikey", "create", "--user", email, "--role", "executor", "--output", "json"];
        self.json(&made)["apiKey"].as_str().expect("a key").to_owned()
    }

    /// One execution as `execution show` prints it.
    pub fn show(&self, execution: &str) -> Value {
        self.json(&["execution", "show", execution, "--output", "json"])
    }

    /// Starts a pipeline without waiting; returns the execution id.
    pub fn start_pipeline(&self, args: &[&str]) -> String {
        let mut all = vec!["pipeline", "run"];
        all.extend_from_slice(args);
        all.extend_from_slice(&["--detach", "--output", "json"]);
        let view = self.json(&all);
        view["executionId"].as_str().unwrap_or_else(|| panic!("no executionId in {view}")).to_owned()
    }

    /// A GET of the client API, for what a test asks too often for a process of its own.
    pub async fn get(&self, path: &str) -> Value {
        let reply =
            reqwest::Client::new().get(format!("{}{path}", self.url)).header("x-api-key", &self.api_key);
        reply.send().await.expect("the manager answers").json().await.expect("JSON")
    }

    /// Queues `count` no-op tasks; returns their ids.
    pub async fn probe(&self, count: u32, selectors: &[&str]) -> Vec<String> {
        let body = serde_json::json!({"count": count, "line": "probe", "selectors": selectors});
        let request = reqwest::Client::new()
            .post(format!("{}/api/v1/probes", self.url))
            .header("x-api-key", &self.api_key);
        let reply: Value =
            request.json(&body).send().await.expect("the manager answers").json().await.expect("JSON");
        serde_json::from_value(reply["taskIds"].clone()).unwrap_or_else(|_| panic!("no taskIds in {reply}"))
    }

    /// One task as the API shows it.
    pub async fn task(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/tasks/{id}")).await
    }

    /// Waits until every task has ended; returns them in the same order.
    pub async fn finished_tasks(&self, ids: &[String], limit: Duration) -> Vec<Value> {
        let mut rows = Vec::with_capacity(ids.len());
        for id in ids {
            rows.push(
                until(&format!("task {id} ends"), limit, || async {
                    let row = self.task(id).await;
                    (row["status"].as_str().is_some_and(|s| s.eq_ignore_ascii_case("ended"))).then_some(row)
                })
                .await,
            );
        }
        rows
    }

    /// Waits until the execution has ended; returns its last view.
    pub async fn finished(&self, execution: &str, limit: Duration) -> Value {
        const ENDED: [&str; 7] =
            ["Success", "Failed", "Skipped", "IgnoreFailed", "Aborted", "Expired", "ApprovalRejected"];
        until(&format!("execution {execution} ends"), limit, || async {
            let view = self.show(execution);
            ENDED.contains(&view["status"].as_str().unwrap_or_default()).then_some(view)
        })
        .await
    }
}

/// Every stage and step of an execution with its status, whatever encloses it.
pub fn steps(view: &Value) -> Vec<&Value> {
    fn walk<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
        match value {
            Value::Object(map) => {
                if map.contains_key("identifier") && map.contains_key("status") {
                    found.push(value);
                }
                map.values().for_each(|value| walk(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(view, &mut found);
    found
}

/// The step with this identifier.
///
/// # Panics
/// When there is none.
pub fn step<'v>(view: &'v Value, id: &str) -> &'v Value {
    let found = steps(view).into_iter().find(|one| one["identifier"] == id);
    found.unwrap_or_else(|| panic!("no step {id} in {view:#}"))
}

/// An agent with its data directory.
#[derive(Debug)]
pub struct AgentProcess {
    /// The running process; `None` between a kill and the next start.
    pub process: Option<Process>,
    /// Data directory.
    pub dir: PathBuf,
    /// Its name.
    pub name: String,
    env: BTreeMap<String, String>,
}

impl AgentProcess {
    /// Starts an agent of `manager` under `dir`; `extra` adds or replaces environment variables.
    pub fn start(manager: &Manager, dir: &Path, name: &str, extra: &[(&str, &str)]) -> AgentProcess {
        AgentProcess::at(&manager.url, (&manager.account, &manager.token), dir, name, extra)
    }

    /// Starts an agent of any manager: its URL, account and token.
    pub fn at(
        url: &str,
        (account, token): (&str, &str),
        dir: &Path,
        name: &str,
        extra: &[(&str, &str)],
    ) -> AgentProcess {
        let data = dir.join(format!("agent-{name}"));
        std::fs::create_dir_all(&data).expect("data directory");
        let mut env: BTreeMap<String, String> = [
            ("ACCOUNT_ID", account),
            ("MANAGER_HOST_AND_PORT", url),
            ("DELEGATE_NAME", name),
            ("DELEGATE_TOKEN", token),
            ("DELEGATE_DATA_DIR", data.to_str().expect("UTF-8 path")),
            ("DELEGATE_HEALTH_LISTEN", "127.0.0.1:0"),
            ("HOME", data.to_str().expect("UTF-8 path")),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
        env.extend(extra.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())));
        let mut agent = AgentProcess { process: None, dir: data, name: name.to_owned(), env };
        agent.launch();
        agent
    }

    /// Starts the process again over the same data.
    pub fn launch(&mut self) {
        let mut command = Command::new(binary());
        command
            .arg("agent")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&self.env);
        let (process, _line) = Process::start(command, self.dir.with_extension("log"), "agent ready ");
        self.process = Some(process);
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }
}

/// A certificate authority and a server certificate for 127.0.0.1 and localhost, made by openssl as an operator would.
/// Returns the paths of authority, certificate and key.
pub fn certificates(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let path = |name: &str| dir.join(name);
    let script = "set -e; cd \"$1\"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout server.key -out server.csr
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > server.ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem";
    let output = Command::new("sh").args(["-c", script, "sh"]).arg(dir).output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (path("ca.pem"), path("server.pem"), path("server.key"))
}

/// How the scripts of [`ssh_entities`] are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A Command step each, one after another.
    Steps,
    /// A Command step each, at the same time.
    Parallel,
    /// One Command step `all`, a command unit each.
    Units,
}

/// An SSHKey secret as a document: how to log in to the hosts of a [`crate::peers::sshd::Sshd`] with the key that the
/// secret `key` holds.
pub fn ssh_key(id: &str, sshd: &crate::peers::sshd::Sshd, key: &str) -> String {
    format!(
        "secret:\n  type: SSHKey\n  name: {id}\n  identifier: {id}\n  spec:\n    port: {}\n    auth:\n      type: SSH\n      spec:\n        credentialType: KeyReference\n        spec: {{userName: {}, key: {key}}}\n",
        sshd.port, sshd.user
    )
}

/// Entities and a pipeline of Script steps over the hosts of an [`crate::peers::sshd::Sshd`], written under `dir`.
///
/// `steps` are (identifier, Bash script); with `parallel` they run side by side. Returns the files.
///
/// # Errors
/// When a file cannot be written.
pub fn ssh_entities(
    dir: &Path,
    sshd: &crate::peers::sshd::Sshd,
    pipeline: &str,
    steps: &[(&str, &str)],
    layout: Layout,
) -> std::io::Result<Vec<PathBuf>> {
    let indent = |text: &str, by: usize| {
        let pad = " ".repeat(by);
        text.lines().map(|line| format!("{pad}{line}\n")).collect::<String>()
    };
    let hosts: String = sshd.hosts().iter().map(|h| format!("      - {h}\n")).collect();
    let entities = format!(
        "{login}---\nservice:\n  name: {pipeline}_service\n  identifier: {pipeline}_service\n  serviceDefinition:\n    type: Ssh\n    spec: {{}}\n---\nenvironment:\n  name: {pipeline}_env\n  identifier: {pipeline}_env\n  type: PreProduction\n---\ninfrastructureDefinition:\n  name: {pipeline}_infra\n  identifier: {pipeline}_infra\n  environmentRef: {pipeline}_env\n  deploymentType: Ssh\n  type: Pdc\n  spec:\n    credentialsRef: {pipeline}_login\n    hosts:\n{hosts}",
        login = ssh_key(&format!("{pipeline}_login"), sshd, &format!("{pipeline}_key")),
    );
    let unit = |identifier: &str, script: &str| {
        format!(
            "        - commandUnit:\n            identifier: {identifier}\n            name: {identifier}\n            type: Script\n            spec:\n              shell: Bash\n              source:\n                type: Inline\n                spec:\n                  script: |\n{}",
            indent(script, 20)
        )
    };
    let step = |identifier: &str, units: &str| {
        format!(
            "- step:\n    type: Command\n    name: {identifier}\n    identifier: {identifier}\n    timeout: 30m\n    spec:\n      onDelegate: false\n      commandUnits:\n{units}"
        )
    };
    let each = || steps.iter().map(|(name, script)| step(name, &unit(name, script))).collect::<String>();
    let body = match layout {
        Layout::Steps => each(),
        Layout::Parallel => format!("- parallel:\n{}", indent(&each(), 4)),
        Layout::Units => {
            step("all", &steps.iter().map(|(name, script)| unit(name, script)).collect::<String>())
        }
    };
    let text = format!(
        "pipeline:\n  name: {pipeline}\n  identifier: {pipeline}\n  stages:\n    - stage:\n        name: deploy\n        identifier: deploy\n        type: Deployment\n        spec:\n          deploymentType: Ssh\n          service:\n            serviceRef: {pipeline}_service\n          environment:\n            environmentRef: {pipeline}_env\n            infrastructureDefinitions:\n              - identifier: {pipeline}_infra\n          execution:\n            steps:\n{}",
        indent(&body, 14)
    );
    let files = vec![dir.join(format!("{pipeline}-entities.yaml")), dir.join(format!("{pipeline}.yaml"))];
    for (file, text) in files.iter().zip([entities, text]) {
        std::fs::write(file, text)?;
    }
    Ok(files)
}

/// Sets the login key and applies the files of [`ssh_entities`].
pub fn load_ssh(manager: &Manager, files: &[PathBuf], sshd: &crate::peers::sshd::Sshd) {
    let pipeline =
        files.last().and_then(|f| f.file_stem()).and_then(|s| s.to_str()).expect("a pipeline file");
    manager.set_secret(&format!("{pipeline}_key"), &std::fs::read(&sshd.client_key).expect("the key"));
    for file in files {
        manager.ok(&["apply", file.to_str().expect("UTF-8 path")]);
    }
}
