//! Whether a Pod's requests fit what is free, and the sentence for when they do not.

use std::{collections::BTreeMap, fmt::Write as _};

use coracle_api::{
    quantity::{InvalidQuantity, Quantity},
    reason::Reason,
};
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

/// The resource that counts Pods.
pub(crate) const PODS: &str = "pods";
/// How many holders a message names.
const NAMED_HOLDERS: usize = 5;

/// Amounts by resource name. What is not named is zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Amounts(BTreeMap<String, Quantity>);

impl Amounts {
    pub(crate) fn get(&self, resource: &str) -> Quantity {
        self.0.get(resource).copied().unwrap_or_default()
    }

    pub(crate) fn set(&mut self, resource: &str, amount: Quantity) {
        self.0.insert(resource.to_owned(), amount);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Quantity)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (resource, amount) in other.iter() {
            let sum = self.get(resource) + amount;
            self.set(resource, sum);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        for (resource, amount) in other.iter() {
            let rest = self.get(resource) - amount;
            self.set(resource, rest);
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (resource, amount) in other.iter() {
            let most = self.get(resource).max(amount);
            self.set(resource, most);
        }
    }

    /// Whether each of these is at most what `free` has. Nothing fits always, even into less than nothing.
    pub(crate) fn fit(&self, free: &Self) -> bool {
        self.lacking(free).next().is_none()
    }

    fn lacking<'a>(&'a self, free: &'a Self) -> impl Iterator<Item = (&'a str, Quantity)> {
        self.iter()
            .filter(|&(resource, amount)| amount > Quantity::default() && amount > free.get(resource))
    }
}

impl FromIterator<(String, Quantity)> for Amounts {
    fn from_iter<I: IntoIterator<Item = (String, Quantity)>>(amounts: I) -> Self {
        Self(amounts.into_iter().collect())
    }
}

/// What a Pod holds while it runs: the sum over its containers and sidecars, or its most demanding init container
/// with the sidecars before it if that is more, and one place among the Pods. A limit without a request is a
/// request.
pub(crate) fn requests(pod: &Pod) -> Result<Amounts, InvalidQuantity> {
    let mut sum = Amounts::default();
    if let Some(spec) = &pod.spec {
        for container in &spec.containers {
            sum.add(&of_container(container.resources.as_ref())?);
        }
        let mut sidecars = Amounts::default();
        let mut most = Amounts::default();
        for container in spec.init_containers.iter().flatten() {
            let mut amounts = of_container(container.resources.as_ref())?;
            amounts.add(&sidecars);
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars = amounts.clone();
            }
            most.raise_to(&amounts);
        }
        sum.add(&sidecars);
        sum.raise_to(&most);
        for (resource, amount) in spec.overhead.iter().flatten() {
            sum.add(&Amounts::from_iter([(resource.clone(), amount.0.parse()?)]));
        }
    }
    sum.set(PODS, Quantity::from_units(1));
    Ok(sum)
}

fn of_container(resources: Option<&ResourceRequirements>) -> Result<Amounts, InvalidQuantity> {
    let Some(resources) = resources else {
        return Ok(Amounts::default());
    };
    let mut amounts = Amounts::default();
    for list in [&resources.limits, &resources.requests] {
        for (resource, amount) in list.iter().flatten() {
            amounts.set(resource, amount.0.parse()?);
        }
    }
    Ok(amounts)
}

/// Somebody, and what they hold or wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// `namespace/name`.
    pub(crate) name: String,
    /// How much.
    pub(crate) amounts: Amounts,
}

/// Why a Pod does not run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// [`Reason::RequestExceedsNode`] or [`Reason::InsufficientResources`].
    pub(crate) reason: Reason,
    /// The numbers.
    pub(crate) message: String,
}

/// What the machine has, and who has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State<'a> {
    /// All there is.
    pub(crate) capacity: &'a Amounts,
    /// What nobody holds.
    pub(crate) free: &'a Amounts,
    /// What nobody holds, less what is kept for Pods that came first.
    pub(crate) spare: &'a Amounts,
}

