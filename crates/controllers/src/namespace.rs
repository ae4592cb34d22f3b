//! What every namespace has: the ServiceAccount of Pods that name none, and the certificate of the API. What becomes
//! of a namespace that goes is not decided here.

use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use std::collections::BTreeMap;

use crate::{
    cache::Key,
    context::{self, Context, Error},
};

/// The ServiceAccount of Pods that name none.
pub(crate) const ACCOUNT: &str = "default";
/// The ConfigMap with the certificate of the API.
pub(crate) const BUNDLE: &str = "kube-root-ca.crt";
/// Its key.
const CERTIFICATE: &str = "ca.crt";
/// What says what an object is for.
const DESCRIPTION: &str = "kubernetes.io/description";

/// What to do about a namespace.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    account: Option<ServiceAccount>,
    create_bundle: Option<ConfigMap>,
    replace_bundle: Option<ConfigMap>,
}

fn plan(namespace: &Namespace, has_account: bool, bundle: Option<&ConfigMap>, root_ca: Option<&str>) -> Plan {
    let mut plan = Plan::default();
    if namespace.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let metadata = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.metadata.name.clone(),
        ..ObjectMeta::default()
    };
    plan.account = (!has_account).then(|| ServiceAccount {
        metadata: metadata(ACCOUNT),
        ..ServiceAccount::default()
    });
    let Some(root_ca) = root_ca else { return plan };
    let data = BTreeMap::from([(CERTIFICATE.to_owned(), root_ca.to_owned())]);
    match bundle {
        None => {
            let mut metadata = metadata(BUNDLE);
            let description = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
                 internal endpoints such as the internal service IP or kubernetes.default.svc.";
            metadata.annotations = Some([(DESCRIPTION.to_owned(), description.to_owned())].into());
            plan.create_bundle = Some(ConfigMap {
                metadata,
                data: Some(data),
                ..ConfigMap::default()
            });
        }
        Some(bundle) if bundle.data.as_ref() != Some(&data) => {
            plan.replace_bundle = Some(ConfigMap {
                data: Some(data),
                ..bundle.clone()
            });
        }
        Some(_) => {}
    }
    plan
}

pub(crate) async fn look(context: &Context, key: &Key) -> Result<(), Error> {
    let world = &context.world;
    let Some(namespace) = world.namespaces.get(key) else {
        return Ok(());
    };
    let inside = |name: &str| Key::new(key.name.as_str(), name);
    let has_account = world.accounts.get(&inside(ACCOUNT)).is_some();
    let bundle = world.bundles.get(&inside(BUNDLE));
    let plan = plan(
        &namespace,
        has_account,
        bundle.as_deref(),
        context.root_ca.as_deref(),
    );
    let accounts = context.api::<ServiceAccount>(&key.name);
    let bundles = context.api::<ConfigMap>(&key.name);
    if let Some(account) = &plan.account {
        settled(context::create(&accounts, &world.accounts, account, |_| true).await)?;
    }
    if let Some(bundle) = &plan.create_bundle {
        settled(context::create(&bundles, &world.bundles, bundle, |_| true).await)?;
    }
    if let Some(bundle) = &plan.replace_bundle {
        context::replace(&bundles, &world.bundles, bundle).await?;
    }
    Ok(())
}

/// In a namespace that goes meanwhile, nothing is made any more.
fn settled<K>(made: Result<K, Error>) -> Result<(), Error> {
    match made {
        Err(error) if error.is_forbidden() || error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_gets_what_it_lacks_and_nothing_once_it_goes() {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("ns".to_owned());
        let bare = plan(&namespace, false, None, Some("pem"));
        assert!(bare.account.is_some() && bare.create_bundle.is_some());
        let bundle = bare.create_bundle.expect("made");
        assert_eq!(
            plan(&namespace, true, Some(&bundle), Some("pem")),
            Plan::default()
        );
        assert_eq!(plan(&namespace, true, None, None), Plan::default());
        let renewed = plan(&namespace, true, Some(&bundle), Some("new"))
            .replace_bundle
            .expect("replaced");
        assert_eq!(renewed.data.expect("data")[CERTIFICATE], "new");
        namespace.metadata.deletion_timestamp = Some(crate::pods::time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(plan(&namespace, false, None, Some("pem")), Plan::default());
    }
}
