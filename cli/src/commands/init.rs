//! `delegate init vm --host USER@HOST`: a first project for the reader's own host.

use crate::exit::{CliError, Exit};
use crate::output;
use std::path::{Path, PathBuf};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// A folder of entities and a pipeline that deploys to a host over SSH
    Vm(VmArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct VmArgs {
    /// Where to log in: USER@HOST or USER@HOST:PORT
    #[arg(long, value_name = "USER@HOST[:PORT]", value_parser = login)]
    host: Login,
    /// Folder to write; made, and refused if it holds files [default: delegate-HOST]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    user: String,
    host: String,
    port: u16,
}

fn login(text: &str) -> Result<Login, String> {
    let wrong = || "expected USER@HOST or USER@HOST:PORT".to_owned();
    let (user, rest) = text.split_once('@').ok_or_else(wrong)?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?)
        }
        _ => (rest, 22),
    };
    // The words go into YAML as they are.
    let plain = |text: &str, more: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    if !plain(user, "_.-") || !plain(host, "_.-:[]") {
        return Err(wrong());
    }
    Ok(Login { user: user.to_owned(), host: host.to_owned(), port })
}

/// Writes the folder and prints what to run next.
pub(crate) fn run(action: &Action) -> Result<Exit, CliError> {
    let Action::Vm(args) = action;
    let default = format!("delegate-{}", args.host.host.replace(['[', ']', ':'], "-").trim_matches('-'));
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(default));
    write(&dir, &args.host)?;
    let shown = dir.display();
    output::say(format!(
        "{shown} holds the connector, login, service, environment, infrastructure and pipeline. Next:\n"
    ));
    output::say(
        "  delegate secret set vm_ssh_key --file ~/.ssh/id_ed25519   # a private key that may log in there",
    );
    output::say(format!("  delegate apply {shown}"));
    output::say(format!("  delegate pipeline run {shown}/pipeline.yaml --follow"));
    Ok(Exit::Success)
}

fn write(dir: &Path, login: &Login) -> Result<(), CliError> {
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(CliError::usage(format!("{} holds files already", dir.display()))
            .hint("name another folder with --dir"));
    }
    std::fs::create_dir_all(dir).map_err(|e| CliError::file("made", dir, &e))?;
    for (name, text) in files(login) {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|e| CliError::file("written", &path, &e))?;
    }
    Ok(())
}

