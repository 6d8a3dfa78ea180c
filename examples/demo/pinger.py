#!/usr/bin/env python3
"""Keeps one connection to a Redis server open and sends PING on it, over and over.

Usage: pinger.py HOST PORT STATE-FILE

The name is looked up once, through the C library. STATE-FILE holds one line at a time:
    open COUNT LONGEST-GAP-MS     while the connection lives
    cut COUNT REASON MONOTONIC-S  when it ended
"""
import os
import socket
import sys
import time


def main() -> int:
    host, port, state_file = sys.argv[1], int(sys.argv[2]), sys.argv[3]

    def write(line: str) -> None:
        with open(state_file + ".new", "w", encoding="ascii") as file:
            file.write(line + "\n")
        os.rename(state_file + ".new", state_file)

    connection = socket.create_connection((host, port), timeout=20)
    connection.settimeout(5)
    count, longest, last = 0, 0.0, time.monotonic()
    deadline = last + 120
    while time.monotonic() < deadline:
        try:
            connection.sendall(b"PING\r\n")
            if connection.recv(64) != b"+PONG\r\n":
                raise ConnectionError("closed by the server")
        except OSError as error:
            write(f"cut {count} {error} {time.monotonic():.4f}")
            return 0
        now = time.monotonic()
        longest, last, count = max(longest, now - last), now, count + 1
        write(f"open {count} {longest * 1000:.0f}")
        time.sleep(0.005)
    return 1


if __name__ == "__main__":
    sys.exit(main())
