//! Artifacts from nginx.

use crate::peers::Nginx;
use crate::proxy::Proxy;
use crate::{PASSWORD, Setup, World, anonymous, login};
use executor_api::{Cancel, CancelReason, CancelStage, Class};
use proto::task::{DownloadSource, HttpConnector};
use sha2::{Digest, Sha256};
use sources::{Downloaded, download, locate, prune};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn source(connector: HttpConnector, repository: &str, path: &str) -> DownloadSource {
    DownloadSource { connector, repository: repository.into(), path: path.into(), sha256: None }
}

fn sum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn big() -> Vec<u8> {
    (0..300_000u32).flat_map(u32::to_le_bytes).collect()
}

fn assert_is(downloaded: &Downloaded, content: &[u8]) {
    assert_eq!(std::fs::read(&downloaded.path).unwrap(), content);
    assert_eq!(downloaded.sha256, sum(content));
    assert_eq!(downloaded.bytes, content.len() as u64);
}

fn cached_files(cache: &Path) -> usize {
    let Ok(shards) = std::fs::read_dir(cache.join("sha256")) else { return 0 };
    shards.map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
}

#[tokio::test]
async fn a_file_arrives_with_its_checksum_and_the_second_time_from_the_cache() {
    let (nginx, world, cache) = (Nginx::start(""), World::new(), tempfile::tempdir().unwrap());
    nginx.put("app/a b.tar.gz", b"content");
    let source = source(login(&nginx.url("closed"), "pw"), "app", "a b.tar.gz");
    let first = download(&world.access, &source, cache.path()).await.unwrap();
    assert_is(&first, b"content");
    assert_eq!(first.file_name, "a b.tar.gz");
    assert!(!first.from_cache);
    let second = download(&world.access, &source, cache.path()).await.unwrap();
    assert!(second.from_cache);
    assert_is(&second, b"content");
    nginx.log_with(" 304 ", 1).await;

    // Other content on the server, other file here; the server is asked each time.
    nginx.put("app/a b.tar.gz", b"content, second edition");
    let third = download(&world.access, &source, cache.path()).await.unwrap();
    assert!(!third.from_cache);
    assert_is(&third, b"content, second edition");
    assert_eq!(cached_files(cache.path()), 2);
}

#[tokio::test]
async fn the_cache_never_serves_what_the_user_may_not_read_nor_damaged_bytes() {
    let (nginx, world, cache) = (Nginx::start(""), World::new(), tempfile::tempdir().unwrap());
    nginx.put("a", b"content");
    let good = source(login(&nginx.url("closed"), "pw"), "", "a");
    let first = download(&world.access, &good, cache.path()).await.unwrap();
    let bad = source(login(&nginx.url("closed"), "wrong"), "", "a");
    let error = download(&world.access, &bad, cache.path()).await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::Authentication, "SRC-004"));
    std::fs::write(&first.path, b"CONTENT").unwrap();
    let again = download(&world.access, &good, cache.path()).await.unwrap();
    assert!(!again.from_cache);
    assert_is(&again, b"content");
}

