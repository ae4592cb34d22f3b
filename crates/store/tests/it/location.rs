//! Opening, closing and opening again; and files that must not be touched.

use std::path::{Path, PathBuf};

use coracle_store::{Location, OpenError, Store, database, records, resources};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::samples::{attempt, body, event, pod, stored_run, task};

#[tokio::test]
async fn a_store_that_is_opened_again_holds_what_it_held() {
    let (_directory, path) = place();
    let store = open(&path).await.unwrap();
    let run = stored_run(&store).await;
    let train = task(run.id, "root.train");
    let commit = records::Commit {
        tasks: vec![train.clone()],
        attempts: vec![attempt(&train, 1)],
        events: vec![event(&train, "Started")],
        ..records::Commit::default()
    };
    store.records().commit(run.id, commit).await.unwrap();
    let first = store.resources().create(pod("a", "x"), body(1)).await.unwrap();
    let second = store
        .resources()
        .update(pod("a", "x"), body(2), first.revision)
        .await
        .unwrap();
    store.close().await;

    let store = open(&path).await.unwrap();
    assert_eq!(store.records().run(run.id).await.unwrap(), run);
    assert_eq!(
        store.records().tasks(run.id).await.unwrap(),
        std::slice::from_ref(&train)
    );
    assert_eq!(
        store.records().attempts(run.id).await.unwrap(),
        [attempt(&train, 1)]
    );
    assert_eq!(
        store.resources().get(&pod("a", "x")).await.unwrap().as_ref(),
        Some(&second)
    );
    assert_eq!(store.resources().revision().await.unwrap(), second.revision);
    let mut watch = store
        .resources()
        .watch(&pod("a", "x").resource, None, first.revision)
        .await
        .unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().object, second);
}

#[tokio::test]
async fn what_was_written_survives_a_store_that_was_never_closed() {
    let (directory, path) = place();
    let store = open(&path).await.unwrap();
    let made = store.resources().create(pod("a", "x"), body(1)).await.unwrap();
    // What a process that is killed leaves behind: the file and its log, unfolded.
    let copy = directory.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(with_suffix(&path, "-wal"), with_suffix(&copy, "-wal")).unwrap();
    let copied = open(&copy).await.unwrap();
    assert_eq!(copied.resources().get(&pod("a", "x")).await.unwrap(), Some(made));
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let store = Store::open(Location::Memory).await.unwrap();
    let (resources, records) = (store.resources().clone(), store.records().clone());
    store.close().await;
    let error = resources.get(&pod("a", "x")).await.unwrap_err();
    assert!(matches!(
        error,
        resources::Error::Database(database::Error::Closed)
    ));
    let error = records.unfinished_runs().await.unwrap_err();
    assert!(matches!(error, records::Error::Database(database::Error::Closed)));
}

#[tokio::test]
async fn a_closed_store_is_one_file() {
    let (directory, path) = place();
    open(&path).await.unwrap().close().await;
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [path.file_name().unwrap()]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_was() {
    for sql in [
        "PRAGMA user_version = 99",
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99, 'from the future', 1, x'00', 0)",
    ] {
        let (_directory, path) = place();
        open(&path).await.unwrap().close().await;
        execute(&path, sql).await;
        let error = refused(&path).await;
        assert!(
            matches!(
                error,
                OpenError::NewerSchema {
                    found: 99,
                    known: 3..99,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.to_string().ends_with("run the newer version"));
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_was() {
    let (_directory, path) = place();
    let store = open(&path).await.unwrap();
    for number in 0..50 {
        store
            .resources()
            .create(pod("a", &format!("x{number}")), body("y".repeat(500)))
            .await
            .unwrap();
    }
    store.close().await;
    let whole = std::fs::read(&path).unwrap();
    let page = 4096;
    type Damage = fn(&mut Vec<u8>, usize);
    let damages: [(&str, Damage); 5] = [
        ("not a database", |bytes, _| {
            *bytes = b"hello, this is some text\n".repeat(100)
        }),
        ("shorter than a header", |bytes, _| bytes.truncate(50)),
        ("cut off", |bytes, page| bytes.truncate(page * 3)),
        ("a schema overwritten", |bytes, page| bytes[100..page].fill(0xA5)),
        ("pages overwritten", |bytes, page| bytes[page * 4..].fill(0xA5)),
    ];
    for (what, damage) in damages {
        let mut bytes = whole.clone();
        damage(&mut bytes, page);
        std::fs::write(&path, &bytes).unwrap();
        let error = refused(&path).await;
        assert!(matches!(error, OpenError::Corrupt { .. }), "{what}: {error:?}");
    }
    std::fs::write(&path, &whole).unwrap();
    open(&path).await.unwrap();
}

#[tokio::test]
async fn the_database_of_another_program_is_refused_and_left_as_it_was() {
    let (_directory, path) = place();
    execute(&path, "CREATE TABLE songs (title TEXT)").await;
    let error = refused(&path).await;
    assert!(matches!(error, OpenError::NotCoracle { .. }), "{error:?}");
}

#[tokio::test]
async fn an_empty_file_is_a_new_database() {
    let (_directory, path) = place();
    std::fs::write(&path, b"").unwrap();
    let store = open(&path).await.unwrap();
    store.resources().create(pod("a", "x"), body(1)).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_is_missing_is_named() {
    let (_directory, path) = place();
    let path = path.join("missing.db");
    let error = open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::NoFolder { .. }), "{error:?}");
    assert!(error.to_string().contains("missing.db"));
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    (directory, path)
}

async fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open(Location::File(path.to_owned())).await
}

/// Why the file is not opened. It must be the same bytes after as before.
async fn refused(path: &Path) -> OpenError {
    let before = std::fs::read(path).unwrap();
    let error = open(path).await.unwrap_err();
    assert!(std::fs::read(path).unwrap() == before, "the file was changed");
    error
}

async fn execute(path: &Path, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
