//! Walks wire bytes along the descriptor table.
//!
//! A message is converted from the list of its *parts*: usually one stretch of input, more when a singular member occurs
//! several times, which protobuf defines as a merge. The parts are read as if they stood one after the other, so no
//! byte is copied or read twice on one level. Each level first notes the known fields it meets, drops what a later
//! member of the same oneof replaced, sorts the notes by field (stable) and then converts one field after the other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::number::float;
use super::table::{EnumDef, Field, Kind, Label, MessageDef};
use super::wire::{Cursor, Part, Wire};
use super::{DEPTH_LIMIT, JsonError, Options};
use crate::generated::descriptor::{ENUMS, MESSAGES};

/// The definition at a place of the table.
pub(super) fn message_def(index: u16) -> &'static MessageDef {
    #[expect(clippy::indexing_slicing, reason = "indices are generated together with the table; a test checks each")]
    &MESSAGES[usize::from(index)]
}

fn enum_def(index: u16) -> &'static EnumDef {
    #[expect(clippy::indexing_slicing, reason = "indices are generated together with the table; a test checks each")]
    &ENUMS[usize::from(index)]
}

/// A known field as it was met: its place in the message, and what stood there.
struct Seen<'a> {
    place: usize,
    field: &'static Field,
    wire: Wire<'a>,
}

/// One conversion: the options and what is left of the limit on values.
pub(super) struct Converter<'o> {
    strip: &'o [&'o str],
    max_values: usize,
    values_left: usize,
}

impl<'o> Converter<'o> {
    pub(super) fn new(options: &Options<'o>) -> Self {
        Self { strip: options.strip, max_values: options.max_values, values_left: options.max_values }
    }

    /// The object of the message that `parts` form together. `depth` is the number of messages around it.
    pub(super) fn message(
        &mut self,
        def: &'static MessageDef,
        parts: &[Part<'_>],
        depth: usize,
    ) -> Result<Value, JsonError> {
        self.count()?;
        let mut seen = Vec::new();
        for part in parts {
            self.note_fields(def, *part, &mut seen)?;
        }
        drop_replaced_members(&mut seen);
        seen.sort_by_key(|item| item.place);

        let mut object = Map::new();
        for run in seen.chunk_by(|a, b| a.place == b.place) {
            let Some(last) = run.last() else { continue };
            let value = match (last.field.label, last.field.kind) {
                (Label::Many, kind) => {
                    let items = self.items(def, kind, run, depth)?;
                    if items.is_empty() {
                        continue;
                    }
                    self.count()?;
                    Value::Array(items)
                }
                (Label::Map, Kind::Message(entry)) => self.map(message_def(entry), run, depth)?,
                (_, Kind::Message(index)) => {
                    let parts: Vec<_> = run.iter().filter_map(|item| item.wire.part()).collect();
                    self.nested(def, index, &parts, depth)?
                }
                (_, kind) => self.scalar(kind, last.wire)?,
            };
            object.insert(last.field.name.into(), value);
        }
        Ok(Value::Object(object))
    }

    /// Notes the fields of one part that the schema knows and the options keep.
    fn note_fields<'a>(
        &self,
        def: &'static MessageDef,
        part: Part<'a>,
        seen: &mut Vec<Seen<'a>>,
    ) -> Result<(), JsonError> {
        let mut cursor = Cursor::new(part);
        while !cursor.is_empty() {
            let at = cursor.at();
            let (number, wire) = cursor.next_field().map_err(|fault| fault.within(at, def.name))?;
            let (Some(wire), Some((place, field))) = (wire, def.field(number)) else { continue };
            if accepts(field, wire) && !self.strip.contains(&field.name) {
                seen.push(Seen { place, field, wire });
            }
        }
        Ok(())
    }

