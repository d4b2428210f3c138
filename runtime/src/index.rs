//! Objects by id: looked up whole or by a prefix that only one of them has, as crictl's users type it.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::{CallError, Kind};

/// A set of objects. The lock guards the map alone and is never held across I/O or an await.
pub(crate) struct Index<I, T> {
    kind: &'static str,
    map: RwLock<BTreeMap<I, Arc<T>>>,
}

impl<I: Ord + Clone + Borrow<str>, T> Index<I, T> {
    /// An empty one of what `kind` names in errors.
    pub(crate) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            map: RwLock::new(BTreeMap::new()),
        }
    }

    pub(crate) fn insert(&self, id: I, object: Arc<T>) {
        self.map
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, object);
    }

    /// Whether it was there.
    pub(crate) fn remove(&self, id: &I) -> bool {
        self.map
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id.borrow())
            .is_some()
    }

    /// All of them, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.map
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// The one with this id.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<T>> {
        self.map
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// The one whose id is or begins with `text`; none when there is no such.
    pub(crate) fn find(&self, text: &str) -> Result<Option<Arc<T>>, CallError> {
        if text.is_empty() {
            return Err(CallError::invalid(format!(
                "the request names no {}: its id is empty",
                self.kind
            )));
        }
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let mut matches = map
            .range::<str, _>((Bound::Included(text), Bound::Unbounded))
            .take_while(|(id, _)| (*id).borrow().starts_with(text));
        match (matches.next(), matches.next()) {
            (Some(_), Some(_)) => {
                let what = format!(
                    "more than one {} has an id that begins with '{}': give more of it",
                    self.kind,
                    shown(text)
                );
                Err(CallError::new(Kind::InvalidArgument, what))
            }
            (first, _) => Ok(first.map(|(_, object)| Arc::clone(object))),
        }
    }

    /// As [`Self::find`]; none is an error.
    pub(crate) fn require(&self, text: &str) -> Result<Arc<T>, CallError> {
        self.find(text)?.ok_or_else(|| {
            CallError::new(
                Kind::NotFound,
                format!("there is no {} '{}'", self.kind, shown(text)),
            )
        })
    }
}

/// A client's text as errors may show it: bounded.
pub(crate) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(80).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ContainerId;

    fn id(first: char) -> ContainerId {
        ContainerId::parse(&format!("{first}{}", "0".repeat(63))).unwrap()
    }

    #[test]
    fn ids_are_found_whole_and_by_unique_prefix() {
        let index = Index::new("container");
        for first in ['a', 'b'] {
            index.insert(id(first), Arc::new(first));
        }
        index.insert(
            ContainerId::parse(&format!("b1{}", "0".repeat(62))).unwrap(),
            Arc::new('c'),
        );
        assert_eq!(index.find(id('a').as_str()).unwrap().as_deref(), Some(&'a'));
        assert_eq!(index.find("a").unwrap().as_deref(), Some(&'a'));
        assert_eq!(index.find("b1").unwrap().as_deref(), Some(&'c'));
        assert_eq!(index.find("c").unwrap(), None);
        assert_eq!(index.find("b").unwrap_err().kind, Kind::InvalidArgument);
        assert_eq!(index.find("").unwrap_err().kind, Kind::InvalidArgument);
        let missing = index.require(&"f".repeat(64 * 1024)).unwrap_err();
        assert_eq!(missing.kind, Kind::NotFound);
        assert!(missing.to_string().len() < 200);
    }
}
