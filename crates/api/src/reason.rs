//! The stable names of everything that can go wrong with a run, a task, a Pod or a request.
//!
//! One name appears in the row, the Pod's condition or container status, the event, the log, the
//! command line, the page and `docs/errors.md`. A name is never reused for another meaning.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

/// Why something did not go well.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
pub enum Reason {
    /// The command exited with a code other than 0.
    CommandFailed,
    /// The executable does not exist in the task's environment.
    CommandNotFound,
    /// The executable exists and may not be run.
    CommandNotExecutable,
    /// A signal that nobody here sent ended the process.
    KilledBySignal,
    /// The process was ended for using more memory than its limit, or than the machine had.
    OOMKilled,
    /// The command ended well and left no value for an output parameter it declares.
    OutputParameterMissing,
    /// An output parameter's value is not of its declared type.
    OutputParameterInvalid,
    /// `output_metadata.json` is not what the KFP executor writes.
    OutputMetadataInvalid,
    /// An input artifact cannot be read.
    InputArtifactUnavailable,
    /// An artifact cannot be written.
    ArtifactNotStored,
    /// A required input has no value.
    InputMissing,
    /// A value is not of the type its input declares.
    InputTypeMismatch,
    /// A placeholder names something that does not exist.
    PlaceholderUnresolved,
    /// A condition cannot be evaluated.
    ConditionInvalid,
    /// The image maps to no local environment, and no container runtime is present.
    ImageNeedsContainerRuntime,
    /// The container engine that the Pod needs does not answer.
    ContainerRuntimeUnavailable,
    /// The container engine makes or starts no container of what the Pod asks for.
    ContainerNotStarted,
    /// The Pod waits for its image, which is being pulled.
    PullingImage,
    /// The image cannot be pulled.
    ErrImagePull,
    /// The image could not be pulled, and will be tried again.
    ImagePullBackOff,
    /// The image is not on this machine, and is not to be pulled.
    ErrImageNeverPull,
    /// No image can have this name.
    InvalidImageName,
    /// The Python environment cannot be made.
    EnvironmentNotReady,
    /// A volume, secret or configMap that the Pod mounts does not exist or cannot be mounted.
    VolumeNotReady,
    /// The sandbox around the process cannot be made.
    SandboxNotReady,
    /// The Pod waits for resources that others hold.
    InsufficientResources,
    /// The Pod waits for its Python environment, which is being made.
    PreparingEnvironment,
    /// The Pod asks for more than this machine has.
    RequestExceedsNode,
    /// The Pod ended and no result came from its launcher.
    ResultMissing,
    /// The Pod was deleted while its task was at work.
    PodDeleted,
    /// The Pod could not be created.
    PodNotCreated,
    /// The launcher could not reach the server.
    ServerUnreachable,
    /// Another task of the same pipeline failed, so this one was never started.
    UpstreamFailed,
    /// Somebody asked the run to stop.
    RunTerminated,
    /// A task or a run was still at work when its time was up.
    DeadlineExceeded,
    /// The Pod was ended because a volume of it held more than it may.
    Evicted,
    /// An output parameter's value is larger than any that is kept.
    OutputParameterTooLarge,
    /// An output names a path outside the folder that the task may write to.
    OutputOutsideFolder,
    /// What a loop is to go over is no list.
    LoopItemsInvalid,
    /// The Pod asks for a node with labels or affinities that this machine has not.
    NodeSelectorMismatch,
    /// The pipeline root is not a place where artifacts can be kept.
    PipelineRootInvalid,
    /// The artifact store of another machine cannot be reached or does not let us in.
    StorageUnavailable,
    /// A recurring run can make no run.
    ScheduleInvalid,
    /// A setting of the pipeline's platform part cannot be used.
    SettingInvalid,
    /// The pipeline uses something that this version of Coracle does not run yet.
    NotSupported,
    /// The run waits: as many as may be are at work.
    RunLimitReached,
    /// More was asked of the server at once than it takes.
    TooManyRequests,
    /// The disk that holds the database is full.
    DiskFull,
    /// The database cannot be written now.
    DatabaseUnavailable,
    /// Coracle itself is at fault.
    InternalError,
}

