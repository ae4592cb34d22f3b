//! `coracle debug`: a shell where a task ran, with its real inputs.
//!
//! The Python is the task's own, from the same table and cache as the node's. The command writes
//! to a folder of its own, so that nothing of the run is changed.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Context;
use base64::Engine;
use coracle_api::{
    ir::{
        placeholder::{self, Scope},
        preamble::{self, Requirements},
    },
    launch::{ExecutorInput, ParameterDefault},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    arguments::{Format, Global},
    client::{Client, data_dir, segment},
    output::{self, field},
    runs, tasks,
    trouble::Trouble,
};

/// `coracle debug`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coracle debug 0198c0de train             # a shell; ./run.sh there runs the task's command again
  coracle debug my-run train --iteration 3
  coracle debug my-run train --print > run.sh")]
pub(crate) struct Debug {
    /// Id of the run, its first or last characters, or its name
    #[arg(value_name = "RUN")]
    run: String,
    /// The task: its name, its path (`for-loop-1.3.train`), its id or its Pod
    #[arg(value_name = "TASK")]
    task: String,
    /// The task of this iteration of the loop around it, from 0
    #[arg(long, value_name = "NUMBER")]
    iteration: Option<u64>,
    /// The attempt, from 1 [default: the last]
    #[arg(long, value_name = "NUMBER")]
    attempt: Option<u32>,
    /// Print the script that runs the command, and open no shell
    #[arg(long)]
    print: bool,
    /// Folder for the script and the outputs; made if it is not there [default: a new one]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// What the server knows of an attempt.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attempt {
    scope_path: String,
    attempt: u32,
    namespace: String,
    image: String,
    command: Vec<String>,
    args: Vec<String>,
    env: Vec<Value>,
    executor_input: ExecutorInput,
    input_parameters: BTreeMap<String, ParameterDefault>,
    context: BTreeMap<String, String>,
    requirements: Option<Requirements>,
}

