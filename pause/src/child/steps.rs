//! Walks the plan's steps.

use super::root::{Ownership, Root};
use super::sources::{Place, Sources};
use super::{Entrance, hooks, masks, mounts, nodes, overlay};
use crate::fault::{Fault, OrFault};
use crate::report::Report;
use crate::sys::file::{self, CWD};
use crate::sys::{mount, socket, terminal};
use podwright_pause::plan::{LaunchPlan, Stdio, Step};
use podwright_pause::protocol::{Failure, Stage};
use podwright_pause::wire::Wire;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What steps leave for later ones.
struct Walk<'a> {
    root: Option<Root>,
    /// The tree is a running container's: its /dev/console stays as it is.
    joined: bool,
    masks: masks::Masks,
    sources: Sources<'a>,
    report: BorrowedFd<'a>,
    terminal: Option<OwnedFd>,
}

/// Executes all steps. Gives the terminal's slave if the process gets one.
pub(super) fn execute(
    plan: &LaunchPlan,
    entrance: &Entrance<'_>,
    sources: Sources<'_>,
    report: BorrowedFd<'_>,
) -> Result<Option<OwnedFd>, Failure> {
    let at = |index: usize| {
        move |fault: Fault| {
            fault.at(Stage::Step {
                index: index as u32,
            })
        }
    };
    let root = match entrance {
        Entrance::Made { .. } => None,
        Entrance::Joined { .. } => Some(own_root().map_err(|fault| fault.at(Stage::Birth))?),
    };
    let mut stage = Walk {
        joined: root.is_some(),
        root,
        masks: masks::Masks::default(),
        sources,
        report,
        terminal: None,
    };
    for (index, step) in plan.steps.iter().enumerate() {
        stage.step(index, step).map_err(at(index))?;
    }
    if plan.stdio == Stdio::Terminal && stage.terminal.is_none() {
        stage
            .open_terminal(0, 0)
            .map_err(|fault| fault.at(Stage::Identity))?;
    }
    Ok(stage.terminal)
}

/// The root of a container that was entered.
fn own_root() -> Result<Root, Fault> {
    file::openat2(CWD, b"/", libc::O_PATH | libc::O_DIRECTORY, 0, 0)
        .map(Root::new)
        .or_fault("openat2", b"/")
}

impl Walk<'_> {
    fn root(&self) -> Result<&Root, Fault> {
        self.root
            .as_ref()
            .ok_or_else(|| Fault::new("plan without a root", b"", libc::EINVAL))
    }

    fn step(&mut self, index: usize, step: &Step) -> Result<(), Fault> {
        match step {
            Step::TreePropagation { flags } => match self.sources.place() {
                // Nothing of the host's is there.
                Place::Base => Ok(()),
                Place::Host | Place::Pod(_) => {
                    mount::change_propagation(b"/", *flags).or_fault("mount", b"/")
                }
            },
            Step::OverlayRoot { .. } => self.overlay_root(index, step),
            Step::MountFs {
                fstype,
                source,
                options,
                attributes,
                target,
                create,
            } => {
                let made = match self.sources.take(index) {
                    Some(made) => made,
                    None => mounts::new_file_system(&fstype.0, &source.0, options, *attributes)?,
                };
                mounts::attach_file_system(self.root()?, made, &fstype.0, &target.0, create)
            }
            Step::Bind { .. } => self.bind(index, step),
            Step::Mkdir {
                path,
                mode,
                uid,
                gid,
            } => {
                let ownership = Ownership {
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                };
                self.root()?.make_directories(&path.0, ownership).map(drop)
            }
            Step::Device { path, .. } => nodes::make_device(self.root()?, &path.0, step),
            Step::Symlink { text, path } => nodes::make_link(self.root()?, &text.0, &path.0),
            Step::Terminal { rows, columns } => self.open_terminal(*rows, *columns),
            Step::Mask { path } => {
                let root = self
                    .root
                    .as_ref()
                    .ok_or_else(|| Fault::new("plan without a root", b"", libc::EINVAL))?;
                self.masks.hide(root, &path.0)
            }
            Step::ReadOnly { path } => masks::make_read_only(self.root()?, &path.0),
            Step::Pivot => match self.sources.place() {
                Place::Base => mounts::enter_root(self.root()?),
                Place::Host | Place::Pod(_) => mounts::pivot(self.root()?),
            },
            Step::RootReadOnly => {
                let root = mount::mount_point(b"/").or_fault("openat2", b"/")?;
                mount::add_attributes(root.as_fd(), mount::attributes::RDONLY, mount::Depth::This)
                    .or_fault("mount_setattr", b"/")
            }
            Step::Hook {
                path,
                argv,
                env,
                timeout_ms,
                input,
            } => hooks::run(&hooks::Hook {
                path: &path.0,
                argv,
                env,
                timeout: Duration::from_millis((*timeout_ms).into()),
                input: &input.0,
            }),
            Step::RootPropagation { flags } => {
                mount::change_propagation(b"/", *flags).or_fault("mount", b"/")
            }
        }
    }

    fn overlay_root(&mut self, index: usize, step: &Step) -> Result<(), Fault> {
        let Step::OverlayRoot {
            layers,
            options,
            at,
        } = step
        else {
            return Ok(());
        };
        self.root = Some(match (self.sources.take(index), self.sources.place()) {
            (Some(root), Place::Host) => mounts::attach_root(root, &at.0)?,
            (Some(root), Place::Base | Place::Pod(_)) => mounts::attach_root(root, b".")?,
            (None, _) => overlay::mount(&layers.0, &options.0, &at.0)?,
        });
        Ok(())
    }

    fn bind(&mut self, index: usize, step: &Step) -> Result<(), Fault> {
        let Step::Bind { target, create, .. } = step else {
            return Ok(());
        };
        let tree = match self.sources.take(index) {
            Some(tree) => tree,
            None => self.sources.detached_bind(step)?,
        };
        mounts::attach_bind(self.root()?, tree, &target.0, create)
    }

    /// Opens a terminal in the container's devpts, by descriptors only, and gives its master to pause.
    fn open_terminal(&mut self, rows: u16, columns: u16) -> Result<(), Fault> {
        let path = b"/dev/pts/ptmx";
        let root = self.root()?;
        let master = root
            .open_real(path, libc::O_RDWR | libc::O_NOCTTY)
            .or_fault("openat2", path)?;
        if file::filesystem(master.as_fd()).or_fault("fstatfs", path)? != file::DEVPTS_SUPER_MAGIC {
            return Err(Fault::new("verify devpts", path, libc::EXDEV));
        }
        let slave = terminal::open_slave(master.as_fd()).or_fault("ioctl TIOCGPTPEER", path)?;
        if rows != 0 || columns != 0 {
            terminal::resize(master.as_fd(), rows, columns).or_fault("ioctl TIOCSWINSZ", path)?;
        }
        if !self.joined {
            nodes::bind_console(root, slave.as_fd())?;
        }
        socket::send(self.report, &Report::Terminal.to_bytes(), &[master.as_fd()])
            .or_fault("sendmsg", path)?;
        self.terminal = Some(slave);
        Ok(())
    }
}
