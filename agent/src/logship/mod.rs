//! Logs: complete, in order, bounded (D7).
//!
//! ```text
//! executor -> Unit: mask -> split -> number -> spool (disk) -> Shipper: batch -> log service
//!                ^---------- waits for room ----------------------'
//! ```
//! One [`TaskLogs`] per task, one unit and one shipper per command unit. Nothing is kept in memory but the chunk under
//! way and the batch under way. A unit's spool is deleted when the log service has everything and the stream is closed;
//! until then a restart of the agent goes on with it.

mod budget;
mod ship;
mod split;
mod spool;
mod unit;

#[cfg(test)]
mod tests;

use crate::client::{Features, LogClient};
use crate::config::SpoolLimits;
use crate::key::Sealer;
use crate::telemetry::Telemetry;
use executor_api::{Clock, LogSink, UnitLog};
use proto::result::{UnitProgress, UnitStatus};
use secrecy::{ExposeSecret, SecretString};
use secrets::Masker;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ship::{Shipper, Wake};
use spool::{META, Spool, Tail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use unit::{Parts, Unit};

/// Threads that do log work at once. More would not be faster on the disks agents have, and each costs memory.
const WORKERS: usize = 3;

/// The log side of the agent. Owns every shipper.
pub(crate) struct LogShip {
    root: PathBuf,
    client: LogClient,
    features: watch::Receiver<Option<Features>>,
    budget: Arc<budget::Budget>,
    workers: Arc<Semaphore>,
    sealer: Arc<Sealer>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Folders of tasks that earlier processes left; read once, so that a fresh task touches no disk before its first line.
    left: Mutex<BTreeSet<String>>,
}

/// What the log side needs to start.
pub(crate) struct Options {
    pub(crate) root: PathBuf,
    pub(crate) client: LogClient,
    pub(crate) features: watch::Receiver<Option<Features>>,
    pub(crate) limits: SpoolLimits,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Arc<Telemetry>,
}

/// Where the logs of one task go.
#[derive(Clone)]
pub(crate) struct TaskStream {
    pub(crate) task_id: String,
    pub(crate) base_key: String,
    pub(crate) token: SecretString,
    /// The base stream is not to be opened.
    pub(crate) skip_base: bool,
}

/// What the sealed file beside a spool says, so that it can be shipped after the task is gone.
#[derive(Serialize, Deserialize)]
struct Meta {
    v: u32,
    task: String,
    unit: String,
    base: String,
    token: String,
    skip_base: bool,
}

/// The logs of one task: what executors see, and the units' progress.
pub(crate) struct TaskLogs {
    ship: Arc<LogShip>,
    stream: TaskStream,
    masker: Masker,
    state: Mutex<State>,
    /// Number of shippers that are still at work.
    busy: watch::Sender<usize>,
    /// Units as they change; the newest list only.
    progress: watch::Sender<Vec<UnitProgress>>,
    ended: CancellationToken,
}

#[derive(Default)]
struct State {
    units: BTreeMap<String, Arc<Unit>>,
    /// Spools of an earlier process that nobody opened yet.
    found: BTreeMap<String, (PathBuf, Spool, Tail)>,
}

fn folder(name: &str) -> String {
    let mut text = hex::encode(Sha256::digest(name.as_bytes()));
    text.truncate(32);
    text
}

impl LogShip {
    /// Blocks for reading one directory.
    pub(crate) fn new(options: Options) -> Arc<LogShip> {
        let left = std::fs::read_dir(&options.root).into_iter().flatten().flatten();
        let left = left.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        Arc::new(LogShip {
            left: Mutex::new(left),
            root: options.root,
            client: options.client,
            features: options.features,
            budget: budget::Budget::new(options.limits),
            workers: Arc::new(Semaphore::new(WORKERS)),
            sealer: options.sealer,
            clock: options.clock,
            telemetry: options.telemetry,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// The logs of a task; goes on with what an earlier process left of it.
    pub(crate) async fn task(self: &Arc<Self>, stream: TaskStream, masker: Masker) -> Arc<TaskLogs> {
        let name = folder(&stream.task_id);
        let was_left = self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        let found = if was_left {
            let (dir, sealer) = (self.root.join(name), self.sealer.clone());
            tokio::task::spawn_blocking(move || find_units(&dir, &sealer)).await.unwrap_or_default()
        } else {
            Vec::new()
        };
        let found =
            found.into_iter().map(|(meta, dir, spool, tail)| (meta.unit, (dir, spool, tail))).collect();
        let logs = Arc::new(TaskLogs {
            ship: self.clone(),
            stream,
            masker,
            state: Mutex::new(State { units: BTreeMap::new(), found }),
            busy: watch::Sender::new(0),
            progress: watch::Sender::new(Vec::new()),
            ended: CancellationToken::new(),
        });
        logs.spawn_base();
        logs
    }

    /// Ships what earlier processes left of tasks that are not in `open`. Returns those logs by task.
    pub(crate) async fn leftovers(
        self: &Arc<Self>,
        open: &BTreeSet<String>,
    ) -> BTreeMap<String, Arc<TaskLogs>> {
        let (root, sealer) = (self.root.clone(), self.sealer.clone());
        let metas = tokio::task::spawn_blocking(move || find_tasks(&root, &sealer)).await.unwrap_or_default();
        let mut left = BTreeMap::new();
        for meta in metas {
            if open.contains(&meta.task) {
                continue;
            }
            let stream = TaskStream {
                task_id: meta.task.clone(),
                base_key: meta.base,
                token: SecretString::from(meta.token),
                skip_base: meta.skip_base,
            };
            let logs = self.task(stream, Masker::new()).await;
            logs.end().await;
            left.insert(meta.task, logs);
        }
        left
    }

    /// Stops every shipper when dropped.
    pub(crate) fn guard(&self) -> tokio_util::sync::DropGuard {
        self.stop.clone().drop_guard()
    }

    /// Bytes of unsent logs.
    pub(crate) fn spooled(&self) -> u64 {
        self.budget.used()
    }

    /// Waits until everything that has ended is shipped, at most `limit`; then stops every shipper. What is left stays
    /// in the spool for the next start.
    pub(crate) async fn close(&self, limit: Duration) {
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => {}
            () = self.clock.sleep(limit) => {}
        }
        self.stop.cancel();
        self.tracker.wait().await;
    }
}

impl TaskLogs {
    /// Opens the base stream, as the Java delegate does before the task, and closes it after the last unit.
    fn spawn_base(self: &Arc<Self>) {
        if self.stream.skip_base {
            return;
        }
        let logs = self.clone();
        self.busy.send_modify(|busy| *busy += 1);
        self.ship.tracker.spawn(async move {
            let client = logs.ship.client.for_token(&logs.stream.token, &Features::default());
            let base = async {
                let Some(features) = logs.ship.features().await else { return };
                if features.stream_resume {
                    // Our manager needs no parent for the streams of units, and a task costs two calls less.
                    return;
                }
                // The base stream carries no lines; a service that has none of it loses nothing.
                let opened = client.open(&logs.stream.base_key, false).await;
                logs.ended.cancelled().await;
                let mut busy = logs.busy.subscribe();
                // Only this task is left.
                let units_done = busy.wait_for(|busy| *busy <= 1).await.is_ok();
                if opened.is_ok() && units_done {
                    let _unused = client.close(&logs.stream.base_key).await;
                }
            };
            tokio::select! {
                () = base => {}
                () = logs.ship.stop.cancelled() => {}
            }
            logs.busy.send_modify(|busy| *busy -= 1);
        });
    }

    fn open_unit(self: &Arc<Self>, name: &str, found: Option<(PathBuf, Spool, Tail)>) -> Arc<Unit> {
        let existed = found.is_some();
        let ship = &self.ship;
        let (dir, spool) = match found {
            Some((dir, spool, tail)) => (dir, (spool, tail)),
            None => {
                let dir = ship.root.join(folder(&self.stream.task_id)).join(folder(name));
                (dir.clone(), (Spool::fresh(dir, self.meta(name)), Tail::default()))
            }
        };
        let progress = self.progress.clone();
        let clock = ship.clock.clone();
        let unit = Arc::new(Unit::new(Parts {
            name: name.to_owned(),
            key: proto::logs::unit_key(&self.stream.base_key, name),
            dir,
            masker: self.masker.clone(),
            clock: ship.clock.clone(),
            budget: ship.budget.clone(),
            workers: ship.workers.clone(),
            telemetry: ship.telemetry.clone(),
            status: Arc::new(move |unit, status| note_progress(&progress, unit, status, clock.wall())),
            wake: Wake::default(),
            spool,
        }));
        self.spawn_shipper(&unit, existed);
        unit
    }

    fn spawn_shipper(self: &Arc<Self>, unit: &Arc<Unit>, existed: bool) {
        let ship = self.ship.clone();
        let logs = self.clone();
        let unit = unit.clone();
        self.busy.send_modify(|busy| *busy += 1);
        self.ship.tracker.spawn(async move {
            if let Some(features) = ship.features().await {
                let shipper = Shipper {
                    shared: unit.shared.clone(),
                    room: unit.room(),
                    client: ship.client.for_token(&logs.stream.token, &features),
                    resume: features.stream_resume,
                    existed,
                    clock: ship.clock.clone(),
                    workers: ship.workers.clone(),
                    telemetry: ship.telemetry.clone(),
                    stop: ship.stop.clone(),
                    unit,
                };
                shipper.run().await;
            }
            logs.busy.send_modify(|busy| *busy -= 1);
        });
    }

    fn meta(&self, unit: &str) -> Vec<u8> {
        let meta = Meta {
            v: 1,
            task: self.stream.task_id.clone(),
            unit: unit.to_owned(),
            base: self.stream.base_key.clone(),
            token: self.stream.token.expose_secret().to_owned(),
            skip_base: self.stream.skip_base,
        };
        let plain = serde_json::to_vec(&meta).unwrap_or_default();
        self.ship.sealer.seal(META_AAD, &plain)
    }

    /// The units in the order in which they were first heard of.
    pub(crate) fn progress(&self) -> Vec<UnitProgress> {
        self.progress.borrow().clone()
    }

    /// The latest line on standard error of the unit that failed, masked; `None`: none failed, or it wrote none there
    /// since this process follows it.
    pub(crate) async fn last_error(&self) -> Option<String> {
        let failed = self.progress().into_iter().rev().find(|unit| unit.status == UnitStatus::Failure)?;
        let unit = self.lock().units.get(&failed.unit).cloned()?;
        unit.last_error().await
    }

    /// Tells of every change of a unit's status.
    pub(crate) fn watch_progress(&self) -> watch::Receiver<Vec<UnitProgress>> {
        self.progress.subscribe()
    }

    /// The step has ended: unfinished lines become lines, units that were left over from an earlier process end too.
    ///
    /// **Repeat**: safe.
    pub(crate) async fn end(self: &Arc<Self>) {
        let rest: Vec<String> = self.lock().found.keys().cloned().collect();
        for name in rest {
            let _unit = self.unit_of(&name);
        }
        let units: Vec<Arc<Unit>> = self.lock().units.values().cloned().collect();
        for unit in units {
            unit.end().await;
        }
        self.ended.cancel();
    }

    /// Nobody waits for room in the spool any more.
    pub(crate) fn release(&self) {
        for unit in self.lock().units.values() {
            unit.release();
        }
    }

    /// Waits until all units are shipped, at most `limit`. `false`: they are not, and shipping goes on.
    pub(crate) async fn shipped(&self, limit: Duration) -> bool {
        let mut busy = self.busy.subscribe();
        tokio::select! {
            done = busy.wait_for(|busy| *busy == 0) => done.is_ok(),
            () = self.ship.clock.sleep(limit) => false,
        }
    }

    /// Makes every unit durable that is not shipped yet.
    pub(crate) async fn make_durable(&self) {
        let units: Vec<Arc<Unit>> = self.lock().units.values().cloned().collect();
        for unit in units {
            if unit.shared.dir.exists() {
                // An error is logged where it happens; the result goes out all the same.
                let _unused = unit.durable(executor_api::Stream::Stdout).await;
            }
        }
    }

    fn unit_of(self: &Arc<Self>, name: &str) -> Arc<Unit> {
        let mut state = self.lock();
        if let Some(unit) = state.units.get(name)
            && !unit.shared.ended.load(Ordering::Acquire)
        {
            return unit.clone();
        }
        let found = state.found.remove(name);
        let unit = self.open_unit(name, found);
        state.units.insert(name.to_owned(), unit.clone());
        unit
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What executors see.
pub(crate) struct Sink {
    pub(crate) logs: Arc<TaskLogs>,
    /// Units that the manager knows by another name than the executor: the executor's and the manager's.
    pub(crate) renamed: Vec<(&'static str, String)>,
}

impl LogSink for Sink {
    fn unit(&self, name: &str) -> Arc<dyn UnitLog> {
        let renamed = self.renamed.iter().find(|(own, _)| *own == name);
        self.logs.unit_of(renamed.map_or(name, |(_, theirs)| theirs))
    }
}

impl LogShip {
    /// What the manager announced; waits for the first registration. `None`: the agent goes down first.
    async fn features(&self) -> Option<Features> {
        let mut features = self.features.clone();
        tokio::select! {
            known = features.wait_for(Option::is_some) => known.ok().and_then(|known| known.clone()),
            () = self.stop.cancelled() => None,
        }
    }
}

fn note_progress(progress: &watch::Sender<Vec<UnitProgress>>, name: &str, status: UnitStatus, now: u64) {
    progress.send_modify(|units| {
        let unit = match units.iter_mut().find(|one| one.unit == name) {
            Some(unit) => unit,
            None => {
                units.push(UnitProgress { unit: name.to_owned(), status, started_at: None, ended_at: None });
                let Some(unit) = units.last_mut() else { return };
                unit
            }
        };
        unit.status = status;
        match status {
            UnitStatus::Queued => {}
            UnitStatus::Running => unit.started_at = unit.started_at.or(Some(now)),
            UnitStatus::Success | UnitStatus::Failure | UnitStatus::Skipped => unit.ended_at = Some(now),
        }
    });
}

const META_AAD: &[u8] = b"delegate spool v1";

fn read_meta(dir: &Path, sealer: &Sealer) -> Option<Meta> {
    let sealed = std::fs::read(dir.join(META)).ok()?;
    let plain = sealer.open(META_AAD, &sealed)?;
    serde_json::from_slice(&plain).ok()
}

/// The units of one task that are on disk. A directory that says nothing of itself never held a line: it is removed.
fn find_units(dir: &Path, sealer: &Sealer) -> Vec<(Meta, PathBuf, Spool, Tail)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let dir = entry.path();
        let Some(meta) = read_meta(&dir, sealer) else {
            tracing::warn!(dir = %dir.display(), "a spool does not say what it is for; it is removed");
            ship::remove_unit(&dir);
            continue;
        };
        match Spool::open(dir.clone()) {
            Ok((spool, tail)) => found.push((meta, dir, spool, tail)),
            Err(error) => {
                tracing::error!(code = "AGT-006", unit = meta.unit, dir = %dir.display(), %error, "a spool cannot be read; its lines are lost");
                ship::remove_unit(&dir);
            }
        }
    }
    found
}

/// One description of each task that has units on disk.
fn find_tasks(root: &Path, sealer: &Sealer) -> Vec<Meta> {
    let Ok(tasks) = std::fs::read_dir(root) else { return Vec::new() };
    let first = |dir: PathBuf| {
        std::fs::read_dir(&dir).ok()?.flatten().find_map(|unit| read_meta(&unit.path(), sealer))
    };
    tasks.flatten().filter_map(|task| first(task.path())).collect()
}
