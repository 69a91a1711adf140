//! The machine that other scenarios deploy to is a real one.

use e2e::peers::vm::Vm;

#[tokio::test]
async fn a_machine_boots_keeps_to_itself_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let root = {
        let vm = Vm::boot(dir.path(), "probe").await;
        assert_eq!(vm.ok("cat /proc/1/comm"), "systemd");
        vm.put("/etc/greeting", b"hello\n", 0o644);
        assert_eq!(vm.ok("cat /etc/greeting"), "hello");
        vm.ok("echo from inside > /root/answer");
        assert_eq!(vm.get("/root/answer").as_deref(), Some("from inside\n"));
        vm.set_reachable(false);
        assert!(!vm.sh("true").status.success());
        vm.set_reachable(true);
        assert!(vm.sh("true").status.success());
        vm.root()
    };
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(root.to_str().unwrap()), "the overlay is still mounted");
}

#[tokio::test]
async fn the_servers_around_it_answer_as_their_users_expect() {
    use e2e::peers::{prometheus, registry, web};
    let dir = tempfile::tempdir().unwrap();
    let client = reqwest::Client::new();

    let artifacts = web::Artifacts::start(dir.path(), "deployer", "pw").await;
    artifacts.put("repo/a.txt", b"content");
    let url = format!("http://127.0.0.1:{}/artifactory/repo/a.txt", artifacts.port);
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
    let reply = client.get(&url).basic_auth("deployer", Some("pw")).send().await.unwrap();
    assert_eq!(reply.text().await.unwrap(), "content");

    let git = web::GitServer::start(dir.path(), "robot", "token").await;
    let commit = git.repository("config-repo", &[("config/app.properties", "a=b\n")]);
    let refs = format!("http://127.0.0.1:{}/config-repo/info/refs?service=git-upload-pack", git.port);
    assert_eq!(client.get(&refs).send().await.unwrap().status(), 401);
    let reply = client.get(&refs).basic_auth("robot", Some("token")).send().await.unwrap();
    assert!(reply.text().await.unwrap().contains(&commit));

    let registry = registry::Registry::start(dir.path()).await;
    let digest = registry.push("myapp", &["1".to_owned(), "2".to_owned()]).await;
    let url = format!("http://127.0.0.1:{}/v2/myapp/manifests/2", registry.port);
    let accept = "application/vnd.docker.distribution.manifest.v2+json";
    let reply = client.head(&url).header("accept", accept).send().await.unwrap();
    assert_eq!(reply.headers()["docker-content-digest"], digest.as_str());

    let traffic = prometheus::Traffic::start(1000);
    let prometheus = prometheus::Prometheus::start(dir.path(), traffic.port).await;
    let reply = prometheus.query("http_requests_total").await;
    assert_eq!(reply["status"], "success");
}
