//! Where artifact bytes live: URIs, digests, reads and writes
