//! What a ring's record holds: an event on its way from the hot thread to the worker.
//!
//! ```text
//!  0           8        16       18     19     20
//!  ┌───────────┬────────┬────────┬──────┬──────┬──────┬────────────┬───────┬────────┬──────┐
//!  │ timestamp │ lost   │ id len │ name │ body │ name │ request id │ trace │ sample │ body │
//!  │           │        │        │ len  │ kind │      │            │       │        │      │
//!  └───────────┴────────┴────────┴──────┴──────┴──────┴────────────┴───────┴────────┴──────┘
//! ```
//!
//! The trace is there only if there is one, and the sample only where it is not 1: bits of the length of the request id say so. (Not bits of
//! the body's kind, which is written anew when a tape does not fit.)
//!
//! `lost` is how many offers this ring had refused when the record was made. The worker gives the sequence numbers out, and
//! from the difference to the record before it knows where in the sequence a hole is, and how large. So the hot path
//! needs no number of its own.
//!
//! The format lives inside the process only.

use crate::clock::Ticks;
use crate::subject::Name;
use crate::trace::TraceParent;

/// Longest request id that an event may carry, in bytes.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 256;

/// What a record holds besides its body, at most.
pub(crate) const OVERHEAD_BYTES_MAX: usize =
    FIXED_BYTES + Name::LEN_MAX + REQUEST_ID_BYTES_MAX + TraceParent::LEN + SAMPLE_BYTES;

/// Where a record says of what kind its body is.
pub(crate) const BODY_AT: usize = 19;

const FIXED_BYTES: usize = 20;
const SAMPLE_BYTES: usize = size_of::<u32>();
/// In the place of the length of a request id.
const NO_REQUEST_ID: u16 = !(TRACED | SAMPLED);
/// Beside the length of a request id: a trace follows.
const TRACED: u16 = 1 << 14;
/// Beside the length of a request id: a sample follows.
const SAMPLED: u16 = 1 << 15;
const _: () = assert!(Name::LEN_MAX <= u8::MAX as usize && REQUEST_ID_BYTES_MAX < NO_REQUEST_ID as usize);

/// Of what kind the bytes of a body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Body {
    /// A tape, to be rendered.
    Tape,
    /// Came as bytes, or was printed by serde_json on the hot thread. Nobody has looked yet whether it is JSON: a `Serialize` can make serde_json
    /// print what is none.
    Json,
}

/// All of an event but its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// When it was published, by the clock of the bus.
    pub(crate) timestamp: Ticks,
    pub(crate) lost: u64,
    /// Bytes, because on the worker's side nobody reads more of a name than whether it is the same as before.
    pub(crate) name: &'a [u8],
    pub(crate) request_id: Option<&'a str>,
    pub(crate) trace: Option<TraceParent>,
    /// One in so many events of this kind was kept: how many it stands for.
    pub(crate) sample: u32,
    pub(crate) body: Body,
}

impl Head<'_> {
    /// Bytes of this head in a record.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let trace = self.trace.map_or(0, |_| TraceParent::LEN);
        let sample = self.sample_bytes().map_or(0, |bytes| bytes.len());
        FIXED_BYTES + self.name.len() + self.request_id.map_or(0, str::len) + trace + sample
    }

    /// The sample, if it is written.
    #[inline]
    pub(crate) fn sample_bytes(&self) -> Option<[u8; SAMPLE_BYTES]> {
        (self.sample > 1).then(|| self.sample.to_ne_bytes())
    }

    /// The part of fixed length. In a record the name follows it, then the request id, trace and sample if there are any, and the body.
    #[inline]
    pub(crate) fn fixed(&self) -> [u8; FIXED_BYTES] {
        let mut fixed = [0; FIXED_BYTES];
        fixed[..8].copy_from_slice(&self.timestamp.0.to_ne_bytes());
        fixed[8..16].copy_from_slice(&self.lost.to_ne_bytes());
        let request_id_len = self.request_id.map_or(NO_REQUEST_ID, |id| id.len() as u16);
        let traced = if self.trace.is_some() { TRACED } else { 0 };
        let sampled = if self.sample > 1 { SAMPLED } else { 0 };
        fixed[16..18].copy_from_slice(&(request_id_len | traced | sampled).to_ne_bytes());
        fixed[18] = self.name.len() as u8;
        fixed[BODY_AT] = self.body as u8;
        fixed
    }
}

/// The head that all tapes of one name outside of a request have in common: made once, and then copied without a look at the
/// name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    bytes: [u8; TEMPLATE_BYTES],
    len: u8,
}

