//! A message is gone when its author says so, and nobody else (spec 06 §3.20, 07 §5). What own devices alone may say is taken from
//! them alone (spec 03 §5.2, spec 06 §5).

use crate::world::World;
use serde_json::json;
use wamd::{
    Jid,
    engine::{CommandError, Content, MessageRef},
    message::build,
    proto::{
        common::MessageKey,
        e2e::{
            AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyId, AppStateSyncKeyShare, Message,
            PeerDataOperationRequestResponseMessage, ProtocolMessage, protocol_message::Type,
        },
    },
    store::RecordKind,
};

fn known() -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.talk("alice", "bob");
    world.forget();
    world
}

fn key(jid: &Jid, from_me: bool, id: &str) -> MessageKey {
    MessageKey { remote_jid: Some(jid.to_string()), from_me: Some(from_me), id: Some(id.to_owned()), participant: None }
}

fn protocol(protocol: ProtocolMessage) -> Message {
    Message { protocol_message: Some(Box::new(protocol)), ..Default::default() }
}

#[test]
fn by_its_author() {
    let mut world = known();
    let id = world.send("alice", "bob", "a mistake");
    world.forget();
    let delete = world.send_content("alice", "bob", Content::Delete { target: MessageRef::own(id.clone()) });
    assert_ne!(delete, id);
    let (alice, lid) = (world.jid("alice").to_string(), world.lid("alice").to_string());
    assert_eq!(
        world.only("bob", "message.deleted"),
        json!({"messages": [{"key": {"remoteJid": alice, "remoteJidAlt": lid, "fromMe": false,
                "id": id.as_str(), "addressingMode": "pn"},
            "messageTimestamp": world.now().unix_seconds(), "deletedBy": alice, "scope": "everyone", "reason": "author",
            "messageStubType": "REVOKE", "message": null, "phone": "15550000001"}]})
    );
    let heard = world.heard("alice");
    let stanza = heard.iter().find(|node| node.is("message")).expect("it was sent");
    assert_eq!(stanza.attr_str("edit").as_deref(), Some("7"));
    for to in stanza.find_child("participants").expect("participants").child_nodes() {
        let enc = to.find_child("enc").expect("a ciphertext");
        assert_eq!(enc.attr_str("decrypt-fail"), None, "the server drops a revoke that hides");
    }
}

#[test]
fn not_by_somebody_else() {
    let mut world = known();
    let bobs = world.send("bob", "alice", "mine");
    world.forget();
    let error = world.refused("alice", "bob", Content::Delete { target: MessageRef::theirs(bobs.clone()) });
    assert_eq!(error, CommandError::Content("only own messages can be deleted here"));
    world.phone_sends_message("alice", "bob", &build::revoke(key(&world.lid("bob"), false, bobs.as_str())));
    assert_eq!(world.data("bob", "message.deleted").len(), 0);
    assert_eq!(world.data("alice", "message.deleted").len(), 0);
    // Whose it is goes by who sends: an id of the other side's does not make it hers.
    world.phone_sends_message("alice", "bob", &build::revoke(key(&world.lid("bob"), true, bobs.as_str())));
    let told = world.only("bob", "message.deleted");
    assert_eq!(told["messages"][0]["key"]["fromMe"], false);
    assert_eq!(told["messages"][0]["orphan"], true);
}

#[test]
fn what_own_devices_say_is_taken_from_them_alone() {
    let mut world = known();
    let share = |id: u8| {
        let key = AppStateSyncKey {
            key_id: Some(Box::new(AppStateSyncKeyId { key_id: Some(vec![0, id].into()) })),
            key_data: Some(Box::new(AppStateSyncKeyData { key_data: Some(vec![id; 32].into()), ..Default::default() })),
        };
        protocol(ProtocolMessage {
            r#type: Some(Type::AppStateSyncKeyShare as i32),
            app_state_sync_key_share: Some(Box::new(AppStateSyncKeyShare { keys: vec![key] })),
            ..Default::default()
        })
    };
    let before = world.actor("bob").records(RecordKind::AppStateKey).len();
    world.phone_sends_message("alice", "bob", &share(7));
    assert_eq!(world.actor("bob").records(RecordKind::AppStateKey).len(), before, "alice is not bob's phone");
    world.phone_sends_message("bob", "bob", &share(8));
    let keys = world.actor("bob").records(RecordKind::AppStateKey);
    assert_eq!(keys.len(), before + 1);
    assert!(keys.iter().any(|(key, _)| key.id[..] == [0, 8]));
    // Under an innocent type it is still what it is.
    let mut disguised = share(9);
    disguised.protocol_message.as_mut().unwrap().r#type = Some(Type::EphemeralSetting as i32);
    world.phone_sends_message("alice", "bob", &disguised);
    let response = protocol(ProtocolMessage {
        r#type: Some(Type::PeerDataOperationRequestResponseMessage as i32),
        peer_data_operation_request_response_message: Some(Box::<PeerDataOperationRequestResponseMessage>::default()),
        ..Default::default()
    });
    world.phone_sends_message("alice", "bob", &response);
    assert_eq!(world.actor("bob").records(RecordKind::AppStateKey).len(), before + 1);
    assert!(world.event_names("bob").iter().all(|name| !name.starts_with("message.") && !name.starts_with("chats.")));
    world.talk("alice", "bob");
}

#[test]
fn settings_of_the_chat() {
    let mut world = known();
    let timer = protocol(ProtocolMessage {
        r#type: Some(Type::EphemeralSetting as i32),
        ephemeral_expiration: Some(86_400),
        ephemeral_setting_timestamp: Some(1_716_894_200),
        ..Default::default()
    });
    world.phone_sends_message("alice", "bob", &timer);
    let chat = |jid: String, phone: &str| {
        // The phone writes to the number.
        json!({"chats": [{"id": format!("{phone}@s.whatsapp.net"), "altId": jid, "phone": phone,
            "ephemeralExpiration": 86_400, "ephemeralSettingTimestamp": 1_716_894_200}]})
    };
    let alice = world.lid("alice").to_string();
    assert_eq!(world.only("bob", "chats.update"), chat(alice, "15550000001"));
}
