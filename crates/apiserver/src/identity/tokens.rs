//! ServiceAccount tokens: JSON Web Tokens signed with ES256, the one algorithm that is ever used
//! or taken. Pure: whether what a token was made for is still there, [`super::authenticate`] asks.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who signs, as the tokens say; also who they are for unless asked otherwise.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Who signs tokens that live in Secrets.
pub(crate) const SECRET_ISSUER: &str = "kubernetes/serviceaccount";

const ALGORITHM: &str = "ES256";
/// What comes before the point in the DER form of every P-256 public key.
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// How far clocks may be apart.
const LEEWAY: SignedDuration = SignedDuration::from_secs(10);

/// A token is not one that was made here, or not one for now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It is not a token at all.
    #[error("the token is malformed")]
    Malformed,
    /// Somebody else signed it.
    #[error("the token was not signed by this server")]
    Signature,
    /// Somebody else issued it.
    #[error("the token has been issued by {0:?}, which is not this server")]
    Issuer(String),
    /// Its time is over.
    #[error("service account token has expired")]
    Expired,
    /// Its time has not come.
    #[error("service account token is not valid yet")]
    Early,
    /// It is for somebody else.
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
}

/// The key that signs tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// It is of another kind, or damaged.
    #[error("the key that signs ServiceAccount tokens is not an ECDSA key on P-256 in PKCS #8: {0}")]
    Rejected(ring::error::KeyRejected),
    /// None was made.
    #[error("the system gives no random numbers, so no key could be made")]
    Unmade,
}

/// What signs tokens, and tells its own from others.
pub(crate) struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    key_id: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "one_or_many"
    )]
    pub(crate) aud: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) iat: Option<i64>,
    pub(crate) iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io", default, skip_serializing_if = "Option::is_none")]
    pub(crate) bound: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nbf: Option<i64>,
    pub(crate) sub: String,
    #[serde(flatten)]
    pub(crate) of_secret: OfSecret,
}

/// What a token is bound to: it ends with any of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
    pub(crate) serviceaccount: Reference,
}

/// One object of which there was never another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) uid: String,
}

/// What tokens that live in Secrets say instead of [`Bound`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct OfSecret {
    #[serde(
        rename = "kubernetes.io/serviceaccount/namespace",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) namespace: String,
    #[serde(
        rename = "kubernetes.io/serviceaccount/secret.name",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) secret: String,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.name",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) name: String,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.uid",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) uid: String,
}

