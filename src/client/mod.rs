//! The tokio driver: one task per account that carries out what the [`Engine`](crate::engine::Engine) wants.
//!
//! ```text
//!   Client ──commands──►┌──────────┐──load, commit──► Store
//!   Events ◄──events────│  driver  │
//!                       └──────────┘──frames──► socket task ──► websocket (TLS, proxy)
//! ```
//!
//! ```no_run
//! # async fn example() -> Result<(), wamd::Error> {
//! use wamd::{client::Client, store::{AccountId, SqliteStore}};
//!
//! let store = SqliteStore::open("accounts.db")?;
//! let client = Client::builder(AccountId::new("sales")).store(store).start().await?;
//! let mut events = client.events()?;
//! client.link_qr().await?;
//! while let Some(event) = events.recv().await {
//!     println!("{}", event.to_json());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The client adds sockets, time and randomness, and no rule of the protocol. Memory per connection: buffers of
//! [`SOCKET_BUFFER`] bytes each way.

mod builder;
mod driver;
mod error;
mod events;
mod fleet;
mod groups;
mod messages;
pub mod metrics;
mod network;
mod proxy;
pub mod qr;
mod socket;
pub mod transfer;
mod version;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    engine::{Command, Reply, SendRequest, Snapshot},
    jid::Jid,
    message::MessageId,
    pairing::{
        code::{PairCode, PhoneNumber},
        payload::Version,
    },
};
use driver::Request;

pub use builder::ClientBuilder;
pub use error::Error;
pub use events::{Delivery, Events};
pub use fleet::{Fleet, FleetBuilder, FleetEvents, Started};
pub use groups::Groups;
pub use network::{Network, NetworkError, Stream};
pub use proxy::{Proxy, ProxyError, ProxyUrlError};
pub use socket::{DEFAULT_URL, SOCKET_BUFFER};
pub use transfer::{TransferError, Transferred, export_account, import_account};
pub use version::{FixedVersion, HttpVersion, VersionError, VersionFuture, VersionProvider};

/// A message that was accepted: it is stored, and will be sent or reported as failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// Its id.
    pub id: MessageId,
    /// When it was accepted, unix seconds.
    pub timestamp: u64,
}

/// A code to link with, accepted by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkCode {
    /// To be typed on the phone: WhatsApp, Settings, Linked devices, Link with phone number.
    pub code: PairCode,
    /// Until when, unix milliseconds.
    pub expires_at: u64,
}

/// A handle of one account. Cheap to clone; when the last one is dropped, the account stops.
#[derive(Clone, Debug)]
pub struct Client {
    requests: mpsc::Sender<Box<Request>>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The consumer's end, until somebody takes it.
    events: Arc<Mutex<Option<Events>>>,
}

impl Client {
    /// Starts to describe an account.
    pub fn builder(account: crate::store::AccountId) -> ClientBuilder {
        ClientBuilder::new(account)
    }

    /// Links this account to a phone by QR code: connects, and emits `session.qr_updated` for every code, then
    /// `session.paired` or `session.qr_exhausted`. After linking the account stays connected.
    ///
    /// # Errors
    /// [`CommandError::AlreadyLinked`](crate::engine::CommandError::AlreadyLinked), and [`Error::Stopped`].
    pub async fn link_qr(&self) -> Result<(), Error> {
        self.command(Command::LinkQr).await.map(drop)
    }

    /// Links this account to the phone of a number by a code that is typed there: connects if that is needed, and answers
    /// when the server has accepted the code. Then come `session.paired`, or `session.pair_code_refresh` and
    /// `session.pair_code_error`. QR codes are shown beside it, and either way links.
    ///
    /// ```no_run
    /// # async fn example(client: wamd::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let linking = client.link_code("+55 11 98765-4321".parse()?).await?;
    /// println!("type {} on the phone", linking.code.shown());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CommandError::AlreadyLinked`](crate::engine::CommandError::AlreadyLinked),
    /// [`CommandError::LinkUnderWay`](crate::engine::CommandError::LinkUnderWay),
    /// [`CommandError::Link`](crate::engine::CommandError::Link) with what the server answered, and [`Error::Stopped`].
    pub async fn link_code(&self, phone: PhoneNumber) -> Result<LinkCode, Error> {
        self.link_code_with(phone, None, true).await
    }

    /// As [`link_code`](Self::link_code), with a code of the caller's choice, or without a notification on the phone.
    ///
    /// # Errors
    /// As [`link_code`](Self::link_code).
    pub async fn link_code_with(
        &self,
        phone: PhoneNumber,
        code: Option<PairCode>,
        notify: bool,
    ) -> Result<LinkCode, Error> {
        match self.command(Command::LinkCode { phone, code, notify }).await? {
            Reply::PairCode { code, expires_at } => Ok(LinkCode { code, expires_at }),
            _ => Err(Error::Stopped),
        }
    }

