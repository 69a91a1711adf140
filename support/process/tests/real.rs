//! Real processes: what they see, how they end, what is left of them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "Tests may panic.")]

use executor_api::testing;
use executor_api::{Cancel, CancelReason, CancelStage, Stream, SystemClock};
use process::{Collected, End, Exit, ProcessError, Program, Tree, detach, random_mark, run};
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(20);

fn sh(script: &str) -> Program {
    Program::new("sh").arg("-c").arg(script)
}

async fn until(what: &str, mut met: impl FnMut() -> bool) {
    testing::until(what, LIMIT, async || met().then_some(())).await;
}

fn pid_in(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Whether a process runs; a zombie does not, and is one that nobody waited for.
fn state(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').next().unwrap_or_default().to_owned())
}

fn runs(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != "Z")
}

#[tokio::test]
async fn the_environment_is_clean_and_both_streams_come_by_lines() {
    let kept = Collected::up_to(1 << 20);
    let program =
        sh("env; echo wrong >&2; cat; pwd; exit 3").env("PASSED", "with = sign".to_owned()).input("typed\n");
    let ended = run(&program, &kept, &SystemClock, &Cancel::never(), SOON).await.unwrap();
    assert_eq!((ended.exit, ended.cancelled), (Exit::Code(3), None));
    let out = kept.text(Stream::Stdout);
    // Cargo sets these for every test: an inherited environment would show them.
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
    assert!(!out.contains("CARGO_PKG_NAME"), "{out}");
    assert!(out.contains("PASSED=with = sign\n") && out.contains("PATH="), "{out}");
    assert!(out.ends_with("typed\n/\n"), "{out}");
    assert_eq!(kept.text(Stream::Stderr), "wrong\n");
}

#[tokio::test]
async fn a_signal_is_no_exit_status() {
    let kept = Collected::up_to(100);
    let ended = run(&sh("kill -9 $$"), &kept, &SystemClock, &Cancel::never(), SOON).await.unwrap();
    assert_eq!((ended.exit, ended.exit.status()), (Exit::Signal(9), 137));
    let ended = run(&sh("exit 137"), &kept, &SystemClock, &Cancel::never(), SOON).await.unwrap();
    assert_eq!(ended.exit, Exit::Code(137));
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let kept = Collected::up_to(100);
    let missing = run(&Program::new("no-such-program"), &kept, &SystemClock, &Cancel::never(), SOON).await;
    assert!(matches!(missing, Err(ProcessError::Missing { program, .. }) if program == "no-such-program"));
    let program = sh("true").directory("/no/such/place");
    let nowhere = run(&program, &kept, &SystemClock, &Cancel::never(), SOON).await;
    assert!(
        matches!(nowhere, Err(ProcessError::Directory { directory, .. }) if directory == "/no/such/place")
    );
}

/// A tree with a stubborn child, a session of its own, one in another session that also forgot its environment while its
/// parent lives, and a stopped one. The stubborn one ignores HUP too: the kernel sends that to every member of a group that
/// loses its last parent while a member of it is stopped.
const TREE: &str = "sh -c 'trap \"\" TERM HUP; echo $$ > stubborn; while :; do sleep 1; done' &
setsid sh -c 'echo $$ > session; sleep 100 & wait' &
env -i PATH=\"$PATH\" sh -c 'echo $$ > bare; sleep 100 & wait' &
sh -c 'echo $$ > stopped; kill -STOP $$' &
wait";

#[tokio::test]
async fn a_cancel_ends_the_whole_tree_in_two_stages() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Collected::up_to(1000);
    let (handle, cancel) = Cancel::pair();
    let program = sh(TREE).directory(dir.path());
    let names = ["stubborn", "session", "bare", "stopped"];
    let ask = async {
        until("the tree stands", || names.iter().all(|n| pid_in(&dir.path().join(n)).is_some_and(runs)))
            .await;
        handle.cancel(CancelReason::User, CancelStage::Ask);
    };
    let (ended, ()) = tokio::join!(run(&program, &kept, &SystemClock, &cancel, SOON), ask);
    let (reason, ending) = ended.unwrap().cancelled.unwrap();
    assert_eq!((reason, ending.how, ending.left.as_slice()), (CancelReason::User, End::Killed, &[][..]));
    for name in names {
        let pid = pid_in(&dir.path().join(name)).unwrap();
        assert!(!runs(pid), "{name} ({pid}) goes on as {:?}", state(pid));
    }
}

#[tokio::test]
async fn a_polite_tree_is_not_killed_and_a_kill_does_not_wait() {
    let kept = Collected::up_to(1000);
    let (handle, cancel) = Cancel::pair();
    handle.cancel(CancelReason::Deadline, CancelStage::Ask);
    let ended = run(&sh("sleep 100 & wait"), &kept, &SystemClock, &cancel, LIMIT).await.unwrap();
    assert_eq!(ended.cancelled.unwrap().1.how, End::Ended);

    let begun = Instant::now();
    let (handle, cancel) = Cancel::pair();
    handle.cancel(CancelReason::User, CancelStage::Kill);
    let stubborn = sh("trap '' TERM; while :; do sleep 1; done");
    let ended = run(&stubborn, &kept, &SystemClock, &cancel, 3 * LIMIT).await.unwrap();
    assert_eq!((ended.exit, ended.cancelled.unwrap().1.how), (Exit::Signal(9), End::Killed));
    assert!(begun.elapsed() < LIMIT);
}

#[tokio::test]
async fn nothing_outlives_its_program_and_nothing_is_left_as_a_zombie() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Collected::up_to(1000);
    let program = sh("echo $$ > main; setsid sh -c 'echo $$ > session; sleep 100' & while [ ! -s session ]; do :; done; echo done")
        .directory(dir.path());
    let ended = run(&program, &kept, &SystemClock, &Cancel::never(), SOON).await.unwrap();
    assert_eq!((ended.exit, kept.text(Stream::Stdout).as_str()), (Exit::Code(0), "done\n"));
    assert!(!runs(pid_in(&dir.path().join("session")).unwrap()));
    // Its direct child was waited for: not even a zombie is left.
    assert_eq!(state(pid_in(&dir.path().join("main")).unwrap()), None);
}

#[tokio::test]
async fn a_dropped_run_kills_its_tree() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Collected::up_to(1000);
    let program = sh("setsid sh -c 'echo $$ > session; sleep 100' & wait").directory(dir.path());
    let file = dir.path().join("session");
    let never = Cancel::never();
    tokio::select! {
        ended = run(&program, &kept, &SystemClock, &never, SOON) => panic!("it ended: {ended:?}"),
        () = until("it runs", || pid_in(&file).is_some_and(runs)) => {}
    }
    let pid = pid_in(&file).unwrap();
    until("it is gone", || !runs(pid)).await;
}

#[tokio::test]
async fn a_detached_program_is_found_by_its_mark_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mark = random_mark();
    let program = sh("echo $$ > main; sleep 100").directory(dir.path()).env("MY_MARK", mark.clone());
    drop(detach(&program).unwrap());
    let file = dir.path().join("main");
    until("it runs", || pid_in(&file).is_some()).await;
    let tree = Tree::marked("MY_MARK", &mark);
    assert!(tree.holds(pid_in(&file).unwrap()) && !tree.holds(1));
    until("its child runs", || tree.members().len() == 2).await;
    let ending = tree.end(&SystemClock, &Cancel::never(), LIMIT, || true).await;
    assert_eq!((ending.how, ending.left.len()), (End::Ended, 0));
    until("it is reaped", || state(pid_in(&file).unwrap()).is_none()).await;
}
