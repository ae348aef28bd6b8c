//! The one bridge from async code to blocking store calls. Threaded: a pool of threads of its own, one per resource (a
//! database connection), fed from one queue. Inline: on the caller, which is what makes a simulated node deterministic.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

/// How blocking store calls are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreExecutor {
    /// On threads of their own.
    #[default]
    Threaded,
    /// On the calling thread, at once.
    Inline,
}

/// The pool is closed, or the call broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the store's thread has stopped")
    }
}

impl std::error::Error for Stopped {}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

struct Queue<S> {
    jobs: VecDeque<Job<S>>,
    closed: bool,
}

struct Shared<S> {
    queue: Mutex<Queue<S>>,
    ready: Condvar,
}

enum Mode<S> {
    Threaded { shared: Arc<Shared<S>>, threads: Vec<JoinHandle<()>> },
    Inline(Mutex<S>),
}

/// Blocking resources, each used by one caller at a time. Dropping it finishes what is queued and drops the resources.
pub struct StorePool<S: Send + 'static> {
    mode: Mode<S>,
}

impl StoreExecutor {
    /// A pool over these resources: a thread for each, or inline over `first`.
    ///
    /// # Errors
    /// The system refused a thread.
    pub fn pool<S: Send + 'static>(self, name: &str, first: S, spare: Vec<S>) -> io::Result<StorePool<S>> {
        let mode = match self {
            Self::Inline => Mode::Inline(Mutex::new(first)),
            Self::Threaded => {
                let shared = Arc::new(Shared {
                    queue: Mutex::new(Queue { jobs: VecDeque::new(), closed: false }),
                    ready: Condvar::new(),
                });
                let mut threads = Vec::with_capacity(1 + spare.len());
                for resource in std::iter::once(first).chain(spare) {
                    let shared = Arc::clone(&shared);
                    let thread = thread::Builder::new().name(name.to_string());
                    threads.push(thread.spawn(move || work(&shared, resource))?);
                }
                Mode::Threaded { shared, threads }
            }
        };
        Ok(StorePool { mode })
    }
}

fn work<S>(shared: &Shared<S>, mut resource: S) {
    while let Some(job) = next(shared) {
        // A job that panics fails its own caller, whose answer channel closes, and nobody else.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(&mut resource))).is_err() {
            tracing::error!("a store call panicked");
        }
    }
}

fn next<S>(shared: &Shared<S>) -> Option<Job<S>> {
    let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            return Some(job);
        }
        if queue.closed {
            return None;
        }
        queue = shared.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

impl<S: Send + 'static> StorePool<S> {
    /// Hands a job over without waiting for it; inline it has run when this returns.
    pub fn start(&self, job: impl FnOnce(&mut S) + Send + 'static) {
        match &self.mode {
            Mode::Inline(resource) => job(&mut resource.lock().unwrap_or_else(PoisonError::into_inner)),
            Mode::Threaded { shared, .. } => {
                let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.jobs.push_back(Box::new(job));
                drop(queue);
                shared.ready.notify_one();
            }
        }
    }

    /// Runs a job and waits for its result.
    ///
    /// # Errors
    /// The job broke off.
    pub async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.start(move |resource| {
            // A caller that went away does not need its answer.
            let _ = answer.send(job(resource));
        });
        answered.await.map_err(|_| Stopped)
    }
}

impl<S: Send + 'static> Drop for StorePool<S> {
    fn drop(&mut self) {
        let Mode::Threaded { shared, threads } = &mut self.mode else { return };
        shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        shared.ready.notify_all();
        for thread in threads.drain(..) {
            // Waiting makes "dropped" mean "closed"; a job that owns the last handle cannot wait for itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn counts_to(executor: StoreExecutor) -> u64 {
        let pool = executor.pool("test", 0_u64, Vec::new()).unwrap();
        for _ in 0..10 {
            pool.call(|count| *count += 1).await.unwrap();
        }
        pool.start(|count| *count += 1);
        pool.call(|count| *count).await.unwrap()
    }

    #[tokio::test]
    async fn both_modes_give_the_resource_to_each_job_in_turn() {
        assert_eq!(counts_to(StoreExecutor::Inline).await, 11);
        assert_eq!(counts_to(StoreExecutor::Threaded).await, 11);
    }

    #[tokio::test]
    async fn two_resources_work_at_the_same_time() {
        let pool = StoreExecutor::Threaded.pool("test", (), vec![()]).unwrap();
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let other = Arc::clone(&barrier);
        let meet = pool.call(move |()| barrier.wait().is_leader());
        let also = pool.call(move |()| other.wait().is_leader());
        let (one, two) = futures::join!(meet, also);
        assert_ne!(one.unwrap(), two.unwrap());
    }

    #[tokio::test]
    async fn dropping_the_pool_finishes_what_is_queued() {
        let (report, reported) = std::sync::mpsc::channel();
        let pool = StoreExecutor::Threaded.pool("test", (), Vec::new()).unwrap();
        for number in 0..100 {
            let report = report.clone();
            pool.start(move |()| report.send(number).unwrap());
        }
        drop(pool);
        assert_eq!(reported.try_iter().count(), 100);
    }

    #[tokio::test]
    async fn a_job_that_panics_fails_alone() {
        let pool = StoreExecutor::Threaded.pool("test", 1_u64, Vec::new()).unwrap();
        assert_eq!(pool.call(|_| panic!("on purpose")).await, Err::<(), _>(Stopped));
        assert_eq!(pool.call(|count| *count).await, Ok(1));
    }
}
