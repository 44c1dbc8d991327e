//! What the embedding program asks about groups. Every request is one query and its answer; none is remembered across a lost
//! connection, because nobody knows then whether the server has done it.

use std::fmt;

use rand_core::Rng;

use super::{metadata, notices};
use crate::{
    clock::Now,
    engine::{
        CommandError, CommandId, Engine, Job, Needs, Reply, address,
        notices::SendFailure,
        queries::{Answer, Query, QueryError},
        send::{Subject, marks},
        step::{Miss, Step},
    },
    event::AddressingMode,
    jid::Jid,
    node::{Node, NodeRef},
    stanza::{
        StanzaError,
        group::{GroupInfo, Setting},
        iq::groups::{self, Member, MemberAction, MemberResult, NewGroup},
    },
};

/// A request about groups.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupRequest {
    /// All groups that we are in: [`Reply::Groups`].
    List,
    /// What is known of a group, asked for if it is not: [`Reply::Group`].
    Info(Jid),
    /// Make a group: [`Reply::Group`].
    Create(NewGroup),
    /// Add, remove, promote or demote participants: [`Reply::Members`], with a result for each.
    Members {
        /// The group.
        group: Jid,
        /// What they do.
        action: MemberAction,
        /// Who, by phone number or LID; 1 to 1,024.
        members: Vec<Jid>,
    },
    /// Leave a group: [`Reply::Done`].
    Leave(Jid),
    /// Give a group another name, 1 to 100 characters: [`Reply::Done`].
    Subject {
        /// The group.
        group: Jid,
        /// The name.
        subject: String,
    },
    /// Move a switch: [`Reply::Done`].
    Setting {
        /// The group.
        group: Jid,
        /// Which, and where to.
        setting: Setting,
    },
}

impl fmt::Debug for GroupRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List => f.write_str("List"),
            Self::Info(group) => f.debug_tuple("Info").field(&group.redacted()).finish(),
            Self::Create(new) => f.debug_struct("Create").field("participants", &new.participants.len()).finish(),
            Self::Members { group, action, members } => f
                .debug_struct("Members")
                .field("group", &group.redacted())
                .field("action", action)
                .field("members", &members.len())
                .finish(),
            Self::Leave(group) => f.debug_tuple("Leave").field(&group.redacted()).finish(),
            Self::Subject { group, .. } => f.debug_struct("Subject").field("group", &group.redacted()).finish(),
            Self::Setting { group, setting } => {
                f.debug_struct("Setting").field("group", &group.redacted()).field("setting", setting).finish()
            }
        }
    }
}

/// Most requests about groups under way at a time.
const MAX_COMMANDS: usize = 64;
/// Most participants of one request.
const MAX_MEMBERS: usize = 1_024;
/// Most characters of the name of a group.
const MAX_SUBJECT: usize = 100;

/// A request that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct GroupCommand {
    pub(crate) id: CommandId,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    List,
    Create,
    Members(Jid, MemberAction),
    Leave(Jid),
    Change(Jid),
}

/// What the server answered.
#[derive(Debug)]
pub(crate) enum GroupAnswer {
    Listed(Vec<GroupInfo>),
    Created(Box<GroupInfo>),
    Members(Jid, Vec<MemberResult>),
    /// With the code of a refusal.
    Left(Jid, Option<u32>),
    Changed(Jid),
}

impl GroupCommand {
    /// Reads the answer.
    ///
    /// # Errors
    /// [`StanzaError`].
    pub(crate) fn parse(self, node: NodeRef<'_>) -> Result<GroupAnswer, StanzaError> {
        Ok(match self.kind {
            Kind::List => GroupAnswer::Listed(groups::participating(node)?),
            Kind::Create => GroupAnswer::Created(Box::new(groups::info(node)?)),
            Kind::Members(group, action) => GroupAnswer::Members(group, groups::members(node, action)?),
            Kind::Leave(group) => GroupAnswer::Left(group, groups::left(node)?),
            Kind::Change(group) => GroupAnswer::Changed(group),
        })
    }
}

/// Commands that wait for what is known of a group.
#[derive(Debug, Default)]
pub(crate) struct GroupCommands {
    waiting: Vec<(CommandId, Jid)>,
}

