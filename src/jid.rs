//! Addresses: a [`Jid`] names an account, a device, a group, a channel or a server (spec 02 §7 and §8).
//!
//! ```text
//! jid     = server | user [ ":" device ] "@" server
//! interop = integrator "-" user [ ":" device ] "@interop"
//! legacy  = user "." agent [ ":" device ] "@" ( "s.whatsapp.net" | "hosted" | "c.us" )
//! ```
//!
//! Identity is user, server, device and integrator; the agent of the legacy form is read and forgotten. Device 0 is the
//! primary phone (or "no device"), and is not printed. Parsing is strict about the grammar and open about server names:
//! a server that this crate does not know is kept as [`Server::Other`], so that a new kind of address loses no stanza.
//!
//! A JID that is put together from parts may hold `@` or `:` in its user part, and prints to a text that does not parse back, or
//! as another one. Neither is read from an attribute of a stanza, nor taken as a recipient: records are kept under texts.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

#[doc(hidden)]
pub mod fuzz;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

use compact_str::CompactString;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Why a text is not a JID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JidError {
    /// More than one `@`.
    #[error("more than one '@' in a JID")]
    SecondAt,
    /// No user part, and the server is not one that stands alone.
    #[error("a JID without user must be a known server name")]
    UnknownServer,
    /// Nothing after the `@`.
    #[error("the server part of the JID is empty")]
    EmptyServer,
    /// The server part holds something else than `a`-`z`, `0`-`9`, `.` and `-`.
    #[error("bad character in the server part of the JID")]
    BadServer,
    /// A device, agent or integrator without a user.
    #[error("the JID has a device, agent or integrator but no user")]
    EmptyUser,
    /// More than one `:` before the `@`.
    #[error("more than one ':' in the user part of the JID")]
    SecondColon,
    /// The device is not a decimal number.
    #[error("the device of the JID is not a decimal number")]
    BadDevice,
    /// The device is too large for its server.
    #[error("the device of the JID is above {max}")]
    DeviceTooLarge {
        /// Largest device number on that server.
        max: u16,
    },
    /// More than one legacy agent.
    #[error("more than one agent in the user part of the JID")]
    SecondAgent,
    /// An `interop` JID whose user part does not start with digits (at most 65535) and `-`.
    #[error("an interop JID must start with its integrator number and '-'")]
    BadIntegrator,
}

/// The server part of a [`Jid`], which says what kind of thing it names (spec 02 §8, table "Servers").
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Server {
    /// `s.whatsapp.net`: a user by phone number (PN), and the server itself when there is no user.
    Pn,
    /// `lid`: a user by hidden id (LID).
    Lid,
    /// `hosted`: a PN device that Meta hosts.
    Hosted,
    /// `hosted.lid`: the same for a LID.
    HostedLid,
    /// `g.us`: a group or community.
    Group,
    /// `broadcast`: the status feed and broadcast lists.
    Broadcast,
    /// `newsletter`: a channel.
    Newsletter,
    /// `bot`: Meta AI and other bots.
    Bot,
    /// `call`: call links and call signalling.
    Call,
    /// `msgr`: a Messenger user.
    Messenger,
    /// `interop`: a user of a third-party service, reached through an integrator.
    Interop,
    /// `c.us`: the legacy spelling of `s.whatsapp.net`.
    Legacy,
    /// A server this crate has no name for. Make one with [`Server::parse`], which prefers the known variants.
    Other(CompactString),
}

impl Server {
    /// Reads a server name; unknown names are kept.
    ///
    /// # Errors
    /// [`JidError::EmptyServer`], or [`JidError::BadServer`] when a character is not one of `a`-`z`, `0`-`9`, `.`, `-`.
    pub fn parse(name: &str) -> Result<Self, JidError> {
        if name.is_empty() {
            return Err(JidError::EmptyServer);
        }
        let server = Self::from_wire(name);
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
        if matches!(server, Self::Other(_)) && !name.bytes().all(allowed) {
            return Err(JidError::BadServer);
        }
        Ok(server)
    }

