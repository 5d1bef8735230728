//! CPU time and memory of child processes.

use std::process::Child;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system.
    pub cpu_secs: f64,
    /// Highest resident memory.
    pub peak_bytes: u64,
}

impl Usage {
    /// Takes another process of the same role in: times add up, of memory the higher counts.
    pub fn and(self, other: Self) -> Self {
        Self {
            cpu_secs: self.cpu_secs + other.cpu_secs,
            peak_bytes: self.peak_bytes.max(other.peak_bytes),
        }
    }
}

/// Waits for a process that is to succeed.
pub fn wait(child: Child, what: &str) -> Usage {
    let mut status = 0;
    // SAFETY: all-zero is a valid `rusage`, a struct of integers.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = child.id() as libc::pid_t;
    // SAFETY: both pointers are to values that live through the call; the child has not been
    // waited for before, so its number is still its own.
    let got = unsafe { libc::wait4(pid, &mut status, 0, &mut used) };
    assert_eq!(got, pid, "{what}: {}", std::io::Error::last_os_error());
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "{what} failed, wait status {status:#x}"
    );
    let secs = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    Usage {
        cpu_secs: secs(used.ru_utime) + secs(used.ru_stime),
        peak_bytes: used.ru_maxrss as u64 * 1024,
    }
}
