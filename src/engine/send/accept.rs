//! A send is stored before it is accepted, in the order in which it was asked for.

use std::collections::BTreeSet;

use super::{Lane, SendOp, outgoing_key, sent_record};
use crate::{
    clock::Now,
    engine::{
        CommandError, CommandId, Engine, Job, Reply, SendRequest, address, content,
        records::{OutgoingRecord, Record},
        restrictions,
        step::{Miss, Needs, Step},
    },
    jid::Jid,
    message::MessageId,
};

/// Most viewers of a status.
const MAX_VIEWERS: usize = 8_192;

impl Engine {
    /// Stores a send; the answer leaves when it is durable.
    ///
    /// Sends are accepted in the order in which they were asked for, although some need records first.
    pub(in crate::engine) fn accept_send(&mut self, now: Now, command: CommandId, request: SendRequest) {
        if self.accepting.len() >= self.config.max_sends {
            return self.answer(command, Err(CommandError::Busy { waiting: self.accepting.len() }));
        }
        self.accepting.push_back((command, request));
        if self.accepting.len() == 1 {
            self.run_accepting(now);
        }
    }

    /// Goes on with the sends that wait to be accepted. The first one stays in the queue until it is.
    pub(in crate::engine) fn run_accepting(&mut self, now: Now) {
        while let Some((command, request)) = self.accepting.front().cloned() {
            if let Err(needs) = self.accept_one(now, command, request) {
                return self.park(Job::Accept, needs);
            }
            self.accepting.pop_front();
        }
    }

    fn accept_one(&mut self, now: Now, command: CommandId, mut request: SendRequest) -> Result<(), Needs> {
        if self.account.linked.is_none() {
            self.answer(command, Err(CommandError::NotLinked));
            return Ok(());
        }
        if self.sends.len() >= self.config.max_sends {
            self.answer(command, Err(CommandError::Busy { waiting: self.sends.len() }));
            return Ok(());
        }
        request.to = request.to.to_account();
        if let Err(error) = check_chat(&request.to).and_then(|()| check_audience(&mut request)) {
            self.answer(command, Err(error));
            return Ok(());
        }
        let id = match &request.id {
            Some(id) => id.clone(),
            None => self.next_message_id(now),
        };
        if let Some((_, waiting)) = self.accepting.front_mut() {
            // Run again, it keeps its id.
            waiting.id = Some(id.clone());
        }
        let order = self.sends.next_order();
        if let Some(op) = self.step(now, |step| accept(step, command, &request, &id, order))? {
            self.sends.insert(op);
            self.run_send(now, order);
        }
        Ok(())
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
        return if request.to.is_status_broadcast() { refused("a status needs one") } else { Ok(()) };
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

/// Stores a send unless its id is known; `None` then.
fn accept(
    step: &mut Step<'_>,
    command: CommandId,
    request: &SendRequest,
    id: &MessageId,
    order: u64,
) -> Result<Option<SendOp>, Miss> {
    let user = address::user(step, &request.to)?;
    let outgoing = outgoing_key(id.as_str());
    // Both are read before either is missed.
    let (pending, sent) = (step.record::<OutgoingRecord>(&outgoing), sent_record(step, &user, id.as_str()));
    let (pending, sent) = (pending?, sent?);
    let known = match (pending, sent) {
        (Some(pending), _) if pending.peer != 0 || !pending.to.parse().is_ok_and(|to| user.is(&to)) => {
            step.reply(command, Err(CommandError::MessageId));
            return Ok(None);
        }
        (Some(pending), _) => Some(pending.accepted_ms / 1_000),
        // What was sent and neither acknowledged nor refused was told as failed, and may be tried again.
        (None, Some((_, sent))) => Some(sent.timestamp).filter(|timestamp| *timestamp != 0),
        (None, None) => None,
    };
    if let Some(timestamp) = known {
        step.reply(command, Ok(Reply::Accepted { id: id.clone(), timestamp }));
        return Ok(None);
    }
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
    step.put(outgoing, op.to_record(&op.lane.chat, None).to_bytes());
    step.reply(command, Ok(Reply::Accepted { id: id.clone(), timestamp: step.now.unix_seconds() }));
    Ok(Some(op))
}
