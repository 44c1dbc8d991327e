//! Linking by phone number: a code is shown here and typed on the phone (spec 01 §5).
//!
//! ```text
//!   AwaitRefs ──pair-device──► Wrapping ──key──► AwaitReference ──ref──► AwaitHello          the code is shown
//!                                 ▲                                        │   ▲
//!                                 │ new code                 primary_hello │   │ weak key
//!                                 │                                        ▼   │
//!                refresh_code, 60 s without pair-success               Unwrapping ──key──► secret durable
//!                                 │                                        ▲                    │ companion_finish
//!                                 │                          primary_hello │                    ▼
//!                                 └────────────────────────────────────────┴────────────── AwaitSuccess
//! ```
//!
//! A code lives 180 s from when it was drawn and takes three primary_hellos. One is outstanding at a time: asking for another
//! one makes the first void, unless the phone has answered to it. A hello with a weak key, after a bundle was sent, leads back to
//! AwaitSuccess. Nothing survives the connection. Stretching the code for
//! the two ephemeral keys is done elsewhere ([`CpuJob`]); a key that comes too late finds nobody.

use std::time::Duration;

use bytes::Bytes;
use rand_core::Rng as _;

use super::{
    CommandError, CommandId, CpuId, CpuJob, Engine, Output, Queued, Reply,
    link::Failed,
    notices,
    queries::{Query, QueryError},
};
use crate::{
    clock::Now,
    crypto::{KeyPair, Secret, constant_time_eq},
    event::{LinkFailure, RefreshReason},
    pairing::{
        PairError,
        code::{self, FinishRandom, Hello, Keys, PairCode, PhoneNumber, PrimaryHello, WrappedKey},
    },
};

/// How long a code is valid, from when it was drawn (spec 01 §5.7).
const LIFETIME: Duration = Duration::from_secs(180);
/// How many primary_hellos one code takes (spec 01 §5.7).
const MAX_HELLOS: u32 = 3;
/// How long after a primary_hello the pair-success may take: the phone says nothing when it cannot open the bundle
/// (spec 01 §5.7).
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the server may take to answer companion_hello and companion_finish (spec 01 §5.7).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request waits for a connection with refs.
const REFS_TIMEOUT: Duration = Duration::from_secs(60);
/// How many new codes one request leads to by itself.
const MAX_REFRESHES: u32 = 3;

/// A request to link by code.
#[derive(Debug)]
pub(crate) struct CodeLink {
    request: Request,
    /// Who waits for the code, until it is shown.
    caller: Option<CommandId>,
    refreshes: u32,
    stage: Stage,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) phone: PhoneNumber,
    /// The caller's own code.
    pub(crate) code: Option<PairCode>,
    /// Whether the phone shows a notification.
    pub(crate) notify: bool,
}

#[derive(Debug)]
enum Stage {
    AwaitRefs { until: Duration },
    Wrapping { code: Live, job: CpuId },
    AwaitReference { code: Live },
    AwaitHello { code: Live, reference: Bytes },
    Unwrapping { code: Live, hello: PrimaryHello, job: CpuId, until: Duration },
    AwaitSuccess { code: Live, reference: Bytes, until: Duration },
}

/// One code.
#[derive(Debug)]
struct Live {
    code: PairCode,
    ephemeral: KeyPair,
    salt: [u8; 32],
    iv: [u8; 16],
    serial: u64,
    until: Duration,
    /// primary_hellos so far.
    hellos: u32,
    /// The phone may have a bundle, which a later hello that is no good does not take back.
    bundled: bool,
}

impl CodeLink {
    pub(super) const fn caller(&self) -> Option<CommandId> {
        self.caller
    }

    pub(super) const fn deadline(&self) -> Duration {
        match &self.stage {
            Stage::AwaitRefs { until } | Stage::Unwrapping { until, .. } | Stage::AwaitSuccess { until, .. } => *until,
            Stage::Wrapping { code, .. } | Stage::AwaitReference { code } | Stage::AwaitHello { code, .. } => {
                code.until
            }
        }
    }

    /// The phone has answered: the ADV secret and the code must stay as they are.
    pub(super) const fn is_answered(&self) -> bool {
        matches!(self.stage, Stage::Unwrapping { .. } | Stage::AwaitSuccess { .. })
    }

