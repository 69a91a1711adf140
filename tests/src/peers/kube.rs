//! A real Kubernetes control plane (`tests/peers/kube`), and the programs that tests use beside it.
//!
//! This file stands alone: `executors/kube/tests` takes it by `#[path]`, so that there is one starter.
#![allow(dead_code, unreachable_pub, reason = "Each test program uses a part of it.")]

use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long the start of everything may take on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(180);

/// One process of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The store.
    Etcd,
    /// The API server.
    ApiServer,
    /// Controllers.
    ControllerManager,
    /// Scheduler.
    Scheduler,
    /// What plays the nodes.
    Kwok,
}

impl Component {
    fn name(self) -> &'static str {
        match self {
            Component::Etcd => "etcd",
            Component::ApiServer => "kube-apiserver",
            Component::ControllerManager => "kube-controller-manager",
            Component::Scheduler => "kube-scheduler",
            Component::Kwok => "kwok",
        }
    }
}

/// etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok on free loopback ports.
///
/// The processes belong to a keeper that ends them by their process ids and removes their directory as soon as this
/// program closes its pipe: on drop, after a panic, or when the program is killed.
#[derive(Debug)]
pub struct ControlPlane {
    keeper: Child,
    pipe: Option<ChildStdin>,
    dir: PathBuf,
}

impl ControlPlane {
    /// The one of this test program; started on first use with three nodes. Tests keep apart by namespaces and must not
    /// stop its components.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static ControlPlane {
        static SHARED: OnceLock<ControlPlane> = OnceLock::new();
        SHARED.get_or_init(|| ControlPlane::start(&["--nodes=3"]))
    }

    /// One of its own; `options` are those of `tests/peers/kube/up` (`--audit`, `--nodes=5`, `--apiserver-arg=…`).
    ///
    /// # Panics
    /// When a program is missing (`scripts/install-test-peers` makes it) or it is not ready in three minutes.
    pub fn start(options: &[&str]) -> ControlPlane {
        // The keeper removes it.
        let dir = tempfile::Builder::new().prefix("delegate-kube-").tempdir().expect("a directory").keep();
        // Not in the directory: that is gone by the time somebody asks why the start failed.
        let mut log = tempfile::tempfile().expect("a log");
        let mut command = up();
        command.arg("hold").arg(&dir).arg("--remove").args(options).arg("--bin").arg(tool("kube-peer"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.try_clone().expect("the log again"));
        // An interrupt at the keyboard is for the tests; the keeper hears of it when their pipe closes.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut keeper = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let pipe = keeper.stdin.take();
        let said = keeper.stdout.take().expect("its output");
        let plane = ControlPlane { keeper, pipe, dir };
        let (sender, ready) = mpsc::channel();
        std::thread::spawn(move || {
            let kubeconfig =
                BufReader::new(said).lines().map_while(Result::ok).find(|l| l.ends_with(".kubeconfig"));
            let _the_limit_is_over = sender.send(kubeconfig);
        });
        if !matches!(ready.recv_timeout(START_LIMIT), Ok(Some(_))) {
            let mut said = String::new();
            let _nothing_more_to_say = log.rewind().and_then(|()| log.read_to_string(&mut said));
            panic!("the control plane ended before it was ready, or was not in {START_LIMIT:?}: {said}");
        }
        plane
    }

    /// Kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// Kubeconfig of the user `viewer`, who has the role `view` in namespace `default` only.
    pub fn viewer(&self) -> PathBuf {
        self.dir.join("viewer.kubeconfig")
    }

    /// Where its data, certificates (`pki/`), pod logs (`pod-logs/`) and logs (`logs/`) lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends one component in order.
    ///
    /// # Panics
    /// When that fails.
    pub fn stop(&self, component: Component) {
        self.tell(&["stop"], component, &[]);
    }

    /// Ends one component at once, as a crash does.
    ///
    /// # Panics
    /// When that fails.
    pub fn kill(&self, component: Component) {
        self.tell(&["stop"], component, &["--signal", "KILL"]);
    }

    /// Starts a component again, on the same port and data; does not wait for it.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start_again(&self, component: Component) {
        self.tell(&["start"], component, &[]);
    }

    /// Runs `kubectl` as the administrator; must succeed; returns its output.
    ///
    /// # Panics
    /// When it is missing or fails.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args);
        assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `kubectl` as the administrator, whatever becomes of it.
    ///
    /// # Panics
    /// When it is missing.
    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(tool("kubectl"));
        let output =
            command.arg("--kubeconfig").arg(self.kubeconfig()).args(args).stdin(Stdio::null()).output();
        output.unwrap_or_else(|e| panic!("{command:?}: {e}"))
    }

    fn tell(&self, command: &[&str], component: Component, options: &[&str]) {
        let output = up().args(command).arg(&self.dir).arg(component.name()).args(options).output();
        let output = output.expect("the peer's program");
        assert!(output.status.success(), "{component:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if matches!(self.keeper.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _gone_already = self.keeper.kill();
        let _reaped = self.keeper.wait();
    }
}

/// A program that `scripts/install-test-peers` made (`kube-peer`, `helm`, `kustomize`), else the one of the search path.
pub fn tool(name: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let made = cache.expect("HOME").join("delegate/tools/bin").join(name);
    if made.exists() { made } else { PathBuf::from(name) }
}

fn up() -> Command {
    // Both users of this file are crates whose folder lies below the project's root.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|p| p.join("tests/peers/kube/up").exists()).expect("the project's root");
    let mut command = Command::new("python3");
    command.arg(root.join("tests/peers/kube/up"));
    command
}