#[tokio::test]
async fn a_cut_connection_is_resumed_where_it_broke() {
    let (nginx, world, cache) = (Nginx::start(""), World::new(), tempfile::tempdir().unwrap());
    let content = big();
    nginx.put("big", &content);
    // More cuts than attempts: each brings something, so the count begins anew.
    let proxy = Proxy::start(nginx.port, vec![100_000, 200_000, 50_000, 1000, 300_000, 10_000]).await;
    let downloaded = download(&world.access, &source(anonymous(&proxy.url("open")), "", "big"), cache.path())
        .await
        .unwrap();
    assert_is(&downloaded, &content);
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 7);
    let log = nginx.log_with(" 206 ", 6).await;
    assert_eq!(log.matches("range=bytes=").count(), 6, "{log}");
    assert!(world.notices().contains("next attempt"), "{}", world.notices());
    assert_eq!(std::fs::read_dir(cache.path().join("partial")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_later_call_goes_on_with_what_an_earlier_one_left() {
    let (nginx, cache) = (Nginx::start(""), tempfile::tempdir().unwrap());
    let content = big();
    nginx.put("big", &content);
    let proxy = Proxy::start(nginx.port, vec![500_000, 0, 0, 0, 0, 0, 0, 0]).await;
    let source = source(anonymous(&proxy.url("open")), "", "big");
    let error = download(&World::new().access, &source, cache.path()).await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::Connectivity, "SRC-001"));
    let before = proxy.connections.load(Ordering::SeqCst);
    // Use up what is left of the cuts.
    for _ in before..8 {
        drop(tokio::net::TcpStream::connect(("127.0.0.1", proxy.port)).await);
    }
    let downloaded = download(&World::new().access, &source, cache.path()).await.unwrap();
    assert_is(&downloaded, &content);
    nginx.log_with(" 206 ", 1).await;

    // A file that changed in between is not glued together.
    let other = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(nginx.port, vec![400_000, 0, 0, 0, 0, 0, 0, 0]).await;
    let source = DownloadSource { connector: anonymous(&proxy.url("open")), ..source };
    download(&World::new().access, &source, other.path()).await.unwrap_err();
    let changed: Vec<u8> = content.iter().rev().copied().chain(*b"longer").collect();
    nginx.put("big", &changed);
    while proxy.connections.load(Ordering::SeqCst) < 8 {
        drop(tokio::net::TcpStream::connect(("127.0.0.1", proxy.port)).await);
        tokio::task::yield_now().await;
    }
    assert_is(&download(&World::new().access, &source, other.path()).await.unwrap(), &changed);
}

#[tokio::test]
async fn a_wrong_checksum_fails_and_leaves_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let lie = sum(b"something else");
    let nginx = Nginx::start(&format!(
        "location /lying/ {{ add_header X-Checksum-Sha256 {lie}; return 200 content; }}
         location /honest/ {{ add_header X-Checksum-Sha256 {}; return 200 content; }}",
        sum(b"content")
    ));
    let world = World::new();
    let expected =
        DownloadSource { sha256: Some(lie.clone()), ..source(anonymous(&nginx.url("honest")), "r", "a") };
    let error = download(&world.access, &expected, cache.path()).await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::BadSpec, "SRC-007"));
    assert!(error.what.contains(&lie) && error.what.contains(&sum(b"content")), "{error}");
    let error = download(&world.access, &source(anonymous(&nginx.url("lying")), "r", "a"), cache.path())
        .await
        .unwrap_err();
    assert_eq!((error.class, error.code), (Class::Connectivity, "SRC-007"));
    assert_eq!(cached_files(cache.path()), 0);
    assert_eq!(std::fs::read_dir(cache.path().join("partial")).unwrap().count(), 0);
    let right = DownloadSource { sha256: Some(sum(b"content").to_uppercase()), ..expected };
    let first = download(&world.access, &right, cache.path()).await.unwrap();
    assert_is(&first, b"content");
    // With a checksum in the step the server is not even asked.
    let asked = nginx.log_with("/honest/", 2).await;
    assert!(download(&world.access, &right, cache.path()).await.unwrap().from_cache);
    assert_eq!(nginx.log_with("/honest/", 2).await, asked);
}

