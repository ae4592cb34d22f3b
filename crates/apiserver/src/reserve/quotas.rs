//! What is left of the quotas of a namespace.

use coracle_api::quota::{self, Amounts};
use coracle_store::resources::Body;
use serde_json::Value;

use crate::{kinds::Kind, object};

/// One quota, and what is used of it.
#[derive(Debug)]
pub(super) struct Quota {
    quota: Body,
    hard: Amounts,
    used: Amounts,
}

/// The quotas that limit objects of this kind.
pub(super) fn of(quotas: Vec<Body>, kind: &Kind) -> Vec<Quota> {
    let concerned = quotas.into_iter().filter(|quota| {
        quota::resources(quota)
            .iter()
            .any(|(group, plural)| *group == kind.group && *plural == kind.plural)
    });
    concerned
        .map(|quota| Quota {
            hard: quota::hard(&quota),
            used: Amounts::new(),
            quota,
        })
        .collect()
}

impl Quota {
    /// Counts what is there of the kind.
    pub(super) fn count(&mut self, kind: &Kind, objects: &[Body]) {
        let objects = objects
            .iter()
            .map(|object| (kind.group.as_ref(), kind.plural.as_ref(), &**object));
        self.used = quota::used(&self.quota, objects);
    }

    /// Refuses what goes beyond it: a new object, or the change of one.
    pub(super) fn check(&self, kind: &Kind, old: Option<&Value>, new: &Value) -> Result<(), String> {
        let (group, plural) = (kind.group.as_ref(), kind.plural.as_ref());
        if !quota::concerns(&self.quota, group, plural, new) {
            return Ok(());
        }
        let name = object::name(&self.quota);
        if plural == "pods" && old.is_none() {
            let unsaid = quota::unsaid(&self.quota, new)
                .into_iter()
                .map(|(resource, containers)| format!("{resource} for: {}", containers.join(",")))
                .collect::<Vec<_>>();
            if !unsaid.is_empty() {
                return Err(format!(
                    "failed quota: {name}: must specify {}",
                    unsaid.join("; ")
                ));
            }
        }
        let before = old
            .filter(|old| quota::concerns(&self.quota, group, plural, old))
            .map(|old| quota::charges(group, plural, old))
            .unwrap_or_default();
        let mut exceeded = [Vec::new(), Vec::new(), Vec::new()];
        for (resource, wanted) in quota::charges(group, plural, new) {
            let Some(hard) = self.hard.get(&resource) else {
                continue;
            };
            let more = before.get(&resource).map_or(wanted, |before| wanted - *before);
            let used = self.used.get(&resource).copied().unwrap_or_default();
            if more.quantity.milli() > 0 && (used + more).quantity > hard.quantity {
                exceeded[0].push(format!("{resource}={more}"));
                exceeded[1].push(format!("{resource}={used}"));
                exceeded[2].push(format!("{resource}={hard}"));
            }
        }
        if exceeded[0].is_empty() {
            return Ok(());
        }
        let [requested, used, limited] = exceeded.map(|amounts| amounts.join(","));
        Err(format!(
            "exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::PODS;

    fn pod(cpu: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    fn check(hard: Value, there: &[Value], old: Option<&Value>, new: &Value) -> Result<(), String> {
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
        let there = there.iter().cloned().map(Body::from).collect::<Vec<_>>();
        let mut quotas = of(vec![quota.into()], &PODS);
        quotas.iter_mut().for_each(|quota| quota.count(&PODS, &there));
        quotas.iter().try_for_each(|quota| quota.check(&PODS, old, new))
    }

    #[test]
    fn messages_have_the_exact_numbers() {
        let there = [pod("500m"), pod("1")];
        assert_eq!(
            check(json!({"pods": "2"}), &there, None, &pod("1")).unwrap_err(),
            "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
        );
        assert_eq!(
            check(
                json!({"pods": "2", "requests.cpu": "2"}),
                &there,
                None,
                &pod("750m")
            )
            .unwrap_err(),
            "exceeded quota: q, requested: pods=1,requests.cpu=750m, used: pods=2,requests.cpu=1500m, \
             limited: pods=2,requests.cpu=2"
        );
        assert_eq!(
            check(
                json!({"limits.cpu": "2", "requests.memory": "1Gi"}),
                &[],
                None,
                &pod("1")
            )
            .unwrap_err(),
            "failed quota: q: must specify limits.cpu for: c; requests.memory for: c"
        );
        assert_eq!(
            check(json!({"pods": "3", "cpu": "2500m"}), &there, None, &pod("1")),
            Ok(())
        );
    }

    #[test]
    fn a_change_is_charged_for_what_it_adds() {
        let there = [pod("2")];
        let hard = json!({"pods": "1", "cpu": "2"});
        assert_eq!(check(hard.clone(), &there, Some(&pod("2")), &pod("1")), Ok(()));
        assert_eq!(
            check(hard, &there, Some(&pod("2")), &pod("3")).unwrap_err(),
            "exceeded quota: q, requested: cpu=1, used: cpu=2, limited: cpu=2"
        );
    }
}
