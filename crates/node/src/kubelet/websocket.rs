//! Kubernetes' channels in a WebSocket: each message begins with the number of its channel.

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::remote::{Event, Outcome, Remote, sizes};

/// The longest message, as in Kubernetes' own servers.
const LONGEST: usize = 32 * 1024 * 1024;
/// How often the client is asked whether it is there. Only the question counts: it fails if it is not.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How long a client may take to close its side.
const FAREWELL: Duration = Duration::from_secs(3);
/// Messages that wait to be taken.
const QUEUE: usize = 8;

/// The protocols of exec and attach, best first.
pub(super) const REMOTE: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
/// The protocol of forwarding with a fixed list of ports, plain or as text.
pub(super) const FORWARD: [&str; 2] = ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
/// SPDY inside a WebSocket.
pub(super) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// What a protocol's name says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Protocol {
    /// Messages are text.
    is_base64: bool,
    /// The end is told as a status.
    has_status: bool,
    /// One channel can be closed.
    can_close: bool,
}

impl Protocol {
    pub(super) fn of(name: &str) -> Self {
        Self {
            is_base64: name.contains("base64"),
            has_status: name.starts_with("v4") || name.starts_with("v5"),
            can_close: name.starts_with("v5"),
        }
    }

    fn message(self, channel: u8, bytes: &[u8]) -> Message {
        if self.is_base64 {
            let mut text = String::with_capacity(bytes.len() * 4 / 3 + 5);
            text.push(char::from(b'0' + channel));
            STANDARD.encode_string(bytes, &mut text);
            return Message::Text(text.into());
        }
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(channel);
        message.extend_from_slice(bytes);
        Message::Binary(message.into())
    }

    /// The channel and what came for it. Text counts as bytes: clients that write text send it as such.
    fn read(self, message: Message) -> Option<(u8, Bytes)> {
        let mut bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            _ => return None,
        };
        if bytes.is_empty() {
            return None;
        }
        let channel = bytes.split_to(1)[0];
        if !self.is_base64 {
            return Some((channel, bytes));
        }
        Some((channel.checked_sub(b'0')?, STANDARD.decode(&bytes).ok()?.into()))
    }
}

/// Sets what is common to all WebSockets here.
pub(super) fn limited(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade.max_message_size(LONGEST).max_frame_size(LONGEST)
}

/// The numbers of the channels of exec and attach.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// A session's client behind a WebSocket.
pub(super) fn remote(socket: WebSocket, protocol: Protocol) -> Remote {
    let (write, read) = socket.split();
    let (typed, stdin) = mpsc::channel(QUEUE);
    let (sized, sizes) = mpsc::channel(QUEUE);
    let (events, to_send) = mpsc::channel(QUEUE);
    let gone = CancellationToken::new();
    let heard = tokio::spawn(hear(read, protocol, typed, sized, gone.clone()));
    let end = gone.clone();
    tokio::spawn(async move {
        let is_well = tell(write, protocol, to_send, &end).await;
        if is_well {
            // Its answer to the goodbye ends the reading.
            let _ = tokio::time::timeout(FAREWELL, end.cancelled()).await;
        }
        end.cancel();
        heard.abort();
    });
    Remote {
        stdin,
        sizes,
        events,
        gone,
    }
}

async fn hear(
    mut socket: SplitStream<WebSocket>,
    protocol: Protocol,
    typed: mpsc::Sender<Bytes>,
    sized: mpsc::Sender<crate::runtime::session::Size>,
    gone: CancellationToken,
) {
    let _gone = gone.drop_guard();
    let mut typed = Some(typed);
    while let Some(Ok(message)) = socket.next().await {
        match protocol.read(message) {
            Some((STDIN, bytes)) => {
                if let Some(typed) = &typed
                    && !bytes.is_empty()
                {
                    let _ = typed.send(bytes).await;
                }
            }
            Some((RESIZE, bytes)) => {
                for size in sizes(&bytes) {
                    let _ = sized.send(size).await;
                }
            }
            Some((CLOSE, bytes)) if protocol.can_close && bytes.first() == Some(&STDIN) => typed = None,
            _ => {}
        }
    }
}

/// Sends what there is to send, to the end; `false` if the client is gone.
async fn tell(
    mut socket: SplitSink<WebSocket, Message>,
    protocol: Protocol,
    mut events: mpsc::Receiver<Event>,
    gone: &CancellationToken,
) -> bool {
    // Kubernetes' servers begin with an empty message, and some clients wait for it.
    if socket.send(protocol.message(STDOUT, &[])).await.is_err() {
        return false;
    }
    let mut clock = tokio::time::interval(PING_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            event = events.recv() => match event {
                Some(Event::Output(bytes)) => protocol.message(STDOUT, &bytes),
                Some(Event::Errors(bytes)) => protocol.message(STDERR, &bytes),
                Some(Event::Ended(outcome)) => protocol.message(ERROR, told(protocol, &outcome).as_bytes()),
                None => return bid_farewell(&mut socket).await,
            },
            _ = clock.tick() => Message::Ping(Bytes::new()),
            () = gone.cancelled() => return false,
        };
        if socket.send(message).await.is_err() {
            return false;
        }
    }
}

fn told(protocol: Protocol, outcome: &Outcome) -> String {
    if protocol.has_status {
        outcome.status().to_string()
    } else {
        outcome.text()
    }
}

