//! The faults, one a row: what is done, for how long, how it is healed, and what may come of it.
//!
//! A cycle is a list of acts, each with the time for which the load goes on after it. It ends healed: recovery is measured from
//! its end. `..ONE_SERVER`, `..NETWORK` and `..CLUSTER` are what a row does not say.

use std::time::Duration;

use jetring::Reason;

use crate::outcome::Flaw;
use crate::proxy::{End, Link, Place, Way};
use crate::stage::Act;

/// A way of publishing, by its name in the configuration.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    /// The oldest server that it works with.
    since: [u32; 3],
    /// The stream must allow fast-ingest batches.
    pub(crate) needs_batches: bool,
}

pub(crate) const ENGINES: &[Engine] = &[
    Engine { name: "async", since: [2, 10, 0], needs_batches: false },
    Engine { name: "fast", since: [2, 14, 3], needs_batches: true },
];

impl Engine {
    pub(crate) fn runs_on(&self, version: &str) -> bool {
        let numbers: Vec<u32> = version.split('.').map(|number| number.parse().expect("a version")).collect();
        numbers[..] >= self.since[..]
    }
}

/// A row.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) cycle: &'static [(Act, Duration)],
    /// How often the cycle runs, with calm between.
    pub(crate) times: u32,
    /// Copies of the stream, each on a server of its own: 1 or 3.
    pub(crate) replicas: usize,
    /// Of the server, if there is one only.
    pub(crate) config: &'static str,
    /// Versions of nats-server, in the whole matrix and in the short one.
    pub(crate) versions: &'static [&'static str],
    pub(crate) short: &'static [&'static str],
    pub(crate) threads: u64,
    /// Events of each thread.
    pub(crate) per_second: u64,
    pub(crate) ack_timeout: Duration,
    pub(crate) duplicate_window: Duration,
    /// Messages that the stream takes at first; -1: as many as come.
    pub(crate) limit: i64,
    /// The same of each subject.
    pub(crate) subject_limit: i64,
    /// Whether the bus must have had to try again or to connect again.
    pub(crate) is_felt: bool,
    /// What must come of it beside stored events, because the fault is of that kind.
    pub(crate) required: &'static [Flaw],
    /// What may come of it.
    pub(crate) allowed: &'static [Flaw],
    /// What may come of it where messages are sent one by one: in a batch nothing is stored behind a gap.
    pub(crate) allowed_one_by_one: &'static [Flaw],
}

impl Fault {
    /// Whether connections must go through relays.
    pub(crate) fn is_of_the_network(&self) -> bool {
        let is = |act: &Act| {
            matches!(act, Act::Link(_) | Act::LinkToLeader(_) | Act::Cut(_) | Act::CutEverywhere { .. })
        };
        self.cycle.iter().any(|(act, _)| is(act))
    }

    pub(crate) fn deletes_the_stream(&self) -> bool {
        self.cycle.iter().any(|(act, _)| matches!(act, Act::DeleteStream))
    }
}

const V2_10: &str = "2.10.26";
const V2_11: &str = "2.11.11";
const V2_12: &str = "2.12.8";
const V2_14: &str = "2.14.6";
const V2_15: &str = "2.15.1";
const ALL: &[&str] = &[V2_10, V2_11, V2_12, V2_14, V2_15];
const ENDS: &[&str] = &[V2_10, V2_15];

const NONE: Duration = Duration::ZERO;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const ONE_SERVER: Fault = Fault {
    name: "",
    cycle: &[],
    times: 1,
    replicas: 1,
    config: "",
    versions: ALL,
    short: &[],
    threads: 3,
    per_second: 500,
    ack_timeout: s(5),
    duplicate_window: s(120),
    limit: -1,
    subject_limit: -1,
    is_felt: true,
    required: &[],
    allowed: &[],
    allowed_one_by_one: &[],
};

/// The smallest `ack_timeout` that a busy machine does not miss by itself.
const NETWORK: Fault = Fault { ack_timeout: ms(700), ..ONE_SERVER };

/// Recovery from a cut is a matter of milliseconds, so that hundreds of them are made; fewer events make it a test of the cuts.
const EVERYWHERE: Fault = Fault { per_second: 200, versions: &[V2_14, V2_15], ..NETWORK };

const CLUSTER: Fault = Fault {
    replicas: 3,
    versions: &[V2_10, V2_12, V2_14, V2_15],
    per_second: 300,
    // A leader that goes may swallow an event and leave a later one to the next leader. It is declared then, and not put behind.
    allowed_one_by_one: &[Flaw::Dropped(Reason::Rejected)],
    ..ONE_SERVER
};

const CLEAR: Act = Act::Link(Link::CLEAR);

/// A link that is clear but in one respect.
const fn up(way: Way) -> Act {
    Act::Link(Link { up: way, ..Link::CLEAR })
}

const fn down(way: Way) -> Act {
    Act::Link(Link { down: way, ..Link::CLEAR })
}

