//! The QR code: its text, and how long each one lives (spec 01 §4.2 and §4.3).
//!
//! ```text
//! https://wa.me/settings/linked_devices#REF,NOISE,IDENTITY,SECRET,TYPE
//! ```
//!
//! `REF` is the server's text, verbatim; the two public keys and the ADV secret are standard base64 with padding; `TYPE` is
//! one character ([`ClientType`]). **The text contains the ADV secret**: whoever has it can link this device to another
//! account until the ref expires, so it belongs on the screen and not into a log.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{PairError, limit};
use crate::crypto::{PublicKey, Secret};
use crate::proto::companion::device_props::PlatformType;

/// What the two most deployed clients put in front of the code, so that the phone's camera app opens the right page.
pub const PREFIX: &str = "https://wa.me/settings/linked_devices#";

/// A `pair-device` brings six refs; more than this is refused.
pub const MAX_REFS: usize = 32;

/// A ref has some 90 characters; a longer one than this is refused.
pub const MAX_REF_LEN: usize = 512;

/// The first code of a batch lives this long (spec 01 §4.2).
pub const FIRST_LIFETIME: Duration = Duration::from_secs(60);

/// Each other code of a batch lives this long (spec 01 §4.2).
pub const LIFETIME: Duration = Duration::from_secs(20);

/// What kind of client asks to be linked; the last field of the QR text (spec 01 §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientType {
    /// `0`.
    #[default]
    Unknown,
    /// `1`.
    Chrome,
    /// `2`.
    Edge,
    /// `3`.
    Firefox,
    /// `4`.
    InternetExplorer,
    /// `5`.
    Opera,
    /// `6`.
    Safari,
    /// `7`.
    Electron,
    /// `8`: a Windows app.
    Uwp,
    /// `9`.
    OtherWeb,
    /// `c`.
    MacOs,
    /// `d`. Phones want an attestation that this device cannot give.
    AndroidTablet,
    /// `e`. Phones want an attestation that this device cannot give.
    AndroidPhone,
    /// `f`. Phones want an attestation that this device cannot give.
    AndroidAmbiguous,
}

impl ClientType {
    /// The type that fits what the client payload says about the platform.
    pub const fn of_platform(platform: PlatformType) -> Self {
        match platform {
            PlatformType::Chrome => Self::Chrome,
            PlatformType::Edge => Self::Edge,
            PlatformType::Firefox => Self::Firefox,
            PlatformType::Ie => Self::InternetExplorer,
            PlatformType::Opera => Self::Opera,
            PlatformType::Safari => Self::Safari,
            PlatformType::Uwp => Self::Uwp,
            PlatformType::Catalina => Self::MacOs,
            PlatformType::Desktop => Self::Electron,
            PlatformType::AndroidTablet => Self::AndroidTablet,
            PlatformType::AndroidPhone => Self::AndroidPhone,
            PlatformType::AndroidAmbiguous => Self::AndroidAmbiguous,
            _ => Self::Unknown,
        }
    }

    /// The character in the QR text.
    pub const fn as_char(self) -> char {
        match self {
            Self::Unknown => '0',
            Self::Chrome => '1',
            Self::Edge => '2',
            Self::Firefox => '3',
            Self::InternetExplorer => '4',
            Self::Opera => '5',
            Self::Safari => '6',
            Self::Electron => '7',
            Self::Uwp => '8',
            Self::OtherWeb => '9',
            Self::MacOs => 'c',
            Self::AndroidTablet => 'd',
            Self::AndroidPhone => 'e',
            Self::AndroidAmbiguous => 'f',
        }
    }

    /// The type of a character; `None` for one without meaning.
    pub const fn from_char(c: char) -> Option<Self> {
        Some(match c {
            '0' => Self::Unknown,
            '1' => Self::Chrome,
            '2' => Self::Edge,
            '3' => Self::Firefox,
            '4' => Self::InternetExplorer,
            '5' => Self::Opera,
            '6' => Self::Safari,
            '7' => Self::Electron,
            '8' => Self::Uwp,
            '9' => Self::OtherWeb,
            'c' => Self::MacOs,
            'd' => Self::AndroidTablet,
            'e' => Self::AndroidPhone,
            'f' => Self::AndroidAmbiguous,
            _ => return None,
        })
    }
}

