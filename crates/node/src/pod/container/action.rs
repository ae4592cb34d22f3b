//! What probes and hooks do: run a command in the container, ask it over HTTP, connect to it, or wait.

use std::{collections::BTreeMap, net::Ipv4Addr, pin::pin, time::Duration};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use coracle_api::reason::chain;
use futures::future::{Either, select};
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::net::TcpStream;

use crate::{
    network,
    runtime::{run_dir::RunDir, session},
};

/// What kubelets say who they are.
const USER_AGENT: &str = "kube-probe/1.34";

/// A running container, as actions reach it.
#[derive(Debug)]
pub(super) struct Inside {
    /// Its run.
    pub(super) run: RunDir,
    /// The Pod's address.
    pub(super) address: Ipv4Addr,
    /// Its ports by name.
    pub(super) ports: BTreeMap<String, u16>,
}

/// Something to do to a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Exec(Vec<String>),
    Http(HTTPGetAction),
    Connect(TCPSocketAction),
    Sleep(Duration),
}

impl Action {
    /// What a probe does; an error for what is not offered.
    pub(super) fn of_probe(probe: Probe) -> Result<Self, String> {
        Self::of(probe.exec, probe.http_get, probe.tcp_socket)
            .ok_or_else(|| "this machine probes with exec, httpGet and tcpSocket".to_owned())
    }

    /// What a hook does.
    pub(super) fn of_hook(hook: LifecycleHandler) -> Result<Self, String> {
        let sleep = hook.sleep.map(|sleep| {
            let seconds = u64::try_from(sleep.seconds).unwrap_or_default();
            Self::Sleep(Duration::from_secs(seconds))
        });
        Self::of(hook.exec, hook.http_get, hook.tcp_socket)
            .or(sleep)
            .ok_or_else(|| "the hook names nothing to do".to_owned())
    }

    fn of(
        exec: Option<ExecAction>,
        http: Option<HTTPGetAction>,
        connect: Option<TCPSocketAction>,
    ) -> Option<Self> {
        exec.map(|exec| Self::Exec(exec.command.unwrap_or_default()))
            .or_else(|| http.map(Self::Http))
            .or_else(|| connect.map(Self::Connect))
    }

    /// Does it. The error says what went wrong, in kubelet's words where it has some.
    pub(super) async fn perform(&self, inside: &Inside) -> Result<(), String> {
        match self {
            Self::Sleep(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Self::Connect(wanted) => {
                let place = inside.place(wanted.host.as_deref(), &wanted.port)?;
                connect(place).await.map(drop)
            }
            Self::Http(wanted) => ask(wanted, inside).await,
            Self::Exec(command) => run(command, inside).await,
        }
    }
}

impl Inside {
    fn place<'a>(&self, host: Option<&'a str>, port: &IntOrString) -> Result<Place<'a>, String> {
        let port = match port {
            IntOrString::Int(number) => u16::try_from(*number).ok(),
            IntOrString::String(name) => self.ports.get(name).copied().or_else(|| name.parse().ok()),
        };
        Ok(Place {
            host: host.filter(|host| !host.is_empty()),
            address: self.address,
            port: port.ok_or("the container has no port of that name")?,
        })
    }
}

/// Where an action goes.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    /// If it is not the Pod.
    host: Option<&'a str>,
    address: Ipv4Addr,
    port: u16,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host {
            Some(host) => write!(f, "{host}:{}", self.port),
            None => write!(f, "{}:{}", self.address, self.port),
        }
    }
}

async fn connect(place: Place<'_>) -> Result<TcpStream, String> {
    let connected = match place.host {
        Some(host) => TcpStream::connect((host, place.port)).await,
        None => network::connect(place.address, place.port).await,
    };
    connected.map_err(|error| format!("dial tcp {place}: connect: {error}"))
}

