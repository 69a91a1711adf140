//! A whole machine: a systemd container with its own network, whose ports are reached over loopback relays.
//!
//! The root is made once by `scripts/install-test-peers` and used read-only below an overlay, so that every machine starts
//! clean. The container has a network of its own (only `lo`), so that the application may listen on a fixed port; inside,
//! `systemd-socket-proxyd` leads unix sockets in a shared folder to the ports, and a relay of this test leads loopback
//! ports of ours to the sockets.

use crate::wait::until;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A booted machine.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    dir: PathBuf,
    relays: Vec<Relay>,
    /// Private key of root's login.
    pub client_key: PathBuf,
    /// Loopback port that leads to the machine's port 22.
    pub ssh_port: u16,
    /// Loopback port that leads to the machine's port 8080.
    pub app_port: u16,
}

/// Where the prepared root lies; `scripts/install-test-peers` makes it.
pub fn prepared_root() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    cache.expect("HOME").join("delegate/vm-root")
}

impl Vm {
    /// Boots a machine called `name`; everything of it lies under `dir`.
    ///
    /// # Panics
    /// When the root is missing (needs `scripts/install-test-peers`, as root) or the machine does not come up in 60 s.
    pub async fn boot(dir: &Path, name: &str) -> Vm {
        let base = prepared_root();
        assert!(
            base.join("usr/sbin/sshd").exists(),
            "{} is missing: run scripts/install-test-peers as root",
            base.display()
        );
        let dir = std::fs::canonicalize(dir).expect("directory").join(format!("vm-{name}"));
        for part in ["upper", "work", "root", "peer"] {
            std::fs::create_dir_all(dir.join(part)).expect("machine directory");
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            base.display(),
            dir.join("upper").display(),
            dir.join("work").display()
        );
        checked(
            Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(dir.join("root")),
        );
        let root = dir.join("root");
        let client_key = dir.join("id_ed25519");
        checked(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
                .arg(&client_key),
        );
        let ssh_dir = root.join("root/.ssh");
        std::fs::create_dir_all(&ssh_dir).expect("root's .ssh");
        std::fs::set_permissions(&ssh_dir, std::fs::Permissions::from_mode(0o700)).expect("its mode");
        std::fs::copy(client_key.with_extension("pub"), ssh_dir.join("authorized_keys"))
            .expect("authorized_keys");
        // Host keys of the shared root would be the same in every machine.
        let host_key = root.join("etc/ssh/ssh_host_ed25519_key");
        for old in ["", ".pub"] {
            let _absent = std::fs::remove_file(format!("{}{old}", host_key.display()));
        }
        checked(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(&host_key),
        );
        std::fs::write(
            root.join("etc/ssh/sshd_config.d/test.conf"),
            "HostKey /etc/ssh/ssh_host_ed25519_key\nPermitRootLogin prohibit-password\nMaxStartups 200\nMaxSessions 50\nUseDNS no\n",
        )
        .expect("sshd_config");
        for (unit, port) in [("ssh", 22), ("app", 8080)] {
            lead_out(&root, unit, port);
        }
        let log = std::fs::File::create(dir.join("boot.log")).expect("boot log");
        let child = Command::new("systemd-nspawn")
            .args(["--register=no", "--keep-unit", "--private-network", "--boot"])
            .arg(format!("--machine={name}"))
            .arg(format!("--directory={}", root.display()))
            .arg(format!("--bind={}:/peer", dir.join("peer").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("boot log"))
            .stderr(log)
            .spawn()
            .expect("systemd-nspawn starts");
        let ssh = Relay::start(dir.join("peer/ssh"));
        let app = Relay::start(dir.join("peer/app"));
        let (ssh_port, app_port) = (ssh.port, app.port);
        let vm = Vm { child, dir, relays: vec![ssh, app], client_key, ssh_port, app_port };
        until("the machine is up", Duration::from_secs(60), || {
            let output = vm.sh("systemctl is-system-running");
            async move { String::from_utf8_lossy(&output.stdout).contains("running").then_some(()) }
        })
        .await;
        vm
    }

    /// The machine's file system as the host sees it.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Writes a file inside the machine.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, path: &str, content: &[u8], mode: u32) {
        let path = self.root().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        std::fs::write(&path, content).expect("file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
    }

    /// A file inside the machine, if it is there.
    pub fn get(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root().join(path.trim_start_matches('/'))).ok()
    }

