//! What mutations say: one action per row of the table of spec 05 §A8, with its index, its collection and its value.
//!
//! An action has the parts of the index behind its name, and the message of the schema that the value holds. Where the schema
//! has none it has no `value`; the bytes of the mutation still have everything. What is not known, and what does not fit (a
//! part too many, a value of another action), is [`Action::Unknown`], never an error.
//!
//! | event (spec 07) | of |
//! |---|---|
//! | `chats.update` | Mute, Pin, Archive, MarkChatAsRead, LockChat |
//! | `chats.delete` | DeleteChat, but not in a snapshot |
//! | `message.deleted` | DeleteMessageForMe, ClearChat |
//! | `message.starred` | Star |
//! | `contacts.upsert` | Contact, LidContact, OutContact; their REMOVE is `contacts.deleted` |
//! | `lid_mapping.updated` | PnForLidChat; a Contact with both ids, besides |
//! | `label.edited`, `label.association`, `quick_reply.updated` | LabelEdit; LabelChat, LabelMessage; QuickReply |
//! | `status.muted`, `call.log` | UserStatusMute; CallLog |
//! | `account.settings_updated` | PushName, Locale, and the settings of the table |
//! | `appstate.mutation` | every mutation, for who asks for it |
//!
//! [`Action::event`] is that table. A REMOVE of anything else has no event of its own. A mutation that is
//! [superseded](super::Mutation::superseded) has none at all.

use std::fmt;

use super::{
    CollectionName, Operation,
    index::{Index, IndexPart, MessageRef, Zero},
};
use crate::{
    jid::Jid,
    proto::{
        Message as _,
        chat_lock::ChatLockSettings,
        device_capabilities::DeviceCapabilities,
        sync_action::{
            AgentAction, AiThreadRenameAction, AndroidUnsupportedActions, ArchiveChatAction,
            AutoOrganizeBusinessChatSetting, AvatarUpdatedAction, BizAiSettingsNudgeAction, BotWelcomeRequestAction,
            BubbleLockMessageAction, BusinessBroadcastCampaignAction, BusinessBroadcastInsightsAction,
            BusinessBroadcastListAction, BusinessFolderActivationAction, CallLogAction, ChatAssignmentAction,
            ChatAssignmentOpenedStatusAction, ClearChatAction, CoexV2VersionAction, ContactAction,
            ContactManagerMetadataAction, CtwaMessageReceivedAction, CtwaPerCustomerDataSharingAction,
            CustomPaymentMethodsAction, CustomerDataAction, DeleteChatAction, DeleteIndividualCallLogAction,
            DeleteMessageForMeAction, DetectedOutcomesStatusAction, ExternalWebBetaAction, FavoritesAction,
            InteractiveMessageAction, KeyExpiration, LabelAssociationAction, LabelEditAction, LabelReorderingAction,
            LabelSublistAction, LidContactAction, LocaleSetting, LockChatAction, MaibaAiFeaturesControlAction,
            MarkChatAsReadAction, MarketingMessageAction, MarketingMessageBroadcastAction,
            MerchantPaymentPartnerAction, MusicUserIdAction, MuteAction, NctSaltSyncAction,
            NewsletterSavedInterestsAction, NoteEditAction, NotificationActivitySettingAction, NuxAction,
            OutContactAction, PaymentInfoAction, PaymentTosAction, PinAction, PnForLidChatAction, PrimaryFeature,
            PrimaryVersionAction, PrivacySettingChannelsPersonalisedRecommendationAction,
            PrivacySettingDisableLinkPreviewsAction, PrivacySettingRelayAllCalls, PrivateProcessingSettingAction,
            PushNameSetting, QuickReplyAction, RecentEmojiWeightsAction, RemoveRecentStickerAction, SettingsSyncAction,
            SharedDeviceAllowlistAction, StarAction, StatusPostOptInNotificationPreferencesAction, StatusPrivacyAction,
            StickerAction, SubscriptionAction, SubscriptionsSyncV2Action, SyncActionValue, ThreadPinAction,
            TimeFormatAction, UgcBot, UnarchiveChatsSetting, UserStatusMuteAction, UsernameChatStartModeAction,
            WaffleAccountLinkStateAction, WamoUserIdentifierAction, WasaRootSecretAction,
        },
    },
};

