//! The fields of `Message`, as tables: which hold content, and which wrap another message (spec 06 §2).
//!
//! A message normally has one content field. Three others may stand beside it and are skipped: the two sender-key
//! distributions (2, 15) and the context info (35). When several content fields are set, the lowest number counts.

use crate::proto::e2e::{ContextInfo, FutureProofMessage, Message};

macro_rules! content_fields {
    ($($number:literal $variant:ident $field:ident $($context:ident)?;)*) => {
        /// A content field of `Message`, named after the schema. The discriminant is the field number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum Field {
            $(
                #[doc = concat!("`", stringify!($field), "`, field ", stringify!($number), ".")]
                $variant = $number,
            )*
        }

        impl Field {
            /// The content field of a message: of those set, the one with the lowest number. `None` when no known one is set.
            pub fn of(message: &Message) -> Option<Self> {
                $(
                    if message.$field.is_some() {
                        return Some(Self::$variant);
                    }
                )*
                None
            }

            /// The `contextInfo` inside this field: quote, mentions, forwarding, timer.
            pub fn context(self, message: &Message) -> Option<&ContextInfo> {
                match self {
                    $(Self::$variant => content_fields!(@read message $field $($context)?),)*
                }
            }

            /// Takes the `contextInfo` out of this field.
            pub(super) fn take_context(self, message: &mut Message) -> Option<Box<ContextInfo>> {
                match self {
                    $(Self::$variant => content_fields!(@take message $field $($context)?),)*
                }
            }
        }

        #[cfg(test)]
        pub(super) const CONTENT_NUMBERS: &[u32] = &[$($number),*];
    };
    (@read $message:ident $field:ident context) => {
        $message.$field.as_deref().and_then(|content| content.context_info.as_deref())
    };
    (@read $message:ident $field:ident) => { None };
    (@take $message:ident $field:ident context) => {
        $message.$field.as_deref_mut().and_then(|content| content.context_info.take())
    };
    (@take $message:ident $field:ident) => { None };
}

content_fields! {
    1 Conversation conversation;
    3 Image image_message context;
    4 Contact contact_message context;
    5 Location location_message context;
    6 ExtendedText extended_text_message context;
    7 Document document_message context;
    8 Audio audio_message context;
    9 Video video_message context;
    10 Call call context;
    11 Chat chat;
    12 Protocol protocol_message;
    13 ContactsArray contacts_array_message context;
    14 HighlyStructured highly_structured_message;
    16 SendPayment send_payment_message;
    18 LiveLocation live_location_message context;
    22 RequestPayment request_payment_message;
    23 DeclinePaymentRequest decline_payment_request_message;
    24 CancelPaymentRequest cancel_payment_request_message;
    25 Template template_message context;
    26 Sticker sticker_message context;
    28 GroupInvite group_invite_message context;
    29 TemplateButtonReply template_button_reply_message context;
    30 Product product_message context;
    31 DeviceSent device_sent_message;
    36 List list_message context;
    38 Order order_message context;
    39 ListResponse list_response_message context;
    41 Invoice invoice_message;
    42 Buttons buttons_message context;
    43 ButtonsResponse buttons_response_message context;
    44 PaymentInvite payment_invite_message;
    45 Interactive interactive_message context;
    46 Reaction reaction_message;
    47 StickerSyncRmr sticker_sync_rmr_message;
    48 InteractiveResponse interactive_response_message context;
    49 PollCreation poll_creation_message context;
    50 PollUpdate poll_update_message;
    51 KeepInChat keep_in_chat_message;
    54 RequestPhoneNumber request_phone_number_message context;
    56 EncReaction enc_reaction_message;
    58 Edited edited_message;
    60 PollCreationV2 poll_creation_message_v2 context;
    61 ScheduledCallCreation scheduled_call_creation_message;
    63 PinInChat pin_in_chat_message;
    64 PollCreationV3 poll_creation_message_v3 context;
    65 ScheduledCallEdit scheduled_call_edit_message;
    66 Ptv ptv_message context;
    69 CallLog call_log_messsage;
    70 MessageHistoryBundle message_history_bundle context;
    71 EncComment enc_comment_message;
    72 BusinessCall bcall_message;
    75 Event event_message context;
    76 EncEventResponse enc_event_response_message;
    77 Comment comment_message;
    78 NewsletterAdminInvite newsletter_admin_invite_message context;
    80 Placeholder placeholder_message;
    82 SecretEncrypted secret_encrypted_message;
    83 Album album_message context;
    86 StickerPack sticker_pack_message context;
    88 PollResultSnapshot poll_result_snapshot_message context;
    97 RichResponse rich_response_message context;
    98 StatusNotification status_notification_message;
    102 MessageHistoryNotice message_history_notice context;
    105 StatusQuestionAnswer status_question_answer_message;
    107 QuestionResponse question_response_message;
    109 StatusQuoted status_quoted_message;
    110 StatusStickerInteraction status_sticker_interaction_message;
    111 PollCreationV5 poll_creation_message_v5 context;
    113 NewsletterFollowerInvite newsletter_follower_invite_message_v2 context;
    115 PollResultSnapshotV3 poll_result_snapshot_message_v3 context;
    119 PollCreationV6 poll_creation_message_v6 context;
    120 ConditionalReveal conditional_reveal_message;
    121 PollAddOption poll_add_option_message;
    122 EventInvite event_invite_message context;
    123 GroupRootKeyShare group_root_key_share;
    124 PaymentReminder payment_reminder_message;
    125 SplitPayment split_payment_message context;
    127 RootSecretDistribute root_secret_distribute_message;
    128 SplitPaymentUpdate split_payment_update_message;
    129 Music music_message context;
    130 StatusLinkPreviewMetadata status_link_preview_metadata;
}

