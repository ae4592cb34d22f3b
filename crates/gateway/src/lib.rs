//! REST facades over the records: Kubeflow Pipelines
