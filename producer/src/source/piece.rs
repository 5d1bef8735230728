//! Reads of a piece of a file.

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};
use std::fs::File;
use std::io;

/// Reads `length` bytes from `offset` on, into memory that nobody has cleared before.
///
/// # Errors
/// Those of the system; [`io::ErrorKind::UnexpectedEof`] if the file ends before.
pub(super) fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let place = offset + bytes.len() as u64;
        match pread(file, spare_capacity(&mut bytes), place) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // There may be room for more than was asked for.
    bytes.truncate(length);
    Ok(bytes)
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
        let file = File::open(&path).unwrap();
        assert_eq!(read_at(&file, 1, 3).unwrap(), [1, 2, 3]);
        assert!(read_at(&file, 9, 0).unwrap().is_empty());
        let short = read_at(&file, 3, 3).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }
}
