//! Rules of ConfigMaps and Secrets.

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use serde_json::Value;

use super::{Rules, check_data_keys, check_immutable, shape};
use crate::{object, validation::Problems};

pub(crate) const CONFIG_MAP: Rules = Rules {
    shape: shape::<ConfigMap>,
    check: |object, problems| {
        check_data_keys(object, "data", problems);
        check_data_keys(object, "binaryData", problems);
    },
    check_change: |old, new, problems| check_immutable(old, new, &["data", "binaryData"], problems),
    ..Rules::NONE
};

pub(crate) const SECRET: Rules = Rules {
    shape: shape::<Secret>,
    default: default_secret,
    check: |object, problems| check_data_keys(object, "data", problems),
    check_change: check_secret_change,
    ..Rules::NONE
};

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
