//! Serves the Kubernetes API alone, in memory or in a file, for trying it with kubectl: nothing runs
//! Pods.
//!
//! `cargo run -p coracle-apiserver --example serve -- 127.0.0.1:8001 [FILE]`

use axum::{Router, routing::get, serve::ListenerExt as _};
use coracle_apiserver::{Options, Reserve, bootstrap, collect_garbage, identity::Identity, router};
use coracle_store::{Location, Store};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let location = match std::env::args().nth(2) {
        Some(file) => Location::File(file.into()),
        None => Location::Memory,
    };
    let store = Store::open(location).await?;
    let resources = store.resources().clone();
    let catalogue = bootstrap(&resources).await?;
    let stop = CancellationToken::new();
    tokio::spawn(collect_garbage(
        resources.clone(),
        catalogue.clone(),
        stop.clone(),
    ));
    let kubelet = Router::new().route(
        "/containerLogs/{namespace}/{pod}/{container}",
        get(async |uri: http::Uri| format!("this would be the answer to {uri}\n")),
    );
    let options = Options {
        resources,
        catalogue,
        kubelet,
        node_name: "here".to_owned(),
        reserve: Reserve::default(),
        identity: Identity::ephemeral()?,
        stop,
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    #[expect(clippy::print_stdout, reason = "the address is this program's output")]
    {
        println!("http://{}", listener.local_addr()?);
    }
    let listener = listener.tap_io(|stream| {
        // An error only says that what is sent may come a little later.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router(options)).await?;
    Ok(())
}
