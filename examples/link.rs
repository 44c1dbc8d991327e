//! Links an account by QR code, or connects it if it is linked, and prints its events as JSON lines until Ctrl-C.
//!
//! ```text
//! cargo run --example link                                             a real account, kept in wamd.db
//! cargo run --example link -- --url ws://… --root-key 2e10…            an account of a loopback server
//! ```
//!
//! Events go to standard output, codes to standard error: `cargo run --example link > events.jsonl` shows just the code.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::{
    io::{IsTerminal as _, stderr, stdout},
    path::PathBuf,
};

use clap::Parser;
use wamd::{
    client::{Client, DEFAULT_URL, qr},
    crypto::PublicKey,
    event::Envelope,
    store::{AccountId, SqliteStore},
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Links an account by QR code and prints its events as JSON lines.
#[derive(Debug, Parser)]
struct Args {
    /// The server.
    #[arg(long, default_value = DEFAULT_URL)]
    url: String,
    /// Trust servers with this certificate root (64 hex digits) instead of the real ones.
    #[arg(long, value_parser = root_key)]
    root_key: Option<PublicKey>,
    /// The database; made if it is missing.
    #[arg(long, default_value = "wamd.db")]
    store: PathBuf,
    /// The name of the account in the database and in events.
    #[arg(long, default_value = "default")]
    session: String,
}

fn root_key(text: &str) -> std::result::Result<PublicKey, String> {
    let bytes = hex::decode(text).map_err(|error| error.to_string())?;
    PublicKey::from_slice(&bytes).map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut builder = Client::builder(AccountId::new(args.session)).store(SqliteStore::open(args.store)?).url(args.url);
    if let Some(root) = args.root_key {
        builder = builder.root_key(root);
    }
    let client = builder.start().await?;
    let mut events = client.events()?;

    if client.connect().await.is_err_and(|error| error.is_logged_out()) {
        client.link_qr().await?;
    }
    let stop = tokio::spawn(async move {
        let signal = stop_signal().await;
        client.shutdown().await;
        signal
    });
    // The events end after the shutdown; until then somebody must take them.
    let mut screen = Screen::default();
    while let Some(event) = events.recv().await {
        screen.show(&event)?;
    }
    Ok(stop.await??)
}

/// The terminal with at most one code on it.
#[derive(Debug, Default)]
struct Screen {
    /// The code that is shown now.
    code: Option<String>,
}

impl Screen {
    fn show(&mut self, event: &Envelope) -> Result<()> {
        self.erase();
        let is_code = event.event == "session.qr_updated";
        if !is_code || !stdout().is_terminal() {
            println!("{}", event.to_json());
        }
        if is_code {
            self.code = Some(qr::to_terminal(event.data["qr"].as_str().unwrap_or_default())?);
        } else if event.event != "session.qr_scanned_without_multidevice" {
            self.code = None;
        }
        if let Some(code) = &self.code {
            eprintln!("{code}\nScan this code: WhatsApp on the phone, Settings, Linked devices.");
        }
        Ok(())
    }

    /// Takes the old code off the terminal, so that nobody scans it.
    fn erase(&self) {
        if let Some(code) = self.code.as_ref().filter(|_| stderr().is_terminal()) {
            let lines = code.lines().count() + 1;
            // Cursor up, then clear to the end of the screen.
            eprint!("\x1b[{lines}A\x1b[J");
        }
    }
}

/// Waits for Ctrl-C, or on Unix for SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
