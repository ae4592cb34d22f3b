//! How long a Pod takes that does nothing: from its creation to its end in the API, and how much of that is the
//! sandbox. Run it alone, with optimisation:
//! `cargo nextest run --release -p coracle-node --run-ignored only --no-capture overhead`.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::machine::{Machine, patient, shell};

const ROUNDS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and asserts nothing"]
async fn overhead_of_a_pod_that_does_nothing() {
    let machine = Machine::start().await;
    machine.script("warm", "true").await;
    let (mut whole, mut before, mut inside, mut after) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("p{round}");
        let created = Timestamp::now();
        machine.create(shell(&name, "true")).await;
        let pod = machine.until_over(&name).await;
        let seen = Timestamp::now();
        let record = std::fs::read(machine.pod_dir(&pod).join("main/0/exit.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let time = |field: &str| record[field].as_str().unwrap().parse::<Timestamp>().unwrap();
        let between = |from: Timestamp, to: Timestamp| Duration::try_from(to.duration_since(from)).unwrap();
        whole.push(between(created, seen));
        before.push(between(created, time("started_at")));
        inside.push(between(time("started_at"), time("finished_at")));
        after.push(between(time("finished_at"), seen));
    }
    report("created to over", &mut whole);
    report("created to its first process", &mut before);
    report("its first process to its last", &mut inside);
    report("its last process to over", &mut after);
    let started = Instant::now();
    for round in 0..ROUNDS {
        machine.create(shell(&format!("q{round}"), "true")).await;
    }
    for round in 0..ROUNDS {
        patient(machine.until_over(&format!("q{round}"))).await;
    }
    let each = started.elapsed() / u32::try_from(ROUNDS).unwrap();
    eprintln!("{ROUNDS} at once: {each:?} each");
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: usize| times[times.len() * share / 100];
    eprintln!(
        "{what}: median {:?}, 95 % {:?}, fastest {:?}",
        at(50),
        at(95),
        times[0]
    );
}
