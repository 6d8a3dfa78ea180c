"""PostgreSQL servers of a test's own: a primary and a synchronous standby, run as a user without
privileges and reached by sockets in a directory of theirs."""
import contextlib
import glob
import os
import pathlib
import pwd
import shutil
import signal
import subprocess

from cluster import PairTest
from node import run, until

SETTINGS = {"listen_addresses": "", "dynamic_shared_memory_type": "mmap", "shared_buffers": "8MB",
            "port": "5432", "unix_socket_permissions": "0777", "wal_keep_size": "64",
            "wal_retrieve_retry_interval": "200ms"}


def programs():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    if not found:
        raise AssertionError("PostgreSQL is not installed (package postgresql-15)")
    return pathlib.Path(found[-1]).parent


def attached_to(number):
    """How many processes use that piece of System V memory."""
    rows = [line.split() for line in pathlib.Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return next((int(row[6]) for row in rows if row[1] == number), 0)


class Server:
    def __init__(self, directory, more):
        self.dir, self.settings = directory, SETTINGS | more
        self.process = None

    def start(self):
        options = [f"--{key}={value}" for key, value in self.settings.items()]
        with open(f"{self.dir}.log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [programs() / "postgres", "-D", self.dir, "-k", self.dir, *options], stdout=log,
                stderr=log, cwd="/", user="nobody", group=pwd.getpwnam("nobody").pw_gid,
                extra_groups=[], env={"LC_ALL": "C"})
        until(lambda: self.ask("SELECT 1") == "1" or self.ended(), f"{self.dir} answers")

    def ended(self):
        if self.process.poll() is not None:
            raise AssertionError(pathlib.Path(f"{self.dir}.log").read_text()[-2000:])
        return False

    def ask(self, sql):
        return run(programs() / "psql", "-h", self.dir, "-U", "mesh", "-d", "postgres", "-tAqc",
                   sql, check=False).stdout.strip()

    def kill(self):
        """kill -9 of all its processes at once, as a machine that dies."""
        if not self.process:
            return
        pid = self.process.pid
        shared = (self.dir / "postmaster.pid").read_text().splitlines()
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(pid, signal.SIGKILL)
        for child in map(int, children):
            with contextlib.suppress(ProcessLookupError):  # it may have seen that
                os.kill(child, signal.SIGKILL)
        self.process.wait()
        self.process = None
        if len(shared) > 6:  # its piece of System V memory, which nobody else removes
            number = shared[6].split()[1]
            # The children end a moment later; until then no server starts in that directory.
            until(lambda: attached_to(number) == 0, "nobody uses its memory")
            run("ipcrm", "-m", number, check=False)


class Pair:
    """A primary, and a standby that has all that was committed. Nothing is made before start()."""

    def __init__(self, directory):
        self.home = pathlib.Path(directory)
        self.primary, self.standby = (
            Server(self.home / own, {"primary_conninfo":
                                     f"host={self.home / other} user=mesh application_name=standby"})
            for own, other in ("ab", "ba"))
        # The standby is first, so that libpq passes it by while it takes no writes.
        self.conninfo = f"dbname=postgres user=mesh host={self.standby.dir},{self.primary.dir}"
        nobody = pwd.getpwnam("nobody")
        self.owner = (nobody.pw_uid, nobody.pw_gid)

    def as_nobody(self, *argv):
        subprocess.run(argv, check=True, cwd="/", stdout=subprocess.DEVNULL, user="nobody",
                       group=self.owner[1], extra_groups=[])

    def start(self):
        self.home.mkdir()
        os.chown(self.home, *self.owner)
        self.as_nobody(programs() / "initdb", "-D", self.primary.dir, "-U", "mesh", "-A", "trust",
                       "--no-sync", "--no-locale", "-E", "UTF8", "--wal-segsize=1",
                       "--no-instructions")
        self.as_nobody("cp", "-a", self.primary.dir, self.standby.dir)
        self.primary.start()
        self.start_standby()

    def start_standby(self):
        """What is committed from now on is on both."""
        (self.standby.dir / "standby.signal").touch()
        self.standby.start()
        self.primary.ask("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        self.primary.ask("SELECT pg_reload_conf()")
        until(lambda: self.primary.ask("SELECT sync_state FROM pg_stat_replication") == "sync",
              "the standby follows")

    def promote(self):
        """The primary is dead: the standby takes over, alone."""
        promoted = self.standby.ask("SELECT pg_promote()")
        assert promoted == "t", promoted
        self.primary, self.standby = self.standby, self.primary
        self.primary.ask("ALTER SYSTEM RESET synchronous_standby_names")
        self.primary.ask("SELECT pg_reload_conf()")

    def renew_standby(self):
        """The one that died comes back as a copy of the other."""
        shutil.rmtree(self.standby.dir)
        self.as_nobody(programs() / "pg_basebackup", "-D", self.standby.dir, "-h",
                       self.primary.dir, "-U", "mesh", "--checkpoint=fast", "--no-sync")
        (self.standby.dir / ".s.PGSQL.5432.lock").unlink()  # of the other's socket
        self.start_standby()

    def close(self):
        self.primary.kill()
        self.standby.kill()


class PostgresTest(PairTest):
    """PairTest on two controllers of one database."""

    @classmethod
    def options(cls):
        return {"controllers": 2, "postgres": cls.pair.conninfo, **cls.OPTIONS}

    @classmethod
    def setUpClass(cls):
        cls.pair = Pair("/run/postgres")
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.pair.close()

    @classmethod
    def before_start(cls):
        cls.pair.start()
        super().before_start()
