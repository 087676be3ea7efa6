"""A Docker daemon of one's own: nothing installed, nothing of the machine's touched, nothing left when it ends.

It lives in namespaces of its own (mounts, network, processes): its bridges are not on the machine's network, what it
mounts nobody else sees, and when it is killed all its containers go with it. That takes root. Its images are made here:
there is no registry in this.
"""

import contextlib
import io
import os
import shutil
import signal
import socket
import tarfile
import time
from pathlib import Path

from testbed.fetch import environment
from testbed.parts import Part

# Of /proc/self/status, CapEff: CAP_NET_ADMIN and CAP_SYS_ADMIN.
_NEEDED = (1 << 12) | (1 << 21)
APPLETS = ("sh", "sleep", "cat", "httpd", "hostname", "kill", "true", "false")


def absence() -> str | None:
    """Why none can be started here; None where one can be tried."""
    if os.geteuid() != 0:
        return "no Docker daemon: only root can start one"
    if shutil.which("unshare") is None:
        return "no Docker daemon: unshare is not on this machine; install util-linux"
    effective = next(
        (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")),
        "0",
    )
    if int(effective, 16) & _NEEDED != _NEEDED:
        return "no Docker daemon: this root may neither mount nor make networks"
    if not os.access("/sys/fs/cgroup", os.W_OK):
        return "no Docker daemon: /sys/fs/cgroup cannot be written here"
    return None


class Docker(Part):
    """`with Docker(folder, root=fetch.ensure_docker()) as docker: docker.url`. The folder's path has to be a short one.

    Ending it is a crash to it, which is all it needs: nothing in it is worth an orderly end.
    """

    name = "docker"
    stop_signal = signal.SIGKILL

    @property
    def socket_path(self) -> Path:
        return self.folder / "d.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket_path}"

    def argv(self) -> list[str]:
        (self.folder / "daemon.json").write_text("{}")  # else it reads the machine's
        self.socket_path.unlink(missing_ok=True)
        options = {
            "host": self.url,
            "config-file": self.folder / "daemon.json",
            "data-root": self.folder / "data",
            "exec-root": self.folder / "exec",
            "pidfile": self.folder / "pid",
            "storage-driver": "vfs",
            "bridge": "none",  # a network that is made is a bridge all the same, without a way out
            "iptables": "false",
            "ip6tables": "false",
            "cgroup-parent": f"/{self._cgroup}",
        }
        flags = " ".join(f"--{name}={value}" for name, value in options.items())
        inside = f"mount -t tmpfs tmpfs /run && exec dockerd {flags}"
        namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return ["unshare", *namespaces, "sh", "-c", inside]

    @property
    def _cgroup(self) -> str:
        return f"tidewise-{os.getpid()}-{self.folder.name}"

    def kill(self) -> None:
        """End it and its containers at once; their control groups, which outlive them, go too."""
        super().kill()
        tops = Path("/sys/fs/cgroup")
        deadline = time.monotonic() + 2.0
        while groups := [*tops.glob(f"*/{self._cgroup}"), *tops.glob(self._cgroup)]:
            for group in groups:
                for folder, _, _ in os.walk(group, topdown=False):
                    with contextlib.suppress(OSError):  # a process in it is not quite gone
                        Path(folder).rmdir()
            if time.monotonic() > deadline:
                return  # an empty group harms nobody
            time.sleep(0.01)

    def environment(self) -> dict[str, str]:
        path = f"{self.root}/usr/sbin:{self.root}/usr/bin:{self.root}/sbin:{os.environ.get('PATH', os.defpath)}"
        return {**environment(self.root), "PATH": path}

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            try:
                probe.connect(str(self.socket_path))
                probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in probe.recv(100)
            except OSError:
                return False


def image(root: Path) -> bytes:
    """A tar of a root file system with a shell and a few programs, for `docker import`."""
    busybox = next(root.glob("*bin/busybox"))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return out.getvalue()
