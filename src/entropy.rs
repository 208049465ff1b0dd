//! Random numbers that no other process has.
//!
//! A generator in memory is copied by `fork`: siblings go on with the same numbers, and a bus of one would have the name of a bus of the
//! other, so that a server takes the events of both for the same ones. So identities and seeds come from the operating system, for each
//! start. This is the only place that names `rand`.

use rand::TryRng;
use rand::rngs::SysRng;

/// Bytes from the operating system.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system has random numbers");
    bytes
}

/// A number from the operating system.
pub(crate) fn number() -> u64 {
    u64::from_ne_bytes(bytes())
}

/// Gives the calling thread's own generator a new seed. The client takes its inboxes from it, on the thread that connects; two forked
/// siblings with the same inbox would hear each other's answers.
pub(crate) fn reseed_thread() {
    rand::rng().reseed().expect("the operating system has random numbers");
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ() {
        assert_ne!(number(), number());
    }
}
