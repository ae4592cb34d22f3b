//! The pipeline engine: IR to plan to task Pods