    /// Hands in the WebAuthn assertion that `session.passkey_request` asked for: the raw id of the credential, and the
    /// assertion as JSON.
    ///
    /// # Errors
    /// [`CommandError::NoPasskey`](crate::engine::CommandError::NoPasskey) when none is asked for,
    /// [`CommandError::Content`](crate::engine::CommandError::Content), and [`Error::Stopped`].
    pub async fn passkey_assertion(&self, credential_id: Bytes, assertion: Bytes) -> Result<(), Error> {
        self.command(Command::PasskeyAssertion { credential_id, assertion }).await.map(drop)
    }

    /// Says that the phone shows the code of `session.passkey_confirmation`.
    ///
    /// # Errors
    /// [`CommandError::NoPasskey`](crate::engine::CommandError::NoPasskey), and [`Error::Stopped`].
    pub async fn passkey_confirm(&self) -> Result<(), Error> {
        self.command(Command::PasskeyConfirm).await.map(drop)
    }

    /// Connects a linked account and keeps it connected.
    ///
    /// # Errors
    /// [`CommandError::NotLinked`](crate::engine::CommandError::NotLinked), and [`Error::Stopped`].
    pub async fn connect(&self) -> Result<(), Error> {
        self.command(Command::Connect).await.map(drop)
    }

    /// Drops the connection and connects at once; ends a backoff and the `REPLACED` state.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn reconnect(&self) -> Result<(), Error> {
        self.command(Command::Reconnect).await.map(drop)
    }

    /// Closes the connection and stays offline. The account remains linked.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn disconnect(&self) -> Result<(), Error> {
        self.command(Command::Disconnect).await.map(drop)
    }

    /// Unlinks this device, best effort within 5 s, and removes everything that is stored of the account but its events.
    ///
    /// # Errors
    /// [`CommandError::NotLinked`](crate::engine::CommandError::NotLinked), and [`Error::Stopped`].
    pub async fn logout(&self) -> Result<(), Error> {
        self.command(Command::Logout).await.map(drop)
    }

    /// States this version of the web client from now on. A standing connection is not touched; an account that is
    /// `OUTDATED` connects with it when it is told to, or at once while a newer version is being looked for.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn set_version(&self, version: Version) -> Result<(), Error> {
        self.command(Command::SetVersion(version)).await.map(drop)
    }

    /// Sends a text to a user. Answers when the message is stored: from then on it will be sent, or reported by
    /// `message.failed`, whatever crashes.
    ///
    /// # Errors
    /// A [`CommandError`](crate::engine::CommandError) that says why it was not accepted, and [`Error::Stopped`].
    pub async fn send_text(&self, to: &Jid, text: impl Into<String>) -> Result<Accepted, Error> {
        self.send(SendRequest::text(to.clone(), text)).await
    }

    /// Sends a message; as [`send_text`](Self::send_text), with an id or a correlation text of the caller's choice.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    pub async fn send(&self, request: SendRequest) -> Result<Accepted, Error> {
        match self.command(Command::Send(request)).await? {
            Reply::Accepted { id, timestamp } => Ok(Accepted { id, timestamp }),
            _ => Err(Error::Stopped),
        }
    }

    /// Tells the author of messages that they were read. `participant` is the author, in groups.
    ///
    /// # Errors
    /// [`CommandError::NotConnected`](crate::engine::CommandError::NotConnected) and
    /// [`CommandError::NoIds`](crate::engine::CommandError::NoIds), and [`Error::Stopped`].
    pub async fn mark_read(&self, chat: &Jid, participant: Option<&Jid>, ids: &[&str]) -> Result<(), Error> {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let command = Command::MarkRead { chat: chat.clone(), participant: participant.cloned(), ids };
        self.command(command).await.map(drop)
    }

    /// The groups of the account.
    pub const fn groups(&self) -> Groups<'_> {
        Groups { client: self }
    }

    /// Takes the consumer's end of the events; there is one. Without a consumer events wait in the store, and when too many
    /// do, the socket is not read any more.
    ///
    /// # Errors
    /// [`Error::EventsTaken`] the second time.
    pub fn events(&self) -> Result<Events, Error> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(Error::EventsTaken)
    }

    /// What is known about the account now; the state is the one that the last event told.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Closes the connection, waits until everything is stored, and stops the account. Other handles then answer
    /// [`Error::Stopped`]; the [`Events`] end after what is queued. A consumer that is slow to take and acknowledge it is
    /// waited for half a second; what is not acknowledged comes again when the account is started the next time.
    pub async fn shutdown(self) {
        let (done, stopped) = oneshot::channel();
        if self.requests.send(Box::new(Request::Shutdown(done))).await.is_ok() {
            let _ = stopped.await;
        }
    }

    async fn command(&self, command: Command) -> Result<Reply, Error> {
        let (answer, reply) = oneshot::channel();
        self.requests.send(Box::new(Request::Command(command, answer))).await.map_err(|_| Error::Stopped)?;
        Ok(reply.await.map_err(|_| Error::Stopped)??)
    }
}
