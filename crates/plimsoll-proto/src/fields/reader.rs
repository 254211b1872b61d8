//! Canonical protobuf, read field by field straight into the ledger's types. Every other spelling is refused on the way:
//! fields out of order, unknown or twice, defaults that are written out, numbers in more bytes than they need.

use prost::Message;
use prost::encoding::WireType;

use crate::codec::CodecError;

type Result<T> = std::result::Result<T, CodecError>;

/// What is left of one message. Its fields are asked for in ascending order of their numbers, then [`Reader::end`].
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// `what` names the message in errors.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { rest: bytes, what }
    }

    /// The whole message is read. What is left is a field that this build does not know, or one out of order.
    pub fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.not_canonical()) }
    }

    /// The bytes that are left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Number of the next field, whatever it is; `None` at the end.
    pub fn next_field(&self) -> Result<Option<u32>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = { *self }.varint()?;
        u32::try_from(tag >> 3).map(Some).map_err(|_| self.not_canonical())
    }

    /// An unsigned number; 0 where it is left out.
    pub fn number(&mut self, field: u32) -> Result<u64> {
        if !self.takes(field, WireType::Varint) {
            return Ok(0);
        }
        match self.varint()? {
            0 => Err(self.not_canonical()),
            value => Ok(value),
        }
    }

    /// An unsigned number of 32 bits; 0 where it is left out.
    pub fn small(&mut self, field: u32) -> Result<u32> {
        let value = self.number(field)?;
        u32::try_from(value).map_err(|_| self.not_canonical())
    }

    /// An unsigned number that is there even as 0: in a oneof.
    pub fn some_number(&mut self, field: u32) -> Result<u64> {
        if self.takes(field, WireType::Varint) { self.varint() } else { Err(self.not_canonical()) }
    }

    /// A `sint32`.
    pub fn signed(&mut self, field: u32) -> Result<i32> {
        let value = self.small(field)?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// An enum, by its number.
    pub fn choice(&mut self, field: u32) -> Result<i32> {
        let value = self.number(field)?.cast_signed();
        i32::try_from(value).map_err(|_| self.not_canonical())
    }

    /// A bool.
    pub fn flag(&mut self, field: u32) -> Result<bool> {
        match self.number(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.not_canonical()),
        }
    }

    /// Bytes; empty where they are left out.
    pub fn bytes(&mut self, field: u32) -> Result<&'a [u8]> {
        match self.delimited(field)? {
            None => Ok(&[]),
            Some([]) => Err(self.not_canonical()),
            Some(bytes) => Ok(bytes),
        }
    }

    /// Text; empty where it is left out.
    pub fn text(&mut self, field: u32) -> Result<String> {
        let bytes = self.bytes(field)?;
        self.utf8(bytes)
    }

    /// The next text of a repeated field, which may be empty; `None` after the last.
    pub fn next_text(&mut self, field: u32) -> Result<Option<String>> {
        match self.delimited(field)? {
            None => Ok(None),
            Some(bytes) => self.utf8(bytes).map(Some),
        }
    }

    /// All texts of a repeated field.
    pub fn texts(&mut self, field: u32) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        while let Some(text) = self.next_text(field)? {
            texts.push(text);
        }
        Ok(texts)
    }

    /// A packed list of numbers.
    pub fn packed(&mut self, field: u32) -> Result<Vec<u64>> {
        let mut list = Reader { rest: self.bytes(field)?, what: self.what };
        let mut numbers = Vec::new();
        while !list.rest.is_empty() {
            numbers.push(list.varint()?);
        }
        Ok(numbers)
    }

    /// A message, or the next one of a repeated field; `None` where there is none.
    pub fn message(&mut self, field: u32, what: &'static str) -> Result<Option<Reader<'a>>> {
        Ok(self.delimited(field)?.map(|bytes| Reader { rest: bytes, what }))
    }

    /// A message that is always written.
    pub fn some_message(&mut self, field: u32, what: &'static str) -> Result<Reader<'a>> {
        self.message(field, what)?.ok_or(CodecError::Missing { field: what })
    }

    /// All messages of a repeated field.
    pub fn messages<T>(
        &mut self,
        field: u32,
        what: &'static str,
        mut read: impl FnMut(Reader<'a>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        while let Some(message) = self.message(field, what)? {
            all.push(read(message)?);
        }
        Ok(all)
    }

    /// A message of a kind that is seldom enough to be read by way of its generated form.
    pub fn generated<M: Message + Default>(&mut self, field: u32, what: &'static str) -> Result<Option<M>> {
        self.delimited(field)?.map(|bytes| generated(bytes, what)).transpose()
    }

    /// Like [`Reader::generated`], where it is always written.
    pub fn some_generated<M: Message + Default>(&mut self, field: u32, what: &'static str) -> Result<M> {
        self.generated(field, what)?.ok_or(CodecError::Missing { field: what })
    }

    fn delimited(&mut self, field: u32) -> Result<Option<&'a [u8]>> {
        if !self.takes(field, WireType::LengthDelimited) {
            return Ok(None);
        }
        let length = self.varint()?;
        let length = usize::try_from(length).ok().filter(|length| *length <= self.rest.len());
        let (bytes, rest) = self.rest.split_at(length.ok_or_else(|| self.cut_short())?);
        self.rest = rest;
        Ok(Some(bytes))
    }

    /// Takes the tag of a field where it comes next, in its only spelling.
    fn takes(&mut self, field: u32, wire: WireType) -> bool {
        let tag = field << 3 | wire as u32;
        let rest = match *self.rest {
            [first, ref rest @ ..] if u32::from(first) == tag && tag < 0x80 => rest,
            [low, high, ref rest @ ..]
                if (0x80..0x4000).contains(&tag)
                    && u32::from(low) == tag & 0x7f | 0x80
                    && u32::from(high) == tag >> 7 =>
            {
                rest
            }
            _ => return false,
        };
        self.rest = rest;
        true
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit, and a last byte of zero is one too many.
            if index > 9 || index == 9 && bits > 1 || index > 0 && *byte == 0 {
                return Err(self.not_canonical());
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(self.cut_short())
    }

    fn utf8(&self, bytes: &[u8]) -> Result<String> {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.cut_short())
    }

    /// Another encoding than the canonical one.
    pub(crate) fn not_canonical(&self) -> CodecError {
        CodecError::NotCanonical { what: self.what }
    }

    fn cut_short(&self) -> CodecError {
        CodecError::Damaged { what: self.what }
    }
}

