//! The account as a value: keys, registration, own identities. Changed only inside a step, stored with its batch.

use bytes::Bytes;

use crate::{
    crypto::{CryptoRng, KeyPair, PrivateKey, Secret, xeddsa},
    engine::{
        records::{AccountRecord, Record, RecordError, RetiredPreKeyRecord},
        restrictions::Restriction,
        tokens::NctSalt,
    },
    jid::Jid,
    stanza::message::Own,
};

/// Largest one-time prekey id; ids are 24 bits on the wire (spec 03 §1.1).
const MAX_PRE_KEY_ID: u32 = 0xFF_FFFF;
/// Ids of one-time prekeys that are left out after an import: more than an account gives out in months.
const IMPORT_JUMP: u32 = 0x10_0000;
/// Registration ids are drawn from 1 to this (spec 01 §3.3).
const MAX_REGISTRATION_ID: u32 = 16_380;

/// A signed prekey of ours.
#[derive(Clone, Debug)]
pub(crate) struct SignedPreKey {
    pub(crate) id: u32,
    pub(crate) pair: KeyPair,
    pub(crate) signature: [u8; 64],
}

/// What linking gave us.
#[derive(Clone, Debug)]
pub(crate) struct Linked {
    /// Own phone-number JID with device.
    pub(crate) pn: Jid,
    /// Own LID with device.
    pub(crate) lid: Option<Jid>,
    /// Serialised `ADVSignedDeviceIdentity` with the account's signature key.
    pub(crate) device_identity: Bytes,
    /// Platform of the phone.
    pub(crate) platform: String,
    /// Name of a business account.
    pub(crate) business_name: Option<String>,
}

impl Linked {
    /// Who we are, for telling own messages apart.
    pub(crate) fn own(&self) -> Own<'_> {
        Own { pn: &self.pn, lid: self.lid.as_ref() }
    }
}

/// The linked device.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) identity: KeyPair,
    pub(crate) noise: KeyPair,
    pub(crate) registration_id: u32,
    pub(crate) adv_secret: Secret<32>,
    pub(crate) signed_pre_key: SignedPreKey,
    pub(crate) next_pre_key_id: u32,
    pub(crate) linked: Option<Linked>,
    pub(crate) push_name: Option<String>,
    pub(crate) routing_info: Option<Bytes>,
    pub(crate) chain: Option<Bytes>,
    pub(crate) logins: u32,
    pub(crate) uploaded: bool,
    /// The salt of tokens for peers whose token we do not have (spec 03 §4.7).
    pub(crate) nct_salt: Option<NctSalt>,
    /// What WhatsApp does not let the account do for a while; at most one of a kind.
    pub(crate) restrictions: Vec<Restriction>,
    /// Users are addressed by LID where it is known (spec 03 §4.10).
    pub(crate) lid_migrated: bool,
    /// When the server's digest of our keys was last compared, unix seconds.
    pub(crate) digest_checked: u64,
    /// When the signed prekey was made, unix seconds; 0 when that is not known.
    pub(crate) signed_pre_key_made: u64,
    /// Former signed prekeys, and those that the server may have without having said so: id, and since when, unix seconds.
    pub(crate) retired_pre_keys: Vec<(u32, u64)>,
    /// How often the account was loaded, this time included: whose counter leases are good. It is stored with the first one.
    pub(crate) run: u32,
    pub(crate) is_run_stored: bool,
    /// The first run since the account was imported: sender chains of earlier ones may have been used elsewhere. 0 if it never was.
    pub(crate) first_run: u32,
    /// Stored although it is not linked: a phone was given a secret that belongs to these keys.
    pub(crate) kept: bool,
}

impl Account {
    /// Fresh keys for a device that is not linked yet. Nothing of it is stored before a phone knows of it.
    pub(crate) fn generate(rng: &mut impl CryptoRng) -> Self {
        let identity = KeyPair::generate(rng);
        let pair = KeyPair::generate(rng);
        let signature = xeddsa::sign(identity.private(), &[&pair.public().to_typed()], rng);
        Self {
            noise: KeyPair::generate(rng),
            registration_id: rng.next_u32() % MAX_REGISTRATION_ID + 1,
            adv_secret: Secret::random(rng),
            signed_pre_key: SignedPreKey { id: 1, pair, signature },
            identity,
            next_pre_key_id: 1,
            linked: None,
            push_name: None,
            routing_info: None,
            chain: None,
            logins: 0,
            uploaded: false,
            nct_salt: None,
            restrictions: Vec::new(),
            lid_migrated: false,
            digest_checked: 0,
            signed_pre_key_made: 0,
            retired_pre_keys: Vec::new(),
            run: 1,
            is_run_stored: false,
            first_run: 0,
            kept: false,
        }
    }

