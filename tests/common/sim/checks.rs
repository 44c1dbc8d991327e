//! What must hold when everything is settled.

use std::collections::BTreeSet;

use wamd::Jid;

use super::{Sim, chats::Sent};

/// Whether a failure is one of those that the trouble here leads to: the server refuses, the sender left, or nobody answers.
fn is_explained(code: &str) -> bool {
    let code = code.trim_matches('"');
    matches!(code, "timeout" | "logged_out" | "not_a_participant") || code.parse::<u32>().is_ok()
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Accepted,
    Refused,
    /// The sender cannot know.
    Unknown,
}

impl Sim {
    /// What must hold when everything is settled and nobody lost a key.
    pub(crate) fn check_settled(&self) {
        self.check_delivered();
        self.check_order();
        self.check_readable();
    }

    /// Every message that the server accepted is there once, at every device of everybody it was for, and nowhere else.
    pub(crate) fn check_delivered(&self) {
        for sent in &self.sent {
            let fate = self.check_sender(sent);
            let is_out = fate != Fate::Refused;
            for (i, account) in self.accounts.iter().enumerate() {
                let received = account.disk.count("message.received", &sent.id);
                let copies = account.disk.count("message.sent", &sent.id);
                let expected = match () {
                    () if account.number == sent.number => (0, 1),
                    () if self.may_reach(sent, account.number) => (1, 0),
                    () => (0, 0),
                };
                let must = sent.devices.contains(&i) && fate == Fate::Accepted;
                let may = (received, copies) == (0, 0) || is_out && (received, copies) == expected;
                let what =
                    format!("{} to {} at {}: {received} received, {copies} copies", sent.id, sent.to, account.name);
                assert!(if must { (received, copies) == expected } else { may }, "{what}, of {expected:?}");
                let text = account.disk.messages("message.received").find(|m| m["key"]["id"] == *sent.id);
                assert!(text.is_none_or(|message| message["text"] == *sent.text), "{} reads as it was sent", sent.id);
            }
            self.check_phones(sent, fate);
        }
    }

    /// The sender knows what became of its message.
    fn check_sender(&self, sent: &Sent) -> Fate {
        let Some(from) = sent.from.filter(|_| !sent.is_orphan) else { return Fate::Accepted };
        let sender = &self.accounts[from];
        assert!(sender.accepted.contains(&sent.id), "{} was accepted", sent.id);
        let told = (sender.disk.count("message.sent", &sent.id), sender.disk.count("message.failed", &sent.id));
        if !self.may_fail {
            assert_eq!(told, (1, 0), "{} was sent, and did not fail", sent.id);
        }
        let failure = sender.disk.failure(&sent.id);
        assert!(failure.as_deref().is_none_or(is_explained), "{} failed: {failure:?}", sent.id);
        match (told, failure) {
            ((1, 0), _) => Fate::Accepted,
            ((0 | 1, 1), Some(code)) if code.contains("timeout") => Fate::Unknown,
            // The server had it, and refuses the same stanza after a new connection, because of what happened meanwhile.
            ((0, 1), Some(_)) if self.times_sent.get(&sent.id).is_some_and(|times| *times > 1) => Fate::Unknown,
            ((0, 1), Some(_)) => Fate::Refused,
            _ => panic!("{} was told as sent {} times and as failed {} times", sent.id, told.0, told.1),
        }
    }

    /// Whether a message may be with somebody: whoever comes into a group before the server has it gets it, too.
    fn may_reach(&self, sent: &Sent, number: &str) -> bool {
        sent.audience.contains(&number) || self.may_fail && sent.to.is_group()
    }

    fn check_phones(&self, sent: &Sent, fate: Fate) {
        let numbers: BTreeSet<&str> = self.accounts.iter().map(|account| account.number).collect();
        for number in numbers {
            let phone = self.server.received(number);
            let count = phone.iter().filter(|message| message.id == sent.id).count();
            let must = sent.phones.contains(number) && fate == Fate::Accepted;
            let may = sent.number == number || self.may_reach(sent, number);
            assert!(count == 1 || !must && (count == 0), "{} is {count} times at the phone of {number}", sent.id);
            assert!(count == 0 || may && fate != Fate::Refused, "{} is at the phone of {number}", sent.id);
        }
    }

    /// What one account sent to one chat arrives in the order in which it was sent.
    pub(crate) fn check_order(&self) {
        for account in &self.accounts {
            let told: Vec<&str> =
                account.disk.messages("message.received").filter_map(|message| message["key"]["id"].as_str()).collect();
            let chats: BTreeSet<(Option<usize>, &str, &Jid)> =
                self.sent.iter().map(|sent| (sent.from, sent.number, &sent.to)).collect();
            for (from, number, to) in chats {
                let sent = self.sent.iter().filter(|sent| sent.from == from && sent.number == number && sent.to == *to);
                let sent = sent.filter(|sent| sent.audience.contains(&account.number));
                let sent: Vec<&str> = sent.map(|sent| sent.id.as_str()).collect();
                let arrived: Vec<&str> = told.iter().copied().filter(|id| sent.contains(id)).collect();
                assert_eq!(arrived, sent, "{} got them in order", account.name);
            }
        }
    }

    /// Nothing was told as undecryptable.
    pub(crate) fn check_readable(&self) {
        for account in &self.accounts {
            let undecryptable = account.disk.outbox.values().filter(|e| e.event == "message.undecryptable").count();
            assert_eq!(undecryptable, 0, "{} could read everything", account.name);
        }
    }

    /// No device was asked more than five times for one message.
    pub(crate) fn check_retries(&self) {
        for account in &self.accounts {
            for ((id, asked), count) in &account.retries {
                assert!(*count <= 5, "{} asked {asked} {count} times for {id}", account.name);
            }
        }
    }
}
