//! The log service, asked as its clients ask the real one (log-service-peer.md §2), and what is ours beyond it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test ends at the first fault.")]

mod support;

use futures::StreamExt;
use proto::logs::{abstractions, base_key, unit_key};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use support::{TestManager, until};

const KEY: &str =
    "accountId:default/orgId:o/projectId:p/pipelineId:pl/runSequence:7/level0:pipeline-commandUnit:Execute";

struct Logs<'a> {
    m: &'a TestManager,
    token: String,
}

impl<'a> Logs<'a> {
    fn new(m: &'a TestManager) -> Self {
        Logs { m, token: m.app.log_tokens.mint("default", "", m.app.clock.wall()) }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let call = self.m.http.request(method, format!("{}/log-service{path}", self.m.url));
        let call =
            call.header("X-Harness-Token", &self.token).query(&[("accountID", "default")]).query(query);
        call.body(body).send().await.unwrap()
    }

    async fn status(&self, method: Method, path: &str, query: &[(&str, &str)], body: &'static str) -> u16 {
        self.ask(method, path, query, body).await.status().as_u16()
    }

    async fn open(&self, key: &str) -> u16 {
        self.status(Method::POST, "/stream", &[("key", key)], "").await
    }

    async fn put(&self, key: &str, lines: &[String]) -> u16 {
        let body = format!("[{}]", lines.join(","));
        self.ask(Method::PUT, "/stream", &[("key", key)], body).await.status().as_u16()
    }

    async fn put_seq(&self, seq: &str, range: std::ops::Range<u64>) -> Response {
        let body = format!("[{}]", lines(range).join(","));
        self.ask(Method::PUT, "/stream", &[("key", KEY), ("seq", seq)], body).await
    }

    async fn exists(&self, key: &str) -> bool {
        self.ask(Method::GET, "/blob/exists", &[("key", key)], "").await.json().await.unwrap()
    }

    async fn blob(&self, key: &str) -> Option<String> {
        let reply = self.ask(Method::GET, "/blob", &[("key", key)], "").await;
        match reply.status() {
            StatusCode::OK => Some(reply.text().await.unwrap()),
            StatusCode::NOT_FOUND => {
                assert!(reply.json::<Value>().await.unwrap()["error_msg"].is_string());
                None
            }
            other => panic!("{other}"),
        }
    }
}

fn line(n: u64) -> String {
    json!({"level": "INFO", "pos": n, "out": format!("line {n} ✓"), "time": "2026-01-02T03:04:05.678Z", "args": null})
        .to_string()
}

fn lines(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(line).collect()
}

#[tokio::test]
async fn streams_open_append_close_and_become_blobs() {
    let m = TestManager::start().await;
    let logs = Logs::new(&m);
    assert_eq!(logs.put(KEY, &lines(0..1)).await, 400, "not open");
    assert_eq!(logs.open(KEY).await, 204);
    assert_eq!(logs.put(KEY, &lines(0..3)).await, 204);
    assert_eq!(logs.status(Method::PUT, "/stream", &[("key", KEY)], "[]").await, 204);
    assert_eq!(logs.status(Method::PUT, "/stream", &[("key", KEY)], "null").await, 204);
    assert_eq!(
        logs.status(Method::PUT, "/stream", &[("key", KEY)], "[null]").await,
        204,
        "the real one dies of it"
    );
    assert_eq!(logs.blob(KEY).await, None, "no blob while it is open");
    assert_eq!(logs.put(KEY, &lines(3..5)).await, 204);
    assert_eq!(logs.status(Method::DELETE, "/stream", &[("key", KEY), ("snapshot", "true")], "").await, 204);
    let text = logs.blob(KEY).await.unwrap();
    assert_eq!(text, lines(0..5).join("\n") + "\n", "the bytes that were sent");
    assert_eq!(logs.put(KEY, &lines(5..6)).await, 400, "closed");
    assert_eq!(logs.status(Method::DELETE, "/stream", &[("key", KEY)], "").await, 500, "not open any more");
    // Opening again erases the stream, not the blob.
    assert_eq!(logs.open(KEY).await, 204);
    assert_eq!(logs.put(KEY, &lines(0..1)).await, 204);
    assert_eq!(logs.open(KEY).await, 204);
    assert_eq!(logs.put(KEY, &lines(7..8)).await, 204);
    assert_eq!(logs.blob(KEY).await.unwrap(), text);
    assert_eq!(logs.status(Method::DELETE, "/stream", &[("key", KEY), ("snapshot", "true")], "").await, 204);
    assert_eq!(logs.blob(KEY).await.unwrap(), line(7) + "\n");
    m.stop().await;
}

