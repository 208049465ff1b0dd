//! Serializers for the two places where not every value may stand: the key of an object, and the text of a `RawValue`.

use super::super::{json, op};
use super::{Pen, Ready, Refused, Result};
use serde::ser::{self, Impossible, Serialize};
use std::fmt::Display;

/// What neither a key of an object nor the text of a [`Verbatim`] can be.
macro_rules! refuse_compounds {
    () => {
        type SerializeSeq = Impossible<Self::Ok, Refused>;
        type SerializeTuple = Impossible<Self::Ok, Refused>;
        type SerializeTupleStruct = Impossible<Self::Ok, Refused>;
        type SerializeTupleVariant = Impossible<Self::Ok, Refused>;
        type SerializeMap = Impossible<Self::Ok, Refused>;
        type SerializeStruct = Impossible<Self::Ok, Refused>;
        type SerializeStructVariant = Impossible<Self::Ok, Refused>;

        fn serialize_bytes(self, _: &[u8]) -> Result<Self::Ok> {
            Err(Refused)
        }

        fn serialize_none(self) -> Result<Self::Ok> {
            Err(Refused)
        }

        fn serialize_unit(self) -> Result<Self::Ok> {
            Err(Refused)
        }

        fn serialize_unit_struct(self, _: &'static str) -> Result<Self::Ok> {
            Err(Refused)
        }

        fn serialize_newtype_variant<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<Self::Ok> {
            Err(Refused)
        }

        fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq> {
            Err(Refused)
        }

        fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
            Err(Refused)
        }

        fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct> {
            Err(Refused)
        }

        fn serialize_tuple_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleVariant> {
            Err(Refused)
        }

        fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap> {
            Err(Refused)
        }

        fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct> {
            Err(Refused)
        }

        fn serialize_struct_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeStructVariant> {
            Err(Refused)
        }
    };
}

/// The key of an object: a string, or what serde_json prints as one.
pub(super) struct Key<'buffer, 'stack> {
    pub(super) ready: Ready<'buffer, 'stack>,
}

impl<'buffer, 'stack> Key<'buffer, 'stack> {
    fn quoted(self, number: impl Serialize) -> Result<Pen<'buffer, 'stack>> {
        let mut pen = self.ready.put([b'"']);
        pen.value(&number)?;
        pen.op(b'"')?;
        Ok(pen)
    }
}

macro_rules! quoted {
    ($($method:ident($type:ty);)*) => {$(
        fn $method(self, value: $type) -> Result<Self::Ok> {
            self.quoted(value)
        }
    )*};
}

impl<'buffer, 'stack> ser::Serializer for Key<'buffer, 'stack> {
    type Ok = Pen<'buffer, 'stack>;
    type Error = Refused;

    refuse_compounds!();

    quoted! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
    }

    fn serialize_f32(self, value: f32) -> Result<Self::Ok> {
        if value.is_finite() { self.quoted(value) } else { Err(Refused) }
    }

    fn serialize_f64(self, value: f64) -> Result<Self::Ok> {
        if value.is_finite() { self.quoted(value) } else { Err(Refused) }
    }

    fn serialize_char(self, value: char) -> Result<Self::Ok> {
        self.ready.serialize_char(value)
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<Self::Ok> {
        self.ready.str(value)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Self::Ok> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Self::Ok> {
        self.ready.str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Self::Ok> {
        value.serialize(self)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<Self::Ok> {
        self.ready.writes(|pen| pen.text(value))
    }
}

/// The contents of a `RawValue` or a `Number`: a string and nothing else.
pub(super) struct Verbatim<'buffer, 'stack> {
    pub(super) ready: Ready<'buffer, 'stack>,
}

macro_rules! refused {
    ($($method:ident($type:ty);)*) => {$(
        fn $method(self, _: $type) -> Result<Self::Ok> {
            Err(Refused)
        }
    )*};
}

impl<'buffer, 'stack> ser::Serializer for Verbatim<'buffer, 'stack> {
    type Ok = Pen<'buffer, 'stack>;
    type Error = Refused;

    refuse_compounds!();

    refused! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
    }

    fn serialize_str(self, value: &str) -> Result<Self::Ok> {
        self.ready.writes(|pen| {
            if pen.expect_text() && !json::is_json(value.as_bytes(), json::DEPTH_MAX) {
                return Err(Refused);
            }
            pen.long(op::VERBATIM, value.as_bytes())
        })
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Self::Ok> {
        Err(Refused)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<Self::Ok> {
        Err(Refused)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Result<Self::Ok> {
        Err(Refused)
    }
}