    /// The account was imported: it may have gone on elsewhere from the same records, or may do so at any time. What it sent or gave out
    /// there must not be used for something else here.
    pub(crate) fn begin_anew(&mut self) {
        self.first_run = self.run;
        // The server may hold keys that are not here: it gets others, under ids that were not given out there.
        let skipped = self.next_pre_key_id.saturating_add(IMPORT_JUMP);
        self.next_pre_key_id = if skipped > MAX_PRE_KEY_ID { skipped - MAX_PRE_KEY_ID } else { skipped };
        self.uploaded = false;
        self.digest_checked = 0;
    }

    /// Takes the next `count` one-time prekey ids. After the largest id they start again at 1.
    pub(crate) fn take_pre_key_ids(&mut self, count: u32) -> Vec<u32> {
        let first = self.next_pre_key_id.clamp(1, MAX_PRE_KEY_ID);
        let ids: Vec<u32> = (0..count).map(|i| (first - 1 + i) % MAX_PRE_KEY_ID + 1).collect();
        self.next_pre_key_id = ids.last().map_or(first, |last| last % MAX_PRE_KEY_ID + 1);
        ids
    }

    /// The stored form; `None` while no phone knows the device.
    pub(crate) fn to_record(&self) -> Option<Bytes> {
        let linked = self.linked.as_ref();
        if linked.is_none() && !self.kept {
            return None;
        }
        let private = |pair: &KeyPair| Bytes::copy_from_slice(pair.private().expose());
        let record = AccountRecord {
            identity: private(&self.identity),
            noise: private(&self.noise),
            registration_id: self.registration_id,
            adv_secret: Bytes::copy_from_slice(self.adv_secret.expose()),
            signed_pre_key_id: self.signed_pre_key.id,
            signed_pre_key: private(&self.signed_pre_key.pair),
            signed_pre_key_signature: Bytes::copy_from_slice(&self.signed_pre_key.signature),
            next_pre_key_id: self.next_pre_key_id,
            jid: linked.map(|linked| linked.pn.to_string()).unwrap_or_default(),
            lid: linked.and_then(|linked| linked.lid.as_ref()).map(Jid::to_string).unwrap_or_default(),
            device_identity: linked.map(|linked| linked.device_identity.clone()).unwrap_or_default(),
            platform: linked.map(|linked| linked.platform.clone()).unwrap_or_default(),
            business_name: linked.and_then(|linked| linked.business_name.clone()),
            push_name: self.push_name.clone(),
            routing_info: self.routing_info.clone(),
            chain: self.chain.clone(),
            logins: self.logins,
            uploaded: self.uploaded,
            nct_salt: self.nct_salt.as_ref().map(|salt| salt.0.clone()),
            restrictions: self.restrictions.iter().map(Restriction::to_record).collect(),
            lid_migrated: self.lid_migrated,
            digest_checked: self.digest_checked,
            run: self.run,
            first_run: self.first_run,
            signed_pre_key_made: self.signed_pre_key_made,
            retired_pre_keys: self
                .retired_pre_keys
                .iter()
                .map(|(id, since)| RetiredPreKeyRecord { id: *id, since: *since })
                .collect(),
        };
        Some(record.to_bytes())
    }

    /// Reads the stored form, which begins another run.
    pub(crate) fn from_record(bytes: &Bytes) -> Result<Self, RecordError> {
        const BAD: RecordError = RecordError(AccountRecord::NAME);
        let record = AccountRecord::from_bytes(bytes)?;
        let pair = |bytes: &Bytes| PrivateKey::from_slice(bytes).map(KeyPair::from_private).map_err(|_| BAD);
        let lid = match record.lid.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| BAD)?),
        };
        Ok(Self {
            identity: pair(&record.identity)?,
            noise: pair(&record.noise)?,
            registration_id: record.registration_id,
            adv_secret: Secret::from_slice(&record.adv_secret).map_err(|_| BAD)?,
            signed_pre_key: SignedPreKey {
                id: record.signed_pre_key_id,
                pair: pair(&record.signed_pre_key)?,
                signature: record.signed_pre_key_signature.as_ref().try_into().map_err(|_| BAD)?,
            },
            next_pre_key_id: record.next_pre_key_id,
            linked: match record.jid.as_str() {
                "" => None,
                jid => Some(Linked {
                    pn: jid.parse().map_err(|_| BAD)?,
                    lid,
                    device_identity: record.device_identity,
                    platform: record.platform,
                    business_name: record.business_name,
                }),
            },
            push_name: record.push_name,
            routing_info: record.routing_info,
            chain: record.chain,
            logins: record.logins,
            uploaded: record.uploaded,
            nct_salt: record.nct_salt.map(NctSalt),
            restrictions: record.restrictions.into_iter().filter_map(Restriction::from_record).collect(),
            lid_migrated: record.lid_migrated,
            digest_checked: record.digest_checked,
            signed_pre_key_made: record.signed_pre_key_made,
            retired_pre_keys: record.retired_pre_keys.iter().map(|key| (key.id, key.since)).collect(),
            run: record.run.saturating_add(1),
            is_run_stored: false,
            first_run: record.first_run,
            kept: true,
        })
    }
}
