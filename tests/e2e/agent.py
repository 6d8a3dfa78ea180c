"""A program in a container: does with real sockets what the test asks for.

Commands come as JSON, a line each, on standard input; answers carry the command's number.
Each command runs in a thread of its own, so that one that waits holds up nobody.
"""
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
REFUSALS = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM,
            errno.ECONNRESET}
kept = {}
served = {}


def make(family, proto):
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    return socket.socket(FAMILIES[family], kind)


def family_of(address):
    return 6 if ":" in address else 4


def outcome(action):
    """"answered", "refused" or "silent", and how long that took."""
    start = time.monotonic()
    try:
        result = action()
    except socket.timeout:
        result = "silent"
    except OSError as error:
        result = "refused" if error.errno in REFUSALS else errno.errorcode[error.errno]
    return {"result": result, "ms": round((time.monotonic() - start) * 1000)}


def exchange(sock):
    sock.send(b"ping")
    answer = sock.recv(100)
    return "answered" if answer.startswith(b"ping") else "closed"


def do_serve(proto, port, family=0, address=None):
    """Echoes, and says who it is. Family 46: both by one socket, and so in one moment."""
    for one in (4, 6) if family == 0 else (family,):
        both, one = one == 46, 6 if one == 46 else one
        sock = make(one, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if one == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        sock.bind((address or ("0.0.0.0" if one == 4 else "::"), port))
        served[(proto, port, one)] = sock
        counts[(proto, port)] = counts.get((proto, port), 0)
        if proto == "tcp":
            sock.listen(128)
            threading.Thread(target=accept_all, args=(sock, port), daemon=True).start()
        else:
            threading.Thread(target=echo_datagrams, args=(sock, port), daemon=True).start()
    return True


counts = {}


def accept_all(sock, port):
    while True:
        try:
            connection, _ = sock.accept()
        except OSError:
            return
        counts[("tcp", port)] += 1
        threading.Thread(target=echo_stream, args=(connection,), daemon=True).start()


def echo_stream(connection):
    try:
        while data := connection.recv(65536):
            connection.sendall(data + NAME)
    except OSError:
        pass
    connection.close()


def echo_datagrams(sock, port):
    while True:
        try:
            data, sender = sock.recvfrom(65536)
        except OSError:
            return
        counts[("udp", port)] += 1
        sock.sendto(data + NAME, sender)


def do_count(proto, port):
    return counts.get((proto, port), 0)


def do_unserve(proto, port):
    for key in [key for key in served if key[:2] == (proto, port)]:
        sock = served.pop(key)
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        sock.close()
    return True


def do_ask(proto, to, port, timeout=5.0, source=None):
    """Connects, asks, closes."""
    with make(family_of(to), proto) as sock:
        sock.settimeout(timeout)

        def action():
            if source:
                sock.bind((source, 0))
            sock.connect((to, port))
            return exchange(sock)

        return outcome(action)


def do_open(key, proto, to, port, timeout=5.0):
    sock = make(family_of(to), proto)
    sock.settimeout(timeout)
    kept[key] = sock

    def action():
        sock.connect((to, port))
        return exchange(sock)

    return outcome(action)


def do_talk(key, timeout=5.0):
    kept[key].settimeout(timeout)
    return outcome(lambda: exchange(kept[key]))


def do_stream(key, until):
    """Asks on an open connection all the time; how often, and the longest wait in ms."""
    sock = kept[key]
    sock.settimeout(10)
    rounds, longest = 0, 0.0
    try:
        while not os.path.exists(until):
            start = time.monotonic()
            if exchange(sock) != "answered":
                break
            longest = max(longest, time.monotonic() - start)
            rounds += 1
            time.sleep(0.001)
        end = "stopped"
    except OSError as error:
        end = errno.errorcode.get(error.errno, str(error))
    return {"rounds": rounds, "longest_ms": round(longest * 1000), "end": end}


def ask_by_name(name, port, family):
    """As a program would: looks up, connects, asks, closes. What came of it, and in what."""
    try:
        to = socket.getaddrinfo(name, port, FAMILIES[family], socket.SOCK_STREAM)[0][4]
    except socket.gaierror as failure:
        return f"lookup: {failure.strerror}"
    with make(family, "tcp") as sock:
        for what in ("connect", "exchange"):
            sock.settimeout(30 if what == "connect" else 5)
            try:
                answer = sock.connect(to) if what == "connect" else exchange(sock)
            except OSError as error:
                return f"{what} v{family}: {errno.errorcode.get(error.errno, str(error))}"
    return answer


def in_parallel(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def do_loops(name, port, count, until, pause=0.1):
    """So many clients at a time, half of them by IPv6; what came of their asks, and of those that
    were answered the beginning and the end."""
    outcomes, answered, guard = {}, [], threading.Lock()

    def client(number):
        time.sleep(pause * number / count)
        while not os.path.exists(until):
            began = time.monotonic()
            outcome = ask_by_name(name, port, 4 if number % 2 else 6)
            with guard:
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                if outcome == "answered":
                    answered.append((round(began, 4), round(time.monotonic(), 4)))
            time.sleep(pause)

    in_parallel([threading.Thread(target=client, args=(number,)) for number in range(count)])
    return {"outcomes": outcomes, "answered": answered}


def do_hammer(targets, until):
    """Tries each target again and again, waiting for none; who is tried counts what arrives."""
    sent = {"tcp": 0, "udp": 0}
    datagrams = {family: make(family, "udp") for family in FAMILIES}
    for sock in datagrams.values():
        sock.setblocking(False)
    while not os.path.exists(until):
        for proto, to, port in targets:
            try:
                if proto == "udp":
                    datagrams[family_of(to)].sendto(b"ping", (to, port))
                else:
                    with make(family_of(to), proto) as sock:
                        sock.setblocking(False)
                        sock.connect((to, port))
            except OSError:
                pass  # in progress, or the refusal of an earlier one
            sent[proto] += 1
        time.sleep(0.005)
    return {"sent": sum(sent.values()), **sent}


def do_lookup(name, family=0):
    """As a program would: getaddrinfo of the C library."""
    kind = FAMILIES.get(family, socket.AF_UNSPEC)
    start = time.monotonic()
    try:
        found = sorted({entry[4][0] for entry in socket.getaddrinfo(name, None, kind)})
        error = ""
    except socket.gaierror as failure:
        found, error = [], failure.strerror
    return {"addresses": found, "error": error, "ms": round((time.monotonic() - start) * 1000)}


def do_run(argv, timeout=10.0):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def do_query(name, kind, server, tcp=False, timeout=5.0, source=None):
    import dns.flags
    import dns.message
    import dns.query
    import dns.rcode

    query = dns.message.make_query(name, kind, use_edns=0)
    ask = dns.query.tcp if tcp else dns.query.udp
    try:
        reply = ask(query, server, timeout=timeout, source=source)
    except dns.exception.Timeout:
        return {"rcode": "TIMEOUT"}
    return {
        "rcode": dns.rcode.to_text(reply.rcode()),
        "flags": dns.flags.to_text(reply.flags),
        "answers": [item.to_text() for rrset in reply.answer for item in rrset],
        "authority": [rrset.to_text() for rrset in reply.authority],
        "options": [option.to_text() for option in reply.options],
    }


def do_questions(name, server, count, until):
    """So many at a time, and each is sent once, as no C library does it; what came of them, and the
    longest wait in ms."""
    rcodes, waits, guard = {}, [], threading.Lock()

    def client():
        while not os.path.exists(until):
            start = time.monotonic()
            # One that is late on a busy machine is not lost.
            rcode = do_query(name, "A", server, timeout=30.0)["rcode"]
            with guard:
                waits.append(time.monotonic() - start)
                rcodes[rcode] = rcodes.get(rcode, 0) + 1
            time.sleep(0.005)

    in_parallel([threading.Thread(target=client) for _ in range(count)])
    return {"rcodes": rcodes, "longest_ms": round(max(waits) * 1000)}


def do_raw(hex_frame, ifname="eth0"):
    """A frame as it is, past this container's own network stack."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((ifname, 0))
        return sock.send(bytes.fromhex(hex_frame))


def answer(line):
    command = json.loads(line)
    number, what = command.pop("n"), command.pop("do")
    try:
        reply = {"n": number, "ok": globals()["do_" + what](**command)}
    except Exception as error:  # told to the test, which fails with it
        reply = {"n": number, "error": f"{type(error).__name__}: {error}"}
    with lock:
        print(json.dumps(reply), flush=True)


NAME = b""
lock = threading.Lock()


def main():
    global NAME
    NAME = sys.argv[1].encode()
    for line in sys.stdin:
        threading.Thread(target=answer, args=(line,), daemon=True).start()


if __name__ == "__main__":
    main()
