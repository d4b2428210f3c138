//! What images' user databases say, read once: the layers of an image do not change, and its id is the digest of what it is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use podwright_image::ImageId;

use super::UserDatabase;

/// So many images' are kept: those that pods on a node are mostly made of.
const MOST: usize = 64;
/// Larger ones are read each time, so that all together take 1 MiB at most.
const LARGEST: usize = 16 * 1024;

/// The contents of an image's files, kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptDatabase {
    /// As [`UserDatabase::passwd`].
    pub(crate) passwd: Option<Vec<u8>>,
    /// As [`UserDatabase::group`].
    pub(crate) group: Option<Vec<u8>>,
}

impl KeptDatabase {
    /// To look into.
    pub(crate) fn as_database(&self) -> UserDatabase<'_> {
        UserDatabase {
            passwd: self.passwd.as_deref(),
            group: self.group.as_deref(),
        }
    }

    fn size(&self) -> usize {
        let files = [&self.passwd, &self.group];
        files.into_iter().flatten().map(Vec::len).sum()
    }
}

/// The latest used images' databases, the latest one last. The lock guards the list alone.
#[derive(Debug, Default)]
pub(crate) struct UserDatabases(Mutex<VecDeque<(ImageId, Arc<KeptDatabase>)>>);

impl UserDatabases {
    /// That of an image, which `read` reads if it is not kept.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn of<E>(
        &self,
        image: &ImageId,
        read: impl FnOnce() -> Result<KeptDatabase, E>,
    ) -> Result<Arc<KeptDatabase>, E> {
        if let Some(kept) = self.find(image) {
            return Ok(kept);
        }
        let database = Arc::new(read()?);
        if database.size() <= LARGEST {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Another call may have read it meanwhile.
            kept.retain(|(of, _)| of != image);
            kept.push_back((*image, Arc::clone(&database)));
            if kept.len() > MOST {
                kept.pop_front();
            }
        }
        Ok(database)
    }

    fn find(&self, image: &ImageId) -> Option<Arc<KeptDatabase>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = kept.iter().position(|(of, _)| of == image)?;
        let entry = kept.remove(position)?;
        let database = Arc::clone(&entry.1);
        kept.push_back(entry);
        Some(database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(number: usize) -> ImageId {
        format!("sha256:{number:064x}").parse().unwrap()
    }

    fn database(size: usize) -> KeptDatabase {
        KeptDatabase {
            passwd: Some(vec![b'x'; size]),
            group: None,
        }
    }

    /// Whether it is read.
    fn is_read(databases: &UserDatabases, number: usize, size: usize) -> bool {
        let mut is_read = false;
        let found = databases.of(&image(number), || {
            is_read = true;
            Ok::<_, std::convert::Infallible>(database(size))
        });
        assert_eq!(*found.unwrap(), database(size));
        is_read
    }

    #[test]
    fn the_latest_used_are_read_once() {
        let databases = UserDatabases::default();
        for number in 0..MOST {
            assert!(is_read(&databases, number, number));
        }
        assert!(!is_read(&databases, 0, 0));
        assert!(is_read(&databases, MOST, MOST), "one more");
        assert!(!is_read(&databases, 0, 0), "used lately");
        assert!(is_read(&databases, 1, 1), "the longest unused");
    }

    #[test]
    fn a_large_one_is_not_kept() {
        let databases = UserDatabases::default();
        assert!(is_read(&databases, 1, LARGEST + 1));
        assert!(is_read(&databases, 1, LARGEST + 1));
    }

    #[test]
    fn an_error_is_not_kept() {
        let databases = UserDatabases::default();
        assert_eq!(databases.of(&image(1), || Err("damaged")), Err("damaged"));
        assert!(is_read(&databases, 1, 1));
    }
}
