//! Work that takes long, without the tasks behind it waiting.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does work that computes or waits for a disk for milliseconds or more, in the task that asks for it. Other tasks of the thread go on
/// on another one meanwhile; where the runtime has but one thread, as in simulation, they wait.
pub fn at_length<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn another_task_goes_on_while_one_works_at_length() {
        let (told, hears) = std::sync::mpsc::channel();
        let working = tokio::spawn(async move { at_length(|| hears.recv_timeout(Duration::from_secs(30))) });
        tokio::spawn(async move { told.send(7) }).await.expect("it ran").expect("somebody listens");
        assert_eq!(working.await.expect("it ran"), Ok(7));
    }

    #[tokio::test]
    async fn one_thread_works_by_itself() {
        assert_eq!(at_length(|| 7), 7);
    }
}
