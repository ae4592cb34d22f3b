//! Rules of PersistentVolumeClaims.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::{Rules, check_quantities, quantities, shape, syntax};
use crate::{
    object,
    validation::{self, Problems},
};

/// Ways to mount a volume.
pub(crate) const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

pub(crate) const RULES: Rules = Rules {
    shape: shape::<PersistentVolumeClaim>,
    default: default_spec,
    initial_status: Some(|_| json!({"phase": "Pending"})),
    check: |claim, problems| check_spec(claim, "spec", problems),
    check_change,
    ..Rules::NONE
};

/// Fills in what has a claim's spec under `spec`.
pub(crate) fn default_spec(claim: &mut Value) {
    quantities(claim, "/spec/resources/requests");
    quantities(claim, "/spec/resources/limits");
    let spec = object::section(claim, "spec");
    object::default(spec, "volumeMode", "Filesystem");
    // The newer name of a source follows the older one, as far as that goes.
    if let Some(source) = spec.get("dataSource").cloned() {
        object::default(spec, "dataSourceRef", source);
    }
}

/// Problems with what has a claim's spec under `spec`, which messages call `field`.
pub(crate) fn check_spec(claim: &Value, field: &str, problems: &mut Problems) {
    let modes = object::list(claim, "/spec/accessModes");
    let field_of = |name: &str| format!("{field}.{name}");
    if modes.is_empty() {
        problems.required(field_of("accessModes"), "at least 1 access mode is required");
    }
    check_modes(modes, &field_of("accessModes"), problems);
    if claim.pointer("/spec/resources/requests/storage").is_none() {
        problems.required(field_of("resources[storage]"), "");
    }
    check_quantities(
        claim,
        "/spec/resources/requests",
        &field_of("resources.requests"),
        problems,
    );
    if syntax::amount(claim.pointer("/spec/resources/requests"), "storage")
        .is_some_and(|amount| amount.quantity.milli() == 0)
    {
        let field = field_of("resources.requests[storage]");
        problems.invalid(field, "0", "must be greater than zero");
    }
    syntax::check_one_of(
        claim,
        "/spec/volumeMode",
        field_of("volumeMode"),
        &["Block", "Filesystem"],
        problems,
    );
    syntax::check_subdomain(
        claim,
        "/spec/storageClassName",
        field_of("storageClassName"),
        problems,
    );
}

/// Problems with a list of access modes.
pub(crate) fn check_modes(modes: &[Value], field: &str, problems: &mut Problems) {
    let modes = modes.iter().filter_map(Value::as_str).collect::<Vec<_>>();
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        problems.unsupported(field, mode, &ACCESS_MODES);
    }
    if modes.len() > 1 && modes.contains(&"ReadWriteOncePod") {
        problems.forbidden(field, "may not use ReadWriteOncePod with other access modes");
    }
}

const FIXED: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

fn check_change(old: &Value, new: &Value, problems: &mut Problems) {
    // A binder fills in the volume; more may be asked for; nothing else moves.
    let fixed = |claim: &Value| {
        let mut spec = claim.get("spec").cloned().unwrap_or_default();
        let spec_map = object::as_map(&mut spec);
        for free in ["volumeName", "volumeAttributesClassName"] {
            object::put(spec_map, free, None);
        }
        if let Some(Value::Object(resources)) = spec_map.get_mut("resources") {
            object::put(resources, "requests", None);
        }
        spec
    };
    let bound = object::text(old, "/spec/volumeName");
    let moved = !bound.is_empty() && bound != object::text(new, "/spec/volumeName");
    // A default that came later may still be filled in.
    let mut before = fixed(old);
    if bound.is_empty() && !syntax::is_set(old, "/spec/storageClassName") {
        let class = new.pointer("/spec/storageClassName").cloned();
        object::put(object::as_map(&mut before), "storageClassName", class);
    }
    if moved || before != fixed(new) {
        problems.forbidden("spec", FIXED);
        return;
    }
    let requests = |claim: &Value| claim.pointer("/spec/resources/requests").cloned();
    let (was, is) = (requests(old), requests(new));
    if was == is {
        return;
    }
    if object::text(old, "/status/phase") != "Bound" && bound.is_empty() {
        problems.forbidden("spec", FIXED);
        return;
    }
    let size = |requests: &Option<Value>| syntax::amount(requests.as_ref(), "storage");
    let has = old
        .pointer("/status/capacity")
        .and_then(|capacity| syntax::amount(Some(capacity), "storage"));
    if let (Some(was), Some(is)) = (size(&was), size(&is))
        && is.quantity < was.quantity
        && has.is_none_or(|has| is.quantity < has.quantity)
    {
        problems.forbidden(
            "spec.resources.requests.storage",
            "field can not be less than status.capacity",
        );
    }
}

/// Problems with the name of a claim that a Pod's template carries.
pub(crate) fn check_template_name(claim: &Value, field: &str, problems: &mut Problems) {
    let name = object::name(claim);
    if name.is_empty() {
        problems.required(format!("{field}.metadata.name"), "");
    } else if !validation::is_label(name) {
        problems.invalid(format!("{field}.metadata.name"), name, validation::LABEL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Value {
        let mut claim = json!({
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}},
        });
        default_spec(&mut claim);
        claim
    }

    fn changed(old: &Value, change: impl Fn(&mut Value)) -> String {
        let mut new = old.clone();
        change(&mut new);
        let mut problems = Problems::default();
        check_change(old, &new, &mut problems);
        problems.to_string()
    }

    #[test]
    fn a_claim_is_filled_in() {
        assert_eq!(
            claim()["spec"],
            json!({
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
                "volumeMode": "Filesystem",
            })
        );
    }

    #[test]
    fn only_a_bound_claim_grows_and_none_shrinks() {
        let mut bound = claim();
        bound["spec"]["volumeName"] = json!("v");
        bound["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        let resize = |to: &'static str| {
            move |claim: &mut Value| claim["spec"]["resources"]["requests"]["storage"] = json!(to)
        };
        assert_eq!(changed(&bound, resize("2Gi")), "[]");
        assert_eq!(
            changed(&bound, resize("1Mi")),
            "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
        );
        assert!(changed(&claim(), resize("2Gi")).starts_with("spec: Forbidden: spec is immutable"));
        assert_eq!(
            changed(&claim(), |new| new["spec"]["volumeName"] = json!("v")),
            "[]"
        );
        assert!(changed(&bound, |new| new["spec"]["volumeName"] = json!("w")).contains("immutable"));
        let reclass = |new: &mut Value| new["spec"]["storageClassName"] = json!("x");
        assert_eq!(changed(&claim(), reclass), "[]");
        assert!(changed(&bound, reclass).contains("immutable"));
    }
}
