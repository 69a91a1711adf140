//! Scripts on real hosts: outputs, exit codes, variables, environment, interpreters.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]
mod peer;

use executor_api::testing::World;
use executor_api::{Class, Executor, Stream};
use peer::{Host, Sh, command, executor, script};
use proto::result::UnitStatus;
use proto::task::Shell;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn both_outputs_the_exit_code_and_nothing_left_on_every_shell() {
    for sh in [Sh::Dash, Sh::Bash, Sh::Busybox] {
        let host = Host::start(sh);
        let spec = command(
            host.target(),
            vec![
                script("one", Shell::Sh, "echo out; echo err >&2; printf 'no newline'"),
                script("two", Shell::Sh, "echo second; exit 7"),
                script("three", Shell::Sh, "echo never"),
            ],
            &[],
        );
        let world = host.world(&format!("{sh:?}"), &spec);
        let (_handle, cx) = world.context();
        let error = executor().run(&spec, &cx).await.unwrap_err();
        let log = world.logs.everything();
        assert_eq!(error.class, Class::RemoteFailed { code: 7 }, "{sh:?}: {error}\n{log}");
        assert_eq!(error.code, "SSH-011");
        assert!(error.what.contains("127.0.0.1") && error.what.contains("two"), "{}", error.what);
        assert_eq!(world.logs.output("one", Stream::Stdout), ["out", "no newline"], "{sh:?}\n{log}");
        assert_eq!(world.logs.output("one", Stream::Stderr), ["err"]);
        assert_eq!(world.logs.output("two", Stream::Stdout), ["second"]);
        assert_eq!(world.logs.statuses("one"), [UnitStatus::Running, UnitStatus::Success]);
        assert_eq!(world.logs.statuses("two"), [UnitStatus::Running, UnitStatus::Failure]);
        assert_eq!(world.logs.statuses("three"), [UnitStatus::Skipped]);
        assert_eq!(world.logs.units(), ["Init", "one", "two", "three", "Cleanup"]);
        assert!(!host.home().join(".delegate").exists(), "{sh:?}: {:?}", host.leaves());
        let ours = format!("{}/.delegate/u-", host.home().display());
        peer::until("no holder or spooler is left", LIMIT, || peer::running(&ours).is_empty()).await;
    }
}