    /// The reference of the code on the screen, and until when the code is valid.
    fn shown(&self) -> Option<(&Bytes, Duration)> {
        match &self.stage {
            Stage::AwaitHello { code, reference } | Stage::AwaitSuccess { code, reference, .. } => {
                Some((reference, code.until))
            }
            Stage::Unwrapping { code, hello, .. } => Some((&hello.reference, code.until)),
            Stage::AwaitRefs { .. } | Stage::Wrapping { .. } | Stage::AwaitReference { .. } => None,
        }
    }

    const fn serial(&self) -> Option<u64> {
        match &self.stage {
            Stage::AwaitRefs { .. } => None,
            Stage::Wrapping { code, .. }
            | Stage::AwaitReference { code }
            | Stage::AwaitHello { code, .. }
            | Stage::Unwrapping { code, .. }
            | Stage::AwaitSuccess { code, .. } => Some(code.serial),
        }
    }
}

impl Engine {
    // ---- the request ------------------------------------------------------------------------------------------

    /// Links by code: connects if that is needed, and answers when the server has accepted the code.
    pub(super) fn link_code(&mut self, now: Now, caller: CommandId, request: Request) {
        if let Some(refused) = self.refuse_code(now) {
            return self.answer(caller, Err(refused));
        }
        if let Some(code) = self.linking.code.take() {
            self.tell_code_failed(now, &code, LinkFailure::Superseded.into());
        }
        if let Err(refused) = self.link(now) {
            return self.answer(caller, Err(refused));
        }
        let stage = Stage::AwaitRefs { until: now.mono + REFS_TIMEOUT };
        self.linking.code = Some(CodeLink { request, caller: Some(caller), refreshes: 0, stage });
        self.begin_code(now);
    }

    fn refuse_code(&mut self, now: Now) -> Option<CommandError> {
        if self.account.linked.is_some() {
            return Some(CommandError::AlreadyLinked);
        }
        let busy = self.linking.code.as_ref().is_some_and(CodeLink::is_answered) || self.linking.passkey.is_some();
        if busy {
            return Some(CommandError::LinkUnderWay);
        }
        let left = self.linking.code_after?.checked_sub(now.mono).filter(|left| !left.is_zero())?;
        Some(Failed { error: LinkFailure::RateLimited, code: Some(429), retry_after: Some(left) }.into())
    }

    /// Draws the code when the server is ready for one, and has it stretched.
    pub(super) fn begin_code(&mut self, now: Now) {
        let waits = matches!(&self.linking.code, Some(CodeLink { stage: Stage::AwaitRefs { .. }, .. }));
        if waits && self.connection.link().is_some_and(|link| link.is_open()) {
            self.draw_code(now);
        }
    }

    fn draw_code(&mut self, now: Now) {
        let serial = self.linking.next_serial();
        let Some(link) = &self.linking.code else { return };
        let code = match &link.request.code {
            Some(code) => code.clone(),
            None => PairCode::generate(&mut self.rng),
        };
        let (mut salt, mut iv) = ([0; 32], [0; 16]);
        self.rng.fill_bytes(&mut salt);
        self.rng.fill_bytes(&mut iv);
        let ephemeral = KeyPair::generate(&mut self.rng);
        let job = self.stretch_code(&code, salt);
        let code = Live { code, ephemeral, salt, iv, serial, until: now.mono + LIFETIME, hellos: 0, bundled: false };
        if let Some(link) = &mut self.linking.code {
            link.stage = Stage::Wrapping { code, job };
        }
    }

    /// A stretched code has come: of ours for companion_hello, or for the phone's key.
    pub(super) fn code_key(&mut self, now: Now, id: CpuId, key: &Secret<32>) {
        let Some(mut link) = self.linking.code.take() else { return };
        link.stage = match link.stage {
            Stage::Wrapping { code, job } if job == id => {
                self.send_hello(now, &link.request, &code, key);
                Stage::AwaitReference { code }
            }
            Stage::Unwrapping { mut code, hello, job, until } if job == id => {
                match self.send_finish(now, &link.request.phone, &code, &hello, key) {
                    Ok(()) => code.bundled = true,
                    Err(error) => self.emit(now, notices::pair_code_error(&Failed::from(&error), true)),
                }
                match (code.bundled, hello.reference) {
                    (true, reference) => Stage::AwaitSuccess { code, reference, until },
                    (false, reference) => Stage::AwaitHello { code, reference },
                }
            }
            // Of a code that is void.
            other => other,
        };
        self.linking.code = Some(link);
    }

