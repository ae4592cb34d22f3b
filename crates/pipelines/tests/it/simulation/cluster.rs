//! A Kubernetes API in memory, as far as the engine needs one, whose every answer waits for somebody
//! to give it: [`Cluster::answer`] for requests, [`Cluster::deliver`] for events of a watch.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// Kind in the plural, namespace, name.
pub(crate) type Key = (String, String, String);

/// The API. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Cluster(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    objects: BTreeMap<Key, Value>,
    revision: u64,
    /// Changes of Pods, oldest first.
    log: Vec<(u64, &'static str, Value)>,
    requests: BTreeMap<u64, Request>,
    watches: BTreeMap<u64, Watch>,
    numbers: u64,
    /// Every name that a Pod ever had.
    made: BTreeSet<String>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verb {
    /// All objects of a kind, or those of a run.
    List {
        kind: String,
        run: Option<String>,
    },
    /// Changes of Pods after a revision.
    Watch(u64),
    Create(Key, Value),
    Delete(Key),
    Get(Key),
}

struct Request {
    verb: Verb,
    reply: oneshot::Sender<http::Response<Answer>>,
}

struct Watch {
    since: u64,
    events: mpsc::UnboundedSender<Bytes>,
}

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It is done, and the answer arrives.
    Well,
    /// It is done, and the answer is lost.
    Lost,
    /// It is not done: the server has no time.
    NotNow,
    /// It is not done, and never will be.
    Refused,
}

/// What doing a request has changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Done {
    Nothing,
    Made(Key),
    /// It was there before.
    MadeAgain(Key),
    Removed(Key),
    /// It is to end first.
    Ending(Key),
}

impl Cluster {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// A client of this API.
    pub(crate) fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let cluster = cluster.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let verb = verb(&parts.method, &parts.uri, &body);
                let (reply, answer) = oneshot::channel();
                cluster.inner().ask(Request { verb, reply });
                Ok::<_, tower::BoxError>(answer.await?)
            }
        });
        Client::new(service, "default")
    }

    /// The requests that wait for an answer, oldest first.
    pub(crate) fn requests(&self) -> Vec<(u64, Verb)> {
        let inner = self.inner();
        let requests = inner.requests.iter();
        requests
            .filter(|(_, request)| !request.reply.is_closed())
            .map(|(number, request)| (*number, request.verb.clone()))
            .collect()
    }

    /// The watches that have not heard of everything.
    pub(crate) fn behind(&self) -> Vec<u64> {
        let inner = self.inner();
        let newest = inner.log.last().map_or(0, |(revision, ..)| *revision);
        let watches = inner.watches.iter();
        watches
            .filter(|(_, watch)| watch.since < newest && !watch.events.is_closed())
            .map(|(number, _)| *number)
            .collect()
    }

    /// Answers a request, having done what it asks for or not.
    pub(crate) fn answer(&self, number: u64, how: How) -> Done {
        let mut inner = self.inner();
        let Request { verb, reply } = inner.requests.remove(&number).unwrap();
        let (answer, done) = match how {
            How::Well | How::Lost => inner.execute(verb),
            How::NotNow => (Answer::failure(503, "ServiceUnavailable"), Done::Nothing),
            How::Refused => (Answer::failure(422, "Invalid"), Done::Nothing),
        };
        let answer = match how {
            How::Lost => Answer::failure(500, "InternalError"),
            _ => answer,
        };
        // Whoever asked may have gone.
        let _ = reply.send(answer);
        done
    }

    /// Tells a watch of the next change.
    pub(crate) fn deliver(&self, number: u64) {
        let mut inner = self.inner();
        let Inner { log, watches, .. } = &mut *inner;
        let watch = watches.get_mut(&number).unwrap();
        let next = log.partition_point(|(revision, ..)| *revision <= watch.since);
        let (revision, what, object) = &log[next];
        watch.since = *revision;
        let _ = watch.events.send(line(what, object));
    }

    /// Ends all watches; with `expired`, they have to begin anew with a list.
    pub(crate) fn end_watches(&self, expired: bool) {
        for (_, watch) in std::mem::take(&mut self.inner().watches) {
            if expired {
                let _ = watch.events.send(line("ERROR", &failure(410, "Expired")));
            }
        }
    }

    /// Whoever asked is no more.
    pub(crate) fn hang_up(&self) {
        let mut inner = self.inner();
        inner.requests.clear();
        inner.watches.clear();
    }

    /// The object as it is now.
    pub(crate) fn object(&self, key: &Key) -> Option<Value> {
        self.inner().objects.get(key).cloned()
    }

    /// All objects.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.inner().objects.keys().cloned().collect()
    }

    /// Changes an object, as the node does.
    pub(crate) fn change(&self, key: &Key, change: impl FnOnce(&mut Value)) {
        let mut inner = self.inner();
        let mut object = inner.objects[key].clone();
        change(&mut object);
        inner.put(key, object, "MODIFIED");
    }

    /// Removes an object, whatever state it is in.
    pub(crate) fn remove(&self, key: &Key) {
        self.inner().remove(key);
    }
}

