//! Where a record is put together: first on the stack, and in a kept buffer of the thread once it outgrows that.
//!
//! A usual event fits on the stack, so a thread needs no memory of its own for it, a `Serialize` that publishes does not meet
//! the buffer that it is being written to, and a thread that lives for one event allocates nothing. An event that is larger
//! moves to the thread's buffer, which is as large as the largest event from its first use on and is kept.
//!
//! What writes is a [`Pen`]: two words, the place and the buffer, handed from one piece of a value to the next by value, so
//! that the place stays in a register and is not stored and loaded again for each piece. Into a value goes a [`Ready`] pen, which
//! has [`ROOM`] in front of it. So the room for a name and for the value that follows it is looked at once, and numbers and short
//! texts are written without a look.
//!
//! All raw writing of the encoder is here, and the pen never passes `end`.

#![expect(unsafe_code, reason = "a cursor over memory that is not initialized; every write is checked")]

use crate::record;
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;

/// Bytes on the stack: the usual event several times over. It is not initialized, so its size costs nothing.
pub(super) const STACK_BYTES: usize = 2048;

/// Copies of up to this many bytes are made with a few moves in place of a call of `memcpy`.
const INLINE_COPY_MAX: usize = 64;

/// Writes of up to this many bytes are checked by adding them to the place, which is one instruction less than asking how much is
/// left, and needs memory that does not end that near to the end of all addresses.
const NEAR: usize = 512;

/// How often the room may be used up by a value that does not fit. Its JSON may be shorter than its tape, though not so much: a digit and a comma take
/// eighteen bytes there at most.
const OVERRUNS_MAX: u16 = 16;

/// What an overrun leaves alone. The head of the record is in there, however long it is, so a buffer need not keep where it ends.
const KEPT_BY_OVERRUN: usize = record::OVERHEAD_BYTES_MAX;

/// Bytes in front of a pen that goes into a value: for any number, a short text, an opening and a closing.
pub(super) const ROOM: usize = 72;

thread_local! {
    /// Taken while in use, so that a `Serialize` which publishes gets an empty one and not this one.
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The bytes do not fit below the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Bytes that grow up to a limit. Once it was full it stays full.
///
/// **What does not fit is walked to its end**, since only that tells whether a piece of it fails. Its bytes are of no use: behind the head
/// ([`KEPT_BY_OVERRUN`]) they are written over again and again, up to [`OVERRUNS_MAX`] times. Only then does a pen fail for want of room.
///
/// Every event pays for each field that is to be set here, and for each that is asked for at the end of its walk.
///
/// There is [`ROOM`] behind the limit, so that a value which just fits is not refused for want of room that it would not have used. What
/// has come to lie there is found at the end.
///
/// Invariant: `start ..= end` lies in one live block of memory that is ours to write and that ends more than [`NEAR`] below the end of
/// all addresses; `start .. at` is initialized and `at` is at most `end`. The block is the stack's, or, if `kept_capacity` is not
/// zero, that of a vector of this capacity.
pub(super) struct Buffer<'stack> {
    /// Where the pen was laid down last; a pen that is in use is further on.
    at: *mut u8,
    end: *mut u8,
    start: *mut u8,
    bytes_max: usize,
    kept_capacity: usize,
    /// How often all room was used up; zero: it is not full.
    overruns: u16,
    is_spoiled: bool,
    texts: Texts,
    stack: PhantomData<&'stack mut [MaybeUninit<u8>]>,
}

impl<'stack> Buffer<'stack> {
    /// An empty buffer for at most `bytes_max` bytes.
    #[inline]
    pub(super) fn new(stack: &'stack mut [MaybeUninit<u8>; STACK_BYTES], bytes_max: usize) -> Self {
        let start = stack.as_mut_ptr().cast::<u8>();
        Self {
            at: start,
            end: far_from_the_end(start.wrapping_add(STACK_BYTES.min(bytes_max + ROOM))),
            start,
            bytes_max,
            kept_capacity: 0,
            overruns: 0,
            is_spoiled: false,
            texts: Texts::None,
            stack: PhantomData,
        }
    }

