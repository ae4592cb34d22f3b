//! Who makes a request, and what they may do. One middleware, `layer`, stands before every
//! handler: it finds out the user, lets them act as somebody else where they may, asks the roles,
//! and writes the audit log.
//!
//! - `user`: who there is; `tokens`, `authenticate`, `impersonate`: how they are known
//! - `attributes`, `rbac`, `policy`: what is asked, what rules allow, who has which rules
//! - `defaults`, `aggregate`, `escalation`: the roles there are, and who may change them
//! - `reviews`, `token_request`, `discovery`: what can be asked about all this
//! - `account`: what a ServiceAccount adds to a Pod, and its tokens in Secrets
//! - `audit`: who did what

pub(crate) mod account;
pub(crate) mod aggregate;
pub(crate) mod attributes;
pub mod audit;
pub(crate) mod authenticate;
pub(crate) mod defaults;
pub(crate) mod discovery;
pub(crate) mod escalation;
pub(crate) mod impersonate;
pub(crate) mod layer;
pub(crate) mod policy;
pub(crate) mod rbac;
pub(crate) mod reviews;
pub(crate) mod token_request;
pub(crate) mod tokens;
pub(crate) mod user;

use std::sync::Arc;

use ring::digest;

use self::{audit::Log, tokens::Signer};
pub use self::{tokens::BadKey, user::User};

/// Put into the extensions of a request by a listener that others than this machine's user can
/// reach: it must say who makes it. Without it, a request that does not is the administrator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRequired;

/// What identities are made and known by.
#[derive(Debug, Clone)]
pub struct Identity {
    signer: Arc<Signer>,
    /// SHA-256 of the administrator's token, so that comparing takes the same time for all.
    admin: Option<[u8; 32]>,
    authority: Option<Arc<str>>,
    audit: Log,
}

impl Identity {
    /// With a private key for tokens: ECDSA on P-256, in PKCS #8 DER.
    ///
    /// # Errors
    /// When the key is of another kind.
    pub fn new(key: &[u8]) -> Result<Self, BadKey> {
        Ok(Self::with(Signer::new(key)?))
    }

    /// With a key that lives as long as this process. For tests and examples.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn ephemeral() -> Result<Self, BadKey> {
        Ok(Self::with(Signer::ephemeral()?))
    }

    fn with(signer: Signer) -> Self {
        Self {
            signer: Arc::new(signer),
            admin: None,
            authority: None,
            audit: Log::off(),
        }
    }

    /// Whoever shows this token is the administrator.
    #[must_use]
    pub fn admin_token(mut self, token: &str) -> Self {
        self.admin = (!token.is_empty()).then(|| sha256(token));
        self
    }

    /// The certificate, in PEM, that signed the one that Pods are shown.
    #[must_use]
    pub fn authority(mut self, certificate: &str) -> Self {
        self.authority = Some(certificate.into());
        self
    }

    /// Where to write down who did what.
    #[must_use]
    pub fn audit(mut self, log: Log) -> Self {
        self.audit = log;
        self
    }

    fn is_admin_token(&self, token: &str) -> bool {
        self.admin == Some(sha256(token))
    }

    fn authority_pem(&self) -> Option<&str> {
        self.authority.as_deref()
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}
