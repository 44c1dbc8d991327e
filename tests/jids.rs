//! Promise: JID texts parse and print as the vectors say.

use serde_json::Value as Json;
use wamd::jid::Jid;

#[test]
fn every_vector_holds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/jids.json");
    let vectors: Json = serde_json::from_str(&std::fs::read_to_string(path).expect(path)).expect(path);
    let vectors = vectors["vectors"].as_array().expect("a list");
    assert_eq!(vectors.len(), 49);
    for vector in vectors {
        let input = vector["in"].as_str().expect("a text");
        let parsed = input.parse::<Jid>();
        let Some(expected) = vector.get("ok") else {
            assert!(vector["err"].is_string(), "{input:?}");
            assert!(parsed.is_err(), "{input:?} parses as {parsed:?}");
            continue;
        };
        let jid = parsed.unwrap_or_else(|error| panic!("{input:?}: {error}"));
        let number = |key: &str| expected.get(key).map_or(0, |n| n.as_u64().expect("a number")) as u16;
        assert_eq!(jid.user(), expected["user"], "{input:?}");
        assert_eq!(jid.server().as_str(), expected["server"], "{input:?}");
        assert_eq!(jid.device(), number("device"), "{input:?}");
        assert_eq!(jid.integrator(), number("integrator"), "{input:?}");
        assert_eq!(jid.to_string(), vector["text"], "{input:?}");
        assert_eq!(jid.to_bare().to_string(), vector["bare"], "{input:?}");
        assert_eq!(jid.to_string().parse(), Ok(jid), "{input:?}");
    }
}

/// A stanza whose sender has a user part with a device in it: its text is that of another device.
#[test]
fn an_address_with_the_text_of_another_is_none() {
    use wamd::node::{Decoder, Limits, Node};

    let read = |jid: &Jid| {
        let frame = Node::new("message").attr("from", jid).encode().expect("encodes");
        let mut decoder = Decoder::new(Limits::default());
        decoder.decode(frame.into()).expect("decodes").attr_jid("from")
    };
    for jid in [Jid::pn("15550000001:3"), Jid::pn("15550000001.1"), Jid::lid("1:2"), Jid::lid("1@lid")] {
        assert_eq!(read(&jid), None, "{jid}");
    }
    for jid in [Jid::pn("15550000001").with_device(3), Jid::lid("1"), Jid::new("1-2", wamd::jid::Server::Group)] {
        assert_eq!(read(&jid), Some(jid.clone()));
    }
}
