//! A container's spec and launch plan, made of what was decided when it was created.

use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};

use oci_spec::runtime::Spec;
use podwright_pause::plan::{PidNamespace, Stdin};

use super::{Compiled, Container, Kept};
use crate::cdi;
use crate::error::{CallError, Context};
use crate::mount_points;
use crate::node::Node;
use crate::nri;
use crate::plan::{self, CommandBase, LaunchInputs, SpecInputs};
use crate::sandbox::PidMode;

impl Container {
    /// The container's spec and plan; made once for its creation and start.
    pub(super) fn compile(&self, node: &Node) -> Result<Arc<Compiled>, CallError> {
        if let Kept::Whole(compiled) = &*self.kept() {
            return Ok(Arc::clone(compiled));
        }
        let compiled = Arc::new(self.compile_anew(node)?);
        *self.kept() = Kept::Whole(Arc::clone(&compiled));
        Ok(compiled)
    }

    /// What commands in the container are begun by; made once.
    pub(super) fn command_base(&self, node: &Node) -> Result<Arc<CommandBase>, CallError> {
        let base = match &*self.kept() {
            Kept::ForCommands(base) => return Ok(Arc::clone(base)),
            Kept::Whole(compiled) => Some(Arc::new(CommandBase::of(&compiled.plan))),
            Kept::Nothing => None,
        };
        let base = match base {
            Some(base) => base,
            None => Arc::new(CommandBase::of(&self.compile_anew(node)?.plan)),
        };
        *self.kept() = Kept::ForCommands(Arc::clone(&base));
        Ok(base)
    }

    /// Keeps of the spec and plan of a container that has started what commands in it need, which is little of it.
    pub(super) fn keep_for_commands(&self) {
        let mut kept = self.kept();
        if let Kept::Whole(compiled) = &*kept {
            *kept = Kept::ForCommands(Arc::new(CommandBase::of(&compiled.plan)));
        }
    }

    /// Makes the next use of spec and plan compile them with what holds then.
    pub(super) fn forget_plan(&self) {
        *self.kept() = Kept::Nothing;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compile_anew(&self, node: &Node) -> Result<Compiled, CallError> {
        let context = self
            .config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.clone())
            .unwrap_or_default();
        let capabilities = plan::capability_sets(&context, node.capabilities)?;
        let spec = self.make_spec(node)?;
        let program = match self.nri.seccomp_policy() {
            Some(policy) => Some(
                node.seccomp
                    .localhost(&nri::seccomp_profile(policy), capabilities.bounding)
                    .invalid(|| "cannot compile the seccomp policy of a NRI plugin".into())?,
            ),
            None => super::confine::seccomp(
                node,
                &plan::seccomp_choice(&context, &self.sandbox.handler.pods().seccomp)?,
                capabilities.bounding,
            )?,
        };
        // What is made once for all containers; in a user namespace it would have other owners.
        let has_own_users = self.sandbox.settings.user_namespace.is_some();
        let (mount_points, cgroup_places) = match has_own_users {
            true => (None, None),
            false => (
                Some(mount_points::layer(&node.config.state_dir)),
                Some(node.cgroup_places()),
            ),
        };
        let plan = plan::launch_plan(&LaunchInputs {
            spec: &spec,
            capabilities: &capabilities,
            id: &self.id,
            layers_root: node.images.layers_root(),
            layers: &self.record.layer_directories,
            mount_points: mount_points.as_deref(),
            directory: &self.directory,
            mount_point: &node.mount_point(),
            empty: &node.empty_directory(),
            volume_images: &self.record.volume_images,
            image_volumes: plan::image_volumes(&self.config, self.image.config().as_ref())?,
            cgroup_version: node.cgroups.version(),
            cgroup_places: cgroup_places.as_deref(),
            join_files: self.cgroup.join_files(),
            cgroup: self.cgroup.path().as_str(),
            pid_namespace: self.pid_namespace(node)?,
            seccomp: program.as_ref().map(|program| &*program.bytes),
            stdin: match (self.config.stdin, self.config.stdin_once) {
                (false, _) => Stdin::Null,
                (true, false) => Stdin::Open,
                (true, true) => Stdin::Once,
            },
        })?;
        Ok(Compiled {
            spec,
            plan,
            limits: OnceLock::new(),
        })
    }

    /// The spec as it is compiled, or would be.
    pub(crate) fn spec(&self, node: &Node) -> Result<Spec, CallError> {
        let kept = match &*self.kept() {
            Kept::Whole(compiled) => Some(Arc::clone(compiled)),
            Kept::ForCommands(_) | Kept::Nothing => None,
        };
        match kept {
            Some(compiled) => Ok(compiled.spec.clone()),
            None => self.make_spec(node),
        }
    }

    /// The spec of the request, with what NRI plugins have made of it.
    fn make_spec(&self, node: &Node) -> Result<Spec, CallError> {
        let score = self.asked_resources().oom_score_adj;
        let mut spec = plan::container_spec(&SpecInputs {
            sandbox: &self.sandbox,
            config: &self.config,
            image: self.image.config().as_ref(),
            user: &self.record.user.clone().unwrap_or_default(),
            cgroup: self.cgroup.path(),
            cgroup_version: node.cgroups.version(),
            available: node.capabilities,
            oom_score_adj: node
                .oom_scores
                .clamp(score)
                .invalid(|| "cannot set oom_score_adj".into())?,
            confinement: &match &self.record.confinement {
                Some(decided) => decided.clone(),
                None => super::confine::decide_again(node, &self.sandbox, &self.config)?,
            },
        })?;
        let edits = cdi::Edits::from_json(&self.record.cdi_edits)?;
        let pod = self.sandbox.settings.user_namespace.as_ref();
        cdi::apply(&edits, &mut spec, pod)?;
        if let Some(wishes) = self.nri.adjustment() {
            nri::adjust(&mut spec, wishes, node.oom_scores)?;
        }
        Ok(spec)
    }

    /// None for a PID namespace of its own.
    fn pid_namespace(&self, node: &Node) -> Result<Option<PidNamespace>, CallError> {
        match plan::container_pid_mode(&self.config)? {
            PidMode::Container => Ok(None),
            PidMode::Host if self.sandbox.settings.user_namespace.is_some() => {
                Err(CallError::invalid(
                    "a container in a user namespace cannot use the host's PID namespace",
                ))
            }
            PidMode::Host => Ok(Some(PidNamespace::Host)),
            PidMode::Pod if self.sandbox.settings.pid == PidMode::Pod => {
                Ok(Some(PidNamespace::Pod))
            }
            PidMode::Pod => Err(CallError::invalid(
                "the container asks for the pod's PID namespace, but the pod sandbox was run without one",
            )),
            PidMode::Target(target) => {
                let target = node.containers.require(&target)?;
                if target.sandbox.id != self.sandbox.id {
                    return Err(CallError::invalid(format!(
                        "the target container {} is of another pod",
                        target.id
                    )));
                }
                Ok(Some(PidNamespace::Container {
                    id: target.id.wire(),
                }))
            }
        }
    }
}
