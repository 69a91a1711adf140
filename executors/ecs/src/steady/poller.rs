//! One loop per account and cluster that looks at all services that steps of this agent wait for.
//!
//! ```text
//! step ─watch(service)─► Seat ┐                       ┌─► Seat ─Look─► step
//! step ─watch(service)─► Seat ┼─ ≤ 10 names a call ───┼─► Seat ─Look─► step
//! step ─watch(service)─► Seat ┘   (a call is filled)  └─► Seat ─Look─► step
//! ```
//! A service is looked at often in its first minute and less often later. Every call that has to be made is filled with the
//! services whose turn comes next, and the more calls a round takes the longer it lasts, so that an agent with many
//! rollouts asks about as often as one with few. The loop ends with its last seat.

use super::roster::Rounds;
use super::view::Service;
use executor_api::Clock;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Most services that one DescribeServices takes (facts A1).
const PER_CALL: usize = 10;
/// A new seat waits so long for others that begin at the same time. A task takes longer to start: no rollout is noticed later.
const GATHER: Duration = Duration::from_secs(1);
/// How long a service counts as new.
const YOUNG: Duration = Duration::from_secs(60);
/// A round of several calls lasts so long for each of them, at least.
const PER_CALL_OF_ROUND: Duration = Duration::from_secs(1);
/// Throttled, a pause grows at most to this.
const SLOWEST: Duration = Duration::from_secs(30);

/// How often is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// In the first minute.
    pub(crate) young: Duration,
    /// Later.
    pub(crate) old: Duration,
}

/// Why services could not be read.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// AWS asks to slow down.
    Throttled,
    /// It may work the next time.
    Passing(String),
    /// AWS said no; whoever asks alone learns why.
    Refused,
    /// The step whose account was used has ended.
    Ended,
}

/// What reads services for one step.
pub(crate) trait Reader: Send + Sync {
    /// At most ten services; those that are MISSING are left out.
    fn read(&self, names: Vec<String>) -> BoxFuture<'static, Result<Vec<Value>, Trouble>>;
}

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) enum Sight {
    /// As described.
    Found(Arc<Service>),
    /// ECS does not know it.
    Missing,
    /// AWS does not answer; it is asked again.
    Troubled(String),
    /// AWS refuses to show it.
    Refused,
}

/// One look at one service.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// When AWS was asked.
    #[cfg_attr(not(test), allow(dead_code, reason = "What tests of the pace measure."))]
    pub(crate) asked: Instant,
    pub(crate) sight: Sight,
}

/// Every loop of an agent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pollers(Arc<Shared>);

struct Shared {
    pace: Pace,
    clock: Arc<dyn Clock>,
    /// 0..1, for jitter.
    random: fn() -> f64,
    rooms: Mutex<HashMap<Key, Arc<Room>>>,
    rounds: Rounds,
}

/// Account and cluster.
type Key = (String, String);

#[derive(Default)]
struct Room {
    seats: Mutex<Seats>,
    changed: Notify,
}

#[derive(Default)]
struct Seats {
    next: u64,
    taken: BTreeMap<u64, Seat>,
    /// Set once the loop has ended; whoever comes then opens another room.
    closed: bool,
}

struct Seat {
    service: String,
    since: Instant,
    due: Instant,
    /// Its step is busy with what it saw.
    held: bool,
    /// Since when a call for it is under way.
    asked: Option<Instant>,
    reader: Arc<dyn Reader>,
    looks: watch::Sender<Option<Look>>,
}

impl Seat {
    fn is_waiting(&self) -> bool {
        self.asked.is_none() && !self.held
    }
}

/// A place in the loop. It is given back on drop.
pub(crate) struct Subscription {
    room: Arc<Room>,
    id: u64,
    looks: watch::Receiver<Option<Look>>,
}

impl Subscription {
    /// The next look; the newest one if several came since the last call.
    ///
    /// **Cancel**: safe to drop and call again.
    pub(crate) async fn look(&mut self) -> Look {
        loop {
            if self.looks.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(look) = self.looks.borrow_and_update().clone() {
                return look;
            }
        }
    }
}

impl Subscription {
    /// Whether no looks are wanted for now.
    pub(super) fn hold(&self, held: bool) {
        if let Some(seat) = self.room.seats().taken.get_mut(&self.id) {
            seat.held = held;
        }
        self.room.changed.notify_one();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.room.seats().taken.remove(&self.id);
        self.room.changed.notify_one();
    }
}

