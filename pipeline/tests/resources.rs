//! Deployment stages queue for their infrastructure: one execution at a time, in the order of arrival.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::Plan;
use pipeline::machine::state::Status;
use pipeline::machine::{Action, Actor, Event, State, UserAction, apply, rollback_of};
use pipeline::plan::RunFacts;
use pipeline::view::execution_view;
use proptest::prelude::*;
use proto::failure::{FailureKind, FailureType};
use std::collections::{BTreeMap, VecDeque};
use support::*;

const STAGE: &str = "pipeline.stages.s";

fn grant(world: &mut World, node: &str) {
    let node = node.to_owned();
    world.event(|at| Event::Granted { node, at });
}

fn waiting(yaml: &str) -> World {
    World::start_claiming(planned(yaml), Some(Vec::new()))
}

#[test]
fn a_stage_waits_for_its_infrastructure_and_holds_it_to_its_end() {
    let mut world = waiting(&deployment(&noop("a", ""), &noop("undo", "")));
    assert_eq!(world.status(STAGE), "ResourceWaiting");
    assert!(world.tasks.is_empty());
    assert_eq!(world.claims.as_deref().unwrap(), [STAGE]);
    let view = execution_view(&world.state, None);
    assert_eq!(view.status, Status::ResourceWaiting);
    assert_eq!(view.stages[0].waiting_for.as_deref(), Some("its turn on the infrastructure `farm`"));
    let key = view.stages[0].infrastructure_key.clone().unwrap();
    assert_eq!(key.len(), 40);
    grant(&mut world, STAGE);
    let before = world.state.clone();
    grant(&mut world, STAGE);
    assert_eq!(world.state, before, "a second grant changes nothing");
    // Its rollback still holds it.
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!(world.claims.as_deref().unwrap(), [STAGE]);
    world.answer(success());
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    assert!(world.claims.unwrap().is_empty());
    // The key does not depend on the pipeline, but on what is deployed where.
    let other = planned(&deployment(&noop("b", ""), "").replace("identifier: p", "identifier: q"));
    assert_eq!(other.target_of(1).unwrap().infrastructure.key, key);
}

#[test]
fn an_abort_and_the_stage_timeout_end_the_wait() {
    let mut world = waiting(&deployment(&noop("a", ""), ""));
    world.abort();
    assert_eq!((world.status(STAGE), world.finished.as_deref()), ("Aborted", Some("Aborted")));
    assert!(world.claims.unwrap().is_empty() && world.timers.is_empty());

    let yaml = deployment(&noop("a", ""), &noop("undo", ""))
        .replace("        type: Deployment", "        timeout: 10m\n        type: Deployment");
    let mut world = waiting(&yaml);
    world.fire("timeout/0/pipeline.stages.s");
    let failure = world.state.runs[STAGE].failure.clone().unwrap();
    assert_eq!((failure.class, failure.code.as_str()), (FailureType::Timeout, "PIPE-011"));
    assert!(failure.message.contains("waited 10m"), "{failure:?}");
    // Nothing has run, so nothing is rolled back.
    assert_eq!((world.status(STAGE), world.finished.as_deref()), ("Expired", Some("Expired")));
    assert!(world.tasks.is_empty() && world.claims.unwrap().is_empty());
}

