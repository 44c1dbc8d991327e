//! The keys that the server shows in the handshake: a root of its own, an intermediate, the server's static key, and the
//! certificate chain that binds them (spec 01 §2.5 and §7.1).
//!
//! Everything follows from the root key by HKDF, signatures included, so that a server started again with the same root
//! has the same static key and the same chain, and clients can resume with IK. [`Authority::rotate`] moves to the next
//! static key: clients that cached the old one then meet the XX fallback.

use bytes::Bytes;
use prost::Message as _;
use wamd::crypto::{KeyPair, PrivateKey, PublicKey, hkdf_sha256, xeddsa};
use wamd::proto::cert::{CertChain, cert_chain::NoiseCertificate, cert_chain::noise_certificate::Details};

/// Root, intermediate and static keys with the chain made from them.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    root: KeyPair,
    intermediate: KeyPair,
    server: KeyPair,
    generation: u32,
    validity: Validity,
    chain: Bytes,
}

/// Unix seconds between which the certificates hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: u64,
    /// Last second.
    pub not_after: u64,
}

impl Authority {
    pub(crate) fn new(root: PrivateKey, validity: Validity) -> Self {
        let root = KeyPair::from_private(root);
        let intermediate = derive(&root, "intermediate", 0);
        let server = derive(&root, "static", 0);
        let mut authority = Self { root, intermediate, server, generation: 0, validity, chain: Bytes::new() };
        authority.chain = authority.certify(&authority.root);
        authority
    }

    /// What a client must be given to trust this server.
    pub(crate) const fn root_public(&self) -> &PublicKey {
        self.root.public()
    }

    /// The static key of the Noise handshake.
    pub(crate) const fn server_static(&self) -> &KeyPair {
        &self.server
    }

    /// The encoded `CertChain`.
    pub(crate) fn chain(&self) -> Bytes {
        self.chain.clone()
    }

    /// A chain for the same static key that a root which nobody trusts has signed.
    pub(crate) fn forged_chain(&self) -> Bytes {
        self.certify(&derive(&self.root, "other root", 0))
    }

    /// Forgets the static key and takes the next one.
    pub(crate) fn rotate(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.server = derive(&self.root, "static", self.generation);
        self.chain = self.certify(&self.root);
    }

    fn certify(&self, root: &KeyPair) -> Bytes {
        let intermediate = self.certificate(INTERMEDIATE_SERIAL, ROOT_SERIAL, self.intermediate.public(), root);
        let leaf = self.certificate(LEAF_SERIAL, INTERMEDIATE_SERIAL, self.server.public(), &self.intermediate);
        let chain = CertChain { leaf: Some(Box::new(leaf)), intermediate: Some(Box::new(intermediate)) };
        chain.encode_to_vec().into()
    }

    fn certificate(&self, serial: u32, issuer_serial: u32, key: &PublicKey, issuer: &KeyPair) -> NoiseCertificate {
        let details = Details {
            serial: Some(serial),
            issuer_serial: Some(issuer_serial),
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            not_before: Some(self.validity.not_before),
            not_after: Some(self.validity.not_after),
        };
        let details = details.encode_to_vec();
        let nonce: [u8; 64] = hkdf_sha256(None, issuer.private().expose(), &details);
        let signature = xeddsa::sign_with(issuer.private(), &[&details], &nonce);
        NoiseCertificate { details: Some(details.into()), signature: Some(Bytes::copy_from_slice(&signature)) }
    }
}

fn derive(root: &KeyPair, what: &str, generation: u32) -> KeyPair {
    let info = format!("wamd-loopback {what} {generation}");
    KeyPair::from_private(PrivateKey::from_bytes(hkdf_sha256(None, root.private().expose(), info.as_bytes())))
}

/// The root's serial; the field is written although it is 0, because WA Web demands it (spec 01 §2.5).
const ROOT_SERIAL: u32 = 0;
const INTERMEDIATE_SERIAL: u32 = 17;
const LEAF_SERIAL: u32 = 18;

#[cfg(test)]
mod tests {
    use super::*;

    const VALIDITY: Validity = Validity { not_before: 1_500_000_000, not_after: 4_102_444_800 };

    fn checked_leaf(chain: &Bytes, root: &PublicKey) -> Option<PublicKey> {
        let chain = CertChain::decode(chain.clone()).ok()?;
        let (leaf, intermediate) = (chain.leaf?, chain.intermediate?);
        let open = |cert: &NoiseCertificate, issuer: &PublicKey| {
            let details = cert.details.clone()?;
            xeddsa::verify(issuer, &[&details], cert.signature.as_ref()?).ok()?;
            Details::decode(details).ok()
        };
        let middle = open(&intermediate, root)?;
        assert_eq!(middle.issuer_serial, Some(0));
        let leaf = open(&leaf, &PublicKey::from_slice(&middle.key?).ok()?)?;
        assert_eq!(leaf.issuer_serial, middle.serial);
        PublicKey::from_slice(&leaf.key?).ok()
    }

    #[test]
    fn chain_leads_from_the_root_to_the_static_key() {
        let mut authority = Authority::new(PrivateKey::from_bytes([3; 32]), VALIDITY);
        let first = *authority.server_static().public();
        assert_eq!(checked_leaf(&authority.chain(), authority.root_public()), Some(first));
        assert_eq!(checked_leaf(&authority.forged_chain(), authority.root_public()), None);
        authority.rotate();
        let second = *authority.server_static().public();
        assert_ne!(first, second);
        assert_eq!(checked_leaf(&authority.chain(), authority.root_public()), Some(second));
    }

    #[test]
    fn same_root_gives_the_same_chain() {
        let make = || Authority::new(PrivateKey::from_bytes([4; 32]), VALIDITY);
        assert_eq!(make().chain(), make().chain());
    }
}
