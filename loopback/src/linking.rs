//! Linking by QR code, as the server and as the phone (spec 01 §4, §7.3).
//!
//! ```text
//!  registration payload ─▶ pair-device with six refs ─▶ (scan) ─▶ pair-success ─▶ pair-device-sign ─▶ 515
//! ```
//!
//! The phone checks all that a real one can see: the form of the text, that the ref is one that is still shown, that the
//! noise key is the one which the connection authenticated, and that the identity is the registered one.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message as _;
use wamd::crypto::{PublicKey, Rng, xeddsa};
use wamd::jid::Jid;
use wamd::node::{Node, NodeRef};
use wamd::proto::companion::ClientPairingProps;
use wamd::proto::wa6::client_payload::DevicePairingRegistrationData;

use crate::adv::{Claim, Offer};
use crate::connection::Phase;
use crate::control::{Linked, ScanError, ScanOptions, parse_number};
use crate::core::{Core, leaf};
use crate::directory::{Address, Device, Namespace, SignedPreKey};
use crate::fault::LinkStage;
use crate::login::{self, BAD_REQUEST};
use crate::pair_code::{self, CodeLink};
use crate::passkey::{self, PasskeyLink};
use crate::queue::Queue;
use crate::{ConnId, keys, notices, stanza};

/// A client that waits to be linked.
#[derive(Debug)]
pub(crate) struct Linking {
    /// The noise key that the handshake authenticated.
    pub(crate) noise: PublicKey,
    registration: Registration,
    refs: Vec<Ref>,
    /// The exchange by phone number, which runs beside the QR codes.
    pub(crate) code: Option<CodeLink>,
    /// The exchange that a passkey authorises.
    pub(crate) passkey: Option<PasskeyLink>,
    pending: Option<Pending>,
    closes: Duration,
}

#[derive(Debug)]
struct Ref {
    text: String,
    expires: Duration,
}

/// What the client registered with.
#[derive(Clone, Debug)]
struct Registration {
    identity: PublicKey,
    registration_id: u32,
    signed_prekey: SignedPreKey,
}

/// A scan whose answer is awaited.
#[derive(Debug)]
struct Pending {
    iq: String,
    address: Address,
    key_index: u32,
    offer: Offer,
}

impl Linking {
    /// When the server gives up on this client.
    pub(crate) const fn deadline(&self) -> Duration {
        self.closes
    }

    /// The identity key that the client registered with.
    pub(crate) const fn identity(&self) -> &PublicKey {
        &self.registration.identity
    }

    /// Whether pair-success was sent and not answered yet.
    pub(crate) const fn is_offered(&self) -> bool {
        self.pending.is_some()
    }

    /// The texts of the refs that the client was given last.
    pub(crate) fn refs(&self) -> impl Iterator<Item = &str> {
        self.refs.iter().map(|one| one.text.as_str())
    }
}

/// Starts the linking of a client: checks its registration and sends the refs.
pub(crate) fn begin(core: &mut Core, id: ConnId, noise: PublicKey, data: &DevicePairingRegistrationData) {
    let Some(registration) = Registration::read(data) else { return login::fail(core, id, BAD_REQUEST) };
    let linking = Linking {
        noise,
        registration,
        refs: Vec::new(),
        code: None,
        passkey: None,
        pending: None,
        closes: core.now.mono,
    };
    if let Some(connection) = core.connections.get_mut(&id) {
        connection.phase = Phase::Linking(Box::new(linking));
    }
    send_refs(core, id, core.config.refs);
}

/// Sends a `pair-device` with so many new refs. The former ones cannot be scanned any more.
pub(crate) fn send_refs(core: &mut Core, id: ConnId, count: u16) {
    let (first, further) = core.config.ref_lifetimes;
    let mut expires = core.now.mono.saturating_add(core.config.ref_grace).saturating_add(first);
    let mut refs = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        refs.push(Ref { text: reference(core), expires });
        expires = expires.saturating_add(further);
    }
    let closes = refs.last().map_or(expires, |last| last.expires);
    let (_, iq) = server_iq(core);
    let iq = iq.child(Node::new("pair-device").children(refs.iter().map(|one| leaf("ref", &one.text))));
    if let Some(linking) = waiting(core, id) {
        (linking.refs, linking.closes) = (refs, closes);
    }
    core.send(id, &iq);
}