async fn ask(wanted: &HTTPGetAction, inside: &Inside) -> Result<(), String> {
    if wanted.scheme.as_deref() == Some("HTTPS") {
        return Err("this machine asks over plain HTTP only".to_owned());
    }
    let place = inside.place(wanted.host.as_deref(), &wanted.port)?;
    let path = wanted.path.as_deref().unwrap_or_default();
    let path = format!("/{}", path.trim_start_matches('/'));
    let describe =
        |error: &(dyn std::error::Error + 'static)| format!("Get \"http://{place}{path}\": {}", chain(error));
    let mut request = Request::get(path.as_str())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close");
    let headers = wanted.http_headers.iter().flatten();
    if !headers
        .clone()
        .any(|given| given.name.eq_ignore_ascii_case("host"))
    {
        request = request.header(header::HOST, place.to_string());
    }
    for given in headers {
        request = request.header(&given.name, &given.value);
    }
    let request = request.body(Body::empty()).map_err(|error| describe(&error))?;
    let stream = TokioIo::new(connect(place).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(|error| describe(&error))?;
    let asking = async move {
        let answer = sender.send_request(request).await;
        answer.map(|answer| answer.status())
    };
    let asking = pin!(asking);
    let status = match select(asking, pin!(connection)).await {
        Either::Left((status, _)) => status,
        Either::Right((_, asking)) => asking.await,
    };
    let status = status.map_err(|error| describe(&error))?;
    if is_well(status) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}

async fn run(command: &[String], inside: &Inside) -> Result<(), String> {
    match session::run(&inside.run, command.to_vec()).await {
        Ok(ended) if ended.code == 0 => Ok(()),
        Ok(ended) => {
            let said = String::from_utf8_lossy(&ended.output).trim().to_owned();
            Err(if said.is_empty() {
                format!("command exited with {}", ended.code)
            } else {
                said
            })
        }
        Err(error) => Err(chain(&error)),
    }
}

fn is_well(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn inside(ports: &[(&str, u16)]) -> Inside {
        Inside {
            run: RunDir("/none".into()),
            address: Ipv4Addr::LOCALHOST,
            ports: ports
                .iter()
                .map(|(name, port)| ((*name).to_owned(), *port))
                .collect(),
        }
    }

    async fn answers(listener: TcpListener, answer: &'static str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 1024];
        let length = stream.read(&mut asked).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&asked[..length]).into_owned()
    }

    async fn probed(answer: &'static str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let wanted = json!({"path": "health", "port": "web", "httpHeaders": [{"name": "X-A", "value": "b"}]});
        let action = Action::Http(serde_json::from_value(wanted).unwrap());
        let inside = inside(&[("web", port)]);
        tokio::join!(action.perform(&inside), answers(listener, answer))
    }

    #[tokio::test]
    async fn a_server_is_well_from_200_to_399() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Ok(())),
            ("HTTP/1.1 302 Found\r\nlocation: /x\r\n\r\n", Ok(())),
            (
                "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
                Err("HTTP probe failed with statuscode: 503".to_owned()),
            ),
        ] {
            let (found, asked) = probed(answer).await;
            assert_eq!(found, expected);
            let asked = asked.to_lowercase();
            assert!(asked.starts_with("get /health http/1.1\r\n"), "{asked}");
            assert!(
                asked.contains("user-agent: kube-probe/") && asked.contains("x-a: b"),
                "{asked}"
            );
        }
        let (found, _) = probed("").await;
        assert!(found.unwrap_err().starts_with("Get \"http://127.0.0.1:"));
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_a_failure() {
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let wanted = json!({"port": port.port()});
        let action = Action::Connect(serde_json::from_value(wanted).unwrap());
        let error = action.perform(&inside(&[])).await.unwrap_err();
        assert!(error.contains("connect: Connection refused"), "{error}");
        let action = Action::Connect(serde_json::from_value(json!({"port": "none"})).unwrap());
        let error = action.perform(&inside(&[])).await.unwrap_err();
        assert_eq!(error, "the container has no port of that name");
    }
}
