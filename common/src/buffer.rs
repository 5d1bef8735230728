//! Memory for pixels of any type: aligned, reused, handed out without a copy.

#[cfg(not(target_endian = "little"))]
compile_error!(
    "prepared pixels are handed out as they lie in memory, which has to be little-endian"
);

use crate::dtype::Pixel;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers that wait for their next use at most, unless they are small.
const POOL_MAX: usize = 4;
/// Bytes of buffers that may wait however many they are.
const POOL_BYTES: usize = 4 << 20;

/// A line of the processor's cache: the system copies fastest into memory that begins with one.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "it is looked at as pixels")] [u64; 8]);

const LINE: usize = size_of::<Line>();

/// Bytes aligned for every pixel type.
#[derive(Debug, Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// Makes a buffer of `len` zero bytes.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0; 8]); len.div_ceil(LINE)], len }
    }

    /// Makes room for `n` pixels and returns them; what they hold is of no meaning.
    pub fn typed<T: Pixel>(&mut self, n: usize) -> &mut [T] {
        self.len = n * size_of::<T>();
        if self.lines.len() * LINE < self.len {
            self.lines.resize(self.len.div_ceil(LINE), Line([0; 8]));
        }
        self.slots(n, 0)
    }

    /// Returns the pixels of slot `k`, of `n` pixels a slot.
    ///
    /// # Panics
    /// If the buffer has no such slot: that is a fault of the caller.
    pub fn slots<T: Pixel>(&mut self, n: usize, k: usize) -> &mut [T] {
        // SAFETY: a line is made of `u64` without padding, every bit pattern is one and a value of each
        // pixel type (integers and floats, no others), and none of those has a greater alignment.
        let (_, all, _) = unsafe { self.lines.align_to_mut::<T>() };
        &mut all[n * k..][..n]
    }

    /// Returns the bytes of slot `k`, of `n` bytes a slot.
    ///
    /// # Panics
    /// As [`Self::slots`].
    pub fn byte_slot(&mut self, n: usize, k: usize) -> &mut [u8] {
        self.slots::<u8>(n, k)
    }

    /// Returns all bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.slots::<u8>(self.len, 0)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as in `slots`.
        let (_, all, _) = unsafe { self.lines.align_to::<u8>() };
        &all[..self.len]
    }
}

/// Buffers that are used again once their receiver has let go of them: fresh memory costs a page
/// fault for every 4 KiB, which is as much as the work on the pixels.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Mutex<Vec<Buffer>>>);

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
        let bytes = |b: &Buffer| b.lines.len() * LINE;
        let all = waiting.iter().map(bytes).sum::<usize>() + bytes(&buffer);
        if waiting.len() < POOL_MAX || all <= POOL_BYTES {
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

    #[test]
    fn no_more_wait_than_few_or_small_ones() {
        let pool = Pool::default();
        let lend = |n: usize, bytes: usize| -> Vec<Bytes> {
            (0..n).map(|_| pool.lend(pool.take(bytes))).collect()
        };
        drop(lend(3, 2 << 20));
        assert_eq!(pool.waiting().len(), 3);
        drop(lend(6, 2 << 20));
        assert_eq!(pool.waiting().len(), POOL_MAX);
        let pool = Pool::default();
        drop((0..9).map(|_| pool.lend(pool.take(1000))).collect::<Vec<_>>());
        assert_eq!(pool.waiting().len(), 9);
    }

    #[test]
    fn pixels_of_every_type_begin_with_a_line_of_the_cache() {
        let mut buffer = Buffer::zeros(3);
        assert_eq!((buffer.bytes_mut().len(), buffer.as_ref()), (3, &[0; 3][..]));
        assert_eq!(buffer.typed::<f64>(9).as_ptr().align_offset(LINE), 0);
        buffer.slots::<u16>(2, 3).copy_from_slice(&[1, 2]);
        assert_eq!(buffer.byte_slot(4, 3), [1, 0, 2, 0]);
        assert_eq!(buffer.as_ref().len(), 72);
    }
}
