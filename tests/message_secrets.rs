//! Addons are encrypted and read as by other implementations: `vectors/msgsecret.json` and the values of spec 06 §4.6.
//!
//! Votes, event responses, reactions, comments, edits, replies of bots; and which JIDs are tried.

use std::{convert::Infallible, time::Duration};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use wamd::{
    crypto::Secret,
    jid::Jid,
    message::{
        self, MessageError,
        secret::{
            self, Person, Spelling, Target, UseCase,
            addon::{Addon, AddonContent, MAX_OPTIONS, carrier},
            bot::{self, BotReply},
        },
    },
    proto::{
        Message as _,
        common::MessageKey,
        e2e::{
            ContextInfo, ExtendedTextMessage, Message, MessageContextInfo, MessageSecretMessage, PollCreationMessage,
        },
    },
};

const FILE: &str = include_str!("vectors/msgsecret.json");

fn file() -> Value {
    serde_json::from_str(FILE).expect("vector file is JSON")
}

#[test]
fn addons_agree() {
    let file = file();
    let addons = file["addons"].as_array().expect("addons");
    assert_eq!(addons.len(), UseCase::ALL.len());
    for vector in addons {
        let (use_case, case) = (use_case(vector), Case::new(vector));
        let key = secret::derive_key(&case.secret, case.id, &case.author, &case.sender, use_case);
        assert_eq!(hex::encode(key.expose()), text(&vector["key"]), "{use_case:?}");
        let plaintext = bytes(&vector["plaintext"]);
        let mut rng = Script(bytes(&vector["iv"]));
        let sealed = secret::seal(&case.target(), &case.sender, use_case, &plaintext, &mut rng);
        assert_eq!(hex::encode(&sealed.payload), text(&vector["payload_with_tag"]), "{use_case:?}");
        assert_eq!(case.open(vector), Ok(plaintext.clone()), "{use_case:?}");

        // Inside a message and out of it again.
        let target = MessageKey { id: Some(case.id.to_owned()), ..Default::default() };
        let message = carrier(use_case, target.clone(), sealed.clone(), 1_700_000_000_000);
        let message = message::decode(&message.encode_to_vec()).expect("own message");
        let addon = Addon::find(&message).expect("the addon");
        assert_eq!((addon.use_case, addon.target), (use_case, &target));
        assert_eq!((addon.iv, addon.payload), (&sealed.iv[..], &sealed.payload[..]));
        assert_eq!(addon.sent_at_ms.is_some(), use_case == UseCase::PollVote);

        // And the plaintext is what the use case says.
        let content = AddonContent::decode(use_case, &plaintext).expect("plaintext");
        assert_eq!(content.encode(), plaintext, "{use_case:?}");
    }
}

#[test]
fn rejects_are_refused() {
    let file = file();
    let rejects = file["reject"].as_array().expect("rejects");
    assert_eq!(rejects.len(), 12);
    for vector in rejects {
        assert_eq!(Case::new(vector).open(vector), Err(MessageError::AddonAuthentication), "{}", vector["note"]);
    }
}

/// The sender may have used either family for either person. Whatever it used, and whatever is tried first, it is found.
#[test]
fn every_spelling_is_found() {
    let [author, author_pn] = ["1:3@lid", "491511@s.whatsapp.net"].map(jid);
    let [sender, sender_pn] = ["2@lid", "491512:7@s.whatsapp.net"].map(jid);
    let (secret_of_target, mut rng) = (Secret::new([7; 32]), ChaCha20Rng::seed_from_u64(1));
    let target = |author| Target { secret: &secret_of_target, id: "3EB0", author };
    let known = target(Person::with_alternate(&author, &author_pn));
    let person = Person::with_alternate(&sender, &sender_pn);
    for used in Spelling::ALL {
        let (by, from) =
            (if used.author { &author_pn } else { &author }, if used.sender { &sender_pn } else { &sender });
        let sealed = secret::seal(&target(Person::new(by)), from, UseCase::PollVote, b"vote", &mut rng);
        for hint in Spelling::ALL {
            let open =
                |target, person| secret::open(target, person, UseCase::PollVote, &sealed.iv, &sealed.payload, hint);
            let found = open(&known, person).expect("one of the four");
            assert_eq!((&found.plaintext[..], found.spelling), (&b"vote"[..], used));
            // Without alternates only one is left.
            let found = open(&target(Person::new(&author)), Person::new(&sender));
            assert_eq!(found.is_ok(), used == Spelling::default(), "{used:?}");
        }
        let other = secret::open(&known, person, UseCase::EventResponse, &sealed.iv, &sealed.payload, used);
        assert_eq!(other, Err(MessageError::AddonAuthentication), "another use case");
    }
}

