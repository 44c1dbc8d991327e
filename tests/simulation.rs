//! Several accounts with several devices each write to each other and to groups, while the scheduler cuts wires, crashes
//! processes and takes their keys away: every message that the server accepted is received exactly once by every device it
//! was for, no message key is used twice, and nobody asks without end.
//!
//! `WAMD_SEEDS=from..to` runs other seeds; a failing one is named.

#[path = "common/sim.rs"]
mod sim;

use sim::{Chaos, Sim, each_seed};
use wamd::Jid;
use wamd_loopback::{GroupMode, GroupSpec};

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";
const CAROL: &str = "15550000003";
/// Who writes; Bob has two linked devices.
const DEVICES: [(&str, &str); 4] = [("alice", ALICE), ("bob", BOB), ("bob 2", BOB), ("carol", CAROL)];
const ALL: [&str; 3] = [ALICE, BOB, CAROL];

/// A chat and whom it reaches.
struct Chat {
    jid: Jid,
    members: Vec<&'static str>,
}

struct Fleet {
    sim: Sim,
    chats: Vec<Chat>,
}

impl Fleet {
    /// Everybody is linked; there is a group of each addressing mode.
    fn new(seed: u64) -> Self {
        let mut sim = Sim::new(seed, &DEVICES);
        sim.link_all();
        let mut chats: Vec<Chat> =
            ALL.iter().map(|number| Chat { jid: Jid::pn(number), members: vec![*number] }).collect();
        for (mode, members) in [(GroupMode::Lid, vec![ALICE, BOB, CAROL]), (GroupMode::Pn, vec![ALICE, BOB])] {
            let spec = GroupSpec {
                creator: members[0].to_owned(),
                subject: "of the simulation".to_owned(),
                members: members[1..].iter().map(Jid::pn).collect(),
                mode: Some(mode),
                ..GroupSpec::default()
            };
            let group = sim.server.create_group(sim.now, &spec).expect("a group");
            chats.push(Chat { jid: group.jid, members });
        }
        sim.settle();
        Self { sim, chats }
    }

    /// Everybody writes to any chat that reaches them, and somebody else.
    fn talk(&mut self, messages: usize, chaos: Chaos) {
        self.sim.chaos = chaos;
        for round in 0..messages {
            let from = self.sim.pick(DEVICES.len());
            let own = DEVICES[from].1;
            let fits = |chat: &&Chat| chat.members.iter().any(|member| *member != own) && fits(chat, own);
            let chats: Vec<usize> = (0..self.chats.len()).filter(|chat| fits(&&self.chats[*chat])).collect();
            let chat = &self.chats[chats[self.sim.pick(chats.len())]];
            let audience = chat.members.iter().copied().filter(|member| *member != own).collect();
            let (to, text) = (chat.jid.clone(), format!("message {round}"));
            self.sim.send_to(from, to, audience, &text);
            let steps = u32::try_from(self.sim.pick(150)).expect("few");
            self.sim.run(steps, |_| false);
        }
    }
}

/// A group must have the sender in it; a user need not.
fn fits(chat: &Chat, own: &str) -> bool {
    !chat.jid.is_group() || chat.members.contains(&own)
}

#[test]
fn without_trouble_everything_arrives_in_order() {
    each_seed(0..20, |seed| {
        let mut fleet = Fleet::new(seed);
        fleet.talk(12, Chaos::default());
        fleet.sim.settle();
        fleet.sim.check_settled();
        fleet.sim.check_retries();
    });
}

#[test]
fn cut_wires_and_crashes_lose_nothing() {
    each_seed(10_000..10_060, |seed| {
        let mut fleet = Fleet::new(seed);
        fleet.talk(10, Chaos { crash: 60, cut: 60, ..Chaos::default() });
        fleet.sim.settle();
        fleet.sim.check_delivered();
        fleet.sim.check_retries();
    });
}

#[test]
fn lost_keys_heal_by_asking_again() {
    each_seed(20_000..20_060, |seed| {
        let mut fleet = Fleet::new(seed);
        fleet.talk(10, Chaos { wipe: 150, ..Chaos::default() });
        fleet.sim.settle();
        fleet.sim.check_delivered();
        fleet.sim.check_retries();
    });
}

#[test]
fn everything_at_once() {
    each_seed(30_000..30_060, |seed| {
        let mut fleet = Fleet::new(seed);
        fleet.talk(10, Chaos { crash: 100, cut: 80, wipe: 250 });
        fleet.sim.settle();
        fleet.sim.check_delivered();
        fleet.sim.check_retries();
    });
}
