//! A device could not decrypt messages of ours and asks for them again (spec 03 §5.7). They are encrypted anew, for that
//! device alone, from what was stored when they were sent; the receipt is acknowledged in the same batch.
//!
//! ```text
//!   receipt ──► sent? ──► asker is in the chat? ──► session ([`renew`](super::renew)) ──► encrypted, ack
//!                               │ group not known        │ keys are missing
//!                               └──── ask, go on ────────┘
//! ```
//!
//! **Bounds.** A device gets a message [`MAX_RESENDS`] times, a request with count [`MAX_COUNT`] is not answered, the account
//! answers [`MAX_PER_MINUTE`] in any minute, and [`MAX_WAITING`] requests wait for keys or groups. What is not answered is
//! acknowledged, and the device gets our sender key with the next message all the same.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::renew::{Renewal, renew, resend_key};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::{
    clock::Now,
    engine::{
        Engine, Job, Needs,
        account::Linked,
        address::{self, User},
        devices, groups,
        records::{ResendRecord, SentRecord},
        send::{self, marks, sent_record},
        step::{Miss, Step, own},
    },
    event::AddressingMode,
    jid::Jid,
    message::{
        self, build, classify,
        distribution::{Occurrence, must_rotate},
    },
    proto::Message as _,
    signal::{self, Address, StepError, sender_key::SenderKeyStore},
    stanza::{
        ack::AckTarget,
        receipt::{InboundReceipt, RetryRequest},
        resend::Resend,
    },
};

/// Requests with this count and above are not answered.
const MAX_COUNT: u32 = 5;
/// How often one message is encrypted again for one device.
const MAX_RESENDS: u32 = 10;
/// How often a group is asked for because of one request.
const MAX_QUESTIONS: u8 = 3;
/// How many requests may wait for keys or groups.
const MAX_WAITING: usize = 64;
/// How many messages are encrypted again in a minute: a large group whose devices all lost our key is some hundreds.
pub(crate) const MAX_PER_MINUTE: u32 = 600;
/// The span in which they are counted.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A retry receipt that is not answered yet.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    receipt: InboundReceipt,
    ack: AckTarget,
    /// How often the keys of the device were asked for.
    fetches: u8,
    /// How often the group was asked for.
    questions: u8,
}

impl Asked {
    /// A request of which nothing is known yet.
    pub(super) fn new(receipt: &InboundReceipt, ack: &AckTarget) -> Self {
        Self { receipt: receipt.clone(), ack: ack.clone(), fetches: 0, questions: 0 }
    }

    /// The keys of the device were asked for.
    pub(super) fn with_keys(self) -> Self {
        Self { fetches: self.fetches.saturating_add(1), ..self }
    }

    /// The group was asked for. What was known then may be forgotten again before this goes on.
    pub(super) fn with_group(self, is_known: bool) -> Self {
        Self { questions: if is_known { self.questions.saturating_add(1) } else { MAX_QUESTIONS }, ..self }
    }
}

/// What a request needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is answered with so many messages.
    Done(usize),
    /// The keys of this device.
    Keys(Jid),
    /// What this group is.
    Group(Jid),
}

/// Answers a request as far as it can be.
///
/// # Errors
/// [`Miss`].
pub(super) fn resend(step: &mut Step<'_>, asked: &Asked) -> Result<Outcome, Miss> {
    let outcome = answer(step, asked)?;
    if matches!(outcome, Outcome::Done(_)) {
        step.send(&asked.ack.ack());
    }
    Ok(outcome)
}

/// Acknowledges a request and answers it with nothing.
fn refuse(step: &mut Step<'_>, asked: &Asked) -> Result<(), Miss> {
    unmark(step, &asked.receipt)?;
    step.send(&asked.ack.ack());
    Ok(())
}

/// The device lacks our sender key of the chat, or may lack it: the next message brings it.
fn unmark(step: &mut Step<'_>, receipt: &InboundReceipt) -> Result<(), Miss> {
    let Some(device) = receipt.participant.as_ref().filter(|_| is_shared(&receipt.from)) else { return Ok(()) };
    let address = address::device(step, device)?;
    marks::unmark(step, &receipt.from, &address)
}

/// Whether a chat is under sender keys.
fn is_shared(chat: &Jid) -> bool {
    chat.is_group() || chat.is_broadcast()
}

