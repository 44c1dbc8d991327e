//! Protobuf fields from borrowed parts, for messages that are written far more often than they are read: nothing is
//! copied into an owned message first. Fields with the default of their type are the caller's to leave out.

use std::fmt::Display;

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::jid::ShortText;

/// Appends fields to a message.
#[derive(Debug)]
pub(crate) struct Fields<'a, B>(pub(crate) &'a mut B);

impl<B: BufMut> Fields<'_, B> {
    /// A number or a flag; 0 is left out.
    pub(crate) fn number(&mut self, tag: u32, value: u64) -> &mut Self {
        if value != 0 {
            encode_key(tag, WireType::Varint, self.0);
            encode_varint(value, self.0);
        }
        self
    }

    /// A text, a message that is encoded already, or other bytes.
    pub(crate) fn bytes(&mut self, tag: u32, bytes: &[u8]) -> &mut Self {
        self.begin(tag, bytes.len()).0.put_slice(bytes);
        self
    }

    /// The beginning of a message whose fields, of so many bytes, are written next.
    pub(crate) fn begin(&mut self, tag: u32, len: usize) -> &mut Self {
        encode_key(tag, WireType::LengthDelimited, self.0);
        encode_varint(len as u64, self.0);
        self
    }

    /// Bytes that may be absent.
    pub(crate) fn bytes_opt(&mut self, tag: u32, bytes: Option<&[u8]>) -> &mut Self {
        if let Some(bytes) = bytes {
            self.bytes(tag, bytes);
        }
        self
    }

    /// The text of something.
    pub(crate) fn text(&mut self, tag: u32, text: &impl Display) -> &mut Self {
        self.bytes(tag, ShortText::of(text).as_bytes())
    }

    /// A message that is encoded here.
    pub(crate) fn message(&mut self, tag: u32, message: &impl prost::Message) -> &mut Self {
        prost::encoding::message::encode(tag, message, self.0);
        self
    }
}

/// Bytes of a field with so many bytes in it.
pub(crate) const fn bytes_len(tag: u32, len: usize) -> usize {
    key_len(tag).saturating_add(encoded_len_varint(len as u64)).saturating_add(len)
}