impl Room {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pollers {
    pub(crate) fn new(pace: Pace, clock: Arc<dyn Clock>, random: fn() -> f64) -> Pollers {
        Pollers(Arc::new(Shared { pace, clock, random, rooms: Mutex::default(), rounds: Rounds::default() }))
    }

    /// Takes a seat for `service`, whose account and cluster are `key`. The loop runs as a task of its own on the caller's
    /// runtime, with the readers of whoever waits.
    pub(crate) fn watch(&self, key: Key, service: &str, reader: Arc<dyn Reader>) -> Subscription {
        let now = self.0.clock.mono();
        let mut rooms = self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let open = rooms.get(&key).filter(|room| !room.seats().closed).cloned();
        let room = open.unwrap_or_else(|| {
            let room = Arc::new(Room::default());
            rooms.insert(key.clone(), room.clone());
            tokio::spawn(Loop { shared: self.0.clone(), room: room.clone(), factor: 1 }.run(key));
            room
        });
        let (sender, looks) = watch::channel(None);
        let mut seats = room.seats();
        let id = seats.next;
        seats.next += 1;
        let seat = Seat {
            service: service.to_owned(),
            since: now,
            due: now + GATHER,
            held: false,
            asked: None,
            reader,
            looks: sender,
        };
        seats.taken.insert(id, seat);
        drop(seats);
        room.changed.notify_one();
        Subscription { room, id, looks }
    }

    /// How many services are waited for.
    pub(super) fn waits(&self, key: &Key) -> usize {
        let rooms = self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.get(key).map_or(0, |room| names(&room.seats()).len())
    }

    /// Where waits ask for tasks together.
    pub(super) fn rounds(&self) -> &Rounds {
        &self.0.rounds
    }