    /// The pen, at the end of what is written.
    #[inline]
    pub(super) fn pen(&mut self) -> Pen<'_, 'stack> {
        Pen { at: self.at, buffer: self }
    }

    /// The pen, before a value.
    #[inline]
    pub(super) fn ready(&mut self) -> Result<Ready<'_, 'stack>, Full> {
        self.pen().ready()
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
    fn is_full(&self) -> bool {
        (self.overruns > 0) | (self.len() > self.bytes_max)
    }

    /// Whether it is full, or what is in it makes no sense.
    #[inline]
    pub(super) fn is_broken(&self) -> bool {
        self.is_full() | self.is_spoiled
    }

    /// Says that what is in it makes no sense.
    #[cold]
    pub(super) fn spoil(&mut self) {
        self.is_spoiled = true;
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether a piece has failed, so that what is in it makes no sense, whatever came after it.
    pub(super) fn is_spoiled(&self) -> bool {
        self.is_spoiled
    }

    /// Whether so much did not fit that the walk was ended. Then nobody knows whether a piece would have failed.
    pub(super) fn is_hopeless(&self) -> bool {
        self.overruns > OVERRUNS_MAX
    }

    pub(super) fn texts(&self) -> Texts {
        self.texts
    }

    /// From now on a text that is to be printed as it is is looked at when it comes.
    pub(super) fn check_texts(&mut self) {
        self.texts = Texts::Checked;
    }

    /// Forgets all from `len` on, and that it was full or spoiled.
    pub(super) fn truncate(&mut self, len: usize) {
        assert!(len <= self.len());
        self.is_spoiled = false;
        self.at = self.start.wrapping_add(len);
        self.overruns = 0;
        self.end = far_from_the_end(self.start.wrapping_add(self.capacity().min(self.bytes_max + ROOM)));
    }

    /// Writes over bytes that are there already.
    pub(super) fn patch<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        assert!(at + N <= self.len());
        // SAFETY: the range is in the initialized part (checked above).
        unsafe { self.start.add(at).cast::<[u8; N]>().write(bytes) };
    }

    /// Bytes of the block.
    fn capacity(&self) -> usize {
        if self.kept_capacity == 0 { STACK_BYTES } else { self.kept_capacity }
    }

    /// Makes room for so many bytes: in the thread's buffer, or, if the limit does not allow for it or that is where it is already, by forgetting
    /// what is behind the head.
    #[cold]
    fn make_room(&mut self, more: usize) -> Result<(), Full> {
        let bytes_max = self.bytes_max + ROOM;
        if self.overruns == 0 && self.kept_capacity == 0 && self.len() + more <= bytes_max {
            self.move_to_kept();
            return Ok(());
        }
        self.overruns = self.overruns.saturating_add(1);
        self.at = self.start.wrapping_add(self.len().min(KEPT_BY_OVERRUN));
        if self.kept_capacity == 0 && self.capacity() < KEPT_BY_OVERRUN + bytes_max {
            self.move_to_kept();
        }
        if more > self.capacity() - KEPT_BY_OVERRUN {
            // One piece alone is longer than all may be.
            self.overruns = u16::MAX;
        }
        // When it is hopeless nothing fits any more, however small.
        let capacity = if self.is_hopeless() { self.len() } else { self.capacity() };
        self.end = far_from_the_end(self.start.wrapping_add(capacity));
        if self.is_hopeless() { Err(Full) } else { Ok(()) }
    }

    fn move_to_kept(&mut self) {
        let len = self.len();
        // When the thread is ending its buffer may be gone already; an event of a destructor gets one for itself.
        let mut kept = KEPT.try_with(Cell::take).unwrap_or_default();
        kept.clear();
        kept.reserve_exact(KEPT_BY_OVERRUN + self.bytes_max + ROOM);
        kept.extend_from_slice(self.bytes());
        let mut kept = ManuallyDrop::new(kept);
        self.kept_capacity = kept.capacity();
        self.start = kept.as_mut_ptr();
        self.at = self.start.wrapping_add(len);
        self.end = far_from_the_end(self.start.wrapping_add(self.bytes_max + ROOM));
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

/// Texts that are to be printed as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Texts {
    None,
    /// Some came. They are looked at by whoever prints them.
    Came,
    /// Each is looked at when it comes.
    Checked,
}

/// Holds for every block that a system gives out: the last page belongs to nobody.
#[inline]
fn far_from_the_end(end: *mut u8) -> *mut u8 {
    assert!(end.addr() < usize::MAX - NEAR);
    end
}

/// The hand that writes to a [`Buffer`].
///
/// While it is in use, the buffer does not know how far it is. Whoever has no more use for it drops it, and thereby lays it
/// down: then the buffer does.
pub(super) struct Pen<'buffer, 'stack> {
    /// Where the next byte goes: in the buffer's block, not below the buffer's `at`, and all before it is initialized.
    at: *mut u8,
    buffer: &'buffer mut Buffer<'stack>,
}

impl<'buffer, 'stack> Pen<'buffer, 'stack> {
    /// Bytes written so far.
    pub(super) fn len(&self) -> usize {
        self.at.addr() - self.buffer.start.addr()
    }

    /// Appends a tag and a number's bytes, or anything else whose length is known when this is compiled.
    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), Full> {
        self.make_room(N)?;
        // SAFETY: there is room for N bytes from `at` on.
        unsafe { self.at.cast::<[u8; N]>().write(bytes) };
        self.at = self.at.wrapping_add(N);
        Ok(())
    }

    /// Appends `head` and the bytes after it, with one look at the room.
    #[inline(always)]
    pub(super) fn put_with<const N: usize>(&mut self, head: [u8; N], bytes: &[u8]) -> Result<(), Full> {
        self.make_room(N + bytes.len())?;
        // SAFETY: there is room for N bytes from `at` on, and for `bytes` behind them; `bytes` is a live slice and cannot
        // lie in memory that is ours alone.
        unsafe {
            self.at.cast::<[u8; N]>().write(head);
            copy(bytes, self.at.add(N));
        }
        self.at = self.at.wrapping_add(N + bytes.len());
        Ok(())
    }

    /// Appends the first `len` bytes of `bytes`, by copying all of them where that is possible.
    #[inline]
    pub(super) fn put_first<const N: usize>(&mut self, bytes: &[u8; N], len: usize) -> Result<(), Full> {
        assert!(len <= N);
        if N > self.buffer.end.addr() - self.at.addr() {
            return self.put_with([], &bytes[..len]);
        }
        // SAFETY: there is room for N bytes from `at` on.
        unsafe { self.at.cast::<[u8; N]>().write(*bytes) };
        self.at = self.at.wrapping_add(len);
        Ok(())
    }

    /// Makes room for a value.
    #[inline(always)]
    pub(super) fn ready(mut self) -> Result<Ready<'buffer, 'stack>, Full> {
        self.make_room(ROOM)?;
        Ok(Ready(self))
    }

    /// Writes over bytes that are there already.
    pub(super) fn patch<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.buffer.at = self.at;
        self.buffer.patch(at, bytes);
    }

