//! Server-sent events, as far as the server sends them.

use std::io::{self, BufRead, BufReader, Read};

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// What it is about; `message` when the server does not say.
    pub(crate) name: String,
    /// Its content.
    pub(crate) data: String,
}

/// The events of a stream, until it ends.
pub(crate) struct Events<R> {
    lines: BufReader<R>,
}

impl<R: Read> Events<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self {
            lines: BufReader::with_capacity(64 * 1024, stream),
        }
    }
}

impl<R: Read> Iterator for Events<R> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<io::Result<Event>> {
        let mut event = Event::default();
        let mut has_data = false;
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                if has_data {
                    if event.name.is_empty() {
                        event.name.push_str("message");
                    }
                    return Some(Ok(event));
                }
                event = Event::default();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "data" => {
                    if has_data {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                    has_data = true;
                }
                // Comments keep the connection alive; other fields mean nothing here.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let text = ": keep-alive\n\nevent: run\ndata: {\"a\":\ndata: 1}\n\n:\n\ndata:x\r\n\r\nevent: lost\n\ndata: cut";
        let found: Vec<Event> = Events::new(text.as_bytes())
            .map(|event| event.expect("read"))
            .collect();
        let event = |name: &str, data: &str| Event {
            name: name.to_owned(),
            data: data.to_owned(),
        };
        assert_eq!(found, [event("run", "{\"a\":\n1}"), event("message", "x")]);
    }
}