impl Engine {
    /// Asks the server, or answers from what is stored.
    ///
    /// # Errors
    /// [`Needs`]: run it again with them.
    pub(in crate::engine) fn group_command(
        &mut self,
        now: Now,
        id: CommandId,
        request: &GroupRequest,
    ) -> Result<(), Needs> {
        if let Err(error) = self.may_ask(request) {
            self.answer(id, Err(error));
            return Ok(());
        }
        let (kind, node) = match request {
            GroupRequest::Info(group) => return self.group_info(now, id, group),
            GroupRequest::List => (Kind::List, groups::participating_request()),
            GroupRequest::Create(new) => (Kind::Create, new.request(&format!("{:016X}", self.rng.next_u64()))),
            GroupRequest::Members { group, action, members } => {
                let members = self.step(now, |step| addressed(step, group, members))?;
                (Kind::Members(group.clone(), *action), groups::members_request(group, *action, &members))
            }
            GroupRequest::Leave(group) => (Kind::Leave(group.clone()), groups::leave_request(group)),
            GroupRequest::Subject { group, subject } => {
                (Kind::Change(group.clone()), groups::subject_request(group, subject))
            }
            GroupRequest::Setting { group, setting } => {
                (Kind::Change(group.clone()), groups::setting_request(group, *setting))
            }
        };
        self.ask_about_groups(now, GroupCommand { id, kind }, node);
        Ok(())
    }

    fn ask_about_groups(&mut self, now: Now, command: GroupCommand, node: Node) {
        self.ask(now, Query::GroupCommand(command), node);
    }

    fn may_ask(&self, request: &GroupRequest) -> Result<(), CommandError> {
        if self.account.linked.is_none() {
            return Err(CommandError::NotLinked);
        }
        if !self.connection.is_online() {
            return Err(CommandError::NotConnected);
        }
        let asked = self.queries.count(|query| matches!(query, Query::GroupCommand(_)));
        let waiting = asked.saturating_add(self.group_commands.waiting.len());
        if waiting >= MAX_COMMANDS {
            return Err(CommandError::Busy { waiting });
        }
        check(request)
    }

    fn group_info(&mut self, now: Now, id: CommandId, group: &Jid) -> Result<(), Needs> {
        let known = self.step(now, |step| {
            let Some(known) = metadata::get(step, group)? else { return Ok(false) };
            reply_group(step, id, &known)?;
            Ok(true)
        })?;
        if !known {
            self.group_commands.waiting.push((id, group.clone()));
            self.ask_group(now, group.clone());
        }
        Ok(())
    }

    /// The server answered, or did not answer, what a group is.
    pub(in crate::engine) fn group_answered(
        &mut self,
        now: Now,
        group: Jid,
        result: Result<Box<GroupInfo>, QueryError>,
    ) {
        // What nobody asked for is not believed.
        let result = result.and_then(|info| match info.id == group && !info.participants.is_empty() {
            true => Ok(info),
            false => Err(StanzaError::Child { tag: "group", child: "participant" }.into()),
        });
        let failure = match &result {
            Ok(info) => {
                let waiting: Vec<_> =
                    self.group_commands.waiting.iter().filter(|(_, jid)| *jid == group).map(|(id, _)| *id).collect();
                let done = self.step(now, |step| {
                    metadata::store(step, info)?;
                    waiting.iter().try_for_each(|id| reply_group(step, *id, info))
                });
                if let Err(needs) = done {
                    return self.park(Job::Answer(Answer::Group(group, result)), needs);
                }
                None
            }
            Err(error) => {
                tracing::warn!(%error, group = %group.redacted(), "nothing is known of a group");
                for (id, jid) in self.group_commands.waiting.clone() {
                    if jid == group {
                        self.answer(id, Err(refusal(error)));
                    }
                }
                Some(SendFailure::new("group", &error.to_string()))
            }
        };
        self.group_commands.waiting.retain(|(_, jid)| *jid != group);
        self.resends_in_group_go_on(now, &group, failure.is_none());
        self.sends_go_on(now, &[Subject::Group(group.clone())], |op, waited| {
            if waited && op.failure.is_none() {
                op.failure.clone_from(&failure);
            }
        });
    }

    /// The server answered, or did not answer, a request about groups.
    pub(in crate::engine) fn group_command_answered(
        &mut self,
        now: Now,
        id: CommandId,
        result: Result<GroupAnswer, QueryError>,
    ) {
        let done = self.step(now, |step| match &result {
            Ok(answer) => take(step, id, answer),
            Err(error) => {
                step.reply(id, Err(refusal(error)));
                Ok(())
            }
        });
        if let Err(needs) = done {
            self.park(Job::Answer(Answer::GroupCommand(id, result)), needs);
        }
    }

    /// The connection is gone: whatever was asked is not answered any more.
    pub(in crate::engine) fn interrupt_group_commands(&mut self) {
        let asked = self.queries.group_commands();
        let waiting = std::mem::take(&mut self.group_commands.waiting).into_iter().map(|(id, _)| id);
        for id in asked.into_iter().chain(waiting) {
            self.answer(id, Err(self.interruption()));
        }
    }
}

