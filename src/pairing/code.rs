//! Linking by phone number: an 8-character code that is shown here and typed on the phone (spec 01 §5).
//!
//! ```text
//!  companion_hello   our ephemeral key, wrapped with the code ──► server ──► phone
//!  primary_hello     the phone's ephemeral key, wrapped with the code, and its identity ◄──
//!  companion_finish  both identities and a random, sealed with the secret of the ephemeral keys ──►
//!
//!  wrapped = salt(32) || iv(16) || AES-256-CTR(PBKDF2(code, salt), iv, ephemeral public(32))         80 bytes
//!  bundle  = salt(32) || iv(12) || AES-256-GCM(HKDF(S1), iv, identity || primary identity || random) 156 bytes
//!  S1 = ephemeral × ephemeral      S2 = identity × identity      ADV secret = HKDF(S1 || S2 || random)
//! ```
//!
//! Nothing here authenticates the code: a wrong one gives a wrong key, and the phone notices that it cannot open the bundle.
//! [`stretch`] takes tens of milliseconds and is kept apart from the rest, so that it can run elsewhere.
//!
//! Stanzas: [`hello`] and [`finish_request`] go out (without id, which whoever sends them adds), [`parse_reference`] and
//! [`PrimaryHello`] come in.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{PairError, limit, payload::ClientConfig};
use crate::{
    crypto::{AesGcm, KeyPair, PublicKey, Rng, Secret, aes256_ctr, hkdf_sha256, pbkdf2_hmac_sha256, x25519},
    jid::Jid,
    node::{Node, NodeRef},
    stanza::iq,
};

/// Characters of a code.
pub const CODE_LEN: usize = 8;
/// Bytes of a wrapped ephemeral key: salt, IV, key.
pub const WRAPPED_LEN: usize = 80;
/// Bytes of the key bundle of companion_finish: salt, IV, three sealed values of 32 bytes, tag.
pub const BUNDLE_LEN: usize = 156;
/// A reference has some 30 bytes; a longer one than this is refused.
pub const MAX_REFERENCE_LEN: usize = 512;

// ---- the number -----------------------------------------------------------------------------------------------

/// A phone number with its country code: 7 to 15 digits, the first of which is not 0.
///
/// Parsing drops what people write between digits (a leading `+`, spaces, dashes, dots, slashes, parentheses) and refuses
/// everything else. `Debug` hides all but the last two digits.
///
/// ```
/// use wamd::pairing::code::{PhoneNumber, PhoneNumberError};
///
/// let number: PhoneNumber = "+55 (11) 98765-4321".parse().unwrap();
/// assert_eq!(number.as_str(), "5511987654321");
/// assert_eq!("0171 1234567".parse::<PhoneNumber>(), Err(PhoneNumberError::LeadingZero));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PhoneNumber(String);

/// Why a text is not a phone number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PhoneNumberError {
    /// A character that does not belong into a phone number.
    #[error("a character of the phone number is neither a digit nor one that separates digits")]
    Character,
    /// Too few or too many digits.
    #[error("a phone number of {digits} digits, 7 to 15 expected")]
    Length {
        /// How many there are.
        digits: usize,
    },
    /// The number starts with 0: it is not in its international form.
    #[error("the phone number starts with 0: the country code is needed")]
    LeadingZero,
}

impl PhoneNumber {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address of the number.
    pub fn jid(&self) -> Jid {
        Jid::pn(&self.0)
    }
}

impl FromStr for PhoneNumber {
    type Err = PhoneNumberError;

    fn from_str(text: &str) -> Result<Self, PhoneNumberError> {
        let text = text.trim();
        let text = text.strip_prefix('+').unwrap_or(text);
        let separates = |c: char| c.is_whitespace() || matches!(c, '-' | '.' | '/' | '(' | ')');
        let mut digits = String::new();
        let mut count = 0_usize;
        for c in text.chars().filter(|c| !separates(*c)) {
            if !c.is_ascii_digit() {
                return Err(PhoneNumberError::Character);
            }
            count = count.saturating_add(1);
            if count <= MAX_DIGITS {
                digits.push(c);
            }
        }
        if !(MIN_DIGITS..=MAX_DIGITS).contains(&count) {
            return Err(PhoneNumberError::Length { digits: count });
        }
        if digits.starts_with('0') {
            return Err(PhoneNumberError::LeadingZero);
        }
        Ok(Self(digits))
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.jid().redacted())
    }
}

