//! What an object may have beside others: the address of a Service, what is left of a quota, the bounds of a
//! LimitRange, the value of a priority, the class of a claim. Reads what is stored, and holds what two writes must
//! not decide at once until the write is done. Nothing is kept here but locks, so nothing drifts.

pub(crate) mod addresses;
mod limits;
mod quotas;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use coracle_api::network::Block;
use coracle_store::resources::{At, Body, GroupResource, Resources};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use crate::{
    columns::policy::DEFAULT_CLASS, kinds::KindRef, object, rules::pod, server::Call, status::Error,
    validation::Problems,
};

/// What Services get their addresses from, and the locks of what is limited. Clones are the same.
#[derive(Debug, Clone)]
pub struct Reserve(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    block: Block,
    addresses: Arc<tokio::sync::Mutex<()>>,
    namespaces: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Reserve {
    /// With the addresses of this block.
    #[must_use]
    pub fn new(block: Block) -> Self {
        Self(Arc::new(Shared {
            block,
            addresses: Arc::default(),
            namespaces: Mutex::default(),
        }))
    }

    pub(crate) fn block(&self) -> Block {
        self.0.block
    }

    async fn namespace(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut all = self.0.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(lock) = all.get(name).and_then(Weak::upgrade) {
                lock
            } else {
                all.retain(|_, lock| lock.strong_count() > 0);
                let lock = Arc::default();
                all.insert(name.to_owned(), Arc::downgrade(&lock));
                lock
            }
        };
        lock.lock_owned().await
    }
}

impl Default for Reserve {
    /// With a block of addresses that no data directory has.
    fn default() -> Self {
        Self::new(Block::new(15))
    }
}

/// What one write has to heed. Others that would decide about the same wait until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    kind: KindRef,
    addresses: Option<addresses::Addresses>,
    ranges: Vec<Body>,
    priorities: Option<Vec<Body>>,
    classes: Vec<Body>,
    quotas: Vec<quotas::Quota>,
    _locks: Vec<OwnedMutexGuard<()>>,
}

/// What the call's write has to heed.
pub(crate) async fn hold(call: &Call, is_create: bool) -> Result<Held, Error> {
    let kind = call.kind();
    let (resources, reserve) = (call.resources(), &call.server.reserve);
    let namespace = call.target.namespace.as_str();
    let mut held = Held {
        kind: Arc::clone(kind),
        addresses: None,
        ranges: Vec::new(),
        priorities: None,
        classes: Vec::new(),
        quotas: Vec::new(),
        _locks: Vec::new(),
    };
    // A status takes nothing, and events are not limited.
    if call.target.subresource.is_some() || !kind.is_namespaced() || kind.plural == "events" {
        return Ok(held);
    }
    let plural = if kind.group.is_empty() {
        kind.plural.as_ref()
    } else {
        ""
    };
    match plural {
        "services" => {
            held._locks
                .push(Arc::clone(&reserve.0.addresses).lock_owned().await);
            let services = list(resources, "", "services", None).await?;
            held.addresses = Some(addresses::Addresses::new(reserve.0.block, services));
        }
        "pods" if is_create => {
            held.ranges = list(resources, "", "limitranges", Some(namespace)).await?;
            let classes = list(resources, "scheduling.k8s.io", "priorityclasses", None).await?;
            held.priorities = Some(classes);
        }
        "persistentvolumeclaims" => {
            held.ranges = list(resources, "", "limitranges", Some(namespace)).await?;
            if is_create {
                held.classes = list(resources, "storage.k8s.io", "storageclasses", None).await?;
            }
        }
        _ => {}
    }
    if list(resources, "", "resourcequotas", Some(namespace))
        .await?
        .is_empty()
    {
        return Ok(held);
    }
    held._locks.push(reserve.namespace(namespace).await);
    // Read again, and the objects with them: now nobody else decides.
    let quotas = list(resources, "", "resourcequotas", Some(namespace)).await?;
    held.quotas = quotas::of(quotas, kind);
    if !held.quotas.is_empty() {
        let resource = kind.resource();
        let objects = list(resources, &resource.group, &resource.resource, Some(namespace)).await?;
        for quota in &mut held.quotas {
            quota.count(kind, &objects);
        }
    }
    Ok(held)
}

impl Held {
    /// Fills in what depends on others, and refuses what is not left.
    pub(crate) fn admit(&self, old: Option<&Value>, new: &mut Value) -> Result<(), Error> {
        if let Some(addresses) = &self.addresses {
            addresses
                .assign(new)
                .map_err(|problems| self.invalid(new, problems))?;
        }
        if let Some(priorities) = &self.priorities {
            set_priority(priorities, new).map_err(|why| self.forbidden(new, why))?;
        }
        if old.is_none() && !self.classes.is_empty() {
            set_class(&self.classes, new);
        }
        if !self.ranges.is_empty() {
            self.bound(old, new)?;
        }
        for quota in &self.quotas {
            quota
                .check(&self.kind, old, new)
                .map_err(|why| self.forbidden(new, why))?;
        }
        Ok(())
    }

