use super::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

const OWN: &str = "OWN";

fn agent(capacity: usize) -> AgentState {
    AgentState::new(capacity, vec![OWN.into()], vec!["FOREIGN".into()])
}

fn offer(task: &str) -> Offer {
    Offer::Task { task: task.into(), task_type: Some(OWN.into()) }
}

fn t(task: &str) -> String {
    task.to_owned()
}

/// Brings one task to the stage in which it runs.
fn running(state: &mut AgentState, task: &str) {
    state.apply(Event::Registered { extended: true });
    state.apply(Event::Polled(vec![offer(task)]));
    state.apply(Event::Acquired { task: t(task), fence: 1, known: false });
    let actions = state.apply(Event::Written { task: t(task), mark: Mark::Accepted, ok: true });
    assert!(actions.contains(&Action::Start { task: t(task), recover: false }));
}

#[test]
fn a_task_goes_its_way_and_gives_its_permit_back() {
    let mut state = agent(1);
    running(&mut state, "a");
    assert_eq!(state.load(), (1, 0));
    assert_eq!(state.held().collect::<Vec<_>>(), [("a", 1)]);
    let actions = state.apply(Event::Ended { task: t("a"), keep: false });
    assert_eq!(actions, [Action::WriteEnded { task: t("a") }]);
    let actions = state.apply(Event::Written { task: t("a"), mark: Mark::Ended, ok: true });
    assert_eq!(actions, [Action::Report { task: t("a") }]);
    assert_eq!(state.apply(Event::Answered { task: t("a"), ok: false }), [Action::Report { task: t("a") }]);
    assert_eq!(
        state.apply(Event::Answered { task: t("a"), ok: true }),
        [Action::WriteReported { task: t("a") }]
    );
    let actions = state.apply(Event::Written { task: t("a"), mark: Mark::Reported, ok: true });
    assert!(actions.contains(&Action::Forget { task: t("a") }));
    assert_eq!(state.load(), (0, 1));
}

#[test]
fn a_full_agent_says_so_and_takes_nothing() {
    let mut state = agent(1);
    running(&mut state, "a");
    let actions = state.apply(Event::Polled(vec![offer("a"), offer("b"), offer("c")]));
    assert!(actions.contains(&Action::Busy { left: 2 }));
    assert!(!actions.iter().any(|action| matches!(action, Action::Acquire { .. })));
    assert!(actions.contains(&Action::Poll { pause: true }));
}

#[test]
fn a_foreign_manager_gets_no_task_of_another_type_taken() {
    let mut state = agent(4);
    state.apply(Event::Registered { extended: false });
    let cd = Offer::Task { task: t("cd"), task_type: Some(OWN.into()) };
    let untyped = Offer::Task { task: t("x"), task_type: None };
    let known = Offer::Task { task: t("f"), task_type: Some("FOREIGN".into()) };
    let actions = state.apply(Event::Polled(vec![cd, untyped, known]));
    let acquired: Vec<_> = actions.iter().filter(|action| matches!(action, Action::Acquire { .. })).collect();
    assert_eq!(acquired, [&Action::Acquire { task: t("f") }]);
}

#[test]
fn a_replayed_task_is_asked_for_and_recovered_even_without_an_answer() {
    let mut state = agent(1);
    let replayed = |task: &str, has_result| Replayed { task: t(task), fence: 3, has_result };
    let actions = state.apply(Event::Replayed(vec![replayed("a", false), replayed("b", true)]));
    assert!(actions.contains(&Action::Arm { task: t("a"), timer: Timer::Recover }));
    assert!(actions.contains(&Action::Report { task: t("b") }));
    assert_eq!(
        state.load(),
        (2, 0),
        "a restart holds more than a lowered capacity rather than dropping anything"
    );
    let actions = state.apply(Event::Registered { extended: true });
    assert!(actions.contains(&Action::Acquire { task: t("a") }));
    let actions = state.apply(Event::TimerFired { task: t("a"), timer: Timer::Recover });
    assert!(actions.contains(&Action::Start { task: t("a"), recover: true }));
    assert!(
        state.apply(Event::Acquired { task: t("a"), fence: 3, known: false }).is_empty(),
        "the late answer starts nothing"
    );
    assert!(state.apply(Event::NotOurs { task: t("a") }).contains(&Action::Cancel {
        task: t("a"),
        reason: CancelReason::LeaseLost,
        stage: CancelStage::Ask
    }));
}

