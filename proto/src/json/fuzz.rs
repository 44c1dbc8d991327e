//! Entry point of the fuzz target, which an ordinary test replays, too.

use prost::Message as _;

use super::{JsonError, MESSAGE, MessageType, Options, to_json, to_string};
use crate::{e2e, generated::descriptor::MESSAGES};

/// Converts `data` as a message of the type that the first two bytes choose, and as `Message`. The text of the result is
/// JSON, and what prost decodes has a JSON form.
///
/// # Panics
/// When that does not hold, which is what the fuzzer looks for.
pub fn json(data: &[u8]) {
    let Some((&[high, low], bytes)) = data.split_first_chunk() else { return };
    let place = usize::from(u16::from_be_bytes([high, low])).checked_rem(MESSAGES.len());
    let ty = place.and_then(|place| u16::try_from(place).ok()).map_or(MESSAGE, MessageType);
    let _ = convert(ty, bytes, &Options { max_values: 5_000, ..Options::default() });
    let options = Options { strip: &[], max_values: 5_000 };
    let converted = convert(MESSAGE, bytes, &options);
    if let Ok(message) = e2e::Message::decode(bytes) {
        assert!(limited(&converted), "prost reads what has no JSON form: {converted:?}");
        assert!(limited(&convert(MESSAGE, &message.encode_to_vec(), &options)));
    }
}

/// Whether there is a JSON form, or it is only too large.
fn limited(result: &Result<(), JsonError>) -> bool {
    matches!(result, Ok(()) | Err(JsonError::TooManyValues { .. } | JsonError::TooDeep { .. }))
}

fn convert(ty: MessageType, bytes: &[u8], options: &Options<'_>) -> Result<(), JsonError> {
    let value = to_json(ty, bytes, options)?;
    let text = to_string(&value);
    let again = serde_json::from_str::<serde_json::Value>(&text);
    assert!(again.is_ok(), "not JSON: {again:?}");
    assert_eq!(again.map(|again| to_string(&again)).unwrap_or_default(), text);
    Ok(())
}
