//! Objects for tests, in few words.
