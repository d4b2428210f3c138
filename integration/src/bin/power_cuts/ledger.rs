//! What must be on the node's disk, by what the node has told.

use std::collections::BTreeMap;

use crate::message::Event;

/// What is known of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Absent,
    Present,
    /// A pull or a removal was under way.
    Either,
}

/// What is known of all images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    images: BTreeMap<usize, Known>,
}

impl Ledger {
    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            // Pulling again what is there takes nothing away.
            Event::Pulling(image) if self.images.get(image) == Some(&Known::Present) => {}
            Event::Pulling(image) | Event::Removing(image) => self.set(*image, Known::Either),
            Event::Pulled(image) => self.set(*image, Known::Present),
            Event::Removed(image) => self.set(*image, Known::Absent),
            Event::Checked(listed, _) => {
                self.images
                    .values_mut()
                    .for_each(|known| *known = Known::Absent);
                for image in listed {
                    self.set(*image, Known::Present);
                }
            }
            Event::Launching | Event::Left(_) => {}
        }
    }

    fn set(&mut self, image: usize, known: Known) {
        self.images.insert(image, known);
    }

    /// Images whose pull was answered, and whose removal has not begun since.
    pub(crate) fn present(&self) -> Vec<usize> {
        self.all(Known::Present)
    }

    /// Images whose removal was answered, and whose pull has not begun since.
    pub(crate) fn absent(&self) -> Vec<usize> {
        self.all(Known::Absent)
    }

    fn all(&self, wanted: Known) -> Vec<usize> {
        let images = self.images.iter();
        images
            .filter(|(_, known)| **known == wanted)
            .map(|(image, _)| *image)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_is_certain_and_what_was_under_way_is_not() {
        let mut ledger = Ledger::default();
        for event in [
            Event::Pulling(1),
            Event::Pulled(1),
            Event::Pulling(2),
            Event::Pulling(1),
            Event::Pulling(3),
            Event::Pulled(3),
            Event::Removing(3),
            Event::Pulling(4),
            Event::Pulled(4),
            Event::Removing(4),
            Event::Removed(4),
        ] {
            ledger.note(&event);
        }
        assert_eq!(ledger.present(), [1]);
        assert_eq!(ledger.absent(), [4]);
        ledger.note(&Event::Checked(
            vec![1, 3],
            crate::message::Figures::default(),
        ));
        assert_eq!(ledger.present(), [1, 3]);
        assert_eq!(ledger.absent(), [2, 4]);
    }
}
