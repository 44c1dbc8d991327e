//! A client that nobody here wrote links to the same server and talks with our client in both directions: Baileys, from
//! npm (`tests/interop/baileys`).
//!
//! It runs when Node and the installed package are there (`npm ci` in that folder), and says so when it does not. With
//! `WAMD_INTEROP=1` it fails instead of being skipped.

#![expect(clippy::print_stderr, reason = "a test tells what was exchanged")]

#[path = "interop/harness.rs"]
mod harness;

use harness::{Baileys, Ours, installed, until};
use serde_json::json;
use wamd::Jid;
use wamd_loopback::{Loopback, Phone};

const OURS: &str = "15550000001";
const THEIRS: &str = "15550000002";

#[tokio::test(flavor = "multi_thread")]
async fn baileys_links_and_talks_both_ways() {
    let Some(package) = installed() else { return };
    let temp = tempfile::tempdir().expect("a folder");
    let server = Loopback::start().await.expect("a server");
    let mut theirs = Baileys::start(&package, temp.path(), &server, THEIRS);
    theirs.link(&server).await;
    let mut ours = Ours::start(temp.path(), &server, OURS).await;
    ours.link(&server).await;

    exchange(&mut ours, &mut theirs, "first", 5).await;

    ours.client.reconnect().await.expect("we connect again");
    ours.event("session.connected").await;
    exchange(&mut ours, &mut theirs, "after our reconnect", 5).await;

    theirs.tell(json!({"cmd": "reconnect"})).await;
    theirs.event("open").await;
    exchange(&mut ours, &mut theirs, "after their reconnect", 5).await;

    // Both start again from what they stored, and find what was sent meanwhile.
    ours.client.disconnect().await.expect("we go");
    theirs.send_text(&Jid::pn(OURS), "while we were away").await;
    let mut ours = ours.restart().await;
    ours.connect().await;
    ours.expect("while we were away").await;
    theirs.quit().await;
    ours.client.send_text(&Jid::pn(THEIRS), "while they were away").await.expect("accepted");
    theirs.restart().await;
    theirs.event("open").await;
    theirs.expect("while they were away").await;
    exchange(&mut ours, &mut theirs, "after both restarts", 5).await;

    end("Baileys and wamd", ours, theirs).await;
}

/// Both link by the 8 characters that they show; the user of Baileys' phone mistypes them first. Then both talk, and a phone
/// does, too.
#[tokio::test(flavor = "multi_thread")]
async fn baileys_links_by_code_and_talks_both_ways() {
    let Some(package) = installed() else { return };
    let temp = tempfile::tempdir().expect("a folder");
    let server = Loopback::start().await.expect("a server");
    let mut theirs = Baileys::start(&package, temp.path(), &server, THEIRS);
    theirs.event("qr").await;
    theirs.tell(json!({"cmd": "pair", "number": THEIRS})).await;
    let code = theirs.event("code").await["code"].as_str().expect("a code").to_owned();
    let phone = server.phone(THEIRS).await.expect("a phone");
    type_code(&server, &phone, if code == "ZZZZZZZZ" { "ZZZZZZZ1" } else { "ZZZZZZZZ" }).await;
    until("the phone to see that the code is wrong", async || {
        let account = server.phone(THEIRS).await.expect("a phone").account().clone();
        account.last_link_error.as_deref() == Some("the key bundle does not open: wrong code")
    })
    .await;
    type_code(&server, &phone, &code).await;
    theirs.event("open").await;

    let mut ours = Ours::start(temp.path(), &server, OURS).await;
    ours.link_by_code(&server).await;

    exchange(&mut ours, &mut theirs, "linked by code", 5).await;
    theirs.tell(json!({"cmd": "reconnect"})).await;
    theirs.event("open").await;
    exchange(&mut ours, &mut theirs, "after their reconnect", 3).await;
    phone.send_text(&Jid::pn(OURS), "from their phone").await.expect("sent");
    ours.expect("from their phone").await;

    end("Baileys, linked by code, and wamd", ours, theirs).await;
}

/// Types a code, once the server knows that somebody waits for it: Baileys tells it before.
async fn type_code(server: &Loopback, phone: &Phone, code: &str) {
    let number = &phone.account().number;
    until("the code to be waited for", async || {
        let waiting = server.waiting().await.expect("it runs");
        let mut codes = waiting.iter().filter_map(|client| client.code.as_ref());
        codes.any(|waiting| waiting.number == *number && !waiting.typed)
    })
    .await;
    phone.enter_code(code).await.expect("it is typed");
}

/// `rounds` texts each way, interleaved.
async fn exchange(ours: &mut Ours, theirs: &mut Baileys, what: &str, rounds: u32) {
    for round in 1..=rounds {
        let (to_them, to_us) = (format!("{what}: ours {round}"), format!("{what}: theirs {round}"));
        ours.client.send_text(&Jid::pn(THEIRS), to_them.as_str()).await.expect("accepted");
        theirs.send_text(&Jid::pn(OURS), &to_us).await;
        theirs.expect(&to_them).await;
        ours.expect(&to_us).await;
        assert_eq!(ours.got.get(&to_us).expect("it came")["phone"], THEIRS);
        assert_eq!(theirs.got.get(&to_them).expect("it came")["fromMe"], false);
    }
}

async fn end(who: &str, ours: Ours, mut theirs: Baileys) {
    let total = ours.got.check_once() + theirs.got.check_once();
    theirs.quit().await;
    ours.stop().await;
    eprintln!("interop: {who} exchanged {total} texts, each arrived once");
}
