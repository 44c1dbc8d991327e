//! Entry points for the fuzzer: one function per parser of remote bytes, all behind [`noise`].

use bytes::Bytes;

use super::{CertificatePolicy, FrameBuffer, Handshake, Intro, IntroReader, Transport, VerifiedChain};
use crate::crypto::{KeyPair, PrivateKey, Secret};

/// Feeds `data` to the parsers of this layer. The first byte chooses which one, the second cuts the rest into chunks.
pub fn noise(data: &[u8]) {
    let Some((&[kind, chunk], data)) = data.split_first_chunk() else { return };
    let chunk = usize::from(chunk).max(1);
    match kind % 5 {
        0 => frames(data, chunk),
        1 => intro(data, chunk),
        2 => server_hello(data),
        3 => certificates(data),
        _ => transport(data, chunk),
    }
}

/// However a stream is cut, its frames are the same.
fn frames(data: &[u8], chunk: usize) {
    const MAX: usize = 0x4000;
    let (mut whole, mut cut) = (FrameBuffer::new(MAX), FrameBuffer::new(MAX));
    whole.push_owned(Bytes::copy_from_slice(data));
    let mut payloads = Vec::new();
    for chunk in data.chunks(chunk) {
        cut.push(chunk);
        while let Ok(Some(payload)) = cut.next_frame() {
            payloads.push(payload);
        }
    }
    for payload in payloads {
        assert_eq!(whole.next_frame(), Ok(Some(payload)));
    }
    assert_eq!(whole.next_frame(), cut.next_frame());
    assert_eq!(whole.buffered(), cut.buffered());
}

/// An intro that is read and written again is the same, and nothing behind it is lost.
fn intro(data: &[u8], chunk: usize) {
    let mut reader = IntroReader::new(0x1000);
    let mut pushed = 0_usize;
    for chunk in data.chunks(chunk) {
        reader.push(chunk);
        pushed = pushed.saturating_add(chunk.len());
        match reader.next_intro() {
            Ok(None) => {}
            Err(error) => return assert_eq!(reader.next_intro(), Err(error)),
            // Empty routing info is read, but never written.
            Ok(Some(Intro { routing_info: Some(info), .. })) if info.is_empty() => return,
            Ok(Some(Intro { routing_info, rest })) => {
                let written = [&super::frame::intro(routing_info.as_deref())[..], &rest].concat();
                return assert_eq!(data.get(..pushed), Some(&written[..]));
            }
        }
    }
}

fn server_hello(data: &[u8]) {
    let keys = |byte| KeyPair::from_private(PrivateKey::from_bytes([byte; 32]));
    let policy = CertificatePolicy { roots: vec![*keys(3).public()], check_validity: false };
    let (machine, _) = Handshake::xx(keys(1), keys(2), b"payload".to_vec(), policy.clone());
    assert!(machine.read_server_hello(data, 0).is_err(), "no input can be sealed for the key of this client");
    let mut cache = vec![1];
    cache.extend_from_slice(keys(3).public().as_bytes());
    cache.extend_from_slice(keys(4).public().as_bytes());
    cache.resize(VerifiedChain::ENCODED_LEN, 0);
    let Some(chain) = VerifiedChain::decode(&cache) else { return };
    let Ok((machine, _)) = Handshake::ik(keys(1), keys(2), &chain, b"payload".to_vec(), policy) else { return };
    assert!(machine.read_server_hello(data, 0).is_err());
}

fn certificates(data: &[u8]) {
    let key = PrivateKey::from_bytes([1; 32]).public();
    let policy = CertificatePolicy { roots: vec![key], check_validity: false };
    let _ = policy.verify(data, &key, 0);
    if let Some(chain) = VerifiedChain::decode(data) {
        assert_eq!(chain.encode(), data);
    }
}

/// No frame that the sender did not seal opens.
fn transport(data: &[u8], chunk: usize) {
    let keys = || (Secret::new([1; 32]), Secret::new([2; 32]));
    let mut receiver = Transport::initiator(keys()).receiver;
    for chunk in data.chunks(chunk) {
        assert!(receiver.open(chunk.into()).is_err());
    }
}