impl Reason {
    /// Whether the same thing, done again later, may go better. A request that this machine can
    /// never meet, or a document that is wrong, fails the same way each time.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        !matches!(
            self,
            Self::InputMissing
                | Self::InputTypeMismatch
                | Self::PlaceholderUnresolved
                | Self::ConditionInvalid
                | Self::LoopItemsInvalid
                | Self::ImageNeedsContainerRuntime
                | Self::ErrImageNeverPull
                | Self::InvalidImageName
                | Self::RequestExceedsNode
                | Self::NodeSelectorMismatch
                | Self::SettingInvalid
                | Self::PipelineRootInvalid
                | Self::NotSupported
                | Self::RunTerminated
        )
    }

    /// Whether it is said of a Pod that has not begun and may still.
    #[must_use]
    pub const fn is_of_one_who_waits(self) -> bool {
        matches!(
            self,
            Self::InsufficientResources
                | Self::PreparingEnvironment
                | Self::PullingImage
                | Self::ContainerRuntimeUnavailable
                | Self::VolumeNotReady
        )
    }

    /// What to do about it: one sentence, without a full stop.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::CommandFailed => "read the log's last lines: the program says there why it stopped",
            Self::CommandNotFound => {
                "check the component's command, or install the program on this machine or in the task's image"
            }
            Self::CommandNotExecutable => {
                "make the file executable (chmod +x), or run it through its interpreter"
            }
            Self::KilledBySignal => "look at what else ended processes on this machine at that time",
            Self::OOMKilled => "raise the task's memory limit (set_memory_limit), or make it use less memory",
            Self::OutputParameterMissing => "write a value for each declared output, or remove the output",
            Self::OutputParameterInvalid => "write a value of the declared type, or change the declared type",
            Self::OutputMetadataInvalid => "let the KFP executor write this file, or write its JSON shape",
            Self::InputArtifactUnavailable => "check that the URI exists and can be read from this machine",
            Self::ArtifactNotStored => "check free space and permissions of the artifact store",
            Self::InputMissing => "give the input a value, a default, or make it optional",
            Self::InputTypeMismatch => "pass a value of the declared type, or change the declared type",
            Self::PlaceholderUnresolved => {
                "check the name inside the placeholder against the component's definition"
            }
            Self::ConditionInvalid => {
                "compare values of one type, and use only what the condition's task receives"
            }
            Self::ImageNeedsContainerRuntime => {
                "use a python:3.x image, start Docker or Podman, or map the image to an environment in `environments.yaml` of the data directory"
            }
            Self::ContainerRuntimeUnavailable => {
                "start Docker or Podman; `coracle doctor` says where it was looked for"
            }
            Self::ContainerNotStarted => "read the message: the engine says there what it did not accept",
            Self::PullingImage => "wait: the next task with the same image finds it here",
            Self::ErrImagePull | Self::ImagePullBackOff => {
                "check the image's name and tag, and the credentials for its registry (imagePullSecrets, or `docker login`)"
            }
            Self::ErrImageNeverPull => {
                "pull or build the image on this machine, or let imagePullPolicy be IfNotPresent"
            }
            Self::InvalidImageName => "correct the image's name: registry/name:tag, in lower case",
            Self::EnvironmentNotReady => "run `coracle doctor`, and check the package names and the index",
            Self::VolumeNotReady => "create the object the Pod mounts, or mark the volume optional",
            Self::SandboxNotReady => "run `coracle doctor` to see what this machine lacks",
            Self::InsufficientResources => {
                "wait, or end something that holds the resources (`coracle get pods`)"
            }
            Self::PreparingEnvironment => "wait: the next task with the same packages finds it ready",
            Self::RequestExceedsNode => "ask for less, or run on a machine that has this much",
            Self::ResultMissing => "read the Pod's log; if it is empty, run `coracle doctor`",
            Self::PodDeleted => "run it again; delete runs with `coracle`, not their Pods",
            Self::PodNotCreated => "read the message: the Kubernetes API says there what it did not accept",
            Self::ServerUnreachable => "check that `coracle up` is running and reachable from the task",
            Self::UpstreamFailed => "mend the task that failed first",
            Self::RunTerminated => "run it again if this was not meant",
            Self::DeadlineExceeded => {
                "allow more time (set_timeout, active_deadline_seconds), or find out what waits"
            }
            Self::Evicted => "allow the volume more (size_limit), or write less to it",
            Self::OutputParameterTooLarge => "write large results to an output artifact",
            Self::OutputOutsideFolder => "write to the path that the task is given",
            Self::LoopItemsInvalid => "pass a list, or text that holds a JSON list",
            Self::NodeSelectorMismatch => "remove the selector, or run where a machine has these labels",
            Self::PipelineRootInvalid => "give a folder of this machine, or a URI such as s3://bucket/folder",
            Self::StorageUnavailable => "check the address and the credentials of the store",
            Self::ScheduleInvalid => "mend what the message names: the next due time tries again",
            Self::SettingInvalid => "correct the setting that the message names",
            Self::NotSupported => "see docs/pipelines.md for what runs today",
            Self::RunLimitReached => {
                "wait, or end a run that is not needed; `coracle up --max-runs` lets more run at once"
            }
            Self::TooManyRequests => {
                "ask again after the time that `Retry-After` says, or ask for less at once"
            }
            Self::DiskFull => "free some space (`df`), then ask again; `coracle up --retain-days` keeps less",
            Self::DatabaseUnavailable => {
                "do what the message says, then ask again: nothing of the request was done"
            }
            Self::InternalError => "please report this with the server's log",
        }
    }
}

/// An error and everything it came from, in one line: for messages, where nobody asks for the sources.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
