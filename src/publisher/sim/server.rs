//! The model server: one stream, as a publisher sees it.
//!
//! It does what nats-server 2.14.3 and later do, by its sources, ADR-50 and our own trials with 2.15.1; where these leave room,
//! chance decides. What matters here:
//!
//! - A message id is remembered for the stream's duplicate window, also through a restart (it is read back from what is
//!   stored), and for the copies of a message that are still on their way through Raft (error 10158).
//! - One replica stores and acknowledges at once. Three store when a quorum has the message, a little later; a change of
//!   leader loses the last of what was not stored yet, silently, and for a while nobody answers, or the server says that nobody
//!   has subscribed.
//! - A restart of the only replica forgets the batches. With `loses_tail` it also forgets what it had stored last, as after a
//!   power failure: acknowledged before the disk had it.
//!
//! [`Stored`] are told to the judge, who alone remembers everything.

mod batch;
mod errors;

use super::Micros;
use super::plan::World;
use super::random::Random;
use super::wire::{Answer, Body, EventId, Info, Publish, Refusal, Reply, Request, Tag};
use crate::publisher::outgoing::BatchToken;
use batch::{BatchId, Batches};
use bytes::Bytes;
use std::collections::VecDeque;

pub(super) use errors::{GENERATED, OF_SUBJECTS};

/// What came of a step of the server.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) answers: Vec<Answer>,
    pub(super) stored: Vec<Stored>,
    /// Messages that were stored and are no more, newest first.
    pub(super) lost: Vec<Stored>,
    /// Single messages that were not taken.
    pub(super) untaken: Vec<Untaken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Untaken {
    pub(super) connection: usize,
    /// Whether the client is told.
    pub(super) is_told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Which stream of this name.
    pub(super) stream: usize,
    pub(super) sequence: u64,
    pub(super) id: EventId,
}

#[derive(Debug)]
pub(super) struct Server {
    world: World,
    random: Random,
    /// The process runs.
    pub(super) is_up: bool,
    /// JetStream is on.
    pub(super) has_jetstream: bool,
    pub(super) stream: Option<Stream>,
    /// Streams of the name so far.
    streams: usize,
    /// There is no leader until then.
    election: Option<Election>,
    /// One message in so many is refused with an error drawn from the list.
    pub(super) refuses_one_in: Option<u64>,
    /// One message in so many is dropped without a word.
    pub(super) swallows_one_in: Option<u64>,
    /// Publishing to this subject is not permitted.
    pub(super) denied: Option<usize>,
    /// Messages to this subject are refused so.
    pub(super) refused: Option<(usize, Refusal)>,
    /// Nobody answers messages to this subject.
    pub(super) unheard: Option<usize>,
    pub(super) effects: Effects,
}

#[derive(Clone, Copy, Debug)]
struct Election {
    until: Micros,
    /// Says that nobody has subscribed; else says nothing.
    tells: bool,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) number: usize,
    /// It takes the subjects below this number.
    pub(super) subjects: usize,
    pub(super) messages_max: u64,
    pub(super) message_bytes_max: u64,
    /// Messages of this subject, at most.
    pub(super) of_subject_max: Option<(usize, u64)>,
    pub(super) allows_batches: bool,
    /// All that it has ever stored; a message's sequence is its place, from 1.
    messages: Vec<Kept>,
    /// Those before it have been removed.
    first: u64,
    /// Ids of those before it are not remembered: they had been removed when the server was last started.
    remembers_from: u64,
    /// On their way through Raft, oldest first.
    proposals: VecDeque<Proposal>,
    batches: Batches,
}

#[derive(Clone, Debug)]
struct Kept {
    id: EventId,
    at: Micros,
    has_message_id: bool,
    subject: usize,
    payload: Bytes,
}

#[derive(Clone, Debug)]
struct Proposal {
    due: Micros,
    source: Source,
    id: EventId,
    has_message_id: bool,
    subject: usize,
    payload: Bytes,
    reply: Reply,
}

/// Which way a message came.
#[derive(Clone, Copy, Debug)]
enum Source {
    Single,
    Batch(BatchToken),
}

