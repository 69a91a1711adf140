use super::*;
use executor_api::SystemClock;
use executor_api::testing::until;
use serde_json::json;
use std::collections::VecDeque;

/// When what was asked.
type Calls = Arc<Mutex<Vec<(Instant, Vec<String>)>>>;

/// Answers as a script says, then with every service it is asked for. Takes `latency` for each answer.
#[derive(Clone, Default)]
struct Scripted {
    calls: Calls,
    script: Arc<Mutex<VecDeque<Trouble>>>,
    /// Services that nobody may see.
    denied: Vec<String>,
    absent: Vec<String>,
    latency: Duration,
    ended: bool,
}

impl Reader for Scripted {
    fn read(&self, names: Vec<String>) -> BoxFuture<'static, Result<Vec<Value>, Trouble>> {
        let this = self.clone();
        Box::pin(async move {
            assert!(names.len() <= 10, "{names:?}");
            if this.ended {
                return Err(Trouble::Ended);
            }
            this.calls.lock().unwrap().push((Instant::now(), names.clone()));
            tokio::time::sleep(this.latency).await;
            if let Some(trouble) = this.script.lock().unwrap().pop_front() {
                return Err(trouble);
            }
            if names.iter().any(|name| this.denied.contains(name)) {
                return Err(Trouble::Refused);
            }
            let there = names.into_iter().filter(|name| !this.absent.contains(name));
            Ok(there.map(|name| json!({"serviceName": name, "status": "ACTIVE"})).collect())
        })
    }
}

