//! As much of SPDY/3.1 as Kubernetes clients speak, on the serving side: streams that the client opens, both ways.
//!
//! Older clients of exec and all clients of port-forward use it after an upgrade of their connection, or inside a
//! WebSocket. Nobody of them knows windows, so there are none: a stream that is not read holds up its connection, as
//! in kubelets.

pub(crate) mod headers;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter},
    sync::mpsc,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

/// How much of a stream is handed on at once.
pub(crate) const CHUNK: usize = 32 * 1024;
/// Chunks that a stream holds before its connection waits.
const QUEUE: usize = 32;
/// Frames that wait to be written.
const FRAMES: usize = 8;
/// The longest frame that is not data.
const LONGEST: usize = 64 * 1024;
/// The most streams that are open at once.
const MOST: usize = 4096;
/// How often the client is asked whether it is there. Only the question counts: it fails if it is not.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How long a client may take to close its side.
const FAREWELL: Duration = Duration::from_secs(3);

const VERSION: u16 = 0x8003;
const FIN: u8 = 1;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the connection was lost")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Headers(#[from] headers::Error),
    #[error("the client speaks another version: {0:#06x}")]
    Version(u16),
    #[error("a frame of type {0} has the length {1}")]
    Length(u16, usize),
    #[error("the client opened stream {0}, which it may not")]
    Id(u32),
}

/// One piece to write.
#[derive(Debug)]
enum Frame {
    Whole(Vec<u8>),
    Data(u32, Bytes, bool),
    /// Say goodbye and close.
    Last,
}

/// A stream that the client opened.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) headers: Vec<(String, String)>,
    /// What the client sends; ends when it closes its side.
    pub(crate) input: mpsc::Receiver<Bytes>,
    pub(crate) output: Sender,
}

/// The way back of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    id: u32,
    frames: mpsc::Sender<Frame>,
    /// The client wants no more of this stream.
    pub(crate) reset: CancellationToken,
    _held: Arc<()>,
}

/// The client is gone, or wants no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

impl Sender {
    pub(crate) async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            if self.reset.is_cancelled() {
                return Err(Gone);
            }
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            let frame = Frame::Data(self.id, chunk, false);
            self.frames.send(frame).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Closes this side.
    pub(crate) async fn finish(&self) {
        if !self.reset.is_cancelled() {
            let _ = self.frames.send(Frame::Data(self.id, Bytes::new(), true)).await;
        }
    }
}

/// A connection at work.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Streams that the client opens.
    pub(crate) opened: mpsc::Receiver<Stream>,
    /// The client is gone.
    pub(crate) gone: CancellationToken,
    frames: mpsc::Sender<Frame>,
    reading: tokio::task::AbortHandle,
}