impl Stream {
    /// Messages of a subject that it has or is about to have.
    pub(super) fn messages_of(&self, subject: usize) -> u64 {
        let kept = self.messages.iter().skip(self.first as usize - 1).filter(|one| one.subject == subject);
        let proposed = self.proposals.iter().filter(|one| one.subject == subject);
        (kept.count() + proposed.count()) as u64
    }
}

impl Proposal {
    fn is_of_batch(&self, id: BatchId) -> bool {
        matches!(self.source, Source::Batch(token) if BatchId::new(self.id, token) == id)
    }
}

/// What the stream says to a message before it takes it.
enum Entrance {
    Take,
    /// It has it already, under this sequence.
    Duplicate(u64),
    Refuse(Refusal),
}

impl Server {
    pub(super) fn new(world: World, seed: u64) -> Self {
        let mut server = Self {
            world,
            random: Random::new(seed, 3),
            is_up: true,
            has_jetstream: true,
            stream: None,
            streams: 0,
            election: None,
            refuses_one_in: None,
            swallows_one_in: None,
            denied: None,
            refused: None,
            unheard: None,
            effects: Effects::default(),
        };
        server.create_stream();
        server
    }

    // ---- what clients send -----------------------------------------------------------------------------------------------

    pub(super) fn receive(&mut self, now: Micros, request: Request) {
        if !self.is_up {
            return;
        }
        match request {
            Request::Publish(publish) => self.receive_publish(now, publish),
            Request::Info { reply } => self.receive_info(now, reply),
            Request::Read { from, to, reply } => self.receive_read(now, from, to, reply),
        }
    }

    fn receive_publish(&mut self, now: Micros, publish: Publish) {
        if self.denied == Some(publish.subject) {
            let nobody = Reply { tag: Tag::None, ..publish.reply };
            self.pass_over(&publish.reply, publish.batch.is_none(), true);
            return self.answer(nobody, Body::Denied { subject: publish.subject });
        }
        let is_covered = self.stream.as_ref().is_some_and(|stream| publish.subject < stream.subjects);
        if !self.has_jetstream || !is_covered || self.unheard == Some(publish.subject) {
            self.pass_over(&publish.reply, publish.batch.is_none(), true);
            return self.answer(publish.reply, Body::NoResponders);
        }
        if let Some(election) = self.election(now) {
            self.pass_over(&publish.reply, publish.batch.is_none(), election.tells);
            if election.tells {
                self.answer(publish.reply, Body::NoResponders);
            }
            return;
        }
        if self.swallows_one_in.is_some_and(|times| self.random.one_in(times)) {
            return self.pass_over(&publish.reply, publish.batch.is_none(), false);
        }
        match publish.batch {
            Some(token) => self.receive_of_batch(now, &publish, token),
            None => self.receive_single(now, &publish),
        }
    }

    /// This message is not taken.
    fn pass_over(&mut self, reply: &Reply, is_single: bool, is_told: bool) {
        if is_single {
            self.effects.untaken.push(Untaken { connection: reply.connection, is_told });
        }
    }

    fn receive_single(&mut self, now: Micros, publish: &Publish) {
        match self.entrance(now, publish) {
            Entrance::Take => self.propose(now, publish, Source::Single),
            Entrance::Duplicate(sequence) => {
                self.answer(publish.reply, Body::Stored { sequence, duplicate: true });
            }
            Entrance::Refuse(refusal) => {
                self.pass_over(&publish.reply, true, true);
                self.answer(publish.reply, Body::Refused(refusal));
            }
        }
    }

    fn receive_info(&mut self, now: Micros, reply: Reply) {
        self.hurry_for_looks(now);
        if !self.has_jetstream {
            return self.answer(reply, Body::NoResponders);
        }
        let Some(stream) = &self.stream else { return self.answer(reply, Body::Info(None)) };
        let info = Info {
            subjects: stream.subjects,
            allows_batches: stream.allows_batches,
            created: stream.number,
            first: stream.first,
            last: stream.messages.len() as u64,
            duplicate_window: self.world.duplicate_window,
        };
        if self.election(now).is_none() {
            self.answer(reply, Body::Info(Some(info)));
        }
    }

