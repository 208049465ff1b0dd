//! What a seed draws: the world, the load, and the faults.
//!
//! As in swarm testing (Groce and others, ISSTA 2012) a seed does not use every fault a little, but a few of them a lot, in a
//! world whose sizes are its own: a window of two messages or of sixty, answers after microseconds or after seconds. Each kind
//! of fault is drawn by a generator of its own. So one can be left out, and the others stay where they were: that is how a
//! failing seed is reduced to the faults that it takes.

use super::Micros;
use super::limits;
use super::random::Random;
use crate::config::Mode;
use crate::publisher::server::ServerVersion;
use std::fmt;

const MILLISECOND: Micros = 1_000;
const SECOND: Micros = 1_000_000;

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) world: World,
    pub(super) load: Load,
    /// By their time.
    pub(super) faults: Vec<Fault>,
    /// From then on nothing new breaks, and what the promise needs is healed.
    pub(super) heals_at: Micros,
    /// What is left broken then, as it breaks no promise.
    pub(super) stays_slow: bool,
    /// What is refused for its subject stays so, for ever.
    pub(super) stays_refused: bool,
    /// The bus is closed at the end of the faults, without being healed.
    pub(super) gives_up: bool,
}

/// How things are when nothing is broken.
#[derive(Clone, Copy, Debug)]
pub(super) struct World {
    pub(super) replicas: usize,
    pub(super) duplicate_window: Micros,
    /// From the leader's taking to the quorum's storing, at most.
    pub(super) commit_max: Micros,
    /// Who looks at the stream does not see what is on its way to the quorum.
    pub(super) looks_overtake: bool,
    pub(super) mode: Mode,
    pub(super) version: ServerVersion,
    pub(super) allows_batches: bool,
    /// Messages between two flow acks, at most; the real server's are 500.
    pub(super) flow_max: u64,
    /// A flow ack that falls due with a commit is sent, and the end of the batch after it.
    pub(super) acks_commits: bool,
    /// A batch is forgotten after it; the real server's default is 10 s.
    pub(super) batch_idle_max: Micros,
    /// One way, at least and at most.
    pub(super) latency: (Micros, Micros),
    /// What is still in a pipe that the client has left arrives, if at all, within this. It is well below the duplicate window:
    /// against what comes later no id helps.
    pub(super) ghost_max: Micros,
    /// How long the client takes to look at what has come.
    pub(super) turn_max: Micros,
    pub(super) window_events: usize,
    pub(super) window_bytes: usize,
    pub(super) ack_timeout: Micros,
}

/// What is published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) producers: usize,
    pub(super) subjects: usize,
    /// Where reports of what was lost go.
    pub(super) report_subject: usize,
    pub(super) events: u64,
    /// Events that a producer's ring has room for.
    pub(super) ring_events: usize,
    pub(super) event_bytes_max: u64,
    /// They are offered until then; before it and after it there is silence.
    pub(super) until: Micros,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) at: Micros,
    pub(super) kind: Kind,
    pub(super) lasts: Micros,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:literal,)+) => {
        /// What can break.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind { $($(#[doc = $doc])+ $kind,)+ }

        impl Kind {
            pub(super) const ALL: &[Self] = &[$(Self::$kind,)+];

            /// As on the command line.
            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }
        }
    };
}

kinds! {
    /// The connection is cut, at any byte of either direction.
    Cut "cut",
    /// No connection can be made.
    Refuse "refuse",
    /// Nothing arrives at the server.
    HoleUp "hole-up",
    /// Nothing arrives at the client.
    HoleDown "hole-down",
    /// Nothing arrives anywhere.
    Hole "hole",
    /// Everything takes longer.
    Slow "slow",
    /// Answers get lost on their way.
    AnswersLost "answers-lost",
    /// Answers arrive twice.
    AnswersDoubled "answers-doubled",
    /// Answers overtake one another.
    AnswersShuffled "answers-shuffled",
    /// Messages get lost on their way to the leader, which the connection does not notice.
    Swallow "swallow",
    /// The server is stopped and started again.
    Restart "restart",
    /// The server loses power, and what was on no disk.
    PowerLoss "power-loss",
    /// The stream gets another leader.
    Elect "elect",
    /// JetStream is off.
    Off "off",
    /// The stream is deleted, and made again later.
    Delete "delete",
    /// The stream is full.
    Full "full",
    /// A limit of the stream, or a consumer, removes the oldest messages.
    Trim "trim",
    /// The stream's configuration changes: whether it allows batches.
    Batches "batches",
    /// The stream's configuration changes: some subjects are not taken.
    Uncover "uncover",
    /// The stream's configuration changes: it takes small messages only.
    Shrink "shrink",
    /// Messages are refused with any of the errors in the list.
    Errors "errors",
    /// Publishing to a subject is not permitted.
    Deny "deny",
    /// The client's process is stopped, and goes on later.
    Pause "pause",
    /// The client's process ends, and another one starts.
    Crash "crash",
    /// A subject has as many messages as it may have.
    SubjectFull "subject-full",
    /// Messages to a subject are refused with an error that concerns only them, or that nobody knows.
    SubjectErrors "subject-errors",
    /// Nobody answers messages to a subject, though the stream takes it.
    SubjectUnheard "subject-unheard",
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let kind = Self::ALL.iter().find(|kind| kind.name() == name);
        kind.copied().ok_or_else(|| format!("no fault is called {name:?}"))
    }
}