    /// The name on the wire and in texts.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pn => "s.whatsapp.net",
            Self::Lid => "lid",
            Self::Hosted => "hosted",
            Self::HostedLid => "hosted.lid",
            Self::Group => "g.us",
            Self::Broadcast => "broadcast",
            Self::Newsletter => "newsletter",
            Self::Bot => "bot",
            Self::Call => "call",
            Self::Messenger => "msgr",
            Self::Interop => "interop",
            Self::Legacy => "c.us",
            Self::Other(name) => name,
        }
    }

    /// Reads a name as the wire gives it, where any name is kept.
    pub(crate) fn from_wire(name: &str) -> Self {
        match name {
            "s.whatsapp.net" => Self::Pn,
            "lid" => Self::Lid,
            "hosted" => Self::Hosted,
            "hosted.lid" => Self::HostedLid,
            "g.us" => Self::Group,
            "broadcast" => Self::Broadcast,
            "newsletter" => Self::Newsletter,
            "bot" => Self::Bot,
            "call" => Self::Call,
            "msgr" => Self::Messenger,
            "interop" => Self::Interop,
            "c.us" => Self::Legacy,
            other => Self::Other(CompactString::new(other)),
        }
    }

    /// The largest device number that a text may give: 255 where the wire has one byte for it.
    fn max_device(&self) -> u16 {
        match self {
            Self::Pn | Self::Lid | Self::Hosted | Self::HostedLid => 0xff,
            _ => u16::MAX,
        }
    }

    /// Whether a `.` and digits at the end of the user part are the legacy agent.
    fn has_legacy_agent(&self) -> bool {
        matches!(self, Self::Pn | Self::Hosted | Self::Legacy)
    }

    /// The server of the account that a device on this server belongs to.
    fn of_account(&self) -> &Self {
        match self {
            Self::Hosted | Self::Legacy => &Self::Pn,
            Self::HostedLid => &Self::Lid,
            other => other,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Server {
    type Err = JidError;

    fn from_str(name: &str) -> Result<Self, JidError> {
        Self::parse(name)
    }
}

/// An address: user, server, device and, for `interop`, integrator.
///
/// Cheap to clone: user parts of up to 24 bytes (every number) live inside the value. `Display`, `FromStr` and serde use
/// the text form; [`Jid::redacted`] is the form for logs.
///
/// ```
/// use wamd::jid::{Jid, Server};
///
/// let phone: Jid = "5511987654321:3@s.whatsapp.net".parse()?;
/// assert_eq!(phone.device(), 3);
/// assert_eq!(phone.to_bare(), Jid::pn("5511987654321"));
/// assert_eq!(phone.to_string(), "5511987654321:3@s.whatsapp.net");
/// assert_eq!(phone.redacted().to_string(), "**21:3@s.whatsapp.net");
/// assert_eq!(Jid::new("120363041234567890", Server::Group).to_string(), "120363041234567890@g.us");
/// # Ok::<(), wamd::jid::JidError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Jid {
    user: CompactString,
    server: Server,
    device: u16,
    integrator: u16,
}

impl Jid {
    /// A JID without device. The user part is taken as it is; an empty one gives the server's own JID.
    pub fn new(user: impl AsRef<str>, server: Server) -> Self {
        let server = match server {
            Server::Other(name) => Server::from_wire(&name),
            known => known,
        };
        Self::from_parts(user.as_ref(), server, 0, 0)
    }

    /// The account with this phone number (digits without `+`): `user@s.whatsapp.net`.
    pub fn pn(user: impl AsRef<str>) -> Self {
        Self::new(user, Server::Pn)
    }

    /// The account with this hidden id: `user@lid`.
    pub fn lid(user: impl AsRef<str>) -> Self {
        Self::new(user, Server::Lid)
    }

    /// `s.whatsapp.net`, the server itself: the target of most queries.
    pub const fn whatsapp_server() -> Self {
        Self { user: CompactString::const_new(""), server: Server::Pn, device: 0, integrator: 0 }
    }

    /// `status@broadcast`, the status feed.
    pub const fn status_broadcast() -> Self {
        Self { user: CompactString::const_new("status"), server: Server::Broadcast, device: 0, integrator: 0 }
    }

    /// From checked or wire parts; `server` is not an `Other` that has a name of its own.
    pub(crate) fn from_parts(user: &str, server: Server, device: u16, integrator: u16) -> Self {
        Self { user: CompactString::new(user), server, device, integrator }
    }

    /// The same address on another device; 0 is the primary.
    #[must_use]
    pub fn with_device(&self, device: u16) -> Self {
        Self { device, ..self.clone() }
    }

    /// The same address with another integrator (meaningful on `interop` only).
    #[must_use]
    pub fn with_integrator(&self, integrator: u16) -> Self {
        Self { integrator, ..self.clone() }
    }

    /// The user part; empty for a server.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The server part.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The device; 0 is the primary phone or none.
    pub fn device(&self) -> u16 {
        self.device
    }

    /// The integrator; 0 on everything but `interop`.
    pub fn integrator(&self) -> u16 {
        self.integrator
    }

    /// The same without device.
    #[must_use]
    pub fn to_bare(&self) -> Self {
        self.with_device(0)
    }

    /// The account that this device belongs to: without device, `hosted` and `c.us` as `s.whatsapp.net`, `hosted.lid` as
    /// `lid`.
    #[must_use]
    pub fn to_account(&self) -> Self {
        Self { server: self.server.of_account().clone(), ..self.to_bare() }
    }

    /// Whether both are devices of one account, by [`Jid::to_account`]. A PN and a LID are never the same here; only the
    /// LID mapping can tell.
    pub fn same_account(&self, other: &Self) -> bool {
        self.user == other.user
            && self.integrator == other.integrator
            && self.server.of_account() == other.server.of_account()
    }

    /// Whether the server is `s.whatsapp.net`, `hosted` or `c.us`.
    pub fn is_pn_family(&self) -> bool {
        *self.server.of_account() == Server::Pn
    }

    /// Whether the server is `lid` or `hosted.lid`.
    pub fn is_lid_family(&self) -> bool {
        *self.server.of_account() == Server::Lid
    }

    /// A group or community; `g.us` alone is a server and not a group.
    pub fn is_group(&self) -> bool {
        self.server == Server::Group && !self.is_server_only()
    }

    /// The status feed or a broadcast list.
    pub fn is_broadcast(&self) -> bool {
        self.server == Server::Broadcast && !self.is_server_only()
    }

    /// `status@broadcast`.
    pub fn is_status_broadcast(&self) -> bool {
        self.server == Server::Broadcast && self.user == "status"
    }

    /// A channel.
    pub fn is_newsletter(&self) -> bool {
        self.server == Server::Newsletter && !self.is_server_only()
    }

    /// A bot: on the server `bot`, or a phone number of the blocks `1313555dddd` and `131655500dd`, without device.
    pub fn is_bot(&self) -> bool {
        match self.server {
            Server::Bot => !self.is_server_only(),
            Server::Pn | Server::Legacy if self.device == 0 => {
                let tail = self.user.strip_prefix("1313555").map(|tail| (tail, 4));
                let tail = tail.or_else(|| self.user.strip_prefix("131655500").map(|tail| (tail, 2)));
                tail.is_some_and(|(tail, len)| tail.len() == len && tail.bytes().all(|b| b.is_ascii_digit()))
            }
            _ => false,
        }
    }

    /// A device that Meta hosts: a hosted server, or device 99 of a user.
    pub fn is_hosted(&self) -> bool {
        match self.server {
            Server::Hosted | Server::HostedLid => true,
            Server::Pn | Server::Lid | Server::Legacy => self.device == HOSTED_DEVICE,
            _ => false,
        }
    }

    /// Whether there is no user part.
    pub fn is_server_only(&self) -> bool {
        self.user.is_empty()
    }

    /// `user.0:device@server` with a literal 0, the form that participant hashes are made of; the server alone when there
    /// is no user (spec 02 §8).
    pub fn ad_string(&self) -> String {
        if self.is_server_only() {
            return self.server.as_str().to_owned();
        }
        format!("{}.0:{}@{}", self.user, self.device, self.server)
    }

    /// Whether the text form reads back as this JID. Not if the user part holds what separates other parts: then two addresses
    /// have the same text.
    pub(crate) fn has_text_form(&self) -> bool {
        let separates = |b: u8| b == b':' || b == b'@' || b == b'.' && self.server.has_legacy_agent();
        !self.user.bytes().any(separates)
    }

    /// The text, as `Display` writes it, in a string that is as long as that.
    pub(crate) fn to_text(&self) -> String {
        // An integrator and a device have five digits at most.
        let mut text =
            String::with_capacity(self.user.len().saturating_add(self.server.as_str().len()).saturating_add(13));
        let _written = write_text(&mut text, &self.user, self.server.as_str(), self.device, self.integrator);
        text
    }

    /// The form for logs: all of the user part but its last two digits is hidden.
    pub fn redacted(&self) -> Redacted<'_> {
        Redacted(self)
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(f, &self.user, self.server.as_str(), self.device, self.integrator)
    }
}

