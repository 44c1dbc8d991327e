//! A bot that answers every text with the same text.
//!
//! `cargo run --example echo`: scan the code with a phone (Settings, Linked devices), then write to the account. The
//! account is kept in `echo.db`; the next start connects at once.
#![expect(clippy::print_stdout, reason = "a QR code belongs on the terminal")]

use wamd::{
    client::{Client, Error, Events, qr},
    store::{AccountId, SqliteStore},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = SqliteStore::open("echo.db")?;
    let (client, events) = Client::builder(AccountId::new("echo")).store(store).start().await?;
    run(client, events).await
}

async fn run(client: Client, mut events: Events) -> Result<(), Box<dyn std::error::Error>> {
    // An account that is not linked yet shows a QR code first.
    if client.connect().await.is_err_and(|error| error.is_logged_out()) {
        client.link_qr().await?;
    }
    while let Some(event) = events.recv().await {
        let message = &event.data["messages"][0];
        match (&*event.event, event.data["qr"].as_str(), message["key"]["remoteJid"].as_str(), message["text"].as_str())
        {
            ("session.qr_updated", Some(code), ..) => println!("{}", qr::to_terminal(code)?),
            ("message.received", _, Some(chat), Some(text)) => match client.send_text(&chat.parse()?, text).await {
                // A group, or a text that is too long.
                Err(Error::Command(error)) => println!("no answer to {chat}: {error}"),
                sent => drop(sent?),
            },
            _ => println!("{}", event.event),
        }
    }
    Ok(())
}
