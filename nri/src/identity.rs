//! What plugins are called: an index of two digits, which orders them, and a name.

use std::fmt;

/// The longest name; a file name may have no more.
const MAX_NAME: usize = 250;

/// A plugin's index and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName {
    index: String,
    name: String,
}

/// Why something is not a plugin's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// Plugins are called in the order of their indices, which are `00` to `99`.
    #[error("'{index}' is no plugin index: two digits are")]
    Index {
        /// What was given.
        index: String,
    },
    /// Letters, digits, `-`, `_`, `.` and `+`.
    #[error("'{name}' is no plugin name: letters, digits, '-', '_', '.' and '+' are")]
    Name {
        /// What was given.
        name: String,
    },
    /// A file name without both.
    #[error("'{file}' is not of the form IDX-NAME")]
    File {
        /// What was given.
        file: String,
    },
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl PluginName {
    /// From its parts.
    ///
    /// # Errors
    /// When either is not as it must be.
    pub fn new(index: &str, name: &str) -> Result<Self, InvalidIdentity> {
        if index.len() != 2 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidIdentity::Index {
                index: shown(index),
            });
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
            return Err(InvalidIdentity::Name { name: shown(name) });
        }
        Ok(Self {
            index: index.into(),
            name: name.into(),
        })
    }

    /// From a program's file name.
    ///
    /// # Errors
    /// When it is not `IDX-NAME`.
    pub fn of_file(file: &str) -> Result<Self, InvalidIdentity> {
        match file.split_once('-') {
            Some((index, name)) => Self::new(index, name),
            None => Err(InvalidIdentity::File { file: shown(file) }),
        }
    }

    /// `00` to `99`.
    pub fn index(&self) -> &str {
        &self.index
    }

    /// The name alone.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `text` means it, as `NAME` or `IDX-NAME`.
    pub fn is_called(&self, text: &str) -> bool {
        text == self.name || text == self.to_string()
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.index, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_files_and_ordered_by_index() {
        let plugin = PluginName::of_file("10-a-b.c").unwrap();
        assert_eq!((plugin.index(), plugin.name()), ("10", "a-b.c"));
        assert!(plugin.is_called("a-b.c") && plugin.is_called("10-a-b.c"));
        assert!(!plugin.is_called("a"));
        assert!(PluginName::of_file("09-z").unwrap() < plugin);
    }

    #[test]
    fn other_names_are_refused() {
        for bad in [
            "", "10", "1-a", "100-a", "ab-c", "10-", "10-a/b", "10-a b", "10-ä",
        ] {
            assert!(PluginName::of_file(bad).is_err(), "{bad}");
        }
        assert!(PluginName::new("10", &"x".repeat(251)).is_err());
    }
}
