//! What only a real server does to a watch.

use super::super::Change;
use super::*;
use executor_api::testing::until_ok;

#[path = "../../../../tests/src/peers/kube.rs"]
mod plane;

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_history_has_lost_is_answered_by_a_new_list() {
    // A server that has just started remembers nothing of before.
    let server = plane::ControlPlane::start(&["--nodes=1"]);
    server.kill(plane::Component::ApiServer);
    server.start_again(plane::Component::ApiServer);
    let config = kube::config::Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(config, &options).await.unwrap();
    let wire = Wire::new(kube::Client::try_from(config).unwrap());
    let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    let selector = Selector::default();
    let path = "/api/v1/namespaces";
    // The server itself says so: 410.
    until_ok("the watch is refused", Duration::from_secs(60), async || {
        let asked = match wire.watch::<serde_json::Value>(path, &selector, "1").await {
            Ok(mut watching) => watching.next().await.map(|event| event.is_some()),
            Err(trouble) => Err(trouble),
        };
        if asked == Err(Trouble::Expired) { Ok(()) } else { Err(asked) }
    })
    .await;
    let before = wire.requests();
    let follow = follow(&wire, path, &selector, Some("1".into()), &sender, 7, Change::Object);
    let told = async {
        let (source, change) = receiver.recv().await.unwrap();
        let Change::Object(News::Delta(Delta::All(all))) = change else { panic!("{change:?}") };
        (source, all.len())
    };
    let (source, count) = tokio::select! {
        told = told => told,
        () = follow => panic!("it ended"),
    };
    assert!(source == 7 && count >= 4, "{count} namespaces of source {source}");
    // The watch that expired, the list, and by now perhaps the next watch.
    let requests = wire.requests() - before;
    assert!((2..=3).contains(&requests), "{requests} requests");
}
