//! `coracle up` and `coracle down`: the server's own process.
//!
//! In the foreground the server is this process. Detached, it is this program once more, in a
//! session of its own, logging to `coracle.log`; the first process waits for its one line that
//! says where it is ready, so nobody polls.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{IpAddr, Ipv4Addr},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use coracle_platform::{
    Cluster, Config, Server,
    config::{Audit, DEFAULT_PORT, Retention, Runtime},
    data_dir::{self, Running},
};
use jiff::SignedDuration;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::amounts::{Size, Span};

/// Set for a server that was started in the background: it says one line and no more.
const DETACHED: &str = "CORACLE_DETACHED";

/// How to start a server.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  coracle up -d
  coracle up --cache-ttl 7d --retain-days 30 --retain-size 50Gi")]
pub(crate) struct Up {
    /// Port to listen on; 0 takes any free one
    #[arg(long, default_value_t = DEFAULT_PORT, env = "CORACLE_PORT")]
    pub(crate) port: u16,
    /// Address to listen on; other machines are let in only once authentication is configured
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(crate) host: IpAddr,
    /// How old results may be that tasks take over instead of running: `7d`, `12h` [default: any age]
    #[arg(
        long,
        env = "CORACLE_CACHE_TTL",
        value_name = "DURATION",
        conflicts_with = "no_cache"
    )]
    pub(crate) cache_ttl: Option<Span>,
    /// Run every task, and take over no results
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Delete the artifacts of runs that ended longer ago
    #[arg(long, env = "CORACLE_RETAIN_DAYS", value_name = "DAYS")]
    pub(crate) retain_days: Option<u32>,
    /// Keep the artifacts of so many runs that ended last; alone, delete those of all others
    #[arg(long, env = "CORACLE_RETAIN_RUNS", value_name = "COUNT")]
    pub(crate) retain_runs: Option<u32>,
    /// Delete the artifacts of the oldest runs, until all together are no larger: `50Gi`
    #[arg(long, env = "CORACLE_RETAIN_SIZE", value_name = "BYTES")]
    pub(crate) retain_size: Option<Size>,
    /// Which requests to the Kubernetes API go to `audit.log` in the data directory
    #[arg(long, env = "CORACLE_AUDIT_LOG", value_enum, default_value_t = Audited::Writes)]
    pub(crate) audit_log: Audited,
    /// What runs Pods: processes where this machine has what their image holds and the container engine elsewhere, or
    /// only one of them
    #[arg(long, env = "CORACLE_RUNTIME", value_name = "auto|process|container", default_value_t = Runtime::Auto)]
    pub(crate) runtime: Runtime,
    /// Start Python for every task anew, instead of from a process that has imported what it needs
    #[arg(long, env = "CORACLE_NO_WARM_PYTHON")]
    pub(crate) no_warm_python: bool,
    /// How many Pods may be at work at once [default: eight for each core, between 32 and 512]
    #[arg(long, env = "CORACLE_MAX_PODS", value_name = "COUNT", conflicts_with = "kubeconfig",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_pods: Option<u32>,
    /// How many runs may be at work at once; the others wait, and say so [default: 1000]
    #[arg(long, env = "CORACLE_MAX_RUNS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_runs: Option<u32>,
    /// Socket of Docker or Podman [default: of DOCKER_HOST, CONTAINER_HOST, or where they usually are]
    #[arg(long, env = "CORACLE_CONTAINER_SOCKET", value_name = "FILE")]
    pub(crate) container_socket: Option<PathBuf>,
    /// Folder of this machine that Pods may write to as a hostPath; may be given several times
    #[arg(long, value_name = "FOLDER")]
    pub(crate) host_path: Vec<PathBuf>,
    /// Run tasks on the cluster of this kubeconfig instead of this machine
    #[arg(long, env = "CORACLE_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, requires = "kubeconfig", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace of the cluster that tasks run in [default: that of the context]
    #[arg(long, requires = "kubeconfig", value_name = "NAME")]
    pub(crate) cluster_namespace: Option<String>,
    /// Where Pods of the cluster reach this server: the URL of a proxy or tunnel that leads here
    #[arg(long, requires = "kubeconfig", value_name = "URL")]
    pub(crate) advertise_url: Option<String>,
    /// Stay in the foreground (the default)
    #[arg(long, conflicts_with = "detach")]
    pub(crate) foreground: bool,
    /// Go to the background once ready; logs go to `coracle.log` in the data directory
    #[arg(short = 'd', long)]
    pub(crate) detach: bool,
}