#[test]
fn who_may_deploy_at_once_and_who_deploys_nothing_waits_for_nobody() {
    let world = waiting(&custom("", &noop("a", ""), ""));
    assert_eq!((world.step("a"), world.tasks.len()), ("Running", 1));
    let older = "pipeline:
  identifier: p
  name: p
  stages:
    - stage:
        identifier: s
        name: s
        type: Deployment
        spec:
          serviceConfig: {serviceRef: web}
          infrastructure:
            environmentRef: prod
            allowSimultaneousDeployments: true
            infrastructureDefinition: {type: Pdc, spec: {credentialsRef: key, hosts: [h1]}}
          execution: {steps: [{step: {identifier: a, name: a, type: Noop, spec: {line: x}}}]}
";
    assert_eq!(waiting(older).step("a"), "Running");
    assert_eq!(waiting(&older.replace("true", "false")).status(STAGE), "ResourceWaiting");
    let inline = older
        .replace("            allowSimultaneousDeployments: true\n", "")
        .replace("{type: Pdc,", "{allowSimultaneousDeployments: true, type: Pdc,");
    assert_eq!(waiting(&inline).step("a"), "Running");
    let wrong = faults(&older.replace("true", "perhaps"));
    assert!(wrong[0].message.contains("expected `true` or `false`"), "{wrong:?}");
}

#[test]
fn a_rollback_of_an_execution_waits_for_its_turn_too() {
    let mut world = World::start(&deployment(&noop("a", ""), &noop("undo", "")));
    world.answer(success());
    let facts = RunFacts { execution_id: "r".into(), ..RunFacts::default() };
    let state = rollback_of(&world.state, facts).unwrap();
    let mut world = waiting(&custom("", &noop("a", ""), ""));
    world.state = state;
    world.tasks.clear();
    world.event(|at| Event::Started { at });
    assert_eq!(world.status(STAGE), "ResourceWaiting");
    assert!(world.tasks.is_empty());
    grant(&mut world, STAGE);
    world.answer(success());
    assert_eq!(world.finished.as_deref(), Some("Success"));
    assert!(execution_view(&world.state, None).rolled_back);

    // Aborted before its turn, nothing was rolled back, and it may be tried again.
    let mut world = World::start(&deployment(&noop("a", ""), &noop("undo", "")));
    world.answer(success());
    let finished = world.state.clone();
    let facts = RunFacts { execution_id: "r".into(), ..RunFacts::default() };
    let mut world = waiting(&custom("", &noop("a", ""), ""));
    world.state = rollback_of(&finished, facts).unwrap();
    world.event(|at| Event::Started { at });
    world.abort();
    assert_eq!(world.finished.as_deref(), Some("Aborted"));
    assert!(!world.state.runs[STAGE].rolled_back && world.claims.unwrap().is_empty());
}

/// Several executions and the queue that the store keeps for them.
struct Executions {
    states: Vec<State>,
    tasks: Vec<VecDeque<(String, u32)>>,
    /// Execution and stage by key, in the order of arrival.
    queues: BTreeMap<String, Vec<(usize, String)>>,
    granted: Vec<(String, usize)>,
    arrived: Vec<(String, usize)>,
    at: u64,
}

impl Executions {
    fn event(&mut self, index: usize, make: impl FnOnce(u64) -> Event) {
        self.at += 1;
        let event = make(self.at);
        for action in apply(&mut self.states[index], &event) {
            match action {
                Action::Enqueue(task) => self.tasks[index].push_back((task.node.clone(), task.attempt)),
                Action::Claim { node, key } => {
                    self.arrived.push((key.clone(), index));
                    self.queues.entry(key).or_default().push((index, node));
                }
                Action::Release { node } => {
                    let found: usize = self
                        .queues
                        .values_mut()
                        .map(|queue| {
                            let before = queue.len();
                            queue.retain(|claim| *claim != (index, node.clone()));
                            before - queue.len()
                        })
                        .sum();
                    assert_eq!(found, 1, "{node} gave back what it did not have");
                }
                Action::Finish { .. } => {
                    assert!(
                        self.queues.values().flatten().all(|(owner, _)| *owner != index),
                        "an execution ended and stands in a queue"
                    );
                }
                _ => {}
            }
        }
        // A crash between any two transitions.
        let stored = serde_json::to_string(&self.states[index]).unwrap();
        self.states[index] = serde_json::from_str(&stored).unwrap();
        for (key, queue) in &self.queues {
            let holder = queue.first().map(|(owner, _)| *owner);
            for (index, state) in self.states.iter().enumerate() {
                let works = state.runs.values().any(|run| {
                    run.claim.as_ref() == Some(key)
                        && run.status != Status::ResourceWaiting
                        && run.status.is_open()
                });
                assert!(!works || holder == Some(index), "{index} works on {key}, which {holder:?} holds");
            }
        }
    }

