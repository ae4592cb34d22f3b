//! A server to be measured, as a process of its own.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::http::Connection;

pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    /// From the start of the process to its first good answer.
    pub(crate) ready: Duration,
}

impl Server {
    /// Starts `coracle up` on a data directory, or the example `serve` on a file.
    pub(crate) async fn start(binary: &Path, data: &Path) -> io::Result<Self> {
        let address = free_address()?;
        let began = Instant::now();
        let mut command = Command::new(binary);
        if binary.file_stem().is_some_and(|name| name == "serve") {
            command.arg(address.to_string()).arg(data);
        } else {
            command
                .args(["up", "--foreground", "--port", &address.port().to_string()])
                .arg("--data-dir")
                .arg(data);
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self {
            process,
            address,
            ready: Duration::ZERO,
        };
        while !server.is_ready().await {
            if let Some(status) = server.process.try_wait()? {
                return Err(io::Error::other(format!("the server ended: {status}")));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.ready = began.elapsed();
        Ok(server)
    }

    async fn is_ready(&self) -> bool {
        let Ok(mut connection) = Connection::open(self.address).await else {
            return false;
        };
        let answer = connection.ask("GET", "/readyz", b"", false).await;
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// Processor time that the process has used so far.
    pub(crate) fn worked(&self) -> Duration {
        worked(self.process.id())
    }

    /// Resident memory now, in bytes, of the server without its children.
    pub(crate) fn memory(&self) -> u64 {
        let status: PathBuf = format!("/proc/{}/status", self.process.id()).into();
        let status = std::fs::read_to_string(status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
        kilobytes.map_or(0, |kilobytes: u64| kilobytes * 1024)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        let id = self.process.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.process.kill();
    }
}

fn worked(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok());
    // The kernel counts in hundredths of a second here, whatever its own clock does.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
