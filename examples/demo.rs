//! The whole main job in one process: two accounts link to a loopback server by QR, talk both ways, and print every
//! event as a JSON line behind the account's name. One account is stopped and started again from its database in the
//! middle, while messages for it arrive.
//!
//! `cargo run --release --example demo`
#![expect(clippy::print_stdout, reason = "printing is what a demo is for")]

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use wamd::{
    Jid,
    client::{Client, Events, qr},
    event::Envelope,
    store::{AccountId, SqliteStore},
};
use wamd_loopback::Loopback;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The whole demo must be over by then.
const TIME_LIMIT: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<()> {
    let until = Instant::now() + TIME_LIMIT;
    let folder = tempfile::tempdir()?;
    let server = Loopback::start().await?;
    println!("# loopback server at {}, root key {}", server.ws_url(), hex::encode(server.root_public_key().as_bytes()));

    let mut alice = Account::start("alice", "15550000001", folder.path(), &server).await?;
    let mut bob = Account::start("bob", "15550000002", folder.path(), &server).await?;
    alice.link(&server, until).await?;
    bob.link(&server, until).await?;

    println!("# text both ways");
    for (text, answer) in [("Hello Bob", "Hello Alice"), ("How are you?", "Fine, thanks")] {
        alice.client.send_text(&bob.jid()?, text).await?;
        bob.received(text, until).await?;
        bob.client.send_text(&alice.jid()?, answer).await?;
        alice.received(answer, until).await?;
    }

    println!("# bob stops; alice goes on writing");
    let bob_jid = bob.jid()?;
    bob.stop().await;
    for text in ["Are you there?", "Call me back"] {
        alice.client.send_text(&bob_jid, text).await?;
        alice.event("message.sent", until).await?;
    }

    println!("# bob starts again from his database");
    let mut bob = Account::start("bob", "15550000002", folder.path(), &server).await?;
    bob.client.connect().await?;
    bob.received("Are you there?", until).await?;
    bob.received("Call me back", until).await?;
    bob.client.send_text(&alice.jid()?, "Here I am again").await?;
    alice.received("Here I am again", until).await?;

    println!("# nothing was lost");
    alice.stop().await;
    bob.stop().await;
    server.shutdown().await;
    Ok(())
}

/// One account and what it told so far.
struct Account {
    name: &'static str,
    number: &'static str,
    client: Client,
    events: mpsc::UnboundedReceiver<Envelope>,
    printer: tokio::task::JoinHandle<()>,
}

impl Account {
    async fn start(name: &'static str, number: &'static str, folder: &Path, server: &Loopback) -> Result<Self> {
        let store = Arc::new(SqliteStore::open(folder.join(format!("{name}.db")))?);
        let client = Client::builder(AccountId::new(name))
            .shared_store(store)
            .url(server.ws_url())
            .root_key(server.root_public_key())
            .start()
            .await?;
        let events = client.events()?;
        let (seen, queue) = mpsc::unbounded_channel();
        let printer = tokio::spawn(print_events(name, events, seen));
        Ok(Self { name, number, client, events: queue, printer })
    }

    /// Shows the code and lets the simulated phone scan it.
    async fn link(&mut self, server: &Loopback, until: Instant) -> Result<()> {
        self.client.link_qr().await?;
        let code = self.event("session.qr_updated", until).await?;
        let text = code.data["qr"].as_str().unwrap_or_default().to_owned();
        println!("# {} shows this code to the phone +{}\n{}", self.name, self.number, qr::to_terminal(&text)?);
        server.scan(self.number, &text).await?;
        self.event("session.connected", until).await?;
        Ok(())
    }

    fn jid(&self) -> Result<Jid> {
        Ok(self.client.snapshot().jid.as_ref().ok_or("not linked")?.to_bare())
    }

    /// Waits for an event.
    async fn event(&mut self, name: &str, until: Instant) -> Result<Envelope> {
        loop {
            let event = timeout_at(until, self.events.recv()).await.map_err(|_| format!("no {name} in time"))?;
            let event = event.ok_or_else(|| format!("no {name} before the end"))?;
            if event.event == name {
                return Ok(event);
            }
        }
    }

    /// Waits for a message with this text.
    async fn received(&mut self, text: &str, until: Instant) -> Result<()> {
        loop {
            let event = self.event("message.received", until).await?;
            if event.data["messages"][0]["text"] == text {
                return Ok(());
            }
        }
    }

    async fn stop(self) {
        self.client.shutdown().await;
        let _ = self.printer.await;
    }
}

async fn print_events(name: &'static str, mut events: Events, seen: mpsc::UnboundedSender<Envelope>) {
    while let Some(event) = events.recv().await {
        println!("{name} {}", event.to_json());
        let _ = seen.send(event);
    }
}