    /// What may happen next.
    fn open(&self) -> Vec<(usize, Next)> {
        let mut open = Vec::new();
        for (index, tasks) in self.tasks.iter().enumerate() {
            open.extend((0..tasks.len()).map(|task| (index, Next::Answer(task))));
        }
        for queue in self.queues.values() {
            let Some((holder, _)) = queue.first() else { continue };
            for (owner, node) in queue.iter().filter(|(owner, _)| owner == holder) {
                if self.states[*owner].runs[node].status == Status::ResourceWaiting {
                    open.push((*owner, Next::Grant(node.clone())));
                }
            }
        }
        open
    }
}

enum Next {
    Answer(usize),
    Grant(String),
}

/// Two stages beside each other on different infrastructures, whose first steps meet at a barrier. The first one asks for a
/// variable when it is reached.
fn meeting_stages() -> Plan {
    let stage = |id: &str, hosts: &str, more: &str| {
        format!(
            "stage: {{identifier: {id}, name: {id}, type: Deployment, {more} spec: {{serviceConfig: {{serviceRef: web}}, infrastructure: {{environmentRef: prod, infrastructureDefinition: {{type: Pdc, spec: {{credentialsRef: key, hosts: [{hosts}]}}}}}}, execution: {{steps: [{{step: {{identifier: b, name: b, type: Barrier, spec: {{barrierRef: meet}}}}}}]}}}}}}"
        )
    };
    let asks = "variables: [{name: v, type: String, value: '<+input>.executionInput()'}],";
    let (one, two) = (stage("s1", "h1", asks), stage("s2", "h2", ""));
    planned(&format!(
        "pipeline:\n  identifier: p\n  name: p\n  flowControl: {{barriers: [{{identifier: meet, name: meet}}]}}\n  stages:\n    - parallel:\n        - {one}\n        - {two}\n"
    ))
}

#[test]
fn stages_that_meet_at_a_barrier_never_block_two_executions_against_each_other() {
    // Whoever is asked for the input first: the other execution must not get in between.
    for order in [[0, 1], [1, 0]] {
        let mut all = Executions {
            states: vec![State::new(meeting_stages()), State::new(meeting_stages())],
            tasks: vec![VecDeque::new(); 2],
            queues: BTreeMap::new(),
            granted: Vec::new(),
            arrived: Vec::new(),
            at: 0,
        };
        for index in 0..2 {
            all.event(index, |at| Event::Started { at });
        }
        let mut asked = order.into_iter();
        for _ in 0..20 {
            let grants: Vec<_> = all.open();
            for next in grants {
                if let (index, Next::Grant(node)) = next {
                    all.event(index, |at| Event::Granted { node: node.clone(), at });
                }
            }
            let waits = |state: &State| {
                let run = &state.runs["pipeline.stages.s1"];
                run.status == Status::InputWaiting
            };
            // The first of this order that waits for a person gets its answer.
            let next = asked.clone().find(|index| waits(&all.states[*index]));
            if let Some(index) = next {
                let by = Actor { name: "ann".into(), principal: "ann".into(), ..Actor::default() };
                let values = BTreeMap::from([("v".to_owned(), serde_json::json!("x"))]);
                let node = "pipeline.stages.s1".to_owned();
                let attempt = all.states[index].runs[&node].attempt;
                let action = UserAction::GiveInputs { values };
                all.event(index, |at| Event::UserActed { node, attempt, by, action, at });
            }
        }
        asked.by_ref().for_each(|index| {
            let status = all.states[index].runs["pipeline"].status.name();
            assert_eq!(status, "Success", "{order:?}: {index} stands still: {:#?}", all.states[index].runs);
        });
        assert!(all.queues.values().all(Vec::is_empty));
    }
}

