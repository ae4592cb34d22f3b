//! The ConfigMaps, Secrets and claims that a Pod refers to.
//!
//! Which they are is read off the Pod (pure); they are fetched each time a container starts, as kubelets do.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Api, Client};

use crate::claims;

/// One object in the Pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reference {
    ConfigMap(String),
    Secret(String),
    Claim(String),
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ConfigMap(name) => write!(f, "ConfigMap `{name}`"),
            Self::Secret(name) => write!(f, "Secret `{name}`"),
            Self::Claim(name) => write!(f, "PersistentVolumeClaim `{name}`"),
        }
    }
}

/// What a Pod needs and is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The object that is missing, or that has not what is asked for.
    pub(crate) object: Reference,
    /// What about it.
    pub(crate) lack: Lack,
}

/// What is missing of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lack {
    /// All of it.
    Object,
    /// A key of it.
    Key(String),
    /// The folder behind it.
    Folder,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.lack {
            Lack::Object => write!(f, "{} does not exist", self.object),
            Lack::Key(key) => write!(f, "{} has no key `{key}`", self.object),
            Lack::Folder => write!(f, "{} is not bound yet", self.object),
        }
    }
}

/// What was found of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Objects {
    config_maps: BTreeMap<String, ConfigMap>,
    secrets: BTreeMap<String, Secret>,
    claims: BTreeMap<String, PersistentVolumeClaim>,
    /// By volume and path.
    tokens: BTreeMap<(String, String), String>,
}

impl Objects {
    /// With the token that a file of a volume holds.
    pub(crate) fn put_token(&mut self, volume: &str, path: &str, token: String) {
        self.tokens.insert((volume.to_owned(), path.to_owned()), token);
    }

    /// The token that a file of a volume holds.
    pub(crate) fn token(&self, volume: &str, path: &str) -> Option<&str> {
        let key = (volume.to_owned(), path.to_owned());
        self.tokens.get(&key).map(String::as_str)
    }

    /// Fetches those of `references` that exist.
    pub(crate) async fn fetch(
        client: &Client,
        namespace: &str,
        references: &BTreeSet<Reference>,
    ) -> Result<Self, kube::Error> {
        let mut objects = Self::default();
        for reference in references {
            match reference {
                Reference::ConfigMap(name) => {
                    let found = Api::namespaced(client.clone(), namespace).get_opt(name).await?;
                    objects
                        .config_maps
                        .extend(found.map(|object| (name.clone(), object)));
                }
                Reference::Secret(name) => {
                    let found = Api::namespaced(client.clone(), namespace).get_opt(name).await?;
                    objects.secrets.extend(found.map(|object| (name.clone(), object)));
                }
                Reference::Claim(name) => {
                    let found = Api::namespaced(client.clone(), namespace).get_opt(name).await?;
                    objects.claims.extend(found.map(|object| (name.clone(), object)));
                }
            }
        }
        Ok(objects)
    }

    /// The version of an object as fetched, to tell when it has changed.
    pub(crate) fn version(&self, reference: &Reference) -> Option<&str> {
        let metadata = match reference {
            Reference::ConfigMap(name) => &self.config_maps.get(name)?.metadata,
            Reference::Secret(name) => &self.secrets.get(name)?.metadata,
            Reference::Claim(name) => &self.claims.get(name)?.metadata,
        };
        metadata.resource_version.as_deref()
    }

    /// All values of a ConfigMap or Secret.
    pub(crate) fn values(&self, object: &Reference) -> Result<BTreeMap<&str, &[u8]>, Missing> {
        let found: Option<BTreeMap<&str, &[u8]>> = match object {
            Reference::ConfigMap(name) => self.config_maps.get(name).map(|map| {
                let texts = map
                    .data
                    .iter()
                    .flatten()
                    .map(|(key, text)| (key.as_str(), text.as_bytes()));
                let binaries = map.binary_data.iter().flatten();
                texts
                    .chain(binaries.map(|(key, bytes)| (key.as_str(), bytes.0.as_slice())))
                    .collect()
            }),
            Reference::Secret(name) => self.secrets.get(name).map(|secret| {
                let data = secret.data.iter().flatten();
                let texts = secret.string_data.iter().flatten();
                data.map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()))
                    .chain(texts.map(|(key, text)| (key.as_str(), text.as_bytes())))
                    .collect()
            }),
            Reference::Claim(_) => None,
        };
        found.ok_or_else(|| Missing {
            object: object.clone(),
            lack: Lack::Object,
        })
    }

    /// One value of a ConfigMap or Secret.
    pub(crate) fn value(&self, object: &Reference, key: &str) -> Result<&[u8], Missing> {
        self.values(object)?.get(key).copied().ok_or_else(|| Missing {
            object: object.clone(),
            lack: Lack::Key(key.to_owned()),
        })
    }

    /// A claim that is bound.
    pub(crate) fn claim(&self, name: &str) -> Result<&PersistentVolumeClaim, Missing> {
        let missing = |lack| Missing {
            object: Reference::Claim(name.to_owned()),
            lack,
        };
        let claim = self.claims.get(name).ok_or_else(|| missing(Lack::Object))?;
        if claims::is_bound(claim) {
            Ok(claim)
        } else {
            Err(missing(Lack::Folder))
        }
    }
}

