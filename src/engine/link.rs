//! Linking by QR code (spec 01 §4): refs are shown one after the other until the phone scans one.
//!
//! ```text
//!   AwaitRefs ──pair-device──► Showing(ref n) ──time──► Showing(ref n+1) … ──time──► exhausted
//!                                   │ pair-success: HMAC, account signature
//!                                   ▼
//!                    keys and identity durable ──► pair-device-sign ──► 515, log in
//! ```

use std::time::Duration;

use super::{Engine, connection::Loss};
use crate::{
    clock::Now,
    engine::{account::Linked, notices, step},
    pairing::{
        PairError,
        adv::{self, SignedIdentity},
        qr::{QrContent, RefPlan},
        stanza::{self, PairDevice, PairSuccess},
    },
};

/// What goes on while linking.
#[derive(Debug)]
pub(crate) struct Link {
    plan: RefPlan,
    /// When the code on the screen ends; before the first, when the refs must have come.
    until: Duration,
    /// The phone scanned, and the server will end this connection.
    paired: bool,
}

impl Link {
    pub(crate) fn new(refs_until: Duration) -> Self {
        Self { plan: RefPlan::default(), until: refs_until, paired: false }
    }

    pub(crate) const fn deadline(&self) -> Option<Duration> {
        Some(self.until)
    }
}

impl Engine {
    pub(super) fn pair_device(&mut self, now: Now, refs: PairDevice) {
        let Some(link) = self.connection.link().filter(|link| !link.paired) else { return };
        link.plan = RefPlan::new(refs.refs);
        self.send_result(&refs.id);
        self.show_next_code(now);
    }

    fn show_next_code(&mut self, now: Now) {
        let Some(link) = self.connection.link() else { return };
        let Some(turn) = link.plan.next_turn() else {
            self.emit(now, notices::qr_exhausted());
            return self.link_exhausted(now);
        };
        link.until = now.mono + turn.lifetime;
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

    pub(super) fn expire_link(&mut self, now: Now) {
        let Some(link) = self.connection.link() else { return };
        if link.paired {
            self.timed_out(now, "the server did not end the connection after linking");
        } else if link.plan.current().is_none() {
            self.timed_out(now, "no codes in time");
        } else {
            self.show_next_code(now);
        }
    }

    /// The phone scanned a code. Nothing is believed before the HMAC and the account's signature are checked, and the
    /// server hears of it only when everything is durable.
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
            step.put(step::keys::signed_pre_key(signed_pre_key.id), step::pair_record(&signed_pre_key.pair));
            // The account's key is the identity of its primary device (spec 01 §4.5).
            let primary = linked.lid.as_ref().unwrap_or(&linked.pn).with_device(0);
            let address = crate::signal::Address::new(&primary.to_string());
            step.put(step::keys::identity(&address), signed.account_key().as_bytes().to_vec());
            step.emit(notices::paired(&linked));
            step.account_mut().linked = Some(linked);
            step.send(&stanza::sign(&id, signed));
        });
        self.connection.now_linked();
        let until = now.mono + self.config.login_timeout;
        if let Some(link) = self.connection.link() {
            link.paired = true;
            link.until = until;
        }
    }

    /// Tells server and application, and ends the attempt unlinked.
    pub(super) fn pair_failed(&mut self, now: Now, id: Option<&str>, error: &PairError) {
        tracing::warn!(%error, "linking failed");
        if self.connection.link().is_none() {
            return;
        }
        if let Some(id) = id {
            self.send_free(&stanza::error(id, error));
        }
        self.emit(now, notices::pair_error(error));
        self.lose(now, Loss::Stop);
    }
}
