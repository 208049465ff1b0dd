//! Whether one schema takes everything that another one allows.
//!
//! The *reader's* schema says what it takes, the *writer's* what may come. Both are walked together; every place where something may
//! come that is not taken is noted. Alternatives of the writer must each be taken; of the reader's, one must take what comes.
//!
//! It errs on one side: what it cannot judge it reports. Inside of itself a pair of schemas is not looked into again, since that look would
//! find what this one does; so a type that holds itself has an end.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Words that say nothing of what is allowed.
const IGNORED: [&str; 15] = [
    "$schema",
    "$id",
    "$defs",
    "definitions",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentMediaType",
    "contentEncoding",
    "x-rust-type",
];

/// Words that are judged by name below.
const JUDGED: [&str; 17] = [
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "format",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "anyOf",
    "oneOf",
];

/// Lower bounds, upper bounds, and what is said of who breaks them.
const LOWER: [(&str, &str); 3] = [
    ("minimum", "it may be below"),
    ("minLength", "it may be shorter than"),
    ("minItems", "it may be shorter than"),
];
const UPPER: [(&str, &str); 3] = [
    ("maximum", "it may be above"),
    ("maxLength", "it may be longer than"),
    ("maxItems", "it may be longer than"),
];

/// Formats of integers, with the least and the greatest exponent of two that they hold.
const INTEGERS: [(&str, u32, u32); 12] = [
    ("int8", 7, 7),
    ("int16", 15, 15),
    ("int32", 31, 31),
    ("int64", 63, 63),
    ("int128", 127, 127),
    ("int", 63, 63),
    ("uint8", 0, 8),
    ("uint16", 0, 16),
    ("uint32", 0, 32),
    ("uint64", 0, 64),
    ("uint128", 0, 128),
    ("uint", 0, 64),
];

/// Places in an event and what may come there that is not taken.
type Found = Vec<(String, String)>;

pub(super) struct Inclusion<'s> {
    reader: &'s Value,
    writer: &'s Value,
    /// Pairs of schemas that are being looked into.
    open: BTreeSet<(String, String)>,
}

impl<'s> Inclusion<'s> {
    /// What may come by `writer` and is not taken by `reader`.
    pub(super) fn check(reader: &'s Value, writer: &'s Value) -> Found {
        let mut found = Found::new();
        Self { reader, writer, open: BTreeSet::new() }.look(reader, writer, "", &mut found);
        found
    }

    fn look(&mut self, reader: &Value, writer: &Value, place: &str, found: &mut Found) {
        let (reader, writer) = (resolve(self.reader, reader), resolve(self.writer, writer));
        let pair = (reader.to_string(), writer.to_string());
        if !self.open.insert(pair.clone()) {
            return;
        }
        let mut say = |why: &str| found.push((place.to_owned(), why.to_owned()));
        match (&reader, &writer) {
            (_, Value::Bool(false)) => {}
            (Value::Bool(false), _) => say("it may be anything, where nothing is allowed"),
            (Value::Object(reader), Value::Object(writer)) => self.look_into(reader, writer, place, found),
            // No schema at all says no more than an empty one.
            (Value::Object(reader), _) => self.look_into(reader, &Map::new(), place, found),
            _ => {}
        }
        self.open.remove(&pair);
    }

    fn look_into(
        &mut self,
        reader: &Map<String, Value>,
        writer: &Map<String, Value>,
        place: &str,
        found: &mut Found,
    ) {
        if let Some(alternatives) = alternatives(writer) {
            alternatives
                .iter()
                .for_each(|writer| self.look(&Value::Object(reader.clone()), writer, place, found));
            return;
        }
        if let Some(alternatives) = alternatives(reader) {
            // Of several values each may be that of another alternative.
            one_by_one(writer).iter().for_each(|writer| self.choose(&alternatives, writer, place, found));
            return;
        }
        if let Some(problem) = values(reader, writer).or_else(|| kind(reader, writer)) {
            // What is of another kind has nothing else to be compared.
            found.push((place.to_owned(), problem));
            return;
        }
        let why =
            bounds(reader, writer).into_iter().chain(format(reader, writer)).chain(unjudged(reader, writer));
        found.extend(why.map(|why| (place.to_owned(), why)));
        self.members(reader, writer, place, found);
        self.elements(reader, writer, place, found);
    }

