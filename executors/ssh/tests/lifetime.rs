//! Scripts that outlive connection, agent and patience.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]
mod peer;

use executor_api::{CancelReason, CancelStage, Class, Executor, Recovery, Stream};
use executor_ssh::Settings;
use peer::{Host, Sh, command, executor, executor_with, hasty, script, until};
use proto::task::Shell;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// Ends what the host runs for the units in its folders: the holder, which is a fork of the shell that launched, and the
/// script.
fn kill_units(host: &Host, sign: &str) {
    let mut holders = Vec::new();
    for leaf in host.leaves() {
        // A folder may be on its way in or out.
        let go = std::fs::read_to_string(format!("{leaf}/go")).unwrap_or_default();
        holders.extend(go.split(' ').next().and_then(|pid| pid.parse::<u32>().ok()));
    }
    assert!(!holders.is_empty(), "a holder is known by its pid");
    let mut killed = holders;
    for pid in &killed {
        kill(*pid, "-KILL");
    }
    for process in peer::processes() {
        if process.command.contains(&format!("{}/.delegate/u-", host.home().display()))
            || process.command.contains(sign)
        {
            kill(process.pid, "-KILL");
            killed.push(process.pid);
        }
    }
    // The signal is sent; a loaded machine takes its time to deliver it.
    let begun = std::time::Instant::now();
    while killed.iter().any(|pid| lives(*pid)) {
        assert!(begun.elapsed() < LIMIT, "{killed:?}");
        std::thread::yield_now();
    }
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// It may have ended by itself meanwhile.
fn kill(pid: u32, signal: &str) {
    std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
}

#[tokio::test]
async fn an_abort_ends_the_whole_tree_although_it_ignores_term() {
    for sh in [Sh::Dash, Sh::Busybox, Sh::Bash] {
        let host = Host::start(sh);
        let sign = format!("7{}.25", host.port);
        let text = format!(
            "trap '' TERM\nsleep {sign} &\nsetsid sh -c 'trap \"\" TERM; sleep {sign}; sleep {sign}' &\n\
             echo begun; while :; do sleep {sign}; done"
        );
        let spec = command(
            host.target(),
            vec![script("u", Shell::Sh, &text), script("v", Shell::Sh, "echo v")],
            &[],
        );
        let world = host.world("abort", &spec);
        let (handle, cx) = world.context();
        let executor =
            executor_with(Settings { kill_after: Duration::from_millis(500), ..Settings::default() });
        let abort = async {
            until("begun", LIMIT, || world.logs.output("u", Stream::Stdout) == ["begun"]).await;
            assert!(!peer::running(&sign).is_empty());
            handle.cancel(CancelReason::User, CancelStage::Ask);
        };
        let (result, ()) = tokio::join!(executor.run(&spec, &cx), abort);
        let error = result.unwrap_err();
        assert_eq!(error.class, Class::Cancelled { reason: CancelReason::User }, "{sh:?}: {error}");
        assert!(error.what.contains("none of its processes is left"), "{sh:?}: {error}");
        assert_eq!(peer::running(&sign), Vec::<String>::new(), "{sh:?}");
        until("the folder is gone", LIMIT, || host.leaves().is_empty()).await;
        assert_eq!(world.logs.output("v", Stream::Stdout), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_well_behaved_script_ends_by_term_and_its_last_words_are_logged() {
    let host = Host::start(Sh::Dash);
    let text = "trap 'echo bye; exit 5' TERM; echo begun; while :; do sleep 0.1; done";
    let spec = command(host.target(), vec![script("u", Shell::Sh, text)], &[]);
    let world = host.world("term", &spec);
    let (handle, cx) = world.context();
    let executor = executor();
    let abort = async {
        until("begun", LIMIT, || world.logs.output("u", Stream::Stdout) == ["begun"]).await;
        handle.cancel(CancelReason::Deadline, CancelStage::Ask);
    };
    let (result, ()) = tokio::join!(executor.run(&spec, &cx), abort);
    let error = result.unwrap_err();
    assert_eq!(error.class, Class::Cancelled { reason: CancelReason::Deadline });
    assert!(error.what.contains("was ended"), "{error}");
    assert_eq!(world.logs.output("u", Stream::Stdout), ["begun", "bye"]);
    assert!(host.leaves().is_empty());
}

#[tokio::test]
async fn a_lost_connection_loses_and_doubles_no_line() {
    for sh in [Sh::Dash, Sh::Busybox] {
        let host = Host::start(sh);
        let text = "echo x >> count; i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; [ $((i % 30)) -eq 0 ] && echo err $i >&2; sleep 0.01; done";
        let spec = command(host.target(), vec![script("u", Shell::Sh, text)], &[]);
        let world = host.world("cut", &spec);
        let (_handle, cx) = world.context();
        let executor = executor();
        let cuts = async {
            for n in [20, 90, 200] {
                until("progress", LIMIT, || world.logs.output("u", Stream::Stdout).len() >= n).await;
                host.cut();
            }
        };
        let (result, ()) = tokio::join!(executor.run(&spec, &cx), cuts);
        result.unwrap_or_else(|e| panic!("{sh:?}: {e}\n{}", world.logs.everything()));
        let wanted: Vec<String> = (1..=300).map(|n| format!("line {n}")).collect();
        assert_eq!(world.logs.output("u", Stream::Stdout), wanted, "{sh:?}");
        let wanted: Vec<String> = (1..=10).map(|n| format!("err {}", n * 30)).collect();
        assert_eq!(world.logs.output("u", Stream::Stderr), wanted);
        assert_eq!(host.read("home/count"), "x\n");
        assert!(world.logs.own("u").iter().any(|l| l.contains("lost")));
        assert!(host.leaves().is_empty());
    }
}

#[tokio::test]
async fn a_new_agent_attaches_and_goes_on_from_the_durable_line() {
    let host = Host::start(Sh::Dash);
    // It does not end before all agents were there.
    let text = "echo x >> count; i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo line $i; sleep 0.01
[ $i -ne 190 ] || while [ ! -e go ]; do sleep 0.05; done; done; V=done";
    let spec = command(host.target(), vec![script("u", Shell::Sh, text)], &["V"]);
    let world = host.world("attach", &spec);
    for round in 1..=4usize {
        let (_handle, cx) = world.context();
        let executor = executor();
        if round > 1 {
            assert_eq!(executor.recover(&spec, &cx).await.unwrap(), Recovery::Running, "round {round}");
        }
        let unit = executor_api::LogSink::unit(&world.logs, "u");
        let killed = async {
            until("progress", LIMIT, || world.logs.output("u", Stream::Stdout).len() >= round * 30).await;
            unit.durable(Stream::Stdout).await.unwrap();
            until("more", LIMIT, || world.logs.output("u", Stream::Stdout).len() >= round * 30 + 5).await;
        };
        tokio::select! {
            result = executor.run(&spec, &cx) => panic!("ended: {result:?}"),
            () = killed => {}
        }
        drop(executor);
        world.restart();
    }
    std::fs::write(host.path("home/go"), "").unwrap();
    let (_handle, cx) = world.context();
    let executor = executor();
    let output = executor.run(&spec, &cx).await.unwrap();
    let wanted: Vec<String> = (1..=200).map(|n| format!("line {n}")).collect();
    assert_eq!(world.logs.output("u", Stream::Stdout), wanted);
    assert_eq!(host.read("home/count"), "x\n");
    assert_eq!(output.outputs["outputVariables.V"].value, "done");
    assert_eq!(executor.recover(&spec, &cx).await.unwrap(), Recovery::Ended(0));
}

/// Units that were started together share a spool: a new agent finds the part of the one that it was at, whether the
/// beginning of the spool is still there or was given back.
#[tokio::test]
async fn a_new_agent_goes_on_in_the_middle_of_units_that_share_a_spool() {
    for (sh, size, spool) in [(Sh::Dash, 10, 256), (Sh::Busybox, 10, 256), (Sh::Dash, 9000, 4)] {
        let host = Host::start(sh);
        let line = "x".repeat(size);
        let one = "echo x >> count; for i in 1 2 3; do echo one $i; echo one err $i >&2; done";
        let two = format!(
            "echo y >> count; i=0; while [ $i -lt 900 ]; do i=$((i+1)); echo two $i {line}; \
             [ $((i % 90)) -ne 0 ] || echo two err $i >&2; [ $((i % 9)) -ne 0 ] || sleep 0.05; done"
        );
        let units = vec![
            script("one", Shell::Sh, one),
            script("two", Shell::Sh, &two),
            script("three", Shell::Sh, "echo z >> count; echo three"),
        ];
        let spec = command(host.target(), units, &[]);
        let world = host.world("shared", &spec);
        let settings = || Settings { spool_limit: spool << 20, ..Settings::default() };
        for round in 1..=4usize {
            let (_handle, cx) = world.context();
            let executor = executor_with(settings());
            if round > 1 {
                assert_eq!(executor.recover(&spec, &cx).await.unwrap(), Recovery::Running, "{sh:?} {round}");
            }
            let unit = executor_api::LogSink::unit(&world.logs, "two");
            let lines = || world.logs.output("two", Stream::Stdout).len();
            let killed = async {
                until("progress", LIMIT, || lines() >= round * 150).await;
                unit.durable(Stream::Stdout).await.unwrap();
                unit.durable(Stream::Stderr).await.unwrap();
            };
            tokio::select! {
                result = executor.run(&spec, &cx) => panic!("{sh:?}: ended: {result:?}"),
                () = killed => {}
            }
            drop(executor);
            world.restart();
        }
        let (_handle, cx) = world.context();
        let result = executor_with(settings()).run(&spec, &cx).await;
        result.unwrap_or_else(|e| panic!("{sh:?} {size}: {e}\n{}", world.logs.everything()));
        assert_eq!(world.logs.output("one", Stream::Stdout), ["one 1", "one 2", "one 3"]);
        assert_eq!(world.logs.output("one", Stream::Stderr), ["one err 1", "one err 2", "one err 3"]);
        let wanted: Vec<String> = (1..=900).map(|n| format!("two {n} {line}")).collect();
        assert!(world.logs.output("two", Stream::Stdout) == wanted, "{sh:?} {size}");
        let wanted: Vec<String> = (1..=10).map(|n| format!("two err {}", n * 90)).collect();
        assert_eq!(world.logs.output("two", Stream::Stderr), wanted);
        assert_eq!(world.logs.output("three", Stream::Stdout), ["three"]);
        assert_eq!(host.read("home/count"), "x\ny\nz\n");
        assert!(host.leaves().is_empty());
    }
}

#[tokio::test]
async fn a_new_agent_makes_room_on_a_host_whose_spool_is_full() {
    let host = Host::start(Sh::Dash);
    let line = "x".repeat(999);
    let text = format!("i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo {line}; done");
    let spec = command(host.target(), vec![script("u", Shell::Sh, &text)], &[]);
    let world = host.world("full", &spec);
    let settings = || Settings { spool_limit: 4 << 20, ..Settings::default() };
    // This agent takes what comes, and dies before it can tell the host so.
    let mute = executor_with(Settings { short_channels: 0, ..settings() });
    let (_handle, cx) = world.context();
    let unit = executor_api::LogSink::unit(&world.logs, "u");
    let taken = || world.logs.output("u", Stream::Stdout).len();
    let killed = async {
        // The spool of one stream has 2 MiB less a segment before it waits, which are 1,835 whole lines; where its segment
        // ends, that is how much a pipe gave at once, and what is left to read is less than a segment.
        until("a full spool", LIMIT, || taken() >= 1835).await;
        unit.durable(Stream::Stdout).await.unwrap();
    };
    tokio::select! {
        result = mute.run(&spec, &cx) => panic!("ended: {result:?}"),
        () = killed => {}
    }
    drop(mute);
    world.restart();
    let (_handle, cx) = world.context();
    let executor = executor_with(settings());
    assert_eq!(executor.recover(&spec, &cx).await.unwrap(), Recovery::Running);
    let result = tokio::time::timeout(2 * LIMIT, executor.run(&spec, &cx)).await.expect("the script goes on");
    result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    let found = world.logs.output("u", Stream::Stdout);
    assert!(found.len() == 4000 && found.iter().all(|l| *l == line), "{} lines", found.len());
    assert!(host.leaves().is_empty());
}

#[tokio::test]
async fn what_a_slow_spooler_writes_after_the_holder_has_gone_still_comes() {
    // The spooler of one stream begins late, and reading the other takes until it has come to its end.
    let setup = "mkdir $D/bin
printf '#!/bin/sh\ncase $* in *of=o.*) sleep 3.5 ;; esac\nexec /usr/bin/dd \"$@\"\n' > $D/bin/dd
printf '#!/bin/sh\n/usr/bin/cat \"$@\"\nsleep 3\n' > $D/bin/cat
chmod 755 $D/bin/*; sed -i \"s#^SetEnv PATH=#SetEnv PATH=$D/bin:#\" $D/conf";
    let host = Host::start_with(Sh::Dash, setup);
    let spec = command(host.target(), vec![script("u", Shell::Sh, "echo out; echo err >&2")], &[]);
    let world = host.world("slow", &spec);
    let (_handle, cx) = world.context();
    let result = tokio::time::timeout(2 * LIMIT, executor().run(&spec, &cx)).await.expect("an end");
    result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    assert_eq!(world.logs.output("u", Stream::Stdout), ["out"], "{}", world.logs.everything());
    assert_eq!(world.logs.output("u", Stream::Stderr), ["err"]);
    assert!(host.leaves().is_empty());
}

#[tokio::test]
async fn recover_tells_ended_never_started_and_vanished() {
    let host = Host::start(Sh::Dash);
    let sign = format!("8{}.25", host.port);
    // Ended while no agent was there.
    let text = "echo begun; while [ ! -e go ]; do sleep 0.05; done; exit 3";
    let spec = command(host.target(), vec![script("u", Shell::Sh, text)], &[]);
    let world = host.world("ended", &spec);
    {
        let (handle, cx) = world.context();
        let executor = executor();
        let drain = async {
            until("begun", LIMIT, || world.logs.output("u", Stream::Stdout) == ["begun"]).await;
            handle.cancel(CancelReason::Drain, CancelStage::Ask);
        };
        let (result, ()) = tokio::join!(executor.run(&spec, &cx), drain);
        assert_eq!(result.unwrap_err().class, Class::Cancelled { reason: CancelReason::Drain });
    }
    std::fs::write(host.path("home/go"), "").unwrap();
    world.restart();
    let (_handle, cx) = world.context();
    let second = executor();
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        match second.recover(&spec, &cx).await.unwrap() {
            Recovery::Running => assert!(std::time::Instant::now() < deadline),
            found => break assert_eq!(found, Recovery::Ended(3)),
        }
    }
    assert_eq!(second.run(&spec, &cx).await.unwrap_err().class, Class::RemoteFailed { code: 3 });
    assert_eq!(world.logs.output("u", Stream::Stdout), ["begun"]);

    // Never started: the checkpoint is there, the folder is not.
    let world = host.world("never", &spec);
    world.marks.crash_at(executor_api::testing::CrashAt::BeforeCall(1));
    let (_handle, cx) = world.context();
    let third = SshWithMarks::new(&world);
    tokio::select! {
        _ = third.0.run(&spec, &cx) => panic!("ended"),
        () = world.marks.crashed() => {}
    }
    world.restart();
    assert_eq!(second.recover(&spec, &cx).await.unwrap(), Recovery::NeverStarted);

    // Vanished: script and holder killed together.
    let spec =
        command(host.target(), vec![script("u", Shell::Sh, &format!("echo begun; sleep {sign}"))], &[]);
    let world = host.world("vanished", &spec);
    let (_handle, cx) = world.context();
    let killer = async {
        until("begun", LIMIT, || world.logs.output("u", Stream::Stdout) == ["begun"]).await;
        kill_units(&host, &sign);
    };
    let (result, ()) = tokio::join!(second.run(&spec, &cx), killer);
    let error = result.unwrap_err();
    assert_eq!(error.code, "SSH-013", "{error}");
    until("the folder is gone", LIMIT, || host.leaves().is_empty()).await;

    let world = host.world("vanished2", &spec);
    {
        let (_handle, cx) = world.context();
        let executor = executor();
        tokio::select! {
            result = executor.run(&spec, &cx) => panic!("ended: {result:?}"),
            () = until("begun", LIMIT, || world.logs.output("u", Stream::Stdout) == ["begun"]) => {}
        }
    }
    kill_units(&host, &sign);
    world.restart();
    let (_handle, cx) = world.context();
    let found = second.recover(&spec, &cx).await.unwrap();
    assert!(
        matches!(&found, Recovery::Vanished { evidence } if evidence.contains("no exit code")),
        "{found:?}"
    );
    world.logs.crash();
    second.clear(&spec, &cx).await.unwrap();
    assert_eq!(world.logs.output("u", Stream::Stdout), ["begun"], "what it had printed is brought home");
    assert!(host.leaves().is_empty(), "{:?}", host.leaves());
    second.clear(&spec, &cx).await.unwrap();
    let spec = command(host.target(), vec![script("u", Shell::Sh, "echo hi")], &[]);
    host.cut();
    let world = host.world("after", &spec);
    let (_handle, cx) = world.context();
    second.run(&spec, &cx).await.unwrap();
    assert!(host.leaves().is_empty(), "{:?}\n{}", host.leaves(), world.logs.everything());
}

struct SshWithMarks(executor_ssh::SshExecutor);

impl SshWithMarks {
    fn new(world: &executor_api::testing::World) -> Self {
        SshWithMarks(executor().with_probe(std::sync::Arc::new(world.marks.clone())))
    }
}

#[tokio::test]
async fn a_small_spool_blocks_the_producer_and_loses_nothing() {
    for sh in [Sh::Dash, Sh::Busybox] {
        let host = Host::start(sh);
        // 120 MB through a spool of 4 MiB.
        let text = "i=0; while [ $i -lt 120 ]; do i=$((i+1)); head -c 1000000 /dev/zero | tr '\\0' 'x' | fold -w 999; echo; done; echo end";
        let spec = command(host.target(), vec![script("u", Shell::Sh, text)], &[]);
        let mut world = host.world("bulk", &spec);
        world.logs = executor_api::testing::MemoryLogs::counting();
        let (_handle, cx) = world.context();
        let executor = executor_with(Settings { spool_limit: 4 << 20, ..Settings::default() });
        let leaves = host.home().join(".delegate");
        let mut most = 0;
        let watch = async {
            loop {
                let total: u64 = walk(&leaves);
                most = most.max(total);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let began = std::time::Instant::now();
        tokio::select! {
            result = executor.run(&spec, &cx) => { result.unwrap_or_else(|e| panic!("{sh:?}: {e}")); }
            () = watch => {}
        }
        let wanted = 120 * (1_000_000 + 1_000_000 / 999 + 1) + 4;
        assert_eq!(world.logs.total_bytes(), wanted, "{sh:?}");
        assert!(most < 5 << 20, "{sh:?}: the spool grew to {most}");
        println!(
            "{sh:?}: {:.1} MB/s, spool at most {most}",
            wanted as f64 / 1e6 / began.elapsed().as_secs_f64()
        );
    }
}

fn walk(dir: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => walk(&e.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test]
async fn a_foreign_folder_is_refused_and_a_full_disk_is_named() {
    let host = Host::start(Sh::Dash);
    // The folder of the unit is a link to somewhere else: its name is the same for every run of the task.
    let spec = command(host.target(), vec![script("u", Shell::Sh, "echo ${0%/*} >> ran")], &[]);
    let world = host.world("link", &spec);
    let (_handle, cx) = world.context();
    let first = executor();
    first.run(&spec, &cx).await.unwrap();
    let leaf = host.read("home/ran").trim().to_owned();
    assert!(leaf.contains("/.delegate/u-"), "{leaf}");
    let base = host.home().join(".delegate");
    let owned = |path: &std::path::Path, mode: u32| {
        std::os::unix::fs::chown(path, Some(peer::UID), Some(peer::UID)).unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    std::fs::create_dir(&base).unwrap();
    owned(&base, 0o700);
    let elsewhere = host.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    owned(&elsewhere, 0o700);
    std::os::unix::fs::symlink(&elsewhere, &leaf).unwrap();
    let again = async || {
        let world = host.world("link", &spec);
        let (_handle, cx) = world.context();
        first.run(&spec, &cx).await
    };
    assert_eq!(again().await.unwrap_err().code, "SSH-016");
    std::fs::remove_file(&leaf).unwrap();
    std::fs::create_dir(&leaf).unwrap();
    owned(std::path::Path::new(&leaf), 0o755);
    assert_eq!(again().await.unwrap_err().code, "SSH-016");
    std::fs::remove_dir(&leaf).unwrap();
    // Somebody else's base is not used; the other place is.
    owned(&base, 0o777);
    again().await.unwrap();
    let second = host.read("home/ran").lines().last().unwrap().to_owned();
    assert!(second.starts_with(&format!("/var/tmp/delegate-{}/u-", peer::UID)), "{second}");
    assert!(!std::path::Path::new(&second).exists());

    // Home and /var/tmp are full.
    let full = Host::start_with(
        Sh::Dash,
        "mount -t tmpfs -o size=64k,mode=777 none $D/home; chown 61001 $D/home; head -c 100000 /dev/zero > $D/home/fill || true",
    );
    let big = format!("# {}\necho hi", "x".repeat(100_000));
    let spec = command(full.target(), vec![script("u", Shell::Sh, &big)], &[]);
    let world = full.world("full", &spec);
    let (_handle, cx) = world.context();
    let error = executor_with(hasty()).run(&spec, &cx).await.unwrap_err();
    assert_eq!(error.code, "SSH-016", "{error}\n{}", world.logs.everything());
}

#[tokio::test]
async fn a_disk_that_fills_up_meanwhile_takes_output_but_not_the_exit_status() {
    let host =
        Host::start_with(Sh::Dash, "mount -t tmpfs -o size=256k,mode=777 none $D/home; chown 61001 $D/home");
    let text =
        "n=0; while [ $n -lt 20000 ]; do echo \"a line of the output, number $n\"; n=$((n+1)); done; exit 5";
    let spec = command(host.target(), vec![script("u", Shell::Sh, text)], &[]);
    let world = host.world("fills", &spec);
    let (_handle, cx) = world.context();
    let error = executor_with(hasty()).run(&spec, &cx).await.unwrap_err();
    let log = world.logs.everything();
    let shown = &log[..log.len().min(2000)];
    assert_eq!((error.code, error.what.contains("status 5")), ("SSH-011", true), "{error}\n{shown}");
    assert!(log.contains("The end of the output is missing"), "the gap is told: {shown}");
    assert!(host.leaves().is_empty(), "{:?}", host.leaves());
}

#[tokio::test]
async fn an_abort_while_the_host_is_away_is_made_up_for_at_the_next_connection() {
    let mut host = Host::start(Sh::Dash);
    let sign = format!("6{}.25", host.port);
    let spec =
        command(host.target(), vec![script("u", Shell::Sh, &format!("echo begun; sleep {sign}"))], &[]);
    let world = host.world("away", &spec);
    let (handle, cx) = world.context();
    let state = host.path("state");
    let settings =
        || Settings { end_within: Duration::from_millis(500), state_dir: Some(state.clone()), ..hasty() };
    let executor = executor_with(settings());
    let begun = until("begun", LIMIT, || world.logs.output("u", Stream::Stdout) == ["begun"]);
    let (result, ()) = tokio::join!(executor.run(&spec, &cx), async {
        begun.await;
        host.stop();
        handle.cancel(CancelReason::User, CancelStage::Ask);
    });
    let error = result.unwrap_err();
    assert!(error.what.contains("may still run"), "{error}");
    assert!(world.logs.everything().contains("Left on 127.0.0.1"), "{}", world.logs.everything());
    assert!(!peer::running(&sign).is_empty());
    host.restart();
    let spec = command(host.target(), vec![script("u", Shell::Sh, "echo hi")], &[]);
    let world = host.world("next", &spec);
    let (_handle, cx) = world.context();
    // A restarted agent still knows.
    executor_with(settings()).run(&spec, &cx).await.unwrap();
    assert_eq!(peer::running(&sign), Vec::<String>::new());
    assert!(host.leaves().is_empty(), "{:?}\n{}", host.leaves(), world.logs.everything());
}

#[tokio::test]
async fn idle_connections_are_closed_and_a_running_script_keeps_its_own() {
    let host = Host::start(Sh::Dash);
    let spec = command(host.target(), vec![script("u", Shell::Sh, "sleep 1")], &[]);
    let world = host.world("idle", &spec);
    let (_handle, cx) = world.context();
    let executor = executor_with(Settings { idle_close: Duration::from_millis(200), ..Settings::default() });
    executor.run(&spec, &cx).await.unwrap();
    assert_eq!(host.log().matches("Accepted publickey").count(), 1, "{}", host.log());
    until("closed", LIMIT, || host.sessions().is_empty()).await;
}

#[tokio::test]
async fn a_quarter_gibibyte_passes_whole() {
    let host = Host::start(Sh::Dash);
    let text = "head -c 1000000 /dev/zero | tr '\\0' x | fold -w 99 > block; n=0; while [ $n -lt 256 ]; do cat block; n=$((n+1)); done; rm block";
    let spec = command(host.target(), vec![script("u", Shell::Sh, text)], &[]);
    let mut world = host.world("speed", &spec);
    world.logs = executor_api::testing::MemoryLogs::counting();
    let (_handle, cx) = world.context();
    let began = std::time::Instant::now();
    executor().run(&spec, &cx).await.unwrap();
    let rate = world.logs.total_bytes() as f64 / 1e6 / began.elapsed().as_secs_f64();
    println!("{rate:.1} MB/s over {} bytes", world.logs.total_bytes());
    assert!(world.logs.total_bytes() > 258_000_000);
}

#[tokio::test]
async fn an_abort_at_any_moment_of_the_launch_leaves_nothing() {
    let host = Host::start(Sh::Dash);
    let sign = format!("5{}.25", host.port);
    let executor = executor();
    for n in 0..25u64 {
        let spec = command(host.target(), vec![script("u", Shell::Sh, &format!("sleep {sign}"))], &[]);
        let world = host.world(&format!("launch{n}"), &spec);
        let (handle, cx) = world.context();
        let abort = async {
            tokio::time::sleep(Duration::from_millis(n * 3)).await;
            handle.cancel(CancelReason::User, CancelStage::Ask);
        };
        let (result, ()) = tokio::join!(executor.run(&spec, &cx), abort);
        let error = result.unwrap_err();
        assert_eq!(error.class, Class::Cancelled { reason: CancelReason::User }, "{n}: {error}");
        assert_eq!(peer::running(&sign), Vec::<String>::new(), "{n}\n{}", world.logs.everything());
        assert!(host.leaves().is_empty(), "{n}: {:?}\n{}", host.leaves(), world.logs.everything());
    }
    // A launch that was under way would show up: every shell that was started on this host is waited for. Those of other
    // tests, which run meanwhile, have another home.
    let home = host.home().display().to_string();
    let here = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&format!("HOME={home}\0"))
    };
    let shells = || {
        let ours = |p: &peer::Process| {
            (p.command.contains("/bin/sh -c eval") && here(p.pid))
                || p.command.contains(&format!("{home}/.delegate/u-"))
        };
        peer::processes().iter().filter(|p| ours(p)).count()
    };
    until("no launcher is left", LIMIT, || shells() == 0).await;
    assert_eq!(peer::running(&sign), Vec::<String>::new());
    assert!(host.leaves().is_empty());
}

#[tokio::test]
async fn an_agent_killed_again_and_again_loses_and_doubles_nothing() {
    for sh in [Sh::Dash, Sh::Busybox] {
        let host = Host::start(sh);
        let text = "echo x >> count; i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; echo err $i >&2; sleep 0.01; done";
        let spec = command(
            host.target(),
            vec![script("u", Shell::Sh, text), script("v", Shell::Sh, "echo y >> count")],
            &[],
        );
        let world = host.world("often", &spec);
        let mut lives = 0u64;
        let mut vary = u64::from(host.port);
        loop {
            lives += 1;
            // A small generator: a failing run is told by its seed, the port.
            vary = vary.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let span = Duration::from_millis(20 + (vary >> 33) % 250);
            let (_handle, cx) = world.context();
            let executor = executor();
            if world.marks.count() > 0 {
                let found = executor.recover(&spec, &cx).await.unwrap();
                assert!(!matches!(found, Recovery::Vanished { .. }), "life {lives}: {found:?}");
            }
            let unit = executor_api::LogSink::unit(&world.logs, "u");
            let killed = async {
                tokio::time::sleep(span / 2).await;
                unit.durable(Stream::Stdout).await.unwrap();
                tokio::time::sleep(span / 2).await;
            };
            tokio::select! {
                result = executor.run(&spec, &cx) => {
                    result.unwrap_or_else(|e| panic!("life {lives}: {e}\n{}", world.logs.everything()));
                    break;
                }
                () = killed => {}
            }
            drop(executor);
            world.restart();
            assert!(lives < 400, "it never ends");
        }
        let wanted = |what: &str| (1..=400).map(|n| format!("{what} {n}")).collect::<Vec<String>>();
        for (stream, what) in [(Stream::Stdout, "line"), (Stream::Stderr, "err")] {
            let found = world.logs.output("u", stream);
            let differs = found.iter().zip(wanted(what)).position(|(a, b)| *a != b);
            assert!(
                differs.is_none() && found.len() == 400,
                "{sh:?} {what}: {} lines, differs at {differs:?}",
                found.len()
            );
        }
        assert_eq!(host.read("home/count"), "x\ny\n");
        assert!(host.leaves().is_empty());
        println!("{sh:?}: {lives} lives");
    }
}
