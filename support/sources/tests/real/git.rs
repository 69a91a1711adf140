//! Files from `git http-backend` behind nginx.

use crate::peers::{Git, Work};
use crate::proxy::Proxy;
use crate::{World, anonymous, login};
use executor_api::{Class, StepError};
use proto::task::{GitReference, GitSource, HttpConnector};
use sources::{FetchedFiles, fetch_files};

async fn fetch(
    connector: HttpConnector,
    reference: GitReference,
    paths: &[&str],
) -> Result<FetchedFiles, StepError> {
    let scratch = tempfile::tempdir().unwrap();
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let source = GitSource { connector, reference, paths };
    let result = fetch_files(&World::new().access, &source, &scratch.path().join("made")).await;
    assert_eq!(
        std::fs::read_dir(scratch.path().join("made")).map_or(0, Iterator::count),
        0,
        "nothing is left"
    );
    result
}

fn branch(name: &str) -> GitReference {
    GitReference::Branch(name.into())
}

fn fill(work: &Work) -> String {
    work.write("config/app.properties", b"mode=ENVIRONMENT\n", false);
    work.write("config/log4j.xml", b"<log/>\n", false);
    work.write("config/deep/er/x", b"", false);
    work.write("bin/run.sh", b"#!/bin/sh\n", true);
    work.write("README", &b"x".repeat(200_000), false);
    work.push("main")
}

/// The same for every way a server may answer: new protocol with and without filter, old protocol.
#[tokio::test]
async fn files_and_folders_arrive_over_either_protocol() {
    for (version, filter) in [(true, true), (true, false), (false, false)] {
        let git = Git::start(version);
        let work = git.repository("config-repo.git");
        work.configure("uploadpack.allowFilter", if filter { "true" } else { "false" });
        fill(&work);
        // History that must not be fetched.
        work.write(
            "old.bin",
            &(0..400_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<_>>(),
            false,
        );
        work.push("main");
        std::fs::remove_file(git_path(&git, "old.bin")).unwrap();
        let commit = work.push("main");
        let url = git.url("open/config-repo.git");
        let paths = ["config/app.properties", "/config/", "bin/run.sh", "config/app.properties"];
        let got = fetch(anonymous(&url), branch("main"), &paths).await.unwrap();
        assert_eq!(got.commit, commit);
        let names: Vec<(&str, u32)> = got.files.iter().map(|file| (file.path.as_str(), file.mode)).collect();
        assert_eq!(
            names,
            [
                ("config/app.properties", 0o644),
                ("config/deep/er/x", 0o644),
                ("config/log4j.xml", 0o644),
                ("bin/run.sh", 0o755),
            ]
        );
        assert_eq!(got.files[0].bytes, b"mode=ENVIRONMENT\n");
        assert_eq!(got.files[1].bytes, b"");
        // The whole repository by its root, in a later state of another branch.
        work.write("config/app.properties", b"second", false);
        let second = work.push("next");
        let all = fetch(anonymous(&url), branch("refs/heads/next"), &["."]).await.unwrap();
        assert_eq!((all.commit.as_str(), all.files.len()), (second.as_str(), 5));
        // Names and packs of two calls; with a filter each pack comes in two parts, and the old protocol lists no names.
        let posts = if !version {
            2
        } else if filter {
            6
        } else {
            4
        };
        let log = git.log_with("POST", posts).await;
        let bodies = log.lines().filter(|line| line.starts_with("POST"));
        let sizes: Vec<u64> = bodies.map(|line| line.split(' ').nth(3).unwrap().parse().unwrap()).collect();
        assert_eq!(sizes.len(), posts, "{log}");
        let sent: u64 = sizes.iter().sum();
        assert!(sent < 500_000, "history came along: {sent} bytes");
    }
}

fn git_path(git: &Git, name: &str) -> std::path::PathBuf {
    git.work_file("config-repo.git", name)
}

#[tokio::test]
async fn tags_and_commits() {
    let git = Git::start(true);
    let work = git.repository("r");
    let first = fill(&work);
    work.git(&["tag", "light"]);
    work.git(&["tag", "-a", "v1.0", "-m", "annotated"]);
    work.write("README", b"later", false);
    work.push("main");
    work.git(&["push", "-q", "origin", "--tags"]);
    let url = git.url("open/r");
    for reference in [
        GitReference::Tag("light".into()),
        GitReference::Tag("v1.0".into()),
        GitReference::Commit(first.clone()),
        GitReference::Commit(first.to_uppercase()),
    ] {
        let got = fetch(anonymous(&url), reference, &["README"]).await.unwrap();
        assert_eq!((got.commit.as_str(), got.files[0].bytes.len()), (first.as_str(), 200_000));
    }
    let absent = GitReference::Commit("0123456789abcdef0123456789abcdef01234567".into());
    let error = fetch(anonymous(&url), absent, &["README"]).await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::BadSpec, "SRC-016"), "{error}");
    assert_eq!(
        fetch(anonymous(&url), GitReference::Commit("abc".into()), &["x"]).await.unwrap_err().code,
        "SRC-008"
    );
}