impl Connection {
    pub(crate) fn new(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (read, write) = tokio::io::split(io);
        let (frames, to_write) = mpsc::channel(FRAMES);
        let (open, opened) = mpsc::channel(1);
        let gone = CancellationToken::new();
        let reader = Reader {
            io: BufReader::with_capacity(CHUNK, read),
            unpacker: headers::Unpacker::new(),
            streams: HashMap::new(),
            last: 0,
            open,
            frames: frames.clone(),
        };
        let end = gone.clone();
        let reading = tokio::spawn(async move {
            let _end = end.drop_guard();
            if let Err(error) = reader.run().await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a SPDY connection ended"
                );
            }
        });
        let end = gone.clone();
        tokio::spawn(async move {
            // Somebody who is gone is noticed in either direction.
            if write_all(write, to_write, &end).await.is_err() {
                end.cancel();
            }
        });
        Self {
            opened,
            gone,
            frames,
            reading: reading.abort_handle(),
        }
    }

    /// Sends what is left, says goodbye, and closes.
    pub(crate) async fn close(self) {
        let _ = self.frames.send(Frame::Last).await;
        let _ = tokio::time::timeout(FAREWELL, self.gone.cancelled()).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

struct Reader<R> {
    io: BufReader<R>,
    unpacker: headers::Unpacker,
    streams: HashMap<u32, Open>,
    /// The last stream that was opened.
    last: u32,
    open: mpsc::Sender<Stream>,
    frames: mpsc::Sender<Frame>,
}

#[derive(Debug)]
struct Open {
    /// None once the client has closed its side.
    input: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
    /// Whether somebody may still write to it.
    held: Weak<()>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) -> Result<(), Error> {
        loop {
            let mut head = [0; 8];
            match self.io.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let [a, b, c, d, flags, rest @ ..] = head;
            let length =
                usize::try_from(u32::from_be_bytes([0, rest[0], rest[1], rest[2]])).unwrap_or_default();
            if a & 0x80 == 0 {
                self.take_data(u32::from_be_bytes([a, b, c, d]), length, flags & FIN != 0)
                    .await?;
                continue;
            }
            let (version, kind) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            if version != VERSION {
                return Err(Error::Version(version));
            }
            if length > LONGEST {
                return Err(Error::Length(kind, length));
            }
            let mut body = vec![0; length];
            self.io.read_exact(&mut body).await?;
            let number = |at: usize| {
                let bytes = body.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
                let number = bytes.map(|bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff);
                number.ok_or(Error::Length(kind, length))
            };
            match kind {
                SYN_STREAM => {
                    let id = number(0)?;
                    let block = body.get(10..).ok_or(Error::Length(kind, length))?;
                    let headers = self.unpacker.read(block)?;
                    self.begin(id, headers, flags & FIN != 0).await?;
                }
                RST_STREAM => {
                    if let Some(open) = self.streams.remove(&number(0)?) {
                        open.reset.cancel();
                    }
                }
                // Ours come back with even numbers.
                PING if number(0)? % 2 == 1 => self.reply(ping(number(0)?)).await?,
                GOAWAY => return Ok(()),
                HEADERS => {
                    let block = body.get(4..).ok_or(Error::Length(kind, length))?;
                    self.unpacker.read(block)?;
                }
                // Settings, windows, our own questions.
                _ => {}
            }
        }
    }

    async fn reply(&mut self, frame: Vec<u8>) -> Result<(), Error> {
        let sent = self.frames.send(Frame::Whole(frame)).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe).into())
    }

    async fn begin(&mut self, id: u32, headers: Vec<(String, String)>, is_closed: bool) -> Result<(), Error> {
        if id.is_multiple_of(2) || id <= self.last {
            return Err(Error::Id(id));
        }
        let is_first = self.last == 0;
        self.last = id;
        self.streams.retain(|_, open| open.held.strong_count() > 0);
        if self.streams.len() >= MOST {
            return self.reply(refused(id)).await;
        }
        self.reply(reply(id, is_first)).await?;
        let (input, receiver) = mpsc::channel(QUEUE);
        let (reset, held) = (CancellationToken::new(), Arc::new(()));
        self.streams.insert(
            id,
            Open {
                input: (!is_closed).then_some(input),
                reset: reset.clone(),
                held: Arc::downgrade(&held),
            },
        );
        let stream = Stream {
            id,
            headers,
            input: receiver,
            output: Sender {
                id,
                frames: self.frames.clone(),
                reset,
                _held: held,
            },
        };
        let opened = self.open.send(stream).await;
        opened.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe).into())
    }

    async fn take_data(&mut self, id: u32, length: usize, is_last: bool) -> Result<(), Error> {
        let mut left = length;
        while left > 0 {
            let mut chunk = vec![0; left.min(CHUNK)];
            self.io.read_exact(&mut chunk).await?;
            left -= chunk.len();
            // What nobody wants any more is lost.
            if let Some(input) = self.streams.get(&id).and_then(|open| open.input.as_ref()) {
                let _ = input.send(chunk.into()).await;
            }
        }
        if is_last && let Some(open) = self.streams.get_mut(&id) {
            open.input = None;
        }
        Ok(())
    }
}

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

fn control(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = VERSION.to_be_bytes().to_vec();
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or_default().to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

fn reply(id: u32, is_first: bool) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend_from_slice(&headers::empty(is_first));
    control(SYN_REPLY, &body)
}

fn refused(id: u32) -> Vec<u8> {
    const REFUSED_STREAM: u32 = 3;
    control(
        RST_STREAM,
        &[id.to_be_bytes(), REFUSED_STREAM.to_be_bytes()].concat(),
    )
}

fn ping(id: u32) -> Vec<u8> {
    control(PING, &id.to_be_bytes())
}

