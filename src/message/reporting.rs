//! The reporting token: what lets a recipient prove to the server what was sent (spec 03 §4.8, spec 06 §1.8).
//!
//! ```text
//! key     HKDF( secret of the message, no salt, id || sender || remote || "Report Token", 32 )
//! token   HMAC( key, content )[0..16]          <reporting><reporting_token v="2">token</reporting_token></reporting>
//! ```
//!
//! The content is what is left of the encoded `Message` when only the fields of a list stay: leaves as they stand, fields with
//! a list of their own written anew around what is left inside, all in ascending order. It is made from the very bytes that
//! are sent.
//!
//! Limits: [`MAX_DEPTH`] levels, and the content is never longer than the message.

use std::{borrow::Cow, fmt::Write as _};

use bytes::Bytes;
use smallvec::SmallVec;

use self::Keep::{Fields, Whole};
use super::normalise::normalise;
use crate::{
    crypto::{Rng, Secret, hkdf_sha256, hmac_sha256},
    jid::Jid,
    proto::{Message as _, e2e::Message},
};

/// The `v` of `<reporting_token>`, and `messageContextInfo.reportingTokenVersion` of a message that has one.
pub const VERSION: u32 = 2;
/// Bytes of a token.
pub const TOKEN_LEN: usize = 16;
/// Levels of nested messages that are looked into; a message with more gets no token.
pub const MAX_DEPTH: u32 = 64;

/// Whether a message gets a token: all but reactions, votes, event responses and what keeps a message in its chat.
///
/// It then needs a `messageSecret` and [`VERSION`] in its context before it is encoded.
pub const fn takes_token(message: &Message) -> bool {
    message.reaction_message.is_none()
        && message.enc_reaction_message.is_none()
        && message.poll_update_message.is_none()
        && message.enc_event_response_message.is_none()
        && message.keep_in_chat_message.is_none()
}

/// Gives a message that takes a token, and has something in it that could be reported, the secret and the version that a token
/// needs; a secret that is there stays.
pub fn prepare(message: &mut Message, rng: &mut impl Rng) {
    // A text always has: it need not be encoded for that.
    let is_reportable =
        |message: &Message| message.conversation.is_some() || content(&message.encode_to_vec()).is_some();
    if !takes_token(message) || !is_reportable(message) {
        return;
    }
    let known = normalise(message).message_secret().is_some();
    let context = message.message_context_info.get_or_insert_default();
    if !known {
        context.message_secret = Some(Bytes::copy_from_slice(Secret::<32>::random(rng).expose()));
    }
    context.reporting_token_version = Some(VERSION as i32);
}

/// The secret that the token of a message is made with, if the message says that it has one ([`prepare`]).
pub fn secret_of(message: &Message) -> Option<Secret<32>> {
    let view = normalise(message);
    let says_so = view.message_context()?.reporting_token_version == Some(VERSION as i32) && takes_token(message);
    says_so.then(|| view.message_secret().map(|secret| Secret::new(*secret))).flatten()
}

/// The token of a message. `message` are its encoded bytes, without padding; `sender` is our own JID in the addressing of the
/// chat, `remote` the chat, a user or a group. Devices do not count.
///
/// Which JIDs belong there for a group is not certain: clients disagree, and the server looks at a token only when somebody
/// reports the message (spec 03 §4.8).
///
/// `None` when the message has nothing that could be reported, is nested too deeply or is no protobuf.
pub fn token(secret: &Secret<32>, id: &str, sender: &Jid, remote: &Jid, message: &[u8]) -> Option<[u8; TOKEN_LEN]> {
    let content = content(message)?;
    let mac = hmac_sha256(derive_key(secret, id, sender, remote).expose(), &[&content]);
    mac.first_chunk().copied()
}

/// The key of the token of a message.
pub fn derive_key(secret: &Secret<32>, id: &str, sender: &Jid, remote: &Jid) -> Secret<32> {
    let mut info = String::with_capacity(128);
    // A string takes everything.
    let _written = write!(info, "{id}{}{}Report Token", sender.to_account(), remote.to_account());
    Secret::new(hkdf_sha256(None, secret.expose(), info.as_bytes()))
}

/// What is left of an encoded message; `None` if nothing is, or as in [`token`].
pub fn content(message: &[u8]) -> Option<Vec<u8>> {
    filter(message, MESSAGE, MAX_DEPTH).ok().filter(|content| !content.is_empty())
}

