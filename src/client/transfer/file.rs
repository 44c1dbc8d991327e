//! The file of an export: a stream of entries, cut into sealed chunks.
//!
//! ```text
//! file     "wamdexpt" | 01 | key number, u32 | salt, 32 bytes | chunk …                    45 bytes before the first chunk
//! chunk    length of what follows, u32, its highest bit set in the last one | ciphertext | tag, 16 bytes
//! entries  01 | length, u16 | name of the account                                           the first one
//!          02 | kind | length, u16 | id | length, u32 | value                               a record
//!          03 | number, u64 | length, u32 | body                                            an event of the outbox
//!          00 | number of records, u64 | number of events, u64                              the last one
//! ```
//!
//! All numbers are big-endian. Chunks are sealed with XAES-256-GCM under HKDF-SHA-256(salt, key of the caller, "wamd export 1"), a key of this file
//! alone. The nonce is the number of the chunk and whether it is the last one, so that chunks can be neither
//! moved nor left out, and nothing is missing from a file that ends with its last chunk (the construction STREAM). The header is bound to
//! each. A chunk holds up to 64 KiB, whatever stands in it: that, and one value, is what both sides keep in memory.

use std::io::{self, Read, Write};

use bytes::Bytes;
use zeroize::Zeroizing;

use super::TransferError;
use crate::{
    crypto::{Secret, XAesGcm, hkdf_sha256},
    store::{Key, OutboxEntry, RecordKind, SealKey},
};

const MAGIC: &[u8; 8] = b"wamdexpt";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 8 + 1 + 4 + SALT_LEN;
pub(super) const SALT_LEN: usize = 32;
const TAG_LEN: usize = 16;
/// Plaintext of a chunk.
const CHUNK: usize = 64 << 10;
/// Of the length of a chunk: it is the last one.
const LAST: u32 = 1 << 31;
/// Largest value: far more than a stanza can be.
const MAX_VALUE: u32 = 256 << 20;

const END: u8 = 0;
const NAME: u8 = 1;
const RECORD: u8 = 2;
const EVENT: u8 = 3;

/// What stands in a file.
pub(super) enum Entry {
    Record(Key, Bytes),
    Event(OutboxEntry),
    /// The end, with how many of both there were.
    End {
        records: u64,
        events: u64,
    },
}

/// The key of a file, and the number of the next chunk.
struct Chunks {
    cipher: XAesGcm,
    header: [u8; HEADER_LEN],
    next: u64,
}

impl Chunks {
    fn new(secret: &Secret<32>, header: [u8; HEADER_LEN]) -> Self {
        let salt = header.last_chunk::<SALT_LEN>().map(<[u8; SALT_LEN]>::as_slice);
        let key: Zeroizing<[u8; 32]> = Zeroizing::new(hkdf_sha256(salt, secret.expose(), b"wamd export 1"));
        Self { cipher: XAesGcm::new(&key), header, next: 0 }
    }

    fn nonce(&mut self, is_last: bool) -> [u8; 24] {
        let mut nonce = [0; 24];
        nonce
            .iter_mut()
            .zip(self.next.to_be_bytes().into_iter().chain([is_last.into()]))
            .for_each(|(to, from)| *to = from);
        self.next = self.next.saturating_add(1);
        nonce
    }
}

/// Writes a file.
pub(super) struct Writer<'a> {
    out: &'a mut (dyn Write + Send),
    chunks: Chunks,
    chunk: Zeroizing<Vec<u8>>,
    records: u64,
    events: u64,
}