// ---- the code -------------------------------------------------------------------------------------------------

/// A pair code: 8 characters of the alphabet `123456789ABCDEFGHJKLMNPQRSTVWXYZ`.
///
/// **Whoever sees it while it is valid can link this device to an account of theirs**, so it belongs on the screen and not
/// into a log: `Debug` hides it, [`PairCode::shown`] is the form for people. Wiped when dropped.
///
/// ```
/// use wamd::pairing::code::PairCode;
///
/// let code: PairCode = "hlpb-f19s".parse().unwrap();
/// assert_eq!(code.shown(), "HLPB-F19S");
/// assert_eq!(format!("{code:?}"), "[redacted]");
/// ```
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PairCode([u8; CODE_LEN]);

/// Why a text is not a pair code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairCodeError {
    /// Not 8 characters.
    #[error("a pair code of {characters} characters, 8 expected")]
    Length {
        /// How many there are, without dashes and spaces.
        characters: usize,
    },
    /// A character outside of the alphabet: it has no 0, I, O and U.
    #[error("a character of the pair code is not in its alphabet (no 0, I, O, U)")]
    Character,
}

impl PairCode {
    /// Draws a code: 40 random bits.
    pub fn generate(rng: &mut impl Rng) -> Self {
        let mut random = Zeroizing::new([0; 5]);
        rng.fill_bytes(&mut *random);
        Self::from_bytes(&random)
    }

    /// The code for 5 bytes: 5 bits per character, most significant first (spec 01 §5.2).
    pub fn from_bytes(bytes: &[u8; 5]) -> Self {
        let [a, b, c, d, e] = *bytes;
        let bits = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        let mut code = [0; CODE_LEN];
        for (shift, character) in (0..CODE_LEN).rev().map(|place| place.saturating_mul(5)).zip(&mut code) {
            let index = usize::try_from(bits >> shift & 0x1F).unwrap_or(0);
            *character = ALPHABET.get(index).copied().unwrap_or(b'1');
        }
        Self(code)
    }

    /// The 8 characters without dash: the password of every derivation.
    pub fn as_str(&self) -> &str {
        // Every character comes out of the alphabet.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// As people read it, `XXXX-XXXX`.
    pub fn shown(&self) -> String {
        let (left, right) = self.as_str().split_at(CODE_LEN / 2);
        format!("{left}-{right}")
    }
}

impl FromStr for PairCode {
    type Err = PairCodeError;

    /// Reads a code of the caller's choice: dashes and spaces are dropped, letters are made upper case.
    fn from_str(text: &str) -> Result<Self, PairCodeError> {
        let mut code = [0; CODE_LEN];
        let mut characters = 0_usize;
        for c in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let upper = u8::try_from(c.to_ascii_uppercase()).map_err(|_| PairCodeError::Character)?;
            if !ALPHABET.contains(&upper) {
                return Err(PairCodeError::Character);
            }
            if let Some(place) = code.get_mut(characters) {
                *place = upper;
            }
            characters = characters.saturating_add(1);
        }
        if characters == CODE_LEN { Ok(Self(code)) } else { Err(PairCodeError::Length { characters }) }
    }
}

impl fmt::Debug for PairCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

// ---- wrapping -------------------------------------------------------------------------------------------------

/// The key that a code and a salt give (spec 01 §5.3). Slow on purpose: 131,072 rounds.
pub fn stretch(code: &PairCode, salt: &[u8; 32]) -> Secret<32> {
    pbkdf2_hmac_sha256(&code.0, salt, ITERATIONS)
}

/// An ephemeral public key, wrapped with a code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WrappedKey {
    salt: [u8; 32],
    iv: [u8; 16],
    sealed: [u8; 32],
}

impl WrappedKey {
    /// Wraps a key; `key` is what [`stretch`] makes of the code and this salt.
    pub fn seal(public: &PublicKey, key: &Secret<32>, salt: [u8; 32], iv: [u8; 16]) -> Self {
        let mut sealed = *public.as_bytes();
        aes256_ctr(key.expose(), &iv, &mut sealed);
        Self { salt, iv, sealed }
    }

