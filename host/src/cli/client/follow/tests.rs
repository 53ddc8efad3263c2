//! Tests of following a log across interruptions.

use super::event_stream::Event;
use super::*;

#[test]
fn events_are_read_and_comments_are_not() {
    let stream = ":\n\nevent: status\nid: 1\nretry: 1000\ndata: {\"a\":1}\n\n: keep\n\nevent: \
                  deleted\ndata: {}\n\n";
    let events: Vec<Event> = EventStream::new(stream.as_bytes())
        .map(Result::unwrap)
        .collect();
    assert_eq!(events.len(), 2);
    assert_eq!(
        (events[0].id.as_str(), events[0].data.as_str()),
        ("1", "{\"a\":1}")
    );
    assert_eq!(events[1].kind, "deleted");
}

#[test]
fn a_line_has_a_replica_where_there_are_several() {
    let line = b"[worker-0] 2026-01-01T00:00:00.000001Z step 1\n";
    let (replica, time, text) = parts(line);
    assert_eq!(replica, b"[worker-0] ");
    assert_eq!(time, b"2026-01-01T00:00:00.000001Z");
    assert_eq!(text, b"step 1\n");
    assert_eq!(parts(b"2026Z \n"), (&b""[..], &b"2026Z"[..], &b"\n"[..]));
}

/// Reads like a connection that is cut off after these pieces.
struct Cut<'a>(std::collections::VecDeque<&'a [u8]>);

impl std::io::Read for Cut<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let piece = self.0.pop_front().ok_or_else(cut)?;
        buffer[..piece.len()].copy_from_slice(piece);
        Ok(piece.len())
    }
}

fn passed(pieces: &[&str], seen: &mut Seen, output: &mut Vec<u8>) {
    let pieces = pieces.iter().map(|piece| piece.as_bytes()).collect();
    let mut reader = BufReader::new(Cut(pieces));
    copy_lines(&mut reader, LogLines::Plain, seen, output).unwrap();
}

#[test]
fn a_line_is_printed_as_it_comes_and_continued_after_a_cut() {
    let (mut seen, mut output) = (Seen::default(), Vec::new());
    passed(&["1 a\n", "2", " 10%\r", "20%\r"], &mut seen, &mut output);
    assert_eq!(String::from_utf8_lossy(&output), "a\n10%\r20%\r");
    seen.resume();
    output.clear();
    passed(&["2 10%\r", "20%\r30"], &mut seen, &mut output);
    assert_eq!(String::from_utf8_lossy(&output), "30");
    seen.resume();
    output.clear();
    passed(&["2 10%\r20%\r30%\n", "3 b\n"], &mut seen, &mut output);
    assert_eq!(String::from_utf8_lossy(&output), "%\nb\n");
    seen.resume();
    output.clear();
    passed(&["2 10%\r20%\r30%\n", "3 b\n3 c\n"], &mut seen, &mut output);
    assert_eq!(String::from_utf8_lossy(&output), "c\n");
}

#[test]
fn a_line_of_several_replicas_is_printed_when_it_is_whole() {
    let (mut seen, mut output) = (Seen::default(), Vec::new());
    passed(&["[a] 1 x\n[b] 1 y", "y\n[a] 2 4"], &mut seen, &mut output);
    assert_eq!(String::from_utf8_lossy(&output), "[a] x\n[b] yy\n");
    seen.resume();
    output.clear();
    passed(
        &["[b] 1 yy\n[b] 2 z\n[a] 1 x\n[a] 2 42\n"],
        &mut seen,
        &mut output,
    );
    assert_eq!(String::from_utf8_lossy(&output), "[b] z\n[a] 42\n");
}

#[test]
fn lines_of_one_time_that_come_again_are_dropped_once_each() {
    let mut seen = Seen::default();
    for time in ["1", "2", "2"] {
        assert!(seen.is_new(b"", time.as_bytes()));
    }
    seen.resume();
    let again = ["2", "2", "2", "3"].map(|time| seen.is_new(b"", time.as_bytes()));
    assert_eq!(again, [false, false, true, true]);
}
