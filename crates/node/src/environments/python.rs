//! Virtual environments, made once for each content and then only shown.
//!
//! The key is everything that decides the content: interpreter, packages, where they come from. An environment is
//! made where it stays, because its scripts name their interpreter by path; a marker file, written last, says that
//! it is whole. A folder without one is from a crash, and is made anew. Requests for one key share one making.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_api::{
    ir::preamble::{Install, Requirements},
    reason::Reason,
};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use sha2::{Digest, Sha256};
use tokio::{
    process::Command,
    sync::{Mutex, OnceCell, Semaphore},
};

use super::{
    interpreters::{self, Interpreter, Uv},
    pip,
    table::{self, Environment, Table, Wanted},
};

/// The file that says an environment is whole.
const MARKER: &str = ".coracle-environment.json";
/// Part of every key: raised when environments are made differently.
const FORMAT: u32 = 1;
/// Makings at once: each is many downloads and much of the disk.
const MAKINGS: usize = 2;
/// How much of an installer's complaint a message holds.
const LAST_BYTES: usize = 2000;

/// What a container gets.
#[derive(Debug, Clone)]
pub(crate) enum Resolved {
    /// This machine's own programs.
    Host,
    /// A virtual environment that may have to be made first.
    Python(Arc<Plan>),
    /// What the image holds.
    Container,
}

/// A virtual environment, made or not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) dir: PathBuf,
    pub(crate) interpreter: Interpreter,
    /// The version that was asked for, if this is another one.
    pub(crate) instead_of: Option<String>,
    installs: Vec<Install>,
    index_options: Vec<String>,
    may_link: bool,
}

impl Plan {
    /// In a few words, for events.
    pub(crate) fn describe(&self) -> String {
        let packages: Vec<&str> = self
            .installs
            .iter()
            .flat_map(|install| install.packages.iter().map(String::as_str))
            .collect();
        let version = self.interpreter.version_text();
        match packages.len() {
            0 => format!("Python {version}"),
            1..=5 => format!("Python {version} with {}", packages.join(", ")),
            count => format!(
                "Python {version} with {} and {} more",
                packages[..4].join(", "),
                count - 4
            ),
        }
    }
}

/// Why there is no environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

fn not_ready(message: impl Into<String>) -> Problem {
    Problem {
        reason: Reason::EnvironmentNotReady,
        message: message.into(),
    }
}

type Making = Shared<BoxFuture<'static, Result<(), Problem>>>;

/// The environments of this machine.
#[derive(Debug)]
pub(crate) struct Environments {
    folder: PathBuf,
    rules: Rules,
    /// Files may be linked to uv's cache, because no container can write to them.
    may_link: bool,
    tools: OnceCell<Tools>,
    makings: Mutex<HashMap<PathBuf, Making>>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct Tools {
    uv: Option<Uv>,
    interpreters: Vec<Interpreter>,
    settings: pip::Settings,
}

impl Environments {
    /// Of a data directory. The user's rules are read now, and again whenever they change.
    pub(crate) fn new(data_dir: &Path, may_link: bool) -> Result<Self, table::Error> {
        let rules = Rules::new(data_dir.join("environments.yaml"));
        rules.read()?;
        Ok(Self {
            folder: data_dir.join("environments"),
            rules,
            may_link,
            tools: OnceCell::new(),
            makings: Mutex::new(HashMap::new()),
            permits: Arc::new(Semaphore::new(MAKINGS)),
        })
    }

    /// What an image means, before anything is looked for on this machine.
    pub(crate) fn meaning(&self, image: &str) -> Result<Environment, Problem> {
        let table = self.rules.read().map_err(|error| not_ready(error.to_string()))?;
        match table.environment(image) {
            Environment::Refused { why } => Err(refused(image, &why)),
            meaning => Ok(meaning),
        }
    }

    /// What an image means, with the packages that the Pod asks for.
    pub(crate) async fn resolve(
        &self,
        image: &str,
        requirements: Option<&Requirements>,
    ) -> Result<Resolved, Problem> {
        let (version, packages) = match self.meaning(image)? {
            Environment::Host => return Ok(Resolved::Host),
            Environment::Container | Environment::Refused { .. } => return Ok(Resolved::Container),
            Environment::Python { version, packages } => (version, packages),
        };
        let tools = self.tools.get_or_init(Tools::find).await;
        let Some((interpreter, is_exact)) = interpreters::choose(&tools.interpreters, &version) else {
            return Err(not_ready(format!(
                "image `{image}` needs Python {version}, and there is no Python {} on this machine: install one, \
                 for example with `uv python install {version}`",
                version.major.unwrap_or(3)
            )));
        };
        let mut installs = Vec::new();
        if !packages.is_empty() {
            installs.push(Install {
                packages,
                ..Install::default()
            });
        }
        installs.extend(
            requirements
                .iter()
                .flat_map(|requirements| requirements.0.iter().cloned()),
        );
        Ok(Resolved::Python(Arc::new(self.plan(
            tools,
            interpreter,
            (!is_exact).then_some(&version),
            installs,
        ))))
    }

