//! A real nats-server for one test: started on a free port, killed, paused and restarted at the test's word.
//!
//! ```text
//!   reserve()           start()            kill()            restart()          drop
//!   port is ours ──────► server up ───────► port refuses ───► same port ───────► killed, waited for,
//!   and refuses          JetStream answers  connections       and store          directory removed
//! ```
//!
//! What it promises:
//!
//! - **When `start` returns, JetStream answers.** It is asked over a plain TCP connection, so that the client under
//!   test plays no part in it. With authorization or TLS configured the greeting must do: the server opens its port
//!   only after JetStream has recovered its store.
//! - **The port stays ours** while the server is down. We hold a socket that is bound to it but does not listen: the
//!   kernel gives the port to nobody else, clients are refused as they should be, and the server can still bind it,
//!   since both sides set `SO_REUSEADDR`. Only Linux allows this; elsewhere we let go and hope, as everybody does.
//! - **No server outlives its test.** `Drop` kills it, also while a test panics, and the kernel does when the test
//!   process itself is killed.
//! - **No fixed sleeps.** Every wait is [`wait_until`] a condition, with a limit.
//!
//! `start`, `restart`, `stop` and `reload` block the calling thread for some 50 to 100 ms. A test whose client must go
//! on meanwhile uses `#[tokio::test(flavor = "multi_thread")]`.
#![allow(dead_code, reason = "a harness offers what the next test needs, too")]

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use async_nats::jetstream::{
    self,
    consumer::{Consumer, pull::OrderedConfig},
    stream,
};
use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// The limit of every wait. A healthy server needs less than 0.1 s; the rest is for a busy machine, so that only what hangs comes to it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks at a condition: short beside anything we measure, long enough to leave the CPU alone.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A running (or killed, or paused) nats-server. Dropping it kills the process and removes its directory.
#[derive(Debug)]
#[must_use = "the server is killed when this is dropped"]
pub(crate) struct NatsServer {
    reserved: Reserved,
    builder: Builder,
    /// Holds the configuration, the log and, if the test named no other, the store.
    directory: TempDir,
    /// `None` after `kill` and `stop`.
    process: Option<Child>,
}

impl NatsServer {
    /// Starts a server with an empty store on a free port, and waits until JetStream answers.
    ///
    /// # Panics
    ///
    /// If there is no nats-server to run, or JetStream doesn't answer within [`PATIENCE`]; so do all methods here that
    /// wait. The panic shows the server's log.
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    /// A server with other than the usual settings.
    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// Takes a port now for a server that starts later; until then connections to it are refused.
    pub(crate) fn reserve() -> Reserved {
        Reserved::bind(0)
    }

    /// The URL for clients. It stays the same over `kill` and `restart`.
    pub(crate) fn url(&self) -> String {
        self.reserved.url()
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.reserved.port
    }

