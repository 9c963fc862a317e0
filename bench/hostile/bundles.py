"""make hostile-bundles (H4-bundles): 2,000 changed bundles, each refused by a typed error or served as it is.

Of four tiny bundles, one of each kind of user model and one that carries its model. A refusal is timed: within a second
also where the change is large (a header of a million tensors, lists in lists, of which the slowest is made from the
demo bundle).
"""

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bench.hostile.changes.tensors import read_safetensors, write_safetensors
from bench.hostile.mutants import Mutant, mutants
from bench.hostile.reading import harm
from bench.results import record
from idiolect.bundle import Bundle
from idiolect.errors import BundleError
from idiolect.trained_votes import TrainedVotes
from tests.live import DEMO_BUNDLE
from tests.parts.bundles import small_bank, small_bundle

N_MUTANTS = 2000
LONGEST_MESSAGE = 400


def originals(folder: Path) -> list[Bundle]:
    """A bundle of each kind."""
    return [
        small_bundle(
            folder / "cluster",
            bank=small_bank(),
            cluster_names=("a", "b", "c", "d"),
            trained_votes=TrainedVotes.of(range(1, 100)),
        ),
        small_bundle(folder / "individual", kind="individual"),
        small_bundle(folder / "low_rank", kind="low_rank"),
        small_bundle(folder / "merged", merged=True),
    ]


def outcome(mutant: Mutant, original: Bundle, folder: Path) -> tuple[str, float]:
    """refused, equal (with the same id), another (sound, with an id of its own), or what is wrong; and the seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / "bundle"
    shutil.copytree(original.path, path)
    mutant.make(path)
    began = time.perf_counter()
    try:
        taken = Bundle.read(path)
    except BundleError as error:
        taken_s = time.perf_counter() - began
        short = len(error.message) <= LONGEST_MESSAGE and error.message.isprintable()
        return "refused" if short else f"a message of {len(error.message)} characters", taken_s
    except Exception as error:
        return f"{type(error).__name__}: {error}", time.perf_counter() - began
    taken_s = time.perf_counter() - began
    try:
        wrong = harm(taken, original)
    except Exception as error:
        wrong = f"another reader fails: {type(error).__name__}: {error}"
    return wrong or ("equal" if taken.bundle_id == original.bundle_id else "another"), taken_s


def study(n_mutants: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """`n_mutants` outcomes, counted, and the slowest refusal."""
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    faults, slowest_s = [], 0.0
    bundles = originals(folder)
    streams = cycle([(bundle, mutants(bundle.path, rng)) for bundle in bundles])
    for original, stream in islice(streams, n_mutants):
        mutant = next(stream)
        what, taken_s = outcome(mutant, original, folder / "changed")
        slowest_s = max(slowest_s, taken_s)
        if what in ("refused", "equal", "another"):
            found[what] += 1
        else:
            faults.append(f"{original.path.name}: {mutant.name}: {what}")
    return {"mutants": n_mutants, **found, "other_outcomes": len(faults), "faults": faults, "slowest_s": slowest_s}


def large() -> Iterator[Mutant]:
    """Changes whose size is the attack, of the demo bundle."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    many = "{" + ",".join(f'"t{number}":{_json(entry)}' for number in range(1_000_000)) + "}"
    for name in ("basis.safetensors", "users.safetensors", "bank.safetensors", "adapter/adapter_model.safetensors"):
        yield Mutant(f"a million tensors in {name}", _header(name, many))
        yield Mutant(f"20,000 tensors in {name}", _header(name, many[: many.index('"t20000"') - 1] + "}"))
    deep = "[" * 200_000 + "]" * 200_000
    yield Mutant("200,000 lists in lists", _text("manifest.json", f'{{"training": {deep}}}'), seal=None)
    yield Mutant("a manifest of 1 MiB of keys", _text("manifest.json", _json(dict.fromkeys(map(str, range(90_000))))))
    for name, line in (("bank.jsonl", "{}\n"), ("adapter/adapter_config.json", '{"r":1}'), ("bank.jsonl", "\n")):
        yield Mutant(f"{name} of 60 MiB", _text(name, line * ((60 << 20) // len(line))))
    yield Mutant("a manifest of 1 GiB", _hole("manifest.json", 1 << 30), seal=None)
    yield Mutant("5,000 files", _crowd, seal=None)


def _json(values: Any) -> str:
    return str(values).replace("'", '"').replace("None", "null")


def _header(name: str, header: str) -> Callable[[Path], None]:
    return lambda bundle: write_safetensors(bundle / name, header, read_safetensors(bundle / name)[1])


def _text(name: str, text: str) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        (bundle / name).write_text(text)

    return change


def _hole(name: str, n_bytes: int) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        with (bundle / name).open("r+b") as file:
            file.truncate(n_bytes)

    return change


def _crowd(bundle: Path) -> None:
    for number in range(5000):
        (bundle / "adapter" / f"{number}.bin").touch()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        value = study(N_MUTANTS, Path(name))
        original = Bundle.read(DEMO_BUNDLE)
        outcomes = {mutant.name: outcome(mutant, original, Path(name) / "large") for mutant in large()}
    value["large"] = len(outcomes)
    value["large_not_refused"] = sum(what != "refused" for what, _ in outcomes.values())
    value["slowest_s"] = round(max(value["slowest_s"], *(taken_s for _, taken_s in outcomes.values())), 3)
    for name, (what, taken_s) in outcomes.items():
        sys.stderr.write(f"{taken_s:6.3f} s  {name}: {what}\n")
    for fault in value.pop("faults"):
        sys.stderr.write(f"{fault}\n")
    sys.stdout.write(f"{value}\n")
    record("H4-bundles", value)


if __name__ == "__main__":
    main()
