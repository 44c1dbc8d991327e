//! One person, two identities: phone number (PN) and LID (spec 03 §4.10).
//!
//! Records are kept under the canonical identity: the LID once it is known, the PN before. What was begun under the PN moves to
//! the LID before it is next used, with everything of the user that is known to be there.
//!
//! | file | what |
//! |---|---|
//! | `migrate` | records move from the PN to the LID |
//! | `table` | the table of pairs that the phone sends when the account begins to speak by LID |

mod migrate;
mod table;

use bytes::Bytes;

use crate::{
    engine::{
        account::Account,
        step::{Miss, Step},
    },
    event::{LidMappingUpdated, MappingSource},
    jid::Jid,
    signal::Address,
    store::{Key, RecordKind},
};

pub(crate) use table::learn_table;

/// A user under both identities, without device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// The identity that records are kept under.
    pub(crate) canonical: Jid,
    pub(crate) pn: Option<Jid>,
    pub(crate) lid: Option<Jid>,
}

impl User {
    /// Whether a JID is one of this user's.
    pub(crate) fn is(&self, jid: &Jid) -> bool {
        self.identities().any(|identity| identity.same_account(jid))
    }

    /// What records of this user may be kept under: the canonical identity, then the one before the LID was known.
    pub(crate) fn identities(&self) -> impl Iterator<Item = &Jid> {
        std::iter::once(&self.canonical).chain(self.pn.as_ref().filter(|pn| **pn != self.canonical))
    }

    /// The other identity than `jid`, when it is known.
    pub(crate) fn other(&self, jid: &Jid) -> Option<&Jid> {
        if jid.is_lid_family() { self.pn.as_ref() } else { self.lid.as_ref() }
    }

    /// The identity that a message to this user is addressed to: the LID once the account speaks by LID, else the PN. The one
    /// that is known, if only one is.
    pub(crate) fn addressed(&self, account: &Account) -> &Jid {
        match &self.pn {
            Some(pn) if !account.lid_migrated => pn,
            _ => &self.canonical,
        }
    }
}

fn map_key(jid: &Jid) -> Key {
    Key::texts(RecordKind::LidMap, &[jid])
}

/// Looks both identities of a user up.
///
/// # Errors
/// [`Miss`].
pub(crate) fn user(step: &mut Step<'_>, jid: &Jid) -> Result<User, Miss> {
    let jid = jid.to_account();
    let other = other_identity(step, &jid)?;
    let (pn, lid) = match (jid.is_lid_family(), jid.is_pn_family()) {
        (true, _) => (other, Some(jid.clone())),
        (_, true) => (Some(jid.clone()), other),
        _ => (None, None),
    };
    let canonical = lid.clone().unwrap_or(jid);
    Ok(User { canonical, pn, lid })
}

fn other_identity(step: &mut Step<'_>, jid: &Jid) -> Result<Option<Jid>, Miss> {
    if !jid.is_lid_family() && !jid.is_pn_family() {
        return Ok(None);
    }
    if let Some(linked) = &step.account().linked
        && let Some(lid) = &linked.lid
    {
        if jid.same_account(&linked.pn) {
            return Ok(Some(lid.to_bare()));
        }
        if jid.same_account(lid) {
            return Ok(Some(linked.pn.to_bare()));
        }
    }
    let stored = step.read(&map_key(jid))?;
    Ok(stored.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok()))
}

/// News about who is who.
#[derive(Debug)]
pub(crate) struct Noted {
    /// Tells it.
    pub(crate) event: LidMappingUpdated,
    /// Something else was told before.
    pub(crate) corrects: bool,
}

/// Stores that two JIDs are the same person, when one is a PN and the other a LID; tells the application when it is news.
///
/// The newest word counts, and it is one to one: what was known of either before is forgotten. What still stands under the PN
/// goes to the person that it was of. Nobody is ever the same person as our own account: that one's identities come with
/// linking and login only.
///
/// # Errors
/// [`Miss`].
pub(crate) fn learn(step: &mut Step<'_>, a: &Jid, b: &Jid, source: MappingSource) -> Result<(), Miss> {
    if let Some(noted) = note(step, a, b, source)? {
        step.emit(noted.event);
    }
    Ok(())
}

/// As [`learn`], and leaves it to the caller to tell the news.
///
/// # Errors
/// [`Miss`].
pub(crate) fn note(step: &mut Step<'_>, a: &Jid, b: &Jid, source: MappingSource) -> Result<Option<Noted>, Miss> {
    let (a, b) = (a.to_account(), b.to_account());
    let (pn, lid) = match (a.is_pn_family() && b.is_lid_family(), a.is_lid_family() && b.is_pn_family()) {
        (true, _) => (a, b),
        (_, true) => (b, a),
        _ => return Ok(None),
    };
    if pn.is_server_only() || lid.is_server_only() || pn.is_bot() {
        return Ok(None);
    }
    if step
        .account()
        .linked
        .as_ref()
        .is_some_and(|linked| linked.own().is_account(&pn) || linked.own().is_account(&lid))
    {
        return Ok(None);
    }
    step.require([&map_key(&pn), &map_key(&lid)])?;
    let (lid_before, pn_before) = (other_identity(step, &pn)?, other_identity(step, &lid)?);
    if lid_before.as_ref() == Some(&lid) && pn_before.as_ref() == Some(&pn) {
        return Ok(None);
    }
    if let Some(before) = &lid_before {
        migrate::leave(step, &pn, before)?;
        step.delete(map_key(before));
    }
    if let Some(before) = &pn_before {
        migrate::leave(step, before, &lid)?;
        step.delete(map_key(before));
    }
    step.put(map_key(&pn), Bytes::from(lid.to_string()));
    step.put(map_key(&lid), Bytes::from(pn.to_string()));
    let corrects = lid_before.is_some() || pn_before.is_some();
    Ok(Some(Noted { event: LidMappingUpdated::new(lid, pn, source), corrects }))
}

/// The same for all the people of a stanza: before anything is told of it.
///
/// # Errors
/// [`Miss`].
pub(crate) fn learn_all(step: &mut Step<'_>, people: &[(Jid, Jid)], source: MappingSource) -> Result<(), Miss> {
    let mut missed = Ok(());
    for (jid, other) in people {
        // All are looked at, so that one round loads everything.
        missed = learn(step, jid, other, source).and(missed);
    }
    missed
}

/// The address of a device, under which its session is stored. Moves what still stands under the PN.
///
/// # Errors
/// [`Miss`].
pub(crate) fn device(step: &mut Step<'_>, jid: &Jid) -> Result<Address, Miss> {
    let user = user(step, jid)?;
    if let Some(pn) = user.pn.as_ref().filter(|pn| **pn != user.canonical) {
        migrate::before_use(step, pn, &user.canonical, jid.device())?;
    }
    Ok(address_of(&user.canonical, jid.device()))
}

/// The address of a device of a user, as it is.
pub(crate) fn address_of(user: &Jid, device: u16) -> Address {
    Address::new(&user.with_device(device).to_string())
}
