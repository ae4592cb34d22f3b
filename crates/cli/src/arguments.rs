//! What can be asked for on the command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::{
    commands::{
        backup::{Backup, Restore},
        cache::Cache,
        debug::Debug as DebugTask,
        gc::Gc,
        kubeconfig::{Kubeconfig, Kubectl},
        lineage::Lineage,
        put_away::{Archive, Delete},
        retry::Retry,
        schedule::Schedule,
        up::Up,
    },
    parameters::Parameter,
};

/// Kubeflow in one binary.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// URL of the server, instead of the one that runs on the data directory
    #[arg(long, global = true, env = "CORACLE_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Where the server keeps everything [default: ~/.local/share/coracle]
    #[arg(long, global = true, env = "CORACLE_DATA_DIR", value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// How to show what was asked for
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text, hide_default_value = true)]
    pub(crate) output: Format,
}

/// How data is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// As the API gives it
    Json,
    /// The same, as YAML
    Yaml,
}

/// One thing to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server
    Up(Up),
    /// Stop the server
    Down,
    /// Run a pipeline: a Python file with a `@dsl.pipeline`, or a compiled one
    Run(Run),
    /// Let a run that ended go on: what succeeded is kept, the rest runs again
    Retry(Retry),
    /// Make runs again and again: schedules
    Schedule(Schedule),
    /// List runs, experiments, pipelines, schedules, artifacts, pods, events or any other resource
    Get(Get),
    /// Show one thing in full
    Describe(Describe),
    /// Show the log of a run's tasks
    Logs(Logs),
    /// Open a shell in a task's environment, with its real inputs
    Debug(DebugTask),
    /// Show what an artifact was made from, and what was made from it
    Lineage(Lineage),
    /// Stop a run
    Terminate(Terminate),
    /// Hide runs or experiments from lists
    Archive(Archive),
    /// Show archived runs or experiments again
    Unarchive(Archive),
    /// Delete runs, experiments, pipelines or schedules
    Delete(Delete),
    /// List or forget outputs that later runs would take over
    Cache(Cache),
    /// Delete artifacts that nothing needs any more
    Gc(Gc),
    /// Write everything that a data directory holds to a file, while the server goes on
    Backup(Backup),
    /// Make a data directory out of a backup
    Restore(Restore),
    /// Write a kubeconfig: how kubectl and other Kubernetes clients reach the server
    Kubeconfig(Kubeconfig),
    /// Run kubectl against the server
    Kubectl(Kubectl),
    /// Check what this machine has, and what it lacks
    Doctor,
}

/// Which pipeline, and its parameters.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// A `.py` file, compiled with your kfp; a compiled `.yaml` or `.json`; or the name or id of a
    /// pipeline that was uploaded
    #[arg(value_name = "PIPELINE")]
    pub(crate) file: PathBuf,
    /// A parameter of the pipeline: `-p rate=0.5 -p name=abc -p 'list=[1, 2]'`
    #[arg(short, long = "parameter", visible_alias = "param", value_name = "NAME=VALUE")]
    pub(crate) parameters: Vec<Parameter>,
    /// Version of an uploaded pipeline: its name or id [default: the latest]
    #[arg(long, value_name = "VERSION")]
    pub(crate) pipeline_version: Option<String>,
    /// Function to compile, when the Python file has several pipelines
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<String>,
    /// Python interpreter that has kfp [default: of the virtual environment, else from PATH]
    #[arg(long, env = "CORACLE_PYTHON", value_name = "FILE")]
    pub(crate) python: Option<PathBuf>,
}

/// `coracle run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle run train.py -p rate=0.5 --follow
  coracle run my-pipeline --pipeline-version v2 --no-cache --experiment tuning")]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Name of the run [default: the pipeline's name and the time]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Experiment to put the run in; made if it is not there
    #[arg(long)]
    pub(crate) experiment: Option<String>,
    /// Where artifacts go, instead of the server's own folder: a folder, or s3://bucket/folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) pipeline_root: Option<String>,
    /// Run every task, even those whose results are cached
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Show what happens until the run ends; exit with 1 if it does not succeed
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `coracle get`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle get runs --limit 10
  coracle get artifacts --run 0198c0de
  coracle get pods -A -o yaml")]
pub(crate) struct Get {
    /// runs, experiments, pipelines, schedules, artifacts, cache, or a Kubernetes resource: pods,
    /// events, namespaces, configmaps, secrets, pvc, nodes, …
    #[arg(value_name = "KIND")]
    pub(crate) kind: String,
    /// Only this one
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Only artifacts of this run
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// Show at most this many of what runs make, the newest first
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    pub(crate) limit: u32,
}

/// Which namespace of the Kubernetes API.
#[derive(Debug, Args)]
pub(crate) struct Scope {
    /// Namespace of Kubernetes resources
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Kubernetes resources of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
}

/// `coracle describe`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle describe run 0198c0de
  coracle describe artifact my-run/train/model
  coracle describe pod my-pod")]
pub(crate) struct Describe {
    /// `run`, `experiment`, `pipeline`, `schedule`, `artifact`, or a Kubernetes resource such as `pod`
    #[arg(value_name = "KIND")]
    pub(crate) kind: String,
    /// Id or name, or the first or last characters of an id; of an artifact also RUN/TASK/OUTPUT
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Show every iteration of loops
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Namespace of a Kubernetes resource
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
}

