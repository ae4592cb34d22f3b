//! The service: keeps up with the API and looks at what changed.

use std::{sync::Arc, time::Duration};

use coracle_reconcile::retry;
use jiff::Timestamp;
use kube::Client;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    budget,
    clock::Clock,
    context::{Context, Error},
    cron_job, deployment, endpoints, event, job, namespace,
    queue::{Controller, Outcome, Queue, Task},
    quota, replica_set, stateful_set, volume,
    world::World,
};

/// How many things are looked at at once.
const AT_ONCE: usize = 16;
/// Without anything to wait for, timers are looked at again after this long.
const IDLE: Duration = Duration::from_secs(3600);
/// What was decided on old news is decided again soon.
const AFTER_CONFLICT: Duration = Duration::from_millis(20);

/// What controllers need.
pub struct Options {
    /// The Kubernetes API.
    pub client: Client,
    /// What tells the time.
    pub clock: Arc<dyn Clock>,
    /// The certificate authority of the API, as PEM: Pods find it in `kube-root-ca.crt`. Without one, there is no
    /// such ConfigMap.
    pub root_ca: Option<String>,
}

/// The controllers of built-in kinds.
pub struct Controllers {
    context: Arc<Context>,
    events: event::Writer,
    queue: Queue,
    running: JoinSet<Result<Option<Timestamp>, Error>>,
    tasks: Vec<(Id, Task)>,
}

impl Controllers {
    /// Controllers that do nothing before [`Controllers::run`].
    #[must_use]
    pub fn new(options: Options) -> Self {
        let Options {
            client,
            clock,
            root_ca,
        } = options;
        let (recorder, events) = event::channel(client.clone());
        let context = Arc::new(Context {
            client,
            world: Arc::default(),
            clock,
            events: recorder,
            root_ca,
        });
        Self {
            context,
            events,
            queue: Queue::default(),
            running: JoinSet::new(),
            tasks: Vec::new(),
        }
    }

    /// Works until `cancel`. What is left undone then is found and done at the next start.
    pub async fn run(self, cancel: CancellationToken) {
        let Self {
            context,
            events,
            queue,
            mut running,
            mut tasks,
        } = self;
        let world: Arc<World> = Arc::clone(&context.world);
        let client = context.client.clone();
        let follow = world.follow(&client, &queue, &cancel);
        let work = async {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = world.synced() => {}
            }
            loop {
                while running.len() < AT_ONCE
                    && let Some(task) = queue.take()
                {
                    let looking = running.spawn(look(Arc::clone(&context), task.clone()));
                    tasks.push((looking.id(), task));
                }
                let wake = queue.wake(context.now());
                let retry = queue.retry(Instant::now());
                if running.len() < AT_ONCE && queue.has_ready() {
                    continue;
                }
                let woken = async {
                    match wake {
                        Some(time) => context.clock.until(time).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = cancel.cancelled() => break,
                    Some(ended) = running.join_next_with_id(), if !running.is_empty() => {
                        settle(&queue, &mut tasks, ended);
                    }
                    () = queue.changed.notified() => {}
                    () = woken => {}
                    () = tokio::time::sleep_until(retry.unwrap_or_else(|| Instant::now() + IDLE)) => {}
                }
            }
            while running.join_next().await.is_some() {}
            // The writer of events ends with the last recorder.
            drop(context);
        };
        tokio::join!(follow, work, events.run());
    }
}

fn settle(
    queue: &Queue,
    tasks: &mut Vec<(Id, Task)>,
    ended: Result<(Id, Result<Option<Timestamp>, Error>), JoinError>,
) {
    let (id, result) = match ended {
        Ok((id, result)) => (id, Some(result)),
        Err(error) => {
            tracing::error!(%error, "a controller's task ended by itself");
            (error.id(), None)
        }
    };
    let Some(place) = tasks.iter().position(|(other, _)| *other == id) else {
        return;
    };
    let (_, task) = tasks.swap_remove(place);
    let pause = retry::pause(queue.failures(&task));
    let outcome = match result {
        Some(Ok(wake)) => Outcome::Settled(wake),
        Some(Err(error)) if error.is_conflict() => {
            tracing::debug!(controller = ?task.controller, object = %task.key, "{error}: it changed meanwhile");
            Outcome::Failed(Instant::now() + pause.min(AFTER_CONFLICT))
        }
        Some(Err(error)) => {
            tracing::warn!(
                controller = ?task.controller,
                object = %task.key,
                retry_in_ms = pause.as_millis(),
                error = &error as &dyn std::error::Error,
                "a controller could not do its part; trying again"
            );
            Outcome::Failed(Instant::now() + pause)
        }
        None => Outcome::Failed(Instant::now() + pause),
    };
    queue.done(task, outcome);
}

#[tracing::instrument(name = "look", skip_all, fields(controller = ?task.controller, object = %task.key))]
async fn look(context: Arc<Context>, task: Task) -> Result<Option<Timestamp>, Error> {
    let Task { controller, key } = task;
    let context = &*context;
    match controller {
        Controller::Job => job::look(context, &key).await,
        Controller::CronJob => cron_job::look(context, &key).await,
        Controller::ReplicaSet => replica_set::look(context, &key).await,
        Controller::Deployment => deployment::look(context, &key).await,
        Controller::StatefulSet => stateful_set::look(context, &key).await,
        Controller::Endpoints => endpoints::look(context, &key).await.map(|()| None),
        Controller::Namespace => namespace::look(context, &key).await.map(|()| None),
        Controller::Volume => volume::look(context, &key).await.map(|()| None),
        Controller::Quota => quota::look(context, &key).await.map(|()| None),
        Controller::Budget => budget::look(context, &key).await.map(|()| None),
        Controller::OrphanPod => job::release_orphan(context, &key).await.map(|()| None),
    }
}
