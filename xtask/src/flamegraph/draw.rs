//! The flame graph: a box for each function in each place where it was called, as wide as its part of all samples.

use std::collections::BTreeMap;

use super::fold::Stacks;
use crate::svg::{Point, Svg};

const WIDTH: f64 = 1800.0;
const BOX: f64 = 16.0;
const HEAD: f64 = 24.0;
/// What is narrower is left out.
const NARROWEST: f64 = 0.4;
/// Of a letter, about.
const LETTER: f64 = 6.2;

const STYLE: &str = "text{font:10px monospace;fill:#1f2328}.page{fill:#fff}.process{fill:#c8cdd3}.user{fill:#9ecbff}\
    .kernel{fill:#ffc680}rect{stroke:#fff;stroke-width:.4}\
    @media(prefers-color-scheme:dark){text{fill:#f0f6fc}.page{fill:#0d1117}.process{fill:#3d444d}.user{fill:#1f4a80}\
    .kernel{fill:#7a4a12}rect{stroke:#0d1117}}";

/// A function in one place.
#[derive(Default)]
struct Node<'a> {
    count: u64,
    called: BTreeMap<&'a str, Node<'a>>,
}

/// The graph of all stacks, callers above those that they call.
pub(super) fn svg(stacks: &Stacks) -> String {
    let mut root = Node::default();
    for (stack, count) in stacks.iter() {
        let mut node = &mut root;
        node.count += count;
        for function in stack {
            node = node.called.entry(function).or_default();
            node.count += count;
        }
    }
    let depth = visible_depth(&root, root.count);
    let height = HEAD + BOX * depth as f64;
    let mut svg = Svg::new(WIDTH, height, STYLE);
    svg.rectangle("page", Point { x: 0.0, y: 0.0 }, WIDTH, height);
    let title = format!(
        "{} samples; grey: process, blue: program, orange: kernel; point at a box for its name",
        root.count
    );
    svg.text("", Point { x: 6.0, y: 16.0 }, &title);
    let corner = Point { x: 0.0, y: HEAD };
    children(&mut svg, &root, corner, root.count, Level::Process);
    svg.finish()
}

#[derive(Clone, Copy)]
enum Level {
    Process,
    Function,
}

fn width(count: u64, all: u64) -> f64 {
    WIDTH * count as f64 / all as f64
}

fn visible_depth(node: &Node<'_>, all: u64) -> usize {
    let visible = node
        .called
        .values()
        .filter(|child| width(child.count, all) >= NARROWEST);
    visible
        .map(|child| 1 + visible_depth(child, all))
        .max()
        .unwrap_or(0)
}

/// Draws what is called by `node`, from `corner` on, the most frequent first.
fn children(svg: &mut Svg, node: &Node<'_>, corner: Point, all: u64, level: Level) {
    let mut called: Vec<_> = node.called.iter().collect();
    called.sort_by_key(|(name, child)| (std::cmp::Reverse(child.count), **name));
    let mut at = corner;
    for (name, child) in called {
        let width = width(child.count, all);
        if width >= NARROWEST {
            let shown = name.trim_end_matches("_[k]");
            let class = match level {
                Level::Process => "process",
                Level::Function if name.ends_with("_[k]") => "kernel",
                Level::Function => "user",
            };
            let part = 100.0 * child.count as f64 / all as f64;
            let tells = format!("{shown}: {part:.2} %, {} samples", child.count);
            svg.rectangle_that_tells(class, at, width, BOX, &tells);
            let letters = (width / LETTER) as usize;
            if letters > 3 {
                let text: String = shown.chars().take(letters - 1).collect();
                let place = Point {
                    x: at.x + 2.0,
                    y: at.y + 11.5,
                };
                svg.text("", place, &text);
            }
            let below = Point {
                x: at.x,
                y: at.y + BOX,
            };
            children(svg, child, below, all, Level::Function);
        }
        at.x += width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_as_wide_as_their_part() {
        let script = "a 1/1\n\t10 f (/bin/a)\n\t11 main (/bin/a)\n\n\
            a 1/1\n\t10 g<T> (/bin/a)\n\t11 main (/bin/a)\n\n\
            b 2/2\n\tff read ([kernel.kallsyms])\n\n\
            a 1/1\n\t11 main (/bin/a)\n\n";
        let text = svg(&Stacks::parse(script));
        for part in [
            "class=\"process\" x=\"0.0\" y=\"24.0\" width=\"1350.0\"",
            "class=\"user\" x=\"0.0\" y=\"40.0\" width=\"1350.0\"",
            "class=\"user\" x=\"450.0\" y=\"56.0\" width=\"450.0\"",
            "class=\"kernel\" x=\"1350.0\" y=\"40.0\" width=\"450.0\"",
            "<title>g&lt;T&gt;: 25.00 %, 1 samples</title>",
            "<title>read: 25.00 %, 1 samples</title>",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
