//! `delegate quickstart`: manager, agent and a private host on this machine, and a deployment to it, in seconds.
//!
//! ```text
//! this process ── children of the same binary ──> manager, agent, artifact server
//!              ── sshd, or the embedded SSH server ──> the sample host ── the pipeline starts ──> the sample application
//!              ── client API ──> apply, run, follow
//! ```
//! Everything lies in one private folder and on loopback. Children live as long as [`World`]; it ends them in order.

pub(crate) mod app;
pub(crate) mod artifacts;
mod child;
#[cfg(feature = "ssh")]
pub(crate) mod embedded;
mod project;
mod target;

use crate::client::Client;
use crate::commands::{apply, pipeline};
use crate::exit::{CliError, Exit};
use crate::output::{say, tell};
use crate::progress::has_ended;
use crate::settings::{ContextFile, Env, read_context};
use crate::shutdown::Signals;
use child::Child;
use project::Project;
use rand::RngExt;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use target::Target;
use tokio::process::Command;
use tokio::time::Instant;

/// Marks the context file as ours.
const WRITTEN_BY: &str = "delegate quickstart";
/// How long Prometheus may take to answer; without it the pipeline goes without Verify.
const PROMETHEUS_LIMIT: Duration = Duration::from_secs(5);
/// How long an execution may take to end after it was told to.
const ABORT_LIMIT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The version that runs before the deployment.
const OLD: &str = "1.0.0";
/// The version that is deployed.
const NEW: &str = "2.0.0";

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Deploy a version whose health check fails, and watch it being rolled back; exits 1
    #[arg(long = "break")]
    pub(crate) broken: bool,
    /// Keep everything up until Ctrl-C
    #[arg(long)]
    pub(crate) serve: bool,
    /// Deploy to the embedded SSH server even where OpenSSH is installed
    #[arg(long)]
    pub(crate) embedded_target: bool,
}

/// Runs it. 0 when the deployment succeeded, 1 when it failed, 130 after Ctrl-C during the deployment; what was started
/// is ended in any case.
pub(crate) async fn run(args: &Args, env: &Env) -> Result<Exit, CliError> {
    let mut signals = Signals::take()?;
    let mut world = World::new(env)?;
    let result = tokio::select! {
        // Following also ends on a signal, but here the execution must not go on.
        biased;
        name = signals.next() => {
            tell(format!("{name}: ending what was started"));
            world.abort().await;
            Ok(Exit::Interrupted)
        }
        result = world.play(args, env) => result,
    };
    let result = match result {
        Ok(exit) if args.serve && exit != Exit::Interrupted => {
            world.serve(env, &mut signals).await.map(|()| exit)
        }
        other => other,
    };
    world.end().await;
    result
}

/// Everything that quickstart started.
struct World {
    dir: PathBuf,
    home: PathBuf,
    path: String,
    exe: PathBuf,
    children: Vec<Child>,
    project: Option<Project>,
    access: Option<(String, String)>,
    client: Option<Client>,
    context: Option<PathBuf>,
}