/// A new ref.
pub(crate) fn reference(core: &mut Core) -> String {
    let mut random = [0; 32];
    core.rng.fill_bytes(&mut random);
    format!("2@{}", STANDARD.encode(random))
}

/// Handles a stanza of a client that is not linked.
pub(crate) fn handle(core: &mut Core, id: ConnId, node: NodeRef<'_>) {
    if node.tag() != "iq" {
        return;
    }
    match node.attr_str("type").as_deref() {
        Some("result" | "error") => answer(core, id, node),
        _ if node.attr_str("xmlns").as_deref() == Some("w:p") => {
            let result = stanza::result(node);
            core.send(id, &result);
        }
        _ => request(core, id, node),
    }
}

/// Answers a query of linking, unless it is to be refused.
fn request(core: &mut Core, id: ConnId, node: NodeRef<'_>) {
    if let Some(refusal) = stage(node).and_then(|stage| core.faults.take_stage_refusal(stage)) {
        if let Some(refusal) = refusal {
            core.send(id, &stanza::refused(node, refusal));
        }
        return;
    }
    match node.first_child() {
        Some(request) if request.is("link_code_companion_reg") => pair_code::handle(core, id, node, request),
        Some(request) => passkey::handle(core, id, node, request),
        None => core.send(id, &stanza::iq_error(node, 404, "item-not-found")),
    }
}

/// The stage of linking that a query belongs to.
fn stage(node: NodeRef<'_>) -> Option<LinkStage> {
    let request = node.first_child()?;
    match request.tag() {
        "link_code_companion_reg" => match &*request.attr_str("stage")? {
            "companion_hello" => Some(LinkStage::CompanionHello),
            "companion_finish" => Some(LinkStage::CompanionFinish),
            _ => None,
        },
        "passkey_request_options" => Some(LinkStage::PasskeyOptions),
        "ref" => Some(LinkStage::PasskeyRef),
        "passkey_prologue" => Some(LinkStage::PasskeyPrologue),
        "companion_nonce" => Some(LinkStage::CompanionNonce),
        "encrypted_pairing_request" => Some(LinkStage::PairingRequest),
        _ => None,
    }
}

/// Scans a QR code with the phone of a number.
pub(crate) fn scan(core: &mut Core, number: &str, qr: &str, options: &ScanOptions) -> Result<Linked, ScanError> {
    let number = parse_number(number).ok_or(ScanError::Number)?;
    let (id, adv_secret) = read(core, qr)?;
    offer(core, id, number, &adv_secret, options)
}

/// What the phone reads in a QR text: which client waits, and its ADV secret.
pub(crate) fn read(core: &Core, qr: &str) -> Result<(ConnId, [u8; 32]), ScanError> {
    let code = Code::parse(qr)?;
    let shows = |linking: &Linking| linking.refs.iter().any(|one| one.text == code.reference);
    let (id, linking) = find(core, shows).ok_or(ScanError::UnknownRef)?;
    if linking.refs.iter().any(|one| one.text == code.reference && one.expires < core.now.mono) {
        return Err(ScanError::ExpiredRef);
    }
    if linking.pending.is_some() {
        return Err(ScanError::AlreadyScanned);
    }
    if linking.noise != code.noise {
        return Err(ScanError::NoiseKey);
    }
    if linking.registration.identity != code.identity {
        return Err(ScanError::IdentityKey);
    }
    Ok((id, code.adv_secret))
}

/// Signs a waiting client in: reserves a device and sends pair-success.
pub(crate) fn offer(
    core: &mut Core,
    id: ConnId,
    number: u64,
    adv_secret: &[u8; 32],
    options: &ScanOptions,
) -> Result<Linked, ScanError> {
    let linking = waiting(core, id).ok_or(ScanError::UnknownRef)?;
    if linking.pending.is_some() {
        return Err(ScanError::AlreadyScanned);
    }
    let identity = linking.registration.identity;
    let now = core.now.unix_seconds();
    let account = core.directory.get_or_create(number, now, &mut core.rng);
    let (device, key_index) = account.reserve_device(core.config.max_companions).ok_or(ScanError::TooManyDevices)?;
    account.last_link_error = None;
    let claim = Claim { raw_id: account.raw_id, timestamp: now, key_index, hosted: options.hosted };
    let mut offer = Offer::sign(&account.identity, identity, claim);
    if options.spoil_signature {
        offer.spoil_signature();
    }
    let (jid, lid) = (account.jid(Namespace::Pn, device), account.jid(Namespace::Lid, device));
    let container = offer.container(adv_secret, options.hosted, options.spoil_hmac);
    let (sent, iq) = server_iq(core);
    let iq = iq.attr("t", now).child(pair_success(&jid, &lid, &container, options));
    let closes = core.now.mono.saturating_add(ANSWER_TIMEOUT);
    if let Some(linking) = waiting(core, id) {
        linking.pending = Some(Pending { iq: sent, address: Address { number, device }, key_index, offer });
        linking.closes = closes;
    }
    core.send(id, &iq);
    Ok(Linked { jid, lid, device })
}

