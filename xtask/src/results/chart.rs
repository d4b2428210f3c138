//! A panel for each figure: Podwright's and its peer's values over the commits, and the goal, on a logarithmic scale.

use super::record::{Goal, Record, Row};
use crate::svg::{Point, Svg};

const COLUMNS: usize = 3;
const WIDTH: f64 = 350.0;
const HEIGHT: f64 = 150.0;
/// Of the panel's plot, from the panel's upper left corner.
const PLOT: Plot = Plot {
    left: 44.0,
    top: 30.0,
    right: WIDTH - 14.0,
    bottom: HEIGHT - 26.0,
};
const HEAD: f64 = 40.0;

const STYLE: &str = "text{font:12px sans-serif;fill:#1f2328}.small{font-size:10px;fill:#59636e}.end{text-anchor:end}\
    .middle{text-anchor:middle}.page{fill:#fff}.plot{fill:#f6f8fa}\
    polyline{fill:none;stroke-width:1.5}.grid{stroke:#d1d9e0;stroke-width:.5}\
    .own{stroke:#0969da}circle.own,text.own{stroke:none;fill:#0969da}\
    .peer{stroke:#9a6700}circle.peer,text.peer{stroke:none;fill:#9a6700}\
    .goal{stroke:#1a7f37;stroke-dasharray:5 3}text.goal{stroke:none;fill:#1a7f37}.missed{fill:#cf222e}\
    @media(prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1}.page{fill:#0d1117}.plot{fill:#151b23}\
    .grid{stroke:#3d444d}.own{stroke:#4493f8}circle.own,text.own{fill:#4493f8}.peer{stroke:#d29922}\
    circle.peer,text.peer{fill:#d29922}.goal{stroke:#3fb950}text.goal{fill:#3fb950}.missed{fill:#f85149}}";

struct Plot {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

/// The chart of records in their order, oldest first.
pub(super) fn svg(records: &[Record]) -> String {
    let figures = figures(records);
    let rows = figures.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEAD + HEIGHT * rows as f64);
    let mut svg = Svg::new(width, height, STYLE);
    svg.rectangle("page", Point { x: 0.0, y: 0.0 }, width, height);
    for (class, x, text) in [
        ("own", 12.0, "— Podwright"),
        ("peer", 112.0, "— the runtime measured beside it"),
        ("goal", 352.0, "- - goal"),
    ] {
        svg.text(class, Point { x, y: 22.0 }, text);
    }
    for (number, figure) in figures.iter().enumerate() {
        let corner = Point {
            x: WIDTH * (number % COLUMNS) as f64,
            y: HEAD + HEIGHT * (number / COLUMNS) as f64,
        };
        panel(&mut svg, corner, records, figure);
    }
    svg.finish()
}

/// All figures: in the order of the newest record, then what only earlier ones have.
fn figures(records: &[Record]) -> Vec<&str> {
    let mut figures = Vec::new();
    for row in records.iter().rev().flat_map(|record| &record.rows) {
        if !figures.contains(&row.figure.as_str()) {
            figures.push(&row.figure);
        }
    }
    figures
}

/// A value of a record, by the record's place.
struct Value<'a> {
    place: usize,
    record: &'a Record,
    row: &'a Row,
}

fn panel(svg: &mut Svg, corner: Point, records: &[Record], figure: &str) {
    let values = records.iter().enumerate().filter_map(|(place, record)| {
        let row = record.rows.iter().find(|row| row.figure == figure)?;
        Some(Value { place, record, row })
    });
    let values: Vec<_> = values.collect();
    let Some(newest) = values.last() else { return };
    let at = |x: f64, y: f64| Point {
        x: corner.x + x,
        y: corner.y + y,
    };
    title(svg, &at, newest.row);
    svg.rectangle(
        "plot",
        at(PLOT.left, PLOT.top),
        PLOT.right - PLOT.left,
        PLOT.bottom - PLOT.top,
    );
    let scale = Scale::of(&values);
    for tick in scale.ticks() {
        let y = scale.y(tick);
        svg.line("grid", &[at(PLOT.left, y), at(PLOT.right, y)]);
        svg.text("small end", at(PLOT.left - 4.0, y + 3.0), &short(tick));
    }
    let y = scale.y(newest.row.goal.bound());
    svg.line("goal", &[at(PLOT.left, y), at(PLOT.right, y)]);
    let step = (PLOT.right - PLOT.left) / records.len() as f64;
    let x = |place: usize| PLOT.left + step * (place as f64 + 0.5);
    let points = |value: fn(&Row) -> Option<f64>| -> Vec<_> {
        let points = values.iter();
        points.filter_map(|v| Some((v, value(v.row)?))).collect()
    };
    let series = [
        ("peer", points(|row| row.peer)),
        ("own", points(|row| row.own)),
    ];
    for (class, points) in series {
        let point = |v: &Value<'_>, value| at(x(v.place), scale.y(value));
        let line: Vec<_> = points.iter().map(|(v, value)| point(v, *value)).collect();
        svg.line(class, &line);
        for (v, value) in points {
            let commit = v.record.commit.get(..12).unwrap_or(&v.record.commit);
            let tells = format!(
                "{} {commit}: {} {}",
                v.record.date,
                short(value),
                v.row.unit
            );
            svg.dot(class, point(v, value), &tells);
        }
    }
    days(svg, &at, records);
}

