//! Calls in both wire formats against moto.

use crate::peers::Moto;
use crate::{account, client, world};
use aws::{Repeat, Service, Settings};
use executor_api::NoProbe;
use serde_json::json;

const CREATE_CLUSTER: aws::Operation = Service::Ecs.op("CreateCluster");

#[tokio::test]
async fn documents_go_to_json_and_to_query_services_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let moto = Moto::start(dir.path()).await;
    let (world, client) = (world(), client(Settings::default()));
    let (_cancel, cx) = world.context();
    let session = client.session(&account(&moto.url()), &cx).await.unwrap();
    let caller = session.caller().await.unwrap();
    assert_eq!(caller.account, "123456789012");
    let made = session
        .change(&NoProbe, "create", CREATE_CLUSTER, json!({"clusterName": "c1"}), Repeat::Safe)
        .await
        .unwrap();
    assert_eq!(made["cluster"]["status"], "ACTIVE");
    let clusters = session.pages(Service::Ecs.op("ListClusters"), json!({}), "clusterArns").await.unwrap();
    assert_eq!(clusters.len(), 1);
    let groups = session.read(Service::LoadBalancing.op("DescribeTargetGroups"), json!({})).await.unwrap();
    assert_eq!(groups["TargetGroups"], json!([]));
    let fault = session
        .read(Service::LoadBalancing.op("DescribeListeners"), json!({"ListenerArns": ["arn:x"]}))
        .await
        .unwrap_err();
    let fault = session.read(Service::Ecs.op("ListTasks"), json!({"cluster": "none"})).await.unwrap_err();
    assert!(fault.is("ClusterNotFound") && fault.is("ClusterNotFoundException"), "{fault:?}");
}