/// `coracle logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle logs 0198c0de --follow
  coracle logs my-run train --iteration 3 --attempt 1")]
pub(crate) struct Logs {
    /// Id of the run, its first or last characters, or its name
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Only this task: its name, its path (`root.for-loop-1.3.train`), its id or its Pod
    #[arg(value_name = "TASK")]
    pub(crate) task: Option<String>,
    /// Go on until the task, or the run, has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The task of this iteration of the loop around it, from 0
    #[arg(long, requires = "task", value_name = "NUMBER")]
    pub(crate) iteration: Option<u64>,
    /// The attempt, from 1 [default: the last]
    #[arg(long, requires = "task", value_name = "NUMBER")]
    pub(crate) attempt: Option<u32>,
}

/// `coracle terminate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  coracle terminate 0198c0de --follow")]
pub(crate) struct Terminate {
    /// Id of the run, its first or last characters, or its name
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Wait until it has stopped
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// The words of a command line, in which what follows `kubectl` is kubectl's alone: also options that
/// every other command takes, such as `-o` and `--help`.
pub(crate) fn kept_for_kubectl(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<_> = words.into_iter().collect();
    let command = Arguments::command();
    let options: Vec<_> = command.get_arguments().collect();
    let Some(first) = first_word(&words, &options) else {
        return words;
    };
    // Some wrappers of kubectl ask for the `--`, so people type it.
    if words[first] == "kubectl" && words.get(first + 1).is_none_or(|next| next != "--") {
        words.insert(first + 1, "--".into());
    }
    words
}

/// Where the first word stands that is neither an option nor an option's value.
fn first_word(words: &[OsString], options: &[&Arg]) -> Option<usize> {
    let mut at = 1;
    loop {
        let word = words.get(at)?.to_string_lossy();
        let option = match word.strip_prefix("--") {
            Some(long) => options.iter().find(|option| option.get_long() == Some(long)),
            None if word.len() == 2 && word.starts_with('-') => options
                .iter()
                .find(|option| option.get_short() == word.chars().nth(1)),
            // `-ojson` and `--output=json` hold their value.
            None if word.starts_with('-') => None,
            None => return Some(at),
        };
        let takes_next = option.is_some_and(|option| option.get_action().takes_values());
        at += if takes_next { 2 } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_of_all_commands_may_follow_the_command() {
        let words = "coracle run p.py -p a=1 --data-dir /d -o json --follow -p b=x=y";
        let arguments = Arguments::try_parse_from(words.split(' ')).expect("valid");
        assert_eq!(arguments.global.output, Format::Json);
        assert_eq!(arguments.global.data_dir, Some("/d".into()));
        let Command::Run(run) = arguments.command else {
            panic!("another command")
        };
        let given: Vec<_> = run
            .choice
            .parameters
            .iter()
            .map(|p| (p.name.as_str(), p.text.as_str()))
            .collect();
        assert_eq!(given, [("a", "1"), ("b", "x=y")]);
        assert!(run.follow);
    }

    #[test]
    fn what_follows_kubectl_is_kubectls_alone() {
        let check = |line: &str, data_dir: Option<&str>, kubectls: &str| {
            let words = kept_for_kubectl(line.split(' ').map(OsString::from));
            let arguments = Arguments::try_parse_from(words).expect(line);
            assert_eq!(arguments.global.data_dir, data_dir.map(PathBuf::from), "{line}");
            let Command::Kubectl(kubectl) = arguments.command else {
                panic!("{line}: another command")
            };
            let given: Vec<_> = kubectl
                .arguments
                .iter()
                .map(|word| word.to_string_lossy())
                .collect();
            assert_eq!(given.join(" "), kubectls, "{line}");
        };
        check("coracle kubectl", None, "");
        check("coracle kubectl -o yaml get pods", None, "-o yaml get pods");
        check("coracle kubectl get pods -o yaml", None, "get pods -o yaml");
        check("coracle kubectl --help", None, "--help");
        check(
            "coracle kubectl --server=s --version",
            None,
            "--server=s --version",
        );
        check(
            "coracle --data-dir kubectl kubectl get pods",
            Some("kubectl"),
            "get pods",
        );
        check("coracle -o json --data-dir=/d kubectl -h", Some("/d"), "-h");
        check("coracle -ojson kubectl --data-dir /k", None, "--data-dir /k");
        check("coracle kubectl exec p -- ls -- -l", None, "exec p -- ls -- -l");
        check("coracle kubectl -- -n x get pods", None, "-n x get pods");
    }

    #[test]
    fn other_commands_stay_as_they_were_typed() {
        for line in [
            "coracle",
            "coracle --data-dir",
            "coracle get kubectl -o json",
            "coracle help kubectl",
        ] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert_eq!(kept_for_kubectl(words.clone()), words);
        }
    }

    #[test]
    fn a_parameter_without_a_value_is_refused() {
        let error = Arguments::try_parse_from(["coracle", "run", "p.py", "-p", "a"]).expect_err("refused");
        assert!(error.to_string().contains("expected NAME=VALUE"), "{error}");
    }
}
