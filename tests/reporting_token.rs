//! Reporting tokens are made as by other implementations: `vectors/reporting_token.json` and the values of spec 06 §1.8, §4.6.

use proptest::{collection::vec, prelude::*};
use serde_json::Value;
use wamd::{
    crypto::Secret,
    jid::Jid,
    message::reporting::{self, takes_token},
    proto::e2e::{
        EncEventResponseMessage, EncReactionMessage, KeepInChatMessage, Message, PollUpdateMessage, ReactionMessage,
    },
};

const FILE: &str = include_str!("vectors/reporting_token.json");

#[test]
fn contents_and_tokens_agree() {
    let file: Value = serde_json::from_str(FILE).expect("vector file is JSON");
    let secret = Secret::from_slice(&bytes(&file["message_secret"])).expect("32 bytes");
    let (id, sender, remote) = (text(&file["message_id"]), jid(&file["sender"]), jid(&file["remote"]));
    let key = reporting::derive_key(&secret, id, &sender, &remote);
    assert_eq!(hex::encode(key.expose()), text(&file["key"]));

    let vectors = file["vectors"].as_array().expect("vectors");
    for vector in vectors {
        let (name, message) = (text(&vector["name"]), bytes(&vector["message"]));
        let content = reporting::content(&message);
        assert_eq!(hex::encode(content.clone().unwrap_or_default()), text(&vector["content"]), "{name}");
        assert_eq!(content.is_none(), vector["token"].is_null(), "{name}");
        // The devices of the JIDs do not count.
        for (sender, remote) in [(sender.clone(), remote.clone()), (sender.with_device(3), remote.with_device(4))] {
            let token = reporting::token(&secret, id, &sender, &remote, &message);
            assert_eq!(token.map(hex::encode).as_deref(), vector["token"].as_str(), "{name}");
        }
    }
    assert_eq!(vectors.len(), 12);
}

/// Spec 06 §4.6; the key equals the golden value of another implementation.
#[test]
fn values_of_the_specification_agree() {
    let (secret, id) = (Secret::new([0x42; 32]), "3EB0E0E5F2D4F618589C0B");
    let [sender, remote] = ["5511999887766", "5511888776655"].map(Jid::pn);
    let key = reporting::derive_key(&secret, id, &sender, &remote);
    assert_eq!(hex::encode(key.expose()), "ba50b22be5cc25717d32b7d277dae1bc9fa8ad122cddb0ec4fbc872452a5e08c");
    let check = |message: &str, expected| {
        let message = hex::decode(message).expect("hex");
        let token = reporting::token(&secret, id, &sender, &remote, &message).expect("a token");
        assert_eq!(hex::encode(token), expected);
    };
    check("0a0454657374", "bea163e31e548c2836f4dc9500a62693");
    check("32040a024869", "09184af600df18a115e1d2222284c2b6");
}

#[test]
fn addons_take_no_token() {
    let check = |change: fn(&mut Message), expected| {
        let mut message = Message { conversation: Some("hi".into()), ..Default::default() };
        change(&mut message);
        assert_eq!(takes_token(&message), expected);
    };
    check(|_| {}, true);
    check(|message| message.reaction_message = Some(Box::new(ReactionMessage::default())), false);
    check(|message| message.enc_reaction_message = Some(Box::new(EncReactionMessage::default())), false);
    check(|message| message.poll_update_message = Some(Box::new(PollUpdateMessage::default())), false);
    check(|message| message.enc_event_response_message = Some(Box::new(EncEventResponseMessage::default())), false);
    check(|message| message.keep_in_chat_message = Some(Box::new(KeepInChatMessage::default())), false);
}

/// A tree of fields with numbers that are on the list and others.
fn protobuf() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        Just(1u8),
        Just(2),
        Just(3),
        Just(4),
        Just(5),
        Just(6),
        Just(7),
        Just(8),
        Just(9),
        Just(12),
        Just(14),
        Just(15)
    ];
    let leaf = vec(any::<u8>(), 0..6);
    let fields = (number, leaf).prop_map(|(number, value)| field(number, &value));
    fields.prop_recursive(6, 64, 5, |inner| {
        (1..16u8, vec(inner, 0..5)).prop_map(|(number, parts)| field(number, &parts.concat()))
    })
}

fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let len = u8::try_from(value.len()).ok().filter(|len| *len < 0x80);
    let len = len.map_or_else(|| vec![(value.len() & 0x7F) as u8 | 0x80, (value.len() >> 7) as u8], |len| vec![len]);
    [&[number << 3 | 2], &len[..], value].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn filtering_again_changes_nothing(fields in vec(protobuf(), 0..8)) {
        let message = fields.concat();
        if let Some(content) = reporting::content(&message) {
            prop_assert!(content.len() <= message.len());
            prop_assert_eq!(reporting::content(&content), Some(content.clone()));
        }
    }

    #[test]
    fn arbitrary_bytes_are_filtered_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        if let Some(content) = reporting::content(&bytes) {
            prop_assert_eq!(reporting::content(&content), Some(content.clone()));
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).expect("hex")
}

fn jid(value: &Value) -> Jid {
    text(value).parse().expect("JID")
}
