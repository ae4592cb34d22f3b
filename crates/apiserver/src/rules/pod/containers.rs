//! What is wrong with the containers of a Pod: kubernetes' `pkg/apis/core/validation`.

use serde_json::Value;

use super::resources;
use crate::{
    object,
    rules::{check_names, syntax},
    validation::{self, Problems},
};

/// Which list a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Init,
    Main,
}

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const VARIABLE: &str = "a valid environment variable name must consist only of printable ASCII characters other \
     than '='";
/// What an environment variable may read of its Pod.
const FIELDS: [&str; 10] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "spec.restartPolicy",
];

/// Problems with all containers of the spec that `field` names. `mountable` are names of volumes
/// that are not in the spec.
pub(super) fn check(spec: &Value, field: &str, mountable: &[&str], problems: &mut Problems) {
    let lists = [(Role::Main, "containers"), (Role::Init, "initContainers")];
    if object::list(spec, "/containers").is_empty() {
        problems.required(format!("{field}.containers"), "");
    }
    for (role, list) in lists {
        let containers = object::list(spec, &format!("/{list}"));
        let field = format!("{field}.{list}");
        check_names(containers, &field, problems);
        for (index, container) in containers.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let name = object::text(container, "/name");
            let is_taken = |other: &Value| object::text(other, "/name") == name;
            if role == Role::Init && object::list(spec, "/containers").iter().any(is_taken) {
                problems.duplicate(format!("{field}.name"), name);
            }
            check_one(container, &field, role, spec, mountable, problems);
        }
    }
    check_host_ports(spec, field, problems);
}

fn check_one(
    container: &Value,
    field: &str,
    role: Role,
    spec: &Value,
    mountable: &[&str],
    problems: &mut Problems,
) {
    let image = object::text(container, "/image");
    if image.is_empty() {
        problems.required(format!("{field}.image"), "");
    } else if image.trim() != image {
        let field = format!("{field}.image");
        problems.invalid(field, image, "must not have leading or trailing whitespace");
    }
    let at = |name: &str| format!("{field}.{name}");
    syntax::check_one_of(
        container,
        "/terminationMessagePolicy",
        at("terminationMessagePolicy"),
        &["FallbackToLogsOnError", "File"],
        problems,
    );
    syntax::check_one_of(
        container,
        "/imagePullPolicy",
        at("imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
        problems,
    );
    check_restart(container, field, role, problems);
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = object::at(container, &format!("/lifecycle/{hook}")) {
            let known: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];
            check_handler(handler, known, &format!("{field}.lifecycle.{hook}"), problems);
        }
    }
    for kind in PROBES {
        if let Some(probe) = container.get(kind) {
            check_probe(probe, kind, &at(kind), problems);
        }
    }
    check_ports(object::list(container, "/ports"), &at("ports"), problems);
    for (index, variable) in object::list(container, "/env").iter().enumerate() {
        check_variable(variable, &format!("{field}.env[{index}]"), problems);
    }
    for (index, source) in object::list(container, "/envFrom").iter().enumerate() {
        check_variables(source, &format!("{field}.envFrom[{index}]"), problems);
    }
    let mounts = object::list(container, "/volumeMounts");
    check_mounts(mounts, &at("volumeMounts"), spec, mountable, problems);
    resources::check(container, field, problems);
    check_security(container, &at("securityContext"), problems);
}

fn check_security(container: &Value, field: &str, problems: &mut Problems) {
    for name in ["runAsUser", "runAsGroup"] {
        let pointer = format!("/securityContext/{name}");
        if let Some(id) = object::at(container, &pointer).and_then(Value::as_i64)
            && !(0..=i64::from(i32::MAX)).contains(&id)
        {
            let field = format!("{field}.{name}");
            problems.invalid(field, id, "must be between 0 and 2147483647, inclusive");
        }
    }
    let flag = |name: &str| object::at(container, &format!("/securityContext/{name}"));
    if flag("allowPrivilegeEscalation") == Some(&Value::Bool(false))
        && flag("privileged") == Some(&Value::Bool(true))
    {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        let context = container.get("securityContext").cloned().unwrap_or_default();
        problems.invalid(field, context, detail);
    }
}

/// Only containers that run beside the others have probes, hooks, and say when to begin anew.
fn check_restart(container: &Value, field: &str, role: Role, problems: &mut Problems) {
    let policy = container.get("restartPolicy").and_then(Value::as_str);
    if role == Role::Main {
        if policy.is_some() {
            let field = format!("{field}.restartPolicy");
            problems.forbidden(field, "may not be set for non-init containers");
        }
        return;
    }
    match policy {
        Some("Always") => return,
        None => {}
        Some(other) => problems.unsupported(format!("{field}.restartPolicy"), other, &["Always"]),
    }
    for part in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.get(part).is_some_and(|part| !part.is_null()) {
            let detail = "may not be set for init containers without restartPolicy=Always";
            problems.forbidden(format!("{field}.{part}"), detail);
        }
    }
}

