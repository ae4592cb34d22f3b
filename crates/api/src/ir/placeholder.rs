//! `{{$...}}`, `IfPresent`, `Concat`: what stands in a command for something known only at run time.
