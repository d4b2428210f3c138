//! What a build for tests says in the version that no release has: a message and fields of its own, each time that it is
//! spoken, so that it shows when it is spoken to somebody who does not know it.

use podwright_pause::plan::LaunchPlan;
use podwright_pause::protocol::{Answer, ContainerEntry, REHEARSAL, Request};
use podwright_pause::version::Version;

use super::connection::{PROMPT, Pause};
use super::error::PauseError;

/// The version that only such a build has.
const NEXT: Version = Version(3);

/// Asks what only that version has.
pub(super) async fn rehearse(pause: &Pause, version: Version) -> Result<(), PauseError> {
    if version < NEXT {
        return Ok(());
    }
    let request = Request::Rehearse {
        text: REHEARSAL.into(),
    };
    match pause.request("Rehearse", PROMPT, request, &[]).await? {
        (Answer::Rehearsed { text }, _) if text == REHEARSAL.into() => {
            tracing::info!(%version, "rehearsed the next version of the protocol");
            Ok(())
        }
        _ => Err(PauseError::Protocol {
            request: "Rehearse",
        }),
    }
}

/// Fills in the plan's field of that version, which an older pause could not be told.
pub(super) fn fill_in(plan: &LaunchPlan, version: Version) -> LaunchPlan {
    let mut plan = plan.clone();
    if version >= NEXT {
        plan.rehearsal = REHEARSAL.into();
    }
    plan
}

/// That the field of that version has arrived in each entry, if it is spoken.
pub(super) fn check(entries: &[ContainerEntry], version: Version) -> Result<(), PauseError> {
    let expected = if version >= NEXT { REHEARSAL } else { "" };
    match entries
        .iter()
        .all(|entry| entry.rehearsal == expected.into())
    {
        true => Ok(()),
        false => Err(PauseError::Protocol { request: "List" }),
    }
}
