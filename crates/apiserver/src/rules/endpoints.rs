//! Rules of Endpoints, EndpointSlices and Leases.

use std::net::IpAddr;

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Endpoints, discovery::v1::EndpointSlice};
use serde_json::Value;

use super::{Rules, each, shape, syntax};
use crate::{
    object,
    validation::{self, Problems},
};

const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub(crate) const ENDPOINTS: Rules = Rules {
    shape: shape::<Endpoints>,
    default: |endpoints| {
        each(endpoints, "/subsets", |subset| {
            each(subset, "/ports", |port| {
                syntax::default_zero(object::as_map(port), "protocol", "TCP");
            });
        });
    },
    check: check_endpoints,
    ..Rules::NONE
};

pub(crate) const SLICE: Rules = Rules {
    shape: shape::<EndpointSlice>,
    default: |slice| {
        each(slice, "/ports", |port| {
            let port = object::as_map(port);
            object::default(port, "name", "");
            syntax::default_zero(port, "protocol", "TCP");
        });
    },
    check: check_slice,
    check_change: |old, new, problems| syntax::check_unchanged(old, new, "addressType", problems),
    ..Rules::NONE
};

pub(crate) const LEASE: Rules = Rules {
    shape: shape::<Lease>,
    check: |lease, problems| {
        if let Some(seconds) = lease
            .pointer("/spec/leaseDurationSeconds")
            .and_then(Value::as_i64)
            && seconds <= 0
        {
            problems.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0");
        }
        let field = "spec.leaseTransitions";
        syntax::check_not_negative(lease, "/spec/leaseTransitions", field, problems);
    },
    ..Rules::NONE
};

fn check_endpoints(endpoints: &Value, problems: &mut Problems) {
    for (index, subset) in object::list(endpoints, "/subsets").iter().enumerate() {
        let field = format!("subsets[{index}]");
        let lists = ["addresses", "notReadyAddresses"];
        if lists
            .iter()
            .all(|list| object::list(subset, &format!("/{list}")).is_empty())
        {
            problems.required(field.clone(), "must specify `addresses` or `notReadyAddresses`");
        }
        for list in lists {
            for (at, address) in object::list(subset, &format!("/{list}")).iter().enumerate() {
                let ip = object::text(address, "/ip");
                if ip.parse::<IpAddr>().is_err() {
                    problems.invalid(format!("{field}.{list}[{at}].ip"), ip, ADDRESS);
                }
            }
        }
        let ports = object::list(subset, "/ports");
        check_ports(ports, &format!("{field}.ports"), ports.len() > 1, problems);
    }
}

fn check_ports(ports: &[Value], field: &str, must_have_names: bool, problems: &mut Problems) {
    for (index, port) in ports.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let name = object::text(port, "/name");
        if name.is_empty() && must_have_names {
            problems.required(format!("{field}.name"), "");
        } else if !name.is_empty() && !validation::is_label(name) {
            problems.invalid(format!("{field}.name"), name, validation::LABEL);
        }
        if let Some(number) = port.get("port").and_then(Value::as_i64) {
            syntax::check_port(format!("{field}.port"), number, problems);
        }
        let protocol = format!("{field}.protocol");
        syntax::check_one_of(port, "/protocol", protocol, &["SCTP", "TCP", "UDP"], problems);
    }
}

fn check_slice(slice: &Value, problems: &mut Problems) {
    let kind = object::text(slice, "/addressType");
    let kinds = ["FQDN", "IPv4", "IPv6"];
    if kind.is_empty() {
        problems.required("addressType", "");
    } else if !kinds.contains(&kind) {
        problems.unsupported("addressType", kind, &kinds);
    }
    let endpoints = object::list(slice, "/endpoints");
    if endpoints.len() > 1000 {
        problems.too_many("endpoints", endpoints.len(), 1000);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let field = format!("endpoints[{index}].addresses");
        let addresses = object::list(endpoint, "/addresses");
        if addresses.is_empty() {
            problems.required(field.clone(), "must contain at least 1 address");
        } else if addresses.len() > 100 {
            problems.too_many(field.clone(), addresses.len(), 100);
        }
        for (at, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
            let field = format!("{field}[{at}]");
            let ip = address.parse::<IpAddr>();
            match kind {
                "IPv4" if !ip.as_ref().is_ok_and(IpAddr::is_ipv4) => {
                    problems.invalid(field, address, "must be a valid IPv4 address");
                }
                "IPv6" if !ip.as_ref().is_ok_and(IpAddr::is_ipv6) => {
                    problems.invalid(field, address, "must be a valid IPv6 address");
                }
                "FQDN" if !validation::is_subdomain(address) => {
                    problems.invalid(field, address, validation::SUBDOMAIN);
                }
                _ => {}
            }
        }
    }
    let ports = object::list(slice, "/ports");
    if ports.len() > 20_000 {
        problems.too_many("ports", ports.len(), 20_000);
    }
    for (index, port) in ports.iter().enumerate() {
        let name = object::text(port, "/name");
        let is_taken = |other: &Value| object::text(other, "/name") == name;
        if ports[..index].iter().any(is_taken) {
            problems.duplicate(format!("ports[{index}].name"), name);
        }
    }
    check_ports(ports, "ports", false, problems);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_are_of_their_type() {
        let mut problems = Problems::default();
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["::1", "127.0.0.1"]}, {}]});
        check_slice(&slice, &mut problems);
        assert_eq!(
            problems.to_string(),
            "[endpoints[0].addresses[0]: Invalid value: \"::1\": must be a valid IPv4 address, \
             endpoints[1].addresses: Required value: must contain at least 1 address]"
        );
        let mut problems = Problems::default();
        check_endpoints(&json!({"subsets": [{"ports": [{"port": 80}]}]}), &mut problems);
        assert_eq!(
            problems.to_string(),
            "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"
        );
    }
}
