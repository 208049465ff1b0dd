//! JSON Schemas of what is in the stream, and what a change of them breaks.
//!
//! ```
//! #[derive(serde::Serialize, schemars::JsonSchema)]
//! struct PriceEstimate {
//!     estimator: String,
//!     price: Option<f64>,
//! }
//!
//! impl jetring::Event for PriceEstimate {
//!     const SUBJECT: &'static str = "priceEstimate";
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//! // All that this program publishes, one file each: priceEstimate.json
//! jetring::schema::Schemas::new().event::<PriceEstimate>().write_to(directory)?;
//! # Ok(())
//! # }
//! ```
//!
//! A program names its event types, all in one place. Nothing is collected behind its back, so what is not in the list is not in the
//! directory, and a test can hold the two together. The schema of an event is that of its body; [`Schemas::of_jetring`] has the envelope around
//! it, and the reports.
//!
//! Schemas are of draft 2020-12, and describe what is written: a member that is left out when it is empty is not required.
//! [`compatibility`] compares two sets of them, such as the committed one with that of the new version.

pub mod compatibility;

use crate::envelope::Envelope;
use crate::event::Event;
use crate::report::{self, Gap, Running, Started, Stopped};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The name that the envelope's schema has among those of this crate.
pub const ENVELOPE: &str = "envelope";

/// Schemas by the names of what they describe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of this crate: the envelope, and the body of each report.
    pub fn of_jetring() -> Self {
        Self::new()
            .with::<Envelope<'_>>(ENVELOPE)
            .with::<Started>(report::STARTED)
            .with::<Gap>(report::GAP)
            .with::<Running>(report::STATS)
            .with::<Stopped>(report::STOPPED)
    }

    /// And that of this event.
    #[must_use]
    pub fn event<E: Event + JsonSchema>(self) -> Self {
        self.with::<E>(E::SUBJECT)
    }

    fn with<T: JsonSchema + ?Sized>(mut self, name: &str) -> Self {
        let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
        let mut schema = generator.into_root_schema_for::<T>().to_value();
        without_links(&mut schema);
        self.0.insert(name.to_owned(), schema);
        self
    }

    /// The schema of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, schema)| (name.as_str(), schema))
    }

    /// All in one document, by name.
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, schema)| (name.clone(), schema.clone())).collect())
    }

    /// Writes one file each, `<name>.json`, to a directory, which is made if it is not there. Files of other names are left alone.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made or written to.
    pub fn write_to(&self, directory: impl AsRef<Path>) -> io::Result<()> {
        let directory = directory.as_ref();
        fs::create_dir_all(directory)?;
        for (name, schema) in &self.0 {
            fs::write(directory.join(format!("{name}.json")), format!("{schema:#}\n"))?;
        }
        Ok(())
    }

    /// Reads a directory of schemas, a file with one schema, which has the file's name, or a file with several of them by name.
    ///
    /// # Errors
    ///
    /// When something cannot be read, or is no schema.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SchemasError> {
        let path = path.as_ref();
        if !path.is_dir() {
            return read_file(path);
        }
        let mut schemas = Self::new();
        for entry in fs::read_dir(path).map_err(|error| SchemasError::io(path, error))? {
            let file = entry.map_err(|error| SchemasError::io(path, error))?.path();
            if file.extension().is_some_and(|extension| extension == "json") {
                schemas.0.append(&mut read_file(&file)?.0);
            }
        }
        Ok(schemas)
    }
}

fn read_file(path: &Path) -> Result<Schemas, SchemasError> {
    let text = fs::read_to_string(path).map_err(|error| SchemasError::io(path, error))?;
    let not_schemas = |why: String| SchemasError::NotSchemas { path: path.to_owned(), why };
    let document: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| not_schemas(error.to_string()))?;
    if document.contains_key("$schema") {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(Schemas([(name, document.into())].into()));
    }
    match document.iter().find(|(_, schema)| !schema.is_object()) {
        None => Ok(Schemas(document.into_iter().collect())),
        Some((name, _)) => Err(not_schemas(format!(
            "it has no \"$schema\", so it should have schemas by name, and {name:?} is none"
        ))),
    }
}

/// Why schemas cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemasError {
    /// The file or directory cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file holds something else.
    #[error("{path}: {why}")]
    NotSchemas {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl SchemasError {
    fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

/// Descriptions come from comments, whose links lead nowhere outside of the crate's documentation.
fn without_links(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "description" => {
                        *text = text.replace("[`", "`").replace("`]", "`")
                    }
                    _ => without_links(member),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(without_links),
        _ => {}
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    /// An event.
    #[derive(serde::Serialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    struct Estimate {
        /// What [`Estimate`] is worth.
        out_amount: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        gas: Option<u64>,
    }

    impl Event for Estimate {
        const SUBJECT: &'static str = "price.estimate";
    }

    #[test]
    fn an_events_schema_has_its_name_and_says_what_is_written() {
        let schemas = Schemas::new().event::<Estimate>();
        let schema = schemas.get("price.estimate").unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!((&schema["title"], &schema["description"]), (&json!("Estimate"), &json!("An event.")));
        assert_eq!(schema["required"], json!(["outAmount"]));
        assert_eq!(schema["properties"]["outAmount"]["description"], "What `Estimate` is worth.");
    }

    #[test]
    fn schemas_come_back_from_a_directory_and_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let schemas = Schemas::of_jetring().event::<Estimate>();
        schemas.write_to(directory.path().join("made")).unwrap();
        assert_eq!(Schemas::read(directory.path().join("made")).unwrap(), schemas);
        let one = Schemas::read(directory.path().join("made/price.estimate.json")).unwrap();
        assert_eq!(one, Schemas::new().event::<Estimate>());
        let all = directory.path().join("all.json");
        fs::write(&all, schemas.to_json().to_string()).unwrap();
        assert_eq!(Schemas::read(all).unwrap(), schemas);
    }

    #[test]
    fn what_is_no_schema_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.json");
        for (text, problem) in
            [("{", "EOF"), ("[]", "invalid type"), (r#"{"type":"object"}"#, "\"type\" is none")]
        {
            fs::write(&file, text).unwrap();
            let error = Schemas::read(&file).unwrap_err().to_string();
            assert!(error.contains("a.json") && error.contains(problem), "{error}");
        }
        let error = Schemas::read(directory.path().join("nowhere")).unwrap_err();
        assert!(matches!(error, SchemasError::Io { .. }), "{error}");
    }
}
