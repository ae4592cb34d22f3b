//! The kinds of things that the pipelines API keeps, and finding one by what people type.

use serde_json::{Value, json};

use crate::{
    client::{Client, PIPELINES, is_not_found, segment},
    output::field,
    trouble::Trouble,
};

/// A kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// What people call it.
    pub(crate) word: &'static str,
    /// What people call several.
    pub(crate) plural: &'static str,
    /// Where they are.
    pub(crate) path: &'static str,
    /// The field of an answer that lists them.
    pub(crate) list: &'static str,
    /// The field with their id.
    pub(crate) id: &'static str,
    /// The field with their name.
    pub(crate) name: &'static str,
}

impl Kind {
    pub(crate) const RUN: Self = Self {
        word: "run",
        plural: "runs",
        path: "runs",
        list: "runs",
        id: "run_id",
        name: "display_name",
    };
    pub(crate) const EXPERIMENT: Self = Self {
        word: "experiment",
        plural: "experiments",
        path: "experiments",
        list: "experiments",
        id: "experiment_id",
        name: "display_name",
    };
    pub(crate) const PIPELINE: Self = Self {
        word: "pipeline",
        plural: "pipelines",
        path: "pipelines",
        list: "pipelines",
        id: "pipeline_id",
        name: "name",
    };
    pub(crate) const SCHEDULE: Self = Self {
        word: "schedule",
        plural: "schedules",
        path: "recurringruns",
        list: "recurringRuns",
        id: "recurring_run_id",
        name: "display_name",
    };
    pub(crate) const ARTIFACT: Self = Self {
        word: "artifact",
        plural: "artifacts",
        path: "artifacts",
        list: "artifacts",
        id: "artifact_id",
        name: "name",
    };

    /// The kind that a word names, in the singular or plural.
    pub(crate) fn named(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        let word = match word.as_str() {
            "recurringrun" | "recurringruns" | "recurring-run" | "recurring-runs" => "schedule",
            other => other,
        };
        [
            Self::RUN,
            Self::EXPERIMENT,
            Self::PIPELINE,
            Self::SCHEDULE,
            Self::ARTIFACT,
        ]
        .into_iter()
        .find(|kind| kind.word == word || kind.plural == word)
    }

    /// Where one of them is, or something below it.
    pub(crate) fn of(self, id: &str, rest: &str) -> String {
        format!("{PIPELINES}/{}/{}{rest}", self.path, segment(id))
    }

    /// The id of the one that is meant: by its id, the first or last characters of it, or its name.
    pub(crate) fn find(self, client: &Client, text: &str) -> anyhow::Result<String> {
        if is_id(text) {
            return match client.get(&self.of(text, ""), &[]) {
                Ok(_) => Ok(text.to_owned()),
                Err(error) if is_not_found(&error) => Err(self.none(text)),
                Err(error) => Err(error),
            };
        }
        let id_part = text.to_ascii_lowercase();
        let is_id_part = id_part
            .chars()
            .all(|char| char.is_ascii_hexdigit() || char == '-');
        if is_id_part && id_part.len() >= 4 {
            let found = self.search(client, "IS_SUBSTRING", self.id, &id_part)?;
            let ids: Vec<&str> = found
                .iter()
                .map(|one| field(one, self.id))
                .filter(|id| id.starts_with(&id_part) || id.ends_with(&id_part))
                .collect();
            if let Some(id) = self.only(text, &ids)? {
                return Ok(id);
            }
        }
        let found = self.search(client, "EQUALS", self.name, text)?;
        let ids: Vec<&str> = found.iter().map(|one| field(one, self.id)).collect();
        self.only(text, &ids)?.ok_or_else(|| self.none(text))
    }

    fn search(self, client: &Client, operation: &str, key: &str, value: &str) -> anyhow::Result<Vec<Value>> {
        let filter = json!({"predicates": [{"operation": operation, "key": key, "string_value": value}]});
        let query = [("filter", filter.to_string()), ("page_size", "200".to_owned())];
        let query: Vec<(&str, &str)> = query
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let page = client.get(&format!("{PIPELINES}/{}", self.path), &query)?;
        Ok(page[self.list].as_array().cloned().unwrap_or_default())
    }

    fn only(self, text: &str, ids: &[&str]) -> anyhow::Result<Option<String>> {
        match ids {
            [] => Ok(None),
            [id] => Ok(Some((*id).to_owned())),
            several => Err(Trouble::error(
                format!("{} {} match `{text}`", several.len(), self.plural),
                format!(
                    "give more of the id: {}",
                    several[..several.len().min(4)].join(", ")
                ),
            )),
        }
    }

    fn none(self, text: &str) -> anyhow::Error {
        Trouble::error(
            format!("no {} matches `{text}`", self.word),
            format!("`coracle get {}` lists them", self.plural),
        )
    }
}

/// Whether a text is a whole id.
fn is_id(text: &str) -> bool {
    text.parse::<coracle_api::id::RunId>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_an_id_must_be_of_one() {
        let only = |ids: &[&str]| Kind::RUN.only("a", ids);
        assert_eq!(only(&[]).expect("none"), None);
        assert_eq!(only(&["ab"]).expect("one"), Some("ab".to_owned()));
        let error = only(&["ab", "ac"]).expect_err("two").to_string();
        assert_eq!(error, "2 runs match `a`");
    }

    #[test]
    fn kinds_have_a_singular_and_a_plural() {
        assert_eq!(Kind::named("Run"), Some(Kind::RUN));
        assert_eq!(Kind::named("schedules"), Some(Kind::SCHEDULE));
        assert_eq!(Kind::named("recurring-runs"), Some(Kind::SCHEDULE));
        assert_eq!(Kind::named("pods"), None);
    }
}
