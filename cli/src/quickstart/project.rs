//! What quickstart deploys and how: releases, entities and the pipeline, written to files that can be read and changed.

use super::target::output_of;
use crate::exit::CliError;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The Verify step's window is a minute; the rehearsal makes it two seconds.
const REHEARSAL: u32 = 30;

/// The written project.
pub(super) struct Project {
    pub(super) entities: Vec<PathBuf>,
    pub(super) pipeline: PathBuf,
    pub(super) client_key: PathBuf,
    pub(super) app_port: u16,
    pub(super) rehearse: Option<u32>,
}

/// What the files are made from.
pub(super) struct Facts<'a> {
    pub(super) user: &'a str,
    pub(super) ssh_port: u16,
    pub(super) app_dir: &'a Path,
    pub(super) app_port: u16,
    pub(super) artifacts: &'a str,
    pub(super) prometheus: Option<&'a str>,
    pub(super) version: &'a str,
}

/// Control script of the application, as many applications have one.
const CONTROL: &str = r#"#!/bin/sh
# start | stop
dir=$(cd "$(dirname "$0")/.." && pwd)
case "$1" in
start)
  mkdir -p "$dir/run"
  rm -f "$dir/run/ready"
  nohup "@EXE@" quickstart-app --dir "$dir" --port @PORT@ > "$dir/run/log" 2>&1 < /dev/null &
  echo $! > "$dir/run/pid"
  tries=0
  while [ ! -f "$dir/run/ready" ]; do
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then
      echo "the application does not start:" >&2
      cat "$dir/run/log" >&2
      exit 1
    fi
    sleep 0.05
  done
  ;;
stop)
  pid=$(cat "$dir/run/pid" 2>/dev/null) || exit 0
  kill "$pid" 2>/dev/null
  tries=0
  # It removes the mark once its port is free; some machines keep an ended process in the list for seconds.
  while [ -f "$dir/run/ready" ] && kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.05
  done
  rm -f "$dir/run/pid" "$dir/run/ready"
  ;;
esac
"#;

/// Builds `artifacts/releases/myapp-VERSION.tar.gz`.
pub(super) async fn write_release(
    dir: &Path,
    exe: &Path,
    version: &str,
    status: &str,
    port: u16,
    path: &str,
) -> Result<(), CliError> {
    let tree = dir.join("build").join(version);
    let control = CONTROL.replace("@EXE@", &exe.display().to_string()).replace("@PORT@", &port.to_string());
    for (name, text) in [
        ("bin/myapp", control.as_str()),
        ("VERSION", version),
        ("STATUS", status),
        ("conf/app.properties", "greeting=hello\n"),
    ] {
        write_file(&tree.join(name), text)?;
    }
    let releases = dir.join("artifacts/releases");
    std::fs::create_dir_all(&releases).map_err(|e| CliError::file("made", &releases, &e))?;
    let mut command = Command::new("tar");
    let archive = releases.join(format!("myapp-{version}.tar.gz"));
    command.env("PATH", path).arg("-czf").arg(archive).arg("-C").arg(&tree).arg(".");
    output_of("tar", command).await.map(drop)
}

/// Puts a release on the sample host and starts it, as somebody did before our time.
pub(super) async fn install(dir: &Path, version: &str, app_dir: &Path, path: &str) -> Result<(), CliError> {
    std::fs::create_dir_all(app_dir).map_err(|e| CliError::file("made", app_dir, &e))?;
    let mut command = Command::new("tar");
    let archive = dir.join("artifacts/releases").join(format!("myapp-{version}.tar.gz"));
    command.env("PATH", path).arg("-xzf").arg(archive).arg("-C").arg(app_dir);
    output_of("tar", command).await?;
    control(app_dir, "start", path).await
}

/// Stops the application on the sample host.
pub(super) async fn stop(app_dir: &Path, path: &str) {
    if let Err(error) = control(app_dir, "stop", path).await {
        tracing::debug!(%error, "the application cannot be stopped");
    }
}

async fn control(app_dir: &Path, action: &str, path: &str) -> Result<(), CliError> {
    let mut command = Command::new("sh");
    command.arg(app_dir.join("bin/myapp")).arg(action).env("PATH", path);
    // The application inherits the output; a pipe would stay open as long as it runs.
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let status = command.status().await;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CliError::failed(format!("the application's `{action}` failed ({status})"))),
        Err(error) => Err(CliError::failed(format!("sh cannot be started: {error}"))),
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), CliError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| CliError::file("made", parent, &e))?;
    }
    std::fs::write(path, text).map_err(|e| CliError::file("written", path, &e))
}

