//! Objects that are always there beside namespaces: the class of storage for claims without one, the priorities of
//! the system, and the Service by which Pods find the API.

use std::net::SocketAddr;

use coracle_store::resources::{self, Resources};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    BootstrapError,
    admission::{self, FieldValidation},
    columns::policy::DEFAULT_CLASS,
    kinds::Catalogue,
    object,
    reserve::{Reserve, addresses},
    rules::budget::SYSTEM,
};

/// The class of the folders that this machine keeps.
const LOCAL: &str = "local";
const PROVISIONER: &str = "coracle.dev/local";

/// Makes what is missing.
pub(crate) async fn objects(resources: &Resources, catalogue: &Catalogue) -> Result<(), BootstrapError> {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": LOCAL, "annotations": {DEFAULT_CLASS[0]: "true"}},
        "provisioner": PROVISIONER,
        "allowVolumeExpansion": true,
    });
    make(resources, catalogue, class).await?;
    for (name, value, description) in SYSTEM {
        let priority = json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": description,
        });
        make(resources, catalogue, priority).await?;
    }
    Ok(())
}

/// Makes the Service `default/kubernetes`, by which Pods find the API at this address, and says where that is. To be
/// run at each start: the port may be another one.
///
/// # Errors
///
/// When the store fails.
pub async fn publish_api(
    resources: &Resources,
    catalogue: &Catalogue,
    reserve: &Reserve,
    address: SocketAddr,
) -> Result<(), BootstrapError> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let metadata = json!({"namespace": "default", "name": "kubernetes", "labels": labels});
    let (host, port) = (address.ip().to_string(), address.port());
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": addresses::first(reserve.block()),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    });
    let endpoints = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"namespace": "default", "name": "kubernetes"},
        "subsets": [{
            "addresses": [{"ip": host}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default",
            "name": "kubernetes",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [host], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    for object in [service, endpoints, slice] {
        make_anew(resources, catalogue, object).await?;
    }
    Ok(())
}

async fn make(resources: &Resources, catalogue: &Catalogue, object: Value) -> Result<(), BootstrapError> {
    let (key, admitted) = admit(catalogue, object)?;
    match resources.create(key, admitted).await {
        Ok(_) | Err(resources::Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(BootstrapError::Store(error)),
    }
}

/// As [`make`]; one that is there says the same afterwards.
async fn make_anew(
    resources: &Resources,
    catalogue: &Catalogue,
    object: Value,
) -> Result<(), BootstrapError> {
    let (key, mut admitted) = admit(catalogue, object)?;
    loop {
        let there = resources.get(&key).await.map_err(BootstrapError::Store)?;
        let Some(there) = there else {
            match resources.create(key.clone(), admitted.clone()).await {
                Err(resources::Error::AlreadyExists { .. }) => continue,
                made => return made.map(drop).map_err(BootstrapError::Store),
            }
        };
        let metadata = there.body.get("metadata").cloned().unwrap_or_default();
        object::as_map(&mut admitted).insert("metadata".to_owned(), metadata);
        match resources
            .update(key.clone(), admitted.clone(), there.revision)
            .await
        {
            Err(resources::Error::Conflict { .. } | resources::Error::NotFound { .. }) => {}
            made => return made.map(drop).map_err(BootstrapError::Store),
        }
    }
}

fn admit(catalogue: &Catalogue, object: Value) -> Result<(resources::Key, Value), BootstrapError> {
    let (version, name) = (
        object::text(&object, "/apiVersion"),
        object::text(&object, "/kind"),
    );
    let refused = |why: String| BootstrapError::Refused(why);
    let kind = catalogue
        .named(version, name)
        .ok_or_else(|| refused(format!("{version} {name} is not served")))?;
    let namespace = object::namespace(&object).to_owned();
    let (mut fields, now) = (FieldValidation::strict(), Timestamp::now());
    let admitted = admission::create(&kind, &namespace, object, &mut fields, Uuid::now_v7(), now)
        .map_err(|error| refused(error.to_string()))?;
    Ok((kind.key(&namespace, object::name(&admitted)), admitted))
}
