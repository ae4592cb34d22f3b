//! What goes and what stays.

use proptest::prelude::*;

use super::*;

const NOW: i64 = 10_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

fn run_id(number: u16) -> RunId {
    format!("0198c0de-0000-7000-8000-{number:012}")
        .parse()
        .expect("an id")
}

fn artifact(number: u16, uri: &str, bytes: u64) -> StoredArtifact {
    StoredArtifact {
        id: format!("0198c0de-0000-7000-9000-{number:012}")
            .parse()
            .expect("an id"),
        uri: uri.to_owned(),
        bytes,
        created_at: at(i64::from(number)),
    }
}

/// A run that ended at `number` seconds, or is at work when that is 0, with one artifact of 10 bytes.
fn run(number: u16, inputs: &[&str]) -> StoredRun {
    StoredRun {
        id: run_id(number),
        finished_at: (number > 0).then(|| at(i64::from(number))),
        outputs: vec![artifact(number, &format!("/store/p/{number}/x"), 10)],
        inputs: inputs.iter().map(|&uri| uri.to_owned()).collect(),
    }
}

fn store() -> Store {
    Store::new(vec![
        "/store".parse().expect("a URI"),
        "s3://b/root".parse().expect("a URI"),
    ])
}

fn planned(runs: &[StoredRun], orphans: &[StoredArtifact], policy: &Policy) -> Vec<Removal> {
    plan(runs, orphans, policy, &store(), at(NOW))
}

#[track_caller]
fn check(runs: &[StoredRun], orphans: &[StoredArtifact], policy: &Policy, expected: &[(u16, u64, Why)]) {
    let found: Vec<_> = planned(runs, orphans, policy)
        .into_iter()
        .map(|removal| (removal.run, removal.bytes, removal.why))
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(number, bytes, why)| ((*number > 0).then(|| run_id(*number)), *bytes, *why))
        .collect();
    assert_eq!(found, expected);
}

fn older_than(seconds: i64) -> Policy {
    Policy {
        older_than: Some(SignedDuration::from_secs(seconds)),
        ..Policy::default()
    }
}

fn keep_last(count: usize) -> Policy {
    Policy {
        keep_last: Some(count),
        ..Policy::default()
    }
}

fn max_bytes(bytes: u64) -> Policy {
    Policy {
        max_bytes: Some(bytes),
        ..Policy::default()
    }
}

#[test]
fn each_limit_takes_what_it_names() {
    let runs = [run(3000, &[]), run(1000, &[]), run(0, &[]), run(2000, &[])];
    let none: &[(u16, u64, Why)] = &[];
    check(&runs, &[], &Policy::default(), none);
    check(&runs, &[], &older_than(9000), none);
    check(
        &runs,
        &[],
        &older_than(7500),
        &[(1000, 10, Why::Age), (2000, 10, Why::Age)],
    );
    check(
        &runs,
        &[],
        &keep_last(1),
        &[(1000, 10, Why::Count), (2000, 10, Why::Count)],
    );
    check(&runs, &[], &max_bytes(40), none);
    check(&runs, &[], &max_bytes(39), &[(1000, 10, Why::Size)]);
    let all = [
        (1000, 10, Why::Size),
        (2000, 10, Why::Size),
        (3000, 10, Why::Size),
    ];
    check(&runs, &[], &max_bytes(0), &all);
    let both = Policy {
        keep_last: Some(2),
        ..older_than(0)
    };
    check(&runs, &[], &both, &[(1000, 10, Why::Age)]);
    let all = Policy {
        keep_last: Some(2),
        max_bytes: Some(0),
        ..older_than(9500)
    };
    check(&runs, &[], &all, &[(1000, 10, Why::Size)]);
}

#[test]
fn what_a_kept_run_uses_stays_until_that_run_goes() {
    let runs = [
        run(1000, &[]),
        run(2000, &["/store/p/1000/x"]),
        run(0, &["/store/p/2000/x"]),
    ];
    check(&runs, &[], &older_than(8500), &[(1000, 0, Why::Age)]);
    check(
        &runs,
        &[],
        &older_than(0),
        &[(1000, 10, Why::Age), (2000, 0, Why::Age)],
    );
}