    fn plan(
        &self,
        tools: &Tools,
        interpreter: &Interpreter,
        instead_of: Option<&Wanted>,
        installs: Vec<Install>,
    ) -> Plan {
        let index_options = tools.settings.for_uv();
        let key = serde_json::json!([
            FORMAT,
            interpreter.path,
            interpreter.version,
            installs,
            index_options,
            self.may_link,
        ]);
        let digest = Sha256::digest(key.to_string());
        let name = digest[..16]
            .iter()
            .fold(String::with_capacity(32), |mut name, byte| {
                use std::fmt::Write as _;
                let _ = write!(name, "{byte:02x}");
                name
            });
        Plan {
            dir: self.folder.join(name),
            interpreter: interpreter.clone(),
            instead_of: instead_of.map(ToString::to_string),
            installs,
            index_options,
            may_link: self.may_link,
        }
    }

    /// Makes the environment, or waits for whoever makes it already. Goes on if the caller goes away.
    pub(crate) async fn make(&self, plan: &Arc<Plan>) -> Result<Duration, Problem> {
        let started = Instant::now();
        let making = {
            let mut makings = self.makings.lock().await;
            makings.retain(|_, making| making.peek().is_none());
            makings
                .entry(plan.dir.clone())
                .or_insert_with(|| self.start(plan))
                .clone()
        };
        making.await.map(|()| started.elapsed())
    }