#[tokio::test]
async fn refusals_are_those_of_the_real_service() {
    let m = TestManager::start().await;
    let logs = Logs::new(&m);
    for (timeout, status) in [("-1", 400), ("x", 400), ("0", 204), ("60", 204), ("999999", 204)] {
        let query = [("key", "k"), ("timeout_seconds", timeout)];
        assert_eq!(logs.status(Method::POST, "/stream", &query, "").await, status, "{timeout}");
    }
    for body in ["{}", "[{]", r#"[{"time":"x"}]"#, r#"[{"pos":"1"}]"#, r#"[{"args":{"a":1}}]"#] {
        assert_eq!(logs.status(Method::PUT, "/stream", &[("key", "k")], body).await, 400, "{body}");
    }
    assert_eq!(logs.status(Method::POST, "/stream", &[], "").await, 204, "without a key");
    assert_eq!(logs.status(Method::PATCH, "/stream", &[("key", "k")], "").await, 405);
    assert_eq!(logs.status(Method::DELETE, "/blob", &[("key", "none")], "").await, 204);
    assert_eq!(logs.status(Method::GET, "/healthz", &[], "").await, 200);
    assert_eq!(logs.status(Method::POST, "/blob/link/upload", &[("key", "k")], "").await, 500);
    // Nobody without a token, nobody with another account's or another run's.
    let ask = |query: &[(&str, &str)], token: Option<&str>| {
        let call = m.http.post(format!("{}/log-service/stream", m.url)).query(query);
        let call = match token {
            Some(token) => call.header("X-Harness-Token", token),
            None => call,
        };
        async move { call.send().await.unwrap().status().as_u16() }
    };
    let account = [("accountID", "default"), ("key", "k")];
    assert_eq!(ask(&account, None).await, 400);
    assert_eq!(ask(&[("key", "k")], Some(&logs.token)).await, 400);
    assert_eq!(ask(&account, Some("garbage")).await, 403);
    assert_eq!(ask(&[("accountID", "other"), ("key", "k")], Some(&logs.token)).await, 403);
    let other = m.app.log_tokens.mint("other", "", m.app.clock.wall());
    assert_eq!(ask(&account, Some(&other)).await, 403);
    let scoped = m.app.log_tokens.mint("default", "accountId:default/run:1/", m.app.clock.wall());
    assert_eq!(ask(&account, Some(&scoped)).await, 403);
    let query = [("accountID", "default"), ("key", "k"), ("X-Harness-Token", logs.token.as_str())];
    assert_eq!(ask(&query, None).await, 204, "the token as a parameter");
    let token = |header: (&'static str, String)| {
        let call =
            m.http.get(format!("{}/log-service/token?accountID=default", m.url)).header(header.0, header.1);
        async move { call.send().await.unwrap() }
    };
    assert_eq!(token(("x-api-key", "wrong".to_owned())).await.status().as_u16(), 400);
    let minted = token(("x-api-key", m.api_key.clone())).await.text().await.unwrap();
    assert_eq!(ask(&account, Some(&minted)).await, 204);
    let minted = token(("Authorization", format!("Delegate {}", m.bearer()))).await.text().await.unwrap();
    assert_eq!(ask(&account, Some(&minted)).await, 204);
    m.stop().await;
}

#[tokio::test]
async fn resumed_streams_lose_and_double_nothing() {
    let m = TestManager::start().await;
    let logs = Logs::new(&m);
    let resume = [("key", KEY), ("resume", "true")];
    let next =
        |reply: Response| async move { reply.json::<Value>().await.unwrap()["next"].as_u64().unwrap() };
    assert_eq!(next(logs.ask(Method::POST, "/stream", &resume, "").await).await, 0);
    assert_eq!(next(logs.put_seq("0", 0..10).await).await, 10);
    assert_eq!(next(logs.put_seq("5", 5..12).await).await, 12, "what is there is dropped");
    assert_eq!(next(logs.put_seq("0", 0..12).await).await, 12, "a whole repeat");
    let gap = logs.put_seq("13", 13..14).await;
    assert_eq!(gap.status(), StatusCode::CONFLICT);
    assert_eq!(next(gap).await, 12);
    assert_eq!(
        next(logs.ask(Method::POST, "/stream", &resume, "").await).await,
        12,
        "opened again, nothing is erased"
    );
    // The manager dies and comes back.
    let dir = m.stop().await;
    let config = support::config(dir.path());
    let m = TestManager::start_in(dir, config).await;
    let logs = Logs::new(&m);
    assert_eq!(next(logs.put_seq("12", 12..20).await).await, 20);
    let close = [("key", KEY), ("snapshot", "true")];
    assert_eq!(logs.status(Method::DELETE, "/stream", &close, "").await, 204);
    assert_eq!(logs.blob(KEY).await.unwrap(), lines(0..20).join("\n") + "\n");
    // An agent that did not hear of the close goes on.
    assert_eq!(next(logs.ask(Method::POST, "/stream", &resume, "").await).await, 20);
    assert_eq!(next(logs.put_seq("20", 20..21).await).await, 21);
    m.stop().await;
}

