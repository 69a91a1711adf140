//! Documents: whatever is applied, the answer is entities, a plan, or faults that stand inside the text.

use crate::{cook, fuzz};
use pipeline::entities::parse_entities;
use pipeline::planner::validate;
use pipeline::{Fault, Mode};

const SAMPLES: [&str; 44] = [
    "pipeline:\n  name: p\n  identifier: p\n  stages:\n",
    "    - stage:\n        identifier: s\n        name: s\n",
    "        type: Custom\n",
    "        type: Deployment\n",
    "        type: Approval\n",
    "        spec:\n          execution:\n            steps:\n",
    "              - step:\n                  identifier: a\n                  name: a\n                  type: Noop\n                  spec: {line: x}\n",
    "              - stepGroup:\n                  identifier: g\n                  steps:\n",
    "              - parallel:\n",
    "            rollbackSteps:\n",
    "                  strategy: {matrix: {a: [1, 2], b: <+pipeline.variables.x>}}\n",
    "                  strategy: {repeat: {times: 3, maxConcurrency: 1}}\n",
    "                  strategy: {parallelism: 3}\n",
    "                  when: {stageStatus: Success, condition: <+a> == 1}\n",
    "                  timeout: 10m\n",
    "                  failureStrategies: [{onFailure: {errors: [AllErrors], action: {type: Ignore}}}]\n",
    "        failureStrategies: [{onFailure: {errors: [Timeout], action: {type: Retry, spec: {retryCount: 2}}}}]\n",
    "  variables: [{name: x, type: String, value: <+input>.default(1)}]\n",
    "  delegateSelectors: [a, <+b>]\n",
    "  flowControl: {barriers: [{identifier: b, name: b}]}\n",
    "connector:\n  identifier: c\n  type: Github\n  spec: {}\n",
    "secret:\n  identifier: s\n  type: SSHKey\n  spec: {}\n",
    "service:\n  identifier: s\n  serviceDefinition: {type: Ssh, spec: {}}\n",
    "environment:\n  identifier: e\n  type: Production\n",
    "infrastructureDefinition:\n  identifier: i\n  type: Pdc\n  spec: {hosts: [h]}\n",
    "trigger:\n  identifier: t\n",
    "policySet:\n  identifier: t\n",
    "userGroup:\n  identifier: t\n",
    "inputSet:\n  identifier: t\n",
    "---\n",
    "&a ",
    "*a",
    "<<: *a\n",
    "{{NAME}}",
    "|\n  text\n",
    "\"",
    "'",
    "[",
    "{",
    "]",
    "}",
    ": ",
    "\t",
    "é\u{10348}\0",
];

fn stands_in(text: &str, faults: &[Fault]) {
    // YAML ends lines at a lone carriage return too, and the parser puts what is missing at the end on one line more.
    let lines = text.matches(['\n', '\r']).count() + 2;
    for fault in faults {
        assert!(fault.line >= 1 && fault.column >= 1, "{fault}");
        assert!(fault.line as usize <= lines, "{fault} in a text of {lines} lines");
        assert!(!fault.message.is_empty());
    }
}

#[test]
fn every_document_has_an_answer() {
    fuzz(|recipe| {
        let bytes = cook(recipe, &SAMPLES);
        let text = String::from_utf8_lossy(&bytes);
        match parse_entities("f.yaml", &text) {
            Ok(_) => {}
            Err(faults) => {
                assert!(!faults.is_empty(), "a refusal without a reason");
                stands_in(&text, &faults);
            }
        }
        for mode in [Mode::Lenient, Mode::Strict] {
            stands_in(&text, &validate("f.yaml", &text, None, mode).faults);
        }
    });
}

#[test]
fn a_rendered_template_has_no_placeholder_left() {
    fuzz(|recipe| {
        let bytes =
            cook(recipe, &["{{", "}}", "{{NAME}}", "{{ NAME }}", "{{OTHER}}", "# ", "\n", "{{.Go}}", "x"]);
        let text = String::from_utf8_lossy(&bytes);
        let values = [("NAME".to_owned(), "v".to_owned()), ("OTHER".to_owned(), "w".to_owned())].into();
        match pipeline::template::render("f.yaml", &text, &values) {
            Ok(rendered) => assert!(!rendered.contains("{{NAME}}"), "{rendered:?}"),
            Err(faults) => stands_in(&text, &faults),
        }
    });
}
