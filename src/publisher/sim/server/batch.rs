//! Fast-ingest batches (ADR-50), gap mode `fail`, as nats-server keeps them.
//!
//! ```text
//!   start 1 ──► flow ack 0 (the grant) ──► append 2, 3, … ──► flow ack every `granted` messages ──► commit, or end ──► Ended
//!                                            │
//!                                            ├─ a sequence that is not the next ──► Gap, then Ended with what is contiguous
//!                                            ├─ a message that cannot be stored ──► Failed, then Ended
//!                                            └─ one too large, or too many ───────► Refused; the next one finds the gap
//! ```
//!
//! A batch that ends answers once everything that it has taken is stored, and is unknown from then on; meanwhile it ignores
//! what comes. A batch that nobody speaks to for ten seconds is forgotten without a word. Who sends the first message of a batch
//! that is unknown starts it anew: a ghost of a start stores its message once more, unless that has a message id.

use super::super::Micros;
use super::super::wire::{Body, EventId, Publish, Reply};
use super::{Entrance, Server, Source, errors};
use crate::publisher::outgoing::{BatchToken, Op};

/// Batches of a stream at once; the real limit is 1000.
const BATCHES_MAX: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Batches(Vec<Batch>);

/// The name of a batch holds the process that began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchId {
    process: usize,
    batch: u64,
}

impl BatchId {
    pub(super) fn new(sender: EventId, token: BatchToken) -> Self {
        Self { process: sender.process, batch: token.batch }
    }
}

#[derive(Debug)]
struct Batch {
    id: BatchId,
    /// Messages taken: the next one must have the sequence behind it.
    taken: u64,
    /// Of these stored.
    stored: u64,
    /// The last flow ack: all up to `told` are stored, and the next ack is due `granted` later. A ping repeats it.
    told: u64,
    granted: u64,
    flow: u64,
    /// Sequence in the stream of the last message stored.
    sequence: u64,
    touched_at: Micros,
    /// Where the last message wanted its answer.
    reply: Reply,
    /// Takes no more, and says so there when all is stored.
    ending: Option<Reply>,
}

impl Batches {
    fn find(&mut self, id: BatchId) -> Option<&mut Batch> {
        self.0.iter_mut().find(|batch| batch.id == id)
    }
}

impl Server {
    pub(super) fn receive_of_batch(&mut self, now: Micros, publish: &Publish, op: BatchToken) {
        let (id, idle_max) = (BatchId::new(publish.id, op), self.world.batch_idle_max);
        let Some(stream) = &mut self.stream else { return };
        if !stream.allows_batches {
            return self.answer(publish.reply, Body::Refused(errors::BATCHES_DISABLED));
        }
        stream.batches.0.retain(|batch| batch.ending.is_some() || batch.touched_at + idle_max > now);
        let others = stream.batches.0.len();
        let Some(batch) = stream.batches.find(id) else {
            if op.seq == 1 && matches!(op.op, Op::End | Op::Ping) {
                return self.answer(publish.reply, Body::Refused(errors::BATCH_MALFORMED));
            }
            if op.seq != 1 {
                return self.answer(publish.reply, Body::Refused(errors::BATCH_UNKNOWN));
            }
            if others >= BATCHES_MAX {
                return self.answer(publish.reply, Body::Refused(errors::BATCHES_TOO_MANY));
            }
            return self.begin_batch(now, publish, op, others);
        };
        if batch.ending.is_some() {
            return;
        }
        batch.touched_at = now;
        batch.reply = publish.reply;
        let next = batch.taken + 1;
        match op.op {
            Op::Ping if op.seq <= batch.taken => {
                let flow = Body::Flow { seq: batch.told, messages: batch.granted };
                self.answer(publish.reply, flow);
            }
            _ if op.op == Op::Ping || op.seq != next => {
                self.answer(publish.reply, Body::Gap);
                self.end_batch(id, publish.reply);
            }
            Op::End => self.end_batch(id, publish.reply),
            _ => self.take_of_batch(now, publish, op),
        }
    }

    fn begin_batch(&mut self, now: Micros, publish: &Publish, op: BatchToken, others: usize) {
        let cap = self.world.flow_max.min(u64::from(op.flow.max(1)));
        let granted = if others == 0 { cap } else { 1 };
        if let Some(stream) = &mut self.stream {
            stream.batches.0.push(Batch {
                id: BatchId::new(publish.id, op),
                taken: 0,
                stored: 0,
                told: 0,
                flow: u64::from(op.flow),
                granted,
                sequence: 0,
                touched_at: now,
                reply: publish.reply,
                ending: None,
            });
        }
        self.take_of_batch(now, publish, op);
    }

