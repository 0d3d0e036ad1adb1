"""Where models are: a path, the Hugging Face cache (read in place, never copied), or the hub itself.

A model's name on the command line is a path, or `user/repo`, or `user/repo:FILE` or `user/repo:QUANT` for one GGUF
file of a repository. All settings of huggingface_hub hold (HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT,
HF_HUB_OFFLINE). Only what an engine reads is fetched: configuration, tokenizer, safetensors or GGUF.
"""

import errno
import fnmatch
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgewise.base import BadInput, EdgewiseError, OutOfRoom
from edgewise.base.catalog import nearest

WANTED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "*.jinja", "model*.safetensors",
    "model.safetensors.index.json",
)  # fmt: skip
DEFAULT_QUANT = "Q4_K_M"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(:[\w./ -]+)?")
SHARD = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


@dataclass(frozen=True)
class Found:
    """A model on this machine."""

    name: str  # what to type
    path: Path
    kind: str  # "gguf" | "safetensors"
    nbytes: int
    where: str  # "folder" | "cache"


def is_repository(name: str) -> bool:
    return REPOSITORY.fullmatch(name.removeprefix("hf.co/")) is not None


def here(name: str) -> bool:
    """Whether `locate` would find it."""
    try:
        locate(name)
    except BadInput:
        return False
    return True


def locate(name: str) -> Path:
    """The file or folder of a model that is on this machine. Raises BadInput saying how to get it."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    if is_repository(name):
        repo, _, pick = name.removeprefix("hf.co/").partition(":")
        here = [found for found in cached() if found.name.partition(":")[0].lower() == repo.lower()]
        chosen = _choose_cached(here, pick)
        if chosen is not None:
            return chosen.path
        raise BadInput(
            f"There is no file or folder '{name}', and no such model in the Hugging Face cache; "
            f"'edgewise pull {name}' fetches it."
        )
    known = [found.name for found in local(Path.cwd())]
    hint = nearest(name, known) if known else " 'edgewise ls' shows what is here."
    extra = ""
    if re.search(r"\s", name.strip()):
        extra = " If that was meant as a prompt: edgewise run --prompt '…' (the first word after 'run' is the model)."
    raise BadInput(f"There is no model '{_short(name)}'.{hint}{extra}")


def local(folder: Path) -> list[Found]:
    """GGUF files and safetensors folders directly in `folder`."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".gguf" and path.is_file() and not _later_shard(path.name):
            found.append(Found(path.name, path, "gguf", _size(_shards(path)), "folder"))
        elif path.is_dir() and (path / "config.json").is_file():
            parts = list(path.glob("*.safetensors"))
            if parts:
                found.append(Found(path.name, path, "safetensors", _size(parts), "folder"))
    return found


def cached() -> list[Found]:
    """Models in the Hugging Face cache, newest revision of each."""
    return [found for _, _, found in _scan()]


def _scan() -> Iterator[tuple[str, list[str], Found]]:
    """(repo, revision hashes, model). A repository with several GGUF files yields one model for each."""
    import huggingface_hub.constants
    from huggingface_hub.errors import CacheNotFound

    try:
        info = huggingface_hub.scan_cache_dir(huggingface_hub.constants.HF_HUB_CACHE)
    except CacheNotFound:
        return
    for repo in sorted(info.repos, key=lambda repo: repo.repo_id):
        if repo.repo_type != "model" or not repo.revisions:
            continue
        revision = max(repo.revisions, key=lambda revision: revision.last_modified)
        hashes = [one.commit_hash for one in repo.revisions]
        ggufs = sorted(file.file_path for file in revision.files if file.file_name.endswith(".gguf"))
        for path in ggufs:
            if not _later_shard(path.name):
                inside = path.relative_to(revision.snapshot_path).as_posix()
                found = Found(f"{repo.repo_id}:{inside}", path, "gguf", _size(_shards(path)), "cache")
                yield repo.repo_id, hashes, found
        parts = [file.file_path for file in revision.files if file.file_name.endswith(".safetensors")]
        if parts and (revision.snapshot_path / "config.json").exists():
            found = Found(repo.repo_id, revision.snapshot_path, "safetensors", _size(parts), "cache")
            yield repo.repo_id, hashes, found


def remove(name: str) -> int:
    """Deletes a repository from the cache; returns the bytes freed. Files outside the cache are never touched."""
    import huggingface_hub.constants

    repo = name.removeprefix("hf.co/").partition(":")[0]
    matches = {hash_ for id_, hashes, _ in _scan() if id_.lower() == repo.lower() for hash_ in hashes}
    if not matches:
        known = sorted({id_ for id_, _, _ in _scan()})
        hint = nearest(repo, known) if known else " The cache is empty."
        raise BadInput(f"There is no '{repo}' in the Hugging Face cache.{hint}")
    strategy = huggingface_hub.scan_cache_dir(huggingface_hub.constants.HF_HUB_CACHE).delete_revisions(*matches)
    strategy.execute()
    return int(strategy.expected_freed_size)


