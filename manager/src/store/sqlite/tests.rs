use super::*;
use crate::store::conformance::{self, Backend};
use futures::future::BoxFuture;
use serde_json::json;
use std::path::PathBuf;
use tempfile::TempDir;

fn key(byte: u8) -> Arc<ManagerKey> {
    Arc::new(ManagerKey::from_bytes(&[byte; 32]).unwrap())
}

struct File(TempDir);

impl File {
    fn new() -> Self {
        File(tempfile::tempdir().unwrap())
    }
    fn path(&self) -> PathBuf {
        self.0.path().join("manager.db")
    }
    fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.path(), key(7), Arc::default()).unwrap()
    }
}

impl Backend for File {
    fn open(&self, changes: Arc<Changes>) -> BoxFuture<'_, Arc<dyn Store>> {
        Box::pin(async move {
            let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&self.path(), key(7), changes).unwrap());
            store
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_passes_the_conformance_suite() {
    conformance::run(File::new).await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let file = File::new();
    drop(file.store());
    let conn = Connection::open(file.path()).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    match SqliteStore::open(&file.path(), key(7), Arc::default()) {
        Err(StoreError::TooNew { found: 99, known }) => assert_eq!(known, schema::known()),
        other => panic!("{:?}", other.map(drop)),
    }
}

#[tokio::test]
async fn another_key_is_refused_and_the_file_names_its_own() {
    let file = File::new();
    assert_eq!(key_id(&file.path()).unwrap(), None);
    drop(file.store());
    assert_eq!(key_id(&file.path()).unwrap().as_deref(), Some(key(7).id()));
    assert!(SqliteStore::open(&file.path(), key(8), Arc::default()).is_err());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error_and_never_replaced() {
    let file = File::new();
    std::fs::write(file.path(), "this is not a database, but somebody's notes ".repeat(100)).unwrap();
    let before = std::fs::read(file.path()).unwrap();
    assert!(SqliteStore::open(&file.path(), key(7), Arc::default()).is_err());
    assert!(key_id(&file.path()).is_err());
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
}

fn task_with(id: &str, data: &str) -> NewTask {
    NewTask {
        id: id.to_owned(),
        execution_id: "e".to_owned(),
        node: "n".to_owned(),
        attempt: 1,
        task_type: "T".to_owned(),
        selectors: json!([]),
        secrets: vec![],
        timeout_ms: 1,
        affinity: String::new(),
        data: data.to_owned(),
        abstractions: vec![],
        created_at: 1,
    }
}

#[tokio::test]
async fn nothing_of_an_execution_is_readable_in_the_files() {
    const PLANTED: &str = "planted-needle-7f3a";
    let file = File::new();
    let store = file.store();
    let doc = json!({ "value": PLANTED });
    let state = doc.clone();
    store.create_execution("e", "p", None, "me", 1, Box::new(move |_| Ok(state))).await.unwrap();
    let task = task_with("t", &doc.to_string());
    store.transition("e", 0, doc.clone(), doc.clone().into(), vec![Effect::Enqueue(task)], 2).await.unwrap();
    store.acquire("t", "a", "i", 3).await.unwrap();
    store.progress("t", "a", doc.clone()).await.unwrap();
    store.checkpoint("t", "a", 1, doc.clone()).await.unwrap();
    store.answer("t", "b", 1, doc.clone(), 4).await.unwrap();
    store.answer("t", "a", 1, doc.clone(), 4).await.unwrap();
    assert_eq!(store.task("t").await.unwrap().unwrap().result, Some(doc));
    let look = || {
        let mut looked = 0;
        for entry in std::fs::read_dir(file.0.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            looked += bytes.len();
            let found = bytes.windows(PLANTED.len()).any(|window| window == PLANTED.as_bytes());
            assert!(!found, "a document is stored in clear");
        }
        assert!(looked > 10_000, "there was nothing to look at");
    };
    // While the write-ahead log is full of it, and after the last connection folded it into the database.
    look();
    drop(store);
    look();
}

#[tokio::test]
async fn documents_cannot_be_moved_between_rows() {
    let file = File::new();
    let store = file.store();
    store.enqueue(task_with("t1", r#""one""#)).await.unwrap();
    store.enqueue(task_with("t2", r#""two""#)).await.unwrap();
    let swap = "UPDATE task SET data = (SELECT data FROM task WHERE id = 't1') WHERE id = 't2'";
    store.write(move |tx| Ok(tx.session().conn.execute_batch(swap)?)).await.unwrap();
    assert_eq!(store.task("t1").await.unwrap().unwrap().task.data, r#""one""#);
    assert!(store.task("t2").await.is_err());
}

#[tokio::test]
async fn a_panic_in_an_operation_ends_only_that_operation() {
    let file = File::new();
    let store = file.store();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let failed = store.create_execution("e", "p", None, "me", 1, Box::new(|_| panic!("on purpose"))).await;
    std::panic::set_hook(hook);
    assert!(matches!(failed, Err(StoreError::Backend(_))));
    assert_eq!(store.execution("e").await.unwrap(), None);
    let row = store.create_execution("e", "p", None, "me", 1, Box::new(|_| Ok(json!({})))).await.unwrap();
    assert_eq!(row.sequence_id, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_to_have_failed_for_want_of_a_transaction_was_not_done() {
    let file = File::new();
    let store = file.store();
    let other = rusqlite::Connection::open(file.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writes = futures::future::join_all(["a", "b", "c"].map(|name| store.put_fact(name, "x"))).await;
    assert!(writes.iter().all(Result::is_err), "{writes:?}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.facts("").await.unwrap().iter().filter(|(_, value)| value == "x").count(), 0);
    store.put_fact("a", "y").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_writes_share_commits() {
    let file = File::new();
    let store = Arc::new(file.store());
    let writes: Vec<_> = (0..400)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.put_fact(&format!("f{n}"), "x").await })
        })
        .collect();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    let commits = store.writer.commits();
    assert!(commits < 200, "{commits} commits for 400 writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_acknowledged_is_there_after_the_plug_was_pulled() {
    let file = File::new();
    let store = Arc::new(file.store());
    store.create_execution("e", "p", None, "me", 1, Box::new(|_| Ok(json!({"n": 0})))).await.unwrap();
    for round in 1..=10_u64 {
        let writes: Vec<_> = (0..20)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move { store.enqueue(task_with(&format!("t{round}-{n}"), "1")).await })
            })
            .collect();
        for write in writes {
            write.await.unwrap().unwrap();
        }
        store
            .transition("e", round - 1, json!(round), json!({ "n": round }).into(), vec![], round)
            .await
            .unwrap();
        // The files as a killed process leaves them: nothing was closed, nothing folded in. The writer is idle here, so
        // the copy is of one moment.
        let copy = tempfile::tempdir().unwrap();
        for name in ["manager.db", "manager.db-wal"] {
            std::fs::copy(file.0.path().join(name), copy.path().join(name)).unwrap();
        }
        let left = SqliteStore::open(&copy.path().join("manager.db"), key(7), Arc::default()).unwrap();
        assert_eq!(left.snapshot("e").await.unwrap().unwrap().state, json!({ "n": round }));
        let tasks = left.queued_tasks(1000).await.unwrap();
        assert_eq!(u64::try_from(tasks.len()).unwrap(), round * 20);
        assert_eq!(left.events("e").await.unwrap().len(), usize::try_from(round).unwrap());
    }
}
