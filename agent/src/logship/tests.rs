//! The pipeline over a real disk and a real log service on loopback. What a crash leaves is made by dropping the owner.

use super::*;
use axum::extract::{Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use executor_api::{Level, Stream, SystemClock};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};

fn sink(logs: &Arc<TaskLogs>) -> Sink {
    Sink { logs: logs.clone(), renamed: vec![("Init", "Initialize".to_owned())] }
}

/// A log service with the extensions.
#[derive(Default)]
struct Service {
    lines: Mutex<Vec<String>>,
    positions: Mutex<Vec<u64>>,
    open: AtomicBool,
    closed: AtomicBool,
    down: AtomicBool,
    refuse: AtomicBool,
    lose: AtomicUsize,
    bytes: AtomicUsize,
    batches: AtomicUsize,
    /// Keep only counts: for volume.
    count_only: bool,
    count: AtomicUsize,
}

type Params = Query<HashMap<String, String>>;

async fn stream(
    method: axum::http::Method,
    Query(query): Params,
    Extract(service): Extract<Arc<Service>>,
    body: Bytes,
) -> Response {
    if service.down.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if service.refuse.load(Ordering::SeqCst) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let missing =
        (StatusCode::BAD_REQUEST, axum::Json(serde_json::json!({"error_msg": "stream: not found"})));
    let next = |service: &Service| service.count.load(Ordering::SeqCst);
    match method.as_str() {
        "POST" => {
            service.open.store(true, Ordering::SeqCst);
            axum::Json(serde_json::json!({"next": next(&service)})).into_response()
        }
        "DELETE" => {
            service.closed.store(true, Ordering::SeqCst);
            StatusCode::NO_CONTENT.into_response()
        }
        _ if !service.open.load(Ordering::SeqCst) => missing.into_response(),
        _ => {
            service.bytes.fetch_add(body.len(), Ordering::SeqCst);
            let seq: usize = query["seq"].parse().unwrap();
            let have = next(&service);
            if seq > have {
                return (StatusCode::CONFLICT, axum::Json(serde_json::json!({"next": have}))).into_response();
            }
            if service.count_only {
                #[derive(serde::Deserialize)]
                struct Line<'a> {
                    #[serde(borrow)]
                    out: std::borrow::Cow<'a, str>,
                }
                let lines: Vec<Line<'_>> = serde_json::from_slice(&body).unwrap();
                for (n, line) in lines.iter().enumerate().skip(have - seq) {
                    assert!(
                        line.out.starts_with(&format!("{:09} ", seq + n)),
                        "line {} is {}",
                        seq + n,
                        line.out
                    );
                }
                service.count.store((seq + lines.len()).max(have), Ordering::SeqCst);
            } else {
                let lines: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
                for line in lines.iter().skip(have - seq) {
                    service.lines.lock().unwrap().push(line["out"].as_str().unwrap().to_owned());
                    service.positions.lock().unwrap().push(line["pos"].as_u64().unwrap());
                    service.count.fetch_add(1, Ordering::SeqCst);
                }
            }
            if service.lose.load(Ordering::SeqCst) > 0 {
                service.lose.fetch_sub(1, Ordering::SeqCst);
                return StatusCode::BAD_GATEWAY.into_response();
            }
            axum::Json(serde_json::json!({"next": next(&service)})).into_response()
        }
    }
}

