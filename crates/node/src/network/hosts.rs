//! What a Pod's `/etc/hosts` says. Pure.
//!
//! There is no name server: names are those of Services and of what is behind headless ones, written out. Names of
//! the world outside are resolved as on this machine.

use std::{fmt::Write as _, net::Ipv4Addr};

use k8s_openapi::api::core::v1::Pod;

use super::{
    is_on_host,
    table::{Known, Table},
};

/// The domain under which clusters keep their names, unless told otherwise.
const DOMAIN: &str = "cluster.local";
/// The longest name that Linux gives a machine.
const LONGEST: usize = 63;

/// What the Pod's machine is called inside. For a Pod with `hostNetwork`: not this.
pub(crate) fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec
        .and_then(|spec| spec.hostname.as_deref())
        .filter(|name| !name.is_empty())
        .or(pod.metadata.name.as_deref())
        .unwrap_or_default();
    let short: String = name.chars().take(LONGEST).collect();
    short.trim_end_matches(['-', '.']).to_owned()
}

/// The Pod's whole name, if it has a subdomain.
pub(crate) fn domain_name(pod: &Pod) -> Option<String> {
    let subdomain = pod
        .spec
        .as_ref()?
        .subdomain
        .as_deref()
        .filter(|name| !name.is_empty())?;
    Some(format!(
        "{}.{subdomain}.{}.svc.{DOMAIN}",
        hostname(pod),
        namespace(pod)
    ))
}

/// What `uname -n` and `HOSTNAME` say in the Pod.
pub(crate) fn machine_name(pod: &Pod) -> String {
    let is_full = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    domain_name(pod)
        .filter(|name| is_full && name.len() < 64)
        .unwrap_or_else(|| hostname(pod))
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// The whole file. `host` is this machine's own, whose names hold as well.
pub(crate) fn render(pod: &Pod, address: Ipv4Addr, table: &Table, host: &str) -> String {
    let mut file = String::from(
        "# Kept by Coracle: written anew when Services change.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost \
         ip6-loopback\n",
    );
    let mut line = |address: &dyn std::fmt::Display, names: &str| {
        let _ = writeln!(file, "{address}\t{names}");
    };
    if !is_on_host(pod) {
        let names = domain_name(pod).into_iter().chain([hostname(pod)]);
        line(&address, &names.collect::<Vec<_>>().join(" "));
    }
    let spec = pod.spec.as_ref();
    for alias in spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten()) {
        line(
            &alias.ip,
            &alias.hostnames.as_deref().unwrap_or_default().join(" "),
        );
    }
    for (address, names) in names(table, namespace(pod)) {
        line(&address, &names.join(" "));
    }
    let theirs = host
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .filter(|line| !line.split_ascii_whitespace().any(|word| word == "localhost"));
    for line in theirs {
        file.push_str(line);
        file.push('\n');
    }
    file
}

/// The names of Services as seen from a namespace. Some resolvers cut long lines off, so each has its own.
fn names(table: &Table, from: &str) -> Vec<(Ipv4Addr, Vec<String>)> {
    let mut found = Vec::new();
    let mut put = |address, names| found.push((address, names));
    for known in &table.services {
        let Some(meant) = meant(table, known, 0) else {
            continue;
        };
        if let Some(address) = meant.address {
            put(address, forms(None, known, from));
            continue;
        }
        for member in &meant.members {
            if let Some(hostname) = &member.hostname {
                put(member.address, forms(Some(hostname), known, from));
            }
            put(member.address, forms(None, known, from));
        }
    }
    found
}

/// The Service itself, or the one whose name it stands for. Names outside are not resolved here.
fn meant<'a>(table: &'a Table, known: &'a Known, depth: u32) -> Option<&'a Known> {
    let Some(external) = &known.external else {
        return Some(known);
    };
    let name = external.trim_end_matches('.');
    let name = name
        .strip_suffix(DOMAIN)
        .and_then(|name| name.strip_suffix('.'))
        .unwrap_or(name);
    let (name, namespace) = name.strip_suffix(".svc")?.rsplit_once('.')?;
    let other = table.find(namespace, name)?;
    // Two that stand for each other are nobody.
    (depth < 4).then(|| meant(table, other, depth + 1)).flatten()
}

