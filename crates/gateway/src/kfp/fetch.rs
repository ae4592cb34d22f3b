//! Pipelines that the server fetches from the web: `package_url.pipeline_url`.
//!
//! Whoever may ask this server must not reach through it what they could not reach themselves.
//! Every address that a connection would be made to, also after a redirect, is looked at when its
//! name has been resolved: addresses of this machine and of private networks are refused, unless
//! [`crate::Options::private_urls`] says otherwise.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coracle_api::ir::document::Document;
use ureq::{
    Agent,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

use super::{Options, error::Error, package, upload};

/// How long all of it may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a server may send us elsewhere.
const REDIRECTS: u32 = 5;

/// Fetches a pipeline: .yaml, .yml, .json, .zip or .tar.gz, as in an upload.
pub(super) async fn pipeline(options: &Options, url: &str) -> Result<Document, Error> {
    let uri = checked(url)?;
    let guard = Guard {
        resolver: Arc::new(DefaultResolver::default()),
        private: options.private_urls,
        refused: Arc::default(),
    };
    let shown = url.to_owned();
    let bytes = tokio::task::spawn_blocking(move || fetch(&uri, guard, &shown))
        .await
        .map_err(|error| Error::internal("the pipeline could not be fetched", error))??;
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    // An address need not end in a file's name: what it holds will show.
    let name = if package::is_document(name) {
        name
    } else {
        "pipeline.yaml"
    };
    upload::document(name.to_owned(), bytes).await
}

fn checked(url: &str) -> Result<Uri, Error> {
    let invalid = |why: String| Error::Invalid(format!("`package_url.pipeline_url`: {why}"));
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => {}
        "file" => {
            return Err(invalid(
                "files of the server are not read this way: upload the file instead".to_owned(),
            ));
        }
        "gs" | "s3" | "minio" | "az" | "abfs" | "abfss" => {
            return Err(invalid(format!(
                "pipelines are not fetched from `{scheme}://`: download the file and upload it, or give an \
                 http(s) address"
            )));
        }
        _ => return Err(invalid(format!("expected an http(s) address, found `{url}`"))),
    }
    let uri: Uri = url
        .parse()
        .map_err(|error| invalid(format!("`{url}` is no address: {error}")))?;
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(invalid(
            "credentials do not belong in it: upload the file instead".to_owned(),
        ));
    }
    Ok(uri)
}

/// Blocking.
fn fetch(uri: &Uri, guard: Guard, url: &str) -> Result<Vec<u8>, Error> {
    let refused = Arc::clone(&guard.refused);
    let config = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .max_redirects(REDIRECTS)
        // A proxy would resolve names itself, past the guard.
        .proxy(None)
        .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent = Agent::with_parts(config, DefaultConnector::default(), guard);
    let failed = |error: &dyn std::fmt::Display| {
        let refused = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        Error::FailedPrecondition(match refused {
            Some(host) => format!(
                "the pipeline was not fetched from `{url}`: `{host}` is an address of this machine or of a \
                 private network; upload the file, or start the server with CORACLE_PRIVATE_URLS=1"
            ),
            None => format!("the pipeline could not be fetched from `{url}`: {error}"),
        })
    };
    let response = agent.get(uri).call().map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    response
        .into_body()
        .into_reader()
        .take(package::LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if bytes.len() as u64 > package::LIMIT {
        return Err(upload::too_large());
    }
    Ok(bytes)
}

/// Resolves names, to addresses that may be reached.
#[derive(Clone)]
struct Guard {
    resolver: Arc<DefaultResolver>,
    /// Whether all addresses may be.
    private: bool,
    /// The host that was refused.
    refused: Arc<Mutex<Option<String>>>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("private", &self.private)
            .finish_non_exhaustive()
    }
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.resolver.resolve(uri, config, timeout)?;
        // All must be public: which of them is connected to is not decided here.
        if self.private || found.iter().all(|address| is_public(address.ip())) {
            return Ok(found);
        }
        let host = uri.host().unwrap_or_default().to_owned();
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(host);
        Err(ureq::Error::HostNotFound)
    }
}

/// Whether an address is one of the internet at large.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_unspecified()
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation();
    let is_reserved = a == 0 || a >= 240;
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol = (a, b, c) == (192, 0, 0);
    let is_benchmark = a == 198 && (18..20).contains(&b);
    !(is_special || is_reserved || is_shared || is_protocol || is_benchmark)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // An IPv4 address in disguise: mapped, compatible, NAT64, 6to4.
    let [a, b, .., y, z] = address.segments();
    let embedded = |high: u16, low: u16| {
        let [one, two] = high.to_be_bytes();
        let [three, four] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(one, two, three, four))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => embedded(y, z),
        [0x2002, high, low, ..] => embedded(high, low),
        _ => {
            // Only this range is given out; within it, documentation and Teredo are not.
            let is_global = a & 0xe000 == 0x2000;
            is_global && !(a == 0x2001 && (b == 0x0db8 || b < 0x0200)) && a != 0x3fff
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for (text, expect) in [
            ("1.1.1.1", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("192.0.0.170", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700::1111", true),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("ff02::1", false),
            ("2001:db8::1", false),
            ("2001::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:1.1.1.1", true),
            ("64:ff9b::a00:1", false),
            ("2002:7f00:1::", false),
        ] {
            assert_eq!(is_public(text.parse().expect(text)), expect, "{text}");
        }
    }

    #[test]
    fn only_web_addresses_are_fetched_from() {
        for (url, expect) in [
            ("file:///etc/passwd", "upload the file"),
            ("gs://bucket/p.yaml", "`gs://`"),
            ("s3://bucket/p.yaml", "`s3://`"),
            ("ftp://host/p.yaml", "expected an http(s) address"),
            ("p.yaml", "expected an http(s) address"),
            ("https://", "is no address"),
            ("https://user:word@host/p.yaml", "credentials"),
        ] {
            let error = checked(url).expect_err(url).to_string();
            assert!(error.contains(expect), "{url}: {error}");
        }
        assert!(checked("HTTPS://host/p.yaml").is_ok());
    }
}