#[tokio::test]
async fn many_calls_in_one_request_are_each_judged_by_themselves() {
    let m = TestManager::start().await;
    let logs = Logs::new(&m);
    let own = m.app.log_tokens.mint("default", "mine/", m.app.clock.wall());
    let line = |n: u64| serde_json::from_str::<Value>(&lines(n..n + 1)[0]).unwrap();
    let calls = json!([
        {"verb": "open", "key": "mine/a", "token": own},
        {"verb": "append", "key": "mine/a", "token": own, "seq": 0, "lines": [line(0), line(1)]},
        {"verb": "append", "key": "mine/a", "token": own, "seq": 1, "lines": [line(1), line(2)]},
        {"verb": "append", "key": "mine/a", "token": own, "seq": 9, "lines": [line(9)]},
        {"verb": "append", "key": "mine/a", "token": own, "seq": 3, "lines": {"no": "list"}},
        {"verb": "append", "key": "mine/b", "token": own, "seq": 0, "lines": [line(0)]},
        {"verb": "open", "key": "others/a", "token": own},
        {"verb": "open", "key": "mine/c", "token": "forged"},
        {"verb": "close", "key": "mine/a", "token": own},
        {"verb": "close", "key": "mine/a", "token": own},
    ]);
    let reply = logs.ask(Method::POST, "/stream/batch", &[], calls.to_string()).await;
    assert_eq!(reply.status(), StatusCode::OK);
    let wanted = json!([
        {"status": 200, "next": 0}, {"status": 200, "next": 2}, {"status": 200, "next": 3}, {"status": 409, "next": 3},
        {"status": 400}, {"status": 404}, {"status": 403}, {"status": 403}, {"status": 200}, {"status": 404},
    ]);
    assert_eq!(reply.json::<Value>().await.unwrap(), wanted);
    assert_eq!(logs.blob("mine/a").await.unwrap().lines().count(), 3);
    assert!(!logs.exists("others/a").await);
    let other = m.http.post(format!("{}/log-service/stream/batch", m.url)).query(&[("accountID", "other")]);
    let call = json!([{"verb": "open", "key": "mine/a", "token": own}]);
    let reply = other.body(call.to_string()).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::FORBIDDEN, "another account");
    assert_eq!(logs.ask(Method::POST, "/stream/batch", &[], "[]").await.status(), StatusCode::FORBIDDEN);
    let many = json!(vec![json!({"verb": "open", "key": "mine/a", "token": own}); 129]);
    assert_eq!(logs.ask(Method::POST, "/stream/batch", &[], many.to_string()).await.status(), 400);
    assert_eq!(logs.ask(Method::POST, "/stream/batch", &[], "{}").await.status(), 400);
    m.stop().await;
}

