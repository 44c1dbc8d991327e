//! The index of a mutation: a JSON array of texts that names what the mutation is about (spec 05 §A3, §A8).
//!
//! It is written as `JSON.stringify` of JavaScript writes it, and hashed as it was received, never as it would be written.

use std::{borrow::Cow, fmt};

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use smallvec::SmallVec;

use crate::jid::Jid;

/// Most parts of an index that is looked into; real ones have up to six.
pub const MAX_PARTS: usize = 16;

/// The parts of an index.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Index<'a>(SmallVec<[Cow<'a, str>; 6]>);

impl<'a> Index<'a> {
    /// Reads it. `None` when it is no array of texts or has more than [`MAX_PARTS`].
    pub fn parse(json: &'a [u8]) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let parts = json.deserialize_seq(Parts).ok()?;
        json.end().ok()?;
        Some(Self(parts))
    }

    /// Whether it is an array of texts, of whatever length.
    pub fn is_well_formed(json: &[u8]) -> bool {
        let mut json = serde_json::Deserializer::from_slice(json);
        json.deserialize_seq(Shape).is_ok() && json.end().is_ok()
    }

    /// From its parts.
    pub fn new(parts: impl IntoIterator<Item = Cow<'a, str>>) -> Self {
        Self(parts.into_iter().collect())
    }

    /// The first part: the name of the action.
    pub fn name(&self) -> &str {
        self.0.first().map_or("", |name| name)
    }

    /// The parts behind the name.
    pub fn rest(&self) -> &[Cow<'a, str>] {
        self.0.get(1..).unwrap_or_default()
    }

    /// The bytes that are hashed and sent.
    pub fn to_json(&self) -> String {
        let parts: Vec<&str> = self.0.iter().map(|part| &**part).collect();
        serde_json::to_string(&parts).unwrap_or_default()
    }
}

impl fmt::Debug for Index<'_> {
    /// The name alone: the rest are phone numbers and ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({} and {} parts)", self.name(), self.rest().len())
    }
}

struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = SmallVec<[Cow<'de, str>; 6]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of texts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut parts = SmallVec::new();
        while let Some(Part(part)) = seq.next_element()? {
            if parts.len() == MAX_PARTS {
                return Err(serde::de::Error::custom("too many parts"));
            }
            parts.push(part);
        }
        Ok(parts)
    }
}

/// A text, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Part<'a>(#[serde(borrow)] Cow<'a, str>);

struct Shape;

impl<'de> Visitor<'de> for Shape {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of texts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<TextShape>()?.is_some() {}
        Ok(())
    }
}

/// A text that nobody wants.
struct TextShape;