#[test]
fn lengths_are_checked() {
    let (secret_of_target, author) = (Secret::new([7; 32]), jid("1@lid"));
    let target = Target { secret: &secret_of_target, id: "3EB0", author: Person::new(&author) };
    let open = |iv: &[u8], payload: &[u8]| {
        secret::open(&target, Person::new(&author), UseCase::Comment, iv, payload, Spelling::default())
    };
    assert_eq!(open(&[0; 11], &[0; 32]), Err(MessageError::AddonIv { len: 11 }));
    assert_eq!(open(&[0; 12], &[]), Err(MessageError::AddonAuthentication));
    let (len, max) = (message::MAX_PAYLOAD + 1, message::MAX_PAYLOAD);
    assert_eq!(open(&[0; 12], &vec![0; len]), Err(MessageError::TooLong { len, max }));
}

#[test]
fn plaintexts_are_checked() {
    let vote = |hashes: &[&[u8]]| {
        let tagged = hashes.iter().map(|hash| [&[0x0A, hash.len() as u8], *hash].concat());
        AddonContent::decode(UseCase::PollVote, &tagged.collect::<Vec<_>>().concat())
    };
    assert_eq!(vote(&[]), Ok(AddonContent::Vote(Vec::new())), "a vote taken back");
    assert_eq!(vote(&[&[1; 32], &[2; 32]]), Ok(AddonContent::Vote(vec![[1; 32], [2; 32]])));
    assert_eq!(vote(&[&[1; 32], &[2; 31]]), Err(MessageError::Malformed));
    let many = vec![&[1; 32][..]; MAX_OPTIONS + 1];
    assert_eq!(vote(&many), Err(MessageError::TooLong { len: MAX_OPTIONS + 1, max: MAX_OPTIONS }));
    assert!(vote(&many[1..]).is_ok());
    for use_case in UseCase::ALL {
        assert_eq!(AddonContent::decode(use_case, &[0x0A]), Err(MessageError::Malformed), "{use_case:?}");
    }
}

#[test]
fn what_nobody_can_read_is_no_addon() {
    let sealed = secret::Sealed { iv: [1; 12], payload: vec![2; 20] };
    let message = carrier(UseCase::MessageEdit, MessageKey::default(), sealed, 0);
    let change = |change: fn(&mut wamd::proto::e2e::SecretEncryptedMessage)| {
        let mut message = message.clone();
        change(message.secret_encrypted_message.as_mut().expect("carrier"));
        Addon::find(&message).is_some()
    };
    assert!(change(|_| {}));
    assert!(!change(|inner| inner.secret_enc_type = Some(3)), "a schedule");
    assert!(!change(|inner| inner.secret_enc_type = Some(77)));
    assert!(!change(|inner| inner.secret_enc_type = None));
    assert!(!change(|inner| inner.remote_key_id = Some("k".into())), "a key of the server");
    assert!(!change(|inner| inner.target_message_key = None));
    assert!(!change(|inner| inner.enc_iv = None));
    assert!(!change(|inner| inner.enc_payload = None));
    assert!(Addon::find(&Message::default()).is_none());
}

