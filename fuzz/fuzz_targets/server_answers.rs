//! A pipeline and a server that says anything at all: law, bounds, and progress once an honest server takes over.
//!
//! The bytes are the script; `publisher::trial` reads them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| jetring::__internals::server_answers(bytes));
