//! From an uploaded file to the one document in it: YAML, JSON, zip or tar.gz.
//!
//! Archives are read to a limit, whatever sizes they claim: a small archive that unfolds into a
//! large one is refused as soon as it passes the limit.

use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;

/// The most that a file may hold, packed and unpacked.
pub(super) const LIMIT: u64 = 32 * 1024 * 1024;

/// The file that an archive is expected to have.
const PREFERRED: &str = "pipeline.yaml";

/// Why no document was found in a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The file is of no kind that holds pipelines.
    #[error("`{name}` is no pipeline file: expected .yaml, .yml, .json, .zip or .tar.gz")]
    UnknownKind {
        /// The file's name.
        name: String,
    },
    /// The archive is broken.
    #[error("the {kind} archive cannot be read: {source}")]
    Broken {
        /// `zip` or `tar.gz`.
        kind: &'static str,
        /// What its reader says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The archive holds no document.
    #[error(
        "the {kind} archive holds no pipeline: expected a file `pipeline.yaml`, or another .yaml, .yml or .json"
    )]
    Empty {
        /// `zip` or `tar.gz`.
        kind: &'static str,
    },
    /// The archive holds more than [`LIMIT`].
    #[error("the {kind} archive unfolds to more than {} MiB, which is the most that a pipeline may have", LIMIT / (1024 * 1024))]
    TooLarge {
        /// `zip` or `tar.gz`.
        kind: &'static str,
    },
}

/// Finds the document in `bytes`, the content of a file called `name`.
pub(super) fn document(name: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    if bytes.starts_with(b"PK") {
        from_zip(bytes)
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        from_tar_gz(&bytes)
    } else if is_document(name) {
        Ok(bytes)
    } else {
        Err(Error::UnknownKind {
            name: name.to_owned(),
        })
    }
}

/// Whether a file's name is that of a document.
pub(super) fn is_document(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".yaml", ".yml", ".json"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

/// Whether a path in an archive is of a document. Files that macOS adds beside each are not.
fn is_document_path(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    is_document(file) && !file.starts_with("._")
}

fn from_zip(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    const KIND: &str = "zip";
    let broken = |error: zip::result::ZipError| Error::Broken {
        kind: KIND,
        source: error.into(),
    };
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let name = |index| {
        archive
            .name_for_index(index)
            .and_then(Result::ok)
            .unwrap_or_default()
    };
    let preferred = (0..archive.len()).find(|index| name(*index) == PREFERRED);
    let index = preferred.or_else(|| (0..archive.len()).find(|index| is_document_path(&name(*index))));
    let file = archive
        .by_index(index.ok_or(Error::Empty { kind: KIND })?)
        .map_err(broken)?;
    read_to_limit(file, KIND)
}

fn from_tar_gz(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    const KIND: &str = "tar.gz";
    // One byte more than the limit: at the limit and past it are then not the same.
    let mut unpacked = MultiGzDecoder::new(bytes).take(LIMIT + 1);
    let mut found = None;
    let result = find_in_tar(&mut unpacked, &mut found);
    if unpacked.limit() == 0 {
        return Err(Error::TooLarge { kind: KIND });
    }
    result.map_err(|error| Error::Broken {
        kind: KIND,
        source: error.into(),
    })?;
    found.ok_or(Error::Empty { kind: KIND })
}

fn find_in_tar(reader: &mut impl Read, found: &mut Option<Vec<u8>>) -> io::Result<()> {
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.to_string_lossy().into_owned();
        let is_preferred = path.trim_start_matches("./") == PREFERRED;
        if is_preferred || (found.is_none() && is_document_path(&path)) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            *found = Some(content);
            if is_preferred {
                break;
            }
        }
    }
    Ok(())
}

fn read_to_limit(reader: impl Read, kind: &'static str) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    reader
        .take(LIMIT + 1)
        .read_to_end(&mut content)
        .map_err(|error| Error::Broken {
            kind,
            source: error.into(),
        })?;
    if content.len() as u64 > LIMIT {
        return Err(Error::TooLarge { kind });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            writer
                .start_file(*name, zip::write::SimpleFileOptions::default())
                .expect("a file");
            writer.write_all(content).expect("content");
        }
        writer.finish().expect("an archive").into_inner()
    }

    fn tar_gz(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *content).expect("a file");
        }
        builder.into_inner().expect("a tar").finish().expect("an archive")
    }

    #[test]
    fn the_document_is_found_in_every_kind_of_file() {
        let check = |name: &str, bytes: Vec<u8>| {
            assert_eq!(document(name, bytes).expect(name), b"right", "{name}");
        };
        check("a.yaml", b"right".to_vec());
        check("A.YML", b"right".to_vec());
        check("a.json", b"right".to_vec());
        for pack in [zip, tar_gz] {
            check("one", pack(&[("a.yaml", b"right")]));
            check(
                "notes first",
                pack(&[
                    ("README.md", b"x"),
                    ("._b.yml", b"x"),
                    ("d/b.yml", b"right"),
                    ("c.json", b"x"),
                ]),
            );
            check(
                "preferred last",
                pack(&[("a.yaml", b"x"), ("pipeline.yaml", b"right")]),
            );
        }
        check(
            "dotted",
            tar_gz(&[("a.yaml", b"x"), ("./pipeline.yaml", b"right")]),
        );
    }

    #[test]
    fn what_holds_no_document_is_refused() {
        let check = |name: &str, bytes: Vec<u8>, expect: &str| {
            let error = document(name, bytes).expect_err(name).to_string();
            assert!(error.contains(expect), "{name}: {error}");
        };
        check("a.txt", b"x".to_vec(), "`a.txt` is no pipeline file");
        check("", Vec::new(), "is no pipeline file");
        check("empty", zip(&[]), "zip archive holds no pipeline");
        check(
            "no yaml",
            zip(&[("a.txt", b"x")]),
            "zip archive holds no pipeline",
        );
        check(
            "no yaml",
            tar_gz(&[("a.txt", b"x")]),
            "tar.gz archive holds no pipeline",
        );
        check(
            "broken",
            b"PK\x03\x04nonsense".to_vec(),
            "zip archive cannot be read",
        );
        check(
            "broken",
            b"\x1f\x8bnonsense".to_vec(),
            "tar.gz archive cannot be read",
        );
        let mut cut = tar_gz(&[("a.yaml", &[7; 100_000])]);
        cut.truncate(cut.len() / 2);
        check("cut", cut, "tar.gz archive cannot be read");
    }

    #[test]
    fn an_archive_that_unfolds_past_the_limit_is_refused() {
        let zeros = vec![0; usize::try_from(LIMIT).expect("small") + 1];
        for (kind, bytes) in [
            ("zip", zip(&[("a.yaml", &zeros)])),
            ("tar.gz", tar_gz(&[("a.yaml", &zeros)])),
            (
                "tar.gz beside",
                tar_gz(&[("a.bin", &zeros), ("pipeline.yaml", b"x")]),
            ),
        ] {
            assert!(bytes.len() < 1024 * 1024, "{kind} is a small file");
            assert!(
                matches!(document("x", bytes), Err(Error::TooLarge { .. })),
                "{kind}"
            );
        }
    }
}