/// Many calls in one request: each as the single one.
async fn batch(Extract(service): Extract<Arc<Service>>, body: Bytes) -> Response {
    let calls: Vec<proto::logs::StreamCall> = serde_json::from_slice(&body).unwrap();
    assert!(!calls.is_empty() && calls.len() <= proto::limits::MAX_STREAM_CALLS);
    service.batches.fetch_add(1, Ordering::SeqCst);
    let mut replies = Vec::new();
    for call in calls {
        assert_eq!(call.token, "x");
        let (method, lines) = match call.verb {
            proto::logs::StreamVerb::Open => (axum::http::Method::POST, None),
            proto::logs::StreamVerb::Append => (axum::http::Method::PUT, call.lines),
            proto::logs::StreamVerb::Close => (axum::http::Method::DELETE, None),
            proto::logs::StreamVerb::Whole => unreachable!("logWhole is not announced here"),
        };
        let query = HashMap::from([("seq".to_owned(), call.seq.to_string())]);
        let lines = lines.map(|l| Bytes::from(l.get().to_owned())).unwrap_or_default();
        let reply = stream(method, Query(query), Extract(service.clone()), lines).await;
        let status = match reply.status().as_u16() {
            204 => 200,
            400 => 404,
            other => other,
        };
        let text = axum::body::to_bytes(reply.into_body(), 65_536).await.unwrap();
        let next = serde_json::from_slice::<proto::logs::StreamNext>(&text).ok().map(|reply| reply.next);
        replies.push(proto::logs::StreamReply { status, next });
    }
    axum::Json(replies).into_response()
}

struct Bench {
    dir: tempfile::TempDir,
    service: Arc<Service>,
    base: String,
}

const MIB: u64 = 1024 * 1024;

impl Bench {
    async fn new(service: Service) -> Bench {
        let service = Arc::new(service);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new()
            .route("/stream", axum::routing::any(stream))
            .route("/stream/batch", axum::routing::post(batch))
            .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
            .with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Bench { dir: tempfile::tempdir().unwrap(), service, base }
    }

    fn ship(&self, limits: SpoolLimits) -> Arc<LogShip> {
        let _unused = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let features =
            Features { extended: true, stream_resume: true, log_batch: true, ..Features::default() };
        let (sender, features) = watch::channel(Some(features));
        std::mem::forget(sender);
        let key = crate::key::AgentKey::load_or_create(&self.dir.path().join("agent.key")).unwrap();
        LogShip::new(Options {
            root: self.dir.path().join("spool"),
            client: LogClient::new(reqwest::Client::builder().no_proxy().build().unwrap(), &self.base, "a"),
            features,
            limits,
            sealer: Arc::new(key.sealer()),
            clock: Arc::new(SystemClock),
            telemetry: Arc::new(Telemetry::new("a")),
        })
    }

    async fn logs(&self, ship: &Arc<LogShip>) -> Arc<TaskLogs> {
        let masker = Masker::new();
        masker.add(&SecretString::from("hunter2-secret".to_owned()));
        let stream = TaskStream {
            task_id: "t1".into(),
            base_key: "base".into(),
            token: SecretString::from("x".to_owned()),
            skip_base: false,
        };
        ship.task(stream, masker).await
    }

    fn spool_is_empty(&self) -> bool {
        std::fs::read_dir(self.dir.path().join("spool")).map_or(true, |mut dir| dir.next().is_none())
    }

    fn lines(&self) -> Vec<String> {
        self.service.lines.lock().unwrap().clone()
    }
}

