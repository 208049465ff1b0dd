//! Zstandard, by its C library.

use super::{read_within, trailing};
use std::io;
use zstd::bulk;
use zstd::stream::read::Decoder;

/// The fastest of the usual levels. The next two compress a few percent further for twice the time.
const LEVEL: i32 = 1;

/// A frame says how large a window its decoder must keep; this is the most that we let it: 8 MiB, which the format's specification
/// recommends (RFC 8878, section 3.1.1.1.2).
const WINDOW_LOG_MAX: u32 = 23;

pub(crate) struct Compressor {
    context: bulk::Compressor<'static>,
    out: Vec<u8>,
}

impl Compressor {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { context: bulk::Compressor::new(LEVEL)?, out: Vec::new() })
    }

    /// `None` if the library has no memory.
    pub(super) fn compress(&mut self, content: &[u8]) -> Option<&[u8]> {
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(content.len()));
        self.context.compress_to_buffer(content, &mut self.out).ok()?;
        Some(&self.out)
    }
}

pub(super) fn decompress(payload: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut decoder = Decoder::with_buffer(payload)?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let content = read_within(&mut decoder, payload.len(), bytes_max)?;
    match decoder.finish().len() {
        left if left > 0 && content.len() <= bytes_max => Err(trailing(left)),
        _ => Ok(content),
    }
}
