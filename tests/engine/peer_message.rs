//! What our own devices say to each other counts from them alone, and what only the phone may say from the phone alone; what they
//! share is checked before it is kept (spec 03 §5.2, §5.5; spec 05 §A2.3).

use crate::puppet::{self, Puppet, online, stanza, text};
use crate::world::World;
use bytes::Bytes;
use wamd::{
    Jid,
    engine::Command,
    node::Node,
    proto::{
        Message as _,
        e2e::{
            self, AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyId, AppStateSyncKeyShare, ProtocolMessage,
            protocol_message::Type,
        },
        lid_migration::{LidMigrationMapping, LidMigrationMappingSyncPayload},
    },
    store::RecordKind,
};

const STRANGER: &str = "77777777777777";

/// Alice; her phone, another companion of hers, and the phone of a stranger.
fn cast() -> (World, [Puppet; 3]) {
    let (mut world, upload) = online(&["alice"]);
    let own = world.lid("alice");
    let cast = [own.clone(), own.with_device(7), Jid::lid(STRANGER)];
    let mut number = 0;
    let cast = cast.map(|jid| {
        number += 1;
        Puppet::new(&jid, &upload, number)
    });
    world.forget();
    (world, cast)
}

fn protocol(protocol: ProtocolMessage) -> e2e::Message {
    e2e::Message { protocol_message: Some(Box::new(protocol)), ..e2e::Message::default() }
}

/// A share of keys: id, and the key, if the sender has it.
fn share(keys: &[(&[u8], Option<&[u8]>)]) -> e2e::Message {
    let key = |(id, data): &(&[u8], Option<&[u8]>)| AppStateSyncKey {
        key_id: Some(Box::new(AppStateSyncKeyId { key_id: Some(Bytes::copy_from_slice(id)) })),
        key_data: data.map(|data| {
            let key_data = Some(Bytes::copy_from_slice(data));
            Box::new(AppStateSyncKeyData { key_data, ..AppStateSyncKeyData::default() })
        }),
    };
    protocol(ProtocolMessage {
        r#type: Some(Type::AppStateSyncKeyShare.into()),
        app_state_sync_key_share: Some(Box::new(AppStateSyncKeyShare { keys: keys.iter().map(key).collect() })),
        ..ProtocolMessage::default()
    })
}

fn mapping(pn: u64, lid: u64) -> e2e::Message {
    let one = LidMigrationMapping { pn: Some(pn), assigned_lid: Some(lid), ..LidMigrationMapping::default() };
    let payload =
        LidMigrationMappingSyncPayload { pn_to_lid_mappings: vec![one], chat_db_migration_timestamp: Some(1) };
    let sync = e2e::LidMigrationMappingSyncMessage { encoded_mapping_payload: Some(payload.encode_to_vec().into()) };
    protocol(ProtocolMessage {
        r#type: Some(Type::LidMigrationMappingSync.into()),
        lid_migration_mapping_sync_message: Some(Box::new(sync)),
        ..ProtocolMessage::default()
    })
}

/// The answers to a peer message: tag and type of each.
fn says(world: &mut World, from: &mut Puppet, id: &str, message: &e2e::Message) -> Vec<(String, Option<String>)> {
    world.heard("alice");
    let sealed = from.tell(message);
    world.stanza_arrives("alice", &stanza(&from.jid, id).attr("category", "peer").child(sealed));
    let answers = world.heard("alice").into_iter().filter(|node| node.attr_str("id").as_deref() == Some(id));
    answers
        .map(|node| {
            assert_eq!(node.attr_jid("to"), Some(from.jid.clone()));
            assert!(node.get_attr("recipient").is_none());
            (node.tag().to_owned(), node.attr_str("type").map(|kind| kind.into_owned()))
        })
        .collect()
}

/// The keys of app state that alice has, by id.
fn keys(world: &mut World) -> Vec<(Vec<u8>, Vec<u8>)> {
    let records = world.actor("alice").records(RecordKind::AppStateKey);
    let data = |value: &Bytes| AppStateSyncKeyData::decode(&value[..]).unwrap().key_data.unwrap_or_default().to_vec();
    records.iter().map(|(key, value)| (key.id.to_vec(), data(value))).collect()
}

