//! Linking by passkey, the server's and the phone's side (spec 01 §5.8).
//!
//! ```text
//!  passkey_prologue_request ─▶ (passkey_request_options) ─▶ ref ─▶ passkey_prologue ─▶ crsc_continuation
//!      ─▶ companion_nonce ─▶ (both sides show one code) ─▶ encrypted_pairing_request ─▶ pair-success
//! ```
//!
//! The companion commits itself to its ephemeral key before it sees the phone's, so that the code which both show cannot be
//! chosen by anybody in between. Whoever holds the ADV secret of the QR code that the phone has read proves it by an HMAC
//! over the prologue, and needs no code.
//!
//! The assertion is taken as it is: there is no passkey here that could have signed it. Tests see it in
//! [`PasskeyView`](crate::PasskeyView).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use prost::Message as _;
use wamd::crypto::{AesGcm, KeyPair, PublicKey, Rng, constant_time_eq, hkdf_sha256, hmac_sha256, sha256, x25519};
use wamd::jid::Jid;
use wamd::node::NodeRef;
use wamd::proto::companion::{
    CompanionEphemeralIdentity, EncryptedPairingRequest, PairingRequest, PrimaryEphemeralIdentity, ProloguePayload,
};

use crate::ConnId;
use crate::control::{PasskeyOptions, PasskeyView, ScanError, ScanOptions, parse_number};
use crate::core::{Core, leaf};
use crate::linking;
use crate::stanza;

/// A client whose link a passkey is to authorise.
#[derive(Debug)]
pub(crate) struct PasskeyLink {
    pub(crate) number: u64,
    options: PasskeyOptions,
    /// What the passkey is asked, JSON.
    request: Bytes,
    /// The ADV secret in the QR code that the phone has read.
    scanned: Option<[u8; 32]>,
    reference: Option<String>,
    credential: Bytes,
    assertion: Bytes,
    proven: bool,
    state: State,
}

/// How far it is.
#[derive(Debug)]
enum State {
    Requested,
    /// The companion has committed itself; the phone has told its key.
    Committed(Committed),
    /// The companion has opened its commitment: both sides can compute the key and the code.
    Agreed {
        key: [u8; 32],
        code: String,
    },
}

#[derive(Debug)]
struct Committed {
    identity: Bytes,
    companion: PublicKey,
    device_type: i32,
    reference: String,
    commitment: Bytes,
    ephemeral: KeyPair,
    nonce: [u8; 32],
}

impl PasskeyLink {
    /// What tests may see.
    pub(crate) fn view(&self) -> PasskeyView {
        let code = match &self.state {
            State::Agreed { code, .. } => Some(code.clone()),
            State::Requested | State::Committed(_) => None,
        };
        PasskeyView {
            number: self.number.to_string(),
            credential_id: hex::encode(&self.credential),
            assertion: String::from_utf8_lossy(&self.assertion).into_owned(),
            proven: self.proven,
            code,
        }
    }
}

/// Asks a waiting client for a passkey of the phone's account. With a QR text the phone has read the code of that client;
/// without one it is the client that came last.
pub(crate) fn begin(
    core: &mut Core,
    number: &str,
    qr: Option<&str>,
    options: &PasskeyOptions,
) -> Result<ConnId, ScanError> {
    let number = parse_number(number).ok_or(ScanError::Number)?;
    let (id, scanned) = match qr {
        Some(qr) => linking::read(core, qr).map(|(id, secret)| (id, Some(secret)))?,
        None => (linking::all(core).next_back().ok_or(ScanError::UnknownRef)?.0, None),
    };
    let now = core.now.unix_seconds();
    core.directory.get_or_create(number, now, &mut core.rng).last_link_error = None;
    let request = options.request.clone().map_or_else(|| default_request(core), Bytes::from);
    let content = leaf("passkey_request_options", &request);
    let content = if options.leave_out { None } else { Some(content) };
    if let Some(linking) = linking::waiting(core, id) {
        linking.passkey = Some(PasskeyLink {
            number,
            options: options.clone(),
            request,
            scanned,
            reference: None,
            credential: Bytes::new(),
            assertion: Bytes::new(),
            proven: false,
            state: State::Requested,
        });
    }
    let from = if options.foreign_sender { Jid::pn("15550009999") } else { Jid::whatsapp_server() };
    linking::notify_from(core, id, "passkey_prologue_request", from, content);
    Ok(id)
}

