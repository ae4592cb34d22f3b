//! What a run's folder says about its container: `container.json`.

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::runtime::run_dir::RunDir;

/// Written before the container is made, and again with its id before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// Where its engine listens.
    pub(crate) socket: PathBuf,
    /// The container's name there, which nothing else has.
    pub(crate) name: String,
    /// The engine's own name for it, once it was made.
    #[serde(default)]
    pub(crate) id: Option<String>,
    /// How its image wants to be asked to end; SIGTERM if it says nothing.
    #[serde(default)]
    pub(crate) stop_signal: Option<String>,
    /// Whether its main process has a terminal.
    #[serde(default)]
    pub(crate) tty: bool,
    /// How large one file of its log may get.
    pub(crate) log_bytes: u64,
}

impl RunDir {
    fn claim(&self) -> PathBuf {
        self.path().join("container.json")
    }

    /// The container of this run, if it has one.
    pub(crate) fn read_claim(&self) -> Option<Claim> {
        serde_json::from_slice(&fs::read(self.claim()).ok()?).ok()
    }

    /// All or nothing.
    pub(crate) fn write_claim(&self, claim: &Claim) -> io::Result<()> {
        fs::create_dir_all(self.path())?;
        let draft = self.path().join("container.json.new");
        fs::write(&draft, serde_json::to_vec(claim)?)?;
        fs::rename(&draft, self.claim())
    }

    /// The file that tells when somebody took the run up: a process's helper, or an engine.
    pub(crate) fn claimed(&self) -> Option<PathBuf> {
        [self.pid(), self.claim()].into_iter().find(|path| path.exists())
    }
}
