//! The tape's alphabet. Written by [`super::tape`], read by [`super::render`].
//!
//! A tape is a list of operations that print JSON one after the other: each says all that there is to print, so the renderer
//! keeps no state between them. Punctuation stands for itself; the rest is a tag and what follows it, numbers in the byte
//! order of the machine, since a tape never leaves the process.
//!
//! | operation | bytes after the tag | prints |
//! | --- | --- | --- |
//! | `{ } [ ] , : "` | | itself |
//! | [`NULL`], [`TRUE`], [`FALSE`] | | the word |
//! | [`U8`] … [`I128`] | the number | its decimal digits |
//! | [`F32`], [`F64`] | the number | as serde_json prints it |
//! | [`STR_SHORT`], [`STR`] | length (1 or 4 bytes), text | the text escaped and quoted |
//! | [`FIELD`], [`NEXT_FIELD`] | length (1 byte), name | the name escaped and quoted, and a colon; a comma before it |
//! | [`BYTES`] | length (4 bytes), bytes | an array of numbers |
//! | [`VERBATIM`] | length (4 bytes), text | the text as it is |

pub(super) const NULL: u8 = 0;
pub(super) const FALSE: u8 = 1;
pub(super) const TRUE: u8 = 2;
pub(super) const U8: u8 = 3;
pub(super) const U16: u8 = 4;
pub(super) const U32: u8 = 5;
pub(super) const U64: u8 = 6;
pub(super) const U128: u8 = 7;
pub(super) const I8: u8 = 8;
pub(super) const I16: u8 = 9;
pub(super) const I32: u8 = 10;
pub(super) const I64: u8 = 11;
pub(super) const I128: u8 = 12;
pub(super) const F32: u8 = 13;
pub(super) const F64: u8 = 14;
pub(super) const STR_SHORT: u8 = 15;
pub(super) const STR: u8 = 16;
pub(super) const FIELD: u8 = 17;
pub(super) const NEXT_FIELD: u8 = 18;
pub(super) const BYTES: u8 = 19;
pub(super) const VERBATIM: u8 = 20;

/// Longest text of a [`STR_SHORT`], and longest name of a [`FIELD`].
pub(super) const SHORT_MAX: usize = 255;
