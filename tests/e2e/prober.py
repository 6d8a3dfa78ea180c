"""The program in a container, grown by probes: asks thousands of ports from one thread, and
tells who answered, who refused, what nobody said a word to, and what came in all the same.

An ask is [protocol, address, port, source port]. No two asks of a test share a source port
(see test_worlds.py), so a packet seen in any container names the ask that sent it.
"""
import errno
import pathlib
import selectors
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import agent  # pylint: disable=wrong-import-position

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS = 263, 6
LINGER_NONE = struct.pack("ii", 1, 0)
AT_ONCE = 200  # sockets waiting at the same time


# --- asking -----------------------------------------------------------------------------

class Probe:
    """One ask on a socket of its own, step by step as the socket gets ready."""

    def __init__(self, proto, to, port, source):
        self.tcp = proto == "tcp"
        self.peer = (to, port)
        self.question = f"{source}?".encode()
        self.verdict = None  # [what, who]
        self.sock = agent.make(agent.family_of(to), proto)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.tcp:
            # Closed by a reset: nothing lingers here or in connection tracking.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        self.sock.bind(("", source))
        self.connecting = True

    def settle(self, error):
        name = "refused" if error in agent.REFUSALS else errno.errorcode.get(error, str(error))
        self.verdict = [name, ""]

    def begin(self):
        error = self.sock.connect_ex(self.peer)
        if error not in (0, errno.EINPROGRESS):
            self.settle(error)

    def ask(self):
        try:
            self.sock.send(self.question)
        except OSError as error:
            self.settle(error.errno)

    def advance(self):
        """The socket is ready; what to wait for next."""
        if self.connecting:
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.connecting = False
            if error:
                self.settle(error)
            else:
                self.ask()
            return selectors.EVENT_READ
        try:
            data = self.sock.recv(200)
        except BlockingIOError:
            return selectors.EVENT_READ
        except OSError as error:
            self.settle(error.errno)
            return 0
        echo, rest = data[:len(self.question)], data[len(self.question):]
        self.verdict = ["answered", rest.decode()] if echo == self.question else ["closed", ""]
        return 0


def wait_for(probes, patience):
    """Until each has its verdict; who has none after `patience` seconds met silence."""
    end = time.monotonic() + patience
    with selectors.DefaultSelector() as selector:
        for probe in probes:
            if not probe.verdict:
                wanted = selectors.EVENT_WRITE if probe.connecting else selectors.EVENT_READ
                selector.register(probe.sock, wanted, probe)
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                probe = key.data
                wanted = probe.advance()
                if probe.verdict:
                    selector.unregister(probe.sock)
                else:
                    selector.modify(probe.sock, wanted, probe)
    for probe in probes:
        probe.verdict = probe.verdict or ["silent", ""]


def do_probe(asks, patience):
    verdicts = []
    for start in range(0, len(asks), AT_ONCE):
        probes = [Probe(*ask) for ask in asks[start:start + AT_ONCE]]
        for probe in probes:
            probe.begin()
        wait_for(probes, patience)
        for probe in probes:
            probe.sock.close()
        verdicts += [probe.verdict for probe in probes]
    return verdicts


flows = []


def do_open_flows(asks, patience):
    """As do_probe(), but the sockets stay open for talk_flows()."""
    fresh = [Probe(*ask) for ask in asks]
    for probe in fresh:
        probe.begin()
    wait_for(fresh, patience)
    flows.extend(fresh)
    return [probe.verdict for probe in fresh]


def do_talk_flows(patience):
    """Asks again on each open flow, then closes it."""
    for flow in flows:
        flow.verdict = None
        flow.ask()
    wait_for(flows, patience)
    verdicts = [flow.verdict for flow in flows]
    for flow in flows:
        flow.sock.close()
    flows.clear()
    return verdicts


# --- answering --------------------------------------------------------------------------

