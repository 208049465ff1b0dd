//! Base64 with padding (RFC 4648), in which STREAM.MSG.GET tells bytes.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let is_there = digit <= chunk.len();
            let sextet = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if is_there { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use base64::Engine;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_the_crate_base64_writes(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(super::encode(&bytes), base64::engine::general_purpose::STANDARD.encode(&bytes));
        }
    }
}