macro_rules! wrappers {
    ($($number:literal $variant:ident $field:ident;)*) => {
        /// A field of `Message` that wraps another message, in the order of spec 06 §2. The discriminant is the field number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum Wrapper {
            $(
                #[doc = concat!("`", stringify!($field), "`, field ", stringify!($number), ".")]
                $variant = $number,
            )*
        }

        impl Wrapper {
            /// The first wrapper that is set, and what it wraps.
            ///
            /// `editedMessage` counts only when it carries an edit; otherwise it is content ([`Field::Edited`]).
            pub fn of(message: &Message) -> Option<(Self, &Message)> {
                $(
                    if let Some(inner) = wrapped(message.$field.as_deref()).filter(|inner| Self::$variant.opens(inner)) {
                        return Some((Self::$variant, inner));
                    }
                )*
                None
            }
        }

        #[cfg(test)]
        pub(super) const WRAPPER_NUMBERS: &[u32] = &[$($number),*];
    };
}

wrappers! {
    40 Ephemeral ephemeral_message;
    37 ViewOnce view_once_message;
    55 ViewOnceV2 view_once_message_v2;
    59 ViewOnceV2Extension view_once_message_v2_extension;
    53 DocumentWithCaption document_with_caption_message;
    58 Edited edited_message;
    67 BotInvoke bot_invoke_message;
    62 GroupMentioned group_mentioned_message;
    74 LottieSticker lottie_sticker_message;
    91 AssociatedChild associated_child_message;
    85 EventCoverImage event_cover_image;
    90 PollCreationOptionImage poll_creation_option_image_message;
    93 PollCreationV4 poll_creation_message_v4;
    87 StatusMention status_mention_message;
    92 GroupStatusMention group_status_mention_message;
    95 StatusAddYours status_add_yours;
    96 GroupStatus group_status_message;
    103 GroupStatusV2 group_status_message_v2;
    99 LimitSharing limit_sharing_message;
    100 BotTask bot_task_message;
    101 Question question_message;
    106 QuestionReply question_reply_message;
    104 BotForwarded bot_forwarded_message;
    116 NewsletterAdminProfile newsletter_admin_profile_message;
    117 NewsletterAdminProfileV2 newsletter_admin_profile_message_v2;
    126 NewsletterAdminProfileStatus newsletter_admin_profile_status_message;
    118 Spoiler spoiler_message;
    131 BotPlatformRegistrationSuccess bot_platform_registration_success_message;
}

