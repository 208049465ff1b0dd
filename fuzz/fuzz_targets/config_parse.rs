//! Any text as a configuration, and any variables over it: it is read or refused, and never panics.
//!
//! The input is a TOML text, and after a line `%%` variables as `QUEUE__CAPACITY=1MiB`, which get our prefix, or
//! `$NATS_URL=…`, which stand for themselves. A refusal is printed, since it quotes the place in the text and counts lines
//! and columns there.

#![no_main]

use jetring::{Config, ConfigError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (text, variables) = input.split_once("\n%%\n").unwrap_or((input, ""));
    let variables: Vec<(String, String)> = variables.lines().filter_map(variable).collect();

    stable(|| Config::from_toml(text));
    stable(|| Config::layered(Some(("config.toml", text)), variables.clone(), []));
    stable(|| Config::layered(None, variables.clone(), [("chain-id", "1".to_owned())]));
});

/// Reads twice. What was accepted must be the same both times; so must be what was said of what was refused.
fn stable(read: impl Fn() -> Result<Config, ConfigError>) {
    match (read(), read()) {
        (Ok(first), Ok(second)) => {
            assert_eq!(format!("{first:?}"), format!("{second:?}"));
            assert_eq!(first, second);
        }
        (Err(first), Err(second)) => {
            assert!(!first.to_string().is_empty());
            assert_eq!(first.to_string(), second.to_string());
            assert_eq!(format!("{first:?}"), format!("{second:?}"));
        }
        (first, second) => panic!("{first:?}, and the second time {second:?}"),
    }
}

fn variable(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let name = match name.strip_prefix('$') {
        Some(name) => name.to_owned(),
        None => format!("JETRING_EVENT_BUS__{name}"),
    };
    Some((name, value.to_owned()))
}
