//! A bot that answers every text with the same text.
//!
//! `cargo run --example echo`: scan the code with a phone (Settings, Linked devices), then write to the account. The
//! account is kept in `echo.db`; the next start connects at once.
#![expect(clippy::print_stdout, reason = "a QR code belongs on the terminal")]

use wamd::{
    client::{Client, Error, Events, qr},
    store::{AccountId, SqliteStore},
};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result {
    let store = SqliteStore::open("echo.db")?;
    let client = Client::builder(AccountId::new("echo")).store(store).start().await?;
    let events = client.events()?;
    run(client, events).await
}

/// Answers until the account is stopped.
pub async fn run(client: Client, mut events: Events) -> Result {
    // An account that is not linked yet shows a QR code first.
    if client.connect().await.is_err_and(|error| error.is_logged_out()) {
        client.link_qr().await?;
    }
    while let Some(event) = events.recv().await {
        println!("{}", event.event);
        if let Some(code) = event.data["qr"].as_str() {
            println!("{}", qr::to_terminal(code)?);
        }
        let message = &event.data["messages"][0];
        if event.event == "message.received"
            && let (Some(chat), Some(text)) = (message["key"]["remoteJid"].as_str(), message["text"].as_str())
        {
            match client.send_text(&chat.parse()?, text).await {
                Err(Error::Command(error)) => println!("no answer: {error}"),
                sent => drop(sent?),
            }
        }
    }
    Ok(())
}
