//! Controller kit over kube
