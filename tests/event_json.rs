//! Events have exactly the JSON of spec 07: envelope, message object, session events, and the content vectors of §2.2.

use serde_json::{Value, json};
use wamd::{
    event::{message::Prefer, *},
    jid::{Jid, Server},
    proto::{
        Bytes, Message as _,
        common::MessageKey as ProtoKey,
        e2e::{self, Message},
        json::{self as proto_json, Options},
        web::web_message_info::StubType,
    },
};

fn pn() -> Jid {
    Jid::pn("2348012345678")
}

fn lid() -> Jid {
    Jid::lid("111111111111")
}

fn text(text: &str) -> Message {
    Message { conversation: Some(text.into()), ..Default::default() }
}

fn received() -> MessageObject {
    let mut key = MessageKey::new(pn().with_device(4), false, "3EB0A1B2C3D4E5F60718");
    key.remote_jid_alt = Some(lid());
    key.addressing_mode = Some(AddressingMode::Lid);
    let mut message = MessageObject::new(key).with_phones();
    message.message_timestamp = Some(1_716_894_200);
    message.push_name = Some("Ada".into());
    message.broadcast = Some(false);
    message.kind = Some("text");
    message.text = Some("Hello!".into());
    message.with_message(&text("Hello!"), &Options::default()).expect("small")
}

fn own_key(id: &str) -> MessageKey {
    MessageKey::new(pn(), true, id)
}

#[expect(clippy::needless_pass_by_value, reason = "expected values are written in place")]
fn check(event: impl Into<Event>, name: &str, data: Value) {
    let event = event.into();
    assert_eq!(event.name(), name);
    assert_eq!(event.data(), data, "{name}");
}

#[test]
fn received_messages() {
    check(
        MessageReceived::new(vec![received()]),
        "message.received",
        json!({"messages":[{"key":{"remoteJid":"2348012345678@s.whatsapp.net","remoteJidAlt":"111111111111@lid","fromMe":false,"id":"3EB0A1B2C3D4E5F60718","addressingMode":"lid"},
            "messageTimestamp":1716894200,"pushName":"Ada","broadcast":false,"phone":"2348012345678","kind":"text","text":"Hello!","message":{"conversation":"Hello!"}}]}),
    );
}

#[test]
fn every_member_of_the_message_object() {
    let group = Jid::new("1203630", Server::Group);
    let mut key = MessageKey::new(group, false, "A");
    key.remote_jid_username = Some("team".into());
    key.participant = Some(lid().with_device(7));
    key.participant_alt = Some(pn());
    key.participant_username = Some("ada".into());
    key.addressing_mode = Some(AddressingMode::Pn);
    key.server_id = Some("123".into());
    let mut message = MessageObject::new(key).with_phones();
    message.status = Some(MessageStatus::Pending);
    message.verified_biz_name = Some("Shop".into());
    message.category = Some("peer".into());
    message.message_stub_type = Some(StubType::Ciphertext);
    message.message_stub_parameters = vec!["reason".into()];
    message.reply = Some(Reply::new(Some("yes".into()), Some("Yes".into())));
    message.view_once = true;
    message.unavailable = true;
    message.ephemeral = Some(86_400);
    message.edited = true;
    message.source = Some(Source::PhoneResend);
    message.first = true;
    message.implied = true;
    message.client_ref = Some("ref".into());
    check(
        MessageReceived::new(vec![message]),
        "message.received",
        json!({"messages":[{"key":{"remoteJid":"1203630@g.us","remoteJidUsername":"team","fromMe":false,"id":"A","participant":"111111111111@lid",
                "participantAlt":"2348012345678@s.whatsapp.net","participantUsername":"ada","addressingMode":"pn","server_id":"123"},
            "status":"PENDING","verifiedBizName":"Shop","category":"peer","messageStubType":"CIPHERTEXT","messageStubParameters":["reason"],
            "authorPhone":"2348012345678","reply":{"selectedId":"yes","selectedText":"Yes"},"viewOnce":true,"unavailable":true,"ephemeral":86400,"edited":true,
            "source":"phone_resend","first":true,"implied":true,"clientRef":"ref"}]}),
    );
}

#[test]
fn sent_and_failed_messages() {
    let mut message = MessageObject::new(own_key("3EB07864B52AB1708E9182"));
    message.message_timestamp = Some(1_716_894_201);
    message.status = Some(MessageStatus::ServerAck);
    message.kind = Some("text");
    message.client_ref = Some("ref-1".into());
    let message = message.with_wire(&text("Hi").encode_to_vec(), &Options::default()).expect("small");
    check(
        MessageSent::new(vec![message]),
        "message.sent",
        json!({"messages":[{"key":{"remoteJid":"2348012345678@s.whatsapp.net","fromMe":true,"id":"3EB07864B52AB1708E9182"},"messageTimestamp":1716894201,"status":"SERVER_ACK","kind":"text","message":{"conversation":"Hi"},"clientRef":"ref-1"}]}),
    );
    let failed = |error| MessageFailed::new(vec![MessageObject::with_error(own_key("A"), error)]);
    let data = |error: Value| json!({"messages":[{"key":{"remoteJid":"2348012345678@s.whatsapp.net","fromMe":true,"id":"A"},"status":"ERROR","error":error}]});
    let refused = SendError::Refused { code: 463, text: Some("reach-out restricted".into()) };
    check(failed(refused), "message.failed", data(json!({"code":463,"text":"reach-out restricted"})));
    check(failed(SendError::Timeout), "message.failed", data(json!({"code":"timeout","outcome":"unknown"})));
    let local = SendError::Local { code: "no_devices", text: None };
    check(failed(local), "message.failed", data(json!({"code":"no_devices"})));
}

