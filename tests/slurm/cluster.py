"""A real Slurm on this machine, beside any other one: nothing of it lies in /etc/slurm or /run."""

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

PATIENCE_S = 300
POLL_S = 0.1
COMMANDS = ("sbatch", "squeue", "srun", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr")
CONFIG = """\
ClusterName=cellseg
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
PlugStackConfig={root}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
GresTypes=gpu
SlurmdParameters=config_overrides
InactiveLimit=0
KillWait=5
JobRequeue=0
MinJobAge=7200
SlurmctldTimeout=30
SlurmdTimeout=10
MaxArraySize=1001
DefMemPerCPU=1000
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc={root}/finished.txt
{nodes}
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n1,n2 MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus}"
    " RealMemory={memory_mb} Gres=gpu:fake:{gpus} State=UNKNOWN"
)


class Cluster:
    """Two virtual nodes with fake GPUs; use it in a `with` statement.

    `environment` makes any program use it, and no other; all of it lies in `root`.
    """

    NODES = ("n1", "n2")

    def __init__(self, *, cpus=8, memory_mb=32_000, gpus=2):
        self.root = Path(tempfile.mkdtemp(prefix="cellseg-slurm-"))
        self.config = self.root / "slurm.conf"
        path = f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"SLURM_CONF": str(self.config), "PATH": path}
        self._daemons = {}
        self._sizes = {"cpus": cpus, "memory_mb": memory_mb, "gpus": gpus}

    def __enter__(self):
        try:
            self._configure()
            self._start_munge()
            self.start_controller()
            for name in self.NODES:
                self.start_node(name)
            self.wait_until(lambda: self.nodes() == dict.fromkeys(self.NODES, "idle"))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    # What lies in its folder.

    def _configure(self):
        self.root.chmod(0o755)  # the socket of munge must be reached by anybody
        for folder in ("munge", "state", "spool", "gpu"):
            (self.root / folder).mkdir(mode=0o755)
        host = socket.gethostname().split(".")[0]
        ports = free_ports(1 + len(self.NODES))
        nodes, gpus = [], []
        for name, port in zip(self.NODES, ports[1:], strict=True):
            (self.root / "spool" / name).mkdir()
            nodes.append(NODE.format(name=name, host=host, port=port, **self._sizes))
            for number in range(self._sizes["gpus"]):
                # Slurm takes devices alone: these are /dev/null by another name.
                device = self.root / "gpu" / f"{name}_{number}"
                os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
                gpus.append(f"NodeName={name} Name=gpu Type=fake File={device}\n")
        content = CONFIG.format(host=host, port=ports[0], root=self.root, nodes="\n".join(nodes))
        self.config.write_text(content)
        (self.root / "gres.conf").write_text("".join(gpus))
        (self.root / "plugstack.conf").touch()
        self._wrap_commands()
        (self.root / "munge" / "key").write_bytes(os.urandom(128))
        (self.root / "munge" / "key").chmod(0o400)

    def _wrap_commands(self):
        """Make commands that find this Slurm without variables: Snakemake's jobs drop them."""
        (self.root / "bin").mkdir()
        for name in filter(shutil.which, COMMANDS):
            file = self.root / "bin" / name
            file.write_text(f'#!/bin/sh\nSLURM_CONF={self.config} exec {shutil.which(name)} "$@"\n')
            file.chmod(0o755)

    # Daemons.

    def _start(self, name, *command):
        """Start a daemon; it ends with the tests, however these end."""
        with (self.root / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
                env=self.environment,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _start_munge(self):
        folder = self.root / "munge"
        files = {"key-file": "key", "socket": "socket", "log-file": "log"}
        files |= {"pid-file": "pid", "seed-file": "seed"}
        options = [f"--{option}={folder / file}" for option, file in files.items()]
        self._start("munged", "munged", "--foreground", *options)
        self.wait_until((folder / "socket").exists)

    def start_controller(self):
        """Start slurmctld, which goes on where an earlier one stopped."""
        self._start("slurmctld", "slurmctld", "-D", "-f", self.config)
        self.wait_until(lambda: "is UP" in self.ask("scontrol", "ping", check=False))

    def stop_controller(self):
        """End slurmctld, which saves its state; killed it would lose the last seconds of it."""
        self._daemons["slurmctld"].terminate()
        self._daemons["slurmctld"].wait()

    def start_node(self, name):
        """Start the slurmd of a node, which finds the jobs that still run there."""
        self._start(name, "slurmd", "-D", "-f", self.config, "-N", name)

    def kill_node(self, name):
        """Kill the slurmd of a node; its jobs run on."""
        self._kill(name)

    def crash_node(self, name):
        """Kill everything of a node, as when its power fails."""
        self.kill_node(name)
        kill(p for p in self.processes() if in_environment(p, SLURMD_NODENAME=name))

    def _kill(self, name):
        self._daemons[name].kill()
        self._daemons[name].wait()

    def stop(self):
        """End all of it, jobs included, and remove its folder."""
        end = time.monotonic() + PATIENCE_S
        while (left := self.processes()) and time.monotonic() < end:
            kill(left)
            for daemon in self._daemons.values():
                daemon.poll()  # so that it does not stay as a zombie
            time.sleep(POLL_S)
        for daemon in self._daemons.values():
            daemon.wait()
        shutil.rmtree(self.root, ignore_errors=True)
        assert not left, f"processes of the test's Slurm are left: {left}"

    def processes(self):
        """Return all processes that belong to this Slurm: daemons, steps and what jobs started."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process):
        try:
            if process.pid == os.getpid():
                return False
            if in_environment(process, SLURM_CONF=str(self.config)):
                return True
            if process.name() not in ("slurmstepd", "slurmscriptd"):
                return False
            # Slurm empties the environment of these two.
            files = [file.path for file in process.open_files()]
            return any(path.startswith(f"{self.root}/") for path in files) or any(
                in_environment(child, SLURM_CONF=str(self.config)) for child in process.children()
            )
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    # What users do.

    def ask(self, *command, check=True, **settings):
        """Run a command of Slurm and return what it says."""
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **settings,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout.strip()

    def submit(self, script, *options):
        """Submit a line of shell; return the number of the job."""
        out = self.root / "job-%j.out"
        said = self.ask("sbatch", "--parsable", "--output", out, *options, "--wrap", script)
        return int(said.split(";")[0])

    def output(self, job):
        """Return what a job submitted here has said."""
        return (self.root / f"job-{job}.out").read_text()

    def nodes(self):
        """Return the state of each node."""
        lines = self.ask("sinfo", "-h", "-N", "-p", "cpu", "-o", "%N %t").splitlines()
        return dict(line.split() for line in lines)

    def job(self, number):
        """Return what Slurm knows of a job."""
        return fields(self.ask("scontrol", "--oneliner", "show", "job", number))

    def jobs(self, *states):
        """Return what Slurm knows of all jobs, oldest first, or of those in some states."""
        lines = self.ask("scontrol", "--oneliner", "show", "job").splitlines()
        found = [fields(line) for line in lines if line.startswith("JobId=")]
        found = [job for job in found if not states or job["JobState"] in states]
        return sorted(found, key=lambda job: int(job["JobId"]))

    def wait(self, number, *states, patience_s=PATIENCE_S):
        """Wait until a job is in one of some states; return it."""
        final = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
        wanted = set(states) or final
        self.wait_until(lambda: self.job(number)["JobState"] in wanted, patience_s)
        return self.job(number)

    def drain(self):
        """Start no more jobs: they wait."""
        self._update_nodes("State=DRAIN", "Reason=test")

    def resume(self):
        """Start jobs again."""
        self._update_nodes("State=RESUME")

    def _update_nodes(self, *changes):
        self.ask("scontrol", "update", f"NodeName={','.join(self.NODES)}", *changes)

    def clear(self):
        """Empty the queue, and have both nodes again."""
        self.ask("scancel", "--user=root")
        if any(state.startswith("drain") for state in self.nodes().values()):
            self.resume()
        idle = dict.fromkeys(self.NODES, "idle")
        self.wait_until(lambda: not self.jobs("PENDING", "RUNNING", "COMPLETING", "SUSPENDED"))
        self.wait_until(lambda: self.nodes() == idle)

    def wait_until(self, met, patience_s=PATIENCE_S):
        """Wait until something is so."""
        end = time.monotonic() + patience_s
        while not (found := met()):
            if time.monotonic() > end:
                logs = [*self.root.glob("*.log"), *self.root.glob("*.out")]
                tails = [f"== {log.name}\n{log.read_text()[-2000:]}" for log in logs]
                raise TimeoutError("\n".join(tails))
            time.sleep(POLL_S)
        return found


def fields(line):
    """Return what a line of Slurm says, by name."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def free_ports(n):
    """Return ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def in_environment(process, **wanted):
    """Tell whether a process was started with some variables."""
    try:
        found = process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return all(found.get(name) == value for name, value in wanted.items())


def kill(processes):
    """Kill processes that may be gone, and what holds them in a step of Slurm."""
    for process in list(processes):
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = process.parent()
            process.kill()
            if parent is not None and parent.name() == "slurmstepd":
                parent.kill()
