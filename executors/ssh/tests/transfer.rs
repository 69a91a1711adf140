//! Files on their way to a host.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]
mod peer;

use executor_api::testing::World;
use executor_api::{CancelReason, CancelStage, Class, Executor};
use peer::{Host, Sh, command, executor, until};
use proto::task::{
    Artifact, ArtifactSource, CommandSpec, CommandUnit, CopySource, DownloadSource, HttpAuth, HttpConnector,
    UnitKind,
};
use sha2::{Digest, Sha256};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// nginx over a folder.
struct Server {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let port = peer::free_port();
        let d = dir.path().display();
        std::fs::create_dir_all(dir.path().join("www/libs")).unwrap();
        let conf = format!(
            "daemon off; pid {d}/pid; error_log {d}/error; worker_processes 1; user root;\n\
             events {{}}\nhttp {{ access_log off; client_body_temp_path {d}/a; proxy_temp_path {d}/b; fastcgi_temp_path {d}/c; \
             uwsgi_temp_path {d}/e; scgi_temp_path {d}/f; server {{ listen 127.0.0.1:{port}; root {d}/www; }} }}\n"
        );
        std::fs::write(dir.path().join("conf"), conf).unwrap();
        let child = Command::new("nginx")
            .arg("-c")
            .arg(dir.path().join("conf"))
            .arg("-e")
            .arg(dir.path().join("error"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "nginx did not start");
            std::thread::yield_now();
        }
        Server { dir, port, child }
    }

    fn put(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.dir.path().join("www/libs").join(name), content).unwrap();
        hex::encode(Sha256::digest(content))
    }

    fn source(&self, path: &str, sha256: Option<&str>) -> DownloadSource {
        DownloadSource {
            connector: HttpConnector {
                identifier: "files".into(),
                url: format!("http://127.0.0.1:{}", self.port),
                auth: HttpAuth::Anonymous,
                headers: vec![],
            },
            repository: "libs".into(),
            path: path.into(),
            sha256: sha256.map(str::to_owned),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        self.child.wait().unwrap();
    }
}

fn download(host: &Host, source: DownloadSource, to: &str) -> CommandSpec {
    let kind = UnitKind::DownloadArtifact { destination_path: to.into(), source: Some(source) };
    command(host.target(), vec![CommandUnit { identifier: "get".into(), name: "get".into(), kind }], &[])
}

fn parts(host: &Host) -> Vec<String> {
    fn walk(dir: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                walk(&entry.path(), found);
            } else if entry.file_name().to_string_lossy().contains(".part-") {
                found.push(entry.path().display().to_string());
            }
        }
    }
    let mut found = vec![];
    walk(&host.home(), &mut found);
    found
}

#[tokio::test]
async fn an_artifact_lands_whole_in_its_place_and_identical_ones_are_skipped() {
    for sh in [Sh::Dash, Sh::Busybox] {
        let (host, server) = (Host::start(sh), Server::start());
        let content: Vec<u8> = (0..3_000_001u32).flat_map(|n| n.to_le_bytes()).collect();
        let sum = server.put("app.tar", &content);
        let executor = executor();
        let run = async |spec: CommandSpec| {
            let world = host.world("get", &spec);
            let (_handle, cx) = world.context();
            let output = executor
                .run(&spec, &cx)
                .await
                .unwrap_or_else(|e| panic!("{sh:?} {e}\n{}", world.logs.everything()));
            (output, world.logs.everything())
        };
        // A folder that is not there yet, a variable in the path.
        let (output, _) =
            run(download(&host, server.source("app.tar", Some(&sum)), "$HOME/new dir/deep/")).await;
        let file = host.home().join("new dir/deep/app.tar");
        assert_eq!(std::fs::read(&file).unwrap(), content);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(output.outputs["fileName"].value, "app.tar");
        assert_eq!(output.outputs["sha256"].value, sum);
        assert_eq!(output.outputs["bytes"].value, content.len());
        assert_eq!(output.outputs["path"].value, file.display().to_string());
        let (_, log) = run(download(&host, server.source("app.tar", None), "new dir/deep")).await;
        assert!(log.contains("identical already"), "{log}");
        // Another file in its place is replaced.
        let old = host.home().join("named.bin");
        std::fs::write(&old, "old").unwrap();
        std::os::unix::fs::chown(&old, Some(peer::UID), None).unwrap();
        run(download(&host, server.source("app.tar", None), "named.bin")).await;
        assert_eq!(std::fs::read(&old).unwrap(), content);
        assert_eq!(parts(&host), Vec::<String>::new());
    }
}

