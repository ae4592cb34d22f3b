//! The engine of this machine: where it listens, and whether it answers.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker};
use coracle_api::reason::chain;
use parking_lot::Mutex;

use super::image::Pulls;

/// How long an answer may take that is no stream, in seconds.
const PATIENCE: u64 = 120;
/// How long an engine may take to say that it is there.
const GREETING: Duration = Duration::from_secs(5);

/// An engine that answered.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) docker: Docker,
    pub(crate) socket: PathBuf,
    /// `docker` or `podman`: what container ids begin with.
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) pulls: Arc<Pulls>,
}

/// Why there is no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no container engine answers ({})", .tried.join("; "))]
pub(crate) struct Unavailable {
    /// Each place that was looked at, and what came of it.
    pub(crate) tried: Vec<String>,
}

/// Finds the engine when the first container needs one.
#[derive(Debug)]
pub(crate) struct Engines {
    places: Vec<PathBuf>,
    found: Mutex<Option<Engine>>,
}

impl Engines {
    /// `socket` is the only place, if it is given.
    pub(crate) fn new(socket: Option<PathBuf>) -> Self {
        let places = match socket {
            Some(socket) => vec![socket],
            None => places(|name| env::var(name).ok(), nix::unistd::geteuid().as_raw()),
        };
        Self {
            places,
            found: Mutex::new(None),
        }
    }

    /// The engine, which answers now.
    pub(crate) async fn engine(&self) -> Result<Engine, Unavailable> {
        let known = self.found.lock().clone();
        if let Some(known) = known
            && known.greet().await.is_ok()
        {
            return Ok(known);
        }
        let mut tried = Vec::new();
        for place in &self.places {
            match Engine::at(place).await {
                Ok(engine) => {
                    *self.found.lock() = Some(engine.clone());
                    return Ok(engine);
                }
                Err(why) => tried.push(format!("`{}`: {why}", place.display())),
            }
        }
        Err(Unavailable { tried })
    }
}

/// Where engines listen, the most wanted first: what `DOCKER_HOST` or `CONTAINER_HOST` names, or else Docker's place,
/// and Podman's for this user and for root.
fn places(variable: impl Fn(&str) -> Option<String>, user: u32) -> Vec<PathBuf> {
    let named = ["DOCKER_HOST", "CONTAINER_HOST"].into_iter().find_map(|name| {
        variable(name)?
            .strip_prefix("unix://")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    });
    if let Some(named) = named {
        return vec![named];
    }
    let of_user =
        variable("XDG_RUNTIME_DIR").map_or_else(|| format!("/run/user/{user}").into(), PathBuf::from);
    let mut places = vec![PathBuf::from("/var/run/docker.sock"), of_user.join("docker.sock")];
    places.push(of_user.join("podman/podman.sock"));
    places.push("/run/podman/podman.sock".into());
    places
}

impl Engine {
    /// The engine that listens at `socket`.
    pub(crate) async fn at(socket: &Path) -> Result<Self, String> {
        if !socket.exists() {
            return Err("not there".to_owned());
        }
        let docker = connect(socket)?;
        let greeting = tokio::time::timeout(GREETING, docker.version()).await;
        let version = greeting
            .map_err(|_| format!("no answer within {} s", GREETING.as_secs()))?
            .map_err(|error| chain(&error))?;
        let parts = version.components.iter().flatten();
        let is_podman = parts
            .map(|part| part.name.to_lowercase())
            .any(|name| name.contains("podman"));
        Ok(Self {
            docker,
            socket: socket.to_path_buf(),
            name: if is_podman { "podman" } else { "docker" },
            version: version.version.unwrap_or_default(),
            pulls: Arc::default(),
        })
    }

    /// Whether it may do on this machine no more than we may: it is our own, or we are root.
    pub(crate) fn is_ours(&self) -> bool {
        let us = nix::unistd::geteuid();
        let owner =
            std::fs::metadata(&self.socket).map(|socket| std::os::unix::fs::MetadataExt::uid(&socket));
        us.is_root() || owner.is_ok_and(|owner| owner == us.as_raw())
    }

    async fn greet(&self) -> Result<(), ()> {
        match tokio::time::timeout(GREETING, self.docker.ping()).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(()),
        }
    }
}

/// A client, whether somebody listens or not.
pub(crate) fn connect(socket: &Path) -> Result<Docker, String> {
    Docker::connect_with_unix(&socket.to_string_lossy(), PATIENCE, API_DEFAULT_VERSION)
        .map_err(|error| chain(&error))
}

/// Whether the engine answered that it has no such thing.
pub(crate) fn is_missing(error: &bollard::errors::Error) -> bool {
    status(error) == Some(404)
}

/// What the engine answered with, if it answered.
pub(crate) fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What the engine said, without what the client says about that.
pub(crate) fn said(error: &bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. }
        | bollard::errors::Error::DockerStreamError { error: message } => message.trim().to_owned(),
        error => chain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let places = places(variable, 7).into_iter();
        places.map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_engine_that_the_user_names_is_the_only_one() {
        assert_eq!(found(&[("DOCKER_HOST", "unix:///x/d.sock")]), ["/x/d.sock"]);
        assert_eq!(found(&[("CONTAINER_HOST", "unix:///x/p.sock")]), ["/x/p.sock"]);
    }

    #[test]
    fn else_it_is_where_engines_are() {
        let usual = [
            "/var/run/docker.sock",
            "/run/user/7/docker.sock",
            "/run/user/7/podman/podman.sock",
            "/run/podman/podman.sock",
        ];
        assert_eq!(found(&[]), usual);
        // Folders of this machine are shown to containers, so the engine is to be on it.
        assert_eq!(found(&[("DOCKER_HOST", "tcp://elsewhere:2375")]), usual);
    }
}
