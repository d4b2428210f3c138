//! Things with keys that a plugin adds, replaces or takes away: mounts, devices, variables; annotations and the like.

use std::collections::BTreeMap;

use crate::api::{Field, KeyValue, LinuxDevice, Marked, Mount, removal};
use crate::error::NriError;

use super::Claims;

/// An element of a list that an adjustment has.
pub(super) trait Keyed: Clone {
    /// What tells it from others; after a minus sign it is taken away.
    fn key(&self) -> &str;
}

impl Keyed for Mount {
    fn key(&self) -> &str {
        &self.destination
    }
}

impl Keyed for LinuxDevice {
    fn key(&self) -> &str {
        &self.path
    }
}

impl Keyed for KeyValue {
    fn key(&self) -> &str {
        &self.key
    }
}

/// Merges a plugin's list into what all have set together. Elements that it sets or takes away leave the container's list by
/// `drop`; those it sets are returned, to be added there.
pub(super) fn merge_list<T: Keyed>(
    claims: &mut Claims<'_>,
    field: Field,
    from: Vec<T>,
    together: &mut Vec<T>,
    mut drop: impl FnMut(&str),
) -> Result<Vec<T>, NriError> {
    let (removed, added): (Vec<T>, Vec<T>) = from
        .into_iter()
        .partition(|element| matches!(Marked::of(element.key()), Marked::Removed(_)));
    for gone in &removed {
        let key = Marked::of(gone.key()).key();
        if together.iter().any(|element| element.key() == key) {
            claims.clear_entry(field, key);
        }
        together.retain(|element| Marked::of(element.key()).key() != key);
        drop(key);
    }
    for element in &added {
        claims.take_entry(field, element.key())?;
        // What another plugin has taken away is there again.
        together.retain(|other| Marked::of(other.key()).key() != element.key());
        together.push(element.clone());
        drop(element.key());
    }
    let replaced = |gone: &T| {
        let key = Marked::of(gone.key()).key();
        added.iter().any(|element| element.key() == key)
    };
    together.extend(removed.into_iter().filter(|gone| !replaced(gone)));
    Ok(added)
}

/// The same for a map.
pub(super) fn merge_map<V: Clone + Default>(
    claims: &mut Claims<'_>,
    field: Field,
    from: BTreeMap<String, V>,
    container: &mut BTreeMap<String, V>,
    together: &mut BTreeMap<String, V>,
) -> Result<(), NriError> {
    // A minus sign sorts before all letters and digits, so removals come first; nothing below depends on it.
    let (removed, added): (Vec<_>, Vec<_>) = from
        .into_iter()
        .partition(|(key, _)| matches!(Marked::of(key), Marked::Removed(_)));
    for (marked, _) in removed {
        let key = Marked::of(&marked).key();
        if together.remove(key).is_some() {
            claims.clear_entry(field, key);
        }
        container.remove(key);
        together.insert(removal(key), V::default());
    }
    for (key, value) in added {
        claims.take_entry(field, &key)?;
        together.remove(&removal(&key));
        container.insert(key.clone(), value.clone());
        together.insert(key, value);
    }
    Ok(())
}
