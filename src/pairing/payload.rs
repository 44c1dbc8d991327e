//! `ClientPayload`: who we say we are in the last handshake message (spec 01 §3).
//!
//! Two shapes share their user agent: *registration* carries the public keys of a device that is not linked yet, *login*
//! names the account and device. Both are a few hundred bytes. Fields that are set are encoded even when zero (proto2).

use std::{fmt, str::FromStr};

use bytes::Bytes;

use super::{PairError, qr::ClientType};
use crate::crypto::{PublicKey, keys::KEY_TYPE, md5, xeddsa::SIGNATURE_LEN};
use crate::jid::Jid;
use crate::proto::{
    Message as _,
    companion::{
        DeviceProps,
        device_props::{AppVersion, HistorySyncConfig, PlatformType},
    },
    wa6::{
        ClientPayload,
        client_payload::{
            ConnectReason, ConnectType, DevicePairingRegistrationData, UserAgent, WebInfo,
            user_agent::{AppVersion as WebVersion, Platform, ReleaseChannel},
            web_info::WebSubPlatform,
        },
    },
};

/// The client version that this crate was checked with. An outdated one is refused with failure 405 (spec 01 §3.6).
pub const VERSION: Version = Version::web(1_045_649_367);

/// A version of the web client, `2.3000.1045649367`. It is a runtime value: one that is too old is refused, and a newer
/// one can be given to a running engine at any time. Later versions are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 2 since there are several devices.
    pub primary: u32,
    /// 3000 for years.
    pub secondary: u32,
    /// The client revision.
    pub tertiary: u32,
}

impl Version {
    /// A version of three numbers.
    pub const fn new(primary: u32, secondary: u32, tertiary: u32) -> Self {
        Self { primary, secondary, tertiary }
    }

    /// The version of a client revision as the web page states it (spec 01 §3.6).
    pub const fn web(revision: u32) -> Self {
        Self::new(2, 3000, revision)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.primary, self.secondary, self.tertiary)
    }
}

impl FromStr for Version {
    type Err = PairError;

    /// Reads three decimal numbers with dots in between, and nothing else.
    fn from_str(text: &str) -> Result<Self, PairError> {
        let number = |part: &str| -> Option<u32> {
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten()
        };
        let mut parts = text.split('.').map(number);
        match [parts.next(), parts.next(), parts.next(), parts.next()] {
            [Some(Some(primary)), Some(Some(secondary)), Some(Some(tertiary)), None] => {
                Ok(Self { primary, secondary, tertiary })
            }
            _ => Err(PairError::Malformed("version")),
        }
    }
}

/// What this device claims to be.
///
/// The values travel in every login. They must stay the same for the life of a device, except for `version` and
/// `push_name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Version of the web client whose protocol is spoken.
    pub version: Version,
    /// What the phone shows in its list of linked devices, and in the notice when one is added.
    pub os: String,
    /// Version next to `os`; not shown by current phones.
    pub os_version: (u32, u32, u32),
    /// The icon in the phone's list of linked devices; also decides the client type of the QR code.
    pub platform_type: PlatformType,
    /// The hardware name.
    pub device: String,
    /// Two-letter language, ISO 639-1, lower case.
    pub language: String,
    /// Two-letter country, ISO 3166-1, upper case.
    pub country: String,
    /// The own display name if it is known; sent in logins.
    pub push_name: Option<String>,
    /// Ask the phone for the full history instead of the recent part.
    pub full_history: bool,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            version: VERSION,
            os: "Linux".into(),
            os_version: (0, 1, 0),
            platform_type: PlatformType::Chrome,
            device: "Desktop".into(),
            language: "en".into(),
            country: "US".into(),
            push_name: None,
            full_history: false,
        }
    }
}

impl ClientConfig {
    /// The version as text, `2.3000.1045649367`.
    pub fn version_text(&self) -> String {
        self.version.to_string()
    }

    /// The last field of the QR text, consistent with `platform_type`.
    pub fn client_type(&self) -> ClientType {
        ClientType::of_platform(self.platform_type)
    }

