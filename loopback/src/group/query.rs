//! The namespace `w:g2`: queries about groups, and changes of them (spec 06 §7, §8). Only members are answered.

use wamd::jid::{Jid, Server};
use wamd::node::{Node, NodeRef};

use super::change::{self, Creation, FORBIDDEN, GroupChange, NOT_FOUND, Outcome};
use super::node::{self, Detail};
use super::{Group, Kind, Settings, community};
use crate::core::Core;
use crate::directory::{Address, Namespace};
use crate::iq::Answer;
use crate::notices;

/// Answers a query or makes a change.
pub(crate) fn handle(core: &mut Core, address: Address, node: NodeRef<'_>) -> Answer {
    let by = address.number;
    let Some(request) = node.first_child() else { return refuse(NOT_FOUND) };
    let is_set = node.attr_str("type").as_deref() == Some("set");
    let group = node.attr_jid("to").filter(Jid::is_group).filter(|jid| !jid.user().is_empty());
    let answer = match (group, is_set) {
        (None, false) => ask_server(core, by, request),
        (None, true) => order_server(core, by, request),
        (Some(jid), is_set) => match core.groups.get(&jid) {
            None => Err(NOT_FOUND),
            Some(group) if group.rank(by).is_none() => Err(FORBIDDEN),
            Some(group) if is_set => {
                let id = group.id.clone();
                order_group(core, &id, by, request)
            }
            Some(group) => ask_group(core, group, request),
        },
    };
    answer.unwrap_or_else(refuse)
}

/// Questions to the server about several groups.
fn ask_server(core: &Core, by: u64, request: NodeRef<'_>) -> Result<Answer, u16> {
    match request.tag() {
        "participating" => {
            let detail = Detail {
                participants: request.child("participants").is_some(),
                description: request.child("description").is_some(),
            };
            let own = core.groups.iter().filter(|group| group.rank(by).is_some());
            Ok(Answer::child(Node::new("groups").children(own.map(|group| node::group(core, group, detail)))))
        }
        "query" => {
            let one = |asked: NodeRef<'_>| {
                let jid = asked.attr_jid("jid")?;
                let refused = |code: u16| Node::new("group").attr("id", jid.user()).attr("error", code);
                Some(match core.groups.get(&jid) {
                    None => refused(NOT_FOUND),
                    Some(group) if group.rank(by).is_none() => refused(FORBIDDEN),
                    Some(group) => node::group(core, group, Detail::ALL),
                })
            };
            Ok(Answer::child(Node::new("groups").children(request.children_named("group").filter_map(one))))
        }
        _ => Err(NOT_FOUND),
    }
}

/// Orders to the server: a new group, and leaving some.
fn order_server(core: &mut Core, by: u64, request: NodeRef<'_>) -> Result<Answer, u16> {
    match request.tag() {
        "create" => create(core, by, request),
        "leave" => {
            let mut left = Vec::new();
            for asked in request.children_named("group") {
                let Some(jid) = asked.attr_jid("id").or_else(|| asked.attr_jid("jid")) else { continue };
                let outcome = change::apply(core, jid.user(), by, GroupChange::Leave);
                left.push(Node::new("group").attr("id", &jid).attr_opt("error", outcome.err()));
            }
            Ok(Answer::child(Node::new("leave").children(left)))
        }
        _ => Err(NOT_FOUND),
    }
}

/// Makes a group; participants that do not exist stand in the answer with an error.
fn create(core: &mut Core, by: u64, request: NodeRef<'_>) -> Result<Answer, u16> {
    let (mut members, mut unknown) = (Vec::new(), Vec::new());
    for jid in jids(request) {
        match core.directory.resolve(&jid) {
            Some(address) => members.push(address.number),
            None => unknown.push(Node::new("participant").attr("jid", jid).attr("error", NOT_FOUND)),
        }
    }
    let text = |tag: &str| request.child(tag).and_then(|child| child.text());
    let settings = Settings {
        announcement: request.child("announcement").is_some(),
        locked: request.child("locked").is_some(),
        all_add: text("member_add_mode").as_deref() == Some("all_member_add"),
        approval: request.child("membership_approval_mode").is_some_and(approves),
        ephemeral: request.child("ephemeral").and_then(expiration).unwrap_or(0),
    };
    let parent = request.child("linked_parent").and_then(|parent| parent.attr_jid("jid"));
    let creation = Creation {
        subject: request.attr_str("subject").unwrap_or_default().into_owned(),
        members,
        mode: core.config.group_mode.namespace(),
        settings,
        kind: if request.child("parent").is_some() { Kind::Community } else { Kind::Plain },
        key: request.attr_str("key").filter(|key| key.len() <= MAX_KEY).map(std::borrow::Cow::into_owned),
    };
    let id = change::create(core, by, creation)?;
    if let Some(parent) = parent {
        community::link(core, parent.user(), by, &Jid::new(&id, Server::Group))?;
    }
    let group = core.groups.by_id(&id).ok_or(NOT_FOUND)?;
    Ok(Answer::child(node::group(core, group, Detail::ALL).children(unknown)))
}

