//! The message that another one is about: a reaction, an edit, a vote name it by a key from the sender's point of view
//! (spec 06 §3.12).

use crate::{
    engine::{
        address::{self, User},
        receive::Context,
        send::sent_record,
        step::{Miss, Step},
    },
    jid::Jid,
    message::MessageId,
    proto::common::MessageKey,
    store::{Key, RecordKind},
};

/// The message, from our point of view.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The chat that it stands in, as addressed: that of the stanza, but for a reaction to a status, which comes to its author
    /// alone.
    pub(crate) chat: Jid,
    /// The chat under both identities.
    pub(crate) place: User,
    /// Its id.
    pub(crate) id: String,
    /// Who wrote it, as the chat addresses them; without device.
    pub(crate) author: Jid,
    /// The author under both identities.
    pub(crate) person: User,
    /// We wrote it.
    pub(crate) from_me: bool,
}

impl Target {
    /// Whether somebody wrote it.
    pub(crate) fn is_by(&self, user: &User) -> bool {
        user.is(&self.author) || self.person.canonical == user.canonical
    }
}

/// Works out which message a key of this stanza names; `None` for a key that names none.
///
/// In a chat with one user it is the sender's or the other side's; in a group the key says whose.
///
/// # Errors
/// [`Miss`].
pub(crate) fn target(
    step: &mut Step<'_>,
    context: &Context<'_>,
    key: Option<&MessageKey>,
) -> Result<Option<Target>, Miss> {
    let inbound = context.message;
    let Some(key) = key else { return Ok(None) };
    let Some(linked) = step.account().linked.clone() else { return Ok(None) };
    let Some(id) = key.id.as_deref().filter(|id| MessageId::new(id).is_ok()) else { return Ok(None) };
    let by_sender = key.from_me == Some(true);
    let sender = inbound.sender.to_account();
    let named = key.participant.as_deref().and_then(|text| text.parse::<Jid>().ok()).map(|jid| jid.to_account());
    let in_family_of = |jid: &Jid| match &linked.lid {
        Some(lid) if jid.is_lid_family() => lid.to_account(),
        _ => linked.pn.to_account(),
    };
    let author = match (inbound.author().is_some(), named) {
        (true, Some(named)) => named,
        (_, _) if by_sender => sender,
        (true, None) => return Ok(None),
        (false, _) if inbound.from_me => inbound.chat.to_account(),
        (false, _) => in_family_of(&sender),
    };
    let from_me = linked.own().is_account(&author);
    let person = address::user(step, &author)?;
    let elsewhere = key.remote_jid.as_deref().and_then(|text| text.parse::<Jid>().ok());
    let (chat, place) = match elsewhere.filter(|jid| jid.is_status_broadcast() && !inbound.chat.is_status_broadcast()) {
        Some(status) => (status.clone(), address::user(step, &status)?),
        None => (inbound.chat.clone(), context.chat.clone()),
    };
    Ok(Some(Target { chat, place, id: id.to_owned(), author, person, from_me }))
}

/// Whether this device has seen the message: it received it, or sent it.
///
/// # Errors
/// [`Miss`].
pub(crate) fn is_known(step: &mut Step<'_>, target: &Target) -> Result<bool, Miss> {
    let sent = match target.from_me {
        true => sent_record(step, &target.place, &target.id).map(|sent| sent.is_some()),
        false => Ok(false),
    };
    let id = target.id.as_bytes();
    let received = |chat: &Jid, author: &Jid| {
        Key::joined(RecordKind::Received, &[chat.to_string().as_bytes(), author.to_string().as_bytes(), id])
    };
    let authors = || target.person.identities();
    let keys: Vec<Key> =
        target.place.identities().flat_map(|chat| authors().map(move |author| received(chat, author))).collect();
    // All are read before any is missed.
    step.require(&keys)?;
    if sent? {
        return Ok(true);
    }
    for key in &keys {
        if step.read(key)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
