//! The network of Pods that are processes: addresses, names and Services, all on this machine's loopback.
//!
//! ```text
//! addresses  which Pod has which address of 127.B.0.0/16
//! services   watches Services and who is behind them: the table
//! table      what those objects say, put together
//! hosts      names, as a Pod's /etc/hosts says them
//! names      keeps those files up to date
//! variables  the environment variables by which Services are found
//! proxy      forwards connections to Services
//! ```
//!
//! What a Pod's own `bind` and `connect` come to is decided beside its processes, in `runtime::process::mediate`.

pub(crate) mod addresses;
pub(crate) mod hosts;
pub(crate) mod names;
pub(crate) mod proxy;
pub(crate) mod services;
pub(crate) mod table;
pub(crate) mod variables;

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use coracle_api::network::stand_in;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpStream;

/// This machine's address, as Pods see it; also that of Pods with `hostNetwork`.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Whether a Pod is to share this machine's network without anything in between.
pub(crate) fn is_on_host(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// Connects to a port of a Pod or Service, wherever it really listens.
pub(crate) async fn connect(address: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    match TcpStream::connect(SocketAddrV4::new(address, port)).await {
        Err(error) => match stand_in(port) {
            Some(port) => TcpStream::connect(SocketAddrV4::new(address, port))
                .await
                .map_err(|_| error),
            None => Err(error),
        },
        connected => connected,
    }
}