#[test]
fn bot_replies_agree() {
    let file = file();
    let vector = &file["bot_message"];
    let (user, bot_jid) = (jid(text(&vector["target_sender"])), jid(text(&vector["bot"])));
    let k1 = bot::bot_secret(&secret_of(vector));
    assert_eq!(hex::encode(k1.expose()), text(&vector["bot_message_secret"]));
    let id = text(&vector["response_id"]);
    let key = bot::derive_key(&k1, id, &user, &bot_jid);
    assert_eq!(hex::encode(key.expose()), text(&vector["key"]));
    let (plaintext, content) = (bytes(&vector["plaintext"]), bytes(&vector["message_secret_message"]));
    let made = bot::seal_reply(&k1, id, &user, &bot_jid, &plaintext, &mut Script(bytes(&vector["iv"])));
    assert_eq!(hex::encode(made), hex::encode(&content));

    let number = jid("49151@s.whatsapp.net");
    let reply = BotReply {
        secret: &k1,
        user: Person::new(&user),
        bot: &bot_jid,
        stanza_id: id,
        edit_target_id: None,
        is_edit: false,
    };
    // The id may be that of the stanza or of the first piece, whatever the stanza says, and the user known by either JID.
    let either = Person::with_alternate(&number, &user);
    for (stanza_id, edit_target_id, is_edit) in
        [(id, None, false), ("other", Some(id), true), (id, Some("other"), true), ("other", Some(id), false)]
    {
        for user in [Person::new(&user), either] {
            let reply = BotReply { stanza_id, edit_target_id, is_edit, user, ..reply };
            assert_eq!(bot::open_reply(&reply, &content).as_ref(), Ok(&plaintext));
        }
        let unknown = BotReply { stanza_id, edit_target_id, is_edit, user: Person::new(&number), ..reply };
        assert_eq!(bot::open_reply(&unknown, &content), Err(MessageError::AddonAuthentication));
    }
    let unknown = BotReply { stanza_id: "other", ..reply };
    assert_eq!(bot::open_reply(&unknown, &content), Err(MessageError::AddonAuthentication));
    assert_eq!(bot::open_reply(&reply, &[0x0A]), Err(MessageError::Malformed));
    assert_eq!(bot::open_reply(&reply, &[]), Err(MessageError::AddonIv { len: 0 }));
    let mut damaged = MessageSecretMessage::decode(&content[..]).expect("content");
    damaged.enc_payload = Some(vec![0; 30].into());
    assert_eq!(bot::open_reply(&reply, &damaged.encode_to_vec()), Err(MessageError::AddonAuthentication));
}

#[test]
fn option_hashes_agree() {
    let file = file();
    let options = file["poll_option_hashes"].as_array().expect("options");
    for option in options {
        assert_eq!(hex::encode(secret::option_hash(text(&option["option"]))), text(&option["sha256"]));
    }
    assert_eq!(options.len(), 3);
}

/// Spec 06 §4.6: computed with an independent implementation.
#[test]
fn values_of_the_specification_agree() {
    let (s, author, sender) = (Secret::new([0x42; 32]), jid("111111111111@lid"), jid("222222222222@lid"));
    let id = "3EB0A1B2C3D4E5F60718";
    let check = |use_case, expected| {
        let key = secret::derive_key(&s, id, &author, &sender, use_case);
        assert_eq!(hex::encode(key.expose()), expected, "{use_case:?}");
    };
    check(UseCase::PollVote, "6610fb2f3b3b1a7d85724231ba960d976ac7b73f1d289eff835b8ff609eeb21f");
    check(UseCase::EventResponse, "d0316988b2f25537229ae670a6311159d0da0eab9d3231f9c08795e2eabed9d6");
    check(UseCase::Reaction, "41de3df9d6044607b964a9a0a131db3c86f4dcbf3bbe282a38939fe046628c20");
    check(UseCase::Comment, "73f6ade3d075cc78d44c3158245da65ab332ec9e1a92eede1b3fd219ea01e8f6");
    check(UseCase::EventEdit, "3aca60531aac57732244d487e594aa9da11e0e84c2bf47ae4aed7ce068032f52");
    check(UseCase::PollEdit, "a9fce7356a31c2c561385a380eaeebe0fd5cc884898b4c82c2a3a47f9b1ffab0");
    check(UseCase::PollAddOption, "5ef3c28bc722e1d9df9011e43af76d15067b2db0253197cd80307c79a81b61fc");
    check(UseCase::MessageEdit, "f0705f69d42871602af89a184b17d2e58016d3fdc4db288e84216c18661acd02");

    let target = Target { secret: &s, id, author: Person::new(&author) };
    let check = |use_case, content: &AddonContent, expected| {
        let mut rng = Script(hex::decode("000102030405060708090a0b").expect("hex"));
        let sealed = secret::seal(&target, &sender, use_case, &content.encode(), &mut rng);
        assert_eq!(hex::encode(sealed.payload), expected, "{use_case:?}");
    };
    let vote = AddonContent::Vote(vec![secret::option_hash("Yes")]);
    check(
        UseCase::PollVote,
        &vote,
        "c784632afd924d98c3236ec141e2bd19246740469cd2e6ca989ec93f0b29d31f9205909a3389496b1212fe8ee8f64938d025",
    );
    let going = AddonContent::decode(UseCase::EventResponse, &hex::decode("080110bbe2f9f6fb31").expect("hex"));
    check(UseCase::EventResponse, &going.expect("response"), "ba516b4eed4f286c1711bb238d9589293d96b357a6ab3ad340");
    let thumb = AddonContent::decode(UseCase::Reaction, &hex::decode("1204f09f918d20bbe2f9f6fb31").expect("hex"));
    check(UseCase::Reaction, &thumb.expect("reaction"), "9ed43cda8c05dd9b05dc4515c013b19084b5063bfee8bb3d36f4d167a3");

    let k1 = bot::bot_secret(&s);
    assert_eq!(hex::encode(k1.expose()), "50288bc60eb182b627f5b2f28291ae37b29509df331ed20f047036c7533a6031");
    let key = bot::derive_key(&k1, id, &jid("333333333333@lid"), &jid("867051314767696@bot"));
    assert_eq!(hex::encode(key.expose()), "b3d419e61616ce010151247ab364b4ab20a372ebb4555639da9e2f1ccceb524f");
}

