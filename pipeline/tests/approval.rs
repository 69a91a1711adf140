//! HarnessApproval: who may decide, what a decision needs, and what follows from it (pipeline.md 4.1).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::machine::state::Status;
use pipeline::machine::{Actor, Event, Refusal, UserAction, accepts};
use pipeline::planner::PlanOptions;
use pipeline::view::{ApprovalView, execution_view};
use proto::failure::FailureType;
use serde_json::json;
use std::collections::BTreeMap;
use support::*;

const NODE: &str = "pipeline.stages.s.spec.execution.steps.gate";

/// A step `gate` with further keys of its spec (at the depth of `approvers`) and of the step.
fn gate(approvers: &str, spec: &str, more: &str) -> String {
    format!(
        "- step:\n    identifier: gate\n    name: gate\n    type: HarnessApproval\n    timeout: 7d\n    spec:
      approvalMessage: \"Deploy <+pipeline.variables.tag>?\"\n      approvers: {{{approvers}}}\n{}{}",
        indent(6, spec),
        indent(4, more)
    )
}

fn indent(by: usize, lines: &str) -> String {
    lines.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

fn yaml(gate: &str, rollback: &str) -> String {
    let after = noop("after", "")
        .replace("line: x", "line: \"<+execution.steps.gate.output.approverInputs.ticket>\"");
    custom("variables: [{name: tag, type: String, value: v2}]", &(gate.to_owned() + &after), rollback)
}

fn with_groups() -> PlanOptions {
    let groups = ["qa", "ops", "account.ops", "org.qa"].map(str::to_owned).into();
    PlanOptions { groups, started_by: "me@x.org".into(), ..options() }
}

fn start(yaml: &str) -> World {
    World::start_with(planned_with(yaml, &with_groups()))
}

fn actor(email: &str, groups: &[&str]) -> Actor {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Actor { name: email.to_owned(), email: email.to_owned(), groups, principal: email.to_owned() }
}

fn approve(inputs: &[(&str, &str)]) -> UserAction {
    let inputs = inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    UserAction::Approve { inputs, comments: "fine".to_owned() }
}

fn reject() -> UserAction {
    UserAction::Reject { inputs: BTreeMap::new(), comments: "not today".to_owned() }
}

/// Acts as the manager does: asks first, then sends the event. A refusal must leave the state as it was.
fn act(world: &mut World, by: &Actor, action: UserAction) -> Result<(), Refusal> {
    let asked = accepts(&world.state, NODE, by, &action);
    let before = world.state.clone();
    let (node, by) = (NODE.to_owned(), by.clone());
    world.event(|at| Event::UserActed { node, attempt: 1, by, action, at });
    assert_eq!(asked.is_err(), before == world.state, "the event and the question must agree: {asked:?}");
    asked
}

fn shown(world: &World) -> ApprovalView {
    let view = execution_view(&world.state, None);
    view.stages[0].steps.iter().find(|step| step.identifier == "gate").unwrap().approval.clone().unwrap()
}

#[test]
fn approvals_are_counted_over_the_union_of_the_groups() {
    let mut world = start(&yaml(&gate("userGroups: [qa, account.ops], minimumCount: 2", "", ""), ""));
    assert_eq!(world.step("gate"), "ApprovalWaiting");
    assert_eq!(shown(&world).asked.message, "Deploy v2?");
    assert_eq!(shown(&world).asked.deadline, shown(&world).asked.asked_at + 7 * 86_400_000);
    let refused = |result: Result<(), Refusal>, part: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    // `ops` of the project is another group than `account.ops`, and nothing similar counts.
    refused(
        act(&mut world, &actor("eve@x.org", &["ops", "QA", "org.qa"]), approve(&[])),
        "none of the user groups",
    );
    refused(act(&mut world, &actor("no@x.org", &[]), reject()), "no@x.org may not do this");
    act(&mut world, &actor("ann@x.org", &["qa"]), approve(&[])).unwrap();
    assert_eq!((world.step("gate"), shown(&world).status.as_str()), ("ApprovalWaiting", "WAITING"));
    refused(
        act(&mut world, &actor("ann@x.org", &["qa", "account.ops"]), approve(&[])),
        "acted on this approval already",
    );
    // Nobody said that the executor may not.
    act(&mut world, &actor("me@x.org", &["account.ops"]), approve(&[])).unwrap();
    assert_eq!((world.step("gate"), shown(&world).status.as_str()), ("Success", "APPROVED"));
    assert!(!world.timers.keys().any(|timer| timer.contains("gate")), "{:?}", world.timers);
    let late = act(&mut world, &actor("bob@x.org", &["qa"]), reject());
    assert!(matches!(late, Err(Refusal::NotWaiting { status: Status::Success, .. })), "{late:?}");
    let view = execution_view(&world.state, None);
    let activities = &view.stages[0].steps[0].outputs["approvalActivities"];
    assert_eq!(activities[0]["user"], json!({ "name": "ann@x.org", "email": "ann@x.org" }));
    assert_eq!((&activities[1]["action"], &activities[1]["comments"]), (&json!("APPROVE"), &json!("fine")));
}

#[test]
fn the_executor_and_named_people_are_refused() {
    let approvers = "userGroups: [qa], minimumCount: 1, disallowPipelineExecutor: true, disallowedUserEmails: [bob@x.org]";
    let mut world = start(&yaml(&gate(approvers, "", ""), ""));
    for action in [approve(&[]), reject()] {
        let refusal = act(&mut world, &actor("me@x.org", &["qa"]), action).unwrap_err().to_string();
        assert!(
            refusal.contains("me@x.org may not") && refusal.contains("started this execution"),
            "{refusal}"
        );
    }
    let refusal = act(&mut world, &actor("bob@x.org", &["qa"]), approve(&[])).unwrap_err().to_string();
    assert!(refusal.contains("disallowedUserEmails"), "{refusal}");
    act(&mut world, &actor("ann@x.org", &["qa"]), approve(&[])).unwrap();
    assert_eq!(world.step("gate"), "Success");
}

const INPUTS: &str = "approverInputs:
  - {name: ticket, label: Ticket, type: String, required: true, regex: 'CHG-[0-9]+', defaultValue: CHG-<+pipeline.sequenceId>}
  - {name: zone, selectOneFrom: [eu, us]}
  - {name: teams, selectManyFrom: 'a, b, c'}
  - {name: note}";

#[test]
fn an_approval_brings_exactly_the_declared_inputs_and_later_steps_read_them() {
    let mut world = start(&yaml(&gate("userGroups: [qa], minimumCount: 2", INPUTS, ""), ""));
    assert_eq!(shown(&world).asked.inputs[0].default_value.as_deref(), Some("CHG-3"));
    let ann = actor("ann@x.org", &["qa"]);
    for (inputs, field, part) in [
        (&[("ticket", "CHG-1")][..], "zone", "must bring"),
        (
            &[("ticket", "CHG-1"), ("zone", "eu"), ("teams", ""), ("note", ""), ("x", "")],
            "x",
            "declares ticket, zone",
        ),
        (&[("ticket", ""), ("zone", "eu"), ("teams", ""), ("note", "")], "ticket", "required"),
        (&[("ticket", "xCHG-1"), ("zone", "eu"), ("teams", ""), ("note", "")], "ticket", "does not match"),
        (&[("ticket", "CHG-1"), ("zone", "EU"), ("teams", ""), ("note", "")], "zone", "`EU` is not allowed"),
        (
            &[("ticket", "CHG-1"), ("zone", "eu"), ("teams", "a,d"), ("note", "")],
            "teams",
            "`d` is not allowed",
        ),
    ] {
        match act(&mut world, &ann, approve(inputs)) {
            Err(Refusal::BadValue { field: found, why }) => {
                assert_eq!(found, field);
                assert!(why.contains(part), "{why}");
            }
            other => panic!("{inputs:?}: {other:?}"),
        }
    }
    let long = "x".repeat(5000);
    let too_long = approve(&[("ticket", "CHG-1"), ("zone", "eu"), ("teams", ""), ("note", &long)]);
    assert!(act(&mut world, &ann, too_long).unwrap_err().to_string().contains("limit"));
    act(&mut world, &ann, approve(&[("ticket", "CHG-1"), ("zone", "eu"), ("teams", "a, c"), ("note", "")]))
        .unwrap();
    let last = approve(&[("ticket", "CHG-2"), ("zone", ""), ("teams", ""), ("note", "<+pipeline.name>")]);
    act(&mut world, &actor("bob@x.org", &["qa"]), last).unwrap();
    // Those of the last activity count.
    let task = world.tasks.front().unwrap();
    let step = serde_json::to_value(&task.task.step).unwrap();
    assert!(step.to_string().contains("CHG-2") && !step.to_string().contains("CHG-1"), "{step}");
    let view = execution_view(&world.state, None);
    assert_eq!(
        view.stages[0].steps[0].outputs["approverInputs"]["note"], "<+pipeline.name>",
        "never evaluated"
    );
}

#[test]
fn one_rejection_ends_it_and_the_strategies_follow() {
    let strategies = "failureStrategies:
  - onFailure: {errors: [ApprovalRejection], action: {type: StageRollback}}";
    let text = yaml(&gate("userGroups: [qa], minimumCount: 2", INPUTS, strategies), &noop("undo", ""));
    let mut world = start(&text);
    act(&mut world, &actor("ann@x.org", &["qa"]), reject()).unwrap();
    assert_eq!((world.step("gate"), world.step("after")), ("ApprovalRejected", "NotStarted"));
    assert_eq!(shown(&world).status, "REJECTED");
    world.answer_all(|_| success());
    assert_eq!(world.order, ["undo"]);
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    let failure = world.state.runs.get(NODE).unwrap().failure.clone().unwrap();
    assert_eq!((failure.class, failure.code.as_str()), (FailureType::ApprovalRejection, "PIPE-031"));
    assert!(failure.message.contains("ann@x.org"), "{failure:?}");

    // Without a strategy the rejection itself is the end.
    let mut world = start(&yaml(&gate("userGroups: [qa]", "", ""), ""));
    act(&mut world, &actor("ann@x.org", &["qa"]), reject()).unwrap();
    assert_eq!((world.step("gate"), world.step("after")), ("ApprovalRejected", "Skipped"));
    assert_eq!(world.finished.as_deref(), Some("ApprovalRejected"));

    // A retry asks again, with nobody having acted.
    let retry = "failureStrategies:
  - onFailure: {errors: [AllErrors], action: {type: Retry, spec: {retryCount: 1, retryIntervals: [1m], onRetryFailure: {action: {type: MarkAsFailure}}}}}";
    let mut world = start(&yaml(&gate("userGroups: [qa]", "", retry), ""));
    act(&mut world, &actor("ann@x.org", &["qa"]), reject()).unwrap();
    assert_eq!(world.step("gate"), "Running");
    world.fire("retry");
    assert_eq!((world.step("gate"), shown(&world).asked.activities.len()), ("ApprovalWaiting", 0));

    // So does one after the time was over: in between nobody is waited for.
    let mut world = start(&yaml(&gate("userGroups: [qa]", "", retry), ""));
    world.fire(&format!("timeout/1/{NODE}"));
    assert_eq!(world.step("gate"), "Running");
    world.fire("retry");
    assert_eq!((world.step("gate"), shown(&world).asked.activities.len()), ("ApprovalWaiting", 0));
}

#[test]
fn a_timeout_takes_its_own_strategy_beside_that_of_the_stage() {
    let own = "failureStrategies:
  - onFailure: {errors: [Timeout], action: {type: Abort}}
  - onFailure: {errors: [AllErrors], action: {type: StageRollback}}";
    let mut world = start(&yaml(&gate("userGroups: [qa]", "", own), &noop("undo", "")));
    world.fire(&format!("timeout/1/{NODE}"));
    assert_eq!((world.step("gate"), shown(&world).status.as_str()), ("Expired", "EXPIRED"));
    assert_eq!(world.finished.as_deref(), Some("Aborted"));
    assert!(world.order.is_empty(), "nothing is rolled back");
    let failure = world.state.runs.get(NODE).unwrap().failure.clone().unwrap();
    assert_eq!(failure.class, FailureType::Timeout);
}

#[test]
fn an_abort_ends_the_wait() {
    let mut world = start(&yaml(&gate("userGroups: [qa]", "", ""), ""));
    world.abort();
    assert_eq!((world.step("gate"), shown(&world).status.as_str()), ("Aborted", "ABORTED"));
    assert_eq!(world.finished.as_deref(), Some("Aborted"));
    let late = act(&mut world, &actor("ann@x.org", &["qa"]), approve(&[]));
    assert_eq!(late, Err(Refusal::Ended { status: Status::Aborted }));
}

#[test]
fn without_an_existing_group_the_step_fails() {
    let mut plan = planned_with(&yaml(&gate("userGroups: [Qa, account.qa]", "", ""), ""), &with_groups());
    let world = World::start_with(plan.clone());
    assert_eq!(world.step("gate"), "Failed");
    let failure = world.state.runs.get(NODE).unwrap().failure.clone().unwrap();
    assert_eq!(failure.code, "PIPE-030");
    assert!(failure.message.contains("Qa, account.qa"), "{failure:?}");
    // One of them is enough; the other is named.
    plan.run.groups.insert("Qa".to_owned());
    let world = World::start_with(plan);
    assert_eq!(world.step("gate"), "ApprovalWaiting");
    assert!(world.state.runs.get(NODE).unwrap().notices[0].contains("`account.qa`"));
}

#[test]
fn it_approves_itself_at_its_time_and_never_in_the_past() {
    let auto = |time: &str| {
        format!(
            "autoApproval:\n  action: APPROVE\n  comments: by the clock\n  scheduledDeadline: {{time: '{time}', timeZone: UTC}}"
        )
    };
    let text = yaml(&gate("userGroups: [qa], minimumCount: 3", &auto("1970-01-02 01:00 AM"), ""), "");
    let mut world = start(&text);
    assert_eq!(world.timers.get(&format!("approve/1/{NODE}")), Some(&(25 * 3_600_000)));
    world.fire("approve/");
    assert_eq!((world.step("gate"), shown(&world).status.as_str()), ("Success", "APPROVED"));
    assert_eq!(shown(&world).asked.activities[0].comments, "by the clock");
    // A rejection before that time clears the timer.
    let mut world = start(&text);
    act(&mut world, &actor("ann@x.org", &["qa"]), reject()).unwrap();
    assert!(!world.timers.keys().any(|timer| timer.starts_with("approve/")), "{:?}", world.timers);
    let world = start(&yaml(&gate("userGroups: [qa]", &auto("1970-01-01 12:00 AM"), ""), ""));
    assert_eq!(world.step("gate"), "Failed");
}

#[test]
fn a_later_approval_rejects_an_older_one() {
    let mut world = start(&yaml(&gate("userGroups: [qa]", "isAutoRejectEnabled: true", ""), ""));
    assert!(shown(&world).asked.auto_reject);
    act(&mut world, &Actor::default(), UserAction::Supersede { execution: "ex9".to_owned() }).unwrap();
    assert_eq!(world.step("gate"), "ApprovalRejected");
    assert!(world.state.runs.get(NODE).unwrap().failure.clone().unwrap().message.contains("ex9"));
    assert!(world.rejects_older.is_empty(), "a rejection rejects nobody else");
    // Approved by people or by the clock: what older executions ask there is to be rejected.
    let auto = "isAutoRejectEnabled: true\nautoApproval:\n  action: APPROVE\n  scheduledDeadline: {time: '1970-01-02 01:00 AM', timeZone: UTC}";
    let text = yaml(&gate("userGroups: [qa]", auto, ""), "");
    let mut world = start(&text);
    act(&mut world, &actor("ann@x.org", &["qa"]), approve(&[])).unwrap();
    assert_eq!(world.rejects_older, [NODE]);
    let mut world = start(&text);
    world.fire("approve/");
    assert_eq!(world.rejects_older, [NODE]);
    let mut world = start(&yaml(&gate("userGroups: [qa]", "", ""), ""));
    act(&mut world, &actor("ann@x.org", &["qa"]), approve(&[])).unwrap();
    assert!(world.rejects_older.is_empty(), "nobody asked for it");
}

#[test]
fn later_expressions_and_names_know_the_latest_approval() {
    let after = "- step:
    identifier: say
    name: after <+approval.approvalActivities[0].user.name>
    type: Noop
    spec: {line: '<+approval.approvalActivities[0].user.email> said <+approval.approvalActivities[0].comments>'}
";
    let mut world = start(&yaml(&(gate("userGroups: [qa]", "", "") + after), ""));
    act(&mut world, &actor("ann@x.org", &["qa"]), approve(&[])).unwrap();
    let task = world.answer(success());
    let proto::task::StepSpec::Noop(spec) = &task.task.step.spec else { panic!() };
    assert_eq!(spec.line, "ann@x.org said fine");
    let view = pipeline::view::execution_view(&world.state, None);
    let say = view.stages[0].steps.iter().find(|step| step.identifier == "say").unwrap();
    assert_eq!(say.name, "after ann@x.org");
}

#[test]
fn every_fault_of_the_document_has_its_place() {
    let spec = "isAutoRejectEnabled: maybe
autoApproval: {action: REJECT, scheduledDeadline: {time: soon, timeZone: UTC}}
approverInputs:
  - {name: a, regex: '('}
  - {name: a}
  - {label: b}";
    let faults = faults(&yaml(&gate("minimumCount: 0, disallowPipelineExecutor: 3", spec, ""), ""));
    for part in [
        "isAutoRejectEnabled",
        "approverInputs[0].regex",
        "approverInputs[1]",
        "approverInputs[2].name",
        "approvers.minimumCount",
        "approvers.disallowPipelineExecutor",
        "approvers.userGroups",
        "autoApproval.action",
        "scheduledDeadline.time",
    ] {
        let hit = faults.iter().find(|fault| fault.path.ends_with(part));
        assert!(hit.is_some_and(|fault| fault.line > 10 && fault.column > 1), "{part}: {faults:#?}");
    }
}

#[test]
fn a_stored_approval_reads_back_as_it_was() {
    let mut world = start(&yaml(&gate("userGroups: [qa], minimumCount: 2", INPUTS, ""), ""));
    let inputs = approve(&[("ticket", "CHG-1"), ("zone", "eu"), ("teams", ""), ("note", "")]);
    act(&mut world, &actor("ann@x.org", &["qa"]), inputs).unwrap();
    let stored = serde_json::to_value(&world.state).unwrap();
    assert_eq!(serde_json::from_value::<pipeline::machine::State>(stored).unwrap(), world.state);
}