/// What becomes of a field that stays.
#[derive(Clone, Copy, Debug)]
enum Keep {
    /// All of it.
    Whole,
    /// The fields of a list.
    Fields(List),
    /// It is a message, with the list of messages.
    Message,
}

/// Field numbers, ascending.
type List = &'static [(u32, Keep)];

/// The bytes are no protobuf, or nested too deeply.
#[derive(Debug)]
struct Unreadable;

/// Keeps the fields of a list.
fn filter(bytes: &[u8], list: List, depth: u32) -> Result<Vec<u8>, Unreadable> {
    let depth = depth.checked_sub(1).ok_or(Unreadable)?;
    let mut kept: SmallVec<[(u32, Cow<'_, [u8]>); 8]> = SmallVec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let field = Field::read(&mut rest)?;
        let Ok(at) = list.binary_search_by_key(&field.number, |(number, _)| *number) else { continue };
        let inner = match list.get(at).map(|(_, keep)| *keep) {
            Some(Fields(inner)) => inner,
            Some(Keep::Message) => MESSAGE,
            Some(Whole) | None => &[],
        };
        match field.inside {
            Some(inside) if !inner.is_empty() => {
                let inside = filter(inside, inner, depth)?;
                if !inside.is_empty() {
                    kept.push((field.number, framed(field.tag, &inside).into()));
                }
            }
            // A leaf, or a value of another type where a message should be.
            _ => kept.push((field.number, field.raw.into())),
        }
    }
    kept.sort_by_key(|(number, _)| *number);
    let mut out = Vec::with_capacity(kept.iter().map(|(_, bytes)| bytes.len()).sum());
    kept.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
    Ok(out)
}

/// A field of a protobuf message.
struct Field<'a> {
    number: u32,
    /// Tag and value as they stand.
    raw: &'a [u8],
    tag: &'a [u8],
    /// The bytes of a length-delimited value.
    inside: Option<&'a [u8]>,
}

impl<'a> Field<'a> {
    /// Takes the next field off `rest`.
    fn read(rest: &mut &'a [u8]) -> Result<Self, Unreadable> {
        let start = *rest;
        let tag = u32::try_from(varint(rest)?).map_err(|_| Unreadable)?;
        let tag_bytes = taken(start, rest);
        let inside = match tag & 7 {
            0 => varint(rest).map(|_| None)?,
            1 => take(rest, 8).map(|_| None)?,
            2 => {
                let len = usize::try_from(varint(rest)?).map_err(|_| Unreadable)?;
                take(rest, len).map(Some)?
            }
            5 => take(rest, 4).map(|_| None)?,
            _ => return Err(Unreadable),
        };
        match tag >> 3 {
            0 => Err(Unreadable),
            number => Ok(Self { number, raw: taken(start, rest), tag: tag_bytes, inside }),
        }
    }
}

/// What stands in `start` before `rest`, its end.
fn taken<'a>(start: &'a [u8], rest: &[u8]) -> &'a [u8] {
    start.get(..start.len().saturating_sub(rest.len())).unwrap_or_default()
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Unreadable> {
    let (head, tail) = rest.split_at_checked(len).ok_or(Unreadable)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(Unreadable)?;
        *rest = tail;
        if shift == 63 && byte > 1 {
            return Err(Unreadable);
        }
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Unreadable)
}

