//! Cycles: tasks that wait for each other, components that hold themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::Problem;
use crate::ir::{DagSpec, PipelineSpec};

/// Tasks that wait for each other, the first one again at the end.
pub(super) fn of_tasks(dag: &DagSpec) -> Option<Vec<String>> {
    let upstream = |name: &str| -> Vec<&str> {
        let task = dag.tasks.get(name);
        task.map(|task| {
            task.upstream()
                .filter(|name| dag.tasks.contains_key(*name))
                .collect()
        })
        .unwrap_or_default()
    };
    cycle_in(dag.tasks.keys().map(String::as_str), upstream)
}

/// Refuses a component that is its own part.
pub(super) fn check_no_component_holds_itself(spec: &PipelineSpec) -> Result<(), Problem> {
    let inside = |name: &str| -> Vec<&str> {
        let dag = spec
            .components
            .get(name)
            .and_then(|component| component.dag.as_ref());
        dag.map(|dag| {
            dag.tasks
                .values()
                .map(|task| task.component_ref.name.as_str())
                .collect()
        })
        .unwrap_or_default()
    };
    match cycle_in(spec.components.keys().map(String::as_str), inside) {
        None => Ok(()),
        Some(cycle) => {
            let message = format!("the component holds itself, without end: {}", cycle.join(" → "));
            Err(Problem::at(format!("components.{}", cycle[0]), message))
        }
    }
}

/// The first cycle of a graph, found without recursion: documents may be deep.
fn cycle_in<'a>(
    nodes: impl Iterator<Item = &'a str>,
    next: impl Fn(&str) -> Vec<&'a str>,
) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    for start in nodes {
        let mut path: Vec<(&str, Vec<&str>)> = vec![(start, next(start))];
        let mut position = BTreeMap::from([(start, 0)]);
        while let Some((node, rest)) = path.last_mut() {
            match rest.pop() {
                Some(other) => {
                    if let Some(first) = position.get(other) {
                        let mut cycle: Vec<String> = path[*first..]
                            .iter()
                            .map(|(name, _)| (*name).to_owned())
                            .collect();
                        cycle.push(other.to_owned());
                        return Some(cycle);
                    }
                    if !done.contains(other) {
                        position.insert(other, path.len());
                        path.push((other, next(other)));
                    }
                }
                None => {
                    done.insert(*node);
                    position.remove(*node);
                    path.pop();
                }
            }
        }
    }
    None
}
