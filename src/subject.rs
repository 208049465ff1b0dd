//! Subjects: the names of events, and how names become NATS subjects.
//!
//! An event travels on `<prefix>.<chain id>.<name>`. Each of the three parts is checked once, where it enters, and is then
//! carried by a type that cannot hold anything else: behind that point no subject can be malformed, no name can reach into
//! another service's space, and no byte of it can break out of a protocol line. `Name::check` is the exception that proves
//! the rule: a publish by `&str` happens too often to build a [`Name`] each time, so it reads the bytes once, many at a
//! time, and allocates only to complain.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The name of an event: one or more tokens of `[A-Za-z0-9_-]+` joined by dots, at most [`Name::LEN_MAX`] bytes.
///
/// The first token is neither `_INBOX` (NATS keeps it for replies) nor `_bus` (the bus reports about itself there).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Box<str>);

impl Name {
    /// The longest name, in bytes.
    pub const LEN_MAX: usize = 255;

    /// Whether `name` is an event name. On the path of every publish by name: one pass over the bytes, no allocation.
    pub(crate) fn is_valid(name: &str) -> bool {
        // No reserved token begins otherwise, so that the common name pays one comparison.
        is_tokens(name) && !(name.starts_with('_') && reserved_token(name).is_some())
    }

    /// Says what is wrong with `name`, if it is not an event name.
    pub(crate) fn check(name: &str) -> Result<(), NameError> {
        if Self::is_valid(name) {
            return Ok(());
        }
        if !is_tokens(name) {
            return Err(explain("event name", name));
        }
        reserved_token(name).map_or(Ok(()), |token| Err(NameError::Reserved { name: name.into(), token }))
    }
}

/// What stands in front of the chain id in a subject: tokens as in a [`Name`], any of them. `event` by default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(Box<str>);

impl Prefix {
    fn check(prefix: &str) -> Result<(), NameError> {
        if is_tokens(prefix) { Ok(()) } else { Err(explain("subject prefix", prefix)) }
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("event".into())
    }
}

/// The name of a JetStream stream: 1 to 255 bytes without white space, control characters and `. * > / \`. `main` by default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamName(Box<str>);

impl StreamName {
    /// The longest stream name that a NATS server takes, in bytes.
    pub const LEN_MAX: usize = 255;

    /// The name of the stream of a partition: `main-2`. A stream name may be that long, or [`Config`](crate::Config) says that it is not.
    pub(crate) fn of_partition(&self, partition: usize) -> Self {
        Self(format!("{self}-{partition}").into())
    }

    fn check(name: &str) -> Result<(), StreamNameError> {
        if name.is_empty() {
            return Err(StreamNameError::Empty);
        }
        if name.len() > Self::LEN_MAX {
            return Err(StreamNameError::TooLong { len: name.len() });
        }
        let refused =
            |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\');
        match name.char_indices().find(|&(_, character)| refused(character)) {
            Some((at, character)) => Err(StreamNameError::Character { name: name.into(), character, at }),
            None => Ok(()),
        }
    }
}

impl Default for StreamName {
    fn default() -> Self {
        Self("main".into())
    }
}

/// Why a text is no [`Name`] (or no [`Prefix`]; `what` tells which of the two was expected).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is no text at all.
    #[error("{what} is empty; {ALLOWED}")]
    Empty {
        /// What the text was meant to be.
        what: &'static str,
    },
    /// The text is longer than [`Name::LEN_MAX`].
    #[error("{what} has {len} bytes; at most {} are allowed", Name::LEN_MAX)]
    TooLong {
        /// What the text was meant to be.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A dot stands at the beginning, at the end, or next to another dot.
    #[error("{what} {text:?} has an empty token at byte {at}; {ALLOWED}")]
    EmptyToken {
        /// What the text was meant to be.
        what: &'static str,
        /// The text.
        text: Box<str>,
        /// The byte at which the token is missing.
        at: usize,
    },
    /// A character that no token may hold.
    #[error("{what} {text:?} has {character:?} at byte {at}; {ALLOWED}")]
    Character {
        /// What the text was meant to be.
        what: &'static str,
        /// The text.
        text: Box<str>,
        /// The character.
        character: char,
        /// Where it stands, in bytes.
        at: usize,
    },
    /// The first token belongs to NATS or to the bus.
    #[error(
        "event name {name:?} begins with the token {token}, which is reserved; choose another first token"
    )]
    Reserved {
        /// The name.
        name: Box<str>,
        /// Its first token.
        token: &'static str,
    },
}

