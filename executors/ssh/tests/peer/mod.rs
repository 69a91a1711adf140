//! A real `sshd` for one test: own port, keys, users and /bin/sh, in a mount namespace of its own.
//!
//! Needs root, `unshare`, OpenSSH and busybox. A peer that cannot start is a failure, never a skip.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]
#![allow(dead_code, reason = "Each test file uses a part of it.")]

pub(crate) use executor_api::testing::free_port;
use executor_api::testing::{self, World};
use executor_ssh::{Settings, SshExecutor};
use proto::task::{
    CommandSpec, CommandUnit, ExecutionRef, HostKeyMode, HostKeys, OutputVariable, Shell, SshCredential,
    SshTarget, Step, StepSpec, StepTask, UnitKind,
};
use proto::text::SecretRef;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What /bin/sh is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sh {
    Dash,
    Bash,
    /// busybox as shell and for every tool.
    Busybox,
}

/// The user that tests log in as; it exists only inside the peer's namespace.
pub(crate) const UID: u32 = 61_001;

/// One host.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    child: Child,
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn spawn(dir: &Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "/bin/bash"])
        .arg(dir.join("start"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Host {
    pub(crate) fn start(sh: Sh) -> Host {
        Self::start_with(sh, "")
    }

    /// `setup` are shell lines that run as root in the namespace before sshd starts; `$D` is the host's folder.
    pub(crate) fn start_with(sh: Sh, setup: &str) -> Host {
        let dir = tempfile::Builder::new().prefix("sshpeer").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        let d = dir.path().display().to_string();
        for (name, kind, phrase) in [
            ("host", "ed25519", ""),
            ("host_rsa", "rsa", ""),
            ("login", "ed25519", ""),
            ("rsa", "rsa", ""),
            ("ecdsa", "ecdsa", ""),
            ("locked", "ed25519", "pass phrase"),
            ("other", "ed25519", ""),
        ] {
            run("ssh-keygen", &["-q", "-t", kind, "-N", phrase, "-C", "", "-f", &format!("{d}/{name}")]);
        }
        let mut keys = String::new();
        for name in ["login", "rsa", "ecdsa", "locked"] {
            keys.push_str(&fs::read_to_string(dir.path().join(format!("{name}.pub"))).unwrap());
        }
        fs::write(dir.path().join("authorized_keys"), keys).unwrap();
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(UID), Some(UID)).unwrap();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        fs::write(dir.path().join("passwd"), format!("{passwd}app:x:{UID}:{UID}::{d}/home:/bin/sh\n"))
            .unwrap();
        let shadow = fs::read_to_string("/etc/shadow").unwrap();
        fs::write(dir.path().join("shadow"), format!("{shadow}app:*:19000:0:99999:7:::\n")).unwrap();
        fs::set_permissions(dir.path().join("shadow"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let path = if sh == Sh::Busybox { format!("{d}/bin") } else { "/usr/local/bin:/usr/bin:/bin".into() };
        fs::write(
            dir.path().join("conf"),
            format!(
                "ListenAddress 127.0.0.1:{port}\nPidFile none\nHostKey {d}/host\nHostKey {d}/host_rsa\n\
                 AuthorizedKeysFile {d}/authorized_keys\nStrictModes no\nUsePAM no\nUseDNS no\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\nPrintMotd no\n\
                 SetEnv PATH={path}\nSubsystem sftp internal-sftp\nAllowUsers app\n"
            ),
        )
        .unwrap();
        let shell = match sh {
            Sh::Dash => "",
            Sh::Bash => "mount --bind /bin/bash \"$(readlink -f /bin/sh)\"",
            Sh::Busybox => {
                "mkdir $D/bin && busybox --install -s $D/bin && rm -f $D/bin/busybox\n\
                 cp \"$(command -v busybox)\" $D/bin/busybox\nmount --bind $D/bin/busybox \"$(readlink -f /bin/sh)\""
            }
        };
        let script = format!(
            "set -e\nD={d}\n{setup}\nmount --bind $D/passwd /etc/passwd\nmount --bind $D/shadow /etc/shadow\n{shell}\n\
             exec /usr/sbin/sshd -D -e -f $D/conf"
        );
        fs::write(dir.path().join("start"), script).unwrap();
        let child = spawn(dir.path());
        let host = Host { dir, port, child };
        host.wait_until_up();
        host
    }

    fn wait_until_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "sshd did not start: {}", self.log());
            std::thread::yield_now();
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn target(&self) -> SshTarget {
        SshTarget {
            host: "127.0.0.1".into(),
            port: self.port,
            user: "app".into(),
            credential: SshCredential::Key { key: SecretRef("login".into()), passphrase: None },
            host_keys: HostKeys { mode: HostKeyMode::AcceptNew, known: vec![] },
        }
    }

    /// Secrets by id: every login key, and the passphrase.
    pub(crate) fn secrets(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = ["login", "rsa", "ecdsa", "locked", "other"]
            .iter()
            .map(|n| ((*n).to_owned(), self.read(n)))
            .collect();
        all.push(("phrase".into(), "pass phrase".into()));
        all
    }

    /// Ends every connection by ending the server's session processes, as a network does that breaks.
    pub(crate) fn cut(&self) {
        for pid in self.sessions() {
            // It may have ended by itself meanwhile.
            Command::new("kill").arg("-KILL").arg(pid.to_string()).stderr(Stdio::null()).status().unwrap();
        }
    }

    /// Session processes of this sshd.
    pub(crate) fn sessions(&self) -> Vec<u32> {
        let listener = self.child.id();
        let all = processes();
        let children: Vec<u32> = all.iter().filter(|p| p.parent == listener).map(|p| p.pid).collect();
        all.iter()
            .filter(|p| children.contains(&p.parent) && p.command.starts_with("sshd"))
            .map(|p| p.pid)
            .chain(children.iter().copied())
            .collect()
    }

    pub(crate) fn stop(&mut self) {
        self.cut();
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.dir.path());
        self.wait_until_up();
    }

    /// Folders of units on the host.
    pub(crate) fn leaves(&self) -> Vec<String> {
        fs::read_dir(self.home().join(".delegate"))
            .map(|d| d.map(|e| e.unwrap().path().display().to_string()).collect())
            .unwrap_or_default()
    }

    pub(crate) fn world(&self, name: &str, spec: &CommandSpec) -> World {
        World::new(format!("task-{name}"), task(spec), self.secrets())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for pid in self.sessions() {
            Command::new("kill").arg("-KILL").arg(pid.to_string()).stderr(Stdio::null()).status().unwrap();
        }
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// A process of this machine.
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) command: String,
}

/// Every process that is not a zombie.
pub(crate) fn processes() -> Vec<Process> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut fields = rest.split(' ');
        if fields.next() == Some("Z") {
            continue;
        }
        let parent = fields.next().and_then(|p| p.parse().ok()).unwrap_or(0);
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
        all.push(Process { pid, parent, command });
    }
    all
}