pub(super) fn debug(options: &Debug, client: &Client, global: &Global) -> anyhow::Result<ExitCode> {
    let run = runs::find(client, &options.run)?;
    let all = tasks::all(client, &run)?;
    let task = tasks::find(&all, &run, &options.task, options.iteration)?;
    let path = runs::path(&run, &format!("/tasks/{}:debug", field(task, "task_id")));
    let number = options.attempt.map(|number| number.to_string());
    let query: Vec<(&str, &str)> = number.iter().map(|number| ("attempt", number.as_str())).collect();
    let answer = client.get(&path, &query)?;
    if global.output != Format::Text {
        output::raw(&answer, global.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut attempt: Attempt =
        serde_json::from_value(answer).context("the server's answer is not what this version understands")?;
    let folder = folder(options.dir.as_deref(), tasks::path(task))?;
    redirect(&mut attempt.executor_input, &folder);
    let command = command(&attempt)?;
    let environment = environment(&attempt, &data_dir(global)?)?;
    let mut missing = Vec::new();
    let given = given(&attempt, client, &mut missing);
    let variables = variables(given, environment.as_deref(), &folder);
    let script = script(&attempt, &run, &command, &variables);
    prepare(&folder, &attempt.executor_input, &script)?;
    if options.print {
        write!(io::stdout(), "{script}")?;
        writeln!(io::stderr(), "also in {}", folder.join("run.sh").display())?;
        return Ok(ExitCode::SUCCESS);
    }
    tell(&attempt, &missing, &folder)?;
    shell(&variables, &folder)
}

/// Where the script and the outputs go.
fn folder(chosen: Option<&Path>, task: &str) -> anyhow::Result<PathBuf> {
    let folder = match chosen {
        Some(folder) => {
            fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
            folder.to_owned()
        }
        None => {
            let plain: String = task
                .chars()
                .map(|char| {
                    if char.is_ascii_alphanumeric() || char == '.' {
                        char
                    } else {
                        '-'
                    }
                })
                .collect();
            let made = tempfile::Builder::new()
                .prefix(&format!("coracle-debug-{plain}-"))
                .tempdir()
                .context("cannot make a temporary folder")?;
            // It stays: what was tried there is the user's.
            made.keep()
        }
    };
    fs::canonicalize(&folder).with_context(|| format!("cannot use `{}`", folder.display()))
}

/// Lets every output go below a folder, so that nothing of the run is changed.
fn redirect(input: &mut ExecutorInput, folder: &Path) {
    let place = |kind: &str, name: &str| folder.join("outputs").join(kind).join(name).display().to_string();
    let outputs = &mut input.outputs;
    for (name, parameter) in &mut outputs.parameters {
        parameter.output_file = place("parameters", name);
    }
    for (name, list) in &mut outputs.artifacts {
        let count = list.artifacts.len();
        for (position, artifact) in list.artifacts.iter_mut().enumerate() {
            artifact.uri = if count == 1 {
                place("artifacts", name)
            } else {
                place("artifacts", &format!("{name}/{position}"))
            };
            artifact.custom_path = None;
        }
    }
    outputs.output_file = folder.join("outputs/executor_output.json").display().to_string();
}

/// The command line that user code is started with; what only installs packages is left out.
fn command(attempt: &Attempt) -> anyhow::Result<Vec<String>> {
    let bare = attempt
        .requirements
        .as_ref()
        .and_then(|_| preamble::parse(&attempt.command, &attempt.args));
    let words = match bare {
        Some(preamble) => preamble.rest,
        None => attempt.command.iter().chain(&attempt.args).cloned().collect(),
    };
    let mut input = attempt.executor_input.clone();
    for (name, declared) in &attempt.input_parameters {
        if let Some(value) = &declared.default_value {
            input
                .inputs
                .parameter_values
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
    }
    let scope = Scope {
        input: &input,
        declared: &attempt.input_parameters,
        context: &attempt.context,
    };
    placeholder::resolve(&words, &scope).context("the task's command cannot be put together")
}

/// The task's own variables. Those from Secrets and ConfigMaps are looked up; the names of
/// what is known only inside its Pod go to `missing`.
fn given(attempt: &Attempt, client: &Client, missing: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut given = BTreeMap::new();
    for variable in &attempt.env {
        let name = field(variable, "name").to_owned();
        if !variable["valueFrom"].is_object() {
            given.insert(name, field(variable, "value").to_owned());
        } else if let Some(value) = looked_up(&variable["valueFrom"], &attempt.namespace, client) {
            given.insert(name, value);
        } else {
            missing.push(name);
        }
    }
    given
}

fn looked_up(from: &Value, namespace: &str, client: &Client) -> Option<String> {
    let (kind, reference) = match (&from["secretKeyRef"], &from["configMapKeyRef"]) {
        (secret @ Value::Object(_), _) => ("secrets", secret),
        (_, map @ Value::Object(_)) => ("configmaps", map),
        _ => return None,
    };
    let path = format!(
        "/api/v1/namespaces/{}/{kind}/{}",
        segment(namespace),
        segment(field(reference, "name"))
    );
    let object = client.get(&path, &[]).ok()?;
    let value = object["data"][field(reference, "key")].as_str()?.to_owned();
    if kind == "configmaps" {
        return Some(value);
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
    String::from_utf8(bytes).ok()
}

/// The Python environment of the task, made if it is gone; none for this machine's own programs.
fn environment(attempt: &Attempt, data_dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start a thread")?;
    let requirements = attempt.requirements.as_ref();
    runtime
        .block_on(coracle_node::environment(data_dir, &attempt.image, requirements))
        .map_err(|problem| {
            Trouble::error(
                format!("cannot make the task's environment: {problem}"),
                "`coracle debug … -o yaml` shows its command without one",
            )
        })
}

/// What the shell and the script have beside this process's own variables.
fn variables(
    mut variables: BTreeMap<String, String>,
    environment: Option<&Path>,
    folder: &Path,
) -> BTreeMap<String, String> {
    if let Some(environment) = environment {
        let own = std::env::var("PATH").unwrap_or_default();
        let bin = environment.join("bin");
        variables.insert("PATH".to_owned(), format!("{}:{own}", bin.display()));
        variables.insert("VIRTUAL_ENV".to_owned(), environment.display().to_string());
        // The environment is shared with tasks: what is installed here goes beside the script.
        let packages = folder.join("packages").display().to_string();
        let path = match variables.get("PYTHONPATH") {
            Some(path) => format!("{packages}:{path}"),
            None => packages.clone(),
        };
        variables.insert("PYTHONPATH".to_owned(), path);
        variables.insert("PIP_TARGET".to_owned(), packages);
    }
    variables
}

/// A word as a shell takes it for itself.
fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty()
        && word
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || "-_./=:,@%+".contains(char));
    if is_plain {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn script(attempt: &Attempt, run: &str, command: &[String], variables: &BTreeMap<String, String>) -> String {
    let mut script = format!(
        "#!/bin/sh\n# The command of task {} of run {run}, attempt {}.\n",
        attempt.scope_path, attempt.attempt
    );
    for (name, value) in variables {
        script.push_str(&format!("export {name}={}\n", quoted(value)));
    }
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    script.push_str(&format!("exec {}\n", words.join(" ")));
    script
}

/// Writes the script and the executor input, and makes the folders that outputs go to.
fn prepare(folder: &Path, input: &ExecutorInput, script: &str) -> anyhow::Result<()> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        anyhow::Ok(path)
    };
    let path = write("run.sh", script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make `{}` executable", path.display()))?;
    let text = serde_json::to_string_pretty(input).context("cannot write the executor input")?;
    write("executor_input.json", &format!("{text}\n"))?;
    let artifacts = input.outputs.artifacts.values().flat_map(|list| &list.artifacts);
    let places = input
        .outputs
        .parameters
        .values()
        .map(|parameter| parameter.output_file.as_str())
        .chain(artifacts.map(|artifact| artifact.uri.as_str()))
        .chain([input.outputs.output_file.as_str()]);
    for parent in places.filter_map(|place| Path::new(place).parent()) {
        fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
    }
    Ok(())
}

fn tell(attempt: &Attempt, missing: &[String], folder: &Path) -> anyhow::Result<()> {
    let mut stderr = io::stderr().lock();
    writeln!(
        stderr,
        "in task {}, attempt {}, image {}",
        attempt.scope_path, attempt.attempt, attempt.image
    )?;
    let inputs = &attempt.executor_input.inputs;
    for (name, value) in &inputs.parameter_values {
        writeln!(stderr, "  {name} = {}", output::short(value, 80))?;
    }
    for (name, list) in &inputs.artifacts {
        for artifact in &list.artifacts {
            let far = if artifact.uri.contains("://") {
                " (not fetched)"
            } else {
                ""
            };
            writeln!(stderr, "  {name} at {}{far}", artifact.uri)?;
        }
    }
    if !missing.is_empty() {
        writeln!(
            stderr,
            "known only in its Pod, and not set here: {}",
            missing.join(", ")
        )?;
    }
    writeln!(
        stderr,
        "`./run.sh` runs its command; outputs go to {}; leave with `exit`",
        folder.join("outputs").display()
    )?;
    Ok(())
}

fn shell(variables: &BTreeMap<String, String>, folder: &Path) -> anyhow::Result<ExitCode> {
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    let shell = shell.unwrap_or_else(|| "/bin/sh".into());
    let status = Command::new(&shell)
        .envs(variables)
        .current_dir(folder)
        .status()
        .with_context(|| format!("cannot start `{}`", shell.to_string_lossy()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attempt() -> Attempt {
        serde_json::from_value(json!({
            "task_id": "t", "scope_path": "root.train", "attempt": 2, "image": "alpine", "namespace": "default",
            "command": ["sh", "-c", "echo \"it's $1\" > \"$0\"", "{{$.outputs.parameters['n'].output_file}}"],
            "args": ["{{$.inputs.parameters['k']}}"],
            "env": [{"name": "RATE", "value": "a b"}],
            "executor_input": {"inputs": {}, "outputs": {
                "parameters": {"n": {"outputFile": "/artifacts/run/n"}},
                "artifacts": {"m": {"artifacts": [{"uri": "/artifacts/run/m"}]}},
                "outputFile": "/artifacts/run/executor_output.json"}},
            "input_parameters": {"k": {"parameterType": "NUMBER_INTEGER", "defaultValue": 7}},
            "context": {},
        }))
        .expect("read")
    }

    #[test]
    fn a_script_runs_the_command_and_writes_elsewhere() {
        let mut attempt = attempt();
        redirect(&mut attempt.executor_input, Path::new("/tmp/x"));
        let command = command(&attempt).expect("resolved");
        let variables = BTreeMap::from([("RATE".to_owned(), "a b".to_owned())]);
        let expected = r#"#!/bin/sh
# The command of task root.train of run r1, attempt 2.
export RATE='a b'
exec sh -c 'echo "it'\''s $1" > "$0"' /tmp/x/outputs/parameters/n 7
"#;
        assert_eq!(script(&attempt, "r1", &command, &variables), expected);
    }

    #[test]
    fn the_tasks_python_comes_first_and_is_not_written_to() {
        let folder = Path::new("/tmp/x");
        let variables = variables(BTreeMap::new(), Some(Path::new("/env/abc")), folder);
        assert!(variables["PATH"].starts_with("/env/abc/bin:"));
        assert_eq!(variables["PIP_TARGET"], "/tmp/x/packages");
    }

    #[test]
    fn the_script_works_where_it_is_put() {
        let folder = folder(None, "a b/c").expect("made");
        let mut attempt = attempt();
        redirect(&mut attempt.executor_input, &folder);
        let command = command(&attempt).expect("resolved");
        let script = script(&attempt, "r1", &command, &BTreeMap::new());
        prepare(&folder, &attempt.executor_input, &script).expect("prepared");
        assert!(folder.join("outputs/artifacts").is_dir());
        let status = Command::new(folder.join("run.sh")).status().expect("started");
        assert!(status.success());
        let said = fs::read_to_string(folder.join("outputs/parameters/n")).expect("written");
        assert_eq!(said, "it's 7\n");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