/// Which requests go to the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Audited {
    /// Every request
    All,
    /// What changes something, and what was refused
    Writes,
    /// None
    Off,
}

impl Audited {
    const fn mode(self) -> Audit {
        match self {
            Self::All => Audit::All,
            Self::Writes => Audit::Writes,
            Self::Off => Audit::Off,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Writes => "writes",
            Self::Off => "off",
        }
    }
}

/// Starts a server and, in the foreground, works until it is told to stop.
///
/// # Errors
/// Whatever keeps the server from starting, in one sentence.
pub(crate) fn up(options: &Up, data_dir: &Path) -> anyhow::Result<()> {
    if options.detach {
        detach(options, data_dir)
    } else {
        serve(options, data_dir)
    }
}

fn serve(options: &Up, data_dir: &Path) -> anyhow::Result<()> {
    let binary = std::env::current_exe().context("cannot find this program's own file")?;
    let mut config = Config::new(data_dir.to_owned(), binary);
    (config.host, config.port) = (options.host, options.port);
    config.cache = (!options.no_cache).then(|| options.cache_ttl.map(Span::duration));
    config.retention = Retention {
        age: options
            .retain_days
            .map(|days| SignedDuration::from_hours(24 * i64::from(days))),
        runs: options.retain_runs,
        size: options.retain_size.map(|size| size.0),
    };
    config.audit = options.audit_log.mode();
    config.runtime = options.runtime;
    config.warm_python = !options.no_warm_python;
    config.max_pods = options.max_pods;
    config.max_runs = options.max_runs.map(|runs| runs as usize);
    config.container_socket.clone_from(&options.container_socket);
    config.host_paths.clone_from(&options.host_path);
    config.cluster = options.kubeconfig.as_ref().map(|kubeconfig| Cluster {
        kubeconfig: kubeconfig.clone(),
        context: options.context.clone(),
        namespace: options.cluster_namespace.clone(),
        advertise_url: options.advertise_url.clone(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of the server")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        // Before anything starts, so that a signal during the start is not lost.
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
        let server = Server::start(config).await?;
        announce(&server, data_dir)?;
        let asked = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.cancel();
        });
        server.run(stop).await;
        anyhow::Ok(())
    })?;
    // Threads that wait for files or processes must not hold the end up.
    runtime.shutdown_background();
    Ok(())
}

fn announce(server: &Server, data_dir: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let url = format!("http://{}", server.address());
    writeln!(
        out,
        "Coracle {} is ready at {url}",
        coracle_platform::server::VERSION
    )?;
    if std::env::var_os(DETACHED).is_none() {
        writeln!(out, "  data  {}", data_dir.display())?;
        if let Some(cluster) = server.cluster() {
            writeln!(out, "  tasks on {cluster}")?;
        }
        writeln!(out, "  stop  Ctrl-C, or `coracle down`")?;
    }
    out.flush()
}

fn detach(options: &Up, data_dir: &Path) -> anyhow::Result<()> {
    data_dir::make(data_dir)
        .with_context(|| format!("cannot make the data directory `{}`", data_dir.display()))?;
    let log_path = data_dir.join("coracle.log");
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o600)
        .open(&log_path)
        .with_context(|| format!("cannot write `{}`", log_path.display()))?;
    let log_start = log.seek(SeekFrom::End(0))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    command
        .args([
            "up",
            "--foreground",
            "--port",
            &options.port.to_string(),
            "--host",
            &options.host.to_string(),
        ])
        .arg("--data-dir")
        .arg(data_dir)
        .args(limits(options))
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?)
        .process_group(0);
    let mut child = command
        .spawn()
        .context("cannot start the server in the background")?;
    let mut ready = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut ready)?;
    }
    if ready.is_empty() {
        child.wait()?;
        log.seek(SeekFrom::Start(log_start))?;
        let mut said = String::new();
        log.read_to_string(&mut said)?;
        let said = said
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("error: "))
            .map(str::to_owned);
        bail!(
            "{}",
            said.unwrap_or_else(|| format!("the server did not start; see `{}`", log_path.display()))
        );
    }
    let mut out = io::stdout().lock();
    write!(out, "{ready}")?;
    writeln!(out, "  data  {}", data_dir.display())?;
    writeln!(out, "  log   {}", log_path.display())?;
    writeln!(out, "  stop  `coracle down`")?;
    Ok(())
}

