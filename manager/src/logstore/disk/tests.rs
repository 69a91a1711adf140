use super::*;
use crate::clock::SystemClock;
use std::fs;
use std::io::Write;
use tempfile::TempDir;

fn line(n: u64) -> Bytes {
    Bytes::from(format!(r#"{{"pos":{n}}}"#))
}

fn batch(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(line).collect()
}

async fn all(logs: &DiskLogs, key: &str) -> Vec<u64> {
    let (mut next, mut seen) = (0, Vec::new());
    loop {
        let piece = logs.read("a", key, next, 1000).await.unwrap();
        if piece.text.is_empty() {
            return seen;
        }
        for text in piece.text.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
            let value: serde_json::Value = serde_json::from_slice(text).unwrap();
            seen.push(value["pos"].as_u64().unwrap());
        }
        next = piece.next;
    }
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_torn_line_at_the_end_is_cut_and_sent_again() {
    let dir = TempDir::new().unwrap();
    let logs = DiskLogs::open(dir.path()).unwrap();
    logs.open("a", "k", Open::Resume).await.unwrap();
    logs.append("a", "k", Some(0), batch(0..10)).await.unwrap();
    drop(logs);
    // A power failure in the middle of a write, to the log and to the list of streams.
    let chunk = files(dir.path()).into_iter().find(|path| path.ends_with(format!("{:020}", 0))).unwrap();
    fs::OpenOptions::new().append(true).open(chunk).unwrap().write_all(br#"{"pos":1"#).unwrap();
    let list = dir.path().join("streams.ndjson");
    fs::OpenOptions::new().append(true).open(list).unwrap().write_all(br#"{"o":"op"#).unwrap();
    let logs = DiskLogs::open(dir.path()).unwrap();
    assert_eq!(logs.open("a", "k", Open::Resume).await.unwrap(), 10);
    logs.append("a", "k", Some(10), batch(10..12)).await.unwrap();
    logs.open("a", "other", Open::Erase).await.unwrap();
    drop(logs);
    let logs = DiskLogs::open(dir.path()).unwrap();
    assert_eq!(all(&logs, "k").await, (0..12).collect::<Vec<_>>());
    assert_eq!(logs.keys("a", "", 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn damage_in_the_middle_of_the_list_stops_the_start() {
    let dir = TempDir::new().unwrap();
    drop(DiskLogs::open(dir.path()).unwrap());
    fs::write(
        dir.path().join("streams.ndjson"),
        "{\"o\":\"open\",\"a\":\"a\",\"k\":\"k\",\"n\":0}\nrubbish\n",
    )
    .unwrap();
    match DiskLogs::open(dir.path()) {
        Err(LogError::Damaged { line: 2, .. }) => {}
        other => panic!("{:?}", other.map(drop)),
    }
}

#[tokio::test]
async fn erased_and_replaced_bodies_leave_no_files_and_the_list_stays_short() {
    let dir = TempDir::new().unwrap();
    let logs = DiskLogs::open(dir.path()).unwrap();
    for round in 0..700 {
        logs.open("a", "k", Open::Erase).await.unwrap();
        logs.append("a", "k", None, batch(round..round + 1)).await.unwrap();
        logs.close("a", "k", Close::Snapshot).await.unwrap();
    }
    logs.put_blob("a", "b", Bytes::from_static(b"one")).await.unwrap();
    logs.put_blob("a", "b", Bytes::from_static(b"two")).await.unwrap();
    assert_eq!(files(dir.path()).len(), 3, "the list, one body, one blob");
    let list = dir.path().join("streams.ndjson");
    let long = fs::metadata(&list).unwrap().len();
    drop(logs);
    let logs = DiskLogs::open(dir.path()).unwrap();
    assert!(fs::metadata(&list).unwrap().len() < long / 100);
    assert_eq!(all(&logs, "k").await, [699]);
    assert_eq!(&logs.blob("a", "b", 0, 99).await.unwrap()[..], b"two");
    drop(logs);
    let logs = DiskLogs::open(dir.path()).unwrap();
    assert_eq!(all(&logs, "k").await, [699], "the shortened list says the same");
    // A new body never takes the folder of an old one.
    logs.open("a", "fresh", Open::Erase).await.unwrap();
    assert!(all(&logs, "fresh").await.is_empty());
}

#[tokio::test]
async fn what_a_shortened_list_says_is_what_was() {
    let dir = TempDir::new().unwrap();
    let logs = DiskLogs::open(dir.path()).unwrap();
    // A blob from a snapshot, then lines left without one, then a live stream under the same key.
    for (range, how) in [(0..2, Some(Close::Snapshot)), (10..13, Some(Close::Discard)), (20..21, None)] {
        logs.open("a", "k", Open::Erase).await.unwrap();
        logs.append("a", "k", None, batch(range)).await.unwrap();
        if let Some(how) = how {
            logs.close("a", "k", how).await.unwrap();
        }
    }
    for _ in 0..600 {
        logs.open("a", "noise", Open::Erase).await.unwrap();
        logs.close("a", "noise", Close::Snapshot).await.unwrap();
    }
    for _ in 0..2 {
        drop(DiskLogs::open(dir.path()).unwrap());
    }
    let logs = DiskLogs::open(dir.path()).unwrap();
    assert_eq!(all(&logs, "k").await, [20], "the live stream");
    assert_eq!(logs.blob("a", "k", 0, 99).await.unwrap(), "{\"pos\":0}\n{\"pos\":1}\n");
    logs.open("a", "k", Open::Erase).await.unwrap();
    logs.close("a", "k", Close::Discard).await.unwrap();
    logs.delete_blob("a", "k").await.unwrap();
    assert!(all(&logs, "k").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_one_stream_are_put_in_order_and_a_reader_beside_them_sees_whole_lines() {
    let dir = TempDir::new().unwrap();
    let logs = Arc::new(DiskLogs::open(dir.path()).unwrap());
    logs.open("a", "k", Open::Erase).await.unwrap();
    // Each batch is sent by three writers at once, as after lost replies.
    let reader = {
        let logs = logs.clone();
        tokio::spawn(async move {
            let mut news = logs.watch("a", "k");
            let (mut next, mut seen) = (0, Vec::new());
            while seen.len() < 500 {
                news.mark_unchanged();
                let piece = logs.read("a", "k", next, 300).await.unwrap();
                if piece.text.is_empty() {
                    news.changed().await.unwrap();
                    continue;
                }
                for text in piece.text.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
                    let value: serde_json::Value = serde_json::from_slice(text).unwrap();
                    seen.push(value["pos"].as_u64().unwrap());
                }
                next = piece.next;
            }
            seen
        })
    };
    for first in (0..500).step_by(10) {
        let sent = (0..3).map(|_| logs.append("a", "k", Some(first), batch(first..first + 10)));
        for next in futures::future::join_all(sent).await {
            assert_eq!(next.unwrap(), first + 10);
        }
    }
    assert_eq!(reader.await.unwrap(), (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_syncer_ends_with_everything_on_the_disk() {
    let dir = TempDir::new().unwrap();
    let logs = Arc::new(DiskLogs::open(dir.path()).unwrap());
    let stop = CancellationToken::new();
    let syncer = tokio::spawn(logs.clone().keep_synced(Arc::new(SystemClock), stop.clone()));
    logs.open("a", "k", Open::Erase).await.unwrap();
    logs.append("a", "k", None, batch(0..1)).await.unwrap();
    logs.open("a", "erased", Open::Erase).await.unwrap();
    logs.append("a", "erased", None, batch(0..1)).await.unwrap();
    logs.open("a", "erased", Open::Erase).await.unwrap();
    assert!(!locked(&logs.shared.unsynced).is_empty());
    stop.cancel();
    syncer.await.unwrap();
    assert!(locked(&logs.shared.unsynced).is_empty());
}

#[tokio::test]
async fn a_whole_log_survives_a_restart_and_its_repetition_is_stored_once() {
    let dir = TempDir::new().unwrap();
    let logs = DiskLogs::open(dir.path()).unwrap();
    assert_eq!(logs.whole("a", "k", 0, batch(0..3)).await.unwrap(), 3);
    assert!(!logs.keys("a", "k", 1).await.unwrap()[0].open);
    drop(logs);
    let logs = DiskLogs::open(dir.path()).unwrap();
    assert_eq!(logs.whole("a", "k", 0, batch(0..3)).await.unwrap(), 3);
    assert_eq!(all(&logs, "k").await, [0, 1, 2]);
    assert!(logs.has_blob("a", "k").await.unwrap() && !logs.keys("a", "k", 1).await.unwrap()[0].open);
    // What was sent before it went on, and a gap leaves it open.
    assert_eq!(logs.whole("a", "k", 2, batch(2..5)).await.unwrap(), 5);
    assert!(matches!(logs.whole("a", "k", 9, batch(9..10)).await, Err(LogError::Gap { next: 5 })));
    assert!(logs.keys("a", "k", 1).await.unwrap()[0].open);
    assert_eq!(logs.whole("a", "k", 5, batch(5..6)).await.unwrap(), 6);
    assert_eq!(all(&logs, "k").await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_open_that_comes_twice_at_once_erases_nothing() {
    let dir = TempDir::new().unwrap();
    let logs = Arc::new(DiskLogs::open(dir.path()).unwrap());
    for round in 0..100 {
        let key = format!("k{round}");
        let writers = (0..8).map(|n| {
            let (logs, key) = (logs.clone(), key.clone());
            tokio::spawn(async move {
                logs.open("a", &key, Open::Resume).await?;
                logs.append("a", &key, None, batch(n..n + 1)).await
            })
        });
        for written in futures::future::join_all(writers).await {
            written.unwrap().unwrap();
        }
        let mut seen = all(&logs, &key).await;
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7], "round {round}");
    }
}
