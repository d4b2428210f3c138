//! One answer out of the answers of all plugins.
//!
//! Each plugin sees what those before it have made of a container. A thing that one has set no other may set, unless it takes it
//! away first: who has set what is kept in [`owners`]. The rules are those of the reference's `pkg/adaptation/result.go`, but that
//! what a plugin takes away from the container is always taken away, and that sysctls are not mistaken for annotations.

mod creation;
mod lists;
mod owners;
mod resources;
mod updates;

#[cfg(test)]
mod tests;

pub(crate) use creation::CreationMerge;
pub(crate) use owners::Owners;
pub(crate) use updates::UpdateMerge;

use crate::api::Field;
use crate::error::NriError;
use crate::identity::PluginName;

/// Whose answer is merged, about which container, and who owns what already.
pub(crate) struct Claims<'a> {
    pub(crate) owners: &'a mut Owners,
    pub(crate) container: &'a str,
    pub(crate) plugin: &'a PluginName,
}

impl Claims<'_> {
    /// Takes a field.
    fn take(&mut self, field: Field) -> Result<(), NriError> {
        self.owners.claim(self.container, field, self.plugin)
    }

    /// Takes one entry of a field that has keys.
    fn take_entry(&mut self, field: Field, key: &str) -> Result<(), NriError> {
        self.owners
            .claim_entry(self.container, field, key, self.plugin)
    }

    /// Takes away an entry that another plugin may have set, and may set it anew.
    fn clear_entry(&mut self, field: Field, key: &str) {
        self.owners
            .clear_entry(self.container, field, key, self.plugin);
    }

    /// The same for a field.
    fn clear(&mut self, field: Field) {
        self.owners.clear(self.container, field, self.plugin);
    }
}
