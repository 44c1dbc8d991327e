//! The JSON form is the one that Baileys' users know: spec 07 §2.2 (measured on Baileys) and protobuf.js itself.

use serde_json::Value;
use wamd_proto::json::{self, MessageType, Options};
use wamd_proto::{Bytes, common, e2e};

/// Keeps `messageSecret` too, as protobuf.js does.
const EVERYTHING: Options<'static> = Options { strip: &[], max_values: 200_000 };

fn check(message: &e2e::Message, expected: &str) {
    let value = json::to_json_message(message, &Options::default()).unwrap();
    assert_eq!(json::to_string(&value), expected);
    // None of these has an exponent, so that the ordinary serializer prints the same.
    assert_eq!(value.to_string(), expected);
}

fn key(remote_jid: &str, from_me: bool, id: &str) -> Option<Box<common::MessageKey>> {
    Some(Box::new(common::MessageKey {
        remote_jid: Some(remote_jid.into()),
        from_me: Some(from_me),
        id: Some(id.into()),
        participant: None,
    }))
}

#[test]
fn revoke() {
    let message = e2e::Message {
        protocol_message: Some(Box::new(e2e::ProtocolMessage {
            key: key("a", false, "Z"),
            r#type: Some(e2e::protocol_message::Type::Revoke.into()),
            ..Default::default()
        })),
        ..Default::default()
    };
    check(&message, r#"{"protocolMessage":{"key":{"remoteJid":"a","fromMe":false,"id":"Z"},"type":"REVOKE"}}"#);
}

#[test]
fn reaction() {
    let message = e2e::Message {
        reaction_message: Some(Box::new(e2e::ReactionMessage {
            key: key("a", true, "Z"),
            text: Some(String::new()),
            sender_timestamp_ms: Some(1_716_894_200_123),
            ..Default::default()
        })),
        ..Default::default()
    };
    check(
        &message,
        r#"{"reactionMessage":{"key":{"remoteJid":"a","fromMe":true,"id":"Z"},"text":"","senderTimestampMs":"1716894200123"}}"#,
    );
}

#[test]
fn location() {
    let message = e2e::Message {
        location_message: Some(Box::new(e2e::LocationMessage {
            degrees_latitude: Some(6.5244),
            degrees_longitude: Some(3.3792),
            name: Some("Lagos".into()),
            ..Default::default()
        })),
        ..Default::default()
    };
    check(&message, r#"{"locationMessage":{"degreesLatitude":6.5244,"degreesLongitude":3.3792,"name":"Lagos"}}"#);
}

#[test]
fn poll_vote() {
    let mut poll_key = key("g@g.us", false, "A");
    poll_key.as_mut().unwrap().participant = Some("1@lid".into());
    let message = e2e::Message {
        poll_update_message: Some(Box::new(e2e::PollUpdateMessage {
            poll_creation_message_key: poll_key,
            vote: Some(Box::new(e2e::PollEncValue {
                enc_payload: Some(Bytes::from_static(&[1, 2])),
                enc_iv: Some(Bytes::from_static(&[0; 12])),
            })),
            sender_timestamp_ms: Some(1_716_894_200_123),
            ..Default::default()
        })),
        ..Default::default()
    };
    check(
        &message,
        r#"{"pollUpdateMessage":{"pollCreationMessageKey":{"remoteJid":"g@g.us","fromMe":false,"id":"A","participant":"1@lid"},"vote":{"encPayload":"AQI=","encIv":"AAAAAAAAAAAAAAAA"},"senderTimestampMs":"1716894200123"}}"#,
    );
}

#[test]
fn button_response() {
    let message = e2e::Message {
        buttons_response_message: Some(Box::new(e2e::ButtonsResponseMessage {
            selected_button_id: Some("yes".into()),
            r#type: Some(1),
            response: Some(e2e::buttons_response_message::Response::SelectedDisplayText("Yes".into())),
            ..Default::default()
        })),
        ..Default::default()
    };
    check(
        &message,
        r#"{"buttonsResponseMessage":{"selectedButtonId":"yes","selectedDisplayText":"Yes","type":"DISPLAY_TEXT"}}"#,
    );
}

#[test]
fn defaults_that_were_set_are_printed() {
    let message = e2e::Message {
        audio_message: Some(Box::new(e2e::AudioMessage {
            seconds: Some(0),
            ptt: Some(false),
            media_key: Some(Bytes::new()),
            waveform: Some(Bytes::from_static(&[0x00, 0x63])),
            ..Default::default()
        })),
        ..Default::default()
    };
    check(&message, r#"{"audioMessage":{"seconds":0,"ptt":false,"mediaKey":"","waveform":"AGM="}}"#);
}

#[test]
fn bytes_and_lengths_of_an_image() {
    let message = e2e::Message {
        image_message: Some(Box::new(e2e::ImageMessage {
            file_sha256: Some(Bytes::from_static(&[0xfb, 0xff, 0x00])),
            file_length: Some(12_345),
            media_key: Some(Bytes::from_static(&[1; 32])),
            ..Default::default()
        })),
        ..Default::default()
    };
    check(
        &message,
        r#"{"imageMessage":{"fileSha256":"+/8A","fileLength":"12345","mediaKey":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}}"#,
    );
}

#[test]
fn unknown_enum_number() {
    let message = e2e::Message {
        protocol_message: Some(Box::new(e2e::ProtocolMessage { r#type: Some(99), ..Default::default() })),
        ..Default::default()
    };
    check(&message, r#"{"protocolMessage":{"type":99}}"#);
}

#[test]
fn secrets_are_stripped_unless_asked_for() {
    let message = e2e::Message {
        message_context_info: Some(Box::new(e2e::MessageContextInfo {
            message_secret: Some(Bytes::from_static(&[7; 3])),
            message_add_on_duration_in_secs: Some(4),
            ..Default::default()
        })),
        ..Default::default()
    };
    check(&message, r#"{"messageContextInfo":{"messageAddOnDurationInSecs":4}}"#);
    let with = json::to_json_message(&message, &EVERYTHING).unwrap();
    assert_eq!(
        json::to_string(&with),
        r#"{"messageContextInfo":{"messageSecret":"BwcH","messageAddOnDurationInSecs":4}}"#
    );
    let without =
        json::to_json_message(&message, &Options { strip: &["messageContextInfo"], ..Options::default() }).unwrap();
    assert_eq!(json::to_string(&without), "{}");
}

/// Every message type with every field set, as protobuf.js encodes and prints it (`vectors/protobufjs.mjs`).
#[test]
fn every_field_prints_as_in_protobuf_js() {
    let file: Value = serde_json::from_str(include_str!("vectors/protobufjs.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() > 500);
    for case in cases {
        let name = case["type"].as_str().unwrap();
        let ty = MessageType::by_name(name).unwrap();
        let wire = hex::decode(case["wire"].as_str().unwrap()).unwrap();
        let value = json::to_json(ty, &wire, &EVERYTHING).unwrap();
        assert_eq!(json::to_string(&value), case["json"].as_str().unwrap(), "{name}");
    }
}
