//! What a task may hand over as its own: what is in its folder of the store, and what it wrote
//! elsewhere while it ran. Links and `..` count as where they lead.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use coracle_api::{launch::Failure, reason::Reason};

/// The bounds of one attempt.
#[derive(Debug)]
pub(crate) struct Boundary {
    /// The task's own folder in the store; free of links.
    folder: Option<PathBuf>,
    /// The folder of the run in the store, where the other tasks' folders are.
    run: Option<PathBuf>,
    /// Where input artifacts are; free of links.
    inputs: Vec<PathBuf>,
    /// When the command started.
    started: SystemTime,
}

/// Whose a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The task's: in its folder.
    Own,
    /// The task's: made elsewhere while it ran.
    Made,
    /// An input of the task.
    Input,
    /// Somebody else's, or the machine's.
    Foreign,
    /// Nothing is there.
    Nobody,
}

impl Boundary {
    /// `output_file` is a file directly in the task's folder.
    pub(crate) fn new(output_file: &str, inputs: Vec<PathBuf>, started: SystemTime) -> Self {
        let real = |path: &Path| path.canonicalize().ok();
        let folder = Path::new(output_file)
            .parent()
            .filter(|folder| folder.is_absolute())
            .and_then(real);
        Self {
            // `RUN/TASK/ATTEMPT`
            run: folder
                .as_deref()
                .and_then(|folder| Some(folder.parent()?.parent()?.to_owned()))
                .filter(|run| run.components().count() > 2),
            folder,
            inputs: inputs.iter().filter_map(|path| real(path)).collect(),
            started,
        }
    }

    /// The task's own folder.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Whose a path is, links followed.
    pub(crate) fn owner(&self, path: &Path) -> io::Result<Owner> {
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Owner::Nobody),
            Err(error) => return Err(error),
        };
        let is_in = |folder: &PathBuf| real.starts_with(folder);
        if self.folder.as_ref().is_some_and(is_in) {
            return Ok(Owner::Own);
        }
        if self.inputs.iter().any(is_in) {
            return Ok(Owner::Input);
        }
        // What is new in another task's folder is that task's, or should be.
        let is_of_another = self.run.as_ref().is_some_and(is_in);
        let is_new = || fs::metadata(&real).is_ok_and(|metadata| self.is_new(&metadata));
        Ok(if !is_of_another && is_new() {
            Owner::Made
        } else {
            Owner::Foreign
        })
    }

    /// Whether something in another task's folder appeared while this one ran.
    pub(crate) fn is_trespass(&self, path: &Path) -> bool {
        let Ok(real) = path.canonicalize() else {
            return false;
        };
        let is_in = |folder: &Option<PathBuf>| folder.as_ref().is_some_and(|folder| real.starts_with(folder));
        is_in(&self.run)
            && !is_in(&self.folder)
            && !self.inputs.iter().any(|input| real.starts_with(input))
            && fs::metadata(&real).is_ok_and(|metadata| self.is_new(&metadata))
    }

    fn is_new(&self, metadata: &fs::Metadata) -> bool {
        // File systems take their time from a clock that ticks every few milliseconds.
        let started = self.started - Duration::from_millis(10);
        changed(metadata).is_some_and(|changed| changed >= started)
    }
}

/// Whether a path goes up.
pub(crate) fn goes_up(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// The failure of an output that is not the task's to hand over.
pub(crate) fn outside(what: &str, path: &Path, why: &str) -> Failure {
    Failure {
        reason: Reason::OutputOutsideFolder,
        message: format!("{what} is at `{}`, {why}", path.display()),
    }
}

/// When a file or folder last changed in any way.
fn changed(metadata: &fs::Metadata) -> Option<SystemTime> {
    let seconds = Duration::from_secs(u64::try_from(metadata.ctime()).ok()?);
    UNIX_EPOCH.checked_add(seconds + Duration::from_nanos(u64::try_from(metadata.ctime_nsec()).ok()?))
}
