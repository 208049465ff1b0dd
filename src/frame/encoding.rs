//! How a frame's payload is compressed and decompressed, within limits.

#[cfg(feature = "lz4")]
mod lz4;
#[cfg(not(all(feature = "lz4", feature = "zstd")))]
mod off;
#[cfg(feature = "zstd")]
mod zstd;

use super::{FrameError, RATIO_MAX, UNPACKED_BYTES_MAX};
#[cfg(not(feature = "lz4"))]
use off as lz4;
#[cfg(not(feature = "zstd"))]
use off as zstd;
use std::io;

/// A compression by the name that its header has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Lz4,
    Zstd,
}

impl Encoding {
    pub(crate) const ALL: [Self; 2] = [Self::Lz4, Self::Zstd];

    /// As in the header, and the name of the cargo feature.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn of_name(name: &str) -> Result<Self, FrameError> {
        let known = Self::ALL.into_iter().find(|encoding| encoding.name() == name);
        known.ok_or_else(|| FrameError::UnknownEncoding(name.to_owned()))
    }

    /// Whether its cargo feature is on.
    pub(crate) fn is_built(self) -> bool {
        match self {
            Self::Lz4 => cfg!(feature = "lz4"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// The content of a whole payload, within the limits of a reader.
    pub(crate) fn decompress(self, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
        if !self.is_built() {
            return Err(FrameError::FeatureOff(self.name()));
        }
        let bytes_max = unpacked_bytes_max(payload.len());
        let result = match self {
            Self::Lz4 => lz4::decompress(payload, bytes_max),
            Self::Zstd => zstd::decompress(payload, bytes_max),
        };
        let content = result
            .map_err(|error| FrameError::Corrupt { encoding: self.name(), problem: error.to_string() })?;
        if content.len() > bytes_max {
            return Err(FrameError::TooLarge {
                encoding: self.name(),
                payload_bytes: payload.len(),
                bytes_max,
            });
        }
        Ok(content)
    }
}

fn unpacked_bytes_max(payload_bytes: usize) -> usize {
    payload_bytes.saturating_mul(RATIO_MAX).min(UNPACKED_BYTES_MAX)
}

/// Reads all that a decoder gives, or one byte more than it may. The whole of `decoder` must be bounded by what it was given.
#[cfg(any(feature = "lz4", feature = "zstd"))]
fn read_within(decoder: &mut impl io::Read, payload_bytes: usize, bytes_max: usize) -> io::Result<Vec<u8>> {
    use io::Read;
    /// What real frames make of their payload. A guess that is too low costs a copy.
    const USUAL_RATIO: usize = 8;
    let mut content = Vec::with_capacity(payload_bytes.saturating_mul(USUAL_RATIO).min(bytes_max) + 1);
    decoder.take(bytes_max as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// Says that there are bytes behind the end of a frame, which nobody of ours has put there.
#[cfg(any(feature = "lz4", feature = "zstd"))]
fn trailing(bytes: usize) -> io::Error {
    io::Error::other(format!("{bytes} bytes behind its end"))
}

/// Compresses frames, one after the other, with memory that it keeps.
pub(crate) enum Compressor {
    None,
    Lz4(lz4::Compressor),
    Zstd(zstd::Compressor),
}

impl Compressor {
    /// One for this encoding; an error where its feature is off, or its memory cannot be had.
    pub(crate) fn new(encoding: Option<Encoding>) -> io::Result<Self> {
        Ok(match encoding {
            None => Self::None,
            Some(Encoding::Lz4) => Self::Lz4(lz4::Compressor::new()?),
            Some(Encoding::Zstd) => Self::Zstd(zstd::Compressor::new()?),
        })
    }

    /// The compressed `content` with its encoding; `None` if it should be sent as it is, because it would become no smaller, or
    /// so small that a reader would refuse it.
    #[inline]
    pub(crate) fn compress(&mut self, content: &[u8]) -> Option<(Encoding, &[u8])> {
        let (encoding, compressed) = match self {
            Self::None => return None,
            Self::Lz4(compressor) => (Encoding::Lz4, compressor.compress(content)?),
            Self::Zstd(compressor) => (Encoding::Zstd, compressor.compress(content)?),
        };
        let is_smaller = compressed.len() < content.len();
        (is_smaller && content.len() <= unpacked_bytes_max(compressed.len()))
            .then_some((encoding, compressed))
    }
}
