//! What the codec refuses, and where.

/// Why a frame is not a node, or a node cannot be written.
///
/// Offsets count in the node bytes: after the flag byte, and after inflating. They point at the byte that is wrong or
/// begins what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No flag byte, or nothing after it, or an empty zlib stream.
    #[error("the frame holds no node")]
    EmptyFrame,
    /// The node bytes are more than [`Limits::max_inflated`](super::Limits::max_inflated); found while inflating.
    #[error("the node is larger than {max} bytes")]
    TooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// The inflated bytes are too many times the compressed ones, more than
    /// [`Limits::max_ratio`](super::Limits::max_ratio); found while inflating.
    #[error("{len} compressed bytes inflate to more than {max} times as many")]
    RatioTooHigh {
        /// Length of the compressed body.
        len: usize,
        /// The limit.
        max: u32,
    },
    /// The compressed body is not a zlib stream, or its checksum is wrong.
    #[error("the zlib stream is broken near byte {offset} of the body")]
    BadZlib {
        /// Bytes of the compressed body that were read.
        offset: usize,
    },
    /// The compressed body ends before its zlib stream does.
    #[error("the zlib stream is cut after {len} bytes")]
    TruncatedZlib {
        /// Length of the compressed body.
        len: usize,
    },
    /// The node bytes end inside an item.
    #[error("the node ends at byte {offset}, where {wanted} bytes are needed")]
    Truncated {
        /// Where the item's bytes should begin.
        offset: usize,
        /// How many bytes it needs from there.
        wanted: usize,
    },
    /// More list items are announced than the bytes that are left can hold.
    #[error("the list at byte {offset} announces {count} items, more than the frame can hold")]
    CountBeyondData {
        /// Where the list or the node begins.
        offset: usize,
        /// Announced number of children or attributes.
        count: usize,
    },
    /// A node does not begin with a list header.
    #[error("byte {offset} is {byte:#04x}, which begins no node")]
    NotANode {
        /// Position of the byte.
        offset: usize,
        /// The byte found.
        byte: u8,
    },
    /// A node header of size 0: not even a tag.
    #[error("the node at byte {offset} has size 0")]
    EmptyNode {
        /// Position of the header.
        offset: usize,
    },
    /// A node with an empty tag.
    #[error("the node tag at byte {offset} is empty")]
    EmptyTag {
        /// Position of the tag.
        offset: usize,
    },
    /// A list, a JID or nothing where a plain text must stand: tag, key, or part of a JID.
    #[error("byte {offset} is {byte:#04x}, which begins no text")]
    NotAText {
        /// Position of the byte.
        offset: usize,
        /// The byte found.
        byte: u8,
    },
    /// A list as an attribute value.
    #[error("byte {offset} is {byte:#04x}, which begins no attribute value")]
    NotAValue {
        /// Position of the byte.
        offset: usize,
        /// The byte found.
        byte: u8,
    },
    /// One of the unassigned tag bytes F0..=F4.
    #[error("byte {offset} is the unassigned tag {byte:#04x}")]
    UnknownToken {
        /// Position of the byte.
        offset: usize,
        /// The byte found.
        byte: u8,
    },
    /// A packed text with a digit that its alphabet lacks, or an odd one without bytes.
    #[error("bad packed text at byte {offset}")]
    BadPacked {
        /// Position of the length byte or of the packed byte.
        offset: usize,
    },
    /// A tag, a key or part of a JID is not UTF-8.
    #[error("invalid UTF-8 at byte {offset}")]
    BadUtf8 {
        /// Position of the first wrong byte.
        offset: usize,
    },
    /// A device JID or a pair without a part that it must have.
    #[error("the JID at byte {offset} lacks its user or server")]
    IncompleteJid {
        /// Where the empty part begins.
        offset: usize,
    },
    /// A device JID whose domain byte names no server.
    #[error("the JID domain at byte {offset} is {domain}")]
    UnknownDomain {
        /// Position of the domain byte.
        offset: usize,
        /// The domain byte.
        domain: u8,
    },
    /// An `msgr` or `interop` JID form with another server.
    #[error("the server at byte {offset} does not fit its JID form")]
    WrongServer {
        /// Position of the server text.
        offset: usize,
    },
    /// Nodes nested deeper than [`Limits::max_depth`](super::Limits::max_depth).
    #[error("nodes nested more than {max} deep at byte {offset}")]
    TooDeep {
        /// Position of the first node that is too deep.
        offset: usize,
        /// The limit.
        max: u16,
    },
    /// More nodes than [`Limits::max_nodes`](super::Limits::max_nodes).
    #[error("more than {max} nodes at byte {offset}")]
    TooManyNodes {
        /// Position of the first node too many.
        offset: usize,
        /// The limit.
        max: u32,
    },
    /// More attributes than [`Limits::max_attrs`](super::Limits::max_attrs).
    #[error("more than {max} attributes at byte {offset}")]
    TooManyAttrs {
        /// Position of the node that has them.
        offset: usize,
        /// The limit.
        max: u32,
    },
    /// Bytes after the root node.
    #[error("bytes left after the node, from byte {offset}")]
    TrailingBytes {
        /// Position of the first of them.
        offset: usize,
    },
    /// Encoder: nodes nested deeper than 128.
    #[error("nodes to be written are nested more than {max} deep")]
    TooManyLevels {
        /// The limit.
        max: u16,
    },
    /// Encoder: an attribute after content, or a second content.
    #[error("a node was written in the wrong order: attributes first, then one content")]
    WrongOrder,
    /// Encoder: an empty tag.
    #[error("a node to be written has an empty tag")]
    UnnamedNode,
    /// Encoder: more children or attributes than a list header can count.
    #[error("a list to be written has {len} items, at most {max} are possible")]
    ListTooLong {
        /// Number of items.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Encoder: a text or byte content of 4 GiB or more.
    #[error("content to be written has {len} bytes, at most 4294967295 are possible")]
    ContentTooLong {
        /// Length in bytes.
        len: usize,
    },
    /// Encoder: a device that does not fit in the one byte which its server's form has.
    #[error("device {device} of a JID to be written is above 255")]
    DeviceTooLarge {
        /// The device.
        device: u16,
    },
    /// Encoder: a JID without server name, or with a device but no user.
    #[error("a JID to be written lacks its user or server")]
    UnnamedJid,
}

