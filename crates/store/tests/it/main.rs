//! What the store promises. Every case runs on a store in memory and on one in a file.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a case that cannot go on fails by panicking"
)]

mod cache;
mod crash;
mod experiments;
mod lineage;
mod lists;
mod location;
mod model;
mod pipelines;
mod recurring;
mod resources;
mod runs;
mod samples;
mod tasks;
mod upgrade;
mod watches;

/// Runs each case on a fresh store of each kind.
macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let store = coracle_store::Store::open(coracle_store::Location::Memory).await.unwrap();
                    super::$case(&store).await;
                    store.close().await;
                }
            )*
        }
        mod file {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let directory = tempfile::tempdir().unwrap();
                    let location = coracle_store::Location::File(directory.path().join("store.db"));
                    let store = coracle_store::Store::open(location).await.unwrap();
                    super::$case(&store).await;
                    store.close().await;
                }
            )*
        }
    };
}
pub(crate) use conformance;
