//! The database: images, their configurations and manifests, layers.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use crate::digest::{ChainId, Digest, ImageId};
use crate::unpack::Usage;

const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");
const CONFIGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("configs");
const MANIFESTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("manifests");
const LAYERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("layers");
/// What later versions say about the form of the others, under [`FORM_KEY`]; none is form 1.
const ABOUT: TableDefinition<'_, &str, u32> = TableDefinition::new("about");
/// The number of the form. Records may get fields without another number: who does not know them passes over them.
const FORM_KEY: &str = "form";
/// The form that is read and written here.
pub(super) const FORM: u32 = 1;
const TABLES: [TableDefinition<'_, &str, &[u8]>; 4] = [IMAGES, CONFIGS, MANIFESTS, LAYERS];

/// An image without its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) id: ImageId,
    pub(super) manifest_digest: Digest,
    pub(super) size: u64,
    pub(super) repo_tags: Vec<String>,
    pub(super) repo_digests: Vec<String>,
    pub(super) diff_ids: Vec<Digest>,
}

/// A layer on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub(super) chain_id: ChainId,
    pub(super) diff_id: Digest,
    pub(super) dir: String,
    pub(super) usage: Usage,
}

/// A new image's documents.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) id: ImageId,
    pub(super) config: Vec<u8>,
    pub(super) manifest: Vec<u8>,
}

/// What one transaction does.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) put_layers: Vec<LayerRecord>,
    pub(super) drop_layers: Vec<ChainId>,
    pub(super) put_images: Vec<ImageRecord>,
    pub(super) documents: Option<Documents>,
    pub(super) drop_images: Vec<ImageId>,
}

/// All that was in the database when it was opened; records that cannot be read are left out.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) images: Vec<(ImageRecord, Vec<u8>)>,
    pub(super) layers: Vec<LayerRecord>,
    /// Keys of image records that cannot be read.
    pub(super) damaged: Vec<String>,
}

/// The open database. After a failed write it is opened anew, for redb refuses to go on with it.
pub(super) struct Db {
    path: PathBuf,
    database: Option<Database>,
}

/// Why the database cannot be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// A later version has written it.
    Newer {
        /// The number of its form.
        form: u32,
    },
    /// It said so.
    Database(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for OpenError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

impl Db {
    pub(super) fn open(path: &Path) -> Result<Db, OpenError> {
        let database = Database::create(path)?;
        let form = form(&database)?;
        if form > FORM {
            return Err(OpenError::Newer { form });
        }
        // Only a new one is written to: a full disk must not keep an old one from being opened.
        if !has_tables(&database)? {
            let write = database.begin_write()?;
            for table in TABLES {
                write.open_table(table)?;
            }
            write.commit()?;
        }
        Ok(Db {
            path: path.to_owned(),
            database: Some(database),
        })
    }

    pub(super) fn contents(&self) -> Result<Contents, redb::Error> {
        let mut contents = Contents::default();
        let Some(database) = &self.database else {
            return Ok(contents);
        };
        let read = database.begin_read()?;
        let configs = read.open_table(CONFIGS)?;
        for entry in read.open_table(IMAGES)?.iter()? {
            let (key, value) = entry?;
            let config = configs
                .get(key.value())?
                .map(|config| config.value().to_vec());
            match (serde_json::from_slice(value.value()), config) {
                (Ok(record), Some(config)) => contents.images.push((record, config)),
                _ => contents.damaged.push(key.value().to_owned()),
            }
        }
        for entry in read.open_table(LAYERS)?.iter()? {
            let (key, value) = entry?;
            match serde_json::from_slice(value.value()) {
                Ok(record) => contents.layers.push(record),
                Err(error) => {
                    tracing::warn!(layer = key.value(), %error, "a layer's record is damaged and left out")
                }
            }
        }
        Ok(contents)
    }

    /// One transaction, durable when this returns.
    pub(super) fn commit(&mut self, change: &Change) -> Result<(), StoreError> {
        let failed = |operation, source| StoreError::Database {
            operation,
            path: self.path.clone(),
            source: Box::new(source),
        };
        if self.database.is_none() {
            let database =
                Database::create(&self.path).map_err(|error| failed("opened", error.into()))?;
            self.database = Some(database);
        }
        let Some(database) = &self.database else {
            return Ok(());
        };
        match apply(database, change) {
            Ok(()) => Ok(()),
            Err(error) => {
                let error = failed("written", error);
                self.database = None;
                Err(error)
            }
        }
    }
}

fn form(database: &Database) -> Result<u32, redb::Error> {
    let about = match database.begin_read()?.open_table(ABOUT) {
        Ok(about) => about,
        Err(TableError::TableDoesNotExist(_)) => return Ok(FORM),
        Err(error) => return Err(error.into()),
    };
    Ok(about.get(FORM_KEY)?.map_or(FORM, |form| form.value()))
}

fn has_tables(database: &Database) -> Result<bool, redb::Error> {
    let read = database.begin_read()?;
    for table in TABLES {
        match read.open_table(table) {
            Ok(_) => {}
            Err(TableError::TableDoesNotExist(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn apply(database: &Database, change: &Change) -> Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    // Opening after a crash takes the same time however large the database is.
    write.set_quick_repair(true);
    {
        let mut layers = write.open_table(LAYERS)?;
        for chain in &change.drop_layers {
            layers.remove(chain.to_string().as_str())?;
        }
        for record in &change.put_layers {
            layers.insert(
                record.chain_id.to_string().as_str(),
                json(record).as_slice(),
            )?;
        }
        let mut images = write.open_table(IMAGES)?;
        let mut configs = write.open_table(CONFIGS)?;
        let mut manifests = write.open_table(MANIFESTS)?;
        for id in &change.drop_images {
            let key = id.to_string();
            images.remove(key.as_str())?;
            configs.remove(key.as_str())?;
            manifests.remove(key.as_str())?;
        }
        if let Some(Documents {
            id,
            config,
            manifest,
        }) = &change.documents
        {
            let key = id.to_string();
            configs.insert(key.as_str(), config.as_slice())?;
            manifests.insert(key.as_str(), manifest.as_slice())?;
        }
        for record in &change.put_images {
            images.insert(record.id.to_string().as_str(), json(record).as_slice())?;
        }
    }
    write.commit()?;
    Ok(())
}

fn json(record: &impl Serialize) -> Vec<u8> {
    // Strings, numbers and lists of them: writing those to memory cannot fail.
    serde_json::to_vec(record).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_later_form_is_an_error_and_later_fields_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("images.redb");
        drop(Db::open(&path).unwrap());
        drop(Db::open(&path).unwrap());
        let database = Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        let mut about = write.open_table(ABOUT).unwrap();
        about.insert(FORM_KEY, FORM + 1).unwrap();
        drop(about);
        write.commit().unwrap();
        drop(database);
        assert!(matches!(
            Db::open(&path),
            Err(OpenError::Newer { form }) if form == FORM + 1
        ));

        let layer = r#"{"bytes":1,"inodes":2,"later":[3]}"#;
        assert_eq!(
            serde_json::from_str::<Usage>(layer).unwrap(),
            Usage {
                bytes: 1,
                inodes: 2
            }
        );
    }
}
