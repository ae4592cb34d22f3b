//! Pods share this machine's network, and each looks as if it had its own.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::{
    ends::until_log,
    machine::{Machine, shell},
};

/// A server in Python that says a word to whoever connects, at one address and port, after saying that it listens.
fn server(family: &str, address: &str, port: u16, word: &str) -> String {
    format!(
        "import socket\ns = socket.socket(socket.{family})\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         s.bind(('{address}', {port}))\ns.listen()\nprint('listens at', s.getsockname()[0], flush=True)\n\
         while True:\n    c, _ = s.accept()\n    c.sendall(b'{word}\\n')\n    c.close()\n"
    )
}

/// What the server at an address says, in Python.
fn ask(address: &str, port: u16) -> String {
    format!(
        "import socket\ntry:\n    c = socket.create_connection(('{address}', {port}), 10)\n    print(c.recv(100).decode().strip())\n\
         except OSError as error:\n    print(type(error).__name__)\n"
    )
}

fn python(name: &str, script: &str) -> serde_json::Value {
    let mut pod = shell(name, "");
    pod["spec"]["containers"][0]["command"] = json!(["python3", "-c", script]);
    pod
}

fn address(pod: &Pod) -> Ipv4Addr {
    let status = pod.status.as_ref().unwrap();
    status.pod_ip.as_deref().unwrap().parse().unwrap()
}

/// Whether Pods have their own ports here. If not, says so.
async fn has_own_ports(machine: &Machine) -> bool {
    let script = "import socket\ns = socket.socket()\ns.bind(('0.0.0.0', 47999))\nprint(s.getsockname()[0])";
    machine.run(python("has-own-ports", script)).await;
    let has = machine.log("has-own-ports").await != "0.0.0.0\n";
    if !has {
        eprintln!("LEFT OUT: this machine does not let us look after Pods' servers");
    }
    has
}

/// A port at which nobody on this machine listens just now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn said_by(address: Ipv4Addr, port: u16) -> String {
    let mut said = String::new();
    let mut connection = TcpStream::connect((address, port)).unwrap();
    connection.read_to_string(&mut said).unwrap();
    said
}

