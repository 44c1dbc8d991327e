//! A WhatsApp multi-device protocol engine: a linked device of an account, as a value.
//!
//! **Unofficial, and not affiliated with WhatsApp or Meta. Its use may violate the terms of service and get numbers banned.**
//!
//! ```text
//!   your program ──commands──► client ──inputs──► engine ──outputs──► client ──► socket, store
//!                ◄──events────        (tokio)   (no I/O at all)
//!
//!   engine    the state machine: connection, lanes, sends, receipts, outbox
//!   pairing, message, appstate         linking; content of messages; shared settings
//!   signal, stanza                     end-to-end encryption; typed stanzas
//!   node                               binary nodes
//!   noise                              handshake, certificates, frames
//!   jid, proto, crypto, event, store   the vocabulary of all layers
//! ```
//!
//! Each layer knows only those below it, and each can be used alone. Everything below [`client`] is pure: time and
//! randomness are arguments, and records, sockets and timers are outputs that somebody else carries out.
//!
//! # The paved path
//!
//! Open a store, start a client, connect or show the code, and take the events:
//!
//! ```no_run
//! # #[cfg(all(feature = "client", feature = "sqlite"))]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use wamd::{client::qr, store::{AccountId, SqliteStore}, Client};
//!
//! let store = SqliteStore::open("accounts.db")?;
//! let client = Client::builder(AccountId::new("sales")).store(store).start().await?;
//! let mut events = client.events()?;
//! if client.connect().await.is_err_and(|error| error.is_logged_out()) {
//!     client.link_qr().await?;
//! }
//! while let Some(event) = events.recv().await {
//!     match &*event.event {
//!         "session.qr_updated" => println!("{}", qr::to_terminal(event.data["qr"].as_str().unwrap_or_default())?),
//!         "session.connected" => drop(client.send_text(&"15557654321@s.whatsapp.net".parse()?, "Hello").await?),
//!         _ => println!("{}", event.to_json()),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Event names and their data: [`event::Event`]. What a call answers when it fails: [`Error`].
//!
//! # The run loop
//!
//! A driver of your own feeds [`engine::Engine`] by `handle(now, input)` and carries out what `poll()` answers, until it
//! answers nothing. The [module documentation of the engine](engine) has the loop in numbered steps and its contract: an output
//! that depends on a batch comes only after the batch is durable. [`client`] is such a driver, for tokio.
//!
//! # Features
//!
//! | feature | default | what |
//! |---|---|---|
//! | `client` | yes | [`client`]: the tokio driver, websocket, TLS (rustls with ring), the QR renderer |
//! | `sqlite` | yes | [`SqliteStore`](store::SqliteStore), the embedded store; compiles SQLite |
//!
//! A feature only adds API. Without any, the engine and all below it remain, without tokio and without C code.
//!
//! # Reading the documentation
//!
//! "spec 03 §2.4" names a chapter of the project's own description of the protocol. `Debug` of keys is `[redacted]`, and
//! of events it prints no content; [`Jid::redacted`] is the form of a JID for logs. The types of [`proto`] print everything.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo))]

pub mod appstate;
#[cfg(feature = "client")]
pub mod client;
pub mod clock;
pub mod crypto;
pub mod engine;
pub mod event;
pub mod jid;
pub mod message;
pub mod node;
pub mod noise;
pub mod pairing;
pub mod signal;
pub mod stanza;
pub mod store;

pub use wamd_proto as proto;

#[cfg(feature = "client")]
pub use client::{Client, Error};
pub use jid::Jid;
