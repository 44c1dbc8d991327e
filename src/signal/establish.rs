//! Starting a session: the curve work as a function of plain data, and its result put into the records (spec 03 §2.1).
//!
//! ```text
//!  own keys, bundle, rng ──prepare──► Prepared ──install──► Session, archived states, identity
//!        four or five exchanges, a signature            reads and writes, no curve
//! ```
//!
//! Whoever starts sessions with hundreds of devices prepares them elsewhere, a few at a time, and installs them as they come.

use crate::crypto::{CryptoRng, KeyPair, PublicKey};

use super::{
    Address, IdentityChange, Own, PreKeyBundle, SignalError, SignalStore, State, StateId, StepError,
    archive::Replacement,
    chain::root_step,
    skipped::SkippedIndex,
    state::{Pending, ReceiverChain, Sender, SenderChain},
    x3dh,
};

/// A session that is ready, but not in any store: what [`prepare`] makes of a bundle and [`install`] takes.
///
/// Owned plain data, so it may come from another thread. Its secrets are wiped when it is dropped, and never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Without its id, which is the store's to give.
    state: State,
}

impl Prepared {
    /// The identity that the session is with.
    pub const fn identity(&self) -> &PublicKey {
        self.state.remote_identity()
    }
}

/// Does all curve work of a session to be started: checks the bundle, agrees on the keys, makes the first sending chain.
///
/// The base key is drawn from `rng` first, then the ratchet key; nothing is drawn for a bundle with a bad signature.
///
/// # Errors
/// [`SignalError::BadSignature`] unless the identity signed the signed prekey, [`SignalError::Key`] for a key of small order.
pub fn prepare(own: &Own<'_>, bundle: &PreKeyBundle, rng: &mut impl CryptoRng) -> Result<Prepared, SignalError> {
    x3dh::verify_bundle(bundle)?;
    let (base, ratchet) = (KeyPair::generate(rng), KeyPair::generate(rng));
    // Id 0 means absent on the wire: a responder would leave such a key out, so leave it out as well.
    let pre_key = bundle.pre_key.as_ref().filter(|(id, _)| id.0 != 0);
    let (root, receiving) = x3dh::initiate(own.identity, &base, bundle, pre_key.map(|(_, key)| key))?;
    let (root, sending) = root_step(&root, ratchet.private(), &bundle.signed_pre_key)?;
    let state = State {
        id: StateId(0),
        local_identity: *own.identity.public(),
        remote_identity: bundle.identity,
        local_registration_id: own.registration_id,
        remote_registration_id: bundle.registration_id,
        base_key: *base.public(),
        root,
        previous_counter: 0,
        pending: Some(Pending { pre_key: pre_key.map(|(id, _)| *id), signed_pre_key: bundle.signed_pre_key_id }),
        sender: Sender::Chain(SenderChain { ratchet, chain: sending, lease: None }),
        receivers: vec![ReceiverChain {
            serial: 0,
            ratchet: bundle.signed_pre_key,
            chain: receiving,
            skipped: SkippedIndex::default(),
        }],
        next_chain: 1,
    };
    Ok(Prepared { state })
}

/// Makes a prepared session the current one; messages go out as pkmsg until the other side has answered.
///
/// The state that was current is archived. When the identity differs from the one known, the new one is trusted, and
/// all sessions built on the old one are dropped. The records may have changed since the session was prepared, also by a
/// session that the other side started in the meantime: that is archived, and both sides come together as in any
/// simultaneous start (spec 03 §2.6). Installing a session that is there already changes nothing, since with its first keys
/// two messages would go out.
///
/// # Errors
/// [`StepError::Miss`] when a record is not loaded: run it again with the same session then. [`SignalError::Exhausted`]
/// after 2^32 sessions with one device. Nothing is written in either case.
pub fn install<S: SignalStore>(
    store: &mut S,
    address: &Address,
    prepared: &Prepared,
) -> Result<IdentityChange, StepError<S::Miss>> {
    let identity = *prepared.identity();
    let (mut session, replacement) = Replacement::read(store, address, &identity).map_err(StepError::Miss)?;
    let is_this = |state: &State| state.base_key == prepared.state.base_key && state.remote_identity == identity;
    if session.current.as_ref().is_some_and(is_this) || replacement.keeps(&prepared.state.base_key) {
        return Ok(IdentityChange::Unchanged);
    }
    let state = State { id: session.take_id()?, ..prepared.state.clone() };
    let change = replacement.change(&identity);
    replacement.write(store, address, &mut session, state, identity);
    store.put_session(address, session);
    Ok(change)
}

/// Starts a session from a bundle: [`prepare`] and [`install`] in one step, which draws and computes nothing before all
/// records are at hand.
///
/// # Errors
/// Those of the two. Nothing is written then.
pub fn establish<S: SignalStore>(
    store: &mut S,
    own: &Own<'_>,
    address: &Address,
    bundle: &PreKeyBundle,
    rng: &mut impl CryptoRng,
) -> Result<IdentityChange, StepError<S::Miss>> {
    Replacement::read(store, address, &bundle.identity).map_err(StepError::Miss)?;
    install(store, address, &prepare(own, bundle, rng)?)
}
