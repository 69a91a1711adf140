//! Programs on hosts for those who speak a protocol with them: Git over SSH.

use crate::config::Settings;
use crate::error::Error;
use crate::session::{Address, Event, Exec, KnownHosts, Session, connect, login_key};
use bytes::Bytes;
use executor_api::StepError;
use futures::future::BoxFuture;
use proto::task::SshTarget;
use sources::{Access, Conversation, Ended};
use std::sync::Arc;

/// The most that is kept of what a program says beside its output.
const MAX_WORDS: usize = 4096;

/// Opens each program on a connection of its own: Git servers close theirs when a program has ended. Keys of hosts are
/// judged and learned as for every other login of this agent.
pub(crate) struct Tunnel {
    pub(crate) settings: Arc<Settings>,
    pub(crate) known: Arc<dyn KnownHosts>,
}

impl sources::Tunnel for Tunnel {
    fn open<'a>(
        &'a self,
        access: &'a Access,
        target: &'a SshTarget,
        command: &'a str,
        environment: &'a [(&'a str, &'a str)],
    ) -> BoxFuture<'a, Result<Box<dyn Conversation>, StepError>> {
        Box::pin(async move {
            let host = format!("{}:{}", target.host, target.port);
            let opened = async {
                let key = Arc::new(login_key(target, access.secrets())?);
                let address = Address::of(target, access.aliases());
                let known = Arc::clone(&self.known);
                let session = connect(&self.settings, target, &address, &key, known, &mut |_| {}).await?;
                if let Some(learned) = &session.verdict.learned {
                    access.learned().note(learned);
                }
                let exec = session.program(command, environment).await?;
                Ok::<_, Error>((session, exec))
            };
            let (session, exec) = opened.await.map_err(|error| error.into_step(&host))?;
            let talk = Talk { exec, words: Vec::new(), code: None, host, _session: session };
            Ok(Box::new(talk) as Box<dyn Conversation>)
        })
    }
}

struct Talk {
    exec: Exec,
    words: Vec<u8>,
    code: Option<u32>,
    host: String,
    /// The connection ends with it.
    _session: Session,
}

impl Conversation for Talk {
    fn send(&mut self, input: Vec<u8>) {
        self.exec.feed(input.into());
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Ended>> {
        Box::pin(async move {
            loop {
                match self.exec.next().await {
                    Event::Stdout(data) => return Ok(Some(data)),
                    Event::Stderr(data) => {
                        let room = MAX_WORDS.saturating_sub(self.words.len());
                        self.words.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                    }
                    Event::Exit(code) => self.code = Some(code),
                    Event::Closed => break,
                }
            }
            match self.code {
                Some(0) => Ok(None),
                Some(code) if self.words.is_empty() => {
                    Err(Ended::Failed(format!("git-upload-pack ended with exit code {code}")))
                }
                Some(_) => Err(Ended::Failed(String::from_utf8_lossy(&self.words).into_owned())),
                None => {
                    let why = "the channel ended without an exit status".to_owned();
                    let lost = Error::Lost { host: self.host.clone(), why };
                    Err(Ended::Lost(lost.into_step(&self.host)))
                }
            }
        })
    }
}
