//! Values whose `Serialize` does not keep to the rules: errors swallowed, calls out of order, text that is not JSON.

use super::*;
use serde::ser::{SerializeMap, SerializeSeq, SerializeStruct};
use std::panic::{AssertUnwindSafe, catch_unwind};

type Piece = dyn Fn() -> Result<u32, &'static str>;

const FAILS: &Piece = &|| Err("no");
const PANICS: &Piece = &|| panic!("as a user's bug would");
const GOOD: &Piece = &|| Ok(7);

/// A sequence, or a map, to which a closure does whatever it likes.
struct SeqScript<F>(F);
struct MapScript<F>(F);

/// Each call says whether it went well.
trait AnySeq {
    fn element(&mut self, value: &Piece) -> bool;
}

trait AnyMap {
    fn key(&mut self, key: &str) -> bool;
    fn bad_key(&mut self) -> bool;
    fn value(&mut self, value: &Piece) -> bool;
}

impl<S: SerializeSeq> AnySeq for S {
    fn element(&mut self, value: &Piece) -> bool {
        self.serialize_element(&With(value)).is_ok()
    }
}

impl<M: SerializeMap> AnyMap for M {
    fn key(&mut self, key: &str) -> bool {
        self.serialize_key(key).is_ok()
    }

    fn bad_key(&mut self) -> bool {
        self.serialize_key(&[1]).is_ok()
    }

    fn value(&mut self, value: &Piece) -> bool {
        self.serialize_value(&With(value)).is_ok()
    }
}

impl<F: Fn(&mut dyn AnySeq)> Serialize for SeqScript<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        (self.0)(&mut seq);
        seq.end()
    }
}

impl<F: Fn(&mut dyn AnyMap)> Serialize for MapScript<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        (self.0)(&mut map);
        map.end()
    }
}

/// Wherever it stands, and however long what is around it.
#[track_caller]
fn is_refused(value: &impl Serialize) {
    let (long, numbers) = ("x".repeat(5000), vec![7_u64; 2000]);
    for encoded in [
        encode(value, 1 << 20),
        encode(&(1, value, 2), 1 << 20),
        encode(&BTreeMap::from([("a", value)]), 1 << 20),
        encode(&(&long, Some(value), &long), 1 << 20),
        // The tape does not fit, and the JSON would.
        encode(&(&numbers, value), 5000),
        encode(&(value, &numbers), 5000),
    ] {
        assert_eq!(encoded, Err(EncodeError::Failed));
    }
}

#[test]
fn a_piece_that_fails_is_an_error_even_if_nobody_minds() {
    let caught: &Piece = &|| catch_unwind(AssertUnwindSafe(PANICS)).unwrap_or(Err("panicked"));
    for fails in [FAILS, caught] {
        is_refused(&SeqScript(|seq: &mut dyn AnySeq| _ = seq.element(fails)));
        // What later pieces do well does not mend it.
        is_refused(&SeqScript(|seq: &mut dyn AnySeq| {
            assert!(seq.element(GOOD) && !seq.element(fails) && seq.element(GOOD));
        }));
        is_refused(&MapScript(|map: &mut dyn AnyMap| {
            assert!(map.key("a") && !map.value(fails) && map.key("b") && map.value(GOOD));
        }));
    }
    // A panic that is caught around the element itself.
    is_refused(&SeqScript(|seq: &mut dyn AnySeq| {
        assert!(catch_unwind(AssertUnwindSafe(|| seq.element(PANICS))).is_err());
        assert!(seq.element(GOOD));
    }));
    is_refused(&MapScript(|map: &mut dyn AnyMap| {
        assert!(!map.bad_key());
        map.value(GOOD);
    }));
    assert_eq!(encode(&SeqScript(|seq: &mut dyn AnySeq| _ = seq.element(GOOD)), 100).unwrap().0, "[7]");
}

