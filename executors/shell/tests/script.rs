//! What scripts see, what they leave, how they end.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "Tests may panic.")]
mod support;

use executor_api::testing::{self, World};
use executor_api::{CancelReason, CancelStage, Class, Executor, Recovery, StepError, StepOutput, Stream};
use executor_shell::{Settings, ShellExecutor};
use proto::task::{Shell, ShellScriptSpec};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use support::{carrying, executor, pid_in, place, runs, spec, until, world};

async fn run(world: &World, spec: &ShellScriptSpec) -> Result<StepOutput, StepError> {
    let (_handle, cx) = world.context();
    executor().check(spec, &cx).unwrap();
    executor().run(spec, &cx).await
}

async fn ok(world: &World, spec: &ShellScriptSpec) -> StepOutput {
    run(world, spec).await.unwrap_or_else(|e| panic!("{} {e}\n{}", e.code, world.logs.everything()))
}

fn out(world: &World) -> Vec<String> {
    world.logs.output("Execute", Stream::Stdout)
}

fn with_env(world: &mut World, name: &str, value: &str) {
    Arc::get_mut(&mut world.task).unwrap().env.insert(name.into(), value.into());
}

#[tokio::test]
async fn a_script_sees_its_variables_and_a_clean_environment() {
    let spec = spec(
        Shell::Bash,
        "env | cut -d= -f1 | sort; echo \"[$GREETING]\"; pwd; [ \"$PWD\" = \"$HOME\" ] && echo home; read -r x || echo closed; umask",
        &[],
    );
    let mut world = world("clean", &spec);
    with_env(&mut world, "GREETING", "it's \"quoted\" $HOME `id`\nsecond line");
    ok(&world, &spec).await;
    let out = out(&world);
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some(), "cargo sets it for every test");
    let names: Vec<&str> = out.iter().take_while(|l| !l.starts_with('[')).map(String::as_str).collect();
    for name in &names {
        assert!(
            [
                "DELEGATE_PROCESS",
                "GREETING",
                "HOME",
                "LANG",
                "LC_ALL",
                "LC_CTYPE",
                "PATH",
                "PWD",
                "SHLVL",
                "TMPDIR",
                "TZ",
                "USER",
                "_"
            ]
            .contains(name)
                || *name == "second line",
            "{name} was inherited: {names:?}"
        );
    }
    assert!(names.contains(&"PATH") && names.contains(&"TMPDIR"), "{names:?}");
    let rest = out[names.len()..].join("\n");
    assert!(rest.starts_with("[it's \"quoted\" $HOME `id`\nsecond line]\n"), "{rest}");
    assert!(rest.contains("\nhome\nclosed\n"), "{rest}");
}

#[tokio::test]
async fn bash_and_python_leave_outputs_secret_ones_masked() {
    for (shell, text) in [
        (Shell::Bash, "VERSION=1.2.3; PARTS=$'a\\nb'; TOKEN=$PW-x; arr=(1); [[ -n $VERSION ]] && exit 0"),
        (Shell::Sh, "VERSION=1.2.3; PARTS='a\nb'; TOKEN=$PW-x; trap : EXIT"),
        (
            Shell::Python,
            "import os, sys\nVERSION = '1.2.3'\nPARTS = 'a\\nb'\nTOKEN = os.environ['PW'] + '-x'\nsys.exit(0)",
        ),
    ] {
        let outputs = [("VERSION", false), ("PARTS", false), ("TOKEN", true), ("UNSET", false)];
        let spec = spec(shell, text, &outputs);
        let mut world = world(&format!("outputs{shell:?}"), &spec);
        with_env(&mut world, "PW", "${ngSecretManager.obtain(\"pw\", 77)}");
        let found = ok(&world, &spec).await;
        let value = |name: &str| found.outputs.get(&format!("outputVariables.{name}"));
        assert_eq!(value("VERSION").unwrap().value, Value::from("1.2.3"), "{shell:?}");
        assert_eq!(value("PARTS").unwrap().value, Value::from("a\nb"), "{shell:?}");
        let token = value("TOKEN").unwrap();
        assert_eq!((&token.value, token.secret), (&Value::from("pl4nted-x"), true), "{shell:?}");
        assert!(world.secrets.masked().contains(&"pl4nted-x".to_owned()), "{shell:?}");
        assert!(
            value("UNSET").is_none() && found.notices[0].contains("UNSET"),
            "{shell:?} {:?}",
            found.notices
        );
    }
}

