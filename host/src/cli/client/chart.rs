//! Draws curves with characters, for terminals and pipes alike.

/// Lines of a chart, without its axis.
const ROWS: usize = 15;
/// The narrowest chart that is drawn, without the labels of its axis.
const MIN_COLUMNS: usize = 10;
/// One for each curve. There are as many curves as the console compares.
const MARKERS: [char; 6] = ['*', 'o', '+', 'x', '#', '@'];

/// The values of one metric of one run, in ascending order of steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    pub run: String,
    /// Steps and values. Values are finite.
    pub samples: Vec<(u64, f64)>,
}

/// A chart of curves that fits into a width. Several curves get a legend. `None` if there is nothing
/// to draw.
pub fn chart(title: &str, curves: &[Curve], width: usize) -> Option<String> {
    let samples = || curves.iter().flat_map(|curve| curve.samples.iter());
    let (first, last) = range(samples().map(|(step, _)| *step as f64))?;
    let (low, high) = range(samples().map(|(_, value)| *value))?;
    let labels = [number(high), number(low)];
    let margin = labels.iter().map(String::len).max().unwrap_or_default();
    let columns = width.saturating_sub(margin + 2).max(MIN_COLUMNS);
    let mut cells = vec![vec![' '; columns]; ROWS];
    for (curve, marker) in curves.iter().zip(MARKERS.iter().cycle()) {
        let scaled = curve.samples.iter().map(|(step, value)| {
            let column = part(*step as f64, first, last) * (columns - 1) as f64;
            let row = (1.0 - part(*value, low, high)) * (ROWS - 1) as f64;
            (column, row)
        });
        draw(&mut cells, scaled, *marker);
    }
    let mut lines = vec![title.to_string()];
    for (row, cells) in cells.iter().enumerate() {
        let label = match row {
            0 => &labels[0],
            row if row == ROWS - 1 => &labels[1],
            _ => "",
        };
        let cells: String = cells.iter().collect();
        lines.push(format!("{label:>margin$} |{}", cells.trim_end()));
    }
    lines.push(format!("{:margin$} +{}", "", "-".repeat(columns)));
    lines.push(steps(first as u64, last as u64, margin + 2, columns));
    if curves.len() > 1 {
        let legend = curves.iter().zip(MARKERS.iter().cycle());
        lines.extend(
            legend.map(|(curve, marker)| format!("{:margin$}  {marker} {}", "", curve.run)),
        );
    }
    Some(lines.join("\n"))
}

/// Marks the cells of samples, and those between them.
fn draw(cells: &mut [Vec<char>], samples: impl Iterator<Item = (f64, f64)>, marker: char) {
    let mut before: Option<(f64, f64)> = None;
    for (column, row) in samples {
        let (from, start) = before.unwrap_or((column, row));
        let columns = from.round() as usize..=column.round() as usize;
        columns.for_each(|between| {
            let row = start + (row - start) * part(between as f64, from, column);
            cells[row.round() as usize][between] = marker;
        });
        before = Some((column, row));
    }
}

/// The axis of steps: the first on the left, the last on the right.
fn steps(first: u64, last: u64, margin: usize, columns: usize) -> String {
    let first = format!("step {first}");
    let gap = columns.saturating_sub(first.len()).max(1);
    format!("{:margin$}{first}{last:>gap$}", "")
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// Where a value is between two others, from 0 to 1. The upper one, if they are the same.
fn part(value: f64, low: f64, high: f64) -> f64 {
    // Halves, because the difference of two large values can overflow.
    let part = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
    if part.is_finite() {
        part.clamp(0.0, 1.0)
    } else {
        1.0
    }
}

/// A number with about five digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        0.001..100_000.0 => {
            let digits = (4 - value.abs().log10().floor() as i32).clamp(0, 5);
            format!("{value:.*}", digits.unsigned_abs() as usize)
        }
        _ => format!("{value:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn curve(run: &str, samples: &[(u64, f64)]) -> Curve {
        Curve {
            run: run.to_string(),
            samples: samples.to_vec(),
        }
    }

    #[test]
    fn a_chart_has_the_range_of_values_and_of_steps() {
        let falls = curve("falls", &[(1, 4.0), (30, 2.0), (60, 1.0)]);
        insta::assert_snapshot!(chart("loss", &[falls], 40).unwrap(), @r"
        loss
        4.0000 |*
               | **
               |   **
               |     *
               |      **
               |        *
               |         **
               |           **
               |             *
               |              **
               |                ****
               |                    ***
               |                       ***
               |                          ****
        1.0000 |                              **
               +--------------------------------
                step 1                        60
        ");
    }

    #[test]
    fn several_curves_have_a_marker_each_and_a_legend() {
        let falls = curve("falls", &[(1, 4.0), (60, 1.0)]);
        let rises = curve("rises", &[(1, 1.0), (60, 2.5)]);
        let chart = chart("loss", &[falls, rises], 40).unwrap();
        let lines: Vec<&str> = chart.lines().collect();
        assert_eq!(lines[1], "4.0000 |**");
        assert!(
            lines[15].starts_with("1.0000 |o") && lines[15].ends_with('*'),
            "{chart}"
        );
        assert_eq!(lines[18..], ["        * falls", "        o rises"]);
    }

    #[test]
    fn without_samples_there_is_no_chart() {
        assert_eq!(chart("loss", &[], 80), None);
        assert_eq!(chart("loss", &[curve("a", &[])], 80), None);
    }

    #[test]
    fn a_number_has_about_five_digits() {
        for (value, text) in [
            (0.0, "0"),
            (3.217_245, "3.2172"),
            (-12.5, "-12.500"),
            (5_646.2, "5646.2"),
            (99_999.9, "100000"),
            (0.000_02, "2.000e-5"),
            (123_456_789.0, "1.235e8"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_values_a_chart_fits_its_width(
            samples in prop::collection::btree_map(any::<u64>(), any::<f64>(), 1..50),
            width in 0_usize..200,
        ) {
            let finite = |value: f64| if value.is_finite() { value } else { 0.0 };
            let samples = samples.into_iter().map(|(step, value)| (step, finite(value)));
            let drawn = chart("", &[Curve { run: String::new(), samples: samples.collect() }], width);
            let fits = width.max(60);
            for line in drawn.unwrap().lines() {
                prop_assert!(line.chars().count() <= fits, "{line:?}");
            }
        }
    }
}
