//! What a change of schemas breaks, and for whom.
//!
//! A stream has a past and a future, so two kinds of readers matter: the *old* ones, which were made for the old schema and now get new
//! events, and the *new* ones, which are made for the new schema and also get what lies in the stream already. Each is
//! fine if every event that may come is one that its schema takes. So the question is one of inclusion, asked twice, and each
//! rule below is a part of it:
//!
//! | change of an event | old readers | new readers |
//! | --- | --- | --- |
//! | an optional member is added or removed | fine | fine |
//! | a required member is added, or an optional one becomes required | fine | break: old events may not have it |
//! | a required member is removed, or becomes optional | break: it may be absent | fine |
//! | a type, bound, length or number format is widened (`integer` to `number`, `int32` to `int64`) | break | fine |
//! | it is narrowed | fine | break |
//! | a type becomes another one | break | break |
//! | a value is added to an enum | break: they do not know it | fine |
//! | a value is removed from an enum | fine | break: old events may have it |
//! | a variant is added to, or removed from, a union | as with values | as with values |
//! | a whole event is added | fine | fine |
//! | a whole event is removed | break: it does not come any more | fine |
//! | a pattern, or a word of JSON Schema that is not judged here, is changed | break: nobody can tell | break |
//!
//! Readers must ignore members that they do not know (unless their schema says `additionalProperties: false`). Titles,
//! descriptions, defaults and examples do not count.

mod include;

use super::Schemas;
use include::Inclusion;
use serde::Serialize;
use std::fmt;

/// Whose reading breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readers {
    /// Those made for the old schema, with new events.
    Old,
    /// Those made for the new schema, with old events.
    New,
}

impl fmt::Display for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "old readers of new events",
            Self::New => "new readers of old events",
        })
    }
}

/// What breaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Break {
    /// For whom.
    pub readers: Readers,
    /// Where in the event, by the names of its members; `[]` is any element, and nothing the event itself.
    pub place: String,
    /// What they meet there.
    pub why: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { readers, place, why } = self;
        if place.is_empty() { write!(f, "{readers}: {why}") } else { write!(f, "{readers}: {place}: {why}") }
    }
}

/// What became of one event's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Nothing.
    Unchanged,
    /// It is new.
    Added,
    /// It is not there any more.
    Removed,
    /// It is another one.
    Changed,
}

/// The comparison of one event's schemas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The event's name.
    pub name: String,
    /// What became of its schema.
    pub change: Change,
    /// Whom that breaks, and how. Empty if the change is compatible.
    pub breaks: Vec<Break>,
}

/// Compares two sets of schemas, event by event.
pub fn compare(old: &Schemas, new: &Schemas) -> Vec<Comparison> {
    let mut names: Vec<&str> = old.iter().chain(new.iter()).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| compare_event(name, old, new)).collect()
}

