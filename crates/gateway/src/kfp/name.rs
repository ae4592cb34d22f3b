//! Names that users choose: present, printable, and no longer than KFP's columns.

use std::collections::BTreeMap;

use super::error::Error;

/// The longest name of an experiment.
pub(super) const EXPERIMENT_NAME: usize = 128;
/// The longest name of a pipeline.
pub(super) const PIPELINE_NAME: usize = 128;
/// The longest name of a version.
pub(super) const VERSION_NAME: usize = 127;
/// The longest name of an artifact.
pub(super) const ARTIFACT_NAME: usize = 256;
/// The longest name of a recurring run.
pub(super) const RECURRING_RUN_NAME: usize = 128;
/// The longest name of a run: KFP's SDK adds a time to a pipeline's name.
pub(super) const RUN_NAME: usize = 256;
/// The longest name and the longest value of a tag.
const TAG: usize = 256;

/// The name, if it can be one for a `kind`.
pub(super) fn checked(kind: &str, longest: usize, name: Option<String>) -> Result<String, Error> {
    let name = name.unwrap_or_default();
    if name.trim().is_empty() {
        return Err(Error::Invalid(format!(
            "the {kind} has no name: set `display_name`"
        )));
    }
    let length = name.chars().count();
    if length > longest {
        return Err(Error::Invalid(format!(
            "the {kind}'s name has {length} characters: {longest} is the most"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::Invalid(format!(
            "the {kind}'s name {name:?} has characters that cannot be printed"
        )));
    }
    Ok(name)
}

/// The tags, if they can be some: each has a name.
pub(super) fn checked_tags(tags: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    for (name, value) in &tags {
        if name.trim().is_empty() {
            return Err(Error::Invalid("a tag has no name".to_owned()));
        }
        let length = name.chars().count().max(value.chars().count());
        if length > TAG {
            return Err(Error::Invalid(format!(
                "the tag `{name}` is too long: {TAG} characters are the most for its name and its value"
            )));
        }
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_present_printable_and_short() {
        let check = |name: Option<&str>, expect: bool| {
            assert_eq!(
                checked("run", 5, name.map(str::to_owned)).is_ok(),
                expect,
                "{name:?}"
            );
        };
        check(None, false);
        check(Some(""), false);
        check(Some("  "), false);
        check(Some("a b"), true);
        check(Some("äöüßé"), true);
        check(Some("abcdef"), false);
        check(Some("a\nb"), false);
        check(Some("a\0"), false);
    }
}
