//! Which image means which environment on this machine.
//!
//! The user's rules come first, from `environments.yaml` in the data directory:
//!
//! ```yaml
//! images:
//!   # The first rule that matches wins. `*` is any text; a rule without a tag matches every tag.
//!   - match: "pytorch/pytorch:2.*"
//!     python: "3.11"                      # a virtual environment with this Python
//!     packages: ["torch==2.4.1"]          # and these packages, as pip names them
//!   - match: "registry.example.com/tools/*"
//!     host: true                          # this machine's own programs
//!   - match: "python:3.13*"
//!     container: true                     # the image itself, through Docker or Podman
//!   - match: "old/thing"
//!     refuse: "moved to new/thing"        # never run here; the text is shown
//! ```
//!
//! Then come the built-in rules: Python images, and images that are only a shell. What no rule matches needs a
//! container engine.

use serde::Deserialize;

/// Where a container's programs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Environment {
    /// This machine's own programs.
    Host,
    /// A virtual environment.
    Python {
        /// Which Python.
        version: Wanted,
        /// Packages it holds from the start.
        packages: Vec<String>,
    },
    /// The image itself, which a container engine runs.
    Container,
    /// None, as a rule says.
    Refused {
        /// Why not.
        why: String,
    },
}

/// Which Python an image asks for: as much of the version as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    pub(crate) patch: Option<u32>,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.major.unwrap_or(3))?;
        if let Some(minor) = self.minor {
            write!(f, ".{minor}")?;
        }
        if let Some(patch) = self.patch {
            write!(f, ".{patch}")?;
        }
        Ok(())
    }
}

/// The user's rules cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    /// It is not YAML of the known shape.
    #[error("`environments.yaml` cannot be read: {0}")]
    Shape(String),
    /// A rule says nothing, or two things.
    #[error("`environments.yaml`: the rule for `{rule}` {problem}")]
    Rule {
        /// What it matches.
        rule: String,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    images: Vec<RuleText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    #[serde(rename = "match")]
    pattern: String,
    python: Option<String>,
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    host: bool,
    #[serde(default)]
    container: bool,
    refuse: Option<String>,
}

/// The user's rules, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    rules: Vec<(String, Environment)>,
}

impl Table {
    /// Reads the text of `environments.yaml`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let file: File = serde_saphyr::from_str(text).map_err(|error| Error::Shape(error.to_string()))?;
        let rules = file.images.into_iter().map(rule).collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// What `image` means on this machine.
    pub(crate) fn environment(&self, image: &str) -> Environment {
        let image = image.trim();
        let with_tag = image.split('@').next().unwrap_or(image);
        let (name, tag) = split_tag(with_tag);
        self.rules
            .iter()
            .find(|(pattern, _)| matches(pattern, with_tag) || matches(pattern, name))
            .map_or_else(|| built_in(name, tag), |(_, environment)| environment.clone())
    }
}

fn rule(text: RuleText) -> Result<(String, Environment), Error> {
    let problem = |problem: &str| Error::Rule {
        rule: text.pattern.clone(),
        problem: problem.to_owned(),
    };
    let environment = match (&text.python, text.host, text.container, &text.refuse) {
        (Some(version), false, false, None) => Environment::Python {
            version: version_of(version)
                .ok_or_else(|| problem("asks for a `python` that is not a version, such as \"3.11\""))?,
            packages: text.packages.clone(),
        },
        (None, true, false, None) => Environment::Host,
        (None, false, true, None) => Environment::Container,
        (None, false, false, Some(why)) => Environment::Refused { why: why.clone() },
        (None, false, false, None) => {
            return Err(problem(
                "says nothing: give it `python`, `host: true`, `container: true` or `refuse`",
            ));
        }
        _ => {
            return Err(problem(
                "says more than one of `python`, `host`, `container` and `refuse`",
            ));
        }
    };
    if !text.packages.is_empty() && text.python.is_none() {
        return Err(problem("has `packages` without `python`"));
    }
    Ok((text.pattern, environment))
}

/// Images that hold a shell and little more.
const SHELLS: [&str; 9] = [
    "alpine",
    "bash",
    "busybox",
    "containerd/busybox",
    "debian",
    "ubuntu",
    "google/cloud-sdk",
    "chainguard/bash",
    "coracle/host",
];

fn built_in(name: &str, tag: &str) -> Environment {
    let path = without_registry(name);
    if name.is_empty() || SHELLS.contains(&path) {
        return Environment::Host;
    }
    let last = path.rsplit('/').next().unwrap_or(path);
    let version = if last == "python" {
        Some(version_of(tag.split('-').next().unwrap_or(tag)).unwrap_or_default())
    } else if let Some(digits) = last
        .strip_prefix("python-")
        .or_else(|| last.strip_prefix("python"))
    {
        // `ubi9/python-311`, `python3.11`.
        joined_version(digits).or_else(|| version_of(digits))
    } else {
        // `uv:python3.11-bookworm`.
        tag.strip_prefix("python")
            .filter(|_| last == "uv")
            .map(|rest| version_of(rest.split('-').next().unwrap_or(rest)).unwrap_or_default())
    };
    match version {
        Some(version) => Environment::Python {
            version,
            packages: Vec::new(),
        },
        None => Environment::Container,
    }
}

