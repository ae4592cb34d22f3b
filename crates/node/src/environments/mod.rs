//! From a container's image to what is on this machine.
//!
//! [`table`] is pure: which image means which kind of environment. [`interpreters`] finds Python on this machine,
//! [`python`] makes and keeps virtual environments, [`pip`] reads where packages come from.

pub(crate) mod interpreters;
pub(crate) mod pip;
pub(crate) mod python;
pub(crate) mod table;

use std::path::{Path, PathBuf};

use coracle_api::ir::preamble::Requirements;

use self::python::{Environments, Resolved, is_whole};

/// The folder of the Python environment that a container of `image` has, with the packages that its Pod asks
/// for; made if it is not there. None when the container has this machine's own programs.
///
/// # Errors
/// In one sentence, why there is no such environment.
pub async fn environment(
    data_dir: &Path,
    image: &str,
    requirements: Option<&Requirements>,
) -> Result<Option<PathBuf>, String> {
    // Whichever the node has made, and else one whose files are its own.
    for may_link in [true, false] {
        let environments = Environments::new(data_dir, may_link).map_err(|error| error.to_string())?;
        let resolved = environments
            .resolve(image, requirements)
            .await
            .map_err(|problem| problem.message)?;
        match resolved {
            Resolved::Host | Resolved::Container => return Ok(None),
            Resolved::Python(plan) if may_link && !is_whole(&plan.dir) => {}
            Resolved::Python(plan) => {
                environments
                    .make(&plan)
                    .await
                    .map_err(|problem| problem.message)?;
                return Ok(Some(plan.dir.clone()));
            }
        }
    }
    Ok(None)
}
