//! jetring
#![allow(dead_code)]
mod sync;
#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod ring;
#[cfg(not(feature = "__internals"))]
mod ring;
