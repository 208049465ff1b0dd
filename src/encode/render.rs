//! From a tape to JSON, on the worker: byte for byte what serde_json prints.
//!
//! Safe code over plain bytes. A tape that makes no sense, which would be a bug of ours, ends in `None` and nothing worse.

use super::op;
use serde::Serialize;

/// Appends the JSON that the tape stands for to `out`; `None` if it is no tape.
pub(crate) fn render(tape: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // Most tapes print a little longer than they are.
    out.reserve(tape.len() * 2);
    let mut rest = Reader(tape);
    while let Some(op) = rest.byte() {
        match op {
            b'{' | b'}' | b'[' | b']' | b',' | b':' | b'"' => out.push(op),
            op::NEXT_FIELD => name(out, b",\"", rest.short()?),
            op::FIELD => name(out, b"\"", rest.short()?),
            op::STR_SHORT => quoted(out, rest.short()?),
            op::STR => quoted(out, rest.long()?),
            op::NULL => out.extend_from_slice(b"null"),
            op::FALSE => out.extend_from_slice(b"false"),
            op::TRUE => out.extend_from_slice(b"true"),
            op::U8 => integer(out, u8::from_ne_bytes(rest.array()?)),
            op::U16 => integer(out, u16::from_ne_bytes(rest.array()?)),
            op::U32 => integer(out, u32::from_ne_bytes(rest.array()?)),
            op::U64 => integer(out, u64::from_ne_bytes(rest.array()?)),
            op::U128 => integer(out, u128::from_ne_bytes(rest.array()?)),
            op::I8 => integer(out, i8::from_ne_bytes(rest.array()?)),
            op::I16 => integer(out, i16::from_ne_bytes(rest.array()?)),
            op::I32 => integer(out, i32::from_ne_bytes(rest.array()?)),
            op::I64 => integer(out, i64::from_ne_bytes(rest.array()?)),
            op::I128 => integer(out, i128::from_ne_bytes(rest.array()?)),
            op::F32 => float(out, f32::from_ne_bytes(rest.array()?)),
            op::F64 => float(out, f64::from_ne_bytes(rest.array()?)),
            op::BYTES => numbers(out, rest.long()?),
            op::VERBATIM => out.extend_from_slice(rest.long()?),
            _ => return None,
        }
    }
    Some(())
}

/// Appends text as a JSON string.
pub(crate) fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    #[inline]
    fn short(&mut self) -> Option<&'a [u8]> {
        let len = self.byte()?;
        self.bytes(len.into())
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_ne_bytes(self.array()?);
        self.bytes(len as usize)
    }

    #[inline]
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[inline]
fn name(out: &mut Vec<u8>, before: &[u8], name: &[u8]) {
    out.reserve(before.len() + name.len() + 2);
    out.extend_from_slice(before);
    escaped(out, name);
    out.extend_from_slice(b"\":");
}

#[inline]
fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// How a float is printed is serde_json's own affair, and has changed between its versions.
fn float(out: &mut Vec<u8>, value: impl Serialize) {
    // A float into a vector: there is no way to fail.
    let _ = serde_json::to_writer(out, &value);
}

fn numbers(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'[');
    for (at, &byte) in bytes.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        integer(out, byte);
    }
    out.push(b']');
}

/// Bytes looked at together; what the vector instructions of every machine can hold.
const CHUNK: usize = 16;

#[inline]
fn escaped(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(plain) = first_escape(text) {
        let (run, rest) = text.split_at(plain);
        out.extend_from_slice(run);
        escape(out, rest[0]);
        text = &rest[1..];
    }
    out.extend_from_slice(text);
}

/// The index of the first byte that cannot stand in a JSON string as it is.
#[inline]
fn first_escape(text: &[u8]) -> Option<usize> {
    let (chunks, rest) = text.as_chunks::<CHUNK>();
    for (at, chunk) in chunks.iter().enumerate() {
        // Without a branch in it, so that the compiler makes vector instructions of it.
        if chunk.iter().fold(false, |any, &byte| any | needs_escape(byte)) {
            return chunk.iter().position(|&byte| needs_escape(byte)).map(|index| at * CHUNK + index);
        }
    }
    let start = text.len() - rest.len();
    rest.iter().position(|&byte| needs_escape(byte)).map(|index| start + index)
}

#[inline(always)]
fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cold]
fn escape(out: &mut Vec<u8>, byte: u8) {
    let letter = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x09 => b't',
        0x0A => b'n',
        0x0C => b'f',
        0x0D => b'r',
        _ => {
            let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xF)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', letter]);
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_byte_at_every_place_is_escaped_as_serde_json_escapes_it() {
        for code in (0..=0x250).chain([0x2028, 0xFFFF, 0x1F600]) {
            let odd = char::from_u32(code).unwrap();
            for before in 0..40 {
                let text = format!("{}{odd}{}", "x".repeat(before), "y".repeat(40 - before));
                let mut out = Vec::new();
                quoted(&mut out, text.as_bytes());
                assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
            }
        }
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
