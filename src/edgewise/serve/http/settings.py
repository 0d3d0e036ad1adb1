"""What `edgewise serve` may be told, and the limits a request has to keep to (docs/serving.md lists them)."""

from dataclasses import dataclass, field

MAX_N = 8
MAX_STOPS = 16
MAX_LOGPROBS = 20
MAX_BIASES = 1000
MAX_MESSAGES = 1000
MAX_PROMPTS = 64
MAX_RESPONSES = 1000  # that previous_response_id may name
RESPONSES_BYTES = 32 << 20
JSON_DEPTH = 64
JSON_VALUES = 200_000


@dataclass(frozen=True)
class Settings:
    """Times in seconds, sizes in bytes. keys: any of them opens the door; none: it stands open (loopback only)."""

    host: str = "127.0.0.1"
    port: int = 8899
    keys: tuple[str, ...] = ()
    hosts: frozenset[str] = field(default_factory=frozenset)  # further names this server is called by
    origins: frozenset[str] = field(default_factory=frozenset)  # pages elsewhere that may ask, exact
    body_bytes: int = 4 << 20
    header_bytes: int = 16 << 10
    header_s: float = 10.0
    body_s: float = 30.0  # without a byte of the body
    write_s: float = 30.0  # for a client that does not read
    keep_alive_s: int = 60
    request_s: float = 3600.0
    drain_s: float = 30.0
    ping_s: float = 15.0  # a comment in every silent stream
    connections: int = 512
    max_loaded: int = 0  # models in memory at once; 0: all of them
    keep_s: float = -1.0  # how long a model stays that nobody uses; below 0: for ever
    queue: int = 256  # requests that may wait beside those being computed
