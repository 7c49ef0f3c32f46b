//! Every task and thread of the daemon, owned and joined: none runs on unseen, and the first that ends says why.

use std::time::Duration;

use tokio::task::JoinSet;

use super::DaemonError;

/// What is not done by then is left to the next start: everything durable already is.
const GRACE: Duration = Duration::from_secs(5);

pub struct Tasks {
    set: JoinSet<Result<(), DaemonError>>,
}

impl Tasks {
    pub fn new() -> Self {
        Self { set: JoinSet::new() }
    }

    pub fn spawn(&mut self, task: impl Future<Output = Result<(), DaemonError>> + Send + 'static) {
        self.set.spawn(task);
    }

    /// Runs `task` on a thread of its own, where it may block on the card without holding up anybody.
    pub fn spawn_thread<F>(&mut self, name: &str, task: F)
    where
        F: Future<Output = Result<(), DaemonError>> + Send + 'static,
    {
        let runtime = tokio::runtime::Handle::current();
        let (done, ended) = tokio::sync::oneshot::channel();
        let what = name.to_owned();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = done.send(runtime.block_on(task));
        });
        self.set.spawn(async move {
            let thread = thread.map_err(|error| DaemonError::Failed(format!("{what}: no thread: {error}")))?;
            // The sender is gone without a word only when the thread panicked.
            let result = ended.await.unwrap_or_else(|_| Err(DaemonError::Failed(format!("{what} panicked"))));
            // It ends within microseconds now, and gives back what libcrypto keeps for it. Left alone it does that beside the
            // end of the process, which frees the same.
            let _ = thread.join();
            result
        });
    }

    /// The first task that ends, however it ends.
    pub async fn next(&mut self) -> Option<Result<(), DaemonError>> {
        self.set.join_next().await.map(flatten)
    }

    /// Waits for all the others.
    pub async fn join(mut self) -> Vec<Result<(), DaemonError>> {
        let mut ended = Vec::new();
        let all = async {
            while let Some(task) = self.set.join_next().await {
                ended.push(flatten(task));
            }
        };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::warn!(seconds = GRACE.as_secs(), "some tasks did not end in time and are left");
        }
        ended
    }
}

fn flatten(joined: Result<Result<(), DaemonError>, tokio::task::JoinError>) -> Result<(), DaemonError> {
    joined.unwrap_or_else(|error| Err(DaemonError::Failed(format!("a task ended badly: {error}"))))
}
