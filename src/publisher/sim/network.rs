//! The network: connections, each with a pipe for either direction.
//!
//! A pipe keeps what was written in order, as TCP does, and gives a frame out only when all of its bytes have arrived. It can be *cut* at
//! any byte: what is not whole before the cut never arrives. It can be *stalled*: everything waits until the time is over,
//! and then arrives.
//!
//! The two ends of a connection live apart. A client that has left it does not take back what is in the pipe, so the server may
//! read it when the client has long got another connection: *ghosts*. And a client may learn of a cut long after it.

use super::Micros;
use super::limits;
use super::plan::World;
use super::random::Random;
use super::wire::{Answer, Request, Tag};
use std::collections::VecDeque;

/// How long connecting to one address may take; as in `nats.rs`.
const CONNECT_TIMEOUT: Micros = 2_000_000;

/// Two pings of the client's without an answer, and the time to the first of them; as in `nats.rs`.
const SILENCE: (Micros, Micros) = (4_000_000, 6_000_000);

/// How long it takes at most until a client learns that its connection is gone, if somebody says so.
const NOTICE_MAX: Micros = 3_000_000;

/// A slow network adds up to so much to each frame's way.
const SLOWNESS: Micros = 5_000_000;

/// One that stays slow must leave the client's time limits some room.
const BEARABLE: Micros = 50_000;

#[derive(Debug)]
pub(super) struct Network {
    random: Random,
    latency: (Micros, Micros),
    ghost_max: Micros,
    slowness: Micros,
    connections: Vec<Connection>,
    made: usize,
    attempt: Option<Micros>,
    /// Answers that take a way of their own.
    detours: Vec<(Micros, Answer)>,
    /// Until when what is broken stays broken.
    pub(super) broken: Broken,
}

#[derive(Debug, Default)]
pub(super) struct Broken {
    pub(super) refuses: Micros,
    pub(super) hole_up: Micros,
    pub(super) hole_down: Micros,
    pub(super) slow: Micros,
    pub(super) loses_answers: Micros,
    pub(super) doubles_answers: Micros,
    pub(super) shuffles_answers: Micros,
}

#[derive(Debug)]
struct Connection {
    number: usize,
    up: Pipe<Request>,
    down: Pipe<Answer>,
    /// The client listens on it.
    has_client: bool,
    /// A message out of the middle was lost without a word; see [`limits::TORN_LEAVE_NO_GHOSTS`].
    is_torn: bool,
    /// The client will be told then that it is gone.
    notice_at: Option<Micros>,
}

/// Something arrives.
#[derive(Debug)]
pub(super) enum Arrival {
    AtServer(Request),
    AtClient(Answer),
    /// The client is told that its connection is gone.
    Notice,
    /// An attempt to connect has ended.
    Attempt {
        connection: Option<usize>,
    },
    /// An answer has come to the end of its detour, and goes on with the others.
    Detoured,
}

impl Network {
    pub(super) fn new(world: &World, seed: u64) -> Self {
        Self {
            random: Random::new(seed, 4),
            latency: world.latency,
            ghost_max: world.ghost_max,
            slowness: SLOWNESS,
            connections: Vec::new(),
            made: 0,
            attempt: None,
            detours: Vec::new(),
            broken: Broken::default(),
        }
    }

    // ---- what the two ends do ------------------------------------------------------------------------------------------------

    pub(super) fn connect(&mut self, now: Micros) {
        let is_silent = now < self.broken.hole_up.max(self.broken.hole_down);
        let takes = if is_silent { CONNECT_TIMEOUT } else { self.way(now) + self.way(now) };
        self.attempt = Some(now + takes);
    }

    pub(super) fn send(&mut self, now: Micros, connection: usize, request: Request) {
        let due = now + self.way(now);
        if let Some(connection) = self.find(connection) {
            connection.up.write(due, request.size(), request);
        }
    }

    pub(super) fn answer(&mut self, now: Micros, answer: Answer) {
        // Of the server's words about nothing that was asked the NATS client forgets some, when they come in a burst.
        if now < self.broken.loses_answers && self.random.one_in(4) {
            return;
        }
        if answer.to.tag == Tag::None {
            // Said by the server that the client is connected to, and not by the stream's leader somewhere else.
            return self.write_down(now, answer);
        }
        if now < self.broken.doubles_answers && self.random.one_in(3) {
            let late = now + self.random.time(1, 1_000_000);
            self.detours.push((late, answer.clone()));
        }
        if now < self.broken.shuffles_answers && self.random.one_in(3) {
            let late = now + self.random.time(1, 1_000_000);
            self.detours.push((late, answer));
            return;
        }
        self.write_down(now, answer);
    }

