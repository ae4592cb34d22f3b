//! How fast a `coracle up` answers the Kubernetes API over HTTP, and what memory it needs for it.
//!
//!     cargo build --release -p coracle
//!     cargo run --release -p coracle-apiserver --example load -- target/release/coracle [SECONDS] [OBJECTS] [WATCHERS]
//!
//! Starts the server on a data directory in a temporary folder. Client and server share the
//! machine. Each of the phases of create, get and delete lasts SECONDS (3 unless said otherwise),
//! with as many connections as clients, each of which asks as soon as it has been answered.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that cannot go on ends, and prints what it measured"
)]

mod http;
mod server;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::{Barrier, mpsc};

use crate::{
    http::{Answer, Connection},
    server::Server,
};

const NAMESPACE: &str = "bench";
const CLIENTS: [usize; 3] = [1, 16, 64];
const ROUNDS: usize = 20;
const EVENTS: usize = 100;
/// Between two changes that watchers are told of.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sample {
    ConfigMap,
    Pod,
}

impl Sample {
    const fn plural(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            Self::Pod => "pods",
        }
    }

    fn collection(self) -> String {
        format!("/api/v1/namespaces/{NAMESPACE}/{}", self.plural())
    }

    fn object(self, name: &str) -> Vec<u8> {
        let metadata = json!({"name": name, "labels": {"app": "bench", "tier": if name.ends_with('0') { "a" } else { "b" }}});
        let object: Value = match self {
            Self::ConfigMap => json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
                "data": {"settings.yaml": "a: 1\nb: two\n".repeat(20), "mode": "fast"},
            }),
            // On a machine that is not there, so that nothing runs.
            Self::Pod => json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                "spec": {
                    "nodeName": "elsewhere",
                    "restartPolicy": "Never",
                    "containers": [{
                        "name": "main", "image": "python:3.12",
                        "command": ["python", "-c", "print('hello')"],
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                    }],
                },
            }),
        };
        object.to_string().into_bytes()
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let binary = PathBuf::from(arguments.next().expect("say which coracle: load PATH"));
    let mut number = |or: usize| arguments.next().map_or(or, |argument| argument.parse().unwrap());
    let (seconds, objects, watchers) = (number(3), number(10_000), number(1000));
    let folder = std::env::temp_dir().join(format!("coracle-load-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    measure(
        &binary,
        &folder.join("data"),
        Duration::from_secs(seconds as u64),
        objects,
        watchers,
    )
    .await;
    std::fs::remove_dir_all(&folder).unwrap();
}

async fn measure(binary: &Path, data: &Path, phase: Duration, objects: usize, watchers: usize) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load of the machine before: {}", load.trim());
    let server = Server::start(binary, data).await.unwrap();
    println!("ready after {}, new data directory", milliseconds(server.ready));
    prepare(server.address).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    memory(&server, "idle");

    println!(
        "\n| | clients | /s | p50 ms | p99 ms | most ms | server's processor µs each |\n\
         | --- | --- | --- | --- | --- | --- | --- |"
    );
    for sample in [Sample::ConfigMap, Sample::Pod] {
        for clients in CLIENTS {
            writes(&server, sample, clients, phase).await;
        }
    }
    memory(&server, "after these");

    println!("\n| {objects} objects | bytes | p50 ms | p99 ms | most ms |\n| --- | --- | --- | --- | --- |");
    for sample in [Sample::ConfigMap, Sample::Pod] {
        fill(server.address, sample, objects).await;
        lists(server.address, sample).await;
    }
    memory(&server, "with these objects, after the lists");

    fan_out(&server, watchers).await;
    server.stop().unwrap();

    let server = Server::start(binary, data).await.unwrap();
    println!("\nready after {} with all objects", milliseconds(server.ready));
    tokio::time::sleep(Duration::from_secs(1)).await;
    memory(&server, "idle with all objects");
    server.stop().unwrap();
}

