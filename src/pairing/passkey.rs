//! Linking with a passkey: a WebAuthn assertion authorises the link instead of a scanned or typed code (spec 01 §5.8).
//!
//! ```text
//!  passkey_prologue_request ──► options for WebAuthn ──► assertion of the application
//!  passkey_prologue   credential, assertion, commitment to our ephemeral key ──►
//!  crsc_continuation  the phone's ephemeral key and nonce ◄──
//!  companion_nonce    opens the commitment ──►            both sides show the same code
//!  encrypted_pairing_request  noise key, identity, ADV secret under the shared key ──► pair-success
//! ```
//!
//! The formulas are checked against `vectors/passkey_pairing.json`; they were never compared with a live exchange.
//! Requests are made without id, which whoever sends them adds.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{PairError, code::PairCode, limit, qr};
use crate::{
    crypto::{AesGcm, KeyPair, PublicKey, Rng, Secret, hkdf_sha256, hmac_sha256, sha256, x25519},
    node::{Node, NodeRef},
    proto::{
        Message as _,
        companion::{
            CompanionCommitment, CompanionEphemeralIdentity, EncryptedPairingRequest, PairingRequest,
            PrimaryEphemeralIdentity, ProloguePayload, device_props::PlatformType,
        },
    },
    stanza::iq,
};

/// Request options of WebAuthn have some hundred bytes; more than this are refused.
pub const MAX_OPTIONS_LEN: usize = 65_536;
/// A `PrimaryEphemeralIdentity` has 68 bytes; a longer one than this is refused.
pub const MAX_IDENTITY_LEN: usize = 1_024;

/// The phone's ephemeral key and nonce, from `crsc_continuation`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrimaryIdentity {
    /// The key.
    pub public: PublicKey,
    /// 32 random bytes.
    pub nonce: [u8; 32],
}

impl PrimaryIdentity {
    /// Reads a serialised `PrimaryEphemeralIdentity`.
    ///
    /// # Errors
    /// [`PairError::TooLong`] or [`PairError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PairError> {
        limit("primary ephemeral identity", bytes.len(), MAX_IDENTITY_LEN)?;
        const BAD: PairError = PairError::Malformed("primary ephemeral identity");
        let identity = PrimaryEphemeralIdentity::decode(bytes).map_err(|_| BAD)?;
        let public = PublicKey::from_slice(identity.public_key.as_deref().unwrap_or_default()).map_err(|_| BAD)?;
        let nonce = identity.nonce.as_deref().unwrap_or_default().try_into().map_err(|_| BAD)?;
        Ok(Self { public, nonce })
    }
}

/// Proves to the phone that this device is the one whose QR code it scanned: made of the ADV secret that the code had.
pub fn handoff_key(adv_secret: &Secret<32>) -> Secret<32> {
    Secret::new(hkdf_sha256(None, adv_secret.expose(), HANDOFF_INFO))
}

/// The proof over a prologue.
pub fn handoff_proof(key: &Secret<32>, prologue: &[u8]) -> [u8; 32] {
    hmac_sha256(key.expose(), &[prologue])
}

/// Our side of the exchange, committed to and not opened yet.
#[derive(Clone, Debug)]
pub struct Commitment {
    ephemeral: KeyPair,
    nonce: Secret<32>,
    device_type: PlatformType,
    reference: String,
}

impl Commitment {
    /// Draws the ephemeral key and the nonce. `reference` is the server's, from [`parse_reference`].
    pub fn generate(device_type: PlatformType, reference: String, rng: &mut impl Rng) -> Self {
        Self::new(device_type, reference, KeyPair::generate(rng), Secret::random(rng))
    }

    /// From given values; for vectors. Elsewhere [`Commitment::generate`] is right.
    pub const fn new(device_type: PlatformType, reference: String, ephemeral: KeyPair, nonce: Secret<32>) -> Self {
        Self { ephemeral, nonce, device_type, reference }
    }

    /// The `ProloguePayload`, serialised: the ephemeral identity and its commitment.
    pub fn prologue(&self) -> Vec<u8> {
        let identity = CompanionEphemeralIdentity {
            public_key: Some(Bytes::copy_from_slice(self.ephemeral.public().as_bytes())),
            device_type: Some(self.device_type as i32),
            r#ref: Some(self.reference.clone()),
        };
        let identity = identity.encode_to_vec();
        let hash = sha256(&[&identity, self.nonce.expose()]);
        let commitment = CompanionCommitment { hash: Some(Bytes::copy_from_slice(&hash)) };
        let payload = ProloguePayload {
            companion_ephemeral_identity: Some(identity.into()),
            commitment: Some(Box::new(commitment)),
        };
        payload.encode_to_vec()
    }

    /// What opens the commitment; sent once the phone's key is known.
    pub const fn nonce(&self) -> &[u8; 32] {
        self.nonce.expose()
    }