#[test]
fn bytes_that_two_runs_show_as_theirs_go_with_the_last_of_them() {
    let mut second = run(2000, &[]);
    second.outputs = vec![artifact(2000, "/store/p/1000/x", 10)];
    let runs = [run(1000, &[]), second];
    check(&runs, &[], &older_than(8500), &[(1000, 0, Why::Age)]);
    check(
        &runs,
        &[],
        &older_than(0),
        &[(1000, 10, Why::Age), (2000, 0, Why::Age)],
    );
    check(&runs, &[], &max_bytes(10), &[]);
}

#[test]
fn what_is_outside_the_store_is_neither_counted_nor_removed() {
    let mut imported = run(1000, &[]);
    for uri in [
        "/etc/passwd",
        "/store/../etc/passwd",
        "/store-of-another/x",
        "/store",
        "s3://b/rooted/x",
        "s3://c/root/x",
        "https://h/x",
        "nonsense",
    ] {
        assert!(!store().holds(uri), "{uri}");
        imported.outputs.push(artifact(1, uri, 1 << 40));
    }
    assert!(store().holds("s3://b/root/x") && store().holds("file:///store/x"));
    check(&[imported.clone()], &[], &max_bytes(10), &[]);
    check(&[imported], &[], &older_than(0), &[(1000, 10, Why::Age)]);
}

#[test]
fn what_no_run_holds_goes_first() {
    let orphans = [
        artifact(500, "/store/gone/a", 5),
        artifact(600, "/store/gone/b", 5),
        artifact(700, "/store/p/0/used", 5),
    ];
    let runs = [run(1000, &[]), run(0, &["/store/p/0/used"])];
    check(&runs, &orphans, &Policy::default(), &[]);
    check(&runs, &orphans, &max_bytes(30), &[(0, 5, Why::Size)]);
    check(
        &runs,
        &orphans,
        &max_bytes(20),
        &[(0, 10, Why::Size), (1000, 10, Why::Size)],
    );
    check(&runs, &orphans, &keep_last(1), &[(0, 10, Why::Count)]);
}

#[tokio::test]
async fn removing_takes_bytes_and_empty_folders_and_may_be_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let artifacts = Artifacts::local(folder.path().join("artifacts")).expect("usable");
    let root = artifacts.root().to_owned();
    for name in [
        "p/run/a/1/model/weights",
        "p/run/a/1/.parameters/x",
        "p/run/a/1/.output_metadata.json",
        "p/run/b/1/kept",
        "p/run/b/1/data",
    ] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        std::fs::write(path, "x").expect("written");
    }
    std::fs::write(folder.path().join("outside"), "x").expect("written");
    std::os::unix::fs::symlink(folder.path().join("outside"), root.join("p/run/b/1/link")).expect("linked");
    std::os::unix::fs::symlink(folder.path(), root.join("p/out")).expect("linked");
    let store = Store::new(vec![ArtifactUri::from(&*root)]);
    let removal = |names: &[&str]| Removal {
        run: None,
        artifacts: names
            .iter()
            .map(|name| artifact(1, &root.join(name).to_string_lossy(), 1))
            .collect(),
        bytes: 0,
        why: Why::Age,
    };
    let all = removal(&["p/run/a/1/model", "p/run/b/1/data", "p/run/b/1/link"]);
    for _ in 0..2 {
        assert_eq!(remove(&artifacts, &store, &all).await.expect("removes"), 3);
        assert!(!root.join("p/run/a").exists());
        assert!(root.join("p/run/b/1/kept").exists() && !root.join("p/run/b/1/data").exists());
        assert!(
            folder.path().join("outside").exists(),
            "a link goes, not what it leads to"
        );
    }
    remove(&artifacts, &store, &removal(&["p/out/outside"]))
        .await
        .expect_err("leads out");
    let mut outside = removal(&[]);
    outside
        .artifacts
        .push(artifact(1, &folder.path().join("outside").to_string_lossy(), 1));
    remove(&artifacts, &store, &outside).await.expect_err("outside");
    assert!(folder.path().join("outside").exists());
}

