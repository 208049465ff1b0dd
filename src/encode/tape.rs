//! A serde `Serializer` that notes what is to be printed, and prints nothing.
//!
//! A walk over the value leaves tags, raw numbers and copied text in the buffer; turning them into JSON is the worker's
//! job ([`super::render`]).
//!
//! The serializer is the pen itself. It goes [`Ready`] into a value and comes out of it as the walk's `Ok`, two words in two
//! registers; so the place where the next byte goes is not kept in memory, where each piece of the value would have to fetch it and
//! put it back.
//!
//! The tape follows serde_json's own serializer method for method, also where that is odd: what it refuses is refused, `RawValue` and
//! `Number` are recognised by the names that serde_json gives them. `encode/tests.rs` and the fuzz target `tape_differs` compare the
//! two byte for byte.
//!
//! It does not follow where serde_json would print what is not JSON: a sequence that says that it is empty and is not is printed as it is, and a
//! value of which a piece has failed, or whose keys and values do not alternate, is refused, whatever its `Serialize` makes of the
//! error. So a walk that ends well has made a tape that prints as JSON, but for texts that are to be printed as they are; those are
//! looked at by the worker.
//!
//! Names of fields are copied like any text. The plan was to note their addresses; in most code the compiler knows the name
//! and turns the copy into a move or two, so that costs the same, makes the record shorter (333 bytes in
//! place of 430), and leaves the renderer nothing to trust: it is safe code over plain bytes.

mod key;

use super::buffer::{Full, Pen, Ready};
use super::op;
use key::{Key, Verbatim};
use serde::ser::{self, Serialize};
use std::fmt::{self, Display, Write as _};
use std::sync::LazyLock;

/// The value cannot be taken: it does not fit, serde_json would refuse it, or its `Serialize` failed. Which of these, the buffer
/// knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value cannot be serialized")
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    /// The message is not kept: nobody on a hot thread reads it, and it would have to be allocated.
    #[cold]
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

impl From<Full> for Refused {
    #[inline]
    fn from(_: Full) -> Self {
        Self
    }
}

type Result<T = ()> = std::result::Result<T, Refused>;

/// What serde_json calls the struct, and its only field, by which a `RawValue` makes itself known.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// The same of a `Number`, under serde_json's feature `arbitrary_precision`.
const NUMBER: &str = "$serde_json::private::Number";

/// Whether the program switches that feature on. Without it such a struct is like any other.
static NUMBERS_ARE_TEXT: LazyLock<bool> = LazyLock::new(|| {
    struct Probe;
    impl Serialize for Probe {
        fn serialize<S: ser::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
            let mut fields = serializer.serialize_struct(NUMBER, 1)?;
            ser::SerializeStruct::serialize_field(&mut fields, NUMBER, "1")?;
            ser::SerializeStruct::end(fields)
        }
    }
    let mut printed = [0; 64];
    serde_json::to_writer(&mut printed[..], &Probe).is_ok() && printed[0] == b'1'
});

impl<'buffer, 'stack> Ready<'buffer, 'stack> {
    #[inline(always)]
    fn number<const N: usize, const WITH_TAG: usize>(
        self,
        tag: u8,
        number: [u8; N],
    ) -> Result<Pen<'buffer, 'stack>> {
        const { assert!(WITH_TAG == N + 1) };
        let mut bytes = [tag; WITH_TAG];
        bytes[1..].copy_from_slice(&number);
        Ok(self.put(bytes))
    }

    /// The usual text in a few instructions that call nothing and so keep no registers for others.
    #[inline(always)]
    fn str(self, text: &str) -> Result<Pen<'buffer, 'stack>> {
        match self.put_if_short([op::STR_SHORT, text.len() as u8], text.as_bytes()) {
            Ok(pen) => Ok(pen),
            Err(ready) => ready.into_pen().long_str(text),
        }
    }

