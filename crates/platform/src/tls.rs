//! The door for Pods: the Kubernetes API over TLS, where whoever comes must say who they are.
//! HTTP/1.1, with upgrades.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use coracle_apiserver::identity::TokenRequired;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{pki::Pki, server::GRACE};

/// How long a client may take for its part of the handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(15);

/// TLS with the certificate of the server.
///
/// # Errors
/// When certificate and key do not fit.
pub fn config(pki: &Pki) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(pki.certificate.clone(), pki.key.clone_key())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Listens on this machine: at the port that is asked for when it is free, else at any.
///
/// # Errors
/// When no port can be listened on.
pub async fn bind(wanted: u16) -> io::Result<TcpListener> {
    let at = |port: u16| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)));
    match at(wanted).await {
        Ok(listener) => Ok(listener),
        Err(_) => at(0).await,
    }
}

/// Serves until `stop`: then nobody new is let in, and what is under way has five seconds to be answered.
pub async fn serve(listener: TcpListener, config: ServerConfig, router: Router, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
                connections.spawn(connection(acceptor, stream, peer, router, stop));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the API was not accepted");
                // Too many open files, most likely: somebody has to close one.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let answered = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, answered).await.is_err() {
        tracing::warn!("some requests of Pods were not answered before the server stopped");
    }
}

async fn connection(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
) {
    // Small writes are what a watch is made of. Without it, it is only slower.
    let _ = stream.set_nodelay(true);
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(PATIENCE, acceptor.accept(stream)) => accepted,
        // Nothing was asked for yet.
        () = stop.cancelled() => return,
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, %peer, "a TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let service = router.map_request(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(TokenRequired);
        request
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE);
    let serving =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut serving = pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(error, %peer, "a connection to the API broke");
    }
}
