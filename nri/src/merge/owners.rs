//! Which plugin has set what of which container.

use std::collections::btree_map::Entry;

use crate::api::{Field, FieldOwners, Marked, OwningPlugins, removal};
use crate::error::NriError;
use crate::identity::PluginName;

/// The owners of all fields, in the form that validating plugins get. An owner after a minus sign has taken the thing away, and
/// may set it itself.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    message: OwningPlugins,
}

impl Owners {
    pub(crate) fn message(&self) -> &OwningPlugins {
        &self.message
    }

    pub(super) fn claim(
        &mut self,
        container: &str,
        field: Field,
        plugin: &PluginName,
    ) -> Result<(), NriError> {
        let entry = self.of(container).simple.entry(field as i32);
        set(entry, plugin).map_err(|first| conflict(first, plugin, container, name(field)))
    }

    pub(super) fn claim_entry(
        &mut self,
        container: &str,
        field: Field,
        key: &str,
        plugin: &PluginName,
    ) -> Result<(), NriError> {
        let compound = self.of(container).compound.entry(field as i32).or_default();
        set(compound.owners.entry(key.to_owned()), plugin).map_err(|first| {
            let what = format!("{} '{}'", name(field), crate::error::shown(key));
            conflict(first, plugin, container, what)
        })
    }

    pub(super) fn clear(&mut self, container: &str, field: Field, plugin: &PluginName) {
        let owner = removal(&plugin.to_string());
        self.of(container).simple.insert(field as i32, owner);
    }

    pub(super) fn clear_entry(
        &mut self,
        container: &str,
        field: Field,
        key: &str,
        plugin: &PluginName,
    ) {
        let owner = removal(&plugin.to_string());
        let compound = self.of(container).compound.entry(field as i32).or_default();
        compound.owners.insert(key.to_owned(), owner);
    }

    /// Hooks are collected: they belong to all that add some.
    pub(super) fn add(&mut self, container: &str, field: Field, plugin: &PluginName) {
        let owner = self.of(container).simple.entry(field as i32).or_default();
        if !owner.is_empty() {
            owner.push(',');
        }
        owner.push_str(&plugin.to_string());
    }

    /// Who has set a field; with commas, when several may.
    pub(crate) fn owner(&self, container: &str, field: Field) -> Option<&str> {
        let owners = self.message.owners.get(container)?;
        owners.simple.get(&(field as i32)).map(String::as_str)
    }

    /// Who has set any entry of a field, with commas.
    pub(crate) fn entry_owners(&self, container: &str, field: Field) -> Option<String> {
        let owners = self.message.owners.get(container)?;
        let entries = &owners.compound.get(&(field as i32))?.owners;
        let mut names: Vec<&str> = entries
            .values()
            .map(|owner| Marked::of(owner).key())
            .collect();
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then(|| names.join(","))
    }

    fn of(&mut self, container: &str) -> &mut FieldOwners {
        self.message.owners.entry(container.to_owned()).or_default()
    }
}

/// Makes `plugin` the owner, or says who is.
fn set<K: Ord>(entry: Entry<'_, K, String>, plugin: &PluginName) -> Result<(), String> {
    let plugin = plugin.to_string();
    match entry {
        Entry::Vacant(vacant) => {
            vacant.insert(plugin);
            Ok(())
        }
        Entry::Occupied(mut occupied) => match Marked::of(occupied.get()) {
            Marked::Removed(clearer) if clearer == plugin => {
                occupied.insert(plugin);
                Ok(())
            }
            owner => Err(owner.key().to_owned()),
        },
    }
}

fn conflict(first: String, second: &PluginName, container: &str, field: String) -> NriError {
    NriError::Conflict {
        first,
        second: second.to_string(),
        field,
        container: container.to_owned(),
    }
}

/// As the reference's messages name it.
fn name(field: Field) -> String {
    field.as_str_name().to_owned()
}
