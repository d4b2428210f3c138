//! Damages records as file systems do when the power fails: what was not written is short, or zeros.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use anyhow::{Context as _, Result};
use podwright_integration::random::Random;

use crate::records::{self, Record};

/// Damages up to so many of the whole records; returned is how many.
pub(crate) fn some(state: &Path, count: usize, random: &mut Random) -> Result<usize> {
    let all = records::all(state)?.into_iter();
    let mut whole: Vec<_> = all.filter(|record| !record.torn).collect();
    let mut damaged = 0;
    while damaged < count && !whole.is_empty() {
        let record = whole.swap_remove(random.index(whole.len()));
        damage(&record, random).with_context(|| format!("damaging {}", record.path.display()))?;
        damaged += 1;
    }
    Ok(damaged)
}

fn damage(record: &Record, random: &mut Random) -> Result<()> {
    let file = File::options().write(true).open(&record.path)?;
    let length = file.metadata()?.len();
    let kept = match random.chance(1, 2) {
        // A new file's size is written before its content, or not at all.
        true => 0,
        false => random.below(length),
    };
    file.set_len(kept)?;
    if random.chance(1, 2) {
        // The size with no content: zeros up to the old end.
        file.set_len(length)?;
        let _ = file.write_at(&[0], kept)?;
    }
    println!("damaged {} from byte {kept} on", record.path.display());
    Ok(())
}