/// A message that is wanted again.
struct Wanted {
    id: String,
    sent: SentRecord,
    resend: ResendRecord,
}

/// Who asks.
struct Asker {
    linked: Linked,
    /// As its session is stored.
    device: Jid,
    address: Address,
    user: User,
    /// It is a device of our own account.
    is_own: bool,
}

fn asker(step: &mut Step<'_>, receipt: &InboundReceipt) -> Result<Option<Asker>, Miss> {
    let Some(linked) = step.account().linked.clone() else { return Ok(None) };
    let device = receipt.participant.as_ref().unwrap_or(&receipt.from);
    if linked.own().is_device(device) {
        return Ok(None);
    }
    let (address, user) = (address::device(step, device)?, address::user(step, device)?);
    let device = user.canonical.with_device(device.device());
    Ok(Some(Asker { is_own: linked.own().is_account(&device), linked, device, address, user }))
}

fn answer(step: &mut Step<'_>, asked: &Asked) -> Result<Outcome, Miss> {
    const NOTHING: Outcome = Outcome::Done(0);
    let receipt = &asked.receipt;
    unmark(step, receipt)?;
    let (Some(retry), Some(asker)) = (&receipt.retry, asker(step, receipt)?) else { return Ok(NOTHING) };
    if retry.count >= MAX_COUNT {
        return Ok(NOTHING);
    }
    let chat = match &receipt.recipient {
        Some(recipient) if asker.is_own && !is_shared(&receipt.from) => address::user(step, recipient)?,
        _ => address::user(step, &receipt.from)?,
    };
    let mut wanted = wanted(step, &receipt.ids, &chat, &asker.address)?;
    if wanted.is_empty() {
        return Ok(NOTHING);
    }
    let mode = match standing(step, asked, &chat, &asker, &mut wanted)? {
        Standing::Known(mode) => mode,
        Standing::Ask => return Ok(Outcome::Group(chat.canonical)),
        Standing::Stranger => return Ok(NOTHING),
        Standing::Outsider => {
            if must_rotate(&chat.canonical, Occurrence::OutsiderRetry) {
                marks::rotate(step, &chat.canonical);
            }
            // Should it be in the group after all, the next message knows. What was just asked for is certain, and others
            // may wait for it.
            if asked.questions == 0 {
                groups::forget(step, &chat.canonical)?;
            }
            remember(step, &asker, wanted);
            return Ok(NOTHING);
        }
    };
    match ready(step, &asker, retry, &mut wanted, asked.fetches)? {
        Renewal::Ready => {}
        Renewal::Refused => return Ok(NOTHING),
        Renewal::Fetch => {
            // What was remembered now counts for the next request.
            for Wanted { id, resend, .. } in wanted {
                step.put(resend_key(&asker.address, &id), &resend);
            }
            return Ok(Outcome::Keys(asker.device));
        }
    }
    let mut count = 0;
    for one in &wanted {
        if seal(step, receipt, retry, one, &How { asker: &asker, chat: &chat, mode })? {
            count += 1;
        }
    }
    remember(step, &asker, wanted);
    Ok(Outcome::Done(count))
}

/// Counts a request for every message.
fn remember(step: &mut Step<'_>, asker: &Asker, wanted: Vec<Wanted>) {
    for Wanted { id, mut resend, .. } in wanted {
        resend.count = resend.count.saturating_add(1);
        resend.at = step.now.unix_seconds();
        step.put(resend_key(&asker.address, &id), &resend);
    }
}

/// The messages that are there, and that the device did not get too often.
fn wanted(step: &mut Step<'_>, ids: &[String], chat: &User, address: &Address) -> Result<Vec<Wanted>, Miss> {
    let (mut wanted, mut missed) = (Vec::new(), Ok(()));
    // Named twice in one receipt, it is wanted once. The order is that of the receipt.
    let mut seen = BTreeSet::new();
    for id in ids.iter().filter(|id| seen.insert(*id)) {
        // All are read before any is missed.
        let (sent, resend) = (sent_record(step, chat, id), step.record::<ResendRecord>(&resend_key(address, id)));
        let (Ok(sent), Ok(resend)) = (sent, resend) else {
            missed = Err(Miss);
            continue;
        };
        let resend = resend.unwrap_or_default();
        if let Some((_, sent)) = sent.filter(|_| resend.count < MAX_RESENDS) {
            wanted.push(Wanted { id: id.clone(), sent, resend });
        }
    }
    missed?;
    Ok(wanted)
}

