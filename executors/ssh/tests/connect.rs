//! Logging in: keys, host keys, hosts that are down or away.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]
mod peer;

use executor_api::testing::ManualClock;
use executor_api::{Class, Executor, HostAliases};
use peer::{Host, Sh, command, executor, executor_with, hasty, script};
use proto::task::{CommandSpec, HostKeyMode, Shell, SshCredential, SshTarget};
use proto::text::SecretRef;
use std::sync::Arc;
use std::time::Duration;

fn with_key(host: &Host, key: &str, passphrase: Option<&str>) -> SshTarget {
    let mut target = host.target();
    target.credential = SshCredential::Key {
        key: SecretRef(key.into()),
        passphrase: passphrase.map(|p| SecretRef(p.into())),
    };
    target
}

fn hello(target: SshTarget) -> CommandSpec {
    command(target, vec![script("u", Shell::Sh, "echo hello")], &[])
}

#[tokio::test]
async fn every_kind_of_key_logs_in_and_bad_ones_are_explained() {
    let host = Host::start(Sh::Dash);
    for (key, phrase) in [("login", None), ("rsa", None), ("ecdsa", None), ("locked", Some("phrase"))] {
        let spec = hello(with_key(&host, key, phrase));
        let world = host.world(key, &spec);
        let (_handle, cx) = world.context();
        executor().run(&spec, &cx).await.unwrap_or_else(|e| panic!("{key}: {e}"));
    }
    for (key, phrase, code, text) in [
        ("other", None, "SSH-006", "app@127.0.0.1"),
        ("locked", None, "SSH-007", "passphrase"),
        ("locked", Some("login"), "SSH-007", "passphrase is wrong"),
        ("ppk", None, "SSH-007", "PuTTY"),
        ("public", None, "SSH-007", "public key"),
        ("missing", None, "SSH-008", "missing"),
    ] {
        let spec = hello(with_key(&host, key, phrase));
        let mut secrets = host.secrets();
        secrets.push(("ppk".into(), "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n".into()));
        secrets.push(("public".into(), host.read("login.pub")));
        let world = executor_api::testing::World::new("t", peer::task(&spec), secrets);
        let (_handle, cx) = world.context();
        let began = std::time::Instant::now();
        let error = executor().run(&spec, &cx).await.unwrap_err();
        assert_eq!(error.code, code, "{key}: {error}");
        assert!(error.what.contains(text), "{key}: {error}");
        assert!(began.elapsed() < Duration::from_secs(5), "a refusal is never tried again");
        assert!(error.hint.is_some());
    }
    let refused = host.log().matches("Failed publickey").count()
        + host.log().matches("Connection closed by authenticating").count();
    assert!(refused <= 2, "the refused key was tried more than once:\n{}", host.log());
}

#[tokio::test]
async fn host_keys_are_learned_once_and_a_changed_one_always_fails() {
    let host = Host::start(Sh::Dash);
    let place = format!("127.0.0.1:{}", host.port);
    let public = host.read("host.pub");
    let known = public.trim().to_owned();
    let run = async |target: SshTarget, state: Option<std::path::PathBuf>| {
        let spec = hello(target);
        let world = host.world("k", &spec);
        let (_handle, cx) = world.context();
        let executor = executor_with(executor_ssh::Settings { state_dir: state, ..hasty() });
        executor.run(&spec, &cx).await.map(|_| cx.learned.all())
    };
    let state = host.path("state");
    let learned = run(host.target(), Some(state.clone())).await.unwrap();
    assert_eq!(learned[0].key, known);
    assert!(std::fs::read_to_string(state.join("known_hosts")).unwrap().contains(&known));

    let mut strict = host.target();
    strict.host_keys.mode = HostKeyMode::Strict;
    let error = run(strict.clone(), None).await.unwrap_err();
    assert_eq!((error.code, error.class), ("SSH-004", Class::Authentication), "{error}");
    assert!(
        error.hint.as_ref().unwrap().contains(&format!("delegate hostkey accept {place} SHA256:")),
        "{error:?}"
    );
    strict.host_keys.known = vec![learned[0].fingerprint.clone()];
    assert!(run(strict.clone(), None).await.unwrap().is_empty());
    // Only the RSA key is known: the host is asked for that one.
    strict.host_keys.known = vec![host.read("host_rsa.pub").trim().to_owned()];
    run(strict.clone(), None).await.unwrap();

    let foreign = host.read("other.pub").trim().to_owned();
    for mode in [HostKeyMode::AcceptNew, HostKeyMode::Strict] {
        let mut changed = host.target();
        changed.host_keys.mode = mode;
        changed.host_keys.known = vec![foreign.clone()];
        let error = run(changed, None).await.unwrap_err();
        assert_eq!(error.code, "SSH-005", "{error}");
        assert_eq!(error.what.matches("SHA256:").count(), 2, "{error}");
        assert!(
            error
                .hint
                .unwrap()
                .contains(&format!("delegate hostkey accept {place} {}", learned[0].fingerprint))
        );
    }
    std::fs::write(state.join("known_hosts"), format!("[127.0.0.1]:{} {foreign}\n", host.port)).unwrap();
    assert_eq!(run(host.target(), Some(state)).await.unwrap_err().code, "SSH-005");
    let mut off = host.target();
    off.host_keys.mode = HostKeyMode::Off;
    off.host_keys.known = vec![foreign];
    run(off, None).await.unwrap();
}

