//! A nats-server of our own: on a free port of 127.0.0.1 with a store that is gone afterwards, and in trouble on demand.
//!
//! The server is the child of a shell that kills it when its standard input ends. That happens when we close it, and also when this
//! process dies in any way, so no server outlives a run that was killed.

use crate::event::Size;
use crate::peer::ours;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;

/// The environment variable that names the binary.
pub(crate) const BINARY: &str = "JETRING_NATS_SERVER";

/// A healthy server needs a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(15);

/// The rhythm of a server that is restarted over and over: up, down.
const UP: Duration = Duration::from_millis(250);
const DOWN: Duration = Duration::from_millis(100);

/// Starts the server, says its pid, and kills it when nobody holds the other end of the standard input any more.
const WATCHMAN: &str =
    r#""$@" </dev/null >/dev/null 2>&1 & echo $!; read -r _; kill -9 $! 2>/dev/null; wait"#;

/// A server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    /// Killed before its store goes.
    running: Option<Process>,
    port: Port,
    store: tempfile::TempDir,
}

impl Server {
    /// Starts a server that has the stream, and waits until it answers.
    pub(crate) fn start() -> Result<Self> {
        let port = Port::reserve()?;
        let store = tempfile::TempDir::with_prefix("jetring-perf-")?;
        let mut server = Self { running: None, port, store };
        server.launch()?;
        server.make_stream()?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        self.port.url()
    }

    /// As a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), Process::kill)
    }

    /// Freezes the server: connections stay open and nothing answers.
    pub(crate) fn stall(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Crashes and starts the server over and over until told; it is up at the end.
    pub(crate) fn restart_until(&mut self, over: &AtomicBool) -> Result<u64> {
        let mut restarts = 0;
        loop {
            std::thread::sleep(UP);
            // Relaxed: nothing is handed over by it.
            if over.load(Ordering::Relaxed) {
                return Ok(restarts);
            }
            self.kill()?;
            std::thread::sleep(DOWN);
            self.launch()?;
            restarts += 1;
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let running = self.running.as_ref().context("the server is down")?;
        kill(running.pid, signal).with_context(|| format!("sending {signal} to the server"))
    }

    fn launch(&mut self) -> Result<()> {
        let text = format!(
            "listen: \"{}\"\njetstream {{ store_dir: {:?} }}\n",
            self.port.address(),
            self.store.path().join("store")
        );
        self.running = Some(Process::start(&text, self.store.path())?);
        Ok(())
    }

    fn make_stream(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let config = ours::config(&self.url(), Size::B414)?;
        let start = Instant::now();
        loop {
            match runtime.block_on(jetring::nats::admin::create_stream(&config)) {
                Ok(()) => return Ok(()),
                Err(error) if start.elapsed() > PATIENCE => bail!("nats-server does not answer: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// A port of 127.0.0.1 that nobody else gets; while no server listens, connections are refused.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    /// Bound and never listening.
    _holder: TcpSocket,
}

impl Port {
    pub(crate) fn reserve() -> Result<Self> {
        let holder = TcpSocket::new_v4()?;
        holder.set_reuseaddr(true)?;
        holder.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Self { number: holder.local_addr()?.port(), _holder: holder })
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address())
    }
}

/// A running nats-server. Dropping it kills it; a frozen one dies of SIGKILL like any other.
#[derive(Debug)]
pub(crate) struct Process {
    watchman: Child,
    pid: Pid,
}

impl Process {
    /// Starts a server with this configuration, which is kept in `directory`.
    pub(crate) fn start(config: &str, directory: &Path) -> Result<Self> {
        let binary = std::env::var(BINARY)
            .with_context(|| format!("{BINARY} is to name a nats-server; `make perf` sees to it"))?;
        let path = directory.join("nats.conf");
        std::fs::write(&path, config)?;
        let mut watchman = Command::new("sh")
            .args(["-c", WATCHMAN, "sh", &binary, "--config"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting nats-server")?;
        let mut pid = String::new();
        let stdout = watchman.stdout.take().context("the shell's output is a pipe")?;
        BufReader::new(stdout).read_line(&mut pid)?;
        let pid = Pid::from_raw(pid.trim().parse().context("the shell says the server's pid")?);
        Ok(Self { watchman, pid })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// As a crash would.
    fn kill(mut self) -> Result<()> {
        self.end().context("waiting for the server's end")
    }

    fn end(&mut self) -> std::io::Result<()> {
        drop(self.watchman.stdin.take());
        self.watchman.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What the binary says of itself.
pub(crate) fn version() -> Option<String> {
    let binary = std::env::var(BINARY).ok()?;
    let answer = Command::new(binary).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}
