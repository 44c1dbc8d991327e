//! Groups: who is in them and how they are set (spec 06 §7, 03 §3.4).
//!
//! What the server told of a group is kept until a notification changes it; then the stored group changes with it. It is
//! asked for again when something is not certain: a notification that does not fit to what is stored, another
//! version than the one that it follows upon, `dirty` groups, a hash or an addressing mode that the server does not agree to.
//!
//! ```text
//!   get ──► stored ──► yes
//!      └──► none, stale ──► Query::Group (one at a time per group) ──► store ──► who waited goes on
//!
//!   w:gp2 ──► events, the stored group, our sender key, ack: one batch
//! ```
//!
//! Our sender key goes with everybody who leaves, also when that shows only in a fresh answer ([`store`]).
//!
//! **Bounds.** A group has at most [`MAX_PARTICIPANTS`](crate::stanza::group::MAX_PARTICIPANTS) participants, and a group with
//! more is refused. Of the people in it both identities are noted when the group is first used, in one step with one
//! round of loads; of those that are news [`MAX_TOLD`] are told at most, corrections first.
//!
//! | file | what |
//! |---|---|
//! | `record` | the stored form |
//! | `metadata` | reads and writes it |
//! | `notification` | what `w:gp2` changes |
//! | `notices` | the events |
//! | `command` | what the embedding program asks |

mod command;
mod metadata;
mod notices;
mod notification;
mod record;

pub use command::GroupRequest;
pub(crate) use command::{GroupAnswer, GroupCommand, GroupCommands};
pub(crate) use metadata::{all_changed, forget, get};
pub(crate) use notification::notification;

/// Most pairs of phone number and LID that one group tells.
const MAX_TOLD: usize = 64;
