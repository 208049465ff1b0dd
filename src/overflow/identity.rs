//! Whose event a record is.
//!
//! A record of the spool says so in the header by which a server would know it too, `Nats-Msg-Id: <producer>-<seq>`, also where events bear no
//! stamp. The records of a `file:` directory have no such header; theirs is in the stamp. Where there is neither, the record is known by the log
//! and its place there.

use crate::envelope::Envelope;
use crate::publisher::outgoing::MESSAGE_ID;
use crate::publisher::route::Route;
use crate::publisher::stamp::ProducerNames;
use crate::publisher::window::Origin;
use crate::spool::LogId;
use crate::spool::cursor::headers_of;
use crate::subject::Subjects;
use std::borrow::Cow;
use std::io::Write;

/// Says that an event was sent when it was written to the log, and neither by itself nor with an id, so the server would not know it again.
const SENT: &str = "Jetring-Sent";
const WITHOUT_ID: &str = "without-id";

/// Appends the header that says so.
pub(super) fn write_without_id(out: &mut Vec<u8>) {
    out.extend_from_slice([SENT, ": ", WITHOUT_ID, "\r\n"].concat().as_bytes());
}

/// Whether an event, if it was sent, was sent with its id.
pub(super) fn bore_its_id(headers: &[u8]) -> bool {
    headers_of(headers).all(|header| header != (SENT, WITHOUT_ID))
}

/// Of an event without a name, its place in its frame goes above the place of the frame in the log.
const PLACE_SHIFT: u32 = 40;

/// Tells producers apart, and knows to which subject an event goes.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    names: ProducerNames,
    renaming: Option<Renaming>,
}

/// The records of a log are for a stream that is not the one to which they are sent.
#[derive(Clone, Debug)]
pub(crate) struct Renaming {
    /// The subjects of the records.
    pub(crate) from: Subjects,
    /// The subjects to which they are sent.
    pub(crate) to: Subjects,
}

impl Identity {
    pub(super) fn new(names: ProducerNames) -> Self {
        Self { names, renaming: None }
    }

    /// The same for records that are sent to another stream than the one that they were for.
    pub(super) fn with_renaming(self, renaming: Option<Renaming>) -> Self {
        Self { renaming, ..self }
    }

    pub(super) fn is_renamed(&self) -> bool {
        self.renaming.is_some()
    }

