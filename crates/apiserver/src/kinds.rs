//! The kinds that this server serves. The engine knows no kind by name; what a kind has of its
//! own is in its row, as data or as a function of [`crate::rules`] and [`crate::columns`].
//!
//! A row is one version of a kind. Rows that come with the server are in [`table`]; those of
//! CustomResourceDefinitions come and go in the [`catalogue`].

mod catalogue;
mod event;
mod table;

use std::{borrow::Cow, fmt, sync::Arc};

use axum::response::Response;
use coracle_store::resources::{GroupResource, Key};
use futures::future::BoxFuture;
use serde_json::Value;

pub use self::catalogue::Catalogue;
pub(crate) use self::table::{CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES};
#[cfg(test)]
pub(crate) use self::table::{LEASES, PODS};
use crate::{
    columns::{self, Columns},
    crd::Schema,
    object,
    rules::Rules,
    server::Call,
    status::{Error, Subject},
};

/// A kind, shared by whoever uses it. It outlives its removal from the catalogue.
pub(crate) type KindRef = Arc<Kind>;

/// Text that is either part of the program or of a definition.
pub(crate) type Text = Cow<'static, str>;

/// Whether a kind's objects live in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Namespaced,
    Cluster,
}

/// A part of an object with a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subresource {
    Status,
    Scale,
    Log,
    Binding,
    Eviction,
    Finalize,
    Exec,
    Attach,
    PortForward,
    Token,
}

impl Subresource {
    /// Its segment of the path.
    pub(crate) const fn segment(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Log => "log",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Finalize => "finalize",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Token => "token",
        }
    }

    /// Whether it is a connection to what a Pod runs, in both directions.
    pub(crate) const fn is_stream(self) -> bool {
        matches!(self, Self::Exec | Self::Attach | Self::PortForward)
    }
}

/// A field that field selectors may name.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    /// As selectors name it.
    pub(crate) name: Text,
    /// Where it is in what is stored.
    pub(crate) pointer: Text,
    /// What its absence means.
    pub(crate) absent: &'static str,
}

/// A field whose absence is the same as empty text.
const fn field(name: &'static str, pointer: &'static str) -> Field {
    absent(name, pointer, "")
}

const fn absent(name: &'static str, pointer: &'static str, absent: &'static str) -> Field {
    Field {
        name: Text::Borrowed(name),
        pointer: Text::Borrowed(pointer),
        absent,
    }
}

/// What the server does with a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Handling {
    /// Its objects are kept.
    Stored,
    /// Its objects are kept, and not deleted many at a time.
    StoredSingly,
    /// Its objects are on their way out, with the kind: no more of them are made.
    Leaving,
    /// It is a question: the function answers the object that was sent, and nothing is kept.
    Answered(fn(Call, Value) -> BoxFuture<'static, Result<Response, Error>>),
}

/// Where an object says how many replicas it has, as JSON pointers.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    /// How many there are to be.
    pub(crate) replicas: Text,
    /// How many there are.
    pub(crate) current: Text,
    /// Which Pods they are.
    pub(crate) selector: Option<ScaleSelector>,
}

/// Where an object says which Pods are its replicas.
#[derive(Debug, Clone)]
pub(crate) enum ScaleSelector {
    /// As a label selector.
    Labels(Text),
    /// As text.
    Text(Text),
}

/// How the objects of a version differ from what is stored.
#[derive(Clone)]
pub(crate) struct Storage {
    /// The group that they are stored in.
    pub(crate) group: Text,
    /// The `apiVersion` that they are stored with.
    pub(crate) api_version: String,
    /// Makes an object of this version of a stored one. `apiVersion` is seen to.
    pub(crate) read: fn(&mut Value),
    /// Makes an object that can be stored of one of this version.
    pub(crate) write: fn(&mut Value),
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Storage").field(&self.api_version).finish()
    }
}

