//! The OpenAPI document and the routers say the same.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "This crate is test code; a panic is its way to fail."
)]

use pipeline::yaml::parse_documents;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

const METHODS: [&str; 4] = ["get", "post", "put", "delete"];

/// `METHOD path` with parameters made nameless, so that `{id}` and `{name}` are alike.
fn entry(method: &str, path: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '{' => {
                inside = true;
                plain.push_str("{}");
            }
            '}' => inside = false,
            c if !inside => plain.push(c),
            _ => {}
        }
    }
    format!("{method} {plain}")
}

fn document() -> Value {
    parse_documents("openapi.yaml", manager::client_api::openapi::DOCUMENT).unwrap()[0].to_json()
}

fn documented() -> BTreeSet<String> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| entry(method, path)))
        .collect()
}

/// Every `.route("PATH", …)` of the sources with its methods. Each router's prefix is that of its folder.
fn routed(folder: &Path, found: &mut BTreeSet<String>) {
    for file in std::fs::read_dir(folder).unwrap().flatten() {
        let path = file.path();
        if path.is_dir() {
            routed(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let place = path.display().to_string();
        let prefix = match &place {
            p if p.contains("/client_api/harness/") => "/gateway/pipeline/api",
            p if p.contains("/client_api/") => "/api/v1",
            p if p.contains("/logstore/") => "/log-service",
            _ => "",
        };
        for call in text.split(".route(").skip(1) {
            let end = call.find(".route(").unwrap_or(call.len());
            let call = &call[..end];
            let Some(written) = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next())
            else {
                continue;
            };
            // The handlers of this route end where the call's parenthesis closes.
            let mut depth = 1;
            let length = call
                .char_indices()
                .find(|(_, c)| {
                    depth += i32::from(*c == '(') - i32::from(*c == ')');
                    depth == 0
                })
                .map_or(call.len(), |(at, _)| at);
            let handlers = &call[..length];
            let whole = ["/api/", "/gateway", "/v1/"].iter().any(|start| written.starts_with(start));
            let prefix = if whole { "" } else { prefix };
            for method in METHODS {
                if [" ", ".", "\n"].iter().any(|before| handlers.contains(&format!("{before}{method}("))) {
                    found.insert(entry(method, &format!("{prefix}{written}")));
                }
            }
        }
    }
}

#[test]
fn every_route_is_documented_and_nothing_else() {
    let mut routes = BTreeSet::new();
    routed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut routes);
    assert!(routes.len() > 40, "the sources are read: {routes:?}");
    let documented = documented();
    let missing: Vec<_> = routes.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/openapi.yaml lacks {missing:#?}");
    // The paths of webhooks are put together from prefixes: `client_triggers.rs` calls them.
    let own = |path: &&String| !path.contains("/webhook/");
    let stale: Vec<_> = documented.difference(&routes).filter(own).collect();
    assert!(stale.is_empty(), "docs/openapi.yaml tells of {stale:#?}, which no router has");
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn walk(value: &Value, document: &Value, count: &mut usize) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    *count += 1;
                    let pointer = reference.strip_prefix('#').expect("a local reference");
                    assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                }
                map.values().for_each(|value| walk(value, document, count));
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, document, count)),
            _ => {}
        }
    }
    let document = document();
    let mut count = 0;
    walk(&document, &document, &mut count);
    assert!(count > 50);
}
