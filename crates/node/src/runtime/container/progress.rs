//! How far a pull is. Pure.

use std::collections::BTreeMap;

use bollard::models::CreateImageInfo;

/// The layers of an image on their way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    layers: BTreeMap<String, Layer>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Layer {
    loaded: u64,
    total: u64,
    is_whole: bool,
}

impl Progress {
    /// Takes one message of the engine.
    pub(crate) fn take(&mut self, info: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&info.id, info.status.as_deref()) else {
            return;
        };
        let is_of_layer = [
            "Pulling fs layer",
            "Waiting",
            "Downloading",
            "Verifying Checksum",
            "Download complete",
            "Extracting",
            "Pull complete",
            "Already exists",
        ];
        if !is_of_layer.contains(&status) {
            return;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        let amount = |amount: Option<i64>| amount.and_then(|amount| u64::try_from(amount).ok());
        if status == "Downloading"
            && let Some(detail) = &info.progress_detail
        {
            layer.loaded = amount(detail.current).unwrap_or(layer.loaded);
            layer.total = amount(detail.total).unwrap_or(layer.total);
        }
        if matches!(status, "Download complete" | "Extracting" | "Pull complete") {
            layer.loaded = layer.total;
        }
        layer.is_whole |= matches!(status, "Pull complete" | "Already exists");
    }

    /// In a few words; `None` as long as nothing is known.
    pub(crate) fn describe(&self) -> Option<String> {
        if self.layers.is_empty() {
            return None;
        }
        let whole = self.layers.values().filter(|layer| layer.is_whole).count();
        let mut text = format!("{whole} of {} layers", self.layers.len());
        let total: u64 = self.layers.values().map(|layer| layer.total).sum();
        if total > 0 {
            let loaded: u64 = self.layers.values().map(|layer| layer.loaded).sum();
            text.push_str(&format!(", {} of {} loaded", megabytes(loaded), megabytes(total)));
        }
        Some(text)
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn layers_and_bytes_are_counted() {
        let mut progress = Progress::default();
        assert_eq!(progress.describe(), None);
        for message in [
            json!({"id": "1.0", "status": "Pulling from library/x"}),
            json!({"id": "a", "status": "Already exists"}),
            json!({"id": "b", "status": "Pulling fs layer"}),
            json!({"id": "b", "status": "Downloading", "progressDetail": {"current": 1_500_000, "total": 6_000_000}}),
            json!({"status": "Digest: sha256:1"}),
        ] {
            progress.take(&serde_json::from_value(message).unwrap());
        }
        assert_eq!(
            progress.describe().unwrap(),
            "1 of 2 layers, 1.5 MB of 6.0 MB loaded"
        );
        let whole = json!({"id": "b", "status": "Pull complete"});
        progress.take(&serde_json::from_value(whole).unwrap());
        assert_eq!(
            progress.describe().unwrap(),
            "2 of 2 layers, 6.0 MB of 6.0 MB loaded"
        );
    }
}
