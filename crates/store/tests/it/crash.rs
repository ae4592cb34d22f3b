//! A process that is killed while it writes: what it was told is done, is done.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use coracle_store::{
    Location, Store,
    resources::{At, Error, EventKind, Resources},
};

use crate::samples::{body, pod, pods};

const PLACE: &str = "CORACLE_STORE_TEST_PLACE";
const WRITERS: usize = 8;
/// Writes that are acknowledged before the process is killed.
const ACKNOWLEDGED: usize = 300;

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_in_the_middle_of_batches() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..3 {
        acknowledged.extend(write_until_killed(&path));
        let store = Store::open(Location::File(path.clone())).await.unwrap();
        let resources = store.resources();
        for (name, revision) in &acknowledged {
            let found = resources.get(&pod("a", name)).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("{name} is lost"));
            assert!(
                found.revision >= *revision,
                "{name} is at {}, not {revision}",
                found.revision
            );
        }
        log_and_memory_agree(resources).await;
        store.close().await;
    }
}

/// The last revision that was acknowledged of each object.
fn write_until_killed(path: &Path) -> BTreeMap<String, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::the_process_that_is_killed", "--exact", "--nocapture"])
        .env(PLACE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = 0;
    let mut acknowledged = BTreeMap::new();
    // Until the end of what it said: also what it said after this process wanted it dead.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((name, revision)) = line
            .strip_prefix("acknowledged ")
            .and_then(|line| line.split_once(' '))
        {
            acknowledged.insert(name.to_owned(), revision.parse().unwrap());
            seen += 1;
        }
        if seen == ACKNOWLEDGED {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= ACKNOWLEDGED, "it ended by itself after {seen} writes");
    acknowledged
}

/// Writes without end when it is told where, which only the test above does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_is_killed() {
    let Some(path) = std::env::var_os(PLACE).map(PathBuf::from) else {
        return;
    };
    let store = Store::open(Location::File(path)).await.unwrap();
    let writers = (0..WRITERS).map(|writer| write(store.resources().clone(), writer));
    futures::future::join_all(writers).await;
}

async fn write(resources: Resources, writer: usize) {
    for number in 0.. {
        let name = format!("{writer}-{}", number % 50);
        let key = pod("a", &name);
        let text = body("x".repeat(number % 7 * 1000));
        let written = match resources.get(&key).await.unwrap() {
            None => resources.create(key, text).await.unwrap(),
            Some(found) => resources.update(key, text, found.revision).await.unwrap(),
        };
        // One write of the whole line: what is torn would not be a line.
        let line = format!("acknowledged {name} {}\n", written.revision);
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}

/// What the log tells from the beginning is what is there.
async fn log_and_memory_agree(resources: &Resources) {
    let list = resources
        .list(&pods(), None, At::Latest, None, None)
        .await
        .unwrap();
    let Err(Error::Compacted { oldest, .. }) = resources.watch(&pods(), None, 0).await else {
        panic!("the log has a beginning");
    };
    let mut watch = resources.watch(&pods(), None, oldest).await.unwrap();
    let mut told = BTreeMap::new();
    for revision in oldest + 1..=list.revision {
        let event = watch.next().await.unwrap().unwrap();
        assert_eq!(event.object.revision, revision);
        assert_ne!(event.kind, EventKind::Deleted);
        told.insert(event.object.key.clone(), event.object.clone());
    }
    assert_eq!(told.into_values().collect::<Vec<_>>(), list.objects);
}
