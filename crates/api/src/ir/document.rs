//! From the bytes that a client sends to a pipeline that can run, and back to what it reads.

use serde_json::Value;

use super::{PipelineSpec, validate::Problem};

/// A parsed and validated pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The pipeline.
    pub spec: PipelineSpec,
    /// The platform part (`platforms.kubernetes`), when there is one.
    pub platform: Option<Value>,
    /// The document as the API shows it: the IR, or `{pipeline_spec, platform_spec}`.
    pub value: Value,
}
