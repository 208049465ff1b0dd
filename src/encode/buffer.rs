//! Where a record is put together: first on the stack, and in a kept buffer of the thread once it outgrows that.
//!
//! A usual event fits on the stack, so a thread needs no memory of its own for it, a `Serialize` that publishes does not meet
//! the buffer that it is being written to, and a thread that lives for one event allocates nothing. An event that is larger
//! moves to the thread's buffer, which is as large as the largest event from its first use on and is kept.
//!
//! All raw writing of the encoder is here. It is bounds-checked at every step: the cursor never passes `end`.

#![expect(unsafe_code, reason = "a cursor over memory that is not initialized; every write is checked")]

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};

/// Bytes on the stack: the usual event several times over. It is not initialized, so its size costs nothing.
pub(super) const STACK_BYTES: usize = 2048;

/// Copies of up to this many bytes are made with a few moves in place of a call of `memcpy`: 18 ns in place of 23 for the
/// walk over the price estimate of `benches/publish.rs`.
const INLINE_COPY_MAX: usize = 64;

thread_local! {
    /// Taken while in use, so that a `Serialize` which publishes gets an empty one and not this one.
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The bytes do not fit below the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Bytes that grow up to a limit. Once it was full it stays full, also for a caller that goes on after the error.
///
/// Invariant: `start ..= end` lies in one live block of memory that is ours to write, and `start ..at` is initialized. The block
/// is the stack's, or, if `kept_capacity` is not zero, that of a vector of this capacity.
pub(super) struct Buffer<'stack> {
    at: *mut u8,
    end: *mut u8,
    start: *mut u8,
    bytes_max: usize,
    kept_capacity: usize,
    is_full: bool,
    is_spoiled: bool,
    stack: PhantomData<&'stack mut [MaybeUninit<u8>]>,
}

