//! The machine: inputs in, outputs out, and what tests ask of it directly.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use wamd::clock::Now;
use wamd::crypto::{PrivateKey, PublicKey, hkdf_sha256};
use wamd::jid::Jid;
use wamd::node::Node;

use crate::authority::Authority;
use crate::connection::{Connection, Phase};
use crate::control::parse_number;
use crate::core::Core;
use crate::directory::{Account, Namespace};
use crate::{
    AccountView, Config, ConnId, ControlError, DeviceView, Disconnect, Fault, GroupChange, GroupSpec, GroupView, Input,
    LinkAction, Linked, Output, PasskeyOptions, Pattern, ReceivedMessage, ScanError, ScanOptions, WaitingView,
    connection, faults, group, late, linking, notices, pair_code, passkey, phone, stanza, tokens, waiting,
};

/// The server and all simulated phones as one value.
///
/// **The contract: one [`handle`](Self::handle) or control method, then [`poll`](Self::poll) until it is empty, then wait
/// for the next input or until [`deadline`](Self::deadline), whatever comes first.** Time never runs backwards.
///
/// ```
/// use std::time::Duration;
/// use wamd::clock::Now;
/// use wamd_loopback::{Config, ConnId, Input, Server};
///
/// let mut server = Server::new(Config::default(), [7; 32]);
/// let now = Now { mono: Duration::ZERO, wall_ms: 1_700_000_000_000 };
/// server.handle(now, Input::Opened(ConnId(1)));
/// assert_eq!(server.poll(), None, "the client speaks first");
/// assert_eq!(server.deadline(), Some(Duration::from_secs(20)), "and has so long to do so");
/// let account = server.phone(now, "15551234567").unwrap();
/// assert_eq!(account.jid.to_string(), "15551234567@s.whatsapp.net");
/// ```
#[derive(Debug)]
pub struct Server {
    core: Core,
}

