//! Into running Pods: exec, attach and port-forward over a real connection, as Kubernetes clients make them.

use std::{net::SocketAddr, path::Path};

use coracle_node::Isolation;
use futures::{SinkExt, StreamExt};
use kube::api::LogParams;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::machine::{Machine, patient, phase, shell};

/// A client's side of a session.
struct Session {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What a session said until its end.
#[derive(Debug, Default, PartialEq)]
struct Said {
    output: String,
    errors: String,
    status: Value,
}

impl Said {
    /// As a shell would put it.
    fn code(&self) -> i32 {
        if self.status["status"] == "Success" {
            return 0;
        }
        let code = &self.status["details"]["causes"][0]["message"];
        code.as_str().unwrap().parse().unwrap()
    }
}

/// `path` is what follows the Pod's name.
async fn connect(
    address: SocketAddr,
    path: &str,
    protocol: &str,
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Value> {
    let url = format!("ws://{address}/api/v1/namespaces/default/pods/{path}");
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
    match patient(connect_async(request)).await {
        Ok((socket, response)) => {
            assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
            Ok(socket)
        }
        Err(tungstenite::Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            Err(serde_json::from_slice(&body).unwrap())
        }
        Err(error) => panic!("{error}"),
    }
}

fn command(parts: &[&str]) -> String {
    let escaped = parts.iter().map(|part| {
        let bytes = part.bytes().map(|byte| format!("%{byte:02x}"));
        format!("command={}", bytes.collect::<String>())
    });
    escaped.collect::<Vec<_>>().join("&")
}

impl Session {
    async fn open(address: SocketAddr, path: &str) -> Self {
        let socket = connect(address, path, "v5.channel.k8s.io").await.unwrap();
        Self { socket }
    }

    /// A shell script in the container `main` of Pod `p`.
    async fn exec(address: SocketAddr, script: &str, options: &str) -> Self {
        let command = command(&["sh", "-c", script]);
        Self::open(
            address,
            &format!("p/exec?container=main&{command}&stdout=true&{options}"),
        )
        .await
    }

    async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let mut message = vec![channel];
        message.extend_from_slice(bytes);
        patient(self.socket.send(Message::Binary(message.into())))
            .await
            .unwrap();
    }

    /// The next message that says something; `None` when the other side has closed.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match patient(self.socket.next()).await?.unwrap() {
                Message::Binary(message) if message.len() > 1 => {
                    return Some((message[0], message[1..].to_vec()));
                }
                Message::Close(frame) => {
                    assert_eq!(u16::from(frame.unwrap().code), 1000);
                    return None;
                }
                _ => {}
            }
        }
    }

    async fn until(&mut self, part: &str) -> String {
        let mut output = String::new();
        while !output.contains(part) {
            let (channel, bytes) = self
                .next()
                .await
                .unwrap_or_else(|| panic!("only `{output}` came"));
            assert_eq!(channel, 1, "{}", String::from_utf8_lossy(&bytes));
            output.push_str(&String::from_utf8_lossy(&bytes));
        }
        output
    }

    async fn rest(&mut self) -> Said {
        let mut said = Said::default();
        while let Some((channel, bytes)) = self.next().await {
            match channel {
                1 => said.output.push_str(&String::from_utf8_lossy(&bytes)),
                2 => said.errors.push_str(&String::from_utf8_lossy(&bytes)),
                3 => said.status = serde_json::from_slice(&bytes).unwrap(),
                other => panic!("channel {other}"),
            }
        }
        said
    }
}

/// What a process is in.
const SURROUNDINGS: &str =
    "readlink /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/user /proc/self/cwd; id -u";

