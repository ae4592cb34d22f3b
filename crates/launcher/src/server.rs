//! The two requests of the launch contract, and patience with a server that is away.

use std::time::{Duration, Instant};

use coracle_api::launch::{Report, Spec};
use ureq::{
    Agent,
    http::{Response, StatusCode},
};

use crate::signals::Events;

/// The server, as one attempt of one task may use it.
pub(crate) struct Server {
    agent: Agent,
    url: String,
    token: String,
}

/// Why a request did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No answer, or one that says to come back: trying again may help.
    #[error("cannot reach the server at {url}: {why}")]
    Unreachable { url: String, why: String },
    /// The server's answer will not change.
    #[error("the server at {url} answered {status}: {message}")]
    Refused {
        url: String,
        status: StatusCode,
        message: String,
    },
    /// The answer is not of this contract: launcher and server differ in version.
    #[error("the server at {url} sent something that this launcher does not understand: {why}")]
    NotUnderstood { url: String, why: String },
    /// The task was asked to stop while the launcher waited for the server.
    #[error("asked to stop while waiting for the server at {url}")]
    Stopped { url: String },
}

impl Server {
    pub(crate) fn new(url: &str, token: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None) // the server is ours, and near
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_secs(60)))
            .user_agent(concat!("coracle-launcher/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
            url: url.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
        }
    }

    /// What to run.
    pub(crate) fn spec(&self) -> Result<Spec, Error> {
        let request = self.agent.get(format!("{}/launch/v1/spec", self.url));
        let answer = request.header("Authorization", self.authorization()).call();
        let mut answer = self.accept(answer)?;
        answer
            .body_mut()
            .with_config()
            .limit(1 << 30) // parameters may be large; the server is trusted
            .read_json()
            .map_err(|error| match error {
                ureq::Error::Json(error) => Error::NotUnderstood {
                    url: self.url.clone(),
                    why: error.to_string(),
                },
                error => self.unreachable(&error),
            })
    }

    /// Says how it ended. Saying it again changes nothing.
    pub(crate) fn report(&self, report: &Report) -> Result<(), Error> {
        let request = self.agent.put(format!("{}/launch/v1/report", self.url));
        let answer = request
            .header("Authorization", self.authorization())
            .send_json(report);
        self.accept(answer).map(drop)
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    fn unreachable(&self, why: &ureq::Error) -> Error {
        Error::Unreachable {
            url: self.url.clone(),
            why: why.to_string(),
        }
    }

    fn accept(
        &self,
        answer: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<Response<ureq::Body>, Error> {
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer
            .body_mut()
            .with_config()
            .limit(64 * 1024)
            .read_to_string()
            .unwrap_or_default();
        let json = serde_json::from_str::<serde_json::Value>(&text).ok();
        let message = json
            .as_ref()
            .and_then(|json| json["message"].as_str())
            .unwrap_or_else(|| text.trim());
        let message: String = message.chars().take(400).collect();
        let is_passing = status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT;
        Err(if is_passing {
            Error::Unreachable {
                url: self.url.clone(),
                why: format!("it answered {status} {message}"),
            }
        } else {
            Error::Refused {
                url: self.url.clone(),
                status,
                message,
            }
        })
    }
}

/// Tries until it works, the server refuses, or `patience` is over. A server that restarts is
/// away for seconds; one that is being upgraded, for minutes.
pub(crate) fn persist<T>(
    patience: Duration,
    events: &mut Events,
    heed_stop: bool,
    mut request: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    const LONGEST: Duration = Duration::from_secs(5);
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(50);
    loop {
        let error = match request() {
            Err(error @ Error::Unreachable { .. }) if Instant::now() < deadline => error,
            result => return result,
        };
        if heed_stop {
            if events.wait(pause).is_some() {
                let Error::Unreachable { url, .. } = error else {
                    return Err(error);
                };
                return Err(Error::Stopped { url });
            }
        } else {
            std::thread::sleep(pause);
        }
        pause = (pause * 2).min(LONGEST);
    }
}