    /// Says that a text comes that is to be printed as it is. Returns whether it is to be looked at now.
    pub(super) fn expect_text(&mut self) -> bool {
        let is_checked = self.buffer.texts == Texts::Checked;
        if !is_checked {
            self.buffer.texts = Texts::Came;
        }
        is_checked
    }

    /// Whether all that was written is there.
    pub(super) fn is_whole(&self) -> bool {
        self.buffer.overruns == 0
    }

    /// Says that what is written makes no sense, or that it does again. Returns what was said before.
    pub(super) fn set_spoiled(&mut self, is_spoiled: bool) -> bool {
        std::mem::replace(&mut self.buffer.is_spoiled, is_spoiled)
    }

    /// Appends `head` and the bytes after it, lets `write` go on with the pen, and takes it back: from its hand, or, if it failed or
    /// panicked, from where it was laid down. Then what is written is spoiled, whatever the caller makes of the error.
    #[inline(always)]
    pub(super) fn put_and_lend<const N: usize, E: From<Full>>(
        &mut self,
        head: [u8; N],
        bytes: &[u8],
        write: impl for<'lent> FnOnce(Ready<'lent, 'stack>) -> Result<Pen<'lent, 'stack>, E>,
    ) -> Result<(), E> {
        self.make_room(N + bytes.len() + ROOM)?;
        // SAFETY: there is room for all of it from `at` on; `bytes` is a live slice and cannot lie in memory that is ours alone.
        unsafe {
            self.at.cast::<[u8; N]>().write(head);
            copy(bytes, self.at.add(N));
        }
        self.at = self.at.wrapping_add(N + bytes.len());
        let lent = Lent(self);
        let at = write(Ready(Pen { at: lent.0.at, buffer: &mut *lent.0.buffer }))?.keep();
        ManuallyDrop::new(lent).0.at = at;
        Ok(())
    }

