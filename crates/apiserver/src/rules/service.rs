//! Rules of Services. Which address one gets needs the others: that is in [`crate::reserve`].

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::{Rules, each, shape, syntax};
use crate::{
    object,
    validation::{self, Problems},
};

pub(crate) const RULES: Rules = Rules {
    shape: shape::<Service>,
    default,
    carry,
    initial_status: Some(|_| json!({"loadBalancer": {}})),
    check,
    check_change,
    name_problem: syntax::label_1035_problem,
    ..Rules::NONE
};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// Of sessions that stick to an address, in seconds.
const SESSION: i64 = 10800;
const SESSION_MOST: i64 = 86400;

/// What a Service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// An address, and ports of the machine when it says so.
    Address { has_node_ports: bool },
    /// The names of its Pods, no address.
    Headless,
    /// Another name for something outside.
    ExternalName,
}

/// What the Service is for.
pub(crate) fn form(service: &Value) -> Form {
    match object::text(service, "/spec/type") {
        "ExternalName" => Form::ExternalName,
        "NodePort" | "LoadBalancer" => Form::Address { has_node_ports: true },
        _ if object::text(service, "/spec/clusterIP") == "None" => Form::Headless,
        _ => Form::Address {
            has_node_ports: false,
        },
    }
}

fn default(service: &mut Value) {
    let spec = object::section(service, "spec");
    syntax::default_zero(spec, "type", "ClusterIP");
    syntax::default_zero(spec, "sessionAffinity", "None");
    if spec.get("sessionAffinity") == Some(&Value::from("ClientIP")) {
        let config = object::as_map(spec.entry("sessionAffinityConfig").or_insert_with(|| json!({})));
        let client = object::as_map(config.entry("clientIP").or_insert_with(|| json!({})));
        object::default(client, "timeoutSeconds", SESSION);
    } else {
        object::put(spec, "sessionAffinityConfig", None);
    }
    each(service, "/spec/ports", |port| {
        let port = object::as_map(port);
        syntax::default_zero(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        syntax::default_zero(port, "targetPort", number);
    });
    // One and the same under two names.
    let first = object::text(service, "/spec/clusterIPs/0").to_owned();
    let single = object::text(service, "/spec/clusterIP").to_owned();
    let spec = object::section(service, "spec");
    match (single.is_empty(), first.is_empty()) {
        (true, false) => object::put(spec, "clusterIP", Some(first.into())),
        (false, true) => object::put(spec, "clusterIPs", Some(json!([single]))),
        _ => {}
    }
    let form = form(service);
    let is_selected = service
        .pointer("/spec/selector")
        .and_then(Value::as_object)
        .is_some_and(|selector| !selector.is_empty());
    let is_balanced = object::text(service, "/spec/type") == "LoadBalancer";
    let spec = object::section(service, "spec");
    match form {
        Form::ExternalName => return,
        Form::Headless if !is_selected => {
            object::default(spec, "ipFamilies", json!(["IPv4", "IPv6"]));
            syntax::default_zero(spec, "ipFamilyPolicy", "RequireDualStack");
        }
        Form::Headless | Form::Address { .. } => {}
    }
    object::default(spec, "ipFamilies", json!(["IPv4"]));
    syntax::default_zero(spec, "ipFamilyPolicy", "SingleStack");
    syntax::default_zero(spec, "internalTrafficPolicy", "Cluster");
    if form == (Form::Address { has_node_ports: true }) {
        syntax::default_zero(spec, "externalTrafficPolicy", "Cluster");
    } else {
        object::put(spec, "externalTrafficPolicy", None);
    }
    if is_balanced {
        object::default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// What was given to it stays, when an update does not speak of it.
fn carry(old: &Value, new: &mut Value) {
    let (before, after) = (form(old), form(new));
    let is_plain = |form: Form| matches!(form, Form::Address { .. });
    if is_plain(before) && is_plain(after) {
        let old_single = object::text(old, "/spec/clusterIP").to_owned();
        let old_first = object::text(old, "/spec/clusterIPs/0").to_owned();
        let single = object::text(new, "/spec/clusterIP").to_owned();
        let first = object::text(new, "/spec/clusterIPs/0").to_owned();
        let spec = object::section(new, "spec");
        if single.is_empty() && first.is_empty() {
            spec.insert("clusterIP".to_owned(), old_single.into());
            let all = old.pointer("/spec/clusterIPs").cloned();
            object::put(spec, "clusterIPs", all);
        } else if !single.is_empty() && single != old_single && first == old_first {
            spec.insert("clusterIPs".to_owned(), json!([single]));
        }
    } else if is_plain(before) && after == Form::ExternalName {
        // It gives up its address, when the update does not ask for it by name.
        let spec = object::section(new, "spec");
        if spec.get("clusterIP") == old.pointer("/spec/clusterIP") {
            object::put(spec, "clusterIP", None);
            object::put(spec, "clusterIPs", None);
        }
    }
    let old_ports = object::list(old, "/spec/ports").to_vec();
    match after {
        Form::Address { has_node_ports: true } => each(new, "/spec/ports", |port| {
            let identity = |port: &Value| (port.get("port").cloned(), port.get("protocol").cloned());
            let known = old_ports
                .iter()
                .find(|known| identity(known).0 == identity(port).0 && is_same_protocol(known, port));
            if let Some(number) = known.and_then(|known| known.get("nodePort")).cloned() {
                syntax::default_zero(object::as_map(port), "nodePort", number);
            }
        }),
        _ => {
            // Ports of the machine that nobody asked for go with the type that had them.
            each(new, "/spec/ports", |port| {
                let number = port.get("nodePort").cloned();
                if number.is_some()
                    && old_ports
                        .iter()
                        .any(|known| known.get("nodePort") == number.as_ref())
                {
                    object::put(object::as_map(port), "nodePort", None);
                }
            });
        }
    }
}

fn is_same_protocol(one: &Value, other: &Value) -> bool {
    let protocol = |port: &Value| match object::text(port, "/protocol") {
        "" => "TCP".to_owned(),
        other => other.to_owned(),
    };
    protocol(one) == protocol(other)
}

fn check(service: &Value, problems: &mut Problems) {
    let kind = object::text(service, "/spec/type");
    if !TYPES.contains(&kind) {
        problems.unsupported("spec.type", kind, &TYPES);
    }
    let form = form(service);
    let single = object::text(service, "/spec/clusterIP");
    let addresses = object::list(service, "/spec/clusterIPs");
    match form {
        Form::ExternalName => {
            if !addresses.is_empty() {
                problems.forbidden("spec.clusterIPs", "may not be set for ExternalName services");
            }
            let name = object::text(service, "/spec/externalName").trim_end_matches('.');
            if name.is_empty() {
                problems.required("spec.externalName", "");
            } else if !validation::is_subdomain(name) {
                problems.invalid("spec.externalName", name, validation::SUBDOMAIN);
            }
        }
        Form::Address { .. } => {
            if single == "None" {
                let detail = format!("may not be set to 'None' for {kind} services");
                problems.invalid("spec.clusterIPs[0]", "None", &detail);
            } else if !single.is_empty() && single.parse::<IpAddr>().is_err() {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                problems.invalid("spec.clusterIPs[0]", single, detail);
            }
        }
        Form::Headless => {}
    }
    if form != Form::ExternalName {
        match addresses.first().and_then(Value::as_str) {
            Some(first) if first != single => {
                let detail = "first value must match `clusterIP`";
                problems.invalid("spec.clusterIPs", Value::Array(addresses.to_vec()), detail);
            }
            _ if addresses.len() > 1 => {
                let detail = "may only hold up to 1 value on a cluster with one family of addresses";
                problems.invalid("spec.clusterIPs", Value::Array(addresses.to_vec()), detail);
            }
            _ => {}
        }
    }
    syntax::check_labels(service, "/spec/selector", "spec.selector", problems);
    check_session(service, problems);
    check_policies(service, form, problems);
    check_ports(service, form, problems);
    for (index, address) in object::list(service, "/spec/externalIPs").iter().enumerate() {
        let text = address.as_str().unwrap_or_default();
        if text.parse::<IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            problems.invalid(format!("spec.externalIPs[{index}]"), text, detail);
        }
    }
}

fn check_session(service: &Value, problems: &mut Problems) {
    let affinities = ["ClientIP", "None"];
    let field = "spec.sessionAffinity";
    syntax::check_one_of(service, "/spec/sessionAffinity", field, &affinities, problems);
    let pointer = "/spec/sessionAffinityConfig/clientIP/timeoutSeconds";
    if let Some(seconds) = service.pointer(pointer).and_then(Value::as_i64)
        && !(1..=SESSION_MOST).contains(&seconds)
    {
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        problems.invalid(field, seconds, "must be greater than 0 and less than 86400");
    }
}

fn check_policies(service: &Value, form: Form, problems: &mut Problems) {
    let policies = ["Cluster", "Local"];
    for name in ["internalTrafficPolicy", "externalTrafficPolicy"] {
        let pointer = format!("/spec/{name}");
        syntax::check_one_of(service, &pointer, format!("spec.{name}"), &policies, problems);
    }
    if form == Form::Headless {
        return;
    }
    let families = object::list(service, "/spec/ipFamilies");
    for (index, family) in families.iter().filter_map(Value::as_str).enumerate() {
        if family != "IPv4" {
            let detail = "not configured on this cluster";
            problems.invalid(format!("spec.ipFamilies[{index}]"), family, detail);
        }
    }
    if object::text(service, "/spec/ipFamilyPolicy") == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        problems.invalid("spec.ipFamilyPolicy", "RequireDualStack", detail);
    }
}

fn check_ports(service: &Value, form: Form, problems: &mut Problems) {
    let ports = object::list(service, "/spec/ports");
    if ports.is_empty() && matches!(form, Form::Address { .. }) {
        problems.required("spec.ports", "");
    }
    for (index, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let name = object::text(port, "/name");
        let earlier = &ports[..index];
        if name.is_empty() {
            if ports.len() > 1 {
                problems.required(format!("{field}.name"), "");
            }
        } else if !validation::is_label(name) {
            problems.invalid(format!("{field}.name"), name, validation::LABEL);
        } else if earlier.iter().any(|other| object::text(other, "/name") == name) {
            problems.duplicate(format!("{field}.name"), name);
        }
        let number = object::number(port, "/port");
        syntax::check_port(format!("{field}.port"), number, problems);
        let protocol = format!("{field}.protocol");
        syntax::check_one_of(port, "/protocol", protocol, &["SCTP", "TCP", "UDP"], problems);
        let target = port.get("targetPort").unwrap_or(&Value::Null);
        syntax::check_port_or_name(&format!("{field}.targetPort"), target, problems);
        let is_same =
            |other: &&Value| object::number(other, "/port") == number && is_same_protocol(other, port);
        if earlier.iter().any(|other| is_same(&other)) {
            let twice = json!({"port": number, "protocol": port.get("protocol")});
            problems.duplicate_value(field.clone(), twice);
        }
        let node = object::number(port, "/nodePort");
        if node == 0 {
            continue;
        }
        if form == (Form::Address { has_node_ports: true }) {
            let is_taken =
                |other: &Value| object::number(other, "/nodePort") == node && is_same_protocol(other, port);
            if earlier.iter().any(is_taken) {
                problems.duplicate_value(format!("{field}.nodePort"), node);
            }
        } else {
            let kind = object::text(service, "/spec/type");
            let detail = format!("may not be used when `type` is '{kind}'");
            problems.forbidden(format!("{field}.nodePort"), &detail);
        }
    }
}

fn check_change(old: &Value, new: &Value, problems: &mut Problems) {
    if form(old) == Form::ExternalName || form(new) == Form::ExternalName {
        return;
    }
    let first = |service: &Value| object::text(service, "/spec/clusterIPs/0").to_owned();
    let was = first(old);
    if !was.is_empty() && was != first(new) {
        let addresses = new.pointer("/spec/clusterIPs").cloned().unwrap_or_default();
        problems.invalid("spec.clusterIPs[0]", addresses, "may not change once set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
        default(&mut service);
        service
    }

    fn problems(spec: Value) -> String {
        let mut problems = Problems::default();
        check(&service(spec), &mut problems);
        problems.to_string()
    }

    #[test]
    fn a_service_is_filled_in() {
        let spec = service(json!({"ports": [{"port": 80}], "selector": {"a": "b"}}))["spec"].take();
        assert_eq!(
            spec,
            json!({
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
                "selector": {"a": "b"},
                "type": "ClusterIP",
                "sessionAffinity": "None",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "internalTrafficPolicy": "Cluster",
            })
        );
        let headless = service(json!({"clusterIP": "None", "selector": {"a": "b"}}));
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
        assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4"]));
        let named = service(json!({"type": "ExternalName", "externalName": "example.com"}));
        assert_eq!(named["spec"].get("ipFamilies"), None);
        let sticky = service(json!({"sessionAffinity": "ClientIP", "ports": [{"port": 1}]}));
        assert_eq!(
            sticky["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
            SESSION
        );
        let node = service(json!({"type": "NodePort", "ports": [{"port": 1}]}));
        assert_eq!(node["spec"]["externalTrafficPolicy"], "Cluster");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (spec, expected) in [
            (json!({}), "spec.ports: Required value"),
            (json!({"clusterIP": "None"}), "[]"),
            (
                json!({"ports": [{"port": 80}, {"port": 81}]}),
                "spec.ports[0].name: Required value",
            ),
            (
                json!({"ports": [{"port": 0}]}),
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"ports": [{"port": 80, "nodePort": 30000}]}),
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ),
            (
                json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}),
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
            ),
            (
                json!({"type": "ExternalName"}),
                "spec.externalName: Required value",
            ),
            (
                json!({"type": "Odd", "ports": [{"port": 80}]}),
                "spec.type: Unsupported value: \"Odd\": supported values: \"ClusterIP\", \"ExternalName\", \
                 \"LoadBalancer\", \"NodePort\"",
            ),
            (
                json!({"ports": [{"port": 80, "targetPort": "-x"}]}),
                "spec.ports[0].targetPort: Invalid value: \"-x\": must not begin or end with a hyphen",
            ),
        ] {
            let message = problems(spec);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn an_address_stays_when_an_update_leaves_it_out_and_never_changes() {
        let old = service(json!({"clusterIP": "127.16.0.9", "ports": [{"port": 80}]}));
        let mut new = service(json!({"ports": [{"port": 81}]}));
        carry(&old, &mut new);
        assert_eq!(new["spec"]["clusterIP"], "127.16.0.9");
        assert_eq!(new["spec"]["clusterIPs"], json!(["127.16.0.9"]));
        let mut moved = old.clone();
        moved["spec"]["clusterIP"] = json!("127.16.0.10");
        carry(&old, &mut moved);
        let mut problems = Problems::default();
        check_change(&old, &moved, &mut problems);
        assert_eq!(
            problems.to_string(),
            "spec.clusterIPs[0]: Invalid value: [\"127.16.0.10\"]: may not change once set"
        );
    }
}