/// What costs a host is the programs that it has to start: here each writes down its name first.
#[tokio::test]
async fn a_step_starts_few_programs_on_its_host_and_a_quiet_unit_starts_none() {
    let setup = "mkdir $D/bin && : > $D/started && chmod 666 $D/started
for p in cat cp dd find head id ls mkdir mkfifo mv od ps rm rmdir setsid stat touch tr wc; do
printf '#!/bin/sh\necho %s >> %s\nexec /usr/bin/%s \"$@\"\n' $p $D/started $p > $D/bin/$p; done
chmod 755 $D/bin/*; sed -i \"s#^SetEnv PATH=#SetEnv PATH=$D/bin:#\" $D/conf";
    let host = Host::start_with(Sh::Dash, setup);
    let run = async |name: &str, units: Vec<proto::task::CommandUnit>| {
        let spec = command(host.target(), units, &[]);
        let world = host.world(name, &spec);
        let (_handle, cx) = world.context();
        std::fs::write(host.path("started"), "").unwrap();
        executor().run(&spec, &cx).await.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
        let mut started: Vec<String> = host.read("started").lines().map(str::to_owned).collect();
        started.sort();
        started
    };
    let few = ["dd", "dd", "head", "mkdir", "rm", "rmdir", "setsid", "setsid", "setsid"];
    let mut found = Vec::new();
    // A shell that takes a second to answer on a loaded host is not waited for: another one then cleans up.
    for name in ["few-1", "few-2", "few-3", "few-4"] {
        let units = ["a", "b", "c"].map(|name| script(name, Shell::Sh, ":")).to_vec();
        found = run(name, units).await;
        // A look while it runs may find the marks of a unit that has ended.
        found.retain(|name| name != "cat");
        if found == few {
            break;
        }
    }
    assert_eq!(found, few);
    // Looked at again and again, but read only when something was written, and seldom in between.
    let started = run("quiet", vec![script("u", Shell::Sh, "echo x; exec /usr/bin/sleep 3")]).await;
    let reads = started.iter().filter(|name| *name == "cat").count();
    assert!((1..=8).contains(&reads), "{started:?}");
}

#[tokio::test]
async fn units_are_launched_together_and_each_has_its_own_output() {
    for sh in [Sh::Dash, Sh::Busybox] {
        let host = Host::start(sh);
        let units = vec![
            script("one", Shell::Sh, "(sleep 1; echo late; echo late >&2) & echo one"),
            script(
                "two",
                Shell::Sh,
                "sleep 2; echo two; head -c 100000 /dev/zero | tr '\\0' x | fold -w 999",
            ),
            script("three", Shell::Sh, "echo three >&2"),
        ];
        let spec = command(host.target(), units, &[]);
        let world = host.world("together", &spec);
        let (_handle, cx) = world.context();
        executor()
            .run(&spec, &cx)
            .await
            .unwrap_or_else(|e| panic!("{sh:?} {e}\n{}", world.logs.everything()));
        assert_eq!(world.logs.output("one", Stream::Stdout), ["one"], "{sh:?}");
        assert_eq!(world.logs.output("one", Stream::Stderr), Vec::<String>::new());
        let two = world.logs.output("two", Stream::Stdout);
        assert_eq!((two[0].as_str(), two.len()), ("two", 102), "{sh:?}");
        assert_eq!(world.logs.output("three", Stream::Stderr), ["three"]);
        let launch = &executor_api::Checkpoints::history(&world.marks)[0].calls;
        assert_eq!(*launch, ["launch one", "launch two", "launch three"]);
        assert_eq!(world.marks.unannounced(), Vec::<String>::new());
        assert!(host.leaves().is_empty());
    }
}

#[tokio::test]
async fn variables_survive_exit_and_missing_ones_are_absent() {
    for (sh, shell) in
        [(Sh::Dash, Shell::Bash), (Sh::Busybox, Shell::Sh), (Sh::Bash, Shell::Sh), (Sh::Dash, Shell::Python)]
    {
        let host = Host::start(sh);
        let text = match shell {
            Shell::Python => "import sys\nA = 'x'\nB = \"two\\nlines 'q' $z\"\nprint('hi')\nsys.exit(0)\n",
            _ => "#!/no/such\nA=x\nB=\"two\nlines 'q' \\$z\"\necho hi\nexit 0\n",
        };
        let spec = command(host.target(), vec![script("u", shell, text)], &["A", "B", "C"]);
        let world = host.world("vars", &spec);
        let (_handle, cx) = world.context();
        let output = executor()
            .run(&spec, &cx)
            .await
            .unwrap_or_else(|e| panic!("{sh:?} {e}\n{}", world.logs.everything()));
        assert_eq!(output.outputs["outputVariables.A"].value, "x", "{sh:?} {shell:?}");
        assert_eq!(output.outputs["outputVariables.B"].value, "two\nlines 'q' $z");
        assert!(!output.outputs.contains_key("outputVariables.C"));
        assert!(output.notices.iter().any(|n| n.contains('C')), "{:?}", output.notices);
        assert_eq!(world.logs.output("u", Stream::Stdout), ["hi"]);
        assert_eq!(cx.learned.all()[0].host, format!("127.0.0.1:{}", host.port));
    }
}

#[tokio::test]
async fn environment_working_directory_and_secrets() {
    let host = Host::start(Sh::Dash);
    let mut unit = script(
        "u",
        Shell::Bash,
        "printf '%s|%s|%s\\n' \"$PLAIN\" \"${#TOKEN}\" \"$PWD\"; umask; \
         for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f 2>/dev/null; done | grep -c 'hunter2-[p]lanted'; \
         echo \"len ${#INLINE}\"; INLINE=\"${ngSecretManager.obtain(\"pw\", 77)}\"; echo ${#INLINE}",
    );
    if let proto::task::UnitKind::Script { working_directory, script, .. } = &mut unit.kind {
        *working_directory = Some("$HOME/in side".into());
        // A shell word cannot hold the placeholder's own quotes, so it stands alone on a line as an author writes it.
        script.0 = script
            .0
            .replace("\"${ngSecretManager.obtain(\"pw\", 77)}\"", "'${ngSecretManager.obtain(\"pw\", 77)}'");
    }
    let home = host.home();
    std::fs::create_dir(home.join("in side")).unwrap();
    let spec = command(host.target(), vec![unit], &[]);
    let mut task = peer::task(&spec);
    task.env.insert("PLAIN".into(), "a 'b' $(id) \"c\"".into());
    task.env.insert("TOKEN".into(), "${ngSecretManager.obtain(\"pw\", 77)}".into());
    task.env.insert("not-a-name".into(), "x".into());
    let mut secrets = host.secrets();
    secrets.push(("pw".into(), "hunter2-planted".into()));
    let world = World::new("t", task, secrets);
    let (_handle, cx) = world.context();
    let output =
        executor().run(&spec, &cx).await.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    let lines = world.logs.output("u", Stream::Stdout);
    assert_eq!(lines[0], format!("a 'b' $(id) \"c\"|15|{}/in side", home.display()));
    assert_eq!(lines[1..], ["0022", "0", "len 0", "15"], "{lines:?}");
    assert!(output.notices.iter().any(|n| n.contains("not-a-name")));
    assert!(!world.logs.everything().contains("hunter2"));
}

#[tokio::test]
async fn missing_interpreter_and_missing_directory_are_told_apart_from_exit_codes() {
    let host = Host::start(Sh::Busybox);
    let spec = command(host.target(), vec![script("u", Shell::Python, "print(1)")], &[]);
    let world = host.world("interp", &spec);
    let (_handle, cx) = world.context();
    let error = executor().run(&spec, &cx).await.unwrap_err();
    assert_eq!((error.code, error.class), ("SSH-014", Class::RemoteFailed { code: 127 }), "{error}");
    assert!(error.what.contains("python3"), "{error}");

    let mut unit = script("u", Shell::Sh, "echo hi");
    if let proto::task::UnitKind::Script { working_directory, .. } = &mut unit.kind {
        *working_directory = Some("/no/such/place".into());
    }
    let spec = command(host.target(), vec![unit], &[]);
    let world = host.world("dir", &spec);
    let (_handle, cx) = world.context();
    let error = executor().run(&spec, &cx).await.unwrap_err();
    assert_eq!(error.code, "SSH-015", "{error}");
    assert!(error.what.contains("/no/such/place"), "{error}");
    assert!(host.leaves().is_empty());
}

#[tokio::test]
async fn crlf_is_stripped_signals_are_named_and_children_with_stdout_do_not_matter() {
    let host = Host::start(Sh::Dash);
    let spec = command(host.target(), vec![script("u", Shell::Bash, "echo one\r\necho two\r\n")], &[]);
    let world = host.world("crlf", &spec);
    let (_handle, cx) = world.context();
    executor().run(&spec, &cx).await.unwrap();
    assert_eq!(world.logs.output("u", Stream::Stdout), ["one", "two"]);
    assert!(world.logs.own("u").iter().any(|l| l.contains("CRLF")));

    let spec = command(host.target(), vec![script("u", Shell::Sh, "echo x; kill -KILL $$")], &[]);
    let world = host.world("kill", &spec);
    let (_handle, cx) = world.context();
    let error = executor().run(&spec, &cx).await.unwrap_err();
    assert_eq!((error.code, error.class), ("SSH-012", Class::RemoteFailed { code: 137 }), "{error}");
    assert!(error.what.contains("SIGKILL"), "{error}");

    // A background process keeps both outputs open and goes on after the step.
    let text = "(sleep 4242 &) ; nohup sleep 4243 & echo started";
    let spec = command(host.target(), vec![script("u", Shell::Sh, text)], &[]);
    let world = host.world("bg", &spec);
    let (_handle, cx) = world.context();
    let began = std::time::Instant::now();
    executor().run(&spec, &cx).await.unwrap();
    assert!(began.elapsed().as_secs() < 10);
    assert_eq!(world.logs.output("u", Stream::Stdout), ["started"]);
    assert!(!peer::running("sleep 4242").is_empty() && !peer::running("sleep 4243").is_empty());
    assert!(host.leaves().is_empty());
    for process in peer::processes().iter().filter(|p| p.command == "sleep 4242" || p.command == "sleep 4243")
    {
        std::process::Command::new("kill").arg(process.pid.to_string()).status().unwrap();
    }
}

#[tokio::test]
async fn large_scripts_and_awkward_names_pass_unchanged() {
    for sh in [Sh::Dash, Sh::Bash, Sh::Busybox] {
        let host = Host::start(sh);
        let line = "# it's \"quoted\" $(never run) `nor this` \\ ü\n";
        let text = format!("{}echo \"$D|$U|$S|$NONCE\"; wc -c < \"$0\"", line.repeat(25_000));
        let spec = command(host.target(), vec![script("u", Shell::Sh, &text)], &[]);
        let mut task = peer::task(&spec);
        for name in ["D", "U", "S", "NONCE"] {
            task.env.insert(name.into(), format!("value of {name}").as_str().into());
        }
        let world = World::new("large", task, host.secrets());
        let (_handle, cx) = world.context();
        executor().run(&spec, &cx).await.unwrap_or_else(|e| panic!("{sh:?} {e}"));
        let lines = world.logs.output("u", Stream::Stdout);
        assert_eq!(lines[0], "value of D|value of U|value of S|value of NONCE", "{sh:?}");
        assert_eq!(lines[1].trim(), text.len().to_string());
    }
}

#[tokio::test]
async fn a_unit_is_quick() {
    let host = Host::start(Sh::Dash);
    let units = (0..20).map(|n| script(&format!("u{n}"), Shell::Sh, "true")).collect();
    let spec = command(host.target(), units, &[]);
    let world = host.world("quick", &spec);
    let (_handle, cx) = world.context();
    let began = std::time::Instant::now();
    executor().run(&spec, &cx).await.unwrap();
    println!("20 units: {:?}", began.elapsed());
}