/// Why a text is no [`StreamName`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StreamNameError {
    /// There is no text at all.
    #[error("stream name is empty")]
    Empty,
    /// The text is longer than [`StreamName::LEN_MAX`].
    #[error("stream name has {len} bytes; at most {} are allowed", StreamName::LEN_MAX)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A character that a stream name may not hold.
    #[error(r"stream name {name:?} has {character:?} at byte {at}; white space, control characters and . * > / \ are not allowed")]
    Character {
        /// The name.
        name: Box<str>,
        /// The character.
        character: char,
        /// Where it stands, in bytes.
        at: usize,
    },
}

/// The subjects of one bus, or of one [partition](crate::Config::streams) of it: every event of one chain, under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    /// `<prefix>.<chain id>.`, of a partition `<prefix>.<chain id>.<partition>.`, with the last dot, so that a name is all that
    /// is missing.
    root: String,
}

impl Subjects {
    /// The subjects below `prefix` and `chain_id`.
    #[must_use]
    pub fn new(prefix: &Prefix, chain_id: u64) -> Self {
        Self { root: format!("{prefix}.{chain_id}.") }
    }

    /// The subjects of one of several partitions. The partition is a token of its own, so that a stream can take one and not
    /// another: `event.*.2.>`.
    pub(crate) fn of_partition(prefix: &Prefix, chain_id: u64, partition: usize) -> Self {
        Self { root: format!("{prefix}.{chain_id}.{partition}.") }
    }

    /// The subject of the event `name`: `event.<chain id>.<name>`.
    ///
    /// The name is taken as it is. It has been checked by [`Name`], or it is one of the bus's own, which a [`Name`] refuses.
    #[must_use]
    pub fn subject(&self, name: &str) -> String {
        [&self.root, name].concat()
    }

    /// The pattern of all of them: `event.<chain id>.>`.
    #[must_use]
    pub fn all(&self) -> String {
        self.subject(">")
    }

    /// The event name in `subject`, or `None` where the subject is not one of these.
    #[must_use]
    pub fn name_of<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.root).filter(|name| !name.is_empty())
    }
}

/// Whether the NATS pattern `pattern` covers all that `subject` stands for: `*` is one token, `>` at the end is one or more.
///
/// `subject` may be a pattern itself, as the one of [`Subjects::all`]; it is covered when each of its subjects is. Both must
/// be well formed.
#[must_use]
pub fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    let mut wanted = pattern.split('.').peekable();
    while let Some(want) = wanted.next() {
        let Some(token) = tokens.next() else { return false };
        let covered = match want {
            ">" if wanted.peek().is_none() => return true,
            // One token cannot cover the many of a `>`.
            "*" => token != ">",
            _ => want == token,
        };
        if !covered {
            return false;
        }
    }
    tokens.next().is_none()
}

/// What a character may be, as it ends the message of a refusal.
const ALLOWED: &str = "allowed are tokens of A-Z a-z 0-9 _ - joined by dots";

/// First tokens which are not for events.
const RESERVED: [&str; 2] = ["_INBOX", "_bus"];

/// Whether messages can be sent to this subject: it is of the alphabet of ours, of tokens none of which is empty, and no longer than ours can be.
pub(crate) fn is_sendable(subject: &str) -> bool {
    const LEN_MAX: usize = 2 * Name::LEN_MAX + 64;
    !subject.is_empty()
        && subject.len() <= LEN_MAX
        && subject.bytes().all(is_allowed)
        && subject.split('.').all(|token| !token.is_empty())
}

/// The quick half of the check: yes or no.
///
/// Sixteen bytes at a time, because a publish by name pays for it, and without a branch between them, so that the compiler makes
/// vector instructions of it. Most names are one token; where there is a dot the tokens are looked at one by one.
#[inline]
fn is_tokens(text: &str) -> bool {
    let (chunks, rest) = text.as_bytes().as_chunks::<16>();
    let mut last = [b'a'; 16];
    last[..rest.len()].copy_from_slice(rest);
    let (allowed, dots) = chunks.iter().chain([&last]).fold((true, false), |(allowed, dots), chunk| {
        (allowed & chunk.iter().fold(true, |all, &byte| all & is_allowed(byte)), dots | chunk.contains(&b'.'))
    });
    let is_short = !text.is_empty() && text.len() <= Name::LEN_MAX;
    allowed && is_short && (!dots || text.split('.').all(|token| !token.is_empty()))
}

#[inline(always)]
fn is_allowed(byte: u8) -> bool {
    let is_letter = (byte | b' ').wrapping_sub(b'a') < 26;
    let is_digit = byte.wrapping_sub(b'0') < 10;
    is_letter | is_digit | (byte == b'_') | (byte == b'-') | (byte == b'.')
}

