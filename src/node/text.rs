//! The texts of an owned node: looked up in the dictionary once, when they are made, and not each time they are encoded.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use compact_str::CompactString;

use super::tape::{Tape, Word};
use super::tokens::Token;

/// A tag, a key or a value of a [`Node`](super::Node): a text that knows whether it is a word of the dictionary.
///
/// It is used as the `str` that it is. Words take no memory of their own, other texts of up to 24 bytes neither.
///
/// ```
/// use wamd::node::Text;
///
/// let text = Text::from("participant");
/// assert_eq!(text, "participant");
/// assert_eq!(text.len(), 11);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Text(Repr);

/// A text has one form only, so that equality and hash are those of the forms.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Repr {
    /// A word of the dictionary.
    Word(Token),
    /// A text that is none.
    Other(CompactString),
}

impl Text {
    /// The text that stands on a tape. A token needs no look-up.
    pub(super) fn read(tape: &Tape, word: Word) -> Self {
        match word.as_token() {
            Some(token) => Self(Repr::Word(token)),
            None => Self::from(tape.text(word)),
        }
    }

    /// The text.
    #[inline]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Word(token) => token.text(),
            Repr::Other(text) => text,
        }
    }

    #[inline(always)]
    pub(super) fn repr(&self) -> &Repr {
        &self.0
    }
}

impl Deref for Text {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Token::find(text).map_or_else(|| Repr::Other(text.into()), Repr::Word))
    }
}

impl From<CompactString> for Text {
    fn from(text: CompactString) -> Self {
        Self(Token::find(&text).map_or(Repr::Other(text), Repr::Word))
    }
}

impl From<&CompactString> for Text {
    fn from(text: &CompactString) -> Self {
        text.as_str().into()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        CompactString::from(text).into()
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<Cow<'_, str>> for Text {
    fn from(text: Cow<'_, str>) -> Self {
        CompactString::from(text).into()
    }
}

impl From<Text> for CompactString {
    fn from(text: Text) -> Self {
        match text.0 {
            Repr::Word(token) => Self::const_new(token.text()),
            Repr::Other(text) => text,
        }
    }
}

impl From<&Text> for CompactString {
    fn from(text: &Text) -> Self {
        text.clone().into()
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        CompactString::from(text).into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Node;
    use super::*;

    #[test]
    fn a_text_is_no_larger_than_its_string() {
        assert_eq!(size_of::<Text>(), size_of::<CompactString>());
    }

    #[test]
    fn every_word_is_the_same_from_its_token_and_from_its_text() {
        let tape = Tape::default();
        for number in 1..Token::WORDS {
            let word = Word(u64::from(number));
            let text = Text::read(&tape, word);
            let Repr::Word(token) = text.repr() else { panic!("{number} is a word") };
            assert_eq!((token.number(), text.as_str()), (number, tape.text(word)));
            assert_eq!(Text::from(tape.text(word)), text);
            assert_eq!(Text::from(tape.text(word).to_owned()), text);
            assert_eq!(CompactString::from(&text), tape.text(word));

            // A tag, a key, a value and a content are written as the token, and read back as the same node.
            let node = Node::new(text.as_str()).attr(text.as_str(), text.as_str()).text(text.as_str());
            let (bytes, len) = token.bytes();
            let expected = [&[0x00, 0xf8, 4][..], &bytes[..len].repeat(4)].concat();
            assert_eq!(node.encode().unwrap(), expected);
            assert_eq!(node.encoded_len().unwrap(), expected.len());
            assert_eq!(Node::decode(expected).unwrap(), node);
        }
    }

    #[test]
    fn what_is_no_word_stays_a_string() {
        let tape = Tape::default();
        let servers = (Token::WORDS..Token::WORDS + 4).map(|number| Word(number.into()));
        for word in servers.chain([Word::EMPTY]) {
            assert!(matches!(Text::read(&tape, word).repr(), Repr::Other(_)), "{word:?}");
        }
        for own in ["", "hosted.lid", "3EB0C767D71D7A7C5CB5", "Participant", "é"] {
            assert!(matches!(Text::from(own).repr(), Repr::Other(text) if text == own), "{own}");
        }
    }

    #[test]
    fn a_word_that_came_as_raw_text_is_the_word() {
        let raw = [&[0x00, 0xf8, 1, 0xfc, 3][..], b"ack"].concat();
        assert_eq!(Node::decode(raw).unwrap(), Node::new("ack"));
    }
}
