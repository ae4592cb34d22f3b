//! What is filled into Pods and templates of Pods: kubernetes' `pkg/apis/core/v1/defaults.go`.

use coracle_api::quantity::Amount;
use serde_json::{Map, Value, json};

use super::{CONTAINERS, EPHEMERAL};
use crate::{
    object,
    rules::{each, quantities, syntax::default_zero},
};

/// Fills in a Pod.
pub(crate) fn pod(pod: &mut Value) {
    template(pod);
    for pointer in CONTAINERS {
        each(pod, pointer, |container| {
            request_up_to_limits(object::as_map(container));
        });
    }
    let spec = object::section(pod, "spec");
    object::default(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for pointer in CONTAINERS {
            each(pod, pointer, |container| {
                each(container, "/ports", |port| {
                    let number = port.get("containerPort").cloned().unwrap_or_default();
                    default_zero(object::as_map(port), "hostPort", number);
                });
            });
        }
    }
}

/// Fills in what has a Pod's spec under `spec`: a Pod, or the template of one.
pub(crate) fn template(template: &mut Value) {
    for pointer in CONTAINERS.into_iter().chain([EPHEMERAL]) {
        each(template, pointer, container);
    }
    each(template, "/spec/volumes", volume);
    let spec = object::section(template, "spec");
    default_zero(spec, "restartPolicy", "Always");
    object::default(spec, "terminationGracePeriodSeconds", 30);
    default_zero(spec, "dnsPolicy", "ClusterFirst");
    object::default(spec, "securityContext", json!({}));
    default_zero(spec, "schedulerName", "default-scheduler");
    // The old name of the field follows the new one.
    let account = ["serviceAccountName", "serviceAccount"]
        .into_iter()
        .find_map(|field| spec.get(field).filter(|name| *name != "").cloned());
    for field in ["serviceAccountName", "serviceAccount"] {
        object::put(spec, field, account.clone());
    }
    if let Some(Value::Object(overhead)) = spec.get_mut("overhead") {
        overhead.values_mut().for_each(canonical);
    }
}

fn container(container: &mut Value) {
    quantities(container, "/resources/limits");
    quantities(container, "/resources/requests");
    let policy = pull_policy(object::text(container, "/image"));
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(Value::Object(probe)) = container.get_mut(kind) {
            default_zero(probe, "timeoutSeconds", 1);
            default_zero(probe, "periodSeconds", 10);
            default_zero(probe, "successThreshold", 1);
            default_zero(probe, "failureThreshold", 3);
            handler(probe);
        }
    }
    for pointer in ["/lifecycle/postStart", "/lifecycle/preStop"] {
        if let Some(Value::Object(hook)) = container.pointer_mut(pointer) {
            handler(hook);
        }
    }
    each(container, "/ports", |port| {
        default_zero(object::as_map(port), "protocol", "TCP");
    });
    each(container, "/env", |variable| {
        if let Some(Value::Object(source)) = variable.get_mut("valueFrom") {
            downward(source);
        }
    });
    let container = object::as_map(container);
    default_zero(container, "imagePullPolicy", policy);
    default_zero(container, "terminationMessagePath", "/dev/termination-log");
    default_zero(container, "terminationMessagePolicy", "File");
    object::default(container, "resources", json!({}));
}

/// What is limited and not requested is requested up to the limit.
pub(crate) fn request_up_to_limits(container: &mut Map<String, Value>) {
    let resources = object::as_map(container.entry("resources").or_insert_with(|| json!({})));
    if let Some(Value::Object(limits)) = resources.get("limits").cloned() {
        let requests = object::as_map(resources.entry("requests").or_insert_with(|| json!({})));
        for (resource, amount) in limits {
            requests.entry(resource).or_insert(amount);
        }
    }
}

/// What a probe or a hook does.
fn handler(handler: &mut Map<String, Value>) {
    if let Some(Value::Object(get)) = handler.get_mut("httpGet") {
        default_zero(get, "path", "/");
        default_zero(get, "scheme", "HTTP");
    }
    if let Some(Value::Object(call)) = handler.get_mut("grpc") {
        object::default(call, "service", "");
    }
}

/// A reference to a field or a resource of the Pod.
fn downward(source: &mut Map<String, Value>) {
    if let Some(Value::Object(reference)) = source.get_mut("fieldRef") {
        default_zero(reference, "apiVersion", "v1");
    }
    if let Some(Value::Object(reference)) = source.get_mut("resourceFieldRef") {
        object::default(reference, "divisor", "0");
        if let Some(divisor) = reference.get_mut("divisor") {
            canonical(divisor);
        }
    }
}

pub(super) fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or_default();
    let is_pinned = last.contains('@') || last.split_once(':').is_some_and(|(_, tag)| tag != "latest");
    if is_pinned { "IfNotPresent" } else { "Always" }
}

fn volume(volume: &mut Value) {
    for pointer in ["/downwardAPI/items", "/projected/sources"] {
        each(volume, pointer, |item| {
            downward(object::as_map(item));
            each(item, "/downwardAPI/items", |item| downward(object::as_map(item)));
            if let Some(Value::Object(token)) = item.get_mut("serviceAccountToken") {
                object::default(token, "expirationSeconds", 3600);
            }
        });
    }
    if let Some(claim @ Value::Object(_)) = volume.pointer_mut("/ephemeral/volumeClaimTemplate") {
        crate::rules::claim::default_spec(claim);
    }
    let volume = object::as_map(volume);
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        if let Some(Value::Object(source)) = volume.get_mut(source) {
            object::default(source, "defaultMode", 0o644);
        }
    }
    if let Some(Value::Object(path)) = volume.get_mut("hostPath") {
        object::default(path, "type", "");
    }
    if let Some(limit) = volume
        .get_mut("emptyDir")
        .and_then(|folder| folder.get_mut("sizeLimit"))
    {
        canonical(limit);
    }
}

/// Writes a quantity as Kubernetes would; what is none stays as it is.
pub(crate) fn canonical(quantity: &mut Value) {
    let text = match quantity {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return,
    };
    match text.parse::<Amount>() {
        Ok(amount) => *quantity = amount.to_string().into(),
        Err(_) => *quantity = text.into(),
    }
}