def pull(name: str, revision: str | None = None) -> Path:
    """Fetches a model into the cache, continuing where an earlier try stopped; returns its file or folder."""
    if not is_repository(name):
        raise BadInput(f"'{_short(name)}' is not a repository name; it looks like user/repo or user/repo:FILE.")
    import huggingface_hub.constants

    repo, _, pick = name.removeprefix("hf.co/").partition(":")
    if huggingface_hub.constants.HF_HUB_OFFLINE and any(found.name.partition(":")[0] == repo for found in cached()):
        return locate(name)
    with _explained(repo):
        # model_info does not retry, so that an unreachable hub is said at once
        info = huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=15.0)
        names = [sibling.rfilename for sibling in info.siblings or []]
    wanted = wanted_files(repo, names, pick)
    with _explained(repo):
        patterns = [_escape(one) for one in wanted]
        folder = Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    ggufs = sorted(one for one in wanted if one.endswith(".gguf"))
    return folder / ggufs[0] if ggufs else folder


def wanted_files(repo: str, names: Sequence[str], pick: str) -> list[str]:
    """Which files of a repository to fetch for `pick`: a file name, a quant name, or "" for the default."""
    ggufs = sorted(name for name in names if name.endswith(".gguf") and "mmproj" not in name.lower())
    if pick and pick in names:
        stem = SHARD.sub("", pick)
        return [name for name in names if name == pick or (SHARD.search(pick) and name.startswith(stem))]
    if pick:
        matches = [name for name in ggufs if pick.lower() in Path(name).name.lower()]
        if not matches:
            raise BadInput(f"{repo} has no file '{pick}'.{nearest(pick, list(names))}")
        return _with_shards(matches)
    if any(name == "config.json" for name in names) and any(fnmatch.fnmatch(n, "model*.safetensors") for n in names):
        return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in WANTED)]
    if ggufs:
        preferred = [name for name in ggufs if DEFAULT_QUANT.lower() in name.lower()]
        return _with_shards(preferred or ggufs)
    raise BadInput(f"{repo} holds neither safetensors with a config.json nor a GGUF file; nothing here can run it.")


def _with_shards(matches: Sequence[str]) -> list[str]:
    first = matches[0]
    stem = SHARD.sub("", first)
    return [name for name in matches if name == first or (SHARD.search(first) and SHARD.sub("", name) == stem)]


def _choose_cached(here: Sequence[Found], pick: str) -> Found | None:
    if pick:
        exact = [found for found in here if found.name.partition(":")[2] == pick]
        close = [found for found in here if pick.lower() in found.name.partition(":")[2].lower()]
        return next(iter(exact or close), None)
    folders = [found for found in here if found.kind == "safetensors"]
    preferred = [found for found in here if DEFAULT_QUANT.lower() in found.name.lower()]
    return next(iter(folders or preferred or here), None)


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into one sentence."""
    from huggingface_hub import constants, errors

    try:
        yield
    except EdgewiseError:
        raise
    except errors.GatedRepoError as error:
        raise BadInput(f"{repo} asks for permission: accept its terms on its page and set HF_TOKEN.") from error
    except errors.RepositoryNotFoundError as error:
        raise BadInput(f"The hub knows no model '{repo}' (or it is private and HF_TOKEN is not set).") from error
    except errors.RevisionNotFoundError as error:
        raise BadInput(f"{repo} has no such revision.") from error
    except errors.HFValidationError as error:
        raise BadInput(f"'{repo}' is not a repository name: {error}") from error
    except errors.OfflineModeIsEnabled as error:
        raise BadInput(f"{repo} is not in the cache and HF_HUB_OFFLINE is set; unset it to download.") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OutOfRoom(f"The disk is full and {repo} is not complete; free some space and pull again.") from error
        raise BadInput(
            f"The hub at {constants.ENDPOINT} could not be reached for {repo} ({type(error).__name__}); "
            "check the connection or HF_ENDPOINT, then pull again: it continues where it stopped."
        ) from error


def _escape(name: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", name)  # a file name as a pattern that matches only itself


def _later_shard(name: str) -> bool:
    return SHARD.search(name) is not None and "-00001-of-" not in name


def _shards(path: Path) -> list[Path]:
    return sorted(path.parent.glob(SHARD.sub("", path.name) + "-*-of-*.gguf")) if SHARD.search(path.name) else [path]


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= 60 else line[:59] + "…"
