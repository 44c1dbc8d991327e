//! A message to a group, an announcement group of a community included (spec 03 §4.5, "Group").

use super::{
    Plan, SendOp, fail,
    fanout::{self, Found},
    memo::Look,
};
use crate::{
    engine::{
        groups,
        notices::SendFailure,
        step::{Miss, Step},
    },
    jid::Jid,
};

/// Finds out whom the message is for.
///
/// # Errors
/// [`Miss`].
pub(super) fn look(step: &mut Step<'_>, op: &SendOp) -> Result<Look, Miss> {
    let Some(linked) = step.account().linked.clone() else {
        return Ok(Look::Plan(fail(step, op, &SendFailure::logged_out())));
    };
    let chat = &op.lane.chat;
    let Some(group) = groups::get(step, chat)? else { return Ok(Look::Plan(Plan::Group(chat.clone()))) };
    let participants = &group.participants;
    let own = linked.own();
    let is_own = |jid: &Jid| own.is_account(jid);
    if !participants.iter().any(|one| is_own(&one.person.jid) || one.person.alt.as_ref().is_some_and(is_own)) {
        let failure = SendFailure::new("not_a_participant", "the account is not in the group");
        return Ok(Look::Plan(fail(step, op, &failure)));
    }
    let people: Vec<Jid> = participants.iter().map(|participant| participant.person.jid.clone()).collect();
    Ok(match fanout::find(step, op, &linked, Some(group.addressing_mode), &people)? {
        Found::Fanout(fanout) => Look::Found(fanout),
        Found::Unknown(people) => Look::Plan(Plan::Devices(people)),
        Found::Nobody => {
            let failure = SendFailure::new("devices", "the server tells no device of anybody in the group");
            Look::Plan(fail(step, op, &failure))
        }
    })
}