impl Signer {
    /// From a private key in PKCS #8 DER.
    pub(crate) fn new(pkcs8: &[u8]) -> Result<Self, BadKey> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(BadKey::Rejected)?;
        let public = [&SPKI, pair.public_key().as_ref()].concat();
        let key_id = BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &public));
        Ok(Self { pair, random, key_id })
    }

    /// A key made for this process alone.
    pub(crate) fn ephemeral() -> Result<Self, BadKey> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let pkcs8 = pkcs8.map_err(|_| BadKey::Unmade)?;
        Self::new(pkcs8.as_ref())
    }

    /// The token that says so.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, ring::error::Unspecified> {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(&json!({"alg": ALGORITHM, "kid": self.key_id}));
        let claims = part(&serde_json::to_value(claims).map_err(|_| ring::error::Unspecified)?);
        let message = format!("{header}.{claims}");
        let signature = self.pair.sign(&self.random, message.as_bytes())?;
        Ok(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token says, if it was made here and is for now.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, Error> {
        let (message, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(Error::Malformed)?;
        let bytes = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Malformed);
        let header: Value = serde_json::from_slice(&bytes(header)?).map_err(|_| Error::Malformed)?;
        if header["alg"] != ALGORITHM {
            return Err(Error::Signature);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key())
            .verify(message.as_bytes(), &bytes(signature)?)
            .map_err(|_| Error::Signature)?;
        let claims: Claims = serde_json::from_slice(&bytes(claims)?).map_err(|_| Error::Malformed)?;
        claims.check_time(now)?;
        match claims.iss.as_str() {
            ISSUER if claims.bound.is_some() && claims.exp.is_some() => Ok(claims),
            SECRET_ISSUER if !claims.of_secret.secret.is_empty() => Ok(claims),
            ISSUER | SECRET_ISSUER => Err(Error::Malformed),
            other => Err(Error::Issuer(other.to_owned())),
        }
    }

    /// The public key as a JSON Web Key Set.
    pub(crate) fn key_set(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        // 0x04, then both coordinates.
        let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
        json!({"keys": [{
            "use": "sig",
            "kty": "EC",
            "kid": self.key_id,
            "crv": "P-256",
            "alg": ALGORITHM,
            "x": BASE64_URL_SAFE_NO_PAD.encode(x),
            "y": BASE64_URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

impl Claims {
    fn check_time(&self, now: Timestamp) -> Result<(), Error> {
        let at = |second: Option<i64>| second.and_then(|second| Timestamp::from_second(second).ok());
        if self.exp.is_some() && at(self.exp).is_none_or(|end| now >= end + LEEWAY) {
            return Err(Error::Expired);
        }
        if self.nbf.is_some() && at(self.nbf).is_none_or(|start| now + LEEWAY < start) {
            return Err(Error::Early);
        }
        Ok(())
    }

    /// Of whom the token may be used with, those that are wanted. A token that lives in a Secret
    /// is for the API.
    pub(crate) fn audiences(&self, wanted: &[String]) -> Result<Vec<String>, Error> {
        let own = if self.iss == SECRET_ISSUER {
            vec![ISSUER.to_owned()]
        } else {
            self.aud.clone()
        };
        let both: Vec<String> = own.iter().filter(|one| wanted.contains(one)).cloned().collect();
        if both.is_empty() {
            return Err(Error::Audience(own, wanted.to_vec()));
        }
        Ok(both)
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

/// Data of a Secret: bytes in base64.
pub(crate) fn secret_data(text: &str) -> Value {
    BASE64_STANDARD.encode(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn claims() -> Claims {
        Claims {
            aud: vec![ISSUER.to_owned()],
            exp: Some(NOW.as_second() + 3600),
            iat: Some(NOW.as_second()),
            iss: ISSUER.to_owned(),
            jti: "j".to_owned(),
            bound: Some(Bound {
                namespace: "team".to_owned(),
                serviceaccount: Reference {
                    name: "builder".to_owned(),
                    uid: "1".to_owned(),
                },
                ..Bound::default()
            }),
            nbf: Some(NOW.as_second()),
            sub: "system:serviceaccount:team:builder".to_owned(),
            of_secret: OfSecret::default(),
        }
    }

    fn body(token: &str) -> Value {
        let part = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn a_token_says_what_kubernetes_tokens_say() {
        let signer = Signer::ephemeral().unwrap();
        let token = signer.sign(&claims()).unwrap();
        assert_eq!(
            body(&token),
            json!({
                "aud": [ISSUER],
                "exp": 1_800_003_600,
                "iat": 1_800_000_000,
                "iss": ISSUER,
                "jti": "j",
                "kubernetes.io": {"namespace": "team", "serviceaccount": {"name": "builder", "uid": "1"}},
                "nbf": 1_800_000_000,
                "sub": "system:serviceaccount:team:builder",
            })
        );
        assert_eq!(signer.verify(&token, NOW), Ok(claims()));
    }

    #[test]
    fn a_token_is_refused_when_something_about_it_is_wrong() {
        let (signer, other) = (Signer::ephemeral().unwrap(), Signer::ephemeral().unwrap());
        let token = signer.sign(&claims()).unwrap();
        let (head, signature) = token.rsplit_once('.').unwrap();
        let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let unsigned = format!("{none}.{}.", head.split_once('.').unwrap().1);
        let mut elsewhere = claims();
        elsewhere.iss = "https://elsewhere".to_owned();
        let mut endless = claims();
        endless.exp = None;
        let after = |seconds: i64| NOW + SignedDuration::from_secs(seconds);
        for (what, token, now, expected) in [
            ("expired", token.clone(), after(3700), Error::Expired),
            ("early", token.clone(), after(-3600), Error::Early),
            ("other key", other.sign(&claims()).unwrap(), NOW, Error::Signature),
            ("unsigned", unsigned, NOW, Error::Signature),
            (
                "cut",
                format!("{head}.{}", &signature[1..]),
                NOW,
                Error::Malformed,
            ),
            ("opaque", "hunter2".to_owned(), NOW, Error::Malformed),
            (
                "other issuer",
                signer.sign(&elsewhere).unwrap(),
                NOW,
                Error::Issuer("https://elsewhere".to_owned()),
            ),
            (
                "without end",
                signer.sign(&endless).unwrap(),
                NOW,
                Error::Malformed,
            ),
        ] {
            let error = signer.verify(&token, now).unwrap_err();
            let is_same = error == expected || (what == "cut" && error == Error::Signature);
            assert!(is_same, "{what}: {error}");
        }
    }

    #[test]
    fn a_token_is_for_whom_it_was_made() {
        let wanted = |audience: &str| claims().audiences(&[audience.to_owned()]);
        assert_eq!(wanted(ISSUER), Ok(vec![ISSUER.to_owned()]));
        let message = wanted("vault").unwrap_err().to_string();
        assert_eq!(
            message,
            format!("token audiences [\"{ISSUER}\"] is invalid for the target audiences [\"vault\"]")
        );
    }

    #[test]
    fn the_public_key_is_published_under_the_id_that_tokens_name() {
        let signer = Signer::ephemeral().unwrap();
        let token = signer.sign(&claims()).unwrap();
        let header = BASE64_URL_SAFE_NO_PAD
            .decode(token.split('.').next().unwrap())
            .unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        let key = &signer.key_set()["keys"][0];
        assert_eq!(key["kid"], header["kid"]);
        for coordinate in ["x", "y"] {
            let bytes = BASE64_URL_SAFE_NO_PAD
                .decode(key[coordinate].as_str().unwrap())
                .unwrap();
            assert_eq!(bytes.len(), 32);
        }
    }
}