impl Scripted {
    fn count(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    /// Times of the calls, seconds since `start`.
    fn times(&self, start: Instant) -> Vec<f64> {
        self.calls.lock().unwrap().iter().map(|(at, _)| (*at - start).as_secs_f64()).collect()
    }
}

const PACE: Pace = Pace { young: Duration::from_secs(2), old: Duration::from_secs(5) };

fn pollers() -> Pollers {
    Pollers::new(PACE, Arc::new(SystemClock), || 0.5)
}

fn key() -> Key {
    ("account".into(), "cluster".into())
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Lets the loop see that its seats have gone.
async fn settled(pollers: &Pollers) {
    for _ in 0..100 {
        if pollers.rooms() == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("a loop without seats runs on");
}

#[tokio::test(start_paused = true)]
async fn one_service_is_looked_at_often_and_later_seldom_until_nobody_waits() {
    let (pollers, reader) = (pollers(), Scripted::default());
    let start = Instant::now();
    let mut seat = pollers.watch(key(), "web", Arc::new(reader.clone()));
    for _ in 0..40 {
        assert!(matches!(seat.look().await.sight, Sight::Found(service) if service.name == "web"));
    }
    let times = reader.times(start);
    let pauses: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (time, pause) in times.iter().zip(&pauses) {
        let expected = if *time < 60.0 { 1.9 } else { 4.75 };
        assert!((pause - expected).abs() < 0.01, "{pause} at {time}");
    }
    let asked = reader.count();
    drop(seat);
    settled(&pollers).await;
    tokio::time::sleep(secs(60.0)).await;
    assert_eq!(reader.count(), asked);
    // Whoever comes later opens a loop of his own.
    let mut seat = pollers.watch(key(), "web", Arc::new(reader.clone()));
    seat.look().await;
    assert_eq!(reader.count(), asked + 1);
}

#[tokio::test(start_paused = true)]
async fn steps_that_begin_within_a_moment_share_a_call_and_calls_are_filled() {
    let (pollers, reader) = (pollers(), Scripted::default());
    let mut seats: Vec<Subscription> =
        (0..12).map(|n| pollers.watch(key(), &format!("s{n}"), Arc::new(reader.clone()))).collect();
    // Two wait for the same service.
    seats.push(pollers.watch(key(), "s0", Arc::new(reader.clone())));
    for seat in &mut seats {
        seat.look().await;
    }
    let sizes: Vec<usize> = reader.calls.lock().unwrap().iter().map(|(_, names)| names.len()).collect();
    assert_eq!(sizes, [10, 2]);
    // One that comes later travels with the others from then on.
    drop(seats.split_off(3));
    let mut late = pollers.watch(key(), "late", Arc::new(reader.clone()));
    late.look().await;
    let before = reader.count();
    let start = Instant::now();
    while start.elapsed() < secs(20.0) {
        late.look().await;
    }
    let calls = reader.calls.lock().unwrap().split_off(before);
    assert!(calls.iter().all(|(_, names)| names.len() == 4), "{calls:?}");
    assert!((9..=11).contains(&calls.len()), "{}", calls.len());
}

#[tokio::test(start_paused = true)]
async fn fifty_rollouts_need_less_than_a_third_of_the_calls_of_fifty_waiters() {
    // The waiter of AWS' command line asks at once and then every 15 seconds, for one service each.
    for ends in [9.0, 14.0, 20.0, 40.0, 100.0, 300.0] {
        let (pollers, reader) = (pollers(), Scripted { latency: secs(0.05), ..Scripted::default() });
        let start = Instant::now();
        let mut waits = tokio::task::JoinSet::new();
        for number in 0..50 {
            let mut seat = pollers.watch(key(), &format!("s{number}"), Arc::new(reader.clone()));
            waits.spawn(async move {
                let stable = start + secs(ends);
                loop {
                    let look = seat.look().await;
                    if look.asked >= stable {
                        return Instant::now() - stable;
                    }
                }
            });
        }
        let mut late: Vec<Duration> = waits.join_all().await;
        late.sort();
        let waiters = 50.0 * (1.0 + (ends / 15.0_f64).ceil());
        let calls = reader.count();
        assert!(calls as f64 <= waiters / 3.0, "{calls} calls, waiters {waiters}, stable after {ends} s");
        assert!(late[49] <= secs(5.0), "{:?}", late[49]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_rollout_is_noticed_soon() {
    let mut late = Vec::new();
    for tenth in 20..120 {
        let (pollers, reader) = (pollers(), Scripted { latency: secs(0.05), ..Scripted::default() });
        let stable = Instant::now() + secs(f64::from(tenth) / 3.0);
        let mut seat = pollers.watch(key(), "web", Arc::new(reader));
        while seat.look().await.asked < stable {}
        late.push(Instant::now() - stable);
    }
    late.sort();
    assert!(late[50] <= secs(2.5) && late[99] <= secs(5.0), "{:?} {:?}", late[50], late[99]);
}

#[tokio::test(start_paused = true)]
async fn throttling_slows_the_loop_and_it_recovers() {
    let script: VecDeque<Trouble> = (0..5).map(|_| Trouble::Throttled).collect();
    let (pollers, reader) =
        (pollers(), Scripted { script: Arc::new(Mutex::new(script)), ..Scripted::default() });
    let start = Instant::now();
    let mut seat = pollers.watch(key(), "web", Arc::new(reader.clone()));
    for turn in 0..12 {
        let sight = seat.look().await.sight;
        assert_eq!(matches!(sight, Sight::Troubled(_)), turn < 5, "{sight:?}");
    }
    let times = reader.times(start);
    let pauses: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] > 3.7 && pauses[4] > 28.0, "{pauses:?}");
    assert!(pauses[10] < 5.1, "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_hits_only_whom_it_is_about() {
    let (pollers, reader) = (pollers(), Scripted { denied: vec!["theirs".into()], ..Scripted::default() });
    let mut theirs = pollers.watch(key(), "theirs", Arc::new(reader.clone()));
    let mut ours = pollers.watch(key(), "ours", Arc::new(reader.clone()));
    assert!(matches!(theirs.look().await.sight, Sight::Refused));
    assert!(matches!(ours.look().await.sight, Sight::Found(_)));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_missing_and_an_outage_are_told() {
    let script = VecDeque::from([Trouble::Passing("no route".into())]);
    let reader =
        Scripted { script: Arc::new(Mutex::new(script)), absent: vec!["gone".into()], ..Scripted::default() };
    let mut seat = pollers().watch(key(), "gone", Arc::new(reader));
    assert!(matches!(seat.look().await.sight, Sight::Troubled(what) if what == "no route"));
    assert!(matches!(seat.look().await.sight, Sight::Missing));
}

#[tokio::test(start_paused = true)]
async fn the_account_of_a_step_that_ended_is_not_needed() {
    let (pollers, reader) = (pollers(), Scripted::default());
    let ended = Scripted { ended: true, ..Scripted::default() };
    let mut first = pollers.watch(key(), "a", Arc::new(reader.clone()));
    // The newest seat is asked with first; its step is being cancelled.
    let _second = pollers.watch(key(), "b", Arc::new(ended));
    assert!(matches!(first.look().await.sight, Sight::Found(_)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_holds_up_nobody_else_and_shows_nothing_from_before_a_seat() {
    let slow = Scripted { latency: secs(100.0), ..Scripted::default() };
    let pollers = pollers();
    let mut hung = pollers.watch(key(), "web", Arc::new(slow.clone()));
    until("its call is under way", secs(60.0), async || (slow.count() > 0).then_some(())).await;
    assert_eq!(slow.count(), 1);
    let quick = Scripted::default();
    let begun = Instant::now();
    let mut other = pollers.watch(key(), "other", Arc::new(quick.clone()));
    let mut same = pollers.watch(key(), "web", Arc::new(quick));
    assert!(other.look().await.asked >= begun);
    assert!(begun.elapsed() < GATHER * 2);
    assert!(same.look().await.asked >= begun);
    hung.look().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_about_a_service_whose_step_is_busy() {
    let (pollers, reader) = (pollers(), Scripted::default());
    let mut seat = pollers.watch(key(), "web", Arc::new(reader.clone()));
    seat.look().await;
    seat.hold(true);
    let asked = reader.count();
    tokio::time::sleep(secs(30.0)).await;
    assert_eq!(reader.count(), asked);
    seat.hold(false);
    let begun = Instant::now();
    assert!(seat.look().await.asked >= begun);
}