    /// Takes the first [`WRAPPED_LEN`] bytes; `None` when there are fewer.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let (salt, rest) = bytes.split_first_chunk()?;
        let (iv, rest) = rest.split_first_chunk()?;
        Some(Self { salt: *salt, iv: *iv, sealed: *rest.first_chunk()? })
    }

    /// The salt that its key is made with.
    pub const fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// Unwraps the key; with the key of another code it is some other key.
    pub fn open(&self, key: &Secret<32>) -> PublicKey {
        let mut public = self.sealed;
        aes256_ctr(key.expose(), &self.iv, &mut public);
        PublicKey::from_bytes(public)
    }

    /// As it travels.
    pub fn to_bytes(self) -> [u8; WRAPPED_LEN] {
        let mut bytes = [0; WRAPPED_LEN];
        let parts = self.salt.iter().chain(&self.iv).chain(&self.sealed);
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        bytes
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrappedKey([redacted])")
    }
}

// ---- the end --------------------------------------------------------------------------------------------------

/// The fresh random values of companion_finish.
#[derive(Clone, Debug)]
pub struct FinishRandom {
    /// Goes into the ADV secret, and sealed to the phone.
    pub adv: Secret<32>,
    /// Salt of the bundle's key.
    pub salt: [u8; 32],
    /// Nonce of the bundle.
    pub iv: [u8; 12],
}

impl FinishRandom {
    /// Draws them.
    pub fn generate(rng: &mut impl Rng) -> Self {
        let (mut salt, mut iv) = ([0; 32], [0; 12]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut iv);
        Self { adv: Secret::random(rng), salt, iv }
    }
}

/// What companion_finish brings about.
#[derive(Clone)]
#[non_exhaustive]
pub struct Finish {
    /// For the phone, [`BUNDLE_LEN`] bytes.
    pub bundle: Vec<u8>,
    /// Replaces the ADV secret, before the bundle is sent.
    pub adv_secret: Secret<32>,
}

impl fmt::Debug for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finish").finish_non_exhaustive()
    }
}

/// Makes the bundle and the ADV secret (spec 01 §5.6). `ours` and `theirs` are the pair of the identity and of the
/// ephemeral key.
///
/// # Errors
/// [`PairError::WeakKey`] when a key of the phone is of small order.
pub fn finish(ours: Keys<&KeyPair>, theirs: Keys<&PublicKey>, random: &FinishRandom) -> Result<Finish, PairError> {
    let ephemeral = x25519(ours.ephemeral.private(), theirs.ephemeral).map_err(|_| PairError::WeakKey)?;
    let identity = x25519(ours.identity.private(), theirs.identity).map_err(|_| PairError::WeakKey)?;

    let key = Zeroizing::new(hkdf_sha256::<32>(Some(&random.salt), ephemeral.expose(), BUNDLE_INFO));
    let mut sealed = Vec::with_capacity(BUNDLE_LEN);
    sealed.extend_from_slice(ours.identity.public().as_bytes());
    sealed.extend_from_slice(theirs.identity.as_bytes());
    sealed.extend_from_slice(random.adv.expose());
    AesGcm::new(&key).seal(&random.iv, &[], &mut sealed);
    let bundle = [&random.salt[..], &random.iv, &sealed].concat();

    let secrets = Zeroizing::new([&ephemeral.expose()[..], identity.expose(), random.adv.expose()].concat());
    let adv_secret = Secret::new(hkdf_sha256(None, &secrets, ADV_INFO));
    Ok(Finish { bundle, adv_secret })
}

/// The two keys that one side brings.
#[derive(Clone, Copy, Debug)]
pub struct Keys<K> {
    /// Its Signal identity.
    pub identity: K,
    /// The key that was wrapped with the code.
    pub ephemeral: K,
}

// ---- stanzas --------------------------------------------------------------------------------------------------

/// What companion_hello asks for.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// The account to link to.
    pub phone: &'a PhoneNumber,
    /// Whether the phone shows a notification.
    pub notify: bool,
    /// Our ephemeral key.
    pub wrapped: &'a WrappedKey,
    /// Public half of our noise key.
    pub noise: &'a PublicKey,
    /// What we claim to be.
    pub client: &'a ClientConfig,
}

