use super::*;

fn one(text: &str) -> Node {
    parse_documents("t.yaml", text).unwrap().into_iter().next().unwrap()
}

fn fault(text: &str) -> crate::fault::Fault {
    parse_documents("t.yaml", text).unwrap_err().into_iter().next().unwrap()
}

#[test]
fn places_are_those_of_the_text() {
    let node = one("a:\n  b: 1\n  ü: [x, y]\n");
    let b = node.at_path(&["a", "b"]).unwrap();
    assert_eq!((b.at.line, b.at.column), (2, 6));
    let list = node.at_path(&["a", "ü"]).unwrap().as_list().unwrap();
    assert_eq!((list[1].at.line, list[1].at.column), (3, 10));
}

#[test]
fn scalars_become_json_by_the_core_schema() {
    let node = one("a: 1\nb: \"1\"\nc: true\nd: 1.5\ne: ~\nf: 007\ng: 10m\nh: 1e3\n");
    let json = node.to_json();
    assert_eq!(
        json,
        serde_json::json!({"a": 1, "b": "1", "c": true, "d": 1.5, "e": null, "f": "007", "g": "10m", "h": 1000.0})
    );
}

#[test]
fn several_documents_and_empty_ones() {
    let documents = parse_documents("t", "---\na: 1\n---\n---\nb: 2\n").unwrap();
    assert_eq!(documents.len(), 2);
}

#[test]
fn a_syntax_error_has_its_place() {
    let fault = fault("a:\n  - b\n c: d\n");
    assert_eq!(fault.line, 3, "{fault}");
    assert!(fault.message.contains("not valid YAML"), "{fault}");
    let fault = super::parse_documents("t.yaml", "a: [1, 2\nb: 3").unwrap_err();
    assert!(fault[0].line >= 1);
}

#[test]
fn a_duplicate_key_is_a_fault_and_names_the_first() {
    let faults = parse_documents("t.yaml", "a: 1\nb:\n  c: 1\n  c: 2\na: 3\n").unwrap_err();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert_eq!((faults[0].line, faults[0].column, faults[0].path.as_str()), (4, 3, "b.c"));
    assert!(faults[0].message.contains("line 3"));
}

#[test]
fn ten_megabytes_are_refused() {
    let text = "a: b\n".repeat(2 * 1024 * 1024);
    assert!(fault(&text).message.contains("the limit is"));
}

#[test]
fn deep_nesting_is_refused() {
    for text in ["[".repeat(1000), "a: ".to_owned() + &"{b: ".repeat(1000), "- ".repeat(1000)] {
        let fault = fault(&text);
        // The scanner looks ahead and may stop at its own bound first.
        let refused = ["deeper than 100", "recursion limit"].iter().any(|text| fault.message.contains(text));
        assert!(refused, "{fault}");
    }
}

#[test]
fn a_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 9].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    assert!(fault(&text).message.contains("more than 100000"), "{}", fault(&text));
}

#[test]
fn an_alias_inside_its_anchor_is_refused() {
    assert!(fault("a: &a [*a]\n").message.contains("alias"));
}

#[test]
fn merge_keys_fill_what_is_missing() {
    let node = one("base: &b {x: 1, y: 2}\nuse:\n  y: 3\n  <<: *b\n");
    assert_eq!(node.get("use").unwrap().to_json(), serde_json::json!({"y": 3, "x": 1}));
}

#[test]
fn an_unrendered_placeholder_is_named() {
    let fault = fault("pipeline:\n  name: {{SERVICE_NAME}}\n");
    assert_eq!((fault.line, fault.column), (2, 9));
    assert!(fault.message.contains("{{SERVICE_NAME}}"));
}

#[test]
fn overlay_merges_maps_and_variables_and_replaces_lists() {
    let mut base = one("m: {a: 1, b: 2}\nl: [1, 2]\nvariables: [{name: x, value: 1}, {name: y, value: 2}]\n");
    base.overlay(&one("m: {b: 3}\nl: [9]\nvariables: [{name: y, value: 5}, {name: z, value: 6}]\n"));
    assert_eq!(
        base.to_json(),
        serde_json::json!({
            "m": {"a": 1, "b": 3}, "l": [9],
            "variables": [{"name": "x", "value": 1}, {"name": "y", "value": 5}, {"name": "z", "value": 6}]
        })
    );
}
