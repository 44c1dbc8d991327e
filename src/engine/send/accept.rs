//! A send is stored before it is accepted, in the order in which it was asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Lane, Plan, SendOp,
    fanout::Fanout,
    outgoing_key, plan,
    seal::{self, Sealed},
    sent_record,
};
use crate::{
    clock::Now,
    engine::{
        CommandError, CommandId, Content, Engine, Job, Reply, SendRequest,
        address::{self, User},
        content,
        records::{OutgoingRecord, Record},
        restrictions,
        step::{Miss, Needs, Step},
    },
    jid::Jid,
    message::{MessageId, StanzaType, classify},
};

/// Most viewers of a status.
const MAX_VIEWERS: usize = 8_192;

/// A send that waits to be accepted.
pub(in crate::engine) struct Waiting {
    pub(in crate::engine) command: CommandId,
    request: SendRequest,
    /// The id that it got here. Nobody else can have given it out.
    id: Option<MessageId>,
}

/// What a send needs to be encrypted in the step that accepts it.
struct AtOnce<'a> {
    /// The sends that are under way.
    ops: &'a BTreeMap<u64, SendOp>,
    /// Whom the last message to this chat was for.
    fanout: Option<Arc<Fanout>>,
}

impl Engine {
    /// Stores a send; the answer leaves when it is durable.
    ///
    /// Sends are accepted in the order in which they were asked for, although some need records first.
    pub(in crate::engine) fn accept_send(&mut self, now: Now, command: CommandId, request: SendRequest) {
        if self.accepting.len() >= self.config.max_sends {
            return self.answer(command, Err(CommandError::Busy { waiting: self.accepting.len() }));
        }
        self.accepting.push_back(Waiting { command, request, id: None });
        if self.accepting.len() == 1 {
            self.run_accepting(now);
        }
    }

    /// Goes on with the sends that wait to be accepted. The first one stays in the queue until it is.
    pub(in crate::engine) fn run_accepting(&mut self, now: Now) {
        while let Some(mut waiting) = self.accepting.pop_front() {
            if let Err(needs) = self.accept_one(now, &mut waiting) {
                self.accepting.push_front(waiting);
                return self.park(Job::Accept, needs);
            }
        }
    }

    fn accept_one(&mut self, now: Now, waiting: &mut Waiting) -> Result<(), Needs> {
        let Waiting { command, request, .. } = waiting;
        let command = *command;
        if self.account.linked.is_none() {
            self.answer(command, Err(CommandError::NotLinked));
            return Ok(());
        }
        if self.sends.len() >= self.config.max_sends {
            self.answer(command, Err(CommandError::Busy { waiting: self.sends.len() }));
            return Ok(());
        }
        request.to = request.to.to_account();
        if let Err(error) = check_chat(&request.to).and_then(|()| check_audience(request)) {
            self.answer(command, Err(error));
            return Ok(());
        }
        if request.id.is_none() && waiting.id.is_none() {
            // Run again, it keeps its id.
            waiting.id = Some(self.next_message_id(now));
        }
        let order = self.sends.next_order();
        match self.accept_at_once(now, waiting, order) {
            Some((op, plan)) => drop(self.planned(now, op, Ok(plan))),
            None => {
                if let Some((op, _)) = self.step(now, |step| accept(step, waiting, order, None))? {
                    self.sends.insert(op);
                    self.run_send(now, order);
                }
            }
        }
        Ok(())
    }

    /// Accepts a send and encrypts it in the same step, if that can be done with what is at hand and nothing is in its way.
    /// `None`: nothing has happened.
    fn accept_at_once(&mut self, now: Now, waiting: &Waiting, order: u64) -> Option<(SendOp, Plan)> {
        if !self.connection.is_online() {
            return None;
        }
        let request = &waiting.request;
        let viewers = request.audience.as_ref().map_or(&[][..], |audience| &audience.viewers);
        let fanout = self.sends.memo.get(now, self.config.device_list_age.as_secs(), &request.to, viewers);
        if fanout.as_ref().is_some_and(|fanout| !seal::is_done_at_once(fanout)) {
            return None;
        }
        let ops = std::mem::take(&mut self.sends.ops);
        let accepted = self.step(now, |step| match accept(step, waiting, order, Some(AtOnce { ops: &ops, fanout }))? {
            Some((op, Some(plan))) => Ok((op, plan)),
            // Known already, refused, or something else comes first.
            _ => Err(Miss),
        });
        self.sends.ops = ops;
        let (op, plan) = accepted.ok()?;
        self.sends.next_order = self.sends.next_order.max(order.saturating_add(1));
        Some((op, plan))
    }
}

/// Whether messages can be sent to such a chat.
fn check_chat(to: &Jid) -> Result<(), CommandError> {
    let is_user = (to.is_pn_family() || to.is_lid_family()) && to.has_text_form();
    match is_user && !to.is_server_only() || to.is_group() || to.is_status_broadcast() {
        true => Ok(()),
        false => Err(CommandError::NotAChat(to.redacted().to_string())),
    }
}