#[test]
fn cancellation_asks_then_kills_then_gives_up_and_keeps_its_first_reason() {
    let mut state = agent(1);
    running(&mut state, "a");
    let abort = || Event::Polled(vec![Offer::Abort { task: t("a"), reason: CancelReason::User }]);
    let actions = state.apply(abort());
    let ask = Action::Cancel { task: t("a"), reason: CancelReason::User, stage: CancelStage::Ask };
    assert!(actions.contains(&ask) && actions.contains(&Action::Arm { task: t("a"), timer: Timer::Kill }));
    assert!(!state.apply(abort()).contains(&ask));
    assert!(state.apply(Event::TimerFired { task: t("a"), timer: Timer::Deadline }).is_empty());
    let actions = state.apply(Event::TimerFired { task: t("a"), timer: Timer::Kill });
    assert!(actions.contains(&Action::Cancel {
        task: t("a"),
        reason: CancelReason::User,
        stage: CancelStage::Kill
    }));
    let actions = state.apply(Event::TimerFired { task: t("a"), timer: Timer::Abandon });
    assert_eq!(actions, [Action::Abandon { task: t("a") }]);
}

#[test]
fn a_task_whose_capabilities_are_proven_holds_its_permit_and_keeps_no_poll_back() {
    let mut state = agent(1);
    state.apply(Event::Registered { extended: true });
    assert!(!state.apply(Event::Polled(vec![offer("a")])).contains(&Action::Poll { pause: false }));
    let actions = state.apply(Event::Asked { task: t("a") });
    assert!(actions.iter().any(|action| matches!(action, Action::Poll { .. })));
    assert_eq!((state.load(), state.held().count()), ((1, 0), 0));
    // Listed again, and aborted, while it is not ours yet.
    state.apply(Event::Polled(vec![offer("a"), Offer::Abort { task: t("a"), reason: CancelReason::User }]));
    let actions = state.apply(Event::Acquired { task: t("a"), fence: 0, known: false });
    assert!(actions.contains(&Action::WriteAccepted { task: t("a") }));
    let actions = state.apply(Event::Written { task: t("a"), mark: Mark::Accepted, ok: true });
    assert_eq!(actions, [Action::Skip { task: t("a"), reason: CancelReason::User }]);
    let mut refused = agent(1);
    refused.apply(Event::Registered { extended: true });
    refused.apply(Event::Polled(vec![offer("a")]));
    refused.apply(Event::Asked { task: t("a") });
    assert!(refused.apply(Event::NotOurs { task: t("a") }).contains(&Action::Forget { task: t("a") }));
    assert_eq!(refused.load(), (0, 1));
}

#[test]
fn an_abort_before_the_start_starts_nothing() {
    let mut state = agent(1);
    state.apply(Event::Registered { extended: true });
    state.apply(Event::Polled(vec![offer("a")]));
    state.apply(Event::Acquired { task: t("a"), fence: 1, known: false });
    state.apply(Event::HeartbeatAcknowledged(vec![(t("a"), LeaseVerdict::Abort)]));
    let actions = state.apply(Event::Written { task: t("a"), mark: Mark::Accepted, ok: true });
    assert_eq!(actions, [Action::Skip { task: t("a"), reason: CancelReason::User }]);
}

#[test]
fn a_drain_takes_leave_only_when_nothing_is_held() {
    let mut state = agent(2);
    running(&mut state, "a");
    assert!(!state.apply(Event::Drain).iter().any(|action| matches!(action, Action::Exit { .. })));
    assert!(!state.apply(Event::Polled(vec![offer("b")])).contains(&Action::Acquire { task: t("b") }));
    let actions = state.apply(Event::DrainLimit);
    assert!(actions.contains(&Action::Cancel {
        task: t("a"),
        reason: CancelReason::Drain,
        stage: CancelStage::Ask
    }));
    let actions = state.apply(Event::Ended { task: t("a"), keep: true });
    assert_eq!(actions, [Action::Exit { refused: false }]);

    let mut idle = agent(1);
    idle.apply(Event::Registered { extended: true });
    assert_eq!(idle.apply(Event::Drain), [Action::Unregister, Action::Exit { refused: false }]);
}

#[test]
fn a_frozen_agent_keeps_what_runs_and_goes_on_when_it_may() {
    let mut state = agent(2);
    running(&mut state, "a");
    assert_eq!(state.apply(Event::Refused(Refusal::Freeze)), [Action::Freeze]);
    assert!(state.apply(Event::Polled(vec![offer("b")])).is_empty());
    assert_eq!(state.load(), (1, 1));
    let actions = state.apply(Event::HeartbeatAcknowledged(vec![]));
    assert!(actions.contains(&Action::Poll { pause: false }));
    assert_eq!(state.apply(Event::Refused(Refusal::Stop)), [Action::Exit { refused: true }]);
}

