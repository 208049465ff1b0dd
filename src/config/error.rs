//! What is wrong with a configuration, and where.
//!
//! The text of an error is the whole story: the place (line, variable or flag), the key, what is allowed. For a file the line
//! is shown with a caret below it, as the `toml` crate does, with one difference: a line that may hold a secret is cut off
//! before it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;

/// Why there is no [`Config`](super::Config).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: {problem}{}", place.excerpt())]
    Syntax {
        /// Where in the file.
        place: Place,
        /// What the parser said.
        problem: String,
    },
    /// The file has no table `[event-bus]`.
    #[error("{file}: the table [event-bus] is missing{advice}")]
    NoTable {
        /// The file.
        file: String,
        /// The question whether another table was meant, or nothing.
        advice: String,
    },
    /// There is no such key.
    #[error("{place}: {key} {problem}{}", place.excerpt())]
    UnknownKey {
        /// Where it is given.
        place: Place,
        /// The key; a variable stands here by its whole name.
        key: String,
        /// That it is unknown or comes later, and what may have been meant.
        problem: String,
    },
    /// A value is not what its key takes.
    #[error("{place}: {key}: {problem}{}", place.excerpt())]
    Value {
        /// Where it is given.
        place: Place,
        /// The key.
        key: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// A key that has no default is not given.
    #[error("event-bus.{key} is missing: give it in the file, as {variable}, or as --{key}")]
    Missing {
        /// The key.
        key: &'static str,
        /// The environment variable of that key.
        variable: String,
    },
    /// Two keys say different things about the same.
    #[error("{first} and {second} are both given; keep one of them")]
    Conflict {
        /// One key or variable.
        first: String,
        /// The other one.
        second: String,
    },
    /// A key makes no sense alone.
    #[error("{key} needs {missing} beside it")]
    Incomplete {
        /// The key or variable that is given.
        key: String,
        /// What is missing.
        missing: &'static str,
    },
}

impl ConfigError {
    pub(super) fn conflict(first: &str, second: &str) -> Self {
        Self::Conflict { first: first.to_owned(), second: second.to_owned() }
    }

    pub(super) fn incomplete(key: &str, missing: &'static str) -> Self {
        Self::Incomplete { key: key.to_owned(), missing }
    }

    /// A value that came from the code of the caller.
    pub(super) fn in_code(key: &str, problem: String) -> Self {
        Self::Value { place: Place::named("configuration"), key: key.to_owned(), problem }
    }
}

/// Where something stands in a configuration: a line, a variable, a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    name: String,
    /// The line with its caret, for a place in a file.
    excerpt: String,
}

impl Place {
    pub(super) fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), excerpt: String::new() }
    }

    /// The bytes `span` of the file `label` with the content `text`.
    pub(super) fn in_file(label: &str, text: &str, span: Range<usize>) -> Self {
        Self::excerpted(label, text, span, may_hold_secret)
    }

    /// The same for a key that nobody knows: it may be a misspelt secret, so that its value is not shown.
    pub(super) fn of_key(label: &str, text: &str, span: Range<usize>) -> Self {
        Self::excerpted(label, text, span, |line| line.contains('='))
    }

    fn excerpted(label: &str, text: &str, span: Range<usize>, hide: fn(&str) -> bool) -> Self {
        let start = boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = text[line_start..].lines().next().unwrap_or_default();
        let number = text[..start].matches('\n').count() + 1;
        let margin = " ".repeat(number.to_string().len());

        let (shown, cut) = match line.find('=') {
            _ if !hide(line) => (line, ""),
            Some(at) => (&line[..=at], " …"),
            None => ("", "…"),
        };
        let mut excerpt = format!("\n{margin} |\n{number} | {shown}{cut}");
        // The caret would point at nothing where its part of the line is cut off.
        if cut.is_empty() || span.end <= line_start + shown.len() {
            let end = boundary(text, span.end).min(line_start + line.len());
            let width = text.get(start..end).map_or(1, |marked| marked.chars().count().max(1));
            let indent = " ".repeat(text[line_start..start].chars().count());
            excerpt = format!("{excerpt}\n{margin} | {indent}{}", "^".repeat(width));
        }
        Self { name: format!("{label}, line {number}"), excerpt }
    }

    fn excerpt(&self) -> &str {
        &self.excerpt
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The last place in `text` at or before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default()
}

/// Whether a line names a secret, or may have one in a URL.
fn may_hold_secret(line: &str) -> bool {
    line.contains("password") || line.contains("token") || line.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_shows_its_line_with_a_caret() {
        let text = "a = 1\nétat = \"x\"\n";
        let at = text.find('"').unwrap_or_default();
        let place = Place::in_file("f.toml", text, at..at + 3);
        assert_eq!(place.to_string(), "f.toml, line 2");
        assert_eq!(place.excerpt(), "\n  |\n2 | état = \"x\"\n  |        ^^^");
    }

    #[test]
    fn a_place_at_the_end_or_past_it_is_shown_too() {
        for span in [2..2, 2..9, 9..12] {
            assert!(Place::in_file("f", "a\n", span).to_string().starts_with("f, line "));
        }
        assert_eq!(Place::in_file("f", "", 0..0).excerpt(), "\n  |\n1 | \n  | ^");
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_cut() {
        for line in ["password = hunter2", "auth.token = hunter2", "url = nats://hunter2@a", "  hunter2@x"] {
            let place = Place::in_file("f", line, 0..line.len());
            assert!(!place.excerpt().contains("hunter2"), "{place:?}");
        }
        let place = Place::of_key("f", "tokn = 'hunter2'", 0..4);
        assert_eq!(place.excerpt(), "\n  |\n1 | tokn = …\n  | ^^^^");
    }

    #[test]
    fn an_error_travels_between_threads() {
        fn travels<T: std::error::Error + Send + Sync + 'static>() {}
        travels::<ConfigError>();
    }
}
