//! Which path everything that a run keeps has: `ROOT/PIPELINE/RUN/TASK/UNIQUE/ARTIFACT`.
//!
//! Kubeflow's own layout. Pure: nothing is created or looked up here. Names that users choose
//! become exactly one path component each, whatever is in them.

use std::path::{Component, Path, PathBuf};

use coracle_api::id::RunId;
use sha2::{Digest, Sha256};

use crate::uri::{ArtifactUri, Place};

/// The text is no place to keep artifacts in ([`coracle_api::reason::Reason::PipelineRootInvalid`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline root `{root}` is no place to keep artifacts in: {why}")]
pub struct InvalidRoot {
    /// As written.
    pub root: String,
    /// What is wrong with it.
    pub why: String,
}

/// The root that a run or pipeline names for its output artifacts; none when the text is empty.
///
/// # Errors
/// [`InvalidRoot`] when nothing can be written there. Whether it is reachable is not looked at.
pub fn pipeline_root(text: &str) -> Result<Option<ArtifactUri>, InvalidRoot> {
    let invalid = |why: String| InvalidRoot {
        root: text.to_owned(),
        why,
    };
    if text.is_empty() {
        return Ok(None);
    }
    let uri: ArtifactUri = text.parse().map_err(|error| invalid(format!("{error}")))?;
    match uri.place() {
        Place::Object(_) => Ok(Some(uri)),
        Place::Http => Err(invalid("a web address can only be read".to_owned())),
        Place::Unsupported { scheme } => Err(invalid(format!("{scheme}:// is not supported"))),
        Place::Local(path) if path.components().any(|part| part == Component::ParentDir) => {
            Err(invalid("it goes up by `..`".to_owned()))
        }
        Place::Local(path) if path.components().count() < 2 => {
            Err(invalid("it is the root of this machine".to_owned()))
        }
        Place::Local(_) => Ok(Some(uri)),
    }
}

/// The folder of one attempt of a task: what it makes, and what is kept about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFolder {
    path: PathBuf,
}

/// The folder of a run under a root: the run's `{{$.pipeline_root}}`-relative home.
#[must_use]
pub fn run_root(root: &Path, pipeline_name: &str, run: RunId) -> PathBuf {
    root.join(component(pipeline_name)).join(run.to_string())
}

/// The folder of one attempt of a task below a root that need not be on this machine: names with
/// slashes between. [`TaskFolder`] has the same names.
#[must_use]
pub fn relative(pipeline_name: &str, run: RunId, task: &str, unique: &str) -> String {
    format!(
        "{}/{run}/{}/{}",
        component(pipeline_name),
        component(task),
        component(unique)
    )
}

/// The name of an output artifact in its task's folder.
#[must_use]
pub fn artifact_name(name: &str) -> String {
    component(name)
}

impl TaskFolder {
    /// The folder of `task` in the run's folder; `unique` tells its attempts apart.
    #[must_use]
    pub fn new(run_root: &Path, task: &str, unique: &str) -> Self {
        Self {
            path: run_root.join(component(task)).join(component(unique)),
        }
    }

    /// The folder itself: what user code gets from `dsl.get_uri()`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of an output artifact.
    #[must_use]
    pub fn artifact(&self, name: &str) -> PathBuf {
        self.path.join(component(name))
    }

    /// The file in which user code leaves an output parameter's value.
    #[must_use]
    pub fn parameter(&self, name: &str) -> PathBuf {
        self.path.join(".parameters").join(component(name))
    }

    /// The file in which the KFP executor leaves everything at once.
    #[must_use]
    pub fn output_metadata(&self) -> PathBuf {
        self.path.join(".output_metadata.json")
    }

    /// The file that keeps the log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join(".executor-logs.txt")
    }
}

/// A name as one path component: never empty, hidden, a step up, too long, or two names at once.
fn component(name: &str) -> String {
    const LONGEST: usize = 120; // file systems take 255 bytes; some add suffixes of their own
    let mut clean: String = name
        .chars()
        .map(|char| {
            if char.is_alphanumeric() || "-_.".contains(char) {
                char
            } else {
                '-'
            }
        })
        .collect();
    if clean.starts_with('.') {
        clean.insert(0, '_');
    }
    if clean.len() > LONGEST {
        let cut = (0..=LONGEST)
            .rev()
            .find(|index| clean.is_char_boundary(*index))
            .unwrap_or(0);
        clean.truncate(cut);
    }
    if clean == name && !clean.is_empty() {
        return clean;
    }
    // Another name may have become the same text: the digest keeps them apart.
    let digest = Sha256::digest(name.as_bytes());
    let tag: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{clean}-{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_one_component_of_its_own() {
        let folder = |task: &str| TaskFolder::new(Path::new("/r/p/run"), task, "1");
        assert_eq!(
            folder("train").artifact("model"),
            Path::new("/r/p/run/train/1/model")
        );
        assert_eq!(folder("Größe").path(), Path::new("/r/p/run/Größe/1"));
        let odd = [
            "",
            ".",
            "..",
            "../../etc",
            "a/b",
            "a b",
            "a:b",
            "a\0b",
            ".hidden",
            &"x".repeat(400),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for name in odd {
            let path = folder(name).path().to_owned();
            assert_eq!(path.components().count(), 6, "{name:?} gave {path:?}");
            assert!(path.to_string_lossy().len() < 160, "{path:?}");
            let task = path.components().nth(4).expect("the task").as_os_str().to_owned();
            assert!(!task.to_string_lossy().starts_with('.'), "{path:?}");
            assert!(seen.insert(task), "{name:?} is not told apart");
        }
    }

    #[test]
    fn what_is_kept_beside_artifacts_cannot_be_mistaken_for_one() {
        let folder = TaskFolder::new(Path::new("/r"), "t", "1");
        for kept in [folder.log(), folder.output_metadata(), folder.parameter("x")] {
            let name = kept
                .strip_prefix(folder.path())
                .expect("inside")
                .to_string_lossy()
                .into_owned();
            assert!(name.starts_with('.'), "{name}");
            assert_ne!(folder.artifact(&name), kept);
        }
    }

    #[test]
    fn a_root_is_where_something_can_be_written() {
        for text in [
            "/data/artifacts",
            "file:///data",
            "s3://b",
            "gs://b/k",
            "minio://b/k",
        ] {
            let root = pipeline_root(text).expect(text).expect("a root");
            assert_eq!(root.as_str(), text);
        }
        assert_eq!(pipeline_root(""), Ok(None));
        for (text, why) in [
            ("data", "absolute path"),
            ("/", "root of this machine"),
            ("/a/../etc", "`..`"),
            ("https://h/x", "only be read"),
            ("oci://h/x", "oci:// is not supported"),
        ] {
            let error = pipeline_root(text).expect_err(text).to_string();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn below_another_root_the_names_are_the_same() {
        let run: RunId = "0198c0de-0000-7000-8000-000000000000".parse().expect("an id");
        let folder = TaskFolder::new(&run_root(Path::new("/r"), "a/b", run), "t t", "1");
        let relative = format!("{}/{}", relative("a/b", run, "t t", "1"), artifact_name("m m"));
        assert_eq!(folder.artifact("m m"), Path::new("/r").join(relative));
    }

    #[test]
    fn a_run_has_its_folder_under_its_pipeline() {
        let run: RunId = "0198c0de-0000-7000-8000-000000000000".parse().expect("an id");
        let path = run_root(Path::new("/store"), "my-pipeline", run);
        assert_eq!(
            path,
            Path::new("/store/my-pipeline/0198c0de-0000-7000-8000-000000000000")
        );
    }
}