/// Whether this machine could never run what wants this much, and why.
pub(crate) fn never(wanted: &Amounts, capacity: &Amounts) -> Option<Refusal> {
    let mut parts = Vec::new();
    for (resource, amount) in wanted.lacking(capacity) {
        let (amount, has) = (show(resource, amount), show(resource, capacity.get(resource)));
        parts.push(format!("needs {amount} {resource}; this machine has {has}"));
    }
    (!parts.is_empty()).then(|| Refusal {
        reason: Reason::RequestExceedsNode,
        message: parts.join("; "),
    })
}

/// Why what wants this much does not run now, although it could.
pub(crate) fn not_now<'a>(
    wanted: &Amounts,
    state: State<'_>,
    holders: impl Iterator<Item = &'a Holder> + Clone,
    ahead: &[Holder],
) -> Refusal {
    let mut parts = Vec::new();
    for (resource, amount) in wanted.lacking(state.spare) {
        let all = show(resource, state.capacity.get(resource));
        let free = show(resource, state.free.get(resource).max(Quantity::default()));
        let mut part = if resource == PODS {
            format!("{free} of {all} places for Pods free")
        } else {
            format!(
                "needs {} {resource}; {free} of {all} free",
                show(resource, amount)
            )
        };
        if resource != PODS {
            list(&mut part, ", held by", resource, holders.clone());
        }
        if amount <= state.free.get(resource) {
            list(&mut part, ", kept for", resource, ahead.iter());
        }
        parts.push(part);
    }
    Refusal {
        reason: Reason::InsufficientResources,
        message: parts.join("; "),
    }
}

fn list<'a>(text: &mut String, intro: &str, resource: &str, holders: impl Iterator<Item = &'a Holder>) {
    let mut named: Vec<(&str, Quantity)> = holders
        .map(|holder| (holder.name.as_str(), holder.amounts.get(resource)))
        .filter(|(_, amount)| *amount > Quantity::default())
        .collect();
    named.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    for (index, (name, amount)) in named.iter().take(NAMED_HOLDERS).enumerate() {
        let separator = if index == 0 { intro } else { "," };
        let _ = write!(text, "{separator} {name} ({})", show(resource, *amount));
    }
    if named.len() > NAMED_HOLDERS {
        let _ = write!(text, " and {} more", named.len() - NAMED_HOLDERS);
    }
}

