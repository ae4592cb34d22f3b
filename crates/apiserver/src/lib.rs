//! The embedded Kubernetes API: what `kubectl` and every Kubernetes client speak, over the
//! objects of [`coracle_store::resources`]. It runs nothing: controllers and the node do, as
//! clients of this API. A client in the same process needs no socket: a `kube::Client` takes the
//! router as its service.
//!
//! - [`router`]: the API as an axum router; [`bootstrap()`]: what must be there before it serves
//! - [`collect_garbage`]: removes what has lost its owner, and empties namespaces that go
//! - [`Catalogue`]: the kinds, from the table in `kinds`; `rules` and `columns`: what a row of it refers to
//! - `crd`: kinds that come from CustomResourceDefinitions
//! - `request`, `negotiate`, `body`, `protobuf`, `selector`: reading requests
//! - `admission`, `deletion`, `patch`, `managed`, `validation`: deciding what a write does. Pure
//! - `structure`: how the values of a kind are merged, by patches and by server-side apply
//! - `reserve`: what an object may have beside others: addresses, quotas, limits
//! - [`identity`]: who makes a request, what they may do, and the log of it
//! - `handlers`: the verbs; `render`, `status`: answers; `discovery`, `openapi`: what there is
//!
//! The engine is one for all kinds: to serve another, add a row.

mod admission;
mod body;
mod bootstrap;
mod columns;
mod crd;
mod deletion;
mod discovery;
mod gc;
mod handlers;
pub mod identity;
mod kinds;
mod managed;
mod negotiate;
mod object;
mod openapi;
mod patch;
mod protobuf;
mod render;
mod request;
mod reserve;
mod rules;
mod selector;
mod server;
mod status;
mod structure;
mod validation;

use coracle_store::resources::{self, Resources};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

pub use self::{
    bootstrap::publish_api,
    gc::collect_garbage,
    kinds::Catalogue,
    reserve::Reserve,
    server::{Options, router},
};

/// Makes the namespaces and roles that are always there, and finds out which kinds are served. May be run
/// again at any time.
///
/// # Errors
///
/// When the store fails.
pub async fn bootstrap(resources: &Resources) -> Result<Catalogue, BootstrapError> {
    for name in rules::namespace::PERMANENT {
        let namespace = json!({"metadata": {"name": name}});
        let (kind, mut fields) = (&kinds::NAMESPACES, admission::FieldValidation::strict());
        let admitted = admission::create(kind, "", namespace, &mut fields, Uuid::now_v7(), Timestamp::now());
        let namespace = admitted.map_err(|error| BootstrapError::Refused(error.to_string()))?;
        match resources.create(kind.key("", name), namespace).await {
            Ok(_) | Err(resources::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(BootstrapError::Store(error)),
        }
        let made = identity::account::make_default(resources, name, Timestamp::now()).await;
        made.map_err(BootstrapError::Store)?;
    }
    let roles = identity::defaults::reconcile(resources, Timestamp::now()).await;
    roles.map_err(BootstrapError::Store)?;
    let catalogue = Catalogue::default();
    crd::refresh(resources, &catalogue)
        .await
        .map_err(BootstrapError::Store)?;
    bootstrap::objects(resources, &catalogue).await?;
    Ok(catalogue)
}

/// The API could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The store failed.
    #[error("what is always there could not be made, or the definitions of kinds not read")]
    Store(#[source] resources::Error),
    /// A rule of the API refuses what the API itself makes.
    #[error("an object that is always there was refused: {0}")]
    Refused(String),
}
