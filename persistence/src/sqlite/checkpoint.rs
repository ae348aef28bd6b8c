//! Moving the write-ahead log into the file. The bulk is done here, on a thread of its own beside the running commits; what
//! was committed meanwhile is little, and the writer moves it between two commits, which lets the log start over. When
//! commits pause, the rest is moved too, so that a restart has little to read.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;

use crate::Error;

/// A log longer than this is moved while commits go on.
pub(super) const LOG_PAGES_MAX: usize = 16_000;
/// After a move that readers kept from completing: how much longer the log gets before the next try.
const LOG_PAGES_MORE: usize = 4_000;
/// How long commits must pause for the rest to be moved.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    commits: u64,
    pages: usize,
    /// The length that starts the next move.
    pages_next: usize,
    /// The thread looks by itself: a commit need not wake it.
    awake: bool,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The bulk is in the file: the writer may move what is left.
    rest_is_small: AtomicBool,
}

/// The writer's side.
#[derive(Clone)]
pub(super) struct Handle(Arc<Shared>);

/// The thread.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Tells the length of the log after a commit; true when the writer should move the rest itself, now.
    pub(super) fn committed(&self, pages: usize) -> bool {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if pages < state.pages {
            state.pages_next = LOG_PAGES_MAX;
        }
        state.commits += 1;
        state.pages = pages;
        if !state.awake || pages >= state.pages_next {
            state.awake = true;
            drop(state);
            self.0.changed.notify_one();
        }
        self.0.rest_is_small.swap(false, Ordering::AcqRel)
    }
}

impl Checkpointer {
    pub(super) fn start(name: &str, connection: Connection) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let mine = Arc::clone(&shared);
        shared.state.lock().unwrap_or_else(PoisonError::into_inner).pages_next = LOG_PAGES_MAX;
        let thread = thread::Builder::new()
            .name(name.to_string())
            .spawn(move || work(&mine, &connection))
            .map_err(super::no_thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Due {
    Long,
    Idle,
    Closed,
}

fn work(shared: &Shared, connection: &Connection) {
    loop {
        let idle = match wait(shared) {
            Due::Closed => return,
            Due::Idle => true,
            Due::Long => false,
        };
        match passive(connection) {
            Ok((log, moved)) => {
                let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
                // What readers pin cannot be moved now: wait for more instead of trying again at once.
                state.pages_next = log.max(state.pages) + LOG_PAGES_MORE;
                drop(state);
                tracing::debug!(log, moved, "moved the write-ahead log into the file");
                if !idle {
                    shared.rest_is_small.store(true, Ordering::Release);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot move the write-ahead log into the file"),
        }
    }
}

/// Sleeps without waking up while there is nothing to do.
fn wait(shared: &Shared) -> Due {
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if state.closed {
            return Due::Closed;
        }
        if state.pages >= state.pages_next {
            return Due::Long;
        }
        let commits = state.commits;
        if !state.awake {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let (woken, timeout) =
            shared.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = woken;
        if timeout.timed_out() && state.commits == commits {
            state.awake = false;
            if state.pages > 0 {
                return Due::Idle;
            }
        }
    }
}

/// Moves what no reader needs; returns the pages in the log and those of them that are now in the file.
pub(super) fn passive(connection: &Connection) -> Result<(usize, usize), Error> {
    let pages = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    })?;
    Ok((usize::try_from(pages.0).unwrap_or(0), usize::try_from(pages.1).unwrap_or(0)))
}
