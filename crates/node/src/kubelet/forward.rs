//! Port-forward: a client's streams and a connection to a port of a Pod.

use std::{collections::HashMap, future::Future, io, net::Ipv4Addr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use bytes::Bytes;
use coracle_api::reason::chain;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
};

use super::{
    Kubelet, Refusal,
    exec::{form, names},
    listeners,
    spdy::{CHUNK, Connection, Stream, headers},
    upgrade::{Upgrade, negotiated},
    websocket::{self, Lane, Protocol, TUNNEL},
};
use crate::network;

/// The protocol over SPDY.
const SPDY: &str = "portforward.k8s.io";
/// The most ports that one WebSocket forwards.
const MOST_PORTS: usize = 64;

/// Whose ports are forwarded.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) address: Option<Ipv4Addr>,
    /// The processes that keep the Pod's containers.
    pub(super) keepers: Vec<i32>,
}

impl Target {
    /// Connects to the Pod: at its own address, or at this machine's if it is the Pod that listens there.
    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let address = self.address.unwrap_or(network::HOST);
        let error = if address == network::HOST {
            io::Error::from(io::ErrorKind::ConnectionRefused)
        } else {
            match network::connect(address, port).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            }
        };
        let keepers = self.keepers.clone();
        let found = tokio::task::spawn_blocking(move || listeners::find(&keepers, port)).await;
        match found.map_err(io::Error::other)? {
            Some(address) => TcpStream::connect((address, port)).await,
            None => Err(error),
        }
    }

    fn failure(&self, port: u16, error: &io::Error) -> String {
        format!(
            "error forwarding port {port} to pod {}, uid {}: {}",
            self.name,
            self.uid,
            chain(error)
        )
    }
}

/// `GET` and `POST /portForward/{namespace}/{pod}`.
pub(super) async fn forward(State(kubelet): State<Kubelet>, request: Request) -> Result<Response, Refusal> {
    let [namespace, name] = names(&request)?;
    let query = form(request.uri().query().unwrap_or_default());
    let target = Arc::new(kubelet.target(&namespace, &name).await?);
    match Upgrade::of(request).await? {
        Upgrade::Spdy(upgrade) => {
            let name = upgrade.protocol(&[SPDY])?;
            Ok(upgrade.accept(name, async move |connection| serve_spdy(connection, target).await))
        }
        Upgrade::WebSocket(upgrade) => {
            let offered = [TUNNEL, websocket::FORWARD[0], websocket::FORWARD[1]];
            let (upgrade, name) = negotiated(upgrade, &offered, websocket::FORWARD[0])?;
            if name == TUNNEL {
                return Ok(upgrade.on_upgrade(async move |socket| {
                    serve_spdy(Connection::new(websocket::tunnel(socket)), target).await;
                }));
            }
            let ports = ports(&query)?;
            let protocol = Protocol::of(name);
            Ok(upgrade.on_upgrade(async move |socket| {
                let (lanes, gone) = websocket::lanes(socket, protocol, &ports);
                let mut work = JoinSet::new();
                for lane in lanes {
                    work.spawn(serve_lane(lane, Arc::clone(&target)));
                }
                tokio::select! {
                    () = async { while work.join_next().await.is_some() {} } => {}
                    () = gone.cancelled() => {}
                }
            }))
        }
    }
}

/// The ports that a WebSocket's request lists.
fn ports(query: &[(String, String)]) -> Result<Vec<u16>, Refusal> {
    let refuse = |message: String| (StatusCode::BAD_REQUEST, message);
    let listed = query.iter().filter(|(name, _)| name == "port" || name == "ports");
    let mut ports = Vec::new();
    for text in listed.flat_map(|(_, value)| value.split(',')) {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        ports.push(port.ok_or_else(|| refuse(format!("invalid port \"{text}\"")))?);
    }
    if ports.is_empty() {
        return Err(refuse("query parameter \"port\" is required".to_owned()));
    }
    if ports.len() > MOST_PORTS {
        return Err(refuse(format!("more than {MOST_PORTS} ports")));
    }
    Ok(ports)
}

async fn serve_lane(lane: Lane, target: Arc<Target>) {
    let Lane {
        port,
        mut input,
        output,
    } = lane;
    let stream = match target.connect(port).await {
        Ok(stream) => stream,
        Err(error) => return output.fail(target.failure(port, &error)).await,
    };
    let (mut read, mut write) = stream.into_split();
    let up = async {
        while let Some(bytes) = input.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let down = copy(&mut read, |bytes| output.send(bytes));
    // Neither side can be closed by itself.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// Reads until the end, or until nobody takes any more.
async fn copy<Sending: Future<Output = bool>>(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    send: impl Fn(Bytes) -> Sending,
) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || !send(Bytes::copy_from_slice(&buffer[..count])).await {
            return;
        }
    }
}

/// Two streams for each connection: one for its bytes, one to say what went wrong.
async fn serve_spdy(mut connection: Connection, target: Arc<Target>) {
    let mut halves: HashMap<String, Stream> = HashMap::new();
    let mut work = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = connection.opened.recv() => stream,
            Some(_) = work.join_next() => continue,
            () = connection.gone.cancelled() => None,
        };
        let Some(stream) = stream else { break };
        let kind = headers::value(&stream.headers, "streamtype").unwrap_or_default();
        let is_data = kind == "data";
        let request = match headers::value(&stream.headers, "requestid") {
            Some(request) => request.to_owned(),
            // Old clients name none: they open the stream for errors right before the one for bytes.
            None => stream.id.saturating_sub(if is_data { 2 } else { 0 }).to_string(),
        };
        match halves.remove(&request) {
            None => {
                halves.insert(request, stream);
            }
            Some(other) => {
                let (data, error) = if is_data { (stream, other) } else { (other, stream) };
                work.spawn(serve_pair(data, error, Arc::clone(&target)));
            }
        }
    }
    // Who is gone gets no more, and what it was connected to is closed.
    work.shutdown().await;
    connection.close().await;
}

async fn serve_pair(data: Stream, error: Stream, target: Arc<Target>) {
    let port = headers::value(&data.headers, "port").and_then(|port| port.parse::<u16>().ok());
    let connected = match port {
        Some(port) => target
            .connect(port)
            .await
            .map_err(|problem| target.failure(port, &problem)),
        None => Err("the stream names no port".to_owned()),
    };
    let output = data.output;
    match connected {
        Ok(stream) => {
            let mut input: mpsc::Receiver<Bytes> = data.input;
            let (mut read, mut write) = stream.into_split();
            let up = async {
                while let Some(bytes) = input.recv().await {
                    if write.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                let _ = write.shutdown().await;
            };
            let down = async {
                copy(&mut read, async |bytes| output.send(bytes).await.is_ok()).await;
                output.finish().await;
            };
            tokio::select! {
                ((), ()) = async { tokio::join!(up, down) } => {}
                () = output.reset.cancelled() => {}
            }
        }
        Err(message) => {
            let _ = error.output.send(message.into()).await;
            output.finish().await;
        }
    }
    // Clients wait for it, also when all is well.
    error.output.finish().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed_once_or_several_times() {
        let read = |query: &str| ports(&form(query)).map_err(|(_, message)| message);
        assert_eq!(read("ports=80&ports=81"), Ok(vec![80, 81]));
        assert_eq!(read("port=80,8080"), Ok(vec![80, 8080]));
        assert_eq!(read("ports=x").unwrap_err(), "invalid port \"x\"");
        assert_eq!(read("ports=0").unwrap_err(), "invalid port \"0\"");
        assert!(read("").is_err());
    }
}