#[tokio::test]
async fn a_short_log_comes_in_one_call_and_a_repetition_changes_nothing() {
    let m = TestManager::start().await;
    let logs = Logs::new(&m);
    let own = m.app.log_tokens.mint("default", "mine/", m.app.clock.wall());
    let line = |n: u64| serde_json::from_str::<Value>(&lines(n..n + 1)[0]).unwrap();
    let whole = |key: &str, seq: u64, lines: Value| json!({"verb": "whole", "key": key, "token": own, "seq": seq, "lines": lines});
    let ask = async |calls: Value| {
        logs.ask(Method::POST, "/stream/batch", &[], calls.to_string()).await.json::<Value>().await.unwrap()
    };
    let two = whole("mine/a", 0, json!([line(0), line(1)]));
    let replies = ask(json!([
        two, two, whole("mine/empty", 0, json!([])), whole("mine/gap", 3, json!([line(3)])), whole("mine/bad", 0, json!(7)),
        whole("others/a", 0, json!([line(0)])),
        // An earlier process of the agent sent the beginning, and left the stream open.
        {"verb": "open", "key": "mine/b", "token": own},
        {"verb": "append", "key": "mine/b", "token": own, "seq": 0, "lines": [line(0)]},
        whole("mine/b", 0, json!([line(0), line(1), line(2)])),
    ]))
    .await;
    let wanted = json!([
        {"status": 200, "next": 2}, {"status": 200, "next": 2}, {"status": 200, "next": 0}, {"status": 409, "next": 0},
        {"status": 400}, {"status": 403}, {"status": 200, "next": 0}, {"status": 200, "next": 1}, {"status": 200, "next": 3},
    ]);
    assert_eq!(replies, wanted);
    assert_eq!(logs.blob("mine/a").await.unwrap().lines().count(), 2);
    assert_eq!(logs.blob("mine/b").await.unwrap().lines().count(), 3);
    assert!(logs.exists("mine/empty").await && !logs.exists("mine/gap").await);
    assert!(!logs.exists("others/a").await);
    m.stop().await;
}

