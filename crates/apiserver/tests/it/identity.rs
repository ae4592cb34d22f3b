//! Who makes a request, and what they may do.

use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use coracle_apiserver::identity::TokenRequired;
use http::Request;
use serde_json::{Value, json};

use crate::harness::{Api, MERGE, PODS, config_map, get, pod, with_body};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const TEAM: &str = "/api/v1/namespaces/team";

/// As a listener hands it on that others can reach.
fn strict(mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(TokenRequired);
    request
}

fn with_token(mut request: Request<Body>, token: &str) -> Request<Body> {
    let value = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    strict(request)
}

fn acting_as(mut request: Request<Body>, pairs: &[(&'static str, &str)]) -> Request<Body> {
    for (name, value) in pairs {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

fn post(path: &str, body: &Value) -> Request<Body> {
    with_body("POST", path, "application/json", body)
}

/// A namespace with a ServiceAccount that may do what the rules say there.
async fn team(rules: Value) -> Api {
    let api = Api::new().await;
    api.create("/api/v1/namespaces", &json!({"metadata": {"name": "team"}}))
        .await;
    api.create(
        &format!("{TEAM}/serviceaccounts"),
        &json!({"metadata": {"name": "builder"}}),
    )
    .await;
    let role = json!({"metadata": {"name": "own"}, "rules": rules});
    api.create(&format!("{RBAC}/namespaces/team/roles"), &role).await;
    let binding = json!({
        "metadata": {"name": "own"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "own"},
        "subjects": [{"kind": "ServiceAccount", "name": "builder", "namespace": "team"}],
    });
    api.create(&format!("{RBAC}/namespaces/team/rolebindings"), &binding)
        .await;
    api
}

async fn token(api: &Api, spec: Value) -> String {
    let request = json!({"spec": spec});
    let answer = api
        .create(&format!("{TEAM}/serviceaccounts/builder/token"), &request)
        .await;
    answer["status"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_does_what_its_account_may_and_nothing_else() {
    let api =
        team(json!([{"verbs": ["get", "list", "create"], "apiGroups": [""], "resources": ["configmaps"]}]))
            .await;
    let token = token(&api, json!({})).await;
    let maps = format!("{TEAM}/configmaps");
    api.expect(201, with_token(post(&maps, &config_map("a")), &token))
        .await;
    let list = api.expect(200, with_token(get(&maps), &token)).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    for (request, message) in [
        (
            get(PODS),
            "pods is forbidden: User \"system:serviceaccount:team:builder\" cannot list resource \"pods\" in API \
             group \"\" in the namespace \"default\"",
        ),
        (
            Request::delete(format!("{maps}/a")).body(Body::empty()).unwrap(),
            "configmaps \"a\" is forbidden: User \"system:serviceaccount:team:builder\" cannot delete resource \
             \"configmaps\" in API group \"\" in the namespace \"team\"",
        ),
        (
            get("/apis/rbac.authorization.k8s.io/v1/clusterroles"),
            "clusterroles.rbac.authorization.k8s.io is forbidden: User \"system:serviceaccount:team:builder\" cannot \
             list resource \"clusterroles\" in API group \"rbac.authorization.k8s.io\" at the cluster scope",
        ),
    ] {
        let status = api.expect(403, with_token(request, &token)).await;
        assert_eq!(status["message"], message);
        assert_eq!(status["reason"], "Forbidden");
    }
    // What everybody may.
    api.expect(200, with_token(get("/api/v1"), &token)).await;
    api.expect(200, with_token(get("/version"), &token)).await;
    // Gone with the next request.
    let binding = format!("{RBAC}/namespaces/team/rolebindings/own");
    api.delete(&binding).await;
    api.expect(403, with_token(get(&maps), &token)).await;
}

#[tokio::test]
async fn where_a_token_is_required_nothing_else_is_taken() {
    let api = team(json!([])).await;
    let status = api.expect(401, strict(get(PODS))).await;
    assert_eq!(
        (&status["reason"], &status["message"]),
        (&json!("Unauthorized"), &json!("Unauthorized"))
    );
    api.expect(401, with_token(get(PODS), "hunter2")).await;
    let elsewhere = token(&api, json!({"audiences": ["vault"]})).await;
    api.expect(401, with_token(get("/version"), &elsewhere)).await;
    // A bad token is not the same as none, where none would do.
    let mut request = get(PODS);
    request
        .headers_mut()
        .insert("authorization", "Bearer hunter2".parse().unwrap());
    api.expect(401, request).await;
    api.get(PODS).await;
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let api = team(json!([])).await;
    let mut bound = pod("p");
    bound["spec"]["serviceAccountName"] = json!("builder");
    api.create(&format!("{TEAM}/pods"), &bound).await;
    let spec = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}});
    let bound = token(&api, spec.clone()).await;
    let free = token(&api, json!({"expirationSeconds": 600})).await;
    let review = json!({"spec": {"token": bound}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let status = api.create(reviews, &review).await["status"].clone();
    assert_eq!(status["authenticated"], true, "{status:#}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:team:builder");
    assert_eq!(
        status["user"]["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["p"])
    );
    assert_eq!(
        status["audiences"],
        json!(["https://kubernetes.default.svc.cluster.local"])
    );
    api.delete(&format!("{TEAM}/pods/p")).await;
    api.expect(401, with_token(get("/version"), &bound)).await;
    let status = api.create(reviews, &review).await["status"].clone();
    assert_eq!(status["authenticated"], Value::Null);
    assert!(
        status["error"].as_str().unwrap().contains("has been invalidated"),
        "{status:#}"
    );
    api.expect(200, with_token(get("/version"), &free)).await;
    api.delete(&format!("{TEAM}/serviceaccounts/builder")).await;
    api.expect(401, with_token(get("/version"), &free)).await;
    // Another one of the same name is another one.
    api.create(
        &format!("{TEAM}/serviceaccounts"),
        &json!({"metadata": {"name": "builder"}}),
    )
    .await;
    api.expect(401, with_token(get("/version"), &free)).await;
}

#[tokio::test]
async fn a_token_is_asked_for_in_bounds() {
    let api = team(json!([])).await;
    api.create(
        &format!("{TEAM}/pods"),
        &json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "default", "containers": [{"name": "a", "image": "a"}],
        }}),
    )
    .await;
    let path = format!("{TEAM}/serviceaccounts/builder/token");
    for (spec, code, message) in [
        (
            json!({"expirationSeconds": 10}),
            422,
            "TokenRequest.authentication.k8s.io \"builder\" is invalid: spec.expirationSeconds: Invalid value: 10: \
             may not specify a duration less than 10 minutes",
        ),
        (
            json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}}),
            404,
            "pods \"none\" not found",
        ),
        (
            json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}}),
            400,
            "cannot bind token for serviceaccount \"builder\" to pod running with different serviceaccount name.",
        ),
        (
            json!({"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "p"}}),
            400,
            "cannot bind token to object of type v1, Kind=ConfigMap",
        ),
    ] {
        let status = api.expect(code, post(&path, &json!({"spec": spec}))).await;
        assert_eq!(status["message"], message);
    }
    let none = format!("{TEAM}/serviceaccounts/none/token");
    let status = api.expect(404, post(&none, &json!({"spec": {}}))).await;
    assert_eq!(status["message"], "serviceaccounts \"none\" not found");
}

