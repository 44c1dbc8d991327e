//! Who gets our sender key of a group, and when the key must be replaced (spec 03 §3.4).
//!
//! The keys themselves are [`crate::signal::sender_key`]; which devices are marked as having the current key is stored by the
//! caller. Here are the decisions alone.
//!
//! ```text
//!  no key, or a worn one ──► fresh key, marks cleared ──► every device gets it
//!  a key                 ──► devices without a mark, and all our own others, get it
//!  server acknowledged   ──► DistributionPlan::marks
//!  retry receipt of a device ──► its mark goes;   must_rotate ──► the key goes, with all marks
//! ```

use crate::jid::Jid;

/// A key that has encrypted so many messages is replaced with the next one.
pub const ROTATE_AFTER: u32 = 1_000;

/// What happened to a chat, as far as it concerns our sender key for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occurrence {
    /// A participant left or was removed.
    Left {
        /// One of its devices is marked as having the key.
        had_key: bool,
    },
    /// A participant joined: it has no mark, so it gets the key with the next message.
    Joined,
    /// A `<modify>` of `w:gp2`: a participant changed its number, or moved to its LID.
    Modified,
    /// A retry receipt came from a device of somebody who is no participant. It is not served either.
    OutsiderRetry,
    /// The identity of a contact changed.
    IdentityChanged,
    /// The user changed who may see the status.
    AudienceChanged,
}

/// Whether our key of a chat must be replaced. Receivers need nothing special: a new key is one more of theirs.
///
/// Changes of identity and of the audience count for the status only; in groups the first shows as a new session, and
/// there is no audience but the participants.
pub fn must_rotate(chat: &Jid, occurrence: Occurrence) -> bool {
    match occurrence {
        Occurrence::Left { had_key } => had_key,
        Occurrence::Joined => false,
        Occurrence::Modified | Occurrence::OutsiderRetry => true,
        Occurrence::IdentityChanged | Occurrence::AudienceChanged => chat.is_status_broadcast(),
    }
}

/// What happens to our key before a message is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAction {
    /// It goes on.
    Keep,
    /// There is none: make one.
    Create,
    /// It has encrypted [`ROTATE_AFTER`] messages: replace it, and clear all marks.
    Rotate,
}

/// Which devices a message goes to, and which of them get the key with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistributionPlan<'a> {
    /// What to do with the key first.
    pub key: KeyAction,
    /// The devices to send the distribution message to, in the order given.
    pub targets: Vec<Target<'a>>,
    /// The devices that have the key.
    pub warm: Vec<&'a Jid>,
}

/// A device that gets the distribution message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The device.
    pub device: &'a Jid,
    /// It is one of our own, which are never marked.
    pub is_own: bool,
}

impl<'a> DistributionPlan<'a> {
    /// Plans a message.
    ///
    /// `own` are our JIDs with the device, number and LID as far as known. `iteration` is that of our key, `None` without one.
    /// `devices` are those of all participants, ourselves included, in the addressing mode of the chat and each once.
    /// `is_marked` says whether a device has the current key; asked only when there is one that goes on.
    ///
    /// Left out are the sending device and hosted devices. A companion counts as having the key only if the first device
    /// of its account has it, too.
    pub fn new(
        own: &[Jid],
        iteration: Option<u32>,
        devices: impl IntoIterator<Item = &'a Jid>,
        mut is_marked: impl FnMut(&Jid) -> bool,
    ) -> Self {
        let key = match iteration {
            None => KeyAction::Create,
            Some(iteration) if iteration >= ROTATE_AFTER => KeyAction::Rotate,
            Some(_) => KeyAction::Keep,
        };
        let (mut targets, mut warm) = (Vec::new(), Vec::new());
        for device in devices {
            let is_own = own.iter().any(|own| own.same_account(device));
            let is_sending = own.iter().any(|own| own.same_account(device) && own.device() == device.device());
            if is_sending || device.is_hosted() {
                continue;
            }
            let is_warm = key == KeyAction::Keep
                && !is_own
                && is_marked(device)
                && (device.device() == 0 || is_marked(&device.to_bare()));
            if is_warm {
                warm.push(device);
            } else {
                targets.push(Target { device, is_own });
            }
        }
        Self { key, targets, warm }
    }

