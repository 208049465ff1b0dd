//! A relay before a server that understands NATS, and does to a connection what networks do.
//!
//! ```text
//!   client ──► Splitter ──► lane "up" ─────────────────► server
//!          ◄── lane "down" ◄── INFO, PONG, -ERR, API ──┐ Splitter ◄──
//!          ◄── lane "acks" ◄── answers to events ──────┘
//! ```
//!
//! Each lane is a queue with a thread that writes. What becomes of a frame is said by the [`Link`] at the moment, for each
//! lane by a [`Way`]; it is changed while connections are open, and says by its default that all is well. Besides, each
//! connection can be given a [`Cut`]: after so many bytes at a certain place it ends, by FIN or by RST. Bytes are cut, frames are
//! not: half a message may go over.
//!
//! Acknowledgements have a lane of their own, because losing these alone is the fault that exactness is most about. They are
//! what the server sends to the reply subjects of publishes other than those to its API.
//!
//! A server tells its clients where its cluster is; they would go around the relay. So `INFO` is rewritten to name relays
//! only, those that [`Proxy::stands_for`] was told of.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::frame::{Frame, Splitter};

/// How often threads that wait look whether the link has changed or the connection has ended.
const TICK: Duration = Duration::from_millis(10);

/// How much later the second copy of a doubled acknowledgement comes: when its message is long settled.
const STALE: Duration = Duration::from_secs(1);

/// How the frames of a lane fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    #[default]
    Open,
    /// They vanish. A connection that has lost a frame up or down stays lost, as behind a firewall that has forgotten it; in
    /// the lane of acknowledgements only these are lost, as a server may lose them.
    Lost,
    /// They wait, and come all at once when the way is open again, as when a cable is plugged in again.
    Held,
    /// Each comes so much later.
    Late(Duration),
    /// Each byte travels alone.
    Sliced,
    /// Nothing is read any more, so that the sender's socket fills.
    Stuck,
    /// Each comes, comes again at once, and once more when it is stale.
    Doubled,
}

/// How all connections fare at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) up: Way,
    pub(crate) down: Way,
    pub(crate) acks: Way,
    /// Nobody gets through: connections end as soon as they are made.
    pub(crate) refuses: bool,
}

impl Link {
    pub(crate) const CLEAR: Self = Self { up: Way::Open, down: Way::Open, acks: Way::Open, refuses: false };

    fn way(&self, lane: Lane) -> Way {
        match lane {
            Lane::Up => self.up,
            Lane::Down => self.down,
            Lane::Acks if self.down == Way::Open => self.acks,
            Lane::Acks => self.down,
        }
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Rst,
}

/// Where bytes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// What the client sends, from its first byte on.
    Hello,
    /// What the client sends, from its first event on.
    Events,
    /// What the server sends, acknowledgements apart.
    Greeting,
    /// The acknowledgements.
    Acks,
    /// The acknowledgements, in frames.
    Answers,
}

/// A connection ends when so much has passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) place: Place,
    pub(crate) after: usize,
    pub(crate) end: End,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    link: Mutex<Link>,
    cuts: Mutex<VecDeque<Cut>>,
    accepted: AtomicUsize,
    closed: AtomicBool,
    open: Mutex<Vec<Weak<Connection>>>,
    /// Addresses of servers, and of the relays that stand for them.
    names: Mutex<HashMap<String, String>>,
    /// What clients are told of a cluster, besides.
    gossip: Mutex<Vec<String>>,
}

