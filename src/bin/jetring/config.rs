//! `jetring config`: the reference of the configuration, as Markdown. `docs/configuration.md` is its output.

use crate::args::ConfigKeys;
use crate::{Failure, Outcome, Result};
use jetring::{Config, ConfigKey};
use std::fmt::Write as _;
use std::io::{self, Write as _};

const PREFACE: &str = "\
# Configuration

All keys of the table `[event-bus]` in a TOML file. This page is the output of `jetring config`; `jetring config queue.capacity` prints
one key, `jetring config queue` those of a table, `--toml` a file to begin with, and `--json` a list for programs.

- A key that does not exist is refused, with the nearest known name and the line. `max_event` is as good as `max-event`.
- A flag of the tool wins over the environment, that over the file, and that over the default. Among variables, `JETRING_…` wins over those of
  the `nats` command.
- A size is a number of bytes, or has a unit: `64KiB`, `16MiB`, `1GiB`, `10kB`. A duration is a number of milliseconds, or has a unit: `250us`,
  `1ms`, `5s`, `2m`.
- Everything is checked when it is read, and once more when the bus starts, if a program has set it.
";

/// Prints the keys of these names and tables, or all.
pub(crate) fn run(args: &ConfigKeys, json: bool) -> Result<Outcome> {
    let keys = choose(&args.keys)?;
    let text = match (args.toml, json) {
        (true, true) => return Err(Failure::Usage("--toml and --json are both given; keep one".to_owned())),
        (true, false) => file(&keys),
        (false, true) => serde_json::to_string(&keys).map_err(Failure::run)? + "\n",
        (false, false) if args.keys.is_empty() => reference(&keys),
        (false, false) => keys.iter().map(section).collect::<Vec<_>>().join("\n"),
    };
    io::stdout().write_all(text.as_bytes()).map_err(Failure::run)?;
    Ok(Outcome::Well)
}

fn choose(wanted: &[String]) -> Result<Vec<ConfigKey>> {
    let all = Config::keys();
    if wanted.is_empty() {
        return Ok(all);
    }
    let mut chosen = Vec::new();
    for name in wanted {
        let name = name.replace('_', "-");
        let is_meant = |key: &&ConfigKey| {
            key.name == name || key.name.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.'))
        };
        let before = chosen.len();
        chosen.extend(all.iter().filter(is_meant).cloned());
        if chosen.len() == before {
            let problem = format!("{name} is neither a key nor a table; `jetring config` lists all");
            return Err(Failure::Usage(problem));
        }
    }
    Ok(chosen)
}

/// The whole page: a table of all keys, and a section for each.
fn reference(keys: &[ConfigKey]) -> String {
    let mut page = PREFACE.to_owned();
    page.push_str("\n| key | is | default | allowed |\n| --- | --- | --- | --- |\n");
    for key in keys {
        let anchor = key.name.replace('.', "").to_lowercase();
        let (kind, default) = (key.kind, default(key));
        writeln!(page, "| [`{}`](#{anchor}) | {kind} | {default} | {} |", key.name, key.allowed)
            .expect("a string takes everything");
    }
    for key in keys {
        page.push('\n');
        page.push_str(&section(key));
    }
    page
}

/// A file to begin with: what must be given is there, all else is a comment that says the default.
fn file(keys: &[ConfigKey]) -> String {
    let mut file = "[event-bus]\n".to_owned();
    let mut table = "";
    for key in keys {
        let (of_table, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if of_table != table {
            table = of_table;
            write!(file, "\n[event-bus.{table}]\n").expect("a string takes everything");
        }
        let value = match &key.default {
            _ if key.required => "1".to_owned(),
            Some(default) if default.parse::<u64>().is_ok() || key.kind == "boolean" => default.clone(),
            Some(default) => format!("\"{default}\""),
            None => "\"…\"".to_owned(),
        };
        let (mark, must) = if key.required { ("", "required, ") } else { ("# ", "") };
        writeln!(file, "{mark}{name} = {value}  # {must}{}: {}", key.kind, key.allowed)
            .expect("a string takes everything");
    }
    file
}

fn section(key: &ConfigKey) -> String {
    let ConfigKey { name, kind, allowed, variable, effect, danger, .. } = key;
    let default = default(key);
    let nats = key.nats_variable.map(|nats| format!(", or `{nats}`")).unwrap_or_default();
    format!(
        "## `{name}`\n\n\
         - {kind}; default: {default}; allowed: {allowed}\n\
         - variable: `{variable}`{nats}\n\n\
         {effect}\n\n\
         **Danger** {danger}\n"
    )
}

fn default(key: &ConfigKey) -> String {
    match &key.default {
        Some(default) => format!("`{default}`"),
        None if key.required => "required".to_owned(),
        None => "none".to_owned(),
    }
}
