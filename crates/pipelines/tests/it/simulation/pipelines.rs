//! Pipelines made up from a seed: chains and DAGs in DAGs, loops, conditions, retries, exit tasks,
//! cached tasks, values handed on.
//!
//! A task's name begins with what it is: `t` a task, `k` one whose results are kept in the cache,
//! `d` a DAG, and loops over these: `u`, `m`, `l`.

use serde_json::{Map, Value, json};

use super::dice::Dice;

/// How many tasks a pipeline may have, iterations not counted.
const MOST_TASKS: usize = 10;
/// How deep DAGs may be in each other.
const DEPTH: usize = 3;

/// A pipeline made up from `dice`.
pub(super) fn pipeline(dice: &mut Dice) -> Value {
    let mut making = Making {
        components: Map::new(),
        left: MOST_TASKS,
    };
    let mut root = making.dag(dice, 0);
    if dice.chance(30) {
        let inside = making.keep(root);
        let mut last = json!({"componentRef": {"name": "task"}, "dependentTasks": ["d0"],
            "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}});
        retry(dice, &mut last);
        root = json!({"tasks": {"d0": {"componentRef": {"name": inside}}, "t1": last}});
    }
    let mut components = making.components;
    let leaf = |executor: &str| {
        json!({
            "executorLabel": executor,
            "inputDefinitions": given(),
            "outputDefinitions": {"parameters": {"out": {"parameterType": "STRING"}}},
        })
    };
    components.insert("task".to_owned(), leaf("run"));
    components.insert("kept".to_owned(), leaf("keep"));
    json!({
        "pipelineInfo": {"name": "made-up"},
        "schemaVersion": "2.1.0",
        "root": {"dag": root},
        "components": components,
        "deploymentSpec": {"executors": {
            "run": {"container": {"image": "alpine", "command": ["true"]}},
            "keep": {"container": {"image": "alpine", "command": ["true"]}},
        }},
    })
}

/// What every component may be given.
fn given() -> Value {
    json!({"parameters": {
        "x": {"parameterType": "STRING", "isOptional": true},
        "item": {"parameterType": "NUMBER_INTEGER", "isOptional": true},
    }})
}

fn retry(dice: &mut Dice, task: &mut Value) {
    if dice.chance(35) {
        let wait = dice.pick(&["0s", "5s", "40s"]);
        task["retryPolicy"] = json!({"maxRetryCount": 1 + dice.below(2), "backoffDuration": wait});
    }
}

struct Making {
    components: Map<String, Value>,
    left: usize,
}

impl Making {
    /// A DAG's component, and its name.
    fn keep(&mut self, dag: Value) -> String {
        let name = format!("comp-{}", self.components.len());
        let component = json!({"dag": dag, "inputDefinitions": given()});
        self.components.insert(name.clone(), component);
        name
    }

    fn dag(&mut self, dice: &mut Dice, depth: usize) -> Value {
        let most = if depth == 0 { 6 } else { 4 };
        let mut tasks = Map::new();
        for index in 0..=dice.below(most) {
            if self.left == 0 && index > 0 {
                break;
            }
            self.left = self.left.saturating_sub(1);
            let (kind, component) = self.what(dice, depth);
            let mut task = json!({"componentRef": {"name": component}});
            if matches!(kind, 'u' | 'm' | 'l') {
                let items: Vec<usize> = (0..dice.below(4)).collect();
                task["parameterIterator"] =
                    json!({"itemInput": "item", "items": {"raw": json!(items).to_string()}});
                task["iteratorPolicy"] = json!({"parallelismLimit": dice.below(3)});
            }
            if matches!(kind, 'k' | 'm') {
                task["cachingOptions"] = json!({"enableCache": true});
            }
            retry(dice, &mut task);
            wait(dice, &tasks, &mut task);
            tasks.insert(format!("{kind}{index}"), task);
        }
        json!({"tasks": tasks})
    }

    /// What a task is, and the component it runs.
    fn what(&mut self, dice: &mut Dice, depth: usize) -> (char, String) {
        let is_leaf = depth + 1 >= DEPTH || self.left == 0;
        match dice.below(if is_leaf { 8 } else { 14 }) {
            0 => ('k', "kept".to_owned()),
            1 => ('u', "task".to_owned()),
            2 => ('m', "kept".to_owned()),
            3..=9 => ('t', "task".to_owned()),
            10 | 11 => {
                let dag = self.dag(dice, depth + 1);
                ('d', self.keep(dag))
            }
            _ => {
                let dag = self.dag(dice, depth + 1);
                ('l', self.keep(dag))
            }
        }
    }
}

/// What a task waits for among those before it, and whether it runs then.
fn wait(dice: &mut Dice, before: &Map<String, Value>, task: &mut Value) {
    let chosen: Vec<&String> = before.keys().filter(|_| dice.chance(40)).collect();
    if chosen.is_empty() {
        return;
    }
    task["dependentTasks"] = json!(chosen);
    if dice.chance(15) {
        task["triggerPolicy"] = json!({"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"});
        return;
    }
    let maker = chosen.iter().find(|name| name.starts_with(['t', 'k']));
    if let Some(maker) = maker
        && dice.chance(70)
    {
        let from = json!({"producerTask": maker, "outputParameterKey": "out"});
        task["inputs"] = json!({"parameters": {"x": {"taskOutputParameter": from}}});
        if dice.chance(40) {
            task["triggerPolicy"] = json!({"condition": "inputs.parameter_values['x'] == 'a'"});
        }
    }
}

/// Whether results of the task at `path` are kept: whether it runs at all depends on who was first.
pub(super) fn is_kept(path: &str) -> bool {
    let names = path.rsplit('.');
    let mut names = names.filter(|name| name.parse::<usize>().is_err());
    names.next().is_some_and(|name| name.starts_with(['k', 'm']))
}

/// What the task at `path` is given as `x`, as the path of the task that makes it; none when it is
/// given nothing.
pub(super) fn maker_of(pipeline: &Value, path: &str) -> Option<String> {
    let (holder, task) = places(pipeline, path).pop()?;
    let maker = task["inputs"]["parameters"]["x"]["taskOutputParameter"]["producerTask"].as_str()?;
    Some(format!("{holder}.{maker}"))
}

/// The paths of the tasks that must have ended before one at `path` begins.
pub(super) fn before(pipeline: &Value, path: &str) -> Vec<String> {
    let mut before = Vec::new();
    for (holder, task) in places(pipeline, path) {
        let names = task["dependentTasks"].as_array().into_iter().flatten();
        before.extend(names.map(|name| format!("{holder}.{}", name.as_str().unwrap())));
    }
    before
}

/// The tasks that hold the one at `path` and itself, outermost first: the path of the DAG that each
/// is in, and what the pipeline says of it.
fn places<'a>(pipeline: &'a Value, path: &str) -> Vec<(String, &'a Value)> {
    let mut component = &pipeline["root"];
    let mut holder = "root".to_owned();
    let mut places = Vec::new();
    for name in path.split('.').skip(1) {
        if name.parse::<usize>().is_err() {
            let task = &component["dag"]["tasks"][name];
            component = &pipeline["components"][task["componentRef"]["name"].as_str().unwrap()];
            places.push((holder.clone(), task));
        }
        holder = format!("{holder}.{name}");
    }
    places
}
