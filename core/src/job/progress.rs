//! The progress of a run, which `train.py` reports as lines of JSON on its standard output.
//!
//! The format is that of `trainer/logs.py`. Custom images that write the same lines get the same
//! display.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The maximum length of a parsed line in bytes; lines of the trainer have about 150.
const LONGEST_LINE: usize = 4096;

/// The progress of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// The latest completed optimizer step, counted from 1.
    pub step: u64,
    /// The last step of the run.
    pub total_steps: u64,
    /// The training loss of that step; `null` if it is not a number.
    // Serialized even if it is null, so that a diverging run is visible.
    #[serde(deserialize_with = "Option::deserialize")]
    pub loss: Option<f64>,
    /// Tokens per second of all processes together.
    #[schemars(range(min = 0))]
    pub tokens_per_second: f64,
    #[schemars(range(min = 0))]
    pub seconds_left: f64,
}

/// A line of the trainer, distinguished by its member `event`.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Progress(Progress),
}

impl Progress {
    /// Reads the last progress line of a part of a log. Unknown members are ignored; a line with a
    /// missing or invalid member is not a progress line.
    pub fn newest_in(lines: &[u8]) -> Option<Self> {
        let mut latest = lines.rsplit(|byte| *byte == b'\n');
        latest.find_map(Self::read)
    }

    fn read(line: &[u8]) -> Option<Self> {
        if line.len() > LONGEST_LINE || !line.starts_with(b"{") {
            return None;
        }
        let Event::Progress(progress) = serde_json::from_slice(line).ok()?;
        progress.is_possible().then_some(progress)
    }

    fn is_possible(&self) -> bool {
        self.step <= self.total_steps && self.tokens_per_second >= 0.0 && self.seconds_left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: &str = r#"{"event": "progress", "step": 10, "total_steps": 60, "loss": 3.217218, "tokens_per_second": 5645.6, "seconds_left": 12.5}"#;

    fn read(text: &str) -> Option<Progress> {
        Progress::newest_in(text.as_bytes())
    }

    #[test]
    fn the_line_of_the_documentation_is_read() {
        let page = include_str!("../../../trainer/README.md");
        let line = page.lines().find(|line| line.starts_with(r#"{"event""#));
        assert_eq!(line, Some(LINE));
        let progress = read(LINE).unwrap();
        assert_eq!((progress.step, progress.total_steps), (10, 60));
        assert_eq!(progress.loss, Some(3.217_218));
    }

    #[test]
    fn a_loss_that_is_no_number_is_null() {
        let diverged = LINE.replace("3.217218", "null");
        assert_eq!(read(&diverged).unwrap().loss, None);
    }

    #[test]
    fn what_is_no_whole_progress_line_is_passed_over() {
        let cases = [
            LINE.replace("progress", "evaluation"),
            LINE.replace(r#""step": 10, "#, ""),
            LINE.replace(r#""loss": 3.217218, "#, ""),
            LINE.replace("10", "-1"),
            LINE.replace("10", "61"),
            LINE.replace("10", "10.5"),
            LINE.replace("3.217218", "NaN"),
            LINE.replace("12.5", "-12.5"),
            LINE.replace("5645.6", "1e999"),
            format!("rank 0: {LINE}"),
            LINE[..40].to_string(),
            format!("{LINE}{LINE}"),
            LINE.replace("}", &format!(r#", "x": "{}"}}"#, "x".repeat(LONGEST_LINE))),
        ];
        for line in cases {
            assert_eq!(read(&line), None, "{line}");
            let older = format!("{}\n{line}\n", LINE.replace("10", "9"));
            assert_eq!(read(&older).unwrap().step, 9, "{line}");
        }
    }

    proptest! {
        #[test]
        fn the_newest_line_is_found_among_any_others(
            steps in prop::collection::vec(0_u64..1000, 1..4),
            loss in prop::option::of(0.0..10.0),
            noise in "\\PC{0,60}",
        ) {
            let said = |step| {
                let line = serde_json::json!({
                    "event": "progress", "step": step, "total_steps": 1000, "loss": loss,
                    "tokens_per_second": 1.0, "seconds_left": 0.0,
                });
                format!("{line}\n{noise}\n")
            };
            let log: String = steps.iter().map(said).collect();
            let found = read(&log).unwrap();
            prop_assert_eq!(Some(&found.step), steps.last());
            prop_assert_eq!(found.loss, loss);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Progress::newest_in(&bytes);
        }

        #[test]
        fn no_mangled_line_panics(at in 0..LINE.len(), byte in any::<u8>()) {
            let mut line = LINE.as_bytes().to_vec();
            line[at] = byte;
            Progress::newest_in(&line);
        }
    }
}