#[tokio::test]
async fn an_alias_changes_the_address_and_never_the_name_that_the_key_is_checked_against() {
    let host = Host::start(Sh::Dash);
    let mut target = host.target();
    target.host = "web-1.prod.example.com".into();
    target.port = 22;
    let spec = hello(target.clone());
    let mut world = host.world("alias", &spec);
    let pair = ("web-1.prod.example.com:22".to_owned(), format!("127.0.0.1:{}", host.port));
    world.aliases = Arc::new(HostAliases::new([pair]));
    let (_handle, cx) = world.context();
    executor().run(&spec, &cx).await.unwrap();
    assert_eq!(cx.learned.all()[0].host, "web-1.prod.example.com:22");
    assert!(world.logs.everything().contains("Host alias: web-1.prod.example.com:22 -> 127.0.0.1"));
    let mut changed = target;
    changed.host_keys.known = vec![host.read("other.pub").trim().to_owned()];
    let (_handle, cx) = world.context();
    let error = executor().run(&hello(changed), &cx).await.unwrap_err();
    assert_eq!(error.code, "SSH-005");
    assert!(error.what.contains("web-1.prod.example.com:22"), "{error}");
}

#[tokio::test]
async fn a_host_that_is_down_is_tried_with_growing_pauses_on_the_steps_clock() {
    let host = Host::start(Sh::Dash);
    let mut target = host.target();
    target.port = peer::free_port();
    let spec = hello(target.clone());
    let mut world = host.world("down", &spec);
    let clock = ManualClock::new();
    world.clock = Arc::new(clock.clone());
    let (_handle, cx) = world.context();
    let passing = async {
        for pause in [1, 2, 4, 8] {
            clock.pass(Duration::from_secs(pause)).await;
        }
    };
    let executor = executor();
    let (result, ()) = tokio::join!(executor.run(&spec, &cx), passing);
    let error = result.unwrap_err();
    assert_eq!((error.code, error.class), ("SSH-002", Class::Connectivity), "{error}");
    assert!(error.what.contains(&format!("127.0.0.1:{}", target.port)), "{error}");

    let mut nowhere = host.target();
    nowhere.host = "no-such-host.invalid".into();
    let spec = hello(nowhere);
    let world = host.world("dns", &spec);
    let (_handle, cx) = world.context();
    assert_eq!(executor_with(hasty()).run(&spec, &cx).await.unwrap_err().code, "SSH-001");

    // Something listens there that does not speak SSH.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut wrong = host.target();
    wrong.port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let spec = hello(wrong);
    let world = host.world("wrong", &spec);
    let (_handle, cx) = world.context();
    assert_eq!(executor_with(hasty()).run(&spec, &cx).await.unwrap_err().code, "SSH-003");
    server.abort();
}

#[tokio::test]
async fn a_connector_test_names_every_stage_and_learns_nothing() {
    let host = Host::start(Sh::Dash);
    let spec = hello(host.target());
    let world = host.world("test", &spec);
    let (_handle, cx) = world.context();
    let executor = executor();
    let stages = executor.test_connection(&host.target(), &cx).await;
    let names: Vec<_> = stages.iter().map(|s| s.stage.as_str()).collect();
    assert!(stages.iter().all(|s| s.ok), "{stages:?}");
    assert_eq!(names, ["dns", "tcp", "kex", "hostKey", "auth", "channel", "sftp"]);
    assert!(stages[3].message.starts_with("SHA256:"));
    let stages = executor.test_connection(&with_key(&host, "other", None), &cx).await;
    let last = stages.last().unwrap();
    assert!(last.stage == "auth" && !last.ok && last.hint.is_some(), "{stages:?}");
    let stages = executor.test_connection(&with_key(&host, "login", None), &cx).await;
    assert!(stages.iter().all(|s| s.ok), "{stages:?}");
    executor.run(&spec, &cx).await.unwrap();
    assert_eq!(cx.learned.all().len(), 1);
}

#[tokio::test]
async fn many_steps_share_one_connection() {
    let host = Host::start(Sh::Dash);
    let executor = executor();
    let work = (0..20).map(|n| {
        let (executor, host) = (&executor, &host);
        async move {
            let spec = hello(host.target());
            let world = host.world(&format!("many{n}"), &spec);
            let (_handle, cx) = world.context();
            executor.run(&spec, &cx).await.unwrap_or_else(|e| panic!("{e}"));
        }
    });
    futures::future::join_all(work).await;
    assert_eq!(host.log().matches("Accepted publickey").count(), 1, "{}", host.log());
}
