//! Whether the loops of this process turn: what a health check looks at.
//!
//! Each role calls [`turned`] once in a turn of its loop, and holds what [`running`] returns for as long
//! as it has one: a thread that has ended counts no more, nor does one that is between two scans.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
static LOOPS: Mutex<Vec<Weak<Loop>>> = Mutex::new(Vec::new());

thread_local! {
    static OWN: RefCell<Option<Arc<Loop>>> = const { RefCell::new(None) };
}

struct Loop {
    name: String,
    /// Milliseconds from the beginning.
    last: AtomicU64,
}

/// A loop, and how long ago it turned last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// The name that it gave.
    pub name: String,
    /// Since its last turn.
    pub ago: Duration,
}

/// Tells that a loop has turned, under the name of its first turn.
pub fn turned(name: &str) {
    let now = BEGAN.elapsed().as_millis() as u64;
    OWN.with_borrow_mut(|own| match own {
        Some(own) => own.last.store(now, Ordering::Relaxed),
        None => {
            let new = Arc::new(Loop { name: name.to_owned(), last: AtomicU64::new(now) });
            let mut loops = LOOPS.lock().unwrap_or_else(PoisonError::into_inner);
            loops.retain(|l| l.strong_count() > 0);
            loops.push(Arc::downgrade(&new));
            *own = Some(new);
        }
    });
}

/// The loop of a thread counts until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Running(());

/// Begins a loop of this thread.
pub fn running(name: &str) -> Running {
    turned(name);
    Running(())
}

impl Drop for Running {
    fn drop(&mut self) {
        OWN.set(None);
    }
}

/// Lists the loops whose threads live.
pub fn alive() -> Vec<Turned> {
    let now = BEGAN.elapsed().as_millis() as u64;
    let loops = LOOPS.lock().unwrap_or_else(PoisonError::into_inner);
    let last = |l: Arc<Loop>| Turned {
        name: l.name.clone(),
        ago: Duration::from_millis(now.saturating_sub(l.last.load(Ordering::Relaxed))),
    };
    loops.iter().filter_map(Weak::upgrade).map(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_is_over_is_not_silent() {
        let found = || alive().iter().any(|l| l.name == "a loop that ends");
        let running = running("a loop that ends");
        assert!(found());
        drop(running);
        assert!(!found());
        turned("another");
        assert!(alive().iter().any(|l| l.name == "another"));
    }

    #[test]
    fn loops_are_known_as_long_as_their_threads_live() {
        let (tx, rx) = std::sync::mpsc::channel::<()>();
        let (told, tell) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            turned("a loop of a test");
            told.send(()).expect("somebody listens");
            // Ends when the other end is dropped.
            let _ = rx.recv();
        });
        let found = || alive().into_iter().find(|l| l.name == "a loop of a test");
        tell.recv().expect("it turns");
        std::thread::sleep(Duration::from_millis(30));
        assert!(found().is_some_and(|l| l.ago >= Duration::from_millis(20)));
        drop(tx);
        thread.join().expect("it ends");
        assert_eq!(found(), None);
    }
}
