//! CustomResourceDefinitions: what makes a kind of a definition, and what is asked of the objects
//! of that kind.
//!
//! - `structural`: whether a definition may be installed
//! - `definition`: its rows in the catalogue; `install`: when they are there
//! - `schema`: a version's schema; `shape`, `check`, `rules`: what it makes of an object, and what
//!   it finds wrong with one
//! - `columns`, `path`, `format`: what those refer to

mod check;
pub(crate) mod columns;
mod definition;
mod format;
mod install;
mod path;
mod rules;
mod schema;
pub(crate) mod shape;
pub(crate) mod structural;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

pub(crate) use self::{
    install::{CLEANUP, Definitions, refresh},
    schema::Schema,
};
use crate::{
    rules::{Rules, shape as shape_of},
    validation::Problems,
};

/// The rules of definitions themselves.
pub(crate) const RULES: Rules = Rules {
    shape: shape_of::<CustomResourceDefinition>,
    default: structural::default,
    initial_status: Some(structural::initial_status),
    check: structural::check,
    check_change: structural::check_change,
    ..Rules::NONE
};

/// What is wrong with a custom object by its schema. `old` is what it was before.
pub(crate) fn check_object(schema: &Schema, object: &Value, old: Option<&Value>, problems: &mut Problems) {
    check::check(schema, object, old, problems);
    if !schema.has_rules() {
        return;
    }
    if problems.are_fundamental() {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing \
             errors to complete validation";
        problems.invalid(check::NOWHERE, "null", detail);
    } else {
        rules::check(schema, object, old, problems);
    }
}