/// The figure's name, its newest value and the goal.
fn title(svg: &mut Svg, at: &impl Fn(f64, f64) -> Point, row: &Row) {
    svg.text("", at(12.0, 14.0), &row.figure);
    let sign = match row.goal {
        Goal::Most(_) => "≤",
        Goal::Least(_) => "≥",
    };
    let goal = format!("{sign} {}", short(row.goal.bound()));
    svg.text("goal small end", at(PLOT.right, 27.0), &goal);
    if let Some(own) = row.own {
        let is_reached = match row.goal {
            Goal::Most(bound) => own <= bound,
            Goal::Least(bound) => own >= bound,
        };
        let class = if is_reached {
            "own small"
        } else {
            "missed small"
        };
        let value = format!("{} {}", short(own), row.unit);
        svg.text(class, at(12.0, 27.0), &value);
    }
}

/// The first and the last record's, below the plot.
fn days(svg: &mut Svg, at: &impl Fn(f64, f64) -> Point, records: &[Record]) {
    let day = |record: &Record| record.date.get(..10).unwrap_or_default().to_owned();
    let y = PLOT.bottom + 13.0;
    let centre = (PLOT.left + PLOT.right) / 2.0;
    match records {
        [] => {}
        [only] => svg.text("small middle", at(centre, y), &day(only)),
        [first, .., last] => {
            svg.text("small", at(PLOT.left, y), &day(first));
            svg.text("small end", at(PLOT.right, y), &day(last));
        }
    }
}

/// From values to heights in a panel. What is 0 is at the bottom.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(values: &[Value<'_>]) -> Self {
        let all = values
            .iter()
            .flat_map(|value| [value.row.own, value.row.peer, Some(value.row.goal.bound())]);
        let positive = all.flatten().filter(|value| *value > 0.0);
        let (low, high) = positive.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        Self {
            low: low.min(high) / 1.5,
            high: high * 1.5,
        }
    }

    fn y(&self, value: f64) -> f64 {
        let part = (value.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        PLOT.bottom - part * (PLOT.bottom - PLOT.top)
    }

    /// Powers of ten, and where there are less than two of them, both ends.
    fn ticks(&self) -> Vec<f64> {
        let exponents = self.low.log10().ceil() as i32..=self.high.log10().floor() as i32;
        let powers: Vec<_> = exponents.map(|exponent| 10_f64.powi(exponent)).collect();
        if powers.len() < 2 {
            vec![self.low * 1.5, self.high / 1.5]
        } else {
            powers
        }
    }
}

/// As few digits as tell values apart.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        v if v < 0.1 => 3,
        v if v < 1.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(date: &str, rows: &[(&str, Option<f64>, Option<f64>)]) -> Record {
        let row = |&(figure, own, peer): &(&str, Option<f64>, Option<f64>)| Row {
            figure: figure.to_owned(),
            unit: "ms".to_owned(),
            goal: Goal::Most(8.0),
            own,
            peer,
        };
        Record {
            commit: "0123456789abcdef".to_owned(),
            date: date.to_owned(),
            rows: rows.iter().map(row).collect(),
        }
    }

    #[test]
    fn each_figure_has_a_panel_with_its_values_and_its_goal() {
        let records = [
            record("2026-11-20T00:00:00Z", &[("old", Some(1.0), None)]),
            record(
                "2026-11-21T00:00:00Z",
                &[("pod up", Some(9.0), Some(185.0))],
            ),
            record("2026-11-22T00:00:00Z", &[("pod up", Some(7.5), None)]),
        ];
        assert_eq!(figures(&records), ["pod up", "old"]);
        let svg = svg(&records);
        let count = |part: &str| svg.matches(part).count();
        assert_eq!(count("class=\"plot\""), 2);
        assert_eq!(count("<polyline class=\"goal\""), 2);
        assert_eq!(count("<circle class=\"own\""), 3);
        assert_eq!(count("<circle class=\"peer\""), 1);
        assert_eq!(count("<polyline class=\"own\""), 1);
        assert!(svg.contains("2026-11-22T00:00:00Z 0123456789ab: 7.5 ms"));
        assert!(svg.contains(">2026-11-20<") && svg.contains(">2026-11-22<"));
        assert!(!svg.contains("class=\"missed"), "the newest value counts");
    }

    #[test]
    fn a_missed_goal_is_marked_and_nothing_is_infinite() {
        let text = svg(&[record("2026-11-20T00:00:00Z", &[("idle", Some(9.0), None)])]);
        assert!(text.contains("class=\"missed small\""));
        for rows in [
            vec![("idle", Some(0.0), None)],
            vec![("idle", None, None)],
            vec![],
        ] {
            let text = svg(&[record("2026-11-20T00:00:00Z", &rows)]);
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
        assert!(svg(&[]).ends_with("</svg>\n"));
    }

    #[test]
    fn higher_values_are_higher_up() {
        let records = [record("d", &[("a", Some(2.0), Some(200.0))])];
        let row = &records[0].rows[0];
        let (place, record) = (0, &records[0]);
        let scale = Scale::of(&[Value { place, record, row }]);
        let heights = [0.0, 2.0, 8.0, 200.0].map(|value| scale.y(value));
        assert!(heights.is_sorted_by(|low, high| low > high), "{heights:?}");
        assert!(PLOT.top < heights[3] && heights[0] <= PLOT.bottom);
        assert_eq!(scale.ticks(), [10.0, 100.0]);
    }

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.0123, "0.012"),
            (0.5, "0.5"),
            (8.0, "8"),
            (2.345, "2.3"),
            (1234.5, "1234"),
        ] {
            assert_eq!(short(value), expected);
        }
    }
}
