//! Which addresses a Service has. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{
            EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
            ServicePort,
        },
        discovery::v1::{self as discovery, Endpoint, EndpointConditions, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::{Resource as _, ResourceExt as _};

use super::{SERVICE_NAME, selector};
use crate::{pods, template};

/// Who writes the objects that carry it.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SLICE_MANAGER: &str = "endpointslice-controller.k8s.io";
/// The Service has no address of its own.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The most endpoints of one slice.
const SLICE: usize = 100;

/// A Service, its Pods, and what is written of them.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) service: Option<Arc<Service>>,
    /// The Pods that it selects.
    pub(crate) pods: Vec<Arc<Pod>>,
    pub(crate) endpoints: Option<Arc<Endpoints>>,
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
    pub(crate) has_slices: bool,
}

/// What to write.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) create: Option<Endpoints>,
    pub(crate) replace: Option<Endpoints>,
    pub(crate) remove: Option<Arc<Endpoints>>,
    pub(crate) create_slices: Vec<EndpointSlice>,
    pub(crate) replace_slices: Vec<EndpointSlice>,
    pub(crate) remove_slices: Vec<Arc<EndpointSlice>>,
}

pub(crate) fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = &observed.service else {
        let is_ours =
            |endpoints: &&Arc<Endpoints>| endpoints.labels().get(MANAGED_BY).is_some_and(|by| by == MANAGER);
        plan.remove = observed.endpoints.as_ref().filter(is_ours).cloned();
        plan.remove_slices = observed
            .slices
            .iter()
            .filter(|slice| is_own(slice))
            .cloned()
            .collect();
        return plan;
    };
    if selector(service).is_none() || service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let members: Vec<Member<'_>> = observed
        .pods
        .iter()
        .filter_map(|pod| Member::of(service, pod))
        .collect();
    let wanted = endpoints(service, &members);
    match &observed.endpoints {
        None => plan.create = Some(wanted),
        Some(there) if there.subsets != wanted.subsets || there.metadata.labels != wanted.metadata.labels => {
            let mut replaced = Endpoints::clone(there);
            replaced.subsets = wanted.subsets;
            replaced.metadata.labels = wanted.metadata.labels;
            plan.replace = Some(replaced);
        }
        Some(_) => {}
    }
    if observed.has_slices {
        slices(&mut plan, observed, service, &members);
    }
    plan
}

fn is_own(slice: &EndpointSlice) -> bool {
    slice
        .labels()
        .get(SLICE_MANAGED_BY)
        .is_some_and(|by| by == SLICE_MANAGER)
}

/// A port that is served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: Option<String>,
    number: i32,
    protocol: String,
    app_protocol: Option<String>,
}

/// A Pod as its Service sees it.
struct Member<'a> {
    pod: &'a Pod,
    address: String,
    hostname: Option<String>,
    is_ready: bool,
    is_serving: bool,
    ports: Vec<Port>,
}

impl<'a> Member<'a> {
    fn of(service: &Service, pod: &'a Pod) -> Option<Self> {
        let address = pod
            .status
            .as_ref()?
            .pod_ip
            .clone()
            .filter(|address| !address.is_empty())?;
        if pods::has_ended(pod) {
            return None;
        }
        let spec = service.spec.as_ref()?;
        let all = spec.publish_not_ready_addresses == Some(true);
        let place = pod.spec.as_ref()?;
        let is_named = place.subdomain.as_deref() == Some(&service.name_any());
        let ports = spec.ports.iter().flatten().filter_map(|port| resolve(port, pod));
        Some(Self {
            address,
            hostname: place.hostname.clone().filter(|name| is_named && !name.is_empty()),
            is_ready: all || (pods::is_ready(pod) && !pods::is_leaving(pod)),
            is_serving: pods::is_ready(pod),
            ports: ports.collect(),
            pod,
        })
    }

    fn target(&self) -> ObjectReference {
        ObjectReference {
            api_version: None,
            resource_version: None,
            ..self.pod.object_ref(&())
        }
    }

    fn node(&self) -> Option<String> {
        self.pod.spec.as_ref()?.node_name.clone()
    }
}

/// The number of a Service's port on a Pod. A name means the container's port of that name.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named(pod, name, &protocol)?,
    };
    Some(Port {
        name: port.name.clone().filter(|name| !name.is_empty()),
        number,
        protocol,
        app_protocol: port.app_protocol.clone(),
    })
}

fn named(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    })?;
    Some(port.container_port)
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

