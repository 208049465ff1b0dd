//! From a tape to JSON, on the worker: byte for byte what serde_json prints.
//!
//! Safe code over plain bytes. A tape that makes no sense, which would be a bug of ours, ends in `None` and nothing worse. So does
//! one that would print what readers cannot read: text of a `RawValue` that is not JSON, or nesting beyond the limit of [`json`].

mod page;
mod plain;

use super::json::{self, DEPTH_MAX};
use super::op;
use page::{Fault, PIECE, Page, Printed, Short};
pub(super) use plain::plain_prefix;
use serde::Serialize;

/// Room beyond that for the tape: a short tape may be one long number.
const ROOM_MIN: usize = 64;

/// As long as any float that serde_json prints, and more.
const FLOAT_BYTES_MAX: usize = 64;

/// Appends the JSON that the tape stands for to `out`; `None` if it is no tape, or no JSON that readers could read.
pub(crate) fn render(tape: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // Most tapes print a little longer than they are.
    Page::append(out, tape.len() * 2 + ROOM_MIN, |page| print(tape, page)).ok()
}

/// Appends text as a JSON string.
pub(crate) fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    let print = |page: &mut Page<'_>| quote(text, page);
    Page::append(out, text.len() + ROOM_MIN, print).expect("a text is no tape that could be broken");
}

#[inline(always)]
fn print(tape: &[u8], page: &mut Page<'_>) -> Printed {
    let mut rest = Reader(tape);
    let mut depth = 0;
    while let Some(op) = rest.next() {
        match op {
            b'{' | b'[' if depth == DEPTH_MAX => return Err(Fault::Unreadable),
            b'{' | b'[' => {
                depth += 1;
                page.put([op])?;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                page.put([op])?;
            }
            b',' | b':' | b'"' => page.put([op])?,
            op::NEXT_FIELD => page.put_short(*b",\"", rest.short()?, *b"\":")?,
            op::FIELD => page.put_short(*b"\"", rest.short()?, *b"\":")?,
            op::STR_SHORT => page.put_short(*b"\"", rest.short()?, *b"\"")?,
            op::STR => quote(rest.long()?, page)?,
            op::NULL => page.put(*b"null")?,
            op::FALSE => page.put(*b"false")?,
            op::TRUE => page.put(*b"true")?,
            op::U8 => integer(u8::from_ne_bytes(rest.array()?), page)?,
            op::U16 => integer(u16::from_ne_bytes(rest.array()?), page)?,
            op::U32 => integer(u32::from_ne_bytes(rest.array()?), page)?,
            op::U64 => integer(u64::from_ne_bytes(rest.array()?), page)?,
            op::U128 => integer(u128::from_ne_bytes(rest.array()?), page)?,
            op::I8 => integer(i8::from_ne_bytes(rest.array()?), page)?,
            op::I16 => integer(i16::from_ne_bytes(rest.array()?), page)?,
            op::I32 => integer(i32::from_ne_bytes(rest.array()?), page)?,
            op::I64 => integer(i64::from_ne_bytes(rest.array()?), page)?,
            op::I128 => integer(i128::from_ne_bytes(rest.array()?), page)?,
            op::F32 => float(f32::from_ne_bytes(rest.array()?), page)?,
            op::F64 => float(f64::from_ne_bytes(rest.array()?), page)?,
            op::BYTES => numbers(rest.long()?, page)?,
            op::VERBATIM => verbatim(rest.long()?, DEPTH_MAX - depth, page)?,
            _ => return Err(Fault::NoTape),
        }
    }
    Ok(())
}

fn quote(text: &[u8], page: &mut Page<'_>) -> Printed {
    page.put(*b"\"")?;
    page.put_escaped(text)?;
    page.put(*b"\"")
}

#[inline]
fn integer(value: impl itoa::Integer, page: &mut Page<'_>) -> Printed {
    page.put_all(itoa::Buffer::new().format(value).as_bytes())
}

/// How a float is printed is serde_json's own affair, and has changed between its versions.
fn float(value: impl Serialize, page: &mut Page<'_>) -> Printed {
    let mut text = [0; FLOAT_BYTES_MAX];
    let mut rest = &mut text[..];
    serde_json::to_writer(&mut rest, &value).map_err(|_| Fault::NoTape)?;
    let len = FLOAT_BYTES_MAX - rest.len();
    page.put_all(&text[..len])
}

fn numbers(bytes: &[u8], page: &mut Page<'_>) -> Printed {
    page.put(*b"[")?;
    for (at, &byte) in bytes.iter().enumerate() {
        if at > 0 {
            page.put(*b",")?;
        }
        integer(byte, page)?;
    }
    page.put(*b"]")
}

/// Whoever made the text says that it is JSON.
fn verbatim(text: &[u8], depth_max: u32, page: &mut Page<'_>) -> Printed {
    if json::is_json(text, depth_max) { page.put_all(text) } else { Err(Fault::Unreadable) }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next byte, if it is not the end.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Fault::NoTape)?;
        self.0 = rest;
        Ok(*array)
    }

    #[inline]
    fn short(&mut self) -> Result<Short<'a>, Fault> {
        let len = self.next().ok_or(Fault::NoTape)?;
        let ahead = self.0.first_chunk::<PIECE>();
        Ok(Short { text: self.bytes(len.into())?, ahead })
    }

    #[inline]
    fn long(&mut self) -> Result<&'a [u8], Fault> {
        let len = u32::from_ne_bytes(self.array()?);
        self.bytes(len as usize)
    }

    #[inline]
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Fault::NoTape)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_byte_at_every_place_is_escaped_as_serde_json_escapes_it() {
        for code in (0..=0x250).chain([0x2028, 0xFFFF, 0x1F600]) {
            let odd = char::from_u32(code).unwrap();
            for (before, len) in (0..40).flat_map(|len| (0..=len).map(move |before| (before, len))) {
                let text = format!("{}{odd}{}", "x".repeat(before), "y".repeat(len - before));
                let mut out = Vec::new();
                quoted(&mut out, text.as_bytes());
                assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
            }
        }
    }

    #[test]
    fn what_needs_more_room_than_expected_gets_it_and_leaves_alone_what_was_there() {
        for text in ["\u{1}".repeat(1000), "\"".repeat(65), "\\".repeat(5000), "plain".repeat(1000)] {
            let mut out = b"before".to_vec();
            quoted(&mut out, text.as_bytes());
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("before{}", serde_json::to_string(&text).unwrap())
            );
        }
        let nulls = [[b'['].as_slice(), &[op::NULL; 999], b"]"].concat();
        let mut out = b"before".to_vec();
        render(&nulls, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("before[{}]", "null".repeat(999)));
    }

    #[test]
    fn what_is_no_tape_is_refused() {
        for bytes in
            [&[op::U64, 1][..], &[op::STR_SHORT, 3, b'a'], &[op::STR, 0, 0, 0], &[op::FIELD], &[0xFF]]
        {
            assert_eq!(render(bytes, &mut Vec::new()), None, "{bytes:?}");
        }
    }
}
