//! SHELL_SCRIPT_TASK_NG of a Harness manager, on the agent and over a real sshd: what comes back is read by the real Kryo.

use crate::harness_manager::{HarnessManager, LIMIT, detail, ssh_login, units};
use e2e::peers::sshd::Sshd;
use e2e::wait::{free_port, until};
use serde_json::{Value, json};
use std::path::Path;

/// A script on the agent, in the shape of December 2023.
fn script(text: &str) -> Value {
    json!({
        "accountId": "acct1", "executeOnDelegate": true, "outputVars": [], "secretOutputVars": [], "script": text,
        "scriptType": "BASH", "executionId": "q8Zr", "workingDirectory": "/tmp", "environmentVariables": {},
        "k8sInfraDelegateConfig": null, "sshKeySpecDTO": null, "encryptionDetails": [], "host": null,
    })
}

const SHELL: &str = "SHELL_SCRIPT_TASK_NG";

/// Waits for a file that a script makes.
async fn there(file: &Path) {
    until(&format!("{}", file.display()), LIMIT, || std::future::ready(file.exists().then_some(()))).await;
}

fn one_unit(response: &Value) -> (String, String) {
    let all = units(&response["unitProgressData"]["unitProgresses"]);
    assert_eq!(all.len(), 1, "{response:#}");
    all[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_runs_its_outputs_come_back_and_its_secrets_stay_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = HarnessManager::start(dir.path()).await;
    let records = dir.path().join("records");
    let agent = manager.agent(dir.path(), &[("DELEGATE_RECORD_DIR", records.to_str().unwrap())]);
    let offered = manager.registered()[0]["supportedTaskTypes"].clone();
    assert!(offered.as_array().unwrap().contains(&json!(SHELL)), "{offered}");
    let said = agent.process.as_ref().unwrap().log_text();
    for part in ["SHELL_SCRIPT_TASK_NG", "Kryo 4.0.3 with class shapes of December 2023, not a live manager"]
    {
        assert!(said.contains(part), "{said}");
    }

    let mut package = manager.package("good", SHELL, Value::Null);
    let placeholder = manager.secret(&mut package, "sec1", "planted-value-1");
    let mut data = script(&format!(
        "echo \"stage $STAGE\"\necho \"secret {placeholder}\"\n[ '{placeholder}' = planted-value-1 ] || exit 9\nVERSION=\"1.4-$STAGE\"\nSEAL=\"sealed-$((40 + 2))\"\n"
    ));
    data["outputVars"] = json!(["VERSION"]);
    data["secretOutputVars"] = json!(["SEAL"]);
    data["environmentVariables"] = json!({"STAGE": "prod"});
    package["data"] = data;
    package["secrets"] = json!(["planted-value-1"]);
    let response = manager.run(package).await;
    assert_eq!(response["@"], "ShellScriptTaskResponseNG", "{response:#}");
    assert_eq!(
        (&response["status"], &response["errorMessage"]),
        (&json!("SUCCESS"), &Value::Null),
        "{response:#}"
    );
    let executed = &response["executeCommandResponse"];
    assert_eq!(executed["status"], "SUCCESS");
    let data = &executed["commandExecutionData"];
    assert_eq!((&data["@"], &data["expired"]), (&json!("ShellExecutionData"), &json!(false)));
    assert_eq!(
        data["sweepingOutputEnvVariables"],
        json!({"VERSION": "1.4-prod", "SEAL": "sealed-42"}),
        "{data:#}"
    );
    assert_eq!(one_unit(&response), ("Execute".to_owned(), "SUCCESS".to_owned()));
    let unit = &response["unitProgressData"]["unitProgresses"][0];
    assert!(
        unit["startTime"].as_u64().unwrap() > 0 && unit["endTime"].as_u64() >= unit["startTime"].as_u64(),
        "{unit}"
    );
    let lines = manager.lines("good", "Execute").await;
    assert!(lines.contains(&"stage prod".to_owned()), "{lines:?}");
    assert!(lines.contains(&"secret **************".to_owned()), "{lines:?}");
    assert!(!manager.all_lines().contains("planted-value-1"));
    manager.answered_once("good");

    // The recordings hold no secret, and the package among them is told by the command.
    let names: Vec<_> = std::fs::read_dir(&records).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for file in &names {
        let bytes = std::fs::read(file).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for secret in ["planted-value-1", "sealed-42", "log-token", "callback-token"] {
            assert!(!text.contains(secret), "{}: {secret}", file.display());
        }
    }
    let package = names.iter().find(|name| name.extension().is_some_and(|end| end == "json")).unwrap();
    let check = |args: &[&str]| {
        let mut command = std::process::Command::new(e2e::world::binary());
        let output = command.args(["harness", "check"]).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, told, _) = check(&[package.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    for part in
        ["would run  ShellScript", "on         the agent", "units      Execute", "secrets    clear-0, sec1"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    let other = dir.path().join("other.json");
    std::fs::write(&other, json!({"id": "t", "type": "HELM_COMMAND_TASK_NG", "data": {}}).to_string())
        .unwrap();
    let (code, told, _) = check(&[other.to_str().unwrap(), "--output", "json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["failure"]["code"]), (Some(1), &json!("HRN-004")), "{told:#}");
    std::fs::write(&other, "{\"id\": ").unwrap();
    let (code, _, said) = check(&[other.to_str().unwrap()]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("other.json") && said.contains("line 1"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failure_timeout_and_abort_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = HarnessManager::start(dir.path()).await;
    let _agent = manager.agent(dir.path(), &[]);
    let fails = manager.package("fails", SHELL, script("echo fine\necho broken by nothing >&2\nexit 3"));
    let response = manager.run(fails).await;
    assert_eq!(
        (&response["@"], &response["status"]),
        (&json!("ShellScriptTaskResponseNG"), &json!("FAILURE"))
    );
    assert_eq!(response["executeCommandResponse"]["status"], "FAILURE");
    let text = response["errorMessage"].as_str().unwrap();
    assert!(text.contains("status 3") && text.contains("broken by nothing"), "{text}");
    assert_eq!(one_unit(&response), ("Execute".to_owned(), "FAILURE".to_owned()));
    assert_eq!(manager.lines("fails", "Execute").await.iter().filter(|line| *line == "fine").count(), 1);

    let mark = dir.path().join("late");
    let mut late = manager.package("late", SHELL, script(&format!("sleep 600\ntouch {}", mark.display())));
    late["timeout"] = json!(3_000);
    let response = manager.run(late).await;
    assert_eq!(response["@"], "ErrorNotifyResponseData", "{response:#}");
    assert_eq!((&response["failureTypes"], &response["expired"]), (&json!(["TIMEOUT_ERROR"]), &json!(false)));
    assert!(response["exception"].is_null() && !response["errorMessage"].as_str().unwrap().is_empty());

    let (begun, pid) = (dir.path().join("begun"), dir.path().join("pid"));
    let text = format!("sleep 600 & echo $! > {}\ntouch {}\nwait", pid.display(), begun.display());
    manager.offer(manager.package("gone", SHELL, script(&text)));
    there(&begun).await;
    until("progress is told while it runs", LIMIT, || {
        let told = manager.progress("gone");
        let running = vec![("Execute".to_owned(), "RUNNING".to_owned())];
        std::future::ready(told.last().is_some_and(|last| units(last) == running).then_some(()))
    })
    .await;
    manager.abort("gone");
    let response = manager.answer("gone").await["response"].clone();
    assert_eq!(
        (&response["@"], &response["status"]),
        (&json!("ShellScriptTaskResponseNG"), &json!("FAILURE"))
    );
    assert_eq!(one_unit(&response).1, "FAILURE");
    let child: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    until("its child is gone", LIMIT, || {
        let runs = std::fs::read_to_string(format!("/proc/{child}/stat"))
            .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')));
        std::future::ready((!runs).then_some(()))
    })
    .await;
    assert!(!mark.exists());
    for task in ["fails", "late", "gone"] {
        manager.answered_once(task);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_neither_ends_a_script_nor_runs_it_twice_and_answers_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = HarnessManager::start(dir.path()).await;
    let health = format!("127.0.0.1:{}", free_port());
    let mut agent = manager.agent(dir.path(), &[("DELEGATE_HEALTH_LISTEN", &health)]);
    let place = dir.path().display();
    let mut package = manager.package("kill", SHELL, Value::Null);
    let placeholder = manager.secret(&mut package, "sec1", "planted-value-2");
    let mut data = script(&format!(
        "echo x >> {place}/ran\necho first\ntouch {place}/half\nwhile [ ! -e {place}/go ]; do sleep 0.05; done\necho 'last {placeholder}'\nRESULT=whole"
    ));
    data["outputVars"] = json!(["RESULT"]);
    package["data"] = data;
    manager.offer(package);
    there(&dir.path().join("half")).await;
    agent.kill9();
    // What the journal keeps of the package is sealed.
    for file in ["journal.db", "journal.db-wal"] {
        let bytes = std::fs::read(agent.dir.join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("planted-value-2") && !text.contains("encryptedValue"), "{file}");
    }
    std::fs::write(dir.path().join("go"), "").unwrap();
    manager.lose_acknowledgements(1);
    agent.launch();
    let response = manager.answer("kill").await["response"].clone();
    assert_eq!(response["status"], "SUCCESS", "{response:#}");
    let outputs = &response["executeCommandResponse"]["commandExecutionData"]["sweepingOutputEnvVariables"];
    assert_eq!(outputs, &json!({"RESULT": "whole"}));
    assert_eq!(std::fs::read_to_string(dir.path().join("ran")).unwrap(), "x\n");
    let lines = manager.lines("kill", "Execute").await;
    assert!(
        lines.contains(&"first".to_owned()) && lines.contains(&"last **************".to_owned()),
        "{lines:?}"
    );
    // The first acknowledgement was lost: it comes once more, the same, and then never again.
    until("the answer is repeated", LIMIT, || async { (manager.answers("kill") == 2).then_some(()) }).await;
    until("the agent has written down that the manager has it", LIMIT, || async {
        let said = reqwest::get(format!("http://{health}/api/metrics")).await.ok()?.text().await.ok()?;
        said.contains("tasks_currently_executing{delegate_name=\"zone-h\"} 0").then_some(())
    })
    .await;
    agent.kill9();
    // An answer that nobody acknowledged goes out again after a restart: the same bytes, made of what the journal keeps.
    manager.lose_acknowledgements(usize::MAX);
    agent.launch();
    let mut owed = manager.package("owed", SHELL, script("echo x >> owed-ran\nVERSION=owed"));
    owed["data"]["workingDirectory"] = json!(dir.path().display().to_string());
    owed["data"]["outputVars"] = json!(["VERSION"]);
    manager.offer(owed);
    until("it is answered", LIMIT, || async { (manager.answers("owed") > 0).then_some(()) }).await;
    agent.kill9();
    let before = manager.answers("owed");
    manager.lose_acknowledgements(0);
    // The form of the answer stands in the journal, not in the settings.
    let mut agent = manager.agent(dir.path(), &[("DELEGATE_FOREIGN_TASK_TYPES", "none")]);
    until("it is answered again", LIMIT, || async { (manager.answers("owed") > before).then_some(()) }).await;
    assert_eq!(manager.answer("owed").await["response"]["status"], "SUCCESS");
    manager.answered_once("owed");
    assert_eq!(std::fs::read_to_string(dir.path().join("owed-ran")).unwrap(), "x\n");
    agent.kill9();
    let _agent = manager.agent(dir.path(), &[]);
    let again = manager.package("after", SHELL, script("echo done"));
    assert_eq!(manager.run(again).await["status"], "SUCCESS");
    assert_eq!(manager.answers("kill"), 2);
    manager.answered_once("kill");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_runs_on_its_host_with_the_key_of_the_package() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(&dir.path().join("ssh"), 1).await;
    let mut manager = HarnessManager::start(dir.path()).await;
    let _agent = manager.agent(dir.path(), &[]);
    let key = std::fs::read_to_string(&sshd.client_key).unwrap();
    let host = sshd.hosts()[0].clone();
    let on_host = |key: &str, text: &str| {
        let mut data = script(text);
        data["executeOnDelegate"] = json!(false);
        data["host"] = json!(host);
        data["sshKeySpecDTO"] = ssh_login(&sshd);
        data["encryptionDetails"] = json!([detail("key", key)]);
        data["outputVars"] = json!(["WHERE"]);
        data
    };
    let text = "set -- $SSH_CONNECTION\necho \"as $(id -un)\"\nWHERE=\"$3:$4\"";
    let mut package = manager.package("there", SHELL, on_host(&key, text));
    package["capabilities"] = json!([{"capabilityType": "SOCKET", "hostName": host, "scheme": "ssh", "port": sshd.port.to_string()},
            {"capabilityType": "SELECTORS", "selectors": ["zone-h"], "selectorOrigin": "step"}]);
    let response = manager.run(package).await;
    assert_eq!(response["status"], "SUCCESS", "{response:#}");
    let outputs = &response["executeCommandResponse"]["commandExecutionData"]["sweepingOutputEnvVariables"];
    assert_eq!(outputs, &json!({"WHERE": format!("{host}:{}", sshd.port)}));
    assert!(manager.lines("there", "Execute").await.contains(&format!("as {}", sshd.user)));
    let verdicts = manager.reports("there")[0].clone();
    assert_eq!(verdicts[0]["criteria"], format!("ssh://{host}:{}", sshd.port), "{verdicts}");
    assert_eq!(
        (&verdicts[0]["validated"], &verdicts[1]["validated"]),
        (&json!(true), &json!(true)),
        "{verdicts}"
    );

    // A login that is refused lies between agent and target.
    let wrong = dir.path().join("wrong");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&wrong)
        .status();
    assert!(made.unwrap().success());
    let stranger =
        manager.package("stranger", SHELL, on_host(&std::fs::read_to_string(&wrong).unwrap(), "echo no"));
    let response = manager.run(stranger).await;
    assert_eq!(response["@"], "ErrorNotifyResponseData", "{response:#}");
    assert_eq!(response["failureTypes"], json!(["AUTHENTICATION"]));

    // A host that nobody reaches is told before the task is taken.
    let gone = e2e::wait::free_port();
    let mut package = manager.package("away", SHELL, on_host(&key, "echo no"));
    package["capabilities"] =
        json!([{"capabilityType": "SOCKET", "hostName": host, "scheme": "ssh", "port": gone.to_string()}]);
    manager.offer(package);
    let verdicts = manager.reported("away").await;
    assert_eq!(verdicts[0]["validated"], false, "{verdicts}");
    assert!(!manager.is_assigned("away") && manager.lines_now("away", "Execute").is_none());
    for task in ["there", "stranger"] {
        manager.answered_once(task);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_packages_are_answered_with_a_failure_and_start_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = HarnessManager::start(dir.path()).await;
    let _agent = manager.agent(dir.path(), &[]);
    let mark = dir.path().join("ran");
    let touch = format!("touch {}", mark.display());
    let mut bad: Vec<(&str, &str, Value)> = Vec::new();
    let mut data = script(&touch);
    data.as_object_mut().unwrap().remove("scriptType");
    bad.push(("missing", "HRN-003", data));
    let mut data = script(&touch);
    data["scriptType"] = json!("PERL");
    bad.push(("newer", "HRN-004", data));
    let mut data = script(&touch);
    data["environmentVariables"] = json!([1, 2]);
    bad.push(("type", "HRN-003", data));
    bad.push(("list", "HRN-003", json!([touch])));
    bad.push(("nothing", "HRN-003", Value::Null));
    let mut data = script(&touch);
    data["executeOnDelegate"] = json!(false);
    bad.push(("hostless", "HRN-007", data));
    let mut data = script(&format!("{touch}\necho ${{secretDelegate.obtain(\"absent\", 1)}}"));
    data["scriptType"] = json!("BASH");
    bad.push(("absent", "HRN-006", data));
    for (id, code, data) in bad {
        let response = manager.run(manager.package(id, SHELL, data)).await;
        assert_eq!(
            (&response["@"], &response["status"]),
            (&json!("ShellScriptTaskResponseNG"), &json!("FAILURE")),
            "{id}: {response:#}"
        );
        assert!(
            response["errorMessage"].as_str().unwrap().ends_with(&format!("[{code}]")),
            "{id}: {response:#}"
        );
        assert_eq!(one_unit(&response).1, "FAILURE", "{id}");
        manager.answered_once(id);
    }
    // A secret that does not open, and one of another secret manager.
    for (id, code, change) in [("broken", "HRN-006", json!("other key")), ("vault", "HRN-005", Value::Null)] {
        let mut package = manager.package(id, SHELL, Value::Null);
        let placeholder = manager.secret(&mut package, "sec1", "planted-value-3");
        let record = &mut package["secret_details"]["sec1"]["encryptedRecord"];
        match &change {
            Value::Null => record["encryptionType"] = json!("VAULT"),
            key => record["encryptionKey"] = key.clone(),
        }
        package["data"] = script(&format!("{touch}\necho {placeholder}"));
        let response = manager.run(package).await;
        let text = response["errorMessage"].as_str().unwrap();
        assert!(text.ends_with(&format!("[{code}]")) && text.contains("sec1"), "{text}");
        assert!(!text.contains("planted-value-3"));
    }
    assert!(!mark.exists(), "something was started");
    // Texts that no encoder likes: NUL, characters beyond the basic plane, ten megabytes.
    let text = "printf 'nul \\0 and \\360\\237\\230\\200 end\\n' >&2\nhead -c 10000000 /dev/zero | tr '\\0' a >&2\necho >&2\nprintf 'tail \\360\\237\\230\\200\\n' >&2\nOUT=$(printf 'smile \\360\\237\\230\\200')\nexit 5";
    let mut data = script(text);
    data["outputVars"] = json!(["OUT"]);
    let response = manager.run(manager.package("odd", SHELL, data)).await;
    assert_eq!(response["status"], "FAILURE");
    assert!(response["errorMessage"].as_str().unwrap().contains("tail 😀"), "{response:#}");
    let mut data =
        script("OUT=$(printf 'smile \\360\\237\\230\\200'; head -c 3000000 /dev/zero | tr '\\0' b)");
    data["outputVars"] = json!(["OUT"]);
    let answer = manager.run(manager.package("large", SHELL, data)).await;
    assert!(
        ["SUCCESS", "FAILURE"].contains(&answer["status"].as_str().unwrap_or_default()),
        "{}",
        answer["errorMessage"]
    );
    manager.answered_once("odd");
    manager.answered_once("large");
}
