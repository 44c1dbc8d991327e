//! Nodes made of arbitrary bytes: the fuzz target `node_roundtrip`, and an ordinary test that replays its corpus.
//!
//! Any bytes make a node that the encoder must take: tags are not empty, keys are distinct, JIDs have a form on the wire. Its
//! texts are of every form that the wire has: words of the dictionary, packed digits, raw text of each kind of length.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use wamd::{
    jid::{Jid, Server},
    node::{Decoder, Node, NodeContent},
};

/// Levels of a node at most; what is deeper is for `node_decode`.
const MAX_DEPTH: u32 = 12;

/// Builds a node from `data`, writes it and reads it again.
///
/// # Panics
/// When it cannot be written, or reads as something else.
pub(crate) fn roundtrip(data: &[u8]) {
    let mut from = Unstructured::new(data);
    let Ok(node) = node(&mut from, 1) else { return };
    let frame = node.encode().unwrap_or_else(|error| panic!("{node:?} is not written: {error}"));
    let mut decoder = Decoder::default();
    let root = decoder.decode(Bytes::from(frame.clone())).unwrap_or_else(|error| panic!("{node:?}: {error}"));
    assert_eq!(root.tag(), node.tag());
    let read = root.to_node();
    assert!(normal(read.clone()) == normal(node.clone()), "{node:?} reads as {read:?}");
    assert_eq!(format!("{root:?}"), format!("{read:?}"));

    // The form is canonical, however the node came about, and stands behind what was there.
    assert_eq!(read.encode().as_ref(), Ok(&frame));
    let mut behind = b"before".to_vec();
    assert_eq!(node.encode_into(&mut behind), Ok(()));
    assert!(behind.strip_prefix(b"before") == Some(&frame[..]));

    // Cut off anywhere, it is not a node, and the decoder goes on.
    let cut = from.int_in_range(0..=frame.len().saturating_sub(1)).unwrap_or_default();
    assert!(decoder.decode(Bytes::copy_from_slice(&frame[..cut])).is_err(), "{node:?} without its end");
    assert!(decoder.decode(Bytes::from(frame)).is_ok_and(|again| again.to_node() == read));
}

fn node(from: &mut Unstructured<'_>, depth: u32) -> Result<Node> {
    let mut tag = text(from)?;
    if tag.is_empty() {
        tag.push('t');
    }
    let mut node = Node::new(tag);
    for _ in 0..from.int_in_range(0..=4)? {
        let key = text(from)?;
        if node.get_attr(&key).is_none() {
            node = match from.ratio(1, 3)? {
                true => node.attr(key, jid(from)?),
                false => node.attr(key, text(from)?),
            };
        }
    }
    node.content = match from.int_in_range(0..=5)? {
        0 => NodeContent::None,
        1 => NodeContent::Bytes(Bytes::copy_from_slice(bytes(from)?)),
        2 => NodeContent::Text(text(from)?.into()),
        3 => NodeContent::Jid(jid(from)?),
        _ if depth == MAX_DEPTH => NodeContent::None,
        // 255 children and more have another list header.
        4 if from.ratio(1, 16)? => NodeContent::Nodes(vec![Node::new(text_or(from, "item")?); 300]),
        _ => {
            let count = from.int_in_range(0..=5)?;
            NodeContent::Nodes((0..count).map(|_| self::node(from, depth + 1)).collect::<Result<_>>()?)
        }
    };
    Ok(node)
}

fn bytes<'a>(from: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let len = from.int_in_range(0..=64)?;
    from.bytes(len.min(from.len()))
}

fn text_or(from: &mut Unstructured<'_>, other: &str) -> Result<String> {
    let text = text(from)?;
    Ok(if text.is_empty() { other.to_owned() } else { text })
}

/// A text of one of the forms.
fn text(from: &mut Unstructured<'_>) -> Result<String> {
    const WORDS: [&str; 12] = [
        "message",
        "type",
        "id",
        "from",
        "to",
        "iq",
        "0",
        "s.whatsapp.net",
        "read-self",
        "mute_v2",
        "@g.us",
        "received",
    ];
    Ok(match from.int_in_range(0..=5)? {
        0 => (*from.choose(&WORDS)?).to_owned(),
        1 => packed(from, b"0123456789-.")?,
        2 => packed(from, b"0123456789ABCDEF")?,
        3 => String::from_utf8_lossy(bytes(from)?).into_owned(),
        // Longer than a length of one byte, and than one of 20 bits would be worth its time.
        4 if from.ratio(1, 8)? => {
            char::from(from.int_in_range(b'a'..=b'z')?).to_string().repeat(from.int_in_range(250..=260)?)
        }
        _ => from.arbitrary::<&str>()?.chars().take(40).collect(),
    })
}

fn packed(from: &mut Unstructured<'_>, alphabet: &[u8]) -> Result<String> {
    let len = from.int_in_range(0..=130)?;
    (0..len).map(|_| Ok(char::from(*from.choose(alphabet)?))).collect()
}

/// A JID in the normal form of its server: a device only where the wire has a place for it.
fn jid(from: &mut Unstructured<'_>) -> Result<Jid> {
    const NAMES: [&str; 14] = [
        "s.whatsapp.net",
        "lid",
        "hosted",
        "hosted.lid",
        "msgr",
        "g.us",
        "broadcast",
        "newsletter",
        "bot",
        "call",
        "c.us",
        "new.server",
        "interop",
        "status",
    ];
    let name = *from.choose(&NAMES)?;
    let server = Server::parse(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let user = match from.int_in_range(0..=2)? {
        0 => String::new(),
        1 => packed(from, b"0123456789")?,
        _ => text(from)?,
    };
    let jid = Jid::new(&user, server);
    Ok(match name {
        // Without a user there is no place for a device, and the interop form has none for the server.
        _ if user.is_empty() || name == "interop" => Jid::new("", jid.server().clone()),
        "s.whatsapp.net" | "lid" | "hosted" | "hosted.lid" => jid.with_device(from.arbitrary::<u8>()?.into()),
        "msgr" => jid.with_device(from.arbitrary()?),
        _ => jid,
    })
}

/// Text content that has no form of its own is read back as bytes; no children is no content.
fn normal(mut node: Node) -> Node {
    node.content = match node.content {
        NodeContent::Text(text) => NodeContent::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        NodeContent::Nodes(nodes) if nodes.is_empty() => NodeContent::None,
        NodeContent::Nodes(nodes) => NodeContent::Nodes(nodes.into_iter().map(normal).collect()),
        other => other,
    };
    node
}
