//! The scale of what has replicas: how many there are to be, and how many there are, in the same
//! form for every kind.

use std::sync::{Arc, LazyLock};

use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::{
    admission::{self, FieldValidation},
    body,
    handlers::write::{
        self,
        options::Options,
        record::{self, Record},
    },
    kinds::{Kind, KindRef, Scale, ScaleSelector},
    managed, object,
    patch::Patch,
    server::Call,
    status::Error,
    validation::Problems,
};

/// What is exchanged. It is not in the catalogue: there is no path of its own.
static SCALES: LazyLock<KindRef> =
    LazyLock::new(|| Arc::new(Kind::new(("autoscaling", "v1"), "scales", "scale", "Scale")));

fn paths(kind: &Kind) -> Result<&Scale, Error> {
    kind.scale.as_ref().ok_or(Error::NoSuchPath)
}

/// Answers GET of an object's scale.
pub(crate) async fn get(call: &Call) -> Result<Response, Error> {
    let paths = paths(call.kind())?;
    let object = call.resources().get(&call.key()).await?;
    let object = object.ok_or_else(|| Error::not_found(call.kind(), &call.target.name))?;
    Ok(call.reply(StatusCode::OK, &shown(paths, &object.body)))
}

/// Answers PUT of an object's scale.
pub(crate) async fn replace(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let options = Options::parse(call, "UpdateOptions", None)?;
    let given = body::decode_object(&call.headers, bytes)?;
    change(call, &options, |current, paths| {
        let replicas = check(call.kind(), current, &given)?;
        scaled(call, &options, current, paths, replicas)
    })
    .await
}

/// Answers PATCH of an object's scale.
pub(crate) async fn patch(call: &Call, bytes: &[u8]) -> Result<Response, Error> {
    let patch = Patch::parse(&SCALES, &call.headers, bytes)?;
    let options = Options::parse(call, "PatchOptions", Some(&patch))?;
    change(call, &options, |current, paths| {
        let scale = patch.apply(&shown(paths, current))?;
        let replicas = check(call.kind(), current, &scale)?;
        if matches!(patch, Patch::Apply(..)) {
            let wanted = scale.pointer("/spec/replicas").map(|_| replicas);
            applied(call, &options, current, paths, wanted)
        } else {
            scaled(call, &options, current, paths, replicas)
        }
    })
    .await
}

async fn change(
    call: &Call,
    options: &Options,
    change: impl Fn(&Value, &Scale) -> Result<Value, Error>,
) -> Result<Response, Error> {
    let kind = call.kind();
    let paths = paths(kind)?;
    let changed = write::mutate(call.resources(), kind, &call.key(), options.is_dry, |current| {
        let current = kind.served(current.clone());
        Ok(kind.stored(change(&current, paths)?))
    })
    .await?;
    Ok(call.reply(StatusCode::OK, &shown(paths, &changed.body)))
}

/// The object with so many replicas.
fn scaled(
    call: &Call,
    options: &Options,
    current: &Value,
    paths: &Scale,
    replicas: i64,
) -> Result<Value, Error> {
    let mut old = current.clone();
    let before = managed::take(&mut old);
    let mut new = old.clone();
    put(&mut new, &paths.replicas, replicas.into());
    let new = admission::update(call.kind(), None, &old, new, &mut FieldValidation::ignore())?;
    let record = Record::new(call, options);
    let managers = record.updated((&old, before.as_ref()), &new, None);
    Ok(record::with(new, &old, before, managers))
}

/// The object with as many replicas as the applier wants, if it wants any number of them.
fn applied(
    call: &Call,
    options: &Options,
    current: &Value,
    paths: &Scale,
    replicas: Option<i64>,
) -> Result<Value, Error> {
    let mut old = current.clone();
    let before = managed::take(&mut old);
    let mut wanted = Value::Object(Map::new());
    if let Some(replicas) = replicas {
        put(&mut wanted, &paths.replicas, replicas.into());
    }
    let record = Record::new(call, options);
    let (new, managers) = record.apply((&old, before.as_ref()), &wanted)?;
    let new = admission::update(call.kind(), None, &old, new, &mut FieldValidation::ignore())?;
    Ok(record::with(new, &old, before, managers))
}