def listener(proto, port, family):
    sock = agent.make(family, proto)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(("", port))
    if proto == "tcp":
        sock.listen(1024)
    return sock


def serve(selector):
    """Every question comes back with our name behind it; on a mute port nothing does."""
    while True:
        for key, _ in selector.select():
            sock, (role, mute) = key.fileobj, key.data
            try:
                if role == "listener":
                    connection, _ = sock.accept()
                    connection.setblocking(False)
                    selector.register(connection, selectors.EVENT_READ, ("connection", mute))
                    continue
                data, sender = sock.recvfrom(2000)
                if role == "connection" and not data:
                    raise ConnectionResetError
                if not mute and role == "connection":
                    sock.send(data + agent.NAME)
                elif not mute:
                    sock.sendto(data + agent.NAME, sender)
            except BlockingIOError:
                continue
            except OSError:  # a datagram's sender may be gone, a connection reset
                if role == "connection":
                    selector.unregister(sock)
                    sock.close()


sniffer = None


def do_stand(ports, mute):
    """Answers on these ports of both protocols and families, keeps silent on the port `mute`,
    and from now on notes what comes in by eth0."""
    global sniffer
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    sniffer.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
    sniffer.bind(("eth0", ETH_P_ALL))
    sniffer.setblocking(False)
    selector = selectors.DefaultSelector()
    for port in [*ports, mute]:
        for proto in ("tcp", "udp"):
            for family in agent.FAMILIES:
                role = "listener" if proto == "tcp" else "datagrams"
                selector.register(listener(proto, port, family), selectors.EVENT_READ,
                                  (role, port == mute))
    threading.Thread(target=serve, args=(selector,), daemon=True).start()
    return True


def ports_of(packet):
    """(protocol, family, source port, destination port), or None for anything else."""
    family = packet[0] >> 4
    number, start = (packet[9], (packet[0] & 15) * 4) if family == 4 else (packet[6], 40)
    if number not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return None
    proto = "tcp" if number == socket.IPPROTO_TCP else "udp"
    return (proto, family, *struct.unpack_from("!HH", packet, start))


def do_arrived():
    """What came in since the last time, whether or not anybody answered it."""
    seen = set()
    while True:
        try:
            packet, (_, _, kind, *_) = sniffer.recvfrom(100)
        except BlockingIOError:
            break
        if kind != socket.PACKET_OUTGOING and len(packet) >= 28:
            seen.add(ports_of(packet))
    _, lost = struct.unpack("II", sniffer.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    return {"seen": sorted(seen - {None}), "lost": lost}


# --- names ------------------------------------------------------------------------------

def do_ask_names(questions, server, patience):
    """Questions are [name, type], all on the way at once; answers are [rcode, data...]."""
    import dns.message
    import dns.rcode

    waiting = {}
    for number, (name, kind) in enumerate(questions):
        query = dns.message.make_query(name, kind)
        query.id = number + 1
        waiting[query.id] = query.to_wire()
    answers = {}
    end = time.monotonic() + patience
    with agent.make(agent.family_of(server), "udp") as sock:
        sock.connect((server, 53))
        while waiting and time.monotonic() < end:
            for wire in waiting.values():
                sock.send(wire)
            sock.settimeout(1.0)
            try:
                while waiting:
                    reply = dns.message.from_wire(sock.recv(4096))
                    if waiting.pop(reply.id, None) is not None:
                        data = sorted(item.to_text() for rrset in reply.answer for item in rrset)
                        answers[reply.id] = [dns.rcode.to_text(reply.rcode()), *data]
            except socket.timeout:
                continue  # asks again what is still open
    return [answers.get(number + 1, ["TIMEOUT"]) for number in range(len(questions))]


for command in ("probe", "open_flows", "talk_flows", "stand", "arrived", "ask_names"):
    setattr(agent, "do_" + command, globals()["do_" + command])

if __name__ == "__main__":
    agent.main()
