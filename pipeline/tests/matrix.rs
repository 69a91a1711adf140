//! Loops: pipeline.md 2.3, table by table.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::machine::{Event, State, apply};
use pipeline::view::execution_view;
use proto::failure::FailureKind;
use proto::task::StepSpec;
use serde_json::json;
use support::*;

/// A Noop step in a loop, whose line tells what the iteration sees.
fn looped(strategy: &str, line: &str) -> String {
    noop("a", &format!("strategy: {strategy}")).replace("line: x", &format!("line: '{line}'"))
}

fn line(task: &pipeline::machine::TaskRequest) -> String {
    match &task.task.step.spec {
        StepSpec::Noop(spec) => serde_json::to_value(spec).unwrap()["line"].as_str().unwrap().to_owned(),
        other => panic!("{other:?}"),
    }
}

/// What every iteration says, in the order in which they begin.
fn lines(strategy: &str, text: &str) -> Vec<String> {
    let mut world = World::start(&custom("", &looped(strategy, text), ""));
    let mut lines = Vec::new();
    while let Some(task) = world.tasks.front() {
        lines.push(line(task));
        world.answer(success());
    }
    assert_eq!(world.finished.as_deref(), Some("Success"), "{strategy}");
    lines
}

fn order(strategy: &str) -> Vec<String> {
    let mut world = World::start(&custom("", &looped(strategy, "x"), ""));
    world.answer_all(|_| success());
    world.order
}

#[test]
fn a_matrix_is_the_product_of_its_axes_and_the_first_one_is_slowest() {
    assert_eq!(
        lines("{matrix: {os: [linux, bsd], ver: [1, 2]}}", "<+matrix.os>-<+matrix.ver>"),
        ["linux-1", "linux-2", "bsd-1", "bsd-2"]
    );
    assert_eq!(order("{matrix: {os: [linux, bsd], ver: [1, 2]}}"), ["a_0_0", "a_0_1", "a_1_0", "a_1_1"]);
    // Excluded combinations leave gaps in the indexes.
    let exclude = "{matrix: {os: [linux, bsd], ver: [1, 2], exclude: [{os: bsd, ver: 1}]}}";
    assert_eq!(order(exclude), ["a_0_0", "a_0_1", "a_1_1"]);
    assert_eq!(order("{matrix: {os: [linux, bsd], ver: [1, 2], exclude: [{ver: 2}]}}"), ["a_0_0", "a_1_0"]);
    // Objects and expressions as axes.
    assert_eq!(
        lines("{matrix: {m: [{n: x, p: 1}, {n: y, p: 2}]}}", "<+matrix.m.n>:<+matrix.m.p>"),
        ["x:1", "y:2"]
    );
    assert_eq!(lines("{matrix: {m: '<+\"p,q\".split(\",\")>'}}", "<+matrix.m>"), ["p", "q"]);
}

#[test]
fn node_names_stand_in_the_identifiers() {
    assert_eq!(
        order("{matrix: {os: [linux, 'free bsd'], nodeName: 'on-<+matrix.os>'}}"),
        ["a_on_linux", "a_on_free_bsd"]
    );
    assert_eq!(order("{repeat: {items: [x, y, x], nodeName: <+repeat.item>}}"), ["a_x", "a_y", "a_x_2"]);
}

#[test]
fn a_repeat_takes_a_part_of_its_items() {
    let item = |keys: &str| {
        lines(&format!("{{repeat: {{items: [a, b, c, d], {keys}}}}}"), "<+repeat.item>").join("")
    };
    assert_eq!(item("start: 1"), "bcd", "the last item is kept");
    assert_eq!(item("start: 1, end: 3"), "bc");
    assert_eq!(item("end: 9"), "abcd");
    assert_eq!(item("start: 25, end: 75, unit: Percentage"), "bc");
    assert_eq!(item("end: 1, unit: Percentage"), "a", "an end never rounds to nothing");
    assert_eq!(item("end: 38, unit: percentage"), "ab", "rounded to the nearest");
    let part =
        |keys: &str| lines(&format!("{{repeat: {{items: [a, b, c, d, e], {keys}}}}}"), "<+repeat.partition>");
    let two = part("partitionSize: 2");
    assert_eq!(two.len(), 3);
    assert!(two[0].contains('a') && two[0].contains('b') && !two[0].contains('c'), "{two:?}");
    assert_eq!(part("partitionSize: 50, unit: Percentage").len(), 2, "50 % of 5 rounds to 3");
    assert_eq!(part("partitionSize: 1, unit: Percentage").len(), 5, "at least one");
    assert_eq!(part("partitionSize: 900, unit: Percentage").len(), 1);
}

