//! Python images as environments of this machine. These need Python, and an index for packages.

use serde_json::json;

use crate::machine::{Machine, end, phase};

fn python(name: &str, image: &str, code: &str) -> serde_json::Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": image, "command": ["python3", "-c", code]}],
        },
    })
}

fn has_python() -> bool {
    let found = std::process::Command::new("python3").arg("--version").output();
    let has = found.is_ok_and(|output| output.status.success());
    if !has {
        eprintln!("LEFT OUT: this machine has no Python");
    }
    has
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_image_is_an_environment_that_is_made_once_and_has_pip() {
    if !has_python() {
        return;
    }
    let machine = Machine::start().await;
    let code = "import sys, pip; print(sys.prefix)";
    let pod = machine.run(python("p", "python:3-slim", code)).await;
    assert_eq!(
        phase(&pod),
        "Succeeded",
        "{} {}",
        end(&pod),
        machine.log("p").await
    );
    let environments = machine.data_dir().canonicalize().unwrap().join("environments");
    let prefix = machine.log("p").await;
    assert!(prefix.starts_with(environments.to_str().unwrap()), "{prefix}");
    assert!(
        machine
            .until_event("p", "EnvironmentReady")
            .await
            .contains("was ready after")
    );
    let pod = machine
        .run(python("again", "docker.io/library/python:3", code))
        .await;
    assert_eq!(phase(&pod), "Succeeded");
    assert_eq!(machine.log("again").await, prefix);
    assert!(machine.events("again", "PreparingEnvironment").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_changes_in_its_environment_is_its_own() {
    if !has_python() {
        return;
    }
    let machine = Machine::start().await;
    let write = "import sys, os; p = next(p for p in sys.path if p.endswith('site-packages')); os.makedirs(p, exist_ok=True); \
                 open(p + '/coracle_mark.py', 'w').write('x = 1'); import coracle_mark; print(coracle_mark.x)";
    let pod = machine.run(python("p", "python:3", write)).await;
    assert_eq!(
        phase(&pod),
        "Succeeded",
        "{} {}",
        end(&pod),
        machine.log("p").await
    );
    let read = "import importlib.util as u; print(u.find_spec('coracle_mark'))";
    machine.run(python("q", "python:3", read)).await;
    assert_eq!(machine.log("q").await, "None\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_python_is_told() {
    if !has_python() {
        return;
    }
    let machine = Machine::start().await;
    let pod = machine.run(python("p", "python:3.99", "print('ran')")).await;
    assert_eq!(
        phase(&pod),
        "Succeeded",
        "{} {}",
        end(&pod),
        machine.log("p").await
    );
    let message = machine.until_event("p", "PythonVersionSubstituted").await;
    assert!(
        message.contains("has Python 3.99") && message.contains("using Python 3."),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_that_cannot_be_had_are_told_in_the_installers_words() {
    if !has_python() {
        return;
    }
    let machine = Machine::start().await;
    let mut pod = python("p", "python:3", "print('never')");
    let requirements = json!([{"options": ["--no-index"], "packages": ["coracle-no-such-package==1.0"]}]);
    pod["metadata"]["annotations"] = json!({"coracle.dev/python-requirements": requirements.to_string()});
    let pod = machine.run(pod).await;
    assert_eq!(phase(&pod), "Failed");
    let end = end(&pod);
    assert!(
        end.starts_with("128 EnvironmentNotReady cannot install coracle-no-such-package==1.0"),
        "{end}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_of_the_annotation_are_there_and_told_to_be() {
    if !has_python() {
        return;
    }
    let machine = Machine::start().await;
    // A package without an index: a folder that holds one.
    let wheel = machine.folder.path().join("wheel");
    std::fs::create_dir_all(wheel.join("coracle_probe")).unwrap();
    std::fs::write(wheel.join("coracle_probe/__init__.py"), "x = 42\n").unwrap();
    let project = "[project]\nname = 'coracle-probe'\nversion = '1.0'\n";
    std::fs::write(wheel.join("pyproject.toml"), project).unwrap();
    let mut pod = python(
        "p",
        "python:3",
        "import os, coracle_probe; print(coracle_probe.x, os.environ['CORACLE_PYTHON_REQUIREMENTS_MET'])",
    );
    let requirements = json!([{"packages": [wheel]}]);
    pod["metadata"]["annotations"] = json!({"coracle.dev/python-requirements": requirements.to_string()});
    let pod = machine.run(pod).await;
    if end(&pod).contains("setuptools") && end(&pod).contains("EnvironmentNotReady") {
        eprintln!("LEFT OUT: no index gives setuptools to build with: {}", end(&pod));
        return;
    }
    assert_eq!(
        phase(&pod),
        "Succeeded",
        "{} {}",
        end(&pod),
        machine.log("p").await
    );
    assert_eq!(machine.log("p").await, "42 1\n");
}
