//! Command steps and host scripts over SSH; the only crate that names russh.
//!
//! ```text
//! SshExecutor ─ check ─► spec
//!             ─ run ───► command (units in order) ─► follow ─► holder (sh on the host)
//!             │                                   └► transfer ─► SFTP
//!             └ recover ► look: Running / Ended / NeverStarted / Vanished
//!                              all over session::Pool: one connection per (host, user, key)
//! ```
//! A script belongs to its host, not to the connection: it is started under a holder that outlives agent and network,
//! and followed by offset. So a lost connection, a restart of the agent and a full log pipeline are all the same case.

mod cancel;
mod cleanup;
mod command;
mod config;
mod connector;
mod error;
mod follow;
mod holder;
mod leftovers;
mod memory;
mod outputs;
mod script;
mod session;
mod spec;
mod talk;
mod transfer;
mod tunnel;

pub use config::Settings;
pub use session::{KnownHosts, KnownHostsFile};

use command::Job;
use error::Error;
use executor_api::{
    Executor, NoProbe, Plan, Recovery, SpecFault, StepContext, StepError, StepOutput, TransportProbe,
};
use holder::Found;
use leftovers::Leftovers;
use memory::Memory;
use proto::task::{CommandSpec, CommandUnit};
use session::Pool;
use std::collections::VecDeque;
use std::sync::Arc;

/// The executor of Command steps. One per agent: it owns the connections that all steps share.
pub struct SshExecutor {
    shared: Shared,
}

pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) pool: Pool,
    pub(crate) probe: Arc<dyn TransportProbe>,
    pub(crate) leftovers: Leftovers,
    pub(crate) client: sources::Client,
}

impl SshExecutor {
    /// An executor. `client` downloads artifacts and config files.
    ///
    /// **Errors**: the file of learned host keys cannot be read; it is never treated as empty.
    pub fn new(settings: Settings, client: sources::Client) -> std::io::Result<Self> {
        let known = match &settings.state_dir {
            Some(dir) => KnownHostsFile::open(dir.join("known_hosts"))?,
            None => KnownHostsFile::in_memory(),
        };
        Ok(Self::with_known_hosts(settings, client, Arc::new(known)))
    }

    /// The same over another store of learned host keys.
    pub fn with_known_hosts(settings: Settings, client: sources::Client, known: Arc<dyn KnownHosts>) -> Self {
        let settings = Arc::new(settings);
        let leftovers = Leftovers::open(settings.state_dir.as_ref().map(|d| d.join("left-on-hosts.json")));
        let pool = Pool::new(settings.clone(), known);
        SshExecutor { shared: Shared { settings, pool, probe: Arc::new(NoProbe), leftovers, client } }
    }

    /// The way to Git repositories over SSH, with this executor's settings and its store of host keys.
    pub fn tunnel(&self) -> Arc<dyn sources::Tunnel> {
        let (settings, known) = (self.shared.settings.clone(), self.shared.pool.known());
        Arc::new(tunnel::Tunnel { settings, known })
    }

    /// Reports every mutating call to `probe`.
    #[must_use]
    pub fn with_probe(mut self, probe: Arc<dyn TransportProbe>) -> Self {
        self.shared.probe = probe;
        self
    }
}

impl Executor for SshExecutor {
    type Spec = CommandSpec;

    fn check(&self, spec: &CommandSpec, cx: &StepContext) -> Result<(), Vec<SpecFault>> {
        spec::check(spec, cx)
    }

    async fn plan(&self, _spec: &CommandSpec, _cx: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan::Unsupported { reason: "a script cannot say beforehand what it would change".into() })
    }

    async fn run(&self, spec: &CommandSpec, cx: &StepContext) -> Result<StepOutput, StepError> {
        if let Err(faults) = spec::check(spec, cx) {
            let text: Vec<String> = faults.iter().map(|f| format!("{}: {}", f.field, f.problem)).collect();
            let target = spec.target.as_ref().map_or("agent", |t| t.host.as_str());
            return Err(Error::Spec(text.join("; ")).into_step(target));
        }
        let Some(target) = &spec.target else {
            return Err(Error::Spec("onDelegate: no host".into()).into_step("agent"));
        };
        Job::new(&self.shared, cx, target).run(spec).await
    }

    async fn recover(&self, spec: &CommandSpec, cx: &StepContext) -> Result<Recovery, StepError> {
        let memory = Memory::restore(&cx.checkpoints.history());
        if let Some(end) = &memory.end {
            return Ok(Recovery::Ended(end.code()));
        }
        let Some(target) = &spec.target else { return Ok(Recovery::NeverStarted) };
        let job = Job::new(&self.shared, cx, target);
        // Only units that were launched together may be unsettled; a copy is simply done again.
        let mut open: VecDeque<(String, &CommandUnit)> = spec
            .units
            .iter()
            .map(|u| (job.key(u), u))
            .filter(|(key, unit)| {
                memory.launched.contains(key) && !memory.done.contains_key(&unit.identifier)
            })
            .collect();
        let Some((mut key, mut unit)) = open.pop_front() else {
            return Ok(if memory.done.is_empty() { Recovery::NeverStarted } else { Recovery::Running });
        };
        let log = cx.logs.unit(&unit.name);
        let mut first = true;
        let found = async {
            let session = job.patient(true, log.as_ref()).await?;
            loop {
                let found = job.look(&session, &key).await?;
                match (&found, open.pop_front()) {
                    // The next one may have begun since.
                    (Found::Ended(ended), Some(next)) if ended.code == 0 => (key, unit) = next,
                    // Of units that were launched together the earlier have ended: `run` goes on with this one.
                    (Found::Never, _) if !first => return Ok(Found::Running),
                    _ => return Ok(found),
                }
                first = false;
            }
        };
        let found = tokio::select! {
            found = found => found,
            (reason, _) = cx.cancel.wait() => Err(Error::Cancelled {
                reason,
                what: format!("it is not known what became of unit {} on {}", unit.name, job.host),
            }),
        };
        match found.map_err(|e| e.into_step(&job.host))? {
            Found::Never => Ok(Recovery::NeverStarted),
            Found::Running => Ok(Recovery::Running),
            Found::Ended(ended) => Ok(Recovery::Ended(ended.code)),
            Found::Vanished(evidence) => {
                Ok(Recovery::Vanished { evidence: format!("unit {} on {}: {evidence}", unit.name, job.host) })
            }
        }
    }

    async fn clear(&self, spec: &CommandSpec, cx: &StepContext) -> Result<(), StepError> {
        let Some(target) = &spec.target else { return Ok(()) };
        // `run` reads what is left of the output, meets the same verdict, and cleans up; that verdict is what it is
        // expected to end with. Nothing is started, not even when the folder has gone meanwhile.
        let job = Job::new(&self.shared, cx, target);
        job.attach_only.store(true, std::sync::atomic::Ordering::Relaxed);
        match job.run(spec).await {
            Ok(_) => Ok(()),
            Err(error) if error.code == error::VANISHED => Ok(()),
            Err(error) => Err(error),
        }
    }
}