    /// What needs more room, or may.
    #[inline(always)]
    fn writes(self, write: impl FnOnce(&mut Pen<'buffer, 'stack>) -> Result) -> Result<Pen<'buffer, 'stack>> {
        let mut pen = self.into_pen();
        write(&mut pen)?;
        Ok(pen)
    }
}

impl Pen<'_, '_> {
    #[inline(always)]
    fn op(&mut self, op: u8) -> Result {
        Ok(self.put([op])?)
    }

    #[inline(never)]
    fn long_str(mut self, text: &str) -> Result<Self> {
        match u8::try_from(text.len()) {
            Ok(len) => self.put_with([op::STR_SHORT, len], text.as_bytes())?,
            Err(_) => self.long(op::STR, text.as_bytes())?,
        }
        Ok(self)
    }

    #[inline(never)]
    fn long(&mut self, tag: u8, bytes: &[u8]) -> Result {
        let Ok(len) = u32::try_from(bytes.len()) else { return Err(Refused) };
        let [a, b, c, d] = len.to_ne_bytes();
        Ok(self.put_with([tag, a, b, c, d], bytes)?)
    }

    /// A member of an object: its name, a colon, its value.
    #[inline(always)]
    fn member<T: Serialize + ?Sized>(&mut self, is_first: bool, name: &'static str, value: &T) -> Result {
        if name.len() > op::SHORT_MAX {
            self.long_field(is_first, name)?;
            return self.value(value);
        }
        let tag = if is_first { op::FIELD } else { op::NEXT_FIELD };
        self.put_and_lend([tag, name.len() as u8], name.as_bytes(), |ready| value.serialize(ready))
    }

    /// A name, and the colon after it.
    fn field(&mut self, is_first: bool, name: &'static str) -> Result {
        if name.len() > op::SHORT_MAX {
            return self.long_field(is_first, name);
        }
        let tag = if is_first { op::FIELD } else { op::NEXT_FIELD };
        Ok(self.put_with([tag, name.len() as u8], name.as_bytes())?)
    }

    #[cold]
    fn long_field(&mut self, is_first: bool, name: &'static str) -> Result {
        if !is_first {
            self.op(b',')?;
        }
        self.long(op::STR, name.as_bytes())?;
        self.op(b':')
    }

    /// Text that comes in pieces, whose length is known at the end.
    fn text(&mut self, text: &(impl Display + ?Sized)) -> Result {
        struct Pieces<'p, 'buffer, 'stack>(&'p mut Pen<'buffer, 'stack>);
        impl fmt::Write for Pieces<'_, '_, '_> {
            fn write_str(&mut self, piece: &str) -> fmt::Result {
                self.0.put_with([], piece.as_bytes()).map_err(|Full| fmt::Error)
            }
        }
        self.put([op::STR, 0, 0, 0, 0])?;
        let start = self.len();
        // Until the length is known the tape cannot be read. A `Display` that fails or panics leaves it so, and the event is
        // refused, whatever the caller makes of the error; serde_json panics there.
        let was_spoiled = self.set_spoiled(true);
        write!(Pieces(self), "{text}").map_err(|fmt::Error| Refused)?;
        if self.is_whole() {
            let Ok(len) = u32::try_from(self.len() - start) else { return Err(Refused) };
            self.patch(start - 4, len.to_ne_bytes());
        }
        self.set_spoiled(was_spoiled);
        Ok(())
    }

    /// Writes the value where the pen is.
    #[inline(always)]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.put_and_lend([], &[], |ready| value.serialize(ready))
    }
}

macro_rules! numbers {
    ($($method:ident($type:ty) => $tag:expr;)*) => {$(
        #[inline(always)]
        fn $method(self, value: $type) -> Result<Self::Ok> {
            const BYTES: usize = size_of::<$type>();
            self.number::<BYTES, { BYTES + 1 }>($tag, value.to_ne_bytes())
        }
    )*};
}