    fn send_hello(&mut self, now: Now, request: &Request, code: &Live, key: &Secret<32>) {
        let wrapped = WrappedKey::seal(code.ephemeral.public(), key, code.salt, code.iv);
        let hello = code::hello(&Hello {
            phone: &request.phone,
            notify: request.notify,
            wrapped: &wrapped,
            noise: self.account.noise.public(),
            client: &self.config.client,
        });
        let id = self.queries.ask(Query::CodeHello(code.serial), now.mono + ANSWER_TIMEOUT);
        self.send_free(&hello.attr("id", id));
    }

    /// The server has accepted the code, or not.
    pub(super) fn code_accepted(&mut self, now: Now, serial: u64, answer: Result<Bytes, QueryError>) {
        let Some(link) = self.linking.code.take_if(|link| link.serial() == Some(serial)) else { return };
        let CodeLink { request, caller, refreshes, stage } = link;
        let code = match (stage, answer) {
            (Stage::AwaitReference { code }, Ok(reference)) => {
                let left = code.until.saturating_sub(now.mono);
                let (shown, expires_at) = (code.code.clone(), notices::wall_after(now, left));
                self.act(now, |step| {
                    step.emit(notices::pair_code(now, &shown, left));
                    if let Some(caller) = caller {
                        step.reply(caller, Ok(Reply::PairCode { code: shown, expires_at }));
                    }
                });
                let stage = Stage::AwaitHello { code, reference };
                CodeLink { request, caller: None, refreshes, stage }
            }
            (stage, Err(error)) => {
                let link = CodeLink { request, caller, refreshes, stage };
                return self.code_failed(now, &link, Failed::from(&error));
            }
            (stage, Ok(_)) => CodeLink { request, caller, refreshes, stage },
        };
        self.linking.code = Some(code);
    }

    // ---- the phone --------------------------------------------------------------------------------------------

    /// Somebody typed a code on the phone.
    pub(super) fn primary_hello(&mut self, now: Now, hello: Result<PrimaryHello, PairError>) {
        // Without a code that is shown it can only be meant for an older one.
        let Some((reference, valid_until)) = self.linking.code.as_ref().and_then(CodeLink::shown) else { return };
        let hello = match hello {
            Ok(hello) if !constant_time_eq(&hello.reference, reference) => Err(LinkFailure::WrongRef.into()),
            Ok(hello) => Ok(hello),
            Err(error) => Err(Failed::from(&error)),
        };
        match hello {
            Ok(hello) if now.mono < valid_until => self.unwrap_hello(now, hello),
            Ok(_) => {}
            Err(refused) => self.emit(now, notices::pair_code_error(&refused, true)),
        }
    }

    /// Has the code stretched for the phone's key.
    fn unwrap_hello(&mut self, now: Now, hello: PrimaryHello) {
        let Some(mut link) = self.linking.code.take() else { return };
        let (mut code, reference) = match link.stage {
            Stage::AwaitHello { code, reference } | Stage::AwaitSuccess { code, reference, .. } => (code, reference),
            Stage::Unwrapping { code, hello, .. } => (code, hello.reference),
            other => {
                link.stage = other;
                self.linking.code = Some(link);
                return;
            }
        };
        code.hellos += 1;
        if code.hellos > MAX_HELLOS {
            link.stage = Stage::AwaitHello { code, reference };
            return self.code_failed(now, &link, LinkFailure::TooManyAttempts.into());
        }
        // What the server says to an earlier bundle does not concern the one that this hello leads to.
        code.serial = self.linking.next_serial();
        let job = self.stretch_code(&code.code, *hello.wrapped.salt());
        link.stage = Stage::Unwrapping { code, hello, job, until: now.mono + CONFIRM_TIMEOUT };
        self.linking.code = Some(link);
    }

