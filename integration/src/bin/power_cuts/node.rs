//! The inside: one boot of the node.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use podwright_cri_api::client;
use podwright_integration::{
    cri::Cri,
    node::launch::{self, Files},
    random::Random,
    registry::Registry,
};

use crate::{
    check::Check,
    damage,
    images::{self, TestImage},
    message::{Ending, Event, Figures, ORDER, Order},
    records::{self, Record},
    work::Work,
};

/// The daemon's own defaults, which is what a node has.
const STATE: &str = "/var/lib/podwright";
const RUN: &str = "/run/podwright";
/// Where a node has its pods' logs.
const LOGS: &str = "/disk/logs";
/// What goes with the boot.
const OWN: &str = "/run/power-cuts";
/// 29 pods: addresses that are not freed are soon missed.
const SUBNET: &str = "10.77.0.0/27";
/// How long a node works before an orderly reboot.
const WORK: Duration = Duration::from_secs(6);

/// What every part of a boot needs.
pub(crate) struct Node {
    pub(crate) order: Order,
    pub(crate) state: PathBuf,
    pub(crate) images: Vec<TestImage>,
    pub(crate) cri: Cri,
    /// The daemon's log of this boot.
    pub(crate) log: PathBuf,
}

/// One boot, by the order in the environment. Most boots have no end of their own.
pub(crate) async fn run() -> Result<()> {
    let order = env::var(ORDER).with_context(|| format!("{ORDER} holds no order"))?;
    println!("the machine is up");
    let order: Order = serde_json::from_str(&order).context("reading the order")?;
    let state = PathBuf::from(STATE);
    write_back_early()?;
    let registry = Registry::start().await?;
    let images = images::serve(&registry)?;
    println!("the images are made");
    let files = files(&registry)?;

    let mut random = Random::new(order.seed);
    let found = records::all(&state)?;
    let torn: Vec<_> = found.iter().filter(|record| record.torn).collect();
    for record in &torn {
        println!("torn by the cut: {}", record.path.display());
    }
    let damaged = damage::some(&state, order.damages, &mut random)?;
    let before = records::all(&state)?;
    Event::Launching.tell();
    let begun = Instant::now();
    let daemon = launch::launch(&files).await;
    // It runs on when this program ends, as it does when systemd stops.
    let daemon = daemon.context("the daemon does not start by itself")?;
    let start_ms = begun.elapsed().as_millis();

    let client = client::connect(Path::new(RUN).join("podwright.sock")).await?;
    let node = Node {
        order,
        state,
        images,
        cri: Cri::new(client, Path::new(LOGS)),
        log: files.log.clone(),
    };
    let figures = Figures {
        start_ms,
        torn: torn.len(),
        damaged,
        ..Figures::default()
    };
    let done = live(&node, before, figures, random).await;
    drop(daemon);
    done.map_err(|error| {
        let log = fs::read_to_string(&node.log).unwrap_or_default();
        error.context(format!("the daemon's log:\n{log}"))
    })
}

/// The kernel keeps what nobody synced in memory for half a minute, longer than a boot here lasts. Sent to the drive
/// early, it is in the drive's cache when the power fails (the kernel's `admin-guide/sysctl/vm.rst`).
fn write_back_early() -> Result<()> {
    for (name, centiseconds) in [
        ("dirty_writeback_centisecs", "20"),
        ("dirty_expire_centisecs", "50"),
    ] {
        let path = Path::new("/proc/sys/vm").join(name);
        fs::write(&path, centiseconds).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

async fn live(
    node: &Node,
    before: BTreeSet<Record>,
    figures: Figures,
    random: Random,
) -> Result<()> {
    let checked = Check::new(node, before, figures).run().await;
    let (listed, figures) = checked.context("what is there after the boot is not as it must be")?;
    Event::Checked(listed, figures).tell();
    let work = Work::new(node, random);
    match node.order.ending {
        Ending::Cut => work.until_the_end().await.context("working"),
        Ending::Reboot => {
            let left = work.for_a_while(WORK).await.context("working")?;
            Event::Left(left).tell();
            Ok(())
        }
        Ending::Last => Ok(()),
    }
}

fn files(registry: &Registry) -> Result<Files> {
    let own = Path::new(OWN);
    let hosts = own.join("hosts");
    fs::create_dir_all(&hosts)?;
    registry.write_hosts(&hosts)?;
    let configuration = own.join("podwright.toml");
    let text = format!(
        "[paths]\nstate = {STATE:?}\nrun = {RUN:?}\n[server]\nsocket = \"{RUN}/podwright.sock\"\n\
         [network]\nsubnets = [{SUBNET:?}]\n[registry]\nconfig_dirs = [{:?}]\n[log]\nlevel = \"info\"\n",
        hosts.display().to_string()
    );
    fs::write(&configuration, text)
        .with_context(|| format!("writing {}", configuration.display()))?;
    Ok(Files {
        configuration,
        log: own.join("daemon.log"),
        notify: own.join("notify.sock"),
    })
}