impl<'stack> Buffer<'stack> {
    /// An empty buffer for at most `bytes_max` bytes.
    #[inline]
    pub(super) fn new(stack: &'stack mut [MaybeUninit<u8>; STACK_BYTES], bytes_max: usize) -> Self {
        let start = stack.as_mut_ptr().cast::<u8>();
        Self {
            at: start,
            end: start.wrapping_add(STACK_BYTES.min(bytes_max)),
            start,
            bytes_max,
            kept_capacity: 0,
            is_full: false,
            is_spoiled: false,
            stack: PhantomData,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.at.addr() - self.start.addr()
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the invariant: initialized up to `at`, and nobody writes while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.start, self.len()) }
    }

    /// Whether something did not fit.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether it is full, or what is in it makes no sense because something was begun and not finished.
    #[inline]
    pub(super) fn is_broken(&self) -> bool {
        self.is_full | self.is_spoiled
    }

    pub(super) fn set_spoiled(&mut self, is_spoiled: bool) {
        self.is_spoiled = is_spoiled;
    }

    /// Forgets all from `len` on, and that it was full or spoiled.
    pub(super) fn truncate(&mut self, len: usize) {
        assert!(len <= self.len());
        self.is_spoiled = false;
        self.at = self.start.wrapping_add(len);
        self.is_full = false;
        let capacity = if self.kept_capacity == 0 { STACK_BYTES } else { self.kept_capacity };
        self.end = self.start.wrapping_add(capacity.min(self.bytes_max));
    }

    /// Appends a tag and a number's bytes, or anything else whose length is known when this is compiled.
    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), Full> {
        self.make_room(N)?;
        // A copy, so that the compiler need not ask itself whether the write changes the cursor.
        let at = self.at;
        // SAFETY: there is room for N bytes from `at` on.
        unsafe { at.cast::<[u8; N]>().write(bytes) };
        self.at = at.wrapping_add(N);
        Ok(())
    }

    /// Appends `head` and the bytes after it, with one look at the room.
    #[inline(always)]
    pub(super) fn put_with<const N: usize>(&mut self, head: [u8; N], bytes: &[u8]) -> Result<(), Full> {
        self.make_room(N + bytes.len())?;
        let at = self.at;
        // SAFETY: there is room for N bytes from `at` on, and for `bytes` behind them; `bytes` is a live slice and cannot
        // lie in memory that is ours alone.
        unsafe {
            at.cast::<[u8; N]>().write(head);
            copy(bytes, at.add(N));
        }
        self.at = at.wrapping_add(N + bytes.len());
        Ok(())
    }

    /// Appends the first `len` bytes of `bytes`, by copying all of them where that is possible.
    #[inline]
    pub(super) fn put_first<const N: usize>(&mut self, bytes: &[u8; N], len: usize) -> Result<(), Full> {
        assert!(len <= N);
        if N > self.end.addr() - self.at.addr() {
            return self.put_with([], &bytes[..len]);
        }
        let at = self.at;
        // SAFETY: there is room for N bytes from `at` on.
        unsafe { at.cast::<[u8; N]>().write(*bytes) };
        self.at = at.wrapping_add(len);
        Ok(())
    }

    /// Writes over bytes that are there already.
    pub(super) fn patch<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        assert!(at + N <= self.len());
        // SAFETY: the range is in the initialized part (checked above).
        unsafe { self.start.add(at).cast::<[u8; N]>().write(bytes) };
    }

    #[inline(always)]
    fn make_room(&mut self, len: usize) -> Result<(), Full> {
        if len <= self.end.addr() - self.at.addr() { Ok(()) } else { self.move_to_kept(len) }
    }

    /// Moves what there is to the thread's buffer. Fails if the limit does not allow for it, or if that is where it is already.
    #[cold]
    fn move_to_kept(&mut self, more: usize) -> Result<(), Full> {
        let len = self.len();
        if self.is_full || self.kept_capacity > 0 || len + more > self.bytes_max {
            self.is_full = true;
            // Nothing fits any more, however small.
            self.end = self.at;
            return Err(Full);
        }
        // When the thread is ending its buffer may be gone already; an event of a destructor gets one for itself.
        let mut kept = KEPT.try_with(Cell::take).unwrap_or_default();
        kept.clear();
        kept.reserve_exact(self.bytes_max);
        kept.extend_from_slice(self.bytes());
        let mut kept = ManuallyDrop::new(kept);
        self.kept_capacity = kept.capacity();
        self.start = kept.as_mut_ptr();
        self.at = self.start.wrapping_add(len);
        self.end = self.start.wrapping_add(self.bytes_max);
        Ok(())
    }

    #[cold]
    fn give_back(&mut self) {
        // SAFETY: it is the block of the vector that `move_to_kept` has taken apart, with its capacity; it is put together
        // once, because the buffer ends here.
        let kept = unsafe { Vec::from_raw_parts(self.start, 0, self.kept_capacity) };
        let _ = KEPT.try_with(|cell| cell.set(kept));
    }
}

impl Drop for Buffer<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.kept_capacity > 0 {
            self.give_back();
        }
    }
}

/// Copies short byte strings with overlapping moves from both ends.
///
/// # Safety
///
/// `to` is valid for writing `from.len()` bytes, and does not overlap `from`.
#[inline(always)]
unsafe fn copy(from: &[u8], to: *mut u8) {
    let len = from.len();
    if len > INLINE_COPY_MAX {
        // SAFETY: our caller's promise is the same.
        return unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, len) };
    }
    // SAFETY: each width is at most `len`, so its first and its last bytes lie inside both.
    unsafe {
        match len {
            33.. => ends::<32>(from, to),
            17.. => ends::<16>(from, to),
            8.. => ends::<8>(from, to),
            4.. => ends::<4>(from, to),
            2.. => ends::<2>(from, to),
            1 => ends::<1>(from, to),
            0 => {}
        }
    }
}