#[cfg(test)]
impl Objects {
    pub(crate) fn with_config_map(mut self, name: &str, values: &[(&str, &str)]) -> Self {
        let data = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        self.config_maps.insert(
            name.to_owned(),
            ConfigMap {
                data: Some(data),
                ..ConfigMap::default()
            },
        );
        self
    }

    pub(crate) fn with_secret(mut self, name: &str, values: &[(&str, &str)]) -> Self {
        let data = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        self.secrets.insert(
            name.to_owned(),
            Secret {
                string_data: Some(data),
                ..Secret::default()
            },
        );
        self
    }
}

/// The name of the claim behind a generic ephemeral volume, as in Kubernetes.
pub(crate) fn ephemeral_claim(pod: &Pod, volume: &Volume) -> Option<String> {
    volume.ephemeral.as_ref()?;
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    Some(format!("{pod}-{}", volume.name))
}

/// The claims behind a Pod's generic ephemeral volumes, which go with the Pod.
pub(crate) fn ephemeral_claims(pod: &Pod) -> Vec<PersistentVolumeClaim> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.as_deref().unwrap_or_default());
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    volumes
        .filter_map(|volume| {
            let name = ephemeral_claim(pod, volume)?;
            let template = volume.ephemeral.as_ref()?.volume_claim_template.clone()?;
            Some(PersistentVolumeClaim {
                metadata: ObjectMeta {
                    name: Some(name),
                    namespace: pod.metadata.namespace.clone(),
                    owner_references: Some(vec![owner.clone()]),
                    ..template.metadata.unwrap_or_default()
                },
                spec: Some(template.spec),
                status: None,
            })
        })
        .collect()
}

/// Everything that a Pod refers to, whether it may be missing or not.
pub(crate) fn references(pod: &Pod) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    let Some(spec) = &pod.spec else { return found };
    for container in spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
    {
        for variable in container.env.iter().flatten() {
            let Some(source) = &variable.value_from else {
                continue;
            };
            found.extend(
                source
                    .config_map_key_ref
                    .iter()
                    .map(|from| Reference::ConfigMap(from.name.clone())),
            );
            found.extend(
                source
                    .secret_key_ref
                    .iter()
                    .map(|from| Reference::Secret(from.name.clone())),
            );
        }
        for source in container.env_from.iter().flatten() {
            found.extend(
                source
                    .config_map_ref
                    .iter()
                    .map(|from| Reference::ConfigMap(from.name.clone())),
            );
            found.extend(
                source
                    .secret_ref
                    .iter()
                    .map(|from| Reference::Secret(from.name.clone())),
            );
        }
    }
    for volume in spec.volumes.iter().flatten() {
        found.extend(
            volume
                .config_map
                .iter()
                .map(|from| Reference::ConfigMap(from.name.clone())),
        );
        found.extend(
            volume
                .secret
                .iter()
                .filter_map(|from| from.secret_name.clone())
                .map(Reference::Secret),
        );
        found.extend(
            volume
                .persistent_volume_claim
                .iter()
                .map(|from| Reference::Claim(from.claim_name.clone())),
        );
        found.extend(ephemeral_claim(pod, volume).map(Reference::Claim));
        for source in volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten())
        {
            found.extend(
                source
                    .config_map
                    .iter()
                    .map(|from| Reference::ConfigMap(from.name.clone())),
            );
            found.extend(
                source
                    .secret
                    .iter()
                    .map(|from| Reference::Secret(from.name.clone())),
            );
        }
    }
    found
}

/// Waits until an object appears, or is no longer of the version that was found wanting.
pub(crate) async fn changed(
    client: &Client,
    namespace: &str,
    object: &Reference,
    seen: Option<&str>,
) -> Result<(), kube::runtime::wait::Error> {
    async fn until_other<K>(
        api: Api<K>,
        name: &str,
        seen: Option<&str>,
    ) -> Result<(), kube::runtime::wait::Error>
    where
        K: kube::Resource + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + 'static,
    {
        let is_other = |object: Option<&K>| {
            object.is_some_and(|object| object.meta().resource_version.as_deref() != seen)
        };
        kube::runtime::wait::await_condition(api, name, is_other)
            .await
            .map(drop)
    }
    match object {
        Reference::ConfigMap(name) => {
            until_other(
                Api::<ConfigMap>::namespaced(client.clone(), namespace),
                name,
                seen,
            )
            .await
        }
        Reference::Secret(name) => {
            until_other(Api::<Secret>::namespaced(client.clone(), namespace), name, seen).await
        }
        Reference::Claim(name) => {
            let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
            until_other(api, name, seen).await
        }
    }
}
