"""What the files that install this project promise each other."""

import ast
import configparser
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from convlstm import _version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


def read_pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read_setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser(delimiters=("=",))
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return setup


def read_constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def lines(value: str) -> list[str]:
    return [line for line in value.splitlines() if line and not line.startswith("#")]


def test_pip_and_uv_are_given_the_same_constraints() -> None:
    uv = read_pyproject()["tool"]["uv"]
    assert uv["constraint-dependencies"] == read_constraints()


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_constraint_is_one_exact_version_on_every_python(python: str) -> None:
    applying: dict[str, str] = {}
    for requirement in map(Requirement, read_constraints()):
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            assert requirement.name not in applying, f"{requirement.name} has two versions on Python {python}"
            applying[requirement.name] = str(requirement.specifier)
    inexact = {name: version for name, version in applying.items() if not re.fullmatch(r"==\d+(\.\w+)*", version)}
    assert inexact == {}


def test_setuptools_stays_one_that_can_build_chainer() -> None:
    (pin,) = [r for r in map(Requirement, read_constraints()) if r.name == "setuptools"]
    pyproject = read_pyproject()
    assert pyproject["tool"]["uv"]["build-constraint-dependencies"] == ["setuptools<82"]
    (build,) = map(Requirement, pyproject["build-system"]["requires"])
    version = str(pin.specifier).removeprefix("==")
    assert Requirement("setuptools<82").specifier.contains(version)
    assert build.specifier.contains(version)


def test_everything_that_the_default_install_brings_is_constrained() -> None:
    constrained = {
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, read_constraints())
        if requirement.marker is None or requirement.marker.evaluate()
    }
    development = [Requirement(text) for text in read_pyproject()["dependency-groups"]["dev"]]
    unvisited, seen = development, set()
    while unvisited:
        requirement = unvisited.pop()
        name = canonicalize_name(requirement.name)
        for extra in requirement.extras | {""}:
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in metadata.requires(name) or []:
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    needed.marker = None
                    unvisited.append(needed)
    reached = {name for name, _ in seen} - {"convlstm"}
    assert {"numpy", "chainer", "pytest", "matplotlib"} <= reached
    assert reached <= constrained, f"not in constraints.txt: {sorted(reached - constrained)}"


def test_every_folder_of_python_files_is_packaged_once() -> None:
    setup = read_setup()
    packages = lines(setup["options"]["packages"])
    # The link convlstm/backends is left out: the folder backends/ is what it leads to.
    folders = {p.parent.relative_to(ROOT) for p in (ROOT / "convlstm").rglob("*.py")} | {Path("backends")}
    folders.discard(Path("convlstm/backends"))
    named = {"convlstm.backends" if folder == Path("backends") else ".".join(folder.parts) for folder in folders}
    assert sorted(packages) == sorted(named)
    places = dict(line.replace(" ", "").split("=") for line in lines(setup["options"]["package_dir"]))
    assert places == {"convlstm": "convlstm", "convlstm.backends": "backends"}
    link = ROOT / "convlstm" / "backends"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "backends"


def test_every_package_that_the_code_imports_is_asked_for() -> None:
    setup = read_setup()
    asked = lines(setup["options"]["install_requires"])
    asked += [line for extra in setup["options.extras_require"].values() for line in lines(extra)]
    # CuPy has a name for every CUDA version, and is not installed where there is no GPU.
    names = {re.sub(r"^cupy-cuda\d+x$", "cupy", canonicalize_name(Requirement(line).name)) for line in asked}
    modules = {"cupyx": ["cupy"], **metadata.packages_distributions()}
    imported = {name for path in code() for name in imports(path)} - sys.stdlib_module_names - {"convlstm"}
    assert {"numpy", "cupy"} <= imported
    missing = {name for name in imported if not names & set(map(canonicalize_name, modules.get(name, [name])))}
    assert missing == set()


def code() -> list[Path]:
    return [path for folder in ("convlstm", "backends") for path in (ROOT / folder).rglob("*.py")]


def imports(path: Path) -> set[str]:
    """Return the top-level packages that a file imports by absolute name, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_the_extra_all_is_the_sum_of_the_extras_that_need_no_gpu_and_are_no_data() -> None:
    extras = read_setup()["options.extras_require"]
    code = [name for name in extras if name not in ("all", "sst") and not name.startswith("cuda")]
    parts = [line for name in code for line in lines(extras[name])]
    assert sorted(lines(extras["all"])) == sorted(set(parts))


def test_the_installed_version_is_the_one_that_is_written_down() -> None:
    assert metadata.version("convlstm") == _version.__version__


def files_of_the_project() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: only git knows which files belong to the project")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file() and not path.is_symlink()]


def test_no_file_names_a_package_registry_or_a_folder_of_somebodys_machine() -> None:
    # In pieces, so that this file does not name one itself.
    hosts = ["pypi" + r"\.org", "python" + r"hosted\.org", r"://[\w.:-]+" + "/simple", "npm" + r"js\.org"]
    folders = [f"(?<![\\w.~-])/{folder}/" + r"[\w.]" for folder in ("root", "work", "home")]
    wanted = re.compile("|".join(hosts + folders).encode())
    assert wanted.search(b"index-url = https" + b"://mirror.example:81/" + b"simple")
    assert wanted.search(b"cd /" + b"root/project")
    paths = files_of_the_project()
    assert ROOT / "setup.cfg" in paths
    found = {
        str(path.relative_to(ROOT)): match.group() for path in paths if (match := wanted.search(path.read_bytes()))
    }
    assert found == {}
