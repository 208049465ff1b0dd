//! From texts to a [`Config`]: flag over environment over file over default.
//!
//! ```text
//! file ─────────┐
//! NATS_… ───────┤  entries:                  KNOBS: key →
//! JETRING_… ────┤ ─────────────────────────▶ how it is read, ──▶ Draft ──▶ Config
//! flags ────────┘  key, value, origin        where it goes
//!                  weakest layer first
//! ```
//!
//! Each layer becomes a list of entries, and all entries go through one table, so that a key has one type, one range and one
//! message wherever it was written. The value of a weaker layer is checked even where a stronger one replaces it: a file that
//! is wrong stays wrong on the day when the variable goes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::auth::{AuthKey, AuthKeys};
use super::error::{ConfigError, Place};
use super::units::{Span, within};
use super::value::Value;
use super::{
    Budget, Compression, Config, Endpoint, Framing, Mode, Rings, SpoolFull, SpoolSync, WhenFull, limits,
};
use crate::subject::{Name, NameError, StreamName};

/// Lays the layers over each other.
pub(super) fn build<'a>(
    file: Option<(&str, &str)>,
    env: impl IntoIterator<Item = (String, String)>,
    overrides: impl IntoIterator<Item = (&'a str, String)>,
) -> Result<Config, ConfigError> {
    let (natscli, own) = environment(env);
    let mut draft = Draft::new();
    if let Some((label, text)) = file {
        draft.apply(read_file(label, text)?)?;
    }
    draft.apply(natscli)?;
    draft.apply(own)?;
    draft.apply(flags(overrides))?;
    draft.finish()
}

/// Whether an environment variable is one that [`build`] looks at.
pub(super) fn is_ours(variable: &str) -> bool {
    variable.starts_with(VARIABLE_STEM) || natscli_key(variable).is_some()
}

/// The key of a variable of ours, as in `JETRING_EVENT_BUS__QUEUE__CAPACITY`.
const VARIABLE_PREFIX: &str = "JETRING_EVENT_BUS__";

/// What a variable of ours begins with even when an underscore is missing, which must not pass in silence.
const VARIABLE_STEM: &str = "JETRING_EVENT_BUS_";

/// The table of a file that is ours.
const TABLE: &str = "event-bus";

/// The variables of the `nats` command that we honour. They are weaker than our own.
const NATSCLI: [(&str, &str); 10] = [
    ("NATS_URL", "url"),
    ("NATS_CREDS", "auth.creds"),
    ("NATS_USER", "auth.user"),
    ("NATS_PASSWORD", "auth.password"),
    ("NATS_TOKEN", "auth.token"),
    ("NATS_NKEY", "auth.nkey"),
    ("NATS_JWT", "auth.jwt"),
    ("NATS_CERT", "tls.cert"),
    ("NATS_KEY", "tls.key"),
    ("NATS_CA", "tls.ca"),
];

/// Other spellings of a key.
const ALIASES: [(&str, &str); 2] = [("channel", "stream"), ("auth.seed", "auth.nkey")];

/// The tables of event names. Their keys are in the table of keys with [`EVENT`] in the place of the name, which is a part of the entry.
const EVENTS: &str = "events.";

/// Stands for the name of an event. It is written as it is, in capitals or not, also in a variable.
const EVENT: &str = "NAME";

