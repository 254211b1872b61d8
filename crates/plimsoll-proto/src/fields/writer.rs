//! Canonical protobuf, written field by field straight from the ledger's types: no message in between.
//!
//! Callers name fields in ascending order of their numbers. What proto3 leaves out is left out here.

use std::ops::Range;

use prost::Message;
use prost::encoding::{WireType, encode_varint};

/// Appends fields of one message.
pub struct Writer<'a> {
    buffer: &'a mut Vec<u8>,
}

/// The bytes of one message.
pub fn written(capacity: usize, fields: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(capacity);
    fields(&mut Writer { buffer: &mut buffer });
    buffer
}

impl Writer<'_> {
    /// An unsigned number; 0 is left out.
    pub fn number(&mut self, field: u32, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.some_number(field, value);
        }
    }

    /// An unsigned number that is written even as 0: in a oneof.
    pub fn some_number(&mut self, field: u32, value: impl Into<u64>) {
        self.tag(field, WireType::Varint);
        encode_varint(value.into(), self.buffer);
    }

    /// A `sint32`; 0 is left out.
    pub fn signed(&mut self, field: u32, value: i32) {
        self.number(field, u64::from(((value << 1) ^ (value >> 31)).cast_unsigned()));
    }

    /// An enum; 0 is left out.
    pub fn choice(&mut self, field: u32, value: i32) {
        self.number(field, i64::from(value).cast_unsigned());
    }

    /// Text or bytes; nothing is left out.
    pub fn bytes(&mut self, field: u32, value: impl AsRef<[u8]>) {
        if !value.as_ref().is_empty() {
            self.some_bytes(field, value);
        }
    }

    /// Text or bytes that are written even where there are none: in a repeated field.
    pub fn some_bytes(&mut self, field: u32, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.tag(field, WireType::LengthDelimited);
        encode_varint(value.len() as u64, self.buffer);
        self.buffer.extend_from_slice(value);
    }

    /// A list of unsigned numbers, packed; an empty one is left out.
    pub fn packed(&mut self, field: u32, values: impl ExactSizeIterator<Item = u64>) {
        if values.len() > 0 {
            self.message(field, |list| values.for_each(|value| encode_varint(value, list.buffer)));
        }
    }

    /// A message, written even when it is empty.
    pub fn message(&mut self, field: u32, fields: impl FnOnce(&mut Writer<'_>)) {
        self.placed_message(field, fields);
    }

    /// The same; returns where the message's own bytes are.
    pub fn placed_message(&mut self, field: u32, fields: impl FnOnce(&mut Writer<'_>)) -> Range<usize> {
        self.tag(field, WireType::LengthDelimited);
        // Most are shorter than 128 bytes: their length takes one byte, and nothing has to move.
        let at = self.buffer.len();
        self.buffer.push(0);
        fields(&mut Writer { buffer: self.buffer });
        let length = self.buffer.len() - at - 1;
        match u8::try_from(length) {
            Ok(length) if length < 0x80 => self.buffer[at] = length,
            _ => {
                let mut varint = Vec::with_capacity(5);
                encode_varint(length as u64, &mut varint);
                self.buffer.splice(at..=at, varint);
            }
        }
        self.buffer.len() - length..self.buffer.len()
    }

    /// A message of a kind that is seldom enough to be written by way of its generated form.
    pub fn generated(&mut self, field: u32, message: &impl Message) {
        self.tag(field, WireType::LengthDelimited);
        message.encode_length_delimited(self.buffer).expect("a vector grows");
    }

    fn tag(&mut self, field: u32, wire: WireType) {
        encode_varint(u64::from(field << 3 | wire as u32), self.buffer);
    }
}
