//! Groups in which one member is Baileys: texts reach everybody, after members come and go, too; and sessions and sender keys
//! that one side lost heal by retry receipts.
//!
//! Skipped as `interop_baileys.rs` is.

#![expect(clippy::print_stderr, reason = "a test tells what was exchanged")]

#[path = "interop/harness.rs"]
mod harness;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use harness::{Baileys, Ours, PATIENCE, installed};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use wamd::{
    Jid,
    stanza::iq::groups::{MemberAction, NewGroup},
    store::RecordKind,
};
use wamd_loopback::{GroupMode, GroupSpec, Loopback};

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";
/// Baileys.
const CAROL: &str = "15550000003";
const DAVE: &str = "15550000004";

/// A group made by alice addresses its members by LID, one made by the server by phone number.
#[tokio::test(flavor = "multi_thread")]
async fn groups_with_baileys_take_texts_both_ways_while_members_come_and_go() {
    let Some(package) = installed() else { return };
    let mut world = World::start(package, &[ALICE, BOB, DAVE]).await;

    let group = world.made_by_alice().await;
    let (some, all) = ([ALICE, BOB, CAROL], [ALICE, BOB, CAROL, DAVE]);
    world.talk(&group, GroupMode::Lid, &some, "three by LID").await;
    world.change_by_alice(&group, MemberAction::Add).await;
    world.talk(&group, GroupMode::Lid, &all, "four by LID").await;
    world.change_by_alice(&group, MemberAction::Remove).await;
    world.talk(&group, GroupMode::Lid, &some, "three again by LID").await;

    let group = world.made_by_server(CAROL, &[ALICE, BOB], GroupMode::Pn).await;
    world.talk(&group, GroupMode::Pn, &some, "three by number").await;
    world.change_by_baileys(&group, "add").await;
    world.talk(&group, GroupMode::Pn, &all, "four by number").await;
    world.change_by_baileys(&group, "remove").await;
    world.talk(&group, GroupMode::Pn, &some, "three again by number").await;

    world.direct(&all, "at the end").await;
    world.check().await;
}

/// What alice lost, Baileys sends again, and the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn lost_sessions_and_sender_keys_heal_by_retry_on_either_side() {
    let Some(package) = installed() else { return };
    let mut world = World::start(package, &[ALICE, BOB]).await;
    let all = [ALICE, BOB, CAROL];
    let by_lid = world.made_by_server(ALICE, &[BOB, CAROL], GroupMode::Lid).await;
    let by_number = world.made_by_server(CAROL, &[ALICE, BOB], GroupMode::Pn).await;
    world.direct(&all, "before").await;
    world.talk(&by_lid, GroupMode::Lid, &all, "before, by LID").await;
    world.talk(&by_number, GroupMode::Pn, &all, "before, by number").await;

    for (what, lost) in [("sessions", &SESSIONS[..]), ("sender keys", &SENDER_KEYS), ("everything", &BOTH)] {
        world.alice_loses(lost).await;
        let (sessions, keys) = (lost.contains(&SESSIONS[0]), lost.contains(&SENDER_KEYS[0]));
        world.heals(ALICE, [CAROL, BOB], [&by_lid, &by_number], (sessions, keys), &format!("alice lost {what}")).await;
    }
    for (what, sessions, keys) in [("sessions", true, false), ("sender keys", false, true), ("everything", true, true)]
    {
        world.baileys_loses(sessions, keys).await;
        let what = format!("Baileys lost {what}");
        world.heals(CAROL, [ALICE, BOB], [&by_lid, &by_number], (sessions, keys), &what).await;
    }
    world.check().await;
}