fn check_probe(probe: &Value, kind: &str, field: &str, problems: &mut Problems) {
    check_handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], field, problems);
    for number in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        let name = format!("{field}.{number}");
        syntax::check_not_negative(probe, &format!("/{number}"), name, problems);
    }
    let needed = object::number(probe, "/successThreshold");
    if kind != "readinessProbe" && needed != 1 && syntax::is_set(probe, "/successThreshold") {
        problems.invalid(format!("{field}.successThreshold"), needed, "must be 1");
    }
    if let Some(grace) = probe.get("terminationGracePeriodSeconds").and_then(Value::as_i64) {
        let field = format!("{field}.terminationGracePeriodSeconds");
        if kind == "readinessProbe" {
            problems.invalid(field, grace, "must not be set for readinessProbes");
        } else if grace <= 0 {
            problems.invalid(field, grace, "must be greater than 0");
        }
    }
}

/// One of the things that probes and hooks do, and only one.
fn check_handler(handler: &Value, known: &[&str], field: &str, problems: &mut Problems) {
    let given = known
        .iter()
        .filter(|known| handler.get(**known).is_some_and(|value| !value.is_null()));
    for (index, kind) in given.clone().enumerate() {
        let field = format!("{field}.{kind}");
        if index > 0 {
            problems.forbidden(field, "may not specify more than 1 handler type");
            continue;
        }
        let action = handler.get(*kind).unwrap_or(&Value::Null);
        match *kind {
            "exec" if object::list(action, "/command").is_empty() => {
                problems.required(format!("{field}.command"), "");
            }
            "httpGet" => {
                if object::text(action, "/path").is_empty() {
                    problems.required(format!("{field}.path"), "");
                }
                check_handler_port(action, &field, problems);
                let scheme = format!("{field}.scheme");
                syntax::check_one_of(action, "/scheme", scheme, &["HTTP", "HTTPS"], problems);
            }
            "tcpSocket" | "grpc" => check_handler_port(action, &field, problems),
            _ => {}
        }
    }
    if given.count() == 0 {
        problems.required(field, "must specify a handler type");
    }
}

fn check_handler_port(action: &Value, field: &str, problems: &mut Problems) {
    let port = action.get("port").unwrap_or(&Value::Null);
    syntax::check_port_or_name(&format!("{field}.port"), port, problems);
}

fn check_ports(ports: &[Value], field: &str, problems: &mut Problems) {
    for (index, port) in ports.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let name = object::text(port, "/name");
        if !name.is_empty() {
            let wrong = syntax::port_name_problems(name);
            let is_twice = ports[..index]
                .iter()
                .any(|other| object::text(other, "/name") == name);
            if wrong.is_empty() && is_twice {
                problems.duplicate(format!("{field}.name"), name);
            }
            for problem in wrong {
                problems.invalid(format!("{field}.name"), name, problem);
            }
        }
        match object::number(port, "/containerPort") {
            0 => problems.required(format!("{field}.containerPort"), ""),
            number => syntax::check_port(format!("{field}.containerPort"), number, problems),
        }
        match object::number(port, "/hostPort") {
            0 => {}
            number => syntax::check_port(format!("{field}.hostPort"), number, problems),
        }
        let protocol = format!("{field}.protocol");
        syntax::check_one_of(port, "/protocol", protocol, &["SCTP", "TCP", "UDP"], problems);
    }
}

/// A port of the machine belongs to one container.
fn check_host_ports(spec: &Value, field: &str, problems: &mut Problems) {
    let on_host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    let mut taken = Vec::new();
    for (at, container) in object::list(spec, "/containers").iter().enumerate() {
        for (index, port) in object::list(container, "/ports").iter().enumerate() {
            let number = object::number(port, "/hostPort");
            let field = format!("{field}.containers[{at}].ports[{index}]");
            if number == 0 {
                continue;
            }
            if on_host && number != object::number(port, "/containerPort") {
                let detail = "must match `hostPort` when `hostNetwork` is true";
                let container_port = object::number(port, "/containerPort");
                problems.invalid(format!("{field}.containerPort"), container_port, detail);
            }
            let mine = format!(
                "{}/{}/{number}",
                object::text(port, "/hostIP"),
                object::text(port, "/protocol")
            );
            if taken.contains(&mine) {
                problems.duplicate(format!("{field}.hostPort"), &mine);
            }
            taken.push(mine);
        }
    }
}

