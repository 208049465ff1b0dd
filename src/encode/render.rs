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
            op::NEXT_FIELD => {
                out.extend_from_slice(b",\"");
                rest.short()?.escaped(out);
                out.extend_from_slice(b"\":");
            }
            op::FIELD => {
                out.push(b'"');
                rest.short()?.escaped(out);
                out.extend_from_slice(b"\":");
            }
            op::STR_SHORT => {
                out.push(b'"');
                rest.short()?.escaped(out);
                out.push(b'"');
            }
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
    fn short(&mut self) -> Option<Short<'a>> {
        let len = self.byte()?;
        let ahead = self.0.first_chunk();
        Some(Short { text: self.bytes(len.into())?, ahead })
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

/// A text of at most 255 bytes, mostly a few.
struct Short<'a> {
    text: &'a [u8],
    /// The tape from where the text begins.
    ahead: Option<&'a [u8; 16]>,
}

impl Short<'_> {
    /// Appends the text as it stands in a JSON string. What is short enough is looked at and copied with what follows it on the
    /// tape, sixteen bytes at once, which is then forgotten.
    #[inline]
    fn escaped(self, out: &mut Vec<u8>) {
        let len = self.text.len();
        match self.ahead {
            Some(ahead) if len <= 16 && is_plain_up_to(ahead, len) => {
                let end = out.len() + len;
                out.extend_from_slice(ahead);
                out.truncate(end);
            }
            _ => escaped(out, self.text),
        }
    }
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

#[inline]
fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    if is_plain(text) { out.extend_from_slice(text) } else { escaped_byte_by_byte(out, text) }
}

/// Whether all bytes can stand in a JSON string as they are, as those of most texts can.
///
/// Many at a time: whole vectors, then the last one again from the end, so that there is no rest to be looked at one by one.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    if let Some(last) = text.last_chunk::<16>() {
        let (chunks, _) = text.as_chunks::<16>();
        return chunks.iter().all(is_plain_16) && is_plain_16(last);
    }
    match (text.first_chunk(), text.last_chunk()) {
        (Some(&first), Some(&last)) => is_plain_8(first) & is_plain_8(last),
        _ => !text.iter().any(|&byte| needs_escape(byte)),
    }
}

/// As [`is_plain`], for the first `len` of these bytes: the others are lifted above all that is odd.
#[inline(always)]
fn is_plain_up_to(bytes: &[u8; 16], len: usize) -> bool {
    is_plain_16(&std::array::from_fn(|at| bytes[at] | LIFTS[len][at]))
}

/// For each length the bits that lift what is behind it.
static LIFTS: [[u8; 16]; 17] = {
    let mut lifts = [[0x80; 16]; 17];
    let mut len = 0;
    while len <= 16 {
        let mut at = 0;
        while at < len {
            lifts[len][at] = 0;
            at += 1;
        }
        len += 1;
    }
    lifts
};

/// Without a branch in it, so that the compiler makes vector instructions of it.
#[inline(always)]
fn is_plain_16(bytes: &[u8; 16]) -> bool {
    bytes.iter().fold(0, |odd, &byte| odd | u8::from(needs_escape(byte))) == 0
}

/// By the arithmetic of words: a byte below n borrows from its high bit when n is subtracted, and equal bytes are zero when one is
/// combined with the other by exclusive or (Anderson, "Bit Twiddling Hacks", `hasless` and `haszero`).
#[inline(always)]
fn is_plain_8(bytes: [u8; 8]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_ne_bytes(bytes);
    let is_below = |word: u64, limit: u8| word.wrapping_sub(EACH * u64::from(limit)) & !word;
    let is_equal = |byte: u8| is_below(word ^ (EACH * u64::from(byte)), 1);
    (is_below(word, 0x20) | is_equal(b'"') | is_equal(b'\\')) & (EACH * 0x80) == 0
}

#[cold]
fn escaped_byte_by_byte(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(plain) = text.iter().position(|&byte| needs_escape(byte)) {
        let (run, rest) = text.split_at(plain);
        out.extend_from_slice(run);
        escape(out, rest[0]);
        text = &rest[1..];
    }
    out.extend_from_slice(text);
}

#[inline(always)]
fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
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
            for (before, len) in (0..40).flat_map(|len| (0..=len).map(move |before| (before, len))) {
                let text = format!("{}{odd}{}", "x".repeat(before), "y".repeat(len - before));
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