/// An amount as people say it: bytes in binary units, the rest as decimal numbers, two places at most.
fn show(resource: &str, amount: Quantity) -> String {
    let is_bytes =
        resource == "memory" || resource == "ephemeral-storage" || resource.starts_with("hugepages-");
    let (scale, unit) = if is_bytes {
        [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")]
            .into_iter()
            .find(|(power, _)| amount.milli() >= 1000_i128 << power)
            .map_or((1, ""), |(power, unit)| (1_i128 << power, unit))
    } else {
        (1, "")
    };
    let hundredths = amount.milli() / (scale * 10);
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    match rest {
        0 => format!("{whole}{unit}"),
        rest if rest % 10 == 0 => format!("{whole}.{}{unit}", rest / 10),
        rest => format!("{whole}.{rest:02}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(text: &str) -> Amounts {
        text.split_ascii_whitespace()
            .map(|part| {
                let (name, amount) = part.split_once('=').unwrap();
                (name.to_owned(), amount.parse().unwrap())
            })
            .collect()
    }

    fn holders(text: &[(&str, &str)]) -> Vec<Holder> {
        text.iter()
            .map(|(name, held)| Holder {
                name: (*name).to_owned(),
                amounts: amounts(held),
            })
            .collect()
    }

    /// The decision for a Pod when `held` run and `ahead` wait before it.
    fn check(capacity: &str, held: &[(&str, &str)], ahead: &[(&str, &str)], wanted: &str, expected: &str) {
        let (capacity, wanted) = (amounts(capacity), amounts(wanted));
        let (held, ahead) = (holders(held), holders(ahead));
        let mut free = capacity.clone();
        held.iter().for_each(|holder| free.subtract(&holder.amounts));
        let mut spare = free.clone();
        ahead.iter().for_each(|holder| spare.subtract(&holder.amounts));
        let refusal = never(&wanted, &capacity).or_else(|| {
            let state = State {
                capacity: &capacity,
                free: &free,
                spare: &spare,
            };
            (!wanted.fit(&spare)).then(|| not_now(&wanted, state, held.iter(), &ahead))
        });
        let found = refusal.map_or_else(
            || "fits".to_owned(),
            |refusal| format!("{}: {}", refusal.reason, refusal.message),
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn what_fits_fits_exactly() {
        check("cpu=4 memory=8Gi", &[], &[], "cpu=4 memory=8Gi", "fits");
        check("cpu=4", &[("a/x", "cpu=3500m")], &[], "cpu=500m", "fits");
        check("cpu=4", &[("a/x", "cpu=5")], &[], "memory=0", "fits");
    }

    #[test]
    fn what_never_fits_says_what_the_machine_has() {
        check(
            "cpu=4",
            &[],
            &[],
            "nvidia.com/gpu=1",
            "RequestExceedsNode: needs 1 nvidia.com/gpu; this machine has 0",
        );
        check(
            "cpu=4 memory=8Gi",
            &[],
            &[],
            "cpu=8 memory=16Gi",
            "RequestExceedsNode: needs 8 cpu; this machine has 4; needs 16Gi memory; this machine has 8Gi",
        );
    }

    #[test]
    fn what_nobody_here_has_heard_of_is_named() {
        check(
            "cpu=4",
            &[],
            &[],
            "example.com/quantum=2",
            "RequestExceedsNode: needs 2 example.com/quantum; this machine has 0",
        );
    }

    #[test]
    fn a_device_that_is_held_is_waited_for() {
        check(
            "cpu=4 nvidia.com/gpu=1",
            &[("a/x", "nvidia.com/gpu=1")],
            &[],
            "nvidia.com/gpu=1",
            "InsufficientResources: needs 1 nvidia.com/gpu; 0 of 1 free, held by a/x (1)",
        );
    }

    #[test]
    fn what_does_not_fit_now_says_who_holds_it() {
        check(
            "cpu=4",
            &[("a/y", "cpu=1"), ("a/x", "cpu=1")],
            &[],
            "cpu=3",
            "InsufficientResources: needs 3 cpu; 2 of 4 free, held by a/x (1), a/y (1)",
        );
        check(
            "cpu=4 memory=6001Mi",
            &[("a/x", "memory=5Gi")],
            &[],
            "cpu=1 memory=1.5Gi",
            "InsufficientResources: needs 1.5Gi memory; 881Mi of 5.86Gi free, held by a/x (5Gi)",
        );
    }

    #[test]
    fn what_is_kept_for_others_names_them() {
        check(
            "cpu=4",
            &[("a/x", "cpu=2")],
            &[("a/big", "cpu=4")],
            "cpu=500m",
            "InsufficientResources: needs 0.5 cpu; 2 of 4 free, held by a/x (2), kept for a/big (4)",
        );
    }

    #[test]
    fn many_holders_are_counted_not_listed() {
        let names: Vec<String> = (0..8).map(|index| format!("n/p{index}")).collect();
        let held: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "cpu=1 pods=1")).collect();
        check(
            "cpu=8 pods=8",
            &held,
            &[],
            "cpu=1 pods=1",
            "InsufficientResources: needs 1 cpu; 0 of 8 free, held by \
             n/p0 (1), n/p1 (1), n/p2 (1), n/p3 (1), n/p4 (1) and 3 more; 0 of 8 places for Pods free",
        );
    }

    #[test]
    fn a_pod_holds_its_containers_or_its_largest_init_container() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "spec": {
                "containers": [
                    {"name": "a", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}},
                    {"name": "b", "resources": {"requests": {"cpu": "500m"}}},
                ],
                "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "100m", "memory": "2Gi"}}}],
            }
        }))
        .unwrap();
        assert_eq!(requests(&pod).unwrap(), amounts("cpu=1500m memory=2Gi pods=1"));
    }

    #[test]
    fn a_sidecar_counts_beside_the_containers() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "spec": {
                "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [
                    {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
                    {"name": "i", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
                ],
            }
        }))
        .unwrap();
        assert_eq!(requests(&pod).unwrap(), amounts("cpu=2 memory=1Gi pods=1"));
    }

    #[test]
    fn an_amount_that_is_none_is_refused() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "two"}}}]}
        }))
        .unwrap();
        assert!(requests(&pod).is_err());
    }
}