    /// The client leaves its connection. What it has sent may still arrive, for a while.
    pub(super) fn leave(&mut self, now: Micros) {
        self.attempt = None;
        let Some(connection) = self.connections.iter_mut().find(|connection| connection.has_client) else {
            return;
        };
        connection.has_client = false;
        connection.notice_at = None;
        connection.down.clear();
        if connection.is_torn {
            connection.up.clear();
        } else if self.random.one_in(2) {
            connection.up.cut(&mut self.random);
        } else {
            connection.up.stall(now + self.random.time(1, self.ghost_max.max(1)));
        }
        connection.up.end(now + self.ghost_max);
    }

    /// A single message that came through this connection was not taken, and others may be. Who still listens may be told.
    pub(super) fn tear(&mut self, number: usize, is_told: bool) {
        let Some(connection) = self.find(number) else { return };
        if !limits::TORN_LEAVE_NO_GHOSTS {
            return;
        }
        connection.is_torn |= !is_told;
        if !connection.has_client {
            connection.up.clear();
        }
    }

    /// What was sent through connections that the client has left does not arrive any more.
    pub(super) fn lose_ghosts(&mut self) {
        self.connections.iter_mut().filter(|one| !one.has_client).for_each(|one| one.up.clear());
    }

    // ---- what arrives ----------------------------------------------------------------------------------------------------------

    pub(super) fn next_due(&self) -> Option<Micros> {
        let pipes =
            self.connections.iter().flat_map(|one| [one.up.next_due(), one.down.next_due(), one.notice_at]);
        let detours = self.detours.iter().map(|(due, _)| Some(*due));
        pipes.chain(detours).chain([self.attempt]).flatten().min()
    }

    /// The next thing that is due by now. The server is asked whether it takes connections.
    pub(super) fn arrive(&mut self, now: Micros, server_is_up: bool) -> Option<Arrival> {
        if self.attempt.is_some_and(|due| due <= now) {
            self.attempt = None;
            return Some(Arrival::Attempt { connection: self.accept(now, server_is_up) });
        }
        if let Some(at) = self.detours.iter().position(|(due, _)| *due <= now) {
            let (_, answer) = self.detours.swap_remove(at);
            self.write_down(now, answer);
            return Some(Arrival::Detoured);
        }
        let is_due = |due: Option<Micros>| due.is_some_and(|due| due <= now);
        let at = self.connections.iter().position(|one| {
            is_due(one.up.next_due()) || is_due(one.down.next_due()) || is_due(one.notice_at)
        })?;
        let one = &mut self.connections[at];
        let arrival = if is_due(one.up.next_due()) {
            one.up.read().map(Arrival::AtServer)
        } else if is_due(one.down.next_due()) {
            one.down.read().map(Arrival::AtClient)
        } else {
            one.notice_at = None;
            Some(Arrival::Notice)
        };
        if !one.has_client && one.up.is_empty() {
            self.connections.swap_remove(at);
        }
        arrival
    }