#[tokio::test]
async fn the_text_is_in_a_private_file_and_never_in_argv() {
    let (_dir, place) = place();
    let text = "#very-s3cret-text\nstat -c '%a' \"$0\" \"${0%/*}\"; echo $$ > \"$PLACE/pid\"; while [ ! -e \"$PLACE/go\" ]; do sleep 0.02; done; echo \"$0\"";
    let spec = spec(Shell::Bash, text, &[]);
    let mut world = world("private", &spec);
    with_env(&mut world, "PLACE", place.to_str().unwrap());
    with_env(&mut world, "PW", "${ngSecretManager.obtain(\"pw\", 77)}");
    let look = async {
        until("it runs", || pid_in(&place.join("pid"))).await;
        let here = format!("PLACE={}", place.display());
        let commands = carrying(&here);
        assert!(commands.len() >= 2, "the holder and the script: {commands:?}");
        for (_, command) in commands {
            assert!(!command.contains("s3cret") && !command.contains("pl4nted"), "{command}");
        }
        std::fs::write(place.join("go"), "").unwrap();
    };
    let (_output, ()) = tokio::join!(ok(&world, &spec), look);
    let lines = out(&world);
    assert_eq!(lines[..2], ["600", "700"]);
    // The text is of no use any more, and is gone with the script.
    assert!(!std::path::Path::new(&lines[2]).exists());
    let (_handle, cx) = world.context();
    assert_eq!(std::fs::metadata(cx.scratch.join("script")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn relative_directories_are_private_and_line_ends_are_mended() {
    let mut spec = spec(Shell::Bash, "pwd\r\necho done\r\n", &[]);
    spec.working_directory = Some("/".into());
    let world = world("directory", &spec);
    ok(&world, &spec).await;
    assert_eq!(out(&world), ["/", "done"]);
    assert!(world.logs.own("Execute").iter().any(|line| line.contains("CRLF")));
}

#[tokio::test]
async fn a_lot_of_output_arrives_whole_and_in_order_with_a_small_spool() {
    let spec = spec(Shell::Bash, "seq 1 300000; printf 'no newline'; seq 1 20000 >&2", &[]);
    let world = world("much", &spec);
    let executor = ShellExecutor::new(Settings { spool_limit: 256 << 10, ..Settings::default() });
    let (_handle, cx) = world.context();
    executor.run(&spec, &cx).await.unwrap();
    let lines = out(&world);
    assert_eq!(lines.len(), 300_001);
    assert!(lines[..300_000].iter().enumerate().all(|(n, line)| *line == (n + 1).to_string()));
    assert_eq!(lines[300_000], "no newline");
    assert_eq!(world.logs.output("Execute", Stream::Stderr).len(), 20_000);
    // What was safe was deleted: the spool never held it all (2 MB).
    let kept: u64 = std::fs::read_dir(cx.scratch.join("script"))
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("o."))
        .map(|e| e.metadata().unwrap().len())
        .sum();
    assert!(kept < 17 << 20, "{kept}");
}

#[tokio::test]
async fn a_background_process_does_not_hold_up_the_step_and_lives_on() {
    let (_dir, place) = place();
    let spec = spec(Shell::Bash, "sleep 60 & echo $! > \"$PLACE/pid\"; echo started", &[]);
    let mut world = world("background", &spec);
    with_env(&mut world, "PLACE", place.to_str().unwrap());
    let begun = std::time::Instant::now();
    ok(&world, &spec).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(out(&world), ["started"]);
    let pid = pid_in(&place.join("pid")).unwrap();
    assert!(runs(pid));
    std::process::Command::new("kill").arg(pid.to_string()).status().unwrap();
    let here = format!("PLACE={}", place.display());
    until("the holder ends with it", || carrying(&here).is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_cancel_ends_stubborn_grandchildren_of_other_sessions() {
    let (_dir, place) = place();
    let text = "echo words; trap 'echo last words; exit 1' TERM\n\
                setsid bash -c 'trap \"\" TERM; echo $$ > \"$PLACE/stubborn\"; while :; do sleep 1; done' &\n\
                setsid sh -c 'echo $$ > \"$PLACE/polite\"; sleep 100' &\nwait";
    let spec = spec(Shell::Bash, text, &[]);
    let mut world = world("stubborn", &spec);
    with_env(&mut world, "PLACE", place.to_str().unwrap());
    let (handle, cx) = world.context();
    let abort = async {
        let pids =
            until("all run", || Some([pid_in(&place.join("stubborn"))?, pid_in(&place.join("polite"))?]));
        let pids = pids.await;
        handle.cancel(CancelReason::User, CancelStage::Ask);
        pids
    };
    let executor = executor();
    let (done, pids) = tokio::join!(executor.run(&spec, &cx), abort);
    let error = done.unwrap_err();
    assert_eq!(error.class, Class::Cancelled { reason: CancelReason::User });
    assert!(error.what.contains("killed") && error.what.contains("none"), "{error}");
    assert!(pids.iter().all(|pid| !runs(*pid)), "{pids:?}");
    assert_eq!(carrying(&format!("PLACE={}", place.display())), []);
    assert_eq!(out(&world), ["words", "last words"]);
}

/// The holder is the one process whose group the script belongs to.
fn holder(cx: &executor_api::StepContext) -> i32 {
    pid_in(&cx.scratch.join("script/go")).unwrap()
}

#[tokio::test]
async fn a_new_agent_attaches_without_losing_or_doubling_a_line() {
    let (_dir, place) = place();
    let text = "for n in $(seq 1 200); do echo $n; done; echo x >> \"$PLACE/ran\"\n\
                while [ ! -e \"$PLACE/go\" ]; do sleep 0.02; done; for n in $(seq 201 400); do echo $n; done; A=7; exit 4";
    let spec = spec(Shell::Bash, text, &[("A", false)]);
    let mut world = world("attach", &spec);
    with_env(&mut world, "PLACE", place.to_str().unwrap());
    let (_handle, cx) = world.context();
    tokio::select! {
        done = run(&world, &spec) => panic!("it ended: {done:?}"),
        () = until("half is there", || (out(&world).len() >= 200 && place.join("ran").exists()).then_some(())) => {}
    }
    world.restart();
    assert_eq!(executor().recover(&spec, &cx).await.unwrap(), Recovery::Running);
    std::fs::write(place.join("go"), "").unwrap();
    // It ends while no agent is there.
    let recovered = testing::until("it ends", Duration::from_secs(20), async || {
        let found = executor().recover(&spec, &cx).await.unwrap();
        (found != Recovery::Running).then_some(found)
    });
    assert_eq!(recovered.await, Recovery::Ended(4));
    let error = run(&world, &spec).await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::RemoteFailed { code: 4 }, "SHELL-001"));
    let lines = out(&world);
    assert!(lines.iter().enumerate().all(|(n, line)| *line == (n + 1).to_string()), "{lines:?}");
    assert_eq!((lines.len(), std::fs::read_to_string(place.join("ran")).unwrap().as_str()), (400, "x\n"));
}

#[tokio::test]
async fn one_that_lost_its_holder_vanished_and_its_rest_is_ended() {
    let (_dir, place) = place();
    let spec = spec(Shell::Bash, "echo before; echo $$ > \"$PLACE/pid\"; sleep 100", &[]);
    let mut world = world("vanished", &spec);
    with_env(&mut world, "PLACE", place.to_str().unwrap());
    let (_handle, cx) = world.context();
    let pid = tokio::select! {
        done = run(&world, &spec) => panic!("it ended: {done:?}"),
        pid = until("it runs", || pid_in(&place.join("pid"))) => pid,
    };
    world.restart();
    let held = holder(&cx);
    std::process::Command::new("kill").args(["-9", &held.to_string()]).status().unwrap();
    until("the holder is gone", || (!runs(held)).then_some(())).await;
    let found = executor().recover(&spec, &cx).await.unwrap();
    assert!(
        matches!(&found, Recovery::Vanished { evidence } if evidence.contains(&held.to_string())),
        "{found:?}"
    );
    executor().clear(&spec, &cx).await.unwrap();
    assert!(!runs(pid));
    assert_eq!(carrying(&format!("PLACE={}", place.display())), []);
    assert_eq!(out(&world), ["before"]);
    // It is never run again.
    let error = run(&world, &spec).await.unwrap_err();
    assert_eq!(error.code, executor_shell::VANISHED);
}

#[tokio::test]
async fn faults_of_the_spec_are_named_together() {
    let mut spec = spec(Shell::PowerShell, "a\0b", &[("a-b", false)]);
    spec.output_variables[0].name = "x".into();
    let mut world = world("faults", &spec);
    with_env(&mut world, "DELEGATE_HOLD_PATH", "/x");
    let (_handle, cx) = world.context();
    let faults = executor().check(&spec, &cx).unwrap_err();
    let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["source.spec.script", "shell", "outputVariables[0].value", "environmentVariables"]);
}
