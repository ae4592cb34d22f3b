//! What the query says of a write, and who writes.

use http::{HeaderMap, header};

use crate::{
    admission::FieldValidation,
    patch::Patch,
    request::{self, Parameters},
    server::Call,
    status::Error,
    validation::Problems,
};

/// The longest name of a manager.
const MANAGER: usize = 128;

/// `CreateOptions`, `UpdateOptions`, `PatchOptions`.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) is_dry: bool,
    pub(crate) fields: FieldValidation,
    /// Who is said to manage what is written.
    pub(crate) manager: String,
    /// Whether an applier takes what others manage.
    pub(crate) is_forced: bool,
}

impl Options {
    pub(crate) fn parse(call: &Call, options: &'static str, patch: Option<&Patch>) -> Result<Self, Error> {
        let parameters = &call.parameters;
        let is_dry = parameters.dry_run(options)?;
        let fields = FieldValidation::parse(parameters, options)?;
        let is_apply = matches!(patch, Some(Patch::Apply(..)));
        let (manager, is_forced) = manager(parameters, options, patch.is_some(), is_apply)?;
        Ok(Self {
            is_dry,
            fields,
            manager: manager.unwrap_or_else(|| agent(&call.headers)),
            is_forced,
        })
    }
}

/// The manager that the query names, and whether it forces its way.
fn manager(
    parameters: &Parameters,
    options: &'static str,
    is_patch: bool,
    is_apply: bool,
) -> Result<(Option<String>, bool), Error> {
    let mut problems = Problems::default();
    let force = parameters.optional_flag("force").filter(|_| is_patch);
    if force.is_some() && !is_apply {
        problems.forbidden("force", "may not be specified for non-apply patch");
    }
    let manager = parameters.given("fieldManager");
    match manager {
        None if is_apply => problems.required("fieldManager", "is required for apply patch"),
        Some(name) if name.len() > MANAGER => problems.too_long("fieldManager", MANAGER),
        Some(name) if name.chars().any(char::is_control) => {
            problems.invalid("fieldManager", name, "should only contain printable characters");
        }
        _ => {}
    }
    request::invalid_options(options, problems)?;
    Ok((manager.map(str::to_owned), force == Some(true)))
}

/// The program that sends the request, as it names itself.
fn agent(headers: &HeaderMap) -> String {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    let name = agent.unwrap_or_default().split('/').next().unwrap_or_default();
    let name: String = name
        .chars()
        .filter(|one| !one.is_control())
        .take(MANAGER)
        .collect();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name
    }
}
