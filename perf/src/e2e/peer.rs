//! The clients of the end-to-end plan: who they are, and how each is run as a process of its own.
//!
//! | peer | publishes by | knows of a stored event |
//! | --- | --- | --- |
//! | `jetring …` | `Topic::publish` of a struct, from threads that wait for room in their ring | when the bus has booked its acknowledgement |
//! | `original` | the design that jetring grew from: `serde_json::to_vec`, `Utc::now`, `format!`, a tokio channel of 1000 (whose threads wait for room, too), `Context::publish`, acknowledgements in a `FuturesUnordered` | when its future says so |
//! | `original with ids` | the same, and each event with a `Nats-Msg-Id`, as whoever wants to publish again without duplicates must give it | the same |
//! | `jetstream-extra` | fast-ingest batches by the crate of that name, serialized by the task that publishes | when a call to it says how far the server has come |
//! | `nats.c` | `js_PublishAsync` of what `snprintf` has made; `peers/js_publish_async.c` | when its handler is called |
//! | `nats.py` | `publish_async` of what `json.dumps` has made; `peers/publish_async.py` | when its future is done |
//! | `sync` | `Context::publish`, each acknowledgement awaited before the next event | at once |
//!
//! All get the same arguments and say the same words; see [`super`].

mod extra;
mod jetring;
mod original;
mod script;
mod sync;

use anyhow::{Result, bail};
pub(crate) use script::{DONE, GO, READY, Script, Told};
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Jetring { engine: Engine, framing: Framing },
    Original,
    OriginalWithIds,
    JetstreamExtra,
    C,
    Python,
    Sync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Async,
    Fast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Plain,
    Packed(Compression),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Lz4,
    Zstd,
}

impl Peer {
    /// The process, without the arguments that all have.
    pub(crate) fn command(self) -> Result<Command> {
        let mut command = match self {
            Self::C => Command::new(built(C_PROGRAM)),
            Self::Python => Command::new(built(PYTHON)),
            _ => Command::new(std::env::current_exe()?),
        };
        match self {
            Self::C => {}
            Self::Python => drop(command.arg(in_crate("peers/publish_async.py"))),
            _ => drop(command.args(["peer", &self.to_string()])),
        }
        Ok(command)
    }

    /// Why there is no such client here.
    pub(crate) fn missing(self) -> Option<String> {
        let unbuilt = |path: &str, of: &str| {
            (!built(path).exists()).then(|| format!("`make perf-e2e` could not build it; it needs {of}"))
        };
        match self {
            Self::C => unbuilt(C_PROGRAM, "a C compiler and libnats-dev"),
            Self::Python => unbuilt(PYTHON, "Python 3 with venv, and a package index"),
            Self::Jetring { engine, framing } => {
                jetring::config("null:", engine, framing).err().map(|error| format!("{error:#}"))
            }
            _ => None,
        }
    }
}

/// Does what the peer does, in this process.
pub(crate) fn run(peer: Peer, script: Script) -> Result<()> {
    match peer {
        Peer::Jetring { engine, framing } => script.play(jetring::Jetring::start(&script, engine, framing)?),
        Peer::Original => script.play(original::Original::start(&script, false)?),
        Peer::OriginalWithIds => script.play(original::Original::start(&script, true)?),
        Peer::JetstreamExtra => script.play(extra::Extra::start(&script)?),
        Peer::Sync => script.play(sync::Sync::start(&script)?),
        Peer::C | Peer::Python => bail!("{peer} is a program of its own"),
    }
}

/// What `make perf-e2e` builds, below `target`.
const C_PROGRAM: &str = "peers/js_publish_async";
const PYTHON: &str = "peers/python/bin/python";

fn built(path: &str) -> PathBuf {
    in_crate("target").join(path)
}

fn in_crate(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Original => f.write_str("original"),
            Self::OriginalWithIds => f.write_str("original with ids"),
            Self::JetstreamExtra => f.write_str("jetstream-extra"),
            Self::C => f.write_str("nats.c"),
            Self::Python => f.write_str("nats.py"),
            Self::Sync => f.write_str("sync"),
            Self::Jetring { engine, framing } => {
                let engine = match engine {
                    Engine::Async => "async",
                    Engine::Fast => "fast",
                };
                let framing = match framing {
                    Framing::Plain => "",
                    Framing::Packed(Compression::None) => " packed",
                    Framing::Packed(Compression::Lz4) => " packed lz4",
                    Framing::Packed(Compression::Zstd) => " packed zstd",
                };
                write!(f, "jetring {engine}{framing}")
            }
        }
    }
}

impl FromStr for Peer {
    type Err = String;

    /// Reads what [`Display`](fmt::Display) prints.
    fn from_str(text: &str) -> Result<Self, String> {
        let others =
            [Self::Original, Self::OriginalWithIds, Self::JetstreamExtra, Self::C, Self::Python, Self::Sync];
        let framings = [Compression::None, Compression::Lz4, Compression::Zstd].map(Framing::Packed);
        let ours = [Engine::Async, Engine::Fast].into_iter().flat_map(|engine| {
            let framings = [Framing::Plain].into_iter().chain(framings);
            framings.map(move |framing| Self::Jetring { engine, framing })
        });
        let named = others.into_iter().chain(ours).find(|peer| peer.to_string() == text);
        named.ok_or_else(|| format!("there is no peer {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_read_as_it_is_printed() {
        for cell in super::super::plan::cells() {
            assert_eq!(cell.peer.to_string().parse(), Ok(cell.peer));
        }
        assert!("jetring slow".parse::<Peer>().is_err());
    }
}
