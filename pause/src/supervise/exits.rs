//! Exits.

use super::processes::Life;
use super::{Phase, Supervisor};
use crate::sys::process::{self, Ended};
use podwright_pause::protocol::{Answer, Exit, Target};

impl Supervisor {
    /// Reaps whatever has ended. Orphans that pause has adopted end without a word.
    pub(super) fn reap(&mut self) {
        while let Some(ended) = process::reap() {
            if !self.settle_birth(&ended) {
                self.exited(&ended);
            }
        }
    }

    fn exited(&mut self, ended: &Ended) {
        let (code, signal) = if ended.killed {
            (128 + ended.status, ended.status)
        } else {
            (ended.status, 0)
        };
        let exit = Exit {
            code,
            signal,
            at: process::now(),
        };
        let is_it = |container: &super::Container| {
            container.pid == ended.pid && container.pidfd().is_some()
        };
        if let Some(index) = self.containers.iter().position(is_it) {
            self.drain_logs(index);
            let container = &mut self.containers[index];
            container.life = Life::Exited(exit.clone());
            container.stdin = None;
            let serial = container.serial;
            let target = Target::Container {
                id: container.id.clone(),
            };
            self.end_clients_of(serial);
            self.tell_all(Answer::Exited { target, exit });
        } else if let Some(index) = self
            .executions
            .iter()
            .position(|execution| execution.pid == ended.pid)
        {
            let execution = self.executions.swap_remove(index);
            self.tell_all(Answer::Exited {
                target: Target::Exec {
                    exec: execution.number,
                },
                exit,
            });
        } else if let Phase::Made(sandbox) | Phase::Leaving(sandbox) | Phase::Ending(Some(sandbox)) =
            &mut self.phase
            && sandbox
                .init
                .as_ref()
                .is_some_and(|init| init.pid == ended.pid)
        {
            sandbox.init = None;
        }
    }
}
