//! Linking (spec 01 §4, §5): refs are shown as QR codes, one after the other, until the phone scans one; beside them a code
//! may be typed ([`link_code`](super::link_code)) or a passkey used ([`passkey`](super::passkey)). The first pair-success
//! that verifies ends all of them.
//!
//! ```text
//!   AwaitRefs ──pair-device──► Showing(ref n) ──time──► Showing(ref n+1) … ──time──► exhausted
//!                                   │                                                   │ nothing else under way
//!                                   │ pair-success: HMAC, account signature             ▼
//!                                   ▼                                            closed, PENDING
//!                    keys and identity durable ──► pair-device-sign ──► 515, log in
//! ```
//!
//! The ADV secret is replaced by whoever needs a new one: the code when the phone has answered, the passkey when the phone
//! asks for it, and the server at will while nothing of these is under way. The QR code on the screen follows it.

use std::time::Duration;

use super::{
    CommandError, Engine,
    connection::{Loss, pauses::Class},
    link_code::CodeLink,
    passkey::PasskeyLink,
};
use crate::{
    clock::Now,
    crypto::Secret,
    engine::{account::Linked, keys, notices, queries::QueryError},
    event::LinkFailure,
    pairing::{
        PairError,
        adv::{self, SignedIdentity},
        notice::LinkNotice,
        qr::{QrContent, RefPlan, RefTurn},
        stanza::{self, PairDevice, PairSuccess},
    },
};

/// How often the server may end the stream by 515 in a row, before a login of ours succeeds, and be met again at once.
const MAX_RESTARTS: u32 = 2;

/// What goes on while linking.
#[derive(Debug)]
pub(crate) struct Link {
    plan: RefPlan,
    /// The code on the screen.
    turn: Option<RefTurn>,
    /// When the code on the screen ends; before the first, when the refs must have come.
    until: Duration,
    /// Every ref was shown. The connection stands for what goes on beside the QR codes.
    exhausted: bool,
    /// The phone vouched for us, and the server will end this connection.
    paired: bool,
}

impl Link {
    pub(crate) fn new(refs_until: Duration) -> Self {
        Self { plan: RefPlan::default(), turn: None, until: refs_until, exhausted: false, paired: false }
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        (self.paired || !self.exhausted).then_some(self.until)
    }

    /// Whether the server has sent refs: then it takes other requests to link, too.
    pub(super) const fn is_open(&self) -> bool {
        !self.paired && (self.turn.is_some() || self.exhausted)
    }
}

/// What goes on beside the QR codes, and what is remembered from one attempt to the next.
#[derive(Debug, Default)]
pub(crate) struct Linking {
    pub(super) code: Option<CodeLink>,
    pub(super) passkey: Option<PasskeyLink>,
    /// The server wants no request for a code before.
    pub(super) code_after: Option<Duration>,
    /// Numbers codes and passkeys, so that an answer to an old one is told apart.
    pub(super) serial: u64,
    /// Streams that the server ended by 515 in a row.
    restarts: u32,
}

impl Linking {
    pub(super) fn deadline(&self) -> Option<Duration> {
        let code = self.code.as_ref().map(CodeLink::deadline);
        let passkey = self.passkey.as_ref().map(PasskeyLink::deadline);
        code.into_iter().chain(passkey).min()
    }

    pub(super) const fn next_serial(&mut self) -> u64 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    const fn is_idle(&self) -> bool {
        self.code.is_none() && self.passkey.is_none()
    }
}

/// Why something beside the QR codes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) error: LinkFailure,
    /// The server's code.
    pub(crate) code: Option<u32>,
    /// How long the server wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

impl From<LinkFailure> for Failed {
    fn from(error: LinkFailure) -> Self {
        Self { error, code: None, retry_after: None }
    }
}

impl From<&QueryError> for Failed {
    fn from(error: &QueryError) -> Self {
        match error {
            QueryError::Refused(refusal) => Self {
                error: LinkFailure::of_code(refusal.code),
                code: Some(refusal.code),
                retry_after: refusal.backoff.map(|seconds| Duration::from_secs(seconds.min(MAX_BACKOFF_SECS))),
            },
            QueryError::Malformed(_) | QueryError::Pairing(_) => LinkFailure::Malformed.into(),
            QueryError::TimedOut => LinkFailure::Timeout.into(),
        }
    }
}

