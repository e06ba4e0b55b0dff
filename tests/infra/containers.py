"""Images built by buildah, and run closed as a pod of Kubernetes is, by the kernel's namespaces alone.

A container runtime wants control groups and a network, which a test machine may not give. What closes a pod needs
neither: a root that is read-only, no network but its own loopback, one user, no capability.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PYTHON = ["ca-certificates", "libpython3-dev", "python3", "python3-venv"]
BUILD_S = 3000
BUILD_BYTES = (
    32e9  # the CUDA variant five times: built, on its way to the last stage, there, on its way to the store, there
)

# $1 the root, $2 what lies at /tmp, $3 user, $4 group, then the command. Devices and writable places are a pod's.
ENTER = """
root=$1 tmp=$2 user=$3 group=$4; shift 4
ip link set lo up
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o "mode=700,uid=$user,gid=$group" tmpfs "$root/cache"
mount --bind "$tmp" "$root/tmp"
mount -o remount,ro "$root/dev"
exec chroot "$root" setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs \\
  --bounding-set=-all --inh-caps=-all --ambient-caps=-all "$@"
"""


def missing() -> str:
    """What keeps images from being entered here; "" if nothing does."""
    absent = [name for name in ("buildah", "ip", "setpriv", "unshare") if not shutil.which(name)]
    if absent:
        return f"not installed: {', '.join(absent)}"
    tried = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True, check=False)
    return "" if os.getuid() == 0 and not tried.returncode else "it takes root, and namespaces"


def missing_for_builds() -> str:
    """What keeps images from being built here; "" if nothing does."""
    if not shutil.which("debootstrap") and "PYTHON_IMAGE" not in os.environ:
        return "debootstrap is not installed"
    folders = [Path("/var/tmp"), Path("/var/lib")]  # where buildah works, and where it keeps what is built
    free = min(shutil.disk_usage(folder).free for folder in folders)
    return "" if free > BUILD_BYTES else f"{BUILD_BYTES / 1e9:.0f} GB of disk, of which {free / 1e9:.0f} are free"


def buildah(*arguments: str | Path, timeout_s: float = 300) -> str:
    """What buildah prints. Raises AssertionError with the end of what it said when it fails."""
    command = ["buildah", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, (done.stdout[-1500:], done.stderr[-3000:])
    return done.stdout.strip()


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """The files of an image ("scratch": of an empty one), until the context ends."""
    container = buildah("from", "--pull-never", image)
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("rm", container)


@contextmanager
def debian_with_python(suite: str) -> Iterator[str]:
    """The name of an image of Debian with `python`: from the mirror of this machine, trusting whom it trusts."""
    name, container = f"localhost/relabel-base-{os.getpid()}", buildah("from", "scratch")
    try:
        root = Path(buildah("mount", container))
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(PYTHON)}",
            suite,
            str(root),
            _mirror(suite),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        subprocess.run(["umount", root / "proc"], capture_output=True, check=False)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        (root / "etc/pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\n")
        buildah("commit", container, name)
    finally:
        buildah("rm", container)
    try:
        yield name
    finally:
        buildah("rmi", "--force", name)


def _mirror(suite: str) -> str:
    """Where apt of this machine has that suite from."""
    command = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    lines = [line.split() for line in told.splitlines()]
    return next((uri for codename, uri in lines if codename == suite), "")


class Image(NamedTuple):
    """A built image: its files, mounted, and what it says of how it is to be run."""

    root: Path
    user: int
    group: int
    env: dict[str, str]
    bytes_: int


@contextmanager
def opened(name: str) -> Iterator[Image]:
    """An image that is there already."""
    config = json.loads(buildah("inspect", "--type=image", name))
    with mounted(name) as root:
        yield _image(root, config)


@contextmanager
def built(dockerfile: Path, context: Path, **arguments: str) -> Iterator[Image]:
    """The image of `dockerfile`, removed in the end. arguments: its build arguments."""
    name = f"localhost/relabel-{os.getpid()}"
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    command = ["build", "--isolation=chroot", "--format=docker", "--pull-never", *options, "-f", dockerfile, "-t", name]
    buildah(*command, context, timeout_s=BUILD_S)
    try:
        with opened(name) as image:
            yield image
    finally:
        buildah("rmi", "--force", name)


def _image(root: Path, config: dict[str, Any]) -> Image:
    told = config["Docker"]["config"]
    user, group = map(int, told["User"].split(":"))
    env = dict(entry.split("=", 1) for entry in told["Env"])
    size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return Image(root, user, group, env, size)


def inside(image: Image, tmp: Path, *command: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """`command` in the closed image, with the folder `tmp` as its /tmp."""
    os.chown(tmp, image.user, image.group)
    spaces = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child",
        "--propagation=private",
    ]
    script = ["bash", "-euc", ENTER, "enter", str(image.root), str(tmp), str(image.user), str(image.group)]
    return subprocess.run(
        [*spaces, *script, *command], env=image.env, capture_output=True, text=True, timeout=timeout_s, check=False
    )
