//! Queries of a logged-in device: one table of what is answered and how (spec 01 §7.4). Anything else gets error 404.

use wamd::node::{Node, NodeRef};

use crate::ConnId;
use crate::core::Core;
use crate::directory::Address;
use crate::{group, keys, login, notices, stanza, tokens, usync};

/// What a query is answered with, and what happens once the answer is out.
pub(crate) struct Answer {
    body: Result<Vec<Node>, (u16, &'static str)>,
    after: Option<fn(&mut Core, ConnId, Address)>,
}

impl Answer {
    pub(crate) const fn empty() -> Self {
        Self { body: Ok(Vec::new()), after: None }
    }

    pub(crate) fn child(node: Node) -> Self {
        Self { body: Ok(vec![node]), after: None }
    }

    pub(crate) const fn error(code: u16, text: &'static str) -> Self {
        Self { body: Err((code, text)), after: None }
    }

    pub(crate) fn then(self, after: fn(&mut Core, ConnId, Address)) -> Self {
        Self { after: Some(after), ..self }
    }
}

type Handler = fn(&mut Core, Address, NodeRef<'_>) -> Answer;

/// Namespace, first child (empty: any or none), handler. The first row that fits answers.
const TABLE: &[(&str, &str, Handler)] = &[
    ("encrypt", "count", keys::count),
    ("encrypt", "digest", keys::digest),
    ("encrypt", "key", keys::fetch),
    ("encrypt", "rotate", keys::rotate),
    ("encrypt", "identity", keys::upload),
    ("encrypt", "registration", keys::upload),
    ("encrypt", "list", keys::upload),
    ("encrypt", "skey", keys::upload),
    ("passive", "active", |_, _, _| Answer::empty().then(login::deliver_backlog)),
    ("passive", "passive", |_, _, _| Answer::empty().then(login::hold)),
    ("w:p", "", |_, _, _| Answer::empty()),
    ("urn:xmpp:ping", "", |_, _, _| Answer::empty()),
    ("usync", "usync", usync::query),
    ("abt", "props", |_, _, _| Answer::child(props())),
    ("blocklist", "", |_, _, _| Answer::child(Node::new("list").attr("dhash", "none"))),
    ("privacy", "tokens", tokens::issue),
    ("privacy", "", |_, _, _| Answer::child(privacy())),
    ("w:sync:app:state", "sync", app_state),
    ("urn:xmpp:whatsapp:dirty", "clean", |_, _, _| Answer::empty()),
    ("urn:xmpp:whatsapp:push", "", |_, _, _| Answer::empty()),
    ("w:stats", "", |_, _, _| Answer::empty()),
    ("disappearing_mode", "", |_, _, _| Answer::empty()),
    ("w:m", "media_conn", media_conn),
    ("w:g2", "", group::query::handle),
    ("md", "remove-companion-device", |core, address, node| {
        match node.child("remove-companion-device").and_then(|remove| remove.attr_jid("jid")) {
            Some(jid) if core.directory.resolve(&jid) == Some(address) => Answer::empty().then(notices::remove),
            _ => Answer::error(403, "forbidden"),
        }
    }),
];

/// Answers a query. Answers of the client to queries of the server need nothing.
pub(crate) fn handle(core: &mut Core, id: ConnId, address: Address, node: NodeRef<'_>) {
    if !matches!(node.attr_str("type").as_deref(), Some("get" | "set")) {
        return stanza::pong(core, id, node);
    }
    let namespace = node.attr_str("xmlns").unwrap_or_default();
    if let Some(refusal) = core.faults.take_query_refusal(address, &namespace) {
        if let Some(refusal) = refusal {
            core.send(id, &stanza::refused(node, refusal));
        }
        return;
    }
    let child = node.first_child();
    let child = child.map_or("", |child| child.tag());
    let row = TABLE.iter().find(|row| row.0 == &*namespace && (row.1.is_empty() || row.1 == child));
    let answer = match row {
        Some((_, _, handler)) => core.hold(|core| handler(core, address, node)),
        None => Answer::error(404, "item-not-found"),
    };
    let reply = match answer.body {
        Ok(children) => stanza::result(node).children(children),
        Err((code, text)) => stanza::iq_error(node, code, text),
    };
    core.send(id, &reply);
    core.release();
    if let Some(after) = answer.after {
        after(core, id, address);
    }
}

fn props() -> Node {
    Node::new("props")
        .attr("protocol", "1")
        .attr("ab_key", "loopback")
        .attr("hash", "loopback")
        .attr("refresh", "86400")
        .attr("refresh_id", "0")
}

fn privacy() -> Node {
    const SETTINGS: [(&str, &str); 8] = [
        ("readreceipts", "all"),
        ("last", "all"),
        ("online", "all"),
        ("profile", "all"),
        ("status", "contacts"),
        ("groupadd", "all"),
        ("calladd", "all"),
        ("messages", "all"),
    ];
    Node::new("privacy")
        .children(SETTINGS.iter().map(|(name, value)| Node::new("category").attr("name", *name).attr("value", *value)))
}

/// Every collection is empty, and patches are refused: app state is not kept here.
fn app_state(_: &mut Core, _: Address, node: NodeRef<'_>) -> Answer {
    let Some(sync) = node.child("sync") else { return Answer::error(400, "bad-request") };
    let collections = sync.children_named("collection").map(|collection| {
        let name = collection.attr_str("name").unwrap_or_default();
        let answer = Node::new("collection").attr("name", name);
        if collection.child("patch").is_some() {
            return answer.attr("type", "error").child(stanza::error(405, "not-allowed"));
        }
        answer.attr("version", "0")
    });
    Answer::child(Node::new("sync").children(collections))
}

fn media_conn(core: &mut Core, _: Address, _: NodeRef<'_>) -> Answer {
    let host = Node::new("host").attr("hostname", core.config.media_host.as_str());
    let conn = Node::new("media_conn")
        .attr("auth", "loopback")
        .attr("ttl", "300")
        .attr("auth_ttl", "21600")
        .attr("max_buckets", "12");
    Answer::child(conn.child(host))
}