/// A line. Heads are copied whole, and what is too much is written over by the body.
pub(crate) const TEMPLATE_BYTES: usize = 64;

impl Template {
    /// `None` if the name is too long for it.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let name = name.as_bytes();
        let head = Head {
            timestamp: Ticks(0),
            lost: 0,
            name,
            request_id: None,
            trace: None,
            sample: 1,
            body: Body::Tape,
        };
        let mut bytes = [0; TEMPLATE_BYTES];
        bytes[..FIXED_BYTES].copy_from_slice(&head.fixed());
        bytes.get_mut(FIXED_BYTES..head.len())?.copy_from_slice(name);
        Some(Self { bytes, len: head.len() as u8 })
    }

    /// Bytes of the head.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.into()
    }

    /// The head of one event: the first [`len`](Self::len) of these bytes.
    #[inline]
    pub(crate) fn head(&self, timestamp: Ticks, lost: u64) -> [u8; TEMPLATE_BYTES] {
        let mut bytes = self.bytes;
        bytes[..8].copy_from_slice(&timestamp.0.to_ne_bytes());
        bytes[8..16].copy_from_slice(&lost.to_ne_bytes());
        bytes
    }
}

/// Takes a record apart; `None` if it is not one, which would be a bug of ours.
pub(crate) fn parse(record: &[u8]) -> Option<(Head<'_>, &[u8])> {
    let (fixed, rest) = record.split_first_chunk::<FIXED_BYTES>()?;
    let (name, rest) = rest.split_at_checked(fixed[18].into())?;
    let lengths = u16::from_ne_bytes(*fixed[16..].first_chunk()?);
    let (request_id, rest) = match lengths & !(TRACED | SAMPLED) {
        NO_REQUEST_ID => (None, rest),
        len => {
            let (id, rest) = rest.split_at_checked(len.into())?;
            (Some(std::str::from_utf8(id).ok()?), rest)
        }
    };
    let (trace, rest) = if lengths & TRACED == 0 {
        (None, rest)
    } else {
        let (trace, rest) = rest.split_first_chunk()?;
        (Some(TraceParent::of_bytes(*trace)), rest)
    };
    let (sample, body) = if lengths & SAMPLED == 0 {
        (1, rest)
    } else {
        let (sample, body) = rest.split_first_chunk()?;
        (u32::from_ne_bytes(*sample), body)
    };
    let head = Head {
        timestamp: Ticks(u64::from_ne_bytes(*fixed.first_chunk()?)),
        lost: u64::from_ne_bytes(*fixed[8..].first_chunk()?),
        name,
        request_id,
        trace,
        sample,
        body: *[Body::Tape, Body::Json].get(usize::from(fixed[BODY_AT]))?,
    };
    Some((head, body))
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    fn trace() -> TraceParent {
        format!("00-{:032x}-{:016x}-01", 7, 8).parse().expect("it is valid")
    }

    fn record(head: &Head<'_>, body: &[u8]) -> Vec<u8> {
        let request_id = head.request_id.unwrap_or_default();
        let trace = head.trace.as_ref().map_or(&[][..], |trace| trace.as_bytes());
        let sample = head.sample_bytes();
        let sample = sample.as_ref().map_or(&[][..], |sample| sample);
        [&head.fixed()[..], head.name, request_id.as_bytes(), trace, sample, body].concat()
    }

    #[test]
    fn a_record_comes_apart_as_it_was_put_together() {
        for request_id in [None, Some(""), Some("q-1"), Some("naïve")] {
            for (body, trace, sample) in [
                (Body::Tape, None, 1),
                (Body::Json, Some(trace()), 1),
                (Body::Json, None, 2),
                (Body::Tape, Some(trace()), u32::MAX),
            ] {
                let (timestamp, lost, name) = (Ticks(7), u64::MAX, b"a.b".as_slice());
                let head = Head { timestamp, lost, name, request_id, trace, sample, body };
                let bytes = record(&head, b"{}");
                assert_eq!(bytes.len(), head.len() + 2);
                assert_eq!(parse(&bytes), Some((head, b"{}".as_slice())));
            }
        }
    }

    #[test]
    fn a_cut_record_is_refused() {
        for (trace, sample) in [(None, 1), (None, 100), (Some(trace()), 1), (Some(trace()), 100)] {
            let (timestamp, name, request_id, body) = (Ticks(7), b"name".as_slice(), Some("id"), Body::Tape);
            let bytes = record(&Head { timestamp, lost: 0, name, request_id, trace, sample, body }, b"");
            for len in 0..bytes.len() {
                assert_eq!(parse(&bytes[..len]), None);
            }
        }
    }
}