    fn start(&self, plan: &Arc<Plan>) -> Making {
        let (plan, permits) = (Arc::clone(plan), Arc::clone(&self.permits));
        let uv = self.tools.get().and_then(|tools| tools.uv.clone());
        let task = tokio::spawn(async move {
            let _permit = permits.acquire_owned().await;
            if is_whole(&plan.dir) {
                return Ok(());
            }
            let result = make(&plan, uv.as_ref()).await;
            if result.is_err() {
                let _ = tokio::fs::remove_dir_all(&plan.dir).await;
            }
            result
        });
        task.map(|result| {
            result.unwrap_or_else(|_| Err(not_ready("the making of the environment was cut off")))
        })
        .boxed()
        .shared()
    }
}

/// Whether an environment is there and whole.
pub(crate) fn is_whole(dir: &Path) -> bool {
    dir.join(MARKER).is_file()
}

impl Tools {
    async fn find() -> Self {
        let uv = Uv::find().await;
        let interpreters = interpreters::discover(uv.as_ref()).await;
        let versions: Vec<String> = interpreters.iter().map(Interpreter::version_text).collect();
        tracing::info!(
            uv = uv.as_ref().map(Uv::name),
            "Python on this machine: {}",
            if versions.is_empty() {
                "none".to_owned()
            } else {
                versions.join(", ")
            }
        );
        Self {
            uv,
            interpreters,
            settings: pip::Settings::of_this_user(),
        }
    }
}

fn refused(image: &str, why: &str) -> Problem {
    let reason = Reason::ImageNeedsContainerRuntime;
    Problem {
        reason,
        message: format!("image `{image}` is not run here, as a rule of `environments.yaml` says: {why}"),
    }
}

async fn make(plan: &Plan, uv: Option<&Uv>) -> Result<(), Problem> {
    tokio::fs::create_dir_all(plan.dir.parent().unwrap_or(&plan.dir))
        .await
        .map_err(|error| not_ready(format!("cannot make `{}`: {error}", plan.dir.display())))?;
    let made = match uv {
        Some(uv) => make_with_uv(plan, uv).await,
        None => Err("uv is not installed".to_owned()),
    };
    if let Err(problem) = made {
        // pip lies in Python's own library, so this works without uv and without a network.
        tracing::debug!(%problem, "uv made no environment, trying Python's own venv");
        let mut command = Command::new(&plan.interpreter.path);
        command.args(["-m", "venv", "--clear"]).arg(&plan.dir);
        run(command).await.map_err(|other| {
            not_ready(format!(
                "cannot make {}: uv says: {problem}; Python's venv says: {other}",
                plan.describe()
            ))
        })?;
    }
    for install in &plan.installs {
        install_into(plan, uv, install).await?;
    }
    let text = serde_json::json!({ "python": plan.interpreter.version_text(), "installs": plan.installs });
    let (draft, marker) = (plan.dir.join(".coracle-environment.new"), plan.dir.join(MARKER));
    let written = async {
        tokio::fs::write(&draft, text.to_string()).await?;
        tokio::fs::rename(&draft, &marker).await
    };
    written
        .await
        .map_err(|error: io::Error| not_ready(format!("cannot write `{}`: {error}", marker.display())))
}

/// What Docker's Python images hold besides pip, up to Python 3.11: packages of that time import them.
const OF_OLDER_IMAGES: [&str; 2] = ["setuptools==79.0.1", "wheel==0.45.1"];

async fn make_with_uv(plan: &Plan, uv: &Uv) -> Result<(), String> {
    let _ = tokio::fs::remove_dir_all(&plan.dir).await;
    let mut command = uv.command();
    command
        .args(["venv", "--quiet", "--no-project", "--python"])
        .arg(&plan.interpreter.path)
        .arg(&plan.dir);
    run(command).await?;
    let mut command = uv_install(plan, uv, &[]);
    command.args(["--", "pip"]);
    if plan.interpreter.version < (3, 12, 0) {
        command.args(OF_OLDER_IMAGES);
    }
    run(command).await
}

/// A command line of uv up to the packages.
fn uv_install(plan: &Plan, uv: &Uv, options: &[String]) -> Command {
    let mut command = uv.command();
    // Tasks see the environment copy-on-write: what is not compiled now is compiled by each of them. And pip takes
    // the best version of all indexes.
    command
        .args(["pip", "install", "--quiet", "--compile-bytecode"])
        .args(["--index-strategy", "unsafe-best-match", "--python"])
        .arg(plan.dir.join("bin/python"));
    if !plan.may_link {
        command.args(["--link-mode", "copy"]);
    }
    command.args(merged(&plan.index_options, options));
    command
}

/// The settings of this machine, with an install's own options after them. An index of its own takes the place of
/// this machine's, as in pip.
fn merged(settings: &[String], options: &[String]) -> Vec<String> {
    let has_index = options
        .iter()
        .any(|option| option.split('=').next() == Some("--index-url"));
    let mut all = Vec::new();
    let mut settings = settings.iter();
    while let Some(setting) = settings.next() {
        if has_index && setting == "--default-index" {
            settings.next();
        } else {
            all.push(setting.clone());
        }
    }
    all.extend_from_slice(options);
    all
}

/// Options that uv takes as pip does. With any other one the install is pip's.
const OF_BOTH: [&str; 8] = [
    "--index-url",
    "--extra-index-url",
    "--find-links",
    "--no-index",
    "--trusted-host",
    "--upgrade",
    "--pre",
    "--require-hashes",
];

async fn install_into(plan: &Plan, uv: Option<&Uv>, install: &Install) -> Result<(), Problem> {
    let python = plan.dir.join("bin/python");
    let is_for_uv = install
        .options
        .iter()
        .filter(|option| option.starts_with('-'))
        .all(|option| OF_BOTH.contains(&option.split('=').next().unwrap_or(option)));
    let mut command = match uv.filter(|_| is_for_uv) {
        Some(uv) => uv_install(plan, uv, &install.options),
        None => {
            let mut command = Command::new(&python);
            command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
            command.args(&install.options);
            command
        }
    };
    if install.no_deps {
        command.arg("--no-deps");
    }
    command.arg("--").args(&install.packages);
    run(command).await.map_err(|problem| {
        not_ready(format!(
            "cannot install {}: {problem}",
            install.packages.join(" ")
        ))
    })
}

/// Runs to the end; an error is the last of what it said.
async fn run(mut command: Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| {
            format!(
                "`{}` does not start: {error}",
                command.as_std().get_program().display()
            )
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = if output.stderr.is_empty() {
        output.stdout
    } else {
        output.stderr
    };
    let said = String::from_utf8_lossy(&said);
    let mut start = said.len().saturating_sub(LAST_BYTES);
    while !said.is_char_boundary(start) {
        start += 1;
    }
    Err(match said[start..].trim() {
        "" => output.status.to_string(),
        said => said.to_owned(),
    })
}

/// The user's rules, read again when the file has changed.
#[derive(Debug)]
struct Rules {
    path: PathBuf,
    read: std::sync::Mutex<Option<(Stamp, ReadTable)>>,
}

type ReadTable = Result<Arc<Table>, table::Error>;

/// Changes when the file does.
type Stamp = Option<(std::time::SystemTime, u64)>;

impl Rules {
    const fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: std::sync::Mutex::new(None),
        }
    }

