//! What a deletion does: removes the object, or marks it and leaves it to its finalizers, to its
//! node and to the garbage collector. [`decide`] is pure; [`execute`] does what it says.

use coracle_store::resources::{self, Key, Object, Resources};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    kinds::{Kind, KindRef},
    object,
    request::{self, Parameters},
    status::Error,
    validation::Problems,
};

/// The options as messages name them.
const OPTIONS: &str = "DeleteOptions";
/// The finalizer that stands until the object's dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer that stands until the object's dependents do not name it any more.
pub(crate) const ORPHAN: &str = "orphan";

/// What becomes of the objects that an object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// `DeleteOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) is_dry: bool,
}

impl Options {
    /// From the body of a request, when it has one, and its query.
    pub(crate) fn parse(body: Option<&Value>, parameters: &Parameters) -> Result<Self, Error> {
        let empty = Value::Null;
        let body = body.unwrap_or(&empty);
        let given =
            |pointer: &str| Some(object::text(body, pointer).to_owned()).filter(|text| !text.is_empty());
        let in_body = body.get("gracePeriodSeconds").filter(|value| !value.is_null());
        let grace_seconds = match in_body {
            Some(value) => Some(value.as_i64().ok_or_else(|| {
                Error::bad_request(format!(
                    "gracePeriodSeconds: Invalid value: {value}: must be a number"
                ))
            })?),
            None => parameters.number("gracePeriodSeconds")?,
        };
        let policy = given("/propagationPolicy");
        let policy = policy
            .as_deref()
            .or_else(|| parameters.given("propagationPolicy"));
        let orphans = body.get("orphanDependents").and_then(Value::as_bool);
        let orphans = orphans.or_else(|| parameters.optional_flag("orphanDependents"));
        let mut problems = Problems::default();
        let propagation = match (policy, orphans) {
            (Some(policy), Some(_)) => {
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                problems.invalid("propagationPolicy", policy, detail);
                None
            }
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (None, None) => None,
            (Some(other), _) => {
                problems.unsupported(
                    "propagationPolicy",
                    other,
                    &["Foreground", "Background", "Orphan"],
                );
                None
            }
        };
        request::invalid_options(OPTIONS, problems)?;
        let in_body = object::list(body, "/dryRun").iter().filter_map(Value::as_str);
        let is_dry = request::check_dry_run(OPTIONS, in_body)? || parameters.dry_run(OPTIONS)?;
        Ok(Self {
            grace_seconds,
            propagation,
            uid: given("/preconditions/uid"),
            revision: given("/preconditions/resourceVersion"),
            is_dry,
        })
    }

