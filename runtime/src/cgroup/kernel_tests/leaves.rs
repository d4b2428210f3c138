//! Groups of one mount, for processes that must not be beside others' controllers.

use super::*;

#[test]
fn a_leaf_is_in_one_mount_and_its_processes_in_all() {
    let scratch = Scratch::new();
    let trunk = scratch.top.join("pod").unwrap();
    let leaf = scratch.hierarchy.create_leaf(&trunk, "pause").unwrap();
    let mut child = scratch.run_in(&leaf.join_files(), "exec sleep 1000");

    let of_trunk = scratch.hierarchy.cgroup(&trunk);
    let own = |file: &&PathBuf| file.to_string_lossy().contains("/pod/pause/");
    let files = leaf.join_files();
    let expected = match scratch.hierarchy.version() {
        Version::V1 => 0,
        Version::V2 | Version::Hybrid => 1,
    };
    assert_eq!(files.iter().filter(own).count(), expected, "{files:?}");
    for (file, below) in files.iter().zip(of_trunk.join_files()) {
        let pids = std::fs::read_to_string(file).unwrap();
        assert_eq!(pids.trim(), child.id().to_string(), "{}", file.display());
        assert!(below.exists());
        let has_leaf = below.with_file_name("pause").exists();
        assert_eq!(has_leaf, own(&file), "{}", file.display());
    }

    // With its process, all of it goes.
    of_trunk.kill_all(DEADLINE).unwrap();
    child.wait().unwrap();
    of_trunk.remove().unwrap();
    assert!(files.iter().all(|file| !file.exists()));
}