/// `companion_hello` (spec 01 §5.4).
pub fn hello(request: &Hello<'_>) -> Node {
    let stage = registration(request.phone, "companion_hello")
        .attr("should_show_push_notification", if request.notify { "true" } else { "false" })
        .child(leaf("link_code_pairing_wrapped_companion_ephemeral_pub", request.wrapped.to_bytes()))
        .child(leaf("companion_server_auth_key_pub", request.noise.as_bytes()))
        .child(leaf("companion_platform_id", request.client.client_type().as_char().to_string()))
        .child(leaf("companion_platform_display", request.client.platform_display()))
        .child(leaf("link_code_pairing_nonce", [0]));
    iq::request("set", "md").child(stage)
}

/// `companion_finish` (spec 01 §5.6).
pub fn finish_request(phone: &PhoneNumber, finish: &Finish, identity: &PublicKey, reference: &[u8]) -> Node {
    let stage = registration(phone, "companion_finish")
        .child(leaf("link_code_pairing_wrapped_key_bundle", &finish.bundle))
        .child(leaf("companion_identity_public", identity.as_bytes()))
        .child(leaf("link_code_pairing_ref", reference));
    iq::request("set", "md").child(stage)
}

/// The reference in the answer to companion_hello: names the attempt at the server.
///
/// # Errors
/// [`PairError::Missing`] or [`PairError::TooLong`].
pub fn parse_reference(answer: NodeRef<'_>) -> Result<Bytes, PairError> {
    let stage = answer.child(TAG).ok_or(PairError::Missing("link_code_companion_reg"))?;
    reference(stage)
}

/// `primary_hello`: the phone's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrimaryHello {
    /// The phone's ephemeral key, wrapped with the code that was typed.
    pub wrapped: WrappedKey,
    /// The account's identity.
    pub identity: PublicKey,
    /// Which attempt it belongs to.
    pub reference: Bytes,
}

impl PrimaryHello {
    /// Reads the `link_code_companion_reg` of a notification.
    ///
    /// # Errors
    /// [`PairError::Missing`], [`PairError::Malformed`] or [`PairError::TooLong`].
    pub fn parse(stage: NodeRef<'_>) -> Result<Self, PairError> {
        let bytes = |tag, what| stage.child(tag).and_then(|child| child.bytes()).ok_or(PairError::Missing(what));
        let wrapped = bytes("link_code_pairing_wrapped_primary_ephemeral_pub", "wrapped key of primary_hello")?;
        let identity = bytes("primary_identity_pub", "identity of primary_hello")?;
        Ok(Self {
            wrapped: WrappedKey::from_slice(&wrapped).ok_or(PairError::Malformed("wrapped key of primary_hello"))?,
            identity: PublicKey::from_slice(&identity)
                .map_err(|_| PairError::Malformed("identity of primary_hello"))?,
            reference: reference(stage)?,
        })
    }
}

/// Tag of every stage, in both directions.
pub(super) const TAG: &str = "link_code_companion_reg";

fn registration(phone: &PhoneNumber, stage: &'static str) -> Node {
    Node::new(TAG).attr("jid", phone.jid()).attr("stage", stage)
}

fn leaf(tag: &'static str, content: impl AsRef<[u8]>) -> Node {
    Node::new(tag).bytes(Bytes::copy_from_slice(content.as_ref()))
}

fn reference(stage: NodeRef<'_>) -> Result<Bytes, PairError> {
    let reference = stage.child("link_code_pairing_ref").and_then(|child| child.bytes());
    let reference = reference.filter(|bytes| !bytes.is_empty()).ok_or(PairError::Missing("link_code_pairing_ref"))?;
    limit("link_code_pairing_ref", reference.len(), MAX_REFERENCE_LEN)?;
    Ok(reference)
}

/// Fewest digits of a number with its country code (spec 01 §5.1).
const MIN_DIGITS: usize = 7;
/// Most digits of a number with its country code (ITU-T E.164).
const MAX_DIGITS: usize = 15;
/// Rounds of the key derivation (spec 01 §5.3).
const ITERATIONS: u32 = 131_072;
/// Characters of a code, by their 5-bit value (spec 01 §5.2).
const ALPHABET: &[u8; 32] = b"123456789ABCDEFGHJKLMNPQRSTVWXYZ";
/// HKDF info of the bundle's key (spec 01 §5.6).
const BUNDLE_INFO: &[u8] = b"link_code_pairing_key_bundle_encryption_key";
/// HKDF info of the ADV secret (spec 01 §5.6).
const ADV_INFO: &[u8] = b"adv_secret";