impl Server {
    /// A server without accounts. All its randomness comes from `seed`.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let root = config
            .root
            .clone()
            .unwrap_or_else(|| PrivateKey::from_bytes(hkdf_sha256(None, &seed, b"wamd-loopback root")));
        let authority = Authority::new(root, config.validity);
        Self { core: Core::new(config, ChaCha20Rng::from_seed(seed), authority) }
    }

    /// Takes an input, and does what is due.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.core.now = now;
        match input {
            Input::Opened(id) => {
                self.core.connections.entry(id).or_insert_with(|| Connection::new(now.mono));
            }
            Input::Bytes(id, bytes) => connection::receive(&mut self.core, id, bytes),
            Input::Closed(id) => {
                self.core.detach(id);
                self.core.connections.remove(&id);
            }
            Input::Tick => {}
        }
        self.expire();
    }

    /// The next output; `None` when there is nothing to do until the next input.
    pub fn poll(&mut self) -> Option<Output> {
        self.core.outputs.pop_front()
    }

    /// When to call [`handle`](Self::handle) with [`Input::Tick`] if nothing else happens, on the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        let timeout = self.core.config.handshake_timeout;
        let connections = self.core.connections.values().filter_map(|connection| connection.deadline(timeout));
        connections.chain(self.core.late.deadline()).min()
    }

    fn expire(&mut self) {
        let (now, timeout) = (self.core.now.mono, self.core.config.handshake_timeout);
        let due = |connection: &Connection| connection.deadline(timeout).is_some_and(|deadline| deadline <= now);
        let due: Vec<ConnId> =
            self.core.connections.iter().filter(|(_, connection)| due(connection)).map(|(id, _)| *id).collect();
        for id in due {
            connection::expire(&mut self.core, id);
        }
        late::deliver(&mut self.core);
    }

    /// The root that clients must trust.
    pub fn root_public_key(&self) -> PublicKey {
        *self.core.authority.root_public()
    }

    /// The account of a phone number, made if it is new.
    ///
    /// # Errors
    /// [`ControlError::Number`].
    pub fn phone(&mut self, now: Now, number: &str) -> Result<AccountView, ControlError> {
        self.core.now = now;
        let number = parse_number(number).ok_or(ControlError::Number)?;
        let account = self.core.directory.get_or_create(number, now.unix_seconds(), &mut self.core.rng);
        Ok(view(account))
    }

    /// All accounts, by phone number.
    pub fn accounts(&self) -> Vec<AccountView> {
        self.core.directory.accounts().map(view).collect()
    }

    /// Scans a QR code with the phone of a number, which is made if it is new. The text may be the bare one or the link.
    ///
    /// # Errors
    /// [`ScanError`] says what the phone does not like. The client can be scanned again, unless its code is gone.
    pub fn scan(&mut self, now: Now, number: &str, qr: &str, options: &ScanOptions) -> Result<Linked, ScanError> {
        self.core.now = now;
        linking::scan(&mut self.core, number, qr, options)
    }

    /// Types a pair code on the phone of a number, which is made if it is new. The companion that waits for the code of
    /// this number gets the phone's key; whether the code was right shows in [`AccountView::last_link_error`] or in the
    /// device that appears. After a wrong code another one can be typed.
    ///
    /// # Errors
    /// [`ScanError::Number`], [`ScanError::Malformed`] for a code that cannot be one, [`ScanError::UnknownRef`] when no
    /// companion waits, [`ScanError::AlreadyScanned`] when a code was typed for it.
    pub fn enter_code(&mut self, now: Now, number: &str, code: &str, options: &ScanOptions) -> Result<(), ScanError> {
        self.core.now = now;
        pair_code::enter(&mut self.core, number, code, options)
    }

    /// Asks a waiting client for a passkey of the account of a number, which is made if it is new. With a QR text the phone
    /// has read the code of that client and can check its handoff proof; without one it is the client that came last.
    /// [`waiting`](Self::waiting) tells how far it is, and the code that the phone shows.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn begin_passkey(
        &mut self,
        now: Now,
        number: &str,
        qr: Option<&str>,
        options: &PasskeyOptions,
    ) -> Result<ConnId, ScanError> {
        self.core.now = now;
        passkey::begin(&mut self.core, number, qr, options)
    }

    /// The user of the phone of a number declines the link by pair code or passkey that is going on. Nobody tells the
    /// client; what it still sends for this link is answered with error 400.
    ///
    /// # Errors
    /// [`ControlError::Number`], [`ControlError::NotWaiting`] when no link by code or passkey is going on.
    pub fn refuse_link(&mut self, now: Now, number: &str) -> Result<(), ControlError> {
        self.core.now = now;
        waiting::refuse(&mut self.core, number)
    }

    /// The clients that wait to be linked, in the order in which they came.
    pub fn waiting(&self) -> Vec<WaitingView> {
        waiting::views(&self.core)
    }

    /// Does something to a client that waits to be linked: the one that came last, unless its connection is named.
    ///
    /// # Errors
    /// [`ControlError::NotWaiting`], [`ControlError::Unencodable`].
    pub fn link_action(&mut self, now: Now, conn: Option<ConnId>, action: LinkAction) -> Result<(), ControlError> {
        self.core.now = now;
        waiting::act(&mut self.core, conn, action)
    }

    /// What the phone of a number has received and could decrypt, oldest first; at least the last 50,000 messages.
    pub fn received(&self, number: &str) -> Vec<ReceivedMessage> {
        let account = parse_number(number).and_then(|number| self.core.directory.account(number));
        account.map(|account| account.phone.received.clone()).unwrap_or_default()
    }

    /// Sends a text from the phone of a number, encrypted for every device of both accounts, or to a group; gives the message
    /// id.
    ///
    /// # Errors
    /// [`ControlError::Number`], [`ControlError::UnknownDevice`] or [`ControlError::UnknownGroup`] when nobody has the JID,
    /// [`ControlError::Encrypt`], [`ControlError::Refused`] when the phone may not write there.
    pub fn send_text(&mut self, now: Now, number: &str, to: &Jid, text: &str) -> Result<String, ControlError> {
        let account = self.phone(now, number)?;
        let number = parse_number(&account.number).ok_or(ControlError::Number)?;
        phone::send_text(&mut self.core, number, to, text)
    }

    /// Sends a message of arbitrary content from the phone of a number, encrypted for every device of the other account;
    /// gives the message id. `content` is what stands in front of the padding, and need not be a message at all.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    pub fn send_content(&mut self, now: Now, number: &str, to: &Jid, content: &[u8]) -> Result<String, ControlError> {
        let account = self.phone(now, number)?;
        let number = parse_number(&account.number).ok_or(ControlError::Number)?;
        phone::send_content(&mut self.core, number, to, content)
    }

    /// Posts a text from the phone of a number to an audience: `to` is `status@broadcast`, or a broadcast list, which is any
    /// JID of that server. Gives the message id.
    ///
    /// # Errors
    /// [`ControlError::Number`], [`ControlError::UnknownDevice`] when nobody has a JID of the audience,
    /// [`ControlError::Refused`] when `to` is no such JID.
    pub fn send_to_audience(
        &mut self,
        now: Now,
        number: &str,
        to: &Jid,
        audience: &[Jid],
        text: &str,
    ) -> Result<String, ControlError> {
        let account = self.phone(now, number)?;
        let number = parse_number(&account.number).ok_or(ControlError::Number)?;
        if !to.is_broadcast() {
            return Err(ControlError::Refused(404));
        }
        phone::send_to_audience(&mut self.core, number, to, audience, text)
    }

    /// Makes a group in the name of the phone of its creator. All members are told, as if a client had made it.
    ///
    /// # Errors
    /// [`ControlError::Number`], [`ControlError::UnknownDevice`] when nobody has the JID of a member,
    /// [`ControlError::Refused`].
    pub fn create_group(&mut self, now: Now, spec: &GroupSpec) -> Result<GroupView, ControlError> {
        self.core.now = now;
        group::control::create(&mut self.core, spec)
    }

    /// Changes a group in the name of a member, of its creator unless one is named. All members are told.
    ///
    /// # Errors
    /// [`ControlError::UnknownGroup`], [`ControlError::UnknownDevice`], [`ControlError::Refused`] with the code that a client
    /// would get; participants in front of the one that was refused are changed.
    pub fn change_group(
        &mut self,
        now: Now,
        group: &Jid,
        by: Option<&Jid>,
        change: GroupChange,
    ) -> Result<(), ControlError> {
        self.core.now = now;
        group::control::change(&mut self.core, group, by, change)
    }

    /// All groups, by id.
    pub fn groups(&self) -> Vec<GroupView> {
        self.core.groups.iter().map(|group| group::control::view(&self.core, group)).collect()
    }

    /// The salt from which the account of a number makes its `cstoken`s. A real phone tells it its companions by history and app
    /// state.
    pub fn nct_salt(&self, number: &str) -> Option<[u8; 32]> {
        parse_number(number).and_then(|number| self.core.directory.account(number)).map(tokens::salt)
    }

    /// Seals a stanza and sends it on a connection, whatever is going on there.
    pub fn inject(&mut self, now: Now, conn: ConnId, node: &Node) {
        self.core.now = now;
        self.core.send(conn, node);
    }

    /// Keeps a copy of every stanza that clients send from now on, for [`take_stanzas`](Self::take_stanzas).
    pub fn record_stanzas(&mut self) {
        self.core.recorded.get_or_insert_default();
    }

    /// The stanzas that clients have sent since the last call, in the order of their arrival. Empty unless they are
    /// [recorded](Self::record_stanzas).
    pub fn take_stanzas(&mut self) -> Vec<(ConnId, Node)> {
        self.core.recorded.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How the connection of a device was set up; `None` when it is not connected.
    pub fn pattern(&self, jid: &Jid) -> Option<Pattern> {
        let id = self.core.connection_of(self.core.directory.resolve(jid)?)?;
        match &self.core.connections.get(&id)?.phase {
            Phase::Online(session) => Some(session.pattern),
            _ => None,
        }
    }

    /// Ends the connection of a device. [`Disconnect::DeviceRemoved`] works on a device that is not connected, too.
    ///
    /// # Errors
    /// [`ControlError::UnknownDevice`], [`ControlError::NotConnected`].
    pub fn disconnect(&mut self, now: Now, jid: &Jid, how: Disconnect) -> Result<(), ControlError> {
        self.core.now = now;
        let address = self.core.named_companion(jid)?;
        if how == Disconnect::DeviceRemoved {
            notices::unlink(&mut self.core, address);
            return Ok(());
        }
        let id = self.core.connection_of(address).ok_or(ControlError::NotConnected)?;
        let last = match how {
            Disconnect::Plain | Disconnect::DeviceRemoved => None,
            Disconnect::StreamError(409) => Some(stanza::replaced(Some(409))),
            Disconnect::StreamError(code) => Some(stanza::stream_error(code)),
            Disconnect::Replaced => Some(stanza::replaced(None)),
            Disconnect::XmlStreamEnd => Some(Node::new("xmlstreamend")),
        };
        match last {
            Some(node) => self.core.send_last(id, &node),
            None => self.core.close(id),
        }
        Ok(())
    }

    /// Makes something go wrong, or stops doing so.
    ///
    /// # Errors
    /// [`ControlError::UnknownDevice`] for a JID that names nobody, and what each fault needs beyond that.
    pub fn fault(&mut self, now: Now, fault: Fault) -> Result<(), ControlError> {
        self.core.now = now;
        faults::apply(&mut self.core, fault)
    }
}

fn view(account: &Account) -> AccountView {
    let devices = account.devices.iter().map(|(id, device)| DeviceView {
        device: *id,
        jid: account.jid(Namespace::Pn, *id),
        lid: account.jid(Namespace::Lid, *id),
        connected: device.connection.is_some(),
        registered: device.logins > 0,
        prekeys: device.prekeys.len(),
        queued: device.queue.len(),
    });
    AccountView {
        number: account.number.to_string(),
        jid: account.jid(Namespace::Pn, 0),
        lid: account.jid(Namespace::Lid, 0),
        push_name: account.push_name.clone(),
        devices: devices.collect(),
        last_link_error: account.last_link_error.clone(),
    }
}
