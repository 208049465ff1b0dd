//! Stands in for an encoding whose cargo feature is off.

use std::io;

/// There is none.
pub(crate) enum Compressor {}

impl Compressor {
    pub(super) fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn compress(&mut self, _: &[u8]) -> Option<&[u8]> {
        match *self {}
    }
}

pub(super) fn decompress(_: &[u8], _: usize) -> io::Result<Vec<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}