    /// Ends the server at once with SIGKILL, as a crash would, and waits for its end. The store stays as it was.
    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().expect("our own child can be killed");
        process.wait().expect("our own child can be waited for");
    }

    /// Ends the server in good order (SIGINT) and waits for its end.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        signal(&process, libc::SIGCONT);
        signal(&process, libc::SIGINT);
        wait_until("the server has stopped", || process.try_wait().expect("our own child").is_some());
    }

    /// Starts the server again on the same port and store, after killing it if it runs.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// As [`restart`](Self::restart), with a server of another version.
    pub(crate) fn restart_as(&mut self, version: &str) {
        self.builder.version = Some(version.to_owned());
        self.restart();
    }

    /// Has the server send its clients away and end in good order (SIGUSR2). It does so by itself; see
    /// [`has_ended`](Self::has_ended).
    pub(crate) fn lame_duck(&self) {
        signal(self.running(), libc::SIGUSR2);
    }

    /// Freezes the server (SIGSTOP): connections stay open and nothing answers.
    ///
    /// The signal alone is not enough: for some milliseconds a thread on another core may still answer a request.
    pub(crate) fn pause(&self) {
        signal(self.running(), libc::SIGSTOP);
        wait_until("every thread of the server is paused", || is_paused(self.running()));
    }

    /// Lets a paused server go on (SIGCONT).
    pub(crate) fn resume(&self) {
        signal(self.running(), libc::SIGCONT);
    }

    /// Replaces the text given to [`Builder::config`] and has the running server read it (SIGHUP).
    ///
    /// Returns when the server has taken it over. Not everything can be changed like this; the store cannot.
    ///
    /// # Panics
    ///
    /// If the server refuses the new configuration.
    pub(crate) fn reload(&mut self, config: impl Into<String>) {
        const RELOADED: &str = "Reloaded server configuration";
        const REFUSED: &str = "Failed to reload server configuration";
        let said_before = self.log().len();
        self.builder.config = config.into();
        self.write_config();
        signal(self.running(), libc::SIGHUP);
        let mut said = String::new();
        wait_until("the server has reloaded its configuration", || {
            said = self.log().split_off(said_before);
            said.contains(RELOADED) || said.contains(REFUSED)
        });
        assert!(said.contains(RELOADED), "nats-server refused the new configuration:\n{said}");
    }

    /// The operating system's number of the server's process.
    ///
    /// # Panics
    ///
    /// If the server was killed or stopped.
    pub(crate) fn pid(&self) -> u32 {
        self.running().id()
    }

    /// What the server has logged so far, over all its restarts.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The directory of the JetStream store.
    pub(crate) fn store(&self) -> PathBuf {
        self.builder.store.clone().unwrap_or_else(|| self.directory.path().join("store"))
    }

    fn running(&self) -> &Child {
        self.process.as_ref().expect("the test uses a server that it has killed or stopped")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("nats.conf")
    }

    fn write_config(&self) {
        let Builder { config, jetstream, .. } = &self.builder;
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nserver_name: jetring_test\n\
             jetstream {{\n  store_dir: {:?}\n  {jetstream}\n}}\n{config}\n",
            self.port(),
            self.store(),
        );
        fs::write(self.config_path(), text).expect("the test's own directory is writable");
    }

    fn launch(&mut self) {
        self.launch_without_waiting();
        self.wait_until_ready();
    }

    fn launch_without_waiting(&mut self) {
        self.write_config();
        let binary = self.builder.version.as_deref().map_or_else(server_binary, binary_of);
        let mut command = Command::new(binary);
        command.arg("--config").arg(self.config_path());
        // The server logs to stderr, as it does with what is wrong in its configuration, before it has a log file.
        let log = fs::File::options().create(true).append(true).open(self.log_path());
        let log = log.expect("the test's own directory is writable");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(spawn(command).expect("the nats-server that was found can be run"));
    }

    /// Waits until JetStream answers, as a server of a cluster does when enough of them are there.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub(crate) fn wait_until_ready(&mut self) {
        let started = Instant::now();
        let ready = poll(PATIENCE, || self.has_ended() || answers(self.port()).unwrap_or(false));
        if ready && !self.has_ended() {
            return;
        }
        // `Drop` prints the log, which holds the reason.
        panic!("no nats-server at {} after {:?}; its log follows", self.url(), started.elapsed());
    }

    /// Whether the server has ended, by itself or by us.
    pub(crate) fn has_ended(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_none_or(|process| process.try_wait().expect("our own child can be asked").is_some())
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // Neither step may panic: a panic within a panic would take the whole test process down.
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- last lines of the nats-server at {} ---\n{}\n---", self.url(), tail.join("\n"));
        }
    }
}

/// The settings of a server that is to be started.
#[derive(Debug, Default)]
#[must_use = "`start` starts the server"]
pub(crate) struct Builder {
    store: Option<PathBuf>,
    port: Option<u16>,
    version: Option<String>,
    config: String,
    jetstream: String,
}

