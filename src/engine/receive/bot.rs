//! Replies of bots, encrypted with the secret of the message that they answer (spec 03 §5.8).

use super::{Context, Outcome, decrypt::Part};
use crate::{
    engine::{
        notices::Undecryptable,
        step::{Miss, Step},
    },
    stanza::{ack::Nack, message::Enc},
};

/// Decrypts a reply.
///
/// # Errors
/// [`Miss`].
pub(super) fn reply(_step: &mut Step<'_>, _context: &Context<'_>, _enc: &Enc) -> Result<Part, Miss> {
    Ok(Part::Lost(Outcome::Refused(Nack::MissingMessageSecret, Some(Undecryptable::no_message_secret()))))
}