    /// The elements of a repeated field, each occurrence being one element or a packed run of them.
    fn items(
        &mut self,
        def: &'static MessageDef,
        kind: Kind,
        run: &[Seen<'_>],
        depth: usize,
    ) -> Result<Vec<Value>, JsonError> {
        let mut items = Vec::with_capacity(run.len());
        for item in run {
            match (kind, item.wire) {
                (Kind::Message(index), Wire::Len(part)) => items.push(self.nested(def, index, &[part], depth)?),
                (Kind::String | Kind::Bytes, wire) => items.push(self.scalar(kind, wire)?),
                (_, Wire::Len(packed)) => {
                    let mut cursor = Cursor::new(packed);
                    while !cursor.is_empty() {
                        let at = cursor.at();
                        let wire = packed_element(kind, &mut cursor).map_err(|fault| fault.within(at, def.name))?;
                        items.push(self.scalar(kind, wire)?);
                    }
                }
                (_, wire) => items.push(self.scalar(kind, wire)?),
            }
        }
        Ok(items)
    }

    /// The object of a map field. A later entry replaces an earlier one with its key; a missing key or value is the default.
    fn map(&mut self, entry: &'static MessageDef, run: &[Seen<'_>], depth: usize) -> Result<Value, JsonError> {
        self.count()?;
        let mut object = Map::new();
        for part in run.iter().filter_map(|item| item.wire.part()) {
            let mut seen = Vec::new();
            self.note_fields(entry, part, &mut seen)?;
            let mut key = String::new();
            let mut value = None;
            for number in [1, 2] {
                let Some((place, field)) = entry.field(number) else { continue };
                let last = seen.iter().rev().find(|item| item.place == place);
                let converted = match (field.kind, last) {
                    (Kind::Message(index), last) => {
                        let part = last.and_then(|item| item.wire.part()).unwrap_or(Part { bytes: &[], ..part });
                        self.nested(entry, index, &[part], depth)?
                    }
                    (kind, Some(item)) => self.scalar(kind, item.wire)?,
                    (kind, None) => self.scalar(kind, default_of(kind))?,
                };
                match (number, converted) {
                    (1, Value::String(text)) => key = text,
                    (1, other) => key = other.to_string(),
                    (_, converted) => value = Some(converted),
                }
            }
            if let Some(value) = value {
                object.insert(key, value);
            }
        }
        Ok(Value::Object(object))
    }

    /// A message inside of `def`, one level further down.
    fn nested(
        &mut self,
        def: &'static MessageDef,
        index: u16,
        parts: &[Part<'_>],
        depth: usize,
    ) -> Result<Value, JsonError> {
        if depth >= DEPTH_LIMIT {
            let at = parts.first().map_or(0, |part| part.at);
            return Err(JsonError::TooDeep { at, message: def.name, limit: DEPTH_LIMIT });
        }
        self.message(message_def(index), parts, depth.saturating_add(1))
    }

    /// The JSON value of a scalar whose wire form [`accepts`] has checked.
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "protobuf reads the low bits")]
    fn scalar(&mut self, kind: Kind, wire: Wire<'_>) -> Result<Value, JsonError> {
        self.count()?;
        Ok(match (kind, wire) {
            (Kind::Double, Wire::Fixed64(bits)) => float(f64::from_bits(bits)),
            (Kind::Float, Wire::Fixed32(bits)) => float(f64::from(f32::from_bits(bits))),
            (Kind::Int32, Wire::Varint(bits)) => Value::from(bits as i32),
            (Kind::Int64, Wire::Varint(bits)) => Value::from((bits as i64).to_string()),
            (Kind::Uint32, Wire::Varint(bits)) => Value::from(bits as u32),
            (Kind::Uint64, Wire::Varint(bits)) => Value::from(bits.to_string()),
            (Kind::Sint32, Wire::Varint(bits)) => Value::from(zigzag(bits & 0xffff_ffff) as i32),
            (Kind::Sint64, Wire::Varint(bits)) => Value::from(zigzag(bits).to_string()),
            (Kind::Fixed32, Wire::Fixed32(bits)) => Value::from(bits),
            (Kind::Fixed64, Wire::Fixed64(bits)) => Value::from(bits.to_string()),
            (Kind::Sfixed32, Wire::Fixed32(bits)) => Value::from(bits as i32),
            (Kind::Sfixed64, Wire::Fixed64(bits)) => Value::from((bits as i64).to_string()),
            (Kind::Bool, Wire::Varint(bits)) => Value::from(bits != 0),
            (Kind::Enum(index), Wire::Varint(bits)) => {
                let number = bits as i32;
                enum_def(index).value_name(number).map_or_else(|| Value::from(number), Value::from)
            }
            (Kind::String, Wire::Len(part)) => Value::from(String::from_utf8_lossy(part.bytes)),
            (Kind::Bytes, Wire::Len(part)) => Value::from(STANDARD.encode(part.bytes)),
            _ => Value::Null,
        })
    }

    /// Takes one value from the limit.
    fn count(&mut self) -> Result<(), JsonError> {
        self.values_left =
            self.values_left.checked_sub(1).ok_or(JsonError::TooManyValues { limit: self.max_values })?;
        Ok(())
    }
}