impl Builder {
    /// The directory of the JetStream store; it is left in place. Default: a directory that goes with the server.
    pub(crate) fn store(mut self, directory: impl Into<PathBuf>) -> Self {
        self.store = Some(directory.into());
        self
    }

    /// A certain port of 127.0.0.1. Default: a free one. [`NatsServer::reserve`] is the safer way to know it before.
    pub(crate) fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// A certain version, as `tools/nats_server.py fetch VERSION` has put it into `.tools`. Default: whichever there is.
    pub(crate) fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Text for the end of the server's configuration, in its own format. A later key replaces ours of the same
    /// name, so `jetstream: false` gives a server without JetStream.
    pub(crate) fn config(mut self, text: impl Into<String>) -> Self {
        self.config = text.into();
        self
    }

    /// Text for the inside of the configuration's `jetstream` block, such as `max_file_store: 1MB`.
    pub(crate) fn jetstream(mut self, text: impl Into<String>) -> Self {
        self.jetstream = text.into();
        self
    }

    /// Starts the server; see [`NatsServer::start`].
    pub(crate) fn start(self) -> NatsServer {
        let reserved = Reserved::bind(self.port.unwrap_or(0));
        self.start_on(reserved)
    }

    /// Starts the server on a port that was reserved before.
    pub(crate) fn start_on(self, reserved: Reserved) -> NatsServer {
        let mut server = self.start_without_waiting(reserved);
        server.wait_until_ready();
        server
    }

    /// Starts one of several servers that become ready together; see [`NatsServer::wait_until_ready`].
    pub(crate) fn start_without_waiting(self, reserved: Reserved) -> NatsServer {
        let directory = TempDir::with_prefix("jetring-it-").expect("the temporary directory is writable");
        let mut server = NatsServer { reserved, builder: self, directory, process: None };
        server.launch_without_waiting();
        server
    }
}

/// A port of 127.0.0.1 that nobody else gets, and on which nobody answers yet.
#[derive(Debug)]
pub(crate) struct Reserved {
    port: u16,
    /// Bound and never listening; it holds the port for as long as it lives. `None` where the system can't do that.
    _holder: Option<TcpSocket>,
}

impl Reserved {
    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL that the server will have.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts a server with the usual settings here; see [`NatsServer::start`].
    pub(crate) fn start(self) -> NatsServer {
        NatsServer::builder().start_on(self)
    }

    fn bind(port: u16) -> Self {
        let bound = || -> io::Result<(u16, TcpSocket)> {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
            Ok((socket.local_addr()?.port(), socket))
        };
        let (port, socket) = bound().unwrap_or_else(|error| panic!("no port {port} on 127.0.0.1: {error}"));
        Self { port, _holder: cfg!(target_os = "linux").then_some(socket) }
    }
}

/// Waits until `condition` holds, looking every 10 ms.
///
/// # Panics
///
/// If it doesn't hold within [`PATIENCE`]; the message says that we waited until `what`.
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_at_most(PATIENCE, what, condition);
}

/// As [`wait_until`], with another limit.
#[track_caller]
pub(crate) fn wait_at_most(limit: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(poll(limit, condition), "gave up after {limit:?} waiting until {what}");
}

/// As [`wait_until`], for a condition that must itself wait for an answer: `async || client.ready().await`.
///
/// # Panics
///
/// If it doesn't hold within [`PATIENCE`], also when the condition itself hangs.
pub(crate) async fn wait_until_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, holds).await;
    assert!(waited.is_ok(), "gave up after {PATIENCE:?} waiting until {what}");
}

/// A client of the plain kind, to arrange a test and to look at its result.
///
/// # Panics
///
/// If there is no connection, as all helpers below do when the server refuses what they ask.
pub(crate) async fn connect(url: &str) -> async_nats::Client {
    async_nats::connect(url).await.unwrap_or_else(|error| panic!("cannot connect to {url}: {error}"))
}