fn any_event() -> impl Strategy<Value = Event> {
    let task = prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")].prop_map(t);
    let task2 = task.clone();
    let mark = prop_oneof![Just(Mark::Accepted), Just(Mark::Ended), Just(Mark::Reported)];
    let timer =
        prop_oneof![Just(Timer::Deadline), Just(Timer::Kill), Just(Timer::Abandon), Just(Timer::Recover)];
    let offers = proptest::collection::vec(
        prop_oneof![
            4 => task.clone().prop_map(|task| Offer::Task { task, task_type: Some(OWN.into()) }),
            1 => task.clone().prop_map(|task| Offer::Task { task, task_type: Some("OTHER".into()) }),
            1 => task.clone().prop_map(|task| Offer::Abort { task, reason: CancelReason::User }),
        ],
        0..5,
    );
    prop_oneof![
        2 => any::<bool>().prop_map(|extended| Event::Registered { extended }),
        6 => offers.prop_map(Event::Polled),
        1 => Just(Event::PollFailed),
        6 => (task.clone(), 0u64..3, any::<bool>()).prop_map(|(task, fence, known)| Event::Acquired { task, fence, known: known && fence == 0 }),
        1 => task.clone().prop_map(|task| Event::Asked { task }),
        1 => task.clone().prop_map(|task| Event::NotOurs { task }),
        1 => task.clone().prop_map(|task| Event::AcquireFailed { task }),
        8 => (task.clone(), mark, prop::bool::weighted(0.9)).prop_map(|(task, mark, ok)| Event::Written { task, mark, ok }),
        4 => (task.clone(), prop::bool::weighted(0.1)).prop_map(|(task, keep)| Event::Ended { task, keep }),
        4 => (task.clone(), any::<bool>()).prop_map(|(task, ok)| Event::Answered { task, ok }),
        3 => (task.clone(), timer).prop_map(|(task, timer)| Event::TimerFired { task, timer }),
        1 => task.clone().prop_map(|task| Event::HeartbeatAcknowledged(vec![(task, LeaseVerdict::Lost)])),
        1 => Just(Event::HeartbeatAcknowledged(vec![])),
        1 => Just(Event::Refused(Refusal::Freeze)),
        1 => (task2, any::<bool>()).prop_map(|(task, has_result)| Event::Replayed(vec![Replayed { task, fence: 1, has_result }])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_under_any_order(capacity in 1usize..4, events in proptest::collection::vec(any_event(), 0..120), drain_at in 0usize..160) {
        let mut state = agent(capacity);
        let mut started: HashMap<String, u32> = HashMap::new();
        let mut open: BTreeSet<String> = BTreeSet::new();
        let mut holding: BTreeSet<String> = BTreeSet::new();
        let mut left = false;
        for (index, event) in events.into_iter().enumerate() {
            let event = if index == drain_at { Event::Drain } else { event };
            let (held_before, free_before) = state.load();
            if let Event::Replayed(tasks) = &event {
                for one in tasks { if !holding.contains(&one.task) { holding.insert(one.task.clone()); open.insert(one.task.clone()); } }
            }
            let actions = state.apply(event.clone());
            let (held, free) = state.load();
            // Permits are conserved; only a replay may hold more than there are.
            if !matches!(event, Event::Replayed(_)) {
                prop_assert!(held <= capacity.max(held_before));
            }
            prop_assert!(free + held >= capacity && (held > capacity || free + held == capacity));
            let new = actions.iter().filter(|a| matches!(a, Action::Acquire { .. })).count();
            if matches!(event, Event::Polled(_)) {
                prop_assert!(new <= free_before, "acquired without a permit");
            }
            for action in &actions {
                match action {
                    Action::Acquire { task } => { holding.insert(task.clone()); }
                    Action::Start { task, .. } | Action::Skip { task, .. } => {
                        prop_assert!(holding.contains(task));
                        open.insert(task.clone());
                        let count = started.entry(task.clone()).or_default();
                        *count += 1;
                        prop_assert_eq!(*count, 1, "a held task was started twice");
                    }
                    Action::WriteReported { task } => { open.remove(task); }
                    Action::Forget { task } => {
                        prop_assert!(!(open.contains(task) && started.contains_key(task)), "a started task was dropped unreported");
                        open.remove(task);
                        holding.remove(task);
                        started.remove(task);
                    }
                    Action::Poll { .. } => prop_assert!(!left, "polls after leaving"),
                    Action::Exit { .. } => left = true,
                    Action::Unregister => prop_assert_eq!(held, 0),
                    _ => {}
                }
            }
            prop_assert_eq!(holding.len(), held);
        }
    }

    #[test]
    fn a_repeated_event_starts_and_acquires_nothing_more(events in proptest::collection::vec(any_event(), 0..60)) {
        let mut state = agent(3);
        for event in events {
            state.apply(event.clone());
            if matches!(event, Event::Polled(_) | Event::Registered { .. } | Event::Answered { ok: false, .. }) { continue; }
            let again = state.apply(event);
            let repeats = |a: &Action| matches!(a, Action::Start { .. } | Action::Acquire { .. } | Action::WriteAccepted { .. } | Action::WriteEnded { .. } | Action::WriteReported { .. });
            prop_assert!(!again.iter().any(repeats), "{again:?}");
        }
    }
}