fn memory(server: &Server, when: &str) {
    println!("\nmemory (RSS), {when}: {:.1} MB", server.memory() as f64 / 1e6);
}

async fn prepare(address: SocketAddr) {
    let mut connection = Connection::open(address).await.unwrap();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let body = namespace.to_string();
    let answer = connection
        .ask("POST", "/api/v1/namespaces", body.as_bytes(), true)
        .await;
    good(&answer.unwrap());
    // A Pod is not admitted before its ServiceAccount is there.
    loop {
        let body = Sample::Pod.object("first");
        let answer = connection
            .ask("POST", &Sample::Pod.collection(), &body, true)
            .await;
        if answer.unwrap().status == 201 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn good(answer: &Answer) {
    let body = String::from_utf8_lossy(&answer.body);
    assert!((200..300).contains(&answer.status), "{}: {body}", answer.status);
}

/// Creates for as long as the phase lasts, gets for as long, and deletes all of it.
async fn writes(server: &Server, sample: Sample, clients: usize, phase: Duration) {
    let address = server.address;
    let barrier = Arc::new(Barrier::new(clients + 1));
    let mut tasks = Vec::new();
    for client in 0..clients {
        let barrier = Arc::clone(&barrier);
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            let collection = sample.collection();
            let name = |number: usize| format!("c{clients}-{client}-{number}");
            let mut times = [Vec::new(), Vec::new(), Vec::new()];
            let [creates, gets, deletes] = &mut times;
            barrier.wait().await;
            let began = Instant::now();
            while began.elapsed() < phase {
                let body = sample.object(&name(creates.len()));
                creates.push(timed(&mut connection, "POST", &collection, &body).await);
            }
            barrier.wait().await;
            let began = Instant::now();
            while began.elapsed() < phase {
                let path = format!("{collection}/{}", name(gets.len() % creates.len()));
                gets.push(timed(&mut connection, "GET", &path, b"").await);
            }
            barrier.wait().await;
            for number in 0..creates.len() {
                let path = format!("{collection}/{}?gracePeriodSeconds=0", name(number));
                deletes.push(timed(&mut connection, "DELETE", &path, b"").await);
            }
            barrier.wait().await;
            times
        }));
    }
    barrier.wait().await;
    let mut marks = vec![(Instant::now(), server.worked())];
    for _ in 0..3 {
        barrier.wait().await;
        marks.push((Instant::now(), server.worked()));
    }
    let mut all = [Vec::new(), Vec::new(), Vec::new()];
    for task in tasks {
        for (all, times) in all.iter_mut().zip(task.await.unwrap()) {
            all.extend(times);
        }
    }
    for ((verb, times), marks) in ["create", "get", "delete"]
        .into_iter()
        .zip(all)
        .zip(marks.windows(2))
    {
        let count = times.len() as f64;
        let rate = count / (marks[1].0 - marks[0].0).as_secs_f64();
        let work = (marks[1].1 - marks[0].1).as_secs_f64() * 1e6 / count;
        println!(
            "| {verb} {} | {clients} | {rate:.0} | {} | {work:.0} |",
            sample.plural(),
            spread(times)
        );
    }
}

async fn timed(connection: &mut Connection, method: &str, path: &str, body: &[u8]) -> Duration {
    let began = Instant::now();
    let answer = connection.ask(method, path, body, false).await.unwrap();
    let took = began.elapsed();
    good(&answer);
    took
}

