//! Detaching a pod.
//!
//! The kernel deletes a pod's link by itself when the last process of its network namespace is gone, some milliseconds
//! later and at no cost to the caller; deleting it explicitly takes about 20 ms. So detaching only closes the
//! network to the link, and notes where the link was still there.

use nix::errno::Errno;

use super::Network;
use crate::attachment::Attachment;
use crate::config::LinkName;
use crate::error::NetworkError;
use crate::nft::{self, Element};
use crate::rtnetlink::link;

/// Links of detached pods that one call looks after, so that its cost stays the same whatever happened before.
const SWEPT_PER_CALL: usize = 8;

impl Network {
    /// Disconnects a pod: its host ports close and its addresses are free. A pod that is not attached is no error.
    ///
    /// To be called after the pod's processes have been killed. Should one live on, it can no longer send anything
    /// (given nftables for bridges), and its addresses are not given again before its link is gone.
    pub fn detach(&self, pod: &str) -> Result<(), NetworkError> {
        let Some(attachment) = self.attachment(pod) else {
            return Ok(());
        };
        let lingering = is_there(&attachment.host_link)?.then_some(&attachment.host_link);
        self.remove_elements(pod, &attachment, lingering)?;
        self.records.remove(pod)?;
        self.release(pod, &attachment, lingering);
        self.drop_unused_subnets()?;
        self.sweep(SWEPT_PER_CALL)
    }

    /// As `detach`, but the link is deleted at once: it is of no use to anybody.
    pub(super) fn abandon(&self, pod: &str, attachment: &Attachment) -> Result<(), NetworkError> {
        self.delete_link(&attachment.host_link)?;
        self.remove_elements(pod, attachment, None)?;
        self.records.remove(pod)?;
        self.release(pod, attachment, None);
        Ok(())
    }

    /// Forgets the pod. `lingering` is its link when that is still there.
    pub(super) fn release(&self, pod: &str, attachment: &Attachment, lingering: Option<&LinkName>) {
        let mut state = self.state();
        for net in &attachment.addresses {
            state
                .pools
                .iter_mut()
                .for_each(|pool| pool.free(net.address, lingering));
        }
        state.ports.free(pod, &attachment.ports);
        state.attachments.remove(pod);
        state.lingering.extend(lingering.cloned());
    }

    /// Closes the pod's ports and forbids its addresses. A lingering link stays among the filtered ones.
    fn remove_elements(
        &self,
        pod: &str,
        attachment: &Attachment,
        lingering: Option<&LinkName>,
    ) -> Result<(), NetworkError> {
        let mut elements = self.installable(nft::pod_elements(attachment));
        if lingering.is_some() {
            elements.retain(|element| element.set != nft::Set::Links);
        }
        self.remove_each(&elements)
            .map_err(NetworkError::kernel(format!(
                "close the network for pod {pod}"
            )))
    }

    /// Removes the elements in one transaction; one by one when some are not there.
    fn remove_each(&self, elements: &[Element]) -> Result<(), crate::netlink::NetlinkError> {
        match self.nft_transaction(nft::remove(&self.config.table, elements)) {
            Err(error) if error.is(Errno::ENOENT) => {}
            result => return result,
        }
        for element in elements {
            match self.nft_transaction(nft::remove(
                &self.config.table,
                std::slice::from_ref(element),
            )) {
                Err(error) if !error.is(Errno::ENOENT) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks after up to `most` links of detached pods: those that are gone need no filter any more.
    pub(super) fn sweep(&self, most: usize) -> Result<(), NetworkError> {
        let count = self.state().lingering.len().min(most);
        for _ in 0..count {
            let Some(name) = self.state().lingering.pop_front() else {
                break;
            };
            let is_swept = self.sweep_link(&name);
            match is_swept {
                Ok(true) => {
                    let mut state = self.state();
                    state
                        .pools
                        .iter_mut()
                        .for_each(|pool| pool.link_gone(&name));
                }
                Ok(false) | Err(_) => self.state().lingering.push_back(name),
            }
            is_swept?;
        }
        Ok(())
    }

    /// Takes the filter from a link that is gone; whether it is.
    fn sweep_link(&self, name: &LinkName) -> Result<bool, NetworkError> {
        if is_there(name)? {
            return Ok(false);
        }
        self.remove_each(&self.installable(vec![Element::link(name.as_str())]))
            .map_err(NetworkError::kernel(format!(
                "forget the link {name} of a detached pod"
            )))?;
        Ok(true)
    }

    /// Deletes a link; one that is not there is no error.
    pub(super) fn delete_link(&self, name: &LinkName) -> Result<(), NetworkError> {
        match self.route_exchange(&[link::delete(name)]) {
            Err(error) if error.is(Errno::ENODEV) => Ok(()),
            result => result
                .map(drop)
                .map_err(NetworkError::kernel(format!("delete the link {name}"))),
        }
    }
}

fn is_there(link: &LinkName) -> Result<bool, NetworkError> {
    link::exists(link).map_err(|errno| NetworkError::Link {
        link: link.clone(),
        errno,
    })
}