/// One version of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) group: Text,
    pub(crate) version: Text,
    pub(crate) plural: Text,
    pub(crate) singular: Text,
    pub(crate) kind: Text,
    pub(crate) list_kind: Text,
    pub(crate) short_names: Vec<Text>,
    pub(crate) categories: Vec<Text>,
    pub(crate) scope: Scope,
    pub(crate) handling: Handling,
    pub(crate) subresources: Vec<Subresource>,
    pub(crate) columns: Columns,
    pub(crate) fields: Vec<Field>,
    /// Whether `metadata.generation` counts changes of the spec.
    pub(crate) has_generation: bool,
    /// Whether DELETE answers with the object rather than with a `Status`.
    pub(crate) returns_deleted: bool,
    /// The `conditions` of an object's row in a table.
    pub(crate) row_conditions: fn(&Value) -> Option<Value>,
    pub(crate) rules: Rules,
    /// Where replicas are counted, for a kind that has them.
    pub(crate) scale: Option<Scale>,
    /// What a definition says of the objects, for a kind that comes from one.
    pub(crate) schema: Option<Arc<Schema>>,
    /// What is said to those who use a version that is going out of use.
    pub(crate) deprecation: Option<String>,
    /// None when objects are stored as they are served.
    pub(crate) storage: Option<Storage>,
}

impl Kind {
    /// A kind with nothing of its own but its names, whose objects live in namespaces.
    pub(crate) fn new(
        (group, version): (impl Into<Text>, impl Into<Text>),
        plural: impl Into<Text>,
        singular: impl Into<Text>,
        kind: impl Into<Text>,
    ) -> Self {
        let kind = kind.into();
        Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
            singular: singular.into(),
            list_kind: format!("{kind}List").into(),
            kind,
            short_names: Vec::new(),
            categories: Vec::new(),
            scope: Scope::Namespaced,
            handling: Handling::Stored,
            subresources: Vec::new(),
            columns: Columns::Fixed(columns::PLAIN),
            fields: Vec::new(),
            has_generation: false,
            returns_deleted: false,
            row_conditions: |_| None,
            rules: Rules::NONE,
            scale: None,
            schema: None,
            deprecation: None,
            storage: None,
        }
    }

    /// `v1`, `coordination.k8s.io/v1`.
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// Whether it comes from a definition rather than with the server.
    pub(crate) const fn is_custom(&self) -> bool {
        self.schema.is_some()
    }

    /// The schema of its objects as the definition has it, for a kind that comes from one.
    pub(crate) fn document(&self) -> Option<&Value> {
        self.schema.as_ref()?.document()
    }

    pub(crate) fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Whether its objects are kept.
    pub(crate) const fn is_stored(&self) -> bool {
        !matches!(self.handling, Handling::Answered(_))
    }

    /// What can be done at its path, as discovery says it.
    pub(crate) const fn verbs(&self) -> &'static [&'static str] {
        match self.handling {
            Handling::Stored => &[
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ],
            Handling::Leaving => &["delete", "deletecollection", "get", "list", "watch"],
            Handling::StoredSingly => &["create", "delete", "get", "list", "patch", "update", "watch"],
            Handling::Answered(_) => &["create"],
        }
    }

    pub(crate) fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// The kind as the store names it, whatever the version.
    pub(crate) fn resource(&self) -> GroupResource {
        let group = self
            .storage
            .as_ref()
            .map_or(&self.group, |storage| &storage.group);
        GroupResource::new(group.as_ref(), self.plural.as_ref())
    }

    /// An object of this kind as the store names it.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Key {
        Key {
            resource: self.resource(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// An object of this kind as errors name it.
    pub(crate) fn subject(self: &Arc<Self>, name: impl Into<String>) -> Subject {
        Subject {
            kind: Arc::clone(self),
            name: name.into(),
        }
    }

    /// An object as this version has it, of one as it is stored.
    pub(crate) fn served(&self, mut stored: Value) -> Value {
        if let Some(storage) = &self.storage {
            (storage.read)(&mut stored);
            stamp(&mut stored, self.api_version());
        }
        stored
    }

    /// An object as it is stored, of one as this version has it.
    pub(crate) fn stored(&self, mut served: Value) -> Value {
        if let Some(storage) = &self.storage {
            (storage.write)(&mut served);
            stamp(&mut served, storage.api_version.clone());
        }
        served
    }
}

fn stamp(object: &mut Value, api_version: String) {
    object::as_map(object).insert("apiVersion".to_owned(), api_version.into());
}

/// `v1`, `coordination.k8s.io/v1`.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// The same kind, in whatever version.
impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (&self.group, &self.plural) == (&other.group, &other.plural)
    }
}
