//! What each test image holds. critest's image list decides the names; its specs the contents.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    image::{Compression, Image, Vocabulary, architecture},
    layer::{Entry, Layer},
    packages,
    programs::{self, Start},
};

/// A shell with its tools.
pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
/// A web server on port 80.
pub const NGINX: &str = "registry.k8s.io/e2e-test-images/nginx:1.14-2";
/// A web server on port 80 which logs that it is "httpd".
pub const HTTPD: &str = "registry.k8s.io/e2e-test-images/httpd:2.4.39-4";

/// What other runtimes run in each pod.
pub const PAUSE: &str = "registry.k8s.io/pause:3.9";

const STAGING: &str = "gcr.io/k8s-staging-cri-tools";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// busybox lacks ipcs, which util-linux brings, and pgrep, which is a script here: procps' needs systemd's library with those below
/// it, and each test begins with a pull of this image.
const SHELL_PACKAGES: &[&str] = &["busybox", "libc6", "util-linux"];
/// The programs taken from the packages above.
const SHELL_PROGRAMS: &[&str] = &["bin/busybox", "usr/bin/ipcs"];
/// What these are linked to, without versions.
const SHELL_LIBRARIES: &[&str] = &["ld-linux", "libc.so", "libresolv.so"];

/// nginx-light is nginx with a module that the configuration here does not load.
const NGINX_PACKAGES: &[&str] = &[
    "nginx",
    "nginx-common",
    "libcrypt1",
    "libpcre2-8-0",
    "libssl3",
    "zlib1g",
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
    www-data:x:33:33:www-data:/var/www:/bin/false\n\
    nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n";

/// Builds all images, by full reference.
pub(super) fn build(scratch: &Path) -> Result<BTreeMap<String, Image>> {
    let shell = shell_layers(scratch)?;
    let mut images = BTreeMap::new();
    images.insert(
        BUSYBOX.to_owned(),
        Image::new(Vocabulary::Oci, &shell, &command(&["sh"]))?,
    );
    add_web_servers(&mut images, &shell, scratch)?;
    add_small_programs(&mut images, scratch)?;
    add_references(&mut images, &shell)?;
    add_users(&mut images, &shell)?;
    Ok(images)
}

type Layers = Vec<(Layer, Compression)>;

fn command(arguments: &[&str]) -> Value {
    json!({ "Env": [PATH], "Cmd": arguments })
}

/// The shared libraries below, the programs and files above: two layers, gzip and Zstandard.
fn shell_layers(scratch: &Path) -> Result<Layers> {
    let root = scratch.join("shell");
    packages::unpack(SHELL_PACKAGES, &root, scratch)?;
    let mut libraries = Layer::default();
    libraries.add_tree(&root, &|path| {
        let name = path.rsplit('/').next().unwrap_or(path);
        is_library(path) && SHELL_LIBRARIES.iter().any(|start| name.starts_with(start))
    })?;
    let mut programs = Layer::new(base_directories());
    programs.add_tree(&root, &|path| SHELL_PROGRAMS.contains(&path))?;
    programs.entries.push(library_cache(&root, &libraries)?);
    let probe = programs::compile(programs::PROBE, Start::Bare, scratch)?;
    programs.entries.extend([
        Entry::file("bin/pgrep", 0o755, programs::PGREP),
        Entry::file("bin/probe", 0o755, probe),
    ]);
    let mut layers = vec![
        (libraries, Compression::Gzip),
        (programs, Compression::Zstd),
    ];
    let list = try_in_chroot(&layers, scratch, "/bin/busybox", &["--list"])?;
    // Hard links, not symbolic ones: critest masks /bin/ls alone.
    let applets = list.lines().filter(|name| *name != "busybox");
    let links = applets.map(|name| Entry::hard_link(&format!("bin/{name}"), "bin/busybox"));
    layers[1].0.entries.extend(links);
    for (program, arguments) in [
        (
            "/bin/sh",
            &[
                "-c",
                // Without /proc there is no process to be found.
                "ls -A / && id && hostname && brctl 2>&1 | grep -q addbr && [ $(pgrep -fc .) = 0 ] && probe",
            ][..],
        ),
        ("/usr/bin/ipcs", &["--version"]),
    ] {
        try_in_chroot(&layers, scratch, program, arguments)?;
    }
    Ok(layers)
}

/// As every distribution's image has it: without it, the loader asks for each library in dozens of places, and that would be most of
/// what a short command takes.
fn library_cache(root: &Path, libraries: &Layer) -> Result<Entry> {
    const CACHE: &str = "etc/ld.so.cache";
    let mut paths = libraries.entries.iter().map(|entry| Path::new(&entry.path));
    let directory = paths
        .find(|path| path.ends_with("libc.so.6"))
        .and_then(Path::parent)
        .context("the C library is not among the libraries")?;
    fs::create_dir_all(root.join("etc"))?;
    let made = Command::new("/sbin/ldconfig")
        .arg("-r")
        .arg(root)
        .arg("-X")
        .arg(Path::new("/").join(directory))
        .status()
        .context("running ldconfig")?;
    ensure!(made.success(), "ldconfig: {made}");
    Ok(Entry::file(CACHE, 0o644, fs::read(root.join(CACHE))?))
}

fn base_directories() -> Vec<Entry> {
    let mut entries: Vec<_> = [
        "bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "usr/bin", "var",
    ]
    .map(|path| Entry::directory(path, 0o755))
    .into();
    // A real directory, where a Debian system has a link to /run.
    entries.extend(["var/run", "var/log"].map(|path| Entry::directory(path, 0o755)));
    entries.push(Entry::directory("tmp", 0o1777));
    entries.push(Entry::file("etc/passwd", 0o644, PASSWD));
    entries.push(Entry::file("etc/group", 0o644, GROUP));
    entries
}

/// Shared libraries and the loader, without what only iconv or systemd would load.
fn is_library(path: &str) -> bool {
    let in_library_directory = ["lib/", "lib64/", "usr/lib/"]
        .iter()
        .any(|start| path.starts_with(start));
    in_library_directory && path.contains(".so") && !path.contains("/gconv/")
}

/// Unpacks `layers` and runs a program of theirs: a library that is missing shows here, and not in
/// a test of something else.
fn try_in_chroot(
    layers: &Layers,
    scratch: &Path,
    program: &str,
    arguments: &[&str],
) -> Result<String> {
    let root = tempfile::tempdir_in(scratch)?;
    for (layer, _) in layers {
        let mut tar = Command::new("tar")
            .args(["-x", "--numeric-owner", "-f", "-", "-C"])
            .arg(root.path())
            .stdin(Stdio::piped())
            .spawn()
            .context("starting tar")?;
        let mut stdin = tar.stdin.take().context("tar's standard input")?;
        std::io::Write::write_all(&mut stdin, &layer.tar())?;
        drop(stdin);
        ensure!(tar.wait()?.success(), "tar does not accept a layer of ours");
    }
    packages::run(
        Command::new("chroot")
            .arg(root.path())
            .arg(program)
            .args(arguments),
    )
    .context("trying a program of an image (this needs root)")
}

fn add_web_servers(
    images: &mut BTreeMap<String, Image>,
    shell: &Layers,
    scratch: &Path,
) -> Result<()> {
    let root = scratch.join("nginx");
    packages::unpack(NGINX_PACKAGES, &root, scratch)?;
    let server = |port: u16| -> Result<Layers> {
        let mut layer = Layer::default();
        layer.add_tree(&root, &|path| {
            is_library(path) || path == "usr/sbin/nginx" || path == "etc/nginx/mime.types"
        })?;
        layer.entries.extend([
            Entry::file("etc/nginx/nginx.conf", 0o644, nginx_configuration(port)),
            Entry::directory("var/lib", 0o755),
            Entry::directory("var/lib/nginx", 0o755),
            Entry::directory("var/log/nginx", 0o755),
            Entry::directory("srv", 0o755),
            Entry::file("srv/index.html", 0o644, "<h1>Welcome to nginx!</h1>\n"),
        ]);
        let mut layers = shell.clone();
        layers.push((layer, Compression::Gzip));
        Ok(layers)
    };
    let layers = server(80)?;
    try_in_chroot(&layers, scratch, "/usr/sbin/nginx", &["-V"])?;
    let start = json!({
        "Env": [PATH],
        "Cmd": ["nginx", "-g", "daemon off;"],
        "ExposedPorts": { "80/tcp": {} },
        "StopSignal": "SIGQUIT",
    });
    // An index, as nearly every public image has one; the other architecture must not be chosen.
    let ours = Image::new(Vocabulary::Oci, &layers, &start)?;
    let foreign_architecture = if architecture() == "arm64" {
        "amd64"
    } else {
        "arm64"
    };
    let readme = Layer::new([Entry::file(
        "README",
        0o644,
        "No program of this machine.\n",
    )]);
    let foreign = Image::for_architecture(
        foreign_architecture,
        Vocabulary::Oci,
        &[(readme, Compression::Plain)],
        &start,
    )?;
    let index = Image::index(
        Vocabulary::Oci,
        &[(foreign_architecture, &foreign), (architecture(), &ours)],
    );
    images.insert(NGINX.to_owned(), index);

    let hostnet = Image::new(Vocabulary::Docker, &without_zstd(server(12003)?), &start)?;
    images.insert(
        format!("{STAGING}/hostnet-nginx-{}:latest", architecture()),
        hostnet,
    );

    let httpd = Layer::new([
        Entry::directory("srv", 0o755),
        Entry::file("srv/index.html", 0o644, "<h1>It works!</h1>\n"),
        Entry::file("bin/httpd-foreground", 0o755, HTTPD_START),
    ]);
    let mut layers = shell.clone();
    layers.push((httpd, Compression::Plain));
    let httpd = Image::new(Vocabulary::Oci, &layers, &command(&["httpd-foreground"]))?;
    images.insert(HTTPD.to_owned(), httpd);
    Ok(())
}

/// The Docker vocabulary has no name for Zstandard.
fn without_zstd(layers: Layers) -> Layers {
    layers
        .into_iter()
        .map(|(layer, _)| (layer, Compression::Gzip))
        .collect()
}

const HTTPD_START: &str = "#!/bin/sh\n\
    echo 'httpd: serving /srv on port 80'\n\
    exec httpd -f -v -p 80 -h /srv\n";

fn nginx_configuration(port: u16) -> String {
    format!(
        "user www-data;\n\
        worker_processes 1;\n\
        pid /var/run/nginx.pid;\n\
        error_log /dev/stderr;\n\
        events {{ worker_connections 256; }}\n\
        http {{\n\
        \x20 include mime.types;\n\
        \x20 access_log /dev/stdout;\n\
        \x20 server {{\n\
        \x20   listen {port};\n\
        \x20   listen [::]:{port};\n\
        \x20   root /srv;\n\
        \x20 }}\n\
        }}\n"
    )
}

fn add_small_programs(images: &mut BTreeMap<String, Image>, scratch: &Path) -> Result<()> {
    let pause = programs::compile(programs::PAUSE, Start::Library, scratch)?;
    let pause = Layer::new([Entry::file("pause", 0o755, pause)]);
    let config = json!({ "Env": [PATH], "Entrypoint": ["/pause"], "User": "65535:65535" });
    let pause = Image::new(Vocabulary::Docker, &[(pause, Compression::Gzip)], &config)?;
    // Other runtimes ask for later versions of it, when the same tests run against them.
    for name in [
        PAUSE,
        "k8s.gcr.io/pause:3.9",
        "registry.k8s.io/pause:3.10",
        "registry.k8s.io/pause:3.10.1",
        "registry.k8s.io/pause:3.10.2",
    ] {
        images.insert(name.to_owned(), pause.clone());
    }

    let program = programs::compile(programs::EFFECTIVE_UID, Start::Library, scratch)?;
    let layer = Layer::new([
        Entry::directory("etc", 0o755),
        Entry::file("etc/passwd", 0o644, PASSWD),
        Entry::file("nnp", 0o4755, program),
    ]);
    let config = json!({ "Env": [PATH], "Entrypoint": ["/nnp"] });
    let image = Image::new(Vocabulary::Docker, &[(layer, Compression::Gzip)], &config)?;
    images.insert(
        "registry.k8s.io/e2e-test-images/nonewprivs:1.3".to_owned(),
        image,
    );
    Ok(())
}

/// Images that differ only in a file; critest pulls them by name, tag and digest.
fn add_references(images: &mut BTreeMap<String, Image>, shell: &Layers) -> Result<()> {
    let marked = |mark: &str| -> Result<Image> {
        let mut layers = shell.clone();
        let layer = Layer::new([Entry::file("mark", 0o644, format!("{mark}\n"))]);
        layers.push((layer, Compression::Plain));
        Image::new(Vocabulary::Oci, &layers, &command(&["sh"]))
    };
    for name in [
        "test-image-latest:latest",
        "test-image-1:latest",
        "test-image-2:latest",
        "test-image-3:latest",
        "test-image-tag:test",
        "test-image-tag:all",
    ] {
        images.insert(format!("{STAGING}/{name}"), marked(name)?);
    }
    let same = marked("test-image-tags")?;
    for tag in 1..=3 {
        images.insert(format!("{STAGING}/test-image-tags:{tag}"), same.clone());
    }
    Ok(())
}

/// Images whose configuration or user database decides who runs in them.
fn add_users(images: &mut BTreeMap<String, Image>, shell: &Layers) -> Result<()> {
    for (name, user) in [
        ("test-image-user-uid", "1002"),
        ("test-image-user-username", "www-data"),
        ("test-image-user-uid-group", "1003:users"),
        ("test-image-user-username-group", "www-data:100"),
    ] {
        let mut config = command(&["sh"]);
        config["User"] = json!(user);
        let image = Image::new(Vocabulary::Oci, shell, &config)?;
        images.insert(format!("{STAGING}/{name}:latest"), image);
    }
    let passwd = format!("{PASSWD}default-user:x:1000:1000::/home/default-user:/bin/sh\n");
    let group =
        format!("{GROUP}default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n");
    let mut layers = shell.clone();
    let layer = Layer::new([
        Entry::file("etc/passwd", 0o644, passwd),
        Entry::file("etc/group", 0o644, group),
    ]);
    layers.push((layer, Compression::Zstd));
    let mut config = command(&["sh"]);
    config["User"] = json!("1000");
    let image = Image::new(Vocabulary::Oci, &layers, &config)?;
    images.insert(
        format!("{STAGING}/test-image-predefined-group:latest"),
        image,
    );
    Ok(())
}
