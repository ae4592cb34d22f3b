//! What a change concerns: which things are to be looked at again.

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::{
            Endpoints, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Service,
        },
        discovery::v1::EndpointSlice,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Resource, ResourceExt as _};

use crate::{
    cache::{self, Key},
    endpoints, job,
    queue::{Controller, Queue, Task},
    selection,
    world::World,
};

fn add(queue: &Queue, controller: Controller, key: Key) {
    queue.add(Task { controller, key });
}

fn itself<K: Resource>(queue: &Queue, controller: Controller, object: Option<&K>) {
    if let Some(object) = object {
        add(queue, controller, Key::of(object));
    }
}

fn controlling<K: Resource>(object: &K) -> Option<&OwnerReference> {
    let owners = object.meta().owner_references.as_deref()?;
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// Who controls the object is to be looked at.
fn controller<K: Resource>(queue: &Queue, object: &K) {
    let Some(owner) = controlling(object) else { return };
    let controller = match (owner.api_version.as_str(), owner.kind.as_str()) {
        ("batch/v1", "Job") => Controller::Job,
        ("batch/v1", "CronJob") => Controller::CronJob,
        ("apps/v1", "ReplicaSet") => Controller::ReplicaSet,
        ("apps/v1", "Deployment") => Controller::Deployment,
        ("apps/v1", "StatefulSet") => Controller::StatefulSet,
        _ => return,
    };
    let namespace = object.namespace().unwrap_or_default();
    add(queue, controller, Key::new(namespace, owner.name.as_str()));
}

pub(crate) fn pod(world: &World, queue: &Queue, old: Option<&Pod>, new: Option<&Pod>) {
    let Some(any) = new.or(old) else { return };
    let namespace = any.namespace().unwrap_or_default();
    controller(queue, any);
    if let Some(old) = old.filter(|old| cache::controller(*old) != cache::controller(any)) {
        controller(queue, old);
    }
    if cache::controller(any).is_none() {
        adopters(world, queue, any);
    }
    if job::is_tracked(any) && is_orphan(world, any) {
        add(queue, Controller::OrphanPod, Key::of(any));
    }
    if new.is_none()
        && let Some(owner) = controlling(any).filter(|owner| owner.kind == "ReplicaSet")
        && let Some(set) = world
            .replica_sets
            .get(&Key::new(namespace.as_str(), owner.name.as_str()))
    {
        // One that recreates waits for the last of the old ones.
        controller(queue, &*set);
    }
    let is_same = matches!((old, new), (Some(old), Some(new)) if endpoints::looks_same(old, new));
    if !is_same {
        quotas(world, queue, &namespace);
        for budget in world.budgets.within(&namespace) {
            add(queue, Controller::Budget, Key::of(&*budget));
        }
        for service in world.services.within(&namespace) {
            let is_concerned = |pod: Option<&Pod>| pod.is_some_and(|pod| endpoints::selects(&service, pod));
            if is_concerned(old) || is_concerned(new) {
                add(queue, Controller::Endpoints, Key::of(&*service));
            }
        }
    }
}

fn is_orphan(world: &World, pod: &Pod) -> bool {
    controlling(pod).is_none_or(|owner| {
        let key = Key::new(pod.namespace().unwrap_or_default(), owner.name.as_str());
        let job = world.jobs.get(&key);
        owner.kind == "Job" && job.is_none_or(|job| job.uid().as_deref() != Some(&owner.uid))
    })
}

/// Sets that may take the Pod over.
fn adopters(world: &World, queue: &Queue, pod: &Pod) {
    let namespace = pod.namespace().unwrap_or_default();
    let selects = |selector: &_| {
        selection::selector(selector).is_some_and(|selector| selection::matches(&selector, pod))
    };
    for set in world.replica_sets.within(&namespace) {
        if set.spec.as_ref().is_some_and(|spec| selects(&spec.selector)) {
            add(queue, Controller::ReplicaSet, Key::of(&*set));
        }
    }
    for set in world.stateful_sets.within(&namespace) {
        if set.spec.as_ref().is_some_and(|spec| selects(&spec.selector)) {
            add(queue, Controller::StatefulSet, Key::of(&*set));
        }
    }
}

pub(crate) fn job(world: &World, queue: &Queue, old: Option<&Job>, new: Option<&Job>) {
    let Some(any) = new.or(old) else { return };
    add(queue, Controller::Job, Key::of(any));
    controller(queue, any);
    if new.is_none() {
        let left = world.pods.owned_by(&any.uid().unwrap_or_default());
        for pod in left.iter().filter(|pod| job::is_tracked(pod)) {
            add(queue, Controller::OrphanPod, Key::of(&**pod));
        }
    }
}

pub(crate) fn cron_job(queue: &Queue, object: Option<&CronJob>) {
    itself(queue, Controller::CronJob, object);
}

pub(crate) fn replica_set(world: &World, queue: &Queue, old: Option<&ReplicaSet>, new: Option<&ReplicaSet>) {
    let Some(any) = new.or(old) else { return };
    add(queue, Controller::ReplicaSet, Key::of(any));
    controller(queue, any);
    if let Some(old) = old.filter(|old| cache::controller(*old) != cache::controller(any)) {
        controller(queue, old);
    }
    if cache::controller(any).is_none() {
        for deployment in world.deployments.within(&any.namespace().unwrap_or_default()) {
            let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
            let selector = selector.and_then(selection::selector);
            if selector.is_some_and(|selector| selection::matches(&selector, any)) {
                add(queue, Controller::Deployment, Key::of(&*deployment));
            }
        }
    }
}

pub(crate) fn deployment(queue: &Queue, object: Option<&Deployment>) {
    itself(queue, Controller::Deployment, object);
}

pub(crate) fn stateful_set(queue: &Queue, object: Option<&StatefulSet>) {
    itself(queue, Controller::StatefulSet, object);
}

pub(crate) fn revision(queue: &Queue, object: Option<&ControllerRevision>) {
    if let Some(object) = object {
        controller(queue, object);
    }
}

pub(crate) fn service(queue: &Queue, object: Option<&Service>) {
    itself(queue, Controller::Endpoints, object);
}

pub(crate) fn endpoints(queue: &Queue, object: Option<&Endpoints>) {
    itself(queue, Controller::Endpoints, object);
}

pub(crate) fn slice(queue: &Queue, object: Option<&EndpointSlice>) {
    let Some(object) = object else { return };
    let labels = object.metadata.labels.as_ref();
    if let Some(service) = labels.and_then(|labels| labels.get(endpoints::SERVICE_NAME)) {
        let namespace = object.namespace().unwrap_or_default();
        add(
            queue,
            Controller::Endpoints,
            Key::new(namespace, service.as_str()),
        );
    }
}

pub(crate) fn namespace(queue: &Queue, object: Option<&Namespace>) {
    itself(queue, Controller::Namespace, object);
}

/// Something that every namespace has.
pub(crate) fn in_namespace<K: Resource>(queue: &Queue, object: Option<&K>) {
    if let Some(namespace) = object.and_then(|object| object.meta().namespace.clone()) {
        add(queue, Controller::Namespace, Key::new("", namespace));
    }
}

pub(crate) fn claim(queue: &Queue, object: Option<&PersistentVolumeClaim>) {
    itself(queue, Controller::Volume, object);
}

/// Volumes are looked at by their claims; one that has none, by its own name.
pub(crate) fn volume(queue: &Queue, object: Option<&PersistentVolume>) {
    let Some(object) = object else { return };
    let claim = object.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let key = claim.map_or_else(
        || Key::of(object),
        |claim| {
            let namespace = claim.namespace.clone().unwrap_or_default();
            Key::new(namespace, claim.name.clone().unwrap_or_default())
        },
    );
    add(queue, Controller::Volume, key);
}

pub(crate) fn quota(queue: &Queue, object: Option<&ResourceQuota>) {
    itself(queue, Controller::Quota, object);
}

pub(crate) fn budget(queue: &Queue, object: Option<&PodDisruptionBudget>) {
    itself(queue, Controller::Budget, object);
}

fn quotas(world: &World, queue: &Queue, namespace: &str) {
    for quota in world.quotas.within(namespace) {
        add(queue, Controller::Quota, Key::of(&*quota));
    }
}

/// Something that quotas may count came, went or, being a claim or a Service, changed.
pub(crate) fn counted<K: Resource>(world: &World, queue: &Queue, old: Option<&K>, new: Option<&K>) {
    if let Some(namespace) = new.or(old).and_then(|any| any.meta().namespace.as_deref()) {
        quotas(world, queue, namespace);
    }
}