impl<'a> Writer<'a> {
    /// Begins one. The salt was never used before.
    pub(super) fn begin(
        out: &'a mut (dyn Write + Send),
        key: &SealKey,
        salt: [u8; SALT_LEN],
        account: &str,
    ) -> Result<Self, TransferError> {
        let mut header = [0; HEADER_LEN];
        let parts = MAGIC.iter().copied().chain([VERSION]).chain(key.id().to_be_bytes()).chain(salt);
        header.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        out.write_all(&header)?;
        let chunk = Zeroizing::new(Vec::with_capacity(CHUNK + TAG_LEN));
        let mut writer = Self { out, chunks: Chunks::new(key.secret(), header), chunk, records: 0, events: 0 };
        let length = u16::try_from(account.len()).map_err(|_| TransferError::TooLarge("the name of the account"))?;
        writer.put(&[NAME])?;
        writer.put(&length.to_be_bytes())?;
        writer.put(account.as_bytes())?;
        Ok(writer)
    }

    pub(super) fn record(&mut self, key: &Key, value: &[u8]) -> Result<(), TransferError> {
        let id = u16::try_from(key.id.len()).map_err(|_| TransferError::TooLarge("the id of a record"))?;
        self.put(&[RECORD, key.kind as u8])?;
        self.put(&id.to_be_bytes())?;
        self.put(&key.id)?;
        self.value(value)?;
        self.records = self.records.saturating_add(1);
        Ok(())
    }

    pub(super) fn event(&mut self, event: &OutboxEntry) -> Result<(), TransferError> {
        self.put(&[EVENT])?;
        self.put(&event.seq.to_be_bytes())?;
        self.value(&event.body)?;
        self.events = self.events.saturating_add(1);
        Ok(())
    }

    /// Ends it; how many records and events there are.
    pub(super) fn finish(mut self) -> Result<(u64, u64), TransferError> {
        let (records, events) = (self.records, self.events);
        self.put(&[END])?;
        self.put(&records.to_be_bytes())?;
        self.put(&events.to_be_bytes())?;
        self.seal(true)?;
        self.out.flush()?;
        Ok((records, events))
    }

    fn value(&mut self, value: &[u8]) -> Result<(), TransferError> {
        let length = u32::try_from(value.len()).ok().filter(|length| *length <= MAX_VALUE);
        self.put(&length.ok_or(TransferError::TooLarge("a value"))?.to_be_bytes())?;
        self.put(value)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), TransferError> {
        while !bytes.is_empty() {
            if self.chunk.len() >= CHUNK {
                self.seal(false)?;
            }
            let (some, rest) = bytes.split_at(bytes.len().min(CHUNK.saturating_sub(self.chunk.len())));
            self.chunk.extend_from_slice(some);
            bytes = rest;
        }
        Ok(())
    }

    fn seal(&mut self, is_last: bool) -> Result<(), TransferError> {
        let nonce = self.chunks.nonce(is_last);
        self.chunks.cipher.seal(&nonce, &self.chunks.header, &mut self.chunk);
        // At most 64 KiB and a tag.
        let length = u32::try_from(self.chunk.len()).unwrap_or(u32::MAX) | if is_last { LAST } else { 0 };
        self.out.write_all(&length.to_be_bytes())?;
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }
}

/// Reads a file.
pub(super) struct Reader<'a> {
    input: &'a mut (dyn Read + Send),
    chunks: Chunks,
    chunk: Zeroizing<Vec<u8>>,
    /// How much of the chunk was read.
    at: usize,
    was_last: bool,
}