    fn read(&self) -> ReadTable {
        let stamp: Stamp = fs::metadata(&self.path)
            .and_then(|metadata| Ok((metadata.modified()?, metadata.len())))
            .ok();
        let mut read = self
            .read
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((of, table)) = &*read
            && *of == stamp
        {
            return table.clone();
        }
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(table::Error::Shape(error.to_string())),
        };
        let table = text.and_then(|text| Table::parse(&text)).map(Arc::new);
        *read = Some((stamp, table.clone()));
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Tools {
        Tools {
            uv: None,
            interpreters: vec![Interpreter {
                path: "/usr/bin/python3.11".into(),
                version: (3, 11, 7),
                prefix: "/usr".into(),
            }],
            settings: pip::Settings::default(),
        }
    }

    async fn resolve(image: &str, requirements: &[&str]) -> Result<Arc<Plan>, Problem> {
        let folder = tempfile::tempdir().unwrap();
        let rules = "images: [{match: refused/x, refuse: use y}]";
        fs::write(folder.path().join("environments.yaml"), rules).unwrap();
        let environments = Environments::new(folder.path(), true).unwrap();
        environments.tools.set(tools()).unwrap();
        let requirements = Requirements(vec![Install {
            packages: requirements.iter().map(ToString::to_string).collect(),
            ..Install::default()
        }]);
        match environments.resolve(image, Some(&requirements)).await? {
            Resolved::Python(plan) => Ok(plan),
            Resolved::Host => Err(not_ready("host")),
            Resolved::Container => Err(not_ready("container")),
        }
    }

    #[tokio::test]
    async fn equal_content_has_one_key_and_other_content_another() {
        let name = |plan: Arc<Plan>| plan.dir.file_name().unwrap().to_owned();
        let one = name(resolve("python:3.11", &["six"]).await.unwrap());
        let same = name(resolve("docker.io/python:3.11-slim", &["six"]).await.unwrap());
        let other = name(resolve("python:3.11", &["six", "attrs"]).await.unwrap());
        assert_eq!(one, same);
        assert_ne!(one, other);
    }

    #[tokio::test]
    async fn another_python_is_never_taken_silently() {
        assert_eq!(resolve("python:3.11", &[]).await.unwrap().instead_of, None);
        let plan = resolve("python:3.12-slim", &[]).await.unwrap();
        assert_eq!(plan.instead_of.as_deref(), Some("3.12"));
        let problem = resolve("python:2.7", &[]).await.unwrap_err();
        assert_eq!(problem.reason, Reason::EnvironmentNotReady);
        assert!(problem.message.contains("Python 2.7"), "{}", problem.message);
    }

    #[tokio::test]
    async fn an_image_without_environment_is_for_a_container_unless_a_rule_refuses_it() {
        let problem = resolve("refused/x:2", &[]).await.unwrap_err();
        assert_eq!(problem.reason, Reason::ImageNeedsContainerRuntime);
        assert_eq!(
            problem.message,
            "image `refused/x:2` is not run here, as a rule of `environments.yaml` says: use y"
        );
        let problem = resolve("tensorflow/tensorflow:2", &[]).await.unwrap_err();
        assert_eq!(problem.message, "container");
    }

    #[test]
    fn an_install_with_its_own_index_leaves_this_machines_out() {
        let all = |text: &str| text.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
        let settings = all("--default-index https://a --index https://b");
        assert_eq!(
            merged(&settings, &all("--pre")),
            all("--default-index https://a --index https://b --pre")
        );
        assert_eq!(
            merged(&settings, &all("--index-url https://c")),
            all("--index https://b --index-url https://c")
        );
    }

    #[test]
    fn rules_are_read_again_when_their_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let rules = Rules::new(folder.path().join("environments.yaml"));
        assert_eq!(rules.read().unwrap().environment("x"), Environment::Container);
        fs::write(&rules.path, "images: [{match: x, host: true}]").unwrap();
        assert_eq!(rules.read().unwrap().environment("x"), Environment::Host);
        fs::write(&rules.path, "images: [{match: x}]").unwrap();
        assert!(rules.read().is_err());
    }
}
