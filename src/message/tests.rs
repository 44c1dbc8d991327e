use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{
    build::{self, Quote},
    classify::{Edit, StanzaType, classify},
    content::{Field, Wrapper},
    kind::Kind,
    normalise::{Action, MAX_WRAPPERS, ViewOnce, normalise, unwrap_device_sent},
    protocol::{self, OwnSender, ProtocolKind, ProtocolType},
    *,
};
use crate::{
    crypto::{PublicKey, Secret},
    jid::Jid,
    proto::{
        Bytes,
        common::{LimitSharing, MessageKey},
        e2e::*,
    },
    signal::sender_key::{SenderKeyId, wire::DistributionMessage},
};

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn text(text: &str) -> Message {
    build::text(text)
}

fn future(message: Message) -> Option<Box<FutureProofMessage>> {
    Some(Box::new(FutureProofMessage { message: Some(Box::new(message)) }))
}

fn ephemeral(message: Message) -> Message {
    Message { ephemeral_message: future(message), ..Default::default() }
}

fn key(from_me: bool) -> Option<Box<MessageKey>> {
    Some(Box::new(MessageKey {
        remote_jid: Some("1@lid".into()),
        from_me: Some(from_me),
        id: Some("A".into()),
        participant: None,
    }))
}

fn protocol(r#type: ProtocolKind) -> ProtocolMessage {
    ProtocolMessage { r#type: Some(r#type as i32), ..Default::default() }
}

fn protocol_message(protocol: ProtocolMessage) -> Message {
    Message { protocol_message: Some(Box::new(protocol)), ..Default::default() }
}

fn edit(message: Message) -> Message {
    protocol_message(ProtocolMessage {
        key: key(true),
        edited_message: Some(Box::new(message)),
        timestamp_ms: Some(5),
        ..protocol(ProtocolKind::MessageEdit)
    })
}

fn revoke(from_me: bool) -> Message {
    protocol_message(ProtocolMessage { key: key(from_me), ..protocol(ProtocolKind::Revoke) })
}

fn reaction(text: &str) -> Message {
    let reaction = ReactionMessage { key: key(true), text: Some(text.into()), ..Default::default() };
    Message { reaction_message: Some(Box::new(reaction)), ..Default::default() }
}

fn extended(extended: ExtendedTextMessage) -> Message {
    Message { extended_text_message: Some(Box::new(extended)), ..Default::default() }
}

fn secret_encrypted(kind: secret_encrypted_message::SecretEncType) -> Message {
    let encrypted = SecretEncryptedMessage { secret_enc_type: Some(kind as i32), ..Default::default() };
    Message { secret_encrypted_message: Some(Box::new(encrypted)), ..Default::default() }
}

macro_rules! message {
    ($field:ident: $value:expr) => {
        Message { $field: Some(Box::new($value)), ..Default::default() }
    };
}

#[test]
fn wrappers_come_off_in_any_nesting() {
    let inner = message!(image_message: ImageMessage { caption: Some("hi".into()), ..Default::default() });
    let message = ephemeral(Message { view_once_message_v2: future(inner.clone()), ..Default::default() });
    let view = normalise(&message);
    assert_eq!(view.wrappers(), [Wrapper::Ephemeral, Wrapper::ViewOnceV2]);
    assert_eq!((view.kind(), view.text(), view.view_once()), (Kind::Image, Some("hi"), Some(ViewOnce::V2)));
    assert_eq!((view.content(), view.original()), (&inner, &message));
    assert_eq!(view.action(), Action::Content);
}

#[test]
fn nesting_is_bounded() {
    let mut message = text("deep");
    for _ in 0..40 {
        message = ephemeral(message);
    }
    let view = normalise(&message);
    assert_eq!((view.wrappers().len(), view.kind(), view.text()), (MAX_WRAPPERS, Kind::Unknown, None));
    assert_eq!(classify(&message).stanza_type, StanzaType::Media);
}

#[test]
fn device_sent_copies_keep_their_context() {
    let secret = Bytes::from(vec![1; 32]);
    let context = MessageContextInfo { message_secret: Some(secret.clone()), ..Default::default() };
    let mut message = text("hi");
    message.message_context_info = Some(Box::new(context));
    let copy = build::device_sent(&Jid::lid("2"), message.clone());
    let inner = copy.device_sent_message.as_ref().unwrap().message.as_ref().unwrap();
    assert_eq!(inner.message_context_info, None, "the context is hoisted");

    let view = normalise(&copy);
    assert_eq!((view.destination(), view.text()), (Some("2@lid"), Some("hi")));
    assert_eq!(view.message_secret(), Some(&[1; 32]));
    assert_eq!(unwrap_device_sent(copy), (message.clone(), Some("2@lid".into())));
    assert_eq!(unwrap_device_sent(message.clone()), (message, None));

    let empty = message!(device_sent_message: DeviceSentMessage::default());
    assert_eq!(normalise(&empty).kind(), Kind::Unknown);
    assert_eq!(unwrap_device_sent(empty.clone()), (empty, None));
}

#[test]
fn contexts_merge_by_field() {
    let outer = MessageContextInfo {
        message_secret: Some(Bytes::from_static(&[1; 32])),
        message_association: Some(Box::default()),
        limit_sharing_v2: Some(Box::new(LimitSharing { sharing_limited: Some(true), ..Default::default() })),
        capi_created_group: Some(true),
        ..Default::default()
    };
    let inner = MessageContextInfo {
        message_secret: Some(Bytes::from_static(&[2; 32])),
        limit_sharing_v2: Some(Box::default()),
        support_payload: Some("x".into()),
        ..Default::default()
    };
    let expected = MessageContextInfo {
        message_association: outer.message_association.clone(),
        limit_sharing_v2: outer.limit_sharing_v2.clone(),
        ..inner.clone()
    };
    let content = Message { message_context_info: Some(Box::new(inner)), ..text("hi") };
    let wrapped = Message { message_context_info: Some(Box::new(outer)), ..ephemeral(content) };
    assert_eq!(normalise(&wrapped).message_context(), Some(&expected));

    let short = MessageContextInfo { message_secret: Some(Bytes::from_static(&[1; 31])), ..Default::default() };
    let message = Message { message_context_info: Some(Box::new(short)), ..text("hi") };
    assert_eq!(normalise(&message).message_secret(), None, "a secret has 32 bytes");
}

#[test]
fn actions_are_told_apart() {
    let check = |message: Message, expected: Action<'_>| assert_eq!(normalise(&message).action(), expected);
    check(text("hi"), Action::Content);
    check(reaction("x"), Action::Reaction);
    check(Message { enc_reaction_message: Some(Box::default()), ..Default::default() }, Action::Reaction);
    check(message!(pin_in_chat_message: PinInChatMessage::default()), Action::AddOn);
    check(message!(poll_update_message: PollUpdateMessage::default()), Action::Content);
    check(message!(message_history_notice: MessageHistoryNotice::default()), Action::Signalling);
    check(Message::default(), Action::KeyDistribution);
    check(build::sender_key_distribution(&Jid::lid("1"), vec![1]), Action::KeyDistribution);
    check(ephemeral(Message::default()), Action::Content);
    check(revoke(true), Action::Revoke { target: key(true).as_deref() });
    let label = protocol(ProtocolKind::GroupMemberLabelChange);
    let expected = Action::Protocol(ProtocolType::Other(ProtocolKind::GroupMemberLabelChange), &label);
    check(protocol_message(label.clone()), expected);

    let target = key(true);
    let new = text("new");
    let expected = Action::Edit { target: target.as_deref(), message: &new, timestamp_ms: Some(5) };
    check(edit(text("new")), expected);
    check(Message { edited_message: future(edit(text("new"))), ..Default::default() }, expected);
    let plain = Message { edited_message: future(text("new")), ..Default::default() };
    assert_eq!((normalise(&plain).field(), normalise(&plain).kind()), (Some(Field::Edited), Kind::Protocol));
}

#[test]
fn kinds_have_their_words() {
    let check = |message: Message, kind: &str, text: Option<&str>| {
        let view = normalise(&message);
        assert_eq!((view.kind().as_str(), view.text()), (kind, text));
    };
    check(text("a"), "text", Some("a"));
    check(text(""), "text", None);
    check(extended(ExtendedTextMessage { text: Some("b".into()), ..Default::default() }), "text", Some("b"));
    let video = |gif| VideoMessage { gif_playback: Some(gif), caption: Some("c".into()), ..Default::default() };
    check(message!(video_message: video(true)), "gif", Some("c"));
    check(message!(video_message: video(false)), "video", Some("c"));
    check(message!(ptv_message: video(false)), "ptv", Some("c"));
    check(message!(audio_message: AudioMessage { ptt: Some(true), ..Default::default() }), "voice", None);
    check(message!(audio_message: AudioMessage::default()), "audio", None);
    let document = DocumentMessage { caption: Some("d".into()), ..Default::default() };
    let wrapped =
        Message { document_with_caption_message: future(message!(document_message: document)), ..Default::default() };
    check(wrapped, "document", Some("d"));
    check(
        message!(location_message: LocationMessage { is_live: Some(true), ..Default::default() }),
        "live_location",
        None,
    );
    check(message!(location_message: LocationMessage::default()), "location", None);
    check(message!(contacts_array_message: ContactsArrayMessage::default()), "contacts", None);
    check(
        message!(poll_creation_message_v3: PollCreationMessage { name: Some("?".into()), ..Default::default() }),
        "poll",
        Some("?"),
    );
    check(message!(poll_update_message: PollUpdateMessage::default()), "poll_vote", None);
    check(message!(call_log_messsage: CallLogMessage::default()), "call_log", None);
    check(message!(placeholder_message: PlaceholderMessage::default()), "placeholder", None);
    check(reaction(""), "reaction", Some(""));
    check(revoke(true), "protocol", None);
    check(Message::default(), "protocol", None);
    check(ephemeral(Message::default()), "unknown", None);
}

#[test]
fn replies_tell_what_was_picked() {
    let check = |message: Message, id: Option<&str>, text: Option<&str>| {
        let selection = normalise(&message).selection().expect("a reply");
        assert_eq!((selection.id.as_deref(), selection.text.as_deref()), (id, text));
    };
    check(
        message!(buttons_response_message: ButtonsResponseMessage {
            selected_button_id: Some("yes".into()),
            response: Some(buttons_response_message::Response::SelectedDisplayText("Yes".into())),
            ..Default::default()
        }),
        Some("yes"),
        Some("Yes"),
    );
    let row = list_response_message::SingleSelectReply { selected_row_id: Some("a".into()) };
    let list =
        ListResponseMessage { single_select_reply: Some(Box::new(row)), title: Some("A".into()), ..Default::default() };
    check(message!(list_response_message: list), Some("a"), Some("A"));
    let template = TemplateButtonReplyMessage { selected_id: Some("t".into()), ..Default::default() };
    check(message!(template_button_reply_message: template), Some("t"), None);

    let flow = |params: String| {
        let flow = interactive_response_message::NativeFlowResponseMessage {
            name: Some("quick_reply".into()),
            params_json: Some(params),
            version: Some(1),
        };
        let body = interactive_response_message::Body { text: Some("Yes".into()), format: None };
        message!(interactive_response_message: InteractiveResponseMessage {
            body: Some(Box::new(body)),
            interactive_response_message:
                Some(interactive_response_message::InteractiveResponseMessage::NativeFlowResponseMessage(flow)),
            ..Default::default()
        })
    };
    check(flow(r#"{"id":"yes","title":"x"}"#.into()), Some("yes"), Some("Yes"));
    check(flow("\0".repeat(1_000_000)), None, Some("Yes"));
    check(flow(format!(r#"{{"id":"{}"}}"#, "a".repeat(20_000))), None, Some("Yes"));
    check(flow("[".repeat(10_000)), None, Some("Yes"));
    check(flow(r#"{"id":5}"#.into()), None, Some("Yes"));
    assert_eq!(normalise(&text("x")).selection(), None);
}

#[test]
fn timers_and_inline_view_once_are_lifted() {
    let context = ContextInfo { expiration: Some(86_400), ..Default::default() };
    let image = ImageMessage { view_once: Some(true), context_info: Some(Box::new(context)), ..Default::default() };
    let message = message!(image_message: image);
    let view = normalise(&message);
    assert_eq!((view.view_once(), view.expiration()), (Some(ViewOnce::Inline), Some(86_400)));
    assert_eq!(normalise(&text("x")).expiration(), None);
}

#[test]
fn stanza_words_follow_the_tables() {
    use secret_encrypted_message::SecretEncType;
    let check = |message: Message, kind: StanzaType, media: Option<&str>, edit: Option<Edit>, hide: bool| {
        let words = classify(&message);
        assert_eq!(
            (words.stanza_type, words.media_type, words.edit, words.hide_failure),
            (kind, media, edit, hide),
            "{:?}",
            normalise(&message).field()
        );
        // A copy for our own devices has the words of what it copies.
        assert_eq!(classify(&build::device_sent(&Jid::lid("1"), message)), words);
    };
    use StanzaType::{Event, Media, Poll, Reaction, Text};
    check(text("a"), Text, None, None, false);
    check(ephemeral(text("a")), Text, None, None, false);
    check(extended(ExtendedTextMessage::default()), Text, None, None, false);
    let link = |link: &str| extended(ExtendedTextMessage { matched_text: Some(link.into()), ..Default::default() });
    check(link("https://a.example"), Media, Some("url"), None, false);
    check(link("  "), Text, None, None, false);
    check(message!(image_message: ImageMessage::default()), Media, Some("image"), None, false);
    check(
        message!(video_message: VideoMessage { gif_playback: Some(true), ..Default::default() }),
        Media,
        Some("gif"),
        None,
        false,
    );
    check(message!(video_message: VideoMessage::default()), Media, Some("video"), None, false);
    check(message!(ptv_message: VideoMessage::default()), Media, Some("ptv"), None, false);
    check(
        message!(audio_message: AudioMessage { ptt: Some(true), ..Default::default() }),
        Media,
        Some("ptt"),
        None,
        false,
    );
    check(message!(audio_message: AudioMessage::default()), Media, Some("audio"), None, false);
    let document = message!(document_message: DocumentMessage::default());
    check(
        Message { document_with_caption_message: future(document), ..Default::default() },
        Media,
        Some("document"),
        None,
        false,
    );
    let sticker = message!(sticker_message: StickerMessage::default());
    check(sticker.clone(), Media, Some("sticker"), None, false);
    check(
        Message { lottie_sticker_message: future(sticker), ..Default::default() },
        Media,
        Some("sticker"),
        None,
        false,
    );
    check(
        Message { lottie_sticker_message: future(Message::default()), ..Default::default() },
        Media,
        Some("sticker"),
        None,
        false,
    );
    check(message!(sticker_pack_message: StickerPackMessage::default()), Media, Some("sticker_pack"), None, false);
    check(
        message!(location_message: LocationMessage { is_live: Some(true), ..Default::default() }),
        Media,
        Some("livelocation"),
        None,
        false,
    );
    check(message!(location_message: LocationMessage::default()), Media, Some("location"), None, false);
    check(message!(live_location_message: LiveLocationMessage::default()), Media, Some("livelocation"), None, false);
    check(message!(contact_message: ContactMessage::default()), Media, Some("vcard"), None, false);
    check(message!(contacts_array_message: ContactsArrayMessage::default()), Media, Some("contact_array"), None, false);
    check(message!(group_invite_message: GroupInviteMessage::default()), Media, Some("url"), None, false);
    check(message!(list_message: ListMessage::default()), Media, Some("list"), None, false);
    check(message!(list_response_message: ListResponseMessage::default()), Media, Some("list_response"), None, false);
    check(
        message!(buttons_response_message: ButtonsResponseMessage::default()),
        Media,
        Some("buttons_response"),
        None,
        false,
    );
    check(message!(buttons_message: ButtonsMessage::default()), Media, None, None, false);
    check(message!(order_message: OrderMessage::default()), Media, Some("order"), None, false);
    check(message!(product_message: ProductMessage::default()), Media, Some("product"), None, false);
    check(
        message!(interactive_response_message: InteractiveResponseMessage::default()),
        Media,
        Some("native_flow_response"),
        None,
        false,
    );
    check(message!(message_history_bundle: MessageHistoryBundle::default()), Media, Some("group_history"), None, false);
    check(message!(interactive_message: InteractiveMessage::default()), Text, None, None, false);
    check(message!(album_message: AlbumMessage::default()), Text, None, None, false);
    check(message!(send_payment_message: SendPaymentMessage::default()), Text, None, None, false);
    check(message!(newsletter_admin_invite_message: NewsletterAdminInviteMessage::default()), Text, None, None, false);
    check(message!(poll_result_snapshot_message: PollResultSnapshotMessage::default()), Text, None, None, false);
    check(message!(enc_comment_message: EncCommentMessage::default()), Text, None, None, false);
    check(message!(message_history_notice: MessageHistoryNotice::default()), Text, None, None, true);

    check(message!(poll_creation_message: PollCreationMessage::default()), Poll, None, None, false);
    let v4 = message!(poll_creation_message_v3: PollCreationMessage::default());
    check(Message { poll_creation_message_v4: future(v4), ..Default::default() }, Poll, None, None, false);
    check(message!(poll_update_message: PollUpdateMessage::default()), Poll, None, None, false);
    check(
        message!(poll_update_message: PollUpdateMessage { vote: Some(Box::default()), ..Default::default() }),
        Poll,
        None,
        None,
        true,
    );
    check(message!(event_message: EventMessage::default()), Event, None, None, false);
    check(message!(enc_event_response_message: EncEventResponseMessage::default()), Event, None, None, true);
    check(secret_encrypted(SecretEncType::EventEdit), Event, None, Some(Edit::Message), true);
    check(secret_encrypted(SecretEncType::MessageEdit), Text, None, Some(Edit::Message), true);
    check(secret_encrypted(SecretEncType::PollEdit), Poll, None, None, true);
    check(secret_encrypted(SecretEncType::PollAddOption), Poll, None, None, true);
    check(secret_encrypted(SecretEncType::MessageSchedule), Media, None, None, false);
    check(message!(conditional_reveal_message: ConditionalRevealMessage::default()), Media, None, None, true);

    check(reaction("x"), Reaction, None, None, true);
    check(reaction(""), Reaction, None, Some(Edit::SenderRevoke), true);
    check(message!(enc_reaction_message: EncReactionMessage::default()), Reaction, None, None, true);
    check(message!(pin_in_chat_message: PinInChatMessage::default()), Text, None, Some(Edit::Pin), true);
    let keep = |kind: KeepType, own| message!(keep_in_chat_message: KeepInChatMessage { key: key(own), keep_type: Some(kind as i32), timestamp_ms: None });
    check(keep(KeepType::KeepForAll, true), Text, None, None, true);
    check(keep(KeepType::UndoKeepForAll, false), Text, None, None, true);
    check(keep(KeepType::UndoKeepForAll, true), Text, None, Some(Edit::SenderRevoke), false);
    check(edit(text("new")), Text, None, Some(Edit::Message), true);
    check(
        Message { edited_message: future(edit(text("new"))), ..Default::default() },
        Text,
        None,
        Some(Edit::Message),
        true,
    );
    check(revoke(true), Text, None, Some(Edit::SenderRevoke), false);
    check(revoke(false), Text, None, Some(Edit::AdminRevoke), false);
    check(protocol_message(protocol(ProtocolKind::EphemeralSetting)), Text, None, None, false);
    check(protocol_message(protocol(ProtocolKind::EphemeralSyncResponse)), Text, None, None, true);
    let welcome = protocol_message(protocol(ProtocolKind::RequestWelcomeMessage));
    check(Message { bot_invoke_message: future(welcome), ..Default::default() }, Text, None, None, true);
    check(Message::default(), Media, None, None, false);
}

#[test]
fn meta_attributes_follow_the_table() {
    let check = |message: Message, expected: &[(&str, &str)]| assert_eq!(classify(&message).meta[..], *expected);
    check(text("a"), &[]);
    check(message!(poll_creation_message: PollCreationMessage::default()), &[("polltype", "creation")]);
    let quiz = PollCreationMessage { poll_type: Some(PollType::Quiz as i32), ..Default::default() };
    check(message!(poll_creation_message_v5: quiz), &[("polltype", "quiz_creation")]);
    let vote = PollUpdateMessage { vote: Some(Box::default()), ..Default::default() };
    check(message!(poll_update_message: vote), &[("polltype", "vote")]);
    check(message!(event_message: EventMessage::default()), &[("event_type", "creation")]);
    check(message!(enc_event_response_message: EncEventResponseMessage::default()), &[("event_type", "response")]);
    check(secret_encrypted(secret_encrypted_message::SecretEncType::EventEdit), &[("event_type", "edit")]);
    let label = |label: &str| {
        let label = MemberLabel { label: Some(label.into()), ..Default::default() };
        protocol_message(ProtocolMessage {
            member_label: Some(Box::new(label)),
            ..protocol(ProtocolKind::GroupMemberLabelChange)
        })
    };
    check(label("Host"), &[("appdata", "member_tag"), ("tag_reason", "user_update")]);
    check(label(""), &[("appdata", "member_tag"), ("tag_reason", "user_delete")]);
    let image = message!(image_message: ImageMessage::default());
    check(Message { view_once_message_v2: future(image), ..Default::default() }, &[("view_once", "true")]);
}

#[test]
fn account_messages_are_known_by_type_and_payload() {
    let check = |message: ProtocolMessage, expected| assert_eq!(protocol::own_sender(&message), expected);
    for kind in [
        ProtocolKind::HistorySyncNotification,
        ProtocolKind::AppStateSyncKeyShare,
        ProtocolKind::AppStateSyncKeyRequest,
        ProtocolKind::MsgFanoutBackfillRequest,
        ProtocolKind::InitialSecurityNotificationSettingSync,
        ProtocolKind::AppStateFatalExceptionNotification,
        ProtocolKind::PeerDataOperationRequestMessage,
        ProtocolKind::LidMigrationMappingSync,
    ] {
        check(protocol(kind), Some(OwnSender::AnyDevice));
    }
    check(protocol(ProtocolKind::PeerDataOperationRequestResponseMessage), Some(OwnSender::Primary));
    for kind in
        [ProtocolKind::Revoke, ProtocolKind::MessageEdit, ProtocolKind::EphemeralSetting, ProtocolKind::LimitSharing]
    {
        check(protocol(kind), None);
    }
    check(ProtocolMessage { r#type: Some(99), ..Default::default() }, None);
    let share = Some(Box::default());
    let disguised = ProtocolMessage { app_state_sync_key_share: share, ..protocol(ProtocolKind::ReminderMessage) };
    check(disguised, Some(OwnSender::AnyDevice));
    let response = Some(Box::default());
    let disguised = ProtocolMessage {
        r#type: Some(99),
        peer_data_operation_request_response_message: response,
        ..Default::default()
    };
    check(disguised, Some(OwnSender::Primary));
    assert_eq!(protocol::type_of(&ProtocolMessage::default()), ProtocolType::Revoke);
}

#[test]
fn a_reply_quotes_content_only() {
    let context = ContextInfo { quoted_message: Some(Box::new(text("older"))), ..Default::default() };
    let quoted =
        ExtendedTextMessage { text: Some("old".into()), context_info: Some(Box::new(context)), ..Default::default() };
    let mut message = ephemeral(extended(quoted));
    build::ensure_secret(&mut message, &mut rng()).expect("text takes a secret");
    let id = MessageId::new("A1").unwrap();
    let author = Jid::lid("7").with_device(3);
    let reply = build::reply("new", &Quote { id: &id, author: &author, message: &message, chat: None });

    let view = normalise(&reply);
    assert_eq!((view.kind(), view.text()), (Kind::Text, Some("new")));
    let context = view.context_info().expect("context");
    assert_eq!((context.stanza_id.as_deref(), context.participant.as_deref()), (Some("A1"), Some("7@lid")));
    assert_eq!(context.remote_jid, None);
    let expected = extended(ExtendedTextMessage { text: Some("old".into()), ..Default::default() });
    assert_eq!(context.quoted_message.as_deref(), Some(&expected));
}

#[test]
fn secrets_are_made_once_and_for_content_only() {
    let mut message = text("hi");
    let secret = build::ensure_secret(&mut message, &mut rng()).expect("text takes a secret");
    assert_eq!(normalise(&message).message_secret(), Some(secret.expose()));
    let again = build::ensure_secret(&mut message, &mut ChaCha8Rng::seed_from_u64(8));
    assert_eq!(again, Some(secret), "never overwritten");
    for mut message in [
        reaction("x"),
        edit(text("new")),
        revoke(true),
        message!(poll_update_message: PollUpdateMessage::default()),
        build::sender_key_distribution(&Jid::lid("1"), vec![1]),
        Message::default(),
    ] {
        assert_eq!(build::ensure_secret(&mut message, &mut rng()), None);
        assert_eq!(message.message_context_info, None);
    }
}

#[test]
fn a_key_is_handed_over_in_the_same_bytes_without_being_built() {
    for (chat, id, iteration) in
        [("120363000000000001@g.us", 1, 0), ("status@broadcast", u32::MAX, 127), ("1-2@g.us", 128, 20_000)]
    {
        let chat: Jid = chat.parse().unwrap();
        let key = DistributionMessage {
            id: SenderKeyId(id),
            iteration,
            chain_key: Secret::new([7; 32]),
            signing: PublicKey::from_bytes([9; 32]),
        };
        let mut written = Vec::new();
        build::write_sender_key_distribution(&mut written, &chat, &key);
        assert_eq!(written, build::sender_key_distribution(&chat, key.encode()).encode_to_vec());
    }
}

#[test]
fn sender_keys_are_handed_over() {
    let group = Jid::new("12036304", crate::jid::Server::Group);
    let message = build::sender_key_distribution(&group, vec![1, 2]);
    let (chat, key) = build::handed_sender_key(&message).expect("a key");
    assert_eq!((chat, &key[..]), ("12036304@g.us", &[1, 2][..]));
    assert_eq!(build::handed_sender_key(&text("x")), None);
}

#[test]
fn payloads_are_bounded() {
    assert_eq!(decode(&[0x0a, 2, b'h', b'i']), Ok(text("hi")));
    assert_eq!(decode(&[0x0a, 9]), Err(MessageError::Malformed));
    let len = MAX_PAYLOAD + 1;
    assert_eq!(decode(&vec![0; len]), Err(MessageError::TooLong { len, max: MAX_PAYLOAD }));
}

/// Looks at everything that can be seen of a payload.
fn look(wire: &[u8]) {
    let Ok(mut message) = decode(wire) else { return };
    let view = normalise(&message);
    assert!(view.wrappers().len() <= MAX_WRAPPERS);
    assert!(view.kind() != Kind::Unknown || view.text().is_none());
    let _ = (view.action(), view.selection(), view.view_once(), view.expiration(), view.message_secret());
    let words = classify(&message);
    assert!(words.media_type.is_none() || words.stanza_type == StanzaType::Media);
    assert_eq!(build::quotable(&message).message_context_info, None);
    let _ = (
        content::has_unknown_field(wire),
        build::handed_sender_key(&message),
        message.protocol_message.as_deref().map(protocol::own_sender),
    );
    let secret = build::ensure_secret(&mut message, &mut rng());
    assert_eq!(build::ensure_secret(&mut message, &mut rng()), secret);
    let (_, destination) = unwrap_device_sent(message.clone());
    assert_eq!(destination.as_deref(), normalise(&message).destination());
}

proptest::proptest! {
    #[test]
    fn hostile_payloads_are_only_looked_at(wire: Vec<u8>) {
        look(&wire);
    }

    #[test]
    fn damaged_payloads_are_only_looked_at(changes: Vec<(usize, u8)>, number in 1_u32..140, depth in 0_usize..24) {
        // A field that could be anything, inside of wrappers and a copy for our own devices.
        let mut wire = Vec::new();
        prost_field(&mut wire, number, &[0x0a, 0]);
        for _ in 0..depth {
            let mut inner = Vec::new();
            prost_field(&mut inner, 1, &wire);
            wire.clear();
            prost_field(&mut wire, 40, &inner);
        }
        let mut copy = Vec::new();
        prost_field(&mut copy, 2, &wire);
        wire.clear();
        prost_field(&mut wire, 31, &copy);
        look(&wire);
        for (position, byte) in changes {
            let position = position % wire.len();
            wire[position] = byte;
            look(&wire);
        }
    }
}

fn prost_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    use crate::proto::prost::encoding::{WireType, encode_key, encode_varint};
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
