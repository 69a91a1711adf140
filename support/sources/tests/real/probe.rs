//! Connector tests.

use crate::peers::{Git, Guard, Nginx, Process, Registry, free_port};
use crate::{Setup, World, anonymous, login};
use proto::result::TestStage;
use sources::{probe_artifactory, probe_docker, probe_git, probe_prometheus};

fn names(stages: &[TestStage]) -> Vec<(&str, bool)> {
    stages.iter().map(|stage| (stage.stage.as_str(), stage.ok)).collect()
}

const GOOD: [(&str, bool); 3] = [("Address", true), ("Connect", true), ("Login", true)];
const REFUSED: [(&str, bool); 3] = [("Address", true), ("Connect", true), ("Login", false)];

#[tokio::test]
async fn every_kind_of_server_is_recognised_and_a_wrong_password_found() {
    let storage = tempfile::tempdir().unwrap();
    let (registry, nginx, git) =
        (Registry::start(storage.path(), &Guard::Basic), Nginx::start(""), Git::start(true));
    git.repository("r").push("main");
    let access = World::new().access;
    assert_eq!(names(&probe_docker(&access, &login(&registry.url(), "pw")).await), GOOD);
    let refused = probe_docker(&access, &login(&registry.url(), "wrong")).await;
    assert_eq!(names(&refused), REFUSED);
    assert!(refused[2].message.contains("SRC-004") && refused[2].hint.is_some(), "{refused:?}");
    assert_eq!(names(&probe_artifactory(&access, &login(&nginx.url("closed"), "pw")).await), GOOD);
    assert_eq!(names(&probe_artifactory(&access, &login(&nginx.url("closed"), "wrong")).await), REFUSED);
    assert_eq!(names(&probe_git(&access, &login(&git.url("closed/r"), "pw")).await), GOOD);
    assert_eq!(names(&probe_git(&access, &login(&git.url("closed/none"), "pw")).await), REFUSED);
    assert_eq!(names(&probe_prometheus(&access, &anonymous(&nginx.url("open"))).await), REFUSED);
}

#[tokio::test]
async fn prometheus_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (process, port) = Process::prometheus(dir.path());
    let stages =
        probe_prometheus(&World::new().access, &anonymous(&format!("http://127.0.0.1:{port}/"))).await;
    assert_eq!(names(&stages), GOOD, "{stages:?}");
    drop(process);
}

#[tokio::test]
async fn a_name_without_address_and_a_closed_port_are_told_apart() {
    let access = World::new().access;
    let stages = probe_git(&access, &anonymous("https://no-such-host.invalid/r")).await;
    assert_eq!(names(&stages), [("Address", false)]);
    let port = free_port();
    let stages = probe_git(&access, &anonymous(&format!("http://127.0.0.1:{port}/r"))).await;
    assert_eq!(names(&stages), [("Address", true), ("Connect", false)]);
    let aliases = vec![("registry.example.com".to_owned(), format!("127.0.0.1:{port}"))];
    let aliased = World::with(Setup { aliases, ..Setup::default() });
    let stages = probe_docker(&aliased.access, &anonymous("registry.example.com")).await;
    assert!(stages[0].message.contains(&format!("127.0.0.1:{port}")), "{stages:?}");
    let json = serde_json::to_value(&stages[1]).unwrap();
    assert_eq!((json["stage"].as_str(), json["ok"].as_bool()), (Some("Connect"), Some(false)));
    assert!(json["durationMs"].is_u64());
}
