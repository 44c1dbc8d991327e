//! Privacy tokens: what an account gives to those that may open a chat with it (spec 03 §4.7).
//!
//! ```text
//!  Bob: <token jid=Alice t/> ──▶ token of Bob for Alice ──privacy_token──▶ Alice: <tctoken> with her first message to Bob
//! ```
//!
//! Nobody is asked for a token unless a test says so ([`Fault::DemandToken`](crate::Fault::DemandToken)). Then whoever has not
//! exchanged messages with the account must show the token, or the `cstoken` that follows from its own salt.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use wamd::crypto::{Rng as _, hkdf_sha256, hmac_sha256};
use wamd::message::privacy_token::Buckets;
use wamd::node::{Node, NodeRef};

use crate::core::{Core, leaf};
use crate::directory::{Account, Address, Namespace};
use crate::iq::Answer;

/// Tokens, by whoever gave them and whoever has them, and the accounts that demand them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    held: BTreeMap<(u64, u64), (Bytes, u64)>,
    pub(crate) demanded_by: BTreeSet<u64>,
}

/// Takes the tokens that an account gives, and brings each to the companions of whom it is for.
pub(crate) fn issue(core: &mut Core, address: Address, node: NodeRef<'_>) -> Answer {
    let Some(tokens) = node.child("tokens") else { return Answer::error(400, "bad-request") };
    let issuer = address.number;
    for asked in tokens.children_named("token") {
        let holder = asked.attr_jid("jid").and_then(|jid| core.directory.resolve(&jid)).map(|holder| holder.number);
        let (Some(holder), Some(at)) = (holder, asked.attr_u64("t")) else {
            return Answer::error(400, "bad-request");
        };
        let mut bytes = [0; TOKEN_LEN];
        core.rng.fill_bytes(&mut bytes);
        core.tokens.held.insert((issuer, holder), (Bytes::copy_from_slice(&bytes), at));
        tell(core, issuer, holder, &bytes, at);
    }
    Answer::empty()
}

fn tell(core: &mut Core, issuer: u64, holder: u64, bytes: &[u8], at: u64) {
    let Some(account) = core.directory.account(issuer) else { return };
    let (pn, lid) = (account.jid(Namespace::Pn, 0), account.alias(Namespace::Lid));
    let token = leaf("token", bytes).attr("type", "trusted_contact").attr("t", at);
    let companions: Vec<Address> = core.directory.companions(holder).collect();
    for companion in companions {
        core.notify(companion, "privacy_token", pn.clone(), |node| {
            node.attr_opt("sender_lid", lid.as_ref()).child(Node::new("tokens").child(token.clone()))
        });
    }
}

/// Whether a message may open the chat between two accounts, or goes on with one that there is.
pub(crate) fn admits(core: &Core, sender: u64, recipient: u64, message: &Node) -> bool {
    if !core.tokens.demanded_by.contains(&recipient) {
        return true;
    }
    let (Some(from), Some(to)) = (core.directory.account(sender), core.directory.account(recipient)) else {
        return false;
    };
    let shown = |tag: &str| message.find_child(tag).and_then(Node::content_bytes);
    let is_trusted = shown("tctoken").is_some_and(|shown| {
        let held = core.tokens.held.get(&(recipient, sender));
        held.is_some_and(|(token, at)| *token == shown && Buckets::default().is_valid(*at, core.now.unix_seconds()))
    });
    let is_own = shown("cstoken").is_some_and(|shown| {
        let name = to.jid(Namespace::Lid, 0).to_string();
        shown[..] == hmac_sha256(&salt(from), &[name.as_bytes()])[..]
    });
    from.contacts.contains(&recipient) || is_trusted || is_own
}

/// The NCT salt of an account, which its phone gives to its companions.
pub(crate) fn salt(account: &Account) -> [u8; 32] {
    hkdf_sha256(None, account.identity.private().expose(), b"wamd-loopback nct salt")
}

/// The bytes of a token.
const TOKEN_LEN: usize = 32;