/// The slow half: what is wrong with a text that [`is_tokens`] has refused.
#[cold]
fn explain(what: &'static str, text: &str) -> NameError {
    if text.is_empty() {
        return NameError::Empty { what };
    }
    // Length first: the other messages quote the text, and a quote must have an end.
    if text.len() > Name::LEN_MAX {
        return NameError::TooLong { what, len: text.len() };
    }
    let mut dot_before = true;
    for (at, character) in text.char_indices() {
        let is_dot = character == '.';
        if is_dot && dot_before {
            return NameError::EmptyToken { what, text: text.into(), at };
        }
        if !u8::try_from(character).is_ok_and(is_allowed) {
            return NameError::Character { what, text: text.into(), character, at };
        }
        dot_before = is_dot;
    }
    NameError::EmptyToken { what, text: text.into(), at: text.len() }
}

fn reserved_token(name: &str) -> Option<&'static str> {
    let (first, _) = name.split_once('.').unwrap_or((name, ""));
    RESERVED.into_iter().find(|&token| token == first)
}

/// The conversions that the three checked texts have in common; all of them go through `check`.
macro_rules! checked_text {
    ($($type:ident, $error:ident;)*) => {$(
        impl $type {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $type {
            type Error = $error;

            fn try_from(text: &str) -> Result<Self, $error> {
                Self::check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                Self::check(&text)?;
                Ok(Self(text.into()))
            }
        }

        impl FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                text.try_into()
            }
        }

        impl From<$type> for String {
            fn from(checked: $type) -> Self {
                checked.0.into()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

checked_text! {
    Name, NameError;
    Prefix, NameError;
    StreamName, StreamNameError;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_tokens_joined_by_dots() {
        for name in [
            "priceEstimate",
            "a",
            "-",
            "_",
            "a.b.c",
            "A-1_z.0",
            "_business",
            "a._bus",
            "x._INBOX",
            &"n".repeat(255),
        ] {
            assert_eq!(Name::check(name), Ok(()), "{name}");
            assert_eq!(name.parse::<Name>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_refused_name_is_told_what_is_wrong_and_where() {
        let allowed = "allowed are tokens of A-Z a-z 0-9 _ - joined by dots";
        let reserved = "which is reserved; choose another first token";
        for (name, message) in [
            ("", format!("event name is empty; {allowed}")),
            ("a b", format!("event name \"a b\" has ' ' at byte 1; {allowed}")),
            ("$SYS.a", format!("event name \"$SYS.a\" has '$' at byte 0; {allowed}")),
            ("a\r\nPUB", format!("event name \"a\\r\\nPUB\" has '\\r' at byte 1; {allowed}")),
            ("a.*", format!("event name \"a.*\" has '*' at byte 2; {allowed}")),
            ("a.>", format!("event name \"a.>\" has '>' at byte 2; {allowed}")),
            ("aé", format!("event name \"aé\" has 'é' at byte 1; {allowed}")),
            (".a", format!("event name \".a\" has an empty token at byte 0; {allowed}")),
            ("a..b", format!("event name \"a..b\" has an empty token at byte 2; {allowed}")),
            ("a.", format!("event name \"a.\" has an empty token at byte 2; {allowed}")),
            ("_INBOX.x", format!("event name \"_INBOX.x\" begins with the token _INBOX, {reserved}")),
            ("_bus", format!("event name \"_bus\" begins with the token _bus, {reserved}")),
            (&"n".repeat(256), "event name has 256 bytes; at most 255 are allowed".to_owned()),
        ] {
            assert_eq!(Name::check(name).unwrap_err().to_string(), message);
            assert_eq!(Name::try_from(name), Name::check(name).map(|()| unreachable!()));
        }
    }

    #[test]
    fn the_quick_check_and_the_explanation_agree_on_every_character() {
        for character in (0..0x300).filter_map(char::from_u32) {
            let name = format!("a{character}b");
            let good = character.is_ascii_alphanumeric() || "_-.".contains(character);
            let expected =
                NameError::Character { what: "event name", text: name.as_str().into(), character, at: 1 };
            assert_eq!(Name::check(&name), if good { Ok(()) } else { Err(expected) });
        }
    }

    #[test]
    fn the_quick_check_sees_every_byte_at_every_place() {
        for len in 1..20 {
            for at in 0..len {
                for character in (0..=0x200).filter_map(char::from_u32) {
                    let text: String =
                        (0..len).map(|place| if place == at { character } else { 'n' }).collect();
                    let is_inner_dot = character == '.' && at > 0 && at < len - 1;
                    let expected =
                        is_inner_dot || (character.is_ascii_alphanumeric() || "-_".contains(character));
                    assert_eq!(is_tokens(&text), expected, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn a_prefix_may_be_what_a_name_may_not() {
        assert_eq!(Prefix::default().as_str(), "event");
        assert_eq!("_bus.x".parse::<Prefix>().unwrap().as_str(), "_bus.x");
        let message = "event.>".parse::<Prefix>().unwrap_err().to_string();
        assert!(message.starts_with("subject prefix \"event.>\" has '>' at byte 6"), "{message}");
    }

    #[test]
    fn a_stream_name_holds_nothing_that_a_server_would_refuse() {
        for name in ["main", "EVENTS_1", "é", &"s".repeat(255)] {
            assert_eq!(name.parse::<StreamName>().unwrap().as_str(), name);
        }
        for (name, message) in [
            ("", "stream name is empty"),
            ("a b", "stream name \"a b\" has ' ' at byte 1"),
            ("a\tb", "has '\\t' at byte 1"),
            ("a.b", "has '.' at byte 1"),
            ("*", "has '*' at byte 0"),
            (">", "has '>' at byte 0"),
            ("a/b", "has '/' at byte 1"),
            ("a\\b", "has '\\\\' at byte 1"),
            ("a\0", "has '\\0' at byte 1"),
            (&"s".repeat(256), "stream name has 256 bytes; at most 255 are allowed"),
        ] {
            let refusal = name.parse::<StreamName>().unwrap_err().to_string();
            assert!(refusal.contains(message), "{refusal}");
        }
    }

    #[test]
    fn serde_goes_through_the_parser() {
        assert_eq!(serde_json::to_string(&"a.b".parse::<Name>().unwrap()).unwrap(), "\"a.b\"");
        assert_eq!(serde_json::from_str::<StreamName>("\"main\"").unwrap().as_str(), "main");
        let refusal = serde_json::from_str::<Name>("\"a b\"").unwrap_err().to_string();
        assert!(refusal.contains("' ' at byte 1"), "{refusal}");
    }

    #[test]
    fn a_subject_gives_its_name_back() {
        let subjects = Subjects::new(&Prefix::default(), 100);
        assert_eq!(subjects.subject("priceEstimate"), "event.100.priceEstimate");
        assert_eq!(subjects.all(), "event.100.>");
        assert_eq!(subjects.name_of(&subjects.subject("a.b")), Some("a.b"));
        for foreign in ["event.100", "event.100.", "event.1000.a", "event.1.a", "other.100.a", ""] {
            assert_eq!(subjects.name_of(foreign), None, "{foreign}");
        }
    }

    /// Whether `pattern` matches the plain `subject`, the dull way.
    fn matches(pattern: &[&str], subject: &[&str]) -> bool {
        match (pattern, subject) {
            ([], []) => true,
            ([">"], [_, ..]) => true,
            ([want, pattern @ ..], [token, subject @ ..]) => {
                (*want == "*" || want == token) && matches(pattern, subject)
            }
            _ => false,
        }
    }

    /// All sequences of 1 to `len` tokens.
    fn sequences(tokens: &[&'static str], len: usize) -> Vec<Vec<&'static str>> {
        let mut all = vec![vec![]];
        let mut first = 0;
        for _ in 0..len {
            let longer = all[first..]
                .iter()
                .flat_map(|head| tokens.iter().map(|&token| [&head[..], &[token]].concat()));
            let longer: Vec<_> = longer.collect();
            first = all.len();
            all.extend(longer);
        }
        all.split_off(1)
    }

    #[test]
    fn a_pattern_covers_what_the_oracle_says() {
        // Subjects are one token longer and have one letter more than patterns, so that a wildcard has something to be wrong about.
        let subjects = sequences(&["a", "b", "c"], 4);
        let mut patterns = sequences(&["a", "b", "*", ">"], 3);
        patterns.retain(|pattern| !pattern[..pattern.len() - 1].contains(&">"));
        for pattern in &patterns {
            let joined = pattern.join(".");
            for subject in &subjects {
                assert_eq!(
                    covers(&joined, &subject.join(".")),
                    matches(pattern, subject),
                    "{joined} over {subject:?}"
                );
            }
            for other in &patterns {
                let every = subjects
                    .iter()
                    .filter(|subject| matches(other, subject))
                    .all(|subject| matches(pattern, subject));
                assert_eq!(covers(&joined, &other.join(".")), every, "{joined} over {other:?}");
            }
        }
    }
}
