//! The configuration of a stream, in the server's words and with its defaults.
//!
//! What this server does not know it refuses, instead of taking it and doing something else. A few members change nothing that could
//! be seen in memory (`compression`, `storage`, …); they are taken and told again.

use super::errors::ApiError;
use super::subjects::{is_pattern, overlap};
use crate::subject::StreamName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;

/// How long a server knows message ids by default.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StreamConfig {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) subjects: Vec<String>,
    #[serde(default)]
    retention: Retention,
    #[serde(default = "unlimited")]
    max_consumers: i64,
    #[serde(default = "unlimited")]
    pub(super) max_msgs: i64,
    #[serde(default = "unlimited")]
    pub(super) max_bytes: i64,
    /// In nanoseconds; 0 is for ever.
    #[serde(default)]
    pub(super) max_age: u64,
    #[serde(default = "unlimited")]
    pub(super) max_msgs_per_subject: i64,
    #[serde(default = "unlimited")]
    pub(super) max_msg_size: i64,
    #[serde(default)]
    pub(super) discard: Discard,
    #[serde(default)]
    pub(super) discard_new_per_subject: bool,
    #[serde(default)]
    storage: Storage,
    #[serde(default)]
    num_replicas: u64,
    /// In nanoseconds.
    #[serde(default)]
    pub(super) duplicate_window: u64,
    #[serde(default)]
    pub(super) no_ack: bool,
    #[serde(default)]
    pub(super) allow_direct: bool,
    #[serde(default)]
    pub(super) allow_batched: bool,
    #[serde(default)]
    pub(super) deny_delete: bool,
    #[serde(default)]
    pub(super) deny_purge: bool,
    #[serde(default)]
    pub(super) sealed: bool,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Retention {
    #[default]
    Limits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Discard {
    #[default]
    Old,
    New,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Storage {
    #[default]
    File,
    Memory,
}

fn unlimited() -> i64 {
    -1
}

/// Members that are taken without an effect.
const WITHOUT_EFFECT: [&str; 5] =
    ["description", "metadata", "compression", "consumer_limits", "persist_mode"];

impl StreamConfig {
    /// Reads what a client asks for and puts the defaults in.
    pub(super) fn read(json: Value) -> Result<Self, ApiError> {
        let mut config: Self =
            serde_json::from_value(json).map_err(|error| ApiError::invalid_json(&error))?;
        if let Err(error) = StreamName::try_from(&*config.name) {
            return Err(ApiError::stream_config(error.to_string()));
        }
        if config.num_replicas > 1 {
            return Err(ApiError::REPLICAS);
        }
        // A member that says nothing is as good as none.
        config.others.retain(|_, value| {
            !matches!(value, Value::Null | Value::Bool(false))
                && *value != 0
                && *value != ""
                && value.as_array().is_none_or(|array| !array.is_empty())
                && value.as_object().is_none_or(|object| !object.is_empty())
        });
        if let Some(name) = config.others.keys().find(|name| !WITHOUT_EFFECT.contains(&name.as_str())) {
            return Err(ApiError::stream_config(format!("this mock server has no streams with {name:?}")));
        }
        config.fill_in();
        // A stream that stored the requests to JetStream, or the answers, would answer these.
        let is_taken = |subject: &str| ["$JS.>", "_INBOX.>"].iter().any(|taken| overlap(taken, subject));
        match config.subjects.iter().find(|subject| !is_pattern(subject) || is_taken(subject)) {
            Some(subject) => Err(ApiError::stream_config(format!("invalid subject {subject:?}"))),
            None => Ok(config),
        }
    }

    /// Whether an existing stream may be changed into this.
    pub(super) fn check_update_of(&self, current: &Self) -> Result<(), ApiError> {
        if self.storage != current.storage {
            let problem = "stream configuration update can not change storage type";
            return Err(ApiError::stream_config(problem.to_owned()));
        }
        Ok(())
    }

    /// The configuration with these members changed.
    pub(super) fn merged_with(&self, changes: Value) -> Value {
        let mut merged = serde_json::to_value(self).unwrap_or_default();
        if let (Value::Object(merged), Value::Object(changes)) = (&mut merged, changes) {
            merged.extend(changes);
        }
        merged
    }

    fn fill_in(&mut self) {
        if self.subjects.is_empty() {
            self.subjects = vec![self.name.clone()];
        }
        // For the server each of these means that there is no limit.
        for limit in [
            &mut self.max_consumers,
            &mut self.max_msgs,
            &mut self.max_bytes,
            &mut self.max_msgs_per_subject,
            &mut self.max_msg_size,
        ] {
            if *limit <= 0 {
                *limit = unlimited();
            }
        }
        self.num_replicas = 1;
        if self.duplicate_window == 0 {
            let window = DUPLICATE_WINDOW.as_nanos() as u64;
            self.duplicate_window = if self.max_age > 0 { window.min(self.max_age) } else { window };
        }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_those_of_the_server() {
        let config =
            StreamConfig::read(json!({ "name": "main", "max_age": 1_000_000_000, "max_msgs": 0 })).unwrap();
        assert_eq!(config.subjects, ["main"]);
        assert_eq!((config.max_msgs, config.duplicate_window), (-1, 1_000_000_000));
        let told = serde_json::to_value(&config).unwrap();
        assert_eq!((&told["discard"], &told["num_replicas"]), (&json!("old"), &json!(1)));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (json, err_code) in [
            (json!({ "name": "" }), 10052),
            (json!({ "name": "a.b" }), 10052),
            (json!({ "name": "a", "mirror": { "name": "b" } }), 10052),
            (json!({ "name": "a", "allow_atomic": true }), 10052),
            (json!({ "name": "a", "subjects": ["a..b"] }), 10052),
            (json!({ "name": "a", "subjects": [">"] }), 10052),
            (json!({ "name": "a", "retention": "workqueue" }), 10025),
            (json!({ "name": "a", "num_replicas": 3 }), 10074),
            (json!([]), 10025),
        ] {
            assert_eq!(StreamConfig::read(json.clone()).unwrap_err().err_code, err_code, "{json}");
        }
        let without_effect = json!({ "name": "a", "mirror": null, "sources": [], "compression": "s2" });
        assert!(StreamConfig::read(without_effect).is_ok());
    }

    #[test]
    fn changes_are_merged() {
        let config = StreamConfig::read(json!({ "name": "a", "subjects": ["b.>"] })).unwrap();
        let changed = StreamConfig::read(config.merged_with(json!({ "max_msgs": 3 }))).unwrap();
        assert_eq!((changed.max_msgs, &changed.subjects), (3, &config.subjects));
        let moved = StreamConfig::read(config.merged_with(json!({ "storage": "memory" }))).unwrap();
        assert_eq!(moved.check_update_of(&config).unwrap_err().err_code, 10052);
    }
}
