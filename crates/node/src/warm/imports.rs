//! What tasks of an environment were seen to import.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// More than this many are no longer learned.
const MOST: usize = 64;

/// The imports of an environment, as they are in its file.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Imports {
    /// What a full worker imports.
    pub(super) wanted: BTreeSet<String>,
    /// What one was seen to be no worse without: it starts threads, prints, takes too much memory.
    refused: BTreeSet<String>,
    #[serde(skip)]
    path: PathBuf,
}

impl Imports {
    /// What was learned before; nothing, if nobody can tell.
    pub(super) fn read(path: PathBuf) -> Self {
        let read = fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        Self {
            path,
            ..read.unwrap_or_default()
        }
    }

    /// Adds what a task was seen to import. Whether any of it is news.
    pub(super) fn learn(&mut self, names: Vec<String>) -> bool {
        let mut is_news = false;
        for name in names {
            if self.wanted.len() < MOST && !self.refused.contains(&name) {
                is_news |= self.wanted.insert(name);
            }
        }
        is_news
    }

    /// Leaves one out from now on.
    pub(super) fn refuse(&mut self, name: String) {
        self.wanted.remove(&name);
        self.refused.insert(name);
    }

    /// Writes it down. Blocks.
    pub(super) fn keep(&self) {
        let written = write(&self.path, self);
        if let Err(error) = written {
            tracing::debug!(%error, path = %self.path.display(), "what tasks import was not written down");
        }
    }
}

fn write(path: &Path, imports: &Imports) -> io::Result<()> {
    let draft = path.with_extension("new");
    fs::write(&draft, serde_json::to_vec(imports)?)?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_is_kept_and_what_was_refused_is_not_learned_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imports.json");
        let mut imports = Imports::read(path.clone());
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(imports.learn(names(&["a", "b"])));
        assert!(!imports.learn(names(&["b"])));
        imports.refuse("b".to_owned());
        assert!(!imports.learn(names(&["a", "b"])));
        imports.keep();
        assert_eq!(Imports::read(path.clone()), imports);
        assert_eq!(imports.wanted, BTreeSet::from(["a".to_owned()]));
        fs::write(&path, "{").unwrap();
        assert_eq!(Imports::read(path).wanted, BTreeSet::new());
    }
}