/// A message by way of its generated form. The bytes must be just what it encodes to.
fn generated<M: Message + Default>(bytes: &[u8], what: &'static str) -> Result<M> {
    let message = M::decode(bytes).map_err(|_| CodecError::Damaged { what })?;
    if message.encode_to_vec() == bytes { Ok(message) } else { Err(CodecError::NotCanonical { what }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> Result<u64> {
        let mut reader = Reader::new(bytes, "test");
        let value = reader.number(1)?;
        reader.end().map(|()| value)
    }

    #[test]
    fn a_number_has_one_spelling() {
        assert_eq!(number(b""), Ok(0));
        assert_eq!(number(b"\x08\x01"), Ok(1));
        assert_eq!(number(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Ok(u64::MAX));
        let refused = [
            &b"\x08\x00"[..],
            b"\x08\x81\x00",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            b"\x88\x00\x01",
            b"\x08\x01\x08\x01",
            b"\x08\x01\x10\x01",
            b"\x0a\x01\x01",
        ];
        for bytes in refused {
            assert_eq!(number(bytes), Err(CodecError::NotCanonical { what: "test" }), "{bytes:x?}");
        }
        assert_eq!(number(b"\x08\x81"), Err(CodecError::Damaged { what: "test" }));
    }

    #[test]
    fn what_is_cut_short_or_no_text_is_damaged() {
        for bytes in
            [&b"\x0a"[..], b"\x0a\x05abc", b"\x0a\x01\xff", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
        {
            let text = Reader::new(bytes, "test").text(1);
            assert_eq!(text, Err(CodecError::Damaged { what: "test" }), "{bytes:x?}");
        }
        assert_eq!(Reader::new(b"\x0a\x00", "test").text(1), Err(CodecError::NotCanonical { what: "test" }));
    }
}
