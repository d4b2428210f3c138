//! Compiled programs by what they were compiled from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::{ProfileHost, Program, SeccompError, compile, default_profile, parse_profile};
use crate::security::capabilities::CapabilitySet;

/// What a program depends on. The kernel's version does not change while the daemon runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Default(CapabilitySet),
    /// The hash of the JSON.
    Localhost([u8; 32], CapabilitySet),
}

/// Programs that were used last. Pods are made from few profiles, so that nearly all starts find theirs here.
#[derive(Debug)]
pub struct ProgramCache {
    capacity: usize,
    /// Guards the map for the time of a look-up; programs are compiled outside of it, twice at worst.
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    clock: u64,
    programs: HashMap<Key, (u64, Arc<Program>)>,
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} programs", self.programs.len())
    }
}

impl ProgramCache {
    /// Holds at most `capacity` programs, at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: Mutex::default(),
        }
    }

    /// The built-in profile for a container with these capabilities in its bounding set.
    ///
    /// # Errors
    /// As [`compile()`].
    pub fn runtime_default(&self, caps: CapabilitySet) -> Result<Arc<Program>, SeccompError> {
        self.get_or(Key::Default(caps), || compile(&default_profile(caps)))
    }

    /// A profile from a file's contents.
    ///
    /// # Errors
    /// As [`parse_profile`] and [`compile()`].
    pub fn localhost(
        &self,
        json: &[u8],
        caps: CapabilitySet,
    ) -> Result<Arc<Program>, SeccompError> {
        let key = Key::Localhost(Sha256::digest(json).into(), caps);
        self.get_or(key, || {
            compile(&parse_profile(json, &ProfileHost::new(caps))?)
        })
    }

    fn get_or(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<Program, SeccompError>,
    ) -> Result<Arc<Program>, SeccompError> {
        if let Some(program) = self.with(|entries| entries.find(&key)) {
            return Ok(program);
        }
        let program = Arc::new(make()?);
        self.with(|entries| entries.insert(key, Arc::clone(&program), self.capacity));
        Ok(program)
    }

    /// A panic elsewhere leaves the map whole: every change of it is one call.
    fn with<T>(&self, work: impl FnOnce(&mut Entries) -> T) -> T {
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entries {
    fn find(&mut self, key: &Key) -> Option<Arc<Program>> {
        self.clock += 1;
        let (used, program) = self.programs.get_mut(key)?;
        *used = self.clock;
        Some(Arc::clone(program))
    }

    fn insert(&mut self, key: Key, program: Arc<Program>, capacity: usize) {
        if self.programs.len() >= capacity {
            // Tens of entries: looking through them costs less than an order kept at every hit.
            let oldest = self
                .programs
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(key, _)| *key);
            oldest.map(|oldest| self.programs.remove(&oldest));
        }
        self.programs.insert(key, (self.clock, program));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::security::capabilities::Capability;

    #[test]
    fn keeps_what_was_used_last() {
        let cache = ProgramCache::new(2);
        let sets = [
            Capability::SysAdmin,
            Capability::SysBoot,
            Capability::SysTime,
        ]
        .map(|one| CapabilitySet::EMPTY.with(one));
        let first = cache.runtime_default(sets[0]).unwrap();
        cache.runtime_default(sets[1]).unwrap();
        assert!(Arc::ptr_eq(
            &first,
            &cache.runtime_default(sets[0]).unwrap()
        ));
        cache.runtime_default(sets[2]).unwrap();
        assert!(
            Arc::ptr_eq(&first, &cache.runtime_default(sets[0]).unwrap()),
            "used last"
        );
        assert_eq!(cache.with(|entries| entries.programs.len()), 2);
    }

    #[test]
    fn tells_profiles_and_capabilities_apart() {
        let cache = ProgramCache::new(8);
        let profile = br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_CHOWN"]}}]}"#;
        let chown = CapabilitySet::EMPTY.with(Capability::Chown);
        let without = cache.localhost(profile, CapabilitySet::EMPTY).unwrap();
        assert_ne!(
            without.bytes,
            cache.localhost(profile, chown).unwrap().bytes
        );
        assert!(Arc::ptr_eq(
            &without,
            &cache.localhost(profile, CapabilitySet::EMPTY).unwrap()
        ));
        assert!(cache.localhost(b"{", chown).is_err());
    }
}
