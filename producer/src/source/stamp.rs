//! What identifies a file: size and modification time.

use std::path::Path;
use std::time::UNIX_EPOCH;

/// Writes size and modification time of a file, for [`identity`].
///
/// [`identity`]: ptystream_common::source::Source::identity
pub(crate) fn stamp(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(meta) => {
            let modified = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
            let nanos = modified.map_or(0, |t| t.as_nanos());
            format!("{} bytes, modified {nanos} ns", meta.len())
        }
        Err(_) => "absent".into(),
    }
}