    fn receive_read(&mut self, now: Micros, from: u64, to: u64, reply: Reply) {
        self.hurry_for_looks(now);
        if !self.has_jetstream {
            return self.answer(reply, Body::NoResponders);
        }
        let Some(stream) = &self.stream else { return self.answer(reply, Body::Info(None)) };
        let there = from.max(stream.first)..=to.min(stream.messages.len() as u64);
        let messages = there.map(|sequence| {
            let kept = &stream.messages[sequence as usize - 1];
            (kept.subject, kept.payload.clone())
        });
        let messages = messages.collect();
        // Only the leader answers.
        if self.election(now).is_none() {
            self.answer(reply, Body::Messages(messages));
        }
    }

    /// Where looks do not overtake, what is on its way to the quorum arrives before them.
    fn hurry_for_looks(&mut self, now: Micros) {
        let is_waiting = |server: &Self| server.stream.as_ref().is_some_and(|one| !one.proposals.is_empty());
        while !self.world.looks_overtake && self.election.is_none() && is_waiting(self) {
            self.apply(now, true);
        }
    }

    /// Judges a message as the stream does before it takes it.
    fn entrance(&mut self, now: Micros, publish: &Publish) -> Entrance {
        if self.refuses_one_in.is_some_and(|times| self.random.one_in(times)) {
            return Entrance::Refuse(self.random.pick(GENERATED));
        }
        let Some(stream) = &self.stream else { return Entrance::Refuse(errors::NO_STREAM) };
        if publish.has_message_id {
            if stream.proposals.iter().any(|one| one.has_message_id && one.id == publish.id) {
                return Entrance::Refuse(errors::IN_PROCESS);
            }
            let remembered = now.saturating_sub(self.world.duplicate_window);
            let known = stream.messages.iter().enumerate().skip(stream.remembers_from as usize - 1);
            let young = known.rev().take_while(|(_, kept)| kept.at >= remembered);
            let known = young.filter(|(_, kept)| kept.has_message_id).find(|(_, kept)| kept.id == publish.id);
            if let Some((at, _)) = known {
                return Entrance::Duplicate(at as u64 + 1);
            }
        }
        if publish.payload.len() as u64 > stream.message_bytes_max {
            return Entrance::Refuse(errors::TOO_LARGE);
        }
        if let Some((_, refusal)) = self.refused.filter(|(subject, _)| *subject == publish.subject) {
            return Entrance::Refuse(refusal);
        }
        if stream
            .of_subject_max
            .is_some_and(|(subject, max)| subject == publish.subject && stream.messages_of(subject) >= max)
        {
            return Entrance::Refuse(errors::SUBJECT_FULL);
        }
        let messages = stream.messages.len() as u64 + 1 - stream.first + stream.proposals.len() as u64;
        if messages >= stream.messages_max {
            return Entrance::Refuse(errors::FULL);
        }
        Entrance::Take
    }

    // ---- storing -----------------------------------------------------------------------------------------------------------

    fn propose(&mut self, now: Micros, publish: &Publish, source: Source) {
        let delay = if self.world.replicas == 1 { 0 } else { self.random.time(20, self.world.commit_max) };
        let Some(stream) = &mut self.stream else { return };
        let due = stream.proposals.back().map_or(0, |last| last.due).max(now + delay);
        stream.proposals.push_back(Proposal {
            due,
            source,
            id: publish.id,
            has_message_id: publish.has_message_id,
            subject: publish.subject,
            payload: publish.payload.clone(),
            reply: publish.reply,
        });
        if due <= now {
            self.apply(now, true);
        }
    }

    /// Stores the oldest proposal. `tells` is false where the one that would tell has gone.
    fn apply(&mut self, now: Micros, tells: bool) {
        let Some(stream) = &mut self.stream else { return };
        let Some(proposal) = stream.proposals.pop_front() else { return };
        stream.messages.push(Kept {
            id: proposal.id,
            at: now,
            has_message_id: proposal.has_message_id,
            subject: proposal.subject,
            payload: proposal.payload,
        });
        let stored =
            Stored { stream: stream.number, sequence: stream.messages.len() as u64, id: proposal.id };
        self.effects.stored.push(stored);
        match proposal.source {
            Source::Single if tells => {
                self.answer(proposal.reply, Body::Stored { sequence: stored.sequence, duplicate: false });
            }
            Source::Single => {}
            Source::Batch(token) => {
                self.applied_of_batch(BatchId::new(proposal.id, token), token.seq, proposal.reply, tells);
            }
        }
    }