#[test]
fn receipts() {
    let mut key = own_key("A");
    key.participant = Some(pn());
    let object =
        |kind, timestamp| MessageObject::with_receipt(key.clone(), Receipt::new(pn().with_device(2), kind, timestamp));
    let data = |status: &str, member: &str, timestamp: u64| {
        json!({"messages":[{"key":{"remoteJid":"2348012345678@s.whatsapp.net","fromMe":true,"id":"A","participant":"2348012345678@s.whatsapp.net"},
            "status":status,"receipt":{"userJid":"2348012345678@s.whatsapp.net",member:timestamp}}]})
    };
    check(
        MessageDelivered::new(vec![object(ReceiptKind::Delivered, 1_716_894_203)]),
        "message.delivered",
        data("DELIVERY_ACK", "receiptTimestamp", 1_716_894_203),
    );
    check(
        MessageRead::new(vec![object(ReceiptKind::Read, 1_716_894_210)]),
        "message.read",
        data("READ", "readTimestamp", 1_716_894_210),
    );
    check(
        MessageRead::new(vec![object(ReceiptKind::Played, 1_716_894_211)]),
        "message.read",
        data("PLAYED", "playedTimestamp", 1_716_894_211),
    );
}

#[test]
fn undecryptable_messages() {
    check(
        MessageUndecryptable::new(MessageKey::new(lid(), false, "A"), "no_session".into(), true, false),
        "message.undecryptable",
        json!({"key":{"remoteJid":"111111111111@lid","fromMe":false,"id":"A"},"reason":"no_session","willRetry":true,"hidden":false}),
    );
}

#[test]
fn session_events() {
    let mut connected = SessionConnected::new(pn().with_device(12));
    connected.lid = Some(Jid::lid("1111"));
    connected.push_name = Some("Ada".into());
    connected.platform = Some("android".into());
    check(
        connected,
        "session.connected",
        json!({"phone":"2348012345678","jid":"2348012345678:12@s.whatsapp.net","lid":"1111@lid","pushName":"Ada","platform":"android","isNewLogin":false,"businessName":null}),
    );
    check(
        SessionDisconnected::new(DisconnectReason::ConnectionLost).with_retry(1, 2_000).with_detail("read"),
        "session.disconnected",
        json!({"reason":"connection_lost","statusCode":428,"permanent":false,"willReconnect":true,"attempt":1,"nextRetryMs":2000,"detail":"read"}),
    );
    check(
        SessionDisconnected::new(DisconnectReason::Replaced),
        "session.disconnected",
        json!({"reason":"replaced","statusCode":440,"permanent":true,"willReconnect":false}),
    );
    check(
        SessionBanned::temporary(Some(101), Some(1_716_980_600_000)),
        "session.banned",
        json!({"kind":"temporary","reason":402,"code":101,"codeText":"too many messages to strangers","expiresAt":1716980600000_u64,"url":null,"message":null}),
    );
    check(
        SessionBanned::locked(),
        "session.banned",
        json!({"kind":"locked","reason":403,"code":null,"codeText":null,"expiresAt":null,"url":null,"message":null}),
    );
    check(
        SessionQrUpdated::new("2@…,…,…,…".into(), 1, 6, 60_000, 1_716_894_260_000),
        "session.qr_updated",
        json!({"qr":"2@…,…,…,…","index":1,"total":6,"expiresInMs":60000,"expiresAt":1716894260000_u64}),
    );
    check(SessionConnecting::new(2), "session.connecting", json!({"attempt":2}));
    check(SessionQrExhausted::new(), "session.qr_exhausted", json!({}));
    check(SessionQrScannedWithoutMultidevice::new(), "session.qr_scanned_without_multidevice", json!({}));
    check(
        SessionPaired::new(pn().with_device(3), None, Some("iphone".into()), None),
        "session.paired",
        json!({"jid":"2348012345678:3@s.whatsapp.net","lid":null,"platform":"iphone","businessName":null}),
    );
    check(SessionPairError::new("hmac-mismatch".into()), "session.pair_error", json!({"error":"hmac-mismatch"}));
    check(
        SessionReconnecting::new(1, 0, DisconnectReason::RestartRequired),
        "session.reconnecting",
        json!({"attempt":1,"delayMs":0,"reason":"restart_required"}),
    );
    check(
        SessionLoggedOut::new(LogoutReason::Requested, false),
        "session.logged_out",
        json!({"reason":"requested","onConnect":false}),
    );
    check(SessionOutdated::new("2.3000.1".into()), "session.outdated", json!({"version":"2.3000.1"}));
    check(SessionClientExpiration::new(5), "session.client_expiration", json!({"expiresAt":5}));
    let attrs = [("location".to_owned(), "frc".to_owned())].into();
    check(
        SessionConnectFailure::new(Some(418), attrs),
        "session.connect_failure",
        json!({"reason":418,"attrs":{"location":"frc"}}),
    );
    check(
        SessionStreamError::new(Some("599".into()), "<stream:error/>".into()),
        "session.stream_error",
        json!({"code":"599","node":"<stream:error/>"}),
    );
    check(SessionKeepaliveLost::new(2, Some(9)), "session.keepalive_lost", json!({"errorCount":2,"lastSuccess":9}));
    let full = "store failed: database or disk is full".to_owned();
    check(
        StoreFailed::new(StoreFault::Backend, full.clone(), true, Some(1_000), 2),
        "store.failed",
        json!({"fault":"backend","detail":full,"willRetry":true,"nextRetryMs":1000,"failures":2}),
    );
    check(
        StoreFailed::new(StoreFault::LeaseLost, "gone".into(), false, None, 1),
        "store.failed",
        json!({"fault":"lease_lost","detail":"gone","willRetry":false,"failures":1}),
    );
    check(StoreRecovered::new(2), "store.recovered", json!({"failures":2}));
    check(SessionKeepaliveRestored::new(2, None), "session.keepalive_restored", json!({"errorCount":2}));
    let mut counts = OfflineCounts::new(5);
    counts.messages = Some(3);
    check(
        SessionOfflineSyncStarted::new(counts),
        "session.offline_sync_started",
        json!({"counts":{"total":5,"messages":3}}),
    );
    check(
        SessionOfflineSyncCompleted::new(OfflineCounts::new(5)),
        "session.offline_sync_completed",
        json!({"counts":{"total":5}}),
    );
}