/// A stream on files, as production has it, that can be read directly. A test changes what it is about:
/// `stream::Config { max_messages: 10, discard: DiscardPolicy::New, ..stream_config("S", &["s.>"]) }`.
pub(crate) fn stream_config(name: &str, subjects: &[&str]) -> stream::Config {
    stream::Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
        storage: stream::StorageType::File,
        allow_direct: true,
        ..Default::default()
    }
}

/// Creates a stream.
pub(crate) async fn create_stream(url: &str, config: stream::Config) {
    let name = config.name.clone();
    let created = jetstream::new(connect(url).await).create_stream(config).await;
    created.unwrap_or_else(|error| panic!("cannot create the stream {name}: {error}"));
}

/// What the server says about a stream: counts, sequences, bytes.
pub(crate) async fn stream_state(url: &str, stream: &str) -> stream::State {
    get_stream(url, stream).await.cached_info().state.clone()
}

/// Reads a whole stream in its order: sequence, subject and payload of each message that it holds.
///
/// The stream must be at rest, since the end is where the server says that nothing more is pending.
pub(crate) async fn messages(url: &str, stream: &str) -> Vec<(u64, String, Vec<u8>)> {
    let stored = stored(url, stream).await.into_iter();
    stored
        .map(|(sequence, message)| (sequence, message.subject.to_string(), message.payload.to_vec()))
        .collect()
}

/// The same with all that a message has.
pub(crate) async fn stored(url: &str, stream: &str) -> Vec<(u64, async_nats::Message)> {
    let handle = get_stream(url, stream).await;
    let count = usize::try_from(handle.cached_info().state.messages).expect("a test's stream fits in memory");
    if count == 0 {
        return Vec::new();
    }
    let delivery = ordered_consumer(&handle, stream).await.messages().await;
    let mut delivery = delivery.unwrap_or_else(|error| panic!("cannot read {stream}: {error}"));
    let mut all = Vec::with_capacity(count);
    loop {
        let next = tokio::time::timeout(PATIENCE, delivery.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{stream}: only {} of {count} messages came", all.len()));
        let next = next.expect("an ordered consumer never ends by itself");
        let message = next.unwrap_or_else(|error| panic!("cannot read {stream}: {error}"));
        let info = message.info().expect("every message of a consumer carries its sequence");
        let (sequence, last) = (info.stream_sequence, info.pending == 0);
        all.push((sequence, message.message));
        if last {
            return all;
        }
    }
}

/// Waits for a cluster that is still agreeing on who decides about consumers: the stream has a leader before that.
async fn ordered_consumer(stream: &stream::Stream, name: &str) -> Consumer<OrderedConfig> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match stream.create_consumer(OrderedConfig::default()).await {
            Ok(consumer) => return consumer,
            Err(error) if Instant::now() >= deadline => panic!("no consumer of {name}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn get_stream(url: &str, name: &str) -> stream::Stream {
    let stream = jetstream::new(connect(url).await).get_stream(name).await;
    stream.unwrap_or_else(|error| panic!("no stream {name} at {url}: {error}"))
}

/// Asks JetStream over the plain protocol whether it works. An error means that it doesn't yet.
fn answers(port: u16) -> io::Result<bool> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    connection.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let mut line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    let greeting = line()?;
    if !greeting.starts_with("INFO ") {
        return Ok(false);
    }
    let offers = |what: &str| greeting.contains(&format!("\"{what}\":true"));
    if offers("auth_required") || offers("tls_required") || !offers("jetstream") {
        return Ok(true);
    }
    connection.write_all(b"CONNECT {\"verbose\":false}\r\nSUB _INBOX.ready 1\r\n")?;
    connection.write_all(b"PUB $JS.API.INFO _INBOX.ready 0\r\n\r\n")?;
    while !line()?.starts_with("MSG _INBOX.ready ") {}
    Ok(!line()?.contains("\"error\""))
}

fn poll(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
    true
}

#[allow(unsafe_code, reason = "std has no call that sends a signal other than SIGKILL")]
fn signal(process: &Child, number: libc::c_int) {
    let pid = libc::pid_t::try_from(process.id()).expect("a pid came from the system as pid_t");
    // SAFETY: kill takes no pointer. The pid is our own child's, and it can't have passed on to another process,
    // since we have not waited for the child's end yet.
    let result = unsafe { libc::kill(pid, number) };
    assert_eq!(result, 0, "signal {number} to nats-server: {}", io::Error::last_os_error());
}

/// Whether the child is stopped. The kernel reports it once, and only when the last thread has stopped.
#[allow(unsafe_code, reason = "std can wait for a child's end, but not for its pause")]
fn is_paused(process: &Child) -> bool {
    // `WNOWAIT` leaves the report in place, for a second look; without `WEXITED` the child's end stays for std to see.
    let flags = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: siginfo_t consists of numbers and pointers that may be null, for which zero is a valid value.
    let mut report: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live siginfo_t of our own, which waitid fills in or leaves as it is.
    let result = unsafe { libc::waitid(libc::P_PID, process.id(), &mut report, flags) };
    result == 0 && report.si_signo == libc::SIGCHLD
}

/// Starts the server from a thread that lives as long as this process.
///
/// Linux sends the death signal (below) when the *thread* that started the child ends, and the threads of tests and
/// of tokio's blocking pool come and go.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                die_with_this_process(&mut command);
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = mpsc::channel();
    spawner.send((command, answer)).expect("the spawner lives as long as the process");
    child.recv().expect("the spawner answers every order")
}

