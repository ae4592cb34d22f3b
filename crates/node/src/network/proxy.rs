//! Forwards connections to a Service's address to those behind it.
//!
//! It listens only while somebody is behind a port: with nobody there the kernel refuses at once. Ports that need
//! a right which we do not have are listened at on their stand-ins, which Pods are led to. Who is next is chosen in
//! turn, whoever asks: all callers look the same on one machine, so `sessionAffinity` has no meaning.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::SocketAddrV4,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use coracle_api::network::stand_in;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    HOST, connect,
    table::{Protocol, Table},
};
use crate::events::{Kind, Recorder};

/// How much is carried at once, each way.
const CHUNK: usize = 64 * 1024;
/// The pauses between attempts to listen where somebody else does.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

type Targets = Arc<[SocketAddrV4]>;

/// What is listened at, for whom, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    namespace: String,
    name: String,
    targets: BTreeSet<SocketAddrV4>,
}

/// One place that is listened at.
struct Open {
    targets: watch::Sender<Targets>,
    /// Stops listening. Connections go on.
    _listener: AbortOnDropHandle<()>,
}

/// Follows the table until `stop`.
pub(crate) async fn run(
    mut table: watch::Receiver<Option<Arc<Table>>>,
    events: Recorder,
    stop: CancellationToken,
) {
    let mut open: HashMap<SocketAddrV4, Open> = HashMap::new();
    loop {
        let wanted = table
            .borrow_and_update()
            .as_deref()
            .map(wanted)
            .unwrap_or_default();
        open.retain(|at, _| wanted.contains_key(at));
        for (at, wanted) in wanted {
            let targets: Targets = wanted.targets.iter().copied().collect();
            match open.get(&at) {
                Some(open) => drop(open.targets.send_replace(targets)),
                None => {
                    let (sender, receiver) = watch::channel(targets);
                    let listener = listen(at, wanted, receiver, events.clone(), stop.clone());
                    let listener = AbortOnDropHandle::new(tokio::spawn(listener));
                    let new = Open {
                        targets: sender,
                        _listener: listener,
                    };
                    open.insert(at, new);
                }
            }
        }
        tokio::select! {
            changed = table.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// Every place to listen at, for which there is somebody to connect to.
fn wanted(table: &Table) -> BTreeMap<SocketAddrV4, Wanted> {
    let mut wanted = BTreeMap::new();
    for known in &table.services {
        let ports = known
            .ports
            .iter()
            .filter(|port| port.protocol == Protocol::Tcp && !port.targets.is_empty());
        for port in ports {
            let own = known.address.map(|address| SocketAddrV4::new(address, port.port));
            let of_machine = port.node_port.map(|port| SocketAddrV4::new(HOST, port));
            for at in own.into_iter().chain(of_machine) {
                // Two Services never have the same address; of two with the same port of this machine, the first.
                wanted.entry(at).or_insert_with(|| Wanted {
                    namespace: known.namespace.clone(),
                    name: known.name.clone(),
                    targets: port.targets.clone(),
                });
            }
        }
    }
    wanted
}

/// Listens at `at` and forwards.
async fn listen(
    at: SocketAddrV4,
    wanted: Wanted,
    targets: watch::Receiver<Targets>,
    events: Recorder,
    stop: CancellationToken,
) {
    let listener = open(at, &wanted, &events).await;
    let turn = Arc::new(AtomicUsize::new(0));
    loop {
        let from = match listener.accept().await {
            Ok((from, _)) => from,
            Err(error) => {
                tracing::debug!(%error, %at, "a connection to a Service was lost before it was taken");
                // Out of descriptors, for example: others must give some back first.
                tokio::time::sleep(FIRST_PAUSE).await;
                continue;
            }
        };
        let (targets, turn, stop) = (Arc::clone(&targets.borrow()), Arc::clone(&turn), stop.clone());
        // It outlives the listener: who is connected stays so when the Service goes.
        tokio::spawn(async move {
            tokio::select! {
                () = forward(from, &targets, &turn) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Somebody else may listen there, for a while: a Service that was made anew has another address, but the same
/// port of the machine.
async fn open(at: SocketAddrV4, wanted: &Wanted, events: &Recorder) -> TcpListener {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match bind(at).await {
            Ok(listener) => return listener,
            Err(error) => error,
        };
        if pause == FIRST_PAUSE {
            let about = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Service".to_owned()),
                name: Some(wanted.name.clone()),
                namespace: Some(wanted.namespace.clone()),
                ..ObjectReference::default()
            };
            let message = format!(
                "nothing can listen at {at}: {error}; a program of this machine that listens at port {} of all \
                 addresses is in the way of every Service and Pod with that port",
                at.port()
            );
            tracing::warn!(service = wanted.name, "{message}");
            events.object(about, Kind::Warning, "PortNotOpened", message);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn bind(at: SocketAddrV4) -> io::Result<TcpListener> {
    match (TcpListener::bind(at).await, stand_in(at.port())) {
        (Err(error), Some(port)) if error.kind() == io::ErrorKind::PermissionDenied => {
            TcpListener::bind(SocketAddrV4::new(*at.ip(), port)).await
        }
        (bound, _) => bound,
    }
}

/// Connects to the next target that takes the connection, and carries both ways until both are at their end.
async fn forward(mut from: TcpStream, targets: &[SocketAddrV4], turn: &AtomicUsize) {
    let first = turn.fetch_add(1, Ordering::Relaxed);
    for step in 0..targets.len() {
        let target = targets[first.wrapping_add(step) % targets.len()];
        let Ok(mut to) = connect(*target.ip(), target.port()).await else {
            continue;
        };
        let _ = (from.set_nodelay(true), to.set_nodelay(true));
        // How it ends is between the two.
        let _ = copy_bidirectional_with_sizes(&mut from, &mut to, CHUNK, CHUNK).await;
        return;
    }
    // As if nobody had listened: the caller sees its connection reset.
    let _ = from.set_zero_linger();
}
