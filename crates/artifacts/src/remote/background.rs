//! Transfers for those who have no async runtime: one on a thread of its own, for as long as the
//! work takes.

use std::{io, thread};

use futures::future::{self, Either};
use tokio::{runtime::Builder, sync::oneshot};

/// Work under way. It ends early when this is dropped.
#[derive(Debug)]
pub struct Job {
    _alive: oneshot::Sender<()>,
}

impl Job {
    /// Starts the work. `done` is called with what came of it, on another thread; it is not called
    /// when the work ends early.
    ///
    /// # Errors
    /// When this machine has no thread to give.
    pub fn start<T: Send + 'static>(
        work: impl Future<Output = T> + Send + 'static,
        done: impl FnOnce(T) + Send + 'static,
    ) -> io::Result<Self> {
        let (alive, dropped) = oneshot::channel::<()>();
        let runtime = Builder::new_current_thread().enable_time().build()?;
        thread::Builder::new()
            .name("transfers".to_owned())
            .spawn(move || {
                let work = Box::pin(work);
                match runtime.block_on(future::select(work, dropped)) {
                    Either::Left((result, _)) => done(result),
                    Either::Right(_) => {}
                }
                // Requests that are still under way are not waited for.
                runtime.shutdown_background();
            })?;
        Ok(Self { _alive: alive })
    }
}
