//! Every file operation of the writer, told before it is done.
//!
//! A sink may be killed between any two of them. Whoever watches a thread's operations can count
//! them, and refuse all from the k-th on: nothing touches the disk any more, as after a kill.
//!
//! | operation | its path |
//! |---|---|
//! | `create`, `write`, `close` | a file that is being written; its bytes are not safe before `sync` |
//! | `sync` | the file |
//! | `rename` | the file under its name before |
//! | `sync folder`, `make folder` | the folder |
//! | `delete` | the file |
//! | `open the lock`, `write the lock`, `sync the lock` | the lock |

use crate::error::SinkError;
use std::cell::RefCell;
use std::io;
use std::path::Path;

type Look = Box<dyn FnMut(&'static str, &Path) -> bool>;

thread_local! {
    static LOOK: RefCell<Option<Look>> = const { RefCell::new(None) };
}

/// Ends the watch of [`watch`] when dropped.
#[derive(Debug)]
#[must_use]
pub struct Watch(());

impl Drop for Watch {
    fn drop(&mut self) {
        LOOK.take();
    }
}

/// Watches the operations of this thread: `look` is told each with its path before it is done, and
/// refuses it by `false`.
pub fn watch(look: impl FnMut(&'static str, &Path) -> bool + 'static) -> Watch {
    LOOK.set(Some(Box::new(look)));
    Watch(())
}

/// Tells of an operation that is about to be done.
pub(crate) fn next(doing: &'static str, path: &Path) -> Result<(), SinkError> {
    let goes_on = LOOK.with_borrow_mut(|look| look.as_mut().is_none_or(|look| look(doing, path)));
    if goes_on {
        return Ok(());
    }
    Err(SinkError::file(doing, path)(io::Error::other("cut off by who watches")))
}
