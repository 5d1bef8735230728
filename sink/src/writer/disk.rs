//! Every file operation of the sink but those inside HDF5 files and on the lock.

use super::operations;
use crate::error::SinkError;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// End of the names of temporary files; what bears it may be deleted by whoever holds the lock.
pub(crate) const TEMPORARY: &str = ".ptystream-tmp";

/// Returns a hidden temporary name beside `file`.
pub(crate) fn temporary(file: &Path, what: &str) -> PathBuf {
    beside(file, &format!(".{}.{what}{TEMPORARY}", name_of(file)))
}

/// Returns the last part of a path as text.
pub(crate) fn name_of(file: &Path) -> String {
    file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Returns the path of `name` in the folder of `file`.
pub(crate) fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new(".")).join(name)
}

/// Writes a file whole, replacing an old one of the name.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), SinkError> {
    fs::write(path, bytes).map_err(SinkError::file("write", path))
}

/// Brings a file's content to the disk.
pub(crate) fn sync_file(path: &Path) -> Result<(), SinkError> {
    operations::next("sync", path)?;
    File::open(path).and_then(|f| f.sync_all()).map_err(SinkError::file("sync", path))
}

/// Brings the names in the folder of `file` to the disk.
pub(crate) fn sync_folder_of(file: &Path) -> Result<(), SinkError> {
    // A bare name has an empty folder, which cannot be opened.
    let folder = match beside(file, "") {
        empty if empty.as_os_str().is_empty() => PathBuf::from("."),
        folder => folder,
    };
    operations::next("sync folder", &folder)?;
    File::open(&folder).and_then(|f| f.sync_all()).map_err(SinkError::file("sync folder", folder))
}

/// Gives a file another name, replacing what had it.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), SinkError> {
    operations::next("rename", from)?;
    fs::rename(from, to).map_err(SinkError::file("rename to its place", to))
}

/// Deletes a file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), SinkError> {
    if !exists(path) {
        return Ok(());
    }
    operations::next("delete", path)?;
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(SinkError::file("delete", path)(e)),
        _ => Ok(()),
    }
}

/// Tells whether there is something of this name.
pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Tells whether a file begins as HDF5 files do.
pub(crate) fn is_hdf5(path: &Path) -> bool {
    let mut start = [0; 8];
    let read = File::open(path).and_then(|mut f| io::Read::read_exact(&mut f, &mut start));
    read.is_ok() && start == *b"\x89HDF\r\n\x1a\n"
}

/// Makes the folder of `file`.
pub(crate) fn make_folder_of(file: &Path) -> Result<(), SinkError> {
    let folder = beside(file, "");
    if folder.is_dir() {
        return Ok(());
    }
    operations::next("make folder", &folder)?;
    fs::create_dir_all(&folder).map_err(SinkError::file("create the folder of data.dfile", folder))
}

/// Makes the path of the file to be written absolute.
///
/// # Errors
/// [`SinkError::Folder`]: anything else that is no finished scan moves to `.old`; a folder may be the user's data.
pub(crate) fn resolved(dfile: &Path) -> Result<PathBuf, SinkError> {
    let dfile = std::path::absolute(dfile).map_err(SinkError::file("resolve", dfile))?;
    if dfile.is_dir() { Err(SinkError::Folder(dfile)) } else { Ok(dfile) }
}

/// Checks that a file can be written, as far as that is seen before anything is.
///
/// # Errors
/// [`SinkError::Folder`], and what the system would say.
pub fn check_place(file: &Path) -> Result<(), SinkError> {
    let folder = beside(&resolved(file)?, "");
    let there = folder.ancestors().find(|f| exists(f)).unwrap_or(Path::new("."));
    let refused = |e| match there == folder {
        true => SinkError::file("write in", there)(e),
        false => SinkError::file("create the folder of data.dfile", &folder)(e),
    };
    if !there.is_dir() {
        return Err(refused(io::ErrorKind::NotADirectory.into()));
    }
    let name = CString::new(there.as_os_str().as_bytes()).map_err(|e| refused(e.into()))?;
    // As whom it will be written: `--group` may have changed that.
    let (mode, flags) = (libc::W_OK | libc::X_OK, libc::AT_EACCESS);
    // SAFETY: the name ends with a zero.
    match unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), mode, flags) } {
        0 => Ok(()),
        _ => Err(refused(io::Error::last_os_error())),
    }
}

/// Lists the files in the folder of `file`.
pub(crate) fn siblings(file: &Path) -> Result<Vec<String>, SinkError> {
    let folder = beside(file, "");
    let list = || -> io::Result<Vec<String>> {
        let names = fs::read_dir(&folder)?.map(|e| Ok(e?.file_name().to_string_lossy().into()));
        names.collect()
    };
    list().map_err(SinkError::file("list folder", &folder))
}

/// Writes a small file beside `dfile` whole: temporary name, sync, rename, sync of the folder.
pub(crate) fn write_whole(dfile: &Path, path: &Path, text: &str) -> Result<(), SinkError> {
    let temp = temporary(dfile, "text");
    operations::next("write", &temp)?;
    fs::write(&temp, text).map_err(SinkError::file("write", &temp))?;
    sync_file(&temp)?;
    rename(&temp, path)?;
    sync_folder_of(path)
}

/// Tries whether the disk takes writes again: room for `needed` bytes, and a small file that
/// reaches it.
pub(crate) fn probe(dfile: &Path, needed: u64) -> Result<(), SinkError> {
    if let Some(free) = free_bytes(dfile).filter(|free| *free < needed) {
        return Err(SinkError::DiskFull { path: dfile.to_owned(), needed, free });
    }
    let temp = temporary(dfile, "probe");
    let tried = operations::next("write", &temp)
        .and_then(|()| fs::write(&temp, [0x55; 4096]).map_err(SinkError::file("write", &temp)))
        .and_then(|()| sync_file(&temp));
    let removed = remove(&temp);
    tried.and(removed)
}

/// Returns a file's size; 0 if it is not there.
pub(crate) fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

/// Returns the bytes free for this process on the disk of `file`'s folder; `None` if unknown.
pub(crate) fn free_bytes(file: &Path) -> Option<u64> {
    ptystream_common::disk::free_bytes(&beside(file, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_working_folder() {
        assert_eq!(sync_folder_of(Path::new("scan.ptyd")).map_err(|e| e.to_string()), Ok(()));
        assert_eq!(beside(Path::new("scan.ptyd"), "other"), Path::new("other"));
    }
}