    /// The place, without laying the pen down.
    #[inline(always)]
    fn keep(self) -> *mut u8 {
        ManuallyDrop::new(self).at
    }

    #[inline(always)]
    fn make_room(&mut self, len: usize) -> Result<(), Full> {
        let fits = if len <= NEAR {
            // Does not wrap: the buffer's invariant.
            self.at.addr() + len <= self.buffer.end.addr()
        } else {
            len <= self.buffer.end.addr() - self.at.addr()
        };
        if fits {
            return Ok(());
        }
        self.at = grow(self.buffer, self.at, len)?.as_ptr();
        Ok(())
    }
}

impl Drop for Pen<'_, '_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.buffer.at = self.at;
    }
}

/// A pen with [`ROOM`] in front of it.
pub(super) struct Ready<'buffer, 'stack>(Pen<'buffer, 'stack>);

impl<'buffer, 'stack> Ready<'buffer, 'stack> {
    /// Writes a tag and a number's bytes, or anything else whose length is known when this is compiled.
    #[inline(always)]
    pub(super) fn put<const N: usize>(self, bytes: [u8; N]) -> Pen<'buffer, 'stack> {
        const { assert!(N <= ROOM) };
        let mut pen = self.0;
        // SAFETY: there is `ROOM` from `at` on.
        unsafe { pen.at.cast::<[u8; N]>().write(bytes) };
        pen.at = pen.at.wrapping_add(N);
        pen
    }

    /// Writes `head` and the bytes after it if these are few enough; else gives itself back.
    #[inline(always)]
    pub(super) fn put_if_short<const N: usize>(
        self,
        head: [u8; N],
        bytes: &[u8],
    ) -> Result<Pen<'buffer, 'stack>, Self> {
        const { assert!(N + INLINE_COPY_MAX <= ROOM) };
        if bytes.len() > INLINE_COPY_MAX {
            return Err(self);
        }
        let mut pen = self.0;
        // SAFETY: there is `ROOM` from `at` on; `bytes` is a live slice and cannot lie in memory that is ours alone.
        unsafe {
            pen.at.cast::<[u8; N]>().write(head);
            copy_short(bytes, pen.at.add(N));
        }
        pen.at = pen.at.wrapping_add(N + bytes.len());
        Ok(pen)
    }

    /// For what may need more.
    #[inline(always)]
    pub(super) fn into_pen(self) -> Pen<'buffer, 'stack> {
        self.0
    }
}

/// A pen in somebody else's hand.
struct Lent<'pen, 'buffer, 'stack>(&'pen mut Pen<'buffer, 'stack>);

impl Drop for Lent<'_, '_, '_> {
    #[inline(always)]
    fn drop(&mut self) {
        // It may be in another block by now.
        self.0.at = self.0.buffer.at;
        self.0.buffer.is_spoiled = true;
    }
}

