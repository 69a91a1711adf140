//! COMMAND_TASK_NG of a Harness manager over real sshd: units under the package's own names, files, outputs, failures, a kill in the
//! middle.

use crate::harness_manager::{HarnessManager, LIMIT, detail, ssh_login, units};
use e2e::peers::sshd::Sshd;
use e2e::wait::until;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const COMMAND: &str = "COMMAND_TASK_NG";

struct World {
    sshd: Sshd,
    manager: HarnessManager,
    /// Hosts' logins may write here.
    place: PathBuf,
    dir: tempfile::TempDir,
}

impl World {
    async fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let sshd = Sshd::start(&dir.path().join("ssh"), 2).await;
        let manager = HarnessManager::start(dir.path()).await;
        let place = dir.path().join("place");
        std::fs::create_dir_all(&place).unwrap();
        for folder in [dir.path(), &place] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        World { sshd, manager, place, dir }
    }

    fn script(&self, name: &str, text: &str) -> Value {
        json!({"name": name, "script": text, "command": text, "scriptType": "BASH", "workingDirectory": self.place.display().to_string(),
            "tailFilePatterns": [], "commandUnitType": "Script", "destinationPath": null})
    }

    /// A command in the shape of December 2023 on the host number `host`, between `Init` and `Cleanup`.
    fn command(&self, host: usize, inner: &[Value]) -> Value {
        let plain = |name: &str, kind: &str| json!({"name": name, "commandUnitType": kind, "workingDirectory": null, "destinationPath": null});
        let mut all = vec![plain("Initialize", "Init")];
        all.extend_from_slice(inner);
        all.push(plain("Clean up", "Cleanup"));
        let host = self.sshd.hosts()[host].clone();
        let key = std::fs::read_to_string(&self.sshd.client_key).unwrap();
        json!({
            "accountId": "acct1", "executionId": "q8Zr", "executeOnDelegate": false, "outputVariables": [], "secretOutputVariables": [],
            "environmentVariables": {}, "artifactDelegateConfig": null, "fileDelegateConfig": {"stores": []}, "sessionTimeout": 600_000,
            "commandUnits": all, "host": host, "disableEvaluateExportVariable": false,
            "sshInfraDelegateConfig": {"hosts": [host], "connectorType": "Pdc",
                "physicalDataCenterConnectorDTO": {"hosts": [{"hostname": host, "hostAttributes": {}}], "delegateSelectors": []},
                "sshKeySpecDto": ssh_login(&self.sshd),
                "encryptionDataDetails": [detail("key", &key)]},
        })
    }

    async fn there(&self, name: &str) {
        let file = self.place.join(name);
        until(name, LIMIT, || std::future::ready(file.exists().then_some(()))).await;
    }
}

fn progress(response: &Value) -> Vec<(String, String)> {
    units(&response["unitProgressData"]["unitProgresses"])
}