/// Where an action is kept and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The first part of the index.
    pub name: &'static str,
    /// The collection.
    pub collection: CollectionName,
    /// The schema version to write. `None`: it is not known, and such an action is never sent.
    pub version: Option<i32>,
    /// The event of a SET.
    event: Option<&'static str>,
}

macro_rules! optional {
    (?) => {
        None
    };
    (-) => {
        None
    };
    ($value:literal) => {
        Some($value)
    };
}

macro_rules! actions {
    ($(
        $(#[$meta:meta])*
        $variant:ident $name:literal $collection:ident $version:tt $event:tt { $($part:ident: $part_ty:ty),* }
        $($field:ident: $value:ident)?;
    )*) => {
        /// What a mutation says.
        #[derive(Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Action {
            $(
                $(#[$meta])*
                $variant {
                    $(
                        #[doc = concat!("The part `", stringify!($part), "` of the index.")]
                        $part: $part_ty,
                    )*
                    $(
                        #[doc = "What it is set to. Without any content when a REMOVE does not say."]
                        value: Box<$value>,
                    )?
                },
            )*
            /// Something else: see the bytes of the mutation.
            Unknown,
        }

        impl Action {
            /// The rows of all known actions.
            pub const SCHEMAS: &[Schema] = &[$(Schema {
                name: $name,
                collection: CollectionName::$collection,
                version: optional!($version),
                event: optional!($event),
            },)*];

            fn from_parts(operation: Operation, index: &Index<'_>, mut found: SyncActionValue) -> Option<Self> {
                let mut parts = index.rest();
                let action = match index.name() {
                    $($name => {
                        $(let $part = <$part_ty>::read(&mut parts)?;)*
                        $(let $field = value_of(operation, found.$field.take())?;)?
                        Self::$variant { $($part,)* $(value: $field)? }
                    })*
                    _ => return None,
                };
                parts.is_empty().then_some(action)
            }

            /// The row of the action; `None` when it is unknown.
            pub fn schema(&self) -> Option<&'static Schema> {
                let name = match self {
                    $(Self::$variant { .. } => $name,)*
                    Self::Unknown => return None,
                };
                Self::SCHEMAS.iter().find(|schema| schema.name == name)
            }

            /// The index, JSON; `None` when it is unknown.
            pub fn index(&self) -> Option<String> {
                let mut parts = Vec::new();
                match self {
                    $(Self::$variant { $($part,)* .. } => {
                        parts.push(String::from($name));
                        $($part.write(&mut parts);)*
                    })*
                    Self::Unknown => return None,
                }
                Some(Index::new(parts.into_iter().map(Into::into)).to_json())
            }

            /// The value, made at this time in milliseconds since the Unix epoch; `None` when the action is unknown.
            pub fn value(&self, timestamp_ms: i64) -> Option<SyncActionValue> {
                let mut found = SyncActionValue { timestamp: Some(timestamp_ms), ..Default::default() };
                match self {
                    $(Self::$variant { $(value: $field,)? .. } => {
                        $(found.$field = Some($field.clone());)?
                    })*
                    Self::Unknown => return None,
                }
                Some(found)
            }
        }
    };
}