/// Makes room for `more` bytes behind `at`, and says where. Takes and gives the place as a value: a reference to it would keep it out
/// of the registers.
#[cold]
fn grow(buffer: &mut Buffer<'_>, at: *mut u8, more: usize) -> Result<NonNull<u8>, Full> {
    buffer.at = at;
    buffer.make_room(more)?;
    NonNull::new(buffer.at).ok_or(Full)
}

/// Copies byte strings of any length.
///
/// # Safety
///
/// `to` is valid for writing `from.len()` bytes, and does not overlap `from`.
#[inline(always)]
unsafe fn copy(from: &[u8], to: *mut u8) {
    // SAFETY: our caller's promise is the same.
    unsafe {
        if from.len() <= INLINE_COPY_MAX {
            copy_short(from, to);
        } else {
            std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len());
        }
    }
}

/// Copies a byte string of at most [`INLINE_COPY_MAX`] bytes with overlapping moves from both ends.
///
/// # Safety
///
/// As [`copy`].
#[inline(always)]
unsafe fn copy_short(from: &[u8], to: *mut u8) {
    debug_assert!(from.len() <= INLINE_COPY_MAX);
    let len = from.len();
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
    use std::panic::{AssertUnwindSafe, catch_unwind};

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
                buffer.pen().put_with([0xAA, len as u8], &bytes).unwrap();
                buffer.pen().put([0x55]).unwrap();
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
                    assert_eq!(buffer.pen().put([at as u8]), Ok(()), "byte {at} of {bytes_max}");
                }
                assert!(!buffer.is_full());
                for at in bytes_max..bytes_max + ROOM {
                    assert_eq!(
                        buffer.pen().put([at as u8]),
                        Ok(()),
                        "byte {at}, in the room behind the limit"
                    );
                    assert!(buffer.is_full());
                }
                assert_eq!(buffer.len(), bytes_max + ROOM);
                assert!(buffer.bytes().iter().enumerate().all(|(at, &byte)| byte == at as u8));
                assert_eq!(buffer.pen().put([1]), Ok(()), "it begins again");
                assert_eq!(buffer.len(), KEPT_BY_OVERRUN.min(bytes_max + ROOM) + 1);
                assert!(buffer.is_full());
            });
        }
    }

    #[test]
    fn what_does_not_fit_is_written_over_behind_the_head_up_to_a_limit() {
        for (body_bytes_max, piece) in [(64, 1), (64, 120), (5000, 1), (5000, 777), (5000, 5000)] {
            let mut stack = [const { MaybeUninit::uninit() }; STACK_BYTES];
            let mut buffer = Buffer::new(&mut stack, 3 + body_bytes_max);
            buffer.pen().put([1, 2, 3]).unwrap();
            let (mut written, piece) = (0, pattern(piece));
            let all_room = STACK_BYTES.max(body_bytes_max) + ROOM;
            while buffer.pen().put_with([], &piece).is_ok() {
                written += piece.len();
                assert_eq!(buffer.bytes()[..3], [1, 2, 3]);
                assert_eq!(buffer.is_full(), written > body_bytes_max, "{written} of {body_bytes_max}");
                assert!(!buffer.is_hopeless() && written <= (OVERRUNS_MAX as usize + 2) * all_room);
            }
            assert!(buffer.is_hopeless() && written > 9 * body_bytes_max, "{written} of {body_bytes_max}");
            assert_eq!(buffer.pen().put([4]), Err(Full), "although one byte would fit");
            buffer.truncate(3);
            assert!(!buffer.is_full() && buffer.bytes() == [1, 2, 3]);
            assert_eq!(buffer.pen().put_with([], &pattern(body_bytes_max)), Ok(()));
            assert_eq!(buffer.bytes()[3..], pattern(body_bytes_max));
        }
    }

    #[test]
    fn a_piece_that_is_longer_than_all_may_be_ends_it_and_one_that_is_not_does_not() {
        for body_bytes_max in [100, 5000] {
            with(body_bytes_max, |buffer| {
                buffer.pen().put_with([], &pattern(90)).unwrap();
                assert_eq!(buffer.pen().put_with([], &pattern(body_bytes_max + ROOM)), Ok(()));
                assert!(buffer.is_full() && !buffer.is_hopeless());
                assert_eq!(buffer.pen().put_with([], &pattern(STACK_BYTES + body_bytes_max)), Err(Full));
                assert!(buffer.is_hopeless());
            });
        }
    }

    #[test]
    fn the_first_bytes_of_an_array_are_appended_also_where_the_whole_would_not_fit() {
        for bytes_max in [100, 10] {
            with(bytes_max, |buffer| {
                buffer.pen().put_first(&[1; 16], 3).unwrap();
                buffer.pen().put_first(&[2; 16], 7).unwrap();
                assert_eq!(buffer.bytes(), [1, 1, 1, 2, 2, 2, 2, 2, 2, 2]);
            });
        }
    }

    #[test]
    fn bytes_can_be_patched_where_they_are() {
        with(100, |buffer| {
            buffer.pen().put([0; 8]).unwrap();
            buffer.patch(2, [7, 8]);
            assert_eq!(buffer.bytes(), [0, 0, 7, 8, 0, 0, 0, 0]);
        });
    }

    #[test]
    fn a_buffer_inside_a_buffer_has_memory_of_its_own() {
        with(1 << 16, |outer| {
            outer.pen().put_with([], &pattern(3000)).unwrap();
            with(1 << 16, |inner| {
                inner.pen().put_with([], &pattern(4000)).unwrap();
                assert_eq!(inner.bytes(), pattern(4000));
            });
            assert_eq!(outer.bytes(), pattern(3000));
        });
    }

    #[test]
    fn a_pen_that_was_lent_comes_back_where_it_was_left_also_by_an_error_or_a_panic_and_from_another_block() {
        for len in [10, STACK_BYTES] {
            with(1 << 16, |buffer| {
                let mut pen = buffer.pen();
                let lent: Result<(), Full> = pen.put_and_lend([1], b"x", |ready| {
                    let mut pen = ready.put([2]);
                    pen.put_with([], &pattern(len))?;
                    Ok(pen)
                });
                assert_eq!((lent, pen.len()), (Ok(()), 3 + len));
                assert!(!pen.buffer.is_spoiled());
                let failed = pen.put_and_lend([], &[], |ready| {
                    ready.into_pen().put_with([], &pattern(len))?;
                    Err(Full)
                });
                assert_eq!((failed, pen.len()), (Err(Full), 3 + 2 * len));
                assert!(pen.set_spoiled(false));
                let panicked = catch_unwind(AssertUnwindSafe(|| {
                    pen.put_and_lend::<0, Full>([], &[], |ready| {
                        ready.into_pen().put_with([], &pattern(len))?;
                        panic!("on purpose");
                    })
                }));
                assert!(panicked.is_err() && pen.len() == 3 + 3 * len && pen.buffer.is_spoiled());
                pen.put([3]).unwrap();
                drop(pen);
                let expected = [&[1, b'x', 2][..], &pattern(len).repeat(3), &[3]].concat();
                assert_eq!(buffer.bytes(), expected);
            });
        }
    }

    #[test]
    fn a_pen_that_is_ready_takes_all_short_texts_and_no_long_one() {
        for (len, is_short) in [(0, true), (INLINE_COPY_MAX, true), (INLINE_COPY_MAX + 1, false)] {
            with(STACK_BYTES, |buffer| {
                buffer.pen().put_with([], &pattern(STACK_BYTES - ROOM)).unwrap();
                let written = buffer.ready().unwrap().put_if_short([1, 2], &pattern(len));
                assert_eq!(written.is_ok(), is_short);
                drop(written);
                let expected = [pattern(STACK_BYTES - ROOM), vec![1, 2], pattern(len)].concat();
                assert_eq!(buffer.bytes() == expected, is_short);
            });
        }
    }
}
