//! Requests and limits of a container, from the pipeline's words to Kubernetes'.

use coracle_api::{ir::ContainerSpec, launch::Failure, quantity::Quantity, reason::Reason};
use serde_json::{Map, Value, json};

/// Requests and limits. The texts win over the older numbers.
pub(super) fn resources(
    container: &ContainerSpec,
    text: impl Fn(&str, &str) -> Result<String, Failure>,
) -> Result<Value, Failure> {
    let Some(declared) = &container.resources else {
        return Ok(json!({}));
    };
    let quantity = |what: &str, written: &Option<String>, number: Option<f64>, unit: &str| {
        let value = match written {
            Some(written) if !written.is_empty() => text(what, written)?,
            _ => match number {
                Some(number) if number > 0.0 => format!("{number}{unit}"),
                _ => return Ok(None),
            },
        };
        // An input without a value asks for nothing.
        if value.is_empty() {
            return Ok(None);
        }
        let amount = value
            .parse::<Quantity>()
            .map_err(|error| mismatch(what, &error.to_string()))?;
        if amount.milli() < 0 {
            return Err(mismatch(what, &format!("`{value}` is negative")));
        }
        Ok(Some(value))
    };
    let mut limits = Map::new();
    let mut requests = Map::new();
    let put = |to: &mut Map<String, Value>, name: &str, value: Option<String>| {
        if let Some(value) = value {
            to.insert(name.to_owned(), Value::String(value));
        }
    };
    put(
        &mut limits,
        "cpu",
        quantity(
            "the CPU limit",
            &declared.resource_cpu_limit,
            declared.cpu_limit,
            "",
        )?,
    );
    put(
        &mut requests,
        "cpu",
        quantity(
            "the CPU request",
            &declared.resource_cpu_request,
            declared.cpu_request,
            "",
        )?,
    );
    let memory = quantity(
        "the memory limit",
        &declared.resource_memory_limit,
        declared.memory_limit,
        "G",
    )?;
    put(&mut limits, "memory", memory);
    let memory = quantity(
        "the memory request",
        &declared.resource_memory_request,
        declared.memory_request,
        "G",
    )?;
    put(&mut requests, "memory", memory);
    if let Some(accelerator) = &declared.accelerator {
        let count = match (&accelerator.resource_count, &accelerator.count) {
            (written, _) if !written.is_empty() => text("the accelerator count", written)?,
            (_, Some(Value::String(number))) => number.clone(),
            (_, Some(number)) => number.to_string(),
            (_, None) => "1".to_owned(),
        };
        let kind = if accelerator.resource_type.is_empty() {
            &accelerator.kind
        } else {
            &accelerator.resource_type
        };
        let kind = text("the accelerator type", kind)?;
        put(
            &mut limits,
            &accelerator_resource(&kind),
            quantity("the accelerator count", &Some(count), None, "")?,
        );
    }
    for (resource, what) in [("cpu", "the CPU"), ("memory", "the memory")] {
        let amount = |list: &Map<String, Value>| list.get(resource)?.as_str()?.parse::<Quantity>().ok();
        if let (Some(request), Some(limit)) = (amount(&requests), amount(&limits))
            && request > limit
        {
            let (request, limit) = (&requests[resource], &limits[resource]);
            let why = format!("{request} is more than its limit of {limit}").replace('"', "`");
            return Err(mismatch(&format!("{what} request"), &why));
        }
    }
    Ok(json!({"limits": limits, "requests": requests}))
}

fn mismatch(what: &str, why: &str) -> Failure {
    Failure {
        reason: Reason::InputTypeMismatch,
        message: format!("{what}: {why}"),
    }
}

/// The Kubernetes resource of an accelerator: `NVIDIA_TESLA_T4` and the like are Google's names
/// for what Kubernetes counts as `nvidia.com/gpu`.
fn accelerator_resource(kind: &str) -> String {
    let lower = kind.to_ascii_lowercase();
    if kind.contains('/') {
        kind.to_owned()
    } else if lower.starts_with("nvidia") || lower.is_empty() || lower == "gpu" {
        "nvidia.com/gpu".to_owned()
    } else {
        kind.to_owned()
    }
}
