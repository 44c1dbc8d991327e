//! X25519 on bare bytes (RFC 7748): everything that an implementation of the curve has to do for key agreement.
//!
//! [`keys`](super::keys) puts types around these three functions and refuses small-order results. Another implementation
//! of them is this file and nothing else. Signatures need the curve in its Edwards form, which is [`xeddsa`](super::xeddsa).
//!
//! The feature `graviola` takes formally verified assembler where there is some and the processor can run it, which is asked at
//! run time: an exchange takes half the time. Everywhere else, and without the feature, it is dalek; the results are the same.

/// Clamps 32 bytes to a scalar (RFC 7748 §5).
pub(super) const fn clamp(mut scalar: [u8; 32]) -> [u8; 32] {
    scalar[0] &= 0xF8;
    scalar[31] = scalar[31] & 0x7F | 0x40;
    scalar
}

/// The public key of a clamped scalar: its product with the base point.
pub(super) fn public(scalar: &[u8; 32]) -> [u8; 32] {
    fast::public(scalar).unwrap_or_else(|| portable::public(scalar))
}

/// The product of a clamped scalar and a u-coordinate, in constant time. All zero for a point of small order.
pub(super) fn shared(scalar: &[u8; 32], point: &[u8; 32]) -> [u8; 32] {
    fast::shared(scalar, point).unwrap_or_else(|| portable::shared(scalar, point))
}

mod portable {
    use curve25519_dalek::montgomery::MontgomeryPoint;

    pub(super) fn public(scalar: &[u8; 32]) -> [u8; 32] {
        MontgomeryPoint::mul_base_clamped(*scalar).to_bytes()
    }

    pub(super) fn shared(scalar: &[u8; 32], point: &[u8; 32]) -> [u8; 32] {
        x25519_dalek::x25519(*scalar, *point)
    }
}

#[cfg(all(feature = "graviola", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod fast {
    use graviola::{
        key_agreement::x25519::{PublicKey, StaticPrivateKey},
        util::is_cpu_supported,
    };

    pub(super) fn public(scalar: &[u8; 32]) -> Option<[u8; 32]> {
        // Without support it would panic.
        is_cpu_supported().then(|| StaticPrivateKey::from_array(scalar).public_key().as_bytes())
    }

    pub(super) fn shared(scalar: &[u8; 32], point: &[u8; 32]) -> Option<[u8; 32]> {
        if !is_cpu_supported() {
            return None;
        }
        // It refuses what is all zero.
        let product = StaticPrivateKey::from_array(scalar).diffie_hellman(&PublicKey::from_array(point));
        Some(product.map_or([0; 32], |product| product.as_bytes()))
    }
}

#[cfg(not(all(feature = "graviola", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod fast {
    pub(super) const fn public(_: &[u8; 32]) -> Option<[u8; 32]> {
        None
    }

    pub(super) const fn shared(_: &[u8; 32], _: &[u8; 32]) -> Option<[u8; 32]> {
        None
    }
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
            let (scalar, point) = (clamp(bytes(scalar)), bytes(point));
            assert_eq!(hex::encode(shared(&scalar, &point)), product);
            assert_eq!(hex::encode(portable::shared(&scalar, &point)), product);
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
        assert_eq!((portable::public(&bob), portable::shared(&bob, &alice)), (public(&bob), shared(&bob, &alice)));
    }

    /// Also for what no honest key is: points of small order, on the twist, not reduced, with the bit that does not count.
    #[test]
    fn both_implementations_agree() {
        let edges = [[0; 32], [1; 32], [0xFF; 32], [0x7F; 32]];
        let small_order = [
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        let mut points: Vec<[u8; 32]> = edges.into_iter().chain(small_order.map(bytes)).collect();
        let mut scalar = clamp([7; 32]);
        for round in 0..64 {
            let point = points[round % points.len()];
            let product = shared(&scalar, &point);
            assert_eq!(product, portable::shared(&scalar, &point), "{}", hex::encode(point));
            assert_eq!(public(&scalar), portable::public(&scalar));
            points.extend([public(&scalar), product]);
            scalar = clamp(public(&scalar));
        }
    }
}