impl World {
    fn new(env: &Env) -> Result<World, CliError> {
        let name: String = (0..8).map(|_| char::from(rand::rng().random_range(b'a'..=b'z'))).collect();
        let base = env.get("TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = base.join(format!("delegate-quickstart-{name}"));
        let error = |e: std::io::Error| CliError::file("made", &dir, &e);
        std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(error)?;
        let dir = std::fs::canonicalize(&dir).map_err(error)?;
        let home = dir.join("home");
        std::fs::create_dir(&home).map_err(error)?;
        let exe = std::env::current_exe()
            .map_err(|e| CliError::failed(format!("the path of this program is unknown: {e}")))?;
        let path = env.get("PATH").unwrap_or("/usr/bin:/bin:/usr/sbin:/sbin").to_owned();
        Ok(World {
            dir,
            home,
            path,
            exe,
            children: Vec::new(),
            project: None,
            access: None,
            client: None,
            context: None,
        })
    }

    /// A command of this binary with a clean environment.
    fn own(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(arguments).env_clear().env("PATH", &self.path).env("HOME", &self.home);
        command
    }

    /// Starts a child whose output says `ready`; returns the rest of that line.
    async fn start(
        &self,
        name: &'static str,
        command: Command,
        ready: &str,
    ) -> Result<(Child, String), CliError> {
        Child::start(name, command, &self.dir, Some(ready)).await
    }

    async fn play(&mut self, args: &Args, env: &Env) -> Result<Exit, CliError> {
        tell(format!("everything lies in {} and listens on 127.0.0.1 only", self.dir.display()));
        let client = self.start_services(args).await?;
        let Some(project) = &self.project else { return Err(CliError::failed("there is no project")) };
        apply::apply(&client, &project.entities).await?;
        let key = std::fs::read(&project.client_key)
            .map_err(|e| CliError::file("read", &project.client_key, &e))?;
        client.put(&["secrets", "quickstart_key"], key, "application/octet-stream").await?;
        let version = if args.broken { "2.0.0, whose health check will fail" } else { NEW };
        tell(format!("\ndeploying version {version}: {}", project.pipeline.display()));
        let run = pipeline::RunArgs {
            pipeline: project.pipeline.display().to_string(),
            follow: true,
            rehearse: project.rehearse,
            ..pipeline::RunArgs::default()
        };
        let exit = pipeline::start(&client, &run, env).await?;
        if exit == Exit::Interrupted {
            return Ok(exit);
        }
        self.report(args).await;
        Ok(exit)
    }

    async fn start_services(&mut self, args: &Args) -> Result<Client, CliError> {
        let app_port = free_port()?;
        let app_dir = self.dir.join("host/opt/myapp");
        // Nothing here waits for another; a failure drops, and thereby ends, what the others have started.
        let (prometheus, (), (artifacts_child, artifacts), target, (manager, agent, access)) = tokio::try_join!(
            self.start_prometheus(app_port),
            self.start_application(args, app_port, &app_dir),
            self.start_artifacts(),
            Target::start(self, args.embedded_target),
            self.start_manager_and_agent(),
        )?;
        let url = access.0.clone();
        let client = Client::connect(&url, SecretString::from(access.1.clone()), None)?;
        let Target { kind, user, port, client_key, child } = target;
        tell(format!("sample host    {kind} as {user} on port {port}"));
        tell(format!("application    version {OLD} answers on http://127.0.0.1:{app_port}"));
        tell(format!("manager        {url}"));
        let (agent, name) = agent;
        tell(format!("agent          {}", name.split(' ').next().unwrap_or("ready")));
        let prometheus = prometheus.map(|(child, url)| {
            tell(format!("Prometheus     {url}"));
            self.children.push(child);
            url
        });
        // The agent ends first, while everything that its steps use is still there.
        self.children.extend([artifacts_child, child, manager, agent]);
        let facts = project::Facts {
            user: &user,
            ssh_port: port,
            app_dir: &app_dir,
            app_port,
            artifacts: &artifacts,
            prometheus: prometheus.as_deref(),
            version: NEW,
        };
        self.project = Some(project::write(&self.dir, client_key, &facts)?);
        self.access = Some(access);
        self.client = Some(client.clone());
        Ok(client)
    }

    /// The releases, and the old one running.
    async fn start_application(&self, args: &Args, port: u16, app_dir: &Path) -> Result<(), CliError> {
        let status = if args.broken { "DOWN" } else { "UP" };
        let (dir, exe, path) = (&self.dir, &self.exe, &self.path);
        tokio::try_join!(project::write_release(dir, exe, NEW, status, port, path), async {
            project::write_release(dir, exe, OLD, "UP", port, path).await?;
            project::install(dir, OLD, app_dir, path).await
        })?;
        Ok(())
    }

    async fn start_artifacts(&self) -> Result<(Child, String), CliError> {
        let releases = self.dir.join("artifacts");
        std::fs::create_dir_all(&releases).map_err(|e| CliError::file("made", &releases, &e))?;
        let command = self.own(&["quickstart-artifacts", "--dir", &releases.display().to_string()]);
        self.start("artifacts", command, "artifacts ready ").await
    }

    /// The manager, the agent with its name, and the manager's URL and API key.
    async fn start_manager_and_agent(&self) -> Result<(Child, (Child, String), (String, String)), CliError> {
        let data = self.dir.join("manager");
        let command =
            self.own(&["manager", "--listen", "127.0.0.1:0", "--data-dir", &data.display().to_string()]);
        let (manager, url) = self.start("manager", command, "manager ready ").await?;
        let bootstrap = data.join("bootstrap.json");
        let text = std::fs::read_to_string(&bootstrap).map_err(|e| CliError::file("read", &bootstrap, &e))?;
        let bootstrap: Value = serde_json::from_str(&text)
            .map_err(|e| CliError::failed(format!("{} is no JSON: {e}", bootstrap.display())))?;
        let field = |name: &str| bootstrap.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();

        let mut command = self.own(&["agent"]);
        command
            .env("ACCOUNT_ID", field("accountId"))
            .env("DELEGATE_TOKEN", field("delegateToken"))
            .env("MANAGER_HOST_AND_PORT", &url)
            .env("DELEGATE_NAME", "quickstart-agent")
            .env("DELEGATE_TAGS", "quickstart")
            .env("DELEGATE_DATA_DIR", self.dir.join("agent"))
            .env("DELEGATE_HEALTH_LISTEN", "127.0.0.1:0");
        let agent = self.start("agent", command, "agent ready ").await?;
        Ok((manager, agent, (url, field("apiKey"))))
    }

    /// Prometheus, if it is installed and answers. The Verify step is part of the pipeline only then.
    async fn start_prometheus(&self, app_port: u16) -> Result<Option<(Child, String)>, CliError> {
        let Some(binary) = find(&self.path, "prometheus") else { return Ok(None) };
        let (config, port) = (self.dir.join("prometheus.yml"), free_port()?);
        let text = format!(
            "global:\n  scrape_interval: 250ms\n  scrape_timeout: 250ms\nscrape_configs:\n  - job_name: myapp\n    static_configs:\n      - targets: [\"127.0.0.1:{app_port}\"]\n"
        );
        std::fs::write(&config, text).map_err(|e| CliError::file("written", &config, &e))?;
        let mut command = Command::new(binary);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", self.dir.join("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .env_clear()
            .env("HOME", &self.home)
            .stdout(Stdio::null());
        let (mut child, _) = Child::start("prometheus", command, &self.dir, None).await?;
        let url = format!("http://127.0.0.1:{port}");
        let deadline = Instant::now() + PROMETHEUS_LIMIT;
        loop {
            let answer = reqwest::get(format!("{url}/-/ready")).await;
            if answer.is_ok_and(|reply| reply.status().is_success()) {
                return Ok(Some((child, url)));
            }
            if child.has_ended() || Instant::now() >= deadline {
                tell("Prometheus does not answer; the pipeline goes without its Verify step");
                child.end().await;
                return Ok(None);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Aborts what runs and waits for its end, so that nothing of it is left on the host.
    async fn abort(&self) {
        let Some(client) = &self.client else { return };
        let deadline = Instant::now() + ABORT_LIMIT;
        if let Err(error) = tokio::time::timeout_at(deadline, abort_all(client)).await.unwrap_or(Ok(())) {
            tell(error.to_string());
        }
    }

    /// What the application says now, and what the reader can do next.
    async fn report(&self, args: &Args) {
        if let Some(project) = &self.project {
            let url = format!("http://127.0.0.1:{}/health", project.app_port);
            let answer = match reqwest::get(&url).await {
                Ok(reply) => reply.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            say(format!("{url} answers {answer}"));
            if args.broken && answer.contains(OLD) {
                say(format!(
                    "the health check of version {NEW} failed; the rollback steps brought version {OLD} back"
                ));
            }
        }
        say(
            "\nYour own host, with a manager that stays up (`delegate quickstart --serve` in another terminal):",
        );
        say("  delegate init vm --host user@box");
        say("  delegate apply delegate-box");
        say("  delegate pipeline run delegate-box/pipeline.yaml --follow");
    }

    /// Waits for Ctrl-C with the context file pointing here.
    async fn serve(&mut self, env: &Env, signals: &mut Signals) -> Result<(), CliError> {
        let Some((url, key)) = self.access.clone() else { return Ok(()) };
        say(format!("serving on {url}"));
        match self.write_context(env, &url, &key) {
            Ok(Some(path)) => say(format!("{} leads client commands here until Ctrl-C", path.display())),
            Ok(None) => {
                let bootstrap = self.dir.join("manager/bootstrap.json");
                say(format!(
                    "client commands need --manager {url} and the apiKey of {}",
                    bootstrap.display()
                ));
            }
            Err(error) => tell(error.to_string()),
        }
        signals.next().await;
        Ok(())
    }

    /// Fills the context file unless it is somebody else's.
    fn write_context(&mut self, env: &Env, url: &str, key: &str) -> Result<Option<PathBuf>, CliError> {
        let Some(path) = env.context_file() else { return Ok(None) };
        let present = read_context(&path)?;
        if present.manager_url.is_some() && present.written_by.as_deref() != Some(WRITTEN_BY) {
            return Ok(None);
        }
        let context = ContextFile {
            manager_url: Some(url.to_owned()),
            api_key: Some(key.to_owned()),
            ca_file: None,
            written_by: Some(WRITTEN_BY.to_owned()),
        };
        let text = toml::to_string(&context)
            .map_err(|e| CliError::failed(format!("no context file can be made: {e}")))?;
        private_file(&path, &text)?;
        self.context = Some(path.clone());
        Ok(Some(path))
    }

    /// Ends everything in order and removes the folder.
    async fn end(&mut self) {
        if let Some(path) = self.context.take()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tell(format!("{} cannot be removed: {error}", path.display()));
        }
        if self.project.is_some() || self.dir.join("host/opt/myapp/run/pid").exists() {
            project::stop(&self.dir.join("host/opt/myapp"), &self.path).await;
        }
        // The last one depends on the ones before it.
        while let Some(child) = self.children.pop() {
            child.end().await;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tell(format!("{} cannot be removed: {error}", self.dir.display()));
        }
    }
}

/// Aborts every execution, and waits until all have ended.
async fn abort_all(client: &Client) -> Result<(), CliError> {
    let executions = client.get(&["executions"], &[]).await?;
    for execution in executions.as_array().into_iter().flatten() {
        let Some(id) = execution.get("executionId").and_then(Value::as_str) else { continue };
        if has_ended(&client.execution(id, None).await?) {
            continue;
        }
        client.post(&["executions", id, "abort"], &json!({})).await?;
        while !has_ended(&client.execution(id, None).await?) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Ok(())
}

/// Writes a file that only its owner reads.
fn private_file(path: &Path, text: &str) -> Result<(), CliError> {
    use std::io::Write;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| CliError::file("made", parent, &e))?;
    }
    // A fresh file, so that the mode holds also where an open one was.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(CliError::file("replaced", path, &e));
        }
        _ => {}
    }
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| CliError::file("written", path, &e))
}

/// A port that is free at this moment, below those that the kernel gives to whoever asks for any: the application listens
/// on its own only after the first deployment.
fn free_port() -> Result<u16, CliError> {
    let mut random = rand::rng();
    let mut found = Err(std::io::Error::from(std::io::ErrorKind::AddrInUse));
    for _ in 0..100 {
        let port = random.random_range(10_240..32_240_u16);
        found = TcpListener::bind(("127.0.0.1", port)).map(|_| port);
        if found.is_ok() {
            break;
        }
    }
    found.map_err(|e| CliError::failed(format!("no free port: {e}")))
}

/// A program on the path, or in the places where daemons lie.
fn find(path: &str, program: &str) -> Option<PathBuf> {
    path.split(':')
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"])
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(program))
        .find(|candidate| candidate.is_file())
}