/// The files. Names are the same in every project, so that its parts are recognised in other ones.
fn files(login: &Login) -> [(&'static str, String); 6] {
    let Login { user, host, port } = login;
    [
        (
            "connector.yaml",
            format!(
                "# The host. `delegate connector test my_vm` tries the login and says what is missing.\nconnector:\n  name: my vm\n  identifier: my_vm\n  type: Pdc\n  spec:\n    hosts:\n      - hostname: \"{host}\"\n"
            ),
        ),
        (
            "login.yaml",
            format!(
                "# How to log in. The private key itself is set by `delegate secret set vm_ssh_key --file …` and never stands here.\nsecret:\n  type: SSHKey\n  name: vm login\n  identifier: vm_login\n  spec:\n    port: {port}\n    auth:\n      type: SSH\n      spec:\n        credentialType: KeyReference\n        spec:\n          userName: {user}\n          key: vm_ssh_key\n"
            ),
        ),
        (
            "service.yaml",
            "# What is deployed. An artifact and config files can be added below `spec`.\nservice:\n  name: my application\n  identifier: my_application\n  serviceDefinition:\n    type: Ssh\n    spec:\n      variables:\n        - name: greeting\n          type: String\n          value: hello\n".to_owned(),
        ),
        (
            "environment.yaml",
            "environment:\n  name: my environment\n  identifier: my_environment\n  type: PreProduction\n".to_owned(),
        ),
        (
            "infrastructure.yaml",
            format!(
                "# Where it runs.\ninfrastructureDefinition:\n  name: my hosts\n  identifier: my_hosts\n  environmentRef: my_environment\n  deploymentType: Ssh\n  type: Pdc\n  spec:\n    credentialsRef: vm_login\n    hosts:\n      - \"{host}\"\n"
            ),
        ),
        ("pipeline.yaml", PIPELINE.to_owned()),
    ]
}

/// Changes nothing but one small file in the home directory, and takes it back when something fails.
const PIPELINE: &str = r#"# Looks around on the host, writes a small file there and checks it. When a step fails, the rollback steps run.
pipeline:
  name: Deploy to my vm
  identifier: deploy_to_my_vm
  stages:
    - stage:
        name: Deploy
        identifier: Deploy
        type: Deployment
        spec:
          deploymentType: Ssh
          service:
            serviceRef: my_application
          environment:
            environmentRef: my_environment
            infrastructureDefinitions:
              - identifier: my_hosts
          execution:
            steps:
              - step:
                  type: Command
                  name: Look around
                  identifier: Look_around
                  timeout: 2m
                  spec:
                    onDelegate: false
                    commandUnits:
                      - commandUnit:
                          identifier: look
                          name: Look
                          type: Script
                          spec:
                            shell: Sh
                            source:
                              type: Inline
                              spec:
                                script: |
                                  echo "I am $(id -un) on $(hostname)"
                                  uptime
                                  df -h .
              - step:
                  type: Command
                  name: Deploy a file
                  identifier: Deploy_a_file
                  timeout: 2m
                  spec:
                    onDelegate: false
                    commandUnits:
                      - commandUnit:
                          identifier: write
                          name: Write
                          type: Script
                          spec:
                            shell: Sh
                            source:
                              type: Inline
                              spec:
                                script: |
                                  set -e
                                  if [ -f "$HOME/delegate-hello.txt" ]; then
                                    cp "$HOME/delegate-hello.txt" "$HOME/delegate-hello.txt.before"
                                  fi
                                  echo "<+serviceVariables.greeting> from run <+pipeline.sequenceId>" > "$HOME/delegate-hello.txt"
                                  cat "$HOME/delegate-hello.txt"
              - step:
                  type: Command
                  name: Check it
                  identifier: Check_it
                  timeout: 2m
                  spec:
                    onDelegate: false
                    commandUnits:
                      - commandUnit:
                          identifier: check
                          name: Check
                          type: Script
                          spec:
                            shell: Sh
                            source:
                              type: Inline
                              spec:
                                script: |
                                  grep "run <+pipeline.sequenceId>" "$HOME/delegate-hello.txt"
                                  rm -f "$HOME/delegate-hello.txt.before"
            rollbackSteps:
              - step:
                  type: Command
                  name: Put it back
                  identifier: Put_it_back
                  timeout: 2m
                  spec:
                    onDelegate: false
                    commandUnits:
                      - commandUnit:
                          identifier: restore
                          name: Restore
                          type: Script
                          spec:
                            shell: Sh
                            source:
                              type: Inline
                              spec:
                                script: |
                                  if [ -f "$HOME/delegate-hello.txt.before" ]; then
                                    mv "$HOME/delegate-hello.txt.before" "$HOME/delegate-hello.txt"
                                  else
                                    rm -f "$HOME/delegate-hello.txt"
                                  fi
        failureStrategies:
          - onFailure:
              errors:
                - AllErrors
              action:
                type: StageRollback
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_read() {
        assert_eq!(login("u@h"), Ok(Login { user: "u".into(), host: "h".into(), port: 22 }));
        assert_eq!(
            login("u@h.example:2222"),
            Ok(Login { user: "u".into(), host: "h.example".into(), port: 2222 })
        );
        for wrong in ["h", "@h", "u@", "u@h:x", "u@h:0", "u@h\n", "u: x@h", "-o@h"] {
            assert!(login(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_written_is_accepted() {
        let login = login("deploy@box.example:2222").unwrap();
        for (name, text) in files(&login) {
            let parsed = pipeline::entities::parse_entities(name, &text);
            assert!(parsed.is_ok(), "{name}: {parsed:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &login).unwrap();
        assert_eq!(write(dir.path(), &login).unwrap_err().exit, Exit::Usage);
    }
}