const LIMITS: SpoolLimits = SpoolLimits { agent_bytes: 64 * MIB, unit_bytes: 32 * MIB };
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn lines_are_masked_numbered_and_shipped_and_the_spool_goes() {
    let bench = Bench::new(Service::default()).await;
    let ship = bench.ship(LIMITS);
    let logs = bench.logs(&ship).await;
    let unit = sink(&logs).unit("Execute");
    unit.line(Level::Info, "start hunter2-secret").await.unwrap();
    unit.write(Stream::Stdout, Bytes::from_static(b"out 1\nhunter2")).await.unwrap();
    unit.write(Stream::Stderr, Bytes::from_static(b"err 1\n")).await.unwrap();
    unit.write(Stream::Stdout, Bytes::from_static(b"-secret\nlast")).await.unwrap();
    assert_eq!(unit.durable(Stream::Stdout).await.unwrap(), 21);
    assert_eq!(unit.resume_at(Stream::Stderr), 6);
    logs.end().await;
    assert!(unit.write(Stream::Stdout, Bytes::from_static(b"late")).await.is_err());
    assert!(logs.shipped(LIMIT).await);
    assert_eq!(bench.lines(), ["start **************", "out 1", "err 1", "**************", "last"]);
    assert_eq!(*bench.service.positions.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert!(bench.service.closed.load(Ordering::SeqCst) && bench.spool_is_empty());
    assert_eq!(ship.spooled(), 0);
}

#[tokio::test]
async fn calls_of_many_units_share_requests_and_a_service_without_them_is_asked_singly() {
    let bench = Bench::new(Service { count_only: true, ..Service::default() }).await;
    let ship = bench.ship(LIMITS);
    let logs = bench.logs(&ship).await;
    for n in 0..60 {
        // No lines: the units only open and close their streams.
        let _unit = sink(&logs).unit(&format!("u{n}"));
    }
    logs.end().await;
    assert!(logs.shipped(LIMIT).await);
    let batches = bench.service.batches.load(Ordering::SeqCst);
    assert!((1..40).contains(&batches), "{batches} requests for 120 calls");

    let service = Arc::new(Service::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/stream", axum::routing::any(stream)).with_state(service.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let bench = Bench { base, service, ..bench };
    let ship = bench.ship(LIMITS);
    let logs = bench.logs(&ship).await;
    sink(&logs).unit("Execute").line(Level::Info, "one").await.unwrap();
    logs.end().await;
    assert!(logs.shipped(LIMIT).await);
    assert_eq!(bench.lines(), ["one"]);
    assert!(bench.service.closed.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_crash_at_any_line_loses_and_doubles_nothing() {
    let source: Vec<u8> =
        (0..400).flat_map(|n| format!("line {n:04} with hunter2-secret\n").into_bytes()).collect();
    let bench = Bench::new(Service::default()).await;
    let mut at = 0_usize;
    let mut crashes = 0;
    // Each life writes a little, makes some of it durable, and dies with lines on their way.
    for life in 0..40_usize {
        bench.service.lose.store(life % 3, Ordering::SeqCst);
        let ship = bench.ship(LIMITS);
        let logs = bench.logs(&ship).await;
        let unit = sink(&logs).unit("Execute");
        let resume = usize::try_from(unit.resume_at(Stream::Stdout)).unwrap();
        assert!(
            resume <= at.max(resume)
                && source[..resume].iter().filter(|b| **b == b'\n').count() >= bench.lines().len()
        );
        at = resume;
        for piece in 0..(life * 7 % 11) {
            let to = (at + 17 + life * 5 + piece).min(source.len());
            unit.write(Stream::Stdout, Bytes::copy_from_slice(&source[at..to])).await.unwrap();
            at = to;
            if piece % 4 == 3 {
                unit.durable(Stream::Stdout).await.unwrap();
            }
        }
        if life % 5 == 4 {
            let target = bench.service.count.load(Ordering::SeqCst);
            let _more = tokio::time::timeout(Duration::from_millis(150), async {
                while bench.service.count.load(Ordering::SeqCst) == target {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        crashes += 1;
        ship.stop.cancel();
        drop(ship);
    }
    assert_eq!(crashes, 40);
    bench.service.lose.store(0, Ordering::SeqCst);
    let ship = bench.ship(LIMITS);
    let logs = bench.logs(&ship).await;
    let unit = sink(&logs).unit("Execute");
    let resume = usize::try_from(unit.resume_at(Stream::Stdout)).unwrap();
    unit.write(Stream::Stdout, Bytes::copy_from_slice(&source[resume..])).await.unwrap();
    logs.end().await;
    assert!(logs.shipped(LIMIT).await);
    let expected: Vec<String> = (0..400).map(|n| format!("line {n:04} with **************")).collect();
    assert_eq!(bench.lines(), expected);
    assert!(bench.spool_is_empty());
}

#[tokio::test]
async fn a_full_spool_holds_the_producer_back_until_lines_are_shipped() {
    let bench = Bench::new(Service { count_only: true, ..Service::default() }).await;
    bench.service.down.store(true, Ordering::SeqCst);
    let ship = bench.ship(SpoolLimits { agent_bytes: 6 * MIB, unit_bytes: 6 * MIB });
    let logs = bench.logs(&ship).await;
    let unit = sink(&logs).unit("Execute");
    let producer = tokio::spawn(async move {
        let mut n = 0_u64;
        for _ in 0..400 {
            let mut chunk = Vec::new();
            while chunk.len() < 60_000 {
                chunk.extend_from_slice(format!("{n:09} {}\n", "x".repeat(90)).as_bytes());
                n += 1;
            }
            unit.write(Stream::Stdout, Bytes::from(chunk)).await.unwrap();
        }
        n
    });
    while ship.spooled() < 6 * MIB {
        tokio::task::yield_now().await;
    }
    assert!(ship.spooled() < 7 * MIB);
    assert!(!producer.is_finished());
    bench.service.down.store(false, Ordering::SeqCst);
    let lines = tokio::time::timeout(LIMIT, producer).await.unwrap().unwrap();
    logs.end().await;
    assert!(logs.shipped(LIMIT).await);
    assert_eq!(bench.service.count.load(Ordering::SeqCst) as u64, lines);
}

#[tokio::test]
async fn a_killed_step_is_not_held_back_and_the_gap_is_marked() {
    let bench = Bench::new(Service::default()).await;
    bench.service.down.store(true, Ordering::SeqCst);
    let ship = bench.ship(SpoolLimits { agent_bytes: MIB, unit_bytes: MIB });
    let logs = bench.logs(&ship).await;
    let unit = sink(&logs).unit("Execute");
    let line = Bytes::from(format!("{}\n", "y".repeat(60_000)));
    while ship.spooled() < MIB {
        unit.write(Stream::Stdout, line.clone()).await.unwrap();
    }
    let waiting = tokio::spawn({
        let (unit, line) = (unit.clone(), line.clone());
        async move { unit.write(Stream::Stdout, line).await }
    });
    tokio::task::yield_now().await;
    logs.release();
    tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap().unwrap();
    logs.end().await;
    bench.service.down.store(false, Ordering::SeqCst);
    assert!(logs.shipped(LIMIT).await);
    let last = bench.lines().pop().unwrap();
    assert_eq!(last, "[60001 bytes of this log were cut here: no room in the agent's spool]");
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_cuts_lines_and_says_so_later() {
    let bench = Bench::new(Service::default()).await;
    let ship = bench.ship(LIMITS);
    // A file where the directory should be: no append works, for root either.
    let task = bench.dir.path().join("spool").join(folder("t1"));
    std::fs::create_dir_all(bench.dir.path().join("spool")).unwrap();
    let logs = bench.logs(&ship).await;
    std::fs::write(&task, b"in the way").unwrap();
    let unit = sink(&logs).unit("Execute");
    unit.write(Stream::Stdout, Bytes::from_static(b"lost\n")).await.unwrap();
    std::fs::remove_file(&task).unwrap();
    unit.write(Stream::Stdout, Bytes::from_static(b"kept\n")).await.unwrap();
    logs.end().await;
    assert!(logs.shipped(LIMIT).await);
    let lines = bench.lines();
    assert!(lines[0].contains("bytes of this log were cut here"), "{lines:?}");
    assert_eq!(lines[1..], ["kept"]);
}

#[tokio::test]
async fn a_service_that_refuses_does_not_keep_the_spool_for_ever() {
    let bench = Bench::new(Service::default()).await;
    bench.service.refuse.store(true, Ordering::SeqCst);
    let ship = bench.ship(LIMITS);
    let logs = bench.logs(&ship).await;
    sink(&logs).unit("Execute").line(Level::Info, "x").await.unwrap();
    logs.end().await;
    assert!(logs.shipped(LIMIT).await);
    assert!(bench.spool_is_empty());
}

#[tokio::test]
async fn a_torn_record_is_dropped_and_numbers_go_on() {
    let bench = Bench::new(Service::default()).await;
    bench.service.down.store(true, Ordering::SeqCst);
    {
        let ship = bench.ship(LIMITS);
        let logs = bench.logs(&ship).await;
        let unit = sink(&logs).unit("Execute");
        unit.write(Stream::Stdout, Bytes::from_static(b"one\ntwo\n")).await.unwrap();
        ship.stop.cancel();
    }
    let unit_dir = bench.dir.path().join("spool").join(folder("t1")).join(folder("Execute"));
    let segment = unit_dir.join(format!("{:020}.seg", 0));
    let length = std::fs::metadata(&segment).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(length - 2).unwrap();
    let ship = bench.ship(LIMITS);
    let logs = bench.logs(&ship).await;
    let unit = sink(&logs).unit("Execute");
    assert_eq!(unit.resume_at(Stream::Stdout), 4);
    unit.write(Stream::Stdout, Bytes::from_static(b"two\nthree\n")).await.unwrap();
    bench.service.down.store(false, Ordering::SeqCst);
    logs.end().await;
    assert!(logs.shipped(LIMIT).await);
    assert_eq!(bench.lines(), ["one", "two", "three"]);
}

/// Speed of masking, splitting and numbering on one core: the bench prints it in a release build.
#[tokio::test]
#[ignore = "a measurement: cargo test -p agent --release -- --ignored --nocapture speed_of"]
async fn speed_of_split_mask_and_number() {
    let masker = Masker::new();
    for n in 0..20 {
        masker.add(&SecretString::from(format!("secret-value-{n}-0123456789")));
    }
    let line = "2024-01-02T03:04:05Z INFO some ordinary line of a build log with numbers 12345\n";
    let chunk: Vec<u8> = line.as_bytes().iter().copied().cycle().take(64 * 1024).collect();
    let mut splitter = split::Splitter::new(masker.stream(), 0);
    let mut out = Vec::new();
    let mut seq = 0;
    let begin = std::time::Instant::now();
    let rounds = 4096;
    for _ in 0..rounds {
        out.clear();
        splitter.push(&chunk, &mut |piece| {
            let text = String::from_utf8_lossy(piece.text);
            let origin = spool::Origin::Source(Stream::Stdout);
            spool::encode(
                &spool::Record { seq, end: piece.end.unwrap_or(0), time: 1, origin, text: &text },
                &mut out,
            );
            seq += 1;
        });
    }
    let rate = (rounds * chunk.len()) as f64 / begin.elapsed().as_secs_f64() / 1e6;
    println!("split + mask + number: {rate:.0} MB/s, {seq} lines");
}

/// End to end over loopback, with the service in the same process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo test -p agent --release -- --ignored --nocapture speed_of"]
async fn speed_of_the_whole_pipeline() {
    let bench = Bench::new(Service { count_only: true, ..Service::default() }).await;
    let ship = bench.ship(LIMITS);
    let logs = bench.logs(&ship).await;
    let unit = sink(&logs).unit("Execute");
    let begin = std::time::Instant::now();
    let mut total = 0;
    let mut n = 0_u64;
    while total < 256 * 1024 * 1024 {
        let mut chunk = Vec::with_capacity(64 * 1024);
        while chunk.len() < 60_000 {
            chunk.extend_from_slice(format!("{n:09} {}\n", "x".repeat(70)).as_bytes());
            n += 1;
        }
        total += chunk.len();
        unit.write(Stream::Stdout, Bytes::from(chunk)).await.unwrap();
    }
    logs.end().await;
    assert!(logs.shipped(Duration::from_secs(300)).await);
    let rate = total as f64 / begin.elapsed().as_secs_f64() / 1e6;
    println!("end to end: {rate:.0} MB/s, {} lines", bench.service.count.load(Ordering::SeqCst));
}
