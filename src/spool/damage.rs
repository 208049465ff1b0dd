//! What can be wrong with a log, in words.

use serde::Serialize;
use std::fmt;

/// Damage that is listed one by one.
pub(super) const LISTED_MAX: usize = 256;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it is; 0 if it is the whole file.
    pub bytes: u64,
    /// What it is.
    pub kind: Kind,
}

/// What is damaged. Which sequences are missing for it is said apart from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// The header of a segment. Its records can be read without it.
    Header,
    /// A batch of which some records are damaged, or nothing but what fills it up.
    Batch,
    /// Bytes that are nothing.
    Bytes,
    /// The last write, which was cut off by the end of its process or of the power. It was never confirmed.
    Torn,
    /// A file of another log, or under a name that is not its own, or no plain file.
    Stranger,
    /// One of the two slots that say where the log begins and ends, or both.
    Position,
    /// The file that says which log this is.
    Meta,
    /// One of the two slots that say what may have been sent on, or both.
    Sent,
}

impl Damage {
    pub(super) fn of_file(file: &str, kind: Kind) -> Self {
        Self { file: file.to_owned(), offset: 0, bytes: 0, kind }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "damaged header",
            Self::Batch => "damaged batch",
            Self::Bytes => "unreadable bytes",
            Self::Torn => "torn tail",
            Self::Stranger => "no segment of this log",
            Self::Position => "damaged or missing position",
            Self::Meta => "damaged or missing identity",
            Self::Sent => "damaged note of what was sent on",
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, bytes, kind } = self;
        match bytes {
            0 => write!(f, "{file}: {kind}"),
            _ => write!(f, "{file}: {kind}, {bytes} bytes at {offset}"),
        }
    }
}