/// The options for the server itself, as they were given.
fn limits(options: &Up) -> Vec<String> {
    let given = [
        (
            "--cache-ttl",
            options.cache_ttl.map(|span| format!("{}s", span.0)),
        ),
        ("--retain-days", options.retain_days.map(|days| days.to_string())),
        ("--retain-runs", options.retain_runs.map(|runs| runs.to_string())),
        (
            "--retain-size",
            options.retain_size.map(|size| size.0.to_string()),
        ),
        ("--max-pods", options.max_pods.map(|pods| pods.to_string())),
        ("--max-runs", options.max_runs.map(|runs| runs.to_string())),
    ];
    let mut given = given.to_vec();
    given.push(("--audit-log", Some(options.audit_log.word().to_owned())));
    given.push(("--runtime", Some(options.runtime.to_string())));
    given.push((
        "--container-socket",
        options.container_socket.as_deref().map(whole),
    ));
    for path in &options.host_path {
        given.push(("--host-path", Some(whole(path))));
    }
    given.extend([
        ("--kubeconfig", options.kubeconfig.as_deref().map(whole)),
        ("--context", options.context.clone()),
        ("--cluster-namespace", options.cluster_namespace.clone()),
        ("--advertise-url", options.advertise_url.clone()),
    ]);
    let mut words: Vec<String> = given
        .into_iter()
        .filter_map(|(name, value)| Some([name.to_owned(), value?]))
        .flatten()
        .collect();
    if options.no_warm_python {
        words.push("--no-warm-python".to_owned());
    }
    if options.no_cache {
        words.push("--no-cache".to_owned());
    }
    words
}

/// A path that means the same from any folder.
fn whole(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.to_string_lossy().into_owned()
}

/// Stops the server of a data directory, and returns when it has stopped.
///
/// # Errors
/// When there is none, or it cannot be told.
pub(crate) fn down(data_dir: &Path) -> anyhow::Result<()> {
    let Some(server) = alive(data_dir)? else {
        bail!(
            "no server is running on the data directory `{}`",
            data_dir.display()
        );
    };
    let pid = i32::try_from(server.pid).context("`server.json` names no process")?;
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot stop process {pid}")),
    }
    // The lock is the server's until its end.
    drop(Flock::lock(open_lock(data_dir)?, FlockArg::LockExclusive).map_err(|(_, error)| error)?);
    writeln!(io::stdout(), "stopped the server at {}", server.url)?;
    Ok(())
}

/// The server that is running on a data directory.
///
/// # Errors
/// When the data directory cannot be read.
pub(crate) fn alive(data_dir: &Path) -> anyhow::Result<Option<Running>> {
    let Some(server) = data_dir::running(data_dir) else {
        return Ok(None);
    };
    match Flock::lock(open_lock(data_dir)?, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(None),
        Err((_, Errno::EWOULDBLOCK)) => Ok(Some(server)),
        Err((_, error)) => Err(error).context("cannot look at the server's lock"),
    }
}

fn open_lock(data_dir: &Path) -> anyhow::Result<File> {
    let path: PathBuf = data_dir.join("coracle.lock");
    File::open(&path).with_context(|| format!("cannot read `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        up: Up,
    }

    #[test]
    fn a_server_in_the_background_has_the_limits_that_were_given() {
        let parse = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.up);
        let up = parse("up -d --cache-ttl 1d --retain-days 30 --retain-size 1Ki --max-pods 100 --max-runs 9")
            .expect("valid");
        let words = limits(&up);
        assert_eq!(
            words,
            [
                "--cache-ttl",
                "86400s",
                "--retain-days",
                "30",
                "--retain-size",
                "1024",
                "--max-pods",
                "100",
                "--max-runs",
                "9",
                "--audit-log",
                "writes",
                "--runtime",
                "auto"
            ]
        );
        let again = parse(&format!("up {}", words.join(" "))).expect("valid");
        assert_eq!(limits(&again), words);
        assert_eq!(
            limits(
                &parse("up --no-cache --no-warm-python --runtime process --kubeconfig /k").expect("valid")
            ),
            [
                "--audit-log",
                "writes",
                "--runtime",
                "process",
                "--kubeconfig",
                "/k",
                "--no-warm-python",
                "--no-cache"
            ]
        );
        assert!(parse("up --context c").is_err());
        assert!(parse("up --max-pods 0").is_err());
        assert!(parse("up --max-runs 0").is_err());
        assert!(parse("up --no-cache --cache-ttl 1d").is_err());
    }
}
