//! As much of an HTTP client as is needed to measure a server on the same machine without being
//! what is measured: one connection, one request at a time.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One connection that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
    /// What of the buffer has been read.
    at: usize,
}

/// An answer: its status, and its body where somebody wants it.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) bytes: usize,
    pub(crate) body: Vec<u8>,
}

enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            address,
            buffer: Vec::new(),
            at: 0,
        })
    }

    /// Sends a request and reads the answer to its end. The body is kept if it is wanted.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
        keep: bool,
    ) -> io::Result<Answer> {
        let (status, framing) = self.begin(method, path, body).await?;
        let mut answer = Answer {
            status,
            bytes: 0,
            body: Vec::new(),
        };
        match framing {
            Framing::Length(length) => self.take(length, &mut answer, keep).await?,
            Framing::Chunked => {
                while let Some(length) = self.chunk().await? {
                    self.take(length, &mut answer, keep).await?;
                    self.line().await?;
                }
                self.line().await?;
            }
        }
        Ok(answer)
    }

    /// Sends a request, and leaves the body of the answer to [`Self::lines`].
    pub(crate) async fn begin_stream(&mut self, path: &str) -> io::Result<u16> {
        Ok(self.begin("GET", path, b"").await?.0)
    }

    /// Waits for more of a stream in chunks, and returns how many lines have ended in it.
    pub(crate) async fn lines(&mut self) -> io::Result<usize> {
        let Some(mut length) = self.chunk().await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let mut lines = 0;
        while length > 0 {
            self.fill().await?;
            let piece = length.min(self.buffer.len() - self.at);
            let bytes = &self.buffer[self.at..self.at + piece];
            lines += bytes.iter().filter(|byte| **byte == b'\n').count();
            self.at += piece;
            length -= piece;
        }
        self.line().await?;
        Ok(lines)
    }

    async fn begin(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Framing)> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\naccept: application/json\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        let head = self.line().await?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not an answer: {head}")))?;
        let mut framing = Framing::Length(0);
        loop {
            let header = self.line().await?.to_ascii_lowercase();
            if header.is_empty() {
                return Ok((status, framing));
            }
            if let Some(length) = header.strip_prefix("content-length:") {
                framing = Framing::Length(length.trim().parse().map_err(io::Error::other)?);
            } else if header.starts_with("transfer-encoding:") {
                framing = Framing::Chunked;
            }
        }
    }

    /// The length of the next chunk; none after the last.
    async fn chunk(&mut self) -> io::Result<Option<usize>> {
        let line = self.line().await?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        Ok((length > 0).then_some(length))
    }

    async fn take(&mut self, mut length: usize, answer: &mut Answer, keep: bool) -> io::Result<()> {
        answer.bytes += length;
        while length > 0 {
            self.fill().await?;
            let piece = length.min(self.buffer.len() - self.at);
            if keep {
                let bytes = &self.buffer[self.at..self.at + piece];
                answer.body.extend_from_slice(bytes);
            }
            self.at += piece;
            length -= piece;
        }
        Ok(())
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            self.fill().await?;
            let rest = &self.buffer[self.at..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&rest[..end]);
                self.at += end + 1;
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return String::from_utf8(line).map_err(io::Error::other);
            }
            line.extend_from_slice(rest);
            self.at = self.buffer.len();
        }
    }

    /// Reads on when all that was read is used up.
    async fn fill(&mut self) -> io::Result<()> {
        if self.at < self.buffer.len() {
            return Ok(());
        }
        self.buffer.clear();
        self.at = 0;
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(16 * 1024);
        }
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}
