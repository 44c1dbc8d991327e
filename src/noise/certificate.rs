//! The server's certificate chain (spec 01 §2.5).
//!
//! ```text
//! trusted root ──signs──▶ intermediate (issuer serial 0) ──signs──▶ leaf ──key──▶ static key of the handshake
//! ```
//!
//! Signatures are XEdDSA over the raw `details` bytes as received. [`CertificatePolicy::verify`] is the only way from
//! bytes of the network to a [`VerifiedChain`], and the handshake has no other way past a server hello with a static
//! key. A field that is absent counts as empty or 0, so it fails the check of its length or value.

use std::fmt;

use wamd_proto::{
    Message as _,
    cert::{
        CertChain,
        cert_chain::{NoiseCertificate, noise_certificate::Details},
    },
};

use crate::crypto::{PublicKey, xeddsa};

/// The root of the production servers, "WhatsAppLongTerm1" (spec 01 §2.5).
pub const PRODUCTION_ROOT: PublicKey = PublicKey::from_bytes([
    0x14, 0x23, 0x75, 0x57, 0x4d, 0x0a, 0x58, 0x71, 0x66, 0xaa, 0xe7, 0x1e, 0xbe, 0x51, 0x64, 0x37, 0xc4, 0xa2, 0x8b,
    0x73, 0xe3, 0x69, 0x5c, 0x6c, 0xe1, 0xf7, 0xf9, 0x54, 0x5d, 0xa8, 0xee, 0x6b,
]);

/// The serial of every root.
const ROOT_SERIAL: u32 = 0;

/// One of the two certificates of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Certificate {
    /// Certifies the server's static key.
    Leaf,
    /// Certifies the leaf.
    Intermediate,
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf => "leaf",
            Self::Intermediate => "intermediate",
        })
    }
}

/// Why a chain is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The chain is not a `CertChain` protobuf.
    #[error("certificate chain does not decode")]
    UndecodableChain,
    /// The details of a certificate are not a protobuf of their type.
    #[error("details of the {0} certificate do not decode")]
    UndecodableDetails(Certificate),
    /// A certificate is absent.
    #[error("{0} certificate is missing")]
    Missing(Certificate),
    /// A key or signature is absent (0 bytes) or has the wrong length.
    #[error("{field} of the {certificate} certificate has {len} bytes, {expected} expected")]
    Length {
        /// Where.
        certificate: Certificate,
        /// Which value.
        field: &'static str,
        /// Bytes received.
        len: usize,
        /// Bytes required.
        expected: usize,
    },
    /// The issuer's serial in a certificate is not the serial of the certificate above it (0 for the root).
    #[error("{certificate} certificate names issuer {found}, {expected} expected")]
    Issuer {
        /// Where.
        certificate: Certificate,
        /// Serial received.
        found: u32,
        /// Serial of the certificate above.
        expected: u32,
    },
    /// No trusted root signed the intermediate certificate; or a cached chain goes back to a root that is no longer
    /// trusted.
    #[error("intermediate certificate is not signed by a trusted root")]
    UntrustedRoot,
    /// The intermediate's key did not sign the leaf.
    #[error("leaf certificate is not signed by the intermediate key")]
    LeafSignature,
    /// The leaf certifies another key than the static key of the handshake.
    #[error("leaf certificate is for another key than the handshake's")]
    LeafKey,
    /// The time is before a validity window.
    #[error("{certificate} certificate is valid from {not_before}, now is {now} (unix s)")]
    NotYetValid {
        /// Which one.
        certificate: Certificate,
        /// Start of the window, unix seconds.
        not_before: u64,
        /// The time of the check, unix seconds.
        now: u64,
    },
    /// The time is after a validity window.
    #[error("{certificate} certificate was valid until {not_after}, now is {now} (unix s)")]
    Expired {
        /// Which one.
        certificate: Certificate,
        /// End of the window, unix seconds.
        not_after: u64,
        /// The time of the check, unix seconds.
        now: u64,
    },
}

