//! Linking by phone number: the server's and the phone's side of the 8-character code (spec 01 §5 and §7.3).
//!
//! ```text
//!  companion_hello ─▶ ref ─▶ (the code is typed on the phone) ─▶ primary_hello ─▶ companion_finish ─▶ pair-success
//! ```
//!
//! With the code each side wraps an ephemeral key for the other. A wrong code gives wrong keys and shows only when the phone
//! cannot open the bundle of companion_finish; nothing more is sent then, as with a real phone, and another code can be
//! typed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use wamd::crypto::{
    AesGcm, KeyPair, PublicKey, Rng, aes256_ctr, constant_time_eq, hkdf_sha256, pbkdf2_hmac_sha256, x25519,
};
use wamd::node::{Node, NodeRef};

use crate::ConnId;
use crate::control::{ScanError, ScanOptions, parse_number};
use crate::core::{Core, leaf};
use crate::linking;
use crate::stanza;

/// A companion that waits for its code to be typed.
#[derive(Debug)]
pub(crate) struct CodeLink {
    pub(crate) number: u64,
    reference: String,
    wrapped: [u8; WRAPPED_LEN],
    typed: Option<Typed>,
    /// Hellos of the phone that were not answered yet.
    unanswered: u32,
}

impl CodeLink {
    /// Whether a code was typed whose answer is awaited.
    pub(crate) const fn is_typed(&self) -> bool {
        self.typed.is_some()
    }
}

/// A code was typed: the phone's side of the exchange.
#[derive(Clone, Debug)]
struct Typed {
    companion: PublicKey,
    ephemeral: KeyPair,
    options: ScanOptions,
}

/// Answers a `link_code_companion_reg` of a waiting client.
pub(crate) fn handle(core: &mut Core, id: ConnId, iq: NodeRef<'_>, request: NodeRef<'_>) {
    let outcome = match request.attr_str("stage").as_deref() {
        Some("companion_hello") => hello(core, id, request).map(|answer| (answer, None)),
        Some("companion_finish") => finish(core, id, request).map(|outcome| (Vec::new(), Some(outcome))),
        _ => None,
    };
    let Some((children, opened)) = outcome else {
        let error = stanza::iq_error(iq, 400, "bad-request");
        return core.send(id, &error);
    };
    core.send(id, &stanza::result(iq).children(children));
    if let Some(opened) = opened {
        complete(core, id, &opened);
    }
}

/// Types a code on the phone of a number; the primary's key goes to the companion that waits for it.
pub(crate) fn enter(core: &mut Core, number: &str, code: &str, options: &ScanOptions) -> Result<(), ScanError> {
    let number = parse_number(number).ok_or(ScanError::Number)?;
    let code = normalise(code).ok_or(ScanError::Malformed("a pair code has 8 characters of its alphabet"))?;
    let (id, link) = find(core, number).ok_or(ScanError::UnknownRef)?;
    if link.is_typed() && !options.again {
        return Err(ScanError::AlreadyScanned);
    }
    let companion = PublicKey::from_bytes(unwrap(&link.wrapped, &code));
    let reference = if options.foreign_ref { new_reference(core) } else { link.reference.clone() };
    for _ in 0..=options.further_hellos {
        let ephemeral = KeyPair::generate(&mut core.rng);
        say_hello(core, id, number, &code, &ephemeral, &reference);
        if let Some(link) = link_mut(core, id)
            && !options.foreign_ref
        {
            link.typed = Some(Typed { companion, ephemeral, options: options.clone() });
            link.unanswered = link.unanswered.saturating_add(1);
        }
    }
    Ok(())
}

/// The phone's user does not want to link: the code is worth nothing any more, and nobody tells the companion. What it
/// sends for this code is answered with error 400.
pub(crate) fn refuse(core: &mut Core, number: u64) -> bool {
    let Some((id, _)) = find(core, number) else { return false };
    if let Some(linking) = linking::waiting(core, id) {
        linking.code = None;
    }
    true
}

/// Tells a companion to make a new code (spec 01 §5.5). The one that it shows is worth nothing any more.
pub(crate) fn refresh(core: &mut Core, id: ConnId, force_manual: bool) {
    let former = linking::waiting(core, id).and_then(|linking| linking.code.take());
    let request = Node::new("link_code_companion_reg").attr("stage", "refresh_code");
    let request = if force_manual { request.attr("force_manual_refresh", "true") } else { request };
    let request = request.child_opt(former.map(|code| leaf("link_code_pairing_ref", code.reference)));
    linking::notify(core, id, "link_code_companion_reg", request);
}

/// The companion that waits for the code of a number: the last that asked, if there are several.
fn find(core: &Core, number: u64) -> Option<(ConnId, &CodeLink)> {
    let codes = linking::all(core).filter_map(|(id, linking)| Some((id, linking.code.as_ref()?)));
    codes.rev().find(|(_, code)| code.number == number)
}

fn link_mut(core: &mut Core, id: ConnId) -> Option<&mut CodeLink> {
    linking::waiting(core, id)?.code.as_mut()
}