#[tokio::test]
async fn every_refusal_has_its_class_and_code() {
    let (nginx, world, cache) = (Nginx::start(""), World::new(), tempfile::tempdir().unwrap());
    nginx.put("a", b"x");
    let closed = crate::peers::free_port();
    for (connector, repository, path, class, code) in [
        (anonymous(&nginx.url("")), "open", "none.tar.gz", Class::BadSpec, "SRC-006"),
        (anonymous(&nginx.url("")), "closed", "a", Class::Authentication, "SRC-004"),
        (login(&nginx.url(""), "wrong"), "closed", "a", Class::Authentication, "SRC-004"),
        (login(&nginx.url(""), "absent"), "closed", "a", Class::BadSpec, "SRC-002"),
        (anonymous(&nginx.url("")), "forbidden", "a", Class::Authorization, "SRC-005"),
        (anonymous(&nginx.url("")), "broken", "a", Class::Connectivity, "SRC-009"),
        (anonymous(&nginx.url("")), "loop", "a", Class::Connectivity, "SRC-020"),
        (anonymous(&nginx.url("")), "open", "../closed/a", Class::BadSpec, "SRC-008"),
        (anonymous(&format!("http://127.0.0.1:{closed}")), "r", "a", Class::Connectivity, "SRC-001"),
        (anonymous("http://u:p4ss@127.0.0.1:1"), "r", "a", Class::BadSpec, "SRC-008"),
    ] {
        let error =
            download(&world.access, &source(connector, repository, path), cache.path()).await.unwrap_err();
        assert_eq!((error.class, error.code), (class, code), "{repository}/{path}: {error}");
        let text = format!("{error} {:?} {:?}", error.hint, error.target);
        assert!(!text.contains(PASSWORD) && !text.contains("p4ss") && !text.contains("nonsense"), "{text}");
    }
    let error = download(&world.access, &source(anonymous(&nginx.url("")), "busy", "a"), cache.path())
        .await
        .unwrap_err();
    assert!(matches!(error.class, Class::Throttled { retry_after: Some(s) } if s == Duration::from_secs(1)));
    let log = nginx.log_with("/busy/", 4).await;
    assert_eq!(log.matches("/broken/").count(), 4);
    assert_eq!(log.matches("/forbidden/").count(), 1);
    assert_eq!(cached_files(cache.path()), 0);
}

#[tokio::test]
async fn a_redirect_to_another_host_loses_the_password() {
    let target = Nginx::start("");
    target.put("a", b"moved");
    let other = format!("http://localhost:{}/open/a", target.port);
    let nginx = Nginx::start(&format!(
        "location /away/ {{ return 302 {other}; }} location /near/ {{ return 307 /closed/a; }}"
    ));
    nginx.put("a", b"near");
    let (world, cache) = (World::new(), tempfile::tempdir().unwrap());
    let away = source(login(&nginx.url(""), "pw"), "away", "a");
    assert_is(&download(&world.access, &away, cache.path()).await.unwrap(), b"moved");
    assert!(target.log_with("/open/a", 1).await.contains("auth=- "));
    assert!(nginx.log_with("/away/", 1).await.contains("auth=Basic "));
    let near = source(login(&nginx.url(""), "pw"), "near", "a");
    assert_is(&download(&world.access, &near, cache.path()).await.unwrap(), b"near");
}

#[tokio::test]
async fn fifty_downloads_of_one_file_are_one_transfer() {
    let (nginx, world, cache) = (Nginx::start(""), World::new(), tempfile::tempdir().unwrap());
    let content = big();
    nginx.put("big", &content);
    let source = source(anonymous(&nginx.url("open")), "", "big");
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (access, source, cache) = (world.access.clone(), source.clone(), cache.path().to_owned());
        all.spawn(async move { download(&access, &source, &cache).await.unwrap() });
    }
    let results = all.join_all().await;
    assert_eq!(results.iter().filter(|downloaded| !downloaded.from_cache).count(), 1);
    assert_is(&results[0], &content);
    assert_eq!(nginx.log_with("GET", 50).await.matches(" 200 ").count(), 1);
}

