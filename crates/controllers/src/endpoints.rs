//! Endpoints of Services: the addresses of the Pods that they select, as `Endpoints` and as `EndpointSlice`s. What a
//! Service without a selector has is its owner's business.
//!
//! - [`plan`]: which addresses a Service has
//! - [`apply`]: writing them

mod apply;
mod plan;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;

use crate::{
    cache::Key,
    context::{Context, Error},
    pods,
};

/// The Service that a slice is of.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The labels by which the Service selects, if it does.
fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let is_alias = spec.type_.as_deref() == Some("ExternalName");
    spec.selector
        .as_ref()
        .filter(|selector| !selector.is_empty() && !is_alias)
}

/// Whether the Service selects the Pod.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    selector(service).is_some_and(|selector| {
        selector
            .iter()
            .all(|(label, value)| pods::label(pod, label) == Some(value.as_str()))
    })
}

/// Whether two states of a Pod are the same to every Service.
pub(crate) fn looks_same(old: &Pod, new: &Pod) -> bool {
    let view = |pod: &Pod| {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let state = (pods::is_ready(pod), pods::has_ended(pod), pods::is_leaving(pod));
        (
            address,
            state,
            pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        )
    };
    view(old) == view(new)
        && old.metadata.labels == new.metadata.labels
        && old.metadata.uid == new.metadata.uid
}

pub(crate) async fn look(context: &Context, key: &Key) -> Result<(), Error> {
    let world = &context.world;
    let service = world.services.get(key);
    let mut slices = world.slices.within(&key.namespace);
    slices.retain(|slice| slice.labels().get(SERVICE_NAME) == Some(&key.name));
    let observed = plan::Observed {
        pods: match &service {
            Some(service) if selector(service).is_some() => {
                let all = world.pods.within(&key.namespace);
                all.into_iter().filter(|pod| selects(service, pod)).collect()
            }
            _ => Vec::new(),
        },
        endpoints: world.endpoints.get(key),
        slices,
        has_slices: world.slices.is_served(),
        service,
    };
    apply::apply(context, plan::plan(&observed)).await
}