impl NodeError {
    /// Where in the node bytes (for [`NodeError::BadZlib`]: in the compressed body) the fault is; `None` for faults of the
    /// whole frame and of the encoder.
    pub fn offset(&self) -> Option<usize> {
        match *self {
            Self::BadZlib { offset }
            | Self::Truncated { offset, .. }
            | Self::CountBeyondData { offset, .. }
            | Self::NotANode { offset, .. }
            | Self::EmptyNode { offset }
            | Self::EmptyTag { offset }
            | Self::NotAText { offset, .. }
            | Self::NotAValue { offset, .. }
            | Self::UnknownToken { offset, .. }
            | Self::BadPacked { offset }
            | Self::BadUtf8 { offset }
            | Self::IncompleteJid { offset }
            | Self::UnknownDomain { offset, .. }
            | Self::WrongServer { offset }
            | Self::TooDeep { offset, .. }
            | Self::TooManyNodes { offset, .. }
            | Self::TooManyAttrs { offset, .. }
            | Self::TrailingBytes { offset } => Some(offset),
            Self::EmptyFrame
            | Self::TooLarge { .. }
            | Self::RatioTooHigh { .. }
            | Self::TruncatedZlib { .. }
            | Self::TooManyLevels { .. }
            | Self::WrongOrder
            | Self::UnnamedNode
            | Self::ListTooLong { .. }
            | Self::ContentTooLong { .. }
            | Self::DeviceTooLarge { .. }
            | Self::UnnamedJid => None,
        }
    }
}