/// Baileys draws its registration id from one byte, so one device in 256 has 0, which others take for none.
#[tokio::test(flavor = "multi_thread")]
async fn what_baileys_with_registration_id_0_lost_heals_by_retry() {
    let Some(package) = installed() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let server = Loopback::start().await.expect("a server");
    let baileys = Baileys::start_as(&package, folder.path(), &server, CAROL, 0);
    let mut world = World::with(folder, server, baileys, &[ALICE, BOB]).await;
    let by_lid = world.made_by_server(ALICE, &[BOB, CAROL], GroupMode::Lid).await;
    let by_number = world.made_by_server(CAROL, &[ALICE, BOB], GroupMode::Pn).await;
    let all = [ALICE, BOB, CAROL];
    world.direct(&all, "before").await;
    world.talk(&by_lid, GroupMode::Lid, &all, "before, by LID").await;
    world.talk(&by_number, GroupMode::Pn, &all, "before, by number").await;
    for (what, keys) in [("Baileys lost sessions", false), ("Baileys lost everything", true)] {
        world.baileys_loses(true, keys).await;
        world.heals(CAROL, [ALICE, BOB], [&by_lid, &by_number], (true, keys), what).await;
    }
    world.check().await;
}

const SESSIONS: [RecordKind; 4] =
    [RecordKind::Session, RecordKind::ArchiveIndex, RecordKind::ArchivedState, RecordKind::SkippedPage];
const SENDER_KEYS: [RecordKind; 2] = [RecordKind::SenderKey, RecordKind::SenderKeyPage];
const BOTH: [RecordKind; 6] = [SESSIONS[0], SESSIONS[1], SESSIONS[2], SESSIONS[3], SENDER_KEYS[0], SENDER_KEYS[1]];
/// Baileys as carol, and our clients.
struct World {
    server: Loopback,
    ours: Vec<Ours>,
    baileys: Baileys,
    /// What the phone of each member must have, too.
    at_phones: BTreeMap<&'static str, Vec<String>>,
    /// What each member may have.
    owed: BTreeMap<&'static str, Vec<String>>,
    /// Ends last.
    _folder: TempDir,
}

impl World {
    async fn start(package: PathBuf, numbers: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Loopback::start().await.expect("a server");
        let baileys = Baileys::start(&package, folder.path(), &server, CAROL);
        Self::with(folder, server, baileys, numbers).await
    }

