//! The whole worker, with its spool and the spool's keeper, in worlds with a clock of their own.
//!
//! ```text
//!   script ──► bus ──► rings ──► Worker, the real one ──► Model: a server, well or in one of its troubles
//!                                  │        ▲
//!                                  ▼        │
//!                                Keeper, the real one ──► a disk in memory: well, full, refusing, hanging
//! ```
//!
//! All of it runs on one thread, in the [simulated time](crate::timer::simulated), so a minute costs some milliseconds. What is judged:
//!
//! - **Quiet waits are quiet.** While nothing new is offered, worker and keeper turn at most [`TURNS_MAX`] times a second, and say at most
//!   [`LINES_MAX`] lines a minute at all levels, whatever is the matter with server and disk.
//! - **A close gives each event an account.** The report balances and nothing is queued or in flight in it, however little time there was; if
//!   a disk hangs for longer than anybody waits, the report says that it is not complete, and the ledger is complete when the disk goes on.
//!   What the ledger calls spooled is in the log.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod server;

use self::server::{Model, Net, Server};
use super::{Spooling, Worker};
use crate::bus::{Bus, CLOSE_GRACE, Shared};
use crate::config::{Config, Framing, Mode, Spool, SpoolFull, SpoolSync};
use crate::ledger::{Report, Stats};
use crate::overflow::by_hand::ByHand;
use crate::publisher::packer;
use crate::spool::cursor::{Cursor, Item, Stored};
use crate::spool::log::Options;
use crate::spool::storage::memory::{Fault, Memory};
use crate::spool::tended::Place;
use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;
use crate::timer::{self, simulated};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Turns of the worker, and of the keeper, in a second of a quiet wait. A turn takes some microseconds, so a minute of them is far below the
/// tenth of a second that is promised.
const TURNS_MAX: u64 = 15;

/// Lines of the log in a minute of it.
const LINES_MAX: u64 = 30;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// ---- the world ----------------------------------------------------------------------------------------------------------------

/// What is the matter with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    /// There is no spool.
    None,
    Well,
    /// The spool has a quota of some events.
    Small(SpoolFull),
    /// Nothing can be written.
    Refusing,
    /// The same from a moment on, when some is written already.
    FailsLater,
    /// It takes its time: an order is carried out so many milliseconds after it was given.
    Hangs(u64),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(u64),
    Server(Server),
    Break,
    /// What is measured begins, or ends.
    Mark,
    Close(Duration),
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    server: Server,
    disk: Disk,
    framing: Framing,
    mode: Mode,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

struct Around {
    bus: Bus,
    shared: Arc<Shared>,
    net: Rc<RefCell<Net>>,
    keeper: Option<ByHand>,
    disk: Disk,
    memory: Memory,
    script: VecDeque<(Instant, Step)>,
    /// When a hanging disk has carried out what it was given.
    hangs_until: Option<Instant>,
    lived: Rc<RefCell<Lived>>,
    closing: Rc<RefCell<Vec<Closed>>>,
    lines: Arc<AtomicU64>,
}

type Closed = Pin<Box<dyn Future<Output = Report>>>;

/// What is known of a run at its marks.
#[derive(Debug, Default)]
struct Lived {
    /// Turns of the worker, those of the keeper, and lines.
    marks: Vec<(Instant, u64, u64, u64)>,
    report: Option<Report>,
    answered_at: Option<Instant>,
}

impl Around {
    fn take_step(&mut self, now: Instant, step: Step) {
        match step {
            Step::Publish(events) => (0..events).for_each(|event| {
                let _ = self.bus.publish("a", &event);
            }),
            Step::Server(server) => self.net.borrow_mut().server = server,
            Step::Break => self.memory.break_down(Fault::Io),
            Step::Mark => {
                let keeper = self.keeper.as_ref().map_or(0, |keeper| keeper.turns);
                let lines = self.lines.load(Ordering::Relaxed);
                self.lived.borrow_mut().marks.push((now, self.shared.metrics.turns(), keeper, lines));
            }
            Step::Close(deadline) => {
                let bus = self.bus.clone();
                let closed = Box::pin(async move { bus.close_async(deadline).await });
                self.closing.borrow_mut().push(closed);
                self.hear_report(now);
            }
        }
    }