impl<'de> serde::Deserialize<'de> for TextShape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = TextShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E>(self, _: &str) -> Result<TextShape, E> {
                Ok(TextShape)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// One part of an index as the value that an action has for it.
pub trait IndexPart: Sized {
    /// Reads as many parts as it takes from the front. `None` when they are no such value.
    fn read(parts: &mut &[Cow<'_, str>]) -> Option<Self>;

    /// Appends its parts.
    fn write(&self, parts: &mut Vec<String>);
}

fn next<'a>(parts: &mut &'a [Cow<'_, str>]) -> Option<&'a str> {
    let (first, rest) = parts.split_first()?;
    *parts = rest;
    Some(first)
}

/// A chat or a user, without a device.
impl IndexPart for Jid {
    fn read(parts: &mut &[Cow<'_, str>]) -> Option<Self> {
        let jid: Self = next(parts)?.try_into().ok()?;
        (jid.device() == 0).then_some(jid)
    }

    fn write(&self, parts: &mut Vec<String>) {
        parts.push(self.to_bare().to_string());
    }
}

/// An id that says nothing here.
impl IndexPart for String {
    fn read(parts: &mut &[Cow<'_, str>]) -> Option<Self> {
        next(parts).map(Self::from)
    }

    fn write(&self, parts: &mut Vec<String>) {
        parts.push(self.clone());
    }
}

/// "1" or "0".
impl IndexPart for bool {
    fn read(parts: &mut &[Cow<'_, str>]) -> Option<Self> {
        match next(parts)? {
            "1" => Some(true),
            "0" => Some(false),
            _ => None,
        }
    }

    fn write(&self, parts: &mut Vec<String>) {
        parts.push(String::from(if *self { "1" } else { "0" }));
    }
}

/// Everything that is left, for indexes that are not known in detail.
impl IndexPart for Vec<String> {
    fn read(parts: &mut &[Cow<'_, str>]) -> Option<Self> {
        Some(std::mem::take(parts).iter().map(|part| String::from(&**part)).collect())
    }

    fn write(&self, parts: &mut Vec<String>) {
        parts.extend(self.iter().cloned());
    }
}

/// A message, as four parts: chat, id, "1" for our own, and in groups the sender of others', else "0".
#[derive(Clone, PartialEq, Eq)]
pub struct MessageRef {
    /// The chat.
    pub chat: Jid,
    /// The id of the message.
    pub id: String,
    /// Whether we sent it.
    pub from_me: bool,
    /// Who sent it, in a group and if not we.
    pub participant: Option<Jid>,
}

impl IndexPart for MessageRef {
    fn read(parts: &mut &[Cow<'_, str>]) -> Option<Self> {
        let (chat, id, from_me) = (Jid::read(parts)?, String::read(parts)?, bool::read(parts)?);
        let participant = match parts.split_first()? {
            (zero, rest) if zero == "0" => {
                *parts = rest;
                None
            }
            _ => Some(Jid::read(parts)?),
        };
        Some(Self { chat, id, from_me, participant })
    }

    fn write(&self, parts: &mut Vec<String>) {
        self.chat.write(parts);
        self.id.write(parts);
        self.from_me.write(parts);
        match &self.participant {
            Some(participant) => participant.write(parts),
            None => parts.push(String::from("0")),
        }
    }
}

impl fmt::Debug for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageRef").field("chat", &self.chat.redacted()).finish_non_exhaustive()
    }
}

/// "0", which means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zero;

impl IndexPart for Zero {
    fn read(parts: &mut &[Cow<'_, str>]) -> Option<Self> {
        (next(parts)? == "0").then_some(Self)
    }

    fn write(&self, parts: &mut Vec<String>) {
        parts.push(String::from("0"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_arrays_of_texts_are_indexes() {
        let check = |json: &str, parts: Option<&[&str]>| {
            let found = Index::parse(json.as_bytes());
            let found = found.as_ref().map(|index| index.0.iter().map(|part| &**part).collect::<Vec<_>>());
            assert_eq!(found.as_deref(), parts, "{json}");
            assert_eq!(Index::is_well_formed(json.as_bytes()), parts.is_some(), "{json}");
        };
        check(r#"["mute","1@s.whatsapp.net"]"#, Some(&["mute", "1@s.whatsapp.net"]));
        check(r#"["a\"\\\u00e9\n"]"#, Some(&["a\"\\é\n"]));
        check("[]", Some(&[]));
        for bad in ["", "{}", "[1]", "[null]", "[\"a\"", "[\"a\"] x", "[[\"a\"]]", "\"a\"", "[\"\\ud800\"]"] {
            check(bad, None);
        }
        let many = format!("[{}\"\"]", "\"\",".repeat(MAX_PARTS));
        assert!(Index::is_well_formed(many.as_bytes()) && Index::parse(many.as_bytes()).is_none());
        assert!(!Index::is_well_formed(b"[\"\xff\"]"));
        let deep = "[".repeat(100_000);
        assert!(!Index::is_well_formed(deep.as_bytes()));
    }

    #[test]
    fn it_is_written_as_javascript_does() {
        let index = Index::new(["a\u{7f}\u{e9}\u{1f600}".into(), "\"\\\n\u{1}/".into()]);
        assert_eq!(index.to_json(), "[\"a\u{7f}\u{e9}\u{1f600}\",\"\\\"\\\\\\n\\u0001/\"]");
    }
}