#[test]
fn secrets_are_kept_as_long_as_they_are_asked_for() {
    const DAY: u64 = 86_400;
    let context = |secret: usize| {
        Some(Box::new(MessageContextInfo { message_secret: Some(vec![7; secret].into()), ..Default::default() }))
    };
    let days = |message: &Message| {
        let kept = secret::retention(&message::normalise(message));
        kept.map(|kept: Duration| kept.as_secs() / DAY)
    };
    let text = Message { conversation: Some("hi".into()), message_context_info: context(32), ..Default::default() };
    assert_eq!(days(&text), Some(30));
    assert_eq!(days(&Message { message_context_info: context(31), ..text.clone() }), None);
    assert_eq!(days(&Message { message_context_info: None, ..text }), None);
    let poll = PollCreationMessage { name: Some("?".into()), ..Default::default() };
    let poll = Message {
        poll_creation_message: Some(Box::new(poll)),
        message_context_info: context(32),
        ..Default::default()
    };
    assert_eq!(days(&poll), Some(90));
    let forwarded = ContextInfo { is_forwarded: Some(true), ..Default::default() };
    let forwarded =
        ExtendedTextMessage { text: Some("hi".into()), context_info: Some(Box::new(forwarded)), ..Default::default() };
    let forwarded = Message {
        extended_text_message: Some(Box::new(forwarded)),
        message_context_info: context(32),
        ..Default::default()
    };
    assert_eq!(days(&forwarded), None);
}

#[test]
fn nothing_prints_plaintexts_or_secrets() {
    let (secret_of_target, author) = (Secret::new([7; 32]), jid("491511@s.whatsapp.net"));
    let target = Target { secret: &secret_of_target, id: "3EB0", author: Person::new(&author) };
    let opened = secret::Opened { plaintext: b"hello".to_vec(), spelling: Spelling::default() };
    let printed = format!("{target:?} {opened:?}");
    assert!(printed.contains("[5 bytes]") && !printed.contains("104, 101"));
    assert!(!printed.contains("491511") && !printed.contains("3EB0"));
}

/// The parts of a vector.
struct Case<'a> {
    secret: Secret<32>,
    id: &'a str,
    author: Jid,
    sender: Jid,
}

impl<'a> Case<'a> {
    fn new(vector: &'a Value) -> Self {
        Self {
            secret: secret_of(vector),
            id: text(&vector["target_message_id"]),
            author: jid(text(&vector["original_sender"])),
            sender: jid(text(&vector["modification_sender"])),
        }
    }

    fn target(&self) -> Target<'_> {
        Target { secret: &self.secret, id: self.id, author: Person::new(&self.author) }
    }

    fn open(&self, vector: &Value) -> Result<Vec<u8>, MessageError> {
        let (iv, payload) = (bytes(&vector["iv"]), bytes(&vector["payload_with_tag"]));
        let sender = Person::new(&self.sender);
        secret::open(&self.target(), sender, use_case(vector), &iv, &payload, Spelling::default())
            .map(|opened| opened.plaintext)
    }
}

fn use_case(vector: &Value) -> UseCase {
    let name = text(&vector["use_case"]);
    UseCase::ALL.into_iter().find(|use_case| use_case.as_str() == name).expect("a known use case")
}

fn secret_of(vector: &Value) -> Secret<32> {
    Secret::from_slice(&bytes(&vector["message_secret"])).expect("32 bytes")
}

fn jid(text: &str) -> Jid {
    text.parse().expect("JID")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).expect("hex")
}

/// Gives out the bytes of a vector, all at once.
struct Script(Vec<u8>);

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("an IV is filled")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("an IV is filled")
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.copy_from_slice(&self.0);
        Ok(())
    }
}

impl TryCryptoRng for Script {}
