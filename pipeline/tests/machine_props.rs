//! The machine under arbitrary small pipelines and arbitrary orders of events: it always terminates, replay gives the
//! same state at every prefix, a rollback runs at most once, and nothing starts after its stage ended.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

use pipeline::Plan;
use pipeline::entities::Snapshot;
use pipeline::machine::state::Status;
use pipeline::machine::{Action, Event, Holdup, State, apply};
use pipeline::planner::{PlanOptions, plan};
use proptest::prelude::*;
use proto::failure::{Failure, FailureKind};
use proto::result::{StepResult, StepStatus};
use std::collections::{BTreeMap, BTreeSet};

/// A member of a steps list.
#[derive(Clone, Debug)]
enum Member {
    Step(Traits),
    Wait,
    Group(Vec<Member>, Traits, bool),
    Parallel(Vec<Member>),
}

/// What a node may carry.
#[derive(Clone, Debug, Default)]
struct Traits {
    when: Option<&'static str>,
    strategy: Option<&'static str>,
    repeat: Option<(u8, u8)>,
    timeout: bool,
}

fn traits(in_group: bool, rollback: bool) -> impl Strategy<Value = Traits> {
    let mut actions = vec!["Ignore", "MarkAsSuccess", "MarkAsFailure", "Abort", "Retry"];
    if !rollback {
        actions.push("StageRollback");
    }
    if in_group {
        actions.push("StepGroupRollback");
    }
    (
        prop::option::weighted(0.2, prop::sample::select(vec!["Success", "Failure", "All"])),
        prop::option::weighted(0.5, prop::sample::select(actions)),
        prop::option::weighted(0.2, (0..4u8, 0..3u8)),
        any::<bool>(),
    )
        .prop_map(|(when, strategy, repeat, timeout)| Traits { when, strategy, repeat, timeout })
}

fn members(rollback: bool) -> impl Strategy<Value = Vec<Member>> {
    let leaf = prop_oneof![4 => traits(false, rollback).prop_map(Member::Step), 1 => Just(Member::Wait)];
    let member = leaf.prop_recursive(2, 8, 3, move |inner| {
        prop_oneof![
            2 => (prop::collection::vec(inner.clone(), 1..3), traits(true, rollback), any::<bool>())
                .prop_map(|(members, traits, undo)| Member::Group(members, traits, undo)),
            1 => prop::collection::vec(inner, 1..3).prop_map(Member::Parallel),
        ]
    });
    prop::collection::vec(member, 1..4)
}

fn write_traits(out: &mut String, indent: usize, traits: &Traits, status_key: &str) {
    let pad = " ".repeat(indent);
    if let Some(when) = traits.when {
        out.push_str(&format!("{pad}when: {{{status_key}: {when}}}\n"));
    }
    if let Some(action) = traits.strategy {
        let spec = match action {
            "Retry" => {
                ", spec: {retryCount: 2, retryIntervals: [10s], onRetryFailure: {action: {type: MarkAsFailure}}}"
            }
            _ => "",
        };
        out.push_str(&format!(
            "{pad}failureStrategies: [{{onFailure: {{errors: [AllErrors], action: {{type: {action}{spec}}}}}}}]\n"
        ));
    }
    if let Some((times, limit)) = traits.repeat {
        out.push_str(&format!("{pad}strategy: {{repeat: {{times: {times}, maxConcurrency: {limit}}}}}\n"));
    }
    if traits.timeout {
        out.push_str(&format!("{pad}timeout: 1m\n"));
    }
}

fn write_members(out: &mut String, indent: usize, members: &[Member], next: &mut usize, in_group: bool) {
    let pad = " ".repeat(indent);
    for member in members {
        *next += 1;
        let id = format!("n{next}");
        match member {
            Member::Step(traits) => {
                out.push_str(&format!("{pad}- step:\n{pad}    identifier: {id}\n{pad}    name: {id}\n"));
                out.push_str(&format!("{pad}    type: Noop\n{pad}    spec: {{line: hello}}\n"));
                let mut traits = traits.clone();
                if traits.strategy == Some("StepGroupRollback") && !in_group {
                    traits.strategy = None;
                }
                write_traits(out, indent + 4, &traits, "stageStatus");
            }
            Member::Wait => {
                out.push_str(&format!("{pad}- step:\n{pad}    identifier: {id}\n{pad}    name: {id}\n"));
                out.push_str(&format!("{pad}    type: Wait\n{pad}    spec: {{duration: 30s}}\n"));
            }
            Member::Group(inner, traits, undo) => {
                out.push_str(&format!("{pad}- stepGroup:\n{pad}    identifier: {id}\n{pad}    name: {id}\n"));
                write_traits(out, indent + 4, traits, "stageStatus");
                out.push_str(&format!("{pad}    steps:\n"));
                write_members(out, indent + 6, inner, next, true);
                if *undo {
                    out.push_str(&format!("{pad}    rollbackSteps:\n"));
                    write_members(out, indent + 6, &[Member::Step(Traits::default())], next, true);
                }
            }
            Member::Parallel(inner) => {
                out.push_str(&format!("{pad}- parallel:\n"));
                write_members(out, indent + 4, inner, next, in_group);
            }
        }
    }
}

