//! Makes an object a controller's own, and lets it go. Both may be repeated.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource, ResourceExt as _, api::Patch};
use serde_json::json;

use crate::{
    cache::{Cache, Key, Object},
    context::{self, Error},
    template,
};

/// Makes `owner` the controller of the object, unless the object has one by now.
pub(crate) async fn adopt<K, O>(api: &Api<K>, cache: &Cache<K>, object: &K, owner: &O) -> Result<(), Error>
where
    K: Object,
    O: Resource<DynamicType = ()>,
{
    add(api, cache, object, template::controlled_by(owner)).await
}

/// Adds an owner to the object's.
pub(crate) async fn add<K: Object>(
    api: &Api<K>,
    cache: &Cache<K>,
    object: &K,
    owner: OwnerReference,
) -> Result<(), Error> {
    let mut owners = object.owner_references().to_vec();
    owners.retain(|one| one.uid != owner.uid);
    owners.push(owner);
    write(api, cache, object, json!(owners)).await
}

/// Takes `owner` from the object's owners.
pub(crate) async fn release<K, O>(api: &Api<K>, cache: &Cache<K>, object: &K, owner: &O) -> Result<(), Error>
where
    K: Object,
    O: Resource<DynamicType = ()>,
{
    let mut owners = object.owner_references().to_vec();
    owners.retain(|one| Some(&one.uid) != owner.meta().uid.as_ref());
    let owners = if owners.is_empty() {
        json!(null)
    } else {
        json!(owners)
    };
    write(api, cache, object, owners).await
}

async fn write<K: Object>(
    api: &Api<K>,
    cache: &Cache<K>,
    object: &K,
    owners: serde_json::Value,
) -> Result<(), Error> {
    // Whoever else changes owners meanwhile wins, and this is decided again.
    let change = json!({"metadata": {
        "uid": object.uid(),
        "resourceVersion": object.resource_version(),
        "ownerReferences": owners,
    }});
    context::patch(api, cache, &Key::of(object), &Patch::Merge(change))
        .await
        .map(drop)
}