/// The number of replicas that a scale asks for.
fn check(kind: &KindRef, current: &Value, scale: &Value) -> Result<i64, Error> {
    let name = object::name(current);
    let given = object::name(scale);
    if !(given.is_empty() || given == name) {
        return Err(Error::BadRequest(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let revision = object::text(scale, "/metadata/resourceVersion");
    if !(revision.is_empty() || revision == object::text(current, "/metadata/resourceVersion")) {
        return Err(Error::modified(kind, name));
    }
    let mut problems = Problems::default();
    let replicas = scale
        .pointer("/spec/replicas")
        .cloned()
        .unwrap_or_else(|| 0.into());
    match replicas.as_i64() {
        Some(count) if (0..=i64::from(i32::MAX)).contains(&count) => return Ok(count),
        Some(count) => problems.invalid("spec.replicas", count, "must be greater than or equal to 0"),
        None => problems.wrong_type("spec.replicas", &replicas.to_string(), "must be an integer"),
    }
    Err(Error::Invalid {
        subject: SCALES.subject(name),
        problems,
    })
}

/// The scale of an object.
fn shown(paths: &Scale, of: &Value) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = of.pointer(&format!("/metadata/{field}")) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {},
        "status": {"replicas": object::number(of, &paths.current)},
    });
    if let Some(replicas) = of
        .pointer(&paths.replicas)
        .filter(|replicas| replicas.as_i64() != Some(0))
    {
        scale["spec"]["replicas"] = replicas.clone();
    }
    let selector = match &paths.selector {
        Some(ScaleSelector::Text(pointer)) => object::text(of, pointer).to_owned(),
        Some(ScaleSelector::Labels(pointer)) => of.pointer(pointer).map(selector).unwrap_or_default(),
        None => String::new(),
    };
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// A label selector as text, as `metav1.FormatLabelSelector` writes it.
fn selector(selector: &Value) -> String {
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten().map(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        (key.clone(), format!("{key}={value}"))
    });
    let expressions = object::list(selector, "/matchExpressions").iter().map(|one| {
        let key = object::text(one, "/key").to_owned();
        let mut values = object::list(one, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>();
        values.sort_unstable();
        let values = values.join(",");
        let text = match object::text(one, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        };
        (key, text)
    });
    let mut terms = labels.chain(expressions).collect::<Vec<_>>();
    terms.sort();
    terms
        .into_iter()
        .map(|(_, term)| term)
        .collect::<Vec<_>>()
        .join(",")
}

/// Puts a value where the pointer leads, and makes what is missing on the way.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let Some((way, field)) = pointer.trim_start_matches('/').rsplit_once('/') else {
        object::as_map(object).insert(pointer.trim_start_matches('/').to_owned(), value);
        return;
    };
    let mut at = object;
    for step in way.split('/') {
        at = object::as_map(at).entry(step).or_insert(Value::Null);
    }
    object::as_map(at).insert(field.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_written_as_kubernetes_writes_them() {
        let labels = json!({
            "matchLabels": {"app": "web", "a": "b"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["x", "c"]},
                {"key": "gone", "operator": "DoesNotExist"},
            ],
        });
        assert_eq!(selector(&labels), "a=b,app=web,!gone,tier in (c,x)");
    }

    #[test]
    fn a_value_is_put_where_nothing_was() {
        let mut object = json!({"spec": {"a": 1}});
        put(&mut object, "/spec/scale/replicas", 3.into());
        put(&mut object, "/count", 1.into());
        assert_eq!(
            object,
            json!({"spec": {"a": 1, "scale": {"replicas": 3}}, "count": 1})
        );
    }
}