    async fn with(folder: TempDir, server: Loopback, mut baileys: Baileys, numbers: &[&'static str]) -> Self {
        let mut ours = Vec::new();
        for number in numbers {
            ours.push(linked(folder.path(), &server, number).await);
        }
        baileys.link(&server).await;
        Self { server, ours, baileys, at_phones: BTreeMap::new(), owed: BTreeMap::new(), _folder: folder }
    }

    fn ours(&mut self, number: &str) -> &mut Ours {
        self.ours.iter_mut().find(|one| one.number == number).expect("one of ours")
    }

    async fn made_by_alice(&mut self) -> Jid {
        let group = NewGroup::new("us", vec![Jid::pn(BOB), Jid::pn(CAROL)]);
        self.ours(ALICE).client.groups().create(group).await.expect("it is made").id
    }

    async fn made_by_server(&self, creator: &str, members: &[&str], mode: GroupMode) -> Jid {
        let members = members.iter().map(Jid::pn).collect();
        let (creator, subject) = (creator.to_owned(), "we".to_owned());
        let spec = GroupSpec { creator, subject, members, mode: Some(mode), ..GroupSpec::default() };
        let made = self.server.with_server(move |server, now| server.create_group(now, &spec)).await;
        made.expect("it runs").expect("it is made").jid
    }

    async fn change_by_alice(&mut self, group: &Jid, action: MemberAction) {
        let groups = self.ours(ALICE).client.groups();
        let results = groups.change(group, action, &[Jid::pn(DAVE)]).await.expect("an answer");
        assert!(matches!(&results[..], [one] if one.error.is_none()), "{results:?}");
    }

    async fn change_by_baileys(&mut self, group: &Jid, action: &str) {
        let members = [Jid::pn(DAVE).to_string()];
        let command = json!({"cmd": "members", "group": group.to_string(), "action": action, "members": members});
        self.baileys.tell(command).await;
        let results = self.baileys.event("members").await["results"].clone();
        assert_eq!(results[0]["status"], "200", "{results}");
    }

    /// A text of each member after the other, and then one of each at once; they reach all members, and nobody else.
    async fn talk(&mut self, group: &Jid, mode: GroupMode, members: &[&'static str], what: &str) {
        for from in members {
            self.say(group, mode, from, members, what).await;
        }
        let what = format!("{what}, at once");
        for from in members {
            self.send(from, group, &format!("{what}: {from}")).await;
        }
        for from in members {
            self.arrives(group, mode, from, members, &format!("{what}: {from}")).await;
        }
    }

    /// A text to a group.
    async fn say(&mut self, group: &Jid, mode: GroupMode, from: &str, members: &[&'static str], what: &str) {
        let text = format!("{what}: {from}");
        self.send(from, group, &text).await;
        self.arrives(group, mode, from, members, &text).await;
    }

    async fn arrives(&mut self, group: &Jid, mode: GroupMode, from: &str, members: &[&'static str], text: &str) {
        let author = self.server.phone(from).await.expect("a phone");
        let (shown, alt) = match mode {
            GroupMode::Lid => (author.lid(), author.jid()),
            GroupMode::Pn => (author.jid(), author.lid()),
        };
        for member in members {
            self.owe(member, text);
            if *member == from {
                continue;
            }
            let key = self.expect(member, text).await["key"].clone();
            assert_eq!(key["remoteJid"], group.to_string(), "{text} at {member}: {key}");
            assert_eq!(key["fromMe"], false, "{text} at {member}: {key}");
            assert_eq!(bare(&key["participant"]), shown.to_string(), "{text} at {member}: {key}");
            assert_eq!(bare(&key["participantAlt"]), alt.to_string(), "{text} at {member}: {key}");
        }
    }

    /// A text of each to each, directly.
    async fn direct(&mut self, members: &[&'static str], what: &str) {
        for from in members {
            for to in members.iter().filter(|to| *to != from) {
                self.direct_from(from, to, what).await;
            }
        }
    }

    async fn direct_from(&mut self, from: &'static str, to: &'static str, what: &str) {
        let text = format!("{what}: {from} to {to}");
        self.send(from, &Jid::pn(to), &text).await;
        self.expect(to, &text).await;
        for number in [from, to] {
            self.owe(number, &text);
        }
    }

    async fn send(&mut self, from: &str, to: &Jid, text: &str) {
        if from == CAROL {
            self.baileys.send_text(to, text).await;
        } else {
            self.ours(from).client.send_text(to, text).await.expect("accepted");
        }
    }

    async fn expect(&mut self, at: &str, text: &str) -> &Value {
        if at == CAROL {
            self.baileys.expect(text).await;
            self.baileys.got.get(text).expect("it came")
        } else {
            let ours = self.ours(at);
            ours.expect(text).await;
            ours.got.get(text).expect("it came")
        }
    }

    async fn alice_loses(&mut self, lost: &[RecordKind]) {
        let at = self.ours.iter().position(|one| one.number == ALICE).expect("alice");
        let mut alice = self.ours.remove(at).restart_without(lost).await;
        alice.connect().await;
        self.ours.push(alice);
    }

    /// Sessions; sender keys of others and its own, not whom it gave its own to.
    async fn baileys_loses(&mut self, sessions: bool, keys: bool) {
        let key = |file: &str| file.starts_with("sender-key-") && !file.starts_with("sender-key-memory-");
        let lost = |file: &str| (sessions && file.starts_with("session-")) || (keys && key(file));
        self.baileys.restart_without(lost).await;
        self.baileys.event("open").await;
    }

    /// What is written to somebody who lost `sessions` or sender `keys`, and what that one writes, arrives, after a retry where
    /// these were needed; and from then on everything arrives at once.
    async fn heals(
        &mut self,
        who: &'static str,
        others: [&'static str; 2],
        groups: [&Jid; 2],
        (sessions, keys): (bool, bool),
        what: &str,
    ) {
        let [by_lid, by_number] = groups;
        let all = [ALICE, BOB, CAROL];
        let start = self.failures_of(who);
        if sessions {
            for from in others {
                self.direct_from(from, who, what).await;
            }
            assert!(self.failures_of(who) >= start + 2, "{what}: there was nothing to heal");
        }
        let start = self.failures_of(who);
        for from in others.into_iter().chain([who]) {
            self.say(by_lid, GroupMode::Lid, from, &all, &format!("{what}, by LID")).await;
            self.say(by_number, GroupMode::Pn, from, &all, &format!("{what}, by number")).await;
        }
        if who == CAROL && keys {
            // Phones asked for what Baileys sealed with a key that nobody has. It answers a device 0 by sending the whole
            // message again with the same id, which the server does not route twice.
            let lost = [format!("{what}, by LID: {CAROL}"), format!("{what}, by number: {CAROL}")];
            self.at_phones.values_mut().for_each(|texts| texts.retain(|text| !lost.contains(text)));
        }
        assert!(!keys || self.failures_of(who) >= start + 4, "{what}: there was nothing to heal");

        self.direct(&all, &format!("{what}, healed")).await;
        let healed = self.failures();
        self.talk(by_lid, GroupMode::Lid, &all, &format!("{what}, healed, by LID")).await;
        self.talk(by_number, GroupMode::Pn, &all, &format!("{what}, healed, by number")).await;
        self.direct(&all, &format!("{what}, to the end")).await;
        assert_eq!(self.failures(), healed, "{what}: it does not last");
    }

    fn failures_of(&self, who: &str) -> u32 {
        let ours = self.ours.iter().find(|one| one.number == who);
        ours.map_or(self.baileys.got.undecryptable, |one| one.got.undecryptable)
    }

    fn owe(&mut self, number: &'static str, text: &str) {
        for texts in [&mut self.at_phones, &mut self.owed] {
            texts.entry(number).or_default().push(text.to_owned());
        }
    }

    fn failures(&self) -> Vec<u32> {
        self.ours.iter().map(|one| one.got.undecryptable).chain([self.baileys.got.undecryptable]).collect()
    }

    /// Everything came once, at the clients and at the phones.
    async fn check(self) {
        let Self { server, ours, mut baileys, at_phones, owed, _folder } = self;
        let mut total = baileys.got.check_once();
        let mut failures = baileys.got.undecryptable;
        for one in &ours {
            total += one.got.check_once();
            failures += one.got.undecryptable;
            for text in one.got.texts() {
                assert!(owed[one.number].contains(text), "{} must not have {text:?}", one.number);
            }
        }
        for (number, texts) in &at_phones {
            check_phone(&server, number, texts).await;
        }
        baileys.quit().await;
        for one in ours {
            one.stop().await;
        }
        eprintln!(
            "interop: {total} texts, each arrived once, {failures} attempts to decrypt failed and were made good"
        );
    }
}

/// The phone of a member could read each of these texts, once.
async fn check_phone(server: &Loopback, number: &str, texts: &[String]) {
    let phone = server.phone(number).await.expect("a phone");
    let end = Instant::now() + PATIENCE;
    loop {
        let received = phone.received().await.expect("it runs");
        let received: Vec<String> = received.into_iter().filter_map(|got| got.text).collect();
        let missing: Vec<_> = texts.iter().filter(|text| !received.contains(text)).collect();
        if missing.is_empty() {
            assert_eq!(received.len(), texts.len(), "the phone of {number} has too much");
            return;
        }
        assert!(Instant::now() < end, "the phone of {number} lacks {missing:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn linked(folder: &Path, server: &Loopback, number: &'static str) -> Ours {
    let mut one = Ours::start(folder, server, number).await;
    one.link(server).await;
    one
}

/// A JID of a key without its device.
fn bare(jid: &Value) -> String {
    let jid: Jid = jid.as_str().unwrap_or_default().parse().expect("a JID");
    jid.to_bare().to_string()
}
