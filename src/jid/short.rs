//! Texts that are put together from JIDs and ids: on the stack, unless they are long.

use std::fmt::{self, Write as _};

use smallvec::SmallVec;

/// A text of mostly less than 128 bytes.
#[derive(Default)]
pub(crate) struct ShortText(SmallVec<[u8; 128]>);

impl ShortText {
    /// The text of one thing.
    pub(crate) fn of(thing: &impl fmt::Display) -> Self {
        let mut text = Self::default();
        // It takes everything; a `Display` that refuses by itself has written what it wanted.
        let _written = write!(text, "{thing}");
        text
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        // Only texts were written.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The bytes of the text.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Write for ShortText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShortText({} bytes)", self.0.len())
    }
}
