//! The keys of a data directory, in its folder `pki`, for this user's eyes only: the authority
//! that signs the server's certificate, the key that signs ServiceAccount tokens, and the
//! administrator's token. Each is made once; the certificate is made anew at each start, and the
//! authority when it nears its end.
//!
//! ```text
//! ca.crt, ca.key   the authority, in PEM; ca.expires: until when
//! tokens.key       signs ServiceAccount tokens, in PEM
//! admin.token      whoever shows it is the administrator
//! port             where Pods found the API last time
//! ```

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::data_dir;

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How long an authority is good for, and how long before its end another one is made.
const AUTHORITY_YEARS: i64 = 10;
const AUTHORITY_MARGIN: SignedDuration = SignedDuration::from_hours(24 * 365);
const CERTIFICATE_YEARS: i64 = 2;
/// Clocks may be wrong.
const BACKDATED: SignedDuration = DAY;

/// Names that Pods know the API by.
const NAMES: [&str; 7] = [
    "127.0.0.1",
    "::1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// The keys of a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot keep the keys of the server in `{}`", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("`{}` is damaged; remove it, and the server makes another one at its next start", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A key or certificate was not made.
    #[error("cannot make a certificate for the server")]
    NotMade(#[from] rcgen::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers, so no token could be made")]
    NoRandom,
}

/// The keys of a data directory.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
    /// The certificate of the authority, in PEM.
    pub authority: String,
    /// The certificate of the server, with its authority's.
    pub certificate: Vec<CertificateDer<'static>>,
    /// The key of that certificate.
    pub key: PrivateKeyDer<'static>,
    /// What signs ServiceAccount tokens, in PKCS #8 DER.
    pub token_key: Vec<u8>,
    /// Whoever shows it is the administrator.
    pub admin_token: String,
}

/// Where the keys of a data directory are.
#[must_use]
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("pki")
}

/// What a client needs to be the administrator: the authority's certificate in PEM, and a token.
///
/// # Errors
/// When a server has never run on the data directory, or the files cannot be read.
pub fn credentials(data_dir: &Path) -> Result<(String, String), Error> {
    let folder = folder(data_dir);
    Ok((read(&folder.join("ca.crt"))?, read(&folder.join("admin.token"))?))
}

impl Pki {
    /// Reads the keys, and makes those that are missing. `names` are names and addresses of the
    /// server beside the usual ones.
    ///
    /// # Errors
    /// [`Error`]: the file, and what is wrong with it.
    pub fn open(data_dir: &Path, names: &[String], now: Timestamp) -> Result<Self, Error> {
        let folder = folder(data_dir);
        data_dir::make(&folder).map_err(|source| Error::File {
            path: folder.clone(),
            source,
        })?;
        let authority = Authority::open(&folder, now)?;
        let key = KeyPair::generate()?;
        let mut all: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        // What is no name for a certificate is reached by another one.
        all.extend(
            names
                .iter()
                .filter(|name| name.is_ascii() && !name.is_empty())
                .cloned(),
        );
        let certificate = server_params(all, now)?.signed_by(&key, &authority.issuer)?;
        let token_key = key_in(&folder.join("tokens.key"))?;
        let admin_token = kept(&folder.join("admin.token"), new_token)?;
        Ok(Self {
            authority: authority.certificate,
            certificate: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            token_key: token_key.serialize_der(),
            admin_token,
            folder,
        })
    }

    /// The port that Pods found the API at last time.
    #[must_use]
    pub fn last_port(&self) -> Option<u16> {
        read(&self.folder.join("port")).ok()?.trim().parse().ok()
    }