#[tokio::test]
async fn missing_and_corrupt_artifacts_leave_the_target_as_it_was() {
    let (host, server) = (Host::start(Sh::Dash), Server::start());
    server.put("app.jar", b"content");
    let wrong = "0".repeat(64);
    for (source, code) in
        [(server.source("absent.jar", None), "SRC-006"), (server.source("app.jar", Some(&wrong)), "SRC-007")]
    {
        let spec = download(&host, source, "app.jar");
        let world = host.world(code, &spec);
        let (_handle, cx) = world.context();
        let error = executor().run(&spec, &cx).await.unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.target.is_some() && !host.home().join("app.jar").exists());
    }
}

#[tokio::test]
async fn the_stages_artifact_is_copied_and_an_image_is_refused() {
    let (host, server) = (Host::start(Sh::Dash), Server::start());
    let sum = server.put("app.war", b"war");
    let kind = UnitKind::Copy { source_type: CopySource::Artifact, destination_path: "apps/".into() };
    let spec =
        command(host.target(), vec![CommandUnit { identifier: "c".into(), name: "c".into(), kind }], &[]);
    let run = async |source: ArtifactSource| {
        let mut task = peer::task(&spec);
        task.artifact = Some(Artifact { source, tag: "1".into(), digest: Some(format!("sha256:{sum}")) });
        let world = World::new("t", task, host.secrets());
        let (_handle, cx) = world.context();
        executor().run(&spec, &cx).await
    };
    run(ArtifactSource::ArtifactoryRegistry(server.source("app.war", None))).await.unwrap();
    assert_eq!(host.read("home/apps/app.war"), "war");
    let connector = server.source("x", None).connector;
    let image = ArtifactSource::DockerRegistry { connector, image_path: "library/app".into() };
    assert_eq!(run(image).await.unwrap_err().class, Class::BadSpec);
}

#[tokio::test]
async fn an_abort_in_the_middle_and_a_cut_connection_leave_no_part() {
    let (host, server) = (Host::start(Sh::Dash), Server::start());
    let content = vec![7u8; 200 << 20];
    server.put("big.bin", &content);
    let spec = download(&host, server.source("big.bin", None), "big.bin");
    let world = host.world("abort", &spec);
    let (handle, cx) = world.context();
    let executor = executor();
    let abort = async {
        until("copying", Duration::from_secs(60), || !parts(&host).is_empty()).await;
        handle.cancel(CancelReason::User, CancelStage::Ask);
    };
    let (result, ()) = tokio::join!(executor.run(&spec, &cx), abort);
    assert_eq!(result.unwrap_err().class, Class::Cancelled { reason: CancelReason::User });
    assert_eq!(parts(&host), Vec::<String>::new());
    assert!(!host.home().join("big.bin").exists());

    let world = host.world("cut", &spec);
    let (_handle, cx) = world.context();
    let cut = async {
        until("copying", Duration::from_secs(60), || !parts(&host).is_empty()).await;
        host.cut();
    };
    let (result, ()) = tokio::join!(executor.run(&spec, &cx), cut);
    result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    assert_eq!(std::fs::metadata(host.home().join("big.bin")).unwrap().len(), content.len() as u64);
    assert_eq!(parts(&host), Vec::<String>::new());
}
