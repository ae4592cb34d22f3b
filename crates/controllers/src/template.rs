//! Pods from templates, and names that are functions of what they are for.

use k8s_openapi::{
    api::core::v1::{Pod, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// The characters of made names, as in Kubernetes: no vowels, so no words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// The length of what is added to a name to make it unique.
const SUFFIX: usize = 5;
/// The longest name to which a suffix is added.
const LONGEST_PREFIX: usize = 63 - SUFFIX;

/// The digest of the parts, in hexadecimal.
pub(crate) fn digest(parts: &[&str]) -> String {
    bytes(parts).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().into()
}

fn letters(bytes: &[u8; 32], count: usize) -> String {
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]);
    bytes.iter().take(count).map(letter).collect()
}

/// A name of the prefix and a suffix that the parts determine.
pub(crate) fn name(prefix: &str, parts: &[&str]) -> String {
    let prefix = cut(prefix, LONGEST_PREFIX);
    format!("{prefix}{}", letters(&bytes(parts), SUFFIX))
}

/// The text, cut to so many bytes.
pub(crate) fn cut(text: &str, length: usize) -> &str {
    let end = (0..=length.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// What tells revisions of a template apart. `collisions` makes another one of the same template.
pub(crate) fn hash(template: &impl Serialize, collisions: i32) -> String {
    // What the API sent can be written again.
    let text = serde_json::to_string(template).unwrap_or_default();
    let collisions = if collisions == 0 {
        String::new()
    } else {
        collisions.to_string()
    };
    letters(&bytes(&[&text, &collisions]), 10)
}

/// The reference that makes `owner` the controller of what carries it.
pub(crate) fn controlled_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        block_owner_deletion: Some(true),
        // What the API sent has name and uid.
        ..owner.controller_owner_ref(&()).unwrap_or_default()
    }
}

/// A Pod of the template that `owner` controls.
pub(crate) fn pod<K>(template: &PodTemplateSpec, owner: &K, name: String) -> Pod
where
    K: Resource<DynamicType = ()>,
{
    let given = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: owner.meta().namespace.clone(),
            labels: given.labels,
            annotations: given.annotations,
            finalizers: given.finalizers,
            owner_references: Some(vec![controlled_by(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_functions_of_their_parts_and_never_too_long() {
        let long = "x".repeat(100);
        assert_eq!(name("job-", &["uid", "1"]), name("job-", &["uid", "1"]));
        assert_ne!(name("job-", &["uid", "1"]), name("job-", &["uid", "2"]));
        assert_ne!(name("job-", &["ab", "c"]), name("job-", &["a", "bc"]));
        assert_eq!(name(&long, &["1"]).len(), 63);
        assert_eq!(cut("añb", 2), "a");
    }
}
