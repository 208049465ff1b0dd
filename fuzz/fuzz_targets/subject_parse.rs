//! Names, prefixes and stream names against the rules in plain words, and `covers` against two dull oracles.
//!
//! The input is text: its first line is parsed as each of the three, and stands as a pattern over its second line. As random
//! text is hardly ever a good pattern, the bytes are also read as tokens of a tiny alphabet.

#![no_main]

use jetring::{Name, Prefix, StreamName, covers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    for text in [text, first] {
        parses_as_the_rules_say(text);
    }

    // Whatever the texts are, it answers.
    let covered = covers(first, second);
    if is_well_formed(first) && is_well_formed(second) {
        let (pattern, subject): (Vec<_>, Vec<_>) = (first.split('.').collect(), second.split('.').collect());
        assert_eq!(covered, covers_token_by_token(&pattern, &subject), "{first} over {second}");
    }

    let (pattern, subject) = (tiny_pattern(first), tiny_pattern(second));
    assert_eq!(
        covers(&pattern.join("."), &subject.join(".")),
        covers_each_subject(&pattern, &subject),
        "{pattern:?} over {subject:?}"
    );
});

fn parses_as_the_rules_say(text: &str) {
    let first_token = text.split('.').next();
    let is_name = is_tokens(text) && first_token != Some("_INBOX") && first_token != Some("_bus");
    assert_eq!(as_parsed(text.parse::<Name>()), is_name.then(|| text.to_owned()), "{text:?} as a name");
    assert_eq!(
        as_parsed(text.parse::<Prefix>()),
        is_tokens(text).then(|| text.to_owned()),
        "{text:?} as a prefix"
    );
    let is_stream = is_stream_name(text).then(|| text.to_owned());
    assert_eq!(as_parsed(text.parse::<StreamName>()), is_stream, "{text:?} as a stream name");
}

/// The text that the type holds; a refusal must be able to say why.
fn as_parsed<T: ToString, E: std::error::Error>(parsed: Result<T, E>) -> Option<String> {
    match parsed {
        Ok(parsed) => Some(parsed.to_string()),
        Err(refusal) => {
            assert!(!refusal.to_string().is_empty());
            None
        }
    }
}

/// One or more tokens of `[A-Za-z0-9_-]+` joined by dots, at most 255 bytes.
fn is_tokens(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty() && token.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    text.len() <= 255 && text.split('.').all(is_token)
}

/// 1 to 255 bytes without white space, control characters and `. * > / \`.
fn is_stream_name(text: &str) -> bool {
    let is_refused = |c: char| c.is_whitespace() || c.is_control() || r".*>/\".contains(c);
    !text.is_empty() && text.len() <= 255 && !text.chars().any(is_refused)
}

/// No token is empty, and `>` is the last one if it is there.
fn is_well_formed(pattern: &str) -> bool {
    let tokens: Vec<_> = pattern.split('.').collect();
    tokens.iter().all(|token| !token.is_empty()) && !tokens[..tokens.len() - 1].contains(&">")
}

/// Token by token, for patterns of any length.
fn covers_token_by_token(pattern: &[&str], subject: &[&str]) -> bool {
    match (pattern, subject) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        (["*", pattern @ ..], [token, subject @ ..]) => {
            *token != ">" && covers_token_by_token(pattern, subject)
        }
        ([want, pattern @ ..], [token, subject @ ..]) => {
            want == token && covers_token_by_token(pattern, subject)
        }
        _ => false,
    }
}

/// By the meaning of the word: every plain subject that `subject` stands for is one that `pattern` stands for. The plain
/// subjects have one token more than either, and one letter that is in neither, so that a wildcard has something to be
/// wrong about.
fn covers_each_subject(pattern: &[&str], subject: &[&str]) -> bool {
    let len_max = pattern.len().max(subject.len()) + 1;
    let mut plain: Vec<Vec<&str>> = vec![vec![]];
    for _ in 0..len_max {
        plain = plain
            .iter()
            .flat_map(|head| ["a", "b", "z"].map(|token| [&head[..], &[token]].concat()))
            .collect();
        if plain.iter().any(|plain| matches(subject, plain) && !matches(pattern, plain)) {
            return false;
        }
    }
    true
}

/// Whether a pattern matches a subject without wildcards.
fn matches(pattern: &[&str], plain: &[&str]) -> bool {
    match (pattern, plain) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        ([want, pattern @ ..], [token, plain @ ..]) => {
            (*want == "*" || want == token) && matches(pattern, plain)
        }
        _ => false,
    }
}

/// One to four tokens of the alphabet `a b * >`, well formed.
fn tiny_pattern(text: &str) -> Vec<&'static str> {
    let mut tokens = Vec::new();
    for byte in text.bytes().take(4) {
        let token = match byte {
            b'*' => "*",
            b'>' => ">",
            byte => ["a", "b", "*", ">"][usize::from(byte % 4)],
        };
        tokens.push(token);
        if token == ">" {
            break;
        }
    }
    if tokens.is_empty() { vec!["a"] } else { tokens }
}