fn compare_event(name: &str, old: &Schemas, new: &Schemas) -> Comparison {
    let (change, breaks) = match (old.get(name), new.get(name)) {
        (Some(old), Some(new)) if old == new => (Change::Unchanged, Vec::new()),
        (Some(old), Some(new)) => {
            let breaks = |readers, reader, writer| {
                let found = Inclusion::check(reader, writer).into_iter();
                found.map(move |(place, why)| Break { readers, place, why })
            };
            let mut breaks: Vec<_> =
                breaks(Readers::Old, old, new).chain(breaks(Readers::New, new, old)).collect();
            breaks.sort();
            breaks.dedup();
            (Change::Changed, breaks)
        }
        (None, _) => (Change::Added, Vec::new()),
        (Some(_), None) => {
            let why = "it does not come any more".to_owned();
            (Change::Removed, vec![Break { readers: Readers::Old, place: String::new(), why }])
        }
    };
    Comparison { name: name.to_owned(), change, breaks }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What the change of one schema breaks, as sentences.
    fn broken(old: &Value, new: &Value) -> Vec<String> {
        let set = |schema: &Value| Schemas([("a".to_owned(), schema.clone())].into());
        compare(&set(old), &set(new)).remove(0).breaks.iter().map(ToString::to_string).collect()
    }

    /// The change breaks old readers thus, and the change back new ones.
    #[track_caller]
    fn assert_breaks_old(old: &Value, new: &Value, why: &str) {
        assert_eq!(broken(old, new), [format!("old readers of new events: {why}")]);
        assert_eq!(broken(new, old), [format!("new readers of old events: {why}")]);
    }

    #[track_caller]
    fn assert_fine(old: &Value, new: &Value) {
        assert_eq!(broken(old, new), [""; 0]);
        assert_eq!(broken(new, old), [""; 0]);
    }

    fn object(properties: &Value, required: &[&str]) -> Value {
        json!({"type": "object", "properties": properties, "required": required})
    }

    fn member(schema: &Value) -> Value {
        object(&json!({ "m": schema }), &["m"])
    }

    #[test]
    fn an_optional_member_may_come_and_go() {
        let (with, without) =
            (json!({"a": {"type": "string"}, "b": {"type": "null"}}), json!({"a": {"type": "string"}}));
        assert_fine(&object(&with, &["a"]), &object(&without, &["a"]));
    }

    #[test]
    fn a_required_member_may_not_go_and_breaks_new_readers_where_it_comes() {
        let (with, without) = (json!({"a": {}, "b": {}}), json!({"a": {}}));
        assert_breaks_old(&object(&with, &["a", "b"]), &object(&without, &["a"]), "b: it may be absent");
    }

    #[test]
    fn a_required_member_that_becomes_optional_breaks_old_readers() {
        let properties = json!({"a": {}, "b": {}});
        assert_breaks_old(
            &object(&properties, &["a", "b"]),
            &object(&properties, &["b"]),
            "a: it may be absent",
        );
    }

    #[test]
    fn a_type_may_be_narrowed_and_not_widened_for_old_readers() {
        let cases = [
            (
                json!({"type": "integer"}),
                json!({"type": "number"}),
                "m: it may be a number, where integer is read",
            ),
            (
                json!({"type": "string"}),
                json!({"type": ["string", "null"]}),
                "m: it may be a null, where string is read",
            ),
            (json!({"minimum": 0}), json!({}), "m: it may be below 0"),
            (json!({"maximum": 5}), json!({"maximum": 6}), "m: it may be above 5"),
            (json!({"maxLength": 5}), json!({"maxLength": 6}), "m: it may be longer than 5"),
            (json!({"minItems": 2}), json!({"minItems": 1}), "m: it may be shorter than 2"),
            (
                json!({"format": "int32"}),
                json!({"format": "int64"}),
                "m: it may be of format int64, where int32 is read",
            ),
            (
                json!({"format": "uint8"}),
                json!({"format": "int16"}),
                "m: it may be of format int16, where uint8 is read",
            ),
        ];
        for (narrow, wide, why) in cases {
            assert_breaks_old(&member(&narrow), &member(&wide), why);
        }
    }

    #[test]
    fn another_type_breaks_both() {
        let found = broken(&member(&json!({"type": "string"})), &member(&json!({"type": "integer"})));
        assert_eq!(
            found,
            [
                "old readers of new events: m: it may be a integer, where string is read",
                "new readers of old events: m: it may be a string, where integer is read",
            ]
        );
        let found = broken(&member(&json!({"format": "date-time"})), &member(&json!({"format": "uuid"})));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_value_that_is_added_to_an_enum_breaks_old_readers_and_one_that_is_removed_new_ones() {
        let (two, three) = (json!({"enum": ["a", "b"]}), json!({"enum": ["a", "b", "c"]}));
        assert_breaks_old(&member(&two), &member(&three), "m: it may be \"c\", which is not known");
        assert_breaks_old(
            &member(&two),
            &member(&json!({"type": "string"})),
            "m: it may be any value, where a few are known",
        );
        assert_fine(&member(&json!({"const": "a"})), &member(&json!({"enum": ["a"]})));
        let found = broken(&member(&json!({"type": "string"})), &member(&json!({"enum": [7, "a"]})));
        assert_eq!(
            found,
            [
                "old readers of new events: m: it may be 7, where string is read",
                "new readers of old events: m: it may be any value, where a few are known",
            ]
        );
    }

    #[test]
    fn variants_are_judged_as_values_are() {
        let variant = |name: &str| object(&json!({name: {"type": "string"}}), &[name]);
        let (two, three) = (
            json!({"oneOf": [variant("a"), variant("b")]}),
            json!({"oneOf": [variant("a"), variant("b"), variant("c")]}),
        );
        assert_breaks_old(&member(&two), &member(&three), "m: it may be of a kind that is not known");
        let units = json!({"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string", "const": "b", "description": "B"}]});
        assert_fine(&member(&units), &member(&json!({"type": "string", "enum": ["b", "a"]})));
        let known = "m: it may be \"c\", which is not known";
        assert_breaks_old(
            &member(&units),
            &member(&json!({"type": "string", "enum": ["a", "c", "b"]})),
            known,
        );
        assert_breaks_old(&member(&variant("a")), &member(&two), "m: a: it may be absent");
    }

    #[test]
    fn what_may_be_null_is_looked_into() {
        let inner =
            |schema: Value| json!({"anyOf": [object(&json!({ "x": schema }), &["x"]), {"type": "null"}]});
        let (narrow, wide) = (inner(json!({"type": "integer"})), inner(json!({"type": "number"})));
        assert_breaks_old(
            &member(&narrow),
            &member(&wide),
            "m: x: it may be a number, where integer is read",
        );
    }

    #[test]
    fn elements_keys_and_references_are_looked_into() {
        let narrow = json!({"type": "integer"});
        let wide = json!({"type": "number"});
        let why = "it may be a number, where integer is read";
        let array = |schema: &Value| member(&json!({"type": "array", "items": schema}));
        assert_breaks_old(&array(&narrow), &array(&wide), &format!("m: []: {why}"));
        let tuple =
            |schema: &Value| member(&json!({"type": "array", "prefixItems": [{}, schema], "minItems": 2}));
        assert_breaks_old(&tuple(&narrow), &tuple(&wide), &format!("m: [1]: {why}"));
        let map = |schema: &Value| member(&json!({"type": "object", "additionalProperties": schema}));
        assert_breaks_old(&map(&narrow), &map(&wide), &format!("m: *: {why}"));
        let shared = |schema: &Value| json!({"$ref": "#/$defs/A", "$defs": {"A": member(schema)}});
        assert_breaks_old(&shared(&narrow), &shared(&wide), &format!("m: {why}"));
        assert_fine(&shared(&narrow), &member(&narrow));
    }

    #[test]
    fn a_type_that_holds_itself_is_judged_once() {
        let tree = |schema: Value| {
            let node = object(
                &json!({"value": schema, "left": {"anyOf": [{"$ref": "#/$defs/T"}, {"type": "null"}]}}),
                &["value"],
            );
            json!({"$ref": "#/$defs/T", "$defs": {"T": node}})
        };
        let (narrow, wide) = (tree(json!({"type": "integer"})), tree(json!({"type": "number"})));
        assert_breaks_old(&narrow, &wide, "value: it may be a number, where integer is read");
    }

    #[test]
    fn a_closed_object_takes_no_new_members() {
        let mut closed = object(&json!({"a": {}}), &["a"]);
        closed["additionalProperties"] = json!(false);
        let mut wider = object(&json!({"a": {}, "b": {}}), &["a"]);
        wider["additionalProperties"] = json!(false);
        assert_breaks_old(&closed, &wider, "b: it may be there, where it is forbidden");
        assert_breaks_old(
            &closed,
            &object(&json!({"a": {}}), &["a"]),
            "*: it may be anything, where nothing is allowed",
        );
    }

    #[test]
    fn what_cannot_be_judged_breaks_if_it_changes() {
        let found = broken(&member(&json!({"pattern": "a"})), &member(&json!({"pattern": "b"})));
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with("m: pattern differs, and nobody can tell what that means"), "{found:?}");
        assert_fine(
            &member(&json!({"not": {"const": 1}})),
            &member(&json!({"not": {"const": 1}, "title": "T"})),
        );
    }

    #[test]
    fn descriptions_titles_and_examples_do_not_count() {
        let (old, mut new) =
            (member(&json!({})), member(&json!({"description": "d", "default": 1, "examples": [2]})));
        new["title"] = json!("T");
        assert_fine(&old, &new);
    }

    /// Two versions of an event, as a program has them.
    #[allow(dead_code, reason = "what is compared is their types")]
    mod versions {
        use schemars::JsonSchema;
        use serde::Serialize;

        pub(super) mod old {
            use super::*;

            #[derive(Serialize, JsonSchema)]
            pub(in super::super) struct Estimate {
                estimator: String,
                gas: Option<u32>,
                outcome: Outcome,
                path: Vec<Hop>,
            }

            #[derive(Serialize, JsonSchema)]
            enum Outcome {
                OutAmount(String),
                NoRoute,
            }

            #[derive(Serialize, JsonSchema)]
            struct Hop {
                pool: u64,
            }
        }

        pub(super) mod new {
            use super::*;

            #[derive(Serialize, JsonSchema)]
            pub(in super::super) struct Estimate {
                estimator: String,
                gas: Option<u64>,
                outcome: Outcome,
                path: Vec<Hop>,
                #[serde(skip_serializing_if = "Option::is_none")]
                retries: Option<u8>,
            }

            #[derive(Serialize, JsonSchema)]
            enum Outcome {
                OutAmount(String),
                NoRoute,
                Timeout,
            }

            #[derive(Serialize, JsonSchema)]
            struct Hop {
                pool: u64,
                fee: u16,
            }
        }
    }

    impl crate::Event for versions::old::Estimate {
        const SUBJECT: &'static str = "estimate";
    }

    impl crate::Event for versions::new::Estimate {
        const SUBJECT: &'static str = "estimate";
    }

    #[test]
    fn the_types_of_a_program_are_compared_as_what_they_write() {
        let old = Schemas::new().event::<versions::old::Estimate>();
        let new = Schemas::new().event::<versions::new::Estimate>();
        assert_eq!(compare(&old, &old).remove(0).change, Change::Unchanged);
        let breaks = compare(&old, &new).remove(0).breaks;
        let breaks: Vec<String> = breaks.iter().map(ToString::to_string).collect();
        assert_eq!(
            breaks,
            [
                "old readers of new events: gas: it may be of format uint64, where uint32 is read",
                "old readers of new events: outcome: it may be \"Timeout\", which is not known",
                "new readers of old events: path: []: fee: it may be absent",
            ]
        );
    }

    #[test]
    fn a_whole_event_may_come_and_not_go() {
        let (none, some) = (Schemas::new(), Schemas([("a".to_owned(), json!({}))].into()));
        let added = compare(&none, &some).remove(0);
        assert_eq!((added.change, added.breaks.len()), (Change::Added, 0));
        let removed = compare(&some, &none).remove(0);
        assert_eq!(removed.change, Change::Removed);
        assert_eq!(removed.breaks[0].to_string(), "old readers of new events: it does not come any more");
        assert_eq!(compare(&some, &some).remove(0).change, Change::Unchanged);
    }
}
