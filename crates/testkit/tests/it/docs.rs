//! `docs/errors.md` against the enum whose values it explains.

use std::collections::BTreeSet;

use coracle_api::reason::Reason;
use strum::IntoEnumIterator as _;

use crate::source::read;

#[test]
fn every_reason_has_its_section_and_no_other_does() {
    let page = read("docs/errors.md");
    let explained: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|name| name.trim().to_owned())
        .collect();
    let reasons: BTreeSet<String> = Reason::iter().map(|reason| reason.to_string()).collect();
    assert_eq!(
        explained, reasons,
        "`### Name` headings of docs/errors.md, and values of Reason"
    );
}

#[test]
fn every_hint_on_the_page_is_the_one_that_users_see() {
    let page = read("docs/errors.md");
    for reason in Reason::iter() {
        let section = page
            .split("\n### ")
            .find(|section| section.lines().next() == Some(reason.to_string().as_str()))
            .unwrap_or_default();
        let hint = format!("hint: {}", reason.hint());
        assert!(
            section.contains(&hint),
            "docs/errors.md, section {reason}: has no line `{hint}`"
        );
    }
}
