//! Any value that serde can say, made of bytes, for tests and fuzzing: [`AnyValue`] calls every method of a `Serializer`,
//! also in the odd ways that a derived `Serialize` never does, and in wrong ones: errors swallowed, calls out of order.
//!
//! [`judge`] says what may come of it.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde_json::value::RawValue;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

/// Depth of a value, at most. Neither serializer has a limit, but the walk itself is recursive.
const DEPTH_MAX: usize = 24;

/// Names of fields and variants, which must be `'static`.
const NAMES: [&str; 12] = [
    "a",
    "orderId",
    "sellToken",
    "",
    "with \"quotes\" and \\",
    "new\nline",
    "naïve €uro 😀",
    "exactly sixteen!",
    "a name of thirty-two bytes, not one more",
    concat!(
        "a name that is longer than what a length of one byte can say, which no program should have but any program may; ",
        "it goes on and on and on, says nothing at all, and is longer than two hundred and fifty-five bytes, which can be ",
        "seen by counting them, or by running the tests: they fail if not"
    ),
    "$serde_json::private::RawValue",
    "$serde_json::private::Number",
];

/// One call of a `Serializer`, with what it needs.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "private, and named after the methods of `Serializer`")]
pub enum AnyValue {
    Bool(bool),
    I8(i8),
    I16(i16),
    I32(i32),
    I64(i64),
    I128(i128),
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    U128(u128),
    F32(f32),
    F64(f64),
    Char(char),
    Str(String),
    Bytes(Vec<u8>),
    None,
    Some(Box<Self>),
    Unit,
    UnitStruct,
    UnitVariant(&'static str),
    NewtypeStruct(Box<Self>),
    NewtypeVariant(&'static str, Box<Self>),
    /// The length that it says, and the elements that there are.
    Seq(Option<usize>, Vec<Self>),
    Tuple(usize, Vec<Self>),
    TupleStruct(usize, Vec<Self>),
    TupleVariant(&'static str, usize, Vec<Self>),
    Map(Option<usize>, Vec<(Self, Self)>),
    /// The struct's name, the length that it says, and the fields that there are.
    Struct(&'static str, usize, Vec<(&'static str, Self)>),
    StructVariant(&'static str, usize, Vec<(&'static str, Self)>),
    /// A `Display` that writes in pieces.
    Pieces(Vec<String>),
    /// A sequence whose elements may fail without anybody minding.
    Careless(Vec<Self>),
    /// A map that is written in any order of calls, whose errors nobody minds.
    CarelessMap(Option<usize>, Vec<Call>),
    /// A struct whose fields may fail without anybody minding.
    CarelessStruct(&'static str, Vec<(&'static str, Self)>),
    Failure,
    /// Another value at each look.
    Changing(Cell<u8>, Vec<Self>),
}

/// What a careless map does next.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "private, and named after the methods of `SerializeMap`")]
pub enum Call {
    Key(AnyValue),
    Value(AnyValue),
    Entry(AnyValue, AnyValue),
}

thread_local! {
    /// An error was swallowed since the last look.
    static HAS_SWALLOWED: Cell<bool> = const { Cell::new(false) };
}

/// Does not mind an error.
fn swallow<E>(result: Result<(), E>) {
    if result.is_err() {
        HAS_SWALLOWED.set(true);
    }
}

/// What must come of the value that these bytes make: its JSON, or `Some(None)` if the event must be refused. `None` where serde_json says nothing
/// of use: then it may be refused, or be anything that a reader can read.
pub fn expected(bytes: &[u8]) -> Option<Option<Vec<u8>>> {
    // Another one, because some values change when they are looked at.
    let value = AnyValue::from_bytes(bytes);
    HAS_SWALLOWED.set(false);
    let printed = serde_json::to_vec(&value).ok();
    if HAS_SWALLOWED.get() {
        return Some(None);
    }
    let is_of_use = value.is_orderly() && printed.as_deref().is_none_or(is_readable_json);
    is_of_use.then_some(printed)
}

/// Panics if this must not come of the value that these bytes make; `None` if the event was refused.
pub fn judge(bytes: &[u8], printed: Option<&[u8]>) {
    let text = |json: &[u8]| String::from_utf8_lossy(json).into_owned();
    assert!(printed.is_none_or(is_readable_json), "unreadable: {:?}", printed.map(text));
    if let Some(expected) = expected(bytes) {
        assert_eq!(printed.map(text), expected.as_deref().map(text), "{:?}", AnyValue::from_bytes(bytes));
    }
}

