//! `coracle kubeconfig` and `coracle kubectl`: the way of other Kubernetes clients to the server.
//!
//! The file names the TLS address, the authority that signed its certificate, and the
//! administrator's token. Every client takes that, and a `--token` given to one of them wins.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use coracle_platform::{data_dir::Running, pki};
use serde_json::{Map, Value, json};

use super::up;
use crate::{arguments::Global, client::data_dir, output, trouble::Trouble};

/// What cluster, user and context are called.
const NAME: &str = "coracle";

/// `coracle kubeconfig`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  export KUBECONFIG=$(coracle kubeconfig)
  coracle kubeconfig --merge
  coracle kubeconfig -")]
pub(crate) struct Kubeconfig {
    /// Where to write it; `-` for stdout [default: `kubeconfig` in the data directory]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Add it to the file, and keep what else is there [default file: $KUBECONFIG, else ~/.kube/config]
    #[arg(long)]
    pub(crate) merge: bool,
}

/// `coracle kubectl`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  coracle kubectl get pods -A\n
Options of coracle itself go before `kubectl`: coracle --data-dir FOLDER kubectl get pods -A")]
pub(crate) struct Kubectl {
    /// What to tell kubectl; all that follows is its own
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// Writes the kubeconfig, and says where.
pub(super) fn kubeconfig(options: &Kubeconfig, global: &Global) -> anyhow::Result<()> {
    let data_dir = data_dir(global)?;
    let server = running(&data_dir)?;
    let own = own(&data_dir, &server)?;
    let mut out = io::stdout().lock();
    if options.file.as_deref() == Some(Path::new("-")) {
        return Ok(out.write_all(output::yaml(&own)?.as_bytes())?);
    }
    let file = match &options.file {
        Some(file) => file.clone(),
        None if options.merge => usual()?,
        None => data_dir.join("kubeconfig"),
    };
    let content = if options.merge { merged(&file, own)? } else { own };
    write(&file, &content)?;
    Ok(writeln!(out, "{}", file.display())?)
}

/// Becomes kubectl, told where the server is.
pub(super) fn kubectl(options: &Kubectl, global: &Global) -> anyhow::Result<()> {
    let data_dir = data_dir(global)?;
    let server = running(&data_dir)?;
    let mut command = Command::new("kubectl");
    match &server.cluster {
        Some(cluster) => {
            command.env("KUBECONFIG", &cluster.kubeconfig);
            command.args(["--context", &cluster.context]);
        }
        None => {
            let file = data_dir.join("kubeconfig");
            write(&file, &own(&data_dir, &server)?)?;
            command.env("KUBECONFIG", &file);
        }
    }
    let error = command.args(&options.arguments).exec();
    if error.kind() == io::ErrorKind::NotFound {
        return Err(Trouble::error(
            "there is no `kubectl` on PATH",
            "install it (https://kubernetes.io/docs/tasks/tools/), or use `coracle get`, `coracle describe` and \
             `coracle logs`",
        ));
    }
    Err(error).context("cannot start kubectl")
}

fn running(data_dir: &Path) -> anyhow::Result<Running> {
    up::alive(data_dir).ok().flatten().ok_or_else(|| {
        Trouble::error(
            format!(
                "no server is running on the data directory `{}`",
                data_dir.display()
            ),
            "start one with `coracle up`",
        )
    })
}

/// The kubeconfig of the server's own Kubernetes API.
fn own(data_dir: &Path, server: &Running) -> anyhow::Result<Value> {
    if let Some(cluster) = &server.cluster {
        return Err(Trouble::error(
            format!(
                "this server uses the cluster of context `{}` in `{}`, and has no Kubernetes API of its own",
                cluster.context,
                cluster.kubeconfig.display()
            ),
            "use that file",
        ));
    }
    let url = server.kubernetes.as_deref().ok_or_else(|| {
        Trouble::error(
            "the server that is running is of an older version",
            "restart it: `coracle down`, then `coracle up`",
        )
    })?;
    let (authority, token) = pki::credentials(data_dir)?;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": {
            "server": url,
            "certificate-authority-data": BASE64_STANDARD.encode(authority),
        }}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
        "current-context": NAME,
    }))
}

/// Where clients look when nobody tells them.
fn usual() -> anyhow::Result<PathBuf> {
    let several = std::env::var_os("KUBECONFIG").unwrap_or_default();
    if let Some(first) = std::env::split_paths(&several).find(|path| !path.as_os_str().is_empty()) {
        return Ok(first);
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or_else(|| Trouble::error("HOME is not set", "name the file to write"))?;
    Ok(Path::new(&home).join(".kube/config"))
}

/// What is in the file, with ours in the place of what has its name.
fn merged(file: &Path, own: Value) -> anyhow::Result<Value> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", file.display())),
    };
    if text.trim().is_empty() {
        return Ok(own);
    }
    let there: Value = serde_saphyr::from_str(&text)
        .with_context(|| format!("`{}` is not a kubeconfig, and was left alone", file.display()))?;
    let Value::Object(mut all) = there else {
        anyhow::bail!("`{}` is not a kubeconfig, and was left alone", file.display());
    };
    put(&mut all, own);
    Ok(Value::Object(all))
}

fn put(all: &mut Map<String, Value>, own: Value) {
    let Value::Object(own) = own else { return };
    for (field, value) in own {
        let (Some(Value::Array(there)), Value::Array(ours)) = (all.get_mut(&field), &value) else {
            all.insert(field, value);
            continue;
        };
        there.retain(|entry| entry["name"] != NAME);
        there.extend(ours.iter().cloned());
    }
}

/// Writes the file for this user only: it lets its reader do everything.
fn write(file: &Path, content: &Value) -> anyhow::Result<()> {
    let text = output::yaml(content)?;
    let written = || {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let whole = PathBuf::from(name);
        let mut out = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&whole)?;
        out.write_all(text.as_bytes())?;
        fs::rename(whole, file)
    };
    written().with_context(|| format!("cannot write `{}`", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_else_is_in_a_kubeconfig_stays() {
        let mut all = json!({
            "current-context": "work",
            "clusters": [{"name": "work"}, {"name": "coracle", "cluster": {"server": "old"}}],
            "users": null,
            "preferences": {},
        });
        let own = json!({"current-context": "coracle", "clusters": [{"name": "coracle"}], "users": [{"name": "coracle"}]});
        put(all.as_object_mut().expect("a map"), own);
        assert_eq!(
            all,
            json!({
                "current-context": "coracle",
                "clusters": [{"name": "work"}, {"name": "coracle"}],
                "users": [{"name": "coracle"}],
                "preferences": {},
            })
        );
    }
}
