//! Compressed frame bodies: one zlib stream each (RFC 1950; spec 02 §1).

use bytes::{Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

use super::{Limits, NodeError};

/// Inflates bodies one after the other. The zlib state (about 40 KiB) is made for the first one and kept; the output
/// buffer is used again as soon as nobody holds the bytes of the frame before.
#[derive(Debug, Default)]
pub(super) struct Inflater {
    state: Option<Decompress>,
    buffer: BytesMut,
    /// Size of the allocation that `buffer` is the rest of.
    allocated: usize,
}

impl Inflater {
    /// Inflates the stream at the head of `body`; what follows the stream is ignored.
    ///
    /// # Errors
    /// [`NodeError::TooLarge`] as soon as there are more than `max_inflated` bytes, [`NodeError::RatioTooHigh`] as soon as
    /// there are more than `max_ratio` times those of `body` and more than [`RATIO_FLOOR`], [`NodeError::BadZlib`],
    /// [`NodeError::TruncatedZlib`].
    pub(super) fn inflate(&mut self, body: &[u8], limits: &Limits) -> Result<Bytes, NodeError> {
        let by_ratio = body.len().saturating_mul(limits.max_ratio as usize).max(RATIO_FLOOR);
        let max = limits.max_inflated.min(by_ratio);
        let too_large = if max < limits.max_inflated {
            NodeError::RatioTooHigh { len: body.len(), max: limits.max_ratio }
        } else {
            NodeError::TooLarge { max }
        };
        let state = self.state.get_or_insert_with(|| Decompress::new(true));
        state.reset(true);
        let buffer = &mut self.buffer;
        buffer.clear();
        let ceiling = max.saturating_add(1);
        buffer.resize(body.len().saturating_mul(4).clamp(FIRST_MIN, FIRST_MAX).min(ceiling), 0);
        loop {
            let (read, written) = (state.total_in() as usize, state.total_out() as usize);
            if written > max {
                return Err(too_large);
            }
            if written == buffer.len() {
                buffer.resize(written.saturating_mul(2).min(ceiling), 0);
            }
            let input = body.get(read..).unwrap_or_default();
            let output = buffer.get_mut(written..).unwrap_or_default();
            let status = state
                .decompress(input, output, FlushDecompress::None)
                .map_err(|_| NodeError::BadZlib { offset: state.total_in() as usize })?;
            let done = state.total_out() as usize;
            match status {
                Status::StreamEnd if done > max => return Err(too_large),
                Status::StreamEnd => {
                    self.allocated = buffer.capacity();
                    buffer.truncate(done);
                    return Ok(buffer.split().freeze());
                }
                // Output is never without room here, so that standing still means that input is missing.
                Status::Ok | Status::BufError if done == written && state.total_in() as usize == read => {
                    return Err(NodeError::TruncatedZlib { len: body.len() });
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// Gives all memory back.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }

    /// Gives the output buffer back if it is much larger than the frame just read.
    pub(super) fn trim(&mut self, used: usize) {
        let allocated = self.allocated.max(self.buffer.capacity());
        if allocated > RETAIN && allocated / 4 > used {
            self.buffer = BytesMut::new();
            self.allocated = 0;
        }
    }
}

/// Inflated bytes that any body may have: short lists of like items compress very well, and this much hurts nobody.
const RATIO_FLOOR: usize = 256 * 1_024;
/// Smallest first guess of the output size.
const FIRST_MIN: usize = 1_024;
/// Largest first guess: a hostile ratio then costs no more than the doubling steps that it fills.
const FIRST_MAX: usize = 64 * 1_024;
/// Buffers up to this size are always kept.
const RETAIN: usize = 64 * 1_024;
