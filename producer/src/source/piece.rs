//! Reads of a piece of a file.

use bytes::Bytes;
use ptystream_common::buffer::Pool;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Reads `length` bytes from `offset` on into memory of a pool.
///
/// # Errors
/// Those of the system; [`io::ErrorKind::UnexpectedEof`] if the file ends before.
pub(super) fn read_at(file: &File, offset: u64, length: usize, pool: &Pool) -> io::Result<Bytes> {
    let mut buffer = pool.take(length);
    let read = file.read_exact_at(buffer.bytes_mut(), offset);
    let bytes = pool.lend(buffer);
    read.map(|()| bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_read_or_missed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [0, 1, 2, 3, 4]).unwrap();
        let (file, pool) = (File::open(&path).unwrap(), Pool::default());
        assert_eq!(read_at(&file, 1, 3, &pool).unwrap(), [1, 2, 3][..]);
        assert!(read_at(&file, 9, 0, &pool).unwrap().is_empty());
        let short = read_at(&file, 3, 3, &pool).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }
}