#[test]
fn account_events() {
    check(
        LidMappingUpdated::new(lid().with_device(1), pn(), MappingSource::Usync),
        "lid_mapping.updated",
        json!({"lid":"111111111111@lid","pn":"2348012345678@s.whatsapp.net","source":"usync"}),
    );
    check(AccountDirty::new("groups".into(), Some(7)), "account.dirty", json!({"type":"groups","timestamp":7}));
    check(IdentityChanged::new(lid(), true), "identity.changed", json!({"jid":"111111111111@lid","implicit":true}));
}

#[test]
fn events_of_linking_by_code_and_with_a_passkey() {
    check(
        SessionPairCode::new("ABCD-1234".into(), 180_000, 1_716_894_380_000),
        "session.pair_code",
        json!({"code":"ABCD-1234","expiresInMs":180000,"expiresAt":1716894380000_u64}),
    );
    check(
        SessionPairCodeRefresh::new(RefreshReason::Unconfirmed, true),
        "session.pair_code_refresh",
        json!({"reason":"unconfirmed","willRefresh":true}),
    );
    check(
        SessionPairCodeError::new(LinkFailure::RateLimited, Some(429), Some(90_000), false),
        "session.pair_code_error",
        json!({"error":"rate_limited","code":429,"retryAfterMs":90000,"codeValid":false}),
    );
    check(
        SessionPairCodeError::new(LinkFailure::WrongRef, None, None, true),
        "session.pair_code_error",
        json!({"error":"wrong_ref","codeValid":true}),
    );
    check(
        SessionPasskeyRequest::new(Some("AAEC".into()), json!({"challenge":"AAEC"}), 300_000, 1_716_894_500_000),
        "session.passkey_request",
        json!({"challenge":"AAEC","options":{"challenge":"AAEC"},"expiresInMs":300000,"expiresAt":1716894500000_u64}),
    );
    check(
        SessionPasskeyConfirmation::new("ABCD-1234".into(), true),
        "session.passkey_confirmation",
        json!({"code":"ABCD-1234","required":true}),
    );
    check(SessionPasskeyError::new(LinkFailure::Timeout, None), "session.passkey_error", json!({"error":"timeout"}));
    check(
        SessionDisconnected::new(DisconnectReason::Stopped).unlinked(),
        "session.disconnected",
        json!({"reason":"stopped","statusCode":428,"permanent":false,"willReconnect":false,"linked":false}),
    );
}

/// A message of a group as events show it to its author and to others.
fn group_key(from_me: bool, id: &str) -> MessageKey {
    let mut key = MessageKey::new(Jid::new("1203630", Server::Group), from_me, id);
    key.participant = Some(lid().with_device(3));
    key.participant_alt = Some(pn());
    key
}

const GROUP: &str = "1203630@g.us";