/// Two stages, one after the other or beside each other, each on one of two infrastructures.
fn two_stages(second: bool, parallel: bool) -> Plan {
    let stage = |id: &str, hosts: &str| {
        format!(
            "stage: {{identifier: {id}, name: {id}, type: Deployment, spec: {{serviceConfig: {{serviceRef: web}}, infrastructure: {{environmentRef: prod, infrastructureDefinition: {{type: Pdc, spec: {{credentialsRef: key, hosts: [{hosts}]}}}}}}, execution: {{steps: [{{step: {{identifier: a, name: a, type: Noop, spec: {{line: x}}}}}}], rollbackSteps: [{{step: {{identifier: u, name: u, type: Noop, spec: {{line: x}}}}}}]}}}}}}"
        )
    };
    let (one, two) = (stage("s1", "h1"), stage("s2", if second { "h2" } else { "h1" }));
    let stages = match parallel {
        true => format!("    - parallel:\n        - {one}\n        - {two}\n"),
        false => format!("    - {one}\n    - {two}\n"),
    };
    planned(&format!("pipeline:\n  identifier: p\n  name: p\n  stages:\n{stages}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn at_most_one_execution_works_on_an_infrastructure_and_all_of_them_end(
        kinds in prop::collection::vec((any::<bool>(), any::<bool>()), 2..5),
        choices in prop::collection::vec((any::<u16>(), any::<u8>()), 0..60),
    ) {
        let count = kinds.len();
        let mut all = Executions {
            states: kinds.iter().map(|(second, parallel)| State::new(two_stages(*second, *parallel))).collect(),
            tasks: vec![VecDeque::new(); count],
            queues: BTreeMap::new(),
            granted: Vec::new(),
            arrived: Vec::new(),
            at: 0,
        };
        for index in 0..count {
            all.event(index, |at| Event::Started { at });
        }
        let mut choices = choices.into_iter();
        for _ in 0..500 {
            let open = all.open();
            if open.is_empty() {
                break;
            }
            let (choice, outcome) = choices.next().unwrap_or((0, 0));
            if outcome > 250 {
                let index = usize::from(choice) % count;
                all.event(index, |at| Event::AbortRequested { by: "me".into(), at });
                continue;
            }
            match &open[usize::from(choice) % open.len()] {
                (index, Next::Grant(node)) => {
                    let key = all.states[*index].runs[node].claim.clone().unwrap();
                    all.granted.push((key, *index));
                    all.event(*index, |at| Event::Granted { node: node.clone(), at });
                }
                (index, Next::Answer(task)) => {
                    let (node, attempt) = all.tasks[*index].remove(*task).unwrap();
                    let result = match outcome % 4 {
                        0 => failed(FailureKind::RemoteFailed),
                        _ => success(),
                    };
                    all.event(*index, |at| Event::TaskEnded { node, attempt, result: Box::new(result), at });
                }
            }
        }
        for state in &all.states {
            prop_assert!(state.finished, "it stands still: {:#?}", state.runs);
        }
        prop_assert!(all.queues.values().all(Vec::is_empty));
        // Who came first is served first: of the first claims of two executions on a key, the earlier one is granted first.
        for (key, _) in &all.arrived {
            let first = |list: &[(String, usize)], index: usize| list.iter().position(|one| *one == (key.clone(), index));
            for a in 0..count {
                for b in 0..count {
                    if let (Some(a1), Some(b1), Some(a2), Some(b2)) = (
                        first(&all.arrived, a), first(&all.arrived, b), first(&all.granted, a), first(&all.granted, b),
                    ) {
                        prop_assert_eq!(a1 < b1, a2 < b2, "{} and {} on {}", a, b, key);
                    }
                }
            }
        }
    }
}
