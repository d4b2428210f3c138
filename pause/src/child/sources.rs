//! What a container's tree is put together from, as detached mounts.
//!
//! Most are made when their step comes. Those that take the host's tree or only the host's root can make are made before: the process that
//! walks the steps of a container may be where that tree is not, and in a user namespace it is that namespace's root, and no more.

use super::mounts;
use super::nodes;
use super::overlay;
use super::root::Root;
use crate::fault::{Fault, OrFault};
use crate::sandbox::UserNamespace;
use crate::sys::mount::{self, Depth};
use crate::sys::{file, process};
use podwright_pause::overlay::settings;
use podwright_pause::plan::{BindSource, FsOption, LaunchPlan, Owners, Recursion, Step};
use podwright_pause::protocol::{Failure, Stage};
use std::os::fd::{AsFd, OwnedFd};

/// Where a tmpfs has the device nodes.
const DEV: &[u8] = b"/dev";

/// Sources by the index of their step, and the pod's /dev/shm once for each bind of it.
pub(super) struct Sources<'a> {
    made: Vec<(usize, OwnedFd)>,
    shm: Vec<OwnedFd>,
    place: Place<'a>,
    /// The container's root, if the daemon has made it.
    root: Option<OwnedFd>,
}

/// Where the steps are walked.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// In a copy of the host's tree, by the host's root.
    Host,
    /// In a copy of the base, by the host's root.
    Base,
    /// In a copy of the host's tree, by the root of this user namespace.
    Pod(&'a UserNamespace),
}

/// Whether the steps of a plan can be walked in a copy of the base, for a pod without a user namespace. Hooks before the root is
/// entered are programs of the host, and the image of a volume is mounted on a host's directory on its way.
pub(crate) fn suits_base(plan: &LaunchPlan) -> bool {
    let before = plan.steps.iter();
    let mut before = before.take_while(|step| !matches!(step, Step::Pivot));
    before.all(|step| match step {
        Step::Hook { .. } => false,
        Step::Bind { source, .. } => !matches!(source, BindSource::Image { .. }),
        Step::OverlayRoot { options, .. } => settings(&options.0).is_some(),
        _ => true,
    })
}

impl<'a> Sources<'a> {
    pub(super) fn new(shm: Vec<OwnedFd>, place: Place<'a>, root: Option<OwnedFd>) -> Self {
        Self {
            made: Vec::new(),
            shm,
            place,
            root,
        }
    }

    pub(super) fn place(&self) -> Place<'a> {
        self.place
    }

    /// The pod's user namespace, if that is not the host's.
    fn user_namespace(&self) -> Option<&'a UserNamespace> {
        match self.place {
            Place::Host | Place::Base => None,
            Place::Pod(pod) => Some(pod),
        }
    }

    /// Makes those that cannot wait.
    pub(super) fn make_early(&mut self, plan: &LaunchPlan) -> Result<(), Failure> {
        if self.user_namespace().is_some() {
            // What is mounted on the way is mounted in a namespace that ends with this process.
            own_mount_namespace().map_err(|fault| fault.at(Stage::Birth))?;
        }
        // The root comes last: it puts the layers as the pod sees them over the layers.
        let last = |step: &Step| matches!(step, Step::OverlayRoot { .. });
        let steps = || plan.steps.iter().enumerate();
        let in_order = steps()
            .filter(|(_, step)| !last(step))
            .chain(steps().filter(|(_, step)| last(step)));
        for (index, step) in in_order {
            let made = match (step, self.place) {
                (Step::Bind { propagation, .. }, Place::Host)
                    if propagation & libc::MS_SHARED != 0 =>
                {
                    // Before the tree's propagation changes: the copy must be a peer of the host's mount.
                    self.detached_bind(step).map(Some)
                }
                (Step::OverlayRoot { .. }, Place::Host) => Ok(self.root.take()),
                (_, Place::Host) => Ok(None),
                (Step::Bind { .. }, Place::Base | Place::Pod(_)) => {
                    self.detached_bind(step).map(Some)
                }
                (
                    Step::OverlayRoot {
                        layers, options, ..
                    },
                    Place::Base,
                ) => match self.root.take() {
                    Some(root) => Ok(Some(root)),
                    None => overlay::detached(&layers.0, &options.0).map(Some),
                },
                (_, Place::Base) => Ok(None),
                (Step::MountFs { .. }, Place::Pod(pod)) => devices(plan, step, pod),
                (Step::OverlayRoot { .. }, Place::Pod(pod)) => detached_root(step, pod).map(Some),
                (_, Place::Pod(_)) => Ok(None),
            };
            let made = made.map_err(|fault| {
                fault.at(Stage::Step {
                    index: index as u32,
                })
            })?;
            self.made.extend(made.map(|source| (index, source)));
        }
        Ok(())
    }

    /// What was made early for a step.
    pub(super) fn take(&mut self, index: usize) -> Option<OwnedFd> {
        let position = self.made.iter().position(|(of, _)| *of == index)?;
        Some(self.made.swap_remove(position).1)
    }

    /// The copy of a tree that a [`Step::Bind`] attaches.
    pub(super) fn detached_bind(&mut self, step: &Step) -> Result<OwnedFd, Fault> {
        let Step::Bind {
            source,
            tree,
            attributes,
            attributes_tree,
            propagation,
            target,
            owners,
            ..
        } = step
        else {
            return Err(Fault::new("step", b"", libc::EINVAL));
        };
        let pod = self
            .user_namespace()
            .filter(|_| matches!(owners, Owners::OfPod));
        let copy = match source {
            BindSource::PodShm => self
                .shm
                .pop()
                .ok_or_else(|| Fault::new("no /dev/shm in this pod", b"", libc::ENOENT))?,
            BindSource::Host { path } => mounts::clone_host(&path.0, tree)?,
            BindSource::Image { .. } => image(source, pod)?,
        };
        if let Some(pod) = pod.filter(|_| !matches!(source, BindSource::Image { .. })) {
            mount::map_owners(copy.as_fd(), pod.fd(), mounts::depth(tree))
                .or_fault("mount_setattr IDMAP", &target.0)?;
        }
        let kind = match (propagation & !libc::MS_REC, self.place) {
            // The copy of a copy of the host's tree is the slave of the host's mounts already.
            (0, Place::Base) => libc::MS_SLAVE,
            (kind, _) => kind,
        };
        // Mostly both are of the same mounts, and one call.
        let changes = if attributes_tree == tree {
            [(*attributes, kind, tree), (0, 0, tree)]
        } else {
            [(*attributes, 0, attributes_tree), (0, kind, tree)]
        };
        for (attributes, kind, tree) in changes {
            if (attributes, kind) != (0, 0) {
                mount::change(copy.as_fd(), attributes, kind, mounts::depth(tree))
                    .or_fault("mount_setattr", &target.0)?;
            }
        }
        Ok(copy)
    }
}

