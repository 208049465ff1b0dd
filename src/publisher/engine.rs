//! Which of the two ways of publishing is used, and why.

use super::server::ServerVersion;
use crate::config::Mode;
use std::fmt;

/// The way in which events are sent; the more advanced one is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Engine {
    /// Each event is a JetStream publish with an acknowledgement of its own.
    Async,
    /// Events are sent in fast-ingest batches (ADR-50), which are acknowledged by the hundred.
    Fast,
}

impl Engine {
    /// The name in logs and in `delivery.mode`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Fast => "fast",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The engine to use; `None` if the configured one cannot be used at the moment. `allows_batches` is not known if the server does not
/// let us look at the stream.
pub(crate) fn choose(mode: Mode, version: ServerVersion, allows_batches: Option<bool>) -> Option<Engine> {
    match mode {
        Mode::Async => Some(Engine::Async),
        Mode::Auto if version >= ServerVersion::FAST && allows_batches == Some(true) => Some(Engine::Fast),
        Mode::Auto => Some(Engine::Async),
        // Who insists on it may know better than the version; what the stream says is final.
        Mode::Fast => (allows_batches != Some(false)).then_some(Engine::Fast),
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn fast_is_chosen_where_server_and_stream_allow_it_and_forced_where_the_stream_does() {
        let (old, new) = (ServerVersion(2, 14, 2), ServerVersion(2, 14, 3));
        for (mode, version, allows_batches, engine) in [
            (Mode::Auto, new, Some(true), Some(Engine::Fast)),
            (Mode::Auto, old, Some(true), Some(Engine::Async)),
            (Mode::Auto, new, Some(false), Some(Engine::Async)),
            (Mode::Auto, new, None, Some(Engine::Async)),
            (Mode::Async, new, Some(true), Some(Engine::Async)),
            (Mode::Fast, old, Some(true), Some(Engine::Fast)),
            (Mode::Fast, new, None, Some(Engine::Fast)),
            (Mode::Fast, new, Some(false), None),
        ] {
            assert_eq!(
                choose(mode, version, allows_batches),
                engine,
                "{mode:?} {version:?} {allows_batches:?}"
            );
        }
    }
}
