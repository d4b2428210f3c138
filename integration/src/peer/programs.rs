//! The programs of a node with containerd, as their releases have them: the modules are pinned by version and hash, and each is
//! built in its own directory, with its own go.mod and go.sum.

use std::{
    env::consts::ARCH,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{cache, packages};

const RECIPE: &str = include_str!("programs.rs");

/// A release, and what is built of it.
struct Release {
    module: &'static str,
    version: &'static str,
    /// Of the module's content, as a go.sum has it.
    sum: &'static str,
    tags: &'static str,
    /// Linked into the programs: a version that they tell.
    variables: &'static str,
    cgo: Cgo,
    /// Paths of packages below the module. A program is named as the last part.
    packages: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cgo {
    Off,
    On,
}

const RELEASES: &[Release] = &[
    Release {
        module: "github.com/containerd/containerd/v2",
        version: "v2.3.4",
        sum: "h1:c2PJo/9UGVdiiw8SwrxuLxWGY+9b3jQ6Xp9zntneIvI=",
        tags: "urfave_cli_no_docs",
        variables: "-X github.com/containerd/containerd/v2/version.Version=v2.3.4",
        cgo: Cgo::Off,
        packages: &["cmd/containerd"],
    },
    // Without gRPC, as containerd's own Makefile builds it: a shim is smaller so.
    Release {
        module: "github.com/containerd/containerd/v2",
        version: "v2.3.4",
        sum: "h1:c2PJo/9UGVdiiw8SwrxuLxWGY+9b3jQ6Xp9zntneIvI=",
        tags: "urfave_cli_no_docs no_grpc",
        variables: "-X github.com/containerd/containerd/v2/version.Version=v2.3.4",
        cgo: Cgo::Off,
        packages: &["cmd/containerd-shim-runc-v2"],
    },
    // Without libseccomp: the containers that are measured have no seccomp profile.
    Release {
        module: "github.com/opencontainers/runc",
        version: "v1.5.1",
        sum: "h1:zgJPvESRUNz2UhHTG436ZIewGbQoJDAO9HRyyarggfY=",
        tags: "urfave_cli_no_docs",
        variables: "-X main.version=1.5.1",
        cgo: Cgo::On,
        packages: &[""],
    },
    Release {
        module: "github.com/containernetworking/plugins",
        version: "v1.9.0",
        sum: "h1:Mg3SXBdRGkdXyFC4lcwr6u2ZB2SDeL6LC3U+QrEANuQ=",
        tags: "",
        variables: "",
        cgo: Cgo::Off,
        packages: &[
            "plugins/main/bridge",
            "plugins/main/loopback",
            "plugins/ipam/host-local",
            "plugins/meta/portmap",
        ],
    },
];

/// What the plugins bridge and portmap call, and the libraries that it needs beside the C library.
const IPTABLES: &[&str] = &[
    "iptables",
    "libip4tc2",
    "libip6tc2",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libxtables12",
];
/// The names of iptables' one program for nftables.
const IPTABLES_NAMES: &[&str] = &[
    "iptables",
    "iptables-restore",
    "iptables-save",
    "ip6tables",
    "ip6tables-restore",
    "ip6tables-save",
];

/// containerd, its shim, runc, CNI plugins and iptables.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Finds them in the cache, or builds them, which takes Go 1.26.3 or later, a C compiler and, the first time, some minutes.
    ///
    /// # Errors
    /// When a tool is missing, a module is not the one that is pinned, or a build fails.
    pub fn open() -> Result<Self> {
        let directory = cache::directory_of("containerd", RECIPE, |fresh| {
            let programs = fresh.join("bin");
            fs::create_dir(&programs)?;
            for release in RELEASES {
                release.build(&programs)?;
            }
            iptables(fresh)
        })?;
        Ok(Self { directory })
    }

    /// The directory of the programs that are built, CNI plugins among them.
    pub(super) fn built(&self) -> PathBuf {
        self.directory.join("bin")
    }

    /// The environment in which containerd finds the others.
    pub(super) fn environment(&self) -> Result<[(&'static str, PathBuf); 3]> {
        let libraries = self.root().join(libraries());
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let mut path = vec![self.built(), self.root().join("usr/sbin")];
        path.extend(std::env::split_paths(&inherited));
        Ok([
            ("PATH", std::env::join_paths(path)?.into()),
            ("XTABLES_LIBDIR", libraries.join("xtables")),
            ("LD_LIBRARY_PATH", libraries),
        ])
    }

    fn root(&self) -> PathBuf {
        self.directory.join("iptables")
    }
}

/// Debian's directory of libraries for this processor.
fn libraries() -> String {
    format!("usr/lib/{ARCH}-linux-gnu")
}

/// Unpacks iptables. Its names are Debian's alternatives, which only an installation makes.
fn iptables(fresh: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let root = fresh.join("iptables");
    packages::unpack(IPTABLES, &root, scratch.path())?;
    for name in IPTABLES_NAMES {
        let path = root.join("usr/sbin").join(name);
        symlink("xtables-nft-multi", &path)
            .with_context(|| format!("making the link {}", path.display()))?;
    }
    Ok(())
}

/// What `go mod download -json` says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Download {
    dir: PathBuf,
    sum: String,
}

impl Release {
    /// Leaves the programs in `output`.
    fn build(&self, output: &Path) -> Result<()> {
        let source = self.download()?;
        for package in self.packages {
            let name = Path::new(self.module).join(package);
            let name = name.file_name().context("a package without a name")?;
            packages::run(
                Command::new("go")
                    .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false"])
                    .args(["-tags", self.tags])
                    .args(["-ldflags", &format!("-s -w {}", self.variables)])
                    .arg("-o")
                    .arg(output.join(name))
                    .arg(format!("./{package}"))
                    .env("CGO_ENABLED", if self.cgo == Cgo::On { "1" } else { "0" })
                    .current_dir(&source),
            )
            .with_context(|| format!("building {} of {}", package, self.module))?;
        }
        Ok(())
    }

    /// The directory of the module's source in Go's own cache.
    fn download(&self) -> Result<PathBuf> {
        // Outside of all modules, whose own demands do not count here.
        let nowhere = tempfile::tempdir()?;
        let module = format!("{}@{}", self.module, self.version);
        let answer = packages::run(
            Command::new("go")
                .args(["mod", "download", "-json", &module])
                .current_dir(nowhere.path()),
        )
        .with_context(|| format!("downloading {module} (package golang-go)"))?;
        let download: Download = serde_json::from_str(&answer)
            .with_context(|| format!("reading what go says of {module}"))?;
        ensure!(
            download.sum == self.sum,
            "{module} is not the one that was pinned: its hash is {}",
            download.sum
        );
        Ok(download.dir)
    }
}