fn some_runs() -> impl Strategy<Value = Vec<StoredRun>> {
    let one = (any::<bool>(), 0..20_u64, prop::collection::vec(0..12_usize, 0..3));
    prop::collection::vec(one, 0..12).prop_map(|runs| {
        let uri = |number: usize| format!("/store/p/{number}/x");
        runs.into_iter()
            .enumerate()
            .map(|(number, (is_finished, bytes, inputs))| {
                let id = u16::try_from(number).unwrap_or(0) + 1;
                StoredRun {
                    id: run_id(id),
                    finished_at: is_finished.then(|| at(i64::from(id) * 100)),
                    outputs: vec![artifact(id, &uri(number), bytes)],
                    inputs: inputs.into_iter().map(uri).collect(),
                }
            })
            .collect()
    })
}

fn some_policy() -> impl Strategy<Value = Policy> {
    let limits = (
        prop::option::of(0..12_000_i64),
        prop::option::of(0..12_usize),
        prop::option::of(0..200_u64),
    );
    limits.prop_map(|(older_than, keep_last, max_bytes)| Policy {
        older_than: older_than.map(SignedDuration::from_secs),
        keep_last,
        max_bytes,
    })
}

fn uris(removals: &[Removal]) -> BTreeSet<&str> {
    removals
        .iter()
        .flat_map(|removal| &removal.artifacts)
        .map(|artifact| &*artifact.uri)
        .collect()
}

proptest! {
    #[test]
    fn whatever_is_asked_nothing_goes_that_is_needed(runs in some_runs(), policy in some_policy()) {
        let removals = planned(&runs, &[], &policy);
        let gone: BTreeSet<_> = removals.iter().filter_map(|removal| removal.run).collect();
        prop_assert_eq!(gone.len(), removals.len(), "each run once");
        let taken = uris(&removals);
        let mut ended: Vec<_> = runs.iter().filter_map(|run| Some((run.finished_at?, run.id))).collect();
        ended.sort_unstable();
        let kept_last = policy.keep_last.unwrap_or(0);
        for (_, id) in ended.iter().rev().take(kept_last) {
            prop_assert!(!gone.contains(id), "among the last");
        }
        for run in runs.iter().filter(|run| !gone.contains(&run.id)) {
            for uri in holdings(run) {
                prop_assert!(!taken.contains(uri), "{uri} is used");
            }
        }
        for removal in &removals {
            let run = runs.iter().find(|run| Some(run.id) == removal.run).expect("known");
            prop_assert!(run.finished_at.is_some(), "it is at work");
        }
        // No more than asked: without the last of what went for its size, the rest was too much.
        let total: u64 = runs.iter().map(|run| run.outputs[0].bytes).sum();
        let freed: u64 = removals.iter().map(|removal| removal.bytes).sum();
        if let Some(most) = policy.max_bytes {
            let candidates = ended.len().saturating_sub(kept_last);
            prop_assert!(total - freed <= most || gone.len() == candidates, "more could go");
            if policy.older_than.is_none() && total <= most {
                prop_assert!(removals.is_empty(), "nothing had to go");
            }
        }
        if policy == Policy::default() {
            prop_assert!(removals.is_empty());
        }
    }

    #[test]
    fn a_stricter_limit_takes_no_less(runs in some_runs(), seconds in 0..12_000_i64, bytes in 1..200_u64, count in 1..12_usize) {
        let subset = |lax: &Policy, strict: &Policy| {
            let (lax, strict) = (planned(&runs, &[], lax), planned(&runs, &[], strict));
            uris(&lax).is_subset(&uris(&strict))
        };
        prop_assert!(subset(&older_than(seconds), &older_than(seconds / 2)));
        prop_assert!(subset(&max_bytes(bytes), &max_bytes(bytes / 2)));
        prop_assert!(subset(&keep_last(count), &keep_last(count - 1)));
    }
}