/// What `json` says, as serde_json sees it: each text is a `String`, and nothing is deeper than a reader with serde_json's limit
/// gets in an envelope.
pub fn is_readable_json(text: &[u8]) -> bool {
    fn is_readable(text: &str, depth_max: u32) -> bool {
        let Ok(value) = serde_json::from_str::<&RawValue>(text) else { return false };
        let value = value.get();
        let are_readable = |values: Vec<&RawValue>| {
            depth_max > 0 && values.iter().all(|value| is_readable(value.get(), depth_max - 1))
        };
        match value.as_bytes()[0] {
            b'"' => serde_json::from_str::<String>(value).is_ok(),
            b'[' => serde_json::from_str::<Vec<&RawValue>>(value).is_ok_and(are_readable),
            b'{' => serde_json::from_str::<Pairs<'_>>(value).is_ok_and(|pairs| are_readable(pairs.0)),
            _ => true,
        }
    }
    std::str::from_utf8(text).is_ok_and(|text| is_readable(text, super::DEPTH_MAX))
}

/// The values of an object, those of names that come twice included. The names are texts.
struct Pairs<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Gather<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Gather<'a> {
            type Value = Pairs<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Pairs<'a>, A::Error> {
                let mut pairs = Pairs(Vec::new());
                while let Some((_, value)) = members.next_entry::<String, &'de RawValue>()? {
                    pairs.0.push(value);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Gather(PhantomData))
    }
}

impl AnyValue {
    /// Makes a value of bytes; all bytes make one, and no bytes make a `Unit`.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Source(bytes).value(DEPTH_MAX)
    }
}

impl AnyValue {
    /// Whether it shows the same at each look.
    pub fn is_steady(&self) -> bool {
        self.all(&|value| !matches!(value, Self::Changing(..)))
    }

    /// Whether it calls nothing out of order.
    fn is_orderly(&self) -> bool {
        self.all(&|value| match value {
            Self::CarelessMap(..) | Self::CarelessStruct(..) => false,
            // It has one field.
            Self::Struct("$serde_json::private::RawValue", _, fields) => fields.len() == 1,
            _ => true,
        })
    }

    /// Whether it and all that is in it are so.
    fn all(&self, is_so: &dyn Fn(&Self) -> bool) -> bool {
        let all = |values: &[Self]| values.iter().all(|value| value.all(is_so));
        let all_fields = |fields: &[(&str, Self)]| fields.iter().all(|(_, value)| value.all(is_so));
        is_so(self)
            && match self {
                Self::Some(value) | Self::NewtypeStruct(value) | Self::NewtypeVariant(_, value) => {
                    value.all(is_so)
                }
                Self::Seq(_, values)
                | Self::Tuple(_, values)
                | Self::TupleStruct(_, values)
                | Self::TupleVariant(_, _, values)
                | Self::Careless(values)
                | Self::Changing(_, values) => all(values),
                Self::Map(_, members) => {
                    members.iter().all(|(key, value)| key.all(is_so) && value.all(is_so))
                }
                Self::Struct(_, _, fields)
                | Self::StructVariant(_, _, fields)
                | Self::CarelessStruct(_, fields) => all_fields(fields),
                Self::CarelessMap(_, calls) => calls.iter().all(|call| match call {
                    Call::Key(value) | Call::Value(value) => value.all(is_so),
                    Call::Entry(key, value) => key.all(is_so) && value.all(is_so),
                }),
                _ => true,
            }
    }
}

struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        array[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        array
    }

    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn name(&mut self) -> &'static str {
        NAMES[usize::from(self.byte()) % NAMES.len()]
    }

    fn bytes(&mut self) -> Vec<u8> {
        // Mostly short, and sometimes past every length that is treated in its own way.
        let len = match self.byte() {
            len @ 0..224 => usize::from(len % 80),
            len => usize::from(len - 223) * 37,
        };
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        // Repeated when the input is at its end, so that a short input can make a long string.
        taken.iter().copied().chain(std::iter::repeat(b'x')).take(len).collect()
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let len = usize::from(self.byte() % 8);
        (0..len).map_while(|_| (!self.0.is_empty()).then(|| one(self))).collect()
    }

    /// Mostly the truth.
    fn len(&mut self, truth: usize) -> usize {
        match self.byte() {
            0..=20 => 0,
            lie @ 21..=30 => usize::from(lie),
            _ => truth,
        }
    }

    fn maybe_len(&mut self, truth: usize) -> Option<usize> {
        (!self.byte().is_multiple_of(4)).then(|| self.len(truth))
    }

    fn key(&mut self, depth: usize) -> AnyValue {
        match self.byte() {
            0..200 => AnyValue::Str(self.text()),
            _ => self.value(depth.min(2)),
        }
    }

    fn value(&mut self, depth: usize) -> AnyValue {
        if depth == 0 || self.0.is_empty() {
            return AnyValue::Unit;
        }
        let deeper = depth - 1;
        match self.byte() % 40 {
            0 => AnyValue::Bool(self.byte().is_multiple_of(2)),
            1 => AnyValue::I8(i8::from_ne_bytes(self.array())),
            2 => AnyValue::I16(i16::from_ne_bytes(self.array())),
            3 => AnyValue::I32(i32::from_ne_bytes(self.array())),
            4 => AnyValue::I64(i64::from_ne_bytes(self.array())),
            5 => AnyValue::I128(i128::from_ne_bytes(self.array())),
            6 => AnyValue::U8(self.byte()),
            7 => AnyValue::U16(u16::from_ne_bytes(self.array())),
            8 => AnyValue::U32(u32::from_ne_bytes(self.array())),
            9 => AnyValue::U64(u64::from_ne_bytes(self.array())),
            10 => AnyValue::U128(u128::from_ne_bytes(self.array())),
            11 => AnyValue::F32(f32::from_ne_bytes(self.array())),
            12 => AnyValue::F64(f64::from_ne_bytes(self.array())),
            13 => AnyValue::F64(f64::from(i32::from_ne_bytes(self.array())) / 8.0),
            14 => AnyValue::Char(char::from_u32(u32::from_ne_bytes(self.array())).unwrap_or('\u{7}')),
            15..=17 => AnyValue::Str(self.text()),
            18 => AnyValue::Bytes(self.bytes()),
            19 => AnyValue::None,
            20 => AnyValue::Some(Box::new(self.value(deeper))),
            21 => AnyValue::Unit,
            22 => AnyValue::UnitStruct,
            23 => AnyValue::UnitVariant(self.name()),
            24 => AnyValue::NewtypeStruct(Box::new(self.value(deeper))),
            25 => AnyValue::NewtypeVariant(self.name(), Box::new(self.value(deeper))),
            26 => {
                let elements = self.many(|source| source.value(deeper));
                AnyValue::Seq(self.maybe_len(elements.len()), elements)
            }
            27 => {
                let elements = self.many(|source| source.value(deeper));
                AnyValue::Tuple(self.len(elements.len()), elements)
            }
            28 => {
                let elements = self.many(|source| source.value(deeper));
                AnyValue::TupleStruct(self.len(elements.len()), elements)
            }
            29 => {
                let elements = self.many(|source| source.value(deeper));
                AnyValue::TupleVariant(self.name(), self.len(elements.len()), elements)
            }
            30 | 31 => {
                let members = self.many(|source| (source.key(deeper), source.value(deeper)));
                AnyValue::Map(self.maybe_len(members.len()), members)
            }
            32 | 33 => {
                let fields = self.many(|source| (source.name(), source.value(deeper)));
                AnyValue::Struct(self.name(), self.len(fields.len()), fields)
            }
            34 => {
                let fields = self.many(|source| (source.name(), source.value(deeper)));
                AnyValue::StructVariant(self.name(), self.len(fields.len()), fields)
            }
            35 => AnyValue::Pieces(self.many(Self::text)),
            36 => match self.byte() {
                0..16 => AnyValue::Failure,
                _ => AnyValue::Careless(self.many(|source| source.value(deeper))),
            },
            37 => {
                let calls = self.many(|source| match source.byte() % 8 {
                    0 => Call::Key(source.key(deeper)),
                    1 => Call::Value(source.value(deeper)),
                    _ => Call::Entry(source.key(deeper), source.value(deeper)),
                });
                AnyValue::CarelessMap(self.maybe_len(calls.len()), calls)
            }
            38 => {
                let fields = self.many(|source| (source.name(), source.value(deeper)));
                AnyValue::CarelessStruct(self.name(), fields)
            }
            _ => AnyValue::Changing(Cell::new(0), self.many(|source| source.value(deeper))),
        }
    }
}

struct Pieces<'a>(&'a [String]);

impl fmt::Display for Pieces<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| f.write_str(piece))
    }
}

