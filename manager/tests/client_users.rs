//! Users, groups, roles: who may do what through the client API.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "A test ends at the first fault.")]

mod client_support;
mod support;

use client_support::{Client, custom, noop};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use support::TestManager;

async fn manager() -> (Arc<TestManager>, Client) {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    (manager, client)
}

async fn user(admin: &Client, email: &str, role: &str) -> Client {
    let (status, body) = admin.call(Method::POST, "/users", json!({ "name": email, "email": email })).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let (status, body) = admin.call(Method::POST, "/apikeys", json!({ "user": email, "role": role })).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!((body["user"].as_str(), body["role"].as_str()), (Some(email), Some(role)));
    admin.with_key(body["apiKey"].as_str().unwrap())
}

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_opens_what_it_names_and_nothing_more() {
    let (_manager, admin) = manager().await;
    let viewer = user(&admin, "v@x.org", "viewer").await;
    let executor = user(&admin, "e@x.org", "executor").await;
    let second = user_key(&admin, "e@x.org", "admin").await;
    let pipeline = custom("p", "", "- step: {identifier: w, name: w, type: Wait, spec: {duration: 1h}}\n");
    admin.apply(&pipeline).await;

    for client in [&viewer, &executor, &second] {
        assert_eq!(client.get("/entities").await.as_array().unwrap().len(), 1);
    }
    // Who may only read is told which role it takes.
    for (method, path) in [
        (Method::POST, "/executions"),
        (Method::POST, "/executions/x/abort"),
        (Method::POST, "/apply"),
        (Method::PUT, "/secrets/s"),
        (Method::POST, "/apikeys"),
        (Method::POST, "/users"),
        (Method::DELETE, "/users/e@x.org"),
    ] {
        let (status, body) = viewer.call(method.clone(), path, json!({})).await;
        assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "MGR-130"), "{method} {path}: {body}");
        assert!(
            body["error"]["message"].as_str().unwrap().contains("`v@x.org` has the role viewer"),
            "{body}"
        );
    }
    // An executor runs what is stored, and changes nothing.
    let (status, body) = executor.try_apply("p.yaml", &pipeline).await;
    assert_eq!((status, body["results"][0]["result"].as_str()), (StatusCode::OK, Some("unchanged")));
    for changed in [pipeline.replace("1h", "2h"), custom("other", "", &noop("a", ""))] {
        let (status, body) = executor.try_apply("p.yaml", &changed).await;
        assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "MGR-130"), "{body}");
    }
    assert!(admin.get("/entities/pipeline/p").await["yaml"].as_str().unwrap().contains("1h"));
    let run = executor.run("p").await;
    assert_eq!(executor.get(&format!("/executions/{run}")).await["startedBy"], "e@x.org");
    for (method, path) in [
        (Method::PUT, "/secrets/s"),
        (Method::POST, "/apikeys"),
        (Method::POST, "/tokens"),
        (Method::POST, "/probes"),
    ] {
        let (status, body) = executor.call(method, path, json!({})).await;
        assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "MGR-130"), "{path}: {body}");
    }
    let (status, _) = executor.call(Method::POST, &format!("/executions/{run}/abort"), Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(second.try_apply("p.yaml", &pipeline.replace("1h", "2h")).await.0, StatusCode::OK);
    assert_eq!(second.get("/whoami").await["user"]["email"], "e@x.org");
}

async fn user_key(admin: &Client, email: &str, role: &str) -> Client {
    let (status, body) = admin.call(Method::POST, "/apikeys", json!({ "user": email, "role": role })).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    admin.with_key(body["apiKey"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_belong_to_users_and_go_with_them() {
    let (_manager, admin) = manager().await;
    let ann = user(&admin, "ann@x.org", "executor").await;
    let again = user_key(&admin, "ann@x.org", "viewer").await;
    let keys = admin.get("/apikeys").await;
    let names: Vec<&str> = keys.as_array().unwrap().iter().filter_map(|key| key["name"].as_str()).collect();
    assert_eq!(names, ["bootstrap", "ann@x.org", "ann@x.org#2"]);
    assert_eq!((keys[0]["role"].as_str(), &keys[0]["user"]), (Some("admin"), &Value::Null));
    let (status, body) =
        admin.call(Method::POST, "/apikeys", json!({ "user": "anne@x.org", "role": "viewer" })).await;
    assert_eq!((status, code(&body)), (StatusCode::NOT_FOUND, "MGR-114"));
    assert!(body["error"]["hint"].as_str().unwrap().contains("ann@x.org"), "{body}");
    for wrong in [json!({ "user": "ann@x.org", "role": "root" }), json!({ "role": "admin" })] {
        let (status, body) = admin.call(Method::POST, "/apikeys", wrong).await;
        assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "MGR-111"), "{body}");
    }
    // Equal content may be sent again; another one is not put over it.
    let same = json!({ "name": "ann@x.org", "email": "ann@x.org" });
    let (status, body) = admin.call(Method::POST, "/users", same).await;
    assert_eq!((status, body["result"].as_str()), (StatusCode::CREATED, Some("unchanged")));
    let other = json!({ "name": "ann@x.org", "groups": ["ops"] });
    assert_eq!(admin.call(Method::POST, "/users", other).await.0, StatusCode::CONFLICT);
    for wrong in
        [json!({ "name": "" }), json!({ "name": "b", "groups": ["org.g"] }), json!({ "name": "a,b" })]
    {
        assert_eq!(admin.call(Method::POST, "/users", wrong).await.0, StatusCode::BAD_REQUEST);
    }
    assert_eq!(
        admin.get("/users").await,
        json!([{ "name": "ann@x.org", "email": "ann@x.org", "groups": [] }])
    );
    assert_eq!(admin.get("/entities").await, json!([]), "a user is no entity");
    assert_eq!(admin.call(Method::DELETE, "/users/ann@x.org", Value::Null).await.0, StatusCode::NO_CONTENT);
    for key in [ann, again] {
        assert_eq!(key.call(Method::GET, "/whoami", Value::Null).await.0, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_applied_with_every_fault_and_its_place() {
    let (_manager, admin) = manager().await;
    let good = "userGroup:\n  identifier: ops\n  name: Ops\n  users: [ann@x.org, bob@x.org]\n";
    assert_eq!(admin.apply(good).await["results"][0]["kind"], "userGroup");
    assert_eq!(admin.get("/entities/userGroup/ops").await["yaml"], good);
    let bad = "userGroup:\n  identifier: org.ops\n  users:\n    - ann@x.org\n    - ann@x.org\n    - {a: b}\n";
    let (status, body) = admin.try_apply("g.yaml", bad).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "MGR-110"));
    let lines: Vec<u64> = body["error"]["faults"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|fault| fault["line"].as_u64())
        .collect();
    assert_eq!(lines, [2, 5, 6], "{body}");
    let (status, body) = admin.try_apply("g.yaml", "userGroup:\n  name: Ops\n").await;
    assert_eq!(
        (status, code(&body)),
        (StatusCode::BAD_REQUEST, "MGR-110"),
        "no id is made of a name: {body}"
    );
}
