//! Services and who is behind them, put together from their objects. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    net::SocketAddrV4,
};

use k8s_openapi::api::{
    core::v1::{Endpoints, Service, ServicePort},
    discovery::v1::EndpointSlice,
};

/// The label by which a slice belongs to a Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A namespace and a name.
pub(crate) type Key = (String, String);

/// All Services, in order of namespace and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) services: Vec<Known>,
}

/// One Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Its own address; a headless Service has none.
    pub(crate) address: Option<Ipv4Addr>,
    /// The name that it stands for, for one that is only a name.
    pub(crate) external: Option<String>,
    pub(crate) ports: Vec<Port>,
    /// Who is behind it and ready, or to be named anyway.
    pub(crate) members: BTreeSet<Member>,
}

/// One of those behind a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) address: Ipv4Addr,
    /// Its name below the Service's.
    pub(crate) hostname: Option<String>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// Where it is to be reached at this machine's own address.
    pub(crate) node_port: Option<u16>,
    pub(crate) protocol: Protocol,
    /// Where its connections go.
    pub(crate) targets: BTreeSet<SocketAddrV4>,
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    /// What is not forwarded here.
    Other,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Self {
        match text {
            None | Some("TCP") => Self::Tcp,
            Some("UDP") => Self::Udp,
            Some(_) => Self::Other,
        }
    }
}

/// One endpoint, of either kind of object.
struct Endpoint {
    address: Ipv4Addr,
    hostname: Option<String>,
    is_ready: bool,
    /// Name, protocol, number.
    ports: Vec<(String, Protocol, u16)>,
}

impl Table {
    pub(crate) fn new<'a>(
        services: impl Iterator<Item = &'a Service>,
        endpoints: &BTreeMap<Key, Endpoints>,
        slices: impl Iterator<Item = &'a EndpointSlice>,
    ) -> Self {
        let mut by_service: BTreeMap<Key, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices {
            let labels = slice.metadata.labels.as_ref();
            if let Some(name) = labels.and_then(|labels| labels.get(SERVICE_NAME)) {
                let namespace = slice.metadata.namespace.clone().unwrap_or_default();
                by_service
                    .entry((namespace, name.clone()))
                    .or_default()
                    .push(slice);
            }
        }
        let services = services.map(|service| {
            let key = key(&service.metadata);
            let slices = by_service.get(&key).map_or(&[][..], Vec::as_slice);
            let mut found: Vec<Endpoint> = slices.iter().flat_map(|slice| of_slice(slice)).collect();
            found.extend(endpoints.get(&key).into_iter().flat_map(of_endpoints));
            known(key, service, &found)
        });
        let mut services: Vec<Known> = services.collect();
        services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Self { services }
    }

    /// The Service of a name.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<&Known> {
        let found = self.services.binary_search_by(|known| {
            (known.namespace.as_str(), known.name.as_str()).cmp(&(namespace, name))
        });
        self.services.get(found.ok()?)
    }
}

/// What an object is called.
pub(crate) fn key(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Key {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    (part(&metadata.namespace), part(&metadata.name))
}

fn known((namespace, name): Key, service: &Service, endpoints: &[Endpoint]) -> Known {
    let spec = service.spec.as_ref();
    let publishes_all = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let named = endpoints
        .iter()
        .filter(|endpoint| endpoint.is_ready || publishes_all);
    let external = spec
        .filter(|spec| spec.type_.as_deref() == Some("ExternalName"))
        .and_then(|spec| spec.external_name.clone());
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    Known {
        namespace,
        name,
        address: spec.and_then(|spec| spec.cluster_ip.as_ref()?.parse().ok()),
        external,
        ports: ports
            .iter()
            .filter_map(|port| of_port(port, named.clone()))
            .collect(),
        members: named
            .map(|endpoint| Member {
                address: endpoint.address,
                hostname: endpoint.hostname.clone(),
            })
            .collect(),
    }
}

fn of_port<'a>(port: &ServicePort, endpoints: impl Iterator<Item = &'a Endpoint>) -> Option<Port> {
    let name = port.name.clone().unwrap_or_default();
    let protocol = Protocol::parse(port.protocol.as_deref());
    let targets = endpoints
        .flat_map(|endpoint| {
            let ports = endpoint.ports.iter();
            ports
                .filter(|(its_name, its_protocol, _)| *its_name == name && *its_protocol == protocol)
                .map(|(_, _, number)| SocketAddrV4::new(endpoint.address, *number))
        })
        .collect();
    Some(Port {
        port: u16::try_from(port.port).ok()?,
        node_port: port
            .node_port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0),
        name,
        protocol,
        targets,
    })
}

fn number(port: Option<i32>) -> Option<u16> {
    u16::try_from(port?).ok()
}

fn of_slice(slice: &EndpointSlice) -> impl Iterator<Item = Endpoint> {
    let ports: Vec<_> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            let name = port.name.clone().unwrap_or_default();
            Some((
                name,
                Protocol::parse(port.protocol.as_deref()),
                number(port.port)?,
            ))
        })
        .collect();
    slice.endpoints.iter().flat_map(move |endpoint| {
        let ports = ports.clone();
        let conditions = endpoint.conditions.as_ref();
        // Not said means yes.
        let is_ready = conditions.and_then(|conditions| conditions.ready) != Some(false);
        let addresses = endpoint.addresses.iter();
        addresses.filter_map(move |address| {
            Some(Endpoint {
                address: address.parse().ok()?,
                hostname: endpoint.hostname.clone(),
                is_ready,
                ports: ports.clone(),
            })
        })
    })
}