impl<'buffer, 'stack> ser::Serializer for Ready<'buffer, 'stack> {
    type Ok = Pen<'buffer, 'stack>;
    type Error = Refused;
    type SerializeSeq = Elements<'buffer, 'stack>;
    type SerializeTuple = Elements<'buffer, 'stack>;
    type SerializeTupleStruct = Elements<'buffer, 'stack>;
    type SerializeTupleVariant = Elements<'buffer, 'stack>;
    type SerializeMap = Members<'buffer, 'stack>;
    type SerializeStruct = Members<'buffer, 'stack>;
    type SerializeStructVariant = Members<'buffer, 'stack>;

    numbers! {
        serialize_i8(i8) => op::I8;
        serialize_i16(i16) => op::I16;
        serialize_i32(i32) => op::I32;
        serialize_i64(i64) => op::I64;
        serialize_i128(i128) => op::I128;
        serialize_u8(u8) => op::U8;
        serialize_u16(u16) => op::U16;
        serialize_u32(u32) => op::U32;
        serialize_u64(u64) => op::U64;
        serialize_u128(u128) => op::U128;
        serialize_f32(f32) => op::F32;
        serialize_f64(f64) => op::F64;
    }

    #[inline(always)]
    fn serialize_bool(self, value: bool) -> Result<Self::Ok> {
        Ok(self.put([if value { op::TRUE } else { op::FALSE }]))
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result<Self::Ok> {
        self.str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline(always)]
    fn serialize_str(self, value: &str) -> Result<Self::Ok> {
        self.str(value)
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<Self::Ok> {
        self.writes(|pen| pen.long(op::BYTES, value))
    }

    #[inline(always)]
    fn serialize_none(self) -> Result<Self::Ok> {
        Ok(self.put([op::NULL]))
    }

    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Self::Ok> {
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_unit(self) -> Result<Self::Ok> {
        Ok(self.put([op::NULL]))
    }

    #[inline(always)]
    fn serialize_unit_struct(self, _: &'static str) -> Result<Self::Ok> {
        Ok(self.put([op::NULL]))
    }

    #[inline(always)]
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Self::Ok> {
        self.str(variant)
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Self::Ok> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Self::Ok> {
        let mut pen = self.put([b'{']);
        pen.member(true, variant, value)?;
        pen.op(b'}')?;
        Ok(pen)
    }

    #[inline(always)]
    fn serialize_seq(self, _: Option<usize>) -> Result<Elements<'buffer, 'stack>> {
        Elements::begin(self, false)
    }

    #[inline(always)]
    fn serialize_tuple(self, _: usize) -> Result<Elements<'buffer, 'stack>> {
        Elements::begin(self, false)
    }

    #[inline(always)]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Elements<'buffer, 'stack>> {
        Elements::begin(self, false)
    }

    #[inline(always)]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Elements<'buffer, 'stack>> {
        let mut pen = self.put([b'{']);
        pen.field(true, variant)?;
        Elements::begin(pen.ready()?, true)
    }

    #[inline]
    fn serialize_map(self, _: Option<usize>) -> Result<Members<'buffer, 'stack>> {
        Members::begin(self, false)
    }

    #[inline(always)]
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Members<'buffer, 'stack>> {
        if name == RAW_VALUE || (name == NUMBER && *NUMBERS_ARE_TEXT) {
            return Ok(Members {
                pen: self.into_pen(),
                state: State::Verbatim(Some(name)),
                in_variant: false,
            });
        }
        Members::begin(self, false)
    }

    #[inline(always)]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Members<'buffer, 'stack>> {
        let mut pen = self.put([b'{']);
        pen.field(true, variant)?;
        Members::begin(pen.ready()?, true)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<Self::Ok> {
        self.writes(|pen| pen.text(value))
    }
}

/// An array that is being written. What it says of its length is not asked for, so that nothing can be wrong with it.
pub(super) struct Elements<'buffer, 'stack> {
    pen: Pen<'buffer, 'stack>,
    is_empty: bool,
    in_variant: bool,
}

impl<'buffer, 'stack> Elements<'buffer, 'stack> {
    #[inline(always)]
    fn begin(ready: Ready<'buffer, 'stack>, in_variant: bool) -> Result<Self> {
        Ok(Self { pen: ready.put([b'[']), is_empty: true, in_variant })
    }

    #[inline(always)]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        if std::mem::replace(&mut self.is_empty, false) {
            return self.pen.value(value);
        }
        self.pen.put_and_lend([b','], &[], |ready| value.serialize(ready))
    }

