//! App state (`w:sync:app:state`, spec 05 §A7.1 to §A7.3): asking for what is new in collections, sending patches, and what the
//! server says of each collection. Names of collections and what patches hold are the business of others.

use bytes::Bytes;

use super::{IqError, error_of, request};
use crate::{
    node::{Node, NodeRef},
    stanza::{StanzaError, required_child, required_text},
};

/// Most collections of one stanza. There are five.
pub const MAX_COLLECTIONS: usize = 16;
/// Most patches of one answer, over all collections.
pub const MAX_PATCHES: usize = 4_096;

/// What is asked of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A snapshot: there is no local state.
    Snapshot,
    /// What is newer than this version.
    Newer(u64),
    /// To take a patch that was built on this version, and what is newer than it, if it was not the newest.
    Patch {
        /// The version.
        base: u64,
        /// An encoded `SyncdPatch`.
        patch: Bytes,
    },
}

/// Asks for collections; each may stand there once.
pub fn sync<'a>(collections: impl IntoIterator<Item = (&'a str, Ask)>) -> Node {
    let collection = |(name, ask): (&str, Ask)| {
        let (version, snapshot) = match ask {
            Ask::Snapshot => (0, "true"),
            Ask::Newer(version) | Ask::Patch { base: version, .. } => (version, "false"),
        };
        let node = Node::new("collection").attr("name", name).attr("version", version);
        let node = node.attr("return_snapshot", snapshot);
        match ask {
            Ask::Patch { patch, .. } => node.child(Node::new("patch").bytes(patch)),
            Ask::Snapshot | Ask::Newer(_) => node,
        }
    };
    let sync = collections.into_iter().map(collection).fold(Node::new("sync"), Node::child);
    request("set", "w:sync:app:state").child(sync)
}

/// What the server says of a collection. Contents share the frame's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionAnswer {
    /// Its name.
    pub name: String,
    /// Whether there is more than this.
    pub more: bool,
    /// An encoded `ExternalBlobReference`: where the snapshot is.
    pub snapshot: Option<Bytes>,
    /// Encoded `SyncdPatch`es, in the order of their versions.
    pub patches: Vec<Bytes>,
    /// The server refused. 409 is a conflict, and then there may be patches (spec 05 §A7.3).
    pub error: Option<IqError>,
}

/// Reads the answer to [`sync`]. A collection that is not there has nothing new.
///
/// # Errors
/// [`StanzaError`] without a list, for a collection without a name, and for more than [`MAX_COLLECTIONS`] or [`MAX_PATCHES`].
pub fn collections(node: NodeRef<'_>) -> Result<Vec<CollectionAnswer>, StanzaError> {
    let (mut answers, mut patches) = (Vec::new(), 0_usize);
    for node in required_child(node, "iq", "sync")?.children_named("collection") {
        if answers.len() == MAX_COLLECTIONS {
            return Err(StanzaError::TooMany { tag: "collection", max: MAX_COLLECTIONS });
        }
        let answer = collection(node)?;
        patches = patches.saturating_add(answer.patches.len());
        if patches > MAX_PATCHES {
            return Err(StanzaError::TooMany { tag: "patch", max: MAX_PATCHES });
        }
        answers.push(answer);
    }
    Ok(answers)
}

fn collection(node: NodeRef<'_>) -> Result<CollectionAnswer, StanzaError> {
    let content = |node: NodeRef<'_>, tag| node.bytes().ok_or(StanzaError::Content { tag });
    // They may be direct children, too.
    let inside = node.child("patches").into_iter().flat_map(|patches| patches.children_named("patch"));
    let patches = inside.chain(node.children_named("patch")).take(MAX_PATCHES.saturating_add(1));
    let refused = node.attr_str("type").as_deref() == Some("error");
    Ok(CollectionAnswer {
        name: required_text(node, "collection", "name")?,
        more: node.attr_str("has_more_patches").as_deref() == Some("true"),
        snapshot: node.child("snapshot").map(|snapshot| content(snapshot, "snapshot")).transpose()?,
        patches: patches.map(|patch| content(patch, "patch")).collect::<Result<_, _>>()?,
        error: refused.then(|| error_of(node)),
    })
}

