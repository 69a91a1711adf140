//! The machine under arbitrary small pipelines and arbitrary orders of events: it always terminates, replay gives the
//! same state at every prefix, a rollback runs at most once, and nothing starts after its stage ended.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

use pipeline::Plan;
use pipeline::entities::Snapshot;
use pipeline::machine::state::Status;
use pipeline::machine::{
    Action, Actor, Event, Holdup, Intervention, State, UserAction, accepts, apply, interventions, rollback_of,
};
use pipeline::planner::{PlanOptions, plan};
use proptest::prelude::*;
use proto::failure::{Failure, FailureKind};
use proto::result::{StepResult, StepStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A member of a steps list.
#[derive(Clone, Debug)]
enum Member {
    Step(Traits),
    Wait,
    Barrier,
    /// A step that asks for an input when it is reached; maybe it goes on with the default.
    Asks(Traits, bool),
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
    let mut actions =
        vec!["Ignore", "MarkAsSuccess", "MarkAsFailure", "Abort", "Retry", "ManualIntervention"];
    if !rollback {
        actions.extend(["StageRollback", "PipelineRollback"]);
    }
    if in_group {
        actions.push("StepGroupRollback");
        if !rollback {
            actions.push("RetryStepGroup");
        }
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
    let leaf = prop_oneof![4 => traits(false, rollback).prop_map(Member::Step), 1 => Just(Member::Wait),
        1 => Just(Member::Barrier),
        1 => (traits(false, rollback), any::<bool>()).prop_map(|(traits, default)| Member::Asks(traits, default))];
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
            "RetryStepGroup" => ", spec: {retryCount: 2, retryIntervals: [10s]}",
            "ManualIntervention" => ", spec: {timeout: 1h, onTimeout: {action: {type: MarkAsFailure}}}",
            _ => "",
        };
        let errors = if action == "ProceedWithDefaultValues" { "InputTimeoutError" } else { "AllErrors" };
        out.push_str(&format!(
            "{pad}failureStrategies: [{{onFailure: {{errors: [{errors}], action: {{type: {action}{spec}}}}}}}]\n"
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
            Member::Asks(traits, default) => {
                out.push_str(&format!("{pad}- step:\n{pad}    identifier: {id}\n{pad}    name: {id}\n"));
                let suffix = if *default { ".default(calm)" } else { "" };
                out.push_str(&format!("{pad}    type: Noop\n"));
                out.push_str(&format!("{pad}    spec: {{line: '<+input>.executionInput(){suffix}'}}\n"));
                let mut traits = Traits { timeout: true, ..traits.clone() };
                if *default {
                    traits.strategy = Some("ProceedWithDefaultValues");
                }
                if traits.strategy == Some("StepGroupRollback") && !in_group {
                    traits.strategy = None;
                }
                write_traits(out, indent + 4, &traits, "stageStatus");
            }
            Member::Wait => {
                out.push_str(&format!("{pad}- step:\n{pad}    identifier: {id}\n{pad}    name: {id}\n"));
                out.push_str(&format!("{pad}    type: Wait\n{pad}    spec: {{duration: 30s}}\n"));
            }
            Member::Barrier => {
                out.push_str(&format!("{pad}- step:\n{pad}    identifier: {id}\n{pad}    name: {id}\n"));
                out.push_str(&format!("{pad}    type: Barrier\n{pad}    timeout: 1m\n"));
                out.push_str(&format!("{pad}    spec: {{barrierRef: meet}}\n"));
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

/// Takes out barriers that could only be reached one after the other: they are refused. `true` if one is left.
fn thin(members: &mut Vec<Member>, met: bool, beside: bool) -> bool {
    let mut any = met;
    members.retain_mut(|member| {
        let before = if beside { met } else { any };
        let (keep, found) = match member {
            Member::Barrier => (!before, !before),
            Member::Step(_) | Member::Wait | Member::Asks(..) => (true, false),
            Member::Group(inner, ..) => {
                let found = thin(inner, before, false);
                (!inner.is_empty(), found)
            }
            Member::Parallel(inner) => {
                let found = thin(inner, before, true);
                (!inner.is_empty(), found)
            }
        };
        any |= found;
        keep
    });
    any
}

/// The stages as far as they are accepted.
fn accepted(mut stages: Vec<StageSpec>) -> Vec<StageSpec> {
    let (mut forward, mut rollback) = (false, false);
    for stage in &mut stages {
        forward = thin(&mut stage.steps, forward, false);
        rollback = thin(&mut stage.rollback, rollback, false);
        if stage.steps.is_empty() {
            stage.steps.push(Member::Wait);
        }
    }
    stages
}

fn yaml(stages: &[StageSpec]) -> String {
    let mut out = String::from("pipeline:\n  identifier: p\n  name: p\n  timeout: 1h\n");
    out.push_str("  flowControl: {barriers: [{identifier: meet, name: meet}]}\n  stages:\n");
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
        agent: "a".into(),
        ..StepResult::bare(status, kind.map(|kind| Failure::new(kind, "SSH-001", "no")))
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
                Action::Claim { .. } | Action::Release { .. } => panic!("a Custom stage holds nothing"),
                Action::Perform { .. } | Action::RejectOlder { .. } => {
                    panic!("none of these steps is the manager's own")
                }
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

    fn next(&mut self, choice: u8, outcome: u8, now: &mut u64, state: &State) -> Option<Event> {
        *now += 1;
        let at = *now;
        let undecided: Vec<&String> = state
            .runs
            .iter()
            .filter(|(_, run)| run.status == Status::InterventionWaiting)
            .map(|(id, _)| id)
            .collect();
        if choice % 3 == 1 && !undecided.is_empty() {
            let node = undecided[usize::from(choice) % undecided.len()];
            let offered = interventions(state, node);
            let action = offered[usize::from(outcome) % offered.len()];
            return Some(decided(state, node, action, at));
        }
        let asking = asking(state);
        if choice % 3 == 1 && !asking.is_empty() {
            return Some(answered(state, &asking[usize::from(choice) % asking.len()], at));
        }
        let tasks: Vec<(String, u32)> = self.tasks.iter().cloned().collect();
        if choice == 255 {
            return Some(Event::AbortRequested { by: "me".into(), at });
        }
        let use_timer = tasks.is_empty() || choice.is_multiple_of(5);
        if use_timer && let Some((timer, due)) = self.timers.clone().into_iter().min_by_key(|(_, due)| *due) {
            *now = (*now).max(due);
            self.timers.remove(&timer);
            let holdup = match outcome {
                3 => Some(Holdup::Lost { agent: "a".into(), since: 1, undo: None }),
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

fn decided(state: &State, node: &str, action: Intervention, at: u64) -> Event {
    let by = Actor { name: "ann".into(), ..Actor::default() };
    let action = UserAction::Intervene { action };
    accepts(state, node, &by, &action).unwrap();
    Event::UserActed { node: node.to_owned(), attempt: state.runs[node].attempt, by, action, at }
}

/// The steps that ask for inputs.
fn asking(state: &State) -> Vec<String> {
    let asking = state.runs.iter().filter(|(_, run)| run.status == Status::InputWaiting);
    asking.map(|(id, _)| id.clone()).collect()
}

fn answered(state: &State, node: &str, at: u64) -> Event {
    let by = Actor { name: "ann".into(), ..Actor::default() };
    let values = BTreeMap::from([("line".to_owned(), "given".into())]);
    let action = UserAction::GiveInputs { values };
    accepts(state, node, &by, &action).unwrap();
    Event::UserActed { node: node.to_owned(), attempt: state.runs[node].attempt, by, action, at }
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
    let stages = accepted(stages);
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
        // When the script is used up, everything succeeds, and whoever is asked for a decision ends it.
        let (choice, outcome) = choices.next().unwrap_or((1, 3));
        let Some(event) = world.next(choice, outcome, &mut now, &state) else {
            panic!("nothing is under way and it has not ended: {:#?}\n{}", state.runs, yaml(&stages));
        };
        // An answer for another attempt than the present one changes nothing. After a task that was given up, the answer
        // at hand may itself be that of an older attempt.
        if let Event::TaskEnded { node, attempt, result, at } = &event {
            // A group that began again has taken the run away.
            let present = state.runs.get(node).map_or(0, |run| run.attempt);
            for attempt in [attempt - 1, attempt + 1].into_iter().filter(|other| *other != present) {
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
                // A step that asked for inputs had begun before, like any other member of a parallel block.
                let asked = state.runs[&task.node].inputs.is_some();
                if is_forward && task.attempt == 1 && !looped && !asked {
                    assert!(!advised.contains(scope), "{} started after its rollback was advised", task.node);
                }
                if !is_forward {
                    assert!(state.runs[scope].rollback_advised, "{}: nobody advised a rollback", task.node);
                }
            }
            if let Action::Enqueue(task) = action {
                let stage = task.node.split(".spec.").next().unwrap();
                // A rollback of the whole pipeline opens ended stages again, for nothing but their rollback steps.
                let undoes = task.node.contains(".spec.execution.rollbackSteps.");
                assert!(undoes || !ended_stages.contains(stage), "{} started after its stage", task.node);
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
    check_rollback(&state);
    // Replay from storage gives the same state after every event.
    let mut replayed: State = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    for (event, live) in events.iter().zip(&live) {
        let event: Event = serde_json::from_str(&serde_json::to_string(event).unwrap()).unwrap();
        apply(&mut replayed, &event);
        replayed = serde_json::from_str(&serde_json::to_string(&replayed).unwrap()).unwrap();
        assert_eq!(&replayed, live);
    }
}

/// Whatever became of an execution, its rollback runs nothing but rollback steps, and each at most once.
fn check_rollback(finished: &State) {
    let facts = pipeline::plan::RunFacts { execution_id: "r".into(), ..Default::default() };
    let Ok(mut state) = rollback_of(finished, facts) else { return };
    let before: BTreeSet<String> =
        finished.runs.iter().filter(|(_, run)| run.rolled_back).map(|(id, _)| id.clone()).collect();
    let mut world = World::default();
    let actions = apply(&mut state, &Event::Started { at: 1 });
    world.take(&actions, &state);
    let mut now = 1;
    let mut steps = 0;
    while world.finish.is_none() {
        steps += 1;
        assert!(steps < 1_000, "the rollback does not terminate");
        // Who is asked always says MarkAsFailure or Abort: nothing is tried for ever.
        let event = world.next(1, 3, &mut now, &state);
        let event = event.unwrap_or_else(|| panic!("the rollback stands still: {:#?}", state.runs));
        // A crash between any two transitions.
        state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        let actions = apply(&mut state, &event);
        world.take(&actions, &state);
    }
    let unique: BTreeSet<&String> = world.started.iter().collect();
    assert_eq!(unique.len(), world.started.len(), "{:?}", world.started);
    for node in &world.started {
        let (stage, _) = node.split_once(".spec.execution.rollbackSteps.").unwrap();
        assert!(!before.contains(stage), "{stage} was rolled back before");
    }
    assert!(world.timers.is_empty(), "timers left: {:?}", world.timers);
}

/// What is left of a member when the order in which parallel members end cannot decide what else runs: a failure in
/// one branch legitimately keeps later steps of another from running.
fn confluent(member: Member, in_parallel: bool) -> Option<Member> {
    let calm = |mut traits: Traits| {
        if traits.strategy == Some("Abort") {
            traits.strategy = Some("Ignore");
        }
        // A rollback keeps the iterations that are queued from starting. With two of them under way at a time, which those
        // are is a question of order; so it is with one, when a neighbour may fail first. There none is queued.
        traits.repeat =
            traits.repeat.map(|(times, limit)| (times, if in_parallel { 0 } else { limit.min(1) }));
        traits
    };
    Some(match member {
        Member::Step(traits) => Member::Step(calm(traits)),
        Member::Wait => Member::Wait,
        Member::Asks(traits, default) => Member::Asks(calm(traits), default),
        Member::Barrier | Member::Group(..) if in_parallel => return None,
        Member::Barrier => return None,
        Member::Group(inner, traits, undo) => {
            let inner: Vec<Member> = inner.into_iter().filter_map(|m| confluent(m, false)).collect();
            if inner.is_empty() {
                return None;
            }
            Member::Group(inner, Traits { repeat: None, ..calm(traits) }, undo)
        }
        Member::Parallel(inner) => {
            let inner: Vec<Member> = inner.into_iter().filter_map(|m| confluent(m, true)).collect();
            if inner.is_empty() || in_parallel {
                return None;
            }
            Member::Parallel(inner)
        }
    })
}

/// Runs to the end. `pick` chooses among what is open; a result depends on nothing but its node and attempt.
fn run_to_end(
    first: &State,
    seed: u64,
    mut pick: impl FnMut(usize) -> usize,
    crash: bool,
) -> BTreeMap<String, (Status, u32)> {
    let verdict = |node: &str, attempt: u32| {
        let mut hash = DefaultHasher::new();
        (seed, node, attempt).hash(&mut hash);
        u8::try_from(hash.finish() % 7).unwrap()
    };
    let mut state = first.clone();
    let mut world = World::default();
    let mut at = 1;
    let actions = apply(&mut state, &Event::Started { at });
    world.take(&actions, &state);
    while world.finish.is_none() {
        at += 1;
        assert!(at < 5_000, "it does not terminate");
        let mut open: Vec<Event> = Vec::new();
        for (node, attempt) in &world.tasks {
            let result = Box::new(result(verdict(node, *attempt)));
            open.push(Event::TaskEnded { node: node.clone(), attempt: *attempt, result, at });
        }
        for timer in
            world.timers.keys().filter(|timer| timer.starts_with("retry") || timer.starts_with("wait"))
        {
            open.push(Event::TimerFired { timer: timer.clone(), at, holdup: None });
        }
        for (id, run) in state.runs.iter().filter(|(_, run)| run.status == Status::InterventionWaiting) {
            let offered: Vec<Intervention> = interventions(&state, id)
                .into_iter()
                .filter(|action| *action != Intervention::Abort)
                .collect();
            let mut action = offered[usize::from(verdict(id, run.attempt)) % offered.len()];
            if action == Intervention::Retry && run.attempt > 2 {
                action = Intervention::MarkAsFailure;
            }
            open.push(decided(&state, id, action, at));
        }
        open.extend(asking(&state).iter().map(|node| answered(&state, node, at)));
        assert!(!open.is_empty(), "nothing is under way: {:#?}", state.runs);
        let event = open.swap_remove(pick(open.len()));
        match &event {
            Event::TaskEnded { node, attempt, .. } => drop(world.tasks.remove(&(node.clone(), *attempt))),
            Event::TimerFired { timer, .. } => drop(world.timers.remove(timer)),
            _ => {}
        }
        let actions = apply(&mut state, &event);
        world.take(&actions, &state);
        if crash {
            state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        }
    }
    state.runs.iter().map(|(id, run)| (id.clone(), (run.status, run.attempt))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn any_order_of_completion_and_a_crash_after_every_event_end_like_the_reference_run(
        stages in prop::collection::vec(stage(), 1..3),
        seed in any::<u64>(),
        picks in prop::collection::vec(any::<u16>(), 200),
    ) {
        let calm = |members: Vec<Member>| -> Vec<Member> {
            members.into_iter().filter_map(|member| confluent(member, false)).collect()
        };
        let stages: Vec<StageSpec> = stages
            .into_iter()
            .map(|stage| {
                let mut steps = calm(stage.steps);
                steps.push(Member::Step(Traits::default()));
                let mut traits = stage.traits;
                if traits.strategy == Some("Abort") {
                    traits.strategy = None;
                }
                StageSpec { steps, rollback: calm(stage.rollback), traits }
            })
            .collect();
        let first = State::new(planned(&stages));
        let reference = run_to_end(&first, seed, |_| 0, false);
        let mut picks = picks.into_iter().cycle();
        let other = run_to_end(&first, seed, |open| usize::from(picks.next().unwrap()) % open, true);
        prop_assert_eq!(reference, other, "{}", yaml(&stages));
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
