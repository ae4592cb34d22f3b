//! Addresses of Services and ports of the machine: each is one Service's alone.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::Ipv4Addr,
    ops::RangeInclusive,
};

use coracle_api::network::Block;
use coracle_store::resources::Body;
use serde_json::{Value, json};

use crate::{
    object,
    rules::{
        each,
        service::{Form, form},
    },
    validation::Problems,
};

/// Ports of the machine for Services.
const PORTS: RangeInclusive<i64> = 30000..=32767;

/// The Service by which the API is found.
const FIRST: (&str, &str) = ("default", "kubernetes");

/// The address of the Service by which the API is found.
pub(crate) fn first(block: Block) -> Option<String> {
    block.services().nth(0).map(|address| address.to_string())
}

/// What Services have already.
#[derive(Debug)]
pub(super) struct Addresses {
    block: Block,
    services: Vec<Body>,
}

impl Addresses {
    pub(super) const fn new(block: Block, services: Vec<Body>) -> Self {
        Self { block, services }
    }

    /// Gives the Service what it lacks, and checks what it asks for by number.
    pub(super) fn assign(&self, service: &mut Value) -> Result<(), Problems> {
        let mut problems = Problems::default();
        let is_other = |other: &&Body| {
            (object::namespace(other), object::name(other))
                != (object::namespace(service), object::name(service))
        };
        let others = self.services.iter().filter(is_other).collect::<Vec<_>>();
        if let Form::Address { has_node_ports } = form(service) {
            self.assign_address(service, &others, &mut problems);
            if has_node_ports
                && service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false))
            {
                assign_ports(service, &others, &mut problems);
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn assign_address(&self, service: &mut Value, others: &[&Body], problems: &mut Problems) {
        let taken = others
            .iter()
            .filter_map(|other| object::text(other, "/spec/clusterIP").parse().ok())
            .collect::<HashSet<Ipv4Addr>>();
        let range = self.block.services();
        let first = range.nth(0);
        let is_first = (object::namespace(service), object::name(service)) == FIRST;
        let wanted = object::text(service, "/spec/clusterIP").to_owned();
        let field = "spec.clusterIPs";
        if wanted.is_empty() {
            let mut free = range
                .from_seed(object::uid(service))
                .filter(|address| !taken.contains(address) && Some(*address) != first);
            let given = if is_first { first } else { free.next() };
            let Some(address) = given else {
                let detail = "failed to allocate a serviceIP: range is full";
                problems.invalid(field, Value::Array(Vec::new()), detail);
                return;
            };
            let spec = object::section(service, "spec");
            spec.insert("clusterIP".to_owned(), address.to_string().into());
            spec.insert("clusterIPs".to_owned(), json!([address.to_string()]));
            return;
        }
        let block = self.block.number();
        let why = match wanted.parse::<Ipv4Addr>() {
            Ok(address) if !range.contains(address) => format!(
                "the provided IP ({wanted}) is not in the valid range. The range of valid IPs is 127.{block}.0.0/18"
            ),
            Ok(address) if taken.contains(&address) || (Some(address) == first && !is_first) => {
                "provided IP is already allocated".to_owned()
            }
            Ok(_) => return,
            Err(_) => format!(
                "the provided IP ({wanted}) is not in the valid range. The range of valid IPs is 127.{block}.0.0/18"
            ),
        };
        let detail = format!("failed to allocate IP {wanted}: {why}");
        problems.invalid(field, json!([wanted]), &detail);
    }
}

fn assign_ports(service: &mut Value, others: &[&Body], problems: &mut Problems) {
    let taken = others
        .iter()
        .flat_map(|other| object::list(other, "/spec/ports"))
        .map(|port| object::number(port, "/nodePort"));
    let mut taken = taken.collect::<HashSet<_>>();
    let uid = object::uid(service).to_owned();
    for (index, port) in object::list(service, "/spec/ports").iter().enumerate() {
        let number = object::number(port, "/nodePort");
        let field = format!("spec.ports[{index}].nodePort");
        if number == 0 {
            continue;
        }
        if !PORTS.contains(&number) {
            let detail = "provided port is not in the valid range. The range of valid ports is 30000-32767";
            problems.invalid(field, number, detail);
        } else if taken.contains(&number) {
            problems.invalid(field, number, "provided port is already allocated");
        }
    }
    let own = object::list(service, "/spec/ports").iter();
    taken.extend(own.map(|port| object::number(port, "/nodePort")));
    let mut is_full = false;
    each(service, "/spec/ports", |port| {
        if object::number(port, "/nodePort") != 0 {
            return;
        }
        let mut hasher = DefaultHasher::new();
        (&uid, object::number(port, "/port")).hash(&mut hasher);
        let count = PORTS.end() - PORTS.start() + 1;
        let start = i64::try_from(hasher.finish() % count.unsigned_abs()).unwrap_or_default();
        let free = (0..count)
            .map(|step| PORTS.start() + (start + step) % count)
            .find(|number| !taken.contains(number));
        if let Some(number) = free {
            taken.insert(number);
            object::as_map(port).insert("nodePort".to_owned(), number.into());
        } else {
            is_full = true;
        }
    });
    if is_full {
        let detail = "failed to allocate a nodePort: range is full";
        problems.invalid("spec.ports[0].nodePort", 0, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, spec: Value) -> Value {
        json!({"metadata": {"namespace": "ns", "name": name, "uid": name}, "spec": spec})
    }

    fn assigned(others: &[Value], mut service: Value) -> Result<Value, String> {
        let others = others.iter().cloned().map(Body::from).collect();
        let addresses = Addresses::new(Block::new(16), others);
        match addresses.assign(&mut service) {
            Ok(()) => Ok(service["spec"].take()),
            Err(problems) => Err(problems.to_string()),
        }
    }

    #[test]
    fn every_service_gets_an_address_of_its_own() {
        let first = assigned(&[], service("a", json!({}))).unwrap();
        let address = first["clusterIP"].as_str().unwrap();
        assert!(Block::new(16).services().contains(address.parse().unwrap()));
        assert_eq!(first["clusterIPs"], json!([address]));
        // The same seed, when the address is held by another.
        let held = service("b", json!({"clusterIP": address}));
        let second = assigned(&[held], service("a", json!({}))).unwrap();
        assert_ne!(second["clusterIP"], first["clusterIP"]);
        let api = json!({"metadata": {"namespace": "default", "name": "kubernetes"}, "spec": {}});
        assert_eq!(assigned(&[], api).unwrap()["clusterIP"], "127.16.0.1");
        for none in [json!({"clusterIP": "None"}), json!({"type": "ExternalName"})] {
            assert_eq!(assigned(&[], service("a", none.clone())).unwrap(), none);
        }
    }

    #[test]
    fn an_address_that_is_asked_for_must_be_free_and_in_range() {
        let held = service("b", json!({"clusterIP": "127.16.0.9"}));
        for (address, expected) in [
            (
                "10.0.0.1",
                "spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: failed to allocate IP 10.0.0.1: the provided IP \
                 (10.0.0.1) is not in the valid range. The range of valid IPs is 127.16.0.0/18",
            ),
            (
                "127.16.0.9",
                "spec.clusterIPs: Invalid value: [\"127.16.0.9\"]: failed to allocate IP 127.16.0.9: provided IP is \
                 already allocated",
            ),
        ] {
            let asked = service("a", json!({"clusterIP": address}));
            assert_eq!(
                assigned(std::slice::from_ref(&held), asked).unwrap_err(),
                expected
            );
        }
        // It is its own.
        assert!(assigned(std::slice::from_ref(&held), held.clone()).is_ok());
    }

    #[test]
    fn ports_of_the_machine_are_given_once() {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 30001}]});
        let given = assigned(&[], service("a", spec.clone())).unwrap();
        let number = given["ports"][0]["nodePort"].as_i64().unwrap();
        assert!(PORTS.contains(&number) && number != 30001);
        let other = service("b", json!({"ports": [{"nodePort": 30001}]}));
        assert_eq!(
            assigned(&[other], service("a", spec)).unwrap_err(),
            "spec.ports[1].nodePort: Invalid value: 30001: provided port is already allocated"
        );
        let low = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]});
        assert!(
            assigned(&[], service("a", low))
                .unwrap_err()
                .contains("30000-32767")
        );
    }
}
