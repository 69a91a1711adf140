//! Servers of the tests: moto (an emulator of AWS), haproxy, and small ones of our own.

use executor_api::testing::{free_port, until};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A generous bound for starting a server on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A server process: started with its output in a file, ended by its own process id.
pub(crate) struct Owned(Child);

impl Owned {
    pub(crate) async fn listening(mut command: Command, log: &Path, port: u16) -> Owned {
        let file = std::fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let owned = Owned(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
        until(&format!("{command:?} listens on {port}"), LIMIT, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        owned
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// moto: an emulator whose answers have the shapes of AWS'.
pub(crate) struct Moto {
    pub(crate) port: u16,
    _process: Owned,
}

/// One for every test that neither guards it nor counts what is in it.
static SHARED: OnceLock<(u16, ChildStdin)> = OnceLock::new();

/// Port of the shared moto. It ends with this program, however that ends: a shell holds it and waits for its input to close.
#[expect(clippy::zombie_processes, reason = "The shell outlives every test; it ends when this program does.")]
pub(crate) fn shared() -> u16 {
    let (port, _pipe) = SHARED.get_or_init(|| {
        let port = free_port();
        let mut command = Command::new("sh");
        command.args(["-c", "\"$@\" >/dev/null 2>&1 & read -r _; kill $!", "sh"]);
        command.arg(program("moto_server")).args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let mut shell = command.stdin(Stdio::piped()).spawn().unwrap();
        let pipe = shell.stdin.take().unwrap();
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < LIMIT, "moto does not listen");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        (port, pipe)
    });
    *port
}

/// URL of the shared moto.
pub(crate) fn shared_url() -> String {
    format!("http://127.0.0.1:{}", shared())
}

/// Calls a service that is none of ours (IAM, EC2) at `url`, unsigned.
pub(crate) async fn ask(url: &str, service: &str, form: &[(&str, &str)]) -> String {
    let scope = format!("AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/{service}/aws4_request");
    let answer =
        reqwest::Client::new().post(url).header("authorization", scope).form(form).send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    text
}

impl Moto {
    pub(crate) async fn start(dir: &Path) -> Moto {
        let port = free_port();
        let mut command = Command::new(program("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        Moto { port, _process: Owned::listening(command, &dir.join(format!("moto-{port}.log")), port).await }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn ask(&self, service: &str, form: &[(&str, &str)]) -> String {
        ask(&self.url(), service, form).await
    }

    /// From here on every request needs a right signature and a policy that allows it.
    pub(crate) async fn guard(&self) {
        let url = format!("{}/moto-api/reset-auth", self.url());
        assert!(reqwest::Client::new().post(url).body("0").send().await.unwrap().status().is_success());
    }

    /// A user with a policy; its access key and secret key.
    pub(crate) async fn user(&self, policy: &serde_json::Value) -> (String, String) {
        self.ask("iam", &[("Action", "CreateUser"), ("Version", "2010-05-08"), ("UserName", "deployer")])
            .await;
        let policy = policy.to_string();
        let put = [("Action", "PutUserPolicy"), ("Version", "2010-05-08"), ("UserName", "deployer")];
        let put = [put.as_slice(), &[("PolicyName", "p"), ("PolicyDocument", &policy)]].concat();
        self.ask("iam", &put).await;
        let key = [("Action", "CreateAccessKey"), ("Version", "2010-05-08"), ("UserName", "deployer")];
        let made = self.ask("iam", &key).await;
        let between = |tag: &str| {
            let (_, rest) = made.split_once(&format!("<{tag}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        (between("AccessKeyId"), between("SecretAccessKey"))
    }
}

/// A program of the Python environment that `scripts/install-test-peers` makes.
pub(crate) fn program(name: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
    cache.join("delegate/tools/aws/bin").join(name)
}

/// haproxy in front of a server, with fault rules of a test.
pub(crate) struct Haproxy {
    pub(crate) port: u16,
    _process: Owned,
}

impl Haproxy {
    /// `rules` are lines of a frontend. With `certificate`, a PEM file with key, it speaks TLS.
    pub(crate) async fn start(dir: &Path, rules: &[String], certificate: Option<&Path>, to: u16) -> Haproxy {
        let port = free_port();
        let tls = certificate.map_or_else(String::new, |pem| format!(" ssl crt {}", pem.display()));
        let config = format!(
            "global\n  maxconn 500\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
             backend calls\n  stick-table type string len 128 size 100 expire 1h store http_req_cnt\n\
             frontend f\n  bind 127.0.0.1:{port}{tls}\n  http-request track-sc0 hdr(x-amz-target) table calls\n  {}\n  \
             default_backend b\nbackend b\n  server s 127.0.0.1:{to}\n",
            rules.join("\n  ")
        );
        let file = dir.join(format!("haproxy-{port}.cfg"));
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        Haproxy {
            port,
            _process: Owned::listening(command, &dir.join(format!("haproxy-{port}.log")), port).await,
        }
    }

    /// A rule that refuses calls for which `condition` holds.
    pub(crate) fn refuse(status: u16, code: &str, condition: &str) -> String {
        format!(
            "http-request return status {status} content-type application/x-amz-json-1.1 \
             string '{{\"__type\":\"{code}\",\"message\":\"refused by the test\"}}' if {condition}"
        )
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// One request as a [`Tap`] saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Request line and headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What a [`Tap`] does with a request.
pub(crate) enum Reply {
    /// Passes it on to the server behind.
    Forward(u16),
    /// Answers by itself.
    Answer(u16, &'static str, String),
    /// Closes the connection without a word.
    Cut,
    /// Connects both sides, as a proxy does on CONNECT.
    Tunnel(u16),
}

/// A server of the test's own: remembers what it is asked, and does what the test says.
pub(crate) struct Tap {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Tap {
    /// `reply` is given the request and how many came before it.
    pub(crate) async fn start(reply: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Tap {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, reply) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(reply));
        let kept = seen.clone();
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (kept, reply) = (kept.clone(), reply.clone());
                open.spawn(async move { serve(client, &kept, reply.as_ref()).await });
            }
        });
        Tap { port, seen, task }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut client: TcpStream,
    kept: &Mutex<Vec<Seen>>,
    reply: &(dyn Fn(&Seen, usize) -> Reply + Send + Sync),
) -> Option<()> {
    let mut raw = Vec::new();
    let head = loop {
        if let Some(end) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut raw).await.ok()? == 0 {
            return None;
        }
    };
    let mut one = Seen { head: String::from_utf8_lossy(&raw[..head]).into_owned(), body: String::new() };
    let length: usize = one.header("content-length").map_or(0, |text| text.parse().unwrap());
    while raw.len() < head + length {
        client.read_buf(&mut raw).await.ok().filter(|read| *read > 0)?;
    }
    one.body = String::from_utf8_lossy(&raw[head..]).into_owned();
    let before = {
        let mut kept = kept.lock().unwrap();
        kept.push(one.clone());
        kept.len() - 1
    };
    match reply(&one, before) {
        Reply::Cut => None,
        Reply::Answer(status, kind, body) => {
            let text = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
                 x-aws-ec2-metadata-token-ttl-seconds: 21600\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            client.write_all(text.as_bytes()).await.ok()
        }
        Reply::Forward(to) => {
            let mut server = TcpStream::connect(("127.0.0.1", to)).await.ok()?;
            let line = raw.windows(2).position(|two| two == b"\r\n")?;
            server.write_all(&raw[..line]).await.ok()?;
            server.write_all(b"\r\nconnection: close").await.ok()?;
            server.write_all(&raw[line..]).await.ok()?;
            tokio::io::copy(&mut server, &mut client).await.ok().map(drop)
        }
        Reply::Tunnel(to) => {
            let mut server = TcpStream::connect(("127.0.0.1", to)).await.ok()?;
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await.ok().map(drop)
        }
    }
}