    /// The subject to which a record is sent.
    pub(super) fn subject_of<'a>(&self, recorded: &'a [u8]) -> Cow<'a, [u8]> {
        let renamed = |Renaming { from, to }: &Renaming| {
            let name = from.name_of(std::str::from_utf8(recorded).ok()?)?;
            Some(to.subject(name).into_bytes())
        };
        self.renaming.as_ref().and_then(renamed).map_or(Cow::Borrowed(recorded), Cow::Owned)
    }

    /// The subject that a message has in a record.
    pub(super) fn recorded_subject<'a>(&self, route: &'a Route) -> Cow<'a, [u8]> {
        match &self.renaming {
            Some(Renaming { from, .. }) => Cow::Owned(from.subject(&route.name).into_bytes()),
            None => Cow::Borrowed(&route.subject),
        }
    }

    /// Who is called so.
    pub(super) fn origin_of(&self, producer: &str) -> Option<Origin> {
        self.names.origin_of(producer)
    }

    /// Appends the header of an event.
    pub(super) fn write(&self, origin: Origin, seq: u64, out: &mut Vec<u8>) {
        write!(out, "{MESSAGE_ID}: {}-{seq}\r\n", self.names.of(origin))
            .expect("a vector takes whatever is written to it");
    }

    /// Reads the header of an event; none if it does not say.
    pub(super) fn read(&self, headers: &[u8]) -> Option<(Origin, u64)> {
        let (_, id) = headers_of(headers).find(|(name, _)| *name == MESSAGE_ID)?;
        let (producer, seq) = id.rsplit_once('-')?;
        Some((self.names.origin_of(producer)?, seq.parse().ok()?))
    }

    /// Whose event this is, which stands in the log at `sequence`, as the one with this number of its frame.
    pub(super) fn of(
        &self,
        log: LogId,
        sequence: u64,
        headers: &[u8],
        index: usize,
        event: &[u8],
    ) -> (Origin, u64) {
        if let Some(identity) = self.read(headers) {
            return identity;
        }
        // In a `file:` directory the reports of its bus are no events.
        let is_event = |origin: &Origin| !matches!(origin, Origin::Past(past) if past.is_bus());
        let stamped = self.stamped(event).filter(|(origin, _)| is_event(origin));
        let has_space = sequence >> PLACE_SHIFT == 0;
        let place = (index as u64) << PLACE_SHIFT | sequence;
        // A log may claim any sequence, and two events must never have one id.
        stamped.unwrap_or_else(|| match has_space {
            true => (Origin::Log(log), place),
            false => (Origin::Log(log.of_line(index + 1)), sequence),
        })
    }

    /// Whose event this is by its stamp.
    pub(super) fn stamped(&self, event: &[u8]) -> Option<(Origin, u64)> {
        let envelope = Envelope::parse(event).ok()?;
        let (producer, seq) = envelope.stamp()?;
        Some((self.names.origin_of(producer)?, seq))
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::publisher::window::Past;

    const LOG: LogId = LogId::NONE;

    fn identity() -> Identity {
        Identity::new(ProducerNames::new(0xff, 4).of_partition(1, 2))
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_ours_are_told_from_others() {
        let past = Origin::Past(Past::parse("00000000000000fe.3").unwrap());
        for (origin, text) in [
            (Origin::Ring(1), "Nats-Msg-Id: 00000000000000ff.3-7\r\n"),
            (past, "Nats-Msg-Id: 00000000000000fe.3-7\r\n"),
        ] {
            let mut header = b"A: b\r\n".to_vec();
            identity().write(origin, 7, &mut header);
            assert_eq!(header, [b"A: b\r\n", text.as_bytes()].concat());
            assert_eq!(identity().read(&header), Some((origin, 7)));
        }
    }

    #[test]
    fn a_record_of_another_layout_is_sent_by_its_name_and_written_as_the_others_there() {
        let prefix = crate::subject::Prefix::default();
        let (from, to) = (Subjects::of_partition(&prefix, 1, 3), Subjects::new(&prefix, 1));
        let identity = Identity::new(ProducerNames::new(0xff, 4)).with_renaming(Some(Renaming { from, to }));
        let sent = |recorded: &str| {
            String::from_utf8(identity.subject_of(recorded.as_bytes()).into_owned()).unwrap()
        };
        assert_eq!(sent("event.1.3.a.b"), "event.1.a.b");
        assert_eq!(sent("event.1.2.a"), "event.1.2.a", "it is nobody's of there");
        let route = Route::new("a.b", "event.1.a.b");
        assert_eq!(*identity.recorded_subject(&route), *b"event.1.3.a.b");
    }

    #[test]
    fn what_is_no_id_of_ours_is_none() {
        for header in ["", "Nats-Msg-Id: x\r\n", "Nats-Msg-Id: a.b-1\r\n", "Nats-Msg-Id: 00ff.1-1\r\n"] {
            assert_eq!(identity().read(header.as_bytes()), None, "{header}");
        }
    }

    #[test]
    fn without_a_header_the_stamp_says_it_and_without_a_stamp_the_place() {
        let event = br#"{"version":"v1","timestamp":"t","producer":"00000000000000fe.3","seq":9,"body":1}"#;
        let past = Origin::Past(Past::parse("00000000000000fe.3").unwrap());
        assert_eq!(identity().of(LOG, 5, b"", 0, event), (past, 9));
        let report =
            br#"{"version":"v1","timestamp":"t","producer":"00000000000000fe.bus","seq":9,"body":1}"#;
        for (index, event) in [(0, &report[..]), (3, b"bare")] {
            assert_eq!(
                identity().of(LOG, 5, b"", index, event),
                (Origin::Log(LOG), (index as u64) << 40 | 5)
            );
        }
        let at = |sequence, index| identity().of(LOG, sequence, b"", index, b"bare");
        let ids = [at(5, 0), at(5, 3), at(3 << 40 | 5, 0), at(3 << 40 | 5, 3), at((1 << 56) - 1, 1)];
        assert_eq!(ids.into_iter().collect::<std::collections::HashSet<_>>().len(), ids.len());
    }
}