    /// All devices that the message is for: what the participant hash is over, together with the sending device
    /// (spec 03 §4.6).
    pub fn addressed(&self) -> impl Iterator<Item = &'a Jid> {
        self.targets.iter().map(|target| target.device).chain(self.warm.iter().copied())
    }

    /// The devices to mark once the server acknowledged the message, also those that could not be encrypted for: a dead
    /// device is not to be tried with every message, and one that lives asks by a retry receipt.
    pub fn marks(&self) -> impl Iterator<Item = &'a Jid> {
        self.targets.iter().filter(|target| !target.is_own).map(|target| target.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jids(list: &[&str]) -> Vec<Jid> {
        list.iter().map(|jid| jid.parse().unwrap()).collect()
    }

    /// Plans for a fixed group with the marks given; the targets and the warm devices as text.
    fn check(iteration: Option<u32>, marks: &[&str], key: KeyAction, targets: &[&str], warm: &[&str]) {
        let own = jids(&["1:5@lid", "49151:5@s.whatsapp.net"]);
        let devices = jids(&["1@lid", "1:5@lid", "1:6@lid", "2@lid", "2:1@lid", "3@lid", "3:4@lid", "3:99@hosted.lid"]);
        let marks = jids(marks);
        let plan = DistributionPlan::new(&own, iteration, &devices, |device| marks.contains(device));
        let text = |list: Vec<&Jid>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(plan.key, key);
        assert_eq!(text(plan.targets.iter().map(|target| target.device).collect()), targets);
        assert_eq!(text(plan.warm.clone()), warm);
        let marked: Vec<_> = targets.iter().filter(|jid| !jid.starts_with('1')).copied().collect();
        assert_eq!(text(plan.marks().collect()), marked, "own devices are not marked");
        assert_eq!(plan.addressed().count(), 6, "all but the sending and the hosted device");
    }

    #[test]
    fn the_first_message_takes_the_key_to_all() {
        let all = ["1@lid", "1:6@lid", "2@lid", "2:1@lid", "3@lid", "3:4@lid"];
        check(None, &["2@lid", "3@lid"], KeyAction::Create, &all, &[]);
        check(Some(0), &[], KeyAction::Keep, &all, &[]);
    }

    #[test]
    fn marked_devices_are_warm_and_own_ones_never() {
        let marks = ["1@lid", "1:6@lid", "2@lid", "2:1@lid", "3@lid"];
        let (targets, warm) = (["1@lid", "1:6@lid", "3:4@lid"], ["2@lid", "2:1@lid", "3@lid"]);
        check(Some(999), &marks, KeyAction::Keep, &targets, &warm);
    }

    #[test]
    fn a_companion_is_warm_only_with_its_first_device() {
        let targets = ["1@lid", "1:6@lid", "2@lid", "2:1@lid", "3@lid"];
        check(Some(1), &["2:1@lid", "3:4@lid"], KeyAction::Keep, &[&targets[..], &["3:4@lid"]].concat(), &[]);
    }

    #[test]
    fn a_worn_key_is_replaced_for_all() {
        let all = ["1@lid", "1:6@lid", "2@lid", "2:1@lid", "3@lid", "3:4@lid"];
        check(Some(ROTATE_AFTER), &all, KeyAction::Rotate, &all, &[]);
        check(Some(u32::MAX), &all, KeyAction::Rotate, &all, &[]);
    }

    #[test]
    fn own_devices_are_known_by_number_and_by_lid() {
        let own = jids(&["1:5@lid", "49151:5@s.whatsapp.net"]);
        let devices = jids(&["49151@s.whatsapp.net", "49151:5@s.whatsapp.net", "49152@s.whatsapp.net"]);
        let plan = DistributionPlan::new(&own, Some(1), &devices, |_| true);
        assert_eq!(plan.targets, [Target { device: &devices[0], is_own: true }]);
        assert_eq!(plan.warm, [&devices[2]]);
    }

    #[test]
    fn occurrences_that_replace_the_key() {
        let (group, status) = ("123@g.us".parse().unwrap(), Jid::status_broadcast());
        let check = |occurrence, in_group, in_status| {
            assert_eq!((must_rotate(&group, occurrence), must_rotate(&status, occurrence)), (in_group, in_status));
        };
        check(Occurrence::Left { had_key: true }, true, true);
        check(Occurrence::Left { had_key: false }, false, false);
        check(Occurrence::Joined, false, false);
        check(Occurrence::Modified, true, true);
        check(Occurrence::OutsiderRetry, true, true);
        check(Occurrence::IdentityChanged, false, true);
        check(Occurrence::AudienceChanged, false, true);
    }
}
