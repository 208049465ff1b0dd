//! The worker's parts one by one, for benches: the same code on the same state, without thread, ring and sink.

use super::books::book;
use super::outgoing::{Address, Token};
use super::pipeline::{Limits, Pipeline, ServerInfo, StreamState};
use super::render::Renderer;
use super::reply::Reply;
use super::server::ServerVersion;
use super::stamp::{ProducerNames, Stamper};
use crate::clock::Clock;
use crate::config::Mode;
use crate::encode;
use crate::ledger::Accounts;
use crate::metrics::{Latencies, Metrics};
use crate::record::{Body, Head};
use crate::subject::{Prefix, Subjects};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WINDOW_EVENTS: usize = 4096;
const WINDOW_BYTES: usize = 16 << 20;
const BODY_BYTES_MAX: usize = 64 << 10;

/// A worker taken apart, with one event that it handles again and again.
pub struct Parts {
    renderer: Renderer,
    pipeline: Pipeline,
    accounts: Accounts,
    latencies: Latencies,
    metrics: Metrics,
    record: Vec<u8>,
    payload: Vec<u8>,
    replies: Vec<Token>,
    now: Instant,
}

impl Parts {
    /// For an event with this body; `None` if it cannot be encoded.
    pub fn new(body: &impl Serialize) -> Option<Self> {
        let clock = Arc::new(Clock::detect());
        let head = Head {
            timestamp: clock.now(),
            lost: 0,
            name: b"priceEstimate",
            request_id: None,
            trace: None,
            sample: 1,
            body: Body::Tape,
        };
        let record = encode::with_record(&head, || body, BODY_BYTES_MAX, <[u8]>::to_vec).ok()?;
        let now = Instant::now();
        let limits = Limits {
            window_events: WINDOW_EVENTS,
            window_bytes: WINDOW_BYTES,
            message_bytes_max: BODY_BYTES_MAX,
            ack_timeout: Duration::from_secs(5),
            mode: Mode::Async,
        };
        let mut pipeline = Pipeline::new(now, limits, ProducerNames::new(0, 1), 0);
        pipeline.poll_link(now);
        let server = ServerInfo { max_payload: usize::MAX, version: ServerVersion::NONE };
        pipeline.handle_connected(now, server);
        pipeline.handle_stream(now, StreamState::Unknown);
        let stamper = Stamper::new(ProducerNames::new(0, 1), 1);
        Some(Self {
            renderer: Renderer::new(
                clock,
                Subjects::new(&Prefix::default(), 1),
                true,
                BODY_BYTES_MAX,
                stamper,
            ),
            pipeline,
            accounts: Accounts::default(),
            latencies: Latencies::new(),
            metrics: Metrics::new(1).ok()?,
            record,
            payload: Vec::new(),
            replies: Vec::new(),
            now,
        })
    }

    /// Makes the event's message: number, route and envelope. Returns the envelope.
    #[inline]
    pub fn render(&mut self) -> &[u8] {
        self.payload.clear();
        let _ = self.renderer.message(0, &self.record, &mut self.payload);
        &self.payload
    }

    /// Takes `events` events all the way from their records to the books: rendered, sent to nobody, acknowledged, settled, booked.
    /// Returns how many were acknowledged so far.
    #[inline]
    pub fn deliver(&mut self, events: usize) -> u64 {
        let Self { pipeline, renderer, accounts, latencies, metrics, record, replies, now, .. } = self;
        for _ in 0..events {
            let _ = pipeline.push(|payload| renderer.message(0, record, payload));
        }
        while !pipeline.is_empty() {
            while let Some(sending) = pipeline.poll_send(*now) {
                let Address::Single(token) = sending.address else { continue };
                replies.push(token);
            }
            for token in replies.drain(..) {
                pipeline.handle_reply(*now, token, Reply::Stored { sequence: 1, duplicate: false });
            }
        }
        let wall = renderer.calendar.now();
        for outcome in pipeline.drain_outcomes() {
            book(accounts, &mut renderer.stamper, latencies, wall, &outcome);
        }
        metrics.take_latencies(latencies);
        accounts.acked
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}