    /// One alternative of the reader must take what comes. If none does, it is said what is wrong with the only one of that type.
    fn choose(
        &mut self,
        alternatives: &[Value],
        writer: &Map<String, Value>,
        place: &str,
        found: &mut Found,
    ) {
        let mut failed = Vec::new();
        for alternative in alternatives {
            let mut wrong = Found::new();
            self.look(alternative, &Value::Object(writer.clone()), place, &mut wrong);
            if wrong.is_empty() {
                return;
            }
            failed.push((alternative, wrong));
        }
        let is_of_type = |alternative: &Value| {
            resolve(self.reader, alternative)
                .as_object()
                .is_some_and(|alternative| kind(alternative, writer).is_none())
        };
        if let Some([value]) = few(writer).as_deref() {
            found.push((place.to_owned(), format!("it may be {value}, which is not known")));
            return;
        }
        let mut of_type = failed.iter().filter(|(alternative, _)| is_of_type(alternative));
        match (of_type.next(), of_type.next()) {
            (Some((_, wrong)), None) => found.extend(wrong.iter().cloned()),
            (None, _) if writer.contains_key("type") => {
                let read: Vec<String> =
                    alternatives.iter().map(|alternative| name(&resolve(self.reader, alternative))).collect();
                let why = format!(
                    "it may be a {}, where {} is read",
                    name(&writer.clone().into()),
                    read.join(" or ")
                );
                found.push((place.to_owned(), why));
            }
            _ => found.push((place.to_owned(), "it may be of a kind that is not known".to_owned())),
        }
    }

    fn members(
        &mut self,
        reader: &Map<String, Value>,
        writer: &Map<String, Value>,
        place: &str,
        found: &mut Found,
    ) {
        let anything = Value::Bool(true);
        let properties =
            |schema: &Map<String, Value>| schema.get("properties").and_then(Value::as_object).cloned();
        let (read, written) =
            (properties(reader).unwrap_or_default(), properties(writer).unwrap_or_default());
        let always = texts(writer.get("required"));
        for name in texts(reader.get("required")).iter().filter(|name| !always.contains(name)) {
            found.push((join(place, name), "it may be absent".to_owned()));
        }
        for (name, writer) in &written {
            if let Some(reader) = read.get(name) {
                self.look(reader, writer, &join(place, name), found);
            }
        }
        let Some(others) = reader.get("additionalProperties") else { return };
        for (name, writer) in written.iter().filter(|(name, _)| !read.contains_key(*name)) {
            match others {
                Value::Bool(false) => {
                    found.push((join(place, name), "it may be there, where it is forbidden".to_owned()));
                }
                reader => self.look(reader, writer, &join(place, name), found),
            }
        }
        self.look(others, writer.get("additionalProperties").unwrap_or(&anything), &join(place, "*"), found);
    }

    fn elements(
        &mut self,
        reader: &Map<String, Value>,
        writer: &Map<String, Value>,
        place: &str,
        found: &mut Found,
    ) {
        let anything = Value::Bool(true);
        let listed =
            |schema: &Map<String, Value>| schema.get("prefixItems").and_then(Value::as_array).cloned();
        let (read, written) = (listed(reader).unwrap_or_default(), listed(writer).unwrap_or_default());
        let rest = |schema: &Map<String, Value>| schema.get("items").cloned();
        for (at, reader) in read.iter().enumerate() {
            let writer =
                written.get(at).cloned().or_else(|| rest(writer)).unwrap_or_else(|| anything.clone());
            self.look(reader, &writer, &join(place, &format!("[{at}]")), found);
        }
        let Some(reader) = rest(reader) else { return };
        for (at, writer) in written.iter().enumerate().skip(read.len()) {
            self.look(&reader, writer, &join(place, &format!("[{at}]")), found);
        }
        self.look(&reader, &rest(writer).unwrap_or(anything), &join(place, "[]"), found);
    }
}

fn join(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}: {name}") }
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref").and_then(Value::as_str)
}

/// The schema with what it refers to, in the document `root`, and what its `allOf` says; without the words that say nothing.
fn resolve(root: &Value, schema: &Value) -> Value {
    let mut resolved = schema.clone();
    let mut followed = BTreeSet::new();
    while let Some(reference) = reference(&resolved).map(str::to_owned) {
        // A circle of references, or one that leads out of the document, stays, and is judged as a word that is not known.
        let target =
            reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)).and_then(Value::as_object);
        let (Some(target), true, Value::Object(own)) = (target, followed.insert(reference), &mut resolved)
        else {
            break;
        };
        own.remove("$ref");
        let mut whole = target.clone();
        whole.append(own);
        resolved = whole.into();
    }
    if let Some(own) = resolved.as_object_mut()
        && let Some(Value::Array(parts)) = own.remove("allOf")
    {
        parts.iter().for_each(|part| add(own, resolve(root, part)));
    }
    if let Some(own) = resolved.as_object_mut() {
        own.retain(|word, _| !IGNORED.contains(&word.as_str()));
    }
    resolved
}

/// Adds what another part of the same schema says.
fn add(schema: &mut Map<String, Value>, part: Value) {
    let Value::Object(part) = part else { return };
    for (word, value) in part {
        match (schema.get_mut(&word), value) {
            (Some(Value::Object(own)), Value::Object(more)) => own.extend(more),
            (Some(Value::Array(own)), Value::Array(more)) if word == "required" => own.extend(more),
            (_, value) => drop(schema.insert(word, value)),
        }
    }
}