/// Reads the value of an entry into the draft, or says what is wrong with it.
type Set = fn(&mut Draft, &Entry<'_>) -> Result<(), String>;

/// Every key there is.
const KNOBS: &[(&str, Set)] = &[
    ("url", |d, e| put(&mut d.config.url, e.value.parse())),
    ("stream", |d, e| put(&mut d.config.stream, e.value.parse())),
    ("chain-id", |d, e| put(&mut d.chain_id, e.value.integer().map(Some))),
    ("subject-prefix", |d, e| put(&mut d.config.subject_prefix, e.value.parse())),
    ("partitions", |d, e| put(&mut d.config.partitions, e.value.count(&limits::PARTITIONS))),
    ("queue.capacity", |d, e| put(&mut d.config.queue.capacity, e.value.bytes(&limits::CAPACITY))),
    ("queue.rings", |d, e| put(&mut d.config.queue.rings, rings(&e.value))),
    ("queue.max-event", |d, e| put(&mut d.config.queue.max_event, e.value.bytes(&limits::MAX_EVENT))),
    ("queue.when-full", |d, e| put(&mut d.config.queue.when_full, when_full(&e.value))),
    ("queue.max-block", |d, e| put(&mut d.max_block, e.value.span(&limits::MAX_BLOCK).map(Some))),
    ("delivery.mode", |d, e| put(&mut d.config.delivery.mode, mode(&e.value))),
    ("delivery.framing", |d, e| put(&mut d.config.delivery.framing, framing(&e.value))),
    ("delivery.compression", |d, e| put(&mut d.config.delivery.compression, compression(&e.value))),
    ("delivery.linger", |d, e| put(&mut d.config.delivery.linger, e.value.span(&limits::LINGER))),
    ("delivery.max-in-flight", |d, e| {
        put(&mut d.config.delivery.max_in_flight, e.value.count(&limits::MAX_IN_FLIGHT))
    }),
    ("delivery.max-in-flight-bytes", |d, e| {
        put(&mut d.config.delivery.max_in_flight_bytes, e.value.bytes(&limits::MAX_IN_FLIGHT_BYTES))
    }),
    ("delivery.ack-timeout", |d, e| {
        put(&mut d.config.delivery.ack_timeout, e.value.span(&limits::ACK_TIMEOUT))
    }),
    ("delivery.stamp", |d, e| put(&mut d.config.delivery.stamp, e.value.boolean())),
    ("delivery.stats-interval", |d, e| {
        put(&mut d.config.delivery.stats_interval, e.value.span(&limits::STATS_INTERVAL))
    }),
    ("events.NAME.rate", |d, e| put(&mut d.budget(e)?.rate, e.value.rate(&Budget::RATE).map(Some))),
    ("events.NAME.burst", |d, e| {
        put(&mut d.budget(e)?.burst, within(e.value.integer()?, &Budget::BURST).map(Some))
    }),
    ("events.NAME.share", |d, e| put(&mut d.budget(e)?.share, e.value.share())),
    ("events.NAME.sample", |d, e| put(&mut d.budget(e)?.sample, within(e.value.integer()?, &Budget::SAMPLE))),
    ("spool.dir", |d, e| put(&mut d.config.spool.dir, e.value.path().map(Some))),
    ("spool.max-bytes", |d, e| put(&mut d.config.spool.max_bytes, e.value.bytes(&limits::SPOOL_BYTES))),
    ("spool.sync", |d, e| put(&mut d.config.spool.sync, spool_sync(&e.value))),
    ("spool.when-full", |d, e| put(&mut d.config.spool.when_full, spool_full(&e.value))),
    ("auth.creds", |d, e| d.auth(AuthKey::Creds, e)),
    ("auth.nkey", |d, e| d.auth(AuthKey::Nkey, e)),
    ("auth.jwt", |d, e| d.auth(AuthKey::Jwt, e)),
    ("auth.user", |d, e| d.auth(AuthKey::User, e)),
    ("auth.password", |d, e| d.secret(AuthKey::Password, e)),
    ("auth.password-file", |d, e| d.auth(AuthKey::PasswordFile, e)),
    ("auth.token", |d, e| d.secret(AuthKey::Token, e)),
    ("auth.token-file", |d, e| d.auth(AuthKey::TokenFile, e)),
    ("tls.ca", |d, e| put(&mut d.config.tls.ca, e.value.path().map(Some))),
    ("tls.cert", |d, e| put(&mut d.config.tls.cert, e.value.path().map(Some))),
    ("tls.key", |d, e| put(&mut d.config.tls.key, e.value.path().map(Some))),
    ("tls.first", |d, e| put(&mut d.config.tls.first, e.value.boolean())),
    ("tls.plaintext-credentials", |d, e| put(&mut d.config.tls.plaintext_credentials, e.value.boolean())),
    ("shutdown.timeout", |d, e| put(&mut d.config.shutdown.timeout, e.value.span(&limits::SHUTDOWN))),
];

fn put<T>(slot: &mut T, value: Result<T, String>) -> Result<(), String> {
    *slot = value?;
    Ok(())
}

fn rings(value: &Value) -> Result<Rings, String> {
    if matches!(value, Value::Text(text) if text == "auto") {
        return Ok(Rings::Auto);
    }
    let allowed = || format!("allowed are \"auto\" and {} to {}", limits::RINGS.start(), limits::RINGS.end());
    value
        .count(&limits::RINGS)
        .ok()
        .and_then(|count| count.try_into().ok())
        .map(Rings::Count)
        .ok_or_else(allowed)
}

fn when_full(value: &Value) -> Result<WhenFull, String> {
    let choices =
        [("drop-newest", WhenFull::DropNewest), ("block", WhenFull::BLOCK), ("spool", WhenFull::Spool)];
    value.choice(&choices)
}

fn mode(value: &Value) -> Result<Mode, String> {
    value.choice(&[("auto", Mode::Auto), ("async", Mode::Async), ("fast", Mode::Fast)])
}

fn framing(value: &Value) -> Result<Framing, String> {
    value.choice(&[("plain", Framing::Plain), ("packed", Framing::Packed)])
}

fn compression(value: &Value) -> Result<Compression, String> {
    let allowed = [("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];
    value.choice(&allowed)
}

fn spool_sync(value: &Value) -> Result<SpoolSync, String> {
    let text = value.text()?;
    if let Some(interval) = text.strip_prefix("interval:") {
        let interval = within(interval.parse::<Span>()?, &limits::SPOOL_INTERVAL)?;
        return Ok(SpoolSync::Interval(interval.0));
    }
    match text {
        "none" => Ok(SpoolSync::None),
        "every-batch" => Ok(SpoolSync::EveryBatch),
        _ => Err(format!("{text:?} is unknown; allowed: none, interval:100ms and the like, every-batch")),
    }
}

fn spool_full(value: &Value) -> Result<SpoolFull, String> {
    value.choice(&[("drop-newest", SpoolFull::DropNewest), ("drop-oldest", SpoolFull::DropOldest)])
}

/// The configuration as far as the layers have come.
struct Draft {
    config: Config,
    chain_id: Option<u64>,
    /// Of `queue.when-full = "block"`, whichever layer says that.
    max_block: Option<Duration>,
    /// The `auth` keys of the layers that are done.
    auth: AuthKeys,
    /// Those of the layer at hand.
    auth_layer: AuthKeys,
}

impl Draft {
    fn new() -> Self {
        // The chain id is a placeholder that `finish` replaces, or refuses to.
        let config = Config::with(Endpoint::default(), StreamName::default(), 0);
        let (auth, auth_layer) = (AuthKeys::default(), AuthKeys::default());
        Self { config, chain_id: None, max_block: None, auth, auth_layer }
    }

    fn apply(&mut self, layer: Vec<Entry<'_>>) -> Result<(), ConfigError> {
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for entry in &layer {
            let Some(&(key, set)) = KNOBS.iter().find(|(key, _)| *key == entry.key) else {
                return Err(entry.unknown());
            };
            let key = entry.named(key);
            if let Some(first) = seen.insert(key.clone(), entry.spelling.clone()) {
                return Err(ConfigError::conflict(&first, &entry.spelling));
            }
            let refuse = |problem| ConfigError::Value { place: entry.place(), key, problem };
            set(self, entry).map_err(refuse)?;
        }
        let layer = std::mem::take(&mut self.auth_layer);
        self.auth = layer.over(std::mem::take(&mut self.auth))?;
        Ok(())
    }

    fn finish(self) -> Result<Config, ConfigError> {
        let Some(chain_id) = self.chain_id else {
            return Err(ConfigError::Missing { key: "chain-id", variable: variable("chain-id") });
        };
        let mut config = Config { chain_id, auth: self.auth.finish()?, ..self.config };
        match (&mut config.queue.when_full, self.max_block) {
            (_, None) => {}
            (WhenFull::Block(limit), Some(max_block)) => *limit = max_block,
            (WhenFull::DropNewest | WhenFull::Spool, Some(_)) => {
                return Err(ConfigError::incomplete("queue.max-block", "queue.when-full = \"block\""));
            }
        }
        // What was written down although it is the default changes nothing.
        config.events.retain(|_, budget| *budget != Budget::default());
        config.check()?;
        Ok(config)
    }

    /// The budget of the event that the entry is about.
    fn budget(&mut self, entry: &Entry<'_>) -> Result<&mut Budget, String> {
        let name = entry.event.as_deref().unwrap_or_default();
        let name: Name = name.parse().map_err(|problem: NameError| problem.to_string())?;
        Ok(self.config.events.entry(name).or_default())
    }

    fn auth(&mut self, key: AuthKey, entry: &Entry<'_>) -> Result<(), String> {
        let value = entry.value.text()?.to_owned();
        self.auth_layer.insert(key, value, entry.spelling.clone());
        Ok(())
    }

    /// As [`Draft::auth`], for a key whose value every user of the machine could read in the list of processes.
    fn secret(&mut self, key: AuthKey, entry: &Entry<'_>) -> Result<(), String> {
        if matches!(entry.origin, Origin::Flag) {
            return Err(
                "a secret is not taken from the command line; give it in a file or in the environment"
                    .to_owned(),
            );
        }
        self.auth(key, entry)
    }
}

/// A key with its value, from one layer.
struct Entry<'a> {
    /// The key in its one true spelling.
    key: String,
    /// The name of the event that it is about, which has its place in the key.
    event: Option<String>,
    /// The key as its layer spells it: `queue.max_event`, `NATS_URL`, `--url`.
    spelling: String,
    value: Value,
    origin: Origin<'a>,
}

enum Origin<'a> {
    File { label: &'a str, text: &'a str, key: Range<usize>, value: Range<usize> },
    Variable,
    Flag,
}

impl<'a> Entry<'a> {
    fn new(spelling: String, key: &str, value: Value, origin: Origin<'a>) -> Self {
        let (event, key) = split_event(key);
        let key = key.replace('_', "-");
        let key = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, key)| (*key).to_owned());
        Self { key, event, spelling, value, origin }
    }

    /// A key of the table with the name of the event in it.
    fn named(&self, key: &str) -> String {
        match &self.event {
            Some(event) => key.replacen(EVENT, event, 1),
            None => key.to_owned(),
        }
    }

    /// The variable of a key, with the name of the event in it.
    fn variable(&self, key: &str) -> String {
        let stem = format!("__{EVENT}__");
        match &self.event {
            Some(event) => variable(key).replacen(&stem, &format!("__{}__", event.replace('.', "__")), 1),
            None => variable(key),
        }
    }

    /// What to say of a key that is not in the table.
    fn unknown(&self) -> ConfigError {
        let key = self.named(&self.key);
        let problem = if is_table(&self.key) {
            format!("is a table: write [{TABLE}.{key}]")
        } else if let (Some(_), Value::Table) = (&self.event, &self.value) {
            let dotted = key.strip_prefix(EVENTS).unwrap_or(&key);
            format!(
                "is a table in one of an event; a name with dots is quoted: [{TABLE}.{EVENTS}\"{dotted}\"]"
            )
        } else {
            let near = nearest(&self.key);
            let is_variable = matches!(self.origin, Origin::Variable);
            let near = if is_variable { self.variable(near) } else { self.named(near) };
            format!("is unknown; did you mean {near}?")
        };
        let (place, key) = match &self.origin {
            Origin::File { label, text, key: at, .. } => (Place::of_key(label, text, at.clone()), key),
            Origin::Variable => (Place::named("environment"), self.spelling.clone()),
            Origin::Flag => (Place::named("command line"), key),
        };
        ConfigError::UnknownKey { place, key, problem }
    }

    /// Where the value stands.
    fn place(&self) -> Place {
        match &self.origin {
            Origin::File { label, text, value, .. } => Place::in_file(label, text, value.clone()),
            Origin::Variable => Place::named(format!("environment variable {}", self.spelling)),
            Origin::Flag => Place::named(format!("command line, {}", self.spelling)),
        }
    }
}

