//! What ServiceAccounts add to other objects: to a Pod its name, its token and its way to the
//! API, as the admission plugin of Kubernetes does; to a Secret of its type, a token that lives
//! as long as the Secret.

use coracle_store::resources::{self, GroupResource, Key, Resources};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Identity,
    tokens::{Claims, OfSecret, SECRET_ISSUER, secret_data},
    user::service_account_name,
};
use crate::{object, server::Call, status::Error};

/// Whom a Pod runs as that names nobody. Controllers make one in every namespace.
const DEFAULT: &str = "default";
/// The ConfigMap with the certificate that clients are to trust.
const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const SECRET_TYPE: &str = "kubernetes.io/service-account-token";

/// Changes a new object, otherwise ready to be stored.
pub(crate) async fn admit(call: &Call, new: &mut Value) -> Result<(), Error> {
    let kind = call.kind();
    match (&*kind.group, &*kind.plural) {
        ("", "pods") => admit_pod(call, new).await,
        ("", "secrets") if object::text(new, "/type") == SECRET_TYPE => fill_secret(call, new).await,
        _ => Ok(()),
    }
}

async fn admit_pod(call: &Call, pod: &mut Value) -> Result<(), Error> {
    let namespace = &call.target.namespace;
    let name = match object::text(pod, "/spec/serviceAccountName") {
        "" => object::text(pod, "/spec/serviceAccount"),
        name => name,
    };
    let name = if name.is_empty() { DEFAULT } else { name }.to_owned();
    let account = call
        .resources()
        .get(&key("serviceaccounts", namespace, &name))
        .await?;
    let account = match account {
        Some(account) => account.body.into_value(),
        // Its controller has not come to it yet.
        None if name == DEFAULT => json!({}),
        None => {
            return Err(Error::Forbidden {
                subject: call.kind().subject(object::name(pod)),
                why: format!(
                    "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
                ),
                cause: None,
            });
        }
    };
    equip(pod, &name, &account, Uuid::new_v4());
    Ok(())
}

/// Gives the Pod what its ServiceAccount has for it. The id names the volume.
fn equip(pod: &mut Value, name: &str, account: &Value, id: Uuid) {
    let spec = object::section(pod, "spec");
    spec.insert("serviceAccountName".to_owned(), name.into());
    spec.insert("serviceAccount".to_owned(), name.into());
    let has_pull_secrets = spec
        .get("imagePullSecrets")
        .and_then(Value::as_array)
        .is_some_and(|secrets| !secrets.is_empty());
    if let Some(secrets) = account.get("imagePullSecrets").filter(|_| !has_pull_secrets) {
        spec.insert("imagePullSecrets".to_owned(), secrets.clone());
    }
    let own = |object: Option<&Value>| object.and_then(Value::as_bool);
    let mounts = own(spec.get("automountServiceAccountToken"))
        .or_else(|| own(account.get("automountServiceAccountToken")))
        .unwrap_or(true);
    if !mounts {
        return;
    }
    let volumes = spec.get("volumes").and_then(Value::as_array);
    let existing = volumes.into_iter().flatten().find(|volume| {
        volume.get("projected").is_some() && object::text(volume, "/name").starts_with(VOLUME_PREFIX)
    });
    let existing = existing.map(|volume| object::text(volume, "/name").to_owned());
    let volume = existing.clone().unwrap_or_else(|| volume_name(id));
    let mut is_needed = false;
    for containers in ["initContainers", "containers"] {
        let Some(Value::Array(containers)) = spec.get_mut(containers) else {
            continue;
        };
        for container in containers.iter_mut().filter(|container| container.is_object()) {
            let mounts = object::list(container, "/volumeMounts").iter();
            if mounts
                .into_iter()
                .any(|mount| object::text(mount, "/mountPath") == MOUNT)
            {
                continue;
            }
            is_needed = true;
            let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT});
            push(object::as_map(container), "volumeMounts", mount);
        }
    }
    if is_needed && existing.is_none() {
        let projected = json!({
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": ROOT_CERTIFICATE, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
            "defaultMode": 0o644,
        });
        push(spec, "volumes", json!({"name": volume, "projected": projected}));
    }
}

fn push(map: &mut serde_json::Map<String, Value>, field: &str, item: Value) {
    match map.get_mut(field) {
        Some(Value::Array(items)) => items.push(item),
        _ => {
            map.insert(field.to_owned(), Value::Array(vec![item]));
        }
    }
}

/// `kube-api-access-` and five letters or digits that cannot be taken for a word.
fn volume_name(id: Uuid) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let letters = id.as_bytes().iter().take(5);
    let letters = letters.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
    format!("{VOLUME_PREFIX}{}", letters.collect::<String>())
}