/// The five fields of a QR text.
struct Code {
    reference: String,
    noise: PublicKey,
    identity: PublicKey,
    adv_secret: [u8; 32],
}

impl Code {
    fn parse(text: &str) -> Result<Self, ScanError> {
        let text = text.trim();
        let text = text.rsplit_once('#').map_or(text, |(_, fields)| fields);
        let fields: Vec<&str> = text.split(',').collect();
        let [reference, noise, identity, secret, client] = fields.as_slice() else {
            return Err(ScanError::Malformed("five fields are needed"));
        };
        let mut kind = client.chars();
        if !matches!((kind.next(), kind.next()), (Some('0'..='9' | 'c'..='f'), None)) {
            return Err(ScanError::Malformed("unknown client type"));
        }
        Ok(Self {
            reference: (*reference).to_owned(),
            noise: PublicKey::from_bytes(key(noise).ok_or(ScanError::Malformed("bad noise key"))?),
            identity: PublicKey::from_bytes(key(identity).ok_or(ScanError::Malformed("bad identity key"))?),
            adv_secret: key(secret).ok_or(ScanError::Malformed("bad ADV secret"))?,
        })
    }
}

fn key(field: &str) -> Option<[u8; 32]> {
    STANDARD.decode(field).ok()?.try_into().ok()
}

impl Registration {
    /// Reads and checks the registration data; `None` if a field is missing or the signed prekey is not signed.
    fn read(data: &DevicePairingRegistrationData) -> Option<Self> {
        let identity = PublicKey::from_slice(data.e_ident.as_deref()?).ok()?;
        let public = PublicKey::from_slice(data.e_skey_val.as_deref()?).ok()?;
        let signature = data.e_skey_sig.clone()?;
        xeddsa::verify(&identity, &[&public.to_typed()], &signature).ok()?;
        if data.e_keytype.as_deref() != Some(&[wamd::crypto::keys::KEY_TYPE]) {
            return None;
        }
        let registration_id = u32::from_be_bytes(data.e_regid.as_deref()?.try_into().ok()?);
        let id = keys::read_id(data.e_skey_id.as_deref()?)?;
        Some(Self { identity, registration_id, signed_prekey: SignedPreKey { id, public, signature } })
    }
}

/// Handles the answer to pair-device (of no interest) or pair-success.
fn answer(core: &mut Core, id: ConnId, node: NodeRef<'_>) {
    let Some(linking) = waiting(core, id) else { return };
    let answered = node.attr_str("id");
    if linking.pending.as_ref().is_none_or(|pending| Some(pending.iq.as_str()) != answered.as_deref()) {
        return;
    }
    let Some(pending) = linking.pending.take() else { return };
    let (noise, registration) = (linking.noise, linking.registration.clone());
    let outcome = accept(&pending, node);
    let address = pending.address;
    let Some(account) = core.directory.account_mut(address.number) else { return };
    match outcome {
        Err(error) => {
            account.last_link_error = Some(error);
            core.close_soon(id);
        }
        Ok(device_identity) => {
            let device = Device::linked(pending.key_index, noise, device_identity, registration);
            account.devices.insert(address.device, device);
            notices::device_added(core, address);
            core.send_last(id, &stanza::stream_error(515));
        }
    }
}