/// The phone's user does not want to link: what the companion still sends is answered with error 400.
pub(crate) fn refuse(core: &mut Core, number: u64) -> bool {
    let fits = |linking: &linking::Linking| linking.passkey.as_ref().is_some_and(|link| link.number == number);
    let Some((id, _)) = linking::find(core, fits) else { return false };
    if let Some(linking) = linking::waiting(core, id) {
        linking.passkey = None;
    }
    true
}

/// Answers a query of a waiting client.
pub(crate) fn handle(core: &mut Core, id: ConnId, iq: NodeRef<'_>, request: NodeRef<'_>) {
    let answer = match request.tag() {
        "passkey_request_options" => {
            link(core, id).map(|link| Some(leaf("passkey_request_options", &link.request))).ok_or(NOT_ASKED)
        }
        "ref" => give_reference(core, id).map(|reference| Some(leaf("ref", reference))),
        "passkey_prologue" => commit(core, id, request).map(|()| None),
        "companion_nonce" => reveal(core, id, request).map(|()| None),
        "encrypted_pairing_request" => pair(core, id, iq, request).map(|()| None),
        _ => return core.send(id, &stanza::iq_error(iq, 404, "item-not-found")),
    };
    match answer {
        // It was answered before pair-success left.
        Ok(None) if request.is("encrypted_pairing_request") => {}
        Ok(child) => core.send(id, &stanza::result(iq).children(child)),
        Err(reason) => {
            if let Some(number) = link(core, id).map(|link| link.number) {
                linking::note_failure(core, number, reason);
            }
            core.send(id, &stanza::iq_error(iq, 400, "bad-request"));
        }
    }
    if request.is("passkey_prologue") {
        go_on(core, id);
    }
}

type Refused = &'static str;

fn link(core: &mut Core, id: ConnId) -> Option<&mut PasskeyLink> {
    linking::waiting(core, id)?.passkey.as_mut()
}

fn give_reference(core: &mut Core, id: ConnId) -> Result<String, Refused> {
    let reference = linking::reference(core);
    link(core, id).ok_or(NOT_ASKED)?.reference = Some(reference.clone());
    Ok(reference)
}

/// Takes assertion and commitment of the companion.
fn commit(core: &mut Core, id: ConnId, request: NodeRef<'_>) -> Result<(), Refused> {
    let ephemeral = KeyPair::generate(&mut core.rng);
    let mut nonce = [0; 32];
    core.rng.fill_bytes(&mut nonce);
    let link = link(core, id).ok_or(NOT_ASKED)?;
    let bytes = |tag: &str| request.child(tag).and_then(|child| child.bytes());
    let credential = bytes("credential_id").filter(|id| !id.is_empty()).ok_or("no credential id")?;
    let assertion = bytes("webauthn_assertion").filter(|json| json.starts_with(b"{")).ok_or("no assertion")?;
    let payload = bytes("prologue_payload").ok_or("no prologue payload")?;
    // A phone that has read no code of this client has nothing to compare a proof with.
    link.proven = false;
    if let (Some(proof), Some(secret)) = (bytes("pairing_handoff_proof"), &link.scanned) {
        let handoff: [u8; 32] = hkdf_sha256(None, secret, b"shortcake-passkey-handoff-v1");
        if !constant_time_eq(&proof, &hmac_sha256(&handoff, &[&payload])) {
            return Err("the handoff proof is wrong");
        }
        link.proven = true;
    }
    if link.options.require_proof && !link.proven {
        return Err("no handoff proof");
    }
    let prologue = ProloguePayload::decode(payload).map_err(|_| "the prologue does not decode")?;
    let identity = prologue.companion_ephemeral_identity.ok_or("no identity in the prologue")?;
    let commitment = prologue.commitment.and_then(|commitment| commitment.hash).ok_or("no commitment")?;
    let parsed = CompanionEphemeralIdentity::decode(identity.clone()).map_err(|_| "the identity does not decode")?;
    let companion = PublicKey::from_slice(&parsed.public_key.unwrap_or_default()).map_err(|_| "no ephemeral key")?;
    let reference = parsed.r#ref.filter(|reference| link.reference.as_ref() == Some(reference));
    let reference = reference.ok_or("the ref is not the one that was given")?;
    let device_type = parsed.device_type.ok_or("no device type")?;
    (link.credential, link.assertion) = (credential, assertion);
    link.state =
        State::Committed(Committed { identity, companion, device_type, reference, commitment, ephemeral, nonce });
    Ok(())
}

