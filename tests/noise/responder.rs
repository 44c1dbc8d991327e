//! The server's side of the handshake, written on the public parts of `wamd::noise` alone: what a test server needs
//! (spec 01 §7.2), and with every message open to tampering.

use wamd::{
    crypto::{KeyPair, PrivateKey, PublicKey, x25519, xeddsa},
    noise::{Protocol, SymmetricError, SymmetricState, Transport},
};
use wamd_proto::{
    Message as _,
    cert::{CertChain, cert_chain},
    wa6::{HandshakeMessage, handshake_message as message},
};

/// A pair from one byte.
pub(crate) fn keys(seed: u8) -> KeyPair {
    KeyPair::from_private(PrivateKey::from_bytes([seed; 32]))
}

/// A server's long-lived side: its static key and the encoded chain that certifies it.
pub(crate) struct Server {
    pub(crate) static_keys: KeyPair,
    pub(crate) chain: Vec<u8>,
}

impl Server {
    /// A server with a valid chain: root, intermediate (serial 17), leaf.
    pub(crate) fn new(root: &KeyPair, static_keys: KeyPair) -> Self {
        let intermediate = keys(0x77);
        let certificate = |serial, issuer, key: &KeyPair, signer: &KeyPair| {
            let details = cert_chain::noise_certificate::Details {
                serial: Some(serial),
                issuer_serial: Some(issuer),
                key: Some(key.public().as_bytes().to_vec().into()),
                not_before: Some(1_000),
                not_after: Some(2_000),
            }
            .encode_to_vec();
            let signature = xeddsa::sign_with(signer.private(), &[&details], &[0; 64]);
            Some(Box::new(cert_chain::NoiseCertificate {
                signature: Some(signature.to_vec().into()),
                details: Some(details.into()),
            }))
        };
        let chain = CertChain {
            leaf: certificate(18, 17, &static_keys, &intermediate),
            intermediate: certificate(17, 0, &intermediate, root),
        };
        Self { static_keys, chain: chain.encode_to_vec() }
    }

    /// Reads a client hello: XX, IK, or XXfallback when the IK hello is not for us.
    pub(crate) fn answer(&self, client_hello: &[u8], ephemeral: KeyPair) -> Answer {
        let hello = *HandshakeMessage::decode(client_hello).unwrap().client_hello.unwrap();
        let client_ephemeral = PublicKey::from_slice(hello.ephemeral()).unwrap();
        if hello.r#static.is_none() {
            return self.answer_xx(Protocol::Xx, &client_ephemeral, ephemeral);
        }
        match self.answer_ik(&client_ephemeral, hello.r#static(), hello.payload(), &ephemeral) {
            Ok(answer) => answer,
            Err(_) => self.answer_xx(Protocol::XxFallback, &client_ephemeral, ephemeral),
        }
    }

    fn answer_ik(
        &self,
        client_ephemeral: &PublicKey,
        sealed_static: &[u8],
        sealed_payload: &[u8],
        ephemeral: &KeyPair,
    ) -> Result<Answer, SymmetricError> {
        let mut symmetric = SymmetricState::new(Protocol::Ik);
        symmetric.mix_hash(self.static_keys.public().as_bytes());
        symmetric.mix_hash(client_ephemeral.as_bytes());
        mix_dh(&mut symmetric, &self.static_keys, client_ephemeral);
        let client_static = PublicKey::from_slice(&symmetric.decrypt_and_hash(sealed_static)?).unwrap();
        mix_dh(&mut symmetric, &self.static_keys, &client_static);
        let payload = symmetric.decrypt_and_hash(sealed_payload)?;
        symmetric.mix_hash(ephemeral.public().as_bytes());
        mix_dh(&mut symmetric, ephemeral, client_ephemeral);
        mix_dh(&mut symmetric, ephemeral, &client_static);
        let sealed_chain = symmetric.encrypt_and_hash(&self.chain)?;
        Ok(Answer {
            hello: message::ServerHello {
                ephemeral: Some(ephemeral.public().as_bytes().to_vec().into()),
                payload: Some(sealed_chain.into()),
                ..Default::default()
            },
            next: Next::Done { client_static, payload, transport: Box::new(Transport::responder(symmetric.split())) },
        })
    }

    fn answer_xx(&self, protocol: Protocol, client_ephemeral: &PublicKey, ephemeral: KeyPair) -> Answer {
        let mut symmetric = SymmetricState::new(protocol);
        symmetric.mix_hash(client_ephemeral.as_bytes());
        symmetric.mix_hash(ephemeral.public().as_bytes());
        mix_dh(&mut symmetric, &ephemeral, client_ephemeral);
        let sealed_static = symmetric.encrypt_and_hash(self.static_keys.public().as_bytes()).unwrap();
        mix_dh(&mut symmetric, &self.static_keys, client_ephemeral);
        let sealed_chain = symmetric.encrypt_and_hash(&self.chain).unwrap();
        Answer {
            hello: message::ServerHello {
                ephemeral: Some(ephemeral.public().as_bytes().to_vec().into()),
                r#static: Some(sealed_static.into()),
                payload: Some(sealed_chain.into()),
                ..Default::default()
            },
            next: Next::AwaitFinish { symmetric, ephemeral },
        }
    }
}

/// A server hello and what comes after it.
pub(crate) struct Answer {
    pub(crate) hello: message::ServerHello,
    pub(crate) next: Next,
}

pub(crate) enum Next {
    AwaitFinish { symmetric: SymmetricState, ephemeral: KeyPair },
    Done { client_static: PublicKey, payload: Vec<u8>, transport: Box<Transport> },
}

impl Answer {
    /// The payload of the server's frame.
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode_hello(&self.hello)
    }
}

impl Next {
    /// Reads the client finish if there must be one. Gives the client's static key, its payload, and the transport.
    pub(crate) fn finish(self, client_finish: Option<&[u8]>) -> (PublicKey, Vec<u8>, Transport) {
        match (self, client_finish) {
            (Self::Done { client_static, payload, transport }, None) => (client_static, payload, *transport),
            (Self::AwaitFinish { mut symmetric, ephemeral }, Some(finish)) => {
                let finish = *HandshakeMessage::decode(finish).unwrap().client_finish.unwrap();
                let client_static =
                    PublicKey::from_slice(&symmetric.decrypt_and_hash(finish.r#static()).unwrap()).unwrap();
                mix_dh(&mut symmetric, &ephemeral, &client_static);
                let payload = symmetric.decrypt_and_hash(finish.payload()).unwrap();
                (client_static, payload, Transport::responder(symmetric.split()))
            }
            (_, finish) => panic!("client finish of the wrong pattern: {}", finish.is_some()),
        }
    }
}

pub(crate) fn encode_hello(hello: &message::ServerHello) -> Vec<u8> {
    HandshakeMessage { server_hello: Some(Box::new(hello.clone())), ..Default::default() }.encode_to_vec()
}

fn mix_dh(symmetric: &mut SymmetricState, ours: &KeyPair, theirs: &PublicKey) {
    symmetric.mix_key(&x25519(ours.private(), theirs).unwrap());
}
