//! `delegate connector test` for an SSH login: how far it comes, and how long each stage takes.

use crate::SshExecutor;
use crate::error::Error;
use crate::session::{Address, KnownHosts, Stage, connect, login_key};
use executor_api::StepContext;
use proto::result::TestStage;
use proto::task::SshTarget;
use std::sync::Arc;
use tokio::time::Instant;

/// A test learns no host key.
struct ReadOnly(Arc<dyn KnownHosts>);

impl KnownHosts for ReadOnly {
    fn known(&self, host: &str) -> Vec<String> {
        self.0.known(host)
    }
    fn learn(&self, _host: &str, _key: &str) -> std::io::Result<()> {
        Ok(())
    }
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Dns => "dns",
        Stage::Tcp => "tcp",
        Stage::Kex => "kex",
        Stage::HostKey => "hostKey",
        Stage::Auth => "auth",
    }
}

impl SshExecutor {
    /// Connects once, on a connection of its own, runs `true` and opens SFTP. Changes nothing on the host and learns no
    /// key. The stages are `dns`, `tcp`, `kex`, `hostKey`, `auth`, `channel`, `sftp`; the last one is the failed one.
    ///
    /// **Cancel**: safe at any point. **Repeat**: safe.
    pub async fn test_connection(&self, target: &SshTarget, cx: &StepContext) -> Vec<TestStage> {
        let mut marks: Vec<(&'static str, Instant)> = Vec::new();
        let mut message = String::new();
        let result = self.stages(target, cx, &mut marks, &mut message).await;
        let end = Instant::now();
        let mut stages: Vec<TestStage> = marks
            .iter()
            .enumerate()
            .map(|(n, (stage, began))| {
                let next = marks.get(n + 1).map_or(end, |(_, next)| *next);
                TestStage {
                    stage: (*stage).to_owned(),
                    duration_ms: u64::try_from(next.duration_since(*began).as_millis()).unwrap_or(u64::MAX),
                    ok: true,
                    message: if *stage == "hostKey" { message.clone() } else { String::new() },
                    hint: None,
                }
            })
            .collect();
        let Err(error) = result else { return stages };
        let error = error.into_step(&format!("{}:{}", target.host, target.port));
        if stages.is_empty() {
            stages.push(TestStage { stage: "auth".to_owned(), ..TestStage::default() });
        }
        if let Some(last) = stages.last_mut() {
            last.ok = false;
            last.message = error.what;
            last.hint = error.hint;
        }
        stages
    }

    async fn stages(
        &self,
        target: &SshTarget,
        cx: &StepContext,
        marks: &mut Vec<(&'static str, Instant)>,
        message: &mut String,
    ) -> Result<(), Error> {
        let key = Arc::new(login_key(target, cx.secrets.as_ref())?);
        let address = Address::of(target, &cx.aliases);
        let known = Arc::new(ReadOnly(self.shared.pool.known()));
        let mut mark = |stage: Stage| marks.push((name(stage), Instant::now()));
        let session = connect(&self.shared.settings, target, &address, &key, known, &mut mark).await?;
        message.clone_from(&session.verdict.fingerprint);
        marks.push(("channel", Instant::now()));
        let exec = session.exec(crate::session::Use::Short, "{\nprintf ok\n}\n".into()).await?;
        let output = exec.collect(4096).await?;
        if !output.ends_with(b"ok") {
            return Err(Error::Protocol { what: "the login shell did not run /bin/sh".into() });
        }
        marks.push(("sftp", Instant::now()));
        let (sftp, _permit) = session.sftp().await?;
        sftp.close().await.unwrap_or_default();
        Ok(())
    }
}
