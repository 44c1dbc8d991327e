//! A status post goes to the viewers that the caller names, by LID; a reaction to one goes to its author alone
//! (spec 03 §4.5, "Status").

use std::collections::BTreeSet;

use super::{
    Plan, SendOp, direct, fail,
    fanout::{self, Fanout, Found},
    memo::Look,
};
use crate::{
    engine::{
        address::{self, User},
        notices::SendFailure,
        step::{Miss, Step},
    },
    jid::Jid,
    message::{self, StanzaType},
    signal::Ciphertext,
};

/// Finds out whom the post is for. A viewer whose LID the server does not tell is left out.
///
/// # Errors
/// [`Miss`].
pub(super) fn look(step: &mut Step<'_>, op: &SendOp) -> Result<Look, Miss> {
    let Some(linked) = step.account().linked.clone() else {
        return Ok(Look::Plan(fail(step, op, &SendFailure::logged_out())));
    };
    let own = linked.lid.as_ref().unwrap_or(&linked.pn).to_bare();
    let (mut people, mut unknown, mut missed) = (BTreeSet::from([own]), Vec::new(), Ok(()));
    for viewer in op.viewers.iter().filter(|viewer| !linked.own().is_account(viewer)) {
        match address::user(step, viewer) {
            Ok(User { lid: Some(lid), .. }) => drop(people.insert(lid)),
            Ok(_) if op.asked.contains_key(viewer) => {}
            Ok(_) => unknown.push(viewer.clone()),
            Err(miss) => missed = Err(miss),
        }
    }
    missed?;
    if !unknown.is_empty() {
        return Ok(Look::Plan(Plan::Devices(unknown)));
    }
    let people: Vec<Jid> = people.into_iter().collect();
    let found = if people.len() < 2 { Found::Nobody } else { fanout::find(step, op, &linked, None, &people)? };
    Ok(match found {
        Found::Fanout(fanout) => Look::Found(fanout),
        Found::Unknown(people) => Look::Plan(Plan::Devices(people)),
        Found::Nobody => {
            let failure = SendFailure::new("no_viewers", "nobody who may see the status can be reached");
            Look::Plan(fail(step, op, &failure))
        }
    })
}

/// What the stanza says about the audience: only a post does.
pub(super) fn setting(op: &SendOp) -> Option<(&'static str, &'static str)> {
    let is_post = op.words.edit.is_none() && op.words.stanza_type != StanzaType::Reaction;
    let setting = op.setting.filter(|_| is_post)?;
    Some(("status_setting", setting.as_str()))
}

/// The viewers that are named beside the devices that get the key: those who have it, and those who cannot be given it now.
pub(super) fn viewers(fanout: &Fanout, given: &[(Jid, Ciphertext)]) -> Vec<Jid> {
    if fanout.distributes.is_none() {
        return fanout.warm.clone();
    }
    let given: BTreeSet<&Jid> = given.iter().map(|(device, _)| device).collect();
    let left_out = fanout.targets.iter().filter(|target| !target.is_own && !given.contains(&target.jid));
    let viewers = fanout.warm.iter().cloned().chain(left_out.map(|target| target.jid.to_bare()));
    viewers.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Goes on with a reaction to a status: pairwise, to its author and our own devices.
///
/// # Errors
/// [`Miss`].
pub(super) fn reaction(step: &mut Step<'_>, op: &SendOp) -> Result<Plan, Miss> {
    let author = message::decode(&op.message).ok().and_then(|message| {
        let key = match (message.reaction_message, message.enc_reaction_message) {
            (Some(reaction), _) => reaction.key,
            (None, Some(reaction)) => reaction.target_message_key,
            (None, None) => None,
        };
        key?.participant?.parse::<Jid>().ok()
    });
    let author =
        author.map(|author| author.to_account()).filter(|author| author.is_pn_family() || author.is_lid_family());
    match author {
        Some(author) => direct::plan(step, op, &author),
        None => Ok(fail(step, op, &SendFailure::new("no_author", "the reaction does not say whose status it is to"))),
    }
}