/// Copies the first and the last `N` bytes, which together are all if there are no more than twice as many.
///
/// # Safety
///
/// As [`copy`], and `from` has at least `N` bytes.
#[inline(always)]
unsafe fn ends<const N: usize>(from: &[u8], to: *mut u8) {
    let last = from.len() - N;
    // SAFETY: both ranges of N bytes lie in `from`, hence in `to`; all is read before anything is written.
    unsafe {
        let head = from.as_ptr().cast::<[u8; N]>().read();
        let tail = from.as_ptr().add(last).cast::<[u8; N]>().read();
        to.cast::<[u8; N]>().write(head);
        to.add(last).cast::<[u8; N]>().write(tail);
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn with<R>(bytes_max: usize, test: impl FnOnce(&mut Buffer<'_>) -> R) -> R {
        test(&mut Buffer::new(&mut [const { MaybeUninit::uninit() }; STACK_BYTES], bytes_max))
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + len) as u8).collect()
    }

    #[test]
    fn every_length_is_copied_whole_and_nothing_beside_it_is_touched() {
        with(1 << 20, |buffer| {
            let mut expected = Vec::new();
            for len in (0..200).chain([STACK_BYTES, 5000]) {
                let bytes = pattern(len);
                buffer.put_with([0xAA, len as u8], &bytes).unwrap();
                buffer.put([0x55]).unwrap();
                expected.extend_from_slice(&[0xAA, len as u8]);
                expected.extend_from_slice(&bytes);
                expected.push(0x55);
                assert_eq!(buffer.bytes(), expected, "after {len} bytes");
            }
        });
    }

    #[test]
    fn it_takes_as_much_as_the_limit_and_no_byte_more() {
        for bytes_max in [0, 1, 100, STACK_BYTES - 1, STACK_BYTES, STACK_BYTES + 1, 10_000] {
            with(bytes_max, |buffer| {
                for at in 0..bytes_max {
                    assert_eq!(buffer.put([at as u8]), Ok(()), "byte {at} of {bytes_max}");
                }
                assert_eq!((buffer.put([1]), buffer.len()), (Err(Full), bytes_max));
                assert!(buffer.is_full());
                assert!(buffer.bytes().iter().enumerate().all(|(at, &byte)| byte == at as u8));
            });
        }
    }

    #[test]
    fn what_was_full_stays_full_until_it_is_truncated() {
        for bytes_max in [100, 5000] {
            with(bytes_max, |buffer| {
                buffer.put([1, 2, 3]).unwrap();
                assert_eq!(buffer.put_with([], &pattern(bytes_max)), Err(Full));
                assert_eq!(buffer.put([4]), Err(Full), "although one byte would fit");
                assert_eq!(buffer.bytes(), [1, 2, 3]);
                buffer.truncate(2);
                assert!(!buffer.is_full());
                assert_eq!(buffer.put_with([], &pattern(bytes_max - 2)), Ok(()));
                assert_eq!(&buffer.bytes()[..2], [1, 2]);
                assert_eq!(buffer.bytes()[2..], pattern(bytes_max - 2));
            });
        }
    }

    #[test]
    fn the_first_bytes_of_an_array_are_appended_also_where_the_whole_would_not_fit() {
        for bytes_max in [100, 10] {
            with(bytes_max, |buffer| {
                buffer.put_first(&[1; 16], 3).unwrap();
                buffer.put_first(&[2; 16], 7).unwrap();
                assert_eq!(buffer.bytes(), [1, 1, 1, 2, 2, 2, 2, 2, 2, 2]);
            });
        }
    }

    #[test]
    fn bytes_can_be_patched_where_they_are() {
        with(100, |buffer| {
            buffer.put([0; 8]).unwrap();
            buffer.patch(2, [7, 8]);
            assert_eq!(buffer.bytes(), [0, 0, 7, 8, 0, 0, 0, 0]);
        });
    }

    #[test]
    fn a_buffer_inside_a_buffer_has_memory_of_its_own() {
        with(1 << 16, |outer| {
            outer.put_with([], &pattern(3000)).unwrap();
            with(1 << 16, |inner| {
                inner.put_with([], &pattern(4000)).unwrap();
                assert_eq!(inner.bytes(), pattern(4000));
            });
            assert_eq!(outer.bytes(), pattern(3000));
        });
    }
}