async fn fill(address: SocketAddr, sample: Sample, objects: usize) {
    let clients = 16;
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await.unwrap();
                for number in (client..objects).step_by(clients) {
                    let body = sample.object(&format!("kept-{number:06}"));
                    timed(&mut connection, "POST", &sample.collection(), &body).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn lists(address: SocketAddr, sample: Sample) {
    let mut connection = Connection::open(address).await.unwrap();
    for (what, query) in [
        ("whole list", "?limit=0"),
        ("by a label that a tenth has", "?labelSelector=tier%3Da"),
        ("by a field that all have", "?fieldSelector=metadata.name!%3Dx"),
    ] {
        let path = format!("{}{query}", sample.collection());
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let answer = connection.ask("GET", &path, b"", false).await.unwrap();
            times.push(began.elapsed());
            good(&answer);
            bytes = answer.bytes;
        }
        println!("| {}, {what} | {bytes} | {} |", sample.plural(), spread(times));
    }
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        bytes = 0;
        let mut next = String::new();
        loop {
            let path = format!("{}?limit=500&continue={next}", sample.collection());
            let answer = connection.ask("GET", &path, b"", true).await.unwrap();
            good(&answer);
            bytes += answer.bytes;
            next = token(&answer.body);
            if next.is_empty() {
                break;
            }
        }
        times.push(began.elapsed());
    }
    println!(
        "| {}, in pages of 500 | {bytes} | {} |",
        sample.plural(),
        spread(times)
    );
}

/// The token of the next page, which comes before the objects.
fn token(list: &[u8]) -> String {
    let head = String::from_utf8_lossy(&list[..list.len().min(1000)]);
    let head = head.split("\"items\"").next().unwrap_or_default();
    let token = head.split("\"continue\":\"").nth(1);
    token
        .and_then(|token| token.split('"').next())
        .unwrap_or_default()
        .to_owned()
}

/// Changes one kind while many watch it. The time is from the request of the change to its line at
/// a watcher, so that the write is part of it.
async fn fan_out(server: &Server, watchers: usize) {
    let address = server.address;
    let sample = Sample::ConfigMap;
    let mut connection = Connection::open(address).await.unwrap();
    let answer = connection
        .ask("GET", "/api/v1/namespaces?limit=1", b"", true)
        .await
        .unwrap();
    let list: Value = serde_json::from_slice(&answer.body).unwrap();
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!(
        "/api/v1/namespaces/{NAMESPACE}/{}?watch=true&resourceVersion={revision}",
        sample.plural()
    );
    let (told, mut heard) = mpsc::unbounded_channel();
    for _ in 0..watchers {
        let mut connection = Connection::open(address).await.unwrap();
        assert_eq!(connection.begin_stream(&path).await.unwrap(), 200);
        let told = told.clone();
        tokio::spawn(async move {
            let mut seen = 0;
            while seen < EVENTS {
                let lines = connection.lines().await.unwrap();
                let now = Instant::now();
                for event in seen..seen + lines {
                    told.send((event, now)).unwrap();
                }
                seen += lines;
            }
        });
    }
    memory(server, &format!("with {watchers} watchers"));
    let mut began = Vec::new();
    let mut writes = Vec::new();
    let worked = server.worked();
    for number in 0..EVENTS {
        began.push(Instant::now());
        let body = sample.object(&format!("watched-{number}"));
        writes.push(timed(&mut connection, "POST", &sample.collection(), &body).await);
        tokio::time::sleep(PAUSE).await;
    }
    drop(told);
    let mut times = Vec::new();
    while let Some((event, at)) = heard.recv().await {
        times.push(at - began[event]);
    }
    assert_eq!(times.len(), EVENTS * watchers);
    let worked = (server.worked() - worked).as_secs_f64() * 1e6;
    println!(
        "\n| {watchers} watchers | p50 ms | p99 ms | most ms | server's processor µs each |\n\
         | --- | --- | --- | --- | --- |"
    );
    let each = worked / times.len() as f64;
    println!("| a change, at each watcher | {} | {each:.1} |", spread(times));
    println!("| the change itself | {} | |", spread(writes));
    memory(server, "after that");
}

/// p50, p99 and the most, in milliseconds.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    [0.5, 0.99, 1.0]
        .map(|share| format!("{:.2}", at(share).as_secs_f64() * 1e3))
        .join(" | ")
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
