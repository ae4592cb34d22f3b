//! Artifacts as their users reach them, against stores in this process.

mod remote;
mod s3;
