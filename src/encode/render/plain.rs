//! Text that can stand in a JSON string as it is, as that of nearly all strings can.
//!
//! Many bytes at a time: whole vectors, then the last one again from the end, so that there is no rest to be looked at one by one.

/// Copies a text to a place of the same length, and returns whether it is plain.
#[inline]
pub(super) fn copy(text: &[u8], to: &mut [u8]) -> bool {
    let Some(last) = text.last_chunk::<16>() else {
        to.copy_from_slice(text);
        return is_plain_below_16(text);
    };
    let mut is_plain = is_plain_16(last);
    for (to, chunk) in to.as_chunks_mut::<16>().0.iter_mut().zip(text.as_chunks::<16>().0) {
        *to = *chunk;
        is_plain &= is_plain_16(chunk);
    }
    if let Some(to) = to.last_chunk_mut() {
        *to = *last;
    }
    is_plain
}

fn is_plain_below_16(text: &[u8]) -> bool {
    match (text.first_chunk(), text.last_chunk()) {
        (Some(&first), Some(&last)) => is_plain_8(first) & is_plain_8(last),
        _ => !text.iter().any(|&byte| needs_escape(byte)),
    }
}

/// Whether the first `len` of these bytes are plain: the others are lifted above all that is odd.
#[inline(always)]
pub(super) fn is_plain_up_to(bytes: &[u8; 16], len: usize) -> bool {
    let ([low, high], [lift_low, lift_high]) = (words(bytes), words(&LIFTS[len]));
    (odd(low | lift_low) | odd(high | lift_high)) & HIGH_BITS == 0
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

#[inline(always)]
fn is_plain_16(bytes: &[u8; 16]) -> bool {
    let [low, high] = words(bytes);
    (odd(low) | odd(high)) & HIGH_BITS == 0
}

#[inline(always)]
fn is_plain_8(bytes: [u8; 8]) -> bool {
    odd(u64::from_ne_bytes(bytes)) & HIGH_BITS == 0
}

#[inline(always)]
fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_ne_bytes(*bytes);
    [both as u64, (both >> 64) as u64]
}

const EACH: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = EACH * 0x80;

/// Has a high bit set if one of the eight bytes needs an escape.
///
/// By the arithmetic of words: a byte below n borrows from its high bit when n is subtracted, and equal bytes are zero when one is
/// combined with the other by exclusive or (Anderson, "Bit Twiddling Hacks", `hasless` and `haszero`). Of sixteen bytes compared one
/// by one the compiler makes vector instructions at one place and hundreds of jumps at the next.
#[inline(always)]
fn odd(word: u64) -> u64 {
    let is_below = |word: u64, limit: u8| word.wrapping_sub(EACH * u64::from(limit)) & !word;
    let is_equal = |byte: u8| is_below(word ^ (EACH * u64::from(byte)), 1);
    is_below(word, 0x20) | is_equal(b'"') | is_equal(b'\\')
}

/// How many bytes of a text are plain, up to the first that is not.
#[inline]
pub(crate) fn plain_prefix(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let found = odd(u64::from_le_bytes(*word)) & HIGH_BITS;
        if found != 0 {
            // The lowest is right; above it a borrow may have set others.
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let plain = rest.iter().position(|&byte| needs_escape(byte)).unwrap_or(rest.len());
    text.len() - rest.len() + plain
}

#[inline(always)]
pub(super) fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}
