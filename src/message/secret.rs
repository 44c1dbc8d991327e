//! What is encrypted with the secret of another message: votes, event responses, reactions, comments, edits, and the replies
//! of bots (spec 03 §5.8, spec 06 §4).
//!
//! ```text
//! key        HKDF( secret of the target, no salt, target id || author || sender || use case, 32 )
//! payload    AES-256-GCM( key, 12 random bytes, plaintext, aad ), tag behind
//! aad        target id || 00 || sender      votes and event responses;     empty otherwise
//! ```
//!
//! Author (of the target) and sender (of the addon) are JIDs without device, as text, in the family that the sender used when
//! it encrypted. A receiver cannot know which that was, so [`open`] tries at most four combinations ([`Spelling::ALL`]);
//! the tag tells which is right.
//!
//! | file | what |
//! |---|---|
//! | here | the key schedule, [`seal`], [`open`], how long a secret is kept |
//! | [`addon`] | the fields of `Message` that carry addons, and their plaintexts |
//! | [`bot`] | replies of bots, `<enc type="msmsg">` |

pub mod addon;
pub mod bot;

use std::{fmt, time::Duration};

use super::{Kind, MAX_PAYLOAD, MessageError, Normalised};
use crate::{
    crypto::{AesGcm, CryptoRng, Secret, cipher::TAG_LEN, hkdf_sha256, sha256},
    jid::Jid,
};

/// Bytes of the IV of an addon.
pub const IV_LEN: usize = 12;

/// Text and the rest: edits, reactions and comments come soon or never.
const KEEP: Duration = Duration::from_secs(30 * 86_400);
/// Polls and events are answered for longer.
const KEEP_POLLS: Duration = Duration::from_secs(90 * 86_400);

/// What an addon is for. The name enters the key, so that one cannot be read as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UseCase {
    /// A vote in a poll.
    PollVote,
    /// An answer to an event.
    EventResponse,
    /// A reaction in an announcement group.
    Reaction,
    /// A comment in an announcement group.
    Comment,
    /// A changed or cancelled event.
    EventEdit,
    /// A changed text.
    MessageEdit,
    /// A changed poll.
    PollEdit,
    /// One more option of a poll.
    PollAddOption,
}

impl UseCase {
    /// Every use case.
    pub const ALL: [Self; 8] = [
        Self::PollVote,
        Self::EventResponse,
        Self::Reaction,
        Self::Comment,
        Self::EventEdit,
        Self::MessageEdit,
        Self::PollEdit,
        Self::PollAddOption,
    ];

    /// The name in the key derivation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PollVote => "Poll Vote",
            Self::EventResponse => "Event Response",
            Self::Reaction => "Enc Reaction",
            Self::Comment => "Enc Comment",
            Self::EventEdit => "Event Edit",
            Self::MessageEdit => "Message Edit",
            Self::PollEdit => "Poll Edit",
            Self::PollAddOption => "Poll Add Option",
        }
    }

    /// Target and sender stand in the additional data, too.
    const fn is_bound(self) -> bool {
        matches!(self, Self::PollVote | Self::EventResponse)
    }
}

/// One person: the JID as addressed, and the same account in the other family (number or LID) if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person<'a> {
    /// As the stanza has it. The device does not matter.
    pub jid: &'a Jid,
    /// The other one.
    pub alternate: Option<&'a Jid>,
}

impl<'a> Person<'a> {
    /// Somebody whose other JID is not known.
    pub const fn new(jid: &'a Jid) -> Self {
        Self { jid, alternate: None }
    }

    /// Somebody with both JIDs.
    pub const fn with_alternate(jid: &'a Jid, alternate: &'a Jid) -> Self {
        Self { jid, alternate: Some(alternate) }
    }

    const fn spelled(self, alternate: bool) -> Option<&'a Jid> {
        if alternate { self.alternate } else { Some(self.jid) }
    }
}

/// Which JIDs the sender of an addon used. Worth remembering per chat: the next addon most likely uses the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spelling {
    /// The author's alternate.
    pub author: bool,
    /// The sender's alternate.
    pub sender: bool,
}

impl Spelling {
    /// All combinations, likeliest first: as addressed, both in the other family, then the mixed ones.
    pub const ALL: [Self; 4] = [
        Self { author: false, sender: false },
        Self { author: true, sender: true },
        Self { author: false, sender: true },
        Self { author: true, sender: false },
    ];
}

/// The message that an addon belongs to.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Its secret, from its `messageContextInfo`.
    pub secret: &'a Secret<32>,
    /// Its id.
    pub id: &'a str,
    /// Who wrote it.
    pub author: Person<'a>,
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Target([redacted])")
    }
}

