//! Programs that are started while files are open.

use std::process::{Child, Command};

/// Starts a program that inherits none of this one's files.
///
/// The HDF5 library opens files such that programs inherit them. What inherits a file holds its lock and
/// its room on the disk for as long as it lives, though it knows nothing of it: a command of the user's
/// that follows a scan may live for hours.
///
/// # Errors
/// As [`Command::spawn`].
pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    // No file is opened by the library between the one and the other.
    hdf5::sync::sync(|| {
        keep_files();
        command.spawn()
    })
}

/// Marks what is open, but for the three standard streams, as not to be inherited.
fn keep_files() {
    // Without such a folder (in a bare chroot) programs inherit what they always did.
    let Ok(entries) = std::fs::read_dir("/dev/fd") else { return };
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(number) = number.filter(|n: &libc::c_int| *n > 2) {
            // SAFETY: no pointers; a number that is closed meanwhile is refused, and nothing else is done to it.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Stdio;

    fn said(child: Child) -> String {
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }

    #[test]
    fn a_program_inherits_no_file_of_the_library() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("open.h5");
        let file = hdf5::File::create(&path).unwrap();
        let list = || {
            let mut command = Command::new("sh");
            command.args(["-c", "ls -l /dev/fd/"]).stdout(Stdio::piped());
            command
        };
        let name = path.to_str().unwrap();
        // It does, where it is not kept from it.
        assert!(said(list().spawn().unwrap()).contains(name));
        assert!(!said(spawn(&mut list()).unwrap()).contains(name));
        // It is open here as before.
        file.create_group("still").unwrap();
    }
}
