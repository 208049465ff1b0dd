//! From a value to the bytes of a record, on the hot thread.
//!
//! The value is serialized as JSON into a buffer that the thread keeps, and only then is a place of exactly that length
//! claimed in the ring: user code never runs between claim and commit. The buffer is as large as the largest event from
//! the first use on, so a thread allocates once.
//!
//! What user code can do wrong stays here: a `Serialize` that fails, panics, publishes itself, or never ends is an error
//! of this one event. Read next: [`crate::record`] for what the bytes are.

use crate::record::{self, Head};
use serde::Serialize;
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why there are no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EncodeError {
    /// The body is longer than allowed.
    TooLarge,
    /// The body's `Serialize` returned an error or panicked.
    Failed,
}

thread_local! {
    /// Taken while in use, so that a `Serialize` which publishes gets an empty one and not this one.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Puts head and body together and shows them to `push`. The body may have `body_bytes_max` bytes of JSON.
#[inline]
pub(crate) fn with_record<T: Serialize, R>(
    head: &Head<'_>,
    body: impl FnOnce() -> T,
    body_bytes_max: usize,
    push: impl FnOnce(&[u8]) -> R,
) -> Result<R, EncodeError> {
    with_scratch(record::OVERHEAD_BYTES_MAX + body_bytes_max, |scratch| {
        head.write_to(scratch);
        append_json(scratch, body, body_bytes_max).map(|()| push(scratch))
    })
}

/// Shows the bytes of a head alone to `push`, for a body that needs no encoding.
#[inline]
pub(crate) fn with_head<R>(head: &Head<'_>, push: impl FnOnce(&[u8]) -> R) -> R {
    with_scratch(record::OVERHEAD_BYTES_MAX, |scratch| {
        head.write_to(scratch);
        push(scratch)
    })
}

#[inline]
fn with_scratch<R>(bytes: usize, use_scratch: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // When the thread is ending its buffer may be gone already; an event of a destructor gets one for itself.
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    scratch.reserve(bytes);
    let result = use_scratch(&mut scratch);
    let _ = SCRATCH.try_with(|cell| cell.set(scratch));
    result
}

fn append_json<T: Serialize>(
    out: &mut Vec<u8>,
    body: impl FnOnce() -> T,
    bytes_max: usize,
) -> Result<(), EncodeError> {
    let mut writer = Bounded { end: out.len() + bytes_max, out, len: 0, overflowed: false };
    // AssertUnwindSafe: after a panic the bytes written so far are thrown away, and nothing else of ours was touched.
    match catch_unwind(AssertUnwindSafe(|| serde_json::to_writer(&mut writer, &body()))) {
        Ok(Ok(()) | Err(_)) if writer.overflowed => Err(EncodeError::TooLarge),
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(EncodeError::Failed),
    }
}

/// How many times the limit a value may be before it is ended by an error. Up to there it is walked to its end and its bytes
/// are thrown away, because an error of serde_json allocates.
const WALKED: usize = 16;

/// A buffer that does not grow past a limit, and ends a value that is far above it.
struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
    /// Bytes of the value so far, thrown away or not.
    len: usize,
    overflowed: bool,
}

impl io::Write for Bounded<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len();
        if self.overflowed || self.out.len() + bytes.len() > self.end {
            self.overflowed = true;
            return if self.len <= self.end * WALKED { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) };
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::clock::Ticks;
    use serde::Serializer;
    use serde::ser::Error;

    const HEAD: Head<'static> =
        Head { timestamp: Ticks(1), lost: 0, name: "test", request_id: Some("id"), unchecked: false };

    fn encode<T: Serialize + ?Sized>(body: &T, bytes_max: usize) -> Result<Vec<u8>, EncodeError> {
        with_record(&HEAD, || body, bytes_max, |bytes| record::parse(bytes).unwrap().1.to_vec())
    }

    struct With<F>(F);

    impl<F: Fn() -> Result<u32, &'static str>> Serialize for With<F> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            (self.0)().map_err(S::Error::custom)?.serialize(serializer)
        }
    }

    #[test]
    fn the_body_is_what_serde_json_prints() {
        assert_eq!(encode(&("é\n", 1.5, None::<u8>), 100).unwrap(), "[\"é\\n\",1.5,null]".as_bytes());
    }

    #[test]
    fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
        let body = "x".repeat(98);
        assert_eq!(encode(&body, 100).map(|bytes| bytes.len()), Ok(100));
        assert_eq!(encode(&body, 99), Err(EncodeError::TooLarge));
        assert_eq!(encode(&vec![7; 100_000], 99), Err(EncodeError::TooLarge), "it is not walked to its end");
        // What would fit again after a part that did not is not taken either.
        assert_eq!(encode(&(&body, 1, &body), 99), Err(EncodeError::TooLarge));
        assert_eq!(encode(&1, 100).unwrap(), b"1", "the failure leaves nothing behind");
    }

    #[test]
    fn a_serialize_that_fails_or_panics_is_an_error_of_that_event_alone() {
        assert_eq!(encode(&(1, With(|| Err("no"))), 100), Err(EncodeError::Failed));
        assert_eq!(encode(&(1, With(|| panic!("as a user's bug would"))), 100), Err(EncodeError::Failed));
        assert_eq!(encode(&(1, With(|| Ok(2))), 100).unwrap(), b"[1,2]");
    }

    #[test]
    fn a_serialize_that_publishes_does_not_disturb_the_event_around_it() {
        let nested = With(|| {
            assert_eq!(encode("inner", 100).unwrap(), b"\"inner\"");
            Ok(2)
        });
        assert_eq!(encode(&(1, nested, 3), 100).unwrap(), b"[1,2,3]");
    }
}
