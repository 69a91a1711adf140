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
