//! One run: a client, a network and a server, and what breaks between them.
//!
//! Whatever is due next happens next, and time jumps there. Nothing else decides what happens, and all chance comes from the
//! seed; so a seed is a run, and the same run each time.
//!
//! ```text
//!   0                              load.until     heals_at                 settled                 the end
//!   ├──── events, and faults ──────────┼── faults ───┼──── progress ───────────┼──── one more event ───┤
//!                                                    │    within PATIENCE      │      from each producer,
//!                                      what the promise needs is mended,       │      which must be acked
//!                                      and the rest stays broken               ghosts arrive
//! ```

use super::Micros;
use super::client::Client;
use super::judge::{Judge, Tally};
use super::limits;
use super::network::{Arrival, Network};
use super::plan::{Fault, Kind, Plan};
use super::random::Random;
use super::server::{OF_SUBJECTS, Server};
use super::trace::{Trace, say};
use super::wire::EventId;
use crate::config::Mode;
use std::time::Instant;

/// After it is healed, the client settles an event, and then another one, each within this.
const PATIENCE: Micros = 60_000_000;

/// What the client believes of denied and uncovered subjects it believes for ten seconds.
const BELIEF: Micros = 11_000_000;

/// No run takes more steps; one that would does not come to an end by itself.
const STEPS_MAX: u64 = 200_000;

pub(super) struct Run {
    plan: Plan,
    now: Micros,
    steps: u64,
    random: Random,
    client: Option<Client>,
    network: Network,
    server: Server,
    judge: Judge,
    trace: Trace,
    origin: Instant,
    /// Events not offered yet.
    to_offer: u64,
    offer_at: Micros,
    /// Faults that have begun.
    begun: usize,
    /// What ends, and when.
    mending: Vec<(Micros, Kind)>,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    pub(super) tally: Tally,
    pub(super) steps: u64,
}

impl Run {
    pub(super) fn new(plan: Plan, origin: Instant, trace: Trace) -> Self {
        let mut judge = Judge::default();
        let client = Client::start(0, origin, &plan, &mut judge);
        Self {
            now: 0,
            steps: 0,
            random: Random::new(plan.seed, 2),
            client: Some(client),
            network: Network::new(&plan.world, plan.seed),
            server: Server::new(plan.world, plan.seed),
            judge,
            trace,
            origin,
            to_offer: plan.load.events,
            offer_at: 0,
            begun: 0,
            mending: Vec::new(),
            plan,
        }
    }

    /// Runs to the end. Panics if a promise is broken.
    pub(super) fn run(mut self) -> Summary {
        self.run_until(self.plan.heals_at, |_| false);
        if self.plan.gives_up {
            self.end_without_healing();
        } else {
            self.heal();
            self.settle();
            let rested = self.now.max(self.plan.heals_at + BELIEF);
            self.run_until(rested, |_| false);
            let probes = self.probe();
            self.settle();
            for probe in probes {
                assert!(
                    self.judge.is_acked(probe),
                    "{probe} was offered when all was well, and is not acked"
                );
            }
        }
        self.run_until(self.now + PATIENCE, |run| run.network.is_quiet());
        Summary { tally: self.judge.tally, steps: self.steps }
    }

    // ---- the clockwork -------------------------------------------------------------------------------------------------------