/// Whether the asker may have the messages.
enum Standing {
    /// It may; in a group, how that addresses its participants.
    Known(Option<AddressingMode>),
    /// The group must be asked for.
    Ask,
    /// They were not for it.
    Stranger,
    /// It is not in the group.
    Outsider,
}

fn standing(
    step: &mut Step<'_>,
    asked: &Asked,
    chat: &User,
    asker: &Asker,
    wanted: &mut Vec<Wanted>,
) -> Result<Standing, Miss> {
    let (jid, user) = (&chat.canonical, &asker.user);
    if asker.is_own && !jid.is_group() {
        return Ok(Standing::Known(None));
    }
    if jid.is_group() {
        let Some(group) = groups::get(step, jid)? else {
            return Ok(if asked.questions >= MAX_QUESTIONS { Standing::Stranger } else { Standing::Ask });
        };
        let mut people = group.participants.iter().map(|participant| &participant.person);
        let is_in = people.any(|person| user.is(&person.jid) || person.alt.as_ref().is_some_and(|alt| user.is(alt)));
        return Ok(if is_in || asker.is_own {
            Standing::Known(Some(group.addressing_mode))
        } else {
            Standing::Outsider
        });
    }
    if jid.is_broadcast() {
        let is_viewer = |name: &String| name.parse::<Jid>().is_ok_and(|viewer| user.is(&viewer));
        wanted.retain(|one| one.sent.audience.iter().any(is_viewer));
        return Ok(if wanted.is_empty() { Standing::Stranger } else { Standing::Known(None) });
    }
    Ok(if chat.canonical == user.canonical { Standing::Known(None) } else { Standing::Stranger })
}

/// Sees to it that there is a session with a device that is one.
fn ready(
    step: &mut Step<'_>,
    asker: &Asker,
    retry: &RetryRequest,
    wanted: &mut [Wanted],
    fetches: u8,
) -> Result<Renewal, Miss> {
    let device = &asker.device;
    let list = devices::list(step, &asker.user)?;
    let is_listed = list.is_none_or(|devices| device.device() == 0 || devices.contains(&device.device()));
    if !is_listed && (fetches > 0 || retry.device_identity.is_none()) {
        return Ok(unknown(step, asker));
    }
    let mut renewal = Renewal::Ready;
    for one in wanted {
        // Of every message the base key is remembered; what one needs, all need.
        let next = renew(step, device, &asker.address, retry, &mut one.resend, fetches)?;
        renewal = if next == Renewal::Ready { renewal } else { next };
        if retry.keys.is_some() || renewal == Renewal::Refused {
            break;
        }
    }
    Ok(if renewal != Renewal::Ready && !is_listed { unknown(step, asker) } else { renewal })
}

/// Whoever it is, the next send asks for the list anew, and learns of a device that is there.
fn unknown(step: &mut Step<'_>, asker: &Asker) -> Renewal {
    tracing::warn!(device = %asker.device.redacted(), "a device that is not known asks for a message");
    devices::forget(step, &asker.user);
    Renewal::Refused
}

/// What is the same for all messages of a request.
struct How<'a> {
    asker: &'a Asker,
    chat: &'a User,
    mode: Option<AddressingMode>,
}

