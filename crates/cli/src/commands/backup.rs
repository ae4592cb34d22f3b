//! `coracle backup` and `coracle restore`: a data directory as one file, and back.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use coracle_platform::backup::{self, Summary};

use crate::output::bytes;

/// `coracle backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coracle backup coracle-$(date +%F).tar.gz
  coracle backup - | ssh elsewhere 'cat > coracle.tar'

The server may go on. In the file are the database as it is at one moment, artifacts, claims' volumes, keys
and the audit log: keep it as safe as the data directory. Python environments are left out; they are made anew.")]
pub(crate) struct Backup {
    /// Where to write it; compressed if it ends in `.gz` or `.tgz`; `-` for stdout
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// `coracle restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coracle restore coracle-2026-11-22.tar.gz
  ssh elsewhere 'cat coracle.tar' | coracle restore - --data-dir ~/restored

The data directory must be empty or not there. Tasks that ran when the backup was made run again on the same
machine at the same port; elsewhere, terminate their runs.")]
pub(crate) struct Restore {
    /// The backup; `-` for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn backup(options: &Backup, data_dir: &Path) -> anyhow::Result<()> {
    let name = options.file.to_string_lossy();
    let is_compressed = name.ends_with(".gz") || name.ends_with(".tgz");
    let runtime = runtime()?;
    let summary = if name == "-" {
        runtime.block_on(backup::backup(data_dir, io::stdout(), is_compressed))?
    } else {
        // All or nothing: a file of that name is a whole backup.
        let folder = match options.file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let draft = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("cannot write to `{}`", folder.display()))?;
        let to = draft.reopen().context("cannot write the backup")?;
        let summary = runtime.block_on(backup::backup(data_dir, to, is_compressed))?;
        draft.as_file().sync_all().context("cannot write the backup")?;
        draft
            .persist(&options.file)
            .with_context(|| format!("cannot write `{}`", options.file.display()))?;
        summary
    };
    writeln!(io::stderr(), "{}", told(&summary, "backed up", data_dir))?;
    Ok(())
}

pub(super) fn restore(options: &Restore, data_dir: &Path) -> anyhow::Result<()> {
    let from: Box<dyn Read + Send> = if options.file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let opened = File::open(&options.file);
        Box::new(opened.with_context(|| format!("cannot read `{}`", options.file.display()))?)
    };
    let summary = runtime()?.block_on(backup::restore(from, data_dir))?;
    writeln!(io::stderr(), "{}", told(&summary, "restored", data_dir))?;
    writeln!(io::stderr(), "  start  `coracle up`")?;
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a thread")
}

fn told(summary: &Summary, what: &str, data_dir: &Path) -> String {
    format!(
        "{what} `{}`: {} files, {}, as of {:.0} (version {})",
        data_dir.display(),
        summary.files,
        bytes(summary.bytes),
        summary.manifest.made_at,
        summary.manifest.coracle,
    )
}
