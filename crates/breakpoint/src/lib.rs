//! Places at which a test can end a process, or make an operation fail.
//!
//! A point is a call with a name, and nothing at all without the feature `on`, which only builds
//! with the tests have. With it, the folder that [`VARIABLE`] names says what is to happen; without
//! the variable, nothing is:
//!
//! - `<folder>/<point>/1`: the process ends there as by `kill -9`. With `2` and `3` beside it, the
//!   third visit ends it: each removes a file, the last `1`. Whoever removed it was there.
//! - `<folder>/<point>`, a file: the operation fails as the file's text says, for as long as it is
//!   there.
//!
//! Processes share the folder, so that a point of a launcher or helper ends one of many. Every point
//! has its row in `docs/reliability.md`, and its test in `e2e/test_breakpoints.py`.

/// The environment variable that names the folder. It is handed on to launchers and helpers.
pub const VARIABLE: &str = "CORACLE_BREAKPOINTS";

#[cfg(feature = "on")]
mod on {
    use std::{
        ffi::OsStr,
        fs,
        path::{Path, PathBuf},
        sync::OnceLock,
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    pub(crate) fn folder() -> Option<&'static Path> {
        static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
        let read = || std::env::var_os(crate::VARIABLE).map(PathBuf::from);
        FOLDER.get_or_init(read).as_deref()
    }

    pub(crate) fn visit(folder: &Path, point: &str) {
        if takes_last(&folder.join(point)) {
            // It cannot be blocked, and nothing of this process runs after it.
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }

    /// Takes a visit off those that are left. Whether it was the last.
    pub(crate) fn takes_last(visits: &Path) -> bool {
        let entries = fs::read_dir(visits).into_iter().flatten().flatten();
        let number = |name: &OsStr| name.to_str()?.parse::<u32>().ok();
        let mut left: Vec<u32> = entries.filter_map(|entry| number(&entry.file_name())).collect();
        left.sort_unstable();
        // Others may take one at the same time: each is one's own who removes it.
        let taken = left
            .into_iter()
            .rev()
            .find(|number| fs::remove_file(visits.join(number.to_string())).is_ok());
        taken == Some(1)
    }

    pub(crate) fn error(folder: &Path, point: &str) -> Option<String> {
        let text = fs::read_to_string(folder.join(point)).ok()?;
        Some(text.trim().to_owned())
    }
}

/// Whether this build has breakpoints and the environment says where they are set.
#[must_use]
pub fn is_on() -> bool {
    passed_on().is_some()
}

/// A point at which the process may end.
#[inline]
#[cfg_attr(
    not(feature = "on"),
    expect(
        clippy::missing_const_for_fn,
        reason = "it does something where the feature is on"
    )
)]
pub fn at(point: &str) {
    #[cfg(feature = "on")]
    if let Some(folder) = on::folder() {
        on::visit(folder, point);
    }
    #[cfg(not(feature = "on"))]
    let _ = point;
}

/// A point at which an operation may fail: how, if it is to.
#[inline]
#[must_use]
pub fn error(point: &str) -> Option<String> {
    #[cfg(feature = "on")]
    return on::folder().and_then(|folder| on::error(folder, point));
    #[cfg(not(feature = "on"))]
    {
        let _ = point;
        None
    }
}

/// The variable for the environment of a process that is started with another one.
#[must_use]
pub fn passed_on() -> Option<(String, String)> {
    #[cfg(feature = "on")]
    return on::folder().map(|folder| (VARIABLE.to_owned(), folder.display().to_string()));
    #[cfg(not(feature = "on"))]
    None
}

#[cfg(all(test, feature = "on"))]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_visit_that_takes_the_last_file_is_the_one_that_ends() {
        let folder = tempfile::tempdir().unwrap();
        let visits = folder.path().join("x.y");
        assert!(!on::takes_last(&visits), "it is not set");
        fs::create_dir(&visits).unwrap();
        for number in 1..=3 {
            fs::write(visits.join(number.to_string()), "").unwrap();
        }
        let taken: Vec<bool> = (0..5).map(|_| on::takes_last(&visits)).collect();
        assert_eq!(taken, [false, false, true, false, false]);
    }

    #[test]
    fn an_operation_fails_as_the_file_says_while_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(on::error(folder.path(), "x.y"), None);
        fs::write(folder.path().join("x.y"), "13\n").unwrap();
        assert_eq!(on::error(folder.path(), "x.y").as_deref(), Some("13"));
    }

    #[test]
    fn nothing_happens_where_the_environment_says_nothing() {
        at("x.y");
        assert!(!is_on());
        assert_eq!(error("x.y"), None);
    }
}
