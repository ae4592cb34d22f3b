//! Where a container runs: as a process of this machine, or in its container engine. Pure.

use crate::{environments::table::Environment, node::Runtime};

/// What stands for this machine's own programs, whatever the runtime.
const HOST: &str = "coracle/host";

/// Where a container is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine.
    Here,
    /// In the engine, or nowhere.
    Engine,
    /// In the engine, because no environment of this machine does for it.
    EngineOrNowhere,
}

/// The runtime that a Pod asks for, if it does.
pub(super) fn asked(annotation: Option<&str>) -> Result<Option<Runtime>, String> {
    match annotation {
        None => Ok(None),
        Some("process") => Ok(Some(Runtime::Process)),
        Some("container") => Ok(Some(Runtime::Container)),
        Some(other) => Err(format!("it is `{other}`, and may be `process` or `container`")),
    }
}

/// Where a container of `image` runs, which means `meaning` on this machine. `None` if only the engine could run it, and
/// is not to be used.
pub(super) fn place(runtime: Runtime, image: &str, meaning: &Environment) -> Option<Place> {
    let name = image.split(['@', ':']).next().unwrap_or(image);
    let is_container = matches!(meaning, Environment::Container | Environment::Refused { .. });
    match runtime {
        Runtime::Container if name == HOST || name.is_empty() => Some(Place::Here),
        Runtime::Container => Some(Place::Engine),
        _ if !is_container => Some(Place::Here),
        Runtime::Auto => Some(Place::EngineOrNowhere),
        Runtime::Process => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_runs_what_this_machine_has_no_environment_for_and_what_it_is_told_to() {
        let (host, container) = (Environment::Host, Environment::Container);
        for (runtime, image, meaning, expected) in [
            (Runtime::Auto, "busybox", &host, Some(Place::Here)),
            (Runtime::Auto, "nginx:1", &container, Some(Place::EngineOrNowhere)),
            (Runtime::Process, "busybox", &host, Some(Place::Here)),
            (Runtime::Process, "nginx:1", &container, None),
            (Runtime::Container, "busybox", &host, Some(Place::Engine)),
            (Runtime::Container, "nginx:1", &container, Some(Place::Engine)),
            (Runtime::Container, "coracle/host:1", &host, Some(Place::Here)),
        ] {
            assert_eq!(place(runtime, image, meaning), expected, "{runtime:?} {image}");
        }
    }

    #[test]
    fn a_pod_may_choose_for_itself() {
        assert_eq!(asked(None), Ok(None));
        assert_eq!(asked(Some("container")), Ok(Some(Runtime::Container)));
        assert_eq!(asked(Some("process")), Ok(Some(Runtime::Process)));
        assert!(asked(Some("docker")).is_err());
    }
}
