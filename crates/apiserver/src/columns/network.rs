//! Columns of Services, Endpoints and EndpointSlices.

use serde_json::Value;

use super::{AGE, Column, NAME, column, labels, or_none, wide};
use crate::object;

pub(crate) const SERVICES: &[Column] = &[
    NAME,
    column("Type", |service, _| object::text(service, "/spec/type").into()),
    column("Cluster-IP", |service, _| {
        or_none(object::text(service, "/spec/clusterIP")).into()
    }),
    column("External-IP", |service, _| external(service).into()),
    column("Port(s)", |service, _| ports(service).into()),
    AGE,
    wide("Selector", |service, _| {
        labels(service.pointer("/spec/selector")).into()
    }),
];

pub(crate) const ENDPOINTS: &[Column] = &[
    NAME,
    column("Endpoints", |endpoints, _| addresses(endpoints).into()),
    AGE,
];

pub(crate) const SLICES: &[Column] = &[
    NAME,
    column("AddressType", |slice, _| {
        object::text(slice, "/addressType").into()
    }),
    column("Ports", |slice, _| {
        let ports = object::list(slice, "/ports").iter().map(|port| {
            port.get("port")
                .map_or_else(|| "*".to_owned(), ToString::to_string)
        });
        few(ports.collect(), "<unset>").into()
    }),
    column("Endpoints", |slice, _| {
        let endpoints = object::list(slice, "/endpoints").iter();
        let addresses = endpoints.flat_map(|endpoint| object::list(endpoint, "/addresses"));
        let addresses = addresses.filter_map(Value::as_str).map(ToOwned::to_owned);
        few(addresses.collect(), "<unset>").into()
    }),
    AGE,
];

/// The first three, and how many more there are.
fn few(all: Vec<String>, none: &str) -> String {
    const SHOWN: usize = 3;
    match all.len() {
        0 => none.to_owned(),
        1..=SHOWN => all.join(","),
        many => format!("{} + {} more...", all[..SHOWN].join(","), many - SHOWN),
    }
}

fn external(service: &Value) -> String {
    let given = object::list(service, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join(",");
    match object::text(service, "/spec/type") {
        "ExternalName" => object::text(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let ingress = object::list(service, "/status/loadBalancer/ingress").iter();
            let mut all = ingress
                .map(|one| match object::text(one, "/ip") {
                    "" => object::text(one, "/hostname"),
                    ip => ip,
                })
                .collect::<Vec<_>>();
            if !given.is_empty() {
                all.push(&given);
            }
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        _ => or_none(&given).to_owned(),
    }
}

fn ports(service: &Value) -> String {
    let ports = object::list(service, "/spec/ports").iter().map(|port| {
        let (number, protocol) = (object::number(port, "/port"), object::text(port, "/protocol"));
        match object::number(port, "/nodePort") {
            0 => format!("{number}/{protocol}"),
            node => format!("{number}:{node}/{protocol}"),
        }
    });
    or_none(&ports.collect::<Vec<_>>().join(",")).to_owned()
}

fn addresses(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in object::list(endpoints, "/subsets") {
        let ips = object::list(subset, "/addresses");
        let ips = ips.iter().map(|address| object::text(address, "/ip"));
        let ports = object::list(subset, "/ports");
        if ports.is_empty() {
            all.extend(ips.map(ToOwned::to_owned));
            continue;
        }
        for port in ports {
            let number = object::number(port, "/port");
            all.extend(ips.clone().map(|ip| format!("{ip}:{number}")));
        }
    }
    few(all, "<none>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cells(columns: &[Column], object: &Value) -> Value {
        let now = "2026-11-22T10:00:00Z".parse().unwrap();
        columns.iter().map(|column| (column.cell)(object, now)).collect()
    }

    #[test]
    fn a_service_shows_where_it_is() {
        let service = json!({
            "metadata": {"name": "s", "creationTimestamp": "2026-11-22T09:59:00Z"},
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "127.16.0.4",
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
                "selector": {"b": "2", "a": "1"},
            },
        });
        assert_eq!(
            cells(SERVICES, &service),
            json!([
                "s",
                "LoadBalancer",
                "127.16.0.4",
                "<pending>",
                "80:30080/TCP,53/UDP",
                "60s",
                "a=1,b=2"
            ])
        );
    }

    #[test]
    fn endpoints_show_the_first_three() {
        let ips = [1, 2, 3, 4].map(|last| json!({"ip": format!("127.16.64.{last}")}));
        let endpoints = json!({"metadata": {}, "subsets": [{"addresses": ips, "ports": [{"port": 80}]}]});
        assert_eq!(
            addresses(&endpoints),
            "127.16.64.1:80,127.16.64.2:80,127.16.64.3:80 + 1 more..."
        );
        assert_eq!(addresses(&json!({})), "<none>");
    }
}
