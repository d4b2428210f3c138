//! The names of block devices.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Names that were looked up, for one answer. The lock guards the map; a look is a short one.
#[derive(Debug, Default)]
pub(super) struct Devices(Mutex<HashMap<(u32, u32), String>>);

impl Devices {
    /// As `/dev/vda`; the numbers where there is no such device, as for file systems without one.
    pub(super) fn name(&self, major: u32, minor: u32) -> String {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.entry((major, minor)).or_insert_with(|| {
            let numbers = format!("{major}:{minor}");
            // sysfs(5): a link to the device's directory.
            let link = std::fs::read_link(format!("/sys/dev/block/{numbers}"));
            let name = link
                .ok()
                .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
            // A `/` in a device's name is `!` there.
            name.map_or(numbers, |name| format!("/dev/{}", name.replace('!', "/")))
        });
        name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_devices_are_told_by_their_numbers() {
        let devices = Devices::default();
        assert_eq!(devices.name(0, 4_000_000), "0:4000000");
        // Whatever this machine has.
        for entry in std::fs::read_dir("/sys/dev/block")
            .into_iter()
            .flatten()
            .flatten()
        {
            let numbers = entry.file_name().into_string().unwrap();
            let (major, minor) = numbers.split_once(':').unwrap();
            let name = devices.name(major.parse().unwrap(), minor.parse().unwrap());
            assert!(name.starts_with("/dev/"), "{numbers}: {name}");
        }
    }
}