    /// `Browser (OS)`, which linking by code shows on the phone. The server refuses browsers and systems that it does not
    /// know (spec 01 §5.4), so that anything else becomes Chrome or Linux.
    pub fn platform_display(&self) -> String {
        let browser = match self.platform_type {
            PlatformType::Edge => "Edge",
            PlatformType::Firefox => "Firefox",
            PlatformType::Ie => "IE",
            PlatformType::Opera => "Opera",
            PlatformType::Safari => "Safari",
            _ => "Chrome",
        };
        let known = DISPLAYED_SYSTEMS.iter().find(|system| system.eq_ignore_ascii_case(self.os.trim()));
        format!("{browser} ({})", known.unwrap_or(&"Linux"))
    }
}

/// The public side of a device that is not linked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Signal registration id, 1 to 16,380 (at most 2³¹−1); never changes.
    pub registration_id: u32,
    /// Identity public key.
    pub identity: PublicKey,
    /// Id of the signed prekey, at most 24 bits.
    pub signed_prekey_id: u32,
    /// The signed prekey, public half.
    pub signed_prekey: PublicKey,
    /// XEdDSA by the identity over `05 || signed_prekey`.
    pub signed_prekey_signature: [u8; SIGNATURE_LEN],
}

/// What a login says besides the JID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// Do not deliver stanzas until the `active` iq: for a client that has something to do first (spec 01 §3.4).
    pub passive: bool,
    /// How many logins of this device succeeded before, plus one; persisted.
    pub login_counter: u32,
    /// We address peers by LID.
    pub lid_migrated: bool,
}

impl Default for Login {
    fn default() -> Self {
        Self { passive: true, login_counter: 1, lid_migrated: true }
    }
}

/// The payload of a device that wants to be linked, encoded.
///
/// # Errors
/// [`PairError::Payload`] when the id of the signed prekey has more than 24 bits.
pub fn registration(config: &ClientConfig, registration: &Registration) -> Result<Vec<u8>, PairError> {
    let [0, id @ ..] = registration.signed_prekey_id.to_be_bytes() else {
        return Err(PairError::Payload("signed prekey id"));
    };
    let pairing = DevicePairingRegistrationData {
        e_regid: Some(Bytes::copy_from_slice(&registration.registration_id.to_be_bytes())),
        e_keytype: Some(Bytes::from_static(&[KEY_TYPE])),
        e_ident: Some(Bytes::copy_from_slice(registration.identity.as_bytes())),
        e_skey_id: Some(Bytes::copy_from_slice(&id)),
        e_skey_val: Some(Bytes::copy_from_slice(registration.signed_prekey.as_bytes())),
        e_skey_sig: Some(Bytes::copy_from_slice(&registration.signed_prekey_signature)),
        build_hash: Some(Bytes::copy_from_slice(&build_hash(config))),
        device_props: Some(device_props(config).into()),
    };
    let payload = ClientPayload {
        passive: Some(false),
        pull: Some(false),
        device_pairing_data: Some(Box::new(pairing)),
        ..common(config)
    };
    Ok(payload.encode_to_vec())
}

/// The payload of a linked device, encoded. `own` is the phone-number JID of pair-success, with its device.
///
/// # Errors
/// [`PairError::Payload`] when `own` is not a numeric user on the phone-number server, or the counter exceeds 2³¹−1.
pub fn login(config: &ClientConfig, own: &Jid, login: &Login) -> Result<Vec<u8>, PairError> {
    if !own.is_pn_family() {
        return Err(PairError::Payload("own JID"));
    }
    let username = own.user().parse().map_err(|_| PairError::Payload("own user"))?;
    let counter = i32::try_from(login.login_counter).map_err(|_| PairError::Payload("login counter"))?;
    let payload = ClientPayload {
        username: Some(username),
        passive: Some(login.passive),
        push_name: config.push_name.clone(),
        device: Some(own.device().into()),
        lc: Some(counter),
        pull: Some(true),
        lid_db_migrated: Some(login.lid_migrated),
        ..common(config)
    };
    Ok(payload.encode_to_vec())
}

/// MD5 of the version text (spec 01 §3.3).
pub fn build_hash(config: &ClientConfig) -> [u8; 16] {
    md5(config.version_text().as_bytes())
}