/// The entries of the table `[event-bus]` in a file. Other tables belong to others.
fn read_file<'a>(label: &'a str, text: &'a str) -> Result<Vec<Entry<'a>>, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        place: Place::in_file(label, text, error.span().unwrap_or_default()),
        problem: error.message().to_owned(),
    })?;
    let named = |key: &str| key.replace('_', "-") == TABLE;
    let mut tables = document.get_ref().iter().filter(|(key, _)| named(key.get_ref()));
    let Some((key, table)) = tables.next() else {
        return Err(no_table(label, document.get_ref()));
    };
    if let Some((other, _)) = tables.next() {
        return Err(ConfigError::conflict(key.get_ref(), other.get_ref()));
    }
    let DeValue::Table(table) = table.get_ref() else {
        let place = Place::in_file(label, text, key.span());
        return Err(ConfigError::Value {
            place,
            key: TABLE.to_owned(),
            problem: format!("this must be a table: [{TABLE}]"),
        });
    };
    let mut entries = Vec::new();
    flatten(table, "", &mut entries, &|key, value| Origin::File { label, text, key, value });
    Ok(entries)
}

/// Lists what a table holds, with dotted keys.
fn flatten<'a>(
    table: &DeTable<'_>,
    prefix: &str,
    entries: &mut Vec<Entry<'a>>,
    origin: &impl Fn(Range<usize>, Range<usize>) -> Origin<'a>,
) {
    for (key, value) in table {
        let path = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            // Only a table that we know is entered. Any other is an entry, and is refused under its own name.
            DeValue::Table(inner) if is_table(&path) || prefix == EVENTS => {
                flatten(inner, &format!("{path}."), entries, origin)
            }
            leaf => entries.push(Entry::new(
                path.clone(),
                &path,
                value_of(leaf),
                origin(key.span(), value.span()),
            )),
        }
    }
}