#[test]
fn counts_and_their_roots() {
    assert_eq!(
        lines("{repeat: {times: 3}}", "<+strategy.iteration>/<+strategy.iterations>"),
        ["0/3", "1/3", "2/3"]
    );
    assert_eq!(lines("{parallelism: 2}", "<+strategy.identifierPostFix>"), ["_0", "_1"]);
    assert_eq!(lines("{matrix: {m: [x]}}", "<+strategy.identifierPostFix>"), ["_0"]);
    assert_eq!(
        lines("{repeat: {times: 2, maxConcurrency: 1}}", "<+strategy.currentStatus>"),
        ["SUCCEEDED", "SUCCEEDED"]
    );
}

#[test]
fn groups_and_stages_loop_too() {
    let group = format!(
        "- stepGroup:\n    identifier: g\n    name: g\n    strategy: {{matrix: {{zone: [eu, us]}}}}\n    steps:\n{}",
        noop("b", "strategy: {repeat: {items: [1, 2]}}")
            .replace(
                "line: x",
                "line: '<+matrix.zone> <+repeat.item> <+stage.matrix.color> <+stepGroup.strategy.iteration>'"
            )
            .lines()
            .map(|line| format!("      {line}\n"))
            .collect::<String>()
    );
    let yaml = custom("", &group, "").replace(
        "        type: Custom\n",
        "        type: Custom\n        strategy: {matrix: {color: [red, green], maxConcurrency: 1}}\n",
    );
    let mut world = World::start(&yaml);
    let mut seen = Vec::new();
    while let Some(task) = world.tasks.front() {
        seen.push(line(task));
        world.answer(success());
    }
    assert_eq!(
        seen,
        [
            "eu 1 red 0",
            "eu 2 red 0",
            "us 1 red 1",
            "us 2 red 1",
            "eu 1 green 0",
            "eu 2 green 0",
            "us 1 green 1",
            "us 2 green 1"
        ]
    );
    assert_eq!(world.finished.as_deref(), Some("Success"));
    let view = execution_view(&world.state, None);
    let stages: Vec<&str> = view.stages.iter().map(|stage| stage.identifier.as_str()).collect();
    assert_eq!(stages, ["s_0", "s_1"]);
    assert_eq!(view.stages[1].steps[0].steps[1].steps[0].steps[1].identifier, "b_1");
    assert_eq!(world.status("pipeline.stages.s_1.spec.execution.steps.g_1.steps.b_1"), "Success");
}

#[test]
fn what_a_failure_stops() {
    let run = |keys: &str| {
        let mut world = World::start(&custom(
            "",
            &looped(&format!("{{repeat: {{times: 4, maxConcurrency: 2, {keys}}}}}"), "x"),
            "",
        ));
        world.answer(failed(FailureKind::RemoteFailed));
        world.answer_all(|_| success());
        (world.order.len(), world.finished.unwrap())
    };
    assert_eq!(run("onFailure: RunAll"), (4, "Failed".to_owned()));
    assert_eq!(run("onFailure: SkipQueued"), (2, "Failed".to_owned()));
    // A loop whose iterations are all skipped is skipped, and so is one over nothing.
    let skip = looped("{matrix: {m: [x, y]}}", "x")
        + "    when: {stageStatus: Success, condition: <+matrix.m> == \"z\"}\n";
    let world = World::start(&custom("", &skip, ""));
    assert_eq!((world.step("a"), world.finished.as_deref()), ("Skipped", Some("Success")));
    let none = World::start(&custom("", &looped("{repeat: {items: []}}", "x"), ""));
    assert_eq!(none.step("a"), "Skipped");
}

