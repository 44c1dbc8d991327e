//! The bot that `README.md` shows is `examples/echo.rs`, and it answers.
#![cfg(all(feature = "client", feature = "sqlite"))]

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use wamd::{
    client::{Client, ClientBuilder},
    store::{AccountId, MemoryStore},
};
use wamd_loopback::Loopback;

#[path = "../examples/echo.rs"]
#[expect(dead_code, unreachable_pub, reason = "its main is not ours")]
mod echo;

const BOT: &str = "15550000001";
const ASKER: &str = "15550000002";

#[tokio::test(flavor = "multi_thread")]
async fn the_bot_answers_texts() {
    let server = Loopback::start().await.unwrap();
    let store = Arc::new(MemoryStore::new());
    link(&server, builder(&server, &store)).await;

    let client = builder(&server, &store).start().await.unwrap();
    let events = client.events().unwrap();
    let handle = client.clone();
    let bot = tokio::spawn(async move { echo::run(client, events).await.map_err(|error| error.to_string()) });
    let phone = server.phone(ASKER).await.unwrap();
    for text in ["Hello", "How are you?", ""] {
        phone.send_text(&wamd::Jid::pn(BOT), text).await.unwrap();
    }
    let answers = async {
        loop {
            let texts: Vec<_> =
                phone.received().await.unwrap().into_iter().filter_map(|message| message.text).collect();
            if texts.len() >= 2 {
                return texts;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let answers = timeout(Duration::from_secs(60), answers).await.expect("no answers in time");
    assert_eq!(answers, ["Hello", "How are you?"]);

    handle.shutdown().await;
    assert_eq!(bot.await.unwrap(), Ok(()));
}

#[test]
fn the_readme_shows_the_bot() {
    let readme = include_str!("../README.md");
    let code = include_str!("../examples/echo.rs");
    let code: String =
        code.lines().filter(|line| !line.starts_with("//!") && !line.starts_with("#![")).collect::<Vec<_>>().join("\n");
    assert!(readme.contains(&format!("```rust\n{}\n```", code.trim())), "README.md does not show examples/echo.rs");
}

fn builder(server: &Loopback, store: &Arc<MemoryStore>) -> ClientBuilder {
    Client::builder(AccountId::new("echo"))
        .shared_store(store.clone())
        .url(server.ws_url())
        .root_key(server.root_public_key())
}

async fn link(server: &Loopback, builder: ClientBuilder) {
    let client = builder.start().await.unwrap();
    let mut events = client.events().unwrap();
    client.link_qr().await.unwrap();
    while let Some(event) = events.recv().await {
        match &*event.event {
            "session.qr_updated" => drop(server.scan(BOT, event.data["qr"].as_str().unwrap()).await.unwrap()),
            "session.connected" => break,
            _ => {}
        }
    }
    client.shutdown().await;
}