actions! {
    // Chats and messages (spec 05 §A8.1)
    /// A chat is muted, until a time in milliseconds or for ever (−1), or not muted any more.
    Mute "mute" RegularHigh 2 "chats.update" { chat: Jid } mute_action: MuteAction;
    /// A chat is pinned or not; since the time of the value.
    Pin "pin_v1" RegularLow 5 "chats.update" { chat: Jid } pin_action: PinAction;
    /// A chat is archived or not.
    Archive "archive" RegularLow 3 "chats.update" { chat: Jid } archive_chat_action: ArchiveChatAction;
    /// A chat is marked as read or as unread.
    MarkChatAsRead "markChatAsRead" RegularLow 3 "chats.update" { chat: Jid } mark_chat_as_read_action: MarkChatAsReadAction;
    /// The messages of a chat are deleted, up to its range.
    ClearChat "clearChat" RegularHigh 6 "message.deleted" { chat: Jid, delete_starred: bool, delete_media: bool } clear_chat_action: ClearChatAction;
    /// A chat is deleted, up to its range.
    DeleteChat "deleteChat" RegularHigh 6 "chats.delete" { chat: Jid, delete_media: bool } delete_chat_action: DeleteChatAction;
    /// A message is starred or not.
    Star "star" RegularHigh 2 "message.starred" { message: MessageRef } star_action: StarAction;
    /// A message is deleted on our own devices.
    DeleteMessageForMe "deleteMessageForMe" RegularHigh 3 "message.deleted" { message: MessageRef } delete_message_for_me_action: DeleteMessageForMeAction;
    /// A chat is locked or not.
    LockChat "lock" RegularLow 7 "chats.update" { chat: Jid } lock_chat_action: LockChatAction;
    /// How locked chats are shown.
    ChatLockSettings "setting_chatLock" RegularLow 7 "account.settings_updated" {} chat_lock_settings: ChatLockSettings;
    /// The status updates of a user are muted or not.
    UserStatusMute "userStatusMute" RegularHigh 7 "status.muted" { user: Jid } user_status_mute_action: UserStatusMuteAction;
    /// The favourite chats, all of them.
    Favorites "favorites" RegularHigh 1 "account.settings_updated" {} favorites_action: FavoritesAction;
    /// A bot was asked for its welcome.
    BotWelcomeRequest "bot_welcome_request" RegularLow 2 - { chat: Jid } bot_welcome_request_action: BotWelcomeRequestAction;
    /// A thread with an assistant has another title.
    AiThreadRename "ai_thread_rename" RegularLow 7 - { chat: Jid, thread: String } ai_thread_rename_action: AiThreadRenameAction;
    /// A thread is pinned or not.
    ThreadPin "thread_pin" RegularLow 7 - { chat: Jid, thread: String } thread_pin_action: ThreadPinAction;
    /// A thread with an assistant is deleted.
    AiThreadDelete "ai_thread_delete" RegularHigh 7 - { chat: Jid, thread: String };
    /// A button of a message is used up.
    InteractiveMessage "interactive_message_action" RegularLow 1 - { message: MessageRef, extra: String } interactive_message_action: InteractiveMessageAction;
    /// A message is locked or not.
    LockMessage "lock_message" RegularLow ? - { rest: Vec<String> } bubble_lock_message_action: BubbleLockMessageAction;
    // Contacts and identities (spec 05 §A8.2)
    /// A contact of the address book. REMOVE deletes it.
    Contact "contact" CriticalUnblockLow 2 "contacts.upsert" { user: Jid } contact_action: ContactAction;
    /// A contact that is known by its LID. REMOVE deletes it.
    LidContact "lid_contact" CriticalUnblockLow 1 "contacts.upsert" { user: Jid } lid_contact_action: LidContactAction;
    /// A contact that is not on WhatsApp.
    OutContact "out_contact" RegularLow 1 "contacts.upsert" { id: String } out_contact_action: OutContactAction;
    /// The phone number of a LID.
    PnForLidChat "pnForLidChat" Regular 8 "lid_mapping.updated" { lid: Jid } pn_for_lid_chat_action: PnForLidChatAction;
    /// Our phone number was shared with a LID.
    ShareOwnPn "shareOwnPn" Regular 8 - { lid: Jid };
    /// How a chat by user name begins.
    UsernameChatStartMode "usernameChatStartMode" Regular ? - { rest: Vec<String> } username_chat_start_mode: UsernameChatStartModeAction;
    /// The salt of privacy tokens. SET stores it, REMOVE forgets it.
    NctSalt "nct_salt_sync" RegularHigh 1 - {} nct_salt_sync_action: NctSaltSyncAction;
    /// What the primary can do.
    DeviceCapabilities "device_capabilities" RegularLow ? - {} device_capabilities: DeviceCapabilities;
    /// What the primary can do, newer form.
    DeviceCapabilitiesV2 "device_capabilities_v2" RegularLow ? - {} device_capabilities_v2: DeviceCapabilities;
    /// What the contact manager keeps of a contact.
    ContactManagerMetadata "contact_manager_metadata" RegularLow ? - { rest: Vec<String> } contact_manager_metadata_action: ContactManagerMetadataAction;
    // Settings of the account (spec 05 §A8.3)
    /// Our own name.
    PushName "setting_pushName" CriticalBlock 1 "account.settings_updated" {} push_name_setting: PushNameSetting;
    /// The language of the primary.
    Locale "setting_locale" CriticalBlock 3 "account.settings_updated" {} locale_setting: LocaleSetting;
    /// Whether changes of identity are shown. Its value is not in the schema any more.
    SecurityNotification "setting_securityNotification" CriticalBlock ? - {};
    /// An identifier of the user.
    WamoUserIdentifier "generated_wui" CriticalBlock ? - {} wamo_user_identifier_action: WamoUserIdentifierAction;
    /// Whether a new message takes a chat out of the archive.
    UnarchiveChats "setting_unarchiveChats" RegularLow 4 "account.settings_updated" {} unarchive_chats_setting: UnarchiveChatsSetting;
    /// Whether times have 24 hours.
    TimeFormat "time_format" RegularLow 7 "account.settings_updated" {} time_format_action: TimeFormatAction;
    /// Who sees our status updates.
    StatusPrivacy "status_privacy" RegularHigh 7 "account.settings_updated" {} status_privacy: StatusPrivacyAction;
    /// Whether links have no previews.
    DisableLinkPreviews "setting_disableLinkPreviews" Regular 8 "account.settings_updated" {} privacy_setting_disable_link_previews_action: PrivacySettingDisableLinkPreviewsAction;
    /// Whether calls go by way of the servers.
    RelayAllCalls "setting_relayAllCalls" Regular 1 "account.settings_updated" {} privacy_setting_relay_all_calls: PrivacySettingRelayAllCalls;
    /// What notifications are shown.
    NotificationActivity "notificationActivitySetting" Regular ? "account.settings_updated" {} notification_activity_setting_action: NotificationActivitySettingAction;
    /// Whether no channels are recommended.
    ChannelsRecommendation "setting_channels_personalised_recommendation_optout" Regular ? "account.settings_updated" {} privacy_setting_channels_personalised_recommendation_action: PrivacySettingChannelsPersonalisedRecommendationAction;
    /// Whether the beta of the web client is used.
    ExternalWebBeta "external_web_beta" Regular 3 - {} external_web_beta_action: ExternalWebBetaAction;
    /// A hint for new users was seen.
    Nux "nux" RegularLow 7 - { key: String } nux_action: NuxAction;
    /// A version of the primary: current, lowest …
    PrimaryVersion "primary_version" RegularLow 7 - { which: String } primary_version_action: PrimaryVersionAction;
    /// Features of the primary.
    PrimaryFeature "primary_feature" Regular 7 - {} primary_feature: PrimaryFeature;
    /// Whether actions are used that old primaries do not know.
    AndroidUnsupported "android_unsupported_actions" RegularLow 4 - {} android_unsupported_actions: AndroidUnsupportedActions;
    /// Keys up to an epoch are used no more.
    Sentinel "sentinel" RegularLow 3 - {} key_expiration: KeyExpiration;
    /// A setting of the desktop and web clients.
    SettingsSync "settings_sync" RegularLow 1 - { platform: String, setting: String, chat: String } settings_sync_action: SettingsSyncAction;
    /// Whether private processing is on.
    PrivateProcessing "private_processing_setting" RegularHigh ? - {} private_processing_setting_action: PrivateProcessingSettingAction;
    /// Whether status updates are notified.
    StatusPostOptIn "status_post_opt_in_notification_preferences_action" RegularHigh ? - {} status_post_opt_in_notification_preferences_action: StatusPostOptInNotificationPreferencesAction;
    /// Whether another account is linked.
    WaffleAccountLink "waffle_account_link_state" RegularHigh 1 - {} waffle_account_link_state_action: WaffleAccountLinkStateAction;
    /// Whether a shared device is allowed.
    SharedDeviceAllowlist "shared_device_allowlist" RegularHigh ? - {} shared_device_allowlist_action: SharedDeviceAllowlistAction;
    /// Whether chats with businesses are put in order.
    AutoOrganizeBusinessChat "setting_autoOrganizeBusinessChat" RegularLow ? - {} auto_organize_business_chat_setting: AutoOrganizeBusinessChatSetting;
    /// The version of the shared use with the business platform.
    CoexV2Version "coexV2Version" RegularLow ? - {} coex_v2_version_action: CoexV2VersionAction;
    /// Whether there is a folder of businesses.
    BusinessFolderActivation "business_folder_activation" RegularLow ? - {} business_folder_activation_action: BusinessFolderActivationAction;
    // Labels, quick replies and business (spec 05 §A8.4)
    /// A label is made, changed or deleted.
    LabelEdit "label_edit" Regular 3 "label.edited" { label: String } label_edit_action: LabelEditAction;
    /// A chat has a label or not.
    LabelChat "label_jid" Regular 3 "label.association" { label: String, chat: Jid } label_association_action: LabelAssociationAction;
    /// A message has a label or not.
    LabelMessage "label_message" Regular 3 "label.association" { label: String, chat: Jid, id: String, zero: Zero, also_zero: Zero } label_association_action: LabelAssociationAction;
    /// The order of labels.
    LabelReordering "label_reordering" Regular 3 - {} label_reordering_action: LabelReorderingAction;
    /// A chat is on a list of a label.
    LabelSublist "label_sublist" Regular 1 - { predefined: String, chat: Jid } label_sublist_action: LabelSublistAction;
    /// A quick reply; deleted by a SET that says so.
    QuickReply "quick_reply" Regular 2 "quick_reply.updated" { id: String } quick_reply_action: QuickReplyAction;
    /// A device of an agent.
    DeviceAgent "deviceAgent" Regular 7 - { id: String } agent_action: AgentAction;
    /// A chat belongs to an agent.
    AgentChatAssignment "agentChatAssignment" Regular 7 - { chat: Jid } chat_assignment: ChatAssignmentAction;
    /// An agent has opened a chat.
    AgentChatAssignmentOpened "agentChatAssignmentOpenedStatus" Regular 7 - { chat: Jid, agent: String } chat_assignment_opened_status: ChatAssignmentOpenedStatusAction;
    /// A paid subscription.
    Subscription "subscription" Regular ? - {} subscription_action: SubscriptionAction;
    /// Paid subscriptions and what they bring.
    SubscriptionsV2 "subscriptions_sync_v2" Regular 1 - {} subscriptions_sync_v2_action: SubscriptionsSyncV2Action;
    /// A template of a marketing message.
    MarketingMessage "marketingMessage" Regular 7 - { id: String } marketing_message_action: MarketingMessageAction;
    /// How a marketing message was answered.
    MarketingMessageBroadcast "marketingMessageBroadcast" Regular 7 - { id: String, message: String } marketing_message_broadcast_action: MarketingMessageBroadcastAction;
    /// A broadcast list of a business.
    BusinessBroadcastList "business_broadcast_list" Regular 1 - { id: String } business_broadcast_list_action: BusinessBroadcastListAction;
    /// A campaign of a business.
    BusinessBroadcastCampaign "business_broadcast_campaign" Regular 1 - { id: String } business_broadcast_campaign_action: BusinessBroadcastCampaignAction;
    /// How a campaign did.
    BusinessBroadcastInsights "business_broadcast_insights_sync" Regular 1 - { id: String } business_broadcast_insights_action: BusinessBroadcastInsightsAction;
    /// A broadcast. Its value is not in the schema.
    Broadcast "broadcast" Regular ? - { rest: Vec<String> };
    /// Whether data of a customer is shared.
    CtwaDataSharing "ctwaPerCustomerDataSharing" RegularHigh 1 - { lid: Jid } ctwa_per_customer_data_sharing_action: CtwaPerCustomerDataSharingAction;
    /// Somebody wrote by way of an advertisement.
    CtwaMessageReceived "ctwa_message_received" Regular ? - { rest: Vec<String> } ctwa_message_received_action: CtwaMessageReceivedAction;
    /// Whether outcomes are detected.
    DetectedOutcomes "detected_outcomes_status_action" Regular 1 - {} detected_outcomes_status_action: DetectedOutcomesStatusAction;
    /// A note on a chat.
    NoteEdit "note_edit" RegularLow 7 - { id: String } note_edit_action: NoteEditAction;
    /// What a business keeps of a customer.
    CustomerData "customer_data" RegularLow 1 - { chat: Jid } customer_data_action: CustomerDataAction;
    /// What the assistant of a business does.
    MaibaAiFeatures "maiba_ai_features_control" RegularHigh ? - {} maiba_ai_features_control_action: MaibaAiFeaturesControlAction;
    /// A hint about the assistant of a business.
    BizAiSettingsNudge "biz_ai_settings_nudge" RegularHigh 1 - {} biz_ai_settings_nudge_action: BizAiSettingsNudgeAction;
    /// A bot that a user made.
    UgcBot "ugc_bot" RegularHigh ? - { rest: Vec<String> } ugc_bot: UgcBot;
    /// Secrets of a chat.
    WasaRootSecret "wasa_root_secret" RegularHigh 1 - { chat: Jid } wasa_root_secret_action: WasaRootSecretAction;
    /// A step of a flow. Its value is not in the schema.
    GalaxyFlow "galaxy_flow_action" Regular ? - { rest: Vec<String> };
    // Stickers, payments, calls, other (spec 05 §A8.5)
    /// A sticker is a favourite or not.
    FavoriteSticker "favoriteSticker" RegularLow 7 - { hash: String } sticker_action: StickerAction;
    /// A sticker is not among the recent ones any more.
    RemoveRecentSticker "removeRecentSticker" RegularLow 7 - { hash: String } remove_recent_sticker_action: RemoveRecentStickerAction;
    /// How often emojis are used.
    RecentEmojiWeights "recent_emoji_weights_action" RegularLow ? - {} recent_emoji_weights_action: RecentEmojiWeightsAction;
    /// The avatar is another.
    AvatarUpdated "avatar_updated_action" Regular 7 - {} avatar_updated_action: AvatarUpdatedAction;
    /// An account for payments.
    PaymentInfo "payment_info" RegularLow 7 - {} payment_info_action: PaymentInfoAction;
    /// Terms of payments were accepted.
    PaymentTos "payment_tos" RegularLow 7 - {} payment_tos_action: PaymentTosAction;
    /// Ways of payment.
    CustomPaymentMethods "custom_payment_methods" RegularLow 7 - {} custom_payment_methods_action: CustomPaymentMethodsAction;
    /// Who carries out payments.
    MerchantPaymentPartner "merchant_payment_partner" RegularLow 7 - {} merchant_payment_partner_action: MerchantPaymentPartnerAction;
    /// A call. Its direction is not reliable: compare the creator with our own JIDs.
    CallLog "call_log" Regular 1 "call.log" { creator: Jid, call: String, direction: String } call_log_action: CallLogAction;
    /// A call is deleted from the log.
    DeleteIndividualCallLog "delete_individual_call_log" Regular ? - { rest: Vec<String> } delete_individual_call_log: DeleteIndividualCallLogAction;
    /// Interests for channels.
    NewsletterSavedInterests "newsletter_saved_interests" Regular ? - {} newsletter_saved_interests_action: NewsletterSavedInterestsAction;
    /// A user of a music service.
    MusicUserId "music_user_id" Regular ? - {} music_user_id_action: MusicUserIdAction;
}

fn value_of<T: Default>(operation: Operation, found: Option<Box<T>>) -> Option<Box<T>> {
    match operation {
        Operation::Set => found,
        // Only the index of a REMOVE counts.
        Operation::Remove => Some(found.unwrap_or_default()),
    }
}

impl Action {
    /// The action of an index and an encoded `SyncActionValue`.
    pub fn parse(operation: Operation, index: &[u8], value: &[u8]) -> Self {
        let parsed = Index::parse(index).zip(SyncActionValue::decode(value).ok());
        parsed.and_then(|(index, value)| Self::from_parts(operation, &index, value)).unwrap_or(Self::Unknown)
    }

    /// The event of spec 07 that tells of it, besides `appstate.mutation`.
    pub fn event(&self, operation: Operation) -> Option<&'static str> {
        match (operation, self.schema()?.event) {
            (Operation::Set, event) => event,
            (Operation::Remove, Some("contacts.upsert")) => Some("contacts.deleted"),
            (Operation::Remove, _) => None,
        }
    }
}

impl fmt::Debug for Action {
    /// The name alone: the rest are phone numbers, names and settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Action({})", self.schema().map_or("unknown", |schema| schema.name))
    }
}