/// What a QR code says. `Debug` hides the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QrContent {
    /// The server's ref, ASCII without comma.
    pub reference: String,
    /// Public half of the noise key of the device that shows the code.
    pub noise: PublicKey,
    /// Public half of its Signal identity.
    pub identity: PublicKey,
    /// The secret that the phone authenticates the device identity with.
    pub adv_secret: Secret<32>,
    /// What kind of client it is.
    pub client: ClientType,
}

impl QrContent {
    /// Puts the parts together.
    pub fn new(
        reference: impl Into<String>,
        noise: PublicKey,
        identity: PublicKey,
        adv_secret: Secret<32>,
        client: ClientType,
    ) -> Self {
        Self { reference: reference.into(), noise, identity, adv_secret, client }
    }

    /// The text without the `https` prefix. Contains the ADV secret.
    pub fn bare(&self) -> String {
        let secret = Zeroizing::new(STANDARD.encode(self.adv_secret.expose()));
        format!(
            "{},{},{},{},{}",
            self.reference,
            STANDARD.encode(self.noise.as_bytes()),
            STANDARD.encode(self.identity.as_bytes()),
            *secret,
            self.client.as_char(),
        )
    }

    /// The text to show as a QR code: [`PREFIX`] and the bare text. Contains the ADV secret.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", self.bare())
    }

    /// Reads a QR text as a phone does: everything up to a `#` is dropped.
    ///
    /// # Errors
    /// [`PairError::TooLong`], [`PairError::Missing`] or [`PairError::Malformed`] with the field.
    pub fn parse(text: &str) -> Result<Self, PairError> {
        limit("QR text", text.len(), MAX_TEXT_LEN)?;
        let bare = text.rsplit_once('#').map_or(text, |(_, bare)| bare);
        let mut fields = bare.split(',');
        let mut field = |what| fields.next().filter(|field| !field.is_empty()).ok_or(PairError::Missing(what));
        let reference = field("ref of the QR text")?.to_owned();
        let noise = key("noise key of the QR text", field("noise key of the QR text")?)?;
        let identity = key("identity of the QR text", field("identity of the QR text")?)?;
        let adv_secret = key("ADV secret of the QR text", field("ADV secret of the QR text")?)?;
        let client = field("client type of the QR text")?;
        let mut chars = client.chars();
        let (Some(client), None) = (chars.next(), chars.next()) else {
            return Err(PairError::Malformed("client type of the QR text"));
        };
        let client = ClientType::from_char(client).ok_or(PairError::Malformed("client type of the QR text"))?;
        if fields.next().is_some() {
            return Err(PairError::Malformed("QR text"));
        }
        Ok(Self {
            reference,
            noise: PublicKey::from_bytes(*noise),
            identity: PublicKey::from_bytes(*identity),
            adv_secret: Secret::new(*adv_secret),
            client,
        })
    }
}

/// The refs of one `pair-device`, shown one after the other.
///
/// ```
/// use std::time::Duration;
/// use wamd::pairing::qr::RefPlan;
///
/// let mut plan = RefPlan::new(vec!["2@a".into(), "2@b".into()]);
/// let first = plan.next_turn().unwrap();
/// assert_eq!((first.reference.as_str(), first.index, first.total), ("2@a", 1, 2));
/// assert_eq!(first.lifetime, Duration::from_secs(60));
/// assert_eq!(plan.next_turn().unwrap().lifetime, Duration::from_secs(20));
/// assert_eq!(plan.next_turn(), None);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RefPlan {
    refs: Vec<String>,
    shown: usize,
}

/// One code: which ref to show, and for how long.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefTurn {
    /// The ref, verbatim.
    pub reference: String,
    /// Counts from 1.
    pub index: u32,
    /// Refs in the batch.
    pub total: u32,
    /// How long the code is valid from now.
    pub lifetime: Duration,
}

impl RefPlan {
    /// A plan over refs as [`super::stanza::PairDevice`] gives them.
    pub fn new(refs: Vec<String>) -> Self {
        Self { refs, shown: 0 }
    }

