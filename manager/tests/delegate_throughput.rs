//! Many small tasks through queue, acquire, one log line and response, as fast as one agent asks for them. Prints the
//! figures; what it asserts is that nothing is lost or done twice on the way.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test ends at the first fault.")]

mod support;

use futures::StreamExt;
use proto::logs::{base_key, unit_key};
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use support::{TestManager, task};
use tokio::time::Instant;

const NOOP: &str = "DELEGATE_NOOP_TASK";
const TASKS: usize = 600;
/// Far more than all of them take.
const LIMIT: Duration = Duration::from_secs(240);
/// Tasks that the agent works on at once.
const LANES: usize = 32;

async fn work(m: &TestManager, agent: &str, id: &str, began: &Mutex<BTreeMap<String, Instant>>) -> bool {
    let Ok(package) = m.acquire_as(agent, id, "i-1").await else { return false };
    began.lock().unwrap().insert(id.to_owned(), Instant::now());
    let pairs = package["logging"]["abstractions"].as_object().unwrap();
    let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect();
    let key = unit_key(&base_key(&pairs), id);
    let token = package["logging"]["token"].as_str().unwrap();
    let log = |method: Method, more: &[(&str, &str)], body: String| {
        let call = m.http.request(method, format!("{}/log-service/stream", m.url));
        let call = call.header("X-Harness-Token", token).query(&[("accountID", "default"), ("key", &key)]);
        let sent = call.query(more).body(body).send();
        async move { assert!(sent.await.unwrap().status().is_success()) }
    };
    log(Method::POST, &[("resume", "true")], String::new()).await;
    let line = r#"[{"level":"INFO","pos":0,"out":"done","time":"2026-01-02T03:04:05Z","args":null}]"#;
    log(Method::PUT, &[("seq", "0")], line.to_owned()).await;
    log(Method::DELETE, &[("snapshot", "true")], String::new()).await;
    let answer = json!({"id": id, "type": NOOP, "code": "OK", "data": {"status": "Success", "fence": 1}});
    assert_eq!(m.respond(agent, id, answer.to_string()).await.as_u16(), 204);
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_tasks_go_through_once_each() {
    let m = TestManager::start().await;
    let agent = m.register_own("i-1", "zone", &[NOOP], &[], "").await;
    let began: Mutex<BTreeMap<String, Instant>> = Mutex::default();
    let queued: Mutex<BTreeMap<String, Instant>> = Mutex::default();
    let start = Instant::now();
    let put = async {
        futures::stream::iter(0..TASKS)
            .for_each_concurrent(64, |n| {
                let id = format!("t{n}");
                queued.lock().unwrap().insert(id.clone(), Instant::now());
                let store = m.app.store.clone();
                async move { store.enqueue(task(&id, NOOP, &["zone"])).await.unwrap() }
            })
            .await;
    };
    let take = async {
        let mut done = 0;
        while done < TASKS {
            let ids = m.poll(&agent, "&wait_ms=5000").await;
            assert!(start.elapsed() < LIMIT, "{done} of {TASKS}");
            let worked = futures::stream::iter(ids)
                .map(|id| {
                    let (m, agent, began) = (&m, &agent, &began);
                    async move { work(m, agent, &id, began).await }
                })
                .buffer_unordered(LANES)
                .collect::<Vec<_>>()
                .await;
            done += worked.into_iter().filter(|worked| *worked).count();
        }
    };
    tokio::join!(put, take);
    let all = start.elapsed();
    println!("{TASKS} tasks in {all:?}: {:.0} a second", TASKS as f64 / all.as_secs_f64());
    for n in 0..TASKS {
        let row = m.app.store.task(&format!("t{n}")).await.unwrap().unwrap();
        assert_eq!((row.fence, row.result.unwrap()["status"].as_str().unwrap()), (1, "Success"), "t{n}");
    }
    let prefix = "accountId:default/";
    let keys = m.app.logs.keys("default", prefix, 10_000).await.unwrap();
    assert_eq!(keys.len(), TASKS);
    // Dispatch at an easy pace: queued → acquired.
    let mut spans = Vec::new();
    for n in 0..50 {
        let id = format!("slow{n}");
        let poll = m.poll(&agent, "&wait_ms=30000");
        let (at, listed) = tokio::join!(
            async {
                let at = Instant::now();
                m.app.store.enqueue(task(&id, NOOP, &["zone"])).await.unwrap();
                at
            },
            poll
        );
        assert_eq!(listed, std::slice::from_ref(&id));
        m.acquire_as(&agent, &id, "i-1").await.unwrap();
        spans.push(at.elapsed());
        let answer = json!({"id": id, "type": NOOP, "code": "OK", "data": {"status": "Success", "fence": 1}});
        m.respond(&agent, &id, answer.to_string()).await;
    }
    spans.sort();
    println!("dispatch p50 {:?}, p99 {:?}", spans[25], spans[49]);
    assert!(spans[25] < Duration::from_secs(1), "woken by notification, not by a timer: {:?}", spans[25]);
    m.stop().await;
}
