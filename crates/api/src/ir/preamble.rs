//! The pip preamble of lightweight Python components.