fn new_keys(world: &mut World, before: &[(Vec<u8>, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    keys(world).into_iter().filter(|key| !before.contains(key)).collect()
}

#[test]
fn a_key_that_is_known_stays_and_one_that_is_none_is_not_kept() {
    let (mut world, [mut phone, mut companion, _]) = cast();
    let before = keys(&mut world);
    let peer_msg = [("receipt".to_owned(), Some("peer_msg".to_owned()))];
    let good: &[(&[u8], Option<&[u8]>)] = &[
        (b"good", Some(&[1; 32])),
        // The same id again, in the same share.
        (b"good", Some(&[2; 32])),
        (b"short", Some(&[1; 31])),
        (b"long", Some(&[1; 33])),
        (b"empty", Some(&[])),
        (b"absent", None),
        (b"", Some(&[1; 32])),
        (&[7; 65], Some(&[1; 32])),
        (&[7; 64], Some(&[3; 32])),
    ];
    assert_eq!(says(&mut world, &mut phone, "A", &share(good)), peer_msg);
    let mut kept = vec![(b"good".to_vec(), vec![1; 32]), (vec![7; 64], vec![3; 32])];
    kept.sort();
    let sorted = |mut keys: Vec<_>| {
        keys.sort();
        keys
    };
    assert_eq!(sorted(new_keys(&mut world, &before)), kept);
    // Neither the phone nor another device takes one away, also when it has to be read from the store first.
    for again in [false, true] {
        if again {
            world.crash_and_start("alice");
            world.command("alice", Command::Connect).unwrap();
        }
        for (sender, id) in [(&mut phone, "B"), (&mut companion, "C")] {
            let id = format!("{id}{again}");
            let other = share(&[(b"good", Some(&[9; 32])), (&[7; 64], Some(&[])), (&[7; 64], None)]);
            assert_eq!(says(&mut world, sender, &id, &other), peer_msg);
            assert_eq!(sorted(new_keys(&mut world, &before)), kept);
        }
    }
    // A companion may share what nobody has.
    says(&mut world, &mut companion, "D", &share(&[(b"more", Some(&[4; 32]))]));
    assert_eq!(new_keys(&mut world, &before).len(), 3);
    assert!(world.event_names("alice").iter().all(|name| !name.starts_with("message.")));
}

#[test]
fn nobody_else_is_heard() {
    let (mut world, [_, _, mut stranger]) = cast();
    let before = keys(&mut world);
    let shared = share(&[(b"good", Some(&[1; 32]))]);
    let mut untyped = shared.clone();
    untyped.protocol_message.as_mut().unwrap().r#type = None;
    for (id, message) in [("A", &shared), ("B", &untyped), ("C", &mapping(16_661, 4_242))] {
        let answers = says(&mut world, &mut stranger, id, message);
        assert_eq!(answers, [("receipt".to_owned(), Some("inactive".to_owned()))], "as to anybody's message");
        assert_eq!(world.event_names("alice"), [""; 0]);
    }
    // The word on the stanza alone makes nobody one of us, and takes nothing from a message.
    says(&mut world, &mut stranger, "D", &text("hello"));
    assert_eq!(world.only("alice", "message.received")["messages"][0]["text"], "hello");
    assert_eq!(keys(&mut world), before);
    // In a copy that only own devices send it is no better.
    let copied = wamd::message::build::device_sent(&world.lid("alice"), shared);
    says(&mut world, &mut stranger, "E", &copied);
    assert_eq!(keys(&mut world), before);
}

#[test]
fn the_table_of_identities_comes_from_the_phone_alone() {
    let (mut world, [mut phone, mut companion, _]) = cast();
    let told = |world: &mut World| world.data("alice", "lid_mapping.updated").len();
    says(&mut world, &mut companion, "A", &mapping(16_661, 4_242));
    assert_eq!(told(&mut world), 0);
    says(&mut world, &mut phone, "B", &mapping(16_661, 4_242));
    assert_eq!(told(&mut world), 1);
    // What cannot be read is asked for again as what it is, and the phone is asked for nothing else.
    let broken = puppet::enc("msg", vec![0x33; 80]);
    world.heard("alice");
    world.stanza_arrives("alice", &stanza(&phone.jid, "C").attr("category", "peer").child(broken));
    world.advance_secs(10);
    let heard = world.heard("alice");
    let retries: Vec<&Node> = heard.iter().filter(|node| node.attr_str("type").as_deref() == Some("retry")).collect();
    let retries: Vec<_> = retries.iter().filter(|node| node.is("receipt")).collect();
    assert_eq!(retries.len(), 1);
    assert_eq!(retries[0].attr_str("category").as_deref(), Some("peer"));
    assert!(heard.iter().all(|node| !node.is("message")));
}