/// Faults of one kind in a run, at most.
const FAULTS_MAX: u64 = 6;

impl Plan {
    /// What `seed` draws. Only faults of these kinds, if they are given.
    pub(super) fn draw(seed: u64, only: Option<&[Kind]>) -> Self {
        let mut random = Random::new(seed, 1);
        // Longer than the duplicate window.
        let is_long = random.one_in(8);
        let load = Load::draw(&mut random, is_long);
        let world = World::draw(&mut random);
        let heals_at = load.until + random.time(MILLISECOND, 5 * SECOND);
        let (stays_slow, gives_up) = (random.one_in(2), random.one_in(8));
        // Of all kinds a fifth, on average; of some worlds nearly all, and of some none.
        let one_in = random.pick(&[2, 4, 6, 12, 1000]);
        let stays_refused = Random::new(seed, 99).one_in(2);
        let mut plan =
            Self { seed, world, load, faults: Vec::new(), heals_at, stays_slow, stays_refused, gives_up };
        for (part, &kind) in Kind::ALL.iter().enumerate() {
            let mut random = Random::new(seed, 100 + part as u64);
            let is_wanted = only.is_none_or(|only| only.contains(&kind));
            if random.one_in(one_in) && is_wanted {
                plan.add(kind, &mut random, if is_long { 200 * SECOND } else { 10 * SECOND });
            }
        }
        limits::respect(&mut plan);
        plan.faults.sort_by_key(|fault| fault.at);
        plan
    }

    fn add(&mut self, kind: Kind, random: &mut Random, longest: Micros) {
        let longest = random.time(10 * MILLISECOND, longest);
        for _ in 0..random.between(1, FAULTS_MAX) {
            let (at, lasts) = (random.below(self.heals_at), random.time(MILLISECOND, longest));
            self.faults.push(Fault { at, kind, lasts });
        }
    }

    /// Whether it is a refusal that concerns a subject.
    pub(super) fn is_of_subject(kind: Kind) -> bool {
        matches!(kind, Kind::SubjectFull | Kind::SubjectErrors | Kind::SubjectUnheard)
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.faults.iter().any(|fault| fault.kind == kind)
    }

    pub(super) fn leave_out(&mut self, kinds: &[Kind]) {
        self.faults.retain(|fault| !kinds.contains(&fault.kind));
    }
}

impl World {
    fn draw(random: &mut Random) -> Self {
        let duplicate_window = random.pick(&[60, 120]) * SECOND;
        let nearest = random.time(20, 50 * MILLISECOND);
        let window_events = random.pick(&[1, 2, 3, 8, 20, 60]);
        let mode = random.pick(&[Mode::Auto, Mode::Auto, Mode::Auto, Mode::Auto, Mode::Fast, Mode::Async]);
        Self {
            replicas: random.pick(&[1, 3]),
            duplicate_window,
            commit_max: random.time(100, 100 * MILLISECOND),
            mode,
            version: random.pick(&[
                ServerVersion(2, 15, 1),
                ServerVersion(2, 15, 1),
                ServerVersion(2, 10, 26),
            ]),
            allows_batches: mode == Mode::Fast || !random.one_in(4),
            looks_overtake: true,
            acks_commits: true,
            flow_max: random.pick(&[1, 2, 5, 20, 500]),
            batch_idle_max: random.pick(&[2, 10, 10]) * SECOND,
            latency: (nearest, nearest + random.time(1, 2 * nearest)),
            ghost_max: random.time(MILLISECOND, duplicate_window / 8),
            turn_max: random.time(1, 2 * MILLISECOND),
            window_events,
            window_bytes: if random.one_in(3) { 600 } else { 1 << 20 },
            ack_timeout: random.time(500 * MILLISECOND, 5 * SECOND),
        }
    }
}

impl Load {
    fn draw(random: &mut Random, is_long: bool) -> Self {
        let until = if is_long { (60 * SECOND, 300 * SECOND) } else { (10 * MILLISECOND, 20 * SECOND) };
        Self {
            producers: random.pick(&[1, 1, 2, 3]),
            subjects: 3,
            report_subject: random.clone().pick(&[0, 1, 2]),
            events: random.between(1, random.clone().pick(&[10, 40, 120])),
            ring_events: random.pick(&[2, 8, 50]),
            event_bytes_max: random.pick(&[8, 100]),
            until: random.time(until.0, until.1),
        }
    }
}