/// Encrypts one message for the device that asks; false when that cannot be done.
fn seal(
    step: &mut Step<'_>,
    receipt: &InboundReceipt,
    retry: &RetryRequest,
    wanted: &Wanted,
    how: &How<'_>,
) -> Result<bool, Miss> {
    let sent = &wanted.sent;
    let Ok(content) = message::decode(&sent.message) else { return Ok(false) };
    let class = classify(&content);
    let mut plaintext = match how.asker.is_own {
        true => build::device_sent(&sent.chat.parse().unwrap_or_else(|_| how.chat.canonical.clone()), content)
            .encode_to_vec(),
        // As it was sent, with its secret.
        false => sent.message.to_vec(),
    };
    if is_shared(&receipt.from)
        && let Some(key) = step.own_sender_key(&marks::own_key_name(&how.chat.canonical, &how.asker.linked))?
    {
        // Fields of one message behind those of another are fields of one message.
        let key = build::sender_key_distribution(&how.chat.canonical, key.distribution().encode());
        plaintext.extend(key.encode_to_vec());
    }
    let plaintext = send::padded(&plaintext, step.rng);
    let account = Arc::clone(step.account());
    let mut rng = ChaCha20Rng::from_rng(step.rng);
    let ciphertext = match signal::encrypt(step, &own(&account), &how.asker.address, &plaintext, &mut rng) {
        Ok(ciphertext) => ciphertext,
        Err(StepError::Miss(miss)) => return Err(miss),
        Err(StepError::Signal(error)) => {
            tracing::warn!(%error, "a message cannot be encrypted again");
            return Ok(false);
        }
    };
    let stanza = Resend {
        to: &receipt.from,
        participant: receipt.participant.as_ref(),
        recipient: receipt.recipient.as_ref(),
        id: &wanted.id,
        kind: class.stanza_type.as_str(),
        timestamp: Some(sent.timestamp).filter(|timestamp| *timestamp != 0),
        edit: class.edit.map(|edit| edit.as_str()),
        addressing_mode: how.mode.map(|mode| match mode {
            AddressingMode::Pn => "pn",
            AddressingMode::Lid => "lid",
        }),
        is_shared: is_shared(&receipt.from),
        media_type: class.media_type,
        hide_failure: class.hide_failure,
        meta: &class.meta,
        count: retry.count,
        ciphertext: &ciphertext,
        device_identity: &how.asker.linked.device_identity,
    };
    step.send(&stanza.to_node());
    Ok(true)
}

impl Engine {
    /// Answers a retry receipt, or asks for what the answer needs.
    ///
    /// # Errors
    /// [`Needs`]: run it again with them.
    pub(in crate::engine) fn asked_again(
        &mut self,
        now: Now,
        receipt: &InboundReceipt,
        ack: &AckTarget,
    ) -> Result<(), Needs> {
        let asked = Asked::new(receipt, ack);
        if self.resent.is_full(now.mono) {
            tracing::debug!("too many messages are asked for again");
            return self.step(now, |step| refuse(step, &asked));
        }
        let outcome = self.step(now, |step| resend(step, &asked))?;
        self.go_on_with(now, asked, outcome);
        Ok(())
    }

    fn go_on_with(&mut self, now: Now, asked: Asked, outcome: Outcome) {
        if let Outcome::Done(count) = outcome {
            return (0..count).for_each(|_| self.resent.note(now.mono));
        }
        if !self.connection.is_online() {
            // Nobody would hear the question, and its answer would be waited for on the next connection. Not acknowledged, so
            // the request comes again with that.
            return;
        }
        if self.resends.len() >= MAX_WAITING {
            // Not acknowledged, so it comes again with the next connection.
            tracing::debug!("too many resends wait");
            return;
        }
        self.resends.push((asked, outcome.clone()));
        match outcome {
            Outcome::Keys(device) => self.ask_bundles(now, vec![device]),
            Outcome::Group(group) => self.ask_group(now, group),
            Outcome::Done(_) => {}
        }
    }

    /// Goes on with a request whose answers are there.
    pub(in crate::engine) fn run_resend(&mut self, now: Now, asked: Asked) {
        match self.step(now, |step| resend(step, &asked)) {
            Err(needs) => self.park(Job::Resend(Box::new(asked)), needs),
            Ok(outcome) => self.go_on_with(now, asked, outcome),
        }
    }

    /// Keys of devices were fetched, or cannot be had: goes on with the resends that waited for them.
    pub(in crate::engine) fn resends_go_on(&mut self, now: Now, devices: &[Jid]) {
        let is_there = |need: &Outcome| matches!(need, Outcome::Keys(device) if devices.contains(device));
        for (asked, _) in self.resends.extract_if(.., |(_, need)| is_there(need)).collect::<Vec<_>>() {
            self.run_resend(now, asked.with_keys());
        }
    }

    /// It is known what a group is, or that it cannot be known: goes on with the resends that waited for it.
    pub(in crate::engine) fn resends_in_group_go_on(&mut self, now: Now, group: &Jid, is_known: bool) {
        let is_there = |need: &Outcome| matches!(need, Outcome::Group(needed) if needed == group);
        for (asked, _) in self.resends.extract_if(.., |(_, need)| is_there(need)).collect::<Vec<_>>() {
            self.run_resend(now, asked.with_group(is_known));
        }
    }
}
