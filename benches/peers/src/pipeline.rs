//! A message from its text to the frame, and from the frame to its text: the layers together, without socket and storage.
//! Beside it the same from the peer's crates, put together as their documentation shows: `waproto`, `wacore-libsignal`,
//! `wacore-binary`.
//!
//! ```text
//! send     text ► Message ► bytes ► padded ► encrypted for each device ► stanza ► frame
//! receive  frame ► stanza ► ciphertext ► decrypted ► unpadded ► Message ► text
//! ```
//!
//! Both sides start from the same text, id and devices, write stanzas of the same shape, and keep of a received stanza what
//! must outlive its frame: id, sender, its other identity, push name, time. Each side talks to its own kind when it is measured;
//! before that each reads what the other has written ([`check`]).

mod cases;
mod check;
mod ours;
mod theirs;

use bytes::Bytes;
use wamd::jid::Jid;
use wamd::node::NodeWriter;

use crate::signal::Party;

pub use cases::run_all;
pub use check::check;

/// 200 bytes, as people write them.
const TEXT: &str = "Hi! The train is late again, so I will not be there before half past eight. Please start without me and \
                    keep a plate warm. If you need anything from the shop, write until eight; I pass it on the way.";
const ID: &str = "3EB0A1B2C3D4E5F6071829";
const TIME: u64 = 1_755_873_901;
const NAME: &str = "Maria";
/// The recipient, and who writes in the group.
const USER: &str = "100000012345678";
/// Its phone number.
const PHONE: &str = "5511987654321";
/// The sender's own account.
const OWN: &str = "100000087654321";
const GROUP: &str = "120363041234567890";
const PHASH: &str = "2:2fQx8Bf1";

/// A device to write to: its user and number, and whether it is one of the sender's own.
struct Target {
    user: String,
    device: u16,
    own: bool,
}

impl Target {
    fn jid(&self) -> Jid {
        Jid::lid(&self.user).with_device(self.device)
    }
}

/// The devices of a direct message: the recipient's first, up to three, then the sender's own.
fn direct(count: u16) -> Vec<Target> {
    let target = |number: u16| match number {
        0..3 => Target { user: USER.to_owned(), device: 3 * number, own: false },
        _ => Target { user: OWN.to_owned(), device: number, own: true },
    };
    (0..count).map(target).collect()
}

/// The devices of a group, two of each member.
fn members(count: u16) -> Vec<Target> {
    let target = |number: u16| Target {
        user: format!("{}", 100_000_200_000_000 + u64::from(number / 2) * 7_919),
        device: number % 2 * 4,
        own: false,
    };
    (0..count).map(target).collect()
}

/// A session between both, with an answer, so that neither puts prekeys into its messages.
fn introduce(sender: &mut Party, receiver: &mut Party) {
    let bundle = receiver.bundle(true);
    sender.establish(&bundle);
    for _ in 0..3 {
        let (kind, bytes) = sender.encrypt(b"hello");
        receiver.decrypt(kind, &bytes).expect("a good message");
        let (kind, bytes) = receiver.encrypt(b"hello");
        sender.decrypt(kind, &bytes).expect("a good message");
    }
}

/// The frame in which the server hands over a direct message.
fn delivered_direct(ciphertext: &[u8]) -> Bytes {
    let mut out = Vec::new();
    let written = NodeWriter::frame(&mut out, "message", |message| {
        message.attr("from", &Jid::lid(USER).with_device(3)).attr("id", ID).attr("type", "text").number("t", TIME);
        message.attr("notify", NAME).attr("sender_pn", &Jid::pn(PHONE));
        message.child("enc", |enc| enc.attr("v", "2").attr("type", "msg").bytes(ciphertext));
    });
    written.expect("a good stanza");
    Bytes::from(out)
}

/// The frame in which the server hands over a message to a group.
fn delivered_to_group(ciphertext: &[u8]) -> Bytes {
    let mut out = Vec::new();
    let written = NodeWriter::frame(&mut out, "message", |message| {
        message.attr("from", &Jid::new(GROUP, wamd::jid::Server::Group)).attr("id", ID).attr("type", "text");
        message.number("t", TIME).attr("participant", &Jid::lid(USER).with_device(3)).attr("notify", NAME);
        message.attr("participant_pn", &Jid::pn(PHONE)).attr("addressing_mode", "lid");
        message.child("enc", |enc| enc.attr("v", "2").attr("type", "skmsg").bytes(ciphertext));
    });
    written.expect("a good stanza");
    Bytes::from(out)
}

/// What both sides must find in a message, as one number that costs next to nothing.
fn sum(parts: [&str; 4]) -> u64 {
    parts.iter().map(|part| part.len() as u64 + u64::from(part.as_bytes().first().copied().unwrap_or_default())).sum()
}