/// The alternatives that a schema consists of, each with what holds for all of them.
fn alternatives(schema: &Map<String, Value>) -> Option<Vec<Value>> {
    for word in ["anyOf", "oneOf"] {
        if let Some(Value::Array(alternatives)) = schema.get(word) {
            let mut common = schema.clone();
            common.remove(word);
            return Some(alternatives.iter().map(|alternative| with(&common, alternative)).collect());
        }
    }
    let Some(Value::Array(types)) = schema.get("type") else { return None };
    let of_type = |kind: &Value| {
        let mut one = schema.clone();
        one.insert("type".to_owned(), kind.clone());
        Value::Object(one)
    };
    Some(types.iter().map(of_type).collect())
}

fn with(common: &Map<String, Value>, alternative: &Value) -> Value {
    match alternative {
        Value::Object(alternative) if !common.is_empty() => {
            let mut whole = common.clone();
            add(&mut whole, alternative.clone().into());
            whole.into()
        }
        alternative => alternative.clone(),
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let elements = value.and_then(Value::as_array).into_iter().flatten();
    elements.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The few values that are allowed, if it is a few.
fn few(schema: &Map<String, Value>) -> Option<Vec<Value>> {
    schema.get("const").map(|value| vec![value.clone()]).or_else(|| schema.get("enum")?.as_array().cloned())
}

/// The schema for each of the few values that it allows, or itself.
fn one_by_one(schema: &Map<String, Value>) -> Vec<Map<String, Value>> {
    let Some(values) = few(schema) else { return vec![schema.clone()] };
    let only = |value| {
        let mut one = schema.clone();
        one.remove("enum");
        one.insert("const".to_owned(), value);
        one
    };
    values.into_iter().map(only).collect()
}

fn values(reader: &Map<String, Value>, writer: &Map<String, Value>) -> Option<String> {
    let Some(read) = few(reader) else {
        // The values say their type where nothing else does.
        let read = reader.get("type").and_then(Value::as_str)?;
        let is_other = |value: &&Value| !takes(read, type_of(value));
        let other = few(writer)?.iter().find(is_other).cloned()?;
        return Some(format!("it may be {other}, where {read} is read"));
    };
    match few(writer) {
        Some(written) => {
            let unknown = written.iter().find(|value| !read.contains(value))?;
            Some(format!("it may be {unknown}, which is not known"))
        }
        None => Some("it may be any value, where a few are known".to_owned()),
    }
}

fn kind(reader: &Map<String, Value>, writer: &Map<String, Value>) -> Option<String> {
    let read = reader.get("type").and_then(Value::as_str)?;
    match writer.get("type").and_then(Value::as_str) {
        Some(written) if takes(read, written) => None,
        Some(written) => Some(format!("it may be a {written}, where {read} is read")),
        None if few(writer).is_some() => None,
        None => Some(format!("it may be anything, where {read} is read")),
    }
}

fn takes(read: &str, written: &str) -> bool {
    read == written || (read == "number" && written == "integer")
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A schema's type, in words.
fn name(schema: &Value) -> String {
    schema.get("type").and_then(Value::as_str).map_or_else(|| "something".to_owned(), str::to_owned)
}

fn bounds(reader: &Map<String, Value>, writer: &Map<String, Value>) -> Vec<String> {
    let number = |schema: &Map<String, Value>, word: &str| schema.get(word).and_then(Value::as_f64);
    let broken = |&(word, what): &(&str, &str), holds: fn(f64, f64) -> bool| {
        let read = number(reader, word)?;
        let is_kept = number(writer, word).is_some_and(|written| holds(read, written));
        (!is_kept).then(|| format!("{what} {read}"))
    };
    let lower = LOWER.iter().filter_map(|bound| broken(bound, |read, written| written >= read));
    let upper = UPPER.iter().filter_map(|bound| broken(bound, |read, written| written <= read));
    lower.chain(upper).collect()
}

fn format(reader: &Map<String, Value>, writer: &Map<String, Value>) -> Option<String> {
    let read = reader.get("format").and_then(Value::as_str)?;
    let Some(written) = writer.get("format").and_then(Value::as_str) else {
        return few(writer).is_none().then(|| format!("it may be of any format, where {read} is read"));
    };
    let width = |format: &str| INTEGERS.iter().find(|(name, ..)| *name == format);
    let fits = match (width(read), width(written)) {
        (Some((_, least, greatest)), Some((_, other_least, other_greatest))) => {
            other_least <= least && other_greatest <= greatest
        }
        _ => read == written || (read == "double" && written == "float"),
    };
    (!fits).then(|| format!("it may be of format {written}, where {read} is read"))
}

/// Words of the reader's that are not judged here and that the writer does not say as well.
fn unjudged(reader: &Map<String, Value>, writer: &Map<String, Value>) -> Vec<String> {
    let differs = reader
        .iter()
        .filter(|(word, value)| !JUDGED.contains(&word.as_str()) && writer.get(*word) != Some(value));
    differs.map(|(word, _)| format!("{word} differs, and nobody can tell what that means")).collect()
}