/// Whether a request can be asked at all.
fn check(request: &GroupRequest) -> Result<(), CommandError> {
    let is_subject = |text: &str| (1..=MAX_SUBJECT).contains(&text.chars().count());
    let are_users =
        |list: &[Jid]| list.iter().all(|jid| !jid.user().is_empty() && (jid.is_pn_family() || jid.is_lid_family()));
    match request {
        GroupRequest::List => Ok(()),
        GroupRequest::Create(new) if !is_subject(&new.subject) => Err(SUBJECT),
        GroupRequest::Create(new) if new.participants.len() > MAX_MEMBERS => Err(MEMBERS),
        GroupRequest::Create(new) if !are_users(&new.participants) => Err(MEMBERS),
        GroupRequest::Create(_) => Ok(()),
        GroupRequest::Info(group)
        | GroupRequest::Members { group, .. }
        | GroupRequest::Leave(group)
        | GroupRequest::Subject { group, .. }
        | GroupRequest::Setting { group, .. }
            if !group.is_group() =>
        {
            Err(CommandError::NotAGroup(group.redacted().to_string()))
        }
        GroupRequest::Members { members, .. }
            if members.is_empty() || members.len() > MAX_MEMBERS || !are_users(members) =>
        {
            Err(MEMBERS)
        }
        GroupRequest::Subject { subject, .. } if !is_subject(subject) => Err(SUBJECT),
        _ => Ok(()),
    }
}

const SUBJECT: CommandError = CommandError::Content("the name of a group has 1 to 100 characters");
const MEMBERS: CommandError = CommandError::Content("the participants must be 1 to 1,024 users");

/// Participants as the group addresses them, as far as that is known.
fn addressed(step: &mut Step<'_>, group: &Jid, members: &[Jid]) -> Result<Vec<Member>, Miss> {
    // All are read before any is missed.
    let mode = metadata::get(step, group).map(|known| known.map(|known| known.addressing_mode));
    let people: Vec<_> = members.iter().map(|member| (member.to_account(), address::user(step, member))).collect();
    let by_lid = mode? == Some(AddressingMode::Lid);
    people
        .into_iter()
        .map(|(jid, user)| {
            let user = user?;
            Ok(match (user.lid, user.pn) {
                (Some(lid), phone_number) if by_lid => Member { jid: lid, phone_number },
                (_, Some(pn)) if !by_lid => Member { jid: pn, phone_number: None },
                _ => Member { jid, phone_number: None },
            })
        })
        .collect()
}

/// Acts on an answer and passes it on. What was changed is asked for again when it is needed, should the server not tell of
/// the change.
fn take(step: &mut Step<'_>, id: CommandId, answer: &GroupAnswer) -> Result<(), Miss> {
    match answer {
        GroupAnswer::Listed(list) => {
            metadata::store_list(step, list)?;
            let prefer = step.config.prefer;
            let groups = list.iter().map(|info| notices::object(info, prefer)).collect();
            step.reply(id, Ok(Reply::Groups(groups)));
        }
        GroupAnswer::Created(info) => {
            if !info.participants.is_empty() {
                metadata::store(step, info)?;
            }
            reply_group(step, id, info)?;
        }
        GroupAnswer::Members(group, results) => {
            metadata::forget(step, group)?;
            step.reply(id, Ok(Reply::Members(results.clone())));
        }
        GroupAnswer::Left(_, Some(code)) => {
            let error = CommandError::Refused { code: *code, text: String::new(), retry_after: None };
            step.reply(id, Err(error));
        }
        GroupAnswer::Left(group, None) => {
            metadata::remove(step, group);
            marks::rotate(step, group);
            step.reply(id, Ok(Reply::Done));
        }
        GroupAnswer::Changed(group) => {
            metadata::forget(step, group)?;
            step.reply(id, Ok(Reply::Done));
        }
    }
    Ok(())
}

fn reply_group(step: &mut Step<'_>, id: CommandId, info: &GroupInfo) -> Result<(), Miss> {
    let mut info = info.clone();
    notices::complete(step, info.participants.iter_mut().map(|participant| &mut participant.person))?;
    let object = notices::object(&info, step.config.prefer);
    step.reply(id, Ok(Reply::Group(Box::new(object))));
    Ok(())
}

/// Why a request was not carried out, as far as is known.
fn refusal(error: &QueryError) -> CommandError {
    match error {
        QueryError::Refused(refused) => CommandError::Refused {
            code: refused.code,
            text: refused.text.clone(),
            retry_after: refused.backoff.map(std::time::Duration::from_secs),
        },
        QueryError::Malformed(_) | QueryError::Pairing(_) => CommandError::Answer,
        QueryError::TimedOut => CommandError::NoAnswer,
    }
}