    /// Bounds of the namespace, and what they say for those who say nothing.
    fn bound(&self, old: Option<&Value>, new: &mut Value) -> Result<(), Error> {
        if self.kind.plural != "pods" {
            return limits::check_claim(&self.ranges, new).map_err(|why| self.forbidden(new, why));
        }
        if old.is_some() {
            return Ok(());
        }
        if limits::fill_in(&self.ranges, new) {
            (self.kind.rules.default)(new);
            let mut problems = Problems::default();
            (self.kind.rules.check)(new, &mut problems);
            if !problems.is_empty() {
                return Err(self.invalid(new, problems));
            }
            let quality = pod::quality(new);
            object::section(new, "status").insert("qosClass".to_owned(), quality.into());
        }
        limits::check_pod(&self.ranges, new).map_err(|why| self.forbidden(new, why))
    }

    fn forbidden(&self, object: &Value, why: String) -> Error {
        Error::Forbidden {
            subject: self.kind.subject(object::name(object)),
            why,
            cause: None,
        }
    }

    fn invalid(&self, object: &Value, problems: Problems) -> Error {
        Error::Invalid {
            subject: self.kind.subject(object::name(object)),
            problems,
        }
    }
}

async fn list(
    resources: &Resources,
    group: &str,
    plural: &str,
    namespace: Option<&str>,
) -> Result<Vec<Body>, Error> {
    let resource = GroupResource::new(group, plural);
    let list = resources
        .list(&resource, namespace, At::Latest, None, None)
        .await?;
    Ok(list.objects.into_iter().map(|object| object.body).collect())
}

/// A Pod has the priority of its class, or of the class for those without one.
fn set_priority(classes: &[Body], pod: &mut Value) -> Result<(), String> {
    let name = object::text(pod, "/spec/priorityClassName").to_owned();
    // What is looked for is mostly not there, so nothing else of them is read.
    let says = |class: &Body, pointer: &str, value: &Value| class.find(pointer).as_deref() == Some(value);
    let class = if name.is_empty() {
        classes
            .iter()
            .filter(|class| says(class, "/globalDefault", &Value::Bool(true)))
            .min_by_key(|class| object::number(class, "/value"))
    } else {
        let wanted = Value::from(name.as_str());
        let found = classes
            .iter()
            .find(|class| says(class, "/metadata/name", &wanted));
        Some(found.ok_or_else(|| format!("no PriorityClass with name {name} was found"))?)
    };
    let value = class.map_or(0, |class| object::number(class, "/value"));
    if let Some(given) = pod.pointer("/spec/priority").and_then(Value::as_i64)
        && given != value
    {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
             controller computed {value} from the given PriorityClass name"
        ));
    }
    let policy = class.map_or("", |class| object::text(class, "/preemptionPolicy"));
    let policy = if policy.is_empty() {
        "PreemptLowerPriority"
    } else {
        policy
    };
    let spec = object::section(pod, "spec");
    spec.insert("priority".to_owned(), value.into());
    object::default(spec, "preemptionPolicy", policy);
    if let Some(class) = class.filter(|_| name.is_empty()) {
        spec.insert("priorityClassName".to_owned(), object::name(class).into());
    }
    Ok(())
}

/// A claim that names no class has the default one, the newest if there are several.
fn set_class(classes: &[Body], claim: &mut Value) {
    if claim.pointer("/spec/storageClassName").is_some() {
        return;
    }
    let is_default = |class: &&Body| {
        let annotations = class.pointer("/metadata/annotations");
        DEFAULT_CLASS
            .iter()
            .any(|key| annotations.and_then(|all| all.get(*key)) == Some(&Value::from("true")))
    };
    let newest = classes.iter().filter(is_default).max_by_key(|class| {
        let made = object::text(class, "/metadata/creationTimestamp");
        (made, std::cmp::Reverse(object::name(class)))
    });
    if let Some(class) = newest {
        object::section(claim, "spec").insert("storageClassName".to_owned(), object::name(class).into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_has_the_priority_of_its_class() {
        let classes = [
            json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"}).into(),
            json!({"metadata": {"name": "usual"}, "value": 3, "globalDefault": true}).into(),
        ];
        let set = |spec: Value| {
            let mut pod = json!({"spec": spec});
            set_priority(&classes, &mut pod).map(|()| pod["spec"].take())
        };
        assert_eq!(
            set(json!({"priorityClassName": "high"})).unwrap(),
            json!({"priorityClassName": "high", "priority": 7, "preemptionPolicy": "Never"})
        );
        assert_eq!(set(json!({})).unwrap()["priorityClassName"], "usual");
        assert_eq!(
            set(json!({"priorityClassName": "gone"})).unwrap_err(),
            "no PriorityClass with name gone was found"
        );
        assert!(
            set(json!({"priority": 9}))
                .unwrap_err()
                .contains("(9) must not be provided")
        );
        let mut alone = json!({"spec": {}});
        set_priority(&[], &mut alone).unwrap();
        assert_eq!(alone["spec"]["priority"], 0);
    }

    #[test]
    fn a_claim_without_a_class_has_the_default_one() {
        let class = |name: &str, made: &str| -> Body {
            json!({"metadata": {
                "name": name,
                "creationTimestamp": made,
                "annotations": {DEFAULT_CLASS[0]: "true"},
            }})
            .into()
        };
        let classes = [
            class("old", "2026-01-01T00:00:00Z"),
            class("new", "2026-02-01T00:00:00Z"),
        ];
        let mut claim = json!({});
        set_class(&classes, &mut claim);
        assert_eq!(claim["spec"]["storageClassName"], "new");
        let mut none = json!({"spec": {"storageClassName": ""}});
        set_class(&classes, &mut none);
        assert_eq!(none["spec"]["storageClassName"], "");
    }
}