/// The phone tells its key, if there is a commitment.
fn go_on(core: &mut Core, id: ConnId) {
    let Some(link) = link(core, id).filter(|link| !link.options.hold) else { return };
    let State::Committed(committed) = &link.state else { return };
    let identity = PrimaryEphemeralIdentity {
        public_key: Some(Bytes::copy_from_slice(committed.ephemeral.public().as_bytes())),
        nonce: Some(Bytes::copy_from_slice(&committed.nonce)),
    };
    let content = leaf("primary_ephemeral_identity", identity.encode_to_vec());
    linking::notify(core, id, "crsc_continuation", content);
}

/// The companion opens its commitment.
fn reveal(core: &mut Core, id: ConnId, request: NodeRef<'_>) -> Result<(), Refused> {
    let link = link(core, id).ok_or(NOT_ASKED)?;
    let State::Committed(committed) = &link.state else { return Err("no commitment to open") };
    let nonce = request.bytes().filter(|nonce| nonce.len() == 32).ok_or("the nonce has not 32 bytes")?;
    if !constant_time_eq(&sha256(&[&committed.identity, &nonce]), &committed.commitment) {
        return Err("the nonce does not open the commitment");
    }
    let key = committed.key()?;
    let code = verification_code(&committed.nonce, &nonce, committed.ephemeral.public());
    link.state = State::Agreed { key, code };
    Ok(())
}

impl Committed {
    fn key(&self) -> Result<[u8; 32], Refused> {
        let shared = x25519(self.ephemeral.private(), &self.companion).map_err(|_| "a key of small order")?;
        let salt = format!("Companion Pairing {} with ref {}", self.device_type, self.reference);
        let info = b"Pairing Information Encryption Key";
        Ok(hkdf_sha256(Some(salt.as_bytes()), shared.expose(), info))
    }
}

/// The code that phone and companion show.
fn verification_code(primary_nonce: &[u8; 32], companion_nonce: &[u8], primary: &PublicKey) -> String {
    let hash = sha256(&[companion_nonce, primary.as_bytes()]);
    let bits =
        primary_nonce.iter().zip(hash).take(5).fold(0_u64, |bits, (one, other)| bits << 8 | u64::from(one ^ other));
    let digit = |place: u32| ALPHABET.get((bits >> (5 * place) & 31) as usize).copied().map_or(' ', char::from);
    (0..8).rev().map(digit).collect()
}

/// Opens the keys of the companion and signs it in.
fn pair(core: &mut Core, id: ConnId, iq: NodeRef<'_>, request: NodeRef<'_>) -> Result<(), Refused> {
    let linking = linking::waiting(core, id).ok_or(NOT_ASKED)?;
    let (noise, identity) = (linking.noise, *linking.identity());
    let link = linking.passkey.as_ref().ok_or(NOT_ASKED)?;
    let State::Agreed { key, .. } = &link.state else { return Err("no key was agreed on") };
    let sealed = request.bytes().ok_or("no pairing request")?;
    let adv_secret = open(key, &sealed, &noise, &identity)?;
    let (number, options) = (link.number, link.options.scan.clone());
    linking.passkey = None;
    core.send(id, &stanza::result(iq));
    let options = ScanOptions { newer_children: true, ..options };
    if let Err(error) = linking::offer(core, id, number, &adv_secret, &options) {
        linking::note_failure(core, number, error.to_string());
    }
    Ok(())
}