fn of_endpoints(endpoints: &Endpoints) -> impl Iterator<Item = Endpoint> {
    endpoints.subsets.iter().flatten().flat_map(|subset| {
        let ports: Vec<_> = subset
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                let name = port.name.clone().unwrap_or_default();
                Some((
                    name,
                    Protocol::parse(port.protocol.as_deref()),
                    number(Some(port.port))?,
                ))
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let others = subset.not_ready_addresses.iter().flatten();
        ready
            .chain(others.map(|address| (address, false)))
            .filter_map(move |(address, is_ready)| {
                Some(Endpoint {
                    address: address.ip.parse().ok()?,
                    hostname: address.hostname.clone(),
                    is_ready,
                    ports: ports.clone(),
                })
            })
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A table of Services, Endpoints and slices.
    pub(crate) fn table(services: Value, endpoints: Value, slices: Value) -> Table {
        let services: Vec<Service> = serde_json::from_value(services).unwrap();
        let endpoints: Vec<Endpoints> = serde_json::from_value(endpoints).unwrap();
        let slices: Vec<EndpointSlice> = serde_json::from_value(slices).unwrap();
        let endpoints = endpoints
            .into_iter()
            .map(|object| (key(&object.metadata), object))
            .collect();
        Table::new(services.iter(), &endpoints, slices.iter())
    }

    fn check(service: Value, endpoints: Value, slices: Value, expected: &[&str]) {
        let metadata = json!({"name": "s", "namespace": "n"});
        let mut service = json!([{"metadata": metadata, "spec": service}]);
        let mut endpoints = endpoints;
        for object in endpoints.as_array_mut().unwrap() {
            object["metadata"] = metadata.clone();
        }
        let mut slices = slices;
        for slice in slices.as_array_mut().unwrap() {
            slice["metadata"] = json!({"namespace": "n", "labels": {SERVICE_NAME: "s"}});
            slice["addressType"] = json!("IPv4");
        }
        let table = table(service.take(), endpoints, slices);
        let known = table.find("n", "s").unwrap();
        let ports = known.ports.iter().map(|port| {
            let targets: Vec<String> = port.targets.iter().map(ToString::to_string).collect();
            format!("{}:{} {}", port.name, port.port, targets.join(" "))
                .trim()
                .to_owned()
        });
        let members = known
            .members
            .iter()
            .map(|member| format!("{} {}", member.hostname.as_deref().unwrap_or("-"), member.address));
        let found: Vec<String> = ports.chain(members).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn ports_of_a_service_lead_to_ready_endpoints_by_their_names() {
        check(
            json!({"clusterIP": "127.20.0.5", "ports": [{"port": 80, "name": "http"}, {"port": 9000, "name": "grpc"}]}),
            json!([]),
            json!([{
                "endpoints": [
                    {"addresses": ["127.20.64.1"], "conditions": {"ready": true}, "hostname": "a"},
                    {"addresses": ["127.20.64.2"], "conditions": {"ready": false}},
                    {"addresses": ["127.20.64.3"]},
                ],
                "ports": [{"name": "http", "port": 8080}, {"name": "grpc", "port": 9001, "protocol": "TCP"}],
            }]),
            &[
                "http:80 127.20.64.1:8080 127.20.64.3:8080",
                "grpc:9000 127.20.64.1:9001 127.20.64.3:9001",
                "a 127.20.64.1",
                "- 127.20.64.3",
            ],
        );
    }

    #[test]
    fn endpoints_and_slices_are_one() {
        let endpoints = json!([{"subsets": [{
            "addresses": [{"ip": "127.20.64.1", "hostname": "a"}, {"ip": "10.0.0.9"}],
            "notReadyAddresses": [{"ip": "127.20.64.7"}],
            "ports": [{"port": 8080}],
        }]}]);
        let slices = json!([{
            "endpoints": [{"addresses": ["127.20.64.1"], "hostname": "a"}], "ports": [{"name": "", "port": 8080}],
        }]);
        check(
            json!({"clusterIP": "None", "ports": [{"port": 80, "protocol": "TCP"}]}),
            endpoints,
            slices,
            &[
                ":80 10.0.0.9:8080 127.20.64.1:8080",
                "- 10.0.0.9",
                "a 127.20.64.1",
            ],
        );
    }

    #[test]
    fn who_is_not_ready_is_named_where_the_service_says_so() {
        check(
            json!({"clusterIP": "None", "publishNotReadyAddresses": true}),
            json!([{"subsets": [{"notReadyAddresses": [{"ip": "127.20.64.7", "hostname": "job-0"}]}]}]),
            json!([]),
            &["job-0 127.20.64.7"],
        );
    }

    #[test]
    fn protocols_do_not_mix_and_foreign_addresses_are_left_out() {
        check(
            json!({"clusterIP": "127.20.0.5", "ports": [{"port": 53, "protocol": "UDP", "name": "dns"}]}),
            json!([{"subsets": [{"addresses": [{"ip": "127.20.64.7"}, {"ip": "fd00::1"}],
                "ports": [{"port": 53, "name": "dns", "protocol": "TCP"}, {"port": 54, "name": "dns", "protocol": "UDP"}]}]}]),
            json!([]),
            &["dns:53 127.20.64.7:54", "- 127.20.64.7"],
        );
    }
}