    fn stretch_code(&mut self, code: &PairCode, salt: [u8; 32]) -> CpuId {
        let job = CpuId(self.next_cpu);
        self.next_cpu += 1;
        self.gate.push_free(Queued::Output(Output::Cpu(job, CpuJob::stretch_code(code.clone(), salt))));
        job
    }

    /// Sends the bundle, when the secret that it gives is durable.
    fn send_finish(
        &mut self,
        now: Now,
        phone: &PhoneNumber,
        code: &Live,
        hello: &PrimaryHello,
        key: &Secret<32>,
    ) -> Result<(), PairError> {
        let primary = hello.wrapped.open(key);
        let random = FinishRandom::generate(&mut self.rng);
        let ours = Keys { identity: &self.account.identity, ephemeral: &code.ephemeral };
        let finish = code::finish(ours, Keys { identity: &hello.identity, ephemeral: &primary }, &random)?;
        let request = code::finish_request(phone, &finish, self.account.identity.public(), &hello.reference);
        let id = self.queries.ask(Query::CodeFinish(code.serial), now.mono + ANSWER_TIMEOUT);
        self.act(now, |step| {
            let account = step.account_mut();
            account.adv_secret = finish.adv_secret;
            account.kept = true;
            step.send(&request.attr("id", id));
        });
        self.redraw_qr(now);
        Ok(())
    }

    /// The server has passed the bundle on, or not.
    pub(super) fn code_finished(&mut self, now: Now, serial: u64, answer: Result<(), QueryError>) {
        let Err(error) = answer else { return };
        let ours = |link: &mut CodeLink| link.is_answered() && link.serial() == Some(serial);
        if let Some(link) = self.linking.code.take_if(ours) {
            self.code_failed(now, &link, Failed::from(&error));
        }
    }

    // ---- the end ----------------------------------------------------------------------------------------------

    /// The server wants another code. If only a person may ask for it, the request ends.
    pub(super) fn code_refresh_wanted(&mut self, now: Now, manual: bool) {
        if let Some(link) = self.linking.code.take_if(|link| link.shown().is_some()) {
            self.refresh_code(now, link, RefreshReason::Server, manual);
        }
    }

    fn refresh_code(&mut self, now: Now, mut link: CodeLink, reason: RefreshReason, manual: bool) {
        if link.refreshes >= MAX_REFRESHES {
            return self.code_failed(now, &link, LinkFailure::TooManyAttempts.into());
        }
        self.emit(now, notices::pair_code_refresh(reason, !manual));
        if manual {
            return self.link_ends_if_idle(now);
        }
        link.refreshes += 1;
        self.linking.code = Some(link);
        self.draw_code(now);
    }

    /// The code's time is up, if it is.
    pub(super) fn expire_code(&mut self, now: Now) {
        let Some(link) = self.linking.code.take_if(|link| link.deadline() <= now.mono) else { return };
        match &link.stage {
            Stage::AwaitHello { .. } => self.code_failed(now, &link, LinkFailure::Expired.into()),
            Stage::Unwrapping { .. } | Stage::AwaitSuccess { .. } => {
                self.refresh_code(now, link, RefreshReason::Unconfirmed, false);
            }
            Stage::AwaitRefs { .. } | Stage::Wrapping { .. } | Stage::AwaitReference { .. } => {
                self.code_failed(now, &link, LinkFailure::Timeout.into());
            }
        }
    }

    /// The request ends, and the attempt with it if nothing else is under way.
    fn code_failed(&mut self, now: Now, link: &CodeLink, failed: Failed) {
        if let (LinkFailure::RateLimited, Some(pause)) = (failed.error, failed.retry_after) {
            self.linking.code_after = Some(now.mono + pause);
        }
        self.tell_code_failed(now, link, failed);
        self.link_ends_if_idle(now);
    }

    pub(super) fn tell_code_failed(&mut self, now: Now, link: &CodeLink, failed: Failed) {
        let caller = link.caller;
        self.act(now, |step| {
            step.emit(notices::pair_code_error(&failed, false));
            if let Some(caller) = caller {
                step.reply(caller, Err(failed.into()));
            }
        });
    }
}