/// The collections of a `<notification type="server_sync">`, with the version that the server has, if it says so. At most
/// [`MAX_COLLECTIONS`]; one without a name is left out.
pub fn notified(node: NodeRef<'_>) -> Vec<(String, Option<u64>)> {
    let collections = node.children_named("collection").take(MAX_COLLECTIONS);
    let read = |node: NodeRef<'_>| Some((required_text(node, "collection", "name").ok()?, node.attr_u64("version")));
    collections.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Decoder;

    fn read<T>(node: &Node, reader: impl Fn(NodeRef<'_>) -> T) -> T {
        let mut decoder = Decoder::default();
        reader(decoder.decode(Bytes::from(node.encode().unwrap())).unwrap())
    }

    fn answer(collections: impl IntoIterator<Item = Node>) -> Node {
        Node::new("iq").attr("type", "result").child(collections.into_iter().fold(Node::new("sync"), Node::child))
    }

    fn named(name: &str) -> Node {
        Node::new("collection").attr("name", name)
    }

    fn patch(byte: u8) -> Node {
        Node::new("patch").bytes(vec![byte; 3])
    }

    #[test]
    fn requests_are_those_of_the_specification() {
        let patch = Bytes::from_static(&[1, 2]);
        let sent = sync([
            ("regular_low", Ask::Newer(41)),
            ("critical_block", Ask::Snapshot),
            ("regular_high", Ask::Patch { base: 17, patch: patch.clone() }),
        ]);
        let expected = [("regular_low", 41, "false"), ("critical_block", 0, "true"), ("regular_high", 17, "false")];
        read(&sent, |iq| {
            assert_eq!(iq.attr_str("xmlns").as_deref(), Some("w:sync:app:state"));
            assert_eq!(
                (iq.attr_str("type").as_deref(), iq.attr_str("to").as_deref()),
                (Some("set"), Some("s.whatsapp.net"))
            );
            let nodes: Vec<_> = iq.child("sync").unwrap().children().collect();
            assert_eq!(nodes.len(), 3);
            for (node, (name, version, snapshot)) in nodes.iter().zip(expected) {
                assert_eq!(node.attr_str("name").as_deref(), Some(name));
                assert_eq!(node.attr_u64("version"), Some(version));
                assert_eq!(node.attr_str("return_snapshot").as_deref(), Some(snapshot));
            }
            assert_eq!(nodes[2].child("patch").unwrap().bytes(), Some(patch.clone()));
            assert!(nodes[0].children().next().is_none());
        });
    }

    #[test]
    fn answers_are_read() {
        let snapshot = Node::new("snapshot").bytes(vec![9; 4]);
        let sent = answer([
            named("regular_low")
                .attr("version", 41_u64)
                .attr("has_more_patches", "true")
                .child(snapshot)
                .child(Node::new("patches").child(patch(1)).child(patch(2))),
            named("regular").child(patch(3)),
            named("regular_high")
                .attr("type", "error")
                .child(Node::new("error").attr("code", 409_u64).attr("text", "conflict")),
        ]);
        let found = read(&sent, collections).unwrap();
        let patches = |answer: &CollectionAnswer| answer.patches.iter().map(|patch| patch[0]).collect::<Vec<_>>();
        assert_eq!((found[0].name.as_str(), found[0].more, patches(&found[0])), ("regular_low", true, vec![1, 2]));
        assert_eq!(found[0].snapshot.as_deref(), Some(&[9; 4][..]));
        assert_eq!((found[1].more, patches(&found[1]), &found[1].error), (false, vec![3], &None));
        assert_eq!(found[2].error.as_ref().map(|error| (error.code, &*error.text)), Some((409, "conflict")));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let check = |node: Node| assert!(read(&node, collections).is_err());
        check(Node::new("iq"));
        check(answer([Node::new("collection")]));
        check(answer([named("a").child(Node::new("snapshot"))]));
        check(answer((0..=MAX_COLLECTIONS).map(|i| named(&i.to_string()))));
        check(answer([(0..=MAX_PATCHES).map(|_| patch(1)).fold(named("a"), Node::child)]));
        assert_eq!(read(&answer([]), collections), Ok(vec![]));
    }

    #[test]
    fn notifications_name_collections() {
        let sent = Node::new("notification")
            .attr("type", "server_sync")
            .child(named("regular").attr("version", 42_u64))
            .child(Node::new("collection"))
            .child(named("newer"));
        assert_eq!(read(&sent, notified), [("regular".into(), Some(42)), ("newer".into(), None)]);
    }
}
