//! Looking at the stream: what is known of it, which engine follows from that, and from where it would have to be read.

use super::{Link, Notice, Pipeline, StreamInfo, StreamState};
use crate::config::Mode;
use crate::publisher::batch::Batch;
use crate::publisher::engine;
use crate::publisher::retry::Cause;
use crate::publisher::server::ServerVersion;
use std::time::{Duration, Instant};

/// How long it is believed that the server takes no batches where the stream says that it does.
const REFUSAL_FRESH: Duration = Duration::from_secs(10);

impl Pipeline {
    pub(crate) fn handle_stream(&mut self, now: Instant, state: StreamState) {
        if self.link != Link::Looking {
            return;
        }
        self.may_not_look = matches!(state, StreamState::Denied);
        if !matches!(state, StreamState::Unknown) {
            self.patience.hear(now);
            if self.window.outstanding() == 0 {
                self.denials.count_anew();
            }
        }
        self.sizes.has_asked();
        let allows_batches = match state {
            StreamState::Missing => {
                self.stream = None;
                self.blocked = Some(Cause::NoStream);
                self.notices.push(Notice::StreamMissing);
                return self.wait(now, true);
            }
            StreamState::Found(info) => {
                let allows_batches = info.allows_batches;
                self.learn(now, info);
                Some(allows_batches)
            }
            // What is sent now would come in behind what the server has not looked at yet, as its double.
            StreamState::Unknown if self.patience.gives_up_at().is_some() => return self.wait(now, true),
            // What was known of it may still be true; if not, the server will say so.
            StreamState::Unknown | StreamState::Denied => {
                self.stream.as_ref().map(|(info, _)| info.allows_batches)
            }
        };
        self.choose_engine(now, allows_batches);
        self.resolve(now);
    }

    pub(super) fn look_up(&mut self) {
        self.link = Link::Looking;
        self.look_up_due = true;
        self.is_fresh = false;
    }

    /// The server takes no batches, whatever was known of the stream.
    pub(super) fn refuse_batches(&mut self, now: Instant) {
        self.batches_refused_until = Some(now + REFUSAL_FRESH);
    }

    fn learn(&mut self, now: Instant, info: StreamInfo) {
        // What was sent before the first look may have gone to any stream.
        let is_another = self.created.as_ref() != Some(&info.created);
        if is_another {
            self.floor = 0;
            self.lot.lower_floors(0);
            self.window.leave_behind();
            self.batch.iter_mut().for_each(Batch::leave_behind);
        }
        let knows_all = self.batch.is_none() && !self.is_in_doubt();
        if knows_all || info.last_sequence < self.floor {
            // The latter after a power failure: the stream has lost its end, and goes on with sequences that it had before.
            self.floor = info.last_sequence;
            self.lot.lower_floors(info.last_sequence);
        }
        self.is_floor_proven = true;
        self.created = Some(info.created.clone());
        self.learn_stream_size(&info);
        self.looks += 1;
        self.is_fresh = true;
        self.stream = Some((info, now));
    }

    /// Something is sent in this connection although no look at the stream was answered. Should the server have lost its power meanwhile, then the
    /// stream may be as long again as it was, with what is sent now below the floor.
    pub(super) fn doubt_floor(&mut self) {
        if !self.is_floor_proven {
            self.floor = 0;
            self.lot.lower_floors(0);
        }
    }

    /// Everything that is open stands behind this sequence, if it is stored.
    pub(super) fn raise_floor(&mut self, sequence: u64) {
        self.floor = self.floor.max(sequence);
        self.is_floor_proven = true;
    }

    fn choose_engine(&mut self, now: Instant, allows_batches: Option<bool>) {
        let version = self.server.map_or(ServerVersion::NONE, |server| server.version);
        // Who insists on batches has no other way, and tries again whenever the stream says that it takes them.
        let may_choose = self.limits.mode == Mode::Auto;
        let is_refused = may_choose && self.batches_refused_until.is_some_and(|until| now < until);
        let allows_batches = if is_refused { Some(false) } else { allows_batches };
        let engine = engine::choose(self.limits.mode, version, allows_batches);
        match engine {
            None => self.notices.push(Notice::EngineRefused),
            Some(engine) if self.engine != Some(engine) => self.notices.push(Notice::Engine(engine)),
            Some(_) => {}
        }
        self.engine = engine;
    }
}
