//! A device of either kind, for conversations in which both take part.

use wamd::signal::CiphertextKind;

use super::{Bundle, Ours, Theirs, theirs};

/// A party of either kind.
pub enum Party {
    Ours(Box<Ours>),
    Theirs(Box<Theirs>),
}

impl Party {
    pub fn bundle(&mut self, with_pre_key: bool) -> Bundle {
        match self {
            Self::Ours(party) => Bundle::of_ours(party, with_pre_key),
            Self::Theirs(party) => Bundle::of_theirs(party, with_pre_key),
        }
    }

    pub fn establish(&mut self, bundle: &Bundle) {
        match self {
            Self::Ours(party) => party.establish(&bundle.ours()),
            Self::Theirs(party) => party.establish(&bundle.theirs()),
        }
    }

    pub fn has_session(&mut self) -> bool {
        match self {
            Self::Ours(party) => party.has_session(),
            Self::Theirs(party) => party.has_session(),
        }
    }

    pub fn encrypt(&mut self, text: &[u8]) -> (CiphertextKind, Vec<u8>) {
        match self {
            Self::Ours(party) => {
                let sent = party.encrypt(text);
                (sent.kind, sent.bytes.to_vec())
            }
            Self::Theirs(party) => {
                let sent = party.encrypt(text);
                (theirs::kind(&sent), sent.serialize().to_vec())
            }
        }
    }

    pub fn decrypt(&mut self, kind: CiphertextKind, bytes: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Ours(party) => {
                let before = party.store.encode();
                let result = party.decrypt(kind, bytes).map_err(|error| error.to_string());
                assert!(result.is_ok() || party.store.encode() == before, "a refused message changed our store");
                result
            }
            Self::Theirs(party) => party.decrypt(kind, bytes).map_err(|error| error.to_string()),
        }
    }

    pub fn reload(&mut self) {
        match self {
            Self::Ours(party) => party.reload(),
            Self::Theirs(party) => party.reload(),
        }
    }
}
