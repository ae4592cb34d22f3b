//! The pip preamble of lightweight Python components.
//!
//! `kfp.compiler` puts `sh -c '… pip install … && "$0" "$@"'` before the command of a component
//! that needs packages (`kfp/dsl/component_factory.py`). Whoever has the packages at hand already
//! may run what follows instead. Only the exact texts that the compiler writes are recognised:
//! anything else is `None`, and runs as it is written. No packages are resolved here.

use serde::{Deserialize, Serialize};

/// A command line whose first part only installs Python packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preamble {
    /// The packages.
    pub requirements: Requirements,
    /// The command line without that part: program and arguments, placeholders as they were.
    pub rest: Vec<String>,
}

/// Every `pip install` of a preamble, in order. A later one may replace what an earlier one put.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Requirements(pub Vec<Install>);

/// One `pip install`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Install {
    /// Options about indexes, as pip and uv both take them, long form, value as its own element:
    /// `["--index-url", "https://…", "--trusted-host", "…"]`.
    #[serde(default)]
    pub options: Vec<String>,
    /// Whether the packages' own requirements are left out.
    #[serde(default)]
    pub no_deps: bool,
    /// Requirement specifiers, e.g. `pandas==2.2.0` or `x>=3; python_version<"3.9"`.
    pub packages: Vec<String>,
}

/// Splits the command line of a container into its pip preamble and the rest.
///
/// `None` when there is no preamble, or one that is not exactly a known one.
#[must_use]
pub fn parse(command: &[String], args: &[String]) -> Option<Preamble> {
    let mut argv = command.iter().chain(args);
    if argv.next()? != "sh" || argv.next()? != "-c" {
        return None;
    }
    let requirements = script(argv.next()?)?;
    let rest: Vec<String> = argv.cloned().collect();
    (!rest.is_empty()).then_some(Preamble { requirements, rest })
}

const ENSURE_PIP: &str = r#"if ! [ -x "$(command -v pip)" ]; then
    python3 -m ensurepip || python3 -m ensurepip --user || apt-get install python3-pip
fi
"#;
const QUIET_VERSION: &str = "PIP_DISABLE_PIP_VERSION_CHECK=1 ";
const VENV: &str = r#"
export PIP_DISABLE_PIP_VERSION_CHECK=1
tmp=$(mktemp -d)
python3 -m venv "$tmp/venv" --system-site-packages
. "$tmp/venv/bin/activate"
"#;
const RUN_REST: &str = r#"&& "$0" "$@""#;

/// The installs of the whole shell text.
fn script(text: &str) -> Option<Requirements> {
    let body = text.trim().strip_suffix(RUN_REST)?.trim_end();
    if let Some(either) = body.strip_prefix('(') {
        return first_or_user(either.strip_suffix(')')?);
    }
    let body = body
        .strip_prefix(ENSURE_PIP)?
        .trim_start()
        .strip_prefix(QUIET_VERSION)?;
    let installs = match body.split_once(VENV) {
        // The environment made here sees what was installed before it.
        Some((before, after)) if before.trim().is_empty() => installs(after)?,
        Some((before, after)) => {
            let mut all = installs(before.trim_end().strip_suffix("&&")?)?;
            all.extend(installs(after)?);
            all
        }
        None => installs(body)?,
    };
    Some(Requirements(installs))
}

/// The older form: `PIP…=1 python3 -m pip install X || PIP…=1 python3 -m pip install X --user`.
fn first_or_user(text: &str) -> Option<Requirements> {
    let (first, second) = text.split_once(" || ")?;
    let first = first.trim().strip_prefix(QUIET_VERSION)?;
    let second = second
        .trim()
        .strip_prefix(QUIET_VERSION)?
        .strip_suffix(" --user")?;
    (first.trim_end() == second.trim_end()).then(|| installs(first).map(Requirements))?
}

/// `python3 -m pip install … && python3 -m pip install …`
fn installs(text: &str) -> Option<Vec<Install>> {
    words(text)?
        .split(|word| *word == Word::And)
        .map(|words| {
            words.iter().map(|word| {
                if let Word::Text(text) = word {
                    text.as_str()
                } else {
                    ""
                }
            })
        })
        .map(install)
        .collect()
}