#[derive(Clone, Debug)]
struct StageSpec {
    steps: Vec<Member>,
    rollback: Vec<Member>,
    traits: Traits,
}

fn stage() -> impl Strategy<Value = StageSpec> {
    (members(false), prop_oneof![1 => Just(vec![]), 2 => members(true)], traits(false, false))
        .prop_map(|(steps, rollback, traits)| StageSpec { steps, rollback, traits })
}

fn yaml(stages: &[StageSpec]) -> String {
    let mut out = String::from("pipeline:\n  identifier: p\n  name: p\n  timeout: 1h\n  stages:\n");
    let mut next = 0;
    for (index, stage) in stages.iter().enumerate() {
        out.push_str(&format!("    - stage:\n        identifier: s{index}\n        name: s{index}\n"));
        out.push_str("        type: Custom\n");
        let mut traits = stage.traits.clone();
        traits.repeat = None;
        write_traits(&mut out, 8, &traits, "pipelineStatus");
        out.push_str("        spec:\n          execution:\n            steps:\n");
        write_members(&mut out, 14, &stage.steps, &mut next, false);
        if !stage.rollback.is_empty() {
            out.push_str("            rollbackSteps:\n");
            write_members(&mut out, 14, &stage.rollback, &mut next, false);
        }
    }
    out
}

fn planned(stages: &[StageSpec]) -> Plan {
    let text = yaml(stages);
    let options = PlanOptions { execution_id: "e".into(), sequence_id: 1, ..PlanOptions::default() };
    plan("p.yaml", &text, &Snapshot::default(), &options)
        .unwrap_or_else(|faults| panic!("{faults:?}\n{text}"))
}

fn result(choice: u8) -> StepResult {
    let (status, kind) = match choice % 8 {
        0..=3 => (StepStatus::Success, None),
        4 => (StepStatus::Skipped, None),
        5 => (StepStatus::Failed, Some(FailureKind::Connectivity)),
        6 => (StepStatus::Failed, Some(FailureKind::RemoteFailed)),
        _ => (StepStatus::Aborted, Some(FailureKind::DelegateRestart)),
    };
    StepResult {
        status,
        failure: kind.map(|kind| Failure::new(kind, "SSH-001", "no")),
        outputs: BTreeMap::new(),
        undo: None,
        units: vec![],
        learned_host_keys: vec![],
        agent: "a".into(),
        fence: 0,
        notices: vec![],
    }
}

/// The world around the machine: open tasks and timers, from which the next event is chosen.
#[derive(Default)]
struct World {
    tasks: BTreeSet<(String, u32)>,
    timers: BTreeMap<String, u64>,
    started: Vec<String>,
    finish: Option<String>,
}

impl World {
    fn take(&mut self, actions: &[Action], state: &State) {
        for action in actions {
            assert!(self.finish.is_none(), "an action after Finish: {action:?}");
            match action {
                Action::Enqueue(task) => {
                    self.started.push(format!("{}#{}", task.node, task.attempt));
                    assert!(self.tasks.insert((task.node.clone(), task.attempt)), "twice: {}", task.node);
                    let stage = task.node.split(".spec.").next().unwrap();
                    let stage = &state.runs[stage];
                    // Only what settled in the same transition may have ended the stage since.
                    assert!(stage.status == Status::Running || stage.status.is_final());
                }
                Action::CancelTask { node, attempt, .. } => {
                    assert!(
                        self.tasks.contains(&(node.clone(), *attempt)),
                        "cancel of a task that is not out"
                    );
                }
                Action::Perform { .. } => panic!("none of these steps is the manager's own"),
                Action::SetTimer { timer, at } => {
                    self.timers.insert(timer.clone(), *at);
                }
                Action::ClearTimer { timer } => {
                    self.timers.remove(timer);
                }
                Action::Finish { status } => {
                    assert_eq!(status, state.status().name());
                    self.finish = Some(status.clone());
                }
            }
        }
    }

    fn next(&mut self, choice: u8, outcome: u8, now: &mut u64, patient: bool) -> Option<Event> {
        *now += 1;
        let at = *now;
        let tasks: Vec<(String, u32)> = self.tasks.iter().cloned().collect();
        if !patient && choice == 255 {
            return Some(Event::AbortRequested { by: "me".into(), at });
        }
        let use_timer = tasks.is_empty() || choice.is_multiple_of(5);
        if use_timer && let Some((timer, due)) = self.timers.clone().into_iter().min_by_key(|(_, due)| *due) {
            *now = (*now).max(due);
            self.timers.remove(&timer);
            let holdup = match outcome {
                3 => Some(Holdup::Lost { agent: "a".into(), since: 1 }),
                4 => Some(Holdup::Waiting { why: "all 1 fitting agents are busy".into() }),
                _ => None,
            };
            return Some(Event::TimerFired { timer, at: *now, holdup });
        }
        let (node, attempt) = tasks.get(usize::from(choice) % tasks.len().max(1))?.clone();
        self.tasks.remove(&(node.clone(), attempt));
        let result = Box::new(result(outcome));
        Some(Event::TaskEnded { node, attempt, result, at })
    }
}

