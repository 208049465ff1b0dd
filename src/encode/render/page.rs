//! The room that JSON is printed into.
//!
//! Bytes that are there already, zeros, with an index to where the next one goes: so that putting something down is one comparison
//! and some stores, and what is short goes down in pieces of a fixed size, with what is too much written over by the next.
//! Where the room ends, printing ends, and whoever gave the room gives more of it for another try.

use super::plain::{self, needs_escape};

/// Printing has come to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is too little room.
    Full,
    /// What was to be printed is no tape.
    NoTape,
    /// It would be no JSON, or none that readers can read.
    Unreadable,
}

pub(super) type Printed = Result<(), Fault>;

/// Bytes that are looked at and copied at once.
pub(super) const PIECE: usize = 16;

/// A piece and what stands around it.
const PIECE_AND_PUNCTUATION: usize = PIECE + 4;

/// A text of at most 255 bytes, mostly a few.
#[derive(Clone, Copy)]
pub(super) struct Short<'a> {
    pub(super) text: &'a [u8],
    /// The tape from where the text begins.
    pub(super) ahead: Option<&'a [u8; PIECE]>,
}

pub(super) struct Page<'a> {
    room: &'a mut [u8],
    at: usize,
}

impl<'a> Page<'a> {
    /// Appends to `out` what `print` puts on a page; begins with room for `bytes` and doubles it until that is enough.
    #[inline(always)]
    pub(super) fn append(
        out: &mut Vec<u8>,
        mut bytes: usize,
        print: impl Fn(&mut Page<'_>) -> Printed,
    ) -> Printed {
        let start = out.len();
        loop {
            out.resize(start + bytes, 0);
            let mut page = Page { room: &mut out[start..], at: 0 };
            let printed = print(&mut page);
            let len = page.at;
            match printed {
                Err(Fault::Full) => bytes *= 2,
                printed => {
                    out.truncate(start + len);
                    return printed;
                }
            }
        }
    }

    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Printed {
        *self.window()? = bytes;
        self.at += N;
        Ok(())
    }

    #[inline]
    pub(super) fn put_all(&mut self, bytes: &[u8]) -> Printed {
        self.room.get_mut(self.at..self.at + bytes.len()).ok_or(Fault::Full)?.copy_from_slice(bytes);
        self.at += bytes.len();
        Ok(())
    }

    /// Puts a text down as it stands in a JSON string, between `before` and `after`, which together have at most four bytes.
    ///
    /// What is short enough is looked at and copied with what follows it on the tape, which is then written over.
    #[inline(always)]
    pub(super) fn put_short<const B: usize, const A: usize>(
        &mut self,
        before: [u8; B],
        text: Short<'_>,
        after: [u8; A],
    ) -> Printed {
        let len = text.text.len();
        match text.ahead {
            Some(ahead) if len <= PIECE && plain::is_plain_up_to(ahead, len) => {
                let window = self.window::<PIECE_AND_PUNCTUATION>()?;
                window[..B].copy_from_slice(&before);
                window[B..B + PIECE].copy_from_slice(ahead);
                window[B + len..B + len + A].copy_from_slice(&after);
                self.at += B + len + A;
                Ok(())
            }
            _ => {
                self.put(before)?;
                self.put_escaped(text.text)?;
                self.put(after)
            }
        }
    }

    /// Puts a text down as it stands in a JSON string.
    #[inline]
    pub(super) fn put_escaped(&mut self, text: &[u8]) -> Printed {
        let place = self.room.get_mut(self.at..self.at + text.len()).ok_or(Fault::Full)?;
        if !plain::copy(text, place) {
            return self.put_byte_by_byte(text);
        }
        self.at += text.len();
        Ok(())
    }

    #[cold]
    fn put_byte_by_byte(&mut self, mut text: &[u8]) -> Printed {
        while let Some(plain) = text.iter().position(|&byte| needs_escape(byte)) {
            let (run, rest) = text.split_at(plain);
            self.put_all(run)?;
            self.put_escape(rest[0])?;
            text = &rest[1..];
        }
        self.put_all(text)
    }

    #[cold]
    fn put_escape(&mut self, byte: u8) -> Printed {
        let letter = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            0x09 => b't',
            0x0A => b'n',
            0x0C => b'f',
            0x0D => b'r',
            _ => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                return self.put([b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xF)]);
            }
        };
        self.put([b'\\', letter])
    }

    /// The next bytes to be written.
    #[inline(always)]
    fn window<const N: usize>(&mut self) -> Result<&mut [u8; N], Fault> {
        self.room.get_mut(self.at..).and_then(<[u8]>::first_chunk_mut).ok_or(Fault::Full)
    }
}
