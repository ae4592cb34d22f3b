//! The local kubelet: runs Pods as sandboxed processes