#[test]
fn a_text_in_pieces_does_not_mend_what_has_failed_before_it() {
    struct Pieces;
    impl Serialize for Pieces {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut seq = serializer.serialize_seq(None)?;
            assert!(seq.serialize_element(&With(FAILS)).is_err());
            seq.serialize_element(&format_args!("{}-{}", 1, 2))?;
            seq.end()
        }
    }
    is_refused(&Pieces);
}

#[test]
fn a_map_whose_keys_and_values_do_not_alternate_is_refused() {
    let maps: [fn(&mut dyn AnyMap); 6] = [
        |map| _ = map.key("a"),
        |map| _ = map.value(GOOD),
        |map| _ = (map.key("a"), map.key("b"), map.value(GOOD)),
        |map| _ = (map.key("a"), map.value(GOOD), map.value(GOOD)),
        |map| _ = (map.value(GOOD), map.key("a"), map.value(GOOD)),
        |map| _ = (map.key("a"), map.key("b"), map.value(GOOD), map.value(GOOD)),
    ];
    maps.iter().for_each(|map| is_refused(&MapScript(map)));
    is_printed_as_serde_json_prints_it(&MapScript(|map: &mut dyn AnyMap| {
        assert!(map.key("a") && map.value(GOOD) && map.key("b") && map.value(GOOD));
    }));
}

#[test]
fn text_that_is_printed_as_it_is_must_be_json() {
    struct Verbatim(&'static [&'static str]);
    impl Serialize for Verbatim {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            const NAME: &str = "$serde_json::private::RawValue";
            let mut object = serializer.serialize_struct(NAME, 1)?;
            for text in self.0 {
                let _ = object.serialize_field(NAME, text);
            }
            object.end()
        }
    }
    for text in ["[1,", "1,2", "\"\u{1}\"", r#""\ud800""#, "", "a\nb"] {
        let text: &'static [&'static str] = vec![text].leak();
        is_refused(&Verbatim(text));
    }
    assert_eq!(encode(&(Verbatim(&[]), 1), 100), Err(EncodeError::Failed));
    assert_eq!(encode(&(Verbatim(&["1", "2"]), 1), 100), Err(EncodeError::Failed));
    assert_eq!(encode(&(Verbatim(&["{\"a\" :1e999}"]), 2), 100).unwrap().0, "[{\"a\" :1e999},2]");
}

#[test]
fn a_sequence_that_is_not_as_long_as_it_says_is_printed_as_it_is() {
    struct Says(usize, &'static [u8]);
    impl Serialize for Says {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut seq = serializer.serialize_seq(Some(self.0))?;
            self.1.iter().try_for_each(|element| seq.serialize_element(element))?;
            seq.end()
        }
    }
    assert_eq!(encode(&[Says(0, &[1, 2]), Says(3, &[]), Says(0, &[])], 100).unwrap().0, "[[1,2],[],[]]");
}

#[test]
fn a_value_may_be_as_deep_as_a_reader_can_read() {
    struct Deep(u32);
    impl Serialize for Deep {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                0 => serializer.serialize_unit(),
                deeper => [Self(deeper - 1)].serialize(serializer),
            }
        }
    }
    is_printed_as_serde_json_prints_it(&Deep(DEPTH_MAX));
    is_refused(&Deep(DEPTH_MAX + 1));
    let raw = |depth: u32| {
        let depth = depth as usize;
        RawValue::from_string("[".repeat(depth) + &"]".repeat(depth)).unwrap()
    };
    assert!(encode(&raw(DEPTH_MAX), 1 << 20).is_ok() && encode(&[raw(DEPTH_MAX - 1)], 1 << 20).is_ok());
    assert_eq!(encode(&[raw(DEPTH_MAX)], 1 << 20), Err(EncodeError::Failed));
    is_refused(&raw(DEPTH_MAX + 1));
    // Also where it is printed on the hot thread.
    assert_eq!(encode(&(vec![7_u64; 1000], Deep(DEPTH_MAX)), 2500), Err(EncodeError::Failed));
}
