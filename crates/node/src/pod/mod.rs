//! One Pod on this machine.
//!
//! [`worker`] is the actor that sees a Pod through its life, [`container`] one container of it. [`status`], [`mod@env`],
//! [`mod@ignored`] and [`termination`] are pure; [`objects`] fetches what the Pod refers to, [`volumes`] lays it out on disk,
//! [`tokens`] keeps its tokens fresh.

pub(crate) mod container;
pub(crate) mod context;
pub(crate) mod env;
pub(crate) mod ignored;
pub(crate) mod objects;
pub(crate) mod status;
pub(crate) mod termination;
pub(crate) mod tokens;
pub(crate) mod volumes;
pub(crate) mod worker;