    /// The shared key and the code to compare.
    ///
    /// # Errors
    /// [`PairError::WeakKey`] when the phone's key is of small order.
    pub fn agree(&self, primary: &PrimaryIdentity) -> Result<Agreement, PairError> {
        let shared = x25519(self.ephemeral.private(), &primary.public).map_err(|_| PairError::WeakKey)?;
        let salt = format!("Companion Pairing {} with ref {}", self.device_type as i32, self.reference);
        let key = Secret::new(hkdf_sha256(Some(salt.as_bytes()), shared.expose(), KEY_INFO));
        let hash = sha256(&[self.nonce.expose(), primary.public.as_bytes()]);
        let mut code = [0; 5];
        let pairs = primary.nonce.iter().zip(&hash);
        code.iter_mut().zip(pairs).for_each(|(code, (nonce, hash))| *code = nonce ^ hash);
        Ok(Agreement { key, code: PairCode::from_bytes(&code) })
    }
}

/// What both sides agreed on.
#[derive(Clone, Debug)]
pub struct Agreement {
    key: Secret<32>,
    code: PairCode,
}

impl Agreement {
    /// The code that phone and companion show; the same on both, or somebody sits between them.
    pub const fn code(&self) -> &PairCode {
        &self.code
    }

    /// The `EncryptedPairingRequest`, serialised. `iv` is fresh.
    pub fn seal(&self, noise: &PublicKey, identity: &PublicKey, adv_secret: &Secret<32>, iv: [u8; 12]) -> Vec<u8> {
        let request = PairingRequest {
            companion_public_key: Some(Bytes::copy_from_slice(noise.as_bytes())),
            companion_identity_key: Some(Bytes::copy_from_slice(identity.as_bytes())),
            adv_secret: Some(Bytes::copy_from_slice(adv_secret.expose())),
        };
        let mut sealed = Zeroizing::new(request.encode_to_vec());
        AesGcm::new(self.key.expose()).seal(&iv, &[], &mut sealed);
        let encrypted = EncryptedPairingRequest {
            encrypted_payload: Some(Bytes::copy_from_slice(&sealed)),
            iv: Some(Bytes::copy_from_slice(&iv)),
        };
        encrypted.encode_to_vec()
    }
}

// ---- stanzas --------------------------------------------------------------------------------------------------

/// Asks for the WebAuthn options that the notification did not bring.
pub fn options_request() -> Node {
    iq::request("get", "md").child(Node::new(OPTIONS))
}

/// The WebAuthn options in a notification or an answer: JSON, not looked at.
///
/// # Errors
/// [`PairError::Missing`] or [`PairError::TooLong`].
pub fn parse_options(node: NodeRef<'_>) -> Result<Bytes, PairError> {
    let options = node.child(OPTIONS).and_then(|options| options.bytes()).filter(|options| !options.is_empty());
    let options = options.ok_or(PairError::Missing("passkey_request_options"))?;
    limit("passkey_request_options", options.len(), MAX_OPTIONS_LEN)?;
    Ok(options)
}

/// Asks for a reference.
pub fn reference_request() -> Node {
    iq::request("get", "md").child(Node::new("ref"))
}

/// The reference in the answer.
///
/// # Errors
/// [`PairError::Missing`], [`PairError::Malformed`] or [`PairError::TooLong`].
pub fn parse_reference(node: NodeRef<'_>) -> Result<String, PairError> {
    let reference = node.child("ref").ok_or(PairError::Missing("ref"))?;
    let reference = reference.text().ok_or(PairError::Malformed("ref"))?;
    qr::check_ref(&reference)?;
    Ok(reference.into_owned())
}

/// An assertion that the application obtained from an authenticator.
#[derive(Clone, PartialEq, Eq)]
pub struct Assertion {
    /// The raw id of the credential.
    pub credential_id: Bytes,
    /// The assertion as JSON.
    pub json: Bytes,
}

impl std::fmt::Debug for Assertion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assertion").field("json", &self.json.len()).finish_non_exhaustive()
    }
}

/// `passkey_prologue`. The proof is left out when there is no key for it.
pub fn prologue_request(assertion: &Assertion, prologue: Vec<u8>, handoff: Option<&Secret<32>>) -> Node {
    let proof = handoff.map(|key| handoff_proof(key, &prologue));
    let proof = proof.map(|proof| Node::new("pairing_handoff_proof").bytes(proof.to_vec()));
    let request = Node::new("passkey_prologue")
        .child(Node::new("credential_id").bytes(assertion.credential_id.clone()))
        .child(Node::new("webauthn_assertion").bytes(assertion.json.clone()))
        .child(Node::new("prologue_payload").bytes(prologue))
        .child_opt(proof);
    iq::request("set", "md").child(request)
}

/// `companion_nonce`.
pub fn nonce_request(nonce: &[u8; 32]) -> Node {
    iq::request("set", "md").child(Node::new("companion_nonce").bytes(nonce.to_vec()))
}

/// `encrypted_pairing_request`.
pub fn pairing_request(encrypted: Vec<u8>) -> Node {
    iq::request("set", "md").child(Node::new("encrypted_pairing_request").bytes(encrypted))
}

const OPTIONS: &str = "passkey_request_options";
/// HKDF info of the handoff key (spec 01 §5.8).
const HANDOFF_INFO: &[u8] = b"shortcake-passkey-handoff-v1";
/// HKDF info of the shared key (spec 01 §5.8).
const KEY_INFO: &[u8] = b"Pairing Information Encryption Key";