impl From<&PairError> for Failed {
    fn from(error: &PairError) -> Self {
        match error {
            PairError::WeakKey => LinkFailure::WeakKey.into(),
            _ => LinkFailure::Malformed.into(),
        }
    }
}

impl From<Failed> for CommandError {
    fn from(failed: Failed) -> Self {
        let Failed { error, code, retry_after } = failed;
        Self::Link { error, code, retry_after }
    }
}

impl Engine {
    // ---- QR codes ---------------------------------------------------------------------------------------------

    pub(super) fn pair_device(&mut self, now: Now, refs: PairDevice) {
        let Some(link) = self.connection.link().filter(|link| !link.paired) else { return };
        link.plan = RefPlan::new(refs.refs);
        link.exhausted = false;
        self.send_result(&refs.id);
        self.show_next_code(now);
        self.begin_code(now);
    }

    fn show_next_code(&mut self, now: Now) {
        let Some(link) = self.connection.link() else { return };
        link.turn = link.plan.next_turn();
        if let Some(turn) = &link.turn {
            link.until = now.mono.saturating_add(turn.lifetime);
            return self.draw_qr(now);
        }
        link.exhausted = true;
        self.emit(now, notices::qr_exhausted());
        self.link_ends_if_idle(now);
    }

    /// Shows the current ref with the current secret.
    fn draw_qr(&mut self, now: Now) {
        let Some(link) = self.connection.link() else { return };
        let Some(mut turn) = link.turn.clone() else { return };
        turn.lifetime = link.until.saturating_sub(now.mono);
        let account = &self.account;
        let content = QrContent::new(
            turn.reference.as_str(),
            *account.noise.public(),
            *account.identity.public(),
            account.adv_secret.clone(),
            self.config.client.client_type(),
        );
        let event = notices::qr_updated(now, content.text(), &turn);
        self.emit(now, event);
    }

    /// The secret in the QR code on the screen is void.
    pub(super) fn redraw_qr(&mut self, now: Now) {
        if self.connection.link().is_some_and(|link| !link.paired && !link.exhausted) {
            self.draw_qr(now);
        }
    }

    pub(super) fn expire_link(&mut self, now: Now) {
        let Some(link) = self.connection.link() else { return };
        if link.paired {
            self.timed_out(now, "the server did not end the connection after linking");
        } else if link.turn.is_none() {
            self.timed_out(now, "no codes in time");
        } else {
            self.show_next_code(now);
        }
    }

    /// Ends the attempt when the QR codes are used up and nothing else is under way.
    pub(super) fn link_ends_if_idle(&mut self, now: Now) {
        let exhausted = self.connection.link().is_some_and(|link| link.exhausted && !link.paired);
        if exhausted && self.linking.is_idle() {
            self.link_exhausted(now);
        }
    }

    // ---- notifications ----------------------------------------------------------------------------------------

    pub(super) fn link_notice(&mut self, now: Now, notice: LinkNotice) {
        if self.connection.link().is_none_or(|link| link.paired) {
            return;
        }
        match notice {
            LinkNotice::PrimaryHello(hello) => self.primary_hello(now, hello),
            LinkNotice::RefreshCode { manual } => self.code_refresh_wanted(now, manual),
            LinkNotice::RotateSecret => self.rotate_secret(now),
            LinkNotice::PasskeyRequest(options) => self.passkey_wanted(now, options),
            LinkNotice::PasskeyContinuation(primary) => self.passkey_continues(now, primary),
        }
    }

    /// The server wants a QR code with a new secret. Not while a code or a passkey may already rest on the current one.
    fn rotate_secret(&mut self, now: Now) {
        if !self.linking.is_idle() {
            return tracing::debug!("the ADV secret stays: another way to link is under way");
        }
        let secret = Secret::random(&mut self.rng);
        self.act(now, |step| step.account_mut().adv_secret = secret);
        self.redraw_qr(now);
    }

    // ---- the end ----------------------------------------------------------------------------------------------

