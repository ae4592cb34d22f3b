//! The node and the launchers: what they do with Pods, one step at a time.

use coracle_api::{
    id::{RunId, TaskId},
    labels,
    launch::{Failure, Report, Spec},
    reason::Reason,
};
use coracle_store::records::{Error, Records};
use serde_json::{Value, json};

use super::{
    Checked,
    cluster::{Cluster, Key},
    dice::Dice,
    fate::{Fate, running},
};

/// An attempt, as its Pod tells of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attempt {
    pub(super) run: RunId,
    pub(super) task: TaskId,
    pub(super) path: String,
    pub(super) number: u32,
}

impl Attempt {
    /// The attempt that a Pod belongs to. That it has rows is checked: they come first.
    pub(super) async fn of(records: &Records, pod: &Value) -> Checked<Self> {
        let label = |name: &str| pod["metadata"]["labels"][name].as_str().unwrap_or_default();
        let run: RunId = label(labels::RUN_ID).parse().map_err(|_| "a Pod without a run")?;
        let task: TaskId = label(labels::TASK_ID)
            .parse()
            .map_err(|_| "a Pod without a task")?;
        let number: u32 = label(labels::ATTEMPT)
            .parse()
            .map_err(|_| "a Pod without a number")?;
        let row = records.task(task).await;
        let row = row.map_err(|error| format!("a Pod is made for a task without a row: {error}"))?;
        Ok(Self {
            run,
            task,
            path: row.path,
            number,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Made,
    Running,
    Reported,
    Over,
}

/// A Pod on the node.
pub(super) struct Pod {
    pub(super) attempt: Attempt,
    pub(super) seed: u64,
    pub(super) fate: Fate,
    pub(super) stage: Stage,
    /// Whether the engine has heard that it was made.
    pub(super) is_acknowledged: bool,
    token: String,
}

/// What came of a step.
#[derive(Debug, PartialEq)]
pub(super) enum Stepped {
    /// Its launcher was given this, and its command has begun.
    Began(Box<Spec>),
    /// Somebody deleted it.
    Vanished,
    Otherwise(&'static str),
}

impl Pod {
    pub(super) fn new(attempt: Attempt, seed: u64, fate: Fate, pod: &Value) -> Self {
        let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        let token = env.iter().find(|variable| variable["name"] == labels::TOKEN_ENV);
        Self {
            attempt,
            seed,
            fate,
            stage: Stage::Made,
            is_acknowledged: false,
            token: token.unwrap()["value"].as_str().unwrap().to_owned(),
        }
    }

    /// Whether it has yet to end, and the node can do something about it without the server.
    pub(super) fn can_step(&self, is_server_up: bool) -> bool {
        match self.stage {
            Stage::Over => false,
            Stage::Made => is_server_up || self.fate == Fate::Stuck,
            Stage::Running => is_server_up || self.fate.report(self.seed, "").is_none(),
            Stage::Reported => true,
        }
    }

    /// Whether it may still do what its task is there for.
    pub(super) const fn is_at_work(&self) -> bool {
        matches!(self.stage, Stage::Made | Stage::Running)
    }

    /// Does the next thing.
    pub(super) async fn step(
        &mut self,
        key: &Key,
        cluster: &Cluster,
        records: &Records,
        dice: &mut Dice,
    ) -> Checked<Stepped> {
        let Some(object) = cluster.object(key) else {
            self.stage = Stage::Over;
            return Ok(Stepped::Otherwise("is gone"));
        };
        let is_ending = object["metadata"]["deletionTimestamp"].is_string();
        match self.stage {
            Stage::Made if self.fate == Fate::Stuck => {
                self.stage = Stage::Over;
                cluster.change(key, |pod| pod["status"] = self.fate.status());
                Ok(Stepped::Otherwise("cannot ever start"))
            }
            Stage::Made => self.begin(key, cluster, records, dice).await,
            Stage::Running if is_ending && !dice.chance(30) => {
                let failure = Failure {
                    reason: Reason::RunTerminated,
                    message: "asked to stop".to_owned(),
                };
                let report = Report {
                    parameters: Default::default(),
                    artifacts: Default::default(),
                    failure: Some(failure),
                    exit_code: Some(143),
                };
                self.report(records, &report).await?;
                self.end(key, cluster, is_ending);
                Ok(Stepped::Otherwise("is stopped"))
            }
            Stage::Running => match self.fate.report(self.seed, &self.attempt.path) {
                Some(report) => {
                    self.report(records, &report).await?;
                    self.stage = Stage::Reported;
                    Ok(Stepped::Otherwise("reports"))
                }
                None if self.fate == Fate::Vanishes => Ok(self.vanish(key, cluster)),
                None => {
                    self.end(key, cluster, is_ending);
                    Ok(Stepped::Otherwise("ends without a report"))
                }
            },
            Stage::Reported => {
                self.end(key, cluster, is_ending);
                Ok(Stepped::Otherwise("ends"))
            }
            Stage::Over => Ok(Stepped::Otherwise("is over")),
        }
    }

    /// What `GET /launch/v1/spec` does, and the start of the command.
    async fn begin(
        &mut self,
        key: &Key,
        cluster: &Cluster,
        records: &Records,
        dice: &mut Dice,
    ) -> Checked<Stepped> {
        let row = records
            .attempt_by_token(&self.token)
            .await
            .map_err(|error| error.to_string())?;
        let Some(row) = row else {
            self.end(key, cluster, false);
            return Ok(Stepped::Otherwise("has a token that nobody knows"));
        };
        if (row.task_id, row.number) != (self.attempt.task, self.attempt.number) {
            return Err(format!("{}: its token is that of another attempt", key.2));
        }
        let reported = records.report(row.task_id, row.number).await;
        if row.state.is_terminal() || reported.map_err(|error| error.to_string())?.is_some() {
            self.end(key, cluster, false);
            return Ok(Stepped::Otherwise("is told that its attempt has ended"));
        }
        self.stage = Stage::Running;
        let is_seen = !dice.chance(25);
        cluster.change(key, |pod| {
            pod["spec"]["nodeName"] = json!("here");
            if is_seen {
                pod["status"] = running();
            }
        });
        let given = records.attempt_spec(row.task_id, row.number).await;
        let given = given.map_err(|error| error.to_string())?;
        let spec = serde_json::from_str(&given.launch).map_err(|error| error.to_string())?;
        Ok(Stepped::Began(Box::new(spec)))
    }

    /// Somebody deletes it.
    fn vanish(&mut self, key: &Key, cluster: &Cluster) -> Stepped {
        if !self.is_acknowledged {
            return Stepped::Otherwise("goes on for a while");
        }
        cluster.remove(key);
        self.stage = Stage::Over;
        Stepped::Vanished
    }

    async fn report(&self, records: &Records, report: &Report) -> Checked {
        match records
            .put_report(self.attempt.task, self.attempt.number, report)
            .await
        {
            // Its run was deleted.
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn end(&mut self, key: &Key, cluster: &Cluster, is_ending: bool) {
        self.stage = Stage::Over;
        cluster.change(key, |pod| pod["status"] = self.fate.status());
        if is_ending {
            cluster.remove(key);
        }
    }
}