/// The complete device identity out of the client's answer, or what is wrong with it.
fn accept(pending: &Pending, node: NodeRef<'_>) -> Result<Bytes, String> {
    if node.attr_str("type").as_deref() == Some("error") {
        let error = node.child("error");
        let attr = |name| error.and_then(|error| error.attr_str(name).map(|text| text.to_string())).unwrap_or_default();
        return Err(format!("{} {}", attr("code"), attr("text")).trim().to_owned());
    }
    let identity = node.child("pair-device-sign").and_then(|sign| sign.child("device-identity"));
    let identity = identity.ok_or("no device identity in the answer")?;
    if identity.attr_u64("key-index") != Some(u64::from(pending.key_index)) {
        return Err("the key index is not the one that was offered".to_owned());
    }
    let bytes = identity.bytes().ok_or("the device identity is empty")?;
    pending.offer.accept(&bytes).map_err(|error| error.to_string())
}

impl Device {
    fn linked(key_index: u32, noise: PublicKey, device_identity: Bytes, registration: Registration) -> Self {
        Self {
            key_index,
            hosted: false,
            noise,
            identity: registration.identity,
            registration_id: registration.registration_id,
            signed_prekey: registration.signed_prekey,
            prekeys: std::collections::VecDeque::new(),
            spent: std::collections::BTreeSet::new(),
            uploaded: false,
            told_low: false,
            device_identity,
            connection: None,
            logins: 0,
            greeted: false,
            queue: Queue::default(),
            last_message: None,
        }
    }
}

/// The waiting client of a connection.
pub(crate) fn waiting(core: &mut Core, id: ConnId) -> Option<&mut Linking> {
    match &mut core.connections.get_mut(&id)?.phase {
        Phase::Linking(linking) => Some(linking),
        _ => None,
    }
}

/// The clients that wait to be linked, in the order in which they came.
pub(crate) fn all(core: &Core) -> impl DoubleEndedIterator<Item = (ConnId, &Linking)> {
    core.connections.iter().filter_map(|(id, connection)| match &connection.phase {
        Phase::Linking(linking) => Some((*id, &**linking)),
        _ => None,
    })
}

/// The first waiting client that fits.
pub(crate) fn find(core: &Core, fits: impl Fn(&Linking) -> bool) -> Option<(ConnId, &Linking)> {
    all(core).find(|(_, linking)| fits(linking))
}

/// Sends a notification of the server's own to a waiting client.
pub(crate) fn notify(core: &mut Core, id: ConnId, kind: &str, content: Node) {
    notify_from(core, id, kind, login::server(), Some(content));
}

/// Sends a notification to a waiting client.
pub(crate) fn notify_from(core: &mut Core, id: ConnId, kind: &str, from: Jid, content: Option<Node>) {
    let stanza_id = core.stanza_id();
    let notification = Node::new("notification")
        .attr("from", from)
        .attr("type", kind)
        .attr("id", stanza_id)
        .attr("t", core.now.unix_seconds())
        .child_opt(content);
    core.send(id, &notification);
}

/// Notes on the account why a client was not linked.
pub(crate) fn note_failure(core: &mut Core, number: u64, reason: impl Into<String>) {
    if let Some(account) = core.directory.account_mut(number) {
        account.last_link_error = Some(reason.into());
    }
}

/// An iq of the server's own, and its id.
fn server_iq(core: &mut Core) -> (String, Node) {
    let id = core.stanza_id();
    let iq = Node::new("iq").attr("from", login::server()).attr("type", "set").attr("id", &id).attr("xmlns", "md");
    (id, iq)
}

fn pair_success(jid: &Jid, lid: &Jid, container: &[u8], options: &ScanOptions) -> Node {
    let mut device = Node::new("device").attr("jid", jid);
    if !options.without_lid {
        device = device.attr("lid", lid);
    }
    let mut success = Node::new("pair-success").child(leaf("device-identity", container));
    if let Some(name) = &options.business_name {
        success = success.child(Node::new("biz").attr("name", name.as_str()));
    }
    let platform = options.platform.as_deref().unwrap_or("android");
    let success = success.child(Node::new("platform").attr("name", platform)).child(device);
    if !options.newer_children {
        return success;
    }
    let props = ClientPairingProps { is_chat_db_lid_migrated: Some(true), ..ClientPairingProps::default() };
    success
        .child(leaf("client-props", props.encode_to_vec()))
        .child(Node::new("encryption-metadata"))
        .child(Node::new("jurisdiction"))
}

/// How long the client may take to answer pair-success.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