/// An encrypted addon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// `encIv`.
    pub iv: [u8; IV_LEN],
    /// `encPayload`: ciphertext and tag.
    pub payload: Vec<u8>,
}

/// A decrypted addon.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// The protobuf of the use case, see [`addon::AddonContent`].
    pub plaintext: Vec<u8>,
    /// The JIDs that the sender used.
    pub spelling: Spelling,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("plaintext", &format_args!("[{} bytes]", self.plaintext.len()))
            .field("spelling", &self.spelling)
            .finish()
    }
}

/// The key of an addon. The devices of the JIDs do not count.
pub fn derive_key(secret: &Secret<32>, id: &str, author: &Jid, sender: &Jid, use_case: UseCase) -> Secret<32> {
    let info = [id, &bare(author), &bare(sender), use_case.as_str()].concat();
    Secret::new(hkdf_sha256(None, secret.expose(), info.as_bytes()))
}

/// Encrypts an addon of our own to a message. `sender` is our own JID in the family of the chat, as the author's is.
pub fn seal(
    target: &Target<'_>,
    sender: &Jid,
    use_case: UseCase,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Sealed {
    let mut iv = [0; IV_LEN];
    rng.fill_bytes(&mut iv);
    let key = derive_key(target.secret, target.id, target.author.jid, sender, use_case);
    seal_with(&key, iv, &additional_data(target.id, sender, use_case), plaintext)
}

/// Decrypts an addon of somebody to a message. `hint` is the spelling that is tried first, the default if none is known.
///
/// # Errors
/// [`MessageError::AddonIv`], [`MessageError::TooLong`], or [`MessageError::AddonAuthentication`] when no combination of
/// JIDs gives the tag, which then was tried at most four times.
pub fn open(
    target: &Target<'_>,
    sender: Person<'_>,
    use_case: UseCase,
    iv: &[u8],
    payload: &[u8],
    hint: Spelling,
) -> Result<Opened, MessageError> {
    let iv = check(iv, payload)?;
    let others = Spelling::ALL.into_iter().filter(|spelling| *spelling != hint);
    for spelling in std::iter::once(hint).chain(others) {
        let (Some(author), Some(sender)) = (target.author.spelled(spelling.author), sender.spelled(spelling.sender))
        else {
            continue;
        };
        let key = derive_key(target.secret, target.id, author, sender, use_case);
        if let Some(plaintext) = open_with(&key, iv, &additional_data(target.id, sender, use_case), payload) {
            return Ok(Opened { plaintext, spelling });
        }
    }
    Err(MessageError::AddonAuthentication)
}

/// The hash that stands for an option in a vote.
pub fn option_hash(name: &str) -> [u8; 32] {
    sha256(&[name.as_bytes()])
}

/// How long the secret of a message is to be kept, from the time of the message; `None` for a message that has none.
///
/// 30 days, 90 for polls and events. Forwarded messages are answered where they came from, so theirs is not kept.
pub fn retention(message: &Normalised<'_>) -> Option<Duration> {
    message.message_secret()?;
    if message.context_info().is_some_and(|context| context.is_forwarded == Some(true)) {
        return None;
    }
    Some(if matches!(message.kind(), Kind::Poll | Kind::Event) { KEEP_POLLS } else { KEEP })
}

/// A JID as it enters keys: without device.
fn bare(jid: &Jid) -> String {
    jid.to_account().to_string()
}

fn additional_data(id: &str, sender: &Jid, use_case: UseCase) -> Vec<u8> {
    if use_case.is_bound() { joined(id, sender) } else { Vec::new() }
}

/// `id || 00 || jid`.
fn joined(id: &str, jid: &Jid) -> Vec<u8> {
    [id.as_bytes(), &[0], bare(jid).as_bytes()].concat()
}

fn seal_with(key: &Secret<32>, iv: [u8; IV_LEN], aad: &[u8], plaintext: &[u8]) -> Sealed {
    let mut payload = Vec::with_capacity(plaintext.len().saturating_add(TAG_LEN));
    payload.extend_from_slice(plaintext);
    AesGcm::new(key.expose()).seal(&iv, aad, &mut payload);
    Sealed { iv, payload }
}

/// One attempt, on a copy of the payload.
fn open_with(key: &Secret<32>, iv: &[u8; IV_LEN], aad: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = payload.to_vec();
    let len = AesGcm::new(key.expose()).open(iv, aad, &mut buffer).ok()?.len();
    buffer.truncate(len);
    Some(buffer)
}

fn check<'a>(iv: &'a [u8], payload: &[u8]) -> Result<&'a [u8; IV_LEN], MessageError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(MessageError::TooLong { len: payload.len(), max: MAX_PAYLOAD });
    }
    iv.try_into().map_err(|_| MessageError::AddonIv { len: iv.len() })
}