/// The ADV secret out of the sealed request.
fn open(key: &[u8; 32], sealed: &Bytes, noise: &PublicKey, identity: &PublicKey) -> Result<[u8; 32], Refused> {
    let sealed = EncryptedPairingRequest::decode(sealed.clone()).map_err(|_| "the pairing request does not decode")?;
    let iv: [u8; 12] = sealed.iv.as_deref().and_then(|iv| iv.try_into().ok()).ok_or("the iv has not 12 bytes")?;
    let mut payload = sealed.encrypted_payload.unwrap_or_default().to_vec();
    let opened = AesGcm::new(key).open(&iv, &[], &mut payload);
    let opened = opened.map_err(|_| "the pairing request does not open")?;
    let request = PairingRequest::decode(&*opened).map_err(|_| "the pairing request does not decode")?;
    if request.companion_public_key.as_deref() != Some(&noise.as_bytes()[..]) {
        return Err("the noise key is not that of the connection");
    }
    if request.companion_identity_key.as_deref() != Some(&identity.as_bytes()[..]) {
        return Err("the identity is not the registered one");
    }
    request.adv_secret.as_deref().and_then(|secret| secret.try_into().ok()).ok_or("the ADV secret has not 32 bytes")
}

/// WebAuthn request options as a server would make them.
fn default_request(core: &mut Core) -> Bytes {
    let mut challenge = [0; 32];
    core.rng.fill_bytes(&mut challenge);
    let challenge = URL_SAFE_NO_PAD.encode(challenge);
    format!(
        r#"{{"challenge":"{challenge}","timeout":60000,"rpId":"whatsapp.com","allowCredentials":[],"userVerification":"required"}}"#
    )
    .into()
}

const NOT_ASKED: Refused = "nobody has asked for a passkey";

const ALPHABET: &[u8; 32] = b"123456789ABCDEFGHJKLMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    use wamd::crypto::PrivateKey;

    use super::*;

    #[test]
    fn vectors_of_the_specification() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/passkey_pairing.json");
        let vector: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let bytes = |name: &str| Bytes::from(hex::decode(vector[name].as_str().unwrap()).unwrap());
        let array = |name: &str| <[u8; 32]>::try_from(&bytes(name)[..]).unwrap();
        let private = hex::decode(vector["primary_ephemeral"]["private"].as_str().unwrap()).unwrap();
        let prologue = ProloguePayload::decode(bytes("prologue_payload")).unwrap();
        let identity = prologue.companion_ephemeral_identity.unwrap();
        assert_eq!(identity, bytes("companion_ephemeral_identity"));
        let parsed = CompanionEphemeralIdentity::decode(identity.clone()).unwrap();
        let committed = Committed {
            identity,
            companion: PublicKey::from_slice(&parsed.public_key.unwrap()).unwrap(),
            device_type: parsed.device_type.unwrap(),
            reference: parsed.r#ref.unwrap(),
            commitment: prologue.commitment.unwrap().hash.unwrap(),
            ephemeral: KeyPair::from_private(PrivateKey::from_slice(&private).unwrap()),
            nonce: array("primary_nonce"),
        };
        let nonce = bytes("companion_nonce");
        assert_eq!(sha256(&[&committed.identity, &nonce])[..], committed.commitment[..]);
        let key = committed.key().unwrap();
        assert_eq!(key, array("encryption_key"));
        let code = verification_code(&committed.nonce, &nonce, committed.ephemeral.public());
        assert_eq!(code, vector["verification_code"].as_str().unwrap());

        let request = PairingRequest::decode(bytes("pairing_request")).unwrap();
        let key_of = |bytes: &Option<Bytes>| PublicKey::from_slice(bytes.as_ref().unwrap()).unwrap();
        let (noise, own) = (key_of(&request.companion_public_key), key_of(&request.companion_identity_key));
        let sealed = bytes("encrypted_pairing_request");
        assert_eq!(open(&key, &sealed, &noise, &own), Ok(array("new_adv_secret")));
        assert_eq!(open(&key, &sealed, &own, &own), Err("the noise key is not that of the connection"));
        assert_eq!(open(&key, &sealed, &noise, &noise), Err("the identity is not the registered one"));
        assert_eq!(open(&[0; 32], &sealed, &noise, &own), Err("the pairing request does not open"));
    }
}
