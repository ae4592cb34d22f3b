//! The variables by which containers find Services, as clusters set them. Pure.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;

use super::table::{Known, Port, Protocol, Table};

/// Those of all Services in the Pod's namespace that there are now and that have an address. Later ones are found
/// by name only. The Kubernetes API's own are not among them.
pub(crate) fn variables(pod: &Pod, table: &Table) -> Vec<(String, String)> {
    let spec = pod.spec.as_ref();
    if spec.and_then(|spec| spec.enable_service_links) == Some(false) {
        return Vec::new();
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let near = table
        .services
        .iter()
        .filter(|known| known.namespace == namespace && known.name != "kubernetes");
    near.filter_map(|known| Some((known, known.address?)))
        .flat_map(|(known, address)| of_service(known, address))
        .collect()
}

fn of_service(known: &Known, address: Ipv4Addr) -> Vec<(String, String)> {
    let service = name(&known.name);
    let mut found = Vec::new();
    let mut set = |name: String, value: String| found.push((name, value));
    let Some(first) = known.ports.first() else {
        return found;
    };
    set(format!("{service}_SERVICE_HOST"), address.to_string());
    set(format!("{service}_SERVICE_PORT"), first.port.to_string());
    for port in known.ports.iter().filter(|port| !port.name.is_empty()) {
        set(
            format!("{service}_SERVICE_PORT_{}", name(&port.name)),
            port.port.to_string(),
        );
    }
    set(format!("{service}_PORT"), url(first, address));
    for port in &known.ports {
        let protocol = protocol(port);
        let prefix = format!("{service}_PORT_{}_{}", port.port, protocol.to_uppercase());
        set(prefix.clone(), url(port, address));
        set(format!("{prefix}_PROTO"), protocol.to_owned());
        set(format!("{prefix}_PORT"), port.port.to_string());
        set(format!("{prefix}_ADDR"), address.to_string());
    }
    found
}

fn name(text: &str) -> String {
    text.to_uppercase().replace('-', "_")
}

fn protocol(port: &Port) -> &'static str {
    match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Other => "sctp",
    }
}

fn url(port: &Port, address: Ipv4Addr) -> String {
    format!("{}://{address}:{}", protocol(port), port.port)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::table::tests::table, *};

    #[test]
    fn services_of_the_namespace_are_told_as_on_a_cluster() {
        let service = |name: &str, namespace: &str, spec| json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
        let spec = json!({"clusterIP": "127.20.0.5", "ports": [{"port": 80, "name": "http"}, {"port": 53, "protocol": "UDP", "name": "a-b"}]});
        let table = table(
            json!([
                service("my-web", "n", spec.clone()),
                service("far", "m", spec.clone()),
                service("kubernetes", "n", spec),
                service(
                    "headless",
                    "n",
                    json!({"clusterIP": "None", "ports": [{"port": 1}]})
                ),
            ]),
            json!([]),
            json!([]),
        );
        let pod = |links: bool| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"namespace": "n"}, "spec": {"containers": [], "enableServiceLinks": links}}),
            )
            .unwrap()
        };
        let found: Vec<String> = variables(&pod(true), &table)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let expected = [
            "MY_WEB_SERVICE_HOST=127.20.0.5",
            "MY_WEB_SERVICE_PORT=80",
            "MY_WEB_SERVICE_PORT_HTTP=80",
            "MY_WEB_SERVICE_PORT_A_B=53",
            "MY_WEB_PORT=tcp://127.20.0.5:80",
            "MY_WEB_PORT_80_TCP=tcp://127.20.0.5:80",
            "MY_WEB_PORT_80_TCP_PROTO=tcp",
            "MY_WEB_PORT_80_TCP_PORT=80",
            "MY_WEB_PORT_80_TCP_ADDR=127.20.0.5",
            "MY_WEB_PORT_53_UDP=udp://127.20.0.5:53",
            "MY_WEB_PORT_53_UDP_PROTO=udp",
            "MY_WEB_PORT_53_UDP_PORT=53",
            "MY_WEB_PORT_53_UDP_ADDR=127.20.0.5",
        ];
        assert_eq!(found, expected);
        assert_eq!(variables(&pod(false), &table), []);
    }
}
