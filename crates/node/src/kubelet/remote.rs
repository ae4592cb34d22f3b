//! One session with a container over whichever connection: its streams, and how it ended, in Kubernetes' words.

use std::{io, time::Duration};

use bytes::Bytes;
use coracle_api::reason::chain;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::runtime::session::{Error, Output, Session, Size};

/// How much is read and sent at once.
const CHUNK: usize = 32 * 1024;
/// How long output may still come after a command has ended: what it left behind may hold it open for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// The client of a session.
#[derive(Debug)]
pub(super) struct Remote {
    /// What it types; ends when it says that there is no more.
    pub(super) stdin: mpsc::Receiver<Bytes>,
    /// How large its terminal is.
    pub(super) sizes: mpsc::Receiver<Size>,
    /// What it is to be sent.
    pub(super) events: mpsc::Sender<Event>,
    /// It went away.
    pub(super) gone: CancellationToken,
}

/// Something for the client.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    Output(Bytes),
    Errors(Bytes),
    /// How it ended. The last one.
    Ended(Outcome),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As a shell counts.
    Code(i32),
    /// It did not get that far.
    Failed(String),
}

impl Outcome {
    /// As clients since the fourth version of the protocol read it.
    pub(super) fn status(&self) -> Value {
        match self {
            Self::Code(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Code(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.text(),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(message) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {message}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": message}]},
                "code": 500,
            }),
        }
    }

    /// As older clients read it; nothing if all is well.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Code(0) => String::new(),
            Self::Code(code) => {
                format!(
                    "command terminated with non-zero exit code: command terminated with exit code {code}"
                )
            }
            Self::Failed(message) => message.clone(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Resized {
    #[serde(rename = "Width")]
    columns: u16,
    #[serde(rename = "Height")]
    rows: u16,
}

/// The sizes in a message about a terminal: JSON, one or several.
pub(super) fn sizes(message: &[u8]) -> impl Iterator<Item = Size> {
    let all = serde_json::Deserializer::from_slice(message).into_iter::<Resized>();
    all.map_while(Result::ok).map(|size| Size {
        columns: size.columns,
        rows: size.rows,
    })
}

/// Copies between a client and a session until it has ended, or the client is gone: that ends the session.
pub(super) async fn relay(session: Result<Session, Error>, remote: Remote) {
    let Remote {
        stdin,
        mut sizes,
        events,
        gone,
    } = remote;
    let session = match session {
        Ok(session) => session,
        Err(error) => {
            let _ = events.send(Event::Ended(failed(&error))).await;
            return;
        }
    };
    let (stop, ended) = (CancellationToken::new(), session.ended);
    let resize = session.resize;
    let resizing = async move {
        while let Some(size) = sizes.recv().await {
            if let Some(resize) = &resize {
                resize(size);
            }
        }
        std::future::pending::<()>().await;
    };
    let typing = async move {
        type_in(session.stdin, stdin).await;
        std::future::pending::<()>().await;
    };
    let working = async {
        let ended = async {
            let ended = ended.await;
            stop.cancel();
            ended
        };
        let (ended, (), ()) = tokio::join!(
            ended,
            show(session.stdout, &events, &stop, Event::Output),
            show(session.stderr, &events, &stop, Event::Errors),
        );
        let outcome = match ended {
            Ok(code) => Outcome::Code(code),
            Err(error) => failed(&error),
        };
        let _ = events.send(Event::Ended(outcome)).await;
    };
    tokio::select! {
        biased;
        () = gone.cancelled() => {}
        // A size that came before a word is there before it.
        () = resizing => {}
        () = typing => {}
        () = working => {}
    }
}

fn failed(error: &Error) -> Outcome {
    Outcome::Failed(format!("error executing command in container: {}", chain(error)))
}

/// What the client types goes to the session. What nobody reads there is lost, so that the client is heard all the same.
async fn type_in(mut to: Option<crate::runtime::session::Input>, mut from: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = from.recv().await {
        if let Some(open) = &mut to
            && open.write_all(&bytes).await.is_err()
        {
            to = None;
        }
    }
    if let Some(mut open) = to {
        let _ = open.shutdown().await;
    }
}

async fn show(
    from: Option<Output>,
    events: &mpsc::Sender<Event>,
    stop: &CancellationToken,
    event: impl Fn(Bytes) -> Event,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            biased;
            read = from.read(&mut buffer) => read,
            () = late(stop) => return,
        };
        match read {
            Ok(0) => return,
            Ok(count) => {
                let bytes = Bytes::copy_from_slice(&buffer[..count]);
                if events.send(event(bytes)).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

async fn late(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_OUTPUT).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_kubernetes_words() {
        assert_eq!(Outcome::Code(0).status()["status"], "Success");
        let failed = Outcome::Code(3).status();
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(
            failed["details"]["causes"],
            json!([{"reason": "ExitCode", "message": "3"}])
        );
        let internal = Outcome::Failed("no".to_owned()).status();
        assert_eq!(internal["message"], "Internal error occurred: no");
    }

    #[test]
    fn sizes_come_one_or_several_at_a_time() {
        let read = |text: &str| sizes(text.as_bytes()).collect::<Vec<_>>();
        let size = |columns, rows| Size { columns, rows };
        assert_eq!(read(r#"{"Width":80,"Height":24}"#), [size(80, 24)]);
        assert_eq!(
            read("{\"Width\":1,\"Height\":2}\n{\"Width\":3,\"Height\":4}\n"),
            [size(1, 2), size(3, 4)]
        );
        assert_eq!(read("{\"Width\":-1}"), []);
    }
}
