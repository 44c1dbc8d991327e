//! Messages that could not be decrypted, both ways (spec 03 §5.6, §5.7).

pub(crate) mod ask;
pub(crate) mod asked;
mod renew;