impl Wrapper {
    fn opens(self, inner: &Message) -> bool {
        self != Self::Edited || inner.protocol_message.as_ref().is_some_and(|p| p.edited_message.is_some())
    }
}

/// Whether an encoded `Message` has a top-level field that is neither content we know nor one of the three that are skipped:
/// content of a newer schema.
///
/// Decoding drops such fields, so only the bytes can tell. Stops at the first thing that is not protobuf.
pub fn has_unknown_field(wire: &[u8]) -> bool {
    let mut rest = wire;
    while let Some(tag) = varint(&mut rest) {
        let number = tag >> 3;
        let skipped = match tag & 7 {
            0 => varint(&mut rest).map(drop),
            1 => skip(&mut rest, 8),
            2 => varint(&mut rest).and_then(|len| skip(&mut rest, usize::try_from(len).ok()?)),
            5 => skip(&mut rest, 4),
            _ => None,
        };
        if skipped.is_none() {
            return false;
        }
        if !KNOWN_NUMBERS.contains(&number) {
            return true;
        }
    }
    false
}

fn wrapped(wrapper: Option<&FutureProofMessage>) -> Option<&Message> {
    wrapper.and_then(|wrapper| wrapper.message.as_deref())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn skip(rest: &mut &[u8], len: usize) -> Option<()> {
    *rest = rest.get(len..)?;
    Some(())
}

/// Every field number of `Message` in the schema that this crate was built with, context and key distribution included.
const KNOWN_NUMBERS: &[u64] = &[
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 22, 23, 24, 25, 26, 28, 29, 30, 31, 35, 36, 37, 38, 39,
    40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 53, 54, 55, 56, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 69, 70, 71,
    72, 74, 75, 76, 77, 78, 80, 82, 83, 85, 86, 87, 88, 90, 91, 92, 93, 95, 96, 97, 98, 99, 100, 101, 102, 103, 104,
    105, 106, 107, 109, 110, 111, 113, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130,
    131,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Message as _;

    #[test]
    fn the_tables_cover_the_schema() {
        let mut numbers: Vec<u64> = CONTENT_NUMBERS.iter().chain(WRAPPER_NUMBERS).map(|&n| n.into()).collect();
        assert!(CONTENT_NUMBERS.is_sorted(), "the lowest number counts");
        numbers.extend([2, 15, 35]);
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, KNOWN_NUMBERS);
    }

    #[test]
    fn the_lowest_field_counts() {
        let message = Message {
            conversation: Some("a".into()),
            protocol_message: Some(Box::default()),
            message_context_info: Some(Box::default()),
            ..Default::default()
        };
        assert_eq!(Field::of(&message), Some(Field::Conversation));
        let skipped = Message {
            sender_key_distribution_message: Some(Box::default()),
            message_context_info: Some(Box::default()),
            ..Default::default()
        };
        assert_eq!(Field::of(&skipped), None);
    }

    #[test]
    fn fields_of_a_newer_schema_are_noticed() {
        let mut wire = Message { conversation: Some("hello".into()), ..Default::default() }.encode_to_vec();
        assert!(!has_unknown_field(&wire));
        wire.extend([0xfa, 0x3e, 1, 0]); // field 1007, length-delimited
        assert!(has_unknown_field(&wire));
        for hostile in [&[][..], &[0xff; 12], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0x0b], &[0xfa]] {
            assert!(!has_unknown_field(hostile), "{hostile:?}");
        }
    }
}
