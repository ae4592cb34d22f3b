//! Who we are to a registry, from the files and Secrets that `docker login` makes. Pure.

use std::path::PathBuf;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bollard::auth::DockerCredentials;
use serde_json::Value;

/// What Docker Hub is called in such files.
const HUB: &str = "https://index.docker.io/v1/";

/// The credentials that `config` (a `config.json` of Docker, or a Secret of type `kubernetes.io/dockerconfigjson`) has
/// for the registry of `image`.
pub(crate) fn find(config: &Value, image: &str) -> Option<DockerCredentials> {
    let registry = registry(image);
    let (server, entry) = config
        .get("auths")?
        .as_object()?
        .iter()
        .filter(|(server, _)| host(server) == registry)
        // The most exact one.
        .max_by_key(|(server, _)| server.len())?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let (mut username, mut password) = (text("username"), text("password"));
    if let Some(both) = text("auth").and_then(|auth| decode(&auth)) {
        (username, password) = both;
    }
    let identitytoken = text("identitytoken");
    if username.is_none() && identitytoken.is_none() {
        return None;
    }
    Some(DockerCredentials {
        username,
        password,
        identitytoken,
        serveraddress: Some(server.clone()),
        ..DockerCredentials::default()
    })
}

/// Where Docker and Podman keep them for this machine's user, the most wanted first.
pub(crate) fn files(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let below = |name: &str, rest: &str| Some(PathBuf::from(variable(name)?).join(rest));
    [
        variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
        below("DOCKER_CONFIG", "config.json"),
        below("XDG_RUNTIME_DIR", "containers/auth.json"),
        below("HOME", ".docker/config.json"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The host of an image's registry, with its port.
pub(crate) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((name, _)) if name.contains(['.', ':']) || name == "localhost" => host(name),
        _ => host(HUB),
    }
}

fn host(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    match host {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        host => host,
    }
}

/// `user:password` in base64.
fn decode(auth: &str) -> Option<(Option<String>, Option<String>)> {
    let both = String::from_utf8(BASE64_STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = both.split_once(':')?;
    Some((
        Some(user.to_owned()),
        Some(password.trim_end_matches('\0').to_owned()),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_registry_has_its_own() {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3OjE="},
            "ghcr.io": {"username": "u", "password": "p"},
            "registry.example:5000/team": {"identitytoken": "t"},
            "empty.example": {},
        }});
        let who = |image: &str| {
            let found = find(&config, image)?;
            Some(format!(
                "{} {} {}",
                found.username.unwrap_or_default(),
                found.password.unwrap_or_default(),
                found.identitytoken.unwrap_or_default()
            ))
        };
        for image in ["busybox", "team/x:1", "docker.io/library/busybox"] {
            assert_eq!(who(image).as_deref(), Some("hub pw:1 "), "{image}");
        }
        assert_eq!(who("ghcr.io/a/b@sha256:1").as_deref(), Some("u p "));
        assert_eq!(who("registry.example:5000/a").as_deref(), Some("  t"));
        assert_eq!(who("registry.example/a"), None);
        assert_eq!(who("empty.example/a"), None);
    }
}