/// Writes entities and pipeline to `dir/project`.
pub(super) fn write(dir: &Path, client_key: PathBuf, facts: &Facts<'_>) -> Result<Project, CliError> {
    let project = dir.join("project");
    let (entities, pipeline) = (project.join("entities.yaml"), project.join("pipeline.yaml"));
    write_file(&entities, &entities_text(facts))?;
    write_file(&pipeline, &pipeline_text(dir, facts))?;
    Ok(Project {
        entities: vec![entities],
        pipeline,
        client_key,
        app_port: facts.app_port,
        rehearse: facts.prometheus.map(|_| REHEARSAL),
    })
}

fn entities_text(facts: &Facts<'_>) -> String {
    let Facts { user, ssh_port, artifacts, .. } = facts;
    let mut text = format!(
        r#"connector:
  name: quickstart artifacts
  identifier: quickstart_artifacts
  type: Artifactory
  spec:
    artifactoryServerUrl: {artifacts}
    auth:
      type: Anonymous
---
secret:
  type: SSHKey
  name: quickstart login
  identifier: quickstart_login
  spec:
    port: {ssh_port}
    auth:
      type: SSH
      spec:
        credentialType: KeyReference
        spec:
          userName: {user}
          key: quickstart_key
---
service:
  name: sample application
  identifier: sample_application
  serviceDefinition:
    type: Ssh
    spec:
      configFiles:
        - configFile:
            identifier: properties
            spec:
              store:
                type: Inline
                spec:
                  path: app.properties
                  content: |
                    greeting=hello from the deployment
---
environment:
  name: quickstart
  identifier: quickstart
  type: PreProduction
---
infrastructureDefinition:
  name: quickstart host
  identifier: quickstart_host
  environmentRef: quickstart
  deploymentType: Ssh
  type: Pdc
  spec:
    credentialsRef: quickstart_login
    hosts:
      - 127.0.0.1
"#
    );
    if let Some(url) = facts.prometheus {
        text.push_str(&format!(
            "---\nconnector:\n  name: quickstart prometheus\n  identifier: quickstart_prometheus\n  type: Prometheus\n  spec:\n    url: {url}\n"
        ));
    }
    text
}

/// One Command step with one unit.
fn command(identifier: &str, name: &str, unit: &str) -> String {
    let unit: String = unit.lines().map(|line| format!("            {line}\n")).collect();
    format!(
        "- step:\n    type: Command\n    name: {name}\n    identifier: {identifier}\n    timeout: 1m\n    spec:\n      onDelegate: false\n      commandUnits:\n        - commandUnit:\n{unit}"
    )
}

fn script(identifier: &str, text: &str) -> String {
    let text: String = text.lines().map(|line| format!("        {line}\n")).collect();
    format!(
        "identifier: {identifier}\nname: {identifier}\ntype: Script\nspec:\n  shell: Sh\n  source:\n    type: Inline\n    spec:\n      script: |\n{text}"
    )
}

