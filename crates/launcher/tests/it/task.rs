//! One attempt of a task: what it is told, what becomes of it.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use coracle_api::{labels, launch::Report, reason::Reason};
use serde_json::{Value, json};

use crate::server::{Answer, Server};

pub(crate) struct Task {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) server: Server,
    pub(crate) spec: Value,
    pub(crate) env: Vec<(&'static str, String)>,
    /// What the server answers before it answers with the spec.
    pub(crate) before_spec: Vec<Answer>,
}

/// What became of it.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) log: Vec<u8>,
    reports: Vec<Report>,
}

impl Task {
    /// A task that runs a shell script.
    pub(crate) fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let spec = json!({
            "runId": "0198c0de-0000-7000-8000-000000000000",
            "taskId": "0198c0de-0000-7000-8000-000000000001",
            "attempt": 1,
            "command": ["sh", "-c", script],
            "args": [],
            "executorInput": {"outputs": {"outputFile": folder.path().join("task/output_metadata.json")}},
            "inputParameters": {},
            "outputParameters": {},
            "context": {"pipeline_job_name": "the run"},
            "logUri": folder.path().join("task/log.txt"),
        });
        Self {
            folder,
            server: Server::start(),
            spec,
            env: Vec::new(),
            before_spec: Vec::new(),
        }
    }

    /// A path in the task's folder of the store.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("task").join(name)
    }

    /// Declares an output parameter; `$SHELL_NAME` holds its file.
    pub(crate) fn output_parameter(&mut self, name: &'static str, kind: &str) {
        let path = self.path(&format!("deep/{name}"));
        self.spec["outputParameters"][name] = json!(kind);
        self.spec["executorInput"]["outputs"]["parameters"][name] = json!({"outputFile": path});
        self.env.push((name, path.display().to_string()));
    }

    /// Declares an output artifact; the variable of its name holds its path.
    pub(crate) fn output_artifact(&mut self, name: &'static str) {
        let path = self.path(name);
        self.spec["executorInput"]["outputs"]["artifacts"][name] = json!({"artifacts": [{
            "name": name, "type": {"schemaTitle": "system.Dataset"}, "uri": path,
            "metadata": {"before": 1},
        }]});
        self.env.push((name, path.display().to_string()));
    }

    /// Gives an input artifact.
    pub(crate) fn input_artifact(&mut self, name: &str, uri: &str) {
        self.spec["executorInput"]["inputs"]["artifacts"][name] = json!({"artifacts": [{"uri": uri}]});
    }

    pub(crate) fn start(&self) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle-launch"));
        command
            .env(labels::SERVER_ENV, &self.server.url)
            .env(labels::TOKEN_ENV, "the-token")
            .env("METADATA", self.path("output_metadata.json"))
            .envs(self.env.iter().cloned())
            .current_dir(self.folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("the launcher starts")
    }

    pub(crate) fn answer_with_spec(&self) {
        let mut answers = self.before_spec.clone();
        answers.push(Answer::With(200, self.spec.to_string()));
        self.server.spec(answers);
    }

    pub(crate) fn run(&self) -> Done {
        self.answer_with_spec();
        self.run_with_current_spec()
    }

    pub(crate) fn run_with_current_spec(&self) -> Done {
        self.finish(self.start())
    }

    pub(crate) fn finish(&self, child: Child) -> Done {
        let output = child.wait_with_output().expect("it ends");
        let reports = self
            .server
            .requests()
            .into_iter()
            .filter(|request| request.line.starts_with("PUT"));
        Done {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            log: fs::read(self.path("log.txt")).unwrap_or_default(),
            reports: reports
                .map(|request| serde_json::from_str(&request.body).expect("a report"))
                .collect(),
        }
    }
}

impl Done {
    /// The one report.
    #[track_caller]
    pub(crate) fn report(&self) -> &Report {
        assert_eq!(self.reports.len(), 1, "{}", self.stderr);
        &self.reports[0]
    }

    /// The failure's message, which must be of this kind.
    #[track_caller]
    pub(crate) fn failure(&self, reason: Reason) -> &str {
        let failure = self.reports_last().failure.as_ref().expect("a failure");
        assert_eq!(failure.reason, reason, "{}", failure.message);
        &failure.message
    }

    /// The last of several reports, of a task that is run more than once.
    #[track_caller]
    pub(crate) fn reports_last(&self) -> &Report {
        self.reports.last().expect("a report")
    }

    #[track_caller]
    pub(crate) fn succeeded(&self) -> &Report {
        assert_eq!(self.report().failure, None, "{}", self.stderr);
        assert_eq!((self.code, self.report().exit_code), (Some(0), Some(0)));
        self.report()
    }

    pub(crate) fn log_text(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }
}
