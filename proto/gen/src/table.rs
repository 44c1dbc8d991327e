//! The descriptor table of the JSON form: every message and enum of the schema as constant data (`descriptor.rs`).
//!
//! The file is code for `wamd_proto::json::table`, whose types it fills in. Messages and enums stand in order of their
//! full names, so that a name is found by bisection; fields and enum values in order of their numbers for the same
//! reason (and because that is the order in which they are printed).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::Error;
use crate::code::BANNER;

/// Messages that get a named constant in `wamd_proto::json`.
const NAMED: [(&str, &str); 12] = [
    ("CLIENT_PAYLOAD", "WAWebProtobufsWa6.ClientPayload"),
    ("CONTEXT_INFO", "WAWebProtobufsE2E.ContextInfo"),
    ("CONVERSATION", "WAWebProtobufsHistorySync.Conversation"),
    ("DEVICE_PROPS", "WACompanionReg.DeviceProps"),
    ("HISTORY_SYNC", "WAWebProtobufsHistorySync.HistorySync"),
    ("MESSAGE", "WAWebProtobufsE2E.Message"),
    ("MESSAGE_CONTEXT_INFO", "WAWebProtobufsE2E.MessageContextInfo"),
    ("MESSAGE_KEY", "WACommon.MessageKey"),
    ("SYNC_ACTION_DATA", "WAWebProtobufSyncAction.SyncActionData"),
    ("SYNC_ACTION_VALUE", "WAWebProtobufSyncAction.SyncActionValue"),
    ("VERIFIED_NAME_CERTIFICATE", "WAWebProtobufsVnameCert.VerifiedNameCertificate"),
    ("WEB_MESSAGE_INFO", "WAWebProtobufsWeb.WebMessageInfo"),
];

/// All messages and enums by full name.
#[derive(Default)]
struct Schema<'a> {
    messages: BTreeMap<String, &'a DescriptorProto>,
    enums: BTreeMap<String, &'a EnumDescriptorProto>,
}

/// The content of `descriptor.rs`.
pub(crate) fn generate(set: &FileDescriptorSet) -> Result<String, Error> {
    let mut schema = Schema::default();
    for file in &set.file {
        for item in &file.enum_type {
            schema.enums.insert(format!("{}.{}", file.package(), item.name()), item);
        }
        for message in &file.message_type {
            schema.add(file.package(), message);
        }
    }

    let mut out = format!("{BANNER}\nuse crate::json::MessageType;\n");
    out.push_str("use crate::json::table::{EnumDef, Kind, MessageDef, many, map, member, one};\n");
    for (constant, name) in NAMED {
        let index = index(&schema.messages, name)?;
        write!(out, "\n/// `{name}`.\npub const {constant}: MessageType = MessageType({index});\n")?;
    }

    write!(out, "\npub(crate) static MESSAGES: [MessageDef; {}] = [\n", schema.messages.len())?;
    for (name, message) in &schema.messages {
        let mut fields: Vec<_> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        writeln!(out, "    MessageDef {{ name: \"{name}\", fields: &[")?;
        for field in fields {
            writeln!(out, "        {},", schema.field(field).map_err(|cause| format!("{name}: {cause}"))?)?;
        }
        out.push_str("    ] },\n");
    }
    write!(out, "];\n\npub(crate) static ENUMS: [EnumDef; {}] = [\n", schema.enums.len())?;
    for (name, item) in &schema.enums {
        let mut values: Vec<_> = item.value.iter().map(|value| (value.number(), value.name())).collect();
        values.sort_by_key(|(number, _)| *number);
        if values.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("{name}: two names for one number, the table holds one").into());
        }
        writeln!(out, "    EnumDef {{ values: &[ // {name}")?;
        for (number, value) in values {
            writeln!(out, "        ({number}, \"{value}\"),")?;
        }
        out.push_str("    ] },\n");
    }
    out.push_str("];\n");
    Ok(out)
}

impl<'a> Schema<'a> {
    /// Adds a message and what is inside it, the entry messages of maps included.
    fn add(&mut self, scope: &str, message: &'a DescriptorProto) {
        let path = format!("{scope}.{}", message.name());
        for item in &message.enum_type {
            self.enums.insert(format!("{path}.{}", item.name()), item);
        }
        for nested in &message.nested_type {
            self.add(&path, nested);
        }
        self.messages.insert(path, message);
    }

    /// The constructor call for one field, such as `one(1, "conversation", Kind::String)`.
    fn field(&self, field: &FieldDescriptorProto) -> Result<String, Error> {
        let number =
            u16::try_from(field.number()).map_err(|_| format!("number {} needs a wider table", field.number()))?;
        let name = field.name();
        let target = field.type_name().trim_start_matches('.');
        let kind = match field.r#type() {
            Type::Message => format!("Kind::Message({})", index(&self.messages, target)?),
            Type::Enum => format!("Kind::Enum({})", index(&self.enums, target)?),
            Type::Group => return Err(format!("{name} is a group").into()),
            Type::Double => "Kind::Double".into(),
            Type::Float => "Kind::Float".into(),
            Type::Int64 => "Kind::Int64".into(),
            Type::Uint64 => "Kind::Uint64".into(),
            Type::Int32 => "Kind::Int32".into(),
            Type::Uint32 => "Kind::Uint32".into(),
            Type::Sint32 => "Kind::Sint32".into(),
            Type::Sint64 => "Kind::Sint64".into(),
            Type::Fixed32 => "Kind::Fixed32".into(),
            Type::Fixed64 => "Kind::Fixed64".into(),
            Type::Sfixed32 => "Kind::Sfixed32".into(),
            Type::Sfixed64 => "Kind::Sfixed64".into(),
            Type::Bool => "Kind::Bool".into(),
            Type::String => "Kind::String".into(),
            Type::Bytes => "Kind::Bytes".into(),
        };
        let is_map = self
            .messages
            .get(target)
            .is_some_and(|message| message.options.as_ref().is_some_and(|options| options.map_entry()));
        Ok(match (field.label(), field.oneof_index) {
            (Label::Repeated, _) if is_map => format!("map({number}, \"{name}\", {kind})"),
            (Label::Repeated, _) => format!("many({number}, \"{name}\", {kind})"),
            (_, Some(oneof)) => format!("member({number}, \"{name}\", {kind}, {})", u8::try_from(oneof)?),
            (_, None) => format!("one({number}, \"{name}\", {kind})"),
        })
    }
}

/// The place of `name` in the table.
fn index<T>(items: &BTreeMap<String, T>, name: &str) -> Result<u16, Error> {
    let place = items.keys().position(|key| key == name).ok_or_else(|| format!("{name} is not in the schema"))?;
    Ok(u16::try_from(place)?)
}
