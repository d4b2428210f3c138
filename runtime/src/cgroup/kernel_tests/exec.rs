//! Groups of commands.

use super::*;

/// The directory of a group, in the one mount that it is in.
fn directory(group: &ExecGroup) -> PathBuf {
    let mut files = group.join_files().into_iter();
    let own = files.find(|file| file.to_string_lossy().contains("/exec-"));
    own.unwrap().parent().unwrap().to_owned()
}

#[test]
fn an_empty_group_is_given_to_the_next_command() {
    let scratch = Scratch::new();
    let groups = ExecGroups::new(scratch.create("container"));
    let first = groups.take().unwrap();
    let beside = groups.take().unwrap();
    let (path, path_beside) = (directory(&first), directory(&beside));
    assert_ne!(path, path_beside);
    drop(beside);
    assert!(!path_beside.exists());

    groups.give_back(first);
    let tells = scratch.hierarchy.version() != Version::V1;
    assert_eq!(path.exists(), tells);
    if !tells {
        return;
    }
    let again = groups.take().unwrap();
    assert_eq!(directory(&again), path);

    // With a process that was left behind.
    let mut child = scratch.run_in(&again.join_files(), "exec sleep 1000");
    groups.give_back(again);
    let other = groups.take().unwrap();
    assert_ne!(directory(&other), path);
    assert!(path.exists());
    // Which another daemon finds.
    let of_another = ExecGroups::new(scratch.create("container"));
    let path_other = directory(&other);
    // As a daemon that is killed leaves it.
    let _other = std::mem::ManuallyDrop::new(other);
    of_another.remove_forgotten().unwrap();
    assert!(path.exists() && !path_other.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    of_another.remove_forgotten().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_group_that_somebody_removed_or_froze_is_not_given_to_a_command() {
    let scratch = Scratch::new();
    let groups = ExecGroups::new(scratch.create("container"));
    let group = groups.take().unwrap();
    let removed = directory(&group);
    groups.give_back(group);
    if removed.exists() {
        std::fs::remove_dir(&removed).unwrap();
    }
    let group = groups.take().unwrap();
    let frozen = directory(&group);
    assert_ne!(frozen, removed);
    let freeze = frozen.join("cgroup.freeze");
    groups.give_back(group);
    if freeze.exists() {
        std::fs::write(freeze, "1").unwrap();
    }
    assert_ne!(directory(&groups.take().unwrap()), frozen);
}