async fn write_all(
    io: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Frame>,
    gone: &CancellationToken,
) -> io::Result<()> {
    let mut io = BufWriter::with_capacity(2 * CHUNK, io);
    let mut clock = tokio::time::interval(PING_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    clock.tick().await;
    let mut asked = 0;
    loop {
        tokio::select! {
            frame = frames.recv() => match frame {
                Some(Frame::Whole(frame)) => io.write_all(&frame).await?,
                Some(Frame::Data(id, bytes, is_last)) => {
                    let length = u32::try_from(bytes.len()).unwrap_or_default() | u32::from(u8::from(is_last)) << 24;
                    io.write_all(&id.to_be_bytes()).await?;
                    io.write_all(&length.to_be_bytes()).await?;
                    io.write_all(&bytes).await?;
                }
                Some(Frame::Last) | None => {
                    io.write_all(&control(GOAWAY, &[0; 8])).await?;
                    return io.shutdown().await;
                }
            },
            _ = clock.tick() => {
                asked += 2;
                io.write_all(&ping(asked)).await?;
            }
            () = gone.cancelled() => return Ok(()),
        }
        if frames.is_empty() {
            io.flush().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// A client's stream without headers.
    fn open(id: u32, flags: u8) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        body.extend_from_slice(&[0; 6]);
        body.extend_from_slice(&headers::empty(id == 1));
        let mut frame = control(SYN_STREAM, &body);
        frame[4] = flags;
        frame
    }

    fn data(id: u32, bytes: &[u8], flags: u8) -> Vec<u8> {
        let mut frame = id.to_be_bytes().to_vec();
        let length = u32::try_from(bytes.len()).unwrap() | u32::from(flags) << 24;
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(bytes);
        frame
    }

    /// The next frame: its first four bytes, its flags, what is in it.
    async fn next(client: &mut DuplexStream) -> (u32, u8, Vec<u8>) {
        let first = client.read_u32().await.unwrap();
        let second = client.read_u32().await.unwrap();
        let mut body = vec![0; usize::try_from(second & 0x00ff_ffff).unwrap()];
        client.read_exact(&mut body).await.unwrap();
        (first, u8::try_from(second >> 24).unwrap(), body)
    }

    fn kind(kind: u16) -> u32 {
        u32::from(VERSION) << 16 | u32::from(kind)
    }

    #[tokio::test]
    async fn streams_go_both_ways_and_each_side_ends_by_itself() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut connection = Connection::new(server);
        client.write_all(&open(1, 0)).await.unwrap();
        client.write_all(&data(1, b"hello", 0)).await.unwrap();
        client.write_all(&data(1, b" you", FIN)).await.unwrap();
        let mut stream = connection.opened.recv().await.unwrap();
        let (first, _, body) = next(&mut client).await;
        assert_eq!((first, &body[..4]), (kind(SYN_REPLY), &1_u32.to_be_bytes()[..]));
        assert_eq!(stream.input.recv().await.unwrap(), "hello");
        assert_eq!(stream.input.recv().await.unwrap(), " you");
        assert_eq!(stream.input.recv().await, None);
        let long = vec![b'x'; CHUNK + 1];
        stream.output.send(long.into()).await.unwrap();
        stream.output.finish().await;
        assert_eq!(next(&mut client).await, (1, 0, vec![b'x'; CHUNK]));
        assert_eq!(next(&mut client).await, (1, 0, vec![b'x']));
        assert_eq!(next(&mut client).await, (1, FIN, Vec::new()));
        let closing = tokio::spawn(connection.close());
        assert_eq!(next(&mut client).await.0, kind(GOAWAY));
        drop(client);
        closing.await.unwrap();
    }

    #[tokio::test]
    async fn a_stream_that_is_not_wanted_any_more_takes_nothing() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut connection = Connection::new(server);
        client.write_all(&open(1, FIN)).await.unwrap();
        let mut stream = connection.opened.recv().await.unwrap();
        assert_eq!(stream.input.recv().await, None);
        let reset = [1_u32.to_be_bytes(), 5_u32.to_be_bytes()].concat();
        client.write_all(&control(RST_STREAM, &reset)).await.unwrap();
        stream.output.reset.cancelled().await;
        assert_eq!(stream.output.send(Bytes::from_static(b"late")).await, Err(Gone));
        client.write_all(&ping(9)).await.unwrap();
        next(&mut client).await;
        assert_eq!(
            next(&mut client).await,
            (kind(PING), 0, 9_u32.to_be_bytes().to_vec())
        );
        drop(client);
        connection.gone.cancelled().await;
    }

    #[tokio::test]
    async fn what_is_no_spdy_ends_the_connection() {
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1],
            [&control(SYN_STREAM, &[0; 4])[..]].concat(),
            vec![0x80, 3, 0, 4, 0, 0xff, 0xff, 0xff],
            open(2, 0),
            [open(1, 0), open(1, 0)].concat(),
        ] {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            let mut connection = Connection::new(server);
            client.write_all(&bytes).await.unwrap();
            // What looks like data for a stream that nobody opened is cut off.
            let _client = (!bytes.starts_with(b"GET")).then_some(client);
            while connection.opened.recv().await.is_some() {}
            connection.gone.cancelled().await;
        }
    }
}
