//! Whether bytes are JSON that readers can read.
//!
//! Bytes come to us that say they are JSON: [`publish_json`](crate::Topic::publish_json), a `RawValue` in a body. A message that readers cannot
//! parse is a loss that nobody has declared, so these bytes are looked at before they are printed. What counts is RFC 8259, with the three
//! limits that it leaves to readers:
//!
//! | | here | because |
//! | --- | --- | --- |
//! | bytes that are not UTF-8 | refused | the RFC demands UTF-8, and no reader takes anything else |
//! | `"\ud800"`, half of a surrogate pair | refused | it is no text: a `String` of Rust, Go or Swift cannot hold it, nor can PostgreSQL; I-JSON (RFC 7493) forbids it |
//! | nesting | up to [`DEPTH_MAX`] levels | serde_json reads 127 levels, and the envelope is one of them |
//! | `1e999`, numbers of any length | taken | which numbers it can hold is the reader's affair, and amounts of 256 bits are common |
//! | a name twice in an object | taken | serde_json, and most readers, take the last one |
//!
//! No recursion, since the bytes decide the depth, and no memory. Text is looked at by eight bytes at a time. simd-json needs a copy that it may
//! change, and refuses integers beyond 64 bits; serde_json's `IgnoredAny`, which stood here, takes what is not UTF-8.

use super::render::plain_prefix;

/// How deep a body may be nested.
pub(crate) const DEPTH_MAX: u32 = 126;

/// Whether this is JSON, nested no deeper than `depth_max` levels, which is at most 127.
pub(crate) fn is_json(text: &[u8], depth_max: u32) -> bool {
    std::str::from_utf8(text).is_ok() && scan(text, Nesting::new(depth_max)).is_some()
}

/// The objects and arrays that are open.
struct Nesting {
    /// A bit for each, the innermost one lowest: set for an object.
    kinds: u128,
    depth: u32,
    depth_max: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Array = 0,
    Object = 1,
}

impl Nesting {
    fn new(depth_max: u32) -> Self {
        Self { kinds: 0, depth: 0, depth_max: depth_max.min(u128::BITS - 1) }
    }

    #[inline]
    fn open(&mut self, kind: Kind) -> Option<()> {
        if self.depth == self.depth_max {
            return None;
        }
        self.depth += 1;
        self.kinds = self.kinds << 1 | kind as u128;
        Some(())
    }

    #[inline]
    fn close(&mut self) {
        self.depth -= 1;
        self.kinds >>= 1;
    }

    /// The kind of the innermost one.
    #[inline]
    fn inside(&self) -> Option<Kind> {
        let kind = if self.kinds & 1 == 1 { Kind::Object } else { Kind::Array };
        (self.depth > 0).then_some(kind)
    }
}

/// `Some` if it is JSON. The text is UTF-8.
fn scan(text: &[u8], mut nesting: Nesting) -> Option<()> {
    let mut rest = Scanner(text);
    'value: loop {
        rest.skip_space();
        match rest.next()? {
            b'{' => {
                nesting.open(Kind::Object)?;
                rest.skip_space();
                if !rest.skip(b'}') {
                    rest.name()?;
                    continue 'value;
                }
                nesting.close();
            }
            b'[' => {
                nesting.open(Kind::Array)?;
                rest.skip_space();
                if !rest.skip(b']') {
                    continue 'value;
                }
                nesting.close();
            }
            b'"' => rest.text()?,
            b'-' => rest.number_after_sign()?,
            first @ b'0'..=b'9' => rest.number(first)?,
            b't' => rest.word(b"rue")?,
            b'f' => rest.word(b"alse")?,
            b'n' => rest.word(b"ull")?,
            _ => return None,
        }
        // Behind a value: the next one, or the ends of what is around it.
        loop {
            rest.skip_space();
            let Some(inside) = nesting.inside() else { return rest.0.is_empty().then_some(()) };
            match (rest.next()?, inside) {
                (b',', Kind::Array) => continue 'value,
                (b',', Kind::Object) => {
                    rest.skip_space();
                    rest.name()?;
                    continue 'value;
                }
                (b']', Kind::Array) | (b'}', Kind::Object) => nesting.close(),
                _ => return None,
            }
        }
    }
}

