//! Entry point of the fuzz target, which an ordinary test replays, too.

use super::{
    classify, decode, normalise, padding, reporting,
    secret::addon::{Addon, AddonContent},
    unwrap_device_sent,
};
use crate::proto::Message as _;

/// Takes `data` as a padded payload, and as one without padding: decodes, normalises and classifies it.
///
/// # Panics
/// When a step panics or a decoded message does not survive its own encoding, which is what the fuzzer looks for.
pub fn message(data: &[u8]) {
    if let Ok(payload) = padding::unpad(2, data) {
        let _ = decode(payload);
    }
    if let Some(content) = reporting::content(data) {
        assert_eq!(reporting::content(&content), Some(content.clone()), "what is left stays when it is filtered again");
    }
    let Ok(message) = decode(data) else { return };
    let encoded = message.encode_to_vec();
    assert_eq!(decode(&encoded).map(|again| again.encode_to_vec()), Ok(encoded));
    let view = normalise(&message);
    let _ = (view.kind().as_str(), view.field(), view.wrappers().len(), view.destination(), view.expiration());
    let _ = (view.context_info().is_some(), view.message_context().is_some(), view.message_secret());
    let _ = (view.view_once(), view.is_edit(), view.action(), view.selection().is_some());
    assert!(view.text().is_none_or(|text| text.len() <= data.len()), "a text comes out of the payload");
    if let Some(addon) = Addon::find(view.content())
        && let Ok(content) = AddonContent::decode(addon.use_case, addon.payload)
    {
        let encoded = content.encode();
        assert_eq!(AddonContent::decode(addon.use_case, &encoded).map(|again| again.encode()), Ok(encoded));
    }
    let class = classify(&message);
    assert_eq!(class, classify(&message));
    let (inner, destination) = unwrap_device_sent(message);
    assert!(destination.is_none_or(|destination| destination.len() <= data.len()));
    let _ = normalise(&inner).kind();
}