/// Puts a token into a Secret that is for one.
async fn fill_secret(call: &Call, secret: &mut Value) -> Result<(), Error> {
    let namespace = &call.target.namespace;
    let account = secret
        .pointer("/metadata/annotations")
        .and_then(|all| all.get("kubernetes.io/service-account.name"))
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let found = call
        .resources()
        .get(&key("serviceaccounts", namespace, &account))
        .await?;
    // Without its ServiceAccount it stays empty; Kubernetes would delete it.
    let Some(found) = found else { return Ok(()) };
    let uid = object::uid(&found.body).to_owned();
    let claims = Claims {
        aud: Vec::new(),
        exp: None,
        iat: None,
        iss: SECRET_ISSUER.to_owned(),
        jti: String::new(),
        bound: None,
        nbf: None,
        sub: service_account_name(namespace, &account),
        of_secret: OfSecret {
            namespace: namespace.clone(),
            secret: object::name(secret).to_owned(),
            name: account,
            uid: uid.clone(),
        },
    };
    let identity = &call.server.identity;
    let token = identity.signer.sign(&claims);
    let token = token.map_err(|_| Error::Internal("a token could not be signed".to_owned()))?;
    let data = object::section(secret, "data");
    data.entry("token").or_insert_with(|| secret_data(&token));
    data.entry("namespace").or_insert_with(|| secret_data(namespace));
    if let Some(authority) = identity.authority_pem() {
        data.entry("ca.crt").or_insert_with(|| secret_data(authority));
    }
    let annotations = object::metadata(secret)
        .entry("annotations")
        .or_insert_with(|| json!({}));
    object::as_map(annotations).insert("kubernetes.io/service-account.uid".to_owned(), uid.into());
    Ok(())
}

fn key(plural: &str, namespace: &str, name: &str) -> Key {
    Key {
        resource: GroupResource::new("", plural),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// Makes the ServiceAccount that Pods of a namespace run as, unless it is there.
pub(crate) async fn make_default(
    resources: &Resources,
    namespace: &str,
    now: Timestamp,
) -> resources::Result<()> {
    let account = json!({
        "kind": "ServiceAccount",
        "apiVersion": "v1",
        "metadata": metadata(DEFAULT, namespace, now),
    });
    match resources
        .create(key("serviceaccounts", namespace, DEFAULT), account)
        .await
    {
        Ok(_) | Err(resources::Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn metadata(name: &str, namespace: &str, now: Timestamp) -> Value {
    json!({
        "name": name,
        "namespace": namespace,
        "uid": Uuid::now_v7().to_string(),
        "creationTimestamp": object::time(now),
    })
}

impl Identity {
    /// Puts the certificate that clients are to trust into the namespaces that are always there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn publish_authority(&self, resources: &Resources) -> resources::Result<()> {
        let Some(authority) = self.authority_pem() else {
            return Ok(());
        };
        for namespace in crate::rules::namespace::PERMANENT {
            let key = key("configmaps", namespace, ROOT_CERTIFICATE);
            let done = match resources.get(&key).await? {
                Some(there) if object::text(&there.body, "/data/ca.crt") == authority => continue,
                Some(there) => {
                    let mut changed = Value::clone(&there.body);
                    changed["data"] = json!({"ca.crt": authority});
                    resources.update(key, changed, there.revision).await.map(drop)
                }
                None => {
                    let map = json!({
                        "kind": "ConfigMap",
                        "apiVersion": "v1",
                        "metadata": metadata(ROOT_CERTIFICATE, namespace, Timestamp::now()),
                        "data": {"ca.crt": authority},
                    });
                    resources.create(key, map).await.map(drop)
                }
            };
            match done {
                Ok(()) | Err(resources::Error::AlreadyExists { .. } | resources::Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equipped(pod: Value, account: Value) -> Value {
        let mut pod = pod;
        equip(&mut pod, "builder", &account, Uuid::nil());
        pod
    }

    #[test]
    fn a_pod_is_given_a_token_and_the_way_to_the_api() {
        let pod = json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i", "volumeMounts": [
            {"name": "own", "mountPath": MOUNT},
        ]}]}});
        let pod = equipped(pod, json!({"imagePullSecrets": [{"name": "registry"}]}));
        let spec = &pod["spec"];
        assert_eq!(spec["serviceAccountName"], "builder");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "registry"}]));
        let volume = &spec["volumes"][0];
        assert_eq!(volume["name"], "kube-api-access-bbbbb");
        assert_eq!(
            volume["projected"]["sources"][0]["serviceAccountToken"]["path"],
            "token"
        );
        let mounts = &spec["containers"][0]["volumeMounts"];
        assert_eq!(mounts[0]["name"], volume["name"]);
        assert_eq!(
            spec["initContainers"][0]["volumeMounts"].as_array().map(Vec::len),
            Some(1)
        );
    }

    #[test]
    fn a_pod_or_its_account_may_do_without_a_token() {
        let pod = |own: Value| json!({"spec": {"containers": [{"name": "a"}], "automountServiceAccountToken": own}});
        let never = json!({"automountServiceAccountToken": false});
        for (own, account, expected) in [
            (json!(null), json!({}), true),
            (json!(false), json!({}), false),
            (json!(null), never.clone(), false),
            (json!(true), never, true),
        ] {
            let pod = equipped(pod(own.clone()), account);
            assert_eq!(pod.pointer("/spec/volumes").is_some(), expected, "{own}");
        }
    }
}