/// `DeviceProps`, encoded: the entry in the phone's list, and how it packs history for us (spec 01 §3.5).
pub fn device_props(config: &ClientConfig) -> Vec<u8> {
    let (primary, secondary, tertiary) = config.os_version;
    let history = HistorySyncConfig {
        full_sync_days_limit: config.full_history.then_some(FULL_HISTORY_DAYS),
        full_sync_size_mb_limit: config.full_history.then_some(STORAGE_QUOTA_MB),
        storage_quota_mb: Some(STORAGE_QUOTA_MB),
        inline_initial_payload_in_e2_ee_msg: Some(true),
        support_call_log_history: Some(true),
        support_bot_user_agent_chat_history: Some(true),
        support_cag_reactions_and_polls: Some(true),
        support_biz_hosted_msg: Some(true),
        support_recent_sync_chunk_message_count_tuning: Some(true),
        support_hosted_group_msg: Some(true),
        support_fbid_bot_chat_history: Some(true),
        support_message_association: Some(true),
        support_group_history: Some(true),
        thumbnail_sync_days_limit: Some(THUMBNAIL_DAYS),
        support_manus_history: Some(true),
        support_hatch_history: Some(true),
        ..Default::default()
    };
    DeviceProps {
        os: Some(config.os.clone()),
        version: Some(Box::new(AppVersion {
            primary: Some(primary),
            secondary: Some(secondary),
            tertiary: Some(tertiary),
            ..Default::default()
        })),
        platform_type: Some(config.platform_type as i32),
        require_full_sync: Some(config.full_history),
        history_sync_config: Some(Box::new(history)),
    }
    .encode_to_vec()
}

/// The `UserAgent` part, encoded. For tests and for who wants to see what is said.
pub fn user_agent(config: &ClientConfig) -> Vec<u8> {
    agent(config).encode_to_vec()
}

fn common(config: &ClientConfig) -> ClientPayload {
    ClientPayload {
        user_agent: Some(Box::new(agent(config))),
        web_info: Some(Box::new(WebInfo {
            web_sub_platform: Some(WebSubPlatform::WebBrowser as i32),
            ..Default::default()
        })),
        connect_type: Some(ConnectType::WifiUnknown as i32),
        connect_reason: Some(ConnectReason::UserActivated as i32),
        ..Default::default()
    }
}

fn agent(config: &ClientConfig) -> UserAgent {
    let Version { primary, secondary, tertiary } = config.version;
    UserAgent {
        platform: Some(Platform::Web as i32),
        app_version: Some(Box::new(WebVersion {
            primary: Some(primary),
            secondary: Some(secondary),
            tertiary: Some(tertiary),
            ..Default::default()
        })),
        mcc: Some(NO_NETWORK.into()),
        mnc: Some(NO_NETWORK.into()),
        os_version: Some(BROWSER_OS_VERSION.into()),
        manufacturer: Some(String::new()),
        device: Some(config.device.clone()),
        os_build_number: Some(BROWSER_OS_VERSION.into()),
        release_channel: Some(ReleaseChannel::Release as i32),
        locale_language_iso6391: Some(config.language.clone()),
        locale_country_iso31661_alpha2: Some(config.country.clone()),
        ..Default::default()
    }
}

/// Operating systems that the server lets a phone show (spec 01 §5.4).
const DISPLAYED_SYSTEMS: [&str; 6] = ["Windows", "Mac OS", "Linux", "Ubuntu", "Android", "iOS"];
/// Mobile country and network codes of a client without SIM (spec 01 §3.2).
const NO_NETWORK: &str = "000";
/// Operating system version and build that web companions state (spec 01 §3.2).
const BROWSER_OS_VERSION: &str = "0.1";
/// The storage that web companions promise for history (spec 01 §3.5).
const STORAGE_QUOTA_MB: u32 = 10_240;
/// How far a full history goes back at most (spec 01 §3.5, the profile with full sync).
const FULL_HISTORY_DAYS: u32 = 365;
/// Thumbnails of older messages are left out of the history (spec 01 §3.5).
const THUMBNAIL_DAYS: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_written() {
        for version in [VERSION, Version::new(0, 0, 0), Version::new(u32::MAX, 1, u32::MAX)] {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        assert_eq!(VERSION.to_string(), "2.3000.1045649367");
        for bad in ["", "2", "2.3000", "2.3000.", "2.3000.1.0", "2.3000.-1", "2.3000.+1", "2.3000.4294967296", "a.b.c"]
        {
            assert_eq!(bad.parse::<Version>(), Err(PairError::Malformed("version")), "{bad}");
        }
        assert!(Version::web(2) > Version::web(1));
    }
}
