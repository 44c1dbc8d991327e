//! Merging, tolerance, limits and hostile input; what the values look like is in `tests/json.rs`.

use proptest::prelude::*;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::table::{Kind, Label};
use super::*;

const EVERYTHING: Options<'static> = Options { strip: &[], max_values: 200_000 };

/// The number of a field by its name.
fn number(ty: MessageType, name: &str) -> u32 {
    let field = message_def(ty.0).fields.iter().find(|field| field.name == name).unwrap();
    field.number.into()
}

fn varint_field(number: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(number, WireType::Varint, &mut out);
    encode_varint(value, &mut out);
    out
}

fn len_field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut out);
    encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

fn ty(name: &str) -> MessageType {
    MessageType::by_name(name).unwrap()
}

fn check(ty: MessageType, wire: &[u8], expected: &str) {
    let value = to_json(ty, wire, &EVERYTHING).unwrap();
    assert_eq!(to_string(&value), expected);
}

#[test]
fn constants_name_their_types() {
    assert_eq!(MESSAGE.name(), "WAWebProtobufsE2E.Message");
    assert_eq!(WEB_MESSAGE_INFO.name(), "WAWebProtobufsWeb.WebMessageInfo");
    assert_eq!(format!("{MESSAGE_KEY:?}"), "MessageType(WACommon.MessageKey)");
    for (index, message) in MESSAGES.iter().enumerate() {
        assert_eq!(usize::from(ty(message.name).0), index);
    }
    assert_eq!(MessageType::by_name("WAWebProtobufsE2E.Massage"), None);
}