/// A tag as it was, the length of `inside`, and `inside`.
fn framed(tag: &[u8], inside: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inside.len().saturating_add(tag.len()).saturating_add(4));
    out.extend_from_slice(tag);
    let mut len = inside.len();
    while len >= 0x80 {
        out.push((len & 0x7F) as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(inside);
    out
}

/// `contextInfo`: forwarding score and flag.
const CONTEXT: Keep = Fields(&[(21, Whole), (22, Whole)]);
/// A wrapper with a message as its first field.
const WRAPPER: Keep = Fields(&[(1, Keep::Message)]);
/// A poll: name, options, context, and how it counts.
const POLL: Keep =
    Fields(&[(2, Whole), (3, Fields(&[(1, Whole), (2, Whole)])), (5, CONTEXT), (8, Fields(&[(1, Whole), (2, Whole)]))]);
/// A video, or a round one.
const VIDEO: Keep = Fields(&[(2, Whole), (6, Whole), (7, Whole), (13, Whole), (17, CONTEXT), (20, Whole)]);

/// The list of `Message` (spec 06 §1.8).
const MESSAGE: List = &[
    (1, Whole),
    (3, Fields(&[(2, Whole), (3, Whole), (8, Whole), (11, Whole), (17, CONTEXT), (25, Whole)])),
    (4, Fields(&[(1, Whole), (16, Whole), (17, CONTEXT)])),
    (5, Fields(&[(3, Whole), (4, Whole), (5, Whole), (16, Whole), (17, CONTEXT)])),
    (6, Fields(&[(1, Whole), (17, CONTEXT), (30, Whole)])),
    (7, Fields(&[(2, Whole), (7, Whole), (10, Whole), (17, CONTEXT), (20, Whole)])),
    (8, Fields(&[(2, Whole), (7, Whole), (9, Whole), (17, CONTEXT), (21, Whole)])),
    (9, VIDEO),
    (12, Fields(&[(1, Whole), (2, Whole), (14, Keep::Message), (15, Whole)])),
    (18, Fields(&[(6, Whole), (16, Whole), (17, CONTEXT)])),
    (26, Fields(&[(4, Whole), (5, Whole), (8, Whole), (13, Whole), (17, CONTEXT)])),
    (28, Fields(&[(1, Whole), (2, Whole), (4, Whole), (5, Whole), (6, Whole), (7, CONTEXT)])),
    (37, WRAPPER),
    (49, POLL),
    (53, WRAPPER),
    (55, WRAPPER),
    (58, WRAPPER),
    (59, WRAPPER),
    (60, POLL),
    (64, POLL),
    (66, VIDEO),
    (74, WRAPPER),
    (87, WRAPPER),
    (88, Fields(&[(1, Whole), (2, Fields(&[(1, Whole)])), (3, CONTEXT)])),
    (92, WRAPPER),
    (93, WRAPPER),
    (94, WRAPPER),
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The list in the form of the vector file.
    fn as_json(list: List) -> Value {
        let entry = |&(number, keep): &(u32, Keep)| match keep {
            Whole => json!({ "f": number }),
            Fields(inner) => json!({ "f": number, "s": as_json(inner) }),
            Keep::Message => json!({ "f": number, "m": true }),
        };
        list.iter().map(entry).collect()
    }

    #[test]
    fn the_list_is_that_of_the_vectors() {
        let file: Value = serde_json::from_str(include_str!("../../tests/vectors/reporting_token.json")).unwrap();
        assert_eq!(as_json(MESSAGE), file["whitelist"]);
    }

    /// The search needs it.
    #[test]
    fn lists_ascend() {
        fn check(list: List) {
            assert!(list.is_sorted_by(|(a, _), (b, _)| a < b) && !list.is_empty());
            for (_, keep) in list {
                if let Fields(inner) = keep {
                    check(inner);
                }
            }
        }
        check(MESSAGE);
    }

    /// A text within so many view-once wrappers.
    fn nested(wrappers: usize) -> Vec<u8> {
        (0..wrappers).fold(vec![0x0A, 1, b'x'], |inner, _| framed(&[0xAA, 0x02], &framed(&[0x0A], &inner)))
    }

    #[test]
    fn nesting_is_limited() {
        // Each wrapper takes two levels, and the message inside one.
        let deepest = (MAX_DEPTH as usize - 1) / 2;
        assert_eq!(content(&nested(deepest)), Some(nested(deepest)));
        assert_eq!(content(&nested(deepest + 1)), None);
        assert_eq!(content(&nested(5_000)), None);
    }

    #[test]
    fn what_is_no_protobuf_has_no_content() {
        for bytes in [&[0x0A][..], &[0x0A, 5, 1], &[0x0B], &[0x02, 0], &[0x1A, 1, 0x0A], &[0xFF; 11]] {
            assert_eq!(content(bytes), None, "{bytes:?}");
        }
        // Broken bytes inside a leaf do not matter.
        assert_eq!(content(&[0x0A, 1, 0xFF]), Some(vec![0x0A, 1, 0xFF]));
    }

    #[test]
    fn equal_fields_keep_their_order_and_tags_their_form() {
        // Field 3 with a tag of two bytes, twice, before field 1.
        let image = |caption: u8| vec![0x9A, 0x00, 0x03, 0x1A, 0x01, caption];
        let bytes = [image(b'b'), image(b'a'), vec![0x0A, 1, b'x']].concat();
        assert_eq!(content(&bytes), Some([vec![0x0A, 1, b'x'], image(b'b'), image(b'a')].concat()));
    }
}
