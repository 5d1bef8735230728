//! Memory for pixels of any type: aligned, reused, handed out without a copy.

#[cfg(not(target_endian = "little"))]
compile_error!(
    "prepared pixels are handed out as they lie in memory, which has to be little-endian"
);

use crate::prepare::pixel::Raw;

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
