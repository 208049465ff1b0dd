//! LZ4 in its frame format, as `lz4 -d` and every language's library reads it.
//!
//! The frame is put together here, around blocks that the crate compresses: its own frame writer copies the content first,
//! and takes new memory for each frame.
//!
//! ```text
//!   magic    FLG  BD  HC   size       block        size  block   0
//!   4 bytes  1    1   1    4 bytes    ≤ 4 MiB      …     …       4 bytes
//! ```

use super::{read_within, trailing};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use lz4_flex::frame::FrameDecoder;
use std::io;

const MAGIC: u32 = 0x184D_2204;

/// Version 1, blocks independent of each other, and nothing else: TCP and the server's store have checksums of their own.
const FLG: u8 = 0b0110_0000;

/// By the size that the largest block may have: the byte that says so, and the checksum that the specification asks of these two
/// bytes (the second byte of their xxHash32).
const BLOCK_SIZES: [(usize, u8, u8); 4] =
    [(64 << 10, 0x40, 0x82), (256 << 10, 0x50, 0xfb), (1 << 20, 0x60, 0x51), (4 << 20, 0x70, 0x73)];

/// The bit of a block's size that says that it is stored as it is.
const STORED: u32 = 1 << 31;

pub(crate) struct Compressor {
    table: CompressTable,
    /// Grows and is not cut; what was compressed last is in front.
    out: Vec<u8>,
}

impl Compressor {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { table: CompressTable::small(), out: Vec::new() })
    }

    /// `None` if the crate does not do what it says.
    pub(super) fn compress(&mut self, content: &[u8]) -> Option<&[u8]> {
        let [.., largest] = BLOCK_SIZES;
        let (block_bytes, bd, hc) =
            BLOCK_SIZES.into_iter().find(|(bytes, ..)| content.len() <= *bytes).unwrap_or(largest);
        let mut at = 0;
        let head = [&MAGIC.to_le_bytes()[..], &[FLG, bd, hc]].concat();
        self.put(&mut at, &head);
        for block in content.chunks(block_bytes) {
            let room = get_maximum_output_size(block.len());
            let start = at + size_of::<u32>();
            self.make_room(start + room);
            let len = compress_into_with_table(block, &mut self.out[start..], &mut self.table).ok()?;
            if len < block.len() {
                self.put(&mut at, &u32::try_from(len).ok()?.to_le_bytes());
                at += len;
            } else {
                self.put(&mut at, &(u32::try_from(block.len()).ok()? | STORED).to_le_bytes());
                self.put(&mut at, block);
            }
        }
        self.put(&mut at, &0u32.to_le_bytes());
        Some(&self.out[..at])
    }

    fn put(&mut self, at: &mut usize, bytes: &[u8]) {
        self.make_room(*at + bytes.len());
        self.out[*at..*at + bytes.len()].copy_from_slice(bytes);
        *at += bytes.len();
    }

    /// It only ever grows, up to what the largest event needs, so that nothing has to be zeroed twice.
    fn make_room(&mut self, bytes: usize) {
        if self.out.len() < bytes {
            self.out.resize(bytes, 0);
        }
    }
}

pub(super) fn decompress(payload: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut decoder = FrameDecoder::new(payload);
    let content = read_within(&mut decoder, payload.len(), bytes_max)?;
    match decoder.into_inner().len() {
        left if left > 0 && content.len() <= bytes_max => Err(trailing(left)),
        _ => Ok(content),
    }
}
