//! A log lives on a disk that is full, refuses to write and to sync, and loses its power, twice: what was synced is there.
//!
//! The bytes are the script; `spool::trial` reads them. The oracle knows only what was appended and what a sync has confirmed.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| jetring::__internals::spool_life(bytes));
