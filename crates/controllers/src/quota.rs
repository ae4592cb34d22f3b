//! The status of ResourceQuotas: what a namespace may use, and what it does. What a request would use more of is
//! refused by the API; what counts is the same for both.
//!
//! ConfigMaps and Secrets are not watched: they are counted when something else in the namespace changes.

use std::collections::BTreeMap;

use coracle_api::quota;
use k8s_openapi::{
    api::core::v1::{ConfigMap, ResourceQuota, ResourceQuotaStatus, Secret},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{Api, Resource, ResourceExt as _, api::ListParams};
use serde::Serialize;
use serde_json::Value;

use crate::{
    cache::{Cache, Key, Object},
    context::{self, Context, Error},
    world::World,
};

/// An object with its group and plural.
type Counted = (String, String, Value);

fn counted<K>(group: &str, plural: &str, object: &K) -> Counted
where
    K: Serialize,
{
    // What the API sent can be written again.
    let object = serde_json::to_value(object).unwrap_or_default();
    (group.to_owned(), plural.to_owned(), object)
}

fn cached<K: Object + Serialize>(
    cache: &Cache<K>,
    namespace: &str,
    group: &str,
    plural: &str,
) -> Vec<Counted> {
    let objects = cache.within(namespace);
    objects
        .iter()
        .map(|object| counted(group, plural, &**object))
        .collect()
}

/// What is known of a kind in a namespace. None for a kind that is not watched.
fn known(world: &World, namespace: &str, group: &str, plural: &str) -> Option<Vec<Counted>> {
    Some(match (group, plural) {
        ("", "pods") => cached(&world.pods, namespace, group, plural),
        ("", "services") => cached(&world.services, namespace, group, plural),
        ("", "persistentvolumeclaims") => cached(&world.claims, namespace, group, plural),
        ("", "resourcequotas") => cached(&world.quotas, namespace, group, plural),
        ("apps", "deployments") => cached(&world.deployments, namespace, group, plural),
        ("apps", "replicasets") => cached(&world.replica_sets, namespace, group, plural),
        ("apps", "statefulsets") => cached(&world.stateful_sets, namespace, group, plural),
        ("batch", "jobs") => cached(&world.jobs, namespace, group, plural),
        ("batch", "cronjobs") => cached(&world.cron_jobs, namespace, group, plural),
        _ => return None,
    })
}

async fn listed<K>(context: &Context, namespace: &str, plural: &str) -> Result<Vec<Counted>, Error>
where
    K: Object + Serialize + Resource<Scope = k8s_openapi::NamespaceResourceScope>,
{
    let api: Api<K> = context.api(namespace);
    let objects = context::list_metadata(&api, &ListParams::default()).await?;
    Ok(objects.iter().map(|object| counted("", plural, object)).collect())
}

/// The status of the quota, given what there is. Pure.
fn status(quota: &ResourceQuota, objects: &[Counted]) -> ResourceQuotaStatus {
    // What the API sent can be written again.
    let value = serde_json::to_value(quota).unwrap_or_default();
    let objects = objects
        .iter()
        .map(|(group, plural, object)| (group.as_str(), plural.as_str(), object));
    let used: BTreeMap<String, Quantity> = quota::used(&value, objects)
        .into_iter()
        .map(|(name, amount)| (name, Quantity(amount.to_string())))
        .collect();
    ResourceQuotaStatus {
        hard: quota.spec.as_ref().and_then(|spec| spec.hard.clone()),
        used: Some(used),
    }
}

pub(crate) async fn look(context: &Context, key: &Key) -> Result<(), Error> {
    let world = &context.world;
    let Some(quota) = world.quotas.get(key) else {
        return Ok(());
    };
    let value = serde_json::to_value(&*quota).unwrap_or_default();
    let mut objects = Vec::new();
    for (group, plural) in quota::resources(&value) {
        let more = match known(world, &key.namespace, &group, &plural) {
            Some(known) => known,
            None if group.is_empty() && plural == "configmaps" => {
                listed::<ConfigMap>(context, &key.namespace, &plural).await?
            }
            None if group.is_empty() && plural == "secrets" => {
                listed::<Secret>(context, &key.namespace, &plural).await?
            }
            None => Vec::new(),
        };
        objects.extend(more);
    }
    let status = status(&quota, &objects);
    if quota.status.as_ref() == Some(&status) || quota.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    let mut written = ResourceQuota::clone(&quota);
    written.status = Some(status);
    let api = context.api::<ResourceQuota>(&quota.namespace().unwrap_or_default());
    context::write_status(&api, &world.quotas, &written)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_namespace_uses_is_told_beside_what_it_may() {
        let quota: ResourceQuota =
            serde_json::from_value(json!({"spec": {"hard": {"pods": "3", "requests.cpu": "2"}}}))
                .expect("a quota");
        let pod = |phase: &str| {
            let pod = json!({
                "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}]},
                "status": {"phase": phase},
            });
            (String::new(), "pods".to_owned(), pod)
        };
        let status = status(&quota, &[pod("Running"), pod("Pending"), pod("Succeeded")]);
        let used = status.used.expect("used");
        assert_eq!(
            (used["pods"].0.as_str(), used["requests.cpu"].0.as_str()),
            ("2", "1")
        );
        assert_eq!(status.hard.expect("hard")["pods"].0, "3");
    }
}