fn is_variable(name: &str) -> bool {
    name.bytes()
        .all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'=')
}

fn check_variable(variable: &Value, field: &str, problems: &mut Problems) {
    let name = object::text(variable, "/name");
    if name.is_empty() {
        problems.required(format!("{field}.name"), "");
    } else if !is_variable(name) {
        problems.invalid(format!("{field}.name"), name, VARIABLE);
    }
    let Some(source) = variable.get("valueFrom").filter(|source| !source.is_null()) else {
        return;
    };
    let field = format!("{field}.valueFrom");
    let kinds = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ];
    let given = kinds
        .iter()
        .filter(|kind| source.get(**kind).is_some_and(|v| !v.is_null()));
    for kind in given.clone() {
        let reference = source.get(*kind).unwrap_or(&Value::Null);
        let field = format!("{field}.{kind}");
        match *kind {
            "fieldRef" => check_field_reference(reference, &field, problems),
            "resourceFieldRef" if object::text(reference, "/resource").is_empty() => {
                problems.required(format!("{field}.resource"), "");
            }
            "configMapKeyRef" | "secretKeyRef" => {
                if object::text(reference, "/name").is_empty() {
                    problems.required(format!("{field}.name"), "");
                }
                if object::text(reference, "/key").is_empty() {
                    problems.required(format!("{field}.key"), "");
                }
            }
            _ => {}
        }
    }
    match given.count() {
        0 => {
            let detail =
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            problems.invalid(field, "", detail);
        }
        _ if !object::text(variable, "/value").is_empty() => {
            problems.invalid(field, "", "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => problems.invalid(field, "", "may not have more than one field specified at a time"),
    }
}

fn check_field_reference(reference: &Value, field: &str, problems: &mut Problems) {
    let path = object::text(reference, "/fieldPath");
    let is_keyed = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .any(|start| path.starts_with(start) && path.ends_with("']"));
    if path.is_empty() {
        problems.required(format!("{field}.fieldPath"), "");
    } else if !is_keyed && !FIELDS.contains(&path) {
        let detail = format!("error converting fieldPath: field label not supported: {path}");
        problems.invalid(format!("{field}.fieldPath"), path, &detail);
    }
}

fn check_variables(source: &Value, field: &str, problems: &mut Problems) {
    let prefix = object::text(source, "/prefix");
    if !is_variable(prefix) {
        problems.invalid(format!("{field}.prefix"), prefix, VARIABLE);
    }
    let kinds = ["configMapRef", "secretRef"];
    let given = kinds.iter().filter(|kind| source.get(**kind).is_some());
    for kind in given.clone() {
        let name = object::text(source, &format!("/{kind}/name"));
        if name.is_empty() {
            problems.required(format!("{field}.{kind}.name"), "");
        } else if !validation::is_subdomain(name) {
            problems.invalid(format!("{field}.{kind}.name"), name, validation::SUBDOMAIN);
        }
    }
    match given.count() {
        0 => problems.invalid(field, "", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => problems.invalid(field, "", "may not have more than one field specified at a time"),
    }
}

fn check_mounts(mounts: &[Value], field: &str, spec: &Value, mountable: &[&str], problems: &mut Problems) {
    let volumes = object::list(spec, "/volumes");
    for (index, mount) in mounts.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let name = object::text(mount, "/name");
        let is_there =
            mountable.contains(&name) || volumes.iter().any(|volume| object::text(volume, "/name") == name);
        if name.is_empty() {
            problems.required(format!("{field}.name"), "");
        } else if !is_there {
            problems.not_found(format!("{field}.name"), name);
        }
        let path = object::text(mount, "/mountPath");
        if path.is_empty() {
            problems.required(format!("{field}.mountPath"), "");
        } else if mounts[..index]
            .iter()
            .any(|other| object::text(other, "/mountPath") == path)
        {
            problems.invalid(format!("{field}.mountPath"), path, "must be unique");
        }
        let inner = ["subPath", "subPathExpr"].map(|kind| (kind, object::text(mount, &format!("/{kind}"))));
        for (kind, path) in inner.iter().filter(|(_, path)| !path.is_empty()) {
            syntax::check_relative_path(format!("{field}.{kind}"), path, problems);
        }
        if inner.iter().all(|(_, path)| !path.is_empty()) {
            let detail = "subPathExpr and subPath are mutually exclusive";
            problems.invalid(format!("{field}.subPathExpr"), inner[1].1, detail);
        }
    }
}
