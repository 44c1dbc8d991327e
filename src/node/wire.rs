//! The tag bytes (spec 02 §2).

/// Nothing: an empty value, no content, no user.
pub(super) const LIST_EMPTY: u8 = 0x00;
/// Last single-byte token; the first is 1.
pub(super) const LAST_TOKEN: u8 = 0xeb;
/// Tag of the first two-byte dictionary.
pub(super) const DICTIONARY_0: u8 = 0xec;
/// Tag of the last two-byte dictionary.
pub(super) const DICTIONARY_3: u8 = 0xef;
/// First unassigned tag.
pub(super) const UNASSIGNED_FIRST: u8 = 0xf0;
/// Last unassigned tag.
pub(super) const UNASSIGNED_LAST: u8 = 0xf4;
/// `interop` JID: user, device (u16), integrator (u16), server.
pub(super) const INTEROP_JID: u8 = 0xf5;
/// `msgr` JID: user, device (u16), server.
pub(super) const FB_JID: u8 = 0xf6;
/// Device JID: domain, device (u8), user.
pub(super) const AD_JID: u8 = 0xf7;
/// List with a count of one byte.
pub(super) const LIST_8: u8 = 0xf8;
/// List with a count of two bytes.
pub(super) const LIST_16: u8 = 0xf9;
/// JID of user and server.
pub(super) const JID_PAIR: u8 = 0xfa;
/// Packed upper-case hexadecimal text.
pub(super) const HEX_8: u8 = 0xfb;
/// Bytes or text, length of one byte.
pub(super) const BINARY_8: u8 = 0xfc;
/// Bytes or text, length of 20 bits in three bytes.
pub(super) const BINARY_20: u8 = 0xfd;
/// Bytes or text, length of four bytes.
pub(super) const BINARY_32: u8 = 0xfe;
/// Packed text of digits, `-` and `.`.
pub(super) const NIBBLE_8: u8 = 0xff;

/// Flag bit of a frame whose body is a zlib stream.
pub(super) const FLAG_ZLIB: u8 = 0x02;

/// Domain byte of `s.whatsapp.net` in a device JID.
pub(super) const DOMAIN_PN: u8 = 0;
/// Domain byte of `lid`.
pub(super) const DOMAIN_LID: u8 = 1;
/// Domain byte of `hosted`; any even value with bit 7 is read as the same.
pub(super) const DOMAIN_HOSTED: u8 = 128;
/// Domain byte of `hosted.lid`.
pub(super) const DOMAIN_HOSTED_LID: u8 = 129;

/// Levels of nodes that the encoder writes and the decoder accepts unless told otherwise (spec 02 §9).
pub(super) const MAX_DEPTH: u16 = 128;
