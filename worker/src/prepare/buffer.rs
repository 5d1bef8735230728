//! Memory for pixels of any type: aligned, reused, handed out without a copy.

#[cfg(not(target_endian = "little"))]
compile_error!(
    "prepared pixels are handed out as they lie in memory, which has to be little-endian"
);

use crate::prepare::pixel::Raw;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers that wait for their next use at most.
const POOL_MAX: usize = 4;

/// Bytes aligned for every pixel type.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    words: Vec<u64>,
    len: usize,
}

impl Buffer {
    /// Makes a buffer of `len` zero bytes.
    pub fn zeros(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(8)], len }
    }

    /// Makes room for `n` pixels and returns them; what they hold is of no meaning.
    pub fn typed<T: Raw>(&mut self, n: usize) -> &mut [T] {
        self.len = n * size_of::<T>();
        if self.words.len() * 8 < self.len {
            self.words.resize(self.len.div_ceil(8), 0);
        }
        self.slots(n, 0)
    }

    /// Returns the pixels of slot `k`, of `n` pixels a slot.
    pub fn slots<T: Raw>(&mut self, n: usize, k: usize) -> &mut [T] {
        // SAFETY: every bit pattern is a `u64` and a value of each `Raw` type (integers and
        // floats), and no `Raw` type has a greater alignment or size than `u64`.
        let (_, all, _) = unsafe { self.words.align_to_mut::<T>() };
        &mut all[n * k..][..n]
    }

    /// Returns the bytes of slot `k`, of `n` bytes a slot.
    pub fn byte_slot(&mut self, n: usize, k: usize) -> &mut [u8] {
        self.slots::<u8>(n, k)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as in `slots`.
        let (_, all, _) = unsafe { self.words.align_to::<u8>() };
        &all[..self.len]
    }
}

/// Outgoing buffers, used again once their receiver has let go of them: fresh memory costs a page
/// fault for every 4 KiB, which is as much as the work on the pixels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Buffer>>>);

impl Pool {
    /// Returns a buffer of `len` bytes; what it holds is of no meaning.
    pub fn take(&self, len: usize) -> Buffer {
        let mut buffer = self.waiting().pop().unwrap_or_default();
        buffer.typed::<u8>(len);
        buffer
    }

    /// Takes a buffer back.
    pub fn give(&self, buffer: Buffer) {
        let mut waiting = self.waiting();
        if waiting.len() < POOL_MAX {
            waiting.push(buffer);
        }
    }

    /// Hands a buffer out; it comes back when the last holder drops it.
    pub fn lend(&self, buffer: Buffer) -> Bytes {
        Bytes::from_owner(Lent { buffer, pool: self.clone() })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Buffer>> {
        // A list of buffers is whole whatever its last holder was doing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Lent {
    buffer: Buffer,
    pool: Pool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_when_the_last_holder_lets_go() {
        let pool = Pool::default();
        let mut buffer = pool.take(12);
        buffer.byte_slot(4, 2).copy_from_slice(&[1, 2, 3, 4]);
        let place = buffer.as_ref().as_ptr();
        let lent = pool.lend(buffer);
        let part = lent.slice(8..);
        drop(lent);
        assert_eq!((&part[..], pool.waiting().len()), (&[1, 2, 3, 4][..], 0));
        drop(part);
        let again = pool.take(5);
        assert_eq!((again.as_ref().as_ptr(), again.as_ref().len()), (place, 5));
    }
}