    /// Goes on to the next ref. `None` when all were shown: the codes are used up and the server will close.
    pub fn next_turn(&mut self) -> Option<RefTurn> {
        let reference = self.refs.get(self.shown)?.clone();
        let lifetime = if self.shown == 0 { FIRST_LIFETIME } else { LIFETIME };
        self.shown = self.shown.saturating_add(1);
        Some(RefTurn { reference, index: count(self.shown), total: count(self.refs.len()), lifetime })
    }

    /// The ref on the screen; `None` before the first turn.
    pub fn current(&self) -> Option<&str> {
        self.shown.checked_sub(1).and_then(|last| self.refs.get(last)).map(String::as_str)
    }
}

impl fmt::Debug for RefPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefPlan").field("refs", &self.refs.len()).field("shown", &self.shown).finish()
    }
}

impl fmt::Debug for RefTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefTurn")
            .field("reference", &"[redacted]")
            .field("index", &self.index)
            .field("total", &self.total)
            .field("lifetime", &self.lifetime)
            .finish()
    }
}

/// Whether a text can be a ref: ASCII that prints, without the comma that separates the fields.
pub(super) fn check_ref(reference: &str) -> Result<(), PairError> {
    limit("ref", reference.len(), MAX_REF_LEN)?;
    if reference.is_empty() || !reference.bytes().all(|b| b.is_ascii_graphic() && b != b',' && b != b'#') {
        return Err(PairError::Malformed("ref"));
    }
    Ok(())
}

fn key(what: &'static str, text: &str) -> Result<Zeroizing<[u8; 32]>, PairError> {
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| PairError::Malformed(what))?);
    let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| PairError::Malformed(what))?;
    Ok(Zeroizing::new(key))
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Prefix, ref, three keys and the separators, with room to spare.
const MAX_TEXT_LEN: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_types_round_trip() {
        for c in "0123456789cdef".chars() {
            assert_eq!(ClientType::from_char(c).map(ClientType::as_char), Some(c));
        }
        assert_eq!(ClientType::from_char('a'), None);
        assert_eq!(ClientType::of_platform(PlatformType::Chrome).as_char(), '1');
        assert_eq!(ClientType::of_platform(PlatformType::AndroidPhone).as_char(), 'e');
        assert_eq!(ClientType::of_platform(PlatformType::Unknown).as_char(), '0');
    }

    #[test]
    fn six_refs_live_160_seconds() {
        let mut plan = RefPlan::new((0..6).map(|i| format!("2@{i}")).collect());
        assert_eq!(plan.current(), None);
        let mut total = Duration::ZERO;
        while let Some(turn) = plan.next_turn() {
            total += turn.lifetime;
            assert_eq!(plan.current(), Some(turn.reference.as_str()));
            assert_eq!(turn.total, 6);
        }
        assert_eq!(total, Duration::from_secs(160));
        assert_eq!(plan.current(), Some("2@5"));
    }

    #[test]
    fn bad_refs_are_refused() {
        assert_eq!(check_ref("2@ab+/="), Ok(()));
        for bad in ["", "2@a,b", "2@a b", "2@a#b", "2@é", "2@a\n"] {
            assert_eq!(check_ref(bad), Err(PairError::Malformed("ref")), "{bad:?}");
        }
        assert!(matches!(check_ref(&"a".repeat(513)), Err(PairError::TooLong { len: 513, max: 512, .. })));
    }

    #[test]
    fn bad_texts_are_refused() {
        let key = STANDARD.encode([1; 32]);
        for bad in [
            String::new(),
            "2@a".into(),
            format!("2@a,{key},{key},{key}"),
            format!("2@a,{key},{key},{key},"),
            format!("2@a,{key},{key},{key},1,2"),
            format!("2@a,{key},{key},{key},12"),
            format!("2@a,{key},{key},{key},z"),
            format!("2@a,{key},{key},AAAA,1"),
            format!("2@a,{key},!,{key},1"),
            "#".into(),
            "x".repeat(2_000),
        ] {
            assert!(QrContent::parse(&bad).is_err(), "{bad}");
        }
        assert!(QrContent::parse(&format!("2@a,{key},{key},{key},1")).is_ok());
    }
}
