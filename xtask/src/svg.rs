//! The few elements of SVG that a chart takes.
//!
//! Colours are those of a style sheet, which knows light and dark pages.

use std::fmt::{Display, Write};

/// A drawing of a size.
#[derive(Debug)]
pub(crate) struct Svg {
    text: String,
}

/// A point, from the upper left corner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

impl Svg {
    /// Begins one with a style sheet.
    pub(crate) fn new(width: f64, height: f64, style: &str) -> Self {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n\
             <style>{style}</style>\n"
        );
        Self { text }
    }

    fn put(&mut self, element: impl Display) {
        // Writing to a text never fails.
        let _ = writeln!(self.text, "{element}");
    }

    pub(crate) fn rectangle(&mut self, class: &str, at: Point, width: f64, height: f64) {
        self.rectangle_that_tells(class, at, width, height, "");
    }

    /// The same that tells something when it is pointed at.
    pub(crate) fn rectangle_that_tells(
        &mut self,
        class: &str,
        at: Point,
        width: f64,
        height: f64,
        tells: &str,
    ) {
        let title = match tells {
            "" => String::new(),
            tells => format!("<title>{}</title>", escaped(tells)),
        };
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">{title}</rect>",
            at.x, at.y
        ));
    }

    /// A line through points; nothing for less than two.
    pub(crate) fn line(&mut self, class: &str, points: &[Point]) {
        if points.len() < 2 {
            return;
        }
        let points: Vec<_> = points
            .iter()
            .map(|point| format!("{:.1},{:.1}", point.x, point.y))
            .collect();
        self.put(format_args!(
            "<polyline class=\"{class}\" points=\"{}\"/>",
            points.join(" ")
        ));
    }

    /// A dot that tells something when it is pointed at.
    pub(crate) fn dot(&mut self, class: &str, at: Point, tells: &str) {
        self.put(format_args!(
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"><title>{}</title></circle>",
            at.x,
            at.y,
            escaped(tells)
        ));
    }

    pub(crate) fn text(&mut self, class: &str, at: Point, text: &str) {
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            at.x,
            at.y,
            escaped(text)
        ));
    }

    pub(crate) fn finish(mut self) -> String {
        self.put("</svg>");
        self.text
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_short_lines_left_out() {
        let mut svg = Svg::new(10.0, 20.5, "");
        let at = Point { x: 1.0, y: 2.25 };
        svg.text("t", at, "a < b & c");
        svg.line("l", &[at]);
        svg.line("l", &[at, at]);
        let text = svg.finish();
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "<text class=\"t\" x=\"1.0\" y=\"2.2\">a &lt; b &amp; c</text>",
                "<polyline class=\"l\" points=\"1.0,2.2 1.0,2.2\"/>",
                "</svg>"
            ]
        );
    }
}
