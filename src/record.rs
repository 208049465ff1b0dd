//! What a ring's record holds: an event on its way from the hot thread to the worker.
//!
//! ```text
//!  0           8           16        20       22  23  24
//!  ┌───────────┬───────────┬─────────┬────────┬───┬───┬──────┬────────────┬──────┐
//!  │ timestamp │ lost      │ id len  │ name   │ f │ 0 │ name │ request id │ body │
//!  └───────────┴───────────┴─────────┴────────┴───┴───┴──────┴────────────┴──────┘
//! ```
//!
//! `lost` is how many offers this ring had refused when the record was made. The worker gives the sequence numbers out, and
//! from the difference to the record before it knows where in the sequence a hole is, and how large. So the hot path
//! needs no number of its own.
//!
//! The format lives inside the process only.

use crate::clock::Ticks;
use crate::subject::Name;

/// Longest request id that an event may carry, in bytes.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 256;

/// What a record holds besides its body, at most.
pub(crate) const OVERHEAD_BYTES_MAX: usize = HEADER_BYTES + Name::LEN_MAX + REQUEST_ID_BYTES_MAX;

const HEADER_BYTES: usize = 24;
const NO_REQUEST_ID: u32 = u32::MAX;
const UNCHECKED: u8 = 1;

/// All of an event but its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// When it was published, by the clock of the bus.
    pub(crate) timestamp: Ticks,
    pub(crate) lost: u64,
    pub(crate) name: &'a str,
    pub(crate) request_id: Option<&'a str>,
    /// The body came as bytes, and nobody has looked yet whether they are JSON.
    pub(crate) unchecked: bool,
}

impl Head<'_> {
    /// Bytes of this head in a record.
    pub(crate) fn len(&self) -> usize {
        HEADER_BYTES + self.name.len() + self.request_id.map_or(0, str::len)
    }

    /// Appends the head to `out`; the body follows it.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&self.timestamp.0.to_le_bytes());
        header[8..16].copy_from_slice(&self.lost.to_le_bytes());
        let request_id_len = self.request_id.map_or(NO_REQUEST_ID, |id| id.len() as u32);
        header[16..20].copy_from_slice(&request_id_len.to_le_bytes());
        header[20..22].copy_from_slice(&(self.name.len() as u16).to_le_bytes());
        header[22] = if self.unchecked { UNCHECKED } else { 0 };
        out.extend_from_slice(&header);
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(self.request_id.unwrap_or_default().as_bytes());
    }
}

/// Takes a record apart; `None` if it is not one, which would be a bug of ours.
pub(crate) fn parse(record: &[u8]) -> Option<(Head<'_>, &[u8])> {
    let (header, rest) = record.split_first_chunk::<HEADER_BYTES>()?;
    let request_id_len = u32::from_le_bytes(*header[16..].first_chunk()?);
    let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*header[20..].first_chunk()?).into())?;
    let (request_id, body) = match request_id_len {
        NO_REQUEST_ID => (None, rest),
        len => {
            let (id, body) = rest.split_at_checked(len as usize)?;
            (Some(std::str::from_utf8(id).ok()?), body)
        }
    };
    let head = Head {
        timestamp: Ticks(u64::from_le_bytes(*header.first_chunk()?)),
        lost: u64::from_le_bytes(*header[8..].first_chunk()?),
        name: std::str::from_utf8(name).ok()?,
        request_id,
        unchecked: header[22] == UNCHECKED,
    };
    Some((head, body))
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_apart_as_it_was_put_together() {
        for request_id in [None, Some(""), Some("q-1"), Some("naïve")] {
            for unchecked in [false, true] {
                let head = Head { timestamp: Ticks(7), lost: u64::MAX, name: "a.b", request_id, unchecked };
                let mut bytes = Vec::new();
                head.write_to(&mut bytes);
                assert_eq!(bytes.len(), head.len());
                bytes.extend_from_slice(b"{}");
                assert_eq!(parse(&bytes), Some((head, b"{}".as_slice())));
            }
        }
    }

    #[test]
    fn a_cut_record_is_refused() {
        let mut bytes = Vec::new();
        let head =
            Head { timestamp: Ticks(7), lost: 0, name: "name", request_id: Some("id"), unchecked: false };
        head.write_to(&mut bytes);
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]), None);
        }
    }
}
