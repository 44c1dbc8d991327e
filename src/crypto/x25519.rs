//! X25519 on bare bytes (RFC 7748): everything that an implementation of the curve has to do for key agreement.
//!
//! [`keys`](super::keys) puts types around these three functions and refuses small-order results. Another implementation
//! of them is this file and nothing else. Signatures need the curve in its Edwards form, which is [`xeddsa`](super::xeddsa).

use curve25519_dalek::montgomery::MontgomeryPoint;

/// Clamps 32 bytes to a scalar (RFC 7748 §5).
pub(super) const fn clamp(mut scalar: [u8; 32]) -> [u8; 32] {
    scalar[0] &= 0xF8;
    scalar[31] = scalar[31] & 0x7F | 0x40;
    scalar
}

/// The public key of a clamped scalar: its product with the base point.
pub(super) fn public(scalar: &[u8; 32]) -> [u8; 32] {
    MontgomeryPoint::mul_base_clamped(*scalar).to_bytes()
}

/// The product of a clamped scalar and a u-coordinate, in constant time. All zero for a point of small order.
pub(super) fn shared(scalar: &[u8; 32], point: &[u8; 32]) -> [u8; 32] {
    x25519_dalek::x25519(*scalar, *point)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> [u8; 32] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// RFC 7748 §5.2, both single vectors. The second point has its top bit set, which does not count.
    #[test]
    fn rfc7748_scalar_multiplication() {
        let check = |scalar, point, product: &str| {
            assert_eq!(hex::encode(shared(&clamp(bytes(scalar)), &bytes(point))), product);
        };
        check(
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        );
        check(
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        );
    }

    /// RFC 7748 §6.1, Bob's side.
    #[test]
    fn rfc7748_key_agreement() {
        let bob = clamp(bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        let alice = bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(public(&bob), bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        assert_eq!(shared(&bob, &alice), bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
    }
}
