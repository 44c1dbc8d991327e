//! Replies of bots, `<enc type="msmsg">` (spec 03 §5.8, spec 06 §4.5).
//!
//! ```text
//! content    MessageSecretMessage { version, encIv, encPayload }
//! k1         HKDF( secret of the user's message to the bot, no salt, "Bot Message", 32 )
//! key        HKDF( k1, no salt, reply id || user || bot, 32 )
//! aad        reply id || 00 || bot
//! ```
//!
//! A reply comes in pieces: a `first` one, `inner` ones that replace it, and a `last` one. The pieces after the first are made
//! with the id of the first. The plaintext is a `Message` without padding.

use std::fmt;

use bytes::Bytes;

use super::{IV_LEN, Person, bare, check, joined, open_with, seal_with};
use crate::{
    crypto::{CryptoRng, Secret, hkdf_sha256},
    jid::Jid,
    message::{MAX_PAYLOAD, MessageError},
    proto::{Message as _, e2e::MessageSecretMessage},
};

/// The `version` that we write.
const VERSION: i32 = 1;

/// The secret for a bot, from that of the user's message: `botMessageSecret` of an invocation in another chat.
pub fn bot_secret(secret: &Secret<32>) -> Secret<32> {
    Secret::new(hkdf_sha256(None, secret.expose(), b"Bot Message"))
}

/// What the stanza says about a reply.
#[derive(Clone, Copy)]
pub struct BotReply<'a> {
    /// The [`bot_secret`] of the message that the bot replies to: the one that `<meta target_id>` names.
    pub secret: &'a Secret<32>,
    /// Who wrote that message: `<meta target_sender_jid>`, or ourselves, by LID if the bot is on `bot`, else by number.
    pub user: Person<'a>,
    /// The bot.
    pub bot: &'a Jid,
    /// The id of the stanza.
    pub stanza_id: &'a str,
    /// `edit_target_id` of `<bot>`.
    pub edit_target_id: Option<&'a str>,
    /// `edit` of `<bot>` is `inner` or `last`.
    pub is_edit: bool,
}

impl fmt::Debug for BotReply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BotReply([redacted])")
    }
}

/// Decrypts a reply: the bytes of a `Message`. Tries both ids and both JIDs of the user, four combinations at most.
///
/// # Errors
/// [`MessageError::Malformed`] for content that is no `MessageSecretMessage`, [`MessageError::AddonIv`],
/// [`MessageError::TooLong`], [`MessageError::AddonAuthentication`].
pub fn open_reply(reply: &BotReply<'_>, content: &[u8]) -> Result<Vec<u8>, MessageError> {
    if content.len() > MAX_PAYLOAD {
        return Err(MessageError::TooLong { len: content.len(), max: MAX_PAYLOAD });
    }
    let content = MessageSecretMessage::decode(content).map_err(|_| MessageError::Malformed)?;
    let (iv, payload) = (content.enc_iv.unwrap_or_default(), content.enc_payload.unwrap_or_default());
    let iv = check(&iv, &payload)?;
    let (likely, other) = match reply.edit_target_id {
        Some(target) if reply.is_edit => (target, Some(reply.stanza_id)),
        other => (reply.stanza_id, other),
    };
    for id in [Some(likely), other.filter(|other| *other != likely)].into_iter().flatten() {
        for user in [Some(reply.user.jid), reply.user.alternate].into_iter().flatten() {
            let key = derive_key(reply.secret, id, user, reply.bot);
            if let Some(plaintext) = open_with(&key, iv, &joined(id, reply.bot), &payload) {
                return Ok(plaintext);
            }
        }
    }
    Err(MessageError::AddonAuthentication)
}

/// Encrypts a reply as a bot does. `id` is that of the first piece.
pub fn seal_reply(
    secret: &Secret<32>,
    id: &str,
    user: &Jid,
    bot: &Jid,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Vec<u8> {
    let mut iv = [0; IV_LEN];
    rng.fill_bytes(&mut iv);
    let sealed = seal_with(&derive_key(secret, id, user, bot), iv, &joined(id, bot), plaintext);
    let content = MessageSecretMessage {
        version: Some(VERSION),
        enc_iv: Some(Bytes::copy_from_slice(&sealed.iv)),
        enc_payload: Some(sealed.payload.into()),
    };
    content.encode_to_vec()
}

/// The key of a reply. `secret` is the [`bot_secret`]; devices do not count.
pub fn derive_key(secret: &Secret<32>, id: &str, user: &Jid, bot: &Jid) -> Secret<32> {
    let info = [id, &bare(user), &bare(bot)].concat();
    Secret::new(hkdf_sha256(None, secret.expose(), info.as_bytes()))
}
