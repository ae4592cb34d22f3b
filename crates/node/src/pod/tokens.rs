//! Tokens of ServiceAccounts in a Pod's projected volumes: asked for when the Pod starts, and again before they expire.
//!
//! When a token was written is when its file was: a node that starts later goes on from there.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};

use super::{context::Context, volumes};

/// How long a token lasts that says nothing, in seconds; as in Kubernetes.
const LASTING: i64 = 3600;
/// The clock is looked at this often at least: it may have been set, or the machine have slept.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// The pause after a token could not be had.
const PAUSE: Duration = Duration::from_secs(10);

/// A token that a volume of a Pod asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wish {
    pub(crate) volume: String,
    /// Inside the volume.
    pub(crate) path: String,
    audience: Option<String>,
    seconds: i64,
    mode: Option<i32>,
}

/// Every token that the Pod's volumes ask for.
pub(crate) fn wishes(pod: &Pod) -> Vec<Wish> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.as_deref().unwrap_or_default());
    let mut found = Vec::new();
    for volume in volumes {
        let Some(projected) = &volume.projected else {
            continue;
        };
        for source in projected.sources.iter().flatten() {
            let Some(token) = &source.service_account_token else {
                continue;
            };
            found.push(Wish {
                volume: volume.name.clone(),
                path: token.path.clone(),
                audience: token.audience.clone().filter(|audience| !audience.is_empty()),
                seconds: token.expiration_seconds.unwrap_or(LASTING),
                mode: projected.default_mode,
            });
        }
    }
    found
}

/// Asks for a token.
pub(crate) async fn ask(client: &Client, pod: &Pod, wish: &Wish) -> Result<String, kube::Error> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let account = spec
        .and_then(|spec| spec.service_account_name.as_deref())
        .filter(|name| !name.is_empty())
        .unwrap_or("default");
    let api: Api<ServiceAccount> =
        Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or("default"));
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: wish.audience.iter().cloned().collect(),
            expiration_seconds: Some(wish.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: metadata.name.clone(),
                uid: metadata.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    let made = api
        .create_token_request(account, &PostParams::default(), &request)
        .await?;
    Ok(made.status.map(|status| status.token).unwrap_or_default())
}

/// Keeps the tokens of a Pod fresh, for as long as it is polled.
pub(crate) async fn keep_fresh(context: Arc<Context>, pod: Arc<Pod>) {
    let wishes = wishes(&pod);
    let folder = context.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    futures::future::join_all(wishes.iter().map(|wish| keep_one(&context, &pod, &folder, wish))).await;
}

async fn keep_one(context: &Context, pod: &Pod, folder: &Path, wish: &Wish) {
    let path = volumes::own_folder(folder, &wish.volume).join(&wish.path);
    loop {
        let left = until_renewal(age(&path).await, wish.seconds);
        if !left.is_zero() {
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            continue;
        }
        let renewed = match ask(&context.client, pod, wish).await {
            Ok(token) => write(wish, &path, token).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = renewed {
            tracing::warn!(
                pod.name = pod.metadata.name,
                error,
                "a Pod's token was not renewed: trying again"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// None when it was written at a time that is yet to come: the clock was set back.
async fn age(path: &Path) -> Option<Duration> {
    let written = tokio::fs::metadata(path).await.ok();
    match written.and_then(|metadata| metadata.modified().ok()) {
        Some(written) => SystemTime::now().duration_since(written).ok(),
        None => Some(Duration::ZERO),
    }
}

/// A token is replaced when a fifth of its time is left. One from a time yet to come is not valid until then.
fn until_renewal(age: Option<Duration>, seconds: i64) -> Duration {
    let lasting = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    age.map_or(Duration::ZERO, |age| (lasting * 4 / 5).saturating_sub(age))
}

/// Puts a new token in the place of the old one: who reads sees one of them whole.
async fn write(wish: &Wish, path: &Path, token: String) -> std::io::Result<()> {
    let (path, mode): (PathBuf, _) = (path.to_path_buf(), volumes::mode_of(wish.mode));
    let written = tokio::task::spawn_blocking(move || volumes::replace(&path, token.as_bytes(), mode));
    written.await.map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_after_four_fifths_of_its_time() {
        let left = |age, seconds| until_renewal(Some(Duration::from_secs(age)), seconds).as_secs();
        assert_eq!((left(0, 600), left(100, 600), left(900, 600)), (480, 380, 0));
    }

    #[tokio::test]
    async fn a_token_is_renewed_at_once_when_the_clock_was_set_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
        file.as_file().set_modified(tomorrow).unwrap();
        assert_eq!(until_renewal(age(file.path()).await, 3600), Duration::ZERO);
    }

    #[test]
    fn every_projected_token_is_found() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {"containers": [], "volumes": [
            {"name": "a", "emptyDir": {}},
            {"name": "b", "projected": {"defaultMode": 0o400, "sources": [
                {"serviceAccountToken": {"path": "token", "audience": "x", "expirationSeconds": 700}},
                {"serviceAccountToken": {"path": "other"}},
            ]}},
        ]}}))
        .unwrap();
        let found = wishes(&pod);
        let short: Vec<_> = found
            .iter()
            .map(|wish| (wish.path.as_str(), wish.audience.as_deref(), wish.seconds))
            .collect();
        assert_eq!(short, [("token", Some("x"), 700), ("other", None, 3600)]);
    }
}
