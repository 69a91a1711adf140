//! Real OpenSSH servers on loopback addresses, each with its own host key; one client key for all.

use crate::wait::{free_port, until};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A user whose login shell reads no start-up files worth mentioning.
///
/// As root a dedicated user `delegatetest` with `/bin/sh` is made once: root's own shell may source slow start-up files
/// for every command. Otherwise the current user serves.
///
/// # Panics
/// When the user cannot be made.
pub fn test_user() -> String {
    let me = run("id", &["-un"]);
    if me != "root" {
        return me;
    }
    let name = "delegatetest";
    if !Command::new("id")
        .arg(name)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("id")
        .success()
    {
        // Another test may make it at the same moment; what counts is that it is there afterwards.
        let _made_by_another =
            Command::new("useradd").args(["-m", "-s", "/bin/sh", "-p", "*", name]).output();
    }
    run("id", &[name]);
    name.to_owned()
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Several servers with one client key.
#[derive(Debug)]
pub struct Sshd {
    servers: Vec<Server>,
    /// Private key of the client, OpenSSH format.
    pub client_key: PathBuf,
    /// Login name.
    pub user: String,
    /// The user's home.
    pub home: PathBuf,
    /// One port for all.
    pub port: u16,
    /// `known_hosts` with every server's key.
    pub known_hosts: PathBuf,
}

#[derive(Debug)]
struct Server {
    child: Child,
    address: String,
}

impl Sshd {
    /// Starts `count` servers on 127.0.0.2 and following, configured for wide fan-out; all they need lies in `dir`, which is
    /// made when it is not there.
    ///
    /// # Panics
    /// When OpenSSH is missing or a server does not come up.
    pub async fn start(dir: &Path, count: u8) -> Sshd {
        let binary = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].into_iter().find(|p| Path::new(p).exists());
        let binary = binary.expect("OpenSSH server (scripts/install-test-peers installs it)");
        std::fs::create_dir_all(dir).expect("directory");
        let dir = std::fs::canonicalize(dir).expect("directory");
        let user = test_user();
        // A home of its own, so that what a scenario leaves behind is seen as its own.
        let home = dir.join("home");
        std::fs::create_dir_all(&home).expect("home");
        let _not_root = Command::new("chown").arg(&user).arg(&home).stderr(Stdio::null()).status();
        let client_key = dir.join("id_ed25519");
        run(
            "ssh-keygen",
            &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", client_key.to_str().expect("path")],
        );
        std::fs::copy(client_key.with_extension("pub"), dir.join("authorized_keys"))
            .expect("authorized_keys");
        if Path::new("/run").exists() {
            let _not_root = std::fs::create_dir_all("/run/sshd");
        }
        let port = free_port();
        let mut known = String::new();
        let mut servers = Vec::new();
        for n in 0..count {
            let address = format!("127.0.0.{}", 2 + n);
            let place = dir.join(format!("h{n}"));
            std::fs::create_dir_all(&place).expect("server directory");
            let key = place.join("host_key");
            run(
                "ssh-keygen",
                &["-q", "-t", "ed25519", "-N", "", "-C", &address, "-f", key.to_str().expect("path")],
            );
            let public = std::fs::read_to_string(key.with_extension("pub")).expect("host key");
            let public: Vec<&str> = public.split_whitespace().take(2).collect();
            known.push_str(&format!("[{address}]:{port} {}\n", public.join(" ")));
            let config = place.join("sshd_config");
            let text = format!(
                "ListenAddress {address}:{port}\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
                 UseDNS no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
                 MaxStartups 1000\nMaxSessions 100\nPrintMotd no\nPrintLastLog no\nSetEnv HOME={}\nLogLevel ERROR\nSubsystem sftp internal-sftp\n",
                key.display(),
                dir.join("authorized_keys").display(),
                home.display()
            );
            // The first is as a distribution has it and takes no variables from clients; the others let git choose its
            // protocol.
            let accepts = if n == 0 { "" } else { "AcceptEnv GIT_PROTOCOL\n" };
            std::fs::write(&config, text + accepts).expect("sshd_config");
            // sshd executes itself again from `/`, hence absolute paths everywhere.
            let log = std::fs::File::create(place.join("log")).expect("log");
            let child = Command::new(binary)
                .args(["-D", "-e", "-f"])
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("sshd starts");
            servers.push(Server { child, address });
        }
        // The key must be readable by the server after it switched to the user.
        for path in [dir.as_path(), &dir.join("authorized_keys")] {
            use std::os::unix::fs::PermissionsExt;
            let mode = if path.is_dir() { 0o755 } else { 0o644 };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
        }
        let known_hosts = dir.join("known_hosts");
        std::fs::write(&known_hosts, known).expect("known_hosts");
        let sshd = Sshd { servers, client_key, user, home, port, known_hosts };
        for server in &sshd.servers {
            let address = format!("{}:{port}", server.address);
            until(&format!("sshd on {address}"), Duration::from_secs(30), || async {
                tokio::net::TcpStream::connect(&address).await.ok().map(drop)
            })
            .await;
        }
        sshd
    }

    /// Addresses of the servers.
    pub fn hosts(&self) -> Vec<String> {
        self.servers.iter().map(|s| s.address.clone()).collect()
    }

    /// The public host key of one server as an OpenSSH line without host.
    ///
    /// # Panics
    /// When the host is not one of these.
    pub fn host_key(&self, host: &str) -> String {
        let text = std::fs::read_to_string(&self.known_hosts).expect("known_hosts");
        let line = text.lines().find(|l| l.starts_with(&format!("[{host}]:"))).expect("one of these hosts");
        line.split_once(' ').expect("a key").1.to_owned()
    }

    /// Process ids of the listeners.
    pub fn pids(&self) -> Vec<u32> {
        self.servers.iter().map(|s| s.child.id()).collect()
    }

    /// Stops one server, as when the host goes down.
    ///
    /// # Panics
    /// When the host is not one of these.
    pub fn stop(&mut self, host: &str) {
        let server = self.servers.iter_mut().find(|s| s.address == host).expect("one of these hosts");
        server.child.kill().expect("kill");
        server.child.wait().expect("its end");
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _gone_already = server.child.kill();
            let _reaped = server.child.wait();
        }
    }
}