fn value_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("a number of that size"),
        },
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Float(number) => Value::Fraction(number.as_str().to_owned()),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(_) => Value::Other("a list"),
        DeValue::Table(_) => Value::Table,
    }
}

fn no_table(label: &str, document: &DeTable<'_>) -> ConfigError {
    let distance = |key: &str| strsim::damerau_levenshtein(&key.to_lowercase(), TABLE);
    let near = document.keys().map(|key| key.get_ref()).min_by_key(|key| distance(key));
    let near = near.filter(|key| distance(key) <= 3);
    let advice = near.map(|key| format!("; there is [{key}]: did you mean [{TABLE}]?")).unwrap_or_default();
    ConfigError::NoTable { file: label.to_owned(), advice }
}

/// The two layers of the environment: the variables of `nats`, and ours.
fn environment(
    env: impl IntoIterator<Item = (String, String)>,
) -> (Vec<Entry<'static>>, Vec<Entry<'static>>) {
    let (mut natscli, mut own) = (Vec::new(), Vec::new());
    for (name, value) in env {
        if name.starts_with(VARIABLE_STEM) {
            let key = name.strip_prefix(VARIABLE_PREFIX).unwrap_or_else(|| &name[VARIABLE_STEM.len() - 1..]);
            let key = key_of_variable(key);
            own.push(Entry::new(name, &key, Value::Text(value), Origin::Variable));
        } else if let Some(key) = natscli_key(&name)
            // The `nats` command takes an empty variable for none.
            && !value.is_empty()
        {
            natscli.push(Entry::new(name, key, Value::Text(value), Origin::Variable));
        }
    }
    (natscli, own)
}