fn install<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Install> {
    for expected in ["python3", "-m", "pip", "install"] {
        if words.next()? != expected {
            return None;
        }
    }
    let mut install = Install::default();
    while let Some(word) = words.next() {
        match word {
            "--quiet" | "--no-warn-script-location" => {}
            "--no-deps" => install.no_deps = true,
            "--pre" | "--no-index" | "--upgrade" => install.options.push(word.to_owned()),
            "--index-url" | "--extra-index-url" | "--trusted-host" | "--find-links" => {
                install
                    .options
                    .extend([word.to_owned(), words.next()?.to_owned()]);
            }
            "-i" => install
                .options
                .extend(["--index-url".to_owned(), words.next()?.to_owned()]),
            "-f" => install
                .options
                .extend(["--find-links".to_owned(), words.next()?.to_owned()]),
            "-U" => install.options.push("--upgrade".to_owned()),
            _ => install.packages.push(package(word)?.to_owned()),
        }
    }
    (!install.packages.is_empty()).then_some(install)
}

/// A requirement that means the same wherever it is installed: no other option, and no path of
/// the container's own file system.
fn package(word: &str) -> Option<&str> {
    let is_path = word.starts_with(['.', '/', '~'])
        || word.starts_with("file:")
        || [".whl", ".tar.gz", ".zip"]
            .iter()
            .any(|suffix| word.ends_with(suffix))
            && !word.contains("://");
    (!word.is_empty() && !word.starts_with('-') && !is_path).then_some(word)
}

#[derive(Debug, PartialEq, Eq)]
enum Word {
    Text(String),
    And,
}

/// The words of a command line in the little of the shell's language that the compiler uses:
/// plain words, and words quoted whole, as Python's `repr` does it. `None` for anything in which
/// the shell would see more.
fn words(text: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            quote @ ('\'' | '"') => {
                let (word, after) = rest[1..].split_once(quote)?;
                // Between double quotes, and in `repr`'s escapes, the shell reads differently.
                if word.contains(['\\', '\n']) || (quote == '"' && word.contains(['$', '`', '!'])) {
                    return None;
                }
                (Word::Text(word.to_owned()), after)
            }
            _ => {
                let end = rest.find([' ', '\t']).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                match word {
                    "&&" => (Word::And, after),
                    _ if word.chars().all(is_plain) => (Word::Text(word.to_owned()), after),
                    _ => return None,
                }
            }
        };
        if !after.is_empty() && !after.starts_with([' ', '\t']) {
            return None;
        }
        words.push(word);
        rest = after.trim_start_matches([' ', '\t']);
    }
    Some(words)
}

