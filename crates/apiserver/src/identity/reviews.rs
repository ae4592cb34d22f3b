//! Questions about who somebody is and what they may do. They are asked by creating an object,
//! and nothing is stored.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    User,
    attributes::Attributes,
    authenticate,
    policy::{self, Grants},
    tokens::ISSUER,
};
use crate::{object, server::Call, status::Error, validation::Problems};

/// Answers a TokenReview: whose token it is.
pub(crate) async fn token(call: Call, review: Value) -> Result<Response, Error> {
    let token = object::text(&review, "/spec/token");
    if token.is_empty() {
        return Err(Error::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let asked = strings(&review, "/spec/audiences");
    let audiences = if asked.is_empty() {
        vec![ISSUER.to_owned()]
    } else {
        asked
    };
    let found = authenticate::of_token(
        &call.server.identity,
        call.resources(),
        token,
        &audiences,
        call.now,
    )
    .await;
    let status = match found {
        Ok((user, audiences)) => {
            json!({"authenticated": true, "user": user.info(), "audiences": audiences})
        }
        Err(authenticate::Error::Store(error)) => return Err(error.into()),
        Err(error) => json!({"user": {}, "error": format!("[invalid bearer token, {error}]")}),
    };
    Ok(answer(&call, review, status))
}

/// Answers a SelfSubjectReview: who asks.
pub(crate) async fn whoami(call: Call, review: Value) -> Result<Response, Error> {
    let status = json!({"userInfo": call.user.info()});
    Ok(answer(&call, review, status))
}

/// Answers a SubjectAccessReview: whether somebody may do something.
pub(crate) async fn access(call: Call, review: Value) -> Result<Response, Error> {
    let mut problems = Problems::default();
    let asked = asked(&review, &mut problems);
    let user = User {
        name: object::text(&review, "/spec/user").to_owned(),
        uid: object::text(&review, "/spec/uid").to_owned(),
        groups: strings(&review, "/spec/groups"),
        extra: Default::default(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        problems.invalid("spec.user", "", "at least one of user or group must be specified");
    }
    check(&call, problems)?;
    decide(call, review, &user, asked).await
}

/// Answers a LocalSubjectAccessReview: the same, in one namespace.
pub(crate) async fn local_access(call: Call, review: Value) -> Result<Response, Error> {
    let given = object::text(&review, "/spec/resourceAttributes/namespace");
    if review
        .pointer("/spec/nonResourceAttributes")
        .is_some_and(|other| !other.is_null())
    {
        let mut problems = Problems::default();
        problems.invalid(
            "spec.nonResourceAttributes",
            "",
            "disallowed on this kind of request",
        );
        check(&call, problems)?;
    }
    if given != call.target.namespace {
        let mut problems = Problems::default();
        let detail = "must match metadata.namespace";
        problems.invalid("spec.resourceAttributes.namespace", given, detail);
        check(&call, problems)?;
    }
    access(call, review).await
}

/// Answers a SelfSubjectAccessReview: whether the caller may do something.
pub(crate) async fn own_access(call: Call, review: Value) -> Result<Response, Error> {
    let mut problems = Problems::default();
    let asked = asked(&review, &mut problems);
    check(&call, problems)?;
    let user = call.user.clone();
    decide(call, review, &user, asked).await
}

/// Answers a SelfSubjectRulesReview: everything that the caller may do in a namespace.
pub(crate) async fn own_rules(call: Call, review: Value) -> Result<Response, Error> {
    let namespace = object::text(&review, "/spec/namespace");
    if namespace.is_empty() {
        return Err(Error::bad_request("no namespace on request"));
    }
    let rules = Grants::of(call.resources(), &call.user, namespace).await?.rules();
    let (paths, resources): (Vec<_>, Vec<_>) = rules
        .into_iter()
        .partition(|rule| !rule.non_resource_urls.is_empty());
    let status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    Ok(answer(&call, review, status))
}

async fn decide(call: Call, review: Value, user: &User, asked: Attributes) -> Result<Response, Error> {
    let decision = policy::authorize(call.resources(), user, &asked).await?;
    let mut status = json!({"allowed": decision.is_allowed});
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    Ok(answer(&call, review, status))
}

/// What a review asks about.
fn asked(review: &Value, problems: &mut Problems) -> Attributes {
    let part = |name: &str| {
        let part = review.pointer("/spec").and_then(|spec| spec.get(name));
        part.filter(|part| part.is_object())
    };
    let text = |part: &Value, field: &str| {
        let value = part.get(field).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    match (part("resourceAttributes"), part("nonResourceAttributes")) {
        (Some(resource), None) => Attributes {
            verb: text(resource, "verb"),
            group: text(resource, "group"),
            version: text(resource, "version"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            path: String::new(),
        },
        (None, Some(path)) => Attributes {
            verb: text(path, "verb"),
            path: text(path, "path"),
            ..Attributes::default()
        },
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            problems.invalid("spec.resourceAttributes", Value::Null, detail);
            Attributes::default()
        }
        (Some(_), Some(path)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            problems.invalid("spec.nonResourceAttributes", path.clone(), detail);
            Attributes::default()
        }
    }
}

fn check(call: &Call, problems: Problems) -> Result<(), Error> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid {
        subject: call.kind().subject(""),
        problems,
    })
}

fn strings(object: &Value, pointer: &str) -> Vec<String> {
    let items = object::list(object, pointer).iter();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// The review as it came, with its answer.
fn answer(call: &Call, review: Value, status: Value) -> Response {
    let kind = call.kind();
    let mut answer = Map::new();
    answer.insert("kind".to_owned(), (*kind.kind).into());
    answer.insert("apiVersion".to_owned(), kind.api_version().into());
    let mut metadata = review
        .get("metadata")
        .cloned()
        .filter(Value::is_object)
        .unwrap_or_else(|| json!({}));
    object::default(object::as_map(&mut metadata), "creationTimestamp", Value::Null);
    answer.insert("metadata".to_owned(), metadata);
    if let Some(spec) = review.get("spec") {
        answer.insert("spec".to_owned(), spec.clone());
    }
    answer.insert("status".to_owned(), status);
    call.reply(StatusCode::CREATED, &Value::Object(answer))
}