#[test]
fn what_becomes_of_messages() {
    let shown = json!({"remoteJid":GROUP,"fromMe":false,"id":"A","participant":"111111111111@lid",
        "participantAlt":"2348012345678@s.whatsapp.net"});
    let mut edited = UpdatedMessage::new(group_key(false, "A"), 1_716_894_300, "E");
    edited.edited = true;
    edited.late = true;
    edited.message = Some(json!({"conversation":"new text"}));
    edited.text = Some("new text".into());
    check(
        MessageUpdated::new(vec![edited]),
        "message.updated",
        json!({"messages":[{"key":shown,"messageTimestamp":1716894300,"edited":true,"editId":"E",
            "message":{"conversation":"new text"},"text":"new text","late":true,"authorPhone":"2348012345678"}]}),
    );
    let mut pinned = UpdatedMessage::new(own_key("A"), 1_716_894_300, "P");
    pinned.pin = Some(Pin::new("PIN_FOR_ALL", lid().with_device(2), Some(1_716_980_700_000)));
    pinned.orphan = true;
    let own = json!({"remoteJid":"2348012345678@s.whatsapp.net","fromMe":true,"id":"A"});
    check(
        MessageUpdated::new(vec![pinned]),
        "message.updated",
        json!({"messages":[{"key":own,"messageTimestamp":1716894300,"editId":"P","orphan":true,
            "pin":{"action":"PIN_FOR_ALL","by":"111111111111@lid","expiresAt":1716980700000_u64},"phone":"2348012345678"}]}),
    );
    check(
        MessageDeleted::new(vec![DeletedMessage::new(group_key(false, "A"), 5, lid(), DeleteReason::Admin)]),
        "message.deleted",
        json!({"messages":[{"key":shown,"messageTimestamp":5,"deletedBy":"111111111111@lid","scope":"everyone",
            "reason":"admin","messageStubType":"REVOKE","message":null,"authorPhone":"2348012345678"}]}),
    );
    let reaction = Reaction::new(group_key(false, "R"), "👍".into(), Some(1_716_894_200_123));
    let mut by = shown.clone();
    by["id"] = json!("R");
    check(
        MessageReaction::new(vec![ReactedMessage::new(own_key("A"), reaction, 7)]),
        "message.reaction",
        json!({"messages":[{"key":own,"messageTimestamp":7,"phone":"2348012345678","authorPhone":"2348012345678",
            "reaction":{"key":by,"text":"👍","senderTimestampMs":"1716894200123","removed":false}}]}),
    );
    check(
        MessagePollVote::new(
            group_key(false, "V"),
            own_key("A"),
            lid(),
            Some(pn()),
            vec!["Yes".into()],
            vec!["hash".into()],
            9,
            false,
            vec![PollResult::new("Yes".into(), 1), PollResult::new("No".into(), 0)],
        ),
        "message.poll_vote",
        json!({"key":{"remoteJid":GROUP,"fromMe":false,"id":"V","participant":"111111111111@lid",
            "participantAlt":"2348012345678@s.whatsapp.net"},"pollKey":own,"voter":"111111111111@lid",
            "voterAlt":"2348012345678@s.whatsapp.net","selected":["Yes"],"hashes":["hash"],"senderTimestampMs":9,
            "tally":[{"name":"Yes","votes":1},{"name":"No","votes":0}]}),
    );
    check(
        MessageEventResponse::new(own_key("V"), own_key("A"), pn(), None, EventAnswer::NotGoing, 2, Some(9)),
        "message.event_response",
        json!({"key":{"remoteJid":"2348012345678@s.whatsapp.net","fromMe":true,"id":"V"},"eventKey":own,
            "responder":"2348012345678@s.whatsapp.net","response":"NOT_GOING","extraGuestCount":2,"senderTimestampMs":9}),
    );
    let comment = MessageObject::new(own_key("C")).with_message(&text("Hello!"), &Options::default()).expect("small");
    check(
        MessageComment::new(own_key("A"), comment),
        "message.comment",
        json!({"targetKey":own,"key":{"remoteJid":"2348012345678@s.whatsapp.net","fromMe":true,"id":"C"},
            "message":{"conversation":"Hello!"}}),
    );
    let mut unreadable = MessageUndecryptable::new(own_key("V"), "missing_secret".into(), false, true);
    unreadable.kind = Some("poll_vote");
    unreadable.target_key = Some(own_key("A"));
    check(
        unreadable,
        "message.undecryptable",
        json!({"key":{"remoteJid":"2348012345678@s.whatsapp.net","fromMe":true,"id":"V"},"reason":"missing_secret",
            "willRetry":false,"hidden":true,"kind":"poll_vote","targetKey":own}),
    );
}