/// Which servers a client trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePolicy {
    /// Keys that may sign an intermediate certificate. Empty: nothing is trusted.
    pub roots: Vec<PublicKey>,
    /// Whether the validity windows are checked. Off only for hosts with a broken clock.
    pub check_validity: bool,
}

impl Default for CertificatePolicy {
    /// The production root, with validity windows.
    fn default() -> Self {
        Self { roots: vec![PRODUCTION_ROOT], check_validity: true }
    }
}

impl CertificatePolicy {
    /// Checks an encoded `CertChain` against the roots, the static key of the handshake and the time.
    ///
    /// # Errors
    /// [`CertificateError`]: the first check that failed, in the order of spec 01 §2.5.
    pub fn verify(
        &self,
        chain: &[u8],
        server_static: &PublicKey,
        unix_seconds: u64,
    ) -> Result<VerifiedChain, CertificateError> {
        let chain = CertChain::decode(chain).map_err(|_| CertificateError::UndecodableChain)?;
        let leaf = Fields::read(Certificate::Leaf, chain.leaf.as_deref())?;
        let intermediate = Fields::read(Certificate::Intermediate, chain.intermediate.as_deref())?;

        intermediate.check_issuer(ROOT_SERIAL)?;
        let root =
            self.roots.iter().find(|root| intermediate.is_signed_by(root)).ok_or(CertificateError::UntrustedRoot)?;
        leaf.check_issuer(intermediate.serial)?;
        if !leaf.is_signed_by(&intermediate.key) {
            return Err(CertificateError::LeafSignature);
        }
        if leaf.key != *server_static {
            return Err(CertificateError::LeafKey);
        }
        if self.check_validity {
            leaf.check_validity(unix_seconds)?;
            intermediate.check_validity(unix_seconds)?;
        }
        Ok(VerifiedChain {
            root: *root,
            leaf_key: leaf.key,
            leaf_validity: leaf.validity,
            intermediate_validity: intermediate.validity,
        })
    }

    /// Whether `chain` goes back to one of the roots of this policy.
    pub fn trusts(&self, chain: &VerifiedChain) -> bool {
        self.roots.contains(&chain.root)
    }
}

/// A window of time; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Start, unix seconds.
    pub not_before: u64,
    /// End, unix seconds.
    pub not_after: u64,
}

impl Validity {
    /// The half-open rule for resumption (spec 01 §2.4): the last second no longer counts.
    fn is_usable_at(self, unix_seconds: u64) -> bool {
        (self.not_before..self.not_after).contains(&unix_seconds)
    }
}

/// What remains of a chain that was verified: the server's static key, and until when it may be used to resume.
///
/// Comes from [`CertificatePolicy::verify`] or from a cache that [`encode`](Self::encode) filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedChain {
    root: PublicKey,
    leaf_key: PublicKey,
    leaf_validity: Validity,
    intermediate_validity: Validity,
}

/// Version of the cache format.
const CACHE_VERSION: u8 = 1;

impl VerifiedChain {
    /// Bytes of [`encode`](Self::encode).
    pub const ENCODED_LEN: usize = 1 + 2 * 32 + 4 * 8;

    /// The server's static key.
    pub const fn leaf_key(&self) -> &PublicKey {
        &self.leaf_key
    }

    /// The root that signed the intermediate certificate.
    pub const fn root(&self) -> &PublicKey {
        &self.root
    }

    /// The window of the leaf.
    pub const fn leaf_validity(&self) -> Validity {
        self.leaf_validity
    }

    /// The window of the intermediate certificate.
    pub const fn intermediate_validity(&self) -> Validity {
        self.intermediate_validity
    }

    /// Whether an IK handshake may use the chain now: `not_before <= now < not_after` for both certificates
    /// (spec 01 §2.4).
    pub fn usable_at(&self, unix_seconds: u64) -> bool {
        self.leaf_validity.is_usable_at(unix_seconds) && self.intermediate_validity.is_usable_at(unix_seconds)
    }

