//! Where pip would fetch packages from, told to uv, which does not read pip's settings.
//!
//! Pure, but for reading pip's configuration files. Environment variables win over files, as in pip.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// pip's settings that matter for where packages come from: `index-url`, `extra-index-url`, `find-links`,
/// `no-index`, `trusted-host`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings(BTreeMap<String, String>);

const NAMES: [&str; 5] = [
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
];
/// uv's own settings: whoever has set one has told uv where to look.
const OF_UV: [&str; 7] = [
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
    "UV_INSECURE_HOST",
];

impl Settings {
    /// Of the user who runs this process.
    pub(crate) fn of_this_user() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let files = files(&variable);
        let texts = files.iter().filter_map(|path| std::fs::read_to_string(path).ok());
        Self::from(texts, &variable)
    }

    fn from(texts: impl Iterator<Item = String>, variable: &impl Fn(&str) -> Option<String>) -> Self {
        let mut settings = BTreeMap::new();
        for text in texts {
            for (name, value) in entries(&text) {
                if NAMES.contains(&name.as_str()) {
                    settings.insert(name, value);
                }
            }
        }
        for name in NAMES {
            let variable = variable(&format!("PIP_{}", name.to_uppercase().replace('-', "_")));
            if let Some(value) = variable.filter(|value| !value.trim().is_empty()) {
                settings.insert(name.to_owned(), value);
            }
        }
        Self(settings)
    }

    /// As uv's options; none if the user told uv itself.
    pub(crate) fn for_uv(&self) -> Vec<String> {
        let is_told = OF_UV.iter().any(|name| std::env::var_os(name).is_some());
        if is_told { Vec::new() } else { self.options() }
    }

    fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        for (setting, option) in [
            ("index-url", "--default-index"),
            ("extra-index-url", "--index"),
            ("find-links", "--find-links"),
            ("trusted-host", "--allow-insecure-host"),
        ] {
            for value in self
                .0
                .get(setting)
                .into_iter()
                .flat_map(|value| value.split_whitespace())
            {
                options.extend([option.to_owned(), value.to_owned()]);
            }
        }
        let no_index = self.0.get("no-index").map(|value| value.to_lowercase());
        if no_index.is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.as_str())) {
            options.push("--no-index".to_owned());
        }
        options
    }
}

/// The configuration file of this user that a process with another home would not find.
pub(crate) fn user_file() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let config = std::env::var_os("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
    [config.join("pip/pip.conf"), home.join(".pip/pip.conf")]
        .into_iter()
        .find(|path| path.exists())
}

/// Later ones win.
fn files(variable: &impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let explicit = variable("PIP_CONFIG_FILE");
    if explicit.as_deref() == Some("/dev/null") {
        return Vec::new();
    }
    let mut files = vec![
        Path::new("/etc/xdg/pip/pip.conf").to_path_buf(),
        PathBuf::from("/etc/pip.conf"),
    ];
    files.extend(explicit.map(PathBuf::from).or_else(user_file));
    files
}

/// `name = value` in `[global]` and `[install]`; a value goes on in indented lines.
fn entries(text: &str) -> Vec<(String, String)> {
    let mut section = "";
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if section != "global" && section != "install" {
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = entries.last_mut() {
                value.push(' ');
                value.push_str(trimmed);
            }
        } else if let Some((name, value)) = trimmed.split_once(['=', ':']) {
            entries.push((
                name.trim().to_lowercase().replace('_', "-"),
                value.trim().to_owned(),
            ));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_pip_become_options_of_uv() {
        let file = "[global]\nindex-url = https://a/simple\nextra_index_url =\n    https://b\n    https://c\n\
                    ; no\ntrusted-host: a\n[list]\nformat = x\n";
        let variable = |name: &str| (name == "PIP_INDEX_URL").then(|| "https://env".to_owned());
        let settings = Settings::from([file.to_owned()].into_iter(), &variable);
        assert_eq!(
            settings.options().join(" "),
            "--default-index https://env --index https://b --index https://c --allow-insecure-host a"
        );
    }

    #[test]
    fn no_index_is_an_option_only_when_it_is_on() {
        let of = |value: &str| {
            Settings::from([format!("[install]\nno-index = {value}\n")].into_iter(), &|_| {
                None
            })
        };
        assert_eq!(of("true").options(), ["--no-index"]);
        assert!(of("false").options().is_empty());
    }
}