/// A machine with a Pod `p` that runs until it is told to end, and its address.
async fn with_pod(isolation: Isolation) -> (Machine, SocketAddr) {
    let machine = Machine::start_with(isolation).await;
    let mut pod = shell("p", &format!("{SURROUNDINGS}; sleep 1000"));
    pod["spec"]["containers"][0]["env"] = json!([{"name": "OWN", "value": "mine"}]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
    machine.create(pod).await;
    machine.until_phase("p", "Running").await;
    let address = machine.serve().await;
    (machine, address)
}

async fn commands_have_streams_an_end_and_the_containers_surroundings(isolation: Isolation) {
    let (machine, address) = with_pod(isolation).await;
    let mut session = Session::exec(
        address,
        "read x; echo got $x; echo $OWN; echo bad >&2; exit 3",
        "stdin=true&stderr=true",
    )
    .await;
    session.send(0, b"hello\n").await;
    let said = session.rest().await;
    assert_eq!(
        (said.output.as_str(), said.errors.as_str(), said.code()),
        ("got hello\nmine\n", "bad\n", 3)
    );

    let own = Session::exec(address, SURROUNDINGS, "").await.rest().await;
    assert_eq!(
        (own.output.as_str(), own.code()),
        (machine.log("p").await.as_str(), 0)
    );

    let mut session = Session::exec(address, "wc -c", "stdin=true").await;
    let megabyte = vec![b'x'; 1 << 20];
    session.send(0, &megabyte).await;
    session.send(0, &megabyte).await;
    session.send(255, &[0]).await;
    assert_eq!(session.rest().await.output.trim(), "2097152");

    let all = Session::exec(address, "head -c 3000000 /dev/zero", "")
        .await
        .rest()
        .await;
    assert_eq!((all.output.len(), all.code()), (3_000_000, 0));

    let path = format!("p/exec?stdout=true&{}", command(&["no-such-program"]));
    let said = Session::open(address, &path).await.rest().await;
    let message = said.status["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("Internal error occurred: error executing command in container: ")
            && message.contains("`no-such-program` does not exist"),
        "{message}"
    );
    // What stays behind does not hold the session open, and lives on in the container.
    let said = Session::exec(address, "sleep 1000 & echo left", "")
        .await
        .rest()
        .await;
    assert_eq!((said.output.as_str(), said.code()), ("left\n", 0));
    machine.delete("p", 0).await;
    machine.until_gone("p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_a_container_has_its_streams_and_surroundings() {
    commands_have_streams_an_end_and_the_containers_surroundings(Isolation::Auto).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_namespaces_too() {
    commands_have_streams_an_end_and_the_containers_surroundings(Isolation::Off).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_name_and_a_size() {
    let (_machine, address) = with_pod(Isolation::Auto).await;
    let mut session = Session::exec(
        address,
        "read x; tty; stty size; echo $TERM",
        "stdin=true&tty=true",
    )
    .await;
    session.send(4, br#"{"Width":101,"Height":33}"#).await;
    session.send(0, b"\r").await;
    let said = session.rest().await;
    assert!(said.output.contains("/dev/pts/"), "{}", said.output);
    assert!(said.output.contains("33 101\r\nxterm\r\n"), "{}", said.output);
    // Ctrl-C reaches what runs in it.
    let script = "trap 'exit 7' INT; echo ready; while :; do read x; done";
    let mut session = Session::exec(address, script, "stdin=true&tty=true").await;
    session.until("ready").await;
    session.send(0, &[3]).await;
    assert_eq!(session.rest().await.code(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_command_whose_client_goes() {
    for options in ["", "stdin=true", "stdin=true&tty=true"] {
        let (machine, address) = with_pod(Isolation::Auto).await;
        let pipe = machine.artifacts().join("held");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = format!(
            "exec 9>{0}; trap '' HUP; sleep 1000 & echo held; wait",
            pipe.display()
        );
        let mut session = Session::exec(address, &script, options).await;
        let held = tokio::task::spawn_blocking(move || std::fs::File::open(pipe));
        let held = patient(held).await.unwrap().unwrap();
        session.until("held").await;
        drop(session);
        // The end of the pipe: nobody holds its other side any more.
        let end = tokio::task::spawn_blocking(move || {
            let mut held = held;
            std::io::Read::read(&mut held, &mut [0]).unwrap()
        });
        assert_eq!(patient(end).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_with_its_container() {
    for isolation in [Isolation::Auto, Isolation::Off] {
        let (machine, address) = with_pod(isolation).await;
        let mut session = Session::exec(address, "echo here; sleep 1000", "").await;
        session.until("here").await;
        machine.delete("p", 0).await;
        assert_eq!(session.rest().await.code(), 137);
        machine.until_gone("p").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_process_is_watched_and_written_to() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "cat; echo over >&2");
    pod["spec"]["containers"][0]["stdin"] = json!(true);
    pod["spec"]["containers"][0]["stdinOnce"] = json!(true);
    machine.create(pod).await;
    machine.until_phase("p", "Running").await;
    let address = machine.serve().await;
    let mut watcher = Session::open(address, "p/attach?stdout=true&stderr=true").await;
    let mut session = Session::open(address, "p/attach?stdin=true&stdout=true&stderr=true").await;
    session.send(0, b"one\n").await;
    assert_eq!(session.until("one\n").await, "one\n");
    assert_eq!(watcher.until("one\n").await, "one\n");
    session.send(0, b"two\n").await;
    session.send(255, &[0]).await;
    // Who writes has nothing more to say, and so the input ends.
    let said = session.rest().await;
    assert_eq!((said.output.as_str(), said.errors.as_str()), ("two\n", "over\n"));
    let said = watcher.rest().await;
    assert_eq!((said.output.as_str(), said.errors.as_str()), ("two\n", "over\n"));
    assert_eq!(phase(&machine.until_over("p").await), "Succeeded");
    assert_eq!(machine.log("p").await, "one\ntwo\nover\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_input_ends_once_who_wrote_goes_if_it_is_to() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "cat");
    pod["spec"]["containers"][0]["stdin"] = json!(true);
    pod["spec"]["containers"][0]["stdinOnce"] = json!(true);
    machine.create(pod).await;
    machine.until_phase("p", "Running").await;
    let address = machine.serve().await;
    let mut session = Session::open(address, "p/attach?stdin=true&stdout=true").await;
    session.send(0, b"one\n").await;
    session.until("one\n").await;
    drop(session);
    assert_eq!(phase(&machine.until_over("p").await), "Succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_main_process_may_have_a_terminal() {
    let machine = Machine::start().await;
    let mut pod = shell("p", "tty; read x; stty size; echo got $x");
    pod["spec"]["containers"][0]["stdin"] = json!(true);
    pod["spec"]["containers"][0]["tty"] = json!(true);
    machine.create(pod).await;
    machine.until_phase("p", "Running").await;
    let address = machine.serve().await;
    let mut session = Session::open(address, "p/attach?stdin=true&stdout=true&tty=true").await;
    session.send(4, br#"{"Width":90,"Height":20}"#).await;
    session.send(0, b"word\r").await;
    let said = session.rest().await;
    assert!(said.output.contains("20 90\r\ngot word\r\n"), "{}", said.output);
    assert_eq!(phase(&machine.until_over("p").await), "Succeeded");
    let log = machine.log("p").await;
    assert!(log.contains("/dev/pts/0"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_no_restart_and_the_next_node_takes_up_the_container() {
    let (mut machine, address) = with_pod(Isolation::Auto).await;
    machine.stop_node().await;
    machine.start_node();
    let said = Session::exec(address, "echo still here", "").await.rest().await;
    assert_eq!((said.output.as_str(), said.code()), ("still here\n", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_entered_is_refused_in_kubernetes_words() {
    let (machine, address) = with_pod(Isolation::Auto).await;
    machine.script("over", "true").await;
    let refused = async |path: &str| {
        let status = connect(address, path, "v5.channel.k8s.io").await.unwrap_err();
        assert_eq!(status["kind"], "Status");
        (
            status["code"].clone(),
            status["message"].as_str().unwrap().to_owned(),
        )
    };
    let run = command(&["true"]);
    let (code, message) = refused(&format!("none/exec?stdout=true&{run}")).await;
    assert_eq!((code, message.as_str()), (json!(404), "pods \"none\" not found"));
    let (code, message) = refused(&format!("p/exec?container=x&stdout=true&{run}")).await;
    assert_eq!(
        (code, message.as_str()),
        (json!(400), "container x is not valid for pod p")
    );
    let (_, message) = refused(&format!("over/exec?stdout=true&{run}")).await;
    assert_eq!(
        message,
        "cannot exec into a container in a completed pod; current phase is Succeeded"
    );
    let (_, message) = refused("p/exec?stdout=true").await;
    assert_eq!(message, "you must specify at least one command for the container");
    let (_, message) = refused(&format!("p/exec?stdout=false&stderr=false&{run}")).await;
    assert_eq!(message, "you must specify at least 1 of stdin, stdout, stderr");
    let plain = machine.client.request_text(
        axum::http::Request::get(format!("/api/v1/namespaces/default/pods/p/exec?{run}"))
            .body(Vec::new())
            .unwrap(),
    );
    let error = plain.await.unwrap_err().to_string();
    assert!(error.contains("missing upgrade headers"), "{error}");
}

/// A Pod `p` that answers on a port of its own with what it was sent, in capitals.
async fn with_listener(machine: &Machine, host: &str) -> u16 {
    let script = format!(
        "import socket\n\
         s = socket.create_server(('{host}', 0)); print(s.getsockname()[1], flush=True)\n\
         while True:\n\
         \x20   c, _ = s.accept()\n\
         \x20   while b := c.recv(65536): c.sendall(b.upper())\n\
         \x20   c.close()"
    );
    let mut pod = shell("p", "");
    pod["spec"]["containers"][0]["command"] = json!(["python3", "-c", script]);
    machine.create(pod).await;
    machine.until_phase("p", "Running").await;
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let lines = machine.pods().log_stream("p", &follow).await.unwrap();
    let mut lines = futures::AsyncBufReadExt::lines(lines);
    let line = patient(futures::TryStreamExt::try_next(&mut lines))
        .await
        .unwrap();
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_to_what_the_pod_listens_at() {
    for host in ["127.0.0.1", ""] {
        let machine = Machine::start().await;
        let port = with_listener(&machine, host).await;
        let address = machine.serve().await;
        let path = format!("p/portforward?ports={port}");
        let socket = connect(address, &path, "v4.channel.k8s.io").await.unwrap();
        let mut session = Session { socket };
        let begin = port.to_le_bytes().to_vec();
        assert_eq!(session.next().await.unwrap(), (0, begin.clone()));
        assert_eq!(session.next().await.unwrap(), (1, begin));
        session.send(0, b"hello").await;
        assert_eq!(session.next().await.unwrap(), (0, b"HELLO".to_vec()));
        machine.delete("p", 0).await;
        machine.until_gone("p").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_pods_is_not_forwarded() {
    let (_machine, address) = with_pod(Isolation::Auto).await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = other.local_addr().unwrap().port();
    let path = format!("p/portforward?ports={port}");
    let socket = connect(address, &path, "v4.channel.k8s.io").await.unwrap();
    let mut session = Session { socket };
    session.next().await;
    session.next().await;
    let (channel, message) = session.next().await.unwrap();
    let message = String::from_utf8(message).unwrap();
    assert_eq!(channel, 1);
    assert!(
        message.starts_with(&format!("error forwarding port {port} to pod p, uid ")),
        "{message}"
    );
    assert_eq!(session.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn spdy_clients_are_answered_as_such() {
    let (_machine, address) = with_pod(Isolation::Auto).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let run = command(&["true"]);
    let request = format!(
        "POST /api/v1/namespaces/default/pods/p/exec?stdout=true&{run} HTTP/1.1\r\nHost: {address}\r\nConnection: \
         Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: \
         v3.channel.k8s.io\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(patient(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(
        head.contains("x-stream-protocol-version: v4.channel.k8s.io"),
        "{head}"
    );
    // A question comes back; the version must be known.
    let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7];
    stream.write_all(&ping).await.unwrap();
    let mut answer = [0; 12];
    patient(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, ping);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_takes_bounded_room_and_is_followed_all_the_same() {
    let machine = Machine::start_with_log(40_000).await;
    let go = machine.artifacts().join("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("read x < {}; seq 1 60000", go.display());
    let pod = machine.create(shell("p", &script)).await;
    machine.until_phase("p", "Running").await;
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let lines = machine.pods().log_stream("p", &follow).await.unwrap();
    let mut lines = futures::AsyncBufReadExt::lines(lines);
    tokio::fs::write(&go, "\n").await.unwrap();
    let mut last = 0;
    while let Some(line) = patient(futures::TryStreamExt::try_next(&mut lines))
        .await
        .unwrap()
    {
        // The oldest part may go while it is read, which is told; what is there comes in order.
        if line.starts_with("coracle: ") {
            continue;
        }
        let number: u32 = line.parse().unwrap();
        assert!(number > last, "{number} after {last}");
        last = number;
    }
    assert_eq!(last, 60_000);
    machine.until_over("p").await;
    let run = machine.pod_dir(&pod).join("main/0");
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    let parts: Vec<u64> = std::fs::read_dir(&run)
        .unwrap()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name == "log" || name.to_string_lossy().starts_with("log.")
        })
        .map(|entry| size(&entry.path()))
        .collect();
    assert_eq!(parts.len(), 5);
    // One write may hold as much as a pipe does.
    assert!(parts.iter().sum::<u64>() < 5 * 1_000_000, "{parts:?}");
    let tail = LogParams {
        tail_lines: Some(2),
        ..LogParams::default()
    };
    assert_eq!(machine.pods().logs("p", &tail).await.unwrap(), "59999\n60000\n");
}
