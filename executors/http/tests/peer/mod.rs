//! A real nginx with TLS under a CA of its own, on loopback, in its own folder; ends with the value.

use executor_api::testing::{free_port, until_ok};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// The name in the server's certificate.
pub(crate) const NAME: &str = "good.test";

pub(crate) struct Nginx {
    child: Child,
    dir: tempfile::TempDir,
    marks: AtomicU32,
    pub(crate) http: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// The CA, PEM.
    pub(crate) ca: Vec<u8>,
}

/// An address that nobody listens on.
pub(crate) fn free() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

impl Nginx {
    pub(crate) async fn start() -> Nginx {
        let dir = tempfile::tempdir().unwrap();
        let ca = certificates(dir.path());
        let (http, tls) = (free(), free());
        std::fs::create_dir(dir.path().join("www")).unwrap();
        std::fs::write(dir.path().join("www/ok"), r#"{"status":"UP","n":3}"#).unwrap();
        std::fs::write(dir.path().join("www/slow"), "x".repeat(4096)).unwrap();
        std::fs::write(dir.path().join("www/long"), "y".repeat(300_000)).unwrap();
        std::fs::write(dir.path().join("nginx.conf"), configuration(http, tls)).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .arg("-p")
            .arg(dir.path())
            .args(["-c", "nginx.conf", "-e", "start.log"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        let nginx = Nginx { child, dir, marks: AtomicU32::new(0), http, tls, ca };
        for address in [http, tls] {
            until_ok("nginx listens", Duration::from_secs(10), async || {
                let tried = tokio::net::TcpStream::connect(address).await;
                tried.map(drop).map_err(|error| (error, nginx.read("start.log")))
            })
            .await;
        }
        nginx
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// Answered requests, one line each: method, URI, some headers.
    ///
    /// nginx writes a line when the answer is already out, one process in order: so a request of our own is sent, and
    /// what stands before its line is everything that was answered until now.
    pub(crate) async fn answered(&self) -> String {
        let mark = format!("/mark/{}", self.marks.fetch_add(1, Ordering::Relaxed));
        let mut connection = tokio::net::TcpStream::connect(self.http).await.unwrap();
        connection.write_all(format!("GET {mark} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let line = format!("GET {mark} ");
        // The probe owns what it looks at: the future is then one that the kit may send to another thread.
        let (path, wanted) = (self.dir.path().join("access.log"), line.clone());
        let log = until_ok("our own line in the log", Duration::from_secs(10), move || {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            std::future::ready(if log.contains(&wanted) { Ok(log) } else { Err(log) })
        })
        .await;
        let others =
            log.lines().take_while(|one| !one.starts_with(&line)).filter(|one| !one.contains(" /mark/"));
        others.map(|one| format!("{one}\n")).collect()
    }

    /// Rewrites, which nginx notes before it begins to answer.
    pub(crate) fn begun(&self) -> String {
        self.read("error.log")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// Aliases that lead the certificate's name, and a wrong one, here.
    pub(crate) fn aliases(&self) -> executor_api::HostAliases {
        executor_api::HostAliases::new(
            [format!("{NAME}:443"), "bad.test:443".to_owned()].map(|name| (name, self.tls.to_string())),
        )
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn certificates(dir: &Path) -> Vec<u8> {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test CA");
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let server = server.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    std::fs::write(dir.join("cert.pem"), server.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    ca_pem.into_bytes()
}

fn configuration(http: SocketAddr, tls: SocketAddr) -> String {
    format!(
        r#"
daemon off; master_process off; pid nginx.pid; error_log error.log notice;
events {{ worker_connections 64; }}
http {{
  log_format line '$request_method $request_uri host=$http_host auth=$http_authorization key=$http_x_key type=$content_type';
  access_log access.log line;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  default_type application/json;
  server {{
    listen {http}; listen {tls} ssl;
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    root www;
    location = /ok {{ error_page 405 =200 $uri; }}
    location /mark/ {{ return 204; }}
    location /effects/ {{ return 201 '{{"done":true}}'; }}
    location = /status/401 {{ return 401; }}
    location = /status/403 {{ return 403; }}
    location = /status/429 {{ add_header Retry-After 7 always; return 429; }}
    location = /status/503 {{ return 503 'maintenance until noon'; }}
    location = /cut {{ return 444; }}
    location = /moved {{ return 302 /ok; }}
    location = /kept {{ return 307 /effects/kept; }}
    location = /away {{ return 302 http://localhost:{port}/ok; }}
    location = /clear {{ return 302 http://{http}/ok; }}
    location = /loop {{ return 302 /loop; }}
    location /lasting/ {{ rewrite_log on; limit_rate 10; rewrite ^ /slow break; }}
  }}
}}
"#,
        port = http.port()
    )
}
