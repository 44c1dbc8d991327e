//! A device could not decrypt a message of ours and asks for it again (spec 03 §5.7). It is encrypted anew, for that device
//! alone, from what was stored when it was sent; the receipt is acknowledged in the same batch.

use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::{
    clock::Now,
    engine::{
        Engine, Job,
        account::Linked,
        address::{self, User},
        devices, keys,
        records::Record,
        send::{self, sent_record},
        step::{Miss, Step, own},
    },
    jid::Jid,
    message::{self, build, classify},
    proto::Message as _,
    signal::{self, Address, SignalStore, StepError},
    stanza::{
        ack::AckTarget,
        iq::prekeys::FetchedBundle,
        message::Resend,
        receipt::{InboundReceipt, RetryRequest},
    },
};

/// Requests with this count and above are not answered.
const MAX_COUNT: u32 = 5;
/// How often one message is encrypted again for one device.
const MAX_RESENDS: u32 = 10;
/// How many requests may wait for keys.
const MAX_WAITING: usize = 64;

/// A retry receipt that is not answered yet.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) receipt: InboundReceipt,
    pub(crate) ack: AckTarget,
    /// The keys of the device were fetched, or cannot be had.
    pub(crate) fetched: bool,
}

/// What a request needs next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is answered, or will not be.
    Done,
    /// The keys of this device.
    Bundle(Jid),
}

/// Answers a request as far as it can be.
///
/// # Errors
/// [`Miss`].
pub(crate) fn resend(step: &mut Step<'_>, asked: &Asked) -> Result<Outcome, Miss> {
    let outcome = answer(step, asked)?;
    if outcome == Outcome::Done {
        step.send(&asked.ack.ack());
    }
    Ok(outcome)
}

fn answer(step: &mut Step<'_>, asked: &Asked) -> Result<Outcome, Miss> {
    let receipt = &asked.receipt;
    let (Some(retry), Some(id)) = (&receipt.retry, receipt.ids.first()) else { return Ok(Outcome::Done) };
    let Some(linked) = step.account().linked.clone() else { return Ok(Outcome::Done) };
    let device = receipt.participant.as_ref().unwrap_or(&receipt.from);
    let is_own = linked.own().is_account(device);
    let chat = match &receipt.recipient {
        Some(recipient) if is_own => address::user(step, recipient)?,
        _ => address::user(step, &receipt.from)?,
    };
    let Some((sent_key, mut sent)) = sent_record(step, &chat, id)? else { return Ok(Outcome::Done) };
    let address = address::device(step, device)?;
    let resent = sent.resent.get(address.as_str()).copied().unwrap_or(0);
    if retry.count >= MAX_COUNT || resent >= MAX_RESENDS || !is_plausible(device, &chat, is_own) {
        return Ok(Outcome::Done);
    }
    if retry.registration_id == 0 {
        return Ok(Outcome::Done);
    }
    let listed = is_listed(step, &linked, &chat, device, is_own)?;
    let unknown = !listed && (asked.fetched || retry.device_identity.is_none());
    if unknown || !renew_session(step, device, &address, retry, asked.fetched)? {
        if listed {
            return Ok(Outcome::Bundle(device.clone()));
        }
        // Whoever it is, the next send asks for the list anew, and learns of a device that is there.
        tracing::warn!(device = %device.redacted(), "a device that is not known asks for a message");
        let user = address::user(step, device)?;
        devices::forget(step, &user);
        return Ok(Outcome::Done);
    }

    let Ok(content) = message::decode(&sent.message) else { return Ok(Outcome::Done) };
    let class = classify(&content);
    let plaintext = match is_own {
        true => build::device_sent(&sent.chat.parse().unwrap_or(chat.canonical), content).encode_to_vec(),
        false => sent.message.to_vec(),
    };
    let plaintext = send::padded(plaintext, step.rng);
    let account = Arc::clone(step.account());
    let mut rng = ChaCha20Rng::from_rng(step.rng);
    let ciphertext = match signal::encrypt(step, &own(&account), &address, &plaintext, &mut rng) {
        Ok(ciphertext) => ciphertext,
        Err(StepError::Miss(miss)) => return Err(miss),
        Err(StepError::Signal(error)) => {
            tracing::warn!(%error, "a message cannot be encrypted again");
            return Ok(Outcome::Done);
        }
    };
    let stanza = Resend {
        to: &receipt.from,
        participant: receipt.participant.as_ref(),
        recipient: receipt.recipient.as_ref(),
        id,
        kind: class.stanza_type.as_str(),
        edit: class.edit.map(|edit| edit.as_str()),
        media_type: class.media_type,
        hide_failure: class.hide_failure,
        count: retry.count,
        ciphertext: &ciphertext,
        device_identity: &linked.device_identity,
    };
    step.send(&stanza.to_node());
    sent.resent.insert(address.as_str().to_owned(), resent.saturating_add(1));
    step.put(sent_key, sent.to_bytes());
    Ok(Outcome::Done)
}