impl<'a> Wire<'a> {
    fn part(self) -> Option<Part<'a>> {
        match self {
            Self::Len(part) => Some(part),
            _ => None,
        }
    }
}

/// Whether a value on the wire can be this field; if not, it counts as an unknown field.
fn accepts(field: &Field, wire: Wire<'_>) -> bool {
    let packed = field.label == Label::Many && matches!(wire, Wire::Len(_));
    match field.kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => packed || matches!(wire, Wire::Fixed64(_)),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => packed || matches!(wire, Wire::Fixed32(_)),
        Kind::String | Kind::Bytes | Kind::Message(_) => matches!(wire, Wire::Len(_)),
        Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Bool
        | Kind::Enum(_) => packed || matches!(wire, Wire::Varint(_)),
    }
}

/// The next element of a packed run.
fn packed_element<'a>(kind: Kind, cursor: &mut Cursor<'a>) -> Result<Wire<'a>, super::wire::Fault> {
    Ok(match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Wire::Fixed64(cursor.fixed64()?),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Wire::Fixed32(cursor.fixed32()?),
        _ => Wire::Varint(cursor.varint()?),
    })
}

/// The wire form of a default value: zero or empty.
fn default_of(kind: Kind) -> Wire<'static> {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Wire::Fixed64(0),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Wire::Fixed32(0),
        Kind::String | Kind::Bytes | Kind::Message(_) => Wire::Len(Part { bytes: &[], at: 0 }),
        _ => Wire::Varint(0),
    }
}

/// Drops the members of oneofs that a later, different member of the same oneof replaced.
fn drop_replaced_members(seen: &mut Vec<Seen<'_>>) {
    if !seen.iter().any(|item| matches!(item.field.label, Label::Member(_))) {
        return;
    }
    // From back to front: the first member met of a oneof stays, and so do its earlier occurrences up to another member.
    let mut winners: Vec<(u8, Option<usize>)> = Vec::new();
    seen.reverse();
    seen.retain(|item| {
        let Label::Member(oneof) = item.field.label else { return true };
        match winners.iter_mut().find(|(known, _)| *known == oneof) {
            None => {
                winners.push((oneof, Some(item.place)));
                true
            }
            Some((_, winner)) => {
                if *winner != Some(item.place) {
                    *winner = None;
                }
                winner.is_some()
            }
        }
    });
    seen.reverse();
}

/// The signed number of a zigzag-encoded one.
#[expect(clippy::cast_possible_wrap, reason = "the shift leaves the top bit free; the lowest bit is the sign")]
fn zigzag(bits: u64) -> i64 {
    ((bits >> 1) as i64) ^ (bits & 1).wrapping_neg() as i64
}