    /// The cache format: version 1, root key (32), leaf key (32), then the start and end of the leaf's and of the
    /// intermediate's window (8 each, big-endian).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::ENCODED_LEN);
        out.push(CACHE_VERSION);
        out.extend_from_slice(self.root.as_bytes());
        out.extend_from_slice(self.leaf_key.as_bytes());
        for validity in [self.leaf_validity, self.intermediate_validity] {
            out.extend_from_slice(&validity.not_before.to_be_bytes());
            out.extend_from_slice(&validity.not_after.to_be_bytes());
        }
        out
    }

    /// Reads the cache format. `None` for anything else: then there is no chain to resume with, and XX brings a new one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[CACHE_VERSION], rest) = bytes.split_first_chunk()? else { return None };
        let (root, rest) = rest.split_first_chunk()?;
        let (leaf_key, rest) = rest.split_first_chunk()?;
        let (leaf_validity, rest) = decode_validity(rest)?;
        let (intermediate_validity, rest) = decode_validity(rest)?;
        rest.is_empty().then_some(Self {
            root: PublicKey::from_bytes(*root),
            leaf_key: PublicKey::from_bytes(*leaf_key),
            leaf_validity,
            intermediate_validity,
        })
    }
}

fn decode_validity(bytes: &[u8]) -> Option<(Validity, &[u8])> {
    let (not_before, rest) = bytes.split_first_chunk()?;
    let (not_after, rest) = rest.split_first_chunk()?;
    let validity = Validity { not_before: u64::from_be_bytes(*not_before), not_after: u64::from_be_bytes(*not_after) };
    Some((validity, rest))
}

/// One certificate with its lengths checked, nothing else.
struct Fields<'a> {
    certificate: Certificate,
    signed: &'a [u8],
    signature: &'a [u8; xeddsa::SIGNATURE_LEN],
    serial: u32,
    issuer: u32,
    key: PublicKey,
    validity: Validity,
}

impl<'a> Fields<'a> {
    fn read(certificate: Certificate, encoded: Option<&'a NoiseCertificate>) -> Result<Self, CertificateError> {
        let encoded = encoded.ok_or(CertificateError::Missing(certificate))?;
        let signed = encoded.details.as_deref().unwrap_or_default();
        let details = Details::decode(signed).map_err(|_| CertificateError::UndecodableDetails(certificate))?;
        Ok(Self {
            certificate,
            signed,
            signature: fixed(certificate, "signature", encoded.signature.as_deref().unwrap_or_default())?,
            serial: details.serial(),
            issuer: details.issuer_serial(),
            key: PublicKey::from_bytes(*fixed(certificate, "key", details.key())?),
            validity: Validity { not_before: details.not_before(), not_after: details.not_after() },
        })
    }

    const fn check_issuer(&self, expected: u32) -> Result<(), CertificateError> {
        if self.issuer == expected {
            return Ok(());
        }
        Err(CertificateError::Issuer { certificate: self.certificate, found: self.issuer, expected })
    }

    fn is_signed_by(&self, issuer: &PublicKey) -> bool {
        xeddsa::verify(issuer, &[self.signed], self.signature).is_ok()
    }

    const fn check_validity(&self, now: u64) -> Result<(), CertificateError> {
        let (certificate, Validity { not_before, not_after }) = (self.certificate, self.validity);
        if now < not_before {
            return Err(CertificateError::NotYetValid { certificate, not_before, now });
        }
        if now > not_after {
            return Err(CertificateError::Expired { certificate, not_after, now });
        }
        Ok(())
    }
}

fn fixed<'a, const N: usize>(
    certificate: Certificate,
    field: &'static str,
    bytes: &'a [u8],
) -> Result<&'a [u8; N], CertificateError> {
    bytes.try_into().map_err(|_| CertificateError::Length { certificate, field, len: bytes.len(), expected: N })
}