#[tokio::test]
async fn questions_about_access_are_answered_as_requests_would_be() {
    let api = team(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]}])).await;
    let account = "system:serviceaccount:team:builder";
    let reviews = "/apis/authorization.k8s.io/v1";
    let ask = async |user: &str, attributes: Value| {
        let review = json!({"spec": {"user": user, "resourceAttributes": attributes}});
        api.create(&format!("{reviews}/subjectaccessreviews"), &review)
            .await["status"]
            .clone()
    };
    let may = json!({"verb": "get", "resource": "pods", "subresource": "log", "namespace": "team"});
    assert_eq!(
        ask(account, may.clone()).await,
        json!({
            "allowed": true,
            "reason": "RBAC: allowed by RoleBinding \"own/team\" of Role \"own\" to ServiceAccount \"builder/team\"",
        })
    );
    assert_eq!(ask("alice", may.clone()).await, json!({"allowed": false}));
    let local = format!("{reviews}/namespaces/team/localsubjectaccessreviews");
    let status = api
        .create(
            &local,
            &json!({"spec": {"user": account, "resourceAttributes": may}}),
        )
        .await;
    assert_eq!(status["status"]["allowed"], true);
    let own = json!({"spec": {"resourceAttributes": {"verb": "delete", "resource": "nodes"}}});
    let path = format!("{reviews}/selfsubjectaccessreviews");
    assert_eq!(api.create(&path, &own).await["status"]["allowed"], true);
    let token = token(&api, json!({})).await;
    let answer = api.expect(201, with_token(post(&path, &own), &token)).await;
    assert_eq!(answer["status"]["allowed"], false);
    let path = format!("{reviews}/selfsubjectrulesreviews");
    let answer = api
        .expect(
            201,
            with_token(post(&path, &json!({"spec": {"namespace": "team"}})), &token),
        )
        .await;
    let rules = answer["status"]["resourceRules"].as_array().unwrap();
    let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]});
    assert!(rules.contains(&pods), "{rules:#?}");
    assert_eq!(answer["status"]["incomplete"], false);
    let invalid = api
        .expect(
            422,
            post(
                &format!("{reviews}/subjectaccessreviews"),
                &json!({"spec": {"user": "a"}}),
            ),
        )
        .await;
    assert_eq!(invalid["reason"], "Invalid");
}

