//! Starters of the real peers. Each lives in a folder of its own, listens on a free loopback port and ends with the test.

use crate::{PASSWORD, USER};
pub(crate) use executor_api::testing::free_port;
use executor_api::testing::until_ok;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A bcrypt hash of [`PASSWORD`], the only form that docker-registry reads.
const BCRYPT: &str = "$2b$04$VrjCFXccNp43X3Y45f2K..BiFisDX5aRz8Zu.PeeA2gJDKBxOK5AC";

/// A server process, ended by its own id.
pub(crate) struct Process(Child);

impl Process {
    fn start(mut command: Command, log: &Path, ready: impl Fn() -> bool) -> Process {
        let file = fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let begin = Instant::now();
        while !ready() {
            let gone = child.try_wait().unwrap();
            assert!(
                gone.is_none() && begin.elapsed() < Duration::from_secs(30),
                "{command:?} {gone:?}: {}",
                fs::read_to_string(log).unwrap_or_default()
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Process(child)
    }

    fn listening(command: Command, log: &Path, port: u16) -> Process {
        Process::start(command, log, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
    }

    /// Prometheus that scrapes nothing, and its port.
    pub(crate) fn prometheus(dir: &Path) -> (Process, u16) {
        let port = free_port();
        fs::write(dir.join("prometheus.yml"), "scrape_configs: []\n").unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        (Process::start(command, &dir.join("log"), || is_ready(port)), port)
    }
}

/// Whether a Prometheus answers queries: it listens before it does.
fn is_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

impl Drop for Process {
    fn drop(&mut self) {
        // TERM lets nginx take its workers along.
        let told = Command::new("kill").arg(self.0.id().to_string()).status();
        let begin = Instant::now();
        while told.is_ok() && begin.elapsed() < Duration::from_secs(5) {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// nginx: files under `/open`, the same behind a password under `/closed`, and a place for every oddity.
pub(crate) struct Nginx {
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    _process: Process,
}

impl Nginx {
    pub(crate) fn start(extra: &str) -> Nginx {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let root = dir.path().display().to_string();
        fs::create_dir(dir.path().join("files")).unwrap();
        fs::write(dir.path().join("passwords"), format!("{USER}:{{PLAIN}}{PASSWORD}\n")).unwrap();
        let locations = format!(
            "location /open/ {{ alias {root}/files/; }}
             location /closed/ {{ alias {root}/files/; auth_basic closed; auth_basic_user_file {root}/passwords; }}
             location /forbidden/ {{ return 403; }}
             location /broken/ {{ return 502; }}
             location /busy/ {{ add_header Retry-After 1 always; return 429; }}
             location /loop/ {{ return 302 /loop/; }}
             {extra}"
        );
        let process = nginx(dir.path(), port, &locations);
        Nginx { port, dir, _process: process }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Puts a file. Its entity tag follows from time and length.
    pub(crate) fn put(&self, name: &str, content: &[u8]) {
        let path = self.dir.path().join("files").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The log as soon as `needle` stands in it `times` times. nginx writes a line when the answer is already out.
    ///
    /// A line: method, URI, status, bytes of body, Authorization, Range, Host.
    pub(crate) async fn log_with(&self, needle: &str, times: usize) -> String {
        log_with(self.dir.path(), needle, times).await
    }
}

async fn log_with(dir: &Path, needle: &str, times: usize) -> String {
    until_ok(&format!("{times} times {needle:?} in the log"), Duration::from_secs(10), async || {
        let log = fs::read_to_string(dir.join("access.log")).unwrap_or_default();
        if log.matches(needle).count() >= times { Ok(log) } else { Err(log) }
    })
    .await
}

fn nginx(dir: &Path, port: u16, locations: &str) -> Process {
    let root = dir.display();
    let temp: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].iter().fold(String::new(), |mut all, kind| {
            writeln!(all, "{kind}_temp_path {root}/{kind};").unwrap();
            all
        });
    // The folder of a test is private, so workers run as who started them.
    let user = if is_root() { "user root;" } else { "" };
    let config = format!(
        "{user} daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;
         events {{ worker_connections 64; }}
         http {{
           {temp}
           log_format plain '$request_method $request_uri $status $body_bytes_sent auth=$http_authorization range=$http_range host=$http_host';
           access_log {root}/access.log plain;
           server {{ listen 127.0.0.1:{port}; root {root}/none; {locations} }}
         }}"
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config).unwrap();
    let mut command = server("nginx");
    command.arg("-c").arg(&path).arg("-p").arg(dir).arg("-e").arg(dir.join("error.log"));
    Process::listening(command, &dir.join("out.log"), port)
}

/// A program that Debian puts where only root's path leads.
fn server(name: &str) -> Command {
    let system = Path::new("/usr/sbin").join(name);
    if system.exists() { Command::new(system) } else { Command::new(name) }
}

fn is_root() -> bool {
    let out = Command::new("id").arg("-u").output().unwrap();
    out.stdout.starts_with(b"0\n")
}

/// docker-registry.
pub(crate) struct Registry {
    pub(crate) port: u16,
    _dir: tempfile::TempDir,
    _process: Process,
}

/// Who may read a registry.
pub(crate) enum Guard<'a> {
    Nobody,
    Basic,
    /// Realm URL and the certificate that its tokens are signed with.
    Token {
        realm: &'a str,
        certificate: &'a str,
    },
}

impl Registry {
    /// One over `storage`, which several may share one after the other.
    pub(crate) fn start(storage: &Path, guard: &Guard<'_>) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let auth = match guard {
            Guard::Nobody => String::new(),
            Guard::Basic => {
                let path = dir.path().join("htpasswd");
                fs::write(&path, format!("{USER}:{BCRYPT}\n")).unwrap();
                format!("auth:\n  htpasswd:\n    realm: closed\n    path: {}\n", path.display())
            }
            Guard::Token { realm, certificate } => {
                let path = dir.path().join("root.pem");
                fs::write(&path, certificate).unwrap();
                format!(
                    "auth:\n  token:\n    realm: {realm}\n    service: test-registry\n    issuer: test-realm\n    rootcertbundle: {}\n",
                    path.display()
                )
            }
        };
        let config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}",
            storage.display()
        );
        let path = dir.path().join("conf.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path);
        let process = Process::listening(command, &dir.path().join("log"), port);
        Registry { port, _dir: dir, _process: process }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// git over HTTP: nginx, fcgiwrap and git-http-backend.
pub(crate) struct Git {
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    _nginx: Process,
    _cgi: Process,
}

impl Git {
    /// Repositories under `/open/` and, with a password, `/closed/`. Without `version` the front does not pass on which
    /// protocol the client wants, so the server speaks the old one.
    pub(crate) fn start(version: bool) -> Git {
        let dir = tempfile::tempdir().unwrap();
        let (port, root) = (free_port(), dir.path().display().to_string());
        fs::create_dir(dir.path().join("repos")).unwrap();
        fs::write(dir.path().join("passwords"), format!("{USER}:{{PLAIN}}{PASSWORD}\n")).unwrap();
        let socket = dir.path().join("cgi");
        let mut command = server("fcgiwrap");
        command.arg("-s").arg(format!("unix:{}", socket.display()));
        let waited = socket.clone();
        let cgi = Process::start(command, &dir.path().join("cgi.log"), move || {
            std::os::unix::net::UnixStream::connect(&waited).is_ok()
        });
        let exec = Command::new("git").arg("--exec-path").output().unwrap();
        let exec = String::from_utf8(exec.stdout).unwrap();
        let protocol = if version { "$http_git_protocol" } else { "''" };
        let params = format!(
            "fastcgi_pass unix:{}; fastcgi_param SCRIPT_FILENAME {}/git-http-backend;
             fastcgi_param GIT_HTTP_EXPORT_ALL 1; fastcgi_param GIT_PROJECT_ROOT {root}/repos;
             fastcgi_param GIT_CONFIG_NOSYSTEM 1; fastcgi_param HOME {root};
             fastcgi_param GIT_CONFIG_COUNT 1; fastcgi_param GIT_CONFIG_KEY_0 safe.directory; fastcgi_param GIT_CONFIG_VALUE_0 *;
             fastcgi_param PATH_INFO $path; fastcgi_param QUERY_STRING $args; fastcgi_param REQUEST_METHOD $request_method;
             fastcgi_param CONTENT_TYPE $content_type; fastcgi_param CONTENT_LENGTH $content_length;
             fastcgi_param HTTP_GIT_PROTOCOL {protocol};",
            socket.display(),
            exec.trim()
        );
        let locations = format!(
            "location ~ ^/open(?<path>/.*)$ {{ {params} }}
             location ~ ^/closed(?<path>/.*)$ {{ auth_basic closed; auth_basic_user_file {root}/passwords; {params} }}
             location ~ ^/old(?<path>/.*)$ {{ return 301 /open$path$is_args$args; }}"
        );
        let nginx = nginx(dir.path(), port, &locations);
        Git { port, dir, _nginx: nginx, _cgi: cgi }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    pub(crate) async fn log_with(&self, needle: &str, times: usize) -> String {
        log_with(self.dir.path(), needle, times).await
    }

    /// A file in the work tree of a repository.
    pub(crate) fn work_file(&self, name: &str, file: &str) -> PathBuf {
        self.dir.path().join(format!("work-{name}")).join(file)
    }

    /// A work tree whose `origin` is the bare repository `name`.
    pub(crate) fn repository(&self, name: &str) -> Work {
        let bare = self.dir.path().join("repos").join(name);
        let path = self.dir.path().join(format!("work-{name}"));
        let work = Work { path, bare: bare.clone() };
        fs::create_dir(&work.path).unwrap();
        work.git(&["init", "-q", "--bare", "-b", "main", &bare.display().to_string()]);
        work.git(&["init", "-q", "-b", "main", "."]);
        work.git(&["remote", "add", "origin", &bare.display().to_string()]);
        work
    }
}

/// A work tree.
pub(crate) struct Work {
    path: PathBuf,
    bare: PathBuf,
}

impl Work {
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let out = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"])
            .args(args)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .current_dir(&self.path)
            .output()
            .unwrap();
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// A setting of the served repository.
    pub(crate) fn configure(&self, key: &str, value: &str) {
        self.git(&["-C", &self.bare.display().to_string(), "config", key, value]);
    }

    pub(crate) fn write(&self, name: &str, content: &[u8], executable: bool) {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
            .unwrap();
    }

    pub(crate) fn link(&self, name: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.path.join(name)).unwrap();
    }

    /// Commits everything and pushes it to `branch`; returns the commit.
    pub(crate) fn push(&self, branch: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "state", "--allow-empty"]);
        self.git(&["push", "-q", "-f", "origin", &format!("HEAD:refs/heads/{branch}")]);
        self.git(&["rev-parse", "HEAD"])
    }
}
