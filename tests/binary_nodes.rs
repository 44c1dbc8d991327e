//! Promise: frames read and write exactly as the vectors say, whose frames several independent codecs agree on.

use bytes::Bytes;
use serde_json::Value as Json;
use wamd::node::{AttrValue, Decoder, Node, NodeContent, NodeRef, fuzz_decode};

fn load(name: &str) -> Json {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).expect(&path)
}

fn text(json: &Json) -> &str {
    json.as_str().expect("a text")
}

fn list(json: &Json) -> &[Json] {
    json.as_array().expect("a list")
}

fn value(json: &Json) -> AttrValue {
    match json.get("jid") {
        Some(jid) => AttrValue::Jid(text(jid).parse().expect("a JID")),
        None => AttrValue::from(text(json)),
    }
}

/// The node of a vector. `{"nodes": []}` is no content, as the vectors' `compare_note` says.
fn node(json: &Json) -> Node {
    let mut node = Node::new(text(&json["tag"]));
    for pair in list(&json["attrs"]) {
        node = node.attr(text(&pair[0]), value(&pair[1]));
    }
    let content = &json["content"];
    let count = || content["count"].as_u64().expect("a count") as usize;
    if let Some(hex) = content.get("hex") {
        node.bytes(hex::decode(text(hex)).expect("hex"))
    } else if let Some(unit) = content.get("hex_unit") {
        node.bytes(hex::decode(text(unit)).expect("hex").repeat(count()))
    } else if let Some(unit) = content.get("node_unit") {
        node.children(vec![self::node(unit); count()])
    } else if let Some(nodes) = content.get("nodes") {
        node.children(list(nodes).iter().map(self::node))
    } else if let Some(str) = content.get("str") {
        node.text(text(str))
    } else if let Some(jid) = content.get("jid") {
        node.content = NodeContent::Jid(text(jid).parse().expect("a JID"));
        node
    } else {
        assert!(content.is_null(), "{content}");
        node
    }
}

fn frame(json: &Json) -> Vec<u8> {
    match json.get("unit") {
        None => hex::decode(text(json)).expect("hex"),
        Some(unit) => {
            let part = |key: &str| hex::decode(text(&json[key])).expect("hex");
            let count = json["count"].as_u64().expect("a count") as usize;
            let unit = hex::decode(text(unit)).expect("hex");
            [part("head"), unit.repeat(count), part("tail")].concat()
        }
    }
}

/// Reads through the cursor, without `to_node`.
fn assert_reads_as(read: NodeRef<'_>, expected: &Node, name: &str) {
    assert_eq!(read.tag(), expected.tag(), "{name}");
    let attrs: Vec<(String, AttrValue)> = read.attrs().map(|(key, value)| (key.to_owned(), value.into())).collect();
    let expected_attrs: Vec<(String, AttrValue)> =
        expected.attrs.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
    assert!(attrs == expected_attrs, "{name}: {attrs:?}");
    assert_eq!(read.bytes(), expected.content_bytes(), "{name}");
    assert_eq!(read.text(), expected.content_text(), "{name}");
    assert_eq!(read.children().len(), expected.child_nodes().len(), "{name}");
    for (read, expected) in read.children().zip(expected.child_nodes()) {
        assert_reads_as(read, expected, name);
    }
}

fn check(decoder: &mut Decoder, vector: &Json) {
    let name = text(&vector["name"]);
    let frame = frame(&vector["frame"]);
    let read = decoder.decode(Bytes::from(frame.clone()));
    if text(&vector["kind"]) == "reject" {
        assert!(read.is_err(), "{name} is accepted: {read:?}");
        return;
    }
    let expected = node(&vector["node"]);
    let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_reads_as(read, &expected, name);
    assert_eq!(read.to_node(), expected, "{name}");
    if text(&vector["kind"]) == "both" {
        assert_eq!(hex::encode(expected.encode().expect(name)), hex::encode(&frame), "{name}");
        assert_eq!(hex::encode(read.to_node().encode().expect(name)), hex::encode(&frame), "{name}");
    }
}

#[test]
fn every_vector_holds() {
    let vectors = load("binary_nodes.json");
    let (small, large) = (list(&vectors["vectors"]), list(&vectors["large"]));
    assert_eq!((small.len(), large.len()), (165, 3));
    let mut decoder = Decoder::default();
    // One decoder for all: nothing of a frame may shine through in the next.
    small.iter().chain(large).for_each(|vector| check(&mut decoder, vector));
}

#[test]
fn every_frame_satisfies_the_fuzz_oracle() {
    for vector in list(&load("binary_nodes.json")["vectors"]) {
        fuzz_decode(&frame(&vector["frame"]));
    }
    for stanza in list(&load("stanzas.json")["stanzas"]) {
        fuzz_decode(&frame(&stanza["encoded"]));
    }
}

/// `stanzas.json` has attributes as a map, whose order serde_json does not keep: it is taken from the `xml` text.
fn stanza_node(json: &Json, xml: &mut &str) -> Node {
    let tag = text(&json["tag"]);
    let start = xml.find(&format!("<{tag}")).expect("the tag in the XML text");
    *xml = &xml[start + 1..];
    let head = &xml[..xml.find('>').expect("the end of the tag")];
    let attrs = json["attrs"].as_object().expect("a map");
    let position = |key: &str| head.find(&format!(" {key}=\"")).unwrap_or_else(|| panic!("{key} in {head}"));
    let mut keys: Vec<&String> = attrs.keys().collect();
    keys.sort_by_key(|key| position(key));
    let mut node = Node::new(tag);
    for key in keys {
        node = node.attr(key.as_str(), value(&attrs[key]));
    }
    match &json["content"] {
        Json::Null => node,
        Json::Array(children) => children.iter().fold(node, |node, child| node.child(stanza_node(child, xml))),
        leaf => node.bytes(hex::decode(text(&leaf["hex"])).expect("hex")),
    }
}

#[test]
fn every_stanza_of_the_login_has_its_bytes() {
    let vectors = load("stanzas.json");
    let stanzas = list(&vectors["stanzas"]);
    assert!(stanzas.len() > 10);
    for stanza in stanzas {
        let name = text(&stanza["name"]);
        let expected = stanza_node(&stanza["node"], &mut text(&stanza["xml"]));
        assert_eq!(hex::encode(expected.encode().expect(name)), text(&stanza["encoded"]), "{name}");
        assert_eq!(Node::decode(frame(&stanza["encoded"])), Ok(expected), "{name}");
    }
}
