//! Pipelines that arrive as files: every kind of file, and every way in which one can be wrong.

use std::io::{Cursor, Write};

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::server::{Server, pipeline, read};

const BOUNDARY: &str = "coracle-boundary";

async fn upload(
    server: &Server,
    query: &str,
    field: &str,
    file: &str,
    content: &[u8],
) -> (StatusCode, Value) {
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{file}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(content);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    let request = Request::post(format!("/apis/v2beta1/pipelines/{query}"))
        .header(
            header::CONTENT_TYPE,
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(Body::from(body))
        .unwrap();
    read(server.send(request).await).await
}

fn refused((status, body): (StatusCode, Value), expect: u16, message: &str) {
    assert_eq!(status.as_u16(), expect, "{body}");
    assert!(
        body["error_message"].as_str().unwrap().contains(message),
        "no `{message}` in {body}"
    );
    assert_eq!(body["error_details"], body["error_message"]);
}

fn zip(name: &str, content: &[u8]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    writer
        .start_file(name, zip::write::SimpleFileOptions::default())
        .unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap().into_inner()
}

fn tar_gz(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}

fn json_text() -> Vec<u8> {
    pipeline().to_string().into_bytes()
}

/// A YAML text of two documents, pipeline and platform. JSON is YAML.
fn with_platform() -> Vec<u8> {
    let platform = json!({"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-say": {}}}}}});
    format!("{}\n---\n{platform}\n", pipeline()).into_bytes()
}

#[tokio::test]
async fn every_kind_of_file_makes_a_pipeline_and_a_version() {
    let server = Server::start().await;
    let check = async |name: &str, file: &str, content: Vec<u8>, expect: Value| {
        let (status, made) = upload(
            &server,
            &format!("upload?name={name}&description=d"),
            "uploadfile",
            file,
            &content,
        )
        .await;
        assert_eq!(status, StatusCode::OK, "{name}: {made}");
        assert_eq!(made["display_name"], name);
        let versions = server
            .ok(&format!(
                "/pipelines/{}/versions",
                made["pipeline_id"].as_str().unwrap()
            ))
            .await;
        let version = &versions["pipeline_versions"][0];
        assert_eq!(version["display_name"], name);
        assert_eq!(version["description"], "d");
        assert_eq!(version["pipeline_spec"], expect, "{name}");
    };
    check("json", "p.json", json_text(), pipeline()).await;
    check("yaml", "p.yaml", json_text(), pipeline()).await;
    check("zip", "p.zip", zip("p.yaml", &json_text()), pipeline()).await;
    check(
        "targz",
        "p.tar.gz",
        tar_gz("pipeline.yaml", &json_text()),
        pipeline(),
    )
    .await;
    let platform = json!({"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-say": {}}}}}});
    let both = json!({"pipeline_spec": pipeline(), "platform_spec": platform});
    check("two", "p.yml", with_platform(), both).await;
}

#[tokio::test]
async fn names_and_tags_come_from_the_query_or_the_file() {
    let server = Server::start().await;
    let query = "upload?display_name=Shown&namespace=&tags=%7B%22team%22%3A%22ml%22%7D";
    let (_, made) = upload(&server, query, "uploadfile", "p.yaml", &json_text()).await;
    assert_eq!(
        (&made["name"], &made["display_name"]),
        (&json!("Shown"), &json!("Shown"))
    );
    assert_eq!(made["tags"], json!({"team": "ml"}));
    let (_, made) = upload(&server, "upload", "uploadfile", "p.yaml", &json_text()).await;
    assert_eq!(made["name"], "p.yaml");
}

#[tokio::test]
async fn a_version_is_uploaded_beside_the_first() {
    let server = Server::start().await;
    let (_, made) = upload(&server, "upload?name=p", "uploadfile", "p.yaml", &json_text()).await;
    let pipeline_id = made["pipeline_id"].as_str().unwrap();
    let query = |name: &str| format!("upload_version?name={name}&pipelineid={pipeline_id}");
    let (status, version) = upload(&server, &query("v2"), "uploadfile", "p.yaml", &json_text()).await;
    assert_eq!(status, StatusCode::OK, "{version}");
    assert_eq!(version["pipeline_id"], pipeline_id);
    refused(
        upload(&server, &query("v2"), "uploadfile", "p.yaml", &json_text()).await,
        409,
        "already exists",
    );
    refused(
        upload(
            &server,
            "upload_version?name=v",
            "uploadfile",
            "p.yaml",
            &json_text(),
        )
        .await,
        400,
        "pipelineid",
    );
    let absent = "upload_version?name=v&pipelineid=0198c0de-0000-7000-8000-000000000000";
    refused(
        upload(&server, absent, "uploadfile", "p.yaml", &json_text()).await,
        404,
        "was not found",
    );
    assert_eq!(
        server.ok(&format!("/pipelines/{pipeline_id}/versions")).await["total_size"],
        2
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_refused_and_leaves_nothing() {
    let server = Server::start().await;
    let mut broken = pipeline();
    broken["root"]["dag"]["tasks"]["say"]["inputs"]["parameters"]["text"] =
        json!({"taskOutputParameter": {"producerTask": "train", "outputParameterKey": "x"}});
    let zeros = vec![b' '; 33 * 1024 * 1024];
    for (file, content, status, message) in [
        (
            "p.yaml",
            broken.to_string().into_bytes(),
            400,
            "root.dag.tasks.say.inputs.parameters.text",
        ),
        ("p.yaml", b"a: [".to_vec(), 400, "document"),
        ("p.yaml", Vec::new(), 400, "empty"),
        ("p.json", b"[]".to_vec(), 400, "no pipeline"),
        ("p.txt", b"x".to_vec(), 400, "`p.txt` is no pipeline file"),
        ("p.zip", b"PKnonsense".to_vec(), 400, "zip archive cannot be read"),
        (
            "p.zip",
            zip("readme.txt", b"x"),
            400,
            "zip archive holds no pipeline",
        ),
        ("p.zip", zip("p.yaml", &zeros), 413, "unfolds to more than 32 MiB"),
        (
            "p.tar.gz",
            tar_gz("p.yaml", &zeros),
            413,
            "unfolds to more than 32 MiB",
        ),
        ("p.yaml", zeros.clone(), 413, "larger than 32 MiB"),
    ] {
        refused(
            upload(&server, "upload?name=p", "uploadfile", file, &content).await,
            status,
            message,
        );
    }
    let right = json_text();
    refused(
        upload(&server, "upload?name=p", "file", "p.yaml", &right).await,
        400,
        "`uploadfile`",
    );
    refused(
        upload(&server, "upload?name=p&tags=x", "uploadfile", "p.yaml", &right).await,
        400,
        "`tags`",
    );
    let long = format!("upload?name={}", "x".repeat(129));
    refused(
        upload(&server, &long, "uploadfile", "p.yaml", &right).await,
        400,
        "129 characters",
    );
    let plain = Request::post("/apis/v2beta1/pipelines/upload")
        .body(Body::from("x"))
        .unwrap();
    refused(read(server.send(plain).await).await, 400, "multipart/form-data");
    assert_eq!(server.ok("/pipelines").await, json!({"total_size": 0}));

    upload(&server, "upload?name=p", "uploadfile", "p.yaml", &right).await;
    refused(
        upload(&server, "upload?name=p", "uploadfile", "p.yaml", &right).await,
        409,
        "`p` already exists",
    );
}