/// Asks the kernel to kill the child when this process ends without running `Drop`, by SIGKILL for example.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "nothing else reaches a process that dies of SIGKILL")]
fn die_with_this_process(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let parent = std::process::id();
    let ask = move || {
        // SAFETY: both calls take and return plain numbers, and both are allowed between fork and exec.
        let (asked, now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
        if asked != 0 {
            return Err(io::Error::last_os_error());
        }
        // We may have died before the request was made; then nobody would ever send the signal.
        if u32::try_from(now) != Ok(parent) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and only makes two system calls; it neither allocates nor locks.
    unsafe { command.pre_exec(ask) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_this_process(_: &mut Command) {}

/// The nats-server to run: the one named in the environment, else one that was fetched, else one on PATH.
fn server_binary() -> PathBuf {
    let named = env::var_os("JETRING_NATS_SERVER").map(PathBuf::from);
    named
        .or_else(fetched_binary)
        .or_else(|| binary_on(&env::var_os("PATH").unwrap_or_default()))
        .unwrap_or_else(|| panic!("no nats-server: run make test, or python3 tools/nats_server.py fetch"))
}

/// The server of a certain version.
fn binary_of(version: &str) -> PathBuf {
    let binary = fetched(version);
    assert!(binary.is_file(), "no nats-server {version}: run python3 tools/nats_server.py fetch {version}");
    binary
}

/// Where a server of this version is, if it was fetched.
pub(crate) fn fetched(version: &str) -> PathBuf {
    tools().join(format!("nats-server-{version}")).join("nats-server")
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools")
}

/// The newest of `.tools/nats-server-*/nats-server`.
fn fetched_binary() -> Option<PathBuf> {
    let version = |directory: &Path| -> Option<Vec<u32>> {
        let numbers = directory.file_name()?.to_str()?.strip_prefix("nats-server-")?;
        numbers.split('.').map(|number| number.parse().ok()).collect()
    };
    let fetched = fs::read_dir(tools()).ok()?;
    fetched
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|directory| Some((version(&directory)?, directory.join("nats-server"))))
        .filter(|(_, binary)| binary.is_file())
        .max()
        .map(|(_, binary)| binary)
}

fn binary_on(path: &OsString) -> Option<PathBuf> {
    env::split_paths(path).map(|directory| directory.join("nats-server")).find(|binary| binary.is_file())
}
