//! The participant hash (spec 03 §4.6): which devices a message was encrypted for, in ten characters.
//!
//! ```text
//! "2:" || base64, unpadded, of SHA-256( concat( sorted "USER.0:DEVICE@SERVER" ) )[0..6]
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

use crate::{crypto::sha256, jid::Jid};

/// The hash of a set of devices, in any order. Duplicates count, as the server counts them.
///
/// ```
/// use wamd::{jid::Jid, message::phash::phash};
///
/// assert_eq!(phash([&Jid::pn("5511999999999").with_device(3)]), "2:5s+YxCff");
/// ```
pub fn phash<'a>(devices: impl IntoIterator<Item = &'a Jid>) -> String {
    let mut names: Vec<String> = devices.into_iter().map(Jid::ad_string).collect();
    names.sort_unstable();
    let parts: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    let [a, b, c, d, e, f, ..] = sha256(&parts);
    format!("2:{}", STANDARD_NO_PAD.encode([a, b, c, d, e, f]))
}