/// What is left to be looked at.
struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    #[inline]
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// Goes past this byte if it is the next one.
    #[inline]
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.0.first() == Some(&byte);
        if is_next {
            self.0 = &self.0[1..];
        }
        is_next
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some((b' ' | b'\n' | b'\t' | b'\r', rest)) = self.0.split_first() {
            self.0 = rest;
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    /// The name of a member, and the colon.
    #[inline]
    fn name(&mut self) -> Option<()> {
        self.expect(b'"')?;
        self.text()?;
        self.skip_space();
        self.expect(b':')
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip(byte).then_some(())
    }

    /// A text behind its first quote, with the last one.
    #[inline]
    fn text(&mut self) -> Option<()> {
        loop {
            self.0 = &self.0[plain_prefix(self.0)..];
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    #[cold]
    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.four_digits()? {
                0xD800..=0xDBFF => {
                    self.word(b"\\u")?;
                    (0xDC00..=0xDFFF).contains(&self.four_digits()?).then_some(())
                }
                0xDC00..=0xDFFF => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn four_digits(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |code, _| Some(code << 4 | char::from(self.next()?).to_digit(16)?))
    }

    fn number_after_sign(&mut self) -> Option<()> {
        match self.next()? {
            first @ b'0'..=b'9' => self.number(first),
            _ => None,
        }
    }

    /// A number behind its first digit.
    #[inline]
    fn number(&mut self, first: u8) -> Option<()> {
        if first != b'0' {
            self.skip_digits();
        }
        if self.skip(b'.') {
            self.digits()?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            let _ = self.skip(b'+') || self.skip(b'-');
            self.digits()?;
        }
        Some(())
    }

    #[inline]
    fn skip_digits(&mut self) {
        while let Some((b'0'..=b'9', rest)) = self.0.split_first() {
            self.0 = rest;
        }
    }

    /// At least one.
    fn digits(&mut self) -> Option<()> {
        let before = self.0.len();
        self.skip_digits();
        (self.0.len() < before).then_some(())
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::encode::any::is_readable_json;
    use proptest::prelude::*;

    /// By the scanner, and by serde_json.
    #[track_caller]
    fn is_valid(text: impl AsRef<[u8]>) -> bool {
        let text = text.as_ref();
        let is_valid = is_json(text, DEPTH_MAX);
        assert_eq!(is_valid, is_readable_json(text), "{}", String::from_utf8_lossy(text));
        is_valid
    }

    #[test]
    fn what_is_json_is_taken() {
        for text in [
            "0",
            "-0",
            "12",
            "-1.50",
            "1e5",
            "1E+5",
            "1.0e-999",
            "1e999",
            "123456789012345678901234567890",
            "true",
            "false",
            "null",
            "\"\"",
            "\"a\"",
            "\" \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u00e9 \\ud83d\\ude00 \u{7f} é 😀\"",
            "[]",
            "{}",
            " [ ] ",
            "\t{\r\n}\n",
            "[1]",
            "[1,2]",
            " [ 1 , { \"a\" : [ ] , \"a\" : { } } ] ",
            "{\"\":\"\"}",
            "[[[[]]],[[]],[]]",
            "{\"a\":{\"b\":[{\"c\":1}]}}",
            "\"exactly sixteen!\"",
            "\"a text of more than sixteen bytes\"",
        ] {
            assert!(is_valid(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "1 2",
            "01",
            "-",
            "-a",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "0x1",
            "1.e5",
            "NaN",
            "Infinity",
            "tru",
            "truer",
            "nul",
            "nulll",
            "'a'",
            "\"",
            "\"a",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\t\"",
            "\"\0\"",
            "\"a\nb\"",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "{",
            "}",
            "{1:2}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\" 1}",
            "{\"a\":1]",
            "{\"a\":1 \"b\":2}",
            "[],1",
            "1,",
            "{}{}",
            "a",
            "\u{feff}1",
            "/**/1",
            "[1]x",
        ] {
            assert!(!is_valid(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_text_is_refused_wherever_it_stands() {
        for broken in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf"] {
            for (before, after) in
                [("\"", "\""), ("{\"", "\":1}"), ("", ""), ("[1,\"a text of some length ", "\"]")]
            {
                assert!(!is_valid([before.as_bytes(), broken, after.as_bytes()].concat()));
            }
        }
        for half in [
            "\\ud800",
            "\\uDBFF",
            "\\udc00",
            "\\udfff",
            "\\ud800\\ud800",
            "\\ud800x",
            "\\ud800\\n",
            "\\udc00\\ud800",
        ] {
            assert!(!is_valid(format!("\"{half}\"")) && !is_valid(format!("{{\"{half}\":1}}")), "{half}");
        }
    }

    #[test]
    fn it_may_be_as_deep_as_the_limit_and_no_deeper() {
        let arrays = |depth: u32| "[".repeat(depth as usize) + &"]".repeat(depth as usize);
        let objects = |depth: u32| "{\"a\":".repeat(depth as usize) + "1" + &"}".repeat(depth as usize);
        for depth in [1, 100, DEPTH_MAX] {
            assert!(is_valid(arrays(depth)) && is_valid(objects(depth)), "{depth}");
            // So that whoever reads messages with serde_json as it is can read them.
            let envelope = format!("{{\"body\":{}}}", objects(depth));
            serde_json::from_str::<serde_json::Value>(&envelope).unwrap();
        }
        for depth in [DEPTH_MAX + 1, DEPTH_MAX + 2, 1_000_000] {
            assert!(!is_json(arrays(depth).as_bytes(), DEPTH_MAX), "{depth}");
            assert!(!is_json(objects(depth).as_bytes(), DEPTH_MAX), "{depth}");
        }
        assert!(is_json(b"[]", 1) && !is_json(b"[]", 0) && is_json(b"1", 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Texts that are nearly JSON: pieces of it, put together in any way.
        #[test]
        fn scanner_and_serde_json_agree(
            pieces in proptest::collection::vec(
                proptest::sample::select(&[
                    "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"a\":", "1", "0", "-", ".", "e", "E+", "true", "null", " ", "\n",
                    "\\", "\\u", "\\ud83d", "\\ude00", "12ab", "é", "\u{1}", "exactly sixteen!",
                ][..]),
                0..24,
            )
        ) {
            is_valid(pieces.concat());
        }

        #[test]
        fn any_bytes_in_a_text_are_judged_alike(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            is_valid([b"[\"", &bytes[..], b"\"]"].concat());
        }
    }
}
