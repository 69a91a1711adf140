//! Files of artifacts: looked up without a transfer where the server says what they are, and a cache that stays small.

#![expect(clippy::unwrap_used, reason = "A test ends at the first fault.")]

mod scripted;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, Response, StatusCode};
use executor_api::{Clock, SystemClock};
use proto::task::{
    Artifact, ArtifactSource, DownloadSource, HttpAuth, HttpConnector, ResolveArtifactSpec, StepSpec,
};
use scripted::{Agent, Manager};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const MIB: usize = 1024 * 1024;

/// A file server that counts what it sends: `/summed/*` tells the checksum, `/plain/*` does not.
struct Files {
    url: String,
    sent: Arc<Mutex<Vec<String>>>,
}

fn content() -> Vec<u8> {
    vec![b'x'; MIB]
}

fn sum() -> String {
    hex::encode(Sha256::digest(content()))
}

async fn serve(State(sent): State<Arc<Mutex<Vec<String>>>>, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let mut reply = Response::builder().status(StatusCode::OK).header("content-length", content().len());
    if path.starts_with("/summed/") {
        reply = reply.header("x-checksum-sha256", sum());
    }
    if request.method() == Method::HEAD {
        return reply.body(Body::empty()).unwrap();
    }
    sent.lock().unwrap().push(path);
    reply.body(Body::from(content())).unwrap()
}

impl Files {
    async fn start() -> Files {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let sent = Arc::<Mutex<Vec<String>>>::default();
        let router = axum::Router::new().fallback(serve).with_state(sent.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Files { url, sent }
    }

    fn resolve(&self, manager: &Manager, task: &str, repository: &str, sha256: Option<&str>) {
        let connector = HttpConnector {
            identifier: "files".into(),
            url: self.url.clone(),
            auth: HttpAuth::Anonymous,
            headers: vec![],
        };
        let source = DownloadSource {
            connector,
            repository: repository.into(),
            path: "app.tgz".into(),
            sha256: sha256.map(str::to_owned),
        };
        let artifact =
            Artifact { source: ArtifactSource::ArtifactoryRegistry(source), tag: "1.2".into(), digest: None };
        manager.queue(task, StepSpec::ResolveArtifact(ResolveArtifactSpec { artifact }), 60_000);
    }
}

/// A cached file that nobody used for so many seconds.
fn old(data: &Path, name: char, bytes: usize, unused: u64) -> PathBuf {
    let name: String = std::iter::repeat_n(name, 64).collect();
    let folder = data.join("cache/sha256").join(&name[..2]);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, vec![0; bytes]).unwrap();
    let used =
        SystemTime::UNIX_EPOCH + Duration::from_millis(SystemClock.wall()) - Duration::from_secs(unused);
    std::fs::File::open(&path).unwrap().set_modified(used).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_resolved_by_the_checksum_that_its_server_sends_and_else_by_its_content() {
    let (data, files) = (tempfile::tempdir().unwrap(), Files::start().await);
    let manager = Manager::start(true).await;
    files.resolve(&manager, "summed", "summed", None);
    let agent = Agent::start(&manager, data.path(), &[]);
    let answer = manager.answer("summed").await;
    assert_eq!(answer["data"]["outputs"]["sha256"]["value"], sum(), "{answer:#}");
    assert_eq!(answer["data"]["outputs"]["digest"]["value"], format!("sha256:{}", sum()));
    assert!(files.sent.lock().unwrap().is_empty(), "transferred for nothing");
    files.resolve(&manager, "plain", "plain", None);
    let answer = manager.answer("plain").await;
    assert_eq!(answer["data"]["outputs"]["sha256"]["value"], sum(), "{answer:#}");
    assert_eq!(*files.sent.lock().unwrap(), ["/plain/app.tgz"]);
    // The author expects another content than the server promises.
    files.resolve(&manager, "wrong", "summed", Some(&"0".repeat(64)));
    let answer = manager.answer("wrong").await;
    assert_eq!(answer["data"]["failure"]["code"], "SRC-007", "{answer:#}");
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_artifact_cache_is_brought_down_to_its_limit_at_the_start_and_after_a_download() {
    let (data, files) = (tempfile::tempdir().unwrap(), Files::start().await);
    let manager = Manager::start(true).await;
    let large = old(data.path(), 'a', 3 * MIB, 86_400);
    let (small, fresh) = (old(data.path(), 'b', MIB / 2, 3_600), old(data.path(), 'c', MIB, 600));
    manager.noop("t1", "started");
    let agent = Agent::start(&manager, data.path(), &[("DELEGATE_CACHE_LIMIT", "2MiB")]);
    manager.answer("t1").await;
    assert!(!large.exists() && small.exists() && fresh.exists());
    files.resolve(&manager, "t2", "plain", None);
    assert_eq!(manager.answer("t2").await["data"]["status"], "Success");
    assert!(!small.exists() && fresh.exists());
    let kept = data.path().join("cache/sha256").join(&sum()[..2]).join(sum());
    assert!(kept.exists(), "what was just fetched stays");
    agent.stop().await.unwrap();
}
