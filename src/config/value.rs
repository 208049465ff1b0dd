//! One value of a configuration, before its key has given it a type.
//!
//! A file knows numbers from texts; the environment and the command line know only texts. Every reader below takes what its
//! type can be written as in either, and answers with a sentence that says what would have been right. The layer adds the
//! key and the place.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use super::units::{Bytes, Span, within};
use super::{Share, ShareError};

/// A value, as its layer could tell.
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Boolean(bool),
    /// A number with a point or an exponent, as it is written.
    Fraction(String),
    /// A table, where a value should be.
    Table,
    /// What no key takes: a date, a list and the like.
    Other(&'static str),
}

impl Value {
    /// A text, which is not empty.
    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) if text.is_empty() => Err("the text is empty".to_owned()),
            Self::Text(text) => Ok(text),
            _ => Err(self.expected("a text in quotes")),
        }
    }

    /// A text in the form of `T`.
    pub(super) fn parse<T: FromStr<Err: fmt::Display>>(&self) -> Result<T, String> {
        self.text()?.parse().map_err(|problem: T::Err| problem.to_string())
    }

    pub(super) fn path(&self) -> Result<PathBuf, String> {
        self.text().map(PathBuf::from)
    }

    pub(super) fn boolean(&self) -> Result<bool, String> {
        match self {
            Self::Boolean(value) => Ok(*value),
            Self::Text(text) => text.parse().map_err(|_| self.expected("true or false")),
            _ => Err(self.expected("true or false")),
        }
    }

    pub(super) fn integer<T: TryFrom<i128> + FromStr>(&self) -> Result<T, String> {
        let integer = match self {
            Self::Integer(value) => T::try_from(*value).ok(),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        };
        integer.ok_or_else(|| self.expected("a whole number, 0 or more"))
    }

    pub(super) fn count(&self, range: &RangeInclusive<usize>) -> Result<usize, String> {
        within(self.integer()?, range)
    }

    pub(super) fn bytes(&self, range: &RangeInclusive<Bytes>) -> Result<usize, String> {
        Ok(within(self.number_with_unit()?, range)?.0)
    }

    pub(super) fn span(&self, range: &RangeInclusive<Span>) -> Result<std::time::Duration, String> {
        Ok(within(self.number_with_unit()?, range)?.0)
    }

    /// A number of events a second, in words as well: `500/s`.
    pub(super) fn rate(&self, range: &RangeInclusive<u32>) -> Result<u32, String> {
        let rate = match self {
            Self::Integer(rate) => u32::try_from(*rate).ok(),
            Self::Text(text) => text.strip_suffix("/s").unwrap_or(text).trim_end().parse().ok(),
            _ => None,
        };
        let rate = rate.ok_or_else(|| self.expected("a number of events a second, as 500 or \"500/s\""))?;
        within(rate, range)
    }

    /// A part of a whole.
    pub(super) fn share(&self) -> Result<Share, String> {
        let text = match self {
            Self::Fraction(text) | Self::Text(text) => text,
            Self::Integer(number) => &number.to_string(),
            _ => return Err(self.expected("a number above 0 up to 1")),
        };
        text.parse().map_err(|error: ShareError| error.to_string())
    }

    /// One of the words in `allowed`. Words in `later` are understood, and this version cannot do them.
    pub(super) fn choice<T: Copy>(&self, allowed: &[(&str, T)]) -> Result<T, String> {
        let text = self.text()?;
        if let Some((_, choice)) = allowed.iter().find(|(word, _)| *word == text) {
            return Ok(*choice);
        }
        let words: Vec<_> = allowed.iter().map(|(word, _)| *word).collect();
        Err(format!("{text:?} is unknown; allowed: {}", words.join(", ")))
    }

    /// What the units read: a number without a unit is the same as its text.
    fn number_with_unit<T: FromStr<Err = String>>(&self) -> Result<T, String> {
        match self {
            Self::Integer(number) => number.to_string().parse(),
            _ => self.parse(),
        }
    }

    fn expected(&self, what: &str) -> String {
        // A text is not quoted here: the key may be that of a secret.
        let found = match self {
            Self::Text(_) => "another text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Fraction(_) => "a fraction",
            Self::Table => "a table",
            Self::Other(kind) => kind,
        };
        format!("this must be {what}, not {found}")
    }
}