#[test]
fn chats_and_restrictions() {
    let mut chat = ChatObject::new(lid(), Some(pn()));
    chat.ephemeral_expiration = Some(86_400);
    check(
        ChatsUpdate::new(vec![chat]),
        "chats.update",
        json!({"chats":[{"id":"111111111111@lid","altId":"2348012345678@s.whatsapp.net","phone":"2348012345678",
            "ephemeralExpiration":86400}]}),
    );
    check(
        GroupMemberTag::new(Jid::new("1203630", Server::Group), lid(), None, None),
        "group.member_tag",
        json!({"groupId":GROUP,"participant":"111111111111@lid","label":null}),
    );
    check(
        AccountRestricted::new(RestrictionKind::ReachOut, true, Some(9), Some("BIZ_QUALITY".into())),
        "account.restricted",
        json!({"type":"reach_out","active":true,"until":9,"enforcement":"BIZ_QUALITY"}),
    );
    check(
        AccountRestricted::new(RestrictionKind::MessageCap, false, None, None),
        "account.restricted",
        json!({"type":"message_cap","active":false}),
    );
    check(
        AccountMessageCap::new(Some(250), Some(200), Some("FIRST_WARNING".into()), None),
        "account.message_cap",
        json!({"total":250,"used":200,"status":"FIRST_WARNING"}),
    );
}

#[test]
fn groups() {
    let id: Jid = "1203630@g.us".parse().unwrap();
    let mut group = GroupObject::new(id.clone());
    check(GroupsUpdate::new(vec![group.clone()]), "groups.update", json!({"groups":[{"id":"1203630@g.us"}]}));

    let mut admin = GroupParticipant::new(lid(), Some(pn()), Some(lid()));
    admin.admin = Some(GroupAdmin::SuperAdmin);
    group.subject = Some("Team".into());
    (group.subject_owner, group.subject_owner_pn, group.subject_time) = (Some(lid()), Some(pn()), Some(1_716_890_000));
    (group.owner, group.owner_pn, group.creation) = (Some(lid()), Some(pn()), Some(1_716_880_000));
    (group.desc, group.desc_id) = (Some("about".into()), Some("AB12".into()));
    (group.desc_owner, group.desc_time) = (Some(lid()), Some(1_716_880_000));
    (group.size, group.addressing_mode) = (Some(3), Some(AddressingMode::Lid));
    (group.announce, group.restrict, group.member_add_mode) = (Some(false), Some(false), Some(true));
    (group.join_approval_mode, group.ephemeral_duration) = (Some(false), Some(0));
    (group.is_community, group.is_community_announce) = (Some(false), Some(false));
    (group.linked_parent, group.invite_code) = (Known::Nothing, Known::Nothing);
    (group.author, group.author_pn) = (Some(lid()), Some(pn()));
    group.participants = Some(vec![admin.clone()]);
    check(
        GroupsUpsert::new(vec![group]),
        "groups.upsert",
        json!({"groups":[{"id":"1203630@g.us","subject":"Team","subjectOwner":"111111111111@lid",
            "subjectOwnerPn":"2348012345678@s.whatsapp.net","subjectTime":1716890000,"creation":1716880000,
            "owner":"111111111111@lid","ownerPn":"2348012345678@s.whatsapp.net","desc":"about","descId":"AB12",
            "descOwner":"111111111111@lid","descTime":1716880000,"size":3,"addressingMode":"lid","announce":false,
            "restrict":false,"memberAddMode":true,"joinApprovalMode":false,"ephemeralDuration":0,"isCommunity":false,
            "isCommunityAnnounce":false,"linkedParent":null,"inviteCode":null,
            "author":"111111111111@lid","authorPn":"2348012345678@s.whatsapp.net",
            "participants":[{"id":"111111111111@lid","phoneNumber":"2348012345678@s.whatsapp.net","lid":"111111111111@lid",
                "phone":"2348012345678","username":null,"admin":"superadmin","label":null}]}]}),
    );
    check(
        GroupParticipantsUpdate::new(
            id.clone(),
            Some(lid()),
            Some(pn()),
            None,
            GroupAction::Add,
            Some("invite".into()),
            None,
            vec![admin],
            false,
            1_716_894_200,
        ),
        "group-participants.update",
        json!({"id":"1203630@g.us","author":"111111111111@lid","authorPn":"2348012345678@s.whatsapp.net","authorUsername":null,
            "action":"add","reason":"invite","participants":[{"id":"111111111111@lid",
                "phoneNumber":"2348012345678@s.whatsapp.net","lid":"111111111111@lid","phone":"2348012345678","username":null,
                "admin":"superadmin","label":null}],"self":false,"timestamp":1716894200}),
    );
    check(
        GroupJoinRequest::new(id.clone(), lid(), Some(pn()), JoinRequestAction::Created, Some("invite_link".into())),
        "group.join_request",
        json!({"id":"1203630@g.us","participant":"111111111111@lid","participantPn":"2348012345678@s.whatsapp.net",
            "action":"created","method":"invite_link"}),
    );
    check(
        CommunityUpdate::new("1@g.us".parse().unwrap(), id, CommunityAction::Link),
        "community.update",
        json!({"parent":"1@g.us","group":"1203630@g.us","action":"link"}),
    );
}

