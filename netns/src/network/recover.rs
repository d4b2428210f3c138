//! Recovery: what belongs to no living pod is reclaimed.

use std::collections::HashSet;

use nix::errno::Errno;

use super::Network;
use super::open::strays;
use crate::config::LinkName;
use crate::error::NetworkError;
use crate::nft::Element;

impl Network {
    /// Reclaims addresses, host ports and links of pods that are not in `live`; for the start of a daemon. Only what
    /// the records name, and links of this bridge with this crate's prefix, are touched.
    ///
    /// It goes on past a failure and returns the first one. Returned are the ids of the pods and the names of the
    /// links without a record that were reclaimed.
    pub fn recover(&self, live: &HashSet<String>) -> Result<Vec<String>, NetworkError> {
        let dead: Vec<_> = {
            let state = self.state();
            let dead = state
                .attachments
                .iter()
                .filter(|(pod, _)| !live.contains(*pod));
            dead.map(|(pod, attachment)| (pod.clone(), attachment.clone()))
                .collect()
        };
        let mut reclaimed = Vec::new();
        let mut failure = None;
        for (pod, attachment) in dead {
            match self.abandon(&pod, &attachment) {
                Ok(()) => reclaimed.push(pod),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        // A pod may be attached meanwhile: its record is there before its link.
        let attachments = self.state().attachments.clone();
        let strays = strays(&self.route(), self.bridge, &attachments)?;
        for name in strays {
            match self.reclaim_link(&name) {
                Ok(()) => reclaimed.push(name),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        self.sweep(usize::MAX)?;
        self.drop_unused_subnets()?;
        failure.map_or(Ok(reclaimed), Err)
    }

    fn reclaim_link(&self, name: &str) -> Result<(), NetworkError> {
        let link: LinkName =
            name.parse()
                .map_err(|error: crate::NameError| NetworkError::Config {
                    problem: error.to_string(),
                })?;
        self.delete_link(&link)?;
        let element = self.installable(vec![Element::link(name)]);
        match self.nft_transaction(crate::nft::remove(&self.config.table, &element)) {
            Err(error) if !error.is(Errno::ENOENT) => Err(NetworkError::kernel(format!(
                "forget the link {name}"
            ))(error)),
            _ => Ok(()),
        }
    }
}