#[tokio::test]
async fn who_may_impersonate_acts_as_somebody_else() {
    let api = team(json!([])).await;
    let review = json!({});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = api.expect(201, post(path, &review)).await;
    assert_eq!(me["status"]["userInfo"]["username"], "system:admin");
    let alice = [("impersonate-user", "alice"), ("impersonate-group", "devs")];
    let other = api.expect(201, acting_as(post(path, &review), &alice)).await;
    assert_eq!(
        other["status"]["userInfo"],
        json!({"username": "alice", "groups": ["devs", "system:authenticated"]})
    );
    api.expect(403, acting_as(get(PODS), &alice)).await;
    api.expect(400, acting_as(get(PODS), &[("impersonate-group", "devs")]))
        .await;
    let token = token(&api, json!({})).await;
    let status = api
        .expect(403, acting_as(with_token(get("/version"), &token), &alice))
        .await;
    assert_eq!(
        status["message"],
        "users \"alice\" is forbidden: User \"system:serviceaccount:team:builder\" cannot impersonate resource \
         \"users\" in API group \"\" at the cluster scope"
    );
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let rbac = json!({"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"]});
    let rbac = {
        let mut rule = rbac;
        rule["verbs"] = json!(["get", "create", "update", "patch"]);
        rule
    };
    let api = team(json!([rbac])).await;
    let token = token(&api, json!({})).await;
    let roles = format!("{RBAC}/namespaces/team/roles");
    let more = json!({"metadata": {"name": "more"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]});
    let status = api.expect(403, with_token(post(&roles, &more), &token)).await;
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with("roles.rbac.authorization.k8s.io \"more\" is forbidden: user \""),
        "{message}"
    );
    assert!(
        message
            .ends_with("not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"),
        "{message}"
    );
    let patch = with_body(
        "PATCH",
        &format!("{roles}/own"),
        MERGE,
        &json!({"rules": more["rules"]}),
    );
    api.expect(403, with_token(patch, &token)).await;
    let same = json!({"metadata": {"name": "same"}, "rules": [rbac]});
    api.expect(201, with_token(post(&roles, &same), &token)).await;
    let binding = json!({
        "metadata": {"name": "more"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "builder", "namespace": "team"}],
    });
    let bindings = format!("{RBAC}/namespaces/team/rolebindings");
    api.expect(403, with_token(post(&bindings, &binding), &token))
        .await;
}

#[tokio::test]
async fn an_aggregated_role_has_the_rules_of_its_parts_at_once() {
    let api = Api::new().await;
    let has = async |role: &str, resource: &str| {
        let role = api.get(&format!("{RBAC}/clusterroles/{role}")).await;
        let mut rules = role["rules"].as_array().unwrap().iter();
        rules.any(|rule| {
            rule["resources"]
                .as_array()
                .is_some_and(|all| all.contains(&json!(resource)))
        })
    };
    assert!(
        has("view", "pods").await && has("edit", "pods/exec").await && has("admin", "rolebindings").await
    );
    assert!(!has("view", "secrets").await && has("edit", "secrets").await);
    let part = json!({
        "metadata": {"name": "trainjobs-view", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"verbs": ["get"], "apiGroups": ["trainer.kubeflow.org"], "resources": ["trainjobs"]}],
    });
    api.create(&format!("{RBAC}/clusterroles"), &part).await;
    assert!(has("view", "trainjobs").await && has("admin", "trainjobs").await);
    api.delete(&format!("{RBAC}/clusterroles/trainjobs-view")).await;
    assert!(!has("view", "trainjobs").await && !has("admin", "trainjobs").await);
}

#[tokio::test]
async fn a_pod_runs_as_its_service_account() {
    let api = Api::new().await;
    let created = api.create(PODS, &pod("p")).await;
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    let mount = &created["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(
        mount["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(mount["name"], created["spec"]["volumes"][0]["name"]);
    let mut own = pod("q");
    own["spec"]["automountServiceAccountToken"] = json!(false);
    assert_eq!(api.create(PODS, &own).await["spec"].get("volumes"), None);
    own["spec"]["serviceAccountName"] = json!("none");
    own["metadata"]["name"] = json!("r");
    let status = api.expect(403, post(PODS, &own)).await;
    assert_eq!(
        status["message"],
        "pods \"r\" is forbidden: error looking up service account default/none: serviceaccount \"none\" not found"
    );
}

#[tokio::test]
async fn a_secret_for_a_token_is_given_one_that_ends_with_it() {
    let api = team(json!([])).await;
    let secret = json!({
        "metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "builder"}},
        "type": "kubernetes.io/service-account-token",
    });
    let created = api.create(&format!("{TEAM}/secrets"), &secret).await;
    let token = BASE64_STANDARD
        .decode(created["data"]["token"].as_str().unwrap())
        .unwrap();
    let token = String::from_utf8(token).unwrap();
    api.expect(200, with_token(get("/version"), &token)).await;
    api.delete(&format!("{TEAM}/secrets/s")).await;
    api.expect(401, with_token(get("/version"), &token)).await;
}

#[tokio::test]
async fn public_keys_are_found_by_discovery() {
    let api = Api::new().await;
    let configuration = api.get("/.well-known/openid-configuration").await;
    assert_eq!(
        configuration["issuer"],
        "https://kubernetes.default.svc.cluster.local"
    );
    let keys = api.get("/openid/v1/jwks").await;
    assert_eq!(keys["keys"][0]["alg"], "ES256");
}