fn expected(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(name, status)| ((*name).to_owned(), (*status).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn units_run_on_their_host_under_the_names_of_the_package() {
    let mut world = World::start().await;
    let _agent = world.manager.agent(world.dir.path(), &[]);
    let place = world.place.display().to_string();
    let mut package =
        world.manager.package("good", "COMMAND_TASK_NG_WITH_OUTPUT_VARIABLE_SECRETS", Value::Null);
    let placeholder = world.manager.secret(&mut package, "db", "planted-db-value");
    let copy = json!({"name": "Copy config", "commandUnitType": "Copy", "sourceType": "CONFIG", "destinationPath": place, "workingDirectory": null});
    let mut tailed = world.script("deploy", "cat shop.conf\necho \"stage $STAGE\"\necho started > shop.log\nsleep 1\nBUILD=77\nSEAL=sealed-$((40 + 2))");
    tailed["tailFilePatterns"] = json!([{"filePath": format!("{place}/shop.log"), "pattern": "started"}]);
    let mut data =
        world.command(0, &[copy, tailed, world.script("check", "[ -f shop.conf ] && echo 'there'")]);
    data["fileDelegateConfig"] = json!({"stores": [{"type": "HARNESS", "configFiles": [
        {"fileName": "shop.conf", "fileContent": format!("password={placeholder}\n"), "encrypted": false}]}]});
    data["environmentVariables"] = json!({"STAGE": "prod"});
    data["outputVariables"] = json!(["BUILD"]);
    data["secretOutputVariables"] = json!(["SEAL"]);
    package["data"] = data;
    package["secrets"] = json!(["planted-db-value"]);
    let host = world.sshd.hosts()[0].clone();
    package["capabilities"] = json!([{"capabilityType": "NG_SSH_HOST_CONNECTION", "host": host,
        "sshInfraDelegateConfig": {"sshKeySpecDto": {"port": world.sshd.port, "auth": {"type": "SSH"}}}}]);
    let response = world.manager.run(package).await;
    assert_eq!(
        (&response["@"], &response["status"]),
        (&json!("CommandTaskResponse"), &json!("SUCCESS")),
        "{response:#}"
    );
    assert_eq!((&response["host"], &response["errorMessage"]), (&json!(host), &Value::Null));
    let names = ["Initialize", "Copy config", "deploy", "check", "Clean up"];
    assert_eq!(progress(&response), expected(&names.map(|name| (name, "SUCCESS"))), "{response:#}");
    let outputs = &response["executeCommandResponse"]["commandExecutionData"]["sweepingOutputEnvVariables"];
    assert_eq!(outputs, &json!({"BUILD": "77", "SEAL": "sealed-42"}));
    assert_eq!(
        std::fs::read_to_string(world.place.join("shop.conf")).unwrap(),
        "password=planted-db-value\n"
    );
    let lines = world.manager.lines("good", "deploy").await;
    assert!(
        lines.contains(&"password=**************".to_owned()) && lines.contains(&"stage prod".to_owned()),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line.contains("started")), "{lines:?}");
    for unit in names {
        world.manager.lines("good", unit).await;
    }
    assert!(!world.manager.all_lines().contains("planted-db-value"));
    assert_eq!(world.manager.reports("good")[0][0]["criteria"], format!("{host}:{}", world.sshd.port));
    world.manager.answered_once("good");

    // Files that the manager has fetched from Git itself.
    let copy = json!({"name": "Copy files", "commandUnitType": "Copy", "sourceType": "CONFIG", "destinationPath": place, "workingDirectory": null});
    let mut data = world.command(1, &[copy]);
    data["fileDelegateConfig"] = json!({"stores": [{"type": "GIT_FETCHED", "identifier": "settings", "configFiles": [
        {"fileName": "git.conf", "fileContent": "level=info\n", "encrypted": false}]}]});
    let package = world.manager.package("fetched", "COMMAND_TASK_NG_WITH_GIT_CONFIGS", data);
    let response = world.manager.run(package).await;
    assert_eq!(response["status"], "SUCCESS", "{response:#}");
    assert_eq!(std::fs::read_to_string(world.place.join("git.conf")).unwrap(), "level=info\n");
    world.manager.answered_once("fetched");

    // A script that fails is the last; the host is cleaned up.
    let data = world
        .command(1, &[world.script("breaks", "echo no >&2\nexit 4"), world.script("never", "touch never")]);
    let response = world.manager.run(world.manager.package("fails", COMMAND, data)).await;
    assert_eq!(
        (&response["@"], &response["status"]),
        (&json!("CommandTaskResponse"), &json!("FAILURE")),
        "{response:#}"
    );
    assert!(response["errorMessage"].as_str().unwrap().contains('4'), "{response:#}");
    let told = progress(&response);
    assert!(told.contains(&("breaks".to_owned(), "FAILURE".to_owned())), "{told:?}");
    assert!(!told.iter().any(|(name, status)| name == "never" && status == "SUCCESS"), "{told:?}");
    assert!(!world.place.join("never").exists());

    let mut late =
        world.manager.package("late", COMMAND, world.command(1, &[world.script("sleeps", "sleep 600")]));
    late["timeout"] = json!(4_000);
    let response = world.manager.run(late).await;
    assert_eq!(
        (&response["@"], &response["failureTypes"]),
        (&json!("ErrorNotifyResponseData"), &json!(["TIMEOUT_ERROR"])),
        "{response:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_goes_on_with_a_command_and_an_abort_ends_it() {
    let mut world = World::start().await;
    let mut agent = world.manager.agent(world.dir.path(), &[]);
    let text = "echo x >> ran\necho first\ntouch half\nwhile [ ! -e go ]; do sleep 0.05; done\necho last\nRESULT=whole";
    let mut data = world.command(0, &[world.script("work", text)]);
    data["outputVariables"] = json!(["RESULT"]);
    world.manager.offer(world.manager.package("kill", COMMAND, data));
    world.there("half").await;
    agent.kill9();
    std::fs::write(world.place.join("go"), "").unwrap();
    agent.launch();
    let response = world.manager.answer("kill").await["response"].clone();
    assert_eq!(response["status"], "SUCCESS", "{response:#}");
    assert_eq!(
        response["executeCommandResponse"]["commandExecutionData"]["sweepingOutputEnvVariables"],
        json!({"RESULT": "whole"})
    );
    assert_eq!(std::fs::read_to_string(world.place.join("ran")).unwrap(), "x\n");
    let lines = world.manager.lines("kill", "work").await;
    assert!(lines.contains(&"first".to_owned()) && lines.contains(&"last".to_owned()), "{lines:?}");
    world.manager.answered_once("kill");

    let data = world.command(1, &[world.script("waits", "touch waits\nsleep 600")]);
    world.manager.offer(world.manager.package("gone", COMMAND, data));
    world.there("waits").await;
    world.manager.abort("gone");
    let response = world.manager.answer("gone").await["response"].clone();
    assert_eq!(
        (&response["@"], &response["status"]),
        (&json!("CommandTaskResponse"), &json!("FAILURE")),
        "{response:#}"
    );
    assert!(progress(&response).contains(&("waits".to_owned(), "FAILURE".to_owned())), "{response:#}");
    world.manager.answered_once("gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_commands_are_answered_with_a_failure_and_reach_no_host() {
    let mut world = World::start().await;
    let _agent = world.manager.agent(world.dir.path(), &[]);
    let fine = || world.command(0, &[world.script("touch", "touch ran")]);
    let mut winrm = fine();
    winrm["winRmInfraDelegateConfig"] = json!({"hosts": ["h"]});
    let mut unit = fine();
    unit["commandUnits"][1]["commandUnitType"] = json!("Teleport");
    let mut nameless = fine();
    nameless["commandUnits"][1].as_object_mut().unwrap().remove("name");
    let mut hostless = fine();
    hostless["host"] = Value::Null;
    let mut password = fine();
    password["sshInfraDelegateConfig"]["sshKeySpecDto"]["auth"]["spec"]["credentialType"] = json!("Password");
    let mut keyless = fine();
    keyless["sshInfraDelegateConfig"]["encryptionDataDetails"] = json!([]);
    let mut artifact = fine();
    artifact["commandUnits"][1] =
        json!({"name": "get", "commandUnitType": "Download Artifact", "destinationPath": "/tmp"});
    let mut local = fine();
    local["executeOnDelegate"] = json!(true);
    let mut units_text = fine();
    units_text["commandUnits"] = json!("all of them");
    for (id, code, data) in [
        ("winrm", "HRN-004", winrm),
        ("unit", "HRN-004", unit),
        ("nameless", "HRN-003", nameless),
        ("hostless", "HRN-007", hostless),
        ("password", "HRN-004", password),
        ("keyless", "HRN-006", keyless),
        ("artifact", "HRN-007", artifact),
        ("local", "HRN-004", local),
        ("text", "HRN-003", units_text),
    ] {
        let response = world.manager.run(world.manager.package(id, COMMAND, data)).await;
        assert_eq!(
            (&response["@"], &response["status"]),
            (&json!("CommandTaskResponse"), &json!("FAILURE")),
            "{id}: {response:#}"
        );
        let text = response["errorMessage"].as_str().unwrap();
        assert!(text.ends_with(&format!("[{code}]")), "{id}: {text}");
        assert!(progress(&response).iter().any(|(_, status)| status == "FAILURE"), "{id}: {response:#}");
        world.manager.answered_once(id);
    }
    assert!(!world.place.join("ran").exists());
}