fn own_mount_namespace() -> Result<(), Fault> {
    process::unshare(libc::CLONE_NEWNS).or_fault("unshare", b"mount")?;
    mount::change_propagation(b"/", libc::MS_SLAVE | libc::MS_REC).or_fault("mount", b"/")
}

/// The root's overlay with all layers' owners mapped, without a chown of any file. The layers have one directory above
/// them, so one idmapped mount over that directory maps them all. The writable layer is a plain directory of the pod's
/// root (Linux 5.19: overlayfs takes idmapped layers).
fn detached_root(step: &Step, pod: &UserNamespace) -> Result<OwnedFd, Fault> {
    let Step::OverlayRoot {
        layers,
        options,
        at,
    } = step
    else {
        return Err(Fault::new("step", b"", libc::EINVAL));
    };
    let layers = &layers.0;
    map_layers(layers, pod)?;
    let root = overlay::mount(layers, &options.0, &at.0)?;
    // The container's process attaches its root to its working directory: the way there is closed to the pod's root.
    file::enter_directory(root.fd()).or_fault("fchdir", &at.0)?;
    mount::clone_tree(root.fd(), Depth::This).or_fault("open_tree", &at.0)
}

/// Mounts the layers' directory over itself with the owners mapped.
fn map_layers(layers: &[u8], pod: &UserNamespace) -> Result<(), Fault> {
    let mapped = mounts::clone_host(layers, &Recursion::This)?;
    mount::map_owners(mapped.as_fd(), pod.fd(), Depth::This)
        .or_fault("mount_setattr IDMAP", layers)?;
    let place = mount::mount_point(layers).or_fault("openat2", layers)?;
    mount::attach(mapped.as_fd(), place.as_fd()).or_fault("move_mount", layers)
}

/// The copy of an image's directory; with the owners of its layers mapped as those of the root's are.
fn image(source: &BindSource, pod: Option<&UserNamespace>) -> Result<OwnedFd, Fault> {
    let BindSource::Image {
        layers,
        options,
        sub_path,
        at,
    } = source
    else {
        return Err(Fault::new("bind source", b"", libc::EINVAL));
    };
    let layers = &layers.0;
    let Some(pod) = pod else {
        return mounts::image_tree(layers, &options.0, &sub_path.0, &at.0);
    };
    map_layers(layers, pod)?;
    let tree = mounts::image_tree(layers, &options.0, &sub_path.0, &at.0)?;
    // The next image, or the root, maps the plain directory: a mount is mapped once at most (mount_setattr(2)).
    mount::detach(layers).or_fault("umount2", layers)?;
    Ok(tree)
}

/// The tmpfs on /dev with all its nodes: mknod(2) and nodes that can be opened need the host's root.
fn devices(plan: &LaunchPlan, step: &Step, pod: &UserNamespace) -> Result<Option<OwnedFd>, Fault> {
    let Step::MountFs {
        fstype,
        source,
        options,
        attributes,
        target,
        ..
    } = step
    else {
        return Ok(None);
    };
    if fstype.0 != b"tmpfs" || target.0 != DEV {
        return Ok(None);
    }
    let (uid, gid) = pod.host_root()?;
    let owner = [("uid", uid), ("gid", gid)].map(|(key, id)| FsOption {
        key: key.into(),
        value: Some(id.to_string().into()),
    });
    let options = [options.as_slice(), &owner].concat();
    let tmpfs = mounts::new_file_system(&fstype.0, &source.0, &options, *attributes)?;
    let root = Root::owned_by(tmpfs, (uid, gid));
    for step in &plan.steps {
        if let Step::Device { path, .. } = step
            && let Some(inside) = path.0.strip_prefix(b"/dev/")
        {
            nodes::make_device(&root, inside, step)?;
        }
    }
    Ok(Some(root.into_fd()))
}