/// A message goes to devices of the chat's user and of our own account, and to nobody else.
fn is_plausible(device: &Jid, chat: &User, is_own: bool) -> bool {
    let is = |user: &Option<Jid>| user.as_ref().is_some_and(|user| user.same_account(device));
    is_own || is(&chat.pn) || is(&chat.lid)
}

/// Whether a device stands in the list of its user, or there is no list.
fn is_listed(step: &mut Step<'_>, linked: &Linked, chat: &User, device: &Jid, is_own: bool) -> Result<bool, Miss> {
    let list = match is_own {
        true => {
            let own = address::user(step, &linked.pn)?;
            devices::list(step, &own)?
        }
        false => devices::list(step, chat)?,
    };
    Ok(list.is_none_or(|devices| device.device() == 0 || devices.contains(&device.device())))
}

/// Sees to it that there is a session that the device can read: from the keys that it sent along, else the one there is
/// when this is its first request, else from keys that are fetched. False: fetch them first.
fn renew_session(
    step: &mut Step<'_>,
    device: &Jid,
    address: &Address,
    retry: &RetryRequest,
    fetched: bool,
) -> Result<bool, Miss> {
    if fetched {
        return Ok(true);
    }
    step.require([&keys::session(address), &keys::identity(address), &keys::archive_index(address)])?;
    if let Some(bundle) = &retry.keys {
        let sent = FetchedBundle { bundle: bundle.clone(), device_identity: retry.device_identity.clone() };
        return send::establish_sent(step, device, &sent);
    }
    let known = step.session(address)?;
    let current = known.as_ref().and_then(signal::Session::current);
    let same_device = current.is_some_and(|state| state.remote_registration_id() == retry.registration_id);
    // The first request may be about one damaged message; a second one says that the session is of no use.
    Ok(same_device && retry.count < 2)
}

impl Engine {
    /// Answers a retry receipt, or fetches the keys that the answer needs.
    pub(in crate::engine) fn run_resend(&mut self, now: Now, asked: Asked) {
        match self.step(now, |step| resend(step, &asked)) {
            Err(needs) => self.park(Job::Resend(Box::new(asked)), needs),
            Ok(Outcome::Done) => {}
            Ok(Outcome::Bundle(device)) => {
                if self.resends.len() >= MAX_WAITING {
                    // Not acknowledged, so it comes again with the next connection.
                    tracing::warn!("too many resends wait for keys");
                    return;
                }
                self.resends.push(asked);
                self.ask_bundles(now, vec![device]);
            }
        }
    }

    /// Keys of devices were fetched, or cannot be had: goes on with the resends that waited for them.
    pub(in crate::engine) fn resends_go_on(&mut self, now: Now, devices: &[Jid]) {
        let waiting = std::mem::take(&mut self.resends);
        let (ready, waiting): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|asked| devices.contains(asked.receipt.participant.as_ref().unwrap_or(&asked.receipt.from)));
        self.resends = waiting;
        for asked in ready {
            self.run_resend(now, Asked { fetched: true, ..asked });
        }
    }
}