    // ---- time ----------------------------------------------------------------------------------------------------------------

    /// When something happens next that nobody sends.
    pub(super) fn next_due(&self) -> Option<Micros> {
        let election = self.election.map(|election| election.until);
        let proposal = self.stream.as_ref().and_then(|stream| stream.proposals.front());
        let commit = proposal.filter(|_| self.election.is_none()).map(|proposal| proposal.due);
        [election, commit].into_iter().flatten().min()
    }

    pub(super) fn handle_time(&mut self, now: Micros) {
        if self.election.is_some_and(|election| election.until <= now) {
            self.election = None;
            self.reset_batches(now);
        }
        while self.election.is_none()
            && self
                .stream
                .as_ref()
                .and_then(|stream| stream.proposals.front())
                .is_some_and(|one| one.due <= now)
        {
            self.apply(now, true);
        }
    }

    fn election(&mut self, now: Micros) -> Option<Election> {
        self.handle_time(now);
        self.election
    }

    // ---- what happens to it --------------------------------------------------------------------------------------------------

    /// The leader goes, and with it what it had not brought to a quorum.
    pub(super) fn elect(&mut self, now: Micros, until: Micros) {
        let tells = self.random.one_in(2);
        self.election = Some(Election { until, tells });
        let Some(stream) = &mut self.stream else { return };
        let kept = self.random.below(stream.proposals.len() as u64 + 1) as usize;
        for lost in stream.proposals.split_off(kept) {
            self.pass_over(&lost.reply, matches!(lost.source, Source::Single), false);
        }
        // The next leader has them in its log, stores them before it answers anybody, and tells nobody.
        for _ in 0..kept {
            self.apply(now, false);
        }
        self.rewind_batches();
    }

    pub(super) fn end_election(&mut self, now: Micros) {
        if let Some(election) = &mut self.election {
            election.until = now;
        }
        self.handle_time(now);
    }

    /// The server ends. With one replica its batches end with it, and the last messages too if they were on no disk.
    pub(super) fn stop(&mut self, now: Micros, loses_tail: bool) {
        self.is_up = false;
        if self.world.replicas > 1 {
            let until = now + self.random.time(1_000, 2_000_000);
            return self.elect(now, until);
        }
        let Some(stream) = &mut self.stream else { return };
        stream.proposals.clear();
        stream.batches = Batches::default();
        stream.remembers_from = stream.first;
        if loses_tail {
            let kept = self.random.between(stream.first - 1, stream.messages.len() as u64);
            while stream.messages.len() as u64 > kept {
                let sequence = stream.messages.len() as u64;
                if let Some(lost) = stream.messages.pop() {
                    self.effects.lost.push(Stored { stream: stream.number, sequence, id: lost.id });
                }
            }
        }
    }

    pub(super) fn create_stream(&mut self) {
        self.streams += 1;
        self.stream = Some(Stream {
            number: self.streams,
            subjects: usize::MAX,
            messages_max: u64::MAX,
            message_bytes_max: u64::MAX,
            of_subject_max: None,
            allows_batches: self.world.allows_batches,
            messages: Vec::new(),
            first: 1,
            remembers_from: 1,
            proposals: VecDeque::new(),
            batches: Batches::default(),
        });
    }

    /// Full from now on.
    pub(super) fn fill(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.messages_max = stream.messages.len() as u64 + 1 - stream.first;
        }
    }

    /// A limit or a consumer removes the oldest messages.
    pub(super) fn trim(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.first += self.random.below(stream.messages.len() as u64 + 2 - stream.first);
        }
    }

    pub(super) fn change_stream(&mut self, change: impl FnOnce(&mut Stream)) {
        if let Some(stream) = &mut self.stream {
            change(stream);
            if !stream.allows_batches {
                stream.batches = Batches::default();
            }
        }
    }

    fn answer(&mut self, to: Reply, body: Body) {
        self.effects.answers.push(Answer { to, body });
    }
}
