//! The shape of the descriptor table; `wamd-proto-gen` fills it in (`generated/descriptor.rs`).
//!
//! About 600 messages, 3_200 fields of 24 bytes and 190 enums: 120 kB of constant data and the names.

/// A message: its full name and its fields in order of their numbers.
#[derive(Debug)]
pub(crate) struct MessageDef {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
}

impl MessageDef {
    /// The field with this number and its place in the order of output.
    pub(crate) fn field(&self, number: u32) -> Option<(usize, &'static Field)> {
        let place = self.fields.binary_search_by_key(&number, |field| u32::from(field.number)).ok()?;
        Some((place, self.fields.get(place)?))
    }
}

/// An enum: its numbers in ascending order with their names.
#[derive(Debug)]
pub(crate) struct EnumDef {
    pub(crate) values: &'static [(i32, &'static str)],
}

impl EnumDef {
    /// The name of a number, if the schema knows it.
    pub(crate) fn value_name(&self, number: i32) -> Option<&'static str> {
        let place = self.values.binary_search_by_key(&number, |(known, _)| *known).ok()?;
        self.values.get(place).map(|(_, name)| *name)
    }
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    /// The name as the schema spells it, which is the JSON key.
    pub(crate) name: &'static str,
    pub(crate) number: u16,
    pub(crate) kind: Kind,
    pub(crate) label: Label,
}

/// How often a field occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// At most once; a later occurrence replaces or, for messages, extends an earlier one.
    One,
    /// As `One`, and setting it clears the other members of this oneof of the message.
    Member(u8),
    /// Any number of times.
    Many,
    /// Any number of times; the kind is an entry message with the key as field 1 and the value as field 2.
    Map,
}

/// What a field holds. The number is the place of the message or enum in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the schema happens to have no sint32 and sint64 fields")]
pub(crate) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(u16),
    Message(u16),
}

pub(crate) const fn one(number: u16, name: &'static str, kind: Kind) -> Field {
    Field { name, number, kind, label: Label::One }
}

pub(crate) const fn member(number: u16, name: &'static str, kind: Kind, oneof: u8) -> Field {
    Field { name, number, kind, label: Label::Member(oneof) }
}

pub(crate) const fn many(number: u16, name: &'static str, kind: Kind) -> Field {
    Field { name, number, kind, label: Label::Many }
}

pub(crate) const fn map(number: u16, name: &'static str, kind: Kind) -> Field {
    Field { name, number, kind, label: Label::Map }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::descriptor::{ENUMS, MESSAGES};

    #[test]
    fn tables_are_sorted_for_bisection() {
        assert!(MESSAGES.windows(2).all(|pair| pair[0].name < pair[1].name));
        for message in &MESSAGES {
            assert!(message.fields.windows(2).all(|pair| pair[0].number < pair[1].number), "{}", message.name);
        }
        for item in &ENUMS {
            assert!(item.values.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }

    #[test]
    fn indices_stay_inside_the_tables() {
        for field in MESSAGES.iter().flat_map(|message| message.fields) {
            match field.kind {
                Kind::Message(index) => assert!(usize::from(index) < MESSAGES.len()),
                Kind::Enum(index) => assert!(usize::from(index) < ENUMS.len()),
                _ => {}
            }
            if field.label == Label::Map {
                let Kind::Message(index) = field.kind else { panic!("{}", field.name) };
                let entry = &MESSAGES[usize::from(index)];
                assert_eq!(entry.fields.iter().map(|field| field.number).collect::<Vec<_>>(), [1, 2], "{}", entry.name);
            }
        }
    }

    #[test]
    fn table_is_small() {
        assert_eq!(size_of::<Field>(), 24);
        let fields: usize = MESSAGES.iter().map(|message| message.fields.len()).sum();
        let values: usize = ENUMS.iter().map(|item| item.values.len()).sum();
        let bytes = fields * size_of::<Field>()
            + values * size_of::<(i32, &str)>()
            + size_of_val(&MESSAGES)
            + size_of_val(&ENUMS);
        assert!(bytes < 160_000, "{bytes}");
    }
}
