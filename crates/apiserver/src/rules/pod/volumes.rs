//! What is wrong with the volumes of a Pod.

use serde_json::Value;

use crate::{
    object,
    rules::{check_names, claim, syntax},
    validation::Problems,
};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATHS: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Problems with the volumes of the spec that `field` names.
pub(super) fn check(spec: &Value, field: &str, problems: &mut Problems) {
    let volumes = object::list(spec, "/volumes");
    let field = format!("{field}.volumes");
    check_names(volumes, &field, problems);
    for (index, volume) in volumes.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let mut sources = syntax::others(volume, &["name"]);
        let Some(kind) = sources.next() else {
            problems.required(field, "must specify a volume type");
            continue;
        };
        for more in sources {
            problems.forbidden(
                format!("{field}.{more}"),
                "may not specify more than 1 volume type",
            );
        }
        let source = volume.get(kind).unwrap_or(&Value::Null);
        check_source(kind, source, &format!("{field}.{kind}"), problems);
    }
}

fn check_source(kind: &str, source: &Value, field: &str, problems: &mut Problems) {
    let mut need = |name: &str| {
        if object::text(source, &format!("/{name}")).is_empty() {
            problems.required(format!("{field}.{name}"), "");
        }
    };
    match kind {
        "secret" => {
            need("secretName");
            check_items(source, field, problems);
        }
        "configMap" => {
            need("name");
            check_items(source, field, problems);
        }
        "downwardAPI" => check_items(source, field, problems),
        "persistentVolumeClaim" => need("claimName"),
        "nfs" => {
            need("server");
            need("path");
        }
        "csi" => need("driver"),
        "hostPath" => {
            need("path");
            syntax::check_no_way_up(format!("{field}.path"), object::text(source, "/path"), problems);
            let name = format!("{field}.type");
            syntax::check_one_of(source, "/type", name, &HOST_PATHS, problems);
        }
        "emptyDir" => {
            let limit = object::text(source, "/sizeLimit");
            let is_sound = limit
                .parse::<coracle_api::quantity::Quantity>()
                .is_ok_and(|limit| limit.milli() >= 0);
            if !limit.is_empty() && !is_sound {
                let field = format!("{field}.sizeLimit");
                problems.forbidden(field, "SizeLimit field must be a valid resource quantity");
            }
        }
        "ephemeral" => match source.get("volumeClaimTemplate") {
            Some(template) => {
                let field = format!("{field}.volumeClaimTemplate.spec");
                claim::check_spec(template, &field, problems);
            }
            None => problems.required(format!("{field}.volumeClaimTemplate"), ""),
        },
        "projected" => check_projected(source, field, problems),
        _ => {}
    }
}

/// Problems with modes, keys and paths of what becomes files.
fn check_items(source: &Value, field: &str, problems: &mut Problems) {
    check_mode(source, "defaultMode", field, problems);
    for (index, item) in object::list(source, "/items").iter().enumerate() {
        let field = format!("{field}.items[{index}]");
        let is_downward = item.get("fieldRef").is_some() || item.get("resourceFieldRef").is_some();
        if !is_downward && object::text(item, "/key").is_empty() {
            problems.required(format!("{field}.key"), "");
        }
        let path = object::text(item, "/path");
        if path.is_empty() {
            problems.required(format!("{field}.path"), "");
        }
        syntax::check_relative_path(format!("{field}.path"), path, problems);
        check_mode(item, "mode", &field, problems);
    }
}

fn check_mode(source: &Value, name: &str, field: &str, problems: &mut Problems) {
    if let Some(mode) = source.get(name).and_then(Value::as_i64)
        && !(0..=0o777).contains(&mode)
    {
        problems.invalid(format!("{field}.{name}"), mode, MODE);
    }
}

fn check_projected(projected: &Value, field: &str, problems: &mut Problems) {
    check_mode(projected, "defaultMode", field, problems);
    for (index, entry) in object::list(projected, "/sources").iter().enumerate() {
        let field = format!("{field}.sources[{index}]");
        let mut kinds = syntax::others(entry, &[]);
        let Some(kind) = kinds.next() else {
            problems.required(field, "must specify at least one source");
            continue;
        };
        for more in kinds {
            let field = format!("{field}.{more}");
            problems.forbidden(field, "may not specify more than 1 volume type");
        }
        let source = entry.get(kind).unwrap_or(&Value::Null);
        let field = format!("{field}.{kind}");
        match kind.as_str() {
            "secret" | "configMap" if object::text(source, "/name").is_empty() => {
                problems.required(format!("{field}.name"), "");
            }
            "serviceAccountToken" => check_token(source, &field, problems),
            _ => {}
        }
        if kind != "serviceAccountToken" {
            check_items(source, &field, problems);
        }
    }
}

fn check_token(token: &Value, field: &str, problems: &mut Problems) {
    let path = object::text(token, "/path");
    if path.is_empty() {
        problems.required(format!("{field}.path"), "");
    }
    syntax::check_relative_path(format!("{field}.path"), path, problems);
    if let Some(seconds) = token.get("expirationSeconds").and_then(Value::as_i64) {
        let field = format!("{field}.expirationSeconds");
        if seconds < 600 {
            problems.invalid(field, seconds, "may not specify a duration less than 10 minutes");
        } else if seconds > 1 << 32 {
            problems.invalid(
                field,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            );
        }
    }
}