    /// The phone vouches for us. Nothing is believed before the HMAC and the account's signature are checked, and the server
    /// hears of it only when everything is durable.
    pub(super) fn pair_success(&mut self, now: Now, success: PairSuccess) {
        if self.connection.link().is_none_or(|link| link.paired) {
            return;
        }
        let signed = adv::verify(&success.identity, &self.account.adv_secret, self.account.identity.public())
            .and_then(|verified| verified.sign(&self.account.identity, &mut self.rng));
        match signed {
            Ok(signed) => self.linked(now, success, &signed),
            Err(error) => self.pair_failed(now, Some(&success.id), &error),
        }
    }

    fn linked(&mut self, now: Now, success: PairSuccess, signed: &SignedIdentity) {
        let id = success.id;
        let linked = Linked {
            pn: success.jid,
            lid: success.lid,
            device_identity: signed.to_bytes().into(),
            platform: success.platform.unwrap_or_default(),
            business_name: success.business_name,
        };
        self.act(now, |step| {
            let signed_pre_key = step.account().signed_pre_key.clone();
            step.put(keys::signed_pre_key(signed_pre_key.id), &signed_pre_key.pair);
            // The account's key is the identity of its primary device (spec 01 §4.5).
            let primary = linked.lid.as_ref().unwrap_or(&linked.pn).with_device(0);
            let address = crate::signal::Address::new(&primary.to_string());
            step.put(keys::identity(&address), &signed.account_key().as_bytes()[..]);
            step.emit(notices::paired(&linked));
            step.account_mut().linked = Some(linked);
            step.send(&stanza::sign(&id, signed));
        });
        self.drop_side_links(CommandError::AlreadyLinked);
        self.connection.now_linked();
        let until = now.mono.saturating_add(self.config.login_timeout);
        if let Some(link) = self.connection.link() {
            link.paired = true;
            link.until = until;
        }
    }

    /// Tells server and application, and ends the attempt unlinked.
    pub(super) fn pair_failed(&mut self, now: Now, id: Option<&str>, error: &PairError) {
        tracing::warn!(%error, "linking failed");
        if self.connection.link().is_none_or(|link| link.paired) {
            return;
        }
        if let Some(id) = id {
            self.send_free(&stanza::error(id, error));
        }
        // The event says it for everything that was under way.
        self.drop_side_links(Failed::from(LinkFailure::ConnectionLost).into());
        self.emit(now, notices::pair_error(error));
        self.lose(now, Loss::Stop);
    }

    /// Forgets what goes on beside the QR codes, without an event.
    fn drop_side_links(&mut self, answer: CommandError) {
        self.linking.passkey = None;
        if let Some(caller) = self.linking.code.take().and_then(|code| code.caller()) {
            self.answer(caller, Err(answer));
        }
    }

    /// Ends what goes on beside the QR codes, and tells it.
    pub(super) fn end_side_links(&mut self, now: Now, failure: LinkFailure) {
        if let Some(code) = self.linking.code.take() {
            self.tell_code_failed(now, &code, failure.into());
        }
        if self.linking.passkey.take().is_some() {
            self.emit(now, notices::passkey_error(&failure.into()));
        }
    }

    /// The connection ends, whatever it was for. Gives what follows, which is not the same while linking: nothing of a code or a
    /// passkey survives, nobody comes back when the QR codes are used up, and a server that restarts the stream without end
    /// is met again after a pause.
    pub(super) fn link_lost(&mut self, now: Now, loss: Loss) -> Loss {
        let link = self.connection.link().map(|link| (link.paired, link.exhausted));
        self.end_side_links(now, LinkFailure::ConnectionLost);
        let slowly = |detail: &str| Loss::server(Class::Server, detail);
        match (loss, link) {
            (Loss::Retry { .. }, Some((false, true))) => Loss::Stop,
            (Loss::Restart, Some((false, _))) => slowly("the server restarts the stream while linking"),
            (Loss::Restart, Some((true, _))) => {
                self.linking.restarts = 0;
                Loss::Restart
            }
            (Loss::Restart, None) if self.connection.online().is_none() => {
                self.linking.restarts = self.linking.restarts.saturating_add(1);
                if self.linking.restarts > MAX_RESTARTS {
                    slowly("the server restarts the stream again and again")
                } else {
                    Loss::Restart
                }
            }
            (loss, _) => {
                self.linking.restarts = 0;
                loss
            }
        }
    }
}

/// Longest pause that a server can ask for before the next code: a day.
const MAX_BACKOFF_SECS: u64 = 86_400;