/// The key of a variable without its prefix: `queue.max_event` of `QUEUE__MAX_EVENT`. The name of an event keeps its letters; two underscores in it
/// are a dot.
fn key_of_variable(variable: &str) -> String {
    let dotted = |text: &str| text.replace("__", ".");
    match variable.strip_prefix("EVENTS__").and_then(|rest| rest.rsplit_once("__")) {
        Some((event, knob)) => format!("{EVENTS}{}.{}", dotted(event), knob.to_lowercase()),
        None => dotted(&variable.to_lowercase()),
    }
}

/// Takes the name of an event out of a key and puts [`EVENT`] in its place. It may have dots, what follows it has none.
fn split_event(key: &str) -> (Option<String>, String) {
    let Some(rest) = key.strip_prefix(EVENTS) else { return (None, key.to_owned()) };
    let (event, knob) = rest.rsplit_once('.').unwrap_or((rest, ""));
    let key = format!("{EVENTS}{EVENT}.{knob}");
    (Some(event.to_owned()), key.trim_end_matches('.').to_owned())
}

fn natscli_key(variable: &str) -> Option<&'static str> {
    NATSCLI.iter().find(|(name, _)| *name == variable).map(|&(_, key)| key)
}

fn flags<'a>(overrides: impl IntoIterator<Item = (&'a str, String)>) -> Vec<Entry<'static>> {
    let entry = |(key, value): (&str, String)| {
        let name = key.rsplit('.').next().unwrap_or(key);
        Entry::new(format!("--{name}"), key, Value::Text(value), Origin::Flag)
    };
    overrides.into_iter().map(entry).collect()
}

