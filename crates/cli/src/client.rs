//! The server's API over HTTP, blocking.

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;
use ureq::{
    Agent, Body,
    http::{Response, StatusCode},
};

use crate::{arguments::Global, trouble::Trouble};

/// Where the API of Kubeflow Pipelines is.
pub(crate) const PIPELINES: &str = "/apis/v2beta1";

/// A server that was found.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    url: String,
    /// The data directory that it was found by.
    data_dir: Option<PathBuf>,
}

/// An answer that is not the one asked for.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// The status.
    pub(crate) status: StatusCode,
    /// What the server says about it.
    message: String,
}

/// The data directory, chosen or usual.
pub(crate) fn data_dir(global: &Global) -> anyhow::Result<PathBuf> {
    if let Some(path) = &global.data_dir {
        return Ok(path.clone());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or_else(|| {
        Trouble::error(
            "HOME is not set, so there is no usual data directory",
            "choose one with `--data-dir`",
        )
    })?;
    Ok(Path::new(&home).join(".local/share/coracle"))
}

impl Client {
    /// The server that was named, or that runs on the data directory.
    pub(crate) fn find(global: &Global) -> anyhow::Result<Self> {
        if let Some(url) = &global.server {
            let url = if url.contains("://") {
                url.clone()
            } else {
                format!("http://{url}")
            };
            return Ok(Self::new(&url, None));
        }
        let data_dir = data_dir(global)?;
        match coracle_platform::data_dir::running(&data_dir) {
            Some(server) => Ok(Self::new(&server.url, Some(data_dir))),
            None => Err(Trouble::error(
                format!(
                    "no server is running on the data directory `{}`",
                    data_dir.display()
                ),
                "start one with `coracle up`, or name one with `--server`",
            )),
        }
    }

    fn new(url: &str, data_dir: Option<PathBuf>) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        let host = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let is_near = host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]");
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")));
        if is_near {
            config = config.proxy(None);
        }
        Self {
            agent: config.build().into(),
            url,
            data_dir,
        }
    }

    /// Where the server is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The JSON at a path.
    pub(crate) fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        self.get_as(path, query, "application/json")
    }

    /// The JSON at a path, in a form that the `Accept` header names.
    pub(crate) fn get_as(&self, path: &str, query: &[(&str, &str)], accept: &str) -> anyhow::Result<Value> {
        let answer = self.open(path, query, accept)?;
        json(answer)
    }

    /// What is at a path, as it comes.
    pub(crate) fn stream(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<impl Read + use<>> {
        Ok(self.open(path, query, "*/*")?.into_body().into_reader())
    }

    /// Sends JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let sent = self.agent.post(format!("{}{path}", self.url)).send_json(body);
        json(self.accept(sent)?)
    }

    /// Deletes what is at a path.
    pub(crate) fn delete(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let request = self.agent.delete(format!("{}{path}", self.url));
        json(self.accept(request.query_pairs(query.iter().copied()).call())?)
    }

    fn open(&self, path: &str, query: &[(&str, &str)], accept: &str) -> anyhow::Result<Response<Body>> {
        let request = self
            .agent
            .get(format!("{}{path}", self.url))
            .header("Accept", accept);
        self.accept(request.query_pairs(query.iter().copied()).call())
    }

    fn accept(&self, answer: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Response<Body>> {
        let mut answer = answer.map_err(|error| {
            let place = self.data_dir.as_ref().map_or_else(String::new, |path| {
                format!(" (it was started on the data directory `{}`)", path.display())
            });
            Trouble::error(
                format!("the server at {}{place} does not answer: {error}", self.url),
                "start it with `coracle up`, or name another with `--server`",
            )
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer
            .body_mut()
            .with_config()
            .limit(1 << 20)
            .read_to_string()
            .unwrap_or_default();
        Err(Refusal {
            status,
            message: message(status, &text),
        }
        .into())
    }
}

fn json(answer: Response<Body>) -> anyhow::Result<Value> {
    // Large runs have large answers, and the server is the user's own.
    let mut body = answer.into_body();
    let text = body
        .with_config()
        .limit(1 << 32)
        .read_to_string()
        .context("the server's answer broke off")?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).context("the server's answer is not what this version understands")
}

/// What the server says about a refusal: in KFP's `google.rpc.Status` and in a Kubernetes
/// `Status` alike, `message`.
fn message(status: StatusCode, text: &str) -> String {
    let json: Option<Value> = serde_json::from_str(text).ok();
    let said = json
        .as_ref()
        .and_then(|json| json["message"].as_str())
        .unwrap_or_else(|| text.trim());
    if said.is_empty() {
        format!("the server answered {status}")
    } else {
        said.to_owned()
    }
}

/// Whether an error is the server's word that something does not exist.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    let refusal = error.downcast_ref::<Refusal>();
    refusal.is_some_and(|refusal| refusal.status == StatusCode::NOT_FOUND)
}

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_one_segment() {
        assert_eq!(segment("root.for-loop-1.3.train"), "root.for-loop-1.3.train");
        assert_eq!(segment("a/b c:é"), "a%2Fb%20c%3A%C3%A9");
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let status = StatusCode::NOT_FOUND;
        assert_eq!(
            message(status, r#"{"code": 5, "message": "run `x` was not found"}"#),
            "run `x` was not found"
        );
        assert_eq!(message(status, "plain words\n"), "plain words");
        assert_eq!(message(status, ""), "the server answered 404 Not Found");
    }
}
