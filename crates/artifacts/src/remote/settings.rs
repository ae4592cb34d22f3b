//! Which store a URI means, and with which credentials: the variables that the stores' own tools
//! read (`AWS_…`, `GOOGLE_…`, `AZURE_…`). Nothing is asked of a network here.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
};

use super::connector::Connector;
use crate::uri::{Object, Provider};

/// Variables by name, as of a process's environment.
#[derive(Clone, Default)]
pub(super) struct Settings {
    variables: BTreeMap<String, String>,
}

impl Settings {
    pub(super) fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let is_ours = |name: &str| {
            ["AWS_", "GOOGLE_", "AZURE_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
                || matches!(name, "SSL_CERT_FILE" | "STORAGE_EMULATOR_HOST" | "HOME")
        };
        Self {
            variables: variables
                .into_iter()
                .filter(|(name, value)| is_ours(name) && !value.trim().is_empty())
                .collect(),
        }
    }

    /// The file with the authorities to trust, if not everybody's.
    pub(super) fn authorities(&self) -> Option<&str> {
        self.get("AWS_CA_BUNDLE").or_else(|| self.get("SSL_CERT_FILE"))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    fn any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.variables.contains_key(*name))
    }

    /// Names and values of the variables that begin so, in lower case.
    fn starting<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (String, &'a str)> {
        self.variables
            .iter()
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }

    /// Whether there is something to show to the store. Without, requests are anonymous: public
    /// buckets answer them.
    pub(super) fn has_credentials(&self, provider: Provider) -> bool {
        match provider {
            Provider::S3 | Provider::Minio => self.any(&[
                "AWS_ACCESS_KEY_ID",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "AWS_METADATA_ENDPOINT",
            ]),
            Provider::Google => {
                let logged_in = || {
                    let home = self.get("HOME").map(Path::new);
                    home.is_some_and(|home| {
                        home.join(".config/gcloud/application_default_credentials.json")
                            .exists()
                    })
                };
                self.any(&[
                    "GOOGLE_APPLICATION_CREDENTIALS",
                    "GOOGLE_SERVICE_ACCOUNT",
                    "GOOGLE_SERVICE_ACCOUNT_PATH",
                    "GOOGLE_SERVICE_ACCOUNT_KEY",
                    "GOOGLE_BEARER_TOKEN",
                ]) || logged_in()
            }
            Provider::Azure => self.any(&[
                "AZURE_STORAGE_ACCOUNT_KEY",
                "AZURE_STORAGE_ACCESS_KEY",
                "AZURE_STORAGE_SAS_KEY",
                "AZURE_STORAGE_SAS_TOKEN",
                "AZURE_STORAGE_TOKEN",
                "AZURE_STORAGE_CLIENT_SECRET",
                "AZURE_CLIENT_SECRET",
                "AZURE_FEDERATED_TOKEN_FILE",
                "AZURE_MSI_ENDPOINT",
                "AZURE_USE_AZURE_CLI",
                "AZURE_STORAGE_USE_EMULATOR",
            ]),
        }
    }

    /// The store that holds an object.
    pub(super) fn store(
        &self,
        object: &Object,
        connector: Connector,
    ) -> Result<Arc<dyn ObjectStore>, String> {
        let is_anonymous = !self.has_credentials(object.provider);
        let built = match object.provider {
            Provider::S3 | Provider::Minio => {
                let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
                    .iter()
                    .find_map(|name| self.get(name));
                if endpoint.is_none() && object.provider == Provider::Minio {
                    return Err("minio:// needs the store's address in AWS_ENDPOINT_URL".to_owned());
                }
                let mut builder = AmazonS3Builder::new();
                for (name, value) in self.starting("AWS_") {
                    if let Ok(key) = name.parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                if is_anonymous {
                    builder = builder.with_skip_signature(true);
                }
                builder
                    .with_bucket_name(&object.bucket)
                    .with_retry(patience())
                    .with_http_connector(connector)
                    .build()
                    .map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            }
            Provider::Google => {
                let mut builder = GoogleCloudStorageBuilder::new();
                for (name, value) in self.starting("GOOGLE_") {
                    if let Ok(key) = name.parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                if let Some(address) = self.get("STORAGE_EMULATOR_HOST") {
                    builder = builder.with_base_url(address);
                }
                if is_anonymous {
                    builder = builder.with_skip_signature(true);
                }
                builder
                    .with_bucket_name(&object.bucket)
                    .with_retry(patience())
                    .with_http_connector(connector)
                    .build()
                    .map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            }
            Provider::Azure => {
                let mut builder = MicrosoftAzureBuilder::new();
                for (name, value) in self.starting("AZURE_") {
                    if let Ok(key) = name.parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                if let Some(account) = &object.account {
                    builder = builder.with_account(account);
                }
                if is_anonymous {
                    builder = builder.with_skip_signature(true);
                }
                builder
                    .with_container_name(&object.bucket)
                    .with_retry(patience())
                    .with_http_connector(connector)
                    .build()
                    .map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            }
        };
        built.map_err(|error| super::told(&error))
    }
}

/// What would help when a store does not let us in.
pub(super) const fn credentials(provider: Provider) -> &'static str {
    match provider {
        Provider::S3 | Provider::Minio => {
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and AWS_REGION or AWS_ENDPOINT_URL"
        }
        Provider::Google => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY",
        Provider::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    }
}

/// Some seconds: enough for a store that restarts, not for one that is not there.
fn patience() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 5,
        retry_timeout: Duration::from_mins(2),
    }
}
