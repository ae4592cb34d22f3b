//! Finds out who makes a request. A token is of somebody only as long as the ServiceAccount, and
//! the Pod or Secret that it is bound to, are there.

use coracle_store::resources::{self, GroupResource, Key, Resources};
use http::{Extensions, HeaderMap, header};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Identity, TokenRequired, User,
    tokens::{self, Claims, ISSUER, Reference, SECRET_ISSUER},
    user::as_service_account,
};
use crate::object;

/// Nobody is known to make this request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It says nothing of who makes it, and has to.
    #[error("no credentials were given")]
    Missing,
    /// The token is not good.
    #[error(transparent)]
    Token(#[from] tokens::Error),
    /// The ServiceAccount of the token is gone.
    #[error("service account {0} has been deleted")]
    AccountGone(String),
    /// There is another ServiceAccount of that name now.
    #[error("service account UID ({is}) does not match claim ({claim})")]
    OtherAccount { is: String, claim: String },
    /// What the token is bound to is gone.
    #[error("service account token has been invalidated: {0} is gone")]
    BoundGone(String),
    /// The store failed.
    #[error("the store could not say whether the token is good")]
    Store(#[from] resources::Error),
}

/// Who makes a request.
pub(crate) async fn authenticate(
    identity: &Identity,
    resources: &Resources,
    extensions: &Extensions,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<User, Error> {
    if let Some(user) = extensions.get::<User>() {
        return Ok(user.clone());
    }
    match bearer(headers) {
        Some(token) => {
            let audience = [ISSUER.to_owned()];
            let (user, _) = of_token(identity, resources, token, &audience, now).await?;
            Ok(user)
        }
        None if extensions.get::<TokenRequired>().is_some() => Err(Error::Missing),
        None => Ok(User::admin()),
    }
}

/// The token in the `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Whose token it is, and with whom of the audiences it may be used.
pub(crate) async fn of_token(
    identity: &Identity,
    resources: &Resources,
    token: &str,
    audiences: &[String],
    now: Timestamp,
) -> Result<(User, Vec<String>), Error> {
    if identity.is_admin_token(token) {
        return Ok((User::admin(), audiences.to_vec()));
    }
    let claims = identity.signer.verify(token, now)?;
    let both = claims.audiences(audiences)?;
    Ok((of_claims(resources, &claims).await?, both))
}

async fn of_claims(resources: &Resources, claims: &Claims) -> Result<User, Error> {
    let get = |resource: &str, namespace: &str, name: &str| {
        let key = Key {
            resource: GroupResource::new("", resource),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        async move { resources.get(&key).await }
    };
    let of_secret = &claims.of_secret;
    let (namespace, account) = match &claims.bound {
        Some(bound) if claims.iss != SECRET_ISSUER => {
            (bound.namespace.as_str(), bound.serviceaccount.clone())
        }
        _ => {
            let account = Reference {
                name: of_secret.name.clone(),
                uid: of_secret.uid.clone(),
            };
            (of_secret.namespace.as_str(), account)
        }
    };
    if as_service_account(&claims.sub) != Some((namespace, account.name.as_str())) {
        return Err(tokens::Error::Malformed.into());
    }
    let name = format!("{namespace}/{}", account.name);
    let found = get("serviceaccounts", namespace, &account.name).await?;
    let found = found.ok_or(Error::AccountGone(name))?;
    let uid = object::uid(&found.body).to_owned();
    if uid != account.uid {
        return Err(Error::OtherAccount {
            is: uid,
            claim: account.uid,
        });
    }
    let mut user = User::service_account(namespace, &account.name, &uid);
    let Some(bound) = claims.bound.as_ref().filter(|_| claims.iss != SECRET_ISSUER) else {
        let secret = get("secrets", namespace, &of_secret.secret).await?;
        return match secret {
            Some(_) => Ok(user),
            None => Err(Error::BoundGone(format!(
                "secret {namespace}/{}",
                of_secret.secret
            ))),
        };
    };
    for (plural, noun, reference) in [("pods", "pod", &bound.pod), ("secrets", "secret", &bound.secret)] {
        let Some(reference) = reference else { continue };
        let found = get(plural, namespace, &reference.name).await?;
        let is_same = |body: &Value| object::uid(body) == reference.uid;
        if !found.is_some_and(|found| is_same(&found.body)) {
            return Err(Error::BoundGone(format!("{noun} {namespace}/{}", reference.name)));
        }
    }
    let mut extra = |key: &str, value: &str| {
        let key = format!("authentication.kubernetes.io/{key}");
        user.extra.insert(key, vec![value.to_owned()]);
    };
    if !claims.jti.is_empty() {
        extra("credential-id", &format!("JTI={}", claims.jti));
    }
    for (noun, reference) in [("node", &bound.node), ("pod", &bound.pod)] {
        if let Some(reference) = reference {
            extra(&format!("{noun}-name"), &reference.name);
            extra(&format!("{noun}-uid"), &reference.uid);
        }
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_its_header_alone() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic abc", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer(&headers), expected, "{value}");
        }
    }
}
