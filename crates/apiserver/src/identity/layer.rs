//! What every request goes through before its handler: who makes it, as whom, whether they may;
//! and what is written down of it afterwards.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    User, aggregate,
    attributes::Attributes,
    audit::Record,
    authenticate, impersonate,
    policy::{self, GROUP},
};
use crate::{
    request::Parameters,
    server::Options,
    status::{Denial, Error},
};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Who made a request, and what came of it before its handler.
#[derive(Debug, Default)]
struct Entry {
    user: Option<User>,
    acts_as: Option<User>,
    reason: String,
}

/// Lets a request through to its handler, or answers why not.
pub(crate) async fn layer(State(server): State<Arc<Options>>, mut request: Request, next: Next) -> Response {
    let received = Timestamp::now();
    // What is wrong with a query, its handler says.
    let parameters = Parameters::parse(request.uri()).unwrap_or_default();
    let asked = Attributes::of(request.method(), request.uri().path(), &parameters);
    let mut entry = Entry::default();
    let admitted = entry.admit(&server, &mut request, &asked, received).await;
    let may_want = server.identity.audit.wants(&asked, StatusCode::FORBIDDEN);
    let source = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|source| source.0);
    let (uri, agent) = if may_want {
        let agent = request.headers().get(header::USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        (request.uri().to_string(), agent.to_owned())
    } else {
        Default::default()
    };
    let mut response = match admitted {
        Ok(()) => {
            let user = entry.acts_as.as_ref().or(entry.user.as_ref());
            if let Some(user) = user {
                request.extensions_mut().insert(user.clone());
            }
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    let code = response.status();
    if code.is_success() && asked.is_write() && asked.group == GROUP && asked.resource == "clusterroles" {
        // What it is part of is as it is before anybody asks again.
        if let Err(error) = aggregate::aggregate(&server.resources).await {
            return Error::from(error).into_response();
        }
    }
    if server.identity.audit.wants(&asked, code) {
        let id = Uuid::new_v4();
        if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
            response.headers_mut().insert(AUDIT_ID, value);
        }
        let record = Record {
            id,
            asked: &asked,
            uri: &uri,
            user: entry.user.as_ref(),
            acts_as: entry.acts_as.as_ref(),
            source,
            agent: &agent,
            code,
            reason: &entry.reason,
            received,
            answered: Timestamp::now(),
        };
        server.identity.audit.write(&record).await;
    }
    response
}

impl Entry {
    async fn admit(
        &mut self,
        server: &Options,
        request: &mut Request,
        asked: &Attributes,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (identity, resources) = (&server.identity, &server.resources);
        let found =
            authenticate::authenticate(identity, resources, request.extensions(), request.headers(), now)
                .await;
        let user = found.map_err(|error| match error {
            authenticate::Error::Store(error) => error.into(),
            error => {
                tracing::debug!(%error, "a request was not authenticated");
                Error::Unauthorized
            }
        })?;
        request.headers_mut().remove(header::AUTHORIZATION);
        let acting = self.user.insert(user);
        if let Some(wish) = wish(request.headers_mut())? {
            for need in &wish.needs {
                let decision = policy::authorize(resources, acting, need).await?;
                if !decision.is_allowed {
                    return Err(denied(need, acting, &decision.reason));
                }
            }
            self.acts_as = Some(wish.user);
        }
        let user = self.acts_as.as_ref().unwrap_or(acting);
        let decision = policy::authorize(resources, user, asked).await?;
        let is_allowed = decision.is_allowed;
        self.reason = decision.reason;
        if is_allowed {
            Ok(())
        } else {
            Err(denied(asked, user, &self.reason))
        }
    }
}

fn wish(headers: &mut HeaderMap) -> Result<Option<impersonate::Wish>, Error> {
    impersonate::wish(headers).map_err(|error| Error::bad_request(error.to_string()))
}

fn denied(asked: &Attributes, user: &User, reason: &str) -> Error {
    let mut why = asked.refusal(&user.name);
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    Error::Denied(Box::new(Denial {
        group: asked.group.clone(),
        resource: asked.resource.clone(),
        name: asked.name.clone(),
        why,
    }))
}