impl<'a> Reader<'a> {
    /// Reads the name of the account.
    pub(super) fn begin(input: &'a mut (dyn Read + Send), key: &SealKey) -> Result<(Self, String), TransferError> {
        let mut header = [0; HEADER_LEN];
        read_exact(input, &mut header)?;
        let (magic, rest) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(TransferError::Format("it is no export"));
        }
        let id = match rest {
            [VERSION, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]),
            _ => return Err(TransferError::Format("it is of a newer version")),
        };
        if id != key.id() {
            return Err(TransferError::UnknownKey { id });
        }
        let chunk = Zeroizing::new(Vec::new());
        let mut reader = Self { input, chunks: Chunks::new(key.secret(), header), chunk, at: 0, was_last: false };
        let [tag] = reader.array()?;
        if tag != NAME {
            return Err(TransferError::Format("it does not begin with a name"));
        }
        let length = u16::from_be_bytes(reader.array()?);
        let name = String::from_utf8(reader.bytes(length.into())?);
        Ok((reader, name.map_err(|_| TransferError::Format("the name of the account is no text"))?))
    }

    /// The next entry. After the end nothing is read.
    pub(super) fn entry(&mut self) -> Result<Entry, TransferError> {
        match self.array()? {
            [RECORD] => {
                let [kind] = self.array()?;
                let kind = RecordKind::ALL.into_iter().find(|known| *known as u8 == kind);
                let kind = kind.ok_or(TransferError::Format("it has records of a newer version"))?;
                let length = u16::from_be_bytes(self.array()?);
                let key = Key::new(kind, self.bytes(length.into())?);
                Ok(Entry::Record(key, self.value()?))
            }
            [EVENT] => {
                let seq = u64::from_be_bytes(self.array()?);
                Ok(Entry::Event(OutboxEntry { seq, body: self.value()? }))
            }
            [END] => {
                let end = Entry::End {
                    records: u64::from_be_bytes(self.array()?),
                    events: u64::from_be_bytes(self.array()?),
                };
                match self.was_last && self.at == self.chunk.len() {
                    true => Ok(end),
                    false => Err(TransferError::Format("something follows its end")),
                }
            }
            [_] => Err(TransferError::Format("it has entries of a newer version")),
        }
    }

    fn value(&mut self) -> Result<Bytes, TransferError> {
        let length = u32::from_be_bytes(self.array()?);
        if length > MAX_VALUE {
            return Err(TransferError::TooLarge("a value"));
        }
        Ok(self.bytes(length)?.into())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TransferError> {
        let mut array = [0; N];
        for to in &mut array {
            *to = *self.available()?.first().ok_or(TransferError::Truncated)?;
            self.at = self.at.saturating_add(1);
        }
        Ok(array)
    }

    /// So many bytes. Nothing is reserved for those that have not arrived.
    fn bytes(&mut self, length: u32) -> Result<Vec<u8>, TransferError> {
        let (mut bytes, mut left) = (Vec::new(), length as usize);
        while left > 0 {
            let available = self.available()?;
            let some = available.get(..left.min(available.len())).unwrap_or_default();
            bytes.extend_from_slice(some);
            let count = some.len();
            left = left.saturating_sub(count);
            self.at = self.at.saturating_add(count);
        }
        Ok(bytes)
    }

    /// What is there of the chunk, or of the next one; never nothing.
    fn available(&mut self) -> Result<&[u8], TransferError> {
        while self.at >= self.chunk.len() {
            self.open()?;
        }
        Ok(self.chunk.get(self.at..).unwrap_or_default())
    }

    /// Reads the next chunk.
    fn open(&mut self) -> Result<(), TransferError> {
        if self.was_last {
            return Err(TransferError::Format("it ends in the middle of an entry"));
        }
        let mut word = [0; 4];
        read_exact(self.input, &mut word)?;
        let word = u32::from_be_bytes(word);
        let (length, is_last) = ((word & !LAST) as usize, word & LAST != 0);
        if length > CHUNK.saturating_add(TAG_LEN) {
            return Err(TransferError::TooLarge("a chunk"));
        }
        // An empty chunk would say nothing: there are none, so that no file makes us read without an end.
        if length <= TAG_LEN {
            return Err(TransferError::Format("a chunk of it is empty"));
        }
        let mut chunk = Zeroizing::new(vec![0; length]);
        read_exact(self.input, &mut chunk)?;
        let nonce = self.chunks.nonce(is_last);
        let opened = self.chunks.cipher.open(&nonce, &self.chunks.header, &mut chunk).map(|plain| plain.len());
        let length = opened.map_err(|_| TransferError::Sealed)?;
        chunk.truncate(length);
        (self.chunk, self.at, self.was_last) = (chunk, 0, is_last);
        Ok(())
    }
}

fn read_exact(input: &mut dyn Read, bytes: &mut [u8]) -> Result<(), TransferError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => TransferError::Truncated,
        _ => error.into(),
    })
}