    fn hear_report(&self, now: Instant) {
        let mut closing = self.closing.borrow_mut();
        let Some(closed) = closing.last_mut() else { return };
        if let Poll::Ready(report) = closed.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            closing.clear();
            let mut lived = self.lived.borrow_mut();
            (lived.report, lived.answered_at) = (Some(report), Some(now));
        }
    }

    fn serve_keeper(&mut self, now: Instant) -> bool {
        if let Disk::Hangs(millis) = self.disk {
            let until = *self.hangs_until.get_or_insert_with(|| now + Duration::from_millis(millis));
            if now < until {
                return false;
            }
            self.hangs_until = None;
        }
        self.keeper.as_mut().is_some_and(|keeper| keeper.serve(now))
    }
}

impl simulated::World for Around {
    fn next_due(&mut self) -> Option<Instant> {
        let now = timer::now();
        self.hear_report(now);
        let was_served = self.serve_keeper(now).then_some(now);
        let heard = self.net.borrow().coming.front().map(|(due, _)| *due);
        let script = self.script.front().map(|(due, _)| *due);
        let keeper = self.keeper.as_ref().and_then(ByHand::next_due);
        let keeper = self.hangs_until.or(keeper);
        [was_served, heard, script, keeper].into_iter().flatten().min()
    }

    fn pass(&mut self, now: Instant) {
        self.net.borrow_mut().hear(now);
        while self.script.front().is_some_and(|(due, _)| *due <= now) {
            let (_, step) = self.script.pop_front().unwrap();
            self.take_step(now, step);
        }
        self.serve_keeper(now);
    }
}

/// What is left when a worker has ended.
struct End {
    lived: Lived,
    shared: Arc<Shared>,
    memory: Memory,
    start: Instant,
    stored: u64,
}

