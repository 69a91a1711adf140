//! `delegate quickstart`: manager, agent and a private host on this machine, and a deployment to it, in seconds.
//!
//! ```text
//! this process ── children of the same binary ──> manager, agent, artifact server
//!              ── sshd (OpenSSH) ──> the sample host ── started by the pipeline ──> the sample application
//!              ── client API ──> apply, run, follow
//! ```
//! Everything lies in one private folder and on loopback. Children live as long as [`World`]; it ends them in order.

pub(crate) mod app;
pub(crate) mod artifacts;
mod child;
mod project;
mod target;

use crate::client::Client;
use crate::commands::{apply, pipeline};
use crate::exit::{CliError, Exit};
use crate::output::{say, tell};
use crate::settings::{ContextFile, Env, read_context};
use crate::shutdown::Signals;
use child::Child;
use project::Project;
use rand::RngExt;
use secrecy::SecretString;
use serde_json::Value;
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
/// How long Prometheus may take to its first sample.
const SAMPLES_LIMIT: Duration = Duration::from_secs(10);
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
}

/// Runs it. 0 when the deployment succeeded, 1 when it failed; what was started is ended in either case.
pub(crate) async fn run(args: &Args, env: &Env) -> Result<Exit, CliError> {
    let mut signals = Signals::take()?;
    let mut world = World::new(env)?;
    let result = tokio::select! {
        result = world.play(args, env) => result,
        _ = signals.next() => Ok(Exit::Interrupted),
    };
    let exit = match result {
        Ok(exit) if args.serve && exit != Exit::Interrupted => {
            world.serve(env, &mut signals).await?;
            exit
        }
        other => {
            world.end().await;
            return other;
        }
    };
    world.end().await;
    Ok(exit)
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
        Ok(World { dir, home, path, exe, children: Vec::new(), project: None, access: None, context: None })
    }

    /// A command of this binary with a clean environment.
    fn own(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(arguments).env_clear().env("PATH", &self.path).env("HOME", &self.home);
        command
    }

    /// Starts a child whose output says `ready`; returns the rest of that line.
    async fn start(&mut self, name: &'static str, command: Command, ready: &str) -> Result<String, CliError> {
        let (child, line) = Child::start(name, command, &self.dir, Some(ready)).await?;
        self.children.push(child);
        Ok(line)
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
        // First of all: it takes five seconds until it looks at its targets.
        let prometheus = self.start_prometheus(app_port).await?;
        let target = Target::start(&self.dir, &self.path).await?;
        tell(format!("sample host    {} as {} on port {}", target.kind, target.user, target.port));
        let (port, app_dir) = (app_port, self.dir.join("host/opt/myapp"));
        project::write_release(&self.dir, &self.exe, OLD, "UP", port, &self.path).await?;
        project::write_release(
            &self.dir,
            &self.exe,
            NEW,
            if args.broken { "DOWN" } else { "UP" },
            port,
            &self.path,
        )
        .await?;
        project::install(&self.dir, OLD, &app_dir, &self.path).await?;
        tell(format!("application    version {OLD} answers on http://127.0.0.1:{port}"));
        let releases = self.dir.join("artifacts").display().to_string();
        let command = self.own(&["quickstart-artifacts", "--dir", &releases]);
        let artifacts = self.start("artifacts", command, "artifacts ready ").await?;
        let data = self.dir.join("manager");
        let command =
            self.own(&["manager", "--listen", "127.0.0.1:0", "--data-dir", &data.display().to_string()]);
        let url = self.start("manager", command, "manager ready ").await?;
        tell(format!("manager        {url}"));
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
        tell(format!("agent          {}", agent.split(' ').next().unwrap_or("ready")));

        let client = Client::connect(&url, SecretString::from(field("apiKey")), None)?;
        self.access = Some((url, field("apiKey")));
        let (client_key, children) = (target.client_key.clone(), target.children);
        self.children.extend(children);
        let prometheus = match prometheus {
            Some(url) if has_samples(&url).await => Some(url),
            Some(_) => {
                tell("Prometheus has no samples yet; the pipeline goes without its Verify step");
                None
            }
            None => None,
        };
        let facts = project::Facts {
            user: &target.user,
            ssh_port: target.port,
            app_dir: &app_dir,
            app_port: port,
            artifacts: &artifacts,
            prometheus: prometheus.as_deref(),
            version: NEW,
        };
        self.project = Some(project::write(&self.dir, client_key, &facts)?);
        Ok(client)
    }

    /// Prometheus, if it is installed. The Verify step is part of the pipeline only then.
    async fn start_prometheus(&mut self, app_port: u16) -> Result<Option<String>, CliError> {
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
        let (child, _) = Child::start("prometheus", command, &self.dir, None).await?;
        self.children.push(child);
        let url = format!("http://127.0.0.1:{port}");
        tell(format!("Prometheus     {url}"));
        Ok(Some(url))
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
        // The last one started depends on the ones before it.
        while let Some(child) = self.children.pop() {
            child.end().await;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tell(format!("{} cannot be removed: {error}", self.dir.display()));
        }
    }
}

/// Waits for the first sample of the application.
async fn has_samples(prometheus: &str) -> bool {
    let query = format!("{prometheus}/api/v1/query?query=app_errors");
    let deadline = Instant::now() + SAMPLES_LIMIT;
    while Instant::now() < deadline {
        if let Ok(reply) = reqwest::get(&query).await
            && let Ok(answer) = reply.json::<Value>().await
            && answer.pointer("/data/result/0").is_some()
        {
            return true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    false
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

/// A port that is free at this moment.
fn free_port() -> Result<u16, CliError> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    port.map(|address| address.port()).map_err(|e| CliError::failed(format!("no free port: {e}")))
}

/// A program on the path, or in the places where daemons lie.
fn find(path: &str, program: &str) -> Option<PathBuf> {
    path.split(':')
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"])
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(program))
        .find(|candidate| candidate.is_file())
}