const fn both(way: Way) -> Act {
    Act::Link(Link { up: way, down: way, ..Link::CLEAR })
}

const fn acks(way: Way) -> Act {
    Act::Link(Link { acks: way, ..Link::CLEAR })
}

const REFUSED: Act = Act::Link(Link { refuses: true, ..Link::CLEAR });

/// Nobody may publish events, or everybody. Reports of the bus may always be published.
const DENIED: &str = "authorization { users: [{ user: test, password: test, permissions: { publish: { deny: \"event.1.load\" } } }] }\n\
     no_auth_user: test";
const PERMITTED: &str = "authorization { users: [{ user: test, password: test }] }\nno_auth_user: test";

pub(crate) const FAULTS: &[Fault] = &[
    // ---- the network: connections that end ------------------------------------------------------------------------------
    Fault { name: "cut_by_fin", cycle: &[(Act::Cut(End::Fin), ms(50))], times: 10, ..NETWORK },
    Fault {
        name: "cut_by_rst",
        cycle: &[(Act::Cut(End::Rst), ms(50))],
        times: 10,
        short: &[V2_15],
        ..NETWORK
    },
    // Two or three messages to the byte, and far into the window in steps.
    Fault {
        name: "rst_at_every_byte_of_events",
        cycle: &[(Act::CutEverywhere { place: Place::Events, to: 700, step: 1, end: End::Rst }, NONE)],
        ..EVERYWHERE
    },
    Fault {
        name: "fin_at_every_byte_of_events",
        cycle: &[(Act::CutEverywhere { place: Place::Events, to: 700, step: 1, end: End::Fin }, NONE)],
        ..EVERYWHERE
    },
    Fault {
        name: "rst_at_every_byte_of_acks",
        cycle: &[(Act::CutEverywhere { place: Place::Acks, to: 250, step: 1, end: End::Rst }, NONE)],
        ..EVERYWHERE
    },
    Fault {
        name: "fin_at_every_byte_of_acks",
        cycle: &[(Act::CutEverywhere { place: Place::Acks, to: 250, step: 1, end: End::Fin }, NONE)],
        ..EVERYWHERE
    },
    Fault {
        name: "rst_throughout_the_window",
        cycle: &[(Act::CutEverywhere { place: Place::Events, to: 40_000, step: 613, end: End::Rst }, NONE)],
        short: &[V2_15],
        ..NETWORK
    },
    Fault {
        name: "fin_throughout_the_window",
        cycle: &[(Act::CutEverywhere { place: Place::Events, to: 40_000, step: 613, end: End::Fin }, NONE)],
        ..NETWORK
    },
    Fault {
        name: "rst_in_the_greeting",
        cycle: &[
            (Act::CutEverywhere { place: Place::Greeting, to: 900, step: 53, end: End::Rst }, NONE),
            (Act::CutEverywhere { place: Place::Hello, to: 400, step: 29, end: End::Rst }, NONE),
        ],
        versions: ENDS,
        ..NETWORK
    },
    Fault { name: "flapping_link", cycle: &[(REFUSED, ms(200)), (CLEAR, ms(200))], times: 20, ..NETWORK },
    // ---- the network: connections that go silent ------------------------------------------------------------------------
    Fault { name: "black_hole", cycle: &[(both(Way::Lost), ms(2500)), (CLEAR, NONE)], ..NETWORK },
    Fault { name: "black_hole_to_server", cycle: &[(up(Way::Lost), ms(2500)), (CLEAR, NONE)], ..NETWORK },
    Fault {
        name: "black_hole_to_client",
        cycle: &[(down(Way::Lost), ms(2500)), (CLEAR, NONE)],
        short: &[V2_10, V2_15],
        ..NETWORK
    },
    Fault { name: "stalled_and_released", cycle: &[(both(Way::Held), ms(2500)), (CLEAR, NONE)], ..NETWORK },
    Fault { name: "server_does_not_read", cycle: &[(up(Way::Stuck), ms(2500)), (CLEAR, NONE)], ..NETWORK },
    // ---- the network: acknowledgements ----------------------------------------------------------------------------------
    Fault {
        name: "acks_lost",
        cycle: &[(acks(Way::Lost), ms(2500)), (CLEAR, NONE)],
        short: &[V2_15],
        ..NETWORK
    },
    Fault {
        name: "acks_held_past_their_time",
        cycle: &[(acks(Way::Held), ms(2500)), (CLEAR, NONE)],
        short: &[V2_15],
        times: 2,
        ..NETWORK
    },
    Fault {
        name: "acks_held_and_released",
        cycle: &[(acks(Way::Held), ms(2500)), (CLEAR, NONE)],
        times: 2,
        is_felt: false,
        ..ONE_SERVER
    },
    Fault {
        name: "acks_doubled_and_stale",
        cycle: &[(acks(Way::Doubled), s(3)), (Act::Cut(End::Rst), s(2)), (CLEAR, NONE)],
        short: &[V2_15],
        ..NETWORK
    },
    // ---- the network: slow ----------------------------------------------------------------------------------------------
    Fault {
        name: "late_by_50_ms",
        cycle: &[(both(Way::Late(ms(50))), s(3)), (CLEAR, NONE)],
        is_felt: false,
        versions: ENDS,
        ..NETWORK
    },
    Fault {
        name: "acks_late_past_their_time",
        cycle: &[(acks(Way::Late(s(1))), s(6)), (CLEAR, NONE)],
        ..NETWORK
    },
    Fault {
        name: "late_by_5_s",
        cycle: &[(both(Way::Late(s(5))), s(15)), (CLEAR, NONE)],
        is_felt: false,
        ..ONE_SERVER
    },
    Fault {
        name: "one_byte_at_a_time",
        cycle: &[(both(Way::Sliced), s(3)), (CLEAR, NONE)],
        per_second: 50,
        is_felt: false,
        versions: ENDS,
        short: &[V2_15],
        ..ONE_SERVER
    },
    // ---- the server -----------------------------------------------------------------------------------------------------
    Fault {
        name: "server_killed",
        cycle: &[(Act::KillLeader, ms(2500)), (Act::Restart, NONE)],
        times: 3,
        short: &[V2_10, V2_15],
        ..ONE_SERVER
    },
    Fault {
        name: "server_frozen_for_20_s",
        cycle: &[(Act::FreezeLeader, s(20)), (Act::Thaw, NONE)],
        ..ONE_SERVER
    },
    Fault {
        name: "lame_duck",
        cycle: &[(Act::LameDuck, ms(500)), (Act::Restart, NONE)],
        short: &[V2_15],
        ..ONE_SERVER
    },
    Fault {
        name: "max_payload_lowered",
        cycle: &[
            (Act::PublishLarge(20), ms(300)),
            (Act::Reload("max_payload: 4096"), ms(300)),
            (Act::PublishLarge(20), ms(1000)),
            (Act::PublishLarge(20), ms(1000)),
            (Act::Reload("max_payload: 1MB"), NONE),
        ],
        required: &[Flaw::Dropped(Reason::TooLarge)],
        // The server tells of the new limit only by ending the connection. What was on its way then is in doubt.
        allowed: &[Flaw::Indeterminate],
        ..ONE_SERVER
    },
    Fault {
        name: "permission_taken",
        cycle: &[(Act::Reload(DENIED), s(2)), (Act::Reload(PERMITTED), NONE)],
        config: PERMITTED,
        is_felt: false,
        required: &[Flaw::Dropped(Reason::Permission)],
        ..ONE_SERVER
    },
    // ---- the stream -----------------------------------------------------------------------------------------------------
    Fault {
        name: "stream_made_again",
        cycle: &[(Act::DeleteStream, s(1)), (Act::CreateStream, NONE)],
        times: 2,
        short: &[V2_15],
        ..ONE_SERVER
    },
    Fault {
        name: "stream_full",
        cycle: &[(Act::Calm, s(3)), (Act::Limit(None), NONE)],
        limit: 2000,
        // What is refused at the moment when there is room again, while the next one is taken.
        allowed: &[Flaw::Dropped(Reason::Rejected)],
        ..ONE_SERVER
    },
    Fault {
        name: "subject_full",
        cycle: &[(Act::Calm, s(3)), (Act::Limit(None), NONE)],
        subject_limit: 2000,
        // What waits above its share of the window, and what is refused at the moment when there is room again.
        allowed: &[Flaw::Dropped(Reason::Rejected)],
        ..ONE_SERVER
    },
    Fault {
        name: "outage_longer_than_the_duplicate_window",
        cycle: &[(acks(Way::Lost), ms(300)), (REFUSED, s(4)), (CLEAR, NONE)],
        duplicate_window: s(1),
        ..NETWORK
    },
    // ---- the cluster ----------------------------------------------------------------------------------------------------
    Fault {
        name: "leader_killed_every_3_s",
        cycle: &[(Act::KillLeader, s(3)), (Act::Restart, NONE)],
        times: 15,
        ..CLUSTER
    },
    Fault { name: "leader_steps_down", cycle: &[(Act::StepDown, ms(500))], times: 15, ..CLUSTER },
    Fault {
        name: "leader_frozen",
        cycle: &[(Act::FreezeLeader, s(12)), (Act::Thaw, NONE)],
        times: 2,
        ..CLUSTER
    },
    Fault {
        name: "client_cut_off_from_leader",
        cycle: &[
            (Act::LinkToLeader(Link { up: Way::Lost, down: Way::Lost, ..Link::CLEAR }), s(8)),
            (Act::LinkToLeader(Link::CLEAR), NONE),
        ],
        ..CLUSTER
    },
    Fault { name: "rolling_upgrade", cycle: &[(Act::Upgrade(V2_15), NONE)], versions: &[V2_12], ..CLUSTER },
];
