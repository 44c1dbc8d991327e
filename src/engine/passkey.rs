//! Linking with a passkey: the phone asks for a WebAuthn assertion, the application obtains it (spec 01 §5.8).
//!
//! ```text
//!   passkey_prologue_request ──► secret replaced, durable ──► options there? ──no──► AwaitOptions
//!                                                                 │ yes                  │
//!                                                                 ▼                      ▼
//!                     session.passkey_request ◄──────────────  AwaitAssertion ◄──────────┘
//!                                                                 │ assertion
//!                                                                 ▼
//!                                AwaitReference ──ref──► AwaitPrimary ──crsc_continuation──► nonce sent, both show a code
//!                                                                                               │
//!                                        AwaitConfirmation ◄────────── not proved ──────────────┤
//!                                                │ confirmed                                    │ proved
//!                                                ▼                                              ▼
//!                                            encrypted_pairing_request ──► AwaitSuccess ──► pair-success
//! ```
//!
//! "Proved": the prologue carried the proof that we are the device whose QR code was scanned, which the phone takes instead of
//! a confirmation. Nothing survives the connection. The protocol gives no times but the five minutes of the proof; the
//! others are ours.

use std::time::Duration;

use bytes::Bytes;
use rand_core::Rng as _;
use serde_json::Value;

use super::{
    CommandError, Engine, Reply,
    link::Failed,
    notices,
    queries::{Query, QueryError},
};
use crate::{
    clock::Now,
    crypto::Secret,
    event::LinkFailure,
    node::Node,
    pairing::{
        PairError,
        passkey::{self, Agreement, Assertion, Commitment, PrimaryIdentity},
    },
};

/// How long the proof is good for (spec 01 §5.8).
const HANDOFF_LIFETIME: Duration = Duration::from_secs(300);
/// How long people may take with the authenticator. After the life of the proof it goes on without one.
const ASSERTION_TIMEOUT: Duration = Duration::from_secs(600);
/// How long people may take with the phone, and with comparing the code.
const PERSON_TIMEOUT: Duration = Duration::from_secs(300);
/// How long the server may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the phone may take at the end.
const SUCCESS_TIMEOUT: Duration = Duration::from_secs(60);

/// A link with a passkey that is under way.
#[derive(Debug)]
pub(crate) struct PasskeyLink {
    serial: u64,
    /// Made of the secret that was in the QR code.
    handoff: Secret<32>,
    handoff_until: Duration,
    stage: Stage,
    until: Duration,
}

#[derive(Debug)]
#[expect(clippy::enum_variant_names, reason = "every stage waits for something, as the states of a connection do")]
enum Stage {
    AwaitOptions,
    AwaitAssertion,
    AwaitReference(Assertion),
    AwaitPrimary { commitment: Commitment, proved: bool },
    AwaitConfirmation(Agreement),
    AwaitSuccess,
}

impl PasskeyLink {
    pub(super) const fn deadline(&self) -> Duration {
        self.until
    }
}

impl Engine {
    /// The phone wants a passkey. The secret of the QR code proves who we are, and is replaced.
    pub(super) fn passkey_wanted(&mut self, now: Now, options: Result<Option<Bytes>, PairError>) {
        if let Some(code) = self.linking.code.take() {
            if code.is_answered() {
                // The phone is about to use the secret that the code gave.
                self.linking.code = Some(code);
                return tracing::debug!("a code was typed already: no passkey");
            }
            self.tell_code_failed(now, &code, LinkFailure::Superseded.into());
        }
        let options = match options {
            Ok(options) => options,
            Err(error) => return self.passkey_failed(now, &Failed::from(&error)),
        };
        let serial = self.linking.next_serial();
        let handoff = passkey::handoff_key(&self.account.adv_secret);
        let fresh = Secret::random(&mut self.rng);
        self.act(now, |step| {
            let account = step.account_mut();
            account.adv_secret = fresh;
            account.kept = true;
        });
        self.redraw_qr(now);
        let handoff_until = now.mono + HANDOFF_LIFETIME;
        let until = now.mono + ANSWER_TIMEOUT;
        self.linking.passkey = Some(PasskeyLink { serial, handoff, handoff_until, stage: Stage::AwaitOptions, until });
        match options {
            Some(options) => self.passkey_options(now, serial, Ok(options)),
            None => self.ask_within(now, Query::PasskeyOptions(serial), passkey::options_request()),
        }
    }

    /// The options are there: the application obtains the assertion.
    pub(super) fn passkey_options(&mut self, now: Now, serial: u64, options: Result<Bytes, QueryError>) {
        let Some(link) = self.passkey_in(serial, |stage| matches!(stage, Stage::AwaitOptions)) else { return };
        let options = options.map_err(|error| Failed::from(&error)).and_then(|options| {
            serde_json::from_slice::<Value>(&options).map_err(|_| Failed::from(LinkFailure::Malformed))
        });
        match options {
            Ok(options) => {
                link.stage = Stage::AwaitAssertion;
                link.until = now.mono + ASSERTION_TIMEOUT;
                self.emit(now, notices::passkey_request(now, options, ASSERTION_TIMEOUT));
            }
            Err(failed) => self.passkey_failed(now, &failed),
        }
    }