    /// Nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.connections.iter().all(|one| one.up.is_empty() && one.down.is_empty())
    }

    /// Frames that the client has handed over and the server has not read.
    pub(super) fn queued(&self) -> usize {
        let current = self.connections.iter().find(|connection| connection.has_client);
        current.map_or(0, |connection| connection.up.len())
    }

    // ---- what breaks -----------------------------------------------------------------------------------------------------------

    /// Cuts the connection that the client has; it learns of it some time later.
    pub(super) fn cut(&mut self, now: Micros) {
        let notice = now + self.random.time(100, NOTICE_MAX);
        let Some(one) = self.connections.iter_mut().find(|connection| connection.has_client) else { return };
        one.up.cut(&mut self.random);
        one.down.cut(&mut self.random);
        one.notice_at.get_or_insert(notice);
    }

    /// The server's end of all connections is gone.
    pub(super) fn reset(&mut self, now: Micros) {
        let notice = now + self.random.time(100, NOTICE_MAX);
        for one in &mut self.connections {
            one.up.clear();
            one.down.cut(&mut self.random);
            if one.has_client {
                one.notice_at.get_or_insert(notice);
            }
        }
        self.connections.retain(|one| one.has_client);
    }

    pub(super) fn dig_hole(&mut self, now: Micros, until: Micros, up: bool, down: bool) {
        let silence = now + self.random.between(SILENCE.0, SILENCE.1);
        for one in &mut self.connections {
            if up && !one.has_client {
                // Nobody sends it again.
                one.up.clear();
            } else if up {
                one.up.stall(until);
            }
            if down {
                one.down.stall(until);
            }
            if one.has_client && silence < until {
                one.notice_at.get_or_insert(silence);
            }
        }
        let Broken { hole_up, hole_down, .. } = &mut self.broken;
        *hole_up = if up { (*hole_up).max(until) } else { *hole_up };
        *hole_down = if down { (*hole_down).max(until) } else { *hole_down };
    }

    /// Mends everything but what `stays`: slowness, and answers that come twice or late.
    pub(super) fn heal(&mut self, now: Micros, stays: bool) {
        for one in &mut self.connections {
            one.down.unstall();
            if one.has_client {
                one.up.unstall();
            }
        }
        self.slowness = BEARABLE;
        let until = if stays { Micros::MAX } else { now };
        let Broken { slow, doubles_answers, shuffles_answers, .. } = &self.broken;
        let stays = |broken: Micros| if broken > 0 { until } else { 0 };
        self.broken = Broken {
            slow: stays(*slow),
            doubles_answers: stays(*doubles_answers),
            shuffles_answers: stays(*shuffles_answers),
            ..Broken::default()
        };
    }

    // ---- below -----------------------------------------------------------------------------------------------------------------

    fn accept(&mut self, now: Micros, server_is_up: bool) -> Option<usize> {
        let Broken { refuses, hole_up, hole_down, .. } = self.broken;
        if !server_is_up || now < refuses.max(hole_up).max(hole_down) {
            return None;
        }
        self.made += 1;
        self.connections.push(Connection {
            number: self.made,
            up: Pipe::new(),
            down: Pipe::new(),
            has_client: true,
            is_torn: false,
            notice_at: None,
        });
        Some(self.made)
    }

    fn write_down(&mut self, now: Micros, answer: Answer) {
        let due = now + self.way(now);
        // A client that has left has no subscription any more.
        if let Some(one) = self.find(answer.to.connection).filter(|one| one.has_client) {
            one.down.write(due, answer.size(), answer);
        }
    }

    /// How long the next frame is under way.
    fn way(&mut self, now: Micros) -> Micros {
        let (nearest, farthest) = self.latency;
        let slowness = if now < self.broken.slow { self.random.time(1_000, self.slowness) } else { 0 };
        slowness + self.random.between(nearest, farthest)
    }

    fn find(&mut self, number: usize) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.number == number)
    }
}

#[derive(Debug)]
struct Pipe<F> {
    frames: VecDeque<Frame<F>>,
    /// Bytes of the frames that have not arrived.
    bytes: u64,
    /// Nothing arrives before.
    stalled_until: Micros,
    last_due: Micros,
    /// Takes no more.
    is_closed: bool,
}

#[derive(Debug)]
struct Frame<F> {
    due: Micros,
    size: u64,
    content: F,
}

impl<F> Pipe<F> {
    fn new() -> Self {
        Self { frames: VecDeque::new(), bytes: 0, stalled_until: 0, last_due: 0, is_closed: false }
    }

    /// Hands a frame over, to arrive at `due`, or behind the one before it.
    fn write(&mut self, due: Micros, size: u64, content: F) {
        if self.is_closed {
            return;
        }
        self.last_due = self.last_due.max(due);
        self.bytes += size;
        self.frames.push_back(Frame { due: self.last_due, size, content });
    }

    fn next_due(&self) -> Option<Micros> {
        self.frames.front().map(|frame| frame.due.max(self.stalled_until))
    }

    fn read(&mut self) -> Option<F> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.size;
        Some(frame.content)
    }

    fn len(&self) -> usize {
        self.frames.len()
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn stall(&mut self, until: Micros) {
        self.stalled_until = self.stalled_until.max(until);
    }

    fn unstall(&mut self) {
        self.stalled_until = 0;
    }

    /// What has not arrived by then never will.
    fn end(&mut self, by: Micros) {
        self.is_closed = true;
        let in_time = self.frames.iter().take_while(|frame| frame.due.max(self.stalled_until) <= by).count();
        self.keep(in_time);
    }

    /// Of what is under way only some bytes arrive, and nothing that comes later.
    fn cut(&mut self, random: &mut Random) {
        self.is_closed = true;
        let arriving = random.below(self.bytes + 1);
        let mut end = 0;
        let whole = self.frames.iter().take_while(|frame| {
            end += frame.size;
            end <= arriving
        });
        let whole = whole.count();
        self.keep(whole);
    }

    /// Nothing more arrives.
    fn clear(&mut self) {
        self.is_closed = true;
        self.keep(0);
    }

    fn keep(&mut self, frames: usize) {
        self.frames.truncate(frames);
        self.bytes = self.frames.iter().map(|frame| frame.size).sum();
    }
}