#[test]
fn names_are_the_vocabulary() {
    assert_eq!(
        Event::NAMES.join(" "),
        "session.connecting session.qr_updated session.qr_exhausted session.qr_scanned_without_multidevice \
         session.pair_code session.pair_code_refresh session.pair_code_error session.passkey_request \
         session.passkey_confirmation session.passkey_error session.paired session.pair_error session.connected session.disconnected session.reconnecting session.logged_out session.banned \
         session.outdated session.client_expiration session.connect_failure session.stream_error session.keepalive_lost \
         session.keepalive_restored session.offline_sync_started session.offline_sync_completed message.received message.sent \
         message.failed message.delivered message.read message.undecryptable message.updated message.deleted message.reaction \
         message.poll_vote message.event_response message.comment chats.update group.member_tag lid_mapping.updated account.dirty \
         account.restricted account.message_cap identity.changed \
         groups.upsert groups.update group-participants.update group.join_request community.update store.failed store.recovered"
    );
}

fn proto_key(remote: &str, from_me: bool, id: &str, participant: Option<&str>) -> Option<Box<ProtoKey>> {
    Some(Box::new(ProtoKey {
        remote_jid: Some(remote.into()),
        from_me: Some(from_me),
        id: Some(id.into()),
        participant: participant.map(Into::into),
    }))
}