    /// Loops that run.
    #[cfg(test)]
    fn rooms(&self) -> usize {
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// What a call brought.
struct Call {
    asked: Instant,
    sights: Vec<(String, Option<Sight>)>,
    throttled: bool,
}

struct Loop {
    shared: Arc<Shared>,
    room: Arc<Room>,
    /// Grows while AWS throttles.
    factor: u32,
}

impl Loop {
    async fn run(mut self, key: Key) {
        let mut calls: FuturesUnordered<BoxFuture<'static, Call>> = FuturesUnordered::new();
        loop {
            let now = self.shared.clock.mono();
            let next = {
                let mut rooms = self.shared.rooms.lock().unwrap_or_else(PoisonError::into_inner);
                let mut seats = self.room.seats();
                if seats.taken.is_empty() {
                    seats.closed = true;
                    rooms.remove(&key);
                    return;
                }
                drop(rooms);
                for names in turn(&mut seats, now) {
                    let readers = readers(&seats, &names);
                    calls.push(Box::pin(ask(names, readers, now)));
                }
                seats.taken.values().filter(|seat| seat.is_waiting()).map(|seat| seat.due).min()
            };
            let due = async {
                match next {
                    Some(due) => self.shared.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.room.changed.notified() => {}
                Some(call) = calls.next() => self.deliver(call),
            }
        }
    }

    /// Hands out an answer and sets when its services are looked at again.
    fn deliver(&mut self, call: Call) {
        self.factor =
            if call.throttled { self.factor.saturating_mul(2).min(64) } else { (self.factor / 2).max(1) };
        let now = self.shared.clock.mono();
        // Never longer than the pace: it is what people are promised.
        let jitter = 0.92 + 0.06 * (self.shared.random)();
        let mut seats = self.room.seats();
        let calls = names(&seats).len().div_ceil(PER_CALL);
        for seat in seats.taken.values_mut().filter(|seat| seat.asked == Some(call.asked)) {
            let Some((_, sight)) = call.sights.iter().find(|(name, _)| *name == seat.service) else {
                continue;
            };
            let pause = self.pause(now.saturating_duration_since(seat.since), calls).mul_f64(jitter);
            // A slow answer does not make the next question come sooner.
            seat.due = (call.asked + pause).max(now + pause / 2);
            seat.asked = None;
            if let Some(sight) = sight.clone() {
                seat.looks.send_replace(Some(Look { asked: call.asked, sight }));
            }
        }
    }

    fn pause(&self, age: Duration, calls: usize) -> Duration {
        let Pace { young, old } = self.shared.pace;
        let own = if age < YOUNG { young } else { old };
        let crowded = PER_CALL_OF_ROUND.saturating_mul(u32::try_from(calls).unwrap_or(u32::MAX)).min(old);
        let crowded = if calls > 1 { crowded } else { Duration::ZERO };
        let pause = own.max(crowded);
        pause.saturating_mul(self.factor).min(SLOWEST.max(pause))
    }
}

/// Services of all seats, each once.
fn names(seats: &Seats) -> Vec<&str> {
    let mut names: Vec<&str> = seats.taken.values().map(|seat| seat.service.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What is to be asked now: the services whose turn it is, in calls that are filled with those whose turn comes next.
fn turn(seats: &mut Seats, now: Instant) -> Vec<Vec<String>> {
    let mut waiting: BTreeMap<&str, Instant> = BTreeMap::new();
    for seat in seats.taken.values().filter(|seat| seat.is_waiting()) {
        let due = waiting.entry(&seat.service).or_insert(seat.due);
        *due = seat.due.min(*due);
    }
    let mut order: Vec<(Instant, String)> =
        waiting.into_iter().map(|(name, due)| (due, name.to_owned())).collect();
    order.sort();
    let due = order.iter().filter(|(due, _)| *due <= now).count();
    let asked: Vec<String> =
        order.into_iter().take(due.div_ceil(PER_CALL) * PER_CALL).map(|(_, name)| name).collect();
    for seat in seats.taken.values_mut().filter(|seat| asked.contains(&seat.service)) {
        seat.asked = Some(now);
    }
    asked.chunks(PER_CALL).map(<[String]>::to_vec).collect()
}

/// Who can ask for these, for each name; the newest seats first, because their steps end last.
fn readers(seats: &Seats, names: &[String]) -> Vec<(String, Arc<dyn Reader>)> {
    let seats = seats.taken.values().rev().filter(|seat| names.contains(&seat.service));
    seats.map(|seat| (seat.service.clone(), seat.reader.clone())).collect()
}

/// Asks with one reader after the other as long as steps have ended. A refusal may be about one of the services only; then
/// each is asked for alone, by the step that waits for it.
async fn ask(names: Vec<String>, readers: Vec<(String, Arc<dyn Reader>)>, asked: Instant) -> Call {
    let answer = first(&names, readers.iter().map(|(_, reader)| reader)).await;
    let mut throttled = matches!(answer, Err(Trouble::Throttled));
    let mut sights = Vec::new();
    if names.len() > 1 && matches!(answer, Err(Trouble::Refused)) {
        for name in names {
            let own = readers.iter().filter(|(of, _)| *of == name).map(|(_, reader)| reader);
            let answer = first(std::slice::from_ref(&name), own).await;
            throttled |= matches!(answer, Err(Trouble::Throttled));
            let sight = sight(&name, &answer);
            sights.push((name, sight));
        }
    } else {
        for name in names {
            let sight = sight(&name, &answer);
            sights.push((name, sight));
        }
    }
    Call { asked, sights, throttled }
}

async fn first(
    names: &[String],
    readers: impl Iterator<Item = &Arc<dyn Reader>>,
) -> Result<Vec<Arc<Service>>, Trouble> {
    let mut answer = Err(Trouble::Ended);
    for reader in readers {
        answer = reader.read(names.to_vec()).await;
        if !matches!(answer, Err(Trouble::Ended)) {
            break;
        }
    }
    answer.map(|services| services.iter().map(|value| Arc::new(Service::read(value))).collect())
}

/// What an answer says of one service; `None` when nobody could ask.
fn sight(name: &str, answer: &Result<Vec<Arc<Service>>, Trouble>) -> Option<Sight> {
    Some(match answer {
        Ok(services) => match services.iter().find(|service| service.name == name) {
            Some(service) => Sight::Found(service.clone()),
            None => Sight::Missing,
        },
        Err(Trouble::Refused) => Sight::Refused,
        Err(Trouble::Throttled) => Sight::Troubled("AWS asks to slow down".to_owned()),
        Err(Trouble::Passing(what)) => Sight::Troubled(what.clone()),
        Err(Trouble::Ended) => return None,
    })
}

#[cfg(test)]
#[path = "poller_tests.rs"]
mod tests;