    /// The deletion of exactly this object, its dependents after it.
    pub(crate) fn of(uid: &str) -> Self {
        Self {
            uid: Some(uid.to_owned()),
            propagation: Some(Propagation::Background),
            ..Self::default()
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// The object goes now.
    Remove,
    /// The object becomes this, and goes later.
    Mark(Value),
    /// The object is going already.
    Nothing,
}

/// Decides what the deletion does to the object.
pub(crate) fn decide(
    kind: &KindRef,
    current: &Value,
    options: &Options,
    now: Timestamp,
) -> Result<Decision, Error> {
    let name = object::name(current);
    if let Some(why) = (kind.rules.protection)(name) {
        return Err(Error::Forbidden {
            subject: kind.subject(name),
            why: why.to_owned(),
            cause: None,
        });
    }
    check_precondition(kind, current, "UID", options.uid.as_deref(), object::uid(current))?;
    let revision = object::text(current, "/metadata/resourceVersion");
    check_precondition(
        kind,
        current,
        "ResourceVersion",
        options.revision.as_deref(),
        revision,
    )?;

    let finalizers = finalizers(current, options.propagation);
    let is_final = finalizers.is_empty();
    let grace = (kind.rules.grace)(current, options.grace_seconds);
    if grace == 0 && is_final && !(kind.rules.is_held)(current) {
        return Ok(Decision::Remove);
    }
    let mut marked = current.clone();
    let list = (!is_final).then(|| finalizers.into_iter().map(Value::from).collect());
    object::put(object::metadata(&mut marked), "finalizers", list);
    let current_grace = object::number(current, "/metadata/deletionGracePeriodSeconds");
    let is_sooner = grace < current_grace;
    if !object::is_terminating(current) || is_sooner {
        let at = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        let generation = object::number(current, "/metadata/generation") + 1;
        let metadata = object::metadata(&mut marked);
        metadata.insert("deletionTimestamp".to_owned(), object::time(at));
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
        if kind.has_generation {
            metadata.insert("generation".to_owned(), generation.into());
        }
        (kind.rules.on_delete)(&mut marked);
    }
    Ok(if marked == *current {
        Decision::Nothing
    } else {
        Decision::Mark(marked)
    })
}

/// Whether an object that is leaving has nothing left to wait for.
pub(crate) fn is_released(kind: &Kind, current: &Value) -> bool {
    object::is_terminating(current)
        && object::finalizers(current).next().is_none()
        && object::number(current, "/metadata/deletionGracePeriodSeconds") == 0
        && !(kind.rules.is_held)(current)
}

fn check_precondition(
    kind: &KindRef,
    current: &Value,
    what: &str,
    expected: Option<&str>,
    is: &str,
) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != is => {
            let why = format!(
                "Precondition failed: {what} in precondition: {expected}, {what} in object meta: {is}"
            );
            Err(Error::conflict(kind, object::name(current), why))
        }
        _ => Ok(()),
    }
}

fn finalizers(current: &Value, propagation: Option<Propagation>) -> Vec<String> {
    let wanted = match propagation {
        None => return object::finalizers(current).map(str::to_owned).collect(),
        Some(Propagation::Background) => None,
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Orphan) => Some(ORPHAN),
    };
    let others = object::finalizers(current).filter(|one| ![FOREGROUND, ORPHAN].contains(one));
    others.chain(wanted).map(str::to_owned).collect()
}

/// What was done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The object is gone; this is what it last was.
    Removed(Object),
    /// The object is on its way out.
    Pending(Object),
}