    /// Runs a shell command inside as root, over ssh, outside of anything under test.
    ///
    /// # Panics
    /// When ssh cannot be run.
    pub fn sh(&self, command: &str) -> Output {
        Command::new("ssh")
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "LogLevel=ERROR",
            ])
            .args(["-o", "ConnectTimeout=20", "-o", "BatchMode=yes", "-p"])
            .arg(self.ssh_port.to_string())
            .arg("-i")
            .arg(&self.client_key)
            .args(["root@127.0.0.1", command])
            .stdin(Stdio::null())
            .output()
            .expect("ssh runs")
    }

    /// As [`Vm::sh`]; must succeed; returns standard output without trailing white space.
    ///
    /// # Panics
    /// When the command fails.
    pub fn ok(&self, command: &str) -> String {
        let output = self.sh(command);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Takes the machine off the network (new connections are refused, open ones cut) or puts it back.
    pub fn set_reachable(&self, reachable: bool) {
        for relay in &self.relays {
            relay.open.store(reachable, Ordering::SeqCst);
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // TERM makes systemd-nspawn shut the machine down in order; KILL would leave its processes behind.
        let _gone_already = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) && !matches!(self.child.try_wait(), Ok(Some(_))) {
            pause();
        }
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
        let _not_mounted = Command::new("umount").arg("--lazy").arg(self.dir.join("root")).status();
    }
}

/// A pause in code that cannot await.
fn pause() {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    let _timed_out = receiver.recv_timeout(Duration::from_millis(20));
    std::thread::park_timeout(Duration::from_millis(20));
}

fn checked(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Inside the machine: `/peer/<unit>` leads to `port`.
fn lead_out(root: &Path, unit: &str, port: u16) {
    let units = root.join("etc/systemd/system");
    std::fs::create_dir_all(units.join("sockets.target.wants")).expect("unit folder");
    std::fs::write(
        units.join(format!("peer-{unit}.socket")),
        format!("[Socket]\nListenStream=/peer/{unit}\n"),
    )
    .expect("unit");
    std::fs::write(
        units.join(format!("peer-{unit}.service")),
        format!("[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd 127.0.0.1:{port}\n"),
    )
    .expect("unit");
    let link = units.join(format!("sockets.target.wants/peer-{unit}.socket"));
    if !link.exists() {
        symlink(format!("../peer-{unit}.socket"), link).expect("link");
    }
}

/// A loopback port that leads to a unix socket.
#[derive(Debug)]
struct Relay {
    port: u16,
    open: Arc<AtomicBool>,
}

impl Relay {
    fn start(socket: PathBuf) -> Relay {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let open = Arc::new(AtomicBool::new(true));
        let is_open = Arc::clone(&open);
        // The thread lives as long as the test process; it holds nothing but the port.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                let is_open = Arc::clone(&is_open);
                std::thread::spawn(move || relay(client, server, &is_open));
            }
        });
        Relay { port, open }
    }
}

/// Copies both ways until one side ends or the relay is closed.
fn relay(client: std::net::TcpStream, server: UnixStream, open: &Arc<AtomicBool>) {
    let _no_delay = client.set_nodelay(true);
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
    let (mut from_server, mut to_client) = (server, client);
    let upward = Arc::clone(open);
    let copy_up = std::thread::spawn(move || pump(&mut from_client, &mut to_server, &upward));
    pump(&mut from_server, &mut to_client, open);
    let _ended = to_client.shutdown(std::net::Shutdown::Both);
    let _ended = from_server.shutdown(std::net::Shutdown::Both);
    let _ended = copy_up.join();
}

/// A stream with a read time limit, so that closing the relay is noticed.
trait Limited: std::io::Read {
    fn limit(&self, span: Duration);
}

impl Limited for std::net::TcpStream {
    fn limit(&self, span: Duration) {
        let _unsupported = self.set_read_timeout(Some(span));
    }
}

impl Limited for UnixStream {
    fn limit(&self, span: Duration) {
        let _unsupported = self.set_read_timeout(Some(span));
    }
}

fn pump(from: &mut impl Limited, to: &mut impl Write, open: &AtomicBool) {
    from.limit(Duration::from_millis(200));
    let mut buffer = vec![0; 64 * 1024];
    while open.load(Ordering::SeqCst) {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                if to.write_all(&buffer[..n]).is_err() {
                    return;
                }
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}