/// Questions to a group.
fn ask_group(core: &Core, group: &Group, request: NodeRef<'_>) -> Result<Answer, u16> {
    match request.tag() {
        "query" => {
            let known = request.attr_str("phash").is_some_and(|phash| *phash == notices::group_hash(core, group));
            let answer = (!known).then(|| node::group(core, group, Detail::ALL));
            Ok(answer.map_or_else(Answer::empty, Answer::child))
        }
        "sub_groups" if group.kind == Kind::Community => Ok(Answer::child(community::list(core, &group.id))),
        "linked_groups_participants" if group.kind == Kind::Community => {
            Ok(Answer::child(community::participants(core, group)))
        }
        "query_linked" => {
            let jid = request.attr_jid("jid").ok_or(NOT_FOUND)?;
            let linked = core.groups.get(&jid).ok_or(NOT_FOUND)?;
            let child_of =
                |one: &Group, other: &Group| matches!(&one.kind, Kind::Sub { parent, .. } if *parent == other.id);
            if !child_of(linked, group) && !child_of(group, linked) {
                return Err(NOT_FOUND);
            }
            let detail = Detail { participants: false, description: true };
            Ok(Answer::child(Node::new("linked_group").child(node::group(core, linked, detail))))
        }
        _ => Err(NOT_FOUND),
    }
}

/// Orders to a group.
fn order_group(core: &mut Core, id: &str, by: u64, request: NodeRef<'_>) -> Result<Answer, u16> {
    let tag = request.tag();
    match tag {
        "links" | "unlink" => return links(core, id, by, request),
        "delete_parent" => return community::delete(core, id, by).map(|()| Answer::empty()),
        _ => {}
    }
    let change = read(request).ok_or(NOT_FOUND)?;
    let outcomes = change::apply(core, id, by, change)?;
    if outcomes.is_empty() {
        return Ok(Answer::empty());
    }
    let group = core.groups.by_id(id).ok_or(NOT_FOUND)?;
    let one = |outcome: Outcome| match outcome.number {
        Some(number) => node::participant(core, group, number, group.rank(number)).attr_opt("error", outcome.error),
        None => Node::new("participant").attr("jid", outcome.jid).attr_opt("error", outcome.error),
    };
    Ok(Answer::child(Node::new(tag).children(outcomes.into_iter().map(one))))
}

/// The change that a request asks for; `None` for one that is not known.
fn read(request: NodeRef<'_>) -> Option<GroupChange> {
    let participants = || jids(request).collect();
    Some(match request.tag() {
        "add" => GroupChange::Add { participants: participants() },
        "remove" => GroupChange::Remove {
            participants: participants(),
            linked_groups: request.attr_str("linked_groups").as_deref() == Some("true"),
        },
        "promote" => GroupChange::Promote { participants: participants() },
        "demote" => GroupChange::Demote { participants: participants() },
        "subject" => GroupChange::Subject { subject: request.text().unwrap_or_default().into_owned() },
        "description" => {
            let text = |name: &str| request.attr_str(name).map(std::borrow::Cow::into_owned);
            let deleted = request.attr_str("delete").as_deref() == Some("true");
            let body = request.child("body").and_then(|body| body.text()).filter(|_| !deleted);
            let body = body.map(std::borrow::Cow::into_owned);
            GroupChange::Description { id: text("id"), prev: text("prev"), body }
        }
        "announcement" => GroupChange::Announcement { on: true },
        "not_announcement" => GroupChange::Announcement { on: false },
        "locked" => GroupChange::Locked { on: true },
        "unlocked" => GroupChange::Locked { on: false },
        "member_add_mode" => GroupChange::AllMemberAdd { on: request.text().as_deref() == Some("all_member_add") },
        "membership_approval_mode" => GroupChange::Approval { on: approves(request) },
        "ephemeral" => GroupChange::Ephemeral { seconds: expiration(request)? },
        "not_ephemeral" => GroupChange::Ephemeral { seconds: 0 },
        _ => return None,
    })
}

/// Links groups to a community, or ends that.
fn links(core: &mut Core, id: &str, by: u64, request: NodeRef<'_>) -> Result<Answer, u16> {
    let unlink = request.tag() == "unlink";
    let link = request.child("link").filter(|_| !unlink).unwrap_or(request);
    let mut answers = Vec::new();
    for jid in link.children_named("group").filter_map(|group| group.attr_jid("jid")) {
        let outcome = if unlink { community::unlink(core, id, by, &jid) } else { community::link(core, id, by, &jid) };
        answers.push(Node::new("group").attr("jid", jid).attr_opt("error", outcome.err()));
    }
    let kind = if unlink { "unlink_type" } else { "link_type" };
    let node = Node::new(link.tag().to_owned()).attr(kind, "sub_group").children(answers);
    Ok(Answer::child(if unlink { node } else { Node::new("links").child(node) }))
}

fn jids<'a>(request: NodeRef<'a>) -> impl Iterator<Item = Jid> + use<'a> {
    let named = request.children_named("participant").filter_map(|participant| participant.attr_jid("jid"));
    named.filter(|jid| Namespace::of(jid).is_some())
}

fn approves(mode: NodeRef<'_>) -> bool {
    mode.child("group_join").is_some_and(|join| join.attr_str("state").as_deref() == Some("on"))
}

fn expiration(node: NodeRef<'_>) -> Option<u32> {
    node.attr_u64("expiration").and_then(|seconds| u32::try_from(seconds).ok())
}

fn refuse(code: u16) -> Answer {
    Answer::error(code, crate::stanza::error_text(code))
}

/// Keys of new groups are 16 hex digits.
const MAX_KEY: usize = 64;