#[tokio::test]
async fn deadline_and_cancellation_end_a_silent_transfer() {
    // A listener that never answers.
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let cache = tempfile::tempdir().unwrap();
    let world = World::with(Setup { limit: Some(Duration::from_millis(100)), ..Setup::default() });
    let error = download(&world.access, &source(anonymous(&url), "r", "a"), cache.path()).await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::Timeout, "SRC-011"));
    let (handle, cancel) = Cancel::pair();
    let world = World::with(Setup { cancel: Some(cancel), ..Setup::default() });
    let wanted = source(anonymous(&url), "r", "a");
    let (result, ()) = tokio::join!(download(&world.access, &wanted, cache.path()), async {
        silent.accept().await.unwrap();
        handle.cancel(CancelReason::User, CancelStage::Ask);
    });
    let error = result.unwrap_err();
    assert_eq!((error.class, error.code), (Class::Cancelled { reason: CancelReason::User }, "SRC-012"));
}

#[tokio::test]
async fn a_full_disk_is_the_agent_s_trouble() {
    let (nginx, world) = (Nginx::start(""), World::new());
    nginx.put("a", b"content");
    let file = tempfile::NamedTempFile::new().unwrap();
    // A cache folder that cannot be made, whoever the user is.
    let error =
        download(&world.access, &source(anonymous(&nginx.url("open")), "", "a"), &file.path().join("cache"))
            .await
            .unwrap_err();
    assert_eq!((error.class, error.code), (Class::Bug, "SRC-014"));
}

#[tokio::test]
async fn pruning_removes_the_longest_unused_first() {
    let (nginx, world, cache) = (Nginx::start(""), World::new(), tempfile::tempdir().unwrap());
    let mut paths = Vec::new();
    for (name, age) in [("a", 300), ("b", 200), ("c", 100)] {
        nginx.put(name, format!("content of {name}").as_bytes());
        let got = download(&world.access, &source(anonymous(&nginx.url("open")), "", name), cache.path())
            .await
            .unwrap();
        let old = std::fs::metadata(&got.path).unwrap().modified().unwrap() - Duration::from_secs(age);
        std::fs::File::open(&got.path).unwrap().set_modified(old).unwrap();
        paths.push(got.path);
    }
    // A use makes it young again.
    download(&world.access, &source(anonymous(&nginx.url("open")), "", "a"), cache.path()).await.unwrap();
    assert_eq!(prune(cache.path(), 30).await.unwrap(), 12);
    assert!(paths[0].exists() && !paths[1].exists() && paths[2].exists());
    // What was asked for just now stays, however little room there is.
    assert_eq!(prune(cache.path(), 0).await.unwrap(), 12);
    assert!(paths[0].exists() && !paths[2].exists());
    assert_eq!(prune(Path::new("/nonexistent/cache"), 0).await.unwrap(), 0);
}

#[tokio::test]
async fn a_file_is_located_without_being_sent() {
    let lie = sum(b"content");
    let nginx = Nginx::start(&format!(
        "location /summed/ {{ add_header X-Checksum-Sha256 {lie}; return 200 content; }}
         location /headless/ {{ if ($request_method = HEAD) {{ return 405; }} rewrite ^/headless/(.*)$ /open/$1 last; }}"
    ));
    let world = World::new();
    nginx.put("a", &big());
    let found = locate(&world.access, &source(anonymous(&nginx.url("")), "open", "a")).await.unwrap();
    assert_eq!(
        (found.bytes, found.sha256.as_deref(), found.file_name.as_str()),
        (Some(1_200_000), None, "a")
    );
    assert_eq!(found.url, nginx.url("open/a"));
    let found = locate(&world.access, &source(anonymous(&nginx.url("")), "summed", "a")).await.unwrap();
    assert_eq!(found.sha256, Some(lie));
    let found = locate(&world.access, &source(anonymous(&nginx.url("")), "headless", "a")).await.unwrap();
    assert_eq!(found.bytes, Some(1_200_000));
    let error = locate(&world.access, &source(anonymous(&nginx.url("")), "open", "b")).await.unwrap_err();
    assert_eq!(error.code, "SRC-006");
    let error =
        locate(&world.access, &source(login(&nginx.url(""), "wrong"), "closed", "a")).await.unwrap_err();
    assert_eq!(error.code, "SRC-004");
}
