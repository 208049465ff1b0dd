//! A serde `Serializer` that notes what is to be printed, and prints nothing.
//!
//! A walk over the value leaves tags, raw numbers and copied text in the [`Buffer`]; turning them into JSON is the worker's
//! job ([`super::render`]). Walking the price estimate of `benches/publish.rs` costs 18 ns, printing it 250.
//!
//! The tape follows serde_json's own serializer method for method, also where that is odd: what it refuses is refused, a
//! sequence that says that it is empty and is not gets the same stray comma, `RawValue` and `Number` are recognised by the
//! names that serde_json gives them. `encode/tests.rs` and the fuzz target `tape_differs` compare the two byte for byte.
//!
//! Names of fields are copied like any text. The plan was to note their addresses; in most code the compiler knows the name
//! and turns the copy into a move or two, so that costs the same (18 ns either way), makes the record shorter (333 bytes in
//! place of 430), and leaves the renderer nothing to trust: it is safe code over plain bytes.

mod key;

use super::buffer::{Buffer, Full};
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

/// A buffer that operations are appended to. It owns the buffer, so that the cursor is one look away and not two.
pub(super) struct Tape<'stack> {
    pub(super) buffer: Buffer<'stack>,
}

impl Tape<'_> {
    #[inline(always)]
    fn op(&mut self, op: u8) -> Result {
        Ok(self.buffer.put([op])?)
    }

    #[inline(always)]
    fn number<const N: usize, const WITH_TAG: usize>(&mut self, tag: u8, number: [u8; N]) -> Result {
        const { assert!(WITH_TAG == N + 1) };
        let mut bytes = [tag; WITH_TAG];
        bytes[1..].copy_from_slice(&number);
        Ok(self.buffer.put(bytes)?)
    }

    #[inline(always)]
    fn str(&mut self, text: &str) -> Result {
        if text.len() > op::SHORT_MAX {
            return self.long(op::STR, text.as_bytes());
        }
        Ok(self.buffer.put_with([op::STR_SHORT, text.len() as u8], text.as_bytes())?)
    }

    #[inline(never)]
    fn long(&mut self, tag: u8, bytes: &[u8]) -> Result {
        let Ok(len) = u32::try_from(bytes.len()) else { return Err(Refused) };
        let [a, b, c, d] = len.to_ne_bytes();
        Ok(self.buffer.put_with([tag, a, b, c, d], bytes)?)
    }

    /// A name, and the colon after it.
    #[inline(always)]
    fn field(&mut self, is_first: bool, name: &'static str) -> Result {
        if name.len() > op::SHORT_MAX {
            return self.long_field(is_first, name);
        }
        let tag = if is_first { op::FIELD } else { op::NEXT_FIELD };
        Ok(self.buffer.put_with([tag, name.len() as u8], name.as_bytes())?)
    }

    #[cold]
    fn long_field(&mut self, is_first: bool, name: &'static str) -> Result {
        if !is_first {
            self.op(b',')?;
        }
        self.long(op::STR, name.as_bytes())?;
        self.op(b':')
    }

    /// The opening of a variant with contents: an object of one member.
    #[inline(always)]
    fn variant(&mut self, name: &'static str) -> Result {
        self.op(b'{')?;
        self.field(true, name)
    }

    /// Text that comes in pieces, whose length is known at the end.
    fn text(&mut self, text: &(impl Display + ?Sized)) -> Result {
        struct Pieces<'t, 'stack>(&'t mut Tape<'stack>);
        impl fmt::Write for Pieces<'_, '_> {
            fn write_str(&mut self, piece: &str) -> fmt::Result {
                self.0.buffer.put_with([], piece.as_bytes()).map_err(|Full| fmt::Error)
            }
        }
        self.buffer.put([op::STR, 0, 0, 0, 0])?;
        let start = self.buffer.len();
        // Until the length is known the tape cannot be read. A `Display` that fails or panics leaves it so, and the event is
        // refused, whatever the caller makes of the error; serde_json panics there.
        self.buffer.set_spoiled(true);
        write!(Pieces(self), "{text}").map_err(|fmt::Error| Refused)?;
        let Ok(len) = u32::try_from(self.buffer.len() - start) else { return Err(Refused) };
        self.buffer.patch(start - 4, len.to_ne_bytes());
        self.buffer.set_spoiled(false);
        Ok(())
    }
}

macro_rules! numbers {
    ($($method:ident($type:ty) => $tag:expr;)*) => {$(
        #[inline(always)]
        fn $method(self, value: $type) -> Result {
            self.number::<{ size_of::<$type>() }, { size_of::<$type>() + 1 }>($tag, value.to_ne_bytes())
        }
    )*};
}