impl Serialize for AnyValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::I8(value) => serializer.serialize_i8(*value),
            Self::I16(value) => serializer.serialize_i16(*value),
            Self::I32(value) => serializer.serialize_i32(*value),
            Self::I64(value) => serializer.serialize_i64(*value),
            Self::I128(value) => serializer.serialize_i128(*value),
            Self::U8(value) => serializer.serialize_u8(*value),
            Self::U16(value) => serializer.serialize_u16(*value),
            Self::U32(value) => serializer.serialize_u32(*value),
            Self::U64(value) => serializer.serialize_u64(*value),
            Self::U128(value) => serializer.serialize_u128(*value),
            Self::F32(value) => serializer.serialize_f32(*value),
            Self::F64(value) => serializer.serialize_f64(*value),
            Self::Char(value) => serializer.serialize_char(*value),
            Self::Str(value) => serializer.serialize_str(value),
            Self::Bytes(value) => serializer.serialize_bytes(value),
            Self::None => serializer.serialize_none(),
            Self::Some(value) => serializer.serialize_some(&**value),
            Self::Unit => serializer.serialize_unit(),
            Self::UnitStruct => serializer.serialize_unit_struct("UnitStruct"),
            Self::UnitVariant(variant) => serializer.serialize_unit_variant("Enum", 0, variant),
            Self::NewtypeStruct(value) => serializer.serialize_newtype_struct("Newtype", &**value),
            Self::NewtypeVariant(variant, value) => {
                serializer.serialize_newtype_variant("Enum", 1, variant, &**value)
            }
            Self::Seq(len, elements) => {
                let mut seq = serializer.serialize_seq(*len)?;
                elements.iter().try_for_each(|element| seq.serialize_element(element))?;
                seq.end()
            }
            Self::Tuple(len, elements) => {
                let mut tuple = serializer.serialize_tuple(*len)?;
                elements.iter().try_for_each(|element| tuple.serialize_element(element))?;
                tuple.end()
            }
            Self::TupleStruct(len, elements) => {
                let mut tuple = serializer.serialize_tuple_struct("Tuple", *len)?;
                elements.iter().try_for_each(|element| tuple.serialize_field(element))?;
                tuple.end()
            }
            Self::TupleVariant(variant, len, elements) => {
                let mut tuple = serializer.serialize_tuple_variant("Enum", 2, variant, *len)?;
                elements.iter().try_for_each(|element| tuple.serialize_field(element))?;
                tuple.end()
            }
            Self::Map(len, members) => {
                let mut map = serializer.serialize_map(*len)?;
                for (at, (key, value)) in members.iter().enumerate() {
                    // Both ways in which a map may be given.
                    if at % 2 == 0 {
                        map.serialize_entry(key, value)?;
                    } else {
                        map.serialize_key(key)?;
                        map.serialize_value(value)?;
                    }
                }
                map.end()
            }
            Self::Struct(name, len, fields) => {
                let mut object = serializer.serialize_struct(name, *len)?;
                fields.iter().try_for_each(|(name, value)| object.serialize_field(name, value))?;
                object.end()
            }
            Self::StructVariant(variant, len, fields) => {
                let mut object = serializer.serialize_struct_variant("Enum", 3, variant, *len)?;
                fields.iter().try_for_each(|(name, value)| object.serialize_field(name, value))?;
                object.end()
            }
            Self::Pieces(pieces) => serializer.collect_str(&Pieces(pieces)),
            Self::Careless(elements) => {
                let mut seq = serializer.serialize_seq(None)?;
                elements.iter().for_each(|element| swallow(seq.serialize_element(element)));
                seq.end()
            }
            Self::CarelessMap(len, calls) => {
                let mut map = serializer.serialize_map(*len)?;
                for call in calls {
                    swallow(match call {
                        Call::Key(key) => map.serialize_key(key),
                        Call::Value(value) => map.serialize_value(value),
                        Call::Entry(key, value) => map.serialize_entry(key, value),
                    });
                }
                map.end()
            }
            Self::CarelessStruct(name, fields) => {
                let mut object = serializer.serialize_struct(name, fields.len())?;
                fields.iter().for_each(|(name, value)| swallow(object.serialize_field(name, value)));
                object.end()
            }
            Self::Failure => Err(S::Error::custom("as asked")),
            Self::Changing(looks, elements) => {
                let look = looks.replace(looks.get().wrapping_add(1));
                let shown = elements.len().saturating_sub(usize::from(look % 3));
                let mut seq = serializer.serialize_seq(Some(shown))?;
                elements.iter().take(shown).try_for_each(|element| seq.serialize_element(element))?;
                seq.end()
            }
        }
    }
}