/// Lets a worker live through a script.
fn live(setup: Setup, script: &[(Duration, Step)]) -> End {
    let mut config = Config::new("nats://127.0.0.1:1", "main", 1).unwrap();
    config.delivery.framing = setup.framing;
    config.delivery.mode = setup.mode;
    config.delivery.max_in_flight = 64;
    config.queue.capacity = 1 << 20;
    config.queue.max_event = 1 << 10;
    let delivery = config.delivery.clone();
    let start = Instant::now();
    let memory = Memory::new();
    let net = Net {
        server: setup.server,
        is_connected: false,
        coming: VecDeque::new(),
        heard: VecDeque::new(),
        stored: 0,
        stored_events: 0,
    };
    let net = Rc::new(RefCell::new(net));
    let (bus, mut posts) = Bus::prepare(config).unwrap();
    let post = posts.remove(0);
    let shared = Arc::clone(&post.shared);
    let mut spool = Spool { sync: SpoolSync::EveryBatch, ..Spool::default() };
    let mut max_bytes = 64 << 20;
    if let Disk::Small(when_full) = setup.disk {
        (spool.when_full, max_bytes) = (when_full, 20_000);
    }
    let lived = Rc::default();
    let lines = Arc::default();
    let closing = Rc::default();
    let mut around = Around {
        bus,
        shared: Arc::clone(&shared),
        net: Rc::clone(&net),
        keeper: None,
        disk: setup.disk,
        memory: memory.clone(),
        script: script.iter().map(|&(at, step)| (start + at, step)).collect(),
        hangs_until: None,
        lived: Rc::clone(&lived),
        closing: Rc::clone(&closing),
        lines: Arc::clone(&lines),
    };
    let spooling = (setup.disk != Disk::None).then(|| {
        let mut place = Place::new("memory".into(), &spool, Arc::default());
        place.options = Options::tiny(max_bytes, SpoolFull::DropNewest);
        let opened = place.open_in(Arc::new(memory.clone())).unwrap();
        place.options.when_full = spool.when_full;
        if setup.disk == Disk::Refusing {
            memory.break_down(Fault::Io);
        }
        let (overflow, keeper) = ByHand::start(place, post.producers.clone(), opened);
        around.keeper = Some(keeper);
        Spooling::new(start, overflow, Model(Rc::clone(&net)))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let work = || {
        let compressor = packer::compressor(&delivery).unwrap();
        let worker = Worker::new(post, Model(Rc::clone(&net)), compressor, spooling, 1);
        let lines = Lines(Arc::clone(&lines));
        tracing::subscriber::with_default(lines, || worker.work(&runtime, &|| Model(Rc::clone(&net))));
        timer::now()
    };
    let ended_at = simulated::run(start, Box::new(around), work);
    // Whoever still waits is answered by the end of the worker.
    if let Some(closed) = closing.borrow_mut().last_mut()
        && let Poll::Ready(report) = closed.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    {
        let mut lived = lived.borrow_mut();
        (lived.report, lived.answered_at) = (Some(report), Some(ended_at));
    }
    let lived = lived.take();
    let stored = net.borrow().stored_events;
    End { lived, shared, memory, start, stored }
}

/// Counts what is logged.
struct Lines(Arc<AtomicU64>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

// ---- quiet waits --------------------------------------------------------------------------------------------------------------

/// Lets a minute pass in which nothing is offered, and judges it.
fn judge_quiet(setup: Setup, script: &[(Duration, Step)]) -> [u64; 3] {
    let quiet = seconds(60);
    let from = script.last().map_or(Duration::ZERO, |(at, _)| *at) + seconds(20);
    let mut script = script.to_vec();
    script.extend([(from, Step::Mark), (from + quiet, Step::Mark), (from + quiet, Step::Close(seconds(1)))]);
    let end = live(setup, &script);
    let [(_, turns, kept, lines), (_, turns_later, kept_later, lines_later)] = end.lived.marks[..] else {
        panic!("{setup}: there are two marks")
    };
    let (turns, kept, lines) = (turns_later - turns, kept_later - kept, lines_later - lines);
    let max = TURNS_MAX * quiet.as_secs();
    assert!(turns <= max, "{setup}, {script:?}: {turns} turns of the worker in {quiet:?}");
    assert!(kept <= max, "{setup}, {script:?}: {kept} turns of the keeper in {quiet:?}");
    assert!(lines <= LINES_MAX, "{setup}, {script:?}: {lines} lines in {quiet:?}");
    [turns, kept, lines]
}

const DISKS: [Disk; 7] = [
    Disk::None,
    Disk::Well,
    Disk::Small(SpoolFull::DropNewest),
    Disk::Small(SpoolFull::DropOldest),
    Disk::Refusing,
    Disk::FailsLater,
    Disk::Hangs(30),
];

/// All combinations of what can be the matter, but for numbers of events.
fn each_setup(mut each: impl FnMut(Setup)) {
    for server in Server::TROUBLES {
        for disk in DISKS {
            for framing in [Framing::Plain, Framing::Packed] {
                for mode in [Mode::Auto, Mode::Fast] {
                    each(Setup { server, disk, framing, mode });
                }
            }
        }
    }
}

/// Chooses some of all worlds; `JETRING_WORLDS=N/M` the N-th of M parts, and so `0/1` all of them.
struct Draw {
    part: usize,
    parts: usize,
    seen: usize,
}

impl Draw {
    fn new() -> Self {
        let wanted = std::env::var("JETRING_WORLDS").unwrap_or_else(|_| "0/101".to_owned());
        let (part, parts) = wanted.split_once('/').unwrap();
        Self { part: part.parse().unwrap(), parts: parts.parse().unwrap(), seen: 0 }
    }

    fn takes(&mut self) -> bool {
        self.seen += 1;
        self.seen % self.parts == self.part
    }
}

/// Numbers of events: none, a few, more than a window has room for, and more than rings and window have.
const LOADS: [u64; 4] = [0, 3, 300, 12_000];

/// A quiet minute, with the trouble from the start on, or after a time in which all was well.
fn quiet_minute(setup: Setup, events: u64, begins_well: bool) -> [u64; 3] {
    let breaks = (setup.disk == Disk::FailsLater).then_some((seconds(8), Step::Break));
    if !begins_well {
        let script: Vec<_> = [(seconds(1), Step::Publish(events))].into_iter().chain(breaks).collect();
        return judge_quiet(setup, &script);
    }
    let is_batched = setup.server.takes_batches() || setup.mode == Mode::Fast;
    let well = if is_batched { Server::Batched } else { Server::Up };
    let script = [
        (seconds(1), Step::Publish(3)),
        (seconds(2), Step::Server(setup.server)),
        (seconds(3), Step::Publish(events)),
    ];
    let script: Vec<_> = script.into_iter().chain(breaks).collect();
    judge_quiet(Setup { server: well, ..setup }, &script)
}

#[test]
fn a_quiet_wait_is_quiet_whatever_is_the_matter_with_server_and_disk() {
    let (mut draw, mut most) = (Draw::new(), [0; 3]);
    each_setup(|setup| {
        for (events, begins_well) in LOADS.into_iter().flat_map(|events| [(events, true), (events, false)]) {
            // A few events in a plain outage: the least that can go wrong.
            let is_usual =
                events == 3 && !begins_well && setup.mode == Mode::Auto && setup.disk == Disk::Well;
            if is_usual || draw.takes() {
                let counts = quiet_minute(setup, events, begins_well);
                most.iter_mut().zip(counts).for_each(|(most, count)| *most = count.max(*most));
            }
        }
    });
    let [turns, kept, lines] = most;
    println!("at most {turns} turns of the worker, {kept} of the keeper, and {lines} lines in a minute");
}

// ---- closes -------------------------------------------------------------------------------------------------------------------

const DEADLINES: [Duration; 5] =
    [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(20), seconds(1), seconds(10)];

/// Closes a bus, and judges what it says, and when, and what lies in the log.
fn judge_close(setup: Setup, script: &[(Duration, Step)], closes_at: Duration, deadline: Duration) {
    let mut script = script.to_vec();
    script.push((closes_at, Step::Close(deadline)));
    let end = live(setup, &script);
    let told = format!("{setup}, {script:?}");
    let (report, answered_at) = (end.lived.report.unwrap(), end.lived.answered_at.unwrap());
    let stats = &report.stats;
    assert_eq!(stats.check(), Ok(()), "{told}");
    let late = answered_at.saturating_duration_since(end.start + closes_at + deadline);
    assert!(late <= CLOSE_GRACE, "{told}: {late:?} late");
    let open = stats.queued + stats.in_flight;
    let hangs_long = matches!(setup.disk, Disk::Hangs(millis) if millis > 1000);
    assert!(open == 0 || (hangs_long && !report.complete), "{told}: {report:?}");
    // What is known in the end, of what the report could not tell yet, too.
    let last = end.shared.stats();
    assert_eq!((last.check(), last.queued + last.in_flight), (Ok(()), 0), "{told}: {last:?}");
    let fates = |stats: &Stats| (stats.offered, stats.acked, stats.dropped.total(), stats.indeterminate);
    assert!(open > 0 || fates(stats) == fates(&last), "{told}: {report:?}, and later {last:?}");
    assert!(last.acked <= end.stored, "{told}: {last:?}, and {} are stored", end.stored);
    match setup.disk {
        Disk::None => {}
        // It cannot be noted there what has met its fate.
        Disk::Refusing | Disk::FailsLater => assert!(in_log(&end.memory) >= last.spooled, "{told}: {last:?}"),
        _ => assert_eq!(in_log(&end.memory), last.spooled, "{told}: {last:?}"),
    }
}

/// Events that a next process finds.
fn in_log(memory: &Memory) -> u64 {
    memory.mend();
    let mut place = Place::new("memory".into(), &Spool::default(), Arc::default());
    place.options = Options::tiny(64 << 20, SpoolFull::DropNewest);
    let tended = place.open_in(Arc::new(memory.clone())).unwrap();
    let confirmed = tended.log.sent().confirmed;
    let mut cursor = Cursor::open(Arc::clone(&tended.storage)).unwrap().unwrap();
    cursor.skip_to(confirmed);
    let mut events = 0;
    while let Some(item) = cursor.next().unwrap() {
        // The last reports of the bus are there, too.
        let is_left = |stored: &Stored<'_>| stored.sequence >= confirmed && stored.subject.ends_with(b".a");
        events += u64::from(matches!(item, Item::Message(stored) if is_left(&stored)));
    }
    events
}

#[test]
fn a_close_gives_each_event_an_account_however_little_time_there_is() {
    let mut draw = Draw::new();
    each_setup(|setup| {
        let hangs: &[_] = if setup.disk == Disk::Hangs(30) { &[30, 6000] } else { &[0] };
        for (&hangs, events) in hangs.iter().flat_map(|hangs| [3, 300, 12_000].map(|events| (hangs, events)))
        {
            let disk = if hangs > 0 { Disk::Hangs(hangs) } else { setup.disk };
            let setup = Setup { disk, ..setup };
            let breaks = (disk == Disk::FailsLater).then_some((seconds(2), Step::Break));
            let publish = |at| (Duration::from_millis(at), Step::Publish(events / 2 + 1));
            // The last of them in the moment of the close.
            let script: Vec<_> = [publish(1000)].into_iter().chain(breaks).chain([publish(8000)]).collect();
            for deadline in DEADLINES {
                if draw.takes() {
                    judge_close(setup, &script, Duration::from_millis(8000), deadline);
                }
            }
        }
    });
}
