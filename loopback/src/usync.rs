//! The namespace `usync`: which devices, LIDs and numbers exist (spec 03 §4.9, spec 06 §9.1).
//!
//! Answered are `devices`, `lid` and `contact`; any other protocol of the query is present in the result and says nothing
//! about anybody. A user whose devices are asked for by the hash that they have is left out: nothing is new.

use wamd::jid::Jid;
use wamd::node::{Node, NodeRef};

use crate::control::parse_number;
use crate::core::{Core, leaf};
use crate::directory::{Account, Namespace};
use crate::iq::Answer;
use crate::notices;

/// What a query asks of every user.
struct Query {
    protocols: Vec<String>,
    /// Whether contacts are to be answered by LID.
    contact_by_lid: bool,
}

impl Query {
    fn asks(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|asked| asked == protocol)
    }
}

/// Answers a usync query, user by user in the order of the question.
pub(crate) fn query(core: &mut Core, _: crate::directory::Address, node: NodeRef<'_>) -> Answer {
    let Some(usync) = node.child("usync") else { return Answer::error(400, "bad-request") };
    let Some(query) = usync.child("query") else { return Answer::error(400, "bad-request") };
    let contact = query.child("contact").and_then(|contact| contact.attr_str("addressing_mode"));
    let query = Query {
        protocols: query.children().map(|protocol| protocol.tag().to_owned()).collect(),
        contact_by_lid: contact.as_deref() == Some("lid"),
    };
    let users = usync.child("list").into_iter().flat_map(|list| list.children());
    let users = users.filter(|user| user.is("user")).filter_map(|user| answer(core, &query, user));
    let list = Node::new("list").children(users);
    let result = Node::new("result").children(query.protocols.iter().map(|name| Node::new(name.as_str())));
    let answer = ["sid", "mode", "context", "index", "last"]
        .into_iter()
        .fold(Node::new("usync"), |answer, name| answer.attr_opt(name, usync.attr_str(name)));
    Answer::child(answer.child(result).child(list))
}

/// One `<user>` of the answer; `None` when the question names nobody, or all is known already.
fn answer(core: &Core, query: &Query, user: NodeRef<'_>) -> Option<Node> {
    let contact = user.child("contact").and_then(|contact| contact.text().map(|text| text.into_owned()));
    let (jid, account) = match user.attr_jid("jid") {
        Some(jid) => {
            let account = core.directory.resolve(&jid).and_then(|address| core.directory.account(address.number));
            (jid, account)
        }
        None => by_number(core, query, contact.as_deref()?)?,
    };
    let mut node = Node::new("user").attr("jid", &jid).attr_opt("pn_jid", user.attr_jid("pn_jid"));
    if query.asks("devices") {
        let known = user.child("devices").and_then(|devices| devices.attr_str("device_hash"));
        let namespace = Namespace::of(&jid).unwrap_or(Namespace::Pn);
        let hash = account.map(|account| notices::device_hash(account, namespace));
        if known.is_some() && known.as_deref() == hash.as_deref() {
            return None;
        }
        node = node.child(devices(core, account, hash));
    }
    if query.asks("lid") {
        let lid = account.and_then(|account| account.alias(Namespace::Lid));
        node = node.child_opt(lid.map(|lid| Node::new("lid").attr("val", lid)));
    }
    if query.asks("contact") {
        let kind = if account.is_some() { "in" } else { "out" };
        let answer = Node::new("contact").attr("type", kind);
        node = node.child(match contact {
            Some(asked) => answer.bytes(asked),
            None => answer,
        });
    }
    Some(node)
}

/// The account of a number as people write it: with `+`, blanks and dashes.
fn by_number<'a>(core: &'a Core, query: &Query, text: &str) -> Option<(Jid, Option<&'a Account>)> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let account = parse_number(&digits).and_then(|number| core.directory.account(number));
    let namespace = if query.contact_by_lid { Namespace::Lid } else { Namespace::Pn };
    match account {
        Some(account) => Some((account.jid(namespace, 0), Some(account))),
        None if digits.is_empty() => None,
        None => Some((Jid::pn(digits), None)),
    }
}

/// The device list with its hash and its signed key indexes; an empty list for nobody.
fn devices(core: &Core, account: Option<&Account>, hash: Option<String>) -> Node {
    let Some(account) = account else { return Node::new("devices").child(Node::new("device-list")) };
    let device = |(id, index): (u16, Option<u32>)| {
        let hosted = account.devices.get(&id).is_some_and(|device| device.hosted);
        Node::new("device").attr("id", id).attr_opt("key-index", index).attr_opt("is_hosted", hosted.then_some(true))
    };
    let list = Node::new("device-list").attr_opt("hash", hash).children(account.device_list().map(device));
    let timestamp = core.now.unix_seconds();
    let indexes = leaf("key-index-list", account.key_index_list(timestamp)).attr("ts", timestamp);
    Node::new("devices").child(list).child(indexes)
}