/// Whether there is an audience, and only where there must be one. Each viewer is named once.
fn check_audience(request: &mut SendRequest) -> Result<(), CommandError> {
    let refused = |why| Err(CommandError::Audience(why));
    let Some(audience) = &mut request.audience else {
        let is_post = request.to.is_status_broadcast() && !is_reaction(&request.content);
        return if is_post { refused("a status needs one") } else { Ok(()) };
    };
    if !request.to.is_status_broadcast() {
        return refused("the message is no status");
    }
    let viewers: BTreeSet<Jid> = audience.viewers.iter().map(Jid::to_account).collect();
    if viewers.is_empty() || viewers.len() > MAX_VIEWERS {
        return refused("1 to 8,192 viewers are possible");
    }
    if !viewers
        .iter()
        .all(|jid| !jid.is_server_only() && jid.has_text_form() && (jid.is_pn_family() || jid.is_lid_family()))
    {
        return refused("viewers are users");
    }
    audience.viewers = viewers.into_iter().collect();
    Ok(())
}

/// Whether a content goes to the author of what it is about alone.
fn is_reaction(content: &Content) -> bool {
    match content {
        Content::Reaction { .. } => true,
        Content::Message(message) => classify(message).stanza_type == StanzaType::Reaction,
        _ => false,
    }
}

/// Stores a send unless its id is known; `None` then. With `at_once` it is planned, too, unless something else comes first.
fn accept(
    step: &mut Step<'_>,
    waiting: &Waiting,
    order: u64,
    at_once: Option<AtOnce<'_>>,
) -> Result<Option<(SendOp, Option<Plan>)>, Miss> {
    let Waiting { command, request, .. } = waiting;
    let command = *command;
    let user = address::user(step, &request.to)?;
    let id = match (&request.id, &waiting.id) {
        (Some(id), _) => match known(step, &user, id)? {
            None => id,
            Some(reply) => {
                step.reply(command, reply);
                return Ok(None);
            }
        },
        (None, Some(id)) => id,
        (None, None) => return Ok(None),
    };
    let message = match restrictions::check(step, &user)? {
        Ok(()) => content::compose(step, &user, id, &request.content)?,
        Err(error) => Err(error),
    };
    let message = match message {
        Ok(message) => message,
        Err(error) => {
            step.reply(command, Err(error));
            return Ok(None);
        }
    };
    let audience = request.audience.as_ref();
    let op = SendOp {
        to: request.to.clone(),
        lane: Lane::of_user(&user),
        viewers: audience.map(|audience| audience.viewers.as_slice().into()).unwrap_or_default(),
        setting: audience.map(|audience| audience.setting),
        client_ref: request.client_ref.clone(),
        ..SendOp::new(order, id.clone(), &message, step.now)
    };
    let plan = match at_once {
        Some(AtOnce { ops, fanout }) if !op.must_wait(ops) => plan_at_once(step, &op, fanout.as_deref())?,
        _ => None,
    };
    // With the stanza, if there is one, it is stored already.
    if !matches!(plan, Some(Plan::Sent(_) | Plan::Distributed(_) | Plan::Failed)) {
        step.put(outgoing_key(id.as_str()), op.to_record(&op.lane.chat, None).to_bytes());
    }
    step.reply(command, Ok(Reply::Accepted { id: id.clone(), timestamp: step.now.unix_seconds() }));
    Ok(Some((op, plan)))
}

/// What a send needs next; `None` if it must be found out first whom it is for.
fn plan_at_once(step: &mut Step<'_>, op: &SendOp, fanout: Option<&Fanout>) -> Result<Option<Plan>, Miss> {
    if !op.is_fanout() {
        return plan(step, op).map(Some);
    }
    Ok(match fanout.map(|fanout| seal::seal(step, op, fanout)).transpose()? {
        Some(Sealed::Plan(plan)) => Some(plan),
        Some(Sealed::OtherKey) | None => None,
    })
}

/// The answer to a send whose id the caller gave before; `None` for a new one.
fn known(step: &mut Step<'_>, user: &User, id: &MessageId) -> Result<Option<Result<Reply, CommandError>>, Miss> {
    // Both are read before either is missed.
    let pending = step.record::<OutgoingRecord>(&outgoing_key(id.as_str()));
    let sent = sent_record(step, user, id.as_str());
    let timestamp = match (pending?, sent?) {
        (Some(pending), _) if pending.peer != 0 || !pending.to.parse().is_ok_and(|to| user.is(&to)) => {
            return Ok(Some(Err(CommandError::MessageId)));
        }
        (Some(pending), _) => Some(pending.accepted_ms / 1_000),
        // What was sent and neither acknowledged nor refused was told as failed, and may be tried again.
        (None, Some((_, sent))) => Some(sent.timestamp).filter(|timestamp| *timestamp != 0),
        (None, None) => None,
    };
    Ok(timestamp.map(|timestamp| Ok(Reply::Accepted { id: id.clone(), timestamp })))
}