impl<'t, 'stack> ser::Serializer for &'t mut Tape<'stack> {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Elements<'t, 'stack>;
    type SerializeTuple = Elements<'t, 'stack>;
    type SerializeTupleStruct = Elements<'t, 'stack>;
    type SerializeTupleVariant = Elements<'t, 'stack>;
    type SerializeMap = Members<'t, 'stack>;
    type SerializeStruct = Members<'t, 'stack>;
    type SerializeStructVariant = Members<'t, 'stack>;

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
    fn serialize_bool(self, value: bool) -> Result {
        self.op(if value { op::TRUE } else { op::FALSE })
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result {
        self.str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline(always)]
    fn serialize_str(self, value: &str) -> Result {
        self.str(value)
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result {
        self.long(op::BYTES, value)
    }

    #[inline(always)]
    fn serialize_none(self) -> Result {
        self.op(op::NULL)
    }

    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_unit(self) -> Result {
        self.op(op::NULL)
    }

    #[inline(always)]
    fn serialize_unit_struct(self, _: &'static str) -> Result {
        self.op(op::NULL)
    }

    #[inline(always)]
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result {
        self.str(variant)
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result {
        self.variant(variant)?;
        value.serialize(&mut *self)?;
        self.op(b'}')
    }

    #[inline(always)]
    fn serialize_seq(self, len: Option<usize>) -> Result<Elements<'t, 'stack>> {
        Elements::begin(self, len, false)
    }

    #[inline(always)]
    fn serialize_tuple(self, len: usize) -> Result<Elements<'t, 'stack>> {
        Elements::begin(self, Some(len), false)
    }

    #[inline(always)]
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Elements<'t, 'stack>> {
        Elements::begin(self, Some(len), false)
    }

    #[inline(always)]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Elements<'t, 'stack>> {
        self.variant(variant)?;
        Elements::begin(self, Some(len), true)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Members<'t, 'stack>> {
        Members::begin(self, len, false)
    }

    #[inline(always)]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Members<'t, 'stack>> {
        if name == RAW_VALUE || (name == NUMBER && *NUMBERS_ARE_TEXT) {
            return Ok(Members { tape: self, state: State::Verbatim(name), in_variant: false });
        }
        Members::begin(self, Some(len), false)
    }

    #[inline(always)]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Members<'t, 'stack>> {
        self.variant(variant)?;
        Members::begin(self, Some(len), true)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result {
        self.text(value)
    }
}

/// How far an array or object is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It said that it has no elements, and is closed already.
    Closed,
    First,
    Rest,
    /// It is a struct of this name, whose one field of the same name holds text to be printed as it is.
    Verbatim(&'static str),
}

impl State {
    /// Of an array or object that was just opened.
    #[inline(always)]
    fn opened(tape: &mut Tape<'_>, len: Option<usize>, close: u8) -> Result<Self> {
        if len != Some(0) {
            return Ok(Self::First);
        }
        tape.op(close)?;
        Ok(Self::Closed)
    }
}

/// An array that is being written.
pub(super) struct Elements<'t, 'stack> {
    tape: &'t mut Tape<'stack>,
    state: State,
    in_variant: bool,
}

impl<'t, 'stack> Elements<'t, 'stack> {
    #[inline(always)]
    fn begin(tape: &'t mut Tape<'stack>, len: Option<usize>, in_variant: bool) -> Result<Self> {
        tape.op(b'[')?;
        let state = State::opened(tape, len, b']')?;
        Ok(Self { tape, state, in_variant })
    }

    #[inline(always)]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        if self.state != State::First {
            self.tape.op(b',')?;
        }
        self.state = State::Rest;
        value.serialize(&mut *self.tape)
    }

    #[inline(always)]
    fn close(self) -> Result {
        if self.state != State::Closed {
            self.tape.op(b']')?;
        }
        if self.in_variant { self.tape.op(b'}') } else { Ok(()) }
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident),*) => {$(
        impl ser::$trait for Elements<'_, '_> {
            type Ok = ();
            type Error = Refused;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
                self.element(value)
            }

            #[inline(always)]
            fn end(self) -> Result {
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

/// An object that is being written.
pub(super) struct Members<'t, 'stack> {
    tape: &'t mut Tape<'stack>,
    state: State,
    in_variant: bool,
}

impl<'t, 'stack> Members<'t, 'stack> {
    #[inline(always)]
    fn begin(tape: &'t mut Tape<'stack>, len: Option<usize>, in_variant: bool) -> Result<Self> {
        tape.op(b'{')?;
        let state = State::opened(tape, len, b'}')?;
        Ok(Self { tape, state, in_variant })
    }

    #[inline(always)]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result {
        if let State::Verbatim(expected) = self.state {
            return if name == expected {
                value.serialize(Verbatim { tape: self.tape })
            } else {
                Err(Refused)
            };
        }
        self.tape.field(self.state == State::First, name)?;
        self.state = State::Rest;
        value.serialize(&mut *self.tape)
    }

    #[inline(always)]
    fn close(self) -> Result {
        if matches!(self.state, State::First | State::Rest) {
            self.tape.op(b'}')?;
        }
        if self.in_variant { self.tape.op(b'}') } else { Ok(()) }
    }
}

impl ser::SerializeMap for Members<'_, '_> {
    type Ok = ();
    type Error = Refused;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        if self.state != State::First {
            self.tape.op(b',')?;
        }
        self.state = State::Rest;
        key.serialize(Key { tape: self.tape })
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.tape.op(b':')?;
        value.serialize(&mut *self.tape)
    }

    #[inline]
    fn end(self) -> Result {
        self.close()
    }
}

macro_rules! members {
    ($($trait:ident),*) => {$(
        impl ser::$trait for Members<'_, '_> {
            type Ok = ();
            type Error = Refused;

            #[inline(always)]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result {
                self.field(name, value)
            }

            #[inline(always)]
            fn end(self) -> Result {
                self.close()
            }
        }
    )*};
}

members!(SerializeStruct, SerializeStructVariant);