    /// Lets happen what is due, until the time has come or `is_done`.
    fn run_until(&mut self, end: Micros, is_done: impl Fn(&Self) -> bool) {
        while !is_done(self) {
            let next = self.next_due().max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "no end: {STEPS_MAX} steps in {} µs", self.now);
            self.now = next;
            self.step();
        }
    }

    /// Runs until nothing is open, which must come nearer at least once in [`PATIENCE`].
    fn settle(&mut self) {
        while !self.is_settled() {
            let held = self.held();
            self.run_until(self.now + PATIENCE, |run| run.is_settled() || run.held() < held);
            assert!(
                self.is_settled() || self.held() < held,
                "no progress: {} events are held, and none has met its fate for {} s",
                self.held(),
                PATIENCE / 1_000_000
            );
        }
    }

    fn next_due(&self) -> Micros {
        let load = if self.to_offer > 0 { Some(self.offer_at) } else { None };
        let fault = self.plan.faults.get(self.begun).map(|fault| fault.at);
        let mended = self.mending.iter().map(|(at, _)| *at).min();
        let client = self.client.as_ref().map(Client::next_due);
        [load, fault, mended, client, self.network.next_due(), self.server.next_due()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Micros::MAX)
    }

    /// The one thing that is due first. Of two at the same time the order is fixed; that it varies is for the times to see to.
    fn step(&mut self) {
        let now = self.now;
        if self.plan.faults.get(self.begun).is_some_and(|fault| fault.at <= now) {
            let fault = self.plan.faults[self.begun];
            self.begun += 1;
            self.break_down(fault);
        } else if let Some(at) = self.mending.iter().position(|(at, _)| *at <= now) {
            let (_, kind) = self.mending.swap_remove(at);
            self.mend(kind);
        } else if self.server.next_due().is_some_and(|due| due <= now) {
            self.server.handle_time(now);
        } else if let Some(arrival) = self.network.arrive(now, self.server.is_up) {
            self.arrive(arrival);
        } else if self.to_offer > 0 && self.offer_at <= now {
            self.offer();
        } else if let Some(client) = self.client.as_mut().filter(|client| client.next_due() <= now) {
            client.turn(now, &mut self.network, &mut self.judge, self.trace);
        }
        self.deliver_effects();
    }

    fn arrive(&mut self, arrival: Arrival) {
        let now = self.now;
        match (arrival, &mut self.client) {
            (Arrival::AtServer(request), _) => {
                say!(self.trace, now, "server: gets {request:?}");
                self.server.receive(now, request);
            }
            (Arrival::AtClient(answer), Some(client)) => client.answered(now, answer),
            (Arrival::Notice, Some(client)) => client.disconnected(now, &mut self.network),
            (Arrival::Attempt { connection }, Some(client)) => client.connected(now, connection),
            (Arrival::Detoured | Arrival::AtClient(_) | Arrival::Notice | Arrival::Attempt { .. }, _) => {}
        }
    }

    fn deliver_effects(&mut self) {
        let now = self.now;
        for untaken in self.server.effects.untaken.drain(..) {
            self.network.tear(untaken.connection, untaken.is_told);
        }
        for lost in self.server.effects.lost.drain(..) {
            say!(self.trace, now, "server: loses {} at {}", lost.id, lost.sequence);
            self.judge.lost(lost);
        }
        for stored in self.server.effects.stored.drain(..) {
            say!(self.trace, now, "server: stores {} at {}", stored.id, stored.sequence);
            self.judge.stored(stored);
        }
        for answer in self.server.effects.answers.drain(..) {
            say!(self.trace, now, "server: answers {answer:?}");
            self.network.answer(now, answer);
        }
    }

    // ---- the load ------------------------------------------------------------------------------------------------------------

    fn offer(&mut self) {
        let load = self.plan.load;
        let mean = load.until / load.events;
        // In bursts, as real ones come: most at once, and then a longer pause.
        self.offer_at += if self.random.one_in(3) { self.random.below(6 * mean + 1) } else { 0 };
        self.to_offer -= 1;
        let producer = self.random.below(load.producers as u64) as usize;
        let subject = self.random.below(load.subjects as u64) as usize;
        let bytes = self.random.between(1, load.event_bytes_max) as usize;
        if let Some(client) = &mut self.client {
            let offered = client.offer(producer, subject, bytes, self.now, &mut self.judge);
            say!(self.trace, self.now, "thread {producer}: offers {offered:?}");
        }
    }

    fn probe(&mut self) -> Vec<EventId> {
        let Some(client) = &mut self.client else { return Vec::new() };
        let offer = |producer| client.offer(producer, 0, 1, self.now, &mut self.judge);
        let probes: Vec<_> = (0..self.plan.load.producers).filter_map(offer).collect();
        assert!(probes.len() == self.plan.load.producers, "rings have no room though all is settled");
        probes
    }

    fn held(&self) -> u64 {
        self.client.as_ref().map_or(0, |client| client.held_beside(&self.refused_subjects()))
    }

    fn is_settled(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.is_idle_beside(&self.refused_subjects()))
    }

    /// Subjects that take nothing. Nobody waits for them.
    fn refused_subjects(&self) -> Vec<usize> {
        let full =
            self.server.stream.as_ref().and_then(|stream| stream.of_subject_max).map(|(subject, _)| subject);
        let refused = self.server.refused.map(|(subject, _)| subject);
        [full, refused, self.server.unheard].into_iter().flatten().collect()
    }

    // ---- what breaks ---------------------------------------------------------------------------------------------------------

    fn break_down(&mut self, fault: Fault) {
        let (now, until) = (self.now, self.now + fault.lasts);
        say!(self.trace, now, "fault: {} for {} µs", fault.kind, fault.lasts);
        let Self { network, server, random, .. } = self;
        let broken = &mut network.broken;
        match fault.kind {
            Kind::Cut => network.cut(now),
            Kind::Refuse => broken.refuses = broken.refuses.max(until),
            Kind::HoleUp => network.dig_hole(now, until, true, false),
            Kind::HoleDown => network.dig_hole(now, until, false, true),
            Kind::Hole => network.dig_hole(now, until, true, true),
            Kind::Slow => broken.slow = broken.slow.max(until),
            Kind::AnswersLost => broken.loses_answers = broken.loses_answers.max(until),
            Kind::AnswersDoubled => broken.doubles_answers = broken.doubles_answers.max(until),
            Kind::AnswersShuffled => broken.shuffles_answers = broken.shuffles_answers.max(until),
            Kind::Swallow => server.swallows_one_in = Some(random.between(1, 8)),
            Kind::Restart | Kind::PowerLoss => {
                server.stop(now, fault.kind == Kind::PowerLoss);
                network.reset(now);
            }
            Kind::Elect => server.elect(now, until),
            Kind::Off => server.has_jetstream = false,
            Kind::Delete => server.stream = None,
            Kind::Full => server.fill(),
            Kind::Trim => server.trim(),
            Kind::Batches => server.change_stream(|stream| stream.allows_batches ^= true),
            Kind::Uncover => server.change_stream(|stream| stream.subjects = 1),
            Kind::Shrink => server.change_stream(|stream| stream.message_bytes_max = 150),
            Kind::Errors => server.refuses_one_in = Some(random.between(1, 8)),
            Kind::Deny => server.denied = Some(1),
            Kind::Pause => self.pause(until),
            Kind::Crash => self.crash(),
            Kind::SubjectFull => {
                let more = random.below(4);
                server
                    .change_stream(|stream| stream.of_subject_max = Some((1, stream.messages_of(1) + more)));
            }
            Kind::SubjectErrors => server.refused = Some((2, random.pick(OF_SUBJECTS))),
            Kind::SubjectUnheard => server.unheard = Some(1),
        }
        self.mending.push((until, fault.kind));
    }

    fn mend(&mut self, kind: Kind) {
        say!(self.trace, self.now, "mended: {kind}");
        if limits::loses_ghosts(kind) {
            self.network.lose_ghosts();
        }
        let server = &mut self.server;
        match kind {
            Kind::Swallow => server.swallows_one_in = None,
            Kind::Restart | Kind::PowerLoss => server.is_up = true,
            Kind::Off => server.has_jetstream = true,
            Kind::Delete if server.stream.is_none() => server.create_stream(),
            Kind::Full => server.change_stream(|stream| stream.messages_max = u64::MAX),
            Kind::Uncover => server.change_stream(|stream| stream.subjects = usize::MAX),
            Kind::Shrink => server.change_stream(|stream| stream.message_bytes_max = u64::MAX),
            Kind::Errors => server.refuses_one_in = None,
            Kind::Deny => server.denied = None,
            Kind::SubjectFull => server.change_stream(|stream| stream.of_subject_max = None),
            Kind::SubjectErrors => server.refused = None,
            Kind::SubjectUnheard => server.unheard = None,
            Kind::Crash if self.client.is_none() => {
                self.client = Some(Client::start(self.now, self.origin, &self.plan, &mut self.judge));
            }
            // Everything else ends by its time, or does not end.
            _ => {}
        }
    }

    fn pause(&mut self, until: Micros) {
        if let Some(client) = &mut self.client {
            client.pause(until);
        }
    }

    fn crash(&mut self) {
        if let Some(client) = self.client.take() {
            self.judge.crashed(client.process(), client.held());
            self.network.leave(self.now);
        }
    }

    /// Mends what the promise needs.
    fn heal(&mut self) {
        say!(self.trace, self.now, "healed");
        self.network.heal(self.now, self.plan.stays_slow);
        for (_, kind) in std::mem::take(&mut self.mending) {
            // Nobody makes room, and the others must be delivered all the same.
            if !(self.plan.stays_refused && Plan::is_of_subject(kind)) {
                self.mend(kind);
            }
        }
        self.server.end_election(self.now);
        if self.plan.world.mode == Mode::Fast {
            // Who insists on batches gets no further without.
            self.server.change_stream(|stream| stream.allows_batches = true);
        }
        self.to_offer = 0;
        if let Some(client) = &mut self.client {
            client.resume();
        }
        self.deliver_effects();
    }

    fn end_without_healing(&mut self) {
        // A bus that is closed takes nothing more.
        self.to_offer = 0;
        if let Some(client) = &mut self.client {
            client.give_up(self.now, &mut self.judge, self.trace);
        }
    }
}
