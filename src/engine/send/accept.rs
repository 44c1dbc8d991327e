//! A send is stored before it is accepted, in the order in which it was asked for.

use super::{Lane, SendOp, outgoing_key, sent_record};
use crate::{
    clock::Now,
    engine::{
        CommandError, CommandId, Content, Engine, Job, Reply, SendRequest, address,
        records::{OutgoingRecord, Record},
        step::{Miss, Needs, Step},
    },
    message::{MessageId, build},
    proto::Message as _,
};

/// Longest text that is sent, in characters.
const MAX_TEXT: usize = 65_536;

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
        let is_user = request.to.is_pn_family() || request.to.is_lid_family();
        if request.to.user().is_empty() || !is_user || !request.to.has_text_form() {
            self.answer(command, Err(CommandError::NotAUser(request.to.redacted().to_string())));
            return Ok(());
        }
        if let Err(error) = check(&request.content) {
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

fn check(content: &Content) -> Result<(), CommandError> {
    match content {
        Content::Text(text) if text.is_empty() => Err(CommandError::Content("the text is empty")),
        Content::Text(text) if text.chars().count() > MAX_TEXT => {
            Err(CommandError::Content("the text has more than 65,536 characters"))
        }
        Content::Text(_) => Ok(()),
    }
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
    let Content::Text(text) = &request.content;
    let mut message = build::text(text.as_str());
    build::ensure_secret(&mut message, step.rng);
    let op = SendOp {
        to: request.to.clone(),
        lane: Lane::of_user(&user),
        client_ref: request.client_ref.clone(),
        ..SendOp::new(order, id.clone(), message.encode_to_vec().into(), step.now)
    };
    step.put(outgoing, op.to_record(&op.lane.chat, None).to_bytes());
    step.reply(command, Ok(Reply::Accepted { id: id.clone(), timestamp: step.now.unix_seconds() }));
    Ok(Some(op))
}