impl Proxy {
    /// A relay before the server at this port of 127.0.0.1, whether it is there or not.
    pub(crate) fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            server: (Ipv4Addr::LOCALHOST, port).into(),
            link: Mutex::default(),
            cuts: Mutex::default(),
            accepted: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            open: Mutex::default(),
            names: Mutex::default(),
            gossip: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept_all(&listener));
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// From now on the client is told of this relay where the server tells of that server.
    pub(crate) fn stands_for(&self, server: String, relay: &Self) {
        lock(&self.shared.names).insert(server, relay.address.to_string());
    }

    /// From now on the client is told that the cluster has these servers.
    pub(crate) fn gossips(&self, servers: Vec<String>) {
        *lock(&self.shared.gossip) = servers;
    }

    /// Connections that clients have made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Changes how open and future connections fare.
    pub(crate) fn set(&self, link: Link) {
        *lock(&self.shared.link) = link;
        if link.refuses {
            self.cut(End::Rst);
        }
    }

    /// Ends what is open now.
    pub(crate) fn cut(&self, end: End) {
        self.shared.cut_all(end);
    }

    /// The next connections end one by one as these say; those after them do not.
    pub(crate) fn cut_next(&self, cuts: impl IntoIterator<Item = Cut>) {
        lock(&self.shared.cuts).extend(cuts);
    }

    /// Cuts that no connection has got yet.
    pub(crate) fn cuts_left(&self) -> usize {
        lock(&self.shared.cuts).len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the accepting thread; if that fails it ends with the process.
        let _ = TcpStream::connect(self.address);
        self.cut(End::Fin);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

impl Shared {
    fn accept_all(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.closed.load(Ordering::Relaxed) {
                return;
            }
            let Ok(client) = client else { continue };
            self.accepted.fetch_add(1, Ordering::Relaxed);
            if self.link().refuses {
                reset(&client);
                continue;
            }
            let Ok(server) = TcpStream::connect(self.server) else { continue };
            let cut = lock(&self.cuts).pop_front();
            if let Ok(connection) = Connection::new(client, server, cut, Arc::clone(&self)) {
                let mut open = lock(&self.open);
                open.retain(|connection| connection.strong_count() > 0);
                open.push(Arc::downgrade(&connection));
                connection.start();
            }
        }
    }

    fn link(&self) -> Link {
        *lock(&self.link)
    }

    fn cut_all(&self, end: End) {
        for connection in lock(&self.open).drain(..).filter_map(|connection| connection.upgrade()) {
            connection.end(end);
        }
    }

    /// The frame as the client may see it.
    fn rewrite(&self, frame: Frame) -> Frame {
        if frame.verb() != "INFO" {
            return frame;
        }
        let Ok(mut info) = serde_json::from_str::<serde_json::Value>(frame.options()) else { return frame };
        let gossip = lock(&self.gossip).clone();
        if !gossip.is_empty() {
            info["connect_urls"] = gossip.into();
        } else if let Some(urls) = info.get_mut("connect_urls").and_then(|urls| urls.as_array_mut()) {
            let names = lock(&self.names);
            let relay = |url: &serde_json::Value| names.get(url.as_str()?).cloned().map(Into::into);
            *urls = urls.iter().filter_map(relay).collect();
        }
        frame.with_line(&format!("INFO {info}"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Up,
    Down,
    Acks,
}

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    cut: Option<Cut>,
    /// What has passed where the cut counts.
    passed: AtomicUsize,
    ended: AtomicBool,
    /// A frame was lost on the way up, on the way down.
    lost: [AtomicBool; 2],
    /// Reply subjects of requests to the server's API that are not answered yet.
    requests: Mutex<HashSet<String>>,
    lanes: [Queue; 3],
    /// Two lanes write to the client.
    writing: Mutex<()>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By when they are due; the number tells those apart that are due at once.
    frames: BTreeMap<(Instant, u64), Frame>,
    number: u64,
    /// Nothing that comes later is due before this, so that a lane that gets faster keeps its order.
    latest: Option<Instant>,
}

impl Queue {
    fn push(&self, due: Instant, frame: Frame) {
        let mut waiting = lock(&self.waiting);
        let due = waiting.latest.map_or(due, |latest| latest.max(due));
        waiting.latest = Some(due);
        waiting.insert(due, frame);
        self.changed.notify_one();
    }

    /// A copy that comes again, whatever has overtaken it.
    fn push_stale(&self, due: Instant, frame: Frame) {
        lock(&self.waiting).insert(due, frame);
    }
}

impl Waiting {
    fn insert(&mut self, due: Instant, frame: Frame) {
        self.number += 1;
        self.frames.insert((due, self.number), frame);
    }
}

impl Connection {
    fn new(
        client: TcpStream,
        server: TcpStream,
        cut: Option<Cut>,
        shared: Arc<Shared>,
    ) -> io::Result<Arc<Self>> {
        for socket in [&client, &server] {
            socket.set_nodelay(true)?;
            // So that a reader sees the end of a connection that does not tell the peer yet.
            socket.set_read_timeout(Some(TICK))?;
        }
        Ok(Arc::new(Self {
            client,
            server,
            cut,
            passed: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            lost: Default::default(),
            requests: Mutex::default(),
            lanes: Default::default(),
            writing: Mutex::new(()),
            shared,
        }))
    }

    /// Five threads, which end with the connection. The last of them closes it.
    fn start(self: Arc<Self>) {
        for lane in [Lane::Up, Lane::Down] {
            let connection = Arc::clone(&self);
            thread::spawn(move || connection.read(lane));
        }
        for lane in [Lane::Up, Lane::Down, Lane::Acks] {
            let connection = Arc::clone(&self);
            thread::spawn(move || connection.write(lane));
        }
    }

    fn end(&self, end: End) {
        if self.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        for socket in [&self.client, &self.server] {
            match end {
                // The peer hears of it when the threads have let go.
                End::Rst => reset(socket),
                End::Fin => drop(socket.shutdown(Shutdown::Both)),
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn read(&self, side: Lane) {
        let mut from = if side == Lane::Up { &self.client } else { &self.server };
        let (mut splitter, mut buffer) = (Splitter::default(), [0; 16 << 10]);
        while !self.has_ended() {
            if self.shared.link().way(side) == Way::Stuck {
                thread::sleep(TICK);
                continue;
            }
            match from.read(&mut buffer) {
                Ok(read @ 1..) => splitter.push(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(0) | Err(_) => return self.end(End::Fin),
            }
            while let Some(frame) = splitter.next() {
                self.take(side, self.shared.rewrite(frame));
            }
        }
    }

    fn take(&self, side: Lane, frame: Frame) {
        let lane = self.lane_of(side, &frame);
        let way = self.shared.link().way(lane);
        if self.is_lost(side, lane, way) {
            return;
        }
        let (queue, now) = (&self.lanes[lane as usize], Instant::now());
        match way {
            Way::Late(time) => queue.push(now + time, frame),
            Way::Doubled => {
                queue.push(now, frame.clone());
                queue.push(now, frame.clone());
                queue.push_stale(now + STALE, frame);
            }
            _ => queue.push(now, frame),
        }
    }

    fn lane_of(&self, side: Lane, frame: &Frame) -> Lane {
        if let Some(reply) = frame.reply().filter(|_| frame.subject().starts_with("$JS.")) {
            lock(&self.requests).insert(reply.to_owned());
        }
        let is_answer = side == Lane::Down && frame.is_message();
        if is_answer && !lock(&self.requests).remove(frame.subject()) { Lane::Acks } else { side }
    }

    fn is_lost(&self, side: Lane, lane: Lane, way: Way) -> bool {
        let lost = &self.lost[side as usize];
        let link = self.shared.link();
        if lane == Lane::Acks && link.down != Way::Lost {
            return way == Way::Lost || lost.load(Ordering::Relaxed);
        }
        if way == Way::Lost {
            lost.store(true, Ordering::Relaxed);
        }
        lost.load(Ordering::Relaxed)
    }

    fn write(&self, lane: Lane) {
        let queue = &self.lanes[lane as usize];
        let mut waiting = lock(&queue.waiting);
        while !self.has_ended() {
            let is_held = self.shared.link().way(lane) == Way::Held;
            let first = waiting.frames.first_key_value().map(|(&key, _)| key).filter(|_| !is_held);
            let wait = first.map_or(TICK, |(due, _)| due.saturating_duration_since(Instant::now()));
            let Some(key) = first.filter(|_| wait.is_zero()) else {
                let woken = queue.changed.wait_timeout(waiting, wait.min(TICK));
                waiting = woken.expect("nobody panics with it").0;
                continue;
            };
            let frame = waiting.frames.remove(&key).expect("it was there");
            drop(waiting);
            if self.pass(lane, &frame).is_err() {
                return self.end(End::Fin);
            }
            waiting = lock(&queue.waiting);
        }
    }

    /// Writes as much of the frame as the cut allows.
    fn pass(&self, lane: Lane, frame: &Frame) -> io::Result<()> {
        let mut to = if lane == Lane::Up { &self.server } else { &self.client };
        let _turn = (lane != Lane::Up).then(|| lock(&self.writing));
        let left = self.left(lane, frame);
        let bytes = &frame.bytes()[..left.min(frame.bytes().len())];
        if self.shared.link().way(lane) == Way::Sliced {
            bytes.chunks(1).try_for_each(|byte| to.write_all(byte))?;
        } else {
            to.write_all(bytes)?;
        }
        if let Some(cut) = self.cut.filter(|_| left <= frame.bytes().len()) {
            self.end(cut.end);
        }
        Ok(())
    }

    /// How much may still pass in this lane before the cut, this frame included. What the frame takes is counted.
    fn left(&self, lane: Lane, frame: &Frame) -> usize {
        let Some(Cut { place, after, .. }) = self.cut else { return usize::MAX };
        let passed = self.passed.load(Ordering::Relaxed);
        let is_event = frame.is_publish() && !frame.subject().starts_with('$');
        let counts = match place {
            Place::Hello => lane == Lane::Up,
            Place::Events => lane == Lane::Up && (passed > 0 || is_event),
            Place::Greeting => lane == Lane::Down,
            Place::Acks | Place::Answers => lane == Lane::Acks,
        };
        if !counts {
            return usize::MAX;
        }
        let size = frame.bytes().len();
        let takes = if place == Place::Answers { 1 } else { size };
        self.passed.fetch_add(takes, Ordering::Relaxed);
        match place {
            Place::Answers if passed + 1 < after => usize::MAX,
            Place::Answers => size,
            _ => after.saturating_sub(passed),
        }
    }
}

/// Has the socket end by RST once it is closed.
fn reset(socket: &TcpStream) {
    // A socket that is broken already needs no more.
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::wait_until;

    const INFO: &str = "INFO {\"connect_urls\":[\"10.0.0.1:1\",\"10.0.0.2:2\"]}\r\n";
    const EVENT: &str = "HPUB event.1.a _INBOX.1 2 5\r\nH\nxyz\r\n";

    /// A client and a server that speak through a relay.
    struct Talk {
        proxy: Proxy,
        client: TcpStream,
        server: TcpStream,
    }

    impl Talk {
        fn with(cut: Option<Cut>) -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let proxy = Proxy::before(listener.local_addr().expect("it is bound").port());
            proxy.cut_next(cut);
            let client = TcpStream::connect(proxy.address).expect("the relay listens");
            let server = listener.accept().expect("the relay connects").0;
            for socket in [&client, &server] {
                socket.set_read_timeout(Some(Duration::from_secs(10))).expect("not zero");
            }
            wait_until("the connection has its cut", || proxy.cuts_left() == 0);
            Self { proxy, client, server }
        }

        /// What arrives on the other side when the client or the server has said this; it must be of this length.
        fn passes(mut from: &TcpStream, mut to: &TcpStream, said: &str, length: usize) -> String {
            from.write_all(said.as_bytes()).expect("the relay reads");
            let mut heard = vec![0; length];
            to.read_exact(&mut heard).expect("as much as was said arrives");
            String::from_utf8(heard).expect("as it was said")
        }

        fn answers(&self, said: &str, heard: &str) {
            assert_eq!(Self::passes(&self.server, &self.client, said, heard.len()), heard);
        }
    }

    #[test]
    fn a_cut_lets_exactly_so_many_bytes_of_events_through_and_ends_as_it_says() {
        for (after, end) in
            [(0, End::Fin), (1, End::Rst), (17, End::Fin), (EVENT.len(), End::Rst), (90, End::Fin)]
        {
            let mut talk = Talk::with(Some(Cut { place: Place::Events, after, end }));
            let hello = "CONNECT {}\r\nSUB _INBOX.> 1\r\n";
            let _ = talk.client.write_all(format!("{hello}{EVENT}{EVENT}{EVENT}{EVENT}").as_bytes());
            let mut heard = Vec::new();
            let ended = talk.server.read_to_end(&mut heard);
            assert_eq!(heard.len(), hello.len() + after);
            assert_eq!(ended.is_err(), end == End::Rst, "{ended:?}");
        }
    }

    #[test]
    fn acknowledgements_can_be_lost_while_all_else_passes() {
        let talk = Talk::with(None);
        let request = "PUB $JS.API.STREAM.INFO.main _INBOX.7 0\r\n\r\n";
        Talk::passes(&talk.client, &talk.server, request, request.len());
        talk.proxy.set(Link { acks: Way::Lost, ..Link::CLEAR });
        talk.answers("MSG _INBOX.1 1 1\r\na\r\nPONG\r\n", "PONG\r\n");
        talk.answers("MSG _INBOX.7 2 1\r\ni\r\n", "MSG _INBOX.7 2 1\r\ni\r\n");
        talk.proxy.set(Link::CLEAR);
        talk.answers("MSG _INBOX.2 1 1\r\nb\r\n", "MSG _INBOX.2 1 1\r\nb\r\n");
    }

    #[test]
    fn a_lane_keeps_its_order_when_it_is_held_late_and_clear_in_turn() {
        let mut talk = Talk::with(None);
        let ways = [Way::Held, Way::Late(Duration::from_millis(30)), Way::Open, Way::Sliced];
        let mut said = String::new();
        for (way, number) in ways.into_iter().cycle().zip(0..20) {
            talk.proxy.set(Link { up: way, ..Link::CLEAR });
            let frame = format!("PUB event.1.{number} 1\r\nx\r\n");
            talk.client.write_all(frame.as_bytes()).expect("the relay reads");
            said.push_str(&frame);
        }
        talk.proxy.set(Link::CLEAR);
        let mut heard = vec![0; said.len()];
        talk.server.read_exact(&mut heard).expect("all of it arrives");
        assert_eq!(String::from_utf8(heard).expect("as it was said"), said);
    }

    #[test]
    fn a_doubled_acknowledgement_comes_twice_and_once_more() {
        let talk = Talk::with(None);
        talk.proxy.set(Link { acks: Way::Doubled, ..Link::CLEAR });
        let ack = "MSG _INBOX.1 1 1\r\na\r\n";
        talk.answers(ack, &ack.repeat(3));
    }

    #[test]
    fn what_has_lost_something_stays_lost_and_a_new_connection_is_well() {
        let mut talk = Talk::with(None);
        talk.proxy.set(Link { up: Way::Lost, ..Link::CLEAR });
        talk.client.write_all(b"PING\r\n").expect("the relay reads");
        talk.answers("PONG\r\n", "PONG\r\n");
        wait_until("the relay has lost it", || {
            let open = lock(&talk.proxy.shared.open);
            open.iter().filter_map(Weak::upgrade).any(|connection| connection.lost[0].load(Ordering::Relaxed))
        });
        talk.proxy.set(Link::CLEAR);
        talk.client.write_all(b"PING\r\n").expect("the relay reads");
        talk.proxy.cut(End::Fin);
        let mut heard = Vec::new();
        talk.server.read_to_end(&mut heard).expect("it ends in good order");
        assert!(heard.is_empty());
    }

    #[test]
    fn the_client_is_told_of_relays_only() {
        let talk = Talk::with(None);
        talk.proxy.stands_for("10.0.0.2:2".to_owned(), &talk.proxy);
        talk.answers(INFO, &format!("INFO {{\"connect_urls\":[\"{}\"]}}\r\n", talk.proxy.address));
    }
}
