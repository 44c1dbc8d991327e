//! A cursor over protobuf wire bytes: tags and the four shapes of values, with the offset for errors.
//!
//! Knows nothing of the schema. Every step consumes input or fails, so a loop over a cursor ends.

use super::JsonError;

/// Groups (obsolete, skipped) may nest this deep.
const GROUP_DEPTH: usize = 100;

/// A stretch of the input and where it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

/// One value as it stood on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Len(Part<'a>),
}

/// Why a stretch of wire bytes cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Truncated,
    Varint,
    Tag,
    Group,
}

impl Fault {
    /// The public error, with the message type that was being read.
    pub(super) fn within(self, at: usize, message: &'static str) -> JsonError {
        match self {
            Self::Truncated => JsonError::Truncated { at, message },
            Self::Varint => JsonError::Varint { at, message },
            Self::Tag => JsonError::Tag { at, message },
            Self::Group => JsonError::Group { at, message },
        }
    }
}

/// Reads a [`Part`] from front to back.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(part: Part<'a>) -> Self {
        Self { rest: part.bytes, end: part.at.saturating_add(part.bytes.len()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The offset of the next byte in the whole input.
    pub(super) fn at(&self) -> usize {
        self.end.saturating_sub(self.rest.len())
    }

    /// The next field number and its value; `None` for a group, which is skipped.
    pub(super) fn next_field(&mut self) -> Result<(u32, Option<Wire<'a>>), Fault> {
        let (number, wire_type) = self.tag()?;
        let value = match wire_type {
            3 => {
                self.skip_group(number)?;
                return Ok((number, None));
            }
            4 => return Err(Fault::Group),
            other => self.value(other)?,
        };
        Ok((number, Some(value)))
    }

    /// A little-endian base-128 number of at most ten bytes.
    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0_u64;
        for shift in (0_u32..70).step_by(7) {
            let [byte] = self.take()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return Err(Fault::Varint);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Fault::Varint)
    }

    pub(super) fn fixed32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(super) fn fixed64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn tag(&mut self) -> Result<(u32, u8), Fault> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Fault::Tag)?;
        let number = tag >> 3;
        let wire_type = (tag & 7) as u8;
        if number == 0 || wire_type > 5 {
            return Err(Fault::Tag);
        }
        Ok((number, wire_type))
    }

    fn value(&mut self, wire_type: u8) -> Result<Wire<'a>, Fault> {
        Ok(match wire_type {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.fixed64()?),
            2 => Wire::Len(self.len_delimited()?),
            5 => Wire::Fixed32(self.fixed32()?),
            _ => return Err(Fault::Tag),
        })
    }

    fn len_delimited(&mut self) -> Result<Part<'a>, Fault> {
        let len = usize::try_from(self.varint()?).map_err(|_| Fault::Truncated)?;
        let at = self.at();
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(Part { bytes, at })
    }

    /// Skips to the end tag of the group `number`, whose start tag was read.
    fn skip_group(&mut self, number: u32) -> Result<(), Fault> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            match self.tag()? {
                (number, 3) if open.len() < GROUP_DEPTH => open.push(number),
                (_, 3) => return Err(Fault::Group),
                (number, 4) if number == innermost => {
                    open.pop();
                }
                (_, 4) => return Err(Fault::Group),
                (_, wire_type) => {
                    self.value(wire_type)?;
                }
            }
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }
}