/// Sends primary_hello.
fn say_hello(core: &mut Core, id: ConnId, number: u64, code: &str, ephemeral: &KeyPair, reference: &str) {
    let now = core.now.unix_seconds();
    let identity = *core.directory.get_or_create(number, now, &mut core.rng).identity.public();
    let (mut salt, mut iv) = ([0; 32], [0; 16]);
    core.rng.fill_bytes(&mut salt);
    core.rng.fill_bytes(&mut iv);
    let wrapped = wrap(ephemeral.public(), code, salt, iv);
    let hello = Node::new("link_code_companion_reg")
        .attr("stage", "primary_hello")
        .child(leaf("link_code_pairing_wrapped_primary_ephemeral_pub", wrapped))
        .child(leaf("primary_identity_pub", identity.as_bytes()))
        .child(leaf("link_code_pairing_ref", reference));
    linking::notify(core, id, "link_code_companion_reg", hello);
}

fn new_reference(core: &mut Core) -> String {
    let mut random = [0; 16];
    core.rng.fill_bytes(&mut random);
    format!("3@{}", STANDARD.encode(random))
}

/// Notes the companion's wrapped key; gives the children of the answer. A second hello replaces the first.
fn hello(core: &mut Core, id: ConnId, request: NodeRef<'_>) -> Option<Vec<Node>> {
    let number = parse_number(request.attr_jid("jid")?.user())?;
    let bytes = |tag: &str| request.child(tag).and_then(|child| child.bytes());
    let wrapped = bytes("link_code_pairing_wrapped_companion_ephemeral_pub")?[..].try_into().ok()?;
    let noise = bytes("companion_server_auth_key_pub")?;
    let display = request.child("companion_platform_display")?.text()?;
    if !is_display(&display) || bytes("companion_platform_id").is_none_or(|id| id.len() != 1) {
        return None;
    }
    let reference = new_reference(core);
    let linking = linking::waiting(core, id)?;
    if linking.noise.as_bytes()[..] != noise[..] {
        return None;
    }
    linking.code = Some(CodeLink { number, reference: reference.clone(), wrapped, typed: None, unanswered: 0 });
    let answer = Node::new("link_code_companion_reg")
        .attr("stage", "notify_companion")
        .child(leaf("link_code_pairing_ref", reference));
    Some(vec![answer])
}

/// What the phone finds in the bundle.
struct Opened {
    number: u64,
    options: ScanOptions,
    adv_secret: Result<[u8; 32], &'static str>,
}

/// Opens the companion's bundle; `None` for a request that the server refuses itself.
fn finish(core: &mut Core, id: ConnId, request: NodeRef<'_>) -> Option<Opened> {
    let bytes = |tag: &str| request.child(tag).and_then(|child| child.bytes());
    let bundle = bytes("link_code_pairing_wrapped_key_bundle")?;
    let companion = PublicKey::from_slice(&bytes("companion_identity_public")?).ok()?;
    let reference = bytes("link_code_pairing_ref")?;
    let linking = linking::waiting(core, id)?;
    let registered = *linking.identity();
    let link = linking.code.as_mut().filter(|link| link.reference.as_bytes() == &reference[..])?;
    let (typed, number) = (link.typed.clone()?, link.number);
    link.unanswered = link.unanswered.saturating_sub(1);
    let account = core.directory.account(number)?;
    let adv_secret = if companion == registered {
        open(&bundle, &typed, &companion, &account.identity)
    } else {
        Err("the identity is not the registered one")
    };
    Some(Opened { number, options: typed.options, adv_secret })
}

/// Goes on with pair-success, or says on the account why not. After a wrong code the phone's user may type another.
fn complete(core: &mut Core, id: ConnId, opened: &Opened) {
    let Some(linking) = linking::waiting(core, id) else { return };
    let outcome = match &opened.adv_secret {
        Ok(_) if opened.options.silent => {
            linking.code = None;
            Err("the phone says nothing more".to_owned())
        }
        Ok(secret) => {
            linking.code = None;
            linking::offer(core, id, opened.number, secret, &opened.options)
                .map(|_| ())
                .map_err(|error| error.to_string())
        }
        Err(reason) => {
            if let Some(link) = linking.code.as_mut().filter(|link| link.unanswered == 0) {
                link.typed = None;
            }
            Err((*reason).to_owned())
        }
    };
    if let Err(reason) = outcome {
        linking::note_failure(core, opened.number, reason);
    }
}

/// The ADV secret out of the bundle (spec 01 §5.6).
fn open(bundle: &[u8], typed: &Typed, companion: &PublicKey, account: &KeyPair) -> Result<[u8; 32], &'static str> {
    let (salt, rest) = bundle.split_first_chunk::<32>().ok_or("the key bundle is too short")?;
    let (iv, sealed) = rest.split_first_chunk::<12>().ok_or("the key bundle is too short")?;
    let ephemeral = x25519(typed.ephemeral.private(), &typed.companion).map_err(|_| "a key of small order")?;
    let key: [u8; 32] = hkdf_sha256(Some(salt), ephemeral.expose(), b"link_code_pairing_key_bundle_encryption_key");
    let mut buffer = sealed.to_vec();
    let opened = AesGcm::new(&key).open(iv, &[], &mut buffer);
    let opened = opened.map_err(|_| "the key bundle does not open: wrong code")?;
    let expected = [&companion.as_bytes()[..], account.public().as_bytes()].concat();
    let Some((identities, random)) = opened.split_at_checked(64).filter(|(_, random)| random.len() == 32) else {
        return Err("the key bundle has a wrong length");
    };
    if !constant_time_eq(identities, &expected) {
        return Err("the identities in the key bundle are wrong");
    }
    let shared = x25519(account.private(), companion).map_err(|_| "a key of small order")?;
    let secrets = [&ephemeral.expose()[..], shared.expose(), random].concat();
    Ok(hkdf_sha256(None, &secrets, b"adv_secret"))
}