fn endpoints(service: &Service, members: &[Member<'_>]) -> Endpoints {
    // Members with the same ports share a subset, in the order of their ports.
    let mut groups: BTreeMap<Vec<Port>, (Vec<&Member<'_>>, Vec<&Member<'_>>)> = BTreeMap::new();
    let has_ports = service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()));
    for member in members
        .iter()
        .filter(|member| !has_ports || !member.ports.is_empty())
    {
        // What is leaving is not listed, unless everything is.
        if pods::is_leaving(member.pod) && !member.is_ready {
            continue;
        }
        let mut ports = member.ports.clone();
        ports.sort();
        let group = groups.entry(ports).or_default();
        if member.is_ready {
            group.0.push(member);
        } else {
            group.1.push(member);
        }
    }
    let subsets = groups.into_iter().map(|(ports, (ready, other))| EndpointSubset {
        addresses: addresses(ready),
        not_ready_addresses: addresses(other),
        ports: Some(ports.into_iter().map(endpoint_port).collect::<Vec<_>>())
            .filter(|ports| !ports.is_empty()),
    });
    let subsets: Vec<EndpointSubset> = subsets.collect();
    let mut labels = service.labels().clone();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

fn addresses(mut members: Vec<&Member<'_>>) -> Option<Vec<EndpointAddress>> {
    members.sort_by_key(|member| (member.address.clone(), member.pod.uid()));
    let address = |member: &Member<'_>| EndpointAddress {
        ip: member.address.clone(),
        hostname: member.hostname.clone(),
        node_name: member.node(),
        target_ref: Some(member.target()),
    };
    let addresses: Vec<_> = members.into_iter().map(address).collect();
    (!addresses.is_empty()).then_some(addresses)
}

fn endpoint_port(port: Port) -> EndpointPort {
    EndpointPort {
        name: port.name,
        port: port.number,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

fn slices(plan: &mut Plan, observed: &Observed, service: &Service, members: &[Member<'_>]) {
    let mut groups: BTreeMap<(Vec<Port>, bool), Vec<&Member<'_>>> = BTreeMap::new();
    for member in members {
        let mut ports = member.ports.clone();
        ports.sort();
        groups
            .entry((ports, member.address.contains(':')))
            .or_default()
            .push(member);
    }
    // A Service that nobody serves has one that says so.
    if groups.is_empty() {
        groups.insert((Vec::new(), false), Vec::new());
    }
    let mut kept = BTreeSet::new();
    for ((ports, is_v6), mut members) in groups {
        members.sort_by_key(|member| (member.address.clone(), member.pod.uid()));
        let chunks: Vec<&[&Member<'_>]> = if members.is_empty() {
            vec![&[]]
        } else {
            members.chunks(SLICE).collect()
        };
        for (number, chunk) in chunks.into_iter().enumerate() {
            let wanted = slice(service, &ports, is_v6, number, chunk);
            kept.insert(wanted.name_any());
            let there = observed
                .slices
                .iter()
                .find(|slice| slice.name_any() == wanted.name_any());
            match there {
                None => plan.create_slices.push(wanted),
                Some(there)
                    if there.endpoints != wanted.endpoints
                        || there.metadata.labels != wanted.metadata.labels =>
                {
                    let mut replaced = EndpointSlice::clone(there);
                    replaced.endpoints = wanted.endpoints;
                    replaced.metadata.labels = wanted.metadata.labels;
                    plan.replace_slices.push(replaced);
                }
                Some(_) => {}
            }
        }
    }
    let is_old = |slice: &&Arc<EndpointSlice>| is_own(slice) && !kept.contains(&slice.name_any());
    plan.remove_slices = observed.slices.iter().filter(is_old).cloned().collect();
}

fn slice(
    service: &Service,
    ports: &[Port],
    is_v6: bool,
    number: usize,
    members: &[&Member<'_>],
) -> EndpointSlice {
    let name = service.name_any();
    let kind = if is_v6 { "IPv6" } else { "IPv4" };
    let parts = format!("{ports:?} {kind} {number}");
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(SLICE_MANAGED_BY.to_owned(), SLICE_MANAGER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let ports = ports.iter().cloned().map(|port| discovery::EndpointPort {
        // A port without a name has an empty one here.
        name: Some(port.name.unwrap_or_default()),
        port: Some(port.number),
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    });
    EndpointSlice {
        address_type: kind.to_owned(),
        endpoints: members.iter().map(|member| endpoint(member)).collect(),
        metadata: ObjectMeta {
            name: Some(template::name(
                &format!("{name}-"),
                &[&service.uid().unwrap_or_default(), &parts],
            )),
            namespace: service.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![template::controlled_by(service)]),
            ..ObjectMeta::default()
        },
        ports: Some(ports.collect()),
    }
}

fn endpoint(member: &Member<'_>) -> Endpoint {
    Endpoint {
        addresses: vec![member.address.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(member.is_ready),
            serving: Some(member.is_serving),
            terminating: Some(pods::is_leaving(member.pod)),
        }),
        hostname: member.hostname.clone(),
        node_name: member.node(),
        target_ref: Some(member.target()),
        ..Endpoint::default()
    }
}