/// Deletes the object. When it changes in between, decides again.
pub(crate) async fn execute(
    resources: &Resources,
    kind: &KindRef,
    key: &Key,
    options: &Options,
    now: Timestamp,
) -> Result<Outcome, Error> {
    loop {
        let current = resources.get(key).await?;
        let current = current.ok_or_else(|| Error::not_found(kind, &key.name))?;
        let decision = decide(kind, &current.body, options, now)?;
        let attempt = match decision {
            Decision::Nothing => return Ok(Outcome::Pending(current)),
            Decision::Remove if options.is_dry => return Ok(Outcome::Removed(current)),
            Decision::Mark(body) if options.is_dry => {
                let body = body.into();
                return Ok(Outcome::Pending(Object { body, ..current }));
            }
            Decision::Remove => resources
                .delete(key, Some(current.revision))
                .await
                .map(Outcome::Removed),
            Decision::Mark(body) => resources
                .update(key.clone(), body, current.revision)
                .await
                .map(Outcome::Pending),
        };
        match attempt {
            Ok(outcome) => return Ok(outcome),
            // Each such round means that another write went through.
            Err(resources::Error::Conflict { .. } | resources::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{self, NAMESPACES, PODS};

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn bound() -> Value {
        json!({
            "metadata": {"name": "p", "uid": "u", "generation": 1},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30},
            "status": {"phase": "Running"},
        })
    }

    fn seconds(grace_seconds: i64) -> Options {
        Options {
            grace_seconds: Some(grace_seconds),
            ..Options::default()
        }
    }

    #[test]
    fn a_running_pod_waits_for_its_node() {
        let Decision::Mark(marked) = decide(&PODS, &bound(), &Options::default(), now()).unwrap() else {
            panic!("it must be marked");
        };
        assert_eq!(
            marked["metadata"],
            json!({
                "name": "p", "uid": "u", "generation": 2,
                "deletionTimestamp": "2026-11-22T10:00:30Z", "deletionGracePeriodSeconds": 30,
            })
        );
        assert!(!is_released(&PODS, &marked));
        // A later deletion may shorten the wait, not lengthen it.
        assert_eq!(
            decide(&PODS, &marked, &seconds(60), now()).unwrap(),
            Decision::Nothing
        );
        let Decision::Mark(shorter) = decide(&PODS, &marked, &seconds(5), now()).unwrap() else {
            panic!("it must be marked again");
        };
        assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
        assert_eq!(
            decide(&PODS, &marked, &seconds(0), now()).unwrap(),
            Decision::Remove
        );
    }

    #[test]
    fn a_pod_that_runs_nowhere_goes_at_once() {
        let mut unbound = bound();
        unbound["spec"]["nodeName"] = json!("");
        let mut over = bound();
        over["status"]["phase"] = json!("Succeeded");
        for pod in [unbound, over] {
            assert_eq!(
                decide(&PODS, &pod, &Options::default(), now()).unwrap(),
                Decision::Remove
            );
        }
    }

    #[test]
    fn finalizers_hold_an_object() {
        let mut pod = bound();
        pod["metadata"]["finalizers"] = json!(["a.io/x"]);
        let Decision::Mark(marked) = decide(&PODS, &pod, &seconds(0), now()).unwrap() else {
            panic!("it must be marked");
        };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        assert!(!is_released(&PODS, &marked));
        let mut freed = marked;
        freed["metadata"]["finalizers"] = json!([]);
        assert!(is_released(&PODS, &freed));
    }

    #[test]
    fn propagation_is_a_finalizer() {
        let lease = json!({"metadata": {"name": "l"}});
        for (propagation, finalizer) in [
            (Propagation::Foreground, FOREGROUND),
            (Propagation::Orphan, ORPHAN),
        ] {
            let options = Options {
                propagation: Some(propagation),
                ..Options::default()
            };
            let Decision::Mark(marked) = decide(&kinds::LEASES, &lease, &options, now()).unwrap() else {
                panic!("it must be marked");
            };
            assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        }
    }

    #[test]
    fn preconditions_are_checked() {
        let options = Options::of("other");
        assert!(matches!(
            decide(&PODS, &bound(), &options, now()),
            Err(Error::Conflict { .. })
        ));
    }

    #[test]
    fn a_namespace_stays_until_it_is_finalized_and_some_for_ever() {
        let namespace =
            |name: &str| json!({"metadata": {"name": name}, "spec": {"finalizers": ["kubernetes"]}});
        let decision = decide(&NAMESPACES, &namespace("n"), &Options::default(), now()).unwrap();
        let Decision::Mark(marked) = decision else {
            panic!("it must be marked")
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
        assert!(matches!(
            decide(&NAMESPACES, &namespace("default"), &Options::default(), now()),
            Err(Error::Forbidden { .. })
        ));
    }

    #[test]
    fn options_come_from_body_and_query() {
        let parameters = Parameters::parse(
            &"/x?gracePeriodSeconds=5&propagationPolicy=Orphan"
                .parse()
                .unwrap(),
        )
        .unwrap();
        let options = Options::parse(None, &parameters).unwrap();
        assert_eq!(
            (options.grace_seconds, options.propagation),
            (Some(5), Some(Propagation::Orphan))
        );
        let body = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "dryRun": ["All"]});
        let options = Options::parse(Some(&body), &Parameters::default()).unwrap();
        assert_eq!(
            (options.grace_seconds, options.uid.as_deref()),
            (Some(0), Some("u"))
        );
        assert!(options.is_dry);
    }
}
