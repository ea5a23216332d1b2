"""The servers among the peers: how each is started for a benchmark, in a directory and on loopback."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.contender import Durability
from benchmarks.packages import library
from benchmarks.server import HOST, Server, connects, program, program_output


def serve_beanstalkd(directory: Path, durability: Durability) -> Server:
    path = program("beanstalkd", "beanstalkd")
    binlog = directory / "binlog"
    binlog.mkdir(exist_ok=True)
    sync = ("-f0",) if durability == "power" else ("-F",)
    return Server(
        # It reads its binlog before it listens.
        lambda port: (path, "-l", HOST, "-p", str(port), "-b", str(binlog), *sync),
        connects,
        directory / "beanstalkd.log",
    )


def beanstalkd_version() -> str:
    return program_output(program("beanstalkd", "beanstalkd"), "-v")


def serve_redis(directory: Path, durability: Durability) -> Server:
    path = program("redis-server", "redis-server")
    data = directory / "redis"
    data.mkdir(exist_ok=True)
    options = {
        "bind": HOST,
        "dir": str(data),
        "save": "",  # the append-only file is what makes it durable
        "appendonly": "yes",
        "appendfsync": "always" if durability == "power" else "everysec",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return Server(
        lambda port: (path, "--port", str(port), *arguments), _redis_answers, directory / "redis-server.log"
    )


def redis_version() -> str:
    said = program_output(program("redis-server", "redis-server"), "--version")
    found = re.search(r"v=(\S+)", said)
    return f"redis-server {found[1] if found else said}"


def _redis_answers(port: int) -> bool:
    redis = library("redis")
    try:
        with redis.Redis(HOST, port, socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        # Not there yet, or there and still reading its file.
        return False
