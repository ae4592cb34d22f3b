//! Rules of ConfigMaps and Secrets.

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use serde_json::Value;

use super::{Rules, check_data_keys, check_immutable, shape, syntax};
use crate::{object, validation::Problems};

pub(crate) const CONFIG_MAP: Rules = Rules {
    shape: shape::<ConfigMap>,
    check: check_config_map,
    check_change: |old, new, problems| check_immutable(old, new, &["data", "binaryData"], problems),
    ..Rules::NONE
};

pub(crate) const SECRET: Rules = Rules {
    shape: shape::<Secret>,
    default: default_secret,
    check: check_secret,
    check_change: check_secret_change,
    ..Rules::NONE
};

/// What the values of one object may come to.
const SIZE: usize = 1024 * 1024;

fn check_config_map(object: &Value, problems: &mut Problems) {
    check_data_keys(object, "data", problems);
    check_data_keys(object, "binaryData", problems);
    let mut size = 0;
    for (key, value) in syntax::map(object, "/binaryData") {
        if object.get("data").is_some_and(|data| data.get(key).is_some()) {
            let detail = "duplicate of key present in data";
            problems.invalid(format!("binaryData[{key}]"), key.as_str(), detail);
        }
        size += decoded(value);
    }
    let texts = syntax::map(object, "/data").map(|(_, value)| value.as_str().map_or(0, str::len));
    size += texts.sum::<usize>();
    if size > SIZE {
        problems.too_long("", SIZE);
    }
}

/// How many bytes the text stands for.
fn decoded(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    let padding = text.bytes().rev().take(2).filter(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// What secrets of each type must hold; where there are two, either.
const TYPES: [(&str, &[&str]); 4] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/basic-auth", &["username", "password"]),
];

fn check_secret(secret: &Value, problems: &mut Problems) {
    check_data_keys(secret, "data", problems);
    if syntax::map(secret, "/data")
        .map(|(_, value)| decoded(value))
        .sum::<usize>()
        > SIZE
    {
        problems.too_long("data", SIZE);
    }
    let has = |key: &str| secret.get("data").is_some_and(|data| data.get(key).is_some());
    let kind = object::text(secret, "/type");
    match kind {
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            let account = secret
                .pointer("/metadata/annotations")
                .and_then(|all| all.get(annotation))
                .and_then(Value::as_str);
            if account.is_none_or(str::is_empty) {
                problems.required(format!("metadata.annotations[{annotation}]"), "");
            }
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    problems.required(format!("data[{key}]"), "");
                }
            }
        }
        _ => {
            let needed = TYPES.iter().find(|(name, _)| *name == kind);
            let needed = needed.map_or(&[][..], |(_, keys)| *keys);
            if !needed.is_empty() && !needed.iter().any(|key| has(key)) {
                for key in needed {
                    problems.required(format!("data[{key}]"), "");
                }
            }
        }
    }
}

/// `stringData` is for writing only: it goes into `data`.
fn default_secret(secret: &mut Value) {
    let map = object::as_map(secret);
    if let Some(Value::Object(plain)) = map.shift_remove("stringData") {
        let data = object::as_map(
            map.entry("data")
                .or_insert_with(|| Value::Object(Default::default())),
        );
        for (key, value) in plain {
            let text = value.as_str().unwrap_or_default().as_bytes().to_vec();
            data.insert(key, serde_json::to_value(ByteString(text)).unwrap_or_default());
        }
    }
    object::default(map, "type", "Opaque");
}

fn check_secret_change(old: &Value, new: &Value, problems: &mut Problems) {
    if old.get("type") != new.get("type") {
        problems.invalid(
            "type",
            new.get("type").cloned().unwrap_or_default(),
            "field is immutable",
        );
    }
    check_immutable(old, new, &["data"], problems);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_data_of_a_secret_is_encoded() {
        let mut secret = json!({"data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}});
        default_secret(&mut secret);
        assert_eq!(
            secret,
            json!({"data": {"a": "eQ==", "b": "eg=="}, "type": "Opaque"})
        );
    }

    #[test]
    fn secrets_hold_what_their_type_needs() {
        for (secret, expected) in [
            (json!({"type": "Opaque"}), "[]"),
            (
                json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
                "data[tls.key]: Required value",
            ),
            (
                json!({"type": "kubernetes.io/basic-auth", "data": {"password": "eA=="}}),
                "[]",
            ),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                "metadata.annotations[kubernetes.io/service-account.name]: Required value",
            ),
        ] {
            let mut problems = Problems::default();
            check_secret(&secret, &mut problems);
            assert_eq!(problems.to_string(), expected);
        }
        let mut problems = Problems::default();
        check_config_map(&json!({"data": {"a": "x".repeat(SIZE + 1)}}), &mut problems);
        assert_eq!(
            problems.to_string(),
            ": Too long: may not be more than 1048576 bytes"
        );
    }

    #[test]
    fn an_immutable_object_keeps_its_data() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let mut problems = Problems::default();
        (CONFIG_MAP.check_change)(&old, &json!({"data": {"a": "2"}}), &mut problems);
        assert_eq!(
            problems.to_string(),
            "[immutable: Forbidden: field is immutable when `immutable` is set, \
             data: Forbidden: field is immutable when `immutable` is set]"
        );
    }
}