#[test]
fn last_scalar_wins_and_order_is_that_of_the_schema() {
    let wire = [len_field(3, b"Y"), varint_field(2, 0), len_field(3, b"Z"), len_field(1, b"a")].concat();
    check(MESSAGE_KEY, &wire, r#"{"remoteJid":"a","fromMe":false,"id":"Z"}"#);
}

#[test]
fn occurrences_of_a_message_merge() {
    let info = number(MESSAGE, "messageContextInfo");
    let context = ty("WAWebProtobufsE2E.MessageContextInfo");
    let metadata = number(context, "deviceListMetadata");
    let one = len_field(info, &len_field(metadata, &len_field(1, b"x")));
    let two = len_field(info, &len_field(metadata, &varint_field(2, 7)));
    check(
        MESSAGE,
        &[one, two].concat(),
        r#"{"messageContextInfo":{"deviceListMetadata":{"senderKeyHash":"eA==","senderTimestamp":"7"}}}"#,
    );
    // A wrong wire type makes the field an unknown one.
    check(MESSAGE, &len_field(info, &varint_field(metadata, 1)), r#"{"messageContextInfo":{}}"#);
}

#[test]
fn last_member_of_a_oneof_stays() {
    let buttons = ty("WAWebProtobufsE2E.ButtonsMessage");
    let (text, image, location) =
        (number(buttons, "text"), number(buttons, "imageMessage"), number(buttons, "locationMessage"));
    let wire = [
        len_field(image, &len_field(1, b"lost")),
        len_field(text, b"lost"),
        len_field(image, &len_field(1, b"url")),
        len_field(image, &len_field(2, b"type")),
    ]
    .concat();
    check(buttons, &wire, r#"{"imageMessage":{"url":"url","mimetype":"type"}}"#);
    let wire = [wire, len_field(location, b"")].concat();
    check(buttons, &wire, r#"{"locationMessage":{}}"#);
}

#[test]
fn repeated_scalars_packed_and_not() {
    let list = ty("WAAdv.ADVKeyIndexList");
    let indexes = number(list, "validIndexes");
    let wire = [
        varint_field(indexes, 1),
        len_field(indexes, &[2, 0xac, 0x02]),
        len_field(indexes, &[]),
        varint_field(indexes, 4),
    ]
    .concat();
    check(list, &wire, r#"{"validIndexes":[1,2,300,4]}"#);
    check(list, &len_field(indexes, &[]), "{}");
    assert_eq!(
        to_json(list, &len_field(indexes, &[0x80]), &EVERYTHING),
        Err(JsonError::Truncated { at: 2, message: "WAAdv.ADVKeyIndexList" })
    );
}

#[test]
fn maps_are_objects() {
    let action = ty("WAWebProtobufSyncAction.MusicUserIdAction");
    let entry = |key: &[u8], value: &[u8]| len_field(2, &[len_field(1, key), len_field(2, value)].concat());
    let wire = [entry(b"a", b"1"), entry(b"b", b"2"), entry(b"a", b"3"), len_field(2, b"")].concat();
    check(action, &wire, r#"{"music_user_id_map":{"a":"3","b":"2","":""}}"#);
    let reporting = ty("WAWebProtobufsReporting.Config");
    check(reporting, &len_field(1, &varint_field(1, 7)), r#"{"field":{"7":{}}}"#);
}

#[test]
fn unknown_fields_groups_and_bad_utf8_are_tolerated() {
    let mut group = Vec::new();
    encode_key(900, WireType::StartGroup, &mut group);
    encode_key(901, WireType::StartGroup, &mut group);
    group.extend_from_slice(&len_field(1, b"inside"));
    encode_key(901, WireType::EndGroup, &mut group);
    encode_key(900, WireType::EndGroup, &mut group);
    let wire = [group, varint_field(5_000_000, 1), varint_field(1, 9), len_field(3, b"\xffx")].concat();
    check(MESSAGE_KEY, &wire, "{\"id\":\"\u{fffd}x\"}");
}

#[test]
fn malformed_bytes_say_where() {
    let message = "WACommon.MessageKey";
    let cases: [(&[u8], JsonError); 9] = [
        (&[0x0a], JsonError::Truncated { at: 0, message }),
        (&[0x0a, 1, b'a', 0x1a, 5, b'b'], JsonError::Truncated { at: 3, message }),
        (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], JsonError::Varint { at: 0, message }),
        (&[0x80; 11], JsonError::Varint { at: 0, message }),
        (&[0x02, 0], JsonError::Tag { at: 0, message }),
        (&[0x10, 1, 0x0f, 0], JsonError::Tag { at: 2, message }),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], JsonError::Tag { at: 0, message }),
        (&[0x0c], JsonError::Group { at: 0, message }),
        (&[0x0b, 0x14], JsonError::Group { at: 0, message }),
    ];
    for (wire, expected) in cases {
        assert_eq!(to_json(MESSAGE_KEY, wire, &EVERYTHING), Err(expected), "{wire:x?}");
    }
    let nested = len_field(number(MESSAGE, "reactionMessage"), &len_field(1, &[0x0a, 9]));
    assert_eq!(to_json(MESSAGE, &nested, &EVERYTHING), Err(JsonError::Truncated { at: 5, message }));
    assert_eq!(
        JsonError::Truncated { at: 5, message }.to_string(),
        "WACommon.MessageKey: field at offset 5 is cut off"
    );
}

#[test]
fn depth_stops_where_prost_stops() {
    let future_proof = number(MESSAGE, "ephemeralMessage");
    let wrap =
        |times: usize| (0..times).fold(len_field(1, b"hi"), |inner, _| len_field(future_proof, &len_field(1, &inner)));
    // Two messages per wrapping: 100 below the outermost are allowed.
    assert!(e2e::Message::decode(&wrap(50)[..]).is_ok());
    assert!(to_json(MESSAGE, &wrap(50), &EVERYTHING).is_ok());
    assert!(e2e::Message::decode(&wrap(51)[..]).is_err());
    let error = to_json(MESSAGE, &wrap(51), &EVERYTHING).unwrap_err();
    assert!(matches!(error, JsonError::TooDeep { limit: 100, message: "WAWebProtobufsE2E.Message", .. }), "{error:?}");
    assert!(to_json(MESSAGE, &wrap(5_000), &EVERYTHING).is_err());
    let groups = [0x0b].repeat(100_000);
    assert_eq!(
        to_json(MESSAGE, &groups, &EVERYTHING).unwrap_err(),
        JsonError::Group { at: 0, message: MESSAGE.name() }
    );
}

#[test]
fn number_of_values_is_limited() {
    let list = ty("WAAdv.ADVKeyIndexList");
    let wire = len_field(number(list, "validIndexes"), &[1; 50]);
    let limited = |max_values| to_json(list, &wire, &Options { max_values, ..EVERYTHING });
    // The object, the array and fifty numbers.
    assert!(limited(52).is_ok());
    assert_eq!(limited(51), Err(JsonError::TooManyValues { limit: 51 }));
    assert_eq!(limited(0), Err(JsonError::TooManyValues { limit: 0 }));
}

#[test]
fn many_occurrences_of_one_member_are_one_value() {
    // A million occurrences, of a scalar and of a message: linear work, and a result of a few values.
    let wire = [varint_field(2, 1).repeat(500_000), len_field(1, b"").repeat(500_000)].concat();
    check(MESSAGE_KEY, &wire, r#"{"remoteJid":"","fromMe":true}"#);
    let wire = len_field(number(MESSAGE, "reactionMessage"), &varint_field(4, 1)).repeat(200_000);
    check(MESSAGE, &wire, r#"{"reactionMessage":{"senderTimestampMs":"1"}}"#);
}

/// Builds wire bytes that fit `def` (known fields with fitting wire types, repeated at random) out of `entropy`.
fn fitting(def: &'static table::MessageDef, entropy: &mut std::slice::Iter<'_, u8>, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next = || entropy.next().copied();
    let fields = usize::from(next().unwrap_or(0) % 5);
    for _ in 0..fields {
        let (Some(pick), Some(value)) = (entropy.next(), entropy.next()) else { break };
        if def.fields.is_empty() {
            break;
        }
        let field = &def.fields[usize::from(*pick) % def.fields.len()];
        let number = field.number.into();
        let value = *value;
        match field.kind {
            Kind::Message(index) => {
                if depth < 6 && field.label != Label::Map {
                    out.extend(len_field(number, &fitting(message_def(index), entropy, depth + 1)));
                }
            }
            Kind::String => out.extend(len_field(number, &vec![b'a' + value % 26; usize::from(value % 4)])),
            Kind::Bytes => out.extend(len_field(number, &vec![value; usize::from(value % 4)])),
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => {
                encode_key(number, WireType::SixtyFourBit, &mut out);
                out.extend(f64::from(value).to_le_bytes());
            }
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
                encode_key(number, WireType::ThirtyTwoBit, &mut out);
                out.extend(f32::from(value).to_le_bytes());
            }
            _ if field.label == Label::Many && value % 2 == 0 => out.extend(len_field(number, &[1, 2, value & 0x7f])),
            _ => out.extend(varint_field(number, u64::from(value).wrapping_sub(3))),
        }
    }
    out
}

fn agrees_with_prost<M: Typed + Default>(entropy: &[u8]) -> Result<(), TestCaseError> {
    let wire = fitting(message_def(M::TYPE.0), &mut entropy.iter(), 0);
    let decoded = M::decode(&wire[..]).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let direct = to_json(M::TYPE, &wire, &EVERYTHING).unwrap();
    prop_assert_eq!(to_string(&direct), to_string(&to_json_message(&decoded, &EVERYTHING).unwrap()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), index in 0..MESSAGES.len()) {
        let _ = to_json(MESSAGE, &bytes, &Options::default());
        let _ = to_json(MessageType(index as u16), &bytes, &Options::default()).map(|value| to_string(&value));
    }

    #[test]
    fn fitting_bytes_cut_and_flipped_never_panic(
        entropy in prop::collection::vec(any::<u8>(), 0..300),
        index in 0..MESSAGES.len(),
        cut in any::<prop::sample::Index>(),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let def = message_def(index as u16);
        prop_assume!(!def.fields.is_empty());
        let mut wire = fitting(def, &mut entropy.iter(), 0);
        if !wire.is_empty() {
            let place = flip.0.index(wire.len());
            wire[place] ^= flip.1;
            wire.truncate(cut.index(wire.len() + 1));
        }
        if let Ok(value) = to_json(MessageType(index as u16), &wire, &EVERYTHING) {
            let text = to_string(&value);
            prop_assert_eq!(to_string(&serde_json::from_str::<Value>(&text).unwrap()), text);
        }
    }

    #[test]
    fn merging_agrees_with_prost(entropy in prop::collection::vec(any::<u8>(), 0..600)) {
        agrees_with_prost::<e2e::Message>(&entropy)?;
        agrees_with_prost::<web::WebMessageInfo>(&entropy)?;
        agrees_with_prost::<sync_action::SyncActionValue>(&entropy)?;
    }
}