#[tokio::test]
async fn what_is_missing_is_named_with_the_nearest() {
    for version in [true, false] {
        let git = Git::start(version);
        fill(&git.repository("r"));
        let url = git.url("open/r");
        let error = fetch(anonymous(&url), branch("mian"), &["README"]).await.unwrap_err();
        assert_eq!(error.code, "SRC-016");
        assert!(error.what.contains("`mian`") && error.what.contains("nearest: `main`"), "{error}");
        let error = fetch(anonymous(&url), GitReference::Tag("v1".into()), &["README"]).await.unwrap_err();
        assert!(error.what.contains("no tag at all"), "{error}");
        let error = fetch(anonymous(&url), branch("main"), &["config/app.propertis"]).await.unwrap_err();
        assert_eq!((error.class, error.code), (Class::BadSpec, "SRC-017"));
        assert!(error.what.contains("nearest: `config/app.properties`"), "{error}");
        let error = fetch(anonymous(&url), branch("main"), &["README/x"]).await.unwrap_err();
        assert_eq!(error.code, "SRC-017");
        let error = fetch(anonymous(&git.url("open/none")), branch("main"), &["x"]).await.unwrap_err();
        assert_eq!(error.code, "SRC-016", "{error}");
        git.repository("empty");
        let error = fetch(anonymous(&git.url("open/empty")), branch("main"), &["x"]).await.unwrap_err();
        assert_eq!(error.code, "SRC-016", "{error}");
        for paths in [&["../x"][..], &[]] {
            assert_eq!(fetch(anonymous(&url), branch("main"), paths).await.unwrap_err().code, "SRC-008");
        }
    }
}

#[tokio::test]
async fn links_submodules_and_pointers_are_refused_by_name() {
    let git = Git::start(true);
    let work = git.repository("r");
    let commit = fill(&work);
    work.link("config/link", "/etc/passwd");
    work.push("links");
    let url = git.url("open/r");
    for path in ["config/link", "config"] {
        let error = fetch(anonymous(&url), branch("links"), &[path]).await.unwrap_err();
        assert_eq!((error.class, error.code), (Class::BadSpec, "SRC-018"));
        assert!(error.what.contains("`config/link`") && error.what.contains("symbolic link"), "{error}");
    }
    assert!(fetch(anonymous(&url), branch("links"), &["README"]).await.is_ok());
    work.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},module")]);
    work.git(&["commit", "-q", "-m", "module"]);
    work.git(&["push", "-q", "origin", "HEAD:refs/heads/modules"]);
    let error = fetch(anonymous(&url), branch("modules"), &["module"]).await.unwrap_err();
    assert!(error.what.contains("submodule"), "{error}");
    work.git(&["rm", "-q", "--cached", "module"]);
    work.write("large.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", false);
    work.push("lfs");
    let error = fetch(anonymous(&url), branch("lfs"), &["large.bin"]).await.unwrap_err();
    assert!(error.code == "SRC-018" && error.what.contains("LFS"), "{error}");
}

#[tokio::test]
async fn a_damaged_pack_and_a_cancellation_end_in_order() {
    let git = Git::start(true);
    let work = git.repository("r");
    fill(&work);
    // The right names, but a pack that is none.
    let log = crate::peers::Nginx::start(&format!(
        "location = /r/info/refs {{ proxy_pass http://127.0.0.1:{0}/open/r/info/refs$is_args$args; proxy_set_header Git-Protocol version=2; }}
         location = /r/git-upload-pack {{ if ($http_content_length ~ ^1[2-9].$|^[2-9]..$) {{ return 200 '000dpackfile\n000d\x01PACKjunk0000'; }}
           proxy_pass http://127.0.0.1:{0}/open/r/git-upload-pack; proxy_set_header Git-Protocol version=2; }}",
        git.port
    ));
    let error = fetch(anonymous(&log.url("r")), branch("main"), &["README"]).await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::BadSpec, "SRC-013"), "{error}");
    assert!(!error.what.contains("HTTP") && !error.what.contains("refused"), "{error}");
    let (handle, cancel) = executor_api::Cancel::pair();
    handle.cancel(executor_api::CancelReason::User, executor_api::CancelStage::Ask);
    let world = World::with(crate::Setup { cancel: Some(cancel), ..crate::Setup::default() });
    let scratch = tempfile::tempdir().unwrap();
    let source = GitSource {
        connector: anonymous(&git.url("open/r")),
        reference: branch("main"),
        paths: vec!["README".into()],
    };
    let error = fetch_files(&world.access, &source, scratch.path()).await.unwrap_err();
    assert_eq!(error.code, "SRC-012");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn passwords_renamed_repositories_and_cut_connections() {
    let git = Git::start(true);
    let work = git.repository("r");
    fill(&work);
    let url = git.url("closed/r");
    assert!(fetch(login(&url, "pw"), branch("main"), &["README"]).await.is_ok());
    for connector in [login(&url, "wrong"), anonymous(&url)] {
        let error = fetch(connector, branch("main"), &["README"]).await.unwrap_err();
        assert_eq!((error.class, error.code), (Class::Authentication, "SRC-004"));
    }
    let renamed = fetch(anonymous(&git.url("old/r/")), branch("main"), &["README"]).await.unwrap();
    assert_eq!(renamed.files[0].bytes.len(), 200_000);
    let proxy = Proxy::start(git.port, vec![100, 600, 1500]).await;
    let got = fetch(anonymous(&proxy.url("open/r")), branch("main"), &["config"]).await.unwrap();
    assert_eq!(got.files.len(), 3);
    let nginx = crate::peers::Nginx::start("location / { return 200 '<html>login</html>'; }");
    let error = fetch(anonymous(&nginx.url("r")), branch("main"), &["x"]).await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::BadSpec, "SRC-013"));
}