async fn bid_farewell(socket: &mut SplitSink<WebSocket, Message>) -> bool {
    let frame = CloseFrame {
        code: 1000,
        reason: Utf8Bytes::from_static(""),
    };
    socket.send(Message::Close(Some(frame))).await.is_ok()
}

/// A port's two channels behind a WebSocket.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) port: u16,
    pub(super) input: mpsc::Receiver<Bytes>,
    pub(super) output: LaneSender,
}

/// The way back of a port.
#[derive(Debug, Clone)]
pub(super) struct LaneSender {
    channel: u8,
    messages: mpsc::Sender<(u8, Bytes)>,
}

impl LaneSender {
    pub(super) async fn send(&self, bytes: Bytes) -> bool {
        self.messages.send((self.channel, bytes)).await.is_ok()
    }

    /// Says what went wrong.
    pub(super) async fn fail(&self, message: String) {
        let _ = self.messages.send((self.channel + 1, message.into())).await;
    }
}

/// Ports behind a WebSocket, one connection each. The last sender's end closes it.
pub(super) fn lanes(socket: WebSocket, protocol: Protocol, ports: &[u16]) -> (Vec<Lane>, CancellationToken) {
    let (mut write, mut read) = socket.split();
    let (messages, mut to_send) = mpsc::channel::<(u8, Bytes)>(QUEUE);
    let (mut inputs, mut lanes) = (Vec::new(), Vec::new());
    for (index, port) in (0_u8..).zip(ports) {
        let (sender, input) = mpsc::channel(QUEUE);
        inputs.push(sender);
        lanes.push(Lane {
            port: *port,
            input,
            output: LaneSender {
                channel: index * 2,
                messages: messages.clone(),
            },
        });
    }
    let gone = CancellationToken::new();
    let end = gone.clone();
    let heard = tokio::spawn(async move {
        let _gone = end.drop_guard();
        while let Some(Ok(message)) = read.next().await {
            if let Some((channel, bytes)) = protocol.read(message)
                && channel.is_multiple_of(2)
                && let Some(input) = inputs.get(usize::from(channel / 2))
            {
                let _ = input.send(bytes).await;
            }
        }
    });
    let (end, ports) = (gone.clone(), ports.to_vec());
    tokio::spawn(async move {
        let work = async {
            // Each channel begins with the number of its port.
            for (index, port) in (0_u8..).zip(ports) {
                for channel in [index * 2, index * 2 + 1] {
                    write.send(protocol.message(channel, &port.to_le_bytes())).await?;
                }
            }
            let mut clock = tokio::time::interval(PING_EVERY);
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let message = tokio::select! {
                    message = to_send.recv() => match message {
                        Some((channel, bytes)) => protocol.message(channel, &bytes),
                        None => return Ok(bid_farewell(&mut write).await),
                    },
                    _ = clock.tick() => Message::Ping(Bytes::new()),
                    () = end.cancelled() => return Ok(false),
                };
                write.send(message).await?;
            }
        };
        let worked: Result<bool, axum::Error> = work.await;
        if worked.is_ok_and(|is_well| is_well) {
            let _ = tokio::time::timeout(FAREWELL, end.cancelled()).await;
        }
        end.cancel();
        heard.abort();
    });
    (lanes, gone)
}

/// A WebSocket's binary messages as one stream of bytes.
pub(super) fn tunnel(socket: WebSocket) -> impl AsyncRead + AsyncWrite + Send + 'static {
    let (inside, outside) = tokio::io::duplex(super::spdy::CHUNK * 2);
    let (mut from_inside, mut to_inside) = tokio::io::split(outside);
    let (mut write, mut read) = socket.split();
    let heard = tokio::spawn(async move {
        while let Some(Ok(message)) = read.next().await {
            if let Message::Binary(bytes) = message
                && to_inside.write_all(&bytes).await.is_err()
            {
                break;
            }
        }
        let _ = to_inside.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; super::spdy::CHUNK];
        loop {
            match from_inside.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let bytes = Bytes::copy_from_slice(&buffer[..count]);
                    if write.send(Message::Binary(bytes)).await.is_err() {
                        break;
                    }
                }
            }
        }
        if bid_farewell(&mut write).await {
            tokio::time::sleep(FAREWELL).await;
        }
        heard.abort();
    });
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_begin_with_their_channel_in_bytes_or_in_text() {
        let plain = Protocol::of("v4.channel.k8s.io");
        let sent = plain.message(STDOUT, b"hi");
        assert_eq!(sent, Message::Binary(Bytes::from_static(b"\x01hi")));
        assert_eq!(plain.read(sent), Some((1, Bytes::from_static(b"hi"))));
        assert_eq!(
            plain.read(Message::Text("\0typed".into())),
            Some((0, Bytes::from_static(b"typed")))
        );
        let text = Protocol::of("v4.base64.channel.k8s.io");
        let sent = text.message(STDOUT, b"hi");
        assert_eq!(sent, Message::Text("1aGk=".into()));
        assert_eq!(text.read(sent), Some((1, Bytes::from_static(b"hi"))));
        assert_eq!(text.read(Message::Text("1%".into())), None);
        assert_eq!(plain.read(Message::Binary(Bytes::new())), None);
        assert!(!Protocol::of("channel.k8s.io").has_status);
        assert!(Protocol::of("v5.channel.k8s.io").can_close);
    }
}
