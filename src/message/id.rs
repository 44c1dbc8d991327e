//! Message ids (spec 03 §4.3).
//!
//! ```text
//! "3EB0" || upper hex of SHA-256( unix seconds, u64 big-endian || own user || "@c.us" || 16 random bytes )[0..9]
//! ```

use std::fmt;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::MessageError;
use crate::crypto::{Rng, sha256};

/// Ids are at most some 40 characters; a longer one than this is refused.
pub const MAX_ID_LEN: usize = 255;

/// The id of a message: an opaque text, unique per chat and sender.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(CompactString);

impl MessageId {
    /// Takes an id from a stanza or from a caller: 1 to 255 bytes without control characters.
    ///
    /// # Errors
    /// [`MessageError::Id`].
    pub fn new(id: impl AsRef<str>) -> Result<Self, MessageError> {
        Self::check(id.as_ref())?;
        Ok(Self(CompactString::new(id)))
    }

    /// Makes a fresh id. `own_user` is the user part of the own phone-number JID; `None` before there is one.
    pub fn generate(unix_seconds: u64, own_user: Option<&str>, rng: &mut impl Rng) -> Self {
        let mut random = [0; 16];
        rng.fill_bytes(&mut random);
        Self::derive(unix_seconds, own_user, &random)
    }

    /// The formula with its random bytes given. For vectors; elsewhere [`MessageId::generate`] is right.
    pub fn derive(unix_seconds: u64, own_user: Option<&str>, random: &[u8; 16]) -> Self {
        let (user, suffix) = own_user.map_or(("", ""), |user| (user, "@c.us"));
        let hash = sha256(&[&unix_seconds.to_be_bytes(), user.as_bytes(), suffix.as_bytes(), random]);
        let mut id = CompactString::const_new(WEB_PREFIX);
        for byte in hash.iter().take(HASH_LEN) {
            id.extend([byte >> 4, byte & 0xf].map(upper_hex));
        }
        Self(id)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(id: &str) -> Result<(), MessageError> {
        if id.is_empty() || id.len() > MAX_ID_LEN || id.chars().any(char::is_control) {
            return Err(MessageError::Id { len: id.len() });
        }
        Ok(())
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for MessageId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MessageId {
    type Error = MessageError;

    fn try_from(id: String) -> Result<Self, MessageError> {
        Self::new(id)
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> Self {
        id.0.into()
    }
}

fn upper_hex(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16).unwrap_or('0').to_ascii_uppercase()
}

/// Marks the ids of web clients.
const WEB_PREFIX: &str = "3EB0";
/// Bytes of the hash that an id shows.
const HASH_LEN: usize = 9;
