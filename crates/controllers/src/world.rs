//! What is known of the API: one cache per kind, shared by all controllers.

use std::{future::Future, pin::Pin};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{
        ConfigMap, Endpoints, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota,
        Service, ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Cache, Object},
    namespace::{ACCOUNT, BUNDLE},
    queue::Queue,
    triggers,
};

/// One cache per kind.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) pods: Cache<Pod>,
    pub(crate) jobs: Cache<Job>,
    pub(crate) cron_jobs: Cache<CronJob>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) stateful_sets: Cache<StatefulSet>,
    pub(crate) revisions: Cache<ControllerRevision>,
    pub(crate) services: Cache<Service>,
    pub(crate) endpoints: Cache<Endpoints>,
    pub(crate) slices: Cache<EndpointSlice>,
    pub(crate) namespaces: Cache<Namespace>,
    /// Those called `default`.
    pub(crate) accounts: Cache<ServiceAccount>,
    /// Those that hold the certificate of the API.
    pub(crate) bundles: Cache<ConfigMap>,
    pub(crate) claims: Cache<PersistentVolumeClaim>,
    pub(crate) volumes: Cache<PersistentVolume>,
    pub(crate) quotas: Cache<ResourceQuota>,
    pub(crate) budgets: Cache<PodDisruptionBudget>,
}

type Following<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl World {
    /// Keeps every cache up to date until `cancel`, and puts what each change concerns into the queue.
    pub(crate) async fn follow(&self, client: &Client, queue: &Queue, cancel: &CancellationToken) {
        fn of<'a, K: Object>(
            cache: &'a Cache<K>,
            client: &Client,
            fields: Option<String>,
            cancel: &'a CancellationToken,
            told: impl Fn(Option<&K>, Option<&K>) + Send + Sync + 'a,
        ) -> Following<'a> {
            let api: Api<K> = Api::all(client.clone());
            Box::pin(async move { cache.follow(api, fields.as_deref(), cancel, told).await })
        }
        let named = |name: &str| Some(format!("metadata.name={name}"));
        let all: Vec<Following<'_>> = vec![
            of(&self.pods, client, None, cancel, |old, new| {
                triggers::pod(self, queue, old, new);
            }),
            of(&self.jobs, client, None, cancel, |old, new| {
                triggers::job(self, queue, old, new);
                triggers::counted(self, queue, old, new);
            }),
            of(&self.cron_jobs, client, None, cancel, |old, new| {
                triggers::cron_job(queue, old.or(new));
                triggers::counted(self, queue, old, new);
            }),
            of(&self.replica_sets, client, None, cancel, |old, new| {
                triggers::replica_set(self, queue, old, new);
                triggers::counted(self, queue, old, new);
            }),
            of(&self.deployments, client, None, cancel, |old, new| {
                triggers::deployment(queue, old.or(new));
                triggers::counted(self, queue, old, new);
            }),
            of(&self.stateful_sets, client, None, cancel, |old, new| {
                triggers::stateful_set(queue, old.or(new));
                triggers::counted(self, queue, old, new);
            }),
            of(&self.revisions, client, None, cancel, |old, new| {
                triggers::revision(queue, old.or(new));
            }),
            of(&self.services, client, None, cancel, |old, new| {
                triggers::service(queue, old.or(new));
                triggers::counted(self, queue, old, new);
            }),
            of(&self.endpoints, client, None, cancel, |old, new| {
                triggers::endpoints(queue, old.or(new));
            }),
            of(&self.slices, client, None, cancel, |old, new| {
                triggers::slice(queue, old.or(new));
            }),
            of(&self.namespaces, client, None, cancel, |old, new| {
                triggers::namespace(queue, old.or(new));
            }),
            of(&self.accounts, client, named(ACCOUNT), cancel, |old, new| {
                triggers::in_namespace(queue, old.or(new));
            }),
            of(&self.bundles, client, named(BUNDLE), cancel, |old, new| {
                triggers::in_namespace(queue, old.or(new));
            }),
            of(&self.claims, client, None, cancel, |old, new| {
                triggers::claim(queue, old.or(new));
                triggers::counted(self, queue, old, new);
            }),
            of(&self.volumes, client, None, cancel, |old, new| {
                triggers::volume(queue, old.or(new));
            }),
            of(&self.quotas, client, None, cancel, |old, new| {
                triggers::quota(queue, old.or(new));
            }),
            of(&self.budgets, client, None, cancel, |old, new| {
                triggers::budget(queue, old.or(new));
            }),
        ];
        futures::future::join_all(all).await;
    }

    /// Ends when everything has been listed once: before, nothing can be concluded from what is missing.
    pub(crate) async fn synced(&self) {
        tokio::join!(
            self.pods.synced(),
            self.jobs.synced(),
            self.cron_jobs.synced(),
            self.replica_sets.synced(),
            self.deployments.synced(),
            self.stateful_sets.synced(),
            self.revisions.synced(),
            self.services.synced(),
            self.endpoints.synced(),
            self.slices.synced(),
            self.namespaces.synced(),
            self.accounts.synced(),
            self.bundles.synced(),
            self.claims.synced(),
            self.volumes.synced(),
            self.quotas.synced(),
            self.budgets.synced(),
        );
    }
}
