//! The engine, the Kubernetes API and the store together, over a node that runs nothing.

use coracle_api::{reason::Reason, state::RuntimeState};
use coracle_testkit::{
    Bench, builders,
    node::{FakeNode, Outcome},
    none,
};
use serde_json::json;

fn all_succeed(bench: &Bench) -> FakeNode {
    FakeNode::start(bench.client.clone(), bench.store.records().clone(), |_| {
        Outcome::success(json!({"n": 1}))
    })
}

#[tokio::test]
async fn a_run_goes_from_its_row_to_pods_and_back_to_rows() {
    let bench = Bench::start().await;
    let _node = all_succeed(&bench);
    let run = bench
        .run(
            builders::tasks(&[("a", &[]), ("b", &["a"]), ("c", &["a"])]),
            none(),
        )
        .await;
    let ended = bench.ended(run).await;
    assert_eq!(ended.state, RuntimeState::Succeeded);
    assert!(ended.finished_at.is_some());
    assert_eq!(
        bench.states(run).await,
        [
            "root.a=SUCCEEDED",
            "root.b=SUCCEEDED",
            "root.c=SUCCEEDED",
            "root=SUCCEEDED"
        ]
    );
}

#[tokio::test]
async fn a_pod_that_dies_without_a_report_fails_its_run_with_the_pod_s_reason() {
    let bench = Bench::start().await;
    let dies = |_: &_| Outcome::Dies {
        exit_code: 137,
        reason: "OOMKilled",
    };
    let _node = FakeNode::start(bench.client.clone(), bench.store.records().clone(), dies);
    let run = bench.run(builders::tasks(&[("a", &[])]), none()).await;
    let ended = bench.ended(run).await;
    assert_eq!(ended.state, RuntimeState::Failed);
    assert_eq!(ended.error.map(|failure| failure.reason), Some(Reason::OOMKilled));
}

#[tokio::test]
async fn a_run_that_is_asked_to_stop_is_canceled_once_its_pods_are_gone() {
    let bench = Bench::start().await;
    let _node = FakeNode::start(bench.client.clone(), bench.store.records().clone(), |_| {
        Outcome::Hangs
    });
    let run = bench
        .run(builders::tasks(&[("a", &[]), ("b", &["a"])]), none())
        .await;
    bench
        .wait(run, |_, tasks| {
            tasks
                .iter()
                .any(|t| t.name == "a" && t.state == RuntimeState::Running)
        })
        .await;
    bench
        .store
        .records()
        .request_termination(run)
        .await
        .expect("accepted");
    assert_eq!(bench.ended(run).await.state, RuntimeState::Canceled);
}

#[tokio::test]
async fn what_happened_while_the_engine_was_away_is_taken_up_when_it_is_back() {
    let mut bench = Bench::start().await;
    let run = bench
        .run(builders::tasks(&[("a", &[]), ("b", &["a"])]), none())
        .await;
    bench
        .wait(run, |_, tasks| tasks.iter().any(|task| task.name == "a"))
        .await;
    bench.stop_engine().await;
    let _node = all_succeed(&bench);
    let while_away = bench.run(builders::tasks(&[("a", &[])]), none()).await;
    bench.start_engine();
    assert_eq!(bench.ended(run).await.state, RuntimeState::Succeeded);
    assert_eq!(bench.ended(while_away).await.state, RuntimeState::Succeeded);
}

#[tokio::test]
async fn a_hundred_tasks_side_by_side_all_end() {
    let bench = Bench::start().await;
    let _node = all_succeed(&bench);
    let names: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
    let tasks: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), [].as_slice())).collect();
    let run = bench.run(builders::tasks(&tasks), none()).await;
    assert_eq!(bench.ended(run).await.state, RuntimeState::Succeeded);
    assert_eq!(bench.states(run).await.len(), 101);
}

#[tokio::test]
async fn a_run_that_failed_and_is_asked_to_go_on_succeeds_without_doing_twice_what_succeeded() {
    let bench = Bench::start().await;
    let records = bench.store.records().clone();
    let first_tries_of_b_fail = |spec: &coracle_api::launch::Spec| {
        let is_b = spec
            .context
            .get("pipeline_task_name")
            .is_some_and(|name| name == "b");
        if is_b && spec.attempt == 1 {
            Outcome::Dies {
                exit_code: 1,
                reason: "Error",
            }
        } else {
            Outcome::success(json!({"n": 1}))
        }
    };
    let _node = FakeNode::start(bench.client.clone(), records.clone(), first_tries_of_b_fail);
    let run = bench
        .run(builders::tasks(&[("a", &[]), ("b", &["a"])]), none())
        .await;
    assert_eq!(bench.ended(run).await.state, RuntimeState::Failed);
    records.request_retry(run).await.unwrap();
    let again = bench
        .wait(run, |run, _| {
            run.state == RuntimeState::Succeeded && !run.retry_requested
        })
        .await;
    assert_eq!(again.error, None);
    let attempts = records.attempts(run).await.unwrap();
    let of = |name: &str| {
        let task = coracle_api::id::TaskId::at(run, &format!("root.{name}"));
        attempts.iter().filter(|attempt| attempt.task_id == task).count()
    };
    assert_eq!((of("a"), of("b")), (1, 2));
}