#[test]
fn what_cannot_loop_is_refused_before_the_run() {
    let fault = |strategy: &str| faults(&custom("", &looped(strategy, "x"), ""))[0].to_string();
    let cases = [
        ("{matrix: {m: [x], exclude: [{m: x}]}}", "no combination is left"),
        ("{matrix: {m: []}}", "no combination is left"),
        ("{matrix: {m: [x], exclude: [{n: x}]}}", "no axis `n`"),
        ("{matrix: {maxConcurrency: 1}}", "has no axis"),
        ("{matrix: {m: [x]}, repeat: {times: 1}}", "exactly one of matrix, repeat, parallelism"),
        ("{repeat: {times: 10001}}", "10001 iterations; the limit is 10000"),
        ("{parallelism: x}", "expected a whole number"),
        ("{repeat: {items: 'a,b'}}", ".split(\",\")"),
        ("{repeat: {times: 2, start: 1}}", "`start` needs `items`"),
        ("{repeat: {times: 2, unit: Percent}}", "is not a known unit"),
    ];
    for (strategy, expected) in cases {
        let fault = fault(strategy);
        assert!(fault.contains(expected), "{strategy}: {fault}");
    }
    let axis: Vec<String> = (0..101).map(|i| i.to_string()).collect();
    let axis = axis.join(", ");
    assert!(fault(&format!("{{matrix: {{a: [{axis}], b: [{axis}]}}}}")).contains("10201 iterations"));
    // An identifier that an iteration would take.
    let two = looped("{repeat: {times: 2}}", "x") + &noop("a_1", "");
    assert!(faults(&custom("", &two, ""))[0].message.contains("iteration of `a`"));
    // A loop root without a loop, and an axis that does not exist.
    let lost = noop("a", "").replace("line: x", "line: <+matrix.m>");
    assert!(faults(&custom("", &lost, ""))[0].message.contains("leads nowhere"));
    assert!(
        faults(&custom("", &looped("{matrix: {m: [x]}}", "<+matrix.n>"), ""))[0]
            .message
            .contains("leads nowhere")
    );
}

#[test]
fn ten_thousand_iterations_run_and_each_costs_the_same() {
    let run = |count: usize| {
        let yaml =
            custom("", &looped(&format!("{{repeat: {{times: {count}, maxConcurrency: 4}}}}"), "x"), "");
        let mut world = World::start(&yaml);
        let _start = world.state.runs.take_changed();
        // What a store writes for one event must not grow with the loop.
        let mut written = 0;
        let mut events = 0;
        while !world.tasks.is_empty() {
            world.answer(success());
            let changed = world.state.runs.take_changed();
            if events == count / 2 {
                written = changed
                    .iter()
                    .map(|run| serde_json::to_string(&world.state.runs[&run.id]).unwrap().len())
                    .sum();
            }
            events += 1;
        }
        assert_eq!(world.finished.as_deref(), Some("Success"));
        assert_eq!(events, count);
        written
    };
    let (small, large): (usize, usize) = (run(100), run(10_000));
    assert!(large < small + small / 4, "{small} bytes in a loop of 100, {large} in one of 10,000");
}

#[test]
fn a_loop_goes_on_from_its_stored_state() {
    let yaml = custom("", &looped("{matrix: {m: [x, y, z], maxConcurrency: 1}}", "<+matrix.m>"), "");
    let mut world = World::start(&yaml);
    world.answer(success());
    let stored = serde_json::to_value(&world.state).unwrap();
    let mut read: State = serde_json::from_value(stored).unwrap();
    assert_eq!(read, world.state);
    let task = world.tasks.pop_front().unwrap();
    let event = Event::TaskEnded { node: task.node, attempt: 1, result: Box::new(success()), at: 9_000 };
    let (a, b) = (apply(&mut read, &event), apply(&mut world.state, &event));
    assert_eq!(json!(a), json!(b));
    assert_eq!(read, world.state);
}