/// Whether the shell takes the character as it is, outside quotes.
fn is_plain(char: char) -> bool {
    char.is_ascii_alphanumeric() || "-_./:=@+,%".contains(char)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "python3 -m pip install --quiet --no-warn-script-location";

    /// The text that kfp 2.9 to 2.17 writes around its pip commands.
    fn script_with(installs: &str) -> String {
        format!(
            "\nif ! [ -x \"$(command -v pip)\" ]; then\n    python3 -m ensurepip || python3 -m \
             ensurepip --user || apt-get install python3-pip\nfi\n\nPIP_DISABLE_PIP_VERSION_CHECK=1 \
             {installs} && \"$0\" \"$@\"\n"
        )
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn read(text: &str) -> Option<Requirements> {
        let command = strings(&["sh", "-c", text, "sh", "-ec", "run $0", "source"]);
        let found = parse(&command, &strings(&["--executor_input", "{{$}}"]))?;
        assert_eq!(
            found.rest,
            strings(&["sh", "-ec", "run $0", "source", "--executor_input", "{{$}}"])
        );
        Some(found.requirements)
    }

    fn plain(packages: &[&str]) -> Install {
        Install {
            packages: strings(packages),
            ..Install::default()
        }
    }

    fn kfp() -> Install {
        Install {
            no_deps: true,
            ..plain(&[
                "kfp==2.17.0",
                "typing-extensions>=3.7.4,<5; python_version<\"3.9\"",
            ])
        }
    }

    const KFP: &str = r#"'kfp==2.17.0' '--no-deps' 'typing-extensions>=3.7.4,<5; python_version<"3.9"'"#;

    #[test]
    fn what_the_compiler_writes_is_recognised() {
        let index = [
            "--index-url",
            "https://a.example/simple",
            "--trusted-host",
            "a.example",
        ];
        let indexed = |install: Install| Install {
            options: strings(&index),
            ..install
        };
        let venv = "\nexport PIP_DISABLE_PIP_VERSION_CHECK=1\ntmp=$(mktemp -d)\npython3 -m venv \
                    \"$tmp/venv\" --system-site-packages\n. \"$tmp/venv/bin/activate\"\n";
        let cases = [
            (format!("{BARE} {KFP}"), vec![kfp()]),
            (
                format!("{BARE} 'dill==0.3.7'  &&  {BARE} {KFP}"),
                vec![plain(&["dill==0.3.7"]), kfp()],
            ),
            (
                format!(
                    "{BARE} {index} 'yapf'  &&  {BARE} {index} {KFP}",
                    index = index.join(" ")
                ),
                vec![indexed(plain(&["yapf"])), indexed(kfp())],
            ),
            (
                format!("{BARE} {KFP}  &&  {BARE} 'boto3'"),
                vec![kfp(), plain(&["boto3"])],
            ),
            // kfp 2.0
            (
                "python3 -m pip install --quiet     --no-warn-script-location 'kfp==2.0.1'".to_owned(),
                vec![plain(&["kfp==2.0.1"])],
            ),
            // use_venv, alone and with packages
            (format!("{venv} {BARE} {KFP}"), vec![kfp()]),
            (
                format!("{BARE} 'dill'  &&  {venv} {BARE} {KFP}"),
                vec![plain(&["dill"]), kfp()],
            ),
            // Python's repr turns to double quotes where the text holds single ones.
            (
                format!(r#"{BARE} "tomli; python_version<'3.11'""#),
                vec![plain(&["tomli; python_version<'3.11'"])],
            ),
            (
                format!("{BARE} 'git+https://example.org/kfp.git@main#subdirectory=sdk' '--no-deps'"),
                vec![Install {
                    no_deps: true,
                    ..plain(&["git+https://example.org/kfp.git@main#subdirectory=sdk"])
                }],
            ),
            // Options among packages_to_install.
            (
                format!("{BARE} '--pre' 'nightly[all]' '-i' 'https://b.example/simple'"),
                vec![Install {
                    options: strings(&["--pre", "--index-url", "https://b.example/simple"]),
                    ..plain(&["nightly[all]"])
                }],
            ),
        ];
        for (installs, expected) in cases {
            assert_eq!(
                read(&script_with(&installs)),
                Some(Requirements(expected)),
                "{installs}"
            );
        }
    }

    #[test]
    fn the_older_form_with_a_second_try_is_recognised() {
        let text = |user: &str| {
            format!(
                "(PIP_DISABLE_PIP_VERSION_CHECK=1 {BARE} 'a==1' 'b' || \
                 PIP_DISABLE_PIP_VERSION_CHECK=1 {BARE} {user} --user) && \"$0\" \"$@\""
            )
        };
        assert_eq!(
            read(&text("'a==1' 'b'")),
            Some(Requirements(vec![plain(&["a==1", "b"])]))
        );
        assert_eq!(read(&text("'a==2' 'b'")), None);
    }

    #[test]
    fn anything_else_runs_as_written() {
        for installs in [
            format!("{BARE} $PACKAGES"),
            format!("{BARE} \"$(cat list)\""),
            format!("{BARE} 'a'\"b\""),
            format!("{BARE} 'it\\'s'"),
            format!("{BARE} 'a' ; rm -rf x"),
            format!("{BARE} 'a' > log"),
            format!("{BARE} 'a' || true"),
            format!("{BARE} '-r' 'requirements.txt'"),
            format!("{BARE} '-e' '.'"),
            format!("{BARE} './local'"),
            format!("{BARE} '/mnt/wheels/a.whl'"),
            format!("{BARE} 'a-1.0-py3-none-any.whl'"),
            format!("{BARE} --index-url https://a.example/?q=1 'a'"),
            format!("{BARE} --index-url"),
            format!("{BARE} 'a' && echo done"),
            BARE.to_owned(),
            "pip install 'a'".to_owned(),
            String::new(),
        ] {
            assert_eq!(read(&script_with(&installs)), None, "{installs}");
        }
        let good = script_with(&format!("{BARE} 'a'"));
        assert_eq!(read(&format!("set -x\n{good}")), None, "something before");
        assert_eq!(read(&format!("{good}echo done")), None, "something after");
        assert_eq!(read("echo \"$0\" \"$@\""), None);
        assert_eq!(
            parse(&strings(&["sh", "-c", &good]), &[]),
            None,
            "nothing left to run"
        );
        assert_eq!(parse(&strings(&["sh", "-ec", &good, "a"]), &[]), None);
        assert_eq!(parse(&strings(&["python3", "main.py"]), &[]), None);
        assert_eq!(parse(&[], &[]), None);
    }

    #[test]
    fn requirements_read_back_what_they_write() {
        let requirements = Requirements(vec![plain(&["a"]), kfp()]);
        let text = serde_json::to_string(&requirements).expect("serialisable");
        assert_eq!(
            serde_json::from_str::<Requirements>(&text).expect("readable"),
            requirements
        );
    }
}