fn pipeline_text(dir: &Path, facts: &Facts<'_>) -> String {
    let app = facts.app_dir.display();
    let (backups, downloads) = (dir.join("host/backups"), dir.join("host/downloads"));
    let (backups, downloads) = (backups.display(), downloads.display());
    let (port, version) = (facts.app_port, facts.version);
    let mut steps = vec![
        command(
            "Backup",
            "Back up the running version",
            &script(
                "backup",
                &format!(
                    "set -e\nmkdir -p \"{backups}\" \"{downloads}\"\nrm -rf \"{backups}/last\"\ncp -R \"{app}\" \"{backups}/last\"\necho \"version $(cat {app}/VERSION) is kept in {backups}/last\""
                ),
            ),
        ),
        format!(
            "- step:\n    type: ArtifactoryDownload\n    name: Download the release\n    identifier: Download\n    timeout: 1m\n    spec:\n      connectorRef: quickstart_artifacts\n      repository: releases\n      artifactPath: myapp-<+pipeline.variables.version>.tar.gz\n      targetPath: {downloads}/\n"
        ),
        command(
            "Install",
            "Stop and install",
            &script(
                "install",
                &format!(
                    "set -e\nsh \"{app}/bin/myapp\" stop\ntar -xzf \"{downloads}/myapp-<+pipeline.variables.version>.tar.gz\" -C \"{app}\"\necho \"version $(cat {app}/VERSION) is installed\""
                ),
            ),
        ),
        command(
            "Copy_Config",
            "Copy the configuration",
            &format!(
                "identifier: copy\nname: copy\ntype: Copy\nspec:\n  sourceType: Config\n  destinationPath: {app}/conf/\n"
            ),
        ),
        command(
            "Start",
            "Start",
            &script(
                "start",
                &format!("sh \"{app}/bin/myapp\" start && echo \"started with pid $(cat {app}/run/pid)\""),
            ),
        ),
        format!(
            "- step:\n    type: Http\n    name: Health check\n    identifier: Health_Check\n    timeout: 30s\n    spec:\n      url: http://127.0.0.1:{port}/health\n      method: GET\n      headers: []\n      assertion: <+json.select(\"status\", <+httpResponseBody>)> == \"UP\" && <+json.select(\"version\", <+httpResponseBody>)> == \"<+pipeline.variables.version>\"\n"
        ),
    ];
    if facts.prometheus.is_some() {
        // Prometheus first looks at its targets some five seconds after its start; a check of nothing would say nothing.
        steps.push(format!(
            "- step:\n    type: Http\n    name: Wait for the first measurements\n    identifier: First_Measurements\n    timeout: 30s\n    spec:\n      url: http://127.0.0.1:{port}/measured\n      method: GET\n      headers: []\n      assertion: <+httpResponseCode> == 200\n"
        ));
        steps.push(
            "- step:\n    type: Verify\n    name: Watch the errors for a minute\n    identifier: Verify\n    timeout: 5m\n    spec:\n      type: Prometheus\n      spec:\n        connectorRef: quickstart_prometheus\n        metricName: errors\n        query: sum(last_over_time(app_errors[5s]))\n        threshold:\n          type: Absolute\n          spec:\n            value: 5\n      duration: 1m\n".to_owned(),
        );
    }
    let rollback = command(
        "Restore",
        "Bring the old version back",
        &script(
            "restore",
            &format!(
                "set -e\nsh \"{app}/bin/myapp\" stop\nrm -rf \"{app}\"\ncp -R \"{backups}/last\" \"{app}\"\nrm -rf \"{app}/run\"\nsh \"{app}/bin/myapp\" start\necho \"version $(cat {app}/VERSION) is back\""
            ),
        ),
    );
    let indent = |text: &str| text.lines().map(|line| format!("              {line}\n")).collect::<String>();
    format!(
        r#"# Backup, download, install, configuration, start, health check; when a step fails, the backup is restored.
pipeline:
  name: Quickstart
  identifier: quickstart
  variables:
    - name: version
      type: String
      value: {version}
  stages:
    - stage:
        name: Deploy
        identifier: Deploy
        type: Deployment
        spec:
          deploymentType: Ssh
          service:
            serviceRef: sample_application
          environment:
            environmentRef: quickstart
            infrastructureDefinitions:
              - identifier: quickstart_host
          execution:
            steps:
{}            rollbackSteps:
{}        failureStrategies:
          - onFailure:
              errors:
                - AllErrors
              action:
                type: StageRollback
"#,
        steps.iter().map(|step| indent(step)).collect::<String>(),
        indent(&rollback)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_accepted_with_and_without_prometheus() {
        let dir = tempfile::tempdir().unwrap();
        for prometheus in [None, Some("http://127.0.0.1:9090")] {
            let facts = Facts {
                user: "me",
                ssh_port: 2222,
                app_dir: Path::new("/srv/myapp"),
                app_port: 8080,
                artifacts: "http://127.0.0.1:1/artifactory",
                prometheus,
                version: "2.0.0",
            };
            let project = write(dir.path(), dir.path().join("key"), &facts).unwrap();
            assert_eq!(project.rehearse.is_some(), prometheus.is_some());
            for file in project.entities.iter().chain([&project.pipeline]) {
                let text = std::fs::read_to_string(file).unwrap();
                let parsed = pipeline::entities::parse_entities("f", &text);
                assert!(parsed.is_ok(), "{parsed:?}\n{text}");
            }
        }
    }
}