/// `311` is 3.11.
fn joined_version(digits: &str) -> Option<Wanted> {
    let minor = digits.strip_prefix('3').filter(|minor| !minor.is_empty())?;
    Some(Wanted {
        major: Some(3),
        minor: Some(minor.parse().ok()?),
        patch: None,
    })
}

/// `3`, `3.11` or `3.11.4`, perhaps with a pre-release's letters behind.
fn version_of(text: &str) -> Option<Wanted> {
    let mut parts = text.split('.').map(|part| {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        part[..digits].parse::<u32>().ok()
    });
    let major = parts.next()??;
    let (minor, patch) = (parts.next().flatten(), parts.next().flatten());
    (major == 3 || major == 2).then_some(Wanted {
        major: Some(major),
        minor,
        patch,
    })
}

/// `name[:tag]`; a port before a slash is no tag.
fn split_tag(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, ""),
    }
}

/// The image's path without the registry's host, and without Docker Hub's `library/`.
fn without_registry(name: &str) -> &str {
    let path = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => name,
    };
    // Mirrors keep Docker Hub's names below a folder of theirs.
    path.rsplit_once("library/").map_or(path, |(_, name)| name)
}

/// Whether the whole text matches; `*` is any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(environment: &Environment) -> String {
        match environment {
            Environment::Host => "host".to_owned(),
            Environment::Python { version, packages } if version.major.is_none() => {
                format!("python any {}", packages.join(" "))
            }
            Environment::Python { version, packages } => format!("python {version} {}", packages.join(" ")),
            Environment::Container => "container".to_owned(),
            Environment::Refused { why } => format!("refused {why}"),
        }
    }

    fn check(table: &str, rows: &[(&str, &str)]) {
        let table = Table::parse(table).unwrap();
        for (image, expected) in rows {
            assert_eq!(show(&table.environment(image)).trim(), *expected, "{image}");
        }
    }

    #[test]
    fn images_mean_what_they_hold() {
        check(
            "",
            &[
                ("", "host"),
                ("coracle/host", "host"),
                ("alpine", "host"),
                ("alpine:3.20", "host"),
                ("docker.io/library/busybox:latest", "host"),
                ("ghcr.io/containerd/busybox", "host"),
                ("mirror.gcr.io/library/bash", "host"),
                ("localhost:5000/debian:12-slim", "host"),
                ("ubuntu@sha256:abc", "host"),
                ("google/cloud-sdk:slim", "host"),
                ("python", "python any"),
                ("python:latest", "python any"),
                ("python:slim", "python any"),
                ("python:3", "python 3"),
                ("python:3.11", "python 3.11"),
                ("python:3.11.4-slim-bookworm", "python 3.11.4"),
                ("python:3.13rc1", "python 3.13"),
                ("python:3.9@sha256:0123", "python 3.9"),
                ("docker.io/library/python:3.10-alpine", "python 3.10"),
                ("registry.local:5000/mirror/library/python:3.12", "python 3.12"),
                ("registry.access.redhat.com/ubi9/python-311:latest", "python 3.11"),
                ("ubi8/python-39", "python 3.9"),
                ("ghcr.io/astral-sh/uv:python3.12-bookworm-slim", "python 3.12"),
                ("tensorflow/tensorflow:2.17.0", "container"),
                (
                    "gcr.io/ml-pipeline/google-cloud-pipeline-components:2.14.0",
                    "container",
                ),
                ("ghcr.io/astral-sh/uv:0.5", "container"),
                ("someone/python-tools", "container"),
                ("me/alpine", "container"),
            ],
        );
    }

    #[test]
    fn the_users_rules_come_first_and_in_order() {
        let table = r#"
images:
  - match: "python:3.8*"
    python: "3.11"
    packages: ["six", "attrs>=20"]
  - match: "corp/*"
    host: true
  - match: "corp/never"
    python: "3"
  - match: "alpine"
    refuse: "use bash"
"#;
        check(
            table,
            &[
                ("python:3.8-slim", "python 3.11 six attrs>=20"),
                ("python:3.9", "python 3.9"),
                ("corp/never:1", "host"),
                ("alpine:3", "refused use bash"),
            ],
        );
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_refused_with_its_name() {
        let refused = |text: &str, part: &str| {
            let error = Table::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        refused("images:\n  - match: a\n", "`a` says nothing");
        refused(
            "images:\n  - match: a\n    host: true\n    python: '3'\n",
            "more than one",
        );
        refused("images:\n  - match: a\n    python: new\n", "not a version");
        refused(
            "images:\n  - match: a\n    host: true\n    packages: [x]\n",
            "without `python`",
        );
        refused("images:\n  - match: a\n    pyhton: '3'\n", "pyhton");
        refused("image: []\n", "image");
    }
}