/// Every way to say one name from a namespace.
fn forms(hostname: Option<&str>, known: &Known, from: &str) -> Vec<String> {
    let name = match hostname {
        Some(hostname) => format!("{hostname}.{}", known.name),
        None => known.name.clone(),
    };
    let namespace = &known.namespace;
    let short = (namespace == from).then(|| name.clone());
    let others = [
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.{DOMAIN}"),
    ];
    short.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::table::tests::table, *};

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 20, 64, 9);

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap()
    }

    fn check(spec: Value, services: Value, endpoints: Value, host: &str, expected: &str) {
        let table = table(services, endpoints, json!([]));
        let text = render(&pod(spec), ADDRESS, &table, host);
        let lines: Vec<String> = text.lines().skip(3).map(|line| line.replace('\t', " ")).collect();
        assert_eq!(lines.join("\n"), expected);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn a_pod_finds_itself_its_aliases_and_this_machines_names() {
        check(json!({}), json!([]), json!([]), "", "127.20.64.9 p");
        check(
            json!({"hostname": "job-0", "subdomain": "job", "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["a", "b.c"]}]}),
            json!([]),
            json!([]),
            "127.0.0.1 localhost\n# x\n\n127.0.1.1\tlaptop laptop.lan\n",
            "127.20.64.9 job-0.job.n.svc.cluster.local job-0\n10.1.2.3 a b.c\n127.0.1.1 laptop laptop.lan",
        );
        check(json!({"hostNetwork": true}), json!([]), json!([]), "", "");
    }

    #[test]
    fn services_have_all_their_names_and_short_ones_at_home() {
        let service = |namespace: &str, address: &str| json!({"metadata": {"name": "web", "namespace": namespace}, "spec": {"clusterIP": address}});
        check(
            json!({}),
            json!([service("n", "127.20.0.5"), service("other", "127.20.0.6")]),
            json!([]),
            "",
            "127.20.64.9 p\n\
             127.20.0.5 web web.n web.n.svc web.n.svc.cluster.local\n\
             127.20.0.6 web.other web.other.svc web.other.svc.cluster.local",
        );
    }

    #[test]
    fn a_headless_service_names_everybody_behind_it() {
        check(
            json!({}),
            json!([{"metadata": {"name": "job", "namespace": "n"}, "spec": {"clusterIP": "None"}}]),
            json!([{"metadata": {"name": "job", "namespace": "n"}, "subsets": [{"addresses": [
                {"ip": "127.20.64.1", "hostname": "job-0"}, {"ip": "127.20.64.2"}]}]}]),
            "",
            "127.20.64.9 p\n\
             127.20.64.1 job-0.job job-0.job.n job-0.job.n.svc job-0.job.n.svc.cluster.local\n\
             127.20.64.1 job job.n job.n.svc job.n.svc.cluster.local\n\
             127.20.64.2 job job.n job.n.svc job.n.svc.cluster.local",
        );
    }

    #[test]
    fn a_name_for_another_service_is_followed_and_one_for_the_world_left_out() {
        let named = |name: &str, external: &str| json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"type": "ExternalName", "externalName": external}});
        check(
            json!({}),
            json!([
                {"metadata": {"name": "web", "namespace": "m"}, "spec": {"clusterIP": "127.20.0.5"}},
                named("alias", "web.m.svc.cluster.local."),
                named("outside", "example.org"),
                named("round", "round.n.svc"),
            ]),
            json!([]),
            "",
            "127.20.64.9 p\n\
             127.20.0.5 web.m web.m.svc web.m.svc.cluster.local\n\
             127.20.0.5 alias alias.n alias.n.svc alias.n.svc.cluster.local",
        );
    }

    #[test]
    fn a_pods_machine_is_called_as_kubelets_would() {
        assert_eq!(machine_name(&pod(json!({}))), "p");
        assert_eq!(
            machine_name(&pod(json!({"hostname": "h", "subdomain": "s"}))),
            "h"
        );
        let full = json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true});
        assert_eq!(machine_name(&pod(full)), "h.s.n.svc.cluster.local");
        let long = json!({"hostname": format!("{}-b", "a".repeat(62))});
        assert_eq!(machine_name(&pod(long)), "a".repeat(62));
    }
}
