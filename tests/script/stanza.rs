//! Stanzas put together from the words of the protocol, as a script says.

use wamd::{Jid, node::Node};

use super::Script;

/// Values that mean something now.
pub(crate) struct Words {
    /// Devices and accounts of both sides, by phone number and LID.
    pub(crate) jids: Vec<Jid>,
    /// Message ids.
    pub(crate) ids: Vec<String>,
}

/// The stanzas that the server sends, the likely ones first.
const TAGS: &[&str] = &[
    "message",
    "receipt",
    "ack",
    "iq",
    "notification",
    "ib",
    "success",
    "failure",
    "stream:error",
    "call",
    "presence",
    "chatstate",
    "xmlstreamend",
    "stream:features",
];
const CHILDREN: &[&str] = &[
    "enc",
    "participants",
    "to",
    "list",
    "item",
    "error",
    "retry",
    "registration",
    "keys",
    "identity",
    "skey",
    "key",
    "id",
    "value",
    "signature",
    "type",
    "device-identity",
    "usync",
    "user",
    "devices",
    "device-list",
    "device",
    "key-index-list",
    "count",
    "dirty",
    "offline",
    "offline_preview",
    "edge_routing",
    "routing_info",
    "thread_metadata",
    "conflict",
    "pair-device",
    "pair-success",
    "ref",
    "platform",
    "biz",
    "client-props",
    "unavailable",
    "plaintext",
    "add",
    "remove",
    "update",
    "encrypt",
    "ping",
    "meta",
    "bot",
    "reporting",
    "query",
    "result",
    "lid",
    "hash",
    "tokens",
    "token",
];
const ATTRIBUTES: &[&str] = &[
    "id",
    "from",
    "type",
    "to",
    "participant",
    "recipient",
    "t",
    "class",
    "offline",
    "v",
    "count",
    "xmlns",
    "code",
    "reason",
    "edit",
    "notify",
    "category",
    "sender_lid",
    "sender_pn",
    "participant_pn",
    "participant_lid",
    "recipient_pn",
    "peer_recipient_lid",
    "jid",
    "lid",
    "value",
    "key-index",
    "is_hosted",
    "error",
    "phash",
    "addressing_mode",
    "mediatype",
    "decrypt-fail",
    "expire",
    "location",
    "backoff",
    "text",
    "display_name",
    "push",
    "retry",
    "refresh_lid",
    "hash",
    "ts",
    "username",
    "name",
    "companion_enc_static",
    "timestamp",
];
const VALUES: &[&str] = &[
    "",
    "0",
    "1",
    "2",
    "3",
    "99",
    "400",
    "401",
    "403",
    "404",
    "405",
    "406",
    "409",
    "429",
    "463",
    "475",
    "479",
    "487",
    "500",
    "503",
    "515",
    "516",
    "4294967296",
    "18446744073709551616",
    "-1",
    "1716894200",
    "get",
    "set",
    "result",
    "error",
    "msg",
    "pkmsg",
    "skmsg",
    "msmsg",
    "frskmsg",
    "text",
    "media",
    "pay",
    "read",
    "read-self",
    "played",
    "sender",
    "inactive",
    "peer_msg",
    "retry",
    "enc_rekey_retry",
    "hist_sync",
    "server-error",
    "delivery",
    "message",
    "receipt",
    "notification",
    "call",
    "encrypt",
    "devices",
    "account_sync",
    "w:gp2",
    "contacts",
    "picture",
    "server_sync",
    "privacy_token",
    "trusted_contact",
    "mex",
    "md",
    "urn:xmpp:ping",
    "urn:xmpp:whatsapp:dirty",
    "device_removed",
    "replaced",
    "peer",
    "lid",
    "pn",
    "true",
    "false",
    "hide",
    "s.whatsapp.net",
    "status@broadcast",
    "12036304@g.us",
    "1@broadcast",
    "1@newsletter",
    "15550000009@s.whatsapp.net",
    "100000000000009@lid",
    "15550000001:77@s.whatsapp.net",
    "15550000002:99@hosted",
    "13135550002@bot",
];

/// A stanza.
pub(crate) fn build(script: &mut Script<'_>, words: &Words) -> Node {
    node(script, words, TAGS, 0)
}

fn node(script: &mut Script<'_>, words: &Words, tags: &[&'static str], depth: u8) -> Node {
    let mut node = Node::new(tags[script.pick(tags.len())]);
    if depth == 0 {
        // Most stanzas are dropped at once without these.
        node = node.attr("id", text(script, words)).attr("from", jid(script, words));
    }
    for _ in 0..script.pick(6) {
        let name = ATTRIBUTES[script.pick(ATTRIBUTES.len())];
        node = match script.byte() % 2 {
            0 => node.attr(name, jid(script, words)),
            _ => node.attr(name, text(script, words)),
        };
    }
    match script.byte() % 4 {
        0 | 1 if depth < 4 => {
            for _ in 0..=script.pick(4) {
                node = node.child(self::node(script, words, CHILDREN, depth + 1));
            }
            node
        }
        2 => node.bytes(script.bytes().to_vec()),
        _ => node,
    }
}

/// An address, most often a known one.
pub(crate) fn jid(script: &mut Script<'_>, words: &Words) -> Jid {
    let choice = usize::from(script.byte());
    match words.jids.get(choice % 16) {
        Some(jid) if choice < 128 => jid.clone(),
        _ => match choice % 8 {
            0 => Jid::whatsapp_server(),
            1 => Jid::pn("15550000009"),
            2 => Jid::lid("100000000000009").with_device(3),
            3 => words.jids.first().map_or_else(Jid::whatsapp_server, |jid| jid.with_device(7)),
            _ => text(script, words).parse().unwrap_or_else(|_| Jid::whatsapp_server()),
        },
    }
}

/// A text, most often one that means something.
pub(crate) fn text(script: &mut Script<'_>, words: &Words) -> String {
    let choice = usize::from(script.byte());
    match words.ids.get(choice % 16) {
        Some(id) if choice < 96 => id.clone(),
        _ if choice < 240 => VALUES[choice % VALUES.len()].to_owned(),
        _ => String::from_utf8_lossy(script.bytes()).into_owned(),
    }
}