    /// The next message of its batch.
    fn take_of_batch(&mut self, now: Micros, publish: &Publish, op: BatchToken) {
        let id = BatchId::new(publish.id, op);
        let entrance = self.entrance(now, publish);
        let Some(batch) = self.batch(id) else { return };
        let granted = batch.granted;
        match entrance {
            // Found before the batch hears of the message.
            Entrance::Refuse(refusal) if refusal == errors::TOO_LARGE || refusal.code == 429 => {
                if op.seq == 1 {
                    self.forget_batch(id);
                }
                return self.answer(publish.reply, Body::Refused(refusal));
            }
            Entrance::Refuse(refusal) if refusal != errors::IN_PROCESS => {
                if op.seq > 1 {
                    self.answer(publish.reply, Body::Failed { seq: op.seq, refusal });
                    return self.end_batch(id, publish.reply);
                }
                self.forget_batch(id);
                if op.op == Op::Start {
                    self.answer(publish.reply, Body::Flow { seq: 0, messages: granted });
                }
                return self.answer(publish.reply, Body::Refused(refusal));
            }
            Entrance::Duplicate(sequence) => {
                batch.taken += 1;
                batch.sequence = sequence;
            }
            _ => batch.taken += 1,
        }
        if op.op == Op::Start {
            self.answer(publish.reply, Body::Flow { seq: 0, messages: granted });
        }
        if op.op == Op::Commit
            && !self.world.acks_commits
            && let Some(batch) = self.batch(id)
        {
            batch.ending = Some(publish.reply);
        }
        match entrance {
            Entrance::Take => self.propose(now, publish, Source::Batch(op)),
            // Passed over, and counted as stored; also if it is only about to be stored.
            Entrance::Refuse(_) | Entrance::Duplicate(_) => self.advance_batch(id, publish.reply, true),
        }
        if op.op == Op::Commit && self.world.acks_commits {
            self.end_batch(id, publish.reply);
        }
    }

    /// A message of a batch was stored.
    pub(super) fn applied_of_batch(&mut self, id: BatchId, place: u64, reply: Reply, tells: bool) {
        let Some(stream) = &mut self.stream else { return };
        let sequence = stream.messages.len() as u64;
        let Some(batch) = stream.batches.find(id) else { return };
        batch.stored = place;
        batch.sequence = sequence;
        self.advance_batch(id, reply, tells);
    }

    /// Looks how far a batch has come, and tells it where that is due.
    fn advance_batch(&mut self, id: BatchId, reply: Reply, tells: bool) {
        let flow_max = self.world.flow_max;
        let Some(stream) = &mut self.stream else { return };
        let is_pending = stream.proposals.iter().any(|one| one.is_of_batch(id));
        let share = stream.batches.0.len() as u64;
        let Some(batch) = stream.batches.find(id) else { return };
        if tells && !is_pending {
            // What was passed over behind the last that was stored counts with it. (A leader that has gone took more than is stored.)
            batch.stored = batch.taken;
        }
        if tells && batch.ending.is_none() && batch.stored >= batch.told + batch.granted {
            batch.told = batch.stored;
            let cap = (flow_max / share.max(1)).min(batch.flow).max(1);
            batch.granted = (batch.granted * 2).min(cap);
            let flow = Body::Flow { seq: batch.stored, messages: batch.granted };
            self.answer(reply, flow);
        }
        self.answer_ended(id);
    }

    fn end_batch(&mut self, id: BatchId, reply: Reply) {
        if let Some(batch) = self.batch(id) {
            batch.ending = Some(reply);
        }
        self.answer_ended(id);
    }

    /// Says how a batch has ended, if it has and all of it is stored.
    fn answer_ended(&mut self, id: BatchId) {
        let Some(batch) = self.batch(id) else { return };
        let Some(reply) = batch.ending.filter(|_| batch.stored == batch.taken) else { return };
        let ended = Body::Ended { sequence: batch.sequence, count: batch.stored };
        self.forget_batch(id);
        self.answer(reply, ended);
    }

    /// A change of leader: what was not stored was never taken.
    pub(super) fn rewind_batches(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        for batch in &mut stream.batches.0 {
            batch.taken = batch.stored;
            batch.ending = None;
        }
        // It is known to the others by what is stored of it.
        stream.batches.0.retain(|batch| batch.stored > 0);
    }

    /// The new leader says how far each batch has come, and begins to count its silence.
    pub(super) fn reset_batches(&mut self, now: Micros) {
        let flow_max = self.world.flow_max;
        let Some(stream) = &mut self.stream else { return };
        let share = stream.batches.0.len() as u64;
        let mut answers = Vec::new();
        for batch in &mut stream.batches.0 {
            batch.touched_at = now;
            batch.told = batch.stored;
            batch.granted = if share == 1 { flow_max.min(batch.flow).max(1) } else { 1 };
            answers.push((batch.reply, Body::Flow { seq: batch.stored, messages: batch.granted }));
        }
        answers.into_iter().for_each(|(reply, body)| self.answer(reply, body));
    }

    fn batch(&mut self, id: BatchId) -> Option<&mut Batch> {
        self.stream.as_mut()?.batches.find(id)
    }

    fn forget_batch(&mut self, id: BatchId) {
        if let Some(stream) = &mut self.stream {
            stream.batches.0.retain(|batch| batch.id != id);
        }
    }
}
