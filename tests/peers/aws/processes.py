"""Ports, network namespaces and child processes of the AWS peer."""
import errno
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

# Names of what an instance leaves in the system while it runs; the number is its keeper's process id.
PREFIX = "delegate-aws-"
KEPT = []


def free_ports(count):
    """Ports below the range of outgoing connections that nobody else is given: whoever starts servers for tests asks for the
    same abstract socket name first (executor_api::testing::free_port, tests/peers/kube/up)."""
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    end = end if 20000 <= end <= 65535 else 32768
    ports = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(end // 2, end)
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0delegate-test-port-{port}")
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            name.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        KEPT.append(name)
        ports.append(port)
    return ports


def birth(pid):
    """When a process started, in clock ticks; None when there is none. With the pid it names one process for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


class Children:
    """Processes that end with this one, however it ends."""

    def __init__(self, logs):
        self.logs, self.running = logs, {}

    def start(self, name, *argv, env=None, cwd=None, end="KILL"):
        log = open(self.logs / f"{name}.log", "ab")
        # The signal comes when the thread that started the child ends: only the main thread may start any.
        argv = ["setpriv", "--pdeathsig", end, "--", *map(str, argv)]
        self.running[name] = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, start_new_session=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.logs.parent), **(env or {})})

    def ended(self):
        """Names and exit codes of those that are no more."""
        return {name: child.poll() for name, child in self.running.items() if child.poll() is not None}

    def end(self, name, how=signal.SIGKILL, patience=3.0):
        child = self.running.pop(name, None)
        if child is None:
            return
        child.send_signal(how)
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Namespace:
    """The network that the tasks of an instance live in: its own, so that instances need not share out addresses and leave
    nothing in the machine's firewall. `host` names the machine's own network for those inside."""

    def __init__(self):
        me = os.getpid()
        self.name = f"{PREFIX}{me}-{birth(me)}"
        self.host = f"{self.name}-host"

    def make(self):
        ip("netns", "add", self.name)
        ip("netns", "attach", self.host, str(os.getpid()))
        ip("-n", self.name, "link", "set", "lo", "up")

    def inside(self, *argv):
        return ["nsenter", f"--net=/run/netns/{self.name}", *argv]

    def remove(self):
        remove_leftovers(self.name)


def ip(*argv):
    done = subprocess.run(["ip", *argv], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(argv)}: {done.stderr.strip()}")


def remove_leftovers(name):
    """What an instance made outside its directory: network namespaces and the tasks' control groups."""
    for namespace in (name, f"{name}-host"):
        # Another keeper may sweep at the same time.
        if Path("/run/netns", namespace).exists():
            try:
                ip("netns", "del", namespace)
            except RuntimeError:
                if Path("/run/netns", namespace).exists():
                    raise
    for root in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]:
        group = root / name
        if not group.is_dir():
            continue
        end = time.monotonic() + 5
        for folder, _, _ in os.walk(group, topdown=False):
            # Busy until the kernel has buried the last process.
            while True:
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    pass
                except OSError:
                    if time.monotonic() < end:
                        time.sleep(0.02)
                        continue
                break


def sweep():
    """Removes what keepers that were killed left behind."""
    try:
        names = os.listdir("/run/netns")
    except FileNotFoundError:
        return
    for name in names:
        words = name.removeprefix(PREFIX).split("-")
        if name.startswith(PREFIX) and len(words) == 2 and birth(words[0]) != words[1]:
            remove_leftovers(name)


def wait_for(what, ready, patience=60.0, alive=lambda: None):
    end = time.monotonic() + patience
    while not ready():
        alive()
        if time.monotonic() > end:
            raise RuntimeError(f"{what} was not ready in {patience:.0f} s")
        time.sleep(0.03)


def listening(port):
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def need(*programs):
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        raise RuntimeError(f"missing: {' '.join(missing)} (scripts/install-test-peers)")
