//! Entry point of the fuzz target, which an ordinary test replays, too.

use super::{Jid, Server};

/// A JID that parses prints to a text that parses to the same, in the form for logs without its number.
///
/// # Panics
/// When that does not hold, which is what the fuzzer looks for.
pub fn jid_parse(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(jid) = text.parse::<Jid>() else { return };
    assert_eq!(jid.to_string().parse(), Ok(jid.clone()));
    let bare = jid.to_bare();
    assert_eq!(bare.device(), 0);
    assert!(bare.same_account(&jid) && jid.same_account(&bare));
    assert_eq!(jid.with_device(bare.device()), bare);
    assert_eq!(bare.to_string().parse(), Ok(bare));
    assert!(!jid.ad_string().is_empty());
    let known = !matches!(jid.server(), Server::Other(_)) && jid.device() == 0;
    if known && jid.user().len() > 4 && jid.user().bytes().all(|byte| byte.is_ascii_digit()) {
        assert!(!jid.redacted().to_string().contains(jid.user()));
    }
}