    /// The application hands the assertion in.
    pub(super) fn passkey_assertion(&mut self, now: Now, assertion: Assertion) -> Result<Reply, CommandError> {
        let serial = self.linking.serial;
        if assertion.credential_id.is_empty() || assertion.json.is_empty() {
            return Err(CommandError::Content("the assertion is empty"));
        }
        if assertion.credential_id.len().max(assertion.json.len()) > passkey::MAX_OPTIONS_LEN {
            return Err(CommandError::Content("the assertion is too large"));
        }
        let link = self.passkey_in(serial, |stage| matches!(stage, Stage::AwaitAssertion));
        let link = link.ok_or(CommandError::NoPasskey)?;
        link.stage = Stage::AwaitReference(assertion);
        link.until = now.mono + ANSWER_TIMEOUT;
        self.ask_within(now, Query::PasskeyReference(serial), passkey::reference_request());
        Ok(Reply::Done)
    }

    /// The reference is there: commits to an ephemeral key.
    pub(super) fn passkey_reference(&mut self, now: Now, serial: u64, reference: Result<String, QueryError>) {
        let platform = self.config.client.platform_type;
        let reference = match reference {
            Ok(reference) => reference,
            Err(error) => return self.passkey_step_failed(now, serial, &error),
        };
        let commitment = Commitment::generate(platform, reference, &mut self.rng);
        let Some(link) = self.passkey_in(serial, |stage| matches!(stage, Stage::AwaitReference(_))) else { return };
        let handoff = (now.mono < link.handoff_until).then(|| link.handoff.clone());
        let stage = Stage::AwaitPrimary { commitment: commitment.clone(), proved: handoff.is_some() };
        let Stage::AwaitReference(assertion) = std::mem::replace(&mut link.stage, stage) else { return };
        link.until = now.mono + PERSON_TIMEOUT;
        let request = passkey::prologue_request(&assertion, commitment.prologue(), handoff.as_ref());
        self.ask_within(now, Query::PasskeyStep(serial), request);
    }

    /// The phone has shown its key: ours is shown, and with it the code to compare.
    pub(super) fn passkey_continues(&mut self, now: Now, primary: Result<PrimaryIdentity, PairError>) {
        let serial = self.linking.serial;
        let Some(link) = self.passkey_in(serial, |stage| matches!(stage, Stage::AwaitPrimary { .. })) else { return };
        let Stage::AwaitPrimary { commitment, proved } = &link.stage else { return };
        let (proved, nonce) = (*proved, passkey::nonce_request(commitment.nonce()));
        let agreement = match primary.and_then(|primary| commitment.agree(&primary)) {
            Ok(agreement) => agreement,
            Err(error) => return self.passkey_failed(now, &Failed::from(&error)),
        };
        let code = agreement.code().clone();
        link.stage = Stage::AwaitConfirmation(agreement);
        link.until = now.mono + PERSON_TIMEOUT;
        self.ask_within(now, Query::PasskeyStep(serial), nonce);
        self.emit(now, notices::passkey_confirmation(&code, !proved));
        if proved {
            self.request_pairing(now, serial);
        }
    }

    /// The person says that both codes are the same.
    pub(super) fn passkey_confirm(&mut self, now: Now) -> Result<Reply, CommandError> {
        let serial = self.linking.serial;
        let waits = self.passkey_in(serial, |stage| matches!(stage, Stage::AwaitConfirmation(_))).is_some();
        if !waits {
            return Err(CommandError::NoPasskey);
        }
        self.request_pairing(now, serial);
        Ok(Reply::Done)
    }

    fn request_pairing(&mut self, now: Now, serial: u64) {
        let mut iv = [0; 12];
        self.rng.fill_bytes(&mut iv);
        let (noise, identity) = (*self.account.noise.public(), *self.account.identity.public());
        let adv_secret = self.account.adv_secret.clone();
        let Some(link) = self.passkey_in(serial, |stage| matches!(stage, Stage::AwaitConfirmation(_))) else { return };
        let Stage::AwaitConfirmation(agreement) = std::mem::replace(&mut link.stage, Stage::AwaitSuccess) else {
            return;
        };
        link.until = now.mono + SUCCESS_TIMEOUT;
        let sealed = agreement.seal(&noise, &identity, &adv_secret, iv);
        self.ask_within(now, Query::PasskeyStep(serial), passkey::pairing_request(sealed));
    }

    /// The server has taken a step, or not.
    pub(super) fn passkey_step(&mut self, now: Now, serial: u64, answer: Result<(), QueryError>) {
        if let Err(error) = answer {
            self.passkey_step_failed(now, serial, &error);
        }
    }

    fn passkey_step_failed(&mut self, now: Now, serial: u64, error: &QueryError) {
        if self.passkey_in(serial, |_| true).is_some() {
            self.passkey_failed(now, &Failed::from(error));
        }
    }

    fn passkey_failed(&mut self, now: Now, failed: &Failed) {
        self.linking.passkey = None;
        self.emit(now, notices::passkey_error(failed));
        self.link_ends_if_idle(now);
    }

    pub(super) fn expire_passkey(&mut self, now: Now) {
        if self.linking.passkey.as_ref().is_some_and(|link| link.until <= now.mono) {
            self.passkey_failed(now, &LinkFailure::Timeout.into());
        }
    }

    /// The link of this number, in this stage.
    fn passkey_in(&mut self, serial: u64, stage: impl FnOnce(&Stage) -> bool) -> Option<&mut PasskeyLink> {
        self.linking.passkey.as_mut().filter(|link| link.serial == serial && stage(&link.stage))
    }

    /// Asks what rests on the secret: it leaves when that is durable.
    fn ask_within(&mut self, now: Now, query: Query, request: Node) {
        let id = self.queries.ask(query, now.mono + ANSWER_TIMEOUT);
        self.act(now, |step| step.send(&request.attr("id", id)));
    }
}
