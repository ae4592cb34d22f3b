//! Python processes that are ready before tasks are.
//!
//! A lightweight component's time is mostly its imports. A worker (`worker.py`) has done them, and becomes one task after
//! the other, each as a copy of itself that enters the task's own container. An environment that tasks use has a bare
//! worker, which has the KFP executor only, and when tasks of it were seen to import more, a full one beside it. Which
//! imports those are is kept in a file, so that it survives the server.
//!
//! Workers are an offer: who gets none, or is refused by one, runs its command as it is written.

mod environment;
mod imports;
mod process;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use self::environment::{Environment, Place};
use crate::environments::python::Plan;

/// Environments that have workers at once.
const ENVIRONMENTS: usize = 4;
/// What a full worker may take of this machine's memory, and in any case.
const SHARE: u64 = 16;
const MOST_BYTES: u64 = 1 << 30;

/// A program that is started with other variables of these kinds runs otherwise from its first line on.
const AT_START: [&str; 8] = [
    "PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "GLIBC_", "OPENSSL_",
];

/// Whether a Python process that was started with `base` can stand for one that is started with `env`.
pub(crate) fn starts_alike(base: &[(String, String)], env: &[(String, String)]) -> bool {
    let matter = |env: &[(String, String)]| {
        let mut found: Vec<_> = env
            .iter()
            .filter(|(name, _)| AT_START.iter().any(|prefix| name.starts_with(prefix)))
            .cloned()
            .collect();
        found.sort_unstable();
        found
    };
    matter(base) == matter(env)
}

/// The workers of this machine.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Where their sockets and what they learned lie; none where there are to be no workers.
    folder: Option<PathBuf>,
    memory: u64,
    environments: Mutex<HashMap<PathBuf, Environment>>,
}

impl Workers {
    /// With a folder of their own. `memory` is this machine's, in bytes.
    pub(crate) fn new(folder: Option<PathBuf>, memory: u64) -> Self {
        Self {
            folder,
            memory: (memory / SHARE).min(MOST_BYTES),
            environments: Mutex::default(),
        }
    }

    /// The socket of a worker for a task of an environment: of one that is started now, if there was none. None where the
    /// environment has no KFP executor. `base` are the variables that Python is started with, and a `bare` task gets no
    /// further imports.
    pub(crate) async fn offer(
        &self,
        plan: &Plan,
        base: Vec<(String, String)>,
        bare: bool,
    ) -> Option<PathBuf> {
        let offer = self.offer_of(plan, base, bare)?;
        offer.await
    }

    fn offer_of(
        &self,
        plan: &Plan,
        base: Vec<(String, String)>,
        bare: bool,
    ) -> Option<impl Future<Output = Option<PathBuf>> + use<>> {
        let folder = self.folder.as_deref()?;
        let mut all = self.environments.lock();
        let is_over = all
            .get(&plan.dir)
            .is_some_and(|environment| environment.is_over());
        if is_over {
            all.remove(&plan.dir);
        }
        if let Some(environment) = all.get(&plan.dir) {
            return Some(environment.offer(bare));
        }
        if all.len() >= ENVIRONMENTS {
            let longest_unused = all.iter().min_by_key(|(_, environment)| environment.last_used());
            let longest_unused = longest_unused.map(|(dir, _)| dir.clone());
            all.remove(&longest_unused?);
        }
        let place = self.place(folder, &plan.dir, base)?;
        let environment = Environment::begin(place);
        let offer = environment.offer(bare);
        all.insert(plan.dir.clone(), environment);
        Some(offer)
    }

    fn place(&self, folder: &Path, dir: &Path, base: Vec<(String, String)>) -> Option<Place> {
        let own = folder.join(dir.file_name()?);
        // What they write while they import is for nobody.
        let scratch = own.display().to_string();
        let mut env = base;
        env.retain(|(name, _)| !["HOME", "TMPDIR"].contains(&name.as_str()));
        env.extend([
            ("HOME".to_owned(), scratch.clone()),
            ("TMPDIR".to_owned(), scratch),
            ("_KFP_RUNTIME".to_owned(), "true".to_owned()),
            ("PYTHONUNBUFFERED".to_owned(), "1".to_owned()),
        ]);
        Some(Place {
            folder: own,
            python: dir.join("bin/python3"),
            env,
            memory: self.memory,
        })
    }
}

/// When something was last asked for.
#[derive(Debug)]
struct LastUse(Mutex<Instant>);

impl LastUse {
    fn now() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn renew(&self) {
        *self.0.lock() = Instant::now();
    }

    fn get(&self) -> Instant {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(list: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        list.iter().map(owned).collect()
    }

    #[test]
    fn a_process_stands_for_another_unless_python_or_its_loader_was_told_otherwise() {
        let base = variables(&[("PATH", "/bin"), ("LANG", "C"), ("HOME", "/a")]);
        for (env, expected) in [
            (&[("LANG", "C"), ("HOME", "/b"), ("MODEL", "x")][..], true),
            (&[("HOME", "/b")], false),
            (&[("LANG", "de")], false),
            (&[("LANG", "C"), ("PYTHONHASHSEED", "0")], false),
            (&[("LANG", "C"), ("LD_PRELOAD", "x.so")], false),
        ] {
            assert_eq!(starts_alike(&base, &variables(env)), expected, "{env:?}");
        }
    }
}