/// The variable of the `nats` command that stands for a key, if there is one.
pub(super) fn natscli_variable(key: &str) -> Option<&'static str> {
    NATSCLI.iter().find(|(_, named)| *named == key).map(|&(name, _)| name)
}

/// All keys, in the order of the table.
#[cfg(test)]
pub(super) fn key_names() -> impl Iterator<Item = &'static str> {
    KNOBS.iter().map(|&(key, _)| key)
}

/// The variable of a key: `JETRING_EVENT_BUS__QUEUE__MAX_EVENT` of `queue.max-event`.
pub(super) fn variable(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "__").replace('-', "_").to_uppercase())
}

/// Whether a key is that of a table with keys in it.
fn is_table(key: &str) -> bool {
    let key = key.replace('_', "-");
    KNOBS.iter().any(|(knob, _)| knob.strip_prefix(&key).is_some_and(|rest| rest.starts_with('.')))
}

/// The known key that looks most like `key`, in whichever table it stands.
fn nearest(key: &str) -> &'static str {
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let distance = |known: &str| {
        let elsewhere = strsim::damerau_levenshtein(&last(key), &last(known)) + 1;
        strsim::damerau_levenshtein(key, known).min(elsewhere)
    };
    let keys = KNOBS.iter().map(|&(knob, _)| knob);
    let aliases = ALIASES.iter().map(|&(alias, _)| alias);
    let tables = keys.clone().filter_map(|knob| knob.split_once('.')).map(|(table, _)| table);
    keys.chain(aliases).chain(tables).min_by_key(|known| distance(known)).unwrap_or(TABLE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::{Auth, Secret, SecretSource};

    /// Lays `NAME=value` and `key=value` lists over a file.
    fn layered(
        file: &str,
        env: &[(&str, &str)],
        flags: &[(&'static str, &str)],
    ) -> Result<Config, ConfigError> {
        let env = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        build(Some(("f.toml", file)), env, flags.iter().map(|&(key, value)| (key, value.to_owned())))
    }

    fn refusal(file: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> String {
        layered(file, env, flags).unwrap_err().to_string()
    }

    const FILE: &str = "[event-bus]\nchain-id = 1\nurl = \"tls://file-host\"\n";

    #[test]
    fn a_stronger_layer_wins() {
        let nats = ("NATS_URL", "nats-host");
        let own = ("JETRING_EVENT_BUS__URL", "own-host");
        let flag = ("url", "flag-host");
        for (env, flags, url) in [
            (&[][..], &[][..], "tls://file-host:4222"),
            (&[nats], &[], "nats://nats-host:4222"),
            (&[own, nats], &[], "nats://own-host:4222"),
            (&[nats, own], &[flag], "nats://flag-host:4222"),
            (&[("NATS_URL", ""), ("HOME", "x")], &[], "tls://file-host:4222"),
        ] {
            assert_eq!(layered(FILE, env, flags).unwrap().url.to_string(), url);
        }
    }

    #[test]
    fn how_long_to_block_and_whether_may_come_from_different_layers() {
        let env = [("JETRING_EVENT_BUS__QUEUE__WHEN_FULL", "block")];
        let file = format!("{FILE}queue.max-block = \"2s\"\n");
        let blocks = WhenFull::Block(Duration::from_secs(2));
        assert_eq!(layered(&file, &env, &[]).unwrap().queue.when_full, blocks);
        let refusal = refusal(&file, &[], &[]);
        assert_eq!(refusal, "queue.max-block needs queue.when-full = \"block\" beside it");
    }

    #[test]
    fn no_file_is_needed() {
        let config = build(None, [], [("chain-id", "7".to_owned())]).unwrap();
        assert_eq!(config, Config::with(Endpoint::default(), StreamName::default(), 7));
    }

    #[test]
    fn every_key_can_be_set_from_each_layer() {
        for (key, _) in KNOBS {
            let value = match *key {
                "url" => "h",
                "stream" | "subject-prefix" => "s",
                "queue.capacity" | "delivery.max-in-flight-bytes" => "1MiB",
                "queue.rings" | "partitions" => "2",
                "spool.max-bytes" => "1GiB",
                "spool.sync" => "interval:100ms",
                "spool.when-full" => "drop-newest",
                "queue.when-full" => "drop-newest",
                "delivery.mode" => "async",
                "delivery.framing" => "plain",
                "delivery.compression" => "none",
                "events.NAME.share" => "0.5",
                "delivery.stamp" | "tls.first" | "tls.plaintext-credentials" => "true",
                "spool.dir" => "x",
                _ if key.starts_with("auth.") || key.starts_with("tls.") => "x",
                _ => "300",
            };
            // What is wrong with a lone key, if anything, is that its other half is missing.
            let fine = |outcome: Result<Config, ConfigError>| match outcome {
                Ok(_) | Err(ConfigError::Incomplete { .. }) => {}
                Err(error) => panic!("{key}: {error}"),
            };
            let chain = if *key == "chain-id" { "" } else { "event-bus.chain-id = 1\n" };
            fine(layered(&format!("{chain}event-bus.{key} = \"{value}\""), &[], &[]));
            fine(layered(&format!("{chain}event-bus.{} = \"{value}\"", key.replace('-', "_")), &[], &[]));
            fine(layered(FILE, &[(&variable(key), value)], &[]));
            if !["auth.password", "auth.token"].contains(key) {
                fine(layered(FILE, &[], &[(*key, value)]));
            }
        }
    }

    #[test]
    fn a_variable_has_the_type_of_its_key() {
        let env = [
            ("JETRING_EVENT_BUS__CHAIN_ID", "100"),
            ("JETRING_EVENT_BUS__QUEUE__MAX_EVENT", "1000"),
            ("JETRING_EVENT_BUS__DELIVERY__STAMP", "false"),
            ("NATS_USER", "me"),
            ("NATS_PASSWORD", "12345"),
        ];
        let config = layered(FILE, &env, &[]).unwrap();
        assert_eq!((config.chain_id, config.queue.max_event, config.delivery.stamp), (100, 1000, false));
        let password = SecretSource::Value(Secret::new("12345"));
        assert_eq!(config.auth, Auth::User { user: "me".to_owned(), password });
    }

    #[test]
    fn the_budgets_of_a_name_come_together_from_all_layers() {
        let file = format!("{FILE}[event-bus.events.'a.My_event-2']\nrate = 100\nsample = 10\n");
        let env = [
            ("JETRING_EVENT_BUS__EVENTS__a__My_event-2__SAMPLE", "20"),
            ("JETRING_EVENT_BUS__EVENTS__priceEstimate__share", "0.5"),
        ];
        let config =
            layered(&file, &env, &[("events.a.My_event-2.burst", "7"), ("events.b.rate", "5/s")]).unwrap();
        let budget = |name: &str| config.events[&name.parse::<Name>().unwrap()];
        let first = Budget { rate: Some(100), burst: Some(7), sample: 20, ..Budget::default() };
        assert_eq!(budget("a.My_event-2"), first);
        assert_eq!(budget("priceEstimate"), Budget { share: 0.5.try_into().unwrap(), ..Budget::default() });
        assert_eq!(budget("b"), Budget { rate: Some(5), ..Budget::default() });
        assert_eq!(config.events.len(), 3);
    }

    #[test]
    fn a_method_of_authentication_replaces_that_of_a_weaker_layer() {
        let file = format!("{FILE}auth.creds = \"file.creds\"\n");
        let config =
            layered(&file, &[("NATS_TOKEN", "t"), ("JETRING_EVENT_BUS__AUTH__NKEY", "seed")], &[]).unwrap();
        assert_eq!(config.auth, Auth::Nkey("seed".into()));
    }

    #[test]
    fn a_refusal_names_the_variable_or_the_flag() {
        for (env, flags, message) in [
            (
                &[("JETRING_EVENT_BUS__QUEUE__CAPCITY", "1")][..],
                &[][..],
                "environment: JETRING_EVENT_BUS__QUEUE__CAPCITY is unknown; did you mean JETRING_EVENT_BUS__QUEUE__CAPACITY?",
            ),
            (
                &[("JETRING_EVENT_BUS__EVENTS__a__b__RAT", "1")],
                &[],
                "environment: JETRING_EVENT_BUS__EVENTS__a__b__RAT is unknown; did you mean JETRING_EVENT_BUS__EVENTS__a__b__RATE?",
            ),
            (
                &[("JETRING_EVENT_BUS__EVENTS__a__b__RATE", "x")],
                &[],
                "environment variable JETRING_EVENT_BUS__EVENTS__a__b__RATE: events.a.b.rate: this must be",
            ),
            (
                &[("JETRING_EVENT_BUS_URL", "h")],
                &[],
                "environment: JETRING_EVENT_BUS_URL is unknown; did you mean JETRING_EVENT_BUS__URL?",
            ),
            (
                &[("JETRING_EVENT_BUS__CHAIN_ID", "one")],
                &[],
                "environment variable JETRING_EVENT_BUS__CHAIN_ID: chain-id: this must be a whole number, 0 or more, not another text",
            ),
            (
                &[("NATS_CREDS", "c"), ("NATS_TOKEN", "t")],
                &[],
                "NATS_CREDS and NATS_TOKEN are both given; keep one of them",
            ),
            (&[("NATS_USER", "me")], &[], "NATS_USER needs auth.password or auth.password-file beside it"),
            (
                &[],
                &[("delivery.mode", "warp")],
                "command line, --mode: delivery.mode: \"warp\" is unknown; allowed: auto, async, fast",
            ),
            (&[], &[("mod", "auto")], "command line: mod is unknown; did you mean delivery.mode?"),
            (&[], &[("auth.token", "hunter2")], "a secret is not taken from the command line"),
        ] {
            let refusal = refusal(FILE, env, flags);
            assert!(refusal.contains(message) && !refusal.contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn a_weaker_value_is_checked_although_it_is_replaced() {
        let refusal = refusal("event-bus.chain-id = -1", &[], &[("chain-id", "1")]);
        assert!(refusal.starts_with("f.toml, line 1: chain-id: this must be a whole number"), "{refusal}");
    }
}