/// The vectors of spec 07 §2.2, as texts: the order of keys and the form of numbers count.
#[test]
fn content_vectors() {
    use e2e::*;
    let check = |message: Message, expected: &str| {
        let object = MessageObject::new(own_key("A")).with_message(&message, &Options::default()).expect("small");
        assert_eq!(proto_json::to_string(&object.message.expect("content")), expected);
    };
    let protocol =
        |protocol: ProtocolMessage| Message { protocol_message: Some(Box::new(protocol)), ..Default::default() };
    check(
        protocol(ProtocolMessage {
            key: proto_key("a", false, "Z", None),
            r#type: Some(protocol_message::Type::Revoke as i32),
            ..Default::default()
        }),
        r#"{"protocolMessage":{"key":{"remoteJid":"a","fromMe":false,"id":"Z"},"type":"REVOKE"}}"#,
    );
    check(protocol(ProtocolMessage { r#type: Some(99), ..Default::default() }), r#"{"protocolMessage":{"type":99}}"#);
    let reaction = ReactionMessage {
        key: proto_key("a", true, "Z", None),
        text: Some(String::new()),
        sender_timestamp_ms: Some(1_716_894_200_123),
        ..Default::default()
    };
    check(
        Message { reaction_message: Some(Box::new(reaction)), ..Default::default() },
        r#"{"reactionMessage":{"key":{"remoteJid":"a","fromMe":true,"id":"Z"},"text":"","senderTimestampMs":"1716894200123"}}"#,
    );
    let location = LocationMessage {
        degrees_latitude: Some(6.5244),
        degrees_longitude: Some(3.3792),
        name: Some("Lagos".into()),
        ..Default::default()
    };
    check(
        Message { location_message: Some(Box::new(location)), ..Default::default() },
        r#"{"locationMessage":{"degreesLatitude":6.5244,"degreesLongitude":3.3792,"name":"Lagos"}}"#,
    );
    let vote =
        PollEncValue { enc_payload: Some(Bytes::from_static(&[1, 2])), enc_iv: Some(Bytes::from_static(&[0; 12])) };
    let update = PollUpdateMessage {
        poll_creation_message_key: proto_key("g@g.us", false, "A", Some("1@lid")),
        vote: Some(Box::new(vote)),
        sender_timestamp_ms: Some(1_716_894_200_123),
        ..Default::default()
    };
    check(
        Message { poll_update_message: Some(Box::new(update)), ..Default::default() },
        r#"{"pollUpdateMessage":{"pollCreationMessageKey":{"remoteJid":"g@g.us","fromMe":false,"id":"A","participant":"1@lid"},"vote":{"encPayload":"AQI=","encIv":"AAAAAAAAAAAAAAAA"},"senderTimestampMs":"1716894200123"}}"#,
    );
    let buttons = ButtonsResponseMessage {
        selected_button_id: Some("yes".into()),
        response: Some(buttons_response_message::Response::SelectedDisplayText("Yes".into())),
        r#type: Some(1),
        ..Default::default()
    };
    check(
        Message { buttons_response_message: Some(Box::new(buttons)), ..Default::default() },
        r#"{"buttonsResponseMessage":{"selectedButtonId":"yes","selectedDisplayText":"Yes","type":"DISPLAY_TEXT"}}"#,
    );
    let audio = AudioMessage {
        seconds: Some(0),
        ptt: Some(false),
        media_key: Some(Bytes::new()),
        waveform: Some(Bytes::from_static(&[0, 0x63])),
        ..Default::default()
    };
    check(
        Message { audio_message: Some(Box::new(audio)), ..Default::default() },
        r#"{"audioMessage":{"seconds":0,"ptt":false,"mediaKey":"","waveform":"AGM="}}"#,
    );
    let image = ImageMessage {
        file_sha256: Some(Bytes::from_static(&[0xfb, 0xff, 0])),
        file_length: Some(12_345),
        media_key: Some(Bytes::from_static(&[1; 32])),
        ..Default::default()
    };
    check(
        Message { image_message: Some(Box::new(image)), ..Default::default() },
        r#"{"imageMessage":{"fileSha256":"+/8A","fileLength":"12345","mediaKey":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}}"#,
    );
    let context = MessageContextInfo { message_secret: Some(Bytes::from_static(&[9; 32])), ..Default::default() };
    check(
        Message { message_context_info: Some(Box::new(context)), ..text("hi") },
        r#"{"conversation":"hi","messageContextInfo":{}}"#,
    );
}

#[test]
fn content_that_is_no_protobuf_is_refused() {
    let refused = MessageObject::new(own_key("A")).with_wire(&[0x0a, 9], &Options::default());
    assert!(matches!(refused, Err(EventError::Content(_))));
}

#[test]
fn the_envelope_round_trips() {
    let event = Event::from(MessageReceived::new(vec![received()]));
    let id = EventId::of(&event, "f496492d", 0, &[0; 10]);
    let envelope = Envelope::new(&event, "f496492d", id.clone(), 1_716_894_200_000).with_seq(7).with_offline(true);
    let text = envelope.to_json();
    let expected = json!({
        "event": "message.received", "sessionId": "f496492d", "eventId": id.as_str(), "seq": 7,
        "timestamp": 1_716_894_200_000_u64, "offline": true, "data": event.data(),
    });
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), expected);
    let again = Envelope::from_json(text.as_bytes()).expect("envelope");
    assert_eq!(again, envelope);
    assert_eq!(again.to_json(), text, "byte for byte, as the outbox stores it");

    let qr = Event::from(SessionQrUpdated::new("2@a".into(), 1, 6, 60_000, 5));
    assert!(qr.is_ephemeral());
    let envelope = Envelope::new(&qr, "s", EventId::random(1, &[2; 10]), 1);
    assert!(!envelope.to_json().contains("seq"), "ephemeral events have no place in the outbox");
    assert_eq!(Envelope::from_json(envelope.to_json().as_bytes()), Ok(envelope));
    for bad in ["", "{}", "[]", r#"{"event":1}"#] {
        assert!(matches!(Envelope::from_json(bad.as_bytes()), Err(EventError::Malformed { .. })), "{bad}");
    }
}

#[test]
fn ids_of_messages_are_stable_and_distinct() {
    let id = |event: &Event, session: &str, wall_ms| EventId::of(event, session, wall_ms, &[1; 10]);
    let received_event = Event::from(MessageReceived::new(vec![received()]));
    let first = id(&received_event, "a", 1);
    assert_eq!(first.as_str().len(), 26);
    assert_eq!(first, EventId::of(&received_event, "a", 2, &[9; 10]), "time and chance do not matter");

    let mut other_chat = received();
    other_chat.key.remote_jid = lid();
    let mut other_author = received();
    other_author.key.participant = Some(lid());
    let mut other_id = received();
    other_id.key.id = "B".into();
    let mut other_status = received();
    other_status.status = Some(MessageStatus::Read);
    let mut mine = received();
    mine.key.from_me = true;
    let mut ids = vec![
        first.clone(),
        id(&received_event, "b", 1),
        id(&MessageSent::new(vec![received()]).into(), "a", 1),
        id(&MessageUndecryptable::new(received().key, "x".into(), true, true).into(), "a", 1),
    ];
    for message in [other_chat, other_author, other_id, other_status, mine] {
        ids.push(id(&MessageReceived::new(vec![message]).into(), "a", 1));
    }
    for reader in ["1", "2"] {
        let receipt = Receipt::new(Jid::lid(reader), ReceiptKind::Read, 5);
        ids.push(id(&MessageRead::new(vec![MessageObject::with_receipt(own_key("A"), receipt)]).into(), "a", 1));
    }
    // What happens to one message several times is as many events.
    for change in ["1", "2"] {
        ids.push(id(&MessageUpdated::new(vec![UpdatedMessage::new(own_key("A"), 1, change)]).into(), "a", 1));
        let reaction = Reaction::new(group_key(false, change), "👍".into(), None);
        ids.push(id(&MessageReaction::new(vec![ReactedMessage::new(own_key("A"), reaction, 1)]).into(), "a", 1));
        let deleted = DeletedMessage::new(own_key("A"), 1, Jid::lid(change), DeleteReason::Admin);
        ids.push(id(&MessageDeleted::new(vec![deleted]).into(), "a", 1));
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);

    let mut edited = received();
    edited.text = Some("another view of the same message".into());
    edited.push_name = None;
    assert_eq!(id(&MessageReceived::new(vec![edited]).into(), "a", 1), first);
}

#[test]
fn other_ids_are_ulids() {
    let event = Event::from(SessionQrExhausted::new());
    let at = |ms, random| EventId::of(&event, "s", ms, &[random; 10]);
    assert_eq!(at(0, 0).as_str(), "00000000000000000000000000");
    assert_eq!(at(u64::MAX, 0xff).as_str(), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    // The example of the ULID specification: 01ARZ3NDEK is 2016-07-30T23:54:10.259Z.
    assert!(at(1_469_922_850_259, 7).as_str().starts_with("01ARZ3NDEK"));
    assert!(at(1, 0xff) < at(2, 0));
}

#[test]
fn snapshots_equal_the_last_event() {
    use SessionState::{Banned, Connected, Connecting, Disconnected, LoggedOut, Outdated, Pending, Replaced};
    let check = |event: Event, state: Option<SessionState>| assert_eq!(event.state(), state, "{event:?}");
    check(SessionConnecting::new(1).into(), Some(Connecting));
    check(SessionQrUpdated::new("q".into(), 1, 1, 1, 1).into(), Some(Pending));
    check(SessionQrExhausted::new().into(), Some(Pending));
    check(SessionPairError::new("x".into()).into(), Some(Pending));
    check(SessionPaired::new(pn(), None, None, None).into(), Some(Connecting));
    check(SessionReconnecting::new(1, 0, DisconnectReason::RestartRequired).into(), Some(Connecting));
    check(SessionReconnecting::new(1, 5, DisconnectReason::Network).into(), Some(Disconnected));
    check(SessionConnected::new(pn()).into(), Some(Connected));
    for (reason, state) in [
        (DisconnectReason::ConnectionLost, Disconnected),
        (DisconnectReason::Network, Disconnected),
        (DisconnectReason::ServerError, Disconnected),
        (DisconnectReason::Stopped, Disconnected),
        (DisconnectReason::Replaced, Replaced),
        (DisconnectReason::LoggedOut, LoggedOut),
        (DisconnectReason::Banned, Banned),
        (DisconnectReason::Outdated, Outdated),
    ] {
        check(SessionDisconnected::new(reason).into(), Some(state));
        assert_eq!(serde_json::to_value(reason).expect("JSON"), json!(reason.as_str()));
        assert_eq!(state.is_terminal(), reason.is_permanent());
    }
    check(SessionLoggedOut::new(LogoutReason::DeviceRemoved, true).into(), Some(LoggedOut));
    check(SessionBanned::permanent().into(), Some(Banned));
    check(SessionOutdated::new("2".into()).into(), Some(Outdated));
    check(SessionKeepaliveLost::new(1, None).into(), None);
    check(MessageReceived::new(vec![received()]).into(), None);
    assert_eq!(serde_json::to_value(LoggedOut).expect("JSON"), json!("LOGGED_OUT"));
    assert_eq!((SessionState::default(), LoggedOut.as_str()), (Pending, "LOGGED_OUT"));
}

#[test]
fn preferred_identities_come_first() {
    let mut key = MessageKey::new(lid(), false, "A");
    key.remote_jid_alt = Some(pn());
    key.participant = Some(lid());
    key.participant_alt = Some(pn());
    let preferred = key.clone().preferring(Prefer::Pn);
    assert_eq!((&preferred.remote_jid, preferred.remote_jid_alt.as_ref()), (&pn(), Some(&lid())));
    assert_eq!((preferred.participant.as_ref(), preferred.participant_alt.as_ref()), (Some(&pn()), Some(&lid())));
    assert_eq!(preferred.clone().preferring(Prefer::Lid), key);
    assert_eq!(key.clone().preferring(Prefer::Addressed), key);
    key.remote_jid_alt = None;
    assert_eq!(key.clone().preferring(Prefer::Pn).remote_jid, lid(), "what is not known cannot come first");
}

#[test]
fn debug_shows_no_personal_data() {
    let mut connected = SessionConnected::new(pn());
    connected.push_name = Some("Ada".into());
    let events = [
        Event::from(MessageReceived::new(vec![received()])),
        MessageRead::new(vec![MessageObject::with_receipt(own_key("A"), Receipt::new(pn(), ReceiptKind::Read, 1))])
            .into(),
        MessageUndecryptable::new(own_key("A"), "no_session".into(), true, true).into(),
        MessageReaction::new(vec![ReactedMessage::new(
            own_key("A"),
            Reaction::new(group_key(false, "R"), "Hello!".into(), None),
            1,
        )])
        .into(),
        MessageDeleted::new(vec![DeletedMessage::new(own_key("A"), 1, pn(), DeleteReason::Author)]).into(),
        MessageComment::new(own_key("A"), received()).into(),
        GroupMemberTag::new(Jid::new("1203630", Server::Group), lid(), None, Some("Ada".into())).into(),
        ChatsUpdate::new(vec![ChatObject::new(lid(), Some(pn()))]).into(),
        connected.into(),
        SessionPaired::new(pn(), Some(lid()), None, Some("Ada".into())).into(),
        SessionQrUpdated::new("2@Hello!".into(), 1, 1, 1, 1).into(),
        LidMappingUpdated::new(lid(), pn(), MappingSource::Message).into(),
        IdentityChanged::new(pn(), false).into(),
        SessionConnectFailure::new(None, [("message".to_owned(), "Ada".to_owned())].into()).into(),
    ];
    for event in events {
        let envelope = Envelope::new(&event, "s", EventId::random(1, &[0; 10]), 1);
        let debug = format!("{event:?} {envelope:?}");
        for secret in ["2348012345678", "111111111111", "Ada", "Hello!"] {
            assert!(!debug.contains(secret), "{debug}");
        }
    }
}
