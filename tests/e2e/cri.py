"""The requests of a kubelet to containerd, as far as the tests make any: CRI v1, whose few fields
that are used here are written by hand (k8s.io/cri-api, runtime/v1/api.proto)."""
import grpc

SERVICE = "/runtime.v1.RuntimeService/"


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(*fields):
    """Of (number, value): text, bytes of a message, a number, or a dictionary of text."""
    out = b""
    for number, value in fields:
        if isinstance(value, dict):
            out += message(*((number, message((1, key), (2, text))) for key, text in value.items()))
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def fields_of(data):
    """{number: the last value}."""
    return dict(all_fields(data))


def all_fields(data):
    """(number, value); numbers of fixed size are in none of the answers."""
    def take_varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    at = 0
    while at < len(data):
        key = take_varint()
        value = take_varint()
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        yield key >> 3, value


class Pod:
    def __init__(self, cri, name, annotations, dns, attempt, ports=()):
        self.cri, self.attempt = cri, attempt
        servers, searches = dns
        self.config = message(
            (1, message((1, name), (2, f"uid-{name}"), (3, "default"), (4, attempt))), (2, name),
            (4, message(*((1, server) for server in servers), *((2, text) for text in searches))),
            *((5, message((2, port), (3, on_host))) for port, on_host in ports),
            (7, annotations), (8, message((1, f"{cri.engine.cgroups.name}/{name}"))))
        self.id = cri.call("RunPodSandbox", message((1, self.config)))[1].decode()

    def address(self):
        """As the runtime says it: of the namespace's eth0."""
        status = fields_of(self.cri.call("PodSandboxStatus", message((1, self.id)))[1])
        return fields_of(status[5])[1].decode()

    def is_ready(self):
        status = fields_of(self.cri.call("PodSandboxStatus", message((1, self.id)))[1])
        return status.get(3, 0) == 0  # SANDBOX_READY

    def start(self, name, *command):
        config = message((1, message((1, name), (2, self.attempt))),
                         (2, message((1, "docker.io/library/bb:1"))),
                         *((3, word) for word in command))
        container = self.cri.call(
            "CreateContainer", message((1, self.id), (2, config), (3, self.config)))[1].decode()
        self.cri.call("StartContainer", message((1, container)))
        return container

    def stop(self):
        self.cri.call("StopPodSandbox", message((1, self.id)))


class Cri:
    def __init__(self, engine, patience):
        self.engine, self.patience, self.channel = engine, patience, None
        self.connect()

    def connect(self):
        if self.channel:
            self.channel.close()
        self.channel = grpc.insecure_channel(f"unix://{self.engine.address}")

    def call(self, method, request):
        return fields_of(self.answer(method, request))

    def answer(self, method, request):
        return self.channel.unary_unary(SERVICE + method)(request, timeout=self.patience,
                                                          wait_for_ready=True)

    def remove(self, pod):
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            self.call(method, message((1, pod)))

    def remove_all(self):
        """As a kubelet does with what it does not know."""
        for number, pod in all_fields(self.answer("ListPodSandbox", b"")):
            if number == 1:
                self.remove(fields_of(pod)[1].decode())

    def pod(self, name, annotations, dns=((), ()), attempt=0, ports=()):
        """`ports`: of the container, and the node's for each."""
        return Pod(self, name, annotations, dns, attempt, ports)

    def exited(self, container):
        status = fields_of(self.call("ContainerStatus", message((1, container)))[1])
        return status.get(3, 0) == 2  # CONTAINER_EXITED

    def execute(self, container, *command):
        answer = self.call("ExecSync", message((1, container), *((2, word) for word in command),
                                               (3, int(self.patience))))
        return answer.get(3, 0), answer.get(1, b"").decode(), answer.get(2, b"").decode()
