//! Links an account by QR code or by phone number, or connects it if it is linked, and prints its events as JSON lines until
//! Ctrl-C.
//!
//! ```text
//! cargo run --example link                                             a real account, kept in wamd.db
//! cargo run --example link -- --phone "+55 11 98765-4321"              the same by a code that is typed on the phone
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
    pairing::code::PhoneNumber,
    store::{AccountId, SqliteStore},
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Links an account by QR code or phone number and prints its events as JSON lines.
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
    /// Show a code to type on the phone of this number, with its country code, instead of QR codes.
    #[arg(long)]
    phone: Option<PhoneNumber>,
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

    let by_code = args.phone.is_some();
    if client.connect().await.is_err_and(|error| error.is_logged_out()) {
        match args.phone {
            Some(phone) => request_code(client.clone(), phone),
            None => client.link_qr().await?,
        }
    }
    let stop = tokio::spawn(async move {
        let signal = stop_signal().await;
        client.shutdown().await;
        signal
    });
    // The events end after the shutdown; until then somebody must take them.
    let mut screen = Screen { by_code, ..Screen::default() };
    while let Some(event) = events.recv().await {
        screen.show(&event)?;
    }
    Ok(stop.await??)
}

/// Asks for a code; it comes as an event, too.
fn request_code(client: Client, phone: PhoneNumber) {
    tokio::spawn(async move {
        if let Err(error) = client.link_code(phone).await {
            eprintln!("{error}");
        }
    });
}

/// The terminal with at most one code on it.
#[derive(Debug, Default)]
struct Screen {
    /// QR codes are not shown.
    by_code: bool,
    /// The code that is shown now.
    code: Option<String>,
}

impl Screen {
    fn show(&mut self, event: &Envelope) -> Result<()> {
        self.erase();
        let is_code = matches!(&*event.event, "session.qr_updated" | "session.pair_code");
        if !is_code || !stdout().is_terminal() {
            println!("{}", event.to_json());
        }
        match &*event.event {
            "session.pair_code" => {
                let code = event.data["code"].as_str().unwrap_or_default();
                self.code = Some(format!(
                    "{code}\nType this code: WhatsApp on the phone, Settings, Linked devices, Link with phone number."
                ));
            }
            // Beside a code they come and go without a word.
            "session.qr_updated" | "session.qr_exhausted" if self.by_code => {}
            "session.qr_updated" => {
                let code = qr::to_terminal(event.data["qr"].as_str().unwrap_or_default())?;
                self.code = Some(format!("{code}\nScan this code: WhatsApp on the phone, Settings, Linked devices."));
            }
            "session.qr_scanned_without_multidevice" => {}
            "session.pair_code_error" if event.data["codeValid"] == true => {}
            _ => self.code = None,
        }
        if let Some(code) = &self.code {
            eprintln!("{code}");
        }
        Ok(())
    }

    /// Takes the old code off the terminal, so that nobody scans it.
    fn erase(&self) {
        if let Some(code) = self.code.as_ref().filter(|_| stderr().is_terminal()) {
            let lines = code.lines().count();
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