    /// Remembers the port for the next time.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remember_port(&self, port: u16) -> Result<(), Error> {
        write(&self.folder.join("port"), &port.to_string())
    }
}

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn open(folder: &Path, now: Timestamp) -> Result<Self, Error> {
        let at = |name: &str| folder.join(name);
        let end = read(&at("ca.expires")).ok();
        let end = end.and_then(|end| end.trim().parse::<Timestamp>().ok());
        let is_good = end.is_some_and(|end| now + AUTHORITY_MARGIN < end) && at("ca.crt").exists();
        if !is_good {
            remove(&at("ca.key"))?;
            remove(&at("ca.crt"))?;
        }
        let key = key_in(&at("ca.key"))?;
        let params = authority_params(now);
        let certificate = match read(&at("ca.crt")) {
            Ok(certificate) => certificate,
            Err(_) => {
                let certificate = params.self_signed(&key)?.pem();
                write(&at("ca.crt"), &certificate)?;
                let end = now + DAY * 365 * i32::try_from(AUTHORITY_YEARS).unwrap_or(1);
                write(&at("ca.expires"), &end.to_string())?;
                certificate
            }
        };
        // Of the parameters only the name goes into what it signs, and that never changes.
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }
}

fn authority_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("coracle");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    (params.not_before, params.not_after) = validity(now, AUTHORITY_YEARS);
    params
}

fn server_params(names: Vec<String>, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named("kube-apiserver");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = validity(now, CERTIFICATE_YEARS);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn validity(now: Timestamp, years: i64) -> (OffsetDateTime, OffsetDateTime) {
    let at = |time: Timestamp| {
        OffsetDateTime::from_unix_timestamp(time.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    let length = DAY * 365 * i32::try_from(years).unwrap_or(1);
    (at(now - BACKDATED), at(now + length))
}

/// The private key in a file, made if it is not there.
fn key_in(path: &Path) -> Result<KeyPair, Error> {
    let pem = kept(path, || Ok(KeyPair::generate()?.serialize_pem()))?;
    KeyPair::from_pem(&pem).map_err(|source| Error::Damaged {
        path: path.to_owned(),
        source,
    })
}

fn new_token() -> Result<String, Error> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::NoRandom)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The text in a file, made if it is not there.
fn kept(path: &Path, make: impl FnOnce() -> Result<String, Error>) -> Result<String, Error> {
    if path.exists() {
        return read(path);
    }
    let text = make()?;
    write(path, &text)?;
    Ok(text)
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

/// Writes the whole file or none of it, for this user only.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let whole = path.with_extension("new");
    let written = || {
        remove_if_there(&whole)?;
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&whole)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&whole, path)
    };
    written().map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn remove(path: &Path) -> Result<(), Error> {
    remove_if_there(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    #[test]
    fn keys_are_made_once_for_this_user_only() {
        let temp = tempfile::tempdir().expect("tempdir");
        let first = Pki::open(temp.path(), &["here".to_owned()], NOW).expect("made");
        let again = Pki::open(temp.path(), &[], NOW + DAY).expect("read");
        assert_eq!(first.authority, again.authority);
        assert_eq!(first.token_key, again.token_key);
        assert_eq!(first.admin_token, again.admin_token);
        assert_eq!(
            credentials(temp.path()).expect("there"),
            (again.authority, again.admin_token)
        );
        for file in fs::read_dir(folder(temp.path())).expect("folder") {
            let file = file.expect("file");
            let mode = file.metadata().expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.path().display());
        }
    }

    #[test]
    fn an_authority_near_its_end_is_followed_by_another() {
        let temp = tempfile::tempdir().expect("tempdir");
        let first = Pki::open(temp.path(), &[], NOW).expect("made");
        let later = Pki::open(temp.path(), &[], NOW + DAY * (365 * 9 + 10)).expect("made");
        assert_ne!(first.authority, later.authority);
        assert_eq!(first.token_key, later.token_key);
    }

    #[test]
    fn a_damaged_key_is_named() {
        let temp = tempfile::tempdir().expect("tempdir");
        Pki::open(temp.path(), &[], NOW).expect("made");
        fs::write(folder(temp.path()).join("tokens.key"), "?").expect("written");
        let error = Pki::open(temp.path(), &[], NOW).expect_err("damaged");
        assert!(error.to_string().contains("tokens.key` is damaged"), "{error}");
    }
}
