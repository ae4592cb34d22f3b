//! `POST …/serviceaccounts/{name}/token`: a token of the ServiceAccount, for a time, and for as
//! long as the object it is bound to is there.

use std::sync::Arc;

use axum::response::Response;
use coracle_store::resources::{GroupResource, Key};
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    tokens::{Bound, Claims, ISSUER, OfSecret, Reference},
    user::service_account_name,
};
use crate::{
    body,
    kinds::{Kind, Text},
    object,
    server::Call,
    status::Error,
    validation::Problems,
};

const GROUP: &str = "authentication.k8s.io";
const HOUR: i64 = 3600;
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

/// Answers POST of a TokenRequest.
pub(crate) async fn create(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let request = body::decode_object(&call.headers, bytes)?;
    check(call, &request)?;
    let (namespace, name) = (&call.target.namespace, &call.target.name);
    let account = call.resources().get(&call.key()).await?;
    let account = account.ok_or_else(|| Error::not_found(call.kind(), name))?;
    let audiences: Vec<String> = object::list(&request, "/spec/audiences")
        .iter()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    let audiences = if audiences.is_empty() {
        vec![ISSUER.to_owned()]
    } else {
        audiences
    };
    let seconds = match object::number(&request, "/spec/expirationSeconds") {
        0 => HOUR,
        seconds => seconds,
    };
    let mut bound = Bound {
        namespace: namespace.clone(),
        serviceaccount: Reference {
            name: name.clone(),
            uid: object::uid(&account.body).to_owned(),
        },
        ..Bound::default()
    };
    bind(call, &request, &mut bound).await?;
    let now = call.now.as_second();
    let claims = Claims {
        aud: audiences.clone(),
        exp: Some(now + seconds),
        iat: Some(now),
        iss: ISSUER.to_owned(),
        jti: Uuid::new_v4().to_string(),
        bound: Some(bound),
        nbf: Some(now),
        sub: service_account_name(namespace, name),
        of_secret: OfSecret::default(),
    };
    let signed = call.server.identity.signer.sign(&claims);
    let token = signed.map_err(|_| Error::Internal("a token could not be signed".to_owned()))?;
    let mut spec = json!({"audiences": audiences, "expirationSeconds": seconds});
    spec["boundObjectRef"] = request
        .pointer("/spec/boundObjectRef")
        .cloned()
        .unwrap_or_default();
    let expires = object::time(call.now + SignedDuration::from_secs(seconds));
    let answer = json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": object::time(call.now)},
        "spec": spec,
        "status": {"token": token, "expirationTimestamp": expires},
    });
    Ok(call.reply(StatusCode::CREATED, &answer))
}

fn check(call: &Call, request: &Value) -> Result<(), Error> {
    let mut problems = Problems::default();
    let field = "spec.expirationSeconds";
    match request.pointer("/spec/expirationSeconds") {
        None | Some(Value::Null) => {}
        Some(seconds) => match seconds.as_i64() {
            Some(..SHORTEST) => {
                problems.invalid(
                    field,
                    seconds.clone(),
                    "may not specify a duration less than 10 minutes",
                );
            }
            Some(seconds) if seconds > LONGEST => {
                problems.invalid(
                    field,
                    seconds,
                    "may not specify a duration larger than 2^32 seconds",
                );
            }
            Some(_) => {}
            None => problems.invalid(field, seconds.clone(), "must be a number of seconds"),
        },
    }
    if problems.is_empty() {
        return Ok(());
    }
    let kind = Kind {
        group: Text::Borrowed(GROUP),
        kind: Text::Borrowed("TokenRequest"),
        ..Kind::clone(call.kind())
    };
    Err(Error::Invalid {
        subject: Arc::new(kind).subject(&call.target.name),
        problems,
    })
}

/// Binds the token to the object that is asked for.
async fn bind(call: &Call, request: &Value, bound: &mut Bound) -> Result<(), Error> {
    let wanted = request
        .pointer("/spec/boundObjectRef")
        .filter(|wanted| wanted.is_object());
    let Some(wanted) = wanted else { return Ok(()) };
    let (kind, name) = (object::text(wanted, "/kind"), object::text(wanted, "/name"));
    let version = object::text(wanted, "/apiVersion");
    let plural = match (version, kind) {
        ("v1", "Pod") => "pods",
        ("v1", "Secret") => "secrets",
        ("v1", "Node") => "nodes",
        _ => {
            let message = format!("cannot bind token to object of type {version}, Kind={kind}");
            return Err(Error::BadRequest(message));
        }
    };
    let found = get(
        call,
        plural,
        if kind == "Node" {
            ""
        } else {
            &call.target.namespace
        },
        name,
    )
    .await?;
    let named = |kind: &str| call.server.catalogue.named("v1", kind);
    let found = match (found, named(kind)) {
        (Some(found), _) => found,
        (None, Some(kind)) => return Err(Error::not_found(&kind, name)),
        (None, None) => return Err(Error::NoSuchPath),
    };
    let uid = object::uid(&found).to_owned();
    let asked = object::text(wanted, "/uid");
    if !asked.is_empty() && asked != uid {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might \
             have been deleted and then recreated"
        );
        return Err(match named(kind) {
            Some(kind) => Error::conflict(&kind, name, why),
            None => Error::BadRequest(why),
        });
    }
    let reference = |name: &str, uid: String| {
        Some(Reference {
            name: name.to_owned(),
            uid,
        })
    };
    match kind {
        "Pod" => {
            let account = object::text(&found, "/spec/serviceAccountName");
            if account != call.target.name {
                return Err(Error::BadRequest(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    call.target.name
                )));
            }
            let node = object::text(&found, "/spec/nodeName");
            if !node.is_empty() {
                let uid = get(call, "nodes", "", node).await?;
                let uid = uid.map(|node| object::uid(&node).to_owned());
                bound.node = reference(node, uid.unwrap_or_default());
            }
            bound.pod = reference(name, uid);
        }
        "Secret" => bound.secret = reference(name, uid),
        _ => bound.node = reference(name, uid),
    }
    Ok(())
}

async fn get(call: &Call, plural: &str, namespace: &str, name: &str) -> Result<Option<Value>, Error> {
    let key = Key {
        resource: GroupResource::new("", plural),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    Ok(call
        .resources()
        .get(&key)
        .await?
        .map(|found| Value::clone(&found.body)))
}
