//! The embedded web pages
