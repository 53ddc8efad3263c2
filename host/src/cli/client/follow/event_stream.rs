//! Parses server-sent events.

use std::io::BufRead;

/// A server-sent event (HTML, 9.2).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The name of the event.
    pub kind: String,
    pub id: String,
    pub data: String,
}

/// Parses the events of a stream.
pub struct EventStream<R> {
    lines: std::io::Lines<R>,
}

impl<R: BufRead> EventStream<R> {
    pub fn new(reader: R) -> Self {
        Self {
            lines: reader.lines(),
        }
    }
}

impl<R: BufRead> Iterator for EventStream<R> {
    type Item = std::io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut event = Event::default();
        loop {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            if line.is_empty() && !event.data.is_empty() {
                return Some(Ok(event));
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => event.kind = value.to_string(),
                "id" => event.id = value.to_string(),
                "data" => event.data.push_str(value),
                _ => {}
            }
        }
    }
}
