//! containerd's configuration file and its network's, with everything that could collide with another's.

use std::{fmt::Write as _, path::Path};

use serde_json::json;

use crate::{images::PAUSE, node::Slot};

/// The file for containerd's version 3 of its format. What is not here is as containerd has it by default.
pub(super) fn containerd(slot: &Slot, programs: &Path) -> String {
    let path = |below: &str| slot.path(below).display().to_string();
    let mut text = String::new();
    let mut table = |name: &str, values: &[(&str, String)]| {
        if !name.is_empty() {
            let _ = writeln!(text, "[{name}]");
        }
        for (key, value) in values {
            let _ = writeln!(text, "{key} = {value}");
        }
    };
    let text_of = |value: String| format!("{value:?}");
    table(
        "",
        &[
            ("version", "3".to_owned()),
            ("root", text_of(path("root"))),
            ("state", text_of(path("state"))),
            ("temp", text_of(path("temp"))),
            ("imports", "[]".to_owned()),
        ],
    );
    table("grpc", &[("address", text_of(path("containerd.sock")))]);
    table("ttrpc", &[("address", text_of(path("ttrpc.sock")))]);
    table(
        "plugins.'io.containerd.internal.v1.opt'",
        &[("path", text_of(path("opt")))],
    );
    table(
        "plugins.'io.containerd.nri.v1.nri'",
        &[
            ("socket_path", text_of(path("nri.sock"))),
            ("plugin_path", text_of(path("nri/plugins"))),
            ("plugin_config_path", text_of(path("nri/conf.d"))),
        ],
    );
    table(
        "plugins.'io.containerd.cri.v1.images'",
        &[("snapshotter", text_of("overlayfs".to_owned()))],
    );
    table(
        "plugins.'io.containerd.cri.v1.images'.pinned_images",
        &[("sandbox", text_of(PAUSE.to_owned()))],
    );
    table(
        "plugins.'io.containerd.cri.v1.images'.registry",
        &[("config_path", text_of(path("hosts")))],
    );
    table(
        "plugins.'io.containerd.cri.v1.runtime'",
        &[
            ("netns_mounts_under_state_dir", "true".to_owned()),
            // Where even root may not lower it, no pod would start.
            ("restrict_oom_score_adj", "true".to_owned()),
        ],
    );
    table(
        "plugins.'io.containerd.cri.v1.runtime'.cni",
        &[
            (
                "bin_dirs",
                format!("[{:?}]", programs.display().to_string()),
            ),
            ("conf_dir", text_of(path("cni"))),
        ],
    );
    table(
        "plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc",
        &[("runtime_type", text_of("io.containerd.runc.v2".to_owned()))],
    );
    table(
        "plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options",
        &[
            (
                "BinaryName",
                text_of(programs.join("runc").display().to_string()),
            ),
            ("Root", text_of(path("runc"))),
            ("SystemdCgroup", "false".to_owned()),
        ],
    );
    text
}

/// The network that containerd's own script for new nodes (`script/setup/install-cni`) sets up, with the slot's names.
pub(super) fn network(slot: &Slot) -> String {
    let [subnet, _] = slot.wide_subnets();
    let bridge = json!({
        "type": "bridge",
        "bridge": slot.bridge(),
        "isGateway": true,
        "ipMasq": true,
        "promiscMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": slot.path("addresses"),
            "ranges": [[{ "subnet": subnet }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    });
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    let list = json!({ "cniVersion": "1.0.0", "name": "bench", "plugins": [bridge, portmap] });
    list.to_string()
}