    #[inline(always)]
    fn close(mut self) -> Result<Pen<'buffer, 'stack>> {
        self.pen.op(b']')?;
        if self.in_variant {
            self.pen.op(b'}')?;
        }
        Ok(self.pen)
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident),*) => {$(
        impl<'buffer, 'stack> ser::$trait for Elements<'buffer, 'stack> {
            type Ok = Pen<'buffer, 'stack>;
            type Error = Refused;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
                self.element(value)
            }

            #[inline(always)]
            fn end(self) -> Result<Self::Ok> {
                self.close()
            }
        }
    )*};
}

elements! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
}

/// How far an object is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    First,
    Rest,
    /// Of a map: the value of this key comes next.
    Value,
    /// It is a struct of this name, whose one field of the same name holds text to be printed as it is; `None` behind it.
    Verbatim(Option<&'static str>),
}

/// An object that is being written.
pub(super) struct Members<'buffer, 'stack> {
    pen: Pen<'buffer, 'stack>,
    state: State,
    in_variant: bool,
}

impl<'buffer, 'stack> Members<'buffer, 'stack> {
    #[inline(always)]
    fn begin(ready: Ready<'buffer, 'stack>, in_variant: bool) -> Result<Self> {
        Ok(Self { pen: ready.put([b'{']), state: State::First, in_variant })
    }

    #[inline(always)]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result {
        if let State::Verbatim(expected) = self.state {
            self.state = State::Verbatim(None);
            return if expected == Some(name) {
                self.pen.put_and_lend([], &[], |ready| value.serialize(Verbatim { ready }))
            } else {
                self.misuse()
            };
        }
        let is_first = std::mem::replace(&mut self.state, State::Rest) == State::First;
        self.pen.member(is_first, name, value)
    }

    #[inline(always)]
    fn close(mut self) -> Result<Pen<'buffer, 'stack>> {
        match self.state {
            State::First | State::Rest => self.pen.op(b'}')?,
            State::Verbatim(None) => {}
            State::Value | State::Verbatim(Some(_)) => return Err(Refused),
        }
        if self.in_variant {
            self.pen.op(b'}')?;
        }
        Ok(self.pen)
    }

    /// A key without a value, a value without a key, text that is to be printed as it is twice. Whatever the caller makes of the error, this is
    /// no tape any more.
    #[cold]
    fn misuse(&mut self) -> Result {
        self.pen.set_spoiled(true);
        Err(Refused)
    }
}

impl<'buffer, 'stack> ser::SerializeMap for Members<'buffer, 'stack> {
    type Ok = Pen<'buffer, 'stack>;
    type Error = Refused;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        match std::mem::replace(&mut self.state, State::Value) {
            State::First => {}
            State::Rest => self.pen.op(b',')?,
            State::Value | State::Verbatim(_) => return self.misuse(),
        }
        self.pen.put_and_lend([], &[], |ready| key.serialize(Key { ready }))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        if std::mem::replace(&mut self.state, State::Rest) != State::Value {
            return self.misuse();
        }
        self.pen.put_and_lend([b':'], &[], |ready| value.serialize(ready))
    }

    #[inline]
    fn end(self) -> Result<Self::Ok> {
        self.close()
    }
}

macro_rules! members {
    ($($trait:ident),*) => {$(
        impl<'buffer, 'stack> ser::$trait for Members<'buffer, 'stack> {
            type Ok = Pen<'buffer, 'stack>;
            type Error = Refused;

            #[inline(always)]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result {
                self.field(name, value)
            }

            #[inline(always)]
            fn end(self) -> Result<Self::Ok> {
                self.close()
            }
        }
    )*};
}

members!(SerializeStruct, SerializeStructVariant);
