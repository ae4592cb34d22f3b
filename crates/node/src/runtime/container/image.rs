//! Images: whether they are here, and how they come.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bollard::{auth::DockerCredentials, errors::Error, query_parameters::CreateImageOptionsBuilder};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::{
    engine::{Engine, is_missing, said},
    progress::Progress,
};

/// How often a pull tells how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// The images that are being pulled: one pull of each at a time.
pub(crate) type Pulls = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Always,
    IfNotPresent,
    Never,
}

impl Policy {
    /// `text` as a Pod says it; without it, by the tag, as in Kubernetes.
    pub(crate) fn of(text: Option<&str>, image: &str) -> Self {
        match text {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some("IfNotPresent") => Self::IfNotPresent,
            _ if image.contains('@') || !with_tag(image).ends_with(":latest") => Self::IfNotPresent,
            _ => Self::Always,
        }
    }
}

/// An image that is here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    /// By its digest, if it came from a registry.
    pub(crate) id: String,
    pub(crate) user: Option<String>,
    pub(crate) stop_signal: Option<String>,
    /// Whether it says what to run.
    pub(crate) has_command: bool,
}

/// Why an image is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not to be pulled, and not here.
    NeverPulled,
    /// No such name can be.
    InvalidName(String),
    /// The engine or the registry said no.
    Pull(String),
    /// The engine does not answer.
    Unavailable(String),
}

impl Refusal {
    fn of(error: &Error) -> Self {
        match error {
            Error::DockerResponseServerError {
                status_code, message, ..
            } if *status_code == 400 || message.contains("invalid reference format") => {
                Self::InvalidName(said(error))
            }
            Error::DockerResponseServerError { .. } | Error::DockerStreamError { .. } => {
                Self::Pull(said(error))
            }
            _ => Self::Unavailable(said(error)),
        }
    }
}

/// What a pull tells while it is at work.
pub(crate) enum News {
    /// It begins.
    Pulling,
    /// It is so far.
    Progress(String),
    /// It is here, and took this long.
    Pulled(Duration),
    /// It was here.
    Present,
}

/// Image and tag: what is pulled if no tag is named is `latest`, not all there are.
pub(crate) fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

impl Engine {
    /// The image, pulled if `policy` says so, as whoever `credentials` finds out to be then. What happens is told to
    /// `tell`.
    pub(crate) async fn image(
        &self,
        image: &str,
        policy: Policy,
        credentials: impl Future<Output = Option<DockerCredentials>>,
        tell: impl Fn(News) + Sync,
    ) -> Result<Image, Refusal> {
        let reference = with_tag(image);
        let turn = Arc::clone(self.pulls.lock().entry(reference.clone()).or_default());
        let _turn = turn.lock().await;
        if policy != Policy::Always
            && let Some(found) = self.inspect(&reference).await?
        {
            tell(News::Present);
            return Ok(found);
        }
        if policy == Policy::Never {
            return Err(Refusal::NeverPulled);
        }
        tell(News::Pulling);
        let begun = Instant::now();
        self.pull(&reference, credentials.await, &tell).await?;
        let found = self.inspect(&reference).await?;
        let found = found.ok_or_else(|| Refusal::Pull("the engine pulled it and has it not".to_owned()))?;
        tell(News::Pulled(begun.elapsed()));
        Ok(found)
    }

    async fn inspect(&self, reference: &str) -> Result<Option<Image>, Refusal> {
        let found = match self.docker.inspect_image(reference).await {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(Refusal::of(&error)),
        };
        let config = found.config.unwrap_or_default();
        let is_set = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|words| !words.is_empty());
        Ok(Some(Image {
            has_command: is_set(&config.entrypoint) || is_set(&config.cmd),
            user: config.user.filter(|user| !user.is_empty()),
            stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
            id: found
                .repo_digests
                .and_then(|digests| digests.into_iter().next())
                .or(found.id)
                .unwrap_or_default(),
        }))
    }

    async fn pull(
        &self,
        reference: &str,
        credentials: Option<DockerCredentials>,
        tell: &(impl Fn(News) + Sync),
    ) -> Result<(), Refusal> {
        let options = CreateImageOptionsBuilder::default().from_image(reference).build();
        let mut messages = self.docker.create_image(Some(options), None, credentials);
        let mut progress = Progress::default();
        let mut told = None;
        let mut ticks = tokio::time::interval(PROGRESS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    None => return Ok(()),
                    Some(Ok(message)) => progress.take(&message),
                    Some(Err(error)) => return Err(Refusal::of(&error)),
                },
                _ = ticks.tick() => {
                    let now = progress.describe();
                    if now != told && let Some(now) = &now {
                        tell(News::Progress(now.clone()));
                    }
                    told = now;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, expected) in [
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("localhost:5000/a:2", "localhost:5000/a:2"),
            ("a@sha256:0", "a@sha256:0"),
        ] {
            assert_eq!(with_tag(image), expected);
        }
    }

    #[test]
    fn only_the_latest_is_asked_for_each_time() {
        assert_eq!(Policy::of(None, "busybox"), Policy::Always);
        assert_eq!(Policy::of(None, "busybox:latest"), Policy::Always);
        assert_eq!(Policy::of(None, "busybox:1"), Policy::IfNotPresent);
        assert_eq!(Policy::of(None, "a@sha256:0"), Policy::IfNotPresent);
        assert_eq!(Policy::of(Some("Never"), "busybox"), Policy::Never);
        assert_eq!(Policy::of(Some("Always"), "busybox:1"), Policy::Always);
    }
}