/// The canonical text, which holds the user part; use [`Jid::redacted`] for logs.
impl fmt::Debug for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<&Self> for Jid {
    fn from(jid: &Self) -> Self {
        jid.clone()
    }
}

impl From<&Jid> for String {
    fn from(jid: &Jid) -> Self {
        jid.to_string()
    }
}

impl From<Jid> for String {
    fn from(jid: Jid) -> Self {
        jid.to_string()
    }
}

impl TryFrom<&str> for Jid {
    type Error = JidError;

    fn try_from(text: &str) -> Result<Self, JidError> {
        text.parse()
    }
}

impl Serialize for Jid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Jid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Jid;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JID such as 5511987654321@s.whatsapp.net")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Jid, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// A [`Jid`] as logs may show it: `**21:2@s.whatsapp.net`.
///
/// The last two characters of the user part are shown if they are digits and hide at least two others; `status` and an
/// empty user are no secrets and are shown.
#[derive(Clone, Copy)]
pub struct Redacted<'a>(&'a Jid);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jid = self.0;
        write_redacted(f, &jid.user, jid.server.as_str(), jid.device)
    }
}

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes the canonical text (spec 02 §8, "Print").
pub(crate) fn write_text(
    f: &mut dyn fmt::Write,
    user: &str,
    server: &str,
    device: u16,
    integrator: u16,
) -> fmt::Result {
    if user.is_empty() {
        return f.write_str(server);
    }
    if server == Server::Interop.as_str() {
        write!(f, "{integrator}-")?;
    }
    f.write_str(user)?;
    if device != 0 {
        write!(f, ":{device}")?;
    }
    f.write_char('@')?;
    f.write_str(server)
}

/// Writes the form for logs. Servers come from the wire too, so control characters in them are escaped.
pub(crate) fn write_redacted(f: &mut dyn fmt::Write, user: &str, server: &str, device: u16) -> fmt::Result {
    if !user.is_empty() {
        let shown = match user.as_bytes() {
            [_, _, .., a, b] if a.is_ascii_digit() && b.is_ascii_digit() => Some((char::from(*a), char::from(*b))),
            _ => None,
        };
        match shown {
            _ if user == "status" => f.write_str(user)?,
            Some((a, b)) => write!(f, "**{a}{b}")?,
            None => f.write_str("**")?,
        }
        if device != 0 {
            write!(f, ":{device}")?;
        }
        f.write_char('@')?;
    }
    write!(f, "{}", server.escape_debug())
}

/// The device number that marks a device hosted by Meta (spec 02 §8).
const HOSTED_DEVICE: u16 = 99;
