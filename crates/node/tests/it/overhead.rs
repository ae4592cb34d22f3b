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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and asserts nothing"]
async fn overhead_of_a_network_of_its_own() {
    let machine = Machine::start().await;
    let script = "import socket, time\n\
                  def once(to):\n    \
                      s = socket.socket()\n    s.connect(to)\n    s.close()\n\
                  host = socket.socket()\nhost.bind(('127.77.1.1', 0))\nhost.listen(4000)\n\
                  port = host.getsockname()[1]\n\
                  own = socket.socket()\nown.bind(('0.0.0.0', 47321))\nown.listen(4000)\n\
                  for name, to in [('to an address', ('127.77.1.1', port)), ('to localhost', ('127.0.0.1', 47321))]:\n    \
                      took = []\n    \
                      for _ in range(2000):\n        \
                          since = time.perf_counter()\n        once(to)\n        \
                          took.append(time.perf_counter() - since)\n    \
                      took.sort()\n    \
                      print(name, *(round(took[at] * 1e6, 1) for at in [0, 1000]), 'us', end='; ')\n";
    for (name, is_on_host) in [("warm", true), ("on-the-host", true), ("on-its-own", false)] {
        let mut pod = shell(name, "");
        pod["spec"]["containers"][0]["command"] = serde_json::json!(["python3", "-c", script]);
        pod["spec"]["hostNetwork"] = serde_json::json!(is_on_host);
        machine.run(pod).await;
        eprintln!("connect, {name}: {}", machine.log(name).await);
    }
    for is_on_host in [true, false] {
        let mut inside = Vec::new();
        let mut whole = Vec::new();
        for round in 0..ROUNDS {
            let name = format!("h{is_on_host}{round}");
            let mut pod = shell(&name, "true");
            pod["spec"]["hostNetwork"] = serde_json::json!(is_on_host);
            let created = Instant::now();
            machine.create(pod).await;
            let pod = machine.until_over(&name).await;
            whole.push(created.elapsed());
            let record = std::fs::read(machine.pod_dir(&pod).join("main/0/exit.json")).unwrap();
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
            let time = |field: &str| record[field].as_str().unwrap().parse::<Timestamp>().unwrap();
            inside.push(Duration::try_from(time("finished_at").duration_since(time("started_at"))).unwrap());
        }
        report(
            &format!("on this machine's network {is_on_host}, created to over"),
            &mut whole,
        );
        report("its first process to its last", &mut inside);
    }
}
