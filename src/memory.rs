//! Keeps the memory of frames in the process.
//!
//! A frame of some hundred KiB is more than the allocator keeps: it would map fresh pages for each
//! and give them back at once, and the system would clear every page anew. What a scan needs at a
//! time is bounded by credit, so keeping it costs nothing but what was needed once.

/// Blocks below this come from memory that is kept; the most that the allocator takes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BLOCK: i32 = 32 << 20;
/// So much free memory at the end of a heap is kept.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_FREE: i32 = 64 << 20;

/// Tells the allocator to keep blocks of the size of frames; to be called before threads start.
pub fn keep_frames() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (what, value) in [(libc::M_MMAP_THRESHOLD, KEPT_BLOCK), (libc::M_TRIM_THRESHOLD, KEPT_FREE)]
    {
        // SAFETY: sets a parameter of the allocator, under its lock.
        if unsafe { libc::mallopt(what, value) } == 0 {
            tracing::debug!("the allocator does not take {value} for parameter {what}");
        }
    }
}
