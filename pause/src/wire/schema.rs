//! The layout of all that travels, as text: what a version has promised.

use crate::version::Version;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Types by name, with their fields or variants in order, each with the version that it is there since.
#[derive(Debug, Default)]
pub struct Schema {
    types: BTreeMap<&'static str, Vec<(u16, String)>>,
}

impl Schema {
    /// Whether a type was described before; it is from now on.
    pub fn begin(&mut self, name: &'static str) -> bool {
        let known = self.types.contains_key(name);
        self.types.entry(name).or_default();
        known
    }

    /// Adds a field or variant to a type that was begun.
    pub fn add(&mut self, name: &'static str, since: u16, part: String) {
        self.types.entry(name).or_default().push((since, part));
    }

    /// What a version has.
    pub fn of(&self, version: Version) -> String {
        let mut text = String::new();
        for (name, parts) in &self.types {
            let mut parts = parts
                .iter()
                .filter(|(since, _)| Version(*since) <= version)
                .peekable();
            if parts.peek().is_some() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{name}");
            }
            for (_, part) in parts {
                let _ = writeln!(text, "    {part}");
            }
        }
        text
    }
}