impl Inner {
    fn ask(&mut self, request: Request) {
        self.numbers += 1;
        self.requests.insert(self.numbers, request);
    }

    fn put(&mut self, key: &Key, mut object: Value, what: &'static str) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        if key.0 == "pods" {
            self.log.push((self.revision, what, object.clone()));
        }
        self.objects.insert(key.clone(), object);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(object) = self.objects.get(key).cloned() {
            self.put(key, object, "DELETED");
            self.objects.remove(key);
        }
    }

    fn execute(&mut self, verb: Verb) -> (http::Response<Answer>, Done) {
        match verb {
            Verb::List { kind, run } => {
                let of_run = |object: &&Value| {
                    run.is_none() || object["metadata"]["labels"]["pipeline/runid"].as_str() == run.as_deref()
                };
                let objects = self.objects.iter().filter(|(key, _)| key.0 == kind);
                let items: Vec<&Value> = objects.map(|(_, object)| object).filter(of_run).collect();
                let list = json!({"kind": "List", "apiVersion": "v1",
                    "metadata": {"resourceVersion": self.revision.to_string()}, "items": items});
                (Answer::whole(200, &list), Done::Nothing)
            }
            Verb::Watch(since) => {
                let (events, answer) = mpsc::unbounded_channel();
                self.numbers += 1;
                self.watches.insert(self.numbers, Watch { since, events });
                (http::Response::new(Answer::Stream(answer)), Done::Nothing)
            }
            Verb::Create(key, mut object) => {
                if self.objects.contains_key(&key) {
                    return (Answer::failure(409, "AlreadyExists"), Done::Nothing);
                }
                object["metadata"]["uid"] = json!(format!("uid-{}", self.revision));
                object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
                let is_new = self.made.insert(format!("{}/{}", key.0, key.2));
                self.put(&key, object, "ADDED");
                let answer = Answer::whole(201, &self.objects[&key]);
                (
                    answer,
                    if is_new {
                        Done::Made(key)
                    } else {
                        Done::MadeAgain(key)
                    },
                )
            }
            Verb::Get(key) => match self.objects.get(&key) {
                Some(object) => (Answer::whole(200, object), Done::Nothing),
                None => (Answer::failure(404, "NotFound"), Done::Nothing),
            },
            Verb::Delete(key) => {
                let Some(object) = self.objects.get(&key) else {
                    return (Answer::failure(404, "NotFound"), Done::Nothing);
                };
                let mut object = object.clone();
                let has_ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
                if object["spec"]["nodeName"].is_null() || has_ended {
                    self.remove(&key);
                    return (Answer::whole(200, &object), Done::Removed(key));
                }
                object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                self.put(&key, object.clone(), "MODIFIED");
                (Answer::whole(200, &object), Done::Ending(key))
            }
        }
    }
}

/// What a request asks for, from its method and address.
fn verb(method: &http::Method, uri: &http::Uri, body: &[u8]) -> Verb {
    let path: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let query = uri.query().unwrap_or_default();
    let value = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let key =
        |namespace: &str, kind: &str, name: &str| (kind.to_owned(), namespace.to_owned(), name.to_owned());
    match (method.as_str(), &path[..]) {
        ("GET", [_, _, _]) if value("watch").is_some() => {
            let since = value("resourceVersion").and_then(|since| since.parse().ok());
            Verb::Watch(since.unwrap_or(0))
        }
        ("GET", [_, _, kind]) => {
            let selector = value("labelSelector").unwrap_or_default();
            let run = selector.split_once("runid%3D").map(|(_, run)| run.to_owned());
            Verb::List {
                kind: (*kind).to_owned(),
                run,
            }
        }
        ("POST", [_, _, _, namespace, kind]) => {
            let mut object: Value = serde_json::from_slice(body).unwrap();
            object["metadata"]["namespace"] = json!(namespace);
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            Verb::Create(key(namespace, kind, &name), object)
        }
        ("GET", [_, _, _, namespace, kind, name]) => Verb::Get(key(namespace, kind, name)),
        ("DELETE", [_, _, _, namespace, kind, name]) => Verb::Delete(key(namespace, kind, name)),
        _ => panic!("the engine asks for {method} {uri}"),
    }
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": "as it was drawn"})
}

fn line(what: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({"type": what, "object": object})).into()
}

/// The body of an answer.
enum Answer {
    Whole(Option<Bytes>),
    Stream(mpsc::UnboundedReceiver<Bytes>),
}

impl Answer {
    fn failure(code: u16, reason: &str) -> http::Response<Self> {
        Self::whole(code, &failure(code, reason))
    }

    fn whole(code: u16, value: &Value) -> http::Response<Self> {
        let mut answer = http::Response::new(Self::Whole(Some(value.to_string().into())));
        *answer.status_mut() = http::StatusCode::from_u16(code).unwrap();
        answer
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Whole(bytes) => bytes.take(),
            Self::Stream(events) => ready!(events.poll_recv(context)),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }
}