/// Command lines that contain `text`.
pub(crate) fn running(text: &str) -> Vec<String> {
    processes().into_iter().map(|p| p.command).filter(|c| c.contains(text)).collect()
}

/// An executor as a freshly started agent has it.
pub(crate) fn executor() -> SshExecutor {
    executor_with(Settings::default())
}

pub(crate) fn executor_with(settings: Settings) -> SshExecutor {
    let client = sources::Client::new(sources::ClientOptions::default()).unwrap();
    SshExecutor::new(settings, client).unwrap()
}

/// Settings that do not wait long for a host that is away.
pub(crate) fn hasty() -> Settings {
    Settings {
        backoff: vec![Duration::from_millis(50)],
        connect_timeout: Duration::from_secs(2),
        ..Settings::default()
    }
}

pub(crate) fn script(name: &str, shell: Shell, text: &str) -> CommandUnit {
    CommandUnit {
        identifier: name.into(),
        name: name.into(),
        kind: UnitKind::Script { shell, script: text.into(), working_directory: None },
    }
}

pub(crate) fn command(target: SshTarget, units: Vec<CommandUnit>, outputs: &[&str]) -> CommandSpec {
    let output = |n: &&str| OutputVariable { name: (*n).into(), value: (*n).into(), secret: false };
    CommandSpec { target: Some(target), units, output_variables: outputs.iter().map(output).collect() }
}

pub(crate) fn task(spec: &CommandSpec) -> StepTask {
    StepTask {
        execution: ExecutionRef { node: "pipeline.stages.s.step".into(), ..ExecutionRef::default() },
        secret_token: 77,
        ..StepTask::of(Step {
            identifier: "step".into(),
            name: "Step".into(),
            spec: StepSpec::Command(spec.clone()),
        })
    }
}

/// Waits for a condition with a limit.
pub(crate) async fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    testing::until(what, limit, async || condition().then_some(())).await;
}

pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}