/// The key in `salt || iv || AES-256-CTR(key)`. With a wrong code it is some other key.
fn unwrap(wrapped: &[u8; WRAPPED_LEN], code: &str) -> [u8; 32] {
    let (mut salt, mut iv, mut key) = ([0; 32], [0; 16], [0; 32]);
    salt.copy_from_slice(&wrapped[..32]);
    iv.copy_from_slice(&wrapped[32..48]);
    key.copy_from_slice(&wrapped[48..]);
    aes256_ctr(&code_key(code, &salt), &iv, &mut key);
    key
}

fn wrap(key: &PublicKey, code: &str, salt: [u8; 32], iv: [u8; 16]) -> Bytes {
    let mut sealed = *key.as_bytes();
    aes256_ctr(&code_key(code, &salt), &iv, &mut sealed);
    [&salt[..], &iv, &sealed].concat().into()
}

/// The key that a code and a salt give (spec 01 §5.3).
fn code_key(code: &str, salt: &[u8; 32]) -> [u8; 32] {
    *pbkdf2_hmac_sha256(code.as_bytes(), salt, ITERATIONS).expose()
}

/// Upper case, without the dash; `None` unless it is 8 characters of the alphabet.
fn normalise(code: &str) -> Option<String> {
    let code = code.trim().replace('-', "").to_ascii_uppercase();
    let fine = code.len() == 8 && code.chars().all(|character| ALPHABET.contains(character));
    fine.then_some(code)
}

/// `Browser (OS)`, as the server wants to see it (spec 01 §5.4).
fn is_display(text: &str) -> bool {
    let parts = text.strip_suffix(')').and_then(|text| text.split_once(" ("));
    parts.is_some_and(|(browser, os)| !browser.is_empty() && !os.is_empty())
}

/// Salt, IV and key.
const WRAPPED_LEN: usize = 80;

/// Rounds of the key derivation (spec 01 §5.3).
const ITERATIONS: u32 = 131_072;

const ALPHABET: &str = "123456789ABCDEFGHJKLMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    use wamd::crypto::PrivateKey;

    use super::*;

    #[test]
    fn vectors_of_the_specification() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/pair_code.json");
        let vector: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let bytes = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
        let array = |value: &serde_json::Value| <[u8; 32]>::try_from(bytes(value)).unwrap();
        let pair = |value: &serde_json::Value| KeyPair::from_private(PrivateKey::from_bytes(array(&value["private"])));
        let code = normalise(vector["code_displayed"].as_str().unwrap()).unwrap();
        assert_eq!(code, vector["code"].as_str().unwrap());

        let (companion, primary) = (&vector["companion"], &vector["primary"]);
        let wrapped = bytes(&companion["wrapped_companion_ephemeral_pub_80"]).try_into().unwrap();
        let theirs = unwrap(&wrapped, &code);
        assert_eq!(theirs, array(&companion["ephemeral"]["public"]));
        let ephemeral = pair(&primary["ephemeral"]);
        let iv = bytes(&primary["iv"]).try_into().unwrap();
        let ours = wrap(ephemeral.public(), &code, array(&primary["salt"]), iv);
        assert_eq!(ours, bytes(&primary["wrapped_primary_ephemeral_pub_80"]));

        let companion = PublicKey::from_bytes(array(&companion["identity"]["public"]));
        let account = pair(&primary["identity"]);
        let options = ScanOptions::default();
        let typed = Typed { companion: PublicKey::from_bytes(theirs), ephemeral, options };
        let bundle = bytes(&vector["wrapped_key_bundle_156"]);
        assert_eq!(open(&bundle, &typed, &companion, &account), Ok(array(&vector["adv_secret"])));
        let other = pair(&primary["ephemeral"]);
        let wrong = Typed { companion: *other.public(), ..typed };
        assert_eq!(open(&bundle, &wrong, &companion, &account), Err("the key bundle does not open: wrong code"));
    }

    #[test]
    fn codes_and_displays_have_a_form() {
        assert_eq!(normalise("hlpb-f19s").as_deref(), Some("HLPBF19S"));
        for bad in ["", "HLPBF19", "HLPBF19SS", "HLPBF190", "HLPBF19O"] {
            assert_eq!(normalise(bad), None, "{bad}");
        }
        assert!(is_display("Chrome (Linux)") && !is_display("Chrome") && !is_display(" (Linux)"));
    }
}