#[tokio::test]
async fn tails_begin_with_history_and_end_with_the_stream() {
    let m = TestManager::start().await;
    let logs = Logs::new(&m);
    let unknown = logs.ask(Method::GET, "/stream", &[("key", "nothing")], "").await;
    assert_eq!(unknown.status(), StatusCode::OK);
    assert_eq!(unknown.text().await.unwrap(), ": ping\n\nevent: error\ndata: eof\n\n");
    assert_eq!(logs.open(KEY).await, 204);
    assert_eq!(logs.put(KEY, &lines(0..3)).await, 204);
    let tail = logs.ask(Method::GET, "/stream", &[("key", KEY)], "").await;
    assert_eq!(tail.headers()["content-type"], "text/event-stream");
    let mut pieces = tail.bytes_stream();
    let mut seen = String::new();
    while !seen.contains("line 2") {
        seen.push_str(std::str::from_utf8(&pieces.next().await.unwrap().unwrap()).unwrap());
    }
    assert_eq!(logs.put(KEY, &lines(3..5)).await, 204);
    while !seen.contains("line 4") {
        seen.push_str(std::str::from_utf8(&pieces.next().await.unwrap().unwrap()).unwrap());
    }
    assert_eq!(logs.status(Method::DELETE, "/stream", &[("key", KEY), ("snapshot", "true")], "").await, 204);
    while let Some(piece) = pieces.next().await {
        seen.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    let expected: String = lines(0..5).iter().map(|line| format!("data: {line}\n\n")).collect();
    assert_eq!(seen, format!(": ping\n\n{expected}event: error\ndata: eof\n\n"));
    // A viewer's connection does not keep the manager from stopping.
    assert_eq!(logs.open("other").await, 204);
    let open = logs.ask(Method::GET, "/stream", &[("key", "other")], "").await;
    m.stop().await;
    assert_eq!(open.text().await.unwrap(), ": ping\n\nevent: error\ndata: eof\n\n");
}

#[tokio::test]
async fn closes_reach_a_prefix_or_a_list() {
    let m = TestManager::start().await;
    let logs = Logs::new(&m);
    let base = base_key(&abstractions("default", "o", "p", "pl", 7, &["pipeline", "a"], 0));
    let units: Vec<String> =
        ["Init", "Execute", "Cleanup"].iter().map(|unit| unit_key(&base, unit)).collect();
    for unit in &units {
        assert_eq!(logs.open(unit).await, 204);
        assert_eq!(logs.put(unit, &lines(0..2)).await, 204);
    }
    assert_eq!(logs.open("accountId:default/other").await, 204);
    let query = [("key", base.as_str()), ("prefix", "true"), ("snapshot", "true")];
    assert_eq!(logs.status(Method::DELETE, "/stream", &query, "").await, 204);
    for unit in &units {
        assert_eq!(logs.blob(unit).await.unwrap(), lines(0..2).join("\n") + "\n");
    }
    assert_eq!(logs.put("accountId:default/other", &lines(0..1)).await, 204, "others stay open");
    assert_eq!(logs.open("a").await, 204);
    assert_eq!(logs.open("b").await, 204);
    let query = [("keyList", "a,b,c"), ("snapshot", "true")];
    assert_eq!(logs.status(Method::DELETE, "/stream", &query, "").await, 204);
    assert_eq!(logs.blob("a").await.as_deref(), Some(""), "an empty stream has an empty blob");
    let found = m.app.logs.keys("default", &base, 10).await.unwrap();
    assert_eq!(found.len(), 3);
    assert!(m.app.logs.keys("other", "", 10).await.unwrap().is_empty(), "accounts are apart");
    m.stop().await;
}

#[tokio::test]
async fn blobs_are_stored_as_they_come() {
    let m = TestManager::start().await;
    let logs = Logs::new(&m);
    assert!(!logs.exists("blob/a").await);
    let body: String = lines(0..30_000).join("\n");
    assert_eq!(logs.ask(Method::POST, "/blob", &[("key", "blob/a")], body.clone()).await.status(), 204);
    assert!(logs.exists("blob/a").await);
    assert!(!logs.exists("blob/").await, "not a prefix test");
    assert_eq!(logs.blob("blob/a").await.unwrap(), body);
    assert_eq!(logs.ask(Method::POST, "/blob", &[("key", "blob/a")], "x").await.status(), 204);
    assert_eq!(logs.blob("blob/a").await.unwrap(), "x");
    let piece = m.app.logs.read("default", "blob/a", 0, 100).await.unwrap();
    assert_eq!((piece.next, &piece.text[..], piece.open), (1, &b"x\n"[..], false));
    assert_eq!(logs.status(Method::DELETE, "/blob", &[("key", "blob/a")], "").await, 204);
    assert_eq!(logs.blob("blob/a").await, None);
    m.stop().await;
}

#[tokio::test]
async fn no_line_is_lost_however_many_there_are() {
    let m = TestManager::start().await;
    let logs = Logs::new(&m);
    assert_eq!(logs.open(KEY).await, 204);
    for batch in 0..60 {
        assert_eq!(logs.put(KEY, &lines(batch * 1000..(batch + 1) * 1000)).await, 204);
    }
    let long =
        json!({"level": "INFO", "pos": 60_000, "out": "ü".repeat(600_000), "time": "2026-01-02T03:04:05Z"});
    assert_eq!(logs.put(KEY, &[long.to_string()]).await, 204);
    assert_eq!(logs.status(Method::DELETE, "/stream", &[("key", KEY), ("snapshot", "true")], "").await, 204);
    // In pieces, over several chunk files, from anywhere.
    let mut next = 0;
    let mut pieces = 0;
    loop {
        let piece = m.app.logs.read("default", KEY, next, 64 * 1024).await.unwrap();
        assert_eq!(piece.first, next);
        if piece.text.is_empty() {
            break;
        }
        for text in piece.text.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
            let line: Value = serde_json::from_slice(text).unwrap();
            assert_eq!(line["pos"].as_u64().unwrap(), next);
            next += 1;
        }
        assert_eq!(next, piece.next);
        pieces += 1;
    }
    assert_eq!(next, 60_001);
    assert!(pieces > 60);
    let middle = m.app.logs.read("default", KEY, 54_321, 10).await.unwrap();
    assert!(std::str::from_utf8(&middle.text).unwrap().contains("line 54321 "));
    assert_eq!(middle.next, 54_322, "at least one line, however small the limit");
    let blob = logs.blob(KEY).await.unwrap();
    assert_eq!(blob.lines().count(), 60_001);
    m.stop().await;
}

#[tokio::test]
async fn followers_hear_of_appends_and_of_new_keys() {
    let m = TestManager::start().await;
    let logs = &m.app.logs;
    let mut keys = logs.watch_keys("default");
    let mut news = logs.watch("default", "k");
    logs.open("default", "k", manager::logstore::Open::Erase).await.unwrap();
    keys.changed().await.unwrap();
    news.mark_unchanged();
    let line = bytes::Bytes::from(line(0));
    let appended = logs.append("default", "k", None, vec![line]).await.unwrap();
    assert_eq!(appended, 1);
    until("the watch tells", || async { news.has_changed().unwrap().then_some(()) }).await;
    assert_eq!(*news.borrow_and_update(), 1);
    logs.close("default", "k", manager::logstore::Close::Discard).await.unwrap();
    assert!(news.has_changed().unwrap() && keys.has_changed().unwrap());
    let piece = logs.read("default", "k", 0, 1000).await.unwrap();
    assert_eq!((piece.next, piece.open), (1, false), "readable though it was closed without a snapshot");
    m.stop().await;
}
