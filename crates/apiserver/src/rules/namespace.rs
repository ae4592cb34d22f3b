//! Rules of Namespaces.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use super::{Rules, shape};
use crate::{object, validation};

/// The finalizer in `spec.finalizers` that stands until the namespace is empty.
pub(crate) const FINALIZER: &str = "kubernetes";

/// Namespaces that are always there.
pub(crate) const PERMANENT: [&str; 2] = ["default", "kube-system"];

pub(crate) const RULES: Rules = Rules {
    shape: shape::<Namespace>,
    default,
    initial_status: Some(|_| json!({"phase": "Active"})),
    protection: |name| {
        PERMANENT
            .contains(&name)
            .then_some("this namespace may not be deleted")
    },
    on_delete: |namespace| {
        object::section(namespace, "status").insert("phase".to_owned(), "Terminating".into());
    },
    is_held: |namespace| !object::list(namespace, "/spec/finalizers").is_empty(),
    name_problem: |name| (!validation::is_label(name)).then_some(validation::LABEL),
    ..Rules::NONE
};

fn default(namespace: &mut Value) {
    let name = object::name(namespace).to_owned();
    if !name.is_empty() {
        let labels = object::metadata(namespace)
            .entry("labels")
            .or_insert_with(|| json!({}));
        object::as_map(labels).insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
    if !object::is_terminating(namespace) {
        object::default(
            object::section(namespace, "spec"),
            "finalizers",
            json!([FINALIZER]),
        );
    }
}