/// The stage or group whose list the outermost part of a node's id names, and whether it is the forward list.
fn scope_of(node: &str) -> (&str, bool) {
    match (node.find(".spec.execution.rollbackSteps."), node.find(".rollbackSteps.")) {
        (Some(at), _) => (&node[..at], false),
        (None, Some(at)) => (&node[..at], false),
        (None, None) => (&node[..node.find(".spec.").unwrap()], true),
    }
}

fn ancestors<'a>(state: &'a State, id: &'a str) -> impl Iterator<Item = &'a pipeline::machine::state::Run> {
    let up = |run: &&'a pipeline::machine::state::Run| run.parent.as_ref().map(|parent| &state.runs[parent]);
    std::iter::successors(state.runs.get(id), up)
}

fn check(stages: Vec<StageSpec>, choices: Vec<(u8, u8)>) {
    let plan = planned(&stages);
    let first = State::new(plan);
    let mut state = first.clone();
    let mut events = vec![Event::Started { at: 1 }];
    let mut world = World::default();
    let mut live = vec![first.clone()];
    let mut now = 1;
    let actions = apply(&mut state, &events[0]);
    world.take(&actions, &state);
    live[0] = state.clone();
    let mut choices = choices.into_iter();
    let mut steps = 0;
    let mut ended_stages: BTreeSet<String> = BTreeSet::new();
    while world.finish.is_none() {
        steps += 1;
        assert!(steps < 2_000, "it does not terminate");
        // When the script is used up, everything succeeds.
        let (choice, outcome) = choices.next().unwrap_or((1, 0));
        let Some(event) = world.next(choice, outcome, &mut now, false) else {
            panic!("nothing is under way and it has not ended: {:#?}\n{}", state.runs, yaml(&stages));
        };
        // An answer for another attempt than the one that is out changes nothing.
        if let Event::TaskEnded { node, attempt, result, at } = &event {
            for attempt in [attempt - 1, attempt + 1] {
                let (node, result, at) = (node.clone(), result.clone(), *at);
                let before = state.clone();
                assert!(apply(&mut state, &Event::TaskEnded { node, attempt, result, at }).is_empty());
                assert_eq!(state, before);
            }
        }
        let advised: BTreeSet<String> =
            state.runs.iter().filter(|(_, run)| run.rollback_advised).map(|(id, _)| id.clone()).collect();
        let actions = apply(&mut state, &event);
        for action in &actions {
            if let Action::Enqueue(task) = action {
                let (scope, is_forward) = scope_of(&task.node);
                let looped = ancestors(&state, &task.node).any(|run| run.iteration.is_some());
                if is_forward && task.attempt == 1 && !looped {
                    assert!(!advised.contains(scope), "{} started after its rollback was advised", task.node);
                }
                if !is_forward {
                    assert!(state.runs[scope].rollback_advised, "{}: nobody advised a rollback", task.node);
                }
            }
            if let Action::Enqueue(task) = action {
                let stage = task.node.split(".spec.").next().unwrap();
                assert!(!ended_stages.contains(stage), "{} started after its stage", task.node);
            }
        }
        world.take(&actions, &state);
        for (id, run) in state.runs.iter() {
            if run.status.is_final() && id.matches('.').count() == 2 {
                ended_stages.insert(id.clone());
            }
        }
        events.push(event.clone());
        live.push(state.clone());
        // An event that is delivered twice changes nothing.
        let before = state.clone();
        assert!(
            apply(&mut state, &event).is_empty() || matches!(event, Event::TimerFired { .. }),
            "{event:?}"
        );
        if !matches!(event, Event::TimerFired { .. }) {
            assert_eq!(state, before, "{event:?}");
        } else {
            state = before;
        }
    }
    // Each node attempt was started once; so no rollback step ran twice.
    let unique: BTreeSet<&String> = world.started.iter().collect();
    assert_eq!(unique.len(), world.started.len(), "{:?}", world.started);
    for run in state.runs.values() {
        assert!(run.status.is_final(), "{run:?}");
        assert_eq!(run.open, 0);
    }
    assert!(world.timers.is_empty(), "timers left: {:?}", world.timers);
    // Replay from storage gives the same state after every event.
    let mut replayed: State = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    for (event, live) in events.iter().zip(&live) {
        let event: Event = serde_json::from_str(&serde_json::to_string(event).unwrap()).unwrap();
        apply(&mut replayed, &event);
        replayed = serde_json::from_str(&serde_json::to_string(&replayed).unwrap()).unwrap();
        assert_eq!(&replayed, live);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_pipeline_under_any_order_of_events(
        stages in prop::collection::vec(stage(), 1..3),
        choices in prop::collection::vec((any::<u8>(), any::<u8>()), 0..80),
    ) {
        check(stages, choices);
    }
}