async fn output(machine: &Machine, name: &str, script: &str) -> String {
    machine.run(python(name, script)).await;
    machine.log(name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_listen_at_the_same_port_and_each_finds_itself_at_localhost() {
    let machine = Machine::start().await;
    if !has_own_ports(&machine).await {
        return;
    }
    let port = free_port();
    for (name, family, wildcard) in [
        ("one", "AF_INET", "0.0.0.0"),
        ("two", "AF_INET6", "::"),
        ("three", "AF_INET", "127.0.0.1"),
    ] {
        let mut pod = python(name, &server(family, wildcard, port, name));
        // Another container of the same Pod has the same localhost.
        let beside = format!(
            "import socket, time\nwhile True:\n    try:\n        \
                 c = socket.create_connection(('localhost', {port}), 10)\n        break\n    \
             except ConnectionRefusedError:\n        time.sleep(0.01)\nassert c.recv(100) == b'{name}\\n'\n"
        );
        let beside = json!({"name": "beside", "image": "busybox", "command": ["python3", "-c", beside]});
        pod["spec"]["containers"].as_array_mut().unwrap().push(beside);
        machine.create(pod).await;
    }
    for name in ["one", "two", "three"] {
        let has_met = |pod: &Pod| {
            let status = pod.status.as_ref().unwrap();
            let mut all = status.container_statuses.iter().flatten();
            all.any(|container| {
                let end = container
                    .state
                    .as_ref()
                    .and_then(|state| state.terminated.as_ref());
                container.name == "beside" && end.is_some_and(|end| end.exit_code == 0)
            })
        };
        let pod = machine.until(name, "reached from beside", has_met).await;
        assert_eq!(said_by(address(&pod), port), format!("{name}\n"));
    }
    // Nothing of it is at this machine's own address, and other Pods' localhost is their own.
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    let refused = output(&machine, "stranger", &ask("127.0.0.1", port)).await;
    assert_eq!(refused, "ConnectionRefusedError\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_is_the_pods_own_first_and_this_machines_otherwise() {
    let machine = Machine::start().await;
    if !has_own_ports(&machine).await {
        return;
    }
    let host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = host.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || {
        let (mut connection, _) = host.accept().unwrap();
        connection.write_all(b"host\n").unwrap();
    });
    assert_eq!(
        output(&machine, "outward", &ask("localhost", port)).await,
        "host\n"
    );
    serving.join().unwrap();
    // A server and its clients in one Pod: threads, IPv4 and IPv6, blocking and not.
    let port = free_port();
    let script = format!(
        "import asyncio, socket, threading\n\
         s = socket.socket(socket.AF_INET6)\ns.bind(('::', {port}))\ns.listen()\n\
         def serve():\n    while True:\n        c, _ = s.accept()\n        c.sendall(b'own ')\n        c.close()\n\
         threading.Thread(target=serve, daemon=True).start()\n\
         said = b''\n\
         for name in ['127.0.0.1', '::1', 'localhost', '0.0.0.0', '::ffff:127.0.0.1']:\n    \
             c = socket.create_connection((name, {port}), 10)\n    said += c.recv(100)\n    c.close()\n\
         c = socket.socket()\nc.connect(('127.0.0.1', {port}))\nsaid += c.recv(100)\n\
         async def later():\n    reader, writer = await asyncio.open_connection('127.0.0.1', {port})\n    return await reader.read()\n\
         said += asyncio.run(later())\n\
         print(said.decode())\n"
    );
    assert_eq!(
        output(&machine, "inward", &script).await,
        "own own own own own own own \n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_for_both_kinds_of_addresses_and_datagrams_find_their_place() {
    let machine = Machine::start().await;
    if !has_own_ports(&machine).await {
        return;
    }
    let port = free_port();
    // asyncio makes one socket for each kind, with the same port.
    let script = format!(
        "import asyncio, socket\n\
         async def main():\n    \
             async def greet(reader, writer):\n        writer.write(b'hi')\n        writer.close()\n    \
             server = await asyncio.start_server(greet, None, {port})\n    \
             names = sorted(s.getsockname()[0] for s in server.sockets)\n    \
             for name in ['127.0.0.1', '::1']:\n        \
                 reader, writer = await asyncio.open_connection(name, {port})\n        print((await reader.read()).decode())\n\
         asyncio.run(main())\n\
         a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\na.bind(('0.0.0.0', {port}))\n\
         b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nb.connect(('127.0.0.1', {port}))\nb.send(b'by datagram')\n\
         print(a.recv(100).decode())\n"
    );
    for name in ["one", "two"] {
        assert_eq!(output(&machine, name, &script).await, "hi\nhi\nby datagram\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_taken_up_is_looked_after_as_before() {
    let mut machine = Machine::start().await;
    if !has_own_ports(&machine).await {
        return;
    }
    let port = free_port();
    let script = format!(
        "import sys\nsys.stdin.close()\nopen('{}').read()\n{}",
        machine.artifacts().join("go").display(),
        server("AF_INET", "0.0.0.0", port, "again")
    );
    let go = machine.artifacts().join("go");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&go)
            .status()
            .unwrap()
            .success()
    );
    machine.create(python("p", &script)).await;
    let before = machine.until_phase("p", "Running").await;
    machine.stop_node().await;
    // With nobody but the helper there.
    tokio::fs::write(&go, "x").await.unwrap();
    crate::machine::patient(async {
        while TcpStream::connect((address(&before), port)).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    machine.start_node();
    assert_eq!(
        output(&machine, "q", &ask(&address(&before).to_string(), port)).await,
        "again\n"
    );
    let after = machine.pods().get("p").await.unwrap();
    assert_eq!(address(&after), address(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_on_this_machines_network_has_its_address_and_ports() {
    let machine = Machine::start().await;
    let port = free_port();
    let mut pod = python("p", &server("AF_INET", "0.0.0.0", port, "host"));
    pod["spec"]["hostNetwork"] = json!(true);
    machine.create(pod).await;
    until_log(&machine, "p", "listens at 0.0.0.0").await;
    assert_eq!(
        address(&machine.pods().get("p").await.unwrap()),
        Ipv4Addr::LOCALHOST
    );
    assert_eq!(said_by(Ipv4Addr::LOCALHOST, port), "host\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_machine_has_its_name() {
    let machine = Machine::start().await;
    if !machine.is_isolated().await {
        return;
    }
    let mut pod = shell(
        "p",
        "uname -n; cat /etc/hostname; echo $HOSTNAME; grep -c alias.test /etc/hosts; \
                              getent hosts job-0.job | cut -d' ' -f1",
    );
    pod["spec"]["hostname"] = json!("job-0");
    pod["spec"]["subdomain"] = json!("job");
    pod["spec"]["hostAliases"] = json!([{"ip": "10.9.8.7", "hostnames": ["alias.test"]}]);
    machine.run(pod).await;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let said = machine.log("p").await;
    assert!(said.starts_with("job-0\njob-0\njob-0\n1\n"), "{said}");
    assert_eq!(
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(),
        host
    );
}

fn service(name: &str, address: &str, port: u16) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"clusterIP": address, "ports": [{"port": port}]},
    })
}

fn endpoints(name: &str, addresses: &[Ipv4Addr], port: u16) -> serde_json::Value {
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
    let subsets = if addresses.is_empty() {
        json!([])
    } else {
        json!([{"addresses": addresses, "ports": [{"port": port}]}])
    };
    json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}, "subsets": subsets})
}

/// Connects until it is refused, or not, as expected; gives what was said.
async fn until(at: Ipv4Addr, port: u16, is_expected: impl Fn(Option<&str>) -> bool) {
    crate::machine::patient(async {
        loop {
            let said = tokio::task::spawn_blocking(move || {
                let mut said = String::new();
                let mut connection = TcpStream::connect((at, port)).ok()?;
                connection.read_to_string(&mut said).ok().map(|_| said)
            });
            if is_expected(said.await.unwrap().as_deref()) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_leads_to_who_is_behind_it_in_turn_and_follows_them() {
    let machine = Machine::start().await;
    if !has_own_ports(&machine).await {
        return;
    }
    let (own, theirs) = (free_port(), free_port());
    let mut addresses = Vec::new();
    for name in ["one", "two"] {
        machine
            .create(python(name, &server("AF_INET", "0.0.0.0", theirs, name)))
            .await;
        until_log(&machine, name, "listens at").await;
        addresses.push(address(&machine.pods().get(name).await.unwrap()));
    }
    let at = machine.block().services().nth(77).unwrap();
    machine
        .object("services", service("web", &at.to_string(), own))
        .await;
    machine
        .object("endpoints", endpoints("web", &addresses, theirs))
        .await;
    until(at, own, |said| said.is_some()).await;
    let said: std::collections::BTreeSet<String> = (0..4).map(|_| said_by(at, own)).collect();
    assert_eq!(said.into_iter().collect::<Vec<_>>(), ["one\n", "two\n"]);
    if machine.is_isolated().await {
        for name in [
            "web",
            "web.default",
            "web.default.svc",
            "web.default.svc.cluster.local",
        ] {
            let asked = output(
                &machine,
                &format!("asks-{}", name.replace('.', "-")),
                &ask(name, own),
            )
            .await;
            assert!(asked == "one\n" || asked == "two\n", "{name}: {asked}");
        }
    }
    let fewer = endpoints("web", &addresses[..1], theirs);
    machine.replace("endpoints", "web", fewer).await;
    until(at, own, |_| {
        let all: std::collections::BTreeSet<String> = (0..4).map(|_| said_by(at, own)).collect();
        all.len() == 1 && all.contains("one\n")
    })
    .await;
    machine
        .replace("endpoints", "web", endpoints("web", &[], theirs))
        .await;
    until(at, own, |said| said.is_none()).await;
    machine
        .replace("endpoints", "web", endpoints("web", &addresses, theirs))
        .await;
    until(at, own, |said| said.is_some()).await;
    machine.remove("services", "web").await;
    until(at, own, |said| said.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_ports_are_open_to_every_pod_and_service() {
    let machine = Machine::start().await;
    if !has_own_ports(&machine).await {
        return;
    }
    // Whoever we are: without the right to it, the stand-in is listened at.
    let port = 987;
    machine
        .create(python("p", &server("AF_INET", "", port, "low")))
        .await;
    until_log(&machine, "p", "listens at").await;
    let to = address(&machine.pods().get("p").await.unwrap());
    let at = machine.block().services().nth(78).unwrap();
    machine
        .object("services", service("low", &at.to_string(), port))
        .await;
    machine.object("endpoints", endpoints("low", &[to], port)).await;
    let script = format!(
        "import socket, time\ndef ask(name):\n    \
         while True:\n        \
             try:\n            c = socket.create_connection((name, {port}), 10)\n            break\n        \
             except ConnectionRefusedError:\n            time.sleep(0.01)\n    \
         return c.recv(100).decode().strip()\nprint(ask('{to}'), ask('{at}'))\n"
    );
    assert_eq!(output(&machine, "q", &script).await, "low low\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_processes_have_their_own_ports_too() {
    let machine = Machine::start_with(coracle_node::Isolation::Off).await;
    if !has_own_ports(&machine).await {
        return;
    }
    let port = free_port();
    for name in ["one", "two"] {
        machine
            .create(python(name, &server("AF_INET", "0.0.0.0", port, name)))
            .await;
    }
    for name in ["one", "two"] {
        until_log(&machine, name, "listens at").await;
        let pod = machine.pods().get(name).await.unwrap();
        assert_eq!(said_by(address(&pod), port), format!("{name}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_find_out_their_own_address_and_are_reached_at_it() {
    let machine = Machine::start().await;
    let outside = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if !has_own_ports(&machine).await || outside.connect("192.0.2.1:9").is_err() {
        eprintln!("LEFT OUT: this machine has no way out");
        return;
    }
    let of_machine = outside.local_addr().unwrap().ip();
    let port = free_port();
    // The second is an address that a program found out by other means.
    let script = format!(
        "import socket\n\
         u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nu.connect(('192.0.2.1', 9))\nprint(u.getsockname()[0])\n\
         s = socket.socket()\ns.bind(('', {port}))\ns.listen()\n\
         for own in [u.getsockname()[0], '{of_machine}']:\n    \
             c = socket.create_connection((own, {port}), 10)\n    print(c.getpeername()[0])\n\
         t = socket.socket()\nt.bind(('127.0.0.1', 0))\nprint(t.getsockname()[0])\n"
    );
    let pod = machine.run(python("p", &script)).await;
    let own = address(&pod);
    assert_eq!(
        machine.log("p").await,
        format!("{own}\n{own}\n{own}\n127.0.0.1\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_entered_has_the_pods_localhost_and_name() {
    let machine = Machine::start().await;
    if !has_own_ports(&machine).await || !machine.is_isolated().await {
        return;
    }
    let port = free_port();
    let mut pod = python("p", &server("AF_INET", "0.0.0.0", port, "own"));
    let probe = format!(
        "import socket\nc = socket.create_connection(('localhost', {port}), 10)\nassert c.recv(100) == b'own\\n'\n\
         assert socket.gethostname() == 'p'"
    );
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["python3", "-c", probe]}, "periodSeconds": 1, "timeoutSeconds": 20});
    machine.create(pod).await;
    let is_ready = |pod: &Pod| {
        let status = pod.status.as_ref().unwrap();
        let mut all = status.conditions.iter().flatten();
        all.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    machine.until("p", "ready", is_ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_of_a_job_meet_by_name() {
    let machine = Machine::start().await;
    if !has_own_ports(&machine).await || !machine.is_isolated().await {
        return;
    }
    // Two jobs at once, both with the port that everybody has.
    for job in ["first", "second"] {
        let mut headless = service(job, "None", 29500);
        headless["spec"]["publishNotReadyAddresses"] = json!(true);
        machine.object("services", headless).await;
        let script = format!(
            "import os, socket, time\n\
             rank, size, name = int(os.environ['RANK']), 4, '{job}-0.{job}'\n\
             def meet():\n    \
                 while True:\n        \
                     try:\n            return socket.create_connection((name, 29500), 10)\n        \
                     except OSError:\n            time.sleep(0.02)\n\
             if rank == 0:\n    \
                 s = socket.socket()\n    s.bind(('0.0.0.0', 29500))\n    s.listen()\n    \
                 them = [s.accept()[0] for _ in range(size - 1)]\n    \
                 said = sorted(c.recv(100).decode() for c in them)\n    \
                 for c in them:\n        c.sendall(' '.join(said).encode())\n    print(*said)\n\
             else:\n    \
                 c = meet()\n    c.sendall(('{job}-%d' % rank).encode())\n    print(c.recv(100).decode())\n"
        );
        let mut members = Vec::new();
        for rank in 0..4 {
            let name = format!("{job}-{rank}");
            let mut pod = python(&name, &script);
            pod["spec"]["hostname"] = json!(name);
            pod["spec"]["subdomain"] = json!(job);
            pod["spec"]["containers"][0]["env"] = json!([{"name": "RANK", "value": rank.to_string()}]);
            machine.create(pod).await;
            let has_address = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
            let pod = machine.until(&name, "on this machine", has_address).await;
            members.push(json!({"ip": address(&pod).to_string(), "hostname": name}));
        }
        let all = json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": job},
            "subsets": [{"addresses": members, "ports": [{"port": 29500}]}],
        });
        machine.object("endpoints", all).await;
    }
    for job in ["first", "second"] {
        for rank in 0..4 {
            let name = format!("{job}-{rank}");
            machine.until_over(&name).await;
            assert_eq!(machine.log(&name).await, format!("{job}-1 {job}-2 {job}-3\n"));
        }
    }
}
